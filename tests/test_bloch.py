"""The Bloch engine against closed forms, each worked out apart from it, and against its own laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bonemri.simulator.acquisition.events.timeline import (
    ADC,
    RF,
    Block,
    Repeat,
    Spoiler,
    Timeline,
    rf_spoiling,
    trapezoid,
)
from bonemri.simulator.engines import bloch
from bonemri.simulator.engines.isochromats import Isochromats

TURN = 2 * math.pi
EXACT = 1e-10  # exponentials and affine maps: rounding of a few thousand operations, with a margin
HARD = (
    4e-9  # s: closed forms know pulses of no length. This one is short of S by 4e-13, and of all that happens by 1e-11
)
S = 1e4  # a second of those tests: the Bloch equations do not mind in what unit time is counted
GAMMA = 42.577478518e6  # Hz/T


def hard(angle: float, phase: float = 0.0, **event) -> RF:
    """A pulse of no length to speak of."""
    return RF([angle / TURN / HARD], HARD, phase=phase, **event)


def instant(delay: float = 0.0, **event) -> ADC:
    """One sample at this time."""
    return ADC(1, HARD, delay - HARD / 2 if delay else 0.0, **event)


def delay(time: float) -> Block:
    return Block(duration=time)


def play(*blocks, spins=None, exact=True, **options):
    return bloch.simulate(Timeline(blocks), spins or Isochromats(T1=math.inf, T2=math.inf), exact=exact, **options)


def steady(*blocks, spins, exact=True, **options):
    return bloch.steady_state(Timeline(blocks), spins, exact=exact, **options)


# ---- closed forms: relaxation, saturation, inversion ---------------------------------------------------------------


def test_ernst():
    """Spoiled gradient echo: Mz = M0 (1 - E1)/(1 - cos(a) E1), over angles and TR/T1, largest at cos(a) = E1."""
    T1, T2, TR = np.array([0.1, 0.5, 2.0]) * S, 0.05 * S, 0.02 * S
    for degrees in (1, 5, 20, 60, 90, 150):
        a, E1 = math.radians(degrees), np.exp(-TR / T1)
        found = steady(Block(hard(a), instant(2 * HARD), Spoiler(), duration=TR), spins=Isochromats(T1=T1, T2=T2))
        expected = np.sin(a) * (1 - E1) / (1 - np.cos(a) * E1)
        np.testing.assert_allclose(np.abs(found.signal[:, 0]), expected, atol=EXACT)
    angles = np.linspace(0.5, 1.5, 201) * math.acos(math.exp(-TR / T1[1]))
    signal = [
        abs(
            steady(Block(hard(a), instant(2 * HARD), Spoiler(), duration=TR), spins=Isochromats(T1=T1[1], T2=T2)).signal
        )
        for a in angles
    ]
    assert abs(angles[np.argmax(signal)] - math.acos(math.exp(-TR / T1[1]))) < 1.1 * (angles[1] - angles[0])


@pytest.mark.parametrize("flip", [0.1, 0.8, 1.5, 3.0])
@pytest.mark.parametrize("T2", [0.3e-3, 0.05e-3, 2e-3])
def test_rectangular_pulse_with_T2(flip, T2):
    """Sussman et al. 1998 (doi:10.1002/mrm.1910400609): on resonance, T1 left out, with r = 1/(2 T2), w^2 = w1^2 - r^2

    Mz = e^(-r t) (cos(w t) + r sin(w t)/w), M+ = e^(-r t) w1 sin(w t)/w; both kinds of damping.
    """
    t = 0.5e-3
    w1, r = flip / t, 0.5 / T2
    w = np.sqrt(complex(w1**2 - r**2))
    z = np.real(np.exp(-r * t) * (np.cos(w * t) + r * np.sin(w * t) / w))
    across = np.real(np.exp(-r * t) * w1 * np.sin(w * t) / w)
    pulse = Block(RF([w1 / TURN], t))
    spins = Isochromats(T1=math.inf, T2=T2)
    np.testing.assert_allclose(play(pulse, spins=spins).magnetisation[0], [0, -across, z], atol=EXACT)
    stepped = play(pulse, spins=spins, exact=False).magnetisation[0]
    np.testing.assert_allclose(stepped, [0, -across, z], atol=2e-5)


@pytest.mark.parametrize("offset", [0.0, 35.0, -400.0])
def test_continuous_wave_saturation(offset):
    """Mz/M0 = (1 + D^2 T2^2)/(1 + D^2 T2^2 + w1^2 T1 T2), and the transverse part of Bloch's steady state."""
    T1, T2, w1, D = 0.8, 0.02, TURN * 11.0, TURN * offset
    bottom = 1 + (D * T2) ** 2 + w1**2 * T1 * T2
    expected = np.array([D * w1 * T2**2, -w1 * T2, 1 + (D * T2) ** 2]) / bottom
    spins = Isochromats(T1=T1, T2=T2, offset=offset)
    found = steady(Block(RF([w1 / TURN], 1e-3)), spins=spins).magnetisation[0]
    np.testing.assert_allclose(found, expected, atol=EXACT)
    played = play(Repeat((Block(RF([w1 / TURN], 1e-3)),), 20_000), spins=spins).magnetisation[0]
    np.testing.assert_allclose(played, expected, atol=1e-9)  # 20 s, 25 T1: exp(-25) is left


