"""Departure maps: where each declared equation and its engine part by more than 1 %.

The table `PANELS` tells what is tried for each equation, `SILENT` why an equation has no map. ``maps()`` runs the
engines, ``draw(dataset)`` makes the figure of one equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ...simulator import equations
from ..report.panels import row_of_axes
from ..report.style import BAND, INK, MUTED, SERIES, label, logarithmic
from . import departing as d
from . import departing_pools as p

LIMIT = 0.01
LEAST = 1e-3
"""Of the largest signal of a map: what lies below it is not compared."""
HEIGHT = 3.4  # inches, of a figure
LEVELS = (0.01, 0.03, 0.1, 0.3)
"""Edges of the shades, from the limit up."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One axis of a map: its name, what a figure prints (the value times `scale`), its ends."""

    name: str
    label: str
    low: float
    high: float
    log: bool = False
    scale: float = 1.0
    unit: str = "1"

    def values(self, count: int) -> Floats:
        """So many values from end to end."""
        return np.geomspace(self.low, self.high, count) if self.log else np.linspace(self.low, self.high, count)


@dataclass(frozen=True)
class Panel:
    """One map: an equation against an engine over two axes.

    Attributes
    ----------
    name, title : str
        Name of the variable, and what a figure prints above it.
    engine : str
    x, y : Axis
    signals : function (x (n,), y (m,)) -> engine, equation (m, n)
    held : str
        What does not change over the map.
    whole : bool
        Whether the departure is relative to the largest signal of the map, as the equation's crosses 0.
    """

    name: str
    title: str
    engine: str
    x: Axis
    y: Axis
    signals: Callable[[Floats, Floats], d.Pair]
    held: str
    whole: bool = False


DEGREES = 180 / math.pi
DURATION = Axis("duration_over_T2", "pulse length / T2", 0.01, 3.0, log=True)
BOUND_DURATION = Axis("duration_over_T2_bound", "pulse length / T2 of bound water", 0.01, 3.0, log=True)
OFFSET = Axis("offset_times_duration", "offset × pulse length (turns)", 0.0, 0.5)
FLIP = Axis("flip_angle", "flip angle (°)", math.radians(3), math.radians(90), scale=DEGREES, unit="rad")
SPOKE_FLIP = Axis(
    "spoke_flip_angle", "flip angle of a spoke (°)", math.radians(2), math.radians(40), scale=DEGREES, unit="rad"
)
SCALE = Axis("B1", "actual / nominal flip angle", 0.8, 1.2)
TRAIN_DURATION = Axis("train_duration_over_T2", "pulse length / T2", 2e-3, 0.2, log=True)
TR_OVER_T1 = Axis("TR_over_T1", "TR / T1", 0.02, 2.0, log=True)
TR = Axis("TR_over_T2", "TR / T2", 0.1, 10.0, log=True)
SPOKE_TR = Axis("spoke_TR_over_T2", "time from spoke to spoke / T2", 0.1, 10.0, log=True)
TI = Axis("TI_over_T1", "TI / T1", 0.1, 3.0)
REFOCUSING = Axis("refocusing_angle", "refocusing angle (°)", math.radians(60), math.pi, scale=DEGREES, unit="rad")
DECAY_TIME = Axis("T2_over_spacing", "T2 / echo spacing", 2.0, 50.0, log=True)
EXCHANGE = Axis("exchange_times_T2_bound", "exchange rate × T2 of bound water", 1e-4, 1.0, log=True)
ECHO_TIME = Axis("TE_over_T2_bound", "TE / T2 of bound water", 0.0, 6.0)
WALLS = Axis("walls_over_diffusion", "distance of walls / diffusion length", 1.0, 100.0, log=True)
ATTENUATION = Axis("b_times_D", "b × diffusivity", 0.0, 1.0)
SEGMENTS = Axis("segments", "capillary segments passed during the encoding", 0.3, 30.0, log=True)
B = Axis("b", "b (s/mm²)", 0.0, 200.0, unit="s/mm2")
PDFF = Axis("pdff", "PDFF (%)", 0.0, 1.0, scale=100.0)

_PULSE, _OFFSET = "Relaxation during the pulses", "Off resonance"
_SURVIVES = "Transverse magnetisation that survives"
_LONG = "TR of 20 T1"


