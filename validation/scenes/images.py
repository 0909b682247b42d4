"""Images of a known field on which water may be taken for fat: what a study lists as ``[[image]]``.

The scenes themselves, a body in a wide field and islands that air separates, are those of `fields`. Their signal
is typed there by itself, so that no equation of an estimator testifies for itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator.acquisition.protocol import Protocol
from .fields import KINDS, Scene, scene

SIGMAS = ("pooled", "given")
GRAIN = 1e-6  # s; echo times are written to this
LONGEST = 0.1  # s
REST = 1e-3  # s; of the repetition time, at least, after the last echo


@dataclass(frozen=True)
class Images:
    """Some images of one kind.

    Attributes
    ----------
    name : str
        By which claims speak of them.
    kind : str
        As `fields.scene` has them: smooth, islands, steps.
    spacing, echoes, first : tuple of float, int, float
        Echo trains: so many echoes, the first at `first`, each `spacing` after the one before (s).
    r2star : tuple of float
        1/s, the same over an image.
    snr : float
    count : int
        Images of each echo train and rate; ``count_quick`` of the quick run, where 0 is none.
    sigma : str
        ``pooled``, or ``given`` where the noise SD is told: two echoes leave nothing to tell it by.
    estimators : tuple of str
        Which are tried; all without.
    """

    name: str
    kind: str
    spacing: tuple[float, ...]
    r2star: tuple[float, ...]
    snr: float
    echoes: int = 6
    first: float = 1.2e-3
    count: int = 1
    count_quick: int = 1
    sigma: str = "pooled"
    estimators: tuple[str, ...] = ()

    def trains(self) -> list[tuple[float, float]]:
        """Echo spacing and R2* of each of its cases."""
        return list(itertools.product(self.spacing, self.r2star))

    def protocol(self, of: Protocol, spacing: float) -> Protocol:
        """A study's protocol with these echoes."""
        echo = tuple(round((self.first + n * spacing) / GRAIN) * GRAIN for n in range(self.echoes))
        longer = {"TR": max(float(of["TR"]), echo[-1] + REST)}
        return of.replace(name=f"{self.echoes} echoes, {1e3 * spacing:g} ms apart", echo=echo, **longer)

    def scene(self, protocol: Protocol, rate: float, rng: np.random.Generator) -> Scene:
        """Draw one image, noise included."""
        return scene(rng, kind=self.kind, times=np.asarray(protocol["TE"], float), r2star=rate, snr=self.snr,
                     field_strength=protocol.field_strength)  # fmt: skip


_NUMBERS = ("first", "snr")
_LISTS = ("spacing", "r2star")
_COUNTS = {"echoes": 2, "count": 1, "count_quick": 0}
_NEEDED = ("name", "kind", "spacing", "r2star", "snr")


def read(path: Path, entry: Any) -> Images:
    """One ``[[image]]`` of a study.

    Raises
    ------
    InputError
        One line with the file, the image, the field and the value, and what would be right.
    """
    if not isinstance(entry, Mapping):
        raise InputError(f"{path}: image = {entry!r}; a table is expected")
    where = f"{path}: image {entry.get('name', '')!r}"
    for key in _NEEDED:
        if key not in entry:
            raise InputError(f"{where}: {key} is missing")
    known = (*_NEEDED, *_NUMBERS, *_COUNTS, "sigma", "estimators")
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown field {key!r}; one of {', '.join(sorted(set(known)))}")
    if not (isinstance(entry["name"], str) and entry["name"]):
        raise InputError(f"{where}: name = {entry['name']!r}; text is expected")
    if entry["kind"] not in KINDS:
        raise InputError(f"{where}: kind = {entry['kind']!r}; one of {', '.join(KINDS)}")
    values: dict[str, Any] = {"name": entry["name"], "kind": entry["kind"]}
    for key in _LISTS:
        some = entry[key] if isinstance(entry[key], list) else [entry[key]]
        if not some or not all(_is_number(value) and value > 0 for value in some):
            raise InputError(f"{where}: {key} = {entry[key]!r}; a positive number or a list of them is expected")
        values[key] = tuple(map(float, some))
    for key in _NUMBERS:
        if key in entry:
            if not _is_number(entry[key]) or entry[key] <= 0:
                raise InputError(f"{where}: {key} = {entry[key]!r}; a positive number is expected")
            values[key] = float(entry[key])
    for key, low in _COUNTS.items():
        if key in entry:
            if not isinstance(entry[key], int) or isinstance(entry[key], bool) or entry[key] < low:
                raise InputError(f"{where}: {key} = {entry[key]!r}; an integer from {low} up is expected")
            values[key] = entry[key]
    for key in ("spacing", "first"):
        if np.max(values.get(key, 0.0)) > LONGEST:
            raise InputError(f"{where}: {key} = {entry[key]!r}; seconds below {LONGEST:g} are expected (given in ms?)")
    values["sigma"] = entry.get("sigma", "pooled")
    if values["sigma"] not in SIGMAS:
        raise InputError(f"{where}: sigma = {values['sigma']!r}; one of {', '.join(SIGMAS)}")
    methods = entry.get("estimators", [])
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise InputError(f"{where}: estimators = {methods!r}; a list of names is expected")
    return Images(**values, estimators=tuple(methods))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
