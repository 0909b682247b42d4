"""Fields of loops against closed forms, and noise of coils around a conducting sphere against its exact solution."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.acquisition.fields import coils, loops
from bonemri.simulator.acquisition.fields.grid import Grid
from bonemri.simulator.acquisition.fields.loops import MU0, Loop, Polygon, rectangle
from bonemri.simulator.acquisition.kspace import acquire as kspace
from bonemri.simulator.acquisition.kspace.coil_combination import combine

RNG = np.random.default_rng(1990)
NORMALS = [(0, 0, 1), (0, 1, 0), (1, -2, 3)]


def away(loop: Loop, count: int, distance: float = 1.2) -> np.ndarray:
    """Random places around a loop, none near its wire."""
    place = np.asarray(loop.centre) + loop.radius * RNG.uniform(-2, 2, (50 * count, 3))
    wire = loop.path(400)
    apart = np.array([np.linalg.norm(wire - p, axis=1).min() for p in place])
    return place[apart > 0.3 * distance * loop.radius][:count]


def derivative(function, place, step):
    """Central differences of fourth order: [.., component, axis]."""
    columns = []
    for axis in np.eye(3):
        shares = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
        terms = [w * function(place + n * step * axis) for n, w in shares]
        columns.append(sum(terms) / step)
    return np.stack(columns, axis=-1)


def curl(d):
    return np.stack([d[..., 2, 1] - d[..., 1, 2], d[..., 0, 2] - d[..., 2, 0], d[..., 1, 0] - d[..., 0, 1]], axis=-1)


# ---- loops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normal", NORMALS)
def test_field_on_the_axis(normal):
    a, n = 0.07, np.asarray(normal) / np.linalg.norm(normal)
    loop = Loop((0.01, -0.02, 0.03), normal, a)
    z = np.array([-0.5, -0.07, 0.0, 0.001, 0.1, 2.0])
    expected = MU0 * a**2 / (2 * (a**2 + z**2) ** 1.5)
    np.testing.assert_allclose(loop.field(np.array(loop.centre) + z[:, None] * n), expected[:, None] * n, rtol=1e-13,
                               atol=1e-16 * expected.max())  # fmt: skip
    assert np.abs(loop.potential(np.array(loop.centre) + z[:, None] * n)).max() < 1e-15 * MU0


@pytest.mark.parametrize("normal", NORMALS)
def test_far_away_a_loop_is_a_dipole(normal):
    """The next term is smaller by (a/r)^2 times a number of order 1: halved distance, four times the error."""
    loop = Loop((0.0, 0.0, 0.0), normal, 0.05)
    moment = math.pi * loop.radius**2 * np.asarray(normal) / np.linalg.norm(normal)
    direction = np.array([[0.3, 0.5, 0.8], [1.0, 0.1, -0.2], [-0.2, 0.9, 0.4]])
    errors = []
    for distance in (2.0, 1.0):
        r = distance * direction / np.linalg.norm(direction, axis=1)[:, None]
        dipole = MU0 / (4 * math.pi) * (3 * r * (r @ moment)[:, None] / distance**5 - moment / distance**3)
        potential = MU0 / (4 * math.pi) * np.cross(moment, r) / distance**3
        size = np.linalg.norm(dipole, axis=1)
        errors.append(np.linalg.norm(loop.field(r) - dipole, axis=1) / size)
        assert np.abs(loop.potential(r) - potential).max() < 3 * (0.05 / distance) ** 2 * np.abs(potential).max()
    assert (errors[0] < 3 * (0.05 / 2.0) ** 2).all()
    np.testing.assert_allclose(errors[1] / errors[0], 4.0, rtol=0.02)


@pytest.mark.parametrize("conductor", [
    Loop((0.0, 0.01, 0.0), (1, -2, 3), 0.05),
    Polygon(tuple(map(tuple, Loop((0.0, 0.01, 0.0), (1, -2, 3), 0.05).path(5).tolist()))),
])  # fmt: skip
def test_field_has_no_source_and_no_curl(conductor):
    """Away from the wire. Fourth-order differences of step h err by about (h/d)^4, with d the distance of the wire,
    .36 radii at least: 1e-6 of the field's gradients at h = .01 radii."""
    place = away(Loop((0.0, 0.01, 0.0), (1, -2, 3), 0.05), 40)
    d = derivative(conductor.field, place, 5e-4)
    size = np.abs(d).max(axis=(1, 2))
    assert (np.abs(np.trace(d, axis1=1, axis2=2)) < 1e-5 * size).all()
    assert (np.abs(curl(d)).max(axis=1) < 1e-5 * size).all()
    a = derivative(conductor.potential, place, 5e-4)
    assert (np.abs(np.trace(a, axis1=1, axis2=2)) < 1e-5 * np.abs(a).max(axis=(1, 2))).all()  # Coulomb's gauge
    field = conductor.field(place)
    assert (np.abs(curl(a) - field).max(axis=1) < 1e-5 * np.linalg.norm(field, axis=1)).all()


