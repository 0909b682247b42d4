"""Water, fat and R2* from magnitudes alone: `dixon-magnitude`.

Without phase the field drops out, and with it most of what tells water from fat: |W + F c(t)| hardly changes when the
two are exchanged. Only the smaller peaks of fat, which beat among themselves, tell. There are two minima, on either
side of a fraction that depends on the echo times, from .55 to .7, and on noise: each voxel's own are looked for. Both
are kept, and where noise could have exchanged them the voxel is called ambiguous.
Triay Bagur et al., Magn Reson Med 82:460 (2019), doi:10.1002/mrm.27728.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...simulator import equations
from ...simulator.threads import each_block
from ...simulator.water_fat import WaterFat
from .. import solver
from ..estimate import estimator
from ..profile import likelihood_interval
from ..status import Status
from ..uncertainty import Noise, noise_of
from .maps import CLAIMS, EXTRAS, GIVEN, MISFIT, POOLED, QUANTITIES, UNKNOWN, doubts, noise_range
from .notes import notes_of
from .train import ENCODINGS, NEEDS, Train
from .weights import uncorrected

FRACTIONS = np.linspace(-0.1, 1.1, 61)
RATES = np.concatenate([np.arange(-20.0, 160.0, 12.0), np.geomspace(160.0, 900.0, 10)])
"""Nodes over which the minima are looked for: two nearer than .04 lie within either's interval."""

LOOK = 512  # voxels that are compared with the nodes at a time: some megabytes

BOUNDS = {"pdff": (-0.3, 1.3), "r2star": (-300.0, 2000.0)}
"""Noise may carry a fraction beyond 0 or 1, and a small R2* below 0; held there it would be biased."""

APART = 0.02  # of minima that are two
PASSES = 20  # of the noise at most
DOUBT = 0.025
"""Posterior probability of the other minimum from which a voxel is ambiguous: that of either tail of an interval."""

BRIGHT = 5.0
"""Strongest echo over the noise SD from which a voxel tells the noise: of air one echo in 300 000 is as strong."""

