"""The proximal femur: head, neck, trochanters and the upper shaft, with or without the soft tissue of the hip."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import geometry, inputs, patterns, recipes
from .geometry import Layer, Shape
from .phantom import MOST_VOXELS, Phantom, sourced
from .regions import Region, blend, prescribed, spongy
from .vertebra import WAVES, wishes

_THIN = 0.22  # thickness of the shell of head and trochanters, relative to the cortex of the shaft
_CALCAR = 0.42  # what the lower cortex of the neck has beyond that
_WALL = -0.030  # m; below this height the shell becomes the cortex of the shaft
_BOTTOM = -0.085  # m; where the field of view cuts the shaft
_STREAKS = (4e-3, 22e-3)  # m; lengths over which fat in muscle comes and goes
# BV/TV between the regions that were measured, relative to that of the neck.
_WARD, _TROCHANTER, _INTERTROCHANTERIC, _FADING = 0.25, 0.62, 0.60, 0.25


@dataclass(frozen=True)
class Anatomy:
    """A right femur in the plane of its neck: x lateral, z up the shaft, the neck's axis meeting the shaft's at 0.

    Lengths in m, the neck-shaft angle in rad.
    """

    head: float
    neck_width: float
    neck_thickness: float
    neck_length: float
    angle: float
    shaft_width: float
    cortex: float

    @property
    def along(self) -> np.ndarray:
        """Direction (x, y, z) of the neck, towards the head."""
        return np.array([-math.sin(self.angle), 0.0, -math.cos(self.angle)])

    @property
    def middle(self) -> np.ndarray:
        """Centre of the head (m; x, y, z)."""
        return self.along * (self.neck_length + 0.5 * self.head)

    def on_neck(self, share: float, below: float = 0.0) -> tuple[float, float, float]:
        """Point (m) at a share of the way to the head's centre, `below` the axis of the neck."""
        down = np.array([self.along[2] * -1, 0.0, self.along[0]])
        x, y, z = share * self.middle + below * down
        return float(x), float(y), float(z)

    @cached_property
    def low(self) -> np.ndarray:
        """Lowest corner (m) of the field of view."""
        return np.array([self.middle[0] - 0.5 * self.head - 0.016, -0.038, _BOTTOM])

    @cached_property
    def high(self) -> np.ndarray:
        """Highest corner (m) of the field of view."""
        return np.array([0.058, 0.038, self.middle[2] + 0.5 * self.head + 0.016])

    def whole(self) -> Shape:
        """The bone with its cortex, the shaft going on below the field of view."""
        flat = self.neck_thickness / self.neck_width
        half, shaft = 0.5 * self.neck_width, 0.5 * self.shaft_width
        head = geometry.superellipsoid(tuple(self.middle), (0.5 * self.head,) * 3)
        neck = geometry.tube([self.on_neck(0.10), self.on_neck(0.50), self.on_neck(0.85)],
                             [1.16 * half, half, 1.02 * half], (1, flat, 1))
        column = geometry.tube([(0, 0, _BOTTOM - 0.02), (0, 0, -0.05), (0.001, 0, -0.020), (0.002, 0, -0.004)],
                               [0.97 * shaft, shaft, 1.16 * shaft, 1.2 * shaft], (1, 0.92, 1))
        greater = geometry.tube([(0.009, -0.003, -0.012), (0.0145, -0.005, 0.010), (0.0140, -0.009, 0.027)],
                                [0.0175, 0.0140, 0.0085], (1, 1.25, 1))
        lesser = geometry.tube([(-0.006, -0.005, -0.031), (-0.0195, -0.0055, -0.037)], [0.0115, 0.0072], (1, 1.1, 1.3))
        bone = geometry.union(column, neck, greater, lesser, blend=9e-3)
        return geometry.union(bone, head, blend=5e-3)

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (m) of a box around the visible bone."""
        shape = _above(self.whole())
        return shape.low, shape.high

    def depth(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Thickness of the cortex (m): thick in the shaft and under the neck, thin elsewhere."""
        shaft = 1 / (1 + np.exp(np.clip((z - _WALL) / 5e-3, -30, 30)))
        calcar = Region(self.on_neck(0.30, 0.6 * self.neck_width), (0.012, 0.010, 0.014), 1.0).weight(x, y, z)
        found: np.ndarray = self.cortex * (_THIN + (1 - _THIN) * shaft + _CALCAR * calcar * (1 - shaft))
        return found

    def layers(self, soft: bool) -> list[Layer]:
        """Everything, in the order of painting."""
        bone = self.whole()
        whole, inner = _above(bone), _above(geometry.inset(bone, self.depth))
        canal = geometry.tube([(0, 0, _BOTTOM - 0.05), (0, 0, -0.058)], [0.5 * self.shaft_width] * 2)
        return [*(self._bed() if soft else []), Layer("cortical", whole), Layer("core", inner, over="cortical"),
                Layer("canal", _above(canal), over="core")]

    def _bed(self) -> list[Layer]:
        """Fat of the thigh and hip, and the muscles around the bone, between sheets of that fat."""
        low, high = self.low, self.high
        centre, half = (low + high) / 2, (high - low) / 2 - 1e-4
        thigh = geometry.superellipsoid(tuple(centre), tuple(half), 8.0, 8.0)
        head = self.middle
        gluteus = geometry.tube([(0.022, 0, head[2] + 0.004), (0.010, 0, head[2] + 0.026), (-0.008, 0, high[2] + 0.02)],
                                [0.006, 0.014, 0.021], (1, 2.2, 1))
        medius = geometry.tube([(0.036, 0, 0.016), (0.037, 0, head[2] + 0.015), (0.030, 0, high[2] + 0.02)],
                               [0.004, 0.0085, 0.0125], (1, 3, 1))
        lateral = geometry.tube([(0.031, 0, -0.014), (0.031, 0, -0.050), (0.030, 0, low[2] - 0.02)],
                                [0.0045, 0.0140, 0.0155], (1, 2.3, 1))
        psoas = geometry.tube([(-0.022, -0.006, -0.044), (-0.036, 0.004, -0.019), (-0.050, 0.014, 0.005)],
                              [0.006, 0.0110, 0.0120], (1, 1.5, 1))
        medial = geometry.tube([(-0.029, 0, low[2] - 0.02), (-0.041, 0, -0.060), (-0.070, 0, -0.034)],
                               [0.0165, 0.0150, 0.0100], (1, 2.2, 1))
        adductor = geometry.tube([(-0.060, 0, low[2] - 0.02), (-0.076, 0, -0.058)], [0.0150, 0.0130], (1, 2.8, 1))
        obturator = geometry.tube([(-0.018, -0.012, -0.002), (-0.048, -0.008, -0.005), (-0.085, 0.0, -0.003)],
                                  [0.005, 0.009, 0.012], (1, 1.8, 1))
        muscles: list[Layer] = []
        taken: list[Shape] = []
        inside = geometry.inset(thigh, 2.0e-3)
        for shape in (gluteus, medius, lateral, psoas, obturator, medial, adductor):
            # Fat parts the muscles: each ends a millimetre before those already there.
            away = [geometry.outside(geometry.inset(other, -1.2e-3)) for other in taken]
            muscles.append(Layer("muscle", geometry.intersection(shape, inside, *away)))
            taken.append(shape)
        return [Layer("adipose", thigh), *muscles]