def test_a_polygon_of_many_sides_is_a_circle():
    """Inscribed polygons of n sides fall short by 2/3 (pi/n)^2 in area: second order, so that Richardson's
    extrapolation from n and 2n leaves fourth order."""
    loop = Loop((0.01, 0.0, 0.02), (2, 1, -1), 0.06)
    place = away(loop, 30)
    for name in ("field", "potential"):
        exact = getattr(loop, name)(place)
        size = np.linalg.norm(exact, axis=1).max()
        found = [getattr(Polygon(tuple(map(tuple, loop.path(n).tolist()))), name)(place) for n in (100, 200)]
        errors = [np.abs(f - exact).max() / size for f in found]
        assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)
        assert np.abs((4 * found[1] - found[0]) / 3 - exact).max() / size < 1e-5


@pytest.mark.parametrize("place", [(1e-7, 0.3), (1e-3, 20.0), (0.4, -0.2), (0.999, 1e-3), (50.0, 0.0), (3.0, 200.0)])
def test_elliptic_integrals(place):
    """Near the axis, near the wire and far away, against the textbook form in 40 digits (Jackson; Smythe 7.10)."""
    import mpmath as mp

    with mp.workdps(40):
        rho, z = (mp.mpf(float(v)) for v in place)
        far, near = (1 + rho) ** 2 + z**2, (1 - rho) ** 2 + z**2
        m = 4 * rho / far
        K, E = mp.ellipk(m), mp.ellipe(m)
        scale = mp.mpf(MU0) / (2 * mp.pi * mp.sqrt(far))
        along = scale * (K + (1 - rho**2 - z**2) / near * E)
        across = scale * z / rho * (-K + (1 + rho**2 + z**2) / near * E)
        around = mp.mpf(MU0) / mp.pi * mp.sqrt(1 / (rho * m)) * ((1 - m / 2) * K - E)
        expected = [float(across), float(along), float(around)]
    loop = Loop((0.0, 0.0, 0.0), (0, 0, 1), 1.0)
    field, potential = loop.field((place[0], 0.0, place[1])), loop.potential((place[0], 0.0, place[1]))
    # rounding, enlarged near the wire by the difference 1 - m, where it is 1e-6
    np.testing.assert_allclose([field[0], field[2], potential[1]], expected, rtol=1e-9 if place[0] == 0.999 else 1e-13)


def test_mutual_inductance():
    """Of coaxial circles: Maxwell's closed form. The chord rule for n sides errs by about (pi/n)^2."""
    from scipy.special import ellipe, ellipk

    a, b, d = 0.05, 0.08, 0.03
    m = 4 * a * b / ((a + b) ** 2 + d**2)
    k = math.sqrt(m)
    expected = MU0 * math.sqrt(a * b) * ((2 / k - k) * ellipk(m) - 2 / k * ellipe(m))
    one, other = Loop((0, 0, 0), (0, 0, 1), a), Loop((0, 0, d), (0, 0, 1), b)
    assert loops.mutual_inductance(one, other) == pytest.approx(expected, rel=1e-4)
    assert loops.mutual_inductance(other, one) == pytest.approx(expected, rel=1e-4)
    tilted, square = Loop((0.02, 0.1, 0.0), (1, 1, 0), 0.04), rectangle((0, 0, 0.05), (1, 0, 1), (0, 1, 0), 0.06, 0.1)
    there = loops.mutual_inductance(tilted, square)
    assert loops.mutual_inductance(square, tilted) == pytest.approx(there, rel=1e-4)
    reversed_ = Polygon(square.corners[::-1])
    assert loops.mutual_inductance(tilted, reversed_) == pytest.approx(-there, rel=1e-12)


