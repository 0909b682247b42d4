"""The UTE family: closed forms against pulses played by the Bloch engine, nulls, slices, spoiling, and bad input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms, simulator
from bonemri.errors import InputError
from bonemri.simulator import equations, sequences, tissues
from bonemri.simulator.acquisition import Protocol, protocols
from bonemri.simulator.acquisition.events import pulses
from bonemri.simulator.acquisition.events.timeline import Block
from bonemri.simulator.constants import GYROMAGNETIC, PROTON
from bonemri.simulator.engines import bloch, exchange
from bonemri.simulator.engines.isochromats import Isochromats
from bonemri.simulator.sequences import Pool, preparation
from bonemri.simulator.sequences.ute_2d import half_pulse
from bonemri.simulator.sequences.ute_mt import saturation
from bonemri.simulator.sequences.zte import DEAD_TIME, excited

PRESETS = [name for name in protocols if name.startswith(("ute_", "zte_"))]
DEGREE = math.pi / 180
INSTANT = {"excitation": {"shape": "hard", "duration": 1e-7}}
UTE = {"TR": 0.02, "flip_angle": 12 * DEGREE}
PREPARED = {"TR": 0.15, "TI": 0.06, "flip_angle": 20 * DEGREE, "spokes_per_preparation": 5, "spoke_TR": 4e-3}


def protocol(
    sequence: str, constants: Mapping[str, float] = UTE, *, echo: tuple[float, ...] = (60e-6, 2e-3), **fields: Any
) -> Protocol:
    equation = "prepared_spokes" if "TI" in constants else "spoiled_gradient_echo"
    return Protocol("mine", sequence, equation, "echo", {"echo": echo}, 3.0, constants, **fields)


def pool(
    kind: str = "pore_water", T1: float = 0.3, T2: float = 3e-3, shift: Any = None, area: Any = None, **more: float
) -> Pool:
    values = {"T1_observed": T1, "T2": T2, **more}
    shift = np.array([np.nan]) if shift is None else np.atleast_1d(shift)
    area = np.ones(shift.size) if area is None else np.atleast_1d(area)
    return Pool(kind, kind, {n: np.atleast_1d(v) for n, v in values.items()}, shift, area)


def closed(scan: Protocol, spins: Pool, **switches: Any) -> np.ndarray:
    return sequences.get(scan.sequence).signal(spins, scan, **switches)


def played(scan: Protocol, spins: Pool, offset: float = 0.0, B1: complex = 1.0) -> np.ndarray:
    """The signal of what the sequence plays, (point,)."""
    sequence = sequences.get(scan.sequence)
    assert sequence.played is not None
    total, count = np.zeros(scan.points, complex), np.zeros(scan.points)
    for part in sequence.played(scan):
        place = np.zeros((part.spins, 3))
        place[:, 2] = part.places()
        here = Isochromats(spins.get("T1_observed"), spins.get("T2"), offset, B1, place)
        run = bloch.steady_state if part.steady else bloch.simulate
        found = run(part.timeline, here, signal="sum", exact=True).signal * part.gain / part.spins
        for point, sample in zip(part.points, part.samples, strict=True):
            total[point] += found[sample]
            count[point] += 1
    return total / count


# ---- the equation of spokes after a preparation ----------------------------------------------------------------------

spokes_drawn = {
    "T1": st.floats(0.05, 2.0),
    "kept": st.floats(-1.0, 1.0),
    "count": st.integers(1, 16),
    "angle": st.floats(0.01, 0.8),
    "TR": st.floats(0.2, 2.0),
    "part": st.floats(0.0, 1.0),
}


@settings(max_examples=40, deadline=None)
@given(**spokes_drawn)
def test_spokes_after_a_preparation_against_the_magnetisation_followed_until_it_repeats(
    T1: float, kept: float, count: int, angle: float, TR: float, part: float
) -> None:
    spacing = 5e-3
    half = (count - 1) / 2 * spacing
    TI = half + part * (TR - 2 * half)  # anywhere between preparation and preparation

    def recover(mz: float, t: float) -> float:
        return 1 - (1 - mz) * math.exp(-t / T1)

    mz, seen = 1.0, 0.0
    for _ in range(3000):
        before = seen
        mz, seen = recover(kept * mz, TI - half), 0.0
        for n in range(count):
            seen += mz * math.sin(angle) / count
            mz = recover(mz * math.cos(angle), spacing if n < count - 1 else TR - TI - half)
        if abs(seen - before) < 1e-16:
            break
    scan = {"TI": TI, "TR": TR, "spokes_per_preparation": count, "spoke_TR": spacing, "flip_angle": angle}
    theta = {"S0": 1.0, "T1": T1, "R2star": 200.0, "kept": kept}
    found = equations.get("prepared_spokes").signal(theta, {**scan, "TE": 1e-3, "B1": 1.0})[0, 0]
    assert found == pytest.approx(seen * math.exp(-0.2), rel=1e-10, abs=1e-13)


@settings(max_examples=25, deadline=None)
@given(T1=st.floats(0.05, 2.0), TR=st.floats(0.05, 1.0), q=st.floats(0.5, 1.0), angle=st.floats(0.05, 0.8))
def test_long_t2_is_nulled_at_a_time_that_does_not_depend_on_the_flip_angle(
    T1: float, TR: float, q: float, angle: float
) -> None:
    TI = T1 * math.log((1 + q) / (1 + q * math.exp(-TR / T1)))
    scan = {"TI": TI, "TR": TR, "spokes_per_preparation": 1, "spoke_TR": 0.0, "flip_angle": angle, "TE": 0.0, "B1": 1.0}
    signal = equations.get("prepared_spokes").signal
    null = signal({"S0": 1.0, "T1": T1, "R2star": 0.0, "kept": -q}, scan)[0, 0]
    assert abs(null) < 1e-13
    if q == 1:
        x = TR / T1
        assert pytest.approx(0.5 - x / 8 + x**3 / 192, abs=x**5 / 2880) == TI / TR


@pytest.mark.parametrize("x", [0.05, 0.2, 0.5])
def test_with_a_short_tr_one_ti_nulls_every_long_t1(x: float) -> None:
    """TI/TR = 1/2 - x/8 + x^3/192 - ..., x = TR/T1: the next term is x^5/2880."""
    T1, TR = 1.0, x
    TI = (0.5 - x / 8 + x**3 / 192) * TR
    scan = {"TI": TI, "TR": TR, "spokes_per_preparation": 1, "spoke_TR": 0.0, "flip_angle": 0.3, "TE": 0.0, "B1": 1.0}
    null = equations.get("prepared_spokes").signal({"S0": 1.0, "T1": T1, "R2star": 0.0, "kept": -1.0}, scan)[0, 0]
    slope = (1 + math.exp(-x)) / (1 + math.exp(-x) * math.cos(0.3)) / T1  # of Mz where it crosses zero
    assert abs(null) <= math.sin(0.3) * slope * TR * x**5 / 2880 + 1e-15


def test_published_nulls_of_pore_water() -> None:
    """Null TIs in vitro (ms, SD) at six TRs: one T1 of .25 s and a full inversion meet them all within 1.5 SD."""
    nulls = {
        500: (141.3, 11.6),
        400: (123.4, 8.9),
        300: (101.3, 6.2),
        250: (88.9, 5.3),
        200: (74.8, 4.2),
        150: (59.2, 3.9),
    }
    theta = {"S0": 1.0, "T1": 0.25, "R2star": 0.0, "kept": -1.0}
    scan = {"spokes_per_preparation": 1, "spoke_TR": 0.0, "flip_angle": 0.3, "TE": 0.0, "B1": 1.0}
    for TR, (TI, sd) in nulls.items():
        early, late = (
            equations.get("prepared_spokes").signal(theta, {**scan, "TI": (TI + s * 1.5 * sd) / 1e3, "TR": TR / 1e3})[
                0, 0
            ]
            for s in (-1, 1)
        )
        assert early < 0 < late


# ---- closed forms against what is played -----------------------------------------------------------------------------

# What relaxation during a pulse of length tau leaves: f_z rises by a theta^2/3, a = tau/(2 T2), against 1 - cos theta =
# theta^2/2 and more, so that the signal rises by up to 2a/3, 1.1e-4 for .1 us and T2 of .3 ms. Of the decay the first
# order goes, as TE counts from the middle of the pulse.
LIMIT = 1.2e-4
T2_OF_BONE = st.floats(3e-4, 5e-3)


@settings(max_examples=12, deadline=None)
@given(T1=st.floats(0.1, 0.5), T2=T2_OF_BONE, angle=st.floats(1.0, 40.0), offset=st.floats(-500.0, 500.0))
def test_ute_with_short_pulses(T1: float, T2: float, angle: float, offset: float) -> None:
    scan = protocol("ute_3d", {**UTE, "flip_angle": angle * DEGREE}, pulses=INSTANT)
    one = pool(T1=T1, T2=T2)
    expected = closed(scan, one, off_resonance=offset)[0]
    np.testing.assert_allclose(played(scan, one, offset), expected, rtol=0, atol=LIMIT * abs(expected[0]))


@settings(max_examples=8, deadline=None)
@given(T1=st.floats(0.1, 0.5), T2=T2_OF_BONE, count=st.integers(1, 9))
def test_spokes_after_a_preparation_that_does_nothing(T1: float, T2: float, count: int) -> None:
    """A saturation of no flip angle: the composition of the closed form is the one of the timeline, spoke by spoke."""
    constants = {**PREPARED, "spokes_per_preparation": count, "power": 0.0}
    scan = protocol("ute_saturation", constants, pulses=INSTANT)
    one = pool(T1=T1, T2=T2)
    expected = closed(scan, one)[0]
    np.testing.assert_allclose(played(scan, one), expected, rtol=0, atol=LIMIT * abs(expected[0]))


@pytest.mark.parametrize("ratio", [0.02, 0.2, 0.5, 1.0, 3.0])
def test_long_pulses_depart_as_sussman_says(ratio: float) -> None:
    """Spoiled steady state with f_xy and f_z of a rectangular pulse, but for recovery during the pulse (tau/T1)."""
    T1, T2, angle, TR = 0.12, 0.35e-3, 60 * DEGREE, 0.02
    tau = ratio * T2
    scan = protocol("ute_3d", {"TR": TR, "flip_angle": angle}, echo=(2e-3,), pulses={"excitation": {"duration": tau}})
    across, along = preparation.short_excitation(angle, tau, T2)
    E1 = math.exp(-(TR - tau) / T1)  # between the pulses
    expected = across * (1 - E1) / (1 - along * E1) * math.exp(-(2e-3 - tau / 2) / T2)
    found = played(scan, pool(T1=T1, T2=T2))[0]
    # during the pulse Mz recovers by at most tau/T1 of what is missing, against 1 - E1 in the rest of TR
    assert found.real == pytest.approx(expected, rel=1.5 * tau / TR)
    ideal = closed(scan, pool(T1=T1, T2=T2))[0, 0].real
    # the equation of instantaneous pulses holds to 1 % for pulses up to a fiftieth of T2, and is off where they near it
    assert abs(found.real / ideal - 1) < 0.01 if ratio == 0.02 else abs(found.real / ideal - 1) > 0.15 * ratio


def test_sussmans_closed_form_is_the_exponential_on_resonance() -> None:
    for angle, duration, T2 in ((1.0, 1e-4, 1e-3), (0.5, 2e-3, 4e-4), (math.pi / 2, 8e-3, 0.35e-3)):
        _, along = preparation.short_excitation(angle, duration, T2)
        assert preparation.turned(angle, duration, T2)[0, 0] == pytest.approx(along, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("T2", [3e-4, 5e-4, 1e-3, 3e-3, 20e-3, 0.1])
@pytest.mark.parametrize("offset", [0.0, -430.0])
def test_what_an_adiabatic_inversion_keeps(T2: float, offset: float) -> None:
    """Within .03, also of fat's offset; bound water is saturated and long T2 inverted."""
    pulse = pulses.pulse("inversion", protocols.ute_stair, {"shape": "hard", "duration": 1e-3}, math.pi)
    block = Block(pulse)
    exact = bloch.propagator(block, Isochromats(np.inf, T2, offset), exact=True)[0, 2, 2]
    found = preparation.followed(pulse, T2, offset)[0, 0]
    assert found == pytest.approx(exact, abs=0.03)
    assert (found > -0.11) if T2 < 6e-4 else (found < -0.2)


