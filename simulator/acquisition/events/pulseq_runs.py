"""Blocks that recur in a period, and RF spoiling, found in a list of blocks and told as repeats."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .timeline import Block, Repeat

CANDIDATES = 16
"""Returns of a block that are tried as a period."""

SAME_PHASE = 1e-9
"""Phases closer than this (rad) are the same: rounding of a file's digits adds more, and then they are not."""


@dataclass(frozen=True, eq=False)
class Token:
    """A block as played once: the block, and the phase of its RF and receiver (rad), None where it has neither."""

    block: Block
    phase: float | None


def runs(tokens: list[Token]) -> tuple[Block | Repeat, ...]:
    """The blocks in order, with what recurs told as `Repeat`; every block keeps its identity."""
    numbers: dict[int, int] = {}
    kinds = np.array([numbers.setdefault(id(t.block), len(numbers)) for t in tokens])
    phases = np.array([np.nan if t.phase is None else t.phase for t in tokens])
    places: dict[int, list[int]] = {}
    for place, kind in enumerate(kinds.tolist()):
        places.setdefault(kind, []).append(place)
    found: list[Block | Repeat] = []
    i = 0
    while i < len(tokens):
        period, count = _longest(kinds, phases, places, i)
        body = tokens[i : i + period]
        base = next((t.phase for t in body if t.phase is not None), 0.0)
        if count == 1:
            found.append(_turned(body[0], 0.0))
        else:
            inner = tuple(_turned(t, base) for t in body)
            steps = [_step(phases, i, i + n * period, period) for n in range(count)]
            turns = tuple(math.fmod(base + s, 2 * math.pi) for s in steps)
            found.append(Repeat(inner, count, turns if any(turns) else None))
        i += period * count
    return tuple(found)


def _turned(token: Token, base: float) -> Block | Repeat:
    """The block at its phase over the base."""
    phase = 0.0 if token.phase is None else math.remainder(token.phase - base, 2 * math.pi)
    return Repeat((token.block,), 1, (phase,)) if abs(phase) > SAME_PHASE else token.block


def _longest(
    kinds: NDArray[np.int64], phases: NDArray[np.float64], places: Mapping[int, list[int]], i: int
) -> tuple[int, int]:
    """Period and count of the repetition that begins at i and covers most blocks; (1, 1) for none."""
    best = (1, 1)
    same = places[int(kinds[i])]
    after = bisect.bisect_right(same, i)
    for j in same[after : after + CANDIDATES]:
        p, count = j - i, 1
        while i + (count + 1) * p <= kinds.size and _alike(kinds, phases, i, i + count * p, p):
            count += 1
        if count > 1 and p * count > math.prod(best):
            best = (p, count)
    return best


def _alike(kinds: NDArray[np.int64], phases: NDArray[np.float64], a: int, b: int, period: int) -> bool:
    """Whether the blocks from b on are those from a on, all turned by one phase."""
    if not np.array_equal(kinds[a : a + period], kinds[b : b + period]):
        return False
    gap = phases[b : b + period] - phases[a : a + period]
    gap = gap[np.isfinite(gap)]
    return gap.size == 0 or bool(
        np.all(np.abs(np.remainder(gap - gap[0] + math.pi, 2 * math.pi) - math.pi) < SAME_PHASE)
    )


def _step(phases: NDArray[np.float64], a: int, b: int, period: int) -> float:
    """The phase by which the blocks from b on are turned against those from a on."""
    gap = phases[b : b + period] - phases[a : a + period]
    gap = gap[np.isfinite(gap)]
    return float(gap[0]) if gap.size else 0.0
