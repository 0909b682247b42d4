"""The images of a water-fat estimate: filled in chunk by chunk, with errors, intervals and status at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .. import noise_map
from ..status import Status
from ..uncertainty import Noise, noise_of
from .fit import WaterFatFit, fit
from .fraction import UNWEIGHTED, Fraction, Weights, fraction_of
from .gradient import slopes
from .notes import notes_of
from .start import Start
from .train import Train
from .weights import uncorrected

CLAIMS = Path(__file__).parents[1] / "fat.claims.toml"
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
    "T1_error": ("1", "part of the uncertainty of the fat fraction that T1 makes, alike in all voxels"),
}
IDENTIFIED = {"pdff": 0.10, "r2star": 100.0, "r2star_fat": 100.0}
"""Standard errors beyond which a reader would not call a map a measurement: 10 points, 100 1/s. Where one of two rates
is not told, nor is the fraction: its error is far from normal then, and larger than the standard error says."""

MISFIT = 3.0
"""Residual over the noise SD beyond which the model does not explain a voxel: by noise alone below 1 in 1e9 for six
degrees of freedom. Then the errors of the model exceed what the standard errors tell."""

SHARED = 1.5
"""Mean square residual of a neighbourhood over the noise variance, from which what the model lacks may move values by
as much as noise does."""

POINT = 0.01
"""Error of PDFF that a misfit of the size seen in a neighbourhood must be able to make before its voxels are called
outside the claimed domain: at high SNR any model is seen to be wrong long before it matters."""

EXACT = 1e-6
"""Noise SD over the strongest echo, below which nothing is called noise: the digits of single precision."""

GIVEN, NEIGHBOURS, POOLED, UNKNOWN = "given", "neighbours", "pooled residuals", "unknown: no residual is left"
"""What told the noise SD."""

LOW_SNR = 3.0
"""Strongest echo over the noise SD of a channel: of six echoes of noise alone the strongest has about 2.5."""

CHUNK = 1 << 16
"""Voxels that are fitted at a time; their covariances are dropped before the next."""


def choose(method: str, option: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a value that an option does not have."""
    if value not in allowed:
        raise InputError(f"{method}: option {option} is {value!r}; expected {' or '.join(allowed)}")


def check_bounds(method: str, bounds: Mapping[str, Any] | None, allowed: tuple[str, ...]) -> None:
    """Refuse bounds of what has none: amplitudes are free, and the field is kept near the field map."""
    for name in bounds or {}:
        if name not in allowed:
            raise InputError(f"{method}: bounds name {name!r}; expected {' or '.join(allowed)}")