RAYLEIGH = np.sqrt(2 - np.pi / 2)  # SD of the magnitude of noise alone, over that of a channel

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
    minimum, NaN where there is one only. Intervals are those of the profiled likelihood, and reach over both minima
    where the voxel is ambiguous. Other options as for `dixon`.
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
    limits = {**BOUNDS, **(bounds or {})}
    fits = [
        solver.fit(
            model, unit, settings, start=start, bounds=limits, sigma=relative, likelihood=chosen, covariance=True
        )
        for start in _starts(unit, settings)
    ]  # fmt: skip
    cost = np.stack([f.cost for f in fits]) * scale**2
    better = np.where(np.isnan(cost).any(axis=0), 0, cost.argmin(axis=0))
    rows = np.arange(len(scale))
    ordered = [_taken(fits, side, rows) for side in (better, 1 - better)]
    best, other = (_Minimum.of(found, scale) for found in ordered)
    freedom = data.shape[1] - len(fits[0].free)
    settled = (best.status & ~np.uint16(Status.AT_BOUND)) == 0
    noise = _noise(cost[better, rows], freedom, settled, magnitude.max(axis=1), sigma)
    sd = np.asarray(noise.sd)
    out: dict[str, Any] = {}
    for name in NAMES:
        out[name] = best.values[name]
        out[f"{name}_sd"] = best.unit_sd[name] * sd * noise.widening
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # data without noise have an SD of 0
        apart = np.abs(other.values["pdff"] - out["pdff"]) > APART
        excess = (cost[1 - better, rows] - cost[better, rows]) / (2 * sd**2)
        ambiguous = apart & (excess < np.log((1 - DOUBT) / DOUBT))
        left = cost[better, rows] if chosen == "gaussian" else _residual(magnitude, ordered[0], settings, scale, sd)
        misfit = (left > freedom * (MISFIT * sd) ** 2) & (freedom > 0)
    if both:
        out["pdff_other"] = np.where(apart, other.values["pdff"], np.nan)
        out["pdff_other_sd"] = np.where(apart, other.unit_sd["pdff"] * sd * noise.widening, np.nan)
    if t2star:
        with np.errstate(divide="ignore", invalid="ignore"):
            out["t2star"] = np.where(out["r2star"] > 0, 1.0 / out["r2star"], np.nan)
            out["t2star_sd"] = out["r2star_sd"] * out["t2star"] ** 2
    if intervals:
        of_unit = np.broadcast_to(sd / scale, scale.shape)

        def ends(some: np.ndarray, found: solver.Fit) -> tuple[np.ndarray, np.ndarray]:
            """Of the minimum `found`, over some voxels."""
            return likelihood_interval(
                model, unit[some], settings, _taken([found], np.zeros(some.size, int), some), "pdff",
                Noise(of_unit[some], noise.freedom), bounds=limits, likelihood=chosen,
            )  # fmt: skip

        low, high = ends(rows, ordered[0])
        exact = sd == 0  # the likelihood of data without noise is a point
        low, high = np.where(exact, out["pdff"], low), np.where(exact, out["pdff"], high)
        double = np.flatnonzero(ambiguous)
        beyond = ends(double, ordered[1])
        low[double], high[double] = np.fmin(low[double], beyond[0]), np.fmax(high[double], beyond[1])
        out["pdff_lo"], out["pdff_hi"] = low, high
    out["status"] = best.status | doubts(magnitude.max(axis=1), out, noise)
    told_by = GIVEN if sigma is not None else POOLED if noise.freedom > 0 else UNKNOWN
    noise_notes = {"sigma": told_by, **noise_range(sd, np.isfinite(out["pdff"]))}
    out["attrs"] = {**noise_notes, **notes_of(train), **uncorrected(train), "likelihood": chosen}
    for bit, where in ((Status.AMBIGUOUS, ambiguous), (Status.OUTSIDE_DOMAIN, misfit)):
        out["status"][where] |= np.uint16(bit)
    return out


