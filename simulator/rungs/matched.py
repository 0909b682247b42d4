"""The rung `matched`: an equation on the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.protocol import Protocol
from ..model import Model
from . import scannable
from .scannable import Scannable


class Matched:
    """An equation on the truth: unknowns as (voxel,) arrays; voxels where one of them is NaN give no signal."""

    def __init__(self, model: Model, unknowns: Mapping[str, NDArray[Any]]) -> None:
        self.model, self.unknowns = model, unknowns
        self.inside = np.logical_and.reduce([np.isfinite(v) for v in unknowns.values()])

    def signal(self, protocol: Protocol) -> NDArray[Any]:
        voxels = np.flatnonzero(self.inside)
        out: NDArray[Any] | None = None
        for start in range(0, max(len(voxels), 1), scannable.BLOCK):
            block = voxels[start : start + scannable.BLOCK]
            part = self.model.signal({name: v[block] for name, v in self.unknowns.items()}, protocol)
            if out is None:
                out = np.zeros((self.inside.size, protocol.points), part.dtype)
            out[block] = part
        assert out is not None
        return out


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
