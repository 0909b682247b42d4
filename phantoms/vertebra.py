"""A lumbar vertebral body: cortical shell, trabecular bone, and marrow of smoothly varying composition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import geometry, inputs, patterns, recipes
from .phantom import MOST_VOXELS, Phantom, sourced
from .recipes import FASTEST_D, FASTEST_D_STAR

_PLANE_POWER = 2.5  # between an ellipse (2) and a box: the outline of a body seen from above
_AXIAL_POWER = 8.0  # nearly flat end plates
_WAIST = 0.08  # the body is narrower at mid-height by this share
_DISH = 0.10  # share of the half height by which the middle of an end plate is hollow
_BEAN = 0.14  # share of the half depth by which the back wall is hollow where the canal runs
WAVES = (12e-3, 40e-3)  # m; marrow changes its composition over such lengths
WEDGE = 0.30  # anterior height lost in the fractured body: Genant grade 2 (25 to 40 %)

_DEFAULT = {"pdff": "marrow.pdff", "perfusion_fraction": "marrow.perfusion_fraction", "bvtv": "trabecular.bvtv",
            "D": "marrow_water.D", "D_star": "blood.D_star"}


@dataclass(frozen=True)
class Body:
    """Half axes (m) of a vertebral body at its rims, and the share of anterior height it has lost."""

    x: float
    y: float
    z: float
    wedge: float = 0.0

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, inset: float = 0.0) -> np.ndarray:
        """Signed distance (m) to the surface of the body whose half axes are shorter by `inset`."""
        along, across = self.y - inset, self.x - inset
        wide, deep = abs(x) / across, y / along
        deep = deep - _BEAN * np.maximum(1 - (wide / 0.6) ** 2, 0) ** 2 * np.clip(0.5 - 0.5 * deep, 0, 1)
        middle = np.maximum(1 - wide**2 - deep**2, 0)
        lost = self.wedge * np.clip(0.5 + y / (2 * self.y), 0, 1)
        half_height = (self.z - inset) * (1 - lost) * (1 - _DISH * middle)
        upright = abs(z) / half_height
        waist = 1 - _WAIST * (1 - np.minimum(upright, 1) ** 2)
        return geometry.level_distance(wide / waist, abs(deep) / waist, upright, across * waist, along * waist,
                                       half_height, _PLANE_POWER, _AXIAL_POWER)

    def shape(self, inset: float = 0.0) -> geometry.Shape:
        """The body about the origin, x to the right, y to the front, z up."""
        half = np.array([self.x, self.y, self.z]) - inset
        return geometry.Shape(partial(self.distance, inset=inset), -half, half)


@sourced
def vertebra(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    pdff: float | None = None,
    perfusion_fraction: float | None = None,
    bvtv: float | None = None,
    D: float | None = None,
    D_star: float | None = None,
    variation: float = 0.1,
) -> Phantom:
    """A lumbar vertebral body with marrow (water, blood, fat) between trabeculae, in a cortical shell.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given. ``fractured`` is an acute
        osteoporotic fracture: oedema, and a body that has lost anterior height.
    seed : int
        Draws the size of the body and the pattern of composition inside it.
    resolution : float
        Edge of a voxel (m); the anatomy does not depend on it.
    field : float
        Field strength (T).
    pdff : float, optional
        Proton density fat fraction; the mean of ``truth.pdff``.
    perfusion_fraction : float, optional
        Blood 1H over blood and tissue-water 1H (spin density); the mean of ``truth.f``.
    bvtv : float, optional
        Trabecular bone volume over trabecular bone and marrow volume; ``truth.bvtv`` in every voxel.
    D, D_star : float, optional
        Diffusivity of marrow water, pseudo-diffusivity of blood (mm2/s).
    variation : float
        Standard deviation of PDFF and perfusion within the body, relative to their mean; smaller where a
        fraction would leave 0..1.

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        An unknown condition, a value out of range, a field without data, voxels larger than the body or too
        many of them.
    """
    where = "vertebra"
    if condition is None:
        raise InputError(f"{where}: condition is None, should be one of {', '.join(tissues.CONDITIONS)}")
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    given = {"pdff": pdff, "perfusion_fraction": perfusion_fraction, "bvtv": bvtv, "D": D, "D_star": D_star}
    wanted = wishes(where, given, field, condition)
    variation = inputs.number(where, "variation", variation, 0.0, 1.0)

    shape_seed, fat_seed, blood_seed = np.random.SeedSequence(seed).spawn(3)
    body, shell = _anatomy(np.random.default_rng(shape_seed), condition)
    resolution = inputs.resolution(where, resolution, 2 * body.z * (1 - body.wedge))
    half = np.array([body.x, body.y, body.z])
    grid = geometry.Grid.around(where, -half, half, resolution, MOST_VOXELS)
    filled = geometry.fractions([geometry.Layer("cortical", body.shape()),
                                 geometry.Layer("core", body.shape(shell), over="cortical")], grid)
    core, cortex = filled["core"], filled["cortical"]
    marrow_volume = core * (1 - wanted["bvtv"])
    seen = (marrow_volume > 0).astype(float)  # the means are over voxels with marrow, each counting once
    maps = {}
    for name, own in (("pdff", fat_seed), ("perfusion_fraction", blood_seed)):
        pattern = patterns.waves(grid.axes(), np.random.default_rng(own), *WAVES)
        maps[name] = patterns.around(wanted[name], variation, pattern, seen)
    pools = recipes.marrow(
        marrow_volume, pdff=maps["pdff"], f=maps["perfusion_fraction"], field=field, condition=condition,
        D=wanted["D"], D_star=wanted["D_star"],
    )
    pools += recipes.bone(core * wanted["bvtv"], "trabecular", field=field, condition=condition)
    pools += recipes.bone(cortex, "cortical", field=field, condition=condition)
    voxel = resolution**3
    measured = {"bvtv": float(1 - marrow_volume.sum() / core.sum()),
                "body_volume": float((core + cortex).sum() * voxel),
                "marrow_volume": float(marrow_volume.sum() * voxel)}
    parameters = {**{k: v for k, v in given.items() if v is not None}, "variation": variation}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured)


def wishes(where: str, given: Mapping[str, float | None], field: float, condition: str) -> dict[str, float]:
    """Marrow as asked for, checked, and the tissue value where nothing was asked."""
    most = {"D": FASTEST_D, "D_star": FASTEST_D_STAR}
    wanted = {}
    for name, value in given.items():
        if value is None:
            wanted[name] = tissues.value(_DEFAULT[name], field, condition)
        else:
            unit = "mm2/s" if name in most else ""
            wanted[name] = inputs.number(where, name, value, 0.0, most.get(name, 1.0), unit, below=name == "bvtv")
    return wanted


def _anatomy(rng: np.random.Generator, condition: str) -> tuple[Body, float]:
    """The body and the thickness of its shell (m), as the condition has left it."""
    body, shell = anatomy(rng)
    return replace(body, wedge=WEDGE if condition == "fractured" else 0.0), shell


def anatomy(rng: np.random.Generator) -> tuple[Body, float]:
    """Size drawn between the published bounds, and the thickness of the shell (m)."""
    half = {}
    for axis, name in (("x", "width"), ("y", "depth"), ("z", "height")):
        size = tissues.entry(f"vertebra.{name}")
        # Half of the published range: a whole range on each axis at once would draw strange bodies.
        half[axis] = (size.value + 0.25 * (size.high - size.low) * rng.uniform(-1, 1)) / 2
    return Body(**half), tissues.value("vertebra.shell")
