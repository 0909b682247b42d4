"""Trials of complex scans: bounds of derived quantities, what a case tells whom, the experiments of the fat study."""

import json
from dataclasses import replace
from importlib import import_module

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import estimators, phantoms, validation
from bonemri.errors import InputError
from bonemri.phantoms import nifti
from bonemri.simulator import tissues
from bonemri.simulator.engines import susceptibility
from bonemri.simulator.model import cramer_rao_bound, information
from bonemri.simulator.water_fat import WaterFat
from bonemri.validation import budget, claims, confounders, derived, experiment, ladder, regions, study
from bonemri.validation.defendant import registered
from bonemri.validation.exhibits import agreement, discriminant, reproducibility, structure
from bonemri.validation.store import Store

PROTOCOL = ladder.protocol_of("dixon_marrow")
NAMES = ("water_real", "water_imag", "fat_amplitude_real", "fat_amplitude_imag", "fieldmap", "r2star")

SMALL = """
modality = "fat"
phantom = "marrow_block"
tissue = "marrow"
protocol = "dixon_marrow"
seed = 3
subjects = 4
subjects_quick = 4
nuisances = ["T1_water", "temperature", "ndb", "B1"]
tell = ["temperature"]
estimators = ["dixon"]
[ranges]
temperature = [36.0, 38.0]
ndb = [2.5, 3.22]
B1 = [0.8, 1.2]
[base]
fieldmap = 20.0
phase = 0.3
phase_fat = 0.0
[[grid]]
rung = "matched"
snr = 100
n = 4096
values = { pdff = 0.4, r2star = [50, 100] }
[[grid]]
rung = "matched"
variant = "one phase"
options = { phases = "common" }
held = ["phase_fat"]
snr = 40
n = 256
values = { pdff = 0.4, r2star = 50 }
[[grid]]
rung = "pools"
snr = 100
n = 256
nuisances = ["known", "drawn"]
values = { pdff = 0.4, R2_prime = 30 }
[[confounder]]
name = "temperature"
kind = "phantom"
key = "temperature"
tell = []
strengths = [37.0, 22.0]
[confounder.values]
pdff = 0.4
R2_prime = 34
T1_water = 0.4
T1_blood = 0.4
T1_fat = 0.4
T2_water = 0.06
T2_blood = 0.06
T2_fat = 0.06
[budget]
snr = 100
n = 2048
n_quick = 2048
[budget.values]
pdff = 0.4
R2_prime = 34
T1_water = 0.4
T1_blood = 0.4
T1_fat = 0.4
T2_water = 0.06
T2_blood = 0.06
T2_fat = 0.06
[budget.strengths]
"temperature" = 22.0
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def trial(small):
    return validation.run(small)


@pytest.fixture(scope="module")
def dixon():
    return registered(estimators.get("dixon"), {})


# --- derived quantities and their bounds


amounts = st.floats(0.05, 0.95)
angles = st.floats(-3.0, 3.0)


@settings(max_examples=20, deadline=None)
@given(pdff=amounts, phase=angles, phase_fat=angles, rate=st.floats(20, 150))
def test_one_bound_by_two_equations(pdff, phase, phase_fat, rate):
    """The fraction as an unknown, and the fraction by the delta method from complex amplitudes: one bound."""
    known = {"S0": 2.0, "pdff": pdff, "phase": phase, "phase_fat": phase_fat, "fieldmap": 20.0, "r2star": rate}
    polar, free = WaterFat("water_fat"), WaterFat("water_fat_free")
    expected = cramer_rao_bound(polar, known, PROTOCOL, 0.02)[0]
    order = [q.name for q in polar.unknowns]
    theta = {**derived.unknowns(known), **known}
    matrix = information(free, {name: theta[name] for name in NAMES}, PROTOCOL, 0.02, free=NAMES)[0]
    found = derived.deviations(("pdff", "r2star", "fieldmap"), NAMES, theta, matrix)
    for name, value in found.items():
        # both invert one 6 x 6 information: the condition of it, some 1e6, times the rounding of a double
        assert value == pytest.approx(expected[order.index(name)], rel=1e-7), name


@settings(max_examples=20, deadline=None)
@given(pdff=amounts, phase=angles, phase_fat=angles)
def test_gradients_are_derivatives(pdff, phase, phase_fat):
    theta = {k: float(v) for k, v in derived.unknowns({"S0": 1.5, "pdff": pdff, "phase": phase,
                                                       "phase_fat": phase_fat}).items()}  # fmt: skip
    names = NAMES[:4]

    def value(quantity, at):
        water, fat = np.hypot(at[0], at[1]), np.hypot(at[2], at[3])
        return {"water": water, "fat": fat, "pdff": fat / (water + fat)}[quantity]

    at = np.array([theta[name] for name in names])
    for quantity in derived.QUANTITIES:
        row = derived.gradient(quantity, names, theta)
        for i in range(4):
            step = 1e-6 * np.eye(4)[i]
            slope = (value(quantity, at + step) - value(quantity, at - step)) / 2e-6
            assert row[i] == pytest.approx(slope, abs=1e-6)  # truncation 1e-12 over .05^2, rounding 1e-16/1e-6
    assert derived.gradient("r2star", names, theta) is None


def test_what_the_data_do_not_hold_has_no_bound():
    """Two echoes hold four real numbers: five unknowns are not determined, four are."""
    two = PROTOCOL.replace(echo=(1.2e-3, 2.3e-3))
    one = registered(estimators.get("dixon-2pt"), {})
    theta = {"S0": 1.0, "pdff": 0.4, "fieldmap": 20.0, "phase": 0.3, "phase_fat": 0.0, "r2star": 0.0}
    assert np.isinf(ladder.bound(one, theta, two, 0.01, False)["pdff"])
    assert np.isfinite(ladder.bound(one.varied({}, held=("phase_fat",)), theta, two, 0.01, False)["pdff"])


def test_an_option_that_is_a_word_is_no_value_of_an_unknown(dixon):
    assert dixon.fitted == tuple(q.name for q in dixon.model.unknowns)
    aware = registered(estimators.get("ivim-fat-aware"), {})
    assert set(aware.fitted) == {"S0", "f", "D_star", "D"}


def test_magnitudes_bound_less_than_complex_data(dixon):
    theta = {"S0": 1.0, "pdff": 0.4, "fieldmap": 20.0, "phase": 0.3, "phase_fat": 0.0, "r2star": 50.0}
    whole = ladder.bound(dixon, theta, PROTOCOL, 0.01, magnitude=False)
    magnitude = registered(estimators.get("dixon-magnitude"), {})
    less = ladder.bound(magnitude, theta, PROTOCOL, 0.01, magnitude=True)
    assert less["pdff"] > whole["pdff"] * (1 - 1e-9)
    # averages are worth their number
    averaged = ladder.bound(dixon, theta, PROTOCOL.replace(averages=4), 0.01, magnitude=False)
    assert averaged["pdff"] == pytest.approx(whole["pdff"] / 2, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(end=st.sampled_from([0.0, 1.0]), rate=st.floats(60, 150), phase=angles)
def test_at_the_ends_the_bound_is_that_of_complex_amplitudes(end, rate, phase):
    """All water or all fat: the phase of what is not there drops out of the polar equation, not out of the fit."""
    one, protocol = registered(estimators.get("dixon"), {}), ladder.protocol_of("dixon_eight_echo_1t5")
    known = {"S0": 1.0, "pdff": end, "phase": phase, "phase_fat": 0.0, "fieldmap": 20.0, "r2star": rate}
    found = ladder.bound(one, known, protocol, 0.02, False)
    free = WaterFat("water_fat_free")
    theta = {**derived.unknowns(known), **known}
    covariance = np.linalg.inv(information(free, {n: theta[n] for n in NAMES}, protocol, 0.02, free=NAMES)[0])
    # the bound of one component fewer is up to a tenth lower; that .01 % away moves by 1e-4 of itself or so
    for name in ("r2star", "fieldmap"):
        assert found[name] == pytest.approx(np.sqrt(covariance[NAMES.index(name), NAMES.index(name)]), rel=1e-3), name


# --- scenes


def scene(small, values, rung="pools", **more):
    loaded = study.load(small)
    base = {"fieldmap": 20.0, "phase": 0.3, "phase_fat": 0.0}
    return ladder.scene(loaded, {**base, **values}, rung, PROTOCOL, model=estimators.get("dixon").model, **more)


def test_the_case_is_true_on_rung_matched(small):
    one = scene(small, {"pdff": 0.4, "r2star": 77.0}, "matched")
    theta = {name: one.theta[name] for name in ("S0", "pdff", "r2star", "fieldmap", "phase", "phase_fat")}
    assert theta["r2star"] == 77.0 and one.truth["r2star", "r2star"][0] == 77.0
    expected = WaterFat().signal(theta, PROTOCOL)
    np.testing.assert_allclose(one.clean.values.reshape(1, -1), expected, rtol=1e-12)


def test_r2star_of_tissue_is_made_of_t2_and_r2_prime(small):
    alike = {"T2_water": 0.05, "T2_blood": 0.05, "T2_fat": 0.05}
    assert scene(small, {"pdff": 0.4, "r2star": 90.0, **alike}).truth["r2star", "r2star"][0] == pytest.approx(90.0)
    assert np.isnan(scene(small, {"pdff": 0.4, "r2star": 90.0, "T2_water": 0.05}).truth["r2star", "r2star"][0])


@pytest.mark.parametrize("temperature", [22.0, 37.0, 40.0])
def test_a_fit_that_is_told_the_temperature_is_right(small, temperature):
    alike = {name: 0.4 for name in ("T1_water", "T1_blood", "T1_fat")} | {n: 0.06 for n in ("T2_water", "T2_blood",
                                                                                        "T2_fat")}  # fmt: skip
    one = scene(small, {"pdff": 0.4, "R2_prime": 30.0, "f": 0.0, "temperature": temperature, **alike})
    maps = estimators.get("dixon")(one.clean, temperature=temperature)
    # water's own shift is part of its offset: 4.647 ppm less .01085 a degree above 37 C
    moved = (tissues.water_shift(temperature) - tissues.water_shift()) * 1e-6 * 42.577478518e6 * 3.0
    assert one.truth["fieldmap", "fieldmap"][0] == pytest.approx(20.0 + moved, abs=1e-6)
    # the block's fat is a triglyceride of mean composition, the fit's a table to four digits: areas differ by 1.5e-4
    assert maps["pdff"].item() == pytest.approx(0.4, abs=1.5e-4)
    assert maps["fieldmap"].item() == pytest.approx(20.0 + moved, abs=1e-2)


def test_subjects_who_differ_in_what_a_scan_has_one_of_are_scanned_apart(small):
    nuisances = {"temperature": np.array([36.0, 37.0, 38.0]), "ndb": np.array([2.5, 2.86, 3.2]),
                 "B1": np.array([0.8, 1.0, 1.2])}  # fmt: skip
    many = scene(small, {"pdff": 0.4, "R2_prime": 30.0}, nuisances=nuisances)
    for subject in range(3):
        own = {name: float(value[subject]) for name, value in nuisances.items()}
        alone = scene(small, {"pdff": 0.4, "R2_prime": 30.0, **own})
        np.testing.assert_allclose(many.clean.values[0, subject, 0], alone.clean.values[0, 0, 0], rtol=1e-12)
    assert "temperature" not in many.clean.coords  # else the estimator would know what is drawn


@pytest.mark.parametrize("rung", ["engine", "scan"])
def test_higher_rungs_pass_through(rung):
    loaded = study.load(study.names()["diffusion"])
    protocol = ladder.protocol_of(loaded.protocol)
    case = {"pdff": 0.3, "f": 0.04, "D": 0.45e-3, "D_star": 28e-3}
    found = ladder.scene(loaded, case, rung, protocol, model=estimators.ivim.model)
    pools = ladder.scene(loaded, case, "pools", protocol, model=estimators.ivim.model)
    assert found.clean.attrs["signal_reference"] == pools.clean.attrs["signal_reference"]
    noisy = experiment.add_noise(found.clean, snr=50.0, seed=1)
    assert noisy.shape == pools.clean.shape
    # what the engine's pulses and flow add is small, and is not nothing
    gap = np.abs(found.clean.values / pools.clean.values - 1).max()
    assert 1e-4 < gap < 0.05


# --- trials


def test_dixon_is_efficient_and_its_variant_has_a_row_of_its_own(trial):
    rows = [row for row in trial.table if row["rung"] == "matched" and row["quantity"] == "pdff"]
    ordinary = [row for row in rows if "one phase" not in row["case"]]
    assert len(ordinary) > len({row["case"] for row in ordinary}) > 1
    for row in ordinary:
        # 4096 draws: the relative SE of a variance is sqrt(2/4096) = 2.2 %; four of them
        assert abs(row["efficiency"] - 1) < 0.09
        assert "one-phase" not in row["claim"]
    of_variant = {f"dixon/{kind}-one-phase:pdff" for kind in ("efficiency", "noise-bias", "coverage")}
    assert {row["claim"] for row in rows if "one phase" in row["case"]} == of_variant


def test_nuisances_move_the_limit_from_subject_to_subject(trial):
    cells = trial.samples
    pools = (cells["rung"] == "pools") & (cells["quantity"] == "pdff")
    spread = dict(zip(cells["nuisances"].values[pools], cells["limit_sd"].values[pools], strict=True))
    assert spread["known"] < 1e-9 < 1e-3 < spread["drawn"]


def test_a_budget_of_one_confounder_is_that_confounder(trial):
    lines = trial.budget.to_dataframe().set_index(["entry", "quantity"])
    alone, together = (lines.loc[entry, "pdff"] for entry in ("temperature", budget.TOGETHER))
    assert alone.predicted == together.predicted != 0
    none = lines.loc[budget.NONE, "pdff"]
    assert abs(none.predicted) < 5e-4 < abs(alone.predicted)  # blood has another T2* than water
    points = trial.confounders
    at = (points.quantity == "pdff") & (points.strength == 22.0)
    assert alone.predicted == pytest.approx(float(points.model_error.values[at][0]), rel=1e-9)
    # the mean over noise is the noise-free answer within four standard errors and a noise bias of .1 SD
    for _, row in lines.iterrows():
        assert abs(row.gap) < 4 * row.se + 0.1 * row.se * np.sqrt(row.n)


def test_a_swapped_estimate_fails(small):
    def swapped(scan):
        found = estimators.get("dixon")(scan)
        found["pdff"] = 1 - found["pdff"]
        return found

    result = validation.run("dixon", estimator=swapped, quick=True)
    assert not result.passed
    failed = {judgement.claim for judgement in result.judgements if judgement.verdict == "fails"}
    assert {"dixon/coverage:pdff", "dixon/recovery:pdff", "dixon/no-swap-on-islands"} <= failed


def test_magnitude_estimators_get_magnitudes(small, dixon):
    seen = []
    loaded = study.load(small)
    magnitude = registered(estimators.get("adc"), {})

    def spy(scan, **_):
        seen.append(scan.dtype.kind)
        return xr.Dataset({"adc": scan.isel(echo=0, drop=True)})

    one = ladder.scene(loaded, {"pdff": 0.4, "R2_prime": 30.0}, "pools", PROTOCOL, model=dixon.model)
    replace(magnitude, call=spy).estimate(one.clean, None, {})
    assert seen == ["f"] and one.clean.dtype.kind == "c"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("temperature = [36.0, 38.0]", "temperature = 37.0", "[ranges] temperature = 37.0; [low, high]"),
        ("phase = 0.3", 'phase = "x"', "[base] phase = 'x'; a number"),
        ('variant = "one phase"\n', "", "options without a variant"),
        ('options = { phases = "common" }', 'options = "common"', "options = 'common'; a dict"),
        ('held = ["phase_fat"]', 'held = "phase_fat"', "held = 'phase_fat'; a list"),
    ],
)
def test_a_wrong_study_is_told_in_one_line(tmp_path, old, new, told):
    path = tmp_path / "wrong.toml"
    path.write_text(SMALL.replace(old, new))
    assert old in SMALL
    with pytest.raises(InputError) as caught:
        study.load(path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_limits_of_the_bound_may_be_stated_as_they_are(tmp_path):
    sheet = claims.read(estimators.get("dixon").claims)
    assert sheet.identifiable_sd == {"pdff": 0.02, "r2star": 20.0}
    assert sheet.worst({}, {"pdff": 0.03, "r2star": 10.0}) == pytest.approx(1.5)
    path = tmp_path / "x.claims.toml"
    path.write_text('[identifiable]\npdff = { sd = -1 }\n[[claim]]\nid = "a"\n')
    with pytest.raises(InputError, match=r"\[identifiable\] pdff = -1"):
        claims.read(path)


# --- agreement


def test_a_line_has_the_intervals_of_ordinary_least_squares():
    from scipy.stats import linregress, t

    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 12)
    y = 0.02 + 0.97 * x + 0.01 * rng.standard_normal(12)
    found, known = agreement.line(x, y), linregress(x, y)
    half = t.ppf(0.975, 10) * known.stderr
    assert (found.slope.value, found.slope.low) == pytest.approx((known.slope, known.slope - half))
    assert found.intercept.high == pytest.approx(known.intercept + t.ppf(0.975, 10) * known.intercept_stderr)
    assert found.r2 == pytest.approx(known.rvalue**2)


def test_intervals_of_repeatability_cover():
    """95 % of 2000 intervals hold the true coefficient: within four standard errors of a rate, sqrt(.05 .95/2000)."""
    rng = np.random.default_rng(2)
    true = agreement.COVERAGE * 0.3
    inside = [(i := agreement.repeatability(rng.normal(size=(10, 3)) * 0.3)).low < true < i.high for _ in range(2000)]
    assert abs(np.mean(inside) - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_sites_that_err_alike_in_all_cases_count_as_sites():
    """Errors shared by all vials of a site: as few degrees of freedom as sites, and intervals that cover."""
    rng = np.random.default_rng(3)
    between, within = 0.4, 0.1
    true = agreement.COVERAGE * np.hypot(between, within)
    inside = []
    for _ in range(1000):
        x = rng.normal(size=(1, 6, 1)) * between + rng.normal(size=(20, 6, 3)) * within
        one = agreement.reproducibility(x)
        inside.append(one.low < true < one.high)
    # Satterthwaite's approximation errs by less than a point here; four standard errors of a rate on top
    assert abs(np.mean(inside) - 0.95) < 0.01 + 4 * np.sqrt(0.05 * 0.95 / 1000)


def test_auc_is_the_chance_to_rank_a_pair_right():
    rng = np.random.default_rng(4)
    ill = np.arange(200) % 2 == 0
    score = np.round(rng.normal(size=200) + ill, 1)  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in score[ill] for b in score[~ill]]
    assert agreement.auc(score, ill).value == pytest.approx(np.mean(pairs))
    false, true = agreement.roc(score, ill)
    assert np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("sick", "well", "true"), [(60, 60, 0.76), (10, 40, 0.74), (20, 20, 0.97)])
def test_the_interval_of_an_area_covers(sick, well, true):
    """Normal scores; a plain interval about an area of .97 of 20 and 20 people covers 79 %."""
    from scipy.special import ndtri

    rng = np.random.default_rng(sick)
    apart, ill = np.sqrt(2) * ndtri(true), np.arange(sick + well) < sick
    inside = [
        (a := agreement.auc(rng.normal(size=ill.size) + apart * ill, ill)).low < true < a.high for _ in range(1000)
    ]
    # within two points of nominal, and four standard errors of a rate
    assert abs(np.mean(inside) - 0.95) < 0.02 + 4 * np.sqrt(0.05 * 0.95 / 1000)


def test_groups_that_do_not_overlap_have_an_interval():
    score, ill = np.arange(30.0), np.arange(30) >= 15
    above, below = agreement.auc(score, ill), agreement.auc(score, ~ill)
    assert (above.value, below.value) == (1.0, 0.0)
    # none of 15 overlaps: of a share, the 95 % interval would reach to 1 - .025^(1/15) = .22
    assert 0.75 < above.low < 0.85 and above.high == 1.0
    assert below.low == 0.0 and 0.15 < below.high < 0.25


# --- experiments


def test_sites_are_right_once_t1_is_corrected():
    found = reproducibility.run(True, 5)
    plain, corrected = (reproducibility.table(found, way) for way in ("as it comes", "T1 corrected"))
    # low flip angles leave some points of T1 weighting, as the steady state says; corrected, what B1 leaves of them
    assert plain["all"].bias.value > 0.03 > 0.01 > abs(corrected["all"].bias.value)
    for line in corrected["sites"].values():
        assert 0.96 < line.slope.value < 1.02  # the range that was published for a phantom at six sites
        assert line.r2 > 0.995
    assert corrected["reproducibility"].value > corrected["repeatability"].value
    assert "Hernando" in reproducibility.tell(found)
    assert reproducibility.draw(found).axes


def test_two_biomarkers_tell_more_than_one():
    found = discriminant.run(True, 6)
    areas = discriminant.areas(found)
    assert areas["PDFF and T2*"].value > max(areas["PDFF"].value, areas["T2*"].value)
    for name, published in discriminant.PUBLISHED.items():
        # nothing but the traits of the cohort and noise: not below what was found in people
        assert areas[name].high > published
    assert discriminant.draw(found).axes and "AUC" in discriminant.tell(found)


def test_a_discriminant_learns_nothing_from_noise():
    rng = np.random.default_rng(7)
    ill = np.arange(400) % 4 == 0
    score = discriminant.held_out(rng.normal(size=(400, 2)), ill, rng)
    area = agreement.auc(score, ill)
    assert area.low - 0.05 < 0.5 < area.high + 0.05  # scores of those who were seen would be above
    features = rng.normal(size=(400, 2)) + ill[:, None] * [2.0, -1.0]
    weight = discriminant.fisher(features, ill)
    # with unit covariance the discriminant is the difference of the means: direction (2, -1)
    assert weight[1] / weight[0] == pytest.approx(-0.5, abs=0.2)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(5.0, 200.0), start=st.floats(0.5e-3, 3e-3), spacing=st.floats(0.5e-3, 3e-3))
def test_an_exponential_is_found(rate, start, spacing):
    times = start + spacing * np.arange(6)
    assert structure.fitted(3.0 * np.exp(-rate * times), times) == pytest.approx(rate, abs=1e-3)


@pytest.fixture(scope="module")
def trabeculae():
    return structure.run(True, 8)


def test_r2_prime_depends_on_the_echo_train(trabeculae):
    """A decay that begins quadratically is steeper at later echoes, and grows faster than the field."""
    rate = trabeculae["r2_prime"]
    assert bool((np.diff(rate.values, axis=0) > 0).all())  # with BV/TV
    short, long = rate.sel(train="dixon_mdixon_quant_3t"), rate.sel(train="8 echoes to 30 ms")
    assert bool((long > 1.2 * short).all())
    ratio = rate.sel(field=3.0) / rate.sel(field=1.5)
    # twice for an exponential, four times for exp(-(field t)^2)
    assert bool(((ratio > 2) & (ratio < 4)).all())
    assert structure.draw(trabeculae).axes and "echoes" in structure.tell(trabeculae)


@pytest.mark.slow
@pytest.mark.parametrize("bvtv", [0.06, 0.1])
def test_a_network_dephases_between_rods_and_spheres(bvtv):
    """Where the decay has become exponential: rods of every direction have k = 1, spheres k = 2 pi/(3 sqrt 3).

    A network is rods and the nodes in which they meet. Its marrow sees zeta/(1 - zeta) of bone, and the window from 2
    to 8/delta-omega is .4 % below the asymptote for rods.
    """
    bone = phantoms.trabecular(bvtv=bvtv, size=5e-3, resolution=62.5e-6, seed=2, morphometry=False, plates=0.0,
                               anisotropy=1.0)  # fmt: skip
    spins = np.asarray(bone.pools["density"].sel(pool=["marrow_water", "blood", "fat"]).sum("pool").values)
    inner = tuple(slice(n // 10, n - n // 10) for n in spins.shape)
    solid = np.nan_to_num(bone.truth["bvtv"].values)[inner].mean()
    omega = 2 * np.pi * 42.577478518e6 * 3.0 * structure._contrast(bone) * 1e-6 / 3
    times = np.linspace(2 / omega, 8 / omega, 13)
    rates = []
    for direction in np.eye(3):  # at right angles: together they see every direction alike
        left = susceptibility.dephasing(bone.offset(direction)[inner], spins[inner], spins[inner].shape, times,
                                        remove_linear=True)  # fmt: skip
        rates.append(susceptibility.r2_prime(left, times, (times[0], times[-1])).item())
    k = np.mean(rates) / (solid / (1 - solid) * omega)
    assert 0.996 < k < 2 * np.pi / (3 * np.sqrt(3))


# --- regions


def test_regions_of_a_spine():
    """From labels to fat fraction and cross-section: against the phantom's own truth, region by region."""
    bone = phantoms.spine(resolution=6e-3)
    labels = spine_labels(6e-3)
    maps = xr.Dataset({"pdff": bone.truth["pdff"], "r2star": xr.full_like(bone.truth["pdff"], 40.0)},
                      attrs={"voxel_size": np.full(3, 6e-3)})  # fmt: skip
    found = regions.by_label(maps, labels, {"paraspinal": regions.PARASPINAL})
    names = found["region"].values.tolist()
    assert {"L1", "L4", "paraspinal", "left_multifidus"} <= set(names)
    for name, number in {"L3": 4, "left_multifidus": None}.items():
        number = next(n for n, text in regions.names_of(labels).items() if text == name)
        inside = labels.values == number
        one = found.sel(region=name)
        assert one["pdff"].item() == pytest.approx(np.nanmean(bone.truth["pdff"].values[inside]))
        assert one["voxels"].item() == inside.sum()
        assert one["volume"].item() == pytest.approx(inside.sum() * 6e-3**3)
        assert one["cross_section"].item() == pytest.approx(inside.sum(axis=(1, 2))[inside.any((1, 2))].mean() * 36e-6)
        assert one["t2star"].item() == pytest.approx(0.025)
    parts = [n for n in names if n.endswith(("erector_spinae", "multifidus"))]
    assert found.sel(region="paraspinal")["voxels"].item() == found["voxels"].sel(region=parts).sum().item()


