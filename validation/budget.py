"""The bias budget of a scan: each confounder alone at an ordinary strength, all together, and what Monte Carlo finds.

The noise-free error of a fit predicts the bias of its mean over noise; the difference is noise bias, which is stated
with its standard error. What confounders do alone need not add up to what they do together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..simulator.acquisition.noise import image_sd
from ..simulator.scan import add_noise
from . import ladder
from .confounders import Setting
from .defendant import Defendant
from .experiment import Plan
from .report.panels import row_of_axes
from .report.style import INK, RULE, SERIES, Cells, label, legend, number, printed, select

TOGETHER, NONE = "all together", "none of them"
TEXTS, NUMBERS = ("study", "estimator", "entry", "quantity"), ("truth", "predicted", "found", "gap", "se", "n")


def run(plan: Plan, defendants: Sequence[Defendant]) -> xr.Dataset:
    """The budget of the first estimator of the study, over ``line``; empty where the study states none for it.

    It has one if all confounders of the budget are tried on it: two echoes cannot be fitted with six.

    ``predicted`` is limit - truth, ``found`` mean - truth over `n` noisy voxels, ``gap`` the difference of the two,
    with the standard error ``se`` of both. A rate that differs between water and fat has no truth, and no error.
    """
    settings = plan.study.budget
    rows: list[dict[str, Any]] = []
    known = {confounder.name: confounder for confounder in plan.study.confounders}
    if settings and defendants and defendants[0].registered and all(
        not known[name].estimators or defendants[0].accused in known[name].estimators for name in settings["strengths"]
    ):  # fmt: skip
        defendant = defendants[0]
        strengths = [(known[name], float(strength)) for name, strength in settings["strengths"].items()]
        n = int(settings["n_quick" if plan.quick else "n"])
        for entry in (NONE, *(c.name for c, _ in strengths), TOGETHER):
            setting = Setting({**plan.study.base, **settings["values"]}, {}, plan.protocol)
            for confounder, strength in strengths:
                if entry in (confounder.name, TOGETHER):
                    setting.put(plan.study, confounder, strength)
            rows += _tried(plan, defendant, entry, setting, float(settings["snr"]), n)
    data: dict[str, Any] = {name: ("line", np.array([str(row[name]) for row in rows], dtype=str)) for name in TEXTS}
    data |= {name: ("line", np.array([row[name] for row in rows], float)) for name in NUMBERS}
    return xr.Dataset(data)


def _tried(plan: Plan, defendant: Defendant, entry: str, setting: Setting, snr: float, n: int) -> list[dict[str, Any]]:
    """The noise-free and the mean noisy error of each quantity."""
    clean, truth, told = setting.scan(plan.study, defendant, ())
    noise_sd = float(clean.attrs["signal_reference"]) / snr
    sigma = image_sd(noise_sd, setting.protocol.averages)
    still = defendant.estimate(clean, sigma, told, intervals=False)
    seed = int(plan.child("budget", entry).generate_state(1, np.uint64)[0] >> 1)
    noisy = add_noise(ladder.replicate(clean, n), noise_sd=noise_sd, seed=seed)
    many = defendant.estimate(noisy, sigma, told, intervals=False)
    rows = []
    for quantity in defendant.quantities:
        true = float(truth.get((quantity, quantity), np.array([np.nan]))[0])
        limit = float(still[quantity].values.ravel()[0])
        values = many[quantity].values.ravel()
        rows.append({
            "study": plan.study.name, "estimator": defendant.name, "entry": entry, "quantity": quantity, "truth": true,
            "predicted": limit - true, "found": float(values.mean()) - true,
            "gap": float(values.mean()) - limit, "se": float(values.std(ddof=1) / np.sqrt(values.size)),
            "n": values.size,
        })  # fmt: skip
    return rows


def draw(lines: Cells, quantities: Sequence[str]) -> Figure:
    """A bar for each confounder, the prediction, with what Monte Carlo found (two standard errors)."""
    entries = list(dict.fromkeys(lines["entry"].tolist()))
    figure, axes = row_of_axes(len(quantities), 1.0 + 0.28 * len(entries), head=0.42, left=0.13, wspace=0.08)
    for ax, quantity in zip(axes, quantities, strict=True):
        show, own = printed(quantity), select(lines, quantity=quantity)
        where = [entries.index(entry) for entry in own["entry"].tolist()]
        colours = [SERIES[1] if entry == TOGETHER else SERIES[0] for entry in own["entry"].tolist()]
        ax.barh(where, own["predicted"] * show.scale, height=0.6, color=colours, alpha=0.45)
        found, se = own["found"] * show.scale, 2 * own["se"] * show.scale
        ax.errorbar(found, where, xerr=se, fmt="o", ms=3.6, color=INK, mec="none", lw=0.9)
        ax.axvline(0, color=INK, lw=0.8)
        ax.set_ylim(len(entries) - 0.5, -0.5)
        ax.set_yticks(range(len(entries)), entries if ax is axes[0] else [""] * len(entries))
        ax.grid(axis="x", color=RULE, lw=0.6)
        label(ax, f"bias of {show.label} ({show.points})")
    mean = Line2D([], [], marker="o", ms=4, color=INK, lw=0.9, label="mean over noise, two standard errors")
    legend(figure, [Patch(color=SERIES[0], alpha=0.45, label="predicted without noise"), mean])
    return figure


def tell(lines: Cells, quantity: str) -> str:
    """The largest entry, the sum of all and what they do together, and the largest disagreement in standard errors."""
    own = select(lines, quantity=quantity)
    show = printed(quantity)
    alone = ~np.isin(own["entry"].astype(str), [TOGETHER, NONE])
    base = own["predicted"][own["entry"] == NONE][0]
    worst = int(np.argmax(np.abs(own["predicted"] * alone)))
    sum_of = float(np.sum(own["predicted"][alone] - base) + base)
    together = float(own["predicted"][own["entry"] == TOGETHER][0])
    off = np.max(np.abs(own["gap"]) / own["se"])
    amounts = [f"{number(v * show.scale, show.digits, sign=True)} {show.points}" for v in
               (own["predicted"][worst], sum_of, together)]  # fmt: skip
    return (
        f"{show.label}: largest by {own['entry'][worst]} ({amounts[0]}); alone they would add up to {amounts[1]}, "
        f"together they make {amounts[2]}. Noise moves no mean by more than {number(float(off), 1)} standard errors."
    )
