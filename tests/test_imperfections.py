"""Concomitant fields, eddy currents and delays against closed forms, quadrature and exact fields."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Gradient, Repeat, Timeline, trapezoid
from bonemri.simulator.acquisition.fields import imperfections
from bonemri.simulator.acquisition.fields.coils import Coils
from bonemri.simulator.acquisition.fields.grid import Grid
from bonemri.simulator.acquisition.fields.imperfections import EddyCurrent
from bonemri.simulator.acquisition.kspace import acquire as kspace
from bonemri.simulator.acquisition.kspace import trajectory
from bonemri.simulator.acquisition.kspace.acquire import PoolMap
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.constants import GYROMAGNETIC, PROTON

TURN = 2 * math.pi * PROTON  # rad/s/T
RNG = np.random.default_rng(1998)
PLACE = RNG.uniform(-0.15, 0.15, (12, 3))


def trapezoids(top, ramp=3e-4, flat=2e-3, start=1e-4):
    """A trapezoid along some direction: waveform, and its ends."""
    times = start + np.array([0.0, ramp, ramp + flat, 2 * ramp + flat])
    return times, np.outer([0.0, 1.0, 1.0, 0.0], top)


def any_waveform(rng, knots=6):
    """Random knots, with a jump, not 0 at its ends."""
    times = np.sort(rng.uniform(0, 5e-3, knots))
    times[2] = times[3]
    return times, rng.normal(0, 0.02, (knots, 3))


def value(waveform, t):
    times, gradient = waveform
    if not times[0] <= t < times[-1]:
        return np.zeros(3)
    n = int(np.searchsorted(times, t, side="right")) - 1
    return gradient[n] + (t - times[n]) / (times[n + 1] - times[n]) * (gradient[n + 1] - gradient[n])


def maxwell(g, r, b0, a=0.5):
    """A field that obeys Maxwell's equations, with Bz = B0 + G.r."""
    gx, gy, gz = g
    x, y, z = r
    return np.array([gx * z - a * gz * x, gy * z - (1 - a) * gz * y, b0 + gx * x + gy * y + gz * z])


# ---- concomitant fields --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asymmetry", [0.5, 0.3])
def test_concomitant_field_is_the_size_of_an_exact_one(asymmetry):
    """|B| of a field without curl and divergence, less B0 + G.r: the lowest order in 1/B0, so that the difference falls
    with 1/B0^2, and at 3 T is below G.r/B0 = 3e-3 of it."""
    g = np.array([0.02, -0.035, 0.025])
    slope = np.stack([maxwell(g, PLACE[0] + h, 3.0, asymmetry) - maxwell(g, PLACE[0], 3.0, asymmetry)
                      for h in np.eye(3)], axis=1)  # fmt: skip
    assert abs(np.trace(slope)) < 1e-15 and np.abs(slope - slope.T).max() < 1e-15  # B is linear: its slopes are exact

    def error(b0):
        fields = np.array([maxwell(g, r, b0, asymmetry) for r in PLACE])
        # |B| - Bz without the cancellation
        exact = (fields[:, 0] ** 2 + fields[:, 1] ** 2) / (np.linalg.norm(fields, axis=1) + fields[:, 2])
        found = imperfections.concomitant_field(g, PLACE, b0, asymmetry=asymmetry)
        return found - exact, exact

    high, low = error(6.0)[0], error(3.0)[0]
    # the next terms are smaller by G.r/B0 and B_perp^2/B0^2, some 1e-3 each
    np.testing.assert_allclose(low, 4 * high, rtol=0.02, atol=1e-14)
    assert (np.abs(low) < 4e-3 * error(3.0)[1]).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-0.04, 0.04), min_size=3, max_size=3), st.sampled_from([1.5, 3.0]))
