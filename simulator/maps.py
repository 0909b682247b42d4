"""The maps of an estimate on disk: one NetCDF file, or a folder with a NIfTI a quantity and ``estimate.json``."""

from __future__ import annotations

import contextlib
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

LARGEST_ATTRIBUTE = 64_000
"""Bytes: an attribute of HDF5 is at most 64 kB with its header."""


def as_labels(mask: xr.DataArray, what: str) -> xr.DataArray:
    """Return a mask as a label map of integers: 0 is outside.

    Raises
    ------
    InputError
        For values that are not integers of at least 0, and where every voxel is outside.
    """
    values = mask.values
    if values.dtype.kind not in "biu":
        # a slope in the header brings integers back to a rounding of single precision
        wrong = ~(np.isfinite(values) & (np.abs(values - np.round(values)) <= 1e-6 * np.maximum(np.abs(values), 1)))
        if wrong.any():
            raise InputError(f"{what} holds {values[wrong][0]:g}; a mask holds integers, 0 outside")
        mask = mask.copy(data=np.round(values))
        values = mask.values
    if values.min() < 0:
        raise InputError(f"{what} holds {values.min():g}; a mask holds integers of at least 0, 0 outside")
    if not values.any():
        raise InputError(f"{what} is 0 in all its {values.size} voxels; no voxel is left to fit")
    return mask.astype(np.int64)


def read_labels(path: str | os.PathLike[str], scan: xr.DataArray, what: str) -> xr.DataArray:
    """Read a label map on the voxels of a scan, with the names of its labels where the file or one beside it has them.

    Parameters
    ----------
    path : path
        NIfTI or NetCDF, see `nifti.read_map`. Names: ``flag_values`` with ``flag_meanings`` (CF) in NetCDF; of a NIfTI
        the JSON beside it, ``"labels": {"1": "L1"}`` or ``"LabelMap": {"L1": 1}``; or the table of a BIDS segmentation
        beside it (``.tsv`` with the columns index and name).
    scan : DataArray
        The scan that the labels belong to.
    what : str
        What the file is, for the errors.

    Returns
    -------
    DataArray
        Whole numbers, 0 outside; ``flag_values`` and ``flag_meanings`` in attrs where any label has a name.

    Raises
    ------
    InputError
        As `nifti.read_map` and `as_labels`.
    """
    found = as_labels(nifti.read_map(path, scan, what), f"{what} {path}")
    names = _label_names(Path(path))
    present = [int(n) for n in np.unique(found.values) if n != 0 and int(n) in names]
    if not present:
        return found
    # names are words in CF; two labels of one name stay two
    words = ["_".join(names[n].split()) for n in present]
    words = [word if words.count(word) == 1 else f"{word}_{n}" for n, word in zip(present, words, strict=True)]
    return found.assign_attrs(flag_values=np.array(present), flag_meanings=" ".join(words))


def _label_names(path: Path) -> dict[int, str]:
    """What the labels of a file are called: number to name; what is no such pair is passed over."""
    pairs: list[tuple[Any, Any]] = []
    if path.suffix.lower() == ".nc":
        variables = files.read_netcdf(path).data_vars
        attrs = variables[next(iter(variables))].attrs
        words = str(attrs.get("flag_meanings", "")).split()
        values = np.atleast_1d(attrs.get("flag_values", [])).tolist()
        pairs = list(zip(values, words, strict=True)) if len(values) == len(words) else []
    else:
        sidecar, table = nifti.beside(path, ".json"), nifti.beside(path, ".tsv")
        if sidecar.is_file():
            content = nifti.read_json(sidecar)
            for field, turned in (("labels", False), ("LabelMap", True)):
                stated = content.get(field)
                items = list(stated.items()) if isinstance(stated, dict) else []
                pairs += [(b, a) if turned else (a, b) for a, b in items]
        if table.is_file() and not pairs:
            pairs = _table_names(table)
    names = {}
    for number, name in pairs:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if isinstance(name, str) and name.strip() and float(number) == int(float(number)):
                names[int(float(number))] = name
    return names