def test_overlapped_loops_do_not_couple():
    """Coplanar circles decouple at about .75 of a diameter (Roemer et al. 1990): the sign of M changes there."""

    def coupling(distance):
        return loops.mutual_inductance(Loop((0, 0, 0), (0, 0, 1), 0.5), Loop((distance, 0, 0), (0, 0, 1), 0.5), 2000)

    assert coupling(0.73) > 0 > coupling(0.78)


# ---- reciprocity ---------------------------------------------------------------------------------------------------


def test_reciprocity():
    """Emf = -d/dt of the flux: for M turning as exp(+i w t) it is Re[-i w (Bx - i By)(Mx + i My)], so that the weight
    has the phase of -i w s."""
    loop, place = Loop((0.02, -0.1, 0.01), (1, 2, 0.5), 0.05), np.array([0.01, 0.02, -0.03])
    b, s = loop.field(place), coils.receive(loop, place)
    w, m0 = 2 * math.pi * 64e6, 0.3 * np.exp(0.7j)
    t = np.linspace(0, 1e-8, 9)
    step = 1e-14

    def flux(time):
        m = m0 * np.exp(1j * w * time)
        return b[0] * m.real + b[1] * m.imag

    emf = -(flux(t + step) - flux(t - step)) / (2 * step)
    expected = (-1j * w * s * m0 * np.exp(1j * w * t)).real
    # the central difference errs by (w step)^2/6 = 3e-12, and rounds by 1e-16/(w step)
    np.testing.assert_allclose(emf, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_a_loop_that_sends_and_receives_sees_no_phase():
    """The RF's direction turns with the loop's field, and so does, the other way, the weight: the product is the same
    everywhere, -i times a positive number for a pulse that tips Mz."""
    from bonemri.simulator.acquisition.fields import transmit

    loop = Loop((0.02, -0.1, 0.01), (1, 2, 0.5), 0.05)
    place = RNG.uniform(-0.05, 0.05, (20, 3))
    rf = transmit.surface(loop, place)
    tipped = -1j * rf / np.abs(rf)  # RF along (cos p, sin p) brings Mz to the angle p - pi/2
    product = coils.receive(loop, place) * tipped
    np.testing.assert_allclose(product / np.abs(product), -1j, atol=1e-12)


# ---- noise ---------------------------------------------------------------------------------------------------------


def ball(n: int, radius: float) -> tuple[Grid, np.ndarray]:
    edge = 2.0 * radius / n
    grid = Grid((n + 2,) * 3, (edge,) * 3)
    return grid, np.linalg.norm(grid.positions, axis=-1) <= radius


def sphere_resistance(loops_, radius: float, highest: int = 24) -> np.ndarray:
    """Exact, of a conducting sphere: inside, B = grad chi with chi = sum c_lm r^l Y_lm, and E = i w sum c_lm
    (r x grad)(r^l Y_lm)/(l + 1), which has no divergence and no radial part, so that no charge is needed. With the
    real orthonormal Y_lm, R = sigma w^2 sum c c l (l + 1)/(l + 1)^2 a^(2l + 3)/(2l + 3); c from B_r on the surface."""
    from scipy.special import sph_harm_y

    cosine, weight = np.polynomial.legendre.leggauss(2 * highest)
    phi = np.arange(4 * highest) * math.pi / (2 * highest)
    theta = np.arccos(cosine)[:, None]
    r = np.stack(np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1)
    radial = [(loop.field(radius * r) * r).sum(-1) * weight[:, None] * math.pi / (2 * highest) for loop in loops_]
    total = np.zeros((len(loops_),) * 2)
    for l in range(1, highest):
        for m in range(l + 1):
            y = sph_harm_y(l, m, theta, phi)
            parts = [y.real] if m == 0 else [math.sqrt(2) * y.real, math.sqrt(2) * y.imag]
            for part in parts:
                c = np.array([(b * part).sum() for b in radial]) / (l * radius ** (l - 1))
                total += np.outer(c, c) * l / (l + 1) * radius ** (2 * l + 3) / (2 * l + 3)
    return total * (2 * math.pi) ** 2


def test_a_sphere_in_a_uniform_field():
    """2 pi sigma w^2 B^2 a^5/15, by the witness itself (exact) and on voxels: a loop a thousand radii wide is as good
    as uniform. n voxels across leave an error as a surface up to a quarter voxel deeper: R goes with a^5."""
    a, wide = 0.1, Loop((0, 0, 0), (1, 2, -1), 100.0)
    b = MU0 / (2 * wide.radius)
    exact = 2 * math.pi * (2 * math.pi) ** 2 * b**2 * a**5 / 15
    assert sphere_resistance([wide], a, 4)[0, 0] == pytest.approx(exact, rel=1e-5)
    for n in (16, 36):
        found = coils.noise_resistance([wide], *ball(n, a))[0, 0] / exact
        assert (1 - 0.25 * 2 / n) ** 5 < found < 1


def test_noise_of_loops_around_a_sphere():
    """Against the exact solution: resistances between those of the sphere and of one whose surface lies a quarter voxel
    deeper, correlations within .01. The normals miss the centre, so that charges matter: without them R is far off."""
    a = 0.1
    array = [Loop((0.0, 0.0, 0.14), (0, 0, 1), 0.06), Loop((0.09, 0.02, 0.13), (0.2, 0.1, 1), 0.06),
             Loop((-0.12, 0.08, 0.0), (1, 0.3, 0.3), 0.05), Loop((0.02, -0.16, 0.02), (1, 0.7, 0), 0.05)]  # fmt: skip
    assert all(np.linalg.norm(loop.path(200), axis=1).min() > 1.05 * a for loop in array)
    grid, mask = ball(30, a)
    exact, found = sphere_resistance(array, a), coils.noise_resistance(array, grid, mask)
    sd = np.sqrt(np.diag(exact))
    smaller = sphere_resistance(array, a - grid.edges[0] / 4)
    assert (np.diag(smaller) < np.diag(found)).all() and (np.diag(found) < np.diag(exact)).all()
    other = np.sqrt(np.diag(found))
    np.testing.assert_allclose(found / np.outer(other, other), exact / np.outer(sd, sd), atol=0.01)
    assert np.abs(exact[0, 1] / (sd[0] * sd[1])) > 0.2  # there is something to correlate
    place = grid.positions[mask]
    bare = (2 * math.pi) ** 2 * np.prod(grid.edges) * sum((array[3].potential(place) ** 2).sum(axis=1))
    assert bare > 1.3 * exact[3, 3]


def test_crossed_loops_are_uncorrelated():
    """Three loops around the sphere's centre at right angles: by symmetry nothing is shared, on voxels either."""
    array = [Loop((0, 0, 0), n, 0.2) for n in np.eye(3).tolist()]
    found = coils.noise_resistance(array, *ball(16, 0.1))
    np.testing.assert_allclose(found, found[0, 0] * np.eye(3), atol=1e-5 * found[0, 0])  # conjugate gradients: 1e-6
    made = coils.array(array, *ball(16, 0.1))
    np.testing.assert_allclose(made.covariance, np.eye(3), atol=1e-5)


def test_resistance_scales():
    """With conductivity, frequency squared, and the fifth power of size over the square of it: R ~ length^3 at a given
    shape, as B of 1 A goes with 1/length. Its sign turns with a loop's."""
    array = [Loop((0.0, 0.02, 0.14), (0, 0, 1), 0.06), Loop((0.0, -0.13, 0.0), (0, 1, 0.3), 0.05)]
    grid, mask = ball(12, 0.1)
    one = coils.noise_resistance(array, grid, mask)
    np.testing.assert_allclose(coils.noise_resistance(array, grid, mask, 0.6, 3.0), one * 5.4, rtol=1e-5)
    large = [Loop(tuple(2 * c for c in loop.centre), loop.normal, 2 * loop.radius) for loop in array]
    np.testing.assert_allclose(coils.noise_resistance(large, *ball(12, 0.2)), 8 * one, rtol=1e-5)
    turned = [array[0], Loop(array[1].centre, tuple(-c for c in array[1].normal), array[1].radius)]
    np.testing.assert_allclose(coils.noise_resistance(turned, grid, mask), one * [[1, -1], [-1, 1]], rtol=1e-5)


def test_a_turned_grid_sees_the_same():
    """Voxel axes in any direction of the scanner: positions and faces follow the affine."""
    array = [Loop((0.0, 0.0, 0.14), (0, 0, 1), 0.06), Loop((0.02, -0.13, 0.0), (0, 1, 0), 0.05)]
    grid, mask = ball(14, 0.1)
    affine = np.zeros((4, 4))  # x of the voxels to z of the scanner, y to -x, z to -y: no rounding
    affine[[2, 0, 1], [0, 1, 2]] = np.array([1, -1, -1]) * grid.edges[0] * 1e3
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(grid.shape[::-1]) - 1) / 2)
    affine[3, 3] = 1.0
    turned = Grid(grid.shape, affine=affine)
    np.testing.assert_allclose(np.linalg.norm(turned.positions, axis=-1), np.linalg.norm(grid.positions, axis=-1))
    np.testing.assert_allclose(
        coils.noise_resistance(array, turned, mask), coils.noise_resistance(array, grid, mask), rtol=1e-5, atol=1e-30
    )


