"""Water and fat from two echoes: two candidates a voxel by the magnitudes, one of them by the field of the neighbours.

The two magnitudes leave a quadratic equation for the fat fraction. Each of its roots foretells how the phase turns
from echo to echo, and so a field; neighbours share a field, not a root. What stays open is a region as a whole: it, or
its exchange. Fat's spectrum decides where the region has enough of mixed tissue (`exchange`), or the range of the
field that the user vouches for; else the one whose field is nearer to 0 is taken and called ambiguous.
Xiang, Magn Reson Med 56:572 (2006), doi:10.1002/mrm.20984; Eggers et al., Magn Reson Med 65:96 (2011),
doi:10.1002/mrm.22578.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from . import exchange
from .candidates import Candidates, noise_level
from .exchange import WHOLE, Exchange, Pairs, Steps
from .fit import WaterFatFit
from .start import demodulated, projected, projected_covariance
from .train import Train

NEAR = 1.5
"""Width (voxels) over which dark voxels look for the field about them."""

ROUNDS = 3
"""Times that voxels are put right by their neighbours: small pieces are as thick as that."""

BRIGHT = 6.0
"""Standard deviations by which a voxel's power exceeds that of noise alone, to bind its neighbours."""

FAINTEST = 1e-4
"""The noise is at least this part of the typical signal: numbers are no more exact."""

FINAL = 1.0
"""Width over which the field is averaged at last: it enters water and fat in second order."""

AWAY = 4.0  # standard deviations from the field of its neighbours at which a voxel stands beyond a step
ALIKE = 0.5  # rad; candidates nearer than this are one
MARGIN = 0.2  # of the cosine between a candidate and its neighbours
OUTSIDE = 0.1  # part of a region's signal outside the range of the field that makes the range speak against it


def two_echoes(
    data: np.ndarray,
    mask: np.ndarray,
    train: Train,
    rate: np.ndarray,
    sigma: float | np.ndarray | None = None,
    field_range: float | None = None,
) -> tuple[WaterFatFit, np.ndarray]:
    """Water, fat and field of the voxels of the mask, and where the choice between the candidates is open.

    Parameters
    ----------
    data : ndarray of complex, (..., 2)
    mask : ndarray of bool, (...)
    train : Train
    rate : ndarray, (voxel,)
        R2* over the flat order of the image (1/s).
    sigma : float or ndarray, (voxel,), optional
        Noise SD of each real channel, over the flat order of the image.
    field_range : float, optional
        The field lies within +- this (Hz).
    """
    inside = np.flatnonzero(mask)
    rate = rate[inside]
    # what does not depend on the order of the echoes is written for the earlier one first
    order = np.argsort(train.times, kind="stable")
    train = train.take(order)
    spacing = float(train.times[1] - train.times[0])
    s = data.reshape(-1, 2)[inside][:, order]
    decay = np.exp(-np.multiply.outer(rate, train.times))
    phases = [replace(train, fat=train.fat * np.exp(1j * phase)) for phase in exchange.PHASES]
    sets = [Candidates.of(s, decay, some) for some in phases]
    candidates = sets[0]
    turn, rows = candidates.turn, np.arange(inside.size)
    weight = np.abs(s[:, 0] * s[:, 1])
    sd = _noise(s, mask, sigma)
    most = None if field_range is None else 2 * np.pi * spacing * field_range
    bright = (np.abs(s) ** 2).sum(axis=1) > sd**2 * (4 + BRIGHT * np.sqrt(8))
    pairs = Pairs.of(mask, bright, train.voxel_size)
    label, led, open_, step = _settled(sets, sd, weight, pairs, train, most)
    variance = candidates.variance(sd) + step
    chosen, ambiguous = _followed(candidates, variance, label, led, open_, pairs)
    share = 1.0 / variance[chosen, rows]
    # dark voxels bind nobody, and take what is nearest to the field about them
    near = _smooth(turn[chosen, rows], np.where(bright, share, 0.0), mask, NEAR)
    doubt = _smooth(ambiguous + 0j, np.where(bright, share, 0.0), mask, NEAR).real
    chosen = np.where(bright, chosen, (turn * near.conj()).real.argmax(axis=0))
    gain = ((turn[chosen, rows] - turn[1 - chosen, rows]) * near.conj()).real
    apart = np.abs(np.angle(turn[0] * turn[1].conj())) > ALIKE
    ambiguous = np.where(bright, ambiguous, (doubt > 0.5) | (apart & (gain < MARGIN)) | (near == 0))
    own, mean = turn[chosen, rows], _smooth(turn[chosen, rows], share, mask, FINAL)
    # at a step of the field a voxel keeps its own; whether it stands beyond one, or noise carried it, is open
    away = np.angle(own * mean.conj()) ** 2 * share > AWAY**2
    mean, ambiguous = np.where(away, own, mean), ambiguous | (away & apart)
    field = np.angle(mean) / (2 * np.pi * spacing)
    water, fat = projected(demodulated(s, train.times, field), train, np.zeros(inside.size), rate)
    covariance = np.zeros((inside.size, 5, 5))
    covariance[:, :4, :4] = projected_covariance(train, rate)
    with np.errstate(divide="ignore"):
        covariance[:, 4, 4] = (1.0 / np.abs(s) ** 2).sum(axis=1) / (2 * np.pi * spacing) ** 2
    nothing = np.full(inside.size, np.nan)
    status = np.zeros(inside.size, np.uint16)
    return WaterFatFit(water, fat, field, {}, covariance, ("fieldmap",), nothing, 0, status), ambiguous


