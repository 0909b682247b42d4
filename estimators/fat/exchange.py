"""Which of two images of water and fat: the one, or the same with water and fat exchanged.

Two echoes leave two candidates a voxel, each with a field of its own. Neighbours share a field, and so tell which
candidate of the one goes with which of the other: voxels grow together into regions that can be exchanged only as a
whole. Which way round a region stands follows from fat's spectrum alone. Were fat one peak, in phase and opposed, the
exchanged image would stand in a field half a period away, alike everywhere, and fit as well. The field that the
exchanged image of fat's many peaks needs depends on the voxel's fat fraction: it is rough where tissue is mixed, and
rougher than any tissue's magnetism makes it. What is rough about it is summed over the region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...simulator.constants import GYROMAGNETIC
from .candidates import Candidates
from .train import Train

SURE = 18.0
"""Half of 6 sigma squared: what the -log likelihoods of two hypotheses must differ by."""

SIGMAS = 6.0
"""Of the standard deviations of chance that the evidence of a region must reach besides."""

STEP = 60.0
"""SD (Hz) of a large step of the field from one voxel to the next, as beside air."""

JUMP = 6.0
"""-log of the odds that a step is a large one."""

SMALLEST = 1.0
"""SD (Hz) of ordinary steps below which no image of tissue is smooth."""

WHOLE = 4
"""Voxels from which on a region is held to `SURE` before it is joined to another; smaller ones to their share."""

MOST = 9.0
"""A pair of neighbours tells no more than this (of -log likelihood): its field or its data may be of another kind."""

LEAST = MOST / 4
"""What one voxel may speak wrongly where none does: a few voxels do not tell their own errors."""

PHASES = (0.0, -0.1, 0.1)
"""Phases (rad) of fat against water at TE 0 under each of which evidence must decide alike: one phase is assumed, but
a pulse whose middle is told 40 us wrong, or water that is 5 degrees colder than believed, makes as much (3 T)."""

MAGNETISM = 0.9
"""Largest step of the field (ppm) between pure water and pure fat: two thirds of the difference of their volume
susceptibilities (-9.05 and, at most, -7.8 ppm; at a border across B0), and a little. What the exchange adds to a step
counts only where it is more than twice this, in proportion to the step of the fat fraction."""

CHI2_MEDIAN = 0.4549
"""Of one degree of freedom."""


class Pairs(NamedTuple):
    """Voxels side by side, (pair,) each.

    Attributes
    ----------
    first, second : ndarray of int
        Numbered over the mask.
    apart : ndarray
        Their distance over that of the nearest neighbours.
    """

    first: np.ndarray
    second: np.ndarray
    apart: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, bright: np.ndarray, voxel_size: np.ndarray | None) -> Pairs:
        """Of the bright voxels of an image; of more than three dimensions, the last three are space."""
        number = np.full(mask.shape, -1)
        number[mask] = np.where(bright, np.arange(bright.size), -1)
        size = np.ones(3) if voxel_size is None else voxel_size / voxel_size.min()
        found = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
        for axis in range(max(mask.ndim - 3, 0), mask.ndim):
            line = np.moveaxis(number, axis, 0)
            a, b = line[:-1].ravel(), line[1:].ravel()
            both = (a >= 0) & (b >= 0)
            found.append((a[both], b[both], np.full(int(both.sum()), size[axis - mask.ndim])))
        return cls(*map(np.concatenate, zip(*found, strict=True)))

    def take(self, some: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(part[some] for part in self))


@dataclass(frozen=True)
class Steps:
    """How the field of neighbours may differ: variances (rad2, (pair,)) of ordinary and of large steps."""

    ordinary: np.ndarray
    large: np.ndarray

    @classmethod
    def of(cls, pairs: Pairs, train: Train, ordinary: float = STEP) -> Steps:
        """With SDs in Hz for nearest neighbours; a step grows with the way."""
        turn = 2 * np.pi * (train.times[1] - train.times[0]) * pairs.apart
        return cls((turn * ordinary) ** 2, (turn * max(STEP, ordinary)) ** 2)

    def take(self, some: np.ndarray) -> Steps:
        """Of some of the pairs."""
        return Steps(self.ordinary[some], self.large[some])

    def cost(self, turn: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """-log likelihood of turns (phasors) from one voxel to the next, whose noise has this variance (rad2)."""
        square = np.angle(turn) ** 2 / 2
        least: np.ndarray = np.minimum(square / (variance + self.ordinary), JUMP + square / (variance + self.large))
        return least


def costs(candidates: Candidates, variance: np.ndarray, pairs: Pairs, steps: Steps) -> np.ndarray:
    """-log likelihood of each pair's step by the candidates of the first and of the second, (2, 2, pair)."""
    a, b, turn = pairs.first, pairs.second, candidates.turn
    table = np.empty((2, 2, a.size))
    for i in (0, 1):
        for j in (0, 1):
            table[i, j] = steps.cost(turn[i, a] * turn[j, b].conj(), variance[i, a] + variance[j, b])
    return table


