"""What the gradients of a timeline add up to: effective gradient, k-space, b-values, moments; exact integrals.

The magnetisation followed here is the pathway of the wanted echo, and the pulses' `use` tells it: it begins at the
reference point of an ``excitation``; at that of a ``refocusing`` pulse its phase is inverted; from that of a
``storage`` pulse on it lies along z, where no gradient acts, until that of the next ``recall`` pulse, which brings it
back inverted (the stimulated echo). Pulses of any other use act on what is not yet excited, and change nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ....errors import InputError
from ...constants import PROTON
from .timeline import AXES, CLOCK, RF, Block, Timeline

Floats = NDArray[np.float64]


def effective_gradient(timeline: Timeline, until: float | None = None) -> tuple[Floats, Floats]:
    """The gradient that counts, sign included, from the last excitation's reference point on.

    Parameters
    ----------
    timeline : Timeline
    until : float, optional
        Where it ends (s, in the timeline); default the last sample, without samples the end of the timeline. The
        last excitation is the last one before it.

    Returns
    -------
    times : ndarray (knot,)
        From the reference point of the excitation (s), never decreasing; where the gradient jumps (a pulse refocuses
        while it is on, say) there are two knots at one time.
    gradient : ndarray (knot, 3)
        T/m along x, y, z; linear between the knots.

    Raises
    ------
    InputError
        No excitation before `until`, or a recall without storage; the message names the time.
    """
    times, values = _followed(timeline, until)
    return _joined(times, values[:, :3])


def pathway(timeline: Timeline, until: float | None = None) -> tuple[Floats, Floats]:
    """How an offset of the field counts: 1 from the last excitation on, -1 once refocused, 0 while stored.

    Parameters
    ----------
    timeline, until
        As in `effective_gradient`.

    Returns
    -------
    times : ndarray (knot,)
        From the reference point of the excitation (s); the sign jumps where two knots share a time.
    sign : ndarray (knot,)

    Raises
    ------
    InputError
        As `effective_gradient`.
    """
    times, values = _followed(timeline, until)
    return _joined(times, values[:, 3])


def kspace(timeline: Timeline) -> Floats:
    """Place in k-space of every sample, counted from the excitation before it.

    Returns
    -------
    ndarray (sample, 3)
        1/m along x, y, z, as the signal sees it: a spin at r has turned by 2 pi k.r since the excitation; a gradient
        adds its integral times gamma/(2 pi), and refocusing turns k to -k. Samples before the first excitation, or
        while the magnetisation is stored, hold NaN.

    Raises
    ------
    InputError
        A recall without storage.
    """
    found = np.full((timeline.samples, 3), np.nan)
    area, done = np.full(3, np.nan), 0
    for part in _stretches(timeline):
        if part.begins:
            area = np.zeros(3)
        block = part.block
        if part.samples.size or block.gradients:
            inside = np.concatenate([[part.first], part.samples, [part.last]])
            gained = part.sign * _integral(block, inside)
            seen = part.sign if part.sign else math.nan
            found[done : done + part.samples.size] = seen * (area + gained[1:-1] - gained[0])
            area = area + gained[-1] - gained[0]
        done += part.samples.size
    return found * timeline.gamma


def b_matrix(timeline: Timeline, until: float | None = None) -> Floats:
    """b-matrix (3, 3) in s/mm2 at `until` (default the last sample), all gradients and their cross terms included.

    Source: Mattiello et al., J Magn Reson A 108:131 (1994), doi:10.1006/jmra.1994.1103.

    Raises
    ------
    InputError
        As `effective_gradient`.
    """
    return b_matrix_of(*effective_gradient(timeline, until), gamma=timeline.gamma)


def b_value(timeline: Timeline, until: float | None = None) -> float:
    """b-value in s/mm2: the trace of `b_matrix`."""
    return float(np.trace(b_matrix(timeline, until)))


def together(waveforms: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[Floats, Floats]:
    """Several effective gradients on the same knots: times (knot,) and gradients (waveform, knot, 3).

    Each waveform is (times, gradient) as from `effective_gradient`; a shorter one is 0 from its end on.

    Raises
    ------
    InputError
        No waveform, or none that lasts a while.
    """
    pairs = [(np.asarray(t, float), np.asarray(g, float)) for t, g in waveforms]
    edges = np.unique(np.concatenate([t for t, _ in pairs])) if pairs else np.empty(0)
    if edges.size < 2:
        raise InputError(f"moments: {len(pairs)} waveforms with {edges.size} different times: expected two or more")
    ends, middle = np.stack([edges[:-1], edges[1:]], axis=1), (edges[:-1] + edges[1:]) / 2
    values = np.zeros((len(pairs), middle.size, 2, 3))
    for n, (t, g) in enumerate(pairs):
        k = np.clip(np.searchsorted(t, middle) - 1, 0, t.size - 2)  # the piece around the middle has a length
        on = (middle > t[0]) & (middle < t[-1])
        share = (ends[on] - t[k[on], None]) / np.diff(t)[k[on], None]
        values[n, on] = g[k[on], None] + share[..., None] * (g[k[on] + 1] - g[k[on]])[:, None]
    return ends.ravel(), values.reshape(len(pairs), -1, 3)


def b_matrix_of(times: ArrayLike, gradient: ArrayLike, gamma: float = PROTON) -> Floats:
    """b-matrix (3, 3) in s/mm2 of an effective gradient (T/m) linear between its knots (s); gamma in Hz/T."""
    t, g = np.asarray(times, float), np.asarray(gradient, float)
    length = np.diff(t)
    area = integral(t, g)[:-1]
    # k within a piece as a polynomial in s = 0 to 1, and the integral of s^(m + n)
    power = np.stack([area, g[:-1] * length[:, None], np.diff(g, axis=0) * length[:, None] / 2])
    hilbert = 1 / (1 + np.add.outer(np.arange(3), np.arange(3)))
    total: Floats = np.einsum("mpa,mn,npb,p->ab", power, hilbert, power, length)
    return total * (2 * math.pi * gamma) ** 2 * 1e-6


def integral(times: ArrayLike, gradient: ArrayLike) -> Floats:
    """Integral (T s/m) from the first knot to each knot of a gradient (knot, 3) linear between them."""
    t, g = np.asarray(times, float), np.asarray(gradient, float)
    steps = np.diff(t)[:, None] * (g[1:] + g[:-1]) / 2
    return np.concatenate([np.zeros((1, g.shape[1])), np.cumsum(steps, axis=0)])


def moment(times: ArrayLike, gradient: ArrayLike, order: int) -> Floats:
    """Moment, the integral of g(t) t^order (T s^(order+1)/m), of a gradient (knot, 3) linear between its knots.

    A spin of position r and velocity v, from time 0 on, has turned by 2 pi gamma (r.m0 + v.m1).
    """
    if order != int(order) or order < 0:
        raise InputError(f"moment: order is {order!r}: expected a whole number from 0 up")
    t, g = np.asarray(times, float), np.asarray(gradient, float)
    # in a piece t = (1 - s) a + s b and g = (1 - s) g_a + s g_b: t^order is expanded in powers of both
    a, b, n = t[:-1, None], t[1:, None], int(order)
    left, right = np.zeros_like(a), np.zeros_like(a)
    for j in range(n + 1):  # integral of C(n,j) (1-s)^(n-j) s^j times (1-s), or s, is a beta function
        both = a ** (n - j) * b**j / ((n + 1) * (n + 2))
        left, right = left + both * (n + 1 - j), right + both * (j + 1)
    total: Floats = np.sum((b - a) * (left * g[:-1] + right * g[1:]), axis=0)
    return total


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Part of a block between two pulses' reference points, where the sign of the gradient does not change."""

    block: Block
    start: float  # of the block in the timeline (s)
    first: float  # from the start of the block (s)
    last: float
    sign: float
    begins: bool  # the magnetisation begins here
    samples: Floats  # its sample times, from the start of the block


