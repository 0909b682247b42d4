"""The signal of many voxels that differ in nothing but their fields: computed at a few fields, and interpolated.

What a sequence's pulses make of B1 and of an offset is a smooth function of both, once the offset's free precession is
taken off. Polynomials through Chebyshev points find it to any precision, and it is tried at voxels of its own: where a
function is not smooth enough, the voxels are computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

PRECISION = 1e-5
"""Largest error of an interpolated signal, relative to the largest signal: half of that of an engine's steps."""
NODES = (9, 17, 33)
"""Points along B1 and along the offset, tried in turn."""
TRIED = 16
"""Voxels at which an interpolation is tried."""

Floats = NDArray[np.float64]
Answer = Callable[[NDArray[np.complex128], Floats], NDArray[np.complex128]]


def over_fields(answer: Answer, B1: NDArray[np.complex128], offset: Floats, free: Floats) -> NDArray[np.complex128]:
    """Signal (row, point) of every row.

    Parameters
    ----------
    answer : function (B1 (row,), offset (row,)) -> ndarray (row, point)
    B1 : complex ndarray (row,)
        Its phase turns all pulses alike, and so the signal.
    offset : ndarray (row,)
        Hz.
    free : ndarray (point,)
        For how long (s) an offset has turned the signal of each point, with its sign.
    """
    scale, phase = np.abs(B1), np.exp(1j * np.angle(B1))
    turned = np.exp(2j * np.pi * np.multiply.outer(offset, free)) * phase[:, None]
    axes = [(scale, scale.min(), scale.max()), (offset, offset.min(), offset.max())]
    tried = np.unique(np.linspace(0, B1.size - 1, TRIED).astype(int))
    known = answer(B1[tried], offset[tried])
    for count in NODES:
        parts = [_points(v, low, high, count) for v, low, high in axes]
        (at_B1, weigh_B1), (at_offset, weigh_offset) = parts
        if at_B1.size * at_offset.size * 2 > B1.size:
            break
        first, second = (m.ravel() for m in np.meshgrid(at_B1, at_offset, indexing="ij"))
        still = answer(first.astype(complex), second) * np.exp(-2j * np.pi * np.multiply.outer(second, free))
        cube = still.reshape(at_B1.size, at_offset.size, -1)
        found = np.empty((B1.size, cube.shape[-1]), complex)
        for point in range(cube.shape[-1]):
            found[:, point] = ((weigh_B1 @ cube[..., point]) * weigh_offset).sum(axis=1)
        found *= turned
        if np.abs(found[tried] - known).max() <= PRECISION * np.abs(known).max():
            return found
    return answer(B1, offset)


def _points(values: Floats, low: float, high: float, count: int) -> tuple[Floats, Floats]:
    """Chebyshev points over the range, and the matrix (row, point) that interpolates from them to the values."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        return np.array([low]), np.ones((values.size, 1))
    unit = np.cos(np.pi * np.arange(count) / (count - 1))
    basis = np.polynomial.chebyshev.chebvander
    place = (2 * values - low - high) / (high - low)
    weights = np.asarray(np.linalg.solve(basis(unit, count - 1).T, basis(place, count - 1).T).T, dtype=float)
    return low + (unit + 1) * (high - low) / 2, weights
