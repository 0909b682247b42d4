"""Pools of spins that exchange magnetisation, as the engines with exchange take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from . import lineshapes

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

BALANCE = 1e-6
"""Part by which the flows between two pools in equilibrium may differ: single precision, but no printed table."""


@dataclass(frozen=True, eq=False)
class Pools:
    """Spins of several pools that exchange. A number stands for all pools and spins, (pool,) for all spins.

    A pool is liquid (x, y and z magnetisation, full Bloch equations) or solid (z alone, saturated at the rate
    W = pi w1^2 g of its lineshape). Liquid pools exchange all three components with each other; with a solid pool only
    z is exchanged, and the T2 of a liquid pool includes what the solid takes from it. A T1 is the pool's own, without
    exchange: an observed T1 has exchange in it already.

    Attributes
    ----------
    T1, T2 : float, (pool,) or (spin, pool)
        Relaxation times (s), above 0; infinite for none. T2 of a solid pool belongs to its lineshape and is finite.
    density : float, (pool,) or (spin, pool)
        Magnetisation in equilibrium, from 0 up.
    rates : (pool, pool_to) or (spin, pool, pool_to)
        First-order rates (1/s) from a pool to another; the diagonal is 0. In equilibrium as much flows there as back,
        density[a] rates[a, b] = density[b] rates[b, a]; `balanced` makes one rate of a pair from the other.
    offset : float, (pool,) or (spin, pool)
        Offset of the precession frequency (Hz), main field included.
    lineshape : sequence of str or None, one a pool
        "" or None for a liquid pool; "gaussian", "lorentzian" or "super_lorentzian" for a solid one. Without, all are
        liquid.
    T1D : float, (pool,) or (spin, pool), optional
        Relaxation time (s) of the dipolar order of a solid pool; 0 for a pool without.
    B1 : float, complex or (spin,)
        Transmit field relative to nominal; its phase where complex.
    position : (3,) or (spin, 3)
        Place along x, y, z (m).

    After construction every attribute is an array over spins and pools, but `lineshape` a tuple over pools.

    Raises
    ------
    InputError
        No pool, no liquid pool, shapes that do not fit, a value that is not a number or out of range, an unknown
        lineshape, rates that are not square or out of balance; the message names attribute, pool and spin.
    """

    T1: Any
    T2: Any
    density: Any
    rates: Any
    offset: Any = 0.0
    lineshape: Any = None
    T1D: Any = None
    B1: Any = 1.0
    position: Any = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        rates = _numbers("rates", self.rates)
        if rates.ndim not in (2, 3) or rates.shape[-1] != rates.shape[-2] or rates.shape[-1] == 0:
            raise InputError(f"pools: rates has shape {rates.shape}: expected square, (pool, pool_to) or (spin, pool, "
                             "pool_to), one pool at least")  # fmt: skip
        n_pool = rates.shape[-1]
        T1D = 0.0 if self.T1D is None else self.T1D
        per_pool = {"T1": self.T1, "T2": self.T2, "density": self.density, "offset": self.offset, "T1D": T1D}
        values = {name: _numbers(name, v) for name, v in per_pool.items()}
        B1 = _numbers("B1", self.B1, complex)
        place = _numbers("position", self.position)
        for name, v in values.items():
            if v.ndim > 2 or (v.ndim and v.shape[-1] != n_pool):
                raise InputError(f"pools: {name} has shape {v.shape}: expected ({n_pool},) or (spin, {n_pool}), as "
                                 f"rates has {n_pool} pools")  # fmt: skip
        if B1.ndim > 1:
            raise InputError(f"pools: B1 has shape {B1.shape}: expected a number or (spin,)")
        if place.ndim not in (1, 2) or place.shape[-1] != 3:
            raise InputError(f"pools: position has shape {place.shape}: expected (spin, 3), along x, y, z (m)")
        sizes = {name: len(v) for name, v in values.items() if v.ndim == 2}
        sizes |= {name: len(v) for name, v, plain in (("rates", rates, 2), ("B1", B1, 0), ("position", place, 1))
                  if v.ndim > plain}  # fmt: skip
        n = max(sizes.values(), default=1)
        for name, size in sizes.items():
            if size not in (1, n) or size == 0:
                raise InputError(f"pools: {name} has {size} spins: expected 1 or {max(n, 1)}")
        for name, v in values.items():
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(v, (n, n_pool))))
        object.__setattr__(self, "rates", np.ascontiguousarray(np.broadcast_to(rates, (n, n_pool, n_pool))))
        object.__setattr__(self, "B1", np.ascontiguousarray(np.broadcast_to(B1, (n,))))
        object.__setattr__(self, "position", np.ascontiguousarray(np.broadcast_to(place, (n, 3))))
        object.__setattr__(self, "lineshape", _lineshapes(self.lineshape, n_pool))
        self._check()

    def _check(self) -> None:
        for name, wrong, right in (
            ("T1", ~(self.T1 > 0), "above 0 s"),
            ("T2", ~(self.T2 > 0), "above 0 s"),
            ("T2", self.solid & ~np.isfinite(self.T2), "a finite time, as the pool has a lineshape"),
            ("density", ~((self.density >= 0) & np.isfinite(self.density)), "a number from 0 up"),
            ("offset", ~np.isfinite(self.offset), "a number (Hz)"),
            ("T1D", ~(self.T1D >= 0), "from 0 s up"),
            ("T1D", ~self.solid & (self.T1D != 0), "0, as the pool is liquid"),
        ):
            if wrong.any():
                spin, pool = np.argwhere(wrong)[0]
                value = getattr(self, name)[spin, pool]
                raise InputError(f"pools: {name} of pool {pool} of spin {spin} is {value:g}: expected {right}")
        for name, wrong in (("B1", ~np.isfinite(self.B1)), ("position", ~np.isfinite(self.position).all(axis=1))):
            if wrong.any():
                raise InputError(f"pools: {name} of spin {np.flatnonzero(wrong)[0]} is not finite: expected a number")
        for pool in np.flatnonzero(self.dipolar):
            lineshapes.local_field(self.lineshape[pool], 1.0)
            if (self.T1D[:, pool] == 0).any():
                spin = np.flatnonzero(self.T1D[:, pool] == 0)[0]
                raise InputError(f"pools: T1D of pool {pool} of spin {spin} is 0: expected above 0 s as elsewhere")
        own = np.eye(self.count, dtype=bool)
        wrong = np.where(own, self.rates != 0, ~((self.rates >= 0) & np.isfinite(self.rates)))
        if wrong.any():
            spin, a, b = np.argwhere(wrong)[0]
            right = "0, as a pool does not exchange with itself" if a == b else "a number from 0 per s up"
            raise InputError(f"pools: rate from pool {a} to pool {b} of spin {spin} is {self.rates[spin, a, b]:g}: "
                             f"expected {right}")  # fmt: skip
        flow = self.density[:, :, None] * self.rates
        back = flow.transpose(0, 2, 1)
        wrong = np.abs(flow - back) > BALANCE * np.maximum(flow, back)
        if wrong.any():
            spin, a, b = np.argwhere(wrong)[0]
            raise InputError(
                f"pools: between pools {a} and {b} of spin {spin} flows {flow[spin, a, b]:g} there and "
                f"{back[spin, a, b]:g} back in equilibrium: expected as much (density times rate; see pools.balanced)"
            )

    def __len__(self) -> int:
        return len(self.T1)

    @property
    def count(self) -> int:
        """Number of pools."""
        return int(self.T1.shape[1])

    @property
    def solid(self) -> NDArray[np.bool_]:
        """Which pools are solid, (pool,)."""
        return np.array([bool(name) for name in self.lineshape])

    @property
    def dipolar(self) -> NDArray[np.bool_]:
        """Which pools have dipolar order, (pool,)."""
        return np.asarray((self.T1D > 0).any(axis=0))

    @property
    def equilibrium(self) -> Floats:
        """Magnetisation in equilibrium, (spin, pool, 3)."""
        return np.stack([np.zeros_like(self.density), np.zeros_like(self.density), self.density], axis=2)

    def alike(self) -> tuple[Pools, NDArray[np.int64], Floats]:
        """Spins that differ by more than a factor in their densities, which of them each spin is, and its factor.

        A map of densities whose ratios are the same everywhere is one spin; values that differ by less than 1e-12 of
        themselves are the same.
        """
        total = self.density.sum(axis=1)
        factor = np.where(total > 0, total, 1.0)
        values = [self.T1, self.T2, self.density / factor[:, None], self.rates, self.offset, self.T1D, self.position]
        values += [self.B1.real, self.B1.imag]
        table = np.concatenate([v.reshape(len(self), -1) for v in values], axis=1) + 0.0  # -0 is 0
        # the last 12 of 52 bits may be rounding
        bits = (np.ascontiguousarray(table).view(np.int64) + 2**11) >> 12
        _, first, member = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        first, member = np.sort(first), np.argsort(np.argsort(first))[member.ravel()]
        few = self.at(first)
        object.__setattr__(few, "density", few.density / factor[first, None])
        return few, member, factor

    def separate(self) -> list[NDArray[np.int64]]:
        """Numbers of the pools that exchange with each other, set by set; solid pools alone go with the first set."""
        from scipy.sparse.csgraph import connected_components

        count, label = connected_components((self.rates > 0).any(axis=0), directed=False)
        sets = [np.flatnonzero(label == k) for k in range(count)]
        wet = [s for s in sets if not self.solid[s].all()]
        dry = [s for s in sets if self.solid[s].all()]
        return [np.sort(np.concatenate([wet[0], *dry])), *wet[1:]]

    def only(self, index: NDArray[np.int64]) -> Pools:
        """Some of the pools, which do not exchange with the others."""
        values = {name: getattr(self, name)[:, index] for name in ("T1", "T2", "density", "offset", "T1D")}
        shapes = tuple(self.lineshape[k] for k in index)
        return Pools(
            rates=self.rates[:, index][:, :, index], lineshape=shapes, B1=self.B1, position=self.position, **values
        )

    def at(self, index: ArrayLike | slice) -> Pools:
        """Some of the spins."""
        names = ("T1", "T2", "density", "rates", "offset", "T1D", "B1", "position")
        return Pools(lineshape=self.lineshape, **{name: getattr(self, name)[index] for name in names})


def balanced(rates: ArrayLike, density: ArrayLike) -> Floats:
    """Rates in detailed balance: those above the diagonal are kept, those below follow from the densities.

    Parameters
    ----------
    rates : (pool, pool_to) or (spin, pool, pool_to)
        1/s; what stands on and below the diagonal is not used.
    density : (pool,) or (spin, pool)
        Magnetisation in equilibrium.

    Returns
    -------
    array (pool, pool_to) or (spin, pool, pool_to)
        Rates from a pool without density to one with it, and all to a pool without density, are 0.
    """
    forward, size = np.triu(np.asarray(rates, float), 1), np.asarray(density, float)
    here, there = size[..., :, None], size[..., None, :]
    forward = np.where((here > 0) & (there > 0), forward, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        flow = np.where(forward > 0, forward * here / there, 0.0)
    return np.asarray(forward + np.swapaxes(flow, -1, -2))


def _numbers(name: str, value: Any, kind: type = float) -> NDArray[Any]:
    try:
        array = np.asarray(value)
        return array.astype(kind if kind is float or np.iscomplexobj(array) else float)
    except (TypeError, ValueError):
        raise InputError(f"pools: {name} is {value!r}: expected numbers") from None


def _lineshapes(names: Any, n_pool: int) -> tuple[str, ...]:
    if names is None:
        return ("",) * n_pool
    if isinstance(names, str) or len(names) != n_pool:
        raise InputError(f"pools: lineshape is {names!r}: expected {n_pool} names, one a pool, '' for a liquid one")
    shapes = tuple(name or "" for name in names)
    for pool, name in enumerate(shapes):
        if name:
            lineshapes.lookup(name, f"pools: lineshape of pool {pool}")
    if all(shapes):
        raise InputError("pools: no pool is liquid: expected one lineshape at least to be ''")
    return shapes
