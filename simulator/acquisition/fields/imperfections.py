"""What gradients do beside what they are told: they come late, differ in odd and even echoes, drive eddy currents and
have concomitant fields.

Delays and bipolar readouts stand here; `concomitant` and `eddy` have a file each, and are offered here with them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC
from ..kspace.trajectory import Trajectory
from .concomitant import (
    concomitant_basis,
    concomitant_coefficients,
    concomitant_factors,
    concomitant_field,
    concomitant_phase,
)
from .eddy import EddyCurrent, eddy, eddy_gradient, eddy_shift
from .waveforms import played_gradient

__all__ = [
    "EddyCurrent",
    "bipolar_phase",
    "concomitant_basis",
    "concomitant_coefficients",
    "concomitant_factors",
    "concomitant_field",
    "concomitant_phase",
    "delayed",
    "eddy",
    "eddy_gradient",
    "eddy_shift",
    "played_gradient",
]

Floats = NDArray[np.float64]


def delayed(trajectory: Trajectory, delays: Any) -> Trajectory:
    """The trajectory whose gradients come late, each axis by its own delay: k(t - delay), without approximation.

    Parameters
    ----------
    trajectory : Trajectory
        With gradients.
    delays : float or three
        Of the gradients against the receiver along x, y, z (s); below 0 for early ones. A constant gradient G shifts k
        by -gamma G delay.

    Returns
    -------
    Trajectory
        With k as it is; gradients and weights stay as they are told, as a reconstruction knows them.

    Raises
    ------
    InputError
        A delay that is not finite, or a trajectory without gradients.
    """
    late = np.asarray(delays, dtype=float)
    if late.shape not in ((), (3,)) or not np.isfinite(late).all():
        raise InputError(f"delays: {delays!r}: expected a time (s), or three along x, y, z")
    late = np.broadcast_to(late, 3)
    k = trajectory.k.copy()
    for delay in np.unique(late[late != 0]):
        moved = trajectory.positions(trajectory.times - delay)
        axes = late == delay
        k[..., axes] += (moved - trajectory.positions(trajectory.times))[..., axes]
    return trajectory.replace(k=k)


def bipolar_phase(
    echoes: int, positions: Any, gradient: Any, delays: Any = 0.0, *, constant: float = 0.0, nucleus: str = "1H"
) -> Floats:
    """Phase (rad) of each echo of a bipolar train: of opposite sign in odd and even echoes.

    Parameters
    ----------
    echoes : int
    positions : array (..., 3)
        x, y, z (m).
    gradient : three floats
        Readout gradient of the first echo along x, y, z (T/m); it alternates.
    delays : float or three
        As in `delayed`: they shift odd and even echoes apart in k-space, which is a phase linear in space.
    constant : float
        Phase (rad) of the first echo that turns its sign with the gradient, as uniform eddy currents make it.

    Returns
    -------
    ndarray (..., echo)

    References
    ----------
    Yu et al. 2010, doi:10.1002/jmri.22111.
    """
    if isinstance(echoes, bool) or echoes != int(echoes) or echoes < 1:
        raise InputError(f"bipolar: echoes is {echoes!r}: expected a whole number from 1 up")
    g, late = np.asarray(gradient, dtype=float), np.broadcast_to(np.asarray(delays, dtype=float), 3)
    if g.shape != (3,) or not (np.isfinite(g).all() and np.isfinite(late).all() and math.isfinite(constant)):
        raise InputError(f"bipolar: gradient is {gradient!r} and delays {delays!r}: expected three finite numbers each")
    # k is late by gamma G delay, and the image of data at k - s, taken as k, has the phase -2 pi s.r
    linear = -2 * math.pi * GYROMAGNETIC[nucleus] * (np.asarray(positions, dtype=float) @ (g * late))
    sign = (-1.0) ** np.arange(int(echoes))
    return np.multiply.outer(constant + linear, sign)
