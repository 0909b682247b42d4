"""Trials: the contract of `validation.run`, estimators that must fail, results that depend on the seed alone."""

import csv

import numpy as np
import pytest
import xarray as xr

from bonemri import estimators, validation
from bonemri.errors import InputError
from bonemri.simulator import tissues
from bonemri.validation import claims, judge, ladder, study
from bonemri.validation.trial import COLUMNS, VERDICTS

HEADER = (
    "estimator rung case snr quantity measurand truth limit mean bias bias_se sd crb efficiency efficiency_se coverage "
    "coverage_se flagged_rate n verdict seed nuisances protocol claim model_error unit rmse"
)

SMALL = """
modality = "diffusion"
phantom = "marrow_block"
tissue = "marrow"
protocol = "ivim_marrow"
seed = 7
subjects = 3
nuisances = ["T1_water", "T2_water", "T2_blood", "suppression"]
estimators = ["ivim"]

[[grid]]
rung = "matched"
snr = [50, 100]
n = 300
n_quick = 300
quick = true
values = { f = [0.1, 0.3], D = 0.5e-3, D_star = 40e-3, pdff = 0.0 }

[[grid]]
rung = "pools"
snr = 100
n = 300
n_quick = 300
quick = true
nuisances = ["known", "drawn"]
values = { f = 0.04, D = 0.5e-3, D_star = 30e-3, pdff = 0.5 }

[[confounder]]
name = "b offset"
kind = "switch"
key = "b_offset"
strengths = [0.0, 10.0]
values = { f = 0.1, D = 0.5e-3, D_star = 30e-3, pdff = 0.0 }
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
def quick():
    return validation.run("ivim", quick=True)


def comparable(table):
    """Rows without what may differ: nothing may."""
    return [tuple(repr(row[name]) for name in COLUMNS) for row in table]


def wrapped(change):
    """A callable as a stranger would write it: ours, with something done to its result."""

    def mine(scan):
        found = estimators.ivim(scan).load()
        change(found, scan)
        return found

    return mine


def test_columns_are_the_contract(trial, tmp_path):
    assert " ".join(COLUMNS) == HEADER
    trial.table.write_csv(tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == HEADER.split()
    assert len(rows) == len(trial.table) > 0
    for row, source in zip(rows, trial.table, strict=True):
        assert float(row["bias"]) == source["bias"] or np.isnan(source["bias"])  # to the last digit
        assert row["verdict"] in (*VERDICTS, "") and (row["claim"] == "") == (row["verdict"] == "")
        assert row["nuisances"] in ("known", "drawn")


def test_f_is_tried_against_both_measurands(trial):
    pools = [row for row in trial.table if row["rung"] == "pools" and row["quantity"] == "f"]
    truths = {row["measurand"]: row["truth"] for row in pools if row["nuisances"] == "known"}
    assert truths["f"] == pytest.approx(0.04)
    assert truths["f_app"] > 2 * truths["f"]  # at TE 60 ms blood outlives marrow water


def test_bias_is_mean_minus_limit_and_model_error_limit_minus_truth(trial):
    for row in trial.table:
        if row["nuisances"] == "known" and np.isfinite(row["mean"]):
            # sums of a few hundred numbers in double precision
            assert row["bias"] == pytest.approx(row["mean"] - row["limit"], abs=1e-12 + 1e-9 * abs(row["mean"]))
            assert row["model_error"] == pytest.approx(row["limit"] - row["truth"], abs=1e-12)


def test_every_claim_is_judged_once(quick):
    ids = [(j.estimator, j.claim) for j in quick.judgements]
    assert (
        len(ids)
        == len(set(ids))
        == len([c for c in claims.read(estimators.ivim.claims).claims if c.estimator == "ivim"])
    )
    for judgement in quick.judgements:
        rows = quick.table.where(claim=judgement.claim, estimator=judgement.estimator)
        assert len(rows) == judgement.rows == judgement.holds + judgement.fails + judgement.undecided
        assert judgement.sentence and judgement.source
    assert sum(quick.counts.values()) == len(ids)


def test_ivim_passes_its_quick_trial(quick):
    assert quick.passed, str(quick)
    assert "0 fail" in quick.summary()


def test_a_closure_round_our_estimator_passes():
    result = validation.run("ivim", estimator=lambda scan: estimators.ivim(scan), quick=True)
    assert result.passed, str(result)
    assert set(result.table.column("estimator")) == {"your estimator"}


def constant(found, scan):
    for name, value in {"f": 0.12, "D": 0.5e-3, "D_star": 40e-3}.items():
        found[name] = xr.full_like(found[name], value)


def biased(found, scan):
    found["D"] = found["D"] + found["D_sd"]


def sure(found, scan):
    for name in ("f", "D", "D_star"):
        found[f"{name}_sd"] = found[f"{name}_sd"] * 0.6


def noisy(found, scan):
    rng = np.random.default_rng(1)
    found["f"] = found["f"] + found["f_sd"] * rng.standard_normal(found["f"].shape)


def silent(found, scan):
    found["D"] = found["D"].where(np.arange(found.sizes["x"]) % 3 > 0)


def careless(found, scan):
    found["status"] = xr.zeros_like(found["status"])


@pytest.mark.parametrize(
    ("change", "kind", "quantity"),
    [
        (constant, "coverage", "D"),
        (biased, "noise_bias", "D"),
        (sure, "coverage", "D"),
        (noisy, "efficiency", "f"),
        (silent, "efficiency", "D"),
        (careless, "flagged_rate", "f"),
    ],
)
def test_a_broken_estimator_fails_the_claim_it_breaks(change, kind, quantity):
    result = validation.run("ivim", estimator=wrapped(change), quick=True)
    assert not result.passed
    sheet = {c.id: c for c in claims.read(estimators.ivim.claims).claims}
    failed = {(sheet[j.claim].kind, sheet[j.claim].quantity) for j in result.judgements if j.verdict == "fails"}
    assert (kind, quantity) in failed, str(result)


def _raises(scan):
    raise RuntimeError("no licence\nfound")


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (_raises, "raised RuntimeError: no licence found"),
        (lambda scan: scan, "returned DataArray; an xarray.Dataset is expected"),
        (lambda scan: xr.Dataset({"T2": scan.isel(b=0)}), "returned none of"),
        (lambda scan: xr.Dataset({"D": scan}), "D has shape"),
        (lambda scan: xr.Dataset({"D": scan.isel(b=0).astype(str)}), "numbers are expected"),
    ],
)
def test_an_estimator_that_breaks_down_is_told_of_and_does_not_pass(estimator, told):
    result = validation.run("ivim", estimator=estimator, quick=True)
    assert not result.passed
    assert told in result.reasons[0] and "\n" not in result.reasons[0]
    assert told in result.summary()
    assert all(row["n"] == 0 for row in result.table)


def test_results_depend_on_the_seed_alone(small, trial):
    assert comparable(validation.run(small, workers=1).table) == comparable(trial.table)
    assert comparable(validation.run(small, seed=8).table) != comparable(trial.table)


def test_results_do_not_depend_on_what_else_is_tried(small, trial, tmp_path):
    path = tmp_path / "fewer.toml"
    path.write_text(SMALL.replace("snr = [50, 100]", "snr = 100").replace("f = [0.1, 0.3]", "f = [0.3]"))
    numbers = [name for name in COLUMNS if name not in ("verdict",)]  # the correction does depend on the table
    alone = {tuple(repr(row[name]) for name in numbers) for row in validation.run(path).table}
    assert alone <= {tuple(repr(row[name]) for name in numbers) for row in trial.table}


def test_a_resumed_run_gives_the_same_table(small, trial, tmp_path):
    validation.run(small, out=tmp_path)
    cells = sorted((tmp_path / ".cells").glob("*.json"))
    assert len(cells) == 6  # 2 tissues x 2 SNRs matched, 1 pools known and drawn
    for cell in cells[::2]:
        cell.unlink()
    cells[1].write_text("{")  # a file that a crash cut off
    assert comparable(validation.run(small, out=tmp_path, resume=True).table) == comparable(trial.table)
    assert len(list((tmp_path / ".cells").glob("*.json"))) == 6


def test_a_resumed_run_takes_what_is_there(small, tmp_path, monkeypatch):
    validation.run(small, out=tmp_path)
    monkeypatch.setattr(validation.experiment, "cell", lambda *_: pytest.fail("computed again"))
    validation.run(small, out=tmp_path, resume=True)


def test_confounders_start_where_nothing_is_wrong(trial):
    points = trial.confounders
    at = (points.confounder == "b offset") & (points.quantity == "D") & (points.measurand == "D")
    errors = dict(zip(points.strength.values[at], points.model_error.values[at], strict=True))
    # without the offset and without fat the plain fit of the pools is exact to the solver's tolerance
    assert abs(errors[0.0]) < 1e-6 * 0.5e-3
    # every b is shifted alike, which a free S0 takes up: D stays, f drops by exp(-10 D*) - the offset is not nothing
    f = at & True
    f = (points.quantity == "f") & (points.measurand == "f_app")
    errors = dict(zip(points.strength.values[f], points.model_error.values[f], strict=True))
    assert errors[10.0] < -0.01


def test_progress_ends_at_one(small):
    seen = []
    validation.run(small, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_declared_failure_that_no_longer_occurs_fails():
    record = {"model_error": 0.001, "nuisances": "known", "truth": 1.0, "reason": ""}
    claim = claims.Claim("known", "x", "model_error", "D", (-0.01, 0.01), expect="fails", reason="r", source="s")
    evidence = judge._of_kind(None, claim, record)
    assert validation.metrics.verdicts([evidence], ["fails"]) == ["fails"]
    evidence = judge._of_kind(None, claim, record | {"model_error": 0.1})
    assert validation.metrics.verdicts([evidence], ["fails"]) == ["holds"]


def test_efficiency_above_one_never_passes():
    record = {"crb": 1.0, "efficiency": 1.4, "efficiency_se": 0.01}
    evidence = judge._efficiency(record, (0.93, float("inf")))
    assert validation.metrics.verdicts([evidence], ["holds"]) == ["undecided"]


def test_rician_mean_is_the_mean_of_rician_noise(small):
    one = study.load(small)
    tissue = {"f": 0.1, "D": 0.5e-3, "D_star": 0.03, "pdff": 0.0}
    scene = ladder.scene(one, tissue, "pools", ladder.protocol_of(one.protocol), model=estimators.ivim.model)
    noise_sd = float(scene.clean.max()) / 3
    many = validation.experiment.add_noise(ladder.replicate(scene.clean, 40000), noise_sd=noise_sd, seed=3)
    expected = validation.confounders.rician_mean(scene.clean, noise_sd).values.ravel()
    # five standard errors of the mean of 40000 magnitudes, whose SD is at most noise_sd
    assert np.abs(many.values.reshape(-1, many.shape[-1]).mean(axis=0) - expected).max() < 5 * noise_sd / 200


# What each study must cover, and which nuisances it must draw.
COVERED = {
    "diffusion": (("f", "D", "D_star", "pdff"), {"suppression"}),
    "fat": (("pdff",), {"temperature", "ndb", "B1"}),
}


@pytest.mark.parametrize("name", sorted(study.names()))
def test_studies_cover_the_marrow_ranges(name):
    """Claims may not be narrow: on the pools rung the cases reach both ends of every range of the tissue."""
    loaded = study.load(study.names()[name])
    ranges = tissues.ranges(loaded.tissue, loaded.field)
    cases = [case.tissue for case in loaded.cases(quick=False) if case.rung == "pools"]
    quantities, nuisances = COVERED[name]
    for quantity in quantities:
        tried = [case[quantity] for case in cases]
        assert min(tried) <= ranges[quantity].low * (1 + 1e-9), quantity
        assert max(tried) >= ranges[quantity].high * (1 - 1e-9), quantity
    shared = {"T1_water", "T2_water", "T1_blood", "T2_blood", "T1_fat", "T2_fat"}
    assert set(loaded.nuisances) >= shared | nuisances


def test_claims_speak_of_estimators_and_bounds_that_exist():
    for path in {estimator.claims for estimator in estimators.registry.values()}:
        sheet = claims.read(path)
        named = {claim.estimator for claim in sheet.claims}
        ours = {name for name, e in estimators.registry.items() if str(e.claims) == str(path)}
        assert named == ours
        for method, bounds in sheet.bounds.items():
            declared = {q.name: (q.low, q.high) for q in estimators.get(method).model.unknowns}
            assert {name: declared[name] for name in bounds} == dict(bounds), method


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('modality = "diffusion"', "modality = 3", "modality = 3; a str"),
        ("seed = 7", "seed = -1", "seed = -1; an integer from 0 up"),
        ('rung = "matched"', 'rung = "top"', "grid 1: rung = 'top'; one of matched"),
        ("snr = [50, 100]", "snr = 0", "grid 1: snr = 0; positive"),
        ("n = 300", "n = 1", "grid 1: n = 1; an integer from 2"),
        ("D = 0.5e-3", 'D = "fast"', "grid 1: values.D = 'fast'; a number"),
        ('["known", "drawn"]', '["guessed"]', "grid 2: nuisances = 'guessed'; one of known, drawn"),
        ('kind = "switch"', 'kind = "magic"', "confounder 'b offset': kind = 'magic'; one of"),
        ("[[grid]]", "[[grids]]", "unknown field 'grids'"),
        ("subjects = 3", "subject = 3", "unknown field 'subject'"),
        ('estimators = ["ivim"]', 'estimators = ["ivin"]', "no estimator 'ivin'; one of"),
        ('phantom = "marrow_block"', 'phantom = "moon"', "phantom = 'moon'; one of"),
        ('protocol = "ivim_marrow"', 'protocol = "t1"', "unknown protocol 't1'"),
    ],
)
def test_a_wrong_study_is_told_in_one_line(tmp_path, old, new, told):
    path = tmp_path / "wrong.toml"
    path.write_text(SMALL.replace(old, new))
    assert old in SMALL
    with pytest.raises(InputError) as caught:
        validation.run(path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"study": "ivin"}, "no study, modality or estimator 'ivin'"),
        ({"study": "none.toml"}, "cannot read this study"),
        ({"study": "diffusion", "estimator": len}, "needs the name of the estimator"),
        ({"study": "ivim", "estimator": 3}, "a callable scan -> Dataset"),
        ({"study": "ivim", "seed": -1}, "seed = -1"),
        ({"study": "ivim", "resume": True}, "resume without out"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments, told):
    with pytest.raises(InputError, match="^[^\n]*$") as caught:
        validation.run(**arguments)
    assert told in str(caught.value)
