"""The exchange engine against matrix exponentials, linear solves, closed forms, and an outside code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events.timeline import (
    ADC,
    RF,
    Block,
    Gradient,
    Repeat,
    Spoiler,
    Timeline,
    rf_spoiling,
)
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import bloch, exchange, lineshapes
from bonemri.simulator.engines.isochromats import Isochromats

EXACT = 1e-10  # some thousand roundings, and the conditioning of a steady state, T1/TR
TWO_PI = 2 * math.pi

# bound and pore water and collagen; the rates are of the order of Ma 2018, doi:10.1002/mrm.26846
BONE = {
    "T1": [0.3, 0.8, 1.0],
    "T2": [4e-4, 3e-3, 15.4e-6],
    "density": [0.4, 0.15, 0.45],
    "rates": exchange.balanced([[0, 20.0, 12.0], [0, 0, 0.5], [0, 0, 0]], [0.4, 0.15, 0.45]),
    "offset": [30.0, -50.0, 10.0],
    "lineshape": ("", "", "super_lorentzian"),
}
WATER_AND_COLLAGEN = {
    "T1": [0.12, 1.0],
    "T2": [4e-4, 15.4e-6],
    "density": [0.455, 0.545],
    "rates": exchange.balanced([[0, 11.5], [0, 0]], [0.455, 0.545]),
}


def changed(table: dict, **changes) -> exchange.Pools:
    return exchange.Pools(**{**table, **changes})


def delay(duration: float, *events) -> Block:
    return Block(*events, duration=duration)


# ---- a second, slow way through a timeline -------------------------------------------------------------------------


class Reference:
    """One spin, written down anew: (x, y, z) of every pool by Kronecker products, a dense exponential each step.

    Solid pools have x and y too, but they are cut off from everything.
    """

    def __init__(self, pools: exchange.Pools, spin: int = 0) -> None:
        self.pools, self.spin, self.count = pools, spin, pools.count
        self.ordered = [p for p in range(self.count) if pools.T1D[spin, p] > 0]
        self.size = 3 * self.count + len(self.ordered) + 1

    def generator(self, rf: complex, carrier: float, gradient: np.ndarray) -> np.ndarray:
        pools, s = self.pools, self.spin
        out = np.zeros((self.size, self.size))
        kinetics = pools.rates[s].T - np.diag(pools.rates[s].sum(axis=1))
        wet = np.diag([float(not name) for name in pools.lineshape])
        transverse = wet @ kinetics @ wet
        # an exchange with a solid pool is of z alone: it takes nothing from x and y
        transverse -= np.diag(transverse.sum(axis=0))
        n = 3 * self.count
        out[:n, :n] = np.kron(kinetics, np.diag([0, 0, 1])) + np.kron(transverse, np.diag([1, 1, 0]))
        w1 = TWO_PI * rf * pools.B1[s]
        for p, name in enumerate(pools.lineshape):
            offset = pools.offset[s, p] + PROTON * gradient @ pools.position[s] - carrier
            x, y, z = 3 * p, 3 * p + 1, 3 * p + 2
            out[z, z] -= 1 / pools.T1[s, p]
            out[z, -1] = pools.density[s, p] / pools.T1[s, p]
            if not name:
                field = np.array([w1.real, w1.imag, TWO_PI * offset])
                out[x : z + 1, x : z + 1] += np.cross(np.eye(3), field)  # m' = field x m
                out[x, x] -= 1 / pools.T2[s, p]
                out[y, y] -= 1 / pools.T2[s, p]
                continue
            rate = np.pi * abs(w1) ** 2 * lineshapes.absorption(name, offset, pools.T2[s, p])
            out[z, z] -= rate
            if p in self.ordered:
                # Provotorov with the inverse temperature b = u/D: z' = -W (z - w b), b' = W w/D^2 (z - w b) - b/T1D
                u, local = n + self.ordered.index(p), float(lineshapes.local_field(name, pools.T2[s, p]))
                ratio = -TWO_PI * offset / local
                out[z, u] = rate * ratio
                out[u, z], out[u, u] = rate * ratio, -rate * ratio**2 - 1 / pools.T1D[s, p]
        return out

    def turn(self, angle: float) -> np.ndarray:
        c, s = math.cos(angle), math.sin(angle)
        out = np.eye(self.size)
        for p in range(self.count):
            out[3 * p : 3 * p + 2, 3 * p : 3 * p + 2] = [[c, -s], [s, c]]
        return out

    def spoil(self) -> np.ndarray:
        return np.diag([0.0 if k < 3 * self.count and k % 3 < 2 else 1.0 for k in range(self.size)])

    def pulse(self, rf: RF, phase: float = 0.0, gradient=(0, 0, 0)) -> np.ndarray:
        """A pulse, sample by sample in the laboratory's frame: the carrier turns with the time since its start."""
        total = np.eye(self.size)
        for k, sample in enumerate(rf.waveform):
            step = expm(rf.dwell * self.generator(sample * np.exp(1j * (rf.phase + phase)), rf.frequency,
                                                  np.asarray(gradient, float)))  # fmt: skip
            start, end = (TWO_PI * rf.frequency * rf.dwell * n for n in (k, k + 1))
            total = self.turn(end) @ step @ self.turn(-start) @ total
        return total

    def wait(self, duration: float, gradient=(0, 0, 0)) -> np.ndarray:
        return expm(duration * self.generator(0, 0, np.asarray(gradient, float)))

    def equilibrium(self) -> np.ndarray:
        state = np.zeros(self.size)
        state[2 : 3 * self.count : 3] = self.pools.density[self.spin]
        state[-1] = 1
        return state

    def periodic(self, total: np.ndarray) -> np.ndarray:
        # x and y of solid pools are not driven and not lost: taken out by least squares
        change = np.eye(self.size - 1) - total[:-1, :-1]
        return np.append(np.linalg.lstsq(change, total[:-1, -1], rcond=None)[0], 1)

    def signal(self, state: np.ndarray) -> complex:
        wet = [p for p, name in enumerate(self.pools.lineshape) if not name]
        return complex(sum(state[3 * p] + 1j * state[3 * p + 1] for p in wet))

    def magnetisation(self, state: np.ndarray) -> np.ndarray:
        return state[: 3 * self.count].reshape(-1, 3)


