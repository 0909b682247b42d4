"""The least-squares estimators of marrow perfusion: exact on their own model, efficient, honest about their errors."""

import numpy as np
import pytest
import xarray as xr
from scipy import optimize, stats

from bonemri import estimators, phantoms, simulator
from bonemri.estimators import Status
from bonemri.simulator import cramer_rao_bound, equations, protocols

B = np.array([0.0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800])
IVIM = equations.get("ivim")
WELL = {"S0": 1.0, "f": 0.2, "D_star": 0.03, "D": 0.6e-3}
ORDER = ("S0", "f", "D_star", "D")


def series(data, b=B):
    return xr.DataArray(data, dims=("x", "b"), coords={"b": b})


def replicates(truth, snr, n, seed, b=B):
    signal = IVIM.signal(truth, {"b": b})
    return np.abs(signal + np.random.default_rng(seed).normal(0.0, 1.0 / snr, (n, b.size)))


def grid(n, seed):
    """Random marrow parameters whose compartments are apart."""
    rng = np.random.default_rng(seed)
    D = rng.uniform(0.2e-3, 1.5e-3, n)
    D_star = np.maximum(np.exp(rng.uniform(np.log(10e-3), np.log(0.08), n)), 5 * D)
    return {"S0": rng.uniform(10, 1000, n), "f": rng.uniform(0.03, 0.4, n), "D_star": D_star, "D": D}


# ---- noise-free on their own model


def test_ivim_is_exact():
    truth = grid(500, 1)
    maps = estimators.ivim(series(IVIM.signal(truth, {"b": B})))
    for name in ORDER:
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-6, err_msg=name)


def test_adc_is_exact():
    truth = {"S0": np.linspace(10, 1000, 50), "adc": np.linspace(0.1e-3, 4e-3, 50)}
    maps = estimators.adc(series(equations.mono_exponential.signal(truth, {"b": B})))
    for name in truth:
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-8, err_msg=name)
    assert not maps.status.any()


def test_segmented_is_exact_where_blood_has_decayed():
    """exp(-200 D*) is 3e-9 of f at D* = .1: D comes back to that order, the rest follows."""
    truth = {**grid(200, 2), "D_star": np.full(200, 0.1)}
    maps = estimators.ivim_segmented(series(IVIM.signal(truth, {"b": B})))
    for name in ORDER:
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-5, err_msg=name)


def test_segmented_limit_where_blood_has_not_decayed():
    """At D* = .01 blood left at b = 200 pulls D up: the two steps, done by scipy, land on the same values."""
    truth = {"S0": 1.0, "f": 0.3, "D_star": 0.01, "D": 0.5e-3}
    y = IVIM.signal(truth, {"b": B})[0]
    maps = estimators.ivim_segmented(series(y[None])).isel(x=0)
    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    high = B >= 200
    first = optimize.least_squares(lambda t: t[0] * np.exp(-B[high] * t[1] * 1e-3) - y[high], (1.0, 1.0), **tight).x
    D = first[1] * 1e-3
    S0, f, star = optimize.least_squares(
        lambda t: t[0] * (t[1] * np.exp(-B * t[2] * 1e-2) + (1 - t[1]) * np.exp(-B * D)) - y, (1.0, 0.2, 1.0), **tight
    ).x
    np.testing.assert_allclose([maps.D, maps.S0, maps.f, maps.D_star], [D, S0, f, star * 1e-2], rtol=1e-6)
    assert maps.D > 1.05 * truth["D"]


def test_fat_aware_is_exact_on_its_model():
    """With every nuisance told; TE, TR and the map of PDFF enter voxel by voxel."""
    rng = np.random.default_rng(3)
    n = 60
    model = equations.ivim_fat_aware
    nuisances = {
        "pdff": rng.uniform(0.2, 0.7, n), "residual": 0.12, "D_fat": 1e-5, "T1_water": 1.1, "T2_water": 0.04,
        "T1_blood": 1.7, "T2_blood": 0.12, "T1_fat": 0.35, "T2_fat": 0.07,
    }  # fmt: skip
    truth = grid(n, 4)
    theta = {**truth, **nuisances}
    protocol = {"b": B, "TE": 0.06, "TR": 3.0}
    scan = series(model.signal(theta, protocol)).assign_coords(TE=0.06, TR=3.0)
    maps = estimators.ivim_fat_aware(scan, **nuisances)
    for name in ORDER:
        np.testing.assert_allclose(maps[name], truth[name], rtol=1e-5, err_msg=name)