class Maps:
    """The images of an estimate while its voxels are filled in, chunk by chunk, for noise of SD 1.

    Standard errors are scaled by the noise SD at the end: where it is not given it is known only when all is fitted.
    """

    def __init__(self, shape: tuple[int, ...], names: tuple[str, ...], points: int = 0) -> None:
        n = int(np.prod(shape))
        self.shape = shape
        self.values = {name: np.full(n, np.nan) for name in names}
        self.unit_sd = {name: np.full(n, np.nan) for name in names}
        self.weight_sd = np.zeros(n)
        self.cost = np.full(n, np.nan)
        self.status = np.zeros(n, np.uint16)
        self.ratio: dict[str, np.ndarray] = {}
        self.size = np.full(n, np.nan)
        self.alike = 1.0
        self.residual = np.full((n, points), np.nan, np.complex64) if points else None

    def keep(self, some: np.ndarray, found: WaterFatFit, part: Fraction) -> None:
        """Fill in some voxels."""
        for name in ("pdff", "water", "fat"):
            self.values[name][some] = getattr(part, name)
            self.unit_sd[name][some] = part.unit_sd[name]
        self.values["fieldmap"][some] = found.field
        self.unit_sd["fieldmap"][some] = found.unit_sd("fieldmap")
        for name, value in found.others.items():
            if name in self.values:
                self.values[name][some], self.unit_sd[name][some] = value, found.unit_sd(name)
        if "t2star" in self.values:
            rate = found.others["r2star"]
            with np.errstate(divide="ignore", invalid="ignore"):
                time = np.where(rate > 0, 1.0 / rate, np.nan)  # noise may carry a small rate below 0: it has no time
                self.values["t2star"][some] = time
                self.unit_sd["t2star"][some] = found.unit_sd("r2star") * time * time
        self.weight_sd[some] = part.weight_sd
        self.cost[some] = found.cost
        if self.residual is not None and found.residual is not None:
            self.residual[some], self.size[some] = found.residual, found.size
        self.status[some] = found.status
        unknown = np.isfinite(found.water) & ~np.isfinite(part.pdff)  # no signal at all, or a T1 that is not known
        self.status[some] |= np.where(unknown, Status.NOT_IDENTIFIABLE, 0).astype(np.uint16)

    def keep_ratio(self, where: np.ndarray, fraction: Fraction) -> None:
        """What the interval of the fraction needs."""
        if not self.ratio:
            n = len(self.cost)
            self.ratio = {"along": np.full(n, np.nan), "sum": np.full(n, np.nan), "moments": np.full((n, 3), np.nan)}
        for name, array in self.ratio.items():
            array[where] = getattr(fraction, name)

    def finished(
        self, data: np.ndarray, freedom: int, sigma: float | np.ndarray | None, intervals: bool
    ) -> dict[str, Any]:
        """The estimate: values, standard errors, intervals, status; `attrs` say what noise they were told by."""
        settled = (self.status & ~np.uint16(Status.AT_BOUND | Status.AMBIGUOUS)) == 0
        good = np.isfinite(self.cost) & settled
        with np.errstate(invalid="ignore"):
            strongest = np.abs(data).max(axis=1)
        noise, told_by = self._noise(strongest, freedom, good, sigma)
        scale = np.asarray(noise.sd) * noise.widening
        out: dict[str, Any] = {}
        for name, value in self.values.items():
            out[name] = value
            out[f"{name}_sd"] = self.unit_sd[name] * scale
        out["pdff_sd"] = np.hypot(out["pdff_sd"], self.weight_sd)
        if self.weight_sd.any():
            out["T1_error"] = np.where(np.isfinite(out["pdff"]), self.weight_sd, np.nan)
        if intervals:
            ratio = Fraction(out["pdff"], out["water"], out["fat"], {}, self.weight_sd, **self.ratio)
            out["pdff_lo"], out["pdff_hi"] = ratio.interval(noise.sd, noise.quantile)
        out["status"] = self.status | doubts(strongest, out, noise)
        if freedom > 0:
            misfit = self._misfit(
                strongest, freedom, good, np.asarray(noise.sd), alone=told_by not in (GIVEN, NEIGHBOURS)
            )
            out["status"][misfit] |= np.uint16(Status.OUTSIDE_DOMAIN)
        out = {name: value.reshape(self.shape) for name, value in out.items()}
        return {**out, "attrs": {"sigma": told_by, **noise_range(noise.sd, np.isfinite(self.values["pdff"]))}}

    def _noise(
        self, strongest: np.ndarray, freedom: int, good: np.ndarray, sigma: float | np.ndarray | None
    ) -> tuple[Noise, str]:
        """The noise SD, and what told it: given, else by the neighbours, else by the residuals as they are."""
        if sigma is not None:
            return Noise(sigma, np.inf), GIVEN
        if self.residual is not None:
            residual, self.residual = self.residual, None
            found = noise_map.between_neighbours(residual, self.size, strongest, good, freedom, self.shape)
            if found is not None:
                self.alike = found.alike
                return Noise(found.sd, found.freedom), NEIGHBOURS
        pooled = noise_of(self.cost, freedom, good, None)
        return pooled, POOLED if pooled.freedom > 0 else UNKNOWN

    def _misfit(self, strongest: np.ndarray, freedom: int, good: np.ndarray, sd: np.ndarray, alone: bool) -> np.ndarray:
        """Where the residual is larger than noise: that of a voxel alone, or together with its neighbours'."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            # what is left of data without noise is rounding, and where the fit stops
            least = np.maximum(sd, EXACT * strongest)
            over = self.cost / (freedom * least**2)
            misfit: np.ndarray = over > MISFIT**2
            if not alone:
                shared = noise_map.shared_excess(over, good, freedom, self.shape, self.alike)
                # as noise of the misfit's size would move it; what a neighbourhood counts of a misfit is limited
                moved = self.unit_sd["pdff"] * least * np.sqrt(np.maximum(np.maximum(over, shared) - 1, 0))
                misfit |= good & (over > 1) & (shared > SHARED) & (moved > POINT)
        return misfit


def noise_range(sd: float | np.ndarray, where: np.ndarray) -> dict[str, Any]:
    """Median and range of the noise SD over the fitted voxels, for the attributes; nothing where it is not known."""
    used = np.broadcast_to(np.asarray(sd, float), where.shape)[where]
    used = used[np.isfinite(used)]
    if not used.size:
        return {}
    return {"noise_sd": float(np.median(used)), "noise_sd_range": np.array([used.min(), used.max()])}


def doubts(strongest: np.ndarray, out: Mapping[str, np.ndarray], noise: Noise) -> np.ndarray:
    """Status bits of undetermined voxels, and of weak ones by their `strongest` echo."""
    status = np.zeros(len(strongest), np.uint16)
    with np.errstate(invalid="ignore"):
        status[strongest < LOW_SNR * np.asarray(noise.sd)] |= np.uint16(Status.LOW_SIGNAL)
        for name, most in IDENTIFIED.items():
            if name in out:
                # an SD that nothing tells is no small one: three echoes leave no residual, and need sigma
                status[~(out[f"{name}_sd"] <= most) & np.isfinite(out[name])] |= np.uint16(Status.NOT_IDENTIFIABLE)
    return status


def fitted(
    data: np.ndarray,
    mask: np.ndarray,
    train: Train,
    start: Start,
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    names: tuple[str, ...],
    fraction: str = "real",
    weights: Weights = UNWEIGHTED,
    told_of_T1: Mapping[str, Any] | None = None,
    gradient: tuple[int, ...] = (),
    **model: Any,
) -> dict[str, Any]:
    """Fit every voxel of the mask from its start: `names` with standard errors, intervals where wanted, status.

    Parameters
    ----------
    data : ndarray of complex, (..., point)
    mask : ndarray of bool, (...)
    train : Train
    start : Start
        Over the flat order of the image.
    sigma, intervals
        As the core of an estimator takes them.
    names : tuple of str
        Of the quantities that are returned.
    fraction, weights
        As `fraction_of` takes them.
    told_of_T1 : mapping, optional
        What the attributes tell of the weights; without, what T1 makes of an uncorrected fraction.
    gradient : tuple of int
        Axes, counted from the last (-3 is z), along which the field's rise across a voxel is corrected for: it is read
        off a first fit, and held in a second.
    **model
        As `fit.fit` takes them.
    """
    flat = data.reshape(-1, data.shape[-1])
    maps = Maps(mask.shape, names, points=data.shape[-1] if sigma is None else 0)
    freedom = _fill(maps, flat, mask, train, start, intervals, fraction, weights, model)
    if gradient:
        rises = np.zeros((mask.size, 3))
        found = slopes(maps.values["fieldmap"].reshape(mask.shape), mask)
        here = [axis - mask.ndim for axis in range(mask.ndim) if axis - mask.ndim in gradient]
        rises[:, here] = found[:, here]
        again = Start(maps.values["fieldmap"], maps.values["r2star"], start.ambiguous)
        freedom = _fill(maps, flat, mask, train, again, intervals, fraction, weights, model, rises)
    return _with_notes(maps.finished(flat, freedom, sigma, intervals), train, fraction, told_of_T1)


def _with_notes(
    out: dict[str, Any], train: Train, fraction: str, told_of_T1: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The estimate with what it tells of how it came about."""
    return {**out, "attrs": {**out["attrs"], **notes_of(train, fraction), **(told_of_T1 or uncorrected(train))}}


