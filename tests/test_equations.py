"""Every declared equation: its Jacobian against 30-digit arithmetic, its physical limits, its printed formula."""

import inspect
import re

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator import Equation, Quantity, cramer_rao_bound, equations, information, numerical_jacobian
from bonemri.simulator.kernels import linear
from bonemri.simulator.model import Model, rician_information

EQUATIONS = pytest.mark.parametrize("equation", equations.registry.values(), ids=list(equations.registry))
b = Quantity("b", "s/mm2", 0.0, 2000.0, "diffusion weighting")


def draw(quantity, rng, n):
    """n values over the declared range: even in the logarithm where the range spans decades above zero."""
    low, high = (v if np.isfinite(v) else np.sign(v) * 1000.0 for v in (quantity.low, quantity.high))
    if low > 0 and high / low > 100:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))
    return rng.uniform(low, high, n)


@EQUATIONS
def test_signal_and_jacobian_against_thirty_digits(equation):
    """Error at most 1e-12 of the sum of absolute values of the terms of each entry (40-digit arithmetic as witness)."""
    rng = np.random.default_rng(7)
    n = 40
    theta = {q.name: draw(q, rng, n) for q in equation.unknowns}
    protocol = {q.name: draw(q, rng, n)[:, None] for q in equation.settings}
    signal, jacobian = equation.signal(theta, protocol), equation.jacobian(theta, protocol)
    got = np.concatenate([signal[..., None], jacobian], axis=2)[:, 0]
    symbols = list(equation.symbols.values())
    derivatives = [sp.diff(equation.expression, equation.symbols[q.name]) for q in equation.unknowns]
    entries = [equation.expression, *derivatives]
    worst = 0.0
    with mpmath.workdps(40):
        terms = [[sp.lambdify(symbols, t, "mpmath") for t in sp.Add.make_args(e)] for e in entries]
        for v in range(n):
            point = [theta[k][v] for k in theta] + [protocol[k][v, 0] for k in protocol]
            exact = [mpmath.mpf(float(x)) for x in point]
            for e, parts in enumerate(terms):
                values = [f(*exact) for f in parts]
                scale = sum(abs(x) for x in values)
                if scale > mpmath.mpf("1e-290"):
                    worst = max(worst, float(abs(mpmath.mpmathify(got[v, e].item()) - sum(values)) / scale))
    assert worst <= 1e-12


@EQUATIONS
def test_jacobian_agrees_with_numerical_differences(equation):
    """The adapter that serves numerical engines sees the same derivatives, but for what its step leaves."""
    rng = np.random.default_rng(3)
    theta = {q.name: draw(q, rng, 20) for q in equation.unknowns}
    protocol = {q.name: draw(q, rng, 6) for q in equation.settings}
    exact = equation.jacobian(theta, protocol)
    values = np.stack([theta[q.name] for q in equation.unknowns], axis=-1)[:, None, :]
    # compared as changes of the signal per relative change of the unknown, where the step is not larger than the bend
    # an offset bends the signal by its phase, whatever its value: 5 Hz turn 6 rad in the longest echo time
    by_differences = numerical_jacobian(equation, theta, protocol, step=1e-3, scales={"fieldmap": 5.0})
    gap = np.abs(by_differences - exact) * np.abs(values)
    scale = np.abs(equation.signal(theta, protocol)).max() + (np.abs(exact) * np.abs(values)).max()
    assert gap.max() <= 1e-6 * scale


@EQUATIONS
def test_declaration_says_what_a_reader_needs(equation):
    assert isinstance(equation, Model)
    assert re.search(r"doi:10\.", equation.source)
    assert equation.latex.startswith("S = ") and "D_star" not in equation.latex
    for q in (*equation.unknowns, *equation.settings):
        assert q.unit and q.meaning and q.low < q.high


