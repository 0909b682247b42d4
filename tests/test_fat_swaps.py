"""Swaps on trial: what counts as one, who is caught, and that the result depends on the seed alone."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bonemri import estimators, validation
from bonemri.errors import InputError
from bonemri.estimators.status import Status
from bonemri.validation import claims, experiment, ladder, study
from bonemri.validation.defendant import outsider, registered
from bonemri.validation.scenes import images, swaps
from bonemri.validation.store import Store

PROTOCOL = ladder.protocol_of("dixon_marrow")

SMALL = """
modality = "fat"
phantom = "marrow_block"
tissue = "marrow"
protocol = "dixon_marrow"
seed = 3
estimators = ["dixon"]
[base]
fieldmap = 20.0
phase = 0.3
phase_fat = 0.0
[[grid]]
rung = "matched"
snr = 100
n = 16
values = { pdff = 0.4, r2star = 50 }
[[image]]
name = "islands with steps of 200 Hz"
kind = "steps"
spacing = [1.1e-3, 1.2e-3]
r2star = 150
snr = 20
[[image]]
name = "smooth field to +-600 Hz"
kind = "smooth"
spacing = 1.2e-3
r2star = 20
snr = 20
count_quick = 0
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def dixon():
    return registered(estimators.get("dixon"), {})


@pytest.fixture(scope="module")
def trial(small):
    return validation.run(small)


def plan_of(path, quick=False, seed=3):
    loaded = study.load(path)
    return experiment.Plan(loaded, PROTOCOL, seed, quick)


@pytest.fixture(scope="module")
def scene():
    """One image of islands at the echoes of the study, with a step through each."""
    one = images.Images("x", "steps", (1.1e-3,), (50.0,), 20.0)
    protocol = one.protocol(PROTOCOL, 1.1e-3)
    return one.scene(protocol, 50.0, np.random.default_rng(4))


# --- what counts


def answer(scene, pdff=None, field=None, status=0):
    dims = ("z", "y", "x")
    found = {"pdff": (dims, scene.pdff if pdff is None else pdff)}
    found["fieldmap"] = (dims, scene.field if field is None else field)
    found["status"] = (dims, np.broadcast_to(np.asarray(status, np.uint16), scene.mask.shape).copy())
    return xr.Dataset(found)


def counted(found, scene):
    """Confident swaps, and flagged voxels."""
    swapped, flagged, _ = swaps.judged(found, scene)
    return int((swapped & ~flagged & scene.mask).sum()), int((flagged & scene.mask).sum())


def test_the_truth_is_no_swap_whatever_period_the_field_is_in(scene):
    n = int(scene.mask.sum())
    assert n > 500
    assert counted(answer(scene), scene) == (0, 0)
    assert counted(answer(scene, field=scene.field + 3 * scene.period), scene) == (0, 0)
    # noise of a field map and of a fraction is no swap: the swap is 400 Hz away, and half of that is the border
    assert counted(answer(scene, field=scene.field + 0.45 * scene.swap), scene) == (0, 0)
    assert counted(answer(scene, pdff=np.clip(scene.pdff + 0.29, 0, 1)), scene) == (0, 0)


@pytest.mark.parametrize("way", [-1, 1])
def test_a_field_of_the_swap_and_a_fraction_that_is_far_off_are_swaps(scene, way):
    n = int(scene.mask.sum())
    assert counted(answer(scene, field=scene.field + way * 0.55 * scene.swap), scene) == (n, 0)
    far = np.where(scene.pdff < 0.5, scene.pdff + 0.31, scene.pdff - 0.31)
    assert counted(answer(scene, pdff=far), scene) == (n, 0)
    # noise may carry a voxel of a large standard error so far, by none of a small one
    for sd, count in ((0.1, 0), (0.05, n), (np.nan, n)):
        told = answer(scene, pdff=far).assign(pdff_sd=(("z", "y", "x"), np.full(scene.mask.shape, sd)))
        assert counted(told, scene) == (count, 0)
    # one of the two is enough, also where an estimator gives but one of them
    assert counted(answer(scene, pdff=far).drop_vars("fieldmap"), scene) == (n, 0)
    assert counted(answer(scene, field=scene.field + way * scene.swap).drop_vars("pdff"), scene) == (n, 0)


def test_a_flag_makes_a_swap_honest_and_no_answer_is_a_flag(scene):
    n = int(scene.mask.sum())
    swapped = scene.field + scene.swap
    for flag in (Status.AMBIGUOUS, Status.LOW_SIGNAL, Status.AT_BOUND):
        assert counted(answer(scene, field=swapped, status=flag), scene) == (0, n)
    assert counted(answer(scene, field=swapped).drop_vars("status"), scene) == (n, 0)
    assert counted(answer(scene, pdff=np.full(scene.mask.shape, np.nan)), scene) == (0, n)


