"""Water, fat, field and R2* from complex echoes: `dixon`.

s(t) = (W + F c(t)) exp(+i 2 pi psi t) exp(-R2* t), with the main peak of fat at negative frequency; any three or more
echo times, uniform or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator.water_fat import WaterFat
from . import fat_fit, fat_start
from .estimate import estimator
from .fat_fraction import FRACTIONS, Fraction, Weights, fraction_of
from .fat_train import NEEDS, Train
from .fat_weights import weights_of
from .status import Status
from .uncertainty import Noise, noise_of

CLAIMS = Path(__file__).with_name("fat.claims.toml")
QUANTITIES = {
    "pdff": ("1", "proton density fat fraction"),
    "r2star": ("1/s", "apparent transverse relaxation rate"),
    "fieldmap": ("Hz", "offset of water from the scanner's frequency"),
    "water": ("a.u.", "signal of water at TE 0"),
    "fat": ("a.u.", "signal of fat at TE 0"),
}
EXTRAS = {
    "t2star": ("s", "apparent transverse relaxation time"),
    "r2star_fat": ("1/s", "apparent transverse relaxation rate of fat"),
    "first_phase": ("rad", "what the phase of the first echo is off"),
    "bipolar_phase": ("rad", "what the phase of every second echo is off"),
}
IDENTIFIED = {"pdff": 0.10, "r2star": 100.0}
"""Standard errors beyond which a reader would not call a map a measurement: 10 points, 100 1/s."""

LOW_SNR = 3.0
"""Strongest echo over the noise SD of a channel: of six echoes of noise alone the strongest has about 2.5."""

CHUNK = 1 << 16
"""Voxels that are fitted at a time; their covariances are dropped before the next."""


def choose(method: str, option: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a value that an option does not have."""
    if value not in allowed:
        raise InputError(f"{method}: option {option} is {value!r}; expected {' or '.join(allowed)}")


class Maps:
    """The images of an estimate while its voxels are filled in, chunk by chunk, for noise of SD 1.

    Standard errors are scaled by the noise SD at the end: where it is not given it is known only when all is fitted.
    """

    def __init__(self, shape: tuple[int, ...], names: tuple[str, ...]) -> None:
        n = int(np.prod(shape))
        self.shape = shape
        self.values = {name: np.full(n, np.nan) for name in names}
        self.unit_sd = {name: np.full(n, np.nan) for name in names}
        self.weight_sd = np.zeros(n)
        self.cost = np.full(n, np.nan)
        self.status = np.zeros(n, np.uint16)
        self.ratio: dict[str, np.ndarray] = {}

    def keep_ratio(self, where: np.ndarray, fraction: Fraction) -> None:
        """What the interval of the fraction needs."""
        if not self.ratio:
            n = len(self.cost)
            self.ratio = {"along": np.full(n, np.nan), "sum": np.full(n, np.nan), "moments": np.full((n, 3), np.nan)}
        for name, array in self.ratio.items():
            array[where] = getattr(fraction, name)

    def finished(
        self, data: np.ndarray, freedom: int, sigma: float | np.ndarray | None, intervals: bool
    ) -> dict[str, np.ndarray]:
        """The estimate: values, standard errors, intervals, status."""
        settled = (self.status & ~np.uint16(Status.AT_BOUND | Status.AMBIGUOUS)) == 0
        noise = noise_of(self.cost, freedom, np.isfinite(self.cost) & settled, sigma)
        scale = np.asarray(noise.sd) * noise.widening
        out: dict[str, np.ndarray] = {}
        for name, value in self.values.items():
            out[name] = value
            out[f"{name}_sd"] = self.unit_sd[name] * scale
        out["pdff_sd"] = np.hypot(out["pdff_sd"], self.weight_sd)
        if intervals:
            ratio = Fraction(out["pdff"], out["water"], out["fat"], {}, self.weight_sd, **self.ratio)
            out["pdff_lo"], out["pdff_hi"] = ratio.interval(noise.sd, noise.quantile)
        out["status"] = self.status | doubts(data, out, noise)
        return {name: value.reshape(self.shape) for name, value in out.items()}


def doubts(data: np.ndarray, out: Mapping[str, np.ndarray], noise: Noise) -> np.ndarray:
    """Status bits of weak and of undetermined voxels."""
    status = np.zeros(len(data), np.uint16)
    with np.errstate(invalid="ignore"):
        strongest = np.abs(data).max(axis=1)
        status[strongest < LOW_SNR * np.asarray(noise.sd)] |= np.uint16(Status.LOW_SIGNAL)
        for name, most in IDENTIFIED.items():
            if name in out:
                status[(out[f"{name}_sd"] > most) & np.isfinite(out[name])] |= np.uint16(Status.NOT_IDENTIFIABLE)
    return status


