"""The loops of the Bloch engine over isochromats; loaded through `kernels.compiled`.

A tile of `WIDTH` isochromats is taken through the instructions of a program (`program.py`) while it stays in the first
cache; the loops over its lanes vectorise. Within a run of RF each step is half of precession with relaxation, the turn
about the RF, and the other half (Strang, SIAM J Numer Anal 5:506 (1968), doi:10.1137/0705041). The turn is three shears
of My and Mz, which need no square roots and lose no length: My -= tan(a/2) Mz, Mz += sin(a) My, My -= tan(a/2) Mz.

`PULSE` and `PULSE_B1` do just that. `CORRECTED` also takes up the commutators of third order, which the two parts leave
behind, in coefficients of its own for each isochromat: what is left is of fourth order, but for a part of the recovery.
`VARYING` does so under a gradient that changes from step to step.
"""

import math

from numba import njit, types

from ..lanes import FASTMATH, cos, exp, expm1, inlined, rows, sin

WIDTH = 128  # isochromats of a tile: their state and constants stay in the first cache
CHUNK = 4  # steps of a run between two loads of the state
TURN = 2.0 * math.pi

FREE, PULSE, PULSE_B1, CORRECTED, VARYING, EXACT, SPOIL, SAMPLE, ROTATE = range(9)
SPIN = 10  # what is known of an isochromat
R1, R2, OFFSET, B1, PX, PY, PZ, DENSITY, B1_COS, B1_SIN = range(SPIN)
MX, MY, MZ = range(SPIN, SPIN + 3)
K = SPIN + 3  # the first of the constants of a run
WORK = K + 13  # rows of scratch: the largest set of constants is that of corrected steps

_I2, _F2, _C2 = types.int64[:, ::1], types.float64[:, ::1], types.complex128[:, ::1]
_ROUND = 1.5 * 2.0**52  # adding it rounds to the nearest integer
stage = njit(fastmath=FASTMATH, error_model="numpy", nogil=True)
_ORDER = 18  # of the series of the exact propagator: 1/19! is below 2**-53 at norm 1


@inlined
def _turned(x):
    """Turns, less the nearest whole number, in rad: the sine of it is exact however far the spin has turned."""
    return TURN * (x - ((x + _ROUND) - _ROUND))


@inlined
def _frequency(w, i, carrier, gx, gy, gz):
    return w[OFFSET, i] - carrier + gx * w[PX, i] + gy * w[PY, i] + gz * w[PZ, i]


FREE_COS, FREE_SIN, FREE_DECAY, FREE_RECOVERED = range(K, K + 4)


@stage
def _free_constants(w, dt, carrier, gx, gy, gz):
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        phi = _turned(_frequency(w, i, carrier, gx, gy, gz) * dt)
        e2 = exp(-dt * w[R2, i])
        w[FREE_COS, i], w[FREE_SIN, i] = e2 * cos(phi), e2 * sin(phi)
        recovered = -expm1(-dt * w[R1, i])
        w[FREE_DECAY, i], w[FREE_RECOVERED, i] = 1.0 - recovered, recovered * w[DENSITY, i]


@stage
def _free(w):
    """Precession and relaxation, exact, during the time of the constants."""
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        a, b = w[FREE_COS, i], w[FREE_SIN, i]
        x, y = w[MX, i], w[MY, i]
        w[MX, i] = a * x - b * y
        w[MY, i] = b * x + a * y
        w[MZ, i] = w[FREE_DECAY, i] * w[MZ, i] + w[FREE_RECOVERED, i]


@stage
def _turn(w, angle):
    w = rows(w, (WORK, WIDTH))
    c, s = math.cos(angle), math.sin(angle)
    for i in range(WIDTH):
        x, y = w[MX, i], w[MY, i]
        w[MX, i] = c * x - s * y
        w[MY, i] = s * x + c * y


