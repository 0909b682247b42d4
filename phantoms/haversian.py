"""Haversian canals as explicit structure: their statistics, and a block of cortex at fine scale.

Canals run along the bone (z). Their number per area is that of published sections and hardly changes with age;
their diameters are log-normal, and it is canal size that takes up the porosity asked for: pore area, and not pore
density, makes 81 % of the variance of porosity [1]_. Towards the marrow canals widen [2]_. No two canals overlap: they
are placed one by one, the widest first, at random where there is room (a hard-core process).

References
----------
.. [1] Thomas 2006, J Anat 209:219, doi:10.1111/j.1469-7580.2006.00589.x.
.. [2] Bousson 2001, J Bone Miner Res 16:1308, doi:10.1359/jbmr.2001.16.7.1308.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs, pores, recipes
from .phantom import MOST_VOXELS, Phantom, sourced

MOST_POROSITY = 0.3  # above, canals have merged into the marrow space and are no canals
_WALL = 20e-6  # m of bone at least between a canal and the surface
_CLEARANCE = 1.12  # of the sum of two radii, at least, between two axes; room for the last scaling to size
_BATCH, _PATIENCE = 4, 500


@dataclass(frozen=True)
class Canals:
    """Axes (m) and radii (m) of canals, all along z."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray

    def area(self) -> float:
        """Total area (m2)."""
        return float((np.pi * self.radius**2).sum())

    def of_class(self, name: str) -> Canals:
        """Those of one of ``pores.CLASSES``."""
        low, high = pores.CLASSES[name]
        chosen = (2 * self.radius >= low) & (2 * self.radius < high)
        return Canals(self.x[chosen], self.y[chosen], self.radius[chosen])

    def fill(self, shape: tuple[int, int], resolution: float) -> np.ndarray:
        """Share of each pixel (y, x) of a centred grid that canals take up, by the exact area of disc and square.

        Areas add, so that a coarse grid holds exactly the mean of a fine one.
        """
        filled = np.zeros(shape)
        low = [-n / 2 * resolution for n in shape]
        for x, y, r in zip(self.x, self.y, self.radius, strict=True):
            first = [math.floor((at - r - edge) / resolution) for at, edge in ((y, low[0]), (x, low[1]))]
            last = [math.ceil((at + r - edge) / resolution) for at, edge in ((y, low[0]), (x, low[1]))]
            first = [max(i, 0) for i in first]
            last = [min(i, n) for i, n in zip(last, shape, strict=True)]
            if first[0] >= last[0] or first[1] >= last[1]:
                continue
            rows, columns = ((edge + np.arange(i, j + 1) * resolution - at) / r
                             for edge, i, j, at in zip(low, first, last, (y, x), strict=True))
            corner = _below(columns[None, :], rows[:, None])
            area = np.diff(np.diff(corner, axis=0), axis=1) * (r / resolution) ** 2
            filled[first[0]:last[0], first[1]:last[1]] += np.maximum(area, 0.0)  # rounding apart, none is negative
        return np.minimum(filled, 1.0)


