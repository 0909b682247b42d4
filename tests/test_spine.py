"""The spine, its labels, and the geometry it is made with."""

from __future__ import annotations

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.phantoms import geometry, patterns
from bonemri.phantoms.lumbar import LEVELS, label_names
from bonemri.phantoms.pools import MARROW
from bonemri.phantoms.spine import labels, spine
from bonemri.phantoms.vertebra import vertebra
from bonemri.simulator import tissues

ROUNDING = 1e-12
COARSE = 4e-3


def marrow_fat(bone, where=None):
    """PDFF of the marrow in each voxel, and the marrow's volume."""
    density = bone.pools["density"].sel(pool=[name for name in bone.pools["pool"].values if name in MARROW])
    volume = bone.pools["volume_fraction"].sel(pool=density["pool"]).sum("pool").values
    total = density.sum("pool").values
    fraction = np.divide(density.sel(pool="fat").values, total, out=np.zeros_like(total), where=total > 0)
    return fraction, volume if where is None else volume * where


def volume(bone, *names):
    """Volume (m3) of the pools whose names begin so."""
    chosen = [name for name in bone.pools["pool"].values if str(name).startswith(names)]
    return float(bone.pools["volume_fraction"].sel(pool=chosen).sum()) * float(bone.pools.attrs["voxel_size"][0]) ** 3


# ---- geometry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [1e-3, 1.7e-3, 4e-3])
def test_a_sphere_has_its_volume(resolution):
    radius = 0.012
    shape = geometry.superellipsoid((1e-3, -2e-3, 0.5e-3), (radius,) * 3)
    grid = geometry.Grid.around("test", shape.low, shape.high, resolution, 10**6)
    filled = geometry.fractions([geometry.Layer("ball", shape)], grid)["ball"]
    # Filling errs by O((edge/radius)^2) of the surface's curvature: edges of half a millimetre, 24 across a radius.
    assert filled.sum() * resolution**3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=(0.5e-3 / radius) ** 2 * 2)


def test_a_tube_has_its_volume_and_thickness_along_each_axis():
    length, radius = 0.03, 0.004
    for squash, factor in (((1, 1, 1), 1.0), ((1, 1, 2), 2.0)):
        shape = geometry.tube([(0, 0, 0), (length, 0, 0)], [radius, radius], squash)
        grid = geometry.Grid.around("test", shape.low, shape.high, 1e-3, 10**6)
        filled = geometry.fractions([geometry.Layer("tube", shape)], grid)["tube"]
        expected = factor * (np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3)
        assert filled.sum() * 1e-9 == pytest.approx(expected, rel=0.01)  # (edge/radius)^2, an eighth of a millimetre


def test_painting_keeps_the_sum_and_nested_shells_their_thickness():
    ball = geometry.superellipsoid((0, 0, 0), (0.01,) * 3)
    layers = [geometry.Layer("shell", ball), geometry.Layer("core", geometry.inset(ball, 0.3e-3), over="shell"),
              geometry.Layer("plug", geometry.tube([(0, 0, -0.02), (0, 0, 0.02)], [2e-3, 2e-3]))]
    grid = geometry.Grid.around("test", ball.low, ball.high, 1e-3, 10**6)
    filled = geometry.fractions(layers, grid)
    total = sum(filled.values())
    assert min(each.min() for each in filled.values()) >= 0
    assert total.max() <= 1 + ROUNDING
    whole = geometry.fractions([geometry.Layer("all", geometry.union(ball, layers[2].shape))], grid)["all"]
    # Where two surfaces cross inside one cube, painting in turn and filling their union differ by a part of the cube.
    np.testing.assert_allclose(total, whole, atol=0.13)
    bare = geometry.fractions(layers[:2], grid)["shell"]
    assert bare.sum() * 1e-9 == pytest.approx(4 / 3 * np.pi * (0.01**3 - 0.0097**3), rel=0.02)