def _table_names(table: Path) -> list[tuple[Any, Any]]:
    """Number and name of each row of a BIDS table of labels; none where it is no such table."""
    try:
        rows = [line.split("\t") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
    head = [word.strip().lower() for word in rows[0]] if rows else []
    if not {"index", "name"} <= set(head):
        return []
    number, name = head.index("index"), head.index("name")
    return [(row[number], row[name]) for row in rows[1:] if len(row) > max(number, name)]


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


def per_label(maps: xr.Dataset, labels: xr.DataArray) -> dict[str, Any]:
    """Return the statistics of every quantity in every label.

    Parameters
    ----------
    maps : Dataset
        The estimate, with ``status``.
    labels : DataArray
        Integers on the voxels of `maps`, 0 outside; names in the CF attributes ``flag_values``, ``flag_meanings``.

    Returns
    -------
    dict
        Label to ``name`` where it has one, ``voxels`` (count), ``flagged`` (count with a status other than 0),
        ``status`` (count of voxels that are ``good``, and of those that carry each flag: a voxel may carry several),
        and for each quantity ``n`` (finite values), ``mean``, ``sd``, ``median``, ``q25`` and ``q75`` over all finite
        values, flagged ones included; and in ``good`` the same over the voxels of status 0 alone, with ``se``: the
        standard error of the mean, sd / sqrt(n), of voxels whose noise is independent.
    """
    found = {}
    values_named = np.atleast_1d(labels.attrs.get("flag_values", [])).tolist()
    names = dict(zip(values_named, str(labels.attrs.get("flag_meanings", "")).split(), strict=False))
    for label in np.unique(labels.values[labels.values > 0]):
        inside = labels.values == label
        entry: dict[str, Any] = {"name": names[int(label)]} if int(label) in names else {}
        entry["voxels"] = int(inside.sum())
        good = np.ones(entry["voxels"], bool)
        if "status" in maps:
            status = maps["status"].values[inside]
            good = status == 0
            entry["flagged"] = int(np.count_nonzero(status))
            entry["status"] = _counts(maps, status)
        for name in _quantities(maps):
            values = maps[name].values[inside]
            entry[name] = _statistics(values)
            entry[name]["good"] = _statistics(values[good])
            if entry[name]["good"]["n"] > 1:
                entry[name]["good"]["se"] = entry[name]["good"]["sd"] / math.sqrt(entry[name]["good"]["n"])
        found[str(label)] = entry
    return found


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """Of the finite values: how many, mean, SD over them, median and quartiles."""
    values = values[np.isfinite(values)]
    found: dict[str, Any] = {"n": int(values.size)}
    if values.size:
        low, middle, high = np.percentile(values, [25, 50, 75])
        found |= {"mean": float(values.mean()), "median": float(middle), "q25": float(low), "q75": float(high)}
        found["sd"] = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return found


def _counts(maps: xr.Dataset, status: np.ndarray) -> dict[str, int]:
    """How many voxels are good, and how many carry each flag that any of them has."""
    counts = {"good": int(np.count_nonzero(status == 0))}
    carried = {name: int(np.count_nonzero(status & bit)) for name, bit in _flags(maps).items()}
    return counts | {name: count for name, count in carried.items() if count}


def _flags(maps: xr.Dataset) -> dict[str, int]:
    """Name and bit of each flag of the status."""
    attrs = maps["status"].attrs
    bits = np.atleast_1d(attrs.get("flag_masks", [])).tolist()
    return dict(zip(str(attrs.get("flag_meanings", "")).split(), map(int, bits), strict=False))


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
        and that carry each flag), ``labels`` (see `per_label`; what was measured of a label's region stands in its
        ``region``), ``groups`` (regions of several labels), ``region_units``.
    """
    said: dict[str, Any] = {name: _decoded(value) for name, value in maps.attrs.items()}
    said["inputs"] = {
        what: {"file": str(path), "sha256": files.sha256(path)} for what, path in inputs.items() if path is not None
    }
    said["maps"] = {str(name): _described(maps[name]) for name in maps.data_vars if name != "status"}
    if "status" in maps:
        said["status_flags"] = _flags(maps)
        said["status_counts"] = _counts(maps, maps["status"].values)
    if labels is not None:
        said["labels"] = per_label(maps, labels)
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
