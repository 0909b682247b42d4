"""Phantoms as NIfTI with JSON: what an outside simulator, or any viewer of medical images, can read.

The layout is the NIfTI phantom specification of MR-zero [1]_, also known as BIfTI: ``NAME.json`` names tissues, and for
each the NIfTI volume that holds its density and the numbers that describe it. Beside it stand the truth maps, one
file each (``truth_pdff.nii.gz``), and ``truth.json``, which says what every file holds, in which unit, and where the
tissue numbers come from.

What the layout can carry, and what it cannot:

- One off-resonance a tissue: a pool with several spectral peaks becomes one tissue a peak (``fat_peak1`` ...), each
  with the peak's share of the density.
- One diffusivity a tissue: blood has its pseudo-diffusion coefficient there. Kurtosis is lost.
- No exchange: T1 is the observed one. No susceptibility: give the field it makes as `field_map`.
- One nucleus a file: phosphorus goes into a second file, ``NAME-31P.json``.
- Density is relative to pure water at body temperature; ``truth.json`` keeps the factor.

References
----------
.. [1] Loktyushin 2021, MRM 86:709, doi:10.1002/mrm.28727; the layout: MR-zero Core, documentation/src/nifti-spec.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import files, tissues
from ..simulator import nifti as images
from .phantom import Phantom
from .pools import SPACE

FILE_TYPE = "nifti_phantom_v1"
SCHEMA = "https://raw.githubusercontent.com/mrx-org/bifti-phantoms/refs/heads/main/bifti-phantom-v1.schema.json"
UNITS = {"gyro": "MHz/T", "B0": "T", "T1": "s", "T2": "s", "T2'": "s", "ADC": "10^-3 mm^2/s", "dB0": "Hz",
         "B1+": "rel", "B1-": "rel"}
GYRO = {"1H": 42.5764, "31P": 17.235}  # MHz/T; that of 1H is the one the specification gives
PHOSPHORUS = ("phosphorus", "mineral")  # kinds of pools whose spins are 31P
# property of the layout: (its default, the name of the variable that is read back, its unit there)
PROPERTIES = {
    "T1": (np.inf, "T1", "s"),
    "T2": (np.inf, "T2", "s"),
    "T2'": (np.inf, "T2_prime", "s"),
    "ADC": (0.0, "D", "mm2/s"),
    "dB0": (0.0, "offset", "Hz"),
}
_REFERENCE = re.compile(r"(?P<file>.+\.nii(\.gz)?)(\[(?P<bracket>\d+)\]|:(?P<colon>\d+))")
_SHIFTED = re.compile(r"x\s*(?:(?P<sign>[+-])\s*(?P<number>[\d.]+(?:[eE][+-]?\d+)?))?")


# ---------------------------------------------------------------------------------------------------------- writing


def write(phantom: Phantom, folder: str | os.PathLike[str], field_map: np.ndarray | None = None) -> Path:
    """Write a phantom into a folder of NIfTI and JSON, whole or not at all.

    Parameters
    ----------
    phantom : Phantom
    folder : path
        Made where it does not exist; files of other names in it stay.
    field_map : ndarray, optional
        Offset (z, y, x; Hz) of water from the scanner's frequency, added to the shift of every tissue.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        The folder cannot be written, or the field map has another shape than the phantom.
    """
    folder = Path(folder)
    shape = tuple(phantom.pools.sizes[dim] for dim in SPACE)
    if field_map is not None and np.shape(field_map) != shape:
        raise InputError(f"field_map has the shape {np.shape(field_map)}, should be {shape} as the phantom (z, y, x)")
    with files.writing(folder, folder=True) as place:
        described: dict[str, dict[str, Any]] = {}
        for nucleus, gyro in GYRO.items():
            rows = [row for row, kind in enumerate(phantom.pools["kind"].values) if _nucleus(str(kind)) == nucleus]
            if rows:
                described |= _write_spins(phantom, place, rows, nucleus, gyro, field_map)
        truth = {}
        for name, values in phantom.truth.data_vars.items():
            if np.isfinite(values.values).any():
                file = f"truth_{name}.nii.gz"
                _save(values.values.astype(np.float32)[None], phantom, place / file, flat=True)
                truth[str(name)] = {"file": file, "unit": values.attrs["units"], "meaning": values.attrs["long_name"]}
        _dump(_sidecar(phantom, described, truth), place / "truth.json")
        if phantom.labels is not None:
            write_labels(phantom.labels, place / "labels.nii.gz")
    return folder


def _write_spins(
    phantom: Phantom, place: Path, rows: list[int], nucleus: str, gyro: float, field_map: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Write the NIfTI and the JSON of one nucleus; return what each tissue is."""
    pools, field = phantom.pools, phantom.field_strength
    stem = phantom.name if nucleus == "1H" else f"{phantom.name}-{nucleus}"
    whole = _density_of_one()
    count = int((pools["peak_area"].values[rows] > 0).sum())
    volumes = np.empty((count, *pools["density"].shape[1:]), np.float32)  # filled in place: there may be dozens
    maps: dict[str, list[np.ndarray]] = {}
    entries: dict[str, dict[str, Any]] = {}
    described: dict[str, dict[str, Any]] = {}

    def reference(key: str, values: np.ndarray) -> str:
        maps.setdefault(key, []).append(values.astype(np.float32))
        return f"{stem}_{key}.nii.gz[{len(maps[key]) - 1}]"

    shared = None if field_map is None else reference("dB0", np.asarray(field_map, dtype=float))
    reference_shift = tissues.water_shift() if nucleus == "1H" else 0.0
    for row in rows:
        name, kind = str(pools["pool"].values[row]), str(pools["kind"].values[row])
        density = pools["density"].values[row]
        relaxation: dict[str, Any] = {}
        for key, values in _relaxation(pools, row, kind).items():
            constant = _constant(values, density)
            if constant is None:
                relaxation[key] = reference(key, values)
            elif constant != PROPERTIES[key][0]:
                relaxation[key] = constant
        areas, shifts = pools["peak_area"].values[row], pools["shift"].values[row]
        present = np.flatnonzero(areas > 0)
        for number, peak in enumerate(present, start=1):
            tissue = name if len(present) == 1 else f"{name}_peak{number}"
            np.multiply(density, areas[peak] / whole, out=volumes[len(entries)], casting="same_kind")
            offset = float((shifts[peak] - reference_shift) * gyro * field)
            entry: dict[str, Any] = {"density": f"{stem}.nii.gz[{len(entries)}]", **relaxation}
            if shared is not None:
                entry["dB0"] = {"file": shared, "func": f"x {'-' if offset < 0 else '+'} {abs(offset):.6f}"}
            elif offset:
                entry["dB0"] = offset
            entries[tissue] = entry
            described[tissue] = {"pool": name, "kind": kind, "nucleus": nucleus, "peak_shift_ppm": float(shifts[peak]),
                                 "peak_area": float(areas[peak]), "file": f"{stem}.json"}
    _save(volumes, phantom, place / f"{stem}.nii.gz")
    for key, stack in maps.items():
        _save(np.stack(stack), phantom, place / f"{stem}_{key}.nii.gz")
    _dump({"$schema": SCHEMA, "file_type": FILE_TYPE, "units": UNITS, "system": {"gyro": gyro, "B0": field},
           "tissues": entries}, place / f"{stem}.json")
    return described


