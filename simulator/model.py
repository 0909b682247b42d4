"""What a model of the signal is: quantities, the Model protocol, and the information its data hold.

A `Model` is the seam between equations, numerical engines and estimators: whatever has unknowns, settings, a
signal and a Jacobian can be scanned, fitted and asked for its Cramer-Rao bound. An equation has an exact
Jacobian; an engine gets one from `numerical_jacobian`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError

Values = Mapping[str, Any] | np.ndarray


@dataclass(frozen=True)
class Quantity:
    """A quantity of a model: an unknown of the tissue or a setting of the protocol.

    Attributes
    ----------
    name : str
        Name in data sets and formulas (`D_star`).
    unit : str
        SI, but b in s/mm2 and diffusivities in mm2/s.
    low, high : float
        Range over which the quantity is declared; the default bounds of a fit.
    meaning : str
        What it is, in words.
    source : str
        Where the range or the definition comes from.
    latex : str
        Symbol for print; the name where empty.
    start : tuple of float
        Values from which a fit may start, when the unknown is not linear; empty: two values inside the range.
    """

    name: str
    unit: str
    low: float
    high: float
    meaning: str
    source: str = ""
    latex: str = ""
    start: tuple[float, ...] = ()

    @property
    def starts(self) -> tuple[float, ...]:
        """Start values: the declared ones, else the quarter points of the range."""
        if self.start:
            return self.start
        low, high = (v if np.isfinite(v) else s for v, s in ((self.low, -1.0), (self.high, 1.0)))
        return (low + 0.25 * (high - low), low + 0.75 * (high - low))


@runtime_checkable
class Model(Protocol):
    """What estimators and trials need of a signal model, be it an equation or a numerical engine.

    `theta` is a mapping from each unknown's name to a scalar or (voxel,) array, or one array (voxel, unknown).
    `protocol` is a mapping from each setting's name to a scalar (constant), a (point,) array (shared by all
    voxels) or a (voxel, 1) array (held per voxel, as a B1 map).
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def unknowns(self) -> tuple[Quantity, ...]:
        """What a fit may estimate."""
        ...

    @property
    def settings(self) -> tuple[Quantity, ...]:
        """What the protocol sets."""
        ...

    def signal(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Signal, (voxel, point), real or complex."""
        ...

    def jacobian(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Derivative of the signal with respect to each unknown, (voxel, point, unknown)."""
        ...


def columns(unknowns: Sequence[Quantity], theta: Values) -> np.ndarray:
    """`theta` as one array (voxel, unknown), in the order of `unknowns`.

    Raises
    ------
    InputError
        If an unknown is missing, or the arrays do not fit together.
    """
    names = [q.name for q in unknowns]
    if isinstance(theta, Mapping):
        missing = [n for n in names if n not in theta]
        if missing:
            raise InputError(f"theta lacks {', '.join(missing)}; the model's unknowns are {', '.join(names)}")
        parts = [np.atleast_1d(np.asarray(theta[n], dtype=float)).ravel() for n in names]
        try:
            return np.stack(np.broadcast_arrays(*parts), axis=-1)
        except ValueError:
            sizes = ", ".join(f"{n} {p.size}" for n, p in zip(names, parts, strict=True))
            raise InputError(f"theta has arrays of different lengths ({sizes}); give one value a voxel") from None
    array = np.atleast_2d(np.asarray(theta, dtype=float))
    if array.shape[-1] != len(names) or array.ndim != 2:
        raise InputError(f"theta has shape {array.shape}; expected (voxel, {len(names)}) for {', '.join(names)}")
    return array


def numerical_jacobian(
    model: Model,
    theta: Values,
    protocol: Mapping[str, Any],
    step: float = 1e-3,
    scales: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Jacobian of any model by four-point central differences, all perturbed copies in one batch.

    Parameters
    ----------
    model : Model
    theta, protocol
        As for `Model.signal`.
    step : float
        Step, as a fraction of each unknown's value; of its declared range where the value is 0 (of 1 where that range
        is infinite).
    scales : mapping of str to float, optional
        For an unknown whose value does not tell over what length the signal bends, as that of an offset near 0 does
        not: that length, of which the step is then the fraction.

    Returns
    -------
    ndarray, (voxel, point, unknown)

    Notes
    -----
    The truncation error is of fourth order in the step; the rounding error grows as its inverse. At 1e-3 both are near
    1e-11 of the derivative where they are worst: where a signal bends over a fifth of the unknown's value (near the
    Ernst angle), and where an engine rounds a few 1e-15 at the end of its exponentials. This is the adapter for
    numerical engines; an equation has its exact Jacobian.
    """
    values = columns(model.unknowns, theta)
    span = np.array([q.high - q.low if np.isfinite(q.high - q.low) else 0.0 for q in model.unknowns])
    # tied to the value where there is one: ranges of rates span decades, and the signal bends on the scale of the value
    h = step * np.where(values != 0.0, np.abs(values), np.where(span > 0.0, span, 1.0))
    for a, q in enumerate(model.unknowns):
        if scales and q.name in scales:
            h[:, a] = step * scales[q.name]
    shifts, weights = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
    n_voxel, n = values.shape
    batch = np.repeat(values[None], 4 * n, axis=0).reshape(n, 4, n_voxel, n)
    for a in range(n):
        batch[a, :, :, a] += shifts[:, None] * h[:, a]
    held = {
        name: np.tile(v, (4 * n, 1)) if np.ndim(v) == 2 and np.shape(v)[0] == n_voxel > 1 else v
        for name, v in protocol.items()
    }
    signal = model.signal(batch.reshape(-1, n), held).reshape(n, 4, n_voxel, -1)
    return np.einsum("s,asvp->vpa", weights, signal) / h[:, None, :]


@cache
def _rician_factor_table() -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes over the noise SD, (knot,), and the quadrature of `rician_information` there, (knot,)."""
    from scipy.integrate import quad_vec
    from scipy.special import i0e, i1e

    amplitude = np.linspace(0.0, 12.0, 481)

    def integrand(x: float) -> np.ndarray:
        z = x * amplitude
        return x * np.exp(-0.5 * (x - amplitude) ** 2) * i0e(z) * (x * i1e(z) / i0e(z)) ** 2

    second, _ = quad_vec(integrand, 0.0, 24.0, epsrel=1e-10)
    return amplitude, second - amplitude**2


