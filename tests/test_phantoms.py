"""Phantoms: conservation laws, truth against the recipe, seeds, files, bad input."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms, simulator
from bonemri.errors import InputError
from bonemri.phantoms.pools import PROTONS, SCHEMA, WATER
from bonemri.phantoms.recipes import composition
from bonemri.phantoms.truth import PROTOCOL_TRUTH, TRUTH, truth
from bonemri.phantoms.vertebra import _anatomy
from bonemri.simulator import equations, tissues

B = np.array([0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800.0])
PROTOCOL = {"b": B, "TE": 0.060, "TR": 3.0}
ROUNDING = 1e-12  # sums and ratios of a few numbers of order one

fraction = st.floats(0.0, 1.0)
few = settings(max_examples=15, deadline=None)  # building a bone takes longer than hypothesis allows by default

SMALL = {
    "spine": {"resolution": 5e-3},
    "vertebra": {"resolution": 4e-3},
    "trabecular": {"size": 2e-3, "resolution": 80e-6, "morphometry": False},
    "femur": {"resolution": 5e-3},
    "calcaneus": {"resolution": 5e-3},
    "cortical": {"resolution": 3e-3, "slices": 2},
    "haversian": {"resolution": 25e-6},
    "tendon": {"resolution": 3e-3},
    "vials": {"f": (0.05, 0.1), "D": (0.4e-3,), "D_star": (20e-3,)},
    "marrow_block": {"shape": (2, 3, 4)},
}


@pytest.fixture(scope="module", params=list(phantoms.registry))
def bone(request):
    return phantoms.registry[request.param](**SMALL[request.param])


# ---- every phantom of the registry -----------------------------------------------------------------------------


def test_schema_units_and_names(bone):
    kurtosis = bone.name == "marrow_block"  # one fit a voxel: on the small phantom only
    at = bone.truth_at(PROTOCOL, kurtosis=kurtosis)
    asked = {name: row for name, row in PROTOCOL_TRUTH.items() if kurtosis or name != "kurtosis"}
    for dataset, table in ((bone.pools, SCHEMA), (bone.truth, TRUTH), (at, asked)):
        exchanging = bool((bone.pools["exchange"] > 0).any())
        assert set(dataset.data_vars) == set(table) - (set() if exchanging else {"T1_intrinsic"})
        for name, (unit, *_) in ((name, table[name]) for name in dataset.data_vars):
            assert dataset[name].attrs["units"] == unit
            assert dataset[name].attrs["long_name"]
    assert bone.truth["f"].dims == ("z", "y", "x")
    for name in ("name", "seed", "condition", "field_strength", "voxel_size", "affine", "parameters"):
        assert name in bone.pools.attrs
        assert name in bone.truth.attrs


def test_attributes_are_what_netcdf_can_hold(bone):
    for value in bone.pools.attrs.values():
        assert isinstance(value, (str, int, float, np.ndarray))
        if not isinstance(value, str):
            assert np.isfinite(value).all()
    json.loads(bone.pools.attrs["parameters"])


def test_volumes_and_concentrations_are_conserved(bone):
    volume = bone.pools["volume_fraction"].values
    assert (volume >= 0).all()
    assert volume.sum(axis=0).max() <= 1 + ROUNDING
    density = bone.pools["density"].values
    most = tissues.entry("water.density").high
    assert (density <= most * volume * (1 + ROUNDING)).all()
    np.testing.assert_allclose(bone.pools["peak_area"].sum("peak"), 1, rtol=0, atol=ROUNDING)


def test_truth_lies_in_its_range_and_is_nan_where_there_is_nothing(bone):
    empty = bone.pools["density"].sum("pool").values == 0
    for name in TRUTH:
        values = bone.truth[name].values
        assert np.isnan(values[empty]).all()
    for name in ("f", "pdff", "bvtv"):
        values = bone.truth[name].values
        assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    water = bone.pools["density"].values[np.isin(bone.pools["kind"], WATER)].sum(axis=0) > 0
    assert np.isfinite(bone.truth["f"].values[water]).all()


def test_same_seed_same_phantom_to_the_bit(bone):
    make, values = phantoms.get(bone.name), SMALL[bone.name]
    again = make(**values)
    assert again.pools.identical(bone.pools)
    assert again.truth.identical(bone.truth)
    assert make(seed=7, **values).pools.attrs["seed"] == 7


def test_a_file_brings_everything_back(bone, tmp_path):
    path = bone.to_netcdf(tmp_path / "bone.nc")
    back = phantoms.Phantom.from_netcdf(path)
    assert back.pools.identical(bone.pools)
    assert back.truth.identical(bone.truth)
    assert list(tmp_path.iterdir()) == [path]
    with xr.open_dataset(path, group="truth", engine="h5netcdf") as stored:
        xr.testing.assert_identical(stored.load(), bone.truth)


def test_affine_maps_the_middle_of_the_grid_to_the_origin(bone):
    affine = bone.pools.attrs["affine"].reshape(4, 4)
    middle = [(bone.pools.sizes[dim] - 1) / 2 for dim in ("x", "y", "z")]
    np.testing.assert_allclose(affine @ [*middle, 1], [0, 0, 0, 1], atol=1e-9)  # mm, rounding of some tens
    np.testing.assert_allclose(np.diag(affine)[:3], bone.pools.attrs["voxel_size"] * 1e3)


# ---- recipe and truth ------------------------------------------------------------------------------------------


@given(pdff=fraction, f=fraction)
def test_a_litre_of_marrow_is_a_litre_and_holds_the_fractions_asked_for(pdff, f):
    part = composition(pdff, f)
    assert sum(litres for _, litres in part.values()) == pytest.approx(1, abs=ROUNDING)
    water, blood, fat = (float(part[name][0]) for name in ("water", "blood", "fat"))
    assert fat == pytest.approx(pdff * (water + blood + fat), abs=1e3 * ROUNDING)  # of some 100 mol/L
    assert blood == pytest.approx(f * (water + blood), abs=1e3 * ROUNDING)


@few
@given(
    pdff=fraction, f=st.floats(0.0, 1.0), bvtv=st.floats(0.0, 0.9), D=st.floats(0.1e-3, 3e-3),
    D_star=st.floats(5e-3, 0.2),
)
def test_a_block_is_what_was_asked_for(pdff, f, bvtv, D, D_star):
    block = phantoms.marrow_block(f=f, pdff=pdff, bvtv=bvtv, D=D, D_star=D_star)
    found = {name: float(block.truth[name].values.item()) for name in TRUTH}
    assert found["pdff"] == pytest.approx(pdff, abs=ROUNDING)
    assert found["bvtv"] == pytest.approx(bvtv, abs=ROUNDING)
    density = {name: float(block.pools["density"].sel(pool=name).item()) for name in ("marrow_water", "blood")}
    if density["marrow_water"] + density["blood"] > 0:
        assert found["f"] == pytest.approx(f, abs=ROUNDING)
    if density["marrow_water"] > 0:
        assert found["D"] == pytest.approx(D, rel=ROUNDING)
    assert np.isnan(found["D_star"]) if density["blood"] == 0 else found["D_star"] == D_star
    np.testing.assert_allclose(block.pools["volume_fraction"].sum("pool"), 1, rtol=0, atol=ROUNDING)


@few
@given(pdff=fraction, perfusion_fraction=fraction, bvtv=st.floats(0.0, 0.9), seed=st.integers(0, 2**40))
def test_a_vertebra_meets_its_prescription_as_a_mean_over_marrow(pdff, perfusion_fraction, bvtv, seed):
    body = phantoms.vertebra(resolution=6e-3, pdff=pdff, perfusion_fraction=perfusion_fraction, bvtv=bvtv, seed=seed)
    seen = body.truth["pdff"].notnull()
    assert float(body.truth["pdff"].mean()) == pytest.approx(pdff, abs=ROUNDING)
    if pdff < 0.999:  # a voxel that rounds to pure fat has no water, hence no f
        assert float(body.truth["f"].mean()) == pytest.approx(perfusion_fraction, abs=ROUNDING)
    np.testing.assert_allclose(body.truth["bvtv"].values[seen], bvtv, rtol=0, atol=ROUNDING)
    assert body.pools.attrs["bvtv"] == pytest.approx(bvtv, abs=ROUNDING)
    density = body.pools["density"].values
    assert (density[np.isin(body.pools["kind"], PROTONS)].sum(axis=0) <= tissues.entry("water.density").high).all()


@pytest.mark.parametrize("condition", tissues.CONDITIONS)
def test_each_condition_gives_its_own_bone(condition):
    body = phantoms.vertebra(condition, resolution=4e-3)
    assert float(body.truth["pdff"].mean()) == pytest.approx(tissues.value("marrow.pdff", condition=condition))
    assert float(body.truth["D"].mean()) == pytest.approx(tissues.value("marrow_water.D", condition=condition))
    assert body.truth.attrs["condition"] == condition


def test_a_fracture_costs_height_in_front():
    sound, broken = (phantoms.vertebra(c, resolution=1e-3) for c in ("osteoporotic", "fractured"))

    def height(body, part):
        inside = body.pools["volume_fraction"].sum("pool").isel(x=body.pools.sizes["x"] // 2)
        return float(inside.sum("z").where(part(inside["y"]), drop=True).max())

    def front(y):
        return (y > 0.010) & (y < 0.012)

    def back(y):
        return (y < -0.012) & (y > -0.014)

    assert height(broken, front) < 0.85 * height(sound, front)  # of the 30 %, what is lost 11 mm before the middle
    assert height(broken, back) > 0.93 * height(sound, back)


@pytest.mark.parametrize("resolution", [1e-3, 2e-3, 4e-3])
def test_the_shell_is_as_thick_as_it_should_be(resolution):
    """The body's volume is proportional to its three half axes, which the shell shortens by its thickness."""
    body = phantoms.vertebra(resolution=resolution)
    seeds = np.random.SeedSequence(0).spawn(3)
    half, thickness = _anatomy(np.random.default_rng(seeds[0]), "young")
    share = 1 - np.prod([1 - thickness / axis for axis in (half.x, half.y, half.z)])
    volume = body.pools["volume_fraction"]
    shell = float(volume[volume["pool"].str.startswith("cortical_")].sum()) * resolution**3
    # Linear filling is exact on faces parallel to the cubes; on oblique ones it errs by a share of the cube's edge,
    # with both signs. 3 % of a shell of .35 mm is a hundredth of a millimetre.
    assert shell == pytest.approx(share * body.pools.attrs["body_volume"], rel=0.03)


