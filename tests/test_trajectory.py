"""The way through k-space: the integral of its gradients, closed forms of each kind, and what the scanner allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events import timeline
from bonemri.simulator.acquisition.kspace import trajectory
from bonemri.simulator.constants import GYROMAGNETIC, PROTON
from bonemri.simulator.engines import bloch
from bonemri.simulator.engines.isochromats import Isochromats

MATRIX, FOV, DWELL = (6, 10, 12), (0.12, 0.15, 0.18), 4e-6
KINDS = {
    "cartesian": lambda: trajectory.cartesian(MATRIX, FOV, DWELL, dimensions=3, frequency="y"),
    "cartesian reversed": lambda: trajectory.cartesian(MATRIX, FOV, DWELL, reverse=True),
    "epi": lambda: trajectory.epi(MATRIX, FOV, DWELL, blips=-1, partial_fourier=0.7),
    "epi along y": lambda: trajectory.epi((1, 9, 7), FOV, DWELL, frequency="y", echo_spacing=90e-6),
    "radial_2d": lambda: trajectory.radial_2d(MATRIX, FOV, DWELL, 31, samples=40),
    "radial_2d full": lambda: trajectory.radial_2d(MATRIX, FOV, DWELL, 31, full=True, order="golden"),
    "radial_3d": lambda: trajectory.radial_3d(MATRIX, FOV, DWELL, 101, samples=40, nucleus="31P"),
    "radial_3d means": lambda: trajectory.radial_3d(MATRIX, FOV, DWELL, 101, samples=40, order="golden_means"),
    "radial_3d full": lambda: trajectory.radial_3d(MATRIX, FOV, DWELL, 101, full=True),
    "zte": lambda: trajectory.radial_3d(MATRIX, FOV, DWELL, 101, samples=20, ramp=0.0, gap=12e-6),
    "all ramp": lambda: trajectory.radial_3d(MATRIX, FOV, DWELL, 11, samples=20, ramp=20 * DWELL),
    "cones": lambda: trajectory.cones(12, 0.2, DWELL, samples=100),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_k_is_the_integral_of_the_gradients(kind):
    """The events' own integral (`timeline`), beginning at the stated k: the same to rounding of 1e3 1/m."""
    path = KINDS[kind]()
    assert path.k.shape == (path.readouts, path.samples, 3)
    before = 1e-2  # s
    for readout in {0, path.readouts // 2, path.readouts - 1}:
        times = before + np.broadcast_to(path.times, path.k.shape[:2])[readout]
        expected = np.tile(path.start[readout], (path.samples, 1))
        for event in path.events(readout, before):
            expected[:, "xyz".index(event.axis)] += path.gamma * event.integral(times)
        np.testing.assert_allclose(path.k[readout], expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_times_count_from_the_centre(kind):
    """k is 0 at time 0, at a sample or between two, in the readout that passes there."""
    path = KINDS[kind]()
    passes = path.positions(np.zeros(1))[:, 0]
    np.testing.assert_allclose(np.sqrt((passes**2).sum(axis=1)).min(), 0.0, atol=1e-9)
    steps = np.diff(np.broadcast_to(path.times, path.k.shape[:2]), axis=1)
    np.testing.assert_allclose(steps, path.dwell, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    dwell=st.floats(1e-6, 2e-5),
    samples=st.integers(2, 100),
    part=st.floats(0.0, 1.0),
    wide=st.sampled_from([8, 32, 128]),
)
def test_a_spoke_in_closed_form(dwell, samples, part, wide):
    """k goes as t^2/(2 ramp), then straight, and is n/(2 fov) at the end of the last dwell."""
    ramp, fov = part * samples * dwell, 0.2
    ramp = ramp if ramp > 1e-18 else 0.0  # t^2/ramp would overflow here as there
    t, end = (np.arange(samples) + 0.5) * dwell, samples * dwell
    rise = np.where(t < ramp, t**2 / (2 * ramp) if ramp else 0.0, t - ramp / 2)
    expected = wide / (2 * fov) * rise / (end - ramp / 2)
    for build in (trajectory.radial_2d, trajectory.radial_3d):
        path = build(wide, fov, dwell, 5, samples=samples, ramp=ramp)
        np.testing.assert_allclose(np.sqrt((path.k**2).sum(axis=2)), np.tile(expected, (5, 1)), rtol=1e-9)
        np.testing.assert_allclose(path.times, t, rtol=1e-12)


def test_a_gap_is_k_that_was_not_read():
    """ZTE: with the gradient on from the start, k = k_max t/T, the first sample half a dwell after the gap."""
    path = KINDS["zte"]()
    times = 12e-6 + (np.arange(20) + 0.5) * DWELL
    distance = np.sqrt(((path.k / (np.array(MATRIX[::-1]) / 2 / np.array(FOV[::-1]))) ** 2).sum(axis=2))
    np.testing.assert_allclose(distance, np.tile(times / (12e-6 + 20 * DWELL), (101, 1)), rtol=1e-9)
    missed = (12 / 92) ** 3  # the ball of the gap
    step = DWELL / (12e-6 + 20 * DWELL)  # the midpoint rule of 3 r^2 from there to 1: step^2/24 x 6
    assert path.weights.sum() == pytest.approx((1 - missed) * _ball(3), rel=0.26 * step**2)


def _ball(dimensions: int) -> float:
    reach = [n / (2 * f) for n, f in zip(MATRIX[3 - dimensions :], FOV[3 - dimensions :], strict=True)]
    return {2: math.pi, 3: 4 / 3 * math.pi}[dimensions] * math.prod(reach)


RADIAL = ["radial_2d", "radial_2d full", "radial_3d", "radial_3d full", "radial_3d means", "all ramp", "no ramp"]
KINDS["no ramp"] = lambda: trajectory.radial_2d(MATRIX, FOV, DWELL, 31, samples=20, ramp=0.0)


@pytest.mark.parametrize("kind", RADIAL)
def test_weights_fill_the_ball(kind):
    """The midpoint rule of area x speed errs by (dwell/readout)^2/24 times the slope at the edge: 30 where k goes as
    t^2 up to there (6 t^5), less for the others."""
    path = KINDS[kind]()
    assert path.weights.min() > 0
    assert path.weights.sum() == pytest.approx(_ball(path.dimensions), rel=1.3 * (path.dwell / path.duration) ** 2)


@pytest.mark.parametrize("kind", RADIAL)
def test_weights_integrate_a_gaussian(kind):
    """The weighted sum is the integral over k: here of exp(-pi s^2), s = k over n/(4 fov), whose tail is cut at s = 2.

    The tail holds exp(-4 pi) in two dimensions, eight times that in three; a midpoint rule of something smooth is as
    good, but where the gradient stops to rise (2e-4 for these ramps), and at the centre of a plane: there by the second
    term of Euler and Maclaurin, 7/5760 x 12 pi^2 step^4, and as much as the first one's sample lies off it, pi^2/48
    step^4, with the step in units of s.
    """
    path = KINDS[kind]()
    d = path.dimensions
    half = np.array(MATRIX[::-1])[:d] / (4 * np.array(FOV[::-1])[:d])
    s2 = ((path.k[..., :d] / half) ** 2).sum(axis=2)
    step = 2 * path.dwell / path.duration * (2 if "full" in kind else 1)
    centre = (7 / 480 + 1 / 48) * math.pi**2 * step**4 if d == 2 else 0.0
    assert np.sum(path.weights * np.exp(-math.pi * s2)) == pytest.approx(math.prod(half), rel=2e-4 + 1.1 * centre)


@pytest.mark.parametrize("order", ["phyllotaxis", "golden_means"])
def test_spokes_cover_the_sphere_evenly(order):
    """Mean direction 0, mean of x_i x_j a third of unity: low-discrepancy points err as 1/N (log N for the means)."""
    n = 2000
    k = trajectory.radial_3d(16, 0.2, DWELL, n, samples=30, order=order).k[:, -1]
    u = k / np.linalg.norm(k, axis=1, keepdims=True)
    assert np.abs(u.mean(axis=0)).max() < 10 / n
    assert np.abs(u.T @ u / n - np.eye(3) / 3).max() < 10 / n
    # and nearly no two close to one another: neighbours of an even cover lie some sqrt(4 pi/N) apart; at random one
    # in eight would be closer than .2 times that (1 - exp(-pi .2^2))
    nearest = np.arccos(np.clip(np.sort(u @ u.T, axis=1)[:, -2], -1, 1))
    assert np.mean(nearest < 0.2 * math.sqrt(4 * math.pi / n)) < 0.02


def test_full_spokes_lie_in_one_half_and_golden_angles_are_golden():
    assert np.all(KINDS["radial_3d full"]().k[:, -1, 2] > 0)
    for full, golden in ((False, 137.50776405003785), (True, 111.24611797498107)):
        k = trajectory.radial_2d(16, 0.2, DWELL, 3, samples=32, full=full, order="golden").k[:, -1]
        angle = np.degrees(np.arctan2(k[:, 1], k[:, 0]))
        np.testing.assert_allclose(np.mod(np.diff(angle), 180 if full else 360), golden, rtol=1e-9)


# ---- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions, frequency", [(2, "x"), (2, "y"), (3, "x"), (3, "y"), (3, "z")])
@pytest.mark.parametrize("reverse", [False, True])
def test_lines_fill_the_grid(dimensions, frequency, reverse):
    path = trajectory.cartesian(MATRIX, FOV, DWELL, dimensions=dimensions, frequency=frequency, reverse=reverse)
    n = np.array(MATRIX[::-1])[:dimensions]
    index = path.k.reshape(-1, 3)[:, :dimensions] * np.array(FOV[::-1])[:dimensions] + n // 2
    assert np.abs(index - np.rint(index)).max() < 1e-9
    places = {tuple(row) for row in np.rint(index).astype(int)}
    assert len(places) == len(index) == math.prod(n)
    assert all(0 <= p < m for row in places for p, m in zip(row, n, strict=True))
    # along a line k grows by 1/fov a dwell: an offset f moves by f/(1/(n dwell)) pixels
    read = "xyz".index(frequency)
    slope = np.diff(path.k[:, :, read], axis=1) / DWELL
    np.testing.assert_allclose(slope, (-1 if reverse else 1) / (FOV[::-1][read] * DWELL), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    lines=st.integers(2, 20),
    samples=st.integers(2, 20),
    part=st.floats(0.51, 1.0),
    blips=st.sampled_from([1, -1]),
    frequency=st.sampled_from("xy"),
    room=st.floats(1e-5, 1e-3),
)
def test_an_echo_train(lines, samples, part, blips, frequency, room):
    """Lines in turn and alternately to and fro, one train of continuous gradients, the centre at time 0."""
    read, phase = (0, 1) if frequency == "x" else (1, 0)
    matrix = (2, lines, samples) if frequency == "x" else (2, samples, lines)
    spacing = samples * DWELL + room
    path = trajectory.epi(
        matrix, 0.2, DWELL, echo_spacing=spacing, partial_fourier=part, blips=blips, frequency=frequency
    )
    k = path.k * 0.2
    steps = np.diff(k[:, 0, phase])
    np.testing.assert_allclose(steps, blips, atol=1e-9)
    assert np.abs(np.diff(k[:, :, phase], axis=1)).max(initial=0.0) < 1e-9
    np.testing.assert_allclose(np.sign(np.diff(k[:, :, read], axis=1)), np.tile(path.polarity[:, None], samples - 1))
    assert np.all(path.polarity == np.where(np.arange(path.readouts) % 2, -1, 1))
    np.testing.assert_allclose(np.sort(k[:, :, read]), np.tile(np.arange(samples) - samples // 2, (path.readouts, 1)))
    # the far end is always read; the lines left out are the first ones
    assert path.readouts == max(round(part * lines), lines // 2 + 1)
    assert k[-1, 0, phase] in (blips * (lines // 2), blips * ((lines - 1) // 2))
    np.testing.assert_allclose(np.diff(path.times[:, samples // 2 :: samples], axis=0), spacing, rtol=1e-6)
    centre = np.argwhere(np.all(path.k == 0, axis=2))
    assert len(centre) == 1 and abs(path.times[tuple(centre[0])]) < 1e-12
    # where one line's gradients end the next ones begin, in time, strength and k
    np.testing.assert_allclose(path.knots[1:, 0], path.knots[:-1, -1], atol=1e-12)
    np.testing.assert_allclose(path.gradients[1:, 0], path.gradients[:-1, -1], rtol=1e-9)
    np.testing.assert_allclose(path.positions(path.knots)[:-1, -1], path.start[1:], atol=1e-6)


# ---- cones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples, gradient, slew", [(100, 0.04, 150.0), (300, 0.04, 150.0), (300, 0.02, 60.0)])
def test_cones_keep_the_limits_and_fill_k_space(samples, gradient, slew):
    side, fov = 16, 0.2
    path = trajectory.cones(side, fov, DWELL, samples=samples, max_gradient=gradient, max_slew=slew)
    assert path.peak_gradient <= gradient * (1 + 1e-9) and path.peak_slew <= slew * (1 + 1e-9)
    # the gradient is linear between dwells, its design is not: k errs by a sagitta, some (turn per dwell)^2/8
    assert path.k_max == pytest.approx(side / (2 * fov), rel=0.02)
    assert path.weights.sum() == pytest.approx(4 / 3 * math.pi * (side / (2 * fov)) ** 3, rel=2e-3)
    # no place on a cone is further than half of 1/fov from its readouts: random places against fine points of all
    fine = path.positions(np.linspace(0, samples * DWELL, 12 * samples))
    ends = fine[:, -1]
    polar = np.arccos(ends[:, 2] / np.linalg.norm(ends, axis=1))
    rng = np.random.default_rng(0)
    for middle in np.unique(np.round(polar, 3))[[2, 7, 12]]:
        curves = fine[np.abs(polar - middle) < 2e-3].reshape(-1, 3)
        azimuth, part = rng.uniform(0, 2 * math.pi, 200), rng.uniform(0.2, 0.9, 200)
        axis = [math.sin(middle) * np.cos(azimuth), math.sin(middle) * np.sin(azimuth), np.full(200, math.cos(middle))]
        places = (part * side / (2 * fov) * np.array(axis)).T
        holes = cKDTree(curves).query(places)[0]
        assert holes.max() < 0.505 / fov
        assert holes.max() > 0.3 / fov  # and no denser than it takes
    # cones themselves: never more than 1/fov from one to the next along the edge of the sphere
    polar = np.unique(np.round(np.arccos(np.clip(ends[:, 2] / np.linalg.norm(ends, axis=1), -1, 1)), 3))
    assert np.diff(polar).max() * side / (2 * fov) < 1.02 / fov


def test_cones_with_time_to_turn_need_fewer_readouts():
    counts = [trajectory.cones(16, 0.2, DWELL, samples=n).readouts for n in (60, 200, 600)]
    straight = trajectory.cones(16, 0.2, DWELL, samples=200, twist=1e-9).readouts
    assert straight >= counts[0] > counts[1] > counts[2]
    assert trajectory.cones(16, 0.2, DWELL, samples=200, undersampling=2.0).readouts < 0.7 * counts[1]


# ---- from a protocol, and what cannot be ---------------------------------------------------------------------------


def test_from_entries():
    entries = {"trajectory": "radial_3d", "matrix": 16, "fov": (0.2, 0.2, 0.2), "dwell": 4e-6, "samples": 64}
    path = trajectory.from_entries(entries, spokes=30, dwell=1e-6)
    np.testing.assert_array_equal(path.k, trajectory.radial_3d(16, 0.2, 4e-6, 30, samples=64).k)
    with pytest.warns(UserWarning, match="gradient is 0.00.* T/m: the hardware gives 0.001 T/m"):
        trajectory.from_entries(entries | {"spokes": 30, "max_gradient": 0.001})
    with pytest.warns(UserWarning, match="slew rate is .*: the hardware gives 1 T/m/s"):
        trajectory.from_entries(entries | {"spokes": 30, "max_slew": 1.0})


BASE = {"matrix": 16, "fov": 0.2, "dwell": 4e-6}
BAD = [
    ({"trajectory": "spiral"}, "trajectory is 'spiral': expected cartesian or"),
    ({}, "trajectory is None: expected cartesian or"),
    ({"trajectory": "radial_3d", **BASE}, "spokes is missing: trajectory radial_3d needs it"),
    ({"trajectory": "radial_3d", **BASE, "spikes": 3}, "spikes is no entry of trajectory radial_3d: expected some of"),
    ({"trajectory": "radial_3d", **BASE, "spokes": 0}, "spokes is 0: expected a whole number from 1 up"),
    ({"trajectory": "radial_3d", **BASE, "spokes": 9.5}, "spokes is 9.5: expected a whole number"),
    ({"trajectory": "radial_3d", **BASE, "spokes": 9}, "ramp is 0.0001 s: expected at most the readout, 3.2e-05 s"),
    ({"trajectory": "radial_3d", **BASE, "spokes": 9, "ramp": -1.0}, "ramp is -1.0: expected a time from 0 up"),
    ({"trajectory": "radial_3d", **BASE, "spokes": 9, "order": "random"}, "order is 'random': expected phyllotaxis or"),
    ({"trajectory": "radial_2d", **BASE, "spokes": 9, "full": True, "gap": 1e-6}, "expected 0 for full spokes"),
    ({"trajectory": "cartesian", **BASE, "matrix": (16, 16)}, "matrix is (16, 16): expected one number, or three"),
    ({"trajectory": "cartesian", **BASE, "fov": -0.2}, "fov is -0.2: expected a number above 0 (m)"),
    ({"trajectory": "cartesian", **BASE, "dwell": math.nan}, "dwell is nan: expected a number above 0 (s)"),
    ({"trajectory": "cartesian", **BASE, "frequency": "z"}, "frequency is 'z': expected x or y"),
    ({"trajectory": "cartesian", **BASE, "dimensions": 4}, "dimensions is 4: expected 2 or 3"),
    (
        {"trajectory": "cartesian", **BASE, "partial_fourier": 0.5},
        "partial_fourier is 0.5: expected above 0.5, up to 1",
    ),
    ({"trajectory": "cartesian", **BASE, "nucleus": "13C"}, "nucleus is '13C': expected 1H or 31P"),
    ({"trajectory": "epi", **BASE, "echo_spacing": 64e-6}, "echo_spacing is 6.4e-05 s: expected above 6.4e-05 s"),
    ({"trajectory": "epi", **BASE, "blips": 0}, "blips is 0: expected 1 or -1"),
    ({"trajectory": "cones", **BASE, "samples": 8}, "too short for a spoke within max_gradient = 0.04 T/m"),
]


@pytest.mark.parametrize("entries, message", BAD)
def test_bad_entries(entries, message):
    with pytest.raises(InputError) as error:
        trajectory.from_entries(entries, "protocol ute: readout")
    assert str(error.value).startswith("protocol ute: readout: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_trajectories():
    ones = np.ones((2, 3, 3))
    good = {"kind": "own", "dimensions": 3, "matrix": 4, "fov": 0.1, "dwell": 1e-6, "times": np.arange(3.0)}
    for change, message in (
        ({}, "neither k nor gradients"),
        ({"k": np.ones((2, 3))}, "k has shape (2, 3): expected (readout, sample, 3)"),
        ({"k": ones, "times": np.arange(4.0)}, "times has shape (4,): expected (3,) or (2, 3)"),
        ({"k": ones * np.nan}, "k is not finite"),
        ({"k": ones, "dimensions": 2}, "k along z is not 0"),
        ({"k": ones, "weights": np.ones(3)}, "weights has shape (3,): expected (2, 3)"),
        ({"k": ones, "nucleus": "1h"}, "nucleus is '1h'"),
    ):
        with pytest.raises(InputError) as error:
            trajectory.Trajectory(**(good | change))
        assert message in str(error.value)
    with pytest.raises(InputError, match="it has no gradients"):
        trajectory.Trajectory(**good, k=ones).positions(np.zeros(1))


def test_the_nucleus_sets_the_gradient():
    """The same way through k-space takes a stronger gradient for 31P."""
    proton, phosphorus = (trajectory.radial_3d(16, 0.2, DWELL, 9, samples=40, nucleus=n) for n in ("1H", "31P"))
    np.testing.assert_allclose(proton.k, phosphorus.k, rtol=1e-12)
    assert phosphorus.peak_gradient / proton.peak_gradient == pytest.approx(PROTON / GYROMAGNETIC["31P"])


def test_an_engine_agrees():
    """A spin away from the isocentre, played by the Bloch engine: its phase at every sample is exp(+i 2 pi k r)."""
    place = np.array([11e-3, -7e-3, 5e-3])
    spin = Isochromats(T1=np.inf, T2=np.inf, position=place)
    for kind in ("radial_3d", "radial_2d"):
        path = trajectory.radial_3d(16, 0.2, DWELL, 7, samples=40) if kind == "radial_3d" else KINDS[kind]()
        pulse = timeline.Block(timeline.RF(np.array([0.25e7]), 1e-7, phase=math.pi / 2))
        read = timeline.Block(*path.events(3, 0.0), timeline.ADC(path.samples, DWELL))
        played = timeline.Timeline((pulse, read), nucleus=path.nucleus)
        signal = np.ravel(bloch.simulate(played, spin, exact=True).signal)
        np.testing.assert_allclose(signal, np.exp(2j * np.pi * path.k[3] @ place), atol=1e-6)
