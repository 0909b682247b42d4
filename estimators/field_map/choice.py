"""One minimum a voxel, and how sure the choice is: of the whole image, through the compiled loops.

The choice (`labels`) weighs what the data of each voxel say against steps of the field between neighbours. What
would be swapped together is a sheet (`sheets`), and is sure by the evidence of all of its voxels, which is summed
or, where one composition explains them, found for all together (`evidence`); by what a swap would cost at its rim
where no step of the field is likely; or not, and is then called ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from ...errors import InputError
from ...simulator import kernels, threads
from .candidates import CAP, FAST, ROOM, Minima, Tables

STEP_COST, STEP = 9.0, 60.0  # of neighbours whose fields differ by STEP (Hz) and more: odds of a jump, exp(-9)
BOUND = 1.0  # cost of a step above which neighbours are of one sheet: slices up to nine times as far as columns
LOOSE = 0.11  # of the cost of steps: a choice that changes where neighbours bind so much less, by a step that is
# plausible, is called ambiguous: a part of its sheet may be swapped
PLAUSIBLE = 300.0  # Hz; larger steps are not expected: bone, air and metal make 200 Hz at 3 T, slopes and noise add
CERTAIN = 4.5  # SD: a swap that is called sure is rarer than this one-sided tail, 3e-6, at any distance of hypotheses
UNIFORM = 4.0  # SD by which the misfit of a sheet of one composition may exceed what noise makes it
SURE = 18.0  # half of 6 sigma squared; of a voxel at a step that a swap would only move
CLOSER = 2.5e-4  # 1/Hz; what a field farther from 0 costs a voxel: decides where data and neighbours do not
AGAINST = 6.0  # a choice that its own data speak against this much is called ambiguous, whatever the neighbours say
CLOSE = 1  # times that voxels among ambiguous ones become ambiguous themselves
SWEEPS = 60
LIKELY, WIDE = 40.0, 0.35  # of R2* where echoes leave it open: 1/s, and the SD of log(R2* + 60 /s)


def _compiled(name: str) -> ModuleType:
    return kernels.compiled(Path(__file__).with_name(name))


@dataclass(frozen=True)
class Graph:
    """Neighbours (voxel, 6), and what a step of the field costs along each axis."""

    beside: np.ndarray
    cost: np.ndarray
    step: np.ndarray
    period: float

    @classmethod
    def of(
        cls, inside: np.ndarray, bright: np.ndarray, voxel_size: tuple[float, float, float] | None, period: float
    ) -> Graph:
        """Of the voxels inside the mask; dark ones have no neighbours, so that noise is no bridge between islands."""
        number = np.full(inside.shape, -1, np.int32)
        number[inside] = np.where(bright, np.arange(len(bright)), -1)
        beside = np.full((len(bright), 6), -1, np.int32)
        _compiled("labels.py").neighbours(number, beside)
        size = np.ones(3) if voxel_size is None else np.asarray(voxel_size, float)
        if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
            raise InputError(f"field map: voxel_size is {voxel_size}; expected three positive numbers (z, y, x)")
        return cls(beside, STEP_COST * size.min() / size, np.full(3, STEP), period)


@dataclass(frozen=True)
class Choice:
    """What `choose` gives, (voxel,) each; as of `field_map.FieldMap`, and the residual of the chosen minimum."""

    field: np.ndarray
    r2star: np.ndarray
    residual: np.ndarray
    alternative: np.ndarray
    evidence: np.ndarray
    ambiguous: np.ndarray


def choose(found: Minima, values: np.ndarray, tables: Tables, spread: np.ndarray, graph: Graph) -> Choice:
    """One minimum a voxel, and how sure it is.

    Parameters
    ----------
    found : Minima
    values : ndarray of complex, (voxel, point)
    tables : Tables
        Those that `found` was found by.
    spread : ndarray, (voxel,)
        Variance of the noise of each real channel.
    graph : Graph
    """
    n_voxel = len(spread)
    rows = np.arange(n_voxel)
    misfit = (found.residual - found.residual[:, :1]) / (2 * spread[:, None]).astype(np.float32)
    near = (misfit < CAP) & (np.arange(ROOM) < found.count[:, None])
    count = near.sum(axis=1).astype(np.int8)
    width = max(int(count.max()), 2)
    misfit = np.ascontiguousarray(np.where(near, misfit, np.float32(np.inf))[:, :width])
    field = np.ascontiguousarray(found.field[:, :width])
    count = np.maximum(count, 1)
    leaning = misfit + np.float32(CLOSER) * np.abs(field)
    if len(tables.times) == 3:
        leaning += _unlikely(found.r2star[:, :width])
    label = _settled(field, leaning, count, graph, graph.cost)
    others = misfit.copy()
    others[rows, label] = np.inf
    second = others.argmin(axis=1).astype(np.int8)
    with np.errstate(invalid="ignore"):
        gain = (others[rows, second] - misfit[rows, label]).astype(float)
    alone = ~np.isfinite(gain)
    mine = field[rows, label].astype(float)
    other = np.where(alone, np.nan, field[rows, second].astype(float))
    apart = np.abs(mine - other)
    if graph.period:
        apart = np.minimum(apart, graph.period - apart)
    changed = _loosely(field, leaning, count, graph, label, ~(apart <= PLAUSIBLE))
    del leaning
    sheet, size = np.zeros(n_voxel, np.int64), np.zeros(n_voxel, np.int64)
    evidence, sure = np.zeros(n_voxel), np.zeros(n_voxel, bool)
    loops = _compiled("sheets.py")
    bound = np.where(graph.cost >= BOUND, graph.step, 0.0)  # far neighbours need not swap together
    loops.sheets(mine, other, gain, graph.beside, bound, graph.period, sheet, evidence, size)
    needed = needed_of(size)
    exchanged = _weighed(found, values, tables, spread, graph, (label, second), sheet, size, evidence, needed)
    swap = exchanged[sheet]
    label[swap], second[swap] = second[swap], label[swap]
    mine[swap], other[swap], gain[swap] = other[swap], mine[swap], -gain[swap]
    bonds = (graph.beside, graph.cost, graph.step, graph.period)
    loops.settled(mine, other, *bonds, PLAUSIBLE, sheet, evidence, needed, sure)
    loops.borders(mine, other, gain, *bonds, SURE, sure)
    if changed.any():  # parts of sheets that would be swapped alone: those that no step of the field explains are sure
        part = np.where(changed, other, np.nan)
        own, held = np.zeros(n_voxel), np.zeros(n_voxel, bool)
        group = np.zeros(n_voxel, np.int64)
        loops.sheets(mine, part, gain, graph.beside, bound, graph.period, group, own, size)
        loops.settled(mine, part, *bonds, PLAUSIBLE, group, own, needed_of(size), held)
        sure &= held
    # what its data speak against, and what is no minimum, is not sure whatever the neighbours say
    sure &= (evidence >= -AGAINST) & ~(found.slope & (label == 1))
    for _ in range(CLOSE):
        closed = np.zeros(n_voxel, bool)
        loops.close(sheet, graph.beside, sure, closed)
        sure = closed
    r2star = found.r2star[rows, label].astype(float)
    loops.unwrap(mine, graph.beside, graph.period, np.zeros(n_voxel, np.int64), np.zeros(n_voxel, np.int64))
    evidence = np.where(alone, np.inf, 2 * evidence)
    return Choice(mine, r2star, found.residual[rows, label], other, evidence, ~alone & ~sure)


def _unlikely(r2star: np.ndarray) -> np.ndarray:
    """What a rate costs where the echoes leave it open: a log-normal population about that of marrow and muscle."""
    cost: np.ndarray = 0.5 * (np.log((r2star + 60.0) / (LIKELY + 60.0)) / WIDE) ** 2
    return cost.astype(np.float32)


def needed_of(size: np.ndarray) -> np.ndarray:
    """Evidence, in half squares of sigma, that makes a sheet of so many voxels sure.

    The evidence of hypotheses at a distance d (in sigma, summed over n voxels) has mean d^2 and variance 4 d^2 + 8 n at
    most: where water is swapped for fat of one peak, d is 0, both fit alike, and for each voxel two chi-square
    variables of two degrees of freedom differ. The tail below -T is fattest at d^2 = T - 4 n, or at 0; it is that of
    `CERTAIN` standard deviations where T is this.
    """
    square = CERTAIN**2
    return np.where(size < square / 2, square / 2 + size, CERTAIN * np.sqrt(2.0 * size))


def _weighed(
    found: Minima,
    values: np.ndarray,
    tables: Tables,
    spread: np.ndarray,
    graph: Graph,
    labels: tuple[np.ndarray, np.ndarray],
    sheet: np.ndarray,
    size: np.ndarray,
    evidence: np.ndarray,
    needed: np.ndarray,
) -> np.ndarray:
    """Weigh again, as of one composition each, the sheets whose voxels do not decide; those to be swapped (voxel,).

    Where one composition explains a sheet under either field, `evidence` and `needed` become those of one voxel with
    all the sheet's signal.
    """
    asked = (size > 1) & (evidence < needed)
    exchanged = np.zeros(len(sheet), bool)
    if not asked.any():
        return exchanged
    voxels = np.flatnonzero(asked[sheet])
    quick = np.zeros(len(sheet), bool)  # sheets with a voxel whose rate may be beyond the first grid: they come first
    quick[sheet[voxels[found.fast[voxels]]]] = True
    voxels = voxels[np.lexsort((sheet[voxels], ~quick[sheet[voxels]]))]
    begin = np.flatnonzero(np.diff(sheet[voxels], prepend=-1))
    first = sheet[voxels[begin]]
    weight = 1.0 / spread[voxels]
    field = np.stack([found.field[voxels, k[voxels]] for k in labels]).astype(float)
    left = np.stack([found.residual[voxels, k[voxels]] for k in labels]).astype(float)
    part = np.ascontiguousarray(values[voxels], complex)
    explained = np.zeros((2, len(first)))
    shared = _compiled("evidence.py").shared
    common = tables.common
    edges = np.append(begin, len(voxels))

    def work(rates: np.ndarray, start: int, a: int, b: int) -> None:
        shared(
            part, field, weight, edges, tables.times, tables.fat, rates, common, start + a, start + b, explained
        )  # fmt: skip

    n_quick = int(quick[first].sum())
    for rates, start, stop in ((FAST, 0, n_quick), (tables.rates, n_quick, len(first))):
        threads.each_block(stop - start, partial(work, rates, start), 64)
    power = np.add.reduceat((part.real**2 + part.imag**2).sum(axis=1) * weight, begin)
    more = power - explained - np.add.reduceat(left * weight, begin, axis=1)  # misfit of one composition over many
    freedom = ((1 if common else 2) + (len(tables.rates) > 1)) * (size[first] - 1)
    one = (more < freedom + UNIFORM * np.sqrt(2.0 * freedom)).all(axis=0)
    asked[first[~one]] = False
    first, explained = first[one], explained[:, one]
    evidence[first] = (explained[0] - explained[1]) / 2
    needed[first] = needed_of(np.ones(len(first)))
    rim, fields = np.zeros(len(sheet)), [found.field[np.arange(len(sheet)), k].astype(float) for k in labels]
    _compiled("sheets.py").rims(*fields, graph.beside, graph.cost, graph.step, graph.period, sheet, asked, rim)
    closer = np.bincount(sheet, CLOSER * (np.abs(fields[1]) - np.abs(fields[0])), len(sheet))
    exchanged[first] = evidence[first] + rim[first] + closer[first] < 0
    evidence[exchanged] *= -1
    return exchanged


def _settled(field: np.ndarray, misfit: np.ndarray, count: np.ndarray, graph: Graph, cost: np.ndarray) -> np.ndarray:
    """Number of the chosen minimum of each voxel, where a step of the field costs this."""
    label = np.zeros(len(field), np.int8)
    message = np.zeros((len(field), 6, field.shape[1]), np.float32)
    settle = _compiled("labels.py").settle
    settle(field, misfit, count, graph.beside, cost, graph.step, graph.period, SWEEPS, message, label)
    return label


def _loosely(
    field: np.ndarray, misfit: np.ndarray, count: np.ndarray, graph: Graph, label: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Which voxels choose otherwise where steps cost less, while those that are held keep their choice."""
    changed = np.zeros(len(held), bool)
    if not held.all():
        fixed = np.flatnonzero(held)
        field, misfit, count = field.copy(), misfit.copy(), np.where(held, np.int8(1), count)
        field[fixed, 0], misfit[fixed, 0] = field[fixed, label[fixed]], 0.0
        changed = ~held & (_settled(field, misfit, count, graph, graph.cost * LOOSE) != label)
    return changed
