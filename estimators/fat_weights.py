"""What T1 leaves of water and of fat in a spoiled gradient echo, and what is not known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import equations, tissues
from .fat_fraction import Weights


def weights_of(
    method: str,
    protocol: Mapping[str, Any],
    wanted: bool,
    T1_water: float | np.ndarray | None,
    T1_fat: float | np.ndarray | None,
    T1_water_sd: float | np.ndarray | None,
    T1_fat_sd: float | np.ndarray | None,
) -> Weights:
    """Relative signal of water and fat at the scan's flip angle and TR; 1 where no correction is wanted.

    Parameters
    ----------
    method : str
        Named in errors.
    protocol : mapping
        With `field_strength` (T), and `flip_angle` (rad), `TR` (s), `B1` where the scan states them.
    wanted : bool
    T1_water, T1_fat : float or ndarray, (voxel,), optional
        In s; population means of marrow at the field by default.
    T1_water_sd, T1_fat_sd : float or ndarray, optional
        What is not known of them (s): it widens the error of the fraction. By default 0 of a T1 that is given, and of
        a population mean the SD of an even spread over the range of the population.

    Raises
    ------
    InputError
        A correction without flip angle or TR, or a T1 that is none.

    Notes
    -----
    The signal is the declared equation ``spoiled_gradient_echo``; its derivative carries the error of T1.
    """
    given = {"T1_water": T1_water, "T1_fat": T1_fat}
    if not wanted:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{method}: {name} is given, but T1_correction is False; expected T1_correction=True")
        return Weights()
    for name, unit in (("flip_angle", "rad"), ("TR", "s")):
        if name not in protocol:
            raise InputError(f"{method}: the scan lacks {name} ({unit}), which a T1 correction needs")
    for name, value in {**given, "T1_water_sd": T1_water_sd, "T1_fat_sd": T1_fat_sd}.items():
        if value is not None and np.asarray(value).dtype.kind not in "fiu":
            raise InputError(f"{method}: {name} is {value!r}; expected seconds, a number or a map")
    field = float(np.asarray(protocol["field_strength"]))
    means, ranges = tissues.defaults("marrow", field), tissues.ranges("marrow", field)
    signals, errors = [], []
    for (name, value), sd in zip(given.items(), (T1_water_sd, T1_fat_sd), strict=True):
        if sd is None:
            low, high = ranges[name]
            sd = (high - low) / np.sqrt(12.0) if value is None else 0.0
        T1 = np.atleast_1d(np.asarray(means[name] if value is None else value, dtype=float))
        if (T1 <= 0).any() or (T1 > 20).any():
            raise InputError(f"{method}: {name} reaches {T1.min():g} to {T1.max():g}; expected seconds, above 0, to 20")
        angle = float(np.asarray(protocol["flip_angle"]).ravel()[0])
        if not 0 < angle < np.pi:
            raise InputError(f"{method}: flip_angle is {angle:g}; expected rad, 0 to pi (given in degrees?)")
        settings: dict[str, Any] = {
            "flip_angle": angle,
            "TR": float(np.asarray(protocol["TR"]).ravel()[0]),
            "TE": 0.0,
            "B1": 1.0,
        }
        b1 = np.asarray(protocol.get("B1", 1.0), dtype=float)
        if b1.ndim == 2:  # a map, one a voxel
            settings["B1"], T1 = b1, np.broadcast_to(T1, b1.shape[:1])
        else:
            settings["B1"] = float(b1.mean())
        known = np.where(np.isfinite(T1), T1, 1.0)
        theta = {"S0": 1.0, "T1": known, "R2star": 0.0}
        flash = equations.spoiled_gradient_echo
        signal = flash.signal(theta, settings)[:, 0]
        slope = flash.jacobian(theta, settings)[:, 0, 1]
        signals.append(np.where(np.isfinite(T1), signal, np.nan))
        errors.append(np.abs(slope / signal) * np.asarray(sd))
    return Weights(*signals, *errors)
