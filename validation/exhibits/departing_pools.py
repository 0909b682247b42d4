"""Pools, spokes and diffusion as an engine plays them beside what their equation says; functions as in `departing`."""

from __future__ import annotations

import math

import numpy as np

from ...simulator.acquisition.events.timeline import Block, Event, Repeat, Spoiler, Timeline
from ...simulator.constants import PROTON
from ...simulator.engines import bloch, capillaries, epg, epg_exchange, walkers
from ...simulator.engines.isochromats import Isochromats
from .departing import FULL, LONG_TR, PULSE, RIGHT, TE, Floats, Pair, at, closed_form, echo, over, sample, steady

# -- spokes after a preparation; bound and pore water

SPOKES = 5
INSTANT = 1e-7  # s: a preparation that is over at once


def spokes_pulse(x: Floats, y: Floats) -> Pair:
    """The mean of five spokes after a perfect inversion."""
    T2, T1, TR, TI, spacing, late = PULSE / x, 0.3, 1.0, 0.15, 5e-3, PULSE
    lead = TI - (SPOKES - 1) / 2 * spacing - INSTANT / 2 - PULSE / 2
    inversion = at(INSTANT / 2, FULL, duration=INSTANT)
    spins, rows = Isochromats(T1, T2), []
    for flip in y:
        prepare = Block(inversion, Spoiler(), duration=INSTANT + lead)
        spoke = Block(at(PULSE / 2, flip), sample(PULSE / 2 + late), Spoiler(), duration=spacing)
        rest = Block(duration=TR - INSTANT - lead - SPOKES * spacing)
        found = bloch.steady_state(Timeline((prepare, Repeat((spoke,), SPOKES), rest)), spins)
        rows.append(found.signal.mean(axis=1).real)
    ratio, flip_angle = over(x, y)
    theta = {"S0": 1.0, "T1": T1, "R2star": ratio / PULSE, "kept": -1.0}
    settings = {"TI": TI, "TR": TR, "spokes_per_preparation": float(SPOKES), "spoke_TR": spacing, "TE": late, "B1": 1.0,
                "flip_angle": flip_angle}  # fmt: skip
    return np.array(rows), closed_form("prepared_spokes", theta, settings, ratio.shape)


def spokes_spoiling(x: Floats, y: Floats) -> Pair:
    """Spoiler gradient and RF phases of 117 degrees between the spokes."""
    ratio, flip = over(x, y)
    T1, spacing = 0.3, 5e-3
    T2, TI = spacing / ratio, T1
    start = epg.prepared(T1, FULL, TI - (SPOKES - 1) / 2 * spacing)
    found = epg.spoiled_train(
        T1, T2.ravel(), np.full(SPOKES, RIGHT), spacing, B1=flip.ravel() / RIGHT, initial=np.full(T2.size, start[0])
    )
    theta = {"S0": 1.0, "T1": T1, "R2star": 1 / T2, "kept": -1.0}
    settings = {"TI": TI, "TR": LONG_TR * T1, "spokes_per_preparation": float(SPOKES), "spoke_TR": spacing, "TE": 0.0,
                "B1": 1.0, "flip_angle": flip}  # fmt: skip
    return found.mean(axis=1).real.reshape(flip.shape), closed_form("prepared_spokes", theta, settings, flip.shape)


BOUND, PORE, BOUND_T2, PORE_T2 = 0.7, 0.3, 0.35e-3, 3.5e-3
EARLIEST = 0.5e-3  # s, the sample after a pulse, unless that is longer


def two_waters_pulse(x: Floats, y: Floats) -> Pair:
    """Fractions of magnetisation; the signal per flip angle, TE counted from the middle of the pulse."""
    T1, shape = 0.3, (y.size, x.size)
    columns = []
    for duration in x * BOUND_T2:
        events: list[Event] = [
            at(duration / 2, RIGHT, duration=duration),
            sample(duration / 2 + max(EARLIEST, 0.51 * duration)),
        ]
        each = [steady(events, LONG_TR * T1, T1, T2, B1=y / RIGHT)[:, 0].real for T2 in (BOUND_T2, PORE_T2)]
        columns.append((BOUND * each[0] + PORE * each[1]) / np.sin(y))
    times = np.maximum(EARLIEST, 0.51 * over(x * BOUND_T2, y)[0])
    theta = {"S0": 1.0, "bound_fraction": BOUND, "T2star_bound": BOUND_T2, "T2star_pore": PORE_T2}
    return np.array(columns).T, closed_form("bound_and_pore", theta, {"TE": times}, shape)