def test_collagen_is_not_inverted() -> None:
    pulse = pulses.pulse("inversion", protocols.ute_stair, {"shape": "hard", "duration": 1e-3}, math.pi)
    exact = bloch.propagator(Block(pulse), Isochromats(np.inf, 15e-6), exact=True)[0, 2, 2]
    assert preparation.followed(pulse, 15e-6)[0, 0] == pytest.approx(exact, abs=0.01) and exact > 0.5


@pytest.mark.parametrize(
    ("power", "offset", "T2"), [(500, 2e3, 4e-4), (1500, 2e3, 3e-3), (1500, 5e3, 4e-4), (1000, 5e4, 4e-4)]
)
def test_what_an_mt_pulse_keeps_of_water(power: float, offset: float, T2: float) -> None:
    """The rate of saturation within 2 % of the Bloch equations; the Lorentzian rate w1^2 T2/(1 + D^2 T2^2) is not."""
    scan = protocols.ute_mt.replace(table={"offset": (offset,), "power": (power * DEGREE,)})
    pulse = saturation(scan, 0)
    exact = bloch.propagator(Block(pulse), Isochromats(np.inf, T2), exact=True)[0, 2, 2]
    found = preparation.followed(pulse, T2)[0, 0]
    assert math.log(found) == pytest.approx(math.log(exact), rel=0.02)


