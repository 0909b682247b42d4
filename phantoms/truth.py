"""What is true: the biomarkers as a pure function of the pools, and those that need a protocol too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import triglyceride
from .pools import BONE, CORTICAL, EXTRAVASCULAR_WATER, MARROW, SPACE, TRABECULAR, VISIBLE, WATER

# quantity: (unit, long name)
TRUTH = {
    "S0": ("a.u.", "1H density that an echo can see: fat and every water but bound water"),
    "f": ("1", "perfusion fraction: blood 1H over blood and tissue-water 1H, fat excluded"),
    "D": ("mm2/s", "first cumulant of extravascular water"),
    "D_star": ("mm2/s", "pseudo-diffusion coefficient, where the perfusion signal is one exponential"),
    "pdff": ("1", "proton density fat fraction, bound water excluded"),
    "bvtv": ("1", "trabecular bone volume over trabecular bone and marrow volume, cortex excluded"),
    "T1": ("s", "longitudinal relaxation time, where all visible pools share it"),
    "T2": ("s", "transverse relaxation time, where all visible pools share it"),
    "r2star": ("1/s", "1/T2 + R2', where all visible pools share it and no trabeculae add their own"),
    "r2star_water": ("1/s", "1/T2 + R2' of water, where all visible water shares it"),
    "r2star_fat": ("1/s", "1/T2 + R2' of fat, where all fat shares it"),
    "porosity": ("1", "pore volume over volume of cortical bone with its pores"),
    "bound_water": ("mol 1H/L", "water bound to collagen, per litre of voxel"),
    "pore_water": ("mol 1H/L", "water in the pores of bone, per litre of voxel"),
    "total_water": ("mol 1H/L", "bound and pore water, per litre of voxel"),
    "bound_fraction": ("1", "bound over bound and pore water 1H"),
    "T2star_bound": ("s", "T2* of bound water, where it is one exponential"),
    "T2star_pore": ("s", "T2* of pore water, where it is one exponential"),
    "T2star_pore_log_mean": ("s", "exponential of the 1H-weighted mean of log T2* of pore water"),
    "T2star_pore_log_width": ("1", "1H-weighted standard deviation of log T2* of pore water"),
    "mmf": ("1", "macromolecular fraction: collagen 1H over collagen, bound and pore water 1H"),
    "phosphorus_density": ("mol 31P/L", "31P of the mineral per litre of bone with its pores, or of a vial"),
    "mineral_density": ("mg/cm3", "mineral per volume of bone with its pores"),
    "ndb": ("1", "double bonds per triglyceride"),
    "nmidb": ("1", "methylene-interrupted double bonds per triglyceride"),
    "unsaturation_index": ("1", "olefinic over all fat 1H"),
    "f_sfa": ("1", "saturated fatty acids over all; for chains of at most two double bonds"),
    "f_mufa": ("1", "mono-unsaturated fatty acids over all"),
    "f_pufa": ("1", "poly-unsaturated fatty acids over all"),
}
# Hydroxyapatite has six phosphorus atoms in 1004.61 g (Ca10(PO4)6(OH)2): mg/cm3, which is g/L, per mol 31P/L.
APATITE = 1004.61 / 6
PROTOCOL_TRUTH = {
    "f_app": ("1", "apparent perfusion fraction at the protocol's TE and TR"),
    "adc": ("mm2/s", "mono-exponential least-squares fit of the noise-free water signal over the protocol's b"),
    "kurtosis": ("1", "kurtosis fit of the noise-free water signal over the protocol's b"),
}


def truth(pools: xr.Dataset) -> xr.Dataset:
    """Protocol-free truth of every voxel, NaN where a quantity has no meaning.

    Fractions are ratios of sums, so that they stay true when densities are averaged over a larger voxel;
    rates are never averaged.

    Parameters
    ----------
    pools : Dataset
        The pools of a phantom.

    Returns
    -------
    Dataset
        Maps (z, y, x) of every name of ``TRUTH``, each with units and long name.
    """
    values = {**_marrow(pools), **_relaxation(pools), **_bone(pools), **_chemistry(pools)}
    return _dataset({name: values[name] for name in TRUTH}, TRUTH, pools)


def _marrow(pools: xr.Dataset) -> dict[str, np.ndarray]:
    """Perfusion, diffusion, fat fraction and bone volume fraction."""
    kind, name = pools["kind"].values, pools["pool"].values.astype(str)
    density = pools["density"].values
    visible = _sum(density, np.isin(kind, VISIBLE))
    water = _sum(density, np.isin(kind, WATER))
    fat = _sum(density, kind == "fat")
    rows = np.isin(kind, EXTRAVASCULAR_WATER)
    # The first cumulant of a mixture is the mean of its members' weighted by their share of the spins.
    first_cumulant = np.zeros(density.shape[1:])
    for row in np.flatnonzero(rows):
        first_cumulant += density[row] * pools["D"].values[row]
    alone = _shared(density, pools, "D", rows)
    values = {
        "S0": np.where(visible > 0, visible, np.nan),
        "f": _ratio(_sum(density, kind == "blood"), water),
        # one diffusivity is itself, to the bit
        "D": np.where(np.isfinite(alone), alone, _ratio(first_cumulant, _sum(density, rows))),
        "D_star": _shared(density, pools, "D_star", kind == "blood"),
        "pdff": _ratio(fat, fat + water),
    }
    volume = pools["volume_fraction"].values
    marrow = _sum(volume, np.isin(name, MARROW))
    trabecular = _sum(volume, np.char.startswith(name, TRABECULAR) & np.isin(kind, BONE))
    values["bvtv"] = _ratio(trabecular, trabecular + marrow)
    return values


def _relaxation(pools: xr.Dataset) -> dict[str, np.ndarray]:
    """T1, T2 and R2*, where what is seen shares them."""
    kind, density = pools["kind"].values, pools["density"].values
    visible = np.isin(kind, VISIBLE)
    values = {}
    for quantity, variable in (("T1", "T1_observed"), ("T2", "T2")):
        values[quantity] = _shared(density, pools, variable, visible)
    # Among trabeculae R2' emerges from their structure, and depends on how it is seen: no number is true by itself.
    solid = np.isin(kind, BONE) & np.char.startswith(pools["pool"].values.astype(str), TRABECULAR)
    among = _sum(pools["volume_fraction"].values, solid) > 0
    for quantity, kinds in (("r2star", VISIBLE), ("r2star_water", WATER), ("r2star_fat", ("fat",))):
        values[quantity] = np.where(among, np.nan, _shared(density, pools, "R2star", np.isin(kind, kinds)))
    return values


def _bone(pools: xr.Dataset) -> dict[str, np.ndarray]:
    """Porosity, bound and pore water, collagen and mineral: NaN where there is no bone."""
    kind, name = pools["kind"].values, pools["pool"].values.astype(str)
    density, volume = pools["density"].values, pools["volume_fraction"].values
    pores = _sum(volume, kind == "pore_water")
    solid = np.isin(kind, BONE)
    cortical = _sum(volume, solid & np.char.startswith(name, CORTICAL))
    bound, pore = _sum(density, kind == "bound_water"), _sum(density, kind == "pore_water")
    collagen = _sum(density, kind == "macromolecule")
    moles = _sum(density, np.isin(kind, ("mineral", "phosphorus")))
    phosphorus = _ratio(moles, _sum(volume, solid | (kind == "phosphorus")) + pores)
    phosphorus = np.where(moles > 0, phosphorus, np.nan)  # tendon and agar have no mineral that could be too little
    water = bound + pore
    water = np.where(water > 0, water, _sum(density, kind == "solution"))  # a gel: its water is its solution
    tissue = np.where(_sum(density, kind != "") > 0, 1.0, np.nan)  # none is a fact, where there is something
    log_mean, log_width = _log_moments(pools, kind == "pore_water")
    return {
        "porosity": _ratio(pores, pores + cortical),
        "bound_water": bound * tissue,
        "pore_water": pore * tissue,
        "total_water": (bound + pore) * tissue,
        "bound_fraction": _ratio(bound, bound + pore),
        "T2star_bound": 1 / _shared(density, pools, "R2star", kind == "bound_water"),
        "T2star_pore": 1 / _shared(density, pools, "R2star", kind == "pore_water"),
        "T2star_pore_log_mean": log_mean,
        "T2star_pore_log_width": log_width,
        "mmf": np.where((bound + pore > 0) | (collagen * water > 0), _ratio(collagen, collagen + water), np.nan),
        "phosphorus_density": phosphorus,
        "mineral_density": phosphorus * APATITE,
    }


def _log_moments(pools: xr.Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponential of the mean, and standard deviation, of log T2* over the spins of the chosen pools."""
    density = pools["density"].values
    if not rows.any():
        return (_nothing(density.shape[1:]),) * 2
    log = -np.log(_maps(pools, "R2star", rows))
    spins = density[rows].sum(axis=0)
    mean = _ratio((density[rows] * log).sum(axis=0), spins)
    variance = _ratio((density[rows] * (log - mean) ** 2).sum(axis=0), spins)
    return np.exp(mean), np.sqrt(variance)


