"""Multi-echo images in: complex NIfTI, magnitude with phase, real with imaginary part, one file or one file an echo.

The echo times come from ``EchoTime`` of the JSON sidecar (a list, s), from the sidecars of the single files of a BIDS
set, or from a protocol (`echo_settings`). What a fit would take for something else without a word is told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import files, nifti, phase_units
from .acquisition.settings import FIELD, SETTINGS
from .echo_files import WHAT, of_set, part_of, phase_of
from .echo_settings import FROM_SPIN_ECHO, SIDECAR_NAMES, check_echoes, check_second, of_sidecars

if TYPE_CHECKING:
    import xarray as xr

    from .acquisition import Protocol

__all__ = ["ENCODINGS", "SIDECAR_NAMES", "check_echoes", "check_magnitudes", "inputs", "phase_of", "read"]

MOSTLY = 0.05
"""Part of the voxels that may be negative in a magnitude, as interpolation leaves them; of a real part it is half."""

ENCODINGS = ("echo", "te")
"""Names of the axis along which images differ in their echo time."""


def read(
    path: str | os.PathLike[str],
    second: str | os.PathLike[str] | None = None,
    protocol: Protocol | None = None,
    conjugate: bool = False,
) -> xr.DataArray:
    """Read a multi-echo NIfTI.

    Parameters
    ----------
    path : path
        4-D NIfTI (x, y, z, echo), complex or magnitude; of one slice also (x, y, echo); or one echo of a set whose
        names hold ``echo-1``, ``echo-2``, ... (BIDS) or ``_e1``, ``_e2``, ... (dcm2niix): the others are found.
    second : path, optional
        The phase of a magnitude (rad), or the imaginary part where the names say ``part-real`` and ``part-imag`` (BIDS)
        or ``_real`` and ``_imaginary`` (dcm2niix).
    protocol : Protocol, optional
        Gives what the sidecar does not state; what both state must be the same. One of times after a spin echo
        names the last dimension ``time``, as our own scans do.
    conjugate : bool
        For a scanner whose phase turns the other way: here the main fat peak turns as exp(-i 2 pi 434 Hz t) at 3 T.

    Returns
    -------
    DataArray
        (z, y, x, echo), echoes in the order of their times (s; 0 or less where they count from a spin echo);
        ``field_strength`` (T), ``TR`` (s) and ``flip_angle`` (rad) where they are known; the affine (mm),
        ``voxel_size`` (m) and, where something was made of the data, ``reading`` in attrs.

    Raises
    ------
    InputError
        For a file that cannot be read, files that do not fit each other, and settings that cannot be.
    """
    import xarray as xr

    single = of_set(path)
    parts = [_volumes(p, len(single)) for p in single]
    values, header = _together(parts, single), parts[0][1]
    for other, (_, its) in zip(single[1:], parts[1:], strict=True):
        nifti.same_place(its.get_best_affine(), header.get_best_affine(), values.shape[2::-1], str(other))
    told: list[str] = []
    if second is not None:
        values = _with_second(values, header, path, second, told)
    else:
        check_magnitudes(values, path)
    if conjugate:
        if not np.iscomplexobj(values):
            raise InputError(f"--conjugate turns the phase; {path} has none: give the phase (rad) as INPUT2")
        values = values.conj()
        told.append("conjugated")
    if values.size == 0:
        raise InputError(f"{path} has no voxels: its shape is {values.shape}")
    constants = of_sidecars(single, protocol, values.shape[3], told)
    echo = constants.pop("echo")
    if second is not None:
        check_second(single, second, echo)
    order = np.argsort(echo, kind="stable")
    if (np.diff(order) != 1).any():
        values, echo = values[..., order], echo[order]
    scan = xr.DataArray(
        np.ascontiguousarray(values.transpose(2, 1, 0, 3)),
        dims=("z", "y", "x", "echo"),
        coords={"echo": ("echo", echo, _described("echo"))},
        name="signal",
        attrs={"units": "1", "long_name": "signal", **_place(header)},
    )
    for name, value in constants.items():
        scan.coords[name] = ((), value, _described(name))
    if told:
        scan.attrs["reading"] = "; ".join(told)
    check_echoes(scan, str(path))
    if protocol is not None:
        if protocol.encoding in FROM_SPIN_ECHO:
            scan = scan.rename(echo=protocol.encoding)
            scan[protocol.encoding].attrs = _described(protocol.encoding)
        scan = files.with_protocol(scan, protocol)
        for name, value in constants.items():  # as exact as the scanner states them
            scan.coords[name] = ((), value, _described(name))
        del scan.attrs["protocol"]  # its settings are coordinates now; only our own scans are of a protocol
    return scan


def check_magnitudes(values: np.ndarray, where: str | os.PathLike[str]) -> None:
    """Refuse real data, taken as magnitudes, that are negative in many voxels.

    Raises
    ------
    InputError
        One line that says how many.
    """
    if np.iscomplexobj(values):
        return
    with np.errstate(invalid="ignore"):
        below = np.count_nonzero(values < 0) / max(values.size, 1)
    if below > MOSTLY:
        raise InputError(f"{where}: magnitudes are not negative; {below:.0%} of the voxels are: give magnitudes, or "
                         "complex data, as one file or as a real and an imaginary part")  # fmt: skip


def inputs(path: str | os.PathLike[str], second: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Return every file that `read` takes: what it is ("scan", "second", "sidecar", "scan 2", ...) to its path."""
    found: dict[str, Path] = {}
    for what, first in (("scan", path), ("second", second)):
        for number, file in enumerate([] if first is None else of_set(first), start=1):
            suffix = "" if number == 1 else f" {number}"
            found[f"{what}{suffix}"] = file
            sidecar = nifti.beside(file, ".json")
            if sidecar.is_file():
                found[("sidecar" if what == "scan" else "second sidecar") + suffix] = sidecar
    return found


