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
        "reference": Setting("ppm", "chemical shift at the scanner's frequency", -300.0, 300.0, "given in Hz?"),
        "shot": Setting("1", "excitation after which an echo of an interleaved train is read", 0.0, 1e4),
        "spacing": Setting("s", "time from echo to echo of a train", 0.0, 2.0, "given in ms?"),
        "echoes": Setting("1", "echoes after one excitation", 1.0, 1e4),
        "refocusing_angle": Setting("rad", "flip angle of refocusing pulses", 0.0, 2 * math.pi, "given in degrees?"),
        "TE1": Setting("s", "time of the first of two spin echoes", 0.0, 2.0, "given in ms?"),
        "delta": Setting("s", "diffusion lobe, from the start of its rise to its fall", 0.0, 1.0, "given in ms?"),
        "Delta": Setting("s", "from the start of one diffusion lobe to that of the other", 0.0, 2.0, "given in ms?"),
        "ramp": Setting("s", "rise time of a diffusion lobe", 0.0, 0.05, "given in ms?"),
        "spokes_per_preparation": Setting("1", "spokes read after one preparation pulse", 1.0, 1e4),
        "spoke_TR": Setting("s", "time from spoke to spoke after a preparation", 0.0, 10.0, "given in ms?"),
        "power": Setting("rad", "flip angle of the preparation pulse on resonance", 0.0, 200.0, "given in degrees?"),
        "slice_thickness": Setting("m", "thickness of the slice", 0.0, 1.0, "given in mm?"),
        "crusher": Setting("T s/m", "area of a crusher gradient", 0.0, 1.0, "given in mT ms/m?"),
        "spoiler": Setting("T s/m", "area of the spoiler gradient; 0: ideal spoiling", 0.0, 1.0, "given in mT ms/m?"),
        "rf_spoiling": Setting("rad", "increment of the phase increment", 0.0, 2 * math.pi, "given in degrees?"),
        "repetitions": Setting("1", "repetitions played before the one that is read", 0.0, 1e5),
    }
)
FIELD = Setting("T", "static field", 0.001, 25.0, "given in MHz?")


def is_number(value: object) -> TypeGuard[float]:
    """Tell a number from everything else, a truth value included."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
