"""Field map of water-fat MRI by a global method: every minimum of every voxel, and one choice over the whole image.

The residual of a voxel as a function of the field has several minima: a voxel of water at one field looks much like
one of fat at another, and where echoes are evenly spaced the field is known modulo 1/spacing only. Three steps, one
compiled loop each: all minima (`field_minima`), the choice among them (`field_labels`), and how sure it is
(`field_sheets`). Nothing asks for a smooth field: a step of the field costs the same however large it is, and regions
that air separates are decided each by its own data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import InputError
from ..simulator import kernels, threads

RATES = 60.0 * np.expm1(np.linspace(0.0, np.log(11.0), 8))  # 1/s, 0 to 600: closer where tissue is
SLOW = 180.0  # 1/s; of three echoes, which leave R2* open, faster rates are not considered
TYPICAL = np.array([40.0])  # 1/s; tells the noise of three echoes
REACH = 1000.0  # Hz; the field lies within, or within half a period of the echoes where that is less
NODES = 12  # of the grid for each turn of the fastest term: the expansion about a node is then good to 1e-4 of a term
ROOM = 5  # minima kept of each voxel
CAP = 30.0  # a minimum this much worse (in -log likelihood) than the best is not considered: 7.7 sigma
STEP_COST, STEP = 9.0, 60.0  # of neighbours whose fields differ by STEP (Hz) and more: odds of a jump, exp(-9)
LOOSE = 0.11  # of the cost of steps: a choice that changes where neighbours bind so much less, by a step that is
# plausible, is called ambiguous: a part of its sheet may be swapped
PLAUSIBLE = 300.0  # Hz; larger steps are not expected: bone, air and metal make 200 Hz at 3 T, slopes and noise add
CERTAIN = 4.5  # SD: a swap that is called sure is rarer than this one-sided tail, 3e-6, at any distance of hypotheses
UNIFORM = 4.0  # SD by which the misfit of a sheet of one composition may exceed what noise makes it
SURE = 18.0  # half of 6 sigma squared; of a voxel at a step that a swap would only move
MERGED = 1.3  # turns of the fat against the water over the echoes, as seen: below, the minima of a swap may be one
CLOSER = 2.5e-4  # 1/Hz; what a field farther from 0 costs a voxel: decides where data and neighbours do not
AGAINST = 6.0  # a choice that its own data speak against this much is called ambiguous, whatever the neighbours say
CLOSE = 1  # times that voxels among ambiguous ones become ambiguous themselves
SWEEPS = 60
MAX_SNR = 1e4  # the noise is at least the typical signal over this: the minima themselves are no more exact
ENOUGH, RAISED = 30, 1.1  # bright voxels that tell the noise again by the choice; variance above which that is used
BRIGHT = 6.0  # standard deviations by which a voxel's power exceeds that of noise alone


@dataclass(frozen=True)
class FieldMap:
    """Result of `solve`; images (z, y, x), NaN (False) outside the mask and where the data mean nothing.

    Attributes
    ----------
    field : ndarray
        Hz. Where `period` is not 0, known modulo that: whole periods are added so that neighbours are close, and that
        the mean of each connected region is near 0.
    r2star : ndarray
        1/s; good enough to start a fit from.
    ambiguous : ndarray of bool
        Where water and fat may be swapped: the sheet of voxels that would swap together tells its choice from the
        other by less than 6 sigma, or the data speak against what the neighbours say.
    alternative : ndarray
        The second-best field, Hz; NaN where no other comes close.
    evidence : ndarray
        Residual of the second best less that of the choice over the noise variance, summed over the voxel's sheet;
        inf where there is no alternative. 36 is 6 sigma.
    sigma : ndarray or float
        Noise SD of each real channel, given or estimated.
    period : float
        1/spacing of even echoes, Hz, or 0.
    """

    field: np.ndarray
    r2star: np.ndarray
    ambiguous: np.ndarray
    alternative: np.ndarray
    evidence: np.ndarray
    sigma: float | np.ndarray
    period: float


def solve(
    data: np.ndarray,
    mask: np.ndarray,
    echo_times: np.ndarray,
    fat: np.ndarray,
    *,
    common_phase: bool = False,
    r2star_grid: np.ndarray | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    sigma: float | np.ndarray | None = None,
    reach: float = REACH,
) -> FieldMap:
    """Field map of multi-echo data of water and fat.

    The signal is (W + F c(t)) exp(+i 2 pi psi t) exp(-R2* t), with complex W and F.

    Parameters
    ----------
    data : (z, y, x, point) complex array
    mask : (z, y, x) array of bool
    echo_times : (point,)
        s; three at least.
    fat : (point,) complex array
        c(t), the fat's signal at each echo time relative to water: sum_m a_m exp(+i 2 pi nu_m t).
    common_phase : bool
        Whether water and fat have one phase.
    r2star_grid : (rate,), optional
        1/s, rising; 0 to 600 in eight steps (three echoes, which leave R2* open: to 180, about 40 where data and
        neighbours do not decide).
    voxel_size : (3,), optional
        Along z, y, x, in any unit: neighbours that are farther apart bind less. Cubes without it.
    sigma : float or (z, y, x) array, optional
        Noise SD of each real channel. Without it the residuals of all voxels tell it.
    reach : float
        Hz: fields to +-reach are considered, or half the period of even echoes where that is less.

    Raises
    ------
    InputError
        If a shape does not fit, echo times are equal, negative, too few or look like milliseconds, fat cannot be told
        from water, or sigma is neither given nor can be estimated.

    Notes
    -----
    Variable projection over field and R2*: Hernando, MRM 59:571 (2008), doi:10.1002/mrm.21522. Choice of minima over
    the graph of voxels: Hernando, MRM 63:79 (2010), doi:10.1002/mrm.22177; Kolmogorov, IEEE TPAMI 28:1568 (2006),
    doi:10.1109/TPAMI.2006.200.
    """
    data, mask, times, fat = _checked(data, mask, echo_times, fat)
    rates = _rates(r2star_grid, len(times))
    freedom = 2 * len(times) - (4 if common_phase else 5) - (len(rates) > 1)
    inside = mask & np.isfinite(data).all(axis=-1) & (data != 0).any(axis=-1)
    noise = _noise_given(sigma, inside)
    images = [np.full(mask.shape, np.nan) for _ in range(4)]
    if not inside.any():
        return FieldMap(images[0], images[1], np.zeros(mask.shape, bool), images[2], images[3],
                        np.nan if noise is None else noise, 0.0)  # fmt: skip
    values = data[inside]
    tables = _Tables.of(times, fat, rates, common_phase, reach)
    found = _Minima.of(values, tables)
    power = (values.real**2 + values.imag**2).sum(axis=1)
    again = noise is None and freedom > 0
    if noise is None:
        if freedom < 1 and r2star_grid is not None:
            raise InputError(f"field map: {len(times)} echoes leave no residual to tell the noise by; give sigma")
        typical = found if freedom > 0 else _Minima.of(values, _Tables.of(times, fat, TYPICAL, common_phase, reach))
        least = float(np.median(power)) / len(times) / MAX_SNR**2
        noise = float(np.sqrt(max(_variance(typical.residual[:, 0], max(freedom, 1)), least)))
    found.swapped_too(values, tables, np.broadcast_to(noise, mask.shape)[inside] ** 2)
    while True:
        spread = np.broadcast_to(noise, mask.shape)[inside] ** 2
        expected = 2 * len(times)
        bright = power > spread * (expected + BRIGHT * np.sqrt(2 * expected))
        chosen = _choose(found, values, tables, spread, _Graph.of(inside, bright, voxel_size, tables.period))
        if not again or bright.sum() < ENOUGH:
            break
        # the least of several minima is too small a residual: that of the choice, where there is signal, tells better
        again, better = False, _variance(chosen.residual[bright], freedom)
        if better < RAISED * float(spread[0]):
            break
        noise = float(np.sqrt(better))
    ambiguous = np.zeros(mask.shape, bool)
    ambiguous[inside] = chosen.ambiguous
    for image, part in zip(images, (chosen.field, chosen.r2star, chosen.alternative, chosen.evidence), strict=True):
        image[inside] = part
    return FieldMap(images[0], images[1], ambiguous, images[2], images[3], noise, tables.period)


def _variance(residual: np.ndarray, freedom: int) -> float:
    """Of the noise of each real channel, from the median of residuals with so many degrees of freedom."""
    from scipy import stats

    return float(np.median(residual)) / float(stats.chi2.median(freedom))


def _compiled(name: str) -> ModuleType:
    return kernels.compiled(Path(__file__).with_name(name))


@dataclass(frozen=True)
class _Tables:
    """What the loop over voxels needs of the echo times; see `field_minima.minima`."""

    times: np.ndarray
    fat: np.ndarray
    psi: np.ndarray
    rates: np.ndarray
    period: float
    pairs: np.ndarray
    diagonal: np.ndarray
    projector: np.ndarray
    lag: np.ndarray
    turn: np.ndarray
    sums: np.ndarray
    second: np.ndarray
    total: np.ndarray
    total_turn: np.ndarray

    @property
    def common(self) -> bool:
        """Whether water and fat have one phase."""
        return len(self.sums) > 0

    @classmethod
    def of(cls, times: np.ndarray, fat: np.ndarray, rates: np.ndarray, common: bool, reach: float) -> _Tables:
        n = len(times)
        spacing = np.diff(times)
        even = bool(np.ptp(spacing) < 1e-6 * spacing.mean())
        fastest = (times[-1] - times[0]) * NODES
        period = 1 / float(spacing.mean()) if even else 0.0
        if even and period <= 2 * reach:
            psi = (np.arange(NODES * (n - 1)) / (NODES * (n - 1)) - 0.5) * period
        else:
            period = 0.0
            half = int(np.ceil(reach * fastest)) + 1  # a minimum needs a node on either side
            psi = np.arange(-half, half + 1) / fastest
        basis = np.exp(-rates[:, None] * times)[:, :, None] * np.stack([np.ones(n), fat], axis=-1)
        lower = np.array([(j, k) for j in range(n) for k in range(j)])
        whole = np.zeros((0, 2), int)
        if common:  # phase projected out of real amplitudes: half of |z|^2 and half of |z^T z|, z of orthogonal columns
            gram = np.real(np.conj(basis).swapaxes(1, 2) @ basis)
            columns = basis @ np.linalg.inv(np.linalg.cholesky(gram)).swapaxes(1, 2) * np.sqrt(0.5)
            whole = np.array([(j, k) for j in range(n) for k in range(j + 1)])
        else:
            columns = np.linalg.qr(basis)[0]
        square = columns @ np.conj(columns).swapaxes(1, 2)
        lags, pairs = _grouped(times, lower, -1)
        totals, sums = _grouped(times, whole, +1)
        twice = np.conj(columns @ columns.swapaxes(1, 2))[:, sums[:, 0], sums[:, 1]]
        twice = twice * np.where(sums[:, 0] == sums[:, 1], 1.0, 2.0)
        points = np.arange(n)
        return cls(
            times, fat, psi, rates, period, pairs, np.ascontiguousarray(square[:, points, points].real),
            _parts(square[:, pairs[:, 0], pairs[:, 1]]), lags[None, None], _turn(psi, lags),
            sums, _parts(twice), totals[None, None], _turn(psi, totals),
        )  # fmt: skip


def _grouped(times: np.ndarray, points: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """2 pi times the different differences or sums of times, and each pair of points with the number of its own."""
    value = times[points[:, 0]] + sign * times[points[:, 1]]
    grain = 1e-9  # s; closer ones turn by less than 1e-5 within reach
    grouped, number = np.unique(np.rint(value / grain), return_inverse=True)
    return 2 * np.pi * grain * grouped, np.column_stack([points, number.ravel()]).astype(np.int64)


def _parts(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.stack([values.real, values.imag], axis=-1))


def _turn(psi: np.ndarray, omega: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(psi[:, None] * omega), np.sin(psi[:, None] * omega)])


@dataclass(frozen=True)
class _Minima:
    """Minima (voxel, candidate), least residual first, and how many each voxel has.

    Where `slope` (voxel,), the second is no minimum: see `swapped_too`.
    """

    field: np.ndarray
    residual: np.ndarray
    r2star: np.ndarray
    count: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, tables: _Tables) -> _Minima:
        n_voxel = len(values)
        field, residual, r2star = (np.zeros((n_voxel, ROOM), np.float32) for _ in range(3))
        out = cls(field, residual, r2star, np.zeros(n_voxel, np.int64), np.zeros(n_voxel, bool))
        threads.each_block(n_voxel, partial(out._block, _compiled("field_minima.py").minima, values, tables))
        return out

    def _block(self, loop, values: np.ndarray, tables: _Tables, first: int, last: int) -> None:  # type: ignore[no-untyped-def]
        part = values[first:last]
        field, residual, r2star = (np.zeros((len(part), ROOM)) for _ in range(3))
        count = np.zeros(len(part), np.int64)
        t = tables
        real, imag = (np.ascontiguousarray(channel, float) for channel in (part.real, part.imag))
        fat_real, fat_imag = np.ascontiguousarray(t.fat.real), np.ascontiguousarray(t.fat.imag)
        loop(
            real, imag, t.times, fat_real, fat_imag, t.psi, t.rates, t.period > 0, t.pairs, t.diagonal, t.projector,
            t.lag, t.turn, t.sums, t.second, t.total, t.total_turn, 0, len(part), field, residual, r2star, count,
        )  # fmt: skip
        for mine, theirs in ((self.field, field), (self.residual, residual), (self.r2star, r2star)):
            mine[first:last] = theirs
        self.count[first:last] = count

    def swapped_too(self, values: np.ndarray, tables: _Tables, spread: np.ndarray) -> None:
        """Give the voxels without a second minimum the swap of their first, in place, where it fits.

        Where a swap moves the field by little, the two minima run into one, and the truth may lie on its slope.
        """
        seen = np.abs(np.exp(-2j * np.pi * np.multiply.outer(tables.psi, tables.times)) @ tables.fat)
        shift = float(tables.psi[seen.argmax()])
        if not 0 < abs(shift) * (tables.times[-1] - tables.times[0]) < MERGED:
            return
        most = self.residual[:, 0] + 2 * CAP * spread
        alone = np.flatnonzero((self.count > 0) & ((self.count == 1) | (self.residual[:, 1] > most)))
        for start in range(0, len(alone), threads.BLOCK):
            some = alone[start : start + threads.BLOCK]
            for way in (shift, -shift):
                where = self.field[some, 0] + way
                if tables.period:
                    where -= tables.period * np.floor((where - tables.psi[0]) / tables.period)
                left, rate = _residual(values[some], tables, where)
                fits = (left < most[some]) & (~self.slope[some] | (left < self.residual[some, 1]))
                v = some[fits]
                self.field[v, 1], self.residual[v, 1], self.r2star[v, 1] = where[fits], left[fits], rate[fits]
                self.count[v], self.slope[v] = 2, True


def _residual(values: np.ndarray, tables: _Tables, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least residual of each voxel at a field, and its rate, over the grid of rates."""
    turned = values * np.exp(-2j * np.pi * np.multiply.outer(field, tables.times))
    columns = np.exp(-np.multiply.outer(tables.rates, tables.times))[:, :, None]
    base = np.linalg.qr(columns * np.stack([np.ones(len(tables.fat)), tables.fat], axis=-1))[0]
    parts = np.einsum("rpc,vp->rvc", base.conj(), turned)
    if tables.common:
        basis = columns * np.stack([np.ones(len(tables.fat)), tables.fat], axis=-1)
        gram = np.linalg.inv(np.linalg.cholesky(np.real(np.conj(basis).swapaxes(1, 2) @ basis)))
        parts = np.einsum("rpc,vp->rvc", (basis @ gram.swapaxes(1, 2)).conj(), turned)
        both, cross = (np.abs(parts) ** 2).sum(axis=-1), np.abs((parts**2).sum(axis=-1))
        explained = (both + cross) / 2
    else:
        explained = (np.abs(parts) ** 2).sum(axis=-1)
    best = explained.argmax(axis=0)
    power = (values.real**2 + values.imag**2).sum(axis=1)
    return np.maximum(power - explained[best, np.arange(len(field))], 0.0), tables.rates[best]


