"""Pulseq files, written by pypulseq and by hand, read as timelines: against pypulseq's k-space and the Bloch engine."""

from __future__ import annotations

import math
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events import moments, pulseq
from bonemri.simulator.acquisition.events.pulseq_runs import Token, runs
from bonemri.simulator.acquisition.events.timeline import (
    ADC,
    RF,
    Block,
    Gradient,
    Hardware,
    Repeat,
    Timeline,
    trapezoid,
)
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import bloch
from bonemri.simulator.engines.isochromats import Isochromats

pp = pytest.importorskip("pypulseq")

# amplitudes stand in a file with six digits, shapes with nine
DIGITS = 5e-6


def system():
    return pp.Opts(
        max_grad=30,
        grad_unit="mT/m",
        max_slew=150,
        slew_unit="T/m/s",
        rf_ringdown_time=20e-6,
        rf_dead_time=100e-6,
        adc_dead_time=10e-6,
    )


def spoiled(n: int) -> np.ndarray:
    """Phases of RF spoiling (rad)."""
    k = np.arange(n)
    return np.radians(117.0 * k * (k + 1) / 2 % 360)


def gradient_echo():
    """RF-spoiled, slice-selective, with phase encoding."""
    seq, lim = pp.Sequence(system()), system()
    rf, gz, gzr = pp.make_sinc_pulse(
        np.radians(10), duration=2e-3, slice_thickness=4e-3, apodization=0.5, time_bw_product=4, system=lim,
        return_gz=True, use="excitation", delay=lim.rf_dead_time, freq_offset=300.0,
    )  # fmt: skip
    gx = pp.make_trapezoid("x", flat_area=64 / 0.2, flat_time=3.2e-3, system=lim)
    adc = pp.make_adc(64, duration=3.2e-3, delay=gx.rise_time, system=lim)
    pre = pp.make_trapezoid("x", area=-gx.area / 2, duration=1e-3, system=lim)
    spoil = pp.make_trapezoid("z", area=500, system=lim)
    for line, phase in enumerate(spoiled(8)):
        rf.phase_offset = adc.phase_offset = phase
        area = (line - 4) / 0.2
        seq.add_block(rf, gz)
        seq.add_block(pre, pp.make_trapezoid("y", area=area, duration=1e-3, system=lim), gzr)
        seq.add_block(pp.make_delay(1e-3))
        seq.add_block(gx, adc, pp.make_label(type="INC", label="LIN", value=1))
        seq.add_block(spoil, pp.make_trapezoid("y", area=-area, duration=1e-3, system=lim))
    return seq


def ultrashort():
    """Half pulses, and radial lines sampled on the ramp of a gradient that is continued in the next block."""
    seq, lim = pp.Sequence(system()), system()
    x = np.linspace(-1, 0, 300, endpoint=False) + 1 / 600
    rf = pp.make_arbitrary_rf(
        np.sinc(2 * x), np.radians(12), delay=lim.rf_dead_time, system=lim, use="excitation", center=300e-6
    )
    for angle in 2 * np.pi * np.arange(6) / 6:
        sign = 1 if angle < np.pi else -1
        slab = pp.make_trapezoid("z", amplitude=sign * 8e5, rise_time=200e-6, flat_time=320e-6, system=lim)
        seq.add_block(rf, slab)
        top = 6e5 * np.array([math.cos(angle), math.sin(angle)])
        out = [
            pp.make_extended_trapezoid(c, times=np.array([0, 200e-6, 800e-6]), amplitudes=np.array([0, a, a]))
            for c, a in zip("xy", top, strict=True)
        ]
        seq.add_block(*out, pp.make_adc(156, dwell=5e-6, system=lim))
        t = (np.arange(40) + 0.5) / 40
        down = [
            pp.make_arbitrary_grad(c, a * np.cos(np.pi / 2 * t), first=a, last=0.0, system=lim)
            for c, a in zip("xy", top, strict=True)
        ]
        seq.add_block(*down, pp.make_delay(4e-3))
    return seq


