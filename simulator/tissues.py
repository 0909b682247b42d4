"""Tissue numbers: every value with its unit, range, field strength and source.

The numbers stand in ``tissues.toml``; this module reads them, interpolates between field strengths in one
documented way, and refuses everything else.

A quantity is addressed by its path, ``"marrow_water.T2"``. A record may hold for one *field* (T), else it
holds at every field, and for one *condition*, else it is the value of the healthy adult population; a
condition without a record of its own takes the population's (a fractured bone the osteoporotic's first).
Between two measured fields relaxation times
are interpolated as a power law of the field (linear in log value against log field), which is how T1
disperses [1]_; beyond the measured fields there is no value, and asking for one is an error.

Units are SI but for b (s/mm2), diffusivities (mm2/s), shifts and susceptibilities (ppm) and concentrations
(mol 1H/L, which is twice mol of water per litre).

References
----------
.. [1] Bottomley 1984, Med Phys 11:425, doi:10.1118/1.595535.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError

CONDITIONS = ("young", "old", "osteopenic", "osteoporotic", "fractured")
UNITS = ("1", "s", "m", "m2", "m3", "ppm", "ppm/C", "mm2/s", "mol 1H/L", "mol 31P/L", "1/s", "m/s", "1/m2", "1/m3",
         "deg", "L/(mol s)", "g/cm2", "mg/cm3", "year")
BODY_TEMPERATURE = 37.0  # C
# A fracture is that of an osteoporotic bone: what the fracture leaves alone is the osteoporotic's.
_NEXT = {"fractured": "osteoporotic"}


@dataclass(frozen=True)
class Entry:
    """One tissue number.

    Attributes
    ----------
    name : str
        Path, ``"tissue.quantity"``.
    value, low, high : float
        The number and the range it is drawn from, in ``unit``.
    sd : float
        Standard deviation over subjects or samples where the source gives one, else NaN.
    unit : str
        One of ``UNITS``.
    source : str
        Citation with DOI or PMID; where ``unverified``, why the number is believed.
    unverified : bool
        True where the number is from memory of the literature, not read in the source.
    field : float or None
        Field strength (T); None where the number does not depend on it.
    condition : str or None
        Condition of the bone; None for the healthy adult population.
    note : str
        How the number was derived from its source.
    apparent : mapping or None
        For a spin-density perfusion fraction: the fitted fraction f, TE, and T2 of blood and tissue water (s)
        from which value, low and high were calculated back.
    """

    name: str
    value: float
    low: float
    high: float
    sd: float
    unit: str
    source: str
    unverified: bool = False
    field: float | None = None
    condition: str | None = None
    note: str = ""
    apparent: Mapping[str, Any] | None = None


class Range(NamedTuple):
    """Lowest and highest value that claims cover and that nuisances are drawn from."""

    low: float
    high: float


class Spectrum(NamedTuple):
    """Chemical shifts (ppm, the main CH2 peak at 1.30) and relative areas (sum one)."""

    shift: np.ndarray
    area: np.ndarray


# The names under which a block of marrow is described, and where their numbers stand.
_MARROW = {
    "f": "marrow.perfusion_fraction",
    "D": "marrow_water.D",
    "D_star": "blood.D_star",
    "pdff": "marrow.pdff",
    "bvtv": "trabecular.bvtv",
    "T1_water": "marrow_water.T1",
    "T2_water": "marrow_water.T2",
    "T1_blood": "blood.T1",
    "T2_blood": "blood.T2",
    "T1_fat": "fat.T1",
    "T2_fat": "fat.T2",
    "D_fat": "fat.D",
    "suppression": "fat.suppression",
}
_RANGES = {"marrow": _MARROW}


# What `recording` notes down: numbers by name, field and condition, in the order in which they were read.
_read: ContextVar[tuple[dict[Any, Entry], ...]] = ContextVar("_read", default=())


@contextmanager
def recording() -> Iterator[dict[Any, Entry]]:
    """Note every number that is read meanwhile: a phantom knows what it was made of.

    Yields
    ------
    dict
        Of `Entry` values, filled as :func:`entry` is asked; a recording inside another fills both.
    """
    read: dict[Any, Entry] = {}
    token = _read.set((*_read.get(), read))
    try:
        yield read
    finally:
        _read.reset(token)


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    text = files(__package__).joinpath("tissues.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _citation(document: Mapping[str, Any], record: Mapping[str, Any], name: str) -> str:
    key = record.get("source", "")
    if record.get("unverified", False):
        return str(key)
    source = document["sources"].get(key)
    if source is None:
        raise InputError(f"tissues.toml: {name} names the source {key!r}, which [sources] does not hold")
    for kind, prefix in (("doi", "doi:"), ("pmid", "PMID "), ("url", "")):
        if kind in source:
            return f"{source['text']}, {prefix}{source[kind]}"
    raise InputError(f"tissues.toml: the source {key!r} has no doi, pmid or url")


@lru_cache(maxsize=1)
def _entries() -> dict[str, tuple[Entry, ...]]:
    document = _document()
    entries: dict[str, tuple[Entry, ...]] = {}
    for tissue, quantities in document.items():
        if tissue in ("sources", "spectra"):
            continue
        for quantity, records in quantities.items():
            name = f"{tissue}.{quantity}"
            entries[name] = tuple(_entry(document, name, record) for record in records)
    return entries


def _entry(document: Mapping[str, Any], name: str, record: Mapping[str, Any]) -> Entry:
    value, sd = float(record["value"]), float(record.get("sd", math.nan))
    low = float(record.get("low", value - 2 * sd))  # two SDs hold 95 % of subjects
    high = float(record.get("high", value + 2 * sd))
    field = record.get("field")
    return Entry(
        name, value, low, high, sd, record["unit"], _citation(document, record, name),
        unverified=bool(record.get("unverified", False)),
        field=None if field is None else float(field),
        condition=record.get("condition"),
        note=record.get("note", ""),
        apparent=record.get("apparent"),
    )


def table() -> list[Entry]:
    """Every record of ``tissues.toml``, in the order of the file."""
    return [entry for records in _entries().values() for entry in records]


def entry(name: str, field: float = 3.0, condition: str | None = None) -> Entry:
    """Look up one number with its range and source.

    Parameters
    ----------
    name : str
        Path, ``"tissue.quantity"``.
    field : float
        Field strength (T).
    condition : str, optional
        One of ``CONDITIONS``; default the healthy adult population.

    Returns
    -------
    Entry
        Between two measured fields: value, low and high interpolated as a power law of the field.

    Raises
    ------
    InputError
        Unknown name or condition, or a field outside the measured ones.
    """
    records = _entries().get(name)
    if records is None:
        raise InputError(f"tissues: no quantity {name!r}; known: {', '.join(_entries())}")
    check_condition(condition, "tissues")
    asked: list[str | None] = [condition]
    while asked[-1] is not None:
        asked.append(_NEXT.get(asked[-1]))
    chosen: list[Entry] = []
    for each in asked:
        chosen = chosen or [record for record in records if record.condition == each]
    if not chosen:
        known = ", ".join(sorted({str(record.condition) for record in records}))
        raise InputError(f"tissues: {name} is known only for a condition: {known}")
    found = chosen[0]
    if found.field is not None:
        found = _at_field(sorted(chosen, key=lambda record: record.field or 0.0), _field(field))
    for read in _read.get():
        read.setdefault((found.name, found.field, found.condition), found)
    return found


def _field(field: float) -> float:
    try:
        number = float(field)
    except (TypeError, ValueError):
        raise InputError(f"field is {field!r}, should be a field strength in tesla, such as 3.0") from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"field is {field!r}, should be a field strength in tesla, such as 3.0")
    return number


def _at_field(records: list[Entry], field: float) -> Entry:
    fields = [record.field or 0.0 for record in records]
    for record, at in zip(records, fields, strict=True):
        if math.isclose(at, field, rel_tol=1e-9):
            return record
    if not fields[0] < field < fields[-1]:
        known = ", ".join(f"{at:g}" for at in fields)
        raise InputError(f"tissues: {records[0].name} is not known at field {field:g} T (known: {known} T); "
                         "values are interpolated between fields, never extrapolated")
    above = next(i for i, at in enumerate(fields) if at > field)
    low, high = records[above - 1], records[above]
    weight = math.log(field / fields[above - 1]) / math.log(fields[above] / fields[above - 1])

    def between(a: float, b: float) -> float:
        return float(a ** (1 - weight) * b ** weight)

    return replace(
        low, value=between(low.value, high.value), low=between(low.low, high.low),
        high=between(low.high, high.high), sd=math.nan, field=field,
        unverified=low.unverified or high.unverified,
        source=f"{low.source}; {high.source}",
        note=f"interpolated as a power law of the field between {low.field:g} and {high.field:g} T",
    )


def value(name: str, field: float = 3.0, condition: str | None = None) -> float:
    """Value of one tissue number, in the unit of its entry; see :func:`entry`."""
    return entry(name, field, condition).value


def check_condition(condition: str | None, where: str) -> None:
    """Raise InputError unless `condition` is None or one of ``CONDITIONS``."""
    if condition is not None and condition not in CONDITIONS:
        raise InputError(f"{where}: no condition {condition!r}; known: {', '.join(CONDITIONS)}")


def ranges(tissue: str, field: float = 3.0, condition: str | None = None) -> dict[str, Range]:
    """Ranges that claims cover and that nuisances are drawn from.

    Parameters
    ----------
    tissue : str
        ``"marrow"``.
    field : float
        Field strength (T).
    condition : str, optional
        Ranges of one condition; default the union over the healthy population and all conditions.

    Returns
    -------
    dict of str to Range
        Names as the phantoms take them: f (spin density), D, D_star, pdff, bvtv, T1_water,
        T2_water, T1_blood, T2_blood, T1_fat, T2_fat, D_fat, suppression.
    """
    paths = _RANGES.get(tissue)
    if paths is None:
        raise InputError(f"tissues: no ranges for {tissue!r}; known: {', '.join(_RANGES)}")
    check_condition(condition, "tissues")
    asked = (None, *CONDITIONS) if condition is None else (condition,)
    found = {}
    for name, path in paths.items():
        entries = [entry(path, field, each) for each in asked]
        found[name] = Range(min(e.low for e in entries), max(e.high for e in entries))
    return found


def defaults(tissue: str, field: float = 3.0, condition: str | None = None) -> dict[str, float]:
    """Population (or condition) means under the names of :func:`ranges`: what an estimator may assume."""
    paths = _RANGES.get(tissue)
    if paths is None:
        raise InputError(f"tissues: no values for {tissue!r}; known: {', '.join(_RANGES)}")
    return {name: value(path, field, condition) for name, path in paths.items()}


def spectra() -> dict[str, str]:
    """Names of the fat spectra and the source of each."""
    document = _document()
    return {name: _citation(document, record, f"spectra.{name}")
            for name, record in document["spectra"].items()}


def spectrum(name: str = "fat_marrow") -> Spectrum:
    """Fat spectrum.

    Parameters
    ----------
    name : str
        One of :func:`spectra`; ``"fat_marrow"`` is the default of every marrow phantom.

    Returns
    -------
    Spectrum
        Shifts (ppm) with the main CH2 peak at 1.30, to which water stands as :func:`water_shift` says, and
        areas that sum to one.
    """
    records = _document()["spectra"]
    if name not in records:
        raise InputError(f"tissues: no fat spectrum {name!r}; known: {', '.join(records)}")
    shift = np.array(records[name]["shift"], dtype=float)
    area = np.array(records[name]["area"], dtype=float)
    return Spectrum(shift, area / area.sum())


def water_shift(temperature: float = BODY_TEMPERATURE) -> float:
    """Chemical shift of water (ppm) on the scale whose CH2 peak stands at 1.30, at `temperature` (C).

    Water moves with temperature while fat stands still: the water position comes from temperature alone.
    """
    return value("water.shift") + value("water.shift_slope") * temperature
