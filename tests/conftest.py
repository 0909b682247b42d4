"""What the tests share: the reference data, small scans, and one place for the cache of compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings

from bonemri import phantoms

# A run is the same every time, so that a change is what made it fail. With BONEMRI_SEED=N in the environment the tests
# draw anew: hypothesis its examples, and those that ask for `drawn` their seeds.
SEED = os.environ.get("BONEMRI_SEED", "")
settings.register_profile("the same every time", derandomize=not SEED)
settings.load_profile("the same every time")

ROOT = Path(__file__).resolve().parent.parent
B = (0.0, 10.0, 20.0, 30.0, 50.0, 80.0, 100.0, 200.0, 400.0, 600.0, 800.0)

# Coarser than anybody would scan: the table is over the registry, and asks that each phantom goes out whole.
COARSE = {
    "vertebra": {"resolution": 6e-3}, "spine": {"resolution": 6e-3}, "cortical": {"resolution": 2e-3},
    "trabecular": {"size": 2e-3, "resolution": 80e-6}, "femur": {"resolution": 6e-3}, "calcaneus": {"resolution": 6e-3},
    "tendon": {"resolution": 2e-3}, "vials": {"resolution": 4e-3},
}  # fmt: skip


@pytest.fixture(scope="session", params=list(phantoms.registry))
def any_bone(request) -> phantoms.Phantom:
    """Each registered phantom in turn."""
    return phantoms.get(request.param)(**COARSE.get(request.param, {}))


@pytest.fixture
def drawn() -> int:
    """A seed that the environment draws (BONEMRI_SEED); 0 where it does not."""
    return int(SEED or 0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of the reference data that others made; the test is skipped by name where it is not there."""
    folder = os.environ.get("BONEMRI_REFERENCE_DATA")
    if not folder:
        pytest.skip("BONEMRI_REFERENCE_DATA is not set: no reference data")
    path = Path(folder)
    if not path.is_absolute():
        path = ROOT / path
    if not path.is_dir():
        pytest.fail(f"BONEMRI_REFERENCE_DATA is {folder}, which is no folder")
    return path


@pytest.fixture
def truth() -> dict[str, np.ndarray]:
    """The marrow-like parameters of `decay`, one value a voxel, (z, y, x) = (2, 3, 4)."""
    rng = np.random.default_rng(3)
    ranges = {"S0": (800, 1200), "f": (0.1, 0.2), "D_star": (20e-3, 40e-3), "D": (0.4e-3, 0.6e-3)}
    return {name: rng.uniform(*ends, (2, 3, 4)) for name, ends in ranges.items()}


@pytest.fixture
def decay(truth: dict[str, np.ndarray]) -> xr.DataArray:
    """The noise-free bi-exponential series of `truth`, (z, y, x, b)."""
    from bonemri.simulator import equations

    b = np.array(B)
    signal = equations.get("ivim").signal({name: value.ravel() for name, value in truth.items()}, {"b": b})
    return xr.DataArray(
        signal.reshape(*truth["f"].shape, b.size),
        dims=("z", "y", "x", "b"),
        coords={"b": ("b", b, {"units": "s/mm2", "long_name": "b-value"})},
        name="signal",
        attrs={"units": "1", "long_name": "signal"},
    )
