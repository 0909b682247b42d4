"""Integrals of an effective gradient that a moving spin needs: of the gradient, and of its integral; both exact.

With M(t) the integral of g and P(t) that of M, a spin on a straight line turns by differences of P, and one that is
followed at the points of a grid, straight between them, by second differences of P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Waveform:
    """Functions of time, linear between knots; they may jump where two knots share a time.

    Attributes
    ----------
    times : ndarray (knot,)
        s, from 0 up, never decreasing.
    values : ndarray (knot, channel)
        Axes of a gradient (T/m), or signs.
    """

    times: Floats
    values: Floats

    @property
    def duration(self) -> float:
        """Last knot (s)."""
        return float(self.times[-1])

    def integrals(self, at: Any) -> tuple[Floats, Floats]:
        """First and second integral from time 0 to each of these times, (time, channel) each."""
        length = np.diff(self.times)
        whole = length > 0
        t, h, g = self.times[:-1][whole], length[whole], self.values[:-1][whole]
        slope = np.diff(self.values, axis=0)[whole] / h[:, None]
        zero, h = np.zeros((1, g.shape[1])), h[:, None]
        first = np.concatenate([zero, np.cumsum(g * h + slope * h**2 / 2, axis=0)])
        second = np.concatenate([zero, np.cumsum(first[:-1] * h + g * h**2 / 2 + slope * h**3 / 6, axis=0)])
        where = np.clip(np.asarray(at, float), self.times[0], self.duration)
        k = np.clip(np.searchsorted(t, where, side="right") - 1, 0, t.size - 1)
        s = (where - t[k])[:, None]
        return first[k] + s * (g[k] + s * slope[k] / 2), second[k] + s * (first[k] + s * (g[k] / 2 + s * slope[k] / 6))

    def weights(self, grid: Floats) -> Floats:
        """Weight of each point of a grid (time + 1, channel) in the integral of value times a path.

        Exact for a path that is straight between the points: integral of the value times each point's hat function.
        """
        first, second = self.integrals(grid)
        mean = np.diff(second, axis=0) / np.diff(grid)[:, None]  # of M over each step
        weights = np.empty_like(first)
        weights[0], weights[1:-1], weights[-1] = mean[0] - first[0], np.diff(mean, axis=0), first[-1] - mean[-1]
        return weights

    def unresolved(self, grid: Floats) -> Floats:
        """Integral of (M less its mean over each step)^2, (channel,) in s^3 times the value's square.

        What the path does between the points of the grid, given the points, adds 2 D (2 pi gamma)^2 times this to the
        variance of the phase: the variance of a Brownian bridge.
        """
        knots = np.union1d(grid, self.times)  # between these M is a parabola: three Gauss points are exact
        nodes, shares = np.polynomial.legendre.leggauss(3)
        h = np.diff(knots)
        at = knots[:-1, None] + (nodes + 1) / 2 * h[:, None]
        inside = self.integrals(at.ravel())[0]
        step = np.clip(np.searchsorted(grid, at.ravel(), side="right") - 1, 0, grid.size - 2)
        mean = (np.diff(self.integrals(grid)[1], axis=0) / np.diff(grid)[:, None])[step]
        total: Floats = (shares / 2 * h[:, None]).ravel() @ (inside - mean) ** 2
        return total


def waveform(times: Any, values: Any, where: str, unit: str = "T/m") -> Waveform:
    """A Waveform of `values` (knot, channel) that begins at time 0.

    Raises
    ------
    InputError
        Times that decrease or last no time, shapes that do not fit, a value that is not finite.
    """
    try:
        t, v = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{where}: times or values are not numbers: expected s and {unit}") from None
    if t.ndim != 1 or t.size < 2 or v.ndim != 2 or len(v) != t.size:
        raise InputError(f"{where}: times of shape {t.shape} and values of shape {v.shape}: expected (knot,) and one "
                         f"row ({unit}) for each of at least two knots")  # fmt: skip
    if not (np.isfinite(t).all() and np.isfinite(v).all()):
        raise InputError(f"{where}: times or values are not finite: expected s and {unit}")
    if (np.diff(t) < 0).any() or not t[-1] > t[0]:
        k = int(np.argmin(np.diff(t)))
        raise InputError(f"{where}: times go from {t[k]:g} to {t[k + 1]:g} s: expected times that increase")
    return Waveform(t - t[0], v)


def grid(duration: float, step: float) -> Floats:
    """Equal steps of at most `step` (s) from 0 to `duration`."""
    count = max(1, math.ceil(duration / step * (1 - 1e-12)))
    return np.linspace(0.0, duration, count + 1)


def waveforms(times: Any, gradient: Any, where: str) -> tuple[Waveform, int]:
    """Gradients (knot, 3) or (waveform, knot, 3) as channels (waveform, axis) of one, and how many there are.

    Raises
    ------
    InputError
        As `waveform`.
    """
    g = np.asarray(gradient)
    if g.ndim not in (2, 3) or g.shape[-1] != 3 or 0 in g.shape:
        raise InputError(f"{where}: gradient has shape {g.shape}: expected (knot, 3) or (waveform, knot, 3)")
    if g.ndim == 2:
        return waveform(times, g, f"{where}: gradient"), 1
    return waveform(times, g.transpose(1, 0, 2).reshape(g.shape[1], -1), f"{where}: gradient"), len(g)


def seeds(seed: Any, where: str) -> np.random.SeedSequence:
    """The SeedSequence of a seed.

    Raises
    ------
    InputError
        No whole number from 0 up, and no SeedSequence.
    """
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"{where}: seed is {seed!r}: expected a whole number from 0 up")
    return np.random.SeedSequence(int(seed))


def is_number(value: object) -> bool:
    """Tell a finite number from everything else."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
