"""The calcaneus: tuberosity, subtalar facets, sustentaculum and anterior process, filled with yellow marrow.

A right heel bone in the standing foot: x points to the right, which is lateral, y to the toes, z up. Trabeculae are
dense under the posterior facet, where the talus stands, and sparse in the neutral triangle below the sinus tarsi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import geometry, inputs, patterns, recipes
from .geometry import Layer, Shape
from .phantom import MOST_VOXELS, Phantom, sourced
from .vertebra import WAVES

_COARSEST = 15e-3  # m; half the tuberosity
# Sizes (m; x, y, z) of the bone as it is drawn here, which the drawn sizes stretch.
_DRAWN = np.array([0.0353, 0.0733, 0.0432])
_UNEVEN = 0.35  # relative standard deviation of BV/TV between facet and neutral triangle
_TENDON = 1.2e-3  # m; what the insertion of the Achilles tendon adds to the cortex


@dataclass(frozen=True)
class Calcaneus:
    """Size (m) of a heel bone: width with its sustentaculum, length, height; and its cortex."""

    width: float
    length: float
    height: float
    shell: float

    @property
    def scale(self) -> np.ndarray:
        """Of the bone as drawn, along x, y, z."""
        found: np.ndarray = np.array([self.width, self.length, self.height]) / _DRAWN
        return found

    def surface(self) -> Shape:
        """The outer surface of the bone."""
        s = self.scale

        def ball(x: float, y: float, z: float, a: float, b: float, c: float, p: float = 2.0, q: float = 2.0) -> Shape:
            return geometry.superellipsoid(s * (x * 1e-3, y * 1e-3, z * 1e-3), s * (a * 1e-3, b * 1e-3, c * 1e-3), p, q)

        tuberosity = ball(1, -22, -3, 12.5, 15.5, 19, 2.5, 2.5)
        heel = ball(-4, -24, -16, 10, 10, 7)  # medial process, on which one stands
        outer_heel = ball(7, -20, -15, 6, 8, 5)
        body = ball(2, -2, -3, 11.5, 24, 14, 2.5, 2.5)
        facet = geometry.placed(ball(0, 0, 0, 11.5, 14, 8, 2.5, 2.0), s * (2e-3, 4.5e-3, 10.5e-3), geometry.tilt(0.62))
        process = ball(3, 25, 0, 10, 13, 9.5, 3.0, 2.5)
        beak = ball(3, 29, 5, 8, 7, 6)
        shelf = geometry.placed(ball(0, 0, 0, 11, 10.5, 5, 2.5, 2.5), s * (-11e-3, 10e-3, 8.5e-3), geometry.tilt(0.25))
        whole = geometry.union(tuberosity, heel, outer_heel, body, facet, process, beak, shelf, blend=8e-3)
        hollows = (
            ball(7, 19.5, 17.5, 9, 6.5, 9),  # sinus tarsi, between posterior facet and anterior process
            ball(-21, -4, -11, 11, 20, 12),  # the vessels' groove, under the shelf
            ball(3, -14, 27, 20, 13, 12),  # the fat in front of the tendon
            ball(3, 48, 1, 22, 11, 16),  # the saddle in which the cuboid sits
        )
        for hollow in hollows:
            whole = geometry.intersection(whole, geometry.outside(hollow), blend=4e-3)
        return whole

    def thickness(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Thickness (m) of the cortex near a point: thicker under the facet and where the Achilles tendon inserts."""
        s = self.scale * 1e-3
        tendon = np.exp(-((x / s[0] / 11) ** 2 + ((y / s[1] + 38) / 8) ** 2 + ((z / s[2] + 4) / 8) ** 2))
        facet = np.exp(-(((x / s[0] - 2) / 11) ** 2 + ((y / s[1] - 6) / 11) ** 2 + ((z / s[2] - 17) / 7) ** 2))
        found: np.ndarray = self.shell * (1 + 0.5 * facet) + _TENDON * tendon
        return found

    def density(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Where trabecular bone is dense (above zero) and sparse (below), in relative units."""
        s = self.scale * 1e-3
        u, v = y / s[1], z / s[2]
        thalamic = np.exp(-(((u - 3) / 12) ** 2 + ((v - 9) / 8) ** 2))
        heel = 0.6 * np.exp(-(((u + 33) / 8) ** 2 + ((v + 4) / 16) ** 2))
        neutral = 1.3 * np.exp(-(((u - 11) / 9) ** 2 + ((v + 5) / 7) ** 2))
        found: np.ndarray = thalamic + heel - neutral + 0 * x
        return found


@sourced
def calcaneus(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 1.5e-3,
    field: float = 3.0,
    pdff: float | None = None,
    perfusion_fraction: float | None = None,
    bvtv: float | None = None,
    variation: float = 0.03,
) -> Phantom:
    """Heel bone with its facets, cortex, uneven trabecular bone and fatty marrow.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given. ``fractured`` is the heel of a
        person with an osteoporotic fracture elsewhere.
    seed : int
        Draws the size and the pattern of composition.
    resolution : float
        Edge of a voxel (m); the anatomy does not depend on it.
    field : float
        Field strength (T).
    pdff, perfusion_fraction : float, optional
        Means over the marrow, by its volume.
    bvtv : float, optional
        Mean over trabecular bone with its marrow; facet and neutral triangle lie above and below it.
    variation : float
        Standard deviation of PDFF and perfusion, relative to their mean.

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        An unknown condition, a value out of range, a field without data, voxels too large or too many.
    """
    where = "calcaneus"
    if condition is None:
        raise InputError(f"{where}: condition is None, should be one of {', '.join(tissues.CONDITIONS)}")
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    resolution = inputs.resolution(where, resolution, _COARSEST)
    given = {"pdff": pdff, "perfusion_fraction": perfusion_fraction, "bvtv": bvtv}
    paths = {"pdff": "calcaneus.pdff", "perfusion_fraction": "marrow.perfusion_fraction", "bvtv": "calcaneus.bvtv"}
    common = "osteoporotic" if condition == "fractured" else condition
    wanted = {name: tissues.value(paths[name], field, common) if value is None
              else inputs.number(where, name, value, 0.0, 1.0, below=name == "bvtv") for name, value in given.items()}
    variation = inputs.number(where, "variation", variation, 0.0, 1.0)

    shape_seed, fat_seed, blood_seed = np.random.SeedSequence(seed).spawn(3)
    bone = _drawn(np.random.default_rng(shape_seed))
    surface = bone.surface()
    grid = geometry.Grid.around(where, surface.low, surface.high, resolution, MOST_VOXELS)
    filled = geometry.fractions(
        [Layer("cortical", surface), Layer("core", geometry.inset(surface, bone.thickness), over="cortical")], grid)
    core, cortical = filled["core"], filled["cortical"]
    z, y, x = grid.axes()
    uneven = bone.density(x[None, None], y[None, :, None], z[:, None, None])
    solid = patterns.around(wanted["bvtv"], _UNEVEN, uneven, core)
    marrow = core * (1 - solid)
    maps = {name: patterns.around(wanted[name], variation,
                                  patterns.waves(grid.axes(), np.random.default_rng(own), *WAVES), marrow)
            for name, own in (("pdff", fat_seed), ("perfusion_fraction", blood_seed))}
    pools = recipes.marrow(marrow, pdff=maps["pdff"], f=maps["perfusion_fraction"], field=field, condition=common)
    pools += recipes.bone(core * solid, "trabecular", field=field, condition=common)
    pools += recipes.bone(cortical, "cortical", field=field, condition=common)
    voxel = resolution**3
    measured = {"bvtv": float((core * solid).sum() / core.sum()),
                "bone_volume": float((core + cortical).sum() * voxel), "marrow_volume": float(marrow.sum() * voxel),
                "length": bone.length, "width": bone.width, "height": bone.height}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters={**given, "variation": variation}, measured=measured)


def _drawn(rng: np.random.Generator) -> Calcaneus:
    """Sizes between the published bounds; long bones are wide and high, though not all alike."""
    size = rng.uniform(-1, 1)

    def draw(name: str) -> float:
        entry = tissues.entry(f"calcaneus.{name}")
        return entry.value + 0.25 * (entry.high - entry.low) * (0.7 * size + 0.3 * rng.uniform(-1, 1))

    width, length, height = (draw(name) for name in ("width", "length", "height"))
    return Calcaneus(width, length, height, tissues.value("calcaneus.shell"))
