"""NIfTI in and out: diffusion series with their b-values, masks and maps.

An image is held as (z, y, x) or (z, y, x, b), the reverse of NIfTI's (x, y, z, ...). The geometry of the input stays
with the output: maps are written with the header of the image they come from.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import files

if TYPE_CHECKING:
    import xarray as xr

    from .acquisition import Protocol

# BIDS names of the protocol values that a diffusion fit can use: coordinate, unit, meaning.
SIDECAR_FIELDS = {
    "EchoTime": ("TE", "s", "echo time"),
    "RepetitionTime": ("TR", "s", "repetition time"),
    "MagneticFieldStrength": ("field_strength", "T", "field strength"),
}


def load(path: str | os.PathLike[str], what: str) -> tuple[np.ndarray, Any]:
    """Read a NIfTI of any data type, with its scaling.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``.
    what : str
        What the file is for, for the error.

    Returns
    -------
    values : ndarray
        Float64, or complex128 where the file is complex; axes as in the file.
    header : nibabel header
        With the geometry.

    Raises
    ------
    InputError
        For a file that is missing, truncated, not NIfTI, or of colours.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    path = files.existing_file(path, what)
    try:
        with warnings.catch_warnings():
            # Odd headers (an unknown extension, a wrong qform code) are nibabel's to repair, not the user's.
            warnings.simplefilter("ignore")
            image = nib.load(path, mmap=False)
            if not isinstance(image, nib.Nifti1Pair):  # NIfTI-2 is one too
                raise InputError(f"{path} is not a NIfTI image; {what} is .nii or .nii.gz")
            kind = image.get_data_dtype().kind
            if kind not in "biufc":
                raise InputError(f"{path} holds colours or records ({image.get_data_dtype()}); {what} holds numbers")
            values = np.asanyarray(image.dataobj).astype(np.complex128 if kind == "c" else np.float64, copy=False)
    except InputError:
        raise
    except (ImageFileError, HeaderDataError, *files.UNREADABLE) as error:
        raise InputError(f"{path} is not a readable NIfTI image: {files.reason(error)}") from error
    return values, image.header


def geometry(path: str | os.PathLike[str]) -> Any:
    """Return the header of a NIfTI, without reading its voxels."""
    import nibabel as nib

    image: Any = nib.load(path)  # of the formats that it reads, not all have a header
    return image.header


