"""The page of a trial: one self-contained `index.html` that a stranger can read, without network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context

from ...simulator.files import writing
from .. import exhibits
from . import gallery, tables, wording
from .panels import STAND_IN
from .style import INK, Cells, columns, new_figure, printed, select, to_svg

if TYPE_CHECKING:
    from ..trial import Judgement, Trial

TEMPLATES = Path(__file__).parent / "templates"
NOT_SHOWN = ("S0", "water", "fat")  # scanner units: no error of it means anything to a reader
LEADING = ("f", "D", "D_star", "pdff", "r2star", "fieldmap")  # shown first, in this order; others follow as they come


def write_page(trial: Trial, folder: str | os.PathLike[str]) -> Path:
    """Write `index.html` into a folder that exists.

    Parameters
    ----------
    trial : Trial
        What was tried, with its judgements and samples.
    folder : path
        Where `index.html` goes. The page is written beside and renamed, so that an old page stays whole.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        When the page cannot be written.
    """
    path = Path(folder) / "index.html"
    with writing(path) as beside:
        beside.write_text(render(trial), encoding="utf-8")
    return path


def render(trial: Trial) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = wording.pretty
    return environment.get_template("report.html").render(content(trial))


def content(trial: Trial) -> dict[str, Any]:
    """Everything the template prints."""
    cells = columns(trial.samples, "cell")
    names = _names(trial, cells)
    parts = [_part(trial, study, len(_studies(cells)) > 1) for study in _studies(cells)]
    return {
        "trial": trial,
        "names": names,
        "tried": tried(trial, cells, names),
        "verdicts": verdicts(trial),
        "limits": known_limits(trial),
        "question": parts[0]["question"] if len(parts) == 1 else "How wrong is it?",
        "parts": parts,
        "exhibits": exhibits.sections(trial),
        "claims": claims(trial, cells, names),
        "equations": equations(names),
        "snr_definitions": _snr_definitions(trial),
        "provenance": _readable(trial.provenance),
    }


def _studies(cells: Cells) -> list[str]:
    """The studies of a trial, in their order; one without a name where cells do not say."""
    return list(dict.fromkeys(cells["study"].tolist())) if cells and "study" in cells else [""]


def _part(trial: Trial, study: str, several: bool) -> dict[str, Any]:
    """What is shown of one study: its headline, its comparisons, its figures."""
    cells = _of_study(columns(trial.samples, "cell"), study)
    names = _names(trial, cells)
    names = [name for name in names if name in set(cells["estimator"].tolist())] if several else names
    quantities = _quantities(cells)
    headline = wording.reference(cells) if quantities else None
    answers = wording.answers(headline, names, quantities) if headline else []
    if headline:
        rungs = ("matched", headline.rung)
        found = (wording.identifiability(cells, rung, quantities) for rung in rungs)
        answers += [sentence for sentence in found if sentence][:1]
    prefix = f"{study}-" if several else ""
    return {
        "study": study,
        "title": trial.provenance.get("studies", {}).get(study, {}).get("title", study) if several else "",
        "question": _question(names, quantities),
        "headline": tables.three_values(headline, names, quantities) if headline else None,
        "headline_figure": gallery.headline(headline, names, quantities, prefix),
        "in_short": wording.in_short(headline, names, quantities) if headline else "",
        "answers": answers,
        "comparisons": [tables.comparison(cells, quantity, names) for quantity in quantities],
        "figures": gallery.draw(trial, cells, names, quantities, study, prefix),
    }


def _of_study(cells: Cells, study: str) -> dict[str, np.ndarray]:
    return select(cells, study=study) if study and "study" in cells else dict(cells)


def tried(trial: Trial, cells: Cells, names: Sequence[str]) -> list[str]:
    """What was tried, in one line each."""
    if not cells or not cells["case"].size:
        return [f"{len(names)} estimators; no cell could be evaluated."]
    rungs = [rung for rung in wording.RUNGS if rung in set(cells["rung"].tolist())]
    snr = np.unique(cells["snr"][np.isfinite(cells["snr"])])
    cases = {rung: len(set(cells["case"][cells["rung"] == rung].tolist())) for rung in rungs}
    where = " and ".join(f"{_count(cases[rung], 'case')} on rung {rung}" for rung in rungs)
    fits: dict[tuple, float] = {}
    place = ("estimator", "rung", "case", "snr", "nuisances", "sigma_given")
    for *key, n in zip(*(cells[name].tolist() for name in (*place, "n")), strict=True):
        fits[tuple(key)] = max(n, fits.get(tuple(key), 0))
    lines = [
        f"{_count(len(names), 'estimator')}: {', '.join(names)}.",
        f"{where}, at SNR {', '.join(f'{value:g}' for value in snr)}.",
        f"{_thousands(sum(fits.values()))} noisy fits, each compared with the truth it was made from.",
    ]
    if trial.quick:
        lines.append("A quick run: few replicates, so wide errors and more undecided claims than in a full one.")
    return lines


def verdicts(trial: Trial) -> dict[str, list[Judgement]]:
    """Judgements by what they tell a reader; a declared failure that occurs is a known limit."""
    return {
        "limits": [j for j in trial.judgements if j.verdict == "holds" and j.expect == "fails"],
        "holds": [j for j in trial.judgements if j.verdict == "holds" and j.expect != "fails"],
        "fails": [j for j in trial.judgements if j.verdict == "fails"],
        "undecided": [j for j in trial.judgements if j.verdict == "undecided"],
    }


def known_limits(trial: Trial) -> list[dict[str, Any]]:
    """Declared failures that occur, one entry a reason, with the estimators that share it."""
    found: dict[tuple[str, str], list[str]] = {}
    for j in verdicts(trial)["limits"]:
        sharing = found.setdefault((j.reason or j.sentence, j.source), [])
        if j.estimator not in sharing:
            sharing.append(j.estimator)
    return [{"reason": reason, "source": source, "estimators": who} for (reason, source), who in found.items()]


def claims(trial: Trial, cells: Cells, names: Sequence[str]) -> list[dict[str, Any]]:
    """The claims by estimator, those that fail first."""
    tissues = _tissues(cells)
    order = {"fails": 0, "undecided": 1, "holds": 2}
    groups = []
    for name in [*names, *sorted({j.estimator for j in trial.judgements} - set(names))]:
        own = sorted((j for j in trial.judgements if j.estimator == name), key=lambda j: order.get(j.verdict, 3))
        if own:
            counts = {verdict: sum(j.verdict == verdict for j in own) for verdict in order}
            groups.append({"estimator": name, "counts": counts, "rows": [_claim(j, tissues) for j in own]})
    return groups


def _claim(j: Judgement, tissues: Mapping[str, str]) -> dict[str, Any]:
    worst = j.worst or {}
    case = str(worst.get("case", ""))
    where = [tissues.get(case, case)]
    if np.isfinite(worst.get("snr", np.nan)):
        where.append(f"SNR {worst['snr']:g}")
    if worst.get("nuisances") == "drawn":
        where.append("nuisances drawn")
    kind = "limit" if j.expect == "fails" and j.verdict == "holds" else j.verdict
    return {
        "id": j.claim, "sentence": j.sentence, "verdict": j.verdict, "kind": kind, "declared": j.expect == "fails",
        "found": wording.found(j.value, j.se, j.unit), "unit": wording.unit_of(j.unit),
        "allowed": wording.allowed(j.window, j.unit), "where": ", ".join(part for part in where if part),
        "rows": j.rows, "holds": j.holds, "fails": j.fails, "undecided": j.undecided,
        "reason": j.reason, "source": j.source,
    }  # fmt: skip


def _tissues(cells: Cells) -> dict[str, str]:
    """Each case in words; a case tried without telling the noise SD says so."""
    found: dict[str, str] = {}
    for i, case in enumerate(cells["case"].tolist() if cells else []):
        if case not in found:
            words = wording.tissue({name: column[i : i + 1] for name, column in cells.items()})
            found[case] = words if cells["sigma_given"][i] else f"{words}, noise SD not given"
    return found


def equations(names: Sequence[str]) -> list[dict[str, Any]]:
    """The fitted equations, each once, with the estimators that fit it; callables from outside come last, without."""
    from ... import estimators

    found: dict[str, dict[str, Any]] = {}
    for name in names:
        known = estimators.registry.get(name)
        model = getattr(known, "model", None)
        key = model.name if model is not None else ""
        if key not in found:
            latex = getattr(model, "latex", "")
            svg = formula(latex, f"equation-{len(found)}")
            found[key] = {
                "title": getattr(model, "title", "") or key, "latex": latex, "svg": svg,
                "unknowns": list(getattr(model, "unknowns", ())), "assumptions": getattr(model, "assumptions", ""),
                "source": getattr(model, "source", ""), "estimators": [],
            }  # fmt: skip
        about = {"name": name, "title": getattr(known, "title", ""), "source": getattr(known, "source", "")}
        found[key]["estimators"].append(about)
    return [found[key] for key in sorted(found, key=lambda key: key == "")]


def formula(latex: str, name: str) -> Markup:
    """An equation set by matplotlib's mathtext, as SVG in the ink of the page; its source where it cannot be set."""
    if not latex:
        return Markup("")
    typeset = latex.replace("^*", "^{*}")  # alone, mathtext takes the star for an operator and spaces it
    figure = new_figure(1.0, 1.0)
    try:
        with rc_context({"mathtext.fontset": "stix"}):
            text = figure.text(0, 0, f"${typeset}$", fontsize=13, color=INK)
            box = text.get_window_extent()
            width, height = box.width / figure.dpi + 0.06, box.height / figure.dpi + 0.08
            figure.set_size_inches(width, height)
            text.set_position((0.03 / width, 0.04 / height - box.y0 / figure.dpi / height))
            svg = to_svg(figure, name, latex, outlines=True)
    except ValueError:  # a command that mathtext does not know
        return Markup("<code>{}</code>").format(latex)
    return Markup(svg.replace("<svg ", f'<svg style="width:{width * 1.25:.2f}in;height:{height * 1.25:.2f}in" ', 1))


