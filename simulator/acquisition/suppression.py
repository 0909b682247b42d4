"""Fat suppression, peak by peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .settings import is_number

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FatSuppression:
    """How much of each fat peak the suppression removes, as stop bands on the ppm scale (methylene at 1.30 ppm).

    A peak inside a band loses the stated fraction of its signal and a peak outside every band loses nothing:
    spectrally selective suppression leaves the olefinic and glycerol peaks, which lie under or beside water.

    Parameters
    ----------
    method : str
        What the scanner calls it (SPAIR, STIR, ...).
    bands : sequence of (low, high, efficiency)
        Limits in ppm, and the fraction removed (0 to 1). Where bands overlap the first one counts.
    """

    method: str = "none"
    bands: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        bands = self.bands
        if not isinstance(bands, (list, tuple)) or not all(
            isinstance(band, (list, tuple)) and len(band) == 3 and all(map(is_number, band)) for band in bands
        ):
            raise InputError(f"fat_suppression bands are {bands!r}: expected rows of [low ppm, high ppm, efficiency]")
        object.__setattr__(self, "bands", tuple(tuple(map(float, band)) for band in bands))
        for low, high, efficiency in self.bands:
            if not low < high:
                raise InputError(f"fat_suppression band from {low:g} to {high:g} ppm: the lower limit comes first")
            if not 0 <= efficiency <= 1:
                raise InputError(f"fat_suppression efficiency is {efficiency:g}: expected a fraction from 0 to 1")

    def efficiency(self, shift: ArrayLike) -> Floats:
        """Fraction of the signal removed at each chemical shift (ppm, any shape)."""
        ppm = np.asarray(shift, dtype=float)
        removed = np.zeros(ppm.shape)
        for low, high, efficiency in reversed(self.bands):
            removed = np.where((ppm >= low) & (ppm <= high), efficiency, removed)
        return removed

    def residual(self, shift: ArrayLike, area: ArrayLike) -> float:
        """Fraction of the whole fat signal that is left, for peaks at ``shift`` (ppm) with relative ``area``."""
        area = np.asarray(area, dtype=float)
        return float(np.sum(area * (1 - self.efficiency(shift))) / np.sum(area))

    def with_efficiency(self, efficiency: float) -> FatSuppression:
        """The same bands at another efficiency; without bands, a suppression that reaches every peak."""
        bands = tuple((low, high, efficiency) for low, high, _ in self.bands)
        return FatSuppression(self.method, bands or ((-1e3, 1e3, efficiency),))