def test_anatomy_does_not_depend_on_resolution():
    coarse, fine = (phantoms.vertebra(seed=3, resolution=r) for r in (3e-3, 1e-3))
    # The surface is known to some hundredths of a millimetre, a thousandth of the half axes.
    assert coarse.pools.attrs["body_volume"] == pytest.approx(fine.pools.attrs["body_volume"], rel=3e-3)
    there = coarse.truth["pdff"].interp(z=[0.0], y=[0.005], x=[-0.008]).item()
    here = fine.truth["pdff"].interp(z=[0.0], y=[0.005], x=[-0.008]).item()
    # Both means are exact over different sets of voxels at the surface: the patterns differ by a small constant.
    assert there == pytest.approx(here, abs=0.01)


def test_seeds_give_different_bones_of_published_size():
    volumes = {phantoms.vertebra(seed=seed, resolution=4e-3).pools.attrs["body_volume"] for seed in range(6)}
    assert len(volumes) == 6
    assert all(20e-6 < volume < 60e-6 for volume in volumes)  # 35 cm3 on average in the lumbar spine


@pytest.mark.parametrize("resolution", [1.5e-3, 2.5e-3, 5e-3, 15e-3])
def test_any_resolution_will_do(resolution):
    """Odd and even numbers of cubes: one of them has its middle exactly in the middle of the body."""
    body = phantoms.vertebra(resolution=resolution, pdff=0.4)
    assert float(body.truth["pdff"].mean()) == pytest.approx(0.4, abs=ROUNDING)
    assert body.pools["volume_fraction"].sum("pool").max() <= 1 + ROUNDING


