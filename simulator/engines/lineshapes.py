"""How a solid pool absorbs RF: its lineshape over the offset, and the rate of saturation W = pi w1^2 g.

All lineshapes are normalised over angular frequency, even in the offset, and given in seconds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError

Floats = NDArray[np.float64]

CUTOFF = 1500.0
"""Offset (Hz) below which the super-Lorentzian is extrapolated."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_MAGIC = 1 / math.sqrt(3)


def gaussian(offset: ArrayLike, T2: ArrayLike) -> Floats:
    """Gaussian lineshape (s) at an offset (Hz): a rigid lattice of many neighbours.

    Source: Henkelman et al., Magn Reson Med 29:759 (1993), doi:10.1002/mrm.1910290607.
    """
    x = 2 * np.pi * np.asarray(offset, float) * np.asarray(T2, float)
    return np.asarray(np.asarray(T2, float) / math.sqrt(2 * math.pi) * np.exp(-(x**2) / 2))


def lorentzian(offset: ArrayLike, T2: ArrayLike) -> Floats:
    """Lorentzian lineshape (s) at an offset (Hz): spins that move fast.

    Source: Henkelman et al., Magn Reson Med 29:759 (1993), doi:10.1002/mrm.1910290607.
    """
    x = 2 * np.pi * np.asarray(offset, float) * np.asarray(T2, float)
    return np.asarray(np.asarray(T2, float) / np.pi / (1 + x**2))


def super_lorentzian(offset: ArrayLike, T2: ArrayLike, cutoff: float = CUTOFF) -> Floats:
    """Super-Lorentzian lineshape (s) at an offset (Hz): Gaussians of all orientations of a partly ordered solid.

    It has a logarithmic pole on resonance, which neighbouring solid spins smooth out. Within +-`cutoff` it is therefore
    extrapolated by the cubic that meets its value and slope at both ends: an even one, so a parabola.

    Parameters
    ----------
    offset : array
        Hz, of either sign.
    T2 : array
        s; broadcasts with the offset.
    cutoff : float
        Hz, from 0 (no extrapolation; infinite on resonance) up.

    References
    ----------
    Morrison and Henkelman, Magn Reson Med 33:475 (1995), doi:10.1002/mrm.1910330404. Extrapolation: from 1 kHz by
    Gloor et al., Magn Reson Med 60:691 (2008), doi:10.1002/mrm.21705 (1.4e-5 s on resonance at a T2 of 12 us); from
    1.5 kHz, as here, by Malik et al., Magn Reson Med 80:767 (2018), doi:10.1002/mrm.27040. How high the line is on
    resonance is a convention: the two ways differ by a tenth.
    """
    offset, T2 = np.broadcast_arrays(np.abs(np.asarray(offset, float)), np.asarray(T2, float))
    beyond = np.maximum(offset, cutoff)
    with np.errstate(divide="ignore"):
        value, slope = _orientations(2 * np.pi * beyond * T2)
    inside = offset < cutoff
    within = np.where(inside, offset, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # slope by x of g/T2; d g/d offset = T2 slope 2 pi T2
        bend = np.where(inside, np.pi * T2 * slope * (within**2 - cutoff**2) / cutoff, 0.0)
    return np.asarray(T2 * (value + bend))


def _orientations(x: Floats) -> tuple[Floats, Floats]:
    """g/T2 of the super-Lorentzian and its derivative, at x = angular offset times T2 from 0 up.

    The integral over u = cos(orientation) of sqrt(2/pi)/a exp(-2 (x/a)^2), a = |3 u^2 - 1|. On both sides of the
    magic angle u0, where it has its pole, it runs over t = log |u - u0|: there it is smooth, and nothing is left of it
    where a < x/20 (exp(-800)).
    """
    flat, back = np.unique(x, return_inverse=True)
    known = flat > 0
    total, slope = np.where(known, 0.0, np.nan), np.where(known, 0.0, np.nan)
    with np.errstate(under="ignore"):
        for side, room in ((-1.0, _MAGIC), (1.0, 1 - _MAGIC)):
            # a = 3 |u - u0| (u + u0), and u + u0 is at most 1 + u0
            start = np.log(flat[known] / (20 * 3 * (1 + _MAGIC)))
            end = np.maximum(start, math.log(room))
            half = (end - start)[:, None] / 2
            distance = np.exp((end + start)[:, None] / 2 + half * _NODES)
            sums = 2 * _MAGIC + side * distance
            a = 3 * distance * sums
            weight = half * _WEIGHTS * math.sqrt(2 / math.pi) / (3 * sums)
            ratio = flat[known, None] / a
            part = weight * np.exp(-2 * ratio**2)
            total[known] += part.sum(axis=1)
            slope[known] += (-4 * ratio / a * part).sum(axis=1)
    total[flat == 0], slope[flat == 0] = np.inf, -np.inf
    return total[back].reshape(x.shape), slope[back].reshape(x.shape)


SHAPES = {"gaussian": gaussian, "lorentzian": lorentzian, "super_lorentzian": super_lorentzian}


def absorption(lineshape: str, offset: ArrayLike, T2: ArrayLike) -> Floats:
    """A lineshape (s) by its name, at an offset (Hz).

    Raises
    ------
    InputError
        No such lineshape.
    """
    return lookup(lineshape, "lineshape")(offset, T2)


def lookup(lineshape: Any, where: str) -> Any:
    """The function of a lineshape; `where` begins the message if there is none."""
    if lineshape not in SHAPES:
        raise InputError(f"{where} is {lineshape!r}: expected one of {', '.join(SHAPES)}")
    return SHAPES[lineshape]


def saturation_rate(lineshape: str, rf: ArrayLike, offset: ArrayLike, T2: ArrayLike) -> Floats:
    """Rate of saturation W = pi w1^2 g (1/s) by RF of nutation frequency `rf` (Hz) at an offset (Hz).

    Raises
    ------
    InputError
        No such lineshape.
    """
    w1 = 2 * np.pi * np.abs(np.asarray(rf))
    return np.asarray(np.pi * w1**2 * absorption(lineshape, offset, T2))


def local_field(lineshape: str, T2: ArrayLike) -> Floats:
    """Local dipolar field D (rad/s) of the dipolar order, from the second moment of the lineshape: D^2 = M2/3.

    M2 is 1/T2^2 of the Gaussian and 1/(5 T2^2) of the super-Lorentzian.

    Source: Goldman, Spin Temperature and NMR in Solids (Oxford 1970); Morrison et al., J Magn Reson B 108:103
    (1995), doi:10.1006/jmrb.1995.1111; Varma et al., J Magn Reson 260:67 (2015), doi:10.1016/j.jmr.2015.08.024.

    Raises
    ------
    InputError
        The lineshape is none of the two: a Lorentzian has no second moment.
    """
    if lineshape not in ("gaussian", "super_lorentzian"):
        raise InputError(f"dipolar order: lineshape is {lineshape!r}, which has no second moment: expected gaussian or "
                         "super_lorentzian")  # fmt: skip
    return np.asarray(math.sqrt(1 / 3 if lineshape == "gaussian" else 1 / 15) / np.asarray(T2, float))