def echo_planar():
    """Spin echo with an EPI train whose blips cross the borders of blocks."""
    seq, lim = pp.Sequence(system()), system()
    rf, gz, gzr = pp.make_sinc_pulse(
        np.radians(90), duration=2e-3, slice_thickness=5e-3, time_bw_product=4, system=lim, return_gz=True,
        use="excitation", delay=lim.rf_dead_time,
    )  # fmt: skip
    flip = pp.make_block_pulse(np.pi, duration=500e-6, delay=lim.rf_dead_time, system=lim, use="refocusing")
    crush = pp.make_trapezoid("z", area=800, system=lim)
    gx = pp.make_trapezoid("x", flat_area=32 / 0.2, flat_time=320e-6, system=lim)
    pre = pp.make_trapezoid("x", area=gx.area / 2, system=lim)
    blip = pp.make_trapezoid("y", area=1 / 0.2, system=lim)
    up = pp.make_trapezoid("y", area=4 / 0.2, system=lim)
    adc = pp.make_adc(32, duration=320e-6, delay=gx.rise_time, system=lim)
    seq.add_block(rf, gz)
    seq.add_block(pre, up, gzr)
    seq.add_block(pp.make_delay(4e-3))
    seq.add_block(crush)
    seq.add_block(flip)
    seq.add_block(crush)
    seq.add_block(pp.make_delay(2e-3))
    for line in range(8):
        seq.add_block(pp.scale_grad(gx, (-1.0) ** line), adc)
        seq.add_block(blip)
    return seq


def transfer():
    """Off-resonant Gaussian saturation, spoiler, hard pulse, sample: the same in every repetition but for its phase."""
    seq, lim = pp.Sequence(system()), system()
    saturate = pp.make_gauss_pulse(
        np.radians(500), duration=6e-3, freq_offset=2000.0, delay=lim.rf_dead_time, system=lim, use="saturation"
    )
    spoil = pp.make_trapezoid("z", area=3000, system=lim)
    hard = pp.make_block_pulse(np.radians(10), duration=100e-6, delay=lim.rf_dead_time, system=lim, use="excitation")
    adc = pp.make_adc(16, dwell=10e-6, delay=20e-6, system=lim)
    for phase in spoiled(20):
        saturate.phase_offset = hard.phase_offset = adc.phase_offset = phase
        seq.add_block(saturate)
        seq.add_block(spoil)
        seq.add_block(hard)
        seq.add_block(adc)
        seq.add_block(spoil, pp.make_delay(8e-3))
    return seq


WRITTEN = {f.__name__: f for f in (gradient_echo, ultrashort, echo_planar, transfer)}


@pytest.fixture(scope="module", params=WRITTEN)
def written(request, tmp_path_factory):
    """A file that pypulseq has written; what pypulseq reads from it; what we read."""
    path = tmp_path_factory.mktemp("seq") / f"{request.param}.seq"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITTEN[request.param]().write(str(path))
        theirs = pp.Sequence(system())
        theirs.read(str(path), remove_duplicates=False)
    return SimpleNamespace(name=request.param, path=path, theirs=theirs, timeline=pulseq.read(path))


# -- against pypulseq


def test_kspace_and_times_are_those_of_pypulseq(written):
    k, _, _, _, times = written.theirs.calculate_kspace()
    # sums of the same numbers in another order; pypulseq rounds its times to 1e-10 s
    np.testing.assert_allclose(moments.kspace(written.timeline).T, k, rtol=0, atol=1e-9 * np.abs(k).max())
    np.testing.assert_allclose(written.timeline.sample_times(), times, rtol=0, atol=1e-12)
    assert written.timeline.duration == pytest.approx(written.theirs.duration()[0], rel=1e-12)


def test_pulses_are_those_of_pypulseq(written):
    ours = [(block.rf[0], start, phase) for block, start, phase in written.timeline.played() if block.rf]
    start, k = 0.0, 0
    for number, duration in written.theirs.block_durations.items():
        rf = written.theirs.get_block(number).rf
        if rf is not None:
            pulse, at, phase = ours[k]
            k += 1
            assert at == pytest.approx(start, abs=1e-12) and pulse.use == rf.use
            area = np.trapezoid(rf.signal, rf.t) if len(rf.t) == 2 else rf.signal.sum() * (rf.t[1] - rf.t[0])
            assert pulse.waveform.sum() * pulse.dwell == pytest.approx(area, rel=1e-12)
            assert pulse.flip_angle == pytest.approx(2 * np.pi * abs(area), rel=1e-12)
            assert math.remainder(phase + pulse.phase - rf.phase_offset, 2 * np.pi) == pytest.approx(0, abs=1e-9)
            assert pulse.frequency == rf.freq_offset and pulse.reference == pytest.approx(rf.delay + rf.center)
        start += duration
    assert k == len(ours)


