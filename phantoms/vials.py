"""Vials: a grid of known values, one vial each, on an empty background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import Pool
from .recipes import FASTEST_D, FASTEST_D_STAR

KINDS = ("ivim",)
_DIAMETER = 10e-3  # m
_PITCH = 14e-3  # m, from one vial to the next


@sourced
def vials(
    kind: str = "ivim",
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    f: Sequence[float] = (0.02, 0.05, 0.10, 0.15, 0.20),
    D: Sequence[float] = (0.3e-3, 0.45e-3, 0.6e-3, 0.9e-3, 1.2e-3),
    D_star: Sequence[float] = (10e-3, 30e-3, 60e-3),
    T1: float | None = None,
    T2: float | None = None,
) -> Phantom:
    """Vials of two diffusing solutions: f along x, D along y, D_star along z (one slice a panel).

    Both solutions of a vial share T1 and T2 (default: those of blood), so that the apparent perfusion fraction
    is the true one at every TE and TR, and what an estimator misses is its own. A vial's voxels lie wholly
    inside it; everything else is empty and has no truth.

    Parameters
    ----------
    kind : str
        ``"ivim"``.
    seed : int
        Kept in the attributes; the vials hold no randomness.
    resolution : float
        Edge of a voxel (m).
    field : float
        Field strength (T).
    f : sequence of float
        Perfusion fractions (spin density).
    D, D_star : sequence of float
        Diffusivities and pseudo-diffusivities (mm2/s).
    T1, T2 : float, optional
        Relaxation times (s).

    Returns
    -------
    Phantom

    Raises
    ------
    InputError
        An unknown kind, a value out of range, a field without data, voxels larger than a vial.
    """
    where = "vials"
    if kind not in KINDS:
        raise InputError(f"{where}: no kind {kind!r}; known: {', '.join(KINDS)}")
    seed = inputs.seed(where, seed)
    # Larger voxels than this would miss the disc of a vial.
    resolution = inputs.resolution(where, resolution, _DIAMETER / 2)
    fractions = np.atleast_1d(inputs.numbers(where, "f", f, 0.0, 1.0))
    slow = np.atleast_1d(inputs.numbers(where, "D", D, 0.0, FASTEST_D, "mm2/s"))
    fast = np.atleast_1d(inputs.numbers(where, "D_star", D_star, 0.0, FASTEST_D_STAR, "mm2/s"))
    for name, values in (("f", fractions), ("D", slow), ("D_star", fast)):
        if values.ndim != 1:
            raise InputError(f"{where}: {name} has shape {values.shape}, should be a list of numbers")
    times = {"T1": T1, "T2": T2}
    relaxation: dict[str, Any] = {
        name: tissues.value(f"blood.{name}", field) if value is None
        else inputs.number(where, name, value, 1e-6, 60.0, "s") for name, value in times.items()}

    rows, columns = (_line(len(values), resolution) for values in (slow, fractions))
    grid = inputs.shape(where, (len(fast), len(rows[0]), len(columns[0])), MOST_VOXELS)
    inside = np.hypot(rows[1][:, None], columns[1][None, :]) <= _DIAMETER / 2
    inside = np.broadcast_to(inside, grid).astype(float)
    fraction = np.broadcast_to(fractions[columns[0]], grid)
    water = tissues.value("water.density")

    def pool(name: str, kind: str, share: np.ndarray, **diffusion: Any) -> Pool:
        volume = inside * share
        return Pool(name, kind, volume * water, volume, T1_observed=relaxation["T1"], T2=relaxation["T2"],
                    chi=tissues.value("water.chi"), **diffusion)

    pools = [
        pool("solution", "solution", 1 - fraction, D=np.broadcast_to(slow[rows[0]][:, None], grid)),
        pool("flow", "blood", fraction, D_star=np.broadcast_to(fast[:, None, None], grid)),
    ]
    parameters = {"kind": kind, "f": fractions, "D": slow, "D_star": fast, **times}
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed, parameters=parameters)


def _line(count: int, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: which vial each voxel is nearest to, and how far (m) from the middle of that vial."""
    voxels = math.ceil(count * _PITCH / resolution)
    position = (np.arange(voxels) - (voxels - 1) / 2) * resolution + count * _PITCH / 2
    nearest = np.clip((position / _PITCH).astype(int), 0, count - 1)
    return nearest, position - (nearest + 0.5) * _PITCH
