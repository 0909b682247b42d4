"""Readouts that wind about cones: longer ways through k-space than spokes, so that fewer of them fill it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....errors import InputError
from .lines import gamma_of
from .radial import GOLDEN
from .readout import Floats, Trajectory, positive, positive_three, whole, whole_three

FINE = 4
"""Points of the design per dwell: between them the way is taken as straight."""


def cones(
    matrix: Any,
    fov: Any,
    dwell: float,
    *,
    samples: int,
    max_gradient: float = 0.04,
    max_slew: float = 150.0,
    twist: float | None = None,
    undersampling: float = 1.0,
    nucleus: str = "1H",
) -> Trajectory:
    """Twisted readouts on cones about z, each from the centre of k-space to its edge.

    The sphere is cut into bands of equal polar angle, no wider than one sample of k-space, 1/fov, at its edge; each has
    a cone in its middle. On a cone the azimuth grows in proportion to the distance from the centre, from 0 to `twist`.
    The way is run from rest with half of the slew rate along it up to a steady speed, so that it takes just the given
    samples, and the other part of the slew rate is left for the bends. The number of readouts of a cone is the least
    for which neighbours lie no further than 1/fov apart at the edge.

    Parameters
    ----------
    matrix, fov : number, or three along z, y, x
        Voxels, m.
    dwell : float
        s.
    samples : int
        Of a readout: samples x dwell is its length.
    max_gradient, max_slew : float
        Limits of the scanner (T/m, T/m/s), kept by the length of the vector.
    twist : float, optional
        Azimuth (rad) by which a readout turns, at most; where the limits allow less, less. Default: as much as they
        allow, and no more than a single readout needs to fill its cone.
    undersampling : float
        Factor by which there are fewer readouts.
    nucleus : str

    Returns
    -------
    Trajectory
        Cone after cone. `weights` are the volumes of each sample's part of its band and shell: winding the readouts
        about the axis does not change them.

    Raises
    ------
    InputError
        A value that means nothing, or a readout so short that not even a spoke keeps the limits.

    References
    ----------
    Gurney et al., Magn Reson Med 55:575 (2006), doi:10.1002/mrm.20796, whose design differs: it keeps the density of
    samples at its limit all along the way.
    """
    where = "trajectory cones"
    matrix, fov = whole_three(where, "matrix", matrix), positive_three(where, "fov", fov)
    dwell, samples = positive(where, "dwell", dwell, "s"), whole(where, "samples", samples)
    limits = positive(where, "max_gradient", max_gradient, "T/m"), positive(where, "max_slew", max_slew, "T/m/s")
    undersampling = positive(where, "undersampling", undersampling, "1")
    gamma = gamma_of(where, nucleus)
    k_max = np.array(matrix[::-1]) / (2 * np.array(fov[::-1]))
    # a limit that holds for the wider of x and y holds for every azimuth
    scale = np.array([k_max[:2].max(), k_max[:2].max(), k_max[2]])
    across = max(matrix) / 2  # k_max in steps of 1/fov
    most = 2 * math.pi * across if twist is None else positive(where, "twist", twist, "rad")
    bands = max(math.ceil(math.pi * across), 2)
    edges = np.linspace(0.0, math.pi, bands + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    upper = [_longest(where, polar, most, scale, samples, dwell, limits, gamma, 1 / max(fov))
             for polar in middle[: (bands + 1) // 2]]  # fmt: skip
    ways, azimuths, solid = [], [], []
    for index, polar in enumerate(middle):
        turn = upper[min(index, bands - 1 - index)]
        apart = 2 * math.pi * across * math.sin(polar) / math.hypot(1.0, turn * math.sin(polar))
        count = max(math.ceil(apart / undersampling), 1)
        ways += [_way(polar, turn, scale, samples, dwell, gamma * limits[1])[1]] * count
        # cones begin one golden angle apart, so that their readouts do not line up
        azimuths += (2 * math.pi * (np.arange(count) / count + index * (1 - GOLDEN))).tolist()
        solid += [2 * math.pi * (math.cos(edges[index]) - math.cos(edges[index + 1])) / count] * count
    way, (c, s) = np.array(ways), (f(np.array(azimuths))[:, None] for f in (np.cos, np.sin))
    turned = np.stack([c * way[..., 0] - s * way[..., 1], s * way[..., 0] + c * way[..., 1], way[..., 2]], axis=2)
    gradients = np.concatenate([turned, np.zeros_like(turned[:, :1])], axis=1) * k_max / gamma
    fall = float(np.sqrt((gradients**2).sum(axis=2).max())) / limits[1]
    ends = np.arange(samples + 1) * dwell
    knots = np.append(ends, ends[-1] + fall)
    times = ends[:-1] + 0.5 * dwell
    path = Trajectory("cones", 3, matrix, fov, dwell, times, knots=knots, gradients=gradients, nucleus=nucleus)
    # the speed outwards, k * dk/dt over k, between knots; area x speed x dwell is the volume
    unit, speed = path.k / k_max, gamma * 0.5 * (gradients[:, 1:-1] + gradients[:, :-2]) / k_max
    outwards = (unit * speed).sum(axis=2) * np.sqrt((unit**2).sum(axis=2))
    weights = outwards * dwell * np.array(solid)[:, None] * float(np.prod(k_max))
    return path.replace(weights=weights)


def _way(
    polar: float, turn: float, scale: Floats, samples: int, dwell: float, slew: float
) -> tuple[Floats | None, Floats]:
    """Speed through k-space at the ends of each dwell, (sample + 1, 3): scaled (None: no way), and of a unit sphere.

    `slew` is in 1/m/s2: half of it speeds the way up along itself.
    """
    part = np.linspace(0.0, 1.0, FINE * samples + 1)
    time, a = samples * dwell, 0.5 * slew
    steps = np.sqrt((np.diff(_cone(polar, turn, part)[0] * scale, axis=0) ** 2).sum(axis=1))
    way = np.concatenate([[0.0], np.cumsum(steps)])
    if time**2 < 2 * way[-1] / a:
        return None, np.empty(0)
    steady = a * (time - math.sqrt(time**2 - 2 * way[-1] / a))
    t = np.arange(samples + 1) * dwell
    done = np.where(t < steady / a, 0.5 * a * t**2, steady * t - 0.5 * steady**2 / a)
    tangent = _cone(polar, turn, np.interp(done, way, part))[1]
    speed = np.minimum(a * t, steady) / np.sqrt(((tangent * scale) ** 2).sum(axis=1))
    unit = tangent * speed[:, None]
    return unit * scale, unit


def _cone(polar: float, turn: float, part: Floats) -> tuple[Floats, Floats]:
    """Points on the cone at these parts of its length, and the derivative by the part."""
    azimuth = turn * part
    axis = np.stack([math.sin(polar) * np.cos(azimuth), math.sin(polar) * np.sin(azimuth),
                     np.full_like(part, math.cos(polar))], axis=1)  # fmt: skip
    around = turn * np.stack([-axis[:, 1], axis[:, 0], np.zeros_like(part)], axis=1)
    return part[:, None] * axis, axis + part[:, None] * around


def _longest(
    where: str,
    polar: float,
    most: float,
    scale: Floats,
    samples: int,
    dwell: float,
    limits: tuple[float, float],
    gamma: float,
    step: float,
) -> float:
    """The largest turn whose gradients keep the limits, and whose samples lie no further than `step` apart.

    Where already a spoke's samples lie further apart, that is no reason against it, but allows no turn.
    """

    def keeps(turn: float) -> bool:
        speed, _ = _way(polar, turn, scale, samples, dwell, gamma * limits[1])
        if speed is None:
            return False
        peak = np.sqrt((speed**2).sum(axis=1).max())
        change = np.sqrt((np.diff(speed, axis=0) ** 2).sum(axis=1).max()) / dwell
        slow = peak <= gamma * limits[0] and change <= gamma * limits[1]
        return bool(slow and (turn == 0 or peak * dwell <= step))

    if not keeps(0.0):
        raise InputError(
            f"{where}: samples x dwell is {samples * dwell:g} s: too short for a spoke within max_gradient = "
            f"{limits[0]:g} T/m and max_slew = {limits[1]:g} T/m/s"
        )
    if keeps(most):
        return most
    low, high = 0.0, most
    for _ in range(20):  # to a millionth of the range
        middle = 0.5 * (low + high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low
