"""Configuration states of a train of pulses, one pool; loaded through `kernels.compiled`.

`LANES` tissues stand side by side. A row holds one order of F+ (F of order k), of F- (the conjugate of F of order -k)
or of Z. Gradients move no state: the window through which F+ is seen moves down by a row, that of F- up by one. Each
pulse turns about y of its own frame, where its coefficients are real; between pulses the states turn into the next
pulse's frame.
"""

import numpy as np
from numba import njit, types

from ..lanes import FASTMATH, LANES, cos, exp, rows, sin

_F1 = types.Array(types.float64, 1, "C", readonly=True)
_F2 = types.float64[:, ::1]
_C2 = types.complex128[:, ::1]


@njit(
    types.void(_F2, _F2, _F2, _F2, _F2, _F2, _F2, types.float64, types.float64, types.int64),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def turn(pr, pi, mr, mi, zr, zi, c, cosine, sine, n):
    """A pulse, relaxation, and the turn into the next pulse's frame, of orders 0 to n - 1."""
    pr, pi, mr, mi = rows(pr, (n, LANES)), rows(pi, (n, LANES)), rows(mr, (n, LANES)), rows(mi, (n, LANES))
    zr, zi, c = rows(zr, (n, LANES)), rows(zi, (n, LANES)), rows(c, (5, LANES))
    for k in range(n):
        for i in range(LANES):
            # F+ + F- turns into Z by the flip angle; F+ - F- lies along the pulse and stays
            along, across = c[4, i] * (pr[k, i] - mr[k, i]), pr[k, i] + mr[k, i]
            turned = c[0, i] * across + c[1, i] * zr[k, i]
            zr[k, i] = c[2, i] * zr[k, i] - c[3, i] * across
            fr, gr = turned + along, turned - along
            along, across = c[4, i] * (pi[k, i] - mi[k, i]), pi[k, i] + mi[k, i]
            turned = c[0, i] * across + c[1, i] * zi[k, i]
            zi[k, i] = c[2, i] * zi[k, i] - c[3, i] * across
            fi, gi = turned + along, turned - along
            pr[k, i] = fr * cosine - fi * sine
            pi[k, i] = fr * sine + fi * cosine
            mr[k, i] = gr * cosine + gi * sine
            mi[k, i] = gi * cosine - gr * sine


@njit(
    types.void(_F2, _F2, _F2, _F2, _F2, _F2, _F2, types.float64, types.float64, types.int64),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def diffuse(pr, pi, mr, mi, zr, zi, rate, time, half, n):
    """Damping by diffusion while the states of orders 0 to n - 1 move on by one, under a constant gradient."""
    for k in range(n):
        order = k + half
        for i in range(LANES):
            x = rate[0, i] * time
            up = exp(-x * (order * order + order + 1.0 / 3.0))
            down = exp(-x * (order * order - order + 1.0 / 3.0))
            level = exp(-x * (order * order))
            pr[k, i] *= up
            pi[k, i] *= up
            mr[k, i] *= down
            mi[k, i] *= down
            zr[k, i] *= level
            zi[k, i] *= level


@njit(
    types.void(
        _F1, _F1, _F1, _F1, _F1, _F1, _F1, _F1, _F1, types.boolean, types.boolean, types.int64, types.int64,
        _C2, _C2, _C2,
    ),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)  # fmt: skip
def train(
    T1, T2, B1, start, spread, flip, ahead, interval, wait, echoes, whole, first, last, signal, transverse, level
):
    """The signal of tissues first to last at each pulse, (tissue, pulse), in the pulse's frame.

    `start` is Z of order 0 before the first pulse (F+ of order 1/2 with `echoes`), `spread` the damping rate D k^2 of
    one order, `ahead[0]` and `ahead[n + 1]` the turn (rad) of the frame before and after pulse n, `interval[n]` the
    time to the next pulse. The signal is F of order 0, `wait[n]` after the pulse; with `echoes` orders are k + 1/2, and
    it is F of order -1/2, refocused by then. With `whole` no order is left out, and `transverse` (tissue, -n .. n) and
    `level` (tissue, 0 .. n) take the states right after the last pulse.
    """
    n_pulse = flip.size
    pr, pi = np.zeros((2 * n_pulse + 2, LANES)), np.zeros((2 * n_pulse + 2, LANES))
    mr, mi = np.zeros((2 * n_pulse + 2, LANES)), np.zeros((2 * n_pulse + 2, LANES))
    zr, zi = np.zeros((n_pulse + 2, LANES)), np.zeros((n_pulse + 2, LANES))
    coefficient, tissue, one = np.zeros((5, LANES)), np.zeros((5, LANES)), np.zeros((4, LANES))
    c, t, e = rows(coefficient, (5, LANES)), rows(tissue, (5, LANES)), rows(one, (4, LANES))
    for v in range(first, last, LANES):
        used = min(LANES, last - v)
        diffusing = False
        for i in range(LANES):
            j = v + min(i, used - 1)
            t[0, i], t[1, i], t[2, i], t[3, i], t[4, i] = -1.0 / T1[j], -1.0 / T2[j], B1[j], start[j], spread[j]
            diffusing = diffusing or spread[j] > 0.0
        up, down = n_pulse, 0  # rows of order 0
        for i in range(LANES):
            pr[up, i] = pi[up, i] = mr[down, i] = mi[down, i] = zr[0, i] = zi[0, i] = 0.0
            if echoes:
                pr[up, i], pi[up, i] = t[3, i] * np.cos(ahead[0]), t[3, i] * np.sin(ahead[0])
            else:
                zr[0, i] = t[3, i]
        for n in range(n_pulse):
            # orders that are there and, unless all are asked for, still come back to a signal
            top = n if whole else min(n, n_pulse - 1 - n)
            following = n + 1 if whole else min(n + 1, n_pulse - 2 - n)
            for i in range(LANES):
                angle = t[2, i] * flip[n]
                cosine, sine = cos(angle), sin(angle)
                E1, E2 = exp(t[0, i] * interval[n]), exp(t[1, i] * interval[n])
                c[0, i], c[1, i], c[2, i], c[3, i] = 0.5 * E2 * cosine, E2 * sine, E1 * cosine, 0.5 * E1 * sine
                c[4, i] = 0.5 * E2
                e[0, i], e[1, i] = cosine, sine
            sign = -1.0 if echoes else 1.0
            for i in range(LANES):
                decay = 0.5 * exp(t[1, i] * wait[n] - (t[4, i] * interval[n] / 24.0 if echoes else 0.0))
                e[2, i] = decay * (
                    e[0, i] * (pr[up, i] + mr[down, i]) + 2.0 * e[1, i] * zr[0, i] + sign * (pr[up, i] - mr[down, i])
                )
                e[3, i] = decay * (
                    e[0, i] * (pi[up, i] + mi[down, i]) + 2.0 * e[1, i] * zi[0, i] + sign * (pi[up, i] - mi[down, i])
                )
            for i in range(used):
                signal[v + i, n] = complex(e[2, i], sign * e[3, i])
            if n == n_pulse - 1:
                break
            turn(pr[up:], pi[up:], mr[down:], mi[down:], zr, zi, coefficient,
                 np.cos(ahead[n + 1]), np.sin(ahead[n + 1]), top + 1)  # fmt: skip
            if diffusing:
                half = 0.5 if echoes else 0.0
                diffuse(pr[up:], pi[up:], mr[down:], mi[down:], zr, zi, tissue[4:], interval[n], half, top + 1)
            if not echoes:
                for i in range(LANES):
                    zr[0, i] -= np.expm1(t[0, i] * interval[n])
            for k in range(top, following + 1):  # orders that were empty
                for i in range(LANES):
                    mr[down + k + 1, i] = mi[down + k + 1, i] = 0.0
                    if k > top:
                        zr[k, i] = zi[k, i] = 0.0
            if echoes:  # F of order -1/2 becomes that of order 1/2
                for i in range(LANES):
                    pr[up - 1, i], pi[up - 1, i] = mr[down, i], -mi[down, i]
                up, down = up - 1, down + 1
            else:
                up, down = up - 1, down + 1
                for i in range(LANES):
                    pr[up, i], pi[up, i] = mr[down, i], -mi[down, i]
        if whole:
            # the last pulse alone: no relaxation, no turn
            for i in range(LANES):
                c[0, i], c[1, i], c[2, i], c[3, i] = 0.5 * e[0, i], e[1, i], e[0, i], 0.5 * e[1, i]
                c[4, i] = 0.5
            turn(pr[up:], pi[up:], mr[down:], mi[down:], zr, zi, coefficient, 1.0, 0.0, n_pulse)
            for i in range(used):
                for k in range(n_pulse):
                    transverse[v + i, n_pulse - 1 + k + (1 if echoes else 0)] = complex(pr[up + k, i], pi[up + k, i])
                    transverse[v + i, n_pulse - 1 - k] = complex(mr[down + k, i], -mi[down + k, i])
                    level[v + i, k] = complex(zr[k, i], zi[k, i])
