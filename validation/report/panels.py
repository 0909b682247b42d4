"""Small multiples: a panel for each quantity and estimator, and what is drawn into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import INK, MUTED, RULE, SERIES, Cells, clipped, label, new_figure, plain, printed, select

WIDTH = 10.6  # inches: the width of the page's wide column
RUNGS = ("matched", "pools", "engine", "scan")
# An estimator without the quantity shows the one it has in its place, against that quantity's own truth.
STAND_IN = {"D": "adc"}


@dataclass
class Grid:
    """A figure with one panel for each quantity and estimator, and the cells that belong into each."""

    figure: Figure
    axes: dict[tuple[str, str], Axes]
    cells: dict[tuple[str, str], dict[str, np.ndarray]]

    def of(self, quantity: str) -> list[tuple[str, Axes, dict[str, np.ndarray]]]:
        """Estimator, panel and cells for every estimator that has the quantity (or its stand-in)."""
        found = []
        for (which, name), cells in self.cells.items():
            if which == quantity and cells["truth"].size:
                found.append((name, self.axes[which, name], cells))
        return found


def cells_of(cells: Cells, quantity: str, name: str) -> dict[str, np.ndarray]:
    """The cells of one estimator and quantity, judged against the quantity itself; else those of its stand-in."""
    own = select(cells, estimator=name, quantity=quantity, measurand=quantity)
    other = STAND_IN.get(quantity)
    if not own["truth"].size and other:
        own = select(cells, estimator=name, quantity=other, measurand=other)
    return own


def row_of_axes(columns: int, height: float, head: float, foot: float = 0.45, left: float = 0.075,
                wspace: float = 0.22) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """One row of panels; head and foot (inches) hold the legend and the axis names."""
    figure = new_figure(WIDTH, height)
    grid = figure.add_gridspec(
        1, columns, left=left, right=0.99, top=1 - head / height, bottom=foot / height, wspace=wspace
    )
    return figure, [plain(figure.add_subplot(grid[0, column])) for column in range(columns)]


def grid(cells: Cells, quantities: Sequence[str], names: Sequence[str], x: str, y: str) -> Grid:
    """A panel for each quantity and estimator.

    Estimators stand side by side, one row a quantity, all panels of a row on the same axes. One or two estimators
    stand above each other instead, with the quantities side by side.

    Parameters
    ----------
    cells : mapping of str to ndarray
        All cells of the figure.
    quantities, names : sequence of str
        Quantities and estimators.
    x, y : str
        What the axes show: `{label}` and `{unit}` are filled in for each quantity.
    """
    across = len(names) >= 3
    shape = (len(quantities), len(names)) if across else (len(names), len(quantities))
    height = 1.05 + (1.72 if across else 2.3) * shape[0]
    figure = new_figure(WIDTH, height)
    spec = figure.add_gridspec(
        *shape, left=0.075, right=0.99, top=1 - 0.66 / height, bottom=0.42 / height,
        wspace=0.1 if across else 0.26, hspace=0.42,
    )  # fmt: skip
    own = {(quantity, name): cells_of(cells, quantity, name) for quantity in quantities for name in names}
    made: dict[tuple[str, str], Axes] = {}
    for i, quantity in enumerate(quantities):
        show = printed(quantity)
        first = next((name for name in names if own[quantity, name]["truth"].size), None)
        for j, name in enumerate(names):
            row, column = (i, j) if across else (j, i)
            ax = made[quantity, name] = plain(figure.add_subplot(spec[row, column]))
            here = own[quantity, name]
            ax.grid(axis="y", color=RULE, lw=0.6)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(5))
            words = {"label": show.label, "unit": show.unit, "share": "Hz" if show.unit == "Hz" else "% of truth"}
            if (across and row == 0) or (not across and column == 0):
                label(ax, title=name)
            if across and name != first:  # the panels of a row share one vertical axis, named once
                ax.tick_params(labelleft=False)
            else:
                label(ax, y=y.format(**words))
            if not across:
                label(ax, x=x.format(**words))
            if not here["truth"].size:
                _empty(ax, show.label)
            elif here["quantity"][0] != quantity:
                ax.text(1.0, 1.03, printed(str(here["quantity"][0])).label, transform=ax.transAxes, ha="right",
                        va="bottom", fontsize=8, color=MUTED)  # fmt: skip
        if across:  # one name for the row, under its middle
            left, right = (made[quantity, name].get_position() for name in (names[0], names[-1]))
            figure.text((left.x0 + right.x1) / 2, left.y0 - 0.36 / height, x.format(**words), ha="center", va="center",
                        fontsize=8.5, color=INK)  # fmt: skip
    return Grid(figure, made, own)


def _empty(ax: Axes, what: str) -> None:
    ax.text(0.0, 0.5, f"does not\nestimate {what}", transform=ax.transAxes, va="center", fontsize=8, color=MUTED)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0, labelleft=False, labelbottom=False)
    ax.set_ylabel("")


def by_domain(ax: Axes, cells: Cells, x: np.ndarray, y: np.ndarray, error: np.ndarray) -> None:
    """Points with error bars: filled where the protocol identifies the unknowns, open elsewhere."""
    keep = np.isfinite(x) & np.isfinite(y)
    error = np.where(np.isfinite(error), error, 0.0)
    ax.vlines(x[keep], (y - error)[keep], (y + error)[keep], color=SERIES[0], lw=0.8, alpha=0.6)
    identifiable = cells["domain"] == "identifiable"
    for here, face in ((keep & identifiable, SERIES[0]), (keep & ~identifiable, "none")):
        ax.plot(x[here], y[here], "o", ms=3.6, mfc=face, mec=SERIES[0], mew=0.8)
    clipped(ax, x[keep], y[keep], SERIES[0])


def regression(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> float:
    """Draw the least-squares line through the cases with the 95 % confidence band of its mean; return its slope.

    Student's t with n - 2 degrees of freedom; NaN, and no line, for fewer than three cases or two truths.
    """
    from scipy.stats import t

    if x.size < 3 or np.unique(x).size < 2:
        return float("nan")
    design = np.column_stack([np.ones_like(x), x])
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    freedom = x.size - 2
    variance = np.sum((y - design @ coefficients) ** 2) / freedom
    along = np.linspace(x.min(), x.max(), 40)
    basis = np.column_stack([np.ones_like(along), along])
    spread = np.sqrt(variance * np.einsum("ij,jk,ik->i", basis, np.linalg.inv(design.T @ design), basis))
    half, line = t.ppf(0.975, freedom) * spread, basis @ coefficients
    ax.fill_between(along, line - half, line + half, color=colour, alpha=0.15, lw=0)
    ax.plot(along, line, color=colour, lw=1.0)
    return float(coefficients[1])


def rungs_of(cells: Cells) -> dict[str, tuple[str, str]]:
    """Colour and marker of every rung that occurs."""
    present = set(cells["rung"].tolist())
    looks = zip(RUNGS, SERIES, "oDs^", strict=False)
    return {rung: (colour, marker) for rung, colour, marker in looks if rung in present}


def filled_and_open() -> list[Line2D]:
    """Legend of `by_domain`."""
    return [
        Line2D([], [], marker="o", ms=4, mfc=SERIES[0], mec=SERIES[0], ls="", label="identifiable with this protocol"),
        Line2D([], [], marker="o", ms=4, mfc="none", mec=SERIES[0], ls="", label="not, or hardly"),
    ]


def beyond() -> Line2D:
    """Legend of `clipped`."""
    return Line2D([], [], marker="^", ms=4, mfc="none", mec=MUTED, ls="", label="beyond the axis")
