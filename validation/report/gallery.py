"""Which figures a page has, what to look for in each, and which cells are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from .. import budget
from . import curves, figures, heat, wording
from .style import Cells, columns, select, to_svg

if TYPE_CHECKING:
    from ..trial import Trial


def headline(at: wording.Reference | None, names: Sequence[str], quantities: Sequence[str], prefix: str = "") -> Markup:
    """Truth, limit and mean in the case of the headline."""
    if at is None:
        return Markup("")
    drawn = [name for name in names if np.any(at.cells["estimator"] == name)]
    figure = figures.three_values(at.cells, quantities, drawn)
    return Markup(to_svg(figure, f"{prefix}three-values", "Truth, limit and mean of each estimator in one case"))


def draw(
    trial: Trial, cells: Cells, names: Sequence[str], quantities: Sequence[str], study: str = "", prefix: str = ""
) -> list[dict[str, Any]]:
    """The figures of one study, in the order of the page; `prefix` tells those of several studies apart."""
    drawn = []
    if quantities and cells["case"].size:
        drawn += _comparison(wording.plain_cells(cells), names, quantities)
        drawn += _maps(cells, names, quantities)
    of_points = ((trial.confounders, "point", _confounders), (trial.budget, "line", _budgets),
                 (trial.prior, "entry", _priors))  # fmt: skip
    for dataset, dimension, of in of_points:
        own = columns(dataset, dimension) if dataset.sizes.get(dimension) else {}
        if own and study and "study" in own:
            own = select(own, study=study)
        if own and own["estimator"].size:
            drawn += of(own, names, quantities)
    return [_finished(entry, prefix) for entry in drawn]


def _finished(entry: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entry with its figure as SVG."""
    key = prefix + entry["id"]
    svg = Markup(to_svg(entry["figure"], key, f"{entry['title']}. {entry['lead']}"))
    return {**entry, "id": key, "svg": svg}


