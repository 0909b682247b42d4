"""What stands on the command line, read: ``--set KEY=VALUE``, numbers, seeds, names of maps.

Everything comes as text. A value that is not what it must be is told in one line that names the option, the value and
what would be right.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError

ANGLES = ("flip_angle", "refocusing_angle")
"""Settings of a protocol of which nobody asks more than half a turn."""

MAP_SUFFIXES = (".nii", ".nii.gz", ".nc")


def parse(settings: Sequence[str] | None, names: Sequence[str], where: str) -> dict[str, Any]:
    """Return the KEY=VALUE of ``--set``, with the names that may be set."""
    values: dict[str, Any] = {}
    for setting in settings or ():
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not (key and equals and text):
            raise InputError(f"--set {setting!r}: give key=value")
        if key not in names:
            has = f"it has {', '.join(names)}" if names else "it has none"
            raise InputError(f"--set {key}: {where} has no parameter {key}; {has}")
        if key in values:
            raise InputError(f"--set {key}: {key} is given twice")
        values[key] = value(text)
    return values


def check_kinds(options: dict[str, Any], defaults: Mapping[str, Any], bounds: str = "{D=[0, 3e-3]}") -> None:
    """Refuse an option of another kind than its default: text for a number, a number for bounds (with an example)."""
    for name, value in options.items():
        if hasattr(value, "dims"):  # a map, read already
            continue
        default = defaults[name]
        if isinstance(default, bool):
            good, right = isinstance(value, bool), "true or false"
        elif isinstance(default, int | float) or name == "temperature":
            good, right = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        elif name == "spectrum":
            parts = [isinstance(part, list) for part in value] if isinstance(value, list) else []
            good = isinstance(value, str) or parts in ([True, True], [False, False, False])
            right = "a name, [shifts, areas] or [ndb, nmidb, chain length]"
        elif isinstance(default, str):  # which words there are the method says itself
            continue
        else:
            good, right = name != "bounds" or isinstance(value, dict), f"as in {bounds}"
        if not good:
            raise InputError(f"--set {name}={value}: {name} must be {right}")


def check_settings(changes: Mapping[str, Any]) -> None:
    """Refuse a setting of a protocol that is no number, and an angle that was given in degrees."""
    from ..simulator.acquisition.settings import SETTINGS, is_number

    for name, given in changes.items():
        unit = SETTINGS[name].unit
        if not is_number(given):
            raise InputError(f"--set {name}={given}: {name} must be a number{f' ({unit})' * (unit != '1')}")
        if name in ANGLES and given > math.pi:
            right = f"as {math.radians(given):.3g}" if given <= 360 else "up to pi"
            raise InputError(f"--set {name}={given}: {name} must be in rad, {right} (given in degrees?)")


def value(text: str) -> Any:
    """Read a value as TOML does (``3``, ``true``, ``[2, 4]``, ``{D = [0, 3e-3]}``), with ``.5`` too; else as text."""
    import tomllib

    if text in ("True", "False"):  # as Python has it
        return text == "True"
    for read in (lambda: tomllib.loads(f"value = {text}")["value"], lambda: float(text)):
        with contextlib.suppress(ValueError):
            return read()
    return text


def number(option: str, text: str | None, or_else: str = "") -> float | None:
    """Return the positive number of an option; None where it was not given."""
    if text is None:
        return None
    given = value(text)
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < float("inf"):
        raise InputError(f"{option} is {text}; it must be a positive number{', ' * bool(or_else)}{or_else}")
    return float(given)


def is_map(value: Any) -> bool:
    """Tell the name of a map from a number or a word."""
    return isinstance(value, str) and value.lower().endswith(MAP_SUFFIXES)


def seed(text: str) -> int:
    """Return the seed that a text is."""
    given = value(text)
    # Seeds are kept in NetCDF attributes, which hold 64 bits.
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**63:
        raise InputError(f"--seed is {text}; it must be an integer from 0 to 2^63 - 1")
    return given