def test_nnls_spectrum_is_exact_on_its_own_grid():
    """Two diffusivities that lie on the grid, far apart: noise-free NNLS finds them and their amplitudes."""
    from bonemri.estimators.perfusion.nnls import GRID

    nodes = np.geomspace(*GRID)
    star, slow = nodes[np.searchsorted(nodes, (0.05, 0.5e-3))]
    truth = {"S0": 1.0, "f": 0.25, "D_star": star, "D": slow}
    maps = estimators.ivim_nnls(series(IVIM.signal(truth, {"b": B}))).isel(x=0)
    # neighbours on the grid share an amplitude where rounding cannot tell them: a grid step is 7 %
    np.testing.assert_allclose([maps.S0, maps.f], [1.0, 0.25], rtol=5e-3)
    np.testing.assert_allclose([maps.D_star, maps.D], [truth["D_star"], truth["D"]], rtol=0.02)


@pytest.mark.parametrize(("adc", "f"), [(0.5e-3, 0.0), (0.05, 1.0)], ids=["tissue only", "blood only"])
def test_nnls_of_one_component_is_not_identifiable(adc, f):
    """What Marchand found in eight of fifteen volunteers is no perfusion fraction, and said so."""
    y = equations.mono_exponential.signal({"S0": 2.0, "adc": adc}, {"b": B})
    maps = estimators.ivim_nnls(series(y), sigma=1e-3).isel(x=0)
    assert maps.f == f and int(maps.status) & Status.NOT_IDENTIFIABLE
    assert np.isnan(maps.D_star if f == 0 else maps.D)
    assert np.isinf(maps.f_sd)


# ---- noise: bias, efficiency, coverage, flags


def test_ivim_reaches_the_bound_where_it_is_identified():
    """SNR 100, 5000 replicates: efficiency .93 (f, D) and .80 (D*), bias .2 bound SD, coverage 94 to 96 %.

    A variance of n replicates is known to sqrt(2/n), 2 %, a mean to 1.4 % of an SD, a coverage to .31 %: three each.
    """
    n, snr = 5000, 100
    maps = estimators.ivim(series(replicates(WELL, snr, n, 5)), sigma=1 / snr, intervals=True)
    bound = cramer_rao_bound(IVIM, WELL, {"b": B}, 1 / snr)[0]
    for i, name in enumerate(ORDER):
        values = maps[name].values
        assert bound[i] ** 2 / values.var() > (0.80 if name == "D_star" else 0.93) - 3 * np.sqrt(2 / n), name
        # no unbiased estimate beats the bound; a small bias could, by twice its slope
        assert bound[i] ** 2 / values.var() < 1.06 + 3 * np.sqrt(2 / n), name
        assert abs(values.mean() - WELL[name]) / bound[i] < 0.2 + 3 / np.sqrt(n), name
    slack = 3 * np.sqrt(0.95 * 0.05 / n)
    for name in ("S0", "f", "D"):
        assert abs(np.mean(abs(maps[name] - WELL[name]) <= 1.96 * maps[f"{name}_sd"]) - 0.95) < 0.01 + slack, name
    covered = np.mean((maps.D_star_lo <= WELL["D_star"]) & (WELL["D_star"] <= maps.D_star_hi))
    assert abs(covered - 0.95) < 0.01 + slack


@pytest.mark.parametrize(
    ("truth", "low", "high"),
    [({**WELL, "f": 0.35}, 0.0, 0.05), ({**WELL, "f": 0.03, "D_star": 0.012}, 0.95, 1.0)],
    ids=["all shares under half", "one over twice its share"],
)
@pytest.mark.parametrize("given", [True, False], ids=["sigma given", "pooled"])
def test_flag_of_what_is_not_identifiable(truth, low, high, given):
    snr = 150 if high < 0.5 else 100
    bound = cramer_rao_bound(IVIM, truth, {"b": B}, 1 / snr)[0]
    share = [bound[i] / truth[n] / limit for i, (n, limit) in ((1, ("f", 0.1)), (3, ("D", 0.1)), (2, ("D_star", 0.2)))]
    assert max(share) < 0.5 if high < 0.5 else max(share) > 2.0
    maps = estimators.ivim(series(replicates(truth, snr, 1500, 6)), sigma=1 / snr if given else None)
    flagged = np.mean((maps.status.values & Status.NOT_IDENTIFIABLE) > 0)
    assert low <= flagged <= high


