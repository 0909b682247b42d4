"""Local thickness: the diameter of the largest sphere that fits into a structure and holds the point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from . import inputs

SMOOTHING = {"binary": 0.8, "fractional": 0.5}  # SD in voxels; see `surface`


class Thickness(NamedTuple):
    """Local thickness (m): volume-weighted mean and SD, and the map (z, y, x), NaN outside the structure."""

    mean: float
    sd: float
    map: np.ndarray


def fractions(where: str, mask: Any) -> np.ndarray:
    """`mask` (z, y, x), bool or volume fraction 0..1, as floats, or an InputError."""
    try:
        found = np.ascontiguousarray(mask, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{where}: the mask should be an array (z, y, x) of volume fractions 0 to 1") from None
    if found.ndim != 3 or found.size == 0:
        raise InputError(f"{where}: the mask has shape {found.shape}, should be (z, y, x); a slice is (1, y, x)")
    if not np.isfinite(found).all():
        raise InputError(f"{where}: the mask holds {np.count_nonzero(~np.isfinite(found))} values that are not "
                         "finite, should be volume fractions 0 to 1")
    rounding = 1e-9  # fractions that are sums of many
    if found.min() < -rounding or found.max() > 1 + rounding:
        worst = found.min() if found.min() < -rounding else found.max()
        raise InputError(f"{where}: the mask holds {worst:g}, should be volume fractions 0 to 1")
    return np.clip(found, 0.0, 1.0)


def edges(where: str, voxel_size: Any) -> np.ndarray:
    """`voxel_size` (m), one number or three (z, y, x), as three floats, or an InputError."""
    try:
        found = np.asarray(voxel_size, dtype=float)
    except (TypeError, ValueError):
        found = np.array(math.nan)
    if found.shape not in ((), (3,)) or not (np.isfinite(found).all() and (found > 0).all()):
        raise InputError(f"{where}: voxel_size is {voxel_size!r}, should be an edge in m, or three (z, y, x), above 0")
    return np.broadcast_to(found, (3,)).copy()


def smooth(fraction: np.ndarray) -> np.ndarray:
    """`fraction` with its steps rounded off enough that its half-level is the surface; see `surface`."""
    from scipy.ndimage import gaussian_filter

    kind = "binary" if ((fraction == 0) | (fraction == 1)).all() else "fractional"
    return gaussian_filter(fraction, SMOOTHING[kind], mode="nearest", truncate=4.0)


def surface(fraction: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface of a structure, between voxel centres inside and outside.

    The distance from a voxel centre to the nearest centre *outside*, which is what a distance transform gives,
    is too long: by half a voxel on average across a face of the grid, by less the more the surface is tilted and
    the farther it is, so that no constant corrects it. Here the surface is where the mask, smoothed by a
    Gaussian of SD s, falls through one half, between two neighbouring centres, linearly interpolated. The
    smoothing evens out the stairs of a binary mask; it moves a surface of mean curvature H by s^2 H (relative to
    a sphere's radius R: (s/R)^2, under 1 % at 20 voxels across and falling with the square of the voxel). Where
    it would wipe out a thin part, the surface is put half way between the two centres: what the mask says stays
    connected or apart, and a sheet of one voxel is one voxel thick.

    Parameters
    ----------
    fraction : array (z, y, x)
        Volume fraction of the structure; inside is from one half up.
    edge : array (3,)
        Edges of a voxel.

    Returns
    -------
    points : array (point, 3)
        Positions, in the unit of `edge`, from the centre of the first voxel.
    cells : array of int (point, 3)
        The voxel (z, y, x) inside, next to each point.
    """
    inside, level = fraction >= 0.5, smooth(fraction)
    positions: list[np.ndarray] = []
    voxels: list[np.ndarray] = []
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(first), tuple(second)
        at = np.argwhere(inside[a] != inside[b])
        after = at + np.eye(3, dtype=int)[axis]
        one, other = level[tuple(at.T)], level[tuple(after.T)]
        in_one = inside[tuple(at.T)]
        agrees = ((one >= 0.5) == in_one) & ((other >= 0.5) != in_one)
        way = np.where(agrees, (0.5 - one) / np.where(agrees, other - one, 1.0), 0.5)
        found = at.astype(float)
        found[:, axis] += way
        positions.append(found)
        voxels.append(np.where(in_one[:, None], at, after))
    return np.ascontiguousarray(np.concatenate(positions) * edge), np.ascontiguousarray(np.concatenate(voxels))


