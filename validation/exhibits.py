"""What a study shows beside its claims: experiments of their own, each with a figure and a table.

An exhibit is a module with ``run(quick, seed) -> Dataset``, ``draw(dataset) -> Figure`` and ``tell(dataset) -> str``,
one sentence that is made from its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr
from markupsafe import Markup
from matplotlib.figure import Figure

from .style import to_svg

if TYPE_CHECKING:
    from .trial import Trial


@dataclass(frozen=True)
class Exhibit:
    """One experiment: what runs it, what draws it, and how its section is called."""

    key: str
    title: str
    lead: str
    run: Callable[[bool, int], xr.Dataset]
    draw: Callable[[xr.Dataset], Figure]
    tell: Callable[[xr.Dataset], str]


def registry() -> dict[str, Exhibit]:
    """All exhibits by name; their modules load when one is asked for."""
    return {}


def run(names: Iterable[str], quick: bool, seed: int) -> dict[str, xr.Dataset]:
    """Run the exhibits of these names."""
    known = registry()
    return {name: known[name].run(quick, seed) for name in names}


def sections(trial: Trial) -> list[dict[str, Any]]:
    """The sections of a report: title, lead, what was found, figure."""
    known = registry()
    found = []
    for name, dataset in getattr(trial, "exhibits", {}).items():
        if name in known:
            one = known[name]
            svg = Markup(to_svg(one.draw(dataset), name, f"{one.title}. {one.lead}"))
            found.append({"id": name, "title": one.title, "lead": one.lead, "svg": svg, "caption": one.tell(dataset)})
    return found
