"""How figures look: one palette, one way to print a quantity, and SVG that follows the page from light to dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# Each colour of a figure is the light value of a custom property of the page, so that one drawing serves both themes.
INK, MUTED, RULE, BAND = "#1c2126", "#69727c", "#dfe3e6", "#e7eef2"
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), told apart by readers with any colour vision;
# the markers differ as well, so that no figure depends on colour.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b5649a", "#c98a00", "#4a9fd0", "#6b5b95", "#5a6b3b")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_PROPERTIES = {INK: "ink", MUTED: "muted", RULE: "rule", BAND: "band"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}

DASH = "—"  # what a missing value prints as


@dataclass(frozen=True)
class Printed:
    """How a quantity is printed: its label, the factor from stored to printed value, the printed unit."""

    label: str
    scale: float
    unit: str
    digits: int
    words: str = ""

    @property
    def axis(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def points(self) -> str:
        """The unit of a difference: a difference of percentages is in percentage points."""
        return "points" if self.unit == "%" else self.unit


_DIFFUSIVITY = (1e3, "10⁻³ mm²/s")
_PRINTED = {
    "f": Printed("f", 100, "%", 1, "the perfusion fraction f"),
    "f_app": Printed("apparent f", 100, "%", 1),
    "D": Printed("D", *_DIFFUSIVITY, 3, "the diffusivity D"),
    "D_star": Printed("D*", *_DIFFUSIVITY, 1, "the pseudo-diffusivity D*"),
    "adc": Printed("ADC", *_DIFFUSIVITY, 3, "the ADC"),
    "pdff": Printed("PDFF", 100, "%", 1, "the fat fraction"),
    "r2star": Printed("R2*", 1, "1/s", 1, "the decay rate R2*"),
    "R2_prime": Printed("R2′", 1, "1/s", 0),
    "fieldmap": Printed("field", 1, "Hz", 1, "the field map"),
    "porosity": Printed("porosity", 100, "%", 1, "the porosity"),
    "bvtv": Printed("BV/TV", 100, "%", 1),
    "bound_fraction": Printed("bound fraction", 100, "%", 1),
    "mmf": Printed("MMF", 100, "%", 1),
}


def printed(quantity: str, unit: str = "") -> Printed:
    """How `quantity` is printed: fractions in percent, diffusivities in 1e-3 mm2/s, everything else as stored."""
    if quantity in _PRINTED:
        return _PRINTED[quantity]
    if unit == "mm2/s":
        return Printed(quantity, *_DIFFUSIVITY, 3)
    return Printed(quantity, 1.0, "" if unit in ("", "1", "a.u.") else unit, 3)


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number for a reader: so many decimals, a true minus sign, and a dash where there is none."""
    if value is None or not np.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not text.strip("+-0."):  # -0.00 and +0.00 carry a sign without a meaning
        text = text.lstrip("+-")
    return text.replace("-", "−")


