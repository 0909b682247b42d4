"""Isochromats: groups of spins that see one field, with what an engine needs to know of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Isochromats:
    """Spins for an engine, an entry each; a number stands for all of them.

    Attributes
    ----------
    T1, T2 : float or ndarray (spin,)
        Relaxation times (s), above 0; infinite for none.
    offset : float or ndarray (spin,)
        Offset of the precession frequency (Hz).
    B1 : float, complex or ndarray (spin,)
        Transmit field relative to nominal; its phase where complex.
    position : ndarray (spin, 3) or (3,)
        Place along x, y, z (m).
    density : float or ndarray (spin,)
        Magnetisation in equilibrium.

    After construction every attribute is an array over the spins.

    Raises
    ------
    InputError
        No spin at all, lengths that differ, a value that is not a number, T1 or T2 not above 0; the message
        names the attribute and the spin.
    """

    T1: Any
    T2: Any
    offset: Any = 0.0
    B1: Any = 1.0
    position: Any = (0.0, 0.0, 0.0)
    density: Any = 1.0

    def __post_init__(self) -> None:
        values = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        place = values.pop("position")
        if place.ndim not in (1, 2) or place.shape[-1] != 3:
            raise InputError(f"isochromats: position has shape {place.shape}: expected (spin, 3), along x, y, z (m)")
        sizes = {name: v.size for name, v in values.items() if v.ndim}
        if place.ndim == 2:
            sizes["position"] = len(place)
        n = max(sizes.values(), default=1)
        if 0 in sizes.values():
            empty = next(name for name, size in sizes.items() if size == 0)
            raise InputError(f"isochromats: {empty} is empty: expected one spin at least")
        for name, size in sizes.items():
            if size not in (1, n) or values.get(name, np.empty(1)).ndim > 1:
                raise InputError(f"isochromats: {name} has {size} values: expected 1 or {n}, one a spin")
        for name, v in values.items():
            kind = complex if name == "B1" and np.iscomplexobj(v) else float
            object.__setattr__(self, name, _each(name, v, n, kind))
        object.__setattr__(self, "position", np.ascontiguousarray(np.broadcast_to(place, (n, 3)), dtype=float))
        if not np.isfinite(self.position).all():
            k = _first(~np.isfinite(self.position).all(axis=1))
            raise InputError(f"isochromats: position of spin {k} is not finite: expected x, y, z (m)")
        for name in ("T1", "T2"):
            wrong = ~(getattr(self, name) > 0)
            if wrong.any():
                k = _first(wrong)
                raise InputError(f"isochromats: {name} of spin {k} is {getattr(self, name)[k]:g} s: expected above 0")
        for name in ("offset", "B1", "density"):
            wrong = ~np.isfinite(getattr(self, name))
            if wrong.any():
                raise InputError(f"isochromats: {name} of spin {_first(wrong)} is not finite: expected a number")

    def __len__(self) -> int:
        return len(self.T1)

    def at(self, index: ArrayLike | slice) -> Isochromats:
        """Some of them."""
        return Isochromats(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def equilibrium(self) -> Floats:
        """Magnetisation in equilibrium, (spin, 3)."""
        return np.stack([np.zeros(len(self)), np.zeros(len(self)), self.density], axis=1)


def _each(name: str, value: NDArray[Any], n: int, kind: type) -> NDArray[Any]:
    try:
        return np.ascontiguousarray(np.broadcast_to(value, (n,)), dtype=kind)
    except (TypeError, ValueError):
        message = f"isochromats: {name} is {value.dtype} of shape {value.shape}: expected numbers (spin,)"
        raise InputError(message) from None


def _first(wrong: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(wrong)[0])
