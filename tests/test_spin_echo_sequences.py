"""Spin echoes, trains, STEAM, PRESS and the diffusion spin echo: closed forms, engines, moments of their gradients."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.simulator import equations, sequences
from bonemri.simulator.acquisition import Protocol, protocols
from bonemri.simulator.acquisition.events import moments
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import bloch, epg
from bonemri.simulator.engines.isochromats import Isochromats
from bonemri.simulator.scan import scan
from bonemri.simulator.sequences import Pool
from bonemri.simulator.tissues import water_shift

T1, T2 = 0.9, 0.05
MEGAHERTZ = PROTON * 3.0 * 1e-6
SHORT = 1e-6
HARD = {name: {"shape": "hard", "duration": SHORT} for name in ("excitation", "refocusing", "storage", "recall")}


def protocol(sequence, equation, encoding, table, **constants):
    return Protocol("mine", sequence, equation, encoding, table, 3.0, constants=constants, pulses=HARD)


CASES = {
    "spin_echo": protocol("spin_echo", "spin_echo", "te", {"te": (0.01, 0.03)}, TR=0.5),
    "spin_echo_dixon": protocol(
        "spin_echo_dixon", "shifted_spin_echo", "time", {"time": (-1e-3, 0.0, 1.2e-3)}, TR=0.5, TE=0.012
    ),
    "turbo_spin_echo": protocol(
        "turbo_spin_echo", "spin_echo_train", "echo", {"echo": (0.01, 0.02, 0.04)}, TR=0.5, spacing=0.01, echoes=5
    ),
    "steam": protocol("steam", "stimulated_echo", "te", {"te": (0.011, 0.03)}, TR=0.5, TM=0.016),
    "press": protocol("press", "double_spin_echo", "te", {"te": (0.03, 0.05)}, TR=0.5, TE1=0.012),
    "diffusion_spin_echo": protocol("diffusion_spin_echo", "ivim", "b", {"b": (0.0, 100.0, 800.0)}, TR=0.5, TE=0.06),
}
EACH = pytest.mark.parametrize("name", CASES)


def pool(kind="marrow_water", offset=0.0, **values):
    given = {"T1_observed": T1, "T2": T2, "D": 0.0} | values
    values = {name: np.array([v]) for name, v in given.items()}
    return Pool(kind, kind, values, np.array([water_shift() + offset / MEGAHERTZ]), np.ones(1))


def played(given, *, B1=1.0, offset=0.0, relax=(T1, T2), y=0.0, simulate=False):
    """Signal at each point by the Bloch engine, of a voxel whose spins lie where the crushers ask for them."""
    found = np.full(given.points, np.nan, complex)
    for part in sequences.get(given.sequence).played(given):
        z = part.places()
        place = np.stack([0 * z, 0 * z + y, z], 1)
        spins = Isochromats(*relax, offset=offset, B1=B1, position=place, density=1 / z.size)
        run = bloch.simulate if simulate or not part.steady else bloch.steady_state
        found[list(part.points)] = run(part.timeline, spins, signal="sum").signal[list(part.samples)]
    return found


def deficit(times, TR):
    """1 - Mz at TR after a 90 degree pulse and 180 degree pulses at these times, step by step."""
    M, last = 0.0, 0.0
    for t in times:
        M, last = -(1 - (1 - M) * math.exp(-(t - last) / T1)), t
    return (1 - M) * math.exp(-(TR - last) / T1)


# -- closed forms


def test_equations_against_the_recursion_of_their_pulses():
    theta = {"S0": 1.0, "T1": T1, "T2": T2}
    for count in (1, 2, 3, 8):
        setting = {"TE": 0.02, "TR": 0.6, "spacing": 0.01, "echoes": count}
        expected = (1 - deficit((np.arange(count) + 0.5) * 0.01, 0.6)) * math.exp(-0.02 / T2)
        assert equations.get("spin_echo_train").signal(theta, setting)[0, 0] == pytest.approx(expected, rel=1e-13)
    # a train of one echo is a spin echo
    one = equations.get("spin_echo_train").signal(theta, {"TE": 0.02, "TR": 0.6, "spacing": 0.02, "echoes": 1})
    np.testing.assert_allclose(one, equations.get("spin_echo").signal(theta, {"TE": 0.02, "TR": 0.6}), rtol=1e-13)
    double = equations.get("double_spin_echo").signal(theta, {"TE": 0.05, "TE1": 0.012, "TR": 0.6})[0, 0]
    expected = (1 - deficit([0.006, 0.031], 0.6)) * math.exp(-0.05 / T2)
    assert double == pytest.approx(expected, rel=1e-13)
    # two symmetric echoes are a train of two
    even = equations.get("double_spin_echo").signal(theta, {"TE": 0.04, "TE1": 0.02, "TR": 0.6})
    train = equations.get("spin_echo_train").signal(theta, {"TE": 0.04, "TR": 0.6, "spacing": 0.02, "echoes": 2})
    np.testing.assert_allclose(even, train, rtol=1e-13)


@settings(max_examples=25, deadline=None)
@given(time=st.floats(-5e-3, 5e-3), R2_prime=st.floats(0, 300), offset=st.floats(-500, 500))
def test_beside_the_spin_echo(time, R2_prime, offset):
    case = CASES["spin_echo_dixon"].replace(time=(time, -time))
    sequence = sequences.get("spin_echo_dixon")
    after, before = sequence.signal(pool(offset=offset, R2_prime=R2_prime), case)[0]
    echo = sequence.signal(pool(), sequence.reference(case))[0, 0]
    # T2 goes on in time, R2' is symmetric about the echo, and so is the phase
    assert abs(after) == pytest.approx(abs(echo) * math.exp(-time / T2 - abs(time) * R2_prime), rel=1e-12)
    assert abs(after * before) == pytest.approx(abs(echo) ** 2 * math.exp(-2 * abs(time) * R2_prime), rel=1e-12)
    assert after / abs(after) == pytest.approx(np.exp(2j * np.pi * offset * time), abs=1e-9)
    plain = sequence.signal(pool(offset=offset, R2_prime=R2_prime), case, R2_prime=False)[0, 0]
    assert abs(plain) == pytest.approx(abs(echo) * math.exp(-time / T2), rel=1e-12)


@EACH
def test_limits(name):
    case, sequence = CASES[name], sequences.get(name)
    once = np.abs(sequence.signal(pool(), case.replace(TR=50.0))[0])
    # full recovery, no decay: all of the magnetisation, of STEAM one half; e^-55 of T1 is left
    eternal = np.abs(sequence.signal(pool(T2=1e9), case.replace(TR=50.0))[0])
    mixing = math.exp(-0.016 / T1) / 2 if name == "steam" else 1.0
    np.testing.assert_allclose(eternal, mixing, rtol=1e-9)
    assert np.all(once < eternal)
    for kind in ("macromolecule", "mineral", "phosphorus"):
        assert not np.any(sequence.signal(pool(kind, T2=1e-5), case))
    assert np.iscomplexobj(sequence.signal(pool(), case)) != sequence.magnitude
    assert sequence.reference(case).points == 1


@EACH
def test_lines_are_in_phase_at_the_echo(name):
    case, sequence = CASES[name], sequences.get(name)
    both = Pool("fat", "fat", pool().values, np.array([1.3, 5.3]), np.array([3.0, 1.0]))
    at_echo = sequence.reference(case)
    np.testing.assert_allclose(sequence.signal(both, at_echo), sequence.signal(pool(), at_echo), rtol=1e-12)
    spir = {"method": "SPIR", "bands": [[1.0, 2.0, 1.0]]}
    left = sequence.signal(both, sequence.reference(case.replace(fat_suppression=spir)))
    np.testing.assert_allclose(left, 0.25 * sequence.signal(pool(), at_echo), rtol=1e-12)


# -- what is played


@EACH
@pytest.mark.parametrize("offset", [0.0, -60.0])
def test_short_pulses_give_the_closed_form(name, offset):
    case = CASES[name]
    closed = sequences.get(name).signal(pool(offset=offset), case)[0]
    # each pulse of 1 us is off by its length in T2 and turns about an axis tilted by offset/nutation; up to 6 of them
    tilt = 2 * np.pi * 60 * SHORT
    np.testing.assert_allclose(played(case, offset=offset), closed, rtol=6 * (SHORT / T2 + tilt))


@EACH
def test_every_gradient_is_refocused_at_the_echo(name):
    """The pathway of the wanted echo has gained no phase where the sample is taken."""
    for part in sequences.get(name).played(CASES[name]):
        # relative to what one crusher does
        k = moments.kspace(part.timeline)
        np.testing.assert_allclose(k[list(part.samples)], 0, atol=1e-9 * PROTON * 2e-5)
    if name in ("spin_echo", "steam", "press", "turbo_spin_echo"):
        assert any(b.gradients for b, _, _ in part.timeline.played()) and part.spins > 1


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.6, 1.4))
def test_imperfect_pulses_leave_hahns_echo(scale):
    """sin(a) sin^2(b/2) of the magnetisation (Hahn 1950); crushers take away the FID of the refocusing pulse."""
    case = CASES["spin_echo"].replace(TR=20.0, te=(0.02,))
    value = played(case, B1=scale, relax=(np.inf, 1e6), simulate=True)[0]
    a, b = scale * math.pi / 2, scale * math.pi
    # pulses of 1 us without relaxation or offset are rotations; T2 of 1e6 s leaves 2e-8
    assert value == pytest.approx(math.sin(a) * math.sin(b / 2) ** 2, abs=1e-6)
    twice = CASES["press"].replace(TR=20.0, te=(0.04,))
    value = played(twice, B1=scale, relax=(np.inf, 1e6), simulate=True)[0]
    # no stimulated echo adds: two crushers of different area
    assert value == pytest.approx(math.sin(a) * math.sin(b / 2) ** 4, abs=1e-6)


def test_without_crushers_an_imperfect_pulse_adds_its_fid():
    case = CASES["spin_echo"].replace(TR=20.0, te=(0.02,), crusher=0.0)
    (part,) = sequences.get("spin_echo").played(case)
    assert part.spins == 1 and not any(b.gradients for b, _, _ in part.timeline.played())
    crushed = played(case.replace(crusher=2e-5), B1=0.8, relax=(np.inf, 1e6), simulate=True)[0]
    assert abs(played(case, B1=0.8, relax=(np.inf, 1e6), simulate=True)[0] - crushed) > 0.05


@pytest.mark.parametrize("degrees", [180.0, 150.0, 90.0])
@pytest.mark.parametrize("scale", [1.0, 0.85])
def test_a_train_of_any_angle_against_the_epg(degrees, scale):
    echoes = 6
    case = CASES["turbo_spin_echo"].replace(
        echo=tuple(0.01 * np.arange(1, echoes + 1)), echoes=echoes, refocusing_angle=math.radians(degrees), TR=50.0
    )
    expected = epg.spin_echo_train(T1, T2, np.full(echoes, math.radians(degrees)), 0.01, B1=scale)[0]
    # instantaneous pulses there, seven of 1 us here
    np.testing.assert_allclose(played(case, B1=scale, simulate=True), expected, rtol=0, atol=7 * SHORT / T2)


def test_stimulated_echoes_make_the_first_echo_of_a_train_smaller_than_the_second():
    case = CASES["turbo_spin_echo"].replace(refocusing_angle=math.radians(120), echo=(0.01, 0.02), TR=50.0)
    first, second = np.abs(played(case, relax=(np.inf, 1e6), simulate=True))
    assert first == pytest.approx(math.sin(math.pi / 3) ** 2, abs=1e-6) and second > first


def test_steam_needs_its_crushers_and_time_for_them():
    with pytest.raises(InputError, match="crusher is 0: expected above 0"):
        sequences.get("steam").played(CASES["steam"].replace(crusher=0.0))
    with pytest.raises(InputError, match="TE is 1.5e-06 s and TM 0.016 s: expected room for the crushers"):
        sequences.get("steam").played(CASES["steam"].replace(te=(1.5e-6,)))
    with pytest.raises(InputError, match="TE is 0.01 s and TM 5e-07 s"):
        sequences.get("steam").played(CASES["steam"].replace(te=(0.01,), TM=5e-7))


def test_steam_timing():
    (part, _) = sequences.get("steam").played(CASES["steam"])
    (block,) = part.timeline.blocks
    centres = [r.reference - block.rf[0].reference for r in block.rf]
    np.testing.assert_allclose(centres, [0, 0.0055, 0.0215], atol=1e-12)
    np.testing.assert_allclose(part.timeline.sample_times() - block.rf[0].reference, 0.011 + 0.016, atol=1e-12)


# -- the diffusion spin echo


def stejskal_tanner(G, delta, Delta, ramp):
    """b (s/mm2) of trapezoidal lobes, as in Bernstein, Handbook of MRI Pulse Sequences, table 9.1."""
    w = 2 * math.pi * PROTON * G
    return w**2 * (delta**2 * (Delta - delta / 3) + ramp**3 / 30 - delta * ramp**2 / 6) * 1e-6


@settings(max_examples=25, deadline=None)
@given(b=st.floats(1.0, 2000.0), delta=st.floats(3e-3, 0.02), ramp=st.floats(1e-4, 1e-3), gap=st.floats(4e-3, 8e-3))
def test_lobes_give_the_nominal_b(b, delta, ramp, gap):
    Delta = delta + ramp + gap
    case = protocols.ivim_marrow.replace(b=(b,), delta=delta, Delta=Delta, ramp=ramp)
    (part,) = sequences.get("diffusion_spin_echo").played(case)
    # sums of some ten numbers of like size
    assert moments.b_value(part.timeline) == pytest.approx(b, rel=1e-10)
    first, second = part.timeline.blocks[0].gradients
    assert (second.start - first.start, first.end - first.start) == (pytest.approx(Delta), pytest.approx(delta + ramp))
    assert stejskal_tanner(first.values.max(), delta, Delta, ramp) == pytest.approx(b, rel=1e-10)


def test_every_b_of_a_preset_exactly():
    for name in ("ivim_marrow", "ivim_marrow_inner_volume", "kurtosis_marrow_2014"):
        case = protocols.get(name)
        for part in sequences.get("diffusion_spin_echo").played(case):
            (point,) = part.points
            found = moments.b_matrix(part.timeline)
            # along the lobes exact; crushers of the inner volume and its selection add along z and y what they have
            assert found[0, 0] == pytest.approx(case["b"][point], abs=1e-9)
            assert np.trace(found) - found[0, 0] < (0.2 if "inner" in name else 1e-12)


def test_lobes_end_before_the_readout_begins():
    sequence, case = sequences.get("diffusion_spin_echo"), protocols.ivim_marrow_inner_volume
    # all lines: the readout begins 14 ms before the echo, and takes from the lobes what they would have had
    whole = case.replace(readout={**case.readout, "partial_fourier": 1.0}, TE=0.05)
    lengths = {}
    for name, one in (("whole", whole), ("none", whole.replace(readout={}))):
        part = sequence.played(one)[-1]
        (block,) = part.timeline.blocks
        assert moments.b_matrix(part.timeline)[0, 0] == pytest.approx(800, rel=1e-10)
        lobe = [g for g in block.gradients if g.axis == "x"][-1]
        lengths[name] = lobe.end - lobe.start
        echo = block.rf[0].reference + one["TE"]
        if name == "whole":
            assert lobe.end == pytest.approx(echo + sequence.readout(one).knots.min(), abs=1e-9)
    assert lengths["whole"] < lengths["none"]
    with pytest.raises(InputError, match=r"before the readout, which begins 0\.014\d+ s before the echo"):
        sequence.played(whole.replace(delta=lengths["none"]))


def test_epi_of_the_inner_volume():
    way = sequences.get("diffusion_spin_echo").readout(protocols.ivim_marrow_inner_volume)
    lines = np.unique(way.k[..., 1])
    assert way.readouts == 30 and lines.size == 30  # three quarters of 40
    spacing = np.diff(way.times[:, 0])[::2].mean()
    assert spacing == pytest.approx(0.7e-3)
    centre = np.argmin(np.abs(way.k[:, 0, 1]))
    assert np.abs(way.times[centre]).min() < way.dwell
    # 40 lines of .7 ms: 35.7 Hz a pixel; the main fat peak at 427 Hz moves by 12 (facts of the field)
    assert 427 * 40 * 0.7e-3 == pytest.approx(12, abs=0.1)


def test_the_inner_volume_is_refocused_and_nothing_beside_it():
    case = protocols.ivim_marrow_inner_volume.replace(b=(0.0, 400.0), TR=3.0, fat_suppression={"method": "none"})
    whole = np.abs(played(case, relax=(T1, T2)))
    # at b = 400 too: without diffusion nothing is lost; the sinc of 3 ms, relaxed meanwhile, 3 ms/T2 at most
    closed = np.abs(sequences.get(case.sequence).signal(pool(), case)[0, 0])
    np.testing.assert_allclose(whole, closed, rtol=3e-3 / T2)
    for y in (0.1, -0.1):
        # more than a width away: below 1 %
        assert np.all(np.abs(played(case, relax=(T1, T2), y=y)) < 0.01 * closed)
    # where the magnitude of its small-angle profile has fallen to one half, at 40 mm, sin^2 of half the angle is less
    edge = np.abs(played(case, relax=(T1, T2), y=0.04))
    assert np.all((edge > 0.01 * closed) & (edge < 0.5 * closed))


def test_walkers_attenuate_what_the_pulses_leave():
    """On rung engine water decays with D under the lobes, and a field offset is refocused."""
    bone, given = phantoms.marrow_block(), protocols.ivim_marrow.replace(b=(0.0, 800.0))
    found = {off: scan(bone, given, rung="engine", off_resonance=off).values.ravel() for off in (0.0, 20.0)}
    pools = scan(bone, given).values.ravel()
    # blood, 4 % of water, has gone by then on both; kurtosis differs between the two in third order of b D of .36
    assert found[0.0][1] / found[0.0][0] == pytest.approx(pools[1] / pools[0], abs=0.02)
    # 20 Hz against a refocusing pulse of 5 kHz
    np.testing.assert_allclose(found[20.0], found[0.0], rtol=2 * 20 / 5000)


@pytest.mark.parametrize("name", ["mrs_steam_marrow", "mrs_press_marrow", "dixon_spin_echo", "tse_marrow"])
def test_a_phantom_through_the_pulses(name):
    bone = phantoms.marrow_block()
    pools, engine = (scan(bone, protocols.get(name), rung=rung).values.ravel() for rung in ("pools", "engine"))
    # fat at 427 Hz: a hard 90 degree pulse acts as if 2/pi of its length before its end, not at its middle, which makes
    # a phase; a refocusing pulse of 5 kHz has an axis tilted by 427/5000, and loses the square of it
    phase, tilt = 2 * np.pi * 427 * 50e-6 * (2 / np.pi - 0.5), 427 / 5000
    np.testing.assert_allclose(engine, pools, rtol=0, atol=(phase + tilt**2) * np.abs(pools).max())


WRONG = [
    ("spin_echo", {"te": (1e-6,), "TR": 0.1}, "room is"),
    (
        "turbo_spin_echo",
        {"echo": (0.01, 0.025, 0.04)},
        "echo is 0.025 s at point 1: expected one of 5 echoes 0.01 s apart",
    ),
    (
        "turbo_spin_echo",
        {"echo": (0.01, 0.02, 0.06)},
        "echo is 0.06 s at point 2: expected one of 5 echoes 0.01 s apart",
    ),
    ("turbo_spin_echo", {"TR": 0.045}, "TR is 0.045 s: expected at least 0.046001 s, when its last event ends"),
    ("press", {"TE1": 0.04}, "TE1 is 0.04 s: expected above 0 and below TE, 0.03 s"),
    ("press", {"constants": {"TR": 1.0}}, "TE1 is missing: sequence press needs it"),
    ("diffusion_spin_echo", {"delta": 0.03}, "delta is 0.03 s and Delta"),
    ("diffusion_spin_echo", {"delta": 0.01, "Delta": 0.01}, "Delta is 0.01 s: expected at least 0.0105"),
    ("diffusion_spin_echo", {"delta": 0.01, "Delta": 0.05}, "Delta 0.05 s: expected lobes"),
    (
        "diffusion_spin_echo",
        {"readout": {"inner_volume": -1.0}},
        "readout.inner_volume is -1.0: expected a width above 0",
    ),
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_what_cannot_be_played(name, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sequences.get(name).played(CASES[name].replace(**changes))
    assert "\n" not in str(caught.value) and "mine" in str(caught.value)


@pytest.mark.parametrize("name", [n for n in protocols if protocols.get(n).sequence in CASES])
def test_presets_are_played_and_scanned(name):
    given = protocols.get(name)
    sequence = sequences.get(given.sequence)
    assert sorted(p for part in sequence.played(given) for p in part.points) == list(range(given.points))
    if given.field_strength == 3.0:
        image = scan(phantoms.marrow_block(), given)
        assert np.iscomplexobj(image) != sequence.magnitude and image.sizes[given.encoding] == given.points
    for switch in sequence.switches:
        with pytest.raises(InputError, match=switch):
            sequence.check(**{switch: "wrong"})
