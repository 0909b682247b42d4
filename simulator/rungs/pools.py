"""The rung `pools`: the sum over all spin pools, each through the closed-form physics of the sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.protocol import Protocol
from ..acquisition.scanner import Scanner
from ..sequences import Pool, Sequence
from . import scannable

PROPERTIES = ("T1_observed", "T1_intrinsic", "T2", "R2_prime", "D", "D_star", "kurtosis", "chi")


class Pools:
    """The sum over pools: density times a (pool, point) matrix, or voxel by voxel where properties or fields are maps.

    The maps of the scanner, B1+ and field offset, are the switches `B1` and `off_resonance` of each voxel.
    """

    def __init__(
        self,
        sequence: Sequence,
        pools: xr.Dataset,
        grid: xr.DataArray,
        switches: Mapping[str, Any],
        scanner: Scanner | None = None,
    ) -> None:
        self.sequence, self.switches = sequence, dict(switches)
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
        self.fields = {} if scanner is None else self._fields(scanner, grid)

    def _fields(self, scanner: Scanner, grid: xr.DataArray) -> dict[str, NDArray[Any]]:
        """The scanner's maps as switches, (voxel,)."""
        inside = np.any(np.nan_to_num(self.density) > 0, axis=0).reshape(grid.shape)
        scanner.check(grid.shape, inside)
        maps = {"off_resonance": (scanner.b0, scanner.offset), "B1": (scanner.b1, scanner.transmit)}
        found = {name: of(grid.shape).ravel() for name, (given, of) in maps.items() if given is not None}
        for name in found:
            if name in self.switches:
                raise InputError(f"{name} is given as a switch and as a map of the scanner: expected one of the two")
            if name not in self.sequence.switches and type(self) is Pools:
                raise InputError(f"sequence {self.sequence.name} has no closed form for a map of {name}: expected rung "
                                 "engine")  # fmt: skip
        return found

    @property
    def mapped(self) -> bool:
        """Whether a voxel differs from others in more than its densities."""
        return bool(self.fields) or any(v.shape[1] > 1 for v in self.properties.values())

    def pool(self, index: int, voxels: NDArray[Any] | slice, line: int | None = None) -> Pool:
        """One pool over some voxels; of its spectrum one line alone where `line` is given."""
        values = {n: v[index] if v.shape[1] == 1 else v[index, voxels] for n, v in self.properties.items()}
        chosen = slice(None) if line is None else slice(line, line + 1)
        shift, area = (p[index][chosen] for p in self.peaks)
        return Pool(self.names[index], self.kinds[index], values, shift, area)

    def present(self) -> list[int]:
        """The pools that are anywhere."""
        return [i for i in range(len(self.names)) if np.any(self.density[i] > 0)]

    def signal(self, protocol: Protocol) -> NDArray[Any]:
        """Signal of each voxel at each point, (voxel, point)."""
        mapped, present = self.mapped, self.present()
        alike = [] if mapped else [self.answer(i, slice(None), protocol)[0] for i in present]
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
                    part = amount[amount != 0][:, None] * self.answer(i, voxels, protocol)
                    out = out.astype(np.result_type(out, part), copy=False)
                    out[voxels] += part
        return out

    def answer(
        self, index: int, voxels: NDArray[Any] | slice, protocol: Protocol, line: int | None = None
    ) -> NDArray[Any]:
        """Signal (row, point) of a density of 1 of a pool: a row for all voxels, or one each."""
        local = {name: values[voxels, None] for name, values in self.fields.items()}
        turned: Any = 1.0
        if "B1" in local and np.iscomplexobj(local["B1"]):  # the pulse leaves the magnetisation with its phase
            turned, local["B1"] = np.exp(1j * np.angle(local["B1"])), np.abs(local["B1"])
        return turned * self.sequence.signal(self.pool(index, voxels, line), protocol, **self.switches, **local)
