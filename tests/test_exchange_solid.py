"""Magnetization transfer in bone and dipolar order: what a solid pool does to water under pulses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bonemri.simulator.acquisition.events import pulses
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Repeat, Spoiler, Timeline
from bonemri.simulator.engines import exchange, lineshapes

TWO_PI = 2 * math.pi


def delay(duration: float, *events) -> Block:
    return Block(*events, duration=duration)


def test_saturation_by_the_rate_is_wrong_for_short_T2():
    """Why liquid pools are no rates: water of T2 = .4 ms under an 8 ms Fermi pulse at 2 kHz, as in UTE-MT."""
    pools = exchange.Pools([np.inf], [4e-4], [1.0], [[0.0]])

    def saturated(angle: float) -> tuple[float, float]:
        pulse = pulses.fermi(math.radians(angle), 8e-3, dwell=1.6e-5)
        pulse = RF(pulse.waveform, pulse.dwell, frequency=2e3)
        rates = lineshapes.saturation_rate("lorentzian", pulse.waveform, 2e3, 4e-4)
        end = exchange.simulate(Timeline((Block(pulse),)), pools).magnetisation[0, 0, 2]
        return -math.log(end), float(rates.sum() * pulse.dwell)

    bloch_equations, by_rate = saturated(100)
    assert bloch_equations == pytest.approx(by_rate, rel=0.02)  # weak RF: the rate holds but for the pulse's edges
    bloch_equations, by_rate = saturated(1500)
    assert math.exp(by_rate - bloch_equations) > 1.25  # strong RF: the rate leaves a quarter too little


# ---- magnetization transfer in bone, dipolar order -----------------------------------------------------------------


def ute_mt(angle: float, offset: float, spokes: int = 9, TR: float = 0.1) -> Timeline:
    """A Fermi pulse of 8 ms, then spokes; the protocol of Ma 2018, doi:10.1002/mrm.26846."""
    pulse = pulses.fermi(math.radians(angle), 8e-3, dwell=3.2e-5)
    saturate = Block(RF(pulse.waveform, pulse.dwell, frequency=offset), Spoiler(), duration=9e-3)
    spoke = Block(pulses.hard(math.radians(7), 150e-6), ADC(1, 1e-6, delay=1.8e-4), Spoiler(), duration=5e-3)
    return Timeline((saturate, Repeat((spoke,), spokes), delay(TR - 9e-3 - spokes * 5e-3)))


def collagen(T1D: float | None = None) -> exchange.Pools:
    """Bone in vivo of Ma 2018: R1w 8.9, R1m 1, 11.5 1/s from water to collagen, MMF .545, T2m 15.4 us."""
    density = [0.455, 0.545]
    return exchange.Pools(
        T1=[1 / 8.9, 1.0],
        T2=[4e-4, 15.4e-6],
        density=density,
        rates=exchange.balanced([[0, 11.5], [0, 0]], density),
        lineshape=("", "super_lorentzian"),
        T1D=None if T1D is None else [0, T1D],
    )


def received(timeline: Timeline, pools: exchange.Pools) -> float:
    return float(np.abs(exchange.steady_state(timeline, pools).signal).mean())


def test_magnetization_transfer_in_bone():
    """Powers and offsets of the published protocol: monotonous, from a quarter to all of the signal."""
    full = received(ute_mt(0.01, 5e4), collagen())
    table = np.array([[received(ute_mt(angle, offset), collagen()) / full for offset in (2e3, 5e3, 1e4, 2e4, 5e4)]
                      for angle in (500, 1000, 1500)])  # fmt: skip
    assert np.all(np.diff(table, axis=0) < 0) and np.all(np.diff(table, axis=1) > 0)
    assert 0.2 < table[2, 0] < 0.3 and table[:, -1].min() > 0.99
    # 2 kHz is no offset from collagen but one from water: without collagen little is lost at the lowest power
    water = exchange.Pools(1 / 8.9, 4e-4, [1.0], [[0.0]])
    direct = received(ute_mt(500, 2e3), water) / received(ute_mt(0.01, 5e4), water)
    assert table[0, 0] < 0.9 * direct
    assert received(ute_mt(1000, -5e3), collagen()) == pytest.approx(table[1, 1] * full, rel=1e-12)


def test_observed_T1_is_not_intrinsic():
    """R1w 8.9 1/s with this exchange recovers as 3.9 and 27 1/s: an observed T1 of 257 ms, not of 112 ms."""
    affine = exchange.propagator(delay(0.01), collagen())
    z = affine[0][np.ix_([2, 3], [2, 3])]
    rates = np.sort(-np.log(np.linalg.eigvals(z)) / 0.01)
    np.testing.assert_allclose(rates, [3.9, 27.1], rtol=0.01)


def test_dipolar_order_under_continuous_wave():
    """Provotorov in the steady state: z saturates at the rate W/(1 + W T1D (2 pi offset/D)^2)."""
    offset, T2, T1 = 5e3, 15.4e-6, 0.8
    wave = Timeline((Block(RF([800.0], 2e-3, frequency=offset)),))
    for shape in ("gaussian", "super_lorentzian"):
        W = lineshapes.saturation_rate(shape, 800.0, offset, T2)
        ratio = TWO_PI * offset / lineshapes.local_field(shape, T2)
        for T1D in (1e-7, 1e-3, 6e-3, 10.0):
            pools = exchange.Pools([0.1, T1], [1e-3, T2], [0.1, 0.9], np.zeros((2, 2)), lineshape=("", shape),
                                   T1D=[0, T1D])  # fmt: skip
            found = exchange.steady_state(wave, pools)
            expected = 0.9 / (1 + T1 * W / (1 + W * T1D * ratio**2))
            np.testing.assert_allclose(found.magnetisation[0, 1, 2], expected, rtol=1e-10)
            np.testing.assert_allclose(found.dipolar[0, 1], expected * W * ratio / (1 / T1D + W * ratio**2), rtol=1e-9)


def test_dipolar_order_in_its_limits():
    plain = received(ute_mt(1000, 5e3), collagen())
    ordered = [received(ute_mt(1000, 5e3), collagen(T1D)) for T1D in (1e-8, 1e-4, 1e-3, 6e-3, 50e-3)]
    assert ordered[0] == pytest.approx(plain, rel=1e-4)  # order that dies at once: plain transfer, to W T1D
    assert np.all(np.diff(ordered) > 0)  # it holds back saturation from one side, the more the longer it lives
    assert 1.05 < ordered[3] / plain < 1.3  # up to 20 %, Varma 2015
    # on resonance there is nothing to order
    on = Timeline((Block(RF([200.0], 1e-3), Spoiler(), duration=5e-3),))
    still, moved = (exchange.steady_state(on, collagen(T1D)) for T1D in (None, 6e-3))
    np.testing.assert_allclose(moved.magnetisation, still.magnetisation, rtol=1e-12)
    assert not moved.dipolar.any()


def test_irradiation_from_both_sides_decouples_dipolar_order():
    """Sides that alternate faster than order builds up saturate as if there were none: the contrast of ihMT."""

    def excess(sides: int) -> float:
        """What dipolar order holds back of the saturation of collagen."""
        wave = [Block(RF([300.0], 10e-3 / sides, frequency=7e3 * (-1) ** k)) for k in range(sides)]
        ordered, plain = (exchange.steady_state(Timeline((*wave, delay(20e-3, Spoiler()))), collagen(T1D))
                          for T1D in (6e-3, None))  # fmt: skip
        return float((ordered.magnetisation - plain.magnetisation)[0, 1, 2])

    single, once, often = excess(1), excess(2), excess(20)
    assert single > 0.1 * 0.545
    # the order that one side made is unmade by the other: what is left falls with the square of the switching time
    assert 0 < once < single / 2
    assert 0 < often < 3 * single / 20**2


# ---- an outside code -----------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("lineshape", ["Lorentzian", "SuperLorentzian"])
def test_pulse_trains_as_in_bmctool(lineshape):
    """Water, two exchanging solutes and a solid pool under trains of Gaussian pulses: BMCTool (MIT), z of all pools."""
    pytest.importorskip("bmctool")
    from bmctool.parameters import CESTPool, MTPool, Options, System, WaterPool
    from bmctool.parameters.Parameters import Parameters
    from bmctool.simulation.BlochMcConnellSolver import BlochMcConnellSolver

    B0, gamma = 3.0, TWO_PI * 42.5764  # T, MHz/T in rad: BMCTool's unit
    fractions, to_water = np.array([1.0, 2e-3, 5e-3, 0.1]), np.array([0.0, 60.0, 800.0, 25.0])  # 1/s
    T1, T2 = [1.2, 1.0, 1.1, 1.0], [0.04, 0.02, 0.01, 1e-5]
    ppm = np.array([0.0, 3.5, 1.5, -2.0])
    water = WaterPool(f=1.0, t1=T1[0], t2=T2[0])
    solutes = [CESTPool(k=to_water[k], f=fractions[k], dw=ppm[k], t1=T1[k], t2=T2[k]) for k in (1, 2)]
    solid = MTPool(k=to_water[3], f=fractions[3], dw=ppm[3], lineshape=lineshape, t1=T1[3], t2=T2[3])
    table = Parameters(water, solutes, solid, System(b0=B0, gamma=gamma, b0_inhom=0.0, rel_b1=1.0), Options())

    rates = np.zeros((4, 4))
    rates[:, 0], rates[0] = to_water, to_water * fractions
    rates[0, 0] = 0
    larmor = gamma * B0 / TWO_PI  # Hz per ppm
    shapes = ("", "", "", {"Lorentzian": "lorentzian", "SuperLorentzian": "super_lorentzian"}[lineshape])
    pools = exchange.Pools(T1, T2, fractions, rates, offset=ppm * larmor, lineshape=shapes)
    envelope = 90 * np.exp(-0.5 * np.linspace(-2.5, 2.5, 50) ** 2)  # Hz
    dwell, gap, count = 4e-4, 5e-3, 8
    worst = 0.0
    for shift in (-10.0, 1.5, 3.5, 20.0, 60.0):
        carrier = shift * larmor
        train = Repeat((Block(RF(envelope, dwell, frequency=carrier), Spoiler(), duration=20e-3 + gap),), count)
        ours = exchange.simulate(Timeline((train,)), pools).magnetisation[0, :, 2]
        solver = BlochMcConnellSolver(params=table, n_offsets=1)
        state = table.m_vec.copy()
        for _ in range(count):
            for amplitude in envelope:
                solver.update_matrix(amplitude, 0.0, carrier)
                state = solver.solve_equation(mag=state, dtp=dwell)
            solver.update_matrix(0.0, 0.0, 0.0)
            state = solver.solve_equation(mag=state, dtp=gap)
            state[:6] = 0
        theirs = state[6:]
        worst = max(worst, float(np.abs(ours - theirs).max()))
    print(f"{lineshape}: largest difference of z {worst:.1e}")
    # BMCTool's Pade polynomial of degree 6 is good to rounding. Its super-Lorentzian is a sum of 101 orientations.
    assert worst < (1e-9 if lineshape == "Lorentzian" else 1e-2)