# What stands between the closed forms of prepared sequences and the pulses they play: .03 of Mz for inversions, times
# what of it is left at TI; recovery during the pulse, pulse length over T1 to the second order, as TI counts from its
# middle; 2 % of what an MT pulse saturates.
@pytest.mark.parametrize(("name", "constants", "tolerance"), [
    ("ute_inversion", PREPARED, 0.03),
    ("ute_inversion", {**PREPARED, "TR": 0.3, "TI": 0.08, "spokes_per_preparation": 1}, 0.03),
    ("ute_saturation", {**PREPARED, "TR": 0.05, "TI": 0.02}, 0.01),
    ("ute_mt", {**PREPARED, "power": 1000 * DEGREE, "offset": 2e3, "spokes_per_preparation": 9}, 0.01),
    ("ute_mt", {**PREPARED, "power": 1500 * DEGREE, "offset": -5e3}, 0.01),
])  # fmt: skip
@pytest.mark.parametrize("spins", [pool("bound_water", 0.12, 0.35e-3), pool(T1=0.3, T2=3e-3)], ids=["bound", "pore"])
def test_prepared_ute(name: str, constants: dict[str, float], tolerance: float, spins: Pool) -> None:
    scan = protocol(name, constants, pulses=INSTANT)
    found, expected = played(scan, spins), closed(scan, spins)[0]
    decay = np.exp(-scan["TE"] / spins.get("T2"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * math.sin(constants["flip_angle"]) * decay[0])


@pytest.mark.parametrize("name", ["ute_inversion", "ute_saturation", "ute_mt"])
@pytest.mark.parametrize("B1", [0.7, 1.3])
def test_prepared_ute_where_b1_is_wrong(name: str, B1: float) -> None:
    """At small angles and a long TR the spokes' signal goes with it; an MT or saturation pulse feels it too."""
    constants = {**PREPARED, "TR": 1.0, "TI": 0.3, "flip_angle": 5 * DEGREE, "power": 3.0, "offset": 4e3}
    scan, spins = protocol(name, constants, pulses=INSTANT), pool(T1=0.3, T2=3e-3)
    found, expected = played(scan, spins, B1=B1), closed(scan, spins, B1=B1)[0]
    scale = math.sin(5 * DEGREE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * scale)
    assert abs(expected[0]) > 0.15 * scale  # of which 30 % too much or too little would show
    other = protocol(name, {**constants, "B1": B1 / 0.9}, pulses=INSTANT)  # the protocol's own, too
    np.testing.assert_allclose(closed(other, spins, B1=0.9)[0], expected, rtol=1e-12)


def test_stair_shows_bound_water_and_nulls_pore_water() -> None:
    """At the published TR and TI; what of pore water is left is of the order of the spread of its T1."""
    scan = protocols.ute_stair
    bound = closed(scan, pool("bound_water", 0.112, 0.35e-3))[0, 0].real
    pore = [closed(scan, pool(T1=T1, T2=3e-3))[0, 0].real for T1 in (0.2, 0.25, 0.3)]
    assert bound > 0.08 and all(abs(p) < bound / 3 for p in pore) and pore[0] > pore[1] > pore[2]
    assert abs(played(scan, pool(T1=0.25, T2=3e-3))[0]) < bound / 3
    assert played(scan, pool("bound_water", 0.112, 0.35e-3))[0].real == pytest.approx(bound, rel=0.1)


@pytest.mark.parametrize("fraction", [0.0, 0.545])
def test_transfer_from_collagen_needs_exchange(fraction: float) -> None:
    """The rates of Ma 2018: with collagen the signal falls with power and towards resonance, and by far more than by
    direct saturation alone, which is all that is left without it, and all that the closed form has."""
    scan = protocols.ute_mt
    back = 11.5 * (1 - fraction) / fraction if fraction else 0.0
    if fraction:
        tissue = exchange.Pools(T1=[1 / 8.9, 1.0], T2=[4e-4, 15.4e-6], density=[1 - fraction, fraction],
                                rates=[[0, 11.5], [back, 0]], lineshape=["", "super_lorentzian"])  # fmt: skip
    else:
        tissue = exchange.Pools(T1=1 / 8.9, T2=4e-4, density=1.0, rates=[[0.0]])
    signal = np.array([
        exchange.steady_state(part.timeline, tissue).signal[0, list(part.samples)].mean()
        for part in sequences.get(scan.sequence).played(scan)
    ]).real.reshape(3, 5)  # fmt: skip
    assert (np.diff(signal, axis=1) > 0).all() and (np.diff(signal, axis=0) < 0).all()
    alone = closed(scan, pool("bound_water", 1 / 8.9, 4e-4))[0].real.reshape(3, 5)
    if fraction:
        assert np.all((signal / signal[0, -1] < alone / alone[0, -1] - 0.05)[1:, 2])  # 10 kHz: collagen is saturated
    else:
        np.testing.assert_allclose(signal, alone, rtol=0.02)


# ---- half pulses -----------------------------------------------------------------------------------------------------

SLICED = {**UTE, "slice_thickness": 5e-3}


def test_a_pair_of_half_pulses_excites_the_slice_of_the_whole_pulse() -> None:
    """Stretched under the falling gradient, each half keeps its spectrum; both add to the whole, place by place."""
    scan = protocol("ute_2d", {"TR": 5.0, "flip_angle": 0.01, "slice_thickness": 5e-3}, echo=(20e-6,))
    (part,) = sequences.get("ute_2d").played(scan)
    z = np.linspace(-0.015, 0.015, 31)
    place = np.stack([0 * z, 0 * z, z], axis=1)
    halves = bloch.steady_state(part.timeline, Isochromats(0.2, np.inf, position=place), exact=True).signal
    pulse, gradient = half_pulse(scan)
    plain = pulses.half_sinc(0.01, 600e-6)
    whole = pulses.sampled(np.concatenate([plain.waveform, plain.waveform[::-1]]), plain.dwell)
    frequency = PROTON * gradient.values.max() * z
    # .01 rad: its third order; the gradient of the fall is taken as steady during each microsecond
    np.testing.assert_allclose(halves.mean(axis=1), pulses.profile(whole, frequency) / 2, atol=2e-6)
    assert np.abs(halves[:, 0].imag).max() > 2e-3 and np.abs(halves.mean(axis=1).imag).max() < 2e-6
    assert pulse.flip_angle == pytest.approx(0.01, rel=1e-12) and pulse.end == pytest.approx(gradient.end)
    half = np.abs(pulses.profile(whole, PROTON * gradient.values.max() * np.array([0.0, 2.5e-3])))
    assert half[1] / half[0] == pytest.approx(0.5, abs=2e-3), "the slice has its thickness"


def test_the_signal_of_a_slice_is_that_of_its_thickness() -> None:
    """Of small angles: the spectrum's integral is the pulse's peak, its height the area, its width the slice."""
    scan = protocol("ute_2d", {"TR": 5.0, "flip_angle": 0.01, "slice_thickness": 5e-3}, echo=(20e-6,))
    plain = pulses.half_sinc(0.01, 600e-6)
    whole = pulses.sampled(np.concatenate([plain.waveform, plain.waveform[::-1]]), plain.dwell)
    peak, area = np.abs(whole.waveform).max(), np.abs(whole.waveform.sum()) * whole.dwell
    found, expected = played(scan, pool(T1=0.2, T2=10.0))[0], closed(scan, pool(T1=0.2, T2=10.0))[0, 0]
    assert abs(found / expected - peak / (area * pulses.bandwidth(whole))) < 2e-3  # what lies beyond 8 thicknesses
    assert abs(found / expected - 1) < 0.05


# ---- spoiling --------------------------------------------------------------------------------------------------------


def test_rf_spoiling_comes_to_ernst_and_gradients_alone_do_not() -> None:
    """At 117 degrees within 2 % for T2 of five TR (Zur et al. 1991); without RF spoiling it is an SSFP-FID."""
    long = pool(T1=0.3, T2=0.1)
    scan = protocol("ute_3d", {**UTE, "spoiler": 2e-5}, pulses=INSTANT)
    ideal = closed(scan, long)[0, 0]
    assert abs(played(scan, long)[0] / ideal - 1) > 0.1
    spoiled = protocol(
        "ute_3d", {**UTE, "spoiler": 2e-5, "rf_spoiling": 117 * DEGREE, "repetitions": 150}, pulses=INSTANT
    )
    assert abs(played(spoiled, long)[0]) / abs(ideal) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["ute_inversion", "ute_2d"])