def _echoes(equation: str, held: str, duration: Axis = DURATION) -> tuple[Panel, Panel]:
    """What relaxation during the pulses does, and what an offset does, beside a wrong flip angle."""
    return (
        Panel("pulse", _PULSE, "bloch", duration, SCALE, d.relaxing(equation), f"{held}, {_LONG}"),
        Panel("offset", _OFFSET, "bloch", OFFSET, SCALE, d.turning(equation), f"{held}, T2 of 200"),
    )


PANELS: dict[str, tuple[Panel, ...]] = {
    "spoiled_gradient_echo": (
        Panel("pulse", _PULSE, "bloch", DURATION, FLIP, d.gradient_echo_pulse, "TR/T1 0.1, ideally spoiled"),
        Panel("spoiling", f"{_SURVIVES} TR", "epg", TR, FLIP, d.gradient_echo_spoiling,
              "TR/T1 0.1, spoiler gradient, RF phases of 117°"),
        Panel("offset", _OFFSET, "bloch", OFFSET, FLIP, d.gradient_echo_offset,
              "TR/T1 0.1, T2 of 100 pulse lengths, ideally spoiled"),
    ),
    "inversion_recovery": (
        Panel("pulse", _PULSE, "bloch", DURATION, TI, d.inversion_pulse,
              "TR of 5 T1, full inversion assumed; of the largest signal", True),
        Panel("offset", _OFFSET, "bloch", OFFSET, TI, d.inversion_offset,
              "TR of 5 T1, T2 of 200 pulse lengths, full inversion assumed; of the largest signal", True),
    ),
    "spin_echo": (
        *_echoes("spin_echo", "TE of 4 pulse lengths"),
        Panel("spoiling", f"{_SURVIVES} TR", "bloch", TR, TR_OVER_T1, d.spin_echo_surviving,
              "TE/TR 0.2, instant pulses, spoiler gradient"),
    ),
    "shifted_spin_echo": _echoes("shifted_spin_echo", "TE of 4 pulse lengths, half a length after the echo, no R2'"),
    "spin_echo_train": (
        *_echoes("spin_echo_train", "5th echo, spacing of 4 lengths", TRAIN_DURATION),
        Panel("angle", "Refocusing below 180°", "epg", REFOCUSING, DECAY_TIME, d.train_angle,
              "8th echo, T1 of 500 spacings, first pulse 90°"),
    ),
    "double_spin_echo": _echoes("double_spin_echo", "TE of 8 pulse lengths, TE1 of 4"),
    "stimulated_echo": _echoes("stimulated_echo", "TE and TM of 4 pulse lengths"),
    "prepared_spokes": (
        Panel("pulse", _PULSE, "bloch", DURATION, SPOKE_FLIP, p.spokes_pulse,
              "five spokes, T1 0.3 s, TI 0.15 s, TR 1 s, perfect inversion, ideally spoiled"),
        Panel("spoiling", f"{_SURVIVES} to the next spoke", "epg", SPOKE_TR, SPOKE_FLIP,
              p.spokes_spoiling, "five spokes, T1 of 60 spacings, TI of T1, gradients and RF phases of 117°"),
    ),
    "bound_and_pore": (
        Panel("pulse", _PULSE, "bloch", BOUND_DURATION, FLIP, p.two_waters_pulse,
              "70 % bound water of T2 0.35 ms, pore water of 3.5 ms, fractions of magnetisation"),
        Panel("exchange", "Exchange of both waters", "epg_exchange", EXCHANGE, ECHO_TIME, p.two_waters_exchange,
              "70 % bound water of T2 0.35 ms, pore water of 3.5 ms"),
    ),
    "mono_exponential": (
        Panel("walls", "Walls across the gradient", "walkers", WALLS, ATTENUATION, p.restricted,
              "lobes of 10 ms, 30 ms apart; diffusion length √(2 D 30 ms)"),
    ),
    "ivim": (
        Panel("flow", "Few capillary segments", "capillaries", SEGMENTS, B, p.flowing,
              "f 0.1, D 0.5e-3, D* 0.03 mm²/s, lobes of 10 ms, 30 ms apart"),
    ),
    "ivim_fat_aware": (
        Panel("offset", "Fat off resonance", "bloch", OFFSET, PDFF, p.fat_offset,
              "TE of 4 pulse lengths, T2 of 200, b 0, fat not suppressed"),
    ),
}  # fmt: skip

