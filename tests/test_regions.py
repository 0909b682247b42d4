"""Regions: swaps count for size alone, noise biases no mean, standard errors are right, slices lie by the affine."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import estimators, phantoms, simulator
from bonemri.estimators.status import Status
from bonemri.simulator import tissues
from bonemri.simulator.acquisition.protocol import protocols
from bonemri.simulator.water_fat import fat_signal
from bonemri.validation import regions

SPACE = ("z", "y", "x")


def maps_of(shape, **values):
    """Maps of 1 x 2 x 3 mm voxels (z, y, x)."""
    given = {name: (SPACE, np.broadcast_to(value, shape).astype(float)) for name, value in values.items()}
    found = xr.Dataset(given, attrs={"voxel_size": np.array([1e-3, 2e-3, 3e-3])})
    if "status" in values:
        found["status"] = found["status"].astype(np.uint16)
    return found


def one_label(shape):
    return xr.DataArray(np.ones(shape, int), dims=SPACE)


def test_swaps_and_voxels_without_a_value_count_for_the_size_alone():
    """A swapped voxel of status 64, one without a value and a fit that did not end move neither PDFF nor T2*."""
    shape = (1, 2, 10)
    status, pdff, r2star = np.zeros(shape, int), np.full(shape, 0.2), np.full(shape, 50.0)
    status[0, 0, :3], pdff[0, 0, :3], r2star[0, 0, :3] = (64, 16, 2), (0.8, np.nan, 0.5), 900.0
    one = regions.by_label(maps_of(shape, pdff=pdff, r2star=r2star, status=status), one_label(shape)).isel(region=0)
    assert (int(one["voxels"]), int(one["n"]), float(one["flagged"])) == (20, 17, 0.15)
    assert float(one["pdff"]) == pytest.approx(0.2) and float(one["t2star"]) == pytest.approx(0.02)
    assert float(one["pdff_se"]) == pytest.approx(0, abs=1e-12)
    assert float(one["pdff_all"]) == pytest.approx((17 * 0.2 + 0.8 + 0.5) / 19)  # all but what has no value
    assert float(one["cross_section"]) == pytest.approx(20 * 6e-6) and float(one["volume"]) == pytest.approx(20 * 6e-9)


@pytest.mark.parametrize("bit", Status)
def test_what_is_uncertain_counts_and_what_may_be_another_minimum_does_not(bit):
    shape = (1, 1, 2)
    maps = maps_of(shape, pdff=[[[0.1, 0.3]]], r2star=40.0, status=[[[0, int(bit)]]])
    one = regions.by_label(maps, one_label(shape)).isel(region=0)
    left_out = bit in (Status.INVALID, Status.NOT_CONVERGED, Status.AMBIGUOUS, Status.OUTSIDE_MASK)
    assert float(one["pdff"]) == pytest.approx(0.1 if left_out else 0.2) and int(one["n"]) == 2 - left_out
    assert float(one["flagged"]) == 0.5 and float(one["pdff_all"]) == pytest.approx(0.2)


@pytest.fixture(scope="module")
def fitted():
    """Fits of 60 x 60 alike voxels of an SNR (at TE 0) and a PDFF: of the equation, which has no T1 weighting."""
    protocol = protocols.get("dixon_marrow")
    times = np.asarray(protocol["TE"], float)
    fat = fat_signal(times, 3.0, tissues.spectrum("fat_marrow"), tissues.water_shift())
    coords = protocol.coords() | {"temperature": tissues.BODY_TEMPERATURE}

    def fit(snr, pdff):
        clean = (1 - pdff + pdff * fat) * np.exp((2j * np.pi * 20.0 - 60.0) * times)
        noise = np.random.default_rng(3).standard_normal((2, 1, 60, 60, times.size)) / snr
        scan = xr.DataArray(clean + noise[0] + 1j * noise[1], coords, (*SPACE, "echo"), "signal")
        return estimators.get("dixon")(scan, sigma=1 / snr).assign_attrs(voxel_size=1e-3)

    return fit


@pytest.mark.parametrize("pdff", [0.0, 0.1, 0.95, 1.0])
def test_noise_biases_no_fraction_of_a_region(fitted, pdff):
    """At SNR 10, where the ratio of the sums of fat and of all signal is off by up to a point; .3 points at most."""
    maps = fitted(10.0, pdff)
    one = regions.by_label(maps, one_label((1, 60, 60))).isel(region=0)
    assert abs(float(one["pdff"]) - pdff) < min(3 * float(one["pdff_se"]), 3e-3)


def test_voxels_that_are_sure_of_themselves_are_no_fair_sample(fitted):
    """At SNR 8 most voxels of 10 % fat are flagged, and those that are not have another PDFF and R2*."""
    maps = fitted(8.0, 0.1)
    good = (maps["status"] == 0).values
    one = regions.by_label(maps, one_label((1, 60, 60))).isel(region=0)
    assert float(one["flagged"]) > 0.2 and maps["pdff"].values[good].mean() > 0.12
    assert float(one["pdff"]) == pytest.approx(0.1, abs=3 * float(one["pdff_se"]))
    everything, all_se = regions.median_of(maps["r2star"].values.ravel())
    assert float(one["r2star"]) == everything and float(one["r2star_se"]) == all_se
    assert abs(np.median(maps["r2star"].values[good]) - everything) > 5 * all_se


def test_the_standard_error_is_that_of_regions_of_noise(fitted):
    """60 rows of 60 voxels at SNR 8: a variance of 60 draws is known to sqrt(2/60) = 18 %."""
    rows = xr.DataArray(np.repeat(np.arange(1, 61), 60).reshape(1, 60, 60), dims=SPACE)
    found = regions.by_label(fitted(8.0, 0.3), rows)
    told = float((found["pdff_se"] ** 2).mean())
    assert told / float(found["pdff"].var(ddof=1)) == pytest.approx(1, abs=3 * np.sqrt(2 / 60))


def test_a_voxel_without_signal_does_not_own_the_mean():
    """One of 50 with a hundredth of the signal and a wild fraction, air around the tissue, a coil that shades it."""
    shape = (1, 1, 100)
    total, pdff = np.full(100, 1.0), np.full(100, 0.2)
    total[:50] = np.linspace(1, 2, 50)
    total[50:], pdff[50:] = 1e-3, np.tile([-30.0, 30.5], 25)
    total[10], pdff[10] = 0.01, 40.0
    maps = maps_of(shape, pdff=pdff, fat=pdff * total, water=(1 - pdff) * total)
    one = regions.by_label(maps, one_label(shape)).isel(region=0)
    assert float(one["pdff"]) == pytest.approx(0.2, abs=0.02)
    pdff[:50] = np.linspace(0.1, 0.3, 50)
    inside = xr.DataArray((np.arange(100) < 50).astype(int).reshape(shape), dims=SPACE)
    shade = np.linspace(1, 2, 100)  # of a coil: it is no weight
    maps = maps_of(shape, pdff=pdff, fat=pdff * shade, water=(1 - pdff) * shade)
    assert float(regions.by_label(maps, inside)["pdff"][0]) == pytest.approx(0.2)


def test_where_no_voxel_counts_nothing_is_measured():
    shape = (1, 1, 4)
    one = regions.by_label(maps_of(shape, pdff=0.3, r2star=40.0, status=64), one_label(shape)).isel(region=0)
    assert int(one["n"]) == 0 and float(one["flagged"]) == 1 and int(one["voxels"]) == 4
    assert float(one["pdff_all"]) == pytest.approx(0.3) and float(one["t2star_all"]) == pytest.approx(0.025)
    for name in ("pdff", "pdff_se", "r2star", "t2star", "t2star_se"):
        assert np.isnan(float(one[name])), name
    single = regions.by_label(maps_of((1, 1, 1), pdff=0.3, r2star=40.0), one_label((1, 1, 1))).isel(region=0)
    assert float(single["pdff"]) == 0.3 and np.isnan(float(single["pdff_se"])) and np.isnan(float(single["t2star_se"]))


def test_without_any_signal_the_fractions_themselves_are_read():
    shape = (1, 1, 3)
    one = regions.by_label(maps_of(shape, pdff=0.2, water=0.0, fat=0.0), one_label(shape)).isel(region=0)
    assert float(one["pdff"]) == pytest.approx(0.2)


@pytest.mark.parametrize("weighted", [False, True])
def test_standard_errors_are_those_of_repeated_regions(weighted):
    """The spread of 400 regions against the mean of their squared standard errors, for mean, weighted mean and median.

    A variance of 400 draws is known to sqrt(2/400) = 7 %; the errors hold to order 1/n (mean) and 1/sqrt(n) (median).
    """
    rng, n, repeats = np.random.default_rng(5), 60, 400
    found = []
    for _ in range(repeats):
        total = rng.uniform(0.1, 1.5, n)  # coil shading: signal differs from voxel to voxel
        pdff, rate = 0.3 + 0.05 * rng.standard_normal(n), 50 + 8 * rng.standard_normal(n)
        amounts = {"fat": pdff * total, "water": (1 - pdff) * total} if weighted else {}
        maps = maps_of((1, 1, n), pdff=pdff, r2star=rate, **amounts)
        found.append(regions.by_label(maps, one_label((1, 1, n))).isel(region=0))
    for name in ("pdff", "r2star", "t2star"):
        spread = np.var([float(one[name]) for one in found])
        told = np.mean([float(one[f"{name}_se"]) ** 2 for one in found])
        slack = 4 * np.sqrt(2 / repeats) + (1 / n if name == "pdff" else 1 / np.sqrt(n))
        assert told / spread == pytest.approx(1, abs=slack), name


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40), st.floats(-5, 5), st.floats(0.1, 10))
def test_a_median_moves_with_its_values(values, offset, scale):
    values = np.array(values)
    middle, error = regions.median_of(values)
    moved, scaled = regions.median_of(offset + scale * values)
    assert moved == pytest.approx(offset + scale * middle, abs=1e-9)
    assert scaled == pytest.approx(scale * error, abs=1e-9) and error >= 0


@pytest.mark.parametrize(("axial", "area"), [(0, 6e-6), (1, 3e-6), (2, 2e-6)])
def test_a_cross_section_lies_across_the_body_however_the_slices_lie(axial, area):
    """One voxel of 1 x 2 x 3 mm (z, y, x): its axial face, whichever axis of the image runs from head to foot."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    size = (3.0, 2.0, 1.0)  # of the axes x, y, z of the image
    up = 2 - axial
    rest = [axis for axis in range(3) if axis != up]
    for row, axis in zip((2, 0, 1), (up, *rest), strict=True):
        affine[row, axis] = -size[axis]
    maps = maps_of((1, 1, 1), pdff=0.1)
    maps.attrs["affine"] = affine.ravel()
    assert float(regions.by_label(maps, one_label((1, 1, 1)))["cross_section"][0]) == pytest.approx(area)


def test_T1_that_is_not_known_is_no_error_that_averages_out():
    """A thousand voxels share what is not known of T1: the region's error is not below it."""
    bone = phantoms.marrow_block(shape=(1, 30, 34), pdff=0.4, f=0.0)
    scan = simulator.scan(bone, simulator.protocols.dixon_ideal_iq_3t, snr=50, seed=2)
    maps = estimators.dixon(scan, T1_correction=True)
    labels = xr.DataArray(np.ones(maps["pdff"].shape, int), dims=maps["pdff"].dims)
    found = regions.by_label(maps, labels)
    shared = float(maps["T1_error"].mean())
    assert shared > 0.005
    assert shared < float(found["pdff_se"][0]) < 1.2 * shared
    without = regions.by_label(maps.drop_vars("T1_error"), labels)
    assert float(without["pdff_se"][0]) < 0.2 * shared
