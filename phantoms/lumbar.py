"""Anatomy of the lumbar spine from T12 to L5, as layers to paint: bones, discs, canal, muscles, fat.

Vertebrae are rigid and stand on each other through their end plates, from L3 up and down; a disc fills what its two
end plates leave, as it does in life, so that lordosis lies in the discs and a broken vertebra bends the spine forwards.
Sizes come from ``tissues.toml``; proportions that only give a part its form stand here (m, x to the right, y to the
front, z up, in the frame of each vertebra).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..simulator import tissues
from . import geometry
from .geometry import Layer, Shape
from .vertebra import WEDGE, Body

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5")
_MIDDLE = LEVELS.index("L3")
# Relative size of the bodies: wider downwards, L3 being the one that is drawn.
_SIZE = {"T12": (0.90, 0.93, 0.93), "L1": (0.93, 0.96, 0.96), "L2": (0.96, 0.98, 0.99), "L3": (1.0, 1.0, 1.0),
         "L4": (1.05, 1.02, 1.0), "L5": (1.09, 1.03, 0.99)}
# Share of the lordosis (L1 to S1) that each disc takes, by the vertebra above it; L5/S1 takes the rest.
_BEND = {"T12": 0.04, "L1": 0.10, "L2": 0.15, "L3": 0.21, "L4": 0.27}
# Height of each disc relative to that of L3/4.
_DISC = {"T12": 0.72, "L1": 0.84, "L2": 0.93, "L3": 1.0, "L4": 1.04}
_POSTERIOR_SHELL = 1.1e-3  # m; cortex of pedicles, laminae and processes
MUSCLES = ("psoas", "quadratus lumborum", "erector spinae", "multifidus")
_MUSCLE_LABEL = 31  # the first; left and right follow each other
SIDES = ("left", "right")
WORN = ("old", "osteopenic", "osteoporotic", "fractured")  # conditions of people whose discs have lost height and water


def label_names() -> dict[int, str]:
    """Number and name of every structure in a label map."""
    vertebrae = {1 + i: level for i, level in enumerate(LEVELS)}
    discs = {11 + i: f"disc {a}/{b}" for i, (a, b) in enumerate(pairwise(LEVELS))}
    muscles = {_MUSCLE_LABEL + 2 * i + j: f"{side} {name}"
               for i, name in enumerate(MUSCLES) for j, side in enumerate(SIDES)}
    return {**vertebrae, **discs, 21: "thecal sac", **muscles}


@dataclass(frozen=True)
class Placed:
    """A vertebra in the spine: middle (m; y, z) and tilt (rad, forwards) of its body, and its end plates' angle."""

    level: str
    body: Body
    y: float
    z: float
    tilt: float

    @property
    def wedge(self) -> float:
        """Angle (rad) between its end plates and its middle plane."""
        return math.atan(self.body.wedge * self.body.z / (2 * self.body.y))

    @property
    def half_height(self) -> float:
        """From its middle to an end plate (m)."""
        return self.body.z * (1 - 0.5 * self.body.wedge)

    def at(self, y: float, z: float) -> tuple[float, float]:
        """Place (m; y, z) of a point given in the vertebra's own frame."""
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        return self.y + cosine * y + sine * z, self.z - sine * y + cosine * z

    def put(self, shape: Shape) -> Shape:
        """A shape given in the vertebra's own frame, in the spine."""
        return geometry.placed(shape, (0.0, self.y, self.z), geometry.tilt(self.tilt))


