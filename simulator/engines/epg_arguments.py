"""What the extended phase graph takes, checked: trains of pulses, times, and values a tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from ..acquisition.events.timeline import rf_spoiling

Floats = NDArray[np.float64]


def train_of(where: str, name: str, value: ArrayLike, unit: str) -> Floats:
    """Numbers, one a pulse; their count is that of the train."""
    array = np.atleast_1d(np.asarray(value))
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(f"{where}: {name} is {value!r}: expected one finite number ({unit}) or more, one a pulse")
    return np.ascontiguousarray(array, dtype=float)


def each_pulse(where: str, name: str, value: ArrayLike, n: int, unit: str) -> Floats:
    """A number for each of n pulses."""
    array = train_of(where, name, value, unit)
    if array.size not in (1, n):
        raise InputError(f"{where}: {name} has {array.size} values: expected 1 or {n}, one a pulse")
    return np.ascontiguousarray(np.broadcast_to(array, (n,)))


def phases_of(where: str, phases: ArrayLike | None, increment: float, n: int) -> Floats:
    """Phases of n pulses: those given, else quadratic ones."""
    if phases is not None:
        return each_pulse(where, "phases", phases, n, "rad")
    return np.array(rf_spoiling(n, number_of(where, "increment", increment, "rad")))


def times_of(where: str, name: str, value: ArrayLike, n: int, most: Floats | None = None) -> Floats:
    """A time for each pulse, from 0 up, and at most TR where that is given."""
    array = each_pulse(where, name, value, n, "s")
    if (array < 0).any():
        k = int(np.argmax(array < 0))
        raise InputError(f"{where}: {name} of pulse {k} is {array[k]:g} s: expected from 0 up")
    if most is not None and (array > most).any():
        k = int(np.argmax(array > most))
        raise InputError(f"{where}: {name} of pulse {k} is {array[k]:g} s: expected at most TR, {most[k]:g} s")
    return array


def number_of(where: str, name: str, value: Any, unit: str) -> float:
    """One finite number."""
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise InputError(f"{where}: {name} is {value!r}: expected one finite number ({unit})")
    return float(array)


def tissues_of(where: str, **values: ArrayLike) -> dict[str, Floats]:
    """Each value as an array over the tissues."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    n = max((a.size for a in arrays.values() if a.ndim), default=1)
    for name, a in arrays.items():
        if a.ndim > 1 or a.dtype.kind not in "iuf" or (a.ndim == 1 and a.size not in (1, n)):
            right = f"numbers, 1 or {n}, one a tissue"
            raise InputError(f"{where}: {name} is {a.dtype} of shape {a.shape}: expected {right}")
        relaxation = name.startswith(("T1", "T2"))
        wrong = np.atleast_1d(~(a > 0) if relaxation else ~np.isfinite(a) | ((name == "D") & (a < 0)))
        if wrong.any():
            k = int(np.argmax(wrong))
            right = "above 0" if relaxation else "a finite number" + (" from 0 up" if name == "D" else "")
            raise InputError(f"{where}: {name} of tissue {k} is {np.atleast_1d(a)[k]:g}: expected {right}")
    return {name: np.ascontiguousarray(np.broadcast_to(a, (n,)), dtype=float) for name, a in arrays.items()}
