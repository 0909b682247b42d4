"""Slices of a phantom as a radiologist lays them out, and as images: greys, colours, and what voxels are made of.

Slices keep the radiological convention: anterior or superior is up, the patient's right (or front) is to the left.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from . import truth as measurands
from .phantom import Phantom
from .pools import SPACE

# plane: (across it, rows, columns, what is up, what is left); columns run against x and y, so that right is left
_PLANES = {
    "sagittal": ("x", "z", "y", "S", "A"),
    "coronal": ("y", "z", "x", "S", "R"),
    "axial": ("z", "y", "x", "A", "R"),
}
# The plane in which a bone is best known; any other phantom by its largest slice.
_BEST = {"spine": "sagittal", "vertebra": "sagittal", "femur": "coronal", "calcaneus": "sagittal", "cortical": "axial",
         "trabecular": "sagittal", "vials": "axial", "tendon": "axial"}
_FEWEST = 4  # voxels along an edge, below which a plane shows nothing
_SLIMMEST = 0.12  # of its length: a slice of a slab seen from the side
_BONE = ("bound_water", "mineral", "pore_water")

# Weightings that a reader knows by sight: title, TE and TR (s), what is bright.
WEIGHTINGS = {
    "T1": ("T1-weighted", 10e-3, 0.6, "fat is bright, bone dark"),
    "T2": ("T2-weighted", 90e-3, 4.0, "fluid is bright"),
    "UTE": ("UTE", 50e-6, 10.0, "proton density, bone included"),
}

_COLOURS = {
    "bound_water": "#5f7d9c", "macromolecule": "#a9b6c4", "mineral": "#47596d", "phosphorus": "#66a182",
    "pore_water": "#2a9fd6", "marrow_water": "#c8453b", "blood": "#7b1734", "fat": "#efc24a",
    "muscle_water": "#b0604f", "csf": "#58c4dd", "solution": "#2e86ab",
}


@dataclass(frozen=True)
class View:
    """One slice: its pools and its truth with rows from top to bottom, columns from left to right.

    Attributes
    ----------
    plane : str
    position : float
        Where the slice stands along its normal (mm).
    width, height : float
        Extent (mm).
    up, left : str
        Anatomical directions of the edges.
    pools, truth : Dataset
        With dims (pool, row, column) and (row, column); a property of a pool may be (pool) alone.
    """

    plane: str
    position: float
    width: float
    height: float
    up: str
    left: str
    pools: xr.Dataset
    truth: xr.Dataset


def views(phantom: Phantom) -> list[View]:
    """The slices through the middle of the bone, the most telling one first."""
    pools = phantom.pools
    shape = {dim: pools.sizes[dim] for dim in SPACE}
    edge = dict(zip(SPACE, np.asarray(pools.attrs["voxel_size"], dtype=float) * 1e3, strict=True))

    def shown(plane: str) -> bool:
        _, rows, columns, *_ = _PLANES[plane]
        sides = [shape[dim] * edge[dim] for dim in (rows, columns)]
        return min(shape[rows], shape[columns]) >= _FEWEST and min(sides) >= _SLIMMEST * max(sides)

    def area(plane: str) -> float:
        _, rows, columns, *_ = _PLANES[plane]
        return float(shape[rows] * edge[rows] * shape[columns] * edge[columns])

    best = _BEST.get(phantom.name)
    planes = sorted(filter(shown, _PLANES), key=lambda plane: (plane != best, -area(plane)))
    centre = _centre(pools)
    return [_view(pools, plane, centre, edge) for plane in planes or [max(_PLANES, key=area)]]


def _centre(pools: xr.Dataset) -> dict[str, int]:
    """Voxel in the middle of the bone; of everything, where there is no bone."""
    volume = pools["volume_fraction"].values
    bone = np.isin(pools["kind"].values, _BONE)
    weight = volume[bone].sum(axis=0) if bone.any() else volume.sum(axis=0)
    found = {}
    for axis, dim in enumerate(SPACE):
        others = tuple(other for other in range(3) if other != axis)
        along, whole = weight.sum(axis=others), volume.sum(axis=(0, *(other + 1 for other in others)))
        middle = (along * np.arange(along.size)).sum() / along.sum() if along.sum() > 0 else (along.size - 1) / 2
        # between two layers of a set of vials lies nothing: the nearest slice that is filled is taken
        filled = np.flatnonzero(whole >= 0.5 * whole.max())
        found[dim] = int(filled[np.abs(filled - middle).argmin()])
    return found


def _view(pools: xr.Dataset, plane: str, centre: dict[str, int], edge: dict[str, float]) -> View:
    normal, rows, columns, up, left = _PLANES[plane]
    index = centre[normal]
    cut = pools.isel({normal: slice(index, index + 1)})
    truth = measurands.truth(cut)

    def lay(dataset: xr.Dataset) -> xr.Dataset:
        flat = dataset.isel({normal: 0, rows: slice(None, None, -1), columns: slice(None, None, -1)})
        return flat.transpose(..., rows, columns).rename({rows: "row", columns: "column"})

    height, width = pools.sizes[rows] * edge[rows], pools.sizes[columns] * edge[columns]
    return View(plane, float(pools[normal].values[index]) * 1e3, width, height, up, left, lay(cut), lay(truth))


# ----------------------------------------------------------------------------------------------------------- images


def weighted(view: View, weighting: str) -> np.ndarray:
    """A spin-echo image (row, column) of all 1H pools; no noise, no shift, no field."""
    from ..simulator import equations

    _, echo_time, repetition_time, _ = WEIGHTINGS[weighting]
    pools = view.pools
    total = np.zeros(pools["density"].shape[1:])
    echo = equations.get("spin_echo")
    for row, kind in enumerate(pools["kind"].values):
        if kind in ("mineral", "phosphorus"):
            continue
        density = pools["density"].values[row]
        T1 = pools["T1_observed"].values[row]
        if "T1_intrinsic" in pools:
            T1 = np.where(np.isfinite(T1), T1, pools["T1_intrinsic"].values[row])
        flat = {"S0": density.ravel()}
        for name, values in (("T1", T1), ("T2", pools["T2"].values[row])):
            flat[name] = np.broadcast_to(values, density.shape).ravel()
        signal = np.asarray(echo.signal(flat, {"TE": echo_time, "TR": repetition_time}))
        total += signal.reshape(density.shape)
    return total


def grey(image: np.ndarray, white: float) -> np.ndarray:
    """An image as RGBA (row, column, 4), black at 0; a mild gamma, as a monitor of a reading room has it."""
    level = (255 * np.clip(image / white, 0, 1) ** 0.8).astype(np.uint8) if white > 0 else np.zeros(image.shape, "u1")
    return np.dstack([level, level, level, np.full_like(level, 255)])


def white_of(images: Sequence[np.ndarray]) -> float:
    """The level that is shown white: all but the brightest half per cent of the tissue lies below it."""
    seen = np.concatenate([image[image > 0].ravel() for image in images])
    return float(np.percentile(seen, 99.5)) if seen.size else 0.0


def coloured(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    """A map as RGBA (row, column, 4) in a perceptual colour scale; NaN is transparent, the paper shows."""
    from matplotlib import colormaps

    level = np.clip((values - low) / (high - low), 0, 1) if high > low else np.where(np.isfinite(values), 0.5, np.nan)
    rgba = (255 * colormaps[colours](np.nan_to_num(level))).round().astype(np.uint8)
    rgba[..., 3] = np.where(np.isfinite(values), 255, 0)
    return rgba


def made_of(view: View, colours: dict[str, str]) -> np.ndarray:
    """What each voxel is made of as RGBA (row, column, 4): its pools' colours mixed by volume, empty space clear."""
    volume = view.pools["volume_fraction"].values
    tints = np.array([_rgb(colours[str(name)]) for name in view.pools["pool"].values])
    filled = volume.sum(axis=0)
    # mixed as light, not as screen values: a mixture must not be darker than both its parts
    light = np.tensordot(volume, tints**2.2, axes=(0, 0)) / np.maximum(filled, 1e-12)[..., None]
    rgba = np.dstack([light ** (1 / 2.2), np.clip(filled, 0, 1)])
    return (255 * np.clip(rgba, 0, 1)).round().astype(np.uint8)