def test_other_sequences_spoil_with_gradients_too(name: str) -> None:
    """Of T2 far below TR nothing is left to spoil: the same signal, in a train from equilibrium or its steady state."""
    constants = PREPARED if name == "ute_inversion" else SLICED
    spins = pool(T1=0.05, T2=0.5e-3)
    ideal = played(protocol(name, constants), spins)
    gradient = played(protocol(name, {**constants, "spoiler": 2e-5}), spins)
    both = protocol(
        name, {**constants, "spoiler": 2e-5, "rf_spoiling": 117 * DEGREE, "repetitions": 30 if name == "ute_2d" else 4}
    )
    np.testing.assert_allclose(gradient, ideal, rtol=2e-3)
    np.testing.assert_allclose(played(both, spins), ideal, rtol=2e-3)


# ---- echo times, chemical shift, what is seen ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_played_from_the_stated_point(name: str) -> None:
    """Every sample lies TE after the reference of an excitation; every point is sampled; a period lasts TR."""
    scan = protocols.get(name)
    sequence = sequences.get(scan.sequence)
    runs = sequence.played(scan)
    assert sorted({p for part in runs for p in part.points}) == list(range(scan.points))
    TE = np.broadcast_to(scan["TE"], scan.points)
    for part in runs:
        times = part.timeline.sample_times()
        references = np.array([start + e.reference for block, start, _ in part.timeline.played()
                               for e in block.rf if e.use == "excitation"])  # fmt: skip
        for point, sample in zip(part.points, part.samples, strict=True):
            after = times[sample] - references[references < times[sample]].max()
            assert after == pytest.approx(TE[point], abs=1e-9)
        periods = 2 if name == "ute_2d" else 1
        assert part.timeline.duration == pytest.approx(periods * scan["TR"], rel=1e-12)
        assert part.timeline.nucleus == ("31P" if name == "zte_31p" else "1H")
    k = sequence.readout(scan).k
    assert np.isfinite(k).all() and sequence.magnitude is False
    assert sequence.reference(scan).points == 1
    assert sequence.reference(scan).table[scan.encoding][0] == scan.table[scan.encoding][0]


