"""Diffusion and perfusion of marrow by least squares: `adc`, `ivim`, `ivim-segmented`.

The units are the field's: b in s/mm2, diffusivities in mm2/s. A plain IVIM fit gives the apparent fraction f_app,
weighted by T1 and T2 at the TE and TR of the scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator import equations
from ...simulator.model import variances
from ...simulator.symbolic import Equation
from .. import solver
from ..estimate import estimator
from ..profile import likelihood_interval
from ..status import Status
from ..uncertainty import Noise, noise_of

CLAIMS = Path(__file__).parents[1] / "perfusion.claims.toml"
QUANTITIES = {
    "S0": ("a.u.", "signal at b = 0"),
    "f": ("1", "perfusion fraction"),
    "D_star": ("mm2/s", "pseudo-diffusion coefficient"),
    "D": ("mm2/s", "diffusion coefficient"),
}
# What counts as identified: the relative standard error that a reader of a map would still call a measurement.
IDENTIFIED = {"f": 0.10, "D": 0.10, "D_star": 0.20}
LOW_SNR = 5.0  # strongest signal over the noise SD, below which magnitude bias exceeds two per cent


def points_for(name: str, protocol: Mapping[str, np.ndarray], unknowns: int) -> None:
    """Refuse a protocol with fewer different b-values than unknowns."""
    different = np.unique(np.round(protocol["b"], 6)).size
    if different < unknowns:
        need = f"at least {unknowns} are needed for {unknowns} unknowns"
        raise InputError(f"{name}: b has {different} different values; {need}")


def low_signal(data: np.ndarray, noise: Noise) -> np.ndarray:
    """Status bits of voxels whose strongest signal stands little above the noise."""
    with np.errstate(invalid="ignore"):
        weak = np.nan_to_num(data, nan=np.inf).max(axis=1) < LOW_SNR * np.asarray(noise.sd)
    return np.where(weak, Status.LOW_SIGNAL, 0).astype(np.uint16)


def standard_errors(fit: solver.Fit, noise: Noise) -> dict[str, np.ndarray]:
    """`x_sd` of every fitted unknown, widened so that +- 1.96 of it covers 95 %."""
    scale = np.asarray(noise.sd) * noise.widening
    return {f"{name}_sd": fit.unit_sd[:, i] * scale for i, name in enumerate(fit.free)}


def noise_of_fit(fit: solver.Fit, data: np.ndarray, sigma: float | np.ndarray | None) -> Noise:
    """Noise SD: given, or pooled over the voxels that converged; one with an unknown at its bound counts too."""
    settled = (fit.status & ~np.uint16(Status.AT_BOUND)) == 0
    return noise_of(fit.cost, data.shape[1] - len(fit.free), settled, sigma)


def not_identified(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Status bits of voxels where a standard error exceeds its share of the value."""
    unknown = np.zeros(len(values["f"]), bool)
    for name, share in IDENTIFIED.items():
        unknown |= ~(values[f"{name}_sd"] <= share * np.abs(values[name])) & np.isfinite(values[name])
    return np.where(unknown, Status.NOT_IDENTIFIABLE, 0).astype(np.uint16)