def test_a_union_on_a_grid_is_the_union_of_points():
    shape = geometry.union(geometry.tube([(0, 0, 0), (0.02, 0, 0)], [3e-3, 2e-3]),
                           geometry.superellipsoid((0.02, 0.004, 0), (4e-3, 5e-3, 3e-3), 3.0, 2.5), blend=3e-3)
    x, y, z = (np.linspace(a, b, 31) for a, b in zip(shape.low, shape.high, strict=True))
    on_grid = shape.distance(x[None, None], y[None, :, None], z[:, None, None])
    points = [each.ravel() for each in np.broadcast_arrays(x[None, None], y[None, :, None], z[:, None, None])]
    one_by_one = shape.distance(*points).reshape(on_grid.shape)
    inside = one_by_one < 0.5e-3
    np.testing.assert_allclose(on_grid[inside], one_by_one[inside], rtol=0, atol=1e-15)
    assert (on_grid[~inside] > 0).all()


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.124, 0.5, 0.9, 1.0])
def test_patterns_meet_their_mean_and_stay_fractions(mean):
    rng = np.random.default_rng(3)
    axes = [np.arange(n) * 2e-3 for n in (9, 10, 11)]
    weight = np.where(rng.random((9, 10, 11)) < 0.5, rng.random((9, 10, 11)), 0)
    pattern = patterns.waves(axes, rng, 5e-3, 30e-3)
    for found in (patterns.around(mean, 0.3, pattern, weight), patterns.streaks(mean, 1.0, pattern, weight)):
        assert (found * weight).sum() / weight.sum() == pytest.approx(mean, abs=ROUNDING)
        assert found.min() >= 0 and found.max() <= 1


# ---- the spine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", tissues.CONDITIONS)
def test_volumes_are_conserved_and_prescriptions_met(condition):
    bone = spine(condition, resolution=COARSE)
    filled = bone.pools["volume_fraction"].sum("pool").values
    assert filled.max() <= 1 + ROUNDING
    middle = filled[2:-2, filled.shape[1] // 2, filled.shape[2] // 2]
    np.testing.assert_allclose(middle, 1, rtol=0, atol=ROUNDING)
    assert max(filled[at].max() for at in (0, -1, np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])) == 0
    common = "osteoporotic" if condition == "fractured" else condition
    if condition == "fractured":
        # Voxels of the broken vertebra are those that hold its own water.
        own = bone.pools["density"].sel(pool="oedema").values > 0
    else:
        own = np.zeros(filled.shape, bool)
    for part, of in ((~own, common), (own, "fractured")):
        fraction, weight = marrow_fat(bone, part)
        if weight.any():
            expected = tissues.value("marrow.pdff", condition=of)
            # Joints of the broken vertebra share voxels with its neighbours': a few in a hundred of its own, whose
            # fat fraction is off by half the difference of the two, and a few in a thousand of all the others'.
            close = ROUNDING if condition != "fractured" else 1e-3 if of == common else 0.01
            assert np.average(fraction, weights=weight) == pytest.approx(expected, abs=close)
    density = bone.pools["density"]
    fat, water = (density.sel(pool=f"muscle_{name}").values for name in ("fat", "water"))
    muscle = bone.pools["volume_fraction"].sel(pool=["muscle_fat", "muscle_water"]).sum("pool").values
    seen = muscle > 0
    assert np.average((fat[seen] / (fat + water)[seen]), weights=muscle[seen]) == pytest.approx(
        tissues.value("muscle.pdff", condition=condition), abs=ROUNDING)


def test_values_asked_for_are_met():
    bone = spine(resolution=COARSE, pdff=0.31, bvtv=0.2, perfusion_fraction=0.08, muscle_pdff=0.3, D=0.6e-3,
                 D_star=0.03)
    fraction, weight = marrow_fat(bone)
    assert np.average(fraction, weights=weight) == pytest.approx(0.31, abs=ROUNDING)
    solid, marrow = volume(bone, "trabecular_"), volume(bone, *MARROW)
    assert solid / (solid + marrow) == pytest.approx(0.2, abs=ROUNDING)
    assert float(bone.pools["D"].sel(pool="marrow_water")) == 0.6e-3
    assert float(bone.pools["D_star"].sel(pool="blood")) == 0.03
    lean = spine(resolution=6e-3, muscle_pdff=0.0)
    assert volume(lean, "muscle_fat") == 0 < volume(lean, "muscle_water")


