"""Zero echo time: the readout gradient is on already when a short hard pulse excites, for 1H or 31P.

TE counts from the middle of the pulse, where k is 0. Sampling begins after half the pulse and the dead time of the
switch from transmitting to receiving: what of k-space lies before, the gap, is not read. As the gradient is on, the
pulse excites a place off the centre off resonance: far out it excites less (`excited`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..acquisition.events.pulses import profile, pulse
from ..acquisition.events.timeline import RF, Gradient
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from ..constants import GYROMAGNETIC
from .parts import setting
from .sequence import Played, Pool, Sequence
from .spokes import SWITCHES, check, each_repetition, one_by_one, read_as, spoiled, spoke
from .ute import FIRST_POINT, first_point

EXCITATION = {"shape": "hard", "duration": 8e-6}

DEAD_TIME = 10e-6
"""From the end of the pulse to the first dwell (s), where the readout states no `gap`."""


def signal(
    pool: Pool,
    protocol: Protocol,
    *,
    nucleus: str = "1H",
    R2_prime: bool = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
) -> NDArray[Any]:
    """Signal of one pool, for a density of 1 mol/L of the nucleus: spoiled gradient echoes of an instantaneous pulse.

    Parameters and return as `ute.signal`; of 31P, mineral and phosphorus solutions show, and nothing else. TE is the
    time at which the signal of the voxel counts, the first sample's: T2* during the readout blurs, which is for rung
    scan.
    """
    return spoiled(pool, protocol, nucleus=nucleus, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def excitation(protocol: Protocol, point: int = 0) -> RF:
    """The hard pulse of a point."""
    return pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", point))


def excited(protocol: Protocol, place: ArrayLike, gradient: float, nucleus: str = "1H") -> NDArray[np.float64]:
    """What the pulse excites at places (m) along the readout gradient (T/m), relative to the centre; small angles."""
    offset = GYROMAGNETIC[nucleus] * gradient * np.asarray(place, float)
    shape = np.abs(profile(excitation(protocol), offset)) / np.abs(profile(excitation(protocol), 0.0))
    return np.asarray(shape, float)


def played(protocol: Protocol, nucleus: str = "1H") -> tuple[Played, ...]:
    """One repetition for each set of echoes: hard pulse, a sample at each echo time, spoiling.

    Where the readout states its field of view and its dwell, the gradient of a spoke along x is on from the beginning
    to the last sample; the spins of a voxel at the centre do not feel it.
    """
    runs = []
    for points in each_repetition(protocol):
        block = spoke(protocol, points, excitation(protocol, points[0]))
        gradients: tuple[Gradient, ...] = ()
        if "fov" in protocol.readout and "dwell" in protocol.readout:
            top = readout(protocol, nucleus).peak_gradient
            gradients = (Gradient("x", np.array([0.0, block.duration]), np.array([top, top])),)
        block = spoke(protocol, points, excitation(protocol, points[0]), *gradients)
        runs.append(one_by_one(protocol, points, (block,), nucleus=nucleus))
    return tuple(runs)


def readout(protocol: Protocol, nucleus: str = "1H") -> Trajectory:
    """Spokes from the centre of k-space on a gradient that is on throughout; the gap at the centre is not read."""
    gap = excitation(protocol).duration / 2 + DEAD_TIME
    return read_as(protocol, "radial_3d", ramp=0.0, gap=gap, nucleus=nucleus)


zte = Sequence(
    name="zte",
    signal=signal,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played,
    readout=readout,
)

zte_31p = Sequence(
    name="zte_31p",
    signal=partial(signal, nucleus="31P"),
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=partial(played, nucleus="31P"),
    readout=partial(readout, nucleus="31P"),
)
