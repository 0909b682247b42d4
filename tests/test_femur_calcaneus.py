"""Proximal femur and calcaneus: conservation, prescriptions, size, regions, seeds, bad input."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.phantoms import geometry
from bonemri.phantoms.calcaneus import anatomy as heel_anatomy
from bonemri.phantoms.calcaneus import calcaneus
from bonemri.phantoms.femur import anatomy as hip_anatomy
from bonemri.phantoms.femur import femur
from bonemri.phantoms.pools import MARROW
from bonemri.phantoms.regions import Region, blend, prescribed
from bonemri.simulator import tissues

ROUNDING = 1e-12
COARSE = 4e-3
BOTH = pytest.mark.parametrize("make", [femur, calcaneus], ids=["femur", "calcaneus"])


@functools.cache
def built(make, *args, **values):
    return make(*args, **values)


def marrow(bone):
    """PDFF, perfusion fraction and volume fraction of the marrow in each voxel; fat around the bone does not count."""
    names = [name for name in bone.pools["pool"].values if name in MARROW]
    density = bone.pools["density"].sel(pool=names)
    volume = bone.pools["volume_fraction"].sel(pool=names).sum("pool").values
    fat, blood, water = (density.sel(pool=name).values for name in ("fat", "blood", "marrow_water"))
    wet = water + blood
    total = fat + wet
    return (np.divide(fat, total, out=np.zeros_like(fat), where=total > 0),
            np.divide(blood, wet, out=np.zeros_like(fat), where=wet > 0), volume)


def bone_volume(bone, name):
    """Volume (m3) of the solid ``trabecular`` or ``cortical`` bone."""
    volume, edge = bone.pools["volume_fraction"], float(bone.pools.attrs["voxel_size"][0])
    return float(volume[volume["pool"].str.startswith(f"{name}_")].sum()) * edge**3


def drawn_for(make, seed=0):
    """The anatomy that a seed draws."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(5)[0])
    return hip_anatomy(rng, "young") if make is femur else heel_anatomy(rng)


def place(bone, values, point):
    """Value in the voxel nearest to `point` (m) of the frame in which the anatomy is drawn."""
    make = {"femur": femur, "calcaneus": calcaneus}[bone.name]
    drawn = drawn_for(make, bone.pools.attrs["seed"])
    low, high = (drawn.low, drawn.high) if make is femur else drawn.box(True)
    at = np.asarray(point) - (low + high) / 2
    return values[tuple(int(abs(bone.pools[dim].values - at[i]).argmin()) for i, dim in ((2, "z"), (1, "y"), (0, "x")))]


