"""Pulseq files: a timeline from a ``.seq`` file of any version that pypulseq reads, faithful to each block's edges.

A block that a file plays again is one and the same `Block`: RF and receiver phases, which change with RF spoiling, are
taken off it and put into a `Repeat`, and blocks that recur in a period become one `Repeat` of many. An engine that
computes a block once then needs little more for a thousand repetitions.

Source of the format: Layton et al., Magn Reson Med 77:1544 (2017), doi:10.1002/mrm.26235; of the reader, pypulseq:
Ravi et al., J Open Source Softw 4:1725 (2019), doi:10.21105/joss.01725.
"""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import InputError
from ...constants import GYROMAGNETIC
from . import pulseq_events as events
from .pulseq_runs import Token, runs
from .sampled import echo_times, trajectory
from .timeline import Block, Hardware, Timeline

HARMLESS = ("TRIGGERS", "LABELSET", "LABELINC")
"""Extensions that change nothing of what the spins see."""

SOFT_DELAY = "DELAYS"
READ_BY_PYPULSEQ = (*HARMLESS, SOFT_DELAY)
VERSIONS = ((1, 2), (1, 5))
"""Oldest and newest file version."""


def read(
    path: str | Path,
    *,
    nucleus: str = "1H",
    field: float | None = None,
    delays: Mapping[str, float] | None = None,
    hardware: Hardware | None = None,
) -> Timeline:
    """The timeline of a Pulseq file.

    Parameters
    ----------
    path : path of a ``.seq`` file, version 1.2 to 1.5
    nucleus : str
        Pulseq gives gradients in Hz/m; in T/m they depend on the nucleus that the file is played for.
    field : float, optional
        Static field (T): needed where the file states frequencies in ppm.
    delays : mapping of str to float, optional
        Value (s) of each soft delay of the file, by its hint.
    hardware : Hardware, optional
        Limits beyond which the timeline warns; the file states none.

    Returns
    -------
    Timeline
        Named as the file says. RF whose use the file does not tell (before version 1.5) is an excitation up to
        90 degrees; above, a saturation where it is off resonance without a gradient, else a refocusing.

    Raises
    ------
    InputError
        pypulseq is missing, a file that it cannot read, an unknown nucleus, or something in the file that no engine
        plays: an extension other than labels and triggers, a soft delay or a frequency in ppm without its value, events
        that overlap. The message names block (by its number in the file) and time.
    """
    path = Path(path)
    if nucleus not in GYROMAGNETIC:
        raise InputError(f"{path}: nucleus is {nucleus!r}: expected {' or '.join(GYROMAGNETIC)}")
    text = _text(path)
    version = _version(path, text)
    text, strange = _without_unknown_extensions(text)
    file = _File(path, _parsed(path, text), version, strange, GYROMAGNETIC[nucleus], field, dict(delays or {}))
    blocks = runs(file.tokens())
    name = str(file.sequence.definitions.get("Name", path.stem))
    return Timeline(blocks, name=name, nucleus=nucleus, hardware=hardware or Hardware())


def definitions(path: str | Path) -> dict[str, str | tuple[float, ...]]:
    """What the file says of itself (``FOV``, ``Name``, ...): numbers as tuples, all else as text.

    Raises
    ------
    InputError
        As `read`, of a file that cannot be read.
    """
    found: dict[str, str | tuple[float, ...]] = {}
    section = re.search(r"^\[DEFINITIONS\]\s*$(.*?)(?=^\[|\Z)", _text(Path(path)), re.MULTILINE | re.DOTALL)
    for line in section.group(1).splitlines() if section else ():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            try:
                found[name] = tuple(float(word) for word in value.split())
            except ValueError:
                found[name] = value.strip()
    return found


# -- from file to pypulseq's sequence


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): expected a Pulseq file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text: expected a Pulseq file (.seq)") from None
    if "[VERSION]" not in text or "[BLOCKS]" not in text:
        raise InputError(f"{path}: no sections [VERSION] and [BLOCKS]: expected a Pulseq file (.seq)")
    return text


