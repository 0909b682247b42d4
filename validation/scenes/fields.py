"""Scenes that try a field map of water and fat, and what went wrong on them: swaps, and doubts without reason.

Smooth fields do not tell good methods from bad ones. So islands of random size, shape and composition, each at a field
of its own; steps of the field through them; gaps of air; coarse and uneven echoes; any field strength; lines, planes,
volumes and lone voxels. The signal is typed here by itself, (W + F c(t)) exp(i 2 pi psi t - R2* t): no estimator and
no equation is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ...simulator import tissues
from ...simulator.constants import GYROMAGNETIC
from ...simulator.water_fat import fat_signal

KINDS = ("smooth", "islands", "steps")
STEP = 200.0
"""Hz; between neighbours on either side of the steps through the islands of `steps`, at most."""
SLOPE = 8.0
"""Hz a voxel; of the field within an island, at most."""
REACH = {"smooth": 600.0, "islands": 400.0, "steps": 400.0}
"""Hz; the fields of a scene lie within."""
SHAPES = {1: (1, 1, 640), 2: (1, 72, 72), 3: (18, 18, 18)}
RADII = {"lone": (0.4, 0.4), "small": (0.9, 2.6), "large": (2.5, 7.5)}
"""Voxels; of islands."""
CUT = 0.3  # of the islands are cut by a gap of air
SIX_SIGMA = 36.0
WRONG = 0.3
"""Of a swap the fat fraction is wrong by more than this: a field that noise carried off is none."""
OWN = 30.0
"""Hz; the swap of a mixture moves the field by as much more or less than that of water or of fat."""
COMPOSITIONS = np.linspace(0.0, 1.0, 41)


@dataclass(frozen=True)
class Scene:
    """Echoes of a known field.

    Attributes
    ----------
    data : ndarray of complex, (z, y, x, point)
    mask : ndarray of bool, (z, y, x)
    field, pdff : ndarray, (z, y, x)
        Hz, and the fraction of fat.
    piece : ndarray of int, (z, y, x)
        Voxels that would swap together: one island, one side of a step, one kind of tissue; -1 outside the mask.
    times, fat : ndarray, (point,)
        Echo times (s), and the signal of fat relative to water.
    r2star, sigma, field_strength : float
        1/s; noise SD of each real channel where water and fat together are 1; T.
    """

    data: np.ndarray
    mask: np.ndarray
    field: np.ndarray
    pdff: np.ndarray
    piece: np.ndarray
    times: np.ndarray
    fat: np.ndarray
    r2star: float
    sigma: float
    field_strength: float

    @property
    def period(self) -> float:
        """1/spacing of even echoes, modulo which the field is known (Hz); 0 of uneven ones."""
        spacing = np.diff(self.times)
        return 1 / float(spacing.mean()) if np.ptp(spacing) < 1e-6 * spacing.mean() else 0.0

    @property
    def swap(self) -> float:
        """How far a swap moves the field, Hz: the shift of fat's main peak, or what is left of it modulo the period."""
        shift = (tissues.water_shift(tissues.BODY_TEMPERATURE) - 1.30) * 1e-6 * GYROMAGNETIC["1H"] * self.field_strength
        return abs(float(wrapped(np.array(shift), self.period)))

    @property
    def step(self) -> float:
        """Largest difference of the field between neighbours, Hz."""
        field = np.where(self.mask, self.field, np.nan)
        steps = [np.abs(np.diff(field, axis=axis)).ravel() for axis in range(3)]
        return float(np.nanmax(np.concatenate([[0.0], *steps])))

    @property
    def fair(self) -> bool:
        """Whether steps are closer to none than to the swap's: otherwise nobody can know."""
        return self.step <= self.swap / 2


def wrapped(field: np.ndarray, period: float) -> np.ndarray:
    """A difference of fields modulo the period, where there is one."""
    return field - period * np.rint(field / period) if period else field


