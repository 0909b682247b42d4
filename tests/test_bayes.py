"""`ivim-bayes` against an oracle that shares nothing with it, and its calibration over its own prior."""

import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

from bonemri import estimators
from bonemri.errors import InputError
from bonemri.estimators import Status
from bonemri.estimators.perfusion.bayes import PRIOR, UNKNOWNS, Prior
from bonemri.simulator import equations

B = np.array([0.0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800])
IVIM = equations.get("ivim")


def from_prior(n, seed):
    """Draws from the declared prior, typed from its ranges: log-normal D and D*, logit-normal f."""
    rng = np.random.default_rng(seed)
    draws = {}
    for name in UNKNOWNS:
        prior = PRIOR[name]
        scale = special.logit if prior.fraction else np.log
        low, high = scale(prior.low), scale(prior.high)
        z = rng.normal((low + high) / 2, (high - low) / (2 * stats.norm.ppf(0.975)), n)
        draws[name] = special.expit(z) if prior.fraction else np.exp(z)
    return draws


def noisy(theta, snr, seed):
    signal = IVIM.signal({"S0": 1.0, **theta}, {"b": B})
    return signal + np.random.default_rng(seed).normal(0.0, 1.0 / snr, signal.shape)


def estimate(data, snr=None, **options):
    scan = xr.DataArray(np.abs(data), dims=("x", "b"), coords={"b": B})
    return estimators.ivim_bayes(scan, sigma=None if snr is None else 1 / snr, **options)


def test_against_plain_importance_sampling():
    """Posterior mean, SD and interval from 400 000 draws of the prior, weighted by the likelihood with S0 integrated.

    At SNR 20 some thousands of the draws count. Mean: four Monte Carlo errors of oracle and of estimator (its own
    samples are quasi-random: less than 1/sqrt(500) of an SD).
    """
    snr, n = 20, 12
    data = np.abs(noisy(from_prior(n, 1), snr, 2))
    maps = estimate(data, snr, intervals=True)
    draws = from_prior(400_000, 3)
    f, fast, slow = (draws[k][:, None] for k in UNKNOWNS)
    shape = f * np.exp(-B * fast) + (1 - f) * np.exp(-B * slow)
    power = (shape**2).sum(axis=1)
    for v, y in enumerate(data):
        along = shape @ y
        log_weight = 0.5 * along**2 / power * snr**2 - 0.5 * np.log(power)  # flat prior of S0, integrated
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        effective = 1 / (weight**2).sum()
        assert effective > 300
        slack = 4 * (1 / np.sqrt(effective) + 1 / np.sqrt(500))
        for name in UNKNOWNS:
            x = draws[name]
            mean = weight @ x
            sd = np.sqrt(weight @ (x - mean) ** 2)
            assert abs(float(maps[name][v]) - mean) < slack * sd, name
            assert float(maps[f"{name}_sd"][v]) == pytest.approx(sd, rel=slack), name
            for end, q in (("lo", 0.025), ("hi", 0.975)):
                below = weight[x <= float(maps[f"{name}_{end}"][v])].sum()
                # a probability of .025 is known to sqrt(.025 / n) by each
                assert abs(below - q) < 4 * np.sqrt(0.025) * (1 / np.sqrt(effective) + 1 / np.sqrt(500)), name
        S0 = along / power
        mean = weight @ S0
        sd = np.sqrt(weight @ ((S0 - mean) ** 2 + 1 / (snr**2 * power)))
        assert abs(float(maps.S0[v]) - mean) < slack * sd and float(maps.S0_sd[v]) == pytest.approx(sd, rel=slack)


@pytest.fixture(scope="module", params=[20, 100])
def calibrated(request):
    """Truths from the prior, their data, and the estimate with intervals."""
    truth = from_prior(3000, 4)
    return truth, estimate(noisy(truth, request.param, 5), request.param, intervals=True)


def test_intervals_cover_over_the_prior(calibrated):
    """95 % within a percent and three binomial SDs; abs() of the data is all that departs from the model."""
    truth, maps = calibrated
    n = len(truth["f"])
    for name in UNKNOWNS:
        covered = np.mean((maps[f"{name}_lo"] <= truth[name]) & (truth[name] <= maps[f"{name}_hi"]))
        assert abs(covered - 0.95) < 0.01 + 3 * np.sqrt(0.95 * 0.05 / n), name


def test_mean_and_sd_are_those_of_the_errors(calibrated):
    """Over the prior a posterior mean has no bias, and its squared error is the posterior variance on average."""
    truth, maps = calibrated
    n = len(truth["f"])
    for name in UNKNOWNS:
        error = maps[name].values - truth[name]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(n), name
        surplus = error**2 - maps[f"{name}_sd"].values ** 2
        assert abs(surplus.mean()) < 4 * surplus.std() / np.sqrt(n), name