def bonds(cost: np.ndarray) -> np.ndarray:
    """By how much each pair wants like candidates rather than unlike ones, (pair,), from its `costs`.

    Half the difference: of the better of the two unlike combinations, less the better of the like.
    """
    pull: np.ndarray = (np.minimum(cost[0, 1], cost[1, 0]) - np.minimum(cost[0, 0], cost[1, 1])) / 2
    return pull


def smoothness(
    candidates: Candidates, variance: np.ndarray, label: np.ndarray, pairs: Pairs, steps: Steps
) -> np.ndarray:
    """By how much each pair, as labelled, is smooth rather than stepped or exchanged on one side, (pair,).

    Half the difference of -log likelihood, as of `bonds`. A step is a step, however large: were a small one the
    likelier, an image whose field steps by what the exchange adds would be believed where it is exchanged.
    """
    a, b, turn = pairs.first, pairs.second, candidates.turn
    mine, theirs = label[a].astype(int), label[b].astype(int)

    def cost(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        square = np.angle(turn[i, a] * turn[j, b].conj()) ** 2 / 2
        each: np.ndarray = square / (variance[i, a] + variance[j, b] + steps.ordinary)
        return each

    unlike = np.minimum(cost(1 - mine, theirs), cost(mine, 1 - theirs))
    told: np.ndarray = (np.minimum(unlike, JUMP) - np.minimum(cost(mine, theirs), 2 * JUMP)) / 2
    return told


def regions(bond: np.ndarray, pairs: Pairs, n_voxel: int, alike: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """Voxels grown together along their strongest bonds: how they grew, and the orientation of each.

    Each region joins the neighbour that it is most sure about, by the sum over all pairs between the two; joined ones
    again, until no two are sure enough of each other. Voxels of one region and of one orientation have like candidates.

    Parameters
    ----------
    bond : ndarray, (pair,)
    pairs : Pairs
    n_voxel : int
    alike : bool
        Negative bonds keep apart; without it they join voxels of the other orientation.

    Returns
    -------
    growth : list of ndarray of int
        Of each round, into which region each one of the round before went (of the first round, each voxel).
    flipped : ndarray of bool, (voxel,)

    Notes
    -----
    Greedy contraction of the most certain edges of a signed graph: Keuper et al., ICCV 2015, 1751,
    doi:10.1109/ICCV.2015.204; all regions at once as in Boruvka's spanning tree.
    """
    region, flipped = np.arange(n_voxel), np.zeros(n_voxel, bool)
    growth: list[np.ndarray] = []
    a, b, weight = pairs.first, pairs.second, bond
    size: np.ndarray = np.ones(n_voxel)
    while a.size:
        firm = np.flatnonzero(2 * (weight if alike else np.abs(weight)) >= needed(np.minimum(size[a], size[b])))
        if not firm.size:
            break
        # the strongest of each; ties are broken alike from both sides, so that the choices close no circle
        order = firm[np.argsort(np.abs(weight[firm]), kind="stable")]
        best = np.full(size.size, -1)
        best[np.stack([a[order], b[order]], axis=1).ravel()] = np.repeat(order, 2)
        here = np.arange(size.size)
        joined = best >= 0
        parent, turned = here.copy(), np.zeros(size.size, bool)
        parent[joined] = a[best[joined]] + b[best[joined]] - here[joined]
        turned[joined] = weight[best[joined]] < 0
        mutual = (parent[parent] == here) & (here < parent)
        parent[mutual], turned[mutual] = here[mutual], False
        while (parent[parent] != parent).any():
            turned = turned ^ turned[parent]
            parent = parent[parent]
        root = np.unique(parent, return_inverse=True)[1]
        growth.append(root)
        flipped ^= turned[region]
        region = root[region]
        size = np.bincount(root, size)
        weight = np.where(turned[a] ^ turned[b], -weight, weight)
        a, b = root[a], root[b]
        between = a != b
        a, b, weight = a[between], b[between], weight[between]
        key, place = np.unique(np.minimum(a, b) * size.size + np.maximum(a, b), return_inverse=True)
        weight = np.bincount(place, weight, key.size)
        a, b = key // size.size, key % size.size
    return growth, flipped


def needed(size: np.ndarray) -> np.ndarray:
    """What the -log likelihoods of two hypotheses about a piece of so many voxels must differ by."""
    least: np.ndarray = SURE * np.minimum(1.0, size / WHOLE)
    return least


class Exchange(NamedTuple):
    """The steps that a labelling and its exchange make: turns (phasors), their variances and steps of the fraction.

    (2, pair) each: of the labelling, of its exchange.
    """

    turn: np.ndarray
    variance: np.ndarray
    rise: np.ndarray

    @classmethod
    def of(cls, candidates: Candidates, variance: np.ndarray, label: np.ndarray, pairs: Pairs) -> Exchange:
        """Of the labelling by which each voxel takes its candidate of more fat, or does not."""
        found = []
        for mine in (label, ~label):
            turn, v, p = (candidates.pick(x, mine) for x in (candidates.turn, variance, candidates.fraction))
            a, b = pairs.first, pairs.second
            found.append((turn[a] * turn[b].conj(), v[a] + v[b], np.abs(p[a] - p[b])))
        return cls(*map(np.stack, zip(*found, strict=True)))

    def ordinary_step(self, pairs: Pairs, train: Train) -> float:
        """SD (Hz) of the step that most pairs make beyond noise, in the smoother of the two images."""
        turn = 2 * np.pi * (train.times[1] - train.times[0]) * pairs.apart
        square, noise = (np.angle(self.turn) / turn) ** 2, self.variance / turn**2
        low, high = SMALLEST, STEP
        for _ in range(12):  # to a part in 4000 of the range
            middle = (low + high) / 2
            if np.median(square / (noise + middle**2), axis=1).min() > CHI2_MEDIAN:
                low = middle
            else:
                high = middle
        return high

    def evidence(self, pairs: Pairs, train: Train, steps: Steps) -> np.ndarray:
        """By how much each pair speaks for the labelling and against its exchange (of -log likelihood), (pair,).

        The cost of the step under the exchange, less that under the labelling. A voxel's noise enters all its pairs:
        what they tell is divided by the number of pairs a voxel.
        """
        magnetism = MAGNETISM * 1e-6 * GYROMAGNETIC["1H"] * train.field_strength
        most = 2 * np.pi * (train.times[1] - train.times[0]) * 2 * magnetism * self.rise.max(axis=0)
        cost = np.minimum(steps.cost(self.turn, self.variance), MOST)
        told = np.where(np.abs(np.angle(self.turn[1] * self.turn[0].conj())) > most, cost[1] - cost[0], 0.0)
        bound = np.unique(np.concatenate([pairs.first, pairs.second])).size
        each: np.ndarray = told / max(told.size / max(bound, 1), 1.0)
        return each


def settled(told: np.ndarray, pairs: Pairs, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of each region from that of its pairs, and whether it decides.

    It must exceed `SURE`, and `SIGMAS` standard deviations of what adds up by chance, whatever errors of the voxels do
    so. Chance speaks for and against alike: twice the squares of the voxels that speak against is its variance, and as
    each pair is halved between two voxels, which share it, twice as much again.
    """
    n = region.size
    voice = (np.bincount(pairs.first, told, n) + np.bincount(pairs.second, told, n)) / 2
    total = np.bincount(region, voice)
    against = np.bincount(region, np.where(voice * total[region] < 0, voice**2, 0.0))
    return total, np.abs(total) >= np.maximum(SURE, SIGMAS * np.sqrt(4 * (against + LEAST**2)))


def pieces(
    growth: list[np.ndarray], label: np.ndarray, told: list[tuple[np.ndarray, np.ndarray]], pairs: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Parts of regions that may better be exchanged by themselves: the labels put right, and voxels that stay in doubt.

    Each piece that a region grew from, of half of it at most and down to single voxels, is exchanged where that costs
    less: by what its inner pairs tell, and by its border's steps. In doubt is a piece that costs hardly more when
    exchanged.

    Parameters
    ----------
    growth : list of ndarray
        As `regions` gives it.
    label : ndarray of bool, (voxel,)
    told : list of tuple
        For each phase that fat may have: `costs`, (2, 2, pair), and evidence for `label` against its exchange, (pair,).
        A piece is exchanged where all of them say so, and in doubt where one does.
    pairs : Pairs
        Within regions.
    """
    a, b, number = pairs.first, pairs.second, np.arange(pairs.first.size)
    kept = label.copy()  # evidence was told of this
    levels = [np.arange(label.size)]
    for root in growth:
        levels.append(root[levels[-1]])
    region = levels.pop()
    whole = np.bincount(region)[region]
    doubt = np.zeros(label.size, bool)
    borders: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # costs more: all of a pair exchanged, or one of it
    for final in (False, True):
        for piece in reversed(levels):
            if not borders:
                i, j = label[a].astype(int), label[b].astype(int)
                for cost, evidence in told:
                    now, toward = cost[i, j, number], np.where(label[a] == kept[a], evidence, -evidence)
                    borders.append((toward, cost[1 - i, j, number] - now, cost[i, 1 - j, number] - now))
            within = piece[a] == piece[b]
            size = np.bincount(piece)
            part = np.zeros(size.size, bool)
            part[piece] = 2 * size[piece] <= whole
            more = [
                np.bincount(piece[a], np.where(within, both, first), size.size)
                + np.bincount(piece[b], np.where(within, 0.0, second), size.size)
                for both, first, second in borders
            ]
            if final:
                doubt |= (part & (np.min(more, axis=0) < needed(size)))[piece]
                continue
            better = part & (np.max(more, axis=0) < 0)
            if better.any():
                label = label ^ better[piece]
                borders = []
    return label, doubt
