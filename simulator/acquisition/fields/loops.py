"""The quasi-static field of a loop of wire, circular or with straight sides, in closed form.

Quasi-static: wavelength and depth of penetration are taken as long against the body. For B1 at 3 T and above, see
`transmit` for what that leaves out.

Sources: Jackson, Classical Electrodynamics, 3rd ed., section 5.5 (circle); Smythe, Static and Dynamic Electricity,
3rd ed., section 7.10; a straight segment is elementary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError

MU0 = 4e-7 * math.pi
"""Magnetic constant (T m/A), to 10 digits."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Loop:
    """A circular loop of thin wire; its current turns right-handedly about the normal.

    Attributes
    ----------
    centre : three floats
        x, y, z (m).
    normal : three floats
        Its axis (x, y, z); any length.
    radius : float
        m.
    """

    centre: tuple[float, float, float]
    normal: tuple[float, float, float]
    radius: float

    def __post_init__(self) -> None:
        _vector("loop", "centre", self.centre)
        if not np.linalg.norm(_vector("loop", "normal", self.normal)) > 0:
            raise InputError(f"loop: normal is {self.normal!r}: expected a vector (x, y, z) with a length")
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise InputError(f"loop: radius is {self.radius!r}: expected above 0 m")

    def field(self, positions: Any) -> Floats:
        """Magnetic field (T per A) at positions (..., 3), x, y, z in m: (..., 3)."""
        outward, rho, z, axis, far, m, F = self._potential_parts(positions)
        a = self.radius
        slope = m * _slope(m)
        scale = MU0 * a**2 / (4 * far**1.5)
        along = scale * (2 * F + slope - (3 * F + 2 * slope) * rho * (a + rho) / far)
        across = scale * (3 * F + 2 * slope) * rho * z / far
        return along[..., None] * axis + across[..., None] * outward

    def potential(self, positions: Any) -> Floats:
        """Vector potential (T m per A) at positions (..., 3) in Coulomb's gauge: (..., 3)."""
        outward, rho, _, axis, far, _, F = self._potential_parts(positions)
        around = MU0 * self.radius**2 / 4 * rho / far**1.5 * F
        return around[..., None] * np.cross(axis, outward)

    def path(self, count: int) -> Floats:
        """Corners (count, 3) of a regular polygon on the loop, in the sense of the current (m)."""
        axis = np.asarray(self.normal, dtype=float) / np.linalg.norm(self.normal)
        one = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
        one /= np.linalg.norm(one)
        angle = 2 * math.pi * np.arange(count)[:, None] / count
        return np.asarray(self.centre) + self.radius * (np.cos(angle) * one + np.sin(angle) * np.cross(axis, one))

    def _potential_parts(self, positions: Any) -> tuple[Floats, ...]:
        """What the potential mu0 a^2/4 rho/far^(3/2) F(m) is made of, and its direction.

        F is the hypergeometric function for (1 - m/2) K(m) - E(m), over its leading pi m^2/32: the elliptic integrals
        themselves cancel near the axis and far away, to nothing but rounding.
        """
        from scipy.special import hyp2f1

        axis = np.asarray(self.normal, dtype=float) / np.linalg.norm(self.normal)
        place = _positions(positions) - np.asarray(self.centre, dtype=float)
        z = place @ axis
        away = place - z[..., None] * axis
        rho = np.linalg.norm(away, axis=-1)
        outward = away / np.where(rho > 0, rho, 1.0)[..., None]  # unit vector away from the axis, 0 on it
        far = (self.radius + rho) ** 2 + z**2
        m = 4 * self.radius * rho / far
        if not (m < 1).all():
            raise InputError(f"loop at {self.centre} m: a position lies on the wire, where its field has no value")
        return outward, rho, z, axis, far, m, hyp2f1(1.5, 1.5, 3.0, m)