def test_variation_has_the_spread_asked_for():
    body = phantoms.vertebra(resolution=3e-3, pdff=0.4, variation=0.2)
    assert float(body.truth["pdff"].std()) == pytest.approx(0.2 * 0.4, rel=1e-9)
    assert float(phantoms.vertebra(resolution=4e-3, pdff=0.4, variation=0.0).truth["pdff"].std()) < ROUNDING


def test_values_may_differ_from_voxel_to_voxel():
    """Nuisances drawn per subject: an array makes that property a map and leaves the others per pool."""
    T2 = np.array([0.015, 0.02, 0.04])
    f = np.array([0.0, 0.05, 0.1])
    block = phantoms.marrow_block(shape=(1, 1, 3), f=f, T2_water=T2, D=0.5e-3)
    np.testing.assert_allclose(block.truth["f"].values.ravel(), f, atol=ROUNDING)
    assert block.pools["T2"].dims == ("pool", "z", "y", "x")
    np.testing.assert_array_equal(block.pools["T2"].sel(pool="marrow_water").values.ravel(), T2)
    assert block.pools["D"].dims == ("pool",)
    for voxel in range(3):
        alone = phantoms.marrow_block(f=f[voxel], T2_water=T2[voxel], D=0.5e-3)
        for name in ("f_app", "adc"):
            expected = alone.truth_at(PROTOCOL)[name].item()
            assert block.truth_at(PROTOCOL)[name].values.ravel()[voxel] == pytest.approx(expected, rel=1e-9)


