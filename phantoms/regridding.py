"""A phantom in other voxels: each new voxel holds what lies within its box.

Densities and volumes are averaged by the share of the new voxel that each old one fills. Where the grids nest these
shares are whole voxels and the averages exact; elsewhere an old voxel is taken as even within. Fractions follow as
ratios of sums. Relaxation rates and diffusivities are never averaged: where one varies inside a new voxel, the pool
must be split first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .pools import SPACE

if TYPE_CHECKING:
    from .phantom import Phantom

SNAP = 1e-4
"""Of an old voxel: edges that differ by less lie on one another. Headers in single precision round to 1e-5 of it."""


@dataclass(frozen=True)
class Line:
    """New voxels along one axis: their edges in old voxels, counted from the edge of the first of `count` old ones."""

    edges: np.ndarray
    count: int

    @classmethod
    def of(cls, first: float, step: float, number: int, count: int) -> Line:
        """`number` voxels of `step` old ones each, from the edge `first`; edges next to old ones are put there."""
        edges = first + step * np.arange(number + 1)
        near = np.round(edges)
        return cls(np.where(np.abs(edges - near) < SNAP, near, edges), count)

    @property
    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """First old voxel that each new one meets, and the one after the last; equal where it meets none."""
        first = np.clip(np.floor(self.edges[:-1]), 0, self.count).astype(int)
        after = np.clip(np.ceil(self.edges[1:]), 0, self.count).astype(int)
        return first, np.maximum(first, after)

    def shares(self) -> Any:
        """Sparse matrix (new, old): the share of each new voxel that lies in each old one."""
        from scipy.sparse import csr_matrix

        first, after = self.span
        length = after - first
        rows = np.repeat(np.arange(first.size), length)
        starts = np.cumsum(length) - length
        columns = np.arange(length.sum()) - np.repeat(starts - first, length)
        low, high = self.edges[:-1][rows], self.edges[1:][rows]
        overlap = np.minimum(high, columns + 1) - np.maximum(low, columns)
        return csr_matrix((overlap / (high - low), (rows, columns)), shape=(first.size, self.count))


class Lines:
    """The new voxels (z, y, x)."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)
        self.shares = [line.shares() for line in self.lines]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the new grid."""
        return tuple(line.edges.size - 1 for line in self.lines)

    def average(self, values: np.ndarray) -> np.ndarray:
        """Mean over each new voxel, (z, y, x); outside the old grid there is 0."""
        for axis, share in enumerate(self.shares):
            moved = np.moveaxis(values, axis, 0)
            found = share @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
            values = np.moveaxis(found.reshape(-1, *moved.shape[1:]), 0, axis)
        return np.ascontiguousarray(values)

    def least(self, values: np.ndarray) -> np.ndarray:
        """Smallest value that meets each new voxel; infinity where none does."""
        for axis, line in enumerate(self.lines):
            first, after = line.span
            wall = np.full_like(np.take(values, [0], axis=axis), np.inf)
            padded = np.concatenate([values, wall], axis=axis)  # so that every end is an index
            pairs = np.stack([first, after], axis=1).ravel()
            found = np.take(np.minimum.reduceat(padded, pairs, axis=axis), range(0, pairs.size, 2), axis=axis)
            none = (first == after).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            values = np.where(none, np.inf, found)
        return values

    def first(self, values: np.ndarray) -> np.ndarray:
        """Value of the first old voxel of each new one, or of the nearest."""
        for axis, line in enumerate(self.lines):
            values = np.take(values, np.minimum(line.span[0], line.count - 1), axis=axis)
        return values


def regridded(
    phantom: Phantom, lines: Sequence[Line], place: xr.DataArray | xr.Dataset | None = None
) -> tuple[xr.Dataset, xr.DataArray | None]:
    """The pools and the labels of a phantom in new voxels.

    Coordinates are those of `place` to the bit, where it has some: xarray then takes both for the same voxels.

    Raises
    ------
    InputError
        A property varies inside a new voxel.
    """
    pools, new = phantom.pools, Lines(lines)
    names, densities = pools["pool"].values, pools["density"].values
    variables: dict[str, Any] = {}
    for name, variable in pools.data_vars.items():
        if name in ("density", "volume_fraction"):
            rows = [new.average(row) for row in variable.values]
        elif variable.dims == ("pool", *SPACE):
            rows = []
            for pool, row, density in zip(names, variable.values, densities, strict=True):
                present = density > 0
                low = new.least(np.where(present, row, np.inf))
                high = -new.least(np.where(present, -row, np.inf))
                if (high > low).any():
                    raise InputError(f"{phantom.name}: {name} of pool {pool} varies inside a coarse voxel, and is "
                                     "never averaged; split the pool into pools of one value each")
                rows.append(np.where(np.isfinite(high), high, new.first(row)))
        else:
            variables[str(name)] = variable
            continue
        variables[str(name)] = (variable.dims, np.stack(rows), variable.attrs)
    found = xr.Dataset(variables, {name: pools[name] for name in ("pool", "pool_to", "kind")})
    found = _placed(found, pools, new.lines)
    if place is not None:
        near = SNAP * found.attrs["voxel_size"].min()
        same = [d for d in SPACE if d in place.coords and np.allclose(place[d], found[d], rtol=0, atol=near)]
        found = found.assign_coords({dim: place[dim].variable for dim in same})
    labels = phantom.labels
    if labels is None:
        return found, None
    coords = {dim: found[dim] for dim in SPACE}
    attrs = {**labels.attrs, "affine": found.attrs["affine"]}
    return found, xr.DataArray(_largest(labels.values, new), coords, SPACE, "label", attrs)


def _largest(labels: np.ndarray, new: Lines) -> np.ndarray:
    """The label that fills most of each new voxel; what none fills counts as 0."""
    numbers = [int(n) for n in np.unique(labels) if n != 0]
    found, most = np.zeros(new.shape, labels.dtype), np.ones(new.shape)
    shares = {number: new.average((labels == number).astype(float)) for number in numbers}
    for share in shares.values():
        most = most - share
    for number, share in shares.items():
        more = share > most + 1e-12  # rounding must not decide what is half and half
        found[more], most[more] = number, share[more]
    return found


def _placed(found: xr.Dataset, old: xr.Dataset, lines: Sequence[Line]) -> xr.Dataset:
    """The data set with coordinates (m), voxel size and affine of the new voxels."""
    steps = np.array([(line.edges[-1] - line.edges[0]) / (line.edges.size - 1) for line in lines])
    middles = np.array([line.edges[0] + step / 2 - 0.5 for line, step in zip(lines, steps, strict=True)])
    affine = np.reshape(np.array(old.attrs["affine"], float), (4, 4)).copy()
    affine[:3, 3] += affine[:3, :3] @ middles[::-1]
    affine[:3, :3] = affine[:3, :3] * steps[::-1]
    size = np.broadcast_to(np.asarray(old.attrs["voxel_size"], float), 3)
    for dim, middle, step, edge, line in zip(SPACE, middles, steps, size, lines, strict=True):
        at = old[dim].values[0] + (middle + step * np.arange(line.edges.size - 1)) * edge
        found = found.assign_coords({dim: (dim, at, old[dim].attrs)})
    found.attrs = {**old.attrs, "affine": affine.ravel(), "voxel_size": size * steps}
    return found


def place_of(path: str | os.PathLike[str]) -> xr.DataArray:
    """The voxels of a file: of a scan, of maps or of a mask, without their values.

    Parameters
    ----------
    path : path
        NetCDF, a NIfTI, or a folder of NIfTI maps.

    Raises
    ------
    InputError
        A file that cannot be read, or does not say where its voxels lie.
    """
    from ..simulator import files, nifti

    path = Path(path)
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.nii.gz"))), path / "status.nii.gz")
    if path.name.lower().endswith(files.NIFTI_SUFFIXES):
        values, header = nifti.load(path, "a scan or a map")
        shape, affine = (*values.shape, 1, 1)[:3], header.get_best_affine()
    else:
        found = files.read_netcdf(path)
        affine = next((v.attrs["affine"] for v in (found, *found.data_vars.values()) if "affine" in v.attrs), None)
        missing = [dim for dim in SPACE if dim not in found.sizes]
        if affine is None or missing:
            lacks = f"the dim {missing[0]}" if missing else "an affine"
            raise InputError(f"{path} lacks {lacks}: it should be a scan or maps, and say where its voxels lie")
        shape = tuple(found.sizes[dim] for dim in reversed(SPACE))
    nothing = np.broadcast_to(np.nan, shape[::-1])
    return xr.DataArray(nothing, dims=SPACE, attrs={"affine": np.asarray(affine, float).ravel()})


def lines_of(phantom: Phantom, place: xr.DataArray | xr.Dataset) -> list[Line]:
    """The voxels of a scan or of maps, in voxels of a phantom.

    Raises
    ------
    InputError
        They do not say where they lie, lie oblique to the phantom or run backwards, or share nothing with it.
    """
    where = f"{phantom.name}: the scan"
    missing = [dim for dim in SPACE if dim not in place.sizes]
    if missing:
        raise InputError(f"{where} has no dim {missing[0]}; it should have z, y, x")
    if "affine" not in place.attrs:
        raise InputError(f"{where} has no affine in its attrs; it should say where its voxels lie (4 x 4, mm)")
    own = np.reshape(np.array(phantom.pools.attrs["affine"], float), (4, 4))
    other = np.reshape(np.array(place.attrs["affine"], float), (4, 4))
    to_old = np.linalg.solve(own, other)  # index (x, y, z) of a new voxel to index of an old one
    steps = np.diag(to_old)[:3]
    if np.abs(to_old[:3, :3] - np.diag(steps)).max() > SNAP or (steps <= 0).any():
        raise InputError(f"{where} is oblique to the phantom, or runs backwards; it should lie along its axes")
    lines = []
    for dim, step, at in zip(SPACE, steps[::-1], to_old[2::-1, 3], strict=True):
        line = Line.of(at - step / 2 + 0.5, step, place.sizes[dim], phantom.pools.sizes[dim])
        if line.edges[0] >= line.count or line.edges[-1] <= 0:
            raise InputError(f"{where} lies beside the phantom along {dim}; it should share some of it")
        lines.append(line)
    return lines
