"""Localised spectroscopy in time: the stimulated echo (STEAM) and the double spin echo (PRESS) at its echo time.

Pulses are given without their slice gradients: what stands here is the timing, the crushers and the relaxation. The
points lie along echo times; what is read after the echo, and J coupling, is the spectrum's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events.pulses import pulse
from ..acquisition.events.timeline import Gradient, Spoiler, trapezoid
from ..acquisition.protocol import Protocol
from .parts import (
    CRUSHER,
    CRUSHER_TIME,
    centred,
    first_echo,
    line_shares,
    one_repetition,
    sample,
    setting,
    turn_length,
)
from .sequence import INVISIBLE, Played, Pool, Sequence
from .spin_echo import FIRST_ECHO, REFOCUSED, check, pulses

RIGHT_ANGLE = math.pi / 2
HARD = {"shape": "hard", "duration": 50e-6}


def steam_signal(pool: Pool, protocol: Protocol, *, off_resonance: Any = 0.0) -> NDArray[Any]:
    """Stimulated echo of one pool at TE, (row, point), for a density of 1 mol 1H/L: ``stimulated_echo``, declared.

    Complex, all lines in phase, and positive: the third pulse has the sense opposite to that of the second. An
    `off_resonance` (Hz) is refocused.
    """
    return _at_echo("stimulated_echo", pool, protocol)


def press_signal(pool: Pool, protocol: Protocol, *, off_resonance: Any = 0.0) -> NDArray[Any]:
    """Second spin echo of one pool at TE, (row, point), for 1 mol 1H/L: the declared equation ``double_spin_echo``.

    Complex, all lines in phase, an `off_resonance` (Hz) refocused. `TE1` is the time of the first echo.
    """
    return _at_echo("double_spin_echo", pool, protocol)


def _at_echo(equation: str, pool: Pool, protocol: Protocol) -> NDArray[Any]:
    if pool.kind in INVISIBLE:
        return np.zeros((1, protocol.points), complex)
    theta = {"S0": 1.0, "T1": pool.get("T1_observed"), "T2": pool.get("T2")}
    relaxed = equations.get(equation).signal(theta, {**protocol, "TE": protocol["TE"]})
    return (relaxed * line_shares(pool, protocol)).astype(complex)


def steam_played(protocol: Protocol) -> tuple[Played, ...]:
    """Three 90 degree pulses, crushed in both halves of TE and ideally spoiled during TM; a sample at TE.

    What remains at the echo lies one turn of the crusher apart at least from the stimulated echo.
    """
    return tuple(_steam(protocol, p) for p in range(protocol.points))


def _steam(protocol: Protocol, point: int) -> Played:
    half, TM = setting(protocol, "TE", point) / 2, setting(protocol, "TM", point)
    area = setting(protocol, "crusher", point, CRUSHER)
    if not area > 0:
        raise InputError(f"protocol {protocol.name}: crusher is 0: expected above 0 T s/m, as without one an FID of "
                         "each pulse adds to the stimulated echo")  # fmt: skip
    excite = pulse("excitation", protocol, HARD, RIGHT_ANGLE)
    store = pulse("storage", protocol, HARD, RIGHT_ANGLE, -RIGHT_ANGLE, use="storage")
    recall = pulse("recall", protocol, HARD, RIGHT_ANGLE, use="recall")
    start = excite.reference
    store, recall = centred(store, start + half), centred(recall, start + half + TM)
    room = min(store.delay - excite.end, start + 2 * half + TM - recall.end)
    length = min(CRUSHER_TIME, 0.8 * room)
    if not length > 0 or not recall.delay > store.end:
        raise InputError(f"protocol {protocol.name}: TE is {2 * half:g} s and TM {TM:g} s: expected room for the "
                         "crushers beside the pulses")  # fmt: skip
    crush: list[Gradient] = [trapezoid("z", area, length, 0.2 * length, t) for t in (store.delay - length, recall.end)]
    spoiled = Spoiler(0.5 * (store.end + recall.delay))
    adc = sample(start + 2 * half + TM)
    timeline = one_repetition(protocol, point, excite, store, recall, *crush, spoiled, adc)
    # the stimulated echo lies at no turn, the FID of the third pulse at one, the other half at two
    return Played(timeline, (point,), (0,), True, turn_length(area), 3)


def press_played(protocol: Protocol) -> tuple[Played, ...]:
    """90, 180 and 180 degrees, the second crushers twice the first so that no stimulated echo adds; a sample at TE."""
    return tuple(_press(protocol, p) for p in range(protocol.points))


def _press(protocol: Protocol, point: int) -> Played:
    TE, TE1 = setting(protocol, "TE", point), setting(protocol, "TE1", point)
    if not 0 < TE1 < TE:
        raise InputError(f"protocol {protocol.name}: TE1 is {TE1:g} s: expected above 0 and below TE, {TE:g} s")
    area = setting(protocol, "crusher", point, CRUSHER)
    times = [TE1 / 2, (TE1 + TE) / 2]
    excite, events = pulses(protocol, point, times, TE, [area, 2 * area])
    timeline = one_repetition(protocol, point, *events, sample(excite.reference + TE))
    # pathways lie up to six turns of the first crusher away from the wanted one
    return Played(timeline, (point,), (0,), True, turn_length(area), 7 if area else 1)


steam = Sequence(
    name="steam",
    signal=steam_signal,
    switches=REFOCUSED,
    reference=first_echo,
    reference_point=FIRST_ECHO,
    check=check,
    magnitude=False,
    played=steam_played,
    pulses=("excitation", "storage", "recall"),
)

press = Sequence(
    name="press",
    signal=press_signal,
    switches=REFOCUSED,
    reference=first_echo,
    reference_point=FIRST_ECHO,
    check=check,
    magnitude=False,
    played=press_played,
    pulses=("excitation", "refocusing"),
)
