"""Water and fat from magnitudes: both minima wherever they lie, misfit, and the noise of an image with air."""

import numpy as np
import pytest
import xarray as xr

from bonemri import estimators
from bonemri.estimators import Status, solver
from bonemri.estimators.fat import magnitude
from bonemri.simulator import equations, protocols, tissues, water_fat

TWELVE = np.arange(1, 13) * 1e-3
MODEL = equations.water_fat_magnitude


def train(name):
    """Echo times (s) and field (T) of a preset; without a name twelve echoes at 3 T."""
    if name is None:
        return TWELVE, 3.0
    protocol = protocols.get(name)
    return np.array(protocol["TE"]), float(protocol.field_strength)


def settings(name, water):
    times, field = train(name)
    c = water_fat.fat_signal(times, field, water_fat.spectrum_of("fat_marrow"), water)
    return {q.name: water_fat.settings_of(times, c, np.arange(len(times)))[q.name] for q in MODEL.settings}


def clean(pdff, r2star, name=None, temperature=tissues.BODY_TEMPERATURE):
    theta = {"S0": 1.0, "pdff": pdff, "r2star": r2star}
    return MODEL.signal(theta, settings(name, tissues.water_shift(temperature)))


def scan(signal, snr, name=None, seed=0):
    """Magnitudes of a signal (..., echo) in noise; an image along its last axes."""
    rng = np.random.default_rng(seed)
    data = np.abs(signal + (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)) / snr)
    times, field = train(name)
    data = data.reshape((1,) * (4 - data.ndim) + data.shape)
    attrs = {"field_strength": field, "temperature": tissues.BODY_TEMPERATURE}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": times}, attrs=attrs)


def repeated(pdff, n, **how):
    return np.broadcast_to(clean(pdff, 50.0, **how), (n, len(train(how.get("name"))[0])))


def has(maps, bit):
    return (maps.status.values.ravel() & np.uint16(bit)) > 0


def covered(maps, pdff):
    return ((maps.pdff_lo <= pdff) & (pdff <= maps.pdff_hi)).values


FOLDS = [
    ("dixon_q_dixon_1t5", 0.55, 100),
    ("dixon_ideal_iq_3t", 0.55, 100),
    ("dixon_ideal_iq_1t5", 0.70, 60),
    ("dixon_mdixon_quant_3t", 0.65, 100),
    (None, 0.65, 60),
]


@pytest.mark.parametrize(("name", "pdff", "snr"), FOLDS)
def test_intervals_cover_where_both_minima_lie_on_one_side_of_half(name, pdff, snr):
    """As claimed of all voxels: 95 %, short of it by the bend of the signal, over it where an interval spans both."""
    n = 3000
    maps = estimators.dixon_magnitude(scan(repeated(pdff, n, name=name), snr, name), sigma=1 / snr, intervals=True)
    assert 0.93 < covered(maps, pdff).mean() < 0.99


@pytest.mark.parametrize(("name", "pdff", "snr"), FOLDS)
def test_both_minima_are_found(name, pdff, snr):
    """A search in steps of a point, R2* and amplitude fitted at each, finds no likely minimum that is not told."""
    n = 200
    data = scan(repeated(pdff, n, name=name), snr, name, seed=1)
    maps = estimators.dixon_magnitude(data, sigma=1 / snr, both=True)
    fractions = np.linspace(-0.1, 1.1, 121)
    held = settings(name, tissues.water_shift(tissues.BODY_TEMPERATURE))

    def cost(p):
        return solver.fit(
            MODEL, data.values.reshape(n, -1), held, start={"S0": 1.0, "pdff": p, "r2star": 50.0}, sigma=1 / snr,
            frozen=("pdff",), bounds=magnitude.BOUNDS, likelihood="rician",
        ).cost * snr**2  # fmt: skip

    deviance = np.stack([cost(p) for p in fractions], axis=1)
    told = cost(maps.pdff.values.ravel())
    assert (told < deviance.min(axis=1) + 1e-3).all()
    deviance -= told[:, None]
    padded = np.pad(deviance, ((0, 0), (1, 1)), constant_values=np.inf)
    minimum = (deviance < padded[:, :-2]) & (deviance <= padded[:, 2:])
    best = deviance.argmin(axis=1)
    # two within twice the spacing of the nodes are one valley, which the interval reaches over
    far = np.abs(fractions - fractions[best][:, None]) > 2 * np.diff(magnitude.FRACTIONS)[0]
    likely = (minimum & far & (deviance < 2 * np.log((1 - magnitude.DOUBT) / magnitude.DOUBT))).any(axis=1)
    missed = likely & ~has(maps, Status.AMBIGUOUS)
    assert missed.mean() < 0.01


