"""The transmit field B1+ relative to nominal, as a map for engines: its phase is that of the RF.

Ways to a map: `brightening`, a smooth bump of given mean and variation (`TRUNK` has measured ones); `birdcage`, the
exact field of an ideal quadrature volume coil in a long homogeneous cylinder, where standing waves brighten the centre
and conductivity darkens it; `bodycoil.body_coil`, the same coil around any body; `surface`, the quasi-static field of
a loop. `calibrated` scales any map as a prescan does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC
from .dielectric import LIGHT
from .loops import MU0, Conductor

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

TRUNK: Mapping[float, Mapping[str, float]] = {
    1.5: {"mean": 0.97, "variation": 0.09},
    3.0: {"mean": 0.86, "variation": 0.19},
}
"""What body coils gave over the liver, by field strength (T): ``brightening(positions, mask, **TRUNK[3.0])``.

From the 5th and 95th percentiles of segments in 314 maps, .83 to 1.11 at 1.5 T and .59 to 1.13 at 3 T, taken as those
of a normal distribution (Roberts et al. 2021, doi:10.1002/mrm.28549). They vary between people as within them, so that
one person varies less; for pelvis and spine they are unverified. The heart at 3 T had .81 +- .13 (Krishnamurthy et al.
2013, doi:10.1186/1532-429X-15-68).
"""


def brightening(
    positions: Any, mask: Any = None, *, mean: float = 1.0, variation: float = 0.1, semi_axes: Any = None
) -> Floats:
    """A Gaussian bump along the axis of the body, of prescribed mean and standard deviation over the mask.

    Parameters
    ----------
    positions : array (..., 3)
        x, y, z (m).
    mask : array (...), optional
        The body; default everywhere.
    mean, variation : float
        Mean over the mask, and standard deviation over it relative to the mean. Above 0 the centre is bright, as in
        the trunk at 3 T; below 0 it is dark.
    semi_axes : two floats, optional
        Half widths of the body along x and y (m), where the bump has fallen to exp(-1/2); default those of the mask.

    Returns
    -------
    ndarray (...)
        Relative to nominal; not below 0.

    Raises
    ------
    InputError
        A mean that is not above 0, a body without breadth, or a variation for which the field would be negative
        within the mask.
    """
    place, inside = _place(positions, mask, "brightening")
    if not (math.isfinite(mean) and mean > 0 and math.isfinite(variation)):
        raise InputError(f"brightening: mean is {mean!r} and variation {variation!r}: expected numbers, mean above 0")
    low, high = place[inside].min(axis=0)[:2], place[inside].max(axis=0)[:2]
    axes = (high - low) / 2 if semi_axes is None else np.asarray(semi_axes, dtype=float)
    if variation == 0:
        return np.full(inside.shape, float(mean))
    if axes.shape != (2,) or not axes.min() > 0:
        raise InputError(f"brightening: semi_axes are {axes.tolist()} m: expected two lengths above 0 (x, y)")
    bump = np.exp(-0.5 * (((place[..., :2] - (low + high) / 2) / axes) ** 2).sum(axis=-1))
    middle, sd = bump[inside].mean(), bump[inside].std()
    if not sd > 0:
        raise InputError("brightening: mask holds one voxel: expected a body over which the field can vary")
    field: Floats = mean * (1 + variation * (bump - middle) / sd)
    if field[inside].min() < 0:
        raise InputError(f"brightening: variation is {variation:g}: expected less, as the field falls below 0 within "
                         "the mask")  # fmt: skip
    return np.maximum(field, 0.0)


def wave_number(field_strength: float, conductivity: float, permittivity: float, nucleus: str = "1H") -> complex:
    """Complex wave number (1/m) at the Larmor frequency, for time as exp(+i 2 pi f t): the imaginary part is negative.

    Parameters
    ----------
    field_strength : float
        T.
    conductivity : float
        S/m.
    permittivity : float
        Relative to vacuum.

    Raises
    ------
    InputError
        A field that is not above 0, or a material constant below 0.
    """
    if not (math.isfinite(field_strength) and field_strength > 0):
        raise InputError(f"wave_number: field_strength is {field_strength!r}: expected above 0 T")
    for name, value in (("conductivity", conductivity), ("permittivity", permittivity)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"wave_number: {name} is {value!r}: expected from 0 up")
    omega = 2 * math.pi * GYROMAGNETIC[nucleus] * field_strength
    squared = (omega / LIGHT) ** 2 * permittivity - 1j * omega * MU0 * conductivity
    return complex(np.sqrt(squared))


def birdcage(
    positions: Any,
    field_strength: float,
    *,
    conductivity: float = 0.5,
    permittivity: float = 60.0,
    axis: tuple[float, float] = (0.0, 0.0),
    nucleus: str = "1H",
) -> Complexes:
    """B1+ of an ideal birdcage in quadrature around a long homogeneous cylinder: J0(k rho), 1 on its axis.

    The current sheet makes Az ~ J1(k rho) exp(-i phi) inside; B1+ = (Bx + i By)/2 of that is J0(k rho) without further
    approximation, whatever the radii of coil and cylinder. For a long wave it is uniform. A body that is not round or
    not long varies otherwise; at 3 T, a pelvis varies more than a cylinder of its mean radius.

    Parameters
    ----------
    positions : array (..., 3)
        x, y, z (m).
    field_strength : float
        T.
    conductivity, permittivity : float
        S/m, and relative to vacuum. The defaults are of the order of a mean of muscle (.72, 64) and fat (.07, 12) at
        128 MHz that leans to muscle.
    axis : two floats
        x, y of the cylinder's axis, which is along z (m).
    nucleus : str
        A key of `constants.GYROMAGNETIC`.

    Returns
    -------
    complex ndarray (...)

    References
    ----------
    Glover et al., J Magn Reson 64:255 (1985); Tropp, J Magn Reson 167:12 (2004); material: `dielectric`.
    """
    from scipy.special import jv

    place, _ = _place(positions, None, "birdcage")
    k = wave_number(field_strength, conductivity, permittivity, nucleus)
    rho = np.hypot(place[..., 0] - axis[0], place[..., 1] - axis[1])
    field: Complexes = jv(0, k * rho).astype(complex)
    return field


def surface(loop: Conductor, positions: Any) -> Complexes:
    """B1+ = (Bx + i By)/2 (T per A) of a loop that transmits alone, quasi-static; to be `calibrated`."""
    field = loop.field(positions)
    b1: Any = (field[..., 0] + 1j * field[..., 1]) / 2
    return b1


def calibrated(b1: Any, mask: Any = None, mean: float = 1.0) -> NDArray[Any]:
    """The map scaled so that its magnitude has this mean over the mask, as a prescan sets the transmitter.

    Raises
    ------
    InputError
        A mask without voxels, or no finite field above 0 in it.
    """
    field = np.asarray(b1)
    inside = np.isfinite(field) if mask is None else np.asarray(mask, dtype=bool)
    if inside.shape != field.shape or not inside.any():
        raise InputError(f"calibrated: mask has shape {inside.shape}: expected {field.shape}, with a voxel at least")
    found = float(np.abs(field[inside]).mean())
    if not (math.isfinite(found) and found > 0 and math.isfinite(mean) and mean > 0):
        raise InputError(f"calibrated: mean is {mean!r} and that of the map {found:g}: expected above 0")
    return field * (mean / found)


def _place(positions: Any, mask: Any, where: str) -> tuple[Floats, NDArray[np.bool_]]:
    place = np.asarray(positions, dtype=float)
    if place.ndim == 0 or place.shape[-1] != 3:
        raise InputError(f"{where}: positions have shape {place.shape}: expected (..., 3), x, y, z in m")
    inside = np.ones(place.shape[:-1], bool) if mask is None else np.asarray(mask, dtype=bool)
    if inside.shape != place.shape[:-1] or not inside.any():
        raise InputError(f"{where}: mask has shape {inside.shape}: expected {place.shape[:-1]}, with a voxel at least")
    return place, inside
