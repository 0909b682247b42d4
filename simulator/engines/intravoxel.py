"""Spins inside a voxel: places that a gradient dephases as it does a real voxel, and offsets of a Lorentzian line.

Spins in a row do not know what lies between them: a gradient that turns neighbours by a whole turn leaves them in
phase, and a simulated spoiler that does so spoils nothing. `subvoxel` spreads the spins and refuses such a count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.events.timeline import AXES, Timeline
from .isochromats import Isochromats

Floats = NDArray[np.float64]

MOST = 1e-3
"""Largest error of a dephased signal, of all transverse magnetisation, that a count of spins may make."""
_SEARCHED = 4096  # spins along an axis beyond which no count is looked for
_PERIODS = 16384  # as many a spin may remember


def subvoxel(
    spins: Isochromats, size: Sequence[float], count: Sequence[int], timeline: Timeline | None = None
) -> tuple[Isochromats, NDArray[np.int64]]:
    """Each spin as many, spread evenly over a voxel around it, with its density shared among them.

    Along an axis of n spins the mean of their phases is that of a uniform voxel where the gradient turns the edges
    against each other by a whole number of turns, unless that number is a multiple of n; in between it errs by about
    1.6 (turns/n)**2 of the sinc.

    Parameters
    ----------
    spins : Isochromats
        One a voxel, in its middle.
    size : three floats
        Edges of the voxel along x, y, z (m).
    count : three ints
        Spins along x, y, z: 1 where nothing dephases along the axis.
    timeline : Timeline, optional
        What they will play, one period where it is repeated: a count that is too small for it is refused.

    Returns
    -------
    Isochromats
        count[0] * count[1] * count[2] for each.
    ndarray of int (spin,)
        The voxel of each, as `signal=` of the engine takes it.

    Raises
    ------
    InputError
        A size below 0 or a count below 1; or too few spins for the gradients of the timeline.
    """
    edges = _three("size", size, lambda v: math.isfinite(v) and v >= 0, "lengths from 0 up (m)")
    number = [int(n) for n in _three("count", count, lambda v: v == int(v) and v >= 1, "whole numbers from 1 up")]
    if timeline is not None:
        for axis, (edge, n) in enumerate(zip(edges, number, strict=True)):
            error, when = _moments(timeline, axis, float(spins.T2.max())).error(edge, n, float(spins.T2.max()))
            if error > MOST:
                wanted = enough(timeline, edges, float(spins.T2.max()))[axis]
                raise InputError(
                    f"subvoxel: count is {n} along {AXES[axis]}: too few spins a voxel make spoiling wrong, here by "
                    f"{error:.2g} of the transverse magnetisation ({when}): expected {wanted}"
                )
    ways = [(np.arange(n) + 0.5) / n - 0.5 for n in number]
    place = np.stack(np.meshgrid(*ways, indexing="ij"), axis=-1).reshape(-1, 3) * edges
    voxel = np.repeat(np.arange(len(spins)), len(place))
    many = spins.at(voxel)
    position = many.position + np.tile(place, (len(spins), 1))
    return replace(many, position=position, density=many.density / len(place)), voxel


def enough(timeline: Timeline, size: Sequence[float], T2: float) -> tuple[int, int, int]:
    """How many spins along x, y, z let a voxel of this size (m) dephase as it should while this timeline is repeated.

    The error of every moment of the gradients, as it stands after each block of the first period and at the end of each
    later one, times what T2 (s) leaves of the transverse magnetisation by then, stays below `MOST`.

    Raises
    ------
    InputError
        More than 4096 along an axis, or a T2 of more than 16384 periods' memory.
    """
    found = []
    for axis, edge in enumerate(size):
        moments = _moments(timeline, axis, T2)
        n = next((n for n in range(1, _SEARCHED + 1) if moments.error(edge, n, T2)[0] <= MOST), 0)
        if n == 0:
            raise InputError(f"subvoxel: a voxel of {edge:g} m along {AXES[axis]} needs more than {_SEARCHED} spins "
                             f"for timeline {timeline.name}: expected a smaller voxel or gradient")  # fmt: skip
        found.append(n)
    return found[0], found[1], found[2]


def lorentzian(spins: Isochromats, r2_prime: Any, count: int, longest: float) -> tuple[Isochromats, NDArray[np.int64]]:
    """Each spin as many, with offsets of a Lorentzian line about its own: together they decay as exp(-r2_prime t) more.

    Offsets are evenly spaced, with the share of the line there as density; the sum repeats itself so late that exp(-8)
    of it is left at `longest`. The tails beyond the last offset are missing: with X = count pi/(r2_prime longest + 8),
    its distance in half widths, the sum errs by less than 1/X of all, most of it a common factor.

    Parameters
    ----------
    spins : Isochromats
    r2_prime : float or ndarray (spin,)
        Rate (1/s), from 0 up.
    count : int
        Spins for each.
    longest : float
        Longest time (s) over which a spin dephases freely.

    Returns
    -------
    Isochromats
    ndarray of int (spin,)
        The spin that each comes from, as `signal=` of the engine takes it.

    Raises
    ------
    InputError
        A rate or a time below 0, or no spin.
    """
    rate = np.asarray(r2_prime, dtype=float)
    if rate.shape not in ((), (len(spins),)) or not np.isfinite(rate).all() or (rate < 0).any():
        raise InputError(f"lorentzian: r2_prime has shape {rate.shape}: expected one rate, or one for each of "
                         f"{len(spins)} spins, from 0 up (1/s)")  # fmt: skip
    if not (math.isfinite(longest) and longest >= 0):
        raise InputError(f"lorentzian: longest is {longest!r} s: expected from 0 up")
    if count != int(count) or count < 1:
        raise InputError(f"lorentzian: count is {count!r}: expected a whole number from 1 up")
    rate = np.broadcast_to(rate, (len(spins),))[:, None]
    place = (np.arange(int(count)) - (count - 1) / 2) * 2 * math.pi / (rate * longest + 8)  # in half widths
    share = 1 / (1 + place**2)
    share /= share.sum(axis=1, keepdims=True)
    source = np.repeat(np.arange(len(spins)), int(count))
    many = spins.at(source)
    offset = many.offset + (rate / (2 * math.pi) * place).ravel()
    return replace(many, offset=offset, density=many.density * share.ravel()), source


def _three(name: str, value: Any, fits: Any, wanted: str) -> list[float]:
    try:
        numbers = [float(v) for v in value]
        good = len(numbers) == 3 and all(map(fits, numbers))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InputError(f"subvoxel: {name} is {value!r}: expected three {wanted}, along x, y, z")
    return numbers


@dataclass(frozen=True, eq=False)
class _Moments:
    """What gradients have made by certain times: turns per metre, age (s), and when in words."""

    turns: Floats
    age: Floats
    when: tuple[str, ...]

    def error(self, edge: float, count: int, T2: float) -> tuple[float, str]:
        """Largest error of the mean phase of `count` spins along an axis, and when."""
        if not self.turns.size:
            return 0.0, ""
        turns = self.turns * edge
        s = np.sin(math.pi * turns / count)
        along = np.abs(s) > 1e-12  # elsewhere all spins of the row are in phase
        row = np.where(along, np.sin(math.pi * turns) / (count * np.where(along, s, 1.0)), 1.0)
        error = np.abs(np.abs(row) - np.abs(np.sinc(turns))) * np.exp(-self.age / T2)
        worst = int(np.argmax(error))
        return float(error[worst]), self.when[worst]


def _moments(timeline: Timeline, axis: int, T2: float) -> _Moments:
    """After each block of the first period, of that block alone and of all so far, and after each later period."""
    turns, ages, when = [], [], []
    moment = age = 0.0
    for index, (block, _, _) in enumerate(timeline.played()):
        step = sum(timeline.gamma * g.area for g in block.gradients if g.axis == AXES[axis])
        moment, age = moment + step, age + block.duration
        if step:
            turns += [step, moment]
            ages += [block.duration, age]
            when += [f"block {index}", f"up to block {index}"]
    if moment and age > 0 and math.isfinite(T2):
        periods = math.ceil(T2 / age * math.log(1 / MOST))
        if periods > _PERIODS:
            raise InputError(f"subvoxel: timeline {timeline.name} lasts {age:g} s, T2 {T2:g} s: a spin remembers "
                             f"{periods} periods: expected {_PERIODS} at most")  # fmt: skip
        later = np.arange(2, periods + 1)
        turns += (later * moment).tolist()
        ages += (later * age).tolist()
        when += [f"after {n} periods" for n in later]
    return _Moments(np.array(turns), np.array(ages), tuple(when))
