"""Shim terms, the field after a shim, transmit fields, and the scanner that gathers them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.acquisition.fields import coils, imperfections, transmit
from bonemri.simulator.acquisition.fields import main_field as fields
from bonemri.simulator.acquisition.fields.grid import Grid
from bonemri.simulator.acquisition.fields.loops import Loop
from bonemri.simulator.acquisition.fields.main_field import SHIMS
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import susceptibility

RNG = np.random.default_rng(1984)
PLACES = RNG.uniform(-0.1, 0.1, (60, 3))
CUBE = Grid((20, 22, 24), (4e-3, 3e-3, 3e-3))


# ---- the grid ------------------------------------------------------------------------------------------------------


def test_a_grid_is_centred():
    place = CUBE.positions
    assert place.shape == (20, 22, 24, 3)
    np.testing.assert_allclose(place.mean(axis=(0, 1, 2)), 0.0, atol=1e-16)
    np.testing.assert_allclose(place[1, 0, 0] - place[0, 0, 0], (0, 0, 4e-3), atol=1e-16)
    np.testing.assert_allclose(place[0, 0, 1] - place[0, 0, 0], (3e-3, 0, 0), atol=1e-16)


def test_a_phantom_says_where_its_voxels_lie():
    from bonemri import phantoms

    bone = phantoms.marrow_block(resolution=2e-3)
    pools = bone.pools
    shape = [pools.sizes[dim] for dim in "zyx"]
    grid = Grid.of(shape, pools.attrs)
    for axis, dim in enumerate("xyz"):
        found = np.moveaxis(grid.positions[..., axis], 2 - axis, 0).reshape(shape[2 - axis], -1)
        np.testing.assert_allclose(found, np.repeat(pools[dim].values[:, None], found.shape[1], axis=1), atol=1e-9)
    assert grid.edges == pytest.approx(tuple(pools.attrs["voxel_size"]))


# ---- shim ----------------------------------------------------------------------------------------------------------


def test_shim_terms_are_harmonic():
    """Each obeys Laplace's equation and is of its degree: polynomials to the third degree, so that second differences
    are exact, but for rounding."""
    h = 0.02
    for name, term in SHIMS.items():
        at = lambda p, term=term: term.harmonic(*p.T)  # noqa: E731
        laplace = sum(at(PLACES + h * e) + at(PLACES - h * e) - 2 * at(PLACES) for e in np.eye(3)) / h**2
        assert np.abs(laplace).max() < 1e-12, name
        np.testing.assert_allclose(at(2 * PLACES), 2**term.order * at(PLACES), err_msg=name)


def test_shim_terms_are_all_harmonics_of_their_order():
    """2 n + 1 of them, orthogonal over a sphere, with z^(n-m) rho^m cos(m phi) or sin(m phi) leading."""
    cosine, weight = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * math.pi / 8
    sine = np.sqrt(1 - cosine**2)[:, None]
    x, y, z = sine * np.cos(phi), sine * np.sin(phi), np.broadcast_to(cosine[:, None], (8, 16))
    values = {name: term.harmonic(x, y, z) for name, term in SHIMS.items()}
    for order in range(4):
        names = [name for name, term in SHIMS.items() if term.order == order]
        assert len(names) == 2 * order + 1
        gram = [[(values[a] * values[b] * weight[:, None]).sum() for b in names] for a in names]
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-14)
    tiny = 1e-5
    for name, m, kind in (("Z2", 0, np.cos), ("ZX", 1, np.cos), ("XY", 2, np.sin), ("Z2Y", 1, np.sin),
                          ("Z(X2-Y2)", 2, np.cos), ("X3", 3, np.cos), ("Y3", 3, np.sin)):  # fmt: skip
        angle = 0.3
        found = SHIMS[name].harmonic(tiny * np.cos(angle), tiny * np.sin(angle), np.float64(1.0))
        assert found == pytest.approx(tiny**m * kind(m * angle), rel=1e-6), name


def test_shim_field_has_the_scanners_units():
    """1 uT/m at 10 cm is .1 uT: 4.2577 Hz."""
    assert fields.shim_field({"X": 1.0}, [0.1, 0.0, 0.0]) == pytest.approx(4.2577478518)
    assert fields.shim_field({"Z0": 1.0, "Z2": -2.0}, [0, 0, 0.5]) == pytest.approx(0.5 * PROTON * 1e-6)
    assert fields.shim_field({"X": 1.0}, [0.1, 0.0, 0.0], "31P") == pytest.approx(1.7236, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.integers(0, 3))
def test_a_shim_takes_away_what_it_can(seed, order):
    """A field of its own terms vanishes; what it leaves of any other is orthogonal to all of them, so that no other
    strengths leave less."""
    rng = np.random.default_rng(seed)
    names = [name for name, term in SHIMS.items() if term.order <= order]
    given_ = {name: rng.normal() * 10.0 ** SHIMS[name].order for name in names}
    field = fields.shim_field(given_, CUBE.positions)
    mask = rng.random(CUBE.shape) < 0.5
    found = fields.shim(field, CUBE.positions, mask, order)
    assert list(found) == names
    np.testing.assert_allclose([found[n] for n in names], [-given_[n] for n in names], rtol=1e-8, atol=1e-9)
    rough = np.where(mask, field + rng.normal(size=CUBE.shape), np.nan)
    left = rough + fields.shim_field(fields.shim(rough, CUBE.positions, mask, order), CUBE.positions)
    for name in names:
        column = SHIMS[name].harmonic(*CUBE.positions[mask].T)
        assert abs(left[mask] @ column) < 1e-9 * np.linalg.norm(left[mask]) * np.linalg.norm(column)


def test_a_slice_can_be_shimmed():
    """Terms that a slice cannot tell apart share the work: the field is gone all the same."""
    grid = Grid((1, 20, 20), (5e-3,) * 3)
    field = fields.shim_field({"X": 3.0, "XY": 20.0, "Z2": 5.0}, grid.positions)
    found = fields.shim(field, grid.positions, order=2)
    np.testing.assert_allclose(fields.shim_field(found, grid.positions), -field, atol=1e-9 * np.abs(field).max())


def test_a_scanner_has_limits():
    field = fields.shim_field({"X": 3.0, "Z2": 200.0}, CUBE.positions)
    found = fields.shim(field, CUBE.positions, limits={"Z2": 50.0, "X": 10.0})
    assert found["Z2"] == pytest.approx(-50.0)
    assert abs(found["X"] + 3.0) < 1e-6


def test_weights_are_those_of_a_mask():
    field = RNG.normal(size=CUBE.shape)
    mask = RNG.random(CUBE.shape) < 0.3
    by_mask, by_weight = (fields.shim(field, CUBE.positions, m, 1) for m in (mask, 2.5 * mask))
    assert by_mask == pytest.approx(by_weight)


def test_the_field_beside_a_sphere():
    """Susceptibility through the engine, and what a shim of each order leaves over a ball above the sphere: around its
    axis a dipole is the sum over n of (n + 1)(n + 2)/2 (r/d)^n P_n, of which the shim takes the first orders. Voxels of
    a sixth of the ball's radius make it a rough ball: a tenth. A shim of first order leaves no linear field."""
    grid = Grid((24, 24, 24), (5e-3,) * 3, None)
    centre = np.array([0.0, 0.0, -0.04])
    r = np.linalg.norm(grid.positions - centre, axis=-1)
    chi = np.clip(0.5 + (0.015 - r) / 5e-3, 0, 1) * 9.4 - 9.05  # air in water
    region = np.linalg.norm(grid.positions - (0, 0, 0.02), axis=-1) < 0.03
    bare = fields.b0(chi, grid, 3.0, outside=-9.05)
    np.testing.assert_allclose(bare, susceptibility.to_hertz(susceptibility.field(chi, 5e-3, outside=-9.05), 3.0))
    left = [fields.b0(chi, grid, 3.0, outside=-9.05, mask=region, order=n)[region].std() for n in (0, 1, 2, 3)]
    assert left[0] == pytest.approx(bare[region].std())
    distance, radius, moment = 0.06, 0.03, (chi + 9.05).sum() * 5e-3**3 / (4 * math.pi)
    orders = np.arange(30)
    share = (orders + 1) * (orders + 2) / 2 * (radius / distance) ** orders
    square = 3 / ((2 * orders + 1) * (2 * orders + 3)) * share**2  # mean over the ball of (r^n P_n)^2
    scale = susceptibility.to_hertz(2 * moment / distance**3, 3.0)
    expected = [scale * math.sqrt(square[n + 1 :].sum()) for n in range(4)]
    np.testing.assert_allclose(left, expected, rtol=0.1)
    shimmed = fields.b0(chi, grid, 3.0, outside=-9.05, mask=region, order=1)
    columns = np.column_stack([np.ones(region.sum()), grid.positions[region]])
    slope = np.linalg.lstsq(columns, shimmed[region], rcond=None)[0]
    before = np.linalg.lstsq(columns, bare[region], rcond=None)[0]
    assert np.abs(before[3]) > 100  # Hz/m
    assert np.abs(slope).max() < 1e-9 * np.abs(before).max()