def _above(shape: Shape) -> Shape:
    """The part of the shape that the field of view shows."""
    found = geometry.intersection(shape, geometry.half_space((0, 0, _BOTTOM), (0, 0, -1)))
    return replace(found, low=np.array([*shape.low[:2], max(_BOTTOM, shape.low[2])]))


@sourced
def femur(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    pdff: float | None = None,
    bvtv: float | None = None,
    perfusion_fraction: float | None = None,
    D: float | None = None,
    D_star: float | None = None,
    soft_tissue: bool = True,
    variation: float = 0.25,
) -> Phantom:
    """A right proximal femur with regional marrow and trabecular bone.

    The grid is that of a coronal scan along the neck: y is across the plane of neck and shaft, z along the shaft.
    Head and greater trochanter hold the fattest marrow, the intertrochanteric region the leanest; trabecular bone is
    densest in the head and rare in Ward's triangle. Osteoporosis thins the cortex, and takes trabecular bone in the
    proportion in which it takes that of the calcaneus: for the femur the tissue table has the healthy value alone.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given. ``fractured`` is the sound hip of
        someone with an osteoporotic fracture. Bone and fat of ``young``, ``old`` and ``osteopenic`` are the adult mean:
        no others are tabulated for this bone; perfusion and diffusion are their own where known.
    seed : int
        Draws sizes and the patterns of composition.
    resolution : float
        Edge of a voxel (m); the anatomy does not depend on it.
    field : float
        Field strength (T).
    pdff : float, optional
        Proton density fat fraction: the mean over the volume of marrow.
    bvtv : float, optional
        Trabecular bone over trabecular bone and marrow: the mean over the volume within the cortex, without the
        marrow canal of the shaft, which has none.
    perfusion_fraction : float, optional
        Blood 1H over blood and tissue-water 1H, the mean over the volume of marrow.
    D, D_star : float, optional
        Diffusivity of marrow water, pseudo-diffusivity of blood (mm2/s).
    soft_tissue : bool
        Muscle and fat around the bone.
    variation : float
        Strength of the random pattern in PDFF and BV/TV (standard deviation of their logit) beside the regional one.

    Returns
    -------
    Phantom
        ``measured`` attributes: ``bvtv``, ``body_volume``, ``marrow_volume``, ``canal_volume`` (m3),
        ``cortical_thickness`` (m; of the shaft, from the areas of its lowest slice), ``head_diameter`` (m),
        ``neck_shaft_angle`` (degrees).

    Raises
    ------
    InputError
        An unknown condition, a value out of range, a field without data, voxels too large or too many.
    """
    where = "femur"
    if condition is None:
        raise InputError(f"{where}: condition is None, should be one of {', '.join(tissues.CONDITIONS)}")
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    if not isinstance(soft_tissue, (bool, np.bool_)):
        raise InputError(f"{where}: soft_tissue is {soft_tissue!r}, should be True or False")
    common = "osteoporotic" if condition == "fractured" else condition
    wanted = wishes(where, {"perfusion_fraction": perfusion_fraction, "D": D, "D_star": D_star}, field, common)
    pdff = None if pdff is None else inputs.number(where, "pdff", pdff, 0.0, 1.0)
    bvtv = None if bvtv is None else inputs.number(where, "bvtv", bvtv, 0.0, 1.0, below=True)
    variation = inputs.number(where, "variation", variation, 0.0, 2.0)

    seeds = np.random.SeedSequence(seed).spawn(5)
    bone = anatomy(np.random.default_rng(seeds[0]), common)
    resolution = inputs.resolution(where, resolution, bone.neck_thickness)
    low, high = (bone.low, bone.high) if soft_tissue else bone.box()
    grid = geometry.Grid.around(where, low, high, resolution, MOST_VOXELS)
    filled = geometry.fractions(bone.layers(bool(soft_tissue)), grid)
    core, canal = filled["core"], filled["canal"]

    waves = {name: patterns.waves(grid.axes(), np.random.default_rng(own), *WAVES)
             for name, own in zip(("pdff", "perfusion_fraction", "bvtv"), seeds[1:4], strict=True)}
    share = prescribed(bvtv, blend(grid.axes(), *_density(bone, common)), waves["bvtv"], variation, core)
    solid = core * share
    within = core + canal
    marrow = within - solid
    fat = prescribed(pdff, blend(grid.axes(), *_fat(bone, field, common)), waves["pdff"], variation, marrow)
    f = patterns.around(wanted["perfusion_fraction"], 0.1, waves["perfusion_fraction"], marrow)
    filling = np.divide(solid, within, out=np.zeros_like(within), where=within > 0)
    pools = spongy(within, filling, fat, f, wanted["D"], wanted["D_star"], field, common)
    pools += recipes.bone(filled["cortical"], "cortical", field=field, condition=common)
    if soft_tissue:
        streaks = patterns.waves(grid.axes(), np.random.default_rng(seeds[4]), *_STREAKS, stretch=(4.0, 1.0, 1.0))
        lean = tissues.value("muscle.pdff", field, common)
        fatty = patterns.streaks(lean, 1.0, streaks, filled["muscle"])
        pools += recipes.muscle(filled["muscle"], pdff=fatty, field=field, condition=common)
        pools += recipes.adipose(filled["adipose"], field=field)

    voxel = resolution**3
    # The slice above the cut one: the shaft fills it wholly.
    outer, hollow = ((part[2].sum() * resolution**2 / math.pi) ** 0.5 for part in (within + filled["cortical"], within))
    measured = {"bvtv": float(solid.sum() / core.sum()),
                "body_volume": float((within + filled["cortical"]).sum() * voxel),
                "marrow_volume": float(marrow.sum() * voxel), "canal_volume": float(canal.sum() * voxel),
                "cortical_thickness": float(outer - hollow), "head_diameter": bone.head,
                "neck_shaft_angle": math.degrees(bone.angle)}
    parameters = {"pdff": pdff, "bvtv": bvtv, "perfusion_fraction": perfusion_fraction, "D": D, "D_star": D_star,
                  "soft_tissue": bool(soft_tissue), "variation": variation}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured)


