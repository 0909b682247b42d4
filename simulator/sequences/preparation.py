"""What a preparation pulse keeps of Mz, in closed form: Mz after it over Mz before, without recovery.

Three cases cover what bone is prepared with. The numerical engines judge them: they play the pulse itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..acquisition.events.timeline import RF

Floats = NDArray[np.float64]

SAMPLES = 300
"""Samples of a smooth pulse that stand for all of it in a sum over them: its shape changes little in between."""

ROWS = 2048
"""Rows in work at a time."""


def followed(pulse: RF, T2: ArrayLike, offset: ArrayLike = 0.0, B1: ArrayLike = 1.0) -> Floats:
    """Magnetisation that follows the effective field of an adiabatic, or a far off-resonant, pulse.

    Along the field it decays with the rate R2 w1^2/(w1^2 + D^2 + R2^2), the slow root of the Bloch equations without
    recovery: R2 sin^2 of the field's tilt where T2 is long, the Lorentzian saturation w1^2 T2/(1 + D^2 T2^2) where w1
    is weak. A sweep through resonance inverts it unless R2/2 exceeds w1 there: so short a T2 does not precess.

    Parameters
    ----------
    pulse : RF
        Of a smooth shape.
    T2 : float or ndarray (row,)
        s.
    offset : float, ndarray (line,) or (row, line)
        Frequency of each line (Hz).
    B1 : float or ndarray (row,)
        Transmit field relative to nominal.

    Returns
    -------
    ndarray (row, line)
        Within .03 of the Bloch equations for hyperbolic secants and T2 above .3 ms; see the tests.
    """
    count = min(pulse.waveform.size, SAMPLES)
    place = (np.arange(count) + 0.5) / count * pulse.waveform.size - 0.5  # in samples of the pulse
    w1 = 2 * math.pi * np.abs(pulse.waveform)
    swept = np.gradient(np.unwrap(np.angle(pulse.waveform)), pulse.dwell) if w1.size > 1 else np.zeros(1)
    swept = swept + 2 * math.pi * pulse.frequency
    ends = swept[[0, -1]]
    w1, swept = (np.interp(place, np.arange(v.size), v) for v in (w1, np.broadcast_to(swept, w1.shape)))
    step = pulse.duration / count

    def kept(T2: Floats, B1: Floats, offset: Floats) -> Floats:
        R2 = 1 / T2[:, None]
        found = np.empty_like(offset)
        for line, own in enumerate(2 * math.pi * offset.T):
            strong, away = B1[:, None] * w1, own[:, None] - swept
            lost = step * (R2 * strong**2 / (strong**2 + away**2 + R2**2)).sum(axis=1)
            crossed = (own - ends[0]) * (own - ends[1]) < 0
            at_resonance = strong[np.arange(own.size), np.abs(away).argmin(axis=1)]
            found[:, line] = np.where(crossed & (at_resonance > R2[:, 0] / 2), -1.0, 1.0) * np.exp(-lost)
        return found

    return _each_row(kept, T2, B1, offset)


def turned(angle: ArrayLike, duration: float, T2: ArrayLike, offset: ArrayLike = 0.0) -> Floats:
    """A rectangular pulse of this flip angle (rad) on resonance and duration (s), at any T2 and offset.

    The exponential of the Bloch equations without recovery; on resonance that of Sussman et al., Magn Reson Med
    40:890 (1998), doi:10.1002/mrm.1910400615.

    Parameters
    ----------
    angle : float or ndarray (row,)
    duration : float
    T2 : float or ndarray (row,)
        s.
    offset : float, ndarray (line,) or (row, line)
        Hz.

    Returns
    -------
    ndarray (row, line)
    """
    from scipy.linalg import expm

    def kept(T2: Floats, angle: Floats, offset: Floats) -> Floats:
        away = 2 * math.pi * duration * offset
        generator: NDArray[Any] = np.zeros((*away.shape, 3, 3))
        generator[..., 0, 0] = generator[..., 1, 1] = -duration / T2[:, None]
        generator[..., 0, 1], generator[..., 1, 0] = -away, away
        generator[..., 0, 2], generator[..., 2, 0] = angle[:, None], -angle[:, None]
        along_z: Floats = expm(generator)[..., 2, 2]
        return along_z

    return _each_row(kept, T2, angle, offset)


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


def _each_row(
    function: Callable[[Floats, Floats, Floats], Floats], T2: ArrayLike, other: ArrayLike, offset: ArrayLike
) -> Floats:
    """A function of T2, another quantity (row,) and offsets (row, line), worked out once where rows are equal."""
    lines = np.atleast_2d(np.asarray(offset, float))
    T2, other = np.ravel(np.asarray(T2, float)), np.ravel(np.asarray(other, float))
    rows = max(T2.size, other.size, len(lines))
    table = np.column_stack([np.broadcast_to(T2, rows), np.broadcast_to(other, rows),
                             np.broadcast_to(lines, (rows, lines.shape[1]))])  # fmt: skip
    each, row = np.unique(table, axis=0, return_inverse=True)
    parts = [each[k : k + ROWS] for k in range(0, len(each), ROWS)]
    found = np.concatenate([function(part[:, 0], part[:, 1], part[:, 2:]) for part in parts])
    return found[row.ravel()]
