"""The events of a Pulseq block as pypulseq gives them, turned into those of a timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .timeline import ADC, CLOCK, RF, Gradient

RF_PHASE, ADC_PHASE = (7, 9), (4, 6)
"""Places of phase_ppm and phase_offset in pypulseq's rows of RF and ADC."""

USES = {"other": "preparation", "undefined": ""}
"""Uses of a pulse that a timeline calls otherwise."""

Floats = NDArray[np.float64]
Outer = tuple[tuple[float, float] | None, ...]
"""For each axis the gradient (Hz/m) at the outer edges of a sampled waveform, None where it has none."""


# -- RF


def pulse(rf: Any, raster: float, ppm: float, gradients: bool) -> RF:
    """The pulse of a block, without its phase offset.

    Samples on a raster are constant from edge to edge of their dwell; of a waveform with times of its own, the points
    are joined by straight lines (in the complex plane), whose exact mean over each step of the raster is taken.

    Parameters
    ----------
    rf : object
        pypulseq's.
    raster : float
        RF raster (s).
    ppm : float
        A ppm of the frequency (Hz), NaN where the field is not known.
    gradients : bool
        Whether gradients are on: constant RF then needs its raster.
    """
    wave, t = np.atleast_1d(np.asarray(rf.signal, complex)), np.atleast_1d(np.asarray(rf.t, float))
    frequency = _offset("RF", rf.freq_offset, rf.freq_ppm, ppm)
    dwell = float(2 * t[0])
    if dwell > 0 and np.allclose(t, (np.arange(t.size) + 0.5) * dwell, rtol=0, atol=CLOCK):
        start = 0.0
    else:
        start, length = float(t[0]), float(t[-1] - t[0])
        if not length > 0:
            raise InputError(f"RF of {t.size} points from {t[0]:g} to {t[-1]:g} s: expected times that increase")
        steps = 1 if not gradients and np.all(wave == wave[0]) else max(round(length / raster), 1)
        dwell = length / steps
        edges = start + np.arange(steps + 1) * dwell
        wave = np.diff(_integral(t, wave, edges)) / dwell
    made = RF(wave, dwell, rf.delay + start, 2 * math.pi * frequency * start, frequency, float(rf.center) - start)
    return RF(wave, dwell, made.delay, made.phase, frequency, made.center, use=_use(rf, made, gradients))


def _integral(t: NDArray[Any], wave: NDArray[Any], edges: NDArray[Any]) -> NDArray[np.complex128]:
    """Integral from the first point to each edge of what is linear between its points."""
    done = np.concatenate([[0.0], np.cumsum(np.diff(t) * (wave[1:] + wave[:-1]) / 2)])
    k = np.clip(np.searchsorted(t, edges, side="right") - 1, 0, t.size - 2)
    into = np.clip((edges - t[k]) / (t[k + 1] - t[k]), 0.0, 1.0)
    here = wave[k] + into * (wave[k + 1] - wave[k])
    total: NDArray[np.complex128] = done[k] + into * (t[k + 1] - t[k]) * (wave[k] + here) / 2
    return total


def _use(rf: Any, made: RF, gradients: bool) -> str:
    stated = USES.get(rf.use, rf.use)
    if stated:
        return str(stated)
    if not gradients and abs(made.frequency) * made.duration > 1:
        return "saturation"
    # as pypulseq has it, with its margin of .01 degrees
    return "excitation" if made.flip_angle < math.radians(90.01) else "refocusing"


# -- gradients


