"""Spins whose pools exchange: their state, and the affine map by which each section of a timeline changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..acquisition.events.timeline import Block, Repeat
from . import lineshapes
from .pools import Pools
from .sections import Section, sections

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Integers = NDArray[np.int64]
Parts = Sequence[Block | Repeat]
Plan = dict[int, tuple[Section, ...]]
"""Sections of each block, by the block's identity."""

_KEPT = 256e6  # bytes of maps that are kept for the next time the same section comes
_CONDITIONS = 1000  # carriers and gradients of which as much is kept
_LOST = 1e-14  # of a state; what is lost less in a period, or eight roundings of all rates, may be rounding


def plan(parts: Parts, gradients: bool) -> Plan:
    """The sections of all blocks."""
    found: Plan = {}
    for part in parts:
        if isinstance(part, Repeat):
            found |= plan(part.body, gradients)
        elif id(part) not in found:
            found[id(part)] = sections(part, gradients)
    return found


def _samples(parts: Parts) -> int:
    return sum(p.samples if isinstance(p, Block) else p.count * _samples(p.body) for p in parts)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a state: x, y, z of each liquid pool, z of each solid pool, dipolar order of those that have one.

    Attributes
    ----------
    liquid, solid, ordered : ndarray
        Numbers of the pools of each kind.
    z : ndarray (pool,)
        Row of each pool's z; a liquid pool's x and y stand before it.
    order : ndarray (pool,)
        Row of each pool's dipolar order, -1 for none.
    size : int
        How many there are.
    """

    liquid: Integers
    solid: Integers
    ordered: Integers
    z: Integers
    order: Integers
    size: int

    @classmethod
    def of(cls, pools: Pools) -> Rows:
        """The rows of these pools."""
        liquid, solid = np.flatnonzero(~pools.solid), np.flatnonzero(pools.solid)
        ordered = np.flatnonzero(pools.dipolar)
        z, order = np.empty(pools.count, np.int64), np.full(pools.count, -1, np.int64)
        z[liquid] = 3 * np.arange(liquid.size) + 2
        z[solid] = 3 * liquid.size + np.arange(solid.size)
        order[ordered] = 3 * liquid.size + solid.size + np.arange(ordered.size)
        return cls(liquid, solid, ordered, z, order, 3 * liquid.size + solid.size + ordered.size)

    @property
    def x(self) -> Integers:
        """Rows of x of the liquid pools."""
        return self.z[self.liquid] - 2

    @property
    def y(self) -> Integers:
        """Rows of y of the liquid pools."""
        return self.z[self.liquid] - 1

    def state(self, magnetisation: Floats, dipolar: Floats) -> Floats:
        """State (spin, row) of magnetisation (spin, pool, 3) and dipolar order (spin, pool)."""
        state = np.zeros((len(magnetisation), self.size))
        state[:, self.z] = magnetisation[:, :, 2]
        state[:, self.x], state[:, self.y] = magnetisation[:, self.liquid, 0], magnetisation[:, self.liquid, 1]
        state[:, self.order[self.ordered]] = dipolar[:, self.ordered]
        return state

    def magnetisation(self, state: Floats) -> Floats:
        """Magnetisation (spin, pool, 3) of a state (spin, row)."""
        out = np.zeros((len(state), self.z.size, 3))
        out[:, :, 2] = state[:, self.z]
        out[:, self.liquid, 0], out[:, self.liquid, 1] = state[:, self.x], state[:, self.y]
        return out

    def dipolar(self, state: Floats) -> Floats:
        """Dipolar order (spin, pool) of a state (spin, row)."""
        out = np.zeros((len(state), self.z.size))
        out[:, self.ordered] = state[:, self.order[self.ordered]]
        return out


def relaxation(pools: Pools, rows: Rows) -> Floats:
    """Generator (spin, row, row + 1) (1/s) without RF; its last column drives to equilibrium."""
    out = np.zeros((len(pools), rows.size, rows.size + 1))
    z, liquid = rows.z, rows.liquid
    out[:, z, z] = -1 / pools.T1 - pools.rates.sum(axis=2)
    out[:, z, -1] = pools.density / pools.T1
    for a in range(pools.count):
        for b in range(pools.count):
            if a != b:
                out[:, z[b], z[a]] = pools.rates[:, a, b]
    for a in liquid:
        x, y, w = z[a] - 2, z[a] - 1, 2 * np.pi * pools.offset[:, a]
        out[:, x, x] = out[:, y, y] = -1 / pools.T2[:, a] - pools.rates[:, a, liquid].sum(axis=1)
        out[:, x, y], out[:, y, x] = -w, w
        for b in liquid:
            if a != b:
                out[:, z[b] - 2, x] = out[:, z[b] - 1, y] = pools.rates[:, a, b]
    for a in rows.ordered:
        out[:, rows.order[a], rows.order[a]] = -1 / pools.T1D[:, a]
    return out


class Spins:
    """Some spins and what the sections of a plan do to them.

    Within, maps are (group, row, column, spin) and states (group, row, spin), as `propagators.py` takes them; the last
    group is filled up with copies of the last spin.
    """

    def __init__(self, pools: Pools, rows: Rows, gamma: float, sections: Plan) -> None:
        self._kernel = _compiled()
        self._rows, self._gamma, self._sections, self._count = rows, gamma, sections, len(pools)
        width = min(self._kernel.GROUP, -(-len(pools) // 8) * 8)
        self._shape = (-(-len(pools) // width), width)
        self._pools = pools.at(np.minimum(np.arange(self._shape[0] * width), len(pools) - 1))
        self._rest = self._together(relaxation(self._pools, rows))
        self._b1 = self._together(np.stack([self._pools.B1.real, self._pools.B1.imag], axis=1))
        self._conditions: dict[tuple[bytes, bool], tuple[Floats, Floats, Floats]] = {}
        self._maps: dict[bytes, Floats] = {}

    def apart(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """(group, ..., spin) as (spin, ...)."""
        values = np.moveaxis(values, -1, 1)
        return values.reshape(self._shape[0] * self._shape[1], *values.shape[2:])[: self._count]

    def _together(self, values: Floats) -> Floats:
        """(spin, ...) as (group, ..., spin)."""
        return np.ascontiguousarray(np.moveaxis(values.reshape(*self._shape, *values.shape[1:]), 1, -1))

    def play(self, parts: Parts, start: Floats) -> tuple[Floats, Complexes]:
        """The state (spin, row) after these parts, and the samples (spin, liquid pool, sample)."""
        full = np.minimum(np.arange(self._shape[0] * self._shape[1]), self._count - 1)
        taken = np.empty((_samples(parts), self._shape[0], self._rows.liquid.size, self._shape[1]), complex)
        state = self._play(parts, self._together(start[full]), taken)
        return np.asarray(self.apart(state)), np.asarray(self.apart(np.moveaxis(taken, 0, 2)))

    def map(self, parts: Parts) -> Floats:
        """All parts in one map."""
        total = None
        for part in parts:
            if isinstance(part, Block):
                for section in self._sections[id(part)]:
                    total = self._compose(self._map(section), total)
                    if section.spoil:
                        total = total.copy()
                        total[:, self._rows.x] = total[:, self._rows.y] = 0
            elif part.phases is None:
                total = self._compose(self._power(self.map(part.body), part.count), total)
            else:
                body = self.map(part.body)
                for phase in part.phases:
                    total = self._compose(self._turned(self._turned(body, phase), phase, axis=2), total)
        assert total is not None
        return total

    def periodic(self, parts: Parts, duration: float, advance: float) -> tuple[Floats, NDArray[np.bool_]]:
        """The state (spin, row) that the parts, so long (s), turn by `advance` (rad) and leave alone else; whether it
        exists."""
        total = self.apart(self._turned(self.map(parts), -advance)).astype(float)
        change = np.eye(self._rows.size) - total[:, :, :-1]
        rounding = 8 * np.finfo(float).eps * np.abs(self._rest).max() * duration
        found = np.linalg.svd(change, compute_uv=False)[:, -1] > _LOST + rounding
        change[~found] = np.eye(self._rows.size)
        return np.linalg.solve(change, total[:, :, -1:])[:, :, 0], found

    def _play(self, parts: Parts, state: Floats, taken: Complexes) -> Floats:
        x, y, done = self._rows.x, self._rows.y, 0
        for part in parts:
            if isinstance(part, Block):
                for section in self._sections[id(part)]:
                    state = self._apply(self._map(section), state)
                    if section.sample >= 0:
                        received = np.exp(-1j * section.receiver)
                        taken[done + section.sample] = (state[:, x] + 1j * state[:, y]) * received
                    if section.spoil:
                        state[:, x] = state[:, y] = 0
                done += part.samples
                continue
            samples = _samples(part.body)
            if samples == 0 and part.count > 1:
                state = self._apply(self.map([part]), state)
                continue
            for n in range(part.count):
                state = self._turned(state, -part.phase(n))
                state = self._play(part.body, state, taken[done : done + samples])
                state = self._turned(state, part.phase(n))
                done += samples
        return state

    def _map(self, section: Section) -> Floats:
        if section.key not in self._maps:
            if sum(m.nbytes for m in self._maps.values()) > _KEPT:
                self._maps.clear()
            driven = bool(section.rf.any())
            conditions = [self._condition(place, driven) for place in section.places]
            shift, saturation, ratio = (np.stack(c) for c in zip(*conditions, strict=True))
            rf, out = 2 * np.pi * section.rf, np.empty_like(self._rest)
            self._kernel.propagate(
                self._rest, self._b1, shift, saturation, ratio, self._rows.liquid.size,
                self._rows.order[self._rows.solid], section.time, rf.real.copy(), rf.imag.copy(), section.place,
                section.played, section.turn, out,
            )  # fmt: skip
            self._maps[section.key] = out
        return self._maps[section.key]

    def _condition(self, place: Floats, driven: bool) -> tuple[Floats, Floats, Floats]:
        """At a carrier and a gradient: shift of the frequency (group, spin) (rad/s), and of each solid pool
        (group, solid, spin) the saturation per squared RF (s) and the offset of the RF over its local field."""
        key = place.tobytes(), driven
        if key not in self._conditions:
            if len(self._conditions) >= _CONDITIONS:
                self._conditions.clear()
            pools, solid = self._pools, self._rows.solid
            shift = self._gamma * (pools.position @ place[1:]) - place[0]
            saturation, ratio = np.zeros((2, len(pools), solid.size))
            for k, p in enumerate(solid if driven else ()):
                shape, T2, offset = pools.lineshape[p], pools.T2[:, p], pools.offset[:, p] + shift
                saturation[:, k] = np.pi * lineshapes.absorption(shape, offset, T2)
                if p in self._rows.ordered:
                    ratio[:, k] = -2 * np.pi * offset / lineshapes.local_field(shape, T2)
            together = self._together
            self._conditions[key] = together(2 * np.pi * shift), together(saturation), together(ratio)
        return self._conditions[key]

    def _apply(self, maps: Floats, state: Floats) -> Floats:
        out = np.empty_like(state)
        self._kernel.apply(maps, state, out)
        return out

    def _compose(self, later: Floats, earlier: Floats | None) -> Floats:
        if earlier is None:
            return later
        out = np.empty_like(later)
        self._kernel.compose(later, earlier, out)
        return out

    def _power(self, square: Floats, count: int) -> Floats:
        total = None
        while True:
            if count % 2:
                total = self._compose(square, total)
            count //= 2
            if count == 0:
                assert total is not None
                return total
            square = self._compose(square, square)

    def _turned(self, values: Floats, angle: float, axis: int = 1) -> Floats:
        """Maps or states turned about z; along axis 2, maps that come after a turn back by that angle."""
        if angle == 0:
            return values
        c, s, out = np.cos(angle), np.sin(angle), values.copy()
        old, new = np.moveaxis(values, axis, 0), np.moveaxis(out, axis, 0)
        x, y = self._rows.x, self._rows.y
        new[x], new[y] = c * old[x] - s * old[y], s * old[x] + c * old[y]
        return out


@cache
def _compiled() -> ModuleType:
    return kernels.compiled(Path(__file__).with_name("propagators.py"))
