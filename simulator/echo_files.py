"""Which files belong together: one file an echo, as BIDS and converters name them, and what part each holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from . import files, nifti

WHAT = "a multi-echo scan"

NUMBERED = re.compile(r"(?<=echo-)(\d+)(?=[_.])|(?<=_e)(\d+)(?=[_.])")
"""The number of the echo in a file's name: ``echo-1`` of BIDS, ``_e1`` of dcm2niix."""

PART = re.compile(r"(?:part-|_)(real|imag|mag|ph)(?:inary|nitude|ase)?(?=[_.])")
"""The part in a file's name: ``part-real``, ``part-phase`` of BIDS, ``_imaginary``, ``_ph`` of dcm2niix."""


def of_set(path: str | os.PathLike[str]) -> list[Path]:
    """Return the file itself, or where its name holds the number of an echo, all files of that set in their order.

    Older converters leave the number of the first echo out: ``gre.nii.gz`` stands before ``gre_e2.nii.gz`` then.
    """
    path = files.existing_file(path, WHAT)
    found = NUMBERED.search(path.name)
    if found is None:
        second = _inserted(path, "_e2")
        if not second.is_file() or _inserted(path, "_e1").exists():
            return [path]
        return of_set(second)
    before, after = path.name[: found.start()], path.name[found.end() :]
    sisters = {}
    unnumbered = path.with_name(before.removesuffix("_e") + after)
    if before.endswith("_e") and unnumbered.is_file() and not path.with_name(f"{before}1{after}").exists():
        sisters[1] = unnumbered
    for file in path.parent.iterdir():
        number = file.name[len(before) : len(file.name) - len(after)]
        if file.name.startswith(before) and file.name.endswith(after) and number.isdecimal() and number.isascii():
            sisters[int(number)] = file
    if len(sisters) > 1 and sorted(sisters) != list(range(min(sisters), min(sisters) + len(sisters))):
        missing = next(n for n in range(min(sisters), max(sisters)) if n not in sisters)
        raise InputError(f"{path.parent / f'{before}{missing}{after}'}: no such file; the set of {path.name} holds the "
                         f"echoes {', '.join(map(str, sorted(sisters)))}")  # fmt: skip
    return [sisters[n] for n in sorted(sisters)]


def _inserted(path: Path, number: str) -> Path:
    """The name of a NIfTI with something before its suffix, or before the ``_ph`` of a phase."""
    stem = str(nifti.beside(path, ""))
    suffix = str(path)[len(stem) :]
    part = next((end for end in ("_ph", "_real", "_imaginary") if stem.endswith(end)), "")
    return Path(stem.removesuffix(part) + number + part + suffix)


def phase_of(path: str | os.PathLike[str]) -> Path | None:
    """The phase that BIDS has beside a magnitude: ``part-phase`` for ``part-mag``; None where there is none."""
    path = Path(path)
    phase = path.with_name(path.name.replace("part-mag", "part-phase"))
    return phase if phase != path and phase.is_file() else None


def part_of(path: str | os.PathLike[str]) -> str:
    """What a file's name says that it holds: "real", "imag", "mag", "ph" (phase), or nothing."""
    found = PART.search(Path(path).name.lower())
    return found.group(1) if found else ""
