"""Where spins may go: everywhere, between planes, in a box, a sphere, a cylinder, or the open voxels of a grid.

All walls reflect. Lengths in m; the centre of box, sphere and cylinder is the origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

Floats = NDArray[np.float64]


def _three(name: str, values: Any) -> tuple[float, ...]:
    try:
        three = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        three = ()
    if len(three) != 3:
        raise InputError(f"{name} is {values!r}: expected three numbers")
    return three


def _positive(name: str, value: Any, infinite: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number > 0 and (infinite or math.isfinite(number))):
        raise InputError(f"{name} is {value!r}: expected above 0 m")
    return number


@dataclass(frozen=True)
class Box:
    """Walls at -size/2 and size/2 along x, y, z; an axis of infinite size is free."""

    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        size = (_positive("box: size", v, infinite=True) for v in _three("box: size", self.size))
        object.__setattr__(self, "size", tuple(size))

    @property
    def smallest(self) -> float:
        """Shortest way between walls (m)."""
        return min(self.size)

    @property
    def free(self) -> Floats:
        """Directions without walls (direction, 3)."""
        return np.eye(3)[~np.isfinite(self.size)]

    def starts(self, count: int, rng: np.random.Generator) -> Floats:
        """Places (walker, 3) spread evenly; at 0 along free axes, where the place makes no difference."""
        size = np.array(self.size)
        return (rng.random((count, 3)) - 0.5) * np.where(np.isfinite(size), size, 0.0)


FREE = Box((math.inf, math.inf, math.inf))
"""No walls."""


def slab(width: float, axis: str = "x") -> Box:
    """Two planes, `width` (m) apart, across x, y or z."""
    if axis not in ("x", "y", "z"):
        raise InputError(f"slab: axis is {axis!r}: expected x, y or z")
    return Box(tuple(width if a == axis else math.inf for a in "xyz"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sphere:
    """The inside of a sphere."""

    radius: float

    def __post_init__(self) -> None:
        _positive("sphere: radius", self.radius)

    @property
    def smallest(self) -> float:
        """Radius (m)."""
        return self.radius

    @property
    def free(self) -> Floats:
        """Directions without walls (direction, 3): none."""
        return np.empty((0, 3))

    @property
    def frame(self) -> Floats:
        """Unit vectors in which the walk runs, (3, 3), a row each."""
        return np.eye(3)

    def starts(self, count: int, rng: np.random.Generator) -> Floats:
        """Places (walker, 3) spread evenly."""
        way = rng.standard_normal((count, 3))
        return self.radius * np.cbrt(rng.random((count, 1))) * way / np.linalg.norm(way, axis=1, keepdims=True)


@dataclass(frozen=True)
class Cylinder:
    """The inside of an endless cylinder along `direction` (x, y, z; any length)."""

    radius: float
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        _positive("cylinder: radius", self.radius)
        if not 0 < np.linalg.norm(_three("cylinder: direction", self.direction)) < math.inf:
            raise InputError(f"cylinder: direction is {self.direction!r}: expected a finite vector with a length")

    @property
    def smallest(self) -> float:
        """Radius (m)."""
        return self.radius

    @property
    def frame(self) -> Floats:
        """Unit vectors in which the walk runs, (3, 3), a row each: two across it and one along."""
        along = np.array(self.direction) / np.linalg.norm(self.direction)
        across = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
        across /= np.linalg.norm(across)
        return np.stack([across, np.cross(along, across), along])

    @property
    def free(self) -> Floats:
        """Directions without walls (direction, 3)."""
        return self.frame[2:]

    def starts(self, count: int, rng: np.random.Generator) -> Floats:
        """Places across it (walker, 2), spread evenly."""
        angle = 2 * math.pi * rng.random(count)
        return self.radius * np.sqrt(rng.random((count, 1))) * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclass(frozen=True, eq=False)
class Voxels:
    """The open voxels of a grid, such as the marrow space among trabeculae, and what the main field does there.

    Attributes
    ----------
    open : bool array (z, y, x)
        Where spins may go; faces of the other voxels are walls.
    voxel_size : float or three
        Edge of a voxel along z, y, x (m).
    offset : array (z, y, x), optional
        Shift of the precession frequency at the centre of each voxel (Hz), of the closed ones too, as from
        `susceptibility.field` and `to_hertz`; linear between the centres.
    periodic : bool
        False: the faces of the grid are walls. True: the grid is repeated without end.
    """

    open: NDArray[np.bool_]
    voxel_size: float | Sequence[float]
    offset: Any = None
    periodic: bool = False

    def __post_init__(self) -> None:
        mask = np.asarray(self.open)
        if mask.ndim != 3 or 0 in mask.shape or mask.dtype != bool:
            raise InputError(f"voxels: open is {mask.dtype} of shape {mask.shape}: expected bool (z, y, x)")
        if not mask.any():
            raise InputError("voxels: open is False everywhere: expected room for one spin at least")
        size = self.voxel_size if np.ndim(self.voxel_size) else [self.voxel_size] * 3
        edges = tuple(_positive("voxels: voxel_size", v) for v in _three("voxels: voxel_size", size))
        object.__setattr__(self, "open", mask)
        object.__setattr__(self, "voxel_size", edges)
        if self.offset is not None:
            offset = np.ascontiguousarray(self.offset, dtype=float)
            if offset.shape != mask.shape or not np.isfinite(offset).all():
                shape = f"shape {offset.shape}"
                raise InputError(f"voxels: offset has {shape}: expected finite Hz of shape {mask.shape}, as open has")
            object.__setattr__(self, "offset", offset)

    @property
    def edge(self) -> Floats:
        """Edge of a voxel along x, y, z (m)."""
        return np.array(self.voxel_size)[::-1].copy()

    @property
    def smallest(self) -> float:
        """Shortest way between walls (m) by which the default step goes: pores are some voxels wide."""
        return 3 * float(self.edge.min())

    @property
    def free(self) -> Floats:
        """Directions without walls (direction, 3)."""
        return np.eye(3) if self.periodic else np.empty((0, 3))

    def starts(self, count: int, rng: np.random.Generator) -> Floats:
        """Places (walker, 3) spread evenly over the open voxels, in voxels along x, y, z from the grid's corner."""
        cells = np.argwhere(self.open)[rng.integers(int(self.open.sum()), size=count)][:, ::-1]
        return cells + rng.random((count, 3))


Medium = Box | Sphere | Cylinder | Voxels
