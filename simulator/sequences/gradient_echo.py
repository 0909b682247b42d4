"""The spoiled multi-echo gradient echo of chemical-shift-encoded (Dixon) imaging: monopolar or bipolar, interleaved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events.pulses import pulse
from ..acquisition.events.timeline import Block, Gradient, Repeat, Timeline, rf_spoiling, trapezoid
from ..acquisition.kspace import trajectory
from ..acquisition.protocol import Protocol
from .parts import at_point, one_repetition, repetitions, sample, setting, sum_of_lines, turn_length
from .sequence import (
    INVISIBLE,
    TEMPERATURE,
    TEMPERATURE_MEANS,
    Played,
    Pool,
    Sequence,
    check_temperature,
    is_finite,
)

POLARITIES = ("monopolar", "bipolar")
EXCITATION = {"shape": "hard", "duration": 100e-6}

ROUNDED = 1e-3
"""Part by which a whole turn may be rounded: 6.284 is one."""

SETTLING = 6.0
"""Time (s) played before the repetition that is read where its steady state is not solved: four T1 of marrow water."""

SPINS = 64
"""Spins over one turn of the spoiler: configurations of higher order than this have decayed."""


def signal(
    pool: Pool,
    protocol: Protocol,
    *,
    R2_prime: bool = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
    initial_phase: float = 0.0,
    first_echo_phase: float = 0.0,
    bipolar_phase: float = 0.0,
) -> NDArray[Any]:
    """Spoiled gradient echoes of one pool, for a density of 1 mol 1H/L.

    Parameters
    ----------
    pool : Pool
        It decays with R2* = 1/T2 + R2', and each line of its spectrum turns at its own frequency. Water turns at its
        own shift, which carries its temperature.
    protocol : Protocol
        With TE (the column `echo`), TR (s) and flip_angle (rad); `shot` tells the excitation of an interleaved echo.
    R2_prime : bool
        False where the field that causes R2' is put in as such.
    off_resonance : float or array (row, 1)
        Of all pools (Hz).
    B1 : float or array (row, 1)
        Transmit field relative to that of the protocol.
    initial_phase : float
        Phase (rad) at TE 0 of all pools: that of the pulse and of the receiver.
    first_echo_phase : float
        Phase (rad) by which the first echo of each shot is off, as by eddy currents.
    bipolar_phase : float
        Phase (rad) by which the second, fourth, ... echo of each shot is off: what reading in the other sense adds.

    Returns
    -------
    ndarray (row, point)
        Complex. Pools of other kinds than a gradient echo shows give 0; bound water decays with its own T2.

    Notes
    -----
    The decay and the saturation are the declared equation ``spoiled_gradient_echo``. Sources of the phase errors:
    Hernando et al., Magn Reson Med 67:638 (2012), doi:10.1002/mrm.23044 (first echo); Lu et al., Magn Reson Med
    60:198 (2008), doi:10.1002/mrm.21583 (bipolar).
    """
    if pool.kind in INVISIBLE:
        return np.zeros((1, protocol.points), complex)
    rate = 1 / pool.get("T2") + (pool.get("R2_prime", default=0.0) if R2_prime else 0.0)
    theta = {"S0": 1.0, "T1": pool.get("T1_observed"), "R2star": rate}
    scanner = {**protocol, "TE": protocol["TE"], "B1": protocol.get("B1", 1.0) * B1}
    decayed = equations.get("spoiled_gradient_echo").signal(theta, scanner)
    times = np.broadcast_to(protocol["TE"], protocol.points)
    turned = sum_of_lines(pool, protocol, times) * np.exp(2j * np.pi * off_resonance * times)
    wrong = phase_errors(
        protocol, initial_phase=initial_phase, first_echo_phase=first_echo_phase, bipolar_phase=bipolar_phase
    )
    return decayed * (turned * np.exp(1j * wrong))


def phase_errors(
    protocol: Protocol,
    *,
    initial_phase: float = 0.0,
    first_echo_phase: float = 0.0,
    bipolar_phase: float = 0.0,
    **others: Any,
) -> NDArray[np.float64]:
    """What the scanner adds to the phase of each point (rad), (point,): the switches of that name; others do nothing.

    Raises
    ------
    InputError
        A phase of bipolar echoes where they are read monopolar.
    """
    if bipolar_phase and polarity(protocol) != "bipolar":
        raise InputError(f"bipolar_phase is {bipolar_phase:g}: expected 0, as protocol {protocol.name} reads its "
                         'echoes monopolar; readout.polarity = "bipolar" says otherwise')  # fmt: skip
    order = echo_numbers(protocol)
    return initial_phase + first_echo_phase * (order == 0) + bipolar_phase * (order % 2 == 1)


def polarity(protocol: Protocol) -> str:
    """Whether all echoes of a train are read in one sense (``monopolar``), or in turn in both (``bipolar``)."""
    stated = protocol.readout.get("polarity", "monopolar")
    if stated not in POLARITIES:
        raise InputError(
            f"protocol {protocol.name}: readout.polarity is {stated!r}: expected {' or '.join(POLARITIES)}"
        )
    return str(stated)


def echo_numbers(protocol: Protocol) -> NDArray[np.int64]:
    """Number of each point's echo after its excitation, from 0."""
    number = np.zeros(protocol.points, np.int64)
    echo = np.broadcast_to(protocol["TE"], protocol.points)
    for points in repetitions(protocol, ("echo", "TE")):
        number[list(points)] = np.argsort(np.argsort(echo[list(points)], kind="stable"), kind="stable")
    return number


