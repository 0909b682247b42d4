"""The magnetic field that susceptibility causes, and what it does to the spins of a voxel.

Assumptions: every voxel is a uniformly magnetised box, |chi| is small (first order: a body does not magnetise its
neighbours), and the spin sees the field of its surroundings with the Lorentz sphere taken out. The shift along B0 is
then a convolution of chi with the field of one box, done with FFTs [1]_ [2]_.

- In free space the grid is zero-padded to twice its size, so that no periodic copy is felt, and the kernel is the
  field of a box itself: in closed form nearby [3]_, that of a point dipole beyond `_NEAR` edges, where the two differ
  by less than a tenth of a per cent of the box's own field there. The kernel is even or odd along each axis: its
  transform is a cosine or sine transform of one octant, an eighth of the work.
- With ``periodic=True`` the grid repeats without end, and the kernel is 1/3 - cos^2 of the angle between k and B0.

References
----------
.. [1] Salomir 2003, Concepts Magn Reson B 19:26, doi:10.1002/cmr.b.10083.
.. [2] Marques and Bowtell 2005, Concepts Magn Reson B 25:65, doi:10.1002/cmr.b.20034.
.. [3] Aharoni 1998, J Appl Phys 83:3432, doi:10.1063/1.367113.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .. import threads
from ..nuclei import GYROMAGNETIC_RATIO

_NEAR = 12  # edges of a box within which its field is not yet that of a dipole
_COLUMNS = 16  # columns of the spectrum in work at a time


def field(
    chi: Any,
    voxel_size: Sequence[float],
    *,
    direction: Sequence[float] = (0.0, 0.0, 1.0),
    outside: float | None = None,
    periodic: bool = False,
) -> np.ndarray:
    """Relative field shift at the middle of every voxel.

    Parameters
    ----------
    chi : array, (z, y, x)
        Volume susceptibility (ppm, SI).
    voxel_size : sequence of float
        Edges of a voxel along z, y, x (any unit; their ratio matters).
    direction : sequence of float
        Direction of B0 as (x, y, z); any length.
    outside : float, optional
        Susceptibility (ppm) of everything beyond the grid; default the mean of `chi`.
    periodic : bool
        The grid repeats in all directions, instead of lying alone in space; its mean shift is then zero.

    Returns
    -------
    ndarray (z, y, x), float32
        Shift of the field over B0 (ppm), Lorentz-corrected, relative to that of the uniform medium `outside`.

    Raises
    ------
    InputError
        `chi` is no finite array of three dimensions, a voxel edge is not positive, B0 has no direction, or
        `outside` is given for a periodic grid.
    """
    chi, size, towards = _checked(chi, voxel_size, direction)
    if periodic:
        if outside is not None:
            raise InputError(f"susceptibility: outside is {outside!r} on a periodic grid, which has no outside")
        return _periodic(chi, size, towards)
    outside = float(chi.mean()) if outside is None else float(outside)
    if not math.isfinite(outside):
        raise InputError(f"susceptibility: outside is {outside!r}, should be a susceptibility in ppm")
    return _alone((chi - outside).astype(np.float32), size, towards)


def to_hertz(shift: Any, field_strength: float, nucleus: str = "1H") -> np.ndarray:
    """Frequency offset (Hz) of a relative field shift (ppm) at `field_strength` (T); positive turns faster."""
    if not (math.isfinite(field_strength) and field_strength > 0):
        raise InputError(f"susceptibility: field_strength is {field_strength!r}, should be a field in T, such as 3.0")
    return np.asarray(shift) * np.float32(GYROMAGNETIC_RATIO[nucleus] * field_strength * 1e-6)


def coherence(
    offset: Any, weight: Any, factor: int | Sequence[int], times: Any, *, remove_gradient: bool = False
) -> np.ndarray:
    """What dephasing leaves of the signal of coarse voxels, at each time after excitation.

    Parameters
    ----------
    offset : array, (z, y, x)
        Frequency offset (Hz) on the fine grid.
    weight : array, (z, y, x)
        Spins of each fine voxel (any unit, not negative).
    factor : int or three int
        Fine voxels of a coarse one along z, y, x; each must divide the grid.
    times : array, (time,)
        Times (s).
    remove_gradient : bool
        First take out the mean and the linear slope of the offset over each coarse voxel: what a neighbour
        voxel can tell, and a correction could remove; the rest is the structure's own.

    Returns
    -------
    ndarray (z, y, x, time), complex
        Weighted mean of exp(i 2 pi offset t); NaN where a coarse voxel holds no spins.
    """
    offset, weight, steps = _fine(offset, weight, factor)
    times = np.atleast_1d(np.asarray(times, dtype=float))
    count = tuple(n // step for n, step in zip(offset.shape, steps, strict=True))
    left = np.full((*count, times.size), np.nan, dtype=complex)
    for place, f, w in _blocks(offset, weight, steps):
        total = w.sum()
        if total > 0:
            f = _without_gradient(f, w) if remove_gradient else f
            spin, share = f.ravel()[w.ravel() > 0], w.ravel()[w.ravel() > 0] / total
            left[place] = [np.dot(share, np.exp(2j * np.pi * t * spin)) for t in times]
    return left


def distribution(offset: Any, weight: Any, factor: int | Sequence[int], edges: Any) -> np.ndarray:
    """Share of a coarse voxel's spins in each bin of frequency.

    Parameters
    ----------
    offset, weight, factor
        As in :func:`coherence`.
    edges : array, (bin + 1,)
        Rising edges of the bins (Hz).

    Returns
    -------
    ndarray (z, y, x, bin)
        Shares; they sum to one where all spins lie within the edges. NaN where a coarse voxel holds no spins.
    """
    offset, weight, steps = _fine(offset, weight, factor)
    edges = np.asarray(edges, dtype=float)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise InputError("susceptibility: edges should be two or more rising frequencies (Hz)")
    count = tuple(n // step for n, step in zip(offset.shape, steps, strict=True))
    shares = np.full((*count, edges.size - 1), np.nan)
    for place, f, w in _blocks(offset, weight, steps):
        if w.sum() > 0:
            shares[place] = np.histogram(f, edges, weights=w)[0] / w.sum()
    return shares


def reversible_rate(times: Any, left: Any) -> np.ndarray:
    """R2' (1/s): the slope of -log|coherence| over `times` by least squares, along the last axis.

    It is a number of the times as much as of the structure: early on the decay is quadratic, and only beyond
    about 1.5 over the characteristic frequency is it exponential (Yablonskiy and Haacke 1994, Magn Reson Med
    32:749, doi:10.1002/mrm.1910320610).
    """
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or t.size < 2 or np.shape(left)[-1] != t.size:
        raise InputError("susceptibility: a rate needs two or more times, and as many values of the coherence")
    t = t - t.mean()
    return -(np.log(np.abs(left)) * t).sum(axis=-1) / (t * t).sum()


# ---- the convolution ---------------------------------------------------------------------------------------------


def _periodic(chi: np.ndarray, size: np.ndarray, towards: np.ndarray) -> np.ndarray:
    from scipy import fft

    workers = threads.count()
    spectrum = fft.rfftn((chi - chi.mean()).astype(np.float32), workers=workers)
    axes = [fft.fftfreq(n, edge) for n, edge in zip(chi.shape[:2], size[:2], strict=True)]
    axes.append(fft.rfftfreq(chi.shape[2], size[2]))
    for z, plane in zip(axes[0], spectrum, strict=True):  # plane by plane: no second grid of k stands in memory
        along = towards[0] * z + towards[1] * axes[1][:, None] + towards[2] * axes[2]
        square = z**2 + axes[1][:, None] ** 2 + axes[2] ** 2
        plane *= (1 / 3 - np.divide(along**2, square, out=np.zeros_like(square), where=square > 0)).astype(np.float32)
    spectrum[0, 0, 0] = 0
    return fft.irfftn(spectrum, s=chi.shape, workers=workers)


def _alone(chi: np.ndarray, size: np.ndarray, towards: np.ndarray) -> np.ndarray:
    from scipy import fft

    workers = threads.count()
    # Even lengths of at least twice the grid less one: then no voxel feels a copy.
    half = tuple(fft.next_fast_len(n, real=True) for n in chi.shape)
    length = tuple(2 * n for n in half)
    spectra = list(_kernels(chi.shape, half, size, towards))
    columns = fft.rfft(chi, length[2], axis=2, workers=workers)
    columns = fft.fft(columns, length[1], axis=1, workers=workers)
    index, sign = zip(*(_mirror(n) for n in length[:2]), strict=True)
    for first in range(0, half[2] + 1, _COLUMNS):
        part = np.s_[first : first + _COLUMNS]
        block = fft.fft(columns[:, :, part], length[0], axis=0, workers=workers)
        kernel = np.zeros(block.shape, np.float32)
        for spectrum, odd in spectra:
            mirrored = spectrum[:, :, part][index[0]][:, index[1]]
            for axis in (0, 1):
                if odd[axis]:
                    mirrored *= sign[axis].reshape([-1 if each == axis else 1 for each in range(3)])
            kernel += mirrored
        block *= kernel
        columns[:, :, part] = fft.ifft(block, axis=0, workers=workers)[: chi.shape[0]]
    rows = fft.ifft(columns, axis=1, workers=workers)[:, : chi.shape[1]]
    return np.ascontiguousarray(fft.irfft(rows, length[2], axis=2, workers=workers)[:, :, : chi.shape[2]])


def _mirror(length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each frequency of an FFT of even `length`: its place in the half spectrum, and the sign of an odd part."""
    frequency = np.arange(length)
    upper = frequency > length // 2
    return np.where(upper, length - frequency, frequency), np.where(upper, -1.0, 1.0).astype(np.float32)


