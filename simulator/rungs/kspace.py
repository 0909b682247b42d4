"""The rung `scan`: what the engine finds, read through k-space, coils and a reconstruction.

Each pool's answer at the echo time becomes a map that decays, turns and dephases at every sample's own time; the
scanner's faults bend the way through k-space, and the image is reconstructed as if it had none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.fields.coils import Coils, uniform
from ..acquisition.fields.grid import Grid
from ..acquisition.kspace import density_compensation, reconstruction
from ..acquisition.kspace.acquire import PoolMap, add_noise
from ..acquisition.kspace.coil_combination import adaptive, combine, prewhiten, root_sum_of_squares
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from ..acquisition.scanner import Scanner
from ..sequences import Sequence
from ..sequences.precession import lines
from . import trains
from .engine import Engine, dephased

Complexes = NDArray[np.complex128]

RECONSTRUCTION = {"reconstruction": "direct", "combination": "", "partial_fourier_filling": "zero_filled",
                  "tikhonov": 1e-3, "iterations": 30}  # fmt: skip
"""Entries of a protocol's readout that say how images come of the samples, with their defaults."""

SLAB = "slab"
"""Entry of a protocol's Cartesian readout in three dimensions. True: an ideal slab, outside the field of view along the
slowest axis of phase encoding no spins are excited. False, the default: all are, and those outside fold in."""

ON_GRID = ("cartesian", "epi")  # trajectories that sample k-space in steps of 1/fov
FAINT = 0.01  # of the strongest voxel's signal: what is weaker is not said to fold

METHODS = ("direct", "sense")
COMBINATIONS = ("sum_of_squares", "optimal", "adaptive")


