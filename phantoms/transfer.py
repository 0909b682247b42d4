"""Exchange between the bound water of bone and its collagen: intrinsic T1 that reproduce the observed one.

Published sets contradict each other: the intrinsic rate and the exchange of a saturation-transfer fit [1]_ give, put
together, an observed T1 of some 260 ms, and inversion recovery finds half of that. So a pool holds either an observed
T1 and does not exchange, or an intrinsic one and does. Here exchange is taken from [1]_, and the intrinsic T1 of water
is fitted so that the recovery of water, both pools saturated by a long pulse at the start, gives on a fit of one
exponential the observed T1. The recovery is not one exponential: the residual says by how much.

References
----------
.. [1] Ma 2018, MRM 79:1941, doi:10.1002/mrm.26846.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from .pools import Pool


def recovery(times: np.ndarray, R1_water: float, R1_collagen: float, to_collagen: float, to_water: float) -> np.ndarray:
    """Longitudinal magnetisation of water over its equilibrium, both pools zero at time zero.

    Parameters
    ----------
    times : array
        Seconds.
    R1_water, R1_collagen : float
        Intrinsic rates (1/s).
    to_collagen, to_water : float
        Rates of exchange (1/s) of the magnetisation of water, and of collagen.
    """
    # For what is missing from equilibrium, each over its own: detailed balance makes both rows of exchange differences.
    matrix = np.array([[-R1_water - to_collagen, to_collagen], [to_water, -R1_collagen - to_water]])
    rates, modes = np.linalg.eig(matrix)
    start = np.linalg.solve(modes, np.ones(2))
    return 1 - np.real((modes[0] * start) @ np.exp(np.outer(rates, times)))


def apparent(times: np.ndarray, curve: np.ndarray) -> tuple[float, float]:
    """T1 (s) of the saturation recovery of one exponential nearest to `curve`, and the residual (rms)."""
    from scipy.optimize import minimize_scalar

    def misfit(rate: float) -> float:
        return float(np.mean((1 - np.exp(-np.exp(rate) * times) - curve) ** 2))

    found = minimize_scalar(misfit, bounds=(np.log(0.05), np.log(500.0)), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(-found.x)), float(np.sqrt(found.fun))


def exchanging(pools: Sequence[Pool], water: str, collagen: str, field: float) -> tuple[list[Pool], dict[str, float]]:
    """Let two pools exchange, in detailed balance, with the intrinsic T1 that gives the observed one.

    Parameters
    ----------
    pools : sequence of Pool
    water, collagen : str
        Names of the two; their densities stand in one ratio everywhere.
    field : float
        Field strength (T).

    Returns
    -------
    pools : list of Pool
    fitted : dict
        ``T1_water_intrinsic`` (s) and ``T1_fit_residual`` (rms over equilibrium).

    Raises
    ------
    InputError
        No intrinsic T1 gives the observed one.
    """
    from scipy.optimize import brentq

    by_name = {pool.name: pool for pool in pools}
    observed = float(by_name[water].T1_observed)
    R1_collagen = 1 / float(by_name[collagen].T1_observed)
    to_collagen = tissues.value("macromolecule.exchange", field)
    to_water = to_collagen * float(by_name[water].density.sum() / by_name[collagen].density.sum())
    times = np.linspace(0, 5 * observed, 200)

    def excess(log_rate: float) -> float:
        return apparent(times, recovery(times, np.exp(log_rate), R1_collagen, to_collagen, to_water))[0] - observed

    low, high = np.log(1e-3), np.log(1e3)
    if excess(low) * excess(high) > 0:
        raise InputError(f"exchange: no intrinsic T1 of {water} gives the observed {observed:g} s with exchange at "
                         f"{to_collagen:g} per s")
    rate = float(np.exp(brentq(excess, low, high, xtol=1e-9)))
    residual = apparent(times, recovery(times, rate, R1_collagen, to_collagen, to_water))[1]
    changed = {
        water: replace(by_name[water], T1_observed=np.nan, T1_intrinsic=1 / rate, exchange={collagen: to_collagen}),
        collagen: replace(by_name[collagen], T1_observed=np.nan, T1_intrinsic=1 / R1_collagen,
                          exchange={water: to_water}),
    }
    return ([changed.get(pool.name, pool) for pool in pools],
            {"T1_water_intrinsic": 1 / rate, "T1_fit_residual": residual})