def test_ti_counts_to_the_middle_of_the_spokes() -> None:
    scan = protocols.ute_stair
    (part,) = sequences.get(scan.sequence).played(scan)
    played_pulses = [(start + e.reference, e.use) for block, start, _ in part.timeline.played() for e in block.rf]
    inversion = [t for t, use in played_pulses if use == "inversion"]
    spokes = [t for t, use in played_pulses if use == "excitation"]
    assert len(inversion) == 1 and len(spokes) == 5
    assert np.mean(spokes) - inversion[0] == pytest.approx(scan["TI"], abs=1e-9)
    np.testing.assert_allclose(np.diff(spokes), scan["spoke_TR"])


def test_fat_turns_below_water_and_each_line_for_itself() -> None:
    spectrum = tissues.spectrum("fat_marrow")
    scan = protocol("ute_3d", echo=(0.0, 0.5e-3, 1e-3, 2.3e-3))
    marrow = pool("fat", 0.36, 8e-3, spectrum.shift, spectrum.area, R2_prime=50.0)
    got = closed(scan, marrow)[0]
    frequency = (spectrum.shift - tissues.water_shift()) * 1e-6 * PROTON * 3.0
    assert frequency[1] < -400  # methylene, 3.35 ppm below water
    TE = scan["TE"]
    expected = sum(a * np.exp(2j * np.pi * f * TE) for a, f in zip(spectrum.area, frequency, strict=True))
    np.testing.assert_allclose(got / got[0], expected * np.exp(-TE * (1 / 8e-3 + 50)), rtol=1e-12)
    shifted = closed(protocol("ute_3d", {**UTE, "reference": 1.3}, echo=(0.0, 1e-3)), pool(shift=4.3))[0]
    assert np.angle(shifted[1]) == pytest.approx(math.remainder(2 * math.pi * 3e-6 * PROTON * 3.0 * 1e-3, 2 * math.pi))


