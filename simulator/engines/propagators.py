"""Compiled: exponentials of small generators, many spins side by side; loaded through `kernels.compiled`.

What a step does to the magnetisation of a spin is affine, m -> P m + q. A map is held as (row, column, spin) with q its
last column; the row (0, ..., 0, 1) that belongs below is left out. Rows: x, y, z of each liquid pool, z of each solid
pool, dipolar order of those that have one. The innermost loop is over spins, `GROUP` side by side; their number is no
constant, as the compiler would unroll a loop of known length before it could vectorise it (three times slower).
"""

import math

import numpy as np
from numba import njit, types

from ..lanes import FASTMATH

GROUP = 64
LARGEST = (0.04, 0.3, 0.75)  # norm up to which Taylor's polynomial of degree 8, 12, 16 errs by less than 3e-17
_C = tuple(1.0 / math.factorial(k) for k in range(17))

_F1, _F2, _F3, _F4 = (types.Array(types.float64, d, "C") for d in (1, 2, 3, 4))
_I1 = types.Array(types.int64, 1, "C")
_SPEED = {"fastmath": FASTMATH, "error_model": "numpy", "nogil": True, "cache": True}


@njit(types.void(_F3, _F3, types.float64, _F3), **_SPEED)
def _multiply(a, b, corner, out):
    """out = a b; `corner` is the last entry of the row that b leaves out: 1 of a map, 0 of a generator."""
    n, spins = a.shape[0], a.shape[2]
    for i in range(n):
        for j in range(n + 1):
            last = corner if j == n else 0.0
            for s in range(spins):
                out[i, j, s] = last * a[i, n, s]
            for k in range(n):
                for s in range(spins):
                    out[i, j, s] += a[i, k, s] * b[k, j, s]


@njit(types.void(_F3, _F3, _F3, types.int64, _F3), **_SPEED)
def _add_cubic(a, a2, a3, k, out):
    """out += 1/k! + a/(k + 1)! + a2/(k + 2)! + a3/(k + 3)!."""
    n, spins = a.shape[0], a.shape[2]
    c0, c1, c2, c3 = _C[k], _C[k + 1], _C[k + 2], _C[k + 3]
    for i in range(n):
        for j in range(n + 1):
            for s in range(spins):
                out[i, j, s] += c1 * a[i, j, s] + (c2 * a2[i, j, s] + c3 * a3[i, j, s])
        for s in range(spins):
            out[i, i, s] += c0


