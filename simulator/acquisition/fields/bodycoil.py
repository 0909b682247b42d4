"""B1+ of an ideal body coil in quadrature, in a body of any cross-section and material: waves in two dimensions.

Coil and body are taken as long along z, so that each slice stands for itself: Ez obeys (Laplace + k(r)^2) Ez = 0 in the
field of the empty coil, Ez ~ J1(k0 rho) exp(-i phi). The volume integral over the pixels, each a disc of its area with
one Ez in it, is solved by fast convolution; B1+ = (Bx + i By)/2 is the curl of it, with the kernel's own slope. What
the body changes in the coil's currents, the shield, and the ends are left out.

Source: Richmond 1965, doi:10.1109/TAP.1965.1138427 (dielectric cylinders of any cross-section).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC
from .dielectric import LIGHT
from .grid import Grid
from .loops import MU0

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

PRECISION = 1e-6
"""Of Ez, relative to that of the empty coil; pixels of 5 mm leave errors of 1 to 2 % of B1+ at 3 T."""


def body_coil(
    conductivity: Any, permittivity: Any, grid: Grid, field_strength: float, *, nucleus: str = "1H"
) -> Complexes:
    """B1+ over a grid, 1 everywhere without a body: to be `transmit.calibrated` over the part that is scanned.

    Parameters
    ----------
    conductivity, permittivity : array (z, y, x)
        S/m, and relative to vacuum; air has 0 and 1. From `dielectric`, for example.
    grid : Grid
        Voxels along the scanner's axes and as wide as they are deep (z is free), no larger than a tenth of the
        shortest wave. It holds the whole cross-section of the body; the coil's axis is x = y = 0.
    field_strength : float
        T.
    nucleus : str
        A key of `constants.GYROMAGNETIC`.

    Returns
    -------
    complex ndarray (z, y, x)

    Raises
    ------
    InputError
        Maps of another shape, values that mean nothing, oblique or too coarse voxels.
    """
    if not (math.isfinite(field_strength) and field_strength > 0):
        raise InputError(f"body_coil: field_strength is {field_strength!r}: expected above 0 T")
    maps = {}
    for name, given, least in (("conductivity", conductivity, 0.0), ("permittivity", permittivity, 1.0)):
        values = np.asarray(given, dtype=float)
        if values.shape != grid.shape:
            raise InputError(f"body_coil: {name} has shape {values.shape}: expected {grid.shape} (z, y, x)")
        if not (np.isfinite(values).all() and values.min() >= least):
            raise InputError(f"body_coil: {name} is below {least:g} or not finite somewhere: expected {least:g}, air, "
                             "and more")  # fmt: skip
        maps[name] = values
    _, dy, dx = grid.edges
    if not np.allclose(np.abs(grid.axes), np.eye(3), atol=1e-6) or not math.isclose(dy, dx, rel_tol=1e-6):
        raise InputError(f"body_coil: voxels are {dx:g} by {dy:g} m, or oblique: expected squares along the scanner's "
                         "x and y")  # fmt: skip
    omega = 2 * math.pi * GYROMAGNETIC[nucleus] * field_strength
    k0 = omega / LIGHT
    contrast = k0**2 * (maps["permittivity"] - 1) - 1j * omega * MU0 * maps["conductivity"]
    shortest = 2 * math.pi / float(np.abs(np.sqrt(k0**2 + contrast)).max())
    if dx > shortest / 10:
        raise InputError(f"body_coil: voxels are {dx:g} m: expected at most {shortest / 10:.2g}, a tenth of the wave")
    kernels = _kernels(grid, k0)
    found = np.empty(grid.shape, complex)
    for z in range(grid.shape[0]):
        same = next((n for n in range(z) if np.array_equal(contrast[n], contrast[z])), None)
        found[z] = found[same] if same is not None else _slice(contrast[z], grid.positions[z], k0, kernels)
    return found


def _slice(contrast: Complexes, positions: Floats, k0: float, kernels: tuple[Complexes, Complexes]) -> Complexes:
    """B1+ (y, x) in a slice of this k^2 - k0^2."""
    from scipy.sparse.linalg import LinearOperator, gmres
    from scipy.special import jv

    x, y = positions[..., 0], positions[..., 1]
    rho = np.hypot(x, y)
    empty = jv(1, k0 * rho) * np.exp(-1j * np.arctan2(y, x))
    inside = contrast != 0
    if not inside.any():
        return jv(0, k0 * rho).astype(complex)

    def scattered(inner: Complexes, kernel: Complexes) -> Complexes:
        source = np.zeros(contrast.shape, complex)
        source[inside] = contrast[inside] * inner
        return _convolved(source, kernel)

    def remaining(inner: Complexes) -> Complexes:
        return np.ravel(inner) - scattered(np.ravel(inner), kernels[0])[inside]

    count = int(inside.sum())
    equation = LinearOperator((count, count), remaining, dtype=complex)
    inner, failed = gmres(equation, empty[inside], rtol=PRECISION, restart=100, maxiter=20)
    if failed:
        raise InputError("body_coil: the field in the body was not found: expected a body of tissue, on finer voxels")
    field: Complexes = jv(0, k0 * rho) + scattered(inner, kernels[1]) / k0
    return field


def _kernels(grid: Grid, k0: float) -> tuple[Complexes, Complexes]:
    """Transforms of Ez, and of (d/dx + i d/dy) Ez, that a pixel of unit contrast and field sends to all others."""
    from scipy.fft import fft2, next_fast_len
    from scipy.special import hankel2, jv

    sizes = [next_fast_len(2 * n) for n in grid.shape[1:]]
    # along the scanner's axes, whichever way the voxels run
    steps = [np.fft.fftfreq(n, 1 / n) * edge * float(np.diag(grid.axes)[axis])
             for n, edge, axis in zip(sizes, grid.edges[1:], (1, 0), strict=True)]  # fmt: skip
    y, x = np.meshgrid(*steps, indexing="ij")
    r = np.hypot(x, y)
    disc = grid.edges[2] / math.sqrt(math.pi)
    apart = np.where(r > 0, r, 1.0)
    share = 2 * math.pi * disc / k0 * jv(1, k0 * disc)
    sent = -0.25j * share * hankel2(0, k0 * apart)
    sent[r == 0] = -0.25j * (2 * math.pi * disc / k0 * hankel2(1, k0 * disc) - 4j / k0**2)
    slope = np.where(r > 0, 0.25j * k0 * share * hankel2(1, k0 * apart) * (x + 1j * y) / apart, 0.0)
    return fft2(sent), fft2(slope)


def _convolved(source: Complexes, kernel: Complexes) -> Complexes:
    from scipy.fft import fft2, ifft2

    y, x = source.shape
    whole: Complexes = ifft2(fft2(source, s=kernel.shape) * kernel)
    return whole[:y, :x]
