"""A study: which estimators are tried on which cases, rungs and noise levels, read from TOML.

A study is a table of grids. Each grid is a full factorial of tissue values on one rung; every combination is a case.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..simulator import tissues
from .claims import RUNGS, SHOWN
from .scenes.images import Images
from .scenes.images import read as read_images

FOLDER = Path(__file__).parent / "studies"
_STUDY = {"name", "title", "modality", "phantom", "tissue", "protocol", "field", "seed", "estimators", "subjects",
          "subjects_quick", "nuisances", "ranges", "base", "tell", "protocols", "grid", "confounder", "budget",
          "prior", "exhibits", "image"}  # fmt: skip
_GRID = {"name", "rung", "snr", "n", "n_elsewhere", "n_quick", "n_intervals", "sigma", "nuisances", "quick", "full",
         "estimators", "values", "replicates", "protocol", "variant", "options", "equation", "held",
         "tell"}  # fmt: skip
_CONFOUNDER = {"name", "title", "kind", "key", "unit", "strengths", "estimators", "values", "switches", "options",
               "protocol", "tell"}  # fmt: skip
_PRIOR = {"snr", "n", "n_quick", "n_exact", "wrong"}
_BUDGET = {"snr", "n", "n_quick", "values", "strengths"}
CONFOUNDER_KINDS = ("phantom", "switch", "protocol", "known", "belief", "spectrum", "noise")


@dataclass(frozen=True)
class Case:
    """One point of tissue, on one rung, at one SNR, with its nuisances known or drawn.

    A ``variant`` is an estimator with ``options`` other than its defaults, and where these change the equation that it
    fits, with that ``equation``. Unknowns that are ``held`` have no part in the bound. ``tell`` names what an
    estimator is told of the case and of the nuisances; None for all that it can take.
    """

    name: str
    rung: str
    snr: float
    nuisances: str
    sigma: str
    values: tuple[tuple[str, float], ...]
    estimators: tuple[str, ...]
    n: Mapping[str, int]
    protocol: str = ""
    variant: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    equation: str = ""
    held: tuple[str, ...] = ()
    tell: tuple[str, ...] | None = None

    @property
    def tissue(self) -> dict[str, float]:
        """Tissue values by name."""
        return dict(self.values)

    def replicates(self, estimator: str, identifiable: bool, quick: bool) -> int:
        """How many noise realisations: many where a narrow claim is decided, fewer elsewhere."""
        if quick:
            return min(self.n["quick"], self.n.get(estimator, self.n["quick"]))
        n = self.n["n"] if identifiable else self.n["elsewhere"]
        return min(n, self.n.get(estimator, n))

    def with_intervals(self, replicates: int) -> int:
        """How many of them are asked for intervals, which may cost many times the fit."""
        return min(replicates, self.n["intervals"])


@dataclass(frozen=True)
class Confounder:
    """One thing that goes wrong, at several strengths; at the first strength it is absent."""

    name: str
    title: str
    kind: str
    key: str
    unit: str
    strengths: tuple[float, ...]
    estimators: tuple[str, ...]
    values: Mapping[str, float]
    switches: Mapping[str, Any]
    options: Mapping[str, Any]
    protocol: str
    tell: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Study:
    """What is tried: read it with `load`, list its cases with `cases`.

    ``base`` are values of every case that does not say otherwise; ``ranges`` are those of nuisances that belong to no
    tissue, such as B1 and temperature, and their middles are what an estimator believes. ``protocols`` are presets with
    other settings: ``short = { from = "dixon_marrow", echo = [1.2e-3, 2.3e-3, 3.4e-3] }``.
    """

    name: str
    title: str
    modality: str
    phantom: str
    tissue: str
    protocol: str
    field: float
    seed: int
    estimators: tuple[str, ...]
    subjects: int
    subjects_quick: int
    nuisances: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    base: Mapping[str, float]
    tell: tuple[str, ...] | None
    protocols: Mapping[str, Mapping[str, Any]]
    grids: tuple[Mapping[str, Any], ...]
    confounders: tuple[Confounder, ...]
    budget: Mapping[str, Any]
    prior: Mapping[str, Any]
    images: tuple[Images, ...]
    exhibits: tuple[str, ...]
    text: str
    path: Path

    def cases(self, quick: bool) -> list[Case]:
        """The cases of the full or of the quick run, in a fixed order."""
        found = [case for grid in self.grids if grid.get("quick" if quick else "full", not quick)
                 for case in _cases(grid, self)]  # fmt: skip
        return found


def names() -> dict[str, Path]:
    """The studies that come with the package, by name (which is also their modality)."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load(path: str | Path) -> Study:
    """Read a study.

    Raises
    ------
    InputError
        One line with the file, the field and the value, and what would be right.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot read this study ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({' '.join(str(error).split())})") from None
    _known(path, "study", content, _STUDY)
    for key, kind in {"modality": str, "phantom": str, "protocol": str}.items():
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path}: {key} = {content.get(key)!r}; a {kind.__name__} is expected")
    if not isinstance(content.get("seed", 0), int) or content.get("seed", 0) < 0:
        raise InputError(f"{path}: seed = {content['seed']!r}; an integer from 0 up is expected")
    grids = content.get("grid", [])
    if not isinstance(grids, list) or not grids:
        raise InputError(f"{path}: no [[grid]]; a study needs cases")
    field = content.get("field", 3.0)
    ends = tissues.ranges(content["tissue"], field) if "tissue" in content else {}
    grids = [_checked_grid(path, f"grid {number}", grid, ends) for number, grid in enumerate(grids, 1)]
    tables = {name: content.get(name, {}) for name in ("prior", "budget", "base", "ranges", "protocols")}
    _known(path, "[prior]", tables["prior"], _PRIOR)
    _known(path, "[budget]", tables["budget"], _BUDGET)
    _check_values(path, tables["base"], tables["ranges"])
    for name, entry in tables["protocols"].items():
        if not (isinstance(entry, dict) and isinstance(entry.get("from"), str)):
            raise InputError(f'{path}: [protocols] {name} = {entry!r}; a table with from = "..." is expected')
    return Study(
        name=content.get("name", path.stem),
        title=content.get("title", path.stem),
        modality=content["modality"],
        phantom=content["phantom"],
        tissue=content.get("tissue", ""),
        protocol=content["protocol"],
        field=float(field),
        seed=content.get("seed", 0),
        estimators=tuple(content.get("estimators", ())),
        subjects=int(content.get("subjects", 32)),
        subjects_quick=int(content.get("subjects_quick", 4)),
        nuisances=tuple(content.get("nuisances", ())),
        ranges={name: (float(low), float(high)) for name, (low, high) in tables["ranges"].items()},
        base={name: float(value) for name, value in tables["base"].items()},
        tell=(tell := _told(content, None)),
        protocols=tables["protocols"],
        grids=tuple(grids),
        confounders=tuple(_confounder(path, entry, tell) for entry in content.get("confounder", [])),
        budget=tables["budget"],
        prior=tables["prior"],
        images=_images(path, content.get("image", [])),
        exhibits=tuple(content.get("exhibits", ())),
        text=text,
        path=path,
    )


def _check_values(path: Path, base: Any, ranges: Any) -> None:
    for where, table in (("[base]", base), ("[ranges]", ranges)):
        if not isinstance(table, dict):
            raise InputError(f"{path}: {where} = {table!r}; a table is expected")
    for name, value in base.items():
        if not _is_number(value):
            raise InputError(f"{path}: [base] {name} = {value!r}; a number is expected")
    for name, ends in ranges.items():
        if not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)) and ends[0] <= ends[1]):
            raise InputError(f"{path}: [ranges] {name} = {ends!r}; [low, high] is expected")


def _images(path: Path, entries: Any) -> tuple[Images, ...]:
    """The images of a study; claims speak of them by name, so names are unique."""
    if not isinstance(entries, list):
        raise InputError(f"{path}: image = {entries!r}; [[image]] tables are expected")
    found = tuple(read_images(path, entry) for entry in entries)
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: image {twice!r} occurs twice; names are unique")
    return found


def _cases(grid: Mapping[str, Any], study: Study) -> Iterator[Case]:
    values = grid["values"]
    axes = [[float(v) for v in _list(values[name])] for name in values]
    replicates = {k: int(v) for k, v in grid.get("replicates", {}).items()}
    n = {"n": int(grid["n"]), "elsewhere": int(grid.get("n_elsewhere", grid["n"])),
         "quick": int(grid.get("n_quick", min(512, grid["n"]))), "intervals": int(grid.get("n_intervals", grid["n"])),
         **replicates}  # fmt: skip
    for point in itertools.product(*axes):
        tissue = tuple(zip(values, point, strict=True))
        rest = tuple((key, value) for key, value in study.base.items() if key not in values)
        shown = [_shown(key, value) for key, value in tissue if value and (key in SHOWN or len(_list(values[key])) > 1)]
        # The columns of the table have no place for these, so the case says what is not the ordinary.
        name = ", ".join(filter(None, [*shown, *(grid.get(key, "") for key in ("name", "protocol", "variant"))]))
        for snr in _list(grid["snr"]):
            for nuisances in _list(grid.get("nuisances", "known")):
                for sigma in _list(grid.get("sigma", "given")):
                    yield Case(
                        name=name if sigma == "given" else f"{name}, sigma not given",
                        rung=grid["rung"], snr=float(snr), nuisances=nuisances, sigma=sigma, values=tissue + rest,
                        estimators=tuple(grid.get("estimators", ())), n=n, protocol=grid.get("protocol", ""),
                        variant=grid.get("variant", ""), options=tuple(grid.get("options", {}).items()),
                        equation=grid.get("equation", ""), held=tuple(grid.get("held", ())),
                        tell=_told(grid, study.tell),
                    )  # fmt: skip


def _checked_grid(path: Path, where: str, grid: Any, ends: Mapping[str, Any]) -> dict[str, Any]:
    """A grid whose values are numbers: "low" and "high" stand for the ends of the tissue's range."""
    _known(path, where, grid, _GRID)
    for key in ("rung", "snr", "n", "values"):
        if key not in grid:
            raise InputError(f"{path}: {where}: {key} is missing")
    if grid["rung"] not in RUNGS:
        raise InputError(f"{path}: {where}: rung = {grid['rung']!r}; one of {', '.join(RUNGS)}")
    if not all(_positive(s) for s in _list(grid["snr"])):
        raise InputError(f"{path}: {where}: snr = {grid['snr']!r}; positive numbers are expected")
    for key in ("n", "n_elsewhere", "n_quick", "n_intervals"):
        if key in grid and not (isinstance(grid[key], int) and grid[key] >= 2):
            raise InputError(f"{path}: {where}: {key} = {grid[key]!r}; an integer from 2 up is expected")
    for key, choices in {"sigma": ("given", "pooled"), "nuisances": ("known", "drawn")}.items():
        for value in _list(grid.get(key, choices[0])):
            if value not in choices:
                raise InputError(f"{path}: {where}: {key} = {value!r}; one of {', '.join(choices)}")
    for key, kind in {
        "variant": str,
        "protocol": str,
        "equation": str,
        "options": dict,
        "held": list,
        "tell": list,
    }.items():
        if not isinstance(grid.get(key, kind()), kind):
            raise InputError(f"{path}: {where}: {key} = {grid[key]!r}; a {kind.__name__} is expected")
    if {"options", "equation"} & set(grid) and not grid.get("variant"):
        raise InputError(f"{path}: {where}: options without a variant; claims speak of it by that name")
    if not isinstance(grid["values"], dict):
        raise InputError(f"{path}: {where}: values = {grid['values']!r}; a table of tissue values is expected")
    values = {}
    for name, value in grid["values"].items():
        found = [getattr(ends[name], v) if v in ("low", "high") and name in ends else v for v in _list(value)]
        if not found or not all(map(_is_number, found)):
            right = 'a number, "low" or "high" of the tissue\'s range, or a list of them'
            raise InputError(f"{path}: {where}: values.{name} = {value!r}; {right} is expected")
        values[name] = found
    return {**grid, "values": values}


