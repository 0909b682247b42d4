"""Gradient waveforms as knots, of a timeline or of a trajectory's readouts.

A waveform is (times, gradient): knots (s) that never decrease and gradients (knot, 3) in T/m along x, y, z, linear
between the knots (two knots at one time are a jump) and 0 outside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC, PROTON
from ..events.timeline import AXES, Timeline
from ..kspace.trajectory import Trajectory

Floats = NDArray[np.float64]
Waveform = tuple[Any, Any]


def played_gradient(timeline: Timeline) -> tuple[Floats, Floats]:
    """The gradients that a timeline plays, as a waveform: knots (knot,) in s from its start, and (knot, 3) in T/m.

    Unlike `moments.effective_gradient` it starts with the timeline and knows no sign of refocusing: it is what eddy
    currents follow.
    """
    knots = [np.array([0.0, timeline.duration])]
    knots += [start + g.times for block, start, _ in timeline.played() for g in block.gradients]
    edges = np.unique(np.concatenate(knots))
    # sums of block starts round: what differs by that alone is one knot
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-12])]
    ends = np.stack([edges[:-1], edges[1:]], axis=1)
    middle = ends.mean(axis=1)
    values = np.zeros((*ends.shape, 3))
    for block, start, _ in timeline.played():
        for g in block.gradients:
            on = slice(*np.searchsorted(middle, [start + g.start, start + g.end]))
            values[on, :, AXES.index(g.axis)] += np.interp(ends[on], start + g.times, g.values)
    times, gradient = ends.ravel(), values.reshape(-1, 3)
    new = np.ones(times.size, bool)
    new[1:] = (np.diff(times) > 0) | (np.diff(gradient, axis=0) != 0).any(axis=1)
    return times[new], gradient[new]


def pieces(source: Waveform | Trajectory, at: Any) -> list[tuple[Floats, Floats, Floats]]:
    """Readouts with the same times together: knots (knot,), gradients (row, knot, 3), and the times asked for (time,).

    Gradients begin and end with 0. A waveform is one row.

    Raises
    ------
    InputError
        Times that decrease, shapes that do not fit, a trajectory without gradients.
    """
    if isinstance(source, Trajectory):
        if at is not None:
            raise InputError("at: a trajectory is asked at its samples: expected None")
        if source.gradients is None or source.knots is None:
            raise InputError(f"trajectory {source.kind}: it has no gradients: expected start, knots and gradients")
        if source.knots.ndim == 1 and source.times.ndim == 1:
            return [_framed(source.knots, source.gradients, source.times)]
        knots = np.broadcast_to(source.knots, source.gradients.shape[:2])
        when = np.broadcast_to(source.times, source.k.shape[:2])
        return [_framed(n, g[None], t) for n, g, t in zip(knots, source.gradients, when, strict=True)]
    times, gradient = (np.asarray(part, dtype=float) for part in source)
    if times.ndim != 1 or gradient.shape != (times.size, 3) or times.size < 1:
        shapes = f"times have shape {times.shape} and gradients {gradient.shape}"
        raise InputError(f"waveform: {shapes}: expected (knot,) and (knot, 3)")
    if not (np.isfinite(times).all() and np.isfinite(gradient).all()) or np.any(np.diff(times) < 0):
        raise InputError("waveform: times decrease, or something is not finite: expected knots in order")
    when = np.asarray(times if at is None else at, dtype=float)
    if when.ndim != 1 or not np.isfinite(when).all():
        raise InputError(f"at: shape {when.shape}: expected finite times (time,), in s")
    return [_framed(times, gradient[None], when)]


def _framed(times: Floats, gradient: Floats, at: Floats) -> tuple[Floats, Floats, Floats]:
    nothing = np.zeros_like(gradient[:, :1])
    times = np.concatenate([times[:1], times, times[-1:]])
    return times, np.concatenate([nothing, gradient, nothing], axis=1), at


def within(times: Floats, at: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The piece in which each time lies, after any jump there, and how far in it (0 to 1)."""
    piece = np.clip(np.searchsorted(times, at, side="right") - 1, 0, times.size - 2)
    length = times[piece + 1] - times[piece]
    jump = length <= 0
    share = np.where(jump, at >= times[piece], (at - times[piece]) / np.where(jump, 1.0, length))
    return piece, np.clip(share, 0.0, 1.0)


def inverted(integral: Floats, at: Floats, flips: Floats) -> Floats:
    """Running integrals (row, time, ...), given at `at` and then at the flips, as phases that each flip inverts."""
    result, at_flips = integral[:, : at.size].copy(), integral[:, at.size :]
    total = last = np.zeros_like(integral[:, :1])
    for n, flip in enumerate(flips):
        value = at_flips[:, n : n + 1]
        total, last = -(total + value - last), value
        after = at >= flip
        result[:, after] = total + integral[:, : at.size][:, after] - last
    return result


def gamma_of(source: Waveform | Trajectory, nucleus: str | None) -> float:
    if nucleus is None:
        return source.gamma if isinstance(source, Trajectory) else PROTON
    if nucleus not in GYROMAGNETIC:
        raise InputError(f"nucleus is {nucleus!r}: expected {' or '.join(GYROMAGNETIC)}")
    return GYROMAGNETIC[nucleus]


def above(value: float, name: str, unit: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value!r}: expected above 0 {unit}")
    return float(value)