def two_waters_exchange(x: Floats, y: Floats) -> Pair:
    """What a pulse of 90 degrees leaves decays while both waters exchange."""
    pools = epg_exchange.TwoPools(0.3, 0.3, BOUND_T2, PORE_T2, fraction=PORE, exchange=x / BOUND_T2)
    times = y * BOUND_T2
    found = [epg_exchange.spoiled_train(pools, [RIGHT], 1.0, TE=t)[:, :, 0].sum(axis=1).real for t in times]
    theta = {"S0": 1.0, "bound_fraction": BOUND, "T2star_bound": BOUND_T2, "T2star_pore": PORE_T2}
    return np.array(found), closed_form("bound_and_pore", theta, {"TE": over(x, times)[1]}, (y.size, x.size))


# -- diffusion: two lobes of equal gradient

DELTA, SEPARATION = 10e-3, 30e-3  # length of a lobe, and from one to the other (s)
DIFFUSIVITY = 1e-3  # mm2/s
WALKERS = 20_000
PATHS = 256  # of blood: .1 % of a part of a tenth


def _lobes(b: float) -> tuple[Floats, Floats]:
    """Knots (s) and effective gradient (T/m) of this b-value (s/mm2)."""
    strength = math.sqrt(b * 1e6 / (DELTA**2 * (SEPARATION - DELTA / 3))) / (2 * math.pi * PROTON)
    times = np.array([0, DELTA, DELTA, SEPARATION, SEPARATION, SEPARATION + DELTA])
    gradient = np.zeros((times.size, 3))
    gradient[:, 0] = strength * np.array([1, 1, 0, 0, -1, -1])
    return times, gradient


def restricted(x: Floats, y: Floats) -> Pair:
    """Walls across the gradient, at a distance in units of what water diffuses from lobe to lobe.

    The same walkers walk with walls and without, where the equation is true: what chance does to both cancels.
    """
    far = math.sqrt(2 * DIFFUSIVITY * 1e-6 * SEPARATION)
    step = 0.01 * x[0] ** 2 * SEPARATION  # a tenth of the narrowest distance

    def walked(medium: walkers.Box) -> Floats:
        times, gradient = _lobes(1 / DIFFUSIVITY)
        found = walkers.walk(times, gradient, medium, diffusivity=DIFFUSIVITY, count=WALKERS, step=step)
        return found.signal(np.sqrt(y)).signal.real

    free = walked(walkers.FREE)
    columns = [walked(walkers.slab(width)) - free for width in x * far]
    settings = {"b": over(x, y / DIFFUSIVITY)[1]}
    expected = closed_form("mono_exponential", {"S0": 1.0, "adc": DIFFUSIVITY}, settings, (y.size, x.size))
    return expected + np.array(columns).T, expected


def flowing(x: Floats, y: Floats) -> Pair:
    """Blood in capillary segments that it leaves x times during the encoding; tissue is left to its exponential."""
    f, D, D_star, duration = 0.1, 0.5e-3, 0.03, SEPARATION + DELTA
    b = over(x, y)[1]
    expected = closed_form("ivim", {"S0": 1.0, "f": f, "D": D, "D_star": D_star}, {"b": b}, b.shape)
    ideal = closed_form("ivim", {"S0": 1.0, "f": 1.0, "D": D, "D_star": D_star}, {"b": b}, b.shape)
    blood = []
    for passed in x:
        # D* = length velocity/6 of segments of one length, and passed = velocity duration/length
        length = math.sqrt(6 * D_star * 1e-6 * duration / passed)
        velocity = float(capillaries.velocity_of(D_star, length))
        times, gradient = _lobes(1.0)
        found = capillaries.signal(times, gradient, velocity=velocity, length=length, scale=np.sqrt(y), count=PATHS)
        blood.append(found.signal)
    return expected + f * (np.array(blood).T - ideal), expected


def fat_offset(x: Floats, y: Floats) -> Pair:
    """Water on resonance and fat off it, refocused by the same pulses; all T1 and T2 alike, no diffusion."""
    T2, on = np.full(x.size, 200 * PULSE), np.ones(x.size)
    water, fat = (echo("spin_echo", T2, offset, on)[0] for offset in (np.zeros(x.size), x / PULSE))
    pdff = over(x, y)[1]
    theta = {"S0": 1.0, "f": 0.0, "D": 0.0, "D_star": 0.0, "D_fat": 0.0, "residual": 1.0, "pdff": pdff}
    theta |= {f"T{k}_{pool}": value for pool in ("water", "blood", "fat") for k, value in ((1, 1.0), (2, T2[0]))}
    settings = {"b": 0.0, "TE": TE, "TR": LONG_TR}
    return (1 - pdff) * water + pdff * fat, closed_form("ivim_fat_aware", theta, settings, pdff.shape)
