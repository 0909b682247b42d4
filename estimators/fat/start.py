"""Where a water-fat fit starts: field and rate of each voxel, and the amplitudes that follow from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..field_map import solve
from ..field_map.candidates import LASTS
from .train import Train


def projected(data: np.ndarray, train: Train, field: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complex water and fat by least squares at a given field and rate.

    Parameters
    ----------
    data : ndarray of complex, (voxel, point)
        Already turned back by the field (`demodulated`).
    train : Train
    field, rate : ndarray, (voxel,)
        In Hz and 1/s.

    Returns
    -------
    water, fat : ndarray of complex, (voxel,)
    """
    decay = np.exp(-np.multiply.outer(rate, train.times))
    square = decay * decay
    c = train.fat
    seen = decay * data
    ww, wf, ff = square.sum(axis=1), square @ c, square @ np.abs(c) ** 2
    bw, bf = seen.sum(axis=1), seen @ c.conj()
    determinant = ww * ff - np.abs(wf) ** 2
    determinant = np.where(determinant > 1e-12 * ww * ff, determinant, np.inf)
    return (ff * bw - wf * bf) / determinant, (ww * bf - wf.conj() * bw) / determinant


def projected_covariance(train: Train, rate: np.ndarray) -> np.ndarray:
    """Of the real and imaginary parts of water and of fat at a known field and rate, noise of SD 1, (voxel, 4, 4)."""
    decay = np.exp(-np.multiply.outer(rate, train.times))
    basis = np.stack([decay + 0j, decay * train.fat], axis=-1)
    inverse = np.linalg.pinv(np.swapaxes(basis.conj(), 1, 2) @ basis, hermitian=True)
    out = np.empty((len(decay), 2, 2, 2, 2))
    out[:, :, 0, :, 0] = out[:, :, 1, :, 1] = inverse.real
    out[:, :, 1, :, 0], out[:, :, 0, :, 1] = inverse.imag, -inverse.imag
    return out.reshape(-1, 4, 4)


def demodulated(data: np.ndarray, times: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Data turned back by each voxel's field (Hz), (voxel, point)."""
    turned: np.ndarray = data * np.exp(-2j * np.pi * np.multiply.outer(field, times))
    return turned


class Start(NamedTuple):
    """Field (Hz), rate (1/s), and whether another field fits as well, each (voxel,)."""

    field: np.ndarray
    r2star: np.ndarray
    ambiguous: np.ndarray


LEAST = 3
"""Echoes that a field map needs."""

BEYOND = 4.5
"""SD by which a fraction may lie below 0 or above 1: noise exceeds it in 3 voxels of a million. What the model lacks
does so too, but then no other field fits as well."""


def field_of(
    data: np.ndarray,
    mask: np.ndarray,
    train: Train,
    sigma: float | np.ndarray | None,
    *,
    rate: float | None = None,
    common: bool = False,
    even: bool = False,
    first: bool = False,
) -> Start:
    """Field and rate from which each voxel of an image is fitted, over its flat order; NaN outside the mask.

    Parameters
    ----------
    data : ndarray of complex, (..., point)
        An image of any number of dimensions; of more than three, the last three are space.
    mask : ndarray of bool, (...)
    train : Train
    sigma : float or ndarray, (voxel,), optional
        Noise SD of each real channel.
    rate : float, optional
        R2* where it is known (1/s).
    common : bool
        Water and fat have one phase at TE 0.
    even, first : bool
        The phases of every second echo, or of the first, are off: the field is found without those echoes where three
        others are left.
    """
    points = np.unique(np.round(train.times, 9), return_index=True)[1]
    for off in ([train.order % 2 == 1] if even else []) + ([train.order == 0] if first else []):
        left = points[~off[points]]
        points = left if left.size >= LEAST else points
    z, y, x = (1.0, 1.0, 1.0) if train.voxel_size is None else map(float, train.voxel_size)
    space = mask.shape[-3:]
    space = (1,) * (3 - len(space)) + space
    images, masks = data.reshape(-1, *space, data.shape[-1])[..., points], mask.reshape(-1, *space)
    noise = np.broadcast_to(np.asarray(np.nan if sigma is None else sigma), mask.size).reshape(masks.shape)
    # a phase common to all echoes is free: times may run from the first, where some lie before a spin echo
    times = train.times[points] - min(float(train.times.min()), 0.0)
    grid = None if rate is None else np.array([rate])
    found = [
        solve(
            image, inside, times, train.fat[points], common_phase=common, voxel_size=(z, y, x), r2star_grid=grid,
            sigma=None if sigma is None else (sd if np.ndim(sigma) else float(sd.flat[0])),
        )
        for image, inside, sd in zip(images, masks, noise, strict=True)
    ]  # fmt: skip
    start = Start(*(np.concatenate([getattr(f, name).ravel() for f in found]) for name in Start._fields))
    noise = np.concatenate([np.broadcast_to(f.sigma, f.field.shape).ravel() for f in found])
    other = np.concatenate([f.alternative.ravel() for f in found])
    fast = LASTS / float(np.ptp(times))  # what decays more slowly is seen by all echoes, and tells itself
    rivals = np.flatnonzero((start.r2star > fast) & np.isfinite(other) & ~start.ambiguous)
    if rivals.size:
        start.ambiguous[rivals] = _impossible(
            images.reshape(-1, len(points))[rivals], train.take(points), start.field[rivals], start.r2star[rivals],
            noise[rivals],
        )  # fmt: skip
    return start


def _impossible(data: np.ndarray, train: Train, field: np.ndarray, rate: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Whether the fraction of fat of voxels with a rival minimum is below 0 or above 1 by `BEYOND` SD, (voxel,).

    The SD is that of six unknowns: the fraction moves with field and rate.
    """
    turned = demodulated(data, train.times, field)
    water, fat = projected(turned, train, np.zeros(len(rate)), rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        over = np.abs((fat / (water + fat)).real - 0.5) - 0.5
    out = over > 0
    water, fat, rate, sigma, over = water[out], fat[out], rate[out], sigma[out], over[out]
    decay = np.exp(-np.multiply.outer(rate, train.times)) + 0j
    made = (water[:, None] + fat[:, None] * train.fat) * decay * train.times
    columns = np.stack([decay, 1j * decay, train.fat * decay, 1j * train.fat * decay, 1j * made, made], axis=-1)
    covariance = np.linalg.pinv((columns.conj().swapaxes(1, 2) @ columns).real, hermitian=True)
    w, f = water / (water + fat) ** 2, fat / (water + fat) ** 2
    slope = np.stack([-f.real, f.imag, w.real, -w.imag, 0 * w.real, 0 * w.real], axis=-1)
    sd = sigma * np.sqrt(np.einsum("vi,vij,vj->v", slope, covariance, slope))
    out[out] = over > BEYOND * sd
    return out
