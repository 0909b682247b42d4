"""The lower leg in cross-section at mid-shaft: contours of skin, fascia, tibia and fibula, muscles between septa.

A right leg as it stands in the scanner: x to the right (lateral, where the fibula is), y anterior. Contours are
smooth functions of the angle about a point inside, positions are metres: nothing here knows voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..simulator import tissues

_MM = 1e-3
_MEDIAL = math.radians(156)  # where the flat face of the tibia looks that one feels under the skin
_ANGLES = np.arange(720) / 720 * 2 * np.pi
# Sites of the muscles (mm in a leg of 52 mm mean radius), and the room each takes (mm): a power diagram.
_MUSCLES = {
    "tibialis anterior": (2.0, 29.0, 11.0), "extensor digitorum": (16.0, 27.0, 8.0), "peroneus": (33.0, 11.0, 9.0),
    "tibialis posterior": (4.0, 6.0, 10.0), "flexor digitorum": (-17.0, 4.0, 7.0), "flexor hallucis": (18.0, -8.0, 8.0),
    "soleus medial": (-15.0, -16.0, 13.0), "soleus lateral": (10.0, -22.0, 13.0),
    "gastrocnemius medial": (-21.0, -36.0, 13.0), "gastrocnemius lateral": (19.0, -40.0, 11.0),
}
_FULL_SIZE = 52.0  # mm
# Vessels: (x, y, radius) in the same leg: anterior tibial, posterior tibial, peroneal bundle, great saphenous vein.
_VESSELS = ((10.5, 14.5, 1.5), (-7.0, -5.5, 1.9), (11.0, -2.5, 1.5))
_SHEATH = 1.6  # fat around a vessel bundle, in radii
_BEND = 12 * _MM
_SEPTUM = 0.65 * _MM  # thickness of fat between muscles


@dataclass(frozen=True)
class Contour:
    """A closed curve: centre (m) and radius (m) at 720 equal angles."""

    x: float
    y: float
    radius: np.ndarray

    @cached_property
    def _steepness(self) -> np.ndarray:
        slope = (np.roll(self.radius, -1) - np.roll(self.radius, 1)) / (2 * (_ANGLES[1] - _ANGLES[0]))
        return np.asarray(1 / np.sqrt(1 + (slope / self.radius) ** 2))

    def at(self, angle: np.ndarray, what: np.ndarray | None = None) -> np.ndarray:
        """Radius (m) at an angle (rad)."""
        return np.interp(angle, _ANGLES, self.radius if what is None else what, period=2 * np.pi)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed distance (m) to the curve, inside positive, to first order in how far away it is."""
        angle = np.arctan2(y - self.y, x - self.x)
        off = self.at(angle) - np.hypot(x - self.x, y - self.y)
        return np.asarray(off * self.at(angle, self._steepness))

    def area(self) -> float:
        """Area enclosed (m2)."""
        return float((self.radius**2).mean() * np.pi)