def test_concomitant_phase_of_a_trapezoid(top, b0):
    """The integral of a squared trapezoid is top^2 (flat + 2/3 ramp), times Bernstein's function of position."""
    ramp, flat = 3e-4, 2e-3
    gx, gy, gz = top
    x, y, z = PLACE.T
    field = (gx**2 + gy**2) * z**2 + gz**2 * (x**2 + y**2) / 4 - gx * gz * x * z - gy * gz * y * z
    expected = TURN / (2 * b0) * field * (flat + 2 * ramp / 3)
    found = imperfections.concomitant_phase(trapezoids(top, ramp, flat), PLACE, b0)
    assert found.shape == (12, 4)
    np.testing.assert_allclose(found[:, -1], expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(found[:, 0], 0.0)


def test_concomitant_phase_of_any_waveform():
    """At any time, by quadrature between the knots; the phase ends with the waveform."""
    waveform = any_waveform(RNG)
    times = waveform[0]
    at = np.array([times[0] - 1e-3, *RNG.uniform(times[0], times[-1], 5), times[-1], times[-1] + 1.0])
    found = imperfections.concomitant_phase(waveform, PLACE, 1.5, at=at)
    for t, phase in zip(at, found.T, strict=True):
        edges = np.unique(np.clip([*times, t], times[0], max(min(t, times[-1]), times[0])))
        expected = np.zeros(12)
        for a, b in itertools.pairwise(edges):
            node, weight = np.polynomial.legendre.leggauss(2)  # exact for the square of a line
            for s, w in zip(a + (b - a) * (node + 1) / 2, weight * (b - a) / 2, strict=True):
                expected += w * TURN * imperfections.concomitant_field(value(waveform, s), PLACE, 1.5)
        np.testing.assert_allclose(phase, expected, atol=1e-12 * max(np.abs(found).max(), 1.0))


def test_refocusing_undoes_equal_lobes():
    """Two equal lobes, whatever their signs, on either side of a refocusing pulse: nothing is left. Without the pulse
    the phase doubles; with unequal lobes their difference stays."""
    one, other = trapezoids((0.03, 0.01, -0.02)), trapezoids((-0.03, -0.01, 0.02), start=10e-3)
    both = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    single = imperfections.concomitant_phase(one, PLACE, 3.0)[:, -1]
    double = imperfections.concomitant_phase(both, PLACE, 3.0)[:, -1]
    np.testing.assert_allclose(double, 2 * single, rtol=1e-12)
    at = np.array([5e-3, 7e-3, 30e-3])
    refocused = imperfections.concomitant_phase(both, PLACE, 3.0, at=at, refocused=[6e-3])
    np.testing.assert_allclose(refocused, np.stack([single, -single, 0 * single], axis=1), atol=1e-13)
    twice = imperfections.concomitant_phase(both, PLACE, 3.0, at=at, refocused=[7e-3, 6e-3])
    np.testing.assert_allclose(twice, np.stack([single, single, double], axis=1), rtol=1e-12)


def test_concomitant_scales():
    """With the square of the gradient and of the place, and one over B0; shifted with its centre; 31P by its gamma."""
    waveform = any_waveform(RNG)
    one = imperfections.concomitant_phase(waveform, PLACE, 3.0)
    twice = (waveform[0], 2 * waveform[1])
    np.testing.assert_allclose(imperfections.concomitant_phase(twice, PLACE, 3.0), 4 * one)
    np.testing.assert_allclose(imperfections.concomitant_phase(waveform, 2 * PLACE, 3.0), 4 * one)
    np.testing.assert_allclose(imperfections.concomitant_phase(waveform, PLACE, 1.5), 2 * one)
    c = np.array([0.01, 0.02, 0.1])
    np.testing.assert_allclose(imperfections.concomitant_phase(waveform, PLACE + c, 3.0, centre=c), one)
    share = GYROMAGNETIC["31P"] / PROTON
    np.testing.assert_allclose(imperfections.concomitant_phase(waveform, PLACE, 3.0, nucleus="31P"), share * one)


def test_concomitant_terms_make_the_phase():
    waveform = any_waveform(RNG)
    terms = imperfections.concomitant_coefficients(waveform, 3.0)
    basis = imperfections.concomitant_basis(PLACE)
    assert terms.shape == (6, 4) and basis.shape == (12, 4)
    np.testing.assert_allclose(basis @ terms.T, imperfections.concomitant_phase(waveform, PLACE, 3.0))


@pytest.mark.parametrize("precision", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("strength", [1.0, 6.0])
def test_concomitant_factors(precision, strength):
    """A sum of products of time and place is exp(+i phase) to the precision; squares of a strong gradient, 36 times
    the phase, need more of them."""
    spokes = radial(spokes=30)
    spokes = spokes.replace(gradients=strength * spokes.gradients, k=None)
    courses, maps = imperfections.concomitant_factors(spokes, PLACE, 1.5, precision=precision)
    assert courses.shape[1:] == (30, 40) and maps.shape[1:] == (12,)
    exact = np.exp(1j * imperfections.concomitant_phase(spokes, PLACE, 1.5))
    assert np.abs(np.einsum("kp,krs->prs", maps, courses) - exact).max() < precision
    # a small phase needs 1 and its four terms, and twelve places no more than twelve
    assert len(courses) <= (5 if precision == 1e-2 and strength == 1 else 12)
    single = imperfections.concomitant_factors(spokes, 0 * PLACE, 1.5)
    assert len(single[0]) == 1
    np.testing.assert_allclose(single[0] * single[1][0, 0], 1.0)


# ---- eddy currents -------------------------------------------------------------------------------------------------


def test_eddy_current_of_a_step():
    """A jump of G: -a G exp(-t/tau) after it, and k late by gamma a G tau (1 - exp(-t/tau))."""
    a, tau, g = 0.02, 1e-3, 0.03
    step = np.array([0.0, 1.0]), np.array([[g, 0, 0]] * 2)
    t = np.array([-1e-3, 0.0, 1e-4, 1e-3, 5e-3])
    held = np.where(t < 0, 0.0, np.exp(-np.maximum(t, 0) / tau))
    gradient, field = imperfections.eddy_gradient(step, [EddyCurrent(tau, a, (0.001, 0, 0))], at=t)
    np.testing.assert_allclose(gradient, np.outer(-a * g * held, [1, 0, 0]), rtol=1e-13, atol=1e-20)
    np.testing.assert_allclose(field, -0.001 * g * held, rtol=1e-13, atol=1e-20)
    k, phase = imperfections.eddy_shift(step, [EddyCurrent(tau, a, (0.001, 0, 0))], at=t)
    gone = np.where(t < 0, 0.0, -np.expm1(-np.maximum(t, 0) / tau))
    np.testing.assert_allclose(k[:, 0], -PROTON * a * g * tau * gone, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(phase, -TURN * 0.001 * g * tau * gone, rtol=1e-12, atol=1e-15)


def test_eddy_current_of_a_trapezoid():
    """On the ramp -a s tau (1 - exp(-t/tau)); after the second ramp both lobes fade, with opposite signs."""
    a, tau, g, ramp, flat = 0.05, 7e-4, 0.04, 3e-4, 2e-3
    waveform = trapezoids((0, g, 0), ramp, flat, start=0.0)
    slope = g / ramp
    top, end = ramp + flat, 2 * ramp + flat
    lost = slope * tau * -math.expm1(-ramp / tau)  # at the end of a ramp
    found, _ = imperfections.eddy_gradient(waveform, [EddyCurrent(tau, a)], at=[1e-4, ramp, top, end, end + 1e-3])
    first = [slope * tau * -math.expm1(-1e-4 / tau), lost, lost * math.exp(-flat / tau)]
    last = lost * math.exp(-(flat + ramp) / tau) - lost
    np.testing.assert_allclose(found[:, 1], [-a * v for v in (*first, last, last * math.exp(-1e-3 / tau))], rtol=1e-12)
    assert not found[:, [0, 2]].any()
    # what the rising ramp takes from k the falling one gives back, when all has faded
    k, _ = imperfections.eddy_shift(waveform, [EddyCurrent(tau, a)], at=[end, 1.0])
    np.testing.assert_allclose(k[:, 1], [PROTON * a * tau * last, 0.0], rtol=1e-12, atol=1e-12 * abs(k[0, 1]))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tau=st.floats(1e-5, 0.1))
def test_eddy_currents_of_any_waveform(seed, tau):
    """The convolution -a dG/dt * exp(-t/tau) by quadrature, jumps apart, and k as the integral of the gradient."""
    rng = np.random.default_rng(seed)
    times, gradient = waveform = any_waveform(rng)
    currents = [EddyCurrent(tau, rng.normal(0, 0.03, (3, 3)), rng.normal(0, 1e-3, 3))]
    at = np.sort(rng.uniform(times[0], times[-1] + 1e-3, 4))
    found, field = imperfections.eddy_gradient(waveform, currents, at=at)
    framed = [times[0], *times, times[-1]], np.concatenate([np.zeros((1, 3)), gradient, np.zeros((1, 3))])
    for n, t in enumerate(at):
        held = np.zeros(3)
        for i in range(len(framed[0]) - 1):
            a, b = framed[0][i], min(framed[0][i + 1], t)
            change = framed[1][i + 1] - framed[1][i]
            if framed[0][i + 1] == framed[0][i]:
                held += change * math.exp(-(t - a) / tau) if a <= t else 0.0
            elif b > a:
                slope = change / (framed[0][i + 1] - a)
                held += slope * quad(lambda s, t=t: math.exp(-(t - s) / tau), a, b, epsabs=0, epsrel=1e-11,
                                     points=[max(a, b - 10 * tau)] if b - a > 10 * tau else None)[0]  # fmt: skip
        np.testing.assert_allclose(found[n], -currents[0].linear @ held, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(field[n], -currents[0].uniform @ held, rtol=1e-8, atol=1e-13)
    k, phase = imperfections.eddy_shift(waveform, currents, at=at)
    fine = np.unique(np.concatenate([np.linspace(times[0], at[-1], 4001), times, at]))
    middle = (fine[1:] + fine[:-1]) / 2
    mean, uniform = imperfections.eddy_gradient(waveform, currents, at=middle)
    # the midpoint rule errs by (step/tau)^2/24 of what fades within tau; only slow enough ones are held to it
    if tau > 1e-4:
        area = np.concatenate([np.zeros((1, 3)), np.cumsum(mean * np.diff(fine)[:, None], axis=0)])
        expected = PROTON * area[np.searchsorted(fine, at)]
        np.testing.assert_allclose(k, expected, atol=1e-4 * np.abs(expected).max())
        angle = TURN * np.concatenate([[0.0], np.cumsum(uniform * np.diff(fine))])[np.searchsorted(fine, at)]
        np.testing.assert_allclose(phase, angle, atol=1e-4 * np.abs(angle).max())


def test_limits_of_the_time_constant():
    """Very short: k(t) is less by gamma a tau G(t), as by a delay a tau. Very long: a gradient smaller by a."""
    waveform = trapezoids((0.02, -0.01, 0.03), start=0.0)
    at = np.linspace(1e-4, 2.5e-3, 7)
    gradient = np.array([value(waveform, t) for t in at])
    tau = 1e-9
    k, _ = imperfections.eddy_shift(waveform, [EddyCurrent(tau, 0.1)], at=at)
    # on a ramp the short one leaves tau s itself, smaller than G by tau over the ramp
    np.testing.assert_allclose(k, -PROTON * 0.1 * tau * gradient, rtol=1e-4)
    long, _ = imperfections.eddy_gradient(waveform, [EddyCurrent(1e4, 0.1)], at=at)
    np.testing.assert_allclose(long, -0.1 * gradient, rtol=1e-5)
    nothing = imperfections.eddy_shift(waveform, [], at=at)
    assert not nothing[0].any() and not nothing[1].any()


@pytest.mark.parametrize("tau", [1e-3, 8e-3])
def test_a_train_that_has_been_played_for_ever(tau):
    """The periodic state is that of many repetitions played out: forty leave exp(-40 period/tau)."""
    period, waveform = 5e-3, any_waveform(RNG)
    span = waveform[0][-1] - waveform[0][0]
    assert span < period
    count = math.ceil(40 * tau / period) + 1
    train = [(waveform[0] + n * period, waveform[1]) for n in range(count)]
    # what lies between two of them is 0: both ends are jumps
    times = np.concatenate([np.concatenate([t[:1], t, t[-1:]]) for t, _ in train])
    values = np.concatenate([np.concatenate([np.zeros((1, 3)), g, np.zeros((1, 3))]) for _, g in train])
    at = waveform[0][0] + np.linspace(0, period * 0.999, 9)
    current = [EddyCurrent(tau, 0.03, (1e-3, 0, 2e-3))]
    last = (count - 1) * period
    found, field = imperfections.eddy_gradient(waveform, current, at=at, period=period)
    expected, uniform = imperfections.eddy_gradient((times, values), current, at=at + last)
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(field, uniform, atol=1e-10 * np.abs(uniform).max())
    k, phase = imperfections.eddy_shift(waveform, current, at=at, period=period)
    at = np.append(at + last, waveform[0][0] + last - 1e-15)
    all_k, all_phase = imperfections.eddy_shift((times, values), current, at=at)
    # the first time asked for lies right after a jump: the integral from just before it
    np.testing.assert_allclose(k, all_k[:-1] - all_k[-1], atol=1e-9 * np.abs(all_k).max())
    np.testing.assert_allclose(phase, all_phase[:-1] - all_phase[-1], atol=1e-9 * np.abs(all_phase).max())


def test_refocusing_inverts_what_eddy_currents_have_done():
    waveform = trapezoids((0.02, -0.01, 0.03), start=0.0)
    current = [EddyCurrent(2e-3, 0.03, (1e-3, 0, 0))]
    at = np.array([3e-3, 4e-3, 9e-3])
    plain, phase = imperfections.eddy_shift(waveform, current, at=at)
    turned, angle = imperfections.eddy_shift(waveform, current, at=at, refocused=[4e-3])
    expected = np.stack([plain[0], -plain[1], plain[2] - 2 * plain[1]])
    np.testing.assert_allclose(turned, expected, atol=1e-13)
    np.testing.assert_allclose(angle, [phase[0], -phase[1], phase[2] - 2 * phase[1]], atol=1e-13)


def test_first_echo_has_more_eddy_phase():
    """In a monopolar train of echoes the uniform field of slice rewinding has faded by the later ones: the phase grows
    by less from echo to echo, so that the first echo does not fit the others."""
    waveform = trapezoids((0, 0, -0.03), ramp=2e-4, flat=5e-4, start=0.0)
    echoes = 1.2e-3 + 1.5e-3 * np.arange(6)
    _, phase = imperfections.eddy_shift(waveform, [EddyCurrent(1e-3, 0.0, (0, 0, 1e-3))], at=echoes)
    steps = np.abs(np.diff(phase))
    np.testing.assert_allclose(steps[1:] / steps[:-1], math.exp(-1.5), rtol=1e-9)
    assert abs(phase[0] - phase[-1]) > 0.01


# ---- delays and bipolar readouts -----------------------------------------------------------------------------------


def radial(**changes):
    usual = {"matrix": 32, "fov": 0.16, "dwell": 4e-6, "spokes": 50, "samples": 40, "ramp": 5e-5}
    return trajectory.radial_3d(**usual | changes)


def test_a_delay_shifts_k():
    """By -gamma G tau on the flat top, each axis by its own."""
    spokes = radial()
    tau = np.array([1e-6, -2e-6, 0.0])
    late = imperfections.delayed(spokes, tau)
    flat = (spokes.times + 3e-6 < spokes.knots[..., -2]) & (spokes.times - 3e-6 > spokes.knots[..., 1])
    assert flat.sum() > 10
    top = spokes.gradients[:, 1]
    expected = -PROTON * top * tau
    found = (late.k - spokes.k)[:, flat]
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None], found.shape), atol=1e-10 * spokes.k_max)
    # on the ramp: the integral of the gradient as it was tau before
    np.testing.assert_allclose(late.k[..., 0], spokes.positions(spokes.times - 1e-6)[..., 0], atol=1e-12 * spokes.k_max)
    np.testing.assert_array_equal(late.k[..., 2], spokes.k[..., 2])
    back = imperfections.delayed(late, -tau)
    assert np.abs(back.k - spokes.k)[:, flat].max() < 1e-10 * spokes.k_max
    assert late.weights is spokes.weights or np.array_equal(late.weights, spokes.weights)