def test_gradient_moments_are_those_of_pypulseq(written):
    pieces = {axis: 0.0 for axis in "xyz"}
    for block, _, _ in written.timeline.played():
        for g in block.gradients:
            pieces[g.axis] += g.area * PROTON
    for axis, pp_form in zip("xyz", written.theirs.get_gradients(), strict=True):
        area = 0.0 if pp_form is None else float(pp_form.integrate(pp_form.x[0], pp_form.x[-1]))
        scale = 0.0 if pp_form is None else np.abs(pp_form.c).max() * 1e-3
        assert pieces[axis] == pytest.approx(area, abs=1e-9 * scale + 1e-12)


def test_equal_blocks_are_one_object(written):
    played = [b for b, _, _ in written.timeline.played()]
    distinct = {id(b) for b in played}
    expected = {"gradient_echo": 4 + 16, "ultrashort": 2 + 6 + 6, "echo_planar": 8 + 2, "transfer": 5}
    # gradient echo: phase encoding changes 8 blocks and 8 rewinders (its 0 is one more); a zero gradient is no event
    assert len(distinct) <= expected[written.name] and len(played) == len(written.theirs.block_events)
    if written.name == "transfer":
        (repeat,) = written.timeline.blocks
        assert isinstance(repeat, Repeat) and repeat.count == 20 and len(repeat.body) == 5
        turned = np.exp(1j * np.array(repeat.phases))
        np.testing.assert_allclose(turned, np.exp(1j * spoiled(20)), atol=DIGITS)


def test_receiver_phase_follows_the_pulse(written):
    """The phase that was taken off a block comes back: as the file has it, for pulse and receiver."""
    adcs = [
        (block.adcs[0].phase + phase, block.adcs[0].frequency)
        for block, _, phase in written.timeline.played()
        if block.adcs
    ]
    theirs = [b.adc for n in written.theirs.block_events if (b := written.theirs.get_block(n)).adc is not None]
    assert len(adcs) == len(theirs)
    for (phase, frequency), adc in zip(adcs, theirs, strict=True):
        assert math.remainder(phase - adc.phase_offset, 2 * np.pi) == pytest.approx(0, abs=1e-9)
        assert frequency == adc.freq_offset


# -- through the engine


def test_engine_gives_the_signal_of_the_timeline_built_by_hand(tmp_path):
    """Saturation, spoiling and RF spoiling, without the file; six digits of the amplitudes are what is left."""
    path = tmp_path / "transfer.seq"
    transfer().write(str(path))
    read = pulseq.read(path)
    lim = system()
    gauss = pp.make_gauss_pulse(np.radians(500), duration=6e-3, system=lim, delay=lim.rf_dead_time, use="saturation")
    spoil = pp.make_trapezoid("z", area=3000, system=lim)
    length = spoil.rise_time + spoil.flat_time + spoil.fall_time
    dwell = gauss.t[1] - gauss.t[0]
    saturate = Block(RF(gauss.signal, dwell, delay=100e-6, frequency=2000.0), duration=6.12e-3)
    crusher = trapezoid("z", 3000 / PROTON, length, spoil.rise_time)
    body = (
        saturate,
        Block(crusher, duration=length),
        Block(RF([10 / 360 / 100e-6], 100e-6, delay=100e-6), duration=220e-6),
        Block(ADC(16, 10e-6, 20e-6), duration=190e-6),
        Block(crusher, duration=8e-3),
    )
    built = Timeline((Repeat(body, 20, tuple(spoiled(20))),))
    assert read.duration == pytest.approx(built.duration, abs=1e-9)
    z = (np.arange(8) + 0.5) / 8 * 1e-3
    spins = Isochromats(0.3, [2e-3] * 8, offset=60.0, position=np.stack([0 * z, 0 * z, z], axis=1))
    ours, theirs = bloch.simulate(read, spins).signal, bloch.simulate(built, spins).signal
    # 500 degrees a repetition, turns by a crusher of 3 a mm: a relative error of 5e-6 of each turns by 2 pi 5e-6 3
    assert np.abs(ours).max() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3 * 2 * np.pi * 3 * DIGITS * np.abs(theirs).max())


