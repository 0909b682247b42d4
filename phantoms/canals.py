"""Cortical bone: porosity, the canals seen on slices, and the thickness of the cortex."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from . import inputs
from .thickness import Thickness, edges, fractions, local_thickness


class Canals(NamedTuple):
    """Canals on the slices of a cortex, one entry a canal and slice.

    Attributes
    ----------
    area : array
        Area (m2), partial volume included.
    diameter : array
        Diameter (m) of the circle of that area.
    slice : array of int
        Index of the slice.
    density : float
        Canals per area of cortex (1/m2), mean over the slices.
    mean_diameter : float
        Diameter (m) of the circle of the mean area; NaN without canals.
    """

    area: np.ndarray
    diameter: np.ndarray
    slice: np.ndarray
    density: float
    mean_diameter: float


def porosity(bone: Any, cortex: Any) -> float:
    """Pores over pores and bone, inside the cortex.

    Parameters
    ----------
    bone : array (z, y, x)
        Volume fraction of solid bone (bool or 0..1).
    cortex : array (z, y, x)
        Volume fraction of the cortex, its pores included; what lies outside is not counted.

    Raises
    ------
    InputError
        An empty cortex, arrays of two shapes or not volume fractions.
    """
    solid, whole = _pair("porosity", bone, cortex)
    return float(1 - np.minimum(solid, whole).sum() / whole.sum())


def canals(
    bone: Any, cortex: Any, voxel_size: float | Sequence[float] | np.ndarray, axis: int = 0, smallest: float = 0.0
) -> Canals:
    """Canals of a cortex on its slices across `axis`.

    A canal is what hangs together (over edges and corners) of the pixels at least half pore; a canal finer than
    that has no outline and is not counted. Its area is the sum of the pore fractions of these pixels and of the
    partly filled ones around, each given to the nearest canal.

    Parameters
    ----------
    bone, cortex : array (z, y, x)
        As in :func:`porosity`.
    voxel_size : float or three floats
        Edge of a voxel (m); along z, y, x.
    axis : int
        The slices lie across this axis: 0 (z), 1 (y) or 2 (x).
    smallest : float
        Canals of a smaller diameter (m) are left out.

    Raises
    ------
    InputError
        Arrays that are no volume fractions or of two shapes, an empty cortex, no such axis.
    """
    from scipy import ndimage

    where = "canals"
    solid, whole = _pair(where, bone, cortex)
    edge = edges(where, voxel_size)
    smallest = inputs.number(where, "smallest", smallest, 0.0, math.inf, "m")
    if axis not in (0, 1, 2):
        raise InputError(f"{where}: axis is {axis!r}, should be 0 (z), 1 (y) or 2 (x)")
    pores = np.moveaxis(np.clip(whole - solid, 0.0, 1.0), axis, 0)
    regions = np.moveaxis(whole, axis, 0)
    across = np.delete(edge, axis)
    pixel = float(across.prod())
    areas: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    densities = []
    for row, (pore, region) in enumerate(zip(pores, regions, strict=True)):
        labels, count = ndimage.label(pore >= 0.5, structure=np.ones((3, 3)))
        if count:
            near = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
            reached = ndimage.binary_dilation(labels > 0, structure=np.ones((3, 3)))
            owner = np.where(reached, labels[tuple(near)], 0)
            area = ndimage.sum_labels(pore, owner, np.arange(1, count + 1)) * pixel
            area = area[2 * np.sqrt(area / math.pi) >= smallest]
            areas.append(area)
            rows.append(np.full(area.size, row))
            count = area.size
        if region.any():
            densities.append(count / (float(region.sum()) * pixel))
    area = np.concatenate(areas) if areas else np.empty(0)
    mean = 2 * math.sqrt(area.mean() / math.pi) if area.size else math.nan
    return Canals(area, 2 * np.sqrt(area / math.pi), np.concatenate(rows) if rows else np.empty(0, dtype=int),
                  float(np.mean(densities)), mean)


def cortical_thickness(
    cortex: Any, voxel_size: float | Sequence[float] | np.ndarray, border: str = "open"
) -> Thickness:
    """Local thickness of the cortex, its pores filled; see :func:`bonemri.phantoms.thickness.local_thickness`."""
    return local_thickness(cortex, voxel_size, border)


def _pair(where: str, bone: Any, cortex: Any) -> tuple[np.ndarray, np.ndarray]:
    solid, whole = fractions(where, bone), fractions(where, cortex)
    if solid.shape != whole.shape:
        raise InputError(f"{where}: bone has shape {solid.shape}, cortex {whole.shape}; should be the same")
    if not whole.any():
        raise InputError(f"{where}: the cortex is empty")
    return solid, whole