def _chemistry(pools: xr.Dataset) -> dict[str, np.ndarray]:
    """Composition of the fat, each pool weighted by its moles of triglyceride."""
    kind, density = pools["kind"].values, pools["density"].values
    shape = density.shape[1:]
    names = ("ndb", "nmidb", "unsaturation_index", "f_sfa", "f_mufa", "f_pufa")
    found = {row: triglyceride.composition(pools["shift"].values[row], pools["peak_area"].values[row])
             for row in np.flatnonzero(kind == "fat") if (density[row] > 0).any()}
    if not found or any(np.isnan(chain.ndb) for chain in found.values()):
        return dict.fromkeys(names, _nothing(shape))
    moles, ndb, nmidb, carbons = (np.zeros(shape) for _ in range(4))
    for row, chain in found.items():
        amount = density[row] / (6 * chain.chain_length + 2 - 2 * chain.ndb)
        moles += amount
        ndb += amount * chain.ndb
        nmidb += amount * chain.nmidb
        carbons += amount * chain.chain_length
    ndb, nmidb, length = (_ratio(part, moles) for part in (ndb, nmidb, carbons))
    return {"ndb": ndb, "nmidb": nmidb, "unsaturation_index": 2 * ndb / (6 * length + 2 - 2 * ndb),
            "f_sfa": 1 - (ndb - nmidb) / 3, "f_mufa": (ndb - 2 * nmidb) / 3, "f_pufa": nmidb / 3}


