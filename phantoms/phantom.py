"""Phantom: the pools, and the truth that follows from them."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import files, tissues
from . import inputs, regridding
from . import labels as label_maps
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
    labels : DataArray (z, y, x), or None
        Its structures as whole numbers, 0 outside, with names in the CF attributes ``flag_values`` and
        ``flag_meanings``: what a reader would draw as regions.

    Raises
    ------
    InputError
        The pools break their schema or a conservation law; labels that do not lie on the pools.
    """

    def __init__(self, pools: xr.Dataset, where: str = "phantom", labels: xr.DataArray | None = None) -> None:
        for name in _ATTRS:
            if name not in pools.attrs:
                raise InputError(f"{where}: the pools lack the attribute {name!r}")
        check(pools, where)
        self.pools = pools
        self.labels = None if labels is None else label_maps.checked(labels, pools, where)

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
        endless: bool = False,
        labels: tuple[np.ndarray, Mapping[int, str]] | None = None,
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
        endless : bool
            The slices are cuts of a thing that goes on along z, such as a shaft: its field is that of all of it.
        labels : (ndarray (z, y, x), mapping), optional
            Whole numbers, 0 outside, and the name of each.
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
            "endless": int(endless),
            **{key: float(value) for key, value in (measured or {}).items()},
        }
        return cls(dataset, name, None if labels is None else label_maps.label_map(*labels, dataset))

    def coarsen(self, factor: int | Sequence[int]) -> Phantom:
        """The phantom in voxels `factor` times as large: densities and volumes averaged exactly.

        Fractions of the coarse phantom follow as ratios of sums. Relaxation rates and diffusivities are never
        averaged: where one varies inside a coarse voxel, the pool must be split first.

        Parameters
        ----------
        factor : int or three int
            Voxels that become one, along z, y, x. A rest at the far end is filled up with empty voxels.

        Returns
        -------
        Phantom

        Raises
        ------
        InputError
            A factor that is no whole number from 1 up, or a property that varies inside a coarse voxel.
        """
        steps = tuple(factor) if isinstance(factor, Sequence) else (factor,) * 3
        if len(steps) != 3 or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in steps):
            expected = "should be a whole number from 1 up, or three (z, y, x)"
            raise InputError(f"{self.name}: factor is {factor!r}, {expected}")
        count = [self.pools.sizes[dim] for dim in SPACE]
        lines = [regridding.Line.of(0.0, n, math.ceil(size / n), size) for size, n in zip(count, steps, strict=True)]
        pools, labels = regridding.regridded(self, lines)
        return Phantom(pools, self.name, labels)

    def on(self, scan: xr.DataArray | xr.Dataset) -> Phantom:
        """The phantom in the voxels of a scan, or of maps: the truth that its image can be held against.

        The rung ``scan`` gives images on the grid of their readout. A voxel of the phantom found here holds what lies
        within its box, averaged exactly where the grids nest; elsewhere a voxel of this phantom is taken as even
        within. An image knows no boxes: at edges it rings, and shows the blur of its readout; and what lies beyond its
        field of view, left out here, folds into it.

        Parameters
        ----------
        scan : DataArray or Dataset
            With dims z, y, x and the attribute ``affine`` (voxel index to mm), along the axes of the phantom.

        Returns
        -------
        Phantom
            With labels where this one has some: each new voxel gets the label that fills most of it.

        Raises
        ------
        InputError
            A scan that does not say where it lies, is oblique or lies beside the phantom; a property that varies
            inside a new voxel.
        """
        pools, labels = regridding.regridded(self, regridding.lines_of(self, scan), scan)
        return Phantom(pools, self.name, labels)

    def chi(self, outside: float | None = None) -> np.ndarray:
        """Volume susceptibility (ppm, SI) of each voxel (z, y, x), averaged over its pools.

        Parameters
        ----------
        outside : float, optional
            Susceptibility of what no pool fills; default that of water, as of soft tissue around a bone.
            ``tissues.value("air.chi")`` is that of air.
        """
        outside = tissues.value("water.chi") if outside is None else outside
        volume, chi = self.pools["volume_fraction"].values, self.pools["chi"].values
        total = np.full(volume.shape[1:], float(outside))
        for share, value in zip(volume, chi, strict=True):
            total += share * (value - outside)
        return total

    def offset(self, direction: Sequence[float] = (0.0, 0.0, 1.0), outside: float | None = None) -> np.ndarray:
        """Frequency offset (Hz) of 1H in each voxel (z, y, x) by the susceptibility of all others.

        The grid lies alone in the medium `outside`; a phantom that is a cut of a shaft (``attrs["endless"]``) goes on
        along z instead, as a shaft does: a slice by itself would have the field of a wafer.

        Parameters
        ----------
        direction : sequence of float
            Direction of B0 (x, y, z: right, anterior, superior); any length.
        outside : float, optional
            Susceptibility (ppm) of what no pool fills, and of everything beyond the grid; default that of water.

        Raises
        ------
        InputError
            A direction without length.
        """
        from ..simulator.engines import susceptibility

        outside = tissues.value("water.chi") if outside is None else outside
        size = tuple(float(edge) for edge in np.asarray(self.pools.attrs["voxel_size"]))
        chi = self.chi(outside)
        if self.pools.attrs.get("endless", 0):
            shift = _endless(chi - outside, size, direction)
        else:
            shift = susceptibility.field(chi, size, direction=direction, outside=outside)
        return susceptibility.to_hertz(shift, self.field_strength)

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
        edges = np.broadcast_to(np.asarray(self.pools.attrs["voxel_size"], float), 3)[::-1] * 1e3
        size = f"{edges[0]:g}" if np.ptp(edges) < 1e-9 else " x ".join(f"{edge:.3g}" for edge in edges)
        grid = f"{x} x {y} x {z} voxels of {size} mm at {self.field_strength:g} T"
        return f"<Phantom {self.name}: {grid}; pools {names}>"

    def to_netcdf(self, path: str | os.PathLike[str]) -> Path:
        """Write the groups ``truth`` and ``pools``, and ``labels`` where there are some, into one NetCDF file.

        It is written beside and renamed.

        Raises
        ------
        InputError
            The path does not end in ``.nc``, or its folder cannot be written.
        """
        path = files.output_path(path)
        with files.writing(path) as beside:
            self.pools.to_netcdf(beside, mode="w", group="pools", engine="h5netcdf")
            self.truth.to_netcdf(beside, mode="a", group="truth", engine="h5netcdf")
            if self.labels is not None:
                self.labels.to_dataset(name="label").to_netcdf(beside, mode="a", group="labels", engine="h5netcdf")
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
        labels = _group(path, "labels")["label"] if _has_group(path, "labels") else None
        phantom = cls(pools, str(path), labels)
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


