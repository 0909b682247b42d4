"""The metrology itself: closed forms, the size and power of the verdicts, estimators that must fail."""

import numpy as np
import pytest
from scipy import stats

from bonemri.validation import metrics

INF = float("inf")


def normal_cell(rng, n=20000, mean=1.0, sd=0.1, claimed=0.1, bound=0.1, **more):
    x = rng.normal(mean, sd, n)
    return metrics.describe(x, truth=1.0, limit=1.0, bound=bound, sd=np.full(n, claimed), **more), x


def test_moments_are_the_textbook_ones():
    cell, x = normal_cell(np.random.default_rng(1), n=500)
    assert cell["mean"] == pytest.approx(x.mean(), rel=1e-14)
    assert cell["sd"] == pytest.approx(stats.tstd(x), rel=1e-12)
    assert cell["bias_se"] == pytest.approx(stats.sem(x), rel=1e-12)
    assert cell["rmse"] == pytest.approx(np.sqrt(np.mean((x - 1) ** 2)), rel=1e-12)
    assert cell["kurtosis"] == pytest.approx(stats.kurtosis(x, fisher=False), rel=1e-10)


def test_noise_bias_and_model_error_are_kept_apart():
    x = np.random.default_rng(2).normal(1.5, 0.1, 4000)
    cell = metrics.describe(x, truth=1.0, limit=1.4)
    assert cell["bias"] == pytest.approx(x.mean() - 1.4)
    assert cell["model_error"] == pytest.approx(0.4)
    assert cell["rmse"] == pytest.approx(np.sqrt(np.mean((x - 1.0) ** 2)))


def test_subjects_have_their_own_limit():
    # Each half of the replicates scatters about its own limit: the noise SD must not contain their distance.
    rng = np.random.default_rng(3)
    limit = np.repeat([1.0, 2.0], 2000)
    cell = metrics.describe(limit + rng.normal(0, 0.1, 4000), truth=1.2, limit=limit, bound=0.1)
    # chi-square band of four standard errors, sqrt(2/n)/2 each
    assert abs(cell["sd"] / 0.1 - 1) < 4 * np.sqrt(0.5 / 4000)
    assert cell["model_error"] == pytest.approx(0.3)


def test_standard_error_of_efficiency_is_the_theory_and_what_repeats_show():
    rng = np.random.default_rng(4)
    n, repeats = 1000, 400
    cells = [normal_cell(rng, n=n)[0] for _ in range(repeats)]
    seen = np.array([c["efficiency"] for c in cells])
    stated = np.mean([c["efficiency_se"] for c in cells])
    # sqrt(2/N) for normal estimates; the estimated kurtosis moves it by a few per cent at N = 1000
    assert stated == pytest.approx(np.sqrt(2 / n), rel=0.05)
    # the SD over repeats is itself known to sqrt(1/(2 repeats)) = 3.5 %: four of these
    assert seen.std(ddof=1) == pytest.approx(stated, rel=4 / np.sqrt(2 * repeats))


def test_heavy_tails_widen_the_standard_error_of_efficiency():
    rng = np.random.default_rng(5)
    n, repeats = 2000, 300
    draws = rng.laplace(1.0, 0.1, (repeats, n))  # kurtosis 6: relative SE sqrt(5/n), not sqrt(2/n)
    cells = [metrics.describe(x, truth=1.0, limit=1.0, bound=0.1) for x in draws]
    seen = np.std([c["efficiency"] for c in cells], ddof=1)
    assert np.mean([c["efficiency_se"] for c in cells]) == pytest.approx(seen, rel=0.2)


def test_coverage_counts_missing_answers_as_misses():
    x = np.full(100, 1.0)
    x[:25] = np.nan
    cell = metrics.describe(x, truth=1.0, limit=1.0, sd=np.ones(100), low=np.zeros(100), high=np.full(100, 2.0))
    assert cell["coverage_symmetric"] == cell["coverage_interval"] == 0.75
    assert cell["nan_rate"] == cell["flagged_rate"] == 0.25


def test_coverage_without_a_truth_is_that_of_the_limit():
    x = np.array([1.9, 2.1, 3.5])
    cell = metrics.describe(x, truth=np.nan, limit=2.0, sd=np.full(3, 0.1))
    assert cell["coverage_symmetric"] == pytest.approx(2 / 3)
    assert np.isnan(cell["model_error"])


@pytest.mark.parametrize(("bias", "at_bound"), [(0.03, 0.0), (0.0, 0.02)])
def test_efficiency_is_not_stated_beside_bias_or_bounds(bias, at_bound):
    rng = np.random.default_rng(6)
    mask = np.arange(20000) < at_bound * 20000
    cell, _ = normal_cell(rng, mean=1 + bias, at_bound=mask)
    assert np.isnan(cell["efficiency"]) and np.isfinite(cell["rmse_over_bound"])