def trains(protocol: Protocol) -> list[tuple[int, ...]]:
    """Points of each excitation, in the order of their echoes."""
    return [tuple(sorted(points, key=lambda p: setting(protocol, "TE", p)))
            for points in repetitions(protocol, ("echo", "TE"))]  # fmt: skip


def played(protocol: Protocol) -> tuple[Played, ...]:
    """One repetition for each excitation: the pulse, a sample at each echo time, spoiling.

    Ideally spoiled unless the protocol states the area of a `spoiler`. With `rf_spoiling` too, whose steady state is
    not that of one repetition, the train is played from equilibrium, with `repetitions` before the one that is read.
    """
    return tuple(_shot(protocol, points) for points in repetitions(protocol, ("echo", "TE")))


def _shot(protocol: Protocol, points: tuple[int, ...]) -> Played:
    first = points[0]
    excitation = pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", first))
    order = sorted(points, key=lambda p: setting(protocol, "TE", p))
    echoes = [sample(excitation.reference + setting(protocol, "TE", p)) for p in order]
    samples = tuple(range(len(order)))
    area = setting(protocol, "spoiler", first, 0.0)
    if not area:
        return Played(one_repetition(protocol, first, excitation, *echoes), tuple(order), samples)
    TR = setting(protocol, "TR", first)
    spoiler = _spoiler(area, max(e.end for e in echoes), TR, protocol.name)
    silent, read = (Block(excitation, *adcs, spoiler, duration=TR) for adcs in ([], echoes))
    if "rf_spoiling" not in protocol:
        timeline = Timeline((read,), name=protocol.name)
        return Played(timeline, tuple(order), samples, True, turn_length(area), SPINS)
    before = int(setting(protocol, "repetitions", first, math.ceil(SETTLING / TR)))
    phases = rf_spoiling(before + 1, setting(protocol, "rf_spoiling", first))
    train = (Repeat((silent,), before, phases[:before]),) if before else ()
    timeline = Timeline((*train, Repeat((read,), 1, phases[before:])), name=protocol.name)
    return Played(timeline, tuple(order), samples, False, turn_length(area), SPINS)