def _relaxation(pools: xr.Dataset, row: int, kind: str) -> dict[str, np.ndarray]:
    """T1, T2, T2' (s) and ADC (1e-3 mm2/s) of a pool, each a scalar or a map."""
    T1 = pools["T1_observed"].values[row]
    if "T1_intrinsic" in pools and not np.isfinite(T1).any():
        T1 = pools["T1_intrinsic"].values[row]
    R2_prime = pools["R2_prime"].values[row]
    D = pools["D_star" if kind == "blood" else "D"].values[row]
    with np.errstate(divide="ignore"):
        T2_prime = 1.0 / np.asarray(R2_prime)
    return {"T1": T1, "T2": pools["T2"].values[row], "T2'": T2_prime, "ADC": 1e3 * np.nan_to_num(D)}


def _constant(values: np.ndarray, density: np.ndarray) -> float | None:
    """The one value a property has where the pool has spins; None where it varies."""
    if np.ndim(values) == 0:
        return float(values)
    inside = values[density > 0]
    if inside.size == 0:
        return float(values.flat[0])
    return float(inside[0]) if (inside == inside[0]).all() else None


def _nucleus(kind: str) -> str:
    return "31P" if kind in PHOSPHORUS else "1H"


def _density_of_one() -> float:
    """The concentration (mol/L) that is written as density 1: that of 1H in pure water at body temperature."""
    return tissues.value("water.density")