@dataclass(frozen=True)
class Lumbar:
    """A spine: its vertebrae from T12 down, what stands between them, and the layers to paint."""

    vertebrae: tuple[Placed, ...]
    shell: float
    disc_height: float
    worn: bool
    low: np.ndarray
    high: np.ndarray

    def layers(self) -> list[Layer]:
        """Everything, in the order of painting."""
        found = [Layer("adipose", self._trunk()), *self._muscles()]
        canal, sac = self._canal()
        found += [Layer("adipose", canal), Layer("csf", sac, label=21)]
        for i, (above, below) in enumerate(pairwise(self.vertebrae)):
            found += self._disc(above, below, 11 + i)
        for i, placed in enumerate(self.vertebrae):
            found += self._vertebra(placed, 1 + i)
        low, high = self.low[2], self.high[2]  # what the field of view cuts off is background
        return [replace(layer, shape=_between(layer.shape, low, high)) for layer in found]

    def _trunk(self) -> Shape:
        """Fat around the spine, and under the skin of the back."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        z = np.array([self.low[2], middle[2], self.high[2]])
        return geometry.column(z, [(middle[0], middle[1])] * 3, [(half[0] - 1e-4, half[1] - 1e-4)] * 3, power=4.0)

    def _along(self, y: float) -> tuple[list[float], list[float]]:
        """Heights (rising) and places (y) of the points that lie at `y` behind the middle of each body's back wall."""
        points = [placed.at(-placed.body.y - y, 0.0) for placed in reversed(self.vertebrae)]
        return [z for _, z in points], [y for y, _ in points]

    def _canal(self) -> tuple[Shape, Shape]:
        """Bony canal, filled with fat, and the thecal sac inside it."""
        depth, width = (tissues.value(f"spine.canal_{name}") for name in ("depth", "width"))
        fat = tissues.value("spine.epidural_fat")
        z, y = self._along(0.5 * depth)
        ends = [z[0] - 0.02, *z, z[-1] + 0.02]
        middle = [y[0], *y, y[-1]]
        n = len(ends)
        canal = geometry.column(ends, [(0.0, at) for at in middle], [(0.5 * width, 0.5 * depth)] * n, power=2.5)
        # Fat lies behind the sac, and little in front of it.
        half = 0.5 * (depth - fat)
        sac = geometry.column(ends, [(0.0, at + 0.5 * depth - half - 0.7e-3) for at in middle],
                              [(0.36 * width * (1 + 0.06 * (i / n - 0.5)), half) for i in range(n)], power=2.0)
        return canal, sac

    def _muscles(self) -> list[Layer]:
        scale = math.sqrt(tissues.value("spine.muscle_area") / 2.08e-3)  # of erector and multifidus as drawn below, L3
        back = 0.5 * tissues.value("spine.canal_depth")
        heights, wall = self._along(0.0)
        z = [self.low[2] - 0.02, *heights, self.high[2] + 0.02]
        y = np.interp(z, heights, wall)
        depth = np.interp(z, heights, [placed.body.y for placed in reversed(self.vertebrae)])
        width = np.interp(z, heights, [placed.body.x for placed in reversed(self.vertebrae)])
        down = np.clip((self.vertebrae[0].z - np.array(z)) / 0.15, 0, 1)  # 0 at T12, 1 at L5
        found = []
        for sign, offset in ((-1, 0), (1, 1)):
            def column(x: np.ndarray, at: np.ndarray, a: np.ndarray, b: np.ndarray, turn: float, power: float = 2.5,
                       sign: int = sign) -> Shape:
                return geometry.column(z, list(zip(sign * x, at, strict=True)),
                                       list(zip(a, b, strict=True)), power, sign * turn)

            one = np.ones_like(down)
            psoas = column(width + 0.004 + 0.011 * down, y + depth * (0.75 - 0.1 * down),
                           0.006 + 0.014 * down, 0.008 + 0.016 * down, 0.25)
            quadratus = column(width + 0.024 + 0.012 * down, y - 0.010 + 0.006 * down, 0.007 * one, 0.017 * one, -0.5)
            erector = column(scale * (0.033 + 0.001 * down), y - back - 0.032 - 0.003 * down,
                             scale * (0.024 - 0.004 * down), scale * (0.0195 - 0.003 * down), 0.12)
            multifidus = column(scale * (0.0125 + 0.003 * down), y - back - 0.030 - 0.003 * down,
                                scale * (0.0095 + 0.005 * down), scale * (0.0155 + 0.003 * down), 0.1)
            # A sheet of fat parts the two muscles of the back.
            cleft = geometry.inset(multifidus, -1.2e-3)
            erector = geometry.intersection(erector, geometry.outside(cleft))
            quadratus = geometry.intersection(quadratus, geometry.inset(self._trunk(), 3e-3))
            for i, shape in enumerate((psoas, quadratus, erector, multifidus)):
                found.append(Layer("muscle", shape, label=_MUSCLE_LABEL + 2 * i + offset))
        return found

    def _disc(self, above: Placed, below: Placed, label: int) -> list[Layer]:
        height = self.disc_height * _DISC[above.level]
        tilt = 0.5 * (above.tilt - above.wedge + below.tilt + below.wedge)
        (top_y, top_z), (low_y, low_z) = above.at(0.0, -above.half_height), below.at(0.0, below.half_height)
        origin = (0.0, 0.5 * (top_y + low_y), 0.5 * (top_z + low_z))
        wide, deep = 0.5 * (above.body.x + below.body.x), 0.5 * (above.body.y + below.body.y)
        bulge = 1.6e-3 if self.worn else 0.4e-3
        tall = 0.5 * height + 2.6e-3  # into the hollows of the bodies, which are painted over it
        annulus = geometry.superellipsoid((0, -0.2 * bulge, 0), (wide + bulge, deep + bulge, tall), 2.5, 4.0)
        share = 0.60 if self.worn else 0.70
        nucleus = geometry.superellipsoid((0, -0.06 * deep, 0), (share * wide, share * deep, 0.5 * height + 1.2e-3),
                                          2.5, 3.0)
        shapes = [geometry.placed(shape, origin, geometry.tilt(tilt)) for shape in (annulus, nucleus)]
        return [Layer("annulus", shapes[0], label=label), Layer("nucleus", shapes[1], over="annulus", label=label)]

    def _vertebra(self, placed: Placed, label: int) -> list[Layer]:
        core = "broken" if placed.body.wedge > 0 else "core"
        arch = _arch(placed)
        whole = geometry.union(placed.put(placed.body.shape()), arch, blend=3e-3)
        inner = geometry.union(placed.put(placed.body.shape(self.shell)), geometry.inset(arch, _POSTERIOR_SHELL),
                               blend=2e-3)
        return [Layer("cortical", whole, label=label), Layer(core, inner, over="cortical"),
                Layer("vein", placed.put(_vein(placed.body)), over=core)]


