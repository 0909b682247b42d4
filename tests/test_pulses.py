"""RF pulses: flip angles, spectra, power and adiabatic passages against closed forms and rotations."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import erf, sici

from bonemri.errors import InputError
from bonemri.simulator.acquisition import Protocol
from bonemri.simulator.acquisition.events import adiabatic, pulses
from bonemri.simulator.acquisition.events.timeline import RF, Block, Timeline
from bonemri.simulator.engines import bloch
from bonemri.simulator.engines.isochromats import Isochromats

TURN = 2 * math.pi
ROUNDING = 1e-12  # thousands of samples, each rotated to some 1e-16


def after(pulse: RF, offset: float = 0.0, B1: float = 1.0) -> np.ndarray:
    """Magnetisation after the pulse, by a rotation matrix for each sample: a witness that shares no code."""
    wave = TURN * pulse.waveform * B1 * np.exp(1j * pulse.phase)
    field = np.stack([wave.real, wave.imag, np.full(wave.size, TURN * (offset - pulse.frequency))], axis=1)
    m = np.array([0.0, 0.0, 1.0])
    for turn in Rotation.from_rotvec(field * pulse.dwell).as_matrix():
        m = turn @ m
    turned = (m[0] + 1j * m[1]) * np.exp(1j * TURN * pulse.frequency * pulse.duration)
    return np.array([turned.real, turned.imag, m[2]])


ANGLED = {
    "hard": lambda angle, **k: pulses.hard(angle, 60e-6, **k),
    "sinc": lambda angle, **k: pulses.sinc(angle, 1e-3, **k),
    "half_sinc": lambda angle, **k: pulses.half_sinc(angle, 300e-6, **k),
    "gaussian": lambda angle, **k: pulses.gaussian(angle, 1e-3, **k),
    "fermi": lambda angle, **k: pulses.fermi(angle, 1e-3, **k),
    "sampled": lambda angle, **k: pulses.sampled([0.2, 1.0, -0.1, 0.7], 20e-6, flip_angle=angle, **k),
}


@pytest.mark.parametrize("name", ANGLED)
@settings(max_examples=8, deadline=None)
@given(angle=st.floats(0.01, 3.1), phase=st.floats(-3.0, 3.0))
def test_a_flip_angle_is_what_turns_the_magnetisation(name: str, angle: float, phase: float) -> None:
    pulse = ANGLED[name](angle, phase=phase)
    assert pulse.flip_angle == pytest.approx(angle, rel=1e-12)
    # phase pi/2 brings Mz to +x: phase p to the direction p - pi/2
    towards = math.sin(angle) * np.array([math.sin(phase), -math.cos(phase)])
    np.testing.assert_allclose(after(pulse), [*towards, math.cos(angle)], atol=ROUNDING)


def test_samples_lie_in_the_middle_of_their_dwell_and_divide_the_duration() -> None:
    pulse = pulses.sinc(1.0, 1.0e-3, apodisation=0.0, dwell=9e-6)  # the nearest raster that divides it
    assert pulse.waveform.size == 111 and pulse.duration == pytest.approx(1e-3, rel=1e-14)
    shape = pulse.waveform.real / pulse.waveform.real.max()
    np.testing.assert_allclose(shape, np.sinc(4 * ((np.arange(111) + 0.5) / 111 - 0.5)), atol=1e-14)
    assert pulses.hard(1.0, 60e-6).dwell == pytest.approx(1e-6) and pulses.fermi(1.0, 8e-3).dwell == pytest.approx(4e-6)


# ---- spectra of small flip angles ------------------------------------------------------------------------------------


def test_spectrum_of_a_hard_pulse_is_a_sinc() -> None:
    pulse, f = pulses.hard(0.01, 60e-6), np.linspace(-60e3, 60e3, 41)
    np.testing.assert_allclose(pulses.profile(pulse, f), 0.01 * np.sinc(60e-6 * f), atol=1e-14)


def test_spectrum_of_a_gaussian_pulse_is_a_gaussian() -> None:
    """exp(-t^2/2 s^2) to exp(-(2 pi f s)^2/2): cut at 6.7 s leaves 2e-11; holding a sample 1 us (pi f 1 us)^2/6."""
    pulse = pulses.gaussian(0.01, 1e-3, time_bandwidth=5.0, dwell=1e-6)
    s = math.sqrt(2 * math.log(2)) / (math.pi * 5e3)
    f = np.linspace(-9e3, 9e3, 37)
    np.testing.assert_allclose(pulses.profile(pulse, f), 0.01 * np.exp(-((TURN * f * s) ** 2) / 2), atol=1e-7)
    assert pulses.bandwidth(pulse) == pytest.approx(5e3, rel=1e-4)


def test_spectrum_of_a_sinc_pulse_is_that_of_sine_integrals() -> None:
    """The transform of sinc(B t) cut at T is [Si(pi T (f + B/2)) - Si(pi T (f - B/2))]/(pi B)."""
    T, lobes = 2e-3, 6.0
    pulse = pulses.sinc(0.01, T, time_bandwidth=lobes, apodisation=0.0, dwell=1e-6)
    f, B = np.linspace(-6e3, 6e3, 61), lobes / T

    def transform(frequency: np.ndarray) -> np.ndarray:
        return (sici(math.pi * T * (frequency + B / 2))[0] - sici(math.pi * T * (frequency - B / 2))[0]) / (math.pi * B)

    # a sample that is held takes (pi f 1 us)^2/6 = 6e-5 at most from .01
    np.testing.assert_allclose(pulses.profile(pulse, f), 0.01 * transform(f) / transform(np.zeros(1)), atol=6e-7)
    assert pulses.bandwidth(pulse) == pytest.approx(B, rel=0.02)  # its edges ripple


@settings(max_examples=10, deadline=None)
@given(offset=st.floats(-4e3, 4e3), frequency=st.floats(-3e3, 3e3), name=st.sampled_from(sorted(ANGLED)))
def test_the_spectrum_is_what_small_angles_excite(offset: float, frequency: float, name: str) -> None:
    """The Bloch equations at .01 rad depart by the third order, .01^3/3; the phase is counted from the center."""
    pulse = replace(ANGLED[name](0.01), frequency=frequency)
    x, y, _ = after(pulse, offset)
    back = np.exp(-1j * TURN * offset * (pulse.duration - pulse.reference))
    assert abs((x + 1j * y) * back - pulses.profile(pulse, offset)) < 1e-6


def test_two_halves_make_a_whole() -> None:
    """A half pulse and its mirror image (opposite gradient) add to the spectrum of the whole pulse."""
    half, f = pulses.half_sinc(0.02, 300e-6), np.linspace(-20e3, 20e3, 81)
    whole = pulses.sinc(0.04, 600e-6)  # twice the area
    up, down = pulses.profile(half, f), pulses.profile(half, -f)
    np.testing.assert_allclose(up + down, pulses.profile(whole, f), atol=1e-14)
    assert np.abs(up.imag).max() > 0.005, "the tails of one half alone"


@pytest.mark.parametrize(("pulse", "point"), [
    (pulses.hard(1, 60e-6), 30e-6), (pulses.sinc(1, 1e-3), 5e-4), (pulses.half_sinc(1, 3e-4), 3e-4),
    (pulses.gaussian(1, 1e-3), 5e-4), (pulses.fermi(1, 8e-3), 4e-3), (adiabatic.hyperbolic_secant(8e-3), 4e-3),
    (adiabatic.half_passage(4e-3), 4e-3), (adiabatic.bir4(1, 4e-3), 2e-3),
    (pulses.sampled([1, 2], 1e-5, center=3e-6), 3e-6),
])  # fmt: skip
def test_an_echo_time_counts_from_the_stated_point(pulse: RF, point: float) -> None:
    assert pulse.reference == pytest.approx(point, rel=1e-12)


@pytest.mark.parametrize("name", ["hard", "sinc", "half_sinc", "gaussian", "fermi"])
def test_spins_of_all_offsets_are_in_phase_at_that_point(name: str) -> None:
    """Traced back from the pulse's end by their own frequency, they point along x there: but half a pulse's tails."""
    pulse = ANGLED[name](0.01)
    f = np.linspace(-200.0, 200.0, 9)
    signal = np.array([after(pulse, v)[:2] @ [1, 1j] for v in f])
    at_center = signal * np.exp(-1j * TURN * f * (pulse.duration - pulse.reference))
    # a half pulse has its weight before its end: the phase there has a slope, which the other half takes away
    phase = np.angle(at_center + at_center[::-1]) if name == "half_sinc" else np.angle(at_center)
    np.testing.assert_allclose(phase, 0.0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 60])
def test_bandwidth_of_a_hard_pulse_does_not_depend_on_its_raster(samples: int) -> None:
    """sinc(x) = 1/2 at x = .60335; interpolated between points 1/32 of the width apart, some 1e-3."""
    pulse = pulses.hard(0.1, 60e-6, dwell=60e-6 / samples)
    assert pulses.bandwidth(pulse) == pytest.approx(2 * 0.60335 / 60e-6, rel=1e-3)


def test_a_fermi_pulse_is_cut_at_a_thousandth() -> None:
    shape = pulses.fermi(1.0, 8e-3, dwell=1e-6).waveform.real
    assert shape[0] / shape.max() == pytest.approx(1e-3, rel=0.01)  # half a microsecond inside of the end
    a = 8e-3 / (20 + 2 * math.log(999))
    half = np.flatnonzero(shape > shape.max() / 2)
    assert (half[-1] - half[0]) * 1e-6 == pytest.approx(20 * a, abs=2e-6)


# ---- power -----------------------------------------------------------------------------------------------------------


def test_power_of_a_hard_pulse() -> None:
    pulse = pulses.hard(1.2, 60e-6)
    assert pulses.power(pulse) == pytest.approx(1.2**2 / 60e-6, rel=1e-12)
    assert pulses.rms(pulse) == pytest.approx(1.2 / 60e-6 / TURN, rel=1e-12)


def test_power_of_a_gaussian_pulse() -> None:
    T, angle = 1e-3, 2.0
    s = T * math.sqrt(2 * math.log(2)) / (math.pi * 2.0)
    peak = angle / (s * math.sqrt(TURN) * erf(T / (2 * math.sqrt(2) * s)))
    expected = peak**2 * s * math.sqrt(math.pi) * erf(T / (2 * s))
    # midpoint rule, a thousand samples: (1/1000)^2/24 times the slope at the ends
    assert pulses.power(pulses.gaussian(angle, T)) == pytest.approx(expected, rel=1e-6)


def test_power_of_a_fermi_pulse() -> None:
    """Half of it, from 0 to T/2: a ln[(1 + e^n)/(1 + e^(n - T/2a))] the area, that less a/(1 + ...) the square."""
    T, n, angle = 8e-3, 10.0, math.radians(1500)
    a = T / (2 * n + pulses.SIXTY_DECIBEL)

    def primitive(t: float) -> tuple[float, float]:
        u = t / a - n
        area = -a * math.log1p(math.exp(-u))
        return area, area + a / (1 + math.exp(u))

    (area0, square0), (area1, square1) = primitive(0.0), primitive(T / 2)
    expected = angle**2 * (square1 - square0) / (2 * (area1 - area0) ** 2)
    assert pulses.power(pulses.fermi(angle, T)) == pytest.approx(expected, rel=1e-6)  # midpoint rule, 2000 samples


def test_power_of_a_hyperbolic_secant_and_what_it_saturates() -> None:
    pulse = adiabatic.hyperbolic_secant(8e-3, peak=500.0, beta=1500.0)
    expected = (TURN * 500) ** 2 * 2 / 1500 * math.tanh(1500 * 4e-3)
    assert pulses.power(pulse) == pytest.approx(expected, rel=1e-5)
    assert pulses.saturation_rate(pulse, 1e-5) == pytest.approx(math.pi * expected / 8e-3 * 1e-5, rel=1e-5)
    both = pulses.saturation_rate(pulse, [1e-5, 2e-5], period=0.1)
    np.testing.assert_allclose(both, math.pi * expected / 0.1 * np.array([1e-5, 2e-5]), rtol=1e-5)


# ---- adiabatic and composite pulses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [150.0, 400.0, 1200.0])
def test_hyperbolic_secant_against_the_closed_form(peak: float) -> None:
    """Silver and Hoult's solution at every offset and peak, adiabatic or not; cut where sech is 4e-5."""
    beta, mu, T = 2000.0, 2.5, 10.8e-3
    pulse = adiabatic.hyperbolic_secant(T, peak=peak, mu=mu, beta=beta, dwell=2e-6)
    offset = np.linspace(-2500, 2500, 21)
    plus, minus = (math.pi * (TURN * offset / (2 * beta) + sign * mu / 2) for sign in (1, -1))
    root = np.sqrt((TURN * peak / beta) ** 2 - mu**2 + 0j)
    expected = np.tanh(plus) * np.tanh(minus) + np.cos(math.pi * root).real / (np.cosh(plus) * np.cosh(minus))
    spins = Isochromats(T1=np.inf, T2=np.inf, offset=offset)
    found = bloch.simulate(Timeline((Block(pulse),)), spins, exact=True).magnetisation[:, 2]
    # the cut leaves out a turn by up to 2 pi peak sech(10.8)/(mu beta) at either end; holding a sample 2 us
    # weakens B1 by (pi 800 Hz 2 us)^2/6 = 4e-6, here times a nutation of up to 6 turns
    np.testing.assert_allclose(found, expected, atol=2 * TURN * peak / math.cosh(beta * T / 2) / (mu * beta) + 3e-5)


