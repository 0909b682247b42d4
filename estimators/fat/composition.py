"""The fat of an image told from its own echoes: one mean triglyceride for all its voxels.

Chain length and methylene-interrupted double bonds go with the number of double bonds, so that one number is left to
find; a voxel's echoes hardly tell it, those of many voxels do. Bydder et al., Magn Reson Imaging 29:1041 (2011).
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...simulator.triglyceride import Composition
from .fit import fit
from .start import Start
from .train import Train

DOUBLE_BONDS = (0.5, 6.0)
"""From coconut to linseed; marrow has 2.5 to 3.2."""

FATTY = 0.2  # of the fraction, from which a voxel speaks for its fat
MOST = 4000  # voxels; the error of ndb is then that of the model
STEP = 0.1  # of ndb, over which the curvature of the cost is taken


def triglyceride(ndb: float) -> Composition:
    """The mean triglyceride with so many double bonds."""
    return Composition(ndb, 0.093 * ndb**2, 16.8 + 0.25 * ndb)


def fitted_composition(
    method: str, data: np.ndarray, mask: np.ndarray, train: Train, start: Start, sigma: float | np.ndarray | None
) -> tuple[Composition, float]:
    """The composition that leaves the least residual over the fatty voxels of an image, and the SD of its ndb.

    Parameters
    ----------
    method : str
        Named in errors.
    data : ndarray of complex, (..., point)
    mask : ndarray of bool, (...)
    train : Train
        With a spectrum that is near enough for the field map.
    start : Start
        Over the flat order of the image.
    sigma : float or ndarray, (voxel,), optional
        Noise SD of each real channel; without it the residuals tell it.

    Raises
    ------
    InputError
        No fatty voxels, or too few echoes to leave a residual.
    """
    if 2 * train.times.size <= 6:
        raise InputError(f'{method}: spectrum "fitted" needs a residual; {train.times.size} echoes leave none')
    flat = data.reshape(-1, data.shape[-1])
    inside = np.flatnonzero(mask.ravel() & np.isfinite(flat).all(axis=1) & ~start.ambiguous)
    inside = inside[:: max(1, inside.size // (4 * MOST))]
    first = fit(flat[inside], train, start.field[inside], start.r2star[inside])
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = (first.fat / (first.water + first.fat)).real
    chosen = np.flatnonzero((fraction > FATTY) & (first.status == 0))
    if not chosen.size:
        raise InputError(f"{method}: no voxel has {FATTY:.0%} fat to tell its spectrum by; name one as spectrum")
    chosen = chosen[:: max(1, -(-chosen.size // MOST))]
    voxels, field, rate = inside[chosen], first.field[chosen], first.others["r2star"][chosen]
    sd = np.broadcast_to(np.asarray(1.0 if sigma is None else sigma, dtype=float), (len(flat),))[voxels]

    def deviance(ndb: float) -> float:
        found = fit(flat[voxels], train.with_spectrum(triglyceride(ndb)), field, rate)
        return float(np.nansum(found.cost / sd**2))

    from scipy.optimize import minimize_scalar

    low, high = DOUBLE_BONDS
    best = float(minimize_scalar(deviance, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
    middle = min(max(best, low + STEP), high - STEP)
    least = deviance(best)
    curvature = (deviance(middle - STEP) - 2 * deviance(middle) + deviance(middle + STEP)) / STEP**2
    freedom = voxels.size * (2 * train.times.size - 6) - 1
    scale = 1.0 if sigma is not None else least / max(freedom, 1)
    spread = float(np.sqrt(2 * scale / curvature)) if curvature > 0 else np.inf
    return triglyceride(best), spread