def shaped(n: int = 24, frequency: float = 1500.0, phase: float = 0.3) -> RF:
    t = (np.arange(n) + 0.5) / n
    waveform = 400 * np.sinc(4 * (t - 0.5)) * np.exp(1j * 2 * np.sin(TWO_PI * t))
    return RF(waveform, 2e-5, phase=phase, frequency=frequency)


SOLIDS = [("gaussian", None), ("lorentzian", None), ("super_lorentzian", None), ("super_lorentzian", 1e-2)]


@pytest.mark.parametrize(("lineshape", "T1D"), SOLIDS)
def test_transient_and_steady_state(lineshape, T1D):
    """Saturation off resonance, spoiling, excitation under a gradient, samples: against dense exponentials."""
    pools = changed(BONE, lineshape=("", "", lineshape), T1D=None if T1D is None else [0, 0, T1D],
                    B1=0.9 * np.exp(0.4j), position=(1e-3, 2e-3, -1e-3))  # fmt: skip
    saturate, excite = shaped(), RF(np.full(5, 700.0), 1e-5, frequency=-200.0, phase=math.pi / 2)
    slope = Gradient("z", np.array([0.0, 1e-3]), np.array([5e-3, 5e-3]))
    repetition = (
        Block(saturate, Spoiler(), duration=4e-3),
        Block(excite, ADC(3, 2e-4, delay=1e-4, phase=0.2, frequency=70.0), slope, duration=1e-3),
        delay(15e-3),
    )
    ref = Reference(pools)
    pull = (0, 0, 5e-3)
    prepare = ref.spoil() @ ref.wait(4e-3 - saturate.duration) @ ref.pulse(saturate)
    to_sample = [ref.wait(1.5e-4, pull) @ ref.pulse(excite, gradient=pull)]
    to_sample += [ref.wait(2e-4, pull)] * 2
    rest = ref.wait(15e-3) @ ref.wait(1e-3 - 6e-4, pull)

    def play(state):
        state, samples = prepare @ state, []
        for k, step in enumerate(to_sample):
            state = step @ state
            samples.append(ref.signal(state) * np.exp(-1j * (0.2 + TWO_PI * 70.0 * (k + 0.5) * 2e-4)))
        return samples, rest @ state

    found = exchange.simulate(Timeline(repetition), pools)
    samples, state = play(ref.equilibrium())
    np.testing.assert_allclose(found.signal[0], samples, rtol=0, atol=EXACT)
    np.testing.assert_allclose(found.magnetisation[0], ref.magnetisation(state), rtol=0, atol=EXACT)
    if T1D is not None:
        assert abs(found.dipolar[0, 2]) > 1e-4
        np.testing.assert_allclose(found.dipolar[0, 2], state[-2], rtol=0, atol=EXACT)
    np.testing.assert_allclose(found.times, 4e-3 + 1e-4 + 2e-4 * np.array([0.5, 1.5, 2.5]), rtol=0, atol=1e-15)

    whole = rest @ to_sample[2] @ to_sample[1] @ to_sample[0] @ prepare
    samples, state = play(ref.periodic(whole))
    steady = exchange.steady_state(Timeline(repetition), pools)
    np.testing.assert_allclose(steady.signal[0], samples, rtol=0, atol=EXACT)
    np.testing.assert_allclose(steady.magnetisation[0], ref.magnetisation(state), rtol=0, atol=EXACT)
    # the way there: repeats, as so many steps and (without samples) as powers of one map
    many = exchange.simulate(Timeline((Repeat(repetition, 400),)), pools)
    np.testing.assert_allclose(many.signal[0, -3:], steady.signal[0], rtol=0, atol=1e-8)  # 8 s, T1 of 1 s and shorter
    silent = tuple(delay(b.duration, *(e for e in b.events if not isinstance(e, ADC))) for b in repetition)
    power = exchange.simulate(Timeline((Repeat(silent, 400),)), pools)
    np.testing.assert_allclose(power.magnetisation, many.magnetisation, rtol=0, atol=EXACT)


