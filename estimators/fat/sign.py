"""Whether the data's phase turns the way that the model has it: fat at negative frequency.

Scanners disagree on the sign. With the wrong one every fit still comes out, with another field, and at clinical noise
few voxels show a misfit: fat whose main peak stands mirrored is not far from water in another field. Over an image the
residuals tell: those of a thousand bright voxels are added up for the data as they are and for the data conjugated.
Pure water has no sign, and neither has a spectrum of one peak.

What else may make the other sign fit better is another thing that the model lacks (a phase error of an echo in pure
fat, a wrong spectrum or temperature in an even mixture): the doubt then is of the model, not of the sign alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..field_map.candidates import Minima, Tables, rates_of
from ..field_map.solution import REACH
from ..status import Status
from .maps import GIVEN, NEIGHBOURS
from .train import Train

SOME = 1000  # voxels looked at
FEWEST = 30
BRIGHT = 0.25  # of the power of the brightest: fainter ones tell nothing
CERTAIN = 6.0  # standard errors of the mean difference
NOISE_ALONE = 1.1  # mean square of the other sign's residuals over the noise's, to which a thousand voxels keep by far
MUCH = 4.0  # times a smaller residual: wrong spectra, temperatures and phases of echoes reach three with four echoes
ROUNDING = 1e-6  # of the power: residuals of data without noise
LEFT = 4  # echoes that tell the sign where others' phases are off: water and fat may leave the pulse with a phase each
EVEN = 1.5  # of the largest noise SD over the median, up to which one number stands for it


class Sign(NamedTuple):
    """Residuals of the conjugated data over those of the data, and whether the other sign is the likelier one."""

    ratio: float
    doubted: bool


def sign_of(data: np.ndarray, mask: np.ndarray, train: Train, noise_sd: float | None = None) -> Sign | None:
    """What the residuals say of the sign.

    Parameters
    ----------
    data : ndarray of complex, (..., point)
    mask : ndarray of bool, (...)
    train : Train
    noise_sd : float, optional
        Of each real channel, where it is known otherwise than from the residuals.

    Returns
    -------
    Sign or None
        None where too few voxels speak.

    Notes
    -----
    The other sign is taken for the likelier one where the mean difference of the residuals is more than `CERTAIN`
    standard errors, and it leaves either no more than noise or `MUCH` less than the sign given. Three echoes leave no
    residual with free phases: water and fat are taken to leave the pulse together.
    """
    values = data.reshape(-1, data.shape[-1])[mask.ravel()]
    power = (values.real**2 + values.imag**2).sum(axis=1)
    seen = np.isfinite(power) & (power > 0)
    if seen.sum() < FEWEST:
        return None
    bright = np.flatnonzero(seen & (power > BRIGHT * np.percentile(power[seen], 95)))
    some = bright[:: -(-bright.size // SOME)]
    if some.size < FEWEST:
        return None
    points = np.unique(np.round(train.times, 9), return_index=True)[1]
    times, fat = train.times[points] - min(float(train.times.min()), 0.0), train.fat[points]
    common = times.size < 4
    tables = Tables.of(times, fat, rates_of(None, times.size), common, REACH)
    ways = (values[some][:, points], values[some][:, points].conj())
    given, other = (Minima.of(way, tables).residual[:, 0].astype(float) for way in ways)
    gain = given - other
    error = float(gain.std()) / np.sqrt(gain.size)
    better = float(gain.mean()) > max(CERTAIN * error, ROUNDING * float(power[some].mean()))
    freedom = 2 * times.size - (5 if common else 6)
    alone = noise_sd is not None and float(other.mean()) < NOISE_ALONE * freedom * noise_sd**2
    doubted = better and (alone or float(given.mean()) > MUCH * float(other.mean()))
    return Sign(float(other.mean()) / max(float(given.mean()), np.finfo(float).tiny), doubted)


def with_sign(
    maps: dict[str, Any], data: np.ndarray, mask: np.ndarray, train: Train, *, even: bool = False, first: bool = False
) -> dict[str, Any]:
    """The estimate with what is to be said of the sign: attributes, and status where it is in doubt.

    With `even` or `first` the phase of every second echo or that of the first says nothing; what is left tells the sign
    where it is `LEFT` echoes.
    """
    if even or first:
        kept = np.flatnonzero(((train.order % 2 == 0) | (not even)) & ((train.order > 0) | (not first)))
        if np.unique(np.round(train.times[kept], 9)).size < LEFT:
            return maps
        data, train = data[..., kept], train.take(kept)
    told = maps["attrs"]
    spread = told.get("noise_sd_range")
    even = spread is not None and spread[1] <= EVEN * told["noise_sd"]
    known = even and told.get("sigma") in (GIVEN, NEIGHBOURS)
    sign = sign_of(data, mask, train, float(told["noise_sd"]) if known else None)
    if sign is None:
        return maps
    notes: dict[str, Any] = {"residual_of_other_sign": sign.ratio}
    status = maps["status"]
    if sign.doubted:
        notes["sign_doubt"] = (
            f"turned the other way, the phase leaves {sign.ratio:.2g} of this residual; conjugate the data "
            "(--conjugate), or look for phase errors of echoes, another spectrum or temperature"
        )
        status = np.where(mask, status | np.uint16(Status.OUTSIDE_DOMAIN), status).astype(np.uint16)
    return {**maps, "status": status, "attrs": {**told, **notes}}
