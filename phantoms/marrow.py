"""Marrow: the recipe from biomarkers to spin pools, and a homogeneous block of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs
from .phantom import MOST_VOXELS, Phantom
from .pools import Pool

# Highest diffusivity that water at body temperature can have, with room (free water: 3.0e-3 mm2/s).
FASTEST_D = 3.5e-3
FASTEST_D_STAR = 1.0


def composition(pdff: Any, f: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Concentrations and volumes that make up one litre of marrow of given fractions.

    The fractions count protons; a litre of water tissue, of blood and of fat hold different numbers of them.
    With n protons in all, fat takes ``n pdff / c_fat`` litres, blood ``n (1 - pdff) f / c_blood``, tissue water
    the rest ``n (1 - pdff)(1 - f) / c_water``, and the three volumes fill the litre: that gives n.

    Parameters
    ----------
    pdff : float or array
        Fat 1H over fat and water 1H.
    f : float or array
        Blood 1H over blood and tissue-water 1H.

    Returns
    -------
    dict
        For ``"water"``, ``"blood"``, ``"fat"``: (mol 1H, litres) per litre of marrow.
    """
    share = {
        "water": (1 - np.asarray(pdff, float)) * (1 - np.asarray(f, float)),
        "blood": (1 - np.asarray(pdff, float)) * np.asarray(f, float),
        "fat": np.asarray(pdff, float) * np.ones_like(np.asarray(f, float)),
    }
    concentration = {name: tissues.value(f"{tissue}.density")
                     for name, tissue in (("water", "marrow_water"), ("blood", "blood"), ("fat", "fat"))}
    litres = sum(share[name] / concentration[name] for name in share)
    return {name: (share[name] / litres, share[name] / concentration[name] / litres) for name in share}


def marrow_pools(
    marrow_volume: np.ndarray,
    *,
    pdff: Any,
    f: Any,
    field: float,
    condition: str | None = None,
    spectrum: str | tuple[Any, Any] = "fat_marrow",
    **properties: Any,
) -> list[Pool]:
    """Water, blood and fat pools of marrow that fills `marrow_volume` of each voxel.

    Parameters
    ----------
    marrow_volume : array, (z, y, x)
        Volume fraction of marrow.
    pdff, f : float or array (z, y, x)
        Proton density fat fraction and spin-density perfusion fraction.
    field : float
        Field strength (T).
    condition : str, optional
        Condition whose tissue values stand where no property is given.
    spectrum : str or (shift, area)
        Fat spectrum: a name of ``tissues.spectra()``, or shifts (ppm) and relative areas.
    **properties : float or array (z, y, x)
        ``D D_star D_fat`` (mm2/s), ``T1_water T2_water T1_blood T2_blood T1_fat T2_fat`` (s), default the
        tissue value; ``kurtosis`` of marrow water, default 0 (Gaussian diffusion).

    Notes
    -----
    R2' is zero in every pool: a spin echo refocuses it, and where the field of the trabeculae is applied it would
    count twice.
    """

    def given(name: str, path: str | None = None) -> Any:
        found = properties.get(name)
        if found is None:
            return 0.0 if path is None else tissues.value(path, field, condition)
        return found

    part = composition(pdff, f)
    density = {name: marrow_volume * moles for name, (moles, _) in part.items()}
    volume = {name: marrow_volume * litres for name, (_, litres) in part.items()}
    if isinstance(spectrum, str):
        shift, area = tissues.spectrum(spectrum)
    else:
        shift, area = (np.atleast_1d(np.asarray(each, dtype=float)) for each in spectrum)
        if shift.ndim != 1 or shift.shape != area.shape or not area.sum() > 0 or (area < 0).any():
            raise InputError("marrow: spectrum should be shifts (ppm) and as many areas, none negative")
        area = area / area.sum()
    return [
        Pool("marrow_water", "marrow_water", density["water"], volume["water"],
             T1_observed=given("T1_water", "marrow_water.T1"), T2=given("T2_water", "marrow_water.T2"),
             chi=tissues.value("water.chi"),
             D=given("D", "marrow_water.D"), kurtosis=given("kurtosis")),
        Pool("blood", "blood", density["blood"], volume["blood"],
             T1_observed=given("T1_blood", "blood.T1"), T2=given("T2_blood", "blood.T2"),
             chi=tissues.value("blood.chi"),
             D_star=given("D_star", "blood.D_star")),
        Pool("fat", "fat", density["fat"], volume["fat"],
             T1_observed=given("T1_fat", "fat.T1"), T2=given("T2_fat", "fat.T2"),
             chi=tissues.value("fat.chi"),
             D=given("D_fat", "fat.D"), shift=shift, peak_area=area),
    ]


def bone_pool(name: str, volume: np.ndarray, field: float) -> Pool:
    """Bone that fills `volume` of each voxel, seen by its bound water."""
    return Pool(
        name, "bound_water", volume * tissues.value("bound_water.density"), volume,
        T1_observed=tissues.value("bound_water.T1", field), T2=tissues.value("bound_water.T2", field),
        chi=tissues.value("bone.chi"),
        D=0.0,  # held in the collagen: it does not diffuse over the length an echo sees
    )


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
    spectrum: str | tuple[Any, Any] = "fat_marrow",
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
    spectrum : str or (shift, area)
        Fat spectrum: a name of ``simulator.tissues.spectra()``, or shifts (ppm) and relative areas.

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
        "f": (0.0, 1.0, ""), "pdff": (0.0, 1.0, ""), "kurtosis": (0.0, 10.0, ""),
        "D": (0.0, FASTEST_D, "mm2/s"), "D_fat": (0.0, FASTEST_D, "mm2/s"), "D_star": (0.0, FASTEST_D_STAR, "mm2/s"),
        **{name: (1e-6, 60.0, "s") for name in ("T1_water", "T2_water", "T1_blood", "T2_blood", "T1_fat", "T2_fat")},
    }
    asked = {"f": f, "pdff": pdff, "kurtosis": kurtosis, "D": D, "D_fat": D_fat, "D_star": D_star,
             "T1_water": T1_water, "T2_water": T2_water, "T1_blood": T1_blood, "T2_blood": T2_blood,
             "T1_fat": T1_fat, "T2_fat": T2_fat}
    values = {name: _spread(where, name, value, grid, *limits[name])
              for name, value in asked.items() if value is not None}
    bone = _spread(where, "bvtv", bvtv, grid, 0.0, 1.0, "", below=True)
    mean = {"f": tissues.value("marrow.perfusion_fraction", field, condition),
            "pdff": tissues.value("marrow.pdff", field, condition)}
    fractions = {name: np.broadcast_to(values.pop(name, mean[name]), grid) for name in ("pdff", "f")}
    pools = marrow_pools(np.broadcast_to(1.0 - bone, grid), field=field, condition=condition, spectrum=spectrum,
                         **fractions, **values)
    if np.any(bone > 0):
        pools.append(bone_pool("trabecular_bone", np.broadcast_to(bone, grid), field))
    parameters = {"shape": grid, "bvtv": bvtv, **{k: v for k, v in asked.items() if v is not None}}
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
