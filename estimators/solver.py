"""Batched bounded least squares for any declared equation: starts, the Levenberg-Marquardt of `levenberg.py`, status."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import InputError
from ..simulator.kernels import compiled
from ..simulator.symbolic import Equation, sweep
from ..simulator.threads import each_block
from .status import Status

RTOL = 1e-10
MAX_EVALUATIONS = 300
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
        if np.size(pair) != 2 or not float(pair[0]) < float(pair[1]):
            raise InputError(f"bounds of {name} are {pair}; expected (low, high) with low < high")
        chosen[name] = (float(pair[0]), float(pair[1]))
    return np.array([chosen[n][0] for n in free]), np.array([chosen[n][1] for n in free])


def fit(
    equation: Equation,
    data: np.ndarray,
    protocol: Mapping[str, object],
    *,
    known: Mapping[str, object] | None = None,
    start: Mapping[str, object] | None = None,
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
    sigmas = np.broadcast_to(np.asarray(1.0 if sigma is None else sigma, dtype=float), (n_voxel,))
    given = None if start is None else np.stack([np.broadcast_to(np.asarray(start[k], dtype=float), n_voxel) for k in free], axis=1)
    grid = None if given is not None else _Grid(equation, kernel, free, x, low, high)
    theta = np.full((n_voxel, n), np.nan)
    unit_sd = np.full((n_voxel, n), np.nan)
    full = np.full((n_voxel if covariance else 0, n, n), np.nan)
    cost = np.full(n_voxel, np.nan)
    status = np.zeros(n_voxel, np.uint16)
    evaluations = np.zeros(n_voxel, np.int64)
    loop = compiled(_LEVENBERG).levenberg

    def work(a: int, b: int) -> None:
        block = np.ascontiguousarray(data[a:b], dtype=complex if kernel.CHANNELS == 2 else float)
        block = block.view(float).reshape(b - a, -1)
        good = np.isfinite(block).all(axis=1) & np.isfinite(held[a:b]).all(axis=1) & np.isfinite(sigmas[a:b])
        status[a:b][~good] = Status.INVALID
        block = np.where(good[:, None], block, 0.0)
        begin = np.ascontiguousarray(given[a:b]) if grid is None else grid.starts(block, held[a:b])
        begin = np.where(np.isfinite(begin), begin, np.clip(0.0, low, high))
        full_block = full[a:b] if covariance else full
        loop(
            kernel.kernel, x, block, begin, held[a:b], low, high, np.ascontiguousarray(sigmas[a:b]), likelihood == "rician",
            kernel.CHANNELS, rtol, max_evaluations, theta[a:b], full_block, unit_sd[a:b], cost[a:b], status[a:b], evaluations[a:b],
        )  # fmt: skip

    each_block(n_voxel, work)
    return Fit(free, theta, unit_sd, cost, status, evaluations, full if covariance else None)


class _Grid:
    """Starts: the node of a small grid over the non-linear unknowns whose projection leaves the least residual."""

    def __init__(self, equation: Equation, kernel: ModuleType, free: Sequence[str], x: np.ndarray, low: np.ndarray, high: np.ndarray):
        self.kernel, self.x, self.low, self.high = kernel, x, low, high
        self.linear = [i for i, name in enumerate(free) if name in kernel.LINEAR]
        starts = {q.name: np.array(q.starts) for q in equation.unknowns}
        axes = []
        for i, name in enumerate(free):
            inside = starts[name][(starts[name] >= low[i]) & (starts[name] <= high[i])]
            fallback = np.clip(starts[name].mean(keepdims=True), low[i], high[i])
            axes.append(np.zeros(1) if i in self.linear else inside if inside.size else fallback)
        self.nodes = np.array(list(itertools.product(*axes)))
        self.shared = None if kernel.HELD else self._orthonormal()

    def _basis(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signal at linear unknowns 0, (voxel, data), and their columns, (voxel, data, linear)."""
        signal, jacobian = sweep(self.kernel, theta, self.x, self.nodes.shape[1])
        v = len(theta)
        return signal.reshape(v, -1), jacobian.reshape(v, signal[0].size, -1)[:, :, self.linear]

    def _orthonormal(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offset (node, data), orthonormal columns (data, node * linear) and their triangles (node, linear, linear)."""
        offset, basis = self._basis(self.nodes)
        q, r = np.linalg.qr(basis)
        return offset, np.ascontiguousarray(np.moveaxis(q, 0, 1).reshape(q.shape[1], -1)), np.linalg.pinv(r)

    def starts(self, data: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Start of each voxel, (voxel, free), within the bounds."""
        if self.shared is None:
            return self._starts_held(data, held)
        offset, q, triangle = self.shared
        n_voxel, n_node = len(data), len(self.nodes)
        along = (data @ q).reshape(n_voxel, n_node, -1)
        least = -np.einsum("vjl,vjl->vj", along, along)
        if offset.any():
            along -= np.einsum("jm,mjl->jl", offset, q.reshape(q.shape[0], n_node, -1))
            least = -np.einsum("vjl,vjl->vj", along, along) - 2.0 * (data @ offset.T) + (offset**2).sum(axis=1)
        best = least.argmin(axis=1)
        begin = self.nodes[best]
        begin[:, self.linear] = np.einsum("vkl,vl->vk", triangle[best], along[np.arange(n_voxel), best])
        return np.clip(begin, self.low, self.high)

    def _starts_held(self, data: np.ndarray, held: np.ndarray) -> np.ndarray:
        """The same where values are held per voxel, so that each voxel has its own columns."""
        begin = np.empty((len(data), self.nodes.shape[1]))
        least = np.full(len(data), np.inf)
        for node in self.nodes:
            offset, basis = self._basis(np.concatenate([np.broadcast_to(node, begin.shape), held], axis=1))
            rest = data - offset
            projection = np.einsum("vm,vml->vl", rest, basis)
            amplitude = np.einsum("vkl,vl->vk", np.linalg.pinv(np.swapaxes(basis, 1, 2) @ basis), projection)
            score = np.einsum("vm,vm->v", rest, rest) - np.einsum("vl,vl->v", amplitude, projection)
            better = score < least
            least[better] = score[better]
            begin[better] = node
            begin[np.ix_(better, self.linear)] = amplitude[better]
        return np.clip(begin, self.low, self.high)
