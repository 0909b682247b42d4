"""The lumbar spine: vertebrae, discs, thecal sac, epidural fat and muscles, in 3-D or as one mid-sagittal slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import tissues
from . import geometry, inputs, lumbar, patterns, recipes
from .labels import label_map
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import SPACE, Pool, merged
from .vertebra import WAVES, anatomy, wishes

BREAKABLE = ("L1", "L2", "L3", "L4")
_COARSEST = 12e-3  # m; less than half a vertebra
_STREAKS = (4e-3, 22e-3)  # m; lengths over which fat in muscle comes and goes
_ALONG_FIBRES = (4.0, 1.0, 1.0)
_CONTRAST = 1.0  # of the streaks' logit


@sourced
def spine(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    pdff: float | None = None,
    perfusion_fraction: float | None = None,
    bvtv: float | None = None,
    muscle_pdff: float | None = None,
    D: float | None = None,
    D_star: float | None = None,
    R2_prime: float = 0.0,
    fractured_level: str | None = None,
    sagittal: bool = False,
    variation: float = 0.1,
) -> Phantom:
    """Lumbar spine from L1 to L4, with the neighbouring halves of T12 and L5.

    ``vertebra`` of the same seed is its L3 (and its broken level, but for size). Marrow is that of the whole spine
    but for a broken vertebra, which has the marrow of an acute fracture and its own pool of water, ``oedema``.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given. ``fractured`` is an osteoporotic
        spine with an acute wedge fracture of L1, or of `fractured_level`.
    seed : int
        Draws sizes, lordosis, and the patterns of composition.
    resolution : float
        Edge of a voxel (m); the anatomy does not depend on it.
    field : float
        Field strength (T).
    pdff, perfusion_fraction, bvtv : float, optional
        Of the vertebrae (a broken one apart): means over the slice or volume that is built, weighted by the volume of
        marrow, and of trabecular bone with its marrow.
    muscle_pdff : float, optional
        Proton density fat fraction of muscle: the mean over its volume, of streaks along the fibres.
    D, D_star : float, optional
        Diffusivity of marrow water, pseudo-diffusivity of blood (mm2/s).
    R2_prime : float
        Reversible rate (1/s) of the marrow between the trabeculae, of one number for all vertebrae: what their
        structure adds, and 0 where the field of a structure is scanned instead. Static dephasing by thin trabeculae of
        all directions gives bvtv gamma B0 |dchi|/3 (doi:10.1002/mrm.1910320610).
    fractured_level : str, optional
        One of ``L1 L2 L3 L4``: this vertebra has an acute wedge fracture, whatever the condition.
    sagittal : bool
        One slice through the middle: of the same volumes as the middle slice of the 3-D spine.
    variation : float
        Standard deviation of PDFF, perfusion and BV/TV of vertebrae, relative to their mean.

    Returns
    -------
    Phantom
        With labels: vertebrae, discs, thecal sac, and muscles by side; fat and background are 0.

    Raises
    ------
    InputError
        An unknown condition or level, a value out of range, a field without data, voxels too large or too many.
    """
    where = "spine"
    spinal, grid = _placed(where, condition, seed, resolution, fractured_level, sagittal)
    given = {"pdff": pdff, "perfusion_fraction": perfusion_fraction, "bvtv": bvtv, "D": D, "D_star": D_star}
    # All but the broken vertebra: an osteoporotic spine.
    common = "osteoporotic" if condition == "fractured" else condition
    wanted = wishes(where, given, field, common)
    fat = (tissues.value("muscle.pdff", field, condition) if muscle_pdff is None
           else inputs.number(where, "muscle_pdff", muscle_pdff, 0.0, 1.0))
    variation = inputs.number(where, "variation", variation, 0.0, 1.0)
    R2_prime = inputs.number(where, "R2_prime", R2_prime, 0.0, 1e4, "1/s")

    filled = geometry.fractions(spinal.layers(), grid)
    rngs = [np.random.default_rng(child) for child in _children(seed)[1:]]
    maps = {name: patterns.waves(grid.axes(), rng, *WAVES)
            for name, rng in zip(("pdff", "perfusion_fraction", "bvtv"), rngs, strict=False)}
    pools: list[Pool] = []
    for part in ("core", "broken"):
        if part in filled:
            own = wanted | {"R2_prime": R2_prime}
            pools += _bone(part, filled.pop(part), maps, own, variation, field, common)
    pools += recipes.bone(filled["cortical"], "cortical", field=field, condition=common)
    streaks = patterns.waves(grid.axes(), rngs[3], *_STREAKS, stretch=_ALONG_FIBRES)
    fatty = patterns.streaks(fat, _CONTRAST, streaks, filled["muscle"])
    pools += recipes.muscle(filled["muscle"], pdff=fatty, field=field, condition=common)
    disc = "old" if spinal.worn else None
    pools += recipes.adipose(filled["adipose"], field=field) + recipes.csf(filled["csf"], field=field)
    pools += recipes.nucleus(filled["nucleus"], field=field, condition=disc)
    pools += recipes.annulus(filled["annulus"], field=field, condition=disc)
    pools += recipes.vein(filled["vein"], field=field)
    parameters = {**given, "R2_prime": R2_prime, "muscle_pdff": muscle_pdff, "fractured_level": fractured_level,
                  "sagittal": bool(sagittal), "variation": variation}
    measured = {"lordosis_L1_L4": float(np.degrees(spinal.vertebrae[4].tilt - spinal.vertebrae[1].tilt)),
                "disc_height": spinal.disc_height,
                **{f"{name}_volume": float(filled[name].sum() * resolution**3)
                   for name in ("cortical", "muscle", "csf", "nucleus", "annulus")}}
    return Phantom.build(merged(pools), name=where, resolution=grid.resolution, field=field, seed=seed,
                         condition=condition, parameters=parameters, measured=measured,
                         labels=(geometry.labels(spinal.layers(), grid), lumbar.label_names()))


def labels(
    condition: str = "young", seed: int = 0, resolution: float = 2e-3, fractured_level: str | None = None,
    sagittal: bool = False,
) -> xr.DataArray:
    """Label map of the spine of the same arguments, without making its pools: `Phantom.labels` of it.

    Returns
    -------
    DataArray, (z, y, x)
        Whole numbers on the phantom's own grid; zero is fat and background. ``attrs["flag_values"]`` and
        ``attrs["flag_meanings"]`` name them.

    Raises
    ------
    InputError
        As :func:`spine`.
    """
    spinal, grid = _placed("spine", condition, seed, resolution, fractured_level, sagittal)
    coords = {dim: (dim, (np.arange(n) - (n - 1) / 2) * grid.resolution, {"units": "m"})
              for dim, n in zip(SPACE, grid.count, strict=True)}
    affine = np.diag([grid.resolution * 1e3] * 3 + [1.0])
    affine[:3, 3] = [coords[dim][1][0] * 1e3 for dim in reversed(SPACE)]
    place = xr.Dataset(coords=coords, attrs={"affine": affine.ravel()})
    return label_map(geometry.labels(spinal.layers(), grid), lumbar.label_names(), place)


def _children(seed: int) -> Sequence[np.random.SeedSequence]:
    """Streams: the first is the one from which ``vertebra`` draws its body."""
    return np.random.SeedSequence(seed).spawn(6)


def _placed(
    where: str, condition: str, seed: int, resolution: float, fractured_level: str | None, sagittal: bool
) -> tuple[lumbar.Lumbar, geometry.Grid]:
    if condition is None:
        raise InputError(f"{where}: condition is None, should be one of {', '.join(tissues.CONDITIONS)}")
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    resolution = inputs.resolution(where, resolution, _COARSEST)
    if fractured_level is not None and fractured_level not in BREAKABLE:
        raise InputError(f"{where}: fractured_level is {fractured_level!r}, should be one of {', '.join(BREAKABLE)}")
    if not isinstance(sagittal, (bool, np.bool_)):
        raise InputError(f"{where}: sagittal is {sagittal!r}, should be True or False")
    broken = fractured_level or ("L1" if condition == "fractured" else None)
    children = _children(seed)
    body, shell = anatomy(np.random.default_rng(children[0]))
    spinal = lumbar.stack(body, shell, condition, np.random.default_rng(children[5]), [broken] if broken else [])
    # Of the slice too, so that a resolution has the one grid; only the slice is built.
    grid = geometry.Grid.around(where, spinal.low, spinal.high, resolution, 10**18 if sagittal else MOST_VOXELS)
    if sagittal:
        inputs.shape(where, grid.count[:2], MOST_VOXELS)
        grid = replace(grid, count=(*grid.count[:2], 1))
    return spinal, grid


def _bone(
    part: str, volume: np.ndarray, maps: dict[str, np.ndarray], wanted: dict[str, float], variation: float,
    field: float, common: str,
) -> list[Pool]:
    """Trabecular bone and marrow of the sound vertebrae (``core``) or of the broken one."""
    mean, condition = dict(wanted), common
    if part == "broken":
        condition = "fractured"
        acute = wishes("spine", dict.fromkeys(("pdff", "perfusion_fraction", "D")), field, condition)
        mean.update(acute)
    share = patterns.around(mean["bvtv"], variation, maps["bvtv"], volume)
    marrow = volume * (1 - share)
    own = {name: patterns.around(mean[name], variation, maps[name], marrow) for name in ("pdff", "perfusion_fraction")}
    pools = recipes.marrow(marrow, pdff=own["pdff"], f=own["perfusion_fraction"], field=field, condition=condition,
                           D=mean["D"], D_star=mean["D_star"], R2_prime=mean["R2_prime"])
    if part == "broken":
        pools[0] = replace(pools[0], name="oedema")
    return pools + recipes.bone(volume * share, "trabecular", field=field, condition=common)
