"""The loop that evaluates any kernel over all voxels and points; loaded through `kernels.compiled`."""

import numpy as np
from numba import njit, types

from .kernels import KERNEL
from .lanes import FASTMATH, LANES

_F2 = types.float64[:, ::1]
_F3 = types.float64[:, :, ::1]
_F4 = types.float64[:, :, :, ::1]
_R2 = types.Array(types.float64, 2, "C", readonly=True)  # takes a read-only array and any other


@njit(
    types.void(KERNEL, _R2, _F2, types.int64, types.int64, types.int64, _F3, _F4),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def sweep(kernel, theta, x, n_free, first, last, signal, jacobian):
    """Signal (voxel, point, channel) and Jacobian (voxel, point, channel, unknown) of voxels first to last.

    `theta` is (voxel, free + held), `x` (point, shared); a Jacobian of no voxels asks for the signal alone.
    """
    n_value, n_point, n_channel = theta.shape[1], x.shape[0], signal.shape[2]
    wanted = jacobian.shape[0] > 0
    t = np.zeros((n_value, LANES))
    y = np.zeros((n_channel, LANES))
    jac = np.zeros((n_channel * n_free, LANES))
    for v0 in range(first, last, LANES):
        used = min(LANES, last - v0)
        for j in range(n_value):
            for i in range(LANES):
                t[j, i] = theta[v0 + min(i, used - 1), j]
        for k in range(n_point):
            kernel(t, x[k], y, jac)
            for c in range(n_channel):
                for i in range(used):
                    signal[v0 + i, k, c] = y[c, i]
                if wanted:
                    for a in range(n_free):
                        for i in range(used):
                            jacobian[v0 + i, k, c, a] = jac[c * n_free + a, i]
