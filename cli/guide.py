"""What a method, a phantom or a sequence can be told: the pages of ``bonemri estimate METHOD --help`` and its like.

Everything on a page is read from what it is about: the declaration of an estimator, the parameters of a phantom, the
switches of a sequence, and the words of their docstrings. A page is plain text, the same on a terminal and in a pipe.
"""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import explained

WIDTH = 100
"""Characters, at most; a narrower terminal has narrower pages."""

LEAST_ECHOES = {"dixon-2pt": "exactly two", "dixon-mixed": "at least four"}
"""Echo times that a method takes, where it is not at least three."""


BRINGS = {"t2star": "t2star=true", "r2star_fat": "rates=two", "first_phase": "first_echo=free",
          "bipolar_phase": "bipolar=true", "pdff_other": "both=true", "T1_error": "T1_correction=true"}  # fmt: skip
"""What is to be set for a further quantity."""


# -------------------------------------------------------------------------------------------------------- the pages


def method(name: str) -> str:
    """The page of an estimator.

    Raises
    ------
    InputError
        No estimator has that name.
    """
    from .. import estimators

    chosen: Any = estimators.get(name)
    echoes = getattr(chosen, "encoding", "b") != "b"
    lines = [f"Usage: bonemri estimate {name} INPUT{' [INPUT2]' * _takes_second(chosen)} [options]", "", chosen.title]
    lines += _paragraphs(explained.prose(chosen), "")
    source = getattr(chosen, "source", "")
    lines += _wrapped(f"Source: {source}", "") if source else []
    lines += ["", "Input:", *(line for text in _input(chosen, echoes) for line in _wrapped(text, "  "))]
    if echoes and getattr(chosen, "modality", "") == "fat":
        lines += ["", "Signs:", *_wrapped(_signs(getattr(chosen, "signal", "complex") == "complex"), "  ")]
    quantities = dict(getattr(chosen, "quantities", {}))
    lines += ["", "Quantities, each x with its standard uncertainty x_sd, and status (0 is good):"]
    lines += _table((q, unit, words) for q, (unit, words) in quantities.items())
    extras = {q: about for q, about in getattr(chosen, "extras", {}).items() if _brings(q) in {"", *chosen.options}}
    if extras:
        lines += ["", "With an option also:"]
        lines += _table((q, unit, BRINGS.get(q, ""), words) for q, (unit, words) in extras.items())
    options = {**chosen.options, "intervals": False}
    lines += ["", "Options of the method, each as --set name=value; what stands without:"]
    lines += _table((option, _plain(default), _words(chosen, option)) for option, default in options.items())
    if any(explained.takes_map(chosen, option) for option in options):
        lines += ["", "A map is named by its file (.nii, .nii.gz, .nc), on the voxels of INPUT."]
    lines += ["", "Options of every method (--mask, --sigma, -o, ...): bonemri estimate --help"]
    return "\n".join(lines)


def phantom(name: str) -> str:
    """The page of a phantom.

    Raises
    ------
    InputError
        No phantom has that name.
    """
    from .. import phantoms

    function = phantoms.get(name)
    said = inspect.getdoc(function) or ""
    words = explained.parameters(said)
    lines = [f"Usage: bonemri phantom {name} [--set name=value ...] [-o OUT]", ""]
    opening = re.split(r"\n(?:Parameters|Returns|Raises)\n-+", said)[0].strip().split("\n\n")
    for block in opening:  # a table of the docstring stays as it is
        lines += [block, ""] if "====" in block else [*_wrapped(explained.bare(block), ""), ""]
    lines += ["Parameters, each as --set name=value; what stands without:"]
    lines += _table(
        (p.name, _plain(p.default), explained.listed_choices(words.get(p.name, ""), function))
        for p in inspect.signature(function).parameters.values()
    )
    return "\n".join(lines)


def protocol(name: str) -> str:
    """The page of a protocol: what it plays, and the confounders of its sequence.

    Raises
    ------
    InputError
        No protocol has that name, or it is a file that holds none.
    """
    from ..simulator import protocols, sequences
    from ..simulator.acquisition.scanner import Scanner

    lines = [f"Usage: bonemri simulate {name} --phantom NAME|FILE [--rung RUNG] [--snr S] [--set name=value ...]", ""]
    if name.endswith(".seq"):
        sequence: Any = sequences.get("pulseq")
        lines += ["A Pulseq file: what it plays is in the file. Rungs: engine, scan."]
    else:
        chosen = protocols.get(name)
        sequence = sequences.get(chosen.sequence)
        lines += _wrapped(chosen.title or name, "")
        lines += _wrapped(f"Source: {chosen.source}", "") if chosen.source else []
        lines += _wrapped(chosen.notes, "") if chosen.notes else []
        rungs = ["matched", "pools", *["engine"] * bool(sequence.played), *["scan"] * bool(sequence.readout)]
        lines += ["", f"Sequence {chosen.sequence} at {chosen.field_strength:g} T; rungs: {', '.join(rungs)}"]
        settings = {key: f"{value:g}" for key, value in chosen.constants.items()}
        settings |= {key: ", ".join(f"{v:g}" for v in column) for key, column in chosen.table.items()}
        lines += _table((key, _unit(key), value) for key, value in settings.items())
        own = [key for key in chosen.constants if key not in sequence.switches]
        lines += _wrapped(f"Numbers of these may be changed, as --set name=value: {', '.join(own)}", "") if own else []
    lines += ["", "Confounders of the sequence, each as --set name=value:"]
    lines += _table((key, words) for key, words in sequence.switches.items()) or ["  none"]
    faults = {
        "concomitant": "the gradients have their concomitant fields",
        "odd_even_phase": "phase (rad) that turns its sign with the readout gradient of a bipolar train",
        "delays": "of the gradients (s): one number, or three along x, y, z",
    }
    if sequence.readout is not None:
        lines += ["", "Faults of the scanner, with --rung scan; what stands without:"]
        lines += _table((key, _plain(getattr(Scanner, key)), words) for key, words in faults.items())
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ what a method wants