def truth_at(pools: xr.Dataset, protocol: Mapping[str, Any], kurtosis: bool = False) -> xr.Dataset:
    """Truth of the quantities that mean something only with a protocol.

    ``f_app`` is the fraction of the water echo at b = 0 that blood gives, at the protocol's TE and TR
    (Jerome 2016, doi:10.1088/1361-6560/61/24/N667). ``adc`` (and ``kurtosis``) are least-squares fits, by scipy and
    not by our own solver, of the noise-free echo of all water, blood included and fat excluded.

    Parameters
    ----------
    pools : Dataset
        The pools of a phantom.
    protocol : mapping
        ``b`` (s/mm2), ``TE`` and ``TR`` (s).
    kurtosis : bool
        Fit the kurtosis too (one fit a voxel: slow on a large phantom).

    Raises
    ------
    InputError
        The protocol lacks b, TE or TR, or changes TE or TR along b.
    """
    from ..simulator import equations

    b = np.atleast_1d(np.asarray(_held(protocol, "b"), dtype=float)).ravel()
    settings = {name: _constant(protocol, name) for name in ("TE", "TR")}
    kind = pools["kind"].values
    shape = pools["density"].shape[1:]
    echo, blood, signal = np.zeros(shape), np.zeros(shape), np.zeros((int(np.prod(shape)), b.size))
    for row in np.flatnonzero(np.isin(kind, WATER)):
        one = np.arange(len(kind)) == row
        density = pools["density"].values[row].ravel()
        T1, T2 = (_maps(pools, name, one).ravel() for name in ("T1_observed", "T2"))
        weighted = np.asarray(equations.get("spin_echo").signal({"S0": density, "T1": T1, "T2": T2}, settings))
        echo += weighted.reshape(shape)
        if kind[row] == "blood":
            blood += weighted.reshape(shape)
        D = _maps(pools, "D_star" if kind[row] == "blood" else "D", one).ravel()
        theta = {"density": density, "T1": T1, "T2": T2, "D": D, "kurtosis": _maps(pools, "kurtosis", one).ravel()}
        signal += equations.get("spin_echo_diffusion").signal(theta, {"b": b, **settings})
    seen = signal[:, 0] > 0
    values = {"f_app": _ratio(blood, echo)}
    adc = np.full(len(signal), np.nan)
    fitted_kurtosis = np.full(len(signal), np.nan)
    if seen.any() and np.unique(b).size > 1:
        adc[seen] = _mono_exponential(signal[seen], b)
        if kurtosis:
            fitted_kurtosis[seen] = _kurtosis(signal[seen], b, adc[seen])
    values["adc"] = adc.reshape(shape)
    if kurtosis:
        values["kurtosis"] = fitted_kurtosis.reshape(shape)
    return _dataset(values, PROTOCOL_TRUTH, pools)


