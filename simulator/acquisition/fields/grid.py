"""Where the voxels of a map lie in the scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels (z, y, x) and their places in the scanner: x to the right, y to the front, z to the head, along B0.

    Attributes
    ----------
    shape : three int
        Voxels along z, y, x.
    voxel_size : three floats, optional
        Edge of a voxel along z, y, x (m).
    affine : array (4, 4) or (16,), optional
        Voxel index (x, y, z, 1) to position in mm, as in NIfTI; without it the grid lies centred in the scanner,
        along its axes. One of the two suffices.

    Raises
    ------
    InputError
        A shape, voxel size or affine that means nothing, both of them when they differ, or oblique voxels.
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float] | None = None
    affine: Any = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1 or shape != tuple(self.shape):
            raise InputError(f"grid: shape is {self.shape!r}: expected three whole numbers from 1 up (z, y, x)")
        object.__setattr__(self, "shape", shape)
        size, affine = self.voxel_size, self.affine
        if size is None and affine is None:
            raise InputError("grid: voxel_size and affine are missing: expected one of the two")
        if size is not None:
            given = np.ravel(np.asarray(size, dtype=float))
            if given.size != 3 or not (np.isfinite(given).all() and given.min() > 0):
                raise InputError(f"grid: voxel_size is {self.voxel_size!r}: expected three lengths above 0 m (z, y, x)")
            size = (float(given[0]), float(given[1]), float(given[2]))
        if affine is None:
            assert size is not None
            affine = np.diag([*(1e3 * edge for edge in size[::-1]), 1.0])
            affine[:3, 3] = [-(n - 1) / 2 * 1e3 * edge for n, edge in zip(shape[::-1], size[::-1], strict=True)]
        else:
            affine = _checked_affine(affine)
            edges = np.linalg.norm(affine[:3, :3], axis=0)[::-1] * 1e-3
            if size is not None and not np.allclose(edges, size, rtol=1e-6):
                raise InputError(f"grid: voxel_size is {size} m and that of the affine {tuple(edges)}: expected the "
                                 "same")  # fmt: skip
            size = tuple(edges.tolist())
        object.__setattr__(self, "voxel_size", size)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of(cls, shape: Sequence[int], attrs: Mapping[str, Any]) -> Grid:
        """The grid of a data set of this shape (z, y, x) whose attrs hold ``voxel_size``, ``affine`` or both."""
        z, y, x = (int(n) for n in shape)
        return cls((z, y, x), attrs.get("voxel_size"), attrs.get("affine"))

    @property
    def edges(self) -> tuple[float, float, float]:
        """Edge of a voxel along z, y, x (m)."""
        assert self.voxel_size is not None
        return self.voxel_size

    @property
    def axes(self) -> Floats:
        """Directions in the scanner (x, y, z) of the voxel axes x, y, z: (3, 3), a row each."""
        columns: Floats = self.affine[:3, :3]
        return (columns / np.linalg.norm(columns, axis=0)).T

    @cached_property
    def positions(self) -> Floats:
        """Centre of each voxel, (z, y, x, 3): x, y, z in m."""
        index = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in self.shape), indexing="ij"), axis=-1)
        return self.place(index)

    def place(self, index: Any) -> Floats:
        """Position (..., 3), x, y, z in m, of a voxel index (..., 3) given as z, y, x; it may be fractional."""
        place: Floats = np.asarray(index, dtype=float)[..., ::-1] @ self.affine[:3, :3].T + self.affine[:3, 3]
        return place * 1e-3

    def mask(self, mask: Any, where: str) -> NDArray[np.bool_]:
        """A mask over the grid, checked; None is every voxel.

        Raises
        ------
        InputError
            It has another shape or holds no voxel.
        """
        if mask is None:
            return np.ones(self.shape, bool)
        inside = np.asarray(mask)
        if inside.shape != self.shape:
            raise InputError(f"{where}: mask has shape {inside.shape}: expected {self.shape} (z, y, x)")
        inside = inside.astype(bool)
        if not inside.any():
            raise InputError(f"{where}: mask holds no voxel: expected one at least")
        return inside


def _checked_affine(affine: Any) -> Floats:
    try:
        matrix = np.asarray(affine, dtype=float).reshape(4, 4)
    except (TypeError, ValueError):
        raise InputError(f"grid: affine has shape {np.shape(affine)}: expected (4, 4) or 16 numbers (mm)") from None
    edges = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or edges.min() <= 0:
        raise InputError("grid: affine is not finite, or has an axis without length: expected voxel index to mm")
    unit = matrix[:3, :3] / edges
    if np.abs(unit.T @ unit - np.eye(3)).max() > 1e-5:
        raise InputError("grid: affine has axes that are not at right angles: expected rotation and voxel size alone")
    return matrix
