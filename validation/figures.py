"""The figures of a report, one function each: plain columns in, a figure out.

`cells` is a mapping of column name to array, each cell once (the columns are those of `Trial.samples`). Where a cell
appears at several strengths of noise, the caller selects; the functions draw what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from .style import (
    BAND, INK, MUTED, RULE, SERIES, Cells,
    clipped, label, legend, new_figure, number, panels, printed, select, series, window,
)  # fmt: skip

WIDTH = 10.6  # inches: the width of the page's wide column


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
    figure = new_figure(WIDTH, 1.15 + 0.36 * len(names))
    height = figure.get_figheight()
    axes = panels(figure, 1, len(quantities), left=0.135, top=1 - 0.62 / height, bottom=0.5 / height, wspace=0.1)[0]
    looks = series(names)
    apparent_drawn = False
    for column, quantity in enumerate(quantities):
        ax, here = axes[column], select(cells, quantity=quantity)
        show = printed(quantity)
        main, other = select(here, measurand=quantity), here["measurand"] != quantity
        truth = _first(main["truth"]) * show.scale
        apparent = _first(here["truth"][other]) * show.scale if other.any() else np.nan
        shown = np.concatenate([main["limit"], main["mean"] - main["sd"], main["mean"] + main["sd"]]) * show.scale
        low, high = window(shown, include=[v for v in (truth, apparent, 0.0) if np.isfinite(v)])
        ax.set_xlim(max(low, -0.04 * high), high)
        ax.axvline(truth, color=INK, lw=1.2, zorder=1)
        if np.isfinite(apparent) and abs(apparent - truth) > 1e-6 * abs(truth):
            ax.axvline(apparent, color=INK, lw=1.0, ls=(0, (1.5, 2)), zorder=1)
            apparent_drawn = True
        for row, name in enumerate(names):
            one, (colour, _) = select(main, estimator=name), looks[name]
            if not one["mean"].size or not np.isfinite(one["limit"][0] + one["mean"][0]):
                ax.text(0.5, row, "does not estimate it", transform=ax.get_yaxis_transform(), ha="center",
                        va="center", fontsize=7.5, color=MUTED)  # fmt: skip
                continue
            limit, mean, sd = (one[key][0] * show.scale for key in ("limit", "mean", "sd"))
            ax.plot([mean - sd, mean + sd], [row, row], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
            ax.plot(mean, row, "o", ms=6, mfc=colour, mec="none")
            ax.plot(limit, row, "D", ms=5.5, mfc="none", mec=INK, mew=1.0, zorder=4)
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
    if apparent_drawn:
        handles.insert(1, Line2D([], [], color=INK, lw=1, ls=(0, (1.5, 2)), label="apparent truth at this TE and TR"))
    legend(figure, handles)
    return figure


def truth_against_estimate(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Mean of the estimates against truth: identity, and on each rung a straight line with its 95 % band."""
    figure, axes = _grid(quantities, names, "truth", "mean estimate")
    rungs = _rungs(cells)
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        here = select(cells, quantity=quantity, measurand=quantity)
        truth, mean = here["truth"] * show.scale, here["mean"] * show.scale
        x_limits = window(truth, keep=1.0)
        y_limits = window(mean, keep=0.8, include=_span(truth))
        for column, name in enumerate(names):
            ax = axes[row, column]
            ax.set_xlim(x_limits)
            ax.set_ylim(y_limits)
            ax.axline((truth[np.isfinite(truth)].mean() if np.isfinite(truth).any() else 0,) * 2, slope=1, color=INK,
                      lw=0.9, ls=(0, (4, 3)), zorder=1)  # fmt: skip
            for rung, (colour, marker) in rungs.items():
                one = select(here, estimator=name, rung=rung)
                x, y, sd = (one[key] * show.scale for key in ("truth", "mean", "sd"))
                good = np.isfinite(x) & np.isfinite(y)
                x, y, sd = x[good], y[good], sd[good]
                if not x.size:
                    continue
                _regression(ax, x, y, colour)
                ax.vlines(x, y - sd, y + sd, color=colour, lw=0.7, alpha=0.35)
                ax.plot(x, y, marker, ms=3.6, mfc=colour, mec="none", alpha=0.85)
                clipped(ax, x, y, colour)
    handles = [Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="identity")]
    handles += [Line2D([], [], color=c, marker=m, mec="none", ms=4, lw=1, label=f"rung {r}: cases, straight line, 95 % band")
                for r, (c, m) in rungs.items()]  # fmt: skip
    legend(figure, [*handles, _edge()])
    return figure