def test_trajectory_of_a_gradient_echo(tmp_path):
    path = tmp_path / "gre.seq"
    gradient_echo().write(str(path))
    way = pulseq.trajectory(pulseq.read(path), (1, 8, 64), (0.004, 0.2, 0.2))
    assert way.dimensions == 2 and way.k.shape == (8, 64, 3) and way.dwell == pytest.approx(50e-6)
    np.testing.assert_allclose(way.k[:, 0, 1], (np.arange(8) - 4) / 0.2, atol=4 / 0.2 * DIGITS)
    np.testing.assert_allclose(np.diff(way.k[0, :, 0]), 1 / 0.2, rtol=DIGITS)
    # pulse centre to end, prephasing, delay, ramp, half a dwell
    first = 1.0e-3 + 80e-6 + 1e-3 + 1e-3 + 20e-6 + 25e-6
    np.testing.assert_allclose(way.times[:, 0], first, atol=1e-9)
    assert not np.any(pulseq.echo_times(pulseq.read(path)))


def test_precession_counts_from_the_spin_echo(tmp_path):
    path = tmp_path / "epi.seq"
    echo_planar().write(str(path))
    timeline = pulseq.read(path)
    way = pulseq.trajectory(timeline, (1, 8, 32), (0.005, 0.2, 0.2))
    rf = [start + b.rf[0].reference for b, start, _ in timeline.played() if b.rf]
    echo = pulseq.echo_times(timeline)
    np.testing.assert_allclose(echo, 2 * (rf[1] - rf[0]), rtol=1e-12)
    since = timeline.sample_times().reshape(8, 32) - rf[0]
    np.testing.assert_allclose(way.times + echo[0], since, atol=1e-12)
    # an offset of f turns an isochromat by what the times say: what an engine finds
    flat = pulseq.read(path)
    spin = Isochromats(np.inf, np.inf, offset=[0.0, 17.0])
    on, off = bloch.simulate(flat, spin, exact=True).signal
    # pulses of .5 and 2 ms at 17 Hz: their own turn is not exactly that of their centre (second order of 17 Hz .5 ms)
    np.testing.assert_allclose(np.angle(off / on), 2 * np.pi * 17 * way.times.ravel(), atol=0.02)


def test_a_trajectory_that_is_none(tmp_path):
    pulse, delay = RF([100.0], 1e-4), Block(duration=1e-3)
    cases = [
        (Timeline((Block(pulse),)), "no acquisition"),
        (Timeline((Block(ADC(4, 1e-5)), Block(pulse), delay)), "sample 0 at 5e-06 s: expected an excitation before it"),
        (Timeline((Block(pulse), Block(ADC(4, 1e-5)), Block(ADC(5, 1e-5)))), "has 5 samples of 1e-05 s: expected 4"),
    ]
    for timeline, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            pulseq.trajectory(timeline, 4, 0.2)
    with pytest.raises(InputError, match="fov is -1"):
        pulseq.trajectory(Timeline((Block(pulse), Block(ADC(4, 1e-5)))), 4, -1)


def test_while_stored_nothing_turns():
    """A stimulated echo: the time between storage and recall counts neither as decay nor as precession."""
    uses = [(0.0, "excitation"), (5e-3, "storage"), (25e-3, "recall")]
    events = [RF([100.0], 1e-6, delay=t, use=use) for t, use in uses]
    timeline = Timeline((Block(*events, ADC(1, 1e-6, delay=30e-3), duration=40e-3),))
    # both halves of the echo time from centre to centre
    np.testing.assert_allclose(pulseq.echo_times(timeline), 10e-3, atol=1e-12)
    np.testing.assert_allclose(pulseq.trajectory(timeline, 1, 0.2).times, 0.0, atol=1e-12)


# -- files of every version, written by hand


SHAPES = """[SHAPES]

shape_id 1
num_samples 100
1
0
0
97

shape_id 2
num_samples 100
0
0
98

shape_id 3
num_samples 6
1
-0.25
-0.25
2
0.5

"""