def test_local_witness_and_engine_agree_on_a_swept_pulse() -> None:
    pulse = adiabatic.hyperbolic_secant(4e-3, peak=700.0, mu=3.0, dwell=10e-6)
    found = bloch.simulate(Timeline((Block(pulse),)), Isochromats(T1=np.inf, T2=np.inf, offset=300.0), exact=True)
    np.testing.assert_allclose(found.magnetisation[0], after(pulse, 300.0), atol=ROUNDING)


@pytest.mark.parametrize("B1", [0.7, 1.0, 1.6])
def test_an_inversion_that_does_not_mind_b1(B1: float) -> None:
    assert after(adiabatic.hyperbolic_secant(8e-3, peak=1500.0, dwell=10e-6), B1=B1)[2] < -0.985
    hard = after(pulses.hard(math.pi, 200e-6), B1=B1)[2]
    assert hard == pytest.approx(math.cos(math.pi * B1), abs=ROUNDING)


@pytest.mark.parametrize("B1", [0.7, 1.0, 1.5])
def test_a_half_passage_excites_at_any_b1(B1: float) -> None:
    """To a few per cent: tanh(10) and tan(kappa) end the sweep sharply, and 4 ms are not endless."""
    x, y, z = after(adiabatic.half_passage(4e-3, peak=1000.0), B1=B1)
    assert x > 0.99 and abs(y) < 0.1 and abs(z) < 0.08


