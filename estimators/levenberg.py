"""Bounded Levenberg-Marquardt, `LANES` voxels side by side, for any kernel; loaded through `kernels.compiled`.

One loop serves every equation: a lane that is done writes its result and takes the next voxel. The cost is the sum
of squared residuals, or sigma**2 times the Rician deviance; the likelihood enters in one place, `_likelihood`, as a
weight and a pseudo-residual where the normal equations are formed.

Marquardt, J Soc Ind Appl Math 11:431 (1963), doi:10.1137/0111030; bounds by the active set of Bertsekas, SIAM J
Control Optim 20:221 (1982), doi:10.1137/0320018: an unknown at a bound that the gradient pushes outwards is struck
from the step.
"""

import math

import numpy as np
from numba import njit, types

from ..simulator.kernels import KERNEL
from ..simulator.lanes import FASTMATH, LANES, POINTS

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
NOT_CONVERGED, AT_BOUND, SINGULAR = 2, 4, 8  # bits of `Status`, in numbers: the cached machine code holds them
_EPS = 2.0**-52
DAMPING = 1e-3  # at the start, as a fraction of the diagonal
REACH = 0.5  # a non-linear unknown steps at most this fraction of its value, and the reach of its range


@njit(**_options)
def _bessel(z):
    """I1(z)/I0(z) and log(exp(-z) I0(z)) for z >= 0: power series below 20, asymptotic series above."""
    if z < 20.0:
        q = 0.25 * z * z
        i0 = term0 = 1.0
        i1 = term1 = 1.0
        for k in range(1, 80):
            term0 *= q / (k * k)
            term1 *= q / (k * (k + 1.0))
            i0 += term0
            i1 += term1
            if term0 < 1e-17 * i0:
                break
        return 0.5 * z * i1 / i0, math.log(i0) - z
    a0 = a1 = s0 = s1 = 1.0
    for k in range(1, 25):
        odd = (2.0 * k - 1.0) ** 2
        a0 *= odd / (8.0 * k * z)
        a1 *= (odd - 4.0) / (8.0 * k * z)
        s0 += a0
        s1 += a1
        if a0 < 1e-17:
            break
    return s1 / s0, math.log(s0) - 0.5 * math.log(2.0 * math.pi * z)


@njit(**_options)
def _likelihood(data, d, jac, cost, sigma, n_channel, n_free, used):
    """Rician hook: d becomes the pseudo-residual over the root of the weight, jac is scaled by that root.

    With A the noise-free magnitude, m the data and R = I1/I0 at z = mA/sigma**2, the score is (m R - A)/sigma**2 and
    the observed information (1 - (m/sigma)**2 (1 - R/z - R**2))/sigma**2, kept within [0.02, 1].
    """
    for k in range(used):
        for c in range(n_channel):
            for i in range(LANES):
                m = data[k, c, i]
                a = m - d[k, c, i]
                variance = sigma[i] * sigma[i]
                z = m * abs(a) / variance
                ratio, log_i0e = _bessel(z)
                slope = 1.0 - ratio / z - ratio * ratio if z > 1e-8 else 0.5
                weight = min(max(1.0 - m * m / variance * slope, 0.02), 1.0)
                root = math.sqrt(weight)
                cost[i] += (m - abs(a)) ** 2 - 2.0 * variance * log_i0e
                d[k, c, i] = (math.copysign(m * ratio, a) - a) / root
                for q in range(n_free):
                    jac[k, c * n_free + q, i] *= root


