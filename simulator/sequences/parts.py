"""What several sequences share: the points that one repetition reads, the lines of a pool, crushers and samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.events.timeline import ADC, CLOCK, RF, Block, Gradient, Spoiler, Timeline, trapezoid
from ..acquisition.protocol import Protocol
from ..constants import PROTON
from .precession import lines, precession
from .sequence import Pool

SAMPLE = 1e-6
"""Dwell (s) of the one sample that stands for the signal at an echo time."""

CRUSHER = 2e-5
"""Area (T s/m) of a crusher where none is stated: 20 mT/m for a millisecond, a turn for each 1.2 mm."""

CRUSHER_TIME = 1e-3
"""Length (s) of a crusher where it has room."""


# -- points of a protocol


def setting(protocol: Protocol, name: str, point: int = 0, default: float | None = None) -> float:
    """A setting at one point.

    Raises
    ------
    InputError
        It is not stated, and there is no default.
    """
    if name not in protocol:
        if default is None:
            raise InputError(f"protocol {protocol.name}: {name} is missing: sequence {protocol.sequence} needs it")
        return default
    return float(np.broadcast_to(protocol[name], protocol.points)[point])


def repetitions(protocol: Protocol, read_together: Iterable[str]) -> list[tuple[int, ...]]:
    """The points that one repetition reads: alike in every column of the table but those that are read together."""
    together = set(read_together)
    columns = [values for name, values in protocol.table.items() if name not in together]
    groups: dict[tuple[float, ...], list[int]] = {}
    for point in range(protocol.points):
        groups.setdefault(tuple(values[point] for values in columns), []).append(point)
    return [tuple(points) for points in groups.values()]


def at_point(protocol: Protocol, point: int, **changes: float) -> Protocol:
    """The protocol of one point, with some of its columns changed."""
    columns = {name: (changes.get(name, values[point]),) for name, values in protocol.table.items()}
    return dataclasses.replace(protocol, table=columns)


def first_echo(protocol: Protocol) -> Protocol:
    """The point of the shortest echo time, where S_ref of a spin echo is taken."""
    return at_point(protocol, int(np.argmin(np.broadcast_to(protocol["TE"], protocol.points))))


# -- a pool


def sum_of_lines(pool: Pool, protocol: Protocol, times: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Signal (point,) of a pool's lines after these times (s) of free precession: 1 where none has turned."""
    frequency, share = lines(pool, protocol)
    total: NDArray[np.complex128] = share @ precession(frequency, times)
    return total


def line_shares(pool: Pool, protocol: Protocol) -> float:
    """What is left of a pool when its lines are in phase: 1 but for what fat suppression takes."""
    return float(lines(pool, protocol)[1].sum())


# -- events in time


def centred(pulse: RF, time: float) -> RF:
    """The pulse with its reference point at this time of the block (s)."""
    return dataclasses.replace(pulse, delay=time - (pulse.reference - pulse.delay))


def sample(time: float) -> ADC:
    """One sample at this time of the block (s)."""
    return ADC(1, SAMPLE, time - SAMPLE / 2)


def crushers(pulse: RF, area: float, room: float) -> tuple[Gradient, ...]:
    """A crusher along z (T s/m) before a pulse and an equal one after it, within the room on either side (s).

    Raises
    ------
    InputError
        There is no room.
    """
    if area == 0:
        return ()
    length = min(CRUSHER_TIME, 0.8 * room)
    if not length > 0:
        raise InputError(f"crusher of the pulse at {pulse.delay:g} s: room is {room:g} s: expected above 0")
    return tuple(trapezoid("z", area, length, 0.2 * length, start) for start in (pulse.delay - length, pulse.end))


def turn_length(area: float) -> float:
    """Length (m) over which a gradient of this area (T s/m) turns the magnetisation once; 0 without one."""
    return 1 / (PROTON * area) if area else 0.0


def one_repetition(protocol: Protocol, point: int, *events: RF | ADC | Gradient | Spoiler) -> Timeline:
    """One repetition of these events, ideally spoiled at its end.

    Raises
    ------
    InputError
        The events overlap, or do not fit into TR.
    """
    TR = setting(protocol, "TR", point)
    last = max(e.end for e in events if not isinstance(e, Spoiler))
    if last > TR + CLOCK:
        raise InputError(f"protocol {protocol.name}: TR is {TR:g} s: expected at least {last:g} s, when its last event "
                         "ends")  # fmt: skip
    try:
        return Timeline((Block(*events, Spoiler(), duration=TR),), name=protocol.name)
    except InputError as error:
        raise InputError(f"protocol {protocol.name}: {error}") from None
