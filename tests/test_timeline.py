"""Timelines: blocks cut into steps, gradients integrated exactly, repeats, and what cannot be played."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events import timeline
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Gradient, Hardware, Repeat, Spoiler, Timeline

TURN = 2 * math.pi
WAVE = np.array([1.0, 2.0 + 1.0j, 3.0])  # Hz


# ---- events ----------------------------------------------------------------------------------------------------------


def test_a_pulse_knows_its_times_and_its_angle() -> None:
    pulse = RF([1, 2, 3], 1e-5, delay=2e-5)
    assert pulse.waveform.dtype == complex
    assert (pulse.duration, pulse.end, pulse.reference) == pytest.approx((3e-5, 5e-5, 3.5e-5))
    assert RF([1, 2, 3], 1e-5, delay=2e-5, center=3e-5).reference == pytest.approx(5e-5)
    assert pulse.flip_angle == pytest.approx(TURN * 6e-5)
    assert RF(100.0, 2e-3).waveform.shape == (1,)


def test_samples_lie_in_the_middle_of_their_dwell() -> None:
    adc = ADC(3, 2e-5, delay=1e-4)
    np.testing.assert_allclose(adc.times, [1.1e-4, 1.3e-4, 1.5e-4])
    assert adc.end == pytest.approx(1.6e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_gradient_is_integrated_exactly(seed: int) -> None:
    """Against quadrature between the knots; before and after them nothing adds."""
    rng = np.random.default_rng(seed)
    knots = np.cumsum(rng.uniform(1e-5, 1e-3, 5))
    gradient = Gradient("x", knots, rng.normal(size=5))
    times = np.sort(rng.uniform(-1e-3, knots[-1] + 1e-3, 12))

    def value(t: float) -> float:
        return float(np.interp(t, knots, gradient.values, left=0.0, right=0.0))

    pieces = [quad(value, a, b, points=[k for k in knots if a < k < b] or None)[0]
              for a, b in zip([-2e-3, *times], times, strict=False)]  # fmt: skip
    np.testing.assert_allclose(gradient.integral(times), np.cumsum(pieces), atol=1e-12)
    assert gradient.area == pytest.approx(gradient.integral(np.array([1.0]))[0], abs=1e-15)
    assert (gradient.start, gradient.end) == (knots[0], knots[-1])


@settings(max_examples=30, deadline=None)
@given(area=st.floats(-1e-3, 1e-3), ramp=st.floats(1e-5, 1e-3), flat=st.floats(0.0, 1e-2), delay=st.floats(0.0, 0.1))
def test_a_trapezoid_has_its_area(area: float, ramp: float, flat: float, delay: float) -> None:
    made = timeline.trapezoid("y", area, flat + 2 * ramp, ramp, delay)
    assert made.area == pytest.approx(area, rel=1e-9, abs=1e-18)
    assert made.start == delay and made.end == pytest.approx(delay + flat + 2 * ramp)
    assert made.values[0] == made.values[-1] == 0.0 and np.all(np.diff(made.times) > 0)


def test_a_trapezoid_without_room_for_its_ramps_is_refused() -> None:
    for ramp in (6e-4, 0.0, math.nan):
        with pytest.raises(InputError, match=r"gradient y: ramp is .* s: expected above 0 and at most half of 0\.001"):
            timeline.trapezoid("y", 1e-5, 1e-3, ramp)


# ---- a block as steps ------------------------------------------------------------------------------------------------


def test_a_block_is_cut_at_pulse_samples_acquisitions_and_spoilers() -> None:
    block = Block(RF(WAVE, 1e-5, delay=2e-5, phase=0.3, frequency=500.0), ADC(2, 4e-5, delay=6e-5, phase=0.7),
                  Spoiler(), Spoiler(1.7e-4), duration=2e-4)  # fmt: skip
    steps = timeline.steps(block)
    np.testing.assert_allclose(np.cumsum(steps.duration), [2e-5, 3e-5, 4e-5, 5e-5, 8e-5, 1.2e-4, 1.7e-4, 2e-4])
    np.testing.assert_allclose(steps.rf, np.concatenate([[0], WAVE * np.exp(0.3j), np.zeros(4)]))
    np.testing.assert_array_equal(steps.carrier, [0, 500, 500, 500, 0, 0, 0, 0])
    np.testing.assert_allclose(steps.turn, [0, 0, 0, TURN * 500 * 3e-5, 0, 0, 0, 0])
    np.testing.assert_array_equal(steps.sample, [-1, -1, -1, -1, 0, 1, -1, -1])
    np.testing.assert_array_equal(steps.spoil, [False] * 6 + [True, True])
    np.testing.assert_allclose(steps.receiver, [0.7, 0.7])


def test_the_receiver_runs_on_with_its_frequency() -> None:
    steps = timeline.steps(Block(ADC(2, 1e-3, delay=5e-4, phase=0.2, frequency=100.0), ADC(1, 1e-3, delay=4e-3)))
    np.testing.assert_allclose(steps.receiver, [0.2 + TURN * 100 * 5e-4, 0.2 + TURN * 100 * 1.5e-3, 0.0])
    np.testing.assert_array_equal(steps.sample[steps.sample >= 0], [0, 1, 2])


def test_samples_are_numbered_in_time_whatever_the_order_of_the_events() -> None:
    late, early = ADC(2, 1e-4, delay=1e-3, phase=2.0), ADC(1, 1e-4, phase=1.0)
    block = Block(late, early)
    steps = timeline.steps(block)
    np.testing.assert_allclose(np.cumsum(steps.duration)[steps.sample >= 0], [5e-5, 1.05e-3, 1.15e-3])
    np.testing.assert_allclose(steps.receiver, [1.0, 2.0, 2.0])
    np.testing.assert_allclose(Timeline((block,)).sample_times(), [5e-5, 1.05e-3, 1.15e-3])


def test_two_pulses_keep_their_carriers_apart() -> None:
    first, second = RF([10.0], 1e-4, frequency=100.0), RF([20.0, 30.0], 1e-4, delay=1e-4, frequency=-50.0)
    steps = timeline.steps(Block(first, second))
    np.testing.assert_array_equal(steps.rf, [10, 20, 30])
    np.testing.assert_array_equal(steps.carrier, [100, -50, -50])
    np.testing.assert_allclose(steps.turn, [TURN * 0.01, 0, -TURN * 0.01])


def test_a_raster_that_rounds_gives_no_step_of_its_own() -> None:
    """0.1 + 0.2 is not 0.3: edges that differ by rounding alone are one."""
    dwell = 1e-4 / 3
    steps = timeline.steps(Block(RF(np.ones(3), dwell), ADC(1, 1e-6, delay=1e-4), duration=1e-4 + 1e-6))
    assert steps.duration.size == 5 and steps.duration.min() > 1e-7
    assert np.count_nonzero(steps.rf) == 3


def test_a_spoiler_at_the_start_spoils_what_was_there_before() -> None:
    for events in ((RF([1.0, 2.0], 1e-4), Spoiler(0.0)), (Spoiler(0.0), ADC(1, 1e-4))):
        steps = timeline.steps(Block(*events, duration=1e-3))
        assert steps.duration[0] == 0.0 and steps.rf[0] == 0.0 and steps.sample[0] == -1
        np.testing.assert_array_equal(steps.spoil, [True] + [False] * (steps.spoil.size - 1))
        assert steps.duration.sum() == pytest.approx(1e-3) and (steps.duration[1:] > 0).all()


def test_what_happens_in_no_time() -> None:
    empty = timeline.steps(Block())
    assert empty.duration.tolist() == [0.0] and empty.sample.tolist() == [-1]
    only = timeline.steps(Block(Spoiler(), duration=0.0))
    assert only.duration.tolist() == [0.0] and only.spoil.tolist() == [True]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_steps_keep_every_integral(seed: int) -> None:
    """Durations, RF area and each gradient's area up to each edge are those of the events, whatever they are."""
    rng = np.random.default_rng(seed)
    n, dwell = int(rng.integers(1, 20)), rng.uniform(1e-6, 1e-5)
    pulse = RF(rng.normal(size=n) + 1j * rng.normal(size=n), dwell, delay=rng.uniform(0, 1e-4), phase=1.0)
    adc = ADC(int(rng.integers(1, 6)), rng.uniform(1e-6, 1e-5), delay=pulse.end + rng.uniform(0, 1e-4))
    gradients = [Gradient(axis, np.cumsum(rng.uniform(1e-6, 1e-4, 4)), rng.normal(size=4)) for axis in "xz"]
    block = Block(pulse, adc, *gradients)
    steps = timeline.steps(block)
    assert steps.duration.sum() == pytest.approx(block.duration, rel=1e-12) and (steps.duration > 0).all()
    total = (steps.rf * steps.duration).sum()
    assert total == pytest.approx(pulse.waveform.sum() * np.exp(1j) * dwell, rel=1e-9, abs=1e-18)
    edges = np.cumsum(steps.duration)
    np.testing.assert_allclose(edges[steps.sample >= 0], adc.times, rtol=1e-12)
    for g in gradients:
        along = np.cumsum(steps.gradient[:, "xyz".index(g.axis)] * steps.duration)
        np.testing.assert_allclose(along, g.integral(edges), atol=1e-15)
    assert not steps.gradient[:, 1].any()


