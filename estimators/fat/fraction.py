"""PDFF, water and fat from complex amplitudes, with first-order errors; correction for T1.

Magnitudes of small amplitudes have a noise floor: the fraction |F|/(|W| + |F|) of pure water is not 0 but the size of
its noise. Two fractions without it are the real part of F/(W + F), whose noise averages out, and magnitude
discrimination, where the larger of the two amplitudes alone decides.
Liu et al., Magn Reson Med 58:354 (2007), doi:10.1002/mrm.21301.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRACTIONS = ("real", "magnitude", "discrimination")


@dataclass(frozen=True)
class Weights:
    """What T1 leaves of water and of fat at the scan's flip angle and TR, and the relative SDs of these, (voxel,)."""

    water: float | np.ndarray = 1.0
    fat: float | np.ndarray = 1.0
    water_error: float | np.ndarray = 0.0
    fat_error: float | np.ndarray = 0.0

    def take(self, where: np.ndarray) -> Weights:
        """Those of some voxels."""
        parts = (self.water, self.fat, self.water_error, self.fat_error)
        return Weights(*(v[where] if np.size(v) > 1 else v for v in parts))  # type: ignore[index]


UNWEIGHTED = Weights()


@dataclass(frozen=True)
class Fraction:
    """Values and, for noise of SD 1, standard errors; `weight_sd` is what the errors of the weights add to pdff.

    `along` is fat in the direction of the sum, `sum` the size of the sum, `moments` their variances and covariance
    where they were asked for.
    """

    pdff: np.ndarray
    water: np.ndarray
    fat: np.ndarray
    unit_sd: dict[str, np.ndarray]
    weight_sd: np.ndarray
    along: np.ndarray
    sum: np.ndarray
    moments: np.ndarray

    def interval(self, noise_sd: float | np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of the ratio fat over water and fat: Fieller's, which is exact for a ratio of normal numbers.

        Where the sum itself could be 0 the interval is everything: 0 to 1 is given.
        """
        variance = self.moments * (np.asarray(noise_sd)[..., None] * quantile) ** 2
        ff, fs, ss = np.moveaxis(variance, -1, 0)
        extra = (quantile * self.weight_sd * self.sum) ** 2
        f, s = self.along, self.sum
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b, c = s * s - ss, s * f - fs, f * f - ff - extra
            root = np.sqrt(np.maximum(b * b - a * c, 0.0))
            open_ = ~(a > 0)
            low, high = np.where(open_, 0.0, (b - root) / a), np.where(open_, 1.0, (b + root) / a)
        missing = ~np.isfinite(self.pdff)
        low, high = np.minimum(low, self.pdff), np.maximum(high, self.pdff)  # a magnitude may lie above its ratio
        return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


def fraction_of(
    water: np.ndarray,
    fat: np.ndarray,
    covariance: np.ndarray,
    weights: Weights = UNWEIGHTED,
    kind: str = "real",
    moments: bool = True,
) -> Fraction:
    """Fraction and amplitudes.

    Parameters
    ----------
    water, fat : ndarray of complex, (voxel,)
    covariance : ndarray, (voxel, 4 and more, ...)
        Of the real and imaginary parts of water, then of fat, for noise of SD 1.
    weights : Weights
    kind : {"real", "magnitude", "discrimination"}
    moments : bool
        Whether an interval will be asked for.
    """
    seen = _Seen(covariance, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        w, f = water / weights.water, fat / weights.fat
        total = w + f
        size = np.abs(total)
        along = np.where(size > 0, total.conj() / size, 1.0)
        f_along = f * along
        # of Re(z u), u the phase of the sum: it turns by Im(dS u)/|S| where z has a part across
        across = 1j * (f_along.imag / size) * along
        of_fat, of_water = (-across, along - across), (along + across, across)
        gradients: dict[str, tuple[np.ndarray, np.ndarray]]
        if kind == "real":
            values = {"water": (w * along).real, "fat": f_along.real, "pdff": f_along.real / size}
            q = f / total
            gradients = {"water": of_water, "fat": of_fat, "pdff": (-q / total, (1 - q) / total)}
        else:
            u, v = (np.where(np.abs(z) > 0, z.conj() / np.abs(z), 1.0) for z in (w, f))
            zero = np.zeros_like(u)
            values = {"water": np.abs(w), "fat": np.abs(f)}
            gradients = {"water": (u, zero), "fat": (zero, v)}
            if kind == "magnitude":
                whole = np.abs(w) + np.abs(f)
                p = np.abs(f) / whole
                gradients["pdff"] = (-p * u / whole, (1 - p) * v / whole)
            else:
                fatty = np.abs(f) > np.abs(w)
                p = np.where(fatty, np.abs(f), size - np.abs(w)) / size
                share = np.where(fatty, p, 1 - p) * along
                by_water = np.where(fatty, -share, share - u) / size
                gradients["pdff"] = (by_water, np.where(fatty, v - share, share) / size)
            values["pdff"] = p
    sd = {name: np.sqrt(seen.covariance(g, g)) for name, g in gradients.items()}
    pairs = ((of_fat, of_fat), (of_fat, (along, along)), ((along, along), (along, along))) if moments else ()
    kept = np.stack([seen.covariance(a, b) for a, b in pairs], axis=-1) if moments else np.zeros((len(w), 0))
    pdff = values["pdff"]
    weight_sd = np.abs(pdff * (1 - pdff)) * np.hypot(weights.water_error, weights.fat_error)
    return Fraction(pdff, values["water"], values["fat"], sd, weight_sd, f_along.real, size, kept)


class _Seen:
    """Covariance of amplitudes after their weights are divided out."""

    def __init__(self, covariance: np.ndarray, weights: Weights) -> None:
        self.matrix, self.weights = covariance, weights

    def covariance(self, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Of two quantities with d = Re(a dW + b dF), (voxel,)."""
        total = np.zeros(len(self.matrix))
        with np.errstate(invalid="ignore", over="ignore"):
            rows = []
            for of_water, of_fat in (one, other):
                a, b = of_water / self.weights.water, of_fat / self.weights.fat
                rows.append((a.real, -a.imag, b.real, -b.imag))
            for i, p in enumerate(rows[0]):
                for j, q in enumerate(rows[1]):
                    total += p * q * self.matrix[:, i, j]
        return np.where(np.isinf(self.matrix[:, 0, 0]), np.inf, total)