def test_one_delay_for_all_axes_is_one_of_time():
    spokes = radial()
    np.testing.assert_allclose(imperfections.delayed(spokes, 2e-6).k, spokes.positions(spokes.times - 2e-6), atol=1e-9)
    np.testing.assert_array_equal(imperfections.delayed(spokes, 0.0).k, spokes.k)


def test_a_trajectory_is_its_waveforms():
    """Row by row and all rows at once give what the waveform of each readout gives."""
    spokes = radial(spokes=3)
    current = [EddyCurrent(1e-4, 0.03, (1e-3, 0, -1e-3)), EddyCurrent(1e-2, (0.01, 0.02, 0.0))]
    moved, phase = imperfections.eddy(spokes, current)
    maxwell_phase = imperfections.concomitant_phase(spokes, PLACE, 3.0)
    assert maxwell_phase.shape == (12, 3, 40)
    own = np.broadcast_to(spokes.knots, spokes.gradients.shape[:2])
    apart = spokes.replace(knots=own, times=np.broadcast_to(spokes.times, spokes.k.shape[:2]))
    np.testing.assert_allclose(imperfections.eddy(apart, current)[0].k, moved.k, atol=1e-12 * spokes.k_max)
    np.testing.assert_allclose(imperfections.concomitant_phase(apart, PLACE, 3.0), maxwell_phase, atol=1e-14)
    for row in range(3):
        waveform = spokes.waveform(row)
        shift, angle = imperfections.eddy_shift(waveform, current, at=spokes.times)
        np.testing.assert_allclose(moved.k[row] - spokes.k[row], shift, atol=1e-12 * spokes.k_max)
        np.testing.assert_allclose(phase[row], angle, atol=1e-15)
        expected = imperfections.concomitant_phase(waveform, PLACE, 3.0, at=spokes.times)
        np.testing.assert_allclose(maxwell_phase[:, row], expected, atol=1e-15)


