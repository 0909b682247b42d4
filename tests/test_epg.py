"""The extended phase graph against states moved by hand, isochromats, closed forms, and outside codes."""

import math
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Repeat, Timeline, rf_spoiling, trapezoid
from bonemri.simulator.engines import bloch, epg, epg_exchange, exchange
from bonemri.simulator.engines.isochromats import Isochromats
from bonemri.simulator.engines.pools import Pools

SPOIL = math.radians(117.0)
RNG = np.random.default_rng(4)
FLIPS = RNG.uniform(0.05, 3.0, 40)
PHASES = RNG.uniform(-3, 3, 40)
T1, T2 = np.array([1.3, 0.25, 0.9]), np.array([0.08, 3e-4, 0.9])


# ---- witnesses -----------------------------------------------------------------------------------------------------
#
# States moved by hand: all orders -n .. n of F and Z of each pool, one matrix an order, pulses in the laboratory frame,
# gradients shift the arrays. Isochromats: rotation matrices, one spin at each of n phases of the gradient.


def pulse_matrix(angle: float, phase: float) -> np.ndarray:
    """A right-handed turn about (cos phase, sin phase), on (F of order k, conjugate of F of order -k, Z of order k)."""
    c2, s2, s, turn = math.cos(angle / 2) ** 2, math.sin(angle / 2) ** 2, math.sin(angle), np.exp(1j * phase)
    return np.array([
        [c2, turn**2 * s2, -1j * turn * s],
        [s2 / turn**2, c2, 1j * s / turn],
        [-0.5j * s / turn, 0.5j * turn * s, math.cos(angle)],
    ])  # fmt: skip


class Literal:
    """States of pools, (pool, order), under generators of transverse and longitudinal relaxation and exchange."""

    def __init__(self, transverse, longitudinal, rest, orders, D=0.0, bound=False):
        self.transverse, self.longitudinal = np.atleast_2d(transverse), np.atleast_2d(longitudinal)
        self.rest, self.n, self.D, self.bound = np.atleast_1d(rest), orders, D, bound
        self.F = np.zeros((self.rest.size, 2 * orders + 1), complex)
        self.Z = np.zeros((self.rest.size, 2 * orders + 1), complex)
        self.Z[:, orders] = self.rest

    def pulse(self, angle, phase, saturation=0.0):
        t = pulse_matrix(angle, phase)
        for p in range(1 if self.bound else self.rest.size):
            self.F[p], _, self.Z[p] = t @ np.stack([self.F[p], self.F[p, ::-1].conj(), self.Z[p]])
        if self.bound:
            self.Z[1] *= math.exp(-saturation)

    def wait(self, time, shifts=0, dephasing=0.0):
        """Relaxation and exchange; then the gradient that winds up `dephasing` (rad/m) an order."""
        k = np.arange(-self.n, self.n + 1)
        loss = self.D * 1e-6 * dephasing**2 * time
        self.F = expm(self.transverse * time) @ self.F
        level = expm(self.longitudinal * time)
        self.Z = level @ self.Z
        self.Z[:, self.n] += self.rest - level @ self.rest
        # the mean of (k + s)^2 while s runs from 0 to 1, by three-point Gauss: exact for a square
        node, weight = np.polynomial.legendre.leggauss(3)
        self.F *= np.exp(-loss * ((k[:, None] + shifts * (node + 1) / 2) ** 2 @ weight / 2))
        self.Z *= np.exp(-loss * k**2)
        self.F = np.roll(self.F, shifts, axis=1)

    @property
    def signal(self):
        return self.F[:, self.n].copy()


def liquid(t1, t2, orders, D=0.0):
    return Literal(-1 / t2, -1 / t1, 1.0, orders, D)


def two_pools(t1, t2, f, k, shift, orders):
    """`t2[1]` None: bound."""
    back = k * (1 - f) / f
    longitudinal = [[-1 / t1[0] - k, back], [k, -1 / t1[1] - back]]
    if t2[1] is None:
        return Literal([[-1 / t2[0], 0], [0, 0]], longitudinal, [1 - f, f], orders, bound=True)
    transverse = np.array([[-1 / t2[0] - k, back], [k, -1 / t2[1] - back + 2j * math.pi * shift]])
    return Literal(transverse, longitudinal, [1 - f, f], orders)


