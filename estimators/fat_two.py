"""Water and fat from two echoes: two candidates a voxel by the magnitudes, one of them by the field of the neighbours.

The two magnitudes leave a quadratic equation for the fat fraction. Each of its roots foretells how the phase turns
from echo to echo, and so a field; neighbours share a field, not a root. What stays open is the sign of the whole: with
echoes in phase and opposed the exchanged image fits as well in a field half a period away, and the nearer to 0 is
taken.
Xiang, Magn Reson Med 56:572 (2006), doi:10.1002/mrm.20984; Eggers et al., Magn Reson Med 65:96 (2011),
doi:10.1002/mrm.22578.
"""

from __future__ import annotations

import numpy as np

from .fat_fit import WaterFatFit
from .fat_start import demodulated, projected, projected_covariance
from .fat_train import Train

SCALES = (16.0, 8.0, 4.0, 2.0, 2.0, 1.5, 1.5)
"""Widths (voxels) over which the field is thought to be one, from coarse to fine."""

FINAL = 1.0
"""Width over which the field is averaged at last: it enters water and fat in second order."""

ALIKE = 0.5  # rad; candidates nearer than this are one
FAR = np.pi / 3  # rad of the field's turn from echo to echo, beyond which 0 is no longer nearer than the other sign
MARGIN = 0.2  # of the cosine between a candidate and its neighbours


def two_echoes(data: np.ndarray, mask: np.ndarray, train: Train, rate: np.ndarray) -> tuple[WaterFatFit, np.ndarray]:
    """Water, fat and field of the voxels of the mask, and where the choice between the candidates is open.

    Parameters
    ----------
    data : ndarray of complex, (..., 2)
    mask : ndarray of bool, (...)
    train : Train
    rate : ndarray, (voxel,)
        R2* over the flat order of the image (1/s).
    """
    inside = np.flatnonzero(mask)
    rate = rate[inside]
    # what does not depend on the order of the echoes is written for the earlier one first
    order = np.argsort(train.times, kind="stable")
    train = train.take(order)
    s = data.reshape(-1, 2)[inside][:, order]
    turn, ends = _candidates(s * np.exp(np.multiply.outer(rate, train.times)), train)
    weight = np.abs(s[:, 0] * s[:, 1])
    chosen = np.abs(ends).argmin(axis=0)
    rows = np.arange(inside.size)
    for width in SCALES:
        mean = _smooth(turn[chosen, rows], weight, mask, width)
        chosen = (turn * mean.conj()).real.argmax(axis=0)
    other = 1 - chosen
    near = _smooth(turn[chosen, rows], weight, mask, SCALES[-1])
    far = _smooth(turn[chosen, rows], weight, mask, SCALES[1])
    apart = np.abs(np.angle(turn[0] * turn[1].conj())) > ALIKE
    gain = ((turn[chosen, rows] - turn[other, rows]) * near.conj()).real
    ambiguous = apart & ((gain < MARGIN) | (np.abs(np.angle(far)) > FAR))
    mean = _smooth(turn[chosen, rows], weight, mask, FINAL)
    spacing = float(train.times[1] - train.times[0])
    field = np.angle(mean) / (2 * np.pi * spacing)
    water, fat = projected(demodulated(s, train.times, field), train, np.zeros(inside.size), rate)
    covariance = np.zeros((inside.size, 5, 5))
    covariance[:, :4, :4] = projected_covariance(train, rate)
    with np.errstate(divide="ignore"):
        covariance[:, 4, 4] = (1.0 / np.abs(s) ** 2).sum(axis=1) / (2 * np.pi * spacing) ** 2
    nothing = np.full(inside.size, np.nan)
    status = np.zeros(inside.size, np.uint16)
    return WaterFatFit(water, fat, field, {}, covariance, ("fieldmap",), nothing, 0, status), ambiguous


def _candidates(s: np.ndarray, train: Train) -> tuple[np.ndarray, np.ndarray]:
    """How the field turns the phase from the first echo to the second under each root, as a phasor and an angle."""
    c = train.fat
    # |1 - p + p c|^2 = 1 + b p + a p^2 at each echo
    a, b = np.abs(1 - c) ** 2, 2 * (c.real - 1)
    power = np.abs(s) ** 2
    scale = power.sum(axis=1)
    first, second = power[:, 0] / scale, power[:, 1] / scale
    A, B, C = first * a[1] - second * a[0], first * b[1] - second * b[0], first - second
    root = np.sqrt(np.maximum(B * B - 4 * A * C, 0.0))
    flat = np.abs(A) < 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        linear = np.where(np.abs(B) > 1e-12, -C / B, 0.5)
        p = np.where(flat, linear, np.stack([-B - root, -B + root]) / (2 * A))
    p = np.clip(p, 0.0, 1.0)
    foretold = (1 - p + p * c[1]) * (1 - p + p * c[0]).conj()
    turned = s[:, 1] * s[:, 0].conj() * foretold.conj()
    angle = np.angle(turned)
    return np.exp(1j * angle), angle


def _smooth(turn: np.ndarray, weight: np.ndarray, mask: np.ndarray, width: float) -> np.ndarray:
    """Weighted mean phasor of the voxels about each, (voxel,); of an axis of one voxel there is nothing to average."""
    from scipy import ndimage

    image = np.zeros(mask.size, complex)
    total = np.zeros(mask.size)
    inside = np.flatnonzero(mask)
    image[inside], total[inside] = turn * weight, weight
    # of more than three dimensions, the last three are space
    widths = [width if n > 1 and axis >= mask.ndim - 3 else 0.0 for axis, n in enumerate(mask.shape)]
    parts = [
        ndimage.gaussian_filter(part.reshape(mask.shape), widths, mode="constant").ravel()[inside]
        for part in (image.real, image.imag, total)
    ]
    whole = np.where(parts[2] > 0, parts[2], 1.0)
    mean: np.ndarray = (parts[0] + 1j * parts[1]) / whole
    return mean
