"""`ivim-bayes`: posterior mean and 95 % interval of the IVIM unknowns under a declared prior.

A posterior mean owes part of its low error to the prior. Each voxel says how large a part: the prior share is the
posterior variance over the prior variance, 0 where the data decide and 1 where they say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...simulator import equations
from ...simulator.kernels import compiled
from ...simulator.threads import each_block
from ..estimate import estimator
from ..solver import Fit
from ..status import Status
from ..uncertainty import Z95
from .least_squares import CLAIMS, QUANTITIES, fit_ivim, low_signal, noise_of_fit, points_for

_POSTERIOR = Path(__file__).with_name("posterior.py")
UNKNOWNS = ("f", "D_star", "D")
SAMPLES = 1024
ENOUGH = 200  # effective samples: a quantile is then uncertain by one point of probability at most


@dataclass(frozen=True)
class Prior:
    """Prior of one unknown: log-normal, or logit-normal for a fraction, by its median and central 95 % range.

    Attributes
    ----------
    low, high : float
        2.5 % and 97.5 % quantiles.
    fraction : bool
        Logit-normal where true.
    """

    low: float
    high: float
    fraction: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high or (self.fraction and not self.high < 1.0):
            expected = "0 < low < high < 1" if self.fraction else "0 < low < high"
            raise InputError(f"prior range is ({self.low:g}, {self.high:g}); expected {expected}")

    def _z(self, x: float) -> float:
        return float(np.log(x / (1.0 - x)) if self.fraction else np.log(x))

    @property
    def location(self) -> float:
        """Median on the log or logit scale."""
        return 0.5 * (self._z(self.low) + self._z(self.high))

    @property
    def scale(self) -> float:
        """SD on the log or logit scale."""
        return (self._z(self.high) - self._z(self.low)) / (2.0 * Z95)

    def natural(self, z: np.ndarray) -> np.ndarray:
        """Value at standard normal z."""
        t = np.exp(self.location + self.scale * z)
        return t / (1.0 + t) if self.fraction else t

    def standard(self, x: np.ndarray) -> np.ndarray:
        """Standard normal z of a value, within +-3.5."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (np.log(x / (1.0 - x)) if self.fraction else np.log(x)) - self.location
        return np.clip(z / self.scale, -3.5, 3.5)

    def slope(self, z: np.ndarray) -> np.ndarray:
        """Derivative of the value with respect to z."""
        x = self.natural(z)
        return self.scale * (x * (1.0 - x) if self.fraction else x)

    def moments(self) -> tuple[float, float]:
        """Mean and variance, by Gauss-Hermite quadrature."""
        z, w = np.polynomial.hermite_e.hermegauss(60)
        x, w = self.natural(z), w / w.sum()
        mean = float(w @ x)
        return mean, float(w @ (x - mean) ** 2)


# Central 95 % ranges of vertebral marrow: f_app follows from the spin-density fractions of the tissue table at TE 50
# to 70 ms, D from osteoporosis to acute oedema, D* from the published marrow values (sources in tissues.toml).
PRIOR = {"f": Prior(0.03, 0.42, fraction=True), "D_star": Prior(8e-3, 80e-3), "D": Prior(0.2e-3, 1.8e-3)}


