"""Phantom: the pools, and the truth that follows from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import files
from . import truth as measurands
from .pools import SPACE, Pool, check, lay

_ATTRS = ("name", "seed", "condition", "field_strength", "voxel_size", "affine", "parameters")
MOST_VOXELS = 20_000_000  # a few GB of pools; a slip in `resolution` would otherwise end in a dead process


class Phantom:
    """A bone (or vial) whose truth is known.

    Parameters
    ----------
    pools : Dataset
        The spin pools, in the schema of ``phantoms.pools``, with the attributes ``name``, ``seed``,
        ``condition``, ``field_strength`` (T), ``voxel_size`` (m; z, y, x), ``affine`` (16 numbers, row by row:
        voxel index (x, y, z, 1) to position in mm, right, anterior, superior) and ``parameters`` (JSON).

    Attributes
    ----------
    pools : Dataset
        What the scanner sees.
    truth : Dataset
        What is true, a pure function of the pools.

    Raises
    ------
    InputError
        The pools break their schema or a conservation law.
    """

    def __init__(self, pools: xr.Dataset, where: str = "phantom") -> None:
        for name in _ATTRS:
            if name not in pools.attrs:
                raise InputError(f"{where}: the pools lack the attribute {name!r}")
        check(pools, where)
        self.pools = pools

    @classmethod
    def build(
        cls,
        pools: Sequence[Pool],
        *,
        name: str,
        resolution: float,
        field: float,
        seed: int = 0,
        condition: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        measured: Mapping[str, float] | None = None,
    ) -> Phantom:
        """Assemble a phantom on a centred grid of cubic voxels from its pools.

        Parameters
        ----------
        pools : sequence of Pool
        name : str
        resolution : float
            Edge of a voxel (m).
        field : float
            Field strength (T) for which the pools' relaxation holds.
        seed : int
        condition : str, optional
        parameters : mapping, optional
            What the phantom was asked for, kept as JSON.
        measured : mapping, optional
            Morphometry measured on the finished phantom, kept as attributes.
        """
        shape = pools[0].density.shape
        coords = {dim: (np.arange(n) - (n - 1) / 2) * resolution for dim, n in zip(SPACE, shape, strict=True)}
        dataset = lay(pools, coords)
        affine = np.diag([resolution * 1e3] * 3 + [1.0])
        affine[:3, 3] = [coords[dim][0] * 1e3 for dim in ("x", "y", "z")]
        dataset.attrs = {
            "name": name,
            "seed": int(seed),
            "condition": condition or "",
            "field_strength": float(field),
            "voxel_size": np.full(3, float(resolution)),
            "affine": affine.ravel(),
            "parameters": json.dumps({k: _plain(v) for k, v in (parameters or {}).items() if v is not None}),
            **{key: float(value) for key, value in (measured or {}).items()},
        }
        return cls(dataset, name)

    @property
    def name(self) -> str:
        """Name of the phantom function that made it."""
        return str(self.pools.attrs["name"])

    @property
    def field_strength(self) -> float:
        """Field strength (T) for which the pools hold."""
        return float(self.pools.attrs["field_strength"])

    @cached_property
    def truth(self) -> xr.Dataset:
        """Protocol-free truth, maps (z, y, x); see :func:`bonemri.phantoms.truth.truth`."""
        return measurands.truth(self.pools)

    def truth_at(self, protocol: Mapping[str, Any], kurtosis: bool = False) -> xr.Dataset:
        """Truth that needs a protocol: ``f_app``, ``adc`` and, on request, ``kurtosis``."""
        return measurands.truth_at(self.pools, protocol, kurtosis)

    def __repr__(self) -> str:
        z, y, x = (self.pools.sizes[dim] for dim in SPACE)
        names = ", ".join(str(pool) for pool in self.pools["pool"].values)
        size = float(np.asarray(self.pools.attrs["voxel_size"])[0]) * 1e3
        grid = f"{x} x {y} x {z} voxels of {size:g} mm at {self.field_strength:g} T"
        return f"<Phantom {self.name}: {grid}; pools {names}>"

    def to_netcdf(self, path: str | os.PathLike[str]) -> Path:
        """Write the groups ``truth`` and ``pools`` into one NetCDF file, beside and renamed.

        Raises
        ------
        InputError
            The path does not end in ``.nc``, or its folder cannot be written.
        """
        path = files.output_path(path)
        with files.writing(path) as beside:
            self.pools.to_netcdf(beside, mode="w", group="pools", engine="h5netcdf")
            self.truth.to_netcdf(beside, mode="a", group="truth", engine="h5netcdf")
        return path

    @classmethod
    def from_netcdf(cls, path: str | os.PathLike[str]) -> Phantom:
        """Read a phantom.

        Raises
        ------
        InputError
            No such file, not a phantom, a map missing, a unit wrong, or a stored truth that does not follow
            from the stored pools.
        """
        path = files.existing_file(path, "a phantom (NetCDF with the groups pools and truth)")
        pools, stored = (_group(path, group) for group in ("pools", "truth"))
        phantom = cls(pools, str(path))
        for name, expected in phantom.truth.data_vars.items():
            if name not in stored:
                raise InputError(f"{path}: the truth lacks the map {str(name)!r} ({expected.attrs['units']})")
            found = stored[name].attrs.get("units")
            if found != expected.attrs["units"]:
                raise InputError(f"{path}: truth.{name} has unit {found!r}, should be {expected.attrs['units']!r}")
            # Both come from the same function on the same numbers: only rounding of another machine may differ.
            if stored[name].shape != expected.shape or not np.allclose(
                stored[name].values, expected.values, rtol=1e-9, atol=0, equal_nan=True
            ):
                raise InputError(f"{path}: truth.{name} does not follow from the pools of the same file")
        return phantom


def _group(path: Path, group: str) -> xr.Dataset:
    try:
        with xr.open_dataset(path, group=group, engine="h5netcdf") as dataset:
            return dataset.load()
    except files.UNREADABLE:
        raise InputError(f"{path}: not a phantom file: no readable NetCDF group {group!r}") from None


def _plain(value: Any) -> Any:
    """A parameter as JSON holds it; a long array by its shape only."""
    if isinstance(value, (str, bool, int, float)):
        return value
    array = np.asarray(value)
    return array.tolist() if array.size <= 64 else f"array of shape {array.shape}"
