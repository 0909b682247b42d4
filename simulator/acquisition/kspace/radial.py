"""Readouts along spokes from, or through, the centre of k-space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....errors import InputError
from .lines import gamma_of
from .readout import Floats, Trajectory, is_finite_number, one_of, positive, positive_three, whole, whole_three

GOLDEN = (math.sqrt(5) - 1) / 2
MEANS = (0.46557123187676802665, 0.68232780382801932737)
"""The two-dimensional golden means, which solve x^3 + x - 1 = 0 (0.6823) and its square (0.4656)."""


def radial_2d(
    matrix: Any,
    fov: Any,
    dwell: float,
    spokes: int,
    *,
    samples: int | None = None,
    ramp: float = 100e-6,
    gap: float = 0.0,
    order: str = "uniform",
    full: bool = False,
    nucleus: str = "1H",
) -> Trajectory:
    """Spokes in the plane of each slice.

    Parameters
    ----------
    matrix : int, or three along z, y, x
        nz slices; spokes reach to the edge of the image's k-space, n/(2 fov), along x and y.
    fov : float, or three along z, y, x
        m.
    dwell : float
        s.
    spokes : int
        Of a slice.
    samples : int, optional
        Of a spoke; default half of the larger of nx and ny, and all of it for full spokes.
    ramp : float
        Time in which the gradient rises (s), sampled where a spoke begins at the centre: k goes as t^2/(2 ramp) first.
        0: the gradient is on from the beginning, as in ZTE.
    gap : float
        Time from the centre, k = 0, to the first dwell (s): what ZTE misses. Not for full spokes.
    order : {"uniform", "golden"}
        Angles equally spaced, or each one golden angle (137.5 degrees, of full spokes 111.2) after the last.
    full : bool
        False: from the centre out; True: through it, on a gradient that is flat while it is sampled.
    nucleus : str

    Raises
    ------
    InputError
        A value that means nothing, a ramp longer than the readout.

    References
    ----------
    Golden angle: Winkelmann et al., IEEE Trans Med Imaging 26:68 (2007), doi:10.1109/TMI.2006.885337.
    """
    where = "trajectory radial_2d"
    spokes = whole(where, "spokes", spokes)
    turn = math.pi if one_of(where, "full", full, (True, False)) else 2 * math.pi
    # half spokes: the smaller part of the golden section of a turn; full ones: the larger of half a turn
    step = {"uniform": 1 / spokes, "golden": GOLDEN if full else 1 - GOLDEN}
    angle = turn * np.mod(np.arange(spokes) * step[one_of(where, "order", order, tuple(step))], 1.0)
    directions = np.stack([np.cos(angle), np.sin(angle), np.zeros(spokes)], axis=1)
    return _spokes(where, 2, directions, matrix, fov, dwell, samples, ramp, gap, full, nucleus)


def radial_3d(
    matrix: Any,
    fov: Any,
    dwell: float,
    spokes: int,
    *,
    samples: int | None = None,
    ramp: float = 100e-6,
    gap: float = 0.0,
    order: str = "phyllotaxis",
    full: bool = False,
    nucleus: str = "1H",
) -> Trajectory:
    """Spokes in all directions of space.

    Parameters
    ----------
    matrix, fov, dwell, samples, ramp, gap, full, nucleus
        As for `radial_2d`, along x, y and z.
    spokes : int
    order : {"phyllotaxis", "golden_means"}
        A spiral from pole to pole (of full spokes to the equator) on which every spoke has the same solid angle, one
        golden angle after the other; or golden means, which cover the sphere evenly after any number of spokes.

    Raises
    ------
    InputError
        As `radial_2d`.

    References
    ----------
    Phyllotaxis: Piccini et al., Magn Reson Med 66:1049 (2011), doi:10.1002/mrm.22898, here with equal solid angles.
    Golden means: Chan et al., Magn Reson Med 61:354 (2009), doi:10.1002/mrm.21837.
    """
    where = "trajectory radial_3d"
    spokes = whole(where, "spokes", spokes)
    n = np.arange(spokes)
    if one_of(where, "order", order, ("phyllotaxis", "golden_means")) == "phyllotaxis":
        height, angle = (n + 0.5) / spokes, n * (1 - GOLDEN)
    else:
        height, angle = np.mod(n * MEANS[0], 1.0), n * MEANS[1]
    if not one_of(where, "full", full, (True, False)):
        height = 1 - 2 * height
    angle = 2 * math.pi * np.mod(angle, 1.0)
    across = np.sqrt(1 - height**2)
    directions = np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=1)
    return _spokes(where, 3, directions, matrix, fov, dwell, samples, ramp, gap, full, nucleus)


def _spokes(
    where: str,
    dimensions: int,
    directions: Floats,
    matrix: Any,
    fov: Any,
    dwell: Any,
    samples: Any,
    ramp: Any,
    gap: Any,
    full: bool,
    nucleus: str,
) -> Trajectory:
    matrix, fov, dwell = whole_three(where, "matrix", matrix), positive_three(where, "fov", fov), positive(
        where, "dwell", dwell, "s")  # fmt: skip
    for name, value in (("ramp", ramp), ("gap", gap)):
        if not is_finite_number(value) or value < 0:
            raise InputError(f"{where}: {name} is {value!r}: expected a time from 0 up (s)")
    # a rise that no number tells from none is none: its steepness would overflow
    ramp, gap = float(ramp) if ramp > 1e-18 else 0.0, float(gap)
    if full and gap:
        raise InputError(f"{where}: gap is {gap:g} s: expected 0 for full spokes, which run through the centre")
    wide = max(matrix[3 - dimensions :])
    samples = (wide if full else max(wide // 2, 1)) if samples is None else whole(where, "samples", samples)
    length = samples * dwell
    edges = np.arange(samples + 1) * dwell + (-0.5 * length if full else gap)
    end = float(edges[-1])
    if not full and ramp > end:
        raise InputError(f"{where}: ramp is {ramp:g} s: expected at most the readout, {end:g} s")
    # the gradient rises in `ramp`, is flat, and falls as fast after the last sample; flat from the start without ramp
    fall = ramp if ramp > 0 else dwell
    knots = [edges[0] - fall, edges[0], end, end + fall] if full else [0.0, ramp, end, end + fall]
    height = [0.0, 1.0, 1.0, 0.0]
    if not full and ramp == 0:
        knots, height = knots[1:], height[1:]
    if not full and ramp == end:
        knots, height = [0.0, ramp, ramp + fall], [0.0, 1.0, 0.0]
    k_max = np.array(matrix[::-1]) / (2 * np.array(fov[::-1]))
    reach = directions * (k_max * (np.arange(3) < dimensions))  # k at the end of each spoke
    gradients = reach[:, None] * np.array(height)[:, None]
    gradients /= gamma_of(where, nucleus) * (0.5 * length if full else end - 0.5 * ramp)
    start = reach * -(1 + fall / length) if full else np.zeros_like(reach)
    times = edges[:-1] + 0.5 * dwell
    shell = _shell(dimensions, times, dwell, ramp, end, full) * float(np.prod(k_max[:dimensions])) / len(directions)
    weights = np.broadcast_to(shell, (len(directions), samples)).copy()
    kind = where.split()[1]
    return Trajectory(
        kind, dimensions, matrix, fov, dwell, times,
        start=start, knots=np.array(knots), gradients=gradients, weights=weights, nucleus=nucleus,
    )  # fmt: skip


def _shell(dimensions: int, times: Floats, dwell: float, ramp: float, end: float, full: bool) -> Floats:
    """Part of the unit ball (disc) of each sample of a spoke, for all spokes together: area x speed x dwell.

    As a sum over samples that is the midpoint rule, which meets integrals of what is smooth far better than the volumes
    between the ends of the dwells would.
    """
    area = {2: 2 * math.pi, 3: 4 * math.pi}[dimensions] * (0.5 if full else 1.0)
    if full:
        radius, speed = np.abs(times) / end, np.full(times.shape, 1 / end)
    else:
        rising, flat = times < ramp, end - 0.5 * ramp
        radius = np.where(rising, times**2 / (2 * ramp or 1.0), times - 0.5 * ramp) / flat
        speed = np.where(rising, times / (ramp or 1.0), 1.0) / flat
    weights: Floats = area * radius ** (dimensions - 1) * speed * dwell
    if dimensions == 2 and (full or ramp == 0):
        # the area begins with a kink at the centre: the first term of Euler and Maclaurin goes to the samples there
        step = dwell / end
        weights[np.abs(times) < 0.75 * dwell] *= 11 / 12
        weights[np.abs(times) < 0.25 * dwell] = math.pi / 6 * step**2
    return weights
