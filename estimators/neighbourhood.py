"""Means over a Gaussian neighbourhood of each place of an image, on a grid of blocks of voxels.

What is averaged is summed over blocks first, which are small against the neighbourhood: a mean over many voxels then
costs as little as one over few. Sums and counts go in, so that voxels may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NARROWEST = 2.0  # width (SD) of a neighbourhood in voxels at least: differences of neighbours reach over as many
PARTS = 1.0  # blocks in the width (SD) of a neighbourhood
FAINT = 0.1  # voxels of 1 that are put into a neighbourhood that may have none


@dataclass(frozen=True)
class Window:
    """A Gaussian neighbourhood over an image.

    Attributes
    ----------
    shape, grid : tuple of int
        Of the image, and of its blocks.
    edges : tuple of int
        Of a block, in voxels.
    widths : tuple of float
        SD of the neighbourhood along each axis, in blocks; 0 where places along an axis are no neighbours.
    cell : ndarray of int, (voxel,)
        Block of each voxel, over the flat order of the image.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    edges: tuple[int, ...]
    widths: tuple[float, ...]
    cell: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, ...], axes: list[int], voxels: float) -> Window:
        """One that holds about so many voxels, where the image reaches that far."""
        # a Gaussian of width w counts as many as (4 pi w^2)^(D/2); along a short axis it holds what is there
        free, volume = list(axes), float(voxels)
        while True:
            width = max(NARROWEST, volume ** (1 / len(free)) / np.sqrt(4 * np.pi)) if free else 0.0
            short = [a for a in free if shape[a] < 2 * width]
            if not short:
                break
            for a in short:
                volume = max(1.0, volume / shape[a])
                free.remove(a)
        longest = [max(width, shape[a] / 2.0) if a not in free else width for a in axes]
        edges, widths = [1] * len(shape), [0.0] * len(shape)
        for a, w in zip(axes, longest, strict=True):
            edges[a] = max(1, min(int(w / PARTS), shape[a]))
            widths[a] = w / edges[a]
        grid = tuple(-(-n // e) for n, e in zip(shape, edges, strict=True))
        cell = np.zeros(shape, np.int64)
        for a, (n, e) in enumerate(zip(shape, edges, strict=True)):
            along = (np.arange(n) // e).reshape([-1 if b == a else 1 for b in range(len(shape))])
            cell = cell * grid[a] + along
        return cls(tuple(shape), grid, tuple(edges), tuple(widths), cell.ravel())

    @property
    def count(self) -> int:
        """Number of blocks."""
        return int(np.prod(self.grid))

    def summed(self, values: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Sum of some voxels' values over the blocks that they lie in, (block,)."""
        sums: np.ndarray = np.bincount(cell, weights=values, minlength=self.count)
        return sums

    def counted(self, cell: np.ndarray) -> np.ndarray:
        """Number of voxels in each block, (block,)."""
        return np.bincount(cell, minlength=self.count).astype(float)

    def moment(self, blocks: np.ndarray, powers: dict[int, int], square: bool = False) -> np.ndarray:
        """Sum over the neighbourhood of each block, weighted by powers of the distance along axes."""
        from scipy import ndimage

        image = blocks.reshape(self.grid)
        for axis, width in enumerate(self.widths):
            if width > 0 and self.grid[axis] > 1:
                reach = min(int(np.ceil(4 * width)), self.grid[axis] - 1)
                u = np.arange(-reach, reach + 1) / width
                kernel = np.exp(-(u**2) * (1.0 if square else 0.5)) * u ** powers.get(axis, 0)
                image = ndimage.correlate1d(image, kernel, axis=axis, mode="constant")
        out: np.ndarray = image.ravel()
        return out

    def constant(self, sums: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the neighbourhood of each block, and how many voxels it counts as."""
        whole = self.moment(count, {})
        many = whole > 1e-9
        safe = np.where(many, whole, 1.0)
        square = np.maximum(self.moment(count, {}, square=True), 1e-300)
        return np.where(many, self.moment(sums, {}) / safe, 1.0), np.where(many, whole**2 / square, 0.0)

    def linear(self, sums: np.ndarray, count: np.ndarray) -> np.ndarray:
        """As `constant`, by a plane laid through the neighbourhood: right at rims too, where that lies to one side.

        A tenth of a voxel of 1 is put into each neighbourhood: it decides where there is no other.
        """
        first, matrix = self._plane(count)
        right = np.stack([self.moment(sums, powers) for powers in self._powers], axis=-1)
        right[:, 0] += FAINT
        plain = right[:, 0] / matrix[:, 0, 0]
        value: np.ndarray = np.clip((first * right).sum(axis=1), 0.5 * plain, 2.0 * plain)
        return value

    def effective(self, count: np.ndarray) -> np.ndarray:
        """How many voxels the value of `linear` counts as, (block,)."""
        first, _ = self._plane(count)
        spread = self._matrix(count, square=True)
        spread[:, 0, 0] += FAINT
        value: np.ndarray = 1 / np.einsum("bi,bij,bj->b", first, spread, first)
        return value

    @property
    def _powers(self) -> list[dict[int, int]]:
        """Of the distances, in the terms of a plane: none, then one axis after the other."""
        return [{}, *({a: 1} for a, n in enumerate(self.grid) if n > 1 and self.widths[a] > 0)]

    def _plane(self, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the terms of a plane count in its value at the middle of the neighbourhood, and their products' sums."""
        matrix = self._matrix(count)
        matrix += FAINT * np.eye(matrix.shape[1])
        unit = np.zeros((*matrix.shape[:2], 1))
        unit[:, 0] = 1.0
        return np.linalg.solve(matrix, unit)[..., 0], matrix

    def _matrix(self, count: np.ndarray, square: bool = False) -> np.ndarray:
        powers = self._powers
        matrix = np.empty((self.count, len(powers), len(powers)))
        for i, one in enumerate(powers):
            for j, other in enumerate(powers[: i + 1]):
                both = {a: one.get(a, 0) + other.get(a, 0) for a in (*one, *other)}
                matrix[:, i, j] = matrix[:, j, i] = self.moment(count, both, square)
        return matrix

    def spread(self, blocks: np.ndarray) -> np.ndarray:
        """Values of blocks at the voxels, linear between their middles, (voxel,)."""
        image = blocks.reshape(self.grid)
        for axis, (n, edge) in enumerate(zip(self.shape, self.edges, strict=True)):
            at = np.clip((np.arange(n) - (edge - 1) / 2) / edge, 0, self.grid[axis] - 1)
            low = np.minimum(at.astype(int), max(self.grid[axis] - 2, 0))
            high = np.minimum(low + 1, self.grid[axis] - 1)
            part = (at - low).reshape([-1 if b == axis else 1 for b in range(len(self.shape))])
            image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
        return np.asarray(image.ravel())
