"""UTE with magnetisation transfer: an off-resonant Fermi pulse saturates collagen, then N spokes read the water.

TI runs from the middle of the MT pulse to the middle of its spokes; TR from MT pulse to MT pulse. `power` is the flip
angle that the MT pulse would have on resonance, `offset` its distance from water.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.events.pulses import bandwidth, pulse
from ..acquisition.events.timeline import RF
from ..acquisition.protocol import Protocol
from .parts import setting
from .preparation import followed
from .prepared_ute import prepared, readout
from .sequence import Played, Pool, Sequence
from .spokes import SWITCHES, after_preparation, check, each_repetition, spoke
from .ute import EXCITATION, FIRST_POINT, first_point

MT = {"shape": "fermi", "duration": 8e-3}

AWAY = 3.0
"""Bandwidths of the MT pulse beyond which the magnetisation follows the effective field."""


def saturation(protocol: Protocol, point: int) -> RF:
    """The MT pulse of a point."""
    power, offset = setting(protocol, "power", point), setting(protocol, "offset", point)
    return pulse("saturation", protocol, MT, power, frequency=offset, use="saturation")


def signal(
    pool: Pool, protocol: Protocol, *, R2_prime: bool = True, off_resonance: Any = 0.0, B1: Any = 1.0
) -> NDArray[Any]:
    """UTE-MT of one pool that does not exchange, for a density of 1 mol 1H/L.

    Parameters
    ----------
    pool : Pool
        A pool alone shows the direct saturation by the MT pulse only (`preparation.followed`): the transfer from
        collagen needs exchange, which the rung engine has. `T1_observed` stands for it in the recovery.
    protocol : Protocol
        With echo (or TE), TI, TR, spoke_TR (s), power, flip_angle (rad), offset (Hz), spokes_per_preparation.
    R2_prime, off_resonance, B1
        See `spokes.spoiled`.

    Returns
    -------
    ndarray (row, point)
        Complex.

    Raises
    ------
    InputError
        An offset so near to resonance that magnetisation does not follow the effective field.
    """

    def kept(
        scan: Protocol, point: int, T2: NDArray[Any], frequency: NDArray[Any], strength: NDArray[Any]
    ) -> NDArray[Any]:
        mt = saturation(scan, point)
        nearest, least = float(np.abs(frequency - mt.frequency).min()), AWAY * bandwidth(mt)
        if nearest < least:
            raise InputError(f"protocol {scan.name}: offset is {mt.frequency:g} Hz, {nearest:.0f} Hz from pool "
                             f"{pool.name}: expected at least {least:.0f} Hz, or rung engine")  # fmt: skip
        return followed(mt, T2, frequency, strength * setting(scan, "B1", point, 1.0))

    return prepared(pool, protocol, kept, R2_prime=R2_prime, off_resonance=off_resonance, B1=B1)


def played(protocol: Protocol) -> tuple[Played, ...]:
    """One period for each power and offset: MT pulse, spokes about TI, recovery (`spokes.after_preparation`)."""
    runs = []
    for points in each_repetition(protocol):
        excitation = pulse("excitation", protocol, EXCITATION, setting(protocol, "flip_angle", points[0]))
        block = spoke(protocol, points, excitation)
        runs.append(after_preparation(protocol, points, saturation(protocol, points[0]), block))
    return tuple(runs)


ute_mt = Sequence(
    name="ute_mt",
    signal=signal,
    switches=SWITCHES,
    reference=first_point,
    check=check,
    magnitude=False,
    reference_point=FIRST_POINT,
    played=played,
    pulses=("saturation", "excitation"),
    readout=readout,
)
