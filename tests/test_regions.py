"""Regions: flagged voxels count for their size alone, standard errors are right, slices lie as the affine says."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_flagged_voxels_count_for_the_size_alone():
    """A swapped voxel of status 64 and a noisy one of status 16 move neither PDFF nor T2*."""
    shape = (1, 2, 10)
    status, pdff, r2star = np.zeros(shape, int), np.full(shape, 0.2), np.full(shape, 50.0)
    status[0, 0, :2], pdff[0, 0, :2], r2star[0, 0, :2] = (64, 16), (0.8, np.nan), 900.0
    one = regions.by_label(maps_of(shape, pdff=pdff, r2star=r2star, status=status), one_label(shape)).isel(region=0)
    assert (int(one["voxels"]), int(one["n"]), float(one["flagged"])) == (20, 18, 0.1)
    assert float(one["pdff"]) == pytest.approx(0.2) and float(one["t2star"]) == pytest.approx(0.02)
    assert float(one["pdff_se"]) == pytest.approx(0, abs=1e-12)
    assert float(one["pdff_all"]) == pytest.approx((18 * 0.2 + 0.8) / 19)  # the swap, and not what has no value
    assert float(one["cross_section"]) == pytest.approx(20 * 6e-6) and float(one["volume"]) == pytest.approx(20 * 6e-9)


def test_where_nothing_is_good_nothing_is_measured():
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


@pytest.mark.parametrize("ratio", [False, True])
def test_standard_errors_are_those_of_repeated_regions(ratio):
    """The spread of 400 regions against the mean of their squared standard errors, for mean, ratio of sums and median.

    A variance of 400 draws is known to sqrt(2/400) = 7 %; the errors hold to order 1/n (ratio) and 1/sqrt(n) (median).
    """
    rng, n, repeats = np.random.default_rng(5), 60, 400
    found = []
    for _ in range(repeats):
        total = rng.uniform(0.5, 1.5, n)  # coil shading: signal differs from voxel to voxel
        pdff, rate = 0.3 + 0.05 * rng.standard_normal(n), 50 + 8 * rng.standard_normal(n)
        amounts = {"fat": pdff * total, "water": (1 - pdff) * total} if ratio else {}
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
