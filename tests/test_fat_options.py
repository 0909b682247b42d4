"""Confounders of water-fat imaging and the options against them; two and three points, magnitudes, mixed fitting."""

import numpy as np
import pytest
import xarray as xr

from bonemri import estimators, phantoms, simulator
from bonemri.errors import InputError
from bonemri.estimators import Status
from bonemri.estimators.fat.composition import triglyceride
from bonemri.estimators.fat.gradient import slopes
from bonemri.estimators.fat.start import projected, projected_covariance
from bonemri.estimators.fat.train import Train
from bonemri.simulator import cramer_rao_bound, equations, protocols, tissues, water_fat

TE = np.array(protocols.dixon_marrow["TE"])


def train(times=TE, spectrum="fat_marrow", water=None):
    """Settings of the water-fat equations at 3 T."""
    water = tissues.water_shift() if water is None else water
    c = water_fat.fat_signal(np.asarray(times), 3.0, water_fat.spectrum_of(spectrum), water)
    return water_fat.settings_of(times, c, np.arange(len(times)))


def signal(pdff, r2star, fieldmap, times=TE, **how):
    theta = {"S0": 1.0, "pdff": pdff, "r2star": r2star, "fieldmap": fieldmap, "phase": 0.3, "phase_fat": 0.0}
    return equations.water_fat.signal(theta, train(times, **how))


