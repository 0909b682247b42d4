"""Walkers and blood against closed forms and eigenfunction series, with Monte Carlo errors as the measure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, optimize, special, stats
from scipy.linalg import expm

from bonemri.errors import InputError
from bonemri.simulator import kernels
from bonemri.simulator.acquisition.events import moments
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import susceptibility, walkers
from bonemri.simulator.engines.waveform import Waveform, grid

GAMMA = 2 * math.pi * PROTON  # rad/s/T
SIGMAS = 4.5  # standard errors allowed: one test in 1e5 fails by chance, and the seeds are fixed
ROUNDING = 1e-10  # of sums of hundreds of terms that partly cancel
BIG, SMALL, SEPARATION = 5e-3, 1e-6, 20e-3  # s: two lengths of lobes, and between their starts
WATER = 2e-3  # mm2/s


def lobes(amplitude: float, delta: float, separation: float, way=(1.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Two rectangles of opposite sign: Stejskal and Tanner's pair as it acts."""
    times = np.array([0, delta, delta, separation, separation, separation + delta])
    value = amplitude * np.array([1.0, 1, 0, 0, -1, -1])
    return times, value[:, None] * np.asarray(way)


def close(found: walkers.Attenuation, expected, bias: float = 0.0) -> None:
    """Within `SIGMAS` standard errors (and a known bias), real and imaginary part."""
    away = found.signal - np.asarray(expected)
    assert np.all(np.abs(away.real) <= SIGMAS * found.error.real + bias + 1e-12), (found, expected)
    assert np.all(np.abs(away.imag) <= SIGMAS * found.error.imag + bias + 1e-12), (found, expected)


def variance(phase: np.ndarray) -> tuple[float, float]:
    """Variance of phases and its standard error, from their fourth moment."""
    square = (phase - phase.mean()) ** 2
    return float(square.mean()), float(square.std() / math.sqrt(square.size))


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loops():
    return kernels.compiled(Path(walkers.__file__).with_name("walk.py"))


def test_logarithm(loops):
    x = np.concatenate([np.geomspace(1e-300, 1e300, 4001), 1 + np.linspace(-0.4, 0.6, 4001), [2.0**-53]])
    found = np.array([loops._log(v) for v in x])
    # two units in the last place of the result, or of 1 where it nears 0
    assert np.all(np.abs(found - np.log(x)) <= 2.0**-51 * np.maximum(np.abs(np.log(x)), 1))


def test_normal_numbers(loops):
    """Of many walkers: the distribution, and no correlation within a walker or between two of them."""
    drawn = np.empty((200, 40, 6, 32))
    state = np.empty((4, 32))
    for block in range(200):
        loops.seed_lanes(np.uint64(11), 32 * block, 6400, state)
        for k in range(40):
            loops.normals(state, drawn[block, k])
    n = drawn.size
    assert stats.kstest(drawn.ravel()[::3], "norm").pvalue > 1e-4
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**power).mean() - moment) < SIGMAS * math.sqrt(spread / n)
    walker = drawn.transpose(0, 3, 1, 2).reshape(6400, 240)
    assert abs((walker[:, 1:] * walker[:, :-1]).mean()) < SIGMAS / math.sqrt(n)
    assert abs((walker[:, ::2] ** 2 * walker[:, 1::2] ** 2).mean() - 1) < SIGMAS * math.sqrt(8 / (n / 2))
    assert abs((walker[1:] * walker[:-1]).mean()) < SIGMAS / math.sqrt(n)
    assert np.unique(walker[:, 0]).size == 6400