@pytest.mark.parametrize("duration", np.geomspace(1e-7, 0.3, 14))
def test_one_step_however_long(duration):
    """Series of all degrees, then squarings: good to rounding of the generator's size times the duration."""
    pools, ref = changed(BONE), Reference(changed(BONE))
    pulse = RF([150.0 + 80.0j], duration, frequency=300.0)
    found = exchange.propagator(Block(pulse), pools)[0]
    whole = ref.pulse(pulse)
    rows = [0, 1, 2, 3, 4, 5, 8]  # but for x and y of the solid pool
    size = duration * np.abs(ref.generator(150 + 80j, 300.0, np.zeros(3))).sum(axis=1).max()
    np.testing.assert_allclose(found, whole[np.ix_(rows, [*rows, 9])], rtol=0, atol=2e-15 * (1 + size))


def test_pulses_back_to_back():
    """Two of one carrier without a break: each begins in the laboratory's frame."""
    pools, ref = changed(BONE), Reference(changed(BONE))
    first, second = (RF([400.0] * 3, 1e-4, delay=t, frequency=900.0) for t in (0.0, 3e-4))
    found = exchange.simulate(Timeline((Block(first, second),)), pools)
    state = ref.pulse(second) @ ref.pulse(first) @ ref.equilibrium()
    np.testing.assert_allclose(found.magnetisation[0], ref.magnetisation(state), rtol=0, atol=EXACT)


