"""Smooth random variation of a tissue's composition, drawn in space and not in voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WAVES = 24


def waves(
    axes: Sequence[np.ndarray], rng: np.random.Generator, shortest: float, longest: float,
    stretch: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Sum of plane waves of random direction: the same pattern at every resolution.

    Parameters
    ----------
    axes : three arrays
        Middles (m) of the voxels along z, y, x.
    rng : Generator
    shortest, longest : float
        Bounds of the wavelength (m).
    stretch : sequence of float
        The pattern is drawn out along z, y, x by these factors.

    Returns
    -------
    array, (z, y, x)
        Mean near zero and variance near one over a large volume.
    """
    z, y, x = axes
    upright, plane = np.empty((len(z), 2 * _WAVES)), np.empty((2 * _WAVES, len(y), len(x)))
    for i in range(_WAVES):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(shortest, longest) / np.asarray(stretch)
        phase = rng.uniform(0, 2 * np.pi)
        # cos(a + b) as products of what depends on height and on place in the slice: no cosine a voxel
        upright[:, 2 * i], upright[:, 2 * i + 1] = np.cos(wave[0] * z + phase), -np.sin(wave[0] * z + phase)
        inside = wave[1] * y[:, None] + wave[2] * x
        plane[2 * i], plane[2 * i + 1] = np.cos(inside), np.sin(inside)
    pattern: np.ndarray = upright @ plane.reshape(2 * _WAVES, -1) * np.sqrt(2 / _WAVES)
    return pattern.reshape(len(z), len(y), len(x))


def around(mean: float, variation: float, pattern: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A map within 0..1 whose weighted mean is `mean` and whose relative standard deviation is `variation`.

    Where 0 or 1 is near, the deviation is smaller: the map keeps clear of both by a twentieth of the room, as the
    pattern shrinks rather than being clipped. Where there is no weight the map is `mean`.
    """
    seen = weight > 0
    if not seen.any():
        return np.full(weight.shape, mean)
    share = weight[seen] / weight[seen].sum()
    own = pattern[seen] - (share * pattern[seen]).sum()
    spread = np.sqrt((share * own**2).sum())
    found = np.full(weight.shape, mean)
    if spread > 0 and own.min() < 0 < own.max():  # else: a single voxel
        amplitude = min(variation * mean / spread, 0.95 * mean / -own.min(), 0.95 * (1 - mean) / own.max())
        found[seen] = mean + amplitude * own
    return found


def streaks(mean: float, contrast: float, pattern: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A map within 0..1 of weighted mean `mean` in which high values are rare and narrow, as fat in muscle.

    The logistic function of `pattern` times `contrast`, moved until the mean is met.
    """
    seen = weight > 0
    found = np.full(weight.shape, mean)
    if not seen.any() or not 0 < mean < 1:
        return found
    share, own = weight[seen] / weight[seen].sum(), contrast * pattern[seen]
    low, high = -own.max() + np.log(mean / (1 - mean)), -own.min() + np.log(mean / (1 - mean))
    for _ in range(30):
        middle = 0.5 * (low + high)
        met = float((share / (1 + np.exp(-(own + middle)))).sum())
        low, high = (middle, high) if met < mean else (low, middle)
    values = 1 / (1 + np.exp(-(own + 0.5 * (low + high))))
    # Thirty halvings leave some 1e-8 of the mean; a factor so near to one takes the rest.
    met = float((share * values).sum())
    found[seen] = np.minimum(values * (mean / met), 1.0) if mean < 0.5 else 1 - (1 - values) * ((1 - mean) / (1 - met))
    return found
