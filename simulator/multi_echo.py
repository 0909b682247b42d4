"""Multi-echo images in: complex NIfTI, magnitude with phase, one file an echo, and the sidecar that tells the echoes.

The echo times come from ``EchoTime`` of the JSON sidecar (a list, s), from the sidecars of the single files of a BIDS
set, or from a protocol. What a fit would take for something else without a word is told: times in ms, a phase that is
not in rad, echoes that are equal.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import files, nifti, phase_units
from .acquisition.settings import FIELD, SETTINGS
from .constants import GYROMAGNETIC

if TYPE_CHECKING:
    import xarray as xr

    from .acquisition import Protocol

WHAT = "a multi-echo scan"

LONGEST_ECHO = 0.25
"""Seconds: no gradient echo lives so long; what is longer was given in ms."""

LONG_REPETITION, LARGE_ANGLE = 4.0, 45.0
"""Seconds and degrees: nobody waits longer at a smaller angle; a TR beyond was given in ms."""

LONGEST_REPETITION = 20.0

SMALLEST_ANGLE = 0.8
"""Degrees: a smaller flip angle was given in rad (46 degrees are 0.8 rad)."""

SAME_FIELD = 0.01
"""Part by which the field that a sidecar states and that of its frequency may differ: 3 T is often 2.89 T."""

MOSTLY = 0.05
"""Part of the voxels that may be negative in a magnitude, as interpolation leaves them; of a real part it is half."""

NUMBERED = re.compile(r"(?<=echo-)(\d+)(?=[_.])|(?<=_e)(\d+)(?=[_.])")
"""The number of the echo in a file's name: ``echo-1`` of BIDS, ``_e1`` of dcm2niix."""

PART = re.compile(r"(?:part-|_)(real|imag|mag|ph)(?:inary|nitude|ase)?(?=[_.])")
"""The part in a file's name: ``part-real``, ``part-phase`` of BIDS, ``_imaginary``, ``_ph`` of dcm2niix."""

CONSTANTS = {"MagneticFieldStrength": "field_strength", "RepetitionTime": "TR", "FlipAngle": "flip_angle"}

SIDECAR_NAMES = {"TE": "EchoTime", **{name: field for field, name in CONSTANTS.items()}}
"""How a sidecar calls our settings."""

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
        Its constants come before those of the sidecar; its echo times are used where the sidecar has none.
    conjugate : bool
        For a scanner whose phase turns the other way: here the main fat peak turns as exp(-i 2 pi 434 Hz t) at 3 T.

    Returns
    -------
    DataArray
        (z, y, x, echo), echoes in the order of their times (s); ``field_strength`` (T), ``TR`` (s) and ``flip_angle``
        (rad) where they are known; the affine (mm), ``voxel_size`` (m) and, where something was made of the data,
        ``reading`` in attrs.

    Raises
    ------
    InputError
        For a file that cannot be read, files that do not fit each other, and settings that cannot be.
    """
    import xarray as xr

    single = _echo_files(path)
    parts = [_volumes(p, len(single)) for p in single]
    values, header = _together(parts, single), parts[0][1]
    for other, (_, its) in zip(single[1:], parts[1:], strict=True):
        nifti.same_place(its.get_best_affine(), header.get_best_affine(), values.shape[2::-1], str(other))
    told: list[str] = []
    if second is not None:
        values = _with_second(values, header, path, second, told)
    if conjugate:
        if not np.iscomplexobj(values):
            raise InputError(f"--conjugate turns the phase; {path} has none: give the phase (rad) as INPUT2")
        values = values.conj()
        told.append("conjugated")
    if values.size == 0:
        raise InputError(f"{path} has no voxels: its shape is {values.shape}")
    constants = _sidecar(single, protocol, values.shape[3], told)
    echo = constants.pop("echo")
    if second is not None:
        _check_second_echoes(single, second, echo)
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
        scan = files.with_protocol(scan, protocol)
        del scan.attrs["protocol"]  # its settings are coordinates now; only our own scans are of a protocol
    return scan


def inputs(path: str | os.PathLike[str], second: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Return every file that `read` takes: what it is ("scan", "second", "sidecar", "scan 2", ...) to its path."""
    found: dict[str, Path] = {}
    for what, first in (("scan", path), ("second", second)):
        for number, file in enumerate([] if first is None else _echo_files(first), start=1):
            suffix = "" if number == 1 else f" {number}"
            found[f"{what}{suffix}"] = file
            sidecar = nifti.beside(file, ".json")
            if sidecar.is_file():
                found[("sidecar" if what == "scan" else "second sidecar") + suffix] = sidecar
    return found


