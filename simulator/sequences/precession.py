"""How the lines of a pool's spectrum turn against the scanner's frequency after an excitation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import tissues
from ..acquisition.protocol import Protocol
from ..constants import GYROMAGNETIC
from .sequence import Pool


def lines(pool: Pool, protocol: Protocol, nucleus: str = "1H") -> tuple[NDArray[Any], NDArray[Any]]:
    """Frequency (Hz) and share of the signal of each line of a pool, (peak,).

    The scanner stands at the chemical shift `reference` of the protocol, else on water at body temperature (1H), or at
    0 ppm (31P). A higher shift is a higher frequency; the main fat peak lies below water. The shares add up to one but
    for what the protocol's fat suppression removes of fat. A pool without a spectrum stands on the reference.

    Raises
    ------
    InputError
        Fat without a spectrum.
    """
    reference = protocol.get("reference", tissues.water_shift() if nucleus == "1H" else 0.0)
    stated = np.isfinite(pool.shift) & np.isfinite(pool.peak_area) & (np.nan_to_num(pool.peak_area) > 0)
    shift, area = pool.shift[stated], pool.peak_area[stated]
    if shift.size == 0:
        if pool.kind == "fat":
            raise InputError(f"pool {pool.name} (fat): shift and peak_area are NaN: fat needs its spectrum")
        return np.zeros(1), np.ones(1)
    share = area / area.sum()
    if pool.kind == "fat":
        share = share * (1 - protocol.fat_suppression.efficiency(shift))
    return (shift - reference) * 1e-6 * GYROMAGNETIC[nucleus] * protocol.field_strength, share


def precession(frequency: NDArray[Any], times: NDArray[Any]) -> NDArray[np.complex128]:
    """exp(+i 2 pi frequency t) of each line at each time, (peak, point)."""
    turned: NDArray[np.complex128] = np.exp(2j * np.pi * np.multiply.outer(frequency, times))
    return turned