@estimator(
    name="dixon",
    title="Water and fat, field and R2* by least squares over complex echoes",
    modality="fat",
    model=WaterFat(),
    quantities=QUANTITIES,
    extras=EXTRAS,
    source="Yu et al., Magn Reson Med 60:1122 (2008), doi:10.1002/mrm.21737",
    claims=CLAIMS,
    encoding="echo",
    needs=(*NEEDS, "flip_angle", "TR", "B1"),
    signal="complex",
    spatial=True,
)
def dixon(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    mask: np.ndarray,
    phase: str = "free",
    fraction: str = "real",
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
    rates: str = "one",
    first_echo: str = "kept",
    bipolar: bool = False,
    T1_correction: bool = False,
    T1_water: float | np.ndarray | None = None,
    T1_fat: float | np.ndarray | None = None,
    T1_water_sd: float | np.ndarray = 0.0,
    T1_fat_sd: float | np.ndarray = 0.0,
    t2star: bool = False,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """PDFF, R2*, field, water and fat of every voxel.

    `phase`: water and fat leave the pulse with a phase each (``free``) or one together (``common``). `fraction`: the
    ``real`` part of F/(W + F), whose noise averages out at 0 and 100 %; the ``magnitude`` ratio; or Liu's
    ``discrimination``. `spectrum` as `simulator.water_fat.spectrum_of`; `temperature` of the water (C). `rates`: ``one``
    R2*, or ``two``. `first_echo`: ``kept``, ``dropped``, or with a ``free`` phase. `bipolar`: the phase of every second
    echo is an unknown. `T1_correction`: PDFF for proton density, from flip angle and TR, with T1 (s) of water and fat
    and what is not known of them; population means by default. `bounds` of r2star (1/s).
    """
    choose("dixon", "phase", phase, ("free", "common"))
    choose("dixon", "fraction", fraction, FRACTIONS)
    choose("dixon", "rates", rates, ("one", "two"))
    choose("dixon", "first_echo", first_echo, ("kept", "dropped", "free"))
    train = Train.of("dixon", protocol, 3, spectrum, temperature)
    if first_echo == "dropped":
        kept = np.flatnonzero(train.order > 0)
        train, data = train.take(kept), data[..., kept]
    extra = {"dual": rates == "two", "first": first_echo == "free", "bipolar": bipolar}
    _check_unknowns(train, phase, extra)
    weights = weights_of("dixon", protocol, T1_correction, T1_water, T1_fat, T1_water_sd, T1_fat_sd)
    names = (*QUANTITIES, *(["t2star"] if t2star else []), *(["r2star_fat"] if rates == "two" else []))
    names += (*(["first_phase"] if first_echo == "free" else []), *(["bipolar_phase"] if bipolar else []))
    start = fat_start.field_of(
        data, mask, train, sigma, common=phase == "common", even=bipolar, first=first_echo == "free"
    )
    flat = data.reshape(-1, data.shape[-1])
    maps = Maps(mask.shape, names)
    inside = np.flatnonzero(mask)
    freedom = 0
    for a in range(0, inside.size, CHUNK):
        some = inside[a : a + CHUNK]
        found = fat_fit.fit(
            flat[some], train, start.field[some], start.r2star[some], common=phase == "common", bounds=bounds, **extra
        )
        part = fraction_of(found.water, found.fat, found.covariance, weights.take(some), fraction)
        freedom = found.freedom
        _keep(maps, some, found, part, intervals)
        maps.status[some] |= np.where(start.ambiguous[some], Status.AMBIGUOUS, 0).astype(np.uint16)
    return maps.finished(flat, freedom, sigma, intervals)


def _check_unknowns(train: Train, phase: str, extra: Mapping[str, bool]) -> None:
    """Refuse options that do not go together, or more unknowns than the echoes hold."""
    asked = [name for name, on in extra.items() if on]
    words = {"dual": 'rates="two"', "first": 'first_echo="free"', "bipolar": "bipolar=True"}
    if phase == "common" and asked:
        raise InputError(f'dixon: {words[asked[0]]} goes with phase="free", not with "common"')
    if extra["dual"] and len(asked) > 1:
        raise InputError(f"dixon: {words[asked[0]]} and {words[asked[1]]} together are not to be had; take one of them")
    unknowns = (5 if phase == "common" else 6) + len(asked)
    different = np.unique(np.round(train.times, 9)).size
    if 2 * different < unknowns:
        need = f"{unknowns} unknowns need {-(-unknowns // 2)}"
        raise InputError(f"dixon: {different} different echo times are left; {need}")


def _keep(maps: Maps, some: np.ndarray, found: fat_fit.WaterFatFit, part: Fraction, intervals: bool) -> None:
    """Fill in the voxels of a chunk."""
    for name in ("pdff", "water", "fat"):
        maps.values[name][some] = getattr(part, name)
        maps.unit_sd[name][some] = part.unit_sd[name]
    maps.values["fieldmap"][some] = found.field
    maps.unit_sd["fieldmap"][some] = found.unit_sd("fieldmap")
    for name, value in found.others.items():
        maps.values[name][some], maps.unit_sd[name][some] = value, found.unit_sd(name)
    if "t2star" in maps.values:
        rate = found.others["r2star"]
        with np.errstate(divide="ignore", invalid="ignore"):
            time = np.where(rate > 0, 1.0 / rate, np.nan)  # noise may carry a small rate below 0, which has no time
            maps.values["t2star"][some], maps.unit_sd["t2star"][some] = time, found.unit_sd("r2star") * time * time
    maps.weight_sd[some] = part.weight_sd
    maps.cost[some] = found.cost
    maps.status[some] = found.status
    if intervals:
        maps.keep_ratio(some, part)
