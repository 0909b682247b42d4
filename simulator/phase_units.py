"""The unit of a phase image: rad, or what scanners and converters write in its place.

A phase of another unit is never guessed in silence. It is refused, with what it looks like; and it is converted where
the sidecar beside it states its unit: ``"Units": "rad"`` or ``"arbitrary"`` (BIDS), ``"deg"``, ``"turns"`` or ``"pi"``
(multiples of it). Arbitrary are the scanner's own integers, whose range is one turn: which range, the values tell.

Turns and multiples of pi look like a phase in rad whose range is narrow, which an image of few voxels, or one that is
masked, may well have. What tells them apart is the wrap: a phase in rad within +-1 has none, while one of another unit
that fills its range leaps from one end to the other. Air alone fills it: its phase is anything.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import nifti

RADIANS = ("rad", "radian", "radians")
DEGREES = ("deg", "degree", "degrees")
ARBITRARY = ("arbitrary", "arb", "a.u.")
TURNS = ("turn", "turns", "cycle", "cycles")
MULTIPLES = ("pi", "pi rad", "pi*rad")

NAMES = '"rad", "deg", "turns", "pi" or "arbitrary" (a scanner\'s integers)'
"""What a sidecar may state, in words."""

ROUNDING = 1e-3
"""Of a turn: what converters' rounding may add to the ends of a range."""

MANY = 32
"""Numbers from which on a phase that is the same everywhere is none that was measured, and that may tell a unit."""

LEAP, LEAPS = 0.75, 3
"""Part of a turn by which neighbours of a smooth phase differ across its wrap alone; how many such pairs there are at
least."""

REACHES = 0.9
"""A phase wraps: over the voxels of an image it comes near both ends of its range, at least to this part of them. No
two of the ranges are so near that values could do so in both."""


@dataclass(frozen=True)
class Scale:
    """A range that one turn takes: its ends, and the value of a turn."""

    name: str
    low: float
    high: float
    turn: float
    whole: bool

    def fits(self, values: np.ndarray) -> bool:
        """Tell whether the values lie in the range, come near its ends, and are whole where they must be."""
        low, high = float(values.min()), float(values.max())
        slack = ROUNDING * self.turn
        inside = self.low - slack <= low and high <= self.high + slack
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        near = low <= middle - REACHES * half and high >= middle + REACHES * half
        return inside and near and (not self.whole or bool((values == np.round(values)).all()))


NARROW = (
    Scale("turns", -0.5, 0.5, 1.0, False),
    Scale("turns", 0, 1, 1.0, False),
    Scale("multiples of pi", -1, 1, 2.0, False),
    Scale("multiples of pi", 0, 2, 2.0, False),
)
"""Units in which a whole turn looks like part of one in rad."""

# From narrow to wide: the first that fits is the one. Siemens writes 12 bits, 0 to 4095, or with its scaling -4096 to
# 4094; GE and Philips thousandths of a rad, Philips by a slope that leaves no whole numbers.
SCALES = (
    Scale("rad", -math.pi, math.pi, 2 * math.pi, False),
    Scale("rad", 0, 2 * math.pi, 2 * math.pi, False),
    Scale("8-bit integers 0 to 255", 0, 255, 256, True),
    Scale("degrees", -180, 180, 360, False),
    Scale("degrees", 0, 360, 360, False),
    Scale("12-bit integers -2048 to 2047", -2048, 2047, 4096, True),
    Scale("thousandths of a rad", -3142, 3142, 2000 * math.pi, False),
    Scale("12-bit integers 0 to 4095", 0, 4095, 4096, True),
    Scale("12-bit integers -4096 to 4094", -4096, 4095, 8192, True),
    Scale("16-bit integers 0 to 65535", 0, 65535, 65536, True),
    Scale("16-bit integers -32768 to 32767", -32768, 32767, 65536, True),
)