def anatomy(rng: np.random.Generator, condition: str) -> Anatomy:
    """Sizes drawn within the middle half of the published ranges."""
    sizes = {}
    for name in ("head_diameter", "neck_width", "neck_thickness", "neck_length", "neck_shaft_angle", "shaft_width"):
        size = tissues.entry(f"femur.{name}")
        sizes[name] = size.value + 0.25 * (size.high - size.low) * rng.uniform(-1, 1)
    # A neck that is as wide as its head does not exist: both grow together.
    return Anatomy(sizes["head_diameter"], min(sizes["neck_width"], 0.86 * sizes["head_diameter"]),
                   sizes["neck_thickness"], sizes["neck_length"], math.radians(sizes["neck_shaft_angle"]),
                   sizes["shaft_width"], tissues.value("femur.cortical_thickness", condition=condition))


def _fat(bone: Anatomy, field: float, condition: str) -> tuple[list[Region], float]:
    """PDFF of the regions, and that of the shaft."""
    head, neck, shaft = (tissues.value(f"femur.pdff_{part}", field, condition) for part in ("head", "neck", "shaft"))
    centre = bone.middle
    return [
        Region((float(centre[0]), 0.0, float(centre[2])), (0.011,) * 3, head),
        Region((0.016, -0.006, 0.016), (0.009, 0.02, 0.012), head),  # the other epiphysis
        Region(bone.on_neck(0.45), (0.011,) * 3, neck),
        Region((0.0, 0.0, -0.020), (0.014, 0.03, 0.014), shaft),
        Region((0.0, 0.0, -0.065), (0.03, 0.03, 0.016), neck),  # the canal is yellow again
    ], neck