def _below(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Area of the unit disc left of `x` and below `y`."""
    x, y = np.clip(x, -1.0, 1.0), np.clip(y, -1.0, 1.0)

    def half(at: np.ndarray) -> np.ndarray:
        return (at * np.sqrt(1 - at**2) + np.arcsin(at)) / 2

    wide = np.sqrt(1 - y**2)  # the line at y meets the circle at -wide and wide
    inside = np.clip(x, -wide, wide)
    left = half(x) + np.pi / 4
    caps = left - (half(inside) + half(wide))
    found: np.ndarray = left + np.sign(y) * caps + y * (inside + wide)
    return found


def draw(
    where: str,
    rng: np.random.Generator,
    area: float,
    porosity: float,
    candidates: Callable[[np.random.Generator, int], tuple[np.ndarray, ...]],
    density: float,
    spread: float,
    gradient: float,
) -> Canals:
    """Place canals that take up exactly `porosity` of `area`.

    Parameters
    ----------
    where : str
        Who asks, for the error.
    rng : Generator
    area : float
        Area of cortex (m2).
    porosity : float
        Area of canals over area of cortex.
    candidates : callable
        ``candidates(rng, n)``: n points uniform over the cortex: x, y (m), depth (0 at the periosteal, 1 at the
        endosteal surface) and distance (m) to the nearest surface.
    density : float
        Canals per area (1/m2).
    spread : float
        Standard deviation of the logarithm of diameter.
    gradient : float
        Mean canal area at the endosteal over that at the periosteal surface.

    Raises
    ------
    InputError
        The canals do not fit without overlap.
    """
    count = round(density * area)
    if porosity <= 0 or count == 0:
        return Canals(*(np.zeros(0) for _ in range(3)))
    from scipy.special import ndtri

    # One normal number from each of `count` equal shares of the distribution: log-normal, with little sampling noise.
    score = ndtri((np.arange(count)[::-1] + rng.random(count)) / count)
    equivalent = math.sqrt(4 * porosity * area / (math.pi * count))
    size = pores.median_diameter(equivalent, spread) / 2 * np.exp(spread * score)
    found = np.zeros((3, count))
    supply = np.zeros((4, 0))
    for i in range(count):
        for _ in range(_PATIENCE):
            if supply.shape[1] < _BATCH:
                supply = np.stack(candidates(rng, _BATCH * (count + 100)))
            (x, y, depth, room), supply = supply[:, :_BATCH], supply[:, _BATCH:]
            radius = size[i] * np.sqrt((1 + (gradient - 1) * depth) / ((1 + gradient) / 2))
            apart = (x[:, None] - found[0, :i]) ** 2 + (y[:, None] - found[1, :i]) ** 2
            near = apart < (_CLEARANCE * (radius[:, None] + found[2, :i])) ** 2
            free = np.flatnonzero((room > radius * _CLEARANCE + _WALL) & ~near.any(axis=1))
            if free.size:
                found[:, i] = x[free[0]], y[free[0]], radius[free[0]]
                break
        else:
            raise InputError(f"{where}: canals of porosity {porosity:.3g} at {density * 1e-6:.3g} per mm2 do not fit "
                             "without merging; a lower porosity, a thicker cortex or smaller canals would")
    x, y, radius = found
    scale = math.sqrt(porosity * area / float((np.pi * radius**2).sum()))
    if scale > _CLEARANCE:
        raise InputError(f"{where}: too few canals ({count}) for porosity {porosity:.3g}; more bone would do")
    return Canals(x, y, radius * scale)


def plan(where: str, condition: str, field: float, porosity: float | None, canal_diameter: float | None
         ) -> dict[str, float]:
    """Canal statistics that give a porosity: what is asked for, or that of the condition.

    Returns
    -------
    dict
        ``porosity``, ``canals`` (canal area over bone area), ``lacunar`` (share of the bone between canals),
        ``density`` (1/m2), ``spread`` and ``gradient``. With `canal_diameter` (m) the number of canals
        follows from the porosity; without, their size does.
    """
    if porosity is None:
        porosity = tissues.value("cortical.porosity", field, condition)
    porosity = inputs.number(where, "porosity", porosity, 0.0, 1.0)
    if porosity > MOST_POROSITY:
        raise InputError(f"{where}: porosity is {porosity:g}, should lie from 0 to {MOST_POROSITY:g}: "
                         "above, canals merge")
    canals, lacunar = pores.split(porosity)
    spread = tissues.value("cortical.canal_spread")
    density = tissues.value("cortical.canal_density")
    if canal_diameter is not None:
        canal_diameter = inputs.number(where, "canal_diameter", canal_diameter, 5e-6, 1e-3, "m")
        density = canals / (math.pi / 4 * canal_diameter**2)
    return {"porosity": porosity, "canals": canals, "lacunar": lacunar, "density": density, "spread": spread,
            "gradient": tissues.value("cortical.porosity_gradient")}


def bone_pools(
    cortex: np.ndarray, canals: Canals, lacunar: float, resolution: float, *, field: float, condition: str,
    susceptibility_applied: bool, slices: int,
) -> tuple[list[Any], float]:
    """Pools of cortical bone and its pore water, extruded over slices, and the porosity they have.

    Parameters
    ----------
    cortex : array, (y, x)
        Share of each pixel that is cortical bone, pores included.
    canals : Canals
    lacunar : float
        Lacunar share of the bone between canals.
    """
    parts = {name: canals.of_class(name) for name in pores.CLASSES}
    open_ = {name: part.fill(cortex.shape, resolution) for name, part in parts.items()}
    # A pixel at the surface may hold, by a rounding of its outline, less bone than canal.
    excess = np.maximum(sum(open_.values()), 1e-300)
    keep = np.minimum(1.0, cortex / excess)
    open_ = {name: each * keep for name, each in open_.items()}
    between = np.maximum(cortex - sum(open_.values()), 0.0)
    tiny = lacunar * between
    share = float(sum(each.sum() for each in open_.values()) / cortex.sum())

    def extruded(plane: np.ndarray) -> np.ndarray:
        return np.broadcast_to(plane, (slices, *plane.shape))

    classes = {name: (extruded(open_[name]), 2 * part.radius, part.radius**2) for name, part in parts.items()}
    water = pores.pore_water(classes, extruded(tiny), field=field, porosity=share,
                             susceptibility_applied=susceptibility_applied)
    solid = recipes.bone(extruded(between - tiny), "cortical", field=field, condition=condition)
    return [*solid, *water], share + float(tiny.sum() / cortex.sum())


def statistics(canals: Canals, area: float) -> dict[str, float]:
    """Diameter (m) of a circle of mean area, and number per area (1/m2) of the canals in `area` (m2) of cortex."""
    if not canals.x.size:
        return {"canal_density": 0.0}
    return {"canal_diameter": float(2 * np.sqrt((canals.radius**2).mean())), "canal_density": canals.x.size / area}


@sourced
def haversian(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 20e-6,
    field: float = 3.0,
    porosity: float | None = None,
    canal_diameter: float | None = None,
    thickness: float | None = None,
    width: float = 3e-3,
    slices: int = 4,
    susceptibility_applied: bool = True,
) -> Phantom:
    """A block of cortical bone with its Haversian canals, from the periosteal (left) to the endosteal surface (right).

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given.
    seed : int
        Draws the canals.
    resolution : float
        Edge of a voxel (m); the canals do not depend on it.
    field : float
        Field strength (T).
    porosity : float, optional
        Volume of canals, lacunae and canaliculi over bone volume, 0 to 0.3.
    canal_diameter : float, optional
        Diameter (m) of a circle of mean canal area; default what the porosity and the published number of canals give.
    thickness : float, optional
        Of the cortex (m), along x.
    width : float
        Of the block (m), along y.
    slices : int
        Voxels along z, the direction of the canals.
    susceptibility_applied : bool
        True (default, since the structure is resolved): R2' of pore water is zero. The canals drawn here are
        straight; the recipe's R2' comes mostly from their tilt, which this structure therefore lacks.

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        An unknown condition, a value out of range, a field without data, voxels larger than the block, canals that do
        not fit.
    """
    where = "haversian"
    condition, seed, slices = checked(where, condition, seed, slices)
    wanted = plan(where, condition, field, porosity, canal_diameter)
    depth = tissues.value("cortical.thickness", field, condition) if thickness is None else thickness
    depth = inputs.number(where, "thickness", depth, 0.5e-3, 20e-3, "m")
    width = inputs.number(where, "width", width, 0.5e-3, 20e-3, "m")
    resolution = inputs.resolution(where, resolution, min(depth, width) / 4)
    shape = tuple(math.ceil(side / resolution) + 2 for side in (width, depth))
    inputs.shape(where, (slices, *shape), MOST_VOXELS)

    def candidates(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
        u, v = rng.random((2, n))
        room = np.minimum(np.minimum(u, 1 - u) * depth, np.minimum(v, 1 - v) * width)
        return (u - 0.5) * depth, (v - 0.5) * width, u, room

    canals = draw(where, np.random.default_rng(np.random.SeedSequence(seed)), depth * width, wanted["canals"],
                  candidates, wanted["density"], wanted["spread"], wanted["gradient"])
    rows, columns = (_covered(n, resolution, side) for n, side in zip(shape, (width, depth), strict=True))
    cortex = rows[:, None] * columns[None, :]
    pools, met = bone_pools(cortex, canals, wanted["lacunar"], resolution, field=field, condition=condition,
                            susceptibility_applied=susceptibility_applied, slices=slices)
    parameters = {"porosity": porosity, "canal_diameter": canal_diameter, "thickness": thickness, "width": width,
                  "slices": slices, "susceptibility_applied": susceptibility_applied}
    measured = {"porosity": met, "cortical_thickness": depth, **statistics(canals, depth * width)}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured, endless=True)


def checked(where: str, condition: str, seed: int, slices: int) -> tuple[str, int, int]:
    """A known condition, a seed, a whole number of slices."""
    if condition is None:
        raise InputError(f"{where}: condition is None, should be one of {', '.join(tissues.CONDITIONS)}")
    tissues.check_condition(condition, where)
    if isinstance(slices, bool) or not isinstance(slices, (int, np.integer)) or slices < 1:
        raise InputError(f"{where}: slices is {slices!r}, should be a whole number from 1 up")
    return condition, inputs.seed(where, seed), int(slices)


def _covered(count: int, resolution: float, side: float) -> np.ndarray:
    """Share of each of `count` centred pixels that a centred interval of length `side` covers."""
    edges = np.clip((np.arange(count + 1) - count / 2) * resolution, -side / 2, side / 2)
    covered: np.ndarray = np.diff(edges) / resolution
    return covered
