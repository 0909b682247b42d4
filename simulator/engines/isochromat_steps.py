"""The loops of the Bloch engine over isochromats; loaded through `kernels.compiled`.

A tile of `WIDTH` isochromats is taken through the instructions of a program (`program.py`) while it stays in the
first cache; the loops over its lanes vectorise.

RF runs in steps of two commuting parts: precession with relaxation, exact, and the turn about the RF. Each step is half
of the first, the second, half of the first (Strang, SIAM J Numer Anal 5:506 (1968), doi:10.1137/0705041).
"""

import math

from numba import njit, types

from .lanes import FASTMATH, cos, exp, expm1, inlined, rows, sin

WIDTH = 256  # isochromats of a tile: their state and constants stay in the first cache
TURN = 2.0 * math.pi

FREE, PULSE, EXACT, SPOIL, SAMPLE, ROTATE = range(6)
R1, R2, OFFSET, B1, X, Y, Z, DENSITY, B1_COS, B1_SIN = range(10)  # rows of what is known of an isochromat
SPIN = 10
WORK = SPIN + 3 + 3  # rows of scratch: the isochromats, their state, constants of a run

_F1, _F2, _F3 = types.float64[::1], types.float64[:, ::1], types.float64[:, :, ::1]
_I2 = types.int64[:, ::1]
_C2 = types.complex128[:, ::1]
_ORDER = 18  # of the series of the exact propagator: 1/19! is below 2**-53 at norm 1


@inlined
def _between(x):
    """Turns, less the nearest whole number, in rad: a sine of it is exact however far the spin has turned."""
    return TURN * (x - (x + 6755399441055744.0 - 6755399441055744.0))


@njit(inline="always")
def _free(spin, m, const, dt, carrier, gx, gy, gz):
    """Precession and relaxation during dt, exact."""
    for i in range(WIDTH):
        turns = (spin[OFFSET, i] - carrier + gx * spin[X, i] + gy * spin[Y, i] + gz * spin[Z, i]) * dt
        phi = _between(turns)
        e2 = exp(-dt * spin[R2, i])
        a, b = e2 * cos(phi), e2 * sin(phi)
        x, y = m[0, i], m[1, i]
        m[0, i] = a * x - b * y
        m[1, i] = b * x + a * y
        m[2, i] = m[2, i] + (m[2, i] - spin[DENSITY, i]) * expm1(-dt * spin[R1, i])


@njit(inline="always")
def _turn(m, c, s):
    for i in range(WIDTH):
        x, y = m[0, i], m[1, i]
        m[0, i] = c * x - s * y
        m[1, i] = s * x + c * y


@njit(inline="always")
def _turn_each(spin, m, sign):
    for i in range(WIDTH):
        c, s = spin[B1_COS, i], sign * spin[B1_SIN, i]
        x, y = m[0, i], m[1, i]
        m[0, i] = c * x - s * y
        m[1, i] = s * x + c * y


@njit(inline="always")
def _pulse(spin, m, const, dt, carrier, gx, gy, gz, rf, first, count):
    """RF in steps of dt, all with one gradient."""
    for i in range(WIDTH):
        turns = (spin[OFFSET, i] - carrier + gx * spin[X, i] + gy * spin[Y, i] + gz * spin[Z, i]) * dt
        phi = 0.5 * _between(turns)
        e2 = exp(-0.5 * dt * spin[R2, i])
        const[0, i], const[1, i] = e2 * cos(phi), e2 * sin(phi)
        const[2, i] = expm1(-0.5 * dt * spin[R1, i])
    for k in range(first, first + count):
        u, v = rf[k, 0], rf[k, 1]
        size = math.hypot(u, v)
        cp, sp = (u / size, v / size) if size > 0.0 else (1.0, 0.0)
        angle = TURN * size * dt
        for i in range(WIDTH):
            a, b, d = const[0, i], const[1, i], const[2, i]
            x, y = a * m[0, i] - b * m[1, i], b * m[0, i] + a * m[1, i]
            z = m[2, i] + (m[2, i] - spin[DENSITY, i]) * d
            c, s = cos(angle * spin[B1, i]), sin(angle * spin[B1, i])
            along, across = cp * x + sp * y, cp * y - sp * x
            across, z = c * across - s * z, s * across + c * z
            x, y = cp * along - sp * across, sp * along + cp * across
            m[0, i], m[1, i] = a * x - b * y, b * x + a * y
            m[2, i] = z + (z - spin[DENSITY, i]) * d