def test_bipolar_phase():
    """Odd and even echoes part by twice a phase that is constant and one that is linear; it is the phase which an image
    of data shifted by the delay has."""
    g, tau = np.array([0.02, 0.0, 0.0]), 1.5e-6
    phase = imperfections.bipolar_phase(4, PLACE, g, tau, constant=0.2)
    assert phase.shape == (12, 4)
    np.testing.assert_allclose(phase[:, 0], 0.2 - TURN * 0.02 * tau * PLACE[:, 0])
    np.testing.assert_allclose(phase[:, 1:], np.outer(phase[:, 0], [-1, 1, -1]))
    # one point source at x, 64 samples of a line: shifted data, reconstructed as if they were not
    x, k = 0.03, np.fft.fftshift(np.fft.fftfreq(64, 1e-3)) / 1.0
    shift = -PROTON * 0.02 * tau
    image = np.exp(2j * np.pi * (k + shift) * x) @ np.exp(-2j * np.pi * k * x) / 64
    expected = imperfections.bipolar_phase(1, [x, 0.0, 0.0], g, tau)[0]
    assert np.angle(image) == pytest.approx(expected, rel=1e-9)


# ---- waveforms of a timeline ---------------------------------------------------------------------------------------


def test_played_gradient():
    """Blocks in their order, repeats unrolled, gradients of two axes on their own knots: the areas are those played."""
    pulse = RF(np.ones(10) * 100, 1e-5)
    block = Block(pulse, Gradient("z", [0, 1e-4], [0.01, 0.01]), duration=2e-4)
    read = Block(trapezoid("x", 2e-5, 1e-3, 1e-4), trapezoid("y", -1e-5, 8e-4, 2e-4, delay=1e-4), ADC(4, 1e-4, 2e-4))
    line = Timeline((Block(duration=1e-3), Repeat((block, read), 3)))
    times, gradient = imperfections.played_gradient(line)
    assert times[0] == 0 and times[-1] == pytest.approx(line.duration)
    assert (np.diff(times) >= 0).all()
    np.testing.assert_allclose(np.trapezoid(gradient, times, axis=0), 3 * np.array([2e-5, -1e-5, 1e-6]))
    middle = 1e-3 + 2 * 1.2e-3 + 2e-4 + 5e-4
    np.testing.assert_allclose([np.interp(middle, times, g) for g in gradient.T],
                               [2e-5 / 9e-4, -1e-5 / 6e-4, 0])  # fmt: skip
    # a z gradient that jumps on and off: two knots at a time
    assert np.count_nonzero(np.diff(times) == 0) == 6