@stage
def _turn_by_transmit_phase(w, sign):
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        c, s = w[B1_COS, i], sign * w[B1_SIN, i]
        x, y = w[MX, i], w[MY, i]
        w[MX, i] = c * x - s * y
        w[MY, i] = s * x + c * y


# -- plain steps. Within a chunk the magnetisation is kept in units of (e2 cos phi)**steps: the precession is then
# x - tan(phi) y, y + tan(phi) x, without a multiplication; what Mz recovers is known in these units beforehand.

TAN, LONG, BACK_ONE, BACK, T1, T3, S1, S3 = range(K, K + 8)  # BACK_ONE, BACK restore the units after a step, a chunk
RECOVERY = K + 8  # and the rows after it, one for each step of a chunk


@stage
def _plain_constants(w, dt, carrier, gx, gy, gz):
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        phi = _turned(_frequency(w, i, carrier, gx, gy, gz) * dt)
        c = cos(phi)
        a = exp(-dt * w[R2, i]) * c
        gain = 1.0 / a
        w[TAN, i] = sin(phi) / c
        w[LONG, i] = exp(-dt * w[R1, i]) * gain
        w[BACK_ONE, i] = a
        w[BACK, i] = (a * a) * (a * a)  # CHUNK steps
        recovery = -expm1(-dt * w[R1, i]) * w[DENSITY, i]
        for k in range(CHUNK):
            recovery = recovery * gain
            w[RECOVERY + k, i] = recovery
        b1 = w[B1, i]
        w[T1, i], w[T3, i] = b1 / 2, b1 * b1 * b1 / 24
        w[S1, i], w[S3, i] = b1, -b1 * b1 * b1 / 6


@inlined
def _shared(w, i, k, x, y, z, t, s):
    y = y - t * z
    z = z + s * y
    y = y - t * z
    tan = w[TAN, i]
    return x - tan * y, y + tan * x, w[LONG, i] * z + w[RECOVERY + k, i]


@inlined
def _own(w, i, k, x, y, z, angle, cube):
    t = angle * w[T1, i] + cube * w[T3, i]
    s = angle * w[S1, i] + cube * w[S3, i]
    return _shared(w, i, k, x, y, z, t, s)


@stage
def _pulse(w, rf, first, last):
    """Steps of RF that is the same for all isochromats."""
    w = rows(w, (WORK, WIDTH))
    whole = first + (last - first) // CHUNK * CHUNK
    for n in range(first, whole, CHUNK):
        t0, t1, t2, t3 = rf[n, 1], rf[n + 1, 1], rf[n + 2, 1], rf[n + 3, 1]
        s0, s1, s2, s3 = rf[n, 2], rf[n + 1, 2], rf[n + 2, 2], rf[n + 3, 2]
        for i in range(WIDTH):
            x, y, z = w[MX, i], w[MY, i], w[MZ, i]
            x, y, z = _shared(w, i, 0, x, y, z, t0, s0)
            x, y, z = _shared(w, i, 1, x, y, z, t1, s1)
            x, y, z = _shared(w, i, 2, x, y, z, t2, s2)
            x, y, z = _shared(w, i, 3, x, y, z, t3, s3)
            back = w[BACK, i]
            w[MX, i], w[MY, i], w[MZ, i] = x * back, y * back, z * back
    for n in range(whole, last):  # what is left, one by one
        t, s = rf[n, 1], rf[n, 2]
        for i in range(WIDTH):
            x, y, z = _shared(w, i, 0, w[MX, i], w[MY, i], w[MZ, i], t, s)
            back = w[BACK_ONE, i]
            w[MX, i], w[MY, i], w[MZ, i] = x * back, y * back, z * back


