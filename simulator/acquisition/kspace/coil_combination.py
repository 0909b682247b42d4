"""One image from those of many coils."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .acquire import cholesky
from .readout import whole

Complexes = NDArray[np.complex128]

BYTES = 1 << 28
"""Memory for the correlations of coils in work at a time."""


def root_sum_of_squares(images: Complexes, *, coil_axis: int = -4) -> NDArray[np.float64]:
    """Root of the sum over coils of |image|^2.

    Source: Roemer et al., Magn Reson Med 16:192 (1990), doi:10.1002/mrm.1910160203.
    """
    out: NDArray[np.float64] = np.sqrt(np.sum(np.abs(images) ** 2, axis=coil_axis))
    return out


def prewhiten(values: Complexes, covariance: Any, *, coil_axis: int = 1) -> Complexes:
    """Data, images or sensitivities of virtual coils whose noise is independent and of SD 1 per real channel.

    Parameters
    ----------
    values : ndarray
        With an axis of coils.
    covariance : number or ndarray (coil, coil)
        As for `kspace.add_noise`.
    coil_axis : int

    Raises
    ------
    InputError
        A covariance that is none.
    """
    n = values.shape[coil_axis]
    first = np.moveaxis(np.asarray(values), coil_axis, 0)
    from scipy.linalg import solve_triangular

    white = solve_triangular(cholesky(covariance, n), first.reshape(n, -1), lower=True)
    return np.moveaxis(white.reshape(first.shape), 0, coil_axis)


def combine(images: Complexes, coils: Complexes, covariance: Any = 1.0) -> Complexes:
    """The unbiased image with the least noise, for known sensitivities: (..., coil, z, y, x) to (..., z, y, x).

    Parameters
    ----------
    images : ndarray (..., coil, z, y, x)
    coils : ndarray (coil, z, y, x)
        Voxels where all are 0 give 0.
    covariance : number or ndarray (coil, coil)

    Raises
    ------
    InputError
        Shapes that do not fit, a covariance that is none.

    References
    ----------
    Roemer et al., Magn Reson Med 16:192 (1990), doi:10.1002/mrm.1910160203.
    """
    if np.shape(images)[-4:] != np.shape(coils):
        raise InputError(f"combine: coils has shape {np.shape(coils)}: expected {np.shape(images)[-4:]}, as the images")
    white = prewhiten(coils, covariance, coil_axis=0)
    power = np.sum(np.abs(white) ** 2, axis=0)
    together = np.sum(white.conj() * prewhiten(images, covariance, coil_axis=-4), axis=-4)
    return np.where(power > 0, together / np.where(power > 0, power, 1.0), 0.0)


def adaptive(
    images: Complexes, *, covariance: Any = 1.0, block: int = 5, planar: bool = False
) -> tuple[Complexes, Complexes]:
    """The matched filter of what the coils have in common in the neighbourhood of each voxel.

    Parameters
    ----------
    images : ndarray (coil, z, y, x) or (echo, coil, z, y, x)
        Echoes share one filter, so that their phases stay comparable.
    covariance : number or ndarray (coil, coil)
        Of the noise, up to its scale.
    block : int
        Edge of the neighbourhood (voxels).
    planar : bool
        Slices have nothing in common.

    Returns
    -------
    image : ndarray (z, y, x) or (echo, z, y, x)
        On the scale of the coils' images: its noise has their (root-mean-square) SD.
    coils : ndarray (coil, z, y, x)
        Sensitivities relative to the image, as estimated: each coil's image is about coil x image. The phase of the
        coil that sees most is taken as 0.

    Raises
    ------
    InputError
        Images without an axis of coils, a covariance that is none.

    References
    ----------
    Walsh et al., Magn Reson Med 43:682 (2000), doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G.
    """
    from scipy.ndimage import uniform_filter

    if np.ndim(images) not in (4, 5):
        raise InputError(f"adaptive: images has shape {np.shape(images)}: expected (coil, z, y, x), echoes before")
    block = whole("adaptive", "block", block)
    several = np.asarray(images) if np.ndim(images) == 5 else np.asarray(images)[None]
    n, planes = several.shape[1:3]
    noise = np.asarray(covariance) if np.ndim(covariance) else np.eye(n)
    noise = noise / (np.trace(noise).real / max(len(noise), 1))
    white = prewhiten(several, noise, coil_axis=1)
    filters = np.empty(white.shape[1:], complex)
    halo = 0 if planar else block // 2 + 1
    step = max(1, BYTES // (16 * n * n * int(np.prod(white.shape[3:]))) - 2 * halo)
    for first in range(0, planes, step):
        low, high = max(first - halo, 0), min(first + step + halo, planes)
        part = white[:, :, low:high]
        window = (1 if planar else block, block, block)
        together = np.empty((*part.shape[2:], n, n), complex)
        for i in range(n):
            for j in range(i + 1):
                product = np.sum(part[:, i] * part[:, j].conj(), axis=0)
                together[..., i, j] = uniform_filter(product.real, window) + 1j * uniform_filter(product.imag, window)
        inside = slice(first - low, min(first + step, planes) - low)
        # the lower triangle alone is read
        filters[:, first : first + step] = np.moveaxis(np.linalg.eigh(together[inside])[1][..., -1], -1, 0)
    most = int(np.argmax(np.sum(np.abs(white) ** 2, axis=(0, 2, 3, 4))))
    filters *= np.exp(-1j * np.angle(filters[most]))
    image = np.sum(filters.conj() * white, axis=1)
    coils = np.tensordot(cholesky(noise, n), filters, 1)
    return (image if np.ndim(images) == 5 else image[0]), coils