def test_phases_of_a_repeat():
    """RF spoiling without ideal spoilers: unrolled, as a map, and against dense exponentials."""
    pools, ref = changed(BONE), Reference(changed(BONE))
    pulse = RF([500.0], 2e-4, phase=0.1)
    body = (Block(pulse, ADC(1, 1e-4, delay=3e-4), duration=1e-3), delay(3e-3))
    phases = rf_spoiling(7, start=3)
    state, expected = ref.equilibrium(), []
    for phase in phases:
        state = ref.wait(1.5e-4) @ ref.pulse(pulse, phase) @ state
        expected.append(ref.signal(state) * np.exp(-1j * phase))
        state = ref.wait(4e-3 - 3.5e-4) @ state
    found = exchange.simulate(Timeline((Repeat(body, 7, phases),)), pools)
    np.testing.assert_allclose(found.signal[0], expected, rtol=0, atol=EXACT)
    np.testing.assert_allclose(found.magnetisation[0], ref.magnetisation(state), rtol=0, atol=EXACT)
    silent = Repeat((Block(pulse, duration=1e-3), delay(3e-3)), 7, phases)
    np.testing.assert_allclose(
        exchange.simulate(Timeline((silent,)), pools).magnetisation, found.magnetisation, rtol=0, atol=EXACT
    )
    affine = exchange.propagator(silent, pools)
    start = pools.equilibrium
    rows = np.concatenate([start[0, 0], start[0, 1], start[0, 2, 2:]])
    np.testing.assert_allclose(
        affine[0, :, :-1] @ rows + affine[0, :, -1],
        np.concatenate([found.magnetisation[0, 0], found.magnetisation[0, 1], found.magnetisation[0, 2, 2:]]),
        rtol=0,
        atol=EXACT,
    )


def test_steady_state_advances():
    """A phase that advances evenly is an offset: the same as a turn by that angle in every period."""
    TR, offset = 5e-3, 40.0
    pulse = RF([1000.0], 1e-4)
    period = Timeline((Block(pulse, ADC(1, 1e-4, delay=1e-3), duration=TR),))
    found = exchange.steady_state(period, changed(BONE), advance=0.7)
    many = exchange.simulate(
        Timeline((Repeat(period.blocks, 2000, tuple(0.7 * n for n in range(2000))),)), changed(BONE)
    )
    np.testing.assert_allclose(found.signal[0, 0], many.signal[0, -1], rtol=0, atol=1e-9)  # 10 s, and 2000 roundings
    shifted = changed(BONE, offset=np.array(BONE["offset"]) - 0.7 / (TWO_PI * TR))
    # during the pulse itself the offset differs: that part is not the same
    other = exchange.steady_state(period, shifted)
    assert abs(abs(other.signal) - abs(found.signal)).max() < TWO_PI * offset * pulse.duration


# ---- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lineshape", lineshapes.SHAPES)
@pytest.mark.parametrize("offset", [-2e3, 5e3, 2e4])
def test_continuous_saturation(lineshape, offset):
    """Henkelman 1993: in the steady state of a continuous wave, the liquid pool's Lorentzian rate is exact."""
    w1, T2 = TWO_PI * 500.0, WATER_AND_COLLAGEN["T2"]
    a, b = WATER_AND_COLLAGEN["density"]
    (Ra, Rb), kab = 1 / np.array(WATER_AND_COLLAGEN["T1"]), 11.5
    kba = kab * a / b
    Wa = w1**2 * T2[0] / (1 + (TWO_PI * offset * T2[0]) ** 2)
    Wb = np.pi * w1**2 * lineshapes.absorption(lineshape, offset, T2[1])
    expected = (Ra * a * (Rb + kba + Wb) + kba * Rb * b) / ((Ra + kab + Wa) * (Rb + kba + Wb) - kab * kba)
    # a period of whole turns of the carrier, so that its phase runs on
    wave = Timeline((Block(RF([500.0], 10e-3, frequency=offset)),))
    found = exchange.steady_state(wave, changed(WATER_AND_COLLAGEN, lineshape=("", lineshape)))
    np.testing.assert_allclose(found.magnetisation[0, 0, 2], expected, rtol=EXACT)


def test_continuous_saturation_of_two_liquid_pools_without_exchange():
    offset, w1 = 300.0, TWO_PI * 40
    pools = exchange.Pools([0.3, 0.9], [0.01, 0.05], [0.7, 0.3], np.zeros((2, 2)))
    found = exchange.steady_state(Timeline((Block(RF([40.0], 10e-3, frequency=offset)),)), pools)
    x = 1 + (TWO_PI * offset * pools.T2[0]) ** 2
    expected = pools.density[0] * x / (x + w1**2 * pools.T1[0] * pools.T2[0])
    np.testing.assert_allclose(found.magnetisation[0, :, 2], expected, rtol=EXACT)


