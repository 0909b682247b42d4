"""Receive coils: sensitivities B1- of arrays of loops, and the covariance of their noise.

By reciprocity a coil receives from Mx + i My with the weight Bx - i By of the field that 1 A in it would make (Hoult
and Richards 1976, doi:10.1016/0022-2364(76)90233-X), for the sense of turning in which a positive frequency is
exp(+i 2 pi f t). Fields are quasi-static (`loops`).

Noise of two coils is correlated as far as their electric fields dissipate in the same conductor (Roemer et al. 1990,
doi:10.1002/mrm.1910160203): R_jk = sigma integral of E_j E_k. E is -dA/dt less the gradient of the potential of the
charges that keep the current inside the body; the latter is solved on the voxels. To it comes noise of the coils' own
wire and preamplifiers, the same in each and uncorrelated. Coupling of coils by inductance is left out, as overlap and
preamplifier decoupling are meant to take it away.

Sensitivities and covariance are scaled so that the covariance has the mean diagonal 1 and the best combination of all
coils reaches, in the median voxel of the mask, the SNR of one uniform coil of sensitivity 1: the noise SD of
`acquisition.noise` means the same with any array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from .arrays import ankle, cylinder, knee, spine
from .grid import Grid
from .loading import noise_resistance
from .loops import Conductor

__all__ = ["Coils", "ankle", "array", "cylinder", "knee", "noise_resistance", "receive", "spine", "uniform"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Coils:
    """Receive coils over a grid.

    Attributes
    ----------
    sensitivities : complex ndarray (coil, z, y, x)
        Weight with which each coil receives Mx + i My. Finite everywhere: outside the object 0 will do.
    covariance : complex ndarray (coil, coil), optional
        Psi: the complex noise n has the mean n n^H = 2 noise_sd^2 Psi; default the identity. Hermitian, positive
        definite.

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, a covariance that is none.
    """

    sensitivities: Any
    covariance: Any = None

    def __post_init__(self) -> None:
        s = np.asarray(self.sensitivities, dtype=complex)
        if s.ndim != 4 or 0 in s.shape:
            raise InputError(f"coils: sensitivities have shape {s.shape}: expected (coil, z, y, x)")
        if not np.isfinite(s).all():
            bad = tuple(np.argwhere(~np.isfinite(s))[0].tolist())
            raise InputError(f"coils: sensitivity at (coil, z, y, x) = {bad} is not finite: expected a number, 0 "
                             "outside the object")  # fmt: skip
        psi = np.eye(len(s), dtype=complex) if self.covariance is None else np.asarray(self.covariance, dtype=complex)
        if psi.shape != (len(s), len(s)) or not np.isfinite(psi).all():
            raise InputError(f"coils: covariance has shape {psi.shape}: expected ({len(s)}, {len(s)}) finite numbers")
        if np.abs(psi - psi.conj().T).max() > 1e-9 * np.abs(psi).max() or np.linalg.eigvalsh(psi).min() <= 0:
            raise InputError("coils: covariance is not Hermitian and positive definite: expected that of noise")
        object.__setattr__(self, "sensitivities", s)
        object.__setattr__(self, "covariance", psi)

    @property
    def count(self) -> int:
        """Number of coils."""
        return len(self.sensitivities)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x."""
        return tuple(self.sensitivities.shape[1:])

    @property
    def correlation(self) -> Complexes:
        """Noise correlation of each pair, 1 on the diagonal: (coil, coil)."""
        sd = np.sqrt(np.diag(self.covariance).real)
        return self.covariance / np.outer(sd, sd)

    @property
    def snr(self) -> Floats:
        """SNR of the best combination without acceleration, of a uniform coil of sensitivity 1: (z, y, x).

        Source: Roemer et al. 1990, doi:10.1002/mrm.1910160203.
        """
        s = self.sensitivities.reshape(self.count, -1)
        power = (s.conj() * np.linalg.solve(self.covariance, s)).sum(axis=0).real
        return np.sqrt(np.maximum(power, 0.0)).reshape(self.shape)

    def noise_covariance(self, noise_sd: float) -> Complexes:
        """Covariance (coil, coil) of the real parts of the noise, as `kspace.add_noise` and `coil_combination` take it.

        Parameters
        ----------
        noise_sd : float
            SD per real channel in the mean coil, that of `acquisition.noise`.

        Raises
        ------
        InputError
            A noise level that is not above 0.
        """
        if not (np.isfinite(noise_sd) and noise_sd > 0):
            raise InputError(f"noise_sd is {noise_sd!r}: expected a number above 0")
        covariance: Complexes = noise_sd**2 * self.covariance
        return covariance


def uniform(count: int, shape: Sequence[int]) -> Coils:
    """Ideal coils of uniform sensitivity 1/sqrt(count) and uncorrelated noise: no encoding, the SNR of a single one.

    Raises
    ------
    InputError
        A count that is no whole number from 1 up.
    """
    if isinstance(count, bool) or count != int(count) or count < 1:
        raise InputError(f"coils: count is {count!r}: expected a whole number from 1 up")
    return Coils(np.broadcast_to(complex(1 / math.sqrt(count)), (int(count), *shape)))


def array(loops: Sequence[Conductor], grid: Grid, mask: Any = None, *, electronics: float = 0.1) -> Coils:
    """Sensitivities and noise covariance of an array of loops around a body.

    Parameters
    ----------
    loops : sequence of Loop or Polygon
        None of their wires in the mask.
    grid : Grid
    mask : array (z, y, x), optional
        The body, a uniform conductor; default the whole grid. Sensitivities are 0 outside of it.
    electronics : float
        Noise power of a coil's own wire and preamplifier over that of the body in the mean coil: the one number on
        which field strength and conductivity act (`noise_resistance`). The default, .1, is an unloaded Q eleven times
        the loaded one, as for a loop of a decimetre close to the body at 1.5 T and above (a plausible value).

    Returns
    -------
    Coils

    Raises
    ------
    InputError
        No loop, no mask, a wire in a voxel's centre, or a number out of range.
    """
    if len(loops) < 1:
        raise InputError("coils: no loop: expected one at least")
    if not (math.isfinite(electronics) and electronics >= 0):
        raise InputError(f"coils: electronics is {electronics!r}: expected a share of the body's noise, from 0 up")
    inside = grid.mask(mask, "coils")
    s = np.zeros((len(loops), *grid.shape), complex)
    for k, loop in enumerate(loops):
        s[k, inside] = receive(loop, grid.positions[inside])
    resistance = noise_resistance(loops, grid, inside)
    mean = float(np.diag(resistance).mean())
    psi = resistance / mean + electronics * np.eye(len(loops))
    psi /= 1 + electronics
    median = float(np.median(Coils(s, psi).snr[inside]))
    return Coils(s / median, psi)


def receive(loop: Conductor, positions: Any) -> Complexes:
    """Weight Bx - i By (T per A) with which a loop receives Mx + i My at positions (..., 3), in m: (...)."""
    field = loop.field(positions)
    weight: Complexes = field[..., 0] - 1j * field[..., 1]
    return weight
