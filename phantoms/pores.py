"""Water in the pores of cortical bone: from porosity and pore sizes to spin pools, their T1, T2 and R2'.

T2 follows from the walls. Water that touches the wall relaxes there at the surface relaxivity rho; while it
diffuses across the pore faster than the wall relaxes it (``rho d / D`` well below 1, fast diffusion) the whole pore
decays as one exponential [1]_::

    1/T2 = 1/T2_bulk + rho S/V,    S/V = 4/d in a canal (cylinder), 6/d in a lacuna (sphere)

Wide canals leave that regime: at ``rho d / D = 1`` the formula overrates the surface term by an eighth. Pools
therefore carry the slowest mode of the same theory, which is this formula in fast diffusion and holds at any ratio;
:func:`slowest_rate` solves it and :func:`diffusion_ratio` tells the regime. What the faster modes hold of the signal
(under 1 % at a ratio of 1, up to 31 % where diffusion alone limits) decays as the slowest. T1 obeys the same law
with a relaxivity of its own, in series with the T1 of bound water: at the wall nothing recovers faster than that. The
pores of one size class are one pool, whose rate is their mean, weighted by volume.

R2' follows from the susceptibility of water against bone, ``dchi``. It is static and proportional to B0, and two
things cause it: every canal shifts its own water by ``gamma B0 dchi (cos2 theta - 1/3) / 2``, so canals that lean
differently (theta to B0) differ in frequency; and the canals around dephase the water of each by ``porosity gamma B0
dchi sin2 theta / 2``, the static-dephasing rate of parallel cylinders [2]_. Assumed: long canals, leaning by
normal angles about the axis of the bone, which lies along B0; the decay by leaning (frequencies spread
exponentially, so ``1/sqrt(1 + (w t)^2)``) given by its rate at 1/e; the two rates added; lacunae, taken as spheres,
have no field inside of their own. Where the susceptibility field itself is applied, R2' must be zero, or it counts
twice.

References
----------
.. [1] Brownstein and Tarr 1979, Phys Rev A 19:2446, doi:10.1103/PhysRevA.19.2446.
.. [2] Yablonskiy and Haacke 1994, MRM 32:749, doi:10.1002/mrm.1910320610.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from ..simulator.constants import PROTON
from .pools import Pool

# Size classes of canals by diameter (m): closing osteons, the usual canals, and giant or resorbing ones.
CLASSES = {"small": (0.0, 50e-6), "medium": (50e-6, 100e-6), "large": (100e-6, math.inf)}
_SURFACE = {"cylinder": 4.0, "sphere": 6.0}  # S/V times diameter
_FIRST_ZERO = {"cylinder": 2.404825557695773, "sphere": math.pi}  # of J0; of x cot x - 1 its pole
_GAMMA = 2 * math.pi * PROTON  # rad/s/T
_MM2 = 1e-6  # m2 in a mm2


def relaxation_time(surface_to_volume: Any, bulk: float, relaxivity: float) -> Any:
    """Relaxation time (s) of water in a pore, in fast diffusion.

    Parameters
    ----------
    surface_to_volume : float or array
        Surface over volume of the pore (1/m).
    bulk : float
        Relaxation time of the water far from any wall (s).
    relaxivity : float
        Surface relaxivity (m/s).
    """
    return 1 / (1 / bulk + relaxivity * np.asarray(surface_to_volume, dtype=float))


def surface_to_volume(diameter: Any, shape: str = "cylinder") -> float:
    """Surface over volume (1/m) of pores of one length taken together.

    Parameters
    ----------
    diameter : float or array
        Diameters (m).
    shape : str
        ``"cylinder"`` or ``"sphere"``.

    Raises
    ------
    InputError
        Another shape.
    """
    _known(shape)
    d = np.atleast_1d(np.asarray(diameter, dtype=float))
    power = 1 if shape == "cylinder" else 2
    return float(_SURFACE[shape] * (d**power).sum() / (d ** (power + 1)).sum())


def _known(shape: str) -> None:
    if shape not in _SURFACE:
        raise InputError(f"pores: no shape {shape!r}; known: {', '.join(_SURFACE)}")


def diffusion_ratio(diameter: Any, relaxivity: float, D: float) -> Any:
    """``rho d / D``: the fast-diffusion formula holds well below 1, and overrates the surface term by an eighth of it.

    Parameters
    ----------
    diameter : float or array
        Diameter (m).
    relaxivity : float
        Surface relaxivity (m/s).
    D : float
        Diffusivity (mm2/s).
    """
    return relaxivity * np.asarray(diameter, dtype=float) / (D * _MM2)


def slowest_rate(diameter: Any, relaxivity: float, D: float, shape: str = "cylinder") -> np.ndarray:
    """Rate (1/s) that the wall adds to the bulk rate: the slowest mode of diffusion to a relaxing wall.

    Parameters
    ----------
    diameter : float or array
        Diameter (m).
    relaxivity : float
        Surface relaxivity (m/s).
    D : float
        Diffusivity (mm2/s).
    shape : str
        ``"cylinder"`` or ``"sphere"``.

    Raises
    ------
    InputError
        Another shape.
    """
    _known(shape)
    radius = np.asarray(diameter, dtype=float) / 2
    low = np.zeros(radius.shape)
    high = np.full(radius.shape, _FIRST_ZERO[shape])
    wanted = relaxivity * radius / (D * _MM2)
    for _ in range(60):  # halving to the last bit: what the wall asks for grows steadily with x up to the zero
        middle = (low + high) / 2
        below = _wall(middle, shape) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(D * _MM2 * (low / radius) ** 2)


def _wall(x: np.ndarray, shape: str) -> np.ndarray:
    """``rho R / D`` of the mode cos or J0 (x r / R): its slope at the wall over its value there."""
    from scipy.special import j0, j1

    if shape == "cylinder":
        return np.asarray(x * j1(x) / j0(x))
    return np.asarray(1 - x / np.tan(x))


def longitudinal_relaxivity(field: float) -> float:
    """Surface relaxivity of T1 (m/s) that gives the measured T1 of pore water in a canal of population size."""
    excess = 1 / tissues.value("pore_water.T1", field) - 1 / tissues.value("pore_water.T1_bulk", field)
    if excess <= 0:
        return 0.0
    radius, D = tissues.value("cortical.canal_diameter") / 2, tissues.value("pore_water.D") * _MM2
    # Diffusion can bring no more to the wall than the slowest mode at its end.
    wait = max(1 / excess - tissues.value("bound_water.T1", field), radius**2 / D / 5.5)
    return D / radius * float(_wall(np.asarray(radius / math.sqrt(wait * D)), "cylinder"))


def reversible_rate(field: float, porosity: float, tilt: float) -> tuple[float, float]:
    """R2' (1/s) of water in canals that lean differently, and of water (of lacunae) merely among canals.

    Parameters
    ----------
    field : float
        Field strength (T), along the axis of the bone.
    porosity : float
        Volume of canals over volume of bone.
    tilt : float
        Standard deviation (deg) of the angle by which canals lean, in each of the two planes along the axis.
    """
    sine = _mean_sine_squared(math.radians(tilt) ** 2)
    contrast = abs(tissues.value("water.chi") - tissues.value("bone.chi")) * 1e-6
    spread = _GAMMA * field * contrast / 2 * sine  # rad/s
    among = porosity * spread
    return spread / math.sqrt(math.e**2 - 1) + among, among


def _mean_sine_squared(variance: float) -> float:
    """Mean of sin2 theta, theta Rayleigh with `variance` (rad2) in each plane."""
    if variance == 0:
        return 0.0
    angle = (np.arange(2000) + 0.5) / 2000 * math.pi / 2
    weight = angle * np.exp(-(angle**2) / (2 * variance))
    return float((weight * np.sin(angle) ** 2).sum() / weight.sum())


def median_diameter(equivalent: float, spread: float) -> float:
    """Median diameter (m) of log-normal canals whose mean area is that of a circle of diameter `equivalent`."""
    return equivalent * math.exp(-(spread**2))


def split(porosity: float) -> tuple[float, float]:
    """Canal volume over bone, and lacunar-canalicular volume over what is not canal, of a given porosity.

    Bone between canals carries the lacunar porosity of ``tissues.toml``, which does not change with age; the rest is
    canals. Bone less porous than that has no canals.
    """
    lacunar = min(tissues.value("cortical.lacunar_porosity"), porosity)
    return (0.0 if lacunar == 1 else (porosity - lacunar) / (1 - lacunar)), lacunar


def shares(diameter: float, spread: float) -> dict[str, tuple[float, np.ndarray]]:
    """Share of canal volume of each size class of a log-normal distribution, and diameters that stand for the class.

    Parameters
    ----------
    diameter : float
        Median diameter (m).
    spread : float
        Standard deviation of the logarithm of diameter, above 0.

    Returns
    -------
    dict of str to (float, array)
        The diameters (m) are quantiles of volume: each stands for the same volume of canals.
    """
    from scipy.special import ndtr, ndtri

    # By volume a log-normal is a log-normal again, shifted by twice the variance.
    middle = math.log(diameter) + 2 * spread**2
    found = {}
    for name, (low, high) in CLASSES.items():
        ends = [0.0 if low == 0 else float(ndtr((math.log(low) - middle) / spread)),
                1.0 if math.isinf(high) else float(ndtr((math.log(high) - middle) / spread))]
        within = ends[0] + (np.arange(200) + 0.5) / 200 * (ends[1] - ends[0])
        found[name] = (ends[1] - ends[0], np.exp(middle + spread * ndtri(np.clip(within, 1e-12, 1 - 1e-12))))
    return found


def from_distribution(
    porosity: np.ndarray,
    *,
    diameter: float,
    spread: float,
    field: float,
    susceptibility_applied: bool = False,
) -> list[Pool]:
    """Pore-water pools of bone of a given porosity map and log-normal canals: the recipe without explicit canals.

    Parameters
    ----------
    porosity : array, (z, y, x)
        Pore volume over voxel volume, the voxels full of cortical bone.
    diameter : float
        Median diameter of canals (m).
    spread : float
        Standard deviation of the logarithm of diameter.
    field : float
        Field strength (T).
    susceptibility_applied : bool
        See :func:`pore_water`.
    """
    lacunar = np.minimum(tissues.value("cortical.lacunar_porosity"), porosity)
    canals = (porosity - lacunar) / (1 - np.minimum(lacunar, 1 - 1e-12))
    classes = {name: (canals * share, sizes, np.ones_like(sizes))
               for name, (share, sizes) in shares(diameter, spread).items()}
    return pore_water(classes, porosity - canals, field=field, porosity=float(canals.mean()),
                      susceptibility_applied=susceptibility_applied)


def pore_water(
    canals: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    lacunar: np.ndarray,
    *,
    field: float,
    porosity: float,
    susceptibility_applied: bool = False,
) -> list[Pool]:
    """Pore-water pools ``pore_water_lacunar``, ``_small``, ``_medium``, ``_large``.

    Parameters
    ----------
    canals : mapping of str to (array (z, y, x), array, array)
        For each size class of canals its volume fraction, and diameters (m) with their weights by volume.
    lacunar : array, (z, y, x)
        Volume fraction of lacunae and canaliculi.
    field : float
        Field strength (T).
    porosity : float
        Canal volume over bone volume, for R2'.
    susceptibility_applied : bool
        True where the susceptibility field of the structure is applied to the pools: R2' is then zero.

    Returns
    -------
    list of Pool
        Density that of water times pore volume.

    Raises
    ------
    InputError
        A field or tissue number without data.
    """
    D = tissues.value("pore_water.D")
    walls = {"T1": longitudinal_relaxivity(field), "T2": tissues.value("pore_water.surface_relaxivity", field)}
    bulk = {name: 1 / tissues.value(f"pore_water.{name}_bulk", field) for name in walls}
    at_wall = tissues.value("bound_water.T1", field)
    of_canals, among = (0.0, 0.0) if susceptibility_applied else reversible_rate(
        field, porosity, tissues.value("cortical.canal_tilt"))

    def pool(name: str, volume: np.ndarray, sizes: Any, weights: Any, shape: str, rate: float) -> Pool:
        rates = {kind: slowest_rate(sizes, rho, D, shape) for kind, rho in walls.items()}
        rates["T1"] = rates["T1"] / (1 + rates["T1"] * at_wall)
        times = {kind: 1 / (bulk[kind] + float(np.average(rate, weights=weights))) for kind, rate in rates.items()}
        return Pool(f"pore_water_{name}", "pore_water", volume * tissues.value("water.density"), volume,
                    T1_observed=times["T1"], T2=times["T2"], chi=tissues.value("water.chi"), R2_prime=rate, D=D)

    lacuna = np.array([tissues.value("cortical.lacuna_diameter")])
    found = [pool("lacunar", lacunar, lacuna, np.ones(1), "sphere", among)]
    for name, (volume, sizes, weights) in canals.items():
        if not np.size(sizes):  # an empty class relaxes as a canal of its middle would: it holds no spins
            sizes, weights = np.array([{"small": 35e-6, "medium": 75e-6, "large": 150e-6}[name]]), np.ones(1)
        found.append(pool(name, volume, sizes, weights, "cylinder", of_canals))
    return found