@njit(**_options)
def _normal(kernel, theta, x, data, sigma, rician, n_channel, n, y, jac, d, local, A, g, cost):
    """Normal equations A = J'J, g = J'r and the cost at theta, all lanes, POINTS points at a time."""
    A[:] = 0.0
    g[:] = 0.0
    cost[:] = 0.0
    n_point = x.shape[0]
    for k0 in range(0, n_point, POINTS):
        used = min(POINTS, n_point - k0)
        for k in range(used):
            kernel(theta, x[k0 + k], y, jac[k])
            for c in range(n_channel):
                p = (k0 + k) * n_channel + c
                for i in range(LANES):
                    d[k, c, i] = data[p, i] - y[c, i]
        if rician:
            for k in range(used):
                for c in range(n_channel):
                    for i in range(LANES):
                        local[k, c, i] = data[(k0 + k) * n_channel + c, i]
            _likelihood(local, d, jac, cost, sigma, n_channel, n, used)
        if used < POINTS:
            d[used:] = 0.0
            jac[used:] = 0.0
        for c in range(n_channel):
            if not rician:
                for i in range(LANES):
                    s = cost[i]
                    for k in range(POINTS):
                        s += d[k, c, i] * d[k, c, i]
                    cost[i] = s
            r = 0
            for a in range(n):
                p = c * n + a
                for i in range(LANES):
                    s = g[a, i]
                    for k in range(POINTS):
                        s += jac[k, p, i] * d[k, c, i]
                    g[a, i] = s
                for b in range(a + 1):
                    q = c * n + b
                    for i in range(LANES):
                        s = A[r, i]
                        for k in range(POINTS):
                            s += jac[k, p, i] * jac[k, q, i]
                        A[r, i] = s
                    r += 1


@njit(**_options)
def _cholesky(A, damping, open_, n, L):
    """L L' = A + damping * diag A, without the rows of unknowns that are not open; the diagonal of L is inverted."""
    r = 0
    for a in range(n):
        ra = a * (a + 1) // 2
        for b in range(a + 1):
            rb = b * (b + 1) // 2
            for i in range(LANES):
                L[r, i] = A[r, i] * open_[a, i] * open_[b, i]
            if a == b:
                for i in range(LANES):
                    L[r, i] += damping[i] * L[r, i] + (1.0 - open_[a, i]) + 1e-300
            for k in range(b):
                for i in range(LANES):
                    L[r, i] -= L[ra + k, i] * L[rb + k, i]
            if a == b:
                # a pivot that rounding owns would send the step anywhere: floor it at the damped diagonal's last bits
                for i in range(LANES):
                    floor = max(A[r, i] * (1e-15 + 0.5 * damping[i]), 1e-300)
                    L[r, i] = 1.0 / math.sqrt(max(L[r, i], floor))
            else:
                for i in range(LANES):
                    L[r, i] *= L[rb + b, i]
            r += 1


@njit(**_options)
def _solve(L, n, v):
    """v <- (L L')^-1 v."""
    for a in range(n):
        ra = a * (a + 1) // 2
        for k in range(a):
            for i in range(LANES):
                v[a, i] -= L[ra + k, i] * v[k, i]
        for i in range(LANES):
            v[a, i] *= L[ra + a, i]
    for a in range(n - 1, -1, -1):
        for k in range(a + 1, n):
            rk = k * (k + 1) // 2
            for i in range(LANES):
                v[a, i] -= L[rk + a, i] * v[k, i]
        ra = a * (a + 1) // 2
        for i in range(LANES):
            v[a, i] *= L[ra + a, i]