@pytest.mark.parametrize("solid", [False, True])
def test_inversion_recovery_is_biexponential(solid):
    pools = changed(WATER_AND_COLLAGEN, lineshape=("", "gaussian") if solid else None)
    (Ra, Rb), (a, b), kab = 1 / pools.T1[0], pools.density[0], 11.5
    kba = kab * a / b
    mean, half = (Ra + kab + Rb + kba) / 2, (Ra + kab - Rb - kba) / 2
    root = math.sqrt(half**2 + kab * kba)
    fast, slow = mean + root, mean - root
    for t in (0.003, 0.05, 0.4):
        found = exchange.simulate(Timeline((delay(t),)), pools, initial=[[0, 0, -a], [0, 0, b]])
        lost = 2 * a  # of water at the start; of the solid nothing
        # modes of the 2 x 2 matrix: (fast - Ra - kab) and (slow - Ra - kab) over their difference
        share = (Ra + kab - slow) / (fast - slow)
        expected = a - lost * (share * math.exp(-fast * t) + (1 - share) * math.exp(-slow * t))
        np.testing.assert_allclose(found.magnetisation[0, 0, 2], expected, rtol=1e-12)


def test_short_pulse_on_short_T2():
    """Sussman's rectangular pulse with relaxation of T2 = .4 ms, T1 infinite: overdamped, critical, oscillating."""
    duration = 2e-4
    for angle in (0.1, 0.25, 1.0, math.pi):
        pools = exchange.Pools([np.inf], [4e-4], [1.0], [[0.0]])
        found = exchange.simulate(
            Timeline((Block(RF([angle / TWO_PI / duration], duration, phase=math.pi / 2)),)), pools
        )
        d = duration / 4e-4 / 2
        q = np.sqrt(complex(angle**2 - d**2))
        sinc = 1.0 if q == 0 else np.sin(q) / q
        expected = [math.exp(-d) * angle * sinc.real, 0, math.exp(-d) * (np.cos(q) + d * sinc).real]
        np.testing.assert_allclose(found.magnetisation[0, 0], expected, rtol=0, atol=1e-13)


def test_two_sites_merge():
    """McConnell's symmetric two sites: e^-(R2 + k) t [cosh(h t) + k/h sinh(h t)], h^2 = k^2 - dw^2."""
    half = 50.0  # Hz, either side
    for k in (20.0, TWO_PI * half, 3000.0):  # slow, coalescing, fast
        pools = exchange.Pools(np.inf, 0.02, 0.5, [[0, k], [k, 0]], offset=[half, -half])
        fid = Timeline((Block(ADC(64, 5e-4)),))
        found = exchange.simulate(fid, pools, initial=[[0.5, 0, 0], [0.5, 0, 0]])
        t, h = found.times, np.sqrt(complex(k**2 - (TWO_PI * half) ** 2))
        ratio = k * t if h == 0 else k / h * np.sinh(h * t)
        expected = np.exp(-(50.0 + k) * t) * (np.cosh(h * t) + ratio)
        np.testing.assert_allclose(found.signal[0], expected, rtol=0, atol=1e-11)
        each = exchange.simulate(fid, pools, initial=[[0.5, 0, 0], [0.5, 0, 0]], per_pool=True)
        assert each.signal.shape == (1, 2, 64)
        np.testing.assert_allclose(each.signal.sum(axis=1), found.signal, rtol=0, atol=1e-15)
        np.testing.assert_allclose(each.signal[0, 0], each.signal[0, 1].conj(), rtol=0, atol=1e-15)  # mirror images