def scene(
    rng: np.random.Generator,
    *,
    kind: str = "islands",
    dimensions: int = 2,
    size: str = "large",
    times: np.ndarray | None = None,
    field_strength: float = 3.0,
    r2star: float = 60.0,
    snr: float = 20.0,
    apart: float = 0.0,
    composition: str | None = None,
) -> Scene:
    """A scene of the wanted kind.

    Parameters
    ----------
    rng : numpy.random.Generator
    kind : str
        ``smooth`` (one body in a field of +-600 Hz), ``islands`` (each at a field of its own), ``steps`` (the same, a
        step of 200 Hz through each).
    dimensions : int
        1, 2 or 3.
    size : str
        Of the islands: ``lone`` voxels, ``small``, ``large``.
    times : ndarray, (point,), optional
        s; six echoes 1.1 ms apart without it.
    field_strength, r2star, snr : float
        T, 1/s, and signal at TE 0 over the noise SD of each real channel.
    apart : float
        Phase of fat relative to water at TE 0 (rad).
    composition : str, optional
        ``water``, ``fat``, ``mixture``, ``random`` (another in each voxel) or ``halves`` (of water and of fat) of every
        island; drawn for each without it.
    """
    times = 1.2e-3 + 1.1e-3 * np.arange(6) if times is None else np.asarray(times, float)
    shape = SHAPES[dimensions]
    mask, field, pdff = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
    piece = np.full(shape, -1)
    if kind == "smooth":
        _body(rng, mask, field, pdff, piece)
    else:
        step = STEP - SLOPE if kind == "steps" else 0.0
        most = RADII[size][1]
        cell = int(np.ceil(2 * most + 1.5))
        middles = [np.arange(cell / 2, n, cell) if n > 1 else np.zeros(1) for n in shape]
        for number, middle in enumerate(product(*middles)):
            _island(rng, np.array(middle), RADII[size], step, composition, number, (mask, field, pdff, piece))
    water = tissues.water_shift(tissues.BODY_TEMPERATURE)
    fat = fat_signal(times, field_strength, tissues.spectrum("fat_marrow"), water)
    data = _signal(pdff, fat, times, r2star, apart) * np.exp(2j * np.pi * np.multiply.outer(field, times))
    data = np.where(mask[..., None], data * np.exp(1j * rng.uniform(0, 2 * np.pi)), 0)
    data = data + (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape)) / snr
    return Scene(data, mask, field, pdff, piece, times, fat, r2star, 1 / snr, field_strength)


def draw(rng: np.random.Generator, **fixed: Any) -> Scene:
    """A scene with all drawn that is not fixed: spacings of 1.0 to 1.9 ms, even or not, 1.5 to 7 T, 3 to 12 echoes."""
    field_strength = float(fixed.pop("field_strength", rng.choice([1.5, 3.0, 3.0, 7.0])))
    n, spacing = int(rng.integers(3, 13)), float(rng.uniform(1.0e-3, 1.9e-3))
    gaps = np.full(n - 1, spacing) * (rng.uniform(0.6, 1.4, n - 1) if rng.random() < 0.3 else 1.0)
    drawn = {
        "kind": str(rng.choice(KINDS)), "dimensions": int(rng.choice([1, 2, 2, 3])),
        "size": str(rng.choice(list(RADII))), "times": rng.uniform(1.0e-3, 2.0e-3) + np.r_[0.0, np.cumsum(gaps)],
        "r2star": float(rng.uniform(20.0, 150.0)),
    }  # fmt: skip
    return scene(rng, **(drawn | {"field_strength": field_strength} | fixed))


def _signal(pdff: np.ndarray, fat: np.ndarray, times: np.ndarray, r2star: float, apart: float) -> np.ndarray:
    """At no offset, (..., point)."""
    amplitude = (1 - pdff)[..., None] + pdff[..., None] * fat * np.exp(1j * apart)
    signal: np.ndarray = amplitude * np.exp(-r2star * times)
    return signal


