"""Fabric: how strongly, and along which axes, a structure is oriented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .thickness import edges, fractions, smooth


class Fabric(NamedTuple):
    """Mean intercept lengths and the fabric tensor through them.

    Attributes
    ----------
    degree_of_anisotropy : float
        Longest over shortest principal mean intercept length; 1 is isotropic, inf a structure never crossed along
        one direction.
    lengths : array (3,)
        Principal mean intercept lengths (m), longest first.
    axes : array (3, 3)
        Unit vectors (z, y, x) of the principal lengths, one a row.
    directions, intercepts : array (n, 3), array (n,)
        Directions (z, y, x) and the mean intercept length (m) along each.
    """

    degree_of_anisotropy: float
    lengths: np.ndarray
    axes: np.ndarray
    directions: np.ndarray
    intercepts: np.ndarray


def spiral(count: int) -> np.ndarray:
    """`count` unit vectors (z, y, x) spread evenly over the upper half of the sphere, along a golden spiral."""
    z = (np.arange(count) + 0.5) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    across = np.sqrt(1 - z * z)
    return np.stack([z, across * np.sin(angle), across * np.cos(angle)], axis=1)


def fabric(mask: Any, voxel_size: float | Sequence[float] | np.ndarray, directions: int = 256) -> Fabric:
    """Mean intercept length along many directions, and the ellipsoid through it.

    The mean intercept length along n is the mean length of the chords that parallel lines along n cut out of the
    structure: twice its volume over the number of crossings, and the crossings of infinitely many lines are the
    area of the surface seen along n, the integral of |n . grad(fraction)| (Crofton). Taken from the gradient of
    the mask, in metres, it knows neither the stairs of the grid, which lines traced through voxels cross again
    and again, nor the shape of a voxel. 1 / length^2 is a quadratic form in n (exactly so for ellipsoids,
    parallel rods and parallel plates), fitted by least squares; its eigenvectors are the axes of the fabric.

    Parameters
    ----------
    mask : array (z, y, x)
        The structure: bool, or volume fraction 0..1.
    voxel_size : float or three floats
        Edge of a voxel (m); along z, y, x.
    directions : int
        Number of directions, from 6 up; always the same ones.

    Returns
    -------
    Fabric

    Raises
    ------
    InputError
        A mask without a surface, not (z, y, x) or outside 0..1; a voxel size not above 0.

    References
    ----------
    Whitehouse 1974, doi:10.1111/j.1365-2818.1974.tb03878.x; Harrigan and Mann 1984, doi:10.1007/BF00540446
    """
    where = "fabric"
    fraction, edge = fractions(where, mask), edges(where, voxel_size)
    if isinstance(directions, bool) or not isinstance(directions, (int, np.integer)) or directions < 6:
        raise InputError(f"{where}: directions is {directions!r}, should be a whole number from 6 up")
    if fraction.min() == fraction.max():
        raise InputError(f"{where}: the mask holds {fraction.max():g} everywhere, so no surface has a direction")
    level = smooth(fraction)
    gradient = np.stack([_derivative(level, axis) / edge[axis] for axis in range(3)], axis=-1)
    gradient = gradient[np.abs(gradient).max(axis=-1) > 1e-3 / edge.max()]  # the tails hold less than that of it
    along = spiral(int(directions))
    crossings = np.zeros(len(along))
    for start in range(0, len(gradient), 4096):  # blocks that stay in the cache
        crossings += np.abs(gradient[start : start + 4096] @ along.T).sum(axis=0)
    inverse = crossings / (2 * fraction.sum())  # 1 / length
    z, y, x = along.T
    design = np.stack([z * z, y * y, x * x, 2 * z * y, 2 * z * x, 2 * y * x], axis=1)
    zz, yy, xx, zy, zx, yx = np.linalg.lstsq(design, inverse**2, rcond=None)[0]
    values, vectors = np.linalg.eigh(np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]]))
    values = np.where(values > 1e-9 * values[2], values, 0.0)  # rounding; a direction that meets no surface
    with np.errstate(divide="ignore"):
        lengths = 1 / np.sqrt(values)
        intercepts = 1 / inverse
    return Fabric(float(lengths[0] / lengths[2]), lengths, vectors.T, along, intercepts)


def _derivative(level: np.ndarray, axis: int) -> np.ndarray:
    """Central difference per voxel along `axis`; zero along an axis of one voxel."""
    return np.gradient(level, axis=axis) if level.shape[axis] > 1 else np.zeros_like(level)
