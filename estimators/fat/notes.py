"""What an estimate of water and fat tells of how it came about: the numbers that were used, whoever chose them."""

from __future__ import annotations

from typing import Any

from ...simulator import tissues, triglyceride
from .train import Train

SIGN = "exp(+i 2 pi fieldmap t): the main peak of fat at negative frequency"
KINDS = {
    "real": "real part of F/(W + F)",
    "magnitude": "|F|/(|W| + |F|)",
    "discrimination": "magnitude discrimination",
}
"""The fraction by the name of its option."""


def notes_of(train: Train, fraction: str = "") -> dict[str, Any]:
    """Attributes of an estimate: strings, numbers and arrays of numbers, as NetCDF holds them.

    Parameters
    ----------
    train : Train
        As it was fitted.
    fraction : str
        The option, where the method has one.

    Returns
    -------
    dict
        ``echo_times`` (s) and ``field_strength`` (T) that were used; ``spectrum`` (a name, ``given`` or ``fitted``)
        with ``spectrum_shift`` (ppm) and ``spectrum_area``, and ``ndb``, ``nmidb``, ``chain_length`` where they follow;
        ``water_shift`` (ppm) and ``water_shift_from``, ``temperature`` (C); ``sign``, ``fraction``.
    """
    notes: dict[str, Any] = {"echo_times": train.times, "field_strength": train.field_strength, "sign": SIGN}
    if train.spectrum is not None:
        notes |= {"spectrum": train.fat_from, **_peaks(train.spectrum)}
    notes |= {"water_shift": train.water, "water_shift_from": train.water_from}
    if train.temperature is not None:
        notes["temperature"] = float(train.temperature)
    if fraction:
        notes["fraction"] = KINDS[fraction]
    return notes


def _peaks(spectrum: tissues.Spectrum) -> dict[str, Any]:
    """The peaks, and the composition that their areas tell, if they do."""
    made_of = triglyceride.composition(spectrum.shift, spectrum.area)
    known = {name: float(value) for name, value in made_of._asdict().items() if value == value}
    return {"spectrum_shift": spectrum.shift, "spectrum_area": spectrum.area, **known}