def test_coarser_voxels_for_the_electric_field():
    """A mask too fine is brought to blocks: another staircase, of the same order."""
    from bonemri.simulator.acquisition.fields import loading

    array = [Loop((0.0, 0.0, 0.14), (0, 0, 1), 0.06), Loop((0.02, -0.13, 0.0), (0, 1, 0), 0.05)]
    grid, mask = ball(63, 0.1)
    coarse, step = loading._coarse(mask)
    assert step == 2 and mask.shape[0] % 2 == 1 and abs(coarse.sum() * 8 / mask.sum() - 1) < 0.05
    found, exact = coils.noise_resistance(array, grid, mask), sphere_resistance(array, 0.1)
    smaller = sphere_resistance(array, 0.1 - 2 * grid.edges[0] / 4)
    assert (np.diag(smaller) < np.diag(found)).all() and (np.diag(found) < np.diag(exact)).all()


# ---- arrays --------------------------------------------------------------------------------------------------------

LEG = Grid((12, 16, 16), (0.012, 0.009, 0.009))
INSIDE = np.hypot(LEG.positions[..., 0], LEG.positions[..., 1]) < 0.06


@pytest.mark.parametrize("layout", [coils.cylinder(6, 1, 0.09, 0.1), coils.spine(2, 3, centre=(0, -0.1, 0)),
                                    coils.knee()])  # fmt: skip