@dataclass(frozen=True)
class _Graph:
    """Neighbours (voxel, 6), and what a step of the field costs along each axis."""

    beside: np.ndarray
    cost: np.ndarray
    step: np.ndarray
    period: float

    @classmethod
    def of(
        cls, inside: np.ndarray, bright: np.ndarray, voxel_size: tuple[float, float, float] | None, period: float
    ) -> _Graph:
        """Of the voxels inside the mask; dark ones have no neighbours, so that noise is no bridge between islands."""
        number = np.full(inside.shape, -1, np.int32)
        number[inside] = np.where(bright, np.arange(len(bright)), -1)
        beside = np.full((len(bright), 6), -1, np.int32)
        _compiled("field_labels.py").neighbours(number, beside)
        size = np.ones(3) if voxel_size is None else np.asarray(voxel_size, float)
        if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
            raise InputError(f"field map: voxel_size is {voxel_size}; expected three positive numbers (z, y, x)")
        return cls(beside, STEP_COST * size.min() / size, np.full(3, STEP), period)


@dataclass(frozen=True)
class _Choice:
    field: np.ndarray
    r2star: np.ndarray
    residual: np.ndarray
    alternative: np.ndarray
    evidence: np.ndarray
    ambiguous: np.ndarray


def _choose(found: _Minima, values: np.ndarray, tables: _Tables, spread: np.ndarray, graph: _Graph) -> _Choice:
    """One minimum a voxel, and how sure it is."""
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
    loops = _compiled("field_sheets.py")
    loops.sheets(mine, other, gain, graph.beside, graph.step, graph.period, sheet, evidence, size)
    needed = _needed(size)
    exchanged = _weighed(found, values, tables, spread, graph, (label, second), sheet, size, evidence, needed)
    swap = exchanged[sheet]
    label[swap], second[swap] = second[swap], label[swap]
    mine[swap], other[swap], gain[swap] = other[swap], mine[swap], -gain[swap]
    bonds = (graph.beside, graph.cost, graph.step, graph.period)
    loops.settled(mine, other, *bonds, PLAUSIBLE, sheet, evidence, needed, sure)
    loops.borders(mine, other, gain, *bonds, SURE, sure)
    if changed.any():
        part = np.where(changed, other, np.nan)
        group, own, held = np.zeros(n_voxel, np.int64), np.zeros(n_voxel), np.zeros(n_voxel, bool)
        loops.sheets(mine, part, gain, graph.beside, graph.step, graph.period, group, own, size)
        loops.settled(mine, part, *bonds, PLAUSIBLE, group, own, _needed(size), held)
        sure &= held
    sure &= (evidence >= -AGAINST) & ~(found.slope & (label == 1))
    for _ in range(CLOSE):
        closed = np.zeros(n_voxel, bool)
        loops.close(sheet, graph.beside, sure, closed)
        sure = closed
    r2star = found.r2star[rows, label].astype(float)
    loops.unwrap(mine, graph.beside, graph.period, np.zeros(n_voxel, np.int64), np.zeros(n_voxel, np.int64))
    evidence = np.where(alone, np.inf, 2 * evidence)
    return _Choice(mine, r2star, found.residual[rows, label], other, evidence, ~alone & ~sure)


