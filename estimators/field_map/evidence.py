"""What a whole sheet says for each of two fields, were it of one composition; loaded through `kernels.compiled`.

A voxel's least residual lets fat fraction and R2* follow its own noise, under either field, and what the noise adds
grows with the number of voxels. Where a sheet is of one tissue, both are fitted once for all of its voxels: the same
evidence with a voxel's share of that noise. With the voxels turned back by their fields, b_v = Q(R)^H y_v their parts
along the orthonormal columns of exp(-R t) (1, c(t)), and an amplitude of its own in each, the power that the best
common shape explains is the larger eigenvalue of the 2 x 2 matrix sum_v b_v b_v^H (Eckart and Young, Psychometrika
1:211 (1936), doi:10.1007/BF02288367). Each voxel's field follows by Gauss-Newton steps.
"""

import math

import numpy as np
from numba import njit, types

from ...simulator.lanes import FASTMATH

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
_R1, _R2 = (types.Array(types.float64, n, "C", readonly=True) for n in (1, 2))
_C1 = types.Array(types.complex128, 1, "C", readonly=True)
BEND = 60.0  # 1/s; the power is nearly a parabola over log(R + BEND)
NARROW = np.array([0.17, 0.08, 0.04])  # of log(R + BEND): half widths of the rounds after the first


@njit(**_options)
def _columns(times, fat, rate, common, basis):
    """Two orthonormal columns over water and fat; for a common phase, of real parts."""
    ww = ff = 0.0
    wf = 0.0 + 0.0j
    for p in range(times.shape[0]):
        decay = math.exp(-rate * times[p])
        basis[0, p], basis[1, p] = decay, decay * fat[p]
        ww += decay * decay
        ff += (basis[1, p] * basis[1, p].conjugate()).real
        wf += decay * basis[1, p]
    if common:
        wf = complex(wf.real, 0.0)
    left = math.sqrt(max(ff - (wf * wf.conjugate()).real / ww, 1e-12 * ff))
    for p in range(times.shape[0]):
        basis[1, p] = (basis[1, p] - wf / ww * basis[0, p]) / left
        basis[0, p] = basis[0, p] / math.sqrt(ww)


@njit(**_options)
def _explained(turned, weight, n, times, fat, rate, common, basis, shape):
    """Power that one shape, left in `shape`, explains of n voxels at a rate."""
    _columns(times, fat, rate, common, basis)
    a = d = 0.0
    c = 0.0 + 0.0j
    for v in range(n):
        b0 = b1 = 0.0 + 0.0j
        for p in range(times.shape[0]):
            b0 += basis[0, p].conjugate() * turned[v, p]
            b1 += basis[1, p].conjugate() * turned[v, p]
        a += weight[v] * (b0 * b0.conjugate()).real
        d += weight[v] * (b1 * b1.conjugate()).real
        c += weight[v] * b0 * b1.conjugate()
    if common:
        c = complex(c.real, 0.0)
    half = (a - d) / 2
    root = math.sqrt(half * half + (c * c.conjugate()).real)
    # eigenvector of [[a, c], [c*, d]], of the two ways to write it the one that does not cancel
    u, w = (half + root + 0.0j, c.conjugate()) if half >= 0.0 else (c, root - half + 0.0j)
    size = math.sqrt((u * u.conjugate()).real + (w * w.conjugate()).real)
    if size == 0.0:
        u, w, size = 1.0 + 0.0j, 0.0 + 0.0j, 1.0
    norm = 0.0
    for p in range(times.shape[0]):
        shape[p] = (u * basis[0, p] + w * basis[1, p]) / size
        norm += (shape[p] * shape[p].conjugate()).real
    for p in range(times.shape[0]):
        shape[p] = shape[p] / math.sqrt(norm)
    return (a + d) / 2 + root


