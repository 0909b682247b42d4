"""Smooth anatomy from signed distances, and what of it lies in each voxel.

A `Shape` tells how far (m) a point lies outside its surface, negative inside. Bones are unions of a few primitives
that blend into each other [1]_. They are painted in order on a fine grid, one slice of voxels at a time, each cube of
the grid filled by the share that the surface leaves on its inner side, and averaged over the voxel: whatever is
painted takes its room from what was there, so that the fractions of all tissues and of the background sum to one.

References
----------
.. [1] Quilez, "Smooth minimum" (polynomial blend), https://iquilezles.org/articles/smin/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..simulator import threads
from . import inputs

CUBE = 0.5e-3  # m; voxels are averages over cubes of about this edge
_FEWEST, _MOST = 2, 4  # cubes along a voxel
_TINY = 1e-12
_FAR = 1.0  # m; where a part of a union need not be asked
_EVERYWHERE = (np.full(3, -np.inf), np.full(3, np.inf))

Point = Sequence[float] | np.ndarray
Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """Signed distance (m; arrays x, y, z that broadcast), and corners (x, y, z) of a box that holds the inside."""

    distance: Distance
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A shape to be painted with a tissue.

    ``over`` names the only tissue that gives way (default: everything does). ``label`` is the structure's number in a
    label map; zero leaves the label of what is painted over.
    """

    tissue: str
    shape: Shape
    over: str | None = None
    label: int = 0


def superellipsoid(
    centre: Point, half: Point, plane: float = 2.0, axial: float = 2.0
) -> Shape:
    """Ellipsoid (powers of 2) to box (high powers), upright along z.

    Parameters
    ----------
    centre, half : sequence of float
        Middle and half axes (m; x, y, z).
    plane, axial : float
        Power of the outline seen from above, and of that seen from the side.
    """
    middle, axes = np.asarray(centre, float), np.asarray(half, float)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return level_distance(abs(x - middle[0]) / axes[0], abs(y - middle[1]) / axes[1], abs(z - middle[2]) / axes[2],
                              axes[0], axes[1], axes[2], plane, axial)

    return Shape(distance, middle - axes, middle + axes)


def level_distance(
    wide: np.ndarray, deep: np.ndarray, upright: np.ndarray, across: np.ndarray | float, along: np.ndarray | float,
    height: np.ndarray | float, plane: float, axial: float,
) -> np.ndarray:
    """Distance to a superellipsoid: its level over the level's gradient, exact to first order at the surface.

    Parameters
    ----------
    wide, deep, upright : array
        Position relative to the half axes `across`, `along`, `height` (m), none negative.
    plane, axial : float
        Powers of the outline from above and from the side.
    """
    x, y = np.maximum(wide, _TINY), np.maximum(deep, _TINY)  # the axes themselves have no direction
    xp, yp, zp = _power(x, plane), _power(y, plane), _power(upright, axial)
    flat = xp + yp
    mixed = _power(flat, axial / plane)
    total = np.maximum(mixed + zp, _TINY)
    level = _power(total, 1 / axial)
    steep = mixed / flat
    # Derivatives of the level, written with the powers that are there already: powers are what takes the time.
    gradient = level / total * np.sqrt((steep * xp / (x * across)) ** 2 + (steep * yp / (y * along)) ** 2
                                       + (zp / (np.maximum(upright, _TINY) * height)) ** 2)
    # At the very middle there is no gradient; at the surface it is the inverse of a few millimetres or centimetres.
    found: np.ndarray = (level - 1) / np.maximum(gradient, 1.0)
    return found


def _power(x: np.ndarray, exponent: float) -> np.ndarray:
    """x to the exponent; by multiplying and by square roots, which are ten times as fast, where that will do."""
    if exponent in (0.5, 0.25, 0.125):
        root = np.sqrt(x)
        for smaller in (0.25, 0.125):
            root = np.sqrt(root) if exponent <= smaller else root
        return np.asarray(root)
    square = np.asarray(x * x)
    if exponent == 2:
        return square
    if exponent == 2.5:
        return np.asarray(square * np.sqrt(x))
    if exponent == 3:
        return np.asarray(square * x)
    if exponent == 4:
        return np.asarray(square * square)
    if exponent == 8:
        fourth = square * square
        return np.asarray(fourth * fourth)
    found: np.ndarray = x**exponent
    return found


