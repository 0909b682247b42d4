"""Heel bone: shape, composition, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.phantoms.calcaneus import _drawn as heel_drawn
from bonemri.phantoms.calcaneus import calcaneus
from bonemri.phantoms.pools import MARROW
from bonemri.simulator import tissues

ROUNDING = 1e-12
COARSE = 4e-3
BONES = {"calcaneus": calcaneus}


def share(bone, *names):
    """Volume fraction (z, y, x) of the pools whose names begin so."""
    chosen = [name for name in bone.pools["pool"].values if str(name).startswith(names)]
    return bone.pools["volume_fraction"].sel(pool=chosen).sum("pool").values


def extent(bone):
    """Size (m; z, y, x) of what is more than half filled."""
    filled = share(bone, "") > 0.5
    size = float(bone.pools.attrs["voxel_size"][0])
    return [float(np.ptp(np.nonzero(filled)[axis]) + 1) * size for axis in range(3)]


@pytest.mark.parametrize("name", BONES)
@pytest.mark.parametrize("condition", tissues.CONDITIONS)
def test_volumes_are_conserved(name, condition):
    bone = BONES[name](condition, resolution=COARSE)
    filled = share(bone, "")
    assert filled.max() == pytest.approx(1, abs=ROUNDING)
    assert max(filled[at].max() for at in (0, -1, np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])) == 0
    solid, marrow = share(bone, "trabecular_").sum(), share(bone, *MARROW).sum()
    assert bone.pools.attrs["bvtv"] == pytest.approx(solid / (solid + marrow), abs=ROUNDING)
    assert bone.pools.attrs["condition"] == condition


def test_a_heel_meets_its_prescription():
    for values in ({}, {"pdff": 0.7, "bvtv": 0.18, "perfusion_fraction": 0.05}):
        bone = calcaneus("old", resolution=COARSE, **values)
        marrow, solid = share(bone, *MARROW), share(bone, "trabecular_").sum()
        seen = marrow > 0
        for quantity, path in (("pdff", "calcaneus.pdff"), ("f", "marrow.perfusion_fraction")):
            wanted = values.get({"f": "perfusion_fraction"}.get(quantity, quantity),
                                tissues.value(path, condition="old"))
            found = np.average(bone.truth[quantity].values[seen], weights=marrow[seen])
            assert found == pytest.approx(wanted, abs=ROUNDING)
        wanted = values.get("bvtv", tissues.value("calcaneus.bvtv", condition="old"))
        assert solid / (solid + marrow.sum()) == pytest.approx(wanted, abs=ROUNDING)


def test_a_heel_has_its_size_its_shelf_and_its_neutral_triangle():
    for seed in range(2):
        bone = calcaneus(seed=seed, resolution=1e-3)
        height, length, width = extent(bone)
        for found, name in ((height, "height"), (length, "length"), (width, "width")):
            assert found == pytest.approx(bone.pools.attrs[name], abs=2e-3)  # half a voxel at each end, and the fillets
            limits = tissues.entry(f"calcaneus.{name}")
            assert limits.low < found < limits.high
    truth = bone.truth["bvtv"].isel(x=bone.pools.sizes["x"] // 2)
    solid = truth.values[np.isfinite(truth.values)]
    assert np.percentile(solid, 99) > 1.5 * bone.pools.attrs["bvtv"]
    assert np.percentile(solid, 1) < 0.6 * bone.pools.attrs["bvtv"]


@pytest.mark.parametrize("name", BONES)
def test_anatomy_does_not_depend_on_resolution(name):
    coarse, fine = (BONES[name](seed=1, resolution=r).pools.attrs for r in (4e-3, 1.5e-3))
    assert coarse["bone_volume"] == pytest.approx(fine["bone_volume"], rel=0.01)  # a tenth of a millimetre of a radius
    assert coarse["marrow_volume"] == pytest.approx(fine["marrow_volume"], rel=0.02)  # of which the cortex may err too


@pytest.mark.parametrize("name", BONES)
def test_seeds_and_bits(name, monkeypatch):
    monkeypatch.setenv("BONEMRI_THREADS", "1")
    one = BONES[name](seed=4, resolution=COARSE)
    monkeypatch.setenv("BONEMRI_THREADS", "3")
    assert BONES[name](seed=4, resolution=COARSE).pools.identical(one.pools)
    volumes = {BONES[name](seed=seed, resolution=6e-3).pools.attrs["bone_volume"] for seed in range(4)}
    assert len(volumes) == 4


def test_sizes_drawn_are_published_sizes():
    for seed in range(50):
        heel = heel_drawn(np.random.default_rng(seed))
        for name in ("length", "width", "height"):
            limits = tissues.entry(f"calcaneus.{name}")
            assert limits.low <= getattr(heel, name) <= limits.high


EVERY = [
    ({"condition": "brittle"}, "no condition 'brittle'"),
    ({"condition": None}, "condition is None, should be one of young"),
    ({"seed": -1}, "seed is -1"),
    ({"resolution": -1}, "resolution is -1"),
    ({"resolution": 0.1}, "resolution is 0.1 m, larger than the object itself"),
    ({"resolution": 1e-5}, "the resolution gives"),
    ({"field": 11.7}, "not known at field 11.7 T"),
    ({"perfusion_fraction": 1.5}, "perfusion_fraction is 1.5"),
    ({"variation": -1}, "variation is -1"),
]
OWN = {
    "calcaneus": [({"pdff": "fatty"}, "pdff is 'fatty', should be a number"), ({"bvtv": 1.0}, "bvtv is 1.0")],
}


@pytest.mark.parametrize(("name", "values", "says"), [(name, *case) for name in BONES for case in [*EVERY, *OWN[name]]])
def test_a_wrong_wish_gets_one_clear_line(name, values, says):
    with pytest.raises(InputError, match=says) as error:
        BONES[name](**values)
    assert "\n" not in str(error.value)
