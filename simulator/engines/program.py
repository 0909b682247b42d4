"""A timeline as the Bloch engine runs it: blocks become programs, flat lists of instructions; repeats stay repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..acquisition.timeline import Block, Repeat, steps

FREE, PULSE, EXACT, SPOIL, SAMPLE, ROTATE = range(6)
"""Kinds of instruction, as `isochromat_steps.py` has them."""


@dataclass(frozen=True, eq=False)
class Program:
    """Blocks played one after the other, as instructions.

    Attributes
    ----------
    code : int ndarray (instruction, 4)
        Kind, first RF sample, number of RF samples, number of the sample taken.
    value : ndarray (instruction, 6)
        Duration (s), carrier (Hz), gradient (Hz/m, three), angle (rad).
    rf : ndarray (RF sample, 2)
        Nutation frequency (Hz) along x and y.
    samples : int
    """

    code: NDArray[np.int64]
    value: NDArray[np.float64]
    rf: NDArray[np.float64]
    samples: int


@dataclass(frozen=True, eq=False)
class Loop:
    """A repeated body and the phase (rad) of each repetition."""

    body: tuple[Program | Loop, ...]
    phases: NDArray[np.float64]
    samples: int


def lowered(parts: Sequence[Block | Repeat], gamma: float, max_step: float, exact: bool) -> tuple[Program | Loop, ...]:
    """Blocks and repeats as programs and loops; RF in steps of at most `max_step` (s), or exact.

    `gamma` is in Hz/T.
    """
    out: list[Program | Loop] = []
    together: list[Block] = []
    for part in (*parts, None):
        if isinstance(part, Block):
            together.append(part)
            continue
        if together:
            out.append(_program(together, gamma, max_step, exact))
            together = []
        if part is not None:
            body = lowered(part.body, gamma, max_step, exact)
            phases = np.array([part.phase(n) for n in range(part.count)])
            out.append(Loop(body, phases, part.count * sum(p.samples for p in body)))
    return tuple(out)


def _program(blocks: Sequence[Block], gamma: float, max_step: float, exact: bool) -> Program:
    code: list[tuple[int, int, int, int]] = []
    value: list[tuple[float, ...]] = []
    rf: list[NDArray[np.complex128]] = []
    played = samples = 0

    def add(kind: int, first: int = 0, count: int = 0, sample: int = -1, values: Sequence[float] = (0.0,) * 5,
            angle: float = 0.0) -> None:  # fmt: skip
        code.append((kind, first, count, sample))
        value.append((*values, angle))

    for block in blocks:
        cut = steps(block)
        n, a = cut.duration.size, 0
        gradient = cut.gradient * gamma
        while a < n:
            b = a + 1
            if cut.rf[a] != 0:
                while b < n and cut.rf[b] != 0 and not _breaks(cut, a, b):
                    b += 1
                dt = float(cut.duration[a:b].mean())
                parts = 1 if exact else max(1, math.ceil(dt / max_step - 1e-6))
                waveform = np.repeat(cut.rf[a:b], parts)
                add(EXACT if exact else PULSE, played, waveform.size, -1, (dt / parts, cut.carrier[a], *gradient[a]))
                rf.append(waveform)
                played += waveform.size
            elif cut.duration[a] > 0:
                add(FREE, values=(cut.duration[a], cut.carrier[a], *gradient[a]))
            last = b - 1
            if cut.turn[last] != 0:
                add(ROTATE, angle=cut.turn[last])
            if cut.sample[last] >= 0:
                add(SAMPLE, sample=samples + int(cut.sample[last]), angle=cut.receiver[cut.sample[last]])
            if cut.spoil[last]:
                add(SPOIL)
            a = b
        samples += block.samples
    waveform = np.concatenate(rf) if rf else np.empty(0, complex)
    return Program(
        np.array(code, np.int64).reshape(-1, 4),
        np.array(value, float).reshape(-1, 6),
        np.stack([waveform.real, waveform.imag], axis=1),
        samples,
    )


def _breaks(cut, a: int, b: int) -> bool:  # type: ignore[no-untyped-def]
    """Whether step b cannot follow step a in one run: something happens between, or the field changes."""
    return bool(
        cut.turn[b - 1] != 0
        or cut.spoil[b - 1]
        or cut.sample[b - 1] >= 0
        or cut.carrier[b] != cut.carrier[a]
        or abs(cut.duration[b] - cut.duration[a]) > 1e-6 * cut.duration[a]
        or np.any(np.abs(cut.gradient[b] - cut.gradient[a]) > 1e-12)
    )
