"""The rungs `matched` and `pools`: what each makes of a phantom, as a signal of every voxel at every point.

Both give the same answer whatever the number of voxels in work at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import Protocol as Shape

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..errors import InputError
from .acquisition.protocol import Protocol
from .model import Model
from .sequences import Pool, Sequence

BLOCK = 1 << 16
"""Voxels in work at a time: memory stays flat in the number of voxels."""

PROPERTIES = ("T1_observed", "T1_intrinsic", "T2", "R2_prime", "D", "D_star", "kurtosis", "chi")


class Scannable(Shape):
    """What can be scanned: anything with these two data sets."""

    @property
    def truth(self) -> xr.Dataset:
        """True values of each voxel."""
        ...

    @property
    def pools(self) -> xr.Dataset:
        """Spin pools of each voxel, with a dimension `pool`."""
        ...


class Matched:
    """An equation on the truth: unknowns as (voxel,) arrays; voxels where one of them is NaN give no signal."""

    def __init__(self, model: Model, unknowns: Mapping[str, NDArray[Any]]) -> None:
        self.model, self.unknowns = model, unknowns
        self.inside = np.logical_and.reduce([np.isfinite(v) for v in unknowns.values()])

    def signal(self, protocol: Protocol) -> NDArray[Any]:
        voxels = np.flatnonzero(self.inside)
        out: NDArray[Any] | None = None
        for start in range(0, max(len(voxels), 1), BLOCK):
            block = voxels[start : start + BLOCK]
            part = self.model.signal({name: v[block] for name, v in self.unknowns.items()}, protocol)
            if out is None:
                out = np.zeros((self.inside.size, protocol.points), part.dtype)
            out[block] = part
        assert out is not None
        return out


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
        for start in range(0, self.density.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
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


def unknowns_of(
    model: Model, phantom: Scannable, protocol: Protocol, values: Mapping[str, Any], grid: xr.DataArray
) -> dict[str, NDArray[Any]]:
    """Each unknown over the voxels: from the truth, or truth_at for what needs a protocol, else the case table."""
    names = [q.name for q in model.unknowns]
    for name in values:
        if name not in names:
            known_names = ", ".join(names)
            raise InputError(f"values: {name} is no unknown of equation {model.name}: expected some of {known_names}")
    at_protocol: xr.Dataset | None = None
    found: dict[str, NDArray[Any]] = {}
    for name in names:
        known = phantom.truth[name] if name in phantom.truth else None
        if known is None and name not in values and hasattr(phantom, "truth_at"):
            at_protocol = phantom.truth_at(protocol) if at_protocol is None else at_protocol
            known = at_protocol.get(name)
        if known is not None and bool(known.notnull().any()):
            found[name] = known.broadcast_like(grid).transpose(*grid.dims).values.ravel()
        elif name in values:
            try:
                found[name] = np.broadcast_to(np.asarray(values[name], dtype=float), grid.shape).ravel()
            except ValueError:
                shape = np.shape(values[name])
                raise InputError(f"values: {name} has shape {shape}: expected a number or {grid.shape}") from None
        else:
            raise InputError(
                f"equation {model.name}: the truth of the phantom has no {name}; give it as values={{'{name}': ...}}"
            )
    return found
