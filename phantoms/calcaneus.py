"""The calcaneus: tuber, body, anterior process and sustentaculum, thin-shelled and full of fat, in the heel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import geometry, inputs, patterns, recipes
from .geometry import Layer, Shape
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import Pool
from .regions import Region, blend, prescribed, spongy
from .vertebra import WAVES, wishes

_DRAWN = (43.0, 74.2, 42.5)  # mm; width, length, height of the bone as drawn below
_PAD = 14e-3  # m; fat under the heel
# BV/TV relative to the mean of the bone: dense under the joint and in the tuber, almost none in the neutral triangle.
_THALAMUS, _TUBER, _PLANTAR, _TRIANGLE, _FRONT = 1.9, 1.15, 1.1, 0.25, 0.9


@dataclass(frozen=True)
class Anatomy:
    """A right calcaneus: x lateral, y to the toes, z up from the sole; the middle of its length is y = 0.

    ``scale`` (x, y, z) turns the millimetres of the drawing into the metres of this bone.
    """

    scale: tuple[float, float, float]
    shell: float

    def at(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Place (m) of a point of the drawing (mm)."""
        return x * self.scale[0], y * self.scale[1], z * self.scale[2]

    def _tube(self, *nodes: tuple[float, float, float, float], squash: Sequence[float] = (1, 1, 1)) -> Shape:
        """Tube through nodes (x, y, z, radius), all in mm of the drawing."""
        own = np.asarray(self.scale) * np.asarray(squash)
        return geometry.tube([self.at(*node[:3]) for node in nodes], [node[3] for node in nodes], tuple(own))

    def whole(self) -> Shape:
        """The bone with its shell."""
        tuber = geometry.superellipsoid(self.at(2.0, -23.5, 18.5), self.at(14.0, 12.5, 17.5), 2.5, 2.5)
        body = self._tube((2, -20, 19.5, 14.5), (2.5, -6, 20, 13.8), (3, 8, 19, 12.5), squash=(0.88, 1, 1))
        facet = self._tube((3, -3.5, 29, 7), (2, 3, 31.5, 9.5), (1, 8, 28, 8.5), squash=(1.15, 1, 1))
        front = geometry.superellipsoid(self.at(3.0, 22.0, 17.5), self.at(11.0, 15.1, 11.0), 3.0, 2.5)
        shelf = self._tube((-4, 9, 27, 6.5), (-13, 9.5, 29.5, 5.4), (-20.0, 9.5, 30.5, 4.2), squash=(1, 1.5, 0.85))
        medial = self._tube((-4, -27, 7.5, 7), (-4.5, -19, 6.5, 5), squash=(1, 1, 1))
        lateral = self._tube((8, -27, 8, 5.5), (7.5, -20, 8.5, 4.5))
        return geometry.union(tuber, body, facet, front, shelf, medial, lateral, blend=6e-3)

    def layers(self, soft: bool) -> list[Layer]:
        """Everything, in the order of painting."""
        whole = self.whole()
        bone = [Layer("cortical", whole), Layer("core", geometry.inset(whole, self.shell), over="cortical")]
        return [*(self._heel() if soft else []), *bone]

    def _heel(self) -> list[Layer]:
        """Fat under and behind the bone, the muscles of the sole, and the Achilles tendon with its insertion."""
        low, high = self.box(True)
        pad = geometry.superellipsoid(tuple((low + high) / 2), tuple((high - low) / 2 - 1e-4), 5.0, 5.0)
        sole = [self._tube((-5, -14, 2, 4.5), (-6, 8, -1.5, 7.0), (-6, 60, -1, 8.0), squash=(1.3, 1, 0.8)),
                self._tube((8, -14, 3, 4), (11, 8, 2, 6), (14, 60, 2, 6.5), squash=(0.9, 1, 0.8)),
                self._tube((0, -4, 4, 3.0), (0, 16, 2.5, 4.0), (0, 60, 3, 4.5), squash=(2, 1, 0.8))]
        inside = geometry.inset(pad, 1.5e-3)
        muscle = geometry.intersection(geometry.union(*sole, blend=1e-3), inside)
        achilles = self._tube((1.5, -35.5, 12, 2.2), (1.5, -36.3, 24, 3.0), (1.5, -35.5, 36, 3.1),
                              (1.5, -33.5, 70, 3.0), squash=(3.0, 1, 1))
        fascia = self._tube((-3, -27, 0.8, 1.5), (-3, 0, -7, 1.1), (-3, 60, -8, 0.9), squash=(6, 1, 1))
        bands = geometry.intersection(geometry.union(achilles, fascia), inside)
        return [Layer("adipose", pad), Layer("muscle", muscle), Layer("tendon", bands)]

    def box(self, soft: bool) -> tuple[np.ndarray, np.ndarray]:
        """Corners (m) of the field of view."""
        whole = self.whole()
        if not soft:
            return whole.low, whole.high
        return whole.low - np.array([5e-3, 9e-3, _PAD]), whole.high + np.array([11e-3, 4e-3, 8e-3])


