"""Engines as models: their derivatives against the complex step, and against equations where both must agree."""

import dataclasses
import math
import re

import numpy as np
import pytest
import sympy as sp
from scipy.linalg import expm

from bonemri.errors import InputError
from bonemri.simulator import cramer_rao_bound, engine_model, equations, information
from bonemri.simulator.acquisition.protocol import Protocol
from bonemri.simulator.engine_model import EngineModel, of_sequence
from bonemri.simulator.engines import epg
from bonemri.simulator.equations import relaxation
from bonemri.simulator.model import Model

ECHOES = (1e-3, 4e-3, 9e-3)


def protocol(duration=3e-4, **changes):
    plain = {
        "name": "short", "sequence": "gradient_echo", "equation": "spoiled_gradient_echo", "encoding": "echo",
        "table": {"echo": ECHOES}, "field_strength": 3.0, "constants": {"TR": 20e-3, "flip_angle": 0.6},
        "pulses": {"excitation": {"shape": "hard", "duration": duration}},
    }  # fmt: skip
    return Protocol(**plain | changes)


# ---- derivatives of a finite pulse ---------------------------------------------------------------------------------


def finite_pulse(S0, T1, T2, flip_angle, TR, B1, offset, duration):
    """Mx, My (echo, 2) in the steady state of an ideally spoiled gradient echo, in any arithmetic that expm takes."""
    turn = 2 * np.pi * offset

    def after(w1, time):
        return expm(time * np.array([
            [-1 / T2, -turn, w1, 0], [turn, -1 / T2, 0, 0], [-w1, 0, -1 / T1, 1 / T1], [0, 0, 0, 0],
        ]))  # fmt: skip

    pulse = after(B1 * flip_angle / duration, duration)
    whole = np.diag([0, 0, 1, 1]) @ after(0, TR - duration) @ pulse
    excited = pulse @ np.array([0, 0, whole[2, 3] / (1 - whole[2, 2]), 1])
    return np.array([S0 * (after(0, TE - duration / 2) @ excited)[:2] for TE in ECHOES])


POINT = {"S0": 1.5, "T1": 0.8, "T2": 8e-3, "flip_angle": 0.6, "TR": 20e-3, "B1": 0.9, "off_resonance": 7.0,
         "excitation.duration": 3e-4}  # fmt: skip


def test_jacobian_against_the_complex_step():
    """Tissue and settings alike. 3e-11: near the Ernst angle the signal bends over a fifth of the angle, which leaves
    (1e-3)^4 5^4/30 = 2e-11 of truncation; the exponentials round a few 1e-15, over 1e-3. The signal hardly knows the
    duration of a pulse (2e-3 of its derivatives elsewhere), and rounding is as much the more of it."""
    model = of_sequence(protocol(), tuple(POINT))
    assert isinstance(model, Model)
    found = model.signal(POINT, {})[0]
    expected = finite_pulse(*POINT.values())
    np.testing.assert_allclose(found, expected[:, 0] + 1j * expected[:, 1], atol=1e-14)
    jacobian = model.jacobian(POINT, {})[0]
    for k, name in enumerate(POINT):
        values = [complex(v) for v in POINT.values()]
        values[k] += 1e-30j
        exact = finite_pulse(*values).imag @ [1, 1j] / 1e-30
        tolerance = 5e-9 if name == "excitation.duration" else 3e-11
        assert np.abs(jacobian[:, k] - exact).max() < tolerance * np.abs(exact).max(), name


def test_an_offset_is_differentiated_where_it_is_zero():
    """An instant pulse on resonance: i 2 pi TE of the signal. With the value as scale the step would be nothing."""
    model = of_sequence(protocol(2e-7), ("T1", "T2", "off_resonance"))
    theta = {"T1": 0.8, "T2": 8e-3, "off_resonance": 0.0}
    expected = 2j * np.pi * np.array(ECHOES) * model.signal(theta, {})[0]
    found = model.jacobian(theta, {})[0, :, 2]
    # the pulse turns by half its duration less or more: 2e-7 s of 1e-3
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert np.abs(model.jacobian(theta | {"off_resonance": 1e-9}, {})[0, :, 2] - found).max() < 1e-9