@njit(**_options)
def _inverse(A, i, n, scale, L, inverse):
    """Inverse of lane i's A, scaled to unit diagonal first; False where a pivot is rounding."""
    for a in range(n):
        v = A[a * (a + 1) // 2 + a, i]
        scale[a] = 1.0 / math.sqrt(v) if v > 0.0 else 0.0
    for a in range(n):
        for b in range(a + 1):
            v = A[a * (a + 1) // 2 + b, i] * scale[a] * scale[b]
            for k in range(b):
                v -= L[a, k] * L[b, k]
            if a == b:
                if not v > 1e-14:
                    return False
                L[a, a] = 1.0 / math.sqrt(v)
            else:
                L[a, b] = v * L[b, b]
    for j in range(n):  # L <- L^-1, column by column, in place below the diagonal
        for a in range(j + 1, n):
            v = 0.0
            for k in range(j, a):
                v -= L[a, k] * (L[j, j] if k == j else inverse[k, j])
            inverse[a, j] = v * L[a, a]
        inverse[j, j] = L[j, j]
    for a in range(n):
        for b in range(a + 1):
            v = 0.0
            for k in range(a, n):
                v += inverse[k, a] * inverse[k, b]
            L[a, b] = v * scale[a] * scale[b]
    for a in range(n):
        for b in range(a + 1):
            inverse[a, b] = inverse[b, a] = L[a, b]
    return True


@njit(
    types.void(
        KERNEL,
        types.float64[:, ::1],  # x (point, shared)
        types.float64[:, ::1],  # data (voxel, point * channel)
        types.float64[:, ::1],  # start (voxel, free)
        types.float64[:, ::1],  # held (voxel, held)
        types.float64[::1],  # low
        types.float64[::1],  # high
        types.float64[::1],  # reach: what a step may change beside REACH times the value
        types.boolean[::1],  # frozen: unknowns that stay at their start
        types.float64[::1],  # sigma (voxel), for the Rician likelihood
        types.boolean,  # rician
        types.int64,  # channels
        types.float64,  # rtol
        types.int64,  # max_evaluations
        types.float64[:, ::1],  # theta out (voxel, free)
        types.float64[:, :, ::1],  # covariance out (voxel or 0, free, free)
        types.float64[:, ::1],  # standard error out, for unit noise
        types.float64[::1],  # cost out
        types.uint16[::1],  # status out
        types.int64[::1],  # evaluations out
    ),
    nogil=True,
    cache=True,
    **_options,
)
def levenberg(
    kernel, x, data, start, held, low, high, reach, frozen, sigma, rician, n_channel, rtol, max_evaluations,
    best, covariance, sd, cost, status, evaluations,
):  # fmt: skip
    """Fit all voxels of one block; a voxel whose status is set on entry is passed over."""
    n_voxel, n, n_held, n_data = data.shape[0], start.shape[1], held.shape[1], data.shape[1]
    tri = n * (n + 1) // 2
    trial = np.zeros((n + n_held, LANES))
    P = np.zeros((n, LANES))
    S = np.zeros((n_data, LANES))
    noise = np.ones(LANES)
    y = np.empty((n_channel, LANES))
    jac = np.zeros((POINTS, n_channel * n, LANES))
    d = np.zeros((POINTS, n_channel, LANES))
    local = np.zeros((POINTS, n_channel, LANES))
    A = np.zeros((tri, LANES))
    A_new = np.zeros((tri, LANES))
    g = np.zeros((n, LANES))
    g_new = np.zeros((n, LANES))
    c = np.zeros(LANES)
    c_new = np.zeros(LANES)
    square = np.zeros(LANES)
    L = np.zeros((tri, LANES))
    step = np.zeros((n, LANES))
    open_ = np.ones((n, LANES))
    damping = np.ones(LANES)
    gain = np.zeros(LANES)
    gain_before = np.zeros(LANES)
    foretold = np.ones(LANES)
    bend = np.zeros(LANES)
    done = np.ones(LANES)
    accepted = np.zeros(LANES)
    voxel = np.full(LANES, -1)
    count = np.zeros(LANES)
    most_evaluations = float(max_evaluations)
    scale = np.empty(n)
    inverse = np.zeros((n, n))
    triangle = np.zeros((n, n))
    next_voxel = live = 0
    while True:
        for i in range(LANES):  # lanes that are done write out and take the next voxel
            if done[i] == 0.0:
                continue
            v = voxel[i]
            if v >= 0:
                if done[i] > 1.0:
                    status[v] |= NOT_CONVERGED
                for a in range(n):
                    best[v, a] = P[a, i]
                    if not frozen[a] and (P[a, i] <= low[a] or P[a, i] >= high[a]):
                        status[v] |= AT_BOUND
                    for b in range(n):  # what is frozen is known
                        if frozen[a] or frozen[b]:
                            A[max(a, b) * (max(a, b) + 1) // 2 + min(a, b), i] = 1.0 if a == b else 0.0
                known = _inverse(A, i, n, scale, triangle, inverse)
                if not known:
                    status[v] |= SINGULAR
                for a in range(n):
                    sd[v, a] = 0.0 if frozen[a] else (math.sqrt(inverse[a, a]) if known else np.inf)
                if covariance.shape[0] > 0:
                    for a in range(n):
                        for b in range(n):
                            covariance[v, a, b] = inverse[a, b] if known else np.inf
                cost[v] = c[i]
                evaluations[v] = int(count[i])
                voxel[i] = -1
                live -= 1
            while next_voxel < n_voxel and status[next_voxel] != 0:
                next_voxel += 1
            if next_voxel < n_voxel:
                v = next_voxel
                next_voxel += 1
                live += 1
                voxel[i] = v
                count[i] = 0.0
                damping[i] = DAMPING
                gain[i] = np.inf
                c[i] = np.inf
                done[i] = 0.0
                noise[i] = sigma[v]
                square[i] = 0.0
                for k in range(n_data):
                    S[k, i] = data[v, k]
                    square[i] += data[v, k] * data[v, k]
                for a in range(n):
                    trial[a, i] = start[v, a] if frozen[a] else min(max(start[v, a], low[a]), high[a])
                for a in range(n_held):
                    trial[n + a, i] = held[v, a]
        if live == 0:
            return
        _normal(kernel, trial, x, S, noise, rician, n_channel, n, y, jac, d, local, A_new, g_new, c_new)
        for i in range(LANES):  # bitwise logic: a branch would keep the loop from vectorising
            # below the resolution of the cost, the Gauss-Newton step still contracts: follow it while its gain falls
            blur = 8.0 * _EPS * math.sqrt(c[i] * square[i])  # each residual is known to the last bits of its datum
            fine = (gain[i] <= blur) & (c_new[i] <= c[i] + blur)
            better = (c_new[i] < c[i]) | fine
            first = c[i] == np.inf
            count[i] += 1.0
            accepted[i] = 1.0 if better else 0.0
            stuck = (damping[i] > 1e12) | (count[i] >= most_evaluations) | (first & (not better))
            finished = better & (c_new[i] <= 64.0 * _EPS * _EPS * square[i])  # nothing is left to gain
            ended = 1.0 if finished else (2.0 if stuck else 0.0)
            done[i] = done[i] if done[i] > 0.0 else ended
            # trust what the quadratic model foretold: where it fails by the curvature of large residuals, or down a
            # bent valley, plain tenfold steps of the damping would cycle between too little and too much
            truth = (c[i] - c_new[i]) / foretold[i]
            factor = 0.3 if ((truth > 0.75) | fine) else (1.0 if truth > 0.25 else 4.0)
            kept = max(damping[i] * factor, 1e-14)
            kept = damping[i] if first else kept
            damping[i] = kept if better else damping[i] * 3.0
            c[i] = c_new[i] if better else c[i]
        for a in range(n):
            for i in range(LANES):
                P[a, i] = trial[a, i] if accepted[i] > 0.0 else P[a, i]
                g[a, i] = g_new[a, i] if accepted[i] > 0.0 else g[a, i]
        for a in range(tri):
            for i in range(LANES):
                A[a, i] = A_new[a, i] if accepted[i] > 0.0 else A[a, i]
        for a in range(n):
            low_a, high_a, held_fast = low[a], high[a], frozen[a]
            for i in range(LANES):
                outward = ((P[a, i] <= low_a) & (g[a, i] < 0.0)) | ((P[a, i] >= high_a) & (g[a, i] > 0.0)) | held_fast
                open_[a, i] = 0.0 if outward else 1.0
                step[a, i] = 0.0 if outward else g[a, i]
        _cholesky(A, damping, open_, n, L)
        _solve(L, n, step)
        gain_before[:] = gain
        gain[:] = 0.0
        foretold[:] = 0.0
        for a in range(n):
            low_a, high_a, reach_a = low[a], high[a], reach[a]
            for i in range(LANES):
                most = REACH * abs(P[a, i]) + reach_a
                target = P[a, i] + min(max(step[a, i], -most), most)
                target = min(max(target, low_a), high_a)
                step[a, i] = target - P[a, i]
                gain[i] += abs(g[a, i] * step[a, i])
                foretold[i] += g[a, i] * step[a, i]
                trial[a, i] = target
        for a in range(n):
            for b in range(a + 1):
                weight = 1.0 if a == b else 2.0
                r = a * (a + 1) // 2 + b
                for i in range(LANES):
                    bend[i] += weight * A[r, i] * step[a, i] * step[b, i]
        for i in range(LANES):
            foretold[i] = 2.0 * foretold[i] - bend[i]
            bend[i] = 0.0
        for i in range(LANES):  # the gradient stop: what a step could still gain, as if it were undamped
            small = (damping[i] <= 1.0) & (gain[i] * (1.0 + damping[i]) <= rtol * c[i])
            blur = 8.0 * _EPS * math.sqrt(c[i] * square[i])
            stalled = (damping[i] < 1e-11) & (gain_before[i] <= blur) & (gain[i] >= gain_before[i])
            done[i] = 1.0 if ((small | stalled) & (done[i] == 0.0)) else done[i]
