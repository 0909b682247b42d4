"""What a preparation pulse keeps of Mz, in closed form: Mz after it over Mz before, without recovery.

Three cases cover what bone is prepared with. The numerical engines judge them: they play the pulse itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..acquisition.timeline import RF

Floats = NDArray[np.float64]

NODES = 129
"""Values of T2 at which a closed form is worked out where a map has more: between them it is a spline of ln T2."""


def followed(pulse: RF, T2: ArrayLike, offset: ArrayLike = 0.0) -> Floats:
    """Magnetisation that follows the effective field of an adiabatic, or a far off-resonant, pulse.

    Along the field it decays with the rate R2 w1^2/(w1^2 + D^2 + R2^2), the slow root of the Bloch equations without
    recovery: R2 sin^2 of the field's tilt where T2 is long, the Lorentzian saturation w1^2 T2/(1 + D^2 T2^2) where w1
    is weak. A sweep through resonance inverts it unless R2/2 exceeds w1 there: so short a T2 does not precess.

    Parameters
    ----------
    pulse : RF
    T2 : float or ndarray (row,)
        s.
    offset : float or ndarray (line,)
        Frequency of each line (Hz).

    Returns
    -------
    ndarray (row, line)
        Within .03 of the Bloch equations for hyperbolic secants and T2 above .3 ms; see the tests.
    """
    T2 = np.atleast_1d(np.asarray(T2, float))
    w1 = 2 * math.pi * np.abs(pulse.waveform)
    swept = np.gradient(np.unwrap(np.angle(pulse.waveform)), pulse.dwell) if w1.size > 1 else np.zeros(1)
    away = 2 * math.pi * (np.atleast_1d(np.asarray(offset, float))[:, None] - pulse.frequency) - swept  # (line, sample)

    def lost(some: Floats) -> Floats:
        R2 = 1 / some[:, None]
        rates = [(R2 * w1**2 / (w1**2 + line**2 + R2**2)).sum(axis=1) for line in away]
        return np.stack(rates, axis=1) * pulse.dwell

    crossed = away[:, 0] * away[:, -1] < 0
    at_resonance = w1[np.abs(away).argmin(axis=1)]
    inverted = crossed & (at_resonance > 1 / (2 * T2[:, None]))
    kept: Floats = np.where(inverted, -1.0, 1.0) * np.exp(-_of_T2(lost, T2))
    return kept


def turned(angle: float, duration: float, T2: ArrayLike, offset: ArrayLike = 0.0) -> Floats:
    """A rectangular pulse of this flip angle (rad) on resonance and duration (s), at any T2 and offset.

    The exponential of the Bloch equations without recovery; on resonance that of Sussman et al., Magn Reson Med
    40:890 (1998), doi:10.1002/mrm.1910400615.

    Returns
    -------
    ndarray (row, line)
    """
    from scipy.linalg import expm

    away = 2 * math.pi * np.atleast_1d(np.asarray(offset, float)) * duration

    def kept(some: Floats) -> Floats:
        generator: NDArray[Any] = np.zeros((some.size, away.size, 3, 3))
        generator[..., 0, 0] = generator[..., 1, 1] = -duration / some[:, None]
        generator[..., 0, 1], generator[..., 1, 0] = -away, away
        generator[..., 0, 2], generator[..., 2, 0] = angle, -angle
        along_z: Floats = expm(generator)[..., 2, 2]
        return along_z

    return _of_T2(kept, np.atleast_1d(np.asarray(T2, float)))


def short_excitation(angle: ArrayLike, duration: float, T2: ArrayLike) -> tuple[Floats, Floats]:
    """Transverse and longitudinal magnetisation (of Mz = 1) that a rectangular pulse leaves on resonance.

    f_xy = e^(-a) angle sinc(q) and f_z = e^(-a) (cos q + a sinc q) with a = duration/(2 T2), q^2 = angle^2 - a^2: what
    a pulse as long as T2 makes of its flip angle (rad). Source: as `turned`.
    """
    a = duration / (2 * np.asarray(T2, float))
    q = np.sqrt(np.asarray(angle, float) ** 2 - a**2 + 0j)
    sinc = np.sinc(q / math.pi)
    decay = np.exp(-a)
    transverse, longitudinal = decay * np.asarray(angle) * sinc.real, decay * (np.cos(q).real + a * sinc.real)
    return transverse, longitudinal


def _of_T2(function: Callable[[Floats], Floats], T2: Floats) -> Floats:
    """A smooth function of T2, (row, line): at each value, or by a spline of ln T2 over a map of many."""
    from scipy.interpolate import CubicSpline

    each, row = np.unique(T2, return_inverse=True)
    if each.size <= NODES:
        return function(each)[row]
    nodes = np.geomspace(each[0], each[-1], NODES)
    along: Floats = CubicSpline(np.log(nodes), function(nodes))(np.log(T2))
    return along