@pytest.mark.parametrize("flip", [0.3, 1.0, math.pi / 2, 2.5, math.pi])
def test_inversion_recovery_of_any_flip(flip):
    """Mz = 1 - (1 - cos a) exp(-TI/T1)."""
    T1 = 0.9 * S
    TI = np.array([0.01, 0.3, 1.2]) * S
    spins = Isochromats(T1=T1, T2=0.05 * S)
    found = [play(Block(hard(flip)), Block(Spoiler(), duration=t), spins=spins) for t in TI]
    expected = 1 - (1 - math.cos(flip)) * np.exp(-TI / T1)
    np.testing.assert_allclose([r.magnetisation[0, 2] for r in found], expected, atol=EXACT)


@pytest.mark.parametrize("Q", [-1.0, -0.6, -0.2])
def test_inversion_null_with_efficiency(Q):
    """Repeated inversion of efficiency Q (Mz+ = Q Mz-): null after the inversion at TI = T1 ln((1 - Q)/(1 - Q E)).

    Saturation at the readout leaves nothing: Mz- = 1 - exp(-(TR - TI)/T1). Q is cos of the flip, and a spoiler.
    """
    T1, TR = 0.4 * S, 0.7 * S
    # null: 1 - (1 - Q m) exp(-TI/T1) = 0, with m = 1 - exp(-(TR - TI)/T1): exp(TI/T1) = 1 - Q + Q E exp(TI/T1)
    E = math.exp(-TR / T1)
    TI = T1 * math.log((1 - Q) / (1 - Q * E))
    body = (
        Block(hard(math.acos(Q)), Spoiler(), duration=TI),
        Block(hard(math.pi / 2), instant(2 * HARD), Spoiler(), duration=TR - TI),
    )
    spins = Isochromats(T1=T1, T2=0.03 * S)
    assert abs(steady(*body, spins=spins).signal[0, 0]) < EXACT
    near = steady(Block(hard(math.acos(Q)), Spoiler(), duration=TI + 0.01 * S), body[1], spins=spins)
    assert abs(near.signal[0, 0]) > 5e-3


def test_look_locker():
    """Under pulses every TR recovery goes with 1/T1* = 1/T1 - ln(cos a)/TR to M0 (1 - E1)/(1 - E1 cos a)."""
    T1, TR, a, n = 0.8 * S, 0.02 * S, math.radians(8), 150
    E1 = math.exp(-TR / T1)
    train = Repeat((Block(hard(a), instant(2 * HARD), Spoiler(), duration=TR),), n)
    signal = play(Block(hard(math.pi), Spoiler()), train, spins=Isochromats(T1=T1, T2=0.05 * S)).signal[0]
    z = -signal.imag / math.sin(a)  # RF along x turns Mz to -My
    final = (1 - E1) / (1 - E1 * math.cos(a))
    apparent = 1 / (1 / T1 - math.log(math.cos(a)) / TR)
    expected = final + (-1 - final) * np.exp(-TR * np.arange(n) / apparent)
    np.testing.assert_allclose(z, expected, atol=EXACT)


