"""All minima of the water-fat residual over the field, `LANES` voxels side by side; loaded through `kernels.compiled`.

With water and fat projected out (variable projection), the power that a voxel's signal s leaves in the model at field
psi and rate R is a sum over the differences of echo times tau_d alone,

    P(psi, R) = g_0 + 2 Re sum_d g_d(R) exp(i 2 pi psi tau_d),    g_d = sum over pairs j, k of conj(s_j) s_k M_jk(R),

M = Q Q^H the projector on exp(-R t) (1, c(t)). With one phase common to water and fat, it is half of that sum, plus
half the size of a like sum over the sums of echo times. The residual is |s|^2 - P. Golub and Pereyra, Inverse Problems
19:R1 (2003), doi:10.1088/0266-5611/19/2/201; for water and fat, Hernando, MRM 59:571 (2008), doi:10.1002/mrm.21522.
"""

import math

import numpy as np
from numba import njit, types

from ...simulator.lanes import FASTMATH, LANES, cos, exp, rows, sin

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
_R1 = types.Array(types.float64, 1, "C", readonly=True)
_R2 = types.Array(types.float64, 2, "C", readonly=True)
_R3 = types.Array(types.float64, 3, "C", readonly=True)
_I2 = types.Array(types.int64, 2, "C", readonly=True)
_F2 = types.float64[:, ::1]
BEND = 60.0  # 1/s
STEPS = 4  # of Newton's method on a polynomial of fifth order about a node: the last two change nothing in double
BINOMIAL = np.array([[float(math.comb(m, k)) for k in range(6)] for m in range(6)])


@njit(**_options)
def _derivatives(real, imag, cosine, sine, omega, n, i, out):
    """Value and five derivatives of 2 Re sum_d g_d exp(i psi omega_d) at a node, added to `out`."""
    for d in range(n):
        a = 2.0 * (real[d, i] * cosine[d] - imag[d, i] * sine[d])
        b = 2.0 * (real[d, i] * sine[d] + imag[d, i] * cosine[d])
        w = omega[d]
        w2 = w * w
        out[0] += a
        out[1] -= w * b
        out[2] -= w2 * a
        out[3] += w2 * w * b
        out[4] += w2 * w2 * a
        out[5] -= w2 * w2 * w * b


@njit(**_options)
def _size(real, imag, cosine, sine, omega, n, i, out):
    """As `_derivatives`, of |sum_d h_d exp(-i psi omega_d)|: from those of its square, by the chain rule."""
    a, b = np.zeros(6), np.zeros(6)
    for d in range(n):
        u = real[d, i] * cosine[d] + imag[d, i] * sine[d]
        v = imag[d, i] * cosine[d] - real[d, i] * sine[d]
        w = omega[d]
        for m in range(6):
            a[m] += u
            b[m] += v
            u, v = v * w, -u * w  # times -i omega
    # f = |h|, f^2 = h h*: Leibniz, solved for the highest derivative of f
    f = np.zeros(6)
    f[0] = np.sqrt(a[0] * a[0] + b[0] * b[0])
    if f[0] > 0.0:
        for m in range(1, 6):
            total = 0.0
            for k in range(m + 1):
                total += BINOMIAL[m, k] * (a[k] * a[m - k] + b[k] * b[m - k])
            for k in range(1, m):
                total -= BINOMIAL[m, k] * f[k] * f[m - k]
            f[m] = total / (2.0 * f[0])
    for m in range(6):
        out[m] += f[m]


@njit(**_options)
def _top(p, reach):
    """Where a fifth-order expansion is largest within +-reach, and its value there."""
    x = 0.0
    for _ in range(STEPS):
        first = p[1] + x * (p[2] + x * (p[3] / 2 + x * (p[4] / 6 + x * p[5] / 24)))
        second = p[2] + x * (p[3] + x * (p[4] / 2 + x * p[5] / 6))
        step = -first / second if second < 0.0 else (reach if first > 0.0 else -reach)
        x = min(max(x + step, -reach), reach)
    return x, p[0] + x * (p[1] + x * (p[2] / 2 + x * (p[3] / 6 + x * (p[4] / 24 + x * p[5] / 120))))