def noise_bias(cells: Cells, quantities: Sequence[str], names: Sequence[str], limit: float = 0.2) -> Figure:
    """Noise bias (mean - limit) with +-2 standard errors, in units of the bound's SD, against truth.

    `limit` draws the band in which a noise bias is small; filled points are cases where the protocol identifies all
    unknowns, open points are the others.
    """
    figure, axes = _grid(quantities, names, "truth", "noise bias / bound SD")
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        here = select(cells, quantity=quantity, measurand=quantity)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative, error = here["bias"] / here["crb"], 2 * here["bias_se"] / here["crb"]
        relative, error = (np.where(np.isfinite(here["crb"]), v, np.nan) for v in (relative, error))
        y_limits = window(relative, keep=0.8, include=(-2 * limit, 2 * limit))
        for column, name in enumerate(names):
            ax = axes[row, column]
            ax.set_xlim(window(here["truth"] * show.scale, keep=1.0))
            ax.set_ylim(y_limits)
            ax.axhspan(-limit, limit, color=BAND, lw=0)
            ax.axhline(0, color=INK, lw=0.8)
            _points(ax, here, here["truth"] * show.scale, relative, error, name)
    handles = [Line2D([], [], color=BAND, lw=7, label=f"± {limit:g} bound SD")]
    legend(figure, [*handles, *_filled(), _edge()])
    return figure