def _endless(chi: np.ndarray, size: tuple[float, ...], direction: Sequence[float]) -> np.ndarray:
    """Relative shift (ppm) in slices of a thing that goes on along z; `chi` relative to the medium around it.

    The grid repeats along z, and across it stands in a wide frame of the medium, so that its copies are far. A
    periodic field has no mean; that of an endless cylinder of the mean chi, seen from outside, has: it is added.
    """
    from ..simulator.engines import susceptibility

    wide = [(0, 0), *((math.ceil(n / 2), math.ceil(n / 2)) for n in chi.shape[1:])]
    framed = np.pad(chi, wide)
    shift = susceptibility.field(framed, size, direction=direction, periodic=True)
    along = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    shift = shift + framed.mean() * (1 / 3 - (1 - along[2] ** 2) / 2)
    (_, _), (top, _), (left, _) = wide
    return shift[:, top : top + chi.shape[1], left : left + chi.shape[2]]


def sourced(make: Callable[..., Phantom]) -> Callable[..., Phantom]:
    """Let a phantom function keep, in ``attrs["tissue_numbers"]``, every tissue number that it read (JSON list).

    Each has ``name value low high unit source unverified`` and, where the record has them, ``field`` (T),
    ``condition`` and ``note``. A field at which nothing is known is refused before the work begins.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def wrapped(*args: Any, **kwargs: Any) -> Phantom:
        asked = signature.bind(*args, **kwargs)
        asked.apply_defaults()
        inputs.field(make.__name__, asked.arguments["field"])
        with tissues.recording() as read:
            phantom = make(*args, **kwargs)
        phantom.pools.attrs["tissue_numbers"] = json.dumps([_record(entry) for entry in read.values()])
        return phantom

    return wrapped


def _record(entry: tissues.Entry) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "unit", "source", "unverified", "field", "condition", "note")
    return {name: getattr(entry, name) for name in names if getattr(entry, name) not in (None, "")}


def _has_group(path: Path, group: str) -> bool:
    import h5netcdf

    with h5netcdf.File(path, "r") as file:
        return group in file.groups


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
