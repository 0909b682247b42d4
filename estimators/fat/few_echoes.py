"""Water and fat from two or three complex echoes: `dixon-2pt`, `dixon-3pt`.

So few echoes do not tell R2*: it is given, or taken as none. Three tell the field voxel by voxel; two leave two fields
that fit each voxel alike, one with water and fat exchanged, and the choice rests on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator.acquisition.settings import is_number
from ...simulator.water_fat import WaterFat
from ..estimate import estimator
from .fraction import FRACTIONS
from .maps import CLAIMS, QUANTITIES, choose, fitted, without_fit
from .start import Start, field_of
from .train import ENCODINGS, NEEDS, Train
from .two_echoes import two_echoes

LEAST_RANGE = 10.0
"""Range of the field (Hz) below which it was not given in Hz: no shim is as good as that over a body."""

OPEN = 90.0
"""1/s: where R2* is open, three echoes consider rates from none to twice this."""

APART = 1.0
"""rad; fields that turn an echo against the first by more are different ones: a swap turns one by 2 or so."""

FEW = {name: entry for name, entry in QUANTITIES.items() if name != "r2star"}


def _rate(method: str, r2star: float | np.ndarray | None, n: int) -> np.ndarray:
    """The given R2*, (voxel,); none where it is not told."""
    if r2star is None:
        return np.zeros(n)
    if not (is_number(r2star) or isinstance(r2star, np.ndarray)):
        raise InputError(f"{method}: option r2star is {r2star!r}; expected a number or a map (1/s)")
    rate = np.broadcast_to(np.asarray(r2star, dtype=float), (n,))
    if (rate < 0).any() or (rate > 2000).any() or (rate.size and np.isnan(rate).all()):
        raise InputError(f"{method}: r2star reaches {rate.min():g} to {rate.max():g}; expected 1/s, 0 to 2000")
    return np.where(np.isfinite(rate), rate, 0.0)


def _doubted(
    start: Start, data: np.ndarray, mask: np.ndarray, train: Train, sigma: float | np.ndarray | None, rate: float
) -> Start:
    """A field found with one rate for all voxels, open where rates on either side of it leave it open or find another.

    Rates beyond those that a field map considers are moved among them: the data are grown, and the noise by as much as
    that of any echo.
    """
    growth = max(rate - OPEN, 0.0) * train.times
    loud = None if sigma is None else sigma * float(np.exp(growth.max()))
    other = field_of(data * np.exp(growth), mask, train, loud)
    turn = np.exp(2j * np.pi * np.multiply.outer(other.field - start.field, train.times - train.times[0]))
    apart = (np.abs(np.angle(turn)) > APART).any(axis=1)  # whole periods of even echoes turn nothing
    return Start(start.field, start.r2star, start.ambiguous | other.ambiguous | apart)


def _range(method: str, field_range: Any) -> float | None:
    """The given range of the field (Hz)."""
    if field_range is None:
        return None
    if not is_number(field_range) or not 0 < field_range < np.inf:
        raise InputError(f"{method}: field_range is {field_range!r}; expected a positive number (Hz)")
    if field_range < LEAST_RANGE:
        hint = "given in ppm or kHz?"
        raise InputError(f"{method}: field_range is {field_range:g}; expected Hz, {LEAST_RANGE:g} or more ({hint})")
    return float(field_range)


@estimator(
    name="dixon-3pt",
    title="Water, fat and field from three complex echoes, R2* given or none",
    modality="fat",
    model=WaterFat(),
    quantities=FEW,
    source="Glover, J Magn Reson Imaging 1:521 (1991), doi:10.1002/jmri.1880010504",
    claims=CLAIMS,
    encoding="echo",
    aliases=ENCODINGS,
    needs=NEEDS,
    signal="complex",
    spatial=True,
)
def dixon_3pt(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    mask: np.ndarray,
    r2star: float | np.ndarray | None = None,
    fraction: str = "real",
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
) -> dict[str, Any]:
    """PDFF, field, water and fat from three echoes or more, with `r2star` (1/s) known: a number or a map.

    A map is believed in every voxel. One number is believed where water and fat are computed, but left open by 90 1/s
    either way where the one is told from the other, as no image has one rate: with a rate that is wrong the exchanged
    image fits the better, and more surely so the less noise there is. Without `r2star` it is taken as none where water
    and fat are computed, and left open from none to 180 1/s: what decays faster may be swapped and seem sure, so tell
    the rate. Where it is open three echoes call more voxels ambiguous, regions that air separates most of all. A map
    settles them, and swaps where it is wrong by more than the spectrum bears. Other options as for `dixon`.
    """
    choose("dixon-3pt", "fraction", fraction, FRACTIONS)
    train = Train.of("dixon-3pt", protocol, 3, spectrum, temperature)
    rate = _rate("dixon-3pt", r2star, mask.size)
    if r2star is None:
        start = field_of(data, mask, train, sigma)
    else:
        # the field map knows one rate: what a voxel's own differs by is taken out of its data first
        middle = float(np.median(rate))
        alike = data * np.exp(np.multiply.outer((rate - middle).reshape(mask.shape), train.times))
        start = field_of(alike, mask, train, sigma, rate=middle)
        if is_number(r2star):
            start = _doubted(start, data, mask, train, sigma, middle)
    start = Start(start.field, rate, start.ambiguous)
    return fitted(data, mask, train, start, sigma, intervals, names=tuple(FEW), fraction=fraction, rate_known=True)


@estimator(
    name="dixon-2pt",
    title="Water and fat from two complex echoes with a field smooth over neighbours, R2* given or none",
    modality="fat",
    model=WaterFat(),
    quantities=FEW,
    source="Eggers et al., Magn Reson Med 65:96 (2011), doi:10.1002/mrm.22578",
    claims=CLAIMS,
    encoding="echo",
    aliases=ENCODINGS,
    needs=NEEDS,
    signal="complex",
    spatial=True,
)
def dixon_2pt(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    mask: np.ndarray,
    r2star: float | np.ndarray | None = None,
    field_range: float | None = None,
    fraction: str = "real",
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
) -> dict[str, Any]:
    """PDFF, field, water and fat from two echoes, with `r2star` (1/s) known, else none: a number or a map.

    Each voxel alone has two solutions. Neighbours share a field, so that what is left open is a whole region: it, or
    the same with water and fat exchanged, in a field that lies half a period (1/spacing) away or so: 434 Hz at 3 T
    with echoes opposed and in phase. A scanner that has locked on fat is just such a region in a field near 0, so that
    a field near 0 speaks for neither. What does is fat's spectrum: it makes the field of the exchanged image uneven
    where tissue is mixed, more so the farther the echoes are from in phase and opposed (1.0 and 2.2 ms rather than
    1.2 and 2.4 ms at 3 T). Where that decides by 6 sigma over a region, for fat within .1 rad of water's phase at TE 0,
    the region is settled, whatever its field. Elsewhere the one whose field is nearer to 0 is taken, and called
    ambiguous: pure water beside pure fat, a uniform phantom, a voxel alone. What lies beyond a step of the field, of a
    size that the image does not have from voxel to voxel elsewhere, is a region for itself.

    What the program cannot see is a step of the field as large as that of the exchange (within some 40 Hz at SNR 20):
    the image is smooth where the piece beyond is swapped, and so it is taken. Nor can it see a phase of fat that
    differs from water's by more than its spectrum bears: about .16 rad at 1.15 and 2.3 ms, as by a pulse whose middle
    is told 60 us wrong; nor a phase that turns the other way than it believes (conjugate data), which exchanges whole
    images, as two echoes leave no residual: a field that is mostly nearer to half of 1/spacing than to 0 is remarked
    upon in the attributes.

    `field_range`: the field lies within +- this (Hz), modulo 1/spacing. What would need another field is then
    impossible, and where one of the two is left, it is taken without doubt, unless evidence of 6 sigma speaks against
    it. Less than a quarter of 1/spacing (217 Hz at 1.15 ms) settles every region.

    The standard errors are those of water and fat in a known field; nothing is left to tell the noise by, so that they
    are NaN unless the noise SD is given. Other options as for `dixon`.
    """
    choose("dixon-2pt", "fraction", fraction, FRACTIONS)
    train = Train.of("dixon-2pt", protocol, 2, spectrum, temperature)
    if train.times.size != 2:
        remedy = "take two of them, or dixon, which takes all"
        raise InputError(f"dixon-2pt: the scan has {train.times.size} echoes; {remedy}")
    rate = _rate("dixon-2pt", r2star, mask.size)
    most = _range("dixon-2pt", field_range)
    found, ambiguous = two_echoes(data, mask, train, rate, sigma, most)
    maps = without_fit(found, mask, data, ambiguous, sigma, intervals, names=tuple(FEW), fraction=fraction, train=train)
    notes: dict[str, Any] = {"field_range": "not given" if most is None else most}
    if ambiguous.size:
        notes["ambiguous"] = float(ambiguous.mean())  # part of the voxels; field_range may settle them
        far = float(np.median(np.abs(found.field)))
        if far > 0.25 / abs(float(np.diff(train.times)[0])):
            notes["remark"] = f"the field is {far:.0f} Hz in the middle: locked on fat, or a phase of the other sign?"
    return {**maps, "attrs": {**maps["attrs"], **notes}}