@sourced
def calcaneus(
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
    """A right calcaneus: yellow marrow between trabeculae that are dense under the joint and rare below its front.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given. ``fractured`` is the sound heel of
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
        Trabecular bone over trabecular bone and marrow: the mean over the volume within the shell.
    perfusion_fraction : float, optional
        Blood 1H over blood and tissue-water 1H, the mean over the volume of marrow.
    D, D_star : float, optional
        Diffusivity of marrow water, pseudo-diffusivity of blood (mm2/s).
    soft_tissue : bool
        The heel around the bone: fat pad, muscles of the sole, Achilles tendon and plantar fascia.
    variation : float
        Strength of the random pattern in PDFF and BV/TV (standard deviation of their logit) beside the regional one.

    Returns
    -------
    Phantom
        ``measured`` attributes: ``bvtv``, ``body_volume``, ``marrow_volume`` (m3), ``cortical_thickness`` (m; of the
        shell as drawn), ``length``, ``height``, ``width`` (m; between the outermost halves of filled voxels).

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
    if not isinstance(soft_tissue, (bool, np.bool_)):
        raise InputError(f"{where}: soft_tissue is {soft_tissue!r}, should be True or False")
    common = "osteoporotic" if condition == "fractured" else condition
    wanted = wishes(where, {"perfusion_fraction": perfusion_fraction, "D": D, "D_star": D_star}, field, common)
    fat_mean = (tissues.value("calcaneus.pdff", field, common) if pdff is None
                else inputs.number(where, "pdff", pdff, 0.0, 1.0))
    bone_mean = (tissues.value("calcaneus.bvtv", field, common) if bvtv is None
                 else inputs.number(where, "bvtv", bvtv, 0.0, 1.0, below=True))
    variation = inputs.number(where, "variation", variation, 0.0, 2.0)

    seeds = np.random.SeedSequence(seed).spawn(5)
    bone = anatomy(np.random.default_rng(seeds[0]))
    resolution = inputs.resolution(where, resolution, 25e-3)
    grid = geometry.Grid.around(where, *bone.box(bool(soft_tissue)), resolution, MOST_VOXELS)
    filled = geometry.fractions(bone.layers(bool(soft_tissue)), grid)
    core, cortex = filled["core"], filled["cortical"]

    waves = {name: patterns.waves(grid.axes(), np.random.default_rng(own), *WAVES)
             for name, own in zip(("pdff", "perfusion_fraction", "bvtv"), seeds[1:4], strict=True)}
    healthy = tissues.value("calcaneus.bvtv")
    share = prescribed(bone_mean, blend(grid.axes(), *_density(bone, healthy)), waves["bvtv"], variation, core)
    marrow = core * (1 - share)
    fat = prescribed(fat_mean, np.full(core.shape, 0.5), waves["pdff"], variation, marrow)
    f = patterns.around(wanted["perfusion_fraction"], 0.1, waves["perfusion_fraction"], marrow)
    pools = spongy(core, share, fat, f, wanted["D"], wanted["D_star"], field, common)
    pools += recipes.bone(cortex, "cortical", field=field, condition=common)
    if soft_tissue:
        lean = tissues.value("muscle.pdff", field, common)
        pools += recipes.muscle(filled["muscle"], pdff=lean, field=field, condition=common)
        pools += recipes.adipose(filled["adipose"], field=field)
        pools += _tendon(filled["tendon"], field)

    voxel = resolution**3
    sides = [float(np.clip(2 * (core + cortex).max(axis=over), 0, 1).sum() * resolution)
             for over in ((1, 2), (0, 2), (0, 1))]
    measured = {"bvtv": float(1 - marrow.sum() / core.sum()), "body_volume": float((core + cortex).sum() * voxel),
                "marrow_volume": float(marrow.sum() * voxel), "cortical_thickness": bone.shell,
                "height": sides[0], "length": sides[1], "width": sides[2]}
    parameters = {"pdff": pdff, "bvtv": bvtv, "perfusion_fraction": perfusion_fraction, "D": D, "D_star": D_star,
                  "soft_tissue": bool(soft_tissue), "variation": variation}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured)


def anatomy(rng: np.random.Generator) -> Anatomy:
    """Sizes drawn within the middle half of the published ranges."""
    scale = []
    for name, drawn in zip(("width", "length", "height"), _DRAWN, strict=True):
        size = tissues.entry(f"calcaneus.{name}")
        scale.append((size.value + 0.25 * (size.high - size.low) * rng.uniform(-1, 1)) / drawn)
    return Anatomy((scale[0], scale[1], scale[2]), tissues.value("calcaneus.shell"))


def _density(bone: Anatomy, mean: float) -> tuple[list[Region], float]:
    """BV/TV of the regions, and that of the rest; moved to its mean later."""

    def region(centre: tuple[float, float, float], reach: tuple[float, float, float], relative: float) -> Region:
        return Region(bone.at(*centre), bone.at(*reach), relative * mean)

    return [
        region((2, 3, 35), (14, 9, 5), _THALAMUS),
        region((1, -29, 20), (14, 7, 14), _TUBER),
        region((1, -12, 7), (14, 14, 4), _PLANTAR),
        region((3, 9, 15), (14, 6.0, 5.5), _TRIANGLE),
        region((4, 27, 18), (12, 6, 8), _FRONT),
    ], mean


def _tendon(volume: np.ndarray, field: float) -> list[Pool]:
    """Tendon and fascia as a continuum at the T2 of no angle: bound and free water, and collagen for the rest."""
    bound = tissues.value("tendon.density", field)
    share = tissues.value("tendon.free_fraction", field)
    free = bound * share / (1 - share)  # the tissue number counts bound water
    full, chi = tissues.value("water.density"), tissues.value("water.chi")
    T1 = tissues.value("tendon.T1", field)
    return [
        Pool("tendon_bound_water", "bound_water", volume * bound, volume * (bound / full), T1_observed=T1,
             T2=tissues.value("tendon.T2", field), chi=chi, D=0.0),
        Pool("tendon_free_water", "solution", volume * free, volume * (free / full), T1_observed=T1,
             T2=tissues.value("tendon.T2_free", field), chi=chi, D=tissues.value("tendon.D", field)),
        Pool("tendon_collagen", "macromolecule", volume * tissues.value("tendon.collagen_density", field),
             volume * (1 - (bound + free) / full), T1_observed=tissues.value("macromolecule.T1", field),
             T2=tissues.value("macromolecule.T2", field), chi=chi, D=0.0),
    ]