def _arch(placed: Placed) -> Shape:
    """Pedicles, laminae, and the articular, transverse and spinous processes."""
    body = placed.body
    back = -body.y  # the back wall of the body
    wide, tall = (0.5 * tissues.value(f"vertebra.pedicle_{name}") for name in ("width", "height"))
    depth, width = (tissues.value(f"spine.canal_{name}") for name in ("depth", "width"))
    length = tissues.value("vertebra.spinous_length")
    at = 0.5 * width + wide  # of the pedicle, from the middle
    rear = back - depth - 2e-3  # of the lamina
    size = body.z / 14e-3
    parts = []
    for sign in (-1, 1):
        parts += [
            geometry.superellipsoid((sign * (at - 1e-3), back - 0.25 * depth, 4e-3), (wide, 0.55 * depth, tall),
                                    3.0, 2.0),
            # pars interarticularis and lamina, steep and thin
            geometry.tube([(sign * at, back - 0.72 * depth, 1e-3), (sign * 0.55 * at, back - depth, -5e-3 * size),
                           (sign * 1e-3, rear - 2.5e-3, -8e-3 * size)], [3.6e-3, 2.8e-3, 2.6e-3], (1, 1, 2.2)),
            geometry.tube([(sign * (at + 0.5e-3), back - 0.75 * depth, 4e-3),
                           (sign * (at + 2.0e-3), back - 0.85 * depth, 17e-3 * size)], [4.5e-3, 3.8e-3]),
            geometry.tube([(sign * (at - 2e-3), back - 0.95 * depth, -6e-3),
                           (sign * (at - 2e-3), back - 1.12 * depth, -20e-3 * size)], [4.5e-3, 4.0e-3]),
            geometry.tube([(sign * at, back - 0.6 * depth, 4e-3), (sign * (at + 12e-3), back - 0.75 * depth, 5.5e-3),
                           (sign * (at + 25e-3), back - 0.95 * depth, 6e-3)], [3.6e-3, 2.4e-3, 2.2e-3], (1, 1, 1.7)),
        ]
    # A hatchet that points backwards and a little down, thicker along its lower edge.
    blade = geometry.superellipsoid((0, -0.5 * length, 0), (2.7e-3, 0.5 * length + 2e-3, 9e-3 * size), 4.0, 3.0)
    spinous = geometry.placed(blade, (0, rear + 1e-3, -7e-3 * size), geometry.tilt(-0.14))
    edge = geometry.tube([(0, rear - 3e-3, -12e-3 * size), (0, rear - length + 2e-3, -13e-3 * size)], [3e-3, 4.2e-3])
    shape = geometry.union(*map(placed.put, (*parts, spinous, edge)), blend=4e-3)
    # The canal stays open: what blends into it is cut away again.
    hole = geometry.column([-0.04, 0.04], [(0.0, back - 0.5 * depth)] * 2, [(0.5 * width, 0.5 * depth)] * 2, power=2.5)
    return geometry.intersection(shape, geometry.outside(placed.put(hole)), blend=1e-3)


