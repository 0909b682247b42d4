"""The diffusion-weighted spin echo."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.protocol import FatSuppression, Protocol
from .sequence import INVISIBLE, Pool, Sequence, is_finite


def signal(
    pool: Pool,
    protocol: Protocol,
    *,
    kurtosis: bool | float = True,
    b_offset: float = 0.0,
    motion_loss: float = 0.0,
    fat_suppression: float | tuple[float, ...] | FatSuppression | None = None,
) -> NDArray[Any]:
    """Diffusion-weighted spin echo of one pool, for a density of 1 mol 1H/L.

    Parameters
    ----------
    pool : Pool
        Blood decays with ``D_star``, everything else with ``D``. T2 rules, not T2*: R2' is refocused.
    protocol : Protocol
        With b (s/mm2), TE and TR (s).
    kurtosis : bool or float
        True (default): each pool's own excess kurtosis. False: none. A number: that of the extravascular water.
    b_offset : float
        What imaging gradients and cross terms add to every nominal b (s/mm2).
    motion_loss : float
        Fraction of the signal lost at b = 1000 s/mm2 through bulk motion that differs inside the voxel. For a
        Gaussian spread of displacements the phase variance goes as b, so the loss is (1 - motion_loss)^(b/1000);
        it comes on top of diffusion and is the same for all pools.
    fat_suppression : float, sequence of float, or FatSuppression
        Instead of the protocol's: a number replaces the efficiency inside the protocol's stop bands (peaks outside
        them stay; without bands it reaches every peak), a sequence gives the efficiency of each peak in turn.

    Returns
    -------
    ndarray (row, point)
        Real. Chemical shift is refocused at the echo, so that water and all fat peaks add in phase: true at the
        echo time alone; what the rest of an EPI readout does (shifted fat) belongs to the rung `scan`. Exchange
        between pools is taken as slow.

    Notes
    -----
    Phase dispersion by motion that is not rigid: Murphy et al., Magn Reson Med 70:1460 (2013),
    doi:10.1002/mrm.24563. The signal itself is the declared equation ``spin_echo_diffusion``.
    """
    points = protocol.points
    if pool.kind in INVISIBLE:
        return np.zeros((1, points))
    if pool.kind == "blood":
        diffusivity = pool.get("D_star")
    else:
        # bound water has no diffusivity one could see: it is gone before the echo
        diffusivity = pool.get("D", default=0.0 if pool.kind == "bound_water" else None)
    excess = pool.get("kurtosis", default=0.0)
    if kurtosis is False:
        excess = np.zeros_like(excess)
    elif kurtosis is not True and pool.kind not in ("fat", "blood"):
        excess = np.full_like(excess, kurtosis)
    theta = {
        "density": 1.0,
        "T1": pool.get("T1_observed"),  # an intrinsic one needs the exchange that goes with it
        "T2": pool.get("T2"),
        "D": diffusivity,
        "kurtosis": excess,
    }
    applied = protocol.replace(b=tuple(protocol["b"] + b_offset)) if b_offset else protocol
    echo = equations.get("spin_echo_diffusion").signal(theta, applied)
    if motion_loss:
        echo = echo * (1 - motion_loss) ** (applied["b"] / 1000)
    if pool.kind == "fat":
        echo = echo * _unsuppressed(pool, protocol, fat_suppression)
    return echo


def _unsuppressed(
    pool: Pool, protocol: Protocol, fat_suppression: float | tuple[float, ...] | FatSuppression | None
) -> float:
    """Fraction of a fat pool's signal that is left by the suppression: its peaks share T1, T2 and D."""
    stated = np.isfinite(pool.shift) & np.isfinite(pool.peak_area)
    shift, area = pool.shift[stated], pool.peak_area[stated]
    if shift.size == 0:
        raise InputError(f"pool {pool.name} (fat): shift and peak_area are NaN: fat needs its spectrum")
    suppression: FatSuppression = protocol.fat_suppression
    if isinstance(fat_suppression, FatSuppression):
        suppression = fat_suppression
    elif isinstance(fat_suppression, (tuple, list)):
        if len(fat_suppression) != shift.size:
            raise InputError(
                f"fat_suppression has {len(fat_suppression)} values: expected one for each of {shift.size} fat peaks"
            )
        return float(np.sum(area * (1 - np.asarray(fat_suppression))) / np.sum(area))
    elif fat_suppression is not None:
        suppression = suppression.with_efficiency(float(fat_suppression))
    return suppression.residual(shift, area)


def _check(
    *, kurtosis: Any = True, b_offset: Any = 0.0, motion_loss: Any = 0.0, fat_suppression: Any = None
) -> None:
    if not isinstance(kurtosis, bool) and not (is_finite(kurtosis) and kurtosis >= 0):
        raise InputError(f"kurtosis is {kurtosis!r}: expected True, False or a number from 0 up")
    if not is_finite(b_offset):
        raise InputError(f"b_offset is {b_offset!r}: expected a number (s/mm2)")
    if not (is_finite(motion_loss) and 0 <= motion_loss < 1):
        raise InputError(f"motion_loss is {motion_loss!r}: expected the fraction lost at b = 1000 s/mm2, 0 to below 1")
    if fat_suppression is not None and not isinstance(fat_suppression, FatSuppression):
        listed = fat_suppression if isinstance(fat_suppression, (tuple, list)) else [fat_suppression]
        if not all(is_finite(e) and 0 <= e <= 1 for e in listed):
            raise InputError(f"fat_suppression is {fat_suppression!r}: expected efficiencies from 0 to 1")


def _at_b0(protocol: Protocol) -> Protocol:
    """One point at b = 0; what rides on the encoding keeps its value at the lowest b."""
    lowest = int(np.argmin(protocol["b"]))
    columns = {name: (values[lowest],) for name, values in protocol.table.items()}
    return dataclasses.replace(protocol, table=columns | {"b": (0.0,)})


diffusion_spin_echo = Sequence(
    name="diffusion_spin_echo",
    signal=signal,
    switches={
        "kurtosis": "True (pools' own), False (none) or a number for extravascular water",
        "b_offset": "added to every nominal b (s/mm2)",
        "motion_loss": "fraction lost at b = 1000 s/mm2",
        "fat_suppression": "efficiency (0 to 1), one for each peak, or a FatSuppression",
    },
    reference=_at_b0,
    check=_check,
)
