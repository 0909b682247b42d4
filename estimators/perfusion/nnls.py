"""`ivim-nnls`: a spectrum of diffusivities by non-negative least squares, read as tissue and blood."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import InputError
from ...simulator import equations
from ...simulator.model import cramer_rao_bound
from ..estimate import estimator
from ..status import Status
from ..uncertainty import noise_of
from .least_squares import CLAIMS, QUANTITIES, low_signal, not_identified, points_for

GRID = (1e-4, 0.3, 120)  # mm2/s: first and last diffusivity, and how many, evenly in the logarithm
BOUNDARY = 4.5e-3  # mm2/s: between the largest D of marrow (oedema, 2e-3) and the smallest D* (10e-3)


@estimator(
    name="ivim-nnls",
    title="IVIM by non-negative least squares over a spectrum of diffusivities",
    modality="diffusion",
    model=equations.ivim,
    quantities=QUANTITIES,
    source="Marchand et al., Magn Reson Imaging 32:1091 (2014), doi:10.1016/j.mri.2014.07.009",
    claims=CLAIMS,
    encoding="b",
    measurand={"f": "f_app"},
)
def ivim_nnls(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    boundary: float = BOUNDARY,
) -> dict[str, np.ndarray]:
    """Amplitudes of 120 diffusivities; those below `boundary` (mm2/s) are tissue, those above are blood.

    D and D* are amplitude-weighted geometric means. Where the spectrum has one component only, as Marchand found in
    eight of fifteen volunteers, f is 0 and D* NaN, flagged as not identifiable. The standard errors are those of the
    bi-exponential model at the estimate: NNLS has none of its own.
    """
    from scipy.optimize import nnls

    points_for("ivim-nnls", protocol, 4)
    if not GRID[0] < boundary < GRID[1]:
        raise InputError(f"ivim-nnls: boundary is {boundary:g}; expected between {GRID[0]:g} and {GRID[1]:g} mm2/s")
    grid = np.geomspace(*GRID)
    basis = equations.mono_exponential.signal({"S0": 1.0, "adc": grid}, {"b": protocol["b"]}).T
    good = np.isfinite(data).all(axis=1)
    amplitude, cost = np.full((len(data), len(grid)), np.nan), np.full(len(data), np.nan)
    for v in np.flatnonzero(good):
        amplitude[v], norm = nnls(basis, data[v])
        cost[v] = norm**2
    fast = grid > boundary
    log = np.log(grid)
    with np.errstate(divide="ignore", invalid="ignore"):
        total, blood = amplitude.sum(axis=1), amplitude[:, fast].sum(axis=1)
        out = {"S0": total, "f": blood / total}
        # sums by row: a matrix product rounds by how many voxels there are, and a mask would change the last digit
        out["D_star"] = np.exp((amplitude[:, fast] * log[fast]).sum(axis=1) / blood)
        out["D"] = np.exp((amplitude[:, ~fast] * log[~fast]).sum(axis=1) / (total - blood))
    # active amplitudes use up degrees of freedom: four on average when two components with two unknowns each are found
    noise = noise_of(cost, data.shape[1] - 4, good, sigma)
    whole = np.isfinite(np.stack(list(out.values()))).all(axis=0)
    at = {name: np.where(whole, out[name], 1e-3) for name in QUANTITIES}
    sd = np.broadcast_to(np.asarray(noise.sd, dtype=float), len(data))
    bound = cramer_rao_bound(equations.ivim, at, {"b": protocol["b"]}, sd)
    names = [q.name for q in equations.ivim.unknowns]
    for name in QUANTITIES:
        error = bound[:, names.index(name)] * noise.widening
        out[f"{name}_sd"] = np.where(whole, error, np.where(np.isfinite(out[name]), np.inf, np.nan))
    single = np.where(whole, 0, Status.NOT_IDENTIFIABLE)
    status = np.where(good, single, Status.INVALID).astype(np.uint16)
    return {**out, "status": status | low_signal(data, noise) | not_identified(out)}
