"""What isochromats answer to what a sequence plays: the Bloch engine run on the plan of a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .acquisition.events import moments
from .engines import bloch
from .engines.isochromats import Isochromats
from .field_dependence import over_fields
from .sequences.sequence import Played

MANY = 64
"""Rows from which on fields are interpolated."""

ISOCHROMATS = 1 << 18
"""Isochromats in work at a time."""

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

CENTRE = np.zeros((1, 3))


def isolated(
    plan: tuple[Played, ...],
    points: int,
    T1: Floats,
    T2: Floats,
    offset: NDArray[Any],
    B1: NDArray[Any],
    at: Floats = CENTRE,
    exact: bool = False,
) -> Complexes:
    """Signal (row, point) of a magnetisation of 1 that exchanges with nothing.

    T1, T2 (s), offset (Hz) and B1 are numbers or (row,); `at`, (1, 3) or (row, 3), is where the voxels lie (m).
    """
    along = np.zeros(len(at))
    T1, T2, offset, B1, along = (np.atleast_1d(a) for a in np.broadcast_arrays(T1, T2, offset, B1, along))
    signal, count = np.zeros((T1.size, points), complex), np.zeros(points)
    for part in plan:
        places = part.positions()
        n, run = len(places), bloch.steady_state if part.steady else bloch.simulate
        step = max(1, ISOCHROMATS // n)
        found = np.empty((T1.size, part.timeline.samples), complex)
        for first in range(0, T1.size, step):
            rows = slice(first, first + step)
            t1, t2, shift, b1 = (np.repeat(a[rows], n) for a in (T1, T2, offset, B1))
            here, size = at if len(at) == 1 else at[rows], T1[rows].size
            spins = Isochromats(t1, t2, shift, b1, spread(places, here, size))
            found[rows] = run(part.timeline, spins, signal=np.repeat(np.arange(size), n), exact=exact).signal
        gather(part, found * (part.gain / n), signal, count)
    return np.asarray(signal / count)


def in_fields(
    plan: tuple[Played, ...], points: int, T1: Floats, T2: Floats, offset: NDArray[Any], B1: NDArray[Any],
    at: Floats = CENTRE,
) -> Complexes:  # fmt: skip
    """`isolated`, and where many rows differ in B1 and offset alone by interpolation (`field_dependence`)."""
    rows = max(np.size(offset), np.size(B1))
    if rows < MANY or max(np.size(T1), np.size(T2), len(at)) > 1:
        return isolated(plan, points, T1, T2, offset, B1, at)

    def answer(b1: Complexes, shift: Floats) -> Complexes:
        return isolated(plan, points, T1, T2, shift, b1 if np.iscomplexobj(B1) else b1.real, at)

    each = np.broadcast_to(B1, rows).astype(complex), np.broadcast_to(offset, rows).astype(float)
    return over_fields(answer, *each, dephased(plan, points, signed=True))


def dephased(plan: tuple[Played, ...], points: int, signed: bool = False) -> Floats:
    """For how long (s) offsets have acted at each point without being refocused, (point,); `signed`, with its sign."""
    total, count = np.zeros(points), np.zeros(points)
    for part in plan:
        at = part.timeline.sample_times()
        for point, sample in zip(part.points, part.samples, strict=True):
            times, sign = moments.pathway(part.timeline, float(at[sample]))
            acted = float(np.diff(times) @ (sign[1:] + sign[:-1]) / 2)
            total[point] += acted if signed else abs(acted)
            count[point] += 1
    return total / count


def gather(part: Played, found: NDArray[Any], signal: Complexes, count: Floats) -> None:
    """Add the samples of `found` (row, sample) to the points that they are, and count them."""
    for point, sample in zip(part.points, part.samples, strict=True):
        signal[:, point] += found[:, sample]
        count[point] += 1


def spread(places: Floats, at: Floats, rows: int) -> Floats:
    """Places of the spins of each row, (row x spin, 3)."""
    return (np.broadcast_to(at, (rows, 3))[:, None] + places).reshape(-1, 3)
