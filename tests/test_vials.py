"""Calibration vials: every grid as asked for, chemistry linear, exchange in balance, edges exact, bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms.vial_sets import DIAMETER, SETS, Rack, manganese_for, relaxation, susceptibility
from bonemri.phantoms.vials import KINDS
from bonemri.simulator import tissues

ROUNDING = 1e-12  # sums and ratios of a few numbers of order one
few = settings(max_examples=15, deadline=None)


def pool(rack, name):
    return rack.pools.sel(pool=name)


def middles(rack, rows, columns):
    """Truth in the voxel next to the middle of each vial, (row, column)."""
    count = {"y": rows, "x": columns}
    at = {dim: (np.arange(n) + 0.5) * rack.pools.sizes[dim] / n for dim, n in count.items()}
    return rack.truth.isel(z=0, y=at["y"].astype(int), x=at["x"].astype(int))


# ---- every set -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", [1.5, 3.0, 7.0])
def test_every_set_stands_at_every_field_and_keeps_the_laws(kind, field):
    rack = phantoms.vials(kind, field=field)
    volume = rack.pools["volume_fraction"].values
    total = volume.sum(axis=0)
    assert ((np.abs(total - 1) <= ROUNDING) | (total == 0)).all(), "clean edges: full or empty"
    kinds, most = rack.pools["kind"].values, tissues.entry("water.density").high
    spins = rack.pools["density"].values[kinds != "phosphorus"].sum(axis=0)
    assert spins.max(initial=0.0) <= most * (1 + ROUNDING)
    assert total[:, 0, 0].max() == 0, "the corner is background"
    assert json.loads(rack.pools.attrs["parameters"])["kind"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_same_set_to_the_bit_and_through_a_file(kind, tmp_path):
    rack = phantoms.vials(kind)
    assert phantoms.vials(kind).pools.identical(rack.pools)
    assert phantoms.Phantom.from_netcdf(rack.to_netcdf(tmp_path / "rack.nc")).pools.identical(rack.pools)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("resolution", [0.7e-3, 1.5e-3, 5e-3])
def test_partial_volume_is_the_area_of_the_circle(kind, resolution):
    rack = phantoms.vials(kind, resolution=resolution, edges="partial")
    sizes = [len(axis.values) for axis in SETS[kind].axes.values()]
    area = float(rack.pools["volume_fraction"].sum()) * resolution**2
    # asin keeps half its digits (1e-8) where a corner of a voxel touches the rim
    assert area == pytest.approx(np.prod(sizes) * np.pi * DIAMETER**2 / 4, rel=1e-8)


def test_partial_volume_of_one_voxel_against_counted_points():
    rack = Rack(1, 1, 2e-3, "partial")
    _, y, x = rack.shape
    n = 400
    fine = [((np.arange(size * n) + 0.5) / n - size / 2) * 2e-3 for size in (y, x)]
    counted = (np.hypot(fine[0][:, None], fine[1]) <= DIAMETER / 2).reshape(y, n, x, n).mean(axis=(1, 3))
    share = rack.vial(0, 0)[0]
    assert (share[counted == 0] < 1 / n).all() and share[0, 0] == 0 and share[y // 2, x // 2] == 1
    # The rim crosses at most some 3 n of the n^2 cells of a voxel, each of which is wrong by half a cell at most.
    np.testing.assert_allclose(rack.vial(0, 0)[0], counted, atol=1.5 / n)


@pytest.mark.parametrize("kind", SETS)
def test_partial_edges_keep_every_fraction_and_every_rate(kind):
    clean, partial = (phantoms.vials(kind, edges=edges) for edges in ("clean", "partial"))
    inside = clean.pools["volume_fraction"].sum("pool").values > 0
    for name in ("pdff", "r2star", "T1", "T2"):
        one, other = (each.truth[name].values[inside] for each in (clean, partial))
        there = np.isfinite(one) & np.isfinite(other)
        np.testing.assert_allclose(other[there], one[there], rtol=1e-9)  # ratios of small areas near the rim


@pytest.mark.parametrize("kind", SETS)
def test_a_set_may_be_averaged_to_larger_voxels(kind):
    rack = phantoms.vials(kind, resolution=1e-3, edges="partial")
    coarse = rack.coarsen((1, 2, 2))
    before, after = (each.pools["density"].sum().item() for each in (rack, coarse))
    assert after * 4 == pytest.approx(before, rel=ROUNDING)


# ---- each set --------------------------------------------------------------------------------------------------


@few
@given(pdff=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4, unique=True),
       r2star=st.lists(st.floats(17.0, 500.0), min_size=1, max_size=3, unique=True))
def test_fat_and_r2star_are_what_was_asked_for(pdff, r2star):
    rack = phantoms.vials("pdff", pdff=pdff, r2star=r2star)
    found = middles(rack, len(r2star), len(pdff))
    np.testing.assert_allclose(found["pdff"], np.broadcast_to(pdff, (len(r2star), len(pdff))), atol=ROUNDING)
    np.testing.assert_allclose(found["r2star"], np.broadcast_to(np.array(r2star)[:, None], found["pdff"].shape),
                               rtol=ROUNDING)


def test_r2star_of_manganese_is_irreversible():
    rates = (5.0, 30.0, 300.0)
    rack = phantoms.vials("r2star", r2star=rates)
    np.testing.assert_allclose(middles(rack, 1, 3)["r2star"][0], rates, rtol=ROUNDING)
    assert float(rack.pools["R2_prime"].max()) == 0
    np.testing.assert_allclose(1 / rack.pools["T2"], rates, rtol=ROUNDING)


@given(one=st.floats(0, 0.05), other=st.floats(0, 0.05), ion=st.sampled_from(["nickel", "manganese"]),
       agar=st.floats(0, 0.1))
def test_rates_are_linear_in_concentration(one, other, ion, agar):
    """R(a + b) - R(0) is R(a) - R(0) and R(b) - R(0) together, and solutes add up."""
    def rates(**solutes):
        return 1 / np.array(relaxation(3.0, **solutes))

    pure = rates()
    both = rates(**{ion: one + other, "agar": agar})
    parts = rates(**{ion: one}) + rates(**{ion: other}) + rates(agar=agar) - 2 * pure
    np.testing.assert_allclose(both, parts, rtol=1e-12)
    slope = tissues.value(f"{ion}.r2")
    np.testing.assert_allclose(rates(**{ion: one})[1] - pure[1], slope * one, rtol=1e-12, atol=1e-9)


def test_nickel_shortens_T1_along_x_and_agar_T2_along_y():
    rack = phantoms.vials("relaxation", nickel=(0, 1e-3, 4e-3), agar=(0.0, 0.02))
    found = middles(rack, 2, 3)
    R1, R2 = 1 / found["T1"].values, 1 / found["T2"].values
    # columns: 1 and 4 mmol/L, hence four times the added rate; rows: the same step everywhere
    np.testing.assert_allclose((R1[:, 2] - R1[:, 0]) / (R1[:, 1] - R1[:, 0]), 4, rtol=1e-10)
    np.testing.assert_allclose(R2[1] - R2[0], 2 * tissues.value("agar.r2"), rtol=1e-10)
    assert (np.diff(found["T1"], axis=1) < 0).all() and (np.diff(found["T2"], axis=0) < 0).all()
    assert found["T1"].values[0, 0] == pytest.approx(tissues.value("pore_water.T1_bulk"), rel=ROUNDING)


def test_ute_vials_have_the_T2star_and_the_density_of_bone_water():
    T2, light = (0.3e-3, 0.5e-3), (0.1, 0.2, 1.0)
    rack = phantoms.vials("ute", T2star=T2, light_water=light)
    found = middles(rack, 3, 2)
    np.testing.assert_allclose(1 / found["r2star"].values, np.broadcast_to(T2, (3, 2)), rtol=ROUNDING)
    spins = tissues.value("water.density") * np.array(light)
    np.testing.assert_allclose(found["S0"].values[:, 0], spins, rtol=ROUNDING)
    # A paramagnetic ion relaxes T1 too, less than T2, and draws the solution into the field.
    assert (found["T1"].values > T2).all()
    ions = manganese_for(0.3e-3, 3.0, "test")
    chi = rack.pools["chi"].values
    assert chi.max() == pytest.approx(susceptibility(manganese=ions), rel=ROUNDING)
    assert chi.max() > tissues.value("water.chi")


def test_susceptibility_of_manganese_is_that_of_curies_law():
    """Molar susceptibility of Mn2+ at 20 C, measured 14350e-6 cm3/mol cgs (CRC Handbook): times 4 pi, per litre, and
    times 293/310 for body temperature. The spin-only moment 5.92 stands within 2 % of it."""
    measured = 14350e-6 * 4 * np.pi * 1e-3 * 1e6 * 293.15 / 310.15
    assert susceptibility(manganese=1.0) - susceptibility() == pytest.approx(measured, rel=0.05)


def test_phosphate_holds_its_moles_and_no_protons():
    moles, T2 = (0.5, 6.4), (0.2e-3, 1e-3)
    rack = phantoms.vials("phosphorus", phosphorus=moles, T2star=T2)
    inside = rack.pools["volume_fraction"].sum("pool") > 0
    found = rack.pools["density"].sum("pool").where(inside)
    assert set(np.unique(found.values[np.isfinite(found.values)]).tolist()) == set(moles)
    np.testing.assert_allclose(rack.pools["T2"], T2, rtol=ROUNDING)
    assert set(rack.pools["kind"].values) == {"phosphorus"}
    partial = phantoms.vials("phosphorus", phosphorus=moles, T2star=T2, edges="partial")
    for each in (rack, partial):  # per litre of solution, also on the rim
        truth = each.truth["phosphorus_density"].values
        truth = truth[np.isfinite(truth)]
        assert np.abs(truth[:, None] / moles - 1).min(axis=1).max() <= ROUNDING
        assert truth.size == np.count_nonzero(each.pools["volume_fraction"].sum("pool"))



@pytest.mark.parametrize("agar", [0.01, 0.04, 0.1])
def test_gel_exchanges_in_balance_and_relaxes_as_agar_does(agar):
    """Detailed balance, and the slow eigenvalue of the two-pool matrix is the observed R1."""
    rack = phantoms.vials("mt", agar=[agar])
    names = rack.pools["pool"].values
    amount = rack.pools["density"].max(("z", "y", "x")).values
    exchange = rack.pools["exchange"].values
    np.testing.assert_allclose(amount[0] * exchange[0, 1], amount[1] * exchange[1, 0], rtol=ROUNDING)
    assert exchange[0, 1] == pytest.approx(tissues.value("agar.exchange") * 100 * agar
                                           * tissues.value("agar.macromolecule_ratio"), rel=ROUNDING)
    rates = 1 / rack.pools["T1_intrinsic"].values
    matrix = np.array([[rates[0] + exchange[0, 1], -exchange[1, 0]], [-exchange[0, 1], rates[1] + exchange[1, 0]]])
    observed = 1 / relaxation(3.0, agar=agar)[0]
    # the small eigenvalue of a matrix whose large one is 200 1/s: 13 digits of it
    assert np.linalg.eigvals(matrix).real.min() == pytest.approx(observed, rel=1e-10)
    assert list(rack.pools["kind"].values) == ["solution", "macromolecule"], names


def test_the_pool_ratio_grows_with_the_agar_and_without_agar_there_is_none():
    rack = phantoms.vials("mt", agar=(0.0, 0.02, 0.04))
    amount = rack.pools["density"].max(("z", "y", "x"))
    ratio = [float(amount.sel(pool=f"macromolecule_agar_{c}") / amount.sel(pool=f"water_agar_{c}")) for c in (2, 4)]
    assert ratio[1] == pytest.approx(2 * ratio[0], rel=1e-10)
    found = middles(rack, 1, 3)["mmf"].values[0]
    assert np.isnan(found[0]), "without macromolecules there is no fraction of them"
    np.testing.assert_allclose(found[1:], [r / (1 + r) for r in ratio], rtol=1e-10)
    assert rack.truth["phosphorus_density"].isnull().all()
    assert "macromolecule_agar_0" not in rack.pools["pool"].values
    assert float(rack.pools["exchange"].sel(pool="water_agar_0").sum()) == 0


# ---- finding the right one -------------------------------------------------------------------------------------


def test_the_kinds_stand_in_the_first_line():
    """What `bonemri phantom` prints of the vials."""
    first = phantoms.vials.__doc__.partition("\n")[0]
    listed = first.partition(": ")[2].replace(" (default)", "").replace(" or ", ", ").rstrip(".")
    assert listed.split(", ") == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_vials_of_fat_show_fat(kind):
    fat = phantoms.vials(kind).truth["pdff"]
    assert bool((fat > 0).any()) == (kind == "pdff")


@pytest.mark.parametrize("kind", KINDS)
def test_every_vial_has_a_label_named_by_its_values(kind):
    rack = phantoms.vials(kind)
    asked = json.loads(rack.pools.attrs["parameters"])
    attrs = rack.labels.attrs
    names = dict(zip(attrs["flag_values"].tolist(), attrs["flag_meanings"].split(), strict=True))
    axes = [name for name in ("f", "D", "D_star") if kind == "ivim"] or list(SETS[kind].axes)
    assert len(names) == np.prod([len(asked[name]) for name in axes])
    for number, name in names.items():
        # a name may hold underscores itself: the values stand after each of the names, in their order
        values = dict(zip(axes, re.fullmatch("_".join(f"{a}_([^_]+)" for a in axes), name).groups(), strict=True))
        inside = rack.labels.values == number
        assert (rack.pools["volume_fraction"].sum("pool").values[inside] > 1 - 1e-9).all()
        for quantity in ("pdff", "r2star", "f"):
            if quantity in values:
                np.testing.assert_allclose(rack.truth[quantity].values[inside], float(values[quantity]), rtol=1e-5)
    inside = rack.pools["volume_fraction"].sum("pool").values > 0
    assert ((rack.labels.values > 0) == inside).all()  # clean edges: every voxel of a vial


def test_a_rim_has_no_label():
    rack = phantoms.vials("pdff", edges="partial")
    assert (rack.pools["volume_fraction"].sum("pool").values[rack.labels.values > 0] > 1 - 1e-9).all()
    share = rack.pools["volume_fraction"].sum("pool").values
    assert (rack.labels.values[(share > 0) & (share < 0.999)] == 0).all()


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "beer"}, "no kind 'beer'; known: ivim, pdff, r2star"),
        ({"kind": "pdff", "f": [0.1]}, "the kind 'pdff' has no f; it has pdff, r2star"),
        ({"kind": "pdff", "T1": 1.0}, "the kind 'pdff' has no T1"),
        ({"pdff": [0.1]}, "the kind 'ivim' has no pdff; it has f, D, D_star, T1, T2; pdff is of kind 'pdff'"),
        ({"T2star": [1e-3]}, "T2star is of kind 'ute' and 'phosphorus'"),
        ({"kind": "pdff", "pdff": [0.5, 1.5]}, "pdff is 1.5, should lie from 0 to 1"),
        ({"kind": "pdff", "pdff": []}, "pdff is empty"),
        ({"kind": "pdff", "pdff": "lard"}, "pdff is 'lard', should be numbers"),
        ({"kind": "pdff", "pdff": [[0.1]]}, r"pdff has shape \(1, 1\)"),
        ({"kind": "pdff", "pdff": [0.1, 0.1]}, "pdff names a value twice"),
        ({"kind": "pdff", "r2star": [3.0]}, "r2star is 3 1/s, should be at least .*, the R2 of the emulsion"),
        ({"kind": "r2star", "r2star": [0.2]}, r"T2\* is 5 s, longer than that of water without MnCl2"),
        ({"kind": "ute", "T2star": [-1e-3]}, "T2star is -0.001"),
        ({"kind": "ute", "light_water": [float("nan")]}, "light_water is nan"),
        ({"kind": "phosphorus", "phosphorus": [40.0]}, "phosphorus is 40.0, should lie from 0 to 15 mol 31P/L"),
        ({"kind": "phosphorus", "T2star": [3.0]}, r"T2\* is 3 s, longer than that of phosphate"),
        ({"kind": "mt", "agar": [0.5]}, "agar is 0.5, should lie from 0 to 0.12 g/mL"),
        ({"kind": "mt", "edges": "soft"}, "edges is 'soft', should be clean or partial"),
        ({"edges": "partial"}, "edges is 'partial', should be clean"),
        ({"kind": "pdff", "field": 9.4}, "not known at field 9.4 T"),
        ({"kind": "mt", "resolution": 8e-3}, "larger than the object itself"),
        ({"kind": "mt", "resolution": 1e-6}, "voxels, at most"),
    ],
)
def test_what_cannot_be_filled_is_told_in_one_line(values, says):
    with pytest.raises(InputError, match=says) as error:
        phantoms.vials(**values)
    assert "\n" not in str(error.value)
