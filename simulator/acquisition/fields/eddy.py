"""Eddy currents: the linear response of conductors to changing gradients, as a sum of exponentials.

Exact for waveforms linear between their knots (`waveforms`). A phase follows the convention exp(+i phase); k in 1/m.

A trajectory holds the gradients of its readout alone: what a prephaser or a repetition before leaves behind is asked
with the waveform of the whole timeline, `waveforms.played_gradient`, and its period.

Source: van Vaals and Bergman 1990, doi:10.1016/0022-2364(90)90366-J.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ..kspace.trajectory import Trajectory
from .waveforms import Waveform, above, gamma_of, inverted, pieces, within

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EddyCurrent:
    """One exponential of the response to a change of the gradients: lost at once, back with its time constant.

    Attributes
    ----------
    time_constant : float
        s.
    linear : float, (3,) or (3, 3)
        Share of a gradient that it takes away right after a step, along the same axis; a matrix [axis of the field,
        axis of the gradient] with cross terms.
    uniform : (3,)
        Uniform field (T) that it takes away right after a step of 1 T/m along x, y, z: in m.
    """

    time_constant: float
    linear: Any = 0.0
    uniform: Any = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        above(self.time_constant, "eddy current: time_constant", "s")
        linear, uniform = np.asarray(self.linear, dtype=float), np.asarray(self.uniform, dtype=float)
        if linear.shape not in ((), (3,), (3, 3)) or not np.isfinite(linear).all():
            raise InputError(f"eddy current: linear has shape {linear.shape}: expected a share, three, or (3, 3)")
        if uniform.shape not in ((), (3,)) or not np.isfinite(uniform).all():
            raise InputError(f"eddy current: uniform has shape {uniform.shape}: expected three lengths (m)")
        matrix = linear if linear.ndim == 2 else np.diag(np.broadcast_to(linear, 3))
        object.__setattr__(self, "linear", matrix)
        object.__setattr__(self, "uniform", np.broadcast_to(uniform, 3))


def eddy_gradient(
    waveform: Waveform, currents: Sequence[EddyCurrent], *, at: Any = None, period: float | None = None
) -> tuple[Floats, Floats]:
    """Gradient and uniform field that eddy currents add to a waveform.

    Parameters
    ----------
    waveform : (times, gradient)
        What is really played, not the effective gradient.
    currents : sequence of EddyCurrent
    at : array (time,), optional
        When (s); default the knots, right after a jump.
    period : float, optional
        The waveform is repeated with this period (s), and has been so for ever; without it there was nothing before.

    Returns
    -------
    gradient : ndarray (time, 3)
        T/m.
    field : ndarray (time,)
        T.
    """
    ((times, values, when),) = pieces(waveform, at)
    gradient, field = np.zeros((when.size, 3)), np.zeros(when.size)
    for current in currents:
        held = _held(times, values, when, current.time_constant, period)[0][0]
        gradient -= held @ current.linear.T
        field -= held @ current.uniform
    return gradient, field


def eddy_shift(
    source: Waveform | Trajectory,
    currents: Sequence[EddyCurrent],
    *,
    at: Any = None,
    period: float | None = None,
    refocused: Sequence[float] = (),
    nucleus: str | None = None,
) -> tuple[Floats, Floats]:
    """Shift in k-space and phase by eddy currents, gained since the first knot: exact.

    Parameters
    ----------
    source, currents, at, period :
        As in `eddy_gradient`; of a trajectory each readout, at its samples.
    refocused : sequence of float
        When the magnetisation's phase is inverted (s).
    nucleus : str, optional

    Returns
    -------
    k : ndarray (time, 3), or (readout, sample, 3) of a trajectory
        1/m.
    phase : ndarray (time,), or (readout, sample)
        rad.
    """
    flips = np.asarray(sorted(refocused), dtype=float)
    shifts, phases = [], []
    for times, values, when in pieces(source, at):
        shift, phase = np.zeros((len(values), when.size, 3)), np.zeros((len(values), when.size))
        for current in currents:
            _, area = _held(times, values, np.concatenate([when, flips]), current.time_constant, period)
            gained = inverted(area, when, flips)
            shift -= gained @ current.linear.T
            phase -= gained @ current.uniform
        shifts.append(shift)
        phases.append(phase)
    gamma = gamma_of(source, nucleus)
    k, angle = gamma * np.concatenate(shifts), 2 * math.pi * gamma * np.concatenate(phases)
    return (k, angle) if isinstance(source, Trajectory) else (k[0], angle[0])


def eddy(trajectory: Trajectory, currents: Sequence[EddyCurrent]) -> tuple[Trajectory, Floats]:
    """The trajectory that eddy currents of its readout make of it, and the phase (rad) of each sample.

    Returns
    -------
    trajectory : Trajectory
        With k as it is; gradients and weights stay as they are told, as a reconstruction knows them.
    phase : ndarray (readout, sample)
    """
    shift, phase = eddy_shift(trajectory, currents)
    return trajectory.replace(k=trajectory.k + shift), phase


def _held(times: Floats, gradient: Floats, at: Floats, tau: float, period: float | None) -> tuple[Floats, Floats]:
    """What a time constant still holds of the changes of the gradient, dG/dt * exp(-t/tau), and its integral.

    Knots (knot,), gradient (row, knot, 3), times (time,); gives (row, time, 3) twice.
    """
    step, change = np.diff(times), np.diff(gradient, axis=1)
    # a linear change over a time x tau leaves (1 - exp(-x))/x of it
    gain, keep = _faded(step / tau)[:, None] * change, np.exp(-step / tau)
    held = np.zeros_like(gradient)
    for n in range(step.size):
        held[:, n + 1] = held[:, n] * keep[n] + gain[:, n]
    before = np.zeros_like(gradient[:, :1])
    if period is not None:
        span = float(times[-1] - times[0])
        if not (math.isfinite(period) and period >= span * (1 - 1e-12)):
            raise InputError(f"eddy currents: period is {period!r} s: expected at least the waveform's {span:g} s")
        # what is left at the end of a period is what the next one begins with
        before = held[:, -1:] * (math.exp(-(period - span) / tau) / -math.expm1(-period / tau))
    piece, share = within(times, at)
    part, here = share * step[piece] / tau, share[:, None] * change[:, piece]
    now = held[:, piece] * np.exp(-part)[:, None] + _faded(part)[:, None] * here
    now = now * np.exp(-np.maximum(at - times[-1], 0.0) / tau)[:, None]  # nothing changes after the last knot
    since = np.maximum(at - times[0], 0.0)[:, None] / tau
    # d(held)/dt = dG/dt - held/tau, so that the integral needs no recursion of its own
    area = tau * (gradient[:, piece] + here - now - before * np.expm1(-since))
    return now + before * np.exp(-since), area


def _faded(x: Floats) -> Floats:
    """(1 - exp(-x))/x."""
    small: Floats = np.where(x > 0, x, 1.0)
    return np.where(x > 0, -np.expm1(-small) / small, 1.0)
