"""Agreement of a measurement with the truth, with itself, and between sites, in the words of quantitative imaging.

Raunig et al., Stat Methods Med Res 24:27 (2015), doi:10.1177/0962280214537344. Every number comes with its 95 %
interval: Student's t for lines and means, chi-square for standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

COVERAGE = 1.96 * np.sqrt(2)
"""Two measurements of one thing differ by less than so many SDs in 95 % of cases."""
TAIL = 0.975


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Line:
    """Estimate against truth: a least-squares line, the mean error, and the limits within which 95 % of errors lie."""

    slope: Interval
    intercept: Interval
    r2: float
    bias: Interval
    limits: tuple[float, float]


def line(truth: ArrayLike, estimate: ArrayLike) -> Line:
    """Linearity and bias of estimates.

    Parameters
    ----------
    truth, estimate : array, (case,)
        At least three, with two truths among them.
    """
    from scipy.stats import t

    x, y = np.asarray(truth, float).ravel(), np.asarray(estimate, float).ravel()
    n, centre = x.size, x.mean()
    spread = float(np.sum((x - centre) ** 2))
    slope = float(np.sum((x - centre) * (y - y.mean())) / spread)
    intercept = float(y.mean() - slope * centre)
    rest = y - intercept - slope * x
    sd = float(np.sqrt(np.sum(rest**2) / (n - 2)))
    half = float(t.ppf(TAIL, n - 2)) * sd
    error = y - x
    around, own = float(error.mean()), float(error.std(ddof=1))
    mean_half = float(t.ppf(TAIL, n - 1)) * own / np.sqrt(n)
    return Line(
        slope=_around(slope, half / np.sqrt(spread)),
        intercept=_around(intercept, half * np.sqrt(1 / n + centre**2 / spread)),
        r2=1 - float(np.sum(rest**2) / np.sum((y - y.mean()) ** 2)),
        bias=_around(around, mean_half),
        limits=(around - 1.96 * own, around + 1.96 * own),
    )


def repeatability(values: ArrayLike) -> Interval:
    """Repeatability coefficient 1.96 sqrt(2) wSD: same site, same case, measured again.

    Parameters
    ----------
    values : array, (case, repeat)
    """
    x = np.asarray(values, float)
    freedom = x.shape[0] * (x.shape[1] - 1)
    variance = float(x.var(axis=1, ddof=1).mean())
    return _coefficient(variance, freedom)


def reproducibility(values: ArrayLike) -> Interval:
    """Reproducibility coefficient: same case, at another site.

    The variance is that between sites and within; what a site does wrong it does in all cases, so that the part
    between sites has as many degrees of freedom as there are sites, less one (Satterthwaite's for the sum).

    Parameters
    ----------
    values : array, (case, site, repeat)
    """
    x = np.asarray(values, float)
    _, sites, repeats = x.shape
    within = float(x.var(axis=2, ddof=1).mean())
    between = float(x.mean(axis=2).var(axis=1, ddof=1).mean())  # of the means of the repeats
    parts = ((between, sites - 1), ((1 - 1 / repeats) * within, x.shape[0] * sites * (repeats - 1)))
    variance = sum(size for size, _ in parts)
    freedom = variance**2 / sum(size**2 / n for size, n in parts)
    return _coefficient(variance, freedom)


def _coefficient(variance: float, freedom: float) -> Interval:
    from scipy.stats import chi2

    low, high = (np.sqrt(freedom / chi2.ppf(p, freedom)) for p in (TAIL, 1 - TAIL))
    value = COVERAGE * float(np.sqrt(variance))
    return Interval(value, float(value * low), float(value * high))


def _around(value: float, half: float) -> Interval:
    return Interval(float(value), float(value - half), float(value + half))


def auc(score: ArrayLike, ill: ArrayLike) -> Interval:
    """Area under the ROC curve with an interval on the logit scale.

    The variance is DeLong's (Biometrics 44:837 (1988), doi:10.2307/2531595); the interval is laid about the logit of
    the area, whose error is near normal up to areas of 1, which a plain one overshoots (Pepe, The Statistical
    Evaluation of Medical Tests, 2003, ch. 5). Ties count one half. Of groups that do not overlap at all, half a person
    of the smaller one is taken to be among the others, with Hanley and McNeil's variance (Radiology 143:29 (1982),
    doi:10.1148/radiology.143.1.7063747).

    Parameters
    ----------
    score : array, (person,)
        Higher means more probably ill.
    ill : bool array, (person,)
    """
    s, positive = np.asarray(score, float), np.asarray(ill, bool)
    wins = _wins(s[positive], s[~positive])
    value = float(wins.mean())
    m, n = wins.shape
    variance = wins.mean(axis=1).var(ddof=1) / m + wins.mean(axis=0).var(ddof=1) / n
    area = value
    if not variance > 0:
        least = 0.5 / min(m, n)
        area = min(max(value, least), 1 - least)
        well, sick = area / (2 - area), 2 * area**2 / (1 + area)
        pairs = area * (1 - area) + (m - 1) * (well - area**2) + (n - 1) * (sick - area**2)
        variance = pairs / (m * n)
    middle, half = np.log(area / (1 - area)), 1.96 * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-(middle + way * half)))) for way in (-1, 1))
    return Interval(value, min(low, value), max(high, value))


def _wins(ill: NDArray[np.float64], well: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((ill[:, None] > well) + 0.5 * (ill[:, None] == well), float)


def roc(score: ArrayLike, ill: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates at every threshold, from strict to lax."""
    s, positive = np.asarray(score, float), np.asarray(ill, bool)
    order = np.argsort(-s, kind="stable")
    s, hit = s[order], positive[order]
    last = np.append(s[1:] != s[:-1], True)  # people of one score pass together
    true, false = np.cumsum(hit)[last] / hit.sum(), np.cumsum(~hit)[last] / (~hit).sum()
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])
