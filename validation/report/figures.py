"""The figures of a report, one function each: plain columns in, a figure out.

`cells` is a mapping of column name to array, each cell once (the columns are those of `Trial.samples`). The caller
selects noise level, rung and nuisances; the functions draw what they are given, estimators in the order of `names`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from .panels import beyond, by_domain, cells_of, filled_and_open, grid, regression, row_of_axes, rungs_of
from .style import (
    BAND,
    DASH,
    INK,
    MUTED,
    RULE,
    Cells,
    clipped,
    label,
    legend,
    logarithmic,
    number,
    printed,
    select,
    series,
    window,
)


def three_values(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Truth, limit and mean of each estimator in one case: the picture behind "how wrong is it?".

    Parameters
    ----------
    cells : mapping of str to ndarray
        Cells of one case at one noise level. A quantity may have a second, apparent truth (measurand `f_app`).
    quantities, names : sequence of str
        Panels, and estimators from top to bottom.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = row_of_axes(len(quantities), 0.95 + 0.36 * len(names), head=0.42, left=0.135, wspace=0.1)
    looks = series(names)
    second_truth = False
    for column, (ax, quantity) in enumerate(zip(axes, quantities, strict=True)):
        show = printed(quantity)
        own = {name: cells_of(cells, quantity, name) for name in names}
        both = np.concatenate([one[key] for one in own.values() for key in ("truth", "limit", "mean")])
        spread = np.concatenate([one["mean"] + side * one["sd"] for one in own.values() for side in (-1, 1)])
        here = select(cells, quantity=quantity)
        truth = _first(here["truth"][here["measurand"] == quantity]) * show.scale
        apparent = _first(here["truth"][here["measurand"] != quantity]) * show.scale
        marked = [value for value in (truth, apparent) if np.isfinite(value)]
        low, high = window(np.concatenate([both, spread]) * show.scale, include=marked)
        ax.set_xlim(max(low, -0.03 * high), high)
        if np.isfinite(truth):
            ax.axvline(truth, color=INK, lw=1.2, zorder=1)
        if np.isfinite(apparent) and abs(apparent - truth) > 1e-6 * abs(truth):
            ax.axvline(apparent, color=INK, lw=1.0, ls=(0, (1.5, 2)), zorder=1)
            second_truth = True
        for row, name in enumerate(names):
            one, (colour, _) = own[name], looks[name]
            if not one["mean"].size or not np.isfinite(one["mean"][0]):
                ax.text(0.5, row, DASH, transform=ax.get_yaxis_transform(), ha="center", va="center", color=MUTED)
                continue
            true, limit, mean, sd = (one[key][0] * show.scale for key in ("truth", "limit", "mean", "sd"))
            ax.plot([mean - sd, mean + sd], [row, row], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
            ax.plot(mean, row, "o", ms=6, mfc=colour, mec="none")
            ax.plot(limit, row, "D", ms=5.5, mfc="none", mec=INK, mew=1.0, zorder=4)
            if one["quantity"][0] != quantity:
                ax.plot([true, true], [row - 0.3, row + 0.3], color=INK, lw=1.2)
                ax.text(
                    mean + sd,
                    row,
                    f"  {printed(str(one['quantity'][0])).label}",
                    va="center",
                    fontsize=7.5,
                    color=MUTED,
                )
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.yaxis.set_major_locator(FixedLocator(range(len(names))))
        ax.set_yticklabels(names if column == 0 else [], fontsize=9, color=INK)
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(axis="x", color=RULE, lw=0.6)
        ax.spines["left"].set_visible(False)
        label(ax, x=show.axis)
    handles = [
        Line2D([], [], color=INK, lw=1.2, label="truth"),
        Line2D([], [], marker="D", mfc="none", mec=INK, ls="", ms=5.5, label="limit: the answer without noise"),
        Line2D([], [], marker="o", mfc=MUTED, mec="none", ls="", ms=6, label="mean over noise"),
        Line2D([], [], color=MUTED, lw=5, alpha=0.4, label="± one SD of a single voxel"),
    ]
    if second_truth:
        handles.insert(1, Line2D([], [], color=INK, lw=1, ls=(0, (1.5, 2)), label="apparent truth at this TE and TR"))
    legend(figure, handles)
    return figure


def truth_against_estimate(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Mean of the estimates against truth: identity, and per rung a line with its 95 % band.

    Cases where the protocol identifies the unknowns are filled, have the SD of a voxel, and make the line.
    """
    several = [quantity for quantity in quantities if _truths_of(cells, quantity) > 1]  # one truth makes no line
    quantities = several or quantities
    panels = grid(cells, quantities, names, "truth: {label} ({unit})", "mean {label} ({unit})")
    rungs = rungs_of(cells)
    for quantity in quantities:
        scale = printed(quantity).scale
        present = panels.of(quantity)
        truth = _all(present, "truth", quantity) * scale
        y_limits = window(_all(present, "mean", quantity) * scale, keep=0.8, include=_span(truth))
        for _, ax, own in present:
            ax.set(xlim=_truths(present, own, quantity), ylim=y_limits)
            ax.axline((0, 0), slope=1, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=1)
            for place, (rung, (colour, marker)) in enumerate(rungs.items()):
                one = select(own, rung=rung)
                x, y, sd = (one[key] * scale for key in ("truth", "mean", "sd"))
                good = np.isfinite(x) & np.isfinite(y) & np.isfinite(sd)
                x, y, sd, sure = x[good], y[good], sd[good], (one["domain"] == "identifiable")[good]
                slope = regression(ax, x[sure], y[sure], colour)
                ax.vlines(x[sure], (y - sd)[sure], (y + sd)[sure], color=colour, lw=0.8, alpha=0.5)
                ax.plot(x[sure], y[sure], marker, ms=3.8, mfc=colour, mec="none")
                ax.plot(x[~sure], y[~sure], marker, ms=3.2, mfc="none", mec=colour, mew=0.7, alpha=0.6)
                clipped(ax, x, y, colour)
                if np.isfinite(slope):
                    ax.text(0.98, 0.04 + 0.11 * place, f"slope {number(slope, 2)}", transform=ax.transAxes, ha="right",
                            fontsize=7.5, color=colour)  # fmt: skip
    handles = [Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="identity")]
    handles += [
        Line2D([], [], color=c, marker=m, mec="none", ms=4, lw=1, label=f"rung {r}") for r, (c, m) in rungs.items()
    ]
    open_marker = Line2D([], [], marker="o", ms=4, mfc="none", mec=MUTED, ls="", label="not identifiable")
    legend(panels.figure, [*handles, open_marker, beyond()])
    return panels.figure


