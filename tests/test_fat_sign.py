"""The sign of the phase: with the wrong one an estimate says so, with the right one it does not."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import estimators
from bonemri.estimators.fat import sign as fat_sign
from bonemri.estimators.fat.train import Train
from bonemri.simulator import tissues, water_fat

TRAINS = {
    "3 T, 1.1 ms": (3.0, 1.2e-3 + 1.1e-3 * np.arange(6)),
    "3 T, in and opposed": (3.0, 1.23e-3 * np.arange(1, 7)),
    "3 T, uneven": (3.0, np.array([1.3, 2.7, 3.6, 6.1, 8.9]) * 1e-3),
    "1.5 T, 2 ms": (1.5, 1.2e-3 + 2e-3 * np.arange(6)),
    "1.5 T, opposed and in": (1.5, 2.38e-3 * np.arange(1, 7)),
}
Y, X = np.mgrid[:48, :48]
MARROW = (X - 24) ** 2 + (Y - 24) ** 2 < 170
PDFF = np.where(MARROW, 0.4, np.where(Y < 12, 0.9, 0.05))
R2STAR = np.where(MARROW, 80.0, 40.0)
FIELD = 60 * np.sin(X / 12) + 40 * np.cos(Y / 15)


def scan(b0, times, snr, seed=0, pdff=PDFF, *, spectrum="fat_marrow", water=4.7, turned=0.0, dual=1.0):
    """An image (z, y, x, echo); `turned` is a phase of each echo, `dual` fat's R2* over water's."""
    c = water_fat.fat_signal(times, b0, tissues.spectrum(spectrum), water)
    decay = -R2STAR[..., None] * times
    signal = (1 - pdff)[..., None] * np.exp(decay) + pdff[..., None] * c * np.exp(dual * decay)
    signal = signal * np.exp(2j * np.pi * FIELD[..., None] * times + 0.4j + 1j * np.asarray(turned))
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    return xr.DataArray((signal + noise / snr)[None], dims=("z", "y", "x", "echo"), coords={"echo": times},
                        attrs={"field_strength": b0})  # fmt: skip


def sign(image, noise_sd=None):
    protocol = {"echo": image["echo"].values, "field_strength": image.attrs["field_strength"]}
    train = Train.of("dixon", protocol, 3, "fat_marrow", None)
    return fat_sign.sign_of(image.values, np.ones(image.shape[:-1], bool), train, noise_sd)


@pytest.mark.parametrize("train", TRAINS)
@pytest.mark.parametrize("phases", ["free", "common"])
def test_a_wrong_sign_is_told_at_clinical_noise(train, phases):
    """At SNR 20 a quarter of the voxels would be wrong by 15 points and more, with no misfit to be seen in them."""
    right = scan(*TRAINS[train], 20.0, seed=len(train))
    for image, wrong in ((right, False), (right.conj().assign_attrs(right.attrs), True)):
        found = estimators.dixon(image, phases=phases)
        assert ("sign_doubt" in found.attrs) == wrong
        assert np.all((found.status.values & 32) > 0) if wrong else np.mean((found.status.values & 32) > 0) < 0.01
        assert (found.attrs["residual_of_other_sign"] < 1) == wrong
    assert "--conjugate" in found.attrs["sign_doubt"]


@pytest.mark.parametrize(("method", "option", "off"), [
    ("dixon", {"first_echo": "free"}, np.arange(8) == 0), ("dixon", {"bipolar": True}, np.arange(8) % 2 == 1),
    ("dixon-mixed", {}, np.arange(8) == 0),
])  # fmt: skip
def test_echoes_whose_phase_is_told_tell_the_sign_of_all(method, option, off):
    """The phase of the first echo, or of every second one, is off by half a rad besides."""
    right = scan(3.0, 1.2e-3 + 0.9e-3 * np.arange(8), 30.0, turned=0.5 * off)
    wrong = right.conj().assign_attrs(right.attrs)
    assert "sign_doubt" not in estimators.get(method)(right, **option).attrs
    assert "sign_doubt" in estimators.get(method)(wrong, **option).attrs


def test_too_few_echoes_are_left_to_tell_the_sign():
    image = scan(3.0, 1.2e-3 + 1.1e-3 * np.arange(6), 30.0)
    assert "residual_of_other_sign" not in estimators.dixon(image, bipolar=True).attrs
    assert "residual_of_other_sign" in estimators.dixon(image, first_echo="free").attrs


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(TRAINS)), st.floats(10.0, 100.0), st.floats(0.0, 1.0))
def test_a_right_sign_is_never_doubted(seed, train, snr, level):
    """Any composition, even or with marrow in it: six standard errors are not reached by chance."""
    for pdff in (PDFF, np.full(PDFF.shape, level)):
        found = sign(scan(*TRAINS[train], snr, seed, pdff), 1 / snr)
        assert found is not None and not found.doubted


@pytest.mark.parametrize("what", [
    {"water": 4.85}, {"turned": 0.5 * (np.arange(6) % 2)}, {"turned": 0.3 * (np.arange(6) == 0)}, {"dual": 2.0},
    {"spectrum": "fat_single"}, {"spectrum": "fat_liver"},
])  # fmt: skip
@pytest.mark.parametrize("snr", [20.0, 100.0])
def test_what_else_the_model_lacks_is_not_taken_for_the_sign(what, snr):
    """In a mixed image: 14 degrees, phases of echoes, two R2*, other spectra."""
    for name in ("3 T, 1.1 ms", "1.5 T, 2 ms"):
        found = sign(scan(*TRAINS[name], snr, 3, **what), 1 / snr)
        assert found is not None and not found.doubted


def test_without_noise_the_sign_is_plain():
    for b0, times in TRAINS.values():
        right = sign(scan(b0, times, np.inf))
        wrong = sign(scan(b0, times, np.inf).conj().assign_attrs(field_strength=b0))
        assert not right.doubted and wrong.doubted and wrong.ratio < 0.1 < 10 < right.ratio


def test_three_echoes_tell_it_by_a_common_phase():
    b0, times = 1.494, np.array([2.87, 6.07, 9.27]) * 1e-3
    image = scan(b0, times, 25.0)
    assert not sign(image, 0.04).doubted and sign(image.conj().assign_attrs(image.attrs), 0.04).doubted


@pytest.mark.parametrize("pdff", [0.0, 1.0])
def test_water_has_no_sign_nor_has_fat_of_one_peak(pdff):
    """The conjugate of one turning phasor is another; what is told apart is noise."""
    b0, times = TRAINS["3 T, 1.1 ms"]
    image = scan(b0, times, 50.0, 5, np.full(PDFF.shape, pdff), spectrum="fat_single")
    protocol = {"echo": times, "field_strength": b0}
    train = Train.of("dixon", protocol, 3, "fat_single", None)
    found = fat_sign.sign_of(image.values, np.ones(image.shape[:-1], bool), train, 0.02)
    assert not found.doubted and abs(found.ratio - 1) < 0.05


def test_few_or_dark_voxels_say_nothing():
    image = scan(*TRAINS["3 T, 1.1 ms"], 50.0)
    assert sign(image[:, :5, :5]) is None
    assert sign(image * 0) is None
    assert sign(image * np.nan) is None
    found = estimators.dixon(image[:, :5, :5])
    assert "residual_of_other_sign" not in found.attrs


def test_an_uneven_noise_speaks_by_the_ratio_alone():
    """Its median is no measure of a bright voxel's residual; at a high SNR the ratio needs none."""
    image = scan(*TRAINS["3 T, 1.1 ms"], 200.0)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(48, 48, 6)) + 1j * rng.normal(size=(48, 48, 6))
    uneven = np.linspace(0.5, 3.0, 48)[:, None] / 100 * noise
    wrong = (image + uneven).conj().assign_attrs(image.attrs)
    assert "sign_doubt" not in estimators.dixon((image + uneven).assign_attrs(image.attrs)).attrs
    assert estimators.dixon(wrong).attrs["residual_of_other_sign"] < 0.8


def test_the_doubt_goes_into_files(tmp_path):
    image = scan(*TRAINS["3 T, 1.1 ms"], 50.0)
    found = estimators.dixon(image.conj().assign_attrs(image.attrs))
    found.to_netcdf(tmp_path / "wrong.nc")
    with xr.open_dataset(tmp_path / "wrong.nc") as read:
        assert read.attrs["sign_doubt"] == found.attrs["sign_doubt"] and read.attrs["residual_of_other_sign"] < 0.5
