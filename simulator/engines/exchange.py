"""Bloch-McConnell: pools of spins that exchange magnetisation, liquid and solid, through any timeline.

Each step of a timeline is a matrix exponential, so that the only error is rounding; RF of a sampled pulse is constant
during each of its samples. A liquid pool follows the full Bloch equations, also within a pulse that is as long as its
T2. A solid pool has z magnetisation alone, saturated at the instantaneous rate W = pi w1^2 g of its lineshape at the
offset of the carrier: phase modulation of the waveform does not move that offset. With a T1D it also has dipolar order,
which Provotorov's theory couples to z.

References
----------
McConnell, J Chem Phys 28:430 (1958), doi:10.1063/1.1744152; Henkelman et al., Magn Reson Med 29:759 (1993),
doi:10.1002/mrm.1910290607; dipolar order: Morrison et al., J Magn Reson B 108:103 (1995), doi:10.1006/jmrb.1995.1111;
Varma et al., J Magn Reson 260:67 (2015), doi:10.1016/j.jmr.2015.08.024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .. import kernels, threads
from ..acquisition.timeline import Block, Repeat, Timeline
from . import lineshapes
from .pools import Pools, balanced
from .sections import Section, sections

__all__ = ["Pools", "Result", "balanced", "propagator", "simulate", "steady_state"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_SPINS = 256  # worked on together: their maps stay in the second cache
_KEPT = 64e6  # bytes of maps that are kept for the next time the same section comes


@dataclass(frozen=True, eq=False)
class Result:
    """What a timeline gives.

    Attributes
    ----------
    signal : complex ndarray (spin, sample), or (spin, pool, sample) per pool
        Transverse magnetisation of the liquid pools at each sample, as the receiver sees it.
    magnetisation : ndarray (spin, pool, 3)
        At the end; x and y of a solid pool are 0.
    times : ndarray (sample,)
        When each sample is taken (s).
    dipolar : ndarray (spin, pool)
        Dipolar order at the end, as the magnetisation that would balance it: local field times inverse temperature.
    """

    signal: Complexes
    magnetisation: Floats
    times: Floats
    dipolar: Floats


def simulate(
    timeline: Timeline, pools: Pools, *, initial: ArrayLike | Result | None = None, per_pool: bool = False
) -> Result:
    """Play a timeline once.

    Parameters
    ----------
    timeline : Timeline
    pools : Pools
    initial : array (pool, 3) or (spin, pool, 3), or Result, optional
        Magnetisation at the start, or the result to go on from; equilibrium without.
    per_pool : bool
        Signal of each pool instead of their sum; 0 of a solid one.

    Raises
    ------
    InputError
        The initial magnetisation does not fit the pools, or is not finite.
    """
    return _run(timeline, pools, _start(pools, initial), per_pool)


def steady_state(timeline: Timeline, pools: Pools, *, per_pool: bool = False) -> Result:
    """The result of a timeline that has been played over and over until nothing changes any more.

    Solved directly, not by repetition. Phases within the timeline begin anew each time.

    Raises
    ------
    InputError
        There is no such state, as nothing relaxes.
    """
    return _run(timeline, pools, None, per_pool)


def propagator(timeline: Timeline, pools: Pools) -> Floats:
    """What a timeline does to the magnetisation, as a matrix.

    Returns
    -------
    ndarray (spin, row, row)
        Acts on (x, y, z of each liquid pool, z of each solid pool, dipolar order of those that have one, 1), in order
        of the pools. z and order count as `Result` has them.
    """
    plan = _plan(timeline, pools)
    rows = _rows(pools)
    out = np.zeros((len(pools), rows.size + 1, rows.size + 1))
    out[:, -1, -1] = 1

    def work(first: int, last: int) -> None:
        spins = _Spins(pools.at(slice(first, last)), rows, timeline.gamma, plan)
        out[first:last, :-1] = spins.apart(spins.map(timeline.blocks))

    threads.each_block(len(pools), work, _SPINS)
    return out


# -- where each pool stands in the state


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the state: x, y, z of each liquid pool, z of each solid pool, dipolar order."""

    liquid: NDArray[np.int64]
    solid: NDArray[np.int64]
    z: NDArray[np.int64]  # (pool,)
    order: NDArray[np.int64]  # (pool,), -1 for none
    size: int


