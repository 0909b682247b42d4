"""Composition that differs between the regions of one bone: smooth between them, of the mean asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import patterns, recipes
from .pools import Pool

_REST = 0.05  # weight of what lies between the regions


@dataclass(frozen=True)
class Region:
    """A cloud about `centre` (m; x, y, z) with the standard deviations `reach` (m), in which a quantity is `value`."""

    centre: tuple[float, float, float]
    reach: tuple[float, float, float]
    value: float

    def weight(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """One in the middle, falling off as a normal distribution; a product of three lines on a grid."""
        lines = [np.exp(-0.5 * ((at - middle) / width) ** 2)
                 for at, middle, width in zip((x, y, z), self.centre, self.reach, strict=True)]
        return np.asarray(lines[0] * lines[1] * lines[2])


def blend(axes: Sequence[np.ndarray], regions: Sequence[Region], rest: float) -> np.ndarray:
    """Mean (z, y, x) of the regions' values, weighted by how near each is.

    Parameters
    ----------
    axes : three arrays
        Middles (m) of the voxels along z, y, x.
    regions : sequence of Region
    rest : float
        Value far from all of them.
    """
    z, y, x = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    total = np.full([len(axis) for axis in axes], _REST)
    found = total * rest
    for region in regions:
        weight = region.weight(x, y, z)
        total += weight
        found += weight * region.value
    return found / total


def prescribed(
    mean: float | None, regional: np.ndarray, pattern: np.ndarray, variation: float, weight: np.ndarray
) -> np.ndarray:
    """A map within 0..1: the regional one with a random pattern, moved as a whole to the mean asked for.

    Regions and pattern add up as logits, so that the map stays a fraction whatever the mean.

    Parameters
    ----------
    mean : float or None
        Mean over `weight`; None keeps that of `regional`.
    regional, pattern : array, (z, y, x)
        Fractions within 0..1, and a pattern of unit variance.
    variation : float
        Standard deviation of the pattern in the logit.
    weight : array, (z, y, x)
    """
    if mean is None:
        mean = float((regional * weight).sum() / weight.sum())
    logit = np.log(regional / (1 - regional)) + variation * pattern
    return patterns.streaks(mean, 1.0, logit, weight)


def spongy(
    core: np.ndarray, bvtv: np.ndarray, pdff: np.ndarray, f: np.ndarray, D: float, D_star: float, field: float,
    condition: str,
) -> list[Pool]:
    """Marrow and trabeculae of a core (z, y, x), of mapped BV/TV, PDFF and perfusion fraction; D in mm2/s."""
    pools = recipes.marrow(core * (1 - bvtv), pdff=pdff, f=f, field=field, condition=condition, D=D, D_star=D_star)
    return pools + recipes.bone(core * bvtv, "trabecular", field=field, condition=condition)