def test_a_spectrum_may_be_given():
    block = phantoms.marrow_block(spectrum=([1.3, 5.3], [3.0, 1.0]))
    np.testing.assert_allclose(block.pools["peak_area"].sel(pool="fat"), [0.75, 0.25])
    np.testing.assert_allclose(block.pools["shift"].sel(pool="marrow_water"), tissues.water_shift())


def test_vials_hold_their_grid():
    f, D, D_star = (0.05, 0.1, 0.2), (0.4e-3, 0.9e-3), (10e-3, 60e-3)
    rack = phantoms.vials(f=f, D=D, D_star=D_star)
    seen = rack.truth["f"].notnull()
    assert not bool(seen.isel(x=0, y=0).any()), "the corner is background"
    combinations = {
        (round(float(a), 12), float(b), float(c))
        for a, b, c in zip(*(rack.truth[name].values[seen] for name in ("f", "D", "D_star")), strict=True)
    }
    assert combinations == {(a, b, c) for a in f for b in D for c in D_star}
    assert float(rack.truth["pdff"].max()) == 0
    # Equal relaxation: the apparent fraction is the true one, and T1 and T2 are uniquely defined.
    np.testing.assert_allclose(rack.truth_at(PROTOCOL)["f_app"].values[seen], rack.truth["f"].values[seen], rtol=1e-12)
    assert float(rack.truth["T2"].max()) == tissues.value("blood.T2")
    assert int(seen.sum()) > 0.4 * seen.size  # a circle of 10 mm in a square of 14 covers .40


def test_T1_and_T2_are_true_only_where_all_that_is_seen_shares_them():
    assert np.isnan(phantoms.marrow_block().truth["T2"].item())
    shared = phantoms.marrow_block(T2_water=0.05, T2_blood=0.05, T2_fat=0.05, bvtv=0.2)
    assert shared.truth["T2"].item() == 0.05  # bound water, which no echo sees, does not count
    assert np.isnan(shared.truth["T1"].item())