def test_b0_follows_the_affine():
    """The same object on voxels that lie turned in the scanner: B0 stays along the scanner's z."""
    grid = Grid((16, 16, 16), (4e-3,) * 3)
    chi = np.zeros(grid.shape)
    chi[6:10, 7:9, 7:9] = 1.0
    affine = np.zeros((4, 4))
    affine[[2, 0, 1], [0, 1, 2]] = 4.0  # voxel x along the scanner's z, y along x, z along y
    affine[:3, 3] = -30.0
    affine[3, 3] = 1.0
    turned = Grid(grid.shape, affine=affine)
    found = fields.b0(chi.transpose(2, 0, 1), turned, 1.5, outside=0.0)
    straight = fields.b0(chi, grid, 1.5, outside=0.0)
    # voxel (i, j, k) of `turned` lies at the scanner's (x, y, z) = (j, i, k)
    lies = np.round((turned.positions - turned.positions[0, 0, 0]) / 4e-3).astype(int)
    object_ = np.zeros(grid.shape)
    object_[lies[..., 2], lies[..., 1], lies[..., 0]] = chi.transpose(2, 0, 1)
    expected = fields.b0(object_, grid, 1.5, outside=0.0)
    np.testing.assert_allclose(found, expected[lies[..., 2], lies[..., 1], lies[..., 0]], atol=1e-10)
    assert np.abs(straight).max() > 1


