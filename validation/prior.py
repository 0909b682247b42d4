"""Bayesian estimators over a prior: against the exact posterior mean, the prior mean, and least squares.

A posterior mean is right on average only over its own prior, so its error is compared with what is exactly possible
there (the posterior mean by importance sampling, our oracle), and a gain is always shown beside that of the prior mean,
which looks at no data at all. Truths drawn from another range show what a wrong prior does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import estimators
from ..simulator.scan import add_noise
from . import metrics
from .defendant import BrokenEstimate, Defendant
from .experiment import Plan, Record
from .store import Store

DRAWS = 1 << 18  # of the prior, in the oracle
BINS = 20
_TEXTS = ("estimator", "quantity", "prior", "unit")
_NUMBERS = ("snr", "n", "rmse", "rmse_oracle", "rmse_prior_mean", "rmse_least_squares", "ratio_oracle",
            "ratio_prior_mean", "ratio_least_squares", "coverage", "rank_distance")  # fmt: skip


def run(plan: Plan, defendants: Sequence[Defendant], store: Store) -> list[Record]:
    """Every estimator that declares a prior, over that prior and over the study's wrong one."""
    settings = plan.study.prior
    if not settings:
        return []
    records = []
    for defendant in defendants:
        declared = getattr(defendant.call, "prior", None)
        if declared is None:
            continue
        for snr in settings["snr"]:
            for which in ("declared", "wrong"):
                if which == "wrong" and "wrong" not in settings:
                    continue
                try:
                    records += _try(plan, defendant, declared, float(snr), which)
                except BrokenEstimate:
                    continue  # its cells have said so
    return records