def _words(chosen: Any, option: str) -> str:
    words = explained.words_for(chosen, option)
    return words + "; or a map" * (explained.takes_map(chosen, option) and "a map" not in words)


def _brings(quantity: str) -> str:
    """The option that brings a further quantity; none where we do not know it."""
    return BRINGS.get(quantity, "").partition("=")[0]


def _takes_second(chosen: Any) -> bool:
    return getattr(chosen, "encoding", "b") != "b" or "pdff" in chosen.options


def _input(chosen: Any, echoes: bool) -> list[str]:
    """What INPUT must be, a paragraph each."""
    from ..simulator import nifti, phase_units

    held = {coord: f"{field} ({unit})" for field, (coord, unit, _) in nifti.SIDECAR_FIELDS.items()}
    held |= {"flip_angle": "FlipAngle (degrees)"}
    asked = [held[s.name] for s in chosen.model.settings if s.name in held and not (echoes and s.name == "TE")]
    from_scan = "or a .nc of bonemri simulate"
    if not echoes:
        texts = [f"4-D NIfTI (x, y, z, b) with its .bval (s/mm2) beside it, or --bval; {from_scan}."]
        if asked:
            texts.append(f"A JSON sidecar beside it, or --protocol: {', '.join(asked)}.")
        if "pdff" in chosen.options:
            texts.append("INPUT2: a map of the PDFF, in place of --set pdff.")
        return texts
    signal = getattr(chosen, "signal", "either")
    kinds = {
        "complex": "Complex 4-D NIfTI (x, y, z, echo), or magnitudes with INPUT2 their phase (rad), or files of names "
                   "with part-real and part-imag",
        "magnitude": "Magnitudes, 4-D NIfTI (x, y, z, echo)",
    }  # fmt: skip
    what = kinds.get(signal, "Magnitudes, 4-D NIfTI (x, y, z, echo); of complex data the magnitudes are taken")
    least = LEAST_ECHOES.get(chosen.name, "at least three") if getattr(chosen, "modality", "") == "fat" else ""
    counts = f" Echo times, alike or not: {least}." if least else ""
    wanted = ["EchoTime (a list, s)", *asked]
    corrects = "T1_correction" in chosen.options
    optional = [held[name] for name in ("TR", "flip_angle") if corrects and name in getattr(chosen, "needs", ())]
    also = f"; for --set T1_correction=true {', '.join(optional)}" if optional else ""
    return [
        f"{what}; {from_scan}.{counts}",
        "One file an echo (..._echo-1_... of BIDS, ..._e1 of dcm2niix): name any one of them, the others are found.",
        f"A JSON sidecar beside it, or --protocol: {', '.join(wanted)}{also}.",
        *([f'A phase in other units than rad: state them in its sidecar, "Units": {phase_units.NAMES}.']
          if signal == "complex" else []),
    ]  # fmt: skip


def _signs(phase: bool) -> str:
    """Where fat and water stand; of magnitudes only what they show."""
    from ..simulator import water_fat
    from ..simulator.constants import GYROMAGNETIC

    offset = (1.30 - water_fat.OUTSIDE_WATER) * 1e-6 * GYROMAGNETIC["1H"] * 3.0
    signal = (
        f"s(t) = (W + F c(t)) exp(+i 2 pi fieldmap t) exp(-r2star t), the main peak of fat at negative frequency: "
        f"{offset:.0f} Hz at 3 T. Give --conjugate where the scanner's phase turns the other way. "
    )
    water = (
        f"Water stands at {water_fat.OUTSIDE_WATER:.2f} ppm unless --set temperature=C is given; our own scans carry "
        "theirs."
    )
    return signal * phase + water


# --------------------------------------------------------------------------------------------------------- plain text


def _unit(setting: str) -> str:
    from ..simulator.acquisition.settings import SETTINGS

    return SETTINGS[setting].unit if setting in SETTINGS else ""


def _plain(default: Any) -> str:
    """A default as one would type it after the equals sign."""
    if default is None or default is inspect.Parameter.empty or default == ():
        return "-"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | list):
        return f"[{', '.join(map(_plain, default))}]"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _width() -> int:
    return min(WIDTH, max(40, shutil.get_terminal_size((WIDTH, 24)).columns))


def _wrapped(text: str, indent: str, hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        explained.flat(text), _width(), initial_indent=indent, subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _paragraphs(text: str, indent: str) -> list[str]:
    return [line for part in text.split("\n\n") if part.strip() for line in _wrapped(part, indent)]


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns, the last of which is wrapped."""
    listed = list(rows)
    if not listed:
        return []
    widths = [min(20, max(len(row[i]) for row in listed)) for i in range(len(listed[0]) - 1)]
    lines = []
    for row in listed:
        start = "  " + "".join(f"{cell:<{width}}  " for cell, width in zip(row[:-1], widths, strict=True))
        hanging = " " * min(2 + sum(width + 2 for width in widths), _width() // 2)
        lines += _wrapped_after(start, row[-1], hanging)
    return lines


def _wrapped_after(start: str, text: str, hanging: str) -> list[str]:
    room = textwrap.wrap(
        text, _width(), initial_indent="x" * len(start), subsequent_indent=hanging, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [start + room[0][len(start) :], *room[1:]] if room else [start.rstrip()]


PAGES: Mapping[str, Callable[[str], str]] = {"estimate": method, "phantom": phantom, "simulate": protocol}
"""Verb to the page of what it is called with."""
