"""Concomitant (Maxwell) fields: what a gradient coil must add to a linear field, and the phase that it costs.

To lowest order in the gradient; the next order is smaller by G.r/B0, which is 1e-3 for 30 mT/m at 10 cm and 3 T.
Waveforms are those of `waveforms`; a phase follows the convention exp(+i phase).

Source: Bernstein et al. 1998, doi:10.1002/mrm.1910390218.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ..kspace.trajectory import Trajectory
from .waveforms import Waveform, above, gamma_of, inverted, pieces, within

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


def concomitant_field(
    gradient: Any, positions: Any, field_strength: float, *, asymmetry: float = 0.5, centre: Any = (0.0, 0.0, 0.0)
) -> Floats:
    """The field that Maxwell's equations add to a linear gradient, to lowest order in it (T).

    Parameters
    ----------
    gradient : array (..., 3)
        T/m along x, y, z.
    positions : array (..., 3)
        x, y, z (m); broadcast against `gradient`.
    field_strength : float
        T. Doubling it halves the field.
    asymmetry : float
        Share of the z coil's transverse field that lies along x: .5 for a cylindrical coil.
    centre : three floats
        Where the transverse fields vanish (m): the isocentre, but for coils that are asymmetric along z (Meier et al.
        2008, doi:10.1002/mrm.21615).

    References
    ----------
    Bernstein et al. 1998, doi:10.1002/mrm.1910390218.
    """
    gx, gy, gz = np.moveaxis(np.asarray(gradient, dtype=float), -1, 0)
    square = np.stack([gx**2 + gy**2, gz**2, gx * gz, gy * gz], axis=-1)
    basis = concomitant_basis(positions, asymmetry=asymmetry, centre=centre)
    field: Floats = (square * basis).sum(axis=-1) / (2 * above(field_strength, "field_strength", "T"))
    return field


def concomitant_basis(positions: Any, *, asymmetry: float = 0.5, centre: Any = (0.0, 0.0, 0.0)) -> Floats:
    """The four functions of position (..., 4), in m2, of which all concomitant phase is made."""
    place = np.asarray(positions, dtype=float)
    if place.ndim == 0 or place.shape[-1] != 3:
        raise InputError(f"concomitant: positions have shape {place.shape}: expected (..., 3), x, y, z in m")
    x, y, z = np.moveaxis(place - np.asarray(centre, dtype=float), -1, 0)
    a, b = asymmetry, 1 - asymmetry
    return np.stack([z**2, (a * x) ** 2 + (b * y) ** 2, -2 * a * x * z, -2 * b * y * z], axis=-1)


def concomitant_coefficients(
    source: Waveform | Trajectory,
    field_strength: float,
    *,
    at: Any = None,
    refocused: Sequence[float] = (),
    nucleus: str | None = None,
) -> Floats:
    """What the concomitant phase is made of in time: ``coefficients @ basis`` is the phase.

    Parameters
    ----------
    source : waveform, or Trajectory
    field_strength : float
        T.
    at : array (time,), optional
        When (s); default the samples of a trajectory, else the knots.
    refocused : sequence of float
        When the magnetisation's phase is inverted (s): reference points of refocusing pulses. The sign of an
        `effective_gradient` does not tell, as the squares count.
    nucleus : str, optional
        A key of `constants.GYROMAGNETIC`; default that of the trajectory, else 1H.

    Returns
    -------
    ndarray (time, 4), or (readout, sample, 4) of a trajectory
        rad/m2, counted from the first knot.
    """
    flips = np.asarray(sorted(refocused), dtype=float)
    rows = []
    for times, gradient, when in pieces(source, at):
        integral = _integral_of_squares(times, gradient, np.concatenate([when, flips]))
        rows.append(inverted(integral, when, flips))
    factor = math.pi * gamma_of(source, nucleus) / above(field_strength, "field_strength", "T")
    found: Floats = factor * np.concatenate(rows)
    return found if isinstance(source, Trajectory) else found[0]


def concomitant_phase(
    source: Waveform | Trajectory,
    positions: Any,
    field_strength: float,
    *,
    at: Any = None,
    refocused: Sequence[float] = (),
    nucleus: str | None = None,
    asymmetry: float = 0.5,
    centre: Any = (0.0, 0.0, 0.0),
) -> Floats:
    """Phase (rad) by concomitant fields, the exact integral of the squared gradients.

    Parameters
    ----------
    source, at, refocused, nucleus :
        As in `concomitant_coefficients`.
    positions : array (..., 3)
        x, y, z (m).
    field_strength, asymmetry, centre :
        As in `concomitant_field`.

    Returns
    -------
    ndarray (..., time), or (..., readout, sample) of a trajectory

    Raises
    ------
    InputError
        Times that decrease, shapes that do not fit, a field that is not above 0.
    """
    basis = concomitant_basis(positions, asymmetry=asymmetry, centre=centre)
    terms = concomitant_coefficients(source, field_strength, at=at, refocused=refocused, nucleus=nucleus)
    return np.tensordot(basis, terms, (-1, -1))


def concomitant_factors(
    source: Waveform | Trajectory,
    positions: Any,
    field_strength: float,
    *,
    precision: float = 1e-4,
    **options: Any,
) -> tuple[Complexes, Complexes]:
    """exp(+i phase) of all samples and voxels as a short sum of products: one Fourier transform for each of them.

    Parameters
    ----------
    source, positions, field_strength, **options :
        As in `concomitant_phase`.
    precision : float
        Largest error of exp(+i phase), as tried on 2000 samples and voxels.

    Returns
    -------
    courses : complex ndarray (rank, time), or (rank, readout, sample)
    maps : complex ndarray (rank, ...)

    Raises
    ------
    InputError
        As `concomitant_phase`; a precision out of range, or a phase that varies by so much that hundreds of products
        would not do.

    Notes
    -----
    Columns and rows of the matrix that stand for all others (a CUR decomposition): they are chosen by elimination with
    pivots from a sample of times and places, extremes among them, and tried on others. A phase that is the same for all
    samples needs one product, one that grows as time few; those may as well be laid into object and field map.
    """
    if not 1e-8 <= precision < 1:
        raise InputError(f"concomitant: precision is {precision!r}: expected from 1e-8 to below 1")
    geometry = {name: options.pop(name) for name in ("asymmetry", "centre") if name in options}
    terms = concomitant_coefficients(source, field_strength, **options)
    basis = concomitant_basis(positions, **geometry)
    time, place = terms.reshape(-1, 4), basis.reshape(-1, 4)
    rng = np.random.default_rng(0)
    tried = rng.integers(len(time), size=2000), rng.integers(len(place), size=2000)
    exact = np.exp(1j * (time[tried[0]] * place[tried[1]]).sum(axis=1))
    tolerance = precision / 10
    for _ in range(4):
        rows, columns = _sample(time, rng), _sample(place, rng)
        matrix = _turned(time[rows], place[columns])
        columns = columns[_pivots(matrix, tolerance)]
        rows = rows[_pivots(matrix.T, tolerance)]
        rows = np.union1d(rows, rng.integers(len(time), size=rows.size))  # more rows than columns: a fit
        if columns.size < SAMPLE / 2:
            courses = _turned(time, place[columns])
            maps = np.linalg.pinv(courses[rows], rcond=1e-12) @ _turned(time[rows], place)
            error = np.abs((courses[tried[0]] * maps[:, tried[1]].T).sum(axis=1) - exact).max()
            if error <= precision / 2:
                shape = terms.shape[:-1], basis.shape[:-1]
                return courses.T.reshape(-1, *shape[0]), maps.reshape(-1, *shape[1])
        tolerance /= 4
    largest = float(np.abs(time - time.mean(axis=0)).max(axis=0) @ np.abs(place).max(axis=0))
    raise InputError(f"concomitant: the phase varies by up to {largest:.3g} rad during the samples: expected less, of "
                     "a higher field, a smaller object or weaker gradients")  # fmt: skip


SAMPLE = 250
"""Times, and places, that stand for all at first, beside those at the edges."""


def _sample(points: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Some of the points (point, 4): random ones, and the farthest in many directions."""
    size = np.abs(points).max(axis=0)
    directions = rng.normal(size=(40, 4)) / np.where(size > 0, size, 1.0)
    far = [int(np.argmax((points * direction).sum(axis=1))) for direction in directions]
    return np.unique(np.concatenate([rng.integers(len(points), size=SAMPLE), far]))