def _rows(pools: Pools) -> _Rows:
    liquid, solid = np.flatnonzero(~pools.solid), np.flatnonzero(pools.solid)
    z, order = np.empty(pools.pools, np.int64), np.full(pools.pools, -1, np.int64)
    z[liquid] = 3 * np.arange(liquid.size) + 2
    z[solid] = 3 * liquid.size + np.arange(solid.size)
    n = 3 * liquid.size + solid.size
    ordered = np.flatnonzero(pools.dipolar)
    order[ordered] = n + np.arange(ordered.size)
    return _Rows(liquid, solid, z, order, n + ordered.size)


def _state(rows: _Rows, magnetisation: Floats, dipolar: Floats) -> Floats:
    """(spin, row) of magnetisation (spin, pool, 3) and dipolar order (spin, pool)."""
    state = np.zeros((len(magnetisation), rows.size))
    for p in rows.liquid:
        state[:, rows.z[p] - 2 : rows.z[p] + 1] = magnetisation[:, p]
    state[:, rows.z[rows.solid]] = magnetisation[:, rows.solid, 2]
    ordered = np.flatnonzero(rows.order >= 0)
    state[:, rows.order[ordered]] = dipolar[:, ordered]
    return state


def _magnetisation(rows: _Rows, state: Floats) -> tuple[Floats, Floats]:
    """Magnetisation (spin, pool, 3) and dipolar order (spin, pool) of a state (spin, row)."""
    magnetisation = np.zeros((len(state), rows.z.size, 3))
    dipolar = np.zeros((len(state), rows.z.size))
    magnetisation[:, :, 2] = state[:, rows.z]
    for axis in (0, 1):
        magnetisation[:, rows.liquid, axis] = state[:, rows.z[rows.liquid] - 2 + axis]
    ordered = np.flatnonzero(rows.order >= 0)
    dipolar[:, ordered] = state[:, rows.order[ordered]]
    return magnetisation, dipolar


def _start(pools: Pools, initial: ArrayLike | Result | None) -> Floats:
    shape, dipolar = (len(pools), pools.pools), np.zeros((len(pools), pools.pools))
    if initial is None:
        return _state(_rows(pools), pools.equilibrium, dipolar)
    if isinstance(initial, Result):
        dipolar = initial.dipolar
    given = np.asarray(initial.magnetisation if isinstance(initial, Result) else initial, float)
    try:
        magnetisation = np.broadcast_to(given, (*shape, 3))
        dipolar = np.broadcast_to(dipolar, shape)
    except ValueError:
        raise InputError(f"exchange: initial has shape {given.shape}: expected {(*shape, 3)}, (spin, pool, 3)") from None
    if not np.isfinite(magnetisation).all():
        spin, pool, _ = np.argwhere(~np.isfinite(magnetisation))[0]
        raise InputError(f"exchange: initial magnetisation of pool {pool} of spin {spin} is not finite: expected numbers")
    return _state(_rows(pools), magnetisation, dipolar)


# -- running


@cache
def _compiled() -> ModuleType:
    return kernels.compiled(Path(__file__).with_name("propagators.py"))


_Plan = dict[int, tuple[Section, ...]]


def _plan(timeline: Timeline, pools: Pools) -> _Plan:
    """The sections of every block, by the block's identity."""
    plan: _Plan = {}
    gradients = bool((pools.position != 0).any())

    def add(parts: Sequence[Block | Repeat]) -> None:
        for part in parts:
            if isinstance(part, Repeat):
                add(part.body)
            elif id(part) not in plan:
                plan[id(part)] = sections(part, gradients)

    add(timeline.blocks)
    return plan


def _run(timeline: Timeline, pools: Pools, start: Floats | None, per_pool: bool) -> Result:
    plan, rows = _plan(timeline, pools), _rows(pools)
    signal = np.zeros((len(pools), *([pools.pools] if per_pool else []), timeline.samples), complex)
    end = np.empty((len(pools), rows.size))

    def work(first: int, last: int) -> None:
        spins = _Spins(pools.at(slice(first, last)), rows, timeline.gamma, plan)
        state = spins.periodic(timeline, first) if start is None else start[first:last]
        samples = np.zeros((timeline.samples, *spins.shape[:1], rows.liquid.size, spins.shape[1]), complex)
        end[first:last] = spins.apart(spins.play(timeline.blocks, spins.together(state), samples, 0)[0])
        # (spin, pool, sample)
        each = samples.transpose(1, 3, 2, 0).reshape(-1, rows.liquid.size, timeline.samples)[: last - first]
        if per_pool:
            signal[first:last, rows.liquid] = each
        else:
            signal[first:last] = each.sum(axis=1)

    threads.each_block(len(pools), work, _SPINS)
    return Result(signal, *_magnetisation(rows, end), timeline.sample_times())  # type: ignore[misc]


