"""Water, fat, field and R2* by `dixon`: recovery, the Cramer-Rao bound, the noise floor, the contract, bad input."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from bonemri import estimators, phantoms, simulator
from bonemri.errors import InputError
from bonemri.estimators import Status
from bonemri.estimators.fat import fit as fat_fit
from bonemri.estimators.fat.fraction import FRACTIONS, Weights, fraction_of
from bonemri.estimators.fat.train import Train
from bonemri.simulator import cramer_rao_bound, equations, protocols, tissues, water_fat

TE = np.array(protocols.dixon_marrow["TE"])
FAT = [name for name, e in estimators.registry.items() if e.modality == "fat"]
MODEL = water_fat.WaterFat()


def signal(pdff, r2star, fieldmap, times=TE, phase=0.3, phase_fat=0.0, S0=1.0, **how):
    """Written out here once more, without the declared equation: (voxel, point)."""
    shift, area = tissues.spectrum(how.get("spectrum", "fat_marrow"))
    water = how.get("water", tissues.water_shift())
    frequency = (shift - water) * 42.577478518 * how.get("field", 3.0)
    fat = (area * np.exp(2j * np.pi * np.outer(times, frequency))).sum(axis=1)
    p, r, psi = (np.atleast_1d(np.asarray(v, float))[:, None] for v in (pdff, r2star, fieldmap))
    both = (1 - p) + p * np.exp(1j * phase_fat) * fat
    return S0 * np.exp(1j * phase) * both * np.exp((2j * np.pi * psi - r) * times)


def noise(shape, snr, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / snr


def image(data, times=TE, shape=None, **attrs):
    """An array as a user would hand it over."""
    data = data.reshape(*(shape or (1, 1, len(data))), -1)
    named = {"field_strength": 3.0, "temperature": tissues.BODY_TEMPERATURE, **attrs}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": times}, attrs=named)


def bound(pdff, r2star, snr, times=TE):
    """Of pdff and of r2star; the phases, the field and the sum are not known either."""
    tissue = {"S0": 1.0, "pdff": pdff, "r2star": r2star, "fieldmap": 40.0, "phase": 0.3, "phase_fat": 0.0}
    return cramer_rao_bound(MODEL, tissue, {"TE": times, "field_strength": 3.0}, 1.0 / snr)[0, 1:3]


# ---- the model


def test_fat_relative_to_water():
    """One at time 0; the main peak of outside data at 4.70 - 1.30 ppm below water: -434 Hz at 3 T."""
    single = water_fat.spectrum_of(([1.30], [5.0]))
    times = np.linspace(0, 0.01, 11)
    c = water_fat.fat_signal(times, 3.0, single, water_fat.OUTSIDE_WATER)
    hertz = -3.40 * 42.577478518 * 3.0
    assert hertz == pytest.approx(-434.3, abs=0.05)
    np.testing.assert_allclose(c, np.exp(2j * np.pi * hertz * times), atol=1e-9)
    for name in tissues.spectra():
        c = water_fat.fat_signal(times, 1.5, water_fat.spectrum_of(name), 4.7)
        assert c[0] == pytest.approx(1.0, abs=1e-15) and (np.abs(c) <= 1 + 1e-15).all()
    warm, cold = (water_fat.fat_signal(times, 3.0, single, tissues.water_shift(t)) for t in (37.0, 20.0))
    # cold water stands 17 x 0.01085 ppm higher, and fat so much farther below it
    turned = np.exp(-2j * np.pi * 17 * 0.01085 * 42.577478518 * 3.0 * times)
    np.testing.assert_allclose(cold, warm * turned, atol=1e-9)


def test_a_composition_gives_the_spectrum_of_the_default():
    """Ren's marrow is the triglyceride with ndb 2.86, nmidb .74, CL 16.92; its areas are told to four digits."""
    named, counted = water_fat.spectrum_of("fat_marrow"), water_fat.spectrum_of((2.86, 0.74, 16.92))
    np.testing.assert_array_equal(named.shift, counted.shift)
    np.testing.assert_allclose(named.area, counted.area, atol=2e-4)


@settings(max_examples=20, deadline=None)
@given(p=st.floats(0, 1), r=st.floats(0, 500), psi=st.floats(-400, 400), phase=st.floats(-3, 3), other=st.floats(-3, 3))
def test_every_form_of_the_equation_says_the_same(p, r, psi, phase, other):
    times = np.array([0.0, 0.9e-3, 2.2e-3, 3.1e-3, 6.7e-3])
    protocol = water_fat.settings_of(
        times, water_fat.fat_signal(times, 3.0, tissues.spectrum(), tissues.water_shift()), np.arange(5)
    )
    wanted = signal(p, r, psi, times, phase, other, S0=2.0)
    rate = {"fieldmap": psi, "r2star": r}
    W, F = 2 * (1 - p) * np.exp(1j * phase), 2 * p * np.exp(1j * (phase + other))
    parts = dict(zip([q.name for q in equations.dixon.AMPLITUDES], (W.real, W.imag, F.real, F.imag), strict=True))
    polar = {"S0": 2.0, "pdff": p, "phase": phase, "phase_fat": other}
    flat = {f"slope_{k}": 0.0 for k in "zyx"}
    forms = {
        "water_fat": (polar | rate, {}),
        "water_fat_mixed": (polar | rate | {"first_phase": 0.0}, {}),
        "water_fat_free": (parts | rate, {}),
        "water_fat_dual": (parts | rate | {"r2star_fat": r}, {}),
        "water_fat_uneven": (parts | rate | {"first_phase": 0.0, "bipolar_phase": 0.0}, {}),
        "water_fat_gradient": (parts | rate, flat),
    }
    for name, (theta, more) in forms.items():
        np.testing.assert_allclose(equations.get(name).signal(theta, protocol | more), wanted, atol=3e-12, err_msg=name)
    one = signal(p, r, psi, times, phase, 0.0, S0=2.0)
    common = {"water": 2 * (1 - p), "fat": 2 * p, "phase": phase}
    np.testing.assert_allclose(equations.water_fat_common.signal(common | rate, protocol), one, atol=3e-12)
    size = equations.water_fat_magnitude.signal({"S0": 2.0, "pdff": p, "r2star": r}, protocol)
    np.testing.assert_allclose(size, np.abs(one), atol=1e-9)  # a root: half the digits where it is near 0
    assert wanted[0, 0] == pytest.approx(W + F, abs=1e-12)  # at TE 0 nothing has turned or decayed