def _body(rng: np.random.Generator, mask: np.ndarray, field: np.ndarray, pdff: np.ndarray, piece: np.ndarray) -> None:
    """One body, patches of all compositions in it, in a field of third order of +-600 Hz."""
    at = [(g - (n - 1) / 2) / (n / 2) for g, n in zip(np.indices(mask.shape), mask.shape, strict=True)]
    used = [g for g, n in zip(at, mask.shape, strict=True) if n > 1]
    mask[:] = sum(g**2 for g in used) < 0.95**2
    toward = rng.normal(size=len(used))
    along = sum(w * g for w, g in zip(toward / np.linalg.norm(toward), used, strict=True))
    bend = rng.uniform(-0.5, 0.5)
    curve = (1 - abs(bend)) * along + bend * along**3 + 0.2 * np.cos(3 * used[-1] + rng.uniform(0, 6))
    curve = curve - (curve[mask].max() + curve[mask].min()) / 2
    field[:] = REACH["smooth"] * curve / np.abs(curve[mask]).max()
    patch = np.zeros(mask.shape, int)
    for k, n in enumerate(mask.shape):
        patch = 97 * patch + np.indices(mask.shape)[k] // int(rng.integers(4, 12)) if n > 1 else patch
    for number in np.unique(patch[mask]):
        here = mask & (patch == number)
        _fill(rng, here, str(rng.choice(["water", "fat", "mixture", "random"])), 1, pdff)
        piece[here] = number


def _fill(rng: np.random.Generator, here: np.ndarray, tissue: str, sign: int, pdff: np.ndarray) -> None:
    count = int(here.sum())
    pdff[here] = {"water": 0.0, "fat": 1.0, "mixture": rng.random(), "random": rng.random(count),
                  "halves": 0.5 + 0.5 * sign}[tissue]  # fmt: skip


