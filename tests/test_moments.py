"""Gradient moments against closed forms, against spins that are turned step by step, and against finer sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events import moments
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Gradient, Repeat, Timeline, steps, trapezoid
from bonemri.simulator.constants import PROTON

ROUNDING = 1e-12  # of the result: sums of some tens of terms in double precision, with a margin
GAMMA = 2 * math.pi * PROTON  # rad/s/T


def hard(angle: float, use: str, duration: float = 1e-6, **more) -> RF:
    return RF([angle / (2 * math.pi * duration)], duration, use=use, **more)


def spin_echo(lobe: Gradient, separation: float, refocused: float, echo: float, samples: int = 1) -> Timeline:
    """Two equal lobes, the second `separation` after the first, with a pulse at `refocused` between them."""
    second = Gradient(lobe.axis, lobe.times + separation, lobe.values)
    pulse = hard(math.pi, "refocusing", delay=refocused - 0.5e-6)
    return Timeline((
        Block(hard(math.pi / 2, "excitation", center=0.0), lobe, second, pulse,
              ADC(samples, 1e-6, delay=echo - 0.5e-6), duration=echo + 1e-3),
    ))  # fmt: skip


@given(st.floats(1e-3, 0.08), st.floats(2e-3, 30e-3), st.floats(0.1e-3, 1e-3), st.floats(2e-3, 20e-3))
@settings(max_examples=20, deadline=None)
def test_stejskal_tanner(amplitude, delta, ramp, gap):
    """Trapezoids with ramps; delta from the start of a lobe to the end of its flat top, Delta from start to start.

    b = gamma^2 G^2 [delta^2 (Delta - delta/3) + ramp^3/30 - delta ramp^2/6], Tanner and Stejskal's with ramps
    (Mattiello, Basser and LeBihan 1994); the ramp to 0 gives Stejskal and Tanner's rectangle.
    """
    between = delta + ramp + gap
    lobe = trapezoid("y", amplitude * delta, delta + ramp, ramp, delay=2e-6)
    timeline = spin_echo(lobe, between, 2e-6 + delta + ramp + gap / 2, 2 * between + 1e-3)
    expected = (GAMMA * amplitude) ** 2 * (delta**2 * (between - delta / 3) + ramp**3 / 30 - delta * ramp**2 / 6)
    matrix = moments.b_matrix(timeline)
    np.testing.assert_allclose(matrix[1, 1], expected * 1e-6, rtol=1e-9)  # times are differences of larger ones
    assert np.abs(matrix).sum() == pytest.approx(matrix[1, 1], rel=ROUNDING)
    assert moments.b_value(timeline) == pytest.approx(matrix[1, 1], rel=ROUNDING)


def test_rectangular_pulses():
    g, delta, separation = 0.04, 12e-3, 25e-3
    lobe = Gradient("z", np.array([1e-3, 1e-3 + delta]), np.array([g, g]))
    timeline = spin_echo(lobe, separation, 20e-3, 45e-3)
    expected = (GAMMA * g * delta) ** 2 * (separation - delta / 3) * 1e-6
    assert moments.b_value(timeline) == pytest.approx(expected, rel=1e-11)


def test_stimulated_echo_keeps_its_phase_while_stored():
    """A lobe before the storage and one after the recall; lobes in between are not felt: b of Stejskal and Tanner."""
    g, delta, separation = 0.03, 5e-3, 200e-3
    lobe = [Gradient("x", np.array([t, t + delta]), np.array([g, g])) for t in (1e-3, 1e-3 + separation)]
    crusher = trapezoid("x", 3e-4, 20e-3, 1e-3, delay=60e-3)
    pulses = [hard(math.pi / 2, use, delay=t) for use, t in (("excitation", 0), ("storage", 8e-3), ("recall", 0.2))]
    timeline = Timeline((Block(*lobe, crusher, *pulses, ADC(1, 1e-6, delay=0.21), duration=0.22),))
    expected = (GAMMA * g * delta) ** 2 * (separation - delta / 3) * 1e-6
    assert moments.b_value(timeline) == pytest.approx(expected, rel=1e-10)
    times, gradient = moments.effective_gradient(timeline)
    assert moments.integral(times, gradient)[-1, 0] == pytest.approx(0, abs=1e-12 * g * delta)
    np.testing.assert_allclose(moments.kspace(timeline), 0, atol=1e-9)  # 1/m, of lobes of 6400/m


def turned(timeline: Timeline, place: np.ndarray) -> np.ndarray:
    """Transverse magnetisation (sample,) of a spin at `place` (m), turned step by step: hard pulses, no relaxation."""
    m, found = np.array([0.0, 0.0, 1.0]), []
    for block, _, phase in timeline.played():
        cut = steps(block)
        for n in range(cut.duration.size):
            axis = 2 * math.pi * np.array([(cut.rf[n] * np.exp(1j * phase)).real, (cut.rf[n] * np.exp(1j * phase)).imag,
                                           PROTON * cut.gradient[n] @ place])  # fmt: skip
            angle = np.linalg.norm(axis) * cut.duration[n]
            if angle:
                u = axis / np.linalg.norm(axis)
                m = (m * math.cos(angle) + np.cross(u, m) * math.sin(angle) + u * (u @ m) * (1 - math.cos(angle)))
            if cut.sample[n] >= 0:
                found.append(m[0] + 1j * m[1])
    return np.array(found)


def test_kspace_is_what_a_spin_turns_by():
    """Three excitations, the second and third refocused once and twice, gradients on all axes and during pulses."""
    rng = np.random.default_rng(5)
    pulse = 1e-8  # so short that a gradient hardly turns a spin during it

    def body(refocusings: int) -> list[Block]:
        blocks = [Block(hard(math.pi / 2, "excitation", pulse))]
        for n in range(refocusings + 1):
            area = rng.uniform(-2e-5, 2e-5, 3)
            lobes = [trapezoid("xyz"[a], area[a], 4e-3, 0.3e-3, delay=0.1e-3 * a) for a in range(3)]
            blocks.append(Block(*lobes, ADC(5, 0.7e-3, delay=0.2e-3)))
            if n < refocusings:
                on = Gradient("y", np.array([0, 2 * pulse]), np.array([0.01, 0.01]))
                blocks.append(Block(hard(math.pi, "refocusing", pulse), on))
        return blocks

    timeline = Timeline((*body(0), Repeat(tuple(body(1)), 2), *body(2)))
    found = moments.kspace(timeline)
    assert found.shape == (timeline.samples, 3) == (40, 3)
    # one excitation at a time: without relaxation and spoiling what is left of the one before would mix in
    whole, done = timeline.blocks, 0
    for part in (whole[:2], whole[2].body, whole[2].body, whole[3:]):
        alone = Timeline(tuple(part))
        origin = turned(alone, np.zeros(3))
        for place in rng.uniform(-0.02, 0.02, (3, 3)):
            relative = turned(alone, place) / origin
            expected = np.exp(2j * math.pi * found[done : done + alone.samples] @ place)
            # during a pulse of 10 ns a gradient of 10 mT/m turns a spin at 2 cm by 5e-4 rad
            np.testing.assert_allclose(relative, expected, atol=1e-3)
        done += alone.samples


def test_kspace_of_a_spoke_and_of_what_came_before():
    ramp = Gradient("x", np.array([1e-5, 1e-4, 2e-3]), np.array([0, 0.01, 0.01]))
    spoke = Block(hard(0.2, "excitation", 1e-5, center=4e-6), ramp, ADC(64, 2e-5, delay=2e-5))
    before = Block(ADC(3, 1e-5))
    k = moments.kspace(Timeline((before, Repeat((spoke,), 3))))
    assert np.isnan(k[:3]).all()
    t = spoke.adcs[0].times
    rise = np.clip(t - 1e-5, 0, 9e-5)
    expected = PROTON * (0.01 * rise**2 / 2 / 9e-5 + 0.01 * np.clip(t - 1e-4, 0, None))
    for n in range(3):
        np.testing.assert_allclose(k[3 + 64 * n : 67 + 64 * n, 0], expected, rtol=ROUNDING)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_any_waveform_against_quadrature(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    t = np.cumsum(rng.uniform(0.1, 2.0, n)) - 0.1  # s: of the order of 1, so that one tolerance suits every order
    g = rng.normal(size=(n, 3))

    def at(x, axis):
        return float(np.interp(x, t, g[:, axis]))

    def k(x, axis):
        knots = np.append(t[t < x], x)
        return float(np.trapezoid(np.interp(knots, t, g[:, axis]), knots))

    where = {"points": t[1:-1], "limit": 200, "epsabs": 1e-10, "epsrel": 1e-10}
    for order in range(4):
        expected = [integrate.quad(lambda x, a=a, o=order: at(x, a) * x**o, t[0], t[-1], **where)[0] for a in range(3)]
        np.testing.assert_allclose(moments.moment(t, g, order), expected, rtol=1e-8, atol=1e-8)
    found = moments.b_matrix_of(t, g, gamma=1e3 / (2 * math.pi))  # rad: (2 pi gamma)^2 1e-6 = 1
    for a, b in ((0, 0), (0, 1), (2, 1)):
        expected = integrate.quad(lambda x, a=a, b=b: k(x, a) * k(x, b), t[0], t[-1], **where)[0]
        assert found[a, b] == pytest.approx(expected, rel=1e-8, abs=1e-8)
    np.testing.assert_allclose(found, found.T, rtol=ROUNDING, atol=ROUNDING)
    assert np.linalg.eigvalsh(found).min() > -1e-10  # a sum of squares
    # a scaled waveform scales b with the square, and a reversed sign changes nothing
    np.testing.assert_allclose(moments.b_matrix_of(t, -3 * g, gamma=1.0), 9 * moments.b_matrix_of(t, g, gamma=1.0),
                               rtol=1e-10, atol=1e-18)  # fmt: skip


def test_effective_gradient_jumps_at_the_pulse_and_begins_at_the_last_excitation():
    on = Gradient("x", np.array([0.0, 10e-3]), np.array([0.02, 0.02]))
    first = Block(hard(1.0, "excitation"), on)
    second = Block(hard(1.0, "excitation", 2e-3, delay=1e-3), hard(2.0, "refocusing", 1e-3, delay=4e-3), on)
    times, gradient = moments.effective_gradient(Timeline((first, second)))
    # from the middle of the pulse at 2 ms to the end at 10 ms, with the sign turned at 4.5 ms
    np.testing.assert_allclose(times, [0, 2.5e-3, 2.5e-3, 8e-3], atol=1e-15)
    np.testing.assert_allclose(gradient[:, 0], [0.02, 0.02, -0.02, -0.02])
    early = moments.effective_gradient(Timeline((first, second)), until=6e-3)
    np.testing.assert_allclose(early[0], [0, 6e-3 - 0.5e-6], atol=1e-15)


def test_no_gradient_no_weighting():
    timeline = Timeline((Block(hard(1.0, "excitation")), Block(duration=0.01), Block(ADC(1, 1e-6))))
    assert moments.b_value(timeline) == 0
    np.testing.assert_array_equal(moments.kspace(timeline), 0)


def test_what_acts_on_the_unexcited_changes_nothing():
    lobe = trapezoid("x", 1e-5, 2e-3, 0.1e-3)
    blocks = [Block(hard(1.0, "excitation")), Block(lobe, ADC(4, 0.3e-3))]
    prepared = [Block(hard(math.pi, "inversion")), Block(lobe), *blocks]
    np.testing.assert_array_equal(moments.kspace(Timeline(tuple(prepared))), moments.kspace(Timeline(tuple(blocks))))


@pytest.mark.parametrize(
    ("blocks", "until", "message"),
    [
        ((Block(duration=1.0),), None, "timeline timeline: no excitation from 0 to 1 s: expected a pulse of that use"),
        ((Block(hard(1, "excitation"), duration=1.0),), 2.0, "timeline: until is 2 s: expected 0 to 1 s, its end"),
        ((Block(hard(1, "excitation"), duration=1.0),), math.nan, "until is nan s"),
        ((Block(hard(1, "excitation")), Block(hard(1, "recall"))), None,
         "pulse at 1e-06 s: use is recall: expected a pulse of use storage before it"),
    ],
)  # fmt: skip
def test_bad_input(blocks, until, message):
    with pytest.raises(InputError) as caught:
        moments.effective_gradient(Timeline(blocks), until)
    assert message in str(caught.value)
    with pytest.raises(InputError, match="order is -1: expected a whole number from 0 up"):
        moments.moment([0, 1], [[1.0], [1.0]], -1)


def test_pathway_counts_offsets_until_they_are_refocused():
    pulses = [hard(1.0, "excitation", delay=1e-3), hard(2.0, "refocusing", delay=4e-3),
              hard(1.0, "storage", delay=6e-3), hard(1.0, "recall", delay=9e-3)]  # fmt: skip
    timeline = Timeline((Block(*pulses, duration=12e-3),))
    times, sign = moments.pathway(timeline)
    np.testing.assert_allclose(times, [0, 3e-3, 3e-3, 5e-3, 5e-3, 8e-3, 8e-3, 11e-3 - 0.5e-6], atol=1e-12)
    np.testing.assert_array_equal(sign, [1, 1, -1, -1, 0, 0, 1, 1])
    # a constant offset is a gradient seen from one place: their signs are one
    on = Gradient("z", np.array([0, 12e-3]), np.array([0.01, 0.01]))
    both = Timeline((Block(*pulses, on, duration=12e-3),))
    np.testing.assert_allclose(moments.effective_gradient(both)[1][:, 2], 0.01 * sign)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_waveforms_together_are_what_they_were(seed):
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(3):
        t = np.concatenate([[0], np.cumsum(rng.uniform(0.1, 1, 6) * rng.integers(0, 2, 6)), [7 + rng.random()]])
        each.append((t, rng.normal(size=(t.size, 3))))
    times, gradients = moments.together(each)
    assert gradients.shape == (3, times.size, 3)
    for (t, g), found in zip(each, gradients, strict=True):
        for order in (0, 1, 2):
            expected = moments.moment(t, g, order)
            np.testing.assert_allclose(moments.moment(times, found, order), expected, rtol=1e-9, atol=1e-9)
        if t[-1] == times[-1]:  # a shorter one goes on with what its integral left
            np.testing.assert_allclose(moments.b_matrix_of(times, found), moments.b_matrix_of(t, g), rtol=1e-9)
    with pytest.raises(InputError, match="moments: 0 waveforms with 0 different times: expected two or more"):
        moments.together([])
