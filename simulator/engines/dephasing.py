"""What a static field inside a voxel does to its signal: distribution of frequencies, loss of coherence, R2'.

Spins are taken to stand still (static dephasing, Yablonskiy and Haacke 1994, doi:10.1002/mrm.1910320610): the signal of
a coarse voxel is the sum of its fine ones, each turning at its own frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .. import threads

_BLOCK = 1 << 15  # fine voxels turned at a time: their phasors stay in the cache; fixed, and so are the bits


def distribution(
    offset: Any, weight: Any, factor: int | Sequence[int], edges: int | Any = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Share of a coarse voxel's spins at each frequency.

    Parameters
    ----------
    offset : array (z, y, x)
        Frequency of each fine voxel (Hz), as from ``to_hertz``.
    weight : array (z, y, x)
        Spins of each fine voxel, from 0 up, any unit.
    factor : int or three
        Fine voxels that make a coarse one, along z, y, x; each divides the grid.
    edges : int or array (bin + 1)
        Number of bins over the range of `offset` where there are spins, or their rising edges (Hz). Spins beyond the
        edges are in no bin, so that the shares then sum to less than 1.

    Returns
    -------
    share : array (z, y, x, bin)
        NaN in a coarse voxel without spins.
    edges : array (bin + 1)
        Hz.

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, negative spins, edges that do not rise.
    """
    where = "distribution"
    f, w, steps, count = _checked(where, offset, weight, factor)
    if np.ndim(edges) == 0:
        if isinstance(edges, bool) or not isinstance(edges, (int, np.integer)) or edges < 1:
            raise InputError(f"{where}: edges is {edges!r}, should be a number of bins from 1 up, or their edges")
        here = f[w > 0]
        low, high = (float(here.min()), float(here.max())) if here.size else (0.0, 0.0)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        bounds = np.linspace(low, high, int(edges) + 1)
    else:
        bounds = np.asarray(edges, dtype=float)
        if bounds.ndim != 1 or bounds.size < 2 or not (np.diff(bounds) > 0).all() or not np.isfinite(bounds).all():
            raise InputError(f"{where}: edges are {edges!r}, should be two or more rising frequencies (Hz)")
    bins = bounds.size - 1
    share = np.empty((*count, bins))

    def row(first: int, last: int) -> None:
        for z in range(first, last):
            values, spins = _blocks(f, z, steps, count), _blocks(w, z, steps, count)
            place = np.searchsorted(bounds, values, side="right") - 1
            place[values == bounds[-1]] = bins - 1  # the last bin includes its upper edge
            inside = (place >= 0) & (place < bins)
            voxel = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
            index = voxel[inside] * bins + place[inside]
            total = spins.sum(axis=1, keepdims=True)
            summed = np.bincount(index, weights=spins[inside], minlength=len(values) * bins).reshape(-1, bins)
            with np.errstate(invalid="ignore"):
                share[z] = (summed / total).reshape(*count[1:], bins)

    threads.each_block(count[0], row, 1)
    return share, bounds


