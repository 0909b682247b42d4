"""What each pulse sequence makes of a spin pool, in closed form: the physics of the rung `pools`.

`registry` maps a sequence's name to a `Sequence`. Its `signal` takes one pool (and the protocol) and returns the
signal of one mol 1H per litre of it; `simulator.scan` multiplies with the density and sums over pools. Another
sequence joins by one function and one entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from .protocol import FatSuppression, Protocol

INVISIBLE = ("macromolecule", "mineral", "phosphorus")
"""Kinds without a 1H echo: no 1H at all, or 1H whose T2 (tens of microseconds) has ended long before any echo."""


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
            if default is None:
                raise InputError(f"pool {self.name} ({self.kind}): {' or '.join(names)} is NaN where it has density")
            found = np.where(np.isnan(found), default, found)
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
    rungs : tuple of str
        What can be simulated of it.
    """

    name: str
    signal: Callable[..., NDArray[Any]]
    switches: Mapping[str, str]
    reference: Callable[[Protocol], Protocol]
    check: Callable[..., None]
    magnitude: bool = True
    rungs: tuple[str, ...] = ("matched", "pools")


def diffusion_spin_echo(
    pool: Pool,
    protocol: Protocol,
    *,
    kurtosis: bool | float = True,
    b_offset: float = 0.0,
    motion_loss: float = 0.0,
    fat_suppression: float | tuple[float, ...] | FatSuppression | None = None,
) -> NDArray[Any]:
    """Diffusion-weighted spin echo of one pool, for a density of 1 mol 1H/L.

    Parameters
    ----------
    pool : Pool
        Blood decays with ``D_star``, everything else with ``D``. T2 rules, not T2*: R2' is refocused.
    protocol : Protocol
        With b (s/mm2), TE and TR (s).
    kurtosis : bool or float
        True (default): each pool's own excess kurtosis. False: none. A number: that of the extravascular water.
    b_offset : float
        What imaging gradients and cross terms add to every nominal b (s/mm2).
    motion_loss : float
        Fraction of the signal lost at b = 1000 s/mm2 through bulk motion that differs inside the voxel. For a
        Gaussian spread of displacements the phase variance goes as b, so the loss is (1 - motion_loss)^(b/1000);
        it comes on top of diffusion and is the same for all pools.
    fat_suppression : float, sequence of float, or FatSuppression
        Instead of the protocol's: a number replaces the efficiency inside the protocol's stop bands (peaks outside
        them stay; without bands it reaches every peak), a sequence gives the efficiency of each peak in turn.

    Returns
    -------
    ndarray (row, point)
        Real. Chemical shift is refocused at the echo, so that water and all fat peaks add in phase: true at the
        echo time alone; what the rest of an EPI readout does (shifted fat) belongs to the rung `scan`. Exchange
        between pools is taken as slow.

    Notes
    -----
    Phase dispersion by motion that is not rigid: Murphy et al., Magn Reson Med 70:1460 (2013),
    doi:10.1002/mrm.24563. The signal itself is the declared equation ``spin_echo_diffusion``.
    """
    points = protocol.points
    if pool.kind in INVISIBLE:
        return np.zeros((1, points))
    if pool.kind == "blood":
        diffusivity = pool.get("D_star")
    else:
        # bound water has no diffusivity one could see: it is gone before the echo
        diffusivity = pool.get("D", default=0.0 if pool.kind == "bound_water" else None)
    excess = pool.get("kurtosis", default=0.0)
    if kurtosis is False:
        excess = np.zeros_like(excess)
    elif kurtosis is not True and pool.kind not in ("fat", "blood"):
        excess = np.full_like(excess, kurtosis)
    theta = {
        "density": 1.0,
        "T1": pool.get("T1_observed"),  # an intrinsic one needs the exchange that goes with it
        "T2": pool.get("T2"),
        "D": diffusivity,
        "kurtosis": excess,
    }
    applied = protocol.replace(b=tuple(protocol["b"] + b_offset)) if b_offset else protocol
    signal = equations.get("spin_echo_diffusion").signal(theta, applied)
    if motion_loss:
        signal = signal * (1 - motion_loss) ** (applied["b"] / 1000)
    if pool.kind == "fat":
        signal = signal * _unsuppressed(pool, protocol, fat_suppression)
    return signal


