"""Blood in a capillary network against its two limits and paths drawn one by one; what a diffusion scan sees of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from bonemri.errors import InputError
from bonemri.simulator import protocols
from bonemri.simulator.acquisition.events import moments
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import capillaries, walkers
from bonemri.simulator.sequences import diffusion_walkers
from bonemri.simulator.sequences.sequence import Pool

GAMMA = 2 * math.pi * PROTON  # rad/s/T
SIGMAS = 4.5  # standard errors allowed: one test in 1e5 fails by chance, and the seeds are fixed
LOBE, SEPARATION = 10e-3, 30e-3  # s
TIMES = np.array([0, LOBE, LOBE, SEPARATION, SEPARATION, SEPARATION + LOBE])
PAIR = np.array([1.0, 1, 0, 0, -1, -1])[:, None] * np.array([0.6, 0.0, 0.8])  # T/m, of Stejskal and Tanner
COMPENSATED = np.array([0, 5e-3, 5e-3, 15e-3, 15e-3, 20e-3])
VELOCITY_BLIND = np.array([1.0, 1, -1, -1, 1, 1])[:, None] * np.eye(3)[0]


def scales(b, times=TIMES, gradient=PAIR) -> np.ndarray:
    """Amplitudes that give these b-values."""
    return np.sqrt(np.asarray(b, float) / np.trace(moments.b_matrix_of(times, gradient)))


# ---- the limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", ["fixed", "exponential"])
def test_ballistic(lengths):
    """Nobody reaches the end of a segment: sin(x)/x of x = gamma v m1, m1 the first moment (Le Bihan 1988)."""
    velocity, length = 1e-3, 1.0  # 40 um of a meter: some 4e-5 of all spins turn
    scale = scales([0, 5, 60, 300, 600])
    first = np.linalg.norm(moments.moment(TIMES, PAIR, 1))
    expected = np.sinc(GAMMA * velocity * first * scale / np.pi)
    assert expected.min() < 0
    found = capillaries.signal(TIMES, PAIR, velocity=velocity, length=length, lengths=lengths, scale=scale)
    np.testing.assert_allclose(found.signal, expected, atol=2 * velocity * TIMES[-1] / length)


def test_a_gradient_without_first_moment_does_not_see_straight_flow():
    assert np.abs(moments.moment(COMPENSATED, VELOCITY_BLIND, 1)).max() < 1e-15
    scale = scales([100, 1000], COMPENSATED, VELOCITY_BLIND)
    found = capillaries.signal(COMPENSATED, VELOCITY_BLIND, velocity=2e-3, length=1.0, scale=scale)
    np.testing.assert_allclose(found.signal, 1, atol=1e-4)  # 4e-5 of the spins turn
    turning = capillaries.signal(COMPENSATED, VELOCITY_BLIND, velocity=2e-3, length=5e-5, scale=scale)
    assert turning.signal[1] < 0.9


@pytest.mark.parametrize(("lengths", "share"), [("fixed", 1 / 6), ("exponential", 1 / 3)])
def test_many_segments_are_diffusion(lengths, share):
    """-ln(S)/b tends to l v/6 (l v/3 for exponential lengths), and the rest falls as the number of segments grows.

    What is missing is the time of a segment over that of a lobe: the velocity's correlation lasts l/v.
    """
    length, off = 10e-6, []
    for velocity in (0.02, 0.08):
        D_star = length * velocity * share * 1e6
        assert capillaries.pseudo_diffusion(velocity, length, lengths) == pytest.approx(D_star, rel=1e-12)
        b = 0.5 / D_star
        found = capillaries.signal(TIMES, PAIR, velocity=velocity, length=length, lengths=lengths, scale=scales(b),
                                   count=4096)  # fmt: skip
        rate = -math.log(found.signal) / b / D_star
        off.append(rate - 1)
        assert abs(off[-1]) < 2 * length / velocity / LOBE + SIGMAS * found.error / found.signal / 0.5
    assert abs(off[1]) < abs(off[0])


def test_velocity_and_pseudo_diffusion_are_inverse():
    for lengths in capillaries.LENGTHS:
        v = capillaries.velocity_of(np.array([0.0, 0.03]), 64e-6, lengths)
        np.testing.assert_allclose(capillaries.pseudo_diffusion(v, 64e-6, lengths), [0, 0.03])
    assert capillaries.velocity_of(0.03, 60e-6) == pytest.approx(3e-3)  # 6 D*/l


# ---- in between ----------------------------------------------------------------------------------------------------


def paths(times, gradient, velocity, length, lengths, count, rng) -> np.ndarray:
    """Phases of paths followed step by step through segments whose directions are drawn, by midpoint sums in time."""
    step = times[-1] / 2000
    t = (np.arange(2000) + 0.5) * step
    g = np.stack([np.interp(t, times, gradient[:, a]) for a in range(3)], axis=1)  # no jump lies on a midpoint

    def way(first):
        if lengths == "exponential":
            return rng.exponential(length, count)
        return length * rng.random(count) if first else np.full(count, length)

    def direction():
        u = rng.normal(size=(count, 3))
        return u / np.linalg.norm(u, axis=1, keepdims=True)

    place, unit, left = np.zeros((count, 3)), direction(), way(True)
    phase = np.zeros(count)
    for k in range(2000):
        go = np.minimum(left, velocity * step)
        place_before = place.copy()
        place += go[:, None] * unit
        left -= velocity * step
        turn = left <= 0
        if turn.any():
            unit[turn] = direction()[turn]
            place[turn] += -left[turn][:, None] * unit[turn]
            left[turn] += way(False)[turn]
        phase += GAMMA * step * ((place + place_before) / 2) @ g[k]
    return phase


@pytest.mark.parametrize("lengths", ["fixed", "exponential"])
@pytest.mark.parametrize("length", [30e-6, 120e-6])
def test_paths_drawn_one_by_one(lengths, length):
    """Between ballistic and diffusive: the same network by brute force, directions and all."""
    velocity, scale = 2.5e-3, scales([5, 20, 60, 150])
    phase = paths(TIMES, PAIR, velocity, length, lengths, 3000, np.random.default_rng(3))
    turned = np.cos(scale[:, None] * phase)
    found = capillaries.signal(TIMES, PAIR, velocity=velocity, length=length, lengths=lengths, scale=scale)
    error = turned.std(axis=1) / math.sqrt(phase.size)
    # corners of a path are cut to steps of 20 us: a hundredth of a segment
    allowed = SIGMAS * np.hypot(error, found.error) + 2e-3
    np.testing.assert_array_less(np.abs(found.signal - turned.mean(axis=1)), allowed)
    b = scale**2 * np.trace(moments.b_matrix_of(TIMES, PAIR))
    assert np.abs(found.signal - np.exp(-b * capillaries.pseudo_diffusion(velocity, length, lengths))).max() > 0.02


def test_segments_of_one_length_by_quadrature():
    """Only the place in the first segment is random: an integral over it of the product of sincs."""
    velocity, length, g = 3e-3, 40e-6, 0.02
    knots = np.array([0, LOBE, SEPARATION, SEPARATION + LOBE])
    area = g * np.array([0, LOBE, LOBE, 0])  # the gradient's integral: rises, stays, falls

    def second(t):
        at = np.append(knots[knots < t], t)
        return np.trapezoid(np.interp(at, knots, area), at)

    def product(u):
        turns = np.append(np.arange(u * length / velocity, knots[-1], length / velocity), knots[-1])
        return np.prod(np.sinc(GAMMA * velocity * np.diff([second(t) for t in [0, *turns]]) / np.pi))

    quarters = itertools.pairwise(np.linspace(0, 1, 5))
    pieces = [integrate.fixed_quad(np.vectorize(product), a, b, n=12)[0] for a, b in quarters]
    found = capillaries.signal(TIMES, PAIR, velocity=velocity, length=length, scale=g, count=16_384)
    assert found.signal == pytest.approx(sum(pieces), abs=1e-6)
    assert found.error < 1e-6


@given(st.floats(1e-4, 2e-2), st.floats(1e-5, 5e-4), st.sampled_from(["fixed", "exponential"]))
@settings(max_examples=12, deadline=None)
def test_what_holds_for_any_network(velocity, length, lengths):
    scale = np.array([0.0, 0.005, -0.005, 0.05])
    network = {"velocity": velocity, "length": length, "lengths": lengths, "count": 512}
    found = capillaries.signal(TIMES, PAIR, scale=scale, **network)
    assert found.signal[0] == 1 and found.error[0] == 0  # no gradient, no loss
    assert found.signal[1] == found.signal[2]  # directions are as likely as their opposites
    assert np.all(np.abs(found.signal) <= 1)
    # twice the velocity in segments twice as long is twice the gradient: lengths alone have no scale
    longer = network | {"velocity": 2 * velocity, "length": 2 * length}
    doubled = capillaries.signal(TIMES, PAIR, scale=scale / 2, **longer)
    np.testing.assert_allclose(doubled.signal, found.signal, rtol=1e-9, atol=1e-12)
    assert capillaries.signal(TIMES, PAIR, scale=scale, **(network | {"velocity": 0.0})).signal.min() == 1


@pytest.mark.parametrize(("lengths", "limit"), [("fixed", 1e-4), ("exponential", 2e-3)])
def test_the_stated_error(lengths, limit):
    """Of 4096 paths, from ballistic to diffusive; and it is the spread that different seeds have."""
    scale = scales([10, 50, 100, 400])
    for velocity in (0.5e-3, 2e-3, 8e-3):
        network = {"velocity": velocity, "length": 64e-6, "lengths": lengths, "scale": scale}
        found = [capillaries.signal(TIMES, PAIR, **network, seed=seed) for seed in range(8)]
        assert max(f.error.max() for f in found) < limit
        spread = np.std([f.signal for f in found], axis=0, ddof=1)
        mean = np.sqrt(np.mean([f.error**2 for f in found], axis=0))
        # a ratio of standard deviations of 8 (7 degrees of freedom): below 2.3 in all but 1e-5 of cases
        assert np.all(spread < 2.3 * mean + 1e-12)


def test_seeds_threads_waveforms_and_velocities(monkeypatch):
    network = {"velocity": [1e-3, 3e-3], "length": 64e-6, "lengths": "exponential", "count": 1024}
    monkeypatch.setenv("BONEMRI_THREADS", "1")
    one = capillaries.signal(TIMES, 0.02 * PAIR, **network, seed=1)
    monkeypatch.setenv("BONEMRI_THREADS", "2")
    assert one.signal == capillaries.signal(TIMES, 0.02 * PAIR, **network, seed=1).signal
    two = capillaries.signal(TIMES, np.stack([0.02 * PAIR, 0.04 * PAIR]), **network, seed=1, scale=[1.0, 0.5])
    assert one.signal.shape == () and two.signal.shape == (2, 2)
    np.testing.assert_allclose([two.signal[0, 0], two.signal[1, 1]], one.signal, rtol=1e-12)  # sums of another order
    assert abs(two.signal[0, 1] - one.signal) > 0.1
    assert one.signal != capillaries.signal(TIMES, 0.02 * PAIR, **network, seed=2).signal
    # two velocities are their mean
    each = [capillaries.signal(TIMES, 0.02 * PAIR, **(network | {"velocity": v, "count": 4096})) for v in (1e-3, 3e-3)]
    error = math.hypot(one.error, *(e.error for e in each))
    assert abs(one.signal - np.mean([e.signal for e in each])) < SIGMAS * error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"velocity": -1e-3}, "capillaries: velocity is -0.001: expected one or several from 0 m/s up"),
        ({"velocity": []}, "capillaries: velocity is []"),
        ({"length": 0}, "capillaries: length is 0: expected above 0 m"),
        ({"length": 1e-12}, "segments of 1e-12 m: expected at most 100000"),
        ({"lengths": "long"}, "capillaries: lengths is 'long': expected fixed or exponential"),
        ({"count": 0.5}, "capillaries: count is 0.5: expected a whole number from 1 up"),
        ({"scale": math.nan}, "capillaries: scale is nan"),
        ({"gradient": np.abs(PAIR)}, "capillaries: the gradient adds up to 0.016 T s/m: expected 0, an echo"),
        ({"gamma": -1}, "capillaries: gamma is -1: expected above 0 Hz/T"),
        ({"seed": 1.5}, "capillaries: seed is 1.5: expected a whole number from 0 up"),
    ],
)
def test_bad_input(change, message):
    call = {"times": TIMES, "gradient": PAIR, "velocity": 1e-3, "length": 5e-5, "count": 16} | change
    with pytest.raises(InputError) as caught:
        capillaries.signal(call.pop("times"), call.pop("gradient"), **call)
    assert message in str(caught.value)


# ---- a diffusion scan ----------------------------------------------------------------------------------------------


def pool(kind: str, **values) -> Pool:
    nothing = np.array([np.nan])
    return Pool(kind, kind, {name: np.atleast_1d(np.asarray(v, float)) for name, v in values.items()}, nothing, nothing)


IVIM = protocols.ivim_marrow


def test_tissue_of_a_scan_is_what_walkers_leave():
    """Under the scan's own timelines, crushers on, the tissue's attenuation is that of walkers let loose in them."""
    protocol = IVIM.replace(b=(0.0, 100.0, 800.0), crusher=2e-5)
    waveforms = diffusion_walkers._waveforms(protocol)
    found = diffusion_walkers.attenuation(pool("marrow_water", D=[0.5e-3, 1.5e-3]), protocol)
    times, gradient = moments.together(waveforms)
    walked = walkers.walk(times, gradient, diffusivity=0.5e-3, count=20_000, seed=1)
    for row, scale in enumerate((1.0, math.sqrt(3))):
        seen = walked.signal(scale)
        assert np.all(np.abs(seen.signal.real - found[row]) < SIGMAS * seen.error.real + 1e-12)
    assert found[0, 0] < 1  # the crushers diffuse a little
    assert np.all(found[0] == pytest.approx(np.exp(-protocol["b"] * 0.5e-3), rel=2e-3))


def test_kurtosis_is_that_of_a_mixture_of_walkers():
    """Diffusivities of a gamma distribution, one for each walker: phases go as their roots."""
    protocol, D, K = IVIM.replace(b=(0.0, 400.0, 800.0, 2000.0)), 0.6e-3, 1.2
    found = diffusion_walkers.attenuation(pool("muscle_water", D=D, kurtosis=K), protocol)[0]
    times, gradient = moments.together(diffusion_walkers._waveforms(protocol))
    rng = np.random.default_rng(5)
    each = rng.gamma(3 / K, D * K / 3, 40_000)
    b = np.array([np.trace(moments.b_matrix_of(times, g)) for g in gradient])
    walked = walkers.walk(times, gradient, diffusivity=1e-3, count=each.size, seed=2)
    phase = walked.phase * np.sqrt(each / 1e-3)[:, None]
    turned = np.cos(phase) * np.exp(-walked.unresolved * each[:, None])
    assert np.all(np.abs(turned.mean(axis=0) - found) < SIGMAS * turned.std(axis=0) / math.sqrt(each.size) + 1e-12)
    # the third cumulant of a gamma distribution is 2 mean^3 (K/3)^2: so much is left of the kurtosis expansion
    small = b[1] * D
    expansion = -small + small**2 * K / 6 - small**3 * (K / 3) ** 2 / 3
    assert math.log(found[1]) == pytest.approx(expansion, abs=small**4 * (K / 3) ** 3 / 4)  # the next term
    switched = diffusion_walkers.attenuation(pool("muscle_water", D=D, kurtosis=K), protocol, kurtosis=False)[0]
    np.testing.assert_allclose(switched, np.exp(-b * D), rtol=1e-12)
    given_one = diffusion_walkers.attenuation(pool("muscle_water", D=D), protocol, kurtosis=K)[0]
    np.testing.assert_allclose(given_one, found, rtol=1e-12)


def test_blood_of_a_scan():
    """Segments short enough: exp(-b D*). Those of a real capillary: far from it, and between the two limits."""
    blood = pool("blood", D_star=[10e-3, 30e-3])
    short = diffusion_walkers.attenuation(blood, IVIM, segment_length=3e-6, count=512)
    ideal = np.exp(-IVIM["b"] * np.array([[10e-3], [30e-3]]))
    # the time of a segment, 3 um at 20 and 60 mm/s, is 1e-2 and 3e-3 of a lobe's 15 ms; of x e^-x at most .37
    np.testing.assert_allclose(short, ideal, atol=0.005)
    real = diffusion_walkers.attenuation(blood, IVIM)
    assert real.shape == (2, IVIM.points)
    assert np.abs(real - ideal).max() > 0.05
    times, gradient = moments.together(diffusion_walkers._waveforms(IVIM))
    for row, D_star in enumerate((10e-3, 30e-3)):
        velocity = 6 * D_star * 1e-6 / diffusion_walkers.SEGMENT
        direct = capillaries.signal(times, gradient, velocity=velocity, length=diffusion_walkers.SEGMENT, count=2048)
        np.testing.assert_allclose(real[row], direct.signal, rtol=1e-12)
        assert direct.error.max() < 1e-3  # as `attenuation` states
    assert np.all(real[:, 0] == 1)
    np.testing.assert_array_equal(diffusion_walkers.attenuation(blood, IVIM, seed=4),
                                  diffusion_walkers.attenuation(blood, IVIM, seed=4))  # fmt: skip


def test_a_longer_diffusion_time_brings_blood_nearer_to_diffusion():
    blood, b = pool("blood", D_star=30e-3), 50.0
    away = []
    for separation in (30e-3, 300e-3):
        protocol = IVIM.replace(b=(b,), TE=2 * separation, delta=10e-3, Delta=separation, TR=10.0)
        away.append(abs(diffusion_walkers.attenuation(blood, protocol)[0, 0] - math.exp(-b * 30e-3)))
    assert away[1] < away[0]


def test_many_values_of_D_star_are_interpolated():
    many = np.random.default_rng(1).uniform(5e-3, 100e-3, 3 * diffusion_walkers.NODES)
    found = diffusion_walkers.attenuation(pool("blood", D_star=many), IVIM)
    for k in (0, 17, 80):
        alone = diffusion_walkers.attenuation(pool("blood", D_star=many[k]), IVIM)[0]
        np.testing.assert_allclose(found[k], alone, atol=1e-4)
    few = diffusion_walkers.attenuation(pool("blood", D_star=np.repeat(many[:2], 100)), IVIM)
    assert np.unique(few, axis=0).shape == (2, IVIM.points)


def test_pools_without_diffusion_and_bad_values():
    assert np.all(diffusion_walkers.attenuation(pool("mineral"), IVIM) == 1)
    assert np.all(diffusion_walkers.attenuation(pool("bound_water"), IVIM) == 1)
    with pytest.raises(InputError, match="D or .*|D is NaN"):
        diffusion_walkers.attenuation(pool("marrow_water"), IVIM)
    with pytest.raises(InputError, match="pool marrow_water: kurtosis is -1: expected from 0 up"):
        diffusion_walkers.attenuation(pool("marrow_water", D=1e-3, kurtosis=-1.0), IVIM)
    with pytest.raises(InputError, match="blood: D_star is -0.01 mm2/s at least: expected finite values from 0 up"):
        diffusion_walkers.attenuation(pool("blood", D_star=-0.01), IVIM)