def dephasing(
    offset: Any, weight: Any, factor: int | Sequence[int], times: Any, *, remove_linear: bool = False
) -> np.ndarray:
    """Coherence of the spins of each coarse voxel: their mean of exp(+i 2 pi offset t).

    Parameters
    ----------
    offset, weight, factor
        As in ``distribution``.
    times : array (time)
        s. Equal steps are fastest.
    remove_linear : bool
        Subtract the linear part of the field over each coarse voxel (least squares, weighted by the spins; the mean
        offset stays): what is left is dephasing by structure, as measured once the macroscopic field is corrected.

    Returns
    -------
    array (z, y, x, time), complex
        1 at time 0; NaN in a coarse voxel without spins.

    Raises
    ------
    InputError
        As ``distribution``; times that are not finite.
    """
    f, w, steps, count = _checked("dephasing", offset, weight, factor)
    t = np.atleast_1d(np.asarray(times, dtype=float))
    if t.ndim != 1 or t.size == 0 or not np.isfinite(t).all():
        raise InputError(f"dephasing: times are {times!r}, should be one or more finite times (s)")
    coherence = np.empty((*count, t.size), complex)
    inside = int(np.prod(steps))
    position = np.stack([axis.ravel() for axis in np.indices(steps, dtype=float)])

    def row(first: int, last: int) -> None:
        for z in range(first, last):
            out = coherence[z].reshape(-1, t.size)
            values, spins = _blocks(f, z, steps, count), _blocks(w, z, steps, count)
            for a in range(0, len(values), per):
                out[a : a + per] = _mean_phasor(values[a : a + per], spins[a : a + per], t, position, remove_linear)

    per = max(1, _BLOCK // inside)
    threads.each_block(count[0], row, 1)
    return coherence


def r2_prime(coherence: Any, times: Any, window: Sequence[float]) -> np.ndarray:
    """Rate R2' (1/s) of the decay of |coherence| within a window: minus the slope of its logarithm, least squares.

    Static dephasing begins quadratically and becomes exponential after about 1.5/delta-omega (delta-omega = gamma B0
    |dchi|/3); a window of 2 to 8/delta-omega sees the exponential. The rate belongs to its window: structure has no
    single one.

    Parameters
    ----------
    coherence : array (..., time)
    times : array (time)
        s.
    window : two floats
        First and last time (s), both included.

    Returns
    -------
    array (...)

    Raises
    ------
    InputError
        Fewer than two times within the window, or shapes that do not fit.
    """
    magnitude, t = np.abs(np.asarray(coherence)), np.asarray(times, dtype=float)
    if t.ndim != 1 or magnitude.ndim < 1 or magnitude.shape[-1] != t.size:
        raise InputError(f"r2_prime: coherence of shape {magnitude.shape} and times of shape {t.shape}; the last axis "
                         "of coherence should be the times")
    if np.shape(window) != (2,):
        raise InputError(f"r2_prime: window is {window!r}, should be the first and the last time (s)")
    slack = 1e-9 * np.abs(t).max(initial=0.0)  # a time computed as a sum still counts as the end of the window
    inside = (t >= window[0] - slack) & (t <= window[1] + slack)
    if np.unique(t[inside]).size < 2:
        raise InputError(f"r2_prime: {np.unique(t[inside]).size} of the times lie within window = "
                         f"{tuple(window)} s, should be two or more")
    centred = t[inside] - t[inside].mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(np.log(magnitude[..., inside]) @ centred) / (centred @ centred)


def _mean_phasor(
    values: np.ndarray, spins: np.ndarray, t: np.ndarray, position: np.ndarray, remove_linear: bool
) -> np.ndarray:
    """Mean phasor (coarse voxel, time) of `values` (Hz; coarse voxel, fine voxel), weighted by `spins`."""
    total = spins.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = spins / total[:, None]
    if remove_linear:
        values = values - _linear(values, np.nan_to_num(share), position)
    edges = range(0, values.shape[1], _BLOCK)
    part = np.empty((len(edges), len(values), t.size), complex)

    def turn(first: int, last: int) -> None:
        for block in range(first, last):
            inside = slice(edges[block], edges[block] + _BLOCK)
            angle, spin = 2 * np.pi * values[:, inside], share[:, inside]
            phasor, step, spacing = _phasor(angle * t[0]), np.ones(angle.shape, complex), 0.0
            for i, time in enumerate(t):
                if i:
                    if abs(time - t[i - 1] - spacing) > 1e-12 * abs(spacing):
                        spacing = time - t[i - 1]
                        step = _phasor(angle * spacing)
                    phasor *= step
                part[block, :, i] = np.einsum("vn,vn->v", spin, phasor)

    threads.each_block(len(edges), turn, 1)
    return part.sum(axis=0)


def _phasor(angle: np.ndarray) -> np.ndarray:
    """exp(i angle); several times as fast as the complex exponential."""
    out = np.empty(angle.shape, complex)
    np.cos(angle, out=out.real)
    np.sin(angle, out=out.imag)
    return out


def _linear(values: np.ndarray, share: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The linear part, of weighted mean 0, of `values` over the fine voxels at `position` (axis, fine voxel)."""
    centre = share @ position.T  # (coarse voxel, axis)
    away = position[None] - centre[:, :, None]
    weighted = away * share[:, None, :]
    moments = weighted @ away.transpose(0, 2, 1)
    slope = np.einsum("vab,vb->va", np.linalg.pinv(moments, hermitian=True), np.einsum("van,vn->va", weighted, values))
    return np.einsum("va,van->vn", slope, away)


def _blocks(array: np.ndarray, z: int, steps: tuple[int, ...], count: tuple[int, ...]) -> np.ndarray:
    """Row `z` of coarse voxels as (coarse voxel, fine voxel)."""
    rows = array[z * steps[0] : (z + 1) * steps[0]]
    split = rows.reshape(steps[0], count[1], steps[1], count[2], steps[2])
    return split.transpose(1, 3, 0, 2, 4).reshape(count[1] * count[2], -1)


def _checked(
    where: str, offset: Any, weight: Any, factor: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], tuple[int, ...]]:
    f, w = np.asarray(offset, dtype=float), np.asarray(weight, dtype=float)
    if f.ndim != 3 or f.shape != w.shape:
        raise InputError(f"{where}: offset has shape {f.shape} and weight {w.shape}, should be the same (z, y, x)")
    steps = tuple(np.atleast_1d(factor).tolist()) * (3 if np.ndim(factor) == 0 else 1)
    fits = len(steps) == 3 and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in steps)
    if not fits or any(size % n for size, n in zip(f.shape, steps, strict=True)):
        raise InputError(f"{where}: factor is {factor!r}, should be whole numbers (z, y, x) that divide {f.shape}")
    if not np.isfinite(f[w != 0]).all():
        raise InputError(f"{where}: offset is not finite where there are spins, should be Hz everywhere")
    if not (w >= 0).all() or not np.isfinite(w).all():
        raise InputError(f"{where}: weight is negative or not finite, should be spins from 0 up")
    f = np.where(w > 0, f, 0.0) if not np.isfinite(f).all() else f
    return f, w, steps, tuple(size // n for size, n in zip(f.shape, steps, strict=True))
