"""Checks of what a user may ask of a phantom: every slip is one clear line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InputError


def number(where: str, name: str, value: Any, low: float, high: float, unit: str = "", below: bool = False) -> float:
    """`value` as a float within low..high (`high` itself excluded with `below`), or an InputError."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        between = _between(low, high, unit, below)
        raise InputError(f"{where}: {name} is {value!r}, should be a number{between}") from None
    if not low <= found <= high or (below and found == high):
        raise InputError(f"{where}: {name} is {value!r}, should lie{_between(low, high, unit, below)}")
    return found


def numbers(
    where: str, name: str, value: Any, low: float, high: float, unit: str = "", below: bool = False
) -> np.ndarray:
    """`value`, a number or an array, as floats within low..high, or an InputError."""
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {name} is {value!r}, should be numbers{_between(low, high, unit, below)}") from None
    bad = ~((found >= low) & (found <= high)) | (below & (found == high))
    if found.size == 0 or bad.any():
        first = found[bad].flat[0] if bad.any() else "empty"
        raise InputError(f"{where}: {name} is {first}, should lie{_between(low, high, unit, below)}")
    return found


def seed(where: str, value: Any) -> int:
    """`value` as an integer seed that a NetCDF attribute can hold."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**63:
        raise InputError(f"{where}: seed is {value!r}, should be a whole number from 0 to 2^63 - 1")
    return int(value)


def resolution(where: str, value: Any, smallest_side: float) -> float:
    """`value` (m) as the edge of a voxel that fits into the thing it shall resolve."""
    found = number(where, "resolution", value, -math.inf, math.inf, "m")
    if found <= 0 or math.isinf(found):
        raise InputError(f"{where}: resolution is {value!r}, should be the edge of a voxel in m, such as 2e-3")
    if found > smallest_side:
        raise InputError(f"{where}: resolution is {found:g} m, larger than the object itself; "
                         f"should be at most {smallest_side:.2g} m")
    return found


def field(where: str, value: Any, low: float = 1.5, high: float = 7.0) -> float:
    """`value` (T) as a field within the measured ones, for things whose own numbers do not name their field."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise InputError(f"field is {value!r}, should be a field strength in tesla, such as 3.0")
    if not low <= found <= high:
        raise InputError(f"{where}: relaxation is not known at field {found:g} T (known: {low:g} to {high:g} T)")
    return found


def shape(where: str, found: tuple[int, ...], most: int) -> tuple[int, ...]:
    """A grid of at most `most` voxels."""
    count = math.prod(found)
    if count > most:
        raise InputError(f"{where}: the resolution gives {count:.3g} voxels, at most {most:.3g} fit in memory")
    return found


def _between(low: float, high: float, unit: str, below: bool) -> str:
    unit = f" {unit}" if unit else ""
    if math.isinf(high):
        return f" from {low:g} up{unit}"
    return f" from {low:g} to {'below ' if below else ''}{high:g}{unit}"
