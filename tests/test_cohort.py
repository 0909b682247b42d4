"""Cohort: means, SDs and ranks as prescribed, one stream a person, WHO's classes, fractures, a person's bones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms.cohort import BONES, TRAITS, cohort, correlation_matrix, moments, person
from bonemri.simulator import tissues

N = 4000
Z = 4.5  # standard errors: 1 in 150 000 by chance, so that a few hundred checks on fixed seeds do not meet it
MEASURED = ["bmd", "pdff", "bvtv", "perfusion_fraction", "D", "T2_water", "porosity", "muscle_pdff"]


@pytest.fixture(scope="module")
def mixed():
    return cohort(N, seed=1)


@pytest.fixture(scope="module")
def alike():
    """Women of 62 years without fractures: every trait has one mean, one SD, and the prescribed correlations."""
    return cohort(N, seed=2, women=1.0, age=62.0, years=0.0)


# ---- means, SDs, correlations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
def test_means_and_SDs_are_the_published_ones(alike, name):
    mean, sd = (float(each) for each in moments(name, 62.0, True))
    found = alike[name].values
    assert found.mean() == pytest.approx(mean, abs=Z * sd / math.sqrt(N))
    # The variance of a sample variance is (kurtosis - 1 + 2/(n - 1)) / n: of the sample's own kurtosis.
    deviation = (found - found.mean()) / found.std()
    error = sd * math.sqrt((np.mean(deviation**4) - 1) / N) / 2
    assert found.std(ddof=1) == pytest.approx(sd, abs=Z * error)


@pytest.mark.parametrize(("sex", "female"), [("woman", True), ("man", False)])
@pytest.mark.parametrize(("age", "path"), [(25, "pdff_{}_25"), (65, "pdff_{}_65")])
def test_fat_by_age_and_sex_is_that_of_the_literature(sex, female, age, path):
    group = cohort(1500, seed=9, women=float(female), age=age, years=0.0)
    assert set(group["sex"].values) == {sex}
    entry = tissues.entry("cohort." + path.format("women" if female else "men"))
    assert float(group["pdff"].mean()) == pytest.approx(entry.value, abs=Z * entry.sd / math.sqrt(1500))


def test_ranks_correlate_as_the_copula_says(alike):
    """Spearman's correlation of a Gaussian copula is 6/pi asin(r/2), whatever the marginals are."""
    from scipy.stats import rankdata

    ranks = np.array([rankdata(alike[name].values) for name in TRAITS])
    found, wanted = np.corrcoef(ranks), 6 / np.pi * np.arcsin(correlation_matrix() / 2)
    # Fisher: artanh of a rank correlation has the variance (1 + r^2/2) / (n - 3) (Bonett and Wright 2000).
    upper = np.triu_indices(len(TRAITS), 1)
    error = np.sqrt((1 + wanted[upper] ** 2 / 2) / (N - 3))
    assert (np.abs(np.arctanh(found[upper]) - np.arctanh(wanted[upper])) < Z * error).all()


@pytest.mark.parametrize(
    ("pair", "low", "high"),
    [(("pdff", "bmd"), -0.44, -0.40), (("T2_water", "pdff"), -0.60, -0.54), (("bvtv", "bmd"), 0.5, 0.7),
     (("D", "pdff"), -0.60, -0.50)],
)
def test_published_correlations_are_met(alike, pair, low, high):
    """Pearson's r between the traits themselves; skewed marginals lower it by a hundredth or two at most."""
    r = float(np.corrcoef(alike[pair[0]], alike[pair[1]])[0, 1])
    error = Z * (1 - r**2) / math.sqrt(N)
    assert low - error - 0.02 < r < high + error + 0.02


def test_age_makes_people_fatter_more_porous_and_less_dense(mixed):
    young, old = (mixed.where(which, drop=True) for which in (mixed["age"] < 35, mixed["age"] > 70))
    for name in ("pdff", "porosity", "muscle_pdff"):
        assert float(young[name].mean()) < float(old[name].mean())
    assert float(young["bvtv"].mean()) > float(old["bvtv"].mean())
    women = [group.where(group["sex"] == "woman", drop=True)["bmd"].mean() for group in (young, old)]
    assert float(women[0]) > float(women[1])


