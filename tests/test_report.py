"""The page of a trial: whole without network, complete, honest about what is missing, safe with foreign names."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bonemri.errors import InputError
from bonemri.validation.report import curves, figures, heat, style, wording
from bonemri.validation.report import page as report
from bonemri.validation.report.panels import regression
from bonemri.validation.trial import COLUMNS, Judgement, Table, Trial

NAMES = ("adc", "ivim", "ivim-bayes")
HOSTILE = "<img src=x onerror=alert(1)>"
UNITS = {"f": "1", "D": "mm2/s", "D_star": "mm2/s", "adc": "mm2/s", "S0": "1"}
SNR = (40.0, 100.0)
FIGURES = ("three-values", "truth", "model-error", "noise-bias", "spread", "coverage", "confounders", "prior-0")


def cell(name, rung, tissue, snr, quantity, measurand):
    """One cell whose numbers follow from its place, so that every test knows what the page must show."""
    f, D, D_star = tissue
    truth = {"f": f, "D": D, "D_star": D_star, "adc": 1.1 * D, "S0": 1.0}[quantity]
    truth *= 2.0 if measurand == "f_app" else 1.0
    crb = 0.05 * truth * 100 / snr * (0.12 / f)
    limit = truth * (2.0 if rung == "pools" and measurand == "f" else 1.0)
    bias = 0.1 * crb
    identifiable = f > 0.1
    skill = 0.95 if identifiable else np.nan
    return {
        "estimator": name, "rung": rung, "case": f"f {f:g}, D {D * 1e3:g}, D* {D_star * 1e3:g}", "snr": snr,
        "nuisances": "known", "protocol": "ivim_marrow", "quantity": quantity, "measurand": measurand,
        "unit": UNITS[quantity], "domain": "identifiable" if identifiable else "elsewhere", "sigma_given": 1,
        "truth": truth, "limit": limit, "mean": limit + bias, "bias": bias, "bias_se": crb / 45, "sd": 1.05 * crb,
        "limit_sd": 0.0, "rmse": abs(limit - truth) + crb, "crb": crb, "efficiency": skill,
        "efficiency_se": 0.03, "coverage": 0.949, "coverage_se": 0.005,
        "flagged_rate": 0.02, "model_error": limit - truth, "n": 2000, "seed": 0,
        "case_f": f, "case_D": D, "case_D_star": D_star, "case_pdff": np.nan,
    }  # fmt: skip


def rows_of(names):
    tissues = list(itertools.product((0.05, 0.12, 0.2), (0.4e-3, 0.6e-3, 0.8e-3), (0.03,)))
    for name, rung, tissue, snr in itertools.product(names, ("matched", "pools"), tissues, SNR):
        for quantity in ("S0", "adc") if name == "adc" else ("S0", "f", "D", "D_star"):
            for measurand in ("f", "f_app") if quantity == "f" and rung == "pools" else (quantity,):
                yield cell(name, rung, tissue, snr, quantity, measurand)


def dataset(rows, dimension):
    rows = list(rows)
    return xr.Dataset({key: (dimension, np.array([row[key] for row in rows])) for key in (rows[0] if rows else ())})


def confounder_points(names):
    for name, kind, k in itertools.product(names, ("TE", "fat"), range(3)):
        for quantity in ("adc",) if name == "adc" else ("f", "D", "D_star"):
            yield {
                "estimator": name, "confounder": kind, "quantity": quantity, "measurand": quantity,
                "unit": UNITS[quantity], "strength_unit": "s", "confounder_title": f"what {kind} does",
                "strength": 0.1 * k, "truth": 1e-3, "limit": 1e-3 * (1 + k), "model_error": 1e-3 * k,
            }  # fmt: skip


def prior_entries():
    for quantity, snr in itertools.product(("f", "D", "D_star"), SNR):
        yield {"estimator": "ivim-bayes", "quantity": quantity, "prior": "declared", "snr": snr, "rmse": 1.0 / snr,
               "rmse_oracle": 1.0 / snr, "rmse_prior_mean": 0.02, "rmse_least_squares": 2.0 / snr}  # fmt: skip


def judgements(rows):
    kinds = (("holds", "holds"), ("fails", "holds"), ("undecided", "holds"), ("holds", "fails"))
    for name, (verdict, expect) in itertools.product(NAMES, kinds):
        worst = {key: rows[0][key] for key in rows[0] if key in COLUMNS}
        reason = ("blood outlives water", "Orton 2016, doi:10.1002/mrm.25817") if expect == "fails" else ("", "")
        yield Judgement(
            claim=f"{name}-{verdict}-{expect}", estimator=name, expect=expect, verdict=verdict, worst=worst,
            sentence=f"noise bias of D within +-0.2 ({verdict}, {expect})", rows=9, holds=7, value=0.13, se=0.02,
            fails=int(verdict == "fails"), window=(-0.2, 0.2), reason=reason[0], source=reason[1],
        )  # fmt: skip


def made_up(names=NAMES, **changes):
    rows = list(rows_of(names))
    table = Table([{column: row.get(column, "") for column in COLUMNS} for row in rows])
    fields = {
        "name": "diffusion", "title": "Marrow", "table": table, "judgements": list(judgements(rows)),
        "samples": dataset(rows, "cell"), "confounders": dataset(confounder_points(names), "point"),
        "prior": dataset(prior_entries(), "entry"), "findings": ["efficiency 1.2: bounds at work"],
        "provenance": {"bonemri": "0.1", "packages": {"numpy": "2"}, "protocol": '{"b": [0, 10]}'},
        "quick": True, "seed": 7, "seconds": 12.0,
    }  # fmt: skip
    return Trial(**(fields | changes))


@pytest.fixture(scope="module")
def page():
    return report.render(made_up())


class Reader(HTMLParser):
    """Collects what a browser would load, what it would run, and whether tags close."""

    VOID = frozenset({"meta", "input", "br", "img", "link", "path", "use", "rect", "circle", "line", "polygon"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.loads, self.links, self.tags, self.text, self.open = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "srcset", "data", "poster") or (key in ("href", "xlink:href") and tag != "a"):
                self.loads.append(value)
            elif key == "href":
                self.links.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def visible(text):
    return " ".join("".join(Reader(text).text).split())


def test_the_page_needs_no_network_and_runs_no_script(page):
    reader = Reader(page)
    assert not reader.open  # every tag is closed
    assert all(target.startswith("#") for target in reader.loads), reader.loads
    assert all(link.startswith(("#", "https://doi.org/10.")) for link in reader.links), reader.links
    assert not [tag for tag, attrs in reader.tags if tag in ("script", "link", "iframe", "object")]
    assert not [attrs for _, attrs in reader.tags if any(key.startswith("on") for key in attrs)]
    style_text = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    assert "@import" not in style_text and not re.search(r"url\(\s*['\"]?(?!#)", style_text)


def test_links_within_the_page_arrive(page):
    reader = Reader(page)
    identifiers = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers)), "an identifier occurs twice"
    targets = {link[1:] for link in (*reader.links, *reader.loads) if link.startswith("#")}
    assert targets <= set(identifiers)


def test_every_figure_is_there_and_says_what_it_shows(page):
    for key in FIGURES:
        assert f'id="{key}-figure_1"' in page, key
    drawings = [attrs for tag, attrs in Reader(page).tags if tag == "svg"]
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in drawings)
    assert len(drawings) >= len(FIGURES)


def test_figures_follow_the_page_into_the_dark(page):
    svg = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    # No colour of a figure is fixed: each is a property that the page sets twice, for light and for dark.
    fixed = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert not fixed
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page))
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([a-z0-9-]+):", theme))


def test_every_kind_of_verdict_is_shown(page):
    for kind in ("holds", "fails", "undecided", "limit"):
        assert page.count(f'<tr class="{kind}">') == len(NAMES)
    text = visible(page)
    assert "Of 12 claims 6 hold, 3 fail, 3 are undecided" in text
    assert "known limit" in text and "blood outlives water" in text
    assert 'href="https://doi.org/10.1002/mrm.25817"' in page


def test_the_three_values_stand_side_by_side_and_are_not_added(page):
    # Case f 0.12 on pools: truth 12 %, limit 24 %; the noise bias is a tenth of the bound SD (.05 x 12 %): .06 points.
    text = visible(page)
    assert "True: 12.0 %. Without noise ivim answers 24.0 %: a model error of +12.0 points" in text
    assert "noise moves the mean by +0.1 points" in text
    assert (
        "the apparent f at this TE and TR, 24.0 %, which relaxation has weighted, its model error is 0.0 points" in text
    )
    assert "+12.1" not in text  # the sum of the two errors appears nowhere


def test_printed_units(page):
    text = visible(page)
    assert "10⁻³ mm²/s" in text and "mm2/s" not in text
    assert "f 12 %, D 0.6 and D* 30 × 10⁻³ mm²/s" in text  # the headline's tissue
    assert "True: 0.600 × 10⁻³ mm²/s" in text
    assert "e-0" not in text  # no number in program notation


def test_missing_values_print_as_a_dash():
    trial = made_up()
    for column in ("crb", "efficiency", "coverage", "limit", "model_error", "bias", "sd", "rmse"):
        trial.samples[column] = trial.samples[column] * np.nan
    trial.judgements[:] = [Judgement("c", "ivim", "a claim without a number", "holds", "undecided")]
    text = visible(report.render(trial))
    assert "—" in text
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)


def test_names_from_outside_are_escaped():
    trial = made_up(
        names=("ivim", HOSTILE), reasons=[f"{HOSTILE}: raised <script>alert(2)</script>"], title=f"T {HOSTILE}",
        findings=[HOSTILE], provenance={HOSTILE: HOSTILE},
    )  # fmt: skip
    source = f"doi:10.1/{HOSTILE}"
    trial.judgements.append(Judgement(HOSTILE, HOSTILE, HOSTILE, "fails", "holds", reason=HOSTILE, source=source))
    text = report.render(trial)
    reader = Reader(text)
    assert not [tag for tag, _ in reader.tags if tag in ("img", "script")]
    assert HOSTILE in "".join(reader.text)  # still to be read, as text


def test_one_estimator_alone_and_an_unfinished_trial():
    alone = made_up(names=("ivim",), confounders=xr.Dataset(), prior=xr.Dataset())
    text = report.render(alone)
    assert 'id="truth-figure_1"' in text and 'id="confounders-figure_1"' not in text
    empty = {"samples": xr.Dataset(), "confounders": xr.Dataset(), "prior": xr.Dataset(), "judgements": []}
    nothing = made_up(**empty, reasons=["mine: raised ValueError"])
    text = visible(report.render(nothing))
    assert "Not passed." in text and "mine: raised ValueError" in text and "nothing to draw" in text


def test_the_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    trial = made_up(names=("ivim",), confounders=xr.Dataset(), prior=xr.Dataset())
    path = report.write_page(trial, tmp_path)
    assert path == tmp_path / "index.html"
    # A few hundred kB of drawings; 5 MB would mean that points are drawn that nobody can tell apart.
    assert 1e5 < path.stat().st_size < 5e6
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr(report, "content", lambda trial: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write_page(trial, tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.html"]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write") as told:
        report.write_page(made_up(names=("ivim",)), tmp_path / "file")
    assert "\n" not in str(told.value)


def test_the_same_trial_gives_the_same_page(page):
    assert report.render(made_up()) == page


def test_matplotlib_keeps_no_figure_and_no_setting(page):
    import sys

    import matplotlib

    assert matplotlib.rcParams["svg.fonttype"] == matplotlib.rcParamsDefault["svg.fonttype"]
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (1.25, 1, False, "1.2"), (-0.04, 1, True, "0.0"), (-1.0, 2, False, "−1.00"), (0.31, 1, True, "+0.3"),
        (float("nan"), 2, False, "—"), (float("inf"), 2, False, "—"), (None, 2, False, "—"),
    ],
)  # fmt: skip
def test_numbers_for_a_reader(value, digits, sign, text):
    assert style.number(value, digits, sign) == text


@pytest.mark.parametrize(
    ("window", "unit", "text"),
    [
        ((-0.2, 0.2), "1", "± 0.2"), ((0.93, np.inf), "fraction", "≥ 93"), ((-np.inf, 6e-6), "mm2/s", "≤ 0.006"),
        ((0.94, 0.96), "1", "0.94 to 0.96"), ((-np.inf, np.inf), "1", "—"), ((-np.inf, 1e-10), "1", "≤ 10⁻¹⁰"),
    ],
)  # fmt: skip
def test_windows_for_a_reader(window, unit, text):
    assert wording.allowed(window, unit) == text


def test_the_band_of_the_regression_line():
    # y = 1 + 2 x + residuals e = (1, -2, 1)/10, orthogonal to 1 and x: slope exactly 2; s^2 = .06 on one degree of
    # freedom; at the middle of three points the half width is t(.975, 1) s / sqrt(3) = 12.7062 * .244949 / 1.732051.
    drawn = []
    axes = SimpleNamespace(
        plot=lambda x, y, **look: drawn.append((x, y)),
        fill_between=lambda x, low, high, **look: drawn.append((low, high)),
    )
    x = np.array([-1.0, 0.0, 1.0])
    assert regression(axes, x, 1 + 2 * x + np.array([0.1, -0.2, 0.1]), "k") == pytest.approx(2.0, abs=1e-14)
    (low, high), (along, line) = drawn
    middle = [np.interp(0.0, along, edge) for edge in (low, line, high)]
    assert middle[1] == pytest.approx(1.0, abs=1e-14)
    # The grid has no point at 0; between its two nearest the convex band is off by less than (step/2)^2, relatively.
    assert (middle[2] - middle[0]) / 2 == pytest.approx(12.7062 * np.sqrt(0.06 / 3), rel=(1 / 39) ** 2)


def test_an_equation_that_cannot_be_set_is_shown_as_text():
    assert "<svg" in report.formula(r"S = S_0 e^{- D^* b}", "x")
    assert "<code>" in report.formula(r"\begin{cases} 1 \end{cases}", "x")


def test_points_beyond_the_axis_are_marked_not_lost():
    figure = style.new_figure(2, 2)
    axes = figure.add_subplot()
    axes.set_ylim(0, 1)
    style.clipped(axes, np.array([1.0, 2.0, 3.0]), np.array([0.5, 7.0, -2.0]), style.INK)
    marked = {line.get_marker(): line.get_xdata().tolist() for line in axes.lines}
    assert marked == {"^": [2.0], "v": [3.0]}
    # The window leaves out the runaway alone: all others are within it.
    low, high = style.window(np.r_[np.linspace(0, 1, 99), 1e6])
    assert low <= 0 and 1 <= high < 10


def panel_names(figure):
    """The vertical names of the panels of a figure."""
    return [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]


def test_a_quantity_of_one_truth_makes_no_line():
    cells = style.columns(made_up().samples, "cell")
    cells = style.select(cells, estimator="ivim")
    one = np.where(cells["quantity"] == "D_star", 0.03, cells["truth"])
    figure = figures.truth_against_estimate({**cells, "truth": one}, ["f", "D", "D_star"], ["ivim"])
    names = panel_names(figure)
    assert len(names) == 2 and not any("D*" in name for name in names)
    # where nothing else is there, it is drawn rather than nothing
    alone = figures.truth_against_estimate({**cells, "truth": one}, ["D_star"], ["ivim"])
    assert len(panel_names(alone)) == 1


def test_the_bound_drawn_is_that_of_most_estimators():
    assert curves._commonest([2.0, 1.0, 1.001]) == 1.0
    assert curves._commonest([2.0, 1.0]) == 2.0  # of equals the first
    assert curves._commonest([np.nan, 3.0]) == 3.0


def test_ticks_of_many_confounders_do_not_touch():
    points = []
    for number in range(9):
        points += [p | {"confounder": f"c{number}", "strength": p["strength"] * 0.87 - 0.09 * (number % 2)}
                   for p in confounder_points(["ivim"]) if p["confounder"] == "TE"]  # fmt: skip
    cells = style.columns(dataset(points, "point"), "point")
    figure = curves.confounders(cells, ["f", "D"], ["ivim"])
    FigureCanvasAgg(figure).draw()
    boxes = [t.get_window_extent() for ax in figure.axes for t in ax.get_xticklabels()
             if t.get_visible() and t.get_text() and ax.get_xlim()[0] <= t.get_position()[0] <= ax.get_xlim()[1]
             and ax.xaxis.get_tick_params().get("labelbottom", True)]  # fmt: skip
    assert len(boxes) > 9
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_errors_that_round_to_nothing_are_drawn_as_nothing():
    points = [p | {"model_error": 1e-9 * p["model_error"]} for p in confounder_points(["ivim"])]
    figure = curves.confounders(style.columns(dataset(points, "point"), "point"), ["D"], ["ivim"])
    low, high = figure.axes[0].get_ylim()
    # D is printed in 1e-3 mm2/s to three decimals: half of the last is .0005
    assert low <= -0.0005 and high >= 0.0005


def test_a_point_without_truth_says_so():
    points = [p | {"model_error": np.nan} if p["strength"] > 0 else p for p in confounder_points(["ivim"])]
    figure = curves.confounders(style.columns(dataset(points, "point"), "point"), ["D"], ["ivim"])
    assert any("no one truth" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_monte_carlo_error_is_pale_on_the_map_of_noise_bias():
    rows = [cell("ivim", "matched", (f, D, 0.03), 100.0, "D", "D") | {"case_pdff": f, "case_r2star": D * 1e5}
            for f in (0.1, 0.2, 0.3) for D in (0.4e-3, 0.6e-3, 0.8e-3)]  # fmt: skip
    small = [row | {"bias": 0.01 * row["crb"]} for row in rows]
    large = [row | {"bias": 0.3 * row["crb"]} for row in rows]
    for some, most in ((small, 0.07 + 1e-9), (large, 0.7 + 1e-9)):
        figure, _ = heat.over_two(style.columns(dataset(some, "cell"), "cell"), ["ivim"], ["D"], "matched", "r2star",
                                  "bias")  # fmt: skip
        strength = max(patch.get_alpha() for patch in figure.axes[0].patches)
        assert most / 2 < strength <= most


def test_an_offset_has_no_relative_bound():
    field = {"quantity": "fieldmap", "measurand": "fieldmap", "truth": 30.0, "crb": 2.0}
    rows = [cell("dixon", "matched", (f, 1e-3, 0.03), 100.0, "D", "D") | field for f in (0.12, 0.2)]
    figure = figures.coverage(style.columns(dataset(rows, "cell"), "cell"), ["fieldmap"], ["dixon"])
    names = [ax.get_xlabel() for ax in figure.axes] + [text.get_text() for text in figure.texts]
    assert any("bound SD of field (Hz)" in name for name in names)
    drawn = [line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert np.unique(np.concatenate(drawn)).tolist() == [2.0]


def test_no_truth_no_model_error_in_words():
    rows = [cell("ivim", "pools", (0.12, D, 0.03), 100.0, "D", "D") | {"truth": np.nan, "model_error": np.nan}
            for D in (0.4e-3, 0.6e-3)]  # fmt: skip
    at = wording.reference(style.columns(dataset(rows, "cell"), "cell"))
    text = str(wording._answer(at, "ivim", "D"))
    assert "No one value is true of this tissue" in text and "model error" not in text and "\u2014" not in text