def test_an_array(layout):
    made = coils.array(layout, LEG, INSIDE)
    assert made.count == len(layout) and made.shape == LEG.shape
    assert np.linalg.eigvalsh(made.covariance).min() > 0
    np.testing.assert_allclose(made.covariance, made.covariance.conj().T, atol=1e-15)
    # the definition of the scale: mean diagonal 1, SNR of the median voxel that of one uniform coil
    assert np.diag(made.covariance).real.mean() == pytest.approx(1.0, rel=1e-12)
    assert np.median(made.snr[INSIDE]) == pytest.approx(1.0, rel=1e-12)
    assert not made.sensitivities[:, ~INSIDE].any()
    quieter = coils.array(layout, LEG, INSIDE, electronics=0.0)
    assert np.abs(quieter.correlation - np.eye(made.count)).max() > np.abs(made.correlation - np.eye(made.count)).max()


def test_electronics_alone_leaves_no_correlation():
    made = coils.array(coils.cylinder(4, 1, 0.09, 0.1), LEG, INSIDE, electronics=1e9)
    np.testing.assert_allclose(made.covariance, np.eye(4), atol=1e-8)


def test_a_cylinder_of_coils_is_symmetric():
    """Four coils around a round leg: each sees what its neighbour sees, turned by a quarter, and a real weight turns
    its phase with it: s(R r) = exp(-i pi/2) s(r)."""
    made = coils.array(coils.cylinder(4, 1, 0.09, 0.1), LEG, INSIDE)
    magnitude = np.abs(made.sensitivities)
    quarter = [k for k in (1, 3) if np.allclose(np.rot90(magnitude[0], axes=(1, 2)), magnitude[k])]
    assert len(quarter) == 1
    back = -1j if quarter[0] == 1 else 1j
    turned = np.rot90(made.sensitivities[0], axes=(1, 2))
    phase = made.sensitivities[quarter[0]][INSIDE] / turned[INSIDE]
    np.testing.assert_allclose(np.abs(phase), 1.0, rtol=1e-9)
    np.testing.assert_allclose(phase, phase[0], atol=1e-9)
    assert phase[0] == pytest.approx(back, abs=1e-9) or phase[0] == pytest.approx(-back, abs=1e-9)
    diagonal = np.diag(made.covariance).real
    np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-5)


