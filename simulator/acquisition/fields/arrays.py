"""Where the loops of receive arrays lie: on a cylinder around a limb, or flat under the spine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .loops import Loop, Polygon, rectangle

Floats = NDArray[np.float64]


def cylinder(
    count: int,
    rows: int,
    radius: float,
    length: float,
    *,
    centre: Sequence[float] = (0.0, 0.0, 0.0),
    axis: Sequence[float] = (0.0, 0.0, 1.0),
    overlap: float = 0.75,
) -> tuple[Loop, ...]:
    """Circular loops on a cylinder around a limb or the trunk, all alike.

    Parameters
    ----------
    count, rows : int
        Loops around, and rows along the axis; every second row is turned by half a loop.
    radius, length : float
        Of the cylinder (m); the outermost centres lie within the length.
    centre, axis : three floats
        x, y, z (m), and direction.
    overlap : float
        Distance of neighbours around the cylinder over their diameter: .75 takes away their inductive coupling on a
        plane (Roemer et al. 1990, doi:10.1002/mrm.1910160203).
    """
    _count("cylinder", count=count, rows=rows)
    _size("cylinder", radius=radius, length=length, overlap=overlap)
    along = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    one = np.cross(along, np.eye(3)[int(np.argmin(np.abs(along)))])
    one /= np.linalg.norm(one)
    two = np.cross(along, one)
    distance = 2 * radius * math.sin(math.pi / count) if count > 1 else radius
    loop = distance / overlap / 2
    heights = (np.arange(rows) - (rows - 1) / 2) * (length / rows)
    loops = []
    for row, height in enumerate(heights):
        for n in range(count):
            angle = 2 * math.pi * (n + (row % 2) / 2) / count
            outward = math.cos(angle) * one + math.sin(angle) * two
            place = np.asarray(centre, dtype=float) + radius * outward + height * along
            loops.append(Loop(_triple(place), _triple(-outward), loop))
    return tuple(loops)


def spine(
    rows: int = 4,
    columns: int = 3,
    *,
    width: float = 0.36,
    length: float = 0.48,
    centre: Sequence[float] = (0.0, -0.12, 0.0),
    overlap: float = 0.1,
) -> tuple[Polygon, ...]:
    """Flat rows of rectangular loops under the back of a patient who lies on them, normals to the front.

    Parameters
    ----------
    rows, columns : int
        Loops along z and along x.
    width, length : float
        Of the whole array, along x and z (m).
    centre : three floats
        x, y, z (m); it lies in the plane y = centre[1].
    overlap : float
        Share of a loop's edge by which neighbours overlap.
    """
    _count("spine", rows=rows, columns=columns)
    _size("spine", width=width, length=length)
    if not 0 <= overlap < 1:
        raise InputError(f"spine: overlap is {overlap!r}: expected a share from 0 to below 1")
    w, h = (size / (n - (n - 1) * overlap) for size, n in ((width, columns), (length, rows)))
    x0, y0, z0 = _triple(np.asarray(centre, dtype=float))
    return tuple(
        rectangle(
            (x0 + (c - (columns - 1) / 2) * w * (1 - overlap), y0, z0 + (r - (rows - 1) / 2) * h * (1 - overlap)),
            (0, 1, 0), (0, 0, 1), w, h,
        )
        for r in range(rows) for c in range(columns)
    )  # fmt: skip


def knee(centre: Sequence[float] = (0.0, 0.0, 0.0)) -> tuple[Loop, ...]:
    """Sixteen loops in two rows around a knee or lower leg: 16 cm wide inside, 18 cm long (a plausible coil)."""
    return cylinder(8, 2, 0.085, 0.18, centre=centre)


def ankle(centre: Sequence[float] = (0.0, 0.0, 0.0)) -> tuple[Loop, ...]:
    """Sixteen loops in two rows around an ankle and heel: 14 cm wide inside, 16 cm long (a plausible coil)."""
    return cylinder(8, 2, 0.075, 0.16, centre=centre)


def _triple(place: Floats) -> tuple[float, float, float]:
    x, y, z = (float(part) for part in place)
    return x, y, z


def _count(where: str, **counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise InputError(f"{where}: {name} is {value!r}: expected a whole number from 1 up")


def _size(where: str, **sizes: float) -> None:
    for name, value in sizes.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{where}: {name} is {value!r}: expected above 0")
