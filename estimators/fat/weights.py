"""What T1 leaves of water and of fat in a spoiled gradient echo, and what is not known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import InputError
from ...simulator import equations, tissues
from .fraction import Weights
from .train import Train


def weights_of(
    method: str,
    protocol: Mapping[str, Any],
    wanted: bool,
    T1_water: float | np.ndarray | None,
    T1_fat: float | np.ndarray | None,
    T1_water_sd: float | np.ndarray | None,
    T1_fat_sd: float | np.ndarray | None,
) -> tuple[Weights, dict[str, Any]]:
    """Relative signal of water and fat at the scan's flip angle and TR, and attributes that tell what it was made of.

    Where no correction is wanted the signal is 1.

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
        return Weights(), {}
    for name, unit in (("flip_angle", "rad"), ("TR", "s")):
        if name not in protocol:
            raise InputError(f"{method}: the scan lacks {name} ({unit}), which a T1 correction needs")
    for name, value in {**given, "T1_water_sd": T1_water_sd, "T1_fat_sd": T1_fat_sd}.items():
        if value is not None and np.asarray(value).dtype.kind not in "fiu":
            raise InputError(f"{method}: {name} is {value!r}; expected seconds, a number or a map")
    field = float(np.asarray(protocol["field_strength"]))
    angle, repetition = (float(np.asarray(protocol[name]).ravel()[0]) for name in ("flip_angle", "TR"))
    if not 0 < angle < np.pi:
        raise InputError(f"{method}: flip_angle is {angle:g}; expected rad, 0 to pi (given in degrees?)")
    b1 = np.asarray(protocol.get("B1", 1.0), dtype=float)
    signals, errors = [], []
    notes: dict[str, Any] = {"T1_weighting": "corrected for"}
    for (name, value), sd in zip(given.items(), (T1_water_sd, T1_fat_sd), strict=True):
        if sd is None:
            low, high = tissues.ranges("marrow", field)[name] if value is None else (0.0, 0.0)
            sd = (high - low) / np.sqrt(12.0)
        mean = tissues.defaults("marrow", field)[name] if value is None else value
        T1 = np.atleast_1d(np.asarray(mean, dtype=float))
        if (T1 <= 0).any() or (T1 > 20).any():
            raise InputError(f"{method}: {name} reaches {T1.min():g} to {T1.max():g}; expected seconds, above 0, to 20")
        if b1.ndim == 2:  # a map, one a voxel
            T1 = np.broadcast_to(T1, b1.shape[:1])
        known = np.where(np.isfinite(T1), T1, 1.0)
        signal, slope = _relaxed(known, angle, repetition, b1 if b1.ndim == 2 else float(b1.mean()))
        signals.append(np.where(np.isfinite(T1), signal, np.nan))
        errors.append(np.abs(slope / signal) * np.asarray(sd))
        notes |= {**_middle(name, T1), **_middle(f"{name}_sd", sd)}
        notes[f"{name}_from"] = "given" if value is not None else f"population mean of marrow at {field:g} T"
    return Weights(*signals, *errors), notes


def _middle(name: str, values: float | np.ndarray) -> dict[str, float]:
    """An attribute: a number, or the median of a map; nothing where there is none."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return {name: float(np.median(finite))} if finite.size else {}


def _relaxed(T1: np.ndarray, angle: float, repetition: float, b1: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of a signal in the steady state, and its derivative by T1, (voxel,)."""
    settings = {"flip_angle": angle, "TR": repetition, "TE": 0.0, "B1": b1}
    theta = {"S0": 1.0, "T1": T1, "R2star": 0.0}
    flash = equations.spoiled_gradient_echo
    return flash.signal(theta, settings)[:, 0], flash.jacobian(theta, settings)[:, 0, 1]


def uncorrected(train: Train) -> dict[str, Any]:
    """What T1 makes of an uncorrected fraction, for the attributes: what a true PDFF of 50 % reads.

    Returns
    -------
    dict
        ``T1_weighting``, in words, and ``pdff_read_at_half``, where flip angle, TR and population means are known.
    """
    unknown = [name for name in ("flip_angle", "TR") if getattr(train, name) is None]
    if unknown:
        return {"T1_weighting": f"not corrected for, and not known: the scan states no {' and no '.join(unknown)}"}
    angle, repetition, b1 = train.flip_angle, train.TR, 1.0 if train.B1 is None else train.B1
    assert angle is not None and repetition is not None
    if not (0 < angle < np.pi and 0 < repetition < np.inf):
        said = f"flip_angle is {angle:g} rad and TR {repetition:g} s"
        return {"T1_weighting": f"not corrected for, and not known: {said}"}
    try:
        means = tissues.defaults("marrow", train.field_strength)
    except InputError:
        where = f"population means of T1 at {train.field_strength:g} T"
        return {"T1_weighting": f"not corrected for, and not known: there are no {where}"}
    T1 = np.array([means["T1_water"], means["T1_fat"]])
    water, fat = _relaxed(T1, angle, repetition, b1)[0]
    half = float(fat / (water + fat))
    words = (
        f"not corrected for: as spoiled_gradient_echo a true PDFF of 50 % reads {100 * half:.1f} % at a flip angle of "
        f"{np.rad2deg(angle) * b1:.3g} degrees and a TR of {1e3 * repetition:.3g} ms, with T1 of {T1[0]:.3g} s (water) "
        f"and {T1[1]:.3g} s (fat), population means of marrow at {train.field_strength:g} T"
    )
    return {"T1_weighting": words, "pdff_read_at_half": half}
