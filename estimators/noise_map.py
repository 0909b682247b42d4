"""The noise SD of an image told by its own residuals, whatever the model lacks.

A residual is noise and what the model does not know. The second is shared by neighbours, once the amplitude, phase and
field of each are taken out: what is left of a voxel's residual when that of its neighbours is subtracted is noise
alone, by a known factor larger. Its square is averaged over the image, or over a neighbourhood where the noise is
uneven (parallel imaging, surface coils), with artefacts left out. Assumed are neighbours of like tissue and white
noise; of images that were interpolated to a finer grid, neighbours far enough apart for their noise to differ are
taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .neighbourhood import Window

SPACE = 3  # the last axes of an image; of others, each place is an image of its own
LEAST = 60.0  # degrees of freedom below which residuals are pooled as they are: Student's t widens by 2 % there
LOCAL = 400.0  # degrees of freedom of a neighbourhood: its SD is good to 3.5 %, and Student's t widens by .3 %
PATCHES = 500  # neighbourhoods in an image at most: of a large one they are larger, and the SD better
TOLD = 5.0  # strongest echo over the noise SD: below it the field follows the noise, and the residual is too small
RARE = 1e-4  # part of the good voxels that is left out as if it were artefacts; it lowers the SD by one in a thousand
PASSES = 8  # from one number to a map at most: what is left out depends on the map
SETTLED = 1e-3  # relative change of the map by a pass after which there is no other
FARTHEST = 4  # voxels; images interpolated by more than that are not foreseen
GROWS = 1.15  # of the variance between neighbours and ones farther, from which noise is no longer called white
SOME = 4_000  # voxels that tell how far it reaches
CHANCE = 6.0  # SDs by which chance raises a mean square: of 60 degrees of freedom once in a million times
CHUNK = 1 << 17  # voxels whose neighbours are gathered at a time


@dataclass(frozen=True)
class NoiseMap:
    """The noise of an image.

    Attributes
    ----------
    sd : ndarray, (voxel,)
        Of each real channel.
    freedom : float
        Degrees of freedom with which it is known.
    alike : float
        Voxels that share their noise: 1 unless the image was interpolated.
    """

    sd: np.ndarray
    freedom: float
    alike: float = 1.0


def between_neighbours(
    residual: np.ndarray,
    size: np.ndarray,
    strongest: np.ndarray,
    good: np.ndarray,
    freedom: int,
    shape: tuple[int, ...],
) -> NoiseMap | None:
    """The noise SD from differences between the residuals of neighbours.

    Parameters
    ----------
    residual : ndarray of complex, (voxel, point)
        Of each voxel's fit over its `size`, turned back by its phase and field.
    size : ndarray, (voxel,)
        Amplitude of each voxel's signal.
    strongest : ndarray, (voxel,)
        Magnitude of its strongest point.
    good : ndarray of bool, (voxel,)
        Voxels that count.
    freedom : int
        Real numbers less unknowns of one voxel.
    shape : tuple of int
        Of the image, in whose flat order the voxels come; the last three axes are space.

    Returns
    -------
    NoiseMap or None
        None where too few neighbours tell it.

    Notes
    -----
    The mean square of differences: von Neumann, Ann Math Stat 12:367 (1941), doi:10.1214/aoms/1177731677. How far the
    map goes from one number is decided by how much more it differs from it than chance would have it: James and Stein,
    Proc 4th Berkeley Symp 1:361 (1961).
    """
    good = good & np.isfinite(residual).all(axis=1) & (size > 0)
    axes = [a for a in range(max(0, len(shape) - SPACE), len(shape)) if shape[a] > 1]
    if freedom <= 0 or not axes or not good.any():
        return None
    distances = {axis: _apart(residual, size, good, freedom, shape, axis) for axis in axes}
    variance = differences(residual, size, good, freedom, shape, distances)
    known = np.isfinite(variance)
    alike = float(np.prod(list(distances.values())))
    one = freedom / (shared(len(axes)) * alike)
    if one * known.sum() < LEAST:
        return None
    bright = good & (strongest > TOLD * np.sqrt(_level(variance[known], freedom)))
    if bright.sum() < good.sum():
        of_bright = differences(residual, size, bright, freedom, shape, distances)
        if one * np.isfinite(of_bright).sum() >= LEAST:  # else what there is, is faint
            variance, known = of_bright, np.isfinite(of_bright)
    return replace(_mapped(variance, known, freedom, one, shape, axes), alike=alike)


def shared(axes: int) -> float:
    """Differences that share voxels repeat each other: so many tell as much as one that stands alone.

    Of a voxel less the mean of its neighbours along so many axes: the sum of squared correlations between differences.
    """
    n = float(axes)
    own = 1 + 1 / (2 * n)
    return (own**2 + 2 / n + 1 / (8 * n**3) + (n - 1) / (2 * n**3)) / own**2


def differences(
    residual: np.ndarray,
    size: np.ndarray,
    good: np.ndarray,
    freedom: int,
    shape: tuple[int, ...],
    distances: dict[int, int],
    voxels: np.ndarray | None = None,
) -> np.ndarray:
    """Square of each voxel's residual less that of its neighbours, whose mean is the noise variance, (voxel,).

    Parameters
    ----------
    residual, size, good, freedom, shape
        As `between_neighbours` takes them.
    distances : dict of int
        Axis to how many voxels away the neighbours are.
    voxels : ndarray of int, optional
        Of the flat order, for which it is wanted; all good ones by default.

    Returns
    -------
    ndarray
        NaN where there is no neighbour.
    """
    out = np.full(len(size), np.nan)
    stride = np.append(np.cumprod(shape[:0:-1])[::-1], 1).astype(int)
    unit = size / size[good].max() if good.any() else size
    for some in _chunks(np.flatnonzero(good) if voxels is None else voxels):
        place = np.unravel_index(some, shape)
        # least squares of what all share, in proportion to their amplitude, from the neighbours alone
        total, weight = np.zeros((some.size, residual.shape[1]), complex), np.zeros(some.size)
        for axis, distance in distances.items():
            for step in (-distance, distance):
                there = (place[axis] + step >= 0) & (place[axis] + step < shape[axis])
                beside = np.where(there, some + step * stride[axis], some)
                there &= good[beside]
                w = np.where(there, unit[beside] ** 2, 0.0)
                total += w[:, None] * np.where(there[:, None], residual[beside], 0)  # NaN where there is no fit
                weight += w
        told = weight > 0
        own, rest = unit[some][told], weight[told, None]
        left = residual[some[told]] - total[told] / rest
        square = (left.real.astype(float) ** 2 + left.imag.astype(float) ** 2).sum(axis=1)
        # the variance of what is left, over that of noise of SD 1 in the signal
        factor = 1 + own**2 / rest[:, 0]
        out[some[told]] = square * size[some[told]] ** 2 / (freedom * factor)
    return out


def _chunks(voxels: np.ndarray) -> Iterator[np.ndarray]:
    for a in range(0, voxels.size, CHUNK):
        yield voxels[a : a + CHUNK]


def _apart(
    residual: np.ndarray, size: np.ndarray, good: np.ndarray, freedom: int, shape: tuple[int, ...], axis: int
) -> int:
    """How far apart along an axis noise is another: 1 voxel in images that nobody interpolated."""
    from scipy.special import polygamma

    voxels = np.flatnonzero(good)
    voxels = voxels[:: -(-voxels.size // SOME)]
    levels: list[float] = []
    for step in range(1, min(FARTHEST + 2, shape[axis] - 1) + 1):
        variance = differences(residual, size, good, freedom, shape, {axis: step}, voxels)
        variance = variance[np.isfinite(variance) & (variance > 0)]
        if variance.size < 2:
            break
        levels.append(float(np.log(variance).mean()))
        error = np.sqrt(shared(1) * float(polygamma(1, freedom / 2)) / variance.size)
        # interpolated noise swings about its level at the distances beyond: two of them are asked
        if step > 2 and np.mean(levels[-2:]) - levels[-3] < np.log(GROWS) + 3 * np.sqrt(1.5) * error:
            return step - 2
    return max(1, min(len(levels) - 2, FARTHEST))


def _level(variance: np.ndarray, freedom: int) -> float:
    """One number for all: the geometric mean, which few artefacts hardly move, and what it is short of the mean."""
    from scipy.special import digamma

    positive = variance[variance > 0]
    if not positive.size:
        return 0.0
    short = digamma(freedom / 2) - np.log(freedom / 2)
    return float(np.exp(np.log(positive).mean() - short))


def _mapped(
    variance: np.ndarray, known: np.ndarray, freedom: int, one: float, shape: tuple[int, ...], axes: list[int]
) -> NoiseMap:
    """Between one number and the mean over a neighbourhood; `one` degrees of freedom are those of a voxel."""
    total = one * known.sum()
    local = max(LOCAL, total / PATCHES)
    window = Window.of(shape, axes, local / one)
    cell, most = window.cell[known], cut(freedom)
    level = _level(variance[known], freedom)
    here = variance[known]
    if not level > 0:
        return NoiseMap(np.zeros(len(variance)), total)
    blocks = np.full(window.count, level)
    count = np.zeros(window.count)
    for _ in range(PASSES):
        inside = here <= most * blocks[cell]
        count, kept = window.counted(cell[inside]), window.summed(here[inside], cell[inside])
        level = kept.sum() / count.sum()
        before, blocks = blocks, level * window.linear(kept / level, count)
        if (np.abs(blocks - before) <= SETTLED * before).all():
            break
    weight = window.counted(cell)
    many = weight > 0
    weight = weight[many]
    told = one * window.effective(count)[many]
    excess = float(np.average(told / 2 * np.log(blocks[many] / level) ** 2, weights=weight))
    mean = 1 / float(np.average(1 / told, weights=weight))
    # how much of the map's departure from one number is more than chance, which alone makes it 1 and hardly ever that
    chance = 1 + 2 * np.sqrt(2 * mean / total)
    share = max(0.0, 1 - chance / excess) if excess > 0 and total > 4 * mean else 0.0
    logs = np.log(level) + share * np.log(blocks / level)
    found = 1 / (share**2 / mean + (1 - share**2) / total)
    return NoiseMap(np.sqrt(np.exp(window.spread(logs))), min(found, total))


def shared_excess(
    over: np.ndarray, good: np.ndarray, freedom: int, shape: tuple[int, ...], alike: float = 1.0
) -> np.ndarray:
    """Mean over each voxel's neighbourhood of the squared residual over what noise makes of it, (voxel,).

    Parameters
    ----------
    over : ndarray, (voxel,)
        Squared residual over its mean by noise alone; what noise hardly ever reaches counts as that.
    good : ndarray of bool, (voxel,)
        Voxels that count.
    freedom, shape
        As `between_neighbours` takes them.
    alike : float
        Voxels that share their noise.

    Returns
    -------
    ndarray
        1 where it is no more than chance.
    """
    axes = [a for a in range(max(0, len(shape) - SPACE), len(shape)) if shape[a] > 1]
    counted = good & np.isfinite(over)
    window = Window.of(shape, axes, max(LOCAL, freedom * counted.sum() / PATCHES) / freedom)
    cell = window.cell[counted]
    sums = window.summed(np.minimum(over[counted], cut(freedom)), cell)
    mean, voxels = window.constant(sums, window.counted(cell))
    chance = 1 + CHANCE * np.sqrt(2 * alike / np.maximum(freedom * voxels, 1e-9))
    return np.where(mean > chance, mean, 1.0)[window.cell]


def cut(freedom: int) -> float:
    """Of a residual's square over its mean, the value that one good voxel in 10 000 exceeds."""
    from scipy.special import chdtri

    return float(chdtri(freedom, RARE)) / freedom
