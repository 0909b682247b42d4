"""The scanner that a phantom lies in: its fields over the voxels, its coils, and what its gradients do wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .fields import imperfections
from .fields.coils import Coils
from .fields.grid import Grid
from .fields.imperfections import EddyCurrent
from .kspace import acquire as kspace
from .kspace.acquire import PoolMap
from .kspace.trajectory import Trajectory

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scanner:
    """What a scan meets beside the protocol; by default an ideal scanner with one uniform coil.

    Attributes
    ----------
    b0 : array (z, y, x), optional
        Offset of the field (Hz), shim included: from `fields.b0`. A phantom's chemical shifts come on top.
    b1 : array (z, y, x), optional
        B1+ relative to nominal, real or complex: from `transmit`.
    coils : Coils, optional
        Sensitivities and noise covariance: from `coils`.
    delays : three floats
        Of the gradients along x, y, z (s).
    eddy_currents : tuple of EddyCurrent
    concomitant : bool
        Whether the gradients have their concomitant fields: those of a readout, and in Cartesian trains of gradient
        echoes those of all echoes before.
    odd_even_phase : float
        Phase (rad) that turns its sign with the readout gradient of a bipolar train: + in the first echo.

    Maps may hold NaN where there is no object; `check` refuses it where there is one.

    Raises
    ------
    InputError
        A map that is not three-dimensional, maps of different shapes, infinities, a B1 below 0, delays that are no
        times.
    """

    b0: Any = None
    b1: Any = None
    coils: Coils | None = None
    delays: Any = (0.0, 0.0, 0.0)
    eddy_currents: tuple[EddyCurrent, ...] = ()
    concomitant: bool = False
    odd_even_phase: float = 0.0

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        if self.b0 is not None:
            set_(self, "b0", _map("b0", self.b0, complex_too=False))
        if self.b1 is not None:
            set_(self, "b1", _map("b1", self.b1, complex_too=True))
            if not np.iscomplexobj(self.b1) and np.any(self.b1 < 0):
                raise InputError(f"scanner: b1 is {np.nanmin(self.b1):g} somewhere: expected from 0 up, relative to "
                                 "nominal, or complex numbers")  # fmt: skip
        if self.coils is not None and not isinstance(self.coils, Coils):
            raise InputError(f"scanner: coils is {type(self.coils).__name__}: expected Coils")
        shapes = self._shapes()
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(f"scanner: maps differ in shape: {listed}: expected one (z, y, x)")
        delays = np.asarray(self.delays, dtype=float)
        if delays.shape not in ((), (3,)) or not np.isfinite(delays).all():
            raise InputError(f"scanner: delays is {self.delays!r}: expected a time (s), or three along x, y, z")
        set_(self, "delays", tuple(np.broadcast_to(delays, 3).tolist()))
        set_(self, "eddy_currents", tuple(self.eddy_currents))
        for current in self.eddy_currents:
            if not isinstance(current, EddyCurrent):
                raise InputError(f"scanner: eddy_currents holds {type(current).__name__}: expected EddyCurrent")
        if not math.isfinite(self.odd_even_phase):
            raise InputError(f"scanner: odd_even_phase is {self.odd_even_phase!r}: expected rad")

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Voxels (z, y, x) of its maps; None where it has none."""
        return next(iter(self._shapes().values()), None)

    @property
    def is_ideal(self) -> bool:
        """Whether it has no map, no coils of its own, and no fault."""
        faults = self.concomitant or self.odd_even_phase != 0 or any(self.delays) or self.eddy_currents
        return self.shape is None and not faults

    def check(self, shape: Any, mask: Any = None) -> None:
        """Its maps fit a grid of this shape (z, y, x) and have a value wherever the mask (default everywhere) is true.

        Raises
        ------
        InputError
            They do not; the message names map and voxel.
        """
        for name, found in self._shapes().items():
            if found != tuple(shape):
                raise InputError(f"scanner: {name} has shape {found}: expected {tuple(shape)}, that of the phantom")
        inside = np.ones(tuple(shape), bool) if mask is None else np.asarray(mask, dtype=bool)
        if inside.shape != tuple(shape):
            raise InputError(f"scanner: mask has shape {inside.shape}: expected {tuple(shape)} (z, y, x)")
        for name in ("b0", "b1"):
            values = getattr(self, name)
            if values is not None and np.isnan(values[inside]).any():
                bad = tuple(np.argwhere(np.isnan(values) & inside)[0].tolist())
                raise InputError(f"scanner: {name} is NaN at (z, y, x) = {bad}: expected a number where the object is")

    def offset(self, shape: Any) -> Floats:
        """Field offset (Hz) of each voxel (z, y, x): 0 without a map, and where it is NaN."""
        found: Floats = np.zeros(tuple(shape)) if self.b0 is None else np.nan_to_num(self.b0, nan=0.0)
        return found

    def transmit(self, shape: Any) -> NDArray[Any]:
        """B1+ of each voxel (z, y, x) relative to nominal: 1 without a map, and where it is NaN."""
        return np.ones(tuple(shape)) if self.b1 is None else np.where(np.isnan(self.b1), 1.0, self.b1)

    def actual(self, trajectory: Trajectory) -> tuple[Trajectory, Floats]:
        """What delays and eddy currents make of a trajectory, and the phase (rad) of each sample (readout, sample).

        The phase holds that of uniform eddy currents and, for lines of alternating polarity, `odd_even_phase`. A
        trajectory without gradients is given back as it is where no fault needs them.
        """
        phase = np.zeros(trajectory.k.shape[:2])
        found = trajectory
        if any(self.delays):
            found = imperfections.delayed(found, self.delays)
        if self.eddy_currents:
            found, phase = imperfections.eddy(found, self.eddy_currents)
        if self.odd_even_phase and trajectory.polarity is not None:
            phase = phase + self.odd_even_phase * np.asarray(trajectory.polarity)[:, None]
        return found, phase

    def acquire(
        self,
        trajectory: Trajectory,
        pools: Sequence[PoolMap],
        grid: Grid,
        field_strength: float,
        *,
        dephased: Any = None,
        precision: float = 1e-3,
        **options: Any,
    ) -> NDArray[np.complex128]:
        """Noise-free samples as this scanner takes them; their noise is `kspace.add_noise` of its coils' covariance.

        Parameters
        ----------
        trajectory : Trajectory
            As it is told. A reconstruction knows this one alone.
        pools : sequence of PoolMap
            What the sequence made of the object; `b1` has acted there.
        grid : Grid
            Of the pools: along the scanner's axes.
        field_strength : float
            T; for concomitant fields.
        dephased, **options :
            As in `kspace.acquire`.
        precision : float
            Largest error of the phase factor of concomitant fields; a finer one takes more Fourier transforms.

        Returns
        -------
        ndarray (echo, coil, readout, sample); two dimensions: (echo, coil, slice, readout, sample)

        Raises
        ------
        InputError
            As `check` and `kspace.acquire`, or an oblique grid.
        """
        if not np.allclose(grid.axes, np.eye(3), atol=1e-6):
            raise InputError("scanner: the grid is oblique or runs backwards: expected x, y, z of the scanner")
        self.check(grid.shape)
        actual, phase = self.actual(trajectory)
        options |= {
            "coils": None if self.coils is None else self.coils.sensitivities,
            "field": None if self.b0 is None else self.b0,
            "center": grid.place((np.array(grid.shape) - 1) / 2).tolist(),
            "dephased": dephased,
        }
        if self.concomitant:
            courses, maps = imperfections.concomitant_factors(
                trajectory, grid.positions, field_strength, precision=precision
            )
            parts = (
                course * kspace.acquire(
                    actual, [replace(pool, density=pool.density * m) for pool in pools], grid.edges, **options
                )
                for course, m in zip(courses, maps, strict=True)
            )
            data = sum(parts, start=np.zeros((), complex))
        else:
            data = kspace.acquire(actual, pools, grid.edges, **options)
        return np.asarray(data * np.exp(1j * phase))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {n: getattr(self, n).shape for n in ("b0", "b1") if getattr(self, n) is not None}
        return shapes | ({"coils": self.coils.shape} if self.coils is not None else {})


def _map(name: str, values: Any, complex_too: bool) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in ("iufc" if complex_too else "iuf"):
        raise InputError(f"scanner: {name} is {array.dtype} of shape {array.shape}: expected numbers (z, y, x)")
    array = array.astype(complex if array.dtype.kind == "c" else float)
    if np.isinf(array).any():
        raise InputError(f"scanner: {name} is infinite somewhere: expected a number, or NaN where there is no object")
    return array
