"""What a pulse sequence is to a scan: its closed-form signal of a spin pool, its switches, where its SNR is defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.events.timeline import Timeline
from ..acquisition.noise import REFERENCE_POINT
from ..acquisition.protocol import Protocol
from ..acquisition.settings import SETTINGS, is_number

INVISIBLE = ("macromolecule", "mineral", "phosphorus")
"""Kinds without a 1H echo: no 1H at all, or 1H whose T2 (tens of microseconds) has ended long before any echo."""

TEMPERATURE = "temperature"
"""Name of the switch that moves water before a sequence sees it: of those in whose signal water and fat beat."""

TEMPERATURE_MEANS = "of the body (C): water moves with it in the spectrum, fat does not; 37 unless given"


@dataclass(frozen=True)
class Pool:
    """One spin pool over some rows: a single row where its properties are the same in every voxel.

    Attributes
    ----------
    name, kind : str
        As in the coords of a phantom's pools.
    values : mapping of str to ndarray (row,)
        ``T1_observed``, ``T2``, ``D``, ... (SI; mm2/s).
    shift, peak_area : ndarray (peak,)
        Spectrum: ppm, with methylene at 1.30, and relative areas.
    """

    name: str
    kind: str
    values: Mapping[str, NDArray[Any]]
    shift: NDArray[Any]
    peak_area: NDArray[Any]

    def get(self, *names: str, default: float | None = None) -> NDArray[Any]:
        """The first of these properties that has a value, row by row.

        Raises
        ------
        InputError
            A row is left without a value, and there is no default.
        """
        found: NDArray[Any] = np.full(max((np.size(v) for v in self.values.values()), default=1), np.nan)
        for name in names:
            if name in self.values:
                found = np.where(np.isnan(found), self.values[name], found)
        if np.isnan(found).any():
            own = np.isfinite(self.values.get("T1_intrinsic", np.nan)).any()
            if default is None and "T1_observed" in names and own:
                raise InputError(f"pool {self.name} ({self.kind}) exchanges, and a closed form needs T1_observed: "
                                 "expected rung engine or scan")  # fmt: skip
            if default is None:
                raise InputError(f"pool {self.name} ({self.kind}): {' or '.join(names)} is NaN where it has density")
            found = np.where(np.isnan(found), default, found)
        return found


@dataclass(frozen=True, eq=False)
class Played:
    """A timeline that an engine runs, and the samples of it that are points of the protocol.

    Attributes
    ----------
    timeline : Timeline
        One repetition, where `steady`; else the whole train from equilibrium.
    points : tuple of int
        Points of the protocol's table. One that stands here several times is the mean of its samples: the spokes after
        a preparation, the two halves of a half-pulse excitation.
    samples : tuple of int
        For each of them the number of its sample in the timeline. A point is the signal of the whole voxel at the
        nominal echo time: the timeline holds an ADC of one sample there, without the gradients of the readout.
    steady : bool
        Whether the signal is that of the periodic steady state of the timeline.
    spread : float
        Length along z (m) over which a voxel's spins are to lie evenly, so that crushers and spoilers act as over any
        whole number of such lengths, or as far as the profile of a slice reaches; 0 where a single spin shows the same.
    spins : int
        How many of them suffice.
    gain : float
        By what the mean signal of these spins is multiplied: `spread` over the thickness of the slice, where they reach
        beyond a slice that is excited.
    around : ndarray (spin, 3), optional
        Where a voxel's spins lie about its centre (m), where along z is not enough.
    selects : str
        Axes along which the pulses select a part of what is imaged: rung `scan` then takes each voxel at its place.
    """

    timeline: Timeline
    points: tuple[int, ...]
    samples: tuple[int, ...]
    steady: bool = True
    spread: float = 0.0
    spins: int = 1
    gain: float = 1.0
    around: NDArray[np.float64] | None = None
    selects: str = ""

    def places(self) -> NDArray[np.float64]:
        """Where a voxel's spins lie along z (spin,), counted from its centre (m)."""
        return self.spread * ((np.arange(self.spins) + 0.5) / self.spins - 0.5)

    def positions(self) -> NDArray[np.float64]:
        """Where a voxel's spins lie (spin, 3), counted from its centre (m)."""
        if self.around is not None:
            return self.around
        found = np.zeros((self.spins, 3))
        found[:, 2] = self.places()
        return found


@dataclass(frozen=True)
class Sequence:
    """A pulse sequence: its closed-form signal of a pool, its switches, and where its SNR is defined.

    Attributes
    ----------
    signal : function (pool, protocol, **switches) -> ndarray (row, point)
    switches : mapping of str to str
        Each confounder that can be switched on, and what its value means.
    reference : function (protocol) -> Protocol
        The one-point protocol at which S_ref of the SNR is taken.
    check : function (**switches)
        Raises InputError for a value that makes no sense.
    magnitude : bool
        Whether the scanner delivers magnitude images.
    played : function (protocol) -> tuple of Played, optional
        What the numerical engines run; without it there is no rung `engine`.
    readout : function (protocol) -> Trajectory or tuple of Trajectory, optional
        How k-space is read, one for each point where they differ; without it there is no rung `scan`.
    pulses : tuple of str
        Its pulses that a protocol may state.
    attenuation : function (pool, protocol, kurtosis=True) -> ndarray (row, point), optional
        What diffusion and flow leave of the signal that the engines find: the walkers' answer.
    phase_errors : function (protocol, **switches) -> ndarray (point,), optional
        Phase (rad) that the scanner adds to each point, of whatever spins: what no pulse has to be played for.
    reference_point : str
        What `reference` is, in words.
    trains : function (protocol) -> sequence of tuple of int, optional
        Points that are read after one excitation, in the order of their echoes, with no refocusing between them.
    """

    name: str
    signal: Callable[..., NDArray[Any]]
    switches: Mapping[str, str]
    reference: Callable[[Protocol], Protocol]
    check: Callable[..., None]
    magnitude: bool = True
    played: Callable[[Protocol], tuple[Played, ...]] | None = None
    readout: Callable[[Protocol], Any] | None = None
    attenuation: Callable[..., NDArray[np.float64]] | None = None
    pulses: tuple[str, ...] = ("excitation",)
    phase_errors: Callable[..., NDArray[np.float64]] | None = None
    reference_point: str = REFERENCE_POINT
    trains: Callable[[Protocol], list[tuple[int, ...]]] | None = None

    @property
    def rungs(self) -> tuple[str, ...]:
        """What can be simulated of it."""
        further = {"engine": self.played, "scan": self.readout}
        return ("matched", "pools", *(name for name, given in further.items() if given is not None))


def is_finite(value: Any) -> bool:
    """Tell a finite number from everything else."""
    return isinstance(value, (int, float, np.integer, np.floating)) and bool(np.isfinite(value))


def check_temperature(celsius: Any) -> None:
    """Refuse what is no temperature of a body (C); None stands for none given.

    Raises
    ------
    InputError
        It is no number, or out of the range that makes sense.
    """
    limit = SETTINGS[TEMPERATURE]
    if celsius is not None and not (is_number(celsius) and limit.low <= celsius <= limit.high):
        raise InputError(f"temperature is {celsius!r}: expected a number from {limit.low:g} to {limit.high:g} (C)")