def check_echoes(scan: xr.DataArray, where: str) -> None:
    """Refuse echo times that cannot be meant: in ms, equal, not positive; and a field or a TR of another unit.

    Raises
    ------
    InputError
        One line that names the file, the value and what would be right.
    """
    echo = np.asarray(scan["echo"].values, float)
    listed = ", ".join(f"{t:g}" for t in echo)
    if not (np.isfinite(echo).all() and (echo > 0).all()):
        raise InputError(f"{where}: the echo times are {listed} s; each must be a positive number")
    if echo.max() > LONGEST_ECHO:
        raise InputError(f"{where}: the echo times are {listed} s; given in ms? They must be in s, such as "
                         f"{echo[0] / 1000:g}")  # fmt: skip
    # two times of one echo are further apart than any header rounds
    if echo.size > 1 and np.diff(np.sort(echo)).min() < 1e-6:
        raise InputError(f"{where}: the echo times are {listed} s; two of them are equal: each echo must have its own "
                         "(average the images of one echo time first)")  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the images


def _echo_files(path: str | os.PathLike[str]) -> list[Path]:
    """The file itself, or where its name holds the number of an echo, all files of that set in their order."""
    path = files.existing_file(path, WHAT)
    found = NUMBERED.search(path.name)
    if found is None:
        return [path]
    before, after = path.name[: found.start()], path.name[found.end() :]
    sisters = {}
    for file in path.parent.iterdir():
        number = file.name[len(before) : len(file.name) - len(after)]
        if file.name.startswith(before) and file.name.endswith(after) and number.isdecimal() and number.isascii():
            sisters[int(number)] = file
    if len(sisters) > 1 and sorted(sisters) != list(range(min(sisters), min(sisters) + len(sisters))):
        missing = next(n for n in range(min(sisters), max(sisters)) if n not in sisters)
        raise InputError(f"{path.parent / f'{before}{missing}{after}'}: no such file; the set of {path.name} holds the "
                         f"echoes {', '.join(map(str, sorted(sisters)))}")  # fmt: skip
    return [sisters[n] for n in sorted(sisters)]


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
    single = _echo_files(second)
    parts = [_volumes(p, len(single)) for p in single]
    other = _together(parts, single)
    if np.iscomplexobj(other):
        raise InputError(f"{second} is complex; the second input is the phase (rad) of {path}")
    if other.shape != values.shape:
        raise InputError(f"{second} has the shape {other.shape}; {path} has {values.shape} (x, y, z, echo)")
    nifti.same_place(parts[0][1].get_best_affine(), header.get_best_affine(), values.shape[2::-1], str(second))
    parts_of = _part(path), _part(second)
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


def _part(path: str | os.PathLike[str]) -> str:
    """What a file's name says that it holds: "real", "imag", "mag", "ph" (phase), or nothing."""
    found = PART.search(Path(path).name.lower())
    return found.group(1) if found else ""


# ----------------------------------------------------------------------------------------------------- the settings


def _check_second_echoes(single: list[Path], second: str | os.PathLike[str], echo: np.ndarray) -> None:
    """Refuse a second image whose sidecars state other echo times than those of the first, or another order.

    A list of another length, or one time for all images, is what a converter left: it says nothing about the order.
    """
    places = [nifti.beside(file, ".json") for file in _echo_files(second)]
    contents = [nifti.read_json(place) if place.is_file() else {} for place in places]
    stated = [content.get("EchoTime") for content in contents]
    times = stated[0] if len(stated) == 1 and isinstance(stated[0], list) else stated
    numbers = [nifti.positive(time) for time in times]
    wrong = [n for n, time in enumerate(numbers) if time is not None and abs(time - echo[n]) > 1e-6] \
        if len(numbers) == echo.size > 1 else []  # fmt: skip
    if wrong:
        n = wrong[0]
        place, other = places[n if len(places) > 1 else 0], single[n if len(single) > 1 else 0]
        raise InputError(f"{place}: EchoTime of image {n + 1} is {numbers[n]:g}; that of {other} is {echo[n]:g}: both "
                         "must have the same echoes, in the same order")  # fmt: skip


def _sidecar(single: list[Path], protocol: Protocol | None, volumes: int, told: list[str]) -> dict[str, Any]:
    """Echo times and the constants of the sidecars: ``echo`` (echo,), ``field_strength``, ``TR``, ``flip_angle``."""
    places = [nifti.beside(file, ".json") for file in single]
    contents = [nifti.read_json(place) if place.exists() else {} for place in places]
    found: dict[str, Any] = {}
    for field, name in CONSTANTS.items():
        if contents[0].get(field) is not None:
            found[name] = _constant(places[0], field, contents[0])
    if "flip_angle" in found:
        if found["flip_angle"] < SMALLEST_ANGLE:
            raise InputError(f"{places[0]}: FlipAngle is {found['flip_angle']:g}; given in rad? It must be in degrees")
        if found["flip_angle"] > 360:
            raise InputError(f"{places[0]}: FlipAngle is {found['flip_angle']:g}; it must be in degrees, up to 360")
    _check_repetition(places[0], found)
    if "flip_angle" in found:
        found["flip_angle"] = math.radians(found["flip_angle"])
    if found.get("field_strength", 0.0) > FIELD.high:
        raise InputError(f"{places[0]}: MagneticFieldStrength is {found['field_strength']:g}; it must be in T, as 3.0")
    _compare_frequency(contents[0], found, told)
    echo = _echo_times(places, contents, volumes)
    if echo is None and protocol is not None and "echo" in protocol.table:
        echo = np.array(protocol.table["echo"])
        if echo.size != volumes:
            raise InputError(f"protocol {protocol.name} has {echo.size} echoes and {single[0]} has {volumes} images; "
                             "there must be one an image")  # fmt: skip
    if echo is None:
        absent = "is missing" if not places[0].exists() else "has no EchoTime"
        raise InputError(f"{single[0]} does not say its echo times: {places[0]} {absent}; it must hold EchoTime, a "
                         f"list of {volumes} times (s), or give them with --protocol")  # fmt: skip
    found["echo"] = echo
    return found