def test_concomitant_phase_of_a_timeline():
    """The waveform of a timeline goes straight in, and so does the effective gradient: the squares are the same."""
    from bonemri.simulator.acquisition.events import moments

    pulse = RF(np.ones(10) * 2500, 1e-5)
    line = Timeline((Block(pulse), Block(trapezoid("x", 3e-5, 2e-3, 2e-4), trapezoid("z", 1e-5, 1e-3, 2e-4)),
                     Block(ADC(1, 1e-6))))  # fmt: skip
    played = imperfections.concomitant_phase(imperfections.played_gradient(line), PLACE, 3.0)[:, -1]
    effective = imperfections.concomitant_phase(moments.effective_gradient(line), PLACE, 3.0)[:, -1]
    np.testing.assert_allclose(played, effective, rtol=1e-12)


# ---- through the scanner -------------------------------------------------------------------------------------------


def test_a_scanner_spoils_a_trajectory():
    spokes = radial()
    current = (EddyCurrent(1e-4, 0.03, (1e-3, 0, 0)),)
    same, nothing = Scanner().actual(spokes)
    assert same is spokes and not nothing.any()
    found, phase = Scanner(delays=1e-6, eddy_currents=current).actual(spokes)
    late, (shifted, expected) = imperfections.delayed(spokes, 1e-6), imperfections.eddy(spokes, current)
    np.testing.assert_allclose(found.k, late.k + shifted.k - spokes.k, atol=1e-12 * spokes.k_max)
    np.testing.assert_allclose(phase, expected)
    lines = trajectory.epi(matrix=(1, 16, 16), fov=(4e-3, 0.16, 0.16), dwell=4e-6)
    _, phase = Scanner(odd_even_phase=0.3).actual(lines)
    np.testing.assert_allclose(phase, 0.3 * np.broadcast_to(lines.polarity[:, None], phase.shape))