@estimator(
    name="adc",
    title="Apparent diffusion coefficient, mono-exponential least squares",
    modality="diffusion",
    model=equations.mono_exponential,
    quantities={"S0": QUANTITIES["S0"], "adc": ("mm2/s", "apparent diffusion coefficient")},
    source="Stejskal and Tanner, J Chem Phys 42:288 (1965), doi:10.1063/1.1695690",
    claims=CLAIMS,
    encoding="b",
)
def adc(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    likelihood: str = "gaussian",
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """S0 and adc over all b of the scan."""
    points_for("adc", protocol, 2)
    fit = solver.fit(equations.mono_exponential, data, protocol, sigma=sigma, likelihood=likelihood, bounds=bounds)
    noise = noise_of(fit.cost, data.shape[1] - 2, fit.status == 0, sigma)
    out = {"S0": fit["S0"], "adc": fit["adc"], **standard_errors(fit, noise)}
    return {**out, "status": fit.status | low_signal(data, noise)}


def fit_ivim(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    likelihood: str = "gaussian",
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> solver.Fit:
    """Bi-exponential fit with the compartments named: D* is the larger diffusivity.

    The formula is the same with f -> 1 - f and the diffusivities exchanged. Where bounds forbid the exchange, the fit
    stands as it is, with `Status.AMBIGUOUS`.
    """
    fit = solver.fit(equations.ivim, data, protocol, sigma=sigma, likelihood=likelihood, bounds=bounds)
    low, high = (dict(zip(fit.free, v, strict=True)) for v in solver.limits(equations.ivim, fit.free, bounds))
    wrong = fit["D_star"] < fit["D"]
    allowed = wrong & (fit["D"] <= high["D_star"]) & (fit["D_star"] <= high["D"]) & (fit["D"] >= low["D_star"])
    allowed &= (fit["D_star"] >= low["D"]) & (1.0 - fit["f"] >= low["f"]) & (1.0 - fit["f"] <= high["f"])
    fit.status[wrong & ~allowed] |= np.uint16(Status.AMBIGUOUS)
    swapped = np.flatnonzero(allowed)[:, None]
    f, star, slow = (fit.free.index(n) for n in ("f", "D_star", "D"))
    fit.theta[swapped, f] = 1.0 - fit.theta[swapped, f]
    for array in (fit.theta, fit.unit_sd):
        array[swapped, [star, slow]] = array[swapped, [slow, star]]
    return fit


def estimates(
    fit: solver.Fit,
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    model: Equation = equations.ivim,
    known: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    likelihood: str = "gaussian",
) -> dict[str, np.ndarray]:
    """Values, standard errors, intervals where asked for and status of the four unknowns of a fit of `model`.

    Parameters
    ----------
    fit : Fit
        Of S0, f, D* and D, with `known`, `bounds` and `likelihood` as given here.
    data : ndarray, (voxel, point)
    protocol : mapping
        Settings of the model.
    sigma : float or ndarray, (voxel,), optional
        The noise SD where it is known.
    intervals : bool
        Whether to add the likelihood intervals of f, D* and D.
    """
    noise = noise_of_fit(fit, data, sigma)
    out = {name: fit[name] for name in QUANTITIES} | standard_errors(fit, noise)
    if intervals:
        for name in ("f", "D_star", "D"):
            out[f"{name}_lo"], out[f"{name}_hi"] = likelihood_interval(
                model, data, protocol, fit, name, noise, known=known, bounds=bounds, likelihood=likelihood
            )
    return {**out, "status": fit.status | low_signal(data, noise) | not_identified(out)}


@estimator(
    name="ivim",
    title="Bi-exponential IVIM, full non-linear least squares",
    modality="diffusion",
    model=equations.ivim,
    quantities=QUANTITIES,
    source="Le Bihan et al., Radiology 168:497 (1988), doi:10.1148/radiology.168.2.3393671",
    claims=CLAIMS,
    encoding="b",
    measurand={"f": "f_app"},
)
def ivim(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    likelihood: str = "gaussian",
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """All four unknowns at once, within the declared ranges or `bounds`."""
    points_for("ivim", protocol, 4)
    fit = fit_ivim(data, protocol, sigma, likelihood, bounds)
    return estimates(fit, data, protocol, sigma, intervals, bounds=bounds, likelihood=likelihood)


@estimator(
    name="ivim-segmented",
    title="IVIM in two steps: D from high b, then f and D* with D held",
    modality="diffusion",
    model=equations.ivim,
    quantities=QUANTITIES,
    source="Pekar et al., Magn Reson Med 23:122 (1992), doi:10.1002/mrm.1910230113",
    claims=CLAIMS,
    encoding="b",
    measurand={"f": "f_app"},
)
def ivim_segmented(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    threshold: float = 200.0,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """D from b >= `threshold` (s/mm2), where blood has decayed; then S0, f and D* from all b with D held.

    The standard errors follow both steps: the error of D moves the second step, and both see the same noise.
    """
    points_for("ivim-segmented", protocol, 4)
    high = np.asarray(protocol["b"]) >= threshold
    if np.unique(protocol["b"][high]).size < 2:
        few = f"fewer than two b-values at or above threshold {threshold:g}"
        raise InputError(f"ivim-segmented: {few}; lower the threshold")
    limit = {"adc": (bounds or {}).get("D", (0.0, 5e-3))}
    first = solver.fit(equations.mono_exponential, data[:, high], {"b": protocol["b"][high]}, bounds=limit)
    later = {k: v for k, v in (bounds or {}).items() if k != "D"}
    second = solver.fit(equations.ivim, data, protocol, known={"D": first["adc"]}, bounds=later)
    noise = noise_of(second.cost, data.shape[1] - 4, (second.status == 0) & (first.status == 0), sigma)
    theta = {**{n: second[n] for n in second.free}, "D": first["adc"]}
    unit = _two_step_errors(theta, {"S0": first["S0"], "adc": first["adc"]}, protocol, high)
    scale = np.asarray(noise.sd) * noise.widening
    out = {name: theta[name] for name in QUANTITIES} | {f"{name}_sd": unit[name] * scale for name in QUANTITIES}
    return {**out, "status": first.status | second.status | low_signal(data, noise) | not_identified(out)}


def _two_step_errors(
    theta: Mapping[str, np.ndarray],
    first: Mapping[str, np.ndarray],
    protocol: Mapping[str, np.ndarray],
    high: np.ndarray,
) -> dict[str, np.ndarray]:
    """Standard errors for unit noise of the two-step fit, to first order: each estimate is a linear map of the noise.

    D - D_true = a e, with a from step one; then theta - theta_true = M (e - J_D a e), with M the pseudo-inverse of
    step two: the variances are the squared rows of these maps.
    """
    good = np.isfinite(np.stack(list(theta.values()))).all(axis=0)
    # where there is no estimate the maps are taken at some place, and dropped at the end
    begin, fill = ({k: np.where(good, v, 1e-3) for k, v in values.items()} for values in (first, theta))
    one = equations.mono_exponential.jacobian(begin, {"b": protocol["b"][high]})
    a = np.zeros((len(good), high.size))
    a[:, high] = np.linalg.pinv(one)[:, 1]
    jacobian = equations.ivim.jacobian(fill, protocol)
    names = [q.name for q in equations.ivim.unknowns]
    step_two = [names.index(n) for n in ("S0", "f", "D_star")]
    free = jacobian[:, :, step_two]
    singular = ~np.isfinite(variances(np.swapaxes(free, 1, 2) @ free))
    inverse = np.linalg.pinv(free)
    total = inverse - np.einsum("vkp,vp->vk", inverse, jacobian[:, :, names.index("D")])[:, :, None] * a[:, None, :]
    sd = np.where(singular, np.inf, np.sqrt((total**2).sum(axis=2)))
    errors = {names[i]: sd[:, k] for k, i in enumerate(step_two)} | {"D": np.sqrt((a**2).sum(axis=1))}
    return {n: np.where(good, v, np.nan) for n, v in errors.items()}
