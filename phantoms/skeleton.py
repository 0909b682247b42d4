"""A body of plates and rods: everything within a radius of a skeleton that level sets of Gaussian fields draw.

The skeleton lies on a sheet, the zero level of one field. On it the zero levels of two more fields draw a net of
lines that cross; what of the sheet lies within a width of the net is skeleton. Width zero leaves the net: rods, that
branch where its lines cross. A great width leaves the whole sheet: plates without holes. Between them are plates
with holes, as in bone that resorption perforates (Parfitt 1987, Am J Med 82:68, doi:10.1016/0002-9343(87)90274-9).
Everything within a radius of the skeleton is bone: plates and rods alike are twice the radius thick.

Value and slopes of a Gaussian field at one point are independent normal numbers. So the share of space within a
radius of the skeleton is a probability of twelve of them (`Law`), and no grid is needed to know what wave number
gives a bone volume fraction at a thickness.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..simulator import threads
from . import random_field

_POINTS = 2**15


class Law(NamedTuple):
    """What a unit wave number gives: lengths are in 1 / wave number.

    ``distance`` of random points from the skeleton, in rising order; ``width`` of what the sheet keeps beside its net.
    """

    distance: np.ndarray
    width: float

    def radius(self, share: float) -> float:
        """Distance within which that share of space lies."""
        return float(np.interp(share * self.distance.size, np.arange(self.distance.size) + 0.5, self.distance))

    def share(self, radius: float) -> float:
        """Share of space within a distance of the skeleton."""
        return float(np.searchsorted(self.distance, radius) / self.distance.size)


@lru_cache(maxsize=64)
def law(plates: float, stretch: float) -> Law:
    """The distribution of the distance from the skeleton.

    Parameters
    ----------
    plates : float
        Share of the sheet that is skeleton, 0 (its net alone, rods) to 1 (all of it).
    stretch : float
        Of the fields along z.
    """
    normal = _normals()
    slope = normal[:, 3:].reshape(-1, 3, 3) / np.array([stretch * math.sqrt(3), math.sqrt(3), math.sqrt(3)])
    width = math.inf
    if plates < 1:
        on_sheet = normal[:, :3] * np.array([0.0, 1.0, 1.0])
        away = np.sort(_distances(on_sheet, slope, stretch)[1])
        # A point of the sheet counts as often as a random point would fall near it: by its slope.
        _, away_all = _distances(on_sheet, slope, stretch)
        order = np.argsort(away_all)
        weight = np.sqrt((slope[:, 0] ** 2).sum(axis=1))[order].cumsum()
        width = float(np.interp(plates * weight[-1], np.concatenate([[0.0], weight]), np.concatenate([[0.0], away])))
    across, away = _distances(normal[:, :3], slope, stretch)
    return Law(np.sort(np.hypot(across, np.maximum(away - width, 0.0))), width)


def _distances(value: np.ndarray, slope: np.ndarray, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the sheet, and along it from the net, at random points (point, field), (point, field, zyx)."""
    steep = np.sqrt((slope**2).sum(axis=2) + _curvature(1.0, stretch) * value**2)
    d, a = value / steep, slope / steep[:, :, None]
    c = (a[:, :1] * a[:, 1:]).sum(axis=2)
    along = np.abs(d[:, 1:] - c * d[:, :1]) / np.sqrt(np.maximum(1 - c**2, 0.1))
    return np.abs(d[:, 0]), along.min(axis=1)


def _curvature(wavenumber: float, stretch: float) -> float:
    """With this times the square of a field under the root beside its slope, a plane wave's distance is never
    infinite, and right to second order."""
    return wavenumber**2 * (2 + stretch**-2) / 3


@lru_cache(maxsize=1)
def _normals() -> np.ndarray:
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(12, rng=np.random.default_rng(7)).random(_POINTS)
    return ndtri(np.clip(points, 1e-9, 1 - 1e-9))


def distance(
    rng: np.random.Generator, axes: tuple[np.ndarray, np.ndarray, np.ndarray], size: float, *, wavenumber: float,
    width: float, stretch: float, bandwidth: float,
) -> np.ndarray:
    """Distance (m) of each point of a grid from the skeleton, to first order in how far away it is.

    Parameters
    ----------
    rng : Generator
    axes : z, y, x
        Positions (m), `size` apart.
    size : float
        Edge of a voxel (m).
    wavenumber : float
        Of the fields (rad/m).
    width : float
        Of what the sheet keeps on either side of its net (m).
    stretch, bandwidth : float
        As of `random_field.shell`.

    Returns
    -------
    array of float32, (z, y, x)
    """
    from .level_loops import skeleton_distance

    wider = [np.concatenate([[axis[0] - size], axis, [axis[-1] + size]]) for axis in axes]
    z, y, x = wider
    drawn = [random_field.shell(rng, wavenumber, bandwidth, stretch) for _ in range(3)]
    sheet, second, third = (random_field.sample(waves, z, y, x) for waves in drawn)
    found = np.empty(tuple(len(axis) for axis in axes), np.float32)
    curvature = _curvature(wavenumber, stretch)

    def planes(first: int, last: int) -> None:
        for plane in range(first, last):
            skeleton_distance(sheet, second, third, size, curvature, width, plane, found[plane])

    threads.each_block(len(found), planes, block=1)
    return found