# ---- transmit ------------------------------------------------------------------------------------------------------

BODY = Grid((4, 40, 60), (1e-2, 6e-3, 6e-3))
TRUNK = (BODY.positions[..., 0] / 0.17) ** 2 + (BODY.positions[..., 1] / 0.11) ** 2 < 1


@settings(max_examples=20, deadline=None)
@given(mean=st.floats(0.6, 1.4), variation=st.floats(-0.25, 0.25))
def test_brightening_has_its_mean_and_variation(mean, variation):
    b1 = transmit.brightening(BODY.positions, TRUNK, mean=mean, variation=variation)
    assert b1[TRUNK].mean() == pytest.approx(mean)
    assert b1[TRUNK].std() == pytest.approx(abs(variation) * mean, abs=1e-12)
    centre, rim = b1[2, 20, 30], b1[2, 20, 4]
    assert (centre - rim) * np.sign(variation) >= 0
    assert b1.min() >= 0


def test_a_long_wave_is_uniform():
    """No conductivity, and a wavelength that grows: the departure is (k rho)^2/4, and ends at nothing."""
    bare = transmit.birdcage(BODY.positions, 3.0, conductivity=0.0, permittivity=0.0)
    np.testing.assert_array_equal(bare, 1.0)
    rho = np.hypot(BODY.positions[..., 0], BODY.positions[..., 1])
    for permittivity in (1.0, 1e-2):
        k = transmit.wave_number(0.1, 0.0, permittivity)
        found = transmit.birdcage(BODY.positions, 0.1, conductivity=0.0, permittivity=permittivity)
        assert np.abs(found - (1 - (k * rho) ** 2 / 4)).max() < abs(k * rho.max()) ** 4 / 64 * 1.01 + 1e-15


def test_wave_number():
    """In pure water at 3 T the wave is about 26 cm long; in a good conductor k = (1 - i)/skin depth."""
    k = transmit.wave_number(3.0, 0.0, 80.0)
    assert 2 * math.pi / k.real == pytest.approx(299792458 / (3 * PROTON * math.sqrt(80.0)))
    assert k.imag == 0 and 0.25 < 2 * math.pi / k.real < 0.27
    depth = math.sqrt(2 / (2 * math.pi * 3 * PROTON * 4e-7 * math.pi * 1e6))
    assert transmit.wave_number(3.0, 1e6, 1.0) == pytest.approx((1 - 1j) / depth, rel=1e-6)
    low, high = (transmit.wave_number(b, 0.0, 50.0) for b in (1.5, 3.0))
    assert high == pytest.approx(2 * low)