@dataclass(frozen=True)
class Polygon:
    """A closed loop of thin wire with straight sides.

    Attributes
    ----------
    corners : tuple of three floats each
        x, y, z (m), in the sense of the current; the last is joined to the first.
    """

    corners: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3:
            raise InputError(f"polygon: {len(self.corners)} corners: expected three at least")
        place = np.array([_vector("polygon", "corner", corner) for corner in self.corners])
        if np.linalg.norm(place - np.roll(place, -1, axis=0), axis=1).min() <= 0:
            raise InputError("polygon: two corners in a row are the same: expected a side between them")

    def field(self, positions: Any) -> Floats:
        """Magnetic field (T per A) at positions (..., 3), x, y, z in m: (..., 3)."""
        total: Floats = np.zeros(_positions(positions).shape)
        for first, second, r1, r2, _ in self._sides(positions):
            below = r1 * r2 * (r1 * r2 + (first * second).sum(axis=-1))
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.cross(first, second) * ((r1 + r2) / below)[..., None]
            # on the line of a side, beyond its ends, its field is 0
            total += np.where((below > 0)[..., None], share, 0.0)
        return MU0 / (4 * math.pi) * total

    def potential(self, positions: Any) -> Floats:
        """Vector potential (T m per A) at positions (..., 3) in Coulomb's gauge: (..., 3)."""
        total: Floats = np.zeros(_positions(positions).shape)
        for _, _, r1, r2, side in self._sides(positions):
            length = float(np.linalg.norm(side))
            total += (2 * np.arctanh(length / (r1 + r2)))[..., None] * (side / length)
        return MU0 / (4 * math.pi) * total

    def path(self, count: int) -> Floats:
        """At least `count` points on the wire, each side cut evenly, in the sense of the current (m): (point, 3)."""
        corners = np.asarray(self.corners, dtype=float)
        steps = math.ceil(count / len(corners))
        share = np.arange(steps)[:, None] / steps
        ends = np.roll(corners, -1, axis=0)
        return np.concatenate([a + share * (b - a) for a, b in zip(corners, ends, strict=True)])

    def _sides(self, positions: Any) -> Any:
        place, corners = _positions(positions), np.asarray(self.corners, dtype=float)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            first, second, side = place - a, place - b, b - a
            r1, r2 = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
            if (r1 + r2 <= np.linalg.norm(side) * (1 + 1e-15)).any():
                raise InputError("polygon: a position lies on the wire, where its field has no value")
            yield first, second, r1, r2, side


Conductor = Loop | Polygon


def rectangle(
    centre: Sequence[float], normal: Sequence[float], along: Sequence[float], width: float, length: float
) -> Polygon:
    """A rectangular loop: `length` (m) along `along`, `width` (m) across it; current right-handed about the normal."""
    n, u = _vector("rectangle", "normal", normal), _vector("rectangle", "along", along)
    n, u = n / np.linalg.norm(n), u / np.linalg.norm(u)
    if abs(n @ u) > 1e-9:
        raise InputError(f"rectangle: along is {tuple(along)}: expected a direction at right angles to the normal")
    v = np.cross(n, u)
    c = _vector("rectangle", "centre", centre)
    corners = [c + s * length / 2 * u + t * width / 2 * v for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return Polygon(tuple((float(p[0]), float(p[1]), float(p[2])) for p in corners))


def mutual_inductance(one: Conductor, other: Conductor, points: int = 720) -> float:
    """Mutual inductance (H): the flux of one loop through the other, as the line integral of its vector potential.

    Neighbours in an array are laid so that it vanishes: circles at three quarters of their diameter (Roemer et al.
    1990, doi:10.1002/mrm.1910160203).
    """
    corners = other.path(points)
    side = np.roll(corners, -1, axis=0) - corners
    return float((one.potential(corners + side / 2) * side).sum())


def _slope(m: Floats) -> Floats:
    """dF/dm of the potential's F."""
    from scipy.special import hyp2f1

    slope: Floats = 0.75 * hyp2f1(2.5, 2.5, 4.0, m)
    return slope


def _positions(positions: Any) -> Floats:
    place = np.asarray(positions, dtype=float)
    if place.ndim == 0 or place.shape[-1] != 3:
        raise InputError(f"positions have shape {place.shape}: expected (..., 3), x, y, z in m")
    return place


def _vector(where: str, name: str, value: Any) -> Floats:
    vector = np.asarray(value, dtype=float)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise InputError(f"{where}: {name} is {value!r}: expected three finite numbers (x, y, z)")
    return vector