def test_fat_suppression_takes_its_lines() -> None:
    lines = pool("fat", 0.36, 8e-3, [1.3, 5.3], [0.9, 0.1])
    some = {"method": "SPIR", "bands": ((0.0, 3.0, 0.8),)}
    plain, less = (
        closed(protocol("ute_3d", echo=(0.0,), fat_suppression=s), lines)[0, 0] for s in ({"method": "none"}, some)
    )
    assert less / plain == pytest.approx(0.9 * 0.2 + 0.1)


@pytest.mark.parametrize("name", ["ute_3d", "ute_2d", "ute_inversion", "ute_mt", "zte", "zte_31p"])
def test_who_is_seen(name: str) -> None:
    constants = {**PREPARED, "power": 10.0, "offset": 1e4}
    scan = protocol(name, constants)
    kinds = (
        "bound_water",
        "pore_water",
        "marrow_water",
        "fat",
        "blood",
        "solution",
        "macromolecule",
        "mineral",
        "phosphorus",
    )
    seen = {k for k in kinds if np.abs(closed(scan, pool(k, shift=[4.6], T1=0.3))).max() > 0}
    assert seen == ({"mineral", "phosphorus"} if name == "zte_31p" else set(kinds[:6]))


def test_phosphorus_stands_on_its_own_scale() -> None:
    scan = protocol("zte_31p", echo=(20e-6, 120e-6))
    signal = closed(scan, pool("mineral", 38.0, 2e-4, shift=[0.0]))[0]
    assert signal[1] / signal[0] == pytest.approx(math.exp(-0.5), rel=1e-12)
    moved = closed(scan, pool("phosphorus", 5.0, 1.0, shift=[10.0]))[0]
    assert np.angle(moved[1] / moved[0]) == pytest.approx(2 * math.pi * 1e-5 * GYROMAGNETIC["31P"] * 3.0 * 1e-4)
    assert played(scan, pool("mineral", 38.0, 2e-4))[0].real == pytest.approx(signal[0].real, rel=0.03)