def test_spine_coils_fade_with_depth():
    made = coils.array(coils.spine(2, 3, centre=(0, -0.1, 0)), LEG, INSIDE)
    column = made.snr[6, :, 8]
    deep = column[INSIDE[6, :, 8]]
    assert (np.diff(deep) < 0).all()  # y grows to the front, away from the coils


def test_layouts():
    around = coils.cylinder(8, 2, 0.1, 0.2, centre=(0.01, 0.02, 0.03))
    centres = np.array([loop.centre for loop in around]) - (0.01, 0.02, 0.03)
    np.testing.assert_allclose(np.hypot(centres[:, 0], centres[:, 1]), 0.1)
    assert set(np.round(centres[:, 2], 9).tolist()) == {-0.05, 0.05}
    apart = np.linalg.norm(centres[0] - centres[1])
    assert apart / (2 * around[0].radius) == pytest.approx(0.75)
    inwards = np.array([loop.normal for loop in around])
    np.testing.assert_allclose((inwards[:, :2] * centres[:, :2]).sum(axis=1), -0.1)
    flat = np.concatenate([np.array(loop.corners) for loop in coils.spine(4, 3, width=0.36, length=0.48)])
    np.testing.assert_allclose(flat.min(axis=0), (-0.18, -0.12, -0.24))
    np.testing.assert_allclose(flat.max(axis=0), (0.18, -0.12, 0.24))
    assert all(loop.field((0.0, 0.5, 0.0))[1] > 0 for loop in coils.spine())


# ---- Coils ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4])
def test_uniform(count):
    made = coils.uniform(count, (2, 3, 4))
    np.testing.assert_allclose((np.abs(made.sensitivities) ** 2).sum(axis=0), 1.0)
    np.testing.assert_allclose(made.snr, 1.0)
    np.testing.assert_array_equal(made.covariance, np.eye(count))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5))
