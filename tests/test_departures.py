"""Departure maps: every equation has one or a reason, and what they show is checked against closed forms."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.linalg import expm

from bonemri.simulator import equations
from bonemri.simulator.acquisition.events.timeline import Block, Repeat, Timeline, rf_spoiling, trapezoid
from bonemri.simulator.engines import bloch, walkers
from bonemri.simulator.engines.isochromats import Isochromats
from bonemri.validation.exhibits import departing, departing_pools, departures
from bonemri.validation.report.style import to_svg

EACH = [(name, panel) for name, panels in departures.PANELS.items() for panel in panels]


@pytest.fixture(scope="module")
def quick():
    return departures.maps(quick=True)


def one(signals, x, y):
    """Relative departure of a panel at one point."""
    found, expected = signals(np.array([x]), np.array([y]))
    return float(np.real(found)[0, 0] / expected[0, 0] - 1)


# ---- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(equations.registry))
def test_every_equation_has_a_map_or_a_reason(name):
    assert (name in departures.PANELS) != (name in departures.SILENT)
    if name in departures.SILENT:
        assert len(departures.SILENT[name]) > 30


def test_the_table_names_nothing_else(quick):
    known = set(equations.registry)
    assert set(departures.PANELS) | set(departures.SILENT) == known
    assert list(quick) == list(departures.PANELS)
    assert {panel.engine for _, panel in EACH} >= {"bloch", "epg", "epg_exchange", "walkers", "capillaries"}


@pytest.mark.parametrize(("name", "panel"), EACH, ids=[f"{n}-{p.name}" for n, p in EACH])
def test_maps_are_labelled_and_their_line_lies_at_one_per_cent(quick, name, panel):
    dataset = quick[name]
    found = dataset[panel.name]
    assert found.dims == (panel.y.name, panel.x.name) and found.shape == (15, 15)
    for v in (found, found[panel.x.name], found[panel.y.name]):
        assert v.attrs["units"] and v.attrs["long_name"]
    assert found.attrs["held"] and found.attrs["engine"] == panel.engine
    values = found.values
    assert np.isfinite(values).mean() > 0.5
    inside = np.abs(values[np.isfinite(values)]) < departures.LIMIT
    assert inside.any() and not inside.all()  # where the equation holds, and where it does not
    lines = dataset[f"{panel.name}_contour"].values
    x, y = found[panel.x.name].values, found[panel.y.name].values
    # a line crosses edges of the grid, along which the departure is interpolated linearly
    for a, b in lines[np.isfinite(lines).all(axis=1)]:
        i, j = np.clip(np.searchsorted(x, a) - 1, 0, 13), np.clip(np.searchsorted(y, b) - 1, 0, 13)
        s, t = (a - x[i]) / (x[i + 1] - x[i]), (b - y[j]) / (y[j + 1] - y[j])
        corner = values[j : j + 2, i : i + 2]
        if np.isfinite(corner).all():  # else the line cuts the corner
            level = np.array([1 - t, t]) @ corner @ np.array([1 - s, s])
            assert abs(level) == pytest.approx(departures.LIMIT, rel=1e-9)


def test_the_line_has_both_signs():
    x, y = np.linspace(-1, 1, 21), np.linspace(0, 1, 5)
    lines = departures.contour(x, y, np.tile(0.04 * x, (5, 1)))
    ends = lines[np.isfinite(lines).all(axis=1)]
    np.testing.assert_allclose(np.unique(ends[:, 0].round(12)), [-0.25, 0.25])
    assert np.isnan(lines).all(axis=1).sum() == 1  # between the two
    assert departures.contour(x, y, np.zeros((5, 21))).shape == (0, 2)


def test_a_map_is_the_same_twice():
    panel = departures.PANELS["mono_exponential"][0]  # the one with walkers
    x, y = panel.x.values(3), panel.y.values(3)
    np.testing.assert_array_equal(panel.signals(x, y)[0], panel.signals(x, y)[0])


@pytest.mark.parametrize("name", list(departures.PANELS))
def test_a_figure_for_each_equation(quick, name):
    figure = departures.draw(quick[name])
    assert isinstance(figure, Figure)
    panels = departures.PANELS[name]
    for ax, panel in zip(figure.axes, panels, strict=False):
        assert ax.get_xlabel() == panel.x.label and ax.get_ylabel() == panel.y.label
        assert ax.get_title(loc="left") == panel.title
        low, high = ax.get_xlim()
        assert (low, high) == pytest.approx((panel.x.low * panel.x.scale, panel.x.high * panel.x.scale))
    svg = to_svg(figure, name, "departures")
    assert svg.count("<svg") == 1 and panels[0].x.label in svg


def test_titles_do_not_run_into_each_other(quick):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for dataset in quick.values():
        figure = departures.draw(dataset)
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = departures.PANELS[dataset.attrs["equation"]]
        texts = [[*ax.texts, ax._left_title] for ax in figure.axes[: len(panels)]]
        edges = [ax.get_window_extent(renderer) for ax in figure.axes[: len(panels)]]
        for k, own in enumerate(texts):
            end = edges[k + 1].x0 if k + 1 < len(panels) else figure.bbox.width
            assert all(text.get_window_extent(renderer).x1 <= end for text in own), dataset.attrs["equation"]


# ---- what the maps show --------------------------------------------------------------------------------------------


def test_a_finite_pulse_of_a_gradient_echo():
    """Against the matrix exponential of the pulse; steps of 4 us are good to 2e-5."""
    ratio, flip, T1, TR = 0.7, 0.6, 0.5, 50e-3
    length = departing.PULSE
    T2, w1 = length / ratio, flip / length

    def after(w, time):
        return expm(time * np.array([[-1 / T2, w, 0], [-w, -1 / T1, 1 / T1], [0, 0, 0]]))  # Mx, Mz, 1

    whole = np.diag([0, 1, 1]) @ after(0, TR - length) @ after(w1, length)
    mz = whole[1, 2] / (1 - whole[1, 1])
    mx = (after(0, length / 2) @ after(w1, length) @ [0, mz, 1])[0]
    E1 = math.exp(-TR / T1)
    ideal = math.sin(flip) * (1 - E1) / (1 - E1 * math.cos(flip)) * math.exp(-length / T2)
    assert one(departing.gradient_echo_pulse, ratio, flip) == pytest.approx(mx / ideal - 1, abs=5e-5)


def test_a_pulse_off_resonance_turns_about_a_tilted_axis():
    """Without relaxation during it: tilt of the axis and turn in closed form, then Ernst. T2 is 100 pulses long."""
    turns, flip, T1, TR = 0.3, 0.9, 0.5, 50e-3
    w, off = flip, 2 * math.pi * turns
    angle, sine = math.hypot(w, off), w / math.hypot(w, off)
    mz = 1 - sine**2 * (1 - math.cos(angle))
    across = math.sqrt(1 - mz**2)
    E1 = math.exp(-TR / T1)
    real = across * (1 - E1) / (1 - E1 * mz)
    ideal = math.sin(flip) * (1 - E1) / (1 - E1 * math.cos(flip))
    assert one(departing.gradient_echo_offset, turns, flip) == pytest.approx(real / ideal - 1, abs=0.01)


def test_spoiling_against_isochromats():
    """The map is from the extended phase graph; here 128 spins over a turn of a real gradient. Pulses of 1 us: 1e-4
    of T2."""
    ratio, flip, TR, T1 = 0.5, 1.0, 10e-3, 0.1
    pulse = departing.at(0.5e-6, flip, duration=1e-6)
    block = Block(pulse, departing.sample(1.2e-6), trapezoid("z", 2e-5, 3e-3, 5e-4, 5e-3), duration=TR)
    timeline = Timeline((Repeat((block,), 120, rf_spoiling(120)),))
    place = np.zeros((128, 3))
    place[:, 2] = (np.arange(128) + 0.5) / (128 * timeline.gamma * 2e-5)
    found = abs(bloch.simulate(timeline, Isochromats(T1, TR / ratio, position=place)).signal[:, -1].mean())
    E1 = math.exp(-TR / T1)
    ideal = math.sin(flip) * (1 - E1) / (1 - E1 * math.cos(flip))
    assert one(departing.gradient_echo_spoiling, ratio, flip) == pytest.approx(found / ideal - 1, abs=3e-4)
    assert abs(found / ideal - 1) > 0.01


@pytest.mark.parametrize(("name", "left"), [
    ("spin_echo", lambda a: math.sin(a) * math.sin(a) ** 2),
    ("double_spin_echo", lambda a: math.sin(a) * math.sin(a) ** 4),
    ("stimulated_echo", lambda a: math.sin(a) ** 3),
])  # fmt: skip
@pytest.mark.parametrize("scale", [0.8, 0.95, 1.0, 1.2])
def test_echoes_at_a_wrong_flip_angle(name, left, scale):
    """Hahn: sin(a) sin^2(b/2) of a spin echo, sin of all three of a stimulated one, a = B1 pi/2 and b = 2 a. The
    longest T2 of the map, 100 pulse lengths, takes less than 4 % for relaxation during up to five of them; here 1e4."""
    found = one(departing.relaxing(name), 1e-4, scale)
    assert found == pytest.approx(left(scale * math.pi / 2) - 1, abs=1e-3)


def test_echoes_off_resonance_keep_what_their_pulses_turn():
    """A 180 degree pulse refocuses sin^2(Omega/2) of its axis in the plane, squared; T2 of 200 lengths."""
    turns = 0.25
    off = 2 * math.pi * turns

    def transverse(w):
        angle = math.hypot(w, off)
        mz = 1 - (w / angle) ** 2 * (1 - math.cos(angle))
        return math.sqrt(1 - mz**2), (w / angle * math.sin(angle / 2)) ** 2

    excited, refocused = transverse(math.pi / 2)[0], transverse(math.pi)[1]
    expected = excited * refocused - 1
    assert one(departing.turning("spin_echo"), turns, 1.0) == pytest.approx(expected, abs=0.02)
    assert one(departing.turning("double_spin_echo"), turns, 1.0) == pytest.approx(excited * refocused**2 - 1, abs=0.03)


def test_where_equations_hold():
    """Instant pulses, on resonance, all spoiled: nothing is left. A pulse of a ten-thousandth of T2 errs by as much."""
    assert abs(one(departing.gradient_echo_pulse, 1e-4, 0.5)) < 1e-4
    assert abs(one(departing.inversion_pulse, 1e-4, 0.2)) < 1e-3
    assert abs(one(departing.gradient_echo_spoiling, 10.0, 0.5)) < 1e-4
    for name in departing.ECHOES:
        assert abs(one(departing.relaxing(name), 1e-4, 1.0)) < 2e-3, name
    assert abs(one(departing_pools.spokes_pulse, 1e-4, 0.2)) < 2e-3
    assert abs(one(departing_pools.spokes_spoiling, 10.0, 0.2)) < 1e-4
    assert abs(one(departing_pools.two_waters_pulse, 1e-3, 0.5)) < 1e-3
    assert abs(one(departing_pools.two_waters_exchange, 1e-7, 2.0)) < 1e-5
    assert abs(one(departing.train_angle, math.pi, 10.0)) < 1e-8
    assert abs(one(departing.spin_echo_surviving, 20.0, 0.1)) < 1e-3
    assert abs(one(departing_pools.flowing, 60.0, 50.0)) < 1e-3
    assert abs(one(departing_pools.fat_offset, 0.4, 0.0)) < 0.02  # water alone


def test_inversion_off_resonance_at_the_start():
    """At once after the pulse Mz is what a turn about a tilted axis leaves; the readout is turned alike."""
    turns = 0.3
    off = 2 * math.pi * turns

    def left(w):
        angle = math.hypot(w, off)
        return 1 - (w / angle) ** 2 * (1 - math.cos(angle))

    TI, T1, TR = 0.1, 1.0, 5.0
    read = left(math.pi / 2)
    # spoiled after the inversion alone: read again and again, what a readout leaves of Mz recovers for TR - TI
    E, rest = math.exp(-TI / T1), math.exp(-(TR - TI) / T1)
    before = (1 - E + E * left(math.pi) * (1 - rest)) / (1 - E * left(math.pi) * rest * read)
    found, _ = departing.inversion_offset(np.array([turns]), np.array([TI]))
    assert found[0, 0] == pytest.approx(before * math.sqrt(1 - read**2), abs=0.02)  # T2 of 200 pulses


def test_exchange_of_two_waters():
    rate, time, T2, f = 0.05, 3.0, departing_pools.BOUND_T2, departing_pools.PORE
    k = rate / T2
    back = k * (1 - f) / f
    matrix = [[-1 / T2 - k, back], [k, -1 / departing_pools.PORE_T2 - back]]
    exact = expm(np.array(matrix) * time * T2).sum(axis=0) @ [1 - f, f]
    ideal = (1 - f) * math.exp(-time) + f * math.exp(-time * T2 / departing_pools.PORE_T2)
    assert one(departing_pools.two_waters_exchange, rate, time) == pytest.approx(exact / ideal - 1, rel=1e-9)


def test_walls_against_walkers_of_their_own():
    """Another walk, without the one in free room: within four of its standard errors."""
    times, gradient = departing_pools._lobes(1 / departing_pools.DIFFUSIVITY)
    far = math.sqrt(2 * departing_pools.DIFFUSIVITY * 1e-6 * departing_pools.SEPARATION)
    walked = walkers.walk(
        times, gradient, walkers.slab(2 * far), diffusivity=departing_pools.DIFFUSIVITY, count=40_000, seed=7
    ).signal(math.sqrt(0.5))
    # the map's step is a tenth of 1 diffusion length: so it is where the narrowest map begins
    found, expected = departing_pools.restricted(np.array([1.0, 2.0]), np.array([0.5]))
    assert expected[0, 1] == pytest.approx(math.exp(-0.5))
    assert found[0, 1] == pytest.approx(walked.signal.real, abs=4 * 1.5 * walked.error.real + 0.005 * 0.5)
    assert found[0, 1] / expected[0, 1] > 1.1


def test_blood_that_turns_nowhere_is_ballistic():
    """Long segments: the mean over directions of a straight path is a sinc of its phase."""
    f, D, D_star, b, passed = 0.1, 0.5e-3, 0.03, 10.0, 1e-3
    duration = departing_pools.SEPARATION + departing_pools.DELTA
    length = math.sqrt(6 * D_star * 1e-6 * duration / passed)
    velocity = 6 * D_star * 1e-6 / length
    q = math.sqrt(b * 1e6 / (departing_pools.SEPARATION - departing_pools.DELTA / 3))  # rad/m
    phase = q * velocity * departing_pools.SEPARATION
    blood = math.sin(phase) / phase
    tissue = (1 - f) * math.exp(-b * D)
    expected = (f * blood + tissue) / (f * math.exp(-b * D_star) + tissue) - 1
    # one path in a thousand turns
    assert one(departing_pools.flowing, passed, b) == pytest.approx(expected, abs=2e-4)