def _confounder(path: Path, entry: Any, tell: tuple[str, ...] | None) -> Confounder:
    _known(path, "confounder", entry, _CONFOUNDER)
    for key in ("name", "kind", "strengths"):
        if key not in entry:
            raise InputError(f"{path}: a [[confounder]] without {key}")
    where = f"{path}: confounder {entry['name']!r}"
    if entry["kind"] not in CONFOUNDER_KINDS:
        raise InputError(f"{where}: kind = {entry['kind']!r}; one of {', '.join(CONFOUNDER_KINDS)}")
    strengths = _list(entry["strengths"])
    if not strengths or not all(map(_is_number, strengths)):
        raise InputError(f"{where}: strengths = {entry['strengths']!r}; a list of numbers is expected")
    return Confounder(
        name=entry["name"], title=entry.get("title", entry["name"]), kind=entry["kind"], key=entry.get("key", ""),
        unit=entry.get("unit", "1"), strengths=tuple(map(float, strengths)),
        estimators=tuple(entry.get("estimators", ())), values=entry.get("values", {}),
        switches=entry.get("switches", {}), options=entry.get("options", {}), protocol=entry.get("protocol", ""),
        tell=_told(entry, tell),
    )  # fmt: skip


def _told(entry: Mapping[str, Any], default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return tuple(map(str, entry["tell"])) if "tell" in entry else default


def _known(path: Path, where: str, content: Any, keys: set[str]) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{path}: {where} = {content!r}; a table is expected")
    for key in content:
        if key not in keys:
            raise InputError(f"{path}: {where}: unknown field {key!r}; one of {', '.join(sorted(keys))}")


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _shown(key: str, value: float) -> str:
    """A value in the unit that the field reads it in; a case name is short and says per cent alone."""
    symbol, scale, unit = SHOWN.get(key, (key, 1.0, ""))
    return f"{symbol} {value * scale:g}{unit if unit == ' %' else ''}"
