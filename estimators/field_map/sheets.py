"""How sure the choice of minima is, region by region, and the field unwrapped; loaded through `kernels.compiled`.

A swap changes a whole region at once: neighbours whose chosen fields agree, and whose second-best fields agree too,
can be exchanged together at no cost between them. Such a sheet is sure by the sum of its voxels' evidence and by what
its rim would cost.
"""

import numpy as np
from numba import njit, types

from ...simulator.lanes import FASTMATH

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
    types.void(_F1, _F1, _F1, _I2, _D1, types.float64, _I1, _F1, _I1),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def sheets(field, other, gain, beside, reach, span, sheet, evidence, size):
    """Regions that can be swapped as a whole.

    Parameters
    ----------
    field, other : (voxel,)
        Chosen and second-best field, Hz; `other` NaN where there is none.
    gain : (voxel,)
        Misfit of the second best less that of the chosen.
    beside, reach, span
        As in `labels.settle`.
    sheet, evidence, size : (voxel,)
        Results: number of the voxel's sheet (that of its first voxel); at that voxel, the sum of `gain` over the sheet
        and its number of voxels, 0 of voxels without an alternative.
    """
    n_voxel = field.shape[0]
    for v in range(n_voxel):
        sheet[v] = v
        evidence[v] = 0.0
        size[v] = 0
    for v in range(n_voxel):
        for axis in range(3):
            u = beside[v, 2 * axis + 1]
            if u < 0:
                continue
            near, far = gap(field[v], field[u], span), gap(other[v], other[u], span)
            crossed = gap(field[v], other[u], span) + gap(other[v], field[u], span)
            if near < reach[axis] and far < reach[axis] and near + far < crossed:  # not the one field with the other
                a, b = _root(sheet, v), _root(sheet, u)
                if a != b:
                    sheet[max(a, b)] = min(a, b)
    for v in range(n_voxel):
        sheet[v] = _root(sheet, v)
        if not np.isnan(other[v]):
            evidence[sheet[v]] += gain[v]
            size[sheet[v]] += 1


@njit(types.void(_F1, _F1, _I2, _D1, _D1, types.float64, _I1, _B1, _F1), nogil=True, cache=True, **_options)
def rims(field, other, beside, cost, reach, span, sheet, asked, rim):
    """What a swap of each sheet that is `asked` for would cost at its rim, at its first voxel in `rim`."""
    rim[:] = 0.0
    for v in range(field.shape[0]):
        s = sheet[v]
        if asked[s]:
            for e in range(6):
                u = beside[v, e]
                if u >= 0 and sheet[u] != s:
                    after = min(gap(other[v], field[u], span) / reach[e // 2], 1.0)
                    now = min(gap(field[v], field[u], span) / reach[e // 2], 1.0)
                    rim[s] += cost[e // 2] * (after - now)


@njit(
    types.void(_F1, _F1, _I2, _D1, _D1, types.float64, types.float64, _I1, _F1, _F1, _B1),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def settled(field, other, beside, cost, reach, span, plausible, sheet, evidence, needed, sure):
    """Which sheets are sure: by their own evidence, or with what a swap would cost at the rim towards sure ones.

    A step of the field is a surface: it lies on one side of a sheet, whatever its length, and is then no better
    evidence than one pair's. What the rim says against a swap counts where the swap would make a step larger than
    `plausible`, or where it would make one on either side along an axis, which no single surface does.

    Parameters
    ----------
    field, other, beside, cost, reach, span, sheet
        As in `sheets`.
    plausible : float
        Hz.
    evidence, needed : (voxel,)
        Of the sheet, at its first voxel; `evidence` is given to all its voxels.
    sure : (voxel,)
        Result.
    """
    n_voxel = field.shape[0]
    rim, side = np.zeros(n_voxel), np.zeros((n_voxel, 6))
    for v in range(n_voxel):
        sure[v] = np.isnan(other[sheet[v]]) or evidence[sheet[v]] >= needed[sheet[v]]
    more = True
    while more:  # certainty spreads from sheets that are sure by themselves; those that are not lend each other none
        more = False
        rim[:] = 0.0
        side[:] = 0.0
        for v in range(n_voxel):
            s = sheet[v]
            if not sure[s]:
                for e in range(6):
                    u = beside[v, e]
                    if u >= 0 and sure[sheet[u]]:
                        after = gap(other[v], field[u], span)
                        now = min(gap(field[v], field[u], span) / reach[e // 2], 1.0)
                        more_cost = cost[e // 2] * (min(after / reach[e // 2], 1.0) - now)
                        if more_cost < 0.0 or after > plausible:
                            rim[s] += more_cost
                        else:
                            side[s, e] += more_cost
        for v in range(n_voxel):
            if sheet[v] == v and not sure[v]:
                both = 0.0
                for axis in range(3):
                    both += 2.0 * min(side[v, 2 * axis], side[v, 2 * axis + 1])
                if evidence[v] + rim[v] + both >= needed[v]:
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