def test_relaxation_dispersion():
    """Echo trains of two sites in fast exchange: Luz and Meiboom, J Chem Phys 39:366 (1963), doi:10.1063/1.1734254."""
    p, k, shift, R2 = 0.3, 4000.0, TWO_PI * 20.0, 10.0  # k in both directions together
    pools = exchange.Pools(np.inf, 1 / R2, [1 - p, p], [[0, k * p], [k * (1 - p), 0]], offset=[0, shift / TWO_PI])
    length = 1e-7
    refocus = RF([0.5 / length], length)
    for spacing in (2e-4, 1e-3, 5e-3):
        half = delay(spacing / 2 - length / 2)
        train = Timeline((Repeat((half, Block(refocus), half), 20),))
        start = [[1 - p, 0, 0], [p, 0, 0]]
        first, last = (exchange.simulate(Timeline((Repeat(train.blocks, n),)), pools, initial=start).magnetisation
                       for n in (1, 3))  # fmt: skip
        sizes = [np.hypot(*m[0, :, :2].sum(axis=0)) for m in (first, last)]
        rate = math.log(sizes[0] / sizes[1]) / (40 * spacing)
        excess = p * (1 - p) * shift**2 / k * (1 - 2 * math.tanh(k * spacing / 2) / (k * spacing))
        # to second order in shift/k: the next order is (shift/k)^2
        assert rate - R2 == pytest.approx(excess, rel=3 * (shift / k) ** 2)


def test_fast_exchange_is_the_mean():
    k, weights = 1e6, np.array([0.7, 0.3])
    rates = exchange.balanced([[0, k], [0, 0]], weights)
    both = exchange.Pools([0.2, 1.5], [2e-3, 8e-3], weights, rates, offset=[15.0, -30.0])
    one = exchange.Pools([1 / (weights @ [5, 1 / 1.5])], [1 / (weights @ [500, 125])], [1.0], [[0.0]],
                         offset=weights @ [15.0, -30.0])  # fmt: skip
    timeline = Timeline((Block(RF([300.0], 1e-3, frequency=100.0), ADC(5, 1e-3, delay=2e-3), duration=0.02),))
    near, limit = (exchange.steady_state(timeline, pools).signal for pools in (both, one))
    # what differs between the pools (rates and offsets, 400/s) acts to second order over k
    assert 0 < np.abs(near - limit).max() < 10 * 400**2 / k * 5e-3 * abs(limit).max()


def test_without_exchange_pools_are_isochromats():
    pools = changed(BONE, rates=np.zeros((3, 3)), lineshape=None, T2=[4e-4, 3e-3, 0.05], B1=0.8)
    timeline = Timeline(
        (Repeat((Block(shaped(), ADC(4, 1e-4, delay=1e-3)), delay(5e-3)), 5, (0.0, 1.0, 3.0, 2.0, 5.0)),)
    )
    found = exchange.simulate(timeline, pools, per_pool=True)
    alone = bloch.simulate(
        timeline, Isochromats(pools.T1[0], pools.T2[0], pools.offset[0], 0.8, density=pools.density[0]), exact=True
    )
    np.testing.assert_allclose(found.signal[0], alone.signal, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.magnetisation[0], alone.magnetisation, rtol=0, atol=1e-12)


# ---- conservation and limits ---------------------------------------------------------------------------------------


@st.composite
def drawn(draw) -> exchange.Pools:
    n = draw(st.integers(1, 4))
    real = st.floats(0.05, 1.0)
    density = np.array(draw(st.lists(real, min_size=n, max_size=n)))
    scale = draw(st.floats(0.1, 1e4))
    rates = np.array(draw(st.lists(real, min_size=n * n, max_size=n * n))).reshape(n, n) * scale
    T1 = np.array(draw(st.lists(real, min_size=n, max_size=n)))
    solid = draw(st.integers(0, n - 1))
    shapes = ("",) * (n - solid) + ("gaussian",) * solid
    T2 = np.where(np.arange(n) < n - solid, T1 / 10, 1e-5)
    return exchange.Pools(T1, T2, density, exchange.balanced(rates, density), offset=100 * T1, lineshape=shapes)


