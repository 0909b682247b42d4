"""A bone is a set of spin pools: what the scanner sees in each voxel, and the laws the pools must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import tissues

KINDS = ("bound_water", "pore_water", "marrow_water", "muscle_water", "csf", "blood", "fat", "macromolecule",
         "phosphorus", "mineral", "solution")
# Water that a clinical echo sees; bound water and macromolecules have decayed long before.
EXTRAVASCULAR_WATER = ("pore_water", "marrow_water", "muscle_water", "csf", "solution")
WATER = (*EXTRAVASCULAR_WATER, "blood")
VISIBLE = (*WATER, "fat")
PROTONS = (*VISIBLE, "bound_water", "macromolecule")
# What solid bone is made of, each a share of its volume. Which bone it belongs to is told by the pool's name.
BONE = ("bound_water", "macromolecule", "mineral")
CORTICAL, TRABECULAR = "cortical_", "trabecular_"
MARROW = ("marrow_water", "oedema", "blood", "fat")  # pools that fill the room between trabeculae

# variable: (unit, long name, needs the three space dims)
SCHEMA = {
    "density": ("mol 1H/L", "concentration of spins (31P in mineral and phosphorus pools) per litre of voxel", True),
    "volume_fraction": ("1", "volume of the pool over volume of the voxel", True),
    "T1_observed": ("s", "longitudinal relaxation time as observed, exchange included", False),
    "T1_intrinsic": ("s", "longitudinal relaxation time of the pool alone, exchange apart", False),
    "T2": ("s", "transverse relaxation time", False),
    "R2_prime": ("1/s", "reversible transverse relaxation rate", False),
    "D": ("mm2/s", "diffusion coefficient, trace/3", False),
    "D_star": ("mm2/s", "pseudo-diffusion coefficient of blood", False),
    "kurtosis": ("1", "excess kurtosis of the displacement distribution", False),
    "chi": ("ppm", "volume susceptibility, SI", False),
    "shift": ("ppm", "chemical shift of each peak, main CH2 peak of fat at 1.30", False),
    "peak_area": ("1", "share of each peak in the pool's spins", False),
    "exchange": ("1/s", "rate from pool to pool_to", False),
}
SPACE = ("z", "y", "x")
SHAPED = {"shift": ("peak",), "peak_area": ("peak",), "exchange": ("pool_to",)}


@dataclass(frozen=True)
class Pool:
    """One spin pool of a phantom, before it is laid into a Dataset.

    ``density`` (mol of spins per litre of voxel) and ``volume_fraction`` are maps (z, y, x); every other property is
    a number, or a map where it varies in space. A blood pool has `D_star` and no `D`, every other pool `D` and
    no `D_star`. A pool has `T1_observed`, or `T1_intrinsic` and the rates (1/s) of its `exchange` with the pools
    named there: one used as the other would count exchange twice, or not at all.
    """

    name: str
    kind: str
    density: np.ndarray
    volume_fraction: np.ndarray
    T1_observed: float | np.ndarray = np.nan
    T2: float | np.ndarray = np.nan
    chi: float = np.nan
    R2_prime: float | np.ndarray = 0.0
    D: float | np.ndarray = np.nan
    D_star: float | np.ndarray = np.nan
    kurtosis: float | np.ndarray = 0.0
    shift: np.ndarray = field(default_factory=lambda: np.array([tissues.water_shift()]))
    peak_area: np.ndarray = field(default_factory=lambda: np.array([1.0]))
    T1_intrinsic: float | np.ndarray = np.nan
    exchange: Mapping[str, float] = field(default_factory=dict)


def lay(pools: Sequence[Pool], coords: dict[str, np.ndarray]) -> xr.Dataset:
    """Lay pools into one Dataset over (pool, z, y, x); a property that no pool varies in space is (pool)."""
    shape = tuple(len(coords[dim]) for dim in SPACE)
    peaks = max(len(pool.shift) for pool in pools)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, (_, _, is_map) in SCHEMA.items():
        if name in ("shift", "peak_area"):
            # A pool with fewer peaks repeats its first shift with area zero: every entry stays finite.
            rows = [np.pad(np.asarray(getattr(pool, name), dtype=float), (0, peaks - len(pool.shift)),
                           constant_values=pool.shift[0] if name == "shift" else 0.0) for pool in pools]
            variables[name] = (("pool", "peak"), np.stack(rows))
        elif name == "exchange":
            variables[name] = (("pool", "pool_to"), _rates(pools))
        elif name == "T1_intrinsic" and not any(pool.exchange for pool in pools):
            continue
        else:
            if is_map or any(np.ndim(getattr(pool, name)) for pool in pools):
                stacked = np.empty((len(pools), *shape))
                for row, pool in zip(stacked, pools, strict=True):  # no list of maps stands in memory beside them
                    row[:] = getattr(pool, name)
                variables[name] = (("pool", *SPACE), stacked)
            else:
                variables[name] = (("pool",), np.array([float(getattr(pool, name)) for pool in pools]))
    names = [pool.name for pool in pools]
    dataset = xr.Dataset(variables, coords={"pool": names, "pool_to": names,
                                            "kind": ("pool", [pool.kind for pool in pools])})
    for dim in SPACE:
        dataset = dataset.assign_coords({dim: (dim, coords[dim], {"units": "m", "long_name": f"position along {dim}"})})
    for name in variables:
        unit, long_name, _ = SCHEMA[name]
        dataset[name].attrs = {"units": unit, "long_name": long_name}
    return dataset


def _rates(pools: Sequence[Pool]) -> np.ndarray:
    names = [pool.name for pool in pools]
    rates = np.zeros((len(pools), len(pools)))
    for i, pool in enumerate(pools):
        for other, rate in pool.exchange.items():
            if other not in names:
                known = ", ".join(names)
                raise InputError(f"pool {pool.name}: exchange with {other!r}, which is no pool; known: {known}")
            rates[i, names.index(other)] = rate
    return rates


def merged(pools: Sequence[Pool]) -> list[Pool]:
    """Pools of one name and equal properties as one, in the order of their first: their maps add.

    Raises
    ------
    InputError
        Two pools of one name differ in a property.
    """
    found: dict[str, Pool] = {}
    for pool in pools:
        first = found.setdefault(pool.name, pool)
        if first is pool:
            continue
        for item in fields(Pool):
            if item.name not in ("density", "volume_fraction"):
                one, other = getattr(first, item.name), getattr(pool, item.name)
                same = one == other if isinstance(one, (str, Mapping)) else np.array_equal(one, other, equal_nan=True)
                if not same:
                    raise InputError(f"two pools {pool.name} differ in {item.name}: {one} and {other}")
        found[pool.name] = replace(first, density=first.density + pool.density,
                                   volume_fraction=first.volume_fraction + pool.volume_fraction)
    return list(found.values())


def check(pools: xr.Dataset, where: str) -> None:
    """Hold pools to their schema and to the conservation laws.

    Raises
    ------
    InputError
        A variable is missing, has other dims or another unit; a number is not finite or out of range; the
        volumes of a voxel exceed it; a pool is denser than pure water could be.
    """
    for name, (unit, _, is_map) in SCHEMA.items():
        if name not in pools.variables:
            if name == "T1_intrinsic":
                continue  # stands there only where pools exchange
            raise InputError(f"{where}: the pools lack the map {name!r} ({unit})")
        found = pools[name].attrs.get("units")
        if found != unit:
            raise InputError(f"{where}: pools.{name} has unit {found!r}, should be {unit!r}")
        dims = pools[name].dims
        extra = SHAPED.get(name)
        allowed = [("pool", *extra)] if extra else [("pool", *SPACE)] if is_map else [("pool",), ("pool", *SPACE)]
        if dims not in allowed:
            raise InputError(f"{where}: pools.{name} has dims {dims}, should be {' or '.join(map(str, allowed))}")
    if "kind" not in pools.coords:
        raise InputError(f"{where}: the pools lack the coordinate 'kind'")
    for kind in pools["kind"].values:
        if kind not in KINDS:
            raise InputError(f"{where}: no pool kind {str(kind)!r}; known: {', '.join(KINDS)}")
    _check_numbers(pools, where)


def _check_numbers(pools: xr.Dataset, where: str) -> None:
    kind = pools["kind"].values
    for name in ("R2_prime", "chi", "shift", "peak_area", "exchange", "kurtosis"):
        if not np.isfinite(pools[name].values).all():
            raise InputError(f"{where}: pools.{name} holds values that are not finite")
    blank = np.full(len(kind), np.nan)
    observed, intrinsic = (np.isfinite(pools[name].values if name in pools else blank)
                           for name in ("T1_observed", "T1_intrinsic"))
    exchanging = np.asarray((pools["exchange"].values > 0).any(axis=1))
    for row, name in enumerate(pools["pool"].values):
        given = "T1_intrinsic" if exchanging[row] else "T1_observed"
        right, wrong = (intrinsic, observed) if exchanging[row] else (observed, intrinsic)
        if not right[row].all() or wrong[row].any():
            state = "exchanges" if exchanging[row] else "does not exchange"
            raise InputError(f"{where}: pool {name} {state}: it should have {given} (s) alone, in every voxel")
    for name in [name for name in ("T1_observed", "T1_intrinsic", "T2") if name in pools]:
        values = pools[name].values
        if (values <= 0).any() or (name == "T2" and not np.isfinite(values).all()):
            raise InputError(f"{where}: pools.{name} should be finite and above 0")
    for name, rows in (("D", kind != "blood"), ("D_star", kind == "blood")):
        values = pools[name].values[rows]
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InputError(f"{where}: pools.{name} should be finite and not negative in {', '.join(kind[rows])}")
    for name in ("R2_prime", "peak_area", "exchange"):
        if (pools[name].values < 0).any():
            raise InputError(f"{where}: pools.{name} holds negative values")
    if not np.allclose(pools["peak_area"].sum("peak"), 1.0, rtol=0, atol=1e-6):
        raise InputError(f"{where}: pools.peak_area should sum to 1 over the peaks of each pool")
    for plane in range(pools.sizes["z"]):  # plane by plane: no second copy of the maps stands in memory
        _check_conservation(pools["density"].values[:, plane], pools["volume_fraction"].values[:, plane],
                            np.isin(kind, PROTONS), where)


def _check_conservation(density: np.ndarray, volume: np.ndarray, protons: np.ndarray, where: str) -> None:
    rounding = 1e-12  # a few sums and products of order one, each wrong by 1e-16
    for name, values in (("density", density), ("volume_fraction", volume)):
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(f"{where}: pools.{name} holds values that are not finite")
        if low < 0:
            raise InputError(f"{where}: pools.{name} holds negative values")
    total = volume.sum(axis=0).max()
    if total > 1 + rounding:
        raise InputError(f"{where}: volume fractions of a voxel sum to {total:.13g}, at most 1")
    most = tissues.entry("water.density").high
    for row in np.flatnonzero(protons):
        if (density[row] > most * (volume[row] + rounding)).any():
            raise InputError(
                f"{where}: a pool holds more than {most:g} mol 1H per litre of its volume, denser than water"
            )
