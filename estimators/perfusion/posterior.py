"""Posterior moments and quantiles by adaptive importance sampling, for any kernel; loaded through `kernels.compiled`.

The unknowns live in z, where the prior is a standard normal: theta = exp(m + s z) or 1/(1 + exp(-(m + s z))). The
scale of the signal (the last row of `theta`) is integrated analytically under a flat prior. Samples come in rounds:
some from the prior, then from a Student t about a first guess, then twice from a t with the moments found so far;
every sample is weighted by the mixture of all rounds, so that a bad early round cannot spoil the answer.

Cornuet et al., Scand J Stat 39:798 (2012), doi:10.1111/j.1467-9469.2011.00756.x.
"""

import math

import numpy as np
from numba import njit, types

from ...simulator.kernels import KERNEL
from ...simulator.lanes import FASTMATH, LANES

_options = {"fastmath": FASTMATH, "error_model": "numpy"}
FREEDOM = 5.0  # of the Student t: heavier tails than the posterior's
ROUNDS = 4


@njit(**_options)
def _cholesky(A, n, L):
    """L L' = A; a pivot that is lost is kept small and positive."""
    for a in range(n):
        for b in range(a + 1):
            v = A[a, b]
            for k in range(b):
                v -= L[a, k] * L[b, k]
            L[a, b] = math.sqrt(max(v, 1e-12)) if a == b else v / L[b, b]


@njit(**_options)
def _log_t(z, j, centre, L, n, work):
    """Log density of the Student t at sample j, but for the constant that all rounds share."""
    square, determinant = 0.0, 0.0
    for a in range(n):
        v = z[j, a] - centre[a]
        for k in range(a):
            v -= L[a, k] * work[k]
        work[a] = v / L[a, a]
        square += work[a] * work[a]
        determinant += math.log(L[a, a])
    return -0.5 * (FREEDOM + n) * math.log1p(square / FREEDOM) - determinant


@njit(**_options)
def _moments(z, weight, n_sample, n, centre, covariance):
    """Weighted mean of the first samples, and the lower triangle of their covariance."""
    total = 0.0
    centre[:] = 0.0
    covariance[:] = 0.0
    for j in range(n_sample):
        total += weight[j]
        for a in range(n):
            centre[a] += weight[j] * z[j, a]
    for a in range(n):
        centre[a] /= total
    for j in range(n_sample):
        for a in range(n):
            for b in range(a + 1):
                covariance[a, b] += weight[j] * (z[j, a] - centre[a]) * (z[j, b] - centre[b]) / total


@njit(**_options)
def _draw(normal, root, first, last, r, centre, L, n, z):
    """Samples first to last: of the prior in round 0, then of the Student t of the round."""
    for j in range(first, last):
        for a in range(n):
            value = 0.0
            if r == 0:
                value = normal[j, a]
            else:
                for k in range(a + 1):
                    value += L[a, k] * normal[j, k]
                value = centre[a] + value / root[j]
            z[j, a] = min(max(value, -12.0), 12.0)


@njit(**_options)
def _square(z, j, n):
    """z'z of sample j: minus twice its log prior density, but for a constant."""
    square = 0.0
    for a in range(n):
        square += z[j, a] * z[j, a]
    return square


@njit(**_options)
def _evaluate(kernel, x, data, variance, first, last, m, s, logit, n, z, lanes, natural, scale_variance, log_target):
    """Values, the signal's scale with its variance, and log posterior density of samples first to last of one voxel."""
    theta, y, none, along, power = lanes
    for j0 in range(first, last, LANES):
        for a in range(n):
            for i in range(LANES):
                t = math.exp(m[a] + s[a] * z[min(j0 + i, last - 1), a])
                theta[a, i] = t / (1.0 + t) if logit[a] else t
        along[:] = 0.0
        power[:] = 0.0
        for k in range(x.shape[0]):
            kernel(theta, x[k], y, none)
            for i in range(LANES):
                along[i] += data[k] * y[0, i]
                power[i] += y[0, i] * y[0, i]
        for i in range(min(LANES, last - j0)):
            j = j0 + i
            for a in range(n):
                natural[j, a] = theta[a, i]
            natural[j, n] = along[i] / power[i]
            scale_variance[j] = variance / power[i]
            log_likelihood = 0.5 * along[i] * along[i] / (power[i] * variance) - 0.5 * math.log(power[i])
            log_target[j] = log_likelihood - 0.5 * _square(z, j, n)


@njit(**_options)
def _weigh(log_target, log_round, last, r, weight):
    """Weights of all samples so far under the mixture of rounds 0 to r; gives their effective number."""
    top = -np.inf
    for j in range(last):
        highest = log_round[j, 0]
        for q in range(1, r + 1):
            highest = max(highest, log_round[j, q])
        mixture = 0.0
        for q in range(r + 1):
            mixture += math.exp(log_round[j, q] - highest)
        weight[j] = log_target[j] - highest - math.log(mixture)
        top = max(top, weight[j])
    total, squares = 0.0, 0.0
    for j in range(last):
        weight[j] = math.exp(weight[j] - top)
        total += weight[j]
        squares += weight[j] * weight[j]
    return total * total / squares


