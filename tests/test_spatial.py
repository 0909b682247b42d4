"""A spatial estimator: its core sees the whole image and the mask, never a list of voxels."""

import numpy as np
import pytest
import xarray as xr

from bonemri import estimators
from bonemri.errors import InputError
from bonemri.simulator import equations


def test_a_spatial_core_gets_the_image_and_the_mask(tmp_path):
    seen = {}

    @estimators.estimator(
        name="smooth-adc",
        title="ADC of the mean over neighbours in x",
        modality="diffusion",
        model=equations.mono_exponential,
        quantities={"adc": ("mm2/s", "apparent diffusion coefficient")},
        source="a test",
        claims=tmp_path / "none.toml",
        encoding="b",
        spatial=True,
    )
    def smooth(data, protocol, sigma, intervals, *, mask, width=1):
        seen.update(shape=data.shape, mask=mask, width=width)
        mean = np.stack([np.roll(data, k, axis=2) for k in range(-width, width + 1)]).mean(axis=0)
        adc = np.log(mean[..., 0] / mean[..., 1]) / np.ptp(protocol["b"])
        return {"adc": adc, "adc_sd": np.zeros(adc.shape), "status": np.zeros(adc.shape, np.uint16)}

    b = np.array([0.0, 500.0])
    adc = np.linspace(1e-4, 1e-3, 4)
    image = np.exp(-b * np.tile(adc, (2, 3, 1))[..., None])
    scan = xr.DataArray(image, dims=("z", "y", "x", "b"), coords={"b": b})
    mask = np.ones((2, 3, 4), bool)
    mask[0] = False
    maps = smooth(scan, mask=mask, width=1)
    assert seen["shape"] == (2, 3, 4, 2) and seen["width"] == 1
    np.testing.assert_array_equal(seen["mask"], mask)
    assert list(smooth.options) == ["width"]  # the mask is not the user's option
    neighbours = np.stack([np.roll(image, k, axis=2) for k in (-1, 0, 1)]).mean(axis=0)
    np.testing.assert_allclose(maps.adc[1], (np.log(neighbours[..., 0] / neighbours[..., 1]) / 500.0)[1], rtol=1e-12)
    assert np.isnan(maps.adc[0]).all() and (maps.status[0] == estimators.Status.OUTSIDE_MASK).all()
    with pytest.raises(InputError, match="mask has shape"):
        smooth(scan, mask=np.ones((2, 3, 5)))
