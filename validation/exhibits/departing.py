"""Echoes as an engine plays them beside what their equation says, over two axes at a time.

Each function takes two grids, (x,) and (y,), and returns the engine's signal and the equation's, (y, x) both. Axes are
in units of the pulse, the echo or the tissue, so that one map speaks for all. Pulses are rectangular, and all of one
length; spins are rows of one batch wherever timelines allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...simulator import equations
from ...simulator.acquisition.events.pulses import ALONG_X, hard
from ...simulator.acquisition.events.timeline import ADC, RF, Block, Event, Gradient, Spoiler, Timeline, trapezoid
from ...simulator.engines import bloch, epg
from ...simulator.engines.isochromats import Isochromats

Floats = NDArray[np.float64]
Pair = tuple[NDArray[Any], Floats]
Values = Mapping[str, Any]

RIGHT, FULL = math.pi / 2, math.pi
PULSE = 500e-6  # s; only its ratio to the other times counts
SAMPLE = 1e-7  # s, the dwell of a sample that stands for a moment
CRUSHER = 2e-5  # T s/m
SPINS = 64  # over a turn of the crusher, where transverse magnetisation lives on
LONG_TR = 20.0  # of T1: nothing of the repetition before is left (2e-9)


# -- pieces of timelines


def sample(time: float) -> ADC:
    """The signal at a moment of the block (s)."""
    return ADC(1, SAMPLE, time - SAMPLE / 2)


def at(time: float, flip_angle: float, phase: float = ALONG_X, duration: float = PULSE) -> RF:
    """A hard pulse with its middle at this time (s)."""
    made = hard(flip_angle, duration, phase=phase)
    return RF(made.waveform, made.dwell, time - duration / 2, phase)


def crushers(pulse: RF, area: float = CRUSHER) -> tuple[Gradient, Gradient]:
    """Equal gradients before and after the pulse, of a tenth of a pulse's length."""
    length = 0.1 * PULSE
    before, after = (trapezoid("z", area, length, 0.2 * length, t) for t in (pulse.delay - length, pulse.end))
    return before, after


def crushed(pulse: RF, area: float = CRUSHER) -> list[Event]:
    """The pulse between its crushers."""
    return [pulse, *crushers(pulse, area)]


def steady(
    events: Sequence[Event], TR: float, T1: ArrayLike, T2: ArrayLike, offset: ArrayLike = 0.0, B1: ArrayLike = 1.0,
    spins: int = 1, spoiled: bool = True,
) -> NDArray[np.complex128]:  # fmt: skip
    """Steady state of repetitions, (row, sample), ideally spoiled or as played; a row is the mean of spins over a turn
    of a crusher."""
    timeline = Timeline((Block(*events, *([Spoiler()] if spoiled else []), duration=TR),))
    rows = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)).ravel() for v in (T1, T2, offset, B1)))
    n = rows[0].size
    place = np.zeros((n, spins, 3))
    place[:, :, 2] = (np.arange(spins) + 0.5) / (spins * timeline.gamma * CRUSHER)
    T1, T2, offset, B1 = (np.repeat(v, spins) for v in rows)
    isochromats = Isochromats(T1, T2, offset, B1, place.reshape(-1, 3))
    return bloch.steady_state(timeline, isochromats, signal=np.repeat(np.arange(n), spins)).signal / spins


