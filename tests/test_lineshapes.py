"""Lineshapes of solid pools: normalised, even, of the right width, and the super-Lorentzian as its own integral."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from bonemri.errors import InputError
from bonemri.simulator.engines import lineshapes

T2 = 15.4e-6  # s, collagen in bone, Ma 2018, doi:10.1002/mrm.26846


def orientations(offset: float, T2: float) -> float:
    """The super-Lorentzian by adaptive quadrature over the cosine of the orientation."""
    x, magic = 2 * np.pi * offset * T2, 1 / math.sqrt(3)

    def integrand(u: float) -> float:
        a = abs(3 * u * u - 1)
        return math.sqrt(2 / math.pi) / a * math.exp(-2 * (x / a) ** 2) if a > 1e-12 else 0.0

    edges = [0, magic - 0.03, magic, magic + 0.03, 1]
    parts = itertools.pairwise(edges)
    return T2 * sum(quad(integrand, a, b, epsabs=0, epsrel=1e-12, limit=400)[0] for a, b in parts)


@pytest.mark.parametrize("T2", [8e-6, T2, 1e-4])
@pytest.mark.parametrize("offset", [150.0, 2e3, 5e3, 2e4, 5e4])
def test_super_lorentzian_is_its_integral(offset, T2):
    # 96 nodes on each side of the magic angle: 3e-13 at worst, far out where little is left
    found = lineshapes.super_lorentzian(offset, T2, cutoff=0.0)
    np.testing.assert_allclose(found, orientations(offset, T2), rtol=2e-12)


@pytest.mark.parametrize("name", lineshapes.SHAPES)
def test_area_is_one(name):
    # over angular frequency, both sides; in log offset, where pole and tail are both smooth
    shape = lineshapes.SHAPES[name]
    options = {"cutoff": 0.0} if name == "super_lorentzian" else {}

    def integrand(t: float) -> float:
        return float(shape(math.exp(t), T2, **options)) * 2 * math.pi * math.exp(t)

    half = quad(integrand, math.log(1e-8), math.log(1e3 / T2), epsabs=1e-11, limit=500)[0]
    tail = 1 / (math.pi * 2 * math.pi * 1e3) if name == "lorentzian" else 0.0  # beyond 1/x^2, to 1e-11
    # the Lorentzian's next term is of order 1e-11, as is what lies below 1e-8 Hz
    assert 2 * (half + tail) == pytest.approx(1, abs=1e-9)


@given(
    name=st.sampled_from(list(lineshapes.SHAPES)),
    offset=st.floats(0, 1e5),
    T2=st.floats(5e-6, 1e-3),
)
@settings(max_examples=60, deadline=None)
def test_even_finite_and_scaled_by_T2(name, offset, T2):
    shape = lineshapes.SHAPES[name]
    value = shape(offset, T2)
    assert np.isfinite(value) and value >= 0
    assert shape(-offset, T2) == value
    # g/T2 depends on offset times T2 alone, where nothing is extrapolated at a fixed offset
    if name != "super_lorentzian" or offset > 2 * lineshapes.CUTOFF:
        np.testing.assert_allclose(shape(offset / 2, 2 * T2), 2 * value, rtol=1e-10, atol=1e-300)


def test_second_moment():
    # M2 is 1/T2^2 of the Gaussian; of the super-Lorentzian <P2^2>/T2^2 = 1/(5 T2^2)
    for name, expected in (("gaussian", 1.0), ("super_lorentzian", 0.2)):
        shape = lineshapes.SHAPES[name]
        options = {"cutoff": 0.0} if name == "super_lorentzian" else {}

        def integrand(x: float, shape=shape, options=options) -> float:
            return 2 * x * x * float(shape(x / (2 * math.pi * T2), T2, **options)) / T2

        moment = quad(integrand, 0, 60, epsabs=1e-10, limit=300)[0]
        assert moment == pytest.approx(expected, rel=1e-8)  # the quadrature's own tolerance
        np.testing.assert_allclose(lineshapes.local_field(name, T2) ** 2, moment / 3 / T2**2, rtol=1e-8)


def test_extrapolation_joins_smoothly():
    step, edge = 1.0, lineshapes.CUTOFF  # Hz
    for T2 in (8e-6, 1.2e-5, 5e-5):
        inner, at, outer = lineshapes.super_lorentzian([edge - step, edge, edge + step], T2)
        assert at == pytest.approx(float(lineshapes.super_lorentzian(edge, T2, cutoff=0.0)), rel=1e-13)
        # the slope has no jump: what is left is curvature, of the pole at most g/edge^2, times the step
        assert abs((outer - at) - (at - inner)) < 2 * at * (step / edge) ** 2
        row = lineshapes.super_lorentzian(np.linspace(-edge, edge, 101), T2)
        assert np.all(np.diff(row[:51]) > 0) and np.all(np.diff(row[50:]) < 0)  # one top, on resonance


def test_on_resonance_as_published():
    # Gloor 2008: 1.4e-5 s at a T2 of 12 us, extrapolated from 1 kHz; the convention is worth a tenth
    assert lineshapes.super_lorentzian(0.0, 12e-6) == pytest.approx(1.4e-5, rel=0.12)


def test_pole_is_infinite_and_arrays_broadcast():
    assert lineshapes.super_lorentzian(0.0, T2, cutoff=0.0) == np.inf
    offsets, times = np.array([[-2e3], [0.0], [3e4]]), np.array([1e-5, 2e-5])
    found = lineshapes.super_lorentzian(offsets, times)
    assert found.shape == (3, 2)
    assert found[2, 1] == lineshapes.super_lorentzian(3e4, 2e-5)


def test_rate_of_saturation():
    # on resonance the Lorentzian gives w1^2 T2, the fast-relaxation limit of the Bloch equations
    w1 = 2 * np.pi * 100.0
    np.testing.assert_allclose(lineshapes.saturation_rate("lorentzian", 100j, 0.0, 1e-5), w1**2 * 1e-5, rtol=1e-14)


def test_bad_input_is_told():
    with pytest.raises(InputError, match="'box': expected one of gaussian, lorentzian, super_lorentzian"):
        lineshapes.saturation_rate("box", 100.0, 0.0, T2)
    with pytest.raises(InputError, match="'lorentzian', which has no second moment: expected gaussian"):
        lineshapes.local_field("lorentzian", T2)