def gradient_echoes(states, flips, phases, TR, TE, dephasing=0.0, saturation=0.0, B1=1.0):
    """(pool, pulse), received as `spoiled_train` states."""
    found = []
    TR, TE = np.broadcast_to(TR, len(flips)), np.broadcast_to(TE, len(flips))
    for flip, phase, tr, te in zip(flips, phases, TR, TE, strict=True):
        states.pulse(B1 * flip, math.pi / 2 + phase, saturation * B1**2)
        found.append(np.exp(-1j * phase) * (expm(states.transverse * te) @ states.signal))
        states.wait(tr, 1, dephasing)
    return np.array(found).T


def spin_echoes(states, refocusing, phases, spacing, excitation, dephasing=0.0, saturation=0.0, B1=1.0):
    """(pool, echo); one order is what half a spacing winds up."""
    states.pulse(B1 * excitation, math.pi / 2)
    found = []
    for angle, phase in zip(refocusing, phases, strict=True):
        states.wait(spacing / 2, 1, dephasing / 2)
        states.pulse(B1 * angle, phase, saturation * B1**2)
        states.wait(spacing / 2, 1, dephasing / 2)
        found.append(states.signal)
    return np.array(found).T


def isochromats(t1, t2, flips, phases, TR, TE, count):
    """The same as `gradient_echoes`, by `count` spins a voxel."""
    turn = 2 * np.pi * np.arange(count) / count
    m = np.zeros((count, 3))
    m[:, 2] = 1.0
    found = []
    for flip, phase in zip(flips, phases, strict=True):
        axis = np.array([-math.sin(phase), math.cos(phase), 0.0])  # pi/2 ahead
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        m = m @ expm(flip * cross).T
        found.append(np.mean(m[:, 0] + 1j * m[:, 1]) * np.exp(-TE / t2 - 1j * phase))
        across = (m[:, 0] + 1j * m[:, 1]) * np.exp(1j * turn - TR / t2)
        m = np.stack([across.real, across.imag, 1 + (m[:, 2] - 1) * math.exp(-TR / t1)], axis=1)
    return np.array(found)


# ---- gradient echoes -----------------------------------------------------------------------------------------------
#
# 1e-12: a state passes at most 40 pulses and intervals, each of which rounds a number of order 1 a few times (1e-16).


@pytest.mark.parametrize("diffusing", [False, True])
def test_gradient_echoes_against_states_moved_by_hand(diffusing):
    TR = RNG.uniform(2e-3, 20e-3, 40)
    TE = 0.3 * TR
    B1 = np.array([1.0, 0.7, 1.2])
    D, dephasing = (np.array([2e-3, 0.0, 1e-3]), 3e4) if diffusing else (np.zeros(3), 0.0)
    found = epg.spoiled_train(T1, T2, FLIPS, TR, TE=TE, phases=PHASES, B1=B1, D=D, dephasing=dephasing)
    for j in range(3):
        states = liquid(T1[j], T2[j], 41, D[j])
        expected = gradient_echoes(states, FLIPS, PHASES, TR, TE, dephasing, B1=B1[j])[0]
        np.testing.assert_allclose(found[j], expected, atol=1e-12)
    plain = epg.spoiled_train(T1, T2, FLIPS, TR, TE=TE, phases=PHASES, B1=B1)
    assert (np.abs(found - plain).max() > 1e-3) == diffusing


def test_long_rf_spoiled_train_and_its_states():
    """200 pulses, 1e-12 as above: rounding grows no faster than relaxation forgets it."""
    flips, n = np.full(200, math.radians(15)), 200
    phases = SPOIL * np.arange(n) * np.arange(1, n + 1) / 2
    states = liquid(0.8, 0.07, n)
    expected = gradient_echoes(states, flips[:-1], phases[:-1], 5e-3, 0.0)[0]
    found = epg.spoiled_train(0.8, 0.07, flips, 5e-3)
    np.testing.assert_allclose(found[0, :-1], expected, atol=1e-12)
    states.pulse(flips[-1], math.pi / 2 + phases[-1])
    F, Z = epg.configurations(0.8, 0.07, flips, 5e-3)
    middle = slice(1, -1)
    np.testing.assert_allclose(F[0], states.F[0, middle] * np.exp(-1j * phases[-1]), atol=1e-12)
    np.testing.assert_allclose(Z[0], states.Z[0, n:-1], atol=1e-12)
    assert F[0, n - 1] == found[0, -1]