def test_every_trait_stays_inside_its_bounds(mixed):
    for name, trait in TRAITS.items():
        assert np.isfinite(mixed[name]).all() and float(mixed[name].min()) > 0
        assert mixed[name].attrs["units"] == trait.unit
        if trait.unit == "1":
            assert float(mixed[name].max()) < 1


# ---- the matrix ------------------------------------------------------------------------------------------------


def test_unpublished_pairs_are_independent_given_what_lies_between():
    matrix, names = correlation_matrix(), list(TRAITS)
    r = {(a, b): matrix[names.index(a), names.index(b)] for a in names for b in names}
    assert r["D", "bmd"] == pytest.approx(r["D", "pdff"] * r["pdff", "bmd"], rel=1e-14)
    assert r["D", "porosity"] == pytest.approx(r["D", "pdff"] * r["pdff", "bmd"] * r["bmd", "porosity"], rel=1e-14)
    assert r["muscle_pdff", "pdff"] == 0
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    # A zero of the inverse is a partial correlation of zero.
    inverse = np.linalg.inv(matrix)
    assert inverse[names.index("D"), names.index("bmd")] == pytest.approx(0, abs=1e-14)


@given(r=st.lists(st.floats(-0.95, 0.95), min_size=6, max_size=6))
def test_any_correlations_along_the_tree_are_possible(r):
    pairs = [("bmd", "pdff"), ("bmd", "bvtv"), ("bmd", "porosity"), ("bmd", "perfusion_fraction"), ("pdff", "D"),
             ("T2_water", "pdff")]
    matrix = correlation_matrix(dict(zip(pairs, r, strict=True)))
    # The determinant of such a matrix is the product of 1 - r^2 over the tree's edges.
    assert np.linalg.det(matrix) == pytest.approx(np.prod(1 - np.square(r)), rel=1e-6)
    names = list(TRAITS)
    for (a, b), value in zip(pairs, r, strict=True):
        assert matrix[names.index(a), names.index(b)] == value


def test_changed_correlations_reach_the_people():
    pair = {("pdff", "bmd"): -0.8}
    people = cohort(N, women=1.0, age=60.0, years=0.0, correlations=pair)
    r = float(np.corrcoef(people["pdff"], people["bmd"])[0, 1])
    assert r == pytest.approx(-0.8, abs=Z * (1 - 0.64) / math.sqrt(N) + 0.02)


# ---- persons ---------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 2**62))
def test_a_person_does_not_depend_on_how_many_there_are(n, seed):
    few, many = cohort(n, seed), cohort(60, seed)
    xr.testing.assert_identical(few.drop_attrs(), many.isel(person=slice(n)).drop_attrs())


def test_another_seed_gives_other_people():
    assert not np.intersect1d(cohort(200, seed=0)["bmd"], cohort(200, seed=1)["bmd"]).size


def test_women_and_ages_are_shared_out_as_asked():
    people = cohort(N, seed=5, women=0.3, age=(40, 60))
    share = float((people["sex"] == "woman").mean())
    assert share == pytest.approx(0.3, abs=Z * math.sqrt(0.21 / N))
    assert 40 <= float(people["age"].min()) and float(people["age"].max()) <= 60
    assert float(people["age"].mean()) == pytest.approx(50, abs=Z * 20 / math.sqrt(12 * N))


def test_the_classes_are_those_of_who(mixed):
    unbroken = mixed.where(mixed["condition"] != "fractured", drop=True)
    t, old = unbroken["t_score"].values, unbroken["age"].values >= 50
    expected = np.where(t <= -2.5, "osteoporotic", np.where(t < -1, "osteopenic", "old"))
    np.testing.assert_array_equal(unbroken["condition"], np.where(old, expected, "young"))
    peak = tissues.entry("cohort.bmd_women_25")
    np.testing.assert_allclose(mixed["t_score"], (mixed["bmd"] - peak.value) / peak.sd, rtol=1e-12, atol=1e-12)
    assert set(mixed["condition"].values) <= set(tissues.CONDITIONS)


