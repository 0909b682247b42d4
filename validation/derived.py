"""Fractions and amplitudes of water and fat that follow from the unknowns of an equation, and back again.

Equations of water and fat differ in their unknowns: a fraction and a sum, or amplitudes, real or complex. A trial knows
the fraction, and asks for the bound of the fraction: here is the way there, and the delta method back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTITIES = ("pdff", "water", "fat")
_COMPLEX = ("water_real", "water_imag", "fat_amplitude_real", "fat_amplitude_imag")
_REAL = ("water", "fat")


def unknowns(known: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Amplitudes of water and fat as every equation names them.

    Parameters
    ----------
    known : mapping
        ``pdff``; ``S0`` (without it the sum of ``water`` and ``fat``, or 1), ``phase`` of water at TE 0 and
        ``phase_fat`` less that (0 without): numbers or (voxel,).

    Returns
    -------
    dict
        Those of `water_fat` and of the other water-fat equations; empty where there is no ``pdff``.
    """
    if "pdff" not in known:
        return {}
    whole = known["water"] + known["fat"] if {"water", "fat"} <= set(known) else 1.0
    S0, phase, other = (np.asarray(known.get(name, default), float)
                        for name, default in (("S0", whole), ("phase", 0.0), ("phase_fat", 0.0)))  # fmt: skip
    pdff = np.asarray(known["pdff"], float)
    water, fat = S0 * (1 - pdff), S0 * pdff
    W, F = water * np.exp(1j * phase), fat * np.exp(1j * (phase + other))
    return {"S0": S0, "phase": phase, "phase_fat": other, "water": water, "fat": fat,
            **dict(zip(_COMPLEX, (W.real, W.imag, F.real, F.imag), strict=True))}  # fmt: skip


def gradient(quantity: str, names: Sequence[str], theta: Mapping[str, float]) -> NDArray[np.float64] | None:
    """Derivative of a quantity with respect to each of the unknowns `names`; None where it does not follow from them.

    A quantity that is one of the unknowns has a unit vector.
    """
    row = np.zeros(len(names))
    if quantity in names:
        row[names.index(quantity)] = 1.0
        return row
    if quantity not in QUANTITIES:
        return None
    for members, power in ((_COMPLEX, 2), (_REAL, 1)):
        if all(name in names for name in members):
            value = np.array([theta[name] for name in members]).reshape(2, power)
            size = np.hypot(*value.T) if power == 2 else value[:, 0]
            with np.errstate(invalid="ignore", divide="ignore"):
                slope = np.divide(value, size[:, None]) if power == 2 else np.ones((2, 1))
            water, fat = size
            weight = {"water": (1.0, 0.0), "fat": (0.0, 1.0),
                      "pdff": (-fat / (water + fat) ** 2, water / (water + fat) ** 2)}[quantity]  # fmt: skip
            for part, name in enumerate(members):
                if weight[part // power]:
                    row[names.index(name)] = weight[part // power] * slope[part // power, part % power]
            return row
    if all(name in names for name in ("S0", "pdff")) and quantity in _REAL:
        sign = 1.0 if quantity == "fat" else -1.0
        row[names.index("S0")] = theta["pdff"] if quantity == "fat" else 1 - theta["pdff"]
        row[names.index("pdff")] = sign * theta["S0"]
        return row
    return None


def deviations(
    quantities: Sequence[str], names: Sequence[str], theta: Mapping[str, float], information: NDArray[np.float64]
) -> dict[str, float]:
    """Bound (SD) of each quantity from the information about the unknowns: the delta method.

    Infinite where the unknowns that a quantity follows from are not determined; NaN where it follows from none.
    """
    size = np.sqrt(np.diag(information))
    scale = np.where(size > 0, size, 1.0)  # units must not decide what counts as singular
    value, vector = np.linalg.eigh(information / np.outer(scale, scale))
    null = value <= 1e-13 * value[-1]
    found = {}
    for quantity in quantities:
        row = gradient(quantity, names, theta)
        if row is None:
            found[quantity] = np.nan
            continue
        along = ((row / scale) @ vector) ** 2
        lost = along[null].sum() > 1e-8 * along.sum()
        found[quantity] = np.inf if lost else float(np.sqrt(np.sum(along[~null] / value[~null])))
    return found
