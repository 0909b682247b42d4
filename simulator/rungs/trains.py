"""Echo trains: what the gradients of earlier echoes leave in later ones.

Between two echoes of a Cartesian train the way back to the start of a line is played as gently as there is time for: an
even gradient. A scanner's is stronger, and its concomitant fields are larger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.fields.concomitant import concomitant_basis, concomitant_coefficients
from ..acquisition.kspace.trajectory import Trajectory

Floats = NDArray[np.float64]

STILL = 1e-6
"""Part of the largest k below which a line begins where the one before has ended."""


def gradients(ways: Sequence[Trajectory], echo_times: Sequence[float]) -> tuple[Floats, Floats]:
    """The readout gradients of a train and what brings them together, as a waveform: knots (s) and (knot, 3) in T/m.

    Parameters
    ----------
    ways : sequence of Trajectory
        How each echo is read, in their order; every line of it has the same gradients.
    echo_times : sequence of float
        Of each (s).

    Raises
    ------
    InputError
        No time is left between two echoes for the way back.
    """
    times: list[Floats] = []
    values: list[Floats] = []
    end, after = np.zeros(3), -np.inf
    for way, echo_time in zip(ways, echo_times, strict=True):
        assert way.knots is not None and way.gradients is not None and way.start is not None
        start = way.start[0]
        way_back = start - end
        if times and np.abs(way_back).max() > STILL * way.k_max:
            left = echo_time + way.knots[0] - after
            if not left > 0:
                raise InputError(f"readout: the echoes at {echo_time:g} s and before leave no time to go back to the "
                                 "start of a line: expected a shorter one, or bipolar echoes")  # fmt: skip
            times.append(np.array([after, after + left]))
            values.append(np.tile(way_back / (way.gamma * left), (2, 1)))
        times.append(echo_time + way.knots)
        values.append(way.gradients[0])
        end, after = way.positions(way.knots)[0, -1], echo_time + way.knots[-1]
    return np.concatenate(times), np.concatenate(values)


def concomitant_phase_before(
    ways: Sequence[Trajectory], echo_times: Sequence[float], positions: Floats, field_strength: float
) -> Floats | None:
    """Phase (rad) that concomitant fields have left when each readout of a train begins, (echo, z, y, x).

    It is counted from the start of the first one: what prephases that is the same for all echoes. None where lines
    differ in their gradients (spokes), or there is one echo.

    Parameters
    ----------
    ways, echo_times
        As `gradients` takes them.
    positions : ndarray (z, y, x, 3)
        x, y, z (m).
    field_strength : float
        T.

    References
    ----------
    Colgan et al., Magn Reson Med 78:730 (2017), doi:10.1002/mrm.26461.
    """
    if len(ways) < 2 or any(way.kind != "cartesian" or way.knots is None for way in ways):
        return None
    starts = [time + float(way.knots[0]) for way, time in zip(ways, echo_times, strict=True) if way.knots is not None]
    found = concomitant_coefficients(gradients(ways, echo_times), field_strength, at=starts, nucleus=ways[0].nucleus)
    return np.moveaxis(concomitant_basis(positions) @ found.T, -1, 0)
