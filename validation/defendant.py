"""An estimator on trial: how it is called, what it may be told, and what it owes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator.equations import get
from ..simulator.model import Model
from ..simulator.water_fat import WaterFat
from .claims import Sheet, read

AMPLITUDES = ("S0", "water", "fat")  # a scale of the scanner, not a biomarker


class BrokenEstimate(Exception):
    """An estimator raised, or returned something that is no estimate: one line that says what."""


@dataclass(frozen=True)
class Defendant:
    """An estimator on trial.

    Attributes
    ----------
    name : str
        Name in the table.
    call : callable
        scan -> Dataset.
    model : Model
        The equation it fits: rung ``matched`` scans it, and the bound is taken of it.
    unknowns : tuple of str
        What it estimates, scales of the scanner included.
    fitted : tuple of str
        The model's free unknowns; the others are held, at what it is told.
    chosen : mapping
        Options that differ from its defaults.
    magnitude : bool
        Whether it takes magnitudes alone: of a complex scan it gets them.
    quantities : tuple of str
        What is tried.
    options : frozenset of str
        What it may be told beside the scan.
    sheet : Sheet
        The claims it is held to.
    accused : str
        Name under which its claims stand: that of another estimator where a user's own is held to them.
    registered : bool
        Ours and third parties' are told sigma and asked for intervals; any other callable gets the scan alone.
    """

    name: str
    call: Callable[..., Any]
    model: Model
    unknowns: tuple[str, ...]
    quantities: tuple[str, ...]
    options: frozenset[str]
    sheet: Sheet
    accused: str
    fitted: tuple[str, ...] = ()
    registered: bool = True
    spatial: bool = False
    magnitude: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def varied(self, options: Mapping[str, Any], equation: str = "", held: Sequence[str] = ()) -> Defendant:
        """The same estimator with options of its own, which may fit another equation or hold some of its unknowns."""
        model = self.model
        fitted = self.fitted
        if equation:
            model = replace(self.model, equation=equation) if isinstance(self.model, WaterFat) else get(equation)
            fitted = tuple(unknown.name for unknown in model.unknowns)
        fitted = tuple(name for name in fitted if name not in held)
        return replace(self, model=model, fitted=fitted, chosen={**self.chosen, **options})

    @property
    def measurands(self) -> dict[str, set[str]]:
        """The measurands that the claims name, by quantity."""
        named: dict[str, set[str]] = {}
        for claim in self.sheet.claims:
            if claim.estimator == self.accused and claim.measurand:
                named.setdefault(claim.quantity, set()).add(claim.measurand)
        return named

    def estimate(
        self, scan: xr.DataArray, sigma: float | None, told: Mapping[str, Any], intervals: bool = True
    ) -> xr.Dataset:
        """Run it on a scan and hold the result to the contract of an estimate.

        Raises
        ------
        BrokenEstimate
            With the reason in one line.
        """
        if self.magnitude and np.iscomplexobj(scan.values):
            scan = scan.copy(data=np.abs(scan.values))
        try:
            if self.registered:
                options = {name: value for name, value in told.items() if name in self.options}
                found = self.call(scan, sigma=sigma, intervals=intervals, **options | dict(self.chosen))
            else:
                found = self.call(scan)
        except Exception as error:  # whatever a stranger's estimator does, the trial goes on
            text = " ".join(str(error).split()) or "no message"
            raise BrokenEstimate(f"{self.name} raised {type(error).__name__}: {text}") from error
        return self._checked(found, scan)

    def _checked(self, found: Any, scan: xr.DataArray) -> xr.Dataset:
        if not isinstance(found, xr.Dataset):
            raise BrokenEstimate(f"{self.name} returned {type(found).__name__}; an xarray.Dataset is expected")
        given = [name for name in self.quantities if name in found]
        if not given:
            raise BrokenEstimate(f"{self.name} returned none of {', '.join(self.quantities)}; it gives {_names(found)}")
        shape = scan.shape[:-1]
        for name in given:
            for member in (name, f"{name}_sd", f"{name}_lo", f"{name}_hi"):
                if member in found and found[member].shape != shape:
                    raise BrokenEstimate(f"{self.name}: {member} has shape {found[member].shape}; {shape} is expected")
                if member in found and not np.issubdtype(found[member].dtype, np.number):
                    raise BrokenEstimate(f"{self.name}: {member} is {found[member].dtype}; numbers are expected")
        return found


def registered(estimator: Any, sheets: dict[Path, Sheet]) -> Defendant:
    """A registered Estimator with its own claims; `sheets` keeps those already read."""
    path = Path(estimator.claims)
    if path not in sheets:
        sheets[path] = read(path)
    options = frozenset(estimator.options)
    given = set(estimator.quantities)
    # an option called as an unknown is its value, unless it is a word: how to treat it
    held = {name for name, default in estimator.options.items() if not isinstance(default, str)}
    return Defendant(
        name=estimator.name,
        call=estimator,
        model=estimator.model,
        unknowns=tuple(estimator.quantities),
        fitted=tuple(u.name for u in estimator.model.unknowns if u.name in given or u.name not in held),
        quantities=tuple(q for q in estimator.quantities if q not in AMPLITUDES),
        options=options,
        sheet=sheets[path],
        accused=estimator.name,
        spatial=bool(getattr(estimator, "spatial", False)),
        magnitude=getattr(estimator, "signal", "magnitude") == "magnitude",
    )


def outsider(call: Callable[..., Any], model_of: Defendant) -> Defendant:
    """Any callable, held to the claims of a registered estimator.

    Raises
    ------
    InputError
        When it cannot be called.
    """
    if not callable(call):
        raise InputError(f"estimator = {call!r}; a callable scan -> Dataset is expected")
    name = getattr(call, "name", None) or getattr(call, "__name__", type(call).__name__)
    name = "your estimator" if name == "<lambda>" else str(name)
    return replace(model_of, name=name, call=call, registered=False, spatial=True)


def sources(package: Path) -> str:
    """SHA-256 of the package's own text: a resumed run never mixes results of two versions."""
    digest = hashlib.sha256()
    for folder in ("simulator", "phantoms", "estimators", "validation"):
        for path in sorted((package / folder).rglob("*")):
            if path.suffix in (".py", ".toml"):
                digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _names(found: xr.Dataset) -> str:
    names: Sequence[str] = [str(name) for name in found.data_vars]
    return ", ".join(names) or "nothing"
