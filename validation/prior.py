"""Bayesian estimators over a prior: against the exact posterior mean, the prior mean, and least squares.

A posterior mean is right on average only over its own prior, so its error is compared with what is exactly possible
there (the posterior mean by importance sampling, our oracle), and a gain is always shown beside that of the prior mean,
which looks at no data at all. Truths drawn from another range show what a wrong prior does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import estimators
from ..simulator import threads
from ..simulator.scan import add_noise
from . import metrics
from .defendant import BrokenEstimate, Defendant
from .experiment import Plan, Record
from .store import Store

DRAWS = 1 << 14  # of the prior, in the oracle: they only find the posterior
ROUND = 1 << 12  # of the proposal round it: the Monte Carlo error is below one per cent of the RMSE
ROUNDS, WIDER, DEFENSIVE = 4, 2.0, 0.1
BINS = 20
LEVELS = tuple(np.arange(0.05, 1.0, 0.05).round(2))  # probabilities between which a rank is known
_TEXTS = ("study", "estimator", "quantity", "prior", "unit")
_NUMBERS = ("snr", "n", "rmse", "rmse_oracle", "rmse_prior_mean", "rmse_least_squares", "ratio_oracle",
            "ratio_prior_mean", "ratio_least_squares", "coverage", "rank_distance")  # fmt: skip


def run(plan: Plan, defendants: Sequence[Defendant], store: Store) -> list[Record]:
    """Every estimator that declares a prior, over that prior and over the study's wrong one."""
    settings = plan.study.prior
    if not settings:
        return []
    records = []
    for defendant in defendants:
        declared = _declared(defendant)
        if declared is None:
            continue
        for snr in settings["snr"]:
            for which in ("declared", "wrong"):
                if which == "wrong" and "wrong" not in settings:
                    continue
                key = store.key(defendant, f"{which} prior, SNR {snr}", plan)
                found = store.load(key)
                if found is None:
                    try:
                        found = _try(plan, defendant, declared, float(snr), which)
                    except BrokenEstimate:
                        continue  # its cells have said so
                    store.save(key, found)
                records += found
    return records


def _declared(defendant: Defendant) -> Any:
    """The prior of an estimator: its own `prior`, else the `PRIOR` of the module that holds its core."""
    own = getattr(defendant.call, "prior", None)
    core = getattr(defendant.call, "core", None)
    if own is None and core is not None:
        own = getattr(sys.modules.get(core.__module__), "PRIOR", None)
    return own


