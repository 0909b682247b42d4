"""What a trial says in plain words and small tables: every sentence is made from its numbers, none is canned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from .panels import RUNGS
from .style import DASH, Cells, number, printed, select

SIGNS = {
    "+-": "±", ">=": "≥", "<=": "≤", " - ": " − ", "Cramer-Rao": "Cramér-Rao", "mm2/s": "mm²/s", "s/mm2": "s/mm²",
    "D_star_over_D": "D*/D", "D_star": "D*", "f_app": "apparent f", " x 1e": " × 1e",
}  # fmt: skip
POWER = re.compile(r"\b(\d(?:\.\d+)?)e([+-]?\d+)\b")
DOI = re.compile(  # of escaped text: old ones have <, > and ; in them, and some brackets
    r"doi:(10\.\d{4,9}/(?:(?:\(SICI\))?[\dX-]+\(\d+\)\d+:\d+&lt;[\w:-]+&gt;[\d.]+CO;2-\w"
    r"|[^\s;,&<>()]+(?:\([^\s;,&<>()]+\)[^\s;,&<>()]*)*(?<!\.)))"
)
TYPICAL = re.compile(r"\b(typical|default|marrow|reference)\b", re.IGNORECASE)
SNR = 100.0  # the noise level at which estimators are compared, or the nearest that was tried


@dataclass(frozen=True)
class Reference:
    """One case at one noise level on the rung with the most physics: what the headline is about."""

    rung: str
    case: str
    snr: float
    cells: dict[str, np.ndarray]
    everything: dict[str, np.ndarray]

    @property
    def tissue(self) -> str:
        """The tissue of the case, in words."""
        return tissue(self.cells)


def tissue(cells: Cells) -> str:
    """The tissue of the first cell: its case values with their printed units, a unit once for all that share it."""
    by_unit: dict[str, list[str]] = {}
    for column in (name for name in cells if name.startswith("case_")):
        value, show = cells[column][0], printed(column.removeprefix("case_"))
        if np.isfinite(value):
            by_unit.setdefault(show.unit, []).append(f"{show.label}\u00a0{value * show.scale:.3g}")
    shown = []
    for unit, values in by_unit.items():
        if unit == "%":
            shown += [f"{value}\u00a0%" for value in values]
        else:
            sign = "\u00a0×\u00a0" if unit.startswith("10") else "\u00a0"
            shown.append(" and ".join(values) + (sign + unit if unit else ""))
    return ", ".join(shown) or str(cells["case"][0])


def plain_cells(cells: Cells) -> dict[str, np.ndarray]:
    """The cells that are compared: no variant, nuisances known, noise SD given where tried, the commonest protocol."""
    chosen = dict(cells)
    for column, wanted in (("variant", ""), ("nuisances", "known"), ("sigma_given", 1)):
        if column in chosen and np.any(chosen[column] == wanted):
            chosen = select(chosen, **{column: wanted})
    if chosen["protocol"].size:
        names, counts = np.unique(chosen["protocol"].astype(str), return_counts=True)
        chosen = select(chosen, protocol=names[np.argmax(counts)])
    return chosen


def nearest_snr(cells: Cells, wanted: float = SNR) -> float:
    """The SNR nearest to the wanted one (on a logarithmic axis) among those that were tried; NaN without noise."""
    tried = np.unique(cells["snr"][np.isfinite(cells["snr"]) & (cells["snr"] > 0)])
    return float(tried[np.argmin(np.abs(np.log(tried / wanted)))]) if tried.size else float("nan")


def physical_rung(cells: Cells) -> str:
    """The rung with the most physics among those that the most estimators were tried on; empty without cells."""
    tried = {rung: len(set(cells["estimator"][cells["rung"] == rung].tolist())) for rung in RUNGS}
    most = max(tried.values())
    return [rung for rung in RUNGS if tried[rung] == most][-1] if most else ""


def reference(cells: Cells) -> Reference | None:
    """The case of the headline: called typical, or else the one nearest to the middle of all cases."""
    compared = plain_cells(cells)
    rung = physical_rung(compared)
    if not rung:
        return None
    on_rung = select(compared, rung=rung)
    snr = nearest_snr(on_rung)
    at = select(on_rung, snr=snr)
    if not at["case"].size:
        return None
    columns = [name for name in at if name.startswith("case_")]
    cases = list(dict.fromkeys(at["case"].tolist()))
    values = np.array([[at[column][at["case"] == case][0] for column in columns] for case in cases], dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        span = np.ptp(values, axis=0)
        away = (values - np.median(values, axis=0)) / np.where(span > 0, span, np.nan)
        distance = np.nansum(away**2, axis=1)
    case = next((name for name in cases if TYPICAL.search(name)), cases[int(np.argmin(distance))])
    return Reference(rung, case, snr, select(at, case=case), on_rung)


def code(name: str) -> Markup:
    """A method's name as code; names of third parties are escaped."""
    return Markup("<code>{}</code>").format(name)