def test_air_does_not_count(scene):
    """Whatever an estimator makes of noise."""
    found = answer(scene, pdff=np.where(scene.mask, scene.pdff, 1 - scene.pdff))
    assert counted(found, scene) == (0, 0)


def test_shares_of_an_image_are_no_binomial_counts():
    """Voxels are decided together: a share of the images tried lies inside its window or it does not."""
    claim = claims.Claim("sure", "x", "flagged_rate", "pdff", (0.0, 0.05), flag="ambiguous", image="i")
    record = {"image": "i", "measurand": "pdff", "n": 500, "flags": {"ambiguous": 0.04}, "has_status": True}
    evidence = validation.judge._of_kind(None, claim, record)
    assert (evidence.against, evidence.favour, evidence.se) == (1.0, 0.0, 0.0)
    less = {key: value for key, value in record.items() if key != "image"}
    assert validation.judge._of_kind(None, claim, less).favour > 0.05  # as counts of 500 fits it would be undecided
    beyond = record | {"flags": {"ambiguous": 0.06}}
    assert validation.judge._of_kind(None, claim, beyond).against == 0.0


# --- the trial


def test_dixon_does_not_swap_and_its_rows_say_so(trial, small):
    rows = [row for row in trial.table if row["claim"] == "dixon/no-swap-at-steps"]
    assert len(rows) == 2 and {row["verdict"] for row in rows} == {"holds"}
    for row in rows:
        assert (row["measurand"], row["truth"], row["mean"]) == ("swaps", 0.0, 0.0)
        assert 0 <= row["flagged_rate"] < 0.5
        assert row["protocol"].startswith("6 echoes") and row["rung"] == "matched" and row["snr"] == 20.0
    beside = [row for row in trial.table if row["case"] == rows[0]["case"] and row["measurand"] == "pdff"]
    # at SNR 20 and R2* 150 /s the bound of a voxel's PDFF is 3 to 6 points
    assert all(0.02 < row["rmse"] < 0.08 and abs(row["mean"] - row["truth"]) < 0.01 for row in beside) and beside
    plan = plan_of(small)
    one = plan.study.images[0]
    for row, spacing in zip(rows, one.spacing, strict=True):
        rng = np.random.default_rng(swaps.seed_of(plan, one, spacing, 150.0, 0))
        scene = one.scene(one.protocol(PROTOCOL, spacing), 150.0, rng)
        assert row["n"] == scene.mask.sum() and row["seed"] == swaps.seed_of(plan, one, spacing, 150.0, 0)
        assert swaps.seed_of(plan, one, spacing, 150.0, 1) != row["seed"]
    judgement = next(j for j in trial.judgements if j.claim == "dixon/no-swap-at-steps")
    assert "no flag: none; rung matched, islands with steps of 200 Hz" in judgement.sentence


def careless(scan):
    """Ours without its doubts, and with water and fat exchanged in the left half of the image."""
    found = estimators.get("dixon")(scan).load()
    left = np.arange(scan.sizes["x"]) < scan.sizes["x"] // 2
    found["pdff"] = found["pdff"].copy(data=np.where(left, 1 - found["pdff"].values, found["pdff"].values))
    return found.assign(status=xr.zeros_like(found["status"]))


def local(scan):
    """Each voxel by itself: the same fit on voxels that have no neighbours, as by a start from the voxel's own data."""
    flat = scan.stack(v=("z", "y", "x")).transpose("v", ...).reset_index("v", drop=True)
    apart = flat.expand_dims(z=[0], y=[0]).rename(v="x")
    spaced = np.zeros((1, 1, 2 * apart.sizes["x"], scan.sizes["echo"]), complex)
    spaced[:, :, ::2] = apart.values
    lonely = xr.DataArray(spaced, {"echo": scan["echo"], "field_strength": scan["field_strength"],
                                   "temperature": scan["temperature"]}, ("z", "y", "x", "echo"))  # fmt: skip
    found = estimators.get("dixon")(lonely, sigma=1 / 20)
    shape = scan.shape[:3]
    return xr.Dataset({name: (("z", "y", "x"), found[name].values[0, 0, ::2].reshape(shape)) for name in
                       ("pdff", "fieldmap", "r2star")})  # fmt: skip


def everything_in_doubt(scan):
    """Wrong everywhere, and never sure."""
    found = estimators.get("dixon")(scan).load()
    return found.assign(pdff=1 - found["pdff"], status=found["status"] | np.uint16(Status.AMBIGUOUS))