def noise(shape, snr, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / snr


def image(data, times=TE, shape=None, **attrs):
    data = np.asarray(data).reshape(*(shape or (1, 1, len(data))), -1)
    named = {"field_strength": 3.0, "temperature": tissues.BODY_TEMPERATURE, **attrs}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": times}, attrs=named)


@pytest.fixture(scope="module")
def vials():
    """Oil in gel: PDFF 0, 10, 50 %, R2* 50 and 100 1/s; T1 of both, to correct for it."""
    made = phantoms.vials("pdff", pdff=[0.0, 0.1, 0.5], r2star=[50.0, 100.0], resolution=4e-3)
    inside = np.isfinite(made.truth.pdff)
    water, oil = (float(made.pools.T1_observed.sel(pool=f"{name}_50")) for name in ("water", "oil"))
    return made, inside, {"T1_correction": True, "T1_water": water, "T1_fat": oil}


def worst(maps, vials):
    """Largest error of the fraction over the vials."""
    made, inside, _ = vials
    return float(np.abs(maps.pdff - made.truth.pdff).values[inside].max())


# ---- phases


def test_one_phase_for_water_and_fat():
    """Recovery, the bound of the five unknowns, and no floor at 0 although nothing is clipped."""
    p, r = np.array([0.0, 0.02, 0.5, 0.97, 1.0]), np.array([40.0, 60.0, 90.0, 50.0, 30.0])
    found = estimators.dixon(image(signal(p, r, 20.0)), sigma=1e-3, phases="common")
    np.testing.assert_allclose(found.pdff[0, 0], p, atol=1e-6)
    np.testing.assert_allclose(found.r2star[0, 0], r, atol=1e-4)
    n, snr = 20_000, 60
    data = signal(0.3, 60.0, 20.0) + noise((n, 6), snr, seed=1)
    maps = estimators.dixon(image(data, shape=(1, 100, 200)), sigma=1 / snr, phases="common")
    tissue = {"water": 0.7, "fat": 0.3, "phase": 0.3, "fieldmap": 20.0, "r2star": 60.0}
    rate = cramer_rao_bound(equations.water_fat_common, tissue, train(), 1 / snr)[0, 4]
    # an efficiency of 20 000 draws has an SD of 1 %
    assert 0.96 - 0.03 < rate**2 / float(maps.r2star.var()) < 1.05
    assert float(maps.pdff_sd.mean() / maps.pdff.std()) == pytest.approx(1.0, abs=0.03)
    water = signal(0.0, 60.0, 20.0) + noise((n, 6), 20, seed=2)
    bias = float(estimators.dixon(image(water, shape=(1, 100, 200)), sigma=0.05, phases="common").pdff.mean())
    assert abs(bias) < 0.003 + 0.0009  # .3 points; 4.3 points / sqrt(20 000) three times


def test_a_phase_and_the_opposite_one_are_told_apart():
    """Of noise too: the sum of water and fat is what is positive, whatever the two are."""
    maps = estimators.dixon(image(noise((2000, 6), 1.0, seed=13), shape=(1, 40, 50)), sigma=1.0, phases="common")
    assert float((maps.water + maps.fat).min()) >= 0


def test_fat_with_a_phase_of_its_own():
    """Phases are free: R2*, field and the magnitude ratio do not mind what the phase of fat is."""
    theta = {
        "S0": 1.0,
        "pdff": 0.3,
        "r2star": 60.0,
        "fieldmap": 10.0,
        "phase": 0.3,
        "phase_fat": np.array([0, 0.4, -1]),
    }
    data = equations.water_fat.signal(theta, train())
    maps = estimators.dixon(image(data), sigma=1e-3, fraction="magnitude")
    np.testing.assert_allclose(maps.pdff[0, 0], 0.3, atol=1e-6)
    np.testing.assert_allclose(maps.r2star[0, 0], 60.0, atol=1e-4)


def test_phase_error_of_the_first_echo(vials):
    """As of eddy currents: of pure water the magnitude ratio makes fat, the real part hardly; the residual tells it.

    Gone with the echo's phase, and three ways to be rid of it agree.
    """
    made, inside, corrected = vials
    scan = simulator.scan(made, protocols.dixon_marrow, rung="pools", first_echo_phase=0.25)
    kept = estimators.dixon(scan, mask=inside, sigma=1e-3, **corrected)
    assert worst(kept, vials) > 1e-3
    assert worst(estimators.dixon(scan, mask=inside, sigma=1e-3, fraction="magnitude", **corrected), vials) > 0.02
    # at half fat the first echo, water and fat opposed, has hardly a signal whose phase could be wrong
    told = inside.values & (made.truth.pdff.values < 0.2)
    assert ((kept.status.values[told] & Status.OUTSIDE_DOMAIN) > 0).all()
    for choice in ("free", "dropped"):
        maps = estimators.dixon(scan, mask=inside, sigma=1e-3, first_echo=choice, **corrected)
        assert worst(maps, vials) < 1e-6, choice
    free = estimators.dixon(scan, mask=inside, sigma=1e-3, first_echo="free")
    np.testing.assert_allclose(free.first_phase.values[inside], 0.25, atol=1e-5)
    mixed = estimators.dixon_mixed(scan, mask=inside, sigma=1e-3)
    for name in ("pdff", "r2star", "pdff_sd", "r2star_sd"):
        np.testing.assert_array_equal(mixed[name], free[name])


def test_mixed_fitting_is_magnitude_fitting_of_the_first_echo():
    """The first echo's phase, turned at random voxel by voxel, changes nothing; at the bound of its seven unknowns."""
    n, snr = 10_000, 100
    data = signal(0.3, 60.0, 20.0) + noise((n, 6), snr, seed=3)
    turned = data.copy()
    turned[:, 0] *= np.exp(1j * np.random.default_rng(4).uniform(-1, 1, n))
    one, other = (estimators.dixon_mixed(image(d, shape=(1, 100, 100)), sigma=1 / snr) for d in (data, turned))
    np.testing.assert_allclose(one.pdff, other.pdff, atol=5e-6)  # fits stop within 1e-4 of an SD of .01
    model = water_fat.WaterFat("water_fat_mixed")
    tissue = {"S0": 1.0, "pdff": 0.3, "r2star": 60.0, "fieldmap": 20.0, "phase": 0.3, "phase_fat": 0, "first_phase": 0}
    limits = cramer_rao_bound(model, tissue, {"TE": TE, "field_strength": 3.0}, 1 / snr)[0, 1:3]
    for name, limit, truth in zip(("pdff", "r2star"), limits, (0.3, 60.0), strict=True):
        # an efficiency of 10 000 draws has an SD of 1.4 %
        assert 0.96 - 0.042 < limit**2 / float(one[name].var()) < 1.06
        assert 0.933 < float((np.abs(one[name] - truth) < 1.96 * one[f"{name}_sd"]).mean()) < 0.967


def test_bipolar_train(vials):
    made, inside, corrected = vials
    scan = simulator.scan(made, protocols.dixon_marrow_bipolar, rung="pools", bipolar_phase=0.2)
    assert worst(estimators.dixon(scan, mask=inside, sigma=1e-3, **corrected), vials) > 0.01
    maps = estimators.dixon(scan, mask=inside, sigma=1e-3, bipolar=True, **corrected)
    assert worst(maps, vials) < 1e-6
    np.testing.assert_allclose(maps.bipolar_phase.values[inside], 0.2, atol=1e-5)
    # so large a phase error moves the field map's minima: it is found from the odd echoes alone
    times = np.arange(1, 9) * 1.1e-3
    data = signal(np.array([0.1, 0.3, 0.5, 0.7, 0.9]), 60.0, 30.0, times)
    data[:, 1::2] *= np.exp(1.4j)
    maps = estimators.dixon(image(data, times), sigma=1e-3, bipolar=True)
    np.testing.assert_allclose(maps.pdff[0, 0], [0.1, 0.3, 0.5, 0.7, 0.9], atol=1e-6)


def test_interleaved_train(vials):
    """The order of an echo is counted after its own excitation: each of two trains has a first echo."""
    made, inside, corrected = vials
    scan = simulator.scan(made, protocols.dixon_marrow_interleaved, rung="pools", first_echo_phase=0.25)
    maps = estimators.dixon(scan, mask=inside, sigma=1e-3, first_echo="free", **corrected)
    assert worst(maps, vials) < 1e-6


# ---- spectrum, temperature, rates, T1, gradients


def test_temperature_of_the_water():
    """At 20 C water stands .18 ppm higher: 24 Hz at 3 T."""
    data = signal(0.3, 60.0, 10.0, water=tissues.water_shift(20.0))
    scan = image(data)
    right = estimators.dixon(scan, sigma=1e-3, temperature=20.0)
    assert float(right.pdff.item()) == pytest.approx(0.3, abs=1e-6)
    wrong = estimators.dixon(scan, sigma=1e-3)
    assert abs(float(wrong.r2star.item()) - 60.0) > 5.0 or abs(float(wrong.pdff.item()) - 0.3) > 0.01
    outside = estimators.dixon(scan.drop_attrs().assign_attrs(field_strength=3.0), sigma=1e-3)
    named = estimators.dixon(scan, sigma=1e-3, temperature=(5.048 - water_fat.OUTSIDE_WATER) / 0.01085)
    assert float(outside.pdff.item()) == pytest.approx(float(named.pdff.item()), abs=1e-9)


def test_spectrum_of_the_fat():
    """The liver's spectrum instead of the marrow's: about two points of PDFF and 20 1/s, as Daude 2024 found."""
    p = np.array([0.1, 0.4, 0.9])
    scan = image(signal(p, 60.0, 10.0, spectrum="fat_liver"))
    np.testing.assert_allclose(estimators.dixon(scan, sigma=1e-3, spectrum="fat_liver").pdff[0, 0], p, atol=1e-6)
    wrong = estimators.dixon(scan, sigma=1e-3)
    error = np.abs(wrong.pdff[0, 0] - p)
    assert 1e-3 < float(error.max()) < 0.025 and 5.0 < float(np.abs(wrong.r2star - 60).max()) < 25.0
    given = signal(p, 60.0, 10.0, spectrum=(3.1, 0.9, 17.1))
    np.testing.assert_allclose(
        estimators.dixon(image(given), sigma=1e-3, spectrum=(3.1, 0.9, 17.1)).pdff[0, 0], p, atol=1e-6
    )
    single = estimators.dixon(scan, sigma=1e-3, spectrum=([1.30], [1.0]))
    assert float(np.abs(single.pdff[0, 0] - p).max()) > float(error.max())


def test_spectrum_told_by_the_image():
    """Of the fitted family the composition comes back; of the default it is near, and better than the liver's."""
    rng = np.random.default_rng(11)
    n, snr = 900, 100
    p, r = rng.uniform(0.1, 0.95, n), rng.uniform(30, 90, n)
    theta = {"S0": 1.0, "pdff": p, "r2star": r, "fieldmap": 12.0, "phase": 0.3, "phase_fat": 0.0}
    made_of = triglyceride(3.4)
    clean = equations.water_fat.signal(theta, train(spectrum=made_of))
    found = estimators.dixon(image(clean, shape=(1, 30, 30)), sigma=1e-3, spectrum="fitted")
    assert found.attrs["ndb"] == pytest.approx(3.4, abs=1e-3)
    np.testing.assert_allclose(found.pdff.values.ravel(), p, atol=1e-5)
    pull = []
    for seed in range(12):
        scan = image(clean + noise(clean.shape, snr, seed), shape=(1, 30, 30))
        maps = estimators.dixon(scan, sigma=None if seed % 2 else 1 / snr, spectrum="fitted")
        pull.append((maps.attrs["ndb"] - 3.4) / maps.attrs["ndb_sd"])
    # twelve standard normal numbers: a root mean square of .51 to 1.54 in 99 % (chi-square)
    assert 0.5 < np.sqrt(np.mean(np.square(pull))) < 1.55
    scan = image(equations.water_fat.signal(theta, train()), shape=(1, 30, 30))
    error = {s: np.abs(estimators.dixon(scan, sigma=1e-3, spectrum=s).pdff.values.ravel() - p).max()
             for s in ("fitted", "fat_liver")}  # fmt: skip
    assert error["fitted"] < 0.5 * error["fat_liver"]
    with pytest.raises(InputError, match="no voxel has 20% fat"):
        estimators.dixon(image(signal(0.0, 50.0, 0.0)), sigma=1e-3, spectrum="fitted")


def test_two_rates():
    """Water decays twice as fast as fat: one rate is wrong, two are right; the bias of one is that without noise."""
    times = np.arange(1, 13) * 1.0e-3
    theta = dict(zip([q.name for q in equations.dixon.AMPLITUDES], (0.6, 0.1, 0.4, 0.1), strict=True))
    data = equations.water_fat_dual.signal(
        theta | {"fieldmap": 15.0, "r2star": 100.0, "r2star_fat": 50.0}, train(times)
    )
    two = estimators.dixon(image(data, times), sigma=1e-3, rates="two", fraction="magnitude")
    wanted = np.hypot(0.4, 0.1) / (np.hypot(0.4, 0.1) + np.hypot(0.6, 0.1))
    assert float(two.pdff.item()) == pytest.approx(wanted, abs=1e-6)
    assert float(two.r2star.item()) == pytest.approx(100.0, abs=1e-4)
    assert float(two.r2star_fat.item()) == pytest.approx(50.0, abs=1e-4)
    limit = float(estimators.dixon(image(data, times), sigma=1e-3).pdff.item())
    n = 4000
    noisy = estimators.dixon(image(data + noise((n, 12), 100, seed=5), times, (1, 40, 100)), sigma=0.01)
    assert abs(limit - wanted) > 0.01
    assert float(noisy.pdff.mean()) == pytest.approx(limit, abs=3 * float(noisy.pdff.std()) / np.sqrt(n))


@pytest.mark.parametrize("pdff", [0.02, 0.05])
def test_a_fraction_of_two_rates_is_good_only_where_both_are_told(pdff):
    """Where there is next to no fat its rate is not told, and the fraction errs farther than its standard error."""
    times = 1.2e-3 + 1.0e-3 * np.arange(12)
    amplitudes = {"water_real": 1 - pdff, "water_imag": 0.0, "fat_amplitude_real": pdff, "fat_amplitude_imag": 0.0}
    theta = amplitudes | {"fieldmap": 20.0, "r2star": 50.0, "r2star_fat": 40.0}
    clean = equations.water_fat_dual.signal({name: np.full(4000, v) for name, v in theta.items()}, train(times))
    found = estimators.dixon(
        image(clean + noise(clean.shape, 50), times, (1, 50, 80)), sigma=1 / 50, rates="two", intervals=False
    )
    error, told, good = (a.values.ravel() for a in (found.pdff - pdff, found.pdff_sd, found.status == 0))
    open_ = ~good
    assert ((found.status.values.ravel()[open_] & Status.NOT_IDENTIFIABLE) != 0).mean() > 0.9
    assert np.std(error[open_]) > 1.5 * np.std(error[good])
    # at least 93 %, and what chance takes from so few (four standard errors)
    covered = (np.abs(error) < 1.96 * told)[good]
    assert covered.mean() > 0.93 - 4 * np.sqrt(0.05 * 0.95 / covered.size)


def test_T1_that_is_not_known_widens_the_error():
    """Of p by p (1 - p) times the relative error of the weight, which at small angles and short TR is that of T1."""
    data = signal(0.4, 60.0, 10.0).repeat(4, axis=0)
    scan = image(data, flip_angle=1.2, TR=2e-3, B1=1.0)
    means = tissues.defaults("marrow", 3.0)
    known = {"T1_correction": True, "T1_water_sd": 0.0, "T1_fat_sd": 0.0}
    plain = estimators.dixon(scan, sigma=0.01, **known)
    spread = estimators.dixon(scan, sigma=0.01, **known | {"T1_water_sd": 0.1 * means["T1_water"]})
    # a population mean brings its range along, where nothing is said of its error
    default = estimators.dixon(scan, sigma=0.01, T1_correction=True)
    low, high = tissues.ranges("marrow", 3.0)["T1_water"]
    stated = {"T1_water_sd": (high - low) / np.sqrt(12)}
    low, high = tissues.ranges("marrow", 3.0)["T1_fat"]
    stated["T1_fat_sd"] = (high - low) / np.sqrt(12)
    np.testing.assert_array_equal(default.pdff_sd, estimators.dixon(scan, sigma=0.01, **known | stated).pdff_sd)
    np.testing.assert_array_equal(plain.pdff, spread.pdff)
    p = plain.pdff.values
    added = np.sqrt(spread.pdff_sd.values**2 - plain.pdff_sd.values**2)
    # saturated: the signal goes as 1/T1, but for TR/T1 of a few thousandths
    np.testing.assert_allclose(added, p * (1 - p) * 0.1, rtol=0.01)
    maps = np.linspace(0.8, 2.0, 4)
    varied = estimators.dixon(scan, sigma=0.01, T1_correction=True, T1_water=maps.reshape(1, 1, 4)).pdff.values.ravel()
    assert (np.diff(varied) < 0).all()  # slower water shows less of itself: there is more of it


def test_a_map_of_B1_and_of_T1():
    """Voxel by voxel as alone; where T1 is not known there is no fraction, and the voxel says so."""
    data = signal(0.4, 60.0, 10.0).repeat(3, axis=0)
    b1, T1 = np.array([0.8, 1.0, 1.2]), np.array([0.9, 1.4, np.nan])
    scan = image(data, flip_angle=0.2, TR=0.01)
    mapped = scan.assign_coords(B1=(("z", "y", "x"), b1.reshape(1, 1, 3)))
    maps = estimators.dixon(mapped, sigma=0.01, T1_correction=True, T1_water=T1.reshape(1, 1, 3)).isel(z=0, y=0)
    for v in (0, 1):
        one = scan.isel(x=[v]).assign_attrs(B1=b1[v])
        alone = estimators.dixon(one, sigma=0.01, T1_correction=True, T1_water=float(T1[v]))
        assert float(maps.pdff[v]) == pytest.approx(float(alone.pdff.item()), abs=1e-9)
    assert np.isnan(maps.pdff[2]) and int(maps.status[2]) & Status.NOT_IDENTIFIABLE
    assert float(maps.pdff[0]) != pytest.approx(float(maps.pdff[1]), abs=1e-3)


@pytest.fixture(scope="module")
def tilted():
    """A field that rises by 40, 10 and 5 Hz from face to face of a voxel, averaged over the voxel exactly."""
    z, y, x = np.mgrid[0:4, 0:6, 0:8]
    data = signal(0.3, 50.0, (40.0 * z + 10.0 * y + 5.0 * x).ravel())
    for rise in (40.0, 10.0, 5.0):
        data = data * np.sinc(rise * TE)
    return image(data, shape=(4, 6, 8))


def test_a_gradient_across_the_voxel_is_no_part_of_R2star(tilted):
    rate = {how: estimators.dixon(tilted, sigma=1e-3, gradient=how).r2star for how in ("ignored", "slice", "voxel")}
    assert float(rate["ignored"].min()) > 65.0
    assert 50.5 < float(rate["slice"].min()) and float(rate["slice"].max()) < 54.0
    np.testing.assert_allclose(rate["voxel"], 50.0, atol=1e-3)
    with pytest.raises(InputError, match="gradient='voxel' goes with free phases"):
        estimators.dixon(tilted, gradient="voxel", bipolar=True)


def test_a_gradient_is_read_off_neighbours():
    one = image(signal([0.3], [50.0], [10.0]))
    for gradient in ("slice", "voxel"):
        with pytest.raises(InputError, match="the image has one slice"):
            estimators.dixon(one, gradient=gradient)


def test_slopes_of_a_field():
    """Central inside, one-sided at a rim, the smaller at a step, none for a voxel alone."""
    field = np.array([0.0, 10.0, 20.0, 320.0, 330.0, np.nan, 5.0])
    found = slopes(field, np.array([1, 1, 1, 1, 1, 0, 1], bool))[:, 0]
    np.testing.assert_array_equal(found, [10, 10, 10, 10, 10, 0, 0])


def test_T2star_on_request():
    maps = estimators.dixon(image(signal([0.2, 0.5], 50.0, 0.0)), sigma=0.01, t2star=True)
    np.testing.assert_allclose(maps.t2star, 0.02, rtol=1e-6)
    np.testing.assert_allclose(maps.t2star_sd, maps.r2star_sd * 4e-4, rtol=1e-6)
    assert maps.t2star.attrs["units"] == "s"


def test_bounds_of_R2star():
    data = signal(0.3, 20.0, 0.0) + noise((300, 6), 15, seed=6)
    free = estimators.dixon(image(data), sigma=1 / 15)
    held = estimators.dixon(image(data), sigma=1 / 15, bounds={"r2star": (0.0, 300.0)})
    assert float(free.r2star.min()) < 0 <= float(held.r2star.min())
    assert ((held.status.values[held.r2star.values == 0] & Status.AT_BOUND) > 0).all()


# ---- two and three points


def test_projection_is_linear_least_squares():
    """Water, fat and their covariance at a known field and rate, against numpy's least squares of real parts."""
    rng = np.random.default_rng(12)
    c = train()["fat_real"] + 1j * train()["fat_imag"]
    echoes = Train(TE, c, np.arange(6), None)
    rate = np.array([10.0, 150.0])
    data = rng.normal(size=(2, 6)) + 1j * rng.normal(size=(2, 6))
    water, fat = projected(data, echoes, np.zeros(2), rate)
    covariance = projected_covariance(echoes, rate)
    for v in range(2):
        columns = np.exp(-rate[v] * TE)[:, None] * np.stack([np.ones(6), 1j * np.ones(6), c, 1j * c], axis=1)
        real = np.concatenate([columns.real, columns.imag])
        wanted = np.linalg.lstsq(real, np.concatenate([data[v].real, data[v].imag]), rcond=None)[0]
        np.testing.assert_allclose([water[v].real, water[v].imag, fat[v].real, fat[v].imag], wanted, rtol=1e-9)
        np.testing.assert_allclose(covariance[v], np.linalg.inv(real.T @ real), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def regions():
    """Fat about muscle and a stripe of half and half, in a field that bends by 100 Hz: pdff and Hz, (40, 40)."""
    y, x = np.mgrid[0:40, 0:40] / 40
    pdff = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, 0.1, 0.9)
    pdff[20:22] = 0.5
    return pdff, 60 * np.sin(3 * x) + 40 * y - 20


def test_three_echoes(regions):
    """Exact where R2* is given; a forgotten R2* is model error, not noise."""
    pdff, field = regions
    times = np.array([2.147e-3, 2.928e-3, 3.708e-3])
    data = signal(pdff.ravel(), 50.0, field.ravel(), times)
    scan = image(data, times, (1, 40, 40))
    maps = estimators.dixon_3pt(scan, sigma=1e-3, r2star=50.0)
    np.testing.assert_allclose(maps.pdff[0], pdff, atol=1e-6)
    np.testing.assert_allclose(maps.fieldmap[0], field, atol=1e-4)
    same = estimators.dixon_3pt(scan, sigma=1e-3, r2star=np.full((1, 40, 40), 50.0))
    np.testing.assert_allclose(same.pdff, maps.pdff, atol=1e-9)
    assert np.abs(estimators.dixon_3pt(scan, sigma=1e-3).pdff[0] - pdff).max() > 1e-3
    noisy = estimators.dixon_3pt(image(data + noise(data.shape, 50), times, (1, 40, 40)), sigma=0.02, r2star=50.0)
    covered = np.abs(noisy.pdff.values[0] - pdff) < 1.96 * noisy.pdff_sd.values[0]
    assert 0.95 - 0.02 < covered.mean() < 0.95 + 0.02


def test_times_after_a_spin_echo(vials):
    """The dimension may be called `time`; with R2* given, water has no fat (T1 and T2 weight the other fractions)."""
    made, inside, _ = vials
    scan = simulator.scan(made, protocols.dixon_spin_echo, rung="pools")
    assert "time" in scan.dims
    rate = sum(
        made.pools.volume_fraction.sel(pool=[f"water_{r}", f"oil_{r}"]).sum("pool") * r for r in (50, 100)
    ).values
    water = inside.values & (made.truth.pdff.values == 0)
    three = estimators.dixon_3pt(scan, mask=inside, sigma=1e-3, r2star=rate)
    two = estimators.dixon_2pt(scan.isel(time=[0, 1]), mask=inside, sigma=1e-3, r2star=rate)
    for maps in (three, two):
        assert np.abs(maps.pdff.values[water]).max() < 1e-6
        assert (maps.pdff.values[inside.values & ~water] > 0.05).all()


def test_wrong_calls_of_few_points():
    scan = image(signal(0.3, 50.0, 0.0))
    for call, options, message in (
        (estimators.dixon_2pt, {}, "the scan has 6 echoes; take two of them"),
        (estimators.dixon_3pt, {"r2star": -5.0}, "r2star reaches -5"),
        (estimators.dixon_3pt, {"r2star": "40"}, "option r2star is '40'; expected a number"),
    ):
        with pytest.raises(InputError, match=message):
            call(scan, **options)
    for call, points in ((estimators.dixon_2pt, 1), (estimators.dixon_3pt, 2), (estimators.dixon_mixed, 3)):
        with pytest.raises(InputError, match=f"{points} different times? among {points} echoe?s?"):
            call(scan.isel(echo=slice(points)))


# ---- magnitudes


@pytest.mark.parametrize("pdff", [0.05, 0.3, 0.5, 0.8])
def test_magnitudes_at_high_signal(pdff):
    """Recovery without noise, and at SNR 100 the bound and no wrong minimum."""
    clean = signal(pdff, 60.0, 40.0)
    alone = estimators.dixon_magnitude(image(clean), sigma=1e-4)
    assert float(alone.pdff.item()) == pytest.approx(pdff, abs=1e-6)
    assert float(alone.r2star.item()) == pytest.approx(60.0, abs=1e-3)
    n, snr = 5000, 100
    scan = image(clean + noise((n, 6), snr, seed=8))
    maps = estimators.dixon_magnitude(scan, sigma=1 / snr, intervals=True)
    tissue = {"S0": 1.0, "pdff": pdff, "r2star": 60.0}
    model = water_fat.WaterFat("water_fat_magnitude")
    limit = cramer_rao_bound(model, tissue, {"TE": TE, "field_strength": 3.0}, 1 / snr, "rician")[0, 1]
    # an efficiency of 5000 draws has an SD of 2 %
    assert 0.96 - 0.06 < limit**2 / float(maps.pdff.var()) < 1.08
    assert abs(float(maps.pdff.mean()) - pdff) < (0.1 + 3 / np.sqrt(n)) * limit
    same = estimators.dixon_magnitude(np.abs(scan), sigma=1 / snr, intervals=True)
    xr.testing.assert_identical(maps.drop_attrs(), same.drop_attrs())


@pytest.mark.parametrize("pdff", [0.1, 0.3, 0.9])
def test_magnitudes_at_low_signal_call_themselves_ambiguous(pdff):
    """At SNR 20 up to a quarter of the voxels are in the wrong minimum; under 1 % of all without saying so."""
    n = 4000
    scan = np.abs(image(signal(pdff, 60.0, 40.0) + noise((n, 6), 20, seed=9)))
    maps = estimators.dixon_magnitude(scan, sigma=0.05, intervals=True, both=True)
    wrong = np.abs(maps.pdff.values - pdff) > 0.2
    flagged = (maps.status.values & Status.AMBIGUOUS) > 0
    assert wrong.mean() > 0.03
    assert (wrong & ~flagged).mean() < 0.01
    nearer = np.fmin(np.abs(maps.pdff - pdff), np.abs(maps.pdff_other - pdff))
    assert float((nearer > 0.2).mean()) < 0.01  # one of the two minima is the right one
    inside = (maps.pdff_lo <= pdff) & (pdff <= maps.pdff_hi)
    assert 0.93 < float(inside.mean()) < 0.99


def test_rician_data_want_their_likelihood():
    """Short T2* and SNR 15: the floor of the late echoes pulls a Gaussian fit of R2*, not a Rician one."""
    times = np.arange(1, 13) * 1.2e-3
    scan = np.abs(image(signal(0.1, 200.0, 0.0, times) + noise((6000, 12), 15, seed=10), times))
    bias = {
        how: float(estimators.dixon_magnitude(scan, sigma=1 / 15, likelihood=how).r2star.median()) - 200.0
        for how in ("gaussian", "rician")
    }
    assert bias["gaussian"] < -10.0
    assert abs(bias["rician"]) < 0.4 * abs(bias["gaussian"])


# ---- what a phase error of any size, or no residual, leads to


@pytest.mark.parametrize("angle", [2.5, np.pi, -2.5])
def test_a_phase_error_of_any_size_is_found(angle):
    """Noise-free and within the model: whatever the angle is, the fit starts where the data have it."""
    pdff = np.linspace(0.05, 0.95, 12)
    clean = signal(pdff, 60.0, 20.0)
    for echoes, options in ((slice(0, 1), {"first_echo": "free"}), (slice(1, None, 2), {"bipolar": True})):
        data = clean.copy()
        data[:, echoes] *= np.exp(1j * angle)
        maps = estimators.dixon(image(data), sigma=1e-3, **options)
        np.testing.assert_allclose(maps.pdff.values.ravel(), pdff, atol=1e-6)
        found = maps["first_phase" if "first_echo" in options else "bipolar_phase"].values.ravel()
        # an angle and its turn by 2 pi are one
        np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * angle), atol=1e-5)
        assert not (maps.status.values & Status.AT_BOUND).any()


def test_an_SD_that_nothing_tells_is_not_identifiable():
    """Three echoes are six numbers for six unknowns: without sigma no residual is left to tell the noise by."""
    times = TE[:3]
    data = signal(np.full(6, 0.3), 40.0, 10.0, times) + noise((6, 3), 50)
    maps = estimators.dixon(image(data, times))
    assert np.isnan(maps.pdff_sd).all()
    assert (maps.status.values & Status.NOT_IDENTIFIABLE).all()


def test_a_misfit_that_hardly_moves_the_fraction_is_no_reason_to_doubt_a_voxel():
    """Water and fat of marrow decay apart, which neighbours show together at SNR 100, but noise of that size would not
    move the fraction by a point; at SNR 300 the residual of a voxel alone is beyond three times the noise."""
    marrow = phantoms.marrow_block(shape=(1, 40, 40), pdff=0.4)
    for snr, flagged in ((100, False), (300, True)):
        found = estimators.dixon(simulator.scan(marrow, "dixon_marrow", snr=snr, seed=3))
        assert (np.mean((found.status.values & Status.OUTSIDE_DOMAIN) > 0) > 0.5) == flagged
