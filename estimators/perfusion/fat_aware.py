"""`ivim-fat-aware`: D and the spin-density perfusion fraction, corrected for residual fat and for relaxation.

Suppression leaves part of the fat (the olefinic and glycerol peaks lie under water), and fat hardly diffuses: it
pulls a plain D down. Blood relaxes more slowly than marrow water: it pulls a plain f up. Both are known when PDFF,
spectrum, suppression, TE, TR and the relaxation times are; those that are not given are population means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator import FatSuppression, equations, tissues
from .. import solver
from ..estimate import estimator
from .least_squares import CLAIMS, QUANTITIES, estimates, points_for

NUISANCES = ("pdff", "T1_water", "T2_water", "T1_blood", "T2_blood", "T1_fat", "T2_fat", "D_fat")


def population(field: float) -> dict[str, float]:
    """Population means of the nuisances in marrow at a field (T), from the tissue table."""
    means = tissues.defaults("marrow", field)
    return {name: means[name] for name in NUISANCES}


@estimator(
    name="ivim-fat-aware",
    title="IVIM over residual fat, with T1 and T2 of water and blood",
    modality="diffusion",
    model=equations.ivim_fat_aware,
    quantities={**QUANTITIES, "S0": ("a.u.", "signal of all 1H at b = 0 without relaxation")},
    source="Dieckmeyer et al., Magn Reson Med 78:1432 (2017), doi:10.1002/mrm.26550",
    claims=CLAIMS,
    encoding="b",
    needs=("field_strength", "fat_suppression"),
)
def ivim_fat_aware(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    pdff: float | np.ndarray | None = None,
    residual: float | None = None,
    spectrum: str = "fat_marrow",
    T1_water: float | np.ndarray | None = None,
    T2_water: float | np.ndarray | None = None,
    T1_blood: float | np.ndarray | None = None,
    T2_blood: float | np.ndarray | None = None,
    T1_fat: float | np.ndarray | None = None,
    T2_fat: float | np.ndarray | None = None,
    D_fat: float | np.ndarray | None = None,
    likelihood: str = "gaussian",
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """S0, f, D* and D with everything else known.

    `pdff` is a fraction or a map; `residual` the fraction of the fat signal that suppression leaves, by default that
    of the scan's stated suppression over `spectrum`; relaxation times in s.
    """
    points_for("ivim-fat-aware", protocol, 4)
    given = {
        "pdff": pdff, "T1_water": T1_water, "T2_water": T2_water, "T1_blood": T1_blood,
        "T2_blood": T2_blood, "T1_fat": T1_fat, "T2_fat": T2_fat, "D_fat": D_fat,
    }  # fmt: skip
    if "field_strength" not in protocol and any(v is None for v in given.values()):
        raise InputError("ivim-fat-aware: the scan lacks field_strength (T), by which the population means are chosen")
    means = population(float(protocol["field_strength"])) if any(v is None for v in given.values()) else {}
    known: dict[str, Any] = {name: means[name] if v is None else v for name, v in given.items()}
    known["residual"] = _residual(protocol.get("fat_suppression"), spectrum) if residual is None else residual
    for name, value in known.items():
        _check(name, value)
    settings = {q.name: protocol[q.name] for q in equations.ivim_fat_aware.settings}
    model = equations.ivim_fat_aware
    fit = solver.fit(model, data, settings, known=known, sigma=sigma, likelihood=likelihood, bounds=bounds)
    out = estimates(
        fit, data, settings, sigma, intervals, model=model, known=known, bounds=bounds, likelihood=likelihood
    )
    assumed = ", ".join(f"{name} {means[name]:.4g}" for name, value in given.items() if value is None)
    return {**out, "attrs": {"population_means": assumed or "none"}}


def _check(name: str, value: Any) -> None:
    """Refuse a nuisance that is not a number or map within its range; a NaN in a map is the affair of its voxel."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"ivim-fat-aware: {name} is {value!r}; expected a number or a map") from None
    if array.ndim == 0 and not np.isfinite(array):
        raise InputError(f"ivim-fat-aware: {name} is {value}; expected a finite number")
    fraction = name in ("pdff", "residual")
    outside = np.isinf(array) | (array < 0) | (fraction & (array > 1)) | (name.startswith("T") & (array == 0))
    if outside.any():
        expected = "0 to 1" if fraction else "positive values"
        raise InputError(f"ivim-fat-aware: {name} reaches {array.min():g} to {array.max():g}; expected {expected}")


def _residual(suppression: FatSuppression | None, spectrum: str) -> float:
    """Fraction of the fat signal that the scan's stated suppression leaves."""
    if suppression is None:
        remedy = "give residual=, the fraction of the fat signal that is left"
        raise InputError(f"ivim-fat-aware: the scan states no fat suppression; {remedy}")
    peaks = tissues.spectrum(spectrum)
    return float(suppression.residual(peaks.shift, peaks.area))