def _kernels(
    shape: tuple[int, ...], half: tuple[int, ...], size: np.ndarray, towards: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[bool, bool, bool]]]:
    """Spectrum of each part of the box's field that B0 sees, over one octant of k, and along which axes it is odd."""
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        share = towards[i] * towards[j] * (1 if i == j else 2)
        if abs(share) < 1e-12:
            continue
        octant = _box(shape, half, size, i, j) * share
        odd = tuple(i != j and axis in (i, j) for axis in range(3))
        yield _transform(octant, odd), (odd[0], odd[1], odd[2])


def _transform(octant: np.ndarray, odd: tuple[bool, ...]) -> np.ndarray:
    """FFT of the even and odd continuation of an octant, itself over an octant; two odd axes make it real."""
    from scipy import fft

    workers = threads.count()
    for axis, is_odd in enumerate(odd):
        if is_odd:
            inner = [slice(None)] * 3
            inner[axis] = slice(1, -1)
            octant[tuple(inner)] = fft.dst(octant[tuple(inner)], type=1, axis=axis, workers=workers)
            for end in (0, -1):
                inner[axis] = end
                octant[tuple(inner)] = 0
        else:
            octant = fft.dct(octant, type=1, axis=axis, workers=workers)
    return (-octant if any(odd) else octant).astype(np.float32)


