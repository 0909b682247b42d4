"""A phantom to look at: one PNG, and one page (a single HTML file) with its images, truth, make-up and sources.

The page shows what a scanner would see, what each voxel is made of, every truth map that varies, what was prescribed
and what was measured, and every tissue number with its range and a link to the paper it comes from.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..simulator import files
from . import pictures, wording
from .phantom import Phantom
from .pictures import View

TEMPLATES = Path(__file__).parent / "templates"
_SMALL_PART = 0.4  # of a slice: less is shown enlarged
_STOPS = 9  # of a colour bar: a perceptual scale is smooth


def write(phantom: Phantom, page: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write the page, and the PNG of the same name beside it.

    Parameters
    ----------
    phantom : Phantom
    page : path
        Ends in ``.html``; ``index.html`` gets ``preview.png``.

    Returns
    -------
    page, picture : Path

    Raises
    ------
    InputError
        The files cannot be written; neither is then left half written.
    """
    page = Path(page)
    picture = page.with_name("preview.png") if page.stem == "index" else page.with_suffix(".png")
    with files.writing(page) as place, files.writing(picture) as beside:
        seen = pictures.views(phantom)
        place.write_text(html(phantom, seen), encoding="utf-8")
        poster(phantom, beside, seen)
    return page, picture


def html(phantom: Phantom, seen: list[View] | None = None) -> str:
    """The page of a phantom, complete in itself: no other file, no script, no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    seen = seen or pictures.views(phantom)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    style = (TEMPLATES / "preview.css").read_text(encoding="utf-8")
    return environment.get_template("preview.html").render(style=style, **_content(phantom, seen))


def _content(phantom: Phantom, seen: list[View]) -> dict[str, Any]:
    """Everything the template prints."""
    pools, attrs = phantom.pools, phantom.pools.attrs
    main = seen[0]
    colours = pictures.pool_colours(pools)
    numbers = wording.numbers(attrs)
    maps, uniform = _truth(main)
    title = wording.title(phantom.name)
    anatomy = [_panel(view, *_anatomy(title, view, white)) for view, white in _whites(seen)]
    contrasts = [_panel(main, *_contrast(title, main, name)) for name in ("T2", "UTE")]
    contrasts.append(_panel(main, pictures.made_of(main, colours), "Composition", "each pool's colour by its volume",
                            f"{title}, {main.plane} slice, coloured by what each voxel is made of", "clear"))
    return {
        "version": __version__,
        "title": title,
        "lede": _lede(phantom.name),
        "facts": wording.facts(phantom),
        "command": wording.command(phantom),
        "strips": [anatomy, contrasts] if len(anatomy) > 1 else [anatomy + contrasts],
        "profile": _profile(main, colours),
        "pools": wording.pools(pools, colours),
        "maps": maps,
        "uniform": uniform,
        "plane": main.plane,
        "measured": wording.measured(attrs, numbers),
        "numbers": numbers,
        "unverified": sum(number["unverified"] for number in numbers),
    }


def _lede(name: str) -> str:
    from . import registry

    return (inspect.getdoc(registry[name]) or "").partition("\n")[0] if name in registry else ""


def _whites(seen: list[View]) -> Iterator[tuple[View, float]]:
    """Each slice with the level of white, which all slices of one weighting share."""
    white = pictures.white_of([pictures.weighted(view, "T1") for view in seen])
    return ((view, white) for view in seen)


def _anatomy(title: str, view: View, white: float) -> tuple[np.ndarray, str, str, str, str]:
    name, echo_time, repetition_time, _ = pictures.WEIGHTINGS["T1"]
    note = f"{name} (TE {1e3 * echo_time:g} ms, TR {repetition_time:g} s)"
    rgba = pictures.grey(pictures.weighted(view, "T1"), white)
    where = f"{wording.number(view.position)} mm from the middle of the grid"
    return rgba, view.plane.capitalize(), note, f"{title}, {view.plane} slice {where}, {name}", "film"


def _contrast(title: str, view: View, weighting: str) -> tuple[np.ndarray, str, str, str, str]:
    name, echo_time, repetition_time, words = pictures.WEIGHTINGS[weighting]
    image = pictures.weighted(view, weighting)
    times = f"TE {1e3 * echo_time:g} ms, TR {repetition_time:g} s"
    note = f"{times}; {words}"
    return pictures.grey(image, pictures.white_of([image])), name, note, f"{title}, {view.plane} slice, {name}", "film"


def _panel(view: View, rgba: np.ndarray, title: str, note: str, alt: str, kind: str) -> dict[str, Any]:
    """One image with its scale bar and directions, in millimetres as an SVG draws it."""
    length, label = pictures.scale_bar(view.width)
    # few voxels are shown as the squares they are; many would only flicker
    return {"rgba": rgba, "image": pictures.inline(rgba), "width": view.width, "height": view.height, "title": title,
            "note": note, "alt": alt, "kind": kind, "up": view.up, "left": view.left, "bar": length, "bar_label": label,
            "crisp": max(rgba.shape[:2]) <= 160}


def _truth(view: View) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The maps that vary within the slice, and the values that do not; quantities without a meaning are left out."""
    maps, uniform = [], []
    for name, values in view.truth.data_vars.items():
        shown = wording.quantity(str(name), values.attrs)
        scaled = values.values * shown.scale
        finite = scaled[np.isfinite(scaled)]
        if not finite.size:
            continue
        if np.ptp(finite) <= 1e-6 * np.abs(finite).max():
            uniform.append({"label": shown.label, "meaning": shown.meaning, "unit": shown.unit,
                            "value": wording.number(float(finite[0]))})
            continue
        low, high = _limits(finite)
        alt = f"map of {shown.label}, {view.plane} slice, {low:g} to {high:g} {shown.unit}".rstrip()
        part, detail = _detail(view, scaled)
        rgba = pictures.coloured(detail, low, high, shown.colours)
        note = f"{shown.meaning} (detail)" if part is not view else shown.meaning
        ticks = [wording.number(value) for value in (low, (low + high) / 2, high)]
        maps.append(_panel(part, rgba, shown.label, note, alt, "clear") | {
            "unit": shown.unit, "ticks": ticks, "gradient": _gradient(shown.colours),
            "colours": shown.colours, "median": wording.number(float(np.median(finite)))})
    return maps, uniform