# ---- where equations must agree ------------------------------------------------------------------------------------


def limit(values):
    """From two durations of the pulse, the first twice the second, to none."""
    long, short = values
    return 2 * short - long


def derivative(equation, name, theta, settings):
    """Of the declared formula with respect to anything in it, (point,)."""
    s = equation.symbols
    slope = sp.diff(equation.expression, s[name])
    function = sp.lambdify(list(s.values()), slope, modules=["numpy", {"expm1": np.expm1}])
    return np.broadcast_to(function(*[{**theta, **settings}[n] for n in s]), len(ECHOES))


def test_jacobian_of_a_gradient_echo_is_that_of_its_equation():
    """Pulses of 0.8 and 0.4 us. Left is the second order, (0.4 us/T2)^2 = 2e-9 a few times."""
    names = ("S0", "T1", "R2star", "flip_angle", "TR", "B1")
    theta = {"S0": 1.5, "T1": 0.8, "R2star": 120.0, "flip_angle": 0.6, "TR": 20e-3, "B1": 0.9}
    models = [of_sequence(protocol(d), names) for d in (8e-7, 4e-7)]
    found = limit([m.jacobian(theta, {})[0] for m in models])
    equation = equations.get("spoiled_gradient_echo")
    for k, name in enumerate(names):
        exact = derivative(equation, name, theta, {"TE": np.array(ECHOES)})
        assert np.abs(found[:, k] - exact).max() < 1e-8 * np.abs(exact).max(), name


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_information_and_bound_are_those_of_the_equation(noise):
    theta = {"S0": 1.5, "T1": 0.8, "R2star": 120.0}
    equation = equations.get("spoiled_gradient_echo")
    # three echoes at two flip angles each: T1 and S0 are told apart
    table = {"echo": ECHOES * 2, "flip_angle": (0.1,) * 3 + (0.6,) * 3}
    models = [of_sequence(protocol(d, table=table, constants={"TR": 20e-3}), tuple(theta)) for d in (8e-7, 4e-7)]
    settings = {"TE": np.array(table["echo"]), "flip_angle": np.array(table["flip_angle"]), "TR": 20e-3, "B1": 1.0}
    for measure in (information, cramer_rao_bound):
        exact = measure(equation, theta, settings, 0.02, noise)
        found = limit([measure(m, theta, {}, 0.02, noise) for m in models])
        np.testing.assert_allclose(found, exact, rtol=1e-7)
        one = measure(models[0], theta, {}, 0.02, noise, free=["T1"])
        np.testing.assert_allclose(one, measure(equation, theta, settings, 0.02, noise, free=["T1"]), rtol=1e-3)


def test_jacobian_of_a_spin_echo_is_that_of_its_equation():
    plan = protocol(
        sequence="spin_echo", equation="spin_echo", encoding="TE", table={"TE": (10e-3, 25e-3, 60e-3)},
        constants={"TR": 0.7, "crusher": 0.0},
    )  # fmt: skip
    theta = {"S0": 1.5, "T1": 0.6, "T2": 40e-3, "TR": 0.7}
    pulses = [{n: {"shape": "hard", "duration": d} for n in ("excitation", "refocusing")} for d in (8e-7, 4e-7)]
    models = [of_sequence(dataclasses.replace(plan, pulses=p), tuple(theta)) for p in pulses]
    found = limit([m.jacobian(theta, {})[0] for m in models])
    for k, name in enumerate(theta):
        exact = derivative(equations.get("spin_echo"), name, theta, {"TE": np.array(plan.table["TE"])})
        assert np.abs(found[:, k] - exact).max() < 1e-9 * np.abs(exact).max(), name