def test_phase_errors_stand_where_they_are_declared():
    order = water_fat.echo_order(np.array([1.0, 2.0, 1.5, 2.5, 3.0]) * 1e-3, shot=[0, 0, 1, 1, 0])
    assert order.tolist() == [0, 1, 0, 1, 2]
    protocol = water_fat.settings_of(TE, np.ones(6, complex), np.arange(6))
    theta = dict.fromkeys([q.name for q in equations.water_fat_uneven.unknowns], 0.0) | {"water_real": 1.0}
    s = equations.water_fat_uneven.signal(theta | {"first_phase": 0.2, "bipolar_phase": -0.5}, protocol)[0]
    np.testing.assert_allclose(np.angle(s), [0.2, -0.5, 0, -0.5, 0, -0.5], atol=1e-15)


# ---- recovery


@settings(max_examples=15, deadline=None)
@given(
    p=st.floats(0, 1),
    r=st.floats(5, 250),
    psi=st.floats(-250, 250),
    phase=st.floats(-3, 3),
    steps=st.lists(st.floats(0.7e-3, 1.5e-3), min_size=4, max_size=8),
)
def test_noise_free_recovery(p, r, psi, phase, steps):
    """Any echo times: 1e-6 relative to a full signal, as claimed; a voxel alone may take the other minimum, and say so.

    Where echoes are evenly spaced the field is known modulo 1/spacing.
    """
    times = np.cumsum([1.1e-3, *steps])
    maps = estimators.dixon(image(signal(p, r, psi, times, phase), times), sigma=1e-3).isel(z=0, y=0, x=0)
    assume(not int(maps.status) & Status.AMBIGUOUS)
    assert float(maps.pdff) == pytest.approx(p, abs=1e-6)
    assert float(maps.r2star) == pytest.approx(r, abs=1e-6 * 250)
    assert float(maps.water + maps.fat) == pytest.approx(1.0, abs=1e-6)
    turned = np.exp(2j * np.pi * (float(maps.fieldmap) - psi) * np.diff(times))
    np.testing.assert_allclose(turned, 1.0, atol=1e-5)


def test_vials_of_the_rung_pools():
    """T1 is what stands between a scan of pools and its truth; corrected for, the fit is exact."""
    vials = phantoms.vials("pdff")
    scan = simulator.scan(vials, protocols.dixon_marrow, rung="pools")
    inside = np.isfinite(vials.truth.pdff)
    water, oil = (float(vials.pools.T1_observed.sel(pool=f"{name}_25")) for name in ("water", "oil"))
    plain = estimators.dixon(scan, mask=inside, sigma=1e-3)
    right = estimators.dixon(scan, mask=inside, sigma=1e-3, T1_correction=True, T1_water=water, T1_fat=oil)
    truth = vials.truth.pdff.values[inside]
    assert np.abs(right.pdff.values[inside] - truth).max() < 1e-6
    rates = np.array([25.0, 50.0, 100.0, 200.0])
    gap = np.abs(right.r2star.values[inside][:, None] - rates).min(axis=1)
    assert gap.max() < 1e-6 * rates.max()
    # the uncorrected fraction follows from the signals of the two: a closed form
    flash = equations.spoiled_gradient_echo.signal
    settings_ = {"flip_angle": float(scan.flip_angle), "TR": float(scan.TR), "TE": 0.0, "B1": 1.0}
    w, f = (flash({"S0": 1.0, "T1": t, "R2star": 0.0}, settings_)[0, 0] for t in (water, oil))
    np.testing.assert_allclose(plain.pdff.values[inside], truth * f / (truth * f + (1 - truth) * w), atol=1e-6)
    assert np.abs(plain.pdff.values[inside] - truth).max() > 0.05


