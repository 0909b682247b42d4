"""Least squares of water, fat, field and R2* of many voxels, by any of the complex water-fat equations.

Starts are linear projections at the field and rate that the field map gives. Each voxel's data are turned back by its
field first, so that what is left of the field is small: the fit cannot leave the minimum that the map chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...simulator import equations
from ...simulator.symbolic import Equation
from .. import solver
from .start import demodulated, projected
from .train import Train

WINDOW = 200.0
"""How far the fit may move the field from its start (Hz)."""

RTOL = 1e-8
"""What a step may still lower the cost by, as a part of it, when a fit stops: 1e-4 of a standard error."""

BOUNDS = {"fieldmap": (-WINDOW, WINDOW), "r2star": (-300.0, 2000.0), "r2star_fat": (-300.0, 2000.0)}
"""Noise may carry an estimate of a small R2* below 0; held at 0 it would be biased."""

AMPLITUDES = ("water_real", "water_imag", "fat_amplitude_real", "fat_amplitude_imag")
TURN = 2.0  # rad; a phase error beyond belongs to another minimum


@dataclass(frozen=True)
class WaterFatFit:
    """What was found, (voxel,) each; `covariance` for noise of SD 1 in each real channel.

    Attributes
    ----------
    water, fat : ndarray of complex
        At TE 0, in one frame: in that of their phase where it is common.
    field : ndarray
        In Hz.
    others : dict of ndarray
        The non-linear unknowns besides the field: r2star, and r2star_fat, first_phase, bipolar_phase where fitted.
    covariance : ndarray, (voxel, 4 + others + 1, ...)
        Of the real and imaginary parts of water and of fat, then `names`.
    names : tuple of str
        Of the last columns of `covariance`.
    cost : ndarray
        Sum of squared residuals.
    freedom : int
        Real numbers less unknowns.
    status : ndarray of uint16
    residual : ndarray of complex64, (voxel, point), or None
        Data less fit, turned back by the phase and the field of the voxel, over its amplitude: what neighbours share.
    """

    water: np.ndarray
    fat: np.ndarray
    field: np.ndarray
    others: Mapping[str, np.ndarray]
    covariance: np.ndarray
    names: tuple[str, ...]
    cost: np.ndarray
    freedom: int
    status: np.ndarray
    residual: np.ndarray | None = None

    @property
    def size(self) -> np.ndarray:
        """Amplitude of each voxel's signal, that of water and of fat together, whatever their phases, (voxel,)."""
        size: np.ndarray = np.hypot(np.abs(self.water), np.abs(self.fat))
        return size

    def unit_sd(self, name: str) -> np.ndarray:
        """Standard error of a non-linear unknown for noise of SD 1."""
        i = 4 + self.names.index(name)
        variance: np.ndarray = np.sqrt(self.covariance[:, i, i])
        return variance


