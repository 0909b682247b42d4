"""Likelihood intervals: where the profiled deviance of an unknown stays below the threshold of 95 %."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..simulator.symbolic import Equation
from .solver import DOUBT, Fit, fit, limits
from .uncertainty import Noise

TOLERANCE = 0.01  # of the root of the deviance, in noise SDs: a hundredth of a standard error
# Parts of the way from an end to the bound at which a weakly determined profile is looked at again.
BEYOND = (1.0, 0.6, 0.25, 0.08)


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

    Returns
    -------
    low, high : ndarray, (voxel,)
        Ends at the bound of the fit where the profile stays below the threshold; NaN where the fit is.

    Notes
    -----
    The profile is followed outwards from the best fit, each point starting from the last, with doubling steps until
    the deviance exceeds the threshold, then by the Illinois secant on the root of the deviance, which is nearly
    linear. Where the data determine the unknown weakly, the set of likely values can have several pieces: there the
    way on to the bound is looked at too, also from other starts, and the interval reaches to the outermost piece.
    Venzon and Moolgavkar, Appl Stat 37:87 (1988), doi:10.2307/2347496.
    """
    profile = _Profile(equation, data, protocol, found, name, noise, known or {}, bounds, likelihood)
    return profile.end(-1.0), profile.end(1.0)


