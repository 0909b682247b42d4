"""Batched bounded least squares for any declared equation: starts, descents by `levenberg.py`, status."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator.kernels import compiled
from ..simulator.symbolic import Equation, sweep
from ..simulator.threads import each_block
from .status import Status

RTOL = 1e-10
MAX_EVALUATIONS = 1000
DOUBT = 0.5  # relative standard error from which a fit is tried from other starts
FIRST = 40  # evaluations of a first descent, after which the slow voxels go on together
SMALL_PRODUCT = 200_000  # multiplications; OpenBLAS starts threads above 262 144
GLANCE = 1e-3  # rtol of a first look from another start
_LEVENBERG = Path(__file__).with_name("levenberg.py")


@dataclass(frozen=True)
class Fit:
    """What the solver found; arrays run over voxels in the order of the data.

    Attributes
    ----------
    free : tuple of str
        Names of the fitted unknowns.
    theta : ndarray, (voxel, free)
        Fitted values; NaN where the data are invalid.
    unit_sd : ndarray, (voxel, free)
        Standard errors for noise of SD 1: multiply by the noise SD. Infinite where the fit is singular.
    cost : ndarray, (voxel,)
        Sum of squared residuals (or sigma**2 times the Rician deviance).
    status : ndarray of uint16, (voxel,)
        Bits of `Status`.
    evaluations : ndarray of int, (voxel,)
    covariance : ndarray, (voxel, free, free), or None
        For noise of SD 1.
    """

    free: tuple[str, ...]
    theta: np.ndarray
    unit_sd: np.ndarray
    cost: np.ndarray
    status: np.ndarray
    evaluations: np.ndarray
    covariance: np.ndarray | None

    def __getitem__(self, name: str) -> np.ndarray:
        """Fitted values of one unknown, (voxel,)."""
        return self.theta[:, self.free.index(name)]


def limits(
    equation: Equation, free: Sequence[str], bounds: Mapping[str, tuple[float, float]] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the free unknowns: the declared ranges, replaced by `bounds` where given.

    Raises
    ------
    InputError
        If `bounds` names no unknown, or a lower bound is not below its upper bound.
    """
    chosen = {q.name: (q.low, q.high) for q in equation.unknowns}
    for name, pair in (bounds or {}).items():
        if name not in chosen:
            raise InputError(f"bounds name {name!r}; the unknowns of {equation.name} are {', '.join(chosen)}")
        if np.shape(pair) != (2,) or not float(pair[0]) < float(pair[1]):
            raise InputError(f"bounds of {name} are {pair}; expected (low, high) with low < high")
        chosen[name] = (float(pair[0]), float(pair[1]))
    return np.array([chosen[n][0] for n in free]), np.array([chosen[n][1] for n in free])