def test_labels_go_out_as_a_mask(tmp_path):
    """The mask lies where the phantom's own maps lie, with the same numbers, and its names stand beside."""
    labels = spine_labels(8e-3)
    path = nifti.write_labels(labels, tmp_path / "labels.nii.gz")
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, labels.values)
    affine = np.reshape(phantoms.spine(resolution=8e-3).pools.attrs["affine"], (4, 4))
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)  # mm, in single precision
    assert json.loads((tmp_path / "labels.json").read_text())["labels"]["4"] == "L3"
    with pytest.raises(InputError, match=r"ends in \.nii\.gz"):
        nifti.write_labels(labels, tmp_path / "labels.nc")
    with pytest.raises(InputError, match="whole numbers"):
        nifti.write_labels(labels * 0.5, tmp_path / "labels.nii")


def spine_labels(resolution):
    return import_module("bonemri.phantoms.spine").labels(resolution=resolution)


def test_what_has_little_signal_counts_little():
    """In proportion below half of the usual signal, which is 9 here: a weight of 1/4.5 against 1."""
    shape = (1, 1, 2)
    maps = xr.Dataset({name: (("z", "y", "x"), np.array(v, float).reshape(shape)) for name, v in
                       {"pdff": (0.0, 1.0), "water": (9.0, 0.0), "fat": (0.0, 1.0)}.items()},
                      attrs={"voxel_size": 1e-3})  # fmt: skip
    labels = xr.DataArray(np.ones(shape, int), dims=("z", "y", "x"))
    assert regions.by_label(maps, labels)["pdff"].item() == pytest.approx(1 / 5.5)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros((1, 1, 2), int), "all are 0"),
        (np.full((1, 1, 2), 0.5), "they hold fractions"),
        (np.ones((1, 2, 2), int), "labels have shape (1, 2, 2)"),
    ],
)
def test_wrong_labels_are_told_in_one_line(labels, told):
    maps = xr.Dataset({"pdff": (("z", "y", "x"), np.ones((1, 1, 2)))}, attrs={"voxel_size": 1e-3})
    with pytest.raises(InputError) as caught:
        regions.by_label(maps, xr.DataArray(labels, dims=("z", "y", "x")))
    assert told in str(caught.value) and "\n" not in str(caught.value)