@njit(**_options)
def _quantile(value, weight, order, probability):
    """Quantile of weighted samples, between the mid-points of the weights of the two samples beside it."""
    below, found = 0.0, value[order[0]]
    for j in range(len(order)):
        w = weight[order[j]]
        if below + 0.5 * w >= probability:
            if j > 0:
                before = below - 0.5 * weight[order[j - 1]]
                share = (probability - before) / (below + 0.5 * w - before)
                found = value[order[j - 1]] + share * (value[order[j]] - value[order[j - 1]])
            break
        below += w
        found = value[order[j]]
    return found


@njit(
    types.void(
        KERNEL,
        types.float64[:, ::1],  # x (point, shared)
        types.float64[:, ::1],  # data (voxel, point)
        types.float64[::1],  # noise SD (voxel)
        types.float64[:, ::1],  # first guess in z (voxel, unknown)
        types.float64[:, :, ::1],  # its covariance (voxel, unknown, unknown)
        types.float64[:, ::1],  # standard normal points (sample of all rounds, unknown)
        types.float64[::1],  # chi-square points over their freedom, root (sample)
        types.float64[::1],  # prior location
        types.float64[::1],  # prior scale
        types.boolean[::1],  # whether logit (else log)
        types.float64,  # log of the t's normalisation over that of the prior
        types.float64[::1],  # probabilities of the quantiles
        types.float64[:, ::1],  # out: mean (voxel, unknown + 1), the signal's scale last
        types.float64[:, ::1],  # out: SD
        types.float64[:, :, ::1],  # out: quantiles (voxel, unknown, probability), or no voxel
        types.float64[::1],  # out: effective number of samples
    ),
    nogil=True,
    cache=True,
    **_options,
)
def posterior(
    kernel, x, data, noise, guess, spread, normal, root, m, s, logit, norm, probability, mean, sd, quantile, effective
):
    """Moments (and quantiles) of every voxel; voxels with a NaN guess are passed over."""
    n_voxel, n = guess.shape
    size = normal.shape[0] // ROUNDS
    n_sample = size * ROUNDS
    z = np.empty((n_sample, n))
    natural = np.empty((n_sample, n + 1))
    log_target = np.empty(n_sample)
    log_round = np.empty((n_sample, ROUNDS))
    weight = np.empty(n_sample)
    scale_variance = np.empty(n_sample)
    # theta, whose last row is the signal's scale of 1; signal; no Jacobian; data times signal, signal squared
    lanes = np.ones((n + 1, LANES)), np.empty((1, LANES)), np.empty((0, LANES)), np.empty(LANES), np.empty(LANES)
    centres = np.zeros((ROUNDS, n))
    roots = np.zeros((ROUNDS, n, n))
    work = np.empty(n)
    covariance = np.empty((n, n))
    for v in range(n_voxel):
        if not math.isfinite(guess[v, 0]):
            continue
        for r in range(ROUNDS):
            first, last = r * size, (r + 1) * size
            if r == 1:
                centres[r] = guess[v]
                _cholesky(spread[v], n, roots[r])
            elif r > 1:
                _moments(z, weight, first, n, centres[r], covariance)
                # few samples that count say little of a covariance: lend it the first guess's
                lent = n / (n + effective[v])
                for a in range(n):
                    for b in range(a + 1):
                        covariance[a, b] = 1.2 * ((1.0 - lent) * covariance[a, b] + lent * spread[v, a, b])
                _cholesky(covariance, n, roots[r])
            _draw(normal, root, first, last, r, centres[r], roots[r], n, z)
            variance = noise[v] * noise[v]
            _evaluate(
                kernel, x, data[v], variance, first, last, m, s, logit, n, z, lanes, natural, scale_variance, log_target
            )
            for j in range(last):  # each round's density at every sample, relative to the prior's normalisation
                if j >= first:
                    log_round[j, 0] = -0.5 * _square(z, j, n)
                    for q in range(1, r):
                        log_round[j, q] = norm + _log_t(z, j, centres[q], roots[q], n, work)
                if r > 0:
                    log_round[j, r] = norm + _log_t(z, j, centres[r], roots[r], n, work)
            effective[v] = _weigh(log_target, log_round, last, r, weight)
        total = 0.0
        for j in range(n_sample):
            total += weight[j]
        for j in range(n_sample):
            weight[j] /= total
        for a in range(n + 1):
            centre, width = 0.0, 0.0
            for j in range(n_sample):
                centre += weight[j] * natural[j, a]
            for j in range(n_sample):
                width += weight[j] * (natural[j, a] - centre) ** 2
                if a == n:
                    width += weight[j] * scale_variance[j]
            mean[v, a] = centre
            sd[v, a] = math.sqrt(width)
        if quantile.shape[0] > 0:
            for a in range(n):
                order = np.argsort(natural[:, a])
                for p in range(len(probability)):
                    quantile[v, a, p] = _quantile(natural[:, a], weight, order, probability[p])