def _island(
    rng: np.random.Generator,
    middle: np.ndarray,
    radii: tuple[float, float],
    step: float,
    tissue: str | None,
    number: int,
    images: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """An ellipsoid that planes have cut, at a field of its own."""
    mask, field, pdff, piece = images
    half = int(np.ceil(radii[1]))
    box = tuple(slice(max(int(m) - half, 0), int(m) + half + 1) for m in middle)
    used = np.array(mask.shape) > 1
    centre = np.floor(middle) if radii[1] < 1 else middle
    away = np.stack([g - c for g, c in zip(np.mgrid[*(slice(b.start, min(b.stop, n)) for b, n in
                     zip(box, mask.shape, strict=True))], centre, strict=True)]) * 1.0  # fmt: skip

    def plane(reach: float) -> np.ndarray:
        toward = rng.normal(size=3) * used
        value: np.ndarray = np.tensordot(toward / np.linalg.norm(toward), away, 1) - rng.uniform(-reach, reach)
        return value

    radius = rng.uniform(*radii)
    wide = rng.uniform(0.8, 1.25, 3)
    here = sum((away[k] * wide[k]) ** 2 for k in range(3) if used[k]) < radius**2
    for _ in range(rng.integers(0, 3) if radius > 1 else 0):
        here &= plane(radius) > -0.7 * radius
    if radius > 2 and rng.random() < CUT:
        here &= np.abs(plane(radius / 2)) > 0.75
    side = np.where(plane(radius / 3) > 0, 1, -1)
    part = np.where(plane(radius / 3) > 0, 1, -1)
    slope = rng.uniform(-SLOPE, SLOPE, 3) * used
    tilt = np.tensordot(slope, away, 1) + step / 2 * side
    room = REACH["islands"] - np.abs(tilt[here]).max(initial=0.0)
    values = rng.uniform(-room, room) + tilt
    tissue = tissue or str(rng.choice(["water", "fat", "mixture", "random", "halves"]))
    share = np.zeros(here.shape)
    for s, p in product((-1, 1), (-1, 1)):
        some = here & (side == s) & (part == p)
        if tissue == "halves":
            _fill(rng, some, tissue, p, share)
    if tissue != "halves":
        _fill(rng, here, tissue, 1, share)
        part[:] = 1
    mask[box] |= here
    field[box][here], pdff[box][here] = values[here], share[here]
    piece[box][here] = (4 * number + (side > 0) + 2 * (part > 0))[here]


@dataclass(frozen=True)
class Tally:
    """Voxels of scenes, counted; tallies add up.

    Attributes
    ----------
    voxels : int
        Of the masks.
    swaps, confident : int
        Voxels swapped, and those of them that are not called ambiguous.
    ambiguous, needless : int
        Voxels called ambiguous, and those of them whose piece tells the truth from its swap by 6 sigma.
    told, breaches : int
        Voxels of pieces that tell the truth from their swap by 6 sigma, and the swaps among them.
    """

    voxels: int = 0
    swaps: int = 0
    confident: int = 0
    ambiguous: int = 0
    needless: int = 0
    told: int = 0
    breaches: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def tally(scene: Scene, field: np.ndarray, r2star: np.ndarray, ambiguous: np.ndarray) -> Tally:
    """What a field map did on a scene; `field` (Hz), `r2star` (1/s) and `ambiguous` are (z, y, x)."""
    swap = swapped(scene, field, r2star)
    doubt = ambiguous & scene.mask
    told = scene.mask & (distance(scene) >= SIX_SIGMA)
    counts = (scene.mask, swap, swap & ~doubt, doubt, doubt & told, told, swap & told)
    return Tally(*(int(image.sum()) for image in counts))


def swapped(scene: Scene, field: np.ndarray, r2star: np.ndarray) -> np.ndarray:
    """Voxels whose field is nearer to a swap than to the truth, and whose fat fraction is wrong by more than .3."""
    error = np.abs(wrapped(field - scene.field, scene.period))
    far = scene.mask & ~(error < scene.swap / 2)
    out = far.copy()
    known = far & np.isfinite(field)
    for voxel in np.argwhere(known):
        at = tuple(voxel)
        basis = np.exp((2j * np.pi * field[at] - r2star[at]) * scene.times)[:, None]
        basis = basis * np.stack([np.ones(len(scene.times)), scene.fat], axis=1)
        water, fat = np.abs(np.linalg.lstsq(basis, scene.data[at], rcond=None)[0])
        out[at] = abs(fat / (water + fat) - scene.pdff[at]) > WRONG
    return out


def distance(scene: Scene, apart: float = 0.0) -> np.ndarray:
    """By how much the truth and the best swap of a piece differ, in squares of sigma summed over the piece, (z, y, x).

    The least residual of noise-free data where the voxels of the piece are moved by one offset of the field and up to
    `OWN` of their own, over the variance of the noise; R2*, water and fat are free in each. inf where no offset is a
    minimum; NaN outside the mask. `apart` as of the scene.
    """
    period = scene.period
    reach = period / 2 if 0 < period <= 2000.0 else 1000.0
    offsets = np.arange(-reach, reach, 4.0)
    rates = 60.0 * np.expm1(np.linspace(0.0, np.log(11.0), 49))  # to 600 /s, as close as 1 % of the distance asks
    clean = _signal(COMPOSITIONS, scene.fat, scene.times, scene.r2star, apart)
    least = np.full((len(COMPOSITIONS), len(offsets)), np.inf)
    turned = clean[:, None] * np.exp(-2j * np.pi * np.multiply.outer(offsets, scene.times))
    power = (np.abs(clean) ** 2).sum(axis=1)[:, None]
    for rate in rates:
        columns = np.stack([np.ones(len(scene.times)), scene.fat], axis=1) * np.exp(-rate * scene.times)[:, None]
        kept = np.abs(turned @ np.linalg.qr(columns)[0].conj()) ** 2
        least = np.minimum(least, power - kept.sum(axis=-1))
    out = np.full(scene.mask.shape, np.nan)
    own = round(min(OWN, scene.swap / 8) / 4.0)
    sides = np.pad(least, ((0, 0), (own, own)), mode="wrap" if period else "edge")
    least = np.min([sides[:, k : k + len(offsets)] for k in range(2 * own + 1)], axis=0)
    places = scene.pdff[scene.mask] * (len(COMPOSITIONS) - 1)
    low = np.minimum(places.astype(int), len(COMPOSITIONS) - 2)
    weight = (places - low)[:, None]
    each = (1 - weight) * least[low] + weight * least[low + 1]
    names, number = np.unique(scene.piece[scene.mask], return_inverse=True)
    totals = np.zeros((len(names), len(offsets)))
    np.add.at(totals, number, each)
    before, after = np.roll(totals, 1, axis=1), np.roll(totals, -1, axis=1)
    if not period:
        before[:, 0] = after[:, -1] = -np.inf
    apart_enough = np.abs(offsets) > scene.swap / 4
    minima = np.where((totals <= before) & (totals <= after) & apart_enough, totals, np.inf)
    out[scene.mask] = (minima.min(axis=1) / scene.sigma**2)[number]
    return out
