"""Spins inside a voxel: sums against the sinc of a uniform voxel and the exponential of a Lorentzian line."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Repeat, Timeline, trapezoid
from bonemri.simulator.engines import bloch
from bonemri.simulator.engines.intravoxel import enough, lorentzian, subvoxel
from bonemri.simulator.engines.isochromats import Isochromats

GAMMA = 42.577478518e6  # Hz/T
EDGE = 2e-3  # m


def spoiled(turns: float, TR: float = 0.01, axis: str = "z") -> Timeline:
    """A pulse, and a gradient that turns the edges of a voxel by so many turns."""
    area = turns / (GAMMA * EDGE)
    return Timeline(
        (Block(RF([500.0], 1e-4), duration=1e-3), Block(trapezoid(axis, area, 2e-3, 1e-4), duration=TR - 1e-3))
    )


@settings(max_examples=20, deadline=None)
@given(turns=st.floats(-6, 6), count=st.integers(1, 40))
def test_a_row_of_spins_dephases_as_a_voxel(turns, count):
    """A uniform voxel gives a sinc; a row its Dirichlet kernel, which errs by (pi turns/count)^2/6 of it."""
    spins, voxel = subvoxel(Isochromats(math.inf, math.inf, density=[1.0, 3.0]), (0, 0, EDGE), (1, 1, count))
    area = turns / (GAMMA * EDGE)
    timeline = Timeline((Block(trapezoid("z", area, 1e-3, 1e-4), ADC(1, 1e-6, 1e-3)),))
    start = np.zeros((len(spins), 3))
    start[:, 0] = spins.density
    found = bloch.simulate(timeline, spins, initial=start, signal=voxel).signal[:, 0]
    row = np.exp(2j * np.pi * turns * ((np.arange(count) + 0.5) / count - 0.5)).mean()
    np.testing.assert_allclose(found, [row, 3 * row], atol=1e-9)
    if abs(turns) < count / 4:
        assert abs(row - np.sinc(turns)) <= 1.7 * (turns / count) ** 2 * abs(np.sinc(turns)) * 1.3 + 1e-12


def test_whole_turns_leave_nothing_but_for_multiples_of_the_count():
    for turns in range(1, 13):
        spins, _ = subvoxel(Isochromats(math.inf, math.inf), (0, 0, EDGE), (1, 1, 6))
        phase = np.exp(2j * np.pi * turns * spins.position[:, 2] / EDGE)
        left = abs(phase @ spins.density)
        assert left == pytest.approx(1.0 if turns % 6 == 0 else 0.0, abs=1e-12)


def test_three_axes():
    spins, voxel = subvoxel(Isochromats(1.0, 0.1, position=[[0, 0, 0], [0.1, 0.2, 0.3]]), (1e-3, 2e-3, 0), (2, 4, 1))
    assert np.bincount(voxel).tolist() == [8, 8]
    np.testing.assert_allclose(spins.density, 1 / 8)
    np.testing.assert_allclose(spins.position[8:].mean(axis=0), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(np.unique(spins.position[:8, 1].round(9)), [-0.75e-3, -0.25e-3, 0.25e-3, 0.75e-3])
    assert np.ptp(spins.position[:8, 2]) == 0


def test_too_few_spins_are_refused():
    """Two turns a period: an even count n is in phase again after n/2 periods, an odd one after n."""
    timeline, one = spoiled(2.0), Isochromats(T1=1.0, T2=0.05)
    for count, periods in ((2, 1), (8, 4), (30, 15), (33, 33)):
        with pytest.raises(InputError, match=f"too few spins a voxel.*{periods} periods|block 1") as caught:
            subvoxel(one, (0, 0, EDGE), (1, 1, count), timeline)
        assert "expected 35" in str(caught.value) and "\n" not in str(caught.value)
    # exp(-35 TR/T2) is the first below 1e-3
    assert math.ceil(0.05 / 0.01 * math.log(1e3)) == 35
    assert enough(timeline, (0, 0, EDGE), 0.05) == (1, 1, 35)
    subvoxel(one, (0, 0, EDGE), (1, 1, 35), timeline)
    assert enough(spoiled(2.0, axis="y"), (0, EDGE, EDGE), 0.05) == (1, 35, 1)


def test_what_is_enough_spoils_as_many_more_do():
    """RF of one phase, a spoiler of a turn: the steady state of many spins, which too few miss."""
    timeline, one = spoiled(1.0), Isochromats(T1=0.4, T2=0.03)
    sampled = Timeline((Block(*timeline.blocks[0].events, ADC(1, 1e-6, 2e-4), duration=1e-3), timeline.blocks[1]))

    def steady(count):
        spins, voxel = subvoxel(one, (0, 0, EDGE), (1, 1, count))
        return bloch.steady_state(sampled, spins, signal=voxel).signal[0, 0]

    count = enough(timeline, (0, 0, EDGE), 0.03)[2]
    many = steady(20 * count)
    assert abs(steady(count) - many) < 1e-3 * abs(many)
    assert abs(steady(3) - many) > 2e-2 * abs(many)


def test_a_train_as_long_as_it_is_needs_no_more_than_its_repeat():
    body = spoiled(1.0)
    spins, voxel = subvoxel(Isochromats(0.4, 0.03), (0, 0, EDGE), (1, 1, 32), body)
    train = Timeline((Repeat((*body.blocks, Block(ADC(1, 1e-6))), 40),))
    found = bloch.simulate(train, spins, signal=voxel).signal
    assert found.shape == (1, 40) and np.isfinite(found).all()


@pytest.mark.parametrize("count", [10, 50, 400])
@pytest.mark.parametrize("longest", [0.0, 1.0, 5.0])
def test_a_lorentzian_line_decays_exponentially(count, longest):
    rate = np.array([0.0, 20.0, 300.0])
    spins, source = lorentzian(Isochromats(math.inf, math.inf, offset=[0.0, 5.0, -7.0]), rate, count, longest / 300)
    t = np.linspace(0, longest / 300, 40)
    phase = spins.density * np.exp(2j * np.pi * t[:, None] * spins.offset)
    found = np.stack([phase[:, source == k].sum(axis=1) for k in range(3)])
    expected = np.exp(-rate[:, None] * t + 2j * np.pi * np.array([[0.0], [5.0], [-7.0]]) * t)
    far = count * math.pi / (rate * longest / 300 + 8)
    assert (np.abs(found - expected).max(axis=1) < 1 / far).all()
    np.testing.assert_allclose(found[:, 0], 1, atol=1e-12)
    # most of it a common factor
    if longest and count == 400:
        slope = np.polyfit(t[10:], np.log(np.abs(found[2, 10:])), 1)[0]
        assert slope == pytest.approx(-300, rel=0.02)


ONE = Isochromats(1.0, 0.1)
BAD = [
    (subvoxel, (ONE, (0, 0, -1e-3), (1, 1, 4)), "size is (0, 0, -0.001): expected three lengths from 0 up (m)"),
    (subvoxel, (ONE, (0, 0), (1, 1, 4)), "size is (0, 0): expected three lengths"),
    (subvoxel, (ONE, (0, 0, EDGE), (1, 1, 0)), "count is (1, 1, 0): expected three whole numbers from 1 up"),
    (subvoxel, (ONE, (0, 0, EDGE), (1, 1, 2.5)), "expected three whole numbers from 1 up"),
    (subvoxel, (ONE, (0, 0, EDGE), (1, 1, "many")), "expected three whole numbers"),
    (lorentzian, (ONE, -1.0, 10, 0.1), "r2_prime has shape (): expected one rate"),
    (lorentzian, (ONE, [1.0, 2.0], 10, 0.1), "r2_prime has shape (2,)"),
    (lorentzian, (ONE, 1.0, 0, 0.1), "count is 0: expected a whole number from 1 up"),
    (lorentzian, (ONE, 1.0, 10, -0.1), "longest is -0.1 s: expected from 0 up"),
    (enough, (spoiled(2.0), (0, 0, EDGE), 1e6), "a spin remembers 690775528 periods: expected 16384 at most"),
    (enough, (spoiled(2.0), (0, 0, EDGE), 7.0), "along z needs more than 4096 spins for timeline timeline"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD, ids=[b[2][:30] for b in BAD])
def test_bad_calls(function, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