@njit(inline="always")
def _exact(spin, m, const, dt, carrier, gx, gy, gz, rf, first, count):
    """RF in samples of dt by the exponential series of the Bloch equations, to rounding."""
    for k in range(first, first + count):
        u, v = TURN * rf[k, 0], TURN * rf[k, 1]
        most = 0.0
        for i in range(WIDTH):
            f = TURN * (spin[OFFSET, i] - carrier + gx * spin[X, i] + gy * spin[Y, i] + gz * spin[Z, i])
            const[0, i] = f
            size = abs(f) + (abs(u) + abs(v)) * spin[B1, i] + spin[R1, i] + spin[R2, i]
            most = max(most, size)
        parts = max(1, math.ceil(most * dt))
        h = dt / parts
        for _ in range(parts):
            for i in range(WIDTH):
                f, p, q = h * const[0, i], h * u * spin[B1, i], h * v * spin[B1, i]
                r1, r2 = h * spin[R1, i], h * spin[R2, i]
                x, y, z = m[0, i], m[1, i], m[2, i]
                tx, ty, tz = x, y, z - spin[DENSITY, i]
                # the first term has the relaxation towards equilibrium, and the turn of all of Mz
                tx, ty, tz = q * z - f * y - r2 * x, f * x - p * z - r2 * y, p * y - q * x - r1 * tz
                x, y, z = x + tx, y + ty, z + tz
                for n in range(2, _ORDER + 1):
                    g = 1.0 / n
                    tx, ty, tz = (
                        g * (q * tz - f * ty - r2 * tx),
                        g * (f * tx - p * tz - r2 * ty),
                        g * (p * ty - q * tx - r1 * tz),
                    )
                    x, y, z = x + tx, y + ty, z + tz
                m[0, i], m[1, i], m[2, i] = x, y, z


@njit(
    types.void(_I2, _F2, _F2, _F2, _F2, types.int64, types.int64, _C2, _F2),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def play(code, value, rf, spins, state, first, last, signal, work):
    """Take the isochromats first to last through a program; their state (3, isochromat) changes in place.

    `code` (instruction, 4) holds kind, first RF sample, number of RF samples, sample; `value` (instruction, 6) duration
    (s), carrier (Hz), gradient (Hz/m, 3), angle (rad); `rf` (sample, 2) nutation (Hz) along x and y; `spins`
    (SPIN, isochromat); `signal` (sample, isochromat) is filled. `work` (WORK, WIDTH) is scratch.
    """
    spin = rows(work[:SPIN], (SPIN, WIDTH))
    m = rows(work[SPIN : SPIN + 3], (3, WIDTH))
    const = rows(work[SPIN + 3 :], (3, WIDTH))
    for v0 in range(first, last, WIDTH):
        used = min(WIDTH, last - v0)
        for j in range(SPIN):
            for i in range(WIDTH):
                spin[j, i] = spins[j, v0 + min(i, used - 1)]
        for j in range(3):
            for i in range(WIDTH):
                m[j, i] = state[j, v0 + min(i, used - 1)]
        phased = False
        for i in range(WIDTH):
            phased = phased or spin[B1_SIN, i] != 0.0 or spin[B1_COS, i] != 1.0
        for n in range(code.shape[0]):
            kind = code[n, 0]
            dt, carrier, angle = value[n, 0], value[n, 1], value[n, 5]
            gx, gy, gz = value[n, 2], value[n, 3], value[n, 4]
            if kind == FREE:
                _free(spin, m, const, dt, carrier, gx, gy, gz)
            elif kind == PULSE or kind == EXACT:
                if phased:
                    _turn_each(spin, m, -1.0)
                if kind == PULSE:
                    _pulse(spin, m, const, dt, carrier, gx, gy, gz, rf, code[n, 1], code[n, 2])
                else:
                    _exact(spin, m, const, dt, carrier, gx, gy, gz, rf, code[n, 1], code[n, 2])
                if phased:
                    _turn_each(spin, m, 1.0)
            elif kind == SPOIL:
                for j in range(2):
                    for i in range(WIDTH):
                        m[j, i] = 0.0
            elif kind == ROTATE:
                _turn(m, math.cos(angle), math.sin(angle))
            else:
                c, s = math.cos(angle), -math.sin(angle)
                k = code[n, 3]
                for i in range(used):
                    x, y = m[0, i], m[1, i]
                    signal[k, v0 + i] = complex(c * x - s * y, s * x + c * y)
        for j in range(3):
            for i in range(used):
                state[j, v0 + i] = m[j, i]


@njit(
    types.void(_F3, types.complex128[:, :, ::1], _F1, _F3, types.complex128[:, :, ::1]),
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