def _unlikely(r2star: np.ndarray) -> np.ndarray:
    """What a rate costs where the echoes leave it open: a log-normal population about that of marrow and muscle."""
    cost: np.ndarray = 0.5 * (np.log((r2star + 60.0) / (TYPICAL[0] + 60.0)) / 0.35) ** 2
    return cost.astype(np.float32)


def _needed(size: np.ndarray) -> np.ndarray:
    """Evidence, in half squares of sigma, that makes a sheet of so many voxels sure.

    The evidence of hypotheses at a distance d (in sigma, summed over n voxels) has mean d^2 and variance 4 d^2 + 8 n at
    most: where water is swapped for fat of one peak, d is 0, both fit alike, and for each voxel two chi-square
    variables of two degrees of freedom differ. The tail below -T is fattest at d^2 = T - 4 n, or at 0; it is that of
    `CERTAIN` standard deviations where T is this.
    """
    square = CERTAIN**2
    return np.where(size < square / 2, square / 2 + size, CERTAIN * np.sqrt(2.0 * size))


def _weighed(
    found: _Minima,
    values: np.ndarray,
    tables: _Tables,
    spread: np.ndarray,
    graph: _Graph,
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
    voxels = voxels[np.argsort(sheet[voxels], kind="stable")]
    begin = np.flatnonzero(np.diff(sheet[voxels], prepend=-1))
    first = sheet[voxels[begin]]
    weight = 1.0 / spread[voxels]
    field = np.stack([found.field[voxels, k[voxels]] for k in labels]).astype(float)
    left = np.stack([found.residual[voxels, k[voxels]] for k in labels]).astype(float)
    part = np.ascontiguousarray(values[voxels], complex)
    explained = np.zeros((2, len(first)))
    shared = _compiled("field_evidence.py").shared
    common = tables.common
    edges = np.append(begin, len(voxels))

    def work(a: int, b: int) -> None:
        shared(part, field, weight, edges, tables.times, tables.fat, tables.rates, common, a, b, explained)

    threads.each_block(len(first), work, 64)
    power = np.add.reduceat((part.real**2 + part.imag**2).sum(axis=1) * weight, begin)
    more = power - explained - np.add.reduceat(left * weight, begin, axis=1)  # misfit of one composition over many
    freedom = ((1 if common else 2) + (len(tables.rates) > 1)) * (size[first] - 1)
    one = (more < freedom + UNIFORM * np.sqrt(2.0 * freedom)).all(axis=0)
    asked[first[~one]] = False
    first, explained = first[one], explained[:, one]
    evidence[first] = (explained[0] - explained[1]) / 2
    needed[first] = _needed(np.ones(len(first)))
    rim, fields = np.zeros(len(sheet)), [found.field[np.arange(len(sheet)), k].astype(float) for k in labels]
    _compiled("field_sheets.py").rims(*fields, graph.beside, graph.cost, graph.step, graph.period, sheet, asked, rim)
    closer = np.bincount(sheet, CLOSER * (np.abs(fields[1]) - np.abs(fields[0])), len(sheet))
    exchanged[first] = evidence[first] + rim[first] + closer[first] < 0
    evidence[exchanged] *= -1
    return exchanged


def _settled(field: np.ndarray, misfit: np.ndarray, count: np.ndarray, graph: _Graph, cost: np.ndarray) -> np.ndarray:
    """Number of the chosen minimum of each voxel, where a step of the field costs this."""
    label = np.zeros(len(field), np.int8)
    message = np.zeros((len(field), 6, field.shape[1]), np.float32)
    settle = _compiled("field_labels.py").settle
    settle(field, misfit, count, graph.beside, cost, graph.step, graph.period, SWEEPS, message, label)
    return label


def _loosely(
    field: np.ndarray, misfit: np.ndarray, count: np.ndarray, graph: _Graph, label: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Which voxels choose otherwise where steps cost less, while those that are held keep their choice."""
    changed = np.zeros(len(held), bool)
    if not held.all():
        fixed = np.flatnonzero(held)
        field, misfit, count = field.copy(), misfit.copy(), np.where(held, np.int8(1), count)
        field[fixed, 0], misfit[fixed, 0] = field[fixed, label[fixed]], 0.0
        changed = ~held & (_settled(field, misfit, count, graph, graph.cost * LOOSE) != label)
    return changed


def _rates(grid: np.ndarray | None, n_point: int) -> np.ndarray:
    if grid is None:
        return RATES if n_point > 3 else RATES[RATES < SLOW]
    rates = np.atleast_1d(np.asarray(grid, float))
    if rates.ndim != 1 or not rates.size or not np.isfinite(rates).all() or (np.diff(rates) <= 0).any():
        raise InputError(f"field map: r2star_grid is {grid}; expected rising numbers, 1/s")
    return np.ascontiguousarray(rates)


def _noise_given(sigma: float | np.ndarray | None, inside: np.ndarray) -> float | np.ndarray | None:
    if sigma is None:
        return None
    noise = np.asarray(sigma, float)
    if noise.ndim and noise.shape != inside.shape:
        raise InputError(f"field map: sigma has shape {noise.shape}; expected one number or {inside.shape}")
    used = noise[inside] if noise.ndim else noise
    if not (np.isfinite(used) & (used > 0)).all():
        raise InputError("field map: sigma has values that are not positive; expected the noise SD")
    return noise if noise.ndim else float(noise)


def _checked(
    data: np.ndarray, mask: np.ndarray, echo_times: np.ndarray, fat: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arguments as arrays, points in the order of time."""
    data, mask = np.asarray(data), np.asarray(mask)
    times, fat = np.asarray(echo_times, float), np.asarray(fat, complex)
    if data.ndim != 4 or data.dtype.kind != "c":
        raise InputError(f"field map: data is {data.dtype} of shape {data.shape}; expected complex (z, y, x, point)")
    if mask.shape != data.shape[:3] or mask.dtype != bool:
        raise InputError(f"field map: mask is {mask.dtype} of {mask.shape}; expected bool of shape {data.shape[:3]}")
    n = data.shape[3]
    for name, array in (("echo_times", times), ("fat", fat)):
        if array.shape != (n,) or not np.isfinite(array).all():
            raise InputError(f"field map: {name} has shape {array.shape}; expected {n} finite numbers")
    if n < 3:
        raise InputError(f"field map: {n} echoes; expected three at least (two cannot tell the field from fat)")
    order = np.argsort(times, kind="stable")
    times = times[order]
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise InputError(f"field map: echo times are {times}; expected different times >= 0, in s")
    if times[-1] > 1:
        raise InputError(f"field map: the last echo is at {times[-1]:g} s; are the echo times in milliseconds?")
    fat = fat[order]
    if abs(np.vdot(fat, np.ones(n))) > (1 - 1e-6) * np.sqrt(n) * np.linalg.norm(fat):
        raise InputError("field map: fat's signal is that of water at all echoes; expected echoes that tell them apart")
    return (data if (order == np.arange(n)).all() else data[..., order]), mask, times, fat