def test_despot_line():
    """S/sin a against S/tan a is a line of slope E1 and intercept M0 (1 - E1)."""
    T1, T2, TR = 0.6 * S, 0.1 * S, 0.015 * S
    angles = np.radians([2, 5, 9, 14, 20, 30])
    echo = [
        abs(steady(Block(hard(a), instant(2 * HARD), Spoiler(), duration=TR), spins=Isochromats(T1=T1, T2=T2)).signal)
        for a in angles
    ]
    signal = np.ravel(echo)
    slope, intercept = np.polyfit(signal / np.tan(angles), signal / np.sin(angles), 1)
    assert slope == pytest.approx(math.exp(-TR / T1), abs=10 * EXACT)  # the line divides by tan a
    assert intercept == pytest.approx(1 - math.exp(-TR / T1), abs=EXACT)


def test_actual_flip_angle():
    """Yarnykh 2007 (doi:10.1002/mrm.21120), exact: the two signals of a pair TR1, TR2, and the angle they give."""
    T1, TR1, TR2, a = 0.7 * S, 0.02 * S, 0.1 * S, math.radians(55)
    pulse = (hard(a), instant(2 * HARD), Spoiler())
    spins = Isochromats(T1=T1, T2=0.05 * S)
    found = np.abs(steady(Block(*pulse, duration=TR1), Block(*pulse, duration=TR2), spins=spins).signal[0])
    E1, E2, c = math.exp(-TR1 / T1), math.exp(-TR2 / T1), math.cos(a)
    bottom = 1 - E1 * E2 * c**2
    first = math.sin(a) * (1 - E2 + (1 - E1) * E2 * c) / bottom
    second = math.sin(a) * (1 - E1 + (1 - E2) * E1 * c) / bottom
    np.testing.assert_allclose(found, [first, second], atol=EXACT)


# ---- closed forms: steady states of precession ---------------------------------------------------------------------


def balanced(a: float, TR: float) -> tuple[Block, Block]:
    """A pulse in the middle of two halves of TR, with a sample right after it and at the echo."""
    return Block(hard(a, math.pi / 2), instant(2 * HARD)), Block(duration=TR - 2.5 * HARD)


def test_balanced_ssfp_on_resonance():
    """Alternating phases: M+ = M0 sin a (1 - E1)/(1 - (E1 - E2) cos a - E1 E2)."""
    T1, T2, TR = 0.9 * S, 0.07 * S, 0.006 * S
    E1, E2 = math.exp(-TR / T1), math.exp(-TR / T2)
    for degrees in (5, 30, 70, 120):
        a = math.radians(degrees)
        found = steady(*balanced(a, TR), spins=Isochromats(T1=T1, T2=T2), advance=math.pi)
        expected = math.sin(a) * (1 - E1) / (1 - (E1 - E2) * math.cos(a) - E1 * E2)
        assert abs(found.signal[0, 0]) == pytest.approx(expected, abs=EXACT)
        # the same as a period of two repetitions
        pair = steady(Repeat(balanced(a, TR), 2, phases=(0.0, math.pi)), spins=Isochromats(T1=T1, T2=T2))
        np.testing.assert_allclose(pair.signal[0], found.signal[0, 0], atol=1e-12)


def test_freeman_hill_off_resonance():
    """Steady state after pulses of one phase (Freeman and Hill 1971, doi:10.1016/0022-2364(71)90023-3).

    With theta the precession in TR: d = (1 - E1 cos a)(1 - E2 cos theta) - E2 (E1 - cos a)(E2 - cos theta);
    after the pulse about x, M0 (1 - E1) sin a/d times E2 sin theta along x, and E2 cos theta - 1 along y.
    """
    T1, T2, TR, a = 0.5 * S, 0.08 * S, 0.01 * S, math.radians(40)
    E1, E2 = math.exp(-TR / T1), math.exp(-TR / T2)
    offset = np.linspace(-60, 60, 25) / S
    theta = TURN * offset * TR
    c, s = math.cos(a), math.sin(a)
    d = (1 - E1 * c) * (1 - E2 * np.cos(theta)) - E2 * (E1 - c) * (E2 - np.cos(theta))
    expected = (1 - E1) * s / d * (E2 * np.sin(theta) + 1j * (E2 * np.cos(theta) - 1))
    blocks = Block(hard(a), instant(2 * HARD)), Block(duration=TR - 2.5 * HARD)
    found = steady(*blocks, spins=Isochromats(T1=T1, T2=T2, offset=offset)).signal[:, 0]
    np.testing.assert_allclose(found, expected, atol=EXACT)


