"""What a preparation pulse keeps of Mz, in closed form: Mz after it over Mz before, without recovery.

Three cases cover what bone is prepared with. The numerical engines judge them: they play the pulse itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..acquisition.timeline import RF

Floats = NDArray[np.float64]


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
    R2 = 1 / np.atleast_1d(np.asarray(T2, float))[:, None, None]
    w1 = 2 * math.pi * np.abs(pulse.waveform)
    swept = np.gradient(np.unwrap(np.angle(pulse.waveform)), pulse.dwell) if w1.size > 1 else np.zeros(1)
    away = 2 * math.pi * (np.atleast_1d(np.asarray(offset, float))[:, None] - pulse.frequency) - swept  # (line, sample)
    rate = R2 * w1**2 / (w1**2 + away**2 + R2**2)
    crossed = away[:, 0] * away[:, -1] < 0
    at_resonance = w1[np.abs(away).argmin(axis=1)]
    inverted = crossed & (at_resonance > R2[:, :, 0] / 2)
    kept: Floats = np.where(inverted, -1.0, 1.0) * np.exp(-rate.sum(axis=2) * pulse.dwell)
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

    each, row = np.unique(np.atleast_1d(np.asarray(T2, float)), return_inverse=True)
    away = 2 * math.pi * np.atleast_1d(np.asarray(offset, float)) * duration
    generator: NDArray[Any] = np.zeros((each.size, away.size, 3, 3))
    generator[..., 0, 0] = generator[..., 1, 1] = -duration / each[:, None]
    generator[..., 0, 1], generator[..., 1, 0] = -away, away
    generator[..., 0, 2], generator[..., 2, 0] = angle, -angle
    kept: Floats = expm(generator)[..., 2, 2]
    return kept[row]


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
