"""Bias, spread, efficiency and coverage with their Monte Carlo errors, and the verdict on a claim.

Three values stand behind every number here (truth, limit, mean): noise bias is mean - limit, model error is
limit - truth, and the two are never added. The standard errors are those of Monte Carlo theory (Morris 2019,
doi:10.1002/sim.8086).

The verdict. A claim is a window for one number (an efficiency of at least .93, a coverage between .94 and .96).
Each row of the table gives two p-values: against the claim (the number lies outside the window) and for it (the
number lies inside, by two one-sided tests, Schuirmann 1987, doi:10.1007/BF01068419).

* *fails*: the claim's boundary is excluded at the family-wise level .05, Holm's correction over all rows of the table
  (Holm 1979, Scand J Stat 6:65). A claim that sits on its boundary is called wrong in at most 5 % of whole tables.
* *holds*: violation is excluded at the level .05 in this row. A claim holds over its domain when all of its rows
  hold, which is the intersection-union test and needs no correction (Berger 1982, doi:10.1080/00401706.1982.10487790).
* *undecided*: neither. More replicates, or a claim with some room, would decide.

A declared failure exchanges the two p-values: it holds where the window is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
LEVELS = (0.025, 0.05, 0.16, 0.25, 0.5, 0.75, 0.84, 0.95, 0.975)
# An efficiency means something only where bias and bounds play no part (the contract of the measurands).
MOST_BIAS = 0.25
MOST_AT_BOUND = 0.01
MOST_WITHOUT_ANSWER = 0.01
# Variance over the bound's below which fits do not scatter at all: a grid or a bound holds them, and a ratio is empty.
LEAST_VARIANCE = 1e-6
# The normal quantile of a 95 % interval.
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Evidence:
    """What one row says about a claim.

    Attributes
    ----------
    value, se : float
        The number tried and its standard error.
    against : float
        p-value of "the number lies inside the window": small when the claim's boundary is excluded.
    favour : float
        p-value of "the number lies outside the window": small when violation is excluded.
    note : str
        Why there was nothing to try, or what else should be known.
    """

    value: float
    se: float
    against: float
    favour: float
    note: str = ""


def describe(
    values: ArrayLike,
    *,
    truth: ArrayLike,
    limit: ArrayLike,
    bound: float = np.nan,
    sd: ArrayLike | None = None,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    flagged: ArrayLike | None = None,
    at_bound: ArrayLike | None = None,
) -> dict[str, float]:
    """Summarise the replicates of one quantity in one cell.

    Parameters
    ----------
    values : array, shape (n,)
        The estimates. NaN counts as a fit without an answer: it is left out of moments, reported as ``nan_rate``,
        and its interval does not cover.
    truth : float or array, shape (n,)
        The protocol-free truth; NaN where none exists, and then coverage is that of the limit. One per replicate
        where subjects differ in it (an apparent fraction does, with the relaxation times).
    limit : float or array, shape (n,)
        The noise-free estimate: one, or one per replicate where subjects differ in their nuisances.
    bound : float
        Cramer-Rao bound as a standard deviation.
    sd : array, shape (n,), optional
        The claimed standard deviation.
    low, high : array, shape (m,), optional
        The ends of the claimed 95 % interval, of the first m replicates: intervals may cost many times the fit.
    flagged, at_bound : bool array, shape (n,), optional
        Fits with a status, and fits at a bound.

    Returns
    -------
    dict
        Means, standard errors and rates; ``coverage_symmetric`` is that of x +- 1.96 x_sd, ``coverage_interval`` that
        of x_lo to x_hi; NaN where the estimator gives none.
    """
    x = np.asarray(values, float)
    n = x.size
    reference = np.broadcast_to(np.asarray(limit, float), x.shape)
    true = np.broadcast_to(np.asarray(truth, float), x.shape)
    target = np.where(np.isfinite(true), true, reference)
    answered = np.isfinite(x)
    # On the first axis lies the error against each replicate's own limit: subjects may differ.
    error = (x - reference)[answered & np.isfinite(reference)]
    k = error.size
    bias = error.mean() if k else np.nan
    variance = error.var(ddof=1) if k > 1 else np.nan
    sd_of_estimates = float(np.sqrt(variance))
    fourth = kurtosis(error)
    squares = (x[answered] - target[answered]) ** 2
    rmse = float(np.sqrt(squares.mean())) if answered.any() else np.nan
    noise_rmse = float(np.sqrt(np.mean(error**2))) if k else np.nan
    noise_rmse_se = float(np.std(error**2) / np.sqrt(k) / (2 * noise_rmse)) if k and noise_rmse > 0 else 0.0
    bound_rate = _rate(at_bound, n)
    # A fit without an answer is a flagged one, whatever its status says.
    flags = ~answered if flagged is None else np.asarray(flagged, bool) | ~answered
    scatters = np.isfinite(bound) and variance > LEAST_VARIANCE * bound**2
    efficiency = float(bound**2 / variance) if scatters else np.nan
    stated = abs(bias) < MOST_BIAS * sd_of_estimates and bound_rate < MOST_AT_BOUND
    summary = {
        "n": n,
        "truth": float(np.mean(true)) if n else np.nan,
        "limit": float(np.mean(reference)) if n else np.nan,
        "limit_sd": float(np.std(reference)) if n else np.nan,
        "mean": float(x[answered].mean()) if answered.any() else np.nan,
        "bias": float(bias),
        "bias_se": sd_of_estimates / np.sqrt(k) if k else np.nan,
        "sd": sd_of_estimates,
        "kurtosis": fourth,
        "rmse": rmse,
        "crb": float(bound),
        "efficiency": efficiency if stated else np.nan,
        "efficiency_se": efficiency_se(efficiency, fourth, k) if stated else np.nan,
        "rmse_over_bound": noise_rmse / bound if np.isfinite(bound) and bound > 0 else np.nan,
        "rmse_over_bound_se": noise_rmse_se / bound if np.isfinite(bound) and bound > 0 else np.nan,
        "nan_rate": 1.0 - answered.mean() if n else np.nan,
        "flagged_rate": float(flags.mean()) if n else np.nan,
        "at_bound_rate": bound_rate,
        "model_error": float(np.mean(reference - true)) if n else np.nan,
        "model_error_sd": float(np.std(reference - true)) if n else np.nan,
        "mean_sd": np.nan,
        "coverage_symmetric": np.nan,
        "coverage_interval": np.nan,
        "n_intervals": 0,
    }
    if sd is not None:
        claimed = np.asarray(sd, float)
        finite = np.isfinite(claimed) & answered
        summary["mean_sd"] = float(np.sqrt(np.mean(claimed[finite] ** 2))) if finite.any() else np.nan
        summary["coverage_symmetric"] = float(np.mean(np.abs(x - target) <= NORMAL_95 * claimed))
    if low is not None and high is not None:
        m = np.size(low)
        inside = (np.asarray(low, float) <= target[:m]) & (target[:m] <= np.asarray(high, float))
        summary["coverage_interval"] = float(np.mean(inside & answered[:m])) if m else np.nan
        summary["n_intervals"] = m
    return {name: value if isinstance(value, int) else float(value) for name, value in summary.items()}


def quantiles(values: ArrayLike) -> NDArray[np.float64]:
    """Quantiles of the answered fits at ``LEVELS``; NaN where nothing was answered."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    return np.quantile(x, LEVELS) if x.size else np.full(len(LEVELS), np.nan)


