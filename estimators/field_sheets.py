"""How sure the choice of minima is, region by region, and the field unwrapped; loaded through `kernels.compiled`.

A swap changes a whole region at once: neighbours whose chosen fields agree, and whose second-best fields agree too,
can be exchanged together at no cost between them. Such a sheet is sure by the sum of its voxels' evidence and by what
its rim would cost.
"""

import numpy as np
from numba import njit, types

from ..simulator.lanes import FASTMATH

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
_F1, _D1 = types.float64[::1], types.Array(types.float64, 1, "C", readonly=True)
_I1, _I2 = types.int64[::1], types.int32[:, ::1]


@njit(inline="always", **_options)
def gap(a, b, span):
    """Distance of two fields; modulo `span` where that is not 0."""
    d = abs(a - b)
    if span > 0.0:
        d -= span * np.floor(d / span)
        d = min(d, span - d)
    return d


@njit(inline="always", **_options)
def _root(parent, v):
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@njit(types.void(_F1, _F1, _F1, _I2, _D1, _D1, types.float64, _I1, _F1, _F1), nogil=True, cache=True, **_options)
def sheets(field, other, gain, beside, cost, reach, span, sheet, evidence, rim):
    """Regions that can be swapped as a whole.

    Parameters
    ----------
    field, other : (voxel,)
        Chosen and second-best field, Hz; `other` NaN where there is none.
    gain : (voxel,)
        Misfit of the second best less that of the chosen.
    beside, cost, reach, span
        As in `field_labels.settle`.
    sheet, evidence, rim : (voxel,)
        Results: number of the voxel's sheet (that of its first voxel), sum of `gain` over the sheet, and what steps
        along the rim would cost more after a swap.
    """
    n_voxel = field.shape[0]
    for v in range(n_voxel):
        sheet[v] = v
        evidence[v] = rim[v] = 0.0
    for v in range(n_voxel):
        for axis in range(3):
            u = beside[v, 2 * axis + 1]
            if u >= 0 and gap(field[v], field[u], span) < reach[axis] and gap(other[v], other[u], span) < reach[axis]:
                a, b = _root(sheet, v), _root(sheet, u)
                if a != b:
                    sheet[max(a, b)] = min(a, b)
    for v in range(n_voxel):
        sheet[v] = _root(sheet, v)
    for v in range(n_voxel):
        s = sheet[v]
        if np.isnan(other[v]):
            continue
        evidence[s] += gain[v]
        for e in range(6):
            u = beside[v, e]
            if u >= 0 and sheet[u] != s:
                reach_, most = reach[e // 2], cost[e // 2]
                after = min(gap(other[v], field[u], span) / reach_, 1.0)
                rim[s] += most * (after - min(gap(field[v], field[u], span) / reach_, 1.0))
    for v in range(n_voxel - 1, -1, -1):
        evidence[v], rim[v] = evidence[sheet[v]], rim[sheet[v]]


@njit(types.void(_F1, _I2, types.float64, _I1, _I1), nogil=True, cache=True, **_options)
def unwrap(field, beside, span, island, queue):
    """Add whole periods so that neighbours differ by half a period at most, and an island's mean is nearest to 0.

    In place; `island` (voxel,) receives the number of the voxel's connected region, `queue` (voxel,) is room.
    """
    island[:] = -1
    n_island = 0
    for seed in range(field.shape[0]):
        if island[seed] >= 0:
            continue
        island[seed] = n_island
        queue[0] = seed
        head, tail, total = 0, 1, 0.0
        while head < tail:
            v = queue[head]
            head += 1
            total += field[v]
            for e in range(6):
                u = beside[v, e]
                if u >= 0 and island[u] < 0:
                    island[u] = n_island
                    if span > 0.0:
                        field[u] -= span * np.rint((field[u] - field[v]) / span)
                    queue[tail] = u
                    tail += 1
        if span > 0.0:
            turns = span * np.rint(total / tail / span)
            for k in range(tail):
                field[queue[k]] -= turns
        n_island += 1
