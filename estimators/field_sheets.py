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
_I1, _I2, _B1 = types.int64[::1], types.int32[:, ::1], types.boolean[::1]


@njit(inline="always", **_options)
def gap(a, b, span):
    """Distance of two fields, which lie within one `span`, modulo it where it is not 0."""
    d = abs(a - b)
    return min(d, span - d) if span > 0.0 else d


@njit(inline="always", **_options)
def _root(parent, v):
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@njit(
    types.void(_F1, _F1, _F1, _I2, _D1, _D1, types.float64, types.float64, types.float64, _I1, _F1,
               _B1),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def sheets(field, other, gain, beside, cost, reach, span, needed, chance, sheet, evidence, sure):
    """Regions that can be swapped as a whole, and which of them are sure.

    Parameters
    ----------
    field, other : (voxel,)
        Chosen and second-best field, Hz; `other` NaN where there is none.
    gain : (voxel,)
        Misfit of the second best less that of the chosen.
    beside, cost, reach, span
        As in `field_labels.settle`.
    needed, chance : float
        What a sheet's evidence, with what steps at its rim towards sure voxels would cost after a swap, has to reach:
        `needed`, and `chance` times the root of its number of voxels, which is what noise alone brings about.
    sheet, evidence, sure : (voxel,)
        Results: number of the voxel's sheet (that of its first voxel), sum of `gain` over the sheet, whether sure.
    """
    n_voxel = field.shape[0]
    rim, size = np.zeros(n_voxel), np.zeros(n_voxel)
    for v in range(n_voxel):
        sheet[v] = v
        evidence[v] = 0.0
    for v in range(n_voxel):
        for axis in range(3):
            u = beside[v, 2 * axis + 1]
            if u >= 0 and gap(field[v], field[u], span) < reach[axis] and gap(other[v], other[u], span) < reach[axis]:
                a, b = _root(sheet, v), _root(sheet, u)
                if a != b:
                    sheet[max(a, b)] = min(a, b)
    for v in range(n_voxel):
        sheet[v] = _root(sheet, v)
        sure[v] = np.isnan(other[v])
        if not sure[v]:
            evidence[sheet[v]] += gain[v]
            size[sheet[v]] += 1.0
    more = True
    while more:  # certainty spreads from sheets that are sure by themselves; those that are not lend each other none
        more = False
        rim[:] = 0.0
        for v in range(n_voxel):
            if not sure[sheet[v]]:
                for e in range(6):
                    u = beside[v, e]
                    if u >= 0 and sure[sheet[u]]:
                        after = min(gap(other[v], field[u], span) / reach[e // 2], 1.0)
                        now = min(gap(field[v], field[u], span) / reach[e // 2], 1.0)
                        rim[sheet[v]] += cost[e // 2] * (after - now)
        for v in range(n_voxel):
            enough = max(needed, chance * np.sqrt(size[v]))
            if sheet[v] == v and not sure[v] and evidence[v] + rim[v] >= enough:
                sure[v] = more = True
    for v in range(n_voxel):
        evidence[v], sure[v] = evidence[sheet[v]], sure[sheet[v]]


@njit(types.void(_F1, _F1, _F1, _I2, _D1, _D1, types.float64, types.float64, _B1), nogil=True, cache=True, **_options)
def borders(field, other, gain, beside, cost, reach, span, needed, sure):
    """Strike from `sure` the voxels at a step of the field that a swap of theirs would only move.

    There a voxel may belong to the one side or, swapped, to the other; its own data and its other neighbours tell.
    """
    for v in range(field.shape[0]):
        margin, movable = gain[v], False
        for e in range(6):
            u = beside[v, e]
            if u >= 0:
                after, now = (
                    gap(other[v], field[u], span) / reach[e // 2],
                    gap(field[v], field[u], span) / reach[e // 2],
                )
                movable |= after < 1.0 and now >= 1.0
                margin += cost[e // 2] * (min(after, 1.0) - min(now, 1.0))
        if movable and margin < needed:
            sure[v] = False


@njit(types.void(_I1, _I2, _B1, _B1), nogil=True, cache=True, **_options)
def close(sheet, beside, sure, closed):
    """Leave in `closed` the sure voxels of which more than half the neighbours in their sheet are sure."""
    for v in range(sheet.shape[0]):
        unsure = total = 0
        for e in range(6):
            u = beside[v, e]
            if u >= 0 and sheet[u] == sheet[v]:
                total += 1
                unsure += not sure[u]
        closed[v] = sure[v] and (unsure == 0 or 2 * unsure < total)


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