def test_a_tenth_to_a_third_of_women_over_65_has_osteoporosis():
    women = cohort(N, women=1.0, age=(65, 85), years=0.0)
    assert 0.10 < float((women["condition"] == "osteoporotic").mean()) < 0.33


# ---- fractures -------------------------------------------------------------------------------------------------


def test_fractures_come_at_the_published_rate_and_to_thin_bones():
    people = cohort(20_000, seed=3, women=1.0, age=(50, 80))
    rate = tissues.value("cohort.fracture_rate_women")
    risk = people["fracture_risk"].values
    # The mean risk is the rate (less its square's half); its spread over people comes from a log-normal factor.
    assert risk.mean() == pytest.approx(1 - math.exp(-rate), abs=Z * risk.std() / math.sqrt(risk.size) + rate**2 * 4)
    broken = (people["condition"] == "fractured").values
    assert broken.sum() == pytest.approx(risk.sum(), abs=Z * math.sqrt(risk.sum()))
    assert people["t_score"].values[broken].mean() < people["t_score"].values[~broken].mean() - 0.5
    # Relative risk: per SD below the mean of one's age.
    sixty = cohort(2000, women=1.0, age=60.0)
    mean, sd = moments("bmd", 60.0, True)
    slope = np.polyfit((sixty["bmd"] - mean) / sd, np.log(-np.log1p(-sixty["fracture_risk"])), 1)[0]
    assert math.exp(-slope) == pytest.approx(tissues.value("cohort.fracture_risk_per_sd"), rel=1e-9)


def test_nobody_below_fifty_and_nobody_in_no_time_breaks_a_bone():
    assert not (cohort(500, age=(20, 49), years=50.0)["condition"] == "fractured").any()
    assert not (cohort(500, age=(50, 85), years=0.0)["condition"] == "fractured").any()


def test_a_fresh_fracture_has_oedema_and_leaves_the_rest():
    sound, broken = (cohort(300, seed=4, age=70.0, years=years) for years in (0.0, 100.0))
    fresh = broken["condition"].values == "fractured"
    assert 30 < fresh.sum() < 300
    assert float(broken["D_broken"].values[fresh].mean()) > 2 * float(sound["D"].values[fresh].mean())
    assert float(broken["pdff_broken"].values[fresh].mean()) < float(sound["pdff"].values[fresh].mean())
    assert np.isnan(broken["D_broken"].values[~fresh]).all()
    for name in (*TRAITS, "age", "seed"):
        np.testing.assert_array_equal(sound[name], broken[name])


def test_only_the_broken_vertebra_takes_the_marrow_of_the_fracture():
    people = cohort(300, seed=4, age=70.0, years=100.0)
    i = int(np.flatnonzero(people["condition"].values == "fractured")[0])
    someone = person(people, i)
    assert someone.arguments("vertebra")["D"] == float(people["D_broken"][i])
    assert someone["marrow_block"].truth["pdff"].item() == pytest.approx(float(people["pdff_broken"][i]), abs=1e-12)
    if "spine" in someone:
        assert someone.arguments("spine")["pdff"] == float(people["pdff"][i])


# ---- bones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("i", [0, 7])  # neither of them broken
def test_a_persons_vertebra_has_the_persons_values(mixed, i):
    someone = person(mixed, i, resolution={"vertebra": 4e-3})
    body = someone["vertebra"]
    assert float(body.truth["pdff"].mean()) == pytest.approx(float(mixed["pdff"][i]), abs=1e-10)
    assert float(body.truth["f"].mean()) == pytest.approx(float(mixed["perfusion_fraction"][i]), abs=1e-10)
    assert float(body.truth["D"].mean()) == pytest.approx(float(mixed["D"][i]), rel=1e-10)
    assert body.pools.attrs["condition"] == str(mixed["condition"][i].item())
    assert body.pools.attrs["seed"] == int(mixed["seed"][i])
    assert someone["vertebra"] is body, "built once"


