"""The Bloch equations: isochromats taken through a timeline, with relaxation during the pulses.

``simulate`` plays a timeline from a given state, ``steady_state`` finds the state that it leaves unchanged, and
``propagator`` gives the exact affine map of some blocks. A repeated body is computed once, as an affine map in the
frame of its phase, so that 200 repetitions cost little more than five. ``subvoxel`` and ``lorentzian`` (from
``engines.intravoxel``) spread spins inside a voxel, ``enough`` tells how many of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import kernels, threads
from ..acquisition.events.timeline import Block, Repeat, Timeline
from . import program
from .intravoxel import enough, lorentzian, subvoxel
from .isochromats import Isochromats

__all__ = ["Result", "enough", "lorentzian", "propagator", "simulate", "steady_state", "subvoxel"]

MAX_STEP = 4e-6
"""Longest step during RF (s)."""
TOLERANCE = 2e-5
"""Largest error of the steps through one run of RF, of a magnetisation of 1."""

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Signal = str | NDArray[Any]
Index = slice | NDArray[np.int64]

_MAPPED_FROM = 6  # played columns from which a map, which takes four, is cheaper than playing a body each time
_TILE = 256  # isochromats of a tile of the compiled loops
_SPINS = 4096  # most isochromats of a piece of work of one thread
_KEPT = 1e6  # most samples, of all isochromats and columns, that such a piece keeps


@dataclass(frozen=True, eq=False)
class Result:
    """What an engine found.

    Attributes
    ----------
    signal : complex ndarray
        Mx + i My as the receiver sees it at each sample: (spin, sample); (sample,) where summed over the spins,
        (voxel, sample) where summed by voxel.
    magnetisation : ndarray (spin, 3)
        At the end of the timeline; of a steady state, at its start too.
    times : ndarray (sample,)
        s.
    """

    signal: Complexes
    magnetisation: Floats
    times: Floats


def simulate(
    timeline: Timeline,
    spins: Isochromats,
    *,
    initial: Any = None,
    signal: Signal = "spins",
    exact: bool = False,
    max_step: float = MAX_STEP,
    tolerance: float = TOLERANCE,
) -> Result:
    """Play a timeline.

    Parameters
    ----------
    timeline : Timeline
    spins : Isochromats
    initial : ndarray (spin, 3) or (3,), optional
        Magnetisation at the start; in equilibrium without.
    signal : {"spins", "sum"} or int ndarray (spin,)
        A signal for each spin, the sum over all spins, or a sum for each voxel: the voxel of each spin, from 0 up.
    exact : bool
        During RF, use the exponential of the Bloch equations for each sample of the pulse, good to rounding, instead of
        steps of second order.
    max_step : float
        Longest step during RF (s); longer samples are divided. Not used when `exact`.
    tolerance : float
        Steps of RF are plain where the bound of their error is below this, and corrected to fourth order where not. The
        bound is that of the whole pulse and of all spins, so that the choice is the same for all of them.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        A timeline without blocks, an initial state or a voxel index that does not fit the spins, or a step not above 0.

    Notes
    -----
    All is exact but RF, in steps of second order.
    """
    parts = _parts("simulate", timeline, spins, exact, max_step, tolerance)
    n = len(spins)
    start = spins.equilibrium if initial is None else np.asarray(initial)
    if start.shape not in ((3,), (n, 3)) or start.dtype.kind not in "iuf" or not np.isfinite(start).all():
        raise InputError(f"bloch.simulate: initial is {start.dtype} of shape {start.shape}: expected finite numbers "
                         f"(3,) or ({n}, 3), Mx, My, Mz of each spin")  # fmt: skip
    start = np.broadcast_to(start, (n, 3)).astype(float)

    def work(known: Floats, index: Index) -> tuple[Complexes, Floats]:
        state = np.ascontiguousarray(start[index].T[:, None])
        taken = np.empty((timeline.samples, 1, known.shape[1]), complex)
        _play(parts, known, state, taken)
        return taken[:, 0].T, state[:, 0].T

    return _collected("simulate", timeline, spins, signal, 1, work)


def steady_state(
    timeline: Timeline,
    spins: Isochromats,
    *,
    advance: float = 0.0,
    signal: Signal = "spins",
    exact: bool = False,
    max_step: float = MAX_STEP,
    tolerance: float = TOLERANCE,
) -> Result:
    """The state that a timeline, played for ever, comes to, and the samples of one period.

    Parameters
    ----------
    timeline : Timeline
        One period: a repetition, or several where they differ.
    spins : Isochromats
    advance : float
        Phase (rad) by which RF and receiver advance from one period to the next.
    signal, exact, max_step, tolerance
        As in `simulate`.

    Returns
    -------
    Result
        The magnetisation is that at the end of the period, in the frame of its RF; after turning it by -`advance` it is
        that at the start.

    Raises
    ------
    InputError
        As `simulate`; a spin that has no steady state, as nothing relaxes it.
    """
    parts = _parts("steady_state", timeline, spins, exact, max_step, tolerance)
    if not math.isfinite(advance):
        raise InputError(f"bloch.steady_state: advance is {advance!r}: expected a phase (rad)")

    def work(known: Floats, index: Index) -> tuple[Complexes, Floats]:
        linear, reading = _map(parts, known)
        back = _about_z(-advance)
        whole = np.einsum("ij,jcs->sic", back, linear)
        try:
            start = np.linalg.solve(np.eye(3) - whole[:, :, :3], whole[:, :, 3:])[:, :, 0]
        except np.linalg.LinAlgError:
            start = np.full((known.shape[1], 3), np.nan)
        if not np.isfinite(start).all():
            raise InputError("bloch.steady_state: a spin has no steady state: expected a period longer than 0 s and "
                             "finite T1 and T2")  # fmt: skip
        taken = np.einsum("kcs,sc->sk", reading[:, :3], start) + reading[:, 3].T
        return taken, start @ _about_z(advance).T

    return _collected("steady_state", timeline, spins, signal, 4, work)


def propagator(
    blocks: Timeline | Block | Repeat | Sequence[Block | Repeat],
    spins: Isochromats,
    *,
    exact: bool = True,
    max_step: float = MAX_STEP,
    tolerance: float = TOLERANCE,
) -> Floats:
    """What some blocks do to any magnetisation: the affine map m -> A[:, :3] m + A[:, 3] of each spin.

    Parameters
    ----------
    blocks : Timeline, Block, Repeat or sequence of these
        Of protons, where it is no Timeline.
    spins : Isochromats
    exact, max_step, tolerance
        As in `simulate`.

    Returns
    -------
    ndarray (spin, 3, 4)

    Raises
    ------
    InputError
        As `simulate`.
    """
    if isinstance(blocks, Timeline):
        timeline = blocks
    else:
        timeline = Timeline((blocks,) if isinstance(blocks, Block | Repeat) else tuple(blocks))
    parts = _parts("propagator", timeline, spins, exact, max_step, tolerance)
    out = np.empty((len(spins), 3, 4))

    def work(first: int, last: int) -> None:
        linear, _ = _map(parts, _known(spins, slice(first, last)))
        out[first:last] = linear.transpose(2, 0, 1)

    threads.each_block(len(spins), work, _piece(len(spins), 4 * timeline.samples))
    return out


# -- checks and pieces of work


def _parts(
    where: str, timeline: Timeline, spins: Isochromats, exact: bool, max_step: float, tolerance: float
) -> tuple[program.Program | program.Loop, ...]:
    if not isinstance(timeline, Timeline):
        raise InputError(f"bloch.{where}: timeline is a {type(timeline).__name__}: expected a Timeline")
    if not isinstance(spins, Isochromats):
        raise InputError(f"bloch.{where}: spins is a {type(spins).__name__}: expected Isochromats")
    if not timeline.blocks:
        raise InputError(f"bloch.{where}: timeline {timeline.name} has no blocks: expected one at least")
    if not (math.isfinite(max_step) and max_step > 0):
        raise InputError(f"bloch.{where}: max_step is {max_step!r} s: expected above 0")
    if not tolerance >= 0:
        raise InputError(f"bloch.{where}: tolerance is {tolerance!r}: expected from 0 up")
    return program.lowered(timeline.blocks, timeline.gamma, program.Stepping.of(spins, max_step, tolerance, exact))


def _piece(n: int, samples: int) -> int:
    """Isochromats of a piece of work: whole tiles, several pieces where there are many spins, bounded in memory."""
    several = -(-n // (8 * _TILE)) * _TILE
    return max(1, min(_SPINS, several, int(_KEPT / max(samples, 1))))


def _collected(
    where: str,
    timeline: Timeline,
    spins: Isochromats,
    signal: Signal,
    columns: int,
    work: Callable[[Floats, Index], tuple[Complexes, Floats]],
) -> Result:
    """The pieces of work put together; sums are taken piece by piece, in an order that threads do not change."""
    n, times = len(spins), timeline.sample_times()
    voxel = _voxels(where, signal, n)
    order = None if voxel is None else np.argsort(voxel, kind="stable")
    magnetisation = np.empty((n, 3))
    each = np.empty((n, times.size), complex) if voxel is None else None
    sums: dict[int, tuple[NDArray[np.int64], Complexes]] = {}

    def piece(first: int, last: int) -> None:
        index = slice(first, last) if order is None else order[first:last]
        taken, magnetisation[index] = work(_known(spins, index), index)
        if each is not None:
            each[index] = taken
        else:
            assert voxel is not None
            found, starts = np.unique(voxel[index], return_index=True)
            sums[first] = found, np.add.reduceat(taken, starts, axis=0)

    threads.each_block(n, piece, _piece(n, columns * times.size))
    if each is not None:
        return Result(each, magnetisation, times)
    assert voxel is not None
    total = np.zeros((int(voxel.max()) + 1, times.size), complex)
    for first in sorted(sums):
        found, part = sums[first]
        total[found] += part
    return Result(total[0] if isinstance(signal, str) else total, magnetisation, times)


def _voxels(where: str, signal: Signal, n: int) -> NDArray[np.int64] | None:
    if isinstance(signal, str):
        if signal not in ("spins", "sum"):
            raise InputError(f"bloch.{where}: signal is {signal!r}: expected spins, sum, or the voxel of each spin")
        return None if signal == "spins" else np.zeros(n, np.int64)
    voxel = np.asarray(signal)
    if voxel.shape != (n,) or voxel.dtype.kind not in "iu" or voxel.min() < 0:
        raise InputError(f"bloch.{where}: signal is {voxel.dtype} of shape {voxel.shape}: expected whole numbers from "
                         f"0 up ({n},), the voxel of each spin")  # fmt: skip
    return voxel.astype(np.int64)


# -- states taken through programs and loops; a state is (3, column, spin)


@cache
def _compiled(name: str) -> Any:
    return kernels.compiled(Path(__file__).with_name(name))


def _known(spins: Isochromats, index: Index) -> Floats:
    """What the compiled loops know of these isochromats, (quantity, spin)."""
    known = np.empty((10, len(spins.T1[index])))
    np.divide(1, spins.T1[index], out=known[0])
    np.divide(1, spins.T2[index], out=known[1])
    known[2], known[4:7], known[7] = spins.offset[index], spins.position[index].T, spins.density[index]
    known[3], known[8], known[9] = np.real(spins.B1[index]), 1.0, 0.0
    if np.iscomplexobj(spins.B1):
        known[3] = np.abs(spins.B1[index])
        phase = np.angle(spins.B1[index])
        known[8], known[9] = np.cos(phase), np.sin(phase)
    return known


def _play(parts: Sequence[program.Program | program.Loop], known: Floats, state: Floats, taken: Complexes) -> None:
    """Take a state through the parts; it changes in place, and `taken` (sample, column, spin) is filled."""
    columns, n = state.shape[1:]
    loops, done = _compiled("isochromat_steps.py"), 0
    scratch = np.empty((loops.WORK, loops.WIDTH))
    many = known if columns == 1 else np.tile(known, columns)
    if columns > 1:  # the linear columns of a map have no equilibrium to go to
        many[7, : (columns - 1) * n] = 0.0
    for part in parts:
        here = taken[done : done + part.samples]
        done += part.samples
        if isinstance(part, program.Program):
            lanes = columns * n
            flat, signal = state.reshape(3, lanes), here.reshape(part.samples, lanes)
            loops.play(part.code, part.value, part.rf, many, flat, signal, scratch)
        elif part.phases.size * columns >= _MAPPED_FROM:
            linear, reading = _map(part.body, known)
            _compiled("isochromat_repeats.py").repeat(linear, reading, part.phases, state, here)
        else:
            size = part.samples // part.phases.size
            for k, phase in enumerate(part.phases):
                _turn(state, -phase)
                _play(part.body, known, state, here[k * size : (k + 1) * size])
                _turn(state, phase)


def _map(parts: Sequence[program.Program | program.Loop], known: Floats) -> tuple[Floats, Complexes]:
    """The parts as an affine map (3, 4, spin), and what their samples read of the state before, (sample, 4, spin)."""
    n = known.shape[1]
    state = np.zeros((3, 4, n))
    state[[0, 1, 2], [0, 1, 2]] = 1.0
    reading = np.empty((sum(p.samples for p in parts), 4, n), complex)
    _play(parts, known, state, reading)
    return state, reading


def _turn(state: Floats, angle: float) -> None:
    if angle:
        state[:] = np.einsum("ij,j...->i...", _about_z(angle), state)


def _about_z(angle: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