@cache
def _points(n: int, freedom: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Quasi-random standard normal points, roots of chi-square over freedom, log ratio of normalisations."""
    from scipy.special import gammaincinv, gammaln, ndtri
    from scipy.stats import qmc

    # one scrambled sequence with a fixed seed: an estimate must not change from call to call
    u = qmc.Sobol(len(UNKNOWNS) + 1, rng=np.random.default_rng(20)).random(n)
    normal = np.ascontiguousarray(ndtri(u[:, :-1]))
    root = np.sqrt(2.0 * gammaincinv(0.5 * freedom, u[:, -1]) / freedom)
    k = len(UNKNOWNS)
    norm = gammaln(0.5 * (freedom + k)) - gammaln(0.5 * freedom) - 0.5 * k * np.log(freedom / 2.0)
    return normal, np.ascontiguousarray(root), float(norm)


@estimator(
    name="ivim-bayes",
    title="Bayesian IVIM: posterior mean under a declared marrow prior",
    modality="diffusion",
    model=equations.ivim,
    quantities=QUANTITIES,
    source="Orton et al., Magn Reson Med 71:411 (2014), doi:10.1002/mrm.24649",
    claims=CLAIMS,
    encoding="b",
    measurand={"f": "f_app"},
)
def ivim_bayes(
    data: np.ndarray,
    protocol: Mapping[str, np.ndarray],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    prior: Mapping[str, Prior] | None = None,
    samples: int = SAMPLES,
    levels: Sequence[float] = (),
) -> dict[str, np.ndarray]:
    """Posterior mean and SD of f, D* and D (priors of `PRIOR`, or `prior`) and S0 (flat prior, integrated exactly).

    `samples` is the number of a voxel's first samples; `levels` are probabilities at which the quantiles of the
    posterior are wanted, as `x_quantile`.
    """
    points_for("ivim-bayes", protocol, 4)
    strangers = set(prior or {}) - set(PRIOR)
    if strangers:
        raise InputError(f"ivim-bayes: prior names {', '.join(sorted(strangers))}; expected {', '.join(PRIOR)}")
    if not all(isinstance(p, Prior) for p in (prior or {}).values()):
        raise InputError("ivim-bayes: prior holds what is no Prior; expected a Prior(low, high) for each name")
    # other numbers of quasi-random points are not balanced
    if not isinstance(samples, int) or samples not in (1 << k for k in range(4, 24)):
        raise InputError(f"ivim-bayes: samples is {samples}; expected a power of two from 16")
    if not all(0 < level < 1 for level in levels):
        raise InputError(f"ivim-bayes: levels are {tuple(levels)}; expected probabilities above 0 and below 1")
    priors = [{**PRIOR, **(prior or {})}[name] for name in UNKNOWNS]
    fit = fit_ivim(data, protocol, sigma)
    noise = noise_of_fit(fit, data, sigma)
    n_voxel, n = len(data), len(UNKNOWNS)
    # a noise SD that is itself estimated widens the posterior as Student's t widens an error
    sd = np.array(np.broadcast_to(np.asarray(noise.sd, dtype=float) * noise.widening, (n_voxel,)))
    guess, spread = _laplace(fit, protocol, sd, priors)
    module = compiled(_POSTERIOR)
    kernel = equations.ivim.compiled((), (*UNKNOWNS, "S0"))
    x = np.array(protocol["b"], dtype=float).reshape(-1, 1)
    mean, width = np.full((n_voxel, n + 1), np.nan), np.full((n_voxel, n + 1), np.nan)
    ends = np.array([0.025, 0.975, *levels])
    wanted = len(ends) if intervals or len(levels) else 0
    quantiles = np.full((n_voxel, n, len(ends)), np.nan)
    effective = np.zeros(n_voxel)
    m, s = np.array([p.location for p in priors]), np.array([p.scale for p in priors])
    logit = np.array([p.fraction for p in priors])

    def sample(voxels: np.ndarray, samples: int) -> None:
        normal, root, norm = _points(samples, module.FREEDOM)

        def work(a: int, b: int) -> None:
            w = voxels[a:b]
            block = np.array(data[w], dtype=float)
            centre, error, counting = np.empty((b - a, n + 1)), np.empty((b - a, n + 1)), np.zeros(b - a)
            at_levels = np.empty((b - a if wanted else 0, n, len(ends)))
            module.posterior(
                kernel.kernel, x, block, sd[w], guess[w], spread[w], normal, root, m, s, logit, norm, ends,
                centre, error, at_levels, counting,
            )  # fmt: skip
            mean[w], width[w], effective[w] = centre, error, counting
            if wanted:
                quantiles[w] = at_levels

        each_block(len(voxels), work, block=256)

    left = np.flatnonzero(np.isfinite(guess).all(axis=1))
    for more in (1, 8, 64):  # where few samples count, the first guess was poor: ask again, with many more
        sample(left, more * samples)
        left = left[effective[left] < ENOUGH]
    out = {"S0": mean[:, n], "S0_sd": width[:, n]}
    for i, name in enumerate(UNKNOWNS):
        out |= {name: mean[:, i], f"{name}_sd": width[:, i]}
        out[f"{name}_prior_share"] = width[:, i] ** 2 / priors[i].moments()[1]
        if len(levels):
            out[f"{name}_quantile"] = quantiles[:, i, 2:]
        if intervals:
            out[f"{name}_lo"], out[f"{name}_hi"] = quantiles[:, i, 0], quantiles[:, i, 1]
    # data without a posterior: the noise SD was not given, and no point is left over to estimate it
    mute = np.where(np.isfinite(data).all(axis=1) & ~np.isfinite(sd), Status.NOT_IDENTIFIABLE, Status.INVALID)
    status = np.where(np.isfinite(mean).all(axis=1), 0, mute).astype(np.uint16)
    # the prior is most of an answer whose variance is still half the prior's
    mostly = np.any([out[f"{name}_prior_share"] > 0.5 for name in UNKNOWNS], axis=0)
    status |= np.where(mostly, Status.NOT_IDENTIFIABLE, 0).astype(np.uint16)
    status |= _against_prior(data, protocol, out, sd)
    # still fewer leave the quantiles uncertain by two points and more
    status |= np.where(np.isfinite(mean[:, 0]) & (effective < 50), Status.NOT_CONVERGED, 0).astype(np.uint16)
    return {**out, "status": status | low_signal(data, noise)}


def _laplace(
    fit: Fit, protocol: Mapping[str, np.ndarray], sd: np.ndarray, priors: Sequence[Prior]
) -> tuple[np.ndarray, np.ndarray]:
    """First guess in z, (voxel, unknown), and its covariance, half as large again, (voxel, unknown, unknown).

    The normal approximation of the likelihood at the fit, times the standard normal prior.
    """
    good = np.isfinite(fit.theta).all(axis=1) & np.isfinite(sd) & (sd > 0)
    named = list(zip(UNKNOWNS, priors, strict=True))
    z = np.stack([np.where(good, prior.standard(fit[name]), 0.0) for name, prior in named], axis=1)
    theta = {name: prior.natural(z[:, i]) for i, (name, prior) in enumerate(named)}
    theta["S0"] = np.where(good, np.maximum(fit["S0"], 1e-300), 1.0)
    jacobian = equations.ivim.jacobian(theta, protocol)
    names = [q.name for q in equations.ivim.unknowns]
    scale = jacobian[:, :, names.index("S0")]
    in_z = [jacobian[:, :, names.index(n)] * p.slope(z[:, i])[:, None] for i, (n, p) in enumerate(named)]
    columns = np.stack(in_z, axis=2)
    # the scale of the signal is integrated out: project it from the columns
    along = np.einsum("vp,vpk->vk", scale, columns) / (scale**2).sum(axis=1)[:, None]
    columns = columns - scale[:, :, None] * along[:, None, :]
    likelihood = np.swapaxes(columns, 1, 2) @ columns / np.where(good, sd, 1.0)[:, None, None] ** 2
    spread = np.linalg.inv(likelihood + np.eye(len(UNKNOWNS)))
    guess = np.einsum("vab,vbc,vc->va", spread, likelihood, z)
    return np.where(good[:, None], guess, np.nan), np.ascontiguousarray(1.5 * spread)


def _against_prior(
    data: np.ndarray, protocol: Mapping[str, np.ndarray], means: Mapping[str, np.ndarray], sd: np.ndarray
) -> np.ndarray:
    """Status bits of voxels that the prior cannot explain: one in 10 000 of those it covers leaves such a residual."""
    from scipy.special import chdtri

    whole = np.isfinite(means["S0"])
    theta = {name: np.where(whole, means[name], 1e-3) for name in ("S0", *UNKNOWNS)}
    residual = np.nan_to_num(data - equations.ivim.signal(theta, protocol))
    far = whole & ((residual**2).sum(axis=1) > sd**2 * chdtri(data.shape[1], 1e-4))
    return np.where(far, Status.OUTSIDE_DOMAIN, 0).astype(np.uint16)
