"""UTE after a preparation that takes long T2 away: inversion (IR-UTE, STAIR) or saturation, with N spokes for each.

An adiabatic pulse inverts long T2 and saturates bound water, whose T2 is shorter than the pulse. At the inversion time
long T2 crosses zero while bound water has recovered. With a short TR (STAIR) one TI nulls every long T1 nearly as well.
A long rectangular pulse saturates long T2 on resonance instead, and leaves bound water, in part.

TI runs from the middle of the preparation to the middle of its spokes; TR from preparation to preparation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events.pulses import pulse, stated
from ..acquisition.events.timeline import RF
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from .parts import setting
from .precession import lines, precession
from .preparation import followed, turned
from .sequence import Played, Pool, Sequence, is_finite
from .spokes import SWITCHES, after_preparation, check, each_repetition, field_phase, read_as, relaxed, shown, spoke
from .ute import EXCITATION, FIRST_POINT, first_point

INVERSION = {"shape": "hyperbolic_secant", "duration": 8.64e-3, "peak": 750.0, "mu": 4.9}
SATURATION = {"shape": "hard", "duration": 8e-3}
ADIABATIC = ("hyperbolic_secant",)


def prepared(
    pool: Pool,
    protocol: Protocol,
    kept: Callable[[Protocol, int, NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[Any]],
    *,
    R2_prime: bool = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
) -> NDArray[Any]:
    """Mean of the spokes after a preparation, (row, point), complex: the equation ``prepared_spokes``, line by line.

    `kept` gives what the preparation of a point keeps of Mz, (row, line), from the protocol, the point, T2 (row,),
    the frequencies of the lines (row, line), and the strength of B1 (row,) relative to that of the protocol.
    """
    if not shown(pool):
        return np.zeros((1, protocol.points), complex)
    unknowns, T2 = relaxed(pool, R2_prime), pool.get("T2")
    frequency, share = lines(pool, protocol)
    seen, strength = frequency + np.atleast_2d(off_resonance), np.abs(np.ravel(B1))
    out = np.zeros((max(T2.size, len(seen), strength.size), protocol.points), complex)
    for points in each_repetition(protocol):
        several = kept(protocol, points[0], T2, seen, strength)
        some = at_points(protocol, points)
        scanner = {**some, "TE": some["TE"], "B1": some.get("B1", 1.0) * np.abs(B1)}
        scanner.setdefault("spokes_per_preparation", 1.0)
        scanner.setdefault("spoke_TR", 0.0)  # of no effect on a single spoke
        times = np.broadcast_to(some["TE"], len(points))
        for line, (part, phase) in enumerate(zip(share, precession(frequency, times), strict=True)):
            decayed = equations.get("prepared_spokes").signal({**unknowns, "kept": several[:, line]}, scanner)
            out[:, points] += part * phase * decayed
        out[:, points] *= field_phase(times, off_resonance, B1)
    return out


def at_points(protocol: Protocol, points: tuple[int, ...]) -> Protocol:
    """The protocol of some of its points."""
    return protocol.replace(table={name: tuple(v[p] for p in points) for name, v in protocol.table.items()})


def inverted(
    pool: Pool,
    protocol: Protocol,
    *,
    R2_prime: bool = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
    efficiency: float = 1.0,
) -> NDArray[Any]:
    """Inversion-prepared UTE of one pool, for a density of 1 mol 1H/L.

    Parameters
    ----------
    pool : Pool
    protocol : Protocol
        With echo (or TE), TI, TR, spoke_TR (s), flip_angle (rad), spokes_per_preparation.
    R2_prime, off_resonance, B1
        See `spokes.spoiled`.
    efficiency : float
        Of the inversion, on top of what T2 takes from it during the pulse (`preparation.followed`): 1 inverts fully, 0
        leaves Mz as it was.

    Returns
    -------
    ndarray (row, point)
        Complex; each line of fat is inverted as its offset in the sweep tells.

    Raises
    ------
    InputError
        The inversion is no hyperbolic secant: other pulses have no closed form, which is what rung engine is for.
    """

    def kept(
        scan: Protocol, point: int, T2: NDArray[Any], frequency: NDArray[Any], strength: NDArray[Any]
    ) -> NDArray[Any]:
        _closed_form(scan, "inversion", INVERSION, ADIABATIC)
        left = followed(_inversion(scan), T2, frequency, strength * setting(scan, "B1", point, 1.0))
        return 1 - (1 - left) * efficiency

    return prepared(pool, protocol, kept, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def saturated(
    pool: Pool, protocol: Protocol, *, R2_prime: bool = True, off_resonance: Any = 0.0, B1: Any = 1.0
) -> NDArray[Any]:
    """Saturation-prepared UTE of one pool, for a density of 1 mol 1H/L.

    Parameters, returns and errors as `inverted`, without `efficiency`; the saturation pulse is rectangular, of flip
    angle `power` (rad; a quarter turn where none is stated), and feels B1.
    """

    def kept(
        scan: Protocol, point: int, T2: NDArray[Any], frequency: NDArray[Any], strength: NDArray[Any]
    ) -> NDArray[Any]:
        settings = _closed_form(scan, "saturation", SATURATION, ("hard",))
        angle = setting(scan, "power", point, math.pi / 2) * setting(scan, "B1", point, 1.0)
        return turned(angle * strength, settings["duration"], T2, frequency)

    return prepared(pool, protocol, kept, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def _closed_form(protocol: Protocol, name: str, default: dict[str, Any], shapes: tuple[str, ...]) -> dict[str, Any]:
    settings = stated(name, protocol, default)
    if settings["shape"] not in shapes:
        raise InputError(f"protocol {protocol.name}: pulses.{name}.shape is {settings['shape']!r}: expected "
                         f"{' or '.join(shapes)}, which has a closed form, or rung engine")  # fmt: skip
    return settings


def _inversion(protocol: Protocol) -> RF:
    return pulse("inversion", protocol, INVERSION, math.pi, use="inversion")


def _played(protocol: Protocol, preparation: Callable[[int], RF]) -> tuple[Played, ...]:
    runs = []
    for points in each_repetition(protocol):
        excitation = pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", points[0]))
        block = spoke(protocol, points, excitation)
        runs.append(after_preparation(protocol, points, preparation(points[0]), block))
    return tuple(runs)


def played_inverted(protocol: Protocol) -> tuple[Played, ...]:
    """One period for each set of echoes: inversion, spokes about TI, recovery (`spokes.after_preparation`)."""
    return _played(protocol, lambda point: _inversion(protocol))


def played_saturated(protocol: Protocol) -> tuple[Played, ...]:
    """One period for each set of echoes: saturation, spokes about TI, recovery (`spokes.after_preparation`)."""

    def saturation(point: int) -> RF:
        angle = setting(protocol, "power", point, math.pi / 2)
        return pulse("saturation", protocol, SATURATION, angle, use="saturation")

    return _played(protocol, saturation)


def readout(protocol: Protocol) -> Trajectory:
    """Spokes or cones from the centre of k-space."""
    return read_as(protocol, "radial_3d", "cones")


def _check(*, efficiency: Any = 1.0, **others: Any) -> None:
    if not (is_finite(efficiency) and 0 <= efficiency <= 1):
        raise InputError(f"efficiency is {efficiency!r}: expected 0 to 1, the efficiency of the inversion")
    check(**others)


ute_inversion = Sequence(
    name="ute_inversion",
    signal=inverted,
    switches={**SWITCHES, "efficiency": "of the inversion, on top of what T2 takes from it: 0 to 1"},
    reference=first_point,
    check=_check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played_inverted,
    pulses=("inversion", "excitation"),
    readout=readout,
)

ute_saturation = Sequence(
    name="ute_saturation",
    signal=saturated,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played_saturated,
    pulses=("saturation", "excitation"),
    readout=readout,
)
