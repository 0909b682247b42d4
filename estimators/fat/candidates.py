"""The two solutions that two echoes leave in each voxel, and how well they and the noise are known.

The magnitudes give a quadratic equation for the fat fraction, for water and fat of one phase at TE 0; each of its roots
foretells a phase from echo to echo, and what is left of the measured one is the field's.
Xiang, Magn Reson Med 56:572 (2006), doi:10.1002/mrm.20984.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .train import Train


@dataclass(frozen=True)
class Candidates:
    """The two solutions of each voxel, (2, voxel): that of less fat first.

    Attributes
    ----------
    turn : ndarray of complex
        By how much the field turns the phase from the first echo to the second, as a phasor.
    fraction : ndarray
        Fat fraction, 0 to 1.
    phase_variance, ratio_variance : ndarray
        Of the angle of `turn`, for noise of SD 1 (rad2): by the phases, and by the fraction that the magnitudes tell.
    """

    turn: np.ndarray
    fraction: np.ndarray
    phase_variance: np.ndarray
    ratio_variance: np.ndarray

    @classmethod
    def of(cls, s: np.ndarray, decay: np.ndarray, train: Train) -> Candidates:
        """Of signals (voxel, 2) that decayed by `decay` (voxel, 2)."""
        c = train.fat
        grown = s / decay
        # |1 - p + p c|^2 = 1 + b p + a p^2 at each echo
        a, b = np.abs(1 - c) ** 2, 2 * (c.real - 1)
        power = np.abs(grown) ** 2
        scale = power.sum(axis=1)
        first, second = power[:, 0] / scale, power[:, 1] / scale
        A, B, C = first * a[1] - second * a[0], first * b[1] - second * b[0], first - second
        root = np.sqrt(np.maximum(B * B - 4 * A * C, 0.0))
        flat = np.abs(A) < 1e-9
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = np.where(np.abs(B) > 1e-12, -C / B, 0.5)
            p = np.where(flat, linear, np.stack([-B - root, -B + root]) / (2 * A))
        p = np.sort(np.clip(p, 0.0, 1.0), axis=0)
        g = 1 - p[..., None] * (1 - c)
        foretold = g[..., 1] * g[..., 0].conj()
        turned = grown[:, 1] * grown[:, 0].conj() * foretold.conj()
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = turned / np.abs(turned)
            q = (1.0 / np.abs(s) ** 2).sum(axis=1)
            slope = (c[1] - 1) / g[..., 1] - (c[0] - 1) / g[..., 0]
            bend = slope.imag / (2 * slope.real)  # of the foretold angle as the log of the ratio of powers moves
            ratio = np.minimum(4 * q * bend**2, np.finfo(float).max)
        return cls(np.where(np.isfinite(turn), turn, 1.0), p, np.broadcast_to(q, p.shape), np.nan_to_num(ratio, nan=0))

    def variance(self, sigma: np.ndarray) -> np.ndarray:
        """Of the angles (rad2), for noise of this SD; what the fraction adds is no more than the angle's range."""
        v: np.ndarray = sigma**2 * self.phase_variance + np.minimum(sigma**2 * self.ratio_variance, 1.0)
        return v

    def pick(self, values: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Of (2, voxel) values those of the chosen candidates, (voxel,)."""
        return np.where(label, values[1], values[0])


def noise_level(s: np.ndarray, mask: np.ndarray) -> float:
    """Noise SD of each real channel, from how magnitudes differ from the mean of the voxels on either side.

    Structure makes it too large, which only makes evidence weaker; an image without neighbours tells nothing (0).
    """
    size = np.zeros((*mask.shape, s.shape[1]))
    size[mask] = np.abs(s)
    seen = []
    for axis in range(max(mask.ndim - 3, 0), mask.ndim):
        middle, inside = np.moveaxis(size, axis, 0), np.moveaxis(mask, axis, 0)
        if len(middle) > 2:
            whole = inside[:-2] & inside[1:-1] & inside[2:]
            seen.append(np.abs(middle[1:-1] - (middle[:-2] + middle[2:]) / 2)[whole].ravel())
    found = np.concatenate(seen) if seen else np.zeros(0)
    # the median of |x| of a normal x is .6745 of its SD, and 1 + 1/4 + 1/4 variances meet in the difference
    return float(np.median(found)) / (0.6745 * np.sqrt(1.5)) if found.size else 0.0