def tube(points: Sequence[Point], radii: Point, squash: Point = (1, 1, 1)) -> Shape:
    """Tube with round ends through `points` (m), its radius (m) changing evenly from one to the next.

    Parameters
    ----------
    points : sequence of (x, y, z)
        Two or more.
    radii : sequence of float
        One a point.
    squash : (x, y, z)
        The tube is thicker along an axis by this factor.
    """
    factor = np.asarray(squash, float)
    nodes, thick = np.asarray(points, float) / factor, np.asarray(radii, float)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        round_, position = bool((factor == 1).all()), (x / factor[0], y / factor[1], z / factor[2])
        nearest: np.ndarray | None = None
        for a, b, first, last in zip(nodes[:-1], nodes[1:], thick[:-1], thick[1:], strict=True):
            step = b - a
            dx, dy, dz = (p - q for p, q in zip(position, a, strict=True))
            along = np.clip((dx * step[0] + dy * step[1] + dz * step[2]) / (step @ step), 0, 1)
            dx, dy, dz = dx - along * step[0], dy - along * step[1], dz - along * step[2]
            off = np.sqrt(dx**2 + dy**2 + dz**2)
            found = off - (first + along * (last - first))
            if not round_:  # lengths count as they are in space: the level over its gradient, as of an ellipse
                steep = np.sqrt((dx / factor[0]) ** 2 + (dy / factor[1]) ** 2 + (dz / factor[2]) ** 2)
                found *= np.maximum(off, _TINY) / np.maximum(steep, _TINY)
            nearest = found if nearest is None else np.minimum(nearest, found)
        assert nearest is not None
        return nearest

    reach = thick[:, None] * factor
    return Shape(distance, (nodes * factor - reach).min(axis=0), (nodes * factor + reach).max(axis=0))


def column(
    z: Point, centre: Sequence[tuple[float, float]], half: Sequence[tuple[float, float]],
    power: float = 2.0, turn: float = 0.0,
) -> Shape:
    """Column of (super)elliptic sections that wanders and changes its width with height: muscles, canals, outlines.

    Parameters
    ----------
    z : sequence of float
        Heights (m) of the nodes, rising; the column ends at the first and the last.
    centre, half : sequence of (x, y)
        Middle and half axes (m) at each node; a smooth curve runs through them.
    power : float
        2 an ellipse, higher a box with rounded corners.
    turn : float
        Angle (rad) by which the sections are turned about z.
    """
    from scipy.interpolate import PchipInterpolator

    heights = np.asarray(z, float)
    curve = PchipInterpolator(heights, np.hstack([np.asarray(centre, float), np.asarray(half, float)]))
    cosine, sine = math.cos(turn), math.sin(turn)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        inside = np.clip(z, heights[0], heights[-1])
        node = curve(inside)
        across, along = x - node[..., 0], y - node[..., 1]
        if turn:
            across, along = cosine * across + sine * along, cosine * along - sine * across
        a, b = node[..., 2], node[..., 3]
        wide, deep = np.maximum(abs(across) / a, _TINY), np.maximum(abs(along) / b, _TINY)
        xp, yp = _power(wide, power), _power(deep, power)
        flat = xp + yp
        level = _power(flat, 1 / power)
        gradient = level / flat * np.sqrt((xp / (wide * a)) ** 2 + (yp / (deep * b)) ** 2)
        side = (level - 1) / np.maximum(gradient, 1.0)
        found: np.ndarray = np.maximum(side, np.maximum(heights[0] - z, z - heights[-1]))
        return found

    fine = curve(np.linspace(heights[0], heights[-1], 64))
    reach = fine[:, 2:].max(axis=1, keepdims=True) if turn else fine[:, 2:]
    low, high = (fine[:, :2] - reach).min(axis=0), (fine[:, :2] + reach).max(axis=0)
    return Shape(distance, np.array([*low, heights[0]]), np.array([*high, heights[-1]]))


def half_space(point: Point, normal: Point) -> Shape:
    """Everything behind the plane through `point` (m) that faces along `normal`."""
    at, unit = np.asarray(point, float), np.asarray(normal, float) / np.linalg.norm(normal)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        found: np.ndarray = (x - at[0]) * unit[0] + (y - at[1]) * unit[1] + (z - at[2]) * unit[2]
        return found

    return Shape(distance, *_EVERYWHERE)