# ------------------------------------------------------------------------------------------------------ the images


def _volumes(path: Path, count: int) -> tuple[np.ndarray, Any]:
    """One image as (x, y, z, echo); `count` is the number of files in its set."""
    values, header = nifti.load(path, WHAT)
    while values.ndim > 4 or (values.ndim == 4 and count > 1 and values.shape[3] == 1):
        single = [axis for axis in range(3, values.ndim) if values.shape[axis] == 1]
        if not single:
            raise InputError(f"{path} has the shape {values.shape}; {WHAT} has 4 dimensions (x, y, z, echo)")
        values = np.squeeze(values, axis=single[-1])
    if count > 1:
        if values.ndim not in (2, 3):
            raise InputError(f"{path} has the shape {values.shape} and stands in a set of {count} files, one an echo; "
                             "each must have 3 dimensions (x, y, z)")  # fmt: skip
        return values.reshape(*values.shape, *(1,) * (4 - values.ndim)), header
    if values.ndim == 4 and values.shape[3] == 1 and values.shape[2] > 1:
        values = values[..., 0]
    if values.ndim == 3:
        values = values[:, :, None, :]  # one slice
    if values.ndim != 4 or values.shape[3] < 2:
        raise InputError(f"{path} has the shape {values.shape}; {WHAT} has 4 dimensions (x, y, z, echo) and two echoes "
                         "at least")  # fmt: skip
    return values, header


def _together(parts: list[tuple[np.ndarray, Any]], single: list[Path]) -> np.ndarray:
    """The images of several files along the echoes; those of one file are not copied."""
    first = parts[0][0]
    for (values, _), path in zip(parts, single, strict=True):
        if values.shape != first.shape:
            raise InputError(f"{path} has the shape {values.shape[:3]}; {single[0]}, of the same set, has "
                             f"{first.shape[:3]} (x, y, z)")  # fmt: skip
        if values.dtype != first.dtype:
            kinds = ["complex" if array.dtype.kind == "c" else "real" for array in (values, first)]
            raise InputError(f"{path} is {kinds[0]}; {single[0]}, of the same set, is {kinds[1]}")
    return first if len(parts) == 1 else np.concatenate([values for values, _ in parts], axis=3)


def _with_second(
    values: np.ndarray, header: Any, path: str | os.PathLike[str], second: str | os.PathLike[str], told: list[str]
) -> np.ndarray:
    """Complex data of a magnitude and its phase, or of a real and an imaginary part."""
    if np.iscomplexobj(values):
        raise InputError(f"{path} is complex; it needs no second input ({second})")
    single = of_set(second)
    parts = [_volumes(p, len(single)) for p in single]
    other = _together(parts, single)
    if np.iscomplexobj(other):
        raise InputError(f"{second} is complex; the second input is the phase (rad) of {path}")
    if other.shape != values.shape:
        raise InputError(f"{second} has the shape {other.shape}; {path} has {values.shape} (x, y, z, echo)")
    nifti.same_place(parts[0][1].get_best_affine(), header.get_best_affine(), values.shape[2::-1], str(second))
    parts_of = part_of(path), part_of(second)
    if parts_of == ("imag", "real"):
        raise InputError(f"{path} is an imaginary part and {second} a real one; give the real part first")
    if parts_of == ("real", "imag"):
        told.append("real and imaginary part")
        complex_values: np.ndarray = values + 1j * other
        return complex_values
    if parts_of[0] == "ph" and parts_of[1] in ("mag", ""):
        raise InputError(f"{path} is a phase by its name; give the magnitude first, and its phase second")
    with np.errstate(invalid="ignore"):
        below = np.count_nonzero(values < 0) / max(values.size, 1)
    if below > MOSTLY:
        raise InputError(
            f"{path} is negative in {below:.0%} of its voxels; a magnitude has none: give the magnitude first "
            "and its phase second, or real and imaginary parts whose names say so (part-real, part-imag)"
        )
    phase, how = phase_units.in_radians(other, second, nifti.beside(single[0], ".json"))
    if how:
        told.append(how)
    turned = np.empty(values.shape, complex, order="F")  # as NIfTI lies
    with np.errstate(invalid="ignore"):  # a phase that is infinite turns into NaN
        np.multiply(values, np.cos(phase), out=turned.real)
        np.multiply(values, np.sin(phase), out=turned.imag)
    turned[values < 0] = np.nan  # a magnitude below 0 means nothing, whatever its phase
    return turned


def _place(header: Any) -> dict[str, list[float]]:
    """Where the voxels lie (as the header has it: mm), and how large they are (m; z, y, x)."""
    affine = header.get_best_affine()
    unit = {"meter": 1.0, "micron": 1e-6}.get(header.get_xyzt_units()[0], 1e-3)
    edges = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[::-1]
    return {"affine": [float(v) for v in affine.ravel()], "voxel_size": [float(edge) * unit for edge in edges]}


def _described(name: str) -> dict[str, str]:
    setting = FIELD if name == "field_strength" else SETTINGS[name]
    return {"units": setting.unit, "long_name": setting.meaning}