def test_the_fit_is_the_minimum_that_scipy_finds():
    """Cost no higher, the same place within the optimiser's tolerance, and its standard error from J'J."""
    rng = np.random.default_rng(5)
    n, snr = 12, 60
    p, r, psi = rng.uniform(0, 1, n), rng.uniform(20, 150, n), rng.uniform(-60, 60, n)
    data = signal(p, r, psi) + noise((n, 6), snr)
    maps = estimators.dixon(image(data), sigma=1 / snr)
    for v in range(n):

        def residual(x, v=v):
            S, q, rate, field, phase, other = x
            d = data[v] - signal(q, rate * 100, field * 100, TE, phase, other, S)[0]
            return np.concatenate([d.real, d.imag])

        found = least_squares(residual, [1.0, p[v], r[v] / 100, psi[v] / 100, 0.3, 0.0], xtol=1e-14, ftol=1e-14)
        S, q, rate, field, _, other = found.x
        fat, water = S * q * np.exp(1j * other), S * (1 - q)
        assert float(maps.r2star[0, 0, v]) == pytest.approx(rate * 100, abs=1e-3)
        assert float(maps.fieldmap[0, 0, v]) == pytest.approx(field * 100, abs=1e-3)
        assert float(maps.pdff[0, 0, v]) == pytest.approx((fat / (water + fat)).real, abs=1e-6)
        sd = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))[[2, 3]] * 100 / snr
        np.testing.assert_allclose([maps.r2star_sd[0, 0, v], maps.fieldmap_sd[0, 0, v]], sd, rtol=1e-3)


# ---- noise


@pytest.mark.parametrize(("pdff", "r2star"), [(0.0, 40.0), (0.05, 120.0), (0.4, 60.0), (0.9, 40.0), (1.0, 80.0)])
def test_at_the_bound_where_it_is_small(pdff, r2star):
    """Claimed where the bound is at most 2 points and 20 1/s: efficiency .96, bias .1 SD, coverage 94 to 96 %.

    20 000 draws: the SD of an efficiency is sqrt(2/n) = 1 %, of a bias .007 SD, of a coverage .15 %; three of each are
    allowed beyond the claim.
    """
    n, snr = 20_000, 60
    limits = bound(pdff, r2star, snr)
    assert (limits <= [0.02, 20.0]).all()
    data = signal(pdff, r2star, 40.0) + noise((n, 6), snr, seed=2)
    maps = estimators.dixon(image(data, shape=(1, 100, 200)), sigma=1 / snr, intervals=True)
    assert (maps.status == 0).mean() > 0.999
    for name, truth, sd in zip(("pdff", "r2star"), (pdff, r2star), limits, strict=True):
        x, error = maps[name].values.ravel(), maps[f"{name}_sd"].values.ravel()
        assert sd**2 / x.var() > 0.96 - 0.03
        assert sd**2 / x.var() < 1.05  # better than the bound would be a finding
        assert abs(x.mean() - truth) < (0.1 + 0.021) * sd
        assert 0.94 - 0.0045 < (np.abs(x - truth) < 1.96 * error).mean() < 0.96 + 0.0045
    inside = (maps.pdff_lo <= pdff) & (pdff <= maps.pdff_hi)
    assert 0.94 - 0.0045 < float(inside.mean()) < 0.96 + 0.0045


@pytest.mark.parametrize("pdff", [0.0, 1.0])
def test_noise_bias_of_pure_water_and_pure_fat(pdff):
    """At SNR 20 at most .3 points by the two fractions without a floor; the magnitude ratio has one of several points.

    The bias is known to 4.3 points / sqrt(20000) = .03 points; three of these are allowed beyond.
    """
    data = signal(pdff, 60.0, 40.0) + noise((20_000, 6), 20, seed=3)
    scan = image(data, shape=(1, 100, 200))
    bias = {kind: float(estimators.dixon(scan, sigma=0.05, fraction=kind).pdff.mean()) - pdff for kind in FRACTIONS}
    assert abs(bias["real"]) < 0.003 + 0.0009
    assert abs(bias["discrimination"]) < 0.003 + 0.0009
    sd = bound(pdff, 60.0, 20)[0]
    # |F| of pure water is Rayleigh: sqrt(pi/2) of the SD of one channel, 1.25 of it
    assert abs(bias["magnitude"]) == pytest.approx(1.25 * sd, rel=0.1)


def test_estimated_noise_serves_as_well_as_the_given():
    """Without sigma, differences of 4000 voxels tell it to sqrt(1.5/(2 6 4000)) = .6 %; errors follow, and cover."""
    data = signal(0.4, 60.0, 40.0) + noise((4000, 6), 60, seed=4)
    scan = image(data, shape=(4, 25, 40))
    pooled, told = estimators.dixon(scan), estimators.dixon(scan, sigma=1 / 60)
    np.testing.assert_allclose(pooled.pdff_sd, told.pdff_sd, rtol=0.02)
    assert pooled.attrs["sigma"] == "neighbours"
    covered = (np.abs(pooled.pdff - 0.4) < 1.96 * pooled.pdff_sd).mean()
    assert 0.93 < float(covered) < 0.97
    assert pooled.attrs["noise_sd"] == pytest.approx(1 / 60, rel=0.02)
    assert told.attrs["sigma"] == "given" and told.attrs["noise_sd"] == 1 / 60
    few = estimators.dixon(scan.isel(z=[0], y=[0], x=slice(5)))
    assert few.attrs["sigma"] == "pooled residuals"
    # 30 degrees of freedom: Student's t
    assert float((few.pdff_sd / few.attrs["noise_sd"]).mean()) == pytest.approx(
        float((told.pdff_sd[0, 0, :5] * 60).mean()) * 2.0423 / 1.95996, rel=0.02
    )


