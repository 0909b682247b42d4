"""Spin echoes: one echo, a Dixon readout some time beside it, and a train of them (fast or turbo spin echo)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence as Listed
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events.pulses import pulse
from ..acquisition.events.timeline import CLOCK, RF, Gradient
from ..acquisition.kspace import trajectory
from ..acquisition.protocol import Protocol
from .parts import (
    CRUSHER,
    SAMPLE,
    at_point,
    centred,
    crushers,
    first_echo,
    line_shares,
    one_repetition,
    repetitions,
    sample,
    setting,
    sum_of_lines,
    turn_length,
)
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

EXCITATION = {"shape": "hard", "duration": 50e-6}
REFOCUSING = {"shape": "hard", "duration": 100e-6}
# short, for all offsets alike: with a slice gradient, an offset moves the slice of a pulse but weakens nothing
RIGHT_ANGLE = math.pi / 2
FULL = math.pi

ALONG_X = 0.0
"""Phase of the refocusing pulses: along the magnetisation that the excitation has brought to +Mx, so that errors of
the pulses do not add up (Meiboom and Gill, Rev Sci Instrum 29:688 (1958), doi:10.1063/1.1716296)."""


def signal(pool: Pool, protocol: Protocol, *, off_resonance: Any = 0.0) -> NDArray[Any]:
    """Spin echo of one pool, (row, point), for a density of 1 mol 1H/L: the declared equation ``spin_echo``.

    Real: chemical shift, R2' and `off_resonance` (Hz) are refocused at the echo, where water and all lines of fat add
    in phase. Pools without a 1H echo give 0.
    """
    return _relaxed("spin_echo", pool, protocol) * line_shares(pool, protocol)


def train_signal(pool: Pool, protocol: Protocol, *, off_resonance: Any = 0.0) -> NDArray[Any]:
    """Echoes of a train of perfect 180 degree pulses, (row, point): the declared equation ``spin_echo_train``.

    Real: `off_resonance` (Hz) is refocused at each. What a smaller refocusing angle does (stimulated echoes, J
    coupling) belongs to the rung `engine`.
    """
    _check_train(protocol)
    return _relaxed("spin_echo_train", pool, protocol) * line_shares(pool, protocol)


def dixon_signal(
    pool: Pool, protocol: Protocol, *, R2_prime: bool = True, off_resonance: Any = 0.0
) -> NDArray[np.complex128]:
    """Signal of one pool at `time` after (or before) the spin echo at TE, (row, point).

    Complex: the decay is the declared equation ``shifted_spin_echo``, and each line of the pool has turned for `time`.

    Parameters
    ----------
    R2_prime : bool
        False where the field that causes R2' is put in as such.
    off_resonance : float or array (row, 1)
        Of all pools (Hz).
    """
    if pool.kind in INVISIBLE:
        return np.zeros((1, protocol.points), complex)
    time = np.broadcast_to(protocol["time"], protocol.points)
    rate = pool.get("R2_prime", default=0.0) if R2_prime else 0.0
    turned = sum_of_lines(pool, protocol, time) * np.exp(2j * np.pi * off_resonance * time)
    decayed: NDArray[np.complex128] = _relaxed("shifted_spin_echo", pool, protocol, R2_prime=rate) * turned
    return decayed


def _relaxed(equation: str, pool: Pool, protocol: Protocol, **further: Any) -> NDArray[Any]:
    if pool.kind in INVISIBLE:
        return np.zeros((1, protocol.points))
    theta = {"S0": 1.0, "T1": pool.get("T1_observed"), "T2": pool.get("T2"), **further}
    return equations.get(equation).signal(theta, {**protocol, "TE": protocol["TE"]})


# -- what is played


def pulses(
    protocol: Protocol, point: int, times: Listed[float], until: float, areas: Listed[float], angle: float = FULL
) -> tuple[RF, list[RF | Gradient]]:
    """An excitation, and refocusing pulses at these times (s) after it with a crusher (T s/m) on both sides of each.

    Parameters
    ----------
    until : float
        The first sample after the last pulse (s); the last crusher ends before.

    Returns
    -------
    RF
        The excitation at the start of the block; times count from its reference point.
    list of RF or Gradient
        All events, the excitation included.

    Raises
    ------
    InputError
        The pulses leave no room for the crushers.
    """
    excitation = pulse("excitation", protocol, EXCITATION, RIGHT_ANGLE, use="excitation")
    made = pulse("refocusing", protocol, REFOCUSING, angle, ALONG_X, use="refocusing")
    refocusing = [centred(made, excitation.reference + t) for t in times]
    gaps = [after.delay - before.end for before, after in itertools.pairwise([excitation, *refocusing])]
    # between two refocusing pulses lie two crushers, with the echo in the middle
    room = min(gaps[0], *(g / 2 for g in gaps[1:]), excitation.reference + until - SAMPLE - refocusing[-1].end)
    events: list[RF | Gradient] = [excitation]
    for r, area in zip(refocusing, areas, strict=True):
        try:
            events += [r, *crushers(r, area, room)]
        except InputError as error:
            raise InputError(f"protocol {protocol.name}: {error}") from None
    return excitation, events


def _one_echo(protocol: Protocol, points: tuple[int, ...], times: Listed[float]) -> Played:
    """A spin echo of which these points read a sample at `times` (s) after the excitation."""
    area = setting(protocol, "crusher", points[0], CRUSHER)
    echo_time = setting(protocol, "TE", points[0])
    excitation, events = pulses(protocol, points[0], [echo_time / 2], min(times), [area])
    adcs = [sample(excitation.reference + t) for t in times]
    timeline = one_repetition(protocol, points[0], *events, *adcs)
    # the wanted echo and what lies two turns away at most: three spins keep them apart
    return Played(timeline, points, tuple(range(len(points))), True, turn_length(area), 3 if area else 1)


def played(protocol: Protocol) -> tuple[Played, ...]:
    """A 90 and a 180 degree pulse with a crusher on both sides, and a sample at TE."""
    return tuple(_one_echo(protocol, (p,), [setting(protocol, "TE", p)]) for p in range(protocol.points))


def dixon_played(protocol: Protocol) -> tuple[Played, ...]:
    """A spin echo at TE for each point, and a sample at TE + `time`."""
    moments = [setting(protocol, "TE", p) + setting(protocol, "time", p) for p in range(protocol.points)]
    return tuple(_one_echo(protocol, (p,), [moments[p]]) for p in range(protocol.points))


def train_played(protocol: Protocol) -> tuple[Played, ...]:
    """A 90 degree pulse, and refocusing pulses of `refocusing_angle` with equal crushers; a sample at each echo.

    Equal crushers let stimulated echoes add to the spin echoes, as in every such train.
    """
    _check_train(protocol)
    return tuple(_train(protocol, points) for points in repetitions(protocol, ("echo", "TE")))


def _train(protocol: Protocol, points: tuple[int, ...]) -> Played:
    first = points[0]
    spacing, count = setting(protocol, "spacing", first), round(setting(protocol, "echoes", first))
    area = setting(protocol, "crusher", first, CRUSHER)
    angle = setting(protocol, "refocusing_angle", first, FULL)
    times = [(n + 0.5) * spacing for n in range(count)]
    excitation, events = pulses(protocol, first, times, count * spacing, [area] * count, angle)
    order = tuple(sorted(points, key=lambda p: setting(protocol, "TE", p)))
    adcs = [sample(excitation.reference + setting(protocol, "TE", p)) for p in order]
    timeline = one_repetition(protocol, first, *events, *adcs)
    # at the last echo the magnetisation is at most two turns a pulse away from the wanted
    spins = 2 * count + 1 if area else 1
    return Played(timeline, order, tuple(range(len(order))), True, turn_length(area), spins)


def _check_train(protocol: Protocol) -> None:
    echo = np.broadcast_to(protocol["TE"], protocol.points)
    for p in range(protocol.points):
        number = echo[p] / setting(protocol, "spacing", p)
        last = setting(protocol, "echoes", p)
        if abs(number - round(number)) * setting(protocol, "spacing", p) > CLOCK or not 1 <= round(number) <= last:
            spacing = setting(protocol, "spacing", p)
            raise InputError(
                f"protocol {protocol.name}: echo is {echo[p]:g} s at point {p}: expected one of {last:g} echoes "
                f"{spacing:g} s apart"
            )


def readout(protocol: Protocol) -> trajectory.Trajectory:
    """How k-space is read: one line an echo unless the protocol says otherwise."""
    entries = {"trajectory": "cartesian", **protocol.readout}
    return trajectory.from_entries(entries, f"protocol {protocol.name}: readout")


FIRST_ECHO = "the shortest echo time"
REFOCUSED = {"off_resonance": "of all pools (Hz): refocused at the echo"}


def check(*, off_resonance: Any = 0.0) -> None:
    """Refuse an offset that is no number."""
    if not is_finite(off_resonance):
        raise InputError(f"off_resonance is {off_resonance!r}: expected a number (Hz)")


def _check_dixon(*, R2_prime: Any = True, off_resonance: Any = 0.0, temperature: Any = None) -> None:
    check(off_resonance=off_resonance)
    if not isinstance(R2_prime, bool):
        raise InputError(f"R2_prime is {R2_prime!r}: expected True or False")
    check_temperature(temperature)


def _at_the_echo(protocol: Protocol) -> Protocol:
    """One point, at the spin echo itself."""
    return at_point(protocol, int(np.argmin(np.abs(protocol["time"]))), time=0.0)


spin_echo = Sequence(
    name="spin_echo",
    signal=signal,
    switches=REFOCUSED,
    reference=first_echo,
    check=check,
    played=played,
    pulses=("excitation", "refocusing"),
    readout=readout,
)

spin_echo_dixon = Sequence(
    name="spin_echo_dixon",
    signal=dixon_signal,
    switches={
        "R2_prime": "False leaves out what the field inside a voxel adds to 1/T2",
        "off_resonance": "of all pools (Hz)",
        TEMPERATURE: TEMPERATURE_MEANS,
    },
    reference_point="the spin echo",
    reference=_at_the_echo,
    check=_check_dixon,
    magnitude=False,
    played=dixon_played,
    pulses=("excitation", "refocusing"),
    readout=readout,
)

turbo_spin_echo = Sequence(
    name="turbo_spin_echo",
    signal=train_signal,
    switches=REFOCUSED,
    reference=first_echo,
    reference_point=FIRST_ECHO,
    check=check,
    played=train_played,
    pulses=("excitation", "refocusing"),
    readout=readout,
)