def test_truth_survives_coarsening_as_a_ratio_of_sums():
    """Averaging densities over 2 x 2 x 2 voxels: fractions follow from sums, never from means of fractions."""
    rng = np.random.default_rng(5)
    shape = (2, 4, 6)
    fine = phantoms.marrow_block(shape=shape, f=rng.uniform(0, 0.2, shape), pdff=rng.uniform(0.1, 0.9, shape),
                                 bvtv=rng.uniform(0, 0.5, shape))
    coarse = truth(fine.pools.coarsen(z=2, y=2, x=2).mean())
    density = fine.pools["density"]

    def total(*names):
        return density.sel(pool=list(names)).sum("pool").coarsen(z=2, y=2, x=2).sum().values

    water = total("marrow_water", "blood")
    np.testing.assert_allclose(coarse["pdff"], total("fat") / (total("fat") + water), rtol=ROUNDING)
    np.testing.assert_allclose(coarse["f"], total("blood") / water, rtol=ROUNDING)
    assert float(abs(coarse["pdff"] - fine.truth["pdff"].coarsen(z=2, y=2, x=2).mean()).max()) > 1e-4


def test_two_blood_pools_have_no_single_D_star():
    pools = phantoms.marrow_block(f=0.1).pools
    second = pools.sel(pool=["blood"]).assign_coords(pool=["arterioles"])
    second["D_star"] = second["D_star"] * 3
    both = xr.concat([pools.drop_vars(["exchange", "pool_to"]), second.drop_vars(["exchange", "pool_to"])], "pool")
    assert np.isnan(truth(both)["D_star"].item())
    assert truth(both)["f"].item() > truth(pools)["f"].item()


# ---- truth that needs a protocol -------------------------------------------------------------------------------


def test_f_app_is_the_share_of_blood_in_the_water_echo():
    """Against the written-out ratio (Lemke 2010, Jerome 2016), and its limits: no echo time, equal T2."""
    f, T2 = 0.05, {"T2_blood": 0.060, "T2_water": 0.025}
    block = phantoms.marrow_block(f=f, pdff=0.5, **T2, T1_blood=1.0, T1_water=1.0)
    blood, water = (part * np.exp(-0.060 / t) for part, t in ((f, 0.060), (1 - f, 0.025)))
    assert block.truth_at(PROTOCOL)["f_app"].item() == pytest.approx(blood / (blood + water), rel=1e-12)
    assert block.truth_at({**PROTOCOL, "TE": 0.0})["f_app"].item() == pytest.approx(f, rel=1e-12)
    equal = phantoms.marrow_block(f=f, T2_blood=0.04, T2_water=0.04, T1_blood=1.2, T1_water=1.2)
    assert equal.truth_at(PROTOCOL)["f_app"].item() == pytest.approx(f, rel=1e-12)


def test_f_app_is_what_a_perfect_fit_of_a_fatless_scan_finds():
    """Scanner and truth read the same pools: a bi-exponential through the noise-free scan gives f_app, D and D*."""
    from scipy.optimize import curve_fit

    block = phantoms.marrow_block(pdff=0.0, f=0.05, D=0.45e-3, D_star=28e-3)
    protocol = simulator.protocols.ivim_marrow
    signal = simulator.scan(block, protocol, rung="pools")
    ivim = equations.get("ivim")

    def model(b, S0, f, D_star, D):
        return ivim.signal({"S0": S0, "f": f, "D_star": D_star * 1e-3, "D": D * 1e-3}, {"b": b})[0]

    values = signal.values.ravel()
    (_, f, D_star, D), _ = curve_fit(model, signal["b"].values, values, p0=(values[0], 0.2, 40.0, 0.6))
    # the residual is zero at the optimum, so that least squares converges to far more than these digits
    assert f == pytest.approx(block.truth_at(protocol)["f_app"].item(), rel=1e-6)
    assert (D_star * 1e-3, D * 1e-3) == pytest.approx((28e-3, 0.45e-3), rel=1e-6)