def fit(
    equation: Equation,
    data: np.ndarray,
    protocol: Mapping[str, Any],
    *,
    known: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    frozen: Sequence[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
    sigma: float | np.ndarray | None = None,
    likelihood: str = "gaussian",
    rtol: float = RTOL,
    max_evaluations: int = MAX_EVALUATIONS,
    covariance: bool = False,
) -> Fit:
    """Fit an equation to every voxel by bounded least squares, or by the Rician likelihood.

    Parameters
    ----------
    equation : Equation
    data : ndarray, (voxel, point)
        Real or complex as the equation is. Voxels with a non-finite value get `Status.INVALID` and NaN.
    protocol : mapping
        Each setting as a scalar, (point,) or (voxel, 1).
    known : mapping, optional
        Unknowns that are held, each a scalar or (voxel,); the others are free.
    start : mapping, optional
        Starts of all free unknowns; default: the best node of a small grid over the non-linear unknowns, with the
        linear ones by projection.
    frozen : sequence of str
        Free unknowns that stay at their given start: held like `known`, but with the kernel of the full fit, which is
        compiled already.
    bounds : mapping, optional
        (low, high) that replace the declared range of an unknown.
    sigma : float or ndarray, (voxel,), optional
        Noise SD of each real channel; needed by the Rician likelihood, unused otherwise.
    likelihood : {"gaussian", "rician"}
    rtol : float
        The fit stops when a step could lower the cost by at most this fraction.
    max_evaluations : int
        Evaluations of the equation after which a voxel is `Status.NOT_CONVERGED`.
    covariance : bool
        Whether to keep the covariance of all unknowns, not only their standard errors.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        If shapes or names do not fit together, or a Rician fit has no `sigma`.
    """
    free = tuple(q.name for q in equation.unknowns if q.name not in (known or {}))
    data = np.asarray(data)
    if data.ndim != 2:
        raise InputError(f"data have shape {data.shape}; expected (voxel, point)")
    if likelihood not in ("gaussian", "rician"):
        raise InputError(f"likelihood is {likelihood!r}; expected gaussian or rician")
    if likelihood == "rician" and sigma is None:
        raise InputError("a Rician fit needs sigma, the noise SD of each real channel")
    n_voxel, n = data.shape[0], len(free)
    kernel, x, held = equation.arrange(protocol, n_voxel, free, known)
    if data.shape[1] != len(x):
        raise InputError(f"data have {data.shape[1]} points a voxel; the protocol has {len(x)}")
    if np.iscomplexobj(data) != (kernel.CHANNELS == 2):
        kind = "complex" if kernel.CHANNELS == 2 else "real"
        raise InputError(f"data are {data.dtype}; equation {equation.name} is {kind}")
    low, high = limits(equation, free, bounds)
    if frozen and start is None:
        raise InputError(f"{', '.join(frozen)} cannot be frozen without a start")
    strangers = [name for name in frozen if name not in free]
    if strangers:
        raise InputError(f"frozen names {', '.join(strangers)}; the free unknowns are {', '.join(free)}")
    fixed = np.array([name in frozen for name in free])
    span = high - low
    # an unknown that enters linearly may step as far as it likes; another, by its value and a part of its range
    reach = np.where([name in kernel.LINEAR for name in free], np.inf, np.where(np.isfinite(span), 0.25 * span, 0.0))
    sigmas = np.broadcast_to(np.asarray(1.0 if sigma is None else sigma, dtype=float), (n_voxel,))
    given = None if start is None else _given(start, free, n_voxel)
    # other basins are looked for where the declaration says from where
    graded = all(q.start for q in equation.unknowns if q.name in free and q.name not in kernel.LINEAR)
    grid = _Grid(equation, kernel, free, x, low, high) if start is None or (graded and not frozen) else None
    every = _Result.empty(n_voxel, n, covariance, np.zeros(n_voxel, np.uint16))
    loop = compiled(_LEVENBERG).levenberg

    def load(voxels: slice | np.ndarray) -> _Part:
        """Some voxels as the loop takes them; a voxel may come several times."""
        block = np.ascontiguousarray(data[voxels], dtype=complex if kernel.CHANNELS == 2 else float)
        block = block.view(float).reshape(len(block), -1)
        held_here, noise = np.array(held[voxels]), np.array(sigmas[voxels])  # copies: the loop takes no read-only array
        good = np.isfinite(block).all(axis=1) & np.isfinite(held_here).all(axis=1) & np.isfinite(noise)
        # whatever is passed over must not trip the starts of the others
        return _Part(np.where(good[:, None], block, 0.0), np.where(good[:, None], held_here, 1.0), noise, good)

    def descend(part: _Part, begin: np.ndarray, rtol: float = rtol, most: int = max_evaluations) -> _Result:
        result = _Result.empty(len(begin), n, covariance, np.where(part.good, 0, Status.INVALID).astype(np.uint16))
        loop(
            kernel.kernel, x, part.data, np.ascontiguousarray(begin), part.held, low, high, reach, fixed, part.noise,
            likelihood == "rician", kernel.CHANNELS, rtol, most, result.theta, result.covariance, result.unit_sd,
            result.cost, result.status, result.evaluations,
        )  # fmt: skip
        return result

    left: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def first(a: int, b: int) -> None:
        part = load(slice(a, b))
        if given is None:
            assert grid is not None
            begin = grid.starts(part.data, part.held)
        else:
            begin = given[a:b]
        found = descend(part, begin, most=min(FIRST, max_evaluations))
        follow = np.flatnonzero(found.status & Status.NOT_CONVERGED)
        begin = found.theta[follow]
        if grid is not None:
            freedom = part.data.shape[1] - n
            doubtful = np.flatnonzero(part.good & found.doubtful(grid.nonlinear, freedom))
            some, there = grid.others(part.data[doubtful], part.held[doubtful], started=given is None)
            some = doubtful[some]
            glance = descend(part.take(some), there, rtol=GLANCE, most=min(FIRST, max_evaluations))
            promising = found.promising(some, glance, grid.nonlinear, freedom)
            follow = np.concatenate([follow, some[promising]])
            begin = np.concatenate([begin, glance.theta[promising]])
        every.put(a, b, found)
        left[a] = follow + a, begin

    each_block(n_voxel, first)
    # a few slow voxels would leave the other lanes idle: they go on together, after all the rest
    rows = np.concatenate([np.zeros(0, int), *(left[a][0] for a in sorted(left))])
    begins = np.concatenate([np.zeros((0, n)), *(left[a][1] for a in sorted(left))])
    slow = _Result.empty(len(rows), n, covariance, np.zeros(len(rows), np.uint16))
    each_block(len(rows), lambda a, b: slow.put(a, b, descend(load(rows[a:b]), begins[a:b])))
    every.improve(rows, slow)
    kept = every.covariance if covariance else None
    return Fit(free, every.theta, every.unit_sd, every.cost, every.status, every.evaluations, kept)


def _given(start: Mapping[str, Any], free: Sequence[str], n_voxel: int) -> np.ndarray:
    """The starts that the caller gives, (voxel, free)."""
    missing = [name for name in free if name not in start]
    if missing:
        raise InputError(f"start lacks {', '.join(missing)}; expected a start of each free unknown")
    return np.stack([np.broadcast_to(np.asarray(start[name], dtype=float), n_voxel) for name in free], axis=1)


@dataclass(frozen=True)
class _Part:
    """Some voxels as the compiled loop takes them."""

    data: np.ndarray
    held: np.ndarray
    noise: np.ndarray
    good: np.ndarray

    def take(self, where: np.ndarray) -> _Part:
        """Some of them again."""
        return _Part(self.data[where], self.held[where], self.noise[where], self.good[where])


@dataclass
class _Result:
    """Output arrays of the compiled loop."""

    theta: np.ndarray
    unit_sd: np.ndarray
    cost: np.ndarray
    status: np.ndarray
    evaluations: np.ndarray
    covariance: np.ndarray

    @classmethod
    def empty(cls, n_voxel: int, n: int, covariance: bool, status: np.ndarray) -> _Result:
        """NaN everywhere; voxels whose status is set will be passed over."""
        return cls(
            theta=np.full((n_voxel, n), np.nan),
            unit_sd=np.full((n_voxel, n), np.nan),
            cost=np.full(n_voxel, np.nan),
            status=status,
            evaluations=np.zeros(n_voxel, np.int64),
            covariance=np.full((n_voxel if covariance else 0, n, n), np.nan),
        )

    def _error(self, where: Any, unknowns: Sequence[int], freedom: int) -> np.ndarray:
        """Standard errors by the fit's own residuals; NaN for a singular fit that leaves none."""
        with np.errstate(invalid="ignore"):
            return self.unit_sd[where][:, unknowns] * np.sqrt(self.cost[where] / max(freedom, 1))[:, None]

    def doubtful(self, unknowns: Sequence[int], freedom: int) -> np.ndarray:
        """Voxels that may sit in a bad minimum: flagged, or an unknown's standard error is half its value and more.

        Where the data determine an unknown well the cost has one basin; where they do not, it often has several.
        """
        error = self._error(slice(None), unknowns, freedom)
        return (self.status != 0) | (error > DOUBT * np.abs(self.theta[:, unknowns])).any(axis=1)

    def promising(self, where: np.ndarray, glance: _Result, unknowns: Sequence[int], freedom: int) -> np.ndarray:
        """Whether a glance from elsewhere is worth following: lower already, or near in cost and far in place."""
        mine, theirs = self.theta[where][:, unknowns], glance.theta[:, unknowns]
        error = self._error(where, unknowns, freedom)
        elsewhere = ~(np.abs(theirs - mine) < 0.3 * error).all(axis=1)
        return (glance.cost < self.cost[where]) | ((glance.cost < 1.1 * self.cost[where]) & elsewhere)

    def improve(self, where: np.ndarray, other: _Result) -> None:
        """Take the other result's fits where their cost is not higher; a voxel may come several times."""
        order = np.argsort(-other.cost, kind="stable")  # the lowest cost is written last
        order = order[other.cost[order] <= self.cost[where[order]]]
        np.add.at(self.evaluations, where, other.evaluations)
        for name in ("theta", "unit_sd", "cost", "status", "covariance"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine):
                mine[where[order]] = theirs[order]

    def put(self, first: int, last: int, block: _Result) -> None:
        """Copy a block's result into voxels first to last."""
        for name in ("theta", "unit_sd", "cost", "status", "evaluations", "covariance"):
            if len(getattr(self, name)):
                getattr(self, name)[first:last] = getattr(block, name)


class _Grid:
    """Starts: the node of a small grid over the non-linear unknowns whose projection leaves the least residual."""

    def __init__(
        self,
        equation: Equation,
        kernel: ModuleType,
        free: Sequence[str],
        x: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        self.kernel, self.x, self.low, self.high = kernel, x, low, high
        self.linear = [i for i, name in enumerate(free) if name in kernel.LINEAR]
        self.nonlinear = [i for i in range(len(free)) if i not in self.linear]
        starts = {q.name: np.array(q.starts) for q in equation.unknowns}
        axes = []
        for i, name in enumerate(free):
            inside = starts[name][(starts[name] >= low[i]) & (starts[name] <= high[i])]
            fallback = np.clip(starts[name].mean(keepdims=True), low[i], high[i])
            axes.append(np.zeros(1) if i in self.linear else inside if inside.size else fallback)
        self.nodes = np.array(list(itertools.product(*axes)))
        longest = int(np.argmax([len(axis) for axis in axes]))
        self.level = np.searchsorted(np.sort(axes[longest]), self.nodes[:, longest])
        self.shared = None if kernel.HELD else self._orthonormal()

    def starts(self, data: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Best start of each voxel, (voxel, free), within the bounds."""
        return self._best(*self._scores(data, held), np.arange(len(self.nodes)))

    def others(self, data: np.ndarray, held: np.ndarray, started: bool) -> tuple[np.ndarray, np.ndarray]:
        """Ways into other basins: the best start at each level of the most-graded unknown.

        Without the level that `starts` took, where the fit `started` there.

        Returns voxel numbers, each as often as it has such starts, and the starts, (row, free).
        """
        score, amplitude = self._scores(data, held)
        taken = self.level[score.argmin(axis=1)]
        voxels, begins = [np.zeros(0, int)], [np.zeros((0, self.nodes.shape[1]))]
        for level in np.unique(self.level):
            some = np.flatnonzero(taken != level) if started else np.arange(len(data))
            voxels.append(some)
            begins.append(self._best(score[some], amplitude[some], np.flatnonzero(self.level == level)))
        return np.concatenate(voxels), np.concatenate(begins)

    def _best(self, score: np.ndarray, amplitude: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Starts from the best of some nodes, with the linear unknowns by projection, (voxel, free)."""
        best = nodes[score[:, nodes].argmin(axis=1)]
        begin = self.nodes[best]
        begin[:, self.linear] = amplitude[np.arange(len(best)), best]
        # a start needs few digits: rounded, it does not depend on how the matrix product was cut into pieces
        rounded = ((begin.view(np.int64) + (1 << 25)) & -(1 << 26)).view(float)
        return np.clip(rounded, self.low, self.high)

    def _basis(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signal at linear unknowns 0, (voxel, data), and their columns, (voxel, data, linear)."""
        n = self.nodes.shape[1]
        signal, jacobian = sweep(self.kernel, theta, self.x, n)
        n_voxel, n_data = len(theta), signal.shape[1] * signal.shape[2]
        return signal.reshape(n_voxel, n_data), jacobian.reshape(n_voxel, n_data, n)[:, :, self.linear]

    def _orthonormal(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Offset (node, data), orthonormal columns (data, node * linear), their inverse triangles, columns' squares."""
        offset, basis = self._basis(self.nodes)
        q, r = np.linalg.qr(basis)
        columns = np.ascontiguousarray(np.moveaxis(q, 0, 1).reshape(q.shape[1], -1))
        return offset, columns, np.linalg.pinv(r), (basis**2).sum(axis=1)

    def _beyond(self, amplitude: np.ndarray, square: np.ndarray) -> np.ndarray | float:
        """What taking amplitudes (..., linear) to their bounds adds to the score; several count as if orthogonal.

        Without it a node of opposite sign ties with the right one, and its clipped amplitude of 0 holds the fit fast.
        """
        low, high = self.low[self.linear], self.high[self.linear]
        if ((amplitude >= low) & (amplitude <= high)).all():
            return 0.0
        return (square * (amplitude - np.clip(amplitude, low, high)) ** 2).sum(axis=-1)

    def _scores(self, data: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual of each node up to a constant of the voxel, (voxel, node), and amplitudes (voxel, node, linear)."""
        n_voxel, n_node = len(data), len(self.nodes)
        if self.shared is not None:
            offset, q, triangle, square = self.shared
            # in pieces that BLAS keeps on the calling thread: its own threads would fight ours
            piece = max(1, SMALL_PRODUCT // max(q.size, 1))
            along = np.concatenate([data[i : i + piece] @ q for i in range(0, max(n_voxel, 1), piece)])
            along = along.reshape(n_voxel, n_node, len(self.linear))
            score = np.zeros((n_voxel, n_node))
            if offset.any():
                along -= np.einsum("jm,mjl->jl", offset, q.reshape(len(q), n_node, -1))
                score += (offset**2).sum(axis=1) - 2.0 * (data @ offset.T)
            for i in range(along.shape[2]):
                score -= along[:, :, i] ** 2
            one = along.shape[2] == 1
            amplitude = along * triangle[:, 0, 0, None] if one else np.einsum("jkl,vjl->vjk", triangle, along)
            return score + self._beyond(amplitude, square), amplitude
        score, amplitude = np.empty((n_voxel, n_node)), np.empty((n_voxel, n_node, len(self.linear)))
        for j, node in enumerate(self.nodes):  # values held per voxel: each voxel has its own columns
            offset, basis = self._basis(np.concatenate([np.broadcast_to(node, (n_voxel, len(node))), held], axis=1))
            rest = data - offset
            projection = np.einsum("vm,vml->vl", rest, basis)
            amplitude[:, j] = np.einsum("vkl,vl->vk", np.linalg.pinv(np.swapaxes(basis, 1, 2) @ basis), projection)
            score[:, j] = np.einsum("vm,vm->v", rest, rest) - np.einsum("vl,vl->v", amplitude[:, j], projection)
            score[:, j] += self._beyond(amplitude[:, j], (basis**2).sum(axis=1))
        return score, amplitude