def _stretches(timeline: Timeline) -> Iterator[_Stretch]:
    sign, stored = 1.0, math.nan
    for block, start, _ in timeline.played():
        samples = np.sort(np.concatenate([a.times for a in block.adcs])) if block.adcs else np.empty(0)
        first, begins, taken = 0.0, False, 0
        for pulse in block.rf:
            before = int(np.searchsorted(samples, pulse.reference))
            yield _Stretch(block, start, first, pulse.reference, sign, begins, samples[taken:before])
            sign, stored, begins = _after(pulse, sign, stored, f"timeline {timeline.name}: pulse at {start:g} s")
            first, taken = pulse.reference, before
        yield _Stretch(block, start, first, block.duration, sign, begins, samples[taken:])


def _followed(timeline: Timeline, until: float | None) -> tuple[Floats, Floats]:
    """Times (knot,) from the last excitation on, with the effective gradient and the sign (knot, 4)."""
    samples = timeline.sample_times()
    end = float(until if until is not None else samples.max() if samples.size else timeline.duration)
    if not -CLOCK <= end <= timeline.duration + CLOCK:
        last = timeline.duration
        raise InputError(f"timeline {timeline.name}: until is {end:g} s: expected 0 to {last:g} s, its end")
    times: list[Floats] = []
    values: list[Floats] = []
    origin = math.nan
    for part in _stretches(timeline):
        if part.start + part.first > end:
            break
        if part.begins:
            times, values, origin = [], [], part.start + part.first
        if not math.isnan(origin):
            knots, effective = _pieces(part, min(part.last, end - part.start))
            times.append(part.start - origin + knots)
            values.append(effective)
    if math.isnan(origin):
        raise InputError(f"timeline {timeline.name}: no excitation from 0 to {end:g} s: expected a pulse of that use")
    return _joined(np.concatenate(times), np.concatenate(values))