def pretty(text: str) -> Markup:
    """Escaped text with typographic signs, DOIs as links."""
    for typed, sign in SIGNS.items():
        text = text.replace(typed, sign)
    text = POWER.sub(lambda found: _power(*found.groups()), text)
    return Markup(DOI.sub(r'<a href="https://doi.org/\1">doi:\1</a>', str(escape(text))))


def amount(value: float, quantity: str, sign: bool = False, difference: bool = False) -> str:
    """A value of a quantity with its printed unit."""
    show = printed(quantity)
    text = number(value * show.scale, show.digits, sign)
    unit = show.points if difference else show.unit
    if text == DASH or not unit:
        return text
    return f"{text}\u00a0×\u00a0{unit}" if unit.startswith("10") else f"{text}\u00a0{unit}"


def in_short(at: Reference, names: Sequence[str], quantities: Sequence[str]) -> Markup:
    """What it means for a reader: the first estimator with the leading quantity, and that of least model error."""
    errors = {}
    for name in names:
        own = select(at.cells, estimator=name, measurand=quantities[0])
        if own["mean"].size and np.isfinite(own["model_error"][0]):
            errors[name] = abs(own["model_error"][0])
    if not errors:
        return Markup("")
    first, best = next(iter(errors)), min(errors, key=errors.__getitem__)
    reads, scatter = _reads(at, first, quantities)
    text = Markup(
        "In tissue with {}, {} reads {}, before any noise. A single voxel at SNR {:g} then scatters by {} of the "
        "true value."
    ).format(at.tissue, code(first), reads, at.snr, scatter)
    if errors[best] < 0.5 * errors[first]:
        reads, scatter = _reads(at, best, quantities)
        also = Markup(" With the nuisances known, {} reads {}, and a single voxel scatters by {}.")
        text += also.format(code(best), reads, scatter)
    return text


def _reads(at: Reference, name: str, quantities: Sequence[str]) -> tuple[str, str]:
    """What an estimator answers without noise, and how a single voxel scatters, relative to the truth."""
    answer, scatter = [], []
    for quantity in quantities:
        own = select(at.cells, estimator=name, measurand=quantity)
        if not own["mean"].size or not np.isfinite(own["truth"][0] + own["limit"][0]):
            continue
        one, show = _row(own), printed(quantity)
        if show.unit == "Hz":  # a part of an offset means nothing
            continue
        if show.unit == "%":
            limit, truth = amount(one["limit"], quantity), amount(one["truth"], quantity)
            answer.append(f"{show.label} as {limit} where {truth} is true")
        else:
            answer.append(f"{show.label} {_relative(one['model_error'] / one['truth'])}")
        scatter.append(f"± {number(100 * one['sd'] / abs(one['truth']), 0)}\u00a0% ({show.label})")
    return _listed(answer), _listed(scatter)


def _relative(error: float) -> str:
    size = number(100 * abs(error), 1 if abs(error) < 0.1 else 0)
    return "correctly" if abs(error) < 5e-4 else f"{size}\u00a0% too {'high' if error > 0 else 'low'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def answers(at: Reference, names: Sequence[str], quantities: Sequence[str]) -> list[Markup]:
    """How wrong is it? One sentence a finding, for the first estimator that has the quantity."""
    found: list[Markup] = []
    for quantity in quantities:
        with_it = [name for name in names if select(at.cells, estimator=name, measurand=quantity)["mean"].size]
        if with_it:
            found.append(_answer(at, with_it[0], quantity))
            if len(with_it) > 1:
                found.append(_least_wrong(at, with_it, quantity))
    return [sentence for sentence in found if sentence]


def _answer(at: Reference, name: str, quantity: str) -> Markup:
    one = _row(select(at.cells, estimator=name, measurand=quantity))
    show = printed(quantity)
    error, bias = one["model_error"], one["mean"] - one["limit"]
    if np.isfinite(one["truth"]):
        text = Markup("<b>{}.</b> True: {}. Without noise {} answers {}: a model error of {}").format(
            show.label, amount(one["truth"], quantity), code(name), amount(one["limit"], quantity),
            amount(error, quantity, sign=True, difference=True),
        )  # fmt: skip
        text += Markup(", which no averaging removes.") if abs(error) > 1e-3 * abs(one["truth"]) else Markup(".")
    else:
        text = Markup("<b>{}.</b> No one value is true of this tissue. Without noise {} answers {}.").format(
            show.label, code(name), amount(one["limit"], quantity)
        )
    text += Markup(" At SNR {:g} noise moves the mean by {} and scatters a single voxel by ± {}.").format(
        at.snr, amount(bias, quantity, sign=True, difference=True), amount(one["sd"], quantity, difference=True)
    )
    other = select(at.cells, estimator=name, quantity=quantity)
    other = {key: column[other["measurand"] != quantity] for key, column in other.items()}
    if other["mean"].size:
        apparent = _row(other)
        text += Markup(
            " Against the apparent {} at this TE and TR, {}, which relaxation has weighted, its model error is {}."
        ).format(
            show.label, amount(apparent["truth"], quantity),
            amount(apparent["model_error"], quantity, sign=True, difference=True),
        )  # fmt: skip
    everywhere = select(at.everything, estimator=name, measurand=quantity)["model_error"]
    everywhere = everywhere[np.isfinite(everywhere)]
    if np.unique(everywhere).size > 1:
        text += Markup(" Over all cases of this rung the model error runs from {} to {}.").format(
            number(everywhere.min() * show.scale, show.digits, sign=True),
            amount(everywhere.max(), quantity, sign=True, difference=True),
        )
    return text