def test_two_step_errors_are_those_of_monte_carlo():
    """SDs that follow both steps; an SD of 4000 replicates is known to 1.1 %, first order leaves a few percent."""
    n, snr = 4000, 200
    maps = estimators.ivim_segmented(series(replicates(WELL, snr, n, 7)), sigma=1 / snr)
    for name in ORDER:
        assert np.median(maps[f"{name}_sd"]) == pytest.approx(maps[name].values.std(), rel=0.06), name
    # the naive error of f, with D as if known, would be too small: the test can tell
    naive = cramer_rao_bound(IVIM, WELL, {"b": B}, 1 / snr, free=("S0", "f", "D_star"))[0, 1]
    assert naive < 0.8 * maps.f.values.std()


def test_adc_standard_error_and_coverage():
    n, snr = 4000, 50
    y = equations.mono_exponential.signal({"S0": 1.0, "adc": 0.6e-3}, {"b": B})
    maps = estimators.adc(series(y + np.random.default_rng(8).normal(0, 1 / snr, (n, B.size))))
    covered = np.mean(abs(maps.adc - 0.6e-3) <= 1.96 * maps.adc_sd)
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / n)


def test_noise_sd_that_is_given_does_not_move_the_estimate():
    data = series(replicates(WELL, 50, 50, 9))
    for name in ("adc", "ivim", "ivim-segmented"):
        given, pooled = estimators.get(name)(data, sigma=0.5), estimators.get(name)(data)
        for q in estimators.get(name).quantities:
            np.testing.assert_array_equal(given[q], pooled[q])


# ---- compartments and protocols


def test_compartments_are_named_by_their_diffusivity():
    """D* is the larger one, also where the fit met them the other way round, with the standard errors exchanged."""
    f = np.linspace(0.7, 0.95, 300)
    truth = {"S0": np.ones(300), "f": f, "D_star": np.full(300, 6e-3), "D": np.full(300, 1.2e-3)}
    data = IVIM.signal(truth, {"b": B}) + np.random.default_rng(10).normal(0, 0.01, (300, B.size))
    maps = estimators.ivim(series(data), sigma=0.01)
    assert (maps.D_star >= maps.D).all()
    mirrored = {**truth, "f": 1 - truth["f"], "D_star": truth["D"], "D": truth["D_star"]}
    np.testing.assert_allclose(IVIM.signal(mirrored, {"b": B}), IVIM.signal(truth, {"b": B}), rtol=1e-12)
    from bonemri.estimators.perfusion.least_squares import fit_ivim

    # where the bounds forbid the exchange, the fit stands within them and says that it is ambiguous
    bounds = {"D": (2e-3, 0.3), "D_star": (1e-4, 2e-3)}
    found = fit_ivim(data, {"b": B}, None, bounds=bounds)
    assert (found["D"] >= 2e-3).all() and (found["D_star"] <= 2e-3).all()
    assert (found.status & estimators.Status.AMBIGUOUS > 0).mean() > 0.9


def test_bounds_of_the_caller_are_kept():
    data = series(replicates({**WELL, "D_star": 0.08}, 30, 200, 11))
    bounds = {"D_star": (5e-3, 0.05), "f": (0.05, 0.3)}
    for name in ("ivim", "ivim-segmented"):
        maps = estimators.get(name)(data, bounds=bounds)
        assert (maps.D_star <= 0.05).all() and (maps.f >= 0.05).all() and (maps.f <= 0.3).all()
        assert (maps.status.values[maps.D_star.values == 0.05] & Status.AT_BOUND).all()
        assert (maps.D_star == 0.05).any()


def test_repeated_and_unsorted_b_values_are_averages():
    """Three repeats of every b and an even shuffle: the estimate of the mean signal, with errors 1/sqrt(3)."""
    rng = np.random.default_rng(12)
    mean = replicates(WELL, 80, 20, 13)
    order = rng.permutation(33)
    tripled = np.repeat(mean, 3, axis=1)[:, order]
    one = estimators.ivim(series(mean), sigma=0.01)
    three = estimators.ivim(series(tripled, np.repeat(B, 3)[order]), sigma=0.01)
    for name in ORDER:
        np.testing.assert_allclose(three[name], one[name], rtol=1e-4)
        np.testing.assert_allclose(three[f"{name}_sd"], one[f"{name}_sd"] / np.sqrt(3), rtol=1e-3)


