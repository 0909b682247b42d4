"""What a readout is: gradients, the way through k-space that follows from them, and when each sample is taken.

Conventions, those of `timeline`: a positive frequency turns the magnetisation by exp(+i 2 pi f t), so that the signal
is the integral of density(r) exp(+i 2 pi k r) with k = gamma/(2 pi) times the integral of the gradient (1/m). Grids
are (z, y, x), vectors along x, y, z; the centre of a grid is the isocentre, whatever the number of its voxels. Sample i
is taken at (i + 1/2) dwell from the start of the readout's sampling.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC
from ..events import timeline

Floats = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The readouts of one echo.

    Attributes
    ----------
    kind : str
        ``cartesian``, ``epi``, ``radial_2d``, ``radial_3d``, ``cones``, or a name of one's own.
    dimensions : int
        2: slices along z, each with these readouts; 3: a volume.
    matrix : tuple (nz, ny, nx)
        Voxels of the image; nz is the number of slices in two dimensions.
    fov : tuple (z, y, x)
        Field of view (m).
    dwell : float
        Time between two samples (s).
    times : ndarray (sample,) or (readout, sample)
        When each sample is taken (s), counted from the echo time TE: from the moment at which k is 0, for readouts that
        begin at the centre the start of the readout's gradient.
    k : ndarray (readout, sample, 3)
        Place of each sample along x, y, z (1/m); 0 along z in two dimensions. Left out, it is the integral of the
        gradients.
    start : ndarray (readout, 3)
        k at the first knot (1/m): what has been dephased before.
    knots : ndarray (knot,) or (readout, knot)
        Times of the gradients' knots (s), on the clock of `times`.
    gradients : ndarray (readout, knot, 3)
        T/m at the knots along x, y, z; linear between them, 0 outside. Gradients that only prephase or rewind are the
        sequence's.
    weights : ndarray (readout, sample), optional
        Volume of k-space (1/m3; area, 1/m2, in two dimensions) of which each sample is the representative.
    polarity : ndarray (readout,), optional
        +1 or -1: the sense in which each line of an echo train is read.
    nucleus : str
        A key of `constants.GYROMAGNETIC`.

    Raises
    ------
    InputError
        Shapes that do not fit, a value that is not finite.
    """

    kind: str
    dimensions: int
    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    dwell: float
    times: Floats
    k: Any = None
    start: Floats | None = None
    knots: Floats | None = None
    gradients: Floats | None = None
    weights: Floats | None = None
    polarity: NDArray[np.int64] | None = None
    nucleus: str = "1H"

    def __post_init__(self) -> None:
        where = f"trajectory {self.kind}"
        if self.dimensions not in (2, 3):
            raise InputError(f"{where}: dimensions is {self.dimensions!r}: expected 2 or 3")
        if self.nucleus not in GYROMAGNETIC:
            raise InputError(f"{where}: nucleus is {self.nucleus!r}: expected {' or '.join(GYROMAGNETIC)}")
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        set_("matrix", whole_three(where, "matrix", self.matrix))
        set_("fov", positive_three(where, "fov", self.fov))
        set_("dwell", positive(where, "dwell", self.dwell, "s"))
        for name in ("times", "k", "start", "knots", "gradients", "weights"):
            if getattr(self, name) is not None:
                set_(name, np.asarray(getattr(self, name), dtype=float))
        if self.k is None:
            if self.gradients is None or self.knots is None:
                raise InputError(f"{where}: neither k nor gradients with their knots: expected one of them")
            if self.start is None:
                set_("start", np.zeros((len(self.gradients), 3)))
            set_("k", self.positions(self.times))
        if self.k.ndim != 3 or self.k.shape[2] != 3 or 0 in self.k.shape:
            raise InputError(f"{where}: k has shape {self.k.shape}: expected (readout, sample, 3)")
        if self.times.shape not in ((self.samples,), self.k.shape[:2]):
            raise InputError(f"{where}: times has shape {self.times.shape}: expected ({self.samples},) or "
                             f"{self.k.shape[:2]}")  # fmt: skip
        if self.weights is not None and self.weights.shape != self.k.shape[:2]:
            raise InputError(f"{where}: weights has shape {self.weights.shape}: expected {self.k.shape[:2]}")
        for name in ("times", "k", "weights"):
            if getattr(self, name) is not None and not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{where}: {name} is not finite: expected numbers")
        if self.dimensions == 2 and np.any(self.k[..., 2] != 0):
            raise InputError(f"{where}: k along z is not 0: expected 0 in two dimensions, where slices lie along z")

    @property
    def readouts(self) -> int:
        """Number of readouts (spokes, lines, ...), of a slice in two dimensions."""
        return int(self.k.shape[0])

    @property
    def samples(self) -> int:
        """Number of samples of a readout."""
        return int(self.k.shape[1])

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge of an image voxel along z, y, x (m)."""
        z, y, x = (f / n for f, n in zip(self.fov, self.matrix, strict=True))
        return z, y, x

    @property
    def duration(self) -> float:
        """From the start of the first dwell to the end of the last one of a readout (s)."""
        return self.samples * self.dwell

    @property
    def gamma(self) -> float:
        """Gyromagnetic ratio over 2 pi (Hz/T)."""
        return GYROMAGNETIC[self.nucleus]

    @cached_property
    def k_max(self) -> float:
        """Largest distance from the centre of k-space (1/m)."""
        return float(np.sqrt((self.k**2).sum(axis=2).max()))

    def axes_before(self, data: Any) -> tuple[int, ...]:
        """Lengths of the axes of samples that come before those of the trajectory: echoes, coils.

        Raises
        ------
        InputError
            The last axes are not (readout, sample), or (slice, readout, sample) in two dimensions.
        """
        own = (self.readouts, self.samples) if self.dimensions == 3 else (self.matrix[0], self.readouts, self.samples)
        shape = np.shape(data)
        if shape[-len(own) :] != own:
            names = "readout, sample" if self.dimensions == 3 else "slice, readout, sample"
            right = ", ".join(map(str, own))
            raise InputError(
                f"trajectory {self.kind}: data has shape {shape}: expected (..., {names}) = (..., {right})"
            )
        return shape[: -len(own)]

    def replace(self, **changes: Any) -> Trajectory:
        """A copy with some attributes changed; new gradients need ``k=None`` for k to follow them."""
        return replace(self, **changes)

    # -- the gradients and what follows from them

    def positions(self, times: Floats) -> Floats:
        """k at any time, (readout, time, 3): the exact integral of the gradients.

        Parameters
        ----------
        times : ndarray (time,) or (readout, time)
            On the clock of the attribute `times` (s).

        Raises
        ------
        InputError
            The trajectory has no gradients.
        """
        knots, gradients, start = self._waveforms()
        if knots.ndim == 1 and times.ndim == 1:
            area = _integral(knots, gradients, times)
        else:
            rows = np.broadcast_to(knots, gradients.shape[:2])
            when = np.broadcast_to(times, (len(gradients), times.shape[-1]))
            area = np.stack([_integral(n, g, t) for n, g, t in zip(rows, gradients, when, strict=True)])
        return start[:, None] + self.gamma * area

    def waveform(self, readout: int) -> tuple[Floats, Floats]:
        """Knots (knot,), in s from TE, and gradients (knot, 3), in T/m, of one readout."""
        knots, gradients, _ = self._waveforms()
        return (knots if knots.ndim == 1 else knots[readout]), gradients[readout]

    def events(self, readout: int, echo_time: float) -> tuple[timeline.Gradient, ...]:
        """The gradients of one readout as events of a block that starts `echo_time` (s) before TE."""
        knots, values = self.waveform(readout)
        axes = [(axis, v) for axis, v in zip(timeline.AXES, values.T, strict=True) if np.any(v)]
        return tuple(timeline.Gradient(axis, echo_time + knots, v) for axis, v in axes)

    @cached_property
    def peak_gradient(self) -> float:
        """Largest gradient of any direction (T/m)."""
        return float(np.sqrt((self._waveforms()[1] ** 2).sum(axis=2).max()))

    @cached_property
    def peak_slew(self) -> float:
        """Fastest change of the gradient between knots, in any direction (T/m/s)."""
        knots, gradients, _ = self._waveforms()
        change = np.sqrt((np.diff(gradients, axis=1) ** 2).sum(axis=2))
        return float((change / np.diff(knots, axis=-1)).max())

    def check(self, hardware: timeline.Hardware) -> None:
        """Warn of gradients beyond what the hardware gives."""
        for what, peak, limit, unit in (
            ("gradient", self.peak_gradient, hardware.gradient, "T/m"),
            ("slew rate", self.peak_slew, hardware.slew, "T/m/s"),
        ):
            if limit is not None and peak > limit * (1 + 1e-6):
                message = f"trajectory {self.kind}: {what} is {peak:.4g} {unit}: the hardware gives {limit:g} {unit}"
                warnings.warn(message, UserWarning, stacklevel=3)

    def _waveforms(self) -> tuple[Floats, Floats, Floats]:
        if self.knots is None or self.gradients is None or self.start is None:
            raise InputError(f"trajectory {self.kind}: it has no gradients: expected start, knots and gradients")
        return self.knots, self.gradients, self.start


def _integral(knots: Floats, values: Floats, times: Floats) -> Floats:
    """Integral of what is linear between knots, from the first knot to each time: (..., knot, 3) to (..., time, 3)."""
    length = np.diff(knots)
    pieces = 0.5 * length[:, None] * (values[..., 1:, :] + values[..., :-1, :])
    done = np.concatenate([np.zeros_like(pieces[..., :1, :]), np.cumsum(pieces, axis=-2)], axis=-2)
    t = np.clip(times, knots[0], knots[-1])
    at = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, length.size - 1)
    since = (t - knots[at])[:, None]
    part = since / length[at, None]
    first, second = values[..., at, :], values[..., at + 1, :]
    total: Floats = done[..., at, :] + since * (first + 0.5 * part * (second - first))
    return total


# -- what a builder is given


def positive(where: str, name: str, value: Any, unit: str) -> float:
    """A number above 0.

    Raises
    ------
    InputError
        It is none.
    """
    if not is_finite_number(value) or not value > 0:
        raise InputError(f"{where}: {name} is {value!r}: expected a number above 0 ({unit})")
    return float(value)


def whole(where: str, name: str, value: Any) -> int:
    """A whole number from 1 up; raises InputError."""
    if not is_finite_number(value) or value != int(value) or value < 1:
        raise InputError(f"{where}: {name} is {value!r}: expected a whole number from 1 up")
    return int(value)


def one_of(where: str, name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """One of a few; raises InputError."""
    if value not in choices:
        raise InputError(f"{where}: {name} is {value!r}: expected {' or '.join(map(str, choices))}")
    return value


def whole_three(where: str, name: str, value: Any) -> tuple[int, int, int]:
    """A whole number for all of z, y, x, or one for each; raises InputError."""
    z, y, x = (whole(where, name, v) for v in _three(where, name, value))
    return z, y, x


def positive_three(where: str, name: str, value: Any) -> tuple[float, float, float]:
    """A length for all of z, y, x, or one for each (m); raises InputError."""
    z, y, x = (positive(where, name, v, "m") for v in _three(where, name, value))
    return z, y, x


def _three(where: str, name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes)) or np.ndim(value) > 1 or np.size(value) not in (1, 3):
        raise InputError(f"{where}: {name} is {value!r}: expected one number, or three along z, y, x")
    listed = np.ravel(np.asarray(value)).tolist()
    return listed * 3 if len(listed) == 1 else listed


def is_finite_number(value: Any) -> bool:
    """Tell a finite number from everything else, a truth value included."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and math.isfinite(value)