@stage
def _pulse_b1(w, rf, first, last):
    """Steps of RF, each isochromat with its own B1; sine and tangent to fifth order of the angle of a step."""
    w = rows(w, (WORK, WIDTH))
    whole = first + (last - first) // CHUNK * CHUNK
    for n in range(first, whole, CHUNK):
        a0, a1, a2, a3 = rf[n, 0], rf[n + 1, 0], rf[n + 2, 0], rf[n + 3, 0]
        c0, c1, c2, c3 = a0 * a0 * a0, a1 * a1 * a1, a2 * a2 * a2, a3 * a3 * a3
        for i in range(WIDTH):
            x, y, z = w[MX, i], w[MY, i], w[MZ, i]
            x, y, z = _own(w, i, 0, x, y, z, a0, c0)
            x, y, z = _own(w, i, 1, x, y, z, a1, c1)
            x, y, z = _own(w, i, 2, x, y, z, a2, c2)
            x, y, z = _own(w, i, 3, x, y, z, a3, c3)
            back = w[BACK, i]
            w[MX, i], w[MY, i], w[MZ, i] = x * back, y * back, z * back
    for n in range(whole, last):
        a = rf[n, 0]
        c = a * a * a
        for i in range(WIDTH):
            x, y, z = _own(w, i, 0, w[MX, i], w[MY, i], w[MZ, i], a, c)
            back = w[BACK_ONE, i]
            w[MX, i], w[MY, i], w[MZ, i] = x * back, y * back, z * back


# -- corrected steps. With A precession and relaxation, B the RF of one step, the first half of A and the last around B
# are exp(A + B - [A,[A,B]]/24 + [B,[B,A]]/12 + ...). A multiplies M+ by exp(lambda) and Mz by real decay, so that all
# [A,[A,..B]] together are the factor sinh(lambda/2)/(lambda/2) of B: to first order in the RF the step is exact for any
# offset. [B,[B,A]] is a precession, here to all orders of the offset, and a gain of Mz against a loss of My, which the
# first and third shear give when they differ.

P1, P3, P5, RATIO, Q1, Q3, Q5, ACROSS, SHIFT, COS, SIN, DECAY, RECOVERED = range(K, K + 13)


@stage
def _corrected_constants(w, dt, carrier, gx, gy, gz):
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        f = _frequency(w, i, carrier, gx, gy, gz) * dt
        phi = TURN * f
        rho = dt * (w[R2, i] - w[R1, i])
        # sinh(lambda/2) of lambda = -rho + i phi; near 0 the quotient is its series
        c, s = cos(_turned(0.5 * f)), sin(_turned(0.5 * f))
        e = exp(-0.5 * rho)
        re, im = 0.5 * (e - 1.0 / e) * c, 0.5 * (e + 1.0 / e) * s
        size = rho * rho + phi * phi
        near = size < 1e-4
        scale = 2.0 / (1.0 if near else size)
        l2r, l2i = rho * rho - phi * phi, -2.0 * rho * phi
        kr = 1.0 + l2r / 24.0 + (l2r * l2r - l2i * l2i) / 1920.0 if near else scale * (im * phi - re * rho)
        ki = l2i / 24.0 + l2r * l2i / 960.0 if near else -scale * (re * phi + im * rho)
        b1 = w[B1, i]
        a = b1 * kr
        a2 = a * a
        w[RATIO, i] = (1.0 + rho / 3.0) / (1.0 - rho / 3.0)
        p = a * (1.0 - rho / 3.0)
        w[P1, i], w[P3, i], w[P5, i] = p / 2, p * a2 / 24, p * a2 * a2 / 240
        w[Q1, i], w[Q3, i], w[Q5, i] = a, -a * a2 / 6, a * a2 * a2 / 120
        w[ACROSS, i] = b1 * ki
        # (phi - sin phi)/(2 phi**2): with half of phi in the sine that is at hand
        slow = phi * phi < 1e-2
        p2 = 1.0 if slow else phi * phi
        series = phi * (1.0 - phi * phi * (1.0 - phi * phi * (1.0 - phi * phi / 72.0) / 42.0) / 20.0) / 12.0
        w[SHIFT, i] = b1 * b1 * (series if slow else (phi - 2.0 * s * c) / (2.0 * p2))
        e2 = exp(-dt * w[R2, i])
        w[COS, i], w[SIN, i] = e2 * (c * c - s * s), e2 * 2.0 * s * c
        w[DECAY, i] = exp(-dt * w[R1, i])
        w[RECOVERED, i] = -expm1(-dt * w[R1, i]) * w[DENSITY, i]