def _unsuppressed(
    pool: Pool, protocol: Protocol, fat_suppression: float | tuple[float, ...] | FatSuppression | None
) -> float:
    """Fraction of a fat pool's signal that is left by the suppression: its peaks share T1, T2 and D."""
    stated = np.isfinite(pool.shift) & np.isfinite(pool.peak_area)
    shift, area = pool.shift[stated], pool.peak_area[stated]
    if shift.size == 0:
        raise InputError(f"pool {pool.name} (fat): shift and peak_area are NaN: fat needs its spectrum")
    suppression: FatSuppression = protocol.fat_suppression
    if isinstance(fat_suppression, FatSuppression):
        suppression = fat_suppression
    elif isinstance(fat_suppression, (tuple, list)):
        if len(fat_suppression) != shift.size:
            raise InputError(
                f"fat_suppression has {len(fat_suppression)} values: expected one for each of {shift.size} fat peaks"
            )
        return float(np.sum(area * (1 - np.asarray(fat_suppression))) / np.sum(area))
    elif fat_suppression is not None:
        suppression = suppression.with_efficiency(float(fat_suppression))
    return suppression.residual(shift, area)


def _check_diffusion(
    *, kurtosis: Any = True, b_offset: Any = 0.0, motion_loss: Any = 0.0, fat_suppression: Any = None
) -> None:
    if not isinstance(kurtosis, bool) and not (_is_finite(kurtosis) and kurtosis >= 0):
        raise InputError(f"kurtosis is {kurtosis!r}: expected True, False or a number from 0 up")
    if not _is_finite(b_offset):
        raise InputError(f"b_offset is {b_offset!r}: expected a number (s/mm2)")
    if not (_is_finite(motion_loss) and 0 <= motion_loss < 1):
        raise InputError(f"motion_loss is {motion_loss!r}: expected the fraction lost at b = 1000 s/mm2, 0 to below 1")
    if fat_suppression is not None and not isinstance(fat_suppression, FatSuppression):
        listed = fat_suppression if isinstance(fat_suppression, (tuple, list)) else [fat_suppression]
        if not all(_is_finite(e) and 0 <= e <= 1 for e in listed):
            raise InputError(f"fat_suppression is {fat_suppression!r}: expected efficiencies from 0 to 1")


def _at_b0(protocol: Protocol) -> Protocol:
    """One point at b = 0; what rides on the encoding keeps its value at the lowest b."""
    lowest = int(np.argmin(protocol["b"]))
    columns = {name: (values[lowest],) for name, values in protocol.table.items()}
    return dataclasses.replace(protocol, table=columns | {"b": (0.0,)})


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and bool(np.isfinite(value))


registry: dict[str, Sequence] = {
    "diffusion_spin_echo": Sequence(
        name="diffusion_spin_echo",
        signal=diffusion_spin_echo,
        switches={
            "kurtosis": "True (pools' own), False (none) or a number for extravascular water",
            "b_offset": "added to every nominal b (s/mm2)",
            "motion_loss": "fraction lost at b = 1000 s/mm2",
            "fat_suppression": "efficiency (0 to 1), one for each peak, or a FatSuppression",
        },
        reference=_at_b0,
        check=_check_diffusion,
    ),
}


def get(name: str) -> Sequence:
    """The sequence of that name; InputError lists the known ones."""
    if name not in registry:
        raise InputError(f"unknown sequence {name!r}: expected one of {', '.join(registry)}")
    return registry[name]