@pytest.mark.parametrize("page", [equations.relaxation, equations.diffusion], ids=["relaxation", "diffusion"])
def test_a_declaration_takes_at_most_fifteen_lines(page):
    blocks = re.findall(r"^\w+ = Equation\(\n.*?^\)\n", inspect.getsource(page), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == sum(isinstance(e, Equation) for e in vars(page).values())
    assert max(block.count("\n") for block in blocks) <= 15


fraction = st.floats(0.0, 1.0)
rate = st.floats(1e-5, 5e-3)


@settings(max_examples=25, deadline=None)
@given(f=fraction, D=rate, D_star=st.floats(5e-3, 0.3), k=st.floats(0.0, 1.0))
def test_diffusion_limits(f, D, D_star, k):
    weights = np.array([0.0, 50.0, 400.0])
    ivim = equations.ivim.signal({"S0": 2.0, "f": f, "D_star": D_star, "D": D}, {"b": weights})[0]
    assert ivim[0] == pytest.approx(2.0, rel=1e-15)  # no weighting, no decay
    assert np.all(np.diff(ivim) <= 0)  # diffusion only attenuates
    mono = equations.mono_exponential.signal({"S0": 2.0, "adc": D}, {"b": weights})[0]
    none = equations.ivim.signal({"S0": 2.0, "f": 0.0, "D_star": D_star, "D": D}, {"b": weights})[0]
    assert none == pytest.approx(mono, rel=1e-14)  # without blood the tissue decays alone
    theta = {"S0": 2.0, "f": f, "D_star": D_star, "D": D, "kurtosis": 0.0}
    assert equations.ivim_kurtosis.signal(theta, {"b": weights})[0] == pytest.approx(ivim, rel=1e-14)
    assert np.all(equations.ivim_kurtosis.signal({**theta, "kurtosis": k}, {"b": weights})[0] >= ivim - 1e-15)


@settings(max_examples=25, deadline=None)
@given(T1=st.floats(0.05, 3.0), T2=st.floats(5e-3, 0.3), angle=st.floats(0.01, 1.5))
def test_relaxation_limits(T1, T2, angle):
    flash = equations.spoiled_gradient_echo.signal
    one = {"S0": 1.0, "T1": T1, "R2star": 1.0 / T2}
    setting = {"flip_angle": angle, "TR": 10.0, "TE": 0.0, "B1": 1.0}
    # TR of many T1: full recovery, sin of the angle is left; what is left of exp(-TR/T1) is allowed
    assert flash(one, setting)[0, 0] == pytest.approx(np.sin(angle), abs=2 * np.exp(-10.0 / T1) + 1e-14)
    assert flash(one, {**setting, "flip_angle": 0.0})[0, 0] == 0.0  # no excitation, no signal
    ernst = np.arccos(np.exp(-0.02 / T1))  # at the Ernst angle the signal is stationary
    near = [flash(one, {**setting, "TR": 0.02, "flip_angle": ernst + d})[0, 0] for d in (-1e-3, 0.0, 1e-3)]
    assert near[1] >= max(near[0], near[2])
    echo = equations.spin_echo.signal({"S0": 1.0, "T1": T1, "T2": T2}, {"TE": np.array([0.0, T2 / 4]), "TR": 10.0})[0]
    assert echo[0] == pytest.approx(-np.expm1(-10.0 / T1), abs=1e-12)  # TE 0: saturation recovery without decay
    assert echo[1] < echo[0]
    steam = equations.stimulated_echo.signal({"S0": 1.0, "T1": T1, "T2": T2}, {"TE": 0.0, "TM": 0.0, "TR": 10.0})[0, 0]
    assert steam == pytest.approx(0.5, abs=np.exp(-10.0 / T1) + 1e-14)  # STEAM keeps one half
    inversion = equations.inversion_recovery.signal
    full = inversion({"S0": 1.0, "T1": T1, "efficiency": 1.0}, {"TI": 0.0, "TR": 10.0})[0, 0]
    assert full == pytest.approx(-1.0, abs=2 * np.exp(-10.0 / T1) + 1e-14)  # a full inversion
    null = inversion({"S0": 1.0, "T1": T1, "efficiency": 1.0}, {"TI": T1 * np.log(2.0), "TR": 10.0})[0, 0]
    assert null == pytest.approx(0.0, abs=2 * np.exp(-10.0 / T1) + 1e-14)  # its null at T1 ln 2


def test_a_b1_map_is_held_per_voxel():
    theta = {"S0": 1.0, "T1": np.array([0.3, 0.9, 1.4]), "R2star": 30.0}
    b1 = np.array([0.8, 1.0, 1.2])
    protocol = {"flip_angle": np.array([0.1, 0.3]), "TR": 0.01, "TE": 0.002}
    got = equations.spoiled_gradient_echo.signal(theta, {**protocol, "B1": b1[:, None]})
    for v in range(3):
        alone = {**protocol, "B1": 1.0, "flip_angle": protocol["flip_angle"] * b1[v]}
        one = equations.spoiled_gradient_echo.signal({k: x[v] if np.ndim(x) else x for k, x in theta.items()}, alone)
        np.testing.assert_allclose(got[v], one[0], rtol=1e-14)


def test_a_complex_signal_has_a_complex_jacobian():
    psi = Quantity("psi", "Hz", -500.0, 500.0, "off-resonance")
    rate = Quantity("R2star", "1/s", 0.0, 500.0, "rate")
    amplitude = Quantity("W", "a.u.", 0.0, 10.0, "amplitude")
    echo = Quantity("TE", "s", 0.0, 0.1, "echo time")
    formula = "W*exp(2*pi*I*psi*TE - R2star*TE)"
    precession = Equation("precession", "Precession", formula, (amplitude, psi, rate), (echo,), "test")
    te = np.array([1e-3, 3e-3, 7e-3])
    theta = {"W": 2.0, "psi": 90.0, "R2star": 40.0}
    s = precession.signal(theta, {"TE": te})[0]
    np.testing.assert_allclose(s, 2.0 * np.exp((2j * np.pi * 90.0 - 40.0) * te), rtol=1e-13)
    expected = np.stack([s / 2.0, 2j * np.pi * te * s, -te * s], axis=-1)
    np.testing.assert_allclose(precession.jacobian(theta, {"TE": te})[0], expected, rtol=1e-12)
    # real and imaginary channel both inform
    gain = np.real(np.conj(expected).T @ expected) / 0.01
    np.testing.assert_allclose(information(precession, theta, {"TE": te}, 0.1)[0], gain, rtol=1e-10)


def test_linear_unknowns_are_found_in_the_declaration():
    S0, f, D, D_star, x = sp.symbols("S0 f D D_star b", real=True)
    ivim = equations.ivim
    assert linear(ivim.expression, [ivim.symbols[q.name] for q in ivim.unknowns]) == [ivim.symbols["S0"]]
    assert linear(S0 * sp.exp(-x * D) + f * sp.exp(-x * D_star), [S0, f, D_star, D]) == [S0, f]
    assert linear(sp.exp(-x * D), [D]) == []


def test_bound_of_a_mono_exponential_is_the_closed_form():
    """Two points, two unknowns: the bound is error propagation of adc = log(s0/s1)/b."""
    value = {"S0": 3.0, "adc": 1e-3}
    sigma, weight = 0.05, 700.0
    s1 = 3.0 * np.exp(-0.7)
    got = cramer_rao_bound(equations.mono_exponential, value, {"b": np.array([0.0, weight])}, sigma)[0]
    np.testing.assert_allclose(got, [sigma, sigma / weight * np.hypot(1 / 3.0, 1 / s1)], rtol=1e-12)


def test_bound_is_infinite_only_for_what_cannot_be_known():
    value = {"S0": 1.0, "f": 0.0, "D_star": 0.03, "D": 1e-3}
    bound = cramer_rao_bound(equations.ivim, value, {"b": np.array([0.0, 20.0, 50.0, 200.0, 800.0])}, 0.01)[0]
    assert np.isinf(bound[2])  # without blood D* means nothing
    assert np.isfinite(bound[[0, 1, 3]]).all()


def test_rician_information_fades_with_the_signal():
    """Fractions published in units of the noise SD: 52 % at SNR 1, 85 at 2, 94 at 3, 98 at 5."""
    np.testing.assert_allclose(rician_information(np.array([1.0, 2.0, 3.0, 5.0])), [0.52, 0.85, 0.94, 0.98], atol=0.005)
    assert rician_information(np.array([0.0]))[0] == pytest.approx(0.0, abs=1e-12)
    gap = np.diff(rician_information(np.array([11.99, 12.01])))[0]
    assert abs(gap) < 1e-4  # the table and its asymptote meet


def test_a_declaration_with_a_stranger_is_refused():
    wrong = Equation("wrong", "Wrong", "S0*exp(-b*D)", (Quantity("S0", "1", 0, 1, "x"),), (b,), "test")
    with pytest.raises(InputError, match="D is neither an unknown nor a setting"):
        wrong.signal({"S0": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(
    ("theta", "protocol", "message"),
    [
        ({"S0": 1.0}, {"b": 1.0}, "lacks adc"),
        ({"S0": 1.0, "adc": 1.0}, {}, "the protocol lacks b"),
        (np.ones((2, 3)), {"b": 1.0}, r"expected \(voxel, 2\)"),
        ({"S0": np.ones(2), "adc": np.ones(3)}, {"b": 1.0}, "different lengths"),
        ({"S0": np.ones(2), "adc": 1.0}, {"b": np.ones((3, 1))}, "has shape"),
        ({"S0": np.ones(2), "adc": 1.0}, {"b": np.ones((2, 4))}, "has shape"),
    ],
)
def test_wrong_calls_are_told_in_one_line(theta, protocol, message):
    with pytest.raises(InputError, match=message) as caught:
        equations.mono_exponential.signal(theta, protocol)
    assert "\n" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    T1=st.floats(0.05, 3.0),
    T2=st.floats(5e-3, 0.3),
    TE=st.floats(0.0, 0.1),
    TM=st.floats(0.0, 0.3),
    TR=st.floats(0.5, 5.0),
    share=st.floats(0.0, 0.9),
    efficiency=st.floats(0.0, 1.0),
    angle=st.floats(0.05, 3.0),
)
def test_relaxation_against_the_magnetisation_followed_step_by_step(T1, T2, TE, TM, TR, share, efficiency, angle):
    """A witness without formula: Mz is recovered, flipped and inverted event by event until it repeats."""

    def recover(mz, t):
        return 1.0 - (1.0 - mz) * np.exp(-t / T1)

    def steady(cycle, n=30000):
        mz, signal = 1.0, 0.0
        for _ in range(n):
            mz, signal, last = *cycle(mz), signal
            if signal == last:
                break
        return signal

    def hahn(mz):  # 90, 180 at TE/2, echo at TE, recovery until TR
        inverted = -recover(0.0, TE / 2)
        return recover(inverted, TR - TE / 2), mz * np.exp(-TE / T2)

    def steam(mz):  # 90, TE/2, 90, TM, 90: what the second pulse stores, half of it, is recalled by the third
        stored = mz / 2 * np.exp(-TE / 2 / T2) * np.exp(-TM / T1)
        return recover(0.0, TR - TM - TE / 2), stored * np.exp(-TE / 2 / T2)

    TI = share * TR

    def inversion(mz):  # inversion, TI, 90 (read), recovery until the next inversion
        at_readout = recover((1.0 - 2.0 * efficiency) * mz, TI)
        return recover(0.0, TR - TI), at_readout

    short = TR / 50

    def flash(mz):
        return recover(mz * np.cos(angle), short), mz * np.sin(angle) * np.exp(-TE / T2)

    one = {"S0": 1.0, "T1": T1, "T2": T2}
    got = equations.spin_echo.signal(one, {"TE": TE, "TR": TR})[0, 0]
    assert got == pytest.approx(steady(hahn), rel=1e-11, abs=1e-13)
    got = equations.stimulated_echo.signal(one, {"TE": TE, "TM": TM, "TR": TR})[0, 0]
    assert got == pytest.approx(steady(steam), rel=1e-11, abs=1e-13)
    theta = {"S0": 1.0, "T1": T1, "efficiency": efficiency}
    got = equations.inversion_recovery.signal(theta, {"TI": TI, "TR": TR})[0, 0]
    assert got == pytest.approx(steady(inversion), rel=1e-11, abs=1e-12)
    setting = {"flip_angle": angle / 0.9, "TR": short, "TE": TE, "B1": 0.9}
    got = equations.spoiled_gradient_echo.signal({"S0": 1.0, "T1": T1, "R2star": 1 / T2}, setting)[0, 0]
    assert got == pytest.approx(steady(flash), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["h0", "h1", "t0", "i", "x", "y", "jac", "theta", "LANES", "rows", "q0", "kernel"])
def test_a_quantity_may_bear_any_name(name):
    formula = f"S0*exp(-b*{name}) + S0*b*exp(-b*{name})*exp(-2*c) + c*sqrt(c)"
    unknowns = (Quantity("S0", "1", 0, 1, "scale"), Quantity(name, "1", 0, 1, "rate"))
    named = Equation("named", "Named", formula, unknowns, (b, Quantity("c", "1", 0, 1, "constant")), "test")
    at, c = np.array([0.3, 0.7]), 0.2
    decay = 0.5 * np.exp(-at * 0.4) * (1 + at * np.exp(-2 * c))
    theta, protocol = {"S0": 0.5, name: 0.4}, {"b": at, "c": c}
    np.testing.assert_allclose(named.signal(theta, protocol)[0], decay + c * np.sqrt(c), rtol=1e-14)
    np.testing.assert_allclose(named.jacobian(theta, protocol)[0, :, 1], -at * decay, rtol=1e-13)


@pytest.mark.parametrize("formula", ["S0*(b", "S0*lambda", "erf(b*S0)", "Max(b, S0)", "unheard(b)", "S0*z"])
def test_a_formula_without_a_kernel_is_told_in_one_line(formula):
    wrong = Equation("wrong", "Wrong", formula, (Quantity("S0", "1", 0, 1, "scale"),), (b,), "test")
    with pytest.raises(InputError, match="equation wrong") as caught:
        wrong.signal({"S0": 1.0}, {"b": 1.0})
    assert "\n" not in str(caught.value)