def _sidecar(phantom: Phantom, described: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to know what is what, as JSON holds it."""
    attrs = {name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
             for name, value in phantom.pools.attrs.items()}
    parameters, numbers = (json.loads(attrs.pop(name, None) or empty)
                           for name, empty in (("parameters", "{}"), ("tissue_numbers", "[]")))
    named = ("name", "seed", "condition", "field_strength", "voxel_size", "affine")
    return {
        "what": "a phantom with known truth; axes of the NIfTI are x (right), y (anterior), z (superior), affine in mm",
        **{name: attrs.pop(name) for name in named},
        "units": {"field_strength": "T", "voxel_size": "m", "affine": "mm"},
        "parameters": parameters,
        "measured": attrs,
        "density_of_one": {"value": _density_of_one(), "unit": "mol of spins per litre of voxel"},
        "tissues": described,
        "truth": truth,
        "tissue_numbers": numbers,
    }


def _save(stack: np.ndarray, phantom: Phantom, path: Path, flat: bool = False) -> None:
    """Write (volume, z, y, x) as NIfTI (x, y, z, volume); with `flat`, the one volume as (x, y, z)."""
    import nibabel as nib

    values = stack[0].T if flat else np.moveaxis(stack, 0, -1).transpose(2, 1, 0, 3)
    image = nib.Nifti1Image(values, np.asarray(phantom.pools.attrs["affine"], dtype=float).reshape(4, 4))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _dump(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_labels(labels: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a label map, as `Phantom.labels`, as a mask that ``bonemri estimate --mask`` takes.

    Parameters
    ----------
    labels : DataArray (z, y, x)
        Whole numbers, 0 outside, with the attribute ``affine`` (voxel index to mm) or coordinates (m), and perhaps the
        CF attributes that name them.
    path : path
        A name that ends in ``.nii.gz`` or ``.nii``; the names of the labels go into a ``.json`` beside it.

    Raises
    ------
    InputError
        Labels that are no whole numbers, or do not say where they lie, or another suffix.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: a label map is NIfTI; give it a name that ends in .nii.gz")
    values = labels.transpose(*SPACE).values
    if values.dtype.kind not in "iu":
        raise InputError(f"{path}: labels hold {values.dtype}; whole numbers are expected, 0 outside")
    affine = np.eye(4)
    if "affine" in labels.attrs:
        affine = np.reshape(np.asarray(labels.attrs["affine"], float), (4, 4))
    elif not all(dim in labels.coords and labels.sizes[dim] > 1 for dim in SPACE):
        raise InputError(f"{path}: labels do not say where their voxels lie; give coordinates z, y, x (m)")
    else:
        for axis, dim in enumerate(reversed(SPACE)):
            at = labels[dim].values * 1e3
            affine[axis, axis], affine[axis, 3] = at[1] - at[0], at[0]
    hidden = path.with_name(f".{os.getpid()}-{path.name}")  # the suffix tells what is written
    images.write_map(values, hidden, affine=affine)
    os.replace(hidden, path)
    numbers = [int(n) for n in np.atleast_1d(labels.attrs.get("flag_values", []))]
    names = str(labels.attrs.get("flag_meanings", "")).split()
    if len(numbers) == len(names) > 0:
        with files.writing(images.beside(path, ".json")) as beside:
            _dump({"labels": dict(zip(map(str, numbers), names, strict=True))}, Path(beside))
    return path


# ---------------------------------------------------------------------------------------------------------- reading


def read(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the tissues of a NIfTI phantom: one that :func:`write` wrote, or that came from elsewhere.

    A tissue is less than a pool (no kind, no volume, no susceptibility), so that what comes back is a table of
    tissues and no :class:`Phantom`; phantoms travel whole as NetCDF.

    Parameters
    ----------
    path : path
        The JSON file. Its NIfTI files lie beside it.

    Returns
    -------
    Dataset
        ``density`` (tissue, z, y, x), relative to pure water as far as the file keeps to the convention; ``T1``,
        ``T2``, ``T2_prime`` (s), ``D`` (mm2/s) and ``offset`` (Hz), each (tissue), or (tissue, z, y, x) where one of
        them is a map. Attributes ``field_strength`` (T), ``gyro`` (MHz/T) and ``affine`` (mm).

    Raises
    ------
    InputError
        No such file, not a NIfTI phantom, another unit, a property or a volume that is missing or of the wrong kind.
    """
    path = files.existing_file(path, "the JSON of a NIfTI phantom")
    content = _parse(path)
    volumes: dict[str, tuple[np.ndarray, Any]] = {}
    names = list(content["tissues"])
    columns: dict[str, list[Any]] = {key: [] for key in ("density", *PROPERTIES)}
    for name, entry in content["tissues"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("density"), str):
            raise InputError(f"{path}: tissue {name} has no density; it should be a volume such as 'bone.nii.gz[0]'")
        columns["density"].append(_value(path, name, "density", entry["density"], volumes))
        for key, (default, _, _) in PROPERTIES.items():
            columns[key].append(_value(path, name, key, entry.get(key, default), volumes))
    shapes = {values.shape for values in columns["density"]}
    if len(shapes) > 1:
        raise InputError(f"{path}: its tissues have the shapes {sorted(shapes)} (z, y, x); they should share one grid")
    shape = shapes.pop()
    variables: dict[str, Any] = {"density": (("tissue", *SPACE), np.stack(columns["density"]), {"units": "1"})}
    for key, (_, variable, unit) in PROPERTIES.items():
        values = [1e-3 * value for value in columns[key]] if key == "ADC" else columns[key]
        if all(np.ndim(value) == 0 for value in values):
            variables[variable] = (("tissue",), np.array(values, dtype=float), {"units": unit})
        else:
            stacked = np.stack([np.broadcast_to(value, shape) for value in values])
            variables[variable] = (("tissue", *SPACE), stacked, {"units": unit})
    affine = next(iter(volumes.values()))[1].get_best_affine()
    system = content["system"]
    attrs = {"field_strength": float(system["B0"]), "gyro": float(system["gyro"]), "affine": affine.ravel()}
    return xr.Dataset(variables, coords={"tissue": names}, attrs=attrs)


def _parse(path: Path) -> dict[str, Any]:
    """The content of the JSON, its form and its units checked."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {files.reason(error)}") from error
    marks = [str(content.get(key, "")) for key in ("file_type", "$schema")] if isinstance(content, dict) else []
    if not any(re.search(r"(nifti|bifti)[-_]phantom[-_]v1(\.[^/]*)?$", mark) for mark in marks):
        raise InputError(f"{path} is not a NIfTI phantom: its file_type should be {FILE_TYPE!r}")
    if not (isinstance(content.get("tissues"), dict) and content["tissues"]):
        raise InputError(f"{path} names no tissues; a NIfTI phantom has at least one")
    for key, unit in UNITS.items():
        found = content.get("units", UNITS).get(key, unit)
        if found != unit:
            raise InputError(f"{path}: the unit of {key} is {found!r}, should be {unit!r}")
    system = {"gyro": GYRO["1H"], "B0": 3.0} | content.get("system", {})
    for key, value in system.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
            raise InputError(f"{path}: system.{key} is {value!r}; it should be a positive number")
    return content | {"system": system}


def _value(path: Path, tissue: str, key: str, given: Any, volumes: dict[str, tuple[np.ndarray, Any]]) -> Any:
    """A property as a number, or as a map (z, y, x)."""
    where = f"{path}: {key} of {tissue}"
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    reference, added = (given, "x") if isinstance(given, str) else (None, None)
    if isinstance(given, dict):
        reference, added = given.get("file"), given.get("func")
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    change = _SHIFTED.fullmatch(added.strip()) if isinstance(added, str) else None
    if match is None or Path(match["file"]).name != match["file"]:
        raise InputError(f"{where} is {given!r}; it should be a number, or a volume such as 'bone.nii.gz[0]'")
    if change is None:
        raise InputError(f"{where} has the function {added!r}; only a sum such as 'x - 420' is read here")
    file, index = match["file"], int(match["bracket"] or match["colon"] or 0)
    if file not in volumes:
        values, header = images.load(path.parent / file, f"{key} of {tissue}")
        volumes[file] = (values, header)
    values = volumes[file][0]
    if values.ndim != 4 or index >= values.shape[3]:
        raise InputError(f"{where} asks for volume {index} of {file}, whose shape is {values.shape} (x, y, z, volume)")
    offset = float(f"{change['sign']}{change['number']}") if change["number"] else 0.0
    return values[..., index].transpose(2, 1, 0) + offset
