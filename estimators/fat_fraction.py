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

    `along` is fat in the direction of the sum, `sum` the size of the sum, `moments` their variances and covariance.
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
    water: np.ndarray, fat: np.ndarray, covariance: np.ndarray, weights: Weights = UNWEIGHTED, kind: str = "real"
) -> Fraction:
    """Fraction and amplitudes.

    Parameters
    ----------
    water, fat : ndarray of complex, (voxel,)
    covariance : ndarray, (voxel, 4, 4)
        Of the real and imaginary parts of water, then of fat, for noise of SD 1.
    weights : Weights
    kind : {"real", "magnitude", "discrimination"}
    """
    w, f = water / weights.water, fat / weights.fat
    scale = np.repeat(np.stack([np.broadcast_to(1.0 / np.asarray(k), w.shape) for k in (weights.water, weights.fat)],
                               axis=-1), 2, axis=-1)  # fmt: skip
    covariance = covariance[:, :4, :4] * scale[:, :, None] * scale[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = w + f
        size = np.abs(total)
        along = np.where(size > 0, total.conj() / size, 1.0)
        w_along, f_along = w * along, f * along
        # of Re(z u), u the phase of the sum: it turns by Im(dS u)/|S| where z has a part across
        across = f_along.imag / size
        of_fat = (1j * -across * along, (1 - 1j * across) * along)
        of_water = ((1 + 1j * across) * along, 1j * across * along)
        of_sum = (along, along)
        if kind == "real":
            values = {"water": w_along.real, "fat": f_along.real}
            gradients = {"water": of_water, "fat": of_fat}
            pdff = f_along.real / size
            q = f / total
            gradients["pdff"] = (-q / total, (1 - q) / total)
        else:
            u, v = (np.where(np.abs(z) > 0, z.conj() / np.abs(z), 1.0) for z in (w, f))
            zero = np.zeros_like(u)
            values = {"water": np.abs(w), "fat": np.abs(f)}
            gradients = {"water": (u, zero), "fat": (zero, v)}
            if kind == "magnitude":
                whole = np.abs(w) + np.abs(f)
                pdff = np.abs(f) / whole
                gradients["pdff"] = (-pdff * u / whole, (1 - pdff) * v / whole)
            else:
                fatty = np.abs(f) > np.abs(w)
                pdff = np.where(fatty, np.abs(f), size - np.abs(w)) / size
                share = np.where(fatty, pdff, 1 - pdff)
                by_fat = (-share * along / size, (v - share * along) / size)
                by_water = ((share * along - u) / size, share * along / size)
                gradients["pdff"] = tuple(np.where(fatty, a, b) for a, b in zip(by_fat, by_water, strict=True))
    sd = {name: np.sqrt(_covariance(g, g, covariance)) for name, g in gradients.items()}
    pairs = ((of_fat, of_fat), (of_fat, of_sum), (of_sum, of_sum))
    moments = np.stack([_covariance(a, b, covariance) for a, b in pairs], axis=-1)
    weight_sd = np.abs(pdff * (1 - pdff)) * np.hypot(weights.water_error, weights.fat_error)
    return Fraction(pdff, values["water"], values["fat"], sd, weight_sd, f_along.real, size, moments)


def _covariance(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], covariance: np.ndarray
) -> np.ndarray:
    """Of two quantities with d = Re(a dW + b dF)."""
    p, q = (np.stack([a.real, -a.imag, b.real, -b.imag], axis=-1) for a, b in (one, other))
    with np.errstate(invalid="ignore", over="ignore"):
        value: np.ndarray = np.einsum("vi,vij,vj->v", p, covariance, q)
    return np.where(np.isinf(covariance[:, 0, 0]), np.inf, value)
