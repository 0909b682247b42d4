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
from . import files, nifti

if TYPE_CHECKING:
    import xarray as xr

VOXEL_DIMS = ("z", "y", "x")


def as_labels(mask: xr.DataArray, what: str) -> xr.DataArray:
    """Return a mask as a label map of integers: 0 is outside.

    Raises
    ------
    InputError
        For values that are not integers of at least 0, and where every voxel is outside.
    """
    values = mask.values
    if values.dtype.kind not in "biu":
        wrong = ~(np.isfinite(values) & (values == np.round(values)))
        if wrong.any():
            raise InputError(f"{what} holds {values[wrong][0]:g}; a mask holds integers, 0 outside")
    if values.min() < 0:
        raise InputError(f"{what} holds {values.min():g}; a mask holds integers of at least 0, 0 outside")
    if not values.any():
        raise InputError(f"{what} is 0 in all its {values.size} voxels; no voxel is left to fit")
    return mask.astype(np.int64)


def per_label(maps: xr.Dataset, labels: xr.DataArray) -> dict[str, Any]:
    """Return the statistics of every quantity in every label.

    Parameters
    ----------
    maps : Dataset
        The estimate, with ``status``.
    labels : DataArray
        Integers on the voxels of `maps`, 0 outside.

    Returns
    -------
    dict
        Label to ``voxels`` (count), ``flagged`` (count with a status other than 0), and for each quantity ``n`` (finite
        values), ``mean``, ``sd``, ``median``, ``q25`` and ``q75`` over all finite values, flagged ones included.
    """
    found = {}
    for label in np.unique(labels.values[labels.values > 0]):
        inside = labels.values == label
        entry: dict[str, Any] = {"voxels": int(inside.sum())}
        if "status" in maps:
            entry["flagged"] = int(np.count_nonzero(maps["status"].values[inside]))
        for name in _quantities(maps):
            values = maps[name].values[inside]
            values = values[np.isfinite(values)]
            entry[name] = {"n": int(values.size)}
            if values.size:
                low, middle, high = np.percentile(values, [25, 50, 75])
                entry[name] |= {"mean": float(values.mean()), "median": float(middle), "q25": float(low)}
                entry[name] |= {"q75": float(high), "sd": float(values.std(ddof=1)) if values.size > 1 else math.nan}
        found[str(label)] = entry
    return found


def _quantities(maps: xr.Dataset) -> list[str]:
    """Return the names of the quantities of an estimate: not status, not the uncertainties."""
    names = [str(name) for name in maps.data_vars]
    endings = ("_sd", "_lo", "_hi")
    return [
        name
        for name in names
        if name != "status" and not any(name.endswith(end) and name.removesuffix(end) in names for end in endings)
    ]


def provenance(
    maps: xr.Dataset, inputs: Mapping[str, str | os.PathLike[str] | None], labels: xr.DataArray | None = None
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

    Returns
    -------
    dict
        ``method``, ``version``, ``protocol``, ``options`` and the further attributes of the estimate, ``inputs`` with
        their SHA-256, ``maps`` with unit and meaning, ``status_flags``, ``labels``.
    """
    said: dict[str, Any] = {name: _decoded(value) for name, value in maps.attrs.items()}
    said["inputs"] = {
        what: {"file": str(path), "sha256": files.sha256(path)} for what, path in inputs.items() if path is not None
    }
    said["maps"] = {str(name): _described(maps[name]) for name in maps.data_vars if name != "status"}
    if "status" in maps:
        attrs = maps["status"].attrs
        bits = np.atleast_1d(attrs.get("flag_masks", [])).tolist()
        said["status_flags"] = dict(zip(str(attrs.get("flag_meanings", "")).split(), map(int, bits), strict=False))
    if labels is not None:
        said["labels"] = per_label(maps, labels)
    return said


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


def write_estimate(
    maps: xr.Dataset,
    place: Path,
    inputs: Mapping[str, str | os.PathLike[str] | None],
    labels: xr.DataArray | None = None,
    template: Any = None,
    affine: np.ndarray | None = None,
) -> None:
    """Write an estimate into the place that `writing_estimate` has opened.

    Parameters
    ----------
    maps : Dataset
        The estimate.
    place : Path
        A folder, which gets one ``.nii.gz`` a variable and ``estimate.json``; or a file, which gets NetCDF with the
        provenance as its attributes.
    inputs, labels
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
    said = provenance(maps, inputs, labels)
    if not place.is_dir():
        extra = {name: json.dumps(_finite(said[name])) for name in ("inputs", "labels") if name in said}
        files.write_dataset(maps.assign_attrs(extra), place)
        return
    for name, variable in maps.data_vars.items():
        strange = [str(dim) for dim in variable.dims if dim not in VOXEL_DIMS]
        if strange:
            raise InputError(f"{name} has the dim {strange[0]}; NIfTI has z, y, x: choose an output ending in .nc")
        filled = variable.expand_dims([dim for dim in VOXEL_DIMS if dim not in variable.dims]).transpose(*VOXEL_DIMS)
        nifti.write_map(filled.values, place / f"{name}.nii.gz", template, affine)
    (place / "estimate.json").write_text(to_json(said), encoding="utf-8")
