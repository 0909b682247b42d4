"""A field that is known modulo a period only: whole periods are added so that it runs on from voxel to voxel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.estimators import field_map
from bonemri.simulator import kernels

PERIOD = 800.0


def unwrapped(image, mask=None):
    """An image of the field, (z, y, x), in Hz; what lies outside the mask is no neighbour."""
    mask = np.ones(image.shape, bool) if mask is None else mask
    folder = Path(field_map.__file__).parent
    number = np.full(image.shape, -1, np.int32)
    number[mask] = np.arange(mask.sum())
    beside = np.full((mask.sum(), 6), -1, np.int32)
    kernels.compiled(folder / "labels.py").neighbours(number, beside)
    field = image[mask].astype(float)
    room = np.zeros(field.size, np.int64), np.zeros(field.size, np.int64)
    kernels.compiled(folder / "sheets.py").unwrap(field, beside, PERIOD, *room)
    out = np.full(image.shape, np.nan)
    out[mask] = field
    return out


def wrapped(field):
    return field - PERIOD * np.rint(field / PERIOD)


@given(seed=st.integers(0, 2**32 - 1), slope=st.floats(-300, 300), rows=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_a_field_without_large_steps_comes_back(seed, slope, rows):
    """Steps below half a period leave one way to run on; the mean is told to a whole period."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :17]
    field = (slope * x + 40 * np.sin(y) + rng.uniform(-20, 20, y.shape))[None]
    field -= field.mean()
    np.testing.assert_allclose(unwrapped(wrapped(field)), field, atol=1e-9)


@pytest.mark.parametrize("off", [0.5 * PERIOD - 1, -0.5 * PERIOD + 1, 0.45 * PERIOD])
def test_voxels_that_stand_half_a_period_off_send_nobody_round(off):
    """Two of a hundred are swapped: what lies beyond them keeps its field."""
    rng = np.random.default_rng(3)
    field = rng.normal(0, 25, (4, 32, 32))
    swapped = rng.random(field.shape) < 0.02
    found = unwrapped(wrapped(np.where(swapped, field + off, field)))
    np.testing.assert_allclose(found[~swapped], field[~swapped], atol=1e-9)


def test_islands_are_told_apart():
    """Each has its own mean nearest to 0, whatever the other's."""
    field = np.zeros((1, 8, 20))
    mask = np.ones(field.shape, bool)
    mask[..., 9:11] = False
    field[..., :9], field[..., 11:] = 3 * PERIOD + 30.0, -2 * PERIOD - 50.0
    found = unwrapped(field, mask)
    np.testing.assert_allclose(found[0, :, :9], 30.0, atol=1e-9)
    np.testing.assert_allclose(found[0, :, 11:], -50.0, atol=1e-9)
    assert np.isnan(found[0, :, 9:11]).all()