def _spoiler(area: float, start: float, TR: float, name: str) -> Gradient:
    length = min(3e-3, TR - start)
    if not length > 0:
        raise InputError(f"protocol {name}: TR is {TR:g} s: expected room for a spoiler after {start:g} s")
    return trapezoid("z", area, length, 0.2 * length, TR - length)


def readout(protocol: Protocol) -> trajectory.Trajectory | tuple[trajectory.Trajectory, ...]:
    """How k-space is read; of a bipolar train one for each point, every second echo in the other sense.

    Raises
    ------
    InputError
        A trajectory that is not told whole, or one that lasts longer than from echo to echo.
    """
    entries = {name: value for name, value in protocol.readout.items() if name != "polarity"}
    entries = {"trajectory": "cartesian", **entries}
    where = f"protocol {protocol.name}: readout"
    forward = trajectory.from_entries(entries, where)
    _check_room(protocol, forward)
    if polarity(protocol) == "monopolar":
        return forward
    if entries["trajectory"] != "cartesian":
        raise InputError(f"{where}.trajectory is {entries['trajectory']!r}: expected cartesian for a bipolar train")
    backward = trajectory.from_entries({**entries, "reverse": not entries.get("reverse", False)}, where)
    return tuple(backward if number % 2 else forward for number in echo_numbers(protocol))


def _check_room(protocol: Protocol, way: trajectory.Trajectory) -> None:
    if way.knots is None:
        return
    length = float(np.ptp(way.knots))
    for points in repetitions(protocol, ("echo", "TE")):
        spacing = np.diff(sorted(setting(protocol, "TE", p) for p in points))
        if spacing.size and spacing.min() < length - 1e-9:
            raise InputError(
                f"protocol {protocol.name}: readout lasts {length:g} s, ramps included: expected at most "
                f"{spacing.min():g} s, the time from echo to echo"
            )


def _check(
    *,
    R2_prime: Any = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
    initial_phase: Any = 0.0,
    first_echo_phase: Any = 0.0,
    bipolar_phase: Any = 0.0,
    temperature: Any = None,
) -> None:
    if not isinstance(R2_prime, bool):
        raise InputError(f"R2_prime is {R2_prime!r}: expected True or False")
    if not is_finite(off_resonance):
        raise InputError(f"off_resonance is {off_resonance!r}: expected a number (Hz)")
    if not (is_finite(B1) and B1 > 0):
        raise InputError(f"B1 is {B1!r}: expected a number above 0, 1 for the nominal one")
    phases = {"initial_phase": initial_phase, "first_echo_phase": first_echo_phase, "bipolar_phase": bipolar_phase}
    for name, value in phases.items():
        if not is_finite(value):
            raise InputError(f"{name} is {value!r}: expected a number (rad)")
        if abs(value) > 2 * math.pi * (1 + ROUNDED):
            raise InputError(f"{name} is {value:g}: expected rad, -2 pi to 2 pi (given in degrees?)")
    check_temperature(temperature)


def _at_TE_zero(protocol: Protocol) -> Protocol:
    """One point, extrapolated to TE 0; what rides on the echoes keeps its first value."""
    if "echo" in protocol.table:
        return at_point(protocol, 0, echo=0.0)
    return at_point(protocol.replace(TE=0.0), 0)


gradient_echo = Sequence(
    name="gradient_echo",
    signal=signal,
    switches={
        "R2_prime": "False leaves out what the field inside a voxel adds to 1/T2",
        "off_resonance": "of all pools (Hz)",
        "B1": "transmit field relative to that of the protocol",
        "initial_phase": "phase of all pools at TE 0 (rad)",
        "first_echo_phase": "phase error of the first echo after each excitation (rad)",
        "bipolar_phase": "phase error of every second echo of a bipolar train (rad)",
        TEMPERATURE: TEMPERATURE_MEANS,
    },
    reference=_at_TE_zero,
    reference_point="TE 0, extrapolated",
    check=_check,
    magnitude=False,
    played=played,
    readout=readout,
    phase_errors=phase_errors,
    trains=trains,
)