def fit(
    data: np.ndarray,
    train: Train,
    field: np.ndarray,
    rate: np.ndarray,
    *,
    common: bool = False,
    dual: bool = False,
    first: bool = False,
    bipolar: bool = False,
    rate_known: bool = False,
    slopes: np.ndarray | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    residuals: bool = False,
) -> WaterFatFit:
    """Fit all voxels from their starts.

    Parameters
    ----------
    data : ndarray of complex, (voxel, point)
        Not finite: that voxel gets `Status.INVALID` and NaN.
    train : Train
    field, rate : ndarray, (voxel,)
        Starts (Hz, 1/s).
    common : bool
        Water and fat have one phase at TE 0.
    dual : bool
        Fat has a rate of its own.
    first, bipolar : bool
        The phase of the first echo, and what every second echo is off, are unknowns.
    rate_known : bool
        R2* is held at its start.
    slopes : ndarray, (voxel, 3), optional
        Rise of the field across each voxel along z, y and x (Hz), whose dephasing is no R2*.
    bounds : mapping, optional
        Of r2star and r2star_fat (1/s).
    residuals : bool
        Whether they are wanted.
    """
    turned = demodulated(data, train.times, field)
    off = {}
    for name, wanted, echoes in (
        ("first_phase", first, train.order == 0), ("bipolar_phase", bipolar, train.order % 2 == 1)
    ):  # fmt: skip
        if wanted and train.times[~echoes].size > 2:
            off[name] = _phase_off(turned, train, echoes, rate)
            turned = np.where(echoes, turned * np.exp(-1j * off[name])[:, None], turned)
    water, fat = projected(turned, train, field=np.zeros(len(data)), rate=rate)
    start: dict[str, np.ndarray | float] = {"fieldmap": 0.0, "r2star": rate, "r2star_fat": rate}
    start |= {"first_phase": 0.0, "bipolar_phase": 0.0}
    known: dict[str, Any] = {}
    equation: Equation
    names: tuple[str, ...] = ("fieldmap", "r2star")
    if common:
        equation = equations.water_fat_common
        phase = np.angle(water + fat)
        start |= {"water": (water * np.exp(-1j * phase)).real, "fat": (fat * np.exp(-1j * phase)).real, "phase": phase}
    else:
        start |= dict(zip(AMPLITUDES, (water.real, water.imag, fat.real, fat.imag), strict=True))
        equation = equations.water_fat_free
        if slopes is not None:
            equation = equations.water_fat_gradient
        elif dual:
            equation, names = equations.water_fat_dual, ("fieldmap", "r2star", "r2star_fat")
        elif first or bipolar:
            equation = equations.water_fat_uneven
            known = {n: 0.0 for n, wanted in (("first_phase", first), ("bipolar_phase", bipolar)) if not wanted}
            names = ("fieldmap", "r2star", *(n for n in ("first_phase", "bipolar_phase") if n not in known))
    if rate_known:
        known, names = {"r2star": np.where(np.isfinite(rate), rate, 0.0)}, ("fieldmap",)
    start = {name: np.where(np.isfinite(v), v, 0.0) for name, v in start.items()}
    limits = {**BOUNDS, **(bounds or {}), "first_phase": (-TURN, TURN), "bipolar_phase": (-TURN, TURN)}
    limits |= {"phase": (-20.0, 20.0)}
    unknowns = [q.name for q in equation.unknowns if q.name not in known]
    limits = {n: pair for n, pair in limits.items() if n in unknowns}
    given = dict(train.settings)
    if slopes is not None:
        given |= {q.name: slopes[:, k : k + 1] for k, q in enumerate(equations.dixon.SLOPES)}
    settings = {q.name: given[q.name] for q in equation.settings}
    found = solver.fit(equation, turned, settings, known=known, start=start, bounds=limits, rtol=RTOL, covariance=True)
    assert found.covariance is not None
    covariance = found.covariance
    if common:
        water, fat, covariance = _one_phase(found, covariance)
    else:
        water, fat = (found[a] + 1j * found[b] for a, b in (AMPLITUDES[:2], AMPLITUDES[2:]))
    others = {name: found[name] for name in names if name != "fieldmap"}
    for name, angle in off.items():
        others[name] = np.angle(np.exp(1j * (others[name] + angle)))
    freedom = 2 * data.shape[1] - len(found.free)
    result = WaterFatFit(
        water, fat, field + found["fieldmap"], others, covariance, names, found.cost, freedom, found.status
    )
    if not residuals:
        return result
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left = turned - equation.signal({**known, **{n: found[n] for n in found.free}}, settings)
        left = demodulated(left, train.times, found["fieldmap"])
        phase = np.angle(water + fat) + (found["phase"] if common else 0.0)
        left *= (np.exp(-1j * phase) / result.size)[:, None]
    return replace(result, residual=left.astype(np.complex64))


def _phase_off(turned: np.ndarray, train: Train, echoes: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """By what phase (rad) these echoes are off what the others foretell, (voxel,): where a fit of it starts."""
    rest = np.flatnonzero(~echoes)
    water, fat = projected(turned[:, rest], train.take(rest), field=np.zeros(len(turned)), rate=rate)
    decay = np.exp(-np.multiply.outer(np.nan_to_num(rate), train.times[echoes]))
    foretold = (water[:, None] + fat[:, None] * train.fat[echoes]) * decay
    angle = np.angle(np.sum(turned[:, echoes] * foretold.conj(), axis=1))
    return np.where(np.isfinite(angle), angle, 0.0)


def _one_phase(found: solver.Fit, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Water and fat in the frame of their common phase: their imaginary parts are 0 and known to be.

    Of the covariance the part of the amplitudes and that of field and rate are kept, not what they share.
    """
    full = np.zeros((len(covariance), 6, 6))
    for names, first, step in ((("water", "fat"), 0, 2), (("fieldmap", "r2star"), 4, 1)):
        mine = [found.free.index(n) for n in names]
        for a, i in enumerate(mine):
            for b, j in enumerate(mine):
                full[:, first + a * step, first + b * step] = covariance[:, i, j]
    return found["water"] + 0j, found["fat"] + 0j, full