def union(*shapes: Shape, blend: float = 0.0) -> Shape:
    """What lies in any of the shapes; `blend` (m) is the width of the fillet where two meet.

    On a grid each shape is asked only in its own box and a margin around it, beyond which the distance is only known
    to be large: bones are unions of many small parts.
    """
    margin = blend + 2e-3

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        if not (x.ndim == y.ndim == z.ndim == 3 and x.shape[:2] == y.shape[::2] == z.shape[1:] == (1, 1)):
            found = shapes[0].distance(x, y, z)
            for shape in shapes[1:]:
                found = smooth_minimum(found, shape.distance(x, y, z), blend)
            return found
        axes = z.ravel(), y.ravel(), x.ravel()
        found = np.full([len(axis) for axis in axes], _FAR)
        for shape in shapes:
            box = _box(shape, *axes, margin)
            if box is not None:
                found[box] = smooth_minimum(found[box], _evaluate(shape, *axes, box), blend)
        return found

    low, high = np.min([shape.low for shape in shapes], axis=0), np.max([shape.high for shape in shapes], axis=0)
    return Shape(distance, low - blend / 4, high + blend / 4)  # a fillet of two equals stands out by a quarter


def smooth_minimum(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Smaller of two distances, rounded where they differ by less than `blend` (m)."""
    if blend == 0:
        return np.minimum(a, b)
    near = np.maximum(blend - abs(a - b), 0) / blend
    found: np.ndarray = np.minimum(a, b) - near**2 * (blend / 4)
    return found


def intersection(*shapes: Shape, blend: float = 0.0) -> Shape:
    """What lies in all of the shapes, edges rounded by `blend` (m)."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        found = -shapes[0].distance(x, y, z)
        for shape in shapes[1:]:
            found = smooth_minimum(found, -shape.distance(x, y, z), blend)
        return -found

    low, high = np.max([shape.low for shape in shapes], axis=0), np.min([shape.high for shape in shapes], axis=0)
    return Shape(distance, low, high)


def outside(shape: Shape) -> Shape:
    """Everything but the shape: to be intersected with another, it cuts a hollow."""
    return Shape(lambda x, y, z: -shape.distance(x, y, z), *_EVERYWHERE)


def inset(shape: Shape, depth: float | Distance) -> Shape:
    """What lies deeper than `depth` (m; a number, or a function of position) below the surface."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        below = depth(x, y, z) if callable(depth) else depth
        return shape.distance(x, y, z) + below

    return Shape(distance, shape.low, shape.high)


def placed(shape: Shape, origin: Point, rotation: np.ndarray | None = None) -> Shape:
    """The shape moved to `origin` (m), its own axes being the columns of `rotation`."""
    at, axes = np.asarray(origin, float), np.eye(3) if rotation is None else np.asarray(rotation, float)

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        dx, dy, dz = x - at[0], y - at[1], z - at[2]
        if rotation is None:
            return shape.distance(dx, dy, dz)
        # A frame turned about one axis leaves the other terms out: most of ours are.
        own = [sum(c * d for c, d in zip(axis, (dx, dy, dz), strict=True) if c != 0) for axis in axes.T]
        return shape.distance(*own)

    corners = np.array(np.meshgrid(*zip(shape.low, shape.high, strict=True), indexing="ij")).reshape(3, -1)
    if not np.isfinite(corners).all():
        return Shape(distance, *_EVERYWHERE)
    moved = axes @ corners + at[:, None]
    return Shape(distance, moved.min(axis=1), moved.max(axis=1))


def tilt(angle: float) -> np.ndarray:
    """Rotation about x by which z leans towards y, by `angle` (rad)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])


def occupancy(distance: np.ndarray, edge: float) -> np.ndarray:
    """Share (0..1) of small cubes of that `edge` (m) which lies inside a surface at `distance` (m) of their middles.

    A cube fills up linearly as the surface passes through it: exact where the surface is parallel to a face, where
    counting points would see a shell of a third of a millimetre as none or as double.
    """
    found: np.ndarray = np.clip(0.5 - distance / edge, 0, 1)
    return found