class _Profile:
    """The profiled deviance of one unknown, on the logarithm of the unknown where it is positive."""

    def __init__(
        self,
        equation: Equation,
        data: np.ndarray,
        protocol: Mapping[str, Any],
        found: Fit,
        name: str,
        noise: Noise,
        known: Mapping[str, Any],
        bounds: Mapping[str, tuple[float, float]] | None,
        likelihood: str,
    ) -> None:
        self.equation, self.data, self.protocol, self.found, self.name = equation, data, protocol, found, name
        self.known, self.bounds, self.likelihood = known, bounds, likelihood
        self.column = found.free.index(name)
        low, high = limits(equation, found.free, bounds)
        logarithmic = low[self.column] > 0.0
        self.put: Callable[[Any], Any] = np.log if logarithmic else np.asarray
        self.take: Callable[[Any], Any] = np.exp if logarithmic else np.asarray
        self.bound = {-1.0: float(self.put(low[self.column])), 1.0: float(self.put(high[self.column]))}
        self.sd = np.broadcast_to(np.asarray(noise.sd, dtype=float), (len(data),))
        self.fine = np.isfinite(found.theta).all(axis=1) & np.isfinite(self.sd) & (self.sd > 0)
        self.target = noise.quantile
        value = np.clip(found[name], low[self.column], high[self.column])
        self.best = self.put(value)
        error = found.unit_sd[:, self.column] * self.sd
        with np.errstate(divide="ignore", invalid="ignore"):
            self.weak = self.fine & ~(error <= DOUBT * value)
            self.error = error / (value if logarithmic else 1.0)
        # the other unknown with the most declared starts: its levels lead into other basins of the nuisances
        declared = {q.name: q.start for q in equation.unknowns}
        starts = [np.array(() if n == name else declared[n], dtype=float) for n in found.free]
        self.other = int(np.argmax([levels.size for levels in starts]))
        levels = starts[self.other]
        self.levels = levels[(levels > low[self.other]) & (levels < high[self.other])]

    def root(self, x: np.ndarray, where: np.ndarray, nuisance: np.ndarray) -> np.ndarray:
        """Root of the profiled deviance at x, less the target; `nuisance` moves along."""
        n_voxel = len(self.data)
        known = {k: v.ravel()[where] if np.size(v) > 1 else v for k, v in self.known.items()}
        held = {k: v[where] if np.ndim(v) == 2 and len(v) == n_voxel else v for k, v in self.protocol.items()}
        theta = nuisance[where]
        theta[:, self.column] = self.take(x)
        there = fit(
            self.equation, self.data[where], held, known=known, start=dict(zip(self.found.free, theta.T, strict=True)),
            frozen=(self.name,), bounds=self.bounds, sigma=self.sd[where], likelihood=self.likelihood, rtol=1e-5,
        )  # fmt: skip
        ok = np.isfinite(there.theta).all(axis=1)
        nuisance[where[ok]] = there.theta[ok]
        return np.sqrt(np.maximum(there.cost - self.found.cost[where], 0.0)) / self.sd[where] - self.target

    def lowest_root(self, x: np.ndarray, where: np.ndarray, nuisance: np.ndarray) -> np.ndarray:
        """The same, the least over several starts of the nuisances."""
        value = self.root(x, where, nuisance)
        for level in self.levels:
            trial = nuisance.copy()
            trial[where, self.other] = level
            other = self.root(x, where, trial)
            lower = other < value
            value[lower], nuisance[where[lower]] = other[lower], trial[where[lower]]
        return value

    def end(self, sign: float) -> np.ndarray:
        """End of the interval on one side, (voxel,)."""
        bound, target = self.bound[sign], self.target
        end = np.full(len(self.data), np.nan)
        nuisance = self.found.theta.copy()
        inner, inner_value = self.best.copy(), np.full(len(end), -target)
        outer, outer_value = inner.copy(), inner_value.copy()
        reach = abs(bound - self.best)
        step = np.where(np.isfinite(self.error) & (self.error > 0), 1.5 * self.error, 0.25 * reach)
        step = np.minimum(step, 0.25 * reach + 1e-300)
        active = np.flatnonzero(self.fine)
        while active.size:  # outwards with doubling steps
            x = self.best[active] + sign * np.minimum(step[active], reach[active])
            value = self.root(x, active, nuisance)
            at_bound, outside = step[active] >= reach[active], value > 0
            end[active[at_bound & ~outside]] = bound
            outer[active[outside]], outer_value[active[outside]] = x[outside], value[outside]
            inner[active[~outside]], inner_value[active[~outside]] = x[~outside], value[~outside]
            step[active] *= 2.0
            active = active[~outside & ~at_bound]
        bracket = (inner, inner_value, outer, outer_value)
        self.close_in(np.flatnonzero(self.fine & np.isnan(end)), bracket, end, nuisance)
        self.look_beyond(np.flatnonzero(self.weak & (end != bound)), bracket, end, nuisance, bound)
        return self.take(end)

    def close_in(
        self, active: np.ndarray, bracket: tuple[np.ndarray, ...], end: np.ndarray, nuisance: np.ndarray
    ) -> None:
        """Illinois secant between an inner point within the interval and an outer one."""
        inner, inner_value, outer, outer_value = bracket
        for _ in range(30):
            if not active.size:
                return
            a, fa, b, fb = (v[active] for v in bracket)
            x = b - fb * (b - a) / (fb - fa)
            value = self.root(x, active, nuisance)
            end[active] = x
            outside = value > 0
            # the end that stays counts half, so that both close in
            inner_value[active] = np.where(outside, 0.5 * fa, value)
            outer_value[active] = np.where(outside, value, 0.5 * fb)
            inner[active], outer[active] = np.where(outside, a, x), np.where(outside, x, b)
            active = active[np.abs(value) > TOLERANCE]

    def look_beyond(
        self, where: np.ndarray, bracket: tuple[np.ndarray, ...], end: np.ndarray, nuisance: np.ndarray, bound: float
    ) -> None:
        """From the bound inwards: the outermost likely point takes the interval with it."""
        inner, inner_value, outer, outer_value = bracket
        again = []
        for fraction in BEYOND:
            if not where.size:
                break
            x = end[where] + fraction * (bound - end[where])
            value = self.lowest_root(x, where, nuisance)
            likely = value <= 0
            here = where[likely]
            if fraction == 1.0:
                end[here] = bound
            else:
                inner[here], inner_value[here] = x[likely], value[likely]
                again.append(here)
            where = where[~likely]
            outer[where], outer_value[where] = x[~likely], value[~likely]
        if again:
            self.close_in(np.concatenate(again), bracket, end, nuisance)
