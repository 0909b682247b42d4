"""Field map of water-fat MRI by a global method: every minimum of every voxel, and one choice over the whole image.

The residual of a voxel as a function of the field has several minima: a voxel of water at one field looks much like
one of fat at another, and where echoes are evenly spaced the field is known modulo 1/spacing only. So all minima are
found (`candidates`), one is chosen in each voxel, and how sure that is is told (`choice`). Nothing asks for
a smooth field: a step costs the same however large it is, and regions that air separates are decided each by its own
data.

What it rests on, and where it ends: neighbours whose fields agree are likelier than neighbours with a step, by odds of
exp(9). Steps of less than 300 Hz are plausible, and then a whole surface of them is one event: what lies beyond it is
decided by its own data, or called ambiguous. Where a swap itself makes such a step (1/spacing less 434 Hz at 3 T, or
217 Hz at 1.5 T) and true steps are as large, pieces of a few voxels may still join the wrong side and seem sure, some
voxels in a thousand. Where a swap moves the field by less than the noise does (below 100 Hz), one minimum may be left,
and that of the noise: the fit's standard error says so. Three echoes leave R2* open: rates above 180 /s are not thought
of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from .candidates import FAST, Minima, Tables, rates_of
from .choice import Graph, choose

TYPICAL = np.array([40.0])  # 1/s; tells the noise of three echoes
REACH = 1000.0  # Hz; the field lies within, or within half a period of the echoes where that is less
MAX_SNR = 1e4  # the noise is at least the typical signal over this: the minima themselves are no more exact
ENOUGH, RAISED = 30, 1.1  # bright voxels that tell the noise again by the choice; variance above which that is used
BRIGHT = 6.0  # standard deviations by which a voxel's power exceeds that of noise alone


@dataclass(frozen=True)
class FieldMap:
    """Result of `solve`; images (z, y, x), NaN (False) outside the mask and where the data mean nothing.

    Attributes
    ----------
    field : ndarray
        Hz. Where `period` is not 0, known modulo that: whole periods are added so that neighbours are close, and that
        the mean of each connected region is near 0.
    r2star : ndarray
        1/s; good enough to start a fit from.
    ambiguous : ndarray of bool
        Where water and fat may be swapped. What is not called so is swapped as seldom as noise exceeds 4.5 of its
        standard deviations, for each sheet of voxels that would swap together: 22 squares of sigma tell it, by the data
        or with what the neighbours say. Voxels whose data speak against their neighbours are ambiguous too.
    alternative : ndarray
        The second-best field, Hz; NaN where no other comes close.
    evidence : ndarray
        Residual of the second best less that of the choice over the noise variance, summed over the voxel's sheet;
        or found for all of it together where one composition explains it; inf where there is no alternative. Between
        two hypotheses 6 sigma apart its mean is 36, and its SD 12.
    sigma : ndarray or float
        Noise SD of each real channel, given or estimated.
    period : float
        1/spacing of even echoes, Hz, or 0.
    """

    field: np.ndarray
    r2star: np.ndarray
    ambiguous: np.ndarray
    alternative: np.ndarray
    evidence: np.ndarray
    sigma: float | np.ndarray
    period: float


def solve(
    data: np.ndarray,
    mask: np.ndarray,
    echo_times: np.ndarray,
    fat: np.ndarray,
    *,
    common_phase: bool = False,
    r2star_grid: np.ndarray | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    sigma: float | np.ndarray | None = None,
    reach: float = REACH,
) -> FieldMap:
    """Field map of multi-echo data of water and fat.

    The signal is (W + F c(t)) exp(+i 2 pi psi t) exp(-R2* t), with complex W and F.

    Parameters
    ----------
    data : (z, y, x, point) complex array
    mask : (z, y, x) array of bool
    echo_times : (point,)
        s; three at least.
    fat : (point,) complex array
        c(t), the fat's signal at each echo time relative to water: sum_m a_m exp(+i 2 pi nu_m t).
    common_phase : bool
        Whether water and fat have one phase.
    r2star_grid : (rate,), optional
        1/s, rising; 0 to 600 in eight steps, and where those end too early 0 to 2000 in twelve (three echoes, which
        leave R2* open: to 180, about 40 where data and neighbours do not decide).
    voxel_size : (3,), optional
        Along z, y, x, in any unit: neighbours that are farther apart bind less. Cubes without it.
    sigma : float or (z, y, x) array, optional
        Noise SD of each real channel. Without it the residuals of all voxels tell it.
    reach : float
        Hz: fields to +-reach are considered, or half the period of even echoes where that is less.

    Raises
    ------
    InputError
        If a shape does not fit, echo times are equal, negative, too few or look like milliseconds, fat cannot be told
        from water, or sigma is neither given nor can be estimated.

    Notes
    -----
    Variable projection over field and R2*: Hernando, MRM 59:571 (2008), doi:10.1002/mrm.21522. Choice of minima over
    the graph of voxels: Hernando, MRM 63:79 (2010), doi:10.1002/mrm.22177; Kolmogorov, IEEE TPAMI 28:1568 (2006),
    doi:10.1109/TPAMI.2006.200.
    """
    data, mask, times, fat = _checked(data, mask, echo_times, fat)
    rates = rates_of(r2star_grid, len(times))
    freedom = 2 * len(times) - (4 if common_phase else 5) - (len(rates) > 1)
    inside = mask & np.isfinite(data).all(axis=-1) & (data != 0).any(axis=-1)
    noise = _noise_given(sigma, inside)
    images = [np.full(mask.shape, np.nan) for _ in range(4)]
    if not inside.any():
        return FieldMap(images[0], images[1], np.zeros(mask.shape, bool), images[2], images[3],
                        np.nan if noise is None else noise, 0.0)  # fmt: skip
    values = data[inside]
    tables = Tables.of(times, fat, rates, common_phase, reach)
    found = Minima.of(values, tables)
    beyond = Tables.of(times, fat, FAST, common_phase, reach) if r2star_grid is None and len(times) > 3 else None
    if beyond is not None and noise is None:
        found.faster(values, beyond, 0.0)
    power = (values.real**2 + values.imag**2).sum(axis=1)
    again = noise is None and freedom > 0
    if noise is None:
        if freedom < 1 and r2star_grid is not None:
            raise InputError(f"field map: {len(times)} echoes leave no residual to tell the noise by; give sigma")
        typical = found if freedom > 0 else Minima.of(values, Tables.of(times, fat, TYPICAL, common_phase, reach))
        least = float(np.median(power)) / len(times) / MAX_SNR**2
        noise = float(np.sqrt(max(_variance(typical.residual[:, 0], max(freedom, 1)), least)))
    spread = np.broadcast_to(noise, mask.shape)[inside] ** 2
    if beyond is not None:
        found.faster(values, beyond, spread)
        found.swapped_too(values, beyond, spread, fast=True)
    found.swapped_too(values, tables, spread)
    while True:
        spread = np.broadcast_to(noise, mask.shape)[inside] ** 2
        expected = 2 * len(times)
        bright = power > spread * (expected + BRIGHT * np.sqrt(2 * expected))
        chosen = choose(found, values, tables, spread, Graph.of(inside, bright, voxel_size, tables.period))
        if not again or bright.sum() < ENOUGH:
            break
        # the least of several minima is too small a residual: that of the choice, where there is signal, tells better
        again, better = False, _variance(chosen.residual[bright], freedom)
        if better < RAISED * float(spread[0]):
            break
        noise = float(np.sqrt(better))
    ambiguous = np.zeros(mask.shape, bool)
    ambiguous[inside] = chosen.ambiguous
    for image, part in zip(images, (chosen.field, chosen.r2star, chosen.alternative, chosen.evidence), strict=True):
        image[inside] = part
    return FieldMap(images[0], images[1], ambiguous, images[2], images[3], noise, tables.period)


def _variance(residual: np.ndarray, freedom: int) -> float:
    """Of the noise of each real channel, from the median of residuals with so many degrees of freedom."""
    from scipy import stats

    return float(np.median(residual)) / float(stats.chi2.median(freedom))


def _noise_given(sigma: float | np.ndarray | None, inside: np.ndarray) -> float | np.ndarray | None:
    if sigma is None:
        return None
    noise = np.asarray(sigma, float)
    if noise.ndim and noise.shape != inside.shape:
        raise InputError(f"field map: sigma has shape {noise.shape}; expected one number or {inside.shape}")
    used = noise[inside] if noise.ndim else noise
    if not (np.isfinite(used) & (used > 0)).all():
        raise InputError("field map: sigma has values that are not positive; expected the noise SD")
    return noise if noise.ndim else float(noise)


def _checked(
    data: np.ndarray, mask: np.ndarray, echo_times: np.ndarray, fat: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arguments as arrays, points in the order of time."""
    data, mask = np.asarray(data), np.asarray(mask)
    times, fat = np.asarray(echo_times, float), np.asarray(fat, complex)
    if data.ndim != 4 or data.dtype.kind != "c":
        raise InputError(f"field map: data is {data.dtype} of shape {data.shape}; expected complex (z, y, x, point)")
    if mask.shape != data.shape[:3] or mask.dtype != bool:
        raise InputError(f"field map: mask is {mask.dtype} of {mask.shape}; expected bool of shape {data.shape[:3]}")
    n = data.shape[3]
    for name, array in (("echo_times", times), ("fat", fat)):
        if array.shape != (n,) or not np.isfinite(array).all():
            raise InputError(f"field map: {name} has shape {array.shape}; expected {n} finite numbers")
    if n < 3:
        raise InputError(f"field map: {n} echoes; expected three at least (two cannot tell the field from fat)")
    order = np.argsort(times, kind="stable")
    times = times[order]
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise InputError(f"field map: echo times are {times}; expected different times >= 0, in s")
    if times[-1] > 1:
        raise InputError(f"field map: the last echo is at {times[-1]:g} s; are the echo times in milliseconds?")
    fat = fat[order]
    if abs(np.vdot(fat, np.ones(n))) > (1 - 1e-6) * np.sqrt(n) * np.linalg.norm(fat):
        raise InputError("field map: fat's signal is that of water at all echoes; expected echoes that tell them apart")
    return (data if (order == np.arange(n)).all() else data[..., order]), mask, times, fat