def test_rician_likelihood_option():
    """At SNR 8 a magnitude fit of adc is pulled to the floor; the option takes most of that away."""
    n, sigma, b = 3000, 1 / 8, np.linspace(0, 2000, 9)
    signal = equations.mono_exponential.signal({"S0": 1.0, "adc": 1.5e-3}, {"b": b})
    rng = np.random.default_rng(14)
    data = series(np.hypot(signal + rng.normal(0, sigma, (n, 9)), rng.normal(0, sigma, (n, 9))), b)
    found = {k: estimators.adc(data, sigma=sigma, likelihood=k).adc for k in ("gaussian", "rician")}
    plain, right = (float(adc.mean()) - 1.5e-3 for adc in found.values())
    assert abs(right) < 0.25 * abs(plain) and plain < -1e-4


# ---- fat


@pytest.fixture(scope="module")
def marrow():
    """Marrow of PDFF 30 to 70 %, D and f over their range, noise-free through the pools."""
    pdff, D, f = np.meshgrid(np.linspace(0.3, 0.7, 5), [0.3e-3, 0.45e-3, 1.0e-3], [0.03, 0.06], indexing="ij")
    block = phantoms.marrow_block(shape=pdff.shape, pdff=pdff, D=D, f=f)
    return block, simulator.scan(block, protocols.ivim_marrow, rung="pools")


def test_fat_aware_limit_of_D(marrow):
    """Spectrum, suppression and PDFF known: D within .006e-3 mm2/s of the truth; a plain fit is far off."""
    block, scan = marrow
    maps = estimators.ivim_fat_aware(scan, pdff=block.truth.pdff)
    assert abs(maps.D - block.truth.D).max() <= 0.006e-3
    assert abs(maps.f - block.truth.f).max() <= 0.003  # a fraction of 1H again, not of signal
    plain = estimators.ivim(scan)
    assert (block.truth.D - plain.D).max() > 0.02e-3
    assert (plain.f - block.truth.f).min() > 0.01  # f_app: blood outlives marrow water at this echo time


def test_fat_aware_sensitivity_to_suppression(marrow):
    """20 % more or less residual fat than told moves D one way or the other, by less than leaving fat out does."""
    block, scan = marrow
    from bonemri.estimators.perfusion.fat_aware import _residual

    left = _residual(protocols.ivim_marrow.fat_suppression, "fat_marrow")
    told = {
        k: estimators.ivim_fat_aware(scan, pdff=block.truth.pdff, residual=k * left).D - block.truth.D
        for k in (0.0, 0.8, 1.0, 1.2)
    }
    assert (told[0.8] < told[1.0]).all() and (told[1.0] < told[1.2]).all()
    assert (abs(told[0.8]) < 0.5 * abs(told[0.0])).all()


def test_fat_aware_noise_bias_at_snr_100():
    """At most .2 bound SD with everything known, in an identified case (2500 replicates know it to .02)."""
    n = 2500
    block = phantoms.marrow_block(shape=(1, 1, 1), pdff=0.3, f=0.09, D=0.6e-3, D_star=0.03)
    clean = simulator.scan(block, protocols.ivim_marrow, rung="pools")
    limit = estimators.ivim_fat_aware(clean, pdff=0.3)
    reference = float(clean.values.ravel()[0])
    sigma = reference / 100
    data = clean.values.reshape(1, -1) + np.random.default_rng(15).normal(0, sigma, (n, clean.sizes["b"]))
    scan = clean.isel(z=0, y=0, x=[0] * n).copy(data=data)
    maps = estimators.ivim_fat_aware(scan, sigma=sigma, pdff=0.3)
    bound = float(estimators.ivim_fat_aware(clean, sigma=sigma, pdff=0.3).D_sd.squeeze())
    bias = (float(maps.D.mean()) - float(limit.D.squeeze())) / bound
    assert abs(bias) < 0.2 + 3 / np.sqrt(n)
    covered = np.mean(abs(maps.D - float(limit.D.squeeze())) <= 1.96 * maps.D_sd)
    assert stats.binomtest(int(covered * n), n, 0.95).pvalue > 1e-4 or abs(covered - 0.95) < 0.01
