"""A cube of trabecular bone: plates and rods with a prescribed bone volume fraction, thickness, spacing and anisotropy.

BV/TV, Tb.Th, Tb.Sp and the mix of plates and rods are not four free numbers. At one BV/TV the mix fixes the ratio of
spacing to thickness (plates are far apart, rods close together), and the wave number sets the scale. So BV/TV and two
of thickness, spacing and plates are prescribed, and the fourth follows. See :mod:`bonemri.phantoms.skeleton`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs, recipes, skeleton
from .morphometry import measure
from .phantom import MOST_VOXELS, Phantom, sourced

BANDWIDTH = 0.2  # of the fields' spectrum: trabeculae of one size, but no lattice
_ACROSS = 4.0  # voxels of the working grid across a trabecula, at least
_MEASURED_ACROSS = 2.9  # voxels across a trabecula from which their volume fractions are measured; else the finer grid
_THICKEST = 0.75  # radius times wave number beyond which neighbours run into each other, and "thickness" means nothing
_NATURAL = (0.15, 0.45)  # plates: less falls apart into loose rods, more parts the marrow by walls without holes
_ANY = np.ones((3, 3, 3), bool)  # neighbours by face, edge or corner


class Plan(NamedTuple):
    """What a structure shall be (lengths in m), and what draws it: `stretch` of the fields, their `wavenumber`."""

    bvtv: float
    thickness: float
    spacing: float
    anisotropy: float
    plates: float
    stretch: float
    wavenumber: float
    width: float


class Structure(NamedTuple):
    """Bone in a grid of voxels.

    ``volume`` (z, y, x): volume fraction of bone; ``fine`` and ``size`` (m): the same on the grid it was drawn on,
    whose voxels may be smaller; ``removed``: share of the bone drawn that hung together with nothing, and was taken
    away; ``marrow_connected``: share of the marrow in its largest connected part.
    """

    volume: np.ndarray
    fine: np.ndarray
    size: float
    removed: float
    marrow_connected: float


def plan(
    bvtv: float, thickness: float | None, spacing: float | None, plates: float | None, anisotropy: float,
    where: str = "trabecular",
) -> Plan:
    """Find the wave number, the width of the plates and the stretch that a prescription needs.

    Exactly two of `thickness`, `spacing` (m) and `plates` are given.

    Raises
    ------
    InputError
        Combinations that no structure of plates and rods has.
    """
    if sum(each is None for each in (thickness, spacing, plates)) != 1:
        raise InputError(f"{where}: thickness, spacing and plates are tied by bvtv; give two of the three")
    if thickness is not None and spacing is not None:
        plates = _plates(where, bvtv, thickness, spacing, anisotropy)
    assert plates is not None
    stretch = _stretch(anisotropy, plates)
    law = skeleton.law(plates, stretch)
    _check_share(where, bvtv, law, plates)
    radius = law.radius(bvtv)
    if thickness is None:
        assert spacing is not None
        wavenumber = _gap(radius, plates, stretch) / spacing
        thickness = _thick(radius, plates) / wavenumber
    else:
        wavenumber = _thick(radius, plates) / thickness
        spacing = _gap(radius, plates, stretch) / wavenumber
    return Plan(bvtv, thickness, spacing, anisotropy, plates, stretch, wavenumber, law.width / wavenumber)


def _check_share(where: str, bvtv: float, law: skeleton.Law, plates: float) -> None:
    most = law.share(_THICKEST)
    if bvtv > most:
        raise InputError(f"{where}: bvtv is {bvtv:g}, should be at most {most:.2f} with plates {plates:.2g}: "
                         "thicker trabeculae would fill the marrow")


def _ratio(bvtv: float, plates: float, anisotropy: float) -> float:
    stretch = _stretch(anisotropy, plates)
    radius = skeleton.law(plates, stretch).radius(bvtv)
    return _gap(radius, plates, stretch) / _thick(radius, plates)


def _plates(where: str, bvtv: float, thickness: float, spacing: float, anisotropy: float) -> float:
    """Share of plates at which spacing over thickness is what is asked for; the ratio rises with it."""
    wanted = spacing / thickness
    shares = np.linspace(0.0, 1.0, 21)
    ratios = np.array([_ratio(bvtv, float(share), anisotropy) for share in shares])
    if not ratios[0] <= wanted <= ratios[-1]:
        raise InputError(f"{where}: spacing over thickness is {wanted:.3g}, should lie from {ratios[0]:.3g} (rods) to "
                         f"{ratios[-1]:.3g} (plates) at bvtv {bvtv:g}")
    return float(np.interp(wanted, ratios, shares))


# The largest spheres that fit are a little wider than twice the radius, by the corners where plates and rods meet;
# measured, over plates.
_THICK = {0.0: 1.0, 0.25: 1.055, 0.5: 1.075, 1.0: 1.05}


def _thick(radius: float, plates: float) -> float:
    """Tb.Th times wave number, from radius times wave number."""
    return 2 * radius * float(np.interp(plates, list(_THICK), list(_THICK.values())))


# Spacing times wave number falls straight with radius times wave number: value at 0 and slope, over plates. Measured
# on cubes of four wavelengths; the same levels bound bone at any scale, so that nothing enters but the stretch.
_GAP = {0.0: (4.79, 3.37), 0.25: (4.47, 3.15), 0.5: (4.21, 2.84), 0.75: (4.03, 2.46), 1.0: (3.98, 2.35)}
_GAP_STRETCH = 0.28


def _gap(radius: float, plates: float, stretch: float) -> float:
    """Tb.Sp times wave number, from radius times wave number."""
    whole, slope = (np.interp(plates, list(_GAP), column) for column in zip(*_GAP.values(), strict=True))
    return float(whole * stretch**_GAP_STRETCH - slope * radius)


def _stretch(anisotropy: float, plates: float) -> float:
    """Stretch of the fields along z that makes the mean intercept length differ by this ratio.

    Stretched surfaces are crossed as much less often along z. A rod is crossed as often as its shadow is wide, so
    that its tilt counts, and rods of stretched fields differ less: for them the ratio is a mean over directions.
    """
    stretches = np.linspace(1.0, 4.0, 61)
    ratio = plates * stretches + (1 - plates) * np.array([_rod_anisotropy(float(s)) for s in stretches])
    return float(np.interp(anisotropy, ratio, stretches))


def _rod_anisotropy(stretch: float) -> float:
    """Ratio of mean intercept lengths, along over across, of thin rods: isotropic ones, drawn out along z."""
    height = (np.arange(64) + 0.5) / 64
    angle = (np.arange(64) + 0.5) / 64 * (np.pi / 2)
    flat = np.sqrt(1 - height**2)[:, None]
    across = np.sqrt((stretch * height[:, None]) ** 2 + (flat * np.sin(angle)) ** 2).mean()
    return float(across / flat.mean())


def structure(
    wanted: Plan, seed: int, resolution: float, shape: tuple[int, int, int], where: str = "trabecular"
) -> Structure:
    """Draw bone as planned.

    Its largest connected part alone is kept, and its trabeculae thickened until it has the BV/TV planned: what floats
    in the marrow could carry no load, and would have been resorbed. Everything else is the same at any resolution, but
    whether a piece hangs on by a neck thinner than a voxel is not.

    Parameters
    ----------
    wanted : Plan
    seed : int
    resolution : float
        Edge of a voxel (m).
    shape : three int
        Voxels along z, y, x.

    Returns
    -------
    Structure
    """
    from scipy import ndimage

    times = max(1, math.ceil(resolution * _ACROSS / wanted.thickness - 1e-9))
    while times > 1 and math.prod(shape) * times**3 > MOST_VOXELS:
        times -= 1  # a cube too large to be drawn finer than its voxels is drawn on them
    size, grid = resolution / times, tuple(n * times for n in shape)
    inputs.shape(where, grid, MOST_VOXELS)
    z, y, x = ((np.arange(n) - (n - 1) / 2) * size for n in grid)
    distance = skeleton.distance(np.random.default_rng(seed), (z, y, x), size, wavenumber=wanted.wavenumber,
                                 width=wanted.width, stretch=wanted.stretch, bandwidth=BANDWIDTH)
    radius = _radius(distance, wanted.bvtv, size)
    removed = 0.0
    for _ in range(8):  # thicker trabeculae may show a new piece: until nothing is loose
        mask = distance < radius
        labels, count = ndimage.label(mask, _ANY)
        if count < 2:
            break
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = labels == sizes.argmax()
        del labels
        removed += 1 - float(sizes.max() / sizes.sum())
        # A loose piece goes with the partly filled voxels around it, and cannot come back when the rest is thickened.
        around = ndimage.binary_dilation(mask & ~largest, _ANY, iterations=3)
        distance[around & ~ndimage.binary_dilation(largest, _ANY)] = np.inf
        radius = _radius(distance, wanted.bvtv, size)
    if count > 1 or removed > 0.5:
        raise InputError(f"{where}: no connected bone at bvtv {wanted.bvtv:g} with plates {wanted.plates:.2g}; "
                         "more plates, or a larger size, would hold together")
    marrow, _ = ndimage.label(~mask)
    sizes = np.bincount(marrow.ravel())[1:]
    connected = float(sizes.max() / sizes.sum()) if sizes.size else 1.0
    del marrow
    drawn = _occupied(distance, radius, size)
    volume = drawn.astype(np.float64)
    if times > 1:
        volume = volume.reshape(shape[0], times, shape[1], times, shape[2], times).mean(axis=(1, 3, 5))
    return Structure(volume, drawn, size, removed, connected)


def _occupied(distance: np.ndarray, radius: float, size: float) -> np.ndarray:
    """Share of each voxel within the radius: the surface passes it as a plane."""
    found = (np.float32(radius / size + 0.5) - distance * np.float32(1 / size)).astype(np.float32, copy=False)
    return np.clip(found, 0.0, 1.0, out=found)


def _radius(distance: np.ndarray, bvtv: float, size: float) -> float:
    """Radius at which the occupied share of the grid is the BV/TV."""
    bins = 8192
    far = float(np.quantile(distance[::2, ::2, ::2], min(1.0, bvtv * 1.5 + 0.1), method="lower")) + size
    count, edges = np.histogram(distance, bins, (0.0, far))
    middle, wanted = (edges[1:] + edges[:-1]) / 2, bvtv * distance.size
    low, high = 0.0, far - size / 2
    while high - low > 1e-6 * size:
        radius = (low + high) / 2
        filled = float((count * np.clip((radius - middle) / size + 0.5, 0.0, 1.0)).sum())
        low, high = (radius, high) if filled < wanted else (low, radius)
    return radius


class _Share:
    """A map times a number, worked out when it is read: two maps of each pool would not fit beside the Dataset."""

    def __init__(self, base: np.ndarray, factor: float = 1.0) -> None:
        self._base, self._factor, self.shape = base, factor, base.shape

    def __mul__(self, factor: Any) -> _Share:
        return _Share(self._base, self._factor * float(factor))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._base * self._factor, dtype=dtype)


@sourced
def trabecular(
    condition: str = "young",
    seed: int = 0,
    resolution: float = 40e-6,
    field: float = 3.0,
    bvtv: float | None = None,
    thickness: float | None = None,
    spacing: float | None = None,
    anisotropy: float | None = None,
    plates: float | None = None,
    size: float | Sequence[float] = 5e-3,
    pdff: float | None = None,
    perfusion_fraction: float | None = None,
    D: float | None = None,
    D_star: float | None = None,
    ndb: float | None = None,
    nmidb: float | None = None,
    chain_length: float | None = None,
    morphometry: bool = True,
) -> Phantom:
    """A cube of trabecular bone and marrow, its principal direction along z.

    Parameters
    ----------
    condition : str
        One of ``simulator.tissues.CONDITIONS``: sets every value that is not given.
    seed : int
        Draws the structure, which does not depend on the resolution.
    resolution : float
        Edge of a voxel (m), at most the thickness of a trabecula; `Phantom.coarsen` makes larger voxels.
    field : float
        Field strength (T).
    bvtv : float
        Bone volume over total volume; met exactly.
    thickness, spacing : float
        Tb.Th and Tb.Sp (m), as diameters of the largest spheres that fit (mean over the volume).
    anisotropy : float
        Longest over shortest mean intercept length, 1 to 3.
    plates : float
        0 (rods) to 1 (plates without holes). BV/TV ties it to thickness and spacing: with two of the three given the
        third follows, and with one or none the condition's thickness stands first, then its spacing as near as plates
        of 0.15 to 0.45 allow: fewer would leave loose rods, more would part the marrow by walls without holes.
    size : float or three float
        Edges (m) of the block, along z, y, x.
    pdff, perfusion_fraction : float
        Of the marrow: proton density fat fraction, blood 1H over blood and water 1H.
    D, D_star : float
        Diffusivity of marrow water and pseudo-diffusivity of blood (mm2/s).
    ndb, nmidb, chain_length : float
        Of the mean triglyceride of the marrow's fat.
    morphometry : bool
        False: the structure is not measured, which takes longer than to draw it.

    Returns
    -------
    Phantom
        Measured: ``bvtv``, ``removed_share`` (loose bone taken away), ``marrow_connected``, and with `morphometry`
        ``trabecular_thickness trabecular_spacing degree_of_anisotropy connectivity_density`` and more, see
        :func:`bonemri.phantoms.morphometry.measure`. Of one cube the longest over the shortest mean intercept length
        tends to lie above what was prescribed for the ensemble, as chance makes the two directions across differ.
        R2' of the pools is zero: it follows from the structure, by :meth:`Phantom.offset`.

    Raises
    ------
    InputError
        An unknown condition, a value out of range, values that cannot be had together, a field without data, voxels
        larger than the trabeculae or too many of them, a block smaller than two spacings.
    """
    where = "trabecular"
    tissues.check_condition(condition, where)
    seed = inputs.seed(where, seed)
    wanted = _wanted(where, condition, field, bvtv, thickness, spacing, anisotropy, plates)
    resolution = inputs.resolution(where, resolution, wanted.thickness)
    shape = _shape(where, size, resolution, wanted)
    fat = tissues.value("marrow.pdff", field, condition) if pdff is None else inputs.number(where, "pdff", pdff, 0, 1)
    f = (tissues.value("marrow.perfusion_fraction", field, condition) if perfusion_fraction is None
         else inputs.number(where, "perfusion_fraction", perfusion_fraction, 0.0, 1.0))
    if D is not None:
        D = inputs.number(where, "D", D, 0.0, recipes.FASTEST_D, "mm2/s")
    if D_star is not None:
        D_star = inputs.number(where, "D_star", D_star, 0.0, recipes.FASTEST_D_STAR, "mm2/s")

    drawn = structure(wanted, seed, resolution, shape, where)
    bone: Any = _Share(drawn.volume)
    marrow: Any = _Share(1.0 - drawn.volume)
    pools = recipes.marrow(marrow, pdff=fat, f=f, field=field, condition=condition, D=D, D_star=D_star, ndb=ndb,
                           nmidb=nmidb, chain_length=chain_length)
    pools += recipes.bone(bone, "trabecular", field=field, condition=condition)
    measured = {"removed_share": drawn.removed, "marrow_connected": drawn.marrow_connected}
    if morphometry:
        enough = wanted.thickness >= _MEASURED_ACROSS * resolution
        measured |= measure(*((drawn.volume, resolution) if enough else (drawn.fine, drawn.size)))
    measured["bvtv"] = float(drawn.volume.mean())
    parameters = {"bvtv": wanted.bvtv, "thickness": wanted.thickness, "spacing": wanted.spacing,
                  "anisotropy": wanted.anisotropy, "plates": wanted.plates, "size": size, "pdff": pdff,
                  "perfusion_fraction": perfusion_fraction, "D": D, "D_star": D_star, "ndb": ndb, "nmidb": nmidb,
                  "chain_length": chain_length, "morphometry": morphometry}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, condition=condition,
                         parameters=parameters, measured=measured)


def _wanted(
    where: str, condition: str, field: float, bvtv: float | None, thickness: float | None, spacing: float | None,
    anisotropy: float | None, plates: float | None,
) -> Plan:
    """The prescription, with the condition's values where none are given."""

    def value(name: str, given: float | None, low: float, high: float, unit: str = "") -> float:
        if given is None:
            return tissues.value(f"trabecular.{name}", field, condition)
        return inputs.number(where, name, given, low, high, unit)

    share = value("bvtv", bvtv, 0.01, 0.6)
    ratio = value("anisotropy", anisotropy, 1.0, 3.0)
    if plates is not None:
        plates = inputs.number(where, "plates", plates, 0.0, 1.0)
        if spacing is None or thickness is not None:
            thickness = value("thickness", thickness, 20e-6, 1e-3, "m")
        if spacing is not None:
            spacing = value("spacing", spacing, 50e-6, 5e-3, "m")
        return plan(share, thickness, spacing, plates, ratio, where)
    thick = value("thickness", thickness, 20e-6, 1e-3, "m")
    apart = value("spacing", spacing, 50e-6, 5e-3, "m")
    if spacing is None:  # nobody asked for this one: the nearest that BV/TV, thickness and a natural mix allow
        low, high = (thick * _ratio(share, end, ratio) for end in _NATURAL)
        apart = float(np.clip(apart, low, high))
    return plan(share, thick, apart, None, ratio, where)


def _shape(where: str, size: Any, resolution: float, wanted: Plan) -> tuple[int, int, int]:
    least = 2 * wanted.spacing
    edges = inputs.numbers(where, "size", size, least, 0.1, "m")
    if edges.ndim and edges.shape != (3,):
        raise InputError(f"{where}: size is {size!r}, should be one edge (m) or three (z, y, x)")
    z, y, x = (max(1, round(float(edge) / resolution)) for edge in np.broadcast_to(edges, 3))
    inputs.shape(where, (z, y, x), MOST_VOXELS)
    return z, y, x