@inlined
def _corrected_step(w, i, x, y, z, angle, square, shift):
    p = angle * (w[P1, i] + square * (w[P3, i] + square * w[P5, i]))
    q = angle * (w[Q1, i] + square * (w[Q3, i] + square * w[Q5, i]))
    e = angle * w[ACROSS, i]
    y = y - p * z
    z = z + q * y + e * x
    y = y - w[RATIO, i] * p * z
    x = x + e * z
    h = shift * w[SHIFT, i]
    x = x - h * y
    y = y + h * x
    a, b = w[COS, i], w[SIN, i]
    return a * x - b * y, b * x + a * y, w[DECAY, i] * z + w[RECOVERED, i]


@stage
def _corrected(w, rf, first, last):
    """Corrected steps; where the phase of the RF changes, into the frame of the next step after each."""
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        h = 0.5 * rf[first, 0] * rf[first, 0] * w[SHIFT, i]
        x = w[MX, i] - h * w[MY, i]
        w[MY, i] = w[MY, i] + h * x
        w[MX, i] = x
    turning = False
    for n in range(first, last):
        turning = turning or rf[n, 5] != 0.0
    if turning:
        for n in range(first, last):
            a, shift, c, s = rf[n, 0], rf[n, 3], rf[n, 4], rf[n, 5]
            u = a * a
            for i in range(WIDTH):
                x, y, z = _corrected_step(w, i, w[MX, i], w[MY, i], w[MZ, i], a, u, shift)
                w[MX, i], w[MY, i], w[MZ, i] = c * x - s * y, s * x + c * y, z
        return
    whole = first + (last - first) // CHUNK * CHUNK
    for n in range(first, whole, CHUNK):
        a0, a1, a2, a3 = rf[n, 0], rf[n + 1, 0], rf[n + 2, 0], rf[n + 3, 0]
        h0, h1, h2, h3 = rf[n, 3], rf[n + 1, 3], rf[n + 2, 3], rf[n + 3, 3]
        u0, u1, u2, u3 = a0 * a0, a1 * a1, a2 * a2, a3 * a3
        for i in range(WIDTH):
            x, y, z = w[MX, i], w[MY, i], w[MZ, i]
            x, y, z = _corrected_step(w, i, x, y, z, a0, u0, h0)
            x, y, z = _corrected_step(w, i, x, y, z, a1, u1, h1)
            x, y, z = _corrected_step(w, i, x, y, z, a2, u2, h2)
            x, y, z = _corrected_step(w, i, x, y, z, a3, u3, h3)
            w[MX, i], w[MY, i], w[MZ, i] = x, y, z
    for n in range(whole, last):
        a, shift = rf[n, 0], rf[n, 3]
        u = a * a
        for i in range(WIDTH):
            x, y, z = _corrected_step(w, i, w[MX, i], w[MY, i], w[MZ, i], a, u, shift)
            w[MX, i], w[MY, i], w[MZ, i] = x, y, z


# -- corrected steps under a gradient that changes: no step turns by more than half a radian, so that series serve

HALF_E2, HALF_E1, HALF_RECOVERED, RHO = range(K, K + 4)