@given(pools=drawn(), duration=st.floats(1e-6, 2.0))
@settings(max_examples=40, deadline=None)
def test_equilibrium_stays_and_exchange_loses_nothing(pools, duration):
    wait = Timeline((delay(duration),))
    still = exchange.simulate(wait, pools)
    # the generator's largest entry times the duration is what rounding is relative to
    slack = 1e-15 * (50 + np.abs(pools.rates).max() * duration)
    np.testing.assert_allclose(still.magnetisation, pools.equilibrium, rtol=0, atol=10 * slack)
    lossless = exchange.Pools(np.inf, np.where(pools.solid, 1e-5, np.inf), pools.density, pools.rates,
                              lineshape=pools.lineshape)  # fmt: skip
    start = pools.equilibrium[0].copy()
    start[0, 2] *= -1
    start[0, :2] = 0.3, -0.2
    start[~pools.solid, 0] += 0.1
    end = exchange.simulate(wait, lossless, initial=start).magnetisation[0]
    np.testing.assert_allclose(end.sum(axis=0), start.sum(axis=0), rtol=0, atol=10 * slack)


@given(pools=drawn(), rf=st.floats(0, 2e3), phase=st.floats(0, 6), frequency=st.floats(-5e3, 5e3))
@settings(max_examples=40, deadline=None)
def test_nothing_grows(pools, rf, phase, frequency):
    """However long it is irradiated, no pool exceeds the whole; without RF all returns to equilibrium."""
    timeline = Timeline((Block(RF([rf, 0.5 * rf], 2e-3, phase=phase, frequency=frequency), duration=8e-3),))
    steady = exchange.steady_state(timeline, pools)
    assert np.linalg.norm(steady.magnetisation, axis=2).sum() <= pools.density.sum() * (1 + 1e-9)
    turned = exchange.steady_state(timeline, changed(vars(pools), B1=np.exp(1j)))
    c, s = math.cos(1), math.sin(1)
    expected = steady.magnetisation @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    np.testing.assert_allclose(turned.magnetisation, expected, rtol=0, atol=1e-9)


# ---- many spins ----------------------------------------------------------------------------------------------------


def test_gradient_is_an_offset():
    position = np.array([[0.0, 0, 0], [1e-3, 0, 0], [-2e-3, 1e-3, 5e-3]])
    gradient = np.array([4e-3, -2e-3, 1e-3])
    read = RF([200.0] * 4, 1e-4), ADC(3, 1e-3, delay=1e-3)
    slopes = [Gradient(axis, np.array([0, 5e-3]), np.array([g, g])) for axis, g in zip("xyz", gradient, strict=True)]
    moved = exchange.simulate(Timeline((Block(*read, *slopes),)), changed(BONE, position=position))
    shift = PROTON * position @ gradient
    shifted = exchange.simulate(
        Timeline((delay(5e-3, *read),)), changed(BONE, offset=np.array(BONE["offset"]) + shift[:, None])
    )
    np.testing.assert_allclose(moved.signal, shifted.signal, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moved.magnetisation, shifted.magnetisation, rtol=0, atol=1e-12)


def prepared() -> Timeline:
    """Saturation, then spokes."""
    saturate = Block(shaped(200, 4e3), Spoiler(), duration=6e-3)
    spoke = Block(RF([300.0], 1.5e-4), ADC(1, 1e-6, delay=1.8e-4), Spoiler(), duration=5e-3)
    return Timeline((saturate, Repeat((spoke,), 9), delay(50e-3)))


def many(n: int) -> exchange.Pools:
    rng = np.random.default_rng(4)
    scale = rng.uniform(0.5, 2, (n, 1))
    return changed(BONE, density=scale * np.array(BONE["density"]), B1=rng.uniform(0.7, 1.2, n),
                   T2=np.array(BONE["T2"]) * rng.uniform(0.8, 1.2, (n, 1)))  # fmt: skip


def test_threads_do_not_matter(monkeypatch):
    pools, timeline = many(600), prepared()
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("BONEMRI_THREADS", threads)
        results.append(exchange.steady_state(timeline, pools))
    for other in results[1:]:
        assert np.array_equal(other.signal, results[0].signal)
        assert np.array_equal(other.magnetisation, results[0].magnetisation)
    # each spin alone, but for the rounding of a scaling that a group shares
    for k in (0, 63, 64, 257, 599):
        alone = exchange.steady_state(timeline, pools.at([k]))
        np.testing.assert_allclose(alone.signal[0], results[0].signal[k], rtol=1e-11)