@pytest.mark.parametrize(("estimator", "least"), [(careless, 0.2), (local, 1e-3)])
def test_who_swaps_is_caught(small, dixon, estimator, least):
    """A callable is tried on the same images as ours, and gets the scan alone."""
    plan = plan_of(small, quick=True)
    found = swaps.run(plan, [outsider(estimator, dixon)], Store(None, False))
    shares = [record["mean"] for record in found if record["measurand"] == swaps.SWAPS]
    assert len(shares) == 2 and min(shares) > least
    for record in found:
        assert record["estimator"] == estimator.__name__ and record["image"] == "islands with steps of 200 Hz"


def test_a_swap_fails_the_claim_and_doubt_everywhere_does_not_pass(small, dixon):
    plan = plan_of(small, quick=True)
    who = outsider(careless, dixon)
    _, judgements, _ = validation.judge.judge([who], [], {}, (), swaps.run(plan, [who], Store(None, False)))
    verdict = {j.claim: j for j in judgements}["dixon/no-swap-at-steps"]
    assert verdict.verdict == "fails" and verdict.value > 0.2 and verdict.worst["measurand"] == "swaps"
    who = outsider(everything_in_doubt, dixon)
    _, judgements, _ = validation.judge.judge([who], [], {}, (), swaps.run(plan, [who], Store(None, False)))
    verdict = {j.claim: j.verdict for j in judgements}
    assert verdict["dixon/no-swap-at-steps"] == "holds" and verdict["dixon/sure-of-steps"] == "fails"


@pytest.mark.parametrize("sigma", ["pooled", "given"])
def test_the_noise_is_told_where_the_study_says_so(small, dixon, sigma):
    told = []

    def spy(scan, sigma=None, **options):
        told.append(sigma)
        return estimators.get("dixon")(scan, sigma=sigma, **options)

    plan = plan_of(small, quick=True)
    one = replace(plan.study.images[0], sigma=sigma)
    scene, found = swaps.estimated(plan, one, 1.2e-3, 150.0, 0, replace(dixon, call=spy))
    assert told == [scene.sigma if sigma == "given" else None] and found["pdff"].shape == scene.mask.shape


def test_an_estimator_that_breaks_down_on_an_image_is_told_of(small, dixon):
    def broken(scan):
        if scan.sizes["y"] > 1 and scan.sizes["x"] > 1:
            raise ValueError("one voxel at a time")
        return estimators.get("dixon")(scan)

    plan = plan_of(small, quick=True)
    who = outsider(broken, dixon)
    found = swaps.run(plan, [who], Store(None, False))
    assert {record["reason"] for record in found} == {"broken raised ValueError: one voxel at a time"}
    table, judgements, _ = validation.judge.judge([who], [], {}, (), found)
    assert {j.claim: j.verdict for j in judgements}["dixon/no-swap-at-steps"] == "fails"
    assert all(row["n"] == 0 for row in table)
    assert not swaps.pictures(plan, [who], found)


def comparable(records):
    return [{key: repr(value) for key, value in record.items()} for record in records]


def test_results_depend_on_the_seed_alone(small, dixon, tmp_path):
    plan = plan_of(small)
    first = comparable(swaps.run(plan, [dixon], Store(tmp_path, False), workers=1))
    kept = sorted((tmp_path / ".cells").glob("*.json"))
    assert len(kept) == 3  # two echo trains of islands, one smooth field
    kept[0].unlink()
    assert comparable(swaps.run(plan, [dixon], Store(tmp_path, True), workers=2)) == first
    assert comparable(swaps.run(plan_of(small, seed=4), [dixon], Store(None, False))) != first
    alone = replace(plan, study=replace(plan.study, images=plan.study.images[1:]))
    assert comparable(swaps.run(alone, [dixon], Store(None, False))) == first[4:]


def test_the_page_shows_the_images(trial, small, dixon, tmp_path):
    found = trial.exhibits["images"]
    assert found["image"].values.tolist() == ["islands with steps of 200 Hz", "smooth field to +-600 Hz"]
    outcome = found["outcome"].values
    assert set(np.unique(outcome[np.isfinite(outcome)])) <= {0.0, 1.0, 2.0}
    air = np.isnan(found["field"].values)
    np.testing.assert_array_equal(np.isnan(outcome), air)
    assert swaps.draw(found).axes
    text = swaps.tell(found)
    assert "0 of" in text and "swapped without a flag" in text
    who = outsider(careless, dixon)
    plan = plan_of(small, quick=True)
    shown = swaps.pictures(plan, [who], swaps.run(plan, [who], Store(None, False)))
    assert shown["swaps"].item() > 100 and np.nanmax(shown["outcome"].values) == 2.0
    page = trial.report(tmp_path).read_text()
    assert 'id="figure-images"' in page and "Is water taken for fat?" in page