@dataclass(frozen=True)
class Grid:
    """Voxels of edge `resolution` (m): `count` of them (z, y, x) about `centre` (m; x, y, z)."""

    count: tuple[int, int, int]
    centre: tuple[float, float, float]
    resolution: float

    @classmethod
    def around(cls, where: str, low: np.ndarray, high: np.ndarray, resolution: float, most: int) -> Grid:
        """Voxels that hold the box from `low` to `high` (m; x, y, z) with one empty voxel around it.

        Along x their number is odd: there is a middle slice.

        Raises
        ------
        InputError
            More than `most` voxels.
        """
        across, along, up = (math.ceil((b - a) / resolution - 1e-9) + 2 for a, b in zip(low, high, strict=True))
        count = (up, along, across + 1 - across % 2)
        inputs.shape(where, count, most)
        middle = (np.asarray(low) + np.asarray(high)) / 2
        return cls(count, (float(middle[0]), float(middle[1]), float(middle[2])), resolution)

    def axes(self, sub: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Middles (m) of the voxels, or of `sub` cubes a voxel, along z, y, x."""
        z, y, x = (at + ((np.arange(n * sub) + 0.5) / sub - n / 2) * self.resolution
                   for n, at in zip(self.count, self.centre[::-1], strict=True))
        return z, y, x


def fractions(layers: Sequence[Layer], grid: Grid) -> dict[str, np.ndarray]:
    """Volume fraction (z, y, x) of each tissue in each voxel; what is missing to one is background.

    Parameters
    ----------
    layers : sequence of Layer
        In the order of painting.
    grid : Grid

    Returns
    -------
    dict of str to array
        In the order in which the tissues first appear.
    """
    names = list(dict.fromkeys(layer.tissue for layer in layers))
    sub = int(np.clip(round(grid.resolution / CUBE), _FEWEST, _MOST))
    edge = grid.resolution / sub
    z, y, x = grid.axes(sub)
    total = {name: np.empty(grid.count) for name in names}
    _, along, across = grid.count

    def slices(first: int, last: int) -> None:
        for k in range(first, last):  # the fine grid never stands in memory as a whole
            heights = z[k * sub : (k + 1) * sub]
            share = np.zeros((len(names), sub, len(y), len(x)))
            for layer in layers:
                box = _box(layer.shape, heights, y, x, edge)
                if box is not None:
                    _paint(share[(slice(None), *box)], layer, names,
                           occupancy(_evaluate(layer.shape, heights, y, x, box), edge))
            rows = share.reshape(len(names), sub, along, sub, across * sub).sum(axis=(1, 3))
            for name, plane in zip(names, rows.reshape(len(names), along, across, sub).sum(axis=3), strict=True):
                total[name][k] = plane / sub**3

    threads.each_block(grid.count[0], slices, 1)
    return total


def labels(layers: Sequence[Layer], grid: Grid) -> np.ndarray:
    """Label (z, y, x) of the structure in which the middle of each voxel lies; zero is background."""
    z, y, x = grid.axes()
    found = np.zeros(grid.count, dtype=np.int16)

    def slices(first: int, last: int) -> None:
        heights = z[first:last]
        for layer in layers:
            box = _box(layer.shape, heights, y, x, 0.0) if layer.label else None
            if box is not None:
                found[first:last][box][_evaluate(layer.shape, heights, y, x, box) < 0] = layer.label

    threads.each_block(grid.count[0], slices, 8)
    return found


def _box(shape: Shape, z: np.ndarray, y: np.ndarray, x: np.ndarray, edge: float) -> tuple[slice, slice, slice] | None:
    """Where the shape may lie on the axes, or None."""
    found = []
    for axis, low, high in zip((z, y, x), shape.low[::-1], shape.high[::-1], strict=True):
        first, last = np.searchsorted(axis, (low - edge, high + edge))
        if first == last:
            return None
        found.append(slice(int(first), int(last)))
    return found[0], found[1], found[2]


def _evaluate(shape: Shape, z: np.ndarray, y: np.ndarray, x: np.ndarray, box: tuple[slice, slice, slice]) -> np.ndarray:
    in_z, in_y, in_x = z[box[0]], y[box[1]], x[box[2]]
    distance = shape.distance(in_x[None, None, :], in_y[None, :, None], in_z[:, None, None])
    return np.broadcast_to(distance, (len(in_z), len(in_y), len(in_x)))


def _paint(share: np.ndarray, layer: Layer, names: list[str], filled: np.ndarray) -> None:
    """Give the layer's tissue its part of each cube; what was there before gives way."""
    own = share[names.index(layer.tissue)]
    if layer.over is not None:
        # Nested surfaces: where both pass through one cube, the inner has its share and the rim keeps the rest.
        room = share[names.index(layer.over)]
        filled = np.minimum(filled, room)
        room -= filled
    else:
        left = 1 - filled
        for tissue in share:
            tissue *= left
    own += filled