def pool_colours(pools: xr.Dataset) -> dict[str, str]:
    """A colour a pool: that of its kind; pools of one kind differ in lightness."""
    kinds = [str(kind) for kind in pools["kind"].values]
    seen: dict[str, int] = {}
    found = {}
    for name, kind in zip(pools["pool"].values, kinds, strict=True):
        many, place = kinds.count(kind), seen.get(kind, 0)
        seen[kind] = place + 1
        shade = 0.0 if many == 1 else 0.55 * (place / (many - 1) - 0.4)
        rgb = _rgb(_COLOURS[kind])
        rgb = rgb + (1 - rgb) * shade if shade > 0 else rgb * (1 + shade)
        found[str(name)] = "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
    return found


def png(rgba: np.ndarray) -> bytes:
    """RGBA (row, column, 4) as the bytes of a PNG."""
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(rgba), format="png", metadata={"Software": None})
    return stream.getvalue()


def inline(rgba: np.ndarray) -> str:
    """RGBA as the address of an image that stands in the page itself."""
    return "data:image/png;base64," + base64.b64encode(png(rgba)).decode("ascii")


def scale_bar(width: float) -> tuple[float, str]:
    """Length (mm) of a scale bar of 1, 2 or 5 units, about a quarter of `width` (mm), and its label."""
    decade = 10.0 ** math.floor(math.log10(width / 4))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= width / 4)
    return length, f"{length:g} mm" if length >= 1 else f"{1e3 * length:g} µm"


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
