"""Any engine's signal as a `Model`: information, bounds and protocol design then work on engines as on equations.

`EngineModel` takes any function of unknowns and settings (an extended phase graph, an exchange engine); `of_sequence`
makes one of a protocol: what its sequence plays, run by the Bloch engine. Unknowns are the tissue's quantities and any
setting of the protocol, so that a signal is differentiated with respect to both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import sequences
from .acquisition.events.timeline import Block, Repeat, Timeline
from .acquisition.protocol import Protocol
from .acquisition.settings import SETTINGS, is_number
from .equations import relaxation, ute
from .model import Quantity, Values, columns, numerical_jacobian
from .playing import isolated
from .sequences.sequence import Played

Run = Callable[[dict[str, NDArray[np.float64]], Mapping[str, Any]], NDArray[Any]]

off_resonance = Quantity("off_resonance", "Hz", -500.0, 500.0, "offset of the precession frequency", latex=r"\Delta f")
TISSUE: Mapping[str, Quantity] = {
    q.name: q for q in (relaxation.S0, relaxation.T1, relaxation.T2, ute.R2star, off_resonance, relaxation.B1)
}
"""Unknowns of the tissue. R2star stands for 1/T2: what decays is taken to be lost for good."""


@dataclass(frozen=True, eq=False)
class EngineModel:
    """An engine's signal as a `Model`.

    Parameters
    ----------
    name : str
    unknowns, settings : sequence of Quantity
    run : function (unknowns, settings) -> ndarray (voxel, point)
        Takes each unknown as an array (voxel,), all of one length, and the settings as `Model.signal` does.
    scales : mapping of str to float
        For unknowns whose value does not tell over what length the signal bends (an offset near 0): that length.

    Notes
    -----
    The Jacobian is `numerical_jacobian`: all perturbed copies go to `run` in one call.
    """

    name: str
    unknowns: tuple[Quantity, ...]
    settings: tuple[Quantity, ...]
    run: Run
    scales: Mapping[str, float] = field(default_factory=dict)

    def signal(self, theta: Values, protocol: Mapping[str, Any]) -> NDArray[Any]:
        """Signal, (voxel, point), real or complex; see `Model`.

        Raises
        ------
        InputError
            An unknown or a setting is missing.
        """
        values = columns(self.unknowns, theta)
        missing = [q for q in self.settings if q.name not in protocol]
        if missing:
            raise InputError(f"model {self.name}: the protocol lacks {missing[0].name} ({missing[0].unit}): "
                             f"{missing[0].meaning}")  # fmt: skip
        held = [np.shape(v)[0] for v in protocol.values() if np.ndim(v) == 2]
        if held and len(values) == 1:  # one tissue under a map of settings
            values = np.repeat(values, max(held), axis=0)
        names = [q.name for q in self.unknowns]
        return self.run({n: np.ascontiguousarray(v) for n, v in zip(names, values.T, strict=True)}, protocol)

    def jacobian(self, theta: Values, protocol: Mapping[str, Any]) -> NDArray[Any]:
        """Derivative of the signal with respect to each unknown, (voxel, point, unknown); see `Model`."""
        return numerical_jacobian(self, theta, protocol, scales=self.scales)


def of_sequence(
    protocol: Protocol,
    unknowns: Sequence[str] = ("S0", "T1", "T2"),
    *,
    settings: Sequence[str] = (),
    exact: bool = True,
) -> EngineModel:
    """What the sequence of a protocol plays, run by the Bloch engine, as a model.

    Parameters
    ----------
    protocol : Protocol
    unknowns : sequence of str
        Of the tissue (`TISSUE`), and settings that are differentiated too: constants of the protocol (``flip_angle``,
        ``TR``), and numbers of its pulses (``excitation.duration``). Without S0, B1 or off_resonance among them these
        are 1, 1 and 0 Hz.
    settings : sequence of str
        Settings that `signal` is to be given each time. What it is given beyond them replaces the protocol's own; a
        `Protocol` replaces the protocol whole.
    exact : bool
        Exponentials for each sample of a pulse instead of steps, whose number would jump with its duration.

    Returns
    -------
    EngineModel
        Its signal is complex, (voxel, point), as the engine's receiver sees it.

    Raises
    ------
    InputError
        A sequence without events, an unknown that is none, or one that has another value at each point.

    Notes
    -----
    Rows that share their settings are one batch of the engine; each other value of a setting is a timeline of its own.
    Where those of one call differ in more than times and amplitudes (a settling time that becomes another number of
    repetitions) the signal would jump, and `signal` raises InputError: state `repetitions`.
    """
    played = sequences.get(protocol.sequence).played
    if played is None:
        raise InputError(f"protocol {protocol.name}: sequence {protocol.sequence} states no events: expected one whose "
                         "events an engine can run")  # fmt: skip
    names = list(unknowns)
    if "R2star" in names and "T2" in names:
        raise InputError(f"model of {protocol.name}: unknowns name T2 and R2star: expected one of the two")
    if "T1" not in names or not {"T2", "R2star"} & set(names):
        raise InputError(f"model of {protocol.name}: unknowns are {', '.join(names)}: expected T1, and T2 or R2star")
    known = {n: TISSUE[n] if n in TISSUE else _quantity(n, protocol) for n in (*names, *settings)}
    varied = [n for n in names if n not in TISSUE]
    listed = [n for n in varied if "." not in n and n not in protocol.constants]
    if listed:
        raise InputError(
            f"model of {protocol.name}: {listed[0]} has a value for each point: expected a setting with one value"
        )

    def run(theta: dict[str, NDArray[np.float64]], given: Mapping[str, Any]) -> NDArray[np.complex128]:
        now, maps = _merged(protocol, given, varied)
        n_voxel = len(theta["T1"])
        B1 = np.broadcast_to(theta.get("B1", maps.pop("B1", np.ones(1))), (n_voxel,))
        shift = np.broadcast_to(theta.get("off_resonance", maps.pop("off_resonance", np.zeros(1))), (n_voxel,))
        T2 = theta["T2"] if "T2" in theta else 1 / np.where(theta["R2star"] == 0, 1e-300, theta["R2star"])
        changing = {n: theta[n] for n in varied} | {n: np.broadcast_to(v, (n_voxel,)) for n, v in maps.items()}
        rows = np.stack(list(changing.values()), axis=1) if changing else np.zeros((n_voxel, 0))
        distinct, group = np.unique(rows, axis=0, return_inverse=True)
        group = group.reshape(-1)
        plans = [played(_with(now, dict(zip(changing, row.tolist(), strict=True)))) for row in distinct]
        _same_structure(protocol, plans)
        signal = np.zeros((n_voxel, now.points), complex)
        for number, plan in enumerate(plans):
            own = np.flatnonzero(group == number)
            signal[own] = isolated(plan, now.points, theta["T1"][own], T2[own], shift[own], B1[own], exact=exact)
        signal *= theta.get("S0", np.ones(1))[:, None]
        return signal

    last = max((float(p.timeline.sample_times().max()) for p in played(protocol) if p.timeline.samples), default=1.0)
    return EngineModel(
        name=f"{protocol.sequence} of {protocol.name}",
        unknowns=tuple(known[n] for n in names),
        settings=tuple(known[n] for n in settings),
        run=run,
        # an offset turns a spin by a radian within this many Hz
        scales={"off_resonance": 1 / (2 * math.pi * last)},
    )


# -- settings


def _quantity(name: str, protocol: Protocol) -> Quantity:
    """A setting of the protocol that may be differentiated."""
    pulse, _, entry = name.partition(".")
    if entry:
        value = protocol.pulses.get(pulse, {}).get(entry)
        if not is_number(value):
            stated = [f"{p}.{e}" for p, own in protocol.pulses.items() for e, v in own.items() if is_number(v)]
            raise InputError(f"model of {protocol.name}: {name} is no number of a stated pulse: expected one of "
                             f"{', '.join(stated) or '(none is stated)'}")  # fmt: skip
        unit = "s" if entry in ("duration", "dwell", "center") else ""
        return Quantity(name, unit, 0.0, math.inf, f"{entry} of the {pulse} pulse")
    if name not in SETTINGS or name not in protocol:
        known = ", ".join(dict.fromkeys([*TISSUE, *protocol.constants]))
        raise InputError(f"model of {protocol.name}: {name} is no unknown: expected one of {known}, or a number of a "
                         "pulse (excitation.duration)")  # fmt: skip
    s = SETTINGS[name]
    return Quantity(name, s.unit, s.low, s.high, s.meaning)


def _merged(
    protocol: Protocol, given: Mapping[str, Any], varied: Sequence[str]
) -> tuple[Protocol, dict[str, NDArray[np.float64]]]:
    """The protocol with what is given in place of its own, and the settings that each voxel has for itself."""
    maps: dict[str, NDArray[np.float64]] = {}
    changes: dict[str, Any] = {}
    if isinstance(given, Protocol):
        protocol = given
        if "B1" in given:
            maps["B1"] = np.atleast_1d(np.asarray(given["B1"], float))
        return protocol, maps
    for name, value in given.items():
        if name in varied or name == "field_strength":
            continue
        array = np.asarray(value, dtype=float)
        if array.ndim == 2 or name in ("B1", "off_resonance"):
            if array.ndim == 1 and array.size > 1:
                raise InputError(
                    f"model of {protocol.name}: {name} has {array.size} values: expected one, or (voxel, 1)"
                )
            maps[name] = array.reshape(-1)
        else:
            changes[name] = tuple(array.tolist()) if array.ndim else float(array)
    return _with(protocol, changes), maps


def _with(protocol: Protocol, changes: Mapping[str, Any]) -> Protocol:
    """The protocol with some settings changed, those of pulses included; TE goes to the column that holds it."""
    plain, pulses = {}, {name: dict(entry) for name, entry in protocol.pulses.items()}
    for name, value in changes.items():
        pulse, _, entry = name.partition(".")
        if entry:
            pulses[pulse][entry] = value
        elif name == "TE" and "TE" not in protocol.table and "TE" not in protocol.constants:
            plain[protocol.encoding] = np.atleast_1d(value)
        else:
            plain[name] = value
    if pulses != protocol.pulses:
        protocol = dataclasses.replace(protocol, pulses=pulses)
    return protocol.replace(**plain) if plain else protocol


def _same_structure(protocol: Protocol, plans: Sequence[tuple[Played, ...]]) -> None:
    kinds = {tuple((p.points, p.samples, p.steady, p.spins, _shape(p.timeline)) for p in plan) for plan in plans}
    if len(kinds) > 1:
        raise InputError(f"model of {protocol.name}: its settings lead to timelines of different blocks: expected the "
                         "same ones, as the signal jumps between them; state repetitions")  # fmt: skip


def _shape(part: Timeline | Block | Repeat) -> Any:
    """Which events a timeline has, without their times and sizes."""
    if isinstance(part, Block):
        return tuple(type(e).__name__ for e in part.events)
    if isinstance(part, Timeline):
        return tuple(map(_shape, part.blocks))
    return part.count, tuple(map(_shape, part.body))