# ---- every bone ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("condition", tissues.CONDITIONS)
def test_volumes_are_conserved_with_an_empty_rim(make, condition):
    bone = built(make, condition, resolution=COARSE)
    volume = bone.pools["volume_fraction"].values
    assert volume.min() >= 0
    filled = volume.sum(axis=0)
    assert filled.max() <= 1 + ROUNDING
    middle = filled.shape[1] // 2
    np.testing.assert_allclose(filled[3:-3, middle, filled.shape[2] // 2], 1, rtol=0, atol=ROUNDING)
    assert max(filled[at].max() for at in (0, -1, np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])) == 0
    assert bone.truth.attrs["condition"] == condition


@BOTH
@pytest.mark.parametrize(("pdff", "bvtv", "f"), [(0.3, 0.05, 0.1), (0.93, 0.4, 0.02), (0.0, 0.0, 0.0), (1.0, 0.2, 0.3)])
def test_prescriptions_are_met_as_means_over_volume(make, pdff, bvtv, f):
    bone = make(pdff=pdff, bvtv=bvtv, perfusion_fraction=f, resolution=5e-3)
    fat, blood, volume = marrow(bone)
    assert np.average(fat, weights=volume) == pytest.approx(pdff, abs=ROUNDING)
    if pdff < 1:
        assert np.average(blood, weights=volume) == pytest.approx(f, abs=ROUNDING)
    measured = bone.pools.attrs
    assert measured["bvtv"] == pytest.approx(bvtv, abs=ROUNDING)
    # The canal has no trabeculae and is no part of the mean.
    room = measured["marrow_volume"] - measured.get("canal_volume", 0.0) + bone_volume(bone, "trabecular")
    assert bone_volume(bone, "trabecular") / room == pytest.approx(bvtv, abs=1e3 * ROUNDING)


@BOTH
def test_D_and_D_star_are_those_asked_for(make):
    bone = make(D=0.4e-3, D_star=30e-3, resolution=6e-3)
    assert float(bone.pools["D"].sel(pool="marrow_water")) == 0.4e-3
    assert float(bone.pools["D_star"].sel(pool="blood")) == 30e-3


@BOTH
def test_osteoporosis_takes_trabecular_bone_and_leaves_marrow(make):
    young, porous, broken = (built(make, c, resolution=COARSE) for c in ("young", "osteoporotic", "fractured"))
    lost = tissues.value("calcaneus.bvtv", condition="osteoporotic") / tissues.value("calcaneus.bvtv")
    # The loss is that of the table; a thinner cortex leaves more room in the shaft, which has few trabeculae.
    assert porous.pools.attrs["bvtv"] == pytest.approx(lost * young.pools.attrs["bvtv"], rel=0.03)
    assert porous.pools.attrs["marrow_volume"] > young.pools.attrs["marrow_volume"]
    assert bone_volume(porous, "trabecular") < bone_volume(young, "trabecular")
    assert bone_volume(porous, "cortical") <= bone_volume(young, "cortical")
    # A fracture elsewhere: the same sound bone.
    np.testing.assert_array_equal(broken.pools["density"].values, porous.pools["density"].values)
    order = [built(make, c, resolution=COARSE).pools.attrs["bvtv"] for c in ("young", "old", "osteopenic",
                                                                            "osteoporotic")]
    assert order == sorted(order, reverse=True)


@BOTH
def test_anatomy_does_not_depend_on_resolution(make):
    coarse, fine = (make(seed=3, resolution=r, soft_tissue=False) for r in (3e-3, 1.5e-3))
    for name in ("body_volume", "marrow_volume"):
        # Surfaces are known to a few hundredths of a millimetre: a thousandth or two of a bone some 40 mm across.
        assert coarse.pools.attrs[name] == pytest.approx(fine.pools.attrs[name], rel=5e-3)
    # The cut end and oblique faces of a shell of a millimetre err by a share of cubes of three quarters of one.
    assert bone_volume(coarse, "cortical") == pytest.approx(bone_volume(fine, "cortical"), rel=0.03)


@BOTH
def test_soft_tissue_does_not_change_the_bone(make):
    within, bare = built(make, resolution=COARSE), make(resolution=COARSE, soft_tissue=False)
    # Two grids, shifted by a part of a voxel: their cubes see the surfaces elsewhere.
    for name in ("body_volume", "marrow_volume"):
        assert bare.pools.attrs[name] == pytest.approx(within.pools.attrs[name], rel=0.01)
    assert not {"adipose", "muscle_water"} & set(bare.pools["pool"].values)
    assert {"adipose", "muscle_water"} <= set(within.pools["pool"].values)


@BOTH
def test_seeds_give_their_own_bone_to_the_bit(make):
    first = built(make, resolution=COARSE)
    again, other = make(resolution=COARSE), make(seed=1, resolution=COARSE)
    assert again.pools.identical(first.pools)
    assert other.pools.attrs["body_volume"] != first.pools.attrs["body_volume"]
    volumes = [make(seed=seed, resolution=6e-3, soft_tissue=False).pools.attrs["body_volume"] for seed in range(5)]
    assert len(set(volumes)) == 5


@BOTH
def test_no_variation_leaves_the_regions(make):
    smooth, rough = (make(resolution=COARSE, variation=v) for v in (0.0, 0.5))
    seen = marrow(smooth)[2] > 0.5
    share = [np.where(seen, bone.truth["bvtv"].values, 0)[seen] for bone in (smooth, rough)]
    assert share[0].std() > 0.02
    slope = [np.abs(np.diff(marrow(bone)[0], axis=0))[seen[1:] & seen[:-1]].mean() for bone in (smooth, rough)]
    assert slope[0] < slope[1]


@BOTH
@pytest.mark.parametrize("resolution", [1.7e-3, 2.5e-3, 15e-3])
def test_any_resolution_will_do(make, resolution):
    bone = make(resolution=resolution, pdff=0.4, soft_tissue=False)
    fat, _, volume = marrow(bone)
    assert np.average(fat, weights=volume) == pytest.approx(0.4, abs=ROUNDING)
    assert bone.pools["volume_fraction"].sum("pool").max() <= 1 + ROUNDING


# ---- the femur -------------------------------------------------------------------------------------------------


def test_the_head_is_a_ball_of_published_size():
    for seed in range(4):
        drawn = hip_anatomy(np.random.default_rng(seed), "young")
        size = tissues.entry("femur.head_diameter")
        assert size.low <= drawn.head <= size.high
        shape = drawn.whole()
        # From the head's centre outwards, away from the neck, the surface is half a diameter off.
        for direction in (drawn.along, np.array([0, 0, 1.0]), np.array([0, 1.0, 0]), np.array([-1.0, 0, 0])):
            x, y, z = drawn.middle + 0.5 * drawn.head * direction
            # The fillet to the neck may lift the surface by less than half a millimetre there.
            assert float(shape.distance(np.array(x), np.array(y), np.array(z))) == pytest.approx(0, abs=0.5e-3)
        assert drawn.cortex == tissues.value("femur.cortical_thickness")


def test_the_neck_has_its_width_and_angle():
    drawn = hip_anatomy(np.random.default_rng(0), "young")
    angle = math.degrees(math.acos(drawn.along @ np.array([0, 0, -1.0])))
    entry = tissues.entry("femur.neck_shaft_angle")
    assert entry.low < angle < entry.high
    shape, down = drawn.whole(), np.array(drawn.on_neck(0.5, 1.0)) - np.array(drawn.on_neck(0.5))
    away = np.linspace(-0.03, 0.03, 601)
    middle = np.array(drawn.on_neck(0.5))

    def width(direction):
        points = middle[:, None] + direction[:, None] * away
        return (shape.distance(*points) < 0).sum() * (away[1] - away[0])

    # Fillets to head and trochanters thicken the middle of the neck by a millimetre or two.
    assert width(down) == pytest.approx(drawn.neck_width, abs=4e-3)
    assert width(np.array([0, 1.0, 0])) == pytest.approx(drawn.neck_thickness, abs=4e-3)
    assert width(down) < drawn.head


@pytest.mark.parametrize("condition", ["young", "osteoporotic"])
def test_the_cortex_of_the_shaft_is_as_thick_as_it_should_be(condition):
    bone = built(femur, condition, resolution=2e-3)
    expected = tissues.value("femur.cortical_thickness", condition=condition)
    # An ellipse (1 : 0.92) whose inner outline is at equal distance; radii of equal areas agree to a per cent.
    assert bone.pools.attrs["cortical_thickness"] == pytest.approx(expected, rel=0.03)


def test_regions_of_the_hip_differ_as_they_should():
    bone = built(femur, resolution=2e-3)
    fat, _, _ = marrow(bone)
    share = bone.truth["bvtv"].values
    drawn = drawn_for(femur)
    at = {"head": tuple(drawn.middle), "trochanter": (0.016, -0.006, 0.016), "inter": (0.0, 0.0, -0.020),
          "ward": drawn.on_neck(0.34, 0.02 * drawn.neck_width), "canal": (0.0, 0.0, -0.075)}
    found = {name: place(bone, fat, point) for name, point in at.items()}
    assert found["head"] > 0.95 and found["trochanter"] > found["inter"] + 0.05
    assert found["head"] == pytest.approx(tissues.value("femur.pdff_head"), abs=0.02)
    solid = {name: place(bone, share, point) for name, point in at.items()}
    assert solid["head"] > 2 * solid["ward"] and solid["canal"] == 0
    assert solid["head"] == pytest.approx(tissues.value("femur.head_bvtv"), rel=0.3)


# ---- the calcaneus ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_heel_bone_has_its_length_height_and_width(seed):
    bone = calcaneus(seed=seed, resolution=1.5e-3, soft_tissue=False)
    drawn = drawn_for(calcaneus, seed)
    scale = dict(zip(("width", "length", "height"), drawn.scale, strict=True))
    for name, factor in scale.items():
        expected = tissues.value(f"calcaneus.{name}") * factor * 1e3
        # Rounded ends fill the outermost voxel by less than it reaches: a voxel, and the fillets' few tenths.
        assert bone.pools.attrs[name] == pytest.approx(expected, abs=2e-3)
        entry = tissues.entry(f"calcaneus.{name}")
        assert entry.low - 2e-3 < bone.pools.attrs[name] < entry.high + 2e-3


def test_the_shell_is_thin():
    bone = calcaneus(resolution=1.5e-3, soft_tissue=False)
    shape = drawn_for(calcaneus).whole()
    volume = []
    grid = geometry.Grid.around("test", shape.low, shape.high, 1.5e-3, 10**7)
    for step in (-0.2e-3, 0.2e-3):
        moved = geometry.inset(shape, step)
        volume.append(geometry.fractions([geometry.Layer("all", moved)], grid)["all"].sum() * 1.5e-3**3)
    area = (volume[0] - volume[1]) / 0.4e-3  # the volume's derivative with the position of the surface
    shell = bone_volume(bone, "cortical") / area
    # A curved shell holds less on its inner side: thickness over the radius of curvature (some 15 mm), 5 %.
    assert shell == pytest.approx(tissues.value("calcaneus.shell"), rel=0.08)


def test_the_neutral_triangle_is_empty_and_the_thalamus_dense():
    bone = built(calcaneus, resolution=2e-3)
    drawn = drawn_for(calcaneus)
    share = bone.truth["bvtv"].values
    triangle, thalamus, tuber = (place(bone, share, drawn.at(*point))
                                 for point in ((3, 9, 15), (2, 3, 34), (1, -27, 20)))
    assert triangle < 0.6 * tuber < thalamus
    assert np.average(marrow(bone)[0], weights=marrow(bone)[2]) == pytest.approx(tissues.value("calcaneus.pdff"))


# ---- regions ---------------------------------------------------------------------------------------------------


def test_a_region_has_its_value_and_the_rest_the_rest():
    axes = [np.linspace(-0.05, 0.05, 21)] * 3
    found = blend(axes, [Region((0, 0, 0), (5e-3,) * 3, 0.6)], 0.2)
    assert found.max() <= 0.6 and found[10, 10, 10] == pytest.approx((0.6 + 0.05 * 0.2) / 1.05)
    assert found[0, 0, 0] == pytest.approx(0.2, abs=1e-9)


@pytest.mark.parametrize("mean", [None, 0.0, 0.1, 0.8, 1.0])
def test_a_prescribed_map_meets_its_mean(mean):
    rng = np.random.default_rng(0)
    weight, regional = rng.random((5, 6, 7)), rng.uniform(0.1, 0.9, (5, 6, 7))
    found = prescribed(mean, regional, rng.normal(size=(5, 6, 7)), 0.3, weight)
    expected = (regional * weight).sum() / weight.sum() if mean is None else mean
    assert (found * weight).sum() / weight.sum() == pytest.approx(expected, abs=ROUNDING)
    assert found.min() >= 0 and found.max() <= 1


# ---- bad input -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("values", "says"), [
    ({"condition": "brittle"}, "no condition 'brittle'; known: young, old"),
    ({"condition": None}, "condition is None, should be one of young"),
    ({"pdff": 1.3}, "pdff is 1.3, should lie from 0 to 1"),
    ({"pdff": float("nan")}, "pdff is nan"),
    ({"pdff": "half"}, "pdff is 'half', should be a number from 0 to 1"),
    ({"bvtv": 1.0}, "bvtv is 1.0, should lie from 0 to below 1"),
    ({"perfusion_fraction": 2}, "perfusion_fraction is 2"),
    ({"D": 0.5}, "D is 0.5, should lie from 0 to 0.0035 mm2/s"),
    ({"D_star": -1e-3}, "D_star is -0.001"),
    ({"variation": 3}, "variation is 3"),
    ({"soft_tissue": "yes"}, "soft_tissue is 'yes', should be True or False"),
    ({"seed": -1}, "seed is -1, should be a whole number"),
    ({"seed": 1.5}, "seed is 1.5, should be a whole number"),
    ({"resolution": 0}, "resolution is 0"),
    ({"resolution": float("nan")}, "resolution is nan"),
    ({"resolution": "fine"}, "resolution is 'fine', should be a number"),
    ({"resolution": 0.1}, "resolution is 0.1 m, larger than the object itself"),
    ({"resolution": 1e-5}, r"the resolution gives .* voxels, at most 2e\+07"),
    ({"field": 11.7}, "not known at field 11.7 T"),
    ({"field": 0}, "field is 0, should be a field strength"),
    ({"field": "3T"}, "field is '3T'"),
])
def test_a_wrong_wish_gets_one_clear_line(make, values, says):
    with pytest.raises(InputError, match=says) as error:
        make(**values)
    assert "\n" not in str(error.value)
