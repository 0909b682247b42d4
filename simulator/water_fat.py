"""Fat's signal relative to water along the echoes, and the water-fat equations with a spectrum filled in.

Shifts are on the scale whose main CH2 peak stands at 1.30 ppm: fat stands still on it, water moves with temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from . import equations, tissues, triglyceride
from .constants import GYROMAGNETIC
from .model import Quantity, Values
from .symbolic import Equation

OUTSIDE_WATER = 4.70
"""Chemical shift (ppm) at which water stands in data of unknown temperature."""

FIELD_STRENGTH = Quantity("field_strength", "T", 0.01, 15.0, "static field", latex="B_0")


def spectrum_of(given: Any) -> tissues.Spectrum:
    """A fat spectrum from what a user may give.

    Parameters
    ----------
    given : str, Spectrum, or sequence
        A name of `tissues.spectra`; shifts (ppm, main CH2 peak at 1.30) and areas, two sequences of one length; or
        (ndb, nmidb, chain_length) of the mean triglyceride.

    Returns
    -------
    Spectrum
        Areas add up to 1.

    Raises
    ------
    InputError
        Anything else.
    """
    if isinstance(given, str):
        return tissues.spectrum(given)
    expected = "expected a name, (shifts, areas), or the three numbers (ndb, nmidb, chain_length)"
    try:
        parts = [np.asarray(part, dtype=float) for part in given]
    except (TypeError, ValueError):
        raise InputError(f"spectrum is {given!r}; {expected}") from None
    if len(parts) == 3 and all(part.ndim == 0 for part in parts):
        return triglyceride.spectrum(*map(float, parts))
    if len(parts) != 2 or parts[0].shape != parts[1].shape or parts[0].size == 0:
        raise InputError(f"spectrum has parts of shapes {', '.join(str(p.shape) for p in parts)}; {expected}")
    shift, area = (np.atleast_1d(part) for part in parts)
    if not (np.isfinite(shift).all() and np.isfinite(area).all() and (area >= 0).all() and area.sum() > 0):
        raise InputError("spectrum: shifts should be finite, and areas finite and not negative, with a sum above 0")
    if np.abs(shift).max() > 20:
        raise InputError(f"spectrum: shifts reach {shift.max():g}; expected ppm, with the main CH2 peak at 1.30")
    return tissues.Spectrum(shift, area / area.sum())


def fat_signal(times: np.ndarray, field_strength: float, spectrum: tissues.Spectrum, water_shift: float) -> np.ndarray:
    """Signal of fat relative to water of the same amount, c(t) = sum_m a_m exp(+i 2 pi nu_m t), (point,).

    Parameters
    ----------
    times : ndarray, (point,)
        From the pulse, or from the spin echo (s).
    field_strength : float
        In T.
    spectrum : Spectrum
    water_shift : float
        Chemical shift of water on the scale of the spectrum (ppm): `tissues.water_shift(temperature)`.
    """
    frequency = (spectrum.shift - water_shift) * 1e-6 * GYROMAGNETIC["1H"] * field_strength
    turned: np.ndarray = np.exp(2j * np.pi * np.multiply.outer(np.asarray(times, float), frequency)) @ spectrum.area
    return turned


def echo_order(times: np.ndarray, shot: Any = None) -> np.ndarray:
    """Number of each echo after its excitation, from 0, (point,); `shot` numbers the excitations of a train."""
    times = np.asarray(times, dtype=float)
    shots = np.zeros(times.shape) if shot is None else np.broadcast_to(np.asarray(shot), times.shape)
    order = np.zeros(times.shape, int)
    for one in np.unique(shots):
        here = shots == one
        order[here] = np.argsort(np.argsort(times[here], kind="stable"), kind="stable")
    return order


def settings_of(times: np.ndarray, fat: np.ndarray, order: np.ndarray) -> dict[str, np.ndarray]:
    """What the water-fat equations ask of a protocol: echo times (s), c(t), and each echo's number, (point,) each."""
    return {
        "TE": np.asarray(times, dtype=float),
        "fat_real": fat.real.copy(),
        "fat_imag": fat.imag.copy(),
        "first": (order == 0).astype(float),
        "even": (order % 2).astype(float),
    }


@dataclass(frozen=True)
class WaterFat:
    """A water-fat equation with its spectrum: a `Model` that a protocol alone settles.

    Attributes
    ----------
    equation : str
        One of the water-fat equations.
    spectrum : str, or as `spectrum_of` takes it
    temperature : float
        Of the water (C).
    """

    equation: str = "water_fat"
    spectrum: Any = "fat_marrow"
    temperature: float = tissues.BODY_TEMPERATURE

    @property
    def _equation(self) -> Equation:
        return equations.get(self.equation)

    @property
    def name(self) -> str:
        """Name of the equation."""
        return self.equation

    @property
    def title(self) -> str:
        """Of the equation."""
        return self._equation.title

    @property
    def latex(self) -> str:
        """Of the equation."""
        return self._equation.latex

    @property
    def assumptions(self) -> str:
        """Of the equation."""
        return self._equation.assumptions

    @property
    def source(self) -> str:
        """Of the equation."""
        return self._equation.source

    @property
    def unknowns(self) -> tuple[Quantity, ...]:
        """Of the equation."""
        return self._equation.unknowns

    @property
    def settings(self) -> tuple[Quantity, ...]:
        """Echo time and field strength."""
        return (equations.dixon.TE, FIELD_STRENGTH)

    def _filled(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        for q in self.settings:
            try:
                protocol[q.name]
            except KeyError:
                raise InputError(f"{self.name}: the protocol lacks {q.name} ({q.unit}): {q.meaning}") from None
        times, field = np.atleast_1d(protocol["TE"]), float(protocol["field_strength"])
        fat = fat_signal(times, field, spectrum_of(self.spectrum), tissues.water_shift(self.temperature))
        filled = settings_of(times, fat, echo_order(times, protocol.get("shot")))
        return {q.name: filled[q.name] for q in self._equation.settings}

    def signal(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Signal, (voxel, point)."""
        return self._equation.signal(theta, self._filled(protocol))

    def jacobian(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Exact derivative with respect to each unknown, (voxel, point, unknown)."""
        return self._equation.jacobian(theta, self._filled(protocol))