def test_birdcage_obeys_helmholtz():
    """(Laplace + k^2) B1+ = 0, and B1+ = (Bx + i By)/2 of the curl of Az = J1(k rho) exp(-i phi)."""
    from scipy.special import jv

    k = transmit.wave_number(3.0, 0.6, 60.0)
    place = np.column_stack([RNG.uniform(-0.15, 0.15, (50, 2)), np.zeros(50)])
    b1 = lambda p: transmit.birdcage(p, 3.0, conductivity=0.6, permittivity=60.0)  # noqa: E731
    h = 1e-3
    laplace = sum(b1(place + h * e) + b1(place - h * e) - 2 * b1(place) for e in np.eye(3)[:2]) / h**2
    # second differences err by h^2 k^4/12 and less: 4e-5 of k^2
    assert np.abs(laplace + k**2 * b1(place)).max() < 2e-4 * abs(k) ** 2 * np.abs(b1(place)).max()

    def potential(p):
        return jv(1, k * np.hypot(p[:, 0], p[:, 1])) * np.exp(-1j * np.arctan2(p[:, 1], p[:, 0]))

    h = 1e-5
    dx, dy = ((potential(place + h * e) - potential(place - h * e)) / (2 * h) for e in np.eye(3)[:2])
    plus = (dy + 1j * -dx) / 2  # Bx = dA/dy, By = -dA/dx
    np.testing.assert_allclose(plus / (-0.5j * k), b1(place), atol=1e-6)


def test_conductivity_darkens_the_centre_and_permittivity_brightens_it():
    centre, rim = np.zeros(3), np.array([0.1, 0.0, 0.0])
    for conductivity, permittivity, brighter in ((0.0, 70.0, True), (3.0, 1.0, False)):
        material = {"conductivity": conductivity, "permittivity": permittivity}
        b1 = [abs(transmit.birdcage(p, 3.0, **material)) for p in (centre, rim)]
        assert bool(b1[0] > b1[1]) == brighter
    # with loss the rim leads, as the wave comes from outside: the phase grows by w mu sigma rho^2/4
    phase = np.angle(transmit.birdcage(0.1 * rim, 3.0, conductivity=0.5, permittivity=1.0))
    assert phase == pytest.approx(2 * math.pi * 3 * PROTON * 4e-7 * math.pi * 0.5 * 0.01**2 / 4, rel=1e-3)


def test_calibrated_and_surface():
    loop = Loop((0.0, -0.14, 0.0), (0, 1, 0), 0.06)
    raw = transmit.surface(loop, BODY.positions)
    assert np.abs(raw[2, 20, 30]) == pytest.approx(np.hypot(*loop.field(BODY.positions[2, 20, 30])[:2]) / 2)
    b1 = transmit.calibrated(raw, TRUNK, 0.9)
    assert np.abs(b1[TRUNK]).mean() == pytest.approx(0.9)
    np.testing.assert_allclose(b1 / raw, (b1 / raw)[0, 0, 0])


# ---- the scanner ---------------------------------------------------------------------------------------------------


def test_an_ideal_scanner():
    ideal = Scanner()
    assert ideal.is_ideal and ideal.shape is None
    ideal.check((2, 3, 4))
    np.testing.assert_array_equal(ideal.offset((2, 3, 4)), 0.0)
    np.testing.assert_array_equal(ideal.transmit((2, 3, 4)), 1.0)
    for fault in ({"delays": 1e-6}, {"concomitant": True}, {"odd_even_phase": 0.1}, {"b0": np.zeros((1, 1, 1))},
                  {"eddy_currents": [imperfections.EddyCurrent(0.1, 0.01)]}):  # fmt: skip
        assert not Scanner(**fault).is_ideal


def test_maps_may_be_empty_outside_the_object():
    b0 = np.array([[[1.0, np.nan]]])
    scanner = Scanner(b0=b0, b1=1.2 * b0, coils=coils.uniform(2, (1, 1, 2)))
    scanner.check((1, 1, 2), [[[True, False]]])
    np.testing.assert_array_equal(scanner.offset((1, 1, 2)), [[[1.0, 0.0]]])
    np.testing.assert_array_equal(scanner.transmit((1, 1, 2)), [[[1.2, 1.0]]])
    with pytest.raises(InputError, match=re.escape("b0 is NaN at (z, y, x) = (0, 0, 1)")):
        scanner.check((1, 1, 2))


# ---- bad input -----------------------------------------------------------------------------------------------------