def noise_bias(cells: Cells, quantities: Sequence[str], names: Sequence[str], small: float = 0.2) -> Figure:
    """Noise bias (mean - limit) with +-2 standard errors, in units of the bound's SD, against truth.

    `small` draws the band of a negligible noise bias. Cells without a finite bound have no place here.
    """
    panels = grid(cells, quantities, names, "truth: {label} ({unit})", "noise bias of {label}\n/ bound SD")
    for quantity in quantities:
        scale = printed(quantity).scale
        present = panels.of(quantity)
        relative = _over_bound(_all(present, "bias", quantity), _all(present, "crb", quantity))
        # The claims are about identifiable cases: these set the scale, the others may leave through the edge.
        sure = relative[_all(present, "domain", quantity) == "identifiable"]
        scaled = sure if np.isfinite(sure).any() else relative
        y_limits = window(scaled, include=(-3 * small, 3 * small))
        for _, ax, own in present:
            ax.set(xlim=_truths(present, own, quantity), ylim=y_limits)
            ax.axhspan(-small, small, color=BAND, lw=0)
            ax.axhline(0, color=INK, lw=0.8)
            error = 2 * _over_bound(own["bias_se"], own["crb"])
            by_domain(ax, own, own["truth"] * scale, _over_bound(own["bias"], own["crb"]), error)
    band = Line2D([], [], color=BAND, lw=7, label=f"± {small:g} bound SD")
    legend(panels.figure, [band, *filled_and_open(), beyond()])
    return panels.figure


