"""How the field changes across a voxel, from the field map itself."""

from __future__ import annotations

import numpy as np

STEP = 30.0
"""Hz from voxel to voxel, by which the slopes on either side may differ before the field is called broken there."""


def slopes(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Difference of the field from one face of a voxel to the other, along each axis, (voxel, axis).

    Parameters
    ----------
    field : ndarray, (...)
        In Hz, without jumps of a period.
    mask : ndarray of bool, (...)
        Where it is known.

    Returns
    -------
    ndarray, (voxel, axis)
        In Hz, over the flat order of the image. The mean of the slopes to either side; where they differ by a step of
        the field, the smaller; where one neighbour is missing, the other; 0 without neighbours.
    """
    known = mask & np.isfinite(field)
    out = np.zeros((*field.shape, field.ndim))
    for axis in range(field.ndim):
        rise = np.full(field.shape, np.nan)
        left, right = _sides(axis, field.ndim)
        both = known[left] & known[right]
        rise[left] = np.where(both, np.where(both, field[right], 0.0) - np.where(both, field[left], 0.0), np.nan)
        before = np.full(field.shape, np.nan)
        before[right] = rise[left]
        one = np.where(np.isfinite(rise), rise, before)
        other = np.where(np.isfinite(before), before, rise)
        smaller = np.where(np.abs(one) < np.abs(other), one, other)
        with np.errstate(invalid="ignore"):
            slope = np.where(np.abs(one - other) > STEP, smaller, 0.5 * (one + other))
        out[..., axis] = np.where(np.isfinite(slope), slope, 0.0)
    return out.reshape(-1, field.ndim)


def _sides(axis: int, ndim: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All voxels but the last, and all but the first, along an axis."""
    whole = [slice(None)] * ndim
    left, right = list(whole), list(whole)
    left[axis], right[axis] = slice(None, -1), slice(1, None)
    return tuple(left), tuple(right)
