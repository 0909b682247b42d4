"""The 1H spectrum of a triglyceride from its composition, and the composition from a spectrum.

Three numbers describe the mean triglyceride of a fat: double bonds (ndb) and methylene-interrupted double bonds
(nmidb) per molecule, and the mean chain length (CL). Counting protons by their place in the molecule gives the areas
of ten peaks (Hamilton 2011, doi:10.1002/nbm.1622); the sum is 6 CL + 2 - 2 ndb, 98 for trilinolein and 104 for
triolein. The shifts are those of ``tissues.spectrum("fat_marrow")``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from . import tissues

# Peaks that tell the composition: ppm from, to (main CH2 peak at 1.30).
METHYL, OLEFINIC, DIALLYLIC = (0.8, 1.0), (5.25, 5.45), (2.65, 2.9)
GLYCEROL = (5.0, 5.25)  # where the glycerol CH stands: without a peak of its own it hides in the olefinic one


class Composition(NamedTuple):
    """Mean triglyceride: double bonds, methylene-interrupted double bonds, chain length (carbons)."""

    ndb: float
    nmidb: float
    chain_length: float


def protons(ndb: float, nmidb: float, chain_length: float) -> np.ndarray:
    """1H per molecule in the ten peaks .90 1.30 1.59 2.03 2.25 2.77 4.10 4.30 5.21 5.31 ppm.

    Raises
    ------
    InputError
        The counts are not those of a molecule: a number of protons would be negative.
    """
    counts = np.array([9, 6 * (chain_length - 4) - 8 * ndb + 2 * nmidb, 6, 4 * (ndb - nmidb), 6, 2 * nmidb, 2, 2, 1,
                       2 * ndb], dtype=float)
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise InputError(f"triglyceride: ndb {ndb:g}, nmidb {nmidb:g}, chain_length {chain_length:g} give a negative "
                         "number of protons; nmidb should lie in 0..ndb, and the chain be long enough for both")
    return counts


def spectrum(ndb: float, nmidb: float, chain_length: float) -> tissues.Spectrum:
    """Shifts (ppm, main CH2 peak at 1.30) and relative areas of a triglyceride; errors as :func:`protons`."""
    counts = protons(ndb, nmidb, chain_length)
    return tissues.Spectrum(tissues.spectrum("fat_marrow").shift, counts / counts.sum())


def composition(shift: np.ndarray, area: np.ndarray) -> Composition:
    """Composition that a spectrum tells: its methyl, olefinic and diallylic areas against the whole.

    Parameters
    ----------
    shift, area : array, (peak,)
        ppm with the main CH2 peak at 1.30, and areas in any scale (peaks of area zero do not count).

    Returns
    -------
    Composition
        NaN where the spectrum has no methyl peak of its own, or none for the glycerol CH beside the olefinic
        peak: then the areas cannot be told apart.
    """

    def within(window: tuple[float, float]) -> float:
        return float(area[(shift >= window[0]) & (shift < window[1])].sum())

    methyl = within(METHYL)
    if not (methyl > 0 and within(GLYCEROL) > 0):
        return Composition(np.nan, np.nan, np.nan)
    molecule = 9 / methyl  # protons per unit of area
    ndb, nmidb = molecule * within(OLEFINIC) / 2, molecule * within(DIALLYLIC) / 2
    return Composition(ndb, nmidb, (molecule * float(area.sum()) - 2 + 2 * ndb) / 6)
