"""Figures of curves, one function each: over SNR, and over the strength of a confounder.

`cells`, `points` and `entries` are plain columns, as `Trial.samples`, `Trial.confounders` and `Trial.prior` have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from .panels import WIDTH, beyond, cells_of, row_of_axes
from .style import (
    INK,
    MUTED,
    RULE,
    SERIES,
    Cells,
    clipped,
    label,
    legend,
    logarithmic,
    new_figure,
    plain,
    printed,
    select,
    series,
    window,
)

ROOMY = 6  # panels side by side that have room for four ticks each


def spread_against_bound(cells: Cells, quantities: Sequence[str], names: Sequence[str]) -> Figure:
    """SD of the estimates (+-2 standard errors) and the Cramer-Rao bound over SNR, both axes logarithmic; one case."""
    figure, axes = row_of_axes(len(quantities), 3.6, head=0.42)
    looks = series(names)
    shown = set()
    for ax, quantity in zip(axes, quantities, strict=True):
        show = printed(quantity)
        logarithmic(ax, x=True, y=True, room=2.0)
        ticks = np.unique(cells["snr"][np.isfinite(cells["snr"])])
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        bounds: dict[float, list[float]] = {}
        for index, name in enumerate(names):
            one = select(cells, estimator=name, quantity=quantity, measurand=quantity)
            order = np.argsort(one["snr"])
            x, y, n, crb = (one[key][order] for key in ("snr", "sd", "n", "crb"))
            for snr, value in zip(x, crb, strict=True):
                bounds.setdefault(float(snr), []).append(value)
            good = np.isfinite(x) & np.isfinite(y) & (y > 0)
            x, y, n = x[good], y[good] * show.scale, n[good]
            if not x.size:
                continue
            colour, marker = looks[name]
            shown.add(name)
            aside = 1.015 ** (index - (len(names) - 1) / 2)  # side by side, so that none hides another
            error = 2 * y / np.sqrt(2 * np.maximum(n - 1, 1))
            ax.errorbar(x * aside, y, error, color=colour, marker=marker, ms=4, mec="none", lw=1, elinewidth=0.8)
        at = sorted(snr for snr, values in bounds.items() if np.isfinite(values).any())
        ax.plot(at, [_commonest(bounds[snr]) * show.scale for snr in at], color=INK, lw=1.4, zorder=5)
        ax.grid(which="major", color=RULE, lw=0.6)
        label(ax, "SNR", f"SD of {show.axis}")
    handles = [Line2D([], [], color=INK, lw=1.4, label="Cramér-Rao bound")]
    handles += [Line2D([], [], color=c, marker=m, mec="none", ms=4.5, lw=1, label=n)
                for n, (c, m) in looks.items() if n in shown]  # fmt: skip
    legend(figure, handles)
    return figure


def _commonest(values: Sequence[float]) -> float:
    """Of the bounds of several estimators that of the most, of equals the first: one that fits others has another."""
    finite = [value for value in values if np.isfinite(value)]
    alike = [sum(abs(other / value - 1) < 0.02 for other in finite) for value in finite]
    return finite[int(np.argmax(alike))]


def confounders(points: Cells, quantities: Sequence[str], names: Sequence[str], everyone: Sequence[str] = ()) -> Figure:
    """Model error against the strength of one confounder at a time.

    At the first strength of each curve the confounder is off; a ring marks it. `everyone` are the estimators of the
    page, so that colours stay the same where only some are drawn.
    """
    kinds = list(dict.fromkeys(points["confounder"].tolist()))
    wide = 132 // max(6, len(kinds))  # letters above a panel
    titles = {kind: fill(_title(points, kind), wide) for kind in kinds}
    head = 0.52 + 0.15 * max(title.count("\n") + 1 for title in titles.values())
    height = head + 0.5 + 1.65 * len(quantities)
    figure = new_figure(WIDTH, height)
    used = min(0.99, 0.085 + 0.2 * len(kinds))  # few panels keep the size that many have
    spec = figure.add_gridspec(len(quantities), len(kinds), left=0.085, right=used,
                               top=1 - head / height, bottom=0.45 / height, wspace=0.14, hspace=0.16)  # fmt: skip
    looks = {name: look for name, look in series(everyone or names).items() if name in names}
    for row, quantity in enumerate(quantities):
        show = printed(quantity)
        own = {name: cells_of(points, quantity, name) for name in names}
        errors = np.concatenate([one["model_error"] for one in own.values()]) * show.scale
        least = 0.5 * 10.0**-show.digits  # errors that round to nothing are drawn as such
        y_limits = window(errors, keep=0.9, include=(-least, 0.0, least))
        for column, kind in enumerate(kinds):
            ax = plain(figure.add_subplot(spec[row, column]))
            strengths = select(points, confounder=kind)["strength"]
            ax.set(xlim=window(strengths, keep=1.0), ylim=y_limits)
            ax.axhline(0, color=INK, lw=0.8, zorder=1)
            off, drawn = [], 0
            for name, width in zip(names, 1.0 + 0.52 * np.arange(len(names))[::-1], strict=True):
                curve, (colour, marker) = select(own[name], confounder=kind), looks[name]
                order = np.argsort(curve["strength"], kind="stable")
                x, y = curve["strength"][order], curve["model_error"][order] * show.scale
                # Curves that coincide lie on each other, thinner on thicker, so that none hides another.
                ax.plot(x, y, color=colour, marker=marker, ms=2.2 + width, mec="none", lw=width)
                drawn += int(np.isfinite(y).sum())
                off += [(curve["strength"][0], curve["model_error"][0] * show.scale)] if x.size else []
                clipped(ax, x, y, colour)
            if drawn == len(off) > 0:  # a rate of two pools that differ, for instance
                ax.text(0.5, 0.08, "no one truth", transform=ax.transAxes, ha="center", fontsize=7.5, color=MUTED)
            ax.plot([x for x, _ in off], [y for _, y in off], "o", ms=7, mfc="none", mec=INK, mew=0.7, zorder=6)
            ax.grid(axis="y", color=RULE, lw=0.6)
            roomy = len(kinds) <= ROOMY
            ax.xaxis.set_major_locator(MaxNLocator(4) if roomy else MaxNLocator(2, steps=[1, 2, 4, 5, 10]))
            ax.tick_params(axis="x", labelsize=8 if roomy else 7)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\u2212")))
            ax.yaxis.set_major_locator(MaxNLocator(5))
            ax.tick_params(labelleft=column == 0, labelbottom=row == len(quantities) - 1)
            one = select(points, confounder=kind)
            label(
                ax,
                x=_shown_unit(one) if row == len(quantities) - 1 else "",
                y=f"error of {show.label}\n({show.points})" if column == 0 else "",
                title=titles[kind] if row == 0 else "",
                fontsize=8.5,
            )
    handles = [Line2D([], [], color=c, marker=m, mec="none", ms=4.5, lw=1.1, label=n) for n, (c, m) in looks.items()]
    ring = Line2D([], [], marker="o", ms=7, mfc="none", mec=INK, mew=0.7, ls="", label="confounder off")
    legend(figure, [*handles, ring, beyond()])
    return figure


def prior_ratios(entries: Cells, quantities: Sequence[str]) -> Figure:
    """RMSE of a Bayesian estimator beside least squares and the prior mean, over SNR: how much of the gain is prior."""
    figure, axes = row_of_axes(len(quantities), 3.2, head=0.42)
    lines = (
        ("rmse_least_squares", "least squares", SERIES[0], "o"),
        ("rmse_prior_mean", "prior mean: no data at all", MUTED, "s"),
        ("rmse", "posterior mean", SERIES[1], "D"),
        ("rmse_oracle", "exact posterior mean", INK, ""),
    )
    looks = {key: {"color": colour, "marker": marker, "ms": 4, "mec": "none", "lw": 1.2,
                   "ls": "-" if marker else (0, (2, 2))} for key, _, colour, marker in lines}  # fmt: skip
    for ax, quantity in zip(axes, quantities, strict=True):
        show, here = printed(quantity), select(entries, quantity=quantity)
        order = np.argsort(here["snr"])
        logarithmic(ax, x=True, y=True, room=2.0)
        for key, look in looks.items():
            ax.plot(here["snr"][order], here[key][order] * show.scale, **look)
        ax.xaxis.set_major_locator(FixedLocator(np.unique(here["snr"])))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.grid(color=RULE, lw=0.6)
        label(ax, "SNR", f"RMSE of {show.axis}")
    legend(figure, [Line2D([], [], label=title, **looks[key]) for key, title, *_ in lines])
    return figure


def _title(points: Cells, kind: str) -> str:
    title = str(select(points, confounder=kind)["confounder_title"][0]) or kind
    return title.replace("mm2", "mm²")


def _shown_unit(points: Cells) -> str:
    unit = str(points["strength_unit"][0])
    return {"mm2/s": "mm²/s", "s/mm2": "s/mm²", "1": "strength", "": "strength"}.get(unit, unit)