def _density(bone: Anatomy, condition: str) -> tuple[list[Region], float]:
    """BV/TV of the regions, and that of the upper shaft, where trabeculae fade."""
    lost = tissues.value("calcaneus.bvtv", condition=condition) / tissues.value("calcaneus.bvtv")
    head, neck = (lost * tissues.value(f"femur.{part}_bvtv") for part in ("head", "neck"))
    centre = bone.middle
    return [
        Region((float(centre[0]), 0.0, float(centre[2])), (0.012,) * 3, head),
        # The main compressive bundle, from the upper head to the calcar.
        Region(bone.on_neck(0.70, 0.25 * bone.neck_width), (0.008, 0.03, 0.009), 0.5 * (head + neck)),
        Region(bone.on_neck(0.50, -0.3 * bone.neck_width), (0.010, 0.03, 0.007), neck),  # arch of tension
        Region(bone.on_neck(0.34, 0.02 * bone.neck_width), (0.0095, 0.03, 0.0095), _WARD * neck),  # Ward's triangle
        Region((0.013, -0.004, 0.012), (0.010, 0.02, 0.014), _TROCHANTER * neck),
        Region((0.0, 0.0, -0.016), (0.014, 0.03, 0.010), _INTERTROCHANTERIC * neck),
        Region((0.0, 0.0, -0.060), (0.03, 0.03, 0.016), _FADING * neck),
    ], _FADING * neck