def _echo_times(places: list[Path], contents: list[dict[str, Any]], volumes: int) -> np.ndarray | None:
    """Echo times of all images, in the order of the images; None where no sidecar has any."""
    if len(places) > 1:
        missing = [place for place, content in zip(places, contents, strict=True) if "EchoTime" not in content]
        if len(missing) == len(places):
            return None
        if missing:
            raise InputError(f"{missing[0]}: EchoTime (s) is missing; each echo of the set needs its own")
        each = [_times(place, content["EchoTime"]) for place, content in zip(places, contents, strict=True)]
        wrong = next((n for n, times in enumerate(each) if times.size != 1), None)
        if wrong is not None and not all(times.size == volumes and (times == each[0]).all() for times in each):
            raise InputError(f"{places[wrong]}: EchoTime has {each[wrong].size} values; the file holds one echo")
        return each[0] if wrong is not None else np.concatenate(each)
    content = contents[0]
    if "EchoTime" in content:
        times = _times(places[0], content["EchoTime"])
    elif "EchoTime1" in content:
        numbered = [content[f"EchoTime{n}"] for n in range(1, volumes + 1) if f"EchoTime{n}" in content]
        times = _times(places[0], numbered)
    else:
        return None
    if times.size == 1:
        raise InputError(f"{places[0]}: EchoTime is {times[0]:g}, one echo; {WHAT} has a list of times (s), one for "
                         "each image along the last axis, or is a set of files called echo-1, echo-2, ...")  # fmt: skip
    if times.size != volumes:
        raise InputError(f"{places[0]}: EchoTime has {times.size} value{'s' * (times.size != 1)} and the image "
                         f"{volumes} echoes along its last axis; it must be a list of {volumes} times (s)")  # fmt: skip
    return times


def _times(place: Path, stated: Any) -> np.ndarray:
    listed = stated if isinstance(stated, list) else [stated]
    times = [nifti.positive(time) for time in listed]
    if not times or None in times:
        raise InputError(f"{place}: EchoTime is {repr(stated)[:80]}; it must be a list of positive numbers (s)")
    return np.array(times, float)


def _constant(place: Path, field: str, content: dict[str, Any]) -> float:
    value = content[field]
    if isinstance(value, list) and value and all(v == value[0] for v in value):
        value = value[0]
    number = nifti.positive(value)
    if number is None:
        unit = {"MagneticFieldStrength": "T", "RepetitionTime": "s", "FlipAngle": "degrees"}[field]
        raise InputError(f"{place}: {field} is {repr(value)[:80]}; it must be one positive number ({unit})")
    return number


def _compare_frequency(content: dict[str, Any], found: dict[str, Any], told: list[str]) -> None:
    """Take the field from the scanner's frequency (MHz) where it is not stated; else say where the two disagree."""
    frequency = nifti.positive(content.get("ImagingFrequency"))
    if frequency is None or content.get("ImagedNucleus", "1H") != "1H":
        return
    field = frequency * 1e6 / GYROMAGNETIC["1H"]
    if "field_strength" not in found:
        if FIELD.low < field < FIELD.high:
            found["field_strength"] = field
            told.append(f"field strength of {field:.4g} T from ImagingFrequency")
    elif abs(field / found["field_strength"] - 1) > SAME_FIELD:
        told.append(
            f"field strength of {found['field_strength']:g} T as stated, though ImagingFrequency says {field:.4g}"
        )


def _check_repetition(place: Path, found: dict[str, Any]) -> None:
    TR, angle = found.get("TR", 0.0), found.get("flip_angle", 90.0)
    if TR > LONGEST_REPETITION or (TR > LONG_REPETITION and angle < LARGE_ANGLE):
        at = f" at a flip angle of {angle:g} degrees" if "flip_angle" in found else ""
        raise InputError(f"{place}: RepetitionTime is {TR:g}{at}; given in ms? It must be in s, as {TR / 1000:g}")


def _place(header: Any) -> dict[str, list[float]]:
    """Where the voxels lie (as the header has it: mm), and how large they are (m; z, y, x)."""
    affine = header.get_best_affine()
    unit = {"meter": 1.0, "micron": 1e-6}.get(header.get_xyzt_units()[0], 1e-3)
    edges = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[::-1]
    return {"affine": [float(v) for v in affine.ravel()], "voxel_size": [float(edge) * unit for edge in edges]}


def _described(name: str) -> dict[str, str]:
    setting = FIELD if name == "field_strength" else SETTINGS[name]
    return {"units": setting.unit, "long_name": setting.meaning}