def by_hand(version: tuple[int, int]) -> str:
    """A hard pulse of 250 Hz over 100 us, a trapezoid with a sampled waveform, an ADC and a delay, twice."""
    major, minor = version
    new = version >= (1, 5)
    timed = version >= (1, 4)
    head = f"[VERSION]\nmajor {major}\nminor {minor}\nrevision 1\n\n" + (
        "[DEFINITIONS]\nAdcRasterTime 1e-07\nBlockDurationRaster 1e-05\nGradientRasterTime 1e-05\n"
        "RadiofrequencyRasterTime 1e-06\nName hand\nFOV 0.2 0.1 0.004\n\n"
        if timed
        else ""
    )
    # number, duration (or the number of a delay), RF, x, y, z, ADC, extension
    rows = [[1, 20, 1, 0, 0, 0, 0, 0], [2, 30, 0, 1, 2, 0, 1, 0], [3, 50, 0, 0, 0, 0, 0, 0]]
    rows += [[4, 20, 1, 0, 0, 0, 0, 0], [5, 30, 0, 1, 2, 0, 1, 0], [6, 50, 0, 0, 0, 0, 0, 0]]
    if not timed:
        rows = [[n, {20: 2, 30: 3, 50: 1}[d], *rest] for n, d, *rest in rows]
    if version < (1, 3):
        rows = [row[:-1] for row in rows]
    blocks = "[BLOCKS]\n" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"
    rf = {True: "1 250 1 2 0 50 20 0 0 40 0.5 e", False: "1 250 1 2 0 20 40 0.5" if timed else "1 250 1 2 20 40 0.5"}
    rest = f"[RF]\n{rf[new]}\n\n"
    rest += f"[GRADIENTS]\n2 1000 {'0 -500 3 0' if new else '3 0' if timed else '3'} 100\n\n"
    rest += "[TRAP]\n1 2000 20 100 30 50\n\n"
    rest += f"[ADC]\n1 10 5000 70 {'0 0 ' if new else ''}0 0.5{' 0' if new else ''}\n\n"
    if not timed:
        rest += "[DELAYS]\n1 500\n2 200\n3 300\n\n"
    return head + blocks + rest + SHAPES


@pytest.mark.parametrize("version", [(1, 2), (1, 3), (1, 4), (1, 5)], ids=str)
def test_every_version_says_the_same(version, tmp_path):
    path = tmp_path / "hand.seq"
    path.write_text(by_hand(version))
    timeline = pulseq.read(path)
    (repeat,) = timeline.blocks
    assert repeat.count == 2 and timeline.duration == pytest.approx(2e-3, rel=1e-12) and timeline.samples == 20
    first, second, third = (b for b, _, _ in list(timeline.played())[:3])
    assert [round(b.duration * 1e6) for b in (first, second, third)] == [200, 300, 500] and not third.events
    (pulse,) = first.rf
    assert (pulse.delay, pulse.frequency, pulse.use) == (pytest.approx(20e-6), 40.0, "excitation")
    assert pulse.duration == pytest.approx(100e-6) and pulse.flip_angle == pytest.approx(2 * np.pi * 0.025)
    assert pulse.reference == pytest.approx(70e-6)
    assert next(p for b, _, p in timeline.played() if b.rf) == pytest.approx(0.5)
    x, y = second.gradients
    np.testing.assert_allclose(x.times, [50e-6, 70e-6, 170e-6, 200e-6], atol=1e-12)
    np.testing.assert_allclose(x.values * PROTON, [0, 2000, 2000, 0], rtol=1e-12)
    np.testing.assert_allclose(y.times, np.array([100, 105, 115, 125, 135, 145, 155, 160]) * 1e-6, atol=1e-12)
    # shape 3 holds differences; the edge after it goes on as the last two points do, unless the file says otherwise
    last = -0.5 if version == (1, 5) else 0.75
    np.testing.assert_allclose(y.values * PROTON, np.array([0, 1, 0.75, 0.5, 0.25, 0, 0.5, last]) * 1000, atol=1e-9)
    (adc,) = second.adcs
    assert (adc.samples, adc.dwell, adc.delay) == (10, pytest.approx(5e-6), pytest.approx(70e-6))
    assert adc.phase == pytest.approx(0.0)  # counted from the pulse
    np.testing.assert_allclose(adc.times, 70e-6 + (np.arange(10) + 0.5) * 5e-6)
    expected = {"FOV": (0.2, 0.1, 0.004), "Name": "hand"} if version >= (1, 4) else {}
    assert {k: v for k, v in pulseq.definitions(path).items() if k in ("FOV", "Name")} == expected