class KSpace:
    """Samples of k-space of every coil at every point, and the image of them."""

    def __init__(
        self,
        sequence: Sequence,
        pools: xr.Dataset,
        grid: xr.DataArray,
        switches: Mapping[str, Any],
        scanner: Scanner | None = None,
    ) -> None:
        if len(grid.dims) != 3:
            raise InputError(f"phantom has dims {', '.join(map(str, grid.dims))}: rung scan reads z, y, x")
        if "voxel_size" not in grid.attrs:
            raise InputError("phantom: voxel_size is missing in the attrs of its pools: rung scan needs it (m, z y x)")
        self.sequence, self.grid, self.scanner = sequence, grid, scanner or Scanner()
        z, y, x = np.broadcast_to(np.asarray(grid.attrs["voxel_size"], float), 3).tolist()
        self.size: tuple[float, float, float] = (z, y, x)
        self.shape: tuple[int, int, int] = (grid.shape[0], grid.shape[1], grid.shape[2])
        # the field acts while k-space is read: it is no part of the answer at the echo time
        self.engine = Engine(sequence, pools, grid, switches, dataclasses.replace(self.scanner, b0=None))
        self.folded = ""
        """What of the signal that was acquired last lay outside the field of view, in words; empty where none did."""
        self.scanner.check(grid.shape, np.any(np.nan_to_num(self.engine.density) > 0, axis=0).reshape(grid.shape))

    # -- what is read

    def trajectories(self, protocol: Protocol) -> tuple[Trajectory, ...]:
        """How each point is read."""
        assert self.sequence.readout is not None
        entries = {n: v for n, v in protocol.readout.items() if n not in (*RECONSTRUCTION, SLAB)}
        found = self.sequence.readout(dataclasses.replace(protocol, readout=entries))
        return found if isinstance(found, tuple) else (found,) * protocol.points

    def acquire(
        self, protocol: Protocol, progress: Callable[[float], object] | None = None
    ) -> list[tuple[Trajectory, tuple[int, ...], Complexes]]:
        """Noise-free samples: for each trajectory its points and their data (point, coil, ..., readout, sample)."""
        plan = self.engine.plan(protocol)
        since = dephased(plan, protocol.points)
        maps = self._maps(protocol, plan[0].timeline.nucleus, "".join({part.selects for part in plan}))
        ways = self.trajectories(protocol)
        groups = {id(way): [p for p, other in enumerate(ways) if other is way] for way in ways}
        earlier = self._turned_before(protocol, ways)
        if earlier is not None:
            maps = [dataclasses.replace(m, density=m.density * earlier) for m in maps]
        slab = self._slab(protocol, ways[0])
        if slab is not None:
            part = self._covered(slab, ways[0]).reshape([-1 if axis == slab else 1 for axis in range(3)])
            maps = [dataclasses.replace(m, density=m.density * part) for m in maps]
        self.folded = self._beyond(maps, ways[0], slab)
        # B1+ has acted in the pulses; a map of the field may hold NaN where there is no object
        field = None if self.scanner.b0 is None else self.scanner.offset(self.grid.shape)
        scanner = dataclasses.replace(self.scanner, b0=field, b1=None, coils=self.coils(protocol))
        found = []
        for done, points in enumerate(groups.values()):
            data = scanner.acquire(
                ways[points[0]],
                [_at(m, points) for m in maps],
                Grid(self.shape, self.size),
                protocol.field_strength,
                dephased=since[points],
                progress=None if progress is None else lambda part, d=done: progress((d + part) / len(groups)),
            )
            found.append((ways[points[0]], tuple(points), data))
        return found

    def _slab(self, protocol: Protocol, way: Trajectory) -> int | None:
        """The axis (of z, y, x) along which an ideal slab is excited; None without one."""
        wanted = protocol.readout.get(SLAB, False)
        where = f"protocol {protocol.name}: readout.{SLAB}"
        if not isinstance(wanted, (bool, np.bool_)):
            raise InputError(f"{where} is {wanted!r}: expected true or false")
        if not wanted:
            return None
        if way.kind != "cartesian" or way.dimensions != 3:
            raise InputError(f"{where} is true for {way.kind} in {way.dimensions} dimensions: expected cartesian in 3")
        return 1 if protocol.readout.get("frequency", "x") == "z" else 0  # z is the slowest unless it is read

    def _covered(self, axis: int, way: Trajectory) -> NDArray[np.float64]:
        """Part of each plane of the phantom across an axis that lies in the field of view."""
        n, edge, half = self.shape[axis], self.size[axis], 0.5 * way.fov[axis]
        low = (np.arange(n) - 0.5 * n) * edge
        return np.asarray(np.clip((np.minimum(low + edge, half) - np.maximum(low, -half)) / edge, 0.0, 1.0))

    def _beyond(self, maps: list[PoolMap], way: Trajectory, slab: int | None) -> str:
        """Axes along which signal reaches beyond the field of view of steps of 1/fov, with both lengths.

        Along the line that is read, too: the samples lie as far apart, and no filter of a receiver takes away what lies
        outside.
        """
        if way.kind not in ON_GRID:
            return ""
        seen = np.zeros(self.shape)
        for one in maps:
            amplitude = np.abs(np.asarray(one.amplitude))
            each = amplitude.sum(axis=1) if amplitude.ndim == 2 else np.atleast_1d(amplitude)
            density = np.abs(np.asarray(one.density))
            seen += density * each.max() if density.ndim == 3 else (density.T * each).T.max(axis=0)
        strong = seen > FAINT * seen.max()
        told = []
        for axis in range(3 - way.dimensions, 3):
            there = np.flatnonzero(strong.any(axis=tuple(a for a in range(3) if a != axis)))
            if axis == slab or not there.size:
                continue
            low, high = ((plane - 0.5 * self.shape[axis]) * self.size[axis] for plane in (there[0], there[-1] + 1))
            fov = way.fov[axis]
            if max(-low, high) > 0.5 * fov * (1 + 1e-6):
                told.append(
                    f"along {'zyx'[axis]} it lies from {1e3 * low:.4g} to {1e3 * high:.4g} mm, the field of view of "
                    f"{1e3 * fov:.4g} mm from {-500 * fov:.4g} to {500 * fov:.4g}"
                )
        if not told:
            return ""
        return f"folded: signal from outside the field of view lies upon the image: {'; '.join(told)}"

    def coils(self, protocol: Protocol) -> Coils | None:
        """The scanner's coils, else as many uniform ones as the protocol says; None for one of sensitivity 1."""
        if self.scanner.coils is not None:
            return self.scanner.coils
        return None if protocol.coils == 1 else uniform(protocol.coils, self.grid.shape)

    def _turned_before(self, protocol: Protocol, ways: tuple[Trajectory, ...]) -> Complexes | None:
        """What concomitant fields of the earlier echoes of each train have turned, (point, z, y, x); None without."""
        if not self.scanner.concomitant or self.sequence.trains is None:
            return None
        positions, echo_times = Grid(self.shape, self.size).positions, np.broadcast_to(protocol["TE"], protocol.points)
        turned = np.ones((protocol.points, *self.shape), complex)
        for points in self.sequence.trains(protocol):
            order, times = [ways[p] for p in points], [float(echo_times[p]) for p in points]
            phase = trains.concomitant_phase_before(order, times, positions, protocol.field_strength)
            if phase is not None:
                turned[list(points)] = np.exp(1j * phase)
        return None if (turned == 1).all() else turned

    def _answer(
        self, pool: int, voxels: NDArray[np.int64], protocol: Protocol, line: int | None, selects: str
    ) -> Complexes:
        """The engine's answer, of each voxel at its place along the axes that the pulses select."""
        if not selects:
            return self.engine.answer(pool, voxels, protocol, line)
        shape = self.grid.shape
        index = np.stack(np.unravel_index(voxels, shape)[::-1], axis=1)  # x, y, z
        place = (index - (np.array(shape[::-1]) - 1) / 2) * np.array(self.size[::-1])
        place[:, [axis not in selects for axis in "xyz"]] = 0.0
        if self.engine.mapped:
            return self.engine.answer(pool, voxels, protocol, line, place)
        distinct, row = np.unique(place, axis=0, return_inverse=True)
        return self.engine.answer(pool, voxels, protocol, line, distinct)[row.ravel()]

    def _maps(self, protocol: Protocol, nucleus: str, selects: str) -> list[PoolMap]:
        """Each pool as a map, its lines with their amplitudes at every point."""
        engine, shape, found = self.engine, self.grid.shape, []
        for i in engine.present():
            amount = np.nan_to_num(engine.density[i])
            voxels = np.flatnonzero(amount)
            pool = engine.pool(i, voxels)
            frequency, _ = lines(pool, protocol, nucleus)
            shown = range(frequency.size)
            stated = np.flatnonzero(
                np.isfinite(pool.shift) & np.isfinite(pool.peak_area) & (np.nan_to_num(pool.peak_area) > 0)
            )
            area = pool.peak_area[stated] / pool.peak_area[stated].sum() if stated.size else np.ones(1)
            rate = 1 / pool.get("T2")
            R2_prime = pool.get("R2_prime", default=0.0) if engine.switches.get("R2_prime", True) else np.zeros(1)
            if np.ptp(R2_prime) > 0:
                raise InputError(f"pool {engine.names[i]}: R2_prime differs from voxel to voxel: expected one value on "
                                 "rung scan, where the field of the structure goes in as the scanner's b0")  # fmt: skip
            common = {"R2": _spread(rate, voxels, shape), "R2_prime": float(R2_prime[0]), "name": engine.names[i]}
            line = [int(k) for k in stated] if stated.size else [None]
            answers = [area[k] * self._answer(i, voxels, protocol, line[k], selects) for k in shown]
            offsets = [float(frequency[k]) + float(engine.switches.get("off_resonance", 0.0)) for k in shown]
            if not any(np.any(a) for a in answers):
                continue
            if all(len(a) == 1 for a in answers):
                amplitude = np.stack([a[0] for a in answers], axis=1)
                found.append(PoolMap(amount.reshape(shape), amplitude, np.array(offsets), **common))
                continue
            for answer, offset in zip(answers, offsets, strict=True):
                density = np.zeros((protocol.points, amount.size), complex)
                density[:, voxels] = amount[voxels] * answer.T
                found.append(PoolMap(density.reshape(-1, *shape), np.ones(protocol.points), offset, **common))
        if not found:
            raise InputError(f"phantom: no pool of it shows in sequence {self.sequence.name}: expected one at least")
        return found

    # -- what is made of it

    def noise_of_samples(self, way: Trajectory, noise_sd: float) -> float:
        """SD of the noise of a sample, per real channel, that gives the image of a coil the SD `noise_sd`."""
        return noise_sd / density_compensation.noise_gain(density_compensation.weights(way))

    def noisy(
        self,
        found: list[tuple[Trajectory, tuple[int, ...], Complexes]],
        protocol: Protocol,
        noise_sd: float,
        rng: np.random.Generator,
    ) -> list[tuple[Trajectory, tuple[int, ...], Complexes]]:
        """The samples of one acquisition: those from `acquire`, with the noise of the coils."""
        receiving = self.coils(protocol)
        covariance = np.eye(1) if receiving is None else receiving.covariance
        return [
            (way, points, add_noise(data, covariance * self.noise_of_samples(way, noise_sd) ** 2, rng))
            for way, points, data in found
        ]

    def image(self, found: list[tuple[Trajectory, tuple[int, ...], Complexes]], protocol: Protocol) -> NDArray[Any]:
        """Image (point, z, y, x) of samples from `acquire`, noise added or not: of one coil, or of all combined."""
        first = found[0][0]
        parts = [(points, self._reconstructed(way, data, protocol)) for way, points, data in found]
        out = np.zeros((protocol.points, *first.matrix), np.result_type(*(part for _, part in parts)))
        for points, part in parts:
            out[list(points)] = part
        return out

    def coil_images(self, found: list[tuple[Trajectory, tuple[int, ...], Complexes]], protocol: Protocol) -> Complexes:
        """Image of every coil, (point, coil, z, y, x)."""
        entries = _entries(protocol)
        out = np.zeros((protocol.points, found[0][2].shape[1], *found[0][0].matrix), complex)
        for way, points, data in found:
            out[list(points)] = _direct(data, way, entries)
        return out

    def _reconstructed(self, way: Trajectory, data: Complexes, protocol: Protocol) -> NDArray[Any]:
        entries, receiving = _entries(protocol), self.coils(protocol)
        how = entries["combination"] or protocol.combination
        if how not in COMBINATIONS or entries["reconstruction"] not in METHODS:
            name, value, choices = (
                ("combination", how, COMBINATIONS) if how not in COMBINATIONS
                else ("reconstruction", entries["reconstruction"], METHODS)
            )  # fmt: skip
            raise InputError(f"protocol {protocol.name}: readout.{name} is {value!r}: expected {' or '.join(choices)}")
        if entries["reconstruction"] == "sense":
            maps, samples = self._sensitivities(way, receiving), data
            if receiving is not None:
                maps = prewhiten(maps, receiving.covariance, coil_axis=0)
                samples = prewhiten(data, receiving.covariance, coil_axis=1)
            tikhonov, iterations = float(entries["tikhonov"]), int(entries["iterations"])
            return reconstruction.sense(samples, way, maps, tikhonov=tikhonov, iterations=iterations).image
        images = _direct(data, way, entries)
        if receiving is None:
            return images[:, 0]
        if how == "sum_of_squares":
            return root_sum_of_squares(prewhiten(images, receiving.covariance, coil_axis=1))
        if how == "adaptive":
            return adaptive(images, covariance=receiving.covariance, planar=way.dimensions == 2)[0]
        return combine(images, self._sensitivities(way, receiving), receiving.covariance)

    def _sensitivities(self, way: Trajectory, receiving: Coils | None) -> Complexes:
        """Sensitivities on the grid of the image."""
        if receiving is None:
            return np.ones((1, *way.matrix), complex)
        maps: Complexes = receiving.sensitivities
        if way.matrix == self.grid.shape and np.allclose(way.voxel_size, self.size, rtol=1e-6):
            return maps
        from scipy.ndimage import map_coordinates

        # both grids share their centre
        axes = [
            (np.arange(n) - (n - 1) / 2) * edge / own + (m - 1) / 2
            for n, edge, own, m in zip(way.matrix, way.voxel_size, self.size, self.grid.shape, strict=True)
        ]
        places = np.stack(np.meshgrid(*axes, indexing="ij"))
        parts = [[map_coordinates(p, places, order=1, mode="nearest") for p in (m.real, m.imag)] for m in maps]
        return np.array([real + 1j * imaginary for real, imaginary in parts])

    def image_grid(self, protocol: Protocol) -> xr.DataArray:
        """The voxels of the image: those of the phantom, or others about the same centre."""
        way = self.trajectories(protocol)[0]
        if way.matrix == self.grid.shape and np.allclose(way.voxel_size, self.size, rtol=1e-6):
            return self.grid
        coords = {}
        for dim, n, edge, m, own in zip("zyx", way.matrix, way.voxel_size, self.grid.shape, self.size, strict=True):
            known = self.grid[dim].values if dim in self.grid.coords else (np.arange(m) - (m - 1) / 2) * own
            coords[dim] = (dim, known.mean() + (np.arange(n) - (n - 1) / 2) * edge)
        attrs = {**self.grid.attrs, "voxel_size": np.array(way.voxel_size)}
        if "affine" in attrs:
            attrs["affine"] = _affine(attrs["affine"], self.size, self.grid.shape, way)
        return xr.DataArray(np.zeros(way.matrix), coords, ("z", "y", "x"), attrs=attrs)


