"""What a study shows beside its claims: experiments of their own, each with a figure and a table.

An exhibit is a module with ``run(quick, seed) -> Dataset``, ``draw(dataset) -> Figure`` and ``tell(dataset) -> str``,
one sentence that is made from its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr
from markupsafe import Markup

from ...simulator import threads
from ..report.style import to_svg
from ..report.wording import pretty

if TYPE_CHECKING:
    from ..trial import Trial


@dataclass(frozen=True)
class Exhibit:
    """One experiment: how its section is called, and what runs, draws and tells it."""

    key: str
    title: str
    lead: str
    made: Any


IMAGES = "images"  # made by the trial itself, of the images of its study


def registry() -> dict[str, Exhibit]:
    """All exhibits by name; their modules load when one is asked for."""
    from ..scenes import swaps
    from . import departures, discriminant, reproducibility, structure

    found = [
        Exhibit(
            IMAGES, "Is water taken for fat?",
            "Images whose field is wide, broken or in pieces: a voxel of water at one field looks much like one of "
            "fat at another. The true field above, below what the first estimator made of it.", swaps,
        ),
        Exhibit(
            "reproducibility", "Vials at six sites",
            "One phantom, three vendors' settings at two fields, and at each site a temperature, a B1 and a field of "
            "its own: is a fat fraction the same everywhere?", reproducibility,
        ),
        Exhibit(
            "structure", "R2* among trabeculae",
            "The same structure has another R2* at every echo train: the decay that it causes is no exponential at the "
            "echo times of the clinic.", structure,
        ),
        Exhibit(
            "discriminant", "Two biomarkers together",
            "Osteoporosis raises PDFF and T2*: how well do they tell who has it?", discriminant,
        ),
    ]  # fmt: skip
    for equation in departures.PANELS:
        found.append(
            Exhibit(f"departures-{equation}", f"Where the equations hold: {departures.title(equation)}",
                    "Inside the line the closed form and the pulses of the engine agree within 1 %.",
                    departures.Of(equation))
        )  # fmt: skip
    return {one.key: one for one in found}


def defaults() -> list[str]:
    """What the whole suite shows beside the exhibits of its studies: the maps of departures."""
    return [name for name in registry() if name.startswith("departures-")]


def run(names: Iterable[str], quick: bool, seed: int) -> dict[str, xr.Dataset]:
    """Run the exhibits of these names, side by side."""
    known, names = registry(), list(names)
    with ThreadPoolExecutor(threads.count()) as pool:
        return dict(zip(names, pool.map(lambda name: known[name].made.run(quick, seed), names), strict=True))


def sections(trial: Trial) -> list[dict[str, Any]]:
    """The sections of a report: title, lead, what was found, figure."""
    known = registry()
    found = []
    for name, dataset in getattr(trial, "exhibits", {}).items():
        if name in known:
            one = known[name]
            svg = Markup(to_svg(one.made.draw(dataset), name, f"{one.title}. {one.lead}"))
            caption = pretty(one.made.tell(dataset))
            found.append({"id": name, "title": one.title, "lead": one.lead, "svg": svg, "caption": caption})
    return found