def test_before_version_15_a_waveform_begins_where_the_one_before_ended(tmp_path):
    """Ramp up to the end of a block, then a sampled waveform: the edge between them is that of the ramp, each time."""
    text = by_hand((1, 4))
    ramp = "3 1000 4 5 0\n2 800 3 0 0\n"
    text = re.sub(r"\[GRADIENTS\]\n.*\n", f"[GRADIENTS]\n{ramp}", text)
    rows = ["1 10 0 3 0 0 0 0", "2 6 0 2 0 0 0 0", "3 10 0 0 0 0 0 0", "4 10 0 3 0 0 0 0", "5 6 0 2 0 0 0 0"]
    text = re.sub(r"\[BLOCKS\]\n(.*\n)*?\n", "[BLOCKS]\n" + "\n".join(rows) + "\n\n", text)
    text += "shape_id 4\nnum_samples 2\n0\n1\n\nshape_id 5\nnum_samples 2\n0\n10\n\n"
    (path := tmp_path / "edge.seq").write_text(text)
    timeline = pulseq.read(path)
    blocks = [b for b, _, _ in timeline.played()]
    for up, waveform in ((blocks[0], blocks[1]), (blocks[3], blocks[4])):
        assert up.gradients[0].end == pytest.approx(100e-6) and up.gradients[0].values[-1] * PROTON == pytest.approx(
            1000
        )
        assert waveform.gradients[0].start == 0.0
        assert waveform.gradients[0].values[0] == pytest.approx(up.gradients[0].values[-1], rel=1e-12)
    assert blocks[1] is blocks[4]


def test_uses_that_a_file_does_not_tell(tmp_path):
    """Before 1.5: up to 90 degrees an excitation, above a refocusing, off resonance without gradient a saturation."""
    (path := tmp_path / "uses.seq").write_text(by_hand((1, 4)))
    for amplitude, frequency, use in [
        (2500, 40, "excitation"),
        (5000, 40, "refocusing"),
        (5000, 20000, "saturation"),
        (250, 20000, "saturation"),
    ]:
        path.write_text(by_hand((1, 4)).replace("1 250 1 2 0 20 40", f"1 {amplitude} 1 2 0 20 {frequency}"))
        assert next(b.rf[0].use for b, _, _ in pulseq.read(path).played() if b.rf) == use


# -- what version 1.5 adds


