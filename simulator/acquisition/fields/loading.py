"""How a conducting body loads receive loops, and so correlates their noise.

Source: Roemer et al. 1990, doi:10.1002/mrm.1910160203.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .loops import Conductor

Floats = NDArray[np.float64]

CONDUCTOR_VOXELS = 30_000
"""Voxels, about, on which electric fields are solved: a finer mask is brought to blocks of whole voxels. They vary
over centimetres, and the staircase of the surface costs a few percent of the noise, alike in all coils."""

PRECISION = 1e-6
"""Of the electric field's divergence, relative to that of the driving potential; the resistance errs by its square."""


def noise_resistance(
    loops: Sequence[Conductor], grid: Grid, mask: Any = None, conductivity: float = 1.0, frequency: float = 1.0
) -> Floats:
    """Resistance (Ohm) that a uniform conductor adds to each pair of loops, by the overlap of their electric fields.

    Parameters
    ----------
    loops : sequence of Loop or Polygon
    grid : Grid
    mask : array (z, y, x), optional
        The conductor; default the whole grid.
    conductivity, frequency : float
        S/m and Hz: the resistance goes with the first and the square of the second.

    Returns
    -------
    ndarray (coil, coil)
        Symmetric, and positive definite for loops that differ.

    Notes
    -----
    Skin depth and displacement currents are left out. The electric field stands on the faces between voxels, and no
    current passes the surface. The staircase of the surface acts as if the body ended a fifth of a voxel deeper.
    """
    from scipy.sparse import csr_matrix

    fine = grid.mask(mask, "noise_resistance")
    inside, step = _coarse(fine)
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(np.count_nonzero(inside))
    edges = np.array(grid.edges) * step
    volume = float(edges.prod())
    first, second, length, driven = [], [], [], []
    for axis in range(3):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        joined = inside[low] & inside[high]
        index = np.argwhere(joined).astype(float)
        index[:, axis] += 0.5
        place = grid.place((index + 0.5) * step - 0.5)
        first.append(number[low][joined])
        second.append(number[high][joined])
        length.append(np.full(len(index), edges[axis]))
        along = grid.axes[2 - axis]
        driven.append(np.stack([loop.potential(place) @ along for loop in loops], axis=1))
    one, other, apart = np.concatenate(first), np.concatenate(second), np.concatenate(length)
    potential = np.concatenate(driven)
    faces, count = np.arange(one.size), int(inside.sum())
    ends = np.concatenate([-1 / apart, 1 / apart]), (np.tile(faces, 2), np.concatenate([one, other]))
    gradient = csr_matrix(ends, shape=(one.size, count))
    charge = _conjugate_gradients((gradient.T @ gradient).tocsr(), -(gradient.T @ potential))
    electric = potential + gradient @ charge
    # not as a matrix product: that of BLAS would wait for the threads of a busy machine, and round by their number
    overlap = np.einsum("fj,fk->jk", electric, electric)
    return conductivity * (2 * math.pi * frequency) ** 2 * volume * overlap


def _conjugate_gradients(matrix: Any, target: Floats) -> Floats:
    """Solve for all columns of `target` at once, each to `PRECISION`; the matrix may be blind to a constant."""
    diagonal = matrix.diagonal()[:, None]
    diagonal = np.where(diagonal > 0, diagonal, 1.0)  # a voxel alone carries no current
    found, left = np.zeros_like(target), target.copy()
    size = np.sqrt(np.einsum("vk,vk->k", target, target))
    step = left / diagonal
    along = np.einsum("vk,vk->k", left, step)
    for _ in range(20 * len(target)):
        if (np.sqrt(np.einsum("vk,vk->k", left, left)) <= PRECISION * size).all():
            break
        image = matrix @ step
        curved = np.einsum("vk,vk->k", step, image)
        length = np.where(curved > 0, along / np.where(curved > 0, curved, 1.0), 0.0)
        found += length * step
        left -= length * image
        scaled = left / diagonal
        before, along = along, np.einsum("vk,vk->k", left, scaled)
        step = scaled + np.where(before > 0, along / np.where(before > 0, before, 1.0), 0.0) * step
    return found


def _coarse(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The mask in blocks of so many voxels a side that about `CONDUCTOR_VOXELS` are left; a block counts from half."""
    step = max(1, round((np.count_nonzero(mask) / CONDUCTOR_VOXELS) ** (1 / 3)))
    step = min(step, *mask.shape)
    if step == 1:
        return mask, 1
    filled = np.pad(mask, [(0, -n % step) for n in mask.shape])
    z, y, x = (n // step for n in filled.shape)
    return filled.reshape(z, step, y, step, x, step).mean(axis=(1, 3, 5)) >= 0.5, step
