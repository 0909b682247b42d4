"""Structures of a phantom as whole numbers with names: what a reader would draw as regions.

A label map holds 0 outside; the CF attributes ``flag_values`` and ``flag_meanings`` name its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..errors import InputError
from .pools import SPACE


def label_map(values: np.ndarray, names: Mapping[int, str], place: xr.Dataset) -> xr.DataArray:
    """Labels on the voxels of `place`, with the names of those that are there.

    Parameters
    ----------
    values : ndarray of int, (z, y, x)
    names : mapping
        Number to name; words are joined by underscores.
    place : Dataset
        Pools of a phantom: coordinates (m) and the attribute ``affine``.
    """
    there = [number for number in names if (values == number).any()]
    attrs = {
        "units": "1",
        "long_name": "structure in the middle of the voxel",
        "affine": np.asarray(place.attrs["affine"], float).ravel(),
        "flag_values": np.array(there, dtype=np.int16),
        "flag_meanings": " ".join(names[number].replace(" ", "_") for number in there),
    }
    return xr.DataArray(values.astype(np.int16), {dim: place[dim] for dim in SPACE}, SPACE, "label", attrs)


def checked(labels: xr.DataArray, pools: xr.Dataset, where: str) -> xr.DataArray:
    """The labels, where they lie on the voxels of the pools and are whole numbers; else an InputError."""
    shape = tuple(pools.sizes[dim] for dim in SPACE)
    if labels.dims != SPACE or labels.shape != shape:
        own = f"dims {labels.dims} and shape {labels.shape}"
        raise InputError(f"{where}: labels have {own}, should be {SPACE} and {shape}, as the pools")
    if labels.dtype.kind not in "iu":
        raise InputError(f"{where}: labels hold {labels.dtype}, should be whole numbers, 0 outside")
    return labels