_NO_RELAXATION = (
    "lines that turn and decay freely after a pulse, which is exact; what comes before, saturation and flip angle, is "
    "spoiled_gradient_echo, whose maps hold for water and for each line of fat"
)
SILENT: dict[str, str] = {
    "ivim_kurtosis": "the kurtosis is a number of the tissue that no engine takes: walkers have walls in its place, "
    "whose signal the map of mono_exponential shows",
    "spin_echo_diffusion": "it is spin_echo times mono_exponential, whose maps hold for it factor by factor",
    "water_fat": _NO_RELAXATION,
    "water_fat_free": _NO_RELAXATION,
    "water_fat_common": _NO_RELAXATION,
    "water_fat_dual": _NO_RELAXATION,
    "water_fat_uneven": "it is water_fat_free times phase errors that no spin physics makes: they are the scanner's",
    "water_fat_gradient": "it is water_fat_free averaged over a voxel in an even gradient, which is exact for a box",
    "water_fat_mixed": "it is water_fat times a phase error that no spin physics makes: it is the scanner's",
    "water_fat_magnitude": "it is the magnitude of water_fat_common",
}
"""Equations without a map, and why."""


def maps(quick: bool = False) -> dict[str, xr.Dataset]:
    """Run the engines: relative departure, engine over equation less 1, for each equation that an engine speaks to.

    Parameters
    ----------
    quick : bool
        15 values an axis instead of 49.

    Returns
    -------
    dict of str to Dataset
        By equation. For each panel a variable ``<panel>`` on its two axes, and ``<panel>_contour`` (vertex, end): the
        lines where the departure is 1 % of either sign, as x and y, NaN between two lines.
    """
    return {name: _mapped(name, panels, 15 if quick else 49) for name, panels in PANELS.items()}


def _mapped(equation: str, panels: tuple[Panel, ...], count: int) -> xr.Dataset:
    data: dict[str, xr.DataArray] = {}
    for panel in panels:
        x, y = panel.x.values(count), panel.y.values(count)
        found, expected = (np.real(part) for part in panel.signals(x, y))
        size = np.abs(expected)
        seen = np.full_like(size, size.max()) if panel.whole else np.where(size > LEAST * size.max(), expected, np.nan)
        departure = (found - expected) / seen
        coords = {
            axis.name: (axis.name, v, {"long_name": axis.label, "units": axis.unit})
            for axis, v in ((panel.x, x), (panel.y, y))
        }
        about = {"units": "1", "long_name": f"{panel.title}: {panel.engine} over equation, less 1"}
        about |= {"engine": panel.engine, "held": panel.held}
        data[panel.name] = xr.DataArray(departure, coords, (panel.y.name, panel.x.name), attrs=about)
        lines = contour(x, y, departure)
        data[f"{panel.name}_contour"] = xr.DataArray(
            lines, dims=(f"{panel.name}_vertex", "end"), attrs={"units": "1", "long_name": "departure of 1 %: x, y"}
        )
    declared = equations.get(equation)
    about = {"equation": equation, "title": declared.title, "assumptions": declared.assumptions}
    return xr.Dataset(data, attrs=about)


def contour(x: Floats, y: Floats, departure: Floats, limit: float = LIMIT) -> Floats:
    """Lines (vertex, 2) where |departure| passes the limit, NaN between them."""
    from contourpy import contour_generator

    generator = contour_generator(x, y, np.ma.masked_invalid(departure))
    lines = [np.asarray(line, dtype=float) for level in (-limit, limit) for line in generator.lines(level)]
    gap = np.full((1, 2), np.nan)
    return np.concatenate([part for line in lines for part in (line, gap)][:-1]) if lines else np.empty((0, 2))


# -- figures


