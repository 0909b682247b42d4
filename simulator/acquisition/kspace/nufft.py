"""Sums over the voxels of a grid at any points of k-space, and back: non-uniform Fourier transforms by finufft."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ... import threads

Complexes = NDArray[np.complex128]

FINEST = 1e-14
"""Relative precision that double numbers allow."""


class Fourier:
    """The transform from images to samples and its adjoint; the same to the last bit on any number of threads.

    Parameters
    ----------
    k : ndarray (..., 3)
        Points along x, y, z (1/m).
    shape : tuple
        Voxels of an image, (z, y, x), or (slice, y, x) where `planar`.
    voxel_size : three floats
        Edge of a voxel along z, y, x (m).
    eps : float
        Precision, relative to the norm of the result.
    box : bool
        Voxels are boxes, full to the edge; else points at their centres.
    center : three floats
        Where the centre of the grid lies, along x, y, z (m).
    planar : bool
        A transform of each slice by itself, in x and y.

    Raises
    ------
    InputError
        A precision that cannot be had.

    References
    ----------
    Barnett et al., SIAM J Sci Comput 41:C479 (2019), doi:10.1137/18M120885X.
    """

    def __init__(
        self,
        k: NDArray[np.float64],
        shape: tuple[int, ...],
        voxel_size: Sequence[float],
        *,
        eps: float = 1e-6,
        box: bool = False,
        center: Sequence[float] = (0.0, 0.0, 0.0),
        planar: bool = False,
    ) -> None:
        if not FINEST <= eps < 0.1:
            raise InputError(f"eps is {eps!r}: expected a relative precision from {FINEST:g} to below 0.1")
        self.shape, self.points, self.eps, self.planar = tuple(shape), k.shape[:-1], float(eps), planar
        axes = (1, 2) if planar else (0, 1, 2)  # of z, y, x
        self._modes = tuple(shape[a] for a in axes)
        self._batch = shape[0] if planar else 1
        flat = k.reshape(-1, 3)
        self._angles, self.factor = [], np.ones(len(flat), complex)
        for axis in axes:
            along, n, edge = flat[:, 2 - axis], shape[axis], float(voxel_size[axis])
            # finufft counts voxels from n//2; ours lie about the centre, half a voxel on where n is even
            shift = (n // 2 - 0.5 * (n - 1)) * edge + float(center[2 - axis])
            self.factor *= edge * np.exp(2j * np.pi * along * shift)
            if box:
                self.factor *= np.sinc(along * edge)
            cycles = along * edge
            self._angles.append(2 * np.pi * (cycles - np.rint(cycles)))
        self._plans: dict[int, queue.SimpleQueue[Any]] = {1: queue.SimpleQueue(), 2: queue.SimpleQueue()}

    def forward(self, image: Complexes) -> Complexes:
        """Samples of one image: the sum of image x volume x exp(+i 2 pi k r); of each slice where planar."""
        modes = np.ascontiguousarray(image, dtype=complex).reshape(self._batched(self._modes))
        samples = self._run(2, modes)
        out = samples.reshape(-1, self.factor.size) * self.factor
        return out.reshape((self.shape[0], *self.points) if self.planar else self.points)

    def adjoint(self, samples: Complexes, weight: NDArray[np.float64] | None = None) -> Complexes:
        """The adjoint of `forward`: the sum of weight x sample x conj(volume x exp(+i 2 pi k r))."""
        factor = self.factor.conj() if weight is None else self.factor.conj() * np.ravel(weight)
        flat = np.reshape(samples, (-1, self.factor.size)) * factor
        return self._run(1, flat.reshape(self._batched((self.factor.size,)))).reshape(self.shape)

    def adjoint_all(self, several: Complexes, weight: NDArray[np.float64] | None = None) -> Complexes:
        """`adjoint` of each of several sets of samples, on all threads."""
        out = np.empty((len(several), *self.shape), complex)

        def work(first: int, last: int) -> None:
            for i in range(first, last):
                out[i] = self.adjoint(several[i], weight)

        threads.each_block(len(several), work, block=1)
        return out

    def _batched(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self._batch, *shape) if self._batch > 1 else shape

    def _run(self, kind: int, data: Complexes) -> Complexes:
        """Execute a plan that no other thread is using, a new one where there is none.

        A plan has one thread, and threads take a plan each: the order of sums does not depend on their number.
        """
        try:
            plan = self._plans[kind].get_nowait()
        except queue.Empty:
            import finufft  # .2 s that only a scan pays

            sign = 1 if kind == 2 else -1
            plan = finufft.Plan(kind, self._modes, self._batch, eps=self.eps, isign=sign, nthreads=1)
            plan.setpts(*self._angles)
        out: Complexes = plan.execute(data)
        self._plans[kind].put(plan)
        return out