# ---- integrals of the waveform -------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_weights_and_what_they_leave(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    t = np.concatenate([[0], np.cumsum(rng.uniform(0, 1, n) * rng.integers(0, 2, n)), [20]])  # some knots share a time
    g = rng.normal(size=(t.size, 2))
    wave = Waveform(t, g)
    points = grid(20.0, float(rng.uniform(0.3, 9)))
    weights = wave.weights(points)
    # a straight path is followed exactly: the zeroth and first moment
    np.testing.assert_allclose(weights.sum(axis=0), moments.moment(t, g, 0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(points @ weights, moments.moment(t, g, 1), rtol=1e-9, atol=1e-8)
    # the integral of M^2 is what the mean over each step has, and the rest
    step = points[1]
    mean = np.diff(wave.integrals(points)[1], axis=0) / step
    g3 = np.concatenate([g, np.zeros((t.size, 1))], axis=1)
    whole = np.diag(moments.b_matrix_of(t, g3, gamma=1e3 / (2 * math.pi)))[:2]
    np.testing.assert_allclose((mean**2).sum(axis=0) * step + wave.unresolved(points), whole, rtol=1e-9)


# ---- free ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 12e-3, 1e-4])
def test_free_diffusion_and_a_table_from_one_walk(step):
    """exp(-b D) for every amplitude and, by the root of the diffusivity, another D; whatever the step."""
    times, gradient = lobes(0.05, 10e-3, 30e-3, (0.6, 0.0, 0.8))
    b = np.trace(moments.b_matrix_of(times, gradient))
    scale = np.sqrt(np.array([0, 10, 50, 200, 400, 800, 2000]) / b)
    walked = walkers.walk(times, gradient, diffusivity=0.5e-3, count=30_000, step=step, seed=2)
    close(walked.signal(scale), np.exp(-(scale**2) * b * 0.5e-3))
    close(walked.signal(scale * math.sqrt(3)), np.exp(-(scale**2) * b * 1.5e-3))
    assert walked.signal(scale).signal[0] == 1
    direct = walkers.signal(times, gradient, diffusivity=0.5e-3, count=30_000, step=step, seed=2, scale=float(scale[4]))
    assert direct.signal == walked.signal(scale).signal[4]
    assert walked.unresolved[0] < b


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=6, deadline=None)
def test_any_waveform(seed):
    """Random waveforms on three axes, several on one walk, with knots between the steps."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.5e-3, 6e-3, 8))
    g = rng.normal(size=(3, 8, 3))
    for one in g:  # an echo: no area is left
        one[-1] = one[0] = 0
        one[3] -= moments.integral(t, one)[-1] / ((t[4] - t[2]) / 2)
    b = np.array([moments.b_matrix_of(t, one).trace() for one in g])
    g *= np.sqrt(np.array([100, 700, 1500]) / b)[:, None, None]
    found = walkers.signal(t, g, diffusivity=1e-3, count=20_000, seed=seed)
    close(found, np.exp(-1e-3 * np.array([100, 700, 1500])))


def test_hahn_echo_in_a_constant_gradient():
    """exp(-(2/3) (gamma G)^2 D tau^3), Hahn 1950 and Torrey 1956; the gradient jumps at the pulse."""
    tau, g = 8e-3, 0.1
    expected = math.exp(-2 / 3 * (GAMMA * g) ** 2 * WATER * 1e-6 * tau**3)
    assert 0.1 < expected < 0.9
    found = walkers.signal([0, tau, tau, 2 * tau], [[g, 0, 0]] * 2 + [[-g, 0, 0]] * 2, diffusivity=WATER, count=40_000)
    close(found, expected)


# ---- restricted ----------------------------------------------------------------------------------------------------


def bloch_torrey_slab(width: float, times: np.ndarray, values: np.ndarray, relaxivity: float = 0.0) -> complex:
    """Signal between planes for a gradient constant between times: the matrix exponential over cosines.

    As Grebenkov, Rev Mod Phys 79:1077 (2007), doi:10.1103/RevModPhys.79.1077; the walls' relaxation is their overlap.
    """
    n = 24 if relaxivity == 0 else 40
    nodes, shares = np.polynomial.legendre.leggauss(400)
    x = nodes / 2
    wall = np.sqrt(np.where(np.arange(n) == 0, 1, 2))  # the modes at one wall
    modes = np.cos(np.pi * np.arange(n)[:, None] * (x + 0.5)) * wall[:, None]
    place = (modes * shares / 2 * x) @ modes.T * width
    other = wall * (-1.0) ** np.arange(n)
    ends = np.outer(wall, wall) + np.outer(other, other)
    decay = np.diag((np.pi * np.arange(n) / width) ** 2 * WATER * 1e-6) + relaxivity / width * ends
    state = np.eye(n, dtype=complex)[0]
    for length, g in zip(np.diff(times), values, strict=True):
        state = expm((1j * GAMMA * g * place - decay) * length) @ state
    return complex(state[0])


@pytest.mark.parametrize("width", [5e-6, 20e-6])
def test_slab_under_lobes_of_any_strength(width):
    """Up to diffraction: exact for finite lobes, far beyond a Gaussian phase."""
    times, gradient = lobes(1.0, BIG, SEPARATION)
    q = np.array([0.2, 0.5, 0.9, 1.3])  # turns across the slab
    scale = q / width / (PROTON * BIG)
    found = walkers.signal(times, gradient, walkers.slab(width), diffusivity=WATER, count=40_000, scale=scale, seed=5)
    expected = [bloch_torrey_slab(width, times[[0, 1, 3, 5]], s * np.array([1.0, 0, -1])) for s in scale]
    assert max(np.abs(expected)) > 0.3 > min(np.abs(expected))
    # ln(signal) is off by half a percent at most: of signal by |s ln s| .005 < .002
    close(found, expected, bias=0.002)


def test_narrowing_by_motion_in_a_constant_gradient():
    """Free decay between near planes, at (gamma G)^2 a^4/(120 D): Robertson 1966, doi:10.1103/PhysRev.151.273."""
    width, duration, g = 4e-6, 60e-3, 0.3
    rate = (GAMMA * g) ** 2 * width**4 / (120 * WATER * 1e-6)
    steady, room = [[g, 0, 0]] * 2, walkers.slab(width)
    found = walkers.signal([0, duration], steady, room, diffusivity=WATER, count=30_000, seed=14)
    exact = bloch_torrey_slab(width, np.array([0, duration]), np.array([g]))
    # the slowest mode of the place lasts a^2/(pi^2 D) = .8 ms: of 60 ms 1.4 %
    assert math.log(abs(exact)) == pytest.approx(-rate * duration, rel=0.03)
    assert 0.3 < abs(exact) < 0.8
    close(found, exact, bias=0.002)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_short_pulses_between_planes(axis):
    """The series of cosines for pulses that are short (Callaghan, Principles of NMR Microscopy, 1991)."""
    width, way = 10e-6, np.eye(3)["xyz".index(axis)]
    times, gradient = lobes(1.0, SMALL, SEPARATION, way)
    q = np.array([0.3, 0.6, 0.95]) / width
    found = walkers.signal(times, gradient, walkers.slab(width, axis), diffusivity=WATER, count=40_000, seed=6,
                           scale=q / (PROTON * SMALL))  # fmt: skip
    expected = np.zeros(q.size)
    for n in range(40):
        z = 2 * np.pi * q * width
        overlap = 2 * z**2 * (1 - (-1) ** n * np.cos(z)) / (z**2 - (n * np.pi) ** 2) ** 2
        decay = math.exp(-((n * math.pi / width) ** 2) * WATER * 1e-6 * SEPARATION)
        expected += overlap * decay * (1 if n == 0 else 2)
    # the places at the two pulses are exact between planes; a lobe of 1 us is short to (D delta)^(1/2)/width = 4e-3
    close(found, expected, bias=0.004)


def murday_cotts(kind: str, size: float, g: float, delta: float, separation: float) -> float:
    """Variance of the phase in a slab (width), cylinder or sphere (radius): exact for any strength.

    Murday and Cotts, J Chem Phys 48:4938 (1968), doi:10.1063/1.1668160; Neuman, J Chem Phys 60:4508 (1974),
    doi:10.1063/1.1680931. The sum over modes of <x x> exp(-rate t) over both lobes.
    """
    d = WATER * 1e-6
    if kind == "slab":
        alpha = (2 * np.arange(200) + 1) * np.pi / size
        share = 8 / (size * alpha**2) ** 2
    else:
        slope = special.jvp if kind == "cylinder" else (lambda n, x: special.spherical_jn(n, x, True))
        x = np.linspace(0.5, 300, 6000)
        at = slope(1, x)
        crossed = np.flatnonzero(at[1:] * at[:-1] < 0)
        roots = np.array([optimize.brentq(lambda v: slope(1, v), *x[k : k + 2]) for k in crossed])
        alpha = roots / size
        share = 2 / (alpha**2 * (roots**2 - (1 if kind == "cylinder" else 2)))
    rate = alpha**2 * d
    e = [np.exp(-rate * t) for t in (separation - delta, separation + delta, delta, separation)]
    double = 2 * delta / rate - (2 + e[0] + e[1] - 2 * e[2] - 2 * e[3]) / rate**2
    return float(2 * (GAMMA * g) ** 2 * np.sum(share * double))


ROOMS = {"slab": walkers.slab, "cylinder": walkers.Cylinder, "sphere": walkers.Sphere}


@pytest.mark.parametrize("kind", list(ROOMS))
@pytest.mark.parametrize("size", [4e-6, 20e-6])  # from motional narrowing to hardly restricted
def test_variance_of_the_phase(kind, size):
    times, gradient = lobes(0.03, BIG, SEPARATION)
    expected = murday_cotts(kind, size, 0.03, BIG, SEPARATION)
    walked = walkers.walk(times, gradient, ROOMS[kind](size), diffusivity=WATER, count=60_000, seed=7)
    found, error = variance(walked.phase)
    found += 2 * walked.unresolved[0] * WATER
    assert abs(found - expected) < SIGMAS * error + 0.005 * expected  # .005: what `walk` states of its default step


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(ROOMS))
def test_the_error_of_a_step_is_second_order_in_its_length(kind):
    """A million walkers at steps of .4 and .2 of the size: the error falls to a quarter, or less."""
    size = 10e-6
    times, gradient = lobes(0.03, BIG, SEPARATION)
    expected = murday_cotts(kind, size, 0.03, BIG, SEPARATION)
    off, noise = [], []
    for length in (0.4, 0.2):
        step = (length * size) ** 2 / (2 * WATER * 1e-6)
        walked = walkers.walk(times, gradient, ROOMS[kind](size), diffusivity=WATER, count=1_000_000, step=step, seed=8)
        found, error = variance(walked.phase)
        off.append(abs(found + 2 * walked.unresolved[0] * WATER - expected) / expected)
        noise.append(error / expected)
    assert off[1] < off[0] / 4 + SIGMAS * (noise[1] + noise[0] / 4)
    assert off[1] < 0.02 + SIGMAS * noise[1]  # four times what is stated for half that length


@pytest.mark.parametrize("relaxivity", [1e-5, 5e-5])
def test_relaxation_at_walls(relaxivity):
    """Brownstein and Tarr 1979, doi:10.1103/PhysRevA.19.2446: the series of the slab, rates from x tan x."""
    width, duration = 10e-6, 60e-3
    strength = relaxivity * width / (2 * WATER * 1e-6)
    x = np.array([optimize.brentq(lambda v: v * math.sin(v) - strength * math.cos(v), n * math.pi, (n + 0.5) * math.pi)
                  for n in range(30)])  # fmt: skip
    share = 4 * np.sin(x) ** 2 / (x * (2 * x + np.sin(2 * x)))
    expected = float(np.sum(share * np.exp(-(x**2) * 4 * WATER * 1e-6 / width**2 * duration)))
    assert abs(expected - bloch_torrey_slab(width, np.array([0, duration]), np.zeros(1), relaxivity).real) < 2e-3
    walked = walkers.walk([0, duration], np.zeros((2, 3)), walkers.slab(width), diffusivity=WATER, count=20_000, seed=9)
    # a step takes exp(-2 relaxivity depth/D): to first order in relaxivity length/D, here 5e-3 and .025 of the rate
    length = math.sqrt(2 * WATER * 1e-6 * duration / walked.steps)
    close(walked.signal(relaxivity=relaxivity), expected, bias=relaxivity * length / (WATER * 1e-6) * 0.37)
    assert walked.signal().signal == 1


@pytest.mark.parametrize("room", [walkers.Sphere(1e-5), walkers.Cylinder(1e-5)])
def test_walls_lose_nobody_and_leave_no_pile(room):
    """Mean and variance of the last place, seen by a gradient that acts at the end alone: those of an even spread."""
    times = np.array([0, 0.1, 0.1, 0.1 + 1e-7])
    gradient = np.zeros((3, 4, 3))
    gradient[np.arange(3), 2:, np.arange(3)] = 1 / (GAMMA * 1e-7)  # phase = place in m
    axes = 2 if isinstance(room, walkers.Cylinder) else 3
    walked = walkers.walk(times, gradient[:axes], room, diffusivity=WATER, count=40_000, seed=10)
    assert np.linalg.norm(walked.phase, axis=1).max() <= 1e-5 * (1 + 1e-9)
    for a in range(axes):
        found, error = variance(walked.phase[:, a])
        assert abs(walked.phase[:, a].mean()) < SIGMAS * math.sqrt(found / 40_000)
        assert abs(found - 1e-10 / (axes + 2)) < SIGMAS * error


def test_cylinder_of_any_direction():
    """Along it walkers are free, across it they are not; both count in an oblique gradient."""
    way = np.array([1.0, 2, -2]) / 3
    radius, g = 4e-6, 0.06
    room = walkers.Cylinder(radius, tuple(5 * way))
    across = np.cross(way, [1, 0, 0]) / np.linalg.norm(np.cross(way, [1, 0, 0]))
    b = np.trace(moments.b_matrix_of(*lobes(g, BIG, SEPARATION)))
    narrow = murday_cotts("cylinder", radius, g, BIG, SEPARATION)
    for angle in (0.0, 0.7, math.pi / 2):
        times, gradient = lobes(g, BIG, SEPARATION, math.cos(angle) * way + math.sin(angle) * across)
        walked = walkers.walk(times, gradient, room, diffusivity=WATER, count=40_000, seed=11)
        found, error = variance(walked.phase)
        expected = 2 * b * WATER * math.cos(angle) ** 2 + narrow * math.sin(angle) ** 2
        assert abs(found + 2 * walked.unresolved[0] * WATER - expected) < SIGMAS * error + 0.005 * expected
    box = walkers.Box((math.inf, 4e-6, math.inf))  # as a cylinder, free along x
    close(walkers.signal(*lobes(g, BIG, SEPARATION), box, diffusivity=WATER, seed=12), math.exp(-b * WATER))


# ---- voxels and the field in them ----------------------------------------------------------------------------------


def test_voxels_that_are_all_open_are_a_box():
    """Faces of the grid are walls, of unlike edges; a periodic grid has none; a wall of voxels halves the room."""
    times, gradient = lobes(0.05, BIG, SEPARATION)
    b = np.trace(moments.b_matrix_of(times, gradient))
    edge = (3e-6, 4e-6, 2e-6)  # z, y, x
    every = np.ones((3, 3, 9), bool)
    wall = every.copy()
    wall[:, :, 4] = False
    cases = ((every, False, 18e-6), (wall, False, 8e-6), (wall, True, 16e-6))  # a gap over the edge of the grid
    for mask, periodic, width in cases:
        expected = murday_cotts("slab", width, 0.05, BIG, SEPARATION)
        walked = walkers.walk(times, gradient, walkers.Voxels(mask, edge, periodic=periodic), diffusivity=WATER,
                              count=16_000, seed=13)  # fmt: skip
        found, error = variance(walked.phase)
        # a step is .3 of 2 um: less than a tenth of each width
        assert abs(found + 2 * walked.unresolved[0] * WATER - expected) < SIGMAS * error + 0.005 * expected
    free = walkers.signal(times, gradient, walkers.Voxels(every, edge, periodic=True), diffusivity=WATER, count=8000)
    close(free, math.exp(-b * WATER))


def test_an_offset_that_rises_evenly_is_a_gradient():
    """The same paths turn by as much, whichever of the two turns them; the outermost voxels are closed."""
    edge, g, tau = 2e-6, 0.02, 5e-3
    mask = np.zeros((6, 7, 8), bool)
    mask[1:-1, 1:-1, 1:-1] = True
    way = np.array([0.3, -0.5, 0.8])
    z, y, x = np.ix_(*(np.arange(n) * edge for n in mask.shape))
    offset = PROTON * g * (way[0] * x + way[1] * y + way[2] * z)
    sign = np.array([1.0, 1, -1, -1])
    times = np.array([0, tau, tau, 2 * tau])
    room = walkers.Voxels(mask, edge, offset=offset)
    options = {"diffusivity": WATER, "sign": (times, sign), "count": 2000, "seed": 1}
    walked = walkers.walk(times, g * sign[:, None] * way, room, **options)
    assert walked.phase.std() > 0.03
    np.testing.assert_allclose(walked.offset_phase, walked.phase[:, 0], atol=1e-9)
    both = walkers.walk(times, -g * sign[:, None] * way, room, **options)
    both_signal = both.signal().signal / math.exp(-both.unresolved[0] * WATER)
    np.testing.assert_allclose(both_signal, 1, atol=1e-9)


@pytest.mark.parametrize("diffusivity", [1e-9, 0.02, 0.5])
@pytest.mark.parametrize("echo", [False, True])
def test_a_field_of_waves_from_static_to_narrowed(diffusivity, echo):
    """f = A cos(2 pi x/L), without end: static J0(2 pi A t); else the variance of the phase, exact at any diffusivity.

    <f f> falls as exp(-t/tau), tau = L^2/(4 pi^2 D): the free decay has (2 pi A)^2 tau (t - tau (1 - e^(-t/tau))), the
    echo (2 pi A)^2 tau (t - tau (3 - 4 e^(-t/2tau) + e^(-t/tau))).
    """
    n, amplitude, length, duration = 64, 40.0, 64e-6, 10e-3
    offset = np.broadcast_to(amplitude * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n), (1, 1, n))
    room = walkers.Voxels(np.ones((1, 1, n), bool), length / n, offset=offset, periodic=True)
    half = duration / 2
    sign = ([0, half, half, duration], [1, 1, -1, -1]) if echo else None
    count, step = 4000, min(duration / 100, (length / 25) ** 2 / (2e-6 * diffusivity))
    walked = walkers.walk([0, duration], np.zeros((2, 3)), room, diffusivity=diffusivity, sign=sign, count=count,
                          step=step, seed=3)  # fmt: skip
    tau = length**2 / (4 * math.pi**2 * diffusivity * 1e-6)
    short, long = math.exp(-duration / (2 * tau)), math.exp(-duration / tau)
    inner = 3 - 4 * short + long if echo else 1 - long
    expected = (2 * math.pi * amplitude) ** 2 * tau * (duration - tau * inner)
    found, error = variance(walked.offset_phase)
    if diffusivity == 1e-9:  # nobody moves: the difference above is one of nearly equal numbers
        expected = 0.0 if echo else (2 * math.pi * amplitude * duration) ** 2 / 2
        assert expected == 0 or found == pytest.approx(expected, abs=SIGMAS * error + 2e-3 * expected)
        assert not echo or np.abs(walked.offset_phase).max() < 0.01
        close(walked.signal(), 1.0 if echo else special.j0(2 * math.pi * amplitude * duration), bias=2e-3)
    else:
        # linear between 64 samples a wave: (pi/64)^2/3 = 8e-4 of the amplitude; steps of a 25th of the wave: 1 %
        assert abs(found - expected) < SIGMAS * error + 0.012 * expected


def test_the_field_around_a_sphere():
    """From `susceptibility`: at rest, the mean over all places; moving, less is lost, and an echo loses some."""
    n, radius, duration = 16, 4.0, 20e-3
    z, y, x = np.ix_(*[np.arange(n) - (n - 1) / 2] * 3)
    away = np.sqrt(z**2 + y**2 + x**2)
    shift = susceptibility.field(np.where(away < radius, 1.0, 0.0), 1.0, periodic=True)
    offset = susceptibility.to_hertz(shift, 3.0)
    room = walkers.Voxels(away > radius, 5e-6, offset=offset, periodic=True)
    rest = walkers.walk([0, duration], np.zeros((2, 3)), room, diffusivity=1e-9, count=8000, seed=1, step=duration / 4)
    rng = np.random.default_rng(2)
    cells = np.argwhere(away > radius)
    place = cells[rng.integers(len(cells), size=8000)] + rng.random((8000, 3)) - 0.5
    turned = np.exp(2j * np.pi * duration * ndimage.map_coordinates(offset, place.T, order=1, mode="grid-wrap"))
    static = rest.signal()
    close(walkers.Attenuation(static.signal, static.error * math.sqrt(2)), turned.mean())  # both are drawn
    half = ([0, duration / 2, duration / 2, duration], [1, 1, -1, -1])
    lost = {}
    for name, sign in (("free", None), ("echo", half)):
        walked = walkers.walk([0, duration], np.zeros((2, 3)), room, diffusivity=WATER, count=8000, seed=3, sign=sign,
                              step=1e-4)  # fmt: skip
        lost[name] = 1 - abs(walked.signal().signal)
    assert 0.02 < lost["echo"] < lost["free"] < 1 - abs(static.signal)


# ---- how it runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [walkers.FREE, walkers.slab(1e-5), walkers.Sphere(1e-5), walkers.Cylinder(1e-5),
                                  walkers.Voxels(np.ones((2, 2, 2), bool), 5e-6)])  # fmt: skip
def test_bits_do_not_depend_on_threads_or_company(room, monkeypatch):
    times, gradient = lobes(0.03, BIG, SEPARATION, (0.6, 0.0, 0.8))
    options = {"diffusivity": WATER, "seed": 21, "step": 2e-4}
    monkeypatch.setenv("BONEMRI_THREADS", "1")
    one = walkers.walk(times, gradient, room, count=3000, **options)
    monkeypatch.setenv("BONEMRI_THREADS", "2")
    two = walkers.walk(times, gradient, room, count=3000, **options)
    np.testing.assert_array_equal(one.phase, two.phase)
    many = walkers.walk(times, np.stack([gradient, 2 * gradient]), room, count=3000, **options)
    np.testing.assert_array_equal(many.phase[:, :1], one.phase)
    np.testing.assert_allclose(many.phase[:, 1:], 2 * one.phase, rtol=ROUNDING)
    assert many.signal([1.0, 2.0, 3.0]).signal.shape == (2, 3)
    other = walkers.walk(times, gradient, room, count=3000, **(options | {"seed": 22}))
    assert np.corrcoef(one.phase.ravel(), other.phase.ravel())[0, 1] < SIGMAS / math.sqrt(3000)
    child = np.random.SeedSequence(4)
    again = [walkers.walk(times, gradient, room, count=100, **(options | {"seed": child})).phase for _ in range(2)]
    np.testing.assert_array_equal(*again)


OPEN = np.ones((2, 2, 2), bool)
PAIR = lobes(0.01, BIG, SEPARATION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusivity": -1.0}, "walkers: diffusivity is -1.0: expected above 0 mm2/s"),
        ({"diffusivity": math.nan}, "walkers: diffusivity is nan"),
        ({"count": 0}, "walkers: count is 0: expected a whole number from 1 up"),
        ({"step": 0.0}, "walkers: step is 0.0: expected above 0 s"),
        ({"step": 1e-12}, "steps of 1e-12 s: expected at most 1e+06; state step"),
        ({"gamma": 0}, "walkers: gamma is 0"),
        ({"seed": -1}, "walkers: seed is -1: expected a whole number from 0 up"),
        ({"medium": "sphere"}, "walkers: medium is str: expected FREE, slab, Box, Sphere, Cylinder or Voxels"),
        ({"times": [0, 1]}, "walkers: gradient: times of shape (2,) and values of shape (6, 3)"),
        ({"times": [0, 1, 2, 1, 3, 4]}, "times go from 2 to 1 s: expected times that increase"),
        ({"gradient": np.ones((6, 2))}, "walkers: gradient has shape (6, 2): expected (knot, 3) or"),
        ({"gradient": np.full((6, 3), math.nan)}, "walkers: gradient: times or values are not finite"),
        ({"gradient": np.abs(PAIR[1])}, "walkers: gradient 0 adds up to 0.0001 T s/m along an axis without walls"),
        ({"sign": ([0, 1], [1, 1])}, "walkers: sign lasts 1 s and the gradient 0.025 s: expected the same"),
        ({"scale": [math.inf]}, "walkers: scale is [inf]: expected a finite number or a list of them"),
        ({"relaxivity": -1e-6}, "walkers: relaxivity is -1e-06: expected from 0 m/s up"),
        ({"relaxivity": 1e-6, "medium": walkers.Voxels(OPEN, 1e-5)}, "walkers: relaxivity at the faces of voxels"),
    ],
)
def test_bad_input(change, message):
    call = {"times": PAIR[0], "gradient": PAIR[1], "medium": walkers.FREE, "diffusivity": 1e-3, "count": 50} | change
    with pytest.raises(InputError) as caught:
        walkers.signal(call.pop("times"), call.pop("gradient"), call.pop("medium"), **call)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: walkers.Sphere(0.0), "sphere: radius is 0.0: expected above 0 m"),
        (lambda: walkers.Cylinder(1e-6, (0, 0, 0)), "cylinder: direction is (0, 0, 0): expected a finite vector"),
        (lambda: walkers.Cylinder(math.inf), "cylinder: radius is inf"),
        (lambda: walkers.slab(1e-6, "w"), "slab: axis is 'w': expected x, y or z"),
        (lambda: walkers.Box((1e-6, -1, 1e-6)), "box: size is -1.0: expected above 0 m"),
        (lambda: walkers.Box((1e-6,)), "box: size is (1e-06,): expected three numbers"),
        (lambda: walkers.Voxels(np.ones((2, 2)), 1e-6), "voxels: open is float64 of shape (2, 2): expected bool"),
        (lambda: walkers.Voxels(~OPEN, 1e-6), "voxels: open is False everywhere"),
        (lambda: walkers.Voxels(OPEN, (1e-6, 0, 1)), "voxels: voxel_size is 0.0: expected above 0 m"),
        (lambda: walkers.Voxels(OPEN, 1e-6, np.zeros((2, 2, 3))), "voxels: offset has shape (2, 2, 3): expected"),
    ],
)
def test_rooms_that_make_no_sense(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
