"""A block as the exchange engine runs it: sections between samples and spoilers, each of few distinct steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..acquisition.events.timeline import Block, Steps, steps

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Integers = NDArray[np.int64]

SAME_TIME = 1e-15
"""Durations (s) that differ by less are the same, but for the rounding of the block's clock."""
SAME = 1e-12
"""RF and gradients that differ by less than this part of the largest are the same."""


@dataclass(frozen=True, eq=False)
class Section:
    """Steps played without a break, and what happens after them.

    Attributes
    ----------
    time : ndarray (step,)
        Length of each distinct step (s).
    rf : complex ndarray (step,)
        Nutation frequency (Hz) and phase, in the frame of the carrier.
    place : int ndarray (step,)
        Row of `places` that holds.
    places : ndarray (place, 4)
        Carrier (Hz) and gradient along x, y, z (T/m).
    played : int ndarray (n,)
        The steps in the order in which they are played.
    turn : ndarray (n,)
        Angle (rad) about z after each.
    sample : int
        Number, within the block, of the sample taken at its end; -1 for none.
    receiver : float
        Phase of the receiver at that sample (rad).
    spoil : bool
        Whether the transverse magnetisation is gone after it.
    key : bytes
        The same for sections that do the same to the magnetisation, sample and spoiling apart.
    """

    time: Floats
    rf: Complexes
    place: Integers
    places: Floats
    played: Integers
    turn: Floats
    sample: int
    receiver: float
    spoil: bool
    key: bytes


def sections(block: Block, gradients: bool) -> tuple[Section, ...]:
    """The block's sections in order; without `gradients`, as spins see it that stand where no gradient acts."""
    cut = steps(block)
    ends = np.flatnonzero((cut.sample >= 0) | cut.spoil)
    edges = np.unique(np.concatenate([[0], ends + 1, [cut.duration.size]]))
    return tuple(_section(cut, int(a), int(b), gradients) for a, b in itertools.pairwise(edges))


def _section(cut: Steps, a: int, b: int, gradients: bool) -> Section:
    gradient = cut.gradient[a:b] if gradients else np.zeros((b - a, 3))
    rows = np.column_stack([cut.duration[a:b], cut.rf[a:b].real, cut.rf[a:b].imag, cut.carrier[a:b], gradient])
    grain = np.ones(rows.shape[1])
    grain[0] = SAME_TIME
    grain[1:3] = SAME * max(np.abs(cut.rf).max(), 1e-12)
    grain[3] = SAME * max(np.abs(cut.carrier).max(), 1e-12)
    grain[4:] = SAME * max(np.abs(cut.gradient).max(), 1e-12)
    coarse = np.round(rows / grain)
    # neighbours under the same conditions are one step
    first = np.flatnonzero(np.concatenate([[True], (np.diff(coarse[:, 1:], axis=0) != 0).any(axis=1)
                                           | (cut.turn[a : b - 1] != 0)]))  # fmt: skip
    last = np.concatenate([first[1:], [b - a]]) - 1
    rows, turn = rows[first], cut.turn[a:b][last]
    rows[:, 0] = np.add.reduceat(cut.duration[a:b], first)
    _, one, played = np.unique(np.round(rows / grain), axis=0, return_index=True, return_inverse=True)
    distinct = rows[one]
    places, place = np.unique(distinct[:, 3:], axis=0, return_inverse=True)
    played, place = played.astype(np.int64).ravel(), place.astype(np.int64).ravel()
    sample = int(cut.sample[b - 1])
    return Section(
        time=np.ascontiguousarray(distinct[:, 0]),
        rf=distinct[:, 1] + 1j * distinct[:, 2],
        place=place,
        places=places,
        played=played,
        turn=turn,
        sample=sample,
        receiver=float(cut.receiver[sample]) if sample >= 0 else 0.0,
        spoil=bool(cut.spoil[b - 1]),
        key=b"|".join(part.tobytes() for part in (distinct, played, turn)),
    )