def test_adc_is_the_least_squares_fit_of_the_water_signal():
    """scipy's curve_fit, which knows nothing of the projection used inside; fat must not matter."""
    from scipy.optimize import curve_fit

    values = {"f": 0.08, "D": 0.5e-3, "D_star": 25e-3}
    block = phantoms.marrow_block(pdff=0.6, **values)
    f_app = block.truth_at(PROTOCOL)["f_app"].item()
    signal = equations.get("ivim").signal({"S0": 1.0, **values, "f": f_app}, {"b": B})[0]
    mono = equations.get("mono_exponential")
    (_, adc), _ = curve_fit(
        lambda b, S0, adc: mono.signal({"S0": S0, "adc": adc * 1e-3}, {"b": b})[0], B, signal, p0=(1.0, 1.0),
        ftol=1e-15, xtol=1e-15, gtol=1e-15,
    )
    # curve_fit stops where the cost no longer changes: half the digits of a double in the parameter
    assert block.truth_at(PROTOCOL)["adc"].item() == pytest.approx(adc * 1e-3, rel=1e-7)
    lean = phantoms.marrow_block(pdff=0.0, **values)
    assert lean.truth_at(PROTOCOL)["adc"].item() == pytest.approx(adc * 1e-3, rel=1e-7)


@pytest.mark.parametrize("D", [0.2e-3, 0.45e-3, 1.8e-3])
def test_without_blood_and_kurtosis_the_adc_is_D_at_any_b(D):
    block = phantoms.marrow_block(f=0.0, D=D)
    for b in (B, B[::5], [0.0, 500.0]):
        assert block.truth_at({**PROTOCOL, "b": np.array(b)})["adc"].item() == pytest.approx(D, rel=1e-9)
    assert block.truth_at(PROTOCOL, kurtosis=True)["kurtosis"].item() == pytest.approx(0, abs=1e-6)


def test_kurtosis_of_water_alone_comes_back():
    block = phantoms.marrow_block(f=0.0, D=0.6e-3, kurtosis=0.8)
    at = block.truth_at(PROTOCOL, kurtosis=True)
    assert at["kurtosis"].item() == pytest.approx(0.8, rel=1e-5)  # least_squares to half the digits, curvature shallow
    assert at["adc"].item() < 0.6e-3  # kurtosis lifts the signal at high b


def test_one_b_value_has_no_adc():
    assert np.isnan(phantoms.marrow_block().truth_at({**PROTOCOL, "b": [0.0]})["adc"].item())


@pytest.mark.parametrize(
    ("change", "says"),
    [({"TE": None}, "the protocol lacks TE"), ({"b": None}, "the protocol lacks b"),
     ({"TE": np.array([0.05, 0.06])}, r"TE changes along b \(0.05 to 0.06 s\)")],
)
def test_a_protocol_that_does_not_do(change, says):
    protocol = {name: value for name, value in {**PROTOCOL, **change}.items() if value is not None}
    with pytest.raises(InputError, match=says):
        phantoms.marrow_block().truth_at(protocol)


# ---- bad input -------------------------------------------------------------------------------------------------

