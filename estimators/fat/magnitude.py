"""Water, fat and R2* from magnitudes alone: `dixon-magnitude`.

Without phase the field drops out, and with it most of what tells water from fat: |W + F c(t)| hardly changes when the
two are exchanged. Only the smaller peaks of fat, which beat among themselves, tell. There are two minima, one on either
side of half; both are kept, and where noise could have exchanged them the voxel is called ambiguous.
Triay Bagur et al., Magn Reson Med 82:460 (2019), doi:10.1002/mrm.27728.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...simulator import equations
from ...simulator.water_fat import WaterFat
from .. import solver
from ..estimate import estimator
from ..status import Status
from ..uncertainty import noise_of
from .maps import CLAIMS, EXTRAS, GIVEN, MISFIT, POOLED, QUANTITIES, UNKNOWN, doubts, noise_range
from .notes import notes_of
from .train import ENCODINGS, NEEDS, Train
from .weights import uncorrected

SIDES = ((0.0, 0.15, 0.3, 0.42), (0.58, 0.7, 0.85, 1.0))
"""Fractions from which the minimum on either side of half is looked for."""

RATES = (10.0, 40.0, 90.0, 200.0)
BOUNDS = {"pdff": (-0.3, 1.3), "r2star": (-300.0, 2000.0)}
"""Noise may carry a fraction beyond 0 or 1, and a small R2* below 0; held there it would be biased."""

APART = 0.02  # of minima that are two
DOUBT = 0.025
"""Posterior probability of the other minimum from which a voxel is ambiguous: that of either tail of an interval."""

NAMES = ("pdff", "r2star", "water", "fat")


@estimator(
    name="dixon-magnitude",
    title="Water, fat and R2* from magnitudes, both minima kept",
    modality="fat",
    model=WaterFat("water_fat_magnitude"),
    quantities={name: QUANTITIES[name] for name in NAMES},
    extras={**EXTRAS, "pdff_other": ("1", "fat fraction at the other minimum")},
    source="Triay Bagur et al., Magn Reson Med 82:460 (2019), doi:10.1002/mrm.27728",
    claims=CLAIMS,
    encoding="echo",
    aliases=ENCODINGS,
    needs=NEEDS,
    signal="either",
)
def dixon_magnitude(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
    t2star: bool = False,
    both: bool = False,
    likelihood: str | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """PDFF, R2*, water and fat from magnitudes; of complex data the magnitudes are taken.

    `likelihood`: ``rician`` (the default where sigma is given) or ``gaussian``. `both` adds `pdff_other`, the other
    minimum, NaN where there is one only. Intervals reach over both minima where the voxel is ambiguous. Other options
    as for `dixon`.
    """
    train = Train.of("dixon-magnitude", protocol, 3, spectrum, temperature)
    with np.errstate(invalid="ignore"):
        magnitude = np.abs(data)
        scale = magnitude.max(axis=1)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    unit = magnitude / scale[:, None]
    relative = None if sigma is None else np.broadcast_to(np.asarray(sigma, dtype=float), scale.shape) / scale
    model = equations.water_fat_magnitude
    settings = {q.name: train.settings[q.name] for q in model.settings}
    chosen = likelihood or ("gaussian" if sigma is None else "rician")
    fits = [
        solver.fit(
            model, unit, settings, start=_start(unit, settings, side), bounds={**BOUNDS, **(bounds or {})},
            sigma=relative, likelihood=chosen, covariance=True,
        )
        for side in SIDES
    ]  # fmt: skip
    cost = np.stack([f.cost for f in fits]) * scale**2
    better = np.where(np.isnan(cost).any(axis=0), 0, cost.argmin(axis=0))
    rows = np.arange(len(scale))
    best, other = (_Minimum.of(fits, side, rows, scale) for side in (better, 1 - better))
    freedom = data.shape[1] - len(fits[0].free)
    settled = (best.status & ~np.uint16(Status.AT_BOUND)) == 0
    noise = noise_of(cost[better, rows], freedom, settled, sigma)
    sd = np.asarray(noise.sd)
    out: dict[str, Any] = {}
    for name in NAMES:
        out[name] = best.values[name]
        out[f"{name}_sd"] = best.unit_sd[name] * sd * noise.widening
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(other.values["pdff"] - out["pdff"]) > APART
        excess = (cost[1 - better, rows] - cost[better, rows]) / (2 * sd**2)
        ambiguous = apart & (excess < np.log((1 - DOUBT) / DOUBT))
        misfit = (cost[better, rows] > freedom * (MISFIT * sd) ** 2) & (freedom > 0) & (chosen == "gaussian")
    if both:
        out["pdff_other"] = np.where(apart, other.values["pdff"], np.nan)
        out["pdff_other_sd"] = np.where(apart, other.unit_sd["pdff"] * sd * noise.widening, np.nan)
    if t2star:
        with np.errstate(divide="ignore", invalid="ignore"):
            out["t2star"] = np.where(out["r2star"] > 0, 1.0 / out["r2star"], np.nan)
            out["t2star_sd"] = out["r2star_sd"] * out["t2star"] ** 2
    if intervals:
        reach = [(m.values["pdff"], m.unit_sd["pdff"] * sd * noise.quantile) for m in (best, other)]
        (x, e), (y, d) = reach
        out["pdff_lo"] = np.where(ambiguous, np.fmin(x - e, y - d), x - e)
        out["pdff_hi"] = np.where(ambiguous, np.fmax(x + e, y + d), x + e)
    out["status"] = best.status | doubts(magnitude.max(axis=1), out, noise)
    told_by = GIVEN if sigma is not None else POOLED if noise.freedom > 0 else UNKNOWN
    noise_notes = {"sigma": told_by, **noise_range(sd, np.isfinite(out["pdff"]))}
    out["attrs"] = {**noise_notes, **notes_of(train), **uncorrected(train), "likelihood": chosen}
    for bit, where in ((Status.AMBIGUOUS, ambiguous), (Status.OUTSIDE_DOMAIN, misfit)):
        out["status"][where] |= np.uint16(bit)
    return out


def _start(unit: np.ndarray, settings: Mapping[str, np.ndarray], side: tuple[float, ...]) -> dict[str, np.ndarray]:
    """The best node of a grid of fractions on one side and rates, with the amplitude by projection."""
    nodes = np.array([(p, rate) for p in side for rate in RATES])
    theta = {"S0": np.ones(len(nodes)), "pdff": nodes[:, 0], "r2star": nodes[:, 1]}
    signal = equations.water_fat_magnitude.signal(theta, settings)
    size = np.linalg.norm(signal, axis=1)
    along = np.where(np.isfinite(unit), unit, 0.0) @ (signal / size[:, None]).T
    best = along.argmax(axis=1)
    return {"S0": along[np.arange(len(unit)), best] / size[best], "pdff": nodes[best, 0], "r2star": nodes[best, 1]}


class _Minimum:
    """Values, standard errors for unit noise, and status at one minimum of each voxel."""

    def __init__(self, values: dict[str, np.ndarray], unit_sd: dict[str, np.ndarray], status: np.ndarray) -> None:
        self.values, self.unit_sd, self.status = values, unit_sd, status

    @classmethod
    def of(cls, fits: list[solver.Fit], side: np.ndarray, rows: np.ndarray, scale: np.ndarray) -> _Minimum:
        """That of the fit number `side`."""
        free = fits[0].free
        theta = np.stack([f.theta for f in fits])[side, rows]
        covariance = np.stack([f.covariance for f in fits if f.covariance is not None])[side, rows]
        status = np.stack([f.status for f in fits])[side, rows]
        S0, p, rate = (theta[:, free.index(name)] for name in ("S0", "pdff", "r2star"))
        values = {"pdff": p, "r2star": rate, "water": S0 * (1 - p) * scale, "fat": S0 * p * scale}
        zero = np.zeros_like(S0)
        gradients = {  # of pdff and r2star the data are in units of the scale, of the amplitudes scale and unit cancel
            "pdff": ((zero, zero + 1.0, zero), 1.0 / scale),
            "r2star": ((zero, zero, zero + 1.0), 1.0 / scale),
            "water": ((1 - p, -S0, zero), 1.0),
            "fat": ((p, S0, zero), 1.0),
        }
        order = [free.index(name) for name in ("S0", "pdff", "r2star")]
        covariance = covariance[:, order][:, :, order]
        unit_sd = {}
        for name, (gradient, factor) in gradients.items():
            g = np.stack(gradient, axis=-1)
            with np.errstate(invalid="ignore"):
                variance = np.einsum("vi,vij,vj->v", g, covariance, g)
            unit_sd[name] = np.sqrt(np.where(np.isinf(covariance[:, 0, 0]), np.inf, variance)) * factor
        return cls(values, unit_sd, status)