def _box(shape: tuple[int, ...], half: tuple[int, ...], size: np.ndarray, i: int, j: int) -> np.ndarray:
    """Field along axis `i` of a box of unit susceptibility magnetised along `j`, at displacements of 0 to `half`."""
    octant = np.zeros(tuple(n + 1 for n in half))
    z, y, x = (np.arange(n) * edge for n, edge in zip(shape, size, strict=True))
    volume = float(np.prod(size))
    inside = octant[: shape[0], : shape[1], : shape[2]]
    position = (z[:, None, None], y[:, None], x)
    for k in range(shape[0]):  # slice by slice, to keep the temporaries small
        here = (z[k], y[:, None], x)
        square = here[0] ** 2 + here[1] ** 2 + here[2] ** 2
        with np.errstate(divide="ignore", invalid="ignore"):  # the box itself, which the closed form fills in
            inside[k] = volume / (4 * np.pi) * (3 * here[i] * here[j] / square - (i == j)) / square**1.5
    near = tuple(min(n, math.ceil(_NEAR * size.max() / edge)) for n, edge in zip(shape, size, strict=True))
    inside[: near[0], : near[1], : near[2]] = _prism(
        tuple(p[tuple(slice(n) for n in near[3 - p.ndim :])] for p in position), size, i, j
    )
    return octant


