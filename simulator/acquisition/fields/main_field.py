"""The main field B0: what susceptibility does to it, and what a prescan's shim makes of that.

Shim terms are real solid harmonics under the names of the scanner's shim card, each such that its leading term
z^(n-m) rho^m cos(m phi) or sin(m phi) has the factor 1. Their strengths are in uT/m^n. Makers scale single terms
otherwise (XY often is x y, half of ours), so that a strength read from a scanner needs its maker's table.

Source: Romeo and Hoult 1984, doi:10.1002/mrm.1910010107 (field profiling by harmonics).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC
from ...engines import susceptibility
from .grid import Grid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShimTerm:
    """A shim coil: the order n of its harmonic, and the harmonic of x, y, z (m), in m^n."""

    order: int
    harmonic: Callable[[Floats, Floats, Floats], Floats]


SHIMS: Mapping[str, ShimTerm] = {
    "Z0": ShimTerm(0, lambda x, y, z: np.ones_like(x)),
    "X": ShimTerm(1, lambda x, y, z: x),
    "Y": ShimTerm(1, lambda x, y, z: y),
    "Z": ShimTerm(1, lambda x, y, z: z),
    "Z2": ShimTerm(2, lambda x, y, z: z**2 - (x**2 + y**2) / 2),
    "ZX": ShimTerm(2, lambda x, y, z: z * x),
    "ZY": ShimTerm(2, lambda x, y, z: z * y),
    "X2-Y2": ShimTerm(2, lambda x, y, z: x**2 - y**2),
    "XY": ShimTerm(2, lambda x, y, z: 2 * x * y),
    "Z3": ShimTerm(3, lambda x, y, z: z**3 - 1.5 * z * (x**2 + y**2)),
    "Z2X": ShimTerm(3, lambda x, y, z: x * (z**2 - (x**2 + y**2) / 4)),
    "Z2Y": ShimTerm(3, lambda x, y, z: y * (z**2 - (x**2 + y**2) / 4)),
    "Z(X2-Y2)": ShimTerm(3, lambda x, y, z: z * (x**2 - y**2)),
    "ZXY": ShimTerm(3, lambda x, y, z: 2 * x * y * z),
    "X3": ShimTerm(3, lambda x, y, z: x**3 - 3 * x * y**2),
    "Y3": ShimTerm(3, lambda x, y, z: 3 * x**2 * y - y**3),
}
"""Z0 is the centre frequency, order 1 the gradient coils, the rest shim coils proper."""

HIGHEST_ORDER = max(term.order for term in SHIMS.values())


def shim_field(terms: Mapping[str, float], positions: Any, nucleus: str = "1H") -> Floats:
    """Frequency offset (Hz) by shim terms.

    Parameters
    ----------
    terms : mapping of str to float
        Strengths (uT/m^n, n the order) by name of `SHIMS`.
    positions : array (..., 3)
        x, y, z (m).
    nucleus : str
        A key of `constants.GYROMAGNETIC`.

    Returns
    -------
    ndarray (...)

    Raises
    ------
    InputError
        An unknown term, or a strength that is not finite.
    """
    place = _positions(positions)
    total = np.zeros(place.shape[:-1])
    for name, strength in terms.items():
        if name not in SHIMS:
            raise InputError(f"shim term is {name!r}: expected one of {', '.join(SHIMS)}")
        if not np.isfinite(strength):
            raise InputError(f"shim term {name} is {strength!r}: expected uT/m^{SHIMS[name].order}")
        total += strength * SHIMS[name].harmonic(*np.moveaxis(place, -1, 0))
    return total * (1e-6 * _gamma(nucleus))


def shim(
    field: Any,
    positions: Any,
    mask: Any = None,
    order: int = 2,
    *,
    limits: Mapping[str, float] | None = None,
    nucleus: str = "1H",
) -> dict[str, float]:
    """The shim that a prescan would set: it leaves the least mean square of the field over a mask.

    ``field + shim_field(terms, positions)`` is the field that is left.

    Parameters
    ----------
    field : array (...)
        Frequency offset (Hz); NaN outside the mask is allowed.
    positions : array (..., 3)
        x, y, z (m).
    mask : array (...), optional
        Where to shim; weights above 0 count as such. Default wherever `field` is a number.
    order : {0, 1, 2, 3}
        Highest order of the terms; 0 is the centre frequency alone.
    limits : mapping of str to float, optional
        Largest strength (uT/m^n) that the scanner can set, by term.
    nucleus : str

    Returns
    -------
    dict of str to float
        Strengths (uT/m^n). Terms that the mask cannot tell apart (a single slice) share the work in least squares.

    Raises
    ------
    InputError
        Shapes that differ, a mask without voxels or over voxels without a field, an order or a limit that means
        nothing.
    """
    if isinstance(order, bool) or order not in range(HIGHEST_ORDER + 1):
        raise InputError(f"shim: order is {order!r}: expected 0 to {HIGHEST_ORDER}")
    values, place = np.asarray(field, dtype=float), _positions(positions)
    if values.shape != place.shape[:-1]:
        raise InputError(f"shim: field has shape {values.shape}: expected that of the positions, {place.shape[:-1]}")
    weight = np.isfinite(values).astype(float) if mask is None else np.asarray(mask, dtype=float)
    if weight.shape != values.shape or not (np.isfinite(weight).all() and weight.min() >= 0):
        raise InputError(f"shim: mask has shape {weight.shape}: expected {values.shape}, of weights from 0 up")
    inside = weight > 0
    if not inside.any():
        raise InputError("shim: mask holds no voxel: expected one at least")
    if not np.isfinite(values[inside]).all():
        raise InputError("shim: field is not finite within the mask: expected Hz in each of its voxels")
    names = [name for name, term in SHIMS.items() if term.order <= order]
    # in units of the mask's size all columns are of the same order, whatever their powers of a metre
    length = float(np.abs(place[inside]).max()) or 1.0
    columns = np.stack([SHIMS[name].harmonic(*(place[inside] / length).T) for name in names], axis=1)
    root = np.sqrt(weight[inside])
    matrix, target = columns * root[:, None], -values[inside] * root
    unit = np.array([1e-6 * _gamma(nucleus) * length ** SHIMS[name].order for name in names])
    if limits:
        from scipy.optimize import lsq_linear

        for name, value in limits.items():
            if name not in SHIMS or not value > 0:
                raise InputError(f"shim: limit of {name} is {value!r}: expected above 0, for one of {', '.join(SHIMS)}")
        most = np.array([limits.get(name, np.inf) for name in names]) * unit
        # a small problem of the same solution, however many voxels
        q, r = np.linalg.qr(matrix)
        found = lsq_linear(r, q.T @ target, (-most, most), method="bvls").x
    else:
        found = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return dict(zip(names, (found / unit).tolist(), strict=True))


def b0(
    chi: Any,
    grid: Grid,
    field_strength: float,
    *,
    direction: Sequence[float] = (0.0, 0.0, 1.0),
    outside: float | None = None,
    mask: Any = None,
    order: int | None = None,
    limits: Mapping[str, float] | None = None,
) -> Floats:
    """Frequency offset (Hz) of 1H by susceptibility, shimmed over a mask as a prescan does.

    Parameters
    ----------
    chi : array (z, y, x)
        Volume susceptibility (ppm, SI).
    grid : Grid
    field_strength : float
        T.
    direction : three floats
        Direction of B0 in the scanner (x, y, z).
    outside : float, optional
        Susceptibility (ppm) beyond the grid; default the mean of `chi`.
    mask, order, limits :
        As in `shim`, `mask` by default all voxels; without `order` nothing is shimmed.

    Returns
    -------
    ndarray (z, y, x)

    Raises
    ------
    InputError
        As `susceptibility.field` and `shim`, or `chi` is not of the grid.
    """
    if np.shape(chi) != grid.shape:
        raise InputError(f"b0: chi has shape {np.shape(chi)}: expected that of the grid, {grid.shape} (z, y, x)")
    along = grid.axes @ np.asarray(direction, dtype=float)  # in the axes of the voxels
    shift = susceptibility.field(chi, grid.edges, direction=along.tolist(), outside=outside)
    field = susceptibility.to_hertz(shift, field_strength)
    if order is not None:
        terms = shim(field, grid.positions, grid.mask(mask, "b0"), order, limits=limits)
        field = field + shim_field(terms, grid.positions)
    return field


def _positions(positions: Any) -> Floats:
    place = np.asarray(positions, dtype=float)
    if place.ndim == 0 or place.shape[-1] != 3:
        raise InputError(f"positions have shape {place.shape}: expected (..., 3), x, y, z in m")
    return place


def _gamma(nucleus: str) -> float:
    if nucleus not in GYROMAGNETIC:
        raise InputError(f"nucleus is {nucleus!r}: expected {' or '.join(GYROMAGNETIC)}")
    return GYROMAGNETIC[nucleus]

