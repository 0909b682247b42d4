"""Elementary functions on lanes: exp, expm1, sin, cos that the compiler can vectorise.

A compiled kernel handles `LANES` voxels side by side. The numba of PyPI has no vector mathematics library, so
a call to `math.exp` inside the loop over lanes would stop it from vectorising; these are polynomials instead,
good to about one unit in the last place over the clamped range.

Coefficients are Taylor series on the reduced range (|r| <= ln2/2 for exp, pi/4 for sin and cos), long enough
that the first omitted term is below 2**-53. They must never be compiled with `fastmath=True`: its `reassoc`
folds the range reduction away (relative error 1).
"""

import math

from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 32
POINTS = 4  # encoding points accumulated in one pass, so that sums stay in registers
FASTMATH = {"contract", "nsz", "arcp"}

_ROUND = 1.5 * 2.0**52  # adding it rounds to the nearest integer, which then stands in the low mantissa bits
_LOG2E = 1.0 / math.log(2.0)
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # ln 2 in two parts: n * high is exact for |n| < 2**21
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_TWO_OVER_PI = 2.0 / math.pi
_PIO2_HIGH = float.fromhex("0x1.921fb54400000p+0")  # pi/2 in three parts (33 + 33 + 53 bits)
_PIO2_MID = float.fromhex("0x1.0b4611a600000p-34")
_PIO2_LOW = float.fromhex("0x1.3198a2e037073p-69")
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (1.0 / math.factorial(k) for k in range(2, 14))
_S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8 = ((-1.0) ** k / math.factorial(2 * k + 1) for k in range(1, 9))
_C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8 = ((-1.0) ** k / math.factorial(2 * k) for k in range(1, 9))

inlined = njit(fastmath={"contract", "nsz"}, error_model="numpy", inline="always")


@intrinsic
def _as_float(typingctx, bits):
    """The float64 with these 64 bits."""
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())


@intrinsic
def _as_int(typingctx, value):
    """The 64 bits of this float64."""
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(64))


@inlined
def _reduced(x):
    """x = n ln 2 + r as (r, 2**n), with q = (e**r - 1 - r)/r**2 between them.

    x is clamped to [-708, 709] so that the exponent bits cannot overflow; NaN passes.
    """
    x = min(max(x, -708.0), 709.0)
    t = x * _LOG2E + _ROUND
    n = t - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    q = _E9 + r * (_E10 + r * (_E11 + r * (_E12 + r * _E13)))
    q = _E4 + r * (_E5 + r * (_E6 + r * (_E7 + r * (_E8 + r * q))))
    q = _E2 + r * (_E3 + r * q)
    return r, q, _as_float((_as_int(t) + 1023) << 52)


@inlined
def exp(x):
    """e**x for x within [-708, 709], its value at the nearer end beyond; NaN passes."""
    r, q, scale = _reduced(x)
    return (1.0 + r * (1.0 + r * q)) * scale


@inlined
def expm1(x):
    """e**x - 1 without cancellation near 0: 2**n (e**r - 1) + (2**n - 1)."""
    r, q, scale = _reduced(x)
    return (r + r * r * q) * scale + (scale - 1.0)


@inlined
def _quarter(x, shift):
    """sin(x + shift pi/2): the sine or cosine of x less the nearest multiple of pi/2, signed by the quarter turn."""
    t = x * _TWO_OVER_PI + _ROUND
    n = t - _ROUND
    q = _as_int(t) + shift
    r = ((x - n * _PIO2_HIGH) - n * _PIO2_MID) - n * _PIO2_LOW
    z = r * r
    s = r + r * z * (_S1 + z * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * (_S6 + z * (_S7 + z * _S8)))))))
    c = 1.0 + z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * (_C6 + z * (_C7 + z * _C8)))))))
    v = c if (q & 1) else s
    return _as_float(_as_int(v) ^ ((q & 2) << 62))


@inlined
def sin(x):
    """Sine, for |x| up to about 1e5 (the range reduction keeps full precision there)."""
    return _quarter(x, 0)


@inlined
def cos(x):
    """Cosine, for |x| up to about 1e5."""
    return _quarter(x, 1)


@intrinsic
def _pointer(typingctx, array):
    """The address of an array's first element."""

    def codegen(context, builder, signature, args):
        return make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(types.float64)(array), codegen


@njit(inline="always")
def rows(array, shape):
    """The same memory with a shape that the compiler knows: without it the loops over lanes do not vectorise."""
    return carray(_pointer(array), shape)