# ---- fields of the scanner -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ute_3d", "ute_inversion", "ute_saturation", "ute_mt", "zte"])
def test_maps_of_the_fields_are_voxel_by_voxel(name: str) -> None:
    constants = {**PREPARED, "power": 10.0, "offset": 1e4, "B1": 0.9}
    scan = protocol(name, constants)
    offset, B1 = np.array([[-30.0], [0.0], [55.0]]), np.array([[0.8], [1.0], [1.2 * np.exp(0.4j)]])
    spins = pool("fat", 0.3, 8e-3, [1.3, 5.3], [0.9, 0.1])
    whole = closed(scan, spins, off_resonance=offset, B1=B1)
    assert whole.shape == (3, 2)
    for row in range(3):
        alone = closed(scan, spins, off_resonance=offset[row, 0], B1=B1[row, 0])[0]
        np.testing.assert_allclose(whole[row], alone, rtol=1e-12)
    several = pool("pore_water", 0.3, np.array([1e-3, 2e-3, 3e-3]))
    many = closed(scan, several, off_resonance=offset, B1=np.abs(B1))
    np.testing.assert_allclose(many[2], closed(scan, pool(T1=0.3, T2=3e-3), off_resonance=55.0, B1=1.2)[0], rtol=1e-12)


def test_b1_and_offset_act_as_in_the_engine() -> None:
    scan = protocol("ute_3d", pulses=INSTANT)
    spins = pool(T1=0.2, T2=2e-3)
    B1 = 1.3 * np.exp(0.5j)
    expected = closed(scan, spins, off_resonance=120.0, B1=B1)[0]
    np.testing.assert_allclose(played(scan, spins, 120.0, B1), expected, atol=LIMIT * abs(expected[0]))


# ---- zero echo time --------------------------------------------------------------------------------------------------

READOUT = {"matrix": 32, "fov": 0.16, "dwell": 1e-5, "spokes": 50}


def test_the_gradient_of_zte_is_on_while_it_excites() -> None:
    """Far from the centre the pulse is off resonance; of the spin's own phase only its profile and k are left."""
    wide = {"excitation": {"duration": 20e-6}}
    scan = protocol("zte", {"TR": 5.0, "flip_angle": 0.01}, echo=(30e-6,), readout=READOUT, pulses=wide)
    (part,) = sequences.get("zte").played(scan)
    top = sequences.get("zte").readout(scan).peak_gradient
    x = np.linspace(-0.08, 0.08, 9)
    spins = Isochromats(0.3, 10.0, position=np.stack([x, 0 * x, 0 * x], axis=1))
    signal = bloch.steady_state(part.timeline, spins, exact=True).signal[:, 0]
    weight = excited(scan, x, top)
    assert weight.min() < 0.98 and weight[4] == pytest.approx(1.0)
    np.testing.assert_allclose(signal / signal[4], weight * np.exp(2j * np.pi * PROTON * top * x * 30e-6), atol=2e-4)


def test_the_gap_of_zte_is_not_read() -> None:
    scan = protocol("zte_31p", readout=READOUT, pulses={"excitation": {"duration": 12e-6}})
    read = sequences.get("zte_31p").readout(scan)
    assert read.nucleus == "31P"
    gap = 6e-6 + DEAD_TIME
    first = np.sqrt((read.k[:, 0] ** 2).sum(axis=1))
    np.testing.assert_allclose(first, GYROMAGNETIC["31P"] * read.peak_gradient * (gap + 5e-6), rtol=1e-9)
    np.testing.assert_allclose(read.times[0], gap + 5e-6)


# ---- a scan ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shin() -> phantoms.Phantom:
    return phantoms.cortical(resolution=3e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_scans_cortical_bone(name: str, shin: phantoms.Phantom) -> None:
    scan = simulator.scan(shin, name)
    assert np.iscomplexobj(scan.values) and np.isfinite(scan.values).all()
    assert np.abs(scan.values).max() > 0 and scan.attrs["signal_reference"] > 0
    noisy = simulator.scan(shin, name, snr=20, seed=1)
    assert noisy.attrs["snr_definition"].endswith("the first point")
    first = np.abs(scan.values[..., 0])
    reference = np.median(first[first >= 0.01 * first.max()])
    assert noisy.attrs["noise_sd"] == pytest.approx(reference / 20, rel=1e-12)


@pytest.mark.parametrize("name", ["ute_dual_echo", "ute_cones", "ute_stair", "ute_saturation", "zte_31p"])
def test_bone_by_the_closed_forms_and_by_the_engine(name: str, shin: phantoms.Phantom) -> None:
    """All pools with their lines: pulses of 40 us and adiabatic ones move the signal by 2 % of its largest at most."""
    closed_form, engine = (simulator.scan(shin, name, rung=rung).values for rung in ("pools", "engine"))
    assert np.abs(engine - closed_form).max() < 0.02 * np.abs(closed_form).max()
    assert not np.array_equal(engine, closed_form)


# ---- bad input -------------------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    (
        "ute_3d",
        UTE,
        {"echo": (1e-5,)},
        "TE is 1e-05 s: expected at least 2.05e-05 s, when pulses.excitation of 4e-05 s",
    ),
    (
        "ute_3d",
        {**UTE, "TR": 2.4e-3},
        {"pulses": {"excitation": {"duration": 1e-3}}, "echo": (2e-3,)},
        "spoke lasts 0.0025005 s: expected room for it and its spoiler in 0.0024 s",
    ),
    (
        "ute_3d",
        {**UTE, "TR": 2.5e-3, "spoiler": 1e-4},
        {"pulses": {"excitation": {"duration": 1.2e-3}}, "echo": (2e-3,)},
        "spoke lasts 0.0026005 s: expected room for it and its spoiler in 0.0025 s",
    ),
    ("ute_3d", {"TR": 0.02}, {}, "flip_angle is missing: sequence ute_3d needs it"),
    ("ute_2d", UTE, {}, "slice_thickness is missing"),
    ("ute_inversion", {**PREPARED, "TI": 0.01}, {}, "TI is 0.01 s: expected at least 0.01234 s"),
    ("ute_inversion", {**PREPARED, "TR": 0.07}, {}, "TR is 0.07 s: expected at least 0.0763"),
    (
        "ute_inversion",
        {**PREPARED, "spokes_per_preparation": 2.5},
        {},
        "spokes_per_preparation is 2.5: expected a whole number",
    ),
    ("ute_inversion", {k: v for k, v in PREPARED.items() if k != "TI"}, {}, "TI is missing"),
    ("ute_mt", {**PREPARED, "offset": 2e3}, {}, "power is missing"),
    (
        "ute_3d",
        UTE,
        {"pulses": {"excitation": {"length": 1.0}}},
        "pulses.excitation.length is 1.0: not a setting of a hard",
    ),
]