def test_pictures_are_few_and_their_titles_stand_apart():
    """Of nine images one for each kind of field, that with most swaps, else most doubts; no text lies on another."""
    kinds = ["smooth", "islands", "steps"] * 3
    names = [f"{kind} field to +-600 Hz, echoes that are number {number}" for number, kind in enumerate(kinds)]
    swapped, doubt = np.zeros(9), np.zeros(9)
    swapped[4], doubt[8], doubt[7] = 3.0, 0.2, 0.9
    found = xr.Dataset(
        {name: (("image", "y", "x"), np.ones((9, 8, 8))) for name in ("field", "outcome")}
        | {name: ("image", value) for name, value in
           {"kind": kinds, "estimator": ["dixon-mixed"] * 9, "voxels": np.full(9, 64.0), "swaps": swapped,
            "ambiguous": doubt}.items()},
        coords={"image": names},
    )  # fmt: skip
    assert swaps.telling(found) == [names[0], names[4], names[8]]
    figure = swaps.draw(found)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    titles = [text for ax in figure.axes for text in (ax.title, ax._left_title) if text.get_text()]
    boxes = [text.get_window_extent() for text in [*titles, *figure.legends[0].get_texts()]]
    assert len(titles) == 3 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    pictures = [ax.get_window_extent() for ax in figure.axes[:6]]
    assert not any(box.overlaps(picture) for box in boxes for picture in pictures)
    assert min(picture.width for picture in pictures) > 2.5 * figure.dpi


def test_a_study_may_have_no_images(small, dixon, tmp_path):
    path = tmp_path / "none.toml"
    path.write_text(SMALL[: SMALL.index("[[image]]")])
    plan = plan_of(path)
    assert swaps.run(plan, [dixon], Store(None, False)) == []
    assert not swaps.pictures(plan, [dixon], [])


# --- files


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "steps"', 'kind = "stairs"', "kind = 'stairs'; one of smooth"),
        ("spacing = [1.1e-3, 1.2e-3]", "spacing = [1.1, 1.2]", "seconds below 0.1 are expected (given in ms?)"),
        ("spacing = [1.1e-3, 1.2e-3]", "spacing = []", "spacing = []; a positive number or a list"),
        ("r2star = 150", "r2star = -1", "r2star = -1; a positive number"),
        ("snr = 20\n[[image]]", "snr = 0\n[[image]]", "snr = 0; a positive number"),
        ("count_quick = 0", "count = 0", "count = 0; an integer from 1 up"),
        ("count_quick = 0", "counts = 1", "unknown field 'counts'; one of"),
        ("count_quick = 0", 'sigma = "told"', "sigma = 'told'; one of pooled, given"),
        ("count_quick = 0", 'estimators = "dixon"', "estimators = 'dixon'; a list of names"),
        ('name = "smooth field to +-600 Hz"\n', "", "name is missing"),
        ("smooth field to +-600 Hz", "islands with steps of 200 Hz", "occurs twice; names are unique"),
    ],
)
def test_a_wrong_image_is_told_in_one_line(tmp_path, old, new, told):
    path = tmp_path / "wrong.toml"
    path.write_text(SMALL.replace(old, new))
    assert old in SMALL
    with pytest.raises(InputError) as caught:
        study.load(path)
    assert told in str(caught.value) and "wrong.toml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('kind = "swaps"\n', "swaps are claimed of an image"),
        ('kind = "efficiency"\nimage = "x"\n', "kind = 'efficiency' with an image; one of swaps, flagged_rate"),
    ],
)
def test_a_wrong_claim_of_an_image_is_told_in_one_line(tmp_path, lines, told):
    path = tmp_path / "x.claims.toml"
    path.write_text(f'[[claim]]\nid = "a"\nestimator = "dixon"\nquantity = "pdff"\nlimit = 0.5\n{lines}')
    with pytest.raises(InputError, match="^[^\n]*$") as caught:
        claims.read(path)
    assert told in str(caught.value)


def test_claims_speak_of_images_that_are_tried():
    """In the full run and in the quick one."""
    loaded = study.load(study.names()["fat"])
    named = {claim.image for claim in claims.read(estimators.get("dixon").claims).claims if claim.image}
    assert named == {one.name for one in loaded.images}
    assert all(swaps.count(one, True) for one in loaded.images)


@pytest.mark.slow
def test_no_swap_in_further_runs_of_the_study(dixon, drawn):
    """Where the claims say none there is none; BONEMRI_SEED draws others."""
    path = study.names()["fat"]
    limits = {c.image: c.window[1] for c in dixon.sheet.claims if c.kind == "swaps" and c.estimator == "dixon"}
    for seed in np.random.SeedSequence(drawn).generate_state(4).tolist():
        for record in swaps.run(plan_of(path, seed=seed), [dixon], Store(None, False)):
            if record["measurand"] == swaps.SWAPS:
                assert record["mean"] <= limits[record["image"]], f"seed {seed}: {record['case']}"