def local_thickness(
    mask: Any, voxel_size: float | Sequence[float] | np.ndarray, border: str = "open", margin: float | None = None
) -> Thickness:
    """Local thickness by maximal inscribed spheres.

    The thickness at a point is the diameter of the largest sphere that lies inside the structure and holds the
    point; the mean is over the volume of the structure. Trabecular thickness is that of bone, trabecular spacing
    that of what is not bone.

    Parameters
    ----------
    mask : array (z, y, x)
        The structure: bool, or volume fraction 0..1 (partial volume makes the surface finer than the voxel).
    voxel_size : float or three floats
        Edge of a voxel (m); along z, y, x.
    border : {"open", "closed"}
        What lies beyond the grid. "open": unknown, and no surface; a plate cut by the border keeps its
        thickness, and a sphere may reach beyond. "closed": not structure, so that no sphere reaches beyond.
        With "open" a pore cut by the border may come out too wide, because its far wall is not seen, with
        "closed" too narrow.
    margin : float, optional
        Mean and SD leave out what lies closer than this (m) to an open border; the map keeps it. Default half the
        mean thickness, at most a quarter of the grid along each axis, so that most of the far walls are seen.

    Returns
    -------
    Thickness
        Mean, SD (both m, weighted by volume) and the map (z, y, x), NaN outside.

    Raises
    ------
    InputError
        A mask that is empty, full (with an open border), not (z, y, x) or outside 0..1; a voxel size not above 0.

    References
    ----------
    Hildebrand and Rueegsegger 1997, doi:10.1046/j.1365-2818.1997.1340694.x
    """
    from . import spheres

    where = "local_thickness"
    fraction, edge = fractions(where, mask), edges(where, voxel_size)
    if border not in ("open", "closed"):
        raise InputError(f"{where}: border is {border!r}, should be 'open' or 'closed'")
    if margin is not None:
        margin = inputs.number(where, "margin", margin, 0.0, math.inf, "m")
    inside = fraction >= 0.5
    if not inside.any():
        raise InputError(f"{where}: the mask is empty (no voxel is half full), so it has no thickness")
    if border == "open" and inside.all():
        raise InputError(f"{where}: the mask fills the grid, so that no surface bounds it; border='closed' would")
    pad = 0
    if border == "closed":
        pad = 3  # as far as the smoothing reaches
        fraction = np.pad(fraction, pad)
    unit = edge.min()
    scaled = edge / unit  # numbers of order one, whatever the unit: the same bits at any voxel size of one shape
    points, cells = surface(fraction, scaled)
    solid = (fraction >= 0.5).astype(np.uint8)
    index, square = np.full(solid.shape, -1, dtype=np.int32), np.full(solid.shape, np.inf)
    spheres.seed(points, cells, scaled, solid, index, square)
    spheres.nearest(points, scaled, solid, index, square)
    keep = np.zeros_like(solid)
    balls = np.empty((spheres.ridge(points, scaled, solid, index, keep), 4))
    spheres.inscribe(points, scaled, solid, index, keep, balls)
    balls = np.ascontiguousarray(balls[np.argsort(-balls[:, 3], kind="stable")])
    diameter = np.zeros(fraction.shape)
    spheres.cover(balls, scaled, solid, diameter)
    left = -1
    while left != 0:
        filled = np.empty_like(diameter)
        before, left = left, spheres.fill(solid, diameter, filled)
        diameter = filled
        if left == before:  # parts too small for a sphere of their own: twice the way to their surface
            lone = (solid == 1) & (diameter == 0)
            diameter[lone] = 2 * np.sqrt(square[lone])
            break
    inner = slice(pad, -pad or None)
    thickness = np.where(inside, diameter[inner, inner, inner] * unit, np.nan)
    weight = np.where(inside, fraction[inner, inner, inner], 0.0)
    counted: tuple[slice, ...] = (slice(None),) * 3
    if border == "open":
        depth = 0.5 * _moments(thickness, weight)[0] if margin is None else margin
        layers = [min(round(depth / size), n // 4) for size, n in zip(edge, inside.shape, strict=True)]
        trimmed = tuple(slice(n, -n or None) for n in layers)
        counted = trimmed if weight[trimmed].any() else counted
    return Thickness(*_moments(thickness[counted], weight[counted]), thickness)


def _moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted mean and SD where the weight is not zero."""
    there = weight > 0
    mean = float(np.average(values[there], weights=weight[there]))
    return mean, math.sqrt(float(np.average((values[there] - mean) ** 2, weights=weight[there])))
