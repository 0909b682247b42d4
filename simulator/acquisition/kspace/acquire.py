"""What the receiver sees: the signal of an object at every sample of k-space, each at its own time.

Pools decay and their peaks turn while k-space is read. As long as a pool is alike in all voxels, that is a factor of
each sample, and one Fourier transform of the pool's map serves all its peaks and all echoes; what differs from voxel to
voxel (a field map, a map of R2) is expanded into few such products (`low_rank`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ... import threads
from .low_rank import Expansion, expand
from .nufft import Fourier
from .readout import Trajectory, positive_three

Complexes = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class PoolMap:
    """A pool of spins as a map, and what it does while k-space is read.

    Attributes
    ----------
    density : ndarray (z, y, x), or (echo, z, y, x) where voxels differ in more than their amount
        Real or complex; a voxel without the pool holds 0.
    amplitude : number, or ndarray (echo,) or (echo, peak)
        Signal at the echo time TE for a density of 1, of each peak and with its phase there: all that has happened up
        to TE, but for what `field` of `acquire` does.
    offset : number or ndarray (peak,)
        Frequency of each peak (Hz).
    R2 : float or ndarray (z, y, x)
        Rate of decay while k-space is read (1/s): exp(-R2 t), t from TE.
    R2_prime : float or callable
        Rate of the dephasing within a voxel (1/s), or its factor as a function of the time (s) for which it has
        dephased; refocused at a spin echo.
    name : str
    """

    density: NDArray[Any]
    amplitude: Any = 1.0
    offset: Any = 0.0
    R2: Any = 0.0
    R2_prime: float | Callable[[NDArray[np.float64]], NDArray[Any]] = 0.0
    name: str = "pool"


def acquire(
    trajectory: Trajectory,
    pools: Sequence[PoolMap],
    voxel_size: Any,
    *,
    coils: NDArray[Any] | None = None,
    field: NDArray[np.float64] | None = None,
    dephased: Any = None,
    voxels: str = "box",
    center: Sequence[float] = (0.0, 0.0, 0.0),
    eps: float = 1e-6,
    progress: Callable[[float], object] | None = None,
) -> Complexes:
    """Noise-free samples of every coil at every echo.

    Parameters
    ----------
    trajectory : Trajectory
        The same for all echoes.
    pools : sequence of PoolMap
        On one grid (z, y, x), whose centre lies at the isocentre; it may be finer or coarser than the image.
    voxel_size : float, or three along z, y, x
        Of that grid (m).
    coils : ndarray (coil, z, y, x), optional
        Complex sensitivities on it; one coil of sensitivity 1 without.
    field : ndarray (z, y, x), optional
        Offset of the field of each voxel (Hz).
    dephased : number or ndarray (echo,), optional
        For how long (s) field offsets and R2' have acted at each echo without being refocused: TE of a gradient echo, 0
        of a spin echo. Needed with `field` and `R2_prime`.
    voxels : {"box", "point"}
        A voxel is full to its edges (its Fourier transform a product of sinc functions), or a point at its centre.
    center : three floats
        Where the centre of the grid lies, along x, y, z (m).
    eps : float
        Precision of the Fourier transforms, relative to the norm of the samples, and of the expansion of maps.
    progress : callable (fraction), optional
        Told now and then what part is done.

    Returns
    -------
    ndarray (echo, coil, readout, sample); two dimensions: (echo, coil, slice, readout, sample)
        In units of density x amplitude x m3 (m2 in two dimensions): what `reconstruction` turns into an image in units
        of density x amplitude. A slice of the image is the mean over its thickness, fov/nz, of the object.

    Raises
    ------
    InputError
        No pool, shapes that do not fit, a value that is not finite where there is density, `dephased` missing.
    """
    size = positive_three("k-space", "voxel_size", voxel_size)
    if voxels not in ("box", "point"):
        raise InputError(f"k-space: voxels is {voxels!r}: expected box or point")
    echoes, grid = _checked(pools, coils, field, dephased)
    planar = trajectory.dimensions == 2
    slabs = _slabs(trajectory, grid[0], size[0], float(center[2])) if planar else None
    shape = (trajectory.matrix[0], *grid[1:]) if planar else grid
    fourier = Fourier(trajectory.k, shape, size, eps=eps, box=voxels == "box", center=center, planar=planar)
    spent = np.zeros(echoes) if dephased is None else np.broadcast_to(np.asarray(dephased, float), (echoes,))
    count = 1 if coils is None else len(coils)
    slices = (shape[0],) if planar else ()
    data = np.zeros((echoes, count, *slices, trajectory.readouts, trajectory.samples), complex)
    terms = [(pool, *_term(pool, trajectory.times, spent, field, grid, echoes, eps)) for pool in pools]
    total = count * sum(len(_images(pool)) * expansion.rank for pool, _, expansion, _ in terms)

    def units() -> Iterator[tuple[int, Any, Complexes, Complexes]]:
        """Coil, echoes, factor of the samples and image of each transform."""
        for pool, factor, expansion, inside in terms:
            for which, density in _images(pool):
                for course, weight in zip(expansion.courses, expansion.maps, strict=True):
                    image = np.zeros(grid, complex)
                    image[inside] = density[inside] * weight
                    for coil in range(count):
                        received = image if coils is None else image * coils[coil]
                        seen = received if slabs is None else np.tensordot(slabs, received, 1)
                        yield coil, which, factor[which] * course[which], seen

    workers, done = threads.count(), 0
    with ThreadPoolExecutor(workers) as executor:
        stream = units()
        # as many at a time as there are threads, added in turn: few in memory, and one order of sums
        while batch := list(itertools.islice(stream, workers)):
            for unit, samples in zip(batch, executor.map(fourier.forward, [u[3] for u in batch]), strict=True):
                coil, which, factor, _ = unit
                for echo, course in zip(range(echoes)[which], factor, strict=True):
                    data[echo, coil] += samples * course
            done += len(batch)
            if progress is not None:
                progress(done / total)
    return data


def add_noise(data: Complexes, covariance: Any, rng: np.random.Generator, *, coil_axis: int = 1) -> Complexes:
    """Samples with complex Gaussian noise, independent from sample to sample and correlated between coils.

    Parameters
    ----------
    data : ndarray, two axes at least
        From `acquire`.
    covariance : number or ndarray (coil, coil)
        Of the real parts, which is that of the imaginary parts: the diagonal holds the square of each coil's noise SD
        per real channel. Hermitian where noise is correlated with a phase: the mean of n conj(n') is twice it.
    rng : Generator
    coil_axis : int

    Returns
    -------
    ndarray of the shape of `data`

    Raises
    ------
    InputError
        A covariance that is none: wrong shape, not Hermitian, not positive definite.
    """
    out = np.array(data, complex)
    first = np.moveaxis(out, coil_axis, 0)
    root = cholesky(covariance, len(first))
    # echo by echo, or whatever the next axis is: noise of all of it at once would take twice the memory of the data
    for part in np.moveaxis(first, 1, 0):
        white = rng.standard_normal((*part.shape, 2)).view(complex)[..., 0]
        part += np.tensordot(root, white, 1)
    return out


def cholesky(covariance: Any, coils: int) -> Complexes:
    """Lower triangular root of a covariance of coils, (coil, coil).

    Raises
    ------
    InputError
        As `add_noise`.
    """
    matrix = np.asarray(covariance)
    if matrix.ndim == 0:
        matrix = matrix * np.eye(coils)
    if matrix.shape != (coils, coils):
        raise InputError(f"covariance has shape {matrix.shape}: expected ({coils}, {coils}), one row a coil")
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.conj().T, rtol=1e-9, atol=0):
        raise InputError("covariance is not Hermitian: expected the covariance of the noise of the coils")
    try:
        root: Complexes = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise InputError("covariance is not positive definite: expected noise in every coil") from None
    return root


# -- what a pool does while k-space is read


def _images(pool: PoolMap) -> list[tuple[slice, NDArray[Any]]]:
    """The maps that take a transform each, with the echoes that they serve."""
    if np.ndim(pool.density) == 3:
        return [(slice(None), pool.density)]
    return [(slice(echo, echo + 1), density) for echo, density in enumerate(pool.density)]


def _term(
    pool: PoolMap,
    times: NDArray[np.float64],
    spent: NDArray[np.float64],
    field: NDArray[np.float64] | None,
    grid: tuple[int, ...],
    echoes: int,
    eps: float,
) -> tuple[Complexes, Expansion, NDArray[np.bool_]]:
    """Factor (echo, *times) that all voxels share, expansion of what they do not, and the voxels that have the pool."""
    offset = np.atleast_1d(np.asarray(pool.offset, float))
    amplitude = np.asarray(pool.amplitude, complex)
    amplitude = np.broadcast_to(amplitude.reshape(-1, 1) if amplitude.ndim < 2 else amplitude, (echoes, offset.size))
    factor = np.tensordot(amplitude, np.exp(2j * np.pi * offset.reshape(-1, *[1] * times.ndim) * times), 1)
    since = spent.reshape(-1, *[1] * times.ndim)
    when, before = np.abs(since + times), np.abs(since)
    if callable(pool.R2_prime):
        factor *= np.asarray(pool.R2_prime(when)) / np.asarray(pool.R2_prime(before))
    elif pool.R2_prime:
        factor *= np.exp(-pool.R2_prime * (when - before))
    density = np.asarray(pool.density)
    inside = density != 0 if density.ndim == 3 else np.any(density != 0, axis=0)
    mapped = np.ndim(pool.R2) > 0
    if not mapped and pool.R2:
        factor *= np.exp(-float(pool.R2) * times)
    if (field is None and not mapped) or not inside.any():
        one = np.ones((1, *factor.shape), complex)
        return factor, Expansion(one, np.ones((1, int(inside.sum())), complex), 0.0), inside
    none = np.zeros(int(inside.sum()))
    turning, decaying = since + times, np.broadcast_to(times, factor.shape)
    rate = np.asarray(pool.R2, float)[inside] if mapped else none
    frequency = none if field is None else np.asarray(field, float)[inside]
    return factor, expand(frequency, rate, turning, decaying, precision=eps), inside


def _slabs(trajectory: Trajectory, planes: int, thickness: float, center: float) -> NDArray[np.float64]:
    """Part of each slice that each plane of the object fills, (slice, plane)."""
    slices, wide = trajectory.matrix[0], trajectory.voxel_size[0]
    low = center + (np.arange(planes) - 0.5 * planes) * thickness
    first = (np.arange(slices) - 0.5 * slices)[:, None] * wide
    common = np.minimum(low + thickness, first + wide) - np.maximum(low, first)
    # a sliver of rounding is no overlap
    return np.where(common > 1e-9 * wide, common, 0.0) / wide


# -- what cannot be scanned


def _checked(
    pools: Sequence[PoolMap], coils: NDArray[Any] | None, field: NDArray[Any] | None, dephased: Any
) -> tuple[int, tuple[int, ...]]:
    """Number of echoes, and the grid that all maps share."""
    if not pools:
        raise InputError("k-space: no pools: expected one at least")
    grid = np.shape(pools[0].density)[-3:]
    if len(grid) < 3 or 0 in grid:
        raise InputError(f"k-space: density of pool {pools[0].name} has shape {grid}: expected (z, y, x)")
    counts = {1 if dephased is None else np.size(dephased)}
    for pool in pools:
        where = f"k-space: pool {pool.name}"
        shape, amplitude, peaks = np.shape(pool.density), np.asarray(pool.amplitude), np.size(pool.offset)
        if shape[-3:] != grid or len(shape) not in (3, 4):
            raise InputError(f"{where}: density has shape {shape}: expected {grid}, with echoes first or without")
        if amplitude.ndim > 2 or (amplitude.ndim == 2 and amplitude.shape[1] not in (1, peaks)):
            raise InputError(f"{where}: amplitude has shape {amplitude.shape}: expected (echo,) or (echo, {peaks})")
        if amplitude.ndim < 2 and peaks > 1:
            raise InputError(f"{where}: amplitude has shape {amplitude.shape}: expected (echo, {peaks}), one a peak")
        counts |= {amplitude.shape[0] if amplitude.ndim else 1, shape[0] if len(shape) == 4 else 1}
        if np.ndim(pool.R2) and np.shape(pool.R2) != grid:
            raise InputError(f"{where}: R2 has shape {np.shape(pool.R2)}: expected a number or {grid}")
        for name in ("density", "amplitude", "offset") + (() if np.ndim(pool.R2) else ("R2",)):
            if not np.isfinite(getattr(pool, name)).all():
                raise InputError(f"{where}: {name} is not finite: expected numbers, and 0 where there is none")
        refocused = not callable(pool.R2_prime) and pool.R2_prime == 0
        if dephased is None and not refocused:
            raise InputError(f"{where}: it has R2_prime, and dephased is missing: expected TE, or 0 for a spin echo")
    counts.discard(1)
    if len(counts) > 1:
        raise InputError(f"k-space: {' and '.join(map(str, sorted(counts)))} echoes: expected the same number")
    for name, given in (("coils", coils), ("field", field)):
        if given is None:
            continue
        if np.shape(given)[-3:] != grid or np.ndim(given) != (4 if name == "coils" else 3):
            expected = f"(coil, {', '.join(map(str, grid))})" if name == "coils" else str(grid)
            raise InputError(f"k-space: {name} has shape {np.shape(given)}: expected {expected}")
        if name == "coils" and not np.isfinite(given).all():
            raise InputError("k-space: coils is not finite: expected a sensitivity in every voxel")
    if field is not None and dephased is None:
        raise InputError("k-space: there is a field, and dephased is missing: expected TE, or 0 for a spin echo")
    if dephased is not None and not np.isfinite(np.asarray(dephased, float)).all():
        raise InputError("k-space: dephased is not finite: expected times (s)")
    return max(counts, default=1), grid
