"""What the sidecars of a multi-echo scan say of it: echo times, field strength, repetition time, flip angle.

What cannot be meant is told: times in ms, angles in rad, fields in MHz, echoes that are equal, images whose echoes are
others than those of their phase, and a protocol that contradicts the sidecar: neither goes before the other.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import echo_files, nifti
from .acquisition.settings import FIELD
from .constants import GYROMAGNETIC
from .echo_files import WHAT

if TYPE_CHECKING:
    import xarray as xr

    from .acquisition import Protocol

LONGEST_ECHO = 0.25
"""Seconds: no gradient echo lives so long; what is longer was given in ms."""

LONG_REPETITION, LARGE_ANGLE = 4.0, 45.0
"""Seconds and degrees: nobody waits longer at a smaller angle; a TR beyond was given in ms."""

LONGEST_REPETITION = 20.0

SMALLEST_ANGLE = 0.8
"""Degrees: a smaller flip angle was given in rad (46 degrees are 0.8 rad)."""

SAME_FIELD = 0.05
"""Part by which the nominal field of a scanner and that of its frequency may differ: 3 T is often 2.89 T."""

EXACT_FIELD = 1e-3
"""Part beyond which the two are told apart in words: .4 Hz of fat at 3 T."""

ROUNDED_TIME, ROUNDED = 1e-5, 0.01
"""Seconds, and part of a TR or a flip angle, by which headers round: what differs by less is the same."""

AFTER_SPIN_ECHO = "echo times of 0 or less taken as times after a spin echo"

FROM_PULSE, FROM_SPIN_ECHO = ("echo",), ("time",)
"""Columns of a protocol that are echo times."""

CONSTANTS = {"MagneticFieldStrength": "field_strength", "RepetitionTime": "TR", "FlipAngle": "flip_angle"}

SIDECAR_NAMES = {"TE": "EchoTime", **{name: field for field, name in CONSTANTS.items()}}
"""How a sidecar calls our settings."""


def of_sidecars(single: list[Path], protocol: Protocol | None, volumes: int, told: list[str]) -> dict[str, Any]:
    """Echo times and the constants of the sidecars: ``echo`` (echo,), ``field_strength``, ``TR``, ``flip_angle``.

    The echo times of the protocol where the sidecars have none; what both state must be the same.
    """
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
    if protocol is not None:
        _check_agreement(places[0], contents[0], found, protocol)
        echo = _settled_times(places[0], single[0], echo, protocol, volumes, told)
    if echo is None:
        absent = "is missing" if not places[0].exists() else "has no EchoTime"
        raise InputError(f"{single[0]} does not say its echo times: {places[0]} {absent}; it must hold EchoTime, a "
                         f"list of {volumes} times (s), or give them with --protocol")  # fmt: skip
    if (echo <= 0).any():
        _check_spin_echo(places[0], contents[0], found, echo)
        told.append(AFTER_SPIN_ECHO)
    found["echo"] = echo
    return found


def _check_spin_echo(place: Path, content: dict[str, Any], found: dict[str, Any], echo: np.ndarray) -> None:
    """Refuse times of 0 or less of a gradient echo, which is never read before its pulse, but is of spin echoes."""
    kind = str(content.get("ScanningSequence", "")).upper()
    angle = math.degrees(found.get("flip_angle", math.pi / 2))
    if "GR" in kind and "SE" not in kind:
        why = f"ScanningSequence is {content['ScanningSequence']!r}"
    elif angle < LARGE_ANGLE:
        why = f"FlipAngle is {angle:g} degrees"
    else:
        return
    raise InputError(f"{place}: EchoTime has {echo.min():g}, and {why}: times of a gradient echo must be positive (s); "
                     "0 and less are times after a spin echo")  # fmt: skip


def _check_agreement(place: Path, content: dict[str, Any], found: dict[str, Any], protocol: Protocol) -> None:
    """Refuse a protocol whose field, TR or flip angle is another than that of the sidecar."""
    stating = [field for field in ("MagneticFieldStrength", "ImagingFrequency") if content.get(field) is not None]
    rows = (("field_strength", " with ".join(stating), 1.0, "T", SAME_FIELD),
            ("TR", "RepetitionTime", 1.0, "s", ROUNDED),
            ("flip_angle", "FlipAngle", 180 / math.pi, "degrees", ROUNDED))  # fmt: skip
    for name, field, factor, unit, within in rows:
        if name not in found or name not in protocol or np.ndim(protocol[name]):
            continue
        own, theirs = found[name] * factor, float(protocol[name]) * factor
        if abs(own - theirs) > within * max(own, theirs):
            raise InputError(_contradiction(place, field, f"{own:.4g} {unit}", protocol, f"{theirs:.4g} {unit}"))


def _settled_times(
    place: Path, image: Path, echo: np.ndarray | None, protocol: Protocol, volumes: int, told: list[str]
) -> np.ndarray | None:
    """The times of the sidecar and of the protocol, whichever has any; refused where they differ.

    A protocol of times after a spin echo may stand beside a sidecar that counts from the pulse: the spin echo's TE
    lies between the two.
    """
    column = next((name for name in (*FROM_PULSE, *FROM_SPIN_ECHO) if protocol.encoding == name), None)
    if column is None:
        return echo
    theirs = np.array(protocol.table[column])
    if echo is None:
        if theirs.size != volumes:
            raise InputError(f"protocol {protocol.name} has {theirs.size} echoes and {image} has {volumes} images; "
                             "there must be one an image")  # fmt: skip
        if column in FROM_SPIN_ECHO and (theirs > 0).all():
            told.append("echo times counted from a spin echo")
        return theirs
    if _same_times(echo, theirs):
        return echo
    if column in FROM_SPIN_ECHO and "TE" in protocol.constants:
        TE = protocol.constants["TE"]
        if _same_times(echo, theirs + TE):
            told.append(f"echo times counted from the spin echo at {TE:g} s")
            return echo - TE
    own, other = (", ".join(f"{time:g}" for time in times) + " s" for times in (echo, theirs))
    raise InputError(_contradiction(place, "EchoTime", own, protocol, other))


def _same_times(one: np.ndarray, other: np.ndarray) -> bool:
    return one.size == other.size and bool((np.abs(np.sort(one) - np.sort(other)) <= ROUNDED_TIME).all())


def _contradiction(place: Path, field: str, own: str, protocol: Protocol, theirs: str) -> str:
    return (
        f"{place}: {field} is {own}, and {theirs} in protocol {protocol.name}; which is right is for you to say: "
        f"correct {field} in the sidecar or leave it out there, or give a protocol that fits the scan"
    )


def check_echoes(scan: xr.DataArray, where: str) -> None:
    """Refuse echo times that cannot be meant: in ms or us, equal, not finite.

    Times after a spin echo may be 0 or less.

    Raises
    ------
    InputError
        One line that names the file, the value and what would be right.
    """
    echo = np.asarray(scan["echo"].values, float)
    listed = ", ".join(f"{t:g}" for t in echo)
    if not np.isfinite(echo).all():
        raise InputError(f"{where}: the echo times are {listed} s; each must be a finite number")
    if np.abs(echo).max() > LONGEST_ECHO:
        # in ms none would be so long that even as ms it lasts beyond the longest echo
        unit, parts = ("us", 1e6) if np.abs(echo).max() > 1e3 * LONGEST_ECHO else ("ms", 1e3)
        example = next(time for time in echo if time != 0) / parts
        raise InputError(f"{where}: the echo times are {listed} s; given in {unit}? They must be in s, such as "
                         f"{example:g}")  # fmt: skip
    # two times of one echo are further apart than any header rounds
    if echo.size > 1 and np.diff(np.sort(echo)).min() < 1e-6:
        raise InputError(f"{where}: the echo times are {listed} s; two of them are equal: each echo must have its own "
                         "(average the images of one echo time first)")  # fmt: skip


def check_second(single: list[Path], second: str | os.PathLike[str], echo: np.ndarray) -> None:
    """Refuse a second image whose sidecars state other echo times than those of the first, or another order.

    A list of another length, or one time for all images, is what a converter left: it says nothing about the order.
    """
    places = [nifti.beside(file, ".json") for file in echo_files.of_set(second)]
    contents = [nifti.read_json(place) if place.is_file() else {} for place in places]
    stated = [content.get("EchoTime") for content in contents]
    times = stated[0] if len(stated) == 1 and isinstance(stated[0], list) else stated
    numbers = [nifti.finite(time) for time in times]
    wrong = [n for n, time in enumerate(numbers) if time is not None and abs(time - echo[n]) > 1e-6] \
        if len(numbers) == echo.size > 1 else []  # fmt: skip
    if wrong:
        n = wrong[0]
        place, other = places[n if len(places) > 1 else 0], single[n if len(single) > 1 else 0]
        raise InputError(f"{place}: EchoTime of image {n + 1} is {numbers[n]:g}; that of {other} is {echo[n]:g}: both "
                         "must have the same echoes, in the same order")  # fmt: skip


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
                         "each image along the last axis, or is a set of files called ..._echo-1, ..._echo-2, ... or "
                         "..._e1, ..._e2, ...")  # fmt: skip
    if times.size != volumes:
        raise InputError(f"{places[0]}: EchoTime has {times.size} value{'s' * (times.size != 1)} and the image "
                         f"{volumes} echoes along its last axis; it must be a list of {volumes} times (s)")  # fmt: skip
    return times


def _times(place: Path, stated: Any) -> np.ndarray:
    listed = stated if isinstance(stated, list) else [stated]
    times = [nifti.finite(time) for time in listed]
    if not times or None in times:
        raise InputError(f"{place}: EchoTime is {repr(stated)[:80]}; it must be a list of numbers (s)")
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
    """Take the field from the scanner's frequency (MHz), where it is near the nominal one or that is not stated.

    Fat turns at the frequency that was measured: a magnet of nominal 3 T may have 2.89 T. Farther apart the two are at
    odds, and a word says so.
    """
    frequency = nifti.positive(content.get("ImagingFrequency"))
    if frequency is None or content.get("ImagedNucleus") not in (None, "1H"):
        return
    field = frequency * 1e6 / GYROMAGNETIC["1H"]
    if "field_strength" not in found:
        if FIELD.low < field < FIELD.high:
            found["field_strength"] = field
            told.append(f"field strength of {field:.4g} T from ImagingFrequency")
        return
    nominal = found["field_strength"]
    apart = abs(field / nominal - 1)
    if apart > SAME_FIELD:
        told.append(f"field strength of {nominal:g} T as stated, though ImagingFrequency says {field:.4g}")
        return
    found["field_strength"] = field
    if apart > EXACT_FIELD:
        told.append(f"field strength of {field:.4g} T from ImagingFrequency, stated as {nominal:g} T")


def _check_repetition(place: Path, found: dict[str, Any]) -> None:
    TR, angle = found.get("TR", 0.0), found.get("flip_angle", 90.0)
    if TR > LONGEST_REPETITION or (TR > LONG_REPETITION and angle < LARGE_ANGLE):
        at = f" at a flip angle of {angle:g} degrees" if "flip_angle" in found else ""
        raise InputError(f"{place}: RepetitionTime is {TR:g}{at}; given in ms? It must be in s, as {TR / 1000:g}")
