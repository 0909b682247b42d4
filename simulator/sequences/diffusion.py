"""The diffusion-weighted spin echo with an echo-planar readout, of the full field of view or of an inner volume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events import moments
from ..acquisition.events.pulses import bandwidth, pulse
from ..acquisition.events.timeline import RF, Gradient, trapezoid
from ..acquisition.kspace import trajectory
from ..acquisition.protocol import FatSuppression, Protocol
from ..constants import PROTON
from .parts import CRUSHER, SAMPLE, centred, crushers, one_repetition, sample, setting, turn_length
from .sequence import INVISIBLE, Played, Pool, Sequence, is_finite
from .spin_echo import EXCITATION, REFOCUSED, REFOCUSING, check

SELECTIVE = {"shape": "sinc", "duration": 3e-3}
"""The refocusing pulse of an inner volume where none is stated; without its gradient a short pulse stands for it."""

RAMP = 5e-4
"""Rise time (s) of a diffusion lobe where none is stated: 50 mT/m at 100 T/m/s."""

LOBE_AXIS = "x"
"""Pools diffuse isotropically: one axis stands for all directions."""


def signal(
    pool: Pool,
    protocol: Protocol,
    *,
    kurtosis: bool | float = True,
    b_offset: float = 0.0,
    motion_loss: float = 0.0,
    fat_suppression: float | tuple[float, ...] | FatSuppression | None = None,
    off_resonance: Any = 0.0,
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
    off_resonance : float or array (row, 1)
        Of all pools (Hz): refocused at the echo.

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
    *,
    kurtosis: Any = True,
    b_offset: Any = 0.0,
    motion_loss: Any = 0.0,
    fat_suppression: Any = None,
    off_resonance: Any = 0.0,
) -> None:
    check(off_resonance=off_resonance)
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


# -- what is played


def played(protocol: Protocol) -> tuple[Played, ...]:
    """Excitation, lobe, refocusing, lobe, and a sample at TE, for each b-value.

    The lobes (`delta`, `Delta`, `ramp`) give the nominal b exactly, ramps included. Where the protocol states none of
    their times, the first one follows the excitation and the second one the refocusing, each lasting TE/4 at most and
    ending before the readout begins. They crush what the refocusing pulse excites, but not at b = 0: for that there is
    the setting `crusher` (along z, which adds to b what little it has).

    With `inner_volume` (m) in the protocol's readout, the refocusing pulse plays with a gradient along phase encoding
    and refocuses that width alone (Feinberg et al., Radiology 156:743 (1985), doi:10.1148/radiology.156.3.4023236);
    crushers are then on, so that what lies beside it vanishes at b = 0 too.
    """
    return tuple(_weighted(protocol, point) for point in range(protocol.points))


def _weighted(protocol: Protocol, point: int) -> Played:
    TE = setting(protocol, "TE", point)
    default = SELECTIVE if "inner_volume" in protocol.readout else REFOCUSING
    excitation = pulse("excitation", protocol, EXCITATION, math.pi / 2)
    refocusing = pulse("refocusing", protocol, default, math.pi, 0.0, use="refocusing")
    refocusing = centred(refocusing, excitation.reference + TE / 2)
    selective = _inner_volume(protocol, refocusing)
    area = setting(protocol, "crusher", point, CRUSHER if selective else 0.0)
    # slice gradient and crushers lie along different axes and may overlap, the lobes begin after both
    beside = max([refocusing.delay - g.start for g in selective], default=0.0)
    crush = crushers(refocusing, area, 0.25 * TE - refocusing.duration / 2)
    margin = max(beside, *(g.end - g.start for g in crush), 0.0)
    lobes = _lobes(protocol, point, excitation, refocusing, margin)
    adc = sample(excitation.reference + TE)
    timeline = one_repetition(protocol, point, excitation, refocusing, *selective, *crush, *lobes, adc)
    # the echo and what a crusher leaves lie two turns apart at most
    across = "".join(g.axis for g in selective)
    return Played(timeline, (point,), (0,), True, turn_length(area), 3 if area else 1, selects=across)


def _lobes(protocol: Protocol, point: int, excitation: RF, refocusing: RF, margin: float) -> tuple[Gradient, ...]:
    """The two lobes of one b-value, scaled to it."""
    b, TE = setting(protocol, "b", point), setting(protocol, "TE", point)
    ramp = setting(protocol, "ramp", point, RAMP)
    if b == 0 or not ramp > 0:
        if b > 0:
            raise InputError(f"protocol {protocol.name}: ramp is {ramp:g} s: expected above 0")
        return ()
    after = refocusing.end + margin
    echo = excitation.reference + TE
    read = _before_echo(protocol)
    longest = min(refocusing.delay - margin - excitation.end, echo - read - after) - ramp
    delta = setting(protocol, "delta", point, min(0.25 * TE, longest))
    Delta = setting(protocol, "Delta", point, after - excitation.end)
    first = after - Delta
    if not delta > 0 or delta < ramp or delta > longest + 1e-9 or first < excitation.end - 1e-9:
        raise InputError(
            f"protocol {protocol.name}: delta is {delta:g} s and Delta {Delta:g} s: expected lobes of {ramp:g} s ramps "
            f"that fit into TE of {TE:g} s, at most {longest:g} s and {after - excitation.end:g} s, beside the pulses "
            f"and before the readout, which begins {read:g} s before the echo"
        )
    if first + delta + ramp > refocusing.delay - margin + 1e-9:
        least = after - refocusing.delay + margin + delta + ramp
        raise InputError(f"protocol {protocol.name}: Delta is {Delta:g} s: expected at least {least:g} s, for the "
                         "refocusing pulse")  # fmt: skip
    unit = [trapezoid(LOBE_AXIS, delta, delta + ramp, ramp, start) for start in (first, after)]
    times = np.concatenate([g.times for g in unit])
    shape = np.zeros((times.size, 3))
    shape[:, 0] = np.concatenate([-unit[0].values, unit[1].values])
    per_square = float(np.trace(moments.b_matrix_of(times, shape)))
    height = math.sqrt(b / per_square)
    return tuple(dataclasses.replace(g, values=g.values * height) for g in unit)


def _before_echo(protocol: Protocol) -> float:
    """How long before TE the readout begins (s)."""
    if "matrix" not in protocol.readout:
        return SAMPLE
    knots = readout(protocol).knots
    return SAMPLE if knots is None else max(SAMPLE, -float(np.min(knots)))


def _inner_volume(protocol: Protocol, refocusing: RF) -> tuple[Gradient, ...]:
    """The gradient along phase encoding that makes the refocusing pulse select an inner volume."""
    width = protocol.readout.get("inner_volume")
    if width is None:
        return ()
    if not (is_finite(width) and width > 0):
        raise InputError(f"protocol {protocol.name}: readout.inner_volume is {width!r}: expected a width above 0 (m)")
    height = bandwidth(refocusing) / (PROTON * width)
    length = refocusing.duration + 2 * RAMP
    axis = "y" if protocol.readout.get("frequency", "x") == "x" else "x"
    return (trapezoid(axis, height * (length - RAMP), length, RAMP, refocusing.delay - RAMP),)


def readout(protocol: Protocol) -> trajectory.Trajectory:
    """The echo-planar readout of each slice; of an inner volume, that of a smaller field of view."""
    entries = {"trajectory": "epi", **protocol.readout}
    entries.pop("inner_volume", None)
    return trajectory.from_entries(entries, f"protocol {protocol.name}: readout")


def _attenuation(pool: Pool, protocol: Protocol, *, kurtosis: bool | float = True) -> NDArray[np.float64]:
    """What walkers leave of the signal under the gradients of `played`."""
    from .diffusion_walkers import attenuation  # which walks under what is played here

    return attenuation(pool, protocol, kurtosis=kurtosis)


diffusion_spin_echo = Sequence(
    name="diffusion_spin_echo",
    signal=signal,
    switches={
        "kurtosis": "True (pools' own), False (none) or a number for extravascular water",
        "b_offset": "added to every nominal b (s/mm2)",
        "motion_loss": "fraction lost at b = 1000 s/mm2",
        "fat_suppression": "efficiency (0 to 1), one for each peak, or a FatSuppression",
        **REFOCUSED,
    },
    reference=_at_b0,
    check=_check,
    played=played,
    pulses=("excitation", "refocusing"),
    readout=readout,
    attenuation=_attenuation,
)
