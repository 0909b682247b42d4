"""Adiabatic pulses: amplitude and frequency change so slowly that magnetisation follows the effective field.

They have a peak (Hz) instead of a flip angle, above which the strength of B1 no longer matters. The frequency of the
sweep is the derivative of the waveform's phase.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .timeline import RF

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

FINE, COARSE = 1e-6, 4e-6
"""Dwell of pulses up to a millisecond, and of longer ones (s), where none is stated."""


def raster(duration: float, dwell: float | None) -> tuple[Floats, float]:
    """Middles of the samples over the duration, and their dwell (s): the nearest that divides the duration."""
    if not (math.isfinite(duration) and duration > 0):
        raise InputError(f"pulse: duration is {duration:g} s: expected a time above 0")
    asked = (FINE if duration <= 1e-3 else COARSE) if dwell is None else dwell
    if not (math.isfinite(asked) and asked > 0):
        raise InputError(f"pulse: dwell is {asked:g} s: expected a time above 0")
    n = max(round(duration / asked), 1)
    return (np.arange(n) + 0.5) / n, duration / n


def hyperbolic_secant(
    duration: float,
    *,
    peak: float = 750.0,
    mu: float = 5.0,
    beta: float | None = None,
    phase: float = math.pi / 2,
    dwell: float | None = None,
) -> RF:
    """Hyperbolic secant, peak sech(beta t)^(1 + i mu), t from its middle: inverts over a band of mu beta/pi (Hz).

    `beta` (rad/s) defaults to 10.6/duration, which cuts the pulse at 1 % of its peak. It inverts where the peak's
    nutation 2 pi peak exceeds beta sqrt(mu) clearly.
    Source: Silver, Joseph and Hoult, Phys Rev A 31:2753 (1985), doi:10.1103/PhysRevA.31.2753.
    """
    x, step = raster(duration, dwell)
    u = (10.6 / duration if beta is None else beta) * duration * (x - 0.5)
    wave = peak / np.cosh(u) * np.exp(-1j * mu * np.log(np.cosh(u)))
    return RF(wave.astype(np.complex128), step, phase=phase, use="inversion")


def _passage(x: Floats, zeta: float, tan_kappa: float) -> tuple[Floats, Floats]:
    """Amplitude and frequency, over their peaks, of a tanh/tan passage onto resonance at x = 1."""
    kappa = math.atan(tan_kappa)
    return np.tanh(zeta * x), np.tan(kappa * (1 - x)) / tan_kappa


def _swept(amplitude: Floats, frequency: Floats, step: float) -> Complexes:
    """Waveform whose phase runs on with the frequency (Hz), taken in the middle of each sample."""
    turned = 2 * math.pi * step * (np.cumsum(frequency) - frequency / 2)
    wave: Complexes = amplitude * np.exp(1j * turned)
    return wave


def half_passage(
    duration: float,
    *,
    peak: float = 1000.0,
    sweep: float = 5000.0,
    zeta: float = 10.0,
    tan_kappa: float = 20.0,
    phase: float = math.pi / 2,
    dwell: float | None = None,
) -> RF:
    """Adiabatic half passage: from `sweep` (Hz) off resonance onto it; Mz follows into the transverse plane.

    Amplitude tanh, frequency tan. An echo time counts from its end. As with any other excitation, Mz comes to +Mx at
    a `phase` of pi/2.
    Source: Garwood and Ke, J Magn Reson 94:511 (1991), doi:10.1016/0022-2364(91)90137-I.
    """
    x, step = raster(duration, dwell if dwell is not None else FINE)
    amplitude, above = _passage(x, zeta, tan_kappa)
    frequency = -sweep * above  # a carrier below the spins: the effective field starts along Mz
    wave = _swept(peak * amplitude, frequency, step)
    # the sweep ends along B1: turned to where a hard pulse of this phase would bring Mz
    end = 2 * math.pi * step * frequency.sum()
    return RF(wave * np.exp(-1j * (end + math.pi / 2)), step, phase=phase, center=duration)


def bir4(
    flip_angle: float,
    duration: float,
    *,
    peak: float = 1000.0,
    sweep: float = 5000.0,
    zeta: float = 10.0,
    tan_kappa: float = 20.0,
    phase: float = math.pi / 2,
    dwell: float | None = None,
) -> RF:
    """BIR-4: turns all magnetisation by any flip angle (rad) about one axis, whatever B1 is.

    Four tanh/tan passages; between the first and the second, and the third and the fourth, the phase jumps by
    pi + flip_angle/2 and back.
    Source: Garwood and Ke, J Magn Reson 94:511 (1991), doi:10.1016/0022-2364(91)90137-I.
    """
    x, step = raster(duration, dwell if dwell is not None else FINE)
    quarter = 4 * x
    part = np.minimum(quarter.astype(int), 3)
    # from 0, far from resonance, to 1, on it: parts one and three leave resonance, two and four come back
    place = np.where(part % 2 == 0, 1 - (quarter - part), quarter - part)
    amplitude, frequency = _passage(place, zeta, tan_kappa)
    frequency = np.where(part % 2 == 0, frequency, -frequency)
    jump = np.where((part == 1) | (part == 2), math.pi + flip_angle / 2, 0.0)
    wave = _swept(peak * amplitude, sweep * frequency, step) * np.exp(1j * jump)
    return RF(wave, step, phase=phase)
