"""A lumbar vertebral body: cortical shell, trabecular bone, and marrow of smoothly varying composition."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs, recipes
from .phantom import MOST_VOXELS, Phantom, sourced
from .recipes import FASTEST_D, FASTEST_D_STAR

_PLANE_POWER = 2.6  # between an ellipse (2) and a box: the outline of a body seen from above
_AXIAL_POWER = 8.0  # nearly flat end plates
_WAIST = 0.08  # the body is narrower at mid-height by this share
_WEDGE = 0.30  # anterior height lost in the fractured body: Genant grade 2 (25 to 40 %)
_CUBE = 0.5e-3  # m; voxels are averages over cubes of about this edge


@dataclass(frozen=True)
class Body:
    """Half axes (m) of the vertebral body, and the share of anterior height it has lost."""

    x: float
    y: float
    z: float
    wedge: float

    def coverage(self, x: np.ndarray, y: np.ndarray, z: float, size: float, inset: float = 0.0) -> np.ndarray:
        """Share (0..1) of small cubes of edge `size` that lies inside the surface `inset` below the outer one.

        The distance to the surface is the level over its gradient, and a cube fills up linearly as the surface
        passes through it: exact where the surface is parallel to a face, as it is at the end plates, where
        counting points would see a shell of a third of a millimetre as none or as double.
        """
        half_height = (self.z - inset) * (1 - self.wedge * np.clip(0.5 + y / (2 * self.y), 0, 1))
        upright = np.abs(z) / half_height
        waist = 1 - _WAIST * (1 - np.minimum(upright, 1) ** 2)
        across, along = (self.x - inset) * waist, (self.y - inset) * waist
        wide, deep = np.abs(x) / across, np.abs(y) / along
        plane = np.maximum(wide**_PLANE_POWER + deep**_PLANE_POWER, 1e-30)  # the axis itself has no direction
        level = (plane ** (_AXIAL_POWER / _PLANE_POWER) + upright**_AXIAL_POWER) ** (1 / _AXIAL_POWER)
        steep = plane ** (_AXIAL_POWER / _PLANE_POWER - 1)
        gradient = level ** (1 - _AXIAL_POWER) * np.sqrt(
            (steep * wide ** (_PLANE_POWER - 1) / across) ** 2
            + (steep * deep ** (_PLANE_POWER - 1) / along) ** 2
            + (upright ** (_AXIAL_POWER - 1) / half_height) ** 2
        )
        # At the very middle there is no gradient; at the surface it is the inverse of a few centimetres.
        filled: np.ndarray = np.clip(0.5 + (1 - level) / (np.maximum(gradient, 1.0) * size), 0, 1)
        return filled


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
    default = {"pdff": "marrow.pdff", "perfusion_fraction": "marrow.perfusion_fraction",
               "bvtv": "trabecular.bvtv", "D": "marrow_water.D", "D_star": "blood.D_star"}
    most = {"D": FASTEST_D, "D_star": FASTEST_D_STAR}
    wanted = {}
    for name, path in default.items():
        value = given[name]
        if value is None:
            wanted[name] = tissues.value(path, field, condition)
        else:
            unit = "mm2/s" if name in most else ""
            wanted[name] = inputs.number(where, name, value, 0.0, most.get(name, 1.0), unit, below=name == "bvtv")
    variation = inputs.number(where, "variation", variation, 0.0, 1.0)

    shape_seed, fat_seed, blood_seed = np.random.SeedSequence(seed).spawn(3)
    body, shell = _anatomy(np.random.default_rng(shape_seed), condition)
    resolution = inputs.resolution(where, resolution, 2 * body.z * (1 - body.wedge))
    whole, core = _volumes(where, body, shell, resolution)
    marrow_volume = core * (1 - wanted["bvtv"])
    seen = marrow_volume > 0
    maps = {
        "pdff": _vary(wanted["pdff"], variation, seen, resolution, np.random.default_rng(fat_seed)),
        "f": _vary(wanted["perfusion_fraction"], variation, seen, resolution, np.random.default_rng(blood_seed)),
    }
    pools = recipes.marrow(
        marrow_volume, pdff=maps["pdff"], f=maps["f"], field=field, condition=condition,
        D=wanted["D"], D_star=wanted["D_star"],
    )
    pools += recipes.bone(core * wanted["bvtv"], "trabecular", field=field, condition=condition)
    pools += recipes.bone(whole - core, "cortical", field=field, condition=condition)
    voxel = resolution**3
    measured = {"bvtv": float(1 - marrow_volume.sum() / core.sum()),
                "body_volume": float(whole.sum() * voxel), "marrow_volume": float(marrow_volume.sum() * voxel)}
    parameters = {**{k: v for k, v in given.items() if v is not None}, "variation": variation}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured)


def _anatomy(rng: np.random.Generator, condition: str) -> tuple[Body, float]:
    """Size drawn between the published bounds, and the thickness of the shell (m)."""
    half = {}
    for axis, name in (("x", "width"), ("y", "depth"), ("z", "height")):
        size = tissues.entry(f"vertebra.{name}")
        # Half of the published range: a whole range on each axis at once would draw strange bodies.
        half[axis] = (size.value + 0.25 * (size.high - size.low) * rng.uniform(-1, 1)) / 2
    return Body(**half, wedge=_WEDGE if condition == "fractured" else 0.0), tissues.value("vertebra.shell")


def _volumes(where: str, body: Body, shell: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Volume fractions of the whole body and of what the shell encloses, averaged over small cubes in each voxel."""
    # One empty voxel around the body, so that a scan has background.
    count = tuple(math.ceil(2 * half / resolution) + 2 for half in (body.z, body.y, body.x))
    inputs.shape(where, count, MOST_VOXELS)
    sub = int(np.clip(round(resolution / _CUBE), 2, 8))
    z, y, x = (((np.arange(n * sub) + 0.5) / sub - n / 2) * resolution for n in count)
    whole, core = np.zeros(count), np.zeros(count)
    for k, height in enumerate(z):  # slice by slice: the fine grid never stands in memory as a whole
        for total, inset in ((whole, 0.0), (core, shell)):
            filled = body.coverage(x[None, :], y[:, None], height, resolution / sub, inset)
            total[k // sub] += filled.reshape(count[1], sub, count[2], sub).sum(axis=(1, 3))
    whole /= sub**3
    return whole, np.minimum(core / sub**3, whole)


def _vary(mean: float, variation: float, seen: np.ndarray, resolution: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth map around `mean`, which it meets exactly over the voxels `seen`, and 0..1 everywhere."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * resolution for n in seen.shape)
    pattern = np.zeros(seen.shape)
    for _ in range(24):  # plane waves in position, not in voxels: the same pattern at every resolution
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(12e-3, 40e-3)
        phase = rng.uniform(0, 2 * np.pi)
        pattern += np.cos(wave[0] * z[:, None, None] + wave[1] * y[:, None] + wave[2] * x + phase)
    pattern -= pattern[seen].mean()
    lowest, highest, spread = pattern[seen].min(), pattern[seen].max(), pattern[seen].std()
    if spread == 0:  # a single voxel of marrow
        return np.full(seen.shape, mean)
    # The map keeps clear of 0 and 1 by a twentieth of the room, shrinking the pattern rather than clipping it.
    amplitude = min(variation * mean / spread, 0.95 * mean / -lowest, 0.95 * (1 - mean) / highest)
    return np.where(seen, mean + amplitude * pattern, mean)