def test_all_missing_is_described_without_a_warning():
    cell = metrics.describe(np.full(10, np.nan), truth=1.0, limit=np.nan, sd=np.full(10, np.nan))
    assert cell["nan_rate"] == 1 and np.isnan(cell["mean"]) and cell["coverage_symmetric"] == 0
    assert np.isnan(metrics.quantiles(np.full(10, np.nan))).all()


def test_binomial_evidence_is_the_exact_test():
    tried = metrics.binomial_evidence(930, 1000, (0.94, 1.0))
    assert tried.against == pytest.approx(stats.binomtest(930, 1000, 0.94, alternative="less").pvalue)
    assert tried.favour == pytest.approx(stats.binomtest(930, 1000, 0.94, alternative="greater").pvalue)


def test_two_one_sided_tests():
    tried = metrics.normal_evidence(0.1, 0.05, (-0.2, 0.2))
    assert tried.favour == pytest.approx(max(stats.norm.cdf(-2), stats.norm.cdf(-6)))
    assert tried.against == 1.0  # both ends can be missed: the smaller tail, doubled, capped
    out = metrics.normal_evidence(0.5, 0.05, (-0.2, 0.2))
    assert out.against == pytest.approx(2 * stats.norm.sf(6)) and out.favour > 0.99


def test_numbers_without_error_are_inside_or_not():
    assert metrics.exact_evidence(0.005, (-0.006, 0.006)).favour == 0
    assert metrics.exact_evidence(0.007, (-0.006, 0.006)).against == 0
    assert metrics.exact_evidence(float("nan"), (-1, 1)).against == 0


def test_uniform_ranks_hold_and_skewed_ranks_fail():
    rng = np.random.default_rng(7)
    good = metrics.uniform_evidence(rng.random(20000), (0, 0.03))
    bad = metrics.uniform_evidence(rng.random(20000) ** 1.3, (0, 0.03))
    assert good.value == pytest.approx(stats.kstest(np.random.default_rng(7).random(20000), "uniform").statistic)
    assert good.favour < 1e-6 and bad.against < 1e-6


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1, then the running maximum
    assert metrics.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert metrics.holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])


def test_holm_keeps_the_family_wise_level_at_the_boundary():
    """A whole table of claims that sit exactly on their boundary must rarely show a failure: at most 5 % of tables."""
    rng = np.random.default_rng(8)
    tables, rows, n = 2000, 40, 5000
    wrong = 0
    for counts in rng.binomial(n, 0.94, (tables, rows)):
        tried = [metrics.binomial_evidence(int(c), n, (0.94, 1.0)) for c in counts[:1]]
        p = stats.binom.cdf(counts, n, 0.94)
        assert tried[0].against == pytest.approx(p[0])
        wrong += (metrics.holm(p) < metrics.ALPHA).any()
    # three binomial standard errors above the level
    assert wrong / tables < 0.05 + 3 * np.sqrt(0.05 * 0.95 / tables)


def test_a_claim_on_its_boundary_is_rarely_called_true():
    rng = np.random.default_rng(9)
    n, repeats = 5000, 4000
    held = stats.binom.sf(rng.binomial(n, 0.94, repeats) - 1, n, 0.94) < metrics.ALPHA
    assert held.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


def test_verdicts_with_and_without_a_declared_failure():
    clear = metrics.normal_evidence(0.97, 0.005, (0.93, INF))
    missed = metrics.normal_evidence(0.60, 0.005, (0.93, INF))
    open_ = metrics.normal_evidence(0.935, 0.005, (0.93, INF))
    rows = [clear, missed, open_]
    assert metrics.verdicts(rows, ["holds"] * 3) == ["holds", "fails", "undecided"]
    assert metrics.verdicts(rows, ["fails"] * 3) == ["fails", "holds", "undecided"]
    assert metrics.overall(["holds", "undecided"]) == "undecided"
    assert metrics.overall(["fails", "undecided"]) == "fails"
    assert metrics.overall(["holds", "holds"]) == "holds"
    assert metrics.overall([]) == "undecided"


def test_combined_evidence_needs_both():
    good, bad = metrics.exact_evidence(0.0, (-1, 1)), metrics.exact_evidence(2.0, (-1, 1))
    assert metrics.combine(good, good).favour == 0
    assert metrics.combine(good, bad).against == 0 and metrics.combine(good, bad).favour == 1


def test_ratio_evidence_is_scale_free():
    tried = metrics.log_evidence(1.0, 0.02, (0.93, INF))
    again = metrics.log_evidence(2.0, 0.02, (1.86, INF))
    assert tried.favour == pytest.approx(again.favour) == pytest.approx(stats.norm.cdf(np.log(0.93) / 0.02))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_fits_decide_nothing(n):
    cell = metrics.describe(np.ones(n), truth=1.0, limit=1.0, bound=0.1)
    assert np.isnan(cell["efficiency"])
    assert metrics.log_evidence(cell["efficiency"], np.nan, (0.93, INF)).against == 1