def _names(trial: Trial, cells: Cells) -> list[str]:
    present = cells["estimator"].tolist() if cells else []
    return list(dict.fromkeys([*(j.estimator for j in trial.judgements), *present]))


def _quantities(cells: Cells) -> list[str]:
    """Quantities that are judged against themselves, the leading ones first; a stand-in has no row of its own."""
    if not cells:
        return []
    pairs = dict.fromkeys(zip(cells["quantity"].tolist(), cells["measurand"].tolist(), strict=True))
    present = [quantity for quantity, measurand in pairs if quantity == measurand and quantity not in NOT_SHOWN]
    present = [q for q in present if not any(s == q and base in present for base, s in STAND_IN.items())]
    return [q for q in LEADING if q in present] + [q for q in present if q not in LEADING]


def _question(names: Sequence[str], quantities: Sequence[str]) -> str:
    if not quantities or not names:
        return "How wrong is it?"
    show = printed(quantities[0])
    return f"How wrong is {show.words or show.label}?"


def _snr_definitions(trial: Trial) -> list[str]:
    """What SNR means in each study, each wording once."""
    from ...simulator import sequences
    from ...simulator.acquisition import noise
    from ...simulator.acquisition.protocol import Protocol

    protocols = [study.get("protocol") for study in trial.provenance.get("studies", {}).values()]
    points = [sequences.get(Protocol.from_json(text).sequence).reference_point for text in protocols if text]
    return list(dict.fromkeys(noise.snr_definition(point) for point in points)) or [noise.SNR_DEFINITION]


def _thousands(n: float) -> str:
    return f"{n:,.0f}".replace(",", "\u202f")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _readable(provenance: Any) -> list[tuple[str, str, bool]]:
    """Provenance as (name, text, long) triples; JSON texts are set out."""
    found = []
    for key, value in provenance.items():
        if isinstance(value, str) and value[:1] in "{[":
            try:
                value = json.loads(value)
            except ValueError:
                pass
        if isinstance(value, dict):
            value = {k: _parsed(v) for k, v in value.items()}
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
        found.append((str(key), text, "\n" in text or len(text) > 120))
    return found


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