@njit(**_options)
def _explained(x, y, i, times, fat_real, fat_imag, psi, rate, common):
    """Power of lane i that water and fat explain at a field and rate: the projection itself, without a grid."""
    a = b = c_real = c_imag = 0.0  # normal equations: water-water, fat-fat, water-fat
    u_real = u_imag = v_real = v_imag = 0.0  # what the data have of water, of fat
    for n in range(times.shape[0]):
        decay = exp(-rate * times[n])
        turn = 2.0 * math.pi * psi * times[n]
        c, s = cos(turn), sin(turn)
        p, q = decay * (x[n, i] * c + y[n, i] * s), decay * (y[n, i] * c - x[n, i] * s)
        f, g = fat_real[n], fat_imag[n]
        a += decay * decay
        b += decay * decay * (f * f + g * g)
        c_real += decay * decay * f
        c_imag += decay * decay * g
        u_real += p
        u_imag += q
        v_real += f * p + g * q
        v_imag += f * q - g * p
    uu, vv = u_real * u_real + u_imag * u_imag, v_real * v_real + v_imag * v_imag
    uv_real, uv_imag = u_real * v_real + u_imag * v_imag, u_real * v_imag - u_imag * v_real  # conj(u) v
    if not common:
        size = b * uu + a * vv - 2.0 * (c_real * uv_real - c_imag * uv_imag)
        return size / (a * b - c_real * c_real - c_imag * c_imag)
    det = a * b - c_real * c_real
    size = (b * uu + a * vv - 2.0 * c_real * uv_real) / det
    h_real = b * (u_real * u_real - u_imag * u_imag) + a * (v_real * v_real - v_imag * v_imag)
    h_real -= 2.0 * c_real * (u_real * v_real - u_imag * v_imag)
    h_imag = 2.0 * (b * u_real * u_imag + a * v_real * v_imag - c_real * (u_real * v_imag + u_imag * v_real))
    return 0.5 * (size + np.sqrt(h_real * h_real + h_imag * h_imag) / det)