def _mono_exponential(signal: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ADC (voxel) of the least-squares mono-exponential, the amplitude projected out."""
    from ..simulator import equations

    equation = equations.get("mono_exponential")
    names = [quantity.name for quantity in equation.unknowns]
    s = signal / signal[:, :1]

    def slope(adc: np.ndarray) -> np.ndarray:
        """Derivative of what the projection explains, up to a positive factor: it falls through zero at the fit."""
        theta = {"S0": np.ones_like(adc), "adc": adc * 1e-3}
        e = np.asarray(equation.signal(theta, {"b": b}))
        de = np.asarray(equation.jacobian(theta, {"b": b}))[..., names.index("adc")] * 1e-3

        def dot(p: np.ndarray, q: np.ndarray) -> np.ndarray:
            return np.asarray((p * q).sum(axis=1))

        return dot(s, de) * dot(e, e) - dot(s, e) * dot(e, de)

    # A weighted log-linear fit tells the scale; in units of 1e-3 mm2/s all numbers are near one.
    weight = s**2
    mean_b = (weight * b).sum(1) / weight.sum(1)
    mean_y = (weight * np.log(s)).sum(1) / weight.sum(1)
    start = -(weight * (b - mean_b[:, None]) * (np.log(s) - mean_y[:, None])).sum(1)
    start /= (weight * (b - mean_b[:, None]) ** 2).sum(1)
    low, high = 1e2 * start, 1e4 * start  # a tenth and ten times of it
    for _ in range(56):  # halved to the last bits: Newton's steps run off where fast blood bends the decay
        middle = 0.5 * (low + high)
        below = slope(middle) > 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5e-3 * (low + high)


def _kurtosis(signal: np.ndarray, b: np.ndarray, adc: np.ndarray) -> np.ndarray:
    """Kurtosis (voxel) of the least-squares fit with amplitude, diffusivity and kurtosis free."""
    from scipy.optimize import least_squares

    from ..simulator import equations

    equation = equations.get("ivim_kurtosis")
    found = np.empty(len(signal))
    for voxel, row in enumerate(signal / signal[:, :1]):

        def residual(p: np.ndarray, row: np.ndarray = row) -> np.ndarray:
            theta = {"S0": p[0], "f": 0.0, "D_star": 0.0, "D": p[1] * 1e-3, "kurtosis": p[2]}
            return np.asarray(equation.signal(theta, {"b": b}))[0] - row

        found[voxel] = least_squares(residual, [1.0, adc[voxel] * 1e3, 0.5], xtol=1e-14, ftol=1e-14, gtol=1e-14).x[2]
    return found


def _maps(pools: xr.Dataset, name: str, rows: np.ndarray) -> np.ndarray:
    """A property of the chosen pools as (pool, z, y, x), whichever way it is stored; R2star is 1/T2 + R2'."""
    if name == "R2star":
        return 1 / _maps(pools, "T2", rows) + _maps(pools, "R2_prime", rows)
    values = pools[name].values[rows]
    shape = (values.shape[0], *pools["density"].shape[1:])
    return np.broadcast_to(values[:, None, None, None] if values.ndim == 1 else values, shape)


def _nothing(shape: tuple[int, ...]) -> np.ndarray:
    """A map that is NaN everywhere, in the memory of one number."""
    return np.broadcast_to(np.nan, shape)


def _sum(maps: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.zeros(maps.shape[1:])
    for row in np.flatnonzero(rows):
        total += maps[row]
    return total


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _shared(density: np.ndarray, pools: xr.Dataset, name: str, rows: np.ndarray) -> np.ndarray:
    """The value of a property where all pools present in the voxel share it, else NaN."""
    shape = density.shape[1:]
    if not rows.any():
        return _nothing(shape)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for row in np.flatnonzero(rows):  # one pool at a time: maps of all pools together would not fit
        value = _maps(pools, name, np.arange(len(rows)) == row)[0]
        present = density[row] > 0
        np.minimum(low, value, out=low, where=present)
        np.maximum(high, value, out=high, where=present)
    with np.errstate(invalid="ignore"):  # nothing present: infinities, which the comparison refuses
        return np.where(np.isfinite(high) & (high - low <= 1e-12 * high), high, np.nan)


def _held(protocol: Mapping[str, Any], name: str) -> Any:
    if name not in protocol:
        raise InputError(f"truth_at: the protocol lacks {name}; it should hold b (s/mm2), TE and TR (s)")
    return protocol[name]


def _constant(protocol: Mapping[str, Any], name: str) -> float:
    values = np.unique(np.asarray(_held(protocol, name), dtype=float))
    if values.size != 1:
        span = f"{values[0]:g} to {values[-1]:g} s"
        raise InputError(f"truth_at: {name} changes along b ({span}); it should be one value")
    return float(values[0])


def _dataset(values: Mapping[str, np.ndarray], table: Mapping[str, Sequence[str]], pools: xr.Dataset) -> xr.Dataset:
    dataset = xr.Dataset({name: (SPACE, value) for name, value in values.items()},
                         coords={dim: pools[dim] for dim in SPACE}, attrs=dict(pools.attrs))
    for name in values:
        unit, long_name = table[name]
        dataset[name].attrs = {"units": unit, "long_name": long_name}
    return dataset