def _version(path: Path, text: str) -> tuple[int, int]:
    found = [re.search(rf"^{part}\s+(\d+)", text, re.MULTILINE) for part in ("major", "minor")]
    low, high = VERSIONS
    major, minor = (int(f.group(1)) if f else -1 for f in found)
    if not low <= (major, minor) <= high:
        stated = "not stated" if min(major, minor) < 0 else f"{major}.{minor}"
        raise InputError(f"{path}: version is {stated}: expected {low[0]}.{low[1]} to {high[0]}.{high[1]}")
    return major, minor


def _without_unknown_extensions(text: str) -> tuple[str, dict[int, str]]:
    """The file without the extensions that pypulseq does not know, and their names by number.

    pypulseq refuses such a file as a whole; here the block that uses one is to be named.
    """
    strange: dict[int, str] = {}

    def drop(section: re.Match[str]) -> str:
        if section.group(1) in READ_BY_PYPULSEQ:
            return section.group(0)
        strange[int(section.group(2))] = section.group(1)
        return ""

    kept = re.sub(r"^extension\s+(\S+)\s+(\d+)[^\n]*\n(?:(?!\[|extension\b)[^\n]*\n)*", drop, text, flags=re.MULTILINE)
    return kept, strange


def _parsed(path: Path, text: str) -> Any:
    """pypulseq's sequence object."""
    failure = ""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # it warns of every older version and of rasters that a file leaves out
        try:
            import pypulseq
        except ImportError:
            message = f"{path}: reading it needs pypulseq: expected the extra, pip install 'bonemri[pulseq]'"
            raise InputError(message) from None
        system = pypulseq.Opts(
            grad_raster_time=10e-6, rf_raster_time=1e-6, adc_raster_time=100e-9, block_duration_raster=10e-6
        )
        sequence = pypulseq.Sequence(system)
        # a copy that ends in a section of its own: pypulseq reads on for ever past the end of a shape that is cut off
        copy = Path(folder) / "copy.seq"
        copy.write_text(f"{text}\n\n[SIGNATURE]\nType none\n\n", encoding="utf-8")
        try:
            # its removal of duplicates rounds the amplitudes
            sequence.read(str(copy), remove_duplicates=False)
        except Exception as error:
            # raised below, without the traceback that would keep pypulseq's file open
            failure = f"{type(error).__name__}: {error}".splitlines()[0].replace(str(copy), str(path))
    if failure:
        raise InputError(f"{path}: pypulseq cannot read it ({failure}): expected a sound Pulseq file")
    if not sequence.block_events:
        raise InputError(f"{path}: no blocks: expected at least one")
    return sequence


# -- from pypulseq's blocks to ours