def _after(pulse: RF, sign: float, stored: float, where: str) -> tuple[float, float, bool]:
    """Sign of the gradient after a pulse, that of the stored magnetisation, and whether a new one begins."""
    if pulse.use == "excitation":
        return 1.0, math.nan, True
    if pulse.use == "refocusing":
        return -sign, stored, False
    if pulse.use == "storage":
        return 0.0, sign, False
    if pulse.use == "recall":
        if math.isnan(stored):
            raise InputError(f"{where}: use is recall: expected a pulse of use storage before it")
        return -stored, math.nan, False
    return sign, stored, False


def _integral(block: Block, times: Floats) -> Floats:
    """Integral (T s/m) of the block's gradients, (time, 3)."""
    total = np.zeros((times.size, 3))
    for g in block.gradients:
        total[:, AXES.index(g.axis)] += g.integral(times)
    return total


def _pieces(part: _Stretch, last: float) -> tuple[Floats, Floats]:
    """Both ends of each piece on which all gradients are linear: times (2 piece,), gradient and sign (2 piece, 4)."""
    inner = [g.times[(g.times > part.first) & (g.times < last)] for g in part.block.gradients]
    edges = np.unique(np.concatenate([[part.first, max(last, part.first)], *inner]))
    ends = np.stack([edges[:-1], edges[1:]], axis=1)
    middle = ends.mean(axis=1)
    values = np.zeros((*ends.shape, 4))
    values[:, :, 3] = 1.0
    for g in part.block.gradients:
        on = (middle > g.start) & (middle < g.end)
        values[on, :, AXES.index(g.axis)] += np.interp(ends[on], g.times, g.values)
    return ends.ravel(), part.sign * values.reshape(-1, 4)


def _joined(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Without the knots that repeat the one before them."""
    if times.size == 0:
        return np.zeros(1), np.zeros((1, *values.shape[1:]))
    new = np.ones(times.size, bool)
    new[1:] = (np.diff(times) > 0) | (np.diff(values.reshape(times.size, -1), axis=0) != 0).any(axis=1)
    # sums of block starts round: a knot never lies before the one it follows
    return np.maximum.accumulate(times[new]), values[new]