@njit(
    types.void(_R2, _R2, _R1, _R1, _R1, _R1, _R1, types.boolean, _I2, _R2, _R3, _R3, _R3, _I2, _R3, _R3, _R3,
               types.int64, types.int64, _F2, _F2, _F2, types.int64[::1]),
    nogil=True, cache=True, **_options,
)  # fmt: skip
def minima(
    real, imag, times, fat_real, fat_imag, psi, rates, periodic, pairs, diagonal, projector, lag, turn, sums, second,
    total, total_turn, first, last, field, cost, r2star, count
):  # fmt: skip
    """Minima of voxels first to last: field (Hz), residual and R2* (voxel, candidate), least residual first.

    Parameters
    ----------
    real, imag : (voxel, point)
    times, fat_real, fat_imag : (point,)
    psi : (node,)
        Grid of the field, Hz, evenly spaced.
    rates : (rate,)
    periodic : bool
        Whether the node after the last is the first.
    pairs : (pair, 3)
        Points j, k, and the number of their difference of times.
    diagonal, projector : (rate, point), (rate, pair, 2)
        M_jj and M_jk.
    lag, turn : (1, 1, lag), (2, node, lag)
        2 pi tau_d, and cos and sin of it times the field.
    sums, second, total, total_turn
        As pairs, projector, lag and turn, of the sums of times; no rows where the phases are free.
    field, cost, r2star, count
        Results.
    """
    n_point, n_node, n_rate, n_lag = real.shape[1], psi.shape[0], rates.shape[0], lag.shape[2]
    n_total, room = total.shape[2], field.shape[1]
    common = sums.shape[0] > 0
    width = psi[1] - psi[0]
    span = width * n_node
    x, y = np.zeros((n_point, LANES)), np.zeros((n_point, LANES))
    power = np.zeros(LANES)
    base = np.zeros((n_rate, LANES))
    g_real, g_imag = np.zeros((n_rate, n_lag, LANES)), np.zeros((n_rate, n_lag, LANES))
    h_real, h_imag = np.zeros((n_rate, max(n_total, 1), LANES)), np.zeros((n_rate, max(n_total, 1), LANES))
    u_, v_ = np.zeros((1, LANES)), np.zeros((1, LANES))
    best, which = np.zeros((n_node, LANES)), np.zeros((n_node, LANES))
    p = np.zeros(6)
    top, place = np.zeros(3), np.zeros(3)
    acc_, acc2_ = np.zeros((1, LANES)), np.zeros((1, LANES))
    for v0 in range(first, last, LANES):
        used = min(LANES, last - v0)
        for n in range(n_point):
            for i in range(LANES):
                x[n, i] = real[v0 + min(i, used - 1), n]
                y[n, i] = imag[v0 + min(i, used - 1), n]
        power[:] = 0.0
        base[:] = 0.0
        g_real[:] = 0.0
        g_imag[:] = 0.0
        h_real[:] = 0.0
        h_imag[:] = 0.0
        u, v = rows(u_, (1, LANES)), rows(v_, (1, LANES))
        for n in range(n_point):
            for i in range(LANES):
                power[i] += x[n, i] * x[n, i] + y[n, i] * y[n, i]
            for r in range(n_rate):
                m = diagonal[r, n]
                for i in range(LANES):
                    base[r, i] += m * (x[n, i] * x[n, i] + y[n, i] * y[n, i])
        for q in range(pairs.shape[0]):
            j, k, d = pairs[q, 0], pairs[q, 1], pairs[q, 2]
            for i in range(LANES):  # conj(s_j) s_k
                u[0, i] = x[j, i] * x[k, i] + y[j, i] * y[k, i]
                v[0, i] = x[j, i] * y[k, i] - y[j, i] * x[k, i]
            for r in range(n_rate):
                a, b = projector[r, q, 0], projector[r, q, 1]
                for i in range(LANES):
                    g_real[r, d, i] += a * u[0, i] - b * v[0, i]
                    g_imag[r, d, i] += a * v[0, i] + b * u[0, i]
        for q in range(sums.shape[0]):
            j, k, d = sums[q, 0], sums[q, 1], sums[q, 2]
            for i in range(LANES):  # s_j s_k
                u[0, i] = x[j, i] * x[k, i] - y[j, i] * y[k, i]
                v[0, i] = x[j, i] * y[k, i] + y[j, i] * x[k, i]
            for r in range(n_rate):
                a, b = second[r, q, 0], second[r, q, 1]
                for i in range(LANES):
                    h_real[r, d, i] += a * u[0, i] - b * v[0, i]
                    h_imag[r, d, i] += a * v[0, i] + b * u[0, i]
        acc, acc2 = rows(acc_, (1, LANES)), rows(acc2_, (1, LANES))
        for f in range(n_node):
            for i in range(LANES):
                best[f, i] = -1.0
                which[f, i] = 0.0
            for r in range(n_rate):
                for i in range(LANES):
                    acc[0, i] = 0.0
                for d in range(n_lag):
                    c, s = turn[0, f, d], turn[1, f, d]
                    for i in range(LANES):
                        acc[0, i] += c * g_real[r, d, i] - s * g_imag[r, d, i]
                for i in range(LANES):
                    acc[0, i] = base[r, i] + 2.0 * acc[0, i]
                if common:
                    for i in range(LANES):
                        u[0, i] = 0.0
                        v[0, i] = 0.0
                    for d in range(n_total):
                        c, s = total_turn[0, f, d], total_turn[1, f, d]
                        for i in range(LANES):
                            u[0, i] += c * h_real[r, d, i] + s * h_imag[r, d, i]
                            v[0, i] += c * h_imag[r, d, i] - s * h_real[r, d, i]
                    for i in range(LANES):
                        acc2[0, i] = np.sqrt(u[0, i] * u[0, i] + v[0, i] * v[0, i])
                    for i in range(LANES):
                        acc[0, i] += acc2[0, i]
                for i in range(LANES):
                    more = acc[0, i] > best[f, i]
                    best[f, i] = acc[0, i] if more else best[f, i]
                    which[f, i] = float(r) if more else which[f, i]
        for i in range(used):
            found = 0
            for f in range(n_node):
                before, after = f - 1, f + 1
                if periodic:
                    before, after = before % n_node, after % n_node
                elif before < 0 or after == n_node:
                    continue
                if not (best[f, i] > best[before, i] and best[f, i] >= best[after, i]):
                    continue
                # a maximum over the field at each of three rates, then over the rate: the profile's own maximum
                middle = int(which[f, i])
                low = min(max(middle - 1, 0), max(n_rate - 3, 0))
                n_near = min(3, n_rate)
                for e in range(n_near):
                    r = low + e
                    p[:] = 0.0
                    _derivatives(g_real[r], g_imag[r], turn[0, f], turn[1, f], lag[0, 0], n_lag, i, p)
                    p[0] += base[r, i]
                    if common:
                        _size(h_real[r], h_imag[r], total_turn[0, f], total_turn[1, f], total[0, 0], n_total, i, p)
                    place[e], top[e] = _top(p, width)
                rate, shift = rates[middle], place[middle - low]
                if n_near == 3:  # a parabola over log(R + BEND), on which the power is nearly one
                    r0, r1 = math.log(rates[low] + BEND), math.log(rates[low + 1] + BEND)
                    r2 = math.log(rates[low + 2] + BEND)
                    d1, d2 = (top[1] - top[0]) / (r1 - r0), (top[2] - top[1]) / (r2 - r1)
                    bend = (d2 - d1) / (r2 - r0)
                    if bend < 0.0:
                        w = min(max((r0 + r1) / 2 - d1 / (2 * bend), r0), r2)
                        d1, d2 = (place[1] - place[0]) / (r1 - r0), (place[2] - place[1]) / (r2 - r1)
                        shift = place[0] + (w - r0) * (d1 + (d2 - d1) / (r2 - r0) * (w - r1))
                        shift = min(max(shift, -width), width)
                        rate = math.exp(w) - BEND
                height = _explained(x, y, i, times, fat_real, fat_imag, psi[f] + shift, rate, common)
                left = max(power[i] - height, 0.0)
                where = psi[f] + shift
                if periodic:
                    where -= span * np.floor((where - psi[0]) / span)
                # insertion by residual; the list keeps the lowest
                at = found if found < room else room
                while at > 0 and cost[v0 + i, at - 1] > left:
                    at -= 1
                if at < room:
                    for e in range(min(found, room - 1), at, -1):
                        cost[v0 + i, e] = cost[v0 + i, e - 1]
                        field[v0 + i, e] = field[v0 + i, e - 1]
                        r2star[v0 + i, e] = r2star[v0 + i, e - 1]
                    cost[v0 + i, at], field[v0 + i, at], r2star[v0 + i, at] = left, where, rate
                    found = min(found + 1, room)
            count[v0 + i] = found
