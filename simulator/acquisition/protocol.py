"""One frozen Protocol: what the scanner was told to do, and the named presets with their source.

A Protocol is also a Mapping from the name of a setting (``TE``, ``TR``, ``b``, ...) to its value, a number or one
value for each point of the encoding table, so that an equation takes it as it stands.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import InputError
from .settings import FIELD, SETTINGS, Setting, is_number
from .suppression import FatSuppression

AVERAGING = ("magnitude", "complex")
COMBINATIONS = ("sum_of_squares", "optimal")
ECHO_TIMES = ("echo", "te")
"""Encoding dimensions that are echo times: there the protocol's `TE` is that column."""


@dataclass(frozen=True, eq=False)
class Protocol(Mapping[str, Any]):
    """What the scanner was told to do.

    Parameters
    ----------
    name, title : str
        Name of the preset, and one line that says what it is for.
    sequence : str
        Pulse sequence, as `simulator.scan` names it.
    equation : str
        Name of the closed-form equation that describes the ideal signal.
    encoding : str
        The encoding dimension of the scan (``b``, ``echo``, ...): one of the columns of `table`.
    table : mapping of str to sequence of float
        Encoding table: a column for each setting that changes from point to point, all of one length.
    constants : mapping of str to float
        Settings that hold for every point. SI units; b in s/mm2 (see `settings.SETTINGS`).
    field_strength : float
        Static field (T).
    averages, averaging : int, {"magnitude", "complex"}
        Acquisitions averaged into one image, and whether as magnitude images or as complex data.
    directions : int
        Gradient directions of the trace image that a diffusion scan stands for. Each average is one trace image,
        at b = 0 too; as pools diffuse isotropically, directions cost time but do not change the signal.
    coils, combination : int, {"sum_of_squares", "optimal"}
        Receive coils (uniform sensitivity), and how they become one image.
    fat_suppression : FatSuppression or mapping
        Efficiency for each fat peak.
    pulses : mapping of str to mapping
        What the sequence's pulses are: ``{"excitation": {"shape": "hard", "duration": 60e-6}}`` (see `pulses`). A
        pulse that is not stated is the sequence's default. Only the rungs `engine` and `scan` play pulses.
    readout : mapping
        How k-space is read: ``{"trajectory": "radial_3d", "spokes": 20000, "samples": 64, ...}`` (see `trajectory`).
        Only the rung `scan` reads k-space.
    source, notes : str
        DOI of the paper the settings come from, and what could not be confirmed or was assumed.

    Raises
    ------
    InputError
        One line that names the protocol, the field, its value, and what would be right.
    """

    name: str
    sequence: str
    equation: str
    encoding: str
    table: Mapping[str, tuple[float, ...]]
    field_strength: float
    constants: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    averages: int = 1
    averaging: str = "magnitude"
    directions: int = 1
    coils: int = 1
    combination: str = "sum_of_squares"
    fat_suppression: FatSuppression = field(default_factory=FatSuppression)
    pulses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    readout: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "sequence", "equation", "encoding", "title", "source", "notes"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"protocol: {name} is {getattr(self, name)!r}: expected text")
        table = {name: self._column(name, values) for name, values in self._mapping("table").items()}
        constants = {name: self._number(name, value) for name, value in self._mapping("constants").items()}
        self._check_columns(table, constants)
        self._check("field_strength", self.field_strength, FIELD)
        for name in ("averages", "directions", "coils"):
            count = getattr(self, name)
            if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
                raise self._error(name, count, "expected a whole number from 1 up")
            object.__setattr__(self, name, int(count))
        for name, choices in (("averaging", AVERAGING), ("combination", COMBINATIONS)):
            if getattr(self, name) not in choices:
                raise self._error(name, getattr(self, name), f"expected {' or '.join(choices)}")
        object.__setattr__(self, "field_strength", float(self.field_strength))
        object.__setattr__(self, "fat_suppression", self._suppression(self.fat_suppression))
        pulses = {name: self._entries(f"pulses.{name}", entry) for name, entry in self._named("pulses").items()}
        object.__setattr__(self, "pulses", MappingProxyType(pulses))
        object.__setattr__(self, "readout", self._entries("readout", self.readout))
        # read-only views: a frozen protocol whose table could still be changed would not be frozen
        object.__setattr__(self, "table", MappingProxyType(table))
        object.__setattr__(self, "constants", MappingProxyType(constants))

    # -- what is wrong, in one line

    def _error(self, name: str, value: object, right: str) -> InputError:
        shown = f"{value:g}" if is_number(value) else repr(value)
        return InputError(f"protocol {self.name}: {name} is {shown}: {right}")

    def _named(self, name: str) -> Mapping[str, Any]:
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            raise self._error(name, value, "expected names with their values")
        return value

    def _entries(self, name: str, value: Any) -> Mapping[str, Any]:
        """Entries that are text, numbers or lists of numbers: which of them mean something, their reader tells."""
        if not isinstance(value, Mapping):
            raise self._error(name, value, "expected names with their values")
        entries: dict[str, Any] = {}
        for key, entry in value.items():
            listed = entry if isinstance(entry, (list, tuple)) else [entry]
            if not isinstance(entry, (str, bool)) and not all(is_number(v) and math.isfinite(v) for v in listed):
                raise self._error(f"{name}.{key}", entry, "expected text, a finite number or a list of them")
            entries[key] = tuple(entry) if isinstance(entry, list) else entry
        return MappingProxyType(entries)

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = self._named(name)
        for key in value:
            if key not in SETTINGS:
                raise self._error(name, key, f"not a setting; known: {', '.join(SETTINGS)}")
        return value

    def _check(self, name: str, value: object, setting: Setting) -> None:
        if not is_number(value) or not math.isfinite(value):
            raise self._error(name, value, f"expected a finite number ({setting.unit})")
        if not setting.low <= value <= setting.high:
            hint = f" ({setting.mistake})" if setting.mistake and value > setting.high else ""
            unit = "" if setting.unit == "1" else f" {setting.unit}"
            raise self._error(name, value, f"expected {setting.low:g} to {setting.high:g}{unit}{hint}")

    def _number(self, name: str, value: Any) -> float:
        self._check(name, value, SETTINGS[name])
        return float(value)

    def _column(self, name: str, values: Any) -> tuple[float, ...]:
        if isinstance(values, (str, bytes)) or np.ndim(values) != 1:
            raise self._error(f"table column {name}", values, "expected a list of numbers")
        return tuple(self._number(name, value) for value in values)

    def _check_columns(self, table: Mapping[str, tuple[float, ...]], constants: Mapping[str, float]) -> None:
        if self.encoding not in table:
            raise self._error("encoding", self.encoding, f"not a column of the table ({', '.join(table) or 'empty'})")
        points = len(table[self.encoding])
        if points == 0:
            raise self._error(f"table column {self.encoding}", [], "expected at least one point")
        for name, values in table.items():
            if len(values) != points:
                raise InputError(
                    f"protocol {self.name}: table column {name} has {len(values)} values and {self.encoding} has "
                    f"{points}: expected the same length"
                )
        for name in table:
            if name in constants:
                raise self._error("constants", name, "also a column of the table; state it once")
        stated = {name: np.array(values) for name, values in {**constants, **table}.items()}
        if self.encoding in ECHO_TIMES:
            if "TE" in stated:
                raise self._error("TE", stated["TE"].flat[0], f"column {self.encoding} holds the echo times already")
            stated["TE"] = stated[self.encoding]
        if "TE" in stated and "TR" in stated and np.any(stated["TE"] >= stated["TR"]):
            raise self._error("TR", float(np.min(stated["TR"])), "expected a repetition time longer than TE (s)")

    def _suppression(self, value: object) -> FatSuppression:
        if isinstance(value, FatSuppression):
            return value
        if not isinstance(value, Mapping) or set(value) - {"method", "bands"}:
            raise self._error("fat_suppression", value, "expected method and bands")
        try:
            return FatSuppression(**value)
        except InputError as error:
            raise InputError(f"protocol {self.name}: {error}") from None

    # -- the settings as a mapping, which is how an equation reads them

    def __getitem__(self, name: str) -> Any:
        if name in self.table:
            return np.array(self.table[name])
        if name == "field_strength":
            return self.field_strength
        if name == "TE" and self.encoding in ECHO_TIMES:
            return np.array(self.table[self.encoding])
        return self.constants[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.table
        yield from self.constants
        yield "field_strength"

    def __len__(self) -> int:
        return len(self.table) + len(self.constants) + 1

    @property
    def points(self) -> int:
        """Number of points along the encoding dimension."""
        return len(self.table[self.encoding])

    def coords(self) -> dict[str, Any]:
        """Coordinates of a scan: columns of the table along the encoding dimension, scalars for the rest."""
        coords: dict[str, Any] = {}
        for name, value in self.items():
            setting = FIELD if name == "field_strength" else SETTINGS[name]
            dims = (self.encoding,) if name in self.table else ()
            coords[name] = (dims, value, {"units": setting.unit, "long_name": setting.meaning})
        return coords

    def replace(self, **changes: Any) -> Protocol:
        """A copy with some fields changed; a setting (``TE=.05``, ``b=(0, 500)``) goes to its constant or column."""
        table, constants = dict(self.table), dict(self.constants)
        fields = {f.name for f in dataclasses.fields(self)}
        for name in [name for name in changes if name not in fields]:
            value = changes.pop(name)
            table.pop(name, None)
            constants.pop(name, None)
            (table if np.ndim(value) else constants)[name] = value
        everything: dict[str, Any] = {"table": table, "constants": constants, **changes}
        return dataclasses.replace(self, **everything)

    # -- one JSON string, one TOML file

    def _plain(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["table"] = {name: list(values) for name, values in self.table.items()}
        plain["constants"] = dict(self.constants)
        plain["pulses"] = {name: dict(entry) for name, entry in self.pulses.items()}
        plain["readout"] = dict(self.readout)
        plain["fat_suppression"] = dataclasses.asdict(self.fat_suppression)
        return plain

    def to_json(self) -> str:
        """The whole protocol as one JSON string, as it stands in a scan's ``attrs["protocol"]``."""
        return json.dumps(self._plain())

    @classmethod
    def from_json(cls, text: str) -> Protocol:
        """The protocol that `to_json` wrote."""
        try:
            content = json.loads(text)
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"protocol: not JSON ({error}): expected what Protocol.to_json writes") from None
        return cls._from_plain(content, "protocol")

    @classmethod
    def from_toml(cls, path: str | Path) -> Protocol:
        """Read a protocol from a TOML file; without a ``name`` in it, the protocol is called after the file."""
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): expected a protocol in TOML") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML ({error}): expected a protocol in TOML") from None
        try:
            return cls._from_plain({"name": path.stem} | content, "protocol")
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def _from_plain(cls, content: object, where: str) -> Protocol:
        if not isinstance(content, Mapping):
            raise InputError(f"{where}: holds {type(content).__name__}: expected names with their values")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for name in content:
            if name not in fields:
                raise InputError(f"{where}: {name} is not a field of a protocol; known: {', '.join(fields)}")
        required = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
        for name in required:
            if name not in content:
                raise InputError(f"{where}: {name} is missing; a protocol needs {', '.join(required)}")
        return cls(**content)

    # -- the same settings are the same protocol

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Protocol) and self._plain() == other._plain()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:
        return Protocol.from_json, (self.to_json(),)  # a read-only mapping cannot be pickled


class Protocols:
    """The named presets: ``protocols.ivim_marrow``, ``list(protocols)``, ``protocols.get("mine.toml")``."""

    def __init__(self) -> None:
        self._loaded: dict[str, Protocol] = {}

    def __iter__(self) -> Iterator[str]:
        folder = resources.files(__package__) / "presets"
        return iter(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def get(self, name: str | Path) -> Protocol:
        """The preset of that name, or the protocol in that TOML file.

        Raises
        ------
        InputError
            No such preset (the message lists them), or a file that holds no protocol.
        """
        if str(name).endswith(".toml"):
            return Protocol.from_toml(name)
        key = str(name).replace("-", "_")
        if key not in self._loaded:
            if key not in self:
                raise InputError(f"unknown protocol {name!r}: expected a .toml file or one of {', '.join(self)}")
            with resources.as_file(resources.files(__package__) / "presets" / f"{key}.toml") as path:
                self._loaded[key] = Protocol.from_toml(path)
        return self._loaded[key]

    def __getattr__(self, name: str) -> Protocol:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.get(name)
        except InputError as error:
            raise AttributeError(str(error)) from None


protocols = Protocols()