def test_a_fracture_costs_height_in_front_and_bends_the_spine():
    def heights(label, broken):
        found = labels("osteoporotic", resolution=1e-3, sagittal=True, fractured_level=broken)
        body = (found == label).values[:, :, 0]
        # The largest run of columns that touch is the body; the spinous process stands apart behind it.
        columns = np.flatnonzero(body.any(axis=0))
        body_columns = np.split(columns, np.flatnonzero(np.diff(columns) > 3) + 1)[-1]
        tall = body[:, body_columns].sum(axis=0)
        return tall[len(tall) * 3 // 4], tall[len(tall) // 5]

    level = LEVELS.index("L2") + 1
    (front, back), (broken_front, broken_back) = heights(level, None), heights(level, "L2")
    assert broken_front < 0.85 * front  # 30 % at the very front, and three quarters of it here
    assert broken_back > 0.88 * back
    sound, bent = (spine("osteoporotic", resolution=6e-3, fractured_level=broken) for broken in (None, "L2"))
    assert bent.pools.attrs["lordosis_L1_L4"] < sound.pools.attrs["lordosis_L1_L4"] - 8  # degrees
    assert "oedema" in bent.pools["pool"] and "oedema" not in sound.pools["pool"]
    own = bent.pools["density"].sel(pool="oedema").values
    where = own > 0.5 * own.max()
    assert float(bent.truth["pdff"].values[where].mean()) < tissues.value("marrow.pdff", condition="osteoporotic") - 0.1
    np.testing.assert_array_less(bent.truth["bvtv"].values[where], 0.5)  # its marrow counts as marrow


def test_worn_discs_are_lower_and_drier():
    young, old = (spine(condition, resolution=COARSE) for condition in ("young", "old"))
    assert old.pools.attrs["disc_height"] < young.pools.attrs["disc_height"]
    T2 = [float(bone.pools["T2"].sel(pool="disc_nucleus")) for bone in (young, old)]
    assert T2[1] < 0.7 * T2[0]


def test_the_slice_is_the_middle_of_the_volume():
    for resolution in (4e-3, 5e-3):
        whole, one = (spine(seed=2, resolution=resolution, sagittal=flag, variation=0.0) for flag in (False, True))
        middle = whole.pools.isel(x=[whole.pools.sizes["x"] // 2])
        np.testing.assert_array_equal(one.pools["x"].values, middle["x"].values)
        assert set(one.pools["pool"].values) == set(middle["pool"].values)
        for tissue in (("cortical_",), ("adipose",), ("csf",), ("disc_nucleus",), ("disc_annulus",), ("vein",)):
            chosen = [name for name in middle["pool"].values if str(name).startswith(tissue)]
            np.testing.assert_allclose(one.pools["volume_fraction"].sel(pool=chosen),
                                       middle["volume_fraction"].sel(pool=chosen), rtol=0, atol=ROUNDING)


def test_anatomy_does_not_depend_on_resolution():
    coarse, fine = (spine(seed=1, resolution=r) for r in (5e-3, 3e-3))
    for names, close in ((("csf",), 0.01), (("disc_",), 0.01), (("muscle_",), 0.01), (("cortical_",), 0.04)):
        # Surfaces are known to some hundredths of a millimetre: of tissues a centimetre thick, and of shells.
        assert volume(coarse, *names) == pytest.approx(volume(fine, *names), rel=close)


def test_its_third_vertebra_is_the_vertebra_of_the_same_seed():
    seed, resolution = 5, 1e-3
    found = labels(seed=seed, resolution=resolution, sagittal=True).values[:, :, 0] == LEVELS.index("L3") + 1
    alone = vertebra(seed=seed, resolution=resolution).pools["volume_fraction"].sum("pool")
    alone = alone.isel(x=alone.sizes["x"] // 2).values > 0.5
    rows = np.flatnonzero(found.any(axis=0))
    body = np.split(rows, np.flatnonzero(np.diff(rows) > 3) + 1)[-1]  # in front of the canal
    assert abs(len(body) - alone.any(axis=0).sum()) <= 2  # voxels; it is tilted a little
    assert found[:, body].sum() == pytest.approx(alone.sum(), rel=0.03)


def test_labels_name_every_structure_on_the_grid_of_the_spine():
    found = labels(resolution=3e-3)
    bone = spine(resolution=3e-3)
    assert found.shape == bone.pools["density"].shape[1:]
    np.testing.assert_array_equal(found["z"], bone.pools["z"])
    names = label_names()
    assert set(np.unique(found)) == {0, *names}
    assert dict(zip(found.attrs["flag_values"].tolist(), found.attrs["flag_meanings"].split(), strict=True)) == {
        number: name.replace(" ", "_") for number, name in names.items()}
    vertebrae = (found.values >= 1) & (found.values <= len(LEVELS))
    bony = bone.pools["volume_fraction"].sel(pool=[
        name for name in bone.pools["pool"].values if name in MARROW or str(name).startswith(("cort", "trab", "vein"))])
    # A voxel whose middle lies inside is full, or at the surface on average three quarters full.
    assert bony.sum("pool").values[vertebrae].mean() > 0.75
    left = found.values == next(number for number, name in names.items() if name == "left psoas")
    assert float(found["x"].values[np.nonzero(left)[2]].max()) < 0  # x runs to the right of the person


def test_seeds_and_bits(monkeypatch):
    monkeypatch.setenv("BONEMRI_THREADS", "1")
    one = spine(seed=4, resolution=5e-3)
    monkeypatch.setenv("BONEMRI_THREADS", "3")
    assert spine(seed=4, resolution=5e-3).pools.identical(one.pools)
    volumes = {volume(spine(seed=seed, resolution=6e-3), "disc_") for seed in range(4)}
    assert len(volumes) == 4


def test_sizes_are_those_of_people():
    for seed in range(3):
        bone = spine(seed=seed, resolution=COARSE)
        assert 8 < bone.pools.attrs["lordosis_L1_L4"] < 40  # degrees; Cobb of L1 to S1 30 to 62, half of it below L4
        found = labels(seed=seed, resolution=2e-3)
        area = 0.0
        for name in ("right erector spinae", "right multifidus"):
            number = next(key for key, value in label_names().items() if value == name)
            third = np.flatnonzero((found == LEVELS.index("L3") + 1).any(("y", "x")).values)
            area += float((found == number).isel(z=third).sum(("y", "x")).mean()) * 4e-6
        limits = tissues.entry("spine.muscle_area")
        assert limits.low < area < limits.high


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"condition": "brittle"}, "no condition 'brittle'"),
        ({"condition": None}, "condition is None, should be one of young"),
        ({"seed": -1}, "seed is -1"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": 0.05}, "resolution is 0.05 m, larger than the object itself"),
        ({"resolution": 1e-4}, "the resolution gives"),
        ({"field": 11.7}, "not known at field 11.7 T"),
        ({"pdff": 1.2}, "pdff is 1.2, should lie from 0 to 1"),
        ({"bvtv": 1.0}, "bvtv is 1.0, should lie from 0 to below 1"),
        ({"muscle_pdff": -0.1}, "muscle_pdff is -0.1"),
        ({"D": 1.0}, "D is 1.0, should lie from 0 to 0.0035 mm2/s"),
        ({"variation": 2}, "variation is 2"),
        ({"fractured_level": "S1"}, "fractured_level is 'S1', should be one of L1, L2, L3, L4"),
        ({"sagittal": "yes"}, "sagittal is 'yes', should be True or False"),
    ],
)
def test_a_wrong_wish_gets_one_clear_line(values, says):
    with pytest.raises(InputError, match=says) as error:
        spine(**{"resolution": 6e-3, **values})
    assert "\n" not in str(error.value)


def test_structure_adds_its_rate_to_the_marrow_alone():
    """All pools of the marrow, of the broken vertebra too, and no other; its labels are those made by themselves."""
    bone = spine("fractured", resolution=6e-3, R2_prime=40.0)
    rate = dict(zip(bone.pools["pool"].values.tolist(), bone.pools["R2_prime"].values.tolist(), strict=True))
    assert {name for name, value in rate.items() if value == 40.0} == {"marrow_water", "blood", "fat", "oedema"}
    assert set(rate.values()) == {0.0, 40.0}
    assert bone.labels.equals(labels("fractured", resolution=6e-3))
    with pytest.raises(InputError, match="R2_prime is -1"):
        spine(R2_prime=-1.0)