def test_ssfp_fid():
    """Gradient-spoiled steady state: tan(a/2) (1 - (E1 - cos a) (1 - E2^2)/sqrt(p^2 - q^2)), with

    p = 1 - E1 cos a - E2^2 (E1 - cos a), q = E2 (1 - E1) (1 + cos a) (Haenicke and Vogel 2003, doi:10.1002/mrm.10410).
    A mean over one turn of evenly spaced isochromats is exact but for E2^n.
    """
    T1, T2, TR, a = 0.4 * S, 0.06 * S, 0.012 * S, math.radians(35)
    E1, E2, c = math.exp(-TR / T1), math.exp(-TR / T2), math.cos(a)
    p, q = 1 - E1 * c - E2**2 * (E1 - c), E2 * (1 - E1) * (1 + c)
    r = (1 - E2**2) / math.sqrt(p**2 - q**2)
    expected = math.tan(a / 2) * (1 - (E1 - c) * r)
    n = 400
    edge = 1.0 / GAMMA  # T s/m times m: one turn across a voxel of 1 m
    spins, voxel = bloch.subvoxel(Isochromats(T1=T1, T2=T2), (0, 0, 1.0), (1, 1, n))
    blocks = (
        Block(hard(a), instant(2 * HARD)),
        Block(trapezoid("z", edge, 2e-3 * S, 1e-4 * S), duration=TR - 2.5 * HARD),
    )
    found = steady(*blocks, spins=spins, signal=voxel).signal[0, 0]
    assert abs(found) == pytest.approx(expected, abs=EXACT)


# ---- closed forms: echoes ------------------------------------------------------------------------------------------


def echo_spins(time: float, n: int = 64, **tissue) -> Isochromats:
    """Spins that are spread evenly over one turn after this time."""
    offset = (np.arange(n) - (n - 1) / 2) / (n * time)
    return Isochromats(**{"T1": math.inf, "T2": math.inf} | tissue, offset=offset, density=1 / n)


@pytest.mark.parametrize("a", [0.5, 1.2, math.pi / 2])
@pytest.mark.parametrize("b", [0.4, 1.9, math.pi])
def test_hahn_echo(a, b):
    """Two pulses make an echo of sin a sin^2(b/2)."""
    tau = 0.01 * S
    blocks = Block(hard(a)), delay(tau - HARD), Block(hard(b, math.pi / 2)), Block(instant(tau))
    found = play(*blocks, spins=echo_spins(tau), signal="sum").signal[0]
    assert abs(found) == pytest.approx(math.sin(a) * math.sin(b / 2) ** 2, abs=EXACT)


def test_stimulated_echo_is_a_half():
    """Three pulses of 90 degrees: half of all, with exp(-TM/T1) and exp(-TE/T2)."""
    TE, TM, T1, T2 = 0.02 * S, 0.13 * S, 0.6 * S, 0.08 * S
    pulse = Block(hard(math.pi / 2))
    blocks = pulse, delay(TE / 2 - HARD), pulse, Block(Spoiler(), duration=TM - HARD), pulse, Block(instant(TE / 2))
    found = play(*blocks, spins=echo_spins(TE / 2, T1=T1, T2=T2), signal="sum").signal[0]
    # the spoiler takes what is transverse during TM; what has recovered is not in phase at the echo
    assert abs(found) == pytest.approx(0.5 * math.exp(-TM / T1 - TE / T2), abs=EXACT)


def test_cpmg():
    """Echoes of 180 degrees about the magnetisation decay with T2 alone, whatever the offset."""
    T2, spacing, n = 0.05 * S, 0.01 * S, 30
    half = delay(spacing / 2 - HARD / 2)

    excite, refocus = Block(hard(math.pi / 2, math.pi / 2)), Block(hard(math.pi))
    echo = Block(instant(spacing / 2 - HARD), duration=spacing / 2 - HARD / 2)
    spins = echo_spins(spacing / 2, n=128, T1=5.0 * S, T2=T2)
    found = play(excite, Repeat((half, refocus, echo), n), spins=spins, signal="sum").signal
    decay = np.exp(-spacing / T2 * np.arange(1, n + 1))
    np.testing.assert_allclose(np.abs(found), decay, atol=EXACT)


# ---- closed forms: long pulses -------------------------------------------------------------------------------------