@dataclass(frozen=True)
class Shaft:
    """A long bone in cross-section: periosteal and endosteal contour about one centre."""

    outer: Contour
    inner: Contour

    def area(self) -> float:
        """Area of cortex (m2)."""
        return self.outer.area() - self.inner.area()

    def thickness(self) -> float:
        """Mean thickness of the cortex (m), along the normal of the periosteal contour."""
        return float(((self.outer.radius - self.inner.radius) * self.outer._steepness).mean())

    def candidates(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
        """Points uniform over the cortex: x, y, depth (0 periosteal to 1), distance to the nearest surface (m)."""
        weight = np.cumsum(np.append(0.0, self.outer.radius**2 - self.inner.radius**2))
        angle = np.interp(rng.random(n) * weight[-1], weight, np.append(_ANGLES, 2 * np.pi))
        outer, inner = self.outer.at(angle), self.inner.at(angle)
        radius = np.sqrt(inner**2 + rng.random(n) * (outer**2 - inner**2))
        room = np.minimum((outer - radius) * self.outer.at(angle, self.outer._steepness),
                          (radius - inner) * self.inner.at(angle, self.inner._steepness))
        return (self.outer.x + radius * np.cos(angle), self.outer.y + radius * np.sin(angle),
                (outer - radius) / (outer - inner), room)


@dataclass(frozen=True)
class Leg:
    """All contours of one leg."""

    skin: Contour
    fascia: Contour
    tibia: Shaft
    fibula: Shaft
    face: float  # m: how far out, along its normal, the medial face of the tibia lies; before it there is no muscle
    scale: float  # of a leg of 52 mm
    waves: np.ndarray  # (wave, 4): what bends the septa

    def regions(self, x: np.ndarray, y: np.ndarray, size: float) -> dict[str, np.ndarray]:
        """Share of small squares of edge `size` (m) in each tissue; the shares of a square sum to the leg's.

        Parameters
        ----------
        x, y : array
            Middles of the squares (m).

        Returns
        -------
        dict of str to array
            ``cortex`` and ``tibia`` (the cortex of the tibia alone), ``marrow``, ``muscle``, ``vein``, ``adipose``.
        """
        def filled(distance: np.ndarray) -> np.ndarray:
            return np.clip(0.5 + distance / size, 0.0, 1.0)

        bones = []
        for shaft in (self.tibia, self.fibula):
            outer = filled(shaft.outer.distance(x, y))
            bones.append((outer, np.minimum(filled(shaft.inner.distance(x, y)), outer)))
        outer = bones[0][0] + bones[1][0]  # the two bones stand apart
        leg = np.maximum(filled(self.skin.distance(x, y)), outer)
        before = self.face - x * math.cos(_MEDIAL) - y * math.sin(_MEDIAL)
        within = self.fascia.distance(x, y)
        bend = np.maximum(_BEND * self.scale - np.abs(within - before), 0.0)  # round where fascia and face meet
        within = np.minimum(within, before) - bend**2 / (4 * _BEND * self.scale)
        inside = np.maximum(np.minimum(filled(within), leg), outer)
        lumen, sheath = np.zeros_like(inside), np.zeros_like(inside)
        for vx, vy, radius in self._vessels():
            off = np.hypot(x - vx, y - vy)
            lumen = np.maximum(lumen, filled(radius - off))
            sheath = np.maximum(sheath, filled(_SHEATH * radius - off))
        vein = np.minimum(lumen, leg - outer)
        soft = inside - outer
        fat = np.maximum(filled(_SEPTUM * self.scale / 2 - self._septa(x, y)), sheath)
        muscle = np.minimum(soft * (1 - fat), leg - outer - vein)
        cortex = [a - b for a, b in bones]
        return {"cortex": cortex[0] + cortex[1], "tibia": cortex[0], "marrow": bones[0][1] + bones[1][1],
                "muscle": muscle, "vein": vein, "adipose": leg - outer - vein - muscle}

    def _vessels(self) -> list[tuple[float, float, float]]:
        unit = _MM * self.scale
        angle = math.radians(205)
        at = float(self.skin.at(np.array(angle))) - 4.5 * unit
        return [(vx * unit, vy * unit, r * unit) for vx, vy, r in _VESSELS] + [
            (at * math.cos(angle), at * math.sin(angle), 1.5 * unit)]

    def _septa(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance (m) to the nearest boundary between two muscles."""
        bent_x, bent_y = np.array(x, dtype=float), np.array(y, dtype=float)
        for kx, ky, phase, turn in self.waves:
            swing = 0.8 * _MM * self.scale * np.sin(kx * x + ky * y + phase)
            bent_x = bent_x + math.cos(turn) * swing
            bent_y = bent_y + math.sin(turn) * swing
        sites = np.array(list(_MUSCLES.values())) * _MM * self.scale
        power = np.stack([(bent_x - sx) ** 2 + (bent_y - sy) ** 2 - r**2 for sx, sy, r in sites])
        first = power.argmin(axis=0)
        nearest = np.full(first.shape, np.inf)
        lowest = np.take_along_axis(power, first[None], 0)[0]
        for i, (sx, sy, _) in enumerate(sites):
            apart = 2 * np.hypot(sites[first, 0] - sx, sites[first, 1] - sy)
            with np.errstate(divide="ignore", invalid="ignore"):
                nearest = np.where(first == i, nearest, np.minimum(nearest, (power[i] - lowest) / apart))
        return nearest


def draw(rng: np.random.Generator, field: float, condition: str, thickness: float | None) -> Leg:
    """A leg with sizes drawn within the published ranges, and a cortex of the thickness asked for."""
    def drawn(name: str) -> float:
        size = tissues.entry(name)
        return size.value + 0.25 * (size.high - size.low) * rng.uniform(-1, 1)

    radius, fat = drawn("tibia.leg_radius"), drawn("tibia.adipose_thickness")
    width, depth = drawn("tibia.width"), drawn("tibia.depth")
    if thickness is None:
        thickness = tissues.value("cortical.thickness", field, condition)
    scale = radius / (_FULL_SIZE * _MM)
    unit = _MM * scale
    skin = Contour(0.0, 0.0, radius * (1.03 + 0.015 * np.cos(2 * _ANGLES) - 0.075 * np.sin(_ANGLES)
                                       - 0.085 * _bump(140, 38) - 0.035 * _bump(50, 30) + 0.045 * _bump(225, 30)
                                       + 0.04 * _bump(318, 32) - 0.025 * _bump(272, 16) + 0.02 * _bump(103, 14)
                                       + _ripple(rng, 0.006)))
    shape = 1 - 0.85 * _bump(125, 38) + 0.9 * _bump(205, 34) - 0.35 * _bump(50, 40) + 0.4 * _bump(300, 40)
    shape = shape + _ripple(rng, 0.05)
    fascia = Contour(0.0, 0.0, skin.radius - fat * np.maximum(shape / shape.mean(), 0.2))

    outline = _triangle(width, depth, rng)
    # The flat medial face lies under the skin: the bone stands where it touches the fascia there.
    facing = math.radians(138)
    under = float(skin.at(np.array(facing))) - 0.55 * fat
    reach = float((outline * np.cos(_ANGLES - facing)).max())
    middle = under - reach - 0.3 * unit
    tibia = _shaft(middle * math.cos(facing), middle * math.sin(facing), outline, thickness)
    rim = (tibia.outer.x + outline * np.cos(_ANGLES), tibia.outer.y + outline * np.sin(_ANGLES))
    face = float((rim[0] * math.cos(_MEDIAL) + rim[1] * math.sin(_MEDIAL)).max()) - 0.8 * unit
    thin = 0.55 * width / 2 * (1 + 0.10 * np.cos(2 * (_ANGLES - 2.2)) + 0.06 * np.cos(3 * (_ANGLES - 0.6))
                               + _ripple(rng, 0.015))
    fibula = _shaft(26.0 * unit, 1.0 * unit, thin, min(0.62 * thickness, 0.6 * thin.min()))
    angle = rng.uniform(0, 2 * np.pi, size=(3, 6))
    wave = 2 * np.pi / (rng.uniform(16, 34, size=6) * unit)
    waves = np.stack([wave * np.cos(angle[0]), wave * np.sin(angle[0]), angle[1], angle[2]], axis=1)
    return Leg(skin, fascia, tibia, fibula, face, scale, waves)


def _bump(degrees: float, wide: float) -> np.ndarray:
    """A smooth bump of height one at an angle, periodic (von Mises)."""
    return np.asarray(np.exp((np.cos(_ANGLES - math.radians(degrees)) - 1) / math.radians(wide) ** 2))


def _ripple(rng: np.random.Generator, size: float) -> np.ndarray:
    """What differs from person to person: harmonics 2 to 5, falling off."""
    total = np.zeros_like(_ANGLES)
    for k in range(2, 6):
        total += size * rng.normal() / k * np.cos(k * _ANGLES + rng.uniform(0, 2 * np.pi))
    return total


def _triangle(width: float, depth: float, rng: np.random.Generator) -> np.ndarray:
    """A rounded triangle with its crest forward: radius at each angle, of the width (x) and depth (y) given."""
    # Posterior, lateral and medial face: normal (deg), distance.
    faces = ((272.0, 1.0), (18.0, 1.06), (150.0, 0.96))
    radius = np.zeros_like(_ANGLES)
    for normal, away in faces:
        radius += np.maximum(np.cos(_ANGLES - math.radians(normal)) / away, 0.0) ** 3.4
    radius = (radius + 0.42**3.4) ** (-1 / 3.4) * (1 + _ripple(rng, 0.008))
    for _ in range(2):  # stretched to size; the middle of the box becomes the origin
        x, y = radius * np.cos(_ANGLES), radius * np.sin(_ANGLES)
        x = (x - (x.max() + x.min()) / 2) * width / (x.max() - x.min())
        y = (y - (y.max() + y.min()) / 2 + 0.06 * (y.max() - y.min())) * depth / (y.max() - y.min())
        angle = np.unwrap(np.arctan2(y, x))
        radius = np.interp(_ANGLES, np.mod(angle, 2 * np.pi), np.hypot(x, y), period=2 * np.pi)
    return np.asarray(radius)


def _shaft(x: float, y: float, outline: np.ndarray, thickness: float) -> Shaft:
    """A bone of mean cortical `thickness`; the canal is rounder than the outline, so that corners are thicker."""
    outer = Contour(x, y, outline)
    wave = np.fft.rfft(outline)
    wave[1:] *= np.exp(-0.42 * np.arange(1, wave.size))
    rounder = np.fft.irfft(wave, outline.size)
    inset = thickness
    for _ in range(30):  # the mean thickness is met; nowhere is the cortex thinner than 55 % of it
        inner = np.minimum(rounder - inset, outline - 0.55 * thickness)
        found = Shaft(outer, Contour(x, y, np.maximum(inner, 0.05 * outline.mean())))
        inset += thickness - found.thickness()
    return found
