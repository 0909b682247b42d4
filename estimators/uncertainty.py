"""How sure an estimate is: the noise SD, given or pooled over voxels, and likelihood intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..simulator.symbolic import Equation
from .solver import Fit, fit, limits

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Noise:
    """Noise SD of the data, and with how many degrees of freedom it is known (infinite where it was given)."""

    sd: float | np.ndarray
    freedom: float

    @property
    def widening(self) -> float:
        """Factor on a standard error so that +- 1.96 of it covers 95 % although the noise SD is estimated."""
        return self.quantile / Z95

    @property
    def quantile(self) -> float:
        """97.5 % quantile of an estimate over its standard error: Student's t."""
        if not self.freedom > 0:
            return np.nan
        if self.freedom > 1e5:
            return Z95
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975))


def noise_of(cost: np.ndarray, freedom: int, good: np.ndarray, sigma: float | np.ndarray | None) -> Noise:
    """The given noise SD, else the residuals pooled over the good voxels.

    Parameters
    ----------
    cost : ndarray, (voxel,)
        Sum of squared residuals of each voxel's fit.
    freedom : int
        Points less unknowns of one voxel.
    good : ndarray of bool, (voxel,)
        Voxels that count.
    sigma : float or ndarray, (voxel,), optional
        The noise SD where it is known.

    Notes
    -----
    A voxel that no model fits (an artefact) would own a plain mean: residuals above the value that one good voxel in
    10 000 exceeds, given the median, are left out. The bias of leaving them out is below one in a thousand.
    """
    if sigma is not None:
        return Noise(sigma, np.inf)
    rest = cost[good]
    if freedom <= 0 or rest.size == 0:
        return Noise(np.nan, 0)
    if rest.size > 10:
        from scipy.special import chdtri

        rest = rest[rest <= np.median(rest) * chdtri(freedom, 1e-4) / chdtri(freedom, 0.5)]
    return Noise(float(np.sqrt(rest.mean() / freedom)), freedom * rest.size)


def likelihood_interval(
    equation: Equation,
    data: np.ndarray,
    protocol: Mapping[str, Any],
    found: Fit,
    name: str,
    noise: Noise,
    *,
    known: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    likelihood: str = "gaussian",
    tolerance: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """95 % profile-likelihood interval of one unknown of a least-squares fit.

    Parameters
    ----------
    equation, data, protocol, known, bounds, likelihood
        As for the fit.
    found : Fit
        The best fit, of all voxels of `data`.
    name : str
        The unknown.
    noise : Noise
    tolerance : float
        Of the root of the profiled deviance, in noise SDs.

    Returns
    -------
    low, high : ndarray, (voxel,)
        Ends at the bound of the fit where the profile stays below the threshold; NaN where the fit is.

    Notes
    -----
    The profile is followed outwards from the best fit, each point starting from the last, with doubling steps until
    the deviance exceeds the threshold, then by the Illinois secant on the root of the deviance, which is nearly linear.
    Venzon and Moolgavkar, Appl Stat 37:87 (1988), doi:10.2307/2347496.
    """
    column = found.free.index(name)
    low, high = (v[column] for v in limits(equation, found.free, bounds))
    logarithmic = low > 0.0
    put, take = (np.log, np.exp) if logarithmic else (np.asarray, np.asarray)
    n_voxel = len(data)
    sd = np.broadcast_to(np.asarray(noise.sd, dtype=float), (n_voxel,))
    fine = np.isfinite(found.theta).all(axis=1) & np.isfinite(sd) & (sd > 0)
    target = noise.quantile
    best = put(np.clip(found[name], low, high))
    error = found.unit_sd[:, column] * sd / (found[name] if logarithmic else 1.0)

    def root(x: np.ndarray, where: np.ndarray, nuisance: np.ndarray) -> np.ndarray:
        """Root of the profiled deviance at x, less the target; `nuisance` moves along."""
        values = {k: _at(v, where) for k, v in (known or {}).items()}
        held = {k: v[where] if np.ndim(v) == 2 and len(v) == n_voxel else v for k, v in protocol.items()}
        theta = nuisance[where]
        theta[:, column] = take(x)
        start = dict(zip(found.free, theta.T, strict=True))
        there = fit(
            equation, data[where], held, known=values, start=start, frozen=(name,), bounds=bounds, sigma=sd[where],
            likelihood=likelihood, rtol=1e-5,
        )  # fmt: skip
        ok = np.isfinite(there.theta).all(axis=1)
        nuisance[where[ok]] = there.theta[ok]
        return np.sqrt(np.maximum(there.cost - found.cost[where], 0.0)) / sd[where] - target

    ends = []
    for sign, bound in ((-1.0, put(low)), (1.0, put(high))):
        end = np.full(n_voxel, np.nan)
        nuisance = found.theta.copy()
        inner, inner_value = best.copy(), np.full(n_voxel, -target)
        outer, outer_value = best.copy(), np.full(n_voxel, -target)
        reach = abs(bound - best)
        step = np.where(np.isfinite(error) & (error > 0), 1.5 * error, 0.25 * reach)
        step = np.minimum(step, 0.25 * reach + 1e-300)
        active = np.flatnonzero(fine)
        while active.size:  # outwards with doubling steps
            x = best[active] + sign * np.minimum(step[active], reach[active])
            value = root(x, active, nuisance)
            at_bound = step[active] >= reach[active]
            outside = value > 0
            end[active[at_bound & ~outside]] = bound
            outer[active[outside]], outer_value[active[outside]] = x[outside], value[outside]
            inner[active[~outside]], inner_value[active[~outside]] = x[~outside], value[~outside]
            step[active] *= 2.0
            active = active[~outside & ~at_bound]
        active = np.flatnonzero(fine & np.isnan(end))
        for _ in range(30):
            if not active.size:
                break
            a, fa, b, fb = inner[active], inner_value[active], outer[active], outer_value[active]
            x = b - fb * (b - a) / (fb - fa)
            value = root(x, active, nuisance)
            end[active] = x
            outside = value > 0
            # Illinois: the end that stays counts half, so that both close in
            inner_value[active] = np.where(outside, 0.5 * fa, value)
            outer_value[active] = np.where(outside, value, 0.5 * fb)
            inner[active], outer[active] = np.where(outside, a, x), np.where(outside, x, b)
            active = active[np.abs(value) > tolerance]
        ends.append(take(end))
    return ends[0], ends[1]


def _at(value: Any, where: np.ndarray) -> Any:
    """A held value, or its part for some voxels."""
    array = np.asarray(value, dtype=float)
    return array.ravel()[where] if array.size > 1 else value