@pytest.mark.parametrize("angle", [math.pi / 4, math.pi / 2, math.pi])
@pytest.mark.parametrize("B1", [0.8, 1.0, 1.4])
def test_bir4_turns_by_its_angle_at_any_b1(angle: float, B1: float) -> None:
    pulse = adiabatic.bir4(angle, 8e-3, peak=3000.0, sweep=15e3, dwell=2e-6)
    m = after(pulse, B1=B1)
    np.testing.assert_allclose(m, [math.sin(angle), 0.0, math.cos(angle)], atol=0.06)
    x, y, z = after(RF(pulse.waveform, pulse.dwell, phase=0.0), B1=B1)  # phase 0: towards -y
    np.testing.assert_allclose([x, y, z], [0.0, -math.sin(angle), math.cos(angle)], atol=0.06)


def test_a_composite_pulse_mends_a_wrong_b1() -> None:
    """90x 180y 90x leaves Mz of order of the error to the fourth, where 180 leaves the second (Levitt and Freeman)."""
    pulse = pulses.composite([math.pi / 2, math.pi, math.pi / 2], [0, math.pi / 2, 0], 400e-6)
    assert np.ptp(np.abs(pulse.waveform)) < 1e-9 * np.abs(pulse.waveform).max()
    np.testing.assert_allclose(after(pulse)[2], -1.0, atol=ROUNDING)
    for B1 in (0.8, 0.9, 1.1, 1.2):
        error = math.pi / 2 * (B1 - 1)
        assert after(pulse, B1=B1)[2] == pytest.approx(-1 + 2 * math.sin(error) ** 4, abs=ROUNDING)
        assert after(pulses.hard(math.pi, 1e-4), B1=B1)[2] == pytest.approx(-1 + 2 * math.sin(error) ** 2, abs=ROUNDING)


