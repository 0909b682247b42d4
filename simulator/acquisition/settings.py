"""What a protocol may state: each setting with its unit, the range that makes sense, and the usual mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeGuard

import numpy as np


@dataclass(frozen=True)
class Setting:
    """A value that a protocol may state: its unit, the range that makes sense, and the mistake that leaves it."""

    unit: str
    meaning: str
    low: float
    high: float
    mistake: str = ""


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "b": Setting("s/mm2", "b-value", 0.0, 1e5),
        "TE": Setting("s", "echo time", 0.0, 2.0, "given in ms?"),
        "TR": Setting("s", "repetition time", 0.0, 100.0, "given in ms?"),
        "TI": Setting("s", "inversion time", 0.0, 20.0, "given in ms?"),
        "TM": Setting("s", "mixing time", 0.0, 20.0, "given in ms?"),
        "echo": Setting("s", "echo time", 0.0, 2.0, "given in ms?"),
        "te": Setting("s", "echo time", 0.0, 2.0, "given in ms?"),
        "time": Setting("s", "time after the echo", -2.0, 20.0, "given in ms?"),
        "flip_angle": Setting("rad", "flip angle", 0.0, 2 * math.pi, "given in degrees?"),
        "offset": Setting("Hz", "frequency offset of the saturation", -1e6, 1e6),
        "B1": Setting("1", "transmit field relative to nominal", 0.0, 5.0, "given in per cent?"),
        "temperature": Setting("C", "temperature", -20.0, 80.0, "given in K?"),
        "dwell": Setting("s", "time between two samples", 0.0, 1.0, "given in us?"),
    }
)
FIELD = Setting("T", "static field", 0.001, 25.0, "given in MHz?")


def is_number(value: object) -> TypeGuard[float]:
    """Tell a number from everything else, a truth value included."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
