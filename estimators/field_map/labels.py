"""One minimum a voxel, so that data and neighbours agree best over the whole image; loaded through `kernels.compiled`.

The energy is the sum of the voxels' misfits and of a truncated difference of field over each pair of neighbours:
steps beyond the truncation all cost the same, so that a true jump of the field is not traded for a swap. Sequential
tree-reweighted message passing lowers it (Kolmogorov, IEEE TPAMI 28:1568 (2006), doi:10.1109/TPAMI.2006.200): each
sweep carries what it learns over the whole image, forwards, then backwards.
"""

import numpy as np
from numba import njit, types

from ...simulator.lanes import FASTMATH

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
_F1, _F2, _F3 = types.float32[::1], types.float32[:, ::1], types.float32[:, :, ::1]
_I1, _I2, _B1 = types.int32[::1], types.int32[:, ::1], types.int8[::1]
QUIET = 0.01  # change of a message, in units of the misfit, that counts as none
_D1 = types.Array(types.float64, 1, "C", readonly=True)


@njit(types.void(types.int32[:, :, ::1], _I2), nogil=True, cache=True, **_options)
def neighbours(number, beside):
    """The six neighbours (voxel, 2 axis + side) of the voxels that `number` (z, y, x) counts from 0; -1 for none."""
    nz, ny, nx = number.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                v = number[z, y, x]
                if v >= 0:
                    beside[v, 0] = number[z - 1, y, x] if z > 0 else -1
                    beside[v, 1] = number[z + 1, y, x] if z + 1 < nz else -1
                    beside[v, 2] = number[z, y - 1, x] if y > 0 else -1
                    beside[v, 3] = number[z, y + 1, x] if y + 1 < ny else -1
                    beside[v, 4] = number[z, y, x - 1] if x > 0 else -1
                    beside[v, 5] = number[z, y, x + 1] if x + 1 < nx else -1


@njit(inline="always", **_options)
def gap(a, b, span):
    """Distance of two fields, which lie within one `span`, modulo it where it is not 0."""
    d = abs(a - b)
    return min(d, span - d) if span > 0.0 else d


@njit(
    types.int64(_F2, _F2, _B1, _I2, _D1, _D1, types.float64, types.int64, _F3, _B1),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def settle(field, misfit, count, beside, cost, reach, span, sweeps, message, label):
    """Pass messages until none changes, at most `sweeps` times forwards and backwards; gives the sweeps made.

    Parameters
    ----------
    field, misfit : (voxel, candidate)
    count : (voxel,)
        Candidates of each voxel, one at least.
    beside : (voxel, 6)
        Neighbours; those on even places come before the voxel, those on odd places after it.
    cost, reach : (3,)
        Of a step along each axis: what it costs at most, and the step (Hz) from which on it costs that.
    span : float
        Period of the field, or 0.
    message : (voxel, 6, candidate)
        Zeros; what each neighbour says about the voxel's candidates.
    label : (voxel,)
        Result.
    """
    n_voxel, room = field.shape
    total, said = np.zeros(room, np.float32), np.zeros(room, np.float32)
    awake = np.ones((n_voxel, 2), np.int8)  # whether a voxel has heard anything new since it last spoke, each way
    made = 0
    while made < sweeps:
        made += 1
        spoken = 0
        for way in range(2):
            for step in range(n_voxel):
                v = step if way == 0 else n_voxel - 1 - step
                if not awake[v, way]:
                    continue
                awake[v, way] = 0
                spoken += 1
                before = after = 0
                for e in range(6):
                    if beside[v, e] >= 0:
                        if e % 2:
                            after += 1
                        else:
                            before += 1
                share = 1.0 / max(before, after, 1)
                n = count[v]
                for k in range(n):
                    total[k] = misfit[v, k]
                    for e in range(6):
                        total[k] += message[v, e, k]
                    total[k] *= share
                for axis in range(3):
                    e = 2 * axis + 1 - way
                    u = beside[v, e]
                    if u < 0 or count[u] == 1:
                        continue
                    back = e + 1 - 2 * (e % 2)
                    least = np.float32(np.inf)
                    for m in range(count[u]):
                        value = np.float32(np.inf)
                        for k in range(n):
                            d = gap(field[v, k], field[u, m], span)
                            value = min(value, total[k] - message[v, e, k] + cost[axis] * min(d / reach[axis], 1.0))
                        said[m] = value
                        least = min(least, value)
                    for m in range(count[u]):
                        value = said[m] - least
                        if abs(value - message[u, back, m]) > QUIET:
                            awake[u, 0] = awake[u, 1] = 1
                        message[u, back, m] = value
        if spoken == 0:
            break
    for v in range(n_voxel):  # labels: given those of the voxels before, and what those after say
        pick, lowest = 0, np.inf
        for k in range(count[v]):
            value = misfit[v, k]
            for e in range(6):
                u = beside[v, e]
                if u < 0:
                    continue
                if e % 2:
                    value += message[v, e, k]
                else:
                    d = gap(field[u, label[u]], field[v, k], span)
                    value += cost[e // 2] * min(d / reach[e // 2], 1.0)
            if value < lowest:
                pick, lowest = k, value
        label[v] = pick
    return made