def _prism(position: tuple[np.ndarray, ...], size: np.ndarray, i: int, j: int) -> np.ndarray:
    """Closed form of the box's field, Lorentz sphere taken out of the box itself."""
    total: Any = 0.0
    for signs in itertools.product((-1, 1), repeat=3):
        corner = [p + s * edge / 2 for p, s, edge in zip(position, signs, size, strict=True)]
        distance = np.sqrt(corner[0] ** 2 + corner[1] ** 2 + corner[2] ** 2)
        if i == j:
            others = [corner[axis] for axis in range(3) if axis != i]
            term = -np.arctan2(others[0] * others[1], corner[i] * distance)
            # arctan, not its continuation: the corner may lie on either side of the observer
            term = np.where(corner[i] < 0, term + np.where(others[0] * others[1] >= 0, np.pi, -np.pi), term)
        else:
            third = corner[3 - i - j]
            term = np.log(third + distance)
        total = total + math.prod(signs) * term
    found = total / (4 * np.pi)
    if i == j:
        found = found + np.where(np.logical_and.reduce(np.broadcast_arrays(*[p == 0 for p in position])), 1 / 3, 0.0)
    return np.asarray(found)


# ---- checks and blocks -------------------------------------------------------------------------------------------


def _checked(chi: Any, voxel_size: Any, direction: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chi = np.asarray(chi)
    if chi.ndim != 3 or chi.size == 0 or not np.issubdtype(chi.dtype, np.floating):
        raise InputError(f"susceptibility: chi has shape {chi.shape} of {chi.dtype}, should be numbers (z, y, x)")
    if not np.isfinite(chi).all():
        raise InputError("susceptibility: chi holds values that are not finite; give voxels without tissue that of air")
    size, towards = (np.asarray(each, dtype=float) for each in (voxel_size, direction))
    if size.shape != (3,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise InputError(f"susceptibility: voxel_size is {voxel_size!r}, should be three lengths (z, y, x) above 0")
    length = float(np.linalg.norm(towards)) if towards.shape == (3,) else 0.0
    if not (math.isfinite(length) and length > 0):
        raise InputError(f"susceptibility: direction is {direction!r}, should be a vector (x, y, z) along B0")
    return chi, size, towards[::-1] / length


def _fine(offset: Any, weight: Any, factor: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    offset, weight = np.asarray(offset, dtype=float), np.asarray(weight, dtype=float)
    if offset.ndim != 3 or offset.shape != weight.shape:
        raise InputError(f"susceptibility: offset {offset.shape} and weight {weight.shape} should be one grid (z, y, x)")
    if not (np.isfinite(offset).all() and np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError("susceptibility: offset and weight should be finite, and no weight negative")
    steps = tuple(factor) if isinstance(factor, Sequence) else (factor,) * 3
    whole = len(steps) == 3 and all(isinstance(step, (int, np.integer)) and step >= 1 for step in steps)
    if not whole or any(n % step for n, step in zip(offset.shape, steps, strict=True)):
        raise InputError(f"susceptibility: factor is {factor!r}, should divide the grid {offset.shape} into whole voxels")
    return offset, weight, steps


def _blocks(
    offset: np.ndarray, weight: np.ndarray, steps: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
    for place in np.ndindex(*(n // step for n, step in zip(offset.shape, steps, strict=True))):
        part = tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, steps, strict=True))
        yield place, offset[part], weight[part]


def _without_gradient(offset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Offset less its weighted least-squares plane."""
    grid = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in offset.shape), indexing="ij")
    design = np.stack([np.ones(offset.size), *(axis.ravel() for axis in grid)], axis=1)
    root = np.sqrt(weight.ravel())
    plane = np.linalg.lstsq(design * root[:, None], offset.ravel() * root, rcond=None)[0]
    return offset - (design @ plane).reshape(offset.shape)