def kurtosis(errors: NDArray[np.float64]) -> float:
    """Fourth standardised moment (3 for a normal distribution)."""
    if errors.size < 4 or (variance := errors.var()) == 0:
        return np.nan
    return float(np.mean((errors - errors.mean()) ** 4) / variance**2)


def efficiency_se(efficiency: float, fourth: float, n: int) -> float:
    """Standard error of bound variance / observed variance.

    The relative variance of a sample variance is (kurtosis - 1)/n, so the relative error is sqrt(2/n) for normal
    estimates and larger for heavy tails.
    """
    return float(efficiency * np.sqrt((fourth - 1) / n)) if n > 1 and np.isfinite(fourth) else np.nan


def coverage_se(coverage: float, n: float) -> float:
    """Standard error of a rate: sqrt(p (1 - p)/n)."""
    return float(np.sqrt(coverage * (1 - coverage) / n)) if n > 0 else np.nan


def _rate(mask: ArrayLike | None, n: int) -> float:
    return float(np.mean(np.asarray(mask, bool))) if mask is not None and n else 0.0


# ---------------------------------------------------------------------------------------------------------------------
# evidence: two p-values for a window


def exact_evidence(value: float, window: tuple[float, float]) -> Evidence:
    """A number without Monte Carlo error is inside its window or it is not. NaN is not."""
    inside = bool(window[0] <= value <= window[1])
    return Evidence(float(value), 0.0, 1.0 if inside else 0.0, 0.0 if inside else 1.0)


def normal_evidence(value: float, se: float, window: tuple[float, float]) -> Evidence:
    """One-sided z tests at both ends of the window."""
    from scipy.special import ndtr

    if not (np.isfinite(value) and np.isfinite(se)):
        return Evidence(value, se, 1.0, 1.0, "no number to try")
    if se == 0:
        return exact_evidence(value, window)
    below, above = float(ndtr((value - window[0]) / se)), float(ndtr((window[1] - value) / se))
    over_low, under_high = float(ndtr((window[0] - value) / se)), float(ndtr((value - window[1]) / se))
    return Evidence(float(value), float(se), _either(below, above, window), max(over_low, under_high))