def _noise(s: np.ndarray, mask: np.ndarray, sigma: float | np.ndarray | None) -> np.ndarray:
    """Noise SD of each voxel of the mask: given, or read off the image."""
    if sigma is None:
        found = np.full(len(s), noise_level(s, mask))
    else:
        found = np.broadcast_to(np.asarray(sigma, float), mask.size)[mask.ravel()]
    typical = float(np.median(np.abs(s))) if s.size else 0.0
    return np.maximum(found, max(FAINTEST * typical, np.finfo(float).tiny))


def _settled(
    sets: list[Candidates], sd: np.ndarray, weight: np.ndarray, pairs: Pairs, train: Train, most: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Whether each voxel takes its candidate of more fat, whether it leads others, whether it is open; ordinary steps.

    `sets` are the candidates for each phase that fat may have, that which it is believed to have first; `most` is the
    largest turn of the field (rad) that the user vouches for. Ordinary steps are told as a variance (rad2).
    """
    n = len(weight)
    candidates, variances = sets[0], [some.variance(sd) for some in sets]
    variance = variances[0]
    growth, label, region, inner, steps = _grown(candidates, variance, pairs, Steps.of(pairs, train), n)
    ordinary = exchange.STEP
    if inner.first.size:  # once more, with steps as large as this image has them
        ordinary = Exchange.of(candidates, variance, label, inner).ordinary_step(inner, train)
        growth, label, region, inner, steps = _grown(candidates, variance, pairs, Steps.of(pairs, train, ordinary), n)
    choice = _choice(sets, variances, weight, label, region, inner, steps, train, most)
    # what speaks for the image that was not taken says nothing about its pieces
    toward = np.where(choice.agreed, np.where(choice.other, -1.0, 1.0), 0.0)[region[inner.first]]
    each = [
        (exchange.costs(some, v, inner, steps), toward * evidence)
        for some, v, evidence in zip(sets, variances, choice.told, strict=True)
    ]
    label, doubt = exchange.pieces(growth, label ^ choice.other[region], each, inner)
    # what lies beyond a step is for itself: the step may be the exchange's, or the field's
    smooth = exchange.smoothness(candidates, variance, label, inner, Steps.of(inner, train, ordinary))
    sheet = _region(exchange.regions(smooth, inner, n, alike=True)[0], n)
    within = sheet[inner.first] == sheet[inner.second]
    own = _choice(sets, variances, weight, label, sheet, inner.take(within), steps.take(within), train, most)
    label ^= (own.other & ~own.open)[sheet]
    doubt |= own.open[sheet]
    step = (2 * np.pi * (train.times[1] - train.times[0]) * ordinary) ** 2
    return label, np.bincount(region)[region] >= WHOLE, choice.open[region] | doubt, float(step)


class Choice(NamedTuple):
    """Of each region: whether its exchange is taken, whether that is open, whether evidence of 6 sigma agrees.

    `told` is the evidence of each pair for the labelling, for each phase that fat may have.
    """

    other: np.ndarray
    open: np.ndarray
    agreed: np.ndarray
    told: list[np.ndarray]


def _choice(
    sets: list[Candidates],
    variances: list[np.ndarray],
    weight: np.ndarray,
    label: np.ndarray,
    region: np.ndarray,
    inner: Pairs,
    steps: Steps,
    train: Train,
    most: float | None,
) -> Choice:
    """Which of each region and its exchange: by the evidence of its `inner` pairs, or by the range of the field."""
    candidates, variance = sets[0], variances[0]
    told = [
        Exchange.of(some, v, label, inner).evidence(inner, train, steps)
        for some, v in zip(sets, variances, strict=True)
    ]
    found = [exchange.settled(each, inner, region) for each in told]
    signs = np.sign([total for total, _ in found])
    sure = np.all([decides for _, decides in found], axis=0) & (signs == signs[0]).all(axis=0)
    total = found[0][0]
    angle = np.stack([np.abs(np.angle(candidates.pick(candidates.turn, k))) for k in (label, ~label)])
    away = [np.bincount(region, weight * some) for some in angle]
    other = np.where(sure, total < 0, away[1] < away[0])
    open_ = ~sure
    if most is not None:
        room = most + 2 * np.sqrt(np.stack([candidates.pick(variance, k) for k in (label, ~label)]))
        out = np.stack([np.bincount(region, weight * (x > r)) for x, r in zip(angle, room, strict=True)])
        can = out <= OUTSIDE * np.bincount(region, weight)
        one = can[0] ^ can[1]
        # evidence against what the user vouches for leaves it open
        open_ = np.where(one, sure & (other != can[1]), open_ | ~can.any(axis=0))
        other = np.where(one, can[1], other)
    return Choice(other, open_, sure & (other == (total < 0)), told)


def _region(growth: list[np.ndarray], n: int) -> np.ndarray:
    """Into which region each of n voxels grew."""
    region = np.arange(n)
    for root in growth:
        region = root[region]
    return region


def _grown(
    candidates: Candidates, variance: np.ndarray, pairs: Pairs, steps: Steps, n: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, Pairs, Steps]:
    """How regions grew, labels and regions of the voxels, and the pairs within regions with their steps."""
    bond = exchange.bonds(exchange.costs(candidates, variance, pairs, steps))
    growth, label = exchange.regions(bond, pairs, n)
    region = _region(growth, n)
    within = region[pairs.first] == region[pairs.second]
    return growth, label, region, pairs.take(within), steps.take(within)


def _followed(
    candidates: Candidates, variance: np.ndarray, label: np.ndarray, led: np.ndarray, open_: np.ndarray, pairs: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen candidate of each voxel, and whether it is open: each in the field of the neighbours that lead.

    `variance` is that of the candidates' angles, (2, voxel), with what the field steps from one voxel to the next. A
    voxel whose candidates both fit that field is open too; those beside none that leads stand as they are.
    """
    from scipy import sparse

    a, b, n = pairs.first, pairs.second, len(label)
    beside = sparse.csr_array((np.ones(2 * a.size), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n))
    turn, rows = candidates.turn, np.arange(n)
    apart = np.abs(np.angle(turn[0] * turn[1].conj())) > ALIKE
    chosen, ambiguous = label.astype(int), open_.copy()
    leads = led.copy()
    for _ in range(ROUNDS):
        share = np.where(leads, 1.0 / variance[chosen, rows], 0.0)
        mean, total = beside @ (share * turn[chosen, rows]), beside @ share
        doubt = beside @ np.where(ambiguous, share, 0.0)
        held = total > 0
        cost = np.angle(turn * mean.conj()) ** 2 / (2 * (variance + 1.0 / np.where(held, total, 1.0)))
        chosen = np.where(held, cost.argmin(axis=0), chosen)
        tied = apart & (np.abs(cost[0] - cost[1]) < exchange.needed(np.ones(n)))
        ambiguous = np.where(held, (led & open_) | (~led & (2 * doubt > total)) | tied, ambiguous)
        leads = leads | held
    return chosen, ambiguous


def _smooth(turn: np.ndarray, weight: np.ndarray, mask: np.ndarray, width: float) -> np.ndarray:
    """Weighted mean phasor of the voxels about each, (voxel,); of an axis of one voxel there is nothing to average."""
    from scipy import ndimage

    image = np.zeros(mask.size, complex)
    total = np.zeros(mask.size)
    inside = np.flatnonzero(mask)
    image[inside], total[inside] = turn * weight, weight
    # of more than three dimensions, the last three are space
    widths = [width if n > 1 and axis >= mask.ndim - 3 else 0.0 for axis, n in enumerate(mask.shape)]
    parts = [
        ndimage.gaussian_filter(part.reshape(mask.shape), widths, mode="constant").ravel()[inside]
        for part in (image.real, image.imag, total)
    ]
    whole = np.where(parts[2] > 0, parts[2], 1.0)
    mean: np.ndarray = (parts[0] + 1j * parts[1]) / whole
    return mean