def _turned(time: Floats, place: Floats) -> Complexes:
    # not as a matrix product: that of BLAS would wait for the threads of a busy machine
    phase = np.einsum("ti,pi->tp", time, place)
    turned: Complexes = np.empty(phase.shape, complex)
    turned.real, turned.imag = np.cos(phase), np.sin(phase)
    return turned


def _pivots(matrix: Complexes, tolerance: float) -> NDArray[np.int64]:
    """The columns of which all others are combinations, to this tolerance (of a mean over the rows)."""
    left = matrix.copy()
    chosen: list[int] = []
    for _ in range(min(matrix.shape)):
        size = np.einsum("tp,tp->p", left.conj(), left).real
        worst = int(size.argmax())
        if chosen and size[worst] <= tolerance**2 * len(matrix):
            break
        chosen.append(worst)
        unit = left[:, worst] / math.sqrt(size[worst])
        left -= unit[:, None] * np.einsum("t,tp->p", unit.conj(), left)
    return np.array(chosen, dtype=np.int64)


def _integral_of_squares(times: Floats, gradient: Floats, at: Floats) -> Floats:
    """Integrals from the first knot to each time of Gx^2 + Gy^2, Gz^2, Gx Gz, Gy Gz: (row, time, 4)."""
    length, first, last = np.diff(times), gradient[:, :-1], gradient[:, 1:]
    done = np.cumsum(_squares(first, last, length), axis=1)
    done = np.concatenate([np.zeros_like(done[:, :1]), done], axis=1)
    piece, share = within(times, at)
    here = first[:, piece] + share[:, None] * (last - first)[:, piece]
    return done[:, piece] + _squares(first[:, piece], here, share * length[piece])


def _squares(a: Floats, b: Floats, length: Floats) -> Floats:
    """Integrals of the four products over pieces on which the gradient goes from a to b (row, piece, 3)."""

    def product(i: int, j: int) -> Floats:
        mixed = a[..., i] * b[..., j] + b[..., i] * a[..., j]
        return length / 6 * (2 * a[..., i] * a[..., j] + mixed + 2 * b[..., i] * b[..., j])

    return np.stack([product(0, 0) + product(1, 1), product(2, 2), product(0, 2), product(1, 2)], axis=-1)