def _detail(view: View, values: np.ndarray) -> tuple[View, np.ndarray]:
    """The part of a map that has a meaning, where that is a small part of the slice; else all of it."""
    rows, columns = (np.flatnonzero(np.isfinite(values).any(axis=axis)) for axis in (1, 0))
    margin = 1 + max(np.ptp(rows), np.ptp(columns)) // 20
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    part = values[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]
    if part.size > _SMALL_PART * values.size:
        return view, values
    height, width = (view.height * part.shape[0] / values.shape[0], view.width * part.shape[1] / values.shape[1])
    return replace(view, width=width, height=height), part


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits of a colour bar, in two digits: all but one per cent of the voxels lie inside."""
    low, high = (float(bound) for bound in np.percentile(values, [0.5, 99.5]))
    if low >= 0 and low < 0.25 * high:
        low = 0.0
    if high <= low:
        low, high = float(values.min()), float(values.max())
    step = 10.0 ** (np.floor(np.log10(high - low)) - 1)
    return float(np.floor(low / step + 1e-9) * step), float(np.ceil(high / step - 1e-9) * step)


def _gradient(colours: str) -> str:
    """A colour scale as CSS."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    stops = ", ".join(to_hex(colormaps[colours](place)) for place in np.linspace(0, 1, _STOPS))
    return f"linear-gradient(to right, {stops})"


def _profile(view: View, colours: Mapping[str, str]) -> dict[str, Any]:
    """Volume fractions of the pools, stacked along the row of the slice that crosses most of them."""
    volume = view.pools["volume_fraction"].values
    row = _fullest_row(volume)
    line = volume[:, row, :]
    # a voxel is one value over its whole width: the outline goes in steps
    places = np.repeat(np.arange(line.shape[1] + 1), 2)[1:-1] / line.shape[1]
    areas, below = [], np.zeros(2 * line.shape[1])
    for name, share in zip(view.pools["pool"].values, np.repeat(line, 2, axis=1), strict=True):
        above = below + share
        if share.max() > 1e-4:
            outline = [*zip(places, above, strict=True), *zip(places[::-1], below[::-1], strict=True)]
            areas.append({"name": wording.words(str(name)), "colour": colours[str(name)],
                          "points": " ".join(f"{1e3 * x:.1f},{300 * (1 - y):.2f}" for x, y in outline)})
        below = above
    step, _ = pictures.scale_bar(view.width * 1.6)
    ticks = [{"x": 1e3 * place / view.width, "label": f"{place:g}"}
             for place in np.arange(0, view.width * (1 + 1e-9), step)]
    return {"areas": areas, "ticks": ticks, "at": (row + 0.5) / volume.shape[1], "plane": view.plane,
            "names": ", ".join(area["name"] for area in areas), "left": wording.DIRECTIONS[view.left]}


