"""What diffusion and flow leave of a pool's signal under the gradients that are really played: the engines' answer.

No decay is assumed for blood: it flows through a network of capillaries at the velocity whose D* the pool has *in the
limit of many segments*. The lobes of a scanner last about as long as blood stays in a segment, and then the signal is
not exp(-b D*); an estimator that assumes it is wrong by as much.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from ..acquisition.events import moments
from ..acquisition.protocol import Protocol
from ..constants import PROTON
from ..engines import capillaries
from .diffusion import played
from .sequence import INVISIBLE, Pool

SEGMENT = 64e-6
"""Mean length (m) of a capillary segment: mouse cortex, three networks of 60 to 67 um (arXiv:2012.14749). Of the
sinusoids of marrow no such number was found: they stand in for them."""

NODES = 64  # values of D* that are computed where a pool has more of them; those between are interpolated


def attenuation(
    pool: Pool,
    protocol: Protocol,
    seed: int | np.random.SeedSequence = 0,
    *,
    kurtosis: bool | float = True,
    segment_length: float = SEGMENT,
    lengths: str = "fixed",
    count: int = 2048,
) -> NDArray[np.float64]:
    """Signal of a pool at each point of a diffusion spin echo, relative to the same echo without any gradient.

    Parameters
    ----------
    pool : Pool
        Blood flows, with ``D_star``; everything else diffuses with ``D`` and excess ``kurtosis``.
    protocol : Protocol
        Its gradients are those of `diffusion.played`: lobes of the stated ``delta``, ``Delta`` and ``ramp`` or, where
        these are not stated, of their defaults from TE; crushers and the gradients of an inner volume are felt too.
    seed : int or SeedSequence
    kurtosis : bool or float
        As in `diffusion.signal`: the pool's own, none, or a number for the extravascular water.
    segment_length, lengths, count
        Of the capillaries, as in `blood_attenuation`.

    Returns
    -------
    ndarray (row, point)
        The Monte Carlo error of blood is below 1e-4, and 2e-3 for exponential lengths (16,384 paths bring it below
        1e-3); that of interpolation is below 1e-4. Of tissue there is none.

    Raises
    ------
    InputError
        As `diffusion.played`, and a kurtosis below 0.

    Notes
    -----
    Free walkers give exp(-b D) with the b-value of the whole waveform, cross terms included (a test lets them walk).
    They have no kurtosis. With an excess kurtosis K they are taken as a mixture whose diffusivities have a gamma
    distribution of mean D and variance K D^2/3, which has that kurtosis and leaves (1 + b D K/3)^(-3/K) (Yablonskiy,
    Bretthorst and Ackerman, Magn Reson Med 50:664 (2003), doi:10.1002/mrm.10578, for distributions of the
    diffusivity): it differs from the kurtosis expansion in the order (b D)^3, and unlike it never rises with b.
    """
    if pool.kind in INVISIBLE:
        return np.ones((1, protocol.points))
    waveforms = _waveforms(protocol)
    if pool.kind == "blood":
        times, gradient = moments.together(waveforms)
        return blood_attenuation(
            times, gradient, pool.get("D_star"), segment_length=segment_length, lengths=lengths, count=count, seed=seed
        ).reshape(-1, protocol.points)
    b = np.array([np.trace(moments.b_matrix_of(t, g)) for t, g in waveforms])
    # bound water has no diffusivity one could see: it is gone before the echo
    D = pool.get("D", default=0.0 if pool.kind == "bound_water" else None)[:, None]
    K = pool.get("kurtosis", default=0.0)[:, None]
    if kurtosis is False:
        K = np.zeros_like(K)
    elif kurtosis is not True and pool.kind != "fat":
        K = np.full_like(K, kurtosis)
    if (K < 0).any():
        raise InputError(f"pool {pool.name}: kurtosis is {K.min():g}: expected from 0 up, as a mixture of walkers has")
    third = np.where(K > 0, K / 3, 1.0)
    left: NDArray[np.float64] = np.where(K > 0, np.exp(-np.log1p(b * D * third) / third), np.exp(-b * D))
    return left


def blood_attenuation(
    times: ArrayLike,
    gradient: ArrayLike,
    D_star: ArrayLike,
    *,
    segment_length: float = SEGMENT,
    lengths: str = "fixed",
    scale: ArrayLike = 1.0,
    count: int = 2048,
    seed: int | np.random.SeedSequence = 0,
    gamma: float = PROTON,
) -> NDArray[np.float64]:
    """Signal of blood that flows at the velocity whose pseudo-diffusion, in the limit of many segments, is D*.

    Parameters
    ----------
    times, gradient
        Effective gradient, as in `capillaries.signal`.
    D_star : float or array (row,)
        mm2/s; the velocity is 6 D*/l in segments of the fixed length l, 3 D*/l in exponential ones of mean l.
    segment_length : float
        Mean length l (m).
    lengths : {"fixed", "exponential"}
    scale : float or array (scale,)
        Amplitudes of the gradient.
    count, seed, gamma
        As in `capillaries.signal`. More than `NODES` different D* are interpolated between as many.

    Returns
    -------
    ndarray (row, waveform, scale)
        Without the axis of a single number.

    Raises
    ------
    InputError
        As `capillaries.signal`, and a D* that is not from 0 up.
    """
    values = np.atleast_1d(np.asarray(D_star, dtype=float))
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise InputError(f"blood: D_star is {values.min():g} mm2/s at least: expected finite values from 0 up")
    distinct, row = np.unique(values, return_inverse=True)

    def left(D: float) -> NDArray[np.float64]:
        v = capillaries.velocity_of(D, segment_length, lengths)
        network: dict[str, Any] = {"velocity": v, "length": segment_length, "lengths": lengths}
        return capillaries.signal(times, gradient, **network, scale=scale, count=count, seed=seed, gamma=gamma).signal

    if distinct.size <= NODES:
        found = np.stack([left(D) for D in distinct])[row]
    else:
        from scipy.interpolate import CubicSpline

        nodes = np.linspace(math.sqrt(distinct[0]), math.sqrt(distinct[-1]), NODES)
        found = CubicSpline(nodes, np.stack([left(n * n) for n in nodes]))(np.sqrt(values))
    return found if np.ndim(D_star) else found[0]


def _waveforms(protocol: Protocol) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Effective gradient of each point, from the excitation to its sample."""
    found: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for part in played(protocol):
        at = part.timeline.sample_times()
        for point, sample in zip(part.points, part.samples, strict=True):
            found[point] = moments.effective_gradient(part.timeline, float(at[sample]))
    return [found[point] for point in range(protocol.points)]