def test_a_scanner_acquires():
    """Two points in space against the direct sum, with everything wrong at once: delays, eddy currents, concomitant
    fields, coils and B0. NUFFT to 1e-6, concomitant factors to 1e-4."""
    spokes = radial(spokes=20)
    grid = Grid((8, 8, 8), (0.02,) * 3)
    density = np.zeros(grid.shape)
    places = [(1, 2, 6), (6, 5, 1)]
    for n, p in enumerate(places):
        density[p] = 1.0 + n
    b0 = 300.0 * grid.positions[..., 0] / 0.08
    s = np.stack([1 + 0j * b0, np.exp(20j * grid.positions[..., 1]) * (1 + 5 * grid.positions[..., 2])])
    scanner = Scanner(b0=b0, coils=Coils(s), delays=(1e-6, 2e-6, 0.0), concomitant=True,
                      eddy_currents=(EddyCurrent(1e-4, 0.03, (1e-3, 0, 2e-3)),))  # fmt: skip
    pool = PoolMap(density, amplitude=np.array([1.0, 0.5]), R2=500.0)
    dephased = np.array([1e-3, 2e-3])
    found = scanner.acquire(spokes, [pool], grid, 1.5, dephased=dephased, precision=1e-4, voxels="point", eps=1e-8)
    actual, phase = scanner.actual(spokes)
    assert np.abs(phase).max() > 0.01 and np.abs(actual.k - spokes.k).max() > 1
    expected = np.zeros((2, 2, 20, 40), complex)
    for p in places:
        r = grid.positions[p]
        turn = 2 * math.pi * actual.k @ r + phase + imperfections.concomitant_phase(spokes, r, 1.5)
        for echo in range(2):
            offset = 2 * math.pi * b0[p] * (dephased[echo] + spokes.times)
            one = density[p] * pool.amplitude[echo] * np.exp(1j * (turn + offset) - 500.0 * spokes.times)
            expected[echo] += s[(slice(None), *p)][:, None, None] * one * np.prod(grid.edges)
    assert np.abs(found - expected).max() < 5e-4 * np.abs(expected).max()
    plain = Scanner().acquire(spokes, [PoolMap(density)], grid, 1.5, voxels="point")
    np.testing.assert_array_equal(plain, kspace.acquire(spokes, [PoolMap(density)], grid.edges, voxels="point"))