def beside(path: str | os.PathLike[str], suffix: str) -> Path:
    """Return the path of the file beside a NIfTI: the same name with another suffix (``.bval``, ``.json``)."""
    name = str(path)
    for nifti_suffix in sorted(files.NIFTI_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(nifti_suffix):
            name = name[: -len(nifti_suffix)]
            break
    return Path(name + suffix)


def read_bval(path: str | os.PathLike[str]) -> np.ndarray:
    """Read b-values (s/mm2) from a text file of numbers, in a row or a column, in any order.

    Raises
    ------
    InputError
        For a file that is missing or empty, and for anything that is not a finite number of at least 0.
    """
    path = files.existing_file(path, "a file of b-values")
    try:
        words = path.read_text(encoding="utf-8-sig").replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a text file of b-values: {files.reason(error)}") from error
    values = []
    for number, word in enumerate(words, start=1):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{path}: b-value {number} is {word[:40]!r}; it must be a number of at least 0 (s/mm2)")
        values.append(value)
    if not values:
        raise InputError(f"{path} is empty; it must hold one b-value (s/mm2) for each volume")
    return np.array(values)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON sidecar.

    Raises
    ------
    InputError
        For a file that is missing, or that is not one JSON object.
    """
    path = files.existing_file(path, "a JSON sidecar")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {files.reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; a sidecar is one JSON object")
    return content


def positive(value: Any) -> float | None:
    """Return what JSON holds as a float where it is a finite number above 0, else None."""
    number = finite(value)
    return number if number is not None and number > 0 else None


def finite(value: Any) -> float | None:
    """Return what JSON holds as a float where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON knows integers of any length
        return None
    return number if math.isfinite(number) else None


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read echo time, repetition time (s) and field strength (T) from a BIDS sidecar.

    Returns
    -------
    dict
        Coordinate name (TE, TR, field_strength) to value, for the fields that are there.

    Raises
    ------
    InputError
        For text that is not JSON, and for a field that is not one positive number.
    """
    path = Path(path)
    content = read_json(path)
    values = {}
    for field, (coord, unit, meaning) in SIDECAR_FIELDS.items():
        if field not in content:
            continue
        value = content[field]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        number = positive(value)
        if number is None:
            raise InputError(f"{path}: {field} is {value!r}; the {meaning} must be one positive number ({unit})")
        values[coord] = number
    return values


def read_diffusion(
    path: str | os.PathLike[str],
    bval: str | os.PathLike[str] | None = None,
    protocol: Protocol | None = None,
) -> xr.DataArray:
    """Read a 4-D diffusion series with its b-values, and the sidecar beside it where there is one.

    Complex images are read as their magnitude. The order of the volumes stays, b-values may repeat, and b = 0 need not
    be among them: the signal at b = 0 is an unknown of every fit.

    Parameters
    ----------
    path : path
        4-D NIfTI, the last axis along b.
    bval : path, optional
        Text file of b-values (s/mm2); the ``.bval`` file beside the image where not given.
    protocol : Protocol, optional
        Its constants come before those of the sidecar; its b-values are used where there is no ``.bval``.

    Returns
    -------
    DataArray
        (z, y, x, b), with the affine (mm) in attrs.

    Raises
    ------
    InputError
        For an image or b-values that cannot be read, or do not fit each other.
    """
    import xarray as xr

    what = "a diffusion series"
    values, header = load(path, what)
    if values.ndim != 4:
        raise InputError(f"{path} has {values.ndim} dimensions {values.shape}; {what} has 4 (x, y, z, b)")
    if values.size == 0:
        raise InputError(f"{path} has no voxels: its shape is {values.shape}")
    if bval is None and protocol is not None and "b" in protocol.table and not beside(path, ".bval").exists():
        source, b = f"protocol {protocol.name}", np.array(protocol.table["b"])
    else:
        place = Path(bval) if bval is not None else beside(path, ".bval")
        if bval is None and not place.exists():
            raise InputError(f"{path} has no b-values: {place} is missing; give them with --bval FILE")
        source, b = str(place), read_bval(place)
    if b.size != values.shape[3]:
        raise InputError(
            f"{source} holds {b.size} b-values and {path} has {values.shape[3]} volumes; there must be one a volume"
        )
    if np.iscomplexobj(values):
        values = np.abs(values)
    affine = header.get_best_affine()
    scan = xr.DataArray(
        np.ascontiguousarray(values.transpose(2, 1, 0, 3)),
        dims=("z", "y", "x", "b"),
        coords={"b": ("b", b, {"units": "s/mm2", "long_name": "b-value"})},
        name="signal",
        attrs={"units": "1", "long_name": "signal", "affine": [float(value) for value in affine.ravel()]},
    )
    sidecar = beside(path, ".json")
    constants = read_sidecar(sidecar) if sidecar.exists() else {}
    for coord, unit, meaning in SIDECAR_FIELDS.values():
        if coord in constants:
            scan.coords[coord] = ((), constants[coord], {"units": unit, "long_name": meaning})
    return scan if protocol is None else files.with_protocol(scan, protocol)


def settings(scan: xr.DataArray) -> str:
    """Return what is known of the protocol of a scan, as JSON: its scalar coordinates, and those along its encoding."""
    encodings = tuple((dim,) for dim in scan.dims if dim not in ("z", "y", "x"))
    known = {str(name): coord for name, coord in scan.coords.items() if coord.dims in ((), *encodings)}
    return json.dumps({name: coord.values.tolist() for name, coord in known.items()})


def affine_of(scan: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Return the (4, 4) affine (mm) that a scan carries in its attributes, the identity where it carries none."""
    affine = scan.attrs.get("affine")
    return np.eye(4) if affine is None else np.asarray(affine, float).reshape(4, 4)


def read_map(path: str | os.PathLike[str], scan: xr.DataArray, what: str) -> xr.DataArray:
    """Read a 3-D map (a mask, a fat fraction) on the voxels of a scan.

    Parameters
    ----------
    path : path
        NIfTI, or NetCDF with a single variable.
    scan : DataArray
        The scan that the map belongs to.
    what : str
        What the map is, for the errors: "mask", "PDFF map".

    Returns
    -------
    DataArray
        With the voxel dims of the scan.

    Raises
    ------
    InputError
        For a file that cannot be read, or a map of another shape or place in space.
    """
    import xarray as xr

    dims = [dim for dim in scan.dims if dim in ("z", "y", "x")]
    shape = tuple(scan.sizes[dim] for dim in dims)
    if str(path).lower().endswith(".nc"):
        dataset = files.read_netcdf(path)
        if len(dataset.data_vars) != 1:
            names = ", ".join(str(name) for name in dataset.data_vars) or "none"
            raise InputError(f"{path} holds the variables {names}; a {what} is a file with one")
        found = dataset[next(iter(dataset.data_vars))]
        if tuple(found.dims) != tuple(dims) or found.shape != shape:
            raise InputError(f"{what} {path} has the shape {found.shape}; the scan has {shape} ({', '.join(dims)})")
        return xr.DataArray(found.values.astype(float), dims=dims)
    values, header = load(path, f"a {what}")
    if np.iscomplexobj(values):
        raise InputError(f"{what} {path} is complex; it must be real")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    affine = header.get_best_affine()
    if values.ndim == 3:
        values, affine = _along(values, affine, affine_of(scan))
    if values.ndim != 3 or values.shape[::-1] != shape:
        raise InputError(f"{what} {path} has the shape {values.shape}; the scan has {shape[::-1]} (x, y, z)")
    same_place(affine, affine_of(scan), shape, f"{what} {path}")
    return xr.DataArray(np.ascontiguousarray(values.T), dims=dims)


def _along(values: np.ndarray, affine: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image with its axes in the order and sense of another, and its affine; an identity stands for "not stated".

    Programs that draw masks often turn an image to a fixed order of axes; the voxels stay what they were.
    """
    from nibabel import orientations

    if np.array_equal(affine, np.eye(4)) or np.array_equal(expected, np.eye(4)):
        return values, affine
    mine, theirs = (orientations.io_orientation(of) for of in (affine, expected))
    if np.isnan(mine).any() or np.isnan(theirs).any() or np.array_equal(mine, theirs):
        return values, affine
    turn = orientations.ornt_transform(mine, theirs)
    return (
        orientations.apply_orientation(values, turn),
        affine @ orientations.inv_ornt_aff(turn, values.shape),
    )


def same_place(affine: np.ndarray, expected: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    """Refuse a map whose voxels lie elsewhere in space: same shape, other slices is a silent error otherwise.

    A tenth of a voxel is what rounding in headers can do. An identity affine stands for "not stated".
    """
    if np.array_equal(affine, np.eye(4)) or np.array_equal(expected, np.eye(4)):
        return
    far = np.array([*np.array(shape[::-1]) - 1, 1.0])
    first = np.array([0.0, 0.0, 0.0, 1.0])
    size = np.sqrt((expected[:3, :3] ** 2).sum(axis=0)).max()
    moved = max(np.abs((affine - expected) @ corner).max() for corner in (first, far))
    if moved > 0.1 * size:
        raise InputError(f"{what} lies {moved:.3g} mm away from the scan (their affines differ); resample it first")


def write_map(
    values: np.ndarray, path: str | os.PathLike[str], template: Any = None, affine: np.ndarray | None = None
) -> None:
    """Write one map (z, y, x) as NIfTI: float32, or its own type where it holds integers.

    Parameters
    ----------
    values : ndarray
        (z, y, x).
    path : path
        ``.nii.gz``.
    template : nibabel header, optional
        Gives the geometry: qform, sform, their codes and units.
    affine : ndarray, optional
        (4, 4), mm: the geometry without a template.
    """
    import nibabel as nib

    kind = values.dtype if values.dtype.kind in "iu" else np.dtype(np.float32)
    data = np.ascontiguousarray(values.T.astype(kind))
    if template is None:
        image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
        image.header.set_xyzt_units("mm")
    else:
        header = template.copy()
        header.set_data_shape(data.shape)  # before the constructor, which keeps qform, sform and their codes
        image = type_of(header)(data, None, header)
    image.header["cal_min"] = image.header["cal_max"] = 0  # the window of the input is not that of a map
    image.header.set_slope_inter(1, 0)
    image.set_data_dtype(kind)
    nib.save(image, path)


def type_of(header: Any) -> Any:
    """Return the image class for a header: NIfTI-2 stays NIfTI-2."""
    import nibabel as nib

    return nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