@pytest.fixture(scope="module")
def leg():
    """Tissues beside each other, a field that bends, a signal twice as large on one side: pdff, r2star, clean data."""
    edge = 72
    y, x = np.mgrid[0:edge, 0:edge] / edge
    rng = np.random.default_rng(20)
    inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1
    pdff = np.where(inside, 0.3 + 0.2 * x, 0.85) + rng.uniform(-0.05, 0.05, x.shape)
    rate = np.where(inside, 80.0, 40.0) + rng.uniform(-10, 10, x.shape)
    field = 60 * np.sin(3 * x) + 40 * y - 20
    clean = signal(pdff.ravel(), rate.ravel(), field.ravel()) * (1 + x.reshape(-1, 1))
    return pdff, rate, clean


@pytest.mark.parametrize("most", [1.0, 4.0])
def test_errors_cover_where_the_noise_is_uneven(leg, most):
    """Noise that rises by a factor of four over the image, as of parallel imaging, and nobody tells it.

    Over the image a coverage is known to sqrt(.05 .95/5184) = .3 %, over a quarter to .6 %: 93 to 97 % and three of
    these. The standard errors are within 6 % those of the noise as it is.
    """
    pdff, rate, clean = leg
    edge = len(pdff)
    sd = np.broadcast_to(most ** (np.arange(edge) / edge) / 80, (1, edge, edge))
    scan = image(clean + noise(clean.shape, 1, seed=21) * sd.reshape(-1, 1), shape=(1, edge, edge))
    maps, told = estimators.dixon(scan), estimators.dixon(scan, sigma=sd.copy())
    covered = np.stack(
        [
            np.abs(maps[name].values[0] - truth) < 1.96 * maps[f"{name}_sd"].values[0]
            for name, truth in (("pdff", pdff), ("r2star", rate))
        ]
    )
    assert 0.94 - 0.01 < covered.mean() < 0.96 + 0.01
    ratio = (maps.r2star_sd / told.r2star_sd).values[0]
    for part in np.array_split(np.arange(edge), 4):
        assert 0.93 - 0.018 < covered[..., part].mean() < 0.97 + 0.018
        assert ratio[:, part].mean() == pytest.approx(1.0, abs=0.06)
    assert not (maps.status.values & Status.OUTSIDE_DOMAIN).any()
    low, high = maps.attrs["noise_sd_range"]
    assert high / low > 3.0 if most > 1 else high / low < 1.05


def test_a_wrong_model_does_not_hide_in_the_noise(leg):
    """Every second echo .5 rad off, and nobody tells: pooled, the misfit was the noise, and nothing was said."""
    pdff, _, clean = leg
    edge = len(pdff)
    bent = clean * np.exp(0.5j * (np.arange(6) % 2))
    scan = image(bent + noise(clean.shape, 80, seed=22), shape=(1, edge, edge))
    wrong, right = estimators.dixon(scan), estimators.dixon(scan, bipolar=True)
    error, marrow = np.abs(wrong.pdff.values[0] - pdff), pdff < 0.6
    flagged = (wrong.status.values[0] & Status.OUTSIDE_DOMAIN) > 0
    assert error[marrow].mean() > 0.05
    assert flagged.mean() > 0.95 and flagged[marrow].mean() > 0.95
    # told of the phase, a fit leaves noise; hardly a voxel has gone into another minimum, and that one says so
    assert ((right.status.values & Status.OUTSIDE_DOMAIN) > 0).mean() < 2e-3
    # the noise is told to a tenth although the misfit, a tenth of the signal, changes from tissue to tissue
    assert wrong.attrs["noise_sd"] == pytest.approx(1 / 80, rel=0.15)
    # where a voxel's own residual hardly tells, those of its neighbours do; alone it is left in peace
    faint = image(bent + noise(clean.shape, 30, seed=23), shape=(1, edge, edge))
    together = estimators.dixon(faint, sigma=1 / 30).status.values[0][marrow]
    few = np.zeros((1, edge, edge), bool)
    few[0, 20:52:8, 20:52:8] = True
    alone = estimators.dixon(faint, mask=few, sigma=1 / 30).status.values[few]
    assert ((together & Status.OUTSIDE_DOMAIN) > 0).mean() > 0.8
    assert ((alone & Status.OUTSIDE_DOMAIN) > 0).mean() < 0.3


def test_what_no_noise_is_left_in_is_no_misfit(leg):
    """Data of the model itself, exact or in single precision: their rounding is not called a residual."""
    _, _, clean = leg
    scan = image(clean, shape=(1, 72, 72))
    alike = image(signal(0.3, 60.0, 10.0).repeat(400, axis=0), shape=(1, 20, 20))
    for one in (scan, scan.astype(np.complex64), alike, alike.astype(np.complex64)):
        assert not (estimators.dixon(one).status.values & Status.OUTSIDE_DOMAIN).any()


