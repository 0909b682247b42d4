"""The rung `pools`: the sum over all spin pools, each through the closed-form physics of the sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..acquisition.protocol import Protocol
from ..sequences import Pool, Sequence
from . import scannable

PROPERTIES = ("T1_observed", "T1_intrinsic", "T2", "R2_prime", "D", "D_star", "kurtosis", "chi")


class Pools:
    """The sum over pools: density times a (pool, point) matrix, or voxel by voxel where properties are maps."""

    def __init__(self, sequence: Sequence, pools: xr.Dataset, grid: xr.DataArray, switches: Mapping[str, Any]) -> None:
        self.sequence, self.switches = sequence, switches
        self.density = pools["density"].transpose("pool", *grid.dims).values.reshape(pools.sizes["pool"], -1)
        self.names = [str(n) for n in pools["pool"].values]
        self.kinds = [str(k) for k in pools["kind"].values]
        self.peaks = [
            pools[n].transpose("pool", "peak").values if n in pools else np.full((len(self.names), 1), np.nan)
            for n in ("shift", "peak_area")
        ]
        # (pool, 1), or (pool, voxel) where the property is a map
        self.properties: dict[str, NDArray[Any]] = {}
        for name in (n for n in PROPERTIES if n in pools):
            spread = pools[name] if "pool" in pools[name].dims else pools[name].expand_dims(pool=pools["pool"])
            if spread.ndim > 1:
                spread = spread.broadcast_like(pools["density"]).transpose("pool", *grid.dims)
            self.properties[name] = spread.values.reshape(len(self.names), -1)

    def pool(self, index: int, voxels: NDArray[Any] | slice) -> Pool:
        values = {n: v[index] if v.shape[1] == 1 else v[index, voxels] for n, v in self.properties.items()}
        shift, area = (p[index] for p in self.peaks)
        return Pool(self.names[index], self.kinds[index], values, shift, area)

    def signal(self, protocol: Protocol) -> NDArray[Any]:
        mapped = any(v.shape[1] > 1 for v in self.properties.values())
        present = [i for i in range(len(self.names)) if np.any(self.density[i] > 0)]
        alike = [] if mapped else [self._of(self.pool(i, slice(None)), protocol)[0] for i in present]
        out: NDArray[Any] = np.zeros((self.density.shape[1], protocol.points), np.result_type(float, *alike))
        for start in range(0, self.density.shape[1], scannable.BLOCK):
            block = slice(start, start + scannable.BLOCK)
            density = np.nan_to_num(self.density[present, block])
            if not mapped:
                np.matmul(density.T, np.reshape(alike, (len(present), protocol.points)), out=out[block])
                continue
            for i, amount in zip(present, density, strict=True):
                voxels = start + np.flatnonzero(amount)
                if voxels.size:
                    part = amount[amount != 0][:, None] * self._of(self.pool(i, voxels), protocol)
                    out = out.astype(np.result_type(out, part), copy=False)
                    out[voxels] += part
        return out

    def _of(self, pool: Pool, protocol: Protocol) -> NDArray[Any]:
        return self.sequence.signal(pool, protocol, **self.switches)
