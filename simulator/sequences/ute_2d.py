"""Two-dimensional UTE: a slice excited by two half pulses, with opposite slice gradients, whose signals add.

A half pulse ends where the whole one has its middle, so that no slice rephasing is needed and the readout can begin at
once; TE counts from its end. Alone it excites a slice with broad imaginary tails, which change sign with the gradient.
The pulse is stretched while the gradient falls (VERSE), so that both are gone together. TR is from half to half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquisition.events.pulses import bandwidth, pulse
from ..acquisition.events.timeline import RF, Gradient
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from ..constants import PROTON
from .parts import setting
from .sequence import Played, Pool, Sequence
from .spokes import SWITCHES, check, each_repetition, one_by_one, read_as, spoiled, spoke
from .ute import FIRST_POINT, first_point

EXCITATION = {"shape": "half_sinc", "duration": 600e-6}

SLEW = 150.0
"""By which the slice gradient rises and falls (T/m/s)."""

REACH, SPINS = 16, 512
"""Thicknesses of the slice over which its tails are followed, and spins over them."""


def signal(
    pool: Pool, protocol: Protocol, *, R2_prime: bool = True, off_resonance: Any = 0.0, B1: Any = 1.0
) -> NDArray[Any]:
    """Signal of one pool, for a density of 1 mol 1H/L: spoiled gradient echoes of an instantaneous, perfect slice.

    Parameters and return as `ute.signal`. What the half pulses' tails and T2 during the pulse add, rung engine shows.
    """
    return spoiled(pool, protocol, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def half_pulse(protocol: Protocol, point: int = 0) -> tuple[RF, Gradient]:
    """The half pulse of a point and its slice gradient along z, falling to 0 together.

    Raises
    ------
    InputError
        No `slice_thickness`, or a pulse that is not longer than the fall of its gradient.
    """
    plain = pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", point))
    whole = RF(np.concatenate([plain.waveform, plain.waveform[::-1]]), plain.dwell)
    top = bandwidth(whole) / (PROTON * setting(protocol, "slice_thickness", point))
    ramp = top / SLEW
    steps = max(round((plain.duration + ramp / 2) / plain.dwell), 1)
    edges = np.linspace(0, plain.duration + ramp / 2, steps + 1)
    flat = max(plain.duration - ramp / 2, 0.0)
    # time as the slice gradient counts it: what is excited depends on the pulse over this time alone
    behind = np.maximum(edges - flat, 0.0)
    counted = np.minimum(edges, flat) + behind - behind**2 / (2 * ramp)
    done = np.concatenate([[0], np.cumsum(plain.waveform)]) * plain.dwell
    known = np.arange(done.size) * plain.dwell
    area = np.interp(counted, known, done.real) + 1j * np.interp(counted, known, done.imag)
    dwell = float(edges[1])
    stretched = RF((np.diff(area) / dwell).astype(np.complex128), dwell, ramp, plain.phase, center=float(edges[-1]))
    gradient = Gradient("z", ramp + np.array([-ramp, 0.0, flat, edges[-1]]), np.array([0.0, top, top, 0.0]))
    return stretched, gradient


def played(protocol: Protocol) -> tuple[Played, ...]:
    """Two repetitions for each set of echoes, one for each sense of the slice gradient; a point is the mean of both.

    Spins lie evenly over `REACH` thicknesses of the slice.
    """
    runs = []
    for points in each_repetition(protocol):
        excitation, up = half_pulse(protocol, points[0])
        down = Gradient("z", up.times, -up.values)
        halves = tuple(spoke(protocol, points, excitation, gradient) for gradient in (up, down))
        spread = REACH * setting(protocol, "slice_thickness", points[0])
        runs.append(one_by_one(protocol, points, halves, spread, SPINS, float(REACH)))
    return tuple(runs)


def readout(protocol: Protocol) -> Trajectory:
    """Spokes from the centre of k-space in the plane of the slice; each is read twice, once for each half pulse."""
    return read_as(protocol, "radial_2d")


ute_2d = Sequence(
    name="ute_2d",
    signal=signal,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played,
    readout=readout,
)