def test_two_gradients_of_an_axis_one_after_the_other_add() -> None:
    ramp = [0.0, 1e-3]
    block = Block(Gradient("x", ramp, [0.0, 1.0]), Gradient("x", [1e-3, 2e-3], [1.0, 0.0]))
    steps = timeline.steps(block)
    assert (steps.gradient[:, 0] * steps.duration).sum() == pytest.approx(1e-3)


# ---- blocks, repeats, timelines --------------------------------------------------------------------------------------


def test_a_block_lasts_until_its_last_event_or_as_stated() -> None:
    events = RF([1.0], 1e-3), Gradient("x", [0.0, 2e-3], [0.0, 0.0]), ADC(2, 1e-3, delay=1e-3), Spoiler(4e-3)
    assert Block(*events).duration == 4e-3 and Block(*events[:3]).duration == pytest.approx(3e-3)
    assert Block(Spoiler(), duration=1e-2).spoilers == (1e-2,)
    assert Block(duration=0.5).duration == 0.5 and Block(*events).samples == 2


def test_repeats_are_played_with_their_phases() -> None:
    pulse, read = Block(RF([1.0], 1e-3), label="pulse"), Block(ADC(1, 1e-3), duration=2e-3)
    inner = Repeat((read,), 2, (0.1, 0.2))
    scan = Timeline((pulse, Repeat((pulse, inner), 3, (0.0, 1.0, 2.0)), read), name="mine")
    assert scan.duration == pytest.approx(1e-3 + 3 * 5e-3 + 2e-3) and scan.samples == 7
    played = list(scan.played())
    assert [b is pulse for b, _, _ in played] == [True, *[True, False, False] * 3, False]
    np.testing.assert_allclose([s for _, s, _ in played], np.array([0, 1, 2, 4, 6, 7, 9, 11, 12, 14, 16]) * 1e-3)
    np.testing.assert_allclose([p for _, _, p in played], [0, 0, 0.1, 0.2, 1, 1.1, 1.2, 2, 2.1, 2.2, 0])
    np.testing.assert_allclose(scan.sample_times(), np.array([2, 4, 7, 9, 12, 14, 16]) * 1e-3 + 5e-4)
    assert scan.replace(name="yours").blocks == scan.blocks
    assert Timeline(()).duration == 0 and Timeline(()).sample_times().size == 0