def _fill(
    maps: Maps,
    flat: np.ndarray,
    mask: np.ndarray,
    train: Train,
    start: Start,
    intervals: bool,
    fraction: str,
    weights: Weights,
    model: Mapping[str, Any],
    rises: np.ndarray | None = None,
) -> int:
    """Fit the voxels of the mask, chunk by chunk; gives the degrees of freedom that a voxel leaves."""
    inside = np.flatnonzero(mask)
    freedom = 0
    for a in range(0, inside.size, CHUNK):
        some = inside[a : a + CHUNK]
        slope = None if rises is None else rises[some]
        found = fit(
            flat[some], train, start.field[some], start.r2star[some], slopes=slope, residuals=maps.residual is not None,
            **model,
        )  # fmt: skip
        freedom = found.freedom
        part = fraction_of(found.water, found.fat, found.covariance, weights.take(some), fraction, intervals)
        maps.keep(some, found, part)
        maps.status[some] |= np.where(start.ambiguous[some], Status.AMBIGUOUS, 0).astype(np.uint16)
        if intervals:
            maps.keep_ratio(some, part)
    return freedom


def without_fit(
    found: WaterFatFit,
    mask: np.ndarray,
    data: np.ndarray,
    ambiguous: np.ndarray,
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    names: tuple[str, ...],
    fraction: str,
    train: Train | None = None,
) -> dict[str, Any]:
    """As `fitted`, of what was found over the mask without residuals; `ambiguous` is (voxel of the mask,)."""
    maps = Maps(mask.shape, names)
    inside = np.flatnonzero(mask)
    part = fraction_of(found.water, found.fat, found.covariance, kind=fraction)
    maps.keep(inside, found, part)
    maps.status[inside] |= np.where(ambiguous, Status.AMBIGUOUS, 0).astype(np.uint16)
    if intervals:
        maps.keep_ratio(inside, part)
    out = maps.finished(data.reshape(-1, data.shape[-1]), 0, sigma, intervals)
    return out if train is None else _with_notes(out, train, fraction)
