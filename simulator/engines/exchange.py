"""Bloch-McConnell: pools of spins that exchange magnetisation, liquid and solid, through any timeline.

``simulate`` plays a timeline from a given state, ``steady_state`` finds the state that it leaves unchanged, and
``propagator`` gives the affine map of some blocks.

Each step of a timeline is a matrix exponential, so that the only error is rounding; RF is constant during each sample
of a pulse. A liquid pool follows the full Bloch equations, also within a pulse that is as long as its T2. A solid pool
has z magnetisation alone, saturated at the instantaneous rate W = pi w1^2 g of its lineshape at the offset of the
carrier: phase modulation within a waveform does not move that offset, and a pulse as short as the solid's T2 is beyond
a rate (Asslander et al., Magn Reson Med 87:2003 (2022), doi:10.1002/mrm.29071). With a T1D it also has dipolar order,
which Provotorov's theory couples to z.

Pools that do not exchange with each other are computed apart, and spins that differ by a factor of all their densities
once, so that a map of a hundred thousand voxels may cost no more than a few spins.

References
----------
McConnell, J Chem Phys 28:430 (1958), doi:10.1063/1.1744152; Henkelman et al., Magn Reson Med 29:759 (1993),
doi:10.1002/mrm.1910290607; dipolar order: Morrison et al., J Magn Reson B 108:103 (1995), doi:10.1006/jmrb.1995.1111;
Varma et al., J Magn Reson 260:67 (2015), doi:10.1016/j.jmr.2015.08.024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .. import threads
from ..acquisition.events.timeline import Block, Repeat, Timeline
from .exchanging import Plan, Rows, Spins, plan
from .pools import Pools, balanced

__all__ = ["Pools", "Result", "balanced", "propagator", "simulate", "steady_state"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Signal = str | NDArray[Any]

_SPINS = 256  # worked on together: four groups of the compiled loops


@dataclass(frozen=True, eq=False)
class Result:
    """What the engine found.

    Attributes
    ----------
    signal : complex ndarray
        Mx + i My as the receiver sees it at each sample, liquid pools summed: (spin, sample); (sample,) where summed
        over the spins, (voxel, sample) where summed by voxel. Per pool there is a dimension `pool` before `sample`,
        with 0 for solid pools.
    magnetisation : ndarray (spin, pool, 3)
        At the end of the timeline; x and y of a solid pool are 0.
    times : ndarray (sample,)
        s.
    dipolar : ndarray (spin, pool)
        Dipolar order at the end, in units of magnetisation: local field times inverse spin temperature.
    """

    signal: Complexes
    magnetisation: Floats
    times: Floats
    dipolar: Floats


def simulate(
    timeline: Timeline,
    pools: Pools,
    *,
    initial: ArrayLike | Result | None = None,
    signal: Signal = "spins",
    per_pool: bool = False,
) -> Result:
    """Play a timeline.

    Parameters
    ----------
    timeline : Timeline
    pools : Pools
    initial : array (pool, 3) or (spin, pool, 3), or Result, optional
        Magnetisation at the start, or the result to go on from; in equilibrium without.
    signal : {"spins", "sum"} or int ndarray (spin,)
        A signal for each spin, the sum over all spins, or a sum for each voxel: the voxel of each spin, from 0 up.
    per_pool : bool
        The signal of each pool instead of their sum.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        A timeline without blocks, an initial state or a voxel index that does not fit the spins.
    """
    _check("simulate", timeline, pools)
    return _run("simulate", timeline, pools, signal, per_pool, start=_start(pools, initial))


def steady_state(
    timeline: Timeline, pools: Pools, *, advance: float = 0.0, signal: Signal = "spins", per_pool: bool = False
) -> Result:
    """The state that a timeline, played for ever, comes to, and the samples of one period; solved directly.

    Parameters
    ----------
    timeline : Timeline
        One period: a repetition, or several where they differ.
    pools : Pools
    advance : float
        Phase (rad) by which RF and receiver advance from one period to the next.
    signal, per_pool
        As in `simulate`.

    Returns
    -------
    Result
        The magnetisation is that at the end of the period, in the frame of its RF; turned by -`advance` about z it is
        that at the start.

    Raises
    ------
    InputError
        As `simulate`; a spin that has no steady state, as nothing relaxes it.
    """
    _check("steady_state", timeline, pools)
    if not math.isfinite(advance):
        raise InputError(f"exchange.steady_state: advance is {advance!r}: expected a phase (rad)")

    return _run("steady_state", timeline, pools, signal, per_pool, advance=advance)


def propagator(blocks: Timeline | Block | Repeat | Sequence[Block | Repeat], pools: Pools) -> Floats:
    """What some blocks do to any magnetisation: the affine map m -> A[:, :-1] m + A[:, -1] of each spin.

    Parameters
    ----------
    blocks : Timeline, Block, Repeat or sequence of these
        Of protons, where it is no Timeline.
    pools : Pools

    Returns
    -------
    ndarray (spin, row, row + 1)
        Rows are x, y, z of each liquid pool, then z of each solid pool, then the dipolar order of each pool that has
        one, each in the order of the pools.

    Raises
    ------
    InputError
        As `simulate`.
    """
    if not isinstance(blocks, Timeline):
        blocks = Timeline((blocks,) if isinstance(blocks, Block | Repeat) else tuple(blocks))
    timeline = blocks
    _check("propagator", timeline, pools)
    rows, sections = Rows.of(pools), plan(timeline.blocks, bool(pools.position.any()))
    out = np.empty((len(pools), rows.size, rows.size + 1))

    def work(first: int, last: int) -> None:
        spins = Spins(pools.at(slice(first, last)), rows, timeline.gamma, sections)
        out[first:last] = spins.apart(spins.map(timeline.blocks))

    threads.each_block(len(pools), work, _SPINS)
    return out


# -- checks and pieces of work


def _check(where: str, timeline: Timeline, pools: Pools) -> None:
    if not isinstance(timeline, Timeline):
        raise InputError(f"exchange.{where}: timeline is a {type(timeline).__name__}: expected a Timeline")
    if not isinstance(pools, Pools):
        raise InputError(f"exchange.{where}: pools is a {type(pools).__name__}: expected Pools")
    if not timeline.blocks:
        raise InputError(f"exchange.{where}: timeline {timeline.name} has no blocks: expected one at least")


def _start(pools: Pools, initial: ArrayLike | Result | None) -> tuple[Floats, Floats] | None:
    """Magnetisation (spin, pool, 3) and dipolar order (spin, pool) at the start; None for equilibrium."""
    if initial is None:
        return None
    shape = (len(pools), pools.count)
    order = initial.dipolar if isinstance(initial, Result) else np.zeros(shape)
    given = np.asarray(initial.magnetisation if isinstance(initial, Result) else initial)
    if given.shape not in ((pools.count, 3), (*shape, 3)) or given.dtype.kind not in "iuf" or order.shape != shape:
        raise InputError(f"exchange.simulate: initial is {given.dtype} of shape {given.shape}: expected numbers "
                         f"({pools.count}, 3) or {(*shape, 3)}, Mx, My, Mz of each pool")  # fmt: skip
    magnetisation = np.broadcast_to(given, (*shape, 3)).astype(float)
    wrong = ~np.isfinite(magnetisation).all(axis=2)
    if wrong.any():
        spin, pool = np.argwhere(wrong)[0]
        raise InputError(f"exchange.simulate: initial magnetisation of pool {pool} of spin {spin} is not finite: "
                         "expected numbers")  # fmt: skip
    return magnetisation, order


def _run(
    where: str,
    timeline: Timeline,
    pools: Pools,
    signal: Signal,
    per_pool: bool,
    *,
    start: tuple[Floats, Floats] | None = None,
    advance: float | None = None,
) -> Result:
    """Play the timeline from a state, in equilibrium without; with `advance` from its steady state."""
    voxel = _voxels(where, signal, len(pools))
    voxels = len(pools) if voxel is None else int(voxel.max()) + 1
    total = np.zeros((voxels, pools.count if per_pool else 1, timeline.samples), complex)
    magnetisation, order = np.zeros((len(pools), pools.count, 3)), np.zeros((len(pools), pools.count))
    sections = plan(timeline.blocks, bool(pools.position.any()))
    for index in pools.separate():
        some = None if start is None else (start[0][:, index], start[1][:, index])
        each, magnetisation[:, index], order[:, index] = _exchanging(
            where, timeline, sections, pools.only(index), some, advance, per_pool
        )
        received = np.ix_(np.arange(voxels), index) if per_pool else slice(None)
        if voxel is None:
            total[received] += each
        else:
            summed = np.zeros((voxels, *each.shape[1:]), complex)
            np.add.at(summed, voxel, each)
            total[received] += summed
    found = total if per_pool else total[:, 0]
    return Result(found[0] if isinstance(signal, str) and signal == "sum" else found, magnetisation,
                  timeline.sample_times(), order)  # fmt: skip


def _exchanging(
    where: str,
    timeline: Timeline,
    sections: Plan,
    pools: Pools,
    start: tuple[Floats, Floats] | None,
    advance: float | None,
    per_pool: bool,
) -> tuple[Complexes, Floats, Floats]:
    """Signal (spin, pool or 1, sample), magnetisation and dipolar order of pools that exchange with each other."""
    # without a state of their own, spins whose densities differ by a factor alone are one
    few, member, factor = pools.alike() if start is None else (pools, np.arange(len(pools)), np.ones(len(pools)))
    rows = Rows.of(pools)
    states = rows.state(*(start or (few.equilibrium, np.zeros(few.density.shape))))
    signal = np.zeros((len(few), pools.count if per_pool else 1, timeline.samples), complex)
    end = np.empty((len(few), rows.size))

    def work(first: int, last: int) -> None:
        index = np.arange(first, last)
        spins = Spins(few.at(index), rows, timeline.gamma, sections)
        state = states[index]
        if advance is not None:
            state, found = spins.periodic(timeline.blocks, timeline.duration, advance)
            if not found.all():
                spin = np.flatnonzero(member == index[np.argmin(found)])[0]
                raise InputError(f"exchange.{where}: spin {spin} has no steady state: expected a period longer than "
                                 "0 s and finite T1, T2 and T1D")  # fmt: skip
        end[index], samples = spins.play(timeline.blocks, state)
        if per_pool:
            signal[index[:, None], rows.liquid] = samples
        else:
            signal[index, 0] = samples.sum(axis=1)

    threads.each_block(len(few), work, _SPINS)
    state = end[member] * factor[:, None]
    each: Complexes = signal[member]
    each *= factor[:, None, None]
    return each, rows.magnetisation(state), rows.dipolar(state)


def _voxels(where: str, signal: Signal, n: int) -> NDArray[np.int64] | None:
    if isinstance(signal, str):
        if signal not in ("spins", "sum"):
            raise InputError(f"exchange.{where}: signal is {signal!r}: expected spins, sum, or the voxel of each spin")
        return None if signal == "spins" else np.zeros(n, np.int64)
    voxel = np.asarray(signal)
    if voxel.shape != (n,) or voxel.dtype.kind not in "iu" or voxel.min() < 0:
        raise InputError(f"exchange.{where}: signal is {voxel.dtype} of shape {voxel.shape}: expected whole numbers "
                         f"from 0 up ({n},), the voxel of each spin")  # fmt: skip
    return voxel.astype(np.int64)