@stage
def _varying(w, dt, carrier, rf, first, last):
    """Corrected steps, each with its own gradient; into the frame of the next step's phase after each."""
    w = rows(w, (WORK, WIDTH))
    for i in range(WIDTH):
        w[HALF_E2, i] = exp(-0.5 * dt * w[R2, i])
        w[HALF_E1, i] = exp(-0.5 * dt * w[R1, i])
        w[HALF_RECOVERED, i] = -expm1(-0.5 * dt * w[R1, i]) * w[DENSITY, i]
        w[RHO, i] = dt * (w[R2, i] - w[R1, i])
    for n in range(first, last):
        angle, c, s = rf[n, 0], rf[n, 4], rf[n, 5]
        gx, gy, gz = rf[n, 6], rf[n, 7], rf[n, 8]
        for i in range(WIDTH):
            phi = TURN * dt * _frequency(w, i, carrier, gx, gy, gz)
            h2 = 0.25 * phi * phi
            sine = 0.5 * phi * (1.0 - h2 / 6.0 * (1.0 - h2 / 20.0 * (1.0 - h2 / 42.0)))
            cosine = 1.0 - h2 / 2.0 * (1.0 - h2 / 12.0 * (1.0 - h2 / 30.0 * (1.0 - h2 / 56.0)))
            a, b = w[HALF_E2, i] * cosine, w[HALF_E2, i] * sine
            x, y = a * w[MX, i] - b * w[MY, i], b * w[MX, i] + a * w[MY, i]
            z = w[HALF_E1, i] * w[MZ, i] + w[HALF_RECOVERED, i]
            rho, b1 = w[RHO, i], angle * w[B1, i]
            l2r, l2i = rho * rho - phi * phi, -2.0 * rho * phi
            turn = b1 * (1.0 + l2r / 24.0 + (l2r * l2r - l2i * l2i) / 1920.0)
            u = turn * turn
            p = turn * (0.5 + u * (1.0 / 24.0 + u / 240.0))
            q = turn * (1.0 - u * (1.0 / 6.0 - u / 120.0))
            e = b1 * l2i * (1.0 / 24.0 + l2r / 960.0)
            shift = b1 * b1 * phi * (1.0 / 24.0 - phi * phi * (1.0 / 480.0 - phi * phi / 20160.0))
            x = x - shift * y
            y = y + shift * x
            y = y - p * (1.0 - rho / 3.0) * z
            z = z + q * y + e * x
            y = y - p * (1.0 + rho / 3.0) * z
            x = x + e * z
            y = y + shift * x
            x = x - shift * y
            x, y = a * x - b * y, b * x + a * y
            w[MX, i], w[MY, i] = c * x - s * y, s * x + c * y
            w[MZ, i] = w[HALF_E1, i] * z + w[HALF_RECOVERED, i]


# -- exact steps


@stage
def _exact(w, dt, carrier, rf, first, last):
    """RF in samples of dt by the exponential series of the Bloch equations, to rounding."""
    w = rows(w, (WORK, WIDTH))
    for n in range(first, last):
        angle = rf[n, 0]
        p, q = angle * rf[n, 4], angle * rf[n, 5]
        gx, gy, gz = rf[n, 6], rf[n, 7], rf[n, 8]
        most = 0.0
        for i in range(WIDTH):
            phi = TURN * dt * _frequency(w, i, carrier, gx, gy, gz)
            w[K, i] = phi
            most = max(most, abs(phi) + abs(angle * w[B1, i]) + dt * (w[R1, i] + w[R2, i]))
        parts = max(1, math.ceil(most))
        g = 1.0 / parts
        for _ in range(parts):
            for i in range(WIDTH):
                f, u, v = g * w[K, i], g * p * w[B1, i], g * q * w[B1, i]
                r1, r2 = g * dt * w[R1, i], g * dt * w[R2, i]
                x, y, z = w[MX, i], w[MY, i], w[MZ, i]
                # the first term alone has the recovery towards equilibrium
                tx, ty, tz = v * z - f * y - r2 * x, f * x - u * z - r2 * y, u * y - v * x - r1 * (z - w[DENSITY, i])
                x, y, z = x + tx, y + ty, z + tz
                for k in range(2, _ORDER + 1):
                    tx, ty, tz = v * tz - f * ty - r2 * tx, f * tx - u * tz - r2 * ty, u * ty - v * tx - r1 * tz
                    tx, ty, tz = tx / k, ty / k, tz / k
                    x, y, z = x + tx, y + ty, z + tz
                w[MX, i], w[MY, i], w[MZ, i] = x, y, z


