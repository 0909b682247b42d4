"""Water, fat, field and R2* from complex echoes: `dixon`, `dixon-mixed`.

s(t) = (W + F c(t)) exp(+i 2 pi psi t) exp(-R2* t), with the main peak of fat at negative frequency; any three or more
echo times, uniform or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator.water_fat import WaterFat
from ..estimate import estimator
from .composition import fitted_composition
from .fraction import FRACTIONS
from .maps import CLAIMS, EXTRAS, QUANTITIES, check_bounds, choose, fitted
from .sign import with_sign
from .start import field_of
from .train import ENCODINGS, NEEDS, Train
from .weights import weights_of

GRADIENTS: dict[str, tuple[int, ...]] = {"ignored": (), "slice": (-3,), "voxel": (-3, -2, -1)}
"""Axes, from the last, along which a gradient of the field is corrected for."""


@estimator(
    name="dixon",
    title="Water and fat, field and R2* by least squares over complex echoes",
    modality="fat",
    model=WaterFat(),
    quantities=QUANTITIES,
    extras=EXTRAS,
    source="Yu et al., Magn Reson Med 60:1122 (2008), doi:10.1002/mrm.21737",
    claims=CLAIMS,
    encoding="echo",
    aliases=ENCODINGS,
    needs=NEEDS,
    signal="complex",
    spatial=True,
)
def dixon(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    mask: np.ndarray,
    phases: str = "free",
    fraction: str = "real",
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
    rates: str = "one",
    first_echo: str = "kept",
    bipolar: bool = False,
    gradient: str = "ignored",
    T1_correction: bool = False,
    T1_water: float | np.ndarray | None = None,
    T1_fat: float | np.ndarray | None = None,
    T1_water_sd: float | np.ndarray | None = None,
    T1_fat_sd: float | np.ndarray | None = None,
    t2star: bool = False,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """PDFF, R2*, field, water and fat of every voxel.

    Of even echoes the field is known modulo 1/spacing; the PDFF is right nevertheless.

    `phases`: water and fat leave the pulse with a phase each (``free``) or one together (``common``). `fraction`: the
    ``real`` part of F/(W + F), whose noise averages out at 0 and 100 %; the ``magnitude`` ratio; or Liu's
    ``discrimination``. `spectrum` as `simulator.water_fat.spectrum_of`, or ``fitted``: one triglyceride for the image,
    told in the attributes. `temperature` of the water (C). `rates`: ``one`` R2*, or ``two``. `first_echo`: ``kept``,
    ``dropped``, or with a ``free`` phase. `bipolar`: the phase of every second echo is an unknown. `gradient`: the rise
    of the fitted field across the ``slice``, or across the ``voxel`` along all axes, is no part of R2*.
    `T1_correction`: PDFF for proton density, from flip angle and TR, with T1 (s) of water and fat and what is not known
    of them; population means by default. `bounds` of r2star (1/s).
    """
    choose("dixon", "phases", phases, ("free", "common"))
    choose("dixon", "fraction", fraction, FRACTIONS)
    choose("dixon", "rates", rates, ("one", "two"))
    choose("dixon", "gradient", gradient, tuple(GRADIENTS))
    choose("dixon", "first_echo", first_echo, ("kept", "dropped", "free"))
    check_bounds("dixon", bounds, ("r2star", *(["r2star_fat"] if rates == "two" else [])))
    to_fit = isinstance(spectrum, str) and spectrum == "fitted"
    train = Train.of("dixon", protocol, 3, "fat_marrow" if to_fit else spectrum, temperature)
    if first_echo == "dropped":
        kept = np.flatnonzero(train.order > 0)
        train, data = train.take(kept), data[..., kept]
    extra = {"dual": rates == "two", "first": first_echo == "free", "bipolar": bipolar}
    _check_unknowns(train, phases, extra)
    if gradient != "ignored" and (phases == "common" or any(extra.values())):
        raise InputError(f"dixon: gradient={gradient!r} goes with free phases, one R2* and even echoes alone")
    across = [axis for axis in GRADIENTS[gradient] if mask.ndim + axis >= 0 and mask.shape[axis] > 1]
    if gradient != "ignored" and not across:
        raise InputError(f"dixon: gradient={gradient!r} reads the field's rise off neighbours; the image has one slice")
    weights, told_of_T1 = weights_of("dixon", protocol, T1_correction, T1_water, T1_fat, T1_water_sd, T1_fat_sd)
    names = (*QUANTITIES, *(["t2star"] if t2star else []), *(["r2star_fat"] if rates == "two" else []))
    names += (*(["first_phase"] if first_echo == "free" else []), *(["bipolar_phase"] if bipolar else []))
    start = field_of(
        data, mask, train, sigma, common=phases == "common", even=bipolar, first=first_echo == "free"
    )
    notes: dict[str, Any] = {}
    if to_fit:
        made_of, spread = fitted_composition("dixon", data, mask, train, start, sigma)
        train = train.with_spectrum(made_of, fat_from="fitted")
        notes = {"ndb_sd": spread}
    maps = fitted(
        data, mask, train, start, sigma, intervals, names=names, fraction=fraction, weights=weights,
        told_of_T1=told_of_T1, gradient=GRADIENTS[gradient], common=phases == "common", bounds=bounds, **extra,
    )  # fmt: skip
    maps = with_sign(maps, data, mask, train, even=bipolar, first=first_echo == "free")
    return {**maps, "attrs": {**maps["attrs"], **notes}}


def _check_unknowns(train: Train, phases: str, extra: Mapping[str, bool]) -> None:
    """Refuse options that do not go together, or more unknowns than the echoes hold."""
    asked = [name for name, on in extra.items() if on]
    words = {"dual": 'rates="two"', "first": 'first_echo="free"', "bipolar": "bipolar=True"}
    if phases == "common" and asked:
        raise InputError(f'dixon: {words[asked[0]]} goes with phases="free", not with "common"')
    if extra["dual"] and len(asked) > 1:
        raise InputError(f"dixon: {words[asked[0]]} and {words[asked[1]]} together are not to be had; take one of them")
    unknowns = (5 if phases == "common" else 6) + len(asked)
    different = np.unique(np.round(train.times, 9)).size
    if 2 * different < unknowns:
        need = f"{unknowns} unknowns need {-(-unknowns // 2)}"
        raise InputError(f"dixon: {different} different echo times are left; {need}")


@estimator(
    name="dixon-mixed",
    title="Water and fat, field and R2*: the first echo by its magnitude, the others complex",
    modality="fat",
    model=WaterFat("water_fat_mixed"),
    quantities=QUANTITIES,
    extras=EXTRAS,
    source="Hernando et al., Magn Reson Med 67:638 (2012), doi:10.1002/mrm.23044",
    claims=CLAIMS,
    encoding="echo",
    aliases=ENCODINGS,
    needs=NEEDS,
    signal="complex",
    spatial=True,
)
def dixon_mixed(
    data: np.ndarray,
    protocol: Mapping[str, Any],
    sigma: float | np.ndarray | None,
    intervals: bool,
    *,
    mask: np.ndarray,
    fraction: str = "real",
    spectrum: Any = "fat_marrow",
    temperature: float | None = None,
    t2star: bool = False,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """As `dixon` where the phase of the first echo is off, as by eddy currents: its magnitude alone is fitted.

    Leaving a phase free and fitting the magnitude are one and the same: the best phase is that of the data. Options as
    for `dixon`.
    """
    choose("dixon-mixed", "fraction", fraction, FRACTIONS)
    check_bounds("dixon-mixed", bounds, ("r2star",))
    train = Train.of("dixon-mixed", protocol, 4, spectrum, temperature)
    start = field_of(data, mask, train, sigma, first=True)
    names = (*QUANTITIES, *(["t2star"] if t2star else []))
    maps = fitted(data, mask, train, start, sigma, intervals, names=names, fraction=fraction, first=True, bounds=bounds)
    return with_sign(maps, data, mask, train, first=True)
