"""Tendon: the magic angle in its limits, fibres and crimp as averages, conservation, anatomy, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms.tendon import MAGIC_ANGLE, _hat, dipolar, tendon
from bonemri.simulator import tissues

ROUNDING = 1e-12
COARSE = 3e-3
few = settings(max_examples=12, deadline=None)


def bound(bone):
    """Bound pools: density maps (pool, z, y, x) and rates (1/s)."""
    rows = bone.pools["kind"].values == "bound_water"
    return bone.pools["density"].values[rows], 1 / bone.pools["T2"].values[rows]


def mean_rate(bone):
    density, rate = bound(bone)
    return float(density.sum(axis=(1, 2, 3)) @ rate / density.sum())


# ---- the magic angle -------------------------------------------------------------------------------------------


@few
@given(T2=st.floats(1e-3, 50e-3), A=st.floats(0.0, 3000.0), azimuth=st.floats(0.0, 360.0))
def test_at_the_magic_angle_only_the_isotropic_rate_is_left(T2, A, azimuth):
    """3 cos^2(54.7) - 1 = 0: the residual dipolar interaction vanishes, whatever its size."""
    bone = tendon(resolution=COARSE, straight=True, angle=MAGIC_ANGLE, azimuth=azimuth, T2_isotropic=T2, anisotropy=A)
    seen = bone.truth["T2star_bound"].values
    np.testing.assert_allclose(seen[np.isfinite(seen)], T2, rtol=1e-10)  # cos^2 of a rounded angle, squared


@few
@given(angle=st.floats(0.0, 180.0))
def test_parallel_fibres_relax_as_published(angle):
    """1/T2 = 1/T2iso + A (3 cos^2 - 1)^2: 4 A along the field, A across it, and the same from either end."""
    bone = tendon(resolution=COARSE, straight=True, angle=angle)
    T2, A = tissues.value("tendon.T2"), tissues.value("tendon.anisotropy")
    seen = bone.truth["T2star_bound"].values
    expected = 1 / T2 + A * (3 * math.cos(math.radians(angle)) ** 2 - 1) ** 2
    np.testing.assert_allclose(1 / seen[np.isfinite(seen)], expected, rtol=1e-10)
    assert mean_rate(tendon(resolution=COARSE, straight=True, angle=180 - angle)) == pytest.approx(expected, rel=1e-10)


def test_the_limits_of_the_angular_factor():
    np.testing.assert_allclose(dipolar(np.array([1.0, -1.0, 0.0])), [4, 4, 1], rtol=ROUNDING)
    assert float(dipolar(np.cos(np.radians(MAGIC_ANGLE)))) == pytest.approx(0, abs=1e-28)


def test_without_anisotropy_the_angle_does_not_matter():
    rates = {round(mean_rate(tendon(resolution=COARSE, angle=a, anisotropy=0.0)), 9) for a in (0.0, 30.0, 90.0)}
    assert len(rates) == 1


@given(factor=st.floats(0.0, 4.0))
def test_two_classes_stand_for_an_angle_between_them(factor):
    nodes = np.linspace(0.0, 2.0, 12) ** 2
    share = _hat(np.array([factor]), nodes)[0]
    assert share.sum() == pytest.approx(1, abs=ROUNDING)
    assert share @ nodes == pytest.approx(factor, abs=ROUNDING * 4)
    assert (share >= 0).all() and (share > 1e-12).sum() <= 2


@pytest.mark.parametrize("angle", [0.0, 40.0, 55.0, 90.0])
def test_crimp_alone_is_the_average_over_its_wave(angle):
    """Almost straight fibres (no twist) that swing by 20 degrees in one plane: the mean rate is an integral.

    The field lies across that plane's normal for azimuth 90, so that the swing adds to the angle. Curvature tilts
    fibres by some degrees more, with both signs: it changes the mean of the factor to second order only, by at most
    half its curvature (24) times the variance of the tilt (5 degrees squared).
    """
    bone = tendon(resolution=COARSE, angle=angle, azimuth=90.0, crimp=20.0, twist=0.0)
    swing = np.radians(20.0) * np.sin(np.linspace(0, 2 * np.pi, 2001)[:-1])
    factor = np.mean(dipolar(np.cos(np.radians(angle) + swing)))
    found = (mean_rate(bone) - 1 / tissues.value("tendon.T2")) / tissues.value("tendon.anisotropy")
    assert found == pytest.approx(factor, abs=12 * np.radians(5.0) ** 2)
    assert abs(found - float(dipolar(np.cos(np.radians(angle))))) > 0.02, "crimp makes a difference"


def test_twist_spreads_the_angles():
    spread = [tendon(resolution=COARSE, crimp=0.0, twist=twist, angle=30).pools.attrs["fibre_angle_sd"]
              for twist in (0.0, 60.0, 120.0)]
    assert spread[0] < spread[1] < spread[2]


def test_the_tendon_brightens_at_the_magic_angle():
    """Du 2009 (doi:10.1016/j.mri.2008.09.003): T2* of the whole grows about eightfold from 0 to 55 degrees."""
    along, magic = (1 / mean_rate(tendon(resolution=COARSE, angle=angle)) for angle in (0.0, 55.0))
    assert magic > 8 * along


# ---- what it is made of ----------------------------------------------------------------------------------------


@few
@given(angle=st.floats(0.0, 180.0), seed=st.integers(0, 2**40), free=st.floats(0.0, 1.0))
def test_volumes_and_water_are_conserved(angle, seed, free):
    bone = tendon(seed=seed, resolution=COARSE, angle=angle, free_fraction=free)
    pools = bone.pools
    volume = pools["volume_fraction"].values.sum(axis=0)
    assert volume.max() <= 1 + ROUNDING
    water = pools["density"].values[np.isin(pools["kind"], ("bound_water", "solution"))].sum(axis=0)
    # The tissue number is bound water, beside the tissue's own share of free water: their sum stays when `free` moves.
    whole = tissues.value("tendon.density") / (1 - tissues.value("tendon.free_fraction"))
    np.testing.assert_allclose(water, whole * volume, rtol=0, atol=1e-11)  # of some 90
    free_water = pools["density"].sel(pool="free_water").values.sum()
    assert free_water == pytest.approx(free * water.sum(), rel=1e-10, abs=1e-10)


def test_there_is_no_mineral_and_so_no_porosity():
    bone = tendon(resolution=COARSE)
    assert "mineral" not in bone.pools["kind"].values
    for name in ("porosity", "bvtv"):
        assert bone.truth[name].isnull().all()
    assert set(bone.pools["kind"].values) == {"bound_water", "solution", "macromolecule"}


def test_orientation_changes_nothing_but_relaxation():
    one, other = (tendon(angle=angle) for angle in (0.0, 70.0))
    for name in ("bound_water", "mmf"):
        np.testing.assert_allclose(one.truth[name], other.truth[name], rtol=1e-9)  # sums in another order
    assert one.pools.attrs["tendon_volume"] == other.pools.attrs["tendon_volume"]


# ---- anatomy ---------------------------------------------------------------------------------------------------


def test_same_seed_same_tendon_and_any_other_another():
    assert tendon(seed=4).pools.identical(tendon(seed=4).pools)
    assert len({tendon(seed=s, resolution=COARSE).pools.attrs["tendon_volume"] for s in range(5)}) == 5


def test_anatomy_does_not_depend_on_resolution():
    fine, coarse = (tendon(seed=2, resolution=r, angle=35.0) for r in (0.5e-3, 1.5e-3))
    # Both count cubes of about .4 mm filled linearly: the volume is known to a thousandth, a mean angle to more.
    assert coarse.pools.attrs["tendon_volume"] == pytest.approx(fine.pools.attrs["tendon_volume"], rel=2e-3)
    assert coarse.pools.attrs["fibre_angle"] == pytest.approx(fine.pools.attrs["fibre_angle"], abs=0.1)
    assert mean_rate(coarse) == pytest.approx(mean_rate(fine), rel=5e-3)


def test_coarse_voxels_are_averages_of_fine_ones():
    fine = tendon(resolution=0.75e-3)
    coarse = fine.coarsen(2)
    assert mean_rate(coarse) == pytest.approx(mean_rate(fine), rel=1e-10)
    assert float(coarse.pools["density"].sum()) * 8 == pytest.approx(float(fine.pools["density"].sum()), rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_it_has_the_shape_and_size_of_an_achilles_tendon(seed):
    """Some 5 to 6 cm long, narrowest (12 mm) in the middle, wider at both ends; area there 40 to 90 mm2."""
    bone = tendon(seed=seed)
    total = bone.pools["volume_fraction"].sum("pool")
    area = total.sum(("y", "x")).values  # mm2, in voxels of 1 mm
    width = (total.sum("y") > 0).sum("x").values
    assert area[0] == 0 and area[-1] == 0
    middle, low, high = len(area) * 2 // 5, 5, len(area) - 6
    assert width[middle] < min(width[low], width[high])
    assert 40 < area[middle] < 90
    assert 10 <= width[middle] <= 16
    outside = total.values.copy()
    outside[1:-1, 1:-1, 1:-1] = 0
    assert outside.max() == 0, "one empty voxel all around"


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"angle": 200}, "angle is 200, should lie from 0 to 180 degrees"),
        ({"angle": "steep"}, "angle is 'steep', should be a number"),
        ({"angle": float("nan")}, "angle is nan"),
        ({"azimuth": 1e4}, "azimuth is 10000.0"),
        ({"crimp": 80}, "crimp is 80, should lie from 0 to 60 degrees"),
        ({"twist": 500}, "twist is 500"),
        ({"straight": "yes"}, "straight is 'yes', should be true or false"),
        ({"free_fraction": 1.2}, "free_fraction is 1.2, should lie from 0 to 1"),
        ({"T2_isotropic": 0}, "T2_isotropic is 0"),
        ({"anisotropy": -1}, "anisotropy is -1"),
        ({"seed": -1}, "seed is -1, should be a whole number"),
        ({"resolution": 0.1}, "larger than the object itself"),
        ({"resolution": 1e-5}, "voxels, at most"),
        ({"field": 11.7}, "not known at field 11.7 T"),
    ],
)
def test_what_no_tendon_can_be_is_told_in_one_line(values, says):
    with pytest.raises(InputError, match=says) as error:
        tendon(**values)
    assert "\n" not in str(error.value)


def test_every_number_carries_its_source():
    assert "tendon.anisotropy" in tendon(resolution=COARSE).pools.attrs["tissue_numbers"]
    assert isinstance(tendon(resolution=COARSE), phantoms.Phantom)
