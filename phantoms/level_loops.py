"""Compiled loops of random fields and of the bodies that their level sets bound; imported where they are used."""

import math

import numpy as np
from numba import njit, types

_C1, _C2 = types.complex64[::1], types.complex64[:, ::1]
_F2, _F3 = types.float32[:, ::1], types.float32[:, :, ::1]


@njit(types.void(_C1, _C2, _F2, _F2, _F2), nogil=True, cache=True)
def add_waves(along_z, along_y, cosine, sine, out):
    """One plane (y, x) of a sum of waves: `along_z` (wave), `along_y` (y, wave), `cosine` and `sine` (wave, x).

    Four rows share each wave while it is in the cache. Rows beyond the last repeat it, with the same values.
    """
    rows, columns = out.shape
    a0, a1 = np.empty(columns, np.float32), np.empty(columns, np.float32)
    a2, a3 = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for r0 in range(0, rows, 4):
        r1, r2, r3 = min(r0 + 1, rows - 1), min(r0 + 2, rows - 1), min(r0 + 3, rows - 1)
        a0[:] = 0
        a1[:] = 0
        a2[:] = 0
        a3[:] = 0
        for wave in range(along_z.size):
            at = along_z[wave]
            p0, p1 = at * along_y[r0, wave], at * along_y[r1, wave]
            p2, p3 = at * along_y[r2, wave], at * along_y[r3, wave]
            b0, b1, b2, b3 = p0.real, p1.real, p2.real, p3.real
            d0, d1, d2, d3 = p0.imag, p1.imag, p2.imag, p3.imag
            c, s = cosine[wave], sine[wave]
            for i in range(columns):
                a0[i] += b0 * c[i] - d0 * s[i]
                a1[i] += b1 * c[i] - d1 * s[i]
                a2[i] += b2 * c[i] - d2 * s[i]
                a3[i] += b3 * c[i] - d3 * s[i]
        out[r0] = a0
        out[r1] = a1
        out[r2] = a2
        out[r3] = a3


@njit(types.void(_F3, _F3, _F3, types.float64, types.float64, types.float64, types.int64, _F2), nogil=True, cache=True)
def skeleton_distance(sheet, second, third, size, curvature, width, plane, out):
    """Distance (m) of each voxel of one plane from the skeleton of the body; see `skeleton.distance`.

    The fields (z, y, x) reach one voxel beyond `out` (y, x) on every side; `plane` counts from their second.
    """
    z = plane + 1
    half = 0.5 / size
    g = np.empty(3)
    d = np.empty(3)
    a = np.empty((3, 3))
    for y in range(1, sheet.shape[1] - 1):
        for x in range(1, sheet.shape[2] - 1):
            for n in range(3):
                f = sheet if n == 0 else second if n == 1 else third
                g[0] = (f[z + 1, y, x] - f[z - 1, y, x]) * half
                g[1] = (f[z, y + 1, x] - f[z, y - 1, x]) * half
                g[2] = (f[z, y, x + 1] - f[z, y, x - 1]) * half
                value = f[z, y, x]
                slope = math.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2] + curvature * value * value)
                d[n] = value / slope
                for i in range(3):
                    a[n, i] = g[i] / slope
            away = np.inf
            for n in range(1, 3):
                # How far along the sheet, where the two surfaces do not cross at right angles.
                c = a[0, 0] * a[n, 0] + a[0, 1] * a[n, 1] + a[0, 2] * a[n, 2]
                away = min(away, abs(d[n] - c * d[0]) / math.sqrt(max(1 - c * c, 0.1)))
            beyond = max(0.0, away - width)
            out[y - 1, x - 1] = math.sqrt(d[0] * d[0] + beyond * beyond)
