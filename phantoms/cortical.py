"""The lower leg at mid-shaft of the tibia: cortical bone and its pores, marrow inside, muscles outside, vials.

Every Haversian canal of the cross-section is drawn (some thousands), whatever the resolution: at 20 um they are
seen, at imaging voxels their exact areas make the porosity map, with its gradient and its grain.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..simulator import tissues
from . import haversian, inputs, leg, recipes, transfer
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import Pool

_FINE = 0.1e-3  # m; voxels are averages over squares of about this edge
_VIAL_RADIUS = 6e-3  # m
_VIAL_GAP = 4e-3  # m from the skin
_VIALS = {"vial_10": (0.10, 62.0), "vial_20": (0.20, 86.0), "vial_30": (0.30, 110.0), "vial_40": (0.40, 134.0)}
_EMPTY = 3e-3  # m of air around


@sourced
def cortical(
    condition: str = "young",
    seed: int = 0,
    resolution: float | None = None,
    field: float = 3.0,
    porosity: float | None = None,
    canal_diameter: float | None = None,
    thickness: float | None = None,
    pdff: float | None = None,
    slices: int = 4,
    canals: bool = False,
    vials: bool = True,
    susceptibility_applied: bool | None = None,
    exchange: bool = False,
) -> Phantom:
    """A cross-section of the lower leg at mid-shaft, the same in every slice.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given.
    seed : int
        Draws the sizes of the leg and the canals of its bones.
    resolution : float, optional
        Edge of a voxel (m), default 1 mm, or 40 um with `canals`; the anatomy does not depend on it.
    field : float
        Field strength (T), along the shaft.
    porosity : float, optional
        Volume of canals, lacunae and canaliculi over volume of cortical bone, 0 to 0.3.
    canal_diameter : float, optional
        Diameter (m) of a circle of mean canal area; default what the porosity and the published number of canals give.
    thickness : float, optional
        Mean thickness (m) of the cortex of the tibia.
    pdff : float, optional
        Proton density fat fraction of the marrow in the shaft.
    slices : int
        Voxels along z.
    canals : bool
        True: the tibia alone as a specimen with its marrow, fine enough to see the canals.
    vials : bool
        Four reference vials before the shin: 10 to 40 % H2O in D2O, with MnCl2 to the T2 of bound water.
    susceptibility_applied : bool
        True where the susceptibility field is applied to the pools: R2' of pore water is then zero. Default: with
        `canals`, where the structure that makes the field is there; its canals are straight, and what tilted ones
        would add to R2' is lacking then.
    exchange : bool
        True: bound water and collagen exchange, and have intrinsic T1 (see :mod:`bonemri.phantoms.transfer`).

    Returns
    -------
    Phantom
        With ``porosity cortical_thickness cortical_area canal_diameter canal_density`` of the tibia measured.

    Raises
    ------
    InputError
        An unknown condition, a value out of range, a field without data, voxels larger than the tibia or too many of
        them, canals that do not fit.
    """
    where = "cortical"
    condition, seed, slices = haversian.checked(where, condition, seed, slices)
    wanted = haversian.plan(where, condition, field, porosity, canal_diameter)
    if thickness is not None:
        thickness = inputs.number(where, "thickness", thickness, 1e-3, 7.5e-3, "m")
    fat = tissues.value("tibia.pdff") if pdff is None else inputs.number(where, "pdff", pdff, 0.0, 1.0)
    if resolution is None:
        resolution = 40e-6 if canals else 1e-3
    if susceptibility_applied is None:
        susceptibility_applied = canals

    shape_seed, *bone_seeds = np.random.SeedSequence(seed).spawn(3)
    body = leg.draw(np.random.default_rng(shape_seed), field, condition, thickness)
    resolution = inputs.resolution(where, resolution, body.tibia.thickness())
    racks = {} if canals or not vials else _vials(body)
    middle, half = _frame(body, canals, bool(racks))
    shape = tuple(2 * math.ceil(side / resolution) for side in half)
    inputs.shape(where, (slices, *shape), MOST_VOXELS)
    drawn = [haversian.draw(where, np.random.default_rng(each), shaft.area(), wanted["canals"], shaft.candidates,
                            wanted["density"], wanted["spread"], wanted["gradient"])
             for each, shaft in zip(bone_seeds, (body.tibia, body.fibula), strict=True)]
    of_tibia = drawn[0]
    regions, tubes = _regions(body, racks, shape, resolution, middle)
    if canals:
        regions = {"cortex": regions["tibia"], "tibia": regions["tibia"],
                   "marrow": np.where(regions["near"] > 0, regions["marrow"], 0.0)}
        drawn = drawn[:1]
    every = haversian.Canals(*(np.concatenate([getattr(one, axis) for one in drawn]) for axis in ("x", "y", "radius")))
    every = replace(every, x=every.x - middle[1], y=every.y - middle[0])
    pools, met = haversian.bone_pools(regions["cortex"], every, wanted["lacunar"], resolution, field=field,
                                      condition=condition, susceptibility_applied=susceptibility_applied, slices=slices)

    def extruded(plane: np.ndarray) -> np.ndarray:
        return np.broadcast_to(plane, (slices, *shape))

    pools += recipes.marrow(extruded(regions["marrow"]), pdff=fat, field=field, condition=condition,
                            f=tissues.value("marrow.perfusion_fraction", field, condition))
    if not canals:
        pools += recipes.muscle(extruded(regions["muscle"]), pdff=tissues.value("muscle.pdff", field, condition),
                                field=field, condition=condition)
        pools += recipes.adipose(extruded(regions["adipose"]), field=field)
        pools += recipes.vein(extruded(regions["vein"]), field=field)
    for name, tube in tubes.items():
        pools += _reference(extruded(tube), name, field)
    fitted: dict[str, float] = {}
    if exchange:
        pools, fitted = transfer.exchanging(pools, "cortical_bound_water", "cortical_collagen", field)
    parameters: dict[str, Any] = {
        "porosity": porosity, "canal_diameter": canal_diameter, "thickness": thickness, "pdff": pdff, "slices": slices,
        "canals": canals, "vials": vials, "susceptibility_applied": susceptibility_applied,
        "exchange": exchange}
    measured = {"porosity": met, "cortical_thickness": body.tibia.thickness(), "cortical_area": body.tibia.area(),
                **haversian.statistics(of_tibia, body.tibia.area()), **fitted}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured, endless=True)


def _vials(body: leg.Leg) -> dict[str, tuple[float, float]]:
    """Middle (x, y; m) of each vial, along the shin."""
    found = {}
    for name, (_, degrees) in _VIALS.items():
        angle = math.radians(degrees)
        # Clear of the skin over the whole width of the vial, not only under its middle.
        around = angle + np.linspace(-0.15, 0.15, 7)
        away = float(body.skin.at(np.mod(around, 2 * np.pi)).max()) + _VIAL_RADIUS + _VIAL_GAP
        found[name] = (away * math.cos(angle), away * math.sin(angle))
    return found


def _frame(body: leg.Leg, specimen: bool, vials: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle and half sides (y, x; m) of the field of view, with air around."""
    contour = body.tibia.outer if specimen else body.skin
    angle = np.arange(contour.radius.size) / contour.radius.size * 2 * np.pi
    x, y = contour.x + contour.radius * np.cos(angle), contour.y + contour.radius * np.sin(angle)
    if vials:
        reach = np.array(list(_vials(body).values()))
        x = np.concatenate([x, reach[:, 0] - _VIAL_RADIUS, reach[:, 0] + _VIAL_RADIUS])
        y = np.concatenate([y, reach[:, 1] - _VIAL_RADIUS, reach[:, 1] + _VIAL_RADIUS])
    air = _EMPTY / 10 if specimen else _EMPTY
    return (((y.max() + y.min()) / 2, (x.max() + x.min()) / 2),
            ((y.max() - y.min()) / 2 + air, (x.max() - x.min()) / 2 + air))