def written_as(sequence, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sequence.write(str(path))
    return path


def test_ppm_needs_the_field(tmp_path):
    seq = pp.Sequence()
    seq.add_block(pp.make_gauss_pulse(1.0, duration=8e-3, freq_ppm=-3.4, phase_ppm=0.01, use="saturation"))
    path = written_as(seq, tmp_path / "ppm.seq")
    with pytest.raises(
        InputError, match=re.escape("block 1 at 0 s: a phase in ppm: expected the static field, field=")
    ):
        pulseq.read(path)
    (block, _, phase), *_ = pulseq.read(path, field=3.0).played()
    megahertz = 3.0 * PROTON * 1e-6
    assert block.rf[0].frequency == pytest.approx(-3.4 * megahertz, rel=1e-12)
    assert math.remainder(phase - 0.01 * megahertz, 2 * np.pi) == pytest.approx(0, abs=1e-12)


def test_a_phase_for_each_sample(tmp_path):
    seq = pp.Sequence()
    turns = np.array([0.0, 0.3, -0.7, 2.0])
    seq.add_block(pp.make_block_pulse(np.pi / 2, duration=100e-6, use="excitation"))
    adc = pp.make_adc(4, dwell=10e-6, freq_offset=1000.0, phase_offset=0.4, phase_modulation=turns)
    seq.add_block(adc)
    timeline = pulseq.read(written_as(seq, tmp_path / "modulated.seq"))
    spin = Isochromats(np.inf, np.inf)
    signal = bloch.simulate(timeline, spin, exact=True).signal[0]
    expected = -(0.4 + turns + 2 * np.pi * 1000 * (np.arange(4) + 0.5) * 10e-6)
    np.testing.assert_allclose(np.angle(signal / signal[0] * np.exp(1j * expected[0])), expected, atol=DIGITS)


def test_points_of_a_pulse_are_joined_by_straight_lines(tmp_path):
    """A triangle of three points, 1000 Hz high, over 200 us: an area of .1 turns, half of it before its middle."""
    seq = pp.Sequence()
    rf = pp.make_block_pulse(1.0, duration=200e-6, use="excitation")
    rf.signal, rf.t, rf.center = np.array([0.0, 1000.0, 0.0]), np.array([0.0, 100e-6, 200e-6]), 100e-6
    seq.add_block(rf)
    (block, _, _), *_ = pulseq.read(written_as(seq, tmp_path / "triangle.seq")).played()
    pulse = block.rf[0]
    assert pulse.waveform.size == 200 and pulse.dwell == pytest.approx(1e-6)
    assert pulse.flip_angle == pytest.approx(2 * np.pi * 0.1, rel=1e-9)
    np.testing.assert_allclose(pulse.waveform[:100].real, (np.arange(100) + 0.5) * 10, rtol=1e-6)


def test_soft_delays_are_chosen(tmp_path):
    seq = pp.Sequence()
    seq.add_block(pp.make_block_pulse(1.0, duration=100e-6, use="excitation"))
    seq.add_block(pp.make_soft_delay("TE", offset=-100e-6, factor=2, default_duration=5e-3))
    seq.add_block(pp.make_adc(4, dwell=10e-6))
    path = written_as(seq, tmp_path / "soft.seq")
    with pytest.raises(InputError, match=re.escape("block 2 at 0.0001 s: soft delay TE, 0.005 s unless changed")):
        pulseq.read(path)
    timeline = pulseq.read(path, delays={"TE": 20e-3})
    assert timeline.sample_times()[0] == pytest.approx(100e-6 + 20e-3 / 2 - 100e-6 + 5e-6, abs=1e-12)
    with pytest.raises(InputError, match="soft delay TE of -1 s makes a block of -0.5001 s"):
        pulseq.read(path, delays={"TE": -1})


def test_another_nucleus_sees_stronger_gradients(tmp_path):
    path = written_as(gradient_echo(), tmp_path / "gre.seq")
    light, heavy = pulseq.read(path), pulseq.read(path, nucleus="31P")
    np.testing.assert_allclose(moments.kspace(heavy), moments.kspace(light), rtol=1e-12, atol=1e-9)
    with pytest.raises(InputError, match="nucleus is '13C': expected 1H or 31P"):
        pulseq.read(path, nucleus="13C")
    with pytest.warns(UserWarning, match="the hardware gives 0.001 T/m"):
        pulseq.read(path, hardware=Hardware(gradient=1e-3))


# -- runs of blocks


BLOCKS = (
    Block(RF([1.0], 1e-4)),
    Block(ADC(2, 1e-5)),
    Block(Gradient("x", [0, 1e-3, 2e-3], [0, 1e-3, 0])),
    Block(duration=1e-3),
)


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, -2.0])), min_size=1, max_size=5),
    count=st.integers(1, 6),
    increment=st.floats(-3.0, 3.0),
    tail=st.lists(st.tuples(st.integers(0, 3), st.floats(-10.0, 10.0)), max_size=4),
)
def test_runs_play_the_same_blocks_at_the_same_phases(pattern, count, increment, tail):
    train = [(kind, phase + n * n * increment) for n in range(count) for kind, phase in pattern] + tail
    tokens = [Token(BLOCKS[kind], phase if kind < 2 else None) for kind, phase in train]
    played = list(Timeline(runs(tokens)).played())
    assert [b for b, _, _ in played] == [t.block for t in tokens]
    for (_, _, phase), token in zip(played, tokens, strict=True):
        if token.phase is not None:
            # sums of a few phases; those within 1e-9 are taken as one
            assert math.remainder(phase - token.phase, 2 * math.pi) == pytest.approx(0, abs=3e-9)


def test_a_train_becomes_one_repeat():
    tokens = [Token(BLOCKS[k], p) for n in range(500) for k, p in ((0, 2.0 * n * n), (1, 2.0 * n * n + 0.3), (3, None))]
    (repeat,) = runs(tokens)
    assert isinstance(repeat, Repeat) and repeat.count == 500 and len(repeat.body) == 3


# -- what cannot be read