@njit(**_options)
def _best_rate(turned, weight, n, times, fat, low, step, high, common, basis, shape):
    """Rate where a parabola through three, even in log(R + BEND), is highest."""
    middle = low + step
    left = _explained(turned, weight, n, times, fat, math.exp(low) - BEND, common, basis, shape)
    top = _explained(turned, weight, n, times, fat, math.exp(middle) - BEND, common, basis, shape)
    right = _explained(turned, weight, n, times, fat, math.exp(high) - BEND, common, basis, shape)
    bend = left - 2 * top + right
    if bend >= 0.0:
        return low if left > right else high
    return min(max(middle + step * (left - right) / (2 * bend), low), high)


@njit(**_options)
def _follow(turned, n, times, shape):
    """Turn each voxel by a Gauss-Newton step of its field, its amplitude free."""
    spread = middle = 0.0
    for p in range(times.shape[0]):
        middle += times[p] * (shape[p] * shape[p].conjugate()).real
    for p in range(times.shape[0]):
        spread += (times[p] - middle) ** 2 * (shape[p] * shape[p].conjugate()).real
    most = 0.5 / (times[-1] - times[0])  # rad/s: half a radian over the echoes
    for v in range(n):
        amplitude = slant = 0.0 + 0.0j
        for p in range(times.shape[0]):
            part = shape[p].conjugate() * turned[v, p]
            amplitude += part
            slant += (times[p] - middle) * part
        power = (amplitude * amplitude.conjugate()).real
        if power > 0.0:
            step = (amplitude.conjugate() * slant).imag / (power * spread)
            step = min(max(step, -most), most)
            for p in range(times.shape[0]):
                turn = step * times[p]
                turned[v, p] = turned[v, p] * complex(math.cos(turn), -math.sin(turn))


@njit(
    types.void(types.Array(types.complex128, 2, "C", readonly=True), _R2, _R1, types.Array(types.int64, 1, "C",
               readonly=True), _R1, _C1, _R1, types.boolean, types.int64, types.int64, types.float64[:, ::1]),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def shared(data, field, weight, begin, times, fat, rates, common, first, last, explained):
    """Power over the noise variance that sheets `first` to `last` of one composition explain, for each of two fields.

    Parameters
    ----------
    data : (voxel, point)
        Sheet after sheet.
    field : (2, voxel)
        Hz.
    weight : (voxel,)
        1/variance.
    begin : (sheet + 1,)
        First voxel of each sheet.
    times, fat : (point,)
    rates : (rate,)
        1/s, rising: a grid for R2*.
    common : bool
        Whether water and fat have one phase.
    explained : (2, sheet)
        Result.
    """
    n_point, n_rate = times.shape[0], rates.shape[0]
    basis, shape = np.zeros((2, n_point), np.complex128), np.zeros(n_point, np.complex128)
    bottom, ceiling = math.log(rates[0] + BEND), math.log(rates[-1] + BEND)
    for s in range(first, last):
        v0, n = begin[s], begin[s + 1] - begin[s]
        turned = np.zeros((n, n_point), np.complex128)
        mass = weight[v0 : v0 + n]
        for h in range(2):
            for v in range(n):
                for p in range(n_point):
                    turn = 2 * math.pi * field[h, v0 + v] * times[p]
                    turned[v, p] = data[v0 + v, p] * complex(math.cos(turn), -math.sin(turn))
            top, at = -1.0, 0
            for r in range(n_rate):
                power = _explained(turned, mass, n, times, fat, rates[r], common, basis, shape)
                if power > top:
                    top, at = power, r
            where = math.log(rates[at] + BEND)
            _explained(turned, mass, n, times, fat, rates[at], common, basis, shape)
            for k in range(NARROW.shape[0]):
                _follow(turned, n, times, shape)
                if n_rate > 1:
                    width = NARROW[k] if k else max((ceiling - bottom) / (n_rate - 1), NARROW[0])
                    middle = min(max(where, bottom + width), ceiling - width)
                    where = _best_rate(
                        turned, mass, n, times, fat, middle - width, width, middle + width, common, basis, shape
                    )
                rate = math.exp(where) - BEND
                top = _explained(turned, mass, n, times, fat, rate, common, basis, shape)
            explained[h, s] = top