def test_snr_is_that_of_the_best_weights(seed, count):
    """No weights give more signal over noise than snr says, and those of `combine` just that."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)  # noqa: E731
    mixing = draw(count, count) + 2 * np.eye(count)
    made = coils.Coils(draw(count, 1, 1, 2), mixing @ mixing.conj().T)
    s, best = made.sensitivities[:, 0, 0, 0], made.snr[0, 0, 0]
    psi = made.noise_covariance(1.0)
    np.testing.assert_allclose(made.noise_covariance(3.0), 9 * psi)
    units = np.eye(count).reshape(count, count, 1, 1, 1) * np.ones((1, 1, 1, 2))
    matched = combine(units, made.sensitivities, psi)[:, 0, 0, 0].conj()

    def ratio(weights):
        return abs(weights.conj() @ s) / math.sqrt((weights.conj() @ psi @ weights).real)

    assert ratio(matched) == pytest.approx(best, rel=1e-9)
    assert all(ratio(draw(count)) <= best * (1 + 1e-12) for _ in range(10))


def test_noise_of_an_array_is_what_its_snr_says():
    """Signal 1 everywhere, noise drawn with the covariance, combined: its SD is noise_sd over snr in each voxel."""
    made = coils.array(coils.cylinder(4, 1, 0.09, 0.1), LEG, INSIDE)
    draws, sd = 200, 0.3
    images = np.broadcast_to(made.sensitivities, (draws, *made.sensitivities.shape))
    noisy = kspace.add_noise(images, made.noise_covariance(sd), np.random.default_rng(5))
    together = combine(noisy, made.sensitivities, made.noise_covariance(sd))
    z, y, x = np.nonzero(INSIDE)
    error = (together[:, z, y, x] - 1) * made.snr[z, y, x] / sd
    # of draws x voxels independent numbers in two channels, voxels being apart: five standard errors
    assert (np.abs(error) ** 2).mean() == pytest.approx(2.0, abs=5 * 2 / math.sqrt(error.size))


# ---- bad input -----------------------------------------------------------------------------------------------------

ONES = np.ones((2, 1, 2, 2))
COUNT = np.arange(8).reshape(ONES.shape)
BAD = [
    (lambda: coils.Coils(np.ones((2, 2))), "expected (coil, z, y, x)"),
    (lambda: coils.Coils(np.where(COUNT == 5, np.nan, 1)), "at (coil, z, y, x) = (1, 0, 0, 1)"),
    (lambda: coils.Coils(ONES, np.eye(3)), "expected (2, 2) finite"),
    (lambda: coils.Coils(ONES, [[1, 2], [2, 1]]), "not Hermitian and positive definite"),
    (lambda: coils.Coils(ONES, [[1, 0.5j], [0.5j, 1]]), "not Hermitian"),
    (lambda: coils.uniform(0, (1, 1, 1)), "count is 0: expected a whole number"),
    (lambda: coils.uniform(1, (1, 1, 1)).noise_covariance(-1.0), "noise_sd is -1.0"),
    (lambda: coils.array([], LEG, INSIDE), "no loop"),
    (lambda: coils.array(coils.knee(), LEG, INSIDE[:3]), "mask has shape (3, 16, 16)"),
    (lambda: coils.array(coils.knee(), LEG, 0 * INSIDE), "mask holds no voxel"),
    (lambda: coils.array(coils.knee(), LEG, INSIDE, electronics=-1), "electronics is -1"),
    (lambda: coils.cylinder(0, 1, 0.1, 0.1), "cylinder: count is 0"),
    (lambda: coils.cylinder(4, 1, -0.1, 0.1), "cylinder: radius is -0.1"),
    (lambda: coils.spine(2, 2, overlap=1.0), "spine: overlap is 1.0"),
    (lambda: Loop((0, 0, 0), (0, 0, 0), 1.0), "normal is (0, 0, 0)"),
    (lambda: Loop((0, 0, math.nan), (0, 0, 1), 1.0), "centre is (0, 0, nan)"),
    (lambda: Loop((0, 0, 0), (0, 0, 1), 0.0), "radius is 0.0"),
    (lambda: Loop((0, 0, 0), (0, 0, 1), 1.0).field((1.0, 0.0, 0.0)), "lies on the wire"),
    (lambda: Loop((0, 0, 0), (0, 0, 1), 1.0).field((1.0, 0.0)), "expected (..., 3)"),
    (lambda: Polygon(((0, 0, 0), (1, 0, 0))), "2 corners"),
    (lambda: Polygon(((0, 0, 0), (1, 0, 0), (1, 0, 0))), "two corners in a row"),
    (lambda: rectangle((0, 0, 0), (0, 0, 1), (1, 0, 0), 1, 1).potential((0.5, 0.0, 0.0)), "lies on the wire"),
    (lambda: rectangle((0, 0, 0), (0, 0, 1), (0, 0, 1), 1, 1), "at right angles to the normal"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