def test_a_person_is_a_mapping_that_builds_when_asked(mixed):
    someone = person(mixed, 2)
    assert set(someone) == set(BONES) & set(phantoms.registry) and "vertebra" in someone
    assert len(someone) == len(list(someone))
    assert "skull" not in someone
    assert str(mixed["condition"][2].item()) in repr(someone)
    marrow = someone["marrow_block"]
    assert marrow.truth["pdff"].item() == pytest.approx(float(mixed["pdff"][2]), abs=1e-12)
    assert marrow.pools["T2"].sel(pool="marrow_water").item() == float(mixed["T2_water"][2])


def test_every_bone_takes_its_persons_values(mixed):
    """A phantom whose parameters were renamed would silently get the population's values instead."""
    someone = person(mixed, int(np.flatnonzero(mixed["condition"].values != "fractured")[0]))
    for name in someone:
        asked = someone.arguments(name)
        assert {"condition", "seed", "field"} <= set(asked)
        if BONES[name]:
            assert set(BONES[name]) & set(asked), name


def test_field_strength_goes_with_the_people():
    low = cohort(3, field=1.5)
    assert person(low, 0)["marrow_block"].field_strength == 1.5
    assert float(low["T2_water"].mean()) > float(cohort(3)["T2_water"].mean())


def test_a_cohort_can_be_kept_in_a_file(mixed, tmp_path):
    path = tmp_path / "people.nc"
    mixed.to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as back:
        again = person(back.load(), 5)
    assert again.arguments("vertebra") == person(mixed, 5).arguments("vertebra")


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cohort(0), "n is 0, should be a whole number of people"),
        (lambda: cohort(2.5), "n is 2.5"),
        (lambda: cohort(True), "n is True"),
        (lambda: cohort(10**9), "n is 1000000000"),
        (lambda: cohort(3, seed=-1), "seed is -1"),
        (lambda: cohort(3, women=1.5), "women is 1.5, should lie from 0 to 1"),
        (lambda: cohort(3, age=5), "age is 5.0, should lie from 18 to 100 years"),
        (lambda: cohort(3, age=(60, 40)), r"age is \(60, 40\), should be a number of years or \(low, high\)"),
        (lambda: cohort(3, age="old"), "age is 'old', should be numbers"),
        (lambda: cohort(3, years=-1), "years is -1"),
        (lambda: cohort(3, field=11.7), "not known at field 11.7 T"),
        (lambda: cohort(3, correlations={("pdff", "height"): 0.1}), r"no pair of traits \('pdff', 'height'\); known"),
        (lambda: cohort(3, correlations={("pdff", "pdff"): 1.0}), "no pair of traits"),
        (lambda: cohort(3, correlations={("pdff", "bmd"): -1.4}), "correlation of pdff and bmd is -1.4"),
        (lambda: cohort(3, correlations={("pdff", "bmd"): 1.0}), "no people can have these correlations together"),
        (lambda: cohort(3, correlations={("bvtv", "pdff"): 0.9, ("bvtv", "bmd"): 0.9}),
         r"no people can have these correlations together \(bvtv and pdff 0.9, .*least eigenvalue of the matrix is -"),
        (lambda: person(cohort(3), 3), "no person 3; the cohort has 0 to 2"),
        (lambda: person(cohort(3), -1), "no person -1"),
        (lambda: person(cohort(3), "Anna"), "no person 'Anna'"),
        (lambda: person(xr.Dataset(), 0), "the dataset lacks condition, seed, bmd"),
        (lambda: person(cohort(3), 0)["skull"], "no bone 'skull'; known: vertebra"),
        (lambda: person(cohort(3), 0, resolution={"skull": 1e-3}), "no bone 'skull'"),
        (lambda: moments("height", 30.0, True), "no trait 'height'; known: bmd"),
    ],
)
def test_what_people_cannot_be_is_told_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