class _File:
    """The blocks of one file in order, each distinct one made once."""

    def __init__(
        self,
        path: Path,
        sequence: Any,
        version: tuple[int, int],
        strange: Mapping[int, str],
        gamma: float,
        field: float | None,
        delays: Mapping[str, float],
    ) -> None:
        self.path, self.sequence, self.version, self.strange = path, sequence, version, strange
        self.gamma, self.delays = gamma, delays
        # a ppm of the frequency (Hz)
        self.ppm = math.nan if field is None else 1e-6 * gamma * field
        self.made: dict[Any, Any] = {}

    def tokens(self) -> list[Token]:
        """Each block as played: what it is, and the phase that was taken off it."""
        found, time = [], 0.0
        edges = events.Edges(self.sequence, self.version)
        for number, row in self.sequence.block_events.items():
            where = f"{self.path}: block {number} at {time:g} s"
            try:
                duration = self._duration(number, int(row[6]))
                found.append(self._token(number, [int(i) for i in row], duration, edges))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                # what pypulseq raises where a number or a shape is wrong
                reason = f"{type(error).__name__}: {error.args[0] if error.args else 'no reason given'}"
                message = f"{where}: its events cannot be made ({reason})"
                raise InputError(f"{message}: expected events and shapes that the file holds whole") from None
            time += duration
        return found

    def _token(self, number: int, row: list[int], duration: float, edges: events.Edges) -> Token:
        rf_key, rf_phase = self._keyed(self.sequence.rf_library, row[1], events.RF_PHASE)
        adc_key, adc_phase = self._keyed(self.sequence.adc_library, row[5], events.ADC_PHASE)
        phase = rf_phase if rf_key else adc_phase
        # the receiver's phase counts from that of the pulse: equal for RF and receiver of a spoiled repetition
        behind = round(math.remainder(adc_phase - phase, 2 * math.pi), 12) if adc_key else 0.0
        outer = edges.of(number, row[2:5], duration)
        key = (rf_key, tuple(row[2:5]), outer, adc_key, behind, duration)
        if key not in self.made:
            self.made[key] = self._block(number, duration, behind, outer)
        return Token(self.made[key], phase if rf_key or adc_key else None)

    def _keyed(self, library: Any, index: int, places: tuple[int, int]) -> tuple[Any, float]:
        """What makes an event but for its phase, and its phase (rad)."""
        if not index:
            return None, 0.0
        data = library.data[index]
        shift, turn = places
        phase = float(data[turn]) + (float(data[shift]) * self.ppm if data[shift] else 0.0)
        if math.isnan(phase):
            raise InputError("a phase in ppm: expected the static field, field= (T)")
        kept = tuple(v for i, v in enumerate(data) if i not in places)
        return (kept, library.type.get(index)), phase

    def _block(self, number: int, duration: float, behind: float, outer: events.Outer) -> Block:
        played = self.sequence.get_block(number)
        gradients = [
            g
            for axis, edge in zip("xyz", outer, strict=True)
            if (given := getattr(played, f"g{axis}")) is not None
            and (g := events.gradient(axis, given, self.gamma, edge)) is not None
        ]
        made: list[Any] = [*gradients]
        if played.rf is not None:
            made.append(events.pulse(played.rf, self.sequence.rf_raster_time, self.ppm, bool(gradients)))
        if getattr(played, "adc", None) is not None:
            made += events.receivers(played.adc, self.ppm, behind)
        block = Block(*made, duration=duration)
        try:
            Timeline((block,))
        except InputError as error:
            raise InputError(str(error).partition("at 0 s: ")[2] or str(error)) from None
        return block

    def _duration(self, number: int, extension: int) -> float:
        """How long a block lasts (s): what the file says, or the soft delay that was chosen."""
        # get_block states 0 for files older than 1.4
        duration = float(self.sequence.block_durations[number])
        names = dict(zip(self.sequence.extension_numeric_idx, self.sequence.extension_string_idx, strict=True))
        seen: set[int] = set()
        while extension:
            if extension in seen:
                raise InputError(f"extension {extension} leads back to itself: expected a list that ends")
            seen.add(extension)
            kind, reference, extension = (int(v) for v in self.sequence.extensions_library.data[extension])
            name = names.get(kind, self.strange.get(kind, f"number {kind}"))
            if name == SOFT_DELAY:
                duration = self._chosen(reference, duration)
            elif name not in HARMLESS:
                raise InputError(f"extension {name} is not supported: expected labels, triggers or soft delays")
        return duration

    def _chosen(self, reference: int, default: float) -> float:
        """Length of a block whose soft delay is the user's (s)."""
        _, offset, factor, hint = self.sequence.soft_delay_library.data[reference]
        if hint not in self.delays:
            raise InputError(
                f"soft delay {hint}, {default:g} s unless changed: expected its value, delays={{{hint!r}: ...}} (s)"
            )
        duration = float(self.delays[hint] / factor + offset)
        if not (math.isfinite(duration) and duration >= 0):
            value = self.delays[hint]
            raise InputError(f"soft delay {hint} of {value!r} s makes a block of {duration:g} s: expected 0 s or more")
        return duration


__all__ = ["definitions", "echo_times", "read", "trajectory"]