class _Spins:
    """Some spins and what the timeline's sections do to them.

    Maps are (group, row, column, spin) and states (group, row, spin), as `propagators.py` takes them.
    """

    def __init__(self, pools: Pools, rows: _Rows, gamma: float, plan: _Plan) -> None:
        self._kernel = _compiled()
        self._rows, self._plan, self._gamma, self._count = rows, plan, gamma, len(pools)
        width = self._kernel.SPINS
        self.shape = (-(-len(pools) // width), width)
        # the last group is filled up with copies of the last spin
        self._pools = pools = pools.at(np.minimum(np.arange(self.shape[0] * width), len(pools) - 1))
        self._rest = self.together(_relaxation(pools, rows))
        self._b1 = self.together(np.stack([pools.B1.real, pools.B1.imag], axis=1))
        self._conditions: dict[bytes, tuple[Floats, Floats, Floats]] = {}
        self._maps: dict[bytes, Floats] = {}

    def together(self, values: Floats) -> Floats:
        """(spin, ...) as (group, ..., spin)."""
        missing = self.shape[0] * self.shape[1] - len(values)
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
        return np.ascontiguousarray(np.moveaxis(values.reshape(*self.shape, *values.shape[1:]), 1, -1))

    def apart(self, values: Floats) -> Floats:
        """(group, ..., spin) as (spin, ...)."""
        values = np.moveaxis(values, -1, 1)
        return values.reshape(-1, *values.shape[2:])[: self._count]

    def play(
        self, parts: Sequence[Block | Repeat], state: Floats, samples: Complexes, taken: int
    ) -> tuple[Floats, int]:
        """The state after these parts; their samples go into `samples` (sample, group, liquid pool, spin)."""
        for part in parts:
            if isinstance(part, Block):
                for section in self._plan[id(part)]:
                    state = self._apply(self._section(section), state)
                    if section.sample >= 0:
                        received = np.exp(-1j * section.receiver)
                        x, y = self._transverse
                        samples[taken + section.sample] = (state[:, x] + 1j * state[:, y]) * received
                    if section.spoil:
                        state[:, self._transverse] = 0
                taken += part.samples
            elif part.count > 1 and not any(p.samples if isinstance(p, Block) else _sampled(p) for p in part.body):
                state = self._apply(self.map([part]), state)
            else:
                for n in range(part.count):
                    state = self._turned(state, -part.phase(n))
                    state, taken = self.play(part.body, state, samples, taken)
                    state = self._turned(state, part.phase(n))
        return state, taken

    def map(self, parts: Sequence[Block | Repeat]) -> Floats:
        """All parts in one."""
        total = None
        for part in parts:
            if isinstance(part, Block):
                for section in self._plan[id(part)]:
                    total = self._compose(self._section(section), total)
                    if section.spoil:
                        total = total.copy()
                        total[:, self._transverse] = 0
            elif part.phases is None:
                total = self._compose(self._power(self.map(part.body), part.count), total)
            else:
                body = self.map(part.body)
                for phase in part.phases:
                    turned = self._turned_columns(self._turned(body, phase), phase)
                    total = self._compose(turned, total)
        return self._identity() if total is None else total

    def periodic(self, timeline: Timeline, first: int) -> Floats:
        """The state (spin, row) that a timeline brings back; `first` is the number of the first spin."""
        total = self.apart(self.map(timeline.blocks))
        change = np.eye(self._rows.size) - total[:, :, :-1]
        # by the smallest part of a state that is lost each time: below rounding there is none
        least = np.linalg.svd(change, compute_uv=False)[:, -1]
        if (least < 1e-14).any():
            spin = first + int(np.flatnonzero(least < 1e-14)[0])
            raise InputError(f"exchange: spin {spin} has no steady state under timeline {timeline.name}: expected finite "
                             "T1, T2 and T1D, or a longer timeline")  # fmt: skip
        return np.asarray(np.linalg.solve(change, total[:, :, -1:])[:, :, 0])

    @property
    def _transverse(self) -> NDArray[np.int64]:
        """Rows of x and of y, (2, liquid pool)."""
        z = self._rows.z[self._rows.liquid]
        return np.stack([z - 2, z - 1])

    def _section(self, section: Section) -> Floats:
        if section.key not in self._maps:
            if sum(m.nbytes for m in self._maps.values()) > _KEPT:
                self._maps.clear()
            conditions = [self._condition(row, section) for row in section.places]
            shift, saturation, ratio = (np.ascontiguousarray(np.stack(c)) for c in zip(*conditions, strict=True))
            out = np.empty_like(self._rest)
            rf = 2 * np.pi * section.rf
            self._kernel.propagate(
                self._rest, self._b1, shift, saturation, ratio, self._rows.liquid.size,
                np.ascontiguousarray(self._rows.order[self._rows.solid]), section.time, np.ascontiguousarray(rf.real),
                np.ascontiguousarray(rf.imag), section.place, section.played, section.turn, out,
            )  # fmt: skip
            self._maps[section.key] = out
        return self._maps[section.key]

    def _condition(self, place: Floats, section: Section) -> tuple[Floats, Floats, Floats]:
        """Shift (group, spin), saturation and offset over local field (group, solid, spin) at a carrier and gradient."""
        key = place.tobytes() + bytes([bool(section.rf.any())])
        if key not in self._conditions:
            if len(self._conditions) > 1000:
                self._conditions.clear()
            pools, solid = self._pools, self._rows.solid
            shift = self._gamma * (pools.position @ place[1:]) - place[0]
            saturation, ratio = np.zeros((2, len(pools), solid.size))
            if section.rf.any():
                for k, p in enumerate(solid):
                    offset, shape = pools.offset[:, p] + shift, pools.lineshape[p]  # type: ignore[index]
                    saturation[:, k] = np.pi * lineshapes.absorption(str(shape), offset, pools.T2[:, p])
                    if self._rows.order[p] >= 0:
                        ratio[:, k] = 2 * np.pi * offset / lineshapes.local_field(str(shape), pools.T2[:, p])
            together = self.together
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

    def _power(self, maps: Floats, count: int) -> Floats:
        total, square = None, maps
        while count:
            if count & 1:
                total = self._compose(square, total)
            count >>= 1
            if count:
                square = self._compose(square, square)
        assert total is not None
        return total

    def _turned(self, values: Floats, angle: float) -> Floats:
        """Rows of x and y, of a map or of a state, turned about z."""
        if angle == 0:
            return values
        x, y = self._transverse
        out, c, s = values.copy(), np.cos(angle), np.sin(angle)
        out[:, x], out[:, y] = c * values[:, x] - s * values[:, y], s * values[:, x] + c * values[:, y]
        return out

    def _turned_columns(self, maps: Floats, angle: float) -> Floats:
        """A map behind a turn back by the angle."""
        if angle == 0:
            return maps
        x, y = self._transverse
        out, c, s = maps.copy(), np.cos(angle), np.sin(angle)
        out[:, :, x], out[:, :, y] = c * maps[:, :, x] - s * maps[:, :, y], s * maps[:, :, x] + c * maps[:, :, y]
        return out

    def _identity(self) -> Floats:
        out = np.zeros_like(self._rest)
        for k in range(self._rows.size):
            out[:, k, k] = 1
        return out


def _sampled(part: Repeat) -> bool:
    return any(p.samples > 0 if isinstance(p, Block) else _sampled(p) for p in part.body)


def _relaxation(pools: Pools, rows: _Rows) -> Floats:
    """Generator (spin, row, column) of relaxation, exchange and offsets; the last column drives to equilibrium."""
    out = np.zeros((len(pools), rows.size, rows.size + 1))
    z = rows.z
    out[:, z, z] = -1 / pools.T1 - pools.rates.sum(axis=2)
    out[:, z, -1] = pools.density / pools.T1
    for a in range(pools.pools):
        for b in range(pools.pools):
            if a != b:
                out[:, z[b], z[a]] = pools.rates[:, a, b]
    for a in rows.liquid:
        x, y = z[a] - 2, z[a] - 1
        w = 2 * np.pi * pools.offset[:, a]
        out[:, x, x] = out[:, y, y] = -1 / pools.T2[:, a] - pools.rates[:, a, rows.liquid].sum(axis=1)
        out[:, x, y], out[:, y, x] = -w, w
        for b in rows.liquid:
            if a != b:
                out[:, z[b] - 2, x] = out[:, z[b] - 1, y] = pools.rates[:, a, b]
    for p in np.flatnonzero(rows.order >= 0):
        out[:, rows.order[p], rows.order[p]] = -1 / pools.T1D[:, p]
    return out
