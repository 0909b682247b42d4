"""The Achilles tendon: parallel collagen whose water relaxes with the angle to the field (the magic angle)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import Pool

MAGIC_ANGLE = math.degrees(math.acos(1 / math.sqrt(3)))  # 54.74 degrees: 3 cos^2 - 1 is zero
_CUBE = 0.4e-3  # m; voxels are averages over cubes of about this edge
_PHASES = 16  # points of the crimp's wave
_CLASSES = 12  # relaxation rates that stand for a continuum of angles, closest where relaxation is slow
# Half width, half depth and hollow of the front (m) along the tendon, from the calcaneus to the soleus (Achilles:
# broad and thin where the muscle ends, narrowest and roundest four centimetres above the heel, fanning out into it).
_LEVEL = (0.0, 0.15, 0.40, 0.70, 1.0)
_WIDTH = (10.0e-3, 8.0e-3, 6.2e-3, 7.5e-3, 11.0e-3)
_DEPTH = (2.3e-3, 2.6e-3, 2.9e-3, 2.6e-3, 1.8e-3)
_HOLLOW = (0.6e-3, 0.9e-3, 1.0e-3, 1.0e-3, 0.9e-3)
_SUPERELLIPSE = 2.4


@lru_cache
def _smooth(table: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """A curve through the table that is monotone where the table is."""
    from scipy.interpolate import PchipInterpolator

    curve: Callable[[np.ndarray], np.ndarray] = PchipInterpolator(_LEVEL, table)
    return curve


@dataclass(frozen=True)
class _Anatomy:
    """Length (m), size relative to the mean, and turn of the fibres about the axis over the length (rad)."""

    length: float
    size: float
    twist: float
    sway: float  # m, how far the axis bows forward in the middle

    def half(self, table: Sequence[float], z: np.ndarray) -> np.ndarray:
        """A half axis at height `z` (m, from the middle), smooth between the tabulated levels."""
        level = np.clip(z / self.length + 0.5, 0, 1)
        return np.asarray(self.size * _smooth(tuple(table))(level))

    def axis(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the axis stands forward (m) at height `z`, and its slope."""
        turn = math.pi / self.length
        return self.sway * np.cos(turn * z), -self.sway * turn * np.sin(turn * z)

    def fill(self, x: np.ndarray, y: np.ndarray, z: float, size: float) -> np.ndarray:
        """Share of small cubes of edge `size` inside the tendon: distance is level over gradient, filled linearly."""
        wide, deep, hollow = (float(self.half(table, np.array(z))) for table in (_WIDTH, _DEPTH, _HOLLOW))
        forward = float(self.axis(np.array(z))[0])
        bent = y - forward + hollow * (1 - 2 * (x / wide) ** 2) / 2  # the front is hollow, the back bulges
        u, v = np.abs(x) / wide, np.abs(bent) / deep
        level = np.maximum(u**_SUPERELLIPSE + v**_SUPERELLIPSE, 1e-12) ** (1 / _SUPERELLIPSE)
        slope_v = level ** (1 - _SUPERELLIPSE) * v ** (_SUPERELLIPSE - 1) / deep
        slope_u = level ** (1 - _SUPERELLIPSE) * u ** (_SUPERELLIPSE - 1) / wide
        slope_x = np.hypot(slope_u, slope_v * 2 * hollow * np.abs(x) / wide**2)
        gradient = np.hypot(slope_x, slope_v)
        end = np.clip((self.length / 2 - abs(z)) / size + 0.5, 0, 1)
        return np.asarray(end * np.clip(0.5 + (1 - level) / (np.maximum(gradient, 1 / (20 * deep)) * size), 0, 1))

    def fibres(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Unit vectors (..., 3; x, y, z) along the fibres: they follow the outline, and turn about the axis."""
        at = np.array(z)
        step = 1e-5
        forward, lean = (float(each) for each in self.axis(at))
        deep = y - forward
        tangent = []
        for table, across in ((_WIDTH, x), (_DEPTH, deep)):
            # A fibre at a constant share of the half axis moves with it.
            grown = float(self.half(table, at + step) - self.half(table, at - step)) / (2 * step)
            tangent.append(across * grown / float(self.half(table, at)))
        turn = self.twist / self.length
        direction = np.stack(np.broadcast_arrays(tangent[0] - turn * deep, tangent[1] + lean + turn * x, 1.0), axis=-1)
        return np.asarray(direction / np.linalg.norm(direction, axis=-1, keepdims=True))


@sourced
def tendon(
    seed: int = 0,
    resolution: float = 1e-3,
    field: float = 3.0,
    angle: float = 0.0,
    azimuth: float = 0.0,
    crimp: float = 10.0,
    twist: float | None = None,
    straight: bool = False,
    T2_isotropic: float | None = None,
    anisotropy: float | None = None,
    free_fraction: float | None = None,
) -> Phantom:
    """An Achilles tendon whose bound water relaxes with the angle of its fibres to the field.

    The grid is the tendon's own: its long axis is z, and `angle` turns the field, not the tendon. The bound water of
    a fibre at angle theta to the field has ``1/T2 = 1/T2_isotropic + A (3 cos^2 theta - 1)^2``. Fibres follow the
    outline, turn about the axis as they descend, and are crimped: a wave far finer than any voxel. A continuum of
    angles is held by a few pools of fixed T2; each parcel of water is shared between the two pools whose rates
    enclose its own, such that its volume and its mean rate (the initial decay) are exact. Where all fibres are
    parallel there is a single pool with the exact T2. There is no mineral: porosity has no meaning and is NaN.

    Parameters
    ----------
    seed : int
        Draws length, thickness, sway, and the twist where it is not given.
    resolution : float
        Edge of a voxel (m); the anatomy does not depend on it.
    field : float
        Field strength (T).
    angle : float
        Angle between the field and the tendon's axis (degrees).
    azimuth : float
        Direction of the field's component across the tendon (degrees, from right towards anterior).
    crimp : float
        Largest tilt of a crimped fibre against its mean direction (degrees).
    twist : float, optional
        Turn of the fibres about the axis over the whole length (degrees); default drawn.
    straight : bool
        All fibres parallel to the axis: no crimp, no twist, no curvature.
    T2_isotropic : float, optional
        T2 of bound water at the magic angle (s).
    anisotropy : float, optional
        Amplitude A (1/s).
    free_fraction : float, optional
        Share of the tendon's water that is free: it relaxes alike at all angles.

    Returns
    -------
    Phantom
        ``measured`` attributes: ``fibre_angle`` (mean angle to the field, degrees), ``fibre_angle_sd``,
        ``bound_T2_mean_rate`` (s; inverse of the mean rate of bound water), ``tendon_volume`` (m3).

    Raises
    ------
    InputError
        A value out of range, a field without data, voxels larger than the tendon or too many of them.

    References
    ----------
    Fullerton 1985, Radiology 155:433, doi:10.1148/radiology.155.2.3983395 (tendon); Henkelman 1994, MRM 32:592,
    doi:10.1002/mrm.1910320508 (angular dependence); Edama 2015, doi:10.1111/sms.12342 (twist).
    """
    where = "tendon"
    seed, field = inputs.seed(where, seed), inputs.field(where, field)
    angle = inputs.number(where, "angle", angle, 0.0, 180.0, "degrees")
    azimuth = inputs.number(where, "azimuth", azimuth, -360.0, 360.0, "degrees")
    crimp = inputs.number(where, "crimp", crimp, 0.0, 60.0, "degrees")
    if not isinstance(straight, (bool, np.bool_)):
        raise InputError(f"{where}: straight is {straight!r}, should be true or false")
    given = {"T2_isotropic": T2_isotropic, "anisotropy": anisotropy, "free_fraction": free_fraction}
    limits = {"T2_isotropic": ("tendon.T2", 1e-5, 10.0, "s"), "anisotropy": ("tendon.anisotropy", 0.0, 1e5, "1/s"),
              "free_fraction": ("tendon.free_fraction", 0.0, 1.0, "")}
    value: dict[str, float] = {}
    for name, (path, low, high, unit) in limits.items():
        asked = given[name]
        value[name] = (tissues.value(path, field) if asked is None
                       else inputs.number(where, name, asked, low, high, unit))

    anatomy = _draw(np.random.default_rng(seed), twist, straight, where)
    resolution = inputs.resolution(where, resolution, 2 * min(_DEPTH) * anatomy.size)
    across, along = math.radians(azimuth), math.radians(angle)
    towards = np.array([math.sin(along) * math.cos(across), math.sin(along) * math.sin(across), math.cos(along)])
    nodes, volume, mean, spread = _sort(where, anatomy, resolution, towards, 0.0 if straight else math.radians(crimp))

    rates = 1 / value["T2_isotropic"] + value["anisotropy"] * nodes
    total = volume.sum(axis=0)
    # The tissue number counts bound water: with the share that is free there, the water of the whole.
    water = tissues.value("tendon.density", field) / (1 - tissues.value("tendon.free_fraction", field))
    pools = _pools(volume, rates, water, value["free_fraction"], field)
    bound = volume.sum(axis=(1, 2, 3))
    measured = {"fibre_angle": mean, "fibre_angle_sd": spread,
                "bound_T2_mean_rate": float(bound.sum() / (bound @ rates)),
                "tendon_volume": float(total.sum() * resolution**3)}
    parameters: dict[str, Any] = {"angle": angle, "azimuth": azimuth, "crimp": crimp, "twist": twist,
                                  "straight": bool(straight), **given}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, parameters=parameters,
                         measured=measured)


def dipolar(cosine: np.ndarray) -> np.ndarray:
    """Angular factor (3 cos^2 - 1)^2 of dipolar relaxation: 4 along the field, 0 at the magic angle, 1 across."""
    return np.asarray((3 * np.asarray(cosine) ** 2 - 1) ** 2)


def _draw(rng: np.random.Generator, twist: float | None, straight: bool, where: str) -> _Anatomy:
    length, size, turn, sway = rng.uniform((55e-3, 0.92, 20.0, 0.5e-3), (65e-3, 1.08, 60.0, 1.5e-3))
    if twist is not None:
        turn = inputs.number(where, "twist", twist, -180.0, 180.0, "degrees")
    return _Anatomy(length, size, math.radians(turn), 0.0 if straight else sway)


def _sort(where: str, anatomy: _Anatomy, resolution: float, towards: np.ndarray, crimp: float
          ) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Volume (class, z, y, x) of tendon in each class of the angular factor, and mean and SD of the angle (degrees)."""
    half = (anatomy.length / 2, max(_DEPTH) * 1.1 * anatomy.size + max(_HOLLOW) + 2 * abs(anatomy.sway),
            max(_WIDTH) * anatomy.size)
    count = tuple(math.ceil(2 * each / resolution) + 2 for each in half)
    inputs.shape(where, count, MOST_VOXELS // _CLASSES)
    sub = int(np.clip(round(resolution / _CUBE), 1, 6))
    z, y, x = (((np.arange(n * sub) + 0.5) / sub - n / 2) * resolution for n in count)
    y = y[:, None]
    x = x[None, :]
    # A crimped fibre swings by up to `crimp` in the plane of the axis and the tendon's depth.
    swing = crimp * np.sin(2 * math.pi * (np.arange(_PHASES) + 0.5) / _PHASES) if crimp else np.zeros(1)
    parallel = crimp == 0 and anatomy.sway == 0  # straight: all fibres along the axis
    nodes = np.array([float(dipolar(towards[2]))]) if parallel else np.linspace(0.0, 2.0, _CLASSES) ** 2
    volume = np.zeros((len(nodes), *count))
    weight = first = second = 0.0
    for k, height in enumerate(z):
        filled = anatomy.fill(x, y, float(height), resolution / sub)
        seen = filled > 0
        if not seen.any():
            continue
        amount = filled[seen]
        if parallel:
            cosine = np.full((amount.size, 1), towards[2])
        else:
            fibre = anatomy.fibres(x, y, float(height))[seen]
            sideways = np.cross(fibre, (1.0, 0.0, 0.0))
            sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
            cosine = np.cos(swing) * (fibre @ towards)[:, None] + np.sin(swing) * (sideways @ towards)[:, None]
        shares = _hat(dipolar(cosine), nodes).mean(axis=1)  # (point, class)
        for number in range(len(nodes)):
            plane = np.zeros(seen.shape)
            plane[seen] = amount * shares[:, number]
            volume[number, k // sub] += plane.reshape(count[1], sub, count[2], sub).sum(axis=(1, 3))
        degrees = np.degrees(np.arccos(np.clip(np.abs(cosine), 0, 1)))
        weight += amount.sum()
        first += (amount[:, None] * degrees).sum() / cosine.shape[1]
        second += (amount[:, None] * degrees**2).sum() / cosine.shape[1]
    volume /= sub**3
    kept = volume.any(axis=(1, 2, 3))
    mean = first / weight
    return nodes[kept], volume[kept], float(mean), math.sqrt(max(second / weight - mean**2, 0.0))


def _hat(factor: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Shares (..., class) of the two classes around each factor, whose sum is one and whose mean is the factor."""
    if len(nodes) == 1:
        return np.ones((*factor.shape, 1))
    place = np.interp(factor, nodes, np.arange(len(nodes)))  # how far between the two, linear in the rate
    return np.asarray(np.clip(1 - np.abs(place[..., None] - np.arange(len(nodes))), 0, 1))


def _pools(volume: np.ndarray, rates: np.ndarray, water: float, free: float, field: float) -> list[Pool]:
    """Bound water class by class, free water, and collagen, which takes the volume that water leaves."""
    full = tissues.value("water.density")
    chi = tissues.value("water.chi")
    T1, diffusion = tissues.value("tendon.T1", field), tissues.value("tendon.D", field)
    total = volume.sum(axis=0)
    pools = [Pool(f"bound_water_{number}" if len(rates) > 1 else "bound_water", "bound_water",
                  part * (water * (1 - free)), part * (water * (1 - free) / full), T1_observed=T1, T2=1 / float(rate),
                  chi=chi, D=0.0) for number, (part, rate) in enumerate(zip(volume, rates, strict=True))]
    collagen = tissues.value("tendon.collagen_density", field)
    return [
        *pools,
        Pool("free_water", "solution", total * (water * free), total * (water * free / full), T1_observed=T1,
             T2=tissues.value("tendon.T2_free", field), chi=chi, D=diffusion),
        Pool("collagen", "macromolecule", total * collagen, total * (1 - water / full),
             T1_observed=tissues.value("macromolecule.T1", field), T2=tissues.value("macromolecule.T2", field), chi=chi,
             D=0.0),
    ]