def _entries(protocol: Protocol) -> dict[str, Any]:
    return {name: protocol.readout.get(name, default) for name, default in RECONSTRUCTION.items()}


def _direct(data: Complexes, way: Trajectory, entries: Mapping[str, Any]) -> Complexes:
    on_grid = way.kind in ("cartesian", "epi")
    options = {"partial_fourier": entries["partial_fourier_filling"]} if on_grid else {}
    return reconstruction.images(data, way, **options)


def _at(pool: PoolMap, points: list[int]) -> PoolMap:
    """The map at some points."""
    density = pool.density[points] if np.ndim(pool.density) == 4 else pool.density
    return dataclasses.replace(pool, density=density, amplitude=np.asarray(pool.amplitude)[points])


def _spread(rate: NDArray[np.float64], voxels: NDArray[np.int64], shape: tuple[int, ...]) -> Any:
    """One rate, or its map."""
    if rate.size == 1 or np.ptp(rate) == 0:
        return float(rate.flat[0])
    out = np.zeros(int(np.prod(shape)))
    out[voxels] = rate
    return out.reshape(shape)


def _affine(affine: Any, size: tuple[float, ...], shape: tuple[int, ...], way: Trajectory) -> NDArray[np.float64]:
    """The affine (voxel x, y, z to mm) of the image, whose centre is that of the phantom."""
    matrix = np.array(affine, float).reshape(4, 4)
    centre = matrix @ [*((np.array(shape[::-1]) - 1) / 2), 1.0]
    scale = np.array(way.voxel_size[::-1]) / np.array(size[::-1])
    out = matrix.copy()
    out[:3, :3] = matrix[:3, :3] * scale
    out[:3, 3] = centre[:3] - out[:3, :3] @ ((np.array(way.matrix[::-1]) - 1) / 2)
    return out.ravel()