def _sample(declared: Mapping[str, Any], n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Draws of the prior: each unknown is a function of a standard normal number."""
    return {name: np.asarray(one.natural(rng.standard_normal(n))) for name, one in declared.items()}


def _mean(one: Any) -> float:
    """Mean of a prior, by Gauss-Hermite quadrature."""
    z, weight = np.polynomial.hermite_e.hermegauss(60)
    return float(weight @ one.natural(z) / weight.sum())


def _try(plan: Plan, defendant: Defendant, declared: Any, snr: float, which: str) -> list[Record]:
    settings = plan.study.prior
    n = int(settings["n_quick" if plan.quick else "n"]) // (1 if which == "declared" else 8)
    few = min(n // 8, int(settings.get("n_exact", 256)))  # of a wrong prior nothing is claimed against the oracle
    few = few if which == "declared" else max(few // 4, 8)
    rng = np.random.default_rng(plan.child("prior", which, snr))
    truth = _sample(declared, n, rng) if which == "declared" else _uniform(settings["wrong"], n, rng)
    theta = {"S0": np.ones(n), **truth}
    clean = np.asarray(defendant.model.signal(theta, plan.protocol))
    scan = xr.DataArray(
        clean[None, None], plan.protocol.coords(), ("z", "y", "x", plan.protocol.encoding), "signal",
        {"units": "1", "signal_reference": 1.0, "protocol": plan.protocol.to_json()},
    )  # fmt: skip
    noise_sd = 1 / snr
    noisy = add_noise(scan, noise_sd=noise_sd, seed=int(plan.child("prior noise", which, snr).generate_state(1)[0]))
    image = noisy.attrs["image_sd"]
    found = defendant.estimate(noisy, image, {"levels": LEVELS})  # where it can tell more than the interval
    plain = estimators.get("ivim")(noisy, sigma=image)
    measured = noisy.values.reshape(n, -1)[:few]
    exact = posterior_means(defendant, plan, declared, measured, image, plan.child("oracle", which, snr))
    records = []
    for quantity in truth:
        true = truth[quantity]
        x = found[quantity].values.ravel()
        errors = {
            "oracle": exact[quantity] - true[:few],
            "prior_mean": _mean(declared[quantity]) - true,
            "least_squares": plain[quantity].values.ravel() - true,
        }
        rmse = {name: float(np.sqrt(np.nanmean(error**2))) for name, error in errors.items()}
        own = float(np.sqrt(np.nanmean((x - true) ** 2)))
        inside = (found[f"{quantity}_lo"].values.ravel() <= true) & (true <= found[f"{quantity}_hi"].values.ravel())
        ranks = _ranks(found, quantity, true, rng)
        ratio, se = _ratio((x - true)[:few], errors["oracle"])
        records.append({
            "study": plan.study.name, "estimator": defendant.name, "rung": "matched",
            "case": f"over the {which} prior", "quantity": quantity, "measurand": quantity, "prior": which,
            "snr": snr, "n": n, "unit": found[quantity].attrs.get("units", "1"),
            "nuisances": "known", "protocol": plan.protocol.name, "sigma": "given", "seed": noisy.attrs["seed"],
            "rmse": own, "coverage": float(inside.mean()), "ratio_oracle": ratio, "ratio_oracle_se": se,
            "rank_distance": metrics.uniform_evidence(ranks, (0, 1)).value,
            "rank_histogram": np.histogram(ranks, BINS, (0, 1))[0].tolist(),
            "ranks": ranks.tolist(), **{f"rmse_{name}": value for name, value in rmse.items()},
            "ratio_prior_mean": own / rmse["prior_mean"], "ratio_least_squares": own / rmse["least_squares"],
            "reason": "",
        })  # fmt: skip
    return records


def posterior_means(
    defendant: Defendant,
    plan: Plan,
    declared: Mapping[str, Any],
    data: NDArray[np.float64],
    sigma: float,
    seed: np.random.SeedSequence,
) -> dict[str, NDArray[np.float64]]:
    """The exact posterior mean of each quantity by importance sampling, a flat S0 integrated out.

    Draws of the prior find where the posterior is; a wide normal round it, mixed with the prior so that no region is
    left out (Hesterberg 1995, doi:10.1080/00401706.1995.10484303), gives the mean. Nothing is shared with the
    estimator but its declared prior.

    Parameters
    ----------
    declared : mapping
        Prior of each unknown as a function of a standard normal number.
    data : array, (voxel, point)
    sigma : float
        Noise SD.

    Returns
    -------
    dict of (voxel,) arrays
    """
    names = list(declared)
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((DRAWS, len(names)))
    profile = _profile(defendant, plan, declared, first)
    fresh, choice = rng.standard_normal((ROUND, len(names))), rng.random(ROUND) < DEFENSIVE

    def one(y: NDArray[np.float64]) -> list[float]:
        centre, spread = _moments(first, _weights(_tempered(_log_likelihood(y, sigma, *profile))))
        for _ in range(ROUNDS):
            root = np.linalg.cholesky(WIDER * spread + 1e-9 * np.eye(len(names)))
            z = np.where(choice[:, None], fresh, centre + fresh @ root.T)
            inside = np.linalg.solve(root, (z - centre).T)
            log_normal = -0.5 * np.sum(inside**2, axis=0) - np.log(np.diag(root)).sum()
            log_prior = -0.5 * np.sum(z**2, axis=1)
            proposal = np.logaddexp(np.log(1 - DEFENSIVE) + log_normal, np.log(DEFENSIVE) + log_prior)
            ratio = _log_likelihood(y, sigma, *_profile(defendant, plan, declared, z)) + log_prior - proposal
            centre, spread = _moments(z, _weights(_tempered(ratio)))
        weight = _weights(ratio)
        return [float(weight @ declared[name].natural(z[:, i])) for i, name in enumerate(names)]

    with ThreadPoolExecutor(threads.count()) as pool:
        found = np.array(list(pool.map(one, data)))
    return {name: found[:, i] for i, name in enumerate(names)}


def _profile(
    defendant: Defendant, plan: Plan, declared: Mapping[str, Any], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Signals of unit length, (draw, point), and the length that they had for S0 = 1."""
    theta = {name: one.natural(z[:, i]) for i, (name, one) in enumerate(declared.items())}
    shape = np.asarray(defendant.model.signal({"S0": np.ones(len(z)), **theta}, plan.protocol))
    length = np.sqrt(np.einsum("dp,dp->d", shape, shape))
    return shape / length[:, None], length


def _log_likelihood(
    y: NDArray[np.float64], sigma: float, shape: NDArray[np.float64], length: NDArray[np.float64]
) -> NDArray[np.float64]:
    """With signal S0 g and Gaussian noise, the integral over S0 leaves exp((y.g)^2 / (2 sigma^2 |g|^2)) / |g|."""
    return np.asarray((shape @ y) ** 2 / (2 * sigma**2) - np.log(length))


def _tempered(log_weight: NDArray[np.float64], enough: float = 100.0) -> NDArray[np.float64]:
    """Flattened until enough draws count: where the posterior is narrow its place is found in steps."""
    while 1 / np.sum(_weights(log_weight) ** 2) < enough:
        log_weight = 0.5 * log_weight
    return log_weight


def _weights(log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _moments(z: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centre = weight @ z
    return centre, (z - centre).T @ ((z - centre) * weight[:, None])


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