def test_a_tissue_of_a_batch_is_the_one_alone():
    """Over several sets of lanes and blocks: what one leaves behind in memory is nothing to the next."""
    t1, t2 = np.linspace(0.2, 3.0, 600), np.linspace(0.3, 2e-3, 600)
    trains = (
        lambda a, b: epg.spoiled_train(a, b, FLIPS, 5e-3, phases=PHASES),
        lambda a, b: epg.spin_echo_train(a, b, FLIPS, 5e-3, phases=PHASES),
        lambda a, b: epg.configurations(a, b, FLIPS, 5e-3, phases=PHASES)[0],
    )
    for train in trains:
        found = train(t1, t2)
        for j in (31, 32, 255, 256, 599):
            np.testing.assert_allclose(found[j], train(t1[j], t2[j])[0], atol=1e-14)


@pytest.mark.parametrize("increment", [0.0, SPOIL, math.radians(50)])
def test_gradient_echoes_against_isochromats(increment):
    """More isochromats than orders alias nothing: they agree to rounding, far within 1e-6."""
    phases = increment * np.arange(40) * np.arange(1, 41) / 2
    found = epg.spoiled_train(T1, T2, FLIPS, 8e-3, TE=2e-3, increment=increment)
    for j in range(3):
        expected = isochromats(T1[j], T2[j], FLIPS, phases, 8e-3, 2e-3, 81)
        np.testing.assert_allclose(found[j], expected, atol=1e-12)
    few = isochromats(T1[2], T2[2], FLIPS, phases, 8e-3, 2e-3, 8)  # eight alias
    assert np.abs(few - found[2]).max() > 1e-3


def ernst(t1, TR, flip):
    E1 = math.exp(-TR / t1)
    return math.sin(flip) * (1 - E1) / (1 - E1 * math.cos(flip))


@pytest.mark.parametrize("flip", [0.05, 0.15, 0.6, 1.0])
def test_spoiling_at_117_degrees_against_ernst(flip):
    """T2 a twentieth of TR: what transverse magnetisation is left (2e-9) is all that can differ. T2 of five TR: 117
    degrees keep within 5 % up to 34 degrees of flip (the few per cent of Zur et al. 1991), and take away nine tenths of
    the departure that gradients alone leave."""
    t1, TR, n = 0.5, 20e-3, 700  # 28 T1: what the start leaves is below 1e-12
    found = epg.spoiled_train(t1, [1e-3, 100e-3], np.full(n, flip), TR)[:, -1]
    unspoiled = epg.spoiled_train(t1, 100e-3, np.full(n, flip), TR, increment=0.0)[0, -1]
    assert abs(found[0] - ernst(t1, TR, flip)) < 4e-9
    departure, alone = (abs(abs(s) / ernst(t1, TR, flip) - 1) for s in (found[1], unspoiled))
    assert departure < 0.1 * alone
    assert departure < (0.05 if flip < 0.61 else 0.15)


def test_unspoiled_steady_state_in_closed_form():
    """SSFP-FID: Hänicke and Vogel, Magn Reson Med 49:771 (2003), doi:10.1002/mrm.10410. 23 T1 to the steady state."""
    t1, t2, TR, a = 0.2, 0.05, 10e-3, 0.7
    E1, E2 = math.exp(-TR / t1), math.exp(-TR / t2)
    p = 1 - E1 * math.cos(a) - E2**2 * (E1 - math.cos(a))
    q = E2 * (1 - E1) * (1 + math.cos(a))
    expected = math.tan(a / 2) * (1 - (E1 - math.cos(a)) * (1 - E2**2) / math.sqrt(p * p - q * q))
    found = epg.spoiled_train(t1, t2, np.full(460, a), TR, increment=0.0)[0, -1]
    assert found == pytest.approx(expected, abs=1e-10)


