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
GRADES = 64  # of a step's size, from none to half a period, in whose order voxels are joined
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


@njit(inline="always", **_options)
def _settled(parent, turn, v):
    """Root of a voxel, whose `turn` becomes that relative to the root."""
    root, total = v, 0
    while parent[root] != root:
        total += turn[root]
        root = parent[root]
    while v != root:
        beyond, own = parent[v], turn[v]
        parent[v], turn[v] = root, total
        v, total = beyond, total - own
    return root


@njit(types.void(_F1, _I2, types.float64, _I1, _I1), nogil=True, cache=True, **_options)
def unwrap(field, beside, span, parent, turn):
    """Add whole periods so that neighbours are close, and an island's mean is nearest to 0.

    Neighbours are joined in the order of their steps, the smallest first: a voxel that stands half a period off, as one
    that is swapped may, is joined last and sends nothing beyond it round.

    In place; `parent` and `turn` (voxel,) are room for the tree of joined voxels and their periods. Of smallest steps
    first: Herraez, Appl Opt 41:7437 (2002), doi:10.1364/AO.41.007437.
    """
    n_voxel = field.shape[0]
    if span <= 0.0:
        return
    first = np.zeros(GRADES + 1, np.int64)
    for fill in range(2):
        if fill == 1:
            for g in range(GRADES):
                first[g + 1] += first[g]
            order = np.zeros(first[GRADES], np.int64)
        for v in range(n_voxel):
            for axis in range(3):
                u = beside[v, 2 * axis + 1]
                if u >= 0:
                    step = field[u] - field[v]
                    step = abs(step - span * np.rint(step / span))
                    g = int(2.0 * step / span * GRADES) if step < 0.5 * span else GRADES - 1
                    if fill == 0:
                        first[g + 1] += 1
                    else:
                        order[first[g]] = 3 * v + axis
                        first[g] += 1
    size = np.ones(n_voxel, np.int64)
    for v in range(n_voxel):
        parent[v], turn[v] = v, 0
    for k in range(order.shape[0]):
        v = order[k] // 3
        u = np.int64(beside[v, 2 * (order[k] % 3) + 1])
        a, b = _settled(parent, turn, v), _settled(parent, turn, u)
        if a == b:
            continue
        more = turn[v] - turn[u] - np.int64(np.rint((field[u] - field[v]) / span))  # turns of b's tree beside a's
        if size[a] < size[b]:
            a, b, more = b, a, -more
        parent[b], turn[b] = a, more
        size[a] += size[b]
    total = np.zeros(n_voxel)
    for v in range(n_voxel):
        root = _settled(parent, turn, v)
        field[v] += span * turn[v]
        total[root] += field[v]
    for v in range(n_voxel):
        total[v] = span * np.rint(total[v] / size[v] / span) if parent[v] == v else 0.0
    for v in range(n_voxel):
        field[v] -= total[parent[v]]
