"""How well the noise is known: its SD, given or pooled over voxels, and how much that widens an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Noise:
    """Noise SD of the data, and with how many degrees of freedom it is known (infinite where it was given)."""

    sd: float | np.ndarray
    freedom: float

    @property
    def widening(self) -> float:
        """Factor on a standard error so that +- 1.96 of it covers 95 % although the noise SD is estimated."""
        return self.quantile / Z95

    @property
    def quantile(self) -> float:
        """97.5 % quantile of an estimate over its standard error: Student's t."""
        if not self.freedom > 0:
            return np.nan
        if self.freedom > 1e5:
            return Z95
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975))


def noise_of(cost: np.ndarray, freedom: int, good: np.ndarray, sigma: float | np.ndarray | None) -> Noise:
    """The given noise SD, else the residuals pooled over the good voxels.

    Parameters
    ----------
    cost : ndarray, (voxel,)
        Sum of squared residuals of each voxel's fit.
    freedom : int
        Points less unknowns of one voxel.
    good : ndarray of bool, (voxel,)
        Voxels that count.
    sigma : float or ndarray, (voxel,), optional
        The noise SD where it is known.

    Notes
    -----
    A voxel that no model fits (an artefact) would own a plain mean: residuals above the value that one good voxel in
    10 000 exceeds, given the median, are left out. The bias of leaving them out is below one in a thousand.
    """
    if sigma is not None:
        return Noise(sigma, np.inf)
    rest = cost[good]
    if freedom <= 0 or rest.size == 0:
        return Noise(np.nan, 0)
    if rest.size > 10:
        from scipy.special import chdtri

        rest = rest[rest <= np.median(rest) * chdtri(freedom, 1e-4) / chdtri(freedom, 0.5)]
    return Noise(float(np.sqrt(rest.mean() / freedom)), freedom * rest.size)