def gradient(axis: str, given: Any, gamma: float, edge: tuple[float, float] | None) -> Gradient | None:
    """The gradient of an axis, None where it is 0 throughout.

    Parameters
    ----------
    axis : {"x", "y", "z"}
    given : object
        pypulseq's trapezoid, or waveform with the times of its points.
    gamma : float
        Hz/T.
    edge : tuple of float, optional
        What a waveform sampled in the middles of the raster has at its edges (Hz/m).
    """
    if given.type == "trap":
        lengths = [0.0, given.rise_time, given.flat_time, given.fall_time]
        t, values = np.cumsum(lengths), given.amplitude * np.array([0.0, 1.0, 1.0, 0.0])
        # of two knots at one time the one on top stays: an edge without a ramp, or a top without a flat part
        apart = np.diff(t) > CLOCK
        keep = np.array([apart[0], True, apart[1], apart[2]])
        t, values = t[keep], values[keep]
    else:
        t, values = np.asarray(given.tt, float), np.asarray(given.waveform, float)
        if edge is not None:
            t = np.concatenate([[0.0], t, [t[-1] + t[0]]])
            values = np.concatenate([[edge[0]], values, [edge[1]]])
    if not np.any(values):
        return None
    return Gradient(axis, given.delay + t, values / gamma)


@dataclass(frozen=True)
class _Ends:
    """A waveform at its edges: times in s from the start of the block, gradients in Hz/m."""

    sampled: bool  # in the middles of the raster: the edges are not among its points
    delay: float
    end: float
    stated: tuple[float, float]
    continued: float  # what the last two points lead to


class Edges:
    """What sampled waveforms have at their outer edges, block after block.

    From version 1.5 on the file says it. Before, a waveform begins where the gradient of the block before has ended, if
    that reached to its end, and ends where its last two samples point to.
    """

    def __init__(self, sequence: Any, version: tuple[int, int]) -> None:
        self.sequence, self.stated = sequence, version >= (1, 5)
        self.last = dict.fromkeys("xyz", 0.0)
        self.known: dict[int, _Ends] = {}

    def of(self, number: int, indices: list[int], duration: float) -> Outer:
        """The edges of a block's gradients, by the numbers of their events (0 for none)."""
        found: list[tuple[float, float] | None] = []
        for axis, index in zip("xyz", indices, strict=True):
            edge, last = None, 0.0
            if index and self.sequence.grad_library.type[index] == "g":
                ends = self._ends(axis, index, number)
                first = self.last[axis] if ends.delay == 0 else 0.0
                both = ends.stated if self.stated else (first, ends.continued)
                edge = both if ends.sampled else None
                if ends.delay + ends.end > duration - 0.5 * self.sequence.grad_raster_time:
                    last = both[1]
            found.append(edge)
            self.last[axis] = last
        return tuple(found)

    def _ends(self, axis: str, index: int, number: int) -> _Ends:
        if index not in self.known:
            given = getattr(self.sequence.get_block(number), f"g{axis}")
            sampled, wave = given.time_id in (0, -1), given.waveform
            continued = 1.5 * wave[-1] - 0.5 * wave[-2] if sampled and len(wave) > 1 else wave[-1]
            end = given.tt[-1] + (given.tt[0] if sampled else 0.0)
            stated = (float(given.first), float(given.last)) if self.stated else (0.0, 0.0)
            self.known[index] = _Ends(sampled, float(given.delay), float(end), stated, float(continued))
        return self.known[index]


# -- ADC


def receivers(adc: Any, ppm: float, phase: float) -> list[ADC]:
    """The acquisition of a block with this phase (rad); one a sample where each sample has a phase of its own."""
    frequency = _offset("ADC", adc.freq_offset, adc.freq_ppm, ppm)
    modulation = np.atleast_1d(adc.phase_modulation)
    n = int(adc.num_samples)
    if modulation.size == 0:
        return [ADC(n, adc.dwell, adc.delay, phase, frequency)]
    if modulation.size != n:
        raise InputError(f"ADC of {n} samples has {modulation.size} phases: expected one for each sample")
    starts = np.arange(n) * adc.dwell
    turns = phase + modulation + 2 * math.pi * frequency * starts
    return [ADC(1, adc.dwell, float(adc.delay + s), float(p), frequency) for s, p in zip(starts, turns, strict=True)]


def _offset(what: str, hertz: float, parts: float, ppm: float) -> float:
    offset = float(hertz) + (float(parts) * ppm if parts else 0.0)
    if math.isnan(offset):
        raise InputError(f"{what}: a frequency in ppm: expected the static field, field= (T)")
    return offset