def series(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name, the same in every figure; past the eighth the pairs start to mix."""
    return {
        name: (SERIES[i % len(SERIES)], MARKERS[(i + i // len(SERIES)) % len(MARKERS)]) for i, name in enumerate(names)
    }


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that belongs to nobody: no window, no global state."""
    return Figure(figsize=(width, height), facecolor="none")


def plain(axes: Axes) -> Axes:
    """Axes reduced to what carries information."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=MUTED, linewidth=0.7)
    axes.tick_params(which="both", colors=MUTED, labelcolor=MUTED, labelsize=8, width=0.7, length=2.5)
    axes.tick_params(which="minor", length=1.5)
    axes.set_axisbelow(True)
    return axes


def label(axes: Axes, x: str = "", y: str = "", title: str = "", **text: Any) -> None:
    """Axis names in the ink of the text, the title to the left."""
    if x:
        axes.set_xlabel(x, fontsize=8.5, color=INK)
    if y:
        axes.set_ylabel(y, fontsize=8.5, color=INK)
    if title:
        axes.set_title(title, **({"fontsize": 9.5, "color": INK, "loc": "left", "pad": 6} | text))


def legend(figure: Figure, handles: Sequence[Any], **where: Any) -> None:
    """One legend for a figure, above its panels."""
    where = {"loc": "upper left", "bbox_to_anchor": (0.0, 1.0), "ncols": max(1, len(handles))} | where
    figure.legend(
        handles=handles,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handletextpad=0.6,
        columnspacing=1.6,
        borderaxespad=0.1,
        **where,
    )


class _Ticks(LogLocator):
    """Ticks at 1, 2 and 5, at 1 and 3, or at decades alone: as many as the axis has room for."""

    def __init__(self, room: float) -> None:
        super().__init__()
        self.room = room

    def tick_values(self, vmin: float, vmax: float) -> Any:
        decades = np.log10(vmax / vmin) / self.room
        self.set_params(subs=(1.0, 2.0, 5.0) if decades < 1.4 else (1.0, 3.0) if decades < 2.2 else (1.0,))
        return super().tick_values(vmin, vmax)


def logarithmic(axes: Axes, x: bool = False, y: bool = False, room: float = 1.0) -> None:
    """Logarithmic axes with ticks printed as plain numbers; `room` is the width in units of a narrow panel."""
    for wanted, axis, name in ((x, axes.xaxis, "x"), (y, axes.yaxis, "y")):
        if wanted:
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(_Ticks(room))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def window(values: np.ndarray, keep: float = 0.9, include: Sequence[float] = ()) -> tuple[float, float]:
    """Axis limits that show the bulk of `values`: one runaway must not flatten all others.

    What lies outside is to be drawn at the edge with `clipped`, never left out.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        finite = np.asarray(include or (0.0, 1.0), dtype=float)
    tail = (1.0 - keep) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    reach = 3.0 * (high - low)
    low, high = max(finite.min(), low - reach), min(finite.max(), high + reach)
    for value in include:
        low, high = min(low, value), max(high, value)
    pad = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return float(low - pad), float(high + pad)


def clipped(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Mark points beyond the vertical limits by a small arrow at the edge they left through."""
    low, high = axes.get_ylim()
    inset = 0.02 * (high - low)
    for beyond, edge, marker in ((y > high, high - inset, "^"), (y < low, low + inset, "v")):
        if np.any(beyond):
            axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, ms=3.2, mfc="none", mec=colour, mew=0.8)


def to_svg(figure: Figure, name: str, description: str, outlines: bool = False) -> str:
    """The figure as an `<svg>` element: text stays text, colours follow the page, identifiers start with `name`.

    With `outlines`, text becomes shapes: for formulas, whose glyphs a reader's fonts may lack.
    """
    stream = io.StringIO()
    # A fixed salt: two runs of one study give the same page, byte for byte.
    with rc_context({"svg.fonttype": "path" if outlines else "none", "svg.hashsalt": name, "path.simplify": True}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    # An edge of "none" is written as black that cannot be seen.
    text = re.sub(r"stroke: #000000; stroke-opacity: 0\b(?!\.)", "stroke: none", text)
    for colour, variable in _PROPERTIES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', _opening(r"\1", description), text, count=1)
    return re.sub(r"\n\s*", "\n", text)


def _opening(box: str, description: str) -> str:
    escaped = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "")
    return (
        f'<svg viewBox="{box}" role="img" aria-label="{escaped}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def to_png(figure: Figure, path: str | PathLike[str], dpi: int = 144) -> None:
    """The figure on white paper."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi, facecolor="white")


Cells = Mapping[str, np.ndarray]  # plain columns: name to one value a cell


def columns(dataset: Any, dimension: str) -> dict[str, np.ndarray]:
    """The one-dimensional variables of a dataset as plain columns; texts as objects."""
    found = {}
    for name in dataset.data_vars:
        if dataset[name].dims == (dimension,):
            values = dataset[name].values
            found[str(name)] = values.astype(object) if values.dtype.kind in "UO" else values
    return found


def select(cells: Cells, **equal: object) -> dict[str, np.ndarray]:
    """The cells for which every named column has the given value."""
    length = len(next(iter(cells.values())))
    keep = np.ones(length, dtype=bool)
    for name, value in equal.items():
        keep &= cells[name] == value
    return {name: column[keep] for name, column in cells.items()}