FIELD = np.zeros(CUBE.shape)
HOLE = np.where(np.arange(FIELD.size).reshape(FIELD.shape) == 3, np.nan, 0.0)
SHEAR = np.diag([1.0, 1.0, 1.0, 1.0]) + np.eye(4, k=1)
MAP = np.ones((2, 2, 2))
BAD = [
    (lambda: Grid((2, 2), (1, 1, 1)), "shape is (2, 2): expected three whole numbers"),
    (lambda: Grid((2, 2, 0), (1, 1, 1)), "shape is (2, 2, 0)"),
    (lambda: Grid((2, 2, 2)), "voxel_size and affine are missing"),
    (lambda: Grid((2, 2, 2), (1, 0, 1)), "voxel_size is (1, 0, 1)"),
    (lambda: Grid((2, 2, 2), (1e-3,) * 3, np.diag([2.0, 1, 1, 1])), "expected the same"),
    (lambda: Grid((2, 2, 2), affine=SHEAR), "not at right angles"),
    (lambda: Grid((2, 2, 2), affine=np.zeros((4, 4))), "an axis without length"),
    (lambda: Grid((2, 2, 2), affine=np.eye(3)), "affine has shape (3, 3)"),
    (lambda: fields.shim_field({"Z4": 1.0}, PLACES), "shim term is 'Z4': expected one of Z0, X, Y, Z, Z2"),
    (lambda: fields.shim_field({"ZX": math.nan}, PLACES), "shim term ZX is nan: expected uT/m^2"),
    (lambda: fields.shim_field({}, PLACES[:, :2]), "expected (..., 3)"),
    (lambda: fields.shim_field({}, PLACES, "13C"), "nucleus is '13C'"),
    (lambda: fields.shim(FIELD, CUBE.positions, order=4), "order is 4: expected 0 to 3"),
    (lambda: fields.shim(FIELD[:3], CUBE.positions), "field has shape (3, 22, 24)"),
    (lambda: fields.shim(HOLE, CUBE.positions, FIELD + 1), "not finite within the mask"),
    (lambda: fields.shim(FIELD, CUBE.positions, FIELD), "mask holds no voxel"),
    (lambda: fields.shim(FIELD, CUBE.positions, FIELD - 1), "of weights from 0 up"),
    (lambda: fields.shim(FIELD, CUBE.positions, limits={"Z2": 0.0}), "limit of Z2 is 0.0"),
    (lambda: fields.b0(FIELD[:3], CUBE, 3.0), "chi has shape (3, 22, 24)"),
    (lambda: fields.b0(HOLE, CUBE, 3.0), "chi is nan"),
    (lambda: transmit.brightening(PLACES, mean=0.0), "mean is 0.0"),
    (lambda: transmit.brightening(PLACES, variation=3.0), "variation is 3: expected less"),
    (lambda: transmit.brightening(PLACES[:1]), "semi_axes are [0.0, 0.0] m"),
    (lambda: transmit.birdcage(PLACES, 0.0), "field_strength is 0.0"),
    (lambda: transmit.birdcage(PLACES, 3.0, conductivity=-1.0), "conductivity is -1.0"),
    (lambda: transmit.calibrated(MAP, MAP * 0), "with a voxel at least"),
    (lambda: transmit.calibrated(MAP * 0), "that of the map 0: expected above 0"),
    (lambda: Scanner(b0=MAP[0]), "b0 is float64 of shape (2, 2)"),
    (lambda: Scanner(b0=MAP * 1j), "b0 is complex128"),
    (lambda: Scanner(b0=MAP * np.inf), "b0 is infinite"),
    (lambda: Scanner(b1=-MAP), "b1 is -1 somewhere"),
    (lambda: Scanner(b0=MAP, b1=MAP[:1]), "maps differ in shape: b0 (2, 2, 2), b1 (1, 2, 2)"),
    (lambda: Scanner(coils=MAP), "coils is ndarray: expected Coils"),
    (lambda: Scanner(delays=(1.0, 2.0)), "delays is (1.0, 2.0)"),
    (lambda: Scanner(eddy_currents=[0.1]), "eddy_currents holds float"),
    (lambda: Scanner(odd_even_phase=math.nan), "odd_even_phase is nan"),
    (lambda: Scanner(b0=MAP).check((2, 2, 3)), "b0 has shape (2, 2, 2): expected (2, 2, 3)"),
    (lambda: Scanner().check((2, 2, 3), MAP), "mask has shape (2, 2, 2)"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
