"""Images from a Cartesian k-space, echo trains included: samples to their places, and a Fourier transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ... import threads
from .readout import Trajectory, one_of

Complexes = NDArray[np.complex128]


def transform(data: Complexes, trajectory: Trajectory, *, partial_fourier: str = "zero_filled") -> Complexes:
    """Image of every coil.

    Parameters
    ----------
    data : ndarray (..., readout, sample), or (..., slice, readout, sample) in two dimensions
    trajectory : Trajectory
        ``cartesian`` or ``epi``; lines read backwards are turned round as their k says.
    partial_fourier : {"zero_filled", "homodyne"}
        What stands for lines that were left out: nothing, or their conjugates after the phase of the symmetric part
        has been taken off (and put back).

    Returns
    -------
    ndarray (..., z, y, x)

    Raises
    ------
    InputError
        A trajectory that is not on its grid, data of another shape.

    References
    ----------
    Homodyne: Noll et al., IEEE Trans Med Imaging 10:154 (1991), doi:10.1109/42.79473.
    """
    one_of("reconstruction", "partial_fourier", partial_fourier, ("zero_filled", "homodyne"))
    grid, filled = to_grid(data, trajectory)
    image = to_image(grid, trajectory)
    if partial_fourier == "zero_filled" or filled.all():
        return image
    # as much of each axis as there is on both sides of the centre, and twice the weight where there is one side alone
    low, ramp = np.ones(filled.shape), np.ones(filled.shape)
    for axis in range(3 - trajectory.dimensions, 3):
        n = filled.shape[axis]
        found = np.any(filled, axis=tuple(a for a in range(3) if a != axis))
        line = np.arange(n) - n // 2
        reach = int(min(-line[found].min(), line[found].max()))
        if found.all():
            continue
        sense = 1 if line[found].max() >= -line[found].min() else -1
        shape = [-1 if a == axis else 1 for a in range(3)]
        # a Hann window, whose edge leaves no ripples in the phase; a straight step in weight, which leaves none either
        window = np.where(np.abs(line) <= reach, 0.5 + 0.5 * np.cos(np.pi * line / (reach + 1)), 0.0)
        low = low * window.reshape(shape)
        ramp = ramp * np.clip(1 + sense * line / (reach + 1), 0, 2).reshape(shape)
    phase = np.exp(1j * np.angle(to_image(grid * low, trajectory)))
    return np.real(to_image(grid * ramp, trajectory) * phase.conj()) * phase


def to_grid(data: Complexes, trajectory: Trajectory) -> tuple[Complexes, NDArray[np.bool_]]:
    """Samples at their places, (..., z, y, x) in order of k (slices stay slices), and which places are filled.

    Raises
    ------
    InputError
        As `transform`.
    """
    rest = trajectory.axes_before(data)
    matrix, planar = trajectory.matrix, trajectory.dimensions == 2
    place = trajectory.k * np.array(trajectory.fov[::-1])
    index = np.rint(place).astype(int) + np.array(matrix[::-1]) // 2
    off = np.abs(place - np.rint(place)).max()
    if off > 1e-3 or np.any(index < 0) or np.any(index >= np.array(matrix[::-1])):
        raise InputError(f"reconstruction: trajectory {trajectory.kind} is not on a grid: expected k in steps of 1/fov")
    x, y, z = (index[..., a] for a in range(3))
    out, filled = np.zeros((*rest, *matrix), complex), np.zeros(matrix, bool)
    if planar:
        out[..., y, x] = data
        filled[:, y, x] = True
    else:
        out[..., z, y, x] = data
        filled[z, y, x] = True
    return out, filled


def to_image(grid: Complexes, trajectory: Trajectory) -> Complexes:
    """The discrete form of the integral of grid x exp(-i 2 pi k r) over k, with voxels about the centre."""
    from scipy.fft import fft

    out: Complexes = np.asarray(grid)
    axes = range(3 - trajectory.dimensions, 3)
    for axis in axes:
        n = trajectory.matrix[axis]
        i, shape = np.arange(n), [-1 if a == axis else 1 for a in range(3)]
        centre = 0.5 * (n - 1)
        out = out * np.exp(2j * np.pi * i * centre / n).reshape(shape)
        out = fft(out, axis=axis - 3, workers=threads.count(), overwrite_x=True)
        out *= (np.exp(2j * np.pi * (n // 2) * (i - centre) / n) / trajectory.fov[axis]).reshape(shape)
    return out


def odd_even_phase(data: Complexes, trajectory: Trajectory, phase: Any) -> Complexes:
    """Samples of an echo train whose lines read in opposite senses differ by this phase (rad): half of it each.

    An object then appears with cos(phase/2), and a ghost of it half a field of view away with sin(phase/2).

    Raises
    ------
    InputError
        A trajectory whose lines have no sense.
    """
    if trajectory.polarity is None:
        raise InputError(f"trajectory {trajectory.kind}: its readouts have no polarity: expected epi")
    return data * np.exp(0.5j * phase * trajectory.polarity)[:, None]
