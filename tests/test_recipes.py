"""Recipes: what a litre of each tissue holds; laws of the pools; coarsening; truth of bone and of fat's chemistry."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms import recipes
from bonemri.phantoms.pools import BONE, KINDS, Pool, merged
from bonemri.simulator import tissues, triglyceride

ROUNDING = 1e-12
FULL = np.ones((1, 1, 1))
RECIPES = {
    "marrow": lambda volume: recipes.marrow(volume, pdff=0.4, f=0.05, field=3.0),
    "cortical": lambda volume: recipes.bone(volume, "cortical", field=3.0),
    "trabecular": lambda volume: recipes.bone(volume, "trabecular", field=3.0, condition="osteoporotic"),
    "muscle": lambda volume: recipes.muscle(volume, pdff=0.1, field=3.0),
    "adipose": lambda volume: recipes.adipose(volume, field=3.0),
    "csf": lambda volume: recipes.csf(volume, field=3.0),
    "nucleus": lambda volume: recipes.nucleus(volume, field=3.0, condition="old"),
    "annulus": lambda volume: recipes.annulus(volume, field=3.0),
    "vein": lambda volume: recipes.vein(volume, field=3.0),
    "solution": lambda volume: recipes.solution(volume, "vial", T1=0.3, T2=0.1, light_water=0.2),
}
fraction = st.floats(0.0, 1.0)
few = settings(max_examples=25, deadline=None)


def build(pools: list[Pool]) -> phantoms.Phantom:
    return phantoms.Phantom.build(pools, name="litre", resolution=1e-3, field=3.0)


@pytest.mark.parametrize("tissue", RECIPES)
@few
@given(share=st.floats(1e-6, 1.0))
def test_a_recipe_fills_its_volume_and_no_more(tissue, share):
    pools = RECIPES[tissue](FULL * share)
    assert sum(pool.volume_fraction.item() for pool in pools) == pytest.approx(share, rel=ROUNDING)
    most = tissues.value("water.density")
    for pool in pools:
        assert pool.kind in KINDS
        if pool.kind not in ("mineral", "phosphorus"):
            assert pool.density.item() <= most * pool.volume_fraction.item() * (1 + ROUNDING)
    build(pools)  # and the pools keep the schema


@few
@given(pdff=fraction)
def test_muscle_holds_the_fat_asked_for(pdff):
    assert build(recipes.muscle(FULL, pdff=pdff, field=3.0)).truth["pdff"].item() == pytest.approx(pdff, abs=ROUNDING)


def test_solid_bone_has_the_water_and_the_mineral_of_its_numbers():
    truth = build(recipes.bone(FULL, "cortical", field=3.0)).truth
    assert truth["bound_water"].item() == pytest.approx(tissues.value("bound_water.density"), rel=ROUNDING)
    assert truth["porosity"].item() == 0 and truth["bound_fraction"].item() == 1
    assert truth["T2star_bound"].item() == pytest.approx(tissues.value("bound_water.T2"), rel=ROUNDING)
    # 1004.61 g of apatite hold six phosphorus atoms
    assert truth["mineral_density"].item() == pytest.approx(truth["phosphorus_density"].item() * 1004.61 / 6)
    assert 800 < truth["mineral_density"].item() < 1500  # mg/cm3: between bone of low mineral content and dense enamel
    for name in ("pdff", "f", "D", "S0", "T2star_pore", "bvtv", "r2star", "ndb"):
        assert np.isnan(truth[name].item()), name


@few
@given(porosity=st.floats(0.01, 0.9), widths=st.tuples(st.floats(0.05, 0.95), st.floats(1e-3, 0.1)))
def test_porosity_and_the_spread_of_pore_T2star_follow_from_the_pools(porosity, widths):
    share, slow = widths
    fast = 1e-3
    pore = {"kind": "pore_water", "chi": -9.05, "D": 2e-3, "T1_observed": 0.3}
    water = tissues.value("water.density")
    pools = [
        *recipes.bone(FULL * (1 - porosity), "cortical", field=3.0),
        Pool("pore_water_small", density=FULL * porosity * share * water, volume_fraction=FULL * porosity * share,
             T2=fast, **pore),
        Pool("pore_water_large", density=FULL * porosity * (1 - share) * water,
             volume_fraction=FULL * porosity * (1 - share), T2=2 * slow, R2_prime=1 / (2 * slow), **pore),
    ]
    truth = build(pools).truth
    assert truth["porosity"].item() == pytest.approx(porosity, abs=ROUNDING)
    assert truth["total_water"].item() == pytest.approx(truth["bound_water"].item() + truth["pore_water"].item())
    # T2* of a two-point distribution: 1/T2* = 1/T2 + R2'
    log = np.log([fast, slow])
    mean = share * log[0] + (1 - share) * log[1]
    assert truth["T2star_pore_log_mean"].item() == pytest.approx(np.exp(mean), rel=1e-9)
    width = np.sqrt(share * (1 - share)) * abs(log[1] - log[0])
    # a variance is a difference of squares: half the digits are lost where it vanishes
    assert truth["T2star_pore_log_width"].item() == pytest.approx(width, rel=1e-9, abs=1e-7)
    alone = abs(slow - fast) <= 1e-12 * fast
    assert np.isnan(truth["T2star_pore"].item()) != alone
    collagen = pools[1].density.item()
    assert truth["mmf"].item() == pytest.approx(collagen / (collagen + truth["total_water"].item()), rel=1e-9)


# ---- fat ---------------------------------------------------------------------------------------------------------

chains = st.tuples(st.floats(0.1, 5.9), st.floats(0.0, 1.0), st.floats(15.0, 20.0))


@pytest.mark.parametrize(
    ("name", "chain", "count"),
    [("triolein", (3, 0, 18), 104), ("trilinolein", (6, 3, 18), 98), ("tripalmitin", (0, 0, 16), 98)],
)
def test_protons_of_known_triglycerides(name, chain, count):
    assert triglyceride.protons(*chain).sum() == count


@given(chains)
def test_a_spectrum_tells_its_composition(chain):
    ndb, share, length = chain
    given_chain = (ndb, share * ndb / 2, length)  # at most two double bonds a chain
    back = triglyceride.composition(*triglyceride.spectrum(*given_chain))
    np.testing.assert_allclose(back, given_chain, rtol=1e-9, atol=1e-9)


def test_the_marrow_spectrum_is_that_of_the_published_composition():
    # Berglund 2012 states ndb 2.86, nmidb .74, CL 16.92 for these areas, which carry three digits
    chain = triglyceride.composition(*tissues.spectrum("fat_marrow"))
    np.testing.assert_allclose(chain, (2.86, 0.74, 16.92), rtol=5e-3)


def test_a_spectrum_without_methyl_or_glycerol_peak_tells_nothing():
    assert np.isnan(triglyceride.composition(np.array([1.3]), np.array([1.0])).ndb)
    merged_peak = triglyceride.composition(np.array([0.9, 1.3, 5.3]), np.array([0.1, 0.8, 0.1]))
    assert np.isnan(merged_peak.ndb)  # the glycerol CH hides in the olefinic peak


@pytest.mark.parametrize("chain", [(3, 4, 18), (-1, 0, 18), (3, 0, 4), (np.nan, 0, 18)])
def test_no_molecule_has_a_negative_number_of_protons(chain):
    with pytest.raises(InputError, match="negative number of protons"):
        triglyceride.protons(*chain)


def test_fats_mix_by_moles_of_triglyceride():
    one, other = (1.0, 0.1, 17.0), (5.0, 1.5, 18.0)
    pools = recipes.marrow(FULL * 0.5, pdff=1.0, f=0.0, field=3.0,
                           **dict(zip(("ndb", "nmidb", "chain_length"), one, strict=True)))
    second = recipes.marrow(FULL * 0.5, pdff=1.0, f=0.0, field=3.0,
                            **dict(zip(("ndb", "nmidb", "chain_length"), other, strict=True)))[2]
    truth = build([*pools, replace(second, name="other_fat")]).truth
    # equal numbers of 1H: moles go as one over the protons of a molecule
    moles = 1 / np.array([triglyceride.protons(*chain).sum() for chain in (one, other)])
    ndb, nmidb, length = (np.array([one, other]) * moles[:, None]).sum(0) / moles.sum()
    assert truth["ndb"].item() == pytest.approx(ndb, rel=1e-9)
    assert truth["nmidb"].item() == pytest.approx(nmidb, rel=1e-9)
    assert truth["unsaturation_index"].item() == pytest.approx(2 * ndb / (6 * length + 2 - 2 * ndb), rel=1e-9)
    shares = [truth[name].item() for name in ("f_sfa", "f_mufa", "f_pufa")]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    assert ndb == pytest.approx(3 * (shares[1] + 2 * shares[2]), rel=1e-9)  # one bond a mono, two a poly chain


def test_a_spectrum_and_a_composition_are_one_too_many():
    with pytest.raises(InputError, match="give one of the two"):
        phantoms.marrow_block(spectrum="fat_liver", ndb=2.0)


# ---- coarsening --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bone():
    return phantoms.vertebra(resolution=2e-3, seed=3)


@pytest.mark.parametrize("factor", [1, 2, 3, (1, 2, 4)])
def test_coarsening_conserves_spins_and_volumes(bone, factor):
    coarse = bone.coarsen(factor)
    for name in ("density", "volume_fraction"):
        fine, found = (phantom.pools[name].sum(("z", "y", "x")).values * np.prod(phantom.pools.attrs["voxel_size"])
                       for phantom in (bone, coarse))
        np.testing.assert_allclose(found, fine, rtol=ROUNDING)


def test_a_coarse_voxel_knows_what_it_is_made_of(bone):
    coarse = bone.coarsen(2)
    fat, water = (np.nan_to_num(bone.pools["density"].sel(pool=names).sum("pool").values)
                  for names in (["fat"], ["marrow_water", "blood"]))
    k, j, i = (size // 4 for size in fat.shape)
    block = np.s_[2 * k : 2 * k + 2, 2 * j : 2 * j + 2, 2 * i : 2 * i + 2]
    expected = fat[block].sum() / (fat[block].sum() + water[block].sum())
    assert coarse.truth["pdff"].values[k, j, i] == pytest.approx(expected, rel=ROUNDING)


def test_coarse_voxels_lie_where_their_fine_ones_lay(bone):
    coarse = bone.coarsen((2, 3, 1))
    affine, fine = (np.reshape(p.pools.attrs["affine"], (4, 4)) for p in (coarse, bone))
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], fine @ [0, 1, 0.5, 1], atol=1e-9)  # the middle of the first block
    np.testing.assert_allclose(coarse.pools["y"].values[0], bone.pools["y"].values[:3].mean(), atol=ROUNDING)
    np.testing.assert_allclose(np.diag(affine)[:3], [2, 6, 4])


def test_rates_are_never_averaged():
    block = phantoms.marrow_block(shape=(1, 1, 2), T2_water=np.array([0.02, 0.04]))
    with pytest.raises(InputError, match=r"T2 of pool marrow_water varies inside a coarse voxel"):
        block.coarsen((1, 1, 2))
    assert block.coarsen(1).pools["T2"].equals(block.pools["T2"])


@pytest.mark.parametrize("factor", [0, -1, 1.5, "two", (1, 2)])
def test_a_factor_is_a_whole_number(bone, factor):
    with pytest.raises(InputError, match="should be a whole number from 1 up"):
        bone.coarsen(factor)


# ---- laws of the pools, sources, susceptibility --------------------------------------------------------------------


def exchanging(**change):
    """Bound water and collagen that exchange in detailed balance."""
    water, collagen, mineral = recipes.bone(FULL, "cortical", field=3.0)
    rate = 10.0
    back = rate * water.density.item() / collagen.density.item()
    pair = [replace(water, T1_observed=np.nan, T1_intrinsic=0.11, exchange={collagen.name: rate}),
            replace(collagen, T1_observed=np.nan, T1_intrinsic=1.0, exchange={water.name: back})]
    return [replace(pair[0], **change), pair[1], mineral]


def test_exchange_goes_with_intrinsic_T1():
    bone = build(exchanging())
    assert bone.pools["exchange"].values[0, 1] == 10.0
    assert np.isnan(bone.pools["T1_observed"].values[0]) and bone.pools["T1_intrinsic"].values[0] == 0.11


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"T1_intrinsic": np.nan, "T1_observed": 0.1}, "exchanges: it should have T1_intrinsic"),
        ({"T1_observed": 0.1}, "exchanges: it should have T1_intrinsic"),
        ({"exchange": {}}, "does not exchange: it should have T1_observed"),
        ({"exchange": {"nobody": 1.0}}, "exchange with 'nobody', which is no pool"),
    ],
)
def test_one_T1_used_as_the_other_is_refused(change, says):
    with pytest.raises(InputError, match=says):
        build(exchanging(**change))


def test_pools_of_one_name_add():
    one, other = recipes.adipose(FULL * 0.25, field=3.0), recipes.adipose(FULL * 0.5, field=3.0)
    (both,) = merged([*one, *other])
    assert both.volume_fraction.item() == 0.75
    with pytest.raises(InputError, match="two pools adipose differ in T2"):
        merged([*one, replace(other[0], T2=0.01)])


def test_a_phantom_knows_the_numbers_it_was_made_of(bone):
    numbers = json.loads(bone.pools.attrs["tissue_numbers"])
    names = {number["name"] for number in numbers}
    assert {"marrow.pdff", "fat.T2", "bound_water.density", "vertebra.height"} <= names
    for number in numbers:
        assert number["source"] and number["low"] <= number["value"] <= number["high"]
    assert len(numbers) == len({(n["name"], n.get("field"), n.get("condition")) for n in numbers})


def test_chi_is_the_mean_over_the_pools():
    block = phantoms.marrow_block(pdff=1.0, bvtv=0.25)
    expected = 0.25 * tissues.value("bone.chi") + 0.75 * tissues.value("fat.chi")
    assert block.chi().item() == pytest.approx(expected, abs=1e-9)
    vials = phantoms.vials()
    empty = vials.pools["volume_fraction"].sum("pool").values == 0
    assert (vials.chi(outside=0.36)[empty] == 0.36).all()


def test_bone_is_what_its_kinds_say():
    assert {pool.kind for pool in recipes.bone(FULL, "trabecular", field=3.0)} == set(BONE)


def test_the_offset_of_a_phantom_is_that_of_its_chi():
    from bonemri.simulator.engines import susceptibility

    cube = phantoms.trabecular(size=1.5e-3, resolution=75e-6, morphometry=False)
    chi, water = cube.chi(), tissues.value("water.chi")
    shift = susceptibility.field(chi, (75e-6,) * 3, direction=(1, 0, 2), outside=water)
    np.testing.assert_array_equal(cube.offset((1, 0, 2)), susceptibility.to_hertz(shift, 3.0))
    low = phantoms.trabecular(size=1.5e-3, resolution=75e-6, morphometry=False, field=1.5)
    # bone and fat are the same at both fields, so the offset goes with the field
    np.testing.assert_allclose(low.offset(), cube.offset() / 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("direction", "inside"), [((0, 0, 1), 1 / 3), ((1, 0, 0), -1 / 6), ((0, 1, 1), 1 / 12)])
def test_the_field_of_an_endless_cylinder(direction, inside):
    """Lorentz-corrected shift inside: dchi/6 (3 cos^2 - 1); along B0 there is none outside."""
    from bonemri.phantoms.phantom import _endless

    radius, n = 12, 64
    y, x = np.meshgrid(np.arange(n) - (n - 1) / 2, np.arange(n) - (n - 1) / 2, indexing="ij")
    distance = np.hypot(y, x)
    shift = _endless(np.clip(radius + 0.5 - distance, 0, 1)[None], (1.0, 1.0, 1.0), direction)[0]
    # copies stand 128 away and give at most (12/128)^2 / 2 of the cylinder's own field, in pairs that cancel
    np.testing.assert_allclose(shift[distance < radius - 2].mean(), inside, atol=2e-3)
    if direction == (0, 0, 1):
        np.testing.assert_allclose(shift[distance > radius + 1], 0, atol=1e-6)  # single precision
