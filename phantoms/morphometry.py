"""Morphometry: what a structure measures, from a mask or from the pools of a phantom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from .canals import Canals, canals, cortical_thickness, porosity
from .fabric import Fabric, fabric
from .thickness import Thickness, edges, fractions, local_thickness

if TYPE_CHECKING:
    from .phantom import Phantom

BONE = ("bound_water", "macromolecule", "mineral")
MARROW = ("marrow_water", "blood", "fat")


class Connectivity(NamedTuple):
    """How a structure hangs together.

    Attributes
    ----------
    euler_number : float
        Parts - handles + cavities of the structure as it is. With an open border that of the infinite structure
        of which this grid is one tile: cells on the border count by the share that lies in it.
    parts : int
        Number of parts (26 neighbours).
    largest_share : float
        Share of the volume that the largest part holds.
    cavities : int
        Holes in the structure that do not reach the border (6 neighbours).
    density : float
        Handles of the largest part, its cavities filled, per volume (1/m3): (1 - Euler number) / volume.
    """

    euler_number: float
    parts: int
    largest_share: float
    cavities: int
    density: float


def bvtv(mask: Any, region: Any = None) -> float:
    """Bone volume over total volume.

    Parameters
    ----------
    mask : array (z, y, x)
        Volume fraction of bone (bool or 0..1).
    region : array (z, y, x), optional
        Volume fraction of what counts as total; default everything.

    Raises
    ------
    InputError
        Arrays that are no volume fractions, of two shapes, or an empty region.
    """
    bone = fractions("bvtv", mask)
    return float(bone.mean()) if region is None else 1 - porosity(bone, region)


def euler_number(mask: Any, border: str = "open") -> float:
    """Euler number of a structure of 26-connected voxels (its outside 6-connected).

    Counted on the outside, whose voxels, adjacent pairs, squares of four and cubes of eight are the cells of a
    complex: on a closed manifold of three dimensions a body and its outside have the same Euler number.

    Parameters
    ----------
    mask : array (z, y, x)
        The structure: bool, or volume fraction, inside from one half up.
    border : {"open", "closed"}
        "open": the structure goes on; a cell in the border plane counts one half, on an edge of the grid a
        quarter, in its corner an eighth, so that the numbers of tiles that share their border voxels add up.
        "closed": nothing lies beyond.

    Raises
    ------
    InputError
        Not a mask (z, y, x) within 0..1.

    References
    ----------
    Odgaard and Gundersen 1993, doi:10.1016/8756-3282(93)90245-6
    """
    outside = fractions("euler_number", mask) < 0.5
    if border not in ("open", "closed"):
        raise InputError(f"euler_number: border is {border!r}, should be 'open' or 'closed'")
    if border == "closed":
        outside = np.pad(outside, 1, constant_values=True)
    total = 0.0
    for chosen in range(8):
        cells, weights, sign = outside, [], 1
        for axis in range(3):
            size = outside.shape[axis]
            if chosen >> axis & 1:
                low, high = [slice(None)] * 3, [slice(None)] * 3
                low[axis], high[axis] = slice(None, -1), slice(1, None)
                cells = cells[tuple(low)] & cells[tuple(high)]
                weights.append(np.ones(size - 1))
                sign = -sign
            else:
                weight = np.ones(size)
                weight[0] -= 0.5
                weight[-1] -= 0.5
                weights.append(weight)
        along_x = cells @ weights[2]
        total += sign * float(weights[0] @ along_x @ weights[1])
    return total


def connectivity(mask: Any, voxel_size: float | Sequence[float] | np.ndarray, border: str = "open") -> Connectivity:
    """Parts, cavities, handles: see :class:`Connectivity`.

    Raises
    ------
    InputError
        A mask that is empty, not (z, y, x) or outside 0..1; a voxel size not above 0.

    References
    ----------
    Odgaard and Gundersen 1993, doi:10.1016/8756-3282(93)90245-6
    """
    from scipy import ndimage

    where = "connectivity"
    fraction, edge = fractions(where, mask), edges(where, voxel_size)
    solid = fraction >= 0.5
    if not solid.any():
        raise InputError(f"{where}: the mask is empty (no voxel is half full)")
    labels, parts = ndimage.label(solid, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), weights=fraction.ravel())[1:]
    largest = labels == 1 + int(np.argmax(sizes))
    filled = ndimage.binary_fill_holes(largest)
    _, cavities = ndimage.label(ndimage.binary_fill_holes(solid) & ~solid)
    handles = 1 - euler_number(filled, border)
    volume = solid.size * float(edge.prod())
    return Connectivity(euler_number(solid, border), int(parts), float(sizes.max() / sizes.sum()), int(cavities),
                        handles / volume)


def measure(mask: Any, voxel_size: float | Sequence[float] | np.ndarray, border: str = "open") -> dict[str, float]:
    """Morphometry of trabecular bone.

    Parameters
    ----------
    mask : array (z, y, x)
        Volume fraction of bone (bool or 0..1) in a block of bone and marrow.
    voxel_size : float or three floats
        Edge of a voxel (m); along z, y, x.
    border : {"open", "closed"}
        Whether the structure goes on beyond the grid; see :func:`local_thickness`.

    Returns
    -------
    dict of float
        ``bvtv``; ``trabecular_thickness``, ``trabecular_spacing`` and their SD over the volume,
        ``trabecular_thickness_sd``, ``trabecular_spacing_sd`` (m); ``degree_of_anisotropy``;
        ``connectivity_density`` (1/m3), ``euler_number``, ``largest_share``.

    Raises
    ------
    InputError
        A mask that is empty, full, not (z, y, x) or outside 0..1; a voxel size not above 0.
    """
    where = "measure"
    fraction, edge = fractions(where, mask), edges(where, voxel_size)
    bone = fraction >= 0.5
    if not bone.any() or bone.all():
        raise InputError(f"{where}: the mask is {'full' if bone.all() else 'empty'}, should hold bone and marrow")
    thickness = local_thickness(fraction, edge, border)
    # Beyond a closed border lies no bone either: what has no wall there is always open to the marrow.
    spacing = local_thickness(1 - fraction, edge, "open")
    joined = connectivity(fraction, edge, border)
    return {
        "bvtv": float(fraction.mean()),
        "trabecular_thickness": thickness.mean,
        "trabecular_thickness_sd": thickness.sd,
        "trabecular_spacing": spacing.mean,
        "trabecular_spacing_sd": spacing.sd,
        "degree_of_anisotropy": fabric(fraction, edge).degree_of_anisotropy,
        "connectivity_density": joined.density,
        "euler_number": joined.euler_number,
        "largest_share": joined.largest_share,
    }


def measure_cortical(bone: Any, cortex: Any, voxel_size: float | Sequence[float] | np.ndarray) -> dict[str, float]:
    """Morphometry of cortical bone.

    Parameters
    ----------
    bone, cortex : array (z, y, x)
        Volume fraction of solid bone, and of the cortex with its pores.
    voxel_size : float or three floats
        Edge of a voxel (m); along z (the axis of the bone), y, x.

    Returns
    -------
    dict of float
        ``porosity``; ``cortical_thickness`` and ``cortical_thickness_sd`` (m), unless the cortex fills the grid;
        ``canal_density`` (1/m2); ``canal_diameter`` (m) of the mean canal area, where there are canals.

    Raises
    ------
    InputError
        Arrays that are no volume fractions or of two shapes, an empty cortex, a voxel size not above 0.
    """
    found = canals(bone, cortex, voxel_size)
    measured = {"porosity": porosity(bone, cortex), "canal_density": found.density}
    if found.area.size:
        measured["canal_diameter"] = found.mean_diameter
    inside = fractions("measure_cortical", cortex) >= 0.5
    if inside.any() and not inside.all():
        thickness = cortical_thickness(cortex, voxel_size)
        measured |= {"cortical_thickness": thickness.mean, "cortical_thickness_sd": thickness.sd}
    return measured


def of(phantom: Phantom) -> dict[str, float]:
    """Morphometry of a phantom's bone, from the volumes of its pools.

    Solid bone is the volume of its bound water, collagen and mineral; trabecular bone is in the pools whose names
    start with ``trabecular_``, cortical bone in ``cortical_``; its pores hold the pore water.

    Parameters
    ----------
    phantom : Phantom

    Returns
    -------
    dict of float
        As :func:`measure` and :func:`measure_cortical`, for what is there. Where voxels are larger than
        trabeculae, so that less than half of the bone lies in voxels mostly of bone, there is no structure to
        measure, only ``bvtv``: over the voxels that hold trabecular bone, or, if it is explicit, over bone and
        marrow. Canals likewise are counted only where voxels resolve them.

    Raises
    ------
    InputError
        The phantom holds no bone.
    """
    pools = phantom.pools
    names, kinds = pools["pool"].values.astype(str), pools["kind"].values.astype(str)
    volume, edge = pools["volume_fraction"].values, np.asarray(pools.attrs["voxel_size"], dtype=float)

    def of_kinds(wanted: Sequence[str], start: str = "") -> np.ndarray:
        rows = np.flatnonzero(np.isin(kinds, wanted) & np.char.startswith(names, start))
        return np.minimum(volume[rows].sum(axis=0), 1.0)

    trabecular, cortical = of_kinds(BONE, "trabecular_"), of_kinds(BONE, "cortical_")
    measured: dict[str, float] = {}
    if trabecular.any():
        marrow = of_kinds(MARROW)
        bone = trabecular >= 0.5
        if trabecular[bone].sum() >= 0.5 * trabecular.sum():
            where_full = trabecular + marrow >= 0.5
            box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(where_full))
            if where_full[box].all():  # a block: beyond its faces the structure goes on
                measured |= measure(trabecular[box], edge)
            else:
                measured |= {"trabecular_thickness": local_thickness(trabecular, edge).mean}
            measured["bvtv"] = float(trabecular.sum() / (trabecular + marrow).sum())
        else:
            here = trabecular > 0
            measured["bvtv"] = float(trabecular.sum() / (trabecular + marrow)[here].sum())
    if cortical.any():
        cortex = np.minimum(cortical + of_kinds(("pore_water",)), 1.0)
        found = measure_cortical(cortical, cortex, edge)
        if math.isnan(found.get("canal_diameter", math.nan)):
            found.pop("canal_density")
        measured |= found
    if not measured:
        raise InputError(f"{phantom.name}: holds no trabecular or cortical bone to measure")
    return measured


__all__ = ["Canals", "Connectivity", "Fabric", "Thickness", "bvtv", "canals", "connectivity", "cortical_thickness",
           "euler_number", "fabric", "local_thickness", "measure", "measure_cortical", "of", "porosity"]