def test_exact_rotation_and_bloch_siegert():
    """A rectangular pulse off resonance turns about its effective field; far off, by an extra phase of w1^2 t/(2 D)."""
    t, nu1 = 0.7e-3, 310.0
    offset = np.array([-4000.0, -150.0, 1.0, 90.0, 2500.0])
    eff = np.hypot(nu1, offset)
    z = 1 - (nu1 / eff) ** 2 * (1 - np.cos(TURN * eff * t))
    found = play(Block(RF([nu1], t)), spins=Isochromats(math.inf, math.inf, offset=offset)).magnetisation
    np.testing.assert_allclose(found[:, 2], z, atol=EXACT)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=EXACT)
    # a spin along x under a pulse at a carrier 8 kHz away
    D, tau = 8000.0, 5e-3
    kick = play(
        Block(RF([nu1], tau, frequency=D)), initial=(1.0, 0.0, 0.0), spins=Isochromats(math.inf, math.inf)
    ).magnetisation[0]
    # to first order the shift is away from the carrier: -w1^2/(2 D)
    phase = math.atan2(kick[1], kick[0])
    assert phase == pytest.approx(-TURN * nu1**2 / (2 * D) * tau, rel=2e-2)  # (w1/D)^2/4 and the tilt w1/D of the axis
    turn = TURN * math.hypot(nu1, D) * tau
    axis = np.array([nu1, 0.0, -D]) / math.hypot(nu1, D)
    first = np.array([1.0, 0, 0])
    rodrigues = (
        first * math.cos(turn) + np.cross(axis, first) * math.sin(turn) + axis * (axis @ first) * (1 - math.cos(turn))
    )
    c, s = math.cos(TURN * D * tau), math.sin(TURN * D * tau)
    back = [c * rodrigues[0] - s * rodrigues[1], s * rodrigues[0] + c * rodrigues[1], rodrigues[2]]
    np.testing.assert_allclose(kick, back, atol=EXACT)


def sech(beta: float, mu: float, peak: float, duration: float, n: int) -> RF:
    """Hyperbolic secant: nutation peak (Hz), sech(beta t)^(1 + i mu)."""
    t = (np.arange(n) + 0.5) / n * duration - duration / 2
    envelope = 1 / np.cosh(beta * t)
    return RF(peak * envelope * np.exp(1j * mu * np.log(envelope)), duration / n)


@pytest.mark.parametrize("exact", [True, False])
def test_hyperbolic_secant(exact):
    """Silver, Joseph and Hoult 1985 (doi:10.1103/PhysRevA.31.2753), w1 = A sech(beta t), sweep mu beta tanh(beta t):

    Mz = tanh(x + y) tanh(x - y) + cos(pi sqrt((A/beta)^2 - mu^2)) sech(x + y) sech(x - y),
    x = pi D/(2 beta), y = pi mu/2.
    """
    beta, mu = 800.0, 4.0
    offset = np.linspace(-1500, 1500, 31)
    for ratio in (0.6, 1.0, 1.6):
        A = ratio * mu * beta
        pulse = sech(beta, mu, A / TURN, 40 / beta, 25_000)
        found = play(Block(pulse), spins=Isochromats(math.inf, math.inf, offset=offset), exact=exact).magnetisation
        x, y = math.pi * TURN * offset / (2 * beta), math.pi * mu / 2
        root = np.sqrt(complex((A / beta) ** 2 - mu**2))
        expected = np.tanh(x + y) * np.tanh(x - y) + np.real(np.cos(math.pi * root)) / np.cosh(x + y) / np.cosh(x - y)
        # the waveform is constant during 2 us: (beta mu 2 us)^2/24 a step; its ends are cut at sech(20) = 4e-9
        np.testing.assert_allclose(found[:, 2], expected, atol=2e-5)


def test_landau_zener():
    """A linear sweep through resonance leaves a part P = exp(-pi^2 nu1^2/rate) behind: Mz = 2 P - 1."""
    nu1 = 200.0
    for rate in (1e5, 4e5, 1.5e6):
        span = 60_000.0
        n = int(span / rate / 2e-6)
        t = (np.arange(n) + 0.5) * 2e-6 - span / rate / 2
        # smooth ends: without them the ringing of the edge is nu1/span
        edge = 0.5 - 0.5 * np.cos(math.pi * np.clip((span / rate / 2 - np.abs(t)) / (0.15 * span / rate), 0, 1))
        pulse = RF(nu1 * edge * np.exp(1j * math.pi * rate * t**2), 2e-6)
        z = play(Block(pulse), exact=False).magnetisation[0, 2]
        P = math.exp(-(math.pi**2) * nu1**2 / rate)
        # half of the effective field's tilt (nu1/offset)^2 where the edge begins: (200/9000)^2/2 at its smooth ends
        assert z == pytest.approx(2 * P - 1, abs=1e-3)