GOOD = by_hand((1, 5))
ROTATED = GOOD.replace("5 30 0 1 2 0 1 0", "5 30 0 1 2 0 1 1").replace(
    "[SHAPES]", "[EXTENSIONS]\n1 7 1 0\n\nextension ROTATIONS 7\n1 1 0 0 0\n\n[SHAPES]"
)
BAD = [
    (GOOD.replace("[VERSION]", "[VERSIO]"), "no sections [VERSION] and [BLOCKS]: expected a Pulseq file"),
    (GOOD.replace("minor 5", "minor 1"), "version is 1.1: expected 1.2 to 1.5"),
    (GOOD.replace("major 1", "major 2"), "version is 2.5: expected 1.2 to 1.5"),
    (GOOD.replace("minor 5\n", ""), "version is not stated: expected 1.2 to 1.5"),
    (GOOD.replace("[TRAP]", "[TRAPEZE]"), "pypulseq cannot read it (ValueError: Unknown section code: [TRAPEZE])"),
    (GOOD.replace("1 250 1 2", "1 two 1 2"), "pypulseq cannot read it (ValueError"),
    (re.sub(r"\[BLOCKS\]\n(.*\n)*?\n", "[BLOCKS]\n\n", GOOD), "no blocks: expected at least one"),
    # pypulseq alone would read on for ever
    (GOOD[: GOOD.index("1\n-0.25")], "pypulseq cannot read it (ValueError: could not convert string to float"),
    (GOOD[: GOOD.index("-0.25")], "block 2 at 0.0002 s: its events cannot be made (AssertionError"),
    (
        GOOD.replace("2 30 0 1 2 0 1 0", "2 30 0 1 2 0 9 0"),
        "block 2 at 0.0002 s: its events cannot be made (KeyError: 9)",
    ),
    (GOOD.replace("shape_id 2", "shape_id 6"), "block 1 at 0 s: its events cannot be made (KeyError: 2.0)"),
    (ROTATED, "block 5 at 0.0012 s: extension ROTATIONS is not supported: expected labels, triggers or soft delays"),
    (
        GOOD.replace("2 30 0 1", "2 30 1 1"),
        "block 2 at 0.0002 s: RF from 2e-05 to 0.00012 s and ADC from 7e-05 s overlap",
    ),
    (GOOD.replace("4 20 1", "4 5 1"), "block 4 at 0.001 s: RF from 2e-05 to 0.00012 s: expected within the block"),
    (GOOD.replace("1 250 1", "1 nan 1"), "block 1 at 0 s: RF is not finite: expected numbers"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[m[:60] for _, m in BAD])
def test_what_cannot_be_read_is_told_in_one_line(text, message, tmp_path):
    (path := tmp_path / "bad.seq").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        pulseq.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=120, deadline=None)
@given(
    version=st.sampled_from([(1, 2), (1, 4), (1, 5)]),
    place=st.floats(0.0, 1.0),
    damage=st.sampled_from(["cut", "drop line", "drop word", "-1", "0", "1e9", "nan", "word", "7"]),
)
def test_no_damage_does_more_than_an_error(version, place, damage, tmp_path_factory):
    """A file cut off, a line lost, a word lost or changed: a timeline, or an InputError of one line; no hang."""
    text = by_hand(version)
    if damage == "cut":
        text = text[: int(place * len(text))]
    elif damage == "drop line":
        lines = text.splitlines(keepends=True)
        del lines[int(place * (len(lines) - 1))]
        text = "".join(lines)
    else:
        words = list(re.finditer(r"\S+", text))
        word = words[int(place * (len(words) - 1))]
        text = text[: word.start()] + ("" if damage == "drop word" else damage) + text[word.end() :]
    (path := tmp_path_factory.mktemp("damaged") / "damaged.seq").write_text(text)
    try:
        assert pulseq.read(path).duration >= 0
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)


def test_an_unused_extension_is_no_obstacle(tmp_path):
    (path := tmp_path / "unused.seq").write_text(ROTATED.replace("5 30 0 1 2 0 1 1", "5 30 0 1 2 0 1 0"))
    assert pulseq.read(path).samples == 20


def test_a_missing_file_a_binary_one_and_a_missing_reader(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"none\.seq: cannot be read"):
        pulseq.read(tmp_path / "none.seq")
    (tmp_path / "binary.seq").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not text: expected a Pulseq file"):
        pulseq.read(tmp_path / "binary.seq")
    (path := tmp_path / "good.seq").write_text(GOOD)
    monkeypatch.setitem(sys.modules, "pypulseq", None)
    with pytest.raises(
        InputError, match=re.escape("reading it needs pypulseq: expected the extra, pip install 'bonemri[")
    ):
        pulseq.read(path)