def _least_wrong(at: Reference, names: Sequence[str], quantity: str) -> Markup:
    """Which estimator has the smallest error of a single voxel in this case, and how large it is."""
    rows = {name: _row(select(at.cells, estimator=name, measurand=quantity)) for name in names}
    rmse = {name: row["rmse"] for name, row in rows.items() if np.isfinite(row["rmse"])}
    if len(rmse) < 2:
        return Markup("")
    best, worst = min(rmse, key=rmse.__getitem__), max(rmse, key=rmse.__getitem__)
    if rmse[worst] < 1.1 * rmse[best]:
        return Markup(
            "In this case all estimators are about equally far from the truth in a single voxel (RMSE {})."
        ).format(amount(rmse[best], quantity, difference=True))
    return Markup(
        "In this case a single voxel is nearest to the truth with {} (RMSE {}) and farthest with {} ({})."
    ).format(
        code(best), amount(rmse[best], quantity, difference=True),
        code(worst), amount(rmse[worst], quantity, difference=True),
    )  # fmt: skip


def identifiability(cells: Cells, rung: str, quantities: Sequence[str]) -> Markup:
    """In how many of the cases, at each SNR, does the protocol determine all unknowns?"""
    compared = select(plain_cells(cells), rung=rung)
    keep = np.isin(compared["quantity"].astype(str), list(quantities))
    compared = {name: column[keep] for name, column in compared.items()}
    parts = []
    for snr in np.unique(compared["snr"][np.isfinite(compared["snr"])]):
        at = select(compared, snr=snr)
        domain = dict(zip(at["case"].tolist(), at["domain"].tolist(), strict=True))
        good = sum(value == "identifiable" for value in domain.values())
        parts.append(f"{good} of {len(domain)} cases at SNR {snr:g}")
    if not parts:
        return Markup("")
    return Markup(
        "<b>What the protocol can answer.</b> It determines every unknown in a single voxel (bound SD within "
        "the limits stated with the claims) in {}. Elsewhere no estimator can answer without outside knowledge; "
        "a flag says so."
    ).format("; ".join(parts))


def tried_number(value: float, unit: str) -> str:
    """A number on trial, in the unit it is printed in, to three figures."""
    if value is None or np.isnan(value):
        return DASH
    if np.isinf(value):
        return "−∞" if value < 0 else "∞"
    scale, _ = _unit(unit)
    text = f"{value * scale:.3g}"
    if "e" in text:
        text = _power(*text.split("e"))
    return text.replace("-", "−")


def found(value: float, se: float, unit: str) -> str:
    """A number on trial with its standard error, both to the error's second figure."""
    if not (np.isfinite(value) and np.isfinite(se) and se > 0):
        return tried_number(value, unit)
    scale, _ = _unit(unit)
    digits = int(np.clip(1 - np.floor(np.log10(se * scale)), 0, 9))
    return f"{number(value * scale, digits)} ± {number(se * scale, digits)}"


def _power(mantissa: str, exponent: str) -> str:
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


def unit_of(unit: str) -> str:
    """How a unit is printed."""
    return _unit(unit)[1]


def _unit(unit: str) -> tuple[float, str]:
    known = {"mm2/s": (1e3, "10⁻³ mm²/s"), "fraction": (100.0, "%"), "points": (100.0, "% points"), "1": (1.0, "")}
    return known.get(unit, (1.0, unit))


def allowed(window: tuple[float, float], unit: str) -> str:
    """What a claim allows, in words."""
    low, high = window
    if np.isinf(low) and np.isinf(high):
        return DASH
    if np.isinf(high):
        return f"≥ {tried_number(low, unit)}"
    if np.isinf(low):
        return f"≤ {tried_number(high, unit)}"
    if low == high == 0:
        return "none"
    if low == -high and high > 0:
        return f"± {tried_number(high, unit)}"
    return f"{tried_number(low, unit)} to {tried_number(high, unit)}"


def _row(cells: Cells) -> dict[str, float]:
    """The numbers of the first cell."""
    return {name: column[0] for name, column in cells.items() if column.dtype.kind in "fiu"}
