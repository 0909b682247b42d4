"""A body of blocks that is known as an affine map, repeated; loaded through `kernels.compiled`."""

import math

from numba import njit, types

from ..lanes import FASTMATH

_F1, _F3, _C3 = types.float64[::1], types.float64[:, :, ::1], types.complex128[:, :, ::1]


@njit(
    types.void(_F3, _C3, _F1, _F3, _C3),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def repeat(linear, reading, phases, state, signal):
    """Play a body known as an affine map `phases.size` times, turned by each of these phases (rad).

    `linear` (3, 4, isochromat) is the map, its last column the constant part; `reading` (sample, 4, isochromat) what
    the samples of the body read of the state at its start; `state` (3, column, isochromat) changes in place: a single
    column, or four that are the columns of a map themselves, of which the last alone has the constant part. `signal`
    (repetition times sample, column, isochromat) is filled.
    """
    n_sample, n_column, n_spin = reading.shape[0], state.shape[1], state.shape[2]
    before = 0.0
    for n in range(phases.size + 1):
        now = phases[n] if n < phases.size else 0.0
        if now != before:
            c, s = math.cos(before - now), math.sin(before - now)
            for j in range(n_column):
                for i in range(n_spin):
                    x, y = state[0, j, i], state[1, j, i]
                    state[0, j, i] = c * x - s * y
                    state[1, j, i] = s * x + c * y
        before = now
        if n == phases.size:
            break
        for j in range(n_column):
            one = 1.0 if j == n_column - 1 else 0.0
            for k in range(n_sample):
                for i in range(n_spin):
                    signal[n * n_sample + k, j, i] = (
                        reading[k, 0, i] * state[0, j, i]
                        + reading[k, 1, i] * state[1, j, i]
                        + reading[k, 2, i] * state[2, j, i]
                        + reading[k, 3, i] * one
                    )
            for i in range(n_spin):
                x, y, z = state[0, j, i], state[1, j, i], state[2, j, i]
                for r in range(3):
                    moved = linear[r, 0, i] * x + linear[r, 1, i] * y + linear[r, 2, i] * z
                    state[r, j, i] = moved + linear[r, 3, i] * one
