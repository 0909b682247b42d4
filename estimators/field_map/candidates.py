"""Where the field of a voxel may lie: all minima of its residual, and what a swap would make of the first.

The tables that the compiled loop over voxels (`minima`) needs of the echo times, and what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator import kernels, threads

RATES = 60.0 * np.expm1(np.linspace(0.0, np.log(11.0), 8))  # 1/s, 0 to 600: closer where tissue is
FAST = 60.0 * np.expm1(np.linspace(0.0, np.log1p(2000.0 / 60.0), 12))  # 1/s, to the bound of the fit; for few voxels
EDGE = 400.0  # 1/s; a minimum at this rate and above, where the first grid ends, may belong to a faster one
SLOW = 180.0  # 1/s; of three echoes, which leave R2* open, faster rates are not considered
NODES = 12  # of the grid for each turn of the fastest term: the expansion about a node is then good to 1e-4 of a term
ROOM = 5  # minima kept of each voxel
CAP = 30.0  # a minimum this much worse (in -log likelihood) than the best is not considered: 7.7 sigma
MERGED = 1.3  # turns of the fat against the water over the echoes, as seen: below, the minima of a swap may be one
LASTS = np.sqrt(3.0)  # over R: an even train of this length spreads in time as exp(-R t) squared does, by 1/(2 R)


def rates_of(grid: np.ndarray | None, n_point: int) -> np.ndarray:
    """Rates to try (1/s): those given, or all that so many echoes can tell."""
    if grid is None:
        return RATES if n_point > 3 else RATES[RATES < SLOW]
    rates = np.atleast_1d(np.asarray(grid, float))
    if rates.ndim != 1 or not rates.size or not np.isfinite(rates).all() or (np.diff(rates) <= 0).any():
        raise InputError(f"field map: r2star_grid is {grid}; expected rising numbers, 1/s")
    return np.ascontiguousarray(rates)


@dataclass(frozen=True)
class Tables:
    """What the loop over voxels needs of the echo times; see `minima.minima`."""

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
    def of(cls, times: np.ndarray, fat: np.ndarray, rates: np.ndarray, common: bool, reach: float) -> Tables:
        """Of a train of echoes; fields to +-`reach` (Hz), or to half the period of even echoes where that is less."""
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
class Minima:
    """Minima (voxel, candidate), least residual first, and how many each voxel has.

    Where `slope` (voxel,), the second is no minimum: see `swapped_too`. Where `fast` (voxel,), they are those over the
    rates `FAST`: see `faster`.
    """

    field: np.ndarray
    residual: np.ndarray
    r2star: np.ndarray
    count: np.ndarray
    slope: np.ndarray
    fast: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, tables: Tables) -> Minima:
        """Of the echoes of voxels, (voxel, point)."""
        n_voxel = len(values)
        field, residual, r2star = (np.zeros((n_voxel, ROOM), np.float32) for _ in range(3))
        out = cls(field, residual, r2star, np.zeros(n_voxel, np.int64), *np.zeros((2, n_voxel), bool))
        threads.each_block(
            n_voxel,
            partial(out._block, kernels.compiled(Path(__file__).with_name("minima.py")).minima, values, tables),
        )
        return out

    def _block(self, loop: Any, values: np.ndarray, tables: Tables, first: int, last: int) -> None:
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

    def faster(self, values: np.ndarray, tables: Tables, spread: np.ndarray | float) -> None:
        """Find the minima again over `tables`, in place, where the rate of one that counts is at the end of the grid.

        Beyond it a minimum has no candidate, and what is left of it at the end loses to a swap's. By a `spread` of 0,
        of noise that is not known yet, the best minimum alone counts.
        """
        some = np.flatnonzero((self.r2star.max(axis=1) >= EDGE) & ~self.fast)
        if some.size:
            most = self.residual[some, :1] + 2 * CAP * np.broadcast_to(spread, len(self.fast))[some, None]
            ends = (self.r2star[some] >= EDGE) & (self.residual[some] <= most)
            some = some[(ends & (np.arange(ROOM) < self.count[some, None])).any(axis=1)]
        if some.size:
            found = Minima.of(values[some], tables)
            self.field[some], self.residual[some], self.r2star[some] = found.field, found.residual, found.r2star
            self.count[some], self.fast[some] = found.count, True

    def swapped_too(self, values: np.ndarray, tables: Tables, spread: np.ndarray, fast: bool = False) -> None:
        """Give the voxels without a second minimum the swap of their first, in place, where it fits.

        Where a swap moves the field by little, the two minima run into one, and the truth may lie on its slope. So it
        is where the signal has decayed before water and fat have turned: `LASTS`. Of the
        voxels that are `fast`, or of the others.
        """
        here = self.fast == fast
        if not here.any():
            return
        seen = np.abs(np.exp(-2j * np.pi * np.multiply.outer(tables.psi, tables.times)) @ tables.fat)
        shift = float(tables.psi[seen.argmax()])
        if shift == 0:
            return
        lasts = tables.times[-1] - tables.times[0]
        merged = abs(shift) * np.minimum(lasts, LASTS / np.maximum(self.r2star[:, 0], 1.0)) < MERGED
        most = self.residual[:, 0] + 2 * CAP * spread
        lone = (self.count > 0) & ((self.count == 1) | (self.residual[:, 1] > most))
        alone = np.flatnonzero(lone & merged & here)
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


def _residual(values: np.ndarray, tables: Tables, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
