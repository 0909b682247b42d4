"""Tissue numbers: each has its source, unit and range; fields are interpolated and never left."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.simulator import equations, tissues

TABLE = tissues.table()
NAMES = sorted({entry.name for entry in TABLE})
# Numbers without unit that are no shares of a whole: counts in a molecule and ratios of two lengths or rates.
RATIOS = {"marrow.ndb", "marrow.nmidb", "marrow.chain_length", "cortical.porosity_gradient", "trabecular.anisotropy",
          "cohort.fracture_risk_per_sd"}


def label(entry: tissues.Entry) -> str:
    return f"{entry.name}-{entry.field}-{entry.condition}"


@pytest.mark.parametrize("entry", TABLE, ids=label)
def test_every_number_has_a_source_a_unit_and_a_range(entry):
    assert entry.source.strip()
    if not entry.unverified:
        assert re.search(r"doi:10\.\d{4,9}/\S+|PMID \d{6,8}$|https?://\S+\.\S+", entry.source)
    assert entry.unit in tissues.UNITS
    assert entry.low <= entry.value <= entry.high
    assert all(math.isfinite(number) for number in (entry.low, entry.value, entry.high))
    assert entry.low < entry.high, "a number without uncertainty is a claim nobody can make"
    assert entry.condition is None or entry.condition in tissues.CONDITIONS


@pytest.mark.parametrize("name", tissues.spectra())
def test_every_spectrum_has_a_source_and_is_normalised(name):
    assert "doi:10." in tissues.spectra()[name]
    shift, area = tissues.spectrum(name)
    assert shift.shape == area.shape
    assert (area > 0).all()
    assert area.sum() == pytest.approx(1.0, abs=1e-12)
    assert shift[np.argmax(area)] == 1.30, "the main CH2 peak is the zero of the scale"


def test_at_most_a_fifth_of_the_numbers_is_unverified():
    assert sum(entry.unverified for entry in TABLE) <= 0.20 * len(TABLE)


@pytest.mark.parametrize("entry", TABLE, ids=label)
def test_numbers_are_physical(entry):
    """Fractions lie in 0..1, water does not diffuse faster than when free (3.04e-3 at 37 C), T2 <= 2 T1."""
    quantity = entry.name.split(".")[1]
    if entry.unit == "1" and entry.name not in RATIOS:
        assert 0 <= entry.low and entry.high <= 1
    if entry.unit == "1":
        assert entry.low >= 0
    if quantity == "D":
        assert entry.high <= 3.1e-3
    if entry.unit == "mol 1H/L":
        assert entry.high <= tissues.entry("water.density").high
    if quantity == "T2":
        T1 = tissues.entry(entry.name.replace("T2", "T1"), entry.field or 3.0)
        assert entry.value <= 2 * T1.value


def test_perfusion_fractions_are_the_fitted_ones_brought_back_to_spin_density():
    """Blood and tissue water in the ratio f : 1 - f give the fitted fraction in a spin echo, to the digits stated."""
    entry = tissues.entry("marrow.perfusion_fraction")
    assert entry.apparent is not None
    protocol = {"TE": entry.apparent["TE"], "TR": 20.0}  # TR long, as the calculation says
    spin_echo = equations.get("spin_echo")
    numbers = (entry.value, entry.low, entry.high)
    for f, T2_blood, T2_water in zip(numbers, entry.apparent["T2_blood"], entry.apparent["T2_water"], strict=True):
        blood = float(spin_echo.signal({"S0": f, "T1": 1.8, "T2": T2_blood}, protocol)[0, 0])
        water = float(spin_echo.signal({"S0": 1 - f, "T1": 1.4, "T2": T2_water}, protocol)[0, 0])
        # Two significant digits of f are stated: half a unit of the second is at most 3.4 % of it.
        assert blood / (blood + water) == pytest.approx(entry.apparent["f"], rel=0.035)


@pytest.mark.parametrize("condition", (None, *tissues.CONDITIONS))
@pytest.mark.parametrize("field", (1.5, 2.0, 3.0))
def test_every_condition_resolves_at_every_field_of_marrow(condition, field):
    values = tissues.defaults("marrow", field, condition)
    ranges = tissues.ranges("marrow", field)
    own = tissues.ranges("marrow", field, condition)
    assert set(values) == set(ranges)
    for name, value in values.items():
        assert ranges[name].low <= own[name].low <= value <= own[name].high <= ranges[name].high


def test_conditions_differ_where_the_literature_says_so():
    pdff = {c: tissues.value("marrow.pdff", condition=c) for c in tissues.CONDITIONS}
    assert pdff["young"] < pdff["old"] < pdff["osteopenic"] < pdff["osteoporotic"]
    assert pdff["fractured"] < pdff["young"]  # oedema
    D = {c: tissues.value("marrow_water.D", condition=c) for c in tissues.CONDITIONS}
    assert D["osteoporotic"] < D["young"] < D["fractured"]
    assert 1.0e-3 <= D["fractured"] <= 1.8e-3
    # What a fracture leaves alone is the osteoporotic's.
    bvtv = {c: tissues.value("trabecular.bvtv", condition=c) for c in tissues.CONDITIONS}
    assert bvtv["fractured"] == bvtv["osteoporotic"] < bvtv["young"]


def test_no_two_records_answer_the_same_question():
    asked = Counter((entry.name, entry.field, entry.condition) for entry in TABLE)
    assert [question for question, count in asked.items() if count > 1] == []
    for name in NAMES:  # with and without a field at once, a lookup would depend on the order of the file
        assert len({entry.field is None for entry in TABLE if entry.name == name}) == 1, name


@pytest.mark.parametrize("source", sorted({entry.source for entry in TABLE if "doi:" in entry.source}))
def test_a_doi_is_written_as_dois_are(source):
    for doi in re.findall(r"doi:([^\s,]+)", source):
        assert re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Za-z0-9]+", doi), doi


# What leg, vertebra, spine, femur and calcaneus are made of.
NEEDED = ("blood.T1 blood.T2 bound_water.T1 bound_water.T2 bound_water.density calcaneus.bvtv calcaneus.pdff "
          "cortical.canal_density cortical.canal_diameter cortical.lacunar_porosity cortical.porosity "
          "cortical.thickness csf.D csf.T1 csf.T2 csf.density disc_annulus.T1 disc_annulus.T2 disc_nucleus.D "
          "disc_nucleus.T1 disc_nucleus.T2 disc_nucleus.density fat.T1 fat.T2 femur.cortical_thickness femur.pdff_head "
          "macromolecule.density marrow.pdff marrow_water.D marrow_water.T1 marrow_water.T2 mineral.T1 mineral.T2star "
          "mineral.density muscle.pdff muscle_water.T1 muscle_water.T2 pore_water.T1_bulk spine.disc_height tendon.T2 "
          "trabecular.anisotropy trabecular.bvtv trabecular.spacing trabecular.thickness").split()


@pytest.mark.parametrize("name", NEEDED)
def test_every_condition_resolves_at_clinical_fields(name):
    for condition in (None, *tissues.CONDITIONS):
        for field in (1.5, 3.0):
            assert tissues.value(name, field, condition) > 0


def test_a_litre_of_bone_matrix_is_filled():
    """Bound water at the density of water, organic matter and mineral; the digits stated are a tenth of a per cent."""
    water = tissues.value("bound_water.density") / tissues.value("water.density")
    whole = water + tissues.value("macromolecule.volume") + tissues.value("mineral.volume")
    assert whole == pytest.approx(1.0, abs=1e-3)
    # Per litre of bone: matrix and pores give back what was measured, to the three digits of the records.
    porosity = tissues.value("bone.pore_water") / tissues.value("water.density")
    for matrix, bone in (("bound_water.density", "bone.bound_water"), ("mineral.density", "bone.phosphorus")):
        assert tissues.value(matrix) * (1 - porosity) == pytest.approx(tissues.value(bone), rel=5e-3)
    # An independent measurement of both shares lies within the ranges.
    for share, mine in (("bound_water.volume", water * (1 - porosity)), ("pore_water.volume", porosity)):
        assert tissues.entry(share).low <= mine <= tissues.entry(share).high


def test_31p_and_volume_make_a_mineral_of_the_density_of_bone_apatite():
    """Hydroxyapatite holds 3.16 g/mL; carbonate and water in the lattice leave bone mineral 2.9 to 3.2."""
    assert tissues.value("bone.phosphorus") * 1004.61 / 6 == pytest.approx(1072, abs=1)  # mg of hydroxyapatite/mL
    grams = tissues.value("mineral.density") * 30.974 / tissues.value("mineral.phosphorus_share")
    assert 2.9 <= grams / 1000 / tissues.value("mineral.volume") <= 3.2


def test_weights_and_volumes_of_bone_agree():
    """Volumes times the densities of bone apatite, collagen and water give the weights, to the width of a range."""
    water = tissues.value("bound_water.density") / tissues.value("water.density")
    mineral, organic = tissues.value("mineral.volume"), tissues.value("macromolecule.volume")
    grams = {"mineral": 3.09 * mineral, "organic": 1.41 * organic, "water": 0.993 * water}
    for part, weight in grams.items():
        given = tissues.entry(f"bone.{part}_weight")
        assert weight / sum(grams.values()) == pytest.approx(given.value, abs=given.high - given.low)


def test_macromolecules_exchange_in_detailed_balance():
    """Rate times pool is the same both ways: RM0m (1 - f) = RM0w f, to the digits of the source."""
    fraction = tissues.value("macromolecule.fraction")
    forth = tissues.value("macromolecule.exchange") * (1 - fraction)
    assert forth == pytest.approx(tissues.value("macromolecule.exchange_back") * fraction, rel=0.02)
    young = tissues.value("cortical.porosity", condition="young")
    water = tissues.value("bound_water.density") * (1 - young) + tissues.value("water.density") * young
    solid = tissues.value("macromolecule.density") * (1 - young)
    assert solid / (solid + water) == pytest.approx(fraction, abs=2e-3)


def test_canals_and_lacunae_are_the_porosity():
    for condition in (None, *tissues.CONDITIONS):
        canal = math.pi / 4 * tissues.value("cortical.canal_diameter", condition=condition) ** 2
        porosity = tissues.value("cortical.canal_density") * canal + tissues.value("cortical.lacunar_porosity")
        assert porosity == pytest.approx(tissues.value("cortical.porosity", condition=condition), rel=0.01)


@pytest.mark.parametrize("diameter", (40e-6, 100e-6))
def test_pore_water_relaxes_at_the_wall_as_published(diameter):
    """T2 = 1/(1/T2bulk + 4 rho/d): pore water of bone spreads from 1 ms to 1 s, and canals are its longest part."""
    relaxivity = tissues.value("pore_water.surface_relaxivity")
    T2 = 1 / (1 / tissues.value("pore_water.T2_bulk") + 4 * relaxivity / diameter)
    assert 0.1 <= T2 <= 1.0
    assert T2 <= 2 * tissues.value("pore_water.T1")
    # Water reaches the wall before it relaxes there (rho d / 2 D below one): the formula holds.
    assert relaxivity * diameter / 2 / (tissues.value("pore_water.D") * 1e-6) < 1


def test_mineral_disperses_as_that_of_lamb():
    """Beyond 3 T the human value follows the power law of lamb bone, which the table itself interpolates."""
    for quantity in ("T1", "T2star"):
        human = {field: tissues.value(f"mineral.{quantity}", field) for field in (1.5, 3.0, 7.0)}
        lamb = {field: tissues.value(f"lamb_bone.{quantity}", field) for field in (1.5, 3.0, 7.0)}
        for field in (1.5, 7.0):
            assert human[field] / human[3.0] == pytest.approx(lamb[field] / lamb[3.0], rel=0.01)


@pytest.mark.parametrize(("name", "sign"), [
    ("cortical.porosity", 1), ("cortical.canal_diameter", 1), ("cortical.thickness", -1), ("trabecular.bvtv", -1),
    ("trabecular.thickness", -1), ("trabecular.spacing", 1), ("muscle.pdff", 1),
])
def test_bone_is_lost_in_order(name, sign):
    order = [sign * tissues.value(name, condition=c) for c in ("young", "old", "osteopenic", "osteoporotic")]
    assert order == sorted(set(order))
    assert tissues.value(name, condition="fractured") == tissues.value(name, condition="osteoporotic")


def test_between_fields_the_logarithm_is_linear_in_the_logarithm():
    low, high = (tissues.value("blood.T1", field) for field in (1.5, 3.0))
    assert tissues.value("blood.T1", math.sqrt(1.5 * 3.0)) == pytest.approx(math.sqrt(low * high), rel=1e-12)
    between = tissues.entry("blood.T1", 2.0)
    assert between.field == 2.0
    assert "interpolated" in between.note
    assert between.low <= between.value <= between.high


@pytest.mark.parametrize("name", sorted({entry.name for entry in TABLE if entry.field is not None}))
def test_beyond_the_measured_fields_there_is_no_value(name):
    fields = sorted(entry.field for entry in TABLE if entry.name == name)
    for field in (0.9 * fields[0], 1.1 * fields[-1]):
        with pytest.raises(InputError, match=rf"{name}.*{field:g} T.*never extrapolated"):
            tissues.value(name, field)


@pytest.mark.parametrize("name", sorted({entry.name for entry in TABLE if entry.field is None}))
def test_what_does_not_depend_on_the_field_is_the_same_at_every_field(name):
    assert tissues.value(name, 0.2) == tissues.value(name, 9.4)


def test_water_stands_where_its_temperature_puts_it():
    """4.647 ppm at 37 C against CH2 at 1.30; water moves up field by about 0.01 ppm per degree."""
    assert tissues.water_shift(37.0) == pytest.approx(4.647, abs=5e-4)  # the digits of the formula
    assert tissues.water_shift(20.0) > tissues.water_shift(37.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tissues.value("marrow_water.T9"), "no quantity 'marrow_water.T9'; known: "),
        (lambda: tissues.value("blood.T1", condition="healthy"), "no condition 'healthy'; known: young"),
        (lambda: tissues.value("blood.T1", field=-3), "field is -3, should be a field strength in tesla"),
        (lambda: tissues.value("blood.T1", field=math.nan), "field is nan"),
        (lambda: tissues.value("blood.T1", field="three"), "field is 'three'"),
        (lambda: tissues.value("blood.T1", field=11.7), r"T1 is not known at field 11.7 T \(known: 1.5, 3, 7 T\)"),
        (lambda: tissues.ranges("cartilage"), "no ranges for 'cartilage'; known: marrow"),
        (lambda: tissues.defaults("cartilage"), "no values for 'cartilage'; known: marrow"),
        (lambda: tissues.spectrum("butter"), "no fat spectrum 'butter'; known: fat_marrow"),
    ],
)
def test_a_wrong_question_gets_one_clear_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_number_without_a_source_is_refused(monkeypatch):
    """The guard itself: a record that names no source in the table cannot be read."""
    document = {"sources": {"empty": {"text": "no identifier"}},
                "tissue": {"T1": [{"value": 1.0, "low": 0.5, "high": 2.0, "unit": "s", "source": "nowhere"}]}}
    with pytest.raises(InputError, match="tissue.T1 names the source 'nowhere'"):
        tissues._entry(document, "tissue.T1", document["tissue"]["T1"][0])
    with pytest.raises(InputError, match="'empty' has no doi, pmid or url"):
        tissues._citation(document, {"source": "empty"}, "tissue.T1")


def test_every_entry_can_be_looked_up_by_its_own_field_and_condition():
    for entry in TABLE:
        assert tissues.entry(entry.name, entry.field or 3.0, entry.condition) == entry
    assert len(NAMES) == len({entry.name for entry in TABLE})