def test_a_late_scanner_reads_what_came_before():
    """A delay of two dwells, on all axes: sample n + 2 is what sample n should have been."""
    spokes = radial(spokes=50, ramp=1e-6)
    grid = Grid((16, 16, 16), (0.01,) * 3)
    ball = (np.linalg.norm(grid.positions, axis=-1) < 0.05).astype(float)
    late = Scanner(delays=8e-6).acquire(spokes, [PoolMap(ball)], grid, 3.0)
    told = Scanner().acquire(spokes, [PoolMap(ball)], grid, 3.0)
    np.testing.assert_allclose(late[..., 2:], told[..., :-2], atol=1e-5 * np.abs(told).max())


# ---- bad input -----------------------------------------------------------------------------------------------------

GOOD = trapezoids((0.01, 0, 0))
BARE = radial(spokes=3).replace(gradients=None, knots=None, start=None)
LONG = np.linspace(0, 1e-2, 3000), np.random.default_rng(0).normal(0, 0.03, (3000, 3))
GRID = Grid((12, 12, 12), (0.02,) * 3).positions
OBLIQUE = Grid((1, 1, 1), affine=np.diag([-1.0, 1.0, 1.0, 1.0]))
BAD = [
    (lambda: imperfections.concomitant_phase(GOOD, PLACE, 0.0), "field_strength is 0.0: expected above 0 T"),
    (lambda: imperfections.concomitant_phase(GOOD, PLACE[:, :2], 3.0), "expected (..., 3)"),
    (lambda: imperfections.concomitant_phase((GOOD[0][::-1], GOOD[1]), PLACE, 3.0), "times decrease"),
    (lambda: imperfections.concomitant_phase((GOOD[0], GOOD[1][:, 0]), PLACE, 3.0), "expected (knot,) and (knot, 3)"),
    (lambda: imperfections.concomitant_phase((GOOD[0], GOOD[1] * np.nan), PLACE, 3.0), "not finite"),
    (lambda: imperfections.concomitant_phase(GOOD, PLACE, 3.0, nucleus="13C"), "nucleus is '13C'"),
    (lambda: imperfections.concomitant_phase(BARE, PLACE, 3.0), "it has no gradients"),
    (lambda: imperfections.concomitant_factors(GOOD, PLACE, 3.0, precision=0.0), "precision is 0.0"),
    (lambda: imperfections.concomitant_factors(LONG, 100 * GRID, 3.0), "the phase varies by up to"),
    (lambda: Scanner().acquire(BARE, [], OBLIQUE, 3.0), "the grid is oblique"),
    (lambda: imperfections.eddy_shift(GOOD, [EddyCurrent(0.1)], at=[[0.0]]), "at: shape (1, 1)"),
    (lambda: imperfections.eddy_shift(GOOD, [EddyCurrent(0.1)], period=1e-3), "period is 0.001 s: expected at least"),
    (lambda: imperfections.eddy_shift(radial(spokes=3), [], at=[0.0]), "asked at its samples"),
    (lambda: EddyCurrent(0.0), "time_constant is 0.0: expected above 0 s"),
    (lambda: EddyCurrent(0.1, (1, 2)), "linear has shape (2,)"),
    (lambda: EddyCurrent(0.1, 0.0, (1, 2)), "uniform has shape (2,)"),
    (lambda: imperfections.delayed(BARE, 1e-6), "it has no gradients"),
    (lambda: imperfections.delayed(radial(spokes=3), (1e-6, 0.0)), "delays: (1e-06, 0.0)"),
    (lambda: imperfections.bipolar_phase(0, PLACE, (1, 0, 0)), "echoes is 0"),
    (lambda: imperfections.bipolar_phase(2, PLACE, (1, 0)), "gradient is (1, 0)"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