def test_where_one_minimum_is_told_the_other_is_kept():
    """Nine in ten voxels at the fold of a train of six echoes are ambiguous, and `pdff_other` stands beside."""
    name = "dixon_ideal_iq_3t"
    maps = estimators.dixon_magnitude(scan(repeated(0.55, 1000, name=name), 100, name), sigma=0.01, both=True)
    ambiguous = has(maps, Status.AMBIGUOUS)
    assert ambiguous.mean() > 0.7
    assert np.isfinite(maps.pdff_other.values.ravel()[ambiguous]).all()


# ---- misfit


def test_a_wrong_temperature_is_told_where_the_noise_is_given():
    """Water at 22 C that is believed to be at 37: the residual is many times the noise, whatever the likelihood."""
    data = scan(repeated(0.7, 500, temperature=22.0), 100)
    for likelihood in ("rician", "gaussian"):
        maps = estimators.dixon_magnitude(data, sigma=0.01, likelihood=likelihood)
        assert has(maps, Status.OUTSIDE_DOMAIN).all()


@pytest.mark.parametrize("snr", [0.01, 1, 3, 10, 100])
def test_noise_alone_is_no_misfit(snr):
    """By Gaussian noise 9 times the mean of chi-square of nine degrees of freedom: below 1 in 1e12; by Rician less."""
    maps = estimators.dixon_magnitude(scan(repeated(0.7, 4000), snr), sigma=1 / snr)
    assert not has(maps, Status.OUTSIDE_DOMAIN).any()


# ---- noise of an image with air


@pytest.fixture(scope="module")
def disk():
    """Tissue on a fifth of an image, its fraction rising along x."""
    n = 96
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    inside = x**2 + y**2 < 0.2 * n * n / np.pi
    pdff = 0.1 + 0.3 * (x / n + 0.5)
    signal = np.where(inside[..., None], clean(pdff.ravel(), 50.0).reshape(n, n, -1), 0.0)
    return signal, pdff, inside


@pytest.mark.parametrize("snr", [30, 100])
def test_air_does_not_pull_the_noise_down(disk, snr):
    """Magnitudes of air have .655 of the SD; a noise SD that is 5 % off would move the coverage by a point."""
    signal, pdff, inside = disk
    maps = estimators.dixon_magnitude(scan(signal, snr), intervals=True)
    assert maps.attrs["noise_sd"] * snr == pytest.approx(1.0, abs=0.03)
    # 1843 voxels: the SD of a coverage is .5 %
    assert abs(covered(maps, pdff)[0][inside].mean() - 0.95) < 0.02
    assert has(maps, Status.LOW_SIGNAL)[~inside.ravel()].mean() > 0.5


def test_an_image_of_air_alone():
    """Its residuals over .655; a fit that follows them takes some more than its unknowns."""
    maps = estimators.dixon_magnitude(scan(np.zeros((40, 40, 12)), 1.0))
    assert maps.attrs["noise_sd"] == pytest.approx(1.0, abs=0.15)


@pytest.mark.filterwarnings("error")
def test_data_without_noise_have_an_interval():
    exact = scan(repeated(0.3, 3), np.inf)
    maps = estimators.dixon_magnitude(exact, intervals=True)
    np.testing.assert_allclose(maps.pdff_lo, 0.3, atol=1e-5)
    np.testing.assert_allclose(maps.pdff_hi, 0.3, atol=1e-5)
