"""The unit of a phase image: rad, or what scanners and converters write in its place.

A phase of another unit is never guessed in silence. It is refused, with what it looks like; and it is converted where
the sidecar beside it states its unit: ``"Units": "rad"`` or ``"arbitrary"`` (BIDS), or ``"deg"``. Arbitrary are the
scanner's own integers, whose range is one turn: which range, the values tell.
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

ROUNDING = 1e-3
"""Of a turn: what converters' rounding may add to the ends of a range."""

MANY = 32
"""Numbers from which on a phase that is the same everywhere is none that was measured."""
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


# From narrow to wide: the first that fits is the one. Siemens writes 12 bits, 0 to 4095, or with its scaling -4096 to
# 4094; GE thousandths of a rad.
SCALES = (
    Scale("rad", -math.pi, math.pi, 2 * math.pi, False),
    Scale("rad", 0, 2 * math.pi, 2 * math.pi, False),
    Scale("degrees", -180, 180, 360, False),
    Scale("degrees", 0, 360, 360, False),
    Scale("12-bit integers -2048 to 2047", -2048, 2047, 4096, True),
    Scale("thousandths of a rad", -3142, 3142, 2000 * math.pi, True),
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
    if turn and unit in (None, *RADIANS):
        return values, None
    scale = next((s for s in SCALES if s.fits(known)), None)
    if unit in RADIANS:
        if scale is not None and scale.whole:
            raise InputError(f"{runs}, in rad by {sidecar}: it looks like {scale.name}; state its unit as it is")
        return values, None
    if unit in DEGREES:
        return np.radians(values), "phase from degrees"
    if unit in ARBITRARY:
        if scale is None:
            raise InputError(f"{runs}, in arbitrary units by {sidecar}; give the phase in rad, -pi to pi")
        return values * (2 * math.pi / scale.turn), f"phase from {scale.name}"
    if unit is not None:
        raise InputError(f"{sidecar}: Units is {unit!r}; the phase must be in rad, or deg or arbitrary (a scanner's "
                         "integers)")  # fmt: skip
    beside = nifti.beside(where, ".json")
    if scale is None:
        raise InputError(f'{runs}; the phase must be in rad, -pi to pi (a phase that is not wrapped: "Units": "rad" in '
                         f"{beside})")  # fmt: skip
    factor = {360.0: "pi/180", 2000 * math.pi: "0.001"}.get(scale.turn, f"pi/{scale.turn / 2:.0f}")
    say = "deg" if scale.turn == 360 else "arbitrary"
    raise InputError(f"{runs}: it looks like {scale.name}; the phase must be in rad: multiply it by {factor}, or state "
                     f'"Units": "{say}" in {beside}')  # fmt: skip


def _stated(sidecar: Path | None) -> str | None:
    """The unit that a sidecar states, in lower case."""
    if sidecar is None or not sidecar.is_file():
        return None
    unit = nifti.read_json(sidecar).get("Units")
    return unit.strip().lower() if isinstance(unit, str) else None