EVERY = [
    ({"seed": -1}, "seed is -1, should be a whole number"),
    ({"seed": 1.5}, "seed is 1.5, should be a whole number"),
    ({"seed": 2**63}, "should be a whole number"),
    ({"resolution": -1e-3}, "resolution is -0.001"),
    ({"resolution": 0}, "resolution is 0"),
    ({"resolution": float("nan")}, "resolution is nan"),
    ({"resolution": "fine"}, "resolution is 'fine', should be a number"),
    ({"field": 11.7}, "not known at field 11.7 T"),
    ({"field": 0}, "field is 0, should be a field strength"),
    ({"field": "3T"}, "field is '3T'"),
]
OWN = {
    "vertebra": [
        ({"condition": "brittle"}, "no condition 'brittle'; known: young, old"),
        ({"condition": None}, "condition is None, should be one of young"),
        ({"pdff": 1.3}, "pdff is 1.3, should lie from 0 to 1"),
        ({"pdff": -0.1}, "pdff is -0.1"),
        ({"pdff": float("nan")}, "pdff is nan"),
        ({"pdff": "half"}, "pdff is 'half', should be a number from 0 to 1"),
        ({"perfusion_fraction": 2}, "perfusion_fraction is 2"),
        ({"bvtv": 1.0}, "bvtv is 1.0, should lie from 0 to below 1"),
        ({"D": 0.5}, "D is 0.5, should lie from 0 to 0.0035 mm2/s"),
        ({"D_star": -1e-3}, "D_star is -0.001"),
        ({"variation": 3}, "variation is 3"),
        ({"resolution": 0.1}, "resolution is 0.1 m, larger than the object itself"),
        ({"resolution": 1e-5}, r"the resolution gives .* voxels, at most 2e\+07"),
        ({"field": 9.4}, "not known at field 9.4 T"),
    ],
    "vials": [
        ({"kind": "beer"}, "no kind 'beer'; known: ivim"),
        ({"f": (0.1, 1.2)}, "f is 1.2"),
        ({"f": ()}, "f is empty"),
        ({"f": [[0.1]]}, r"f has shape \(1, 1\)"),
        ({"D": (1.0,)}, "D is 1.0"),
        ({"D_star": "fast"}, "D_star is 'fast', should be numbers"),
        ({"T2": 0}, "T2 is 0"),
        ({"resolution": 8e-3}, "resolution is 0.008 m, larger than the object"),
        ({"resolution": 1e-6}, "the resolution gives"),
    ],
    "marrow_block": [
        ({"condition": "brittle"}, "no condition 'brittle'"),
        ({"shape": (2, 2)}, r"shape is \(2, 2\), should be three whole numbers"),
        ({"shape": (0, 1, 1)}, "shape is"),
        ({"shape": 5}, "shape is 5"),
        ({"shape": (10**4, 10**4, 10**4)}, "voxels, at most"),
        ({"f": 1.1}, "f is 1.1, should lie from 0 to 1"),
        ({"f": [0.1, 0.2]}, r"f has shape \(2,\), should be one number or fit \(1, 1, 1\)"),
        ({"f": [0.1, float("nan")], "shape": (1, 1, 2)}, "f is nan"),
        ({"bvtv": 1}, "bvtv is 1.0, should lie from 0 to below 1"),
        ({"T2_water": 0}, "T2_water is 0.0, should lie from 1e-06 to 60 s"),
        ({"D_fat": -1}, "D_fat is -1.0"),
        ({"kurtosis": "some"}, "kurtosis is 'some'"),
        ({"spectrum": "butter"}, "no fat spectrum 'butter'"),
        ({"spectrum": ([1.3], [0.2, 0.8])}, "spectrum should be shifts"),
    ],
}
CASES = [(name, *case) for name in phantoms.registry for case in [*EVERY, *OWN.get(name, [])]]


@pytest.mark.parametrize(("name", "values", "says"), CASES, ids=[f"{name}-{values}" for name, values, _ in CASES])
def test_a_wrong_wish_gets_one_clear_line(name, values, says):
    with pytest.raises(InputError, match=says) as error:
        phantoms.get(name)(**values)
    assert "\n" not in str(error.value)


def test_an_unknown_phantom_lists_the_known():
    with pytest.raises(InputError, match="no phantom 'elbow'; known: spine, vertebra, "):
        phantoms.get("elbow")


# ---- bad files -------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    return phantoms.marrow_block(shape=(1, 2, 3), f=0.05).to_netcdf(tmp_path / "bone.nc")


def _drop(path, name):
    with h5py.File(path, "a") as stored:
        del stored[name]


def _unit(path, name, unit):
    with h5py.File(path, "a") as stored:
        stored[name].attrs["units"] = unit


