"""The image of a point by spokes from the centre, with what decay and offset during the readout make of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .readout import Trajectory

NODES = 8
"""Of the Gauss-Legendre rule in each dwell: k runs through half a cycle of any visible place at most."""


def radial(
    trajectory: Trajectory, distance: Any, *, R2star: float = 0.0, offset: float = 0.0
) -> NDArray[np.complex128]:
    """Point-spread function of densely many spokes: the integral over the sampled ball (disc) of k-space.

    Parameters
    ----------
    trajectory : Trajectory
        ``radial_2d`` or ``radial_3d`` from the centre out, with voxels of one edge.
    distance : float or ndarray
        From the point (m).
    R2star : float
        Decay from TE, the start of the readout (1/s).
    offset : float
        Hz.

    Returns
    -------
    ndarray of the shape of `distance`
        1/m3 (1/m2 in two dimensions).

    Raises
    ------
    InputError
        Another trajectory.

    References
    ----------
    Rahmer et al., Magn Reson Med 55:1075 (2006), doi:10.1002/mrm.20868.
    """
    edges, k = _pieces(trajectory)
    node, weight = np.polynomial.legendre.leggauss(NODES)
    from scipy.special import j0

    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    times = (middle[:, None] + half[:, None] * node).ravel()
    width = (half[:, None] * weight).ravel()
    radius, speed = k(times)
    far = np.asarray(distance, float)
    turns = 2 * radius * far[..., None]
    if trajectory.dimensions == 3:
        shells, kernel = 4 * math.pi * radius**2, np.sinc(turns)
    else:
        shells, kernel = 2 * math.pi * radius, j0(math.pi * turns)
    signal = np.exp((2j * math.pi * offset - R2star) * times)
    out: NDArray[np.complex128] = kernel @ (width * speed * shells * signal)
    return out


def fwhm(trajectory: Trajectory, *, R2star: float = 0.0, offset: float = 0.0) -> float:
    """Full width at half maximum (m) of the magnitude of `radial`, at the first place where it has fallen to half.

    Raises
    ------
    InputError
        As `radial`.
    """
    from scipy.optimize import brentq

    peak = abs(radial(trajectory, 0.0, R2star=R2star, offset=offset))

    def above(distance: float) -> float:
        return float(abs(radial(trajectory, distance, R2star=R2star, offset=offset)) - 0.5 * peak)

    voxel = trajectory.voxel_size[2]
    step = 0.1 * voxel
    far = step
    while above(far) > 0:
        far += step
    return 2 * float(brentq(above, far - step, far, xtol=1e-9 * voxel))


def _pieces(trajectory: Trajectory) -> tuple[NDArray[np.float64], Any]:
    """Ends of the dwells, cut where the gradient stops to rise, and the function from times to k and its speed."""
    sides = trajectory.voxel_size[3 - trajectory.dimensions :]
    from_centre = trajectory.knots is not None and trajectory.knots.ndim == 1 and trajectory.knots[0] == 0
    if trajectory.kind not in ("radial_2d", "radial_3d") or not from_centre or np.ptp(sides) > 1e-9 * sides[0]:
        raise InputError(
            f"psf: trajectory {trajectory.kind}: expected radial_2d or radial_3d from the centre out, with cubic voxels"
        )
    knots, gradients = trajectory.waveform(0)
    first = float(trajectory.times[0]) - 0.5 * trajectory.dwell
    ends = first + np.arange(trajectory.samples + 1) * trajectory.dwell
    cuts = np.unique(np.concatenate([ends, knots[(knots > ends[0]) & (knots < ends[-1])]]))
    height = np.sqrt((gradients**2).sum(axis=1))

    def k(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        place = trajectory.replace(gradients=gradients[None], start=np.zeros((1, 3)), k=None, weights=None, times=times)
        return np.sqrt((place.k[0] ** 2).sum(axis=1)), trajectory.gamma * np.interp(times, knots, height)

    return cuts, k