def _fullest_row(volume: np.ndarray) -> int:
    """The row in which most pools have a part, then most volume, then nearest to the middle."""
    rows = volume.shape[1]
    many = (volume > 0.01).any(axis=2).sum(axis=0)
    filled = volume.sum(axis=(0, 2))
    centre = -np.abs(np.arange(rows) - (rows - 1) / 2)
    candidates = np.flatnonzero((many == many.max()) & (filled >= 0.8 * filled[many == many.max()].max()))
    return int(candidates[np.argmax(centre[candidates])])


# -------------------------------------------------------------------------------------------------------------- PNG


def poster(phantom: Phantom, path: str | os.PathLike[str], seen: list[View] | None = None) -> None:
    """The images and the truth maps of a phantom in one picture, on white paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seen = seen or pictures.views(phantom)
    main = seen[0]
    colours = pictures.pool_colours(phantom.pools)
    title = wording.title(phantom.name)
    top = [_panel(view, *_anatomy(title, view, white)) for view, white in _whites(seen)]
    for panel in top:
        panel["title"] += f", {pictures.WEIGHTINGS['T1'][0]}"
    top += [_panel(main, *_contrast(title, main, name)) for name in ("T2", "UTE")]
    top.append(_panel(main, pictures.made_of(main, colours), "Composition", "", "", "clear"))
    maps, _ = _truth(main)

    across, wide, tall = 6, 2.1, 2.7  # inches that an image may take
    above, below, head = 0.28, 0.6, 0.75  # room for its title, for its scale and colour bar, for the page's heading
    rows = [top[i : i + across] for i in range(0, len(top), across)]
    rows += [maps[i : i + across] for i in range(0, len(maps), across)]
    scales = [[min(wide / panel["width"], tall / panel["height"]) for panel in row] for row in rows]
    heights = [max(scale * panel["height"] for scale, panel in zip(each, row, strict=True)) + above + below
               for each, row in zip(scales, rows, strict=True)]
    size = (2.3 * across, sum(heights) + head)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.28 / size[1], title, fontsize=16, color="#1c2126", va="center")
    said = "  ·  ".join(f"{name} {value}" for name, value in wording.facts(phantom))
    figure.text(0.012, 1 - 0.55 / size[1], said, fontsize=8.5, color="#69727c", va="center")
    bottom = size[1] - head
    for row, each, height in zip(rows, scales, heights, strict=True):
        for j, (panel, scale) in enumerate(zip(row, each, strict=True)):
            image = (scale * panel["width"], scale * panel["height"])
            corner = (0.16 + 2.3 * j, bottom - above - image[1])
            place = (corner[0] / size[0], corner[1] / size[1], image[0] / size[0], image[1] / size[1])
            _draw(figure.add_axes(place), panel, scale)
        bottom -= height
    figure.savefig(path, dpi=150, facecolor="white", format="png")


def _draw(axes: Any, panel: Mapping[str, Any], inch: float) -> None:
    """One image with its scale bar, its directions and, for a map, its colour bar; `inch` is that of a unit of it."""
    width, height = panel["width"], panel["height"]
    film = panel["kind"] == "film"
    axes.imshow(panel["rgba"], extent=(0, width, height, 0), interpolation="nearest" if panel["crisp"] else "auto")
    axes.set_axis_off()
    unit = f" ({panel['unit']})" if panel.get("unit") else ""
    axes.set_title(panel["title"] + unit, fontsize=8.5, color="#1c2126", loc="left", pad=3)
    below = height + 0.1 / inch
    axes.plot([0, panel["bar"]], [below, below], color="#1c2126", lw=1.2, clip_on=False)
    axes.text(panel["bar"] + 0.05 / inch, below, panel["bar_label"], fontsize=6.5, color="#69727c", va="center")
    axes.set(xlim=(0, width), ylim=(height, 0))
    if film:
        edge = {"fontsize": 6.5, "color": "white"}
        axes.text(0.5 * width, 0.02 * height, panel["up"], ha="center", va="top", **edge)
        axes.text(0.02 * width, 0.5 * height, panel["left"], va="center", **edge)
    if "ticks" in panel:
        strip = axes.inset_axes((0.0, -0.3 / (height * inch), 1.0, 0.08 / (height * inch)))
        strip.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=panel["colours"])
        strip.set_axis_off()
        for place, side, text in zip((0.0, 0.5, 1.0), ("left", "center", "right"), panel["ticks"], strict=True):
            strip.text(place, -0.5, text, transform=strip.transAxes, fontsize=6.5, ha=side, va="top",
                       color="#69727c")
