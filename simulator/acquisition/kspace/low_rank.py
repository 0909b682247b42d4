"""exp(i 2 pi f(r) a - R(r) b) over all voxels r and sample times (a, b) as a short sum of maps times courses.

What a field map or a map of decay rates does during a readout is no factor of the sample nor of the voxel; it is a sum
of few such products, each of which takes one Fourier transform. The products come from a singular value decomposition
to a stated precision: one of them where voxels are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ... import threads

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

DISTINCT = 256
"""Up to so many different values the matrix holds them all; beyond, nodes that represent them."""

TIMES = 192
"""So many times at least, where there are more, stand for all of them."""

CELL = 4.0
"""Cycles, or e-folds, that a cell of the histogram may span during the times."""


@dataclass(frozen=True, eq=False)
class Expansion:
    """The sum over `rank` of courses x maps.

    Attributes
    ----------
    courses : ndarray (rank, *shape of the times)
    maps : ndarray (rank, voxel)
    error : float
        Largest error on the values and times from which the expansion was made.
    """

    courses: Complexes
    maps: Complexes
    error: float

    @property
    def rank(self) -> int:
        """Number of products."""
        return len(self.maps)


def expand(frequency: Floats, rate: Floats, turning: Floats, decaying: Floats, *, precision: float = 1e-6) -> Expansion:
    """Expand exp(i 2 pi frequency turning - rate decaying).

    Parameters
    ----------
    frequency, rate : ndarray (voxel,)
        Hz, 1/s.
    turning, decaying : ndarray
        Time for which a sample has turned and decayed (s), of one shape.
    precision : float
        Largest error of any voxel at any sample, relative to the largest value of the matrix.

    Returns
    -------
    Expansion

    Raises
    ------
    InputError
        A value that is not finite, a precision out of range.

    Notes
    -----
    The values of the voxels are put into a histogram; what each cell of it holds, a few cycles of change wide at most,
    is represented by Chebyshev nodes, enough for polynomials between them to meet the precision.
    The singular vectors of the matrix (time, node) are the best courses there are. The maps are projections on them; as
    rows of the matrix depend on one another as its columns do, they are computed from few rows, which a QR
    decomposition with pivots chooses. Low rank of the off-resonance term: Fessler et al., IEEE Trans Signal Process
    53:3393 (2005), doi:10.1109/TSP.2005.853152.
    """
    if not 1e-12 <= precision < 1:
        raise InputError(f"precision is {precision!r}: expected from 1e-12 to below 1")
    from scipy.linalg import qr, svd

    for name, values in (("field", frequency), ("R2", rate), ("times", turning), ("times", decaying)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} is not finite: expected numbers in every voxel that has signal")
    rows = np.unique(np.stack([turning.ravel(), decaying.ravel()]), axis=1)
    spans = [float(np.ptp(r)) for r in rows]
    columns = _nodes(np.stack([frequency, rate]), spans, precision)
    cycles = float(np.ptp(frequency)) * spans[0] + float(np.ptp(rate)) * spans[1]
    rows = _some(rows, max(TIMES, math.ceil(8 * cycles)))
    matrix = _matrix(columns, rows)
    size = float(np.abs(matrix).max())
    left, values, right = svd(matrix, full_matrices=False)
    # a third of the error allowed: what polynomials between the nodes add (their Lebesgue constant) takes the rest
    rank = _enough(matrix, left, values, right, 0.3 * precision * size)
    keep = left[:, :rank]
    _, triangle, order = qr(matrix.conj().T, mode="economic", pivoting=True)
    pivots = np.abs(np.diag(triangle))
    chosen = order[: max(int(np.count_nonzero(pivots > 1e-3 * precision * pivots[0])), rank)]
    mix = np.linalg.lstsq(matrix[chosen].T, (keep.conj().T @ matrix).T, rcond=1e-15)[0].T
    back = (right[:rank].conj() / values[:rank, None]).T
    maps = np.empty((rank, frequency.size), complex)

    def project(first: int, last: int) -> None:
        maps[:, first:last] = mix @ _matrix(np.stack([frequency[first:last], rate[first:last]]), rows[:, chosen])

    threads.each_block(frequency.size, project)
    courses = _courses(columns, turning, decaying, back)
    error = float(np.abs(keep @ (mix @ matrix[chosen]) - matrix).max()) / size
    return Expansion(courses, maps, error)


def _matrix(values: Floats, times: Floats) -> Complexes:
    """exp(i 2 pi f a - R b), (time, value)."""
    out: Complexes = 2j * np.pi * times[0][:, None] * values[0]
    if np.any(values[1]):
        out -= times[1][:, None] * values[1]
    return np.exp(out, out=out)


def _courses(columns: Floats, turning: Floats, decaying: Floats, back: Complexes) -> Complexes:
    """The courses at all times, in blocks."""
    a, b = turning.ravel(), decaying.ravel()
    out = np.empty((back.shape[1], a.size), complex)
    step = max(1, (1 << 22) // columns.shape[1])
    for first in range(0, a.size, step):
        block = slice(first, first + step)
        out[:, block] = (_matrix(columns, np.stack([a[block], b[block]])) @ back).T
    return out.reshape(-1, *turning.shape)


def _some(rows: Floats, most: int) -> Floats:
    """Rows that stand for all: denser towards the ends, as the nodes of a polynomial are."""
    if rows.shape[1] <= most:
        return rows
    at = 0.5 * (rows.shape[1] - 1) * (1 - np.cos(np.linspace(0, math.pi, most)))
    return rows[:, np.unique(np.rint(at).astype(int))]


def _nodes(values: Floats, spans: list[float], precision: float) -> Floats:
    """Values (2, node) that stand for all of them: themselves where they are few."""
    few = values[:, : 4 * DISTINCT]
    if np.unique(few[0] + 1j * few[1]).size <= DISTINCT:
        distinct = np.unique(values[0] + 1j * values[1])
        if distinct.size <= DISTINCT:
            return np.stack([distinct.real, distinct.imag])
    counts = [max(math.ceil(np.ptp(row) * span / CELL), 1) for row, span in zip(values, spans, strict=True)]
    cell = np.zeros(values.shape[1], int)
    for row, count in zip(values, counts, strict=True):
        width = float(np.ptp(row))
        place = np.minimum((row - row.min()) / width * count, count - 1) if width else np.zeros(row.size)
        cell = cell * count + place.astype(int)
    order = np.argsort(cell, kind="stable")
    first = np.flatnonzero(np.concatenate([[True], np.diff(cell[order]) > 0]))
    found = []
    # of each cell no more than what is in it: narrow lines far apart stay narrow
    low, high = (f.reduceat(values[:, order], first, axis=1) for f in (np.minimum, np.maximum))
    for ends in np.stack([low, high], axis=2).transpose(1, 0, 2):
        axes = [
            _chebyshev(least, most, unit * span, precision)
            for (least, most), unit, span in zip(ends.tolist(), (2 * math.pi, 1.0), spans, strict=True)
        ]
        found.append(np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")]))
    return np.concatenate(found, axis=1)


def _chebyshev(low: float, high: float, span: float, precision: float) -> Floats:
    """Nodes from which polynomials make exp(value x time), |time| up to span/2, over this range to the precision."""
    if high == low:
        return np.array([low])
    number, rest = 1, 2.0
    while number < 2 or rest > 0.01 * precision:  # the remainder of the interpolation, 2 (reach/2)^n/n!
        rest *= 0.125 * (high - low) * span / number
        number += 1
    middle = np.cos(math.pi * (np.arange(number) + 0.5) / number)
    return 0.5 * (low + high) + 0.5 * (high - low) * middle


def _enough(matrix: Complexes, left: Complexes, values: Floats, right: Complexes, allowed: float) -> int:
    """The smallest rank whose largest error is allowed."""
    low, high = 1, max(int(np.count_nonzero(values > allowed / math.sqrt(matrix.size))), 1)
    while low < high:
        middle = (low + high) // 2
        error = np.abs((left[:, :middle] * values[:middle]) @ right[:middle] - matrix).max()
        low, high = (low, middle) if error <= allowed else (middle + 1, high)
    return low
