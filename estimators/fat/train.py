"""The echo train of a Dixon scan: its times, fat's signal along it, and what is wrong with it, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator import tissues, water_fat
from ...simulator.acquisition.settings import is_number

LONGEST = 0.2
"""Echo time (s) beyond which times were not given in seconds: marrow has decayed by then."""

ENCODINGS = ("time",)
"""What the dimension of echoes may be called besides `echo`: times after a spin echo."""

NEEDS = ("temperature", "shot", "voxel_size", "flip_angle", "TR", "B1")


@dataclass(frozen=True)
class Train:
    """Echo times and the signal of fat relative to water along them.

    Attributes
    ----------
    times : ndarray, (point,)
        In s.
    fat : ndarray of complex, (point,)
        c(t) = sum_m a_m exp(+i 2 pi nu_m t).
    order : ndarray of int, (point,)
        Number of each echo after its excitation, from 0.
    voxel_size : ndarray, (3,), or None
        Along z, y, x (m), where the scan says.
    field_strength, water : float
        In T; chemical shift of water (ppm).
    spectrum : Spectrum, or None
        That `fat` was made of.
    fat_from, water_from : str
        Where the spectrum and the shift of water come from, in words.
    temperature : float, or None
        Of the water (C), where it is known.
    flip_angle, TR, B1 : float, or None
        In rad, s, and relative to the nominal angle (of a map the median), where the scan states them.
    """

    times: np.ndarray
    fat: np.ndarray
    order: np.ndarray
    voxel_size: np.ndarray | None
    field_strength: float = 3.0
    water: float = water_fat.OUTSIDE_WATER
    spectrum: tissues.Spectrum | None = None
    fat_from: str = ""
    water_from: str = ""
    temperature: float | None = None
    flip_angle: float | None = None
    TR: float | None = None
    B1: float | None = None

    @classmethod
    def of(cls, method: str, protocol: Mapping[str, Any], least: int, spectrum: Any, temperature: Any) -> Train:
        """The train of a scan.

        Parameters
        ----------
        method : str
            Named in errors.
        protocol : mapping
            With `echo` (s, (point,)) and `field_strength` (T); `temperature` (C), `shot` and `voxel_size` (m) where the
            scan states them.
        least : int
            Different echo times that the method needs.
        spectrum
            As `water_fat.spectrum_of` takes it.
        temperature : float, optional
            Of the water (C), before what the scan states. Where neither is known, water stands at 4.70 ppm.

        Raises
        ------
        InputError
            Too few different times, times that are no seconds, a field strength that is none.
        """
        times = np.atleast_1d(np.asarray(protocol["echo"], dtype=float))
        if np.abs(times).max() > LONGEST:
            hint = f"expected seconds below {LONGEST:g} (given in ms?)"
            raise InputError(f"{method}: echo times reach {np.abs(times).max():g}; {hint}")
        different = np.unique(np.round(times, 9))
        if different.size < least:
            counted = f"{different.size} different time{'s' if different.size != 1 else ''} among {times.size} echoes"
            raise InputError(f"{method}: echo has {counted}; at least {least} are needed")
        field = float(np.asarray(protocol["field_strength"]))
        if not 0.01 <= field <= 15:
            hint = "given in MHz or mT?"
            raise InputError(f"{method}: field_strength is {field:g}; expected tesla, 0.01 to 15 ({hint})")
        water_from = "temperature, given"
        if temperature is None and "temperature" in protocol:
            temperature, water_from = float(np.asarray(protocol["temperature"])), "temperature of the scan"
        if temperature is not None and not is_number(temperature):
            raise InputError(f"{method}: temperature is {temperature!r}; expected a number (C)")
        if temperature is not None and not -20 <= temperature <= 80:
            raise InputError(f"{method}: temperature is {temperature:g}; expected C, -20 to 80 (given in K?)")
        water = water_fat.OUTSIDE_WATER if temperature is None else tissues.water_shift(temperature)
        peaks = water_fat.spectrum_of(spectrum)
        fat = water_fat.fat_signal(times, field, peaks, water)
        size = protocol.get("voxel_size")
        # the scan's voxel_size is (z, y, x); one number stands for a cube
        size = None if size is None else np.broadcast_to(np.asarray(size, dtype=float), (3,))
        return cls(
            times, fat, water_fat.echo_order(times, protocol.get("shot")), size, field, water, spectrum=peaks,
            fat_from=spectrum if isinstance(spectrum, str) else "given", temperature=temperature,
            water_from="convention: the temperature is not known" if temperature is None else water_from,
            **{name: _one(protocol.get(name)) for name in ("flip_angle", "TR", "B1")},
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, np.ndarray]:
        """What the water-fat equations ask of a protocol."""
        return water_fat.settings_of(self.times, self.fat, self.order)

    def take(self, points: np.ndarray) -> Train:
        """Some of its echoes."""
        return replace(self, times=self.times[points], fat=self.fat[points], order=self.order[points])

    def with_spectrum(self, spectrum: Any, fat_from: str = "given") -> Train:
        """The same echoes of another fat; as `water_fat.spectrum_of` takes it."""
        peaks = water_fat.spectrum_of(spectrum)
        fat = water_fat.fat_signal(self.times, self.field_strength, peaks, self.water)
        return replace(self, fat=fat, spectrum=peaks, fat_from=fat_from)


def _one(value: Any) -> float | None:
    """One number for what may be a number or a map."""
    return None if value is None else float(np.median(np.asarray(value, dtype=float)))
