"""A homogeneous block of marrow of known values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs, recipes
from .phantom import MOST_VOXELS, Phantom, sourced


@sourced
def marrow_block(
    condition: str | None = None,
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    shape: Sequence[int] = (1, 1, 1),
    f: Any = None,
    D: Any = None,
    D_star: Any = None,
    pdff: Any = None,
    bvtv: Any = 0.0,
    kurtosis: Any = None,
    T1_water: Any = None,
    T2_water: Any = None,
    T1_blood: Any = None,
    T2_blood: Any = None,
    T1_fat: Any = None,
    T2_fat: Any = None,
    D_fat: Any = None,
    R2_prime: Any = None,
    spectrum: str | tuple[Any, Any] | None = None,
    ndb: float | None = None,
    nmidb: float | None = None,
    chain_length: float | None = None,
) -> Phantom:
    """A block of marrow of known values, the same in every voxel or one value a voxel.

    Parameters
    ----------
    condition : str, optional
        Condition whose tissue values stand where nothing else is given; default the healthy population.
    seed : int
        Kept in the attributes; the block itself holds no randomness.
    resolution : float
        Edge of a voxel (m).
    field : float
        Field strength (T).
    shape : sequence of int
        Voxels along z, y, x.
    f, pdff, bvtv : float or array
        Perfusion fraction (spin density), proton density fat fraction, bone volume fraction; arrays broadcast
        to `shape`.
    D, D_star, D_fat : float or array
        Diffusivity of marrow water, pseudo-diffusivity of blood, diffusivity of fat (mm2/s).
    kurtosis : float or array
        Excess kurtosis of marrow water; default 0 (Gaussian diffusion).
    T1_water, T2_water, T1_blood, T2_blood, T1_fat, T2_fat : float or array
        Relaxation times (s).
    R2_prime : float or array
        Reversible rate (1/s) that all pools of the marrow share; default 0.
    spectrum : str or (shift, area)
        Fat spectrum: a name of ``simulator.tissues.spectra()``, or shifts (ppm) and relative areas; default
        ``"fat_marrow"``.
    ndb, nmidb, chain_length : float
        Instead of `spectrum`: double bonds, methylene-interrupted double bonds and chain length of the mean
        triglyceride.

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        An unknown condition or spectrum, a value out of range, a field without data, a shape that is none.
    """
    where = "marrow_block"
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    resolution = inputs.resolution(where, resolution, np.inf)
    try:
        grid = tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        grid = ()
    if len(grid) != 3 or min(grid) < 1:
        raise InputError(f"{where}: shape is {shape!r}, should be three whole numbers of voxels (z, y, x)")
    inputs.shape(where, grid, MOST_VOXELS)
    limits = {
        "f": (0.0, 1.0, ""), "pdff": (0.0, 1.0, ""), "kurtosis": (0.0, 10.0, ""), "R2_prime": (0.0, 1e4, "1/s"),
        "D": (0.0, recipes.FASTEST_D, "mm2/s"), "D_fat": (0.0, recipes.FASTEST_D, "mm2/s"),
        "D_star": (0.0, recipes.FASTEST_D_STAR, "mm2/s"),
        **{name: (1e-6, 60.0, "s") for name in ("T1_water", "T2_water", "T1_blood", "T2_blood", "T1_fat", "T2_fat")},
    }
    asked = {"f": f, "pdff": pdff, "kurtosis": kurtosis, "D": D, "D_fat": D_fat, "D_star": D_star,
             "T1_water": T1_water, "T2_water": T2_water, "T1_blood": T1_blood, "T2_blood": T2_blood,
             "T1_fat": T1_fat, "T2_fat": T2_fat, "R2_prime": R2_prime}
    values = {name: _spread(where, name, value, grid, *limits[name])
              for name, value in asked.items() if value is not None}
    bone = _spread(where, "bvtv", bvtv, grid, 0.0, 1.0, "", below=True)
    mean = {"f": tissues.value("marrow.perfusion_fraction", field, condition),
            "pdff": tissues.value("marrow.pdff", field, condition)}
    fractions = {name: np.broadcast_to(values.pop(name, mean[name]), grid) for name in ("pdff", "f")}
    pools = recipes.marrow(np.broadcast_to(1.0 - bone, grid), field=field, condition=condition, spectrum=spectrum,
                           ndb=ndb, nmidb=nmidb, chain_length=chain_length, **fractions, **values)
    if np.any(bone > 0):
        pools += recipes.bone(np.broadcast_to(bone, grid), "trabecular", field=field, condition=condition)
    parameters = {"shape": grid, "bvtv": bvtv, **{k: v for k, v in asked.items() if v is not None}}
    parameters |= {"ndb": ndb, "nmidb": nmidb, "chain_length": chain_length}
    if isinstance(spectrum, str):
        parameters["spectrum"] = spectrum
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters)


def _spread(where: str, name: str, value: Any, grid: tuple[int, ...], low: float, high: float, unit: str,
            below: bool = False) -> Any:
    """A checked number as it is, an array broadcast to the grid."""
    found = inputs.numbers(where, name, value, low, high, unit, below)
    if found.ndim == 0:
        return float(found)
    try:
        return np.broadcast_to(found, grid)
    except ValueError:
        raise InputError(f"{where}: {name} has shape {found.shape}, should be one number or fit {grid}") from None
