"""A timeline as the Bloch engine runs it: blocks become programs, flat lists of instructions; repeats stay repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..acquisition.events.timeline import Block, Repeat, Steps, steps
from .isochromats import Isochromats

FREE, PULSE, PULSE_B1, CORRECTED, VARYING, EXACT, SPOIL, SAMPLE, ROTATE = range(9)
"""Kinds of instruction, as `isochromat_steps.py` has them."""

Floats = NDArray[np.float64]

_LARGEST = 0.125  # rad: largest turn of one step; what the series of sine and tangent leave is below 1e-9 there
_PLAIN = 0.04  # rad: the same for the shorter series of plain steps
_FARTHEST = 0.5  # rad: largest precession in one step where the gradient varies
_FASTEST = 0.05  # most relaxation in one step, for the series in it


@dataclass(frozen=True, eq=False)
class Program:
    """Blocks played one after the other, as instructions.

    Attributes
    ----------
    code : int ndarray (instruction, 4)
        Kind, first step of RF, the one after its last, number of the sample taken.
    value : ndarray (instruction, 7)
        Duration (s; of one step of RF), carrier (Hz), gradient (Hz/m, three), angle before and after (rad).
    rf : ndarray (step, 9)
        As `isochromat_steps.play` takes them.
    samples : int
    """

    code: NDArray[np.int64]
    value: Floats
    rf: Floats
    samples: int


@dataclass(frozen=True, eq=False)
class Loop:
    """A repeated body and the phase (rad) of each repetition."""

    body: tuple[Program | Loop, ...]
    phases: Floats
    samples: int


@dataclass(frozen=True, eq=False)
class Stepping:
    """How RF is cut into steps: for all spins alike, so that a spin's signal is a smooth function of what it is.

    Attributes
    ----------
    max_step : float
        Longest step (s).
    tolerance : float
        Plain steps are taken where their error over a run of RF is below this; corrected ones elsewhere.
    exact : bool
        Exponentials of each sample instead.
    B1 : float
        Largest |B1|.
    shared : bool
        Whether all spins have one B1, real and positive.
    relaxation : float
        Largest difference of 1/T2 and 1/T1 (1/s).
    spins : Isochromats
    """

    max_step: float
    tolerance: float
    exact: bool
    B1: float
    shared: bool
    relaxation: float
    spins: Isochromats

    @classmethod
    def of(cls, spins: Isochromats, max_step: float, tolerance: float, exact: bool) -> Stepping:
        """What the steps must know of these spins."""
        size = np.abs(spins.B1)
        relaxation = float(np.abs(1 / spins.T2 - 1 / spins.T1).max())
        shared = bool((spins.B1 == size[0]).all())
        return cls(max_step, tolerance, exact, float(size.max()), shared, relaxation, spins)

    @cached_property
    def offset(self) -> tuple[float, float]:
        """Least and largest offset (Hz)."""
        return float(self.spins.offset.min()), float(self.spins.offset.max())

    @cached_property
    def extent(self) -> Floats:
        """Farthest place along each axis (m)."""
        farthest: Floats = np.abs(self.spins.position).max(axis=0)
        return farthest

    def farthest(self, carrier: float, gradient: Floats) -> float:
        """Largest distance (Hz) of a spin from the carrier under any of these gradients (Hz/m), (step, 3)."""
        off = max(abs(f - carrier) for f in self.offset)
        return off + float((np.abs(gradient) @ self.extent).max()) if gradient.any() else off

    def parts(self, duration: float, turn: float, off: float = 0.0) -> int:
        """Steps of an RF sample of this duration (s) that turns a spin of B1 1 by `turn` (rad), `off` (Hz) at most."""
        if self.exact:
            return 1
        most = (
            duration / self.max_step,
            turn * self.B1 / _LARGEST,
            duration * self.relaxation / _FASTEST,
            2 * math.pi * off * duration / _FARTHEST,
        )
        return max(1, math.ceil(max(most) - 1e-6))

    def plain_error(self, turn: Floats, duration: float, carrier: float, gradient: Floats) -> float:
        """Bound of what plain steps of these angles (rad, at B1 1) lose of a magnetisation of 1.

        The commutators of third order, each at its largest: with the turn a, precession p and relaxation r of a step
        they are a(p**2 + 2 p r + r**2)/24 and a**2 (p + 2 r)/12. Those of the first kind that come from relaxation
        change the transverse magnetisation alone, which lives for 1/r steps.
        """
        p, r = 2 * math.pi * self.farthest(carrier, gradient) * duration, self.relaxation * duration
        a = turn * self.B1
        if a.max() > _PLAIN or p > 0.3:
            return math.inf
        once, twice = float(a.sum()), float((a * a).sum())
        living = min(once, float(a.max()) / r) if r > 0 else once
        return once * p * p / 24 + twice * (p + 2 * r) / 12 + living * (2 * p * r + r * r) / 24


def lowered(parts: Sequence[Block | Repeat], gamma: float, stepping: Stepping) -> tuple[Program | Loop, ...]:
    """Blocks and repeats as programs and loops; `gamma` is in Hz/T."""
    out: list[Program | Loop] = []
    together: list[Block] = []
    for part in (*parts, None):
        if isinstance(part, Block):
            together.append(part)
            continue
        if together:
            out.append(_program(together, gamma, stepping))
            together = []
        if part is not None:
            body = lowered(part.body, gamma, stepping)
            phases = np.array([part.phase(n) for n in range(part.count)])
            out.append(Loop(body, phases, part.count * sum(p.samples for p in body)))
    return tuple(out)


def _program(blocks: Sequence[Block], gamma: float, stepping: Stepping) -> Program:
    code: list[tuple[int, int, int, int]] = []
    value: list[tuple[float, ...]] = []
    rf: list[Floats] = []
    played = samples = 0
    waits: list[tuple[float, ...]] = []
    still = (0.0, 0.0, 0.0, 0.0, 0.0)
    for block in blocks:
        cut = steps(block)
        gradient = cut.gradient * gamma
        ends, a = _ends(cut), 0
        while a < cut.duration.size:
            b = int(ends[a])
            if cut.rf[a] != 0:
                kind, dt, table, angles = _run(cut, a, b, gradient, stepping)
                code.append((kind, played, played + len(table), -1))
                value.append((dt, cut.carrier[a], *gradient[a], *angles))
                rf.append(table)
                played += len(table)
            elif cut.duration[a] > 0:
                wait = (cut.duration[a], cut.carrier[a], *gradient[a], 0.0, 0.0)
                # samples stand evenly but for rounding: alike steps are made the same, and worked out once
                if len(waits) and np.allclose(wait, waits[-1], rtol=1e-10, atol=0.0):
                    wait = waits[-1]
                waits.append(wait)
                code.append((FREE, 0, 0, -1))
                value.append(wait)
            last = b - 1
            if cut.turn[last] != 0:
                code.append((ROTATE, 0, 0, -1))
                value.append((*still, cut.turn[last], 0.0))
            if cut.sample[last] >= 0:
                code.append((SAMPLE, 0, 0, samples + int(cut.sample[last])))
                value.append((*still, cut.receiver[cut.sample[last]], 0.0))
            if cut.spoil[last]:
                code.append((SPOIL, 0, 0, -1))
                value.append((*still, 0.0, 0.0))
            a = b
        samples += block.samples
    return Program(
        np.array(code, np.int64).reshape(-1, 4),
        np.array(value, float).reshape(-1, 7),
        np.concatenate(rf) if rf else np.empty((0, 9)),
        samples,
    )


def _ends(cut: Steps) -> NDArray[np.int64]:
    """For each step the one after the last that can run with it: RF without a break."""
    on = cut.rf != 0
    same = on[1:] & on[:-1] & (np.diff(cut.carrier) == 0)
    same &= np.abs(np.diff(cut.duration)) < 1e-6 * cut.duration[1:]
    same &= (cut.turn[:-1] == 0) & ~cut.spoil[:-1] & (cut.sample[:-1] < 0)
    breaks = np.append(np.flatnonzero(~same), on.size - 1) + 1
    return breaks[np.searchsorted(breaks, np.arange(on.size), side="right")]


def _run(
    cut: Steps, a: int, b: int, gradient: Floats, stepping: Stepping
) -> tuple[int, float, Floats, tuple[float, float]]:
    """A run of RF: kind, duration of a step (s), table of its steps, phase of its frame before and after (rad)."""
    dt, carrier = float(cut.duration[a:b].mean()), float(cut.carrier[a])
    turn, phase, gradient = 2 * math.pi * dt * np.abs(cut.rf[a:b]), np.angle(cut.rf[a:b]), gradient[a:b]
    varying = bool(np.abs(gradient - gradient[0]).max() > 1e-9 * np.abs(gradient).max())
    # a waveform that only changes its sign stays in one frame
    sign = np.where(np.abs(np.angle(cut.rf[a:b] * np.exp(-1j * phase[0]))) > math.pi / 2, -1.0, 1.0)
    steady = bool(np.abs(np.exp(1j * phase) - sign * np.exp(1j * phase[0])).max() < 1e-12)
    if steady and not stepping.exact:
        phase = np.full(b - a, phase[0])
    else:
        sign = np.ones(b - a)
    parts = stepping.parts(dt, float(turn.max()), stepping.farthest(carrier, gradient) if varying else 0.0)
    turn, sign, phase = (np.repeat(v, parts) for v in (turn / parts, sign, phase))
    dt, gradient = dt / parts, np.repeat(gradient, parts, axis=0)
    angle, axis = sign * turn, np.append(-np.diff(phase), 0.0)
    if stepping.exact:
        kind, axis = EXACT, phase
    elif varying:
        kind = VARYING
    elif not steady or stepping.plain_error(turn, dt, carrier, gradient[:1]) > stepping.tolerance:
        kind = CORRECTED
    else:
        kind = PULSE if stepping.shared else PULSE_B1
    known = angle * stepping.B1 if kind == PULSE else angle
    square = np.append(angle**2, 0.0)
    columns = (angle, np.tan(known / 2), np.sin(known), (square[1:] + square[:-1]) / 2, np.cos(axis), np.sin(axis))
    return kind, dt, np.column_stack([*columns, gradient]), (float(phase[0]), float(phase[-1]))