@stage
def _run(w, kind, dt, carrier, gx, gy, gz, before, after, rf, first, last):
    """A run of RF in the frame of its phase (rad), which is `before` in its first step and `after` in its last."""
    if kind == EXACT:
        _exact(w, dt, carrier, rf, first, last)
        return
    _turn(w, -before)
    if kind == VARYING:
        _varying(w, dt, carrier, rf, first, last)
        _turn(w, after)
        return
    _free_constants(w, 0.5 * dt, carrier, gx, gy, gz)
    _free(w)
    if kind == CORRECTED:
        _corrected_constants(w, dt, carrier, gx, gy, gz)
        _corrected(w, rf, first, last)
    else:
        _plain_constants(w, dt, carrier, gx, gy, gz)
        if kind == PULSE:
            _pulse(w, rf, first, last)
        else:
            _pulse_b1(w, rf, first, last)
    # every step has been followed by a whole step of precession: the last one by half of it too much
    _free_constants(w, -0.5 * dt, carrier, gx, gy, gz)
    _free(w)
    _turn(w, after)


@njit(
    types.void(_I2, _F2, _F2, _F2, _F2, _C2, _F2),
    fastmath=FASTMATH,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def play(code, value, rf, spins, state, signal, work):
    """Take isochromats through a program; their state (3, isochromat) changes in place.

    `code` (instruction, 4) holds kind, first step of RF, the one after the last, sample; `value` (instruction, 7)
    duration (s; of one step of RF), carrier (Hz), gradient (Hz/m, 3), angle before and after (rad); `rf` (step, 9)
    angle (rad), tan(angle/2), sin(angle), mean square angle of this step and the next, cosine and sine of the turn
    after it, or, of an exact step, of its phase, and the gradient (Hz/m, 3); `spins` (SPIN, isochromat); `signal`
    (sample, isochromat) is filled; `work` (WORK, WIDTH) is scratch.
    """
    n_spin = state.shape[1]
    w = rows(work, (WORK, WIDTH))
    for v0 in range(0, n_spin, WIDTH):
        used = min(WIDTH, n_spin - v0)
        for j in range(SPIN):
            for i in range(WIDTH):
                w[j, i] = spins[j, v0 + min(i, used - 1)]
        for j in range(3):
            for i in range(WIDTH):
                w[MX + j, i] = state[j, v0 + min(i, used - 1)]
        fresh = -1  # the instruction whose precession the constants hold
        phased = False
        for i in range(WIDTH):
            phased = phased or w[B1_COS, i] != 1.0
        for n in range(code.shape[0]):
            kind, first, last = code[n, 0], code[n, 1], code[n, 2]
            dt, carrier, before, after = value[n, 0], value[n, 1], value[n, 5], value[n, 6]
            gx, gy, gz = value[n, 2], value[n, 3], value[n, 4]
            if kind == FREE:
                same = fresh >= 0
                for j in range(5):
                    same = same and value[n, j] == value[fresh, j]
                if not same:
                    _free_constants(w, dt, carrier, gx, gy, gz)
                    fresh = n
                _free(w)
            elif kind == SAMPLE:
                c, s, k = math.cos(before), -math.sin(before), code[n, 3]
                for i in range(used):
                    x, y = w[MX, i], w[MY, i]
                    signal[k, v0 + i] = complex(c * x - s * y, s * x + c * y)
            elif kind == ROTATE:
                _turn(w, before)
            elif kind == SPOIL:
                for i in range(WIDTH):
                    w[MX, i] = w[MY, i] = 0.0
            else:
                fresh = -1
                if phased:
                    _turn_by_transmit_phase(w, -1.0)
                _run(w, kind, dt, carrier, gx, gy, gz, before, after, rf, first, last)
                if phased:
                    _turn_by_transmit_phase(w, 1.0)
        for j in range(3):
            for i in range(used):
                state[j, v0 + i] = w[MX + j, i]