def rician_information(amplitude: np.ndarray) -> np.ndarray:
    """Fisher information of a Rician magnitude about its amplitude, as a fraction of the Gaussian one.

    Parameters
    ----------
    amplitude : ndarray
        Noise-free magnitude over the noise SD of each real channel.

    Returns
    -------
    ndarray
        Between 0 (no signal) and 1 (many SDs): E[(x I1(xA)/I0(xA))**2] - A**2, by quadrature.

    References
    ----------
    Karlsen et al., Magn Reson Med 41:614 (1999), doi:10.1002/(SICI)1522-2594(199903)41:3<614::AID-MRM26>3.0.CO;2-1
    """
    from scipy.interpolate import CubicSpline

    knots, factor = _rician_factor_table()
    a = np.abs(amplitude)
    far = 1.0 - 0.5 / np.maximum(a, 1.0) ** 2  # the asymptote; at 12 SDs the next term is below 1e-3 of the gap
    return np.where(a < knots[-1], CubicSpline(knots, factor)(np.minimum(a, knots[-1])), far)


def information(
    model: Model,
    theta: Values,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray,
    noise: str = "gaussian",
    free: Sequence[str] | None = None,
) -> np.ndarray:
    """Fisher information about the unknowns.

    Parameters
    ----------
    model : Model
    theta, protocol
        As for `Model.signal`.
    sigma : float or ndarray, (voxel,)
        Noise SD of each real channel.
    noise : {"gaussian", "rician"}
        Noise of the data; `rician` is the magnitude of complex Gaussian noise on |signal|.
    free : sequence of str, optional
        The unknowns that are estimated; the others are known. Default all.

    Returns
    -------
    ndarray, (voxel, free, free)

    Raises
    ------
    InputError
        If `noise` or a name in `free` is unknown.
    """
    if noise not in ("gaussian", "rician"):
        raise InputError(f"noise is {noise!r}; expected gaussian or rician")
    names = [q.name for q in model.unknowns]
    free = names if free is None else list(free)
    strangers = [n for n in free if n not in names]
    if strangers:
        raise InputError(f"free names {', '.join(strangers)}; the model's unknowns are {', '.join(names)}")
    jac = model.jacobian(theta, protocol)[..., [names.index(n) for n in free]]
    scale = np.broadcast_to(np.asarray(sigma, dtype=float).reshape(-1, 1, 1), (jac.shape[0], 1, 1))
    weight: float | np.ndarray = 1.0
    if noise == "rician":
        signal = model.signal(theta, protocol)
        magnitude = np.abs(signal)
        if np.iscomplexobj(signal):  # derivative of |s|
            jac = np.real(np.conj(signal / np.where(magnitude > 0, magnitude, 1.0))[..., None] * jac)
        weight = rician_information(magnitude / scale[..., 0])[..., None]
    return np.real(np.swapaxes(np.conj(jac), 1, 2) @ (weight * jac)) / scale**2


def cramer_rao_bound(
    model: Model,
    theta: Values,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray,
    noise: str = "gaussian",
    free: Sequence[str] | None = None,
) -> np.ndarray:
    """Cramer-Rao bound of the SD of each free unknown, (voxel, free); infinite where the information is singular.

    Parameters and errors as for `information`. A Gaussian bound misleads on magnitude data of low SNR.
    """
    return np.sqrt(variances(information(model, theta, protocol, sigma, noise, free)))


def variances(matrix: np.ndarray) -> np.ndarray:
    """Diagonal of the inverse of each information matrix, (..., n, n) -> (..., n).

    The matrix is scaled to unit diagonal first, so that units do not decide what counts as singular. Infinite for
    the unknowns that take part in a direction whose eigenvalue is below 1e-13 of the largest, where rounding owns
    the inverse.
    """
    d = np.sqrt(np.einsum("...ii->...i", matrix))
    scale = np.where((d > 0) & np.isfinite(d), d, 1.0)
    unit = matrix / (scale[..., :, None] * scale[..., None, :])
    finite = np.isfinite(unit).all(axis=(-2, -1))
    unit = np.where(finite[..., None, None], unit, np.eye(matrix.shape[-1]))
    eigenvalue, vector = np.linalg.eigh(unit)
    null = eigenvalue <= 1e-13 * eigenvalue[..., -1:]
    inverse = np.einsum("...ak,...k->...a", vector**2, np.where(null, 0.0, 1.0 / np.where(null, 1.0, eigenvalue)))
    unknowable = np.einsum("...ak,...k->...a", vector**2, null) > 1e-8
    return np.where(unknowable | ~finite[..., None], np.inf, inverse / scale**2)
