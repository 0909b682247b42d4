"""The maps of an estimate on disk: one NetCDF file, or a folder with a NIfTI a quantity and ``estimate.json``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import files, label_maps, nifti

if TYPE_CHECKING:
    import xarray as xr

VOXEL_DIMS = ("z", "y", "x")

LARGEST_ATTRIBUTE = 64_000
"""Bytes: an attribute of HDF5 is at most 64 kB with its header."""


def read_noise(path: str | os.PathLike[str], scan: xr.DataArray, labels: xr.DataArray | None = None) -> xr.DataArray:
    """Read a map of the noise SD on the voxels of a scan.

    Parameters
    ----------
    path : path
        NIfTI or NetCDF, see `nifti.read_map`; in the unit of the scan.
    scan : DataArray
        The scan that the noise is of.
    labels : DataArray, optional
        Whole numbers, 0 outside. Only inside must the map make sense: outside, where noise maps are often 0, the median
        of the inside stands.

    Raises
    ------
    InputError
        As `nifti.read_map`, and where a voxel to be fitted has an SD that is not a positive number.
    """
    found = nifti.read_map(path, scan, "sigma map")
    inside = np.ones(found.shape, bool) if labels is None else labels.values > 0
    good = np.isfinite(found.values) & (found.values > 0)
    if not good[inside].all():
        wrong = found.values[inside & ~good]
        count = f"{wrong.size} of the {int(inside.sum())} voxels to fit"
        raise InputError(f"sigma map {path} holds {wrong[0]:g} in {count}; the noise SD must be a positive number: "
                         "leave them out with --mask")  # fmt: skip
    return found if inside.all() else found.where(inside, float(np.median(found.values[inside])))


def provenance(
    maps: xr.Dataset,
    inputs: Mapping[str, str | os.PathLike[str] | None],
    labels: xr.DataArray | None = None,
    regions: xr.Dataset | None = None,
) -> dict[str, Any]:
    """Return what ``estimate.json`` says: how the maps came about, and what they hold in each label.

    Parameters
    ----------
    maps : Dataset
        The estimate.
    inputs : mapping
        What a file is ("scan", "bval", "mask", ...) to its path; None where there is none.
    labels : DataArray, optional
        The label map.
    regions : Dataset, optional
        What else was measured of each label, or of several together: variables over ``region``, whose coordinate holds
        the names of the labels (their numbers where they have none).

    Returns
    -------
    dict
        ``method``, ``version``, ``protocol``, ``options`` and the further attributes of the estimate, ``inputs`` with
        their SHA-256, ``maps`` with unit and meaning, ``status_flags``, ``status_counts`` (voxels that are good,
        and that carry each flag), ``labels`` (see `label_maps.per_label`; what was measured of a label's region
        stands in its ``region``), ``groups`` (regions of several labels), ``region_units``.
    """
    said: dict[str, Any] = {name: _decoded(value) for name, value in maps.attrs.items()}
    said["inputs"] = {
        what: {"file": str(path), "sha256": files.sha256(path)} for what, path in inputs.items() if path is not None
    }
    said["maps"] = {str(name): _described(maps[name]) for name in maps.data_vars if name != "status"}
    if "status" in maps:
        said["status_flags"] = label_maps.flags(maps)
        said["status_counts"] = label_maps.counts(maps, maps["status"].values)
    if labels is not None:
        said["labels"] = label_maps.per_label(maps, labels)
        _enter(said, regions)
    return said


def _enter(said: dict[str, Any], regions: xr.Dataset | None) -> None:
    """Enter what was measured of whole regions: with its label, or under ``groups`` where it is of several."""
    if regions is None:
        return
    said["region_units"] = {str(name): variable.attrs.get("units", "1") for name, variable in regions.data_vars.items()}
    of_name = {entry.get("name", label): entry for label, entry in said["labels"].items()}
    groups: dict[str, Any] = {}
    for region in regions["region"].values:
        row = regions.sel(region=region)
        measured = {str(name): np.asarray(row[name].values).tolist() for name in regions.data_vars}
        if str(region) in of_name:
            of_name[str(region)]["region"] = measured
        else:
            groups[str(region)] = measured
    if groups:
        said["groups"] = groups


def _described(variable: xr.DataArray) -> dict[str, Any]:
    """Return unit, meaning and measurand of a map."""
    return {name: variable.attrs[name] for name in ("units", "long_name", "measurand") if name in variable.attrs}


def _decoded(value: Any) -> Any:
    """Return an attribute as JSON has it; a string that is JSON itself (protocol, options) is opened."""
    if isinstance(value, str):
        if value[:1] in "{[":
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value
    return np.asarray(value).tolist()


def to_json(content: Any) -> str:
    """Return JSON text. JSON has no NaN and no infinity: they become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def writing_estimate(out: str | os.PathLike[str]) -> AbstractContextManager[Path]:
    """Open the place of an estimate (see `files.writing`) before the fit: a place that cannot be written is told first.

    Raises
    ------
    InputError
        For a suffix other than ``.nc`` (a name without one is a folder), or a place that cannot be written.
    """
    path = files.output_path(out, folder=True)
    return files.writing(path, folder=path.is_dir() or path.suffix == "")


def _attributes(name: str, content: dict[str, Any]) -> dict[str, str]:
    """JSON as an attribute of NetCDF; where it is too large, one for each of its entries."""
    text = json.dumps(content, separators=(",", ":"))
    if len(text.encode()) < LARGEST_ATTRIBUTE:
        return {name: text}
    return {f"{name}_{key}": json.dumps(value, separators=(",", ":")) for key, value in content.items()}


def write_estimate(
    maps: xr.Dataset,
    place: Path,
    inputs: Mapping[str, str | os.PathLike[str] | None],
    labels: xr.DataArray | None = None,
    template: Any = None,
    affine: np.ndarray | None = None,
    regions: xr.Dataset | None = None,
) -> None:
    """Write an estimate into the place that `writing_estimate` has opened.

    Parameters
    ----------
    maps : Dataset
        The estimate.
    place : Path
        A folder, which gets one ``.nii.gz`` a variable and ``estimate.json``; or a file, which gets NetCDF with the
        provenance as its attributes (of many labels one attribute each, ``labels_1``, ...: none may be larger than 64
        kB).
    inputs, labels, regions
        See `provenance`.
    template : nibabel header, optional
        The header of the input, for the geometry.
    affine : ndarray, optional
        (4, 4), mm: the geometry where the input was no NIfTI.

    Raises
    ------
    InputError
        Where the maps cannot be held: voxel dims other than z, y, x in NIfTI.
    """
    said = provenance(maps, inputs, labels, regions)
    if not place.is_dir():
        extra: dict[str, str] = {}
        for name in ("inputs", "labels", "groups", "region_units"):
            if name in said:
                extra |= _attributes(name, _finite(said[name]))
        files.write_dataset(maps.assign_attrs(extra), place)
        return
    for quantity, variable in maps.data_vars.items():
        strange = [str(dim) for dim in variable.dims if dim not in VOXEL_DIMS]
        if strange:
            raise InputError(f"{quantity} has the dim {strange[0]}; NIfTI has z, y, x: choose an output ending in .nc")
        filled = variable.expand_dims([dim for dim in VOXEL_DIMS if dim not in variable.dims]).transpose(*VOXEL_DIMS)
        nifti.write_map(filled.values, place / f"{quantity}.nii.gz", template, affine)
    (place / "estimate.json").write_text(to_json(said), encoding="utf-8")