def test_a_residual_is_told_in_the_frame_of_its_voxel():
    """What is shared is so whatever phase, field and amplitude a voxel has: left of one misfit is one residual."""
    n = 200
    rng = np.random.default_rng(24)
    field, phase, size = rng.uniform(-80, 80, n), rng.uniform(-3, 3, n), rng.uniform(1, 20, n)
    bent = signal(0.3, 60.0, 0.0) * np.exp(0.4j * (np.arange(6) % 2))
    data = bent * (size * np.exp(1j * phase))[:, None] * np.exp(2j * np.pi * np.outer(field, TE))
    fat = water_fat.fat_signal(TE, 3.0, tissues.spectrum(), tissues.water_shift())
    train = Train(TE, fat, np.arange(6), None)
    for common in (False, True):
        found = fat_fit.fit(data, train, field + rng.uniform(-5, 5, n), np.full(n, 50.0), common=common, residuals=True)
        assert np.abs(found.residual).max() > 0.01
        # single precision, and a fit that stops within 1e-4 of a standard error
        np.testing.assert_allclose(found.residual, found.residual[:1].repeat(n, axis=0), atol=2e-4)
        left = (np.abs(found.residual) ** 2).sum(axis=1) * found.size**2
        np.testing.assert_allclose(left, found.cost, rtol=1e-5)


@pytest.mark.parametrize("kind", FRACTIONS)
def test_errors_of_a_fraction_by_differences(kind):
    """The gradients of all that is told of two complex amplitudes, T1 weights included."""
    rng = np.random.default_rng(1)
    n = 30
    water, fat = rng.normal(size=(2, n)) + 1j * rng.normal(size=(2, n))
    weights = Weights(0.8, 1.1, 0.02, 0.05)
    root = rng.normal(size=(n, 4, 4))
    covariance = root @ np.swapaxes(root, 1, 2)
    told = fraction_of(water, fat, covariance, weights, kind)
    step = 1e-6
    for name in ("pdff", "water", "fat"):
        gradient = np.empty((n, 4))
        for i, (dw, df) in enumerate(((1, 0), (1j, 0), (0, 1), (0, 1j))):
            ends = [
                getattr(fraction_of(water + s * dw, fat + s * df, covariance, weights, kind), name)
                for s in (-step, step)
            ]
            gradient[:, i] = (ends[1] - ends[0]) / (2 * step)
        wanted = np.sqrt(np.einsum("vi,vij,vj->v", gradient, covariance, gradient))
        np.testing.assert_allclose(told.unit_sd[name], wanted, rtol=1e-6, err_msg=name)
    # relative errors of the weights move a ratio by p (1 - p) each, where the phases agree
    even = fraction_of(np.abs(water), np.abs(fat) + 0j, covariance, weights, kind)
    ends = [
        fraction_of(np.abs(water) + 0j, np.abs(fat) + 0j, covariance, Weights(0.8, 1.1 * (1 + s)), kind).pdff
        for s in (-1e-6, 1e-6)
    ]
    np.testing.assert_allclose(even.weight_sd, np.abs(ends[1] - ends[0]) / 2e-6 * np.hypot(0.02, 0.05), rtol=1e-6)


def test_fiellers_interval_is_exact_for_a_ratio_of_normals():
    """A sum of 4 SDs, and correlated errors: Fieller's interval covers 95 % within three SDs of the count."""
    rng = np.random.default_rng(0)
    n, p, total = 40_000, 0.3, 1.0
    covariance = np.zeros((n, 4, 4))
    sd, rho = 0.17, -0.5
    covariance[:, 0, 0] = covariance[:, 2, 2] = sd**2
    covariance[:, 0, 2] = covariance[:, 2, 0] = rho * sd**2
    errors = rng.multivariate_normal([0, 0], covariance[0][np.ix_([0, 2], [0, 2])], n)
    found = fraction_of(total * (1 - p) + errors[:, 0] + 0j, total * p + errors[:, 1] + 0j, covariance)
    low, high = found.interval(1.0, 1.959964)
    assert np.mean((low <= p) & (p <= high)) == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / n) + 1e-3)


# ---- the contract


@pytest.fixture(scope="module")
def noisy():
    """A smooth image of (2, 4, 5) voxels with two, three, or all of eight echoes."""
    times = np.arange(1, 9) * 1.1e-3
    rng = np.random.default_rng(6)
    p, r = rng.uniform(0.1, 0.4, 40), rng.uniform(30, 80, 40)
    psi = np.linspace(-20, 20, 40)
    return image(signal(p, r, psi, times) + noise((40, 8), 100, seed=7), times, (2, 4, 5), voxel_size=[2e-3] * 3)


def some(scan, name):
    """As many echoes as the method takes."""
    return scan.isel(echo=slice({"dixon-2pt": 2, "dixon-3pt": 3}.get(name)))


EVERY = pytest.mark.parametrize("name", FAT)


@EVERY
@pytest.mark.parametrize("intervals", [False, True])
def test_names_units_and_status(noisy, name, intervals):
    estimator = estimators.get(name)
    maps = estimator(some(noisy, name), sigma=0.01, intervals=intervals)
    wanted = {"status", *estimator.quantities, *(f"{q}_sd" for q in estimator.quantities)}
    assert set(maps.data_vars) == wanted | ({"pdff_lo", "pdff_hi"} if intervals else set())
    for variable in maps.data_vars.values():
        assert variable.dims == ("z", "y", "x") and variable.attrs["units"] and variable.attrs["long_name"]
    if intervals:
        assert ((maps.pdff_lo <= maps.pdff) & (maps.pdff <= maps.pdff_hi)).all()
    assert maps.status.dtype == np.uint16 and maps.attrs["method"] == name and "echo" not in maps.coords
    assert estimator.claims.is_file() and "doi:" in estimator.source