def over(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Both grids as (y, x) maps."""
    first, second = np.meshgrid(x, y)
    return first, second


def closed_form(name: str, theta: Values, settings: Values, shape: tuple[int, ...]) -> Floats:
    """The equation's signal for a row of each value, in this shape."""
    size = math.prod(shape)
    flat = {n: np.broadcast_to(v, shape).ravel() for n, v in theta.items()}
    held = {n: np.broadcast_to(v, shape).reshape(size, 1) for n, v in settings.items()}
    return equations.get(name).signal(flat, held)[:, 0].reshape(shape)


# -- gradient echo


def gradient_echo_pulse(x: Floats, y: Floats) -> Pair:
    """Flip angles are B1 of one pulse, lengths over T2 the T2 of the spins."""
    ratio, flip = over(x, y)
    T2, TE, T1, TR = PULSE / ratio, PULSE, 0.5, 50e-3
    found = steady([at(PULSE / 2, RIGHT), sample(PULSE / 2 + TE)], TR, T1, T2, B1=flip / RIGHT)[:, 0]
    theta = {"S0": 1.0, "T1": T1, "R2star": 1 / T2}
    settings = {"flip_angle": flip, "TR": TR, "TE": TE, "B1": 1.0}
    return found.reshape(flip.shape), closed_form("spoiled_gradient_echo", theta, settings, flip.shape)


def gradient_echo_offset(x: Floats, y: Floats) -> Pair:
    offset, flip = over(x / PULSE, y)
    T2, TE, T1, TR = 50e-3, PULSE, 0.5, 50e-3
    found = steady([at(PULSE / 2, RIGHT), sample(PULSE / 2 + TE)], TR, T1, T2, offset, flip / RIGHT)[:, 0]
    theta = {"S0": 1.0, "T1": T1, "R2star": 1 / T2}
    settings = {"flip_angle": flip, "TR": TR, "TE": TE, "B1": 1.0}
    return np.abs(found).reshape(flip.shape), closed_form("spoiled_gradient_echo", theta, settings, flip.shape)


def gradient_echo_spoiling(x: Floats, y: Floats) -> Pair:
    """Spoiler gradient and RF phases of 117 degrees; 12 T1, after which nothing of the start is left (6e-6)."""
    ratio, flip = over(x, y)
    TR, T1 = 10e-3, 100e-3
    T2 = TR / ratio
    found = epg.spoiled_train(T1, T2.ravel(), np.full(120, RIGHT), TR, B1=flip.ravel() / RIGHT)[:, -1]
    theta = {"S0": 1.0, "T1": T1, "R2star": 1 / T2}
    settings = {"flip_angle": flip, "TR": TR, "TE": 0.0, "B1": 1.0}
    return np.abs(found).reshape(flip.shape), closed_form("spoiled_gradient_echo", theta, settings, flip.shape)


# -- inversion recovery


def _inversion_recovery(T2: Floats, offset: Floats, y: Floats) -> Pair:
    """A row of spins for each TI; signals take the sign of Mz before they are read."""
    T1, TR, rows = 1.0, 5.0, []
    for TI in y * T1:
        events: list[Event] = [
            at(PULSE / 2, FULL),
            Spoiler(2 * PULSE),
            at(PULSE / 2 + TI, RIGHT),
            sample(1.5 * PULSE + TI),
        ]
        found = steady(events, TR, T1, T2, offset)[:, 0]
        # off resonance a spin turns by as much as if it had been excited in the middle of the pulse, and little more
        rows.append(np.abs(found) * np.sign((found * np.exp(-2j * math.pi * offset * PULSE)).real) * np.exp(PULSE / T2))
    TIs = np.broadcast_to(y[:, None] * T1, np.shape(rows))
    theta = {"S0": 1.0, "T1": T1, "efficiency": 1.0}
    return np.array(rows), closed_form("inversion_recovery", theta, {"TI": TIs, "TR": TR}, TIs.shape)


def inversion_pulse(x: Floats, y: Floats) -> Pair:
    """Readout in the middle of its pulse, T2 decay since then made good."""
    return _inversion_recovery(PULSE / x, np.zeros(x.size), y)


def inversion_offset(x: Floats, y: Floats) -> Pair:
    return _inversion_recovery(np.full(x.size, 200 * PULSE), x / PULSE, y)


# -- spin echoes and the stimulated echo: pulses of one length, crushed


def _spin_echo(TE: float, start: float = PULSE / 2) -> list[Event]:
    return [at(start, RIGHT), *crushed(at(start + TE / 2, FULL, 0.0))]


def _train(spacing: float, echoes: int) -> list[Event]:
    pulses = [crushed(at(PULSE / 2 + (k + 0.5) * spacing, FULL, 0.0)) for k in range(echoes)]
    return [at(PULSE / 2, RIGHT), *(event for pulse in pulses for event in pulse)]


def _double_echo(TE: float) -> list[Event]:
    """Two echoes of TE/2; the crushers of the second 180 are twice those of the first: no stimulated echo adds."""
    return [*_spin_echo(TE / 2), *crushed(at(PULSE / 2 + 0.75 * TE, FULL, 0.0), 2 * CRUSHER)]


def _stimulated(TE: float, TM: float) -> list[Event]:
    store, recall = at(PULSE / 2 + TE / 2, RIGHT, -RIGHT), at(PULSE / 2 + TE / 2 + TM, RIGHT)
    before, after = crushers(store)[0], crushers(recall)[1]
    return [at(PULSE / 2, RIGHT), store, recall, before, after, Spoiler((store.end + recall.delay) / 2)]


@dataclass(frozen=True)
class Echo:
    """What is played for an equation, from the first pulse's middle to the echo, and its settings without TR."""

    events: tuple[Event, ...]
    settings: Mapping[str, float]
    spins: int
    """So many over a turn of the crusher tell the wanted echo from the others."""
    time: float
    """From the first pulse's middle to the sample (s)."""


TE, SHIFT = 4 * PULSE, 0.5 * PULSE
ECHOES = {
    "spin_echo": Echo((*_spin_echo(TE),), {"TE": TE}, 3, TE),
    "shifted_spin_echo": Echo((*_spin_echo(TE),), {"TE": TE, "time": SHIFT}, 3, TE + SHIFT),
    "spin_echo_train": Echo((*_train(TE, 5),), {"TE": 5 * TE, "spacing": TE, "echoes": 5.0}, 11, 5 * TE),
    "double_spin_echo": Echo((*_double_echo(2 * TE),), {"TE": 2 * TE, "TE1": TE}, 7, 2 * TE),
    "stimulated_echo": Echo((*_stimulated(TE, TE),), {"TE": TE, "TM": TE}, 3, 2 * TE),
}


def echo(name: str, T2: Floats, offset: Floats, scale: Floats) -> Pair:
    """An echo's magnitude, of spins of these T2 (s), offsets (Hz) and B1, all of one shape."""
    played, T1 = ECHOES[name], 1.0
    events = [*played.events, sample(PULSE / 2 + played.time)]
    found = steady(events, LONG_TR * T1, T1, T2, offset, scale, played.spins)[:, 0]
    theta = {"S0": 1.0, "T1": T1, "T2": T2} | ({"R2_prime": 0.0} if name == "shifted_spin_echo" else {})
    expected = closed_form(name, theta, {**played.settings, "TR": LONG_TR * T1}, T2.shape)
    return np.abs(found).reshape(T2.shape), expected


def relaxing(name: str) -> Callable[[Floats, Floats], Pair]:
    """Along x the length of a pulse over T2, along y B1."""

    def signals(x: Floats, y: Floats) -> Pair:
        ratio, scale = over(x, y)
        return echo(name, PULSE / ratio, np.zeros_like(ratio), scale)

    return signals


def turning(name: str) -> Callable[[Floats, Floats], Pair]:
    """Along x the turns off resonance during a pulse, along y B1."""

    def signals(x: Floats, y: Floats) -> Pair:
        offset, scale = over(x / PULSE, y)
        return echo(name, np.full_like(offset, 200 * PULSE), offset, scale)

    return signals


def train_angle(x: Floats, y: Floats) -> Pair:
    """The eighth echo, all refocusing angles alike; along y T2 over the spacing."""
    spacing, number = 10e-3, 8
    T2, T1 = y * spacing, 10 * y[-1] * spacing
    found = [epg.spin_echo_train(T1, T2, np.full(number, angle), spacing)[:, -1].real for angle in x]
    settings = {"TE": number * spacing, "TR": LONG_TR * T1, "spacing": spacing, "echoes": float(number)}
    theta = {"S0": 1.0, "T1": T1, "T2": over(x, T2)[1]}
    return np.array(found).T, closed_form("spin_echo_train", theta, settings, (y.size, x.size))


def spin_echo_surviving(x: Floats, y: Floats) -> Pair:
    """A spoiler gradient three times the crusher, and phases that do not change; along y TR over T1."""
    (over_T2, over_T1), TR, TE, short = over(x, y), 100e-3, 20e-3, 1e-6
    T1, T2 = TR / over_T1, TR / over_T2
    spoiler = trapezoid("z", 3 * CRUSHER, 0.2 * TR, 0.02 * TR, 0.75 * TR)
    refocusing = crushed(at((short + TE) / 2, FULL, 0.0, short))
    events = [at(short / 2, RIGHT, duration=short), *refocusing, sample(short / 2 + TE), spoiler]
    found = np.abs(steady(events, TR, T1, T2, spins=SPINS, spoiled=False)[:, 0]).reshape(T1.shape)
    expected = closed_form("spin_echo", {"S0": 1.0, "T1": T1, "T2": T2}, {"TE": TE, "TR": TR}, T1.shape)
    return np.where(T2 <= T1, found, np.nan), expected  # no tissue has a T2 beyond T1