def test_spin_lock():
    """Along a strong field on resonance magnetisation decays with T2 (T1rho = T2 here); tilted, with a mixture."""
    T1, T2, t, nu1 = 0.5, 0.04, 0.06, 5000.0
    lock = Block(RF([nu1], t))
    found = play(lock, initial=(1.0, 0, 0), spins=Isochromats(T1=T1, T2=T2)).magnetisation[0, 0]
    assert found == pytest.approx(math.exp(-t / T2), abs=EXACT)
    theta = math.atan2(nu1, 5000.0)
    axis = np.array([math.sin(theta), 0, math.cos(theta)])
    spins = Isochromats(T1=T1, T2=T2, offset=5000.0)
    rate = math.sin(theta) ** 2 / T2 + math.cos(theta) ** 2 / T1
    rest = math.cos(theta) / T1 / rate  # what it recovers to along the axis
    along = play(lock, initial=tuple(axis), spins=spins).magnetisation[0] @ axis
    # second order in the rates over the effective field: (1/T2)/(2 pi 7 kHz) = 6e-4
    assert along == pytest.approx(rest + (1 - rest) * math.exp(-rate * t), abs=6e-4)


@pytest.mark.parametrize("T2", [0.2, 0.013])
def test_torrey(T2):
    """Torrey 1949 (doi:10.1103/PhysRev.76.1059) on resonance: approach to the saturated state, damped or not."""
    T1, nu1 = 0.5, 4.0
    w1, R1, R2 = TURN * nu1, 1 / T1, 1 / T2
    rest = np.array([-w1 * T2, 1.0]) / (1 + w1**2 * T1 * T2)  # My, Mz
    mean, split = (R1 + R2) / 2, np.sqrt(complex(w1**2 - ((R2 - R1) / 2) ** 2))
    t = np.array([0.01, 0.05, 0.2])
    start = np.array([0.0, 1.0]) - rest
    cosine, sine = np.cos(split * t), np.sin(split * t) / split
    half = (R2 - R1) / 2
    y = rest[0] + np.real(np.exp(-mean * t) * (start[0] * cosine + (-half * start[0] - w1 * start[1]) * sine))
    z = rest[1] + np.real(np.exp(-mean * t) * (start[1] * cosine + (w1 * start[0] + half * start[1]) * sine))
    found = np.array([play(Block(RF([nu1], u)), spins=Isochromats(T1=T1, T2=T2)).magnetisation[0, 1:] for u in t])
    np.testing.assert_allclose(found, np.stack([y, z], axis=1), atol=EXACT)


def test_rf_spoiling_against_ernst():
    """At 117 degrees RF spoiling comes near Ernst, at 0 degrees to the SSFP-FID, with spins spread over a voxel."""
    T1, T2, TR, a, n = 0.5 * S, 0.08 * S, 0.01 * S, math.radians(15), 600
    area = 1 / GAMMA
    body = Block(hard(a), instant(2 * HARD)), Block(trapezoid("z", area, 2e-3 * S, 1e-4 * S), duration=TR - 2.5 * HARD)
    spins, voxel = bloch.subvoxel(Isochromats(T1=T1, T2=T2), (0, 0, 1.0), (1, 1, 128), Timeline(body))
    E1 = math.exp(-TR / T1)
    ernst = math.sin(a) * (1 - E1) / (1 - math.cos(a) * E1)

    def last(increment):
        phases = rf_spoiling(n, math.radians(increment))
        return abs(play(Repeat(body, n, phases), spins=spins, signal=voxel).signal[0, -1])

    assert last(117) == pytest.approx(ernst, rel=0.03)  # the known departure at 15 degrees and T2 8 TR
    E2, c = math.exp(-TR / T2), math.cos(a)
    p, q = 1 - E1 * c - E2**2 * (E1 - c), E2 * (1 - E1) * (1 + c)
    fid = math.tan(a / 2) * (1 - (E1 - c) * (1 - E2**2) / math.sqrt(p**2 - q**2))
    assert last(0) == pytest.approx(fid, rel=1e-4)  # 12 T1 have passed
    assert fid > 1.15 * ernst