def _maps(cells: Cells, names: Sequence[str], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """Errors over two truths, where a study tries a table of them."""
    found = []
    for key, rung, y, column, title, lead in heat.MAPS:
        drawn = heat.over_two(cells, names, quantities, rung, y, column)
        if drawn is not None:
            figure, caption = drawn
            found.append(_entry(key, title, lead, figure, caption))
    return found


def _entry(key: str, title: str, lead: str, figure: Figure, caption: str) -> dict[str, Any]:
    return {"id": key, "title": title, "lead": lead, "figure": figure, "caption": caption}


def _comparison(cells: Cells, names: Sequence[str], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """The estimators against each other, at the noise level of the comparison."""
    snr = wording.nearest_snr(cells)
    at = select(cells, snr=snr)
    rung = "matched" if np.any(at["rung"] == "matched") else str(at["rung"][0])
    skill = select(at, rung=rung)
    drawn = [name for name in names if np.any(at["estimator"] == name)]
    common = f"SNR {snr:g}, nuisances known"
    entries = [
        _entry(
            "truth",
            "Truth against estimate",
            "On the dashed line an estimator is right on average. Where the rungs part, the fit is true to its own "
            "equation, and the equation is not true to the tissue.",
            figures.truth_against_estimate(at, quantities, drawn),
            f"{common}. A point is the mean over noise of one case, with the SD of a single voxel. The straight line "
            "goes through the identifiable cases, with the 95 % band of its mean.",
        ),
        _entry(
            "model-error",
            "Model error: what stays without noise",
            "Limit minus truth. Averaging does not help against it; only a better model or protocol does.",
            figures.model_error(at, quantities, drawn),
            f"{common}. On rung matched an error here is a fault of the fit itself, or the pull of its prior.",
        ),
        _entry(
            "noise-bias",
            "Noise bias: what noise does to the mean",
            "Mean minus limit, in SDs of the Cramér-Rao bound, with two standard errors. It is never added to the "
            "model error.",
            figures.noise_bias(skill, quantities, drawn),
            f"Rung {rung}, {common}.",
        ),
    ]
    case = _widest_case(select(cells, rung=rung, measurand=quantities[0]), snr)
    own = select(cells, rung=rung, case=case)
    if np.unique(own["snr"]).size > 1:
        entries.append(
            _entry(
                "spread",
                "Spread against the bound",
                "No unbiased estimator can lie below the bound. One that does has a bias, a prior, or fit limits at "
                "work.",
                curves.spread_against_bound(own, quantities, drawn),
                f"Rung {rung}, one case: {wording.tissue(own)}. Two standard errors are drawn.",
            )
        )
    entries.append(
        _entry(
            "coverage",
            "Coverage of the 95 % intervals",
            "How often the interval contains its target, against how well the protocol determines the quantity: "
            "further right, less information.",
            figures.coverage(skill, quantities, drawn),
            f"Rung {rung}, {common}. Two standard errors are drawn.",
        )
    )
    return entries


def _confounders(points: Cells, names: Sequence[str], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """What every estimator suffers from; then, by estimator, what it suffers when it is told something wrong."""
    tried_by: dict[str, tuple[str, ...]] = {}
    for kind in dict.fromkeys(points["confounder"].tolist()):
        present = set(points["estimator"][points["confounder"] == kind].tolist())
        tried_by[kind] = tuple(name for name in names if name in present)
    found = []
    for number, drawn in enumerate(dict.fromkeys(sorted(tried_by.values(), key=len, reverse=True))):
        kinds = [kind for kind, tried in tried_by.items() if tried == drawn]
        here = np.isin(points["confounder"].astype(str), kinds)
        own = {column: values[here] for column, values in points.items()}
        affected = [quantity for quantity in quantities if np.any(own["measurand"] == quantity)]
        if affected and drawn:
            alone = f" of {drawn[0]}" if len(drawn) == 1 and len(names) > 1 else ""
            found.append(
                _entry(
                    f"confounders-{number}" if number else "confounders",
                    f"Confounders{alone}, one at a time",
                    "How far the noise-free answer is from the truth when one thing goes wrong and everything else is "
                    "ideal.",
                    curves.confounders(own, affected, drawn, names),
                    "Noise-free, one case.",
                )
            )
    return found


def _budgets(lines: Cells, names: Sequence[str], quantities: Sequence[str]) -> list[dict[str, Any]]:
    """What each confounder does alone, and what all do together."""
    shown = [q for q in quantities if np.any(lines["quantity"] == q)]
    told = [q for q in shown if np.isfinite(select(lines, quantity=q)["predicted"]).all()]
    entry = _entry(
        "budget",
        f"Bias budget of {lines['estimator'][0]}",
        "Each confounder alone at an ordinary strength, and all of them together.",
        budget.draw(lines, shown),
        " ".join(budget.tell(lines, quantity) for quantity in told),
    )
    return [entry]


def _priors(entries: Cells, names: Sequence[str], quantities: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for number, name in enumerate(dict.fromkeys(entries["estimator"].tolist())):
        one = select(entries, estimator=name, prior="declared")
        over = [quantity for quantity in quantities if np.any(one["quantity"] == quantity)]
        if over:
            found.append(
                _entry(
                    f"prior-{number}",
                    f"How much of {name} is prior",
                    "Over its own prior no estimator beats a posterior mean. What the prior mean alone achieves, "
                    "without a measurement, is not a merit of the data.",
                    curves.prior_ratios(one, over),
                    "Truths drawn from the declared prior.",
                )
            )
    return found


def _widest_case(cells: Cells, snr: float) -> str:
    """The case that most estimators tried at most SNRs; among equals the first that is identifiable at `snr`."""
    best, chosen = (-1, False), str(cells["case"][0])
    for case in dict.fromkeys(cells["case"].tolist()):
        own = select(cells, case=case)
        tried = len(set(zip(own["estimator"].tolist(), own["snr"].tolist(), strict=True)))
        score = (tried, bool(np.any(own["domain"][own["snr"] == snr] == "identifiable")))
        if score > best:
            best, chosen = score, case
    return chosen