def _starts(unit: np.ndarray, settings: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The lowest two minima over the fraction of what a grid leaves, each with its best rate; twice the one if alone.

    The amplitude is by projection, the rate by the parabola through the best node and its neighbours.
    """
    p, rate = (axis.ravel() for axis in np.meshgrid(FRACTIONS, RATES, indexing="ij"))
    signal = equations.water_fat_magnitude.signal({"S0": np.ones(p.size), "pdff": p, "r2star": rate}, settings)
    size = np.linalg.norm(signal, axis=1)
    # one small product for each fraction: linear algebra starts threads of its own for large ones
    nodes = np.moveaxis((signal / size[:, None]).reshape(FRACTIONS.size, RATES.size, -1), 2, 1).copy()
    found = [np.empty((3, len(unit))) for _ in range(2)]

    def look(a: int, b: int) -> None:
        block = unit[a:b]
        grid = np.where(np.isfinite(block), block, 0.0) @ nodes
        node = grid.argmax(axis=2)
        peak = _peak(grid, node)
        padded = np.pad(peak, ((1, 1), (0, 0)), constant_values=-np.inf)
        minimum = (peak > padded[:-2]) & (peak >= padded[2:])
        here = np.arange(len(block))
        first = peak.argmax(axis=0)
        minimum[first, here] = False
        second = np.where(minimum.any(axis=0), np.where(minimum, peak, -np.inf).argmax(axis=0), first)
        for start, i in zip(found, (first, second), strict=True):
            k = node[i, here]
            start[:, a:b] = grid[i, here, k] / size[i * RATES.size + k], FRACTIONS[i], RATES[k]

    each_block(len(unit), look, LOOK)
    return [dict(zip(("S0", "pdff", "r2star"), start, strict=True)) for start in found]


def _peak(grid: np.ndarray, node: np.ndarray) -> np.ndarray:
    """What the projections reach between their best rate, the `node`, and its neighbours; (fraction, voxel).

    Without it the fractions whose best rate happens to be a node look better than those beside, and minima arise that
    are none.
    """
    k = np.clip(node, 1, RATES.size - 2)
    x = RATES[np.stack([k - 1, k, k + 1])]
    y = np.stack([np.take_along_axis(grid, j[..., None], 2)[..., 0] for j in (k - 1, k, k + 1)])
    rise, fall = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (fall - rise) / (x[2] - x[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        top = 0.5 * (x[0] + x[1]) - rise / (2 * bend)
        between = (bend < 0) & (top > x[0]) & (top < x[2])
        height = y[0] + rise * (top - x[0]) + bend * (top - x[0]) * (top - x[1])
    highest: np.ndarray = np.where(between, height, y.max(axis=0))
    return highest


def _noise(
    cost: np.ndarray, freedom: int, settled: np.ndarray, strongest: np.ndarray, sigma: float | np.ndarray | None
) -> Noise:
    """The given noise SD, else that of the residuals of what is not air.

    Magnitudes of air have .655 of the noise SD. What is not well above the noise is left out, and the noise found again
    until no voxel changes sides; where nothing is above it, all is air.
    """
    noise = noise_of(cost, freedom, settled, sigma)
    if sigma is not None or not noise.freedom > 0:
        return noise
    every, bright = noise, settled
    for _ in range(PASSES):
        with np.errstate(invalid="ignore"):
            now = settled & (strongest > BRIGHT * np.asarray(noise.sd))
        if not now.any():
            return Noise(float(every.sd) / RAYLEIGH, every.freedom)
        if (now == bright).all():
            break
        bright, noise = now, noise_of(cost, freedom, now, None)
    return noise


def _residual(
    magnitude: np.ndarray, found: solver.Fit, settings: Mapping[str, np.ndarray], scale: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """Sum of squares of what the mean of Rician magnitudes leaves, (voxel,).

    By noise alone it is as that of Gaussian data where the signal is strong, and smaller where it is weak: compared
    with the noise SD it accuses no faint voxel.
    """
    from scipy.special import i0e, i1e

    clean = equations.water_fat_magnitude.signal({name: found[name] for name in found.free}, settings)
    noise = np.broadcast_to(sd, scale.shape)[:, None]
    y = (clean * scale[:, None] / (2 * noise)) ** 2
    mean = noise * np.sqrt(np.pi / 2) * ((1 + 2 * y) * i0e(y) + 2 * y * i1e(y))
    squares: np.ndarray = ((magnitude - mean) ** 2).sum(axis=1)
    return squares


def _taken(fits: list[solver.Fit], which: np.ndarray, rows: np.ndarray) -> solver.Fit:
    """Of some voxels the fit number `which`."""

    def of(name: str) -> np.ndarray:
        taken: np.ndarray = np.stack([getattr(f, name) for f in fits])[which, rows]
        return taken

    names = ("theta", "unit_sd", "cost", "status", "evaluations", "covariance")
    return solver.Fit(fits[0].free, **{name: of(name) for name in names})


class _Minimum:
    """Values, standard errors for unit noise, and status at one minimum of each voxel."""

    def __init__(self, values: dict[str, np.ndarray], unit_sd: dict[str, np.ndarray], status: np.ndarray) -> None:
        self.values, self.unit_sd, self.status = values, unit_sd, status

    @classmethod
    def of(cls, found: solver.Fit, scale: np.ndarray) -> _Minimum:
        """That of a fit to data over their scale."""
        free, theta, status = found.free, found.theta, found.status
        assert found.covariance is not None
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
        covariance = found.covariance[:, order][:, :, order]
        unit_sd = {}
        for name, (gradient, factor) in gradients.items():
            g = np.stack(gradient, axis=-1)
            with np.errstate(invalid="ignore"):
                variance = np.einsum("vi,vij,vj->v", g, covariance, g)
            unit_sd[name] = np.sqrt(np.where(np.isinf(covariance[:, 0, 0]), np.inf, variance)) * factor
        return cls(values, unit_sd, status)
