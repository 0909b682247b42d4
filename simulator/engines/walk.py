"""The loops that move random walkers and add up their phases; loaded through `kernels.compiled`.

Every walker has a random generator of its own (xoshiro256++, Blackman and Vigna, ACM Trans Math Softw 47:36 (2021),
doi:10.1145/3460772), seeded from the run's seed and the walker's number: nothing depends on blocks or threads.
`LANES` walkers are moved side by side; normal numbers come in pairs (Box and Muller, Ann Math Stat 29:610 (1958),
doi:10.1214/aoms/1177706645).
"""

import math

import numpy as np
from numba import njit, types

from ..lanes import FASTMATH, LANES, _as_float, _as_int, cos, inlined, rows, sin

MIRRORS = 1_000  # reflections in a step, after which a walker that creeps along the wall stays there
NORMALS = 6  # rows of normal numbers drawn at a time: whole steps of 1, 2 and 3 dimensions

_F1, _F2, _F3 = types.float64[::1], types.float64[:, ::1], types.float64[:, :, ::1]
_R1, _R2, _R3 = (types.Array(types.float64, n, "C", readonly=True) for n in (1, 2, 3))
_RB3 = types.Array(types.uint8, 3, "C", readonly=True)
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S12, _S17, _S19, _S23, _S27 = np.uint64(12), np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(27)
_S30, _S31, _S41, _S45 = np.uint64(30), np.uint64(31), np.uint64(41), np.uint64(45)
_ONE = np.uint64(0x3FF0000000000000)  # the bits of 1.0
_TWO_PI = 2.0 * math.pi
_HALF_ULP = 2.0**-53
_MANTISSA, _ONE_BITS, _MAGIC_BITS = 0x000FFFFFFFFFFFFF, 0x3FF0000000000000, 0x4330000000000000
_MAGIC = 2.0**52 + 1023.0  # an exponent put into the low bits of 2^52, less the bias
_LN2 = math.log(2.0)
_SQRT2 = math.sqrt(2.0)
_L3, _L5, _L7, _L9, _L11, _L13, _L15, _L17, _L19 = (2.0 / k for k in range(3, 20, 2))


@inlined
def _log(x):
    """Natural logarithm of a normal positive number, to 1e-15: 2 artanh((m - 1)/(m + 1)) of the mantissa."""
    bits = _as_int(x)
    exponent = _as_float((bits >> 52) | _MAGIC_BITS) - _MAGIC
    m = _as_float((bits & _MANTISSA) | _ONE_BITS)
    large = m > _SQRT2
    m = m * 0.5 if large else m
    exponent = exponent + 1.0 if large else exponent
    f = (m - 1.0) / (m + 1.0)
    z = f * f
    tail = _L9 + z * (_L11 + z * (_L13 + z * (_L15 + z * (_L17 + z * _L19))))
    return exponent * _LN2 + f * (2.0 + z * (_L3 + z * (_L5 + z * (_L7 + z * tail))))


@inlined
def _mixed(z):
    """SplitMix64's output function."""
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@njit(types.void(types.uint64, types.int64, types.int64, _F2), error_model="numpy", nogil=True, cache=True)
def seed_lanes(seed, first, count, state):
    """State of the generators of `LANES` walkers from `first` on; beyond `count` they repeat the last one's.

    Its four words a walker are kept as the bits of float64, whose rows have a shape that the compiler knows.
    """
    for i in range(LANES):
        z = _mixed(seed + _GOLDEN) ^ _mixed(np.uint64(min(first + i, count - 1)) * _MIX1 + _MIX2)
        for k in range(4):
            z = z + _GOLDEN
            state[k, i] = _as_float(types.int64(_mixed(z)))


@inlined
def _next(s0, s1, s2, s3):
    """A random word of xoshiro256++, and the state after it."""
    word = s0 + s3
    word = ((word << _S23) | (word >> _S41)) + s0
    t = s1 << _S17
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    return word, s0 ^ s3, s1 ^ s2, s2 ^ t, (s3 << _S45) | (s3 >> _S19)


