"""Random walkers under any gradient waveform: diffusion with and without walls, and through a field that varies.

``walk`` moves spins and gives the phase of each; its ``signal`` is their mean for any amplitude of the waveform, so
that a whole table of b-values costs one walk. Flow through a network of capillaries is in `capillaries`.

Between the points of a walk the path is taken as it is on average, straight, with the gradient's exact integrals; how
it wanders between them attenuates by a known factor (a Brownian bridge), which is included: away from walls the phase
is exact for any step. At walls the error of ln(signal) falls at least as the square of a step's length over the size of
the room (order 1 in time, as Bossy, Gobet and Talay, J Appl Probab 41:877 (2004), prove for mirrored steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .. import kernels, threads
from ..constants import PROTON
from .restriction import FREE, Box, Cylinder, Medium, Sphere, Voxels, slab
from .waveform import Floats, Waveform, grid, is_number, seeds, waveform, waveforms

__all__ = ["FREE", "Attenuation", "Box", "Cylinder", "Sphere", "Voxels", "Walk", "signal", "slab", "walk"]

STEP = 1 / 10
"""Default length (SD along an axis) of a step, relative to the width or radius of the room."""
LEAST, MOST = 50, 1_000_000  # steps of a walk
MEDIA: tuple[type, ...] = (Box, Sphere, Cylinder, Voxels)
_BLOCK = 1024  # walkers; a multiple of the lanes


class Attenuation(NamedTuple):
    """Mean of exp(i phase) over walkers, and its Monte Carlo error."""

    signal: NDArray[np.complex128]
    error: NDArray[np.complex128]
    """Standard error of the real part, and that of the imaginary part as its imaginary part."""


@dataclass(frozen=True, eq=False)
class Walk:
    """Walkers at the end of their way.

    Attributes
    ----------
    phase : ndarray (walker, waveform)
        By the gradient (rad); goes as its amplitude and, without walls, as the root of the diffusivity.
    offset_phase : ndarray (walker,)
        By the offset map (rad).
    depth : ndarray (walker,)
        How far all steps together went beyond walls before they were turned back (m).
    unresolved : ndarray (waveform,)
        b-value of what the walk does between its points (s/mm2).
    diffusivity : float
        mm2/s.
    steps : int
    """

    phase: Floats
    offset_phase: Floats
    depth: Floats
    unresolved: Floats
    diffusivity: float
    steps: int

    def signal(self, scale: ArrayLike = 1.0, relaxivity: float = 0.0) -> Attenuation:
        """Signal per spin for amplitudes of the waveform; 1 without gradient, offset and relaxation at walls.

        Parameters
        ----------
        scale : float or array (scale,)
            Amplitude relative to the waveform that was walked; b goes as its square. Without walls and offset a scale
            of sqrt(D'/D) also stands for another diffusivity D'.
        relaxivity : float
            Surface relaxivity of the walls (m/s). A step that would end a depth d behind a wall leaves the fraction
            exp(-2 relaxivity d/D), which on average is what a wall takes; to first order in relaxivity sqrt(step/D).

        Returns
        -------
        Attenuation
            Arrays (waveform, scale), without the axis of a single number.

        Raises
        ------
        InputError
            A scale or relaxivity that means nothing; relaxivity without walls that know their depth.
        """
        amplitude = np.atleast_1d(np.asarray(scale, dtype=float))
        if amplitude.ndim != 1 or not np.isfinite(amplitude).all():
            raise InputError(f"walkers: scale is {scale!r}: expected a finite number or a list of them")
        if not (math.isfinite(relaxivity) and relaxivity >= 0):
            raise InputError(f"walkers: relaxivity is {relaxivity!r}: expected from 0 m/s up")
        if relaxivity and np.isnan(self.depth).any():
            raise InputError("walkers: relaxivity at the faces of voxels, whose area is not that of the surface: "
                             "expected a box, a sphere or a cylinder")  # fmt: skip
        left = np.ones_like(self.offset_phase)
        if relaxivity:
            left = np.exp(-2 * relaxivity * self.depth / (self.diffusivity * 1e-6))
        n = len(left)
        value = np.empty((self.phase.shape[1], amplitude.size), complex)
        error = np.empty_like(value)
        for w, s in np.ndindex(value.shape):
            angle = amplitude[s] * self.phase[:, w] + self.offset_phase
            real, imag = left * np.cos(angle), left * np.sin(angle)
            between = math.exp(-(amplitude[s] ** 2) * self.unresolved[w] * self.diffusivity)
            value[w, s] = between * complex(real.mean(), imag.mean())
            error[w, s] = between * complex(real.std(), imag.std()) / math.sqrt(max(n - 1, 1))
        shape = (() if value.shape[0] == 1 else value.shape[:1]) + (() if np.ndim(scale) == 0 else amplitude.shape)
        return Attenuation(value.reshape(shape), error.reshape(shape))


def walk(
    times: ArrayLike,
    gradient: ArrayLike,
    medium: Medium = FREE,
    *,
    diffusivity: float,
    sign: tuple[ArrayLike, ArrayLike] | None = None,
    count: int = 20_000,
    step: float | None = None,
    seed: int | np.random.SeedSequence = 0,
    gamma: float = PROTON,
) -> Walk:
    """Let walkers diffuse under an effective gradient.

    Parameters
    ----------
    times : array (knot,)
    gradient : array (knot, 3) or (waveform, knot, 3)
        Effective gradient (T/m) along x, y, z, linear between the knots (s), as from `moments.effective_gradient`.
        Several waveforms on the same knots share one walk.
    medium : Box (FREE, slab), Sphere, Cylinder or Voxels
        Spins start spread evenly in it, and its walls reflect them.
    diffusivity : float
        mm2/s.
    sign : (times (knot,), values (knot,)), optional
        How the offset of the field counts (1, and -1 once refocused), as from `moments.pathway`; default 1 throughout.
    count : int
        Walkers.
    step : float, optional
        Time of a step (s). Default: at most a fiftieth of the whole, and of length sqrt(2 D step) a tenth of the width
        of a slab or box or of the radius of a sphere or cylinder (ln(signal) is then off by less than .5 %), of voxels
        three tenths of an edge.
    seed : int or SeedSequence
        The same for the same walk, on any number of threads.
    gamma : float
        Gyromagnetic ratio over 2 pi (Hz/T).

    Returns
    -------
    Walk

    Raises
    ------
    InputError
        A value that means nothing, a walk of more than a million steps, or a gradient that does not refocus along an
        axis without walls, where the signal of endless room is 0.
    """
    wave, waves = waveforms(times, gradient, "walkers")
    d = _checked(diffusivity, count, step, gamma) * 1e-6  # m2/s
    if not isinstance(medium, MEDIA):
        kind = type(medium).__name__
        raise InputError(f"walkers: medium is {kind}: expected FREE, slab, Box, Sphere, Cylinder or Voxels")
    _check_refocused(wave, medium.free)
    points = grid(wave.duration, _step(wave.duration, step, medium.smallest, d))
    # phase = sum over points and axes of weight and place
    weight = 2 * math.pi * gamma * wave.weights(points).reshape(points.size, waves, 3)
    unresolved = (2 * math.pi * gamma) ** 2 * 1e-6 * wave.unresolved(points).reshape(waves, 3).sum(axis=1)
    turning = 2 * math.pi * _signs(sign, wave.duration).weights(points)[:, 0]
    # a stream of random numbers for each axis, and one for the starts
    streams = list(seeds(seed, "walkers").generate_state(4, np.uint64))
    starts = medium.starts(count, np.random.Generator(np.random.PCG64(int(streams[3]))))
    sigma = math.sqrt(2 * d * points[1])
    phase, turned, depth = np.zeros((count, waves)), np.zeros(count), np.zeros(count)
    loops = kernels.compiled(Path(__file__).with_name("walk.py"))

    def line(axis: int, width: float, start: Floats, part: Floats) -> None:
        along = np.ascontiguousarray(part)
        if math.isfinite(width) or along.any():
            threads.each_block(
                count,
                lambda a, b: loops.walk_line(streams[axis], start, width, sigma, along, a, b, phase, depth),
                _BLOCK,
            )

    if isinstance(medium, Voxels):
        mask = np.ascontiguousarray(medium.open, dtype=np.uint8)
        field = np.zeros((0, 0, 0)) if medium.offset is None else medium.offset
        depth[:] = math.nan

        def through(a: int, b: int) -> None:
            loops.walk_voxels(streams[0], starts, mask, medium.edge, medium.periodic, sigma, weight, field, turning,
                              a, b, phase, turned)  # fmt: skip

        threads.each_block(count, through, _BLOCK)
    elif isinstance(medium, Box):
        for k, width in enumerate(medium.size):
            line(k, width, np.ascontiguousarray(starts[:, k]), weight[:, :, k])
    else:
        dims = starts.shape[1]
        weight = weight @ medium.frame.T
        inner = np.ascontiguousarray(weight[:, :, :dims])

        def inside(a: int, b: int) -> None:
            loops.walk_ball(streams[0], starts, dims, medium.radius, sigma, inner, a, b, phase, depth)

        threads.each_block(count, inside, _BLOCK)
        if dims == 2:
            line(2, math.inf, np.zeros(count), weight[:, :, 2])
    return Walk(phase, turned, depth, unresolved, float(diffusivity), points.size - 1)


def signal(
    times: ArrayLike,
    gradient: ArrayLike,
    medium: Medium = FREE,
    *,
    diffusivity: float,
    scale: ArrayLike = 1.0,
    relaxivity: float = 0.0,
    **options: Any,
) -> Attenuation:
    """Signal of walkers for amplitudes `scale` of a waveform: `walk` with these options, and its `Walk.signal`."""
    return walk(times, gradient, medium, diffusivity=diffusivity, **options).signal(scale, relaxivity)


def _signs(sign: tuple[ArrayLike, ArrayLike] | None, duration: float) -> Waveform:
    if sign is None:
        return Waveform(np.array([0.0, duration]), np.ones((2, 1)))
    values = np.asarray(sign[1], dtype=float)
    signs = waveform(sign[0], values[:, None] if values.ndim == 1 else values, "walkers: sign", "1")
    if abs(signs.duration - duration) > 1e-6 * duration:
        raise InputError(f"walkers: sign lasts {signs.duration:g} s and the gradient {duration:g} s: expected the same")
    return signs


def _check_refocused(wave: Waveform, free: Floats) -> None:
    """Along directions without walls (direction, 3) the spins are spread without end."""
    whole = wave.integrals(np.array([wave.duration]))[0].reshape(-1, 3)
    largest = np.abs(wave.integrals(wave.times)[0]).reshape(len(wave.times), -1, 3).max(axis=(0, 2))
    left = np.abs(whole @ free.T)
    if (left > 1e-6 * largest[:, None]).any():
        w = int(np.argmax(left.max(axis=1) - 1e-6 * largest))
        area = left[w].max()
        raise InputError(f"walkers: gradient {w} adds up to {area:g} T s/m along an axis without walls: expected 0, an "
                         "echo")  # fmt: skip


def _checked(diffusivity: float, count: int, step: float | None, gamma: float) -> float:
    for name, value, unit in (("diffusivity", diffusivity, "mm2/s"), ("gamma", gamma, "Hz/T"), ("step", step, "s")):
        if name == "step" and value is None:
            continue
        if not (is_number(value) and value > 0):  # type: ignore[operator]
            raise InputError(f"walkers: {name} is {value!r}: expected above 0 {unit}")
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(f"walkers: count is {count!r}: expected a whole number from 1 up")
    return float(diffusivity)


def _step(duration: float, step: float | None, smallest: float, d: float) -> float:
    chosen = min(duration / LEAST, (STEP * smallest) ** 2 / (2 * d)) if step is None else step
    count = duration / chosen
    if count > MOST:
        raise InputError(f"walkers: {count:.3g} steps of {chosen:.3g} s: expected at most {MOST:g}; state step")
    return chosen