# ---- bad input -------------------------------------------------------------------------------------------------------

BAD = [
    (lambda: pulses.hard(1.0, 0.0), "duration is 0 s: expected a time above 0"),
    (lambda: pulses.hard(1.0, math.nan), "duration is nan s"),
    (lambda: pulses.hard(1.0, 1e-4, dwell=-1e-6), "dwell is -1e-06 s: expected a time above 0"),
    (lambda: pulses.sampled([1, -1], 1e-5, flip_angle=1.0), "add up to 0"),
    (lambda: pulses.sampled([], 1e-5), "0 samples"),
    (lambda: pulses.sampled([1, math.nan], 1e-5), "expected numbers"),
    (lambda: pulses.sampled([0, 0], 1e-5, peak=10), "all samples are 0"),
    (lambda: pulses.sampled([1, 1], 1e-5, peak=10, flip_angle=1.0), "expected one of the two"),
    (lambda: pulses.composite([1.0, 2.0], [0.0], 1e-4), "expected a phase for each flip angle"),
    (lambda: pulses.composite([1.0, 1e-6], [0.0, 0.0], 1e-4), "expected less, to have a sample in each part"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_wrong_pulses_are_told_in_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


def protocol(**entries) -> Protocol:
    return Protocol("mine", "ute_3d", "bound_and_pore", "echo", {"echo": (1e-4,)}, 3.0, pulses=entries)


DEFAULT = {"shape": "hard", "duration": 60e-6}


def test_a_protocol_states_its_pulses() -> None:
    made = pulses.pulse("excitation", protocol(), DEFAULT, 0.2)
    assert made.duration == pytest.approx(60e-6) and made.flip_angle == pytest.approx(0.2)
    made = pulses.pulse("excitation", protocol(excitation={"duration": 30e-6}), DEFAULT, 0.2, delay=1e-5, use="storage")
    assert made.duration == pytest.approx(30e-6) and made.delay == 1e-5 and made.use == "storage"
    shaped = protocol(excitation={"shape": "sinc", "time_bandwidth": 8.0})  # lasts as long as what it stands for
    made = pulses.pulse("excitation", shaped, DEFAULT, 0.2, phase=0.3)
    np.testing.assert_array_equal(made.waveform, pulses.sinc(0.2, 60e-6, time_bandwidth=8.0).waveform)
    assert made.phase == 0.3
    swept = protocol(inversion={"shape": "hyperbolic_secant", "duration": 6e-3, "peak": 800.0, "mu": 3.0})
    made = pulses.pulse("inversion", swept, DEFAULT, math.pi)
    np.testing.assert_array_equal(made.waveform, adiabatic.hyperbolic_secant(6e-3, peak=800.0, mu=3.0).waveform)
    drawn = protocol(excitation={"shape": "sampled", "real": [1, 2, 1], "imaginary": [0, 0, 0], "dwell": 1e-5})
    made = pulses.pulse("excitation", drawn, DEFAULT, 0.2)
    np.testing.assert_allclose(made.waveform / made.waveform[0], [1, 2, 1])
    assert made.flip_angle == pytest.approx(0.2)
    parts = {"shape": "composite", "flip_angles": [1.5, 3.0], "phases": [0.0, 1.5], "duration": 1e-4}
    assert pulses.pulse("inversion", protocol(inversion=parts), DEFAULT, math.pi).waveform.size == 100


WRONG = [
    ({"shape": "gauss"}, "pulses.excitation.shape is 'gauss': expected one of hard, sinc, half_sinc, gaussian"),
    ({"bandwidth": 3.0}, "pulses.excitation.bandwidth is 3.0: not a setting of a hard pulse; known: duration, dwell"),
    ({"duration": 60.0}, "pulses.excitation.duration is 60.0: expected 1e-07 to 0.5 (given in ms?)"),
    ({"duration": "long"}, "pulses.excitation.duration is 'long': expected 1e-07 to 0.5"),
    ({"shape": "sinc", "time_bandwidth": 0.0}, "time_bandwidth is 0.0: expected 0.1 to 100"),
    ({"shape": "sampled", "real": [1.0]}, "pulses.excitation: it missing 1 required positional argument: 'dwell'"),
    ({"shape": "composite", "flip_angles": [1.0]}, "missing 1 required positional argument: 'phases'"),
    ({"shape": "sampled", "real": [1, -1], "dwell": 1e-5}, "pulses.excitation: pulse: its samples add up to 0"),
]


@pytest.mark.parametrize(("entry", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_settings_of_pulses_are_told_in_one_line(entry: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        pulses.pulse("excitation", protocol(excitation=entry), DEFAULT, 0.2)
    assert "\n" not in str(caught.value) and "protocol mine" in str(caught.value)