def test_ideal_spoiling_leaves_a_recursion_of_mz():
    """T2 far below TR: nothing transverse is left (exp(-500))."""
    t1, TR, mz, expected = 0.4, 5e-3, -0.6, []
    for flip in FLIPS:
        expected.append(mz * math.sin(flip))
        mz = 1 + (mz * math.cos(flip) - 1) * math.exp(-TR / t1)
    found = epg.spoiled_train(t1, 1e-5, FLIPS, TR, initial=-0.6)[0]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_preparation():
    np.testing.assert_allclose(epg.prepared([0.5, 1.0], math.pi, 0.3), 1 - 2 * np.exp([-0.6, -0.3]), rtol=1e-14)
    np.testing.assert_allclose(epg.prepared(0.5, math.pi / 2, 0.3), 1 - np.exp(-0.6), rtol=1e-14)
    np.testing.assert_allclose(
        epg.prepared(0.5, math.pi, 0.0, B1=0.5, initial=0.8), 0.8 * math.cos(math.pi / 2), atol=1e-15
    )
    null = epg.prepared(0.7, math.pi, 0.7 * math.log(2))
    assert np.abs(epg.spoiled_train(0.7, 0.05, [0.3], 5e-3, initial=null)).max() < 1e-15
    start = epg.prepared([0.7, 2.0], math.pi, 0.1)
    found = epg.spoiled_train([0.7, 2.0], 0.05, FLIPS, 5e-3, phases=PHASES, initial=start)
    half = 0.5 * (1 + start)  # linear: the mean of two trains is the train of the mean
    mean = 0.5 * (found + epg.spoiled_train([0.7, 2.0], 0.05, FLIPS, 5e-3, phases=PHASES))
    halfway = epg.spoiled_train([0.7, 2.0], 0.05, FLIPS, 5e-3, phases=PHASES, initial=half)
    np.testing.assert_allclose(halfway, mean, atol=1e-13)


def test_a_stimulated_echo_diffuses():
    """Three pulses of 90 degrees: before the third, order 1 is longitudinal alone. It was wound up over the first TR,
    b = k^2 TR/3, and waited over the second, b = k^2 TR; half of it then comes back as order -1."""
    D, k, TR = 1e-3, 2e5, 10e-3
    F = epg.configurations(np.inf, np.inf, np.full(3, math.pi / 2), TR, phases=0.0, D=[0.0, D], dephasing=k)[0]
    echo = np.abs(F[:, 1])  # order -1 of -2 .. 2
    assert echo[0] == pytest.approx(0.5, rel=1e-14)
    assert math.log(echo[0] / echo[1]) == pytest.approx(1e-6 * D * k**2 * TR * (1 / 3 + 1), rel=1e-12)


# ---- spin echoes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diffusing", [False, True])
def test_spin_echoes_against_states_moved_by_hand(diffusing):
    angles, phases, B1 = FLIPS[:24], PHASES[:24], np.array([1.0, 0.8, 1.1])
    D, dephasing = (np.array([2e-3, 1e-3, 0.5e-3]), 5e4) if diffusing else (np.zeros(3), 0.0)
    found = epg.spin_echo_train(
        T1, T2, angles, 9e-3, excitation=1.2, phases=phases, B1=B1, D=D, dephasing=dephasing, initial=0.7
    )
    for j in range(3):
        states = liquid(T1[j], T2[j], 49, D[j])
        expected = spin_echoes(states, angles, phases, 9e-3, 1.2, dephasing, B1=B1[j])[0]
        np.testing.assert_allclose(found[j], 0.7 * expected, atol=1e-12)
    plain = epg.spin_echo_train(T1, T2, angles, 9e-3, excitation=1.2, phases=phases, B1=B1, initial=0.7)
    assert (np.abs(found - plain).max() > 1e-3) == diffusing


@pytest.mark.parametrize("phase", [0.0, math.pi / 2])
def test_perfect_refocusing_decays_with_t2(phase):
    """Carr-Purcell-Meiboom-Gill and Carr-Purcell; the echoes of the latter alternate in sign."""
    n, spacing = 60, 8e-3
    found = epg.spin_echo_train(T1, T2, np.full(n, math.pi), spacing, phases=phase)
    sign = 1 if phase == 0 else (-1.0) ** np.arange(1, n + 1)
    expected = sign * np.exp(-spacing * np.arange(1, n + 1) / T2[:, None])
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_perfect_refocusing_diffuses_by_echo():
    """Each spacing has b = k^2 spacing/12 (Carr and Purcell 1954, doi:10.1103/PhysRev.94.630)."""
    D, k, spacing = 2e-3, 4e5, 10e-3
    found = epg.spin_echo_train(np.inf, np.inf, np.full(12, math.pi), spacing, D=D, dephasing=k)[0]
    expected = np.exp(-1e-6 * D * k**2 * spacing / 12 * np.arange(1, 13))
    assert expected[-1] < 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("angle", [0.5, 1.2, 2.0, 3.0])
