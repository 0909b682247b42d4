"""From samples to images: the density-compensated adjoint, and conjugate-gradient SENSE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ... import threads
from . import cartesian_images, density_compensation
from .nufft import Fourier
from .readout import Trajectory, whole

Complexes = NDArray[np.complex128]


def images(data: Complexes, trajectory: Trajectory, **options: Any) -> Complexes:
    """Image of every coil: by Fourier transform where k-space is a grid, else by gridding.

    Parameters
    ----------
    data : ndarray (..., readout, sample), or (..., slice, readout, sample) in two dimensions
    trajectory : Trajectory
        As it is meant to be, whatever the scanner really did.
    **options
        Of `cartesian_images.transform` or `gridding`.

    Returns
    -------
    ndarray (..., z, y, x)
        In units of the object's density x amplitude.
    """
    on_grid = trajectory.kind in ("cartesian", "epi")
    return (cartesian_images.transform if on_grid else gridding)(data, trajectory, **options)


def gridding(
    data: Complexes, trajectory: Trajectory, *, weights: NDArray[np.float64] | None = None, eps: float = 1e-6
) -> Complexes:
    """The adjoint of the encoding, each sample weighted by the volume of k-space for which it stands.

    Parameters
    ----------
    data : ndarray (..., readout, sample), or (..., slice, readout, sample) in two dimensions
    trajectory : Trajectory
    weights : ndarray (readout, sample), optional
        Default: those of `density_compensation.weights`.
    eps : float
        Precision of the transforms.

    Returns
    -------
    ndarray (..., z, y, x)
        The integral over the sampled part of k-space of data x exp(-i 2 pi k r).

    Raises
    ------
    InputError
        Data or weights whose shape does not fit the trajectory.
    """
    rest = trajectory.axes_before(data)
    weight = density_compensation.weights(trajectory) if weights is None else np.asarray(weights)
    if weight.shape != trajectory.k.shape[:2]:
        raise InputError(f"gridding: weights has shape {weight.shape}: expected {trajectory.k.shape[:2]}")
    fourier = _fourier(trajectory, eps)
    flat = np.reshape(data, (-1, *np.shape(data)[len(rest) :]))
    cell = _cell(trajectory)
    out = fourier.adjoint_all(flat, weight / cell)
    return out.reshape(*rest, *trajectory.matrix)


@dataclass(frozen=True, eq=False)
class Solution:
    """What `sense` found.

    Attributes
    ----------
    image : ndarray (..., z, y, x)
    residual : ndarray (...)
        Norm of what is left of the normal equations, relative to their right side.
    iterations : ndarray (...)
    """

    image: Complexes
    residual: NDArray[np.float64]
    iterations: NDArray[np.int64]


def sense(
    data: Complexes,
    trajectory: Trajectory,
    coils: Complexes,
    *,
    weights: NDArray[np.float64] | None = None,
    tikhonov: float = 0.0,
    iterations: int = 50,
    tolerance: float = 1e-6,
    toeplitz: bool = True,
    eps: float = 1e-8,
    progress: Callable[[float], object] | None = None,
) -> Solution:
    """The image that explains the samples of all coils best, by conjugate gradients on the normal equations.

    It minimises the weighted sum of |sample - encoding of the image|^2, plus lambda times that of |image|^2. Correlated
    noise belongs whitened first, in data and coils (`coil_combination.prewhiten`).

    Parameters
    ----------
    data : ndarray (..., coil, readout, sample), or (..., coil, slice, readout, sample) in two dimensions
    trajectory : Trajectory
    coils : ndarray (coil, z, y, x)
        Sensitivities on the grid of the image.
    weights : ndarray (readout, sample), optional
        Weights of the squares: without, all alike, which white noise asks for; those of `density_compensation` make
        the iteration converge faster, at a cost in noise.
    tikhonov : float
        lambda, relative to the diagonal of the normal equations at a sensitivity of 1.
    iterations : int
        At most.
    tolerance : float
        Residual at which it stops.
    toeplitz : bool
        Apply the encoding and its adjoint as one convolution on a grid of twice the size: the same numbers, faster.
    eps : float
        Precision of the transforms.
    progress : callable (fraction), optional

    Returns
    -------
    Solution

    Raises
    ------
    InputError
        Shapes that do not fit, a negative `tikhonov`.

    References
    ----------
    Pruessmann et al., Magn Reson Med 46:638 (2001), doi:10.1002/mrm.1241; the convolution: Fessler et al., IEEE Trans
    Signal Process 53:3393 (2005), doi:10.1109/TSP.2005.853152.
    """
    rest = trajectory.axes_before(data)
    coils = np.asarray(coils)
    if not rest or coils.shape != (rest[-1], *trajectory.matrix):
        expected = (*rest[-1:], *trajectory.matrix)
        raise InputError(f"sense: coils has shape {coils.shape}: expected {expected}, one map a coil")
    if not np.isfinite(coils).all():
        raise InputError("sense: coils is not finite: expected numbers, and 0 outside the object")
    if not (np.isfinite(tikhonov) and tikhonov >= 0):
        raise InputError(f"sense: tikhonov is {tikhonov!r}: expected a number from 0 up")
    iterations = whole("sense", "iterations", iterations)
    weight = np.ones(trajectory.k.shape[:2]) if weights is None else np.asarray(weights, float)
    fourier = _fourier(trajectory, eps)
    gram = _Toeplitz(trajectory, weight, eps) if toeplitz else _Gram(fourier, weight)
    damping = tikhonov * _cell(trajectory) ** 2 * float(weight.sum())

    def normal(image: Complexes) -> Complexes:
        total = damping * image
        for coil in coils:
            total += coil.conj() * gram(coil * image)
        return total

    flat = np.reshape(data, (-1, *np.shape(data)[len(rest) - 1 :]))
    found = []
    for i, one in enumerate(flat):

        def told(part: float, i: int = i) -> None:
            if progress is not None:
                progress((i + part) / len(flat))

        found.append(_solve(normal, fourier, coils, weight, one, iterations, tolerance, told))
    shape = rest[:-1]
    image = np.stack([f[0] for f in found]).reshape(*shape, *trajectory.matrix)
    residual, used = (np.array([f[i] for f in found]).reshape(shape) for i in (1, 2))
    return Solution(image, residual, used)


def _solve(
    normal: Callable[[Complexes], Complexes],
    fourier: Fourier,
    coils: Complexes,
    weight: NDArray[np.float64],
    data: Complexes,
    iterations: int,
    tolerance: float,
    told: Callable[[float], None],
) -> tuple[Complexes, float, int]:
    """Image, residual and number of iterations of conjugate gradients from 0."""
    right = np.einsum("czyx,czyx->zyx", coils.conj(), fourier.adjoint_all(data, weight))
    image = np.zeros_like(right)
    left, along = right.copy(), right.copy()
    start = now = float(np.vdot(left, left).real)
    used = 0
    while used < iterations and now > tolerance**2 * start:
        turned = normal(along)
        length = now / float(np.vdot(along, turned).real)
        image += length * along
        left -= length * turned
        before, now = now, float(np.vdot(left, left).real)
        along = left + (now / before) * along
        used += 1
        told(used / iterations)
    return image, float(np.sqrt(now / start)) if start > 0 else 0.0, used


class _Gram:
    """The encoding of an image and its weighted adjoint, one after the other."""

    def __init__(self, fourier: Fourier, weight: NDArray[np.float64]) -> None:
        self.fourier, self.weight = fourier, weight

    def __call__(self, image: Complexes) -> Complexes:
        return self.fourier.adjoint(self.weight * self.fourier.forward(image))


class _Toeplitz:
    """The same as a convolution with the point-spread function, which is periodic on a grid of twice the size."""

    def __init__(self, trajectory: Trajectory, weight: NDArray[np.float64], eps: float) -> None:
        planar = trajectory.dimensions == 2
        self.axes = (1, 2) if planar else (0, 1, 2)
        n, size = trajectory.matrix, trajectory.voxel_size
        shape = tuple(2 * n[a] if a in self.axes else 1 for a in range(3))
        # on an even grid our voxels lie half a voxel beside the whole differences of place: moved back by `center`
        center = [-0.5 * size[a] if a in self.axes else 0.0 for a in (2, 1, 0)]
        from scipy.fft import fftn, ifftshift

        fourier = Fourier(trajectory.k, shape, size, eps=eps, center=center, planar=planar)
        spread = fourier.adjoint(weight.astype(complex)) * _cell(trajectory)
        self.spectrum = fftn(ifftshift(spread, self.axes), axes=self.axes)
        self.inside = tuple(slice(0, m) for m in n)
        self.shape = [2 * n[a] for a in self.axes]

    def __call__(self, image: Complexes) -> Complexes:
        from scipy.fft import fftn, ifftn

        workers = threads.count()
        spectrum = fftn(image, self.shape, axes=self.axes, workers=workers)
        spectrum *= self.spectrum
        back: Complexes = ifftn(spectrum, axes=self.axes, workers=workers, overwrite_x=True)
        return back[self.inside]


def _fourier(trajectory: Trajectory, eps: float) -> Fourier:
    return Fourier(trajectory.k, trajectory.matrix, trajectory.voxel_size, eps=eps, planar=trajectory.dimensions == 2)


def _cell(trajectory: Trajectory) -> float:
    """Volume of a voxel (m3), or its area in the slice (m2)."""
    return float(np.prod(trajectory.voxel_size[3 - trajectory.dimensions :]))
