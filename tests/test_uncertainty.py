"""How sure an estimate says it is: noise given and pooled, Student's t, profile-likelihood intervals."""

import numpy as np
import pytest
import xarray as xr
from scipy import optimize, stats

from bonemri import estimators
from bonemri.estimators import solver
from bonemri.estimators.profile import likelihood_interval
from bonemri.estimators.uncertainty import Z95, Noise, noise_of
from bonemri.simulator import equations

B = np.array([0.0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800])
IVIM = equations.get("ivim")
WELL = {"S0": 1.0, "f": 0.2, "D_star": 0.03, "D": 0.6e-3}  # identified at SNR 100 by the shares of the flag


def replicates(truth, snr, n, seed):
    signal = IVIM.signal(truth, {"b": B})
    return np.abs(signal + np.random.default_rng(seed).normal(0.0, 1.0 / snr, (n, B.size)))


def band(n, sigmas=4.0):
    """Half width of the range in which the coverage of n intervals lies: so many binomial SDs about .95."""
    return sigmas * np.sqrt(0.95 * 0.05 / n)


# ---- the noise SD


def test_pooled_noise_is_the_root_mean_square_residual():
    """Costs drawn as chi-square: the SD within four of its standard errors; the trimming costs less than 1e-3."""
    rng = np.random.default_rng(1)
    n, freedom, sd = 40_000, 7, 0.03
    cost = sd**2 * rng.chisquare(freedom, n)
    noise = noise_of(cost, freedom, np.ones(n, bool), None)
    assert abs(noise.sd / sd - 1) < 4 / np.sqrt(2 * freedom * n) + 1e-3
    assert noise.freedom == pytest.approx(freedom * n, rel=2e-3) and noise.widening == 1.0


def test_artefacts_do_not_own_the_pooled_noise():
    """One voxel in a hundred with residuals a thousand times too large moves the SD by no more than its own error."""
    rng = np.random.default_rng(2)
    cost = rng.chisquare(7, 4000)
    clean = noise_of(cost, 7, np.ones(4000, bool), None).sd
    cost[::100] *= 1e6
    assert abs(noise_of(cost, 7, np.ones(4000, bool), None).sd / clean - 1) < 4 / np.sqrt(2 * 7 * 4000)


def test_given_noise_is_taken_as_it_is():
    noise = noise_of(np.ones(5), 7, np.ones(5, bool), 0.02)
    assert noise.sd == 0.02 and noise.widening == 1.0 and noise.quantile == Z95


def test_widening_is_students_t():
    """One voxel of 7 degrees of freedom is known to t, many to the normal."""
    for freedom in (1, 3, 7, 70, 7000):
        assert Noise(1.0, freedom).quantile == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
    assert Noise(1.0, 7).widening == pytest.approx(2.3646 / 1.95996, rel=1e-4)
    assert np.isnan(Noise(1.0, 0).quantile)


# ---- +- 1.96 x_sd covers 95 %


def test_sd_covers_with_pooled_residuals():
    n = 6000
    maps = estimators.ivim(xr.DataArray(replicates(WELL, 100, n, 3), dims=("x", "b"), coords={"b": B}))
    for name in ("f", "D"):
        covered = np.mean(abs(maps[name] - WELL[name]) <= 1.96 * maps[f"{name}_sd"])
        assert abs(covered - 0.95) < band(n) + 0.005  # half a percent for the skewness that an SD cannot follow


def test_sd_of_one_voxel_alone_covers():
    """Seven residual degrees of freedom: unwidened, 1.96 standard errors would cover only 91 %."""
    n = 1200
    data = replicates(WELL, 200, n, 4)
    covered, plain = np.zeros(2), np.zeros(2)
    widening = Noise(1.0, 7).widening
    for row in data:
        maps = estimators.ivim(xr.DataArray(row[None], dims=("x", "b"), coords={"b": B}))
        for k, name in enumerate(("f", "D")):
            error, sd = abs(float(maps[name][0]) - WELL[name]), float(maps[f"{name}_sd"][0])
            covered[k] += error <= 1.96 * sd
            plain[k] += error <= 1.96 * sd / widening
    assert (abs(covered / n - 0.95) < band(n)).all()
    assert (plain / n < 0.935).all()  # the test could tell


def test_sd_from_a_few_voxels_covers():
    """Groups of 3 voxels share 21 degrees of freedom; errors of one group go together, so groups are counted."""
    groups = 400
    data = replicates(WELL, 200, 3 * groups, 5).reshape(groups, 3, B.size)
    covered = [
        np.mean(abs(m.D - WELL["D"]) <= 1.96 * m.D_sd)
        for m in (estimators.ivim(xr.DataArray(g, dims=("x", "b"), coords={"b": B})) for g in data)
    ]
    assert abs(np.mean(covered) - 0.95) < 4 * np.std(covered) / np.sqrt(groups)


# ---- likelihood intervals


@pytest.mark.parametrize(
    ("truth", "snr"),
    [(WELL, 100), ({**WELL, "f": 0.05}, 100), ({**WELL, "f": 0.12, "D": 0.45e-3}, 20)],
    ids=["identified", "small f", "low SNR"],
)
def test_intervals_cover(truth, snr):
    """95 % to a binomial band and one percent where all is well; 93 to 99 % where little is known."""
    n = 1500
    scan = xr.DataArray(replicates(truth, snr, n, 6), dims=("x", "b"), coords={"b": B})
    maps = estimators.ivim(scan, sigma=1 / snr, intervals=True)
    low, high = (0.94, 0.96) if truth is WELL else (0.93, 0.99)
    for name in ("f", "D_star", "D"):
        covered = np.mean((maps[f"{name}_lo"] <= truth[name]) & (truth[name] <= maps[f"{name}_hi"]))
        assert low - band(n, 3) <= covered <= high + band(n, 3), name
        assert np.isfinite(maps[f"{name}_lo"]).all() and np.isfinite(maps[f"{name}_hi"]).all()