def test_constant_refocusing_approaches_its_pseudo_steady_state(angle):
    """Without relaxation every spin turns about one axis from echo to echo: by Omega, with cos(Omega/2) =
    cos(theta) cos(a/2) and theta its phase of half a spacing; the signal is the mean of n^2 + (1 - n^2) cos(m Omega),
    n^2 = sin^2(a/2)/sin^2(Omega/2), and tends to sin(a/2)."""
    theta = 2 * np.pi * (np.arange(4096) + 0.5) / 4096  # periodic: the mean is exact for trains below 2048
    half = np.arccos(np.cos(theta) * math.cos(angle / 2))
    share = (math.sin(angle / 2) / np.sin(half)) ** 2
    m = np.arange(1, 301)[:, None]
    expected = (share + (1 - share) * np.cos(2 * m * half)).mean(axis=1)
    found = epg.spin_echo_train(np.inf, np.inf, np.full(300, angle), 5e-3)[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # what still swings falls as 1/sqrt(m), from band edges of cosines
    assert abs(found[-1] - math.sin(angle / 2)) < 1.5 / math.sqrt(300)


@settings(max_examples=25, deadline=None)
@given(
    t1=st.floats(0.015, 6.0), ratio=st.floats(1e-3, 1.0), B1=st.floats(0.3, 1.7), angle=st.floats(0.0, 3.2),
    spacing=st.floats(1e-4, 0.05),
)  # fmt: skip
def test_physical_limits(t1, ratio, B1, angle, spacing):
    t2 = t1 * ratio
    angles = np.full(10, angle)
    for train in (epg.spoiled_train, epg.spin_echo_train):
        found = train(t1, t2, angles, spacing, B1=B1)
        # B1 scales every flip angle, nothing else
        extra = {} if train is epg.spoiled_train else {"excitation": B1 * math.pi / 2}
        np.testing.assert_allclose(found, train(t1, t2, B1 * angles, spacing, **extra), atol=1e-14)
        assert np.abs(found).max() <= 1 + 1e-12  # no more than there is
        assert np.abs(train(t1, t2, 0 * angles, spacing)).max() == 0.0  # no pulse, no signal
        # relaxation only takes from a train that starts at order 0 with all there is
    echoes = epg.spin_echo_train(t1, t2, angles, spacing)
    assert np.all(np.abs(echoes) <= np.abs(epg.spin_echo_train(np.inf, np.inf, np.full(10, math.pi), spacing)) + 1e-12)


# ---- two pools -----------------------------------------------------------------------------------------------------

LIQUIDS = {"t1": (1.0, 0.4), "t2": (0.08, 0.02), "f": 0.25, "k": 12.0, "shift": 60.0}
BOUND = {"t1": (1.0, 0.6), "t2": (0.05, None), "f": 0.15, "k": 4.0, "shift": 0.0}


def pools_of(t1, t2, f, k, shift):
    return epg_exchange.TwoPools(*t1, *t2, fraction=f, exchange=k, shift=shift)


@pytest.mark.parametrize("tissue", [LIQUIDS, BOUND], ids=["liquids", "bound"])
def test_exchanging_pools_against_states_moved_by_hand(tissue):
    loss = 0.0 if tissue is LIQUIDS else 0.3
    states = two_pools(**tissue, orders=41)
    expected = gradient_echoes(states, FLIPS, PHASES, 6e-3, 2e-3, saturation=loss, B1=0.9)
    found = epg_exchange.spoiled_train(pools_of(**tissue), FLIPS, 6e-3, TE=2e-3, phases=PHASES, saturation=loss, B1=0.9)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    states = two_pools(**tissue, orders=49)
    expected = spin_echoes(states, FLIPS[:24], PHASES[:24], 8e-3, 1.2, saturation=loss, B1=0.9)
    found = epg_exchange.spin_echo_train(
        pools_of(**tissue), FLIPS[:24], 8e-3, excitation=1.2, phases=PHASES[:24], saturation=loss, B1=0.9
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    if tissue is BOUND:
        assert not found[0, 1].any()


def test_many_tissues_and_times():
    """Each tissue of a batch, over several blocks, is the one that runs alone; a list of TR is played as it stands."""
    count = 600
    t1 = np.linspace(0.3, 2.0, count)
    B1 = np.linspace(0.7, 1.3, count)
    TR = np.linspace(4e-3, 12e-3, 40)
    pools = epg_exchange.TwoPools(t1, 0.5, 0.06, 0.02, 0.2, 5.0, 30.0)
    found = epg_exchange.spoiled_train(pools, FLIPS, TR, B1=B1)
    for j in (0, 31, 257, 599):
        phases = SPOIL * np.arange(40) * np.arange(1, 41) / 2
        states = two_pools((t1[j], 0.5), (0.06, 0.02), 0.2, 5.0, 30.0, 41)
        np.testing.assert_allclose(found[j], gradient_echoes(states, FLIPS, phases, TR, 0.0, B1=B1[j]), atol=1e-12)


def test_pools_without_exchange_are_independent():
    alone = epg.spoiled_train([1.0, 0.4], [0.08, 0.02], FLIPS, 6e-3, TE=1e-3)
    pools = epg_exchange.TwoPools(1.0, 0.4, 0.08, 0.02, 0.25, 0.0)
    found = epg_exchange.spoiled_train(pools, FLIPS, 6e-3, TE=1e-3)[0]
    np.testing.assert_allclose(found, alone * [[0.75], [0.25]], atol=1e-14)
    echoes = epg.spin_echo_train([1.0, 0.4], [0.08, 0.02], FLIPS, 6e-3, phases=PHASES)
    found = epg_exchange.spin_echo_train(pools, FLIPS, 6e-3, phases=PHASES)[0]
    np.testing.assert_allclose(found, echoes * [[0.75], [0.25]], atol=1e-14)


def test_fast_exchange_is_one_pool_of_mean_rates():
    """Two like pools that exchange at k: the mean rates, but for terms of order (difference of rates)/k."""
    k, f = 1e6, 0.3
    rates = [(1 - f) / a + f / b for a, b in ((1.0, 0.4), (0.08, 0.02))]
    one = epg.spoiled_train(1 / rates[0], 1 / rates[1], FLIPS, 6e-3)[0]
    found = epg_exchange.spoiled_train(epg_exchange.TwoPools(1.0, 0.4, 0.08, 0.02, f, k), FLIPS, 6e-3)[0].sum(axis=0)
    assert np.abs(found - one).max() < 40 * (1 / 0.02 - 1 / 0.08) / k


def test_saturated_steady_state_of_a_bound_pool():
    """Ideal spoiling (T2 of the liquid far below TR): the steady state is a 2 x 2 linear equation."""
    f, k, TR, a, loss = 0.15, 4.0, 20e-3, 0.5, 0.4
    states = two_pools((1.0, 0.6), (1e-4, None), f, k, 0.0, 1)
    E, rest = expm(states.longitudinal * TR), states.rest
    pulse = np.diag([math.cos(a), math.exp(-loss)])
    before = np.linalg.solve(np.eye(2) - E @ pulse, rest - E @ rest)
    pools = epg_exchange.TwoPools(1.0, 0.6, 1e-4, None, f, k)
    found = epg_exchange.spoiled_train(pools, np.full(400, a), TR, saturation=loss)[0, 0, -1]
    assert found == pytest.approx(before[0] * math.sin(a), abs=1e-12)  # 400 pulses: the slow mode is below 1e-20


# ---- other engines -------------------------------------------------------------------------------------------------


def test_gradient_echoes_against_the_bloch_engine():
    """A timeline with a spoiler gradient, on 128 spins over one of its turns. Pulses of 10 ns: relaxation during each
    of 40 (3e-7 of T2) is all that differs."""
    count, flip, TR, TE, t1, t2, area = 40, 0.6, 10e-3, 2e-3, 0.5, 30e-3, 2e-5
    pulse = RF(np.array([flip / (2 * np.pi * 1e-8)]), 1e-8, phase=np.pi / 2)
    adc = ADC(1, 1e-6, 5e-9 + TE - 5e-7)
    block = Block(pulse, adc, trapezoid("z", area, 3e-3, 5e-4, 4e-3), duration=TR)
    timeline = Timeline((Repeat((block,), count, rf_spoiling(count)),))
    place = np.zeros((128, 3))
    place[:, 2] = (np.arange(128) + 0.5) / 128 / (timeline.gamma * area)
    found = bloch.simulate(timeline, Isochromats(t1, t2, position=place), exact=True).signal.mean(axis=0)
    expected = epg.spoiled_train(t1, t2, np.full(count, flip), TR, TE=TE)[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def spoiled_pools(pools, pulse, count, TR, TE):
    """A train of the exchange engine, (pool, pulse), as `spoiled_train` states it; spins over a turn of the spoiler."""
    area, spins = 2e-5, 96
    adc = ADC(1, 1e-7, pulse.reference + TE - 5e-8)
    block = Block(pulse, adc, trapezoid("z", area, 3e-3, 5e-4, 2e-3), duration=TR)
    timeline = Timeline((Repeat((block,), count, rf_spoiling(count)),))
    place = np.zeros((spins, 3))
    place[:, 2] = (np.arange(spins) + 0.5) / spins / (timeline.gamma * area)
    found = exchange.simulate(timeline, Pools(**pools, position=place), signal="sum", per_pool=True)
    return found.signal / spins


def test_exchanging_liquids_against_the_exchange_engine():
    """Pulses of 10 ns: 5e-7 of the shorter T2 in each of 40."""
    f, k, shift, flip = 0.25, 12.0, 40.0, 0.5
    pools = {"T1": [1.0, 0.4], "T2": [80e-3, 20e-3], "density": [1 - f, f], "offset": [0.0, shift],
             "rates": [[0, k], [k * (1 - f) / f, 0]]}  # fmt: skip
    pulse = RF(np.array([flip / (2 * np.pi * 1e-8)]), 1e-8, phase=np.pi / 2)
    expected = spoiled_pools(pools, pulse, 40, 8e-3, 1.5e-3)
    found = epg_exchange.spoiled_train(
        epg_exchange.TwoPools(1.0, 0.4, 80e-3, 20e-3, f, k, shift), np.full(40, flip), 8e-3, TE=1.5e-3
    )[0]
    np.testing.assert_allclose(np.reshape(expected, found.shape), found, atol=2e-6)


def test_a_bound_pool_against_the_exchange_engine():
    """Pulses of 10 us, with the saturation pi w1^2 g that their Gaussian line has: relaxation during them is 2e-4."""
    f, k, flip, length, T2 = 0.15, 4.0, 0.1, 10e-6, 10e-6
    pools = {"T1": [1.0, 0.6], "T2": [50e-3, T2], "density": [1 - f, f], "lineshape": ["", "gaussian"],
             "rates": [[0, k], [k * (1 - f) / f, 0]]}  # fmt: skip
    pulse = RF(np.array([flip / (2 * np.pi * length)]), length, phase=np.pi / 2)
    expected = np.reshape(spoiled_pools(pools, pulse, 60, 8e-3, 1.5e-3), (-1, 60))[0]
    loss = math.pi * (flip / length) ** 2 * length * T2 / math.sqrt(2 * math.pi)  # g of a Gaussian at its middle
    tissue = epg_exchange.TwoPools(1.0, 0.6, 50e-3, None, f, k)
    found = epg_exchange.spoiled_train(tissue, np.full(60, flip), 8e-3, TE=1.5e-3, saturation=loss)[0, 0]
    np.testing.assert_allclose(expected, found, rtol=1e-3)
    without = epg_exchange.spoiled_train(tissue, np.full(60, flip), 8e-3, TE=1.5e-3)[0, 0]
    assert abs(without[-1] / found[-1] - 1) > 5e-3


@pytest.mark.peer
def test_states_against_sycomore():
    """Sycomore (Lamy and Loureiro de Sousa 2020, doi:10.21105/joss.02352; MIT): the states of a train of 200 pulses
    and the signal on the way, to rounding."""
    sycomore = pytest.importorskip("sycomore")
    from sycomore.units import ms, rad

    n, flip, TR, t1, t2 = 200, math.radians(20), 6.0, 900.0, 70.0
    model = sycomore.epg.Regular(sycomore.Species(t1 * ms, t2 * ms))
    phases, signal = rf_spoiling(n), []
    for phase in phases:
        model.apply_pulse(flip * rad, (phase + math.pi / 2) * rad)
        signal.append(model.echo * np.exp(-1j * phase))
        last = np.array(model.states)
        model.apply_time_interval(TR * ms)
        model.shift()
    found = epg.spoiled_train(t1 * 1e-3, t2 * 1e-3, np.full(n, flip), TR * 1e-3)[0]
    np.testing.assert_allclose(found, signal, atol=1e-12)
    F, Z = epg.configurations(t1 * 1e-3, t2 * 1e-3, np.full(n, flip), TR * 1e-3)
    turn = np.exp(-1j * phases[-1])
    np.testing.assert_allclose(F[0, n - 1 :], last[:n, 0] * turn, atol=1e-12)
    np.testing.assert_allclose(Z[0], last[:n, 2], atol=1e-12)


# ---- threads, lanes, bad input -------------------------------------------------------------------------------------


def test_bits_do_not_depend_on_threads(monkeypatch):
    t1, t2 = np.linspace(0.1, 3, 1000), np.linspace(1e-3, 0.3, 1000)
    found = {}
    for n in ("1", "2", "5"):
        monkeypatch.setenv("BONEMRI_THREADS", n)
        pools = epg_exchange.TwoPools(t1, 0.5, t2, None, 0.1, 3.0)
        found[n] = (
            epg.spoiled_train(t1, t2, FLIPS, 5e-3).tobytes()
            + epg.spin_echo_train(t1, t2, FLIPS, 5e-3).tobytes()
            + epg_exchange.spoiled_train(pools, FLIPS, 5e-3, saturation=0.1).tobytes()
        )
    assert found["1"] == found["2"] == found["5"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 assembly")
@pytest.mark.parametrize(("file", "loop"), [("epg_train", "turn"), ("epg_pools", "mix"), ("epg_pools", "rotate")])
def test_loops_over_tissues_are_vectorised(file, loop):
    """An uncached compile multiplies in packed doubles; a scalar copy stands by for arrays that overlap."""
    text = (Path(epg.__file__).parent / f"{file}.py").read_text()
    text = text[: text.rindex("@njit(")]  # the loops, without the train that calls them
    text = text.replace("cache=True", "cache=False").replace("from ..", "from bonemri.simulator.")
    scope: dict = {"__name__": "loops_under_test"}
    exec(text, scope)
    assembly = scope[loop].inspect_asm(scope[loop].signatures[0])
    packed, scalar = (
        len(re.findall(rf"\bv?(?:f(?:n?m)(?:add|sub)\d*|mul){kind}\b", assembly)) for kind in ("pd", "sd")
    )
    assert packed >= max(scalar, 4)


BAD = [
    ({"T1": [1.0, 0.0]}, "T1 of tissue 1 is 0: expected above 0"),
    ({"T2": math.nan}, "T2 of tissue 0 is nan: expected above 0"),
    ({"T1": [1.0, 2.0], "T2": [0.1, 0.2, 0.3]}, "T1 is float64 of shape (2,): expected numbers, 1 or 3, one a tissue"),
    ({"T1": "long"}, "expected numbers"),
    ({"flip_angles": []}, "flip_angles is []: expected one finite number (rad) or more"),
    ({"flip_angles": [[0.1]]}, "expected one finite number (rad) or more"),
    ({"flip_angles": [0.1, math.inf]}, "expected one finite number (rad) or more"),
    ({"TR": -1e-3}, "TR of pulse 0 is -0.001 s: expected from 0 up"),
    ({"TR": [1e-3, 2e-3]}, "TR has 2 values: expected 1 or 3, one a pulse"),
    ({"TE": 6e-3}, "TE of pulse 0 is 0.006 s: expected at most TR, 0.005 s"),
    ({"phases": [0.0, 1.0]}, "phases has 2 values: expected 1 or 3, one a pulse"),
    ({"increment": math.nan}, "increment is nan: expected one finite number (rad)"),
    ({"B1": math.inf}, "B1 of tissue 0 is inf: expected a finite number"),
    ({"D": -1e-3}, "D of tissue 0 is -0.001: expected a finite number from 0 up"),
    ({"dephasing": [1.0]}, "dephasing is [1.0]: expected one finite number (rad/m)"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input(change, message):
    good = {"T1": 1.0, "T2": 0.1, "flip_angles": [0.1, 0.2, 0.3], "TR": 5e-3}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        epg.spoiled_train(**good | change)
    assert str(caught.value).startswith("epg.spoiled_train: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"fraction": 1.0}, "fraction of tissue 0 is 1: expected 0 to below 1"),
    ({"exchange": [1.0, -1.0]}, "exchange of tissue 1 is -1: expected from 0 up"),
    ({"fraction": 0.0}, "exchange of tissue 0 is 2: expected 0 where fraction is 0"),
    ({"T2_b": 0.0}, "T2_b of tissue 0 is 0: expected above 0"),
    ({"T2_b": 0.01}, "saturation is given, but pool b is liquid"),
    ({"saturation": -0.1}, "saturation of pulse 0 is -0.1: expected from 0 up"),
])  # fmt: skip
def test_bad_pools(change, message):
    good = {"T1_a": 1.0, "T1_b": 1.0, "T2_a": 0.1, "T2_b": None, "fraction": 0.1, "exchange": 2.0}
    change = dict(change)
    saturation = change.pop("saturation", 0.1 if change.get("T2_b", None) != 0.0 else 0.0)
    with pytest.raises(InputError, match=re.escape(message)):
        epg_exchange.spoiled_train(epg_exchange.TwoPools(**good | change), [0.1], 5e-3, saturation=saturation)
    with pytest.raises(InputError, match="^epg_exchange.spin_echo_train: "):
        epg_exchange.spin_echo_train(epg_exchange.TwoPools(**good | change), [0.1], 5e-3, saturation=saturation)
