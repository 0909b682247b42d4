"""Label maps: whole numbers on the voxels of a scan, their names, and the statistics of an estimate in each."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import files, nifti

if TYPE_CHECKING:
    import xarray as xr


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
            entry["status"] = counts(maps, status)
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


def counts(maps: xr.Dataset, status: np.ndarray) -> dict[str, int]:
    """How many voxels are good, and how many carry each flag that any of them has."""
    found = {"good": int(np.count_nonzero(status == 0))}
    carried = {name: int(np.count_nonzero(status & bit)) for name, bit in flags(maps).items()}
    return found | {name: count for name, count in carried.items() if count}


def flags(maps: xr.Dataset) -> dict[str, int]:
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
