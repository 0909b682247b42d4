"""The shift of the main field that susceptibility causes, and the dephasing of spins inside a voxel.

``field`` takes a map of chi to the relative shift of the field, ``to_hertz`` that to a frequency; ``distribution``,
``dephasing`` and ``r2_prime`` (from ``engines.dephasing``) tell what it does inside coarse voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..constants import PROTON
from . import dipole
from .dephasing import dephasing, distribution, r2_prime

__all__ = ["dephasing", "distribution", "field", "r2_prime", "to_hertz"]

_WHERE = "susceptibility.field"


def field(
    chi: Any,
    voxel_size: float | Sequence[float],
    *,
    direction: Sequence[float] = (0.0, 0.0, 1.0),
    outside: float | None = None,
    periodic: bool = False,
    precision: str = "double",
    memory: float = 8e9,
) -> np.ndarray:
    """Relative shift of the main field, (B - B0)/B0 in ppm, as nuclei feel it (Lorentz sphere subtracted).

    The field at the centre of each voxel, to first order in chi. Against the closed forms of sphere and cylinder, with
    chi averaged over each voxel, the error is below 2 % of the largest field of the surface from one and a half voxels
    beside the surface on, and falls from there; inside that shell of three voxels the surface is smeared.

    Parameters
    ----------
    chi : array (z, y, x)
        Volume susceptibility (ppm, SI).
    voxel_size : float or three
        Edge of a voxel along z, y, x (m, or any other length: the shift depends on the ratios alone).
    direction : three floats
        Direction of B0 along x, y, z; any length.
    outside : float, optional
        Susceptibility (ppm) of everything beyond the grid; default the mean of `chi`. Not with `periodic`.
    periodic : bool
        False: the grid lies alone in an endless medium. True: it is repeated without end in all directions, and its
        mean shift is 0.
    precision : {"double", "single"}
        Single takes half the memory, and errs by less than 1e-5 of the largest shift.
    memory : float
        Most memory (bytes) that may be taken.

    Returns
    -------
    array (z, y, x)
        ppm, relative to the field in the medium outside; float64, or float32 in single precision.

    Raises
    ------
    InputError
        `chi` is no finite real 3-D array, or a voxel size, the direction, `outside` or `precision` means nothing, or
        the work would take more than `memory`.

    References
    ----------
    Salomir et al. 2003, doi:10.1002/cmr.b.10083; Marques and Bowtell 2005, doi:10.1002/cmr.b.20034; cuboids: Newell et
    al. 1993, doi:10.1029/93JB00694.
    """
    if precision not in ("double", "single"):
        raise InputError(f"{_WHERE}: precision is {precision!r}, should be 'double' or 'single'")
    dtype = np.dtype(np.float64 if precision == "double" else np.float32)
    chi = np.asarray(chi)
    if chi.ndim != 3 or 0 in chi.shape or chi.dtype.kind not in "iufb":
        raise InputError(f"{_WHERE}: chi is {chi.dtype} of shape {chi.shape}, should be real numbers (z, y, x)")
    size = _three("voxel_size", [voxel_size] * 3 if np.ndim(voxel_size) == 0 else voxel_size, "z, y, x")
    if min(size) <= 0:
        raise InputError(f"{_WHERE}: voxel_size is {voxel_size!r}, should be above 0 along z, y and x")
    b0 = _three("direction", direction, "x, y, z")
    length = math.hypot(*b0)
    if length == 0:
        raise InputError(f"{_WHERE}: direction is {direction!r}, should be a vector (x, y, z) with a length")
    b0 = [part / length for part in b0]
    if periodic and outside is not None:
        raise InputError(f"{_WHERE}: outside is {outside!r}, but a periodic grid has no outside; should be left away")
    if outside is not None and not _finite(outside):
        raise InputError(f"{_WHERE}: outside is {outside!r}, should be a susceptibility in ppm")
    needed = dipole.bytes_needed(chi.shape, b0, periodic, dtype)
    if needed > memory:
        raise InputError(f"{_WHERE}: a grid of {chi.shape} takes {needed / 1e9:.3g} GB, more than memory = "
                         f"{memory / 1e9:.3g} GB; should be smaller, or in single precision")
    if not np.isfinite(chi).all():
        bad = tuple(np.argwhere(~np.isfinite(chi))[0].tolist())
        raise InputError(f"{_WHERE}: chi is {chi[bad]} at (z, y, x) = {bad}, should be finite everywhere")
    level = float(chi.mean(dtype=float)) if outside is None else float(outside)
    source = np.subtract(chi, level, dtype=float).astype(dtype, copy=False)
    padded = dipole.lengths(chi.shape, periodic)
    kernel = (dipole.periodic_kernel if periodic else dipole.free_kernel)(padded, size, b0, dtype)
    return dipole.convolve(source, kernel, padded)


def to_hertz(shift: Any, field_strength: float) -> np.ndarray:
    """Frequency offset (Hz) of 1H for a relative shift of the field (ppm) at `field_strength` (T).

    Raises
    ------
    InputError
        The field strength is not a positive number.
    """
    if not _finite(field_strength) or float(field_strength) <= 0:
        raise InputError(f"susceptibility.to_hertz: field_strength is {field_strength!r}, should be above 0 T")
    return np.asarray(shift) * (1e-6 * PROTON * float(field_strength))


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _three(name: str, value: Any, axes: str) -> list[float]:
    if np.ndim(value) != 1 or len(value) != 3 or not all(_finite(part) for part in value):
        raise InputError(f"{_WHERE}: {name} is {value!r}, should be three finite numbers ({axes})")
    return [float(part) for part in value]