def _regions(
    body: leg.Leg, racks: dict[str, tuple[float, float]], shape: tuple[int, ...], resolution: float,
    middle: tuple[float, float],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Share of each pixel in each tissue and in each vial, averaged over small squares, a row of pixels at a time."""
    sub = int(np.clip(round(resolution / _FINE), 2, 10))
    size = resolution / sub
    rows, columns = (((np.arange(n * sub) + 0.5) / sub - n / 2) * resolution + at
                     for n, at in zip(shape, middle, strict=True))
    found: dict[str, np.ndarray] = {}
    tubes = {name: np.zeros(shape) for name in racks}
    step = max(1, 200_000 // (sub * columns.size)) * sub  # a strip of a few MB
    for start in range(0, rows.size, step):
        y, x = np.meshgrid(rows[start:start + step], columns, indexing="ij")
        strip = body.regions(x, y, size)
        strip["near"] = (body.tibia.outer.distance(x, y) > -size).astype(float)

        def average(fine: np.ndarray) -> np.ndarray:
            return np.asarray(fine.reshape(fine.shape[0] // sub, sub, shape[1], sub).mean(axis=(1, 3)))

        lines = slice(start // sub, start // sub + y.shape[0] // sub)
        for name, fine in strip.items():
            found.setdefault(name, np.zeros(shape))[lines] = average(fine)
        for name, (vx, vy) in racks.items():
            inside = np.clip(0.5 + (_VIAL_RADIUS - np.hypot(x - vx, y - vy)) / size, 0.0, 1.0)
            tubes[name][lines] = average(inside)
    return found, tubes


def _reference(volume: np.ndarray, name: str, field: float) -> list[Pool]:
    """A vial of H2O in D2O with as much MnCl2 as brings T2 to that of bound water."""
    share, _ = _VIALS[name]
    wanted = tissues.value("bound_water.T2", field)
    dose = (1 / wanted - 1 / tissues.value("pore_water.T2_bulk", field)) / tissues.value("manganese.r2", field)
    T1 = 1 / (1 / tissues.value("pore_water.T1_bulk", field) + dose * tissues.value("manganese.r1", field))
    return recipes.solution(volume, name, T1=T1, T2=wanted, light_water=share)
