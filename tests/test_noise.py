"""Noise: its distribution against scipy's, the meaning of SNR, and independence of blocks."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from bonemri.errors import InputError
from bonemri.simulator.acquisition import noise

DRAWS = 40_000
# A fixed seed makes each test deterministic; at another seed a true hypothesis is refused once in a thousand.
P = 1e-3
Z = stats.norm.isf(P / 2)


def received(level: float, sd: float, seed: int = 5, **settings: Any) -> np.ndarray:
    """Images of a flat signal, one draw a voxel."""
    return noise.add(np.full((DRAWS, 1), level), sd, np.random.default_rng(seed), **settings)[:, 0]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0, 3.0, 20.0])
def test_one_coil_gives_rician_magnitudes(level: float) -> None:
    sd = 0.7
    rice = stats.rice(level / sd, scale=sd)
    image = received(level, sd)
    assert stats.kstest(image, rice.cdf).pvalue > P
    assert abs(image.mean() - rice.mean()) < Z * rice.std() / np.sqrt(DRAWS)
    # variance of a sample variance: (m4 - var^2)/n, with the fourth central moment of the law itself
    mean = rice.mean()
    fourth = rice.moment(4) - 4 * rice.moment(3) * mean + 6 * rice.moment(2) * mean**2 - 3 * mean**4
    assert abs(image.var() - rice.var()) < Z * np.sqrt((fourth - rice.var() ** 2) / DRAWS)


@pytest.mark.parametrize(("level", "coils"), [(0.0, 4), (2.0, 4), (5.0, 16)])
def test_sum_of_squares_gives_noncentral_chi(level: float, coils: int) -> None:
    sd = 1.3
    image = received(level, sd, coils=coils)
    assert stats.kstest((image / sd) ** 2, stats.ncx2(2 * coils, (level / sd) ** 2 + 1e-300).cdf).pvalue > P


@pytest.mark.parametrize("coils", [1, 8])
def test_optimal_combination_keeps_the_noise_of_one_coil(coils: int) -> None:
    image = received(2.0, 1.0, coils=coils, combination="optimal")
    assert stats.kstest(image, stats.rice(2.0).cdf).pvalue > P


def test_complex_averages_lower_the_floor_and_magnitude_averages_do_not() -> None:
    sd, averages = 1.0, 9
    as_complex = received(0.0, sd, averages=averages, averaging="complex")
    assert stats.kstest(as_complex, stats.rice(0.0, scale=noise.image_sd(sd, averages)).cdf).pvalue > P
    floor = stats.rice(0.0, scale=sd)
    as_magnitude = received(0.0, sd, averages=averages, averaging="magnitude")
    assert abs(as_magnitude.mean() - floor.mean()) < Z * floor.std() / np.sqrt(DRAWS * averages)
    # of a mean of nine the excess kurtosis is small: the variance of its sample variance is close to 2 var^2/n
    assert abs(as_magnitude.var() * averages / floor.var() - 1) < 1.1 * Z * np.sqrt(2 / DRAWS)


def test_at_high_snr_both_averages_have_the_image_sd() -> None:
    for averaging in ("magnitude", "complex"):
        image = received(1000.0, 2.0, averages=4, averaging=averaging)
        assert abs(image.var() / noise.image_sd(2.0, 4) ** 2 - 1) < Z * np.sqrt(2 / DRAWS)


def test_coil_images_are_complex_independent_and_share_the_signal() -> None:
    coils, level, sd = 4, 6.0, 1.0
    data = received(level, sd, coils=coils, combine=False)
    assert data.shape == (DRAWS, coils) and data.dtype == complex
    channels = np.column_stack([data.real, data.imag])
    expected = np.repeat([level / np.sqrt(coils), 0.0], coils)
    assert np.all(abs(channels.mean(axis=0) - expected) < 5 * sd / np.sqrt(DRAWS))  # eight channels at once
    covariance = np.cov(channels.T)
    assert np.all(abs(covariance - sd**2 * np.eye(2 * coils)) < 5 * sd**2 * np.sqrt(2 / DRAWS))
    # the same seed gives the same coil data, of which the image is the root sum of squares
    np.testing.assert_allclose(received(level, sd, coils=coils), np.sqrt((abs(data) ** 2).sum(axis=1)), rtol=1e-14)


def test_phase_of_the_signal_does_not_matter_to_its_magnitude() -> None:
    signal = np.full((DRAWS, 1), 2.0 * np.exp(1.1j))
    image = noise.add(signal, 1.0, np.random.default_rng(0))[:, 0]
    assert stats.kstest(image, stats.rice(2.0).cdf).pvalue > P


@pytest.mark.parametrize("settings", [{}, {"averages": 3, "coils": 2}, {"coils": 3, "combine": False}])
def test_the_result_does_not_depend_on_the_block(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    signal = np.random.default_rng(1).uniform(0, 9, (7, 5, 4))
    whole = noise.add(signal, 1.0, np.random.default_rng(2), **settings)
    monkeypatch.setattr(noise, "DRAWS", 50)
    np.testing.assert_array_equal(noise.add(signal, 1.0, np.random.default_rng(2), **settings), whole)


def test_noise_in_place_is_the_same_noise() -> None:
    signal = np.random.default_rng(1).uniform(0, 9, (50, 4))
    expected = noise.add(signal, 1.0, np.random.default_rng(2))
    returned = noise.add(signal, 1.0, np.random.default_rng(2), out=signal)
    assert returned is signal
    np.testing.assert_array_equal(signal, expected)


def test_reference_is_the_median_over_signal_voxels() -> None:
    # air (0, NaN) and long-decayed bone (1e-90) are no signal voxels
    assert noise.signal_reference([0.0, np.nan, 1e-90, 2.0, -3.0, 10.0]) == 3.0
    assert noise.signal_reference([0.0, np.nan]) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_sd": 0.0}, "noise_sd is 0.0: expected a number above 0"),
        ({"noise_sd": np.nan}, "noise_sd is nan"),
        ({"averages": 0}, "averages is 0: expected a whole number"),
        ({"coils": 1.5}, "coils is 1.5: expected a whole number"),
        ({"averaging": "median"}, "averaging is 'median': expected magnitude or complex"),
        ({"combination": "best"}, "combination is 'best': expected sum_of_squares or optimal"),
        ({"combine": False, "averages": 2}, "averaging is 'magnitude' over 2 acquisitions"),
        ({"magnitude": False, "coils": 2}, "a complex image needs 'optimal'"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings: dict[str, object], message: str) -> None:
    arguments: dict[str, Any] = {"noise_sd": 1.0, "rng": np.random.default_rng(0)} | settings
    with pytest.raises(InputError, match=message) as caught:
        noise.add(np.ones((2, 2)), **arguments)
    assert "\n" not in str(caught.value)