def test_any_function_is_a_model():
    """The extended phase graph of perfect refocusing: exp(-n spacing/T2), its derivative and bound."""

    def run(theta, settings):
        angles, spacing = settings["refocusing"], settings["spacing"]
        return theta["S0"][:, None] * epg.spin_echo_train(theta["T1"], theta["T2"], angles, float(spacing))

    spacing = dataclasses.replace(relaxation.TE, name="spacing")
    angles = dataclasses.replace(relaxation.flip_angle, name="refocusing")
    unknowns = (relaxation.S0, relaxation.T1, relaxation.T2)
    model = EngineModel("echoes", unknowns, (angles, spacing), run)
    settings = {"refocusing": np.full(8, math.pi), "spacing": 8e-3}
    times, T2 = 8e-3 * np.arange(1, 9), np.array([0.03, 0.1])
    found = model.jacobian({"S0": 2.0, "T1": 1.0, "T2": T2}, settings)
    decay = np.exp(-times / T2[:, None])
    np.testing.assert_allclose(found[:, :, 0], decay, atol=1e-12)
    np.testing.assert_allclose(found[:, :, 1], 0, atol=1e-12)
    np.testing.assert_allclose(found[:, :, 2], 2 * decay * times / T2[:, None] ** 2, rtol=1e-10)
    bound = cramer_rao_bound(model, {"S0": 2.0, "T1": 1.0, "T2": 0.05}, settings, 0.01, free=["S0", "T2"])
    equation = equations.Equation("decay", "", "S0*exp(-TE/T2)", unknowns[::2], (relaxation.TE,), "")
    exact = cramer_rao_bound(equation, {"S0": 2.0, "T2": 0.05}, {"TE": times}, 0.01)
    np.testing.assert_allclose(bound, exact, rtol=1e-10)
    # refocusing angles below 180 degrees let the train tell T1 too, which the equation cannot
    weak = cramer_rao_bound(model, {"S0": 2.0, "T1": 1.0, "T2": 0.05}, settings | {"refocusing": np.full(8, 1.5)}, 0.01)
    assert np.isfinite(weak).all()
    with pytest.raises(InputError, match="model echoes: the protocol lacks spacing"):
        model.signal({"S0": 1, "T1": 1, "T2": 1}, {"refocusing": np.ones(3)})


# ---- settings, maps, spins -----------------------------------------------------------------------------------------


def test_settings_are_taken_as_equations_take_them():
    """Per point, per voxel, or one for all; a Protocol replaces the whole."""
    model = of_sequence(protocol(), ("S0", "T1", "T2"), settings=("flip_angle", "TE"))
    theta = {"S0": [1.0, 2.0, 3.0], "T1": [0.5, 0.8, 1.2], "T2": [5e-3, 8e-3, 20e-3]}
    flips = np.array([[0.2], [0.5], [0.2]])
    B1 = np.array([[0.8], [1.0], [1.1]])
    found = model.signal(theta, {"flip_angle": flips, "TE": np.array([2e-3, 3e-3]), "TR": 30e-3, "B1": B1})
    assert found.shape == (3, 2)
    for v in range(3):
        one = protocol(constants={"TR": 30e-3, "flip_angle": flips[v, 0]}, table={"echo": (2e-3, 3e-3)})
        alone = {n: values[v] for n, values in theta.items()} | {"B1": B1[v, 0]}
        other = of_sequence(one, ("S0", "T1", "T2", "B1"))
        np.testing.assert_allclose(found[v], other.signal(alone, {})[0], rtol=1e-13)
        replaced = of_sequence(protocol(), ("S0", "T1", "T2", "B1")).signal(alone, one)[0]
        np.testing.assert_allclose(found[v], replaced, rtol=1e-13)
    jacobian = model.jacobian(theta, {"flip_angle": flips, "TE": np.array([2e-3, 3e-3]), "B1": B1})
    np.testing.assert_allclose(
        jacobian[:, :, 0] * np.array([[1.0], [2.0], [3.0]]),
        model.signal(theta, {"flip_angle": flips, "TE": np.array([2e-3, 3e-3]), "B1": B1}),
        rtol=1e-11,
    )
    with pytest.raises(InputError, match=re.escape("the protocol lacks flip_angle (rad): flip angle")):
        model.signal(theta, {"TE": 2e-3})


