"""Three-dimensional UTE: a short hard pulse, then one or more centre-out echoes (spokes or cones), spoiled.

TE counts from the middle of the hard pulse. The first echo is sampled while the gradient still rises; further ones,
as in dual-echo UTE, are points of the same table.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..acquisition.events.pulses import pulse
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from .parts import at_point, setting
from .sequence import Played, Pool, Sequence
from .spokes import SWITCHES, check, each_repetition, one_by_one, read_as, spoiled, spoke

EXCITATION = {"shape": "hard", "duration": 40e-6}
FIRST_POINT = "the first point"


def signal(
    pool: Pool, protocol: Protocol, *, R2_prime: bool = True, off_resonance: Any = 0.0, B1: Any = 1.0
) -> NDArray[Any]:
    """Signal of one pool, for a density of 1 mol 1H/L: spoiled gradient echoes of an instantaneous pulse.

    Parameters
    ----------
    pool : Pool
        It decays with R2* = 1/T2 + R2', and each line of its spectrum turns at its own frequency. Bound water shows;
        collagen (T2 of 15 us) does not.
    protocol : Protocol
        With echo (or TE), TR (s), flip_angle (rad).
    R2_prime, off_resonance, B1
        See `spokes.spoiled`.

    Returns
    -------
    ndarray (row, point)
        Complex.
    """
    return spoiled(pool, protocol, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def played(protocol: Protocol) -> tuple[Played, ...]:
    """One repetition for each set of echoes: hard pulse, a sample at each echo time, spoiling (`spokes.one_by_one`)."""
    runs = []
    for points in each_repetition(protocol):
        excitation = pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", points[0]))
        runs.append(one_by_one(protocol, points, (spoke(protocol, points, excitation),)))
    return tuple(runs)


def first_point(protocol: Protocol) -> Protocol:
    """The first point, where S_ref of UTE is taken."""
    return at_point(protocol, 0)


def _radial(protocol: Protocol) -> Trajectory:
    """Spokes in all directions from the centre of k-space."""
    return read_as(protocol, "radial_3d")


def _cones(protocol: Protocol) -> Trajectory:
    """Twisted readouts from the centre of k-space."""
    return read_as(protocol, "cones")


ute_3d = Sequence(
    name="ute_3d",
    signal=signal,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played,
    readout=_radial,
)

ute_cones = Sequence(
    name="ute_cones",
    signal=signal,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played,
    readout=_cones,
)
