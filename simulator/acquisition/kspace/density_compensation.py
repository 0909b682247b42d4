"""How much of k-space each sample stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .nufft import Fourier
from .readout import Trajectory, whole

Floats = NDArray[np.float64]


def weights(trajectory: Trajectory) -> Floats:
    """Volume (1/m3; area, 1/m2, in two dimensions) of each sample: the trajectory's own, else by `pipe_menon`."""
    own = trajectory.weights
    return pipe_menon(trajectory) if own is None else own


def pipe_menon(trajectory: Trajectory, *, iterations: int = 30, eps: float = 1e-4) -> Floats:
    """Weights by iteration, for any trajectory: each is divided by the density that the weighted samples have there.

    Parameters
    ----------
    trajectory : Trajectory
    iterations : int
    eps : float
        Precision of the transforms.

    Returns
    -------
    ndarray (readout, sample)
        In 1/m3 (1/m2 in two dimensions), no scale left to choose.

    Raises
    ------
    InputError
        A number of iterations below 1.

    Notes
    -----
    The density is that of the samples seen through a kernel which in the image is a pyramid as wide as twice the field
    of view: never negative in k-space, and wide enough that images of whatever lies in the field of view do not see it.

    References
    ----------
    Pipe and Menon, Magn Reson Med 41:179 (1999),
    doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V.
    """
    iterations = whole("density compensation", "iterations", iterations)
    planar = trajectory.dimensions == 2
    size = trajectory.voxel_size
    shape = tuple(1 if planar and a == 0 else 2 * n for a, n in enumerate(trajectory.matrix))
    fourier = Fourier(trajectory.k, shape, size, eps=eps, planar=planar)
    pyramid = np.ones(shape)
    for axis, n in enumerate(shape):
        if n > 1:
            place = np.abs(np.arange(n) - 0.5 * (n - 1)) / (0.5 * n)
            pyramid *= (1 - place).reshape([-1 if a == axis else 1 for a in range(3)])
    cell = float(np.prod(size[1:] if planar else size))
    found = np.ones(trajectory.k.shape[:2])
    for _ in range(iterations):
        density = np.abs(fourier.forward(pyramid * fourier.adjoint(found.astype(complex)) / cell))
        density = density.reshape(found.shape)
        if not density.min() > 0:
            raise InputError("density compensation: a sample has no density: expected samples within k-space")
        found = found / density
    return found


def noise_gain(weight: Any) -> float:
    """SD of the noise in each real channel of an image voxel, for samples of SD 1: the root of the sum of squares.

    Of the density-compensated adjoint (`reconstruction.gridding`, and for a Cartesian grid the Fourier transform):
    noise is the same in every voxel, and correlated between them where the weights differ.
    """
    return float(np.sqrt(np.sum(np.square(weight))))