def in_radians(
    values: np.ndarray, where: str | os.PathLike[str], sidecar: Path | None = None
) -> tuple[np.ndarray, str | None]:
    """Return a phase in rad, and in words what was made of it (None for a phase that was in rad).

    Parameters
    ----------
    values : ndarray
        The phase as the file holds it, its scaling applied. NaN and infinite values stay.
    where : path
        The file, for the errors.
    sidecar : path, optional
        Its ``Units``, where it is there, say what the values are.

    Raises
    ------
    InputError
        For values that are not in rad and whose unit is not stated, and for a unit that they cannot have.
    """
    unit = _stated(sidecar)
    known = values.ravel(order="K")  # as it lies: of a large image the order costs more than the look
    finite = np.isfinite(known)
    known = known if finite.all() else known[finite]
    if known.size == 0:
        return values, None
    low, high = float(known.min()), float(known.max())
    if low == high and known.size > MANY:
        raise InputError(f"{where} is {low:g} everywhere: it holds no phase; give the phase (rad) that was measured")
    runs = f"{where} runs from {low:g} to {high:g}"
    slack = 2 * math.pi * ROUNDING
    turn = max(-low, high) <= math.pi + slack or (low >= 0 and high <= 2 * math.pi + slack)
    narrow = next((s for s in NARROW if _fills(s, values, known)), None) if turn else None
    if turn and unit in RADIANS:
        return values, None if narrow is None else f"phase in rad as stated, though it looks like {narrow.name}"
    if turn and unit is None and narrow is None:
        return values, _doubt(low, high)
    scale = narrow or next((s for s in SCALES if s.fits(known)), None)
    if unit in RADIANS:
        # no phase is unwrapped over as much as 360 rad
        if scale is not None and scale.turn >= 360:
            raise InputError(f"{runs}, in rad by {sidecar}: it looks like {scale.name}; state its unit as it is")
        return values, None
    if unit in DEGREES:
        return np.radians(values), "phase from degrees"
    for names, whole in ((TURNS, 2 * math.pi), (MULTIPLES, math.pi)):
        if unit in names:
            return values * whole, f"phase from {'turns' if names is TURNS else 'multiples of pi'}"
    if unit in ARBITRARY:
        if scale is None:
            raise InputError(f"{runs}, in arbitrary units by {sidecar}; give the phase in rad, -pi to pi")
        return values * (2 * math.pi / scale.turn), f"phase from {scale.name}"
    if unit is not None:
        raise InputError(f"{sidecar}: Units is {unit!r}; the phase must be in rad, or of a unit that is known: {NAMES}")
    beside = nifti.beside(where, ".json")
    if scale is None:
        raise InputError(f'{runs}; the phase must be in rad, -pi to pi (a phase that is not wrapped: "Units": "rad" in '
                         f"{beside})")  # fmt: skip
    if scale in NARROW:
        factor, say = ("2 pi", "turns") if scale.turn == 1 else ("pi", "pi")
        raise InputError(
            f"{runs} and wraps there: it looks like {scale.name}; the phase must be in rad: multiply it "
            f'by {factor}, or state "Units": "{say}" in {beside} (or "rad", if that is what it is in)'
        )
    factor = {360.0: "pi/180", 2000 * math.pi: "0.001"}.get(scale.turn, f"pi/{scale.turn / 2:.0f}")
    say = "deg" if scale.turn == 360 else "arbitrary"
    raise InputError(f"{runs}: it looks like {scale.name}; the phase must be in rad: multiply it by {factor}, or state "
                     f'"Units": "{say}" in {beside}')  # fmt: skip


def _fills(scale: Scale, values: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether a phase of another unit than rad wraps at the ends of this range.

    A 0 is what a mask leaves, and says nothing. Of n numbers all over a range the outermost is within 6/n of its end
    but for a chance of exp(-6).
    """
    if not scale.fits(known):  # zeros included: of most images this is all that has to be looked at
        return False
    known = known[known != 0]
    middle, half = (scale.low + scale.high) / 2, (scale.high - scale.low) / 2
    if known.size < MANY:
        return False
    reach = (1 - min(0.1, max(0.02, 12 / known.size))) * half
    if float(known.min()) > middle - reach or float(known.max()) < middle + reach:
        return False
    measured = np.where(values == 0, np.nan, values)
    leaps = 0
    for axis in range(values.ndim):
        with np.errstate(invalid="ignore"):
            leaps += int(np.count_nonzero(np.abs(np.diff(measured, axis=axis)) > LEAP * scale.turn))
    return leaps >= LEAPS


def _doubt(low: float, high: float) -> str | None:
    """A word on a phase that could as well be of another unit: a turn of it, or pi, would look as narrow."""
    within = max(-low, high) <= 1 or (low >= 0 and high <= 2)
    if low == high or not within:
        return None
    return f"phase from {low:.3g} to {high:.3g} taken as rad; its sidecar can state another unit (turns, pi)"


def _stated(sidecar: Path | None) -> str | None:
    """The unit that a sidecar states, in lower case."""
    if sidecar is None or not sidecar.is_file():
        return None
    unit = nifti.read_json(sidecar).get("Units")
    return unit.strip().lower() if isinstance(unit, str) else None
