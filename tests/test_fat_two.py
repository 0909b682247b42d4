"""Two echoes: which of two images, the one or its exchange, and when it is called ambiguous."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import estimators, phantoms, simulator
from bonemri.errors import InputError
from bonemri.estimators import Status, fat_exchange
from bonemri.estimators.fat_exchange import Candidates, Pairs, Steps
from bonemri.estimators.fat_train import Train
from bonemri.simulator import protocols, tissues, water_fat

OPPOSED, IN_PHASE = 1.15e-3, 2.30e-3
AMBIGUOUS = np.uint16(Status.AMBIGUOUS)


def signal(pdff, field, times, r2star=0.0, b0=3.0, spectrum="fat_marrow"):
    """Of one phase, (..., point)."""
    c = water_fat.fat_signal(np.array(times), b0, water_fat.spectrum_of(spectrum), tissues.water_shift())
    p, psi, rate = (np.asarray(v, float)[..., None] for v in (pdff, field, r2star))
    return (1 - p + p * c) * np.exp((2j * np.pi * psi - rate) * np.array(times) + 0.4j)


def image(data, times, b0=3.0, **attrs):
    """As a user would hand it over: (z, y, x, echo)."""
    data = data.reshape(*(1,) * (4 - data.ndim), *data.shape)
    named = {"field_strength": b0, "temperature": tissues.BODY_TEMPERATURE, **attrs}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": list(times)}, attrs=named)


def noisy(data, snr, rng):
    return data + (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape)) / snr


def smooth(rng, shape, width, sd=1.0):
    """A random image of that SD, smooth over so many voxels."""
    from scipy import ndimage

    made = ndimage.gaussian_filter(rng.normal(size=shape), width, mode="wrap")
    return sd * (made - made.mean()) / made.std()


def tissue(rng, n=48):
    """Muscle and fat whose borders run through voxels: averaged from a grid four times as fine."""
    fine = np.where(smooth(rng, (4 * n, 4 * n), 16) > 0, 0.02, 0.95)
    return fine.reshape(n, 4, n, 4).mean(axis=(1, 3))


def swapped(maps, field, times):
    """Where the exchanged image was taken: its field is half a period or so from the true one."""
    period = 1 / abs(times[1] - times[0])
    off = (maps.fieldmap.values.reshape(np.shape(field)) - field + period / 2) % period - period / 2
    return np.abs(off) > period / 5


def ambiguous(maps, shape):
    return (maps.status.values.reshape(shape) & AMBIGUOUS) > 0


# ---- without doubt


@pytest.fixture(scope="module")
def regions():
    """Fat about muscle and a stripe of half and half, in a field that bends by 100 Hz: pdff and Hz, (40, 40)."""
    y, x = np.mgrid[0:40, 0:40] / 40
    pdff = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, 0.1, 0.9)
    pdff[20:22] = 0.5
    return pdff, 60 * np.sin(3 * x) + 40 * y - 20


@pytest.mark.parametrize("times", [[1.171e-3, 2.342e-3], [1.3e-3, 2.1e-3], [2.342e-3, 1.171e-3]])
def test_errors_cover(regions, times):
    """No swap although each voxel alone has two solutions; errors cover in noise, which a smoothed field hides from."""
    pdff, field = regions
    clean = signal(pdff, field, times)
    maps = estimators.dixon_2pt(image(clean, times), sigma=1e-3, field_range=200)
    # the field is averaged over a voxel's neighbours: what its curvature leaves enters in second order
    assert np.abs(maps.pdff.values[0] - pdff).max() < 0.005
    assert not ambiguous(maps, pdff.shape).any()
    some = image(noisy(clean, 50, np.random.default_rng(0)), times)
    found = estimators.dixon_2pt(some, sigma=0.02, field_range=200)
    covered = np.abs(found.pdff.values[0] - pdff) < 1.96 * found.pdff_sd.values[0]
    assert 0.95 - 0.02 < covered.mean() < 0.95 + 0.02  # three times sqrt(.05 .95 / 1600), and a little
    assert np.isnan(estimators.dixon_2pt(image(clean, times)).pdff_sd).all()