def test_ranks_are_uniform():
    """The truth's place among the quantiles of its posterior, over the prior: even by Kolmogorov and Smirnov.

    Their distance is exceeded once in a thousand at 1.95/sqrt(n); the nineteen levels see a little less of it.
    """
    snr, n = 30, 3000
    truth = from_prior(n, 6)
    levels = tuple(np.arange(1, 20) / 20)
    maps = estimate(noisy(truth, snr, 7), snr, levels=levels)
    for name in UNKNOWNS:
        quantiles = maps[f"{name}_quantile"].values
        assert quantiles.shape == (n, 19) and (np.diff(quantiles, axis=1) > 0).all()
        below = np.mean(truth[name][:, None] <= quantiles, axis=0)
        assert abs(below - levels).max() < 1.95 / np.sqrt(n), name


def test_prior_share():
    """Near 1 where the data say nothing, near 0 where they decide; over the prior, the ratio of variances it claims."""
    truth = from_prior(200, 8)
    lost = estimate(noisy(truth, 0.02, 9), 0.02)
    sharp = estimate(noisy(truth, 5000, 10), 5000)
    for name in UNKNOWNS:
        # with the scale free, even noise alone prefers some shapes to others: a quarter of the variance is its to take
        assert 0.75 < float(lost[f"{name}_prior_share"].median()) < 1.1, name
        assert float(sharp[f"{name}_prior_share"].median()) < 0.02, name
        mean, variance = PRIOR[name].moments()
        assert float(lost[name].median()) == pytest.approx(mean, abs=0.3 * np.sqrt(variance)), name
    assert ((lost.status & Status.NOT_IDENTIFIABLE) > 0).all()
    assert not ((sharp.status & Status.NOT_IDENTIFIABLE) > 0).any()


def test_where_the_data_decide_it_is_the_least_squares_fit():
    truth = {"f": np.array([0.2]), "D_star": np.array([0.03]), "D": np.array([0.6e-3])}
    data = noisy(truth, 5000, 11)
    scan = xr.DataArray(data, dims=("x", "b"), coords={"b": B})
    bayes, plain = estimate(data, 5000), estimators.ivim(scan, sigma=1 / 5000)
    for name in UNKNOWNS:
        assert abs(float(bayes[name][0] - plain[name][0])) < 0.1 * float(plain[f"{name}_sd"][0])
        assert float(bayes[f"{name}_sd"][0]) == pytest.approx(float(plain[f"{name}_sd"][0]), rel=0.1)


def test_squared_error_is_below_that_of_least_squares_over_the_prior():
    truth = from_prior(1500, 12)
    data = noisy(truth, 30, 13)
    scan = xr.DataArray(np.abs(data), dims=("x", "b"), coords={"b": B})
    bayes, plain = estimate(data, 30), estimators.ivim(scan, sigma=1 / 30)
    for name in UNKNOWNS:
        error = [np.mean((maps[name].values - truth[name]) ** 2) for maps in (bayes, plain)]
        prior = truth[name].var()
        assert error[0] < error[1] and error[0] < 1.02 * prior, name


def test_a_wrong_prior_shows():
    """A prior narrow about a wrong D* takes the answer with it where the data say little, and says so in its share."""
    truth = {"f": np.full(200, 0.1), "D_star": np.full(200, 0.06), "D": np.full(200, 0.6e-3)}
    data = noisy(truth, 20, 14)
    right, wrong = estimate(data, 20), estimate(data, 20, prior={"D_star": Prior(8e-3, 12e-3)})
    assert float(wrong.D_star.mean()) < 0.013 < float(right.D_star.mean())
    assert float(wrong.D_star_prior_share.median()) > 0.8


def test_it_is_deterministic_whatever_the_threads(monkeypatch):
    data = noisy(from_prior(700, 15), 50, 16)
    monkeypatch.setenv("BONEMRI_THREADS", "1")
    one = estimate(data, 50, intervals=True)
    monkeypatch.setenv("BONEMRI_THREADS", "3")
    xr.testing.assert_identical(one, estimate(data, 50, intervals=True))


def test_scale_of_the_signal_is_free():
    """Ten thousand times the signal and the noise: the same fractions and diffusivities."""
    data = noisy(from_prior(50, 17), 50, 18)
    one, other = estimate(data, 50), estimate(data * 1e4, 50 / 1e4)
    for name in UNKNOWNS:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3)
    np.testing.assert_allclose(other.S0, one.S0 * 1e4, rtol=1e-3)


def test_the_prior_as_declared():
    """Quantiles, mean and variance of the declared ranges, by scipy's distributions."""
    for name, prior in PRIOR.items():
        draws = from_prior(400_000, 19)[name]
        assert np.mean(draws < prior.low) == pytest.approx(0.025, abs=1e-3)
        assert np.mean(draws > prior.high) == pytest.approx(0.025, abs=1e-3)
        mean, variance = prior.moments()
        assert mean == pytest.approx(draws.mean(), abs=4 * draws.std() / 632)
        assert variance == pytest.approx(draws.var(), rel=0.03)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.2, 0.1), (-1.0, 1.0)])
def test_a_prior_that_is_none(ends):
    with pytest.raises(InputError, match="expected 0 < low < high"):
        Prior(*ends)
    with pytest.raises(InputError, match="high < 1"):
        Prior(0.1, 1.0, fraction=True)