@pytest.mark.parametrize(("name", "constants", "fields", "message"), IMPOSSIBLE, ids=[m for *_, m in IMPOSSIBLE])
def test_what_cannot_be_played_is_told_in_one_line(name: str, constants: dict, fields: dict, message: str) -> None:
    scan = protocol(name, constants, **fields)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sequences.get(name).played(scan)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("protocol mine: ")


NO_CLOSED_FORM = [
    (
        "ute_inversion",
        PREPARED,
        {"inversion": {"shape": "bir4", "duration": 8e-3}},
        "pulses.inversion.shape is 'bir4': expected hyperbolic_secant, which has a closed form, or rung engine",
    ),
    ("ute_saturation", PREPARED, {"saturation": {"shape": "sinc"}}, "pulses.saturation.shape is 'sinc': expected hard"),
    (
        "ute_mt",
        {**PREPARED, "offset": 100.0, "power": 10.0},
        {},
        "offset is 100 Hz, 100 Hz from pool pore_water: expected",
    ),
]


@pytest.mark.parametrize(
    ("name", "constants", "shapes", "message"), NO_CLOSED_FORM, ids=[m for *_, m in NO_CLOSED_FORM]
)
def test_without_a_closed_form_the_engine_is_named(name: str, constants: dict, shapes: dict, message: str) -> None:
    scan = protocol(name, constants, pulses=shapes)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        closed(scan, pool())
    assert "rung engine" in str(caught.value)
    assert np.isfinite(played(scan, pool())).all()  # which does play it


@pytest.mark.parametrize(("switches", "message"), [
    ({"R2_prime": 1}, "R2_prime is 1: expected True or False"),
    ({"off_resonance": math.nan}, "off_resonance is nan: expected a number (Hz)"),
    ({"B1": 0.0}, "B1 is 0.0: expected a number above 0"),
    ({"efficiency": 1.5}, "efficiency is 1.5: expected 0 to 1"),
])  # fmt: skip
def test_switches_that_mean_nothing_are_told(switches: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        sequences.get("ute_inversion").check(**switches)


def test_switches_do_what_they_say() -> None:
    scan = protocol("ute_inversion", PREPARED)
    spins = pool(T1=0.3, T2=3e-3, R2_prime=200.0)
    plain, without = closed(scan, spins)[0], closed(scan, spins, R2_prime=False)[0]
    np.testing.assert_allclose(plain / without, np.exp(-200 * scan["TE"]))
    not_at_all = closed(scan, spins, efficiency=0.0)[0]
    spokes = closed(protocol("ute_saturation", {**PREPARED, "power": 0.0}), spins)[0]
    # nothing is inverted: as after a saturation of no angle, but for what T2 never took
    np.testing.assert_allclose(not_at_all, spokes, rtol=1e-12)
    partial = closed(scan, spins, efficiency=0.9)[0, 0]
    assert plain[0].real < partial.real < not_at_all[0].real


def test_a_readout_of_another_kind_is_refused() -> None:
    scan = protocol("ute_2d", SLICED, readout={**READOUT, "trajectory": "radial_3d"})
    with pytest.raises(InputError, match="trajectory is 'radial_3d': sequence ute_2d expects radial_2d"):
        sequences.get("ute_2d").readout(scan)