def draw(dataset: xr.Dataset) -> Figure:
    """The maps of one equation side by side, with the 1 % line; blue where the engine is below, orange where above."""
    panels = PANELS[dataset.attrs["equation"]]
    figure, axes = row_of_axes(len(panels), HEIGHT, head=1.02, foot=0.5, left=0.075, wspace=0.24)
    for ax, panel in zip(axes, panels, strict=True):
        if len(panels) == 1:  # one map does not fill the page
            box = ax.get_position()
            ax.set_position((box.x0, box.y0, 0.5 * box.width, box.height))
        _shade(ax, panel, dataset[panel.name].values, dataset[f"{panel.name}_contour"].values)
        logarithmic(ax, panel.x.log, panel.y.log, room=2.4 / len(panels))
        label(ax, panel.x.label, panel.y.label, panel.title, fontsize=9, pad=19)
        ax.text(0, 1.02, panel.held, transform=ax.transAxes, fontsize=7, color=MUTED, va="bottom")
    _key(figure)
    return figure


def _colours() -> list[tuple[float, ...]]:
    """A shade between each two of the levels, from far below to far above; none within the limit."""
    below, above = ([to_rgba(SERIES[k], alpha) for alpha in (0.18, 0.4, 0.65, 0.92)] for k in (0, 1))
    return [*below[::-1], (1.0, 1.0, 1.0, 0.0), *above]


def _shade(ax: Axes, panel: Panel, departure: Floats, lines: Floats) -> None:
    rows, columns = departure.shape
    x, y = panel.x.values(columns) * panel.x.scale, panel.y.values(rows) * panel.y.scale
    if not np.isfinite(departure).all():  # nothing to compare
        ax.contourf(x, y, np.isnan(departure).astype(float), [1e-9, 1.5], colors=[BAND])
    edges = [-math.inf, *(-level for level in LEVELS[::-1]), *LEVELS, math.inf]
    shown = np.ma.masked_invalid(np.clip(departure, -10, 10))
    ax.contourf(x, y, shown, [-20, *edges[1:-1], 20], colors=_colours())
    ax.plot(lines[:, 0] * panel.x.scale, lines[:, 1] * panel.y.scale, color=INK, lw=1.3)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _key(figure: Figure) -> None:
    """The shades in a row above the panels, with the levels between them."""
    ax = figure.add_axes((0.075, 1 - 0.3 / HEIGHT, 0.42, 0.1 / HEIGHT))
    for k, colour in enumerate(_colours()):
        ax.add_patch(Rectangle((k, 0), 1, 1, fc=colour, ec=MUTED, lw=0.5))
    levels = [-level for level in LEVELS[::-1]] + list(LEVELS)
    ax.set(xlim=(0, len(levels) + 1), ylim=(0, 1), yticks=[])
    ax.set_xticks(range(1, len(levels) + 1), [f"{100 * v:+g}".replace("-", "−") for v in levels])
    ax.tick_params(length=0, labelsize=7.5, labelcolor=MUTED, pad=2)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.text(len(levels) + 1.25, 0.5, "engine over equation, less 1 (%); the line is 1 %; grey: nothing to compare",
            va="center", fontsize=8.5, color=INK)  # fmt: skip


# -- in a report


def title(equation: str) -> str:
    """The title of an equation, in lower case as it stands in a sentence."""
    text = equations.get(equation).title
    return text[:1].lower() + text[1:]


@dataclass(frozen=True)
class Of:
    """The maps of one equation, as an exhibit of a report."""

    equation: str

    def run(self, quick: bool, seed: int) -> xr.Dataset:
        """The maps; the seed has no part in them."""
        return _mapped(self.equation, PANELS[self.equation], 15 if quick else 25)

    def draw(self, dataset: xr.Dataset) -> Figure:
        """The figure."""
        return draw(dataset)

    def tell(self, dataset: xr.Dataset) -> str:
        """How much of each map lies within 1 %, and what the equation assumes."""
        shares = []
        for panel in PANELS[self.equation]:
            departure = dataset[panel.name].values
            seen = departure[np.isfinite(departure)]
            shares.append(f"{100 * np.mean(np.abs(seen) <= LIMIT):.0f} % of the map ({panel.title.lower()})")
        held = "Equation and engine agree within 1 % over " + ", ".join(shares) + "."
        assumed = dataset.attrs["assumptions"]
        return f"{held} The equation assumes: {assumed[:1].lower() + assumed[1:]}" if assumed else held