def test_a_map_of_densities_is_one_spin():
    """Spins that differ by a factor of all densities are computed once, and are as if each was computed alone."""
    rng = np.random.default_rng(1)
    factor, kind = rng.uniform(0, 50, 300), rng.integers(0, 3, 300)
    factor[7] = 0.0
    few = changed(BONE, T1=np.array(BONE["T1"]) * np.array([[1.0], [1.0], [0.7]]), B1=[1, 1 + 0.5j, 1])
    pools = changed(BONE, T1=few.T1[kind], B1=few.B1[kind], density=factor[:, None] * np.array(BONE["density"]))
    distinct, member, scale = pools.alike()
    assert len(distinct) == 4 and len(member) == 300  # the empty one has ratios of its own
    np.testing.assert_allclose(distinct.density[member] * scale[:, None], pools.density, rtol=1e-11)
    np.testing.assert_array_equal(distinct.T1[member], pools.T1)
    each, whole = (exchange.steady_state(prepared(), p, per_pool=True) for p in (few, pools))
    np.testing.assert_allclose(whole.signal, each.signal[kind] * factor[:, None, None], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(
        whole.magnetisation, each.magnetisation[kind] * factor[:, None, None], rtol=0, atol=1e-10
    )
    played = exchange.simulate(prepared(), pools)
    from_start = exchange.simulate(prepared(), pools, initial=pools.equilibrium)
    np.testing.assert_allclose(played.signal, from_start.signal, rtol=0, atol=1e-10)


def test_sums_and_going_on():
    pools, timeline = many(70), prepared()
    first = exchange.simulate(timeline, pools, per_pool=True)
    voxel = np.arange(70) % 3
    summed = exchange.simulate(timeline, pools, signal=voxel, per_pool=True)
    np.testing.assert_allclose(summed.signal[1], first.signal[1::3].sum(axis=0), rtol=1e-12)
    total = exchange.simulate(timeline, pools, signal="sum")
    np.testing.assert_allclose(total.signal, first.signal.sum(axis=(0, 1)), rtol=1e-12)
    ordered = changed(vars(pools), T1D=[0, 0, 6e-3])
    half, whole = Timeline(timeline.blocks[:1]), exchange.simulate(timeline, ordered)
    rest = Timeline(timeline.blocks[1:])
    went_on = exchange.simulate(rest, ordered, initial=exchange.simulate(half, ordered))
    np.testing.assert_allclose(went_on.signal, whole.signal, rtol=0, atol=1e-14)
    np.testing.assert_allclose(went_on.dipolar, whole.dipolar, rtol=0, atol=1e-14)


def test_wrong_calls_are_told():
    pools, timeline = changed(BONE), prepared()
    with pytest.raises(InputError, match=r"initial is float64 of shape \(3,\): expected numbers \(3, 3\)"):
        exchange.simulate(timeline, pools, initial=np.zeros(3))
    with pytest.raises(InputError, match="initial magnetisation of pool 1 of spin 0 is not finite"):
        exchange.simulate(timeline, pools, initial=[[0, 0, 1], [0, np.nan, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="has no blocks"):
        exchange.simulate(Timeline(()), pools)
    with pytest.raises(InputError, match="pools is a dict: expected Pools"):
        exchange.steady_state(timeline, BONE)
    with pytest.raises(InputError, match="timeline is a Block: expected a Timeline"):
        exchange.steady_state(delay(1.0), pools)
    with pytest.raises(InputError, match="signal is 'mean': expected spins, sum"):
        exchange.simulate(timeline, pools, signal="mean")
    with pytest.raises(InputError, match=r"expected whole numbers from 0 up \(1,\)"):
        exchange.simulate(timeline, pools, signal=np.array([0, 1]))
    lossless = changed(BONE, T1=np.array([[1.0, 1, 1], [np.inf] * 3]))
    with pytest.raises(InputError, match="spin 1 has no steady state"):
        exchange.steady_state(Timeline((delay(1.0, Spoiler()),)), lossless)
    with pytest.raises(InputError, match="advance is nan"):
        exchange.steady_state(timeline, pools, advance=math.nan)