@njit(types.void(_F2, _F2), fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def normals(state, out):
    """Fill `out` (NORMALS, LANES) with normal numbers."""
    state, out = rows(state, (4, LANES)), rows(out, (NORMALS, LANES))
    for p in range(NORMALS // 2):
        for i in range(LANES):
            s0, s1 = types.uint64(_as_int(state[0, i])), types.uint64(_as_int(state[1, i]))
            s2, s3 = types.uint64(_as_int(state[2, i])), types.uint64(_as_int(state[3, i]))
            r1, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
            r2, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
            state[0, i], state[1, i] = _as_float(types.int64(s0)), _as_float(types.int64(s1))
            state[2, i], state[3, i] = _as_float(types.int64(s2)), _as_float(types.int64(s3))
            u = _as_float(types.int64((r1 >> _S12) | _ONE)) - (1.0 - _HALF_ULP)  # above 0, below 1
            angle = _TWO_PI * (_as_float(types.int64((r2 >> _S12) | _ONE)) - 1.0)
            radius = math.sqrt(-2.0 * _log(u))
            out[2 * p, i] = radius * cos(angle)
            out[2 * p + 1, i] = radius * sin(angle)


@njit(
    types.void(types.uint64, _R1, types.float64, types.float64, _R2, types.int64, types.int64, _F2, _F1),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def walk_line(seed, start, width, sigma, weight, first, last, phase, depth):
    """One axis: between walls at -width/2 and width/2, or free where width is infinite.

    Adds the sum of weight (step + 1, waveform) times the place to `phase` (walker, waveform), and how deep the steps
    went beyond the walls before they were folded back to `depth` (walker,).
    """
    n_step, n_wave, count = weight.shape[0] - 1, weight.shape[1], start.shape[0]
    state = np.empty((4, LANES))
    z = np.empty((NORMALS, LANES))
    x, deep = np.empty(LANES), np.empty(LANES)
    total = np.empty((n_wave, LANES))
    half, walls = 0.5 * width, width < np.inf
    turn = 1.0 / (2.0 * width)
    for w0 in range(first, last, LANES):
        seed_lanes(seed, w0, count, state)
        for i in range(LANES):
            x[i] = start[min(w0 + i, count - 1)]
            deep[i] = 0.0
        for w in range(n_wave):
            for i in range(LANES):
                total[w, i] = weight[0, w] * x[i]
        for n in range(n_step):
            row = n % NORMALS
            if row == 0:
                normals(state, z)
            if walls:
                for i in range(LANES):
                    y = x[i] + sigma * z[row, i]
                    deep[i] += max(abs(y) - half, 0.0)
                    y += half
                    y -= 2.0 * width * math.floor(y * turn)
                    x[i] = half - abs(width - y)
            else:
                for i in range(LANES):
                    x[i] += sigma * z[row, i]
            for w in range(n_wave):
                c = weight[n + 1, w]
                for i in range(LANES):
                    total[w, i] += c * x[i]
        for i in range(min(LANES, last - w0)):
            depth[w0 + i] += deep[i]
            for w in range(n_wave):
                phase[w0 + i, w] += total[w, i]


@njit(error_model="numpy", nogil=True)
def _mirrored(x, d, i, wall, radius):
    """Move x[:, i] to the last wall on its way, leave in d what then remains; how deep it went beyond the walls."""
    deep = 0.0
    for _ in range(MIRRORS):
        along = x[0, i] * d[0, i] + x[1, i] * d[1, i] + x[2, i] * d[2, i]
        length = d[0, i] ** 2 + d[1, i] ** 2 + d[2, i] ** 2
        inside = wall - (x[0, i] ** 2 + x[1, i] ** 2 + x[2, i] ** 2)
        # the later crossing: after a reflection the earlier one is the point it starts from
        t = (math.sqrt(max(along * along + length * inside, 0.0)) - along) / length
        if not t < 1.0:
            return deep
        for a in range(3):
            x[a, i] += t * d[a, i]
            d[a, i] *= 1.0 - t
        out = (x[0, i] * d[0, i] + x[1, i] * d[1, i] + x[2, i] * d[2, i]) / radius
        if not out > 0.0:
            return deep
        deep += out
        for a in range(3):
            d[a, i] -= 2.0 * out * x[a, i] / radius
    for a in range(3):
        d[a, i] = 0.0
    return deep


@njit(
    types.void(types.uint64, _R2, types.int64, types.float64, types.float64, _R3, types.int64, types.int64, _F2, _F1),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def walk_ball(seed, start, dims, radius, sigma, weight, first, last, phase, depth):
    """Inside a sphere (dims 3) or a circle (dims 2); steps are mirrored at the wall like light.

    `start` is (walker, dims), `weight` (step + 1, waveform, dims); adds to `phase` and `depth` as `walk_line`.
    """
    n_step, n_wave, count = weight.shape[0] - 1, weight.shape[1], start.shape[0]
    state = np.empty((4, LANES))
    z = np.empty((NORMALS, LANES))
    x, d, deep = np.zeros((3, LANES)), np.zeros((3, LANES)), np.empty(LANES)
    square = np.empty(LANES)
    total = np.empty((n_wave, LANES))
    wall = radius * radius
    per = NORMALS // dims
    for w0 in range(first, last, LANES):
        seed_lanes(seed, w0, count, state)
        for i in range(LANES):
            deep[i] = 0.0
            for a in range(dims):
                x[a, i] = start[min(w0 + i, count - 1), a]
        for w in range(n_wave):
            for i in range(LANES):
                total[w, i] = 0.0
            for a in range(dims):
                for i in range(LANES):
                    total[w, i] += weight[0, w, a] * x[a, i]
        for n in range(n_step):
            if n % per == 0:
                normals(state, z)
            row = (n % per) * dims
            for i in range(LANES):
                square[i] = 0.0
            for a in range(dims):
                for i in range(LANES):
                    d[a, i] = sigma * z[row + a, i]
                    y = x[a, i] + d[a, i]
                    square[i] += y * y
            for i in range(LANES):
                if square[i] > wall:
                    deep[i] += _mirrored(x, d, i, wall, radius)
            for a in range(dims):
                for i in range(LANES):
                    x[a, i] += d[a, i]
            for w in range(n_wave):
                for a in range(dims):
                    c = weight[n + 1, w, a]
                    for i in range(LANES):
                        total[w, i] += c * x[a, i]
        for i in range(min(LANES, last - w0)):
            depth[w0 + i] += deep[i]
            for w in range(n_wave):
                phase[w0 + i, w] += total[w, i]


@njit(error_model="numpy", nogil=True)
def _between(field, p, periodic):
    """Value of a map (z, y, x) at p = x, y, z (voxels from the grid's corner), linear between voxel centres."""
    value = 0.0
    shape = (field.shape[2], field.shape[1], field.shape[0])
    low0, low1, low2 = math.floor(p[0] - 0.5), math.floor(p[1] - 0.5), math.floor(p[2] - 0.5)
    f0, f1, f2 = p[0] - 0.5 - low0, p[1] - 0.5 - low1, p[2] - 0.5 - low2
    for k in range(8):
        b0, b1, b2 = k & 1, (k >> 1) & 1, (k >> 2) & 1
        i, j, m = int(low0) + b0, int(low1) + b1, int(low2) + b2
        if periodic:
            i, j, m = i % shape[0], j % shape[1], m % shape[2]
        else:
            i, j, m = min(max(i, 0), shape[0] - 1), min(max(j, 0), shape[1] - 1), min(max(m, 0), shape[2] - 1)
        share = (f0 if b0 else 1 - f0) * (f1 if b1 else 1 - f1) * (f2 if b2 else 1 - f2)
        value += share * field[m, j, i]
    return value


@njit(error_model="numpy", nogil=True)
def _moved(p, cell, d, is_open, periodic):
    """Move p (voxels) by d through open voxels; faces of closed ones, and of the grid unless periodic, are mirrors."""
    stays = True
    for a in range(3):
        within = p[a] + d[a] - cell[a]
        stays &= (within > 0.0) & (within < 1.0)
    if stays:
        for a in range(3):
            p[a] += d[a]
        return
    while True:
        t, axis = 1.0, -1
        for a in range(3):
            if d[a] > 0.0:
                s = (cell[a] + 1 - p[a]) / d[a]
            elif d[a] < 0.0:
                s = (cell[a] - p[a]) / d[a]
            else:
                continue
            if s < t:
                t, axis = s, a
        if axis < 0:
            for a in range(3):
                p[a] += d[a]
            return
        t = max(t, 0.0)
        for a in range(3):
            p[a] += t * d[a]
            d[a] *= 1.0 - t
        forward = d[axis] > 0.0
        p[axis] = cell[axis] + (1 if forward else 0)
        n = is_open.shape[2 - axis]
        old = cell[axis]
        cell[axis] = old + (1 if forward else -1)
        inside = periodic or 0 <= cell[axis] < n
        if inside:
            i, j, m = cell[0] % is_open.shape[2], cell[1] % is_open.shape[1], cell[2] % is_open.shape[0]
            inside = is_open[m, j, i] != 0
        if not inside:
            cell[axis] = old
            d[axis] = -d[axis]


@njit(
    types.void(types.uint64, _R2, _RB3, _R1, types.boolean, types.float64, _R3, _R3, _R1, types.int64, types.int64,
               _F2, _F1),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)  # fmt: skip
def walk_voxels(seed, start, is_open, edge, periodic, sigma, weight, offset, turning, first, last, phase, turned):
    """Through the open voxels of a grid.

    `start` (walker, 3) in voxels along x, y, z; `edge` (3,) of a voxel along x, y, z; `weight` (step + 1, waveform, 3);
    `offset` (z, y, x) or empty, with its weights `turning` (step + 1,). Adds to `phase` and `turned` (walker,).
    """
    n_step, n_wave, count = weight.shape[0] - 1, weight.shape[1], start.shape[0]
    state = np.empty((4, LANES))
    z = np.empty((NORMALS, LANES))
    place, cells = np.empty((LANES, 3)), np.empty((LANES, 3), np.int64)
    d = np.empty(3)
    with_offset = offset.shape[0] > 0
    for w0 in range(first, last, LANES):
        used = min(LANES, last - w0)
        seed_lanes(seed, w0, count, state)
        for n in range(n_step + 1):
            row = 3 * ((n - 1) % 2)
            if n % 2 == 1:
                normals(state, z)
            for i in range(used):
                p, cell = place[i], cells[i]
                if n == 0:
                    for a in range(3):
                        p[a] = start[w0 + i, a]
                        cell[a] = math.floor(p[a])
                else:
                    for a in range(3):
                        d[a] = sigma / edge[a] * z[row + a, i]
                    _moved(p, cell, d, is_open, periodic)
                if with_offset:
                    turned[w0 + i] += turning[n] * _between(offset, p, periodic)
                for w in range(n_wave):
                    total = 0.0
                    for a in range(3):
                        total += weight[n, w, a] * edge[a] * p[a]
                    phase[w0 + i, w] += total