def _vein(body: Body) -> Shape:
    """Basivertebral vein: enters in the middle of the back wall, narrows, and forks before the middle."""
    wide = 0.5 * tissues.value("spine.vein_diameter")
    fork = (0.0, -0.30 * body.y, 0.0)
    trunk = geometry.tube([(0, -1.02 * body.y, 0), fork], [1.25 * wide, 0.75 * wide], (1.5, 1, 1))
    arms = [geometry.tube([fork, (sign * 0.38 * body.x, 0.1 * body.y, 0.5e-3)], [0.65 * wide, 0.35 * wide])
            for sign in (-1, 1)]
    return geometry.union(trunk, *arms, blend=2e-3)


def _between(shape: Shape, low: float, high: float) -> Shape:
    """What of the shape lies between two heights (m)."""

    def distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.maximum(shape.distance(x, y, z), np.maximum(low - z, z - high))
        return found

    return Shape(distance, np.array([*shape.low[:2], max(low, shape.low[2])]),
                 np.array([*shape.high[:2], min(high, shape.high[2])]))


def stack(middle: Body, shell: float, condition: str, rng: np.random.Generator, broken: Sequence[str]) -> Lumbar:
    """Stand the vertebrae on each other.

    Parameters
    ----------
    middle : Body
        L3, not broken.
    shell : float
        Thickness (m) of its cortex.
    condition : str
    rng : Generator
        Draws lordosis and disc height.
    broken : sequence of str
        Levels with a wedge fracture.
    """
    worn = condition in WORN
    lordosis = tissues.entry("spine.lordosis")
    bend = math.radians(lordosis.value + 0.25 * (lordosis.high - lordosis.low) * rng.uniform(-1, 1))
    disc = tissues.entry("spine.disc_height", condition="old" if worn else "young")
    height = disc.value + 0.25 * (disc.high - disc.low) * rng.uniform(-1, 1)
    bodies = {}
    for level in LEVELS:
        x, y, z = _SIZE[level]
        bodies[level] = Body(middle.x * x, middle.y * y, middle.z * z, WEDGE if level in broken else 0.0)

    placed = {_MIDDLE: Placed("L3", bodies["L3"], 0.0, 0.0, -0.02)}
    for step in (-1, 1):  # up, then down
        for i in range(_MIDDLE + step, len(LEVELS) if step > 0 else -1, step):
            last, level = placed[i - step], LEVELS[i]
            upper = min(i, i - step)
            angle, gap = bend * _BEND[LEVELS[upper]], height * _DISC[LEVELS[upper]]
            # Up, the plate of the lower leans by its wedge, the disc leans back, the next by its own wedge again.
            new = Placed(level, bodies[level], 0.0, 0.0, 0.0)
            between = last.tilt - step * (last.wedge - 0.5 * angle)
            tilt = last.tilt - step * (last.wedge - angle + new.wedge)
            y, z = last.y, last.z
            for length, lean in ((last.half_height, last.tilt), (gap, between), (new.half_height, tilt)):
                y, z = y - step * math.sin(lean) * length, z - step * math.cos(lean) * length
            placed[i] = replace(new, y=y, z=z, tilt=tilt)
    vertebrae = tuple(placed[i] for i in range(len(LEVELS)))
    front = max(each.y + each.body.y for each in vertebrae)
    top, bottom = vertebrae[0], vertebrae[-1]
    wide = 0.066
    depth = tissues.value("spine.canal_depth") + tissues.value("vertebra.spinous_length")
    rear = min(each.at(-each.body.y, 0)[0] for each in vertebrae) - depth - 0.020
    low = np.array([-wide, rear, bottom.z + 0.15 * bottom.body.z])
    high = np.array([wide, front + 0.014, top.z - 0.15 * top.body.z])
    return Lumbar(vertebrae, shell, height, worn, low, high)