def test_intervals_of_one_voxel_alone_are_students():
    """Without the noise SD the threshold is t**2: wider by a known factor, for a model that is nearly linear."""
    row = replicates(WELL, 300, 1, 7)
    scan = xr.DataArray(row, dims=("x", "b"), coords={"b": B})
    alone = estimators.ivim(scan, intervals=True)
    same_sd = float(np.sqrt(solver.fit(IVIM, row, {"b": B}).cost[0] / 7))
    given = estimators.ivim(scan, sigma=same_sd, intervals=True)
    ratio = float((alone.D_hi - alone.D_lo)[0] / (given.D_hi - given.D_lo)[0])
    assert ratio == pytest.approx(Noise(1.0, 7).widening, rel=0.02)


def test_interval_of_a_nearly_linear_unknown_is_that_of_its_standard_error():
    """At very high SNR a profile is a parabola: 1.96 standard errors to either side, to the root's tolerance of 1 %."""
    data = replicates(WELL, 1e4, 20, 8)
    found = solver.fit(IVIM, data, {"b": B})
    noise = Noise(1e-4, np.inf)
    for i, name in enumerate(found.free):
        low, high = likelihood_interval(IVIM, data, {"b": B}, found, name, noise)
        expected = Z95 * 1e-4 * found.unit_sd[:, i]
        np.testing.assert_allclose(found[name] - low, expected, rtol=0.02)
        np.testing.assert_allclose(high - found[name], expected, rtol=0.02)


def test_interval_ends_are_where_scipy_finds_the_threshold():
    """The profile computed by scipy at our ends: deviance 1.96**2, within the tolerance of the root."""
    snr = 40
    data = replicates({**WELL, "f": 0.12}, snr, 4, 9)
    found = solver.fit(IVIM, data, {"b": B})
    low, high = likelihood_interval(IVIM, data, {"b": B}, found, "D_star", Noise(1 / snr, np.inf))

    def profile(D_star, y):
        def residual(t):
            return t[0] * (t[1] * np.exp(-B * D_star) + (1 - t[1]) * np.exp(-B * t[2])) - y

        starts = [(y[0], f, D) for f in (0.05, 0.2, 0.5) for D in (2e-4, 6e-4, 1.5e-3)]
        box, tight = ([0, 0, 0], [np.inf, 1, 5e-3]), {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
        fits = [optimize.least_squares(residual, s, bounds=box, x_scale=(1, 0.1, 1e-3), **tight) for s in starts]
        return min(2 * f.cost for f in fits)

    for v, y in enumerate(data):
        for end in (low[v], high[v]):
            root = np.sqrt(max(profile(end, y) - found.cost[v], 0.0)) * snr
            if end < 0.3:
                assert root == pytest.approx(Z95, abs=0.02)
            else:
                assert root <= Z95 + 0.02  # at the bound of the fit the profile is still below the threshold


def test_interval_ends_at_a_bound_it_cannot_cross():
    data = replicates({**WELL, "f": 0.01}, 30, 30, 10)
    found = solver.fit(IVIM, data, {"b": B})
    low, high = likelihood_interval(IVIM, data, {"b": B}, found, "f", Noise(1 / 30, np.inf))
    assert (low >= 0).all() and (high <= 1).all() and (low == 0).any()


def test_no_interval_where_there_is_no_fit():
    data = replicates(WELL, 50, 3, 11)
    data[1] = np.nan
    found = solver.fit(IVIM, data, {"b": B})
    low, high = likelihood_interval(IVIM, data, {"b": B}, found, "D", Noise(1 / 50, np.inf))
    assert np.isnan([low[1], high[1]]).all() and np.isfinite([low[0], high[0], low[2], high[2]]).all()


def test_intervals_follow_held_values_and_the_rician_likelihood():
    """D known per voxel and magnitude data near the floor: the interval of adc covers by the right likelihood only."""
    mono = equations.get("mono_exponential")
    rng = np.random.default_rng(12)
    n, b, sigma = 1500, np.linspace(0, 2000, 9), 1 / 8
    S0 = rng.uniform(0.9, 1.3, n)
    signal = mono.signal({"S0": S0, "adc": 1.5e-3}, {"b": b})
    data = np.hypot(signal + rng.normal(0, sigma, signal.shape), rng.normal(0, sigma, signal.shape))
    covered = {}
    for likelihood in ("gaussian", "rician"):
        found = solver.fit(mono, data, {"b": b}, known={"S0": S0}, sigma=sigma, likelihood=likelihood)
        noise = Noise(sigma, np.inf)
        low, high = likelihood_interval(
            mono, data, {"b": b}, found, "adc", noise, known={"S0": S0}, likelihood=likelihood
        )
        covered[likelihood] = np.mean((low <= 1.5e-3) & (1.5e-3 <= high))
    assert abs(covered["rician"] - 0.95) < band(n) + 0.01
    assert covered["gaussian"] < 0.9