def test_phases_of_rf_spoiling() -> None:
    """Increment n (n + 1)/2: the differences grow by the increment; a later start goes on in the same row."""
    phases = timeline.rf_spoiling(12)
    steps = np.diff(phases, 2)
    np.testing.assert_allclose(np.cos(steps - math.radians(117)), 1.0)
    assert phases[0] == 0.0 and phases[1] == pytest.approx(math.radians(117))
    np.testing.assert_allclose(timeline.rf_spoiling(5, start=7), phases[7:])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Repeat((Block(),), 0), "repeat: count is 0: expected a whole number from 1 up"),
    (lambda: Repeat((Block(),), 1.5), "count is 1.5"),
    (lambda: Repeat((Block(),), 2, (0.0,)), "repeat: 1 phases for 2 repetitions: expected one for each"),
    (lambda: Timeline((), nucleus="13C"), "timeline timeline: nucleus is '13C': expected 1H or 31P"),
])  # fmt: skip
def test_wrong_repeats_and_nuclei_are_told(call, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call()


# ---- what cannot be played -------------------------------------------------------------------------------------------

PULSE = RF(np.ones(10), 1e-5, delay=1e-4)  # .1 to .2 ms
FLAT = Gradient("x", [0.0, 1e-3], [1e-3, 1e-3])
IMPOSSIBLE = [
    (Block(PULSE, RF([1.0], 1e-5, delay=1.5e-4)), "RF from 0.0001 to 0.0002 s and RF from 0.00015 s overlap"),
    (Block(PULSE, ADC(4, 1e-4, delay=1.9e-4)), "RF from 0.0001 to 0.0002 s and ADC from 0.00019 s overlap"),
    (Block(PULSE, ADC(4, 1e-4)), "ADC from 0 to 0.0004 s and RF from 0.0001 s overlap"),
    (Block(ADC(4, 1e-4), ADC(4, 1e-4, delay=3e-4)), "ADC from 0 to 0.0004 s and ADC from 0.0003 s overlap"),
    (Block(FLAT, Gradient("x", [5e-4, 2e-3], [0.0, 0.0])), "gradient x from 0 to 0.001 s and gradient x from 0.0005 s"),
    (Block(RF([1.0], 1e-5, delay=-1e-4)), "RF from -0.0001 to -9e-05 s: expected within the block, 0 to"),
    (Block(ADC(1, 1e-5, delay=-1e-4)), "ADC from -0.0001 to"),
    (Block(Gradient("z", [-1e-3, 1e-3], [0, 0])), "gradient z from -0.001 to 0.001 s: expected within the block"),
    (Block(Spoiler(-1e-3)), "spoiler from -0.001"),
    (Block(Spoiler(3e-3), duration=2e-3), "spoiler from 0.003 to 0.003 s: expected within the block, 0 to 0.002 s"),
    (Block(PULSE, duration=1.5e-4), "RF from 0.0001 to 0.0002 s: expected within the block, 0 to 0.00015 s"),
    (Block(duration=-1.0), "duration is -1 s: expected a finite time from 0 up"),
    (Block(duration=math.nan), "duration is nan s: expected a finite time"),
    (Block(RF([math.nan], 1e-5)), "RF is not finite"),
    (Block(RF([1.0], 1e-5, phase=math.inf)), "RF is not finite"),
    (Block(RF([1.0], 0.0)), "RF has 1 samples of 0 s: expected one at least, above 0 s"),
    (Block(ADC(0, 1e-5)), "ADC has 0 samples of 1e-05 s: expected one at least"),
    (Block(ADC(1, math.nan)), "ADC has 1 samples of nan s"),
    (Block(Gradient("w", [0, 1], [0, 0])), "gradient axis is 'w': expected x, y or z"),
    (Block(Gradient("xy", [0, 1], [0, 0])), "gradient axis is 'xy': expected x, y or z"),
    (Block(Gradient("x", [0, 1], [0, 0, 0])), "gradient x has 2 times and 3 values: expected as many, two at least"),
    (Block(Gradient("x", [0], [0])), "gradient x has 1 times and 1 values"),
    (Block(Gradient("x", [0, 1], [0, math.nan])), "gradient x is not finite"),
    (Block(Gradient("x", [0, 0.5, 0.5], [0, 1, 0])), "gradient x has times that do not increase"),
]


@pytest.mark.parametrize(("block", "message"), IMPOSSIBLE, ids=[m[:40] for _, m in IMPOSSIBLE])
def test_what_cannot_be_played_is_told_with_block_and_time(block: Block, message: str) -> None:
    named = Block(*block.events, duration=block.duration, label="odd one")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Timeline((Block(duration=0.25), Repeat((Block(duration=0.125), named), 2)), name="mine")
    told = str(caught.value)
    assert told.startswith("timeline mine: block 2 (odd one) at 0.375 s: ") and "\n" not in told


def test_events_may_touch_and_gradients_run_beside_everything() -> None:
    Timeline((Block(PULSE, RF([1.0], 1e-5, delay=2e-4), ADC(4, 1e-4, delay=2.1e-4), FLAT,
                    Gradient("y", [0.0, 1e-3], [0.0, 1e-3]), Gradient("x", [1e-3, 2e-3], [1e-3, 0.0])),))  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(first=st.floats(0.0, 1e-3), length=st.integers(1, 50), second=st.floats(0.0, 1e-3))
def test_rf_and_adc_overlap_or_not(first: float, length: int, second: float) -> None:
    pulse, adc = RF(np.ones(length), 1e-5, delay=first), ADC(20, 1e-5, delay=second)
    apart = adc.end <= pulse.delay + 1e-9 or pulse.end <= adc.delay + 1e-9
    try:
        Timeline((Block(pulse, adc),))
        assert apart
    except InputError as error:
        assert not apart and "overlap" in str(error)


LIMITS = Hardware(gradient=0.04, slew=150.0, rf=1000.0)


@pytest.mark.parametrize(("event", "message"), [
    (Gradient("z", [0, 1e-3, 2e-3], [0, 0.05, 0]),
     "timeline mine: block 1 at 0.5 s: gradient z is 0.05 T/m at 0.001 s: the hardware gives 0.04 T/m"),
    (Gradient("y", [0, 1e-3, 1.1e-3], [0, 0.03, 0]),
     "timeline mine: block 1 at 0.5 s: gradient y changes by 300 T/m/s at 0.001 s: the hardware gives 150 T/m/s"),
    (RF([0, 2000j], 1e-3, delay=1e-3),
     "timeline mine: block 1 at 0.5 s: RF is 2000 Hz at 0.002 s: the hardware gives 1000 Hz"),
])  # fmt: skip
def test_hardware_beyond_its_limit_warns_with_block_and_time(event, message: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(message)):
        Timeline((Block(duration=0.5), Block(event)), name="mine", hardware=LIMITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Timeline((Block(event),))  # no limit is stated
        Timeline((Block(RF([1000.0], 1e-3), Gradient("z", [0, 1e-3, 2e-3], [0, 0.04, 0.0])),), hardware=LIMITS)
