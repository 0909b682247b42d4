"""Vials: a grid of known values, one vial each, on an empty background."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs
from .phantom import MOST_VOXELS, Phantom, sourced
from .pools import Pool
from .recipes import FASTEST_D, FASTEST_D_STAR
from .vial_sets import DIAMETER, EDGES, SETS, Rack, line

KINDS = ("ivim", *SETS)
_IVIM: dict[str, tuple[float, ...]] = {
    "f": (0.02, 0.05, 0.10, 0.15, 0.20),
    "D": (0.3e-3, 0.45e-3, 0.6e-3, 0.9e-3, 1.2e-3),
    "D_star": (10e-3, 30e-3, 60e-3),
}


@sourced
def vials(
    kind: str = "ivim",
    seed: int = 0,
    resolution: float = 2e-3,
    field: float = 3.0,
    f: Sequence[float] | None = None,
    D: Sequence[float] | None = None,
    D_star: Sequence[float] | None = None,
    T1: float | None = None,
    T2: float | None = None,
    pdff: Sequence[float] | None = None,
    r2star: Sequence[float] | None = None,
    nickel: Sequence[float] | None = None,
    agar: Sequence[float] | None = None,
    T2star: Sequence[float] | None = None,
    light_water: Sequence[float] | None = None,
    phosphorus: Sequence[float] | None = None,
    edges: str = "clean",
) -> Phantom:
    """Calibration vials of one kind: ivim (default), pdff, r2star, relaxation, ute, phosphorus or mt.

    Round vials in a grid, every value of which is known. Each kind has parameters of its own, and none holds what it
    does not list: only ``pdff`` holds fat, and to a water-fat scan every other kind is water.

    =============== ============================ ================================ ==================================
    `kind`          along x                      along y                          what stands in a vial
    =============== ============================ ================================ ==================================
    ``ivim``        `f`                          `D` (and `D_star` along z)       two solutions that diffuse
    ``pdff``        `pdff`                       `r2star`                         oil in agar gel
    ``r2star``      `r2star`                                                      MnCl2 in water
    ``relaxation``  `nickel`                     `agar`                           NiCl2 in agar gel
    ``ute``         `T2star`                     `light_water`                    MnCl2 in H2O and D2O
    ``phosphorus``  `phosphorus`                 `T2star`                         phosphate in D2O: 31P alone
    ``mt``          `agar`                                                        gel: water and macromolecules
    =============== ============================ ================================ ==================================

    The two solutions of an IVIM vial share T1 and T2 (default: those of blood), so that the apparent perfusion
    fraction is the true one at every TE and TR, and what an estimator misses is its own. Everything but the vials
    is empty and has no truth.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    seed : int
        Kept in the attributes; the vials hold no randomness.
    resolution : float
        Edge of a voxel (m); also the thickness of the slice.
    field : float
        Field strength (T).
    f : sequence of float
        Perfusion fractions (spin density).
    D, D_star : sequence of float
        Diffusivities and pseudo-diffusivities (mm2/s).
    T1, T2 : float, optional
        Relaxation times of the IVIM vials (s).
    pdff : sequence of float
        Proton density fat fractions.
    r2star : sequence of float
        R2* (1/s): of water and oil alike (``pdff``), of the solution (``r2star``).
    nickel : sequence of float
        NiCl2 (mol/L).
    agar : sequence of float
        Agar (g/mL: 0.02 is 2 %).
    T2star : sequence of float
        T2* (s), which is T2 here: what MnCl2 shortens no echo brings back.
    light_water : sequence of float
        Share of H2O in the mixture with D2O; 0.2 has 22 mol 1H/L, as much as bone.
    phosphorus : sequence of float
        31P (mol/L).
    edges : str
        ``"clean"``: each voxel is wholly inside a vial or empty. ``"partial"`` (not for ``ivim``): a voxel on
        the rim holds the share of it that the circle covers, exactly.

    Returns
    -------
    Phantom
        With labels: a number for each vial, on the voxels that lie wholly within it, named by its values.

    Raises
    ------
    InputError
        An unknown kind, a parameter that the kind does not have, a value out of range, a field without data,
        voxels larger than a vial.
    """
    where = "vials"
    if kind not in KINDS:
        raise InputError(f"{where}: no kind {kind!r}; known: {', '.join(KINDS)}")
    seed = inputs.seed(where, seed)
    # Larger voxels than this would miss the disc of a vial.
    resolution = inputs.resolution(where, resolution, DIAMETER / 2)
    given = {name: value for name, value in {
        "f": f, "D": D, "D_star": D_star, "T1": T1, "T2": T2, "pdff": pdff, "r2star": r2star, "nickel": nickel,
        "agar": agar, "T2star": T2star, "light_water": light_water, "phosphorus": phosphorus}.items()
        if value is not None}
    own = _parameters(kind)
    for name in given:
        if name not in own:
            others = " and ".join(repr(other) for other in KINDS if name in _parameters(other))
            raise InputError(f"{where}: the kind {kind!r} has no {name}; it has {', '.join(own)}; {name} is of kind "
                             f"{others}")
    if edges not in EDGES or (kind == "ivim" and edges != "clean"):
        known = "clean" if kind == "ivim" else " or ".join(EDGES)
        raise InputError(f"{where}: edges is {edges!r}, should be {known}")
    if kind == "ivim":
        return _ivim({**_IVIM, **given}, resolution, field, seed)

    field = inputs.field(where, field)
    axes = {}
    for name, axis in SETS[kind].axes.items():
        values = inputs.numbers(where, name, given.get(name, axis.values), axis.low, axis.high, axis.unit)
        axes[name] = np.atleast_1d(values)
        if axes[name].ndim != 1:
            raise InputError(f"{where}: {name} has shape {values.shape}, should be a list of numbers")
        if np.unique(axes[name]).size < axes[name].size:
            raise InputError(f"{where}: {name} names a value twice, should be a list of different numbers")
    sizes = [len(values) for values in axes.values()]
    rows, columns = (sizes[1] if len(sizes) > 1 else 1), sizes[0]
    inputs.shape(where, (1, len(line(rows, resolution)[0]), len(line(columns, resolution)[0])), MOST_VOXELS)
    rack = Rack(rows, columns, resolution, edges)
    pools = SETS[kind].pools(rack, axes, field, where)
    labels = np.zeros(rack.shape, np.int16)
    for number, (row, column) in enumerate(np.ndindex(rows, columns), start=1):
        labels[rack.vial(row, column) > 1 - 1e-9] = number
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed,
                         parameters={"kind": kind, **axes, "edges": edges}, labels=(labels, _names(axes)))


def _parameters(kind: str) -> tuple[str, ...]:
    """What a kind of vials has besides the common parameters."""
    return (*_IVIM, "T1", "T2") if kind == "ivim" else tuple(SETS[kind].axes)


def _names(axes: Mapping[str, np.ndarray]) -> dict[int, str]:
    """Names of the vials by their values, the first axis running fastest."""
    names, lists = list(axes), [list(values) for values in axes.values()]
    found = {}
    for number, values in enumerate(itertools.product(*reversed(lists)), start=1):
        found[number] = "_".join(f"{name}_{value:g}" for name, value in zip(names, reversed(values), strict=True))
    return found


def _ivim(given: Mapping[str, Any], resolution: float, field: float, seed: int) -> Phantom:
    """Fractions along x, diffusivities along y, pseudo-diffusivities along z, one slice a panel."""
    where, kind = "vials", "ivim"
    f, D, D_star = (given[name] for name in _IVIM)
    T1, T2 = (given.get(name) for name in ("T1", "T2"))
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

    rows, columns = (line(len(values), resolution) for values in (slow, fractions))
    grid = inputs.shape(where, (len(fast), len(rows[0]), len(columns[0])), MOST_VOXELS)
    inside = np.hypot(rows[1][:, None], columns[1][None, :]) <= DIAMETER / 2
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
    axes = {"f": fractions, "D": slow, "D_star": fast}
    number = 1 + columns[0] + len(fractions) * (rows[0][:, None] + len(slow) * np.arange(len(fast))[:, None, None])
    return Phantom.build(pools, name=where, resolution=resolution, field=field, seed=seed,
                         parameters={"kind": kind, **axes, **times},
                         labels=(np.where(inside > 0, number, 0), _names(axes)))
