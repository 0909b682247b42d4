"""Read from maps and a label mask: fat fraction and cross-section of muscles, PDFF and T2* of vertebrae.

A label mask holds whole numbers on the voxels of the maps, 0 outside: that of `phantoms.spine.labels`, or any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..errors import InputError

PARASPINAL = ("erector_spinae", "multifidus")
"""Muscles behind the spine, as the label map of the spine names them after their side."""


def names_of(labels: xr.DataArray) -> dict[int, str]:
    """Number and name of each label, from its CF attributes; a label without a name is called by its number."""
    present = [int(n) for n in np.unique(labels.values) if n != 0]
    values = [int(n) for n in np.atleast_1d(labels.attrs.get("flag_values", []))]
    words = str(labels.attrs.get("flag_meanings", "")).split()
    known = dict(zip(values, words, strict=True)) if len(values) == len(words) else {}
    return {n: known.get(n, str(n)) for n in present}


def by_label(maps: xr.Dataset, labels: xr.DataArray, groups: Mapping[str, tuple[str, ...]] | None = None) -> xr.Dataset:
    """Size, PDFF, R2* and T2* of each region.

    Parameters
    ----------
    maps : Dataset
        ``pdff``, and ``r2star`` (1/s) where there is one, over z, y, x, with attr ``voxel_size`` (m; z, y, x) or
        regular coordinates.
    labels : DataArray (z, y, x)
        Whole numbers, 0 outside.
    groups : mapping, optional
        Further regions made of several: name to the ends of the names of its members (``("multifidus",)``).

    Returns
    -------
    Dataset
        Over ``region``: ``voxels``, ``volume`` (m3), ``cross_section`` (m2: the mean area in the axial slices that it
        reaches), ``pdff`` (fat signal over all signal where water and fat are there, else the mean of the voxels),
        ``r2star`` (median) and ``t2star`` = 1/r2star (s), ``flagged``: share of voxels with a status.

    Raises
    ------
    InputError
        Labels that are no whole numbers, or do not lie on the voxels of the maps.
    """
    values = labels.values
    if values.dtype.kind not in "biu" and not np.array_equal(values, np.round(values)):
        raise InputError("labels: they hold fractions; whole numbers are expected, 0 outside")
    if values.shape != maps["pdff"].shape:
        raise InputError(f"labels have shape {values.shape}; the maps have {maps['pdff'].shape}")
    names = names_of(labels)
    if not names:
        raise InputError("labels: all are 0; no region is left to measure")
    members = {name: np.array([number]) for number, name in names.items()}
    for group, ends in (groups or {}).items():
        found = [number for number, name in names.items() if any(name == e or name.endswith("_" + e) for e in ends)]
        if found:
            members[group] = np.array(found)
    size = _voxel_size(maps)
    rows = [_measured(maps, np.isin(values, numbers), size) for numbers in members.values()]
    units = {"voxels": "1", "volume": "m3", "cross_section": "m2", "pdff": "1", "r2star": "1/s", "t2star": "s",
             "flagged": "1"}  # fmt: skip
    return xr.Dataset(
        {name: ("region", np.array([row[name] for row in rows]), {"units": unit}) for name, unit in units.items()},
        coords={"region": list(members)},
    )


def _measured(maps: xr.Dataset, inside: np.ndarray, size: np.ndarray) -> dict[str, float]:
    slices = inside.any(axis=(1, 2)).sum()
    fraction = maps["pdff"].values[inside]
    if {"water", "fat"} <= set(maps.data_vars):
        water, fat = (maps[name].values[inside] for name in ("water", "fat"))
        pdff = float(np.nansum(fat) / (np.nansum(fat) + np.nansum(water)))
    else:
        pdff = float(np.nanmean(fraction)) if np.isfinite(fraction).any() else np.nan
    rates = maps["r2star"].values[inside] if "r2star" in maps else np.array([np.nan])
    rate = float(np.nanmedian(rates)) if np.isfinite(rates).any() else np.nan
    flagged = float((maps["status"].values[inside] != 0).mean()) if "status" in maps else 0.0
    count = int(inside.sum())
    return {
        "voxels": count, "volume": count * float(np.prod(size)),
        "cross_section": count * float(size[1] * size[2]) / max(int(slices), 1), "pdff": pdff, "r2star": rate,
        "t2star": 1 / rate if rate > 0 else np.nan, "flagged": flagged,
    }  # fmt: skip


def _voxel_size(maps: xr.Dataset) -> np.ndarray:
    if "voxel_size" in maps.attrs:
        return np.broadcast_to(np.asarray(maps.attrs["voxel_size"], float), (3,))
    edges = []
    for dim in maps["pdff"].dims:
        at = maps[dim].values if dim in maps.coords else np.empty(0)
        if at.size < 2:
            raise InputError(f"maps: voxel_size is not stated, and {dim} does not tell it; give it in attrs (m)")
        edges.append(float(abs(at[1] - at[0])))
    return np.array(edges)
