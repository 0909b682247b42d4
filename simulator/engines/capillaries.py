"""Blood that flows through a network of straight capillary segments, under any gradient waveform.

Each spin runs at its own constant velocity through segments whose directions are isotropic and independent. Where it
changes segment many times during the encoding, its phase becomes that of diffusion with D* = v <l^2>/(6 <l>): l v/6
for segments of one length l, l v/3 for exponential ones of mean l. Where it changes none, the signal is the ballistic
sinc. What lies between follows from the same paths: where they turn is drawn, their directions are averaged exactly.

Source: Le Bihan et al., Radiology 168:497 (1988), doi:10.1148/radiology.168.2.3393671, for the network and its two
limits; Wetscherek, Stieltjes and Laun, Magn Reson Med 74:410 (2015), doi:10.1002/mrm.25410, for what lies between.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .. import threads
from ..constants import PROTON
from .waveform import Floats, Waveform, is_number, seeds, waveforms

LENGTHS = {"fixed": 1 / 6, "exponential": 1 / 3}
"""How long segments are, and D*/(v l) where a path has many of them, l being their mean length."""
SETS = 16
"""Independent sets of paths: their spread is the error."""
QUASI = 32  # segments of a path whose lengths are quasi-random; further ones are pseudo-random
MOST = 100_000  # segments of a path


class Flowing(NamedTuple):
    """Signal of blood per spin, and its standard error; real, as every path and its mirror image are as likely."""

    signal: NDArray[np.float64]
    error: NDArray[np.float64]


def signal(
    times: ArrayLike,
    gradient: ArrayLike,
    *,
    velocity: ArrayLike,
    length: float,
    lengths: str = "fixed",
    scale: ArrayLike = 1.0,
    count: int = 4096,
    seed: int | np.random.SeedSequence = 0,
    gamma: float = PROTON,
) -> Flowing:
    """Signal of blood that flows through the network.

    Parameters
    ----------
    times : array (knot,)
    gradient : array (knot, 3) or (waveform, knot, 3)
        Effective gradient (T/m), linear between the knots (s), as from `moments.effective_gradient`.
    velocity : float or array
        m/s; several are equally likely, one for the whole path of a spin.
    length : float
        Mean length of a segment (m).
    lengths : {"fixed", "exponential"}
        Distribution of the lengths. Spins are spread evenly along the network, so that the first segment is left
        after the rest of it.
    scale : float or array (scale,)
        Amplitude of the gradient relative to `gradient`; b goes as its square.
    count : int
        Paths; rounded up to `SETS` sets of a power of 2, which fills the space of lengths evenly. The error of 4096 is
        below 1e-4 for fixed lengths and 2e-3 for exponential ones, where it falls as the root of their number.
    seed : int or SeedSequence
    gamma : float
        Gyromagnetic ratio over 2 pi (Hz/T).

    Returns
    -------
    Flowing
        Arrays (waveform, scale), without the axis of a single one. Molecular diffusion of the blood is left out: it
        multiplies the signal by exp(-b D).

    Raises
    ------
    InputError
        A value that means nothing, a gradient that does not refocus, or paths of more than 100,000 segments.
    """
    wave, waves = waveforms(times, gradient, "capillaries")
    amplitude = np.atleast_1d(np.asarray(scale, dtype=float))
    if amplitude.ndim != 1 or not np.isfinite(amplitude).all():
        raise InputError(f"capillaries: scale is {scale!r}: expected a finite number or a list of them")
    speeds = np.atleast_1d(np.asarray(velocity, dtype=float))
    if speeds.ndim != 1 or not speeds.size or not (np.isfinite(speeds).all() and (speeds >= 0).all()):
        raise InputError(f"capillaries: velocity is {velocity!r}: expected one or several from 0 m/s up")
    if not (is_number(gamma) and gamma > 0):
        raise InputError(f"capillaries: gamma is {gamma!r}: expected above 0 Hz/T")
    _check_network(length, lengths)
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(f"capillaries: count is {count!r}: expected a whole number from 1 up")
    if speeds.max() * wave.duration / length > MOST:
        passed = speeds.max() * wave.duration / length
        raise InputError(f"capillaries: a path passes {passed:.3g} segments of {length:g} m: expected at most {MOST:g}")
    whole = np.abs(wave.integrals(np.array([wave.duration]))[0]).max()
    if whole > 1e-6 * np.abs(wave.integrals(wave.times)[0]).max():
        raise InputError(f"capillaries: the gradient adds up to {whole:g} T s/m: expected 0, an echo")
    streams = seeds(seed, "capillaries").generate_state(SETS, np.uint64)
    per = 1 << math.ceil(math.log2(max(count / SETS, 1)))
    mean = np.empty((SETS, waves, amplitude.size))

    def one(first: int, last: int) -> None:
        for k in range(first, last):
            rng = np.random.default_rng(int(streams[k]))
            mean[k] = _paths(wave, waves, 2 * math.pi * gamma * amplitude, speeds, length, lengths, per, rng)

    threads.each_block(SETS, one, 1)
    error = mean.std(axis=0, ddof=1) / math.sqrt(SETS)
    shape = (() if waves == 1 else (waves,)) + (() if np.ndim(scale) == 0 else amplitude.shape)
    return Flowing(mean.mean(axis=0).reshape(shape), error.reshape(shape))


def _paths(
    wave: Waveform,
    waves: int,
    amplitude: Floats,
    speeds: Floats,
    length: float,
    lengths: str,
    count: int,
    rng: np.random.Generator,
) -> Floats:
    """Mean signal (waveform, scale) of some paths.

    By parts, as the gradient's integral M ends at 0, a path's phase is minus the integral of M along it: of a straight
    segment v u.(P(end) - P(start)) with P the integral of M. Averaged over its direction u that leaves a sinc, and as
    the directions are independent, of the path a product of sincs.
    """
    from scipy.stats import qmc

    quasi = QUASI if lengths == "exponential" else 1
    numbers = qmc.Sobol(1 + quasi, rng=rng).random(count)
    v = speeds[np.minimum((numbers[:, 0] * speeds.size).astype(int), speeds.size - 1)]
    product = np.ones((count, waves, amplitude.size))
    now, start = np.zeros(count), wave.integrals(np.zeros(count))[1]
    segment, moving = 0, v > 0
    while moving.any():
        if lengths == "exponential":
            u = numbers[:, 1 + segment] if segment < quasi else rng.random(count)
            way = -length * np.log1p(-u)  # what is left of the first one is distributed like all others
        else:
            way = length * (numbers[:, 1] if segment == 0 else np.ones(count))
        with np.errstate(divide="ignore", invalid="ignore"):
            now = np.where(moving, np.minimum(now + way / v, wave.duration), now)
        end = wave.integrals(now)[1]
        turned = v[:, None] * np.linalg.norm((end - start).reshape(count, waves, 3), axis=2)
        product *= np.sinc(turned[:, :, None] * amplitude / np.pi)
        start = end
        moving &= now < wave.duration
        segment += 1
    mean: Floats = product.mean(axis=0)
    return mean


def pseudo_diffusion(velocity: Any, length: float, lengths: str = "fixed") -> NDArray[np.float64]:
    """D* (mm2/s) of blood at this velocity (m/s) that changes segments of mean `length` (m) many times."""
    _check_network(length, lengths)
    return np.asarray(velocity, float) * length * LENGTHS[lengths] * 1e6


def velocity_of(D_star: Any, length: float, lengths: str = "fixed") -> NDArray[np.float64]:
    """Velocity (m/s) that gives this D* (mm2/s): the inverse of `pseudo_diffusion`."""
    _check_network(length, lengths)
    return np.asarray(D_star, float) * 1e-6 / (length * LENGTHS[lengths])


def _check_network(length: float, lengths: str) -> None:
    if not (is_number(length) and length > 0):
        raise InputError(f"capillaries: length is {length!r}: expected above 0 m")
    if lengths not in LENGTHS:
        raise InputError(f"capillaries: lengths is {lengths!r}: expected {' or '.join(LENGTHS)}")
