"""The multi-echo gradient echo: closed form against the textbook, played pulses against it and against the EPG."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.simulator import sequences
from bonemri.simulator.acquisition import Protocol, protocols
from bonemri.simulator.acquisition.events import moments
from bonemri.simulator.acquisition.events.timeline import Repeat
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import bloch, epg
from bonemri.simulator.engines.isochromats import Isochromats
from bonemri.simulator.scan import scan
from bonemri.simulator.sequences import Pool
from bonemri.simulator.tissues import water_shift

SEQUENCE = sequences.get("gradient_echo")
ECHOES = (1.2e-3, 2.3e-3, 3.4e-3, 4.5e-3, 5.6e-3)
DIXON = Protocol(
    "mine", "gradient_echo", "spoiled_gradient_echo", "echo", {"echo": ECHOES}, 3.0,
    constants={"TR": 12e-3, "flip_angle": math.radians(8), "B1": 1.0},
    pulses={"excitation": {"shape": "hard", "duration": 1e-6}},
)  # fmt: skip
PRESETS = [name for name in protocols if protocols.get(name).sequence == "gradient_echo"]
MEGAHERTZ = PROTON * 3.0 * 1e-6


def pool(kind="marrow_water", T1=1.3, T2=0.03, R2_prime=None, shift=None, area=(1.0,)):
    values = {"T1_observed": np.array([T1]), "T2": np.array([T2])}
    if R2_prime is not None:
        values["R2_prime"] = np.array([R2_prime])
    shift = [water_shift()] if shift is None else shift
    return Pool(kind, kind, values, np.array(shift, float), np.array(area, float))


FAT = {"kind": "fat", "T1": 0.35, "T2": 0.07, "R2_prime": 20.0, "shift": (1.30, 5.31), "area": (0.9, 0.1)}


def ernst(T1, TR, flip):
    """Typed from Bernstein, Handbook of MRI Pulse Sequences, 14.1."""
    e = math.exp(-TR / T1)
    return math.sin(flip) * (1 - e) / (1 - math.cos(flip) * e)


# -- the closed form


def test_fat_by_hand():
    t = np.array(ECHOES)
    peaks = 0.9 * np.exp(2j * np.pi * (1.30 - water_shift()) * MEGAHERTZ * t)
    peaks = peaks + 0.1 * np.exp(2j * np.pi * (5.31 - water_shift()) * MEGAHERTZ * t)
    expected = ernst(0.35, 12e-3, math.radians(8)) * np.exp(-t * (1 / 0.07 + 20)) * peaks
    np.testing.assert_allclose(SEQUENCE.signal(pool(**FAT), DIXON)[0], expected, rtol=1e-12)


def test_the_main_fat_peak_lies_below_water():
    # -3.35 ppm at body temperature: -427 Hz at 3 T, a turn of 2.34 ms; in phase with water there, opposed at half of it
    turn = 1 / (3.3466 * MEGAHERTZ)
    protocol = DIXON.replace(echo=(turn / 4, turn / 2, turn))
    fat = SEQUENCE.signal(pool("fat", shift=(1.30,)), protocol)[0]
    water = SEQUENCE.signal(pool(), protocol)[0]
    np.testing.assert_allclose(np.angle(fat / water), [-np.pi / 2, -np.pi, 0], atol=1e-3)
    assert turn == pytest.approx(2.34e-3, rel=1e-3)


def test_water_turns_at_its_own_shift_which_carries_its_temperature():
    cold = SEQUENCE.signal(pool(shift=[water_shift(22.0)]), DIXON)[0]
    # .01085 ppm a degree upwards as it cools, 15 degrees: +20.8 Hz
    slope = np.polyfit(ECHOES, np.unwrap(np.angle(cold)), 1)[0] / (2 * np.pi)
    assert slope == pytest.approx(0.01085 * 15 * MEGAHERTZ, rel=1e-6)
    there = SEQUENCE.signal(pool(shift=[water_shift(22.0)]), DIXON.replace(reference=water_shift(22.0)))[0]
    np.testing.assert_allclose(np.angle(there), 0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(T1=st.floats(0.1, 2.0), T2=st.floats(2e-3, 0.1), R2_prime=st.floats(0, 200), flip=st.floats(0.01, 1.5))
def test_limits(T1, T2, R2_prime, flip):
    protocol = DIXON.replace(flip_angle=flip)
    signal = SEQUENCE.signal(pool(T1=T1, T2=T2, R2_prime=R2_prime), protocol)[0]
    assert np.all(np.diff(np.abs(signal)) < 0)  # a single line only decays
    at_zero = SEQUENCE.signal(pool(T1=T1, T2=T2, R2_prime=R2_prime), SEQUENCE.reference(protocol))[0]
    # no decay at TE 0, where S_ref of the SNR is taken
    assert at_zero == pytest.approx([ernst(T1, 12e-3, flip)], rel=1e-9)
    rate = -np.diff(np.log(np.abs(signal))) / np.diff(ECHOES)
    np.testing.assert_allclose(rate, 1 / T2 + R2_prime, rtol=1e-9)
    without = SEQUENCE.signal(pool(T1=T1, T2=T2, R2_prime=R2_prime), protocol, R2_prime=False)[0]
    np.testing.assert_allclose(without, SEQUENCE.signal(pool(T1=T1, T2=T2), protocol)[0], rtol=1e-12)
    none = SEQUENCE.signal(pool(T1=T1, T2=T2), DIXON.replace(flip_angle=0.0))
    assert not np.any(none)  # no excitation, no signal


def test_kinds_without_a_gradient_echo_and_bound_water():
    for kind in ("macromolecule", "mineral", "phosphorus"):
        assert not np.any(SEQUENCE.signal(pool(kind, T2=1e-5), DIXON))
    # bound water of .3 ms: gone but for e^-4 at the first echo
    bound = SEQUENCE.signal(pool("bound_water", T1=0.12, T2=3e-4), DIXON)[0]
    assert abs(bound[0]) == pytest.approx(ernst(0.12, 12e-3, math.radians(8)) * math.exp(-4), rel=1e-9)
    with pytest.raises(InputError, match="fat needs its spectrum"):
        SEQUENCE.signal(pool("fat", shift=[np.nan]), DIXON)


def test_confounders():
    plain = SEQUENCE.signal(pool(), DIXON)[0]
    field = SEQUENCE.signal(pool(), DIXON, off_resonance=50.0)[0]
    np.testing.assert_allclose(field / plain, np.exp(2j * np.pi * 50 * np.array(ECHOES)), rtol=1e-12)
    weak = SEQUENCE.signal(pool(), DIXON, B1=0.8)[0]
    ratio = ernst(1.3, 12e-3, math.radians(6.4)) / ernst(1.3, 12e-3, math.radians(8))
    np.testing.assert_allclose(weak / plain, ratio, rtol=1e-12)
    first = SEQUENCE.signal(pool(), DIXON, first_echo_phase=0.2)[0]
    np.testing.assert_allclose(np.angle(first / plain), [0.2, 0, 0, 0, 0], atol=1e-12)
    bipolar = DIXON.replace(readout={"polarity": "bipolar"})
    odd = SEQUENCE.signal(pool(), bipolar, bipolar_phase=-0.3)[0]
    np.testing.assert_allclose(np.angle(odd / plain), [0, -0.3, 0, -0.3, 0], atol=1e-12)


def test_a_map_of_the_field_and_of_b1_is_held_voxel_by_voxel():
    offset, B1 = np.array([[0.0], [30.0], [-80.0]]), np.array([[0.7], [1.0], [1.2]])
    together = SEQUENCE.signal(pool(), DIXON, off_resonance=offset, B1=B1)
    for row in range(3):
        alone = SEQUENCE.signal(pool(), DIXON, off_resonance=offset[row, 0], B1=B1[row, 0])[0]
        np.testing.assert_allclose(together[row], alone, rtol=1e-12)


def test_errors_of_a_shot_follow_its_own_echoes():
    two = DIXON.replace(echo=(1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3), shot=(0, 1, 0, 1, 0, 1))
    ratio = SEQUENCE.signal(pool(), two, first_echo_phase=0.2)[0] / SEQUENCE.signal(pool(), two)[0]
    np.testing.assert_allclose(np.angle(ratio), [0.2, 0.2, 0, 0, 0, 0], atol=1e-12)
    bipolar = two.replace(readout={"polarity": "bipolar"})
    ratio = SEQUENCE.signal(pool(), bipolar, bipolar_phase=0.1)[0] / SEQUENCE.signal(pool(), two)[0]
    np.testing.assert_allclose(np.angle(ratio), [0, 0, 0.1, 0.1, 0, 0], atol=1e-12)


# -- what is played


def steady(protocol, T1, T2, offset=0.0):
    """Signal of an isochromat at each point by the Bloch engine."""
    found = np.full(protocol.points, np.nan, complex)
    for part in SEQUENCE.played(protocol):
        z = part.places()
        spins = Isochromats(T1, T2, offset=offset, position=np.stack([0 * z, 0 * z, z], 1), density=1 / z.size)
        run = bloch.steady_state if part.steady else bloch.simulate
        found[list(part.points)] = run(part.timeline, spins, signal="sum").signal[list(part.samples)]
    return found


@pytest.mark.parametrize("shots", [None, (0, 1, 0, 1, 0)])
@pytest.mark.parametrize("offset", [0.0, -427.0])
def test_pulses_give_the_closed_form(shots, offset):
    protocol = DIXON if shots is None else DIXON.replace(shot=shots)
    line = pool(T1=0.5, T2=0.02, shift=[water_shift() + offset / MEGAHERTZ])
    closed = SEQUENCE.signal(line, protocol)[0]
    # a pulse of 1 us about its middle: off by half of it in T2 and T1, and in second order of its offset
    tolerance = 0.5e-6 * (1 / 0.02 + 1 / 0.5) + (2 * np.pi * 427 * 1e-6) ** 2
    np.testing.assert_allclose(steady(protocol, 0.5, 0.02, offset), closed, rtol=2 * tolerance)


def test_a_long_pulse_departs_from_the_closed_form():
    """The reason for the engine: a pulse of 1 ms, and T2 of 1 ms.

    Relaxation during the pulse as in Sussman et al., Magn Reson Med 40:890 (1998), doi:10.1002/mrm.1910400615.
    """
    tau, T1, T2, theta, TR = 1e-3, 0.3, 1e-3, math.radians(8), 12e-3
    long = DIXON.replace(pulses={"excitation": {"shape": "hard", "duration": tau}})
    half = tau / (2 * T2)
    q = math.sqrt(half**2 - theta**2)  # the overdamped branch: sin becomes sinh
    xy = math.exp(-half) * theta * math.sinh(q) / q
    z = math.exp(-half) * (math.cosh(q) + half * math.sinh(q) / q)
    recovery = math.exp(-TR / T1)
    expected = xy * (1 - recovery) / (1 - z * recovery) * math.exp(-(ECHOES[0] - tau / 2) / T2)
    found = abs(steady(long, T1, T2)[0])
    # T1 during the pulse, tau/T1 of .3 %, is left out there
    assert found == pytest.approx(expected, rel=tau / T1)
    closed = abs(SEQUENCE.signal(pool(T1=T1, T2=T2), long)[0, 0])
    assert found / closed > 1.05


def test_points_that_share_a_repetition():
    varied = DIXON.replace(echo=(1e-3, 2e-3, 1e-3, 2e-3), flip_angle=(0.05, 0.05, 0.3, 0.3))
    assert [p.points for p in SEQUENCE.played(varied)] == [(0, 1), (2, 3)]
    np.testing.assert_allclose(steady(varied, 0.5, 0.02), SEQUENCE.signal(pool(T1=0.5, T2=0.02), varied)[0], rtol=1e-4)
    # the order of the table is not that of time
    back = DIXON.replace(echo=ECHOES[::-1])
    np.testing.assert_allclose(steady(back, 0.5, 0.02), steady(DIXON, 0.5, 0.02)[::-1], rtol=1e-12)


@pytest.mark.parametrize("flip", [5.0, 30.0])
def test_rf_spoiling_against_the_epg(flip):
    """Spoiler gradient and quadratic phases played from equilibrium, against another engine pulse by pulse."""
    count = 60
    protocol = DIXON.replace(
        echo=(2e-3,), flip_angle=math.radians(flip), spoiler=3e-5, rf_spoiling=math.radians(117), repetitions=count - 1,
        TR=10e-3,
    )  # fmt: skip
    (part,) = SEQUENCE.played(protocol)
    assert not part.steady and isinstance(part.timeline.blocks[0], Repeat) and part.spread > 0
    train = epg.spoiled_train(0.4, 0.06, np.full(count, math.radians(flip)), 10e-3, TE=2e-3)[0]
    found = steady(protocol, 0.4, 0.06)[0]
    # instantaneous pulses there, 1 us here; 64 spins know 64 orders, of which the higher have decayed: e^(-.64/.06)
    assert found == pytest.approx(train[-1], rel=1e-4)
    # and both stand near the ideally spoiled state, at a small angle nearer
    ideal = steady(protocol.replace(spoiler=0.0), 0.4, 0.06)[0]
    assert abs(found) == pytest.approx(abs(ideal), rel=0.1)


def test_a_spoiler_without_rf_spoiling_is_a_steady_state():
    protocol = DIXON.replace(echo=(2e-3,), spoiler=3e-5)
    (part,) = SEQUENCE.played(protocol)
    assert part.steady and part.places().size == part.spins > 1
    # over its length a spoiler turns the magnetisation once
    area = sum(g.area for b, _, _ in part.timeline.played() for g in b.gradients)
    assert PROTON * area * part.spread == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_played_and_read(name):
    protocol = protocols.get(name)
    covered = sorted(p for part in SEQUENCE.played(protocol) for p in part.points)
    assert covered == list(range(protocol.points))
    ways = SEQUENCE.readout(protocol)
    ways = ways if isinstance(ways, tuple) else (ways,) * protocol.points
    for way in ways:
        # the centre of k-space is read at TE
        nearest = np.abs(way.k).sum(axis=2).min(axis=0).argmin()
        assert way.times[nearest] == pytest.approx(0.0, abs=1e-12)
    image = scan(phantoms.marrow_block(field=protocol.field_strength), protocol)
    assert np.iscomplexobj(image) and image.dims[-1] == "echo"


def test_a_phantom_through_the_pulses():
    bone = phantoms.marrow_block()
    pools, engine = (scan(bone, protocols.dixon_marrow, rung=rung).values.ravel() for rung in ("pools", "engine"))
    # a pulse of 100 us: half of it in T2* of some 15 ms, and fat in second order of its turn by half
    # the pulse, 2 pi 427 Hz 50 us
    np.testing.assert_allclose(engine, pools, rtol=0, atol=(50e-6 / 15e-3 + 0.134**2 / 2) * np.abs(pools).max())
    definition = scan(bone, protocols.dixon_marrow, snr=50).attrs["snr_definition"]
    assert definition.endswith("signal voxels at TE 0, extrapolated")


def test_bipolar_echoes_are_read_in_turn():
    ways = SEQUENCE.readout(protocols.dixon_marrow_bipolar)
    assert [int(w.polarity[0]) for w in ways] == [1, -1] * 6
    np.testing.assert_allclose(ways[1].k[:, ::-1, 0], ways[0].k[:, :, 0])
    assert SEQUENCE.readout(protocols.dixon_marrow).polarity[0] == 1


def test_a_pulse_counts_te_from_its_stated_point():
    """A half sinc leaves its magnetisation at its end: TE counts from there."""
    half = DIXON.replace(pulses={"excitation": {"shape": "half_sinc", "duration": 400e-6}})
    (part,) = SEQUENCE.played(half)
    np.testing.assert_allclose(part.timeline.sample_times(), 400e-6 + np.array(ECHOES), atol=1e-12)
    (part,) = SEQUENCE.played(DIXON.replace(pulses={"excitation": {"shape": "hard", "duration": 400e-6}}))
    np.testing.assert_allclose(part.timeline.sample_times(), 200e-6 + np.array(ECHOES), atol=1e-12)
    assert not np.any(moments.kspace(part.timeline))


WRONG = [
    ({"TR": 5e-3}, "TR is 0.005: expected a repetition time longer than TE"),
    ({"TR": 5.6003e-3, "spoiler": 1e-5, "pulses": {"excitation": {"shape": "hard", "duration": 1e-3}}},
     "TR is 0.0056003 s: expected room for a spoiler after 0.0061005 s"),
    ({"echo": (1e-4,), "pulses": {"excitation": {"shape": "hard", "duration": 1e-3}}}, "overlap"),
    ({"constants": {"TR": 0.1}}, "flip_angle is missing: sequence gradient_echo needs it"),
    ({"pulses": {"excitation": {"shape": "square"}}}, "pulses.excitation.shape is 'square'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[m for _, m in WRONG])
def test_what_cannot_be_played(changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        SEQUENCE.played(DIXON.replace(**changes))
    assert "\n" not in str(caught.value) and "mine" in str(caught.value)


def test_what_cannot_be_read():
    entries = {"trajectory": "cartesian", "matrix": 128, "fov": 0.2, "dwell": 1e-5}
    for readout, message in [
        (entries, "readout lasts 0.00148 s, ramps included: expected at most 0.0011 s"),
        ({**entries, "dwell": 4e-6, "polarity": "both"}, "readout.polarity is 'both': expected monopolar or bipolar"),
        ({"polarity": "bipolar"}, "readout: matrix is missing"),
        ({"trajectory": "radial_3d", "matrix": 8, "fov": 0.2, "dwell": 4e-5, "spokes": 8, "polarity": "bipolar"},
         "expected cartesian for a bipolar train"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=re.escape(message)):
            SEQUENCE.readout(DIXON.replace(readout=readout))
    with pytest.raises(
        InputError, match="bipolar_phase is 0.1: expected 0, as protocol mine reads its echoes monopolar"
    ):
        SEQUENCE.signal(pool(), DIXON, bipolar_phase=0.1)


@pytest.mark.parametrize(
    "switch", [{"B1": 0.0}, {"off_resonance": "far"}, {"R2_prime": 1.0}, {"first_echo_phase": math.nan}], ids=str
)
def test_switches_that_mean_nothing(switch):
    (name,) = switch
    with pytest.raises(InputError, match=f"{name} is .*expected"):
        SEQUENCE.check(**switch)