# --- the page


def test_a_page_of_two_studies_has_a_part_for_each(small, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(
        'modality = "diffusion"\nphantom = "marrow_block"\ntissue = "marrow"\nprotocol = "ivim_marrow"\n'
        'estimators = ["adc"]\n[[grid]]\nrung = "matched"\nsnr = 100\nn = 64\n'
        "values = { adc = [0.5e-3, 1e-3], pdff = 0.0 }\n"
    )
    both = validation.run([small, other])
    page = both.report(tmp_path / "page").read_text()
    ids = [part.split('"')[0] for part in page.split('id="')[1:]]
    assert len(ids) == len(set(ids))  # figures of two studies do not share an identifier
    assert "figure-small-truth" in ids and "figure-other-truth" in ids
    assert "extrapolated" in page and "b = 0" in page  # what SNR means in each


def test_store_keeps_what_depends_on_the_study_apart(small, tmp_path, dixon):
    loaded = study.load(small)
    plan = experiment.Plan(loaded, PROTOCOL, 1, False)
    store = Store(tmp_path, False)
    case = loaded.cases(False)[0]
    keys = {store.key(dixon, case, plan), store.key(dixon, replace(case, options=(("phases", "common"),)), plan),
            store.key(dixon, case, replace(plan, study=replace(loaded, ranges={"B1": (0.5, 1.5)})))}  # fmt: skip
    assert len(keys) == 3


def test_belief_goes_from_marrow_to_the_other(dixon):
    for strength, expected in ((0.0, tissues.spectrum()), (1.0, tissues.spectrum("fat_liver"))):
        shift, area = confounders.believed("fat_liver", strength)
        times = np.linspace(1e-3, 8e-3, 7)
        signal, wanted = (np.exp(2j * np.pi * 127.7 * np.multiply.outer(times, one[0])) @ one[1]
                          for one in ((shift, area), expected))  # fmt: skip
        np.testing.assert_allclose(signal, wanted, atol=1e-12)