@EVERY
def test_outside_the_mask_is_nan_and_bad_voxels_say_so(noisy, name):
    estimator = estimators.get(name)
    scan = some(noisy, name).copy()
    mask = np.zeros((2, 4, 5), int)
    mask[:, 1:, :] = 3
    scan[0, 1, 1] = np.nan
    scan[0, 2, 2] = 0.0
    scan[1, 3, 3, 0] = np.inf
    maps = estimator(scan, mask=mask, sigma=0.01, intervals=True)
    assert (maps.status.values[mask == 0] == Status.OUTSIDE_MASK).all()
    good = mask > 0
    for v in ((0, 1, 1), (0, 2, 2), (1, 3, 3)):
        assert int(maps.status[v]) & Status.INVALID
        good[v] = False
    for variable in maps.data_vars:
        if variable != "status":
            assert np.isnan(maps[variable].values[~good]).all()
            assert np.isfinite(maps[variable].values[good]).all(), variable


@EVERY
@pytest.mark.parametrize("dims", [("x",), ("y", "x"), ("t", "z", "y", "x"), ()])
def test_any_number_of_dimensions(noisy, name, dims):
    scan = some(noisy, name)
    source = {"t": 1, "z": 2, "y": 4, "x": 5}
    values = scan.values
    shape = tuple(source[d] for d in dims)
    values = values[tuple(slice(None) if d in dims else 0 for d in ("z", "y", "x"))].reshape(*shape, -1)
    plain = xr.DataArray(values, dims=(*dims, "echo"), coords={"echo": scan.echo.values}, attrs={"field_strength": 3.0})
    maps = estimators.get(name)(plain, sigma=0.01)
    assert maps.pdff.dims == dims and maps.pdff.shape == shape and np.isfinite(maps.pdff).all()


def test_the_same_bits_with_any_number_of_threads(monkeypatch):
    data = signal(0.3, 60.0, 10.0) + noise((9000, 6), 50, seed=8)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("BONEMRI_THREADS", threads)
        scan = image(data, shape=(1, 90, 100))
        found.append([estimators.dixon(scan, sigma=sigma, intervals=True) for sigma in (0.02, None)])
    for one, other in zip(*found, strict=True):
        xr.testing.assert_identical(one, other)


def test_units_of_the_signal_do_not_matter():
    data = signal([0.1, 0.5, 0.9], 60.0, 10.0) + noise((3, 6), 50, seed=9)
    one, other = (estimators.dixon(image(data * scale), sigma=0.02 * scale) for scale in (1.0, 3e4))
    np.testing.assert_allclose(other.pdff, one.pdff, rtol=1e-9)
    np.testing.assert_allclose(other.pdff_sd, one.pdff_sd, rtol=1e-9)
    np.testing.assert_allclose(other.water_sd, one.water_sd * 3e4, rtol=1e-9)


@EVERY
def test_all_voxels_bad(noisy, name):
    maps = estimators.get(name)(xr.full_like(some(noisy, name), np.nan))
    assert ((maps.status & np.uint16(Status.INVALID)) > 0).all() and np.isnan(maps.pdff).all()


@EVERY
def test_any_order_of_echoes_and_any_kind_of_number(noisy, name):
    """Echoes as files have them, one axis anywhere, single precision: the same fit to the digits that are left."""
    scan, estimator = some(noisy, name), estimators.get(name)
    wanted = estimator(scan, sigma=0.01)
    order = np.random.default_rng(3).permutation(scan.sizes["echo"])
    shuffled = scan.isel(echo=order).transpose("x", "echo", "z", "y").astype(np.complex64)
    found = estimator(shuffled, sigma=0.01).transpose("z", "y", "x")
    # 24 bits of a signal of 1 against noise of .01: 6e-6 of an SD, and what a fit stops within
    assert (np.abs(found.pdff - wanted.pdff) < 1e-3 * wanted.pdff_sd).all()
    np.testing.assert_array_equal(found.status, wanted.status)


def test_three_echoes_leave_no_residual(noisy):
    """Six unknowns of six numbers: values without standard errors, unless the noise is told."""
    maps = estimators.dixon(noisy.isel(echo=slice(3)))
    assert np.isfinite(maps.pdff).all() and np.isnan(maps.pdff_sd).all()
    assert maps.attrs["sigma"].startswith("unknown") and "noise_sd" not in maps.attrs
    assert np.isfinite(estimators.dixon(noisy.isel(echo=slice(3)), sigma=0.01).pdff_sd).all()