def test_a_spoiler_has_its_spins():
    """Gradient and RF spoiling from equilibrium, against the extended phase graph."""
    plan = protocol(2e-7, constants={
        "TR": 12e-3, "flip_angle": 0.5, "spoiler": 2e-5, "rf_spoiling": math.radians(117), "repetitions": 30,
    })  # fmt: skip
    model = of_sequence(plan, ("T1", "T2", "flip_angle", "TR"))
    theta = {"T1": 0.4, "T2": 20e-3, "flip_angle": 0.5, "TR": 12e-3}
    echoes = np.array(ECHOES)

    def train(flip_angle, TR, T2):
        return epg.spoiled_train(0.4, T2, np.full(31, flip_angle), TR)[0, -1] * np.exp(-echoes / T2)

    # 2e-7 s of pulse in 12 ms and T2 of 20 ms: 1e-5
    np.testing.assert_allclose(model.signal(theta, {})[0], train(0.5, 12e-3, 20e-3), rtol=3e-5)
    jacobian = model.jacobian(theta, {})[0]
    for k, name, value in ((1, "T2", 20e-3), (2, "flip_angle", 0.5), (3, "TR", 12e-3)):
        at = {"flip_angle": 0.5, "TR": 12e-3, "T2": 20e-3}
        h = 1e-4 * value
        expected = (train(**at | {name: value + h}) - train(**at | {name: value - h})) / (2 * h)
        assert np.abs(jacobian[:, k] - expected).max() < 1e-3 * np.abs(expected).max(), name


def test_points_are_means_of_their_samples_and_slices_have_a_gain(monkeypatch):
    from bonemri.simulator import sequences

    plain = sequences.get("gradient_echo")

    def played(plan):
        (part,) = plain.played(plan)
        return (dataclasses.replace(part, points=(0, 1, 2, 2), samples=(0, 1, 1, 2), gain=2.0),)

    theta = {"S0": 1.0, "T1": 0.8, "T2": 8e-3}
    each = of_sequence(protocol()).signal(theta, {})[0]
    monkeypatch.setitem(sequences.registry, "gradient_echo", dataclasses.replace(plain, played=played))
    found = of_sequence(protocol()).signal(theta, {})[0]
    np.testing.assert_allclose(found, [2 * each[0], 2 * each[1], each[1] + each[2]], rtol=1e-13)


def test_a_train_whose_length_follows_a_setting_is_refused():
    constants = {"TR": 12e-3, "flip_angle": 0.5, "spoiler": 2e-5, "rf_spoiling": math.radians(117)}
    model = of_sequence(protocol(constants=constants), ("T1", "T2", "TR"))
    with pytest.raises(InputError, match="timelines of different blocks: .* state repetitions"):
        model.jacobian({"T1": 0.4, "T2": 20e-3, "TR": 12e-3}, {})


BAD = [
    ({"unknowns": ("S0", "T2")}, "unknowns are S0, T2: expected T1, and T2 or R2star"),
    ({"unknowns": ("T1", "T2", "R2star")}, "unknowns name T2 and R2star: expected one of the two"),
    ({"unknowns": ("T1", "T2", "porosity")}, "porosity is no unknown: expected one of S0, T1, T2"),
    ({"unknowns": ("T1", "T2", "TI")}, "TI is no unknown"),
    ({"unknowns": ("T1", "T2", "echo")}, "echo has a value for each point: expected a setting with one value"),
    ({"unknowns": ("T1", "T2", "inversion.duration")}, "inversion.duration is no number of a stated pulse: expected "
     "one of excitation.duration"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        of_sequence(protocol(), **change)


def test_bad_settings():
    model = of_sequence(protocol())
    with pytest.raises(InputError, match=re.escape("B1 has 3 values: expected one, or (voxel, 1)")):
        model.signal({"S0": 1, "T1": 1, "T2": 0.1}, {"B1": [1.0, 1.1, 1.2]})
    with pytest.raises(InputError, match="theta lacks T2"):
        model.signal({"S0": 1, "T1": 1}, {})
    with pytest.raises(InputError, match="TR is"):
        model.signal({"S0": 1, "T1": 1, "T2": 0.1}, {"TR": -1.0})


def test_units_are_declared():
    model = of_sequence(protocol(), ("T1", "T2", "off_resonance", "flip_angle", "excitation.duration"))
    assert [q.unit for q in model.unknowns] == ["s", "s", "Hz", "rad", "s"]
    assert set(engine_model.TISSUE) == {"S0", "T1", "T2", "R2star", "off_resonance", "B1"}