def log_evidence(value: float, relative_se: float, window: tuple[float, float]) -> Evidence:
    """z tests on the logarithm: for ratios of variances, whose sampling error is proportional to their size."""
    if not (value > 0 and np.isfinite(value) and np.isfinite(relative_se)):
        return Evidence(value, np.nan, 1.0, 1.0, "no number to try")
    edges = tuple(float(np.log(edge)) if edge > 0 else -np.inf for edge in window)
    tried = normal_evidence(float(np.log(value)), relative_se, (edges[0], edges[1]))
    return Evidence(float(value), float(value * relative_se), tried.against, tried.favour)


def binomial_evidence(count: int, n: int, window: tuple[float, float]) -> Evidence:
    """Exact one-sided binomial tests at both ends of the window, for rates (coverage, flags)."""
    from scipy.stats import binom

    if n == 0:
        return Evidence(np.nan, np.nan, 1.0, 1.0, "no fits to count")
    low, high = window
    below = float(binom.cdf(count, n, low)) if low > 0 else 1.0
    above = float(binom.sf(count - 1, n, high)) if high < 1 else 1.0
    over_low = float(binom.sf(count - 1, n, low)) if low > 0 else 0.0
    under_high = float(binom.cdf(count, n, high)) if high < 1 else 0.0
    rate = count / n
    return Evidence(rate, coverage_se(rate, n), _either(below, above, window, 0.0, 1.0), max(over_low, under_high))


def uniform_evidence(ranks: ArrayLike, window: tuple[float, float]) -> Evidence:
    """How far ranks in 0..1 are from uniform: the Kolmogorov distance, tried against the window's upper end.

    Both p-values are the Dvoretzky-Kiefer-Wolfowitz bound with Massart's constant (Massart 1990,
    doi:10.1214/aop/1176990746), which holds for every n.
    """
    u = np.sort(np.asarray(ranks, float))
    n = u.size
    if n == 0 or not np.isfinite(u).all():
        return Evidence(np.nan, np.nan, 0.0, 1.0, "ranks are missing")
    steps = np.arange(n + 1) / n
    distance = float(max(np.max(steps[1:] - u), np.max(u - steps[:-1])))
    bound = min(1.0, 2 * float(np.exp(-2 * n * (distance - window[1]) ** 2)))
    inside = distance <= window[1]
    return Evidence(distance, 0.5 / np.sqrt(n), 1.0 if inside else bound, bound if inside else 1.0)


def _either(
    below: float, above: float, window: tuple[float, float], least: float = -np.inf, most: float = np.inf
) -> float:
    """p-value against a window from those against its ends: doubled when both ends can be missed."""
    ends = (window[0] > least) + (window[1] < most)
    return min(1.0, max(ends, 1) * min(below, above))


# ---------------------------------------------------------------------------------------------------------------------
# verdicts


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values: family-wise error control whatever the dependence between rows."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def verdicts(evidence: list[Evidence], expected: list[str], alpha: float = ALPHA) -> list[str]:
    """One verdict per row of a table, by the rule at the head of this file.

    Parameters
    ----------
    evidence : list of Evidence
        One per row, over the whole table: the correction depends on how many there are.
    expected : list of str
        "holds", or "fails" for a declared failure.
    """
    turned = [name == "fails" for name in expected]
    against = holm([e.favour if turn else e.against for e, turn in zip(evidence, turned, strict=True)])
    favour = [e.against if turn else e.favour for e, turn in zip(evidence, turned, strict=True)]
    return [
        "fails" if a < alpha else "holds" if f < alpha else "undecided" for a, f in zip(against, favour, strict=True)
    ]


def overall(rows: list[str]) -> str:
    """The verdict over a domain: it fails where one row fails and holds where all rows hold."""
    if not rows or ("undecided" in rows and "fails" not in rows):
        return "undecided"
    return "fails" if "fails" in rows else "holds"


def combine(first: Evidence, second: Evidence) -> Evidence:
    """Evidence for a claim that needs two things at once: the first's number, both conditions."""
    against = min(1.0, 2 * min(first.against, second.against))
    note = "; ".join(text for text in (first.note, second.note) if text)
    return Evidence(first.value, first.se, against, max(first.favour, second.favour), note)


def as_dict(evidence: Evidence) -> dict[str, Any]:
    """Plain numbers, for the cache of a run that is resumed."""
    return dict(vars(evidence))
