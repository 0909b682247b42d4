"""The field of magnetised voxels by fast convolution, in free space or repeated periodically.

Free space: every voxel is a uniformly magnetised cuboid, and the field at the centre of every other voxel is that of
its eight corners in closed form (Newell, Williams and Dunlop 1993, doi:10.1029/93JB00694, at a point instead of
averaged). Its transform, on a grid of twice the size, is the k-space kernel: nothing wraps around, no copy of the
object acts, and voxels may be of any shape. The continuous kernel sampled on that grid would leave copies.

Periodic: the continuous kernel 1/3 - kz^2/k^2 (Salomir et al. 2003, doi:10.1002/cmr.b.10083; Marques and Bowtell 2005,
doi:10.1002/cmr.b.20034), exact for copies without end of a band-limited map. What k = 0 means is a choice, that of the
outer surface; it is 0, a spherical one.

Both are real, and even or odd along each axis, so that one octant describes them; its transforms are of cosine and sine
type. Axes are padded one at a time: the largest array is padded along two axes only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import threads

BLOCK_BYTES = 8e6  # of one thread's share of the work; fixed, so that no bit depends on the number of threads
# The mixed parts of the kernel, and the axes (of z, y, x) along which they are odd.
PAIRS = {("x", "y"): (2, 1), ("x", "z"): (2, 0), ("y", "z"): (1, 0)}
EVEN = ("", "")

Kernel = dict[tuple[str, str], np.ndarray]


def lengths(shape: Sequence[int], periodic: bool) -> tuple[int, ...]:
    """Lengths of the transforms along z, y, x."""
    if periodic:
        return tuple(shape)
    from scipy.fft import next_fast_len

    return tuple(2 * next_fast_len(n) for n in shape)


def mixed(direction: Sequence[float]) -> list[tuple[str, str]]:
    """The mixed parts of the kernel that a field along `direction` (x, y, z) needs."""
    part = dict(zip("xyz", direction, strict=True))
    return [name for name in PAIRS if part[name[0]] * part[name[1]] != 0]


def bytes_needed(shape: Sequence[int], direction: Sequence[float], periodic: bool, dtype: np.dtype) -> float:
    """Memory at the peak: map, result, the transform padded along two axes, the octants of the kernel, the blocks."""
    padded = lengths(shape, periodic)
    spectrum = 2 * shape[0] * padded[1] * (padded[2] // 2 + 1)
    octant = math.prod(n // 2 + 1 for n in padded)
    plane = 8 * 8 * max(padded[1] * padded[2], padded[0] * padded[2])
    held = 2 * math.prod(shape) + spectrum + (1 + len(mixed(direction))) * octant
    return dtype.itemsize * held + 6 * threads.count() * max(BLOCK_BYTES, plane)


def free_kernel(
    padded: Sequence[int], voxel_size: Sequence[float], direction: Sequence[float], dtype: np.dtype
) -> Kernel:
    """Spectrum of the cuboids' field in free space: the even part and the mixed ones, an octant (z, y, x) each."""
    size = np.asarray(voxel_size, dtype=float) / max(voxel_size)
    corner = [(np.arange(n // 2 + 2) - 0.5) * edge for n, edge in zip(padded, size, strict=True)]
    shape = tuple(n // 2 + 1 for n in padded)
    kernel = {name: np.empty(shape, dtype) for name in [EVEN, *mixed(direction)]}
    x, y = corner[2][None, None, :], corner[1][None, :, None]
    bx, by, bz = direction

    def rows(first: int, last: int) -> None:
        z = corner[0][first : last + 1, None, None]
        r = np.sqrt(x * x + y * y + z * z)
        total = np.zeros(r.shape)
        for share, along, one, other in ((bx, x, y, z), (by, y, x, z), (bz, z, x, y)):
            if share:
                total -= share**2 * np.arctan(one * other / (along * r))
        kernel[EVEN][first:last] = _box(total)
        for name, share, along, one, other in (
            (("x", "y"), bx * by, z, x, y), (("x", "z"), bx * bz, y, x, z), (("y", "z"), by * bz, x, y, z)
        ):  # fmt: skip
            if name in kernel:
                kernel[name][first:last] = _box(2 * share * np.arcsinh(along / np.hypot(one, other)))

    threads.each_block(shape[0], rows, _per_block(8 * 8 * shape[1] * shape[2]))
    kernel[EVEN][0, 0, 0] += 1 / 3  # inside its own voxel: B instead of H, less the Lorentz sphere
    for name, part in kernel.items():
        odd = PAIRS.get(name, ())
        _symmetric_transform(part, [axis in odd for axis in range(3)])
        if odd:
            part *= -1  # i squared, of two sines
    return kernel


def periodic_kernel(
    padded: Sequence[int], voxel_size: Sequence[float], direction: Sequence[float], dtype: np.dtype
) -> Kernel:
    """The continuous kernel at the wave numbers of a periodic box; parts and octants as in `free_kernel`."""
    edge = max(voxel_size)
    axes = [np.arange(n // 2 + 1) / (n * size / edge) for n, size in zip(padded, voxel_size, strict=True)]
    wave = dict(zip("zyx", np.ix_(*axes), strict=True))
    share = dict(zip("xyz", direction, strict=True))
    square = wave["x"] ** 2 + wave["y"] ** 2 + wave["z"] ** 2
    square[0, 0, 0] = 1.0
    even = 1 / 3 - sum(share[a] ** 2 * wave[a] ** 2 for a in "xyz") / square
    even[0, 0, 0] = 0.0
    kernel = {EVEN: even.astype(dtype)}
    for name in mixed(direction):
        a, b = name
        part = -2 * share[a] * share[b] * wave[a] * wave[b] / square
        for axis in PAIRS[name]:
            if padded[axis] % 2 == 0:  # the highest frequency has no sign, and an odd part none of it
                part[(slice(None),) * axis + (-1,)] = 0.0
        kernel[name] = part.astype(dtype)
    return kernel


def convolve(chi: np.ndarray, kernel: Kernel, padded: Sequence[int]) -> np.ndarray:
    """`chi` (z, y, x), padded by zeros to `padded`, times the kernel in k-space; the voxels of `chi` alone."""
    from scipy import fft

    (nz, ny, nx), (mz, my, mx) = chi.shape, padded
    half = mx // 2 + 1
    complex_type = np.result_type(chi.dtype, np.complex64)
    spectrum = np.empty((nz, my, half), complex_type)
    shift = np.empty(chi.shape, chi.dtype)

    def forward(first: int, last: int) -> None:
        along_x = fft.rfft(chi[first:last], n=mx, axis=2)
        spectrum[first:last] = fft.fft(along_x, n=my, axis=1, overwrite_x=True)

    def multiply(first: int, last: int) -> None:
        column = fft.fft(spectrum[:, first:last], n=mz, axis=0)
        for rows, sign_y in ((slice(first, min(last, my // 2 + 1)), 1), (slice(max(first, my // 2 + 1), last), -1)):
            if rows.start >= rows.stop:
                continue
            inside = slice(rows.start - first, rows.stop - first)
            stored = rows if sign_y > 0 else np.arange(my - rows.start, my - rows.stop, -1)
            part = {name: values[:, stored] for name, values in kernel.items()}
            for planes, octant, sign_z in (
                (slice(0, mz // 2 + 1), slice(None), 1), (slice(mz // 2 + 1, mz), slice((mz - 1) // 2, 0, -1), -1)
            ):  # fmt: skip
                sign = {("x", "y"): sign_y, ("x", "z"): sign_z, ("y", "z"): sign_y * sign_z}
                factor = part[EVEN][octant]
                for name in part:
                    if name != EVEN:
                        factor = factor + sign[name] * part[name][octant]
                column[planes, inside] *= factor
        spectrum[:, first:last] = fft.ifft(column, axis=0, overwrite_x=True)[:nz]

    def back(first: int, last: int) -> None:
        along_y = fft.ifft(spectrum[first:last], axis=1)[:, :ny]
        shift[first:last] = fft.irfft(along_y, n=mx, axis=2)[:, :, :nx]

    item = np.dtype(complex_type).itemsize
    threads.each_block(nz, forward, _per_block(item * my * half))
    threads.each_block(my, multiply, _per_block(item * mz * half))
    threads.each_block(nz, back, _per_block(item * my * half))
    return shift


def _box(corner: np.ndarray) -> np.ndarray:
    """The corners of each voxel with their signs, over 4 pi."""
    for axis in (2, 1, 0):
        corner = np.diff(corner, axis=axis)
    return corner / (4 * np.pi)


def _per_block(bytes_each: float) -> int:
    return max(1, int(BLOCK_BYTES / bytes_each))


def _symmetric_transform(part: np.ndarray, odd: Sequence[bool]) -> None:
    """Transform in place the octant of an array that is even (cosines) or `odd` (sines) along each axis."""
    from scipy import fft

    def along(axis: int, view: np.ndarray) -> np.ndarray:
        if not odd[axis]:
            return fft.dct(view, type=1, axis=axis)
        out = np.zeros_like(view)  # an odd part is 0 at its first and last sample
        if view.shape[axis] > 2:
            inner = (slice(None),) * axis + (slice(1, -1),)
            out[inner] = fft.dst(view[inner], type=1, axis=axis)
        return out

    def planes(first: int, last: int) -> None:
        part[first:last] = along(1, along(2, part[first:last]))

    def columns(first: int, last: int) -> None:
        part[:, first:last] = along(0, part[:, first:last])

    threads.each_block(part.shape[0], planes, _per_block(part.itemsize * part.shape[1] * part.shape[2]))
    threads.each_block(part.shape[1], columns, _per_block(part.itemsize * part.shape[0] * part.shape[2]))
