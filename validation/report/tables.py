"""The numbers of a page as small tables: the headline case, and the estimators side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .panels import RUNGS, cells_of
from .style import DASH, Cells, number, printed, select
from .wording import Reference, nearest_snr, physical_rung, plain_cells

VALUES = ("truth", "limit", "mean", "sd", "crb")


def three_values(at: Reference, names: Sequence[str], quantities: Sequence[str]) -> dict[str, Any]:
    """The headline case in numbers: truth, limit, mean and SD of each estimator, never added."""
    rows = []
    for name in names:
        for quantity in quantities:
            own = select(at.cells, estimator=name, quantity=quantity)
            for i in range(own["truth"].size):
                measurand, show = str(own["measurand"][i]), printed(quantity)
                value = {key: own[key][i] * show.scale for key in (*VALUES, "model_error", "bias", "bias_se")}
                rows.append({
                    "estimator": name, "measurand": printed(measurand).label, "unit": show.unit,
                    **{key: number(value[key], show.digits) for key in VALUES},
                    "model_error": number(value["model_error"], show.digits, sign=True),
                    "bias": number(value["bias"], show.digits, sign=True),
                    "bias_se": number(value["bias_se"], show.digits + 1),
                    "coverage": percent(own["coverage"][i]), "flagged": percent(own["flagged_rate"][i]),
                })  # fmt: skip
    return {"rows": rows, "case": at.tissue, "rung": at.rung, "snr": f"{at.snr:g}"}


def comparison(cells: Cells, quantity: str, names: Sequence[str]) -> dict[str, Any]:
    """One quantity side by side: skill on rung matched where identifiable, error on the rung with most physics."""
    show = printed(quantity)
    compared = plain_cells(cells)
    present = [rung for rung in RUNGS if rung in set(compared["rung"].tolist())]
    physical = physical_rung(compared)
    snr = nearest_snr(select(compared, rung="matched") if "matched" in present else compared)
    rows: list[dict[str, Any]] = []
    for name in names:
        own = cells_of(compared, quantity, name)
        if not own["truth"].size:
            continue
        skill = select(own, rung="matched", snr=snr, domain="identifiable")
        error = select(own, rung=physical, snr=nearest_snr(select(own, rung=physical)))
        drawn = select(cells_of(cells, quantity, name), rung=physical, nuisances="drawn")
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = np.abs(skill["bias"] / skill["crb"])
        rows.append({
            "estimator": name,
            "quantity": printed(str(own["quantity"][0])).label,
            "n": skill["truth"].size,
            "bias": number(_of(np.max, bias), 2),
            "efficiency": _range(skill["efficiency"], 100, 0),
            "coverage": _range(skill["coverage"], 100, 1),
            "model_error": _range(error["model_error"], show.scale, show.digits, sign=True),
            "spread": number(_of(np.median, drawn["limit_sd"]) * show.scale, show.digits),
            "rmse": number(_of(np.median, error["rmse"]) * show.scale, show.digits),
            "flagged": percent(_of(np.median, error["flagged_rate"])),
        })  # fmt: skip
    return {
        "label": show.label, "unit": show.unit, "points": show.points, "snr": f"{snr:g}", "physical": physical,
        "rows": rows,
    }  # fmt: skip


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent."""
    return number(value * 100, digits)


def _of(statistic: Any, values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(statistic(finite)) if finite.size else float("nan")


def _range(values: np.ndarray, scale: float, digits: int, sign: bool = False) -> str:
    """Median, and lowest to highest."""
    finite = values[np.isfinite(values)] * scale
    if not finite.size:
        return DASH
    middle, low, high = (number(f(finite), digits, sign) for f in (np.median, np.min, np.max))
    return middle if low == high else f"{middle} ({low} to {high})"
