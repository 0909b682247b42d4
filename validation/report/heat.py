"""Heat maps: an error of each estimator over two truths, such as PDFF and R2*, with the number in each cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import wording
from .panels import WIDTH, cells_of
from .style import INK, MUTED, SERIES, Cells, label, new_figure, number, plain, printed, select

X = "pdff"
NEGLIGIBLE = 0.1  # bound SDs; a noise bias below is pale, so that Monte Carlo error does not look like one
# key, rung, the truth along y, what is drawn, title, lead
MAPS = (
    ("map-noise-bias", "matched", "r2star", "bias", "Noise bias over PDFF and R2*",
     "What noise alone does to the mean, in SDs of the Cramér-Rao bound: colour tells its size and sign."),
    ("map-spread", "matched", "r2star", "sd", "Scatter of a voxel over PDFF and R2*",
     "The SD of a single voxel: where the same scan measures well and where it does not."),
    ("map-model-error", "pools", "R2_prime", "model_error", "Model error over PDFF and R2′",
     "Limit minus truth in the marrow of people, whose T1 and T2 the plain fit does not know."),
)  # fmt: skip


def over_two(
    cells: Cells, names: Sequence[str], quantities: Sequence[str], rung: str, y: str, column: str
) -> tuple[Figure, str] | None:
    """A panel for each quantity and estimator; None where no estimator was tried on a table of two truths.

    Parameters
    ----------
    cells : mapping of str to ndarray
    rung, y, column : str
        Which cells, the case value along y, and the number that is drawn.
    """
    if f"case_{y}" not in cells or f"case_{X}" not in cells:
        return None
    on = select(wording.plain_cells(cells), rung=rung)
    if not on["case"].size:
        return None
    snr = wording.nearest_snr(on)
    on = select(on, snr=snr)
    keep = np.isfinite(on[f"case_{X}"]) & np.isfinite(on[f"case_{y}"])
    on = {name: values[keep] for name, values in on.items()}
    panels = []
    for quantity in quantities:
        for name in names:
            own = cells_of(on, quantity, name)
            finite = np.isfinite(own[column])
            own = {key: values[finite] for key, values in own.items()}
            if np.unique(own[f"case_{X}"]).size > 2 and np.unique(own[f"case_{y}"]).size > 2:
                panels.append((quantity, name, own))
    if not panels:
        return None
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    height = 0.3 + 2.5 * down
    figure = new_figure(WIDTH, height)
    spec = figure.add_gridspec(down, across, left=0.075, right=0.99, top=1 - 0.35 / height, bottom=0.5 / height,
                               wspace=0.16, hspace=0.5)  # fmt: skip
    for place, (quantity, name, own) in enumerate(panels):
        ax = plain(figure.add_subplot(spec[place // across, place % across]))
        show = printed(quantity)
        value, unit = own[column] * show.scale, show.points
        if column == "bias":
            value, unit = own["bias"] / own["crb"], "bound SD"
        _table(ax, own[f"case_{X}"], own[f"case_{y}"], value, NEGLIGIBLE if column == "bias" else 0.0)
        along, up = printed(X), printed(y)
        label(ax, x=along.axis if place // across == down - 1 else "", y=up.axis if place % across == 0 else "",
              title=f"{name}: {show.label} ({unit})")  # fmt: skip
    return figure, f"Rung {rung}, SNR {snr:g}, nuisances known."


def _table(ax: Axes, x: np.ndarray, y: np.ndarray, value: np.ndarray, least: float) -> None:
    """Cells side by side, in the order of their truths: blue below zero, orange above; full colour from `least` on."""
    columns, rows = np.unique(x), np.unique(y)
    largest = max(np.max(np.abs(value)), least) or 1.0
    digits = int(np.clip(2 - np.floor(np.log10(largest)), 0, 4)) if largest < 100 else 0
    once = {(at_x, at_y): each for at_x, at_y, each in zip(x.tolist(), y.tolist(), value.tolist(), strict=True)}
    for (at_x, at_y), each in once.items():
        i, j = int(np.searchsorted(columns, at_x)), int(np.searchsorted(rows, at_y))
        shade = SERIES[1] if each > 0 else SERIES[0]
        strength = 0.7 * abs(each) / largest
        ax.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, fc=shade, ec="none", alpha=strength))
        ax.text(i, j, number(each, min(digits, 2)), ha="center", va="center", fontsize=7, color=INK)
    ax.set(xlim=(-0.5, columns.size - 0.5), ylim=(-0.5, rows.size - 0.5))
    ax.set_xticks(range(columns.size), [f"{100 * each:.3g}" for each in columns])
    ax.set_yticks(range(rows.size), [f"{each:.3g}" for each in rows])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_color(MUTED)