def test_an_estimate_goes_through_netcdf(noisy, tmp_path):
    maps = estimators.dixon(noisy, sigma=0.01, intervals=True, spectrum=(2.86, 0.74, 16.92), gradient="slice")
    maps.to_netcdf(tmp_path / "maps.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "maps.nc", engine="h5netcdf", mask_and_scale=False) as back:
        xr.testing.assert_identical(back.load().drop_attrs(), maps.drop_attrs())
        assert set(back.attrs) == set(maps.attrs)
        np.testing.assert_array_equal(back.attrs["spectrum_area"], maps.attrs["spectrum_area"])
        assert back.attrs["noise_sd"] == 0.01


def test_an_estimate_tells_what_it_used(noisy):
    """Whoever chose it: default, scan or caller."""
    told = estimators.dixon(noisy, sigma=0.01).attrs
    ren = tissues.spectrum("fat_marrow")
    np.testing.assert_array_equal(told["spectrum_shift"], ren.shift)
    np.testing.assert_array_equal(told["spectrum_area"], ren.area)
    np.testing.assert_array_equal(told["echo_times"], noisy.echo)
    assert told["spectrum"] == "fat_marrow" and told["ndb"] == pytest.approx(2.86, abs=0.01)
    assert told["water_shift"] == tissues.water_shift(37.0) and told["water_shift_from"] == "temperature of the scan"
    assert told["temperature"] == 37.0 and told["field_strength"] == 3.0
    assert told["fraction"] == "real part of F/(W + F)" and "+i 2 pi fieldmap t" in told["sign"]
    assert told["T1_weighting"] == "not corrected for, and not known: the scan states no flip_angle and no TR"
    outside = noisy.drop_attrs().assign_attrs(field_strength=3.0)
    options = {"spectrum": ([1.3, 5.3], [3.0, 1.0]), "first_echo": "dropped", "fraction": "magnitude"}
    told = estimators.dixon(outside, sigma=0.01, **options).attrs
    np.testing.assert_array_equal(told["spectrum_area"], [0.75, 0.25])
    np.testing.assert_array_equal(told["echo_times"], noisy.echo[1:])
    assert told["spectrum"] == "given" and "ndb" not in told and "temperature" not in told
    assert told["water_shift"] == 4.70 and told["water_shift_from"] == "convention: the temperature is not known"
    assert told["fraction"] == "|F|/(|W| + |F|)"
    told = estimators.dixon(outside, sigma=0.01, temperature=20.0).attrs
    assert told["water_shift_from"] == "temperature, given" and told["temperature"] == 20.0
    for name in ("dixon-mixed", "dixon-2pt", "dixon-3pt", "dixon-magnitude"):
        told = estimators.get(name)(some(noisy, name), sigma=0.01).attrs
        assert told["spectrum"] == "fat_marrow" and told["noise_sd"] == 0.01 and "T1_weighting" in told
        assert len(told["echo_times"]) == some(noisy, name).sizes["echo"]


@pytest.mark.parametrize("where", ["attrs", "map"])
def test_an_estimate_tells_what_T1_does_to_it(where):
    """Half water, half fat in the steady state of a spoiled gradient echo, written out once more: what PDFF reads."""
    angle, repetition, b1 = 0.12, 0.009, 1.1
    means = tissues.defaults("marrow", 3.0)
    E = {name: np.exp(-repetition / means[name]) for name in ("T1_water", "T1_fat")}
    w, f = ((1 - e) / (1 - e * np.cos(b1 * angle)) for e in E.values())
    data = signal(0.5 * f / (0.5 * f + 0.5 * w), 50.0, 10.0)
    scan = image(data, flip_angle=angle, TR=repetition)
    if where == "attrs":
        scan.attrs["B1"] = b1
    else:
        scan = scan.assign_coords(B1=(("z", "y", "x"), np.full((1, 1, 1), b1)))
    plain = estimators.dixon(scan, sigma=1e-3)
    assert plain.attrs["pdff_read_at_half"] == pytest.approx(float(plain.pdff.item()), abs=1e-6)
    assert f"reads {100 * float(plain.pdff.item()):.1f} %" in plain.attrs["T1_weighting"]
    assert f"{np.rad2deg(angle) * b1:.3g} degrees" in plain.attrs["T1_weighting"]
    right = estimators.dixon(scan, sigma=1e-3, T1_correction=True, T1_water=means["T1_water"])
    assert float(right.pdff.item()) == pytest.approx(0.5, abs=1e-6)
    assert right.attrs["T1_weighting"] == "corrected for" and "pdff_read_at_half" not in right.attrs
    assert right.attrs["T1_water"] == means["T1_water"] and right.attrs["T1_water_sd"] == 0.0
    assert right.attrs["T1_water_from"] == "given"
    low, high = tissues.ranges("marrow", 3.0)["T1_fat"]
    assert right.attrs["T1_fat_sd"] == pytest.approx((high - low) / np.sqrt(12))
    assert right.attrs["T1_fat_from"] == "population mean of marrow at 3 T"


def test_T1_that_is_given_needs_no_population():
    """At a field without population means a correction needs both T1, and the weighting without one is not known."""
    scan = image(signal(0.4, 50.0, 10.0, field=0.55), field_strength=0.55, flip_angle=0.1, TR=0.01)
    maps = estimators.dixon(scan, sigma=1e-3, T1_correction=True, T1_water=0.8, T1_fat=0.2)
    assert np.isfinite(maps.pdff.item())
    assert "there are no population means of T1 at 0.55 T" in estimators.dixon(scan, sigma=1e-3).attrs["T1_weighting"]
    with pytest.raises(InputError, match="not known at field 0.55 T"):
        estimators.dixon(scan, sigma=1e-3, T1_correction=True, T1_water=0.8)
    wrong = estimators.dixon(scan.assign_attrs(flip_angle=5.0), sigma=1e-3)
    assert "flip_angle is 5 rad" in wrong.attrs["T1_weighting"]


def test_noise_alone_is_called_low_signal():
    maps = estimators.dixon(image(noise((400, 6), 1.0), shape=(1, 20, 20)), sigma=1.0)
    flagged = (maps.status & np.uint16(Status.LOW_SIGNAL | Status.NOT_IDENTIFIABLE)) > 0
    assert float(flagged.mean()) > 0.95
    assert np.isfinite(maps.pdff).all() or (maps.status.values[~np.isfinite(maps.pdff.values)] > 0).all()


def test_a_voxel_that_the_model_does_not_explain_says_so():
    data = signal(0.3, 60.0, 10.0).repeat(20, axis=0) + noise((20, 6), 50)
    data[7] *= np.exp(1j * np.array([0.0, 1.0, -1.0, 0.5, 0.0, 2.0]))
    status = estimators.dixon(image(data), sigma=0.02).status.values.ravel()
    assert status[7] & Status.OUTSIDE_DOMAIN and not (np.delete(status, 7) & Status.OUTSIDE_DOMAIN).any()


# ---- wrong calls, one line each


def times_of(scan, values, **attributes):
    return scan.assign_coords(echo=("echo", values, attributes))


WRONG = {
    "two echoes": (lambda s: s.isel(echo=[0, 1]), {}, "2 different times among 2 echoes; at least 3 are needed"),
    "equal echo times": (lambda s: times_of(s, np.full(8, 2e-3)), {}, "1 different time among 8 echoes; at least 3"),
    "times in ms": (lambda s: times_of(s, s.echo.values * 1e3), {}, r"echo times reach 8.8; .*given in ms"),
    "times said to be in ms": (lambda s: times_of(s, s.echo.values * 1e3, units="ms"), {}, "echo is in ms; expected s"),
    "NaN in times": (lambda s: times_of(s, [np.nan, *s.echo.values[1:]]), {}, "echo has values that are not finite"),
    "no field strength": (lambda s: s.drop_attrs(), {}, "the scan lacks field_strength"),
    "field strength in MHz": (lambda s: s.assign_attrs(field_strength=128.0), {}, "is 128; expected tesla"),
    "temperature in K": (lambda s: s, {"temperature": 310.0}, r"temperature is 310; expected C.*given in K"),
    "temperature in words": (lambda s: s, {"temperature": "warm"}, "temperature is 'warm'; expected a number"),
    "T1 in words": (
        lambda s: s.assign_attrs(flip_angle=0.1, TR=0.01), {"T1_correction": True, "T1_water": "long"},
        "T1_water is 'long'; expected seconds",
    ),
    "T1 in ms": (
        lambda s: s.assign_attrs(flip_angle=0.1, TR=0.01), {"T1_correction": True, "T1_water": 1400.0},
        "T1_water reaches 1400 to 1400; expected seconds",
    ),
    "flip angle in degrees": (
        lambda s: s.assign_attrs(flip_angle=5.0, TR=0.01), {"T1_correction": True}, "given in degrees",
    ),
    "bounds of water": (lambda s: s, {"bounds": {"water": (0, 1)}}, "bounds name 'water'; expected r2star"),
    "bounds upside down": (lambda s: s, {"bounds": {"r2star": (9, 1)}}, "expected .low, high. with low < high"),
    "a number as spectrum": (lambda s: s, {"spectrum": 6}, "spectrum is 6; expected a name"),
    "magnitudes": (lambda s: np.abs(s), {}, "the scan has no phase .*dixon-magnitude does without"),
    "integers": (lambda s: (np.abs(s) * 100).astype(np.int16), {}, "the scan has no phase"),
    "words": (lambda s: s.astype(str), {}, "expected numbers"),
    "no echo": (lambda s: s.rename(echo="b"), {}, "expected one called echo"),
    "unknown option": (lambda s: s, {"phase": "free"}, "option phase is unknown"),
    "unknown fraction": (lambda s: s, {"fraction": "best"}, "option fraction is 'best'; expected real or magnitude or"),
    "unknown spectrum": (lambda s: s, {"spectrum": "fat_moon"}, "no fat spectrum 'fat_moon'"),
    "half a spectrum": (lambda s: s, {"spectrum": ([1.3, 5.3], [1.0])}, "expected a name, .shifts, areas."),
    "negative areas": (lambda s: s, {"spectrum": ([1.3, 5.3], [1.0, -0.1])}, "not negative"),
    "a composition that is none": (lambda s: s, {"spectrum": (1.0, 3.0, 17.0)}, "negative number of protons"),
    "bipolar words": (lambda s: s, {"bipolar": "yes"}, "option bipolar is 'yes'; expected True or False"),
    "common and bipolar": (lambda s: s, {"phases": "common", "bipolar": True}, 'goes with phases="free"'),
    "T1 without wish": (lambda s: s, {"T1_water": 1.4}, "expected T1_correction=True"),
    "T1 without TR": (lambda s: s, {"T1_correction": True}, "lacks flip_angle"),
    "too few after dropping": (lambda s: s.isel(echo=[0, 1, 2]), {"first_echo": "dropped"}, "different echo times"),
    "sigma 0": (lambda s: s, {"sigma": 0.0}, "expected a positive noise SD"),
    "mask of another shape": (lambda s: s, {"mask": np.ones((1, 4, 5))}, "the mask has shape"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_calls(noisy, what):
    change, options, message = WRONG[what]
    with pytest.raises(InputError, match=message) as caught:
        estimators.dixon(change(noisy), **options)
    assert "\n" not in str(caught.value)