@njit(types.void(_F3, _F4, _F3), **_SPEED)
def _exponential(a, work, out):
    """out = exp(a): Taylor's polynomial by Paterson and Stockmeyer, scaling and squaring; a is overwritten."""
    n, spins = a.shape[0], a.shape[2]
    norm = 0.0
    for i in range(n):
        for s in range(spins):
            row = 0.0
            for j in range(n + 1):
                row += abs(a[i, j, s])
            norm = max(norm, row)
    squarings = 0
    while norm > LARGEST[2] and squarings < 1000:
        norm *= 0.5
        squarings += 1
    degree = 8 if norm < LARGEST[0] else 12 if norm < LARGEST[1] else 16
    scale = 0.5**squarings
    a2, a3, a4, p = work[0], work[1], work[2], work[3]
    for i in range(n):
        for j in range(n + 1):
            for s in range(spins):
                a[i, j, s] *= scale
    _multiply(a, a, 0.0, a2)
    _multiply(a2, a, 0.0, a3)
    _multiply(a2, a2, 0.0, a4)
    last, other = p, out
    for i in range(n):
        for j in range(n + 1):
            for s in range(spins):
                last[i, j, s] = _C[degree] * a4[i, j, s]
    _add_cubic(a, a2, a3, degree - 4, last)
    for k in range(degree - 8, -1, -4):
        _multiply(last, a4, 0.0, other)
        _add_cubic(a, a2, a3, k, other)
        last, other = other, last
    for _ in range(squarings):
        _multiply(last, last, 1.0, other)
        last, other = other, last
    if (degree // 4 + squarings) % 2 == 0:  # an odd number of swaps has left the result in `out`
        return
    for i in range(n):
        for j in range(n + 1):
            for s in range(spins):
                out[i, j, s] = p[i, j, s]


@njit(types.void(_F3, _F2, _F1, _F2, _F2, types.int64, _I1, types.float64, types.float64, types.float64, _F3), **_SPEED)
def _generator(rest, b1, shift, saturation, ratio, liquid, order, time, rf_x, rf_y, out):
    """out = `time` times the generator of a step of RF (rf_x, rf_y) (rad/s)."""
    n, spins, solid = rest.shape[0], rest.shape[2], saturation.shape[0]
    for i in range(n):
        for j in range(n + 1):
            for s in range(spins):
                out[i, j, s] = rest[i, j, s] * time
    for p in range(liquid):
        x, y, z = 3 * p, 3 * p + 1, 3 * p + 2
        for s in range(spins):
            w_x = (rf_x * b1[0, s] - rf_y * b1[1, s]) * time
            w_y = (rf_x * b1[1, s] + rf_y * b1[0, s]) * time
            w_z = shift[s] * time
            out[x, y, s] -= w_z
            out[y, x, s] += w_z
            out[x, z, s] += w_y
            out[z, x, s] -= w_y
            out[y, z, s] -= w_x
            out[z, y, s] += w_x
    power = (rf_x * rf_x + rf_y * rf_y) * time
    for m in range(solid):
        z, d = 3 * liquid + m, order[m]
        for s in range(spins):
            w = power * (b1[0, s] * b1[0, s] + b1[1, s] * b1[1, s]) * saturation[m, s]
            out[z, z, s] -= w
            if d >= 0:
                w_r = w * ratio[m, s]
                out[z, d, s] += w_r
                out[d, z, s] += w_r
                out[d, d, s] -= w_r * ratio[m, s]


@njit(types.void(_F3, types.int64, types.float64), **_SPEED)
def _turn(rows, liquid, angle):
    """Turn the transverse rows about z."""
    if angle == 0.0:
        return
    c, si = math.cos(angle), math.sin(angle)
    for p in range(liquid):
        for j in range(rows.shape[1]):
            for s in range(rows.shape[2]):
                x, y = rows[3 * p, j, s], rows[3 * p + 1, j, s]
                rows[3 * p, j, s] = c * x - si * y
                rows[3 * p + 1, j, s] = si * x + c * y


@njit(types.void(_F4, _F3, _F3, _F4, _F4, types.int64, _I1, _F1, _F1, _F1, _I1, _I1, _F1, _F4), **_SPEED)
def propagate(rest, b1, shift, saturation, ratio, liquid, order, time, rf_x, rf_y, place, played, turn, out):
    """out (group, row, column, spin): the map of steps played one after the other.

    Parameters
    ----------
    rest : (group, row, column, spin)
        Generator (1/s) without RF, seen from the carrier of frequency 0.
    b1 : (group, 2, spin)
        Real and imaginary part of the relative transmit field.
    shift : (place, group, spin)
        What is added to the angular frequency of every pool (rad/s), for each distinct carrier and gradient.
    saturation, ratio : (place, group, solid, spin)
        Rate of saturation per squared RF (s), and offset of the RF over the local dipolar field.
    liquid : int
        Number of liquid pools.
    order : (solid,)
        Row of each solid pool's dipolar order, -1 for none.
    time, rf_x, rf_y, place : (step,)
        Distinct steps: duration (s), RF (rad/s), and which carrier and gradient.
    played : (n,)
        Which step is played, in turn.
    turn : (n,)
        Angle (rad) about z after it.
    """
    groups, n, spins = rest.shape[0], rest.shape[1], rest.shape[3]
    work, maps = np.empty((4, n, n + 1, spins)), np.empty((time.size, n, n + 1, spins))
    a, total = np.empty((n, n + 1, spins)), np.empty((n, n + 1, spins))
    for g in range(groups):
        for k in range(time.size):
            c = place[k]
            _generator(rest[g], b1[g], shift[c, g], saturation[c, g], ratio[c, g], liquid, order, time[k], rf_x[k],
                       rf_y[k], a)  # fmt: skip
            _exponential(a, work, maps[k])
        total[:] = maps[played[0]]
        _turn(total, liquid, turn[0])
        for k in range(1, played.size):
            _multiply(maps[played[k]], total, 1.0, a)
            _turn(a, liquid, turn[k])
            a, total = total, a
        out[g] = total


@njit(types.void(_F4, _F4, _F4), **_SPEED)
def compose(later, earlier, out):
    """Maps (group, row, column, spin) one after the other."""
    for g in range(later.shape[0]):
        _multiply(later[g], earlier[g], 1.0, out[g])


@njit(types.void(_F4, _F3, _F3), **_SPEED)
def apply(maps, state, out):
    """Maps (group, row, column, spin) on magnetisation (group, row, spin)."""
    n, spins = maps.shape[1], maps.shape[3]
    for g in range(maps.shape[0]):
        for i in range(n):
            for s in range(spins):
                out[g, i, s] = maps[g, i, n, s]
            for k in range(n):
                for s in range(spins):
                    out[g, i, s] += maps[g, i, k, s] * state[g, k, s]