def model_error(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Model error (limit - truth) on each rung against truth: what stays when there is no noise at all."""
    figure, axes = _grid(quantities, names, "truth", "limit − truth")
    rungs = _rungs(cells)
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        here = select(cells, quantity=quantity, measurand=quantity)
        error = here["model_error"] * show.scale
        y_limits = window(error, keep=0.8, include=(0.0,))
        for column, name in enumerate(names):
            ax = axes[row, column]
            ax.set_xlim(window(here["truth"] * show.scale, keep=1.0))
            ax.set_ylim(y_limits)
            ax.axhline(0, color=INK, lw=0.8)
            for rung, (colour, marker) in rungs.items():
                keep = (here["estimator"] == name) & (here["rung"] == rung) & np.isfinite(error)
                x, y = here["truth"][keep] * show.scale, error[keep]
                ax.plot(x, y, marker, ms=3.8, mfc=colour, mec="none", alpha=0.85)
                clipped(ax, x, y, colour)
    handles = [Line2D([], [], color=c, marker=m, mec="none", ms=4, ls="", label=f"rung {r}") for r, (c, m) in rungs.items()]
    legend(figure, [*handles, _edge()])
    return figure


def spread_against_bound(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """SD of the estimates and the Cramer-Rao bound over SNR, both axes logarithmic; one case."""
    figure = new_figure(WIDTH, 3.7)
    axes = panels(figure, 1, len(quantities), left=0.06, top=0.82, bottom=0.13, wspace=0.2)[0]
    looks = series(names)
    for ax, quantity in zip(axes, quantities, strict=True):
        show = printed(quantity)
        here = select(cells, quantity=quantity, measurand=quantity)
        ax.set(xscale="log", yscale="log")
        ticks = np.unique(here["snr"][np.isfinite(here["snr"])])
        bound = {snr: here["crb"][(here["snr"] == snr) & np.isfinite(here["crb"])] for snr in ticks}
        at = [snr for snr in ticks if bound[snr].size]
        if at:
            # Estimators that fit another set of unknowns have another bound; the full fit's is the commonest.
            ax.plot(at, [np.median(bound[snr]) * show.scale for snr in at], color=INK, lw=1.4, zorder=5)
        for index, name in enumerate(names):
            one = select(here, estimator=name)
            order = np.argsort(one["snr"])
            x, y = one["snr"][order], one["sd"][order] * show.scale
            n = one["n"][order]
            good = np.isfinite(x) & np.isfinite(y) & (y > 0)
            x, y, n = x[good], y[good], n[good]
            if not x.size:
                continue
            colour, marker = looks[name]
            shift = 1.015 ** (index - (len(names) - 1) / 2)
            error = 2 * y / np.sqrt(2 * np.maximum(n - 1, 1))  # two standard errors of an SD
            ax.errorbar(x * shift, y, error, color=colour, marker=marker, ms=4, mec="none", lw=1, elinewidth=0.8)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.grid(which="major", color=RULE, lw=0.6)
        label(ax, "SNR at b = 0", f"SD of {show.axis}")
    handles = [Line2D([], [], color=INK, lw=1.4, label="Cramér-Rao bound")]
    handles += [Line2D([], [], color=c, marker=m, mec="none", ms=4.5, lw=1, label=n) for n, (c, m) in looks.items()]
    legend(figure, handles)
    return figure


def coverage(cells: Cells, quantities: Sequence[str], names: Sequence[str], nominal: float = 0.95) -> Figure:
    """Coverage of the 95 % intervals against how well the protocol determines the quantity (bound SD over truth)."""
    figure, axes = _grid(quantities, names, "bound SD", "coverage (%)", unit="% of truth")
    for row, quantity in enumerate(quantities):
        here = select(cells, quantity=quantity, measurand=quantity)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = 100 * here["crb"] / np.abs(here["truth"])
        x = np.where(np.isfinite(x) & (x > 0), x, np.nan)
        y, error = 100 * here["coverage"], 200 * here["coverage_se"]
        finite = x[np.isfinite(x)]
        low, high = (finite.min() / 1.4, finite.max() * 1.4) if finite.size else (1, 100)
        for column, name in enumerate(names):
            ax = axes[row, column]
            ax.set_xscale("log")
            ax.set(xlim=(low, high), ylim=(79, 101.5))
            ax.axhspan(100 * nominal - 1, 100 * nominal + 1, color=BAND, lw=0)
            ax.axhline(100 * nominal, color=INK, lw=0.8)
            _points(ax, here, x, y, error, name)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_locator(FixedLocator([80, 85, 90, 95, 100]))
    handles = [
        Line2D([], [], color=INK, lw=0.8, label=f"nominal {100 * nominal:g} %"),
        Line2D([], [], color=BAND, lw=7, label="± 1 point"),
    ]
    legend(figure, [*handles, *_filled(), _edge()])
    return figure


def confounders(points: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """Model error against the strength of one confounder at a time; each curve starts with the confounder off."""
    kinds = list(dict.fromkeys(points["confounder"].tolist()))
    figure = new_figure(WIDTH, 0.75 + 1.65 * len(quantities))
    height = figure.get_figheight()
    axes = panels(figure, len(quantities), len(kinds), left=0.075, top=1 - 0.78 / height, bottom=0.5 / height,
                  wspace=0.16, hspace=0.16)  # fmt: skip
    looks = series(names)
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        here = select(points, quantity=quantity, measurand=quantity)
        y_limits = window(here["model_error"] * show.scale, keep=0.9, include=(0.0,))
        for column, kind in enumerate(kinds):
            ax, one = axes[row, column], select(here, confounder=kind)
            ax.set_ylim(y_limits)
            ax.axhline(0, color=INK, lw=0.8, zorder=1)
            for name in names:
                curve = select(one, estimator=name)
                colour, marker = looks[name]
                x, y = curve["strength"], curve["model_error"] * show.scale
                ax.plot(x, y, color=colour, marker=marker, ms=3.2, mec="none", lw=1.1)
                clipped(ax, x, y, colour)
            ax.grid(axis="y", color=RULE, lw=0.6)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(5))
            if column:
                ax.tick_params(labelleft=False)
            else:
                label(ax, y=f"error of {show.label}\n({show.points})")
            if row < len(quantities) - 1:
                ax.tick_params(labelbottom=False)
            else:
                label(ax, x=_unit_of(points, kind))
            if row == 0:
                label(ax, title=_title_of(points, kind), fontsize=8.5)
    legend(figure, [Line2D([], [], color=c, marker=m, mec="none", ms=4.5, lw=1.1, label=n) for n, (c, m) in looks.items()])
    return figure


def prior_ratios(entries: Cells, quantities: Sequence[str]) -> Figure:
    """RMSE of a Bayesian estimator beside least squares and the prior mean, over SNR: how much of the gain is prior."""
    figure = new_figure(WIDTH, 3.1)
    axes = panels(figure, 1, len(quantities), left=0.06, top=0.82, bottom=0.16, wspace=0.2)[0]
    lines = (
        ("rmse_least_squares", "least squares", SERIES[0], "o"),
        ("rmse_prior_mean", "prior mean: no data at all", MUTED, "s"),
        ("rmse", "posterior mean", SERIES[1], "D"),
        ("rmse_oracle", "exact posterior mean", INK, ""),
    )
    for ax, quantity in zip(axes, quantities, strict=True):
        show, here = printed(quantity), select(entries, quantity=quantity)
        order = np.argsort(here["snr"])
        ax.set(xscale="log", yscale="log")
        for key, _, colour, marker in lines:
            style = {"ls": (0, (2, 2)), "zorder": 5} if not marker else {"marker": marker, "ms": 4, "mec": "none"}
            ax.plot(here["snr"][order], here[key][order] * show.scale, color=colour, lw=1.2, **style)
        ax.xaxis.set_major_locator(FixedLocator(np.unique(here["snr"])))
        ax.xaxis.set_minor_locator(NullLocator())
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        ax.grid(color=RULE, lw=0.6)
        label(ax, "SNR at b = 0", f"RMSE of {show.axis}")
    legend(figure, [Line2D([], [], color=c, marker=m or None, mec="none", ms=4.5, lw=1.2,
                           ls="-" if m else (0, (2, 2)), label=t) for _, t, c, m in lines])  # fmt: skip
    return figure


def _grid(quantities: Sequence[str], names: Sequence[str], x: str, y: str, unit: str = "") -> tuple[Figure, np.ndarray]:
    """One row of panels per quantity and one column per estimator, axes named at the outer edges."""
    figure = new_figure(WIDTH, 0.95 + 1.72 * len(quantities))
    height = figure.get_figheight()
    axes = panels(figure, len(quantities), len(names), left=0.075, top=1 - 0.66 / height, bottom=0.42 / height,
                  wspace=0.1, hspace=0.42)  # fmt: skip
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        for column, name in enumerate(names):
            ax = axes[row, column]
            ax.grid(axis="y", color=RULE, lw=0.6)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(5))
            if row == 0:
                label(ax, title=name)
            if column:
                ax.tick_params(labelleft=False)
            else:
                of = f"{show.label}: {y}"
                label(ax, y=of if "/" in y or "%" in y else f"{of}\n({show.unit})" if show.unit else of)
        middle = axes[row, len(names) // 2]
        label(middle, x=f"{x} of {show.label} ({unit})" if unit else f"{x} {show.axis}")
        if len(names) % 2 == 0:  # under the middle of the row, not under one panel
            middle.xaxis.set_label_coords(-0.05, -0.2)
        else:
            middle.xaxis.set_label_coords(0.5, -0.2)
    return figure, axes


def _points(ax: object, cells: Cells, x: np.ndarray, y: np.ndarray, error: np.ndarray, name: str) -> None:
    """One estimator's cells with error bars: filled where the protocol identifies the unknowns, open elsewhere."""
    keep = (cells["estimator"] == name) & np.isfinite(x) & np.isfinite(y)
    ax.vlines(x[keep], (y - error)[keep], (y + error)[keep], color=SERIES[0], lw=0.8, alpha=0.6)
    for domain, face in (("identifiable", SERIES[0]), ("elsewhere", "none")):
        here = keep & ((cells["domain"] == "identifiable") == (domain == "identifiable"))
        ax.plot(x[here], y[here], "o", ms=3.6, mfc=face, mec=SERIES[0], mew=0.8)
    clipped(ax, x[keep], y[keep], SERIES[0])


def _regression(ax: object, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """The least-squares line through the cases with the 95 % confidence band of its mean (Student's t)."""
    from scipy.stats import t

    if np.unique(x).size < 3:
        return
    design = np.column_stack([np.ones_like(x), x])
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    freedom = x.size - 2
    variance = np.sum((y - design @ coefficients) ** 2) / freedom
    grid = np.linspace(x.min(), x.max(), 40)
    basis = np.column_stack([np.ones_like(grid), grid])
    spread = np.sqrt(variance * np.einsum("ij,jk,ik->i", basis, np.linalg.inv(design.T @ design), basis))
    half, line = t.ppf(0.975, freedom) * spread, basis @ coefficients
    ax.fill_between(grid, line - half, line + half, color=colour, alpha=0.15, lw=0)
    ax.plot(grid, line, color=colour, lw=1.0)


def _rungs(cells: Cells) -> dict[str, tuple[str, str]]:
    order = ("matched", "pools", "engine", "scan")
    present = [r for r in order if r in set(cells["rung"].tolist())]
    return {rung: (SERIES[i], MARKER) for i, (rung, MARKER) in enumerate(zip(present, "oDs^", strict=False))}


def _filled() -> list[Line2D]:
    return [
        Line2D([], [], marker="o", ms=4, mfc=SERIES[0], mec=SERIES[0], ls="", label="identifiable with this protocol"),
        Line2D([], [], marker="o", ms=4, mfc="none", mec=SERIES[0], ls="", label="not, or hardly"),
    ]


def _edge() -> Line2D:
    return Line2D([], [], marker="^", ms=4, mfc="none", mec=MUTED, ls="", label="beyond the axis")


def _first(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[0]) if finite.size else float("nan")


def _span(values: np.ndarray) -> tuple[float, ...]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else ()


def _title_of(points: Cells, kind: str) -> str:
    title = points["confounder_title"][points["confounder"] == kind][0]
    return str(title or kind)


def _unit_of(points: Mapping[str, np.ndarray], kind: str) -> str:
    unit = str(points["strength_unit"][points["confounder"] == kind][0])
    return {"mm2/s": "mm²/s", "s/mm2": "s/mm²", "1": "", "": ""}.get(unit, unit)
