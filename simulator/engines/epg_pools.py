"""Configuration states of a train of pulses, two exchanging pools; loaded through `kernels.compiled`.

As in `epg_train.py`: `LANES` tissues side by side, a row for each order, windows that move instead of states, pulses
about y of their own frame. The second pool may be bound: it has longitudinal orders alone.
"""

import numpy as np
from numba import njit, types

from ..lanes import FASTMATH, LANES, rows

_I1 = types.Array(types.int64, 1, "C", readonly=True)
_F1 = types.Array(types.float64, 1, "C", readonly=True)
_F2 = types.float64[:, ::1]
_F3 = types.float64[:, :, ::1]
_C2 = types.complex128[:, ::1]
_C3 = types.complex128[:, :, ::1]


@njit(types.void(_F2, _F2, _F2, _F2, types.int64), fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def rotate(p, m, z, c, n):
    """A pulse on orders 0 to n - 1: one of the parts, real or imaginary, of F+, F- and Z."""
    p, m, z, c = rows(p, (n, LANES)), rows(m, (n, LANES)), rows(z, (n, LANES)), rows(c, (2, LANES))
    for k in range(n):
        for i in range(LANES):
            along, across = 0.5 * (p[k, i] - m[k, i]), 0.5 * (p[k, i] + m[k, i])
            turned = c[0, i] * across + c[1, i] * z[k, i]
            z[k, i] = c[0, i] * z[k, i] - c[1, i] * across
            p[k, i] = turned + along
            m[k, i] = turned - along


@njit(types.void(_F2, _F2, _F2, types.int64), fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
def mix_level(a, b, c, n):
    """Longitudinal orders of both pools through the real 2 x 2 matrix in the rows of `c`."""
    a, b, c = rows(a, (n, LANES)), rows(b, (n, LANES)), rows(c, (4, LANES))
    for k in range(n):
        for i in range(LANES):
            x, y = a[k, i], b[k, i]
            a[k, i] = c[0, i] * x + c[1, i] * y
            b[k, i] = c[2, i] * x + c[3, i] * y


@njit(
    types.void(_F2, _F2, _F2, _F2, _F2, types.float64, types.int64),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def mix(ar, ai, br, bi, c, sign, n):
    """Transverse orders of both pools through the complex 2 x 2 matrix in the rows of `c`, or its conjugate."""
    ar, ai, br, bi = rows(ar, (n, LANES)), rows(ai, (n, LANES)), rows(br, (n, LANES)), rows(bi, (n, LANES))
    c = rows(c, (8, LANES))
    for k in range(n):
        for i in range(LANES):
            w, x, y, z = ar[k, i], sign * ai[k, i], br[k, i], sign * bi[k, i]
            ar[k, i] = c[0, i] * w - c[1, i] * x + c[2, i] * y - c[3, i] * z
            ai[k, i] = sign * (c[0, i] * x + c[1, i] * w + c[2, i] * z + c[3, i] * y)
            br[k, i] = c[4, i] * w - c[5, i] * x + c[6, i] * y - c[7, i] * z
            bi[k, i] = sign * (c[4, i] * x + c[5, i] * w + c[6, i] * z + c[7, i] * y)


@njit(
    types.void(
        _F1, _F2, _C2, _F3, _C3, _I1, _I1, _F1, _F1, _F1, types.boolean, types.boolean, types.int64, types.int64, _C3
    ),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def train(B1, initial, start, level, transverse, interval, wait, flip, ahead, saturation, bound, echoes, first, last,
          signal):  # fmt: skip
    """The signal of each pool of tissues first to last at each pulse, (tissue, pool, pulse), in the pulse's frame.

    `level` (time, 6, tissue) holds for each distinct time the longitudinal 2 x 2 matrix and the recovery of both pools,
    `transverse` (time, 4, tissue) the transverse matrix; `interval` and `wait` are indices into them for each pulse.
    `initial` (2, tissue) is Z of order 0 before the first pulse, `start` (2, tissue) F+ of order 1/2 with `echoes`. A
    pulse multiplies Z of a bound pool by exp(-saturation B1^2) instead of turning it. Else as in `epg_train.py`.
    """
    n_pulse = flip.size
    # real and imaginary parts of F+, F-, Z of the first pool, and of the second
    x = np.zeros((12, 2 * n_pulse + 2, LANES))
    turning, matrix, across = np.zeros((2, LANES)), np.zeros((4, LANES)), np.zeros((8, LANES))
    for v in range(first, last, LANES):
        used = min(LANES, last - v)
        x[:] = 0.0
        up, down = n_pulse, 0
        for pool in range(2):
            for i in range(used):
                if echoes:
                    x[6 * pool, up, i], x[6 * pool + 1, up, i] = start[pool, v + i].real, start[pool, v + i].imag
                else:
                    x[6 * pool + 4, 0, i] = initial[pool, v + i]
        for n in range(n_pulse):
            top, following = min(n, n_pulse - 1 - n), min(n + 1, n_pulse - 2 - n)
            for i in range(used):
                turning[0, i], turning[1, i] = np.cos(B1[v + i] * flip[n]), np.sin(B1[v + i] * flip[n])
            for pool in range(1 if bound else 2):
                for part in range(2):
                    base = 6 * pool + part
                    rotate(x[base, up:], x[base + 2, down:], x[base + 4], turning, top + 1)
            if bound:
                for i in range(used):
                    turning[0, i] = np.exp(-saturation[n] * B1[v + i] * B1[v + i])
                for k in range(top + 1):
                    for i in range(LANES):
                        x[10, k, i] *= turning[0, i]
                        x[11, k, i] *= turning[0, i]
            for i in range(used):
                if echoes:
                    a, b = complex(x[2, down, i], -x[3, down, i]), complex(x[8, down, i], -x[9, down, i])
                else:
                    a, b = complex(x[0, up, i], x[1, up, i]), complex(x[6, up, i], x[7, up, i])
                t = transverse[wait[n], :, v + i]
                signal[v + i, 0, n], signal[v + i, 1, n] = t[0] * a + t[1] * b, t[2] * a + t[3] * b
            if n == n_pulse - 1:
                break
            turn = complex(np.cos(ahead[n + 1]), np.sin(ahead[n + 1]))
            for j in range(4):
                for i in range(used):
                    t = transverse[interval[n], j, v + i] * turn
                    across[2 * j, i], across[2 * j + 1, i] = t.real, t.imag
                    matrix[j, i] = level[interval[n], j, v + i]
            mix(x[0, up:], x[1, up:], x[6, up:], x[7, up:], across, 1.0, top + 1)
            mix(x[2, down:], x[3, down:], x[8, down:], x[9, down:], across, -1.0, top + 1)
            mix_level(x[4], x[10], matrix, top + 1)
            mix_level(x[5], x[11], matrix, top + 1)
            if not echoes:
                for i in range(used):
                    x[4, 0, i] += level[interval[n], 4, v + i]
                    x[10, 0, i] += level[interval[n], 5, v + i]
            for k in range(top, following + 1):  # orders that were empty
                for pool in range(2):
                    for i in range(LANES):
                        x[6 * pool + 2, down + k + 1, i] = x[6 * pool + 3, down + k + 1, i] = 0.0
                        if k > top:
                            x[6 * pool + 4, k, i] = x[6 * pool + 5, k, i] = 0.0
            for pool in range(2):
                for i in range(LANES):
                    row = down if echoes else down + 1
                    x[6 * pool, up - 1, i] = x[6 * pool + 2, row, i]
                    x[6 * pool + 1, up - 1, i] = -x[6 * pool + 3, row, i]
            up, down = up - 1, down + 1