def model_error(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Model error (limit - truth) on each rung against truth: what stays when there is no noise at all."""
    panels = grid(cells, quantities, names, "truth: {label} ({unit})", "limit − truth\n{label} ({unit})")
    rungs = rungs_of(cells)
    for quantity in quantities:
        scale = printed(quantity).scale
        present = panels.of(quantity)
        y_limits = window(_all(present, "model_error", quantity) * scale, keep=0.8, include=(0.0,))
        for _, ax, own in present:
            ax.set(xlim=_truths(present, own, quantity), ylim=y_limits)
            ax.axhline(0, color=INK, lw=0.8)
            for rung, (colour, marker) in rungs.items():
                one = select(own, rung=rung)
                x, y = one["truth"] * scale, one["model_error"] * scale
                good = np.isfinite(x) & np.isfinite(y)
                ax.plot(x[good], y[good], marker, ms=3.8, mfc=colour, mec="none", alpha=0.85)
                clipped(ax, x[good], y[good], colour)
    handles = [
        Line2D([], [], color=c, marker=m, mec="none", ms=4, ls="", label=f"rung {r}") for r, (c, m) in rungs.items()
    ]
    legend(panels.figure, [*handles, beyond()])
    return panels.figure


def coverage(cells: Cells, quantities: Sequence[str], names: Sequence[str], nominal: float = 0.95) -> Figure:
    """Coverage of the 95 % intervals against how well the protocol determines the quantity.

    That is the bound SD over the truth; of an offset the bound SD itself, for a part of an offset means nothing.
    """
    panels = grid(cells, quantities, names, "bound SD of {label} ({share})", "coverage, {label} (%)")
    for quantity in quantities:
        present = panels.of(quantity)
        relative = _relative_bound(_all(present, "crb", quantity), _all(present, "truth", quantity), quantity)
        for _, ax, own in present:
            alone = own["quantity"][0] != quantity
            shown = _relative_bound(own["crb"], own["truth"], quantity) if alone else relative
            low, high = _span(np.clip(shown, None, 1000)) or (1.0, 100.0)
            logarithmic(ax, x=True)
            ax.set(xlim=(low / 1.3, high * 1.3), ylim=(79, 101.5))
            ax.axhspan(100 * nominal - 1, 100 * nominal + 1, color=BAND, lw=0)
            ax.axhline(100 * nominal, color=INK, lw=0.8)
            x = np.clip(_relative_bound(own["crb"], own["truth"], quantity), None, 1000)
            by_domain(ax, own, x, 100 * own["coverage"], 200 * own["coverage_se"])
            ax.yaxis.set_major_locator(FixedLocator([80, 85, 90, 95, 100]))
    handles = [
        Line2D([], [], color=INK, lw=0.8, label=f"nominal {100 * nominal:g} %"),
        Line2D([], [], color=BAND, lw=7, label="± 1 point"),
    ]
    legend(panels.figure, [*handles, *filled_and_open(), beyond()])
    return panels.figure


def _over_bound(value: np.ndarray, crb: np.ndarray) -> np.ndarray:
    good = np.isfinite(crb) & (crb > 0)
    return np.where(good, value / np.where(good, crb, 1.0), np.nan)


def _relative_bound(crb: np.ndarray, truth: np.ndarray, quantity: str) -> np.ndarray:
    """Bound SD in percent of the truth; of an offset in Hz."""
    ratio = crb if printed(quantity).unit == "Hz" else 100 * _over_bound(crb, np.abs(truth))
    return np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)


def _all(present: Sequence[tuple], key: str, quantity: str) -> np.ndarray:
    """A column over all panels of a row; a stand-in only where nothing else is there, as it sets no axis."""
    own = [cells for *_, cells in present if cells["quantity"][0] == quantity] or [cells for *_, cells in present]
    return np.concatenate([cells[key] for cells in own]) if own else np.empty(0)


def _truths(present: Sequence[tuple], own: Cells, quantity: str) -> tuple[float, float]:
    """Horizontal limits: the truths of the whole row, or a stand-in's own."""
    truth = own["truth"] if own["quantity"][0] != quantity else _all(present, "truth", quantity)
    return window(truth * printed(quantity).scale, keep=1.0)


def _truths_of(cells: Cells, quantity: str) -> int:
    """How many different truths of a quantity occur."""
    truth = select(cells, quantity=quantity)["truth"]
    return int(np.unique(truth[np.isfinite(truth)]).size)


def _first(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[0]) if finite.size else float("nan")


def _span(values: np.ndarray) -> tuple[float, ...]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else ()
