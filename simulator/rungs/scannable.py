"""What can be scanned, and how many voxels of it are in work at a time."""

from __future__ import annotations

from typing import Protocol

import xarray as xr

BLOCK = 1 << 16
"""Voxels in work at a time: memory stays flat in the number of voxels."""


class Scannable(Protocol):
    """What can be scanned: anything with these two data sets."""

    @property
    def truth(self) -> xr.Dataset:
        """True values of each voxel."""
        ...

    @property
    def pools(self) -> xr.Dataset:
        """Spin pools of each voxel, with a dimension `pool`."""
        ...
