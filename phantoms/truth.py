"""What is true: the biomarkers as a pure function of the pools, and those that need a protocol too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .pools import CORTICAL, EXTRAVASCULAR_WATER, SPACE, VISIBLE, WATER

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
}
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
        Maps (z, y, x) of ``S0 f D D_star pdff bvtv T1 T2``, each with units and long name.
    """
    kind = pools["kind"].values
    density = pools["density"].values
    volume = pools["volume_fraction"].values
    visible = density[np.isin(kind, VISIBLE)].sum(axis=0)
    water = density[np.isin(kind, WATER)].sum(axis=0)
    blood = density[kind == "blood"].sum(axis=0)
    extravascular = density[np.isin(kind, EXTRAVASCULAR_WATER)].sum(axis=0)
    fat = density[kind == "fat"].sum(axis=0)
    trabecular = volume[(kind == "bound_water") & (pools["pool"].values != CORTICAL)].sum(axis=0)
    marrow = volume[np.isin(kind, ("marrow_water", "blood", "fat"))].sum(axis=0)

    rows = np.isin(kind, EXTRAVASCULAR_WATER)
    # The first cumulant of a mixture is the mean of its members' weighted by their share of the spins.
    first_cumulant = (density[rows] * _maps(pools, "D", rows)).sum(axis=0)
    alone = _shared(density, pools, "D", rows)
    values = {
        "S0": np.where(visible > 0, visible, np.nan),
        "f": _ratio(blood, water),
        # one diffusivity is itself, to the bit
        "D": np.where(np.isfinite(alone), alone, _ratio(first_cumulant, extravascular)),
        "D_star": _shared(density, pools, "D_star", kind == "blood"),
        "pdff": _ratio(fat, fat + water),
        "bvtv": np.where(marrow > 0, _ratio(trabecular, trabecular + marrow), np.nan),
        "T1": _shared(density, pools, "T1_observed", np.isin(kind, VISIBLE)),
        "T2": _shared(density, pools, "T2", np.isin(kind, VISIBLE)),
    }
    return _dataset(values, TRUTH, pools)


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
    """A property of the chosen pools as (pool, z, y, x), whichever way it is stored."""
    values = pools[name].values[rows]
    shape = (values.shape[0], *pools["density"].shape[1:])
    return np.broadcast_to(values[:, None, None, None] if values.ndim == 1 else values, shape)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _shared(density: np.ndarray, pools: xr.Dataset, name: str, rows: np.ndarray) -> np.ndarray:
    """The value of a property where all pools present in the voxel share it, else NaN."""
    if not rows.any():
        return np.full(density.shape[1:], np.nan)
    present = density[rows] > 0
    values = _maps(pools, name, rows)
    low = np.where(present, values, np.inf).min(axis=0)
    high = np.where(present, values, -np.inf).max(axis=0)
    return np.where(present.any(axis=0) & (high - low <= 1e-12 * high), high, np.nan)


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