def _try(plan: Plan, defendant: Defendant, declared: Any, snr: float, which: str) -> list[Record]:
    settings = plan.study.prior
    n = int(settings["n_quick" if plan.quick else "n"])
    few = min(n, int(settings.get("n_exact", 512)) // (4 if plan.quick else 1))
    rng = np.random.default_rng(plan.child("prior", which, snr))
    truth = declared.sample(n, rng) if which == "declared" else _uniform(settings["wrong"], n, rng)
    theta = {"S0": np.ones(n), **truth}
    clean = np.asarray(defendant.model.signal(theta, plan.protocol))
    scan = xr.DataArray(
        clean[None, None], plan.protocol.coords(), ("z", "y", "x", plan.protocol.encoding), "signal",
        {"units": "1", "signal_reference": 1.0, "protocol": plan.protocol.to_json()},
    )  # fmt: skip
    noise_sd = 1 / snr
    noisy = add_noise(scan, noise_sd=noise_sd, seed=int(plan.child("prior noise", which, snr).generate_state(1)[0]))
    found = defendant.estimate(noisy, noise_sd, {})
    plain = estimators.get("ivim")(noisy, sigma=noise_sd)
    draws = declared.sample(DRAWS, np.random.default_rng(plan.child("oracle", snr)))
    exact = posterior_means(defendant, plan, draws, noisy.values.reshape(n, -1)[:few], noise_sd)
    records = []
    for quantity in defendant.quantities:
        true = truth[quantity]
        x = found[quantity].values.ravel()
        errors = {
            "oracle": exact[quantity] - true[:few],
            "prior_mean": np.mean(draws[quantity]) - true,
            "least_squares": plain[quantity].values.ravel() - true,
        }
        rmse = {name: float(np.sqrt(np.nanmean(error**2))) for name, error in errors.items()}
        own = float(np.sqrt(np.nanmean((x - true) ** 2)))
        inside = (found[f"{quantity}_lo"].values.ravel() <= true) & (true <= found[f"{quantity}_hi"].values.ravel())
        ranks = _ranks(found, quantity, true, rng)
        ratio, se = _ratio((x - true)[:few], errors["oracle"])
        records.append({
            "estimator": defendant.name, "rung": "matched", "case": f"over the {which} prior", "quantity": quantity,
            "measurand": quantity, "prior": which, "snr": snr, "n": n, "unit": found[quantity].attrs.get("units", "1"),
            "nuisances": "known", "protocol": plan.protocol.name, "sigma": "given", "seed": noisy.attrs["seed"],
            "rmse": own, "coverage": float(inside.mean()), "rank_distance": metrics.uniform_evidence(ranks, (0, 1)).value,
            "ratio_oracle": ratio, "ratio_oracle_se": se, "rank_histogram": np.histogram(ranks, BINS, (0, 1))[0].tolist(),
            "ranks": ranks.tolist(), **{f"rmse_{name}": value for name, value in rmse.items()},
            "ratio_prior_mean": own / rmse["prior_mean"], "ratio_least_squares": own / rmse["least_squares"],
            "reason": "",
        })  # fmt: skip
    return records


def posterior_means(
    defendant: Defendant, plan: Plan, draws: Mapping[str, NDArray[np.float64]], data: NDArray[np.float64], sigma: float
) -> dict[str, NDArray[np.float64]]:
    """The exact posterior mean of each quantity by importance sampling from the prior, a flat S0 integrated out.

    With signal S0 g and Gaussian noise the integral over S0 leaves exp((y.g)^2 / (2 sigma^2 |g|^2)) / |g|.

    Parameters
    ----------
    draws : mapping
        Samples of the prior, (draw,) each.
    data : array, (voxel, point)
    sigma : float
        Noise SD.

    Returns
    -------
    dict of (voxel,) arrays
    """
    count = len(next(iter(draws.values())))
    shape = np.asarray(defendant.model.signal({"S0": np.ones(count), **draws}, plan.protocol))
    norm = np.sqrt(np.einsum("dp,dp->d", shape, shape))
    shape = shape / norm[:, None]
    found: dict[str, list[float]] = {name: [] for name in draws}
    for y in data:
        exponent = (shape @ y) ** 2 / (2 * sigma**2)
        weight = np.exp(exponent - exponent.max()) / norm
        weight /= weight.sum()
        for name in draws:
            found[name].append(float(weight @ draws[name]))
    return {name: np.array(values) for name, values in found.items()}


def dataset(records: Sequence[Record]) -> xr.Dataset:
    """The records as arrays over ``entry``."""
    data: dict[str, Any] = {name: ("entry", np.array([str(r[name]) for r in records], dtype=str)) for name in _TEXTS}
    data |= {name: ("entry", np.array([r[name] for r in records], float)) for name in _NUMBERS}
    histogram = np.array([r["rank_histogram"] for r in records], float).reshape(len(records), BINS)
    data["rank_histogram"] = (("entry", "bin"), histogram)
    return xr.Dataset(data)


def evidence(record: Record, kind: str, window: tuple[float, float]) -> metrics.Evidence:
    """The two p-values of a claim over a prior."""
    if kind == "rmse_to_exact":
        return metrics.log_evidence(record["ratio_oracle"], record["ratio_oracle_se"] / record["ratio_oracle"], window)
    if kind == "prior_coverage":
        return metrics.binomial_evidence(round(record["coverage"] * record["n"]), record["n"], window)
    if kind == "rank_calibration":
        return metrics.uniform_evidence(record["ranks"], window)
    return metrics.exact_evidence(record["ratio_prior_mean"], window)


def _ratio(own: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    """RMSE over RMSE on the same voxels, with the standard error of the paired ratio (delta method)."""
    a, b = own**2, exact**2
    ratio = float(np.sqrt(a.mean() / b.mean()))
    spread = np.std(a / a.mean() - b / b.mean()) / np.sqrt(len(a))
    return ratio, float(ratio * 0.5 * spread)


def _uniform(ranges: Mapping[str, Sequence[float]], n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    return {name: rng.uniform(low, high, n) for name, (low, high) in ranges.items()}


def _ranks(
    found: xr.Dataset, quantity: str, truth: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Where each truth lies in its posterior, 0 to 1: uniform over the prior if the posterior is right.

    Only some quantiles of the posterior are known, so a rank is drawn between the two that enclose the truth: ranks
    that are right stay uniform. Cook, Gelman and Rubin 2006, doi:10.1198/106186006X136976.
    """
    name = f"{quantity}_quantile"
    if name in found:
        level = np.asarray(found["level"].values, float)
        value = np.moveaxis(found[name].values, found[name].dims.index("level"), -1).reshape(truth.size, -1)
    else:
        level = np.array([0.025, 0.975])
        value = np.stack([found[f"{quantity}_lo"].values.ravel(), found[f"{quantity}_hi"].values.ravel()], axis=1)
    edges = np.concatenate([[0.0], level, [1.0]])
    at = np.sum(truth[:, None] > value, axis=1)
    return edges[at] + (edges[at + 1] - edges[at]) * rng.random(truth.size)