def _write(path, name, value):
    with h5py.File(path, "a") as stored:
        stored[name][...] = value


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: _drop(p, "pools/density"), r"bone.nc: the pools lack the map 'density' \(mol 1H/L\)"),
        (lambda p: _drop(p, "truth/pdff"), r"bone.nc: the truth lacks the map 'pdff' \(1\)"),
        (lambda p: _drop(p, "pools"), "bone.nc: not a phantom file: no readable NetCDF group 'pools'"),
        (lambda p: _drop(p, "truth"), "bone.nc: not a phantom file: no readable NetCDF group 'truth'"),
        (lambda p: _unit(p, "pools/T2", "ms"), "bone.nc: pools.T2 has unit 'ms', should be 's'"),
        (lambda p: _unit(p, "truth/D", "m2/s"), "bone.nc: truth.D has unit 'm2/s', should be 'mm2/s'"),
        (lambda p: _write(p, "truth/f", 0.5), "bone.nc: truth.f does not follow from the pools"),
        (lambda p: _write(p, "pools/volume_fraction", 0.9), "volume fractions of a voxel sum to 2.7, at most 1"),
        (lambda p: _write(p, "pools/density", 1e3), "denser than water"),
        (lambda p: _write(p, "pools/density", np.nan), "pools.density holds values that are not finite"),
        (lambda p: _write(p, "pools/T1_observed", -1), "pools.T1_observed should be finite and above 0"),
        (lambda p: _write(p, "pools/D_star", np.nan), "pools.D_star should be finite and not negative in blood"),
        (lambda p: _write(p, "pools/density", -1), "pools.density holds negative values"),
        (lambda p: _write(p, "pools/peak_area", 0.5), "pools.peak_area should sum to 1"),
        (lambda p: p.write_text("a phantom, honestly"), "bone.nc: not a phantom file"),
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), "bone.nc: not a phantom file"),
        (lambda p: p.write_bytes(b""), "bone.nc: not a phantom file"),
        (lambda p: p.unlink(), "bone.nc: no such file"),
    ],
)
def test_a_spoilt_file_gets_one_clear_line(file, spoil, says):
    spoil(file)
    with pytest.raises(InputError, match=says) as error:
        phantoms.Phantom.from_netcdf(file)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_leaves_nothing(file, tmp_path):
    bone = phantoms.Phantom.from_netcdf(file)
    with pytest.raises(InputError, match=r"suffix .txt"):
        bone.to_netcdf(tmp_path / "bone.txt")
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot write"):
        bone.to_netcdf(tmp_path / "taken" / "bone.nc")
    assert {path.name for path in tmp_path.iterdir()} == {"bone.nc", "taken"}


def test_a_failed_write_keeps_the_old_file(file, tmp_path, monkeypatch):
    before = shutil.copy(file, tmp_path / "copy.nc")
    bone = phantoms.Phantom.from_netcdf(file)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="No space left"):
        bone.to_netcdf(file)
    monkeypatch.undo()
    assert file.read_bytes() == before.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"bone.nc", "copy.nc"}


def test_pools_without_attributes_are_no_phantom():
    pools = phantoms.marrow_block().pools
    del pools.attrs["field_strength"]
    with pytest.raises(InputError, match="lack the attribute 'field_strength'"):
        phantoms.Phantom(pools)


def test_a_pool_of_an_unknown_kind_is_refused():
    pools = phantoms.marrow_block().pools
    strange = pools.assign_coords(kind=("pool", ["marrow_water", "blood", "jelly"]))
    with pytest.raises(InputError, match="no pool kind 'jelly'; known: bound_water"):
        phantoms.Phantom(strange)
    with pytest.raises(InputError, match="lack the coordinate 'kind'"):
        phantoms.Phantom(pools.drop_vars("kind"))
    with pytest.raises(InputError, match="pools.density has dims"):
        phantoms.Phantom(pools.assign(density=pools["density"].transpose("pool", "x", "y", "z")))


def test_a_phantom_shows_what_it_is():
    assert repr(phantoms.marrow_block(shape=(1, 2, 3))) == (
        "<Phantom marrow_block: 3 x 2 x 1 voxels of 2 mm at 3 T; pools marrow_water, blood, fat>"
    )
