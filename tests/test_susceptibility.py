"""The field of magnetised bodies against closed forms, and the decay it causes against static-dephasing theory."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.constants import PROTON
from bonemri.simulator.engines import susceptibility

DIRECTIONS = [(0, 0, 1), (1, 0, 0), (1, 2, 3), (-2, 1, 0.5)]
ROUNDING = 1e-12  # of the largest shift: 512 terms of a transform in double precision, with a margin
B0, CHI = 3.0, 1.0  # T, ppm, of the perturbers in the tests of R2'
DELTA_OMEGA = 2 * math.pi * PROTON * B0 * CHI * 1e-6 / 3  # rad/s
TIMES = np.linspace(2, 8, 7) / DELTA_OMEGA


def unit(direction) -> np.ndarray:
    return np.asarray(direction, float) / np.linalg.norm(direction)


def centred(shape, edges=(1.0, 1.0, 1.0)):
    """Coordinates z, y, x from the centre of the grid."""
    return np.ix_(*((np.arange(n) - (n - 1) / 2) * edge for n, edge in zip(shape, edges, strict=True)))


def sphere(n: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Share of each voxel that lies in a sphere (edge of the surface voxels smeared over one voxel), and radii."""
    z, y, x = centred((n, n, n))
    r = np.sqrt(z * z + y * y + x * x)
    return np.clip(0.5 + radius - r, 0, 1), r


def sphere_field(n: int, radius: float, direction) -> np.ndarray:
    z, y, x = centred((n, n, n))
    r2 = z * z + y * y + x * x
    bx, by, bz = unit(direction)
    along = (bx * x + by * y + bz * z) ** 2 / r2
    return np.where(r2 > radius**2, (3 * along - 1) / 3 * radius**3 / r2**1.5, 0.0)


# ---- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("radius", [6, 10])
def test_sphere(direction, radius):
    # the surface field reaches 2/3; the shell is 1.5 voxels on either side of the surface
    chi, r = sphere(40, radius)
    expected = sphere_field(40, radius, direction)
    found = susceptibility.field(chi, 2e-4, direction=direction, outside=0.0)
    error = np.abs(found - expected) / (2 / 3)
    assert error[r > radius + 1.5].max() < 0.02
    assert error[r < radius - 1.5].max() < 0.02
    far = r > 2 * radius  # relative to the local dipole there
    local = (r / radius) ** 3 * np.abs(found - expected) / (2 / 3)
    assert local[far].max() < 0.02


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 0, 1), (1, 1, 1), (2, -1, 3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_infinite_cylinder(direction, axis):
    """One layer of voxels, each 10^4 times as long as it is wide: a cylinder along z, y or x in free space."""
    radius, n = 6.0, 40
    shape, edges = [n, n, n], [1.0, 1.0, 1.0]
    shape[axis], edges[axis] = 1, 1e4
    place = np.stack(np.broadcast_arrays(*centred(shape))[::-1])  # x, y, z
    u = np.eye(3)[2 - axis]
    b = unit(direction)
    across = place - np.tensordot(u, np.tensordot(u, place, 1), 0)
    rho = np.sqrt((across**2).sum(axis=0))
    cosine2 = (b @ u) ** 2
    # (sin^2/2) cos(2 phi) R^2/rho^2 outside, (3 cos^2 - 1)/6 inside
    twice = 2 * np.tensordot(b, across, 1) ** 2 / rho**2 - (1 - cosine2)
    expected = np.where(rho > radius, twice / 2 * radius**2 / rho**2, (3 * cosine2 - 1) / 6)
    chi = np.clip(0.5 + radius - rho, 0, 1)
    error = np.abs(susceptibility.field(chi, edges, direction=direction, outside=0.0) - expected) / 0.5
    assert error[rho > radius + 1.5].max() < 0.02
    assert error[rho < radius - 1.5].max() < 0.02


def test_a_cuboid_is_the_sum_of_its_parts():
    """A cube of one voxel and the same cube of 5^3 have one field: every voxel is an exact cuboid, of any shape."""
    fine, coarse = np.zeros((25, 35, 35)), np.zeros((5, 7, 7))
    fine[10:15, 15:20, 15:20] = coarse[2, 3, 3] = 1.0
    b = (1.0, -2.0, 0.5)
    found = susceptibility.field(fine, (1.2, 0.4, 0.7), direction=b, outside=0.0)
    expected = susceptibility.field(coarse, (6.0, 2.0, 3.5), direction=b, outside=0.0)
    np.testing.assert_allclose(found[2::5, 2::5, 2::5], expected, atol=ROUNDING)


def test_smaller_voxels_err_less():
    def error(scale: int) -> float:
        n, radius = 20 * scale, 5 * scale
        found, r = susceptibility.field(sphere(n, radius)[0], 1.0, outside=0.0), sphere(n, radius)[1]
        away = np.abs(found - sphere_field(n, radius, (0, 0, 1)))[np.abs(r - radius) > 1.5 * scale]  # one place for all
        return float(np.sqrt((away**2).mean()))

    coarse, middle, fine = error(1), error(2), error(4)
    assert middle < coarse / 2 and fine < middle / 2  # at least first order


# ---- laws ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda b: np.linalg.norm(b) > 1e-3),
    periodic=st.booleans(),
)
def test_linear_and_indifferent_to_the_sign_of_b0(seed, shape, direction, periodic):
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, *shape))
    size = rng.uniform(0.5, 2.0, 3)
    keywords = {"direction": direction, "periodic": periodic} | ({} if periodic else {"outside": 0.0})
    both = susceptibility.field(2 * one - 3 * two, size, **keywords)
    parts = 2 * susceptibility.field(one, size, **keywords) - 3 * susceptibility.field(two, size, **keywords)
    np.testing.assert_allclose(both, parts, atol=1e-11)
    against = susceptibility.field(one, size, **{**keywords, "direction": [-4 * b for b in direction]})
    np.testing.assert_allclose(against, susceptibility.field(one, size, **keywords), atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations([0, 1, 2]), flip=st.integers(0, 2), periodic=st.booleans())
def test_axes_are_alike(seed, order, flip, periodic):
    """Permuting the axes, or mirroring one, of map, voxel and B0 does so with the field; even and odd lengths."""
    rng = np.random.default_rng(seed)
    shape, size, b = rng.integers(2, 9, 3), rng.uniform(0.5, 2, 3), rng.normal(size=3)  # all along z, y, x
    chi = rng.normal(size=shape)
    found = susceptibility.field(chi, size, direction=b[::-1], periodic=periodic)
    turned = susceptibility.field(chi.transpose(order), size[order], direction=b[order][::-1], periodic=periodic)
    np.testing.assert_allclose(turned, found.transpose(order), atol=1e-11)
    b[flip] *= -1
    mirrored = susceptibility.field(np.flip(chi, flip), size, direction=b[::-1], periodic=periodic)
    np.testing.assert_allclose(mirrored, np.flip(found, flip), atol=1e-11)


@pytest.mark.parametrize("periodic", [False, True])
def test_uniform_chi_gives_no_field(periodic):
    found = susceptibility.field(np.full((5, 6, 7), -9.05), 1e-3, direction=(1, 1, 0), periodic=periodic)
    assert np.abs(found).max() < 9.05 * ROUNDING


def test_only_the_contrast_to_the_outside_counts():
    chi = np.random.default_rng(0).normal(size=(6, 7, 8))
    found = susceptibility.field(chi - 9.05, 1.0, outside=-9.05)
    np.testing.assert_allclose(found, susceptibility.field(chi, 1.0, outside=0.0), atol=1e-11)
    np.testing.assert_array_equal(susceptibility.field(chi, 1.0), susceptibility.field(chi, 1.0, outside=chi.mean()))


def test_the_same_thing_moved_has_the_same_field():
    chi = np.zeros((12, 12, 12))
    chi[1:4, 2:4, 1:3] = 1.0
    moved = np.roll(chi, (6, 5, 7), (0, 1, 2))
    one, two = (susceptibility.field(c, 1.0, direction=(1, 2, 3), outside=0.0) for c in (chi, moved))
    np.testing.assert_allclose(two[6:, 5:, 7:], one[:6, :7, :5], atol=1e-12)


def test_periodic_is_free_space_once_the_copies_are_far():
    # the copies of a sphere 40 voxels away make (6/40)^3/3 each at its centre, where by cubic symmetry they cancel
    chi, r = sphere(40, 6.0)
    alone = susceptibility.field(chi, 1.0, outside=0.0)
    copies = susceptibility.field(chi, 1.0, periodic=True)
    copies += alone[r < 4].mean() - copies[r < 4].mean()  # the mean is a matter of the outer surface
    near = (r > 7.5) & (r < 9)
    assert np.abs(copies - alone)[near].max() < 0.02
    assert np.abs(copies - alone)[r > 25].max() > 3 * np.abs(alone[r > 25]).max() * 0.1  # and they do act further out
    assert abs(susceptibility.field(chi, 1.0, periodic=True).mean()) < ROUNDING


def test_periodic_wave():
    """A plane wave of chi has the field (1/3 - cos^2) chi, cos between wave vector and B0."""
    z, y, x = np.ix_(np.arange(12), np.arange(10), np.arange(16))
    wave = np.array([2 / 16 / 0.5, -1 / 10 / 2.0, 3 / 12 / 1.0])  # x, y, z in cycles per length
    chi = np.cos(2 * np.pi * (2 * x / 16 - y / 10 + 3 * z / 12))
    b = unit((1, 2, -1))
    expected = (1 / 3 - (b @ unit(wave)) ** 2) * chi
    found = susceptibility.field(chi, (1.0, 2.0, 0.5), direction=b, periodic=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_bits_do_not_depend_on_threads(monkeypatch):
    chi = np.random.default_rng(1).normal(size=(70, 60, 50))
    weight = np.random.default_rng(2).random(chi.shape)
    found = {}
    for n in ("1", "2", "5"):
        monkeypatch.setenv("BONEMRI_THREADS", n)
        shift = susceptibility.field(chi, 1.0, direction=(1, 2, 3))
        left = susceptibility.dephasing(shift * 50, weight, 10, [0.0, 0.01, 0.03])
        found[n] = shift.tobytes() + left.tobytes() + susceptibility.distribution(shift, weight, 10)[0].tobytes()
    assert found["1"] == found["2"] == found["5"]


def test_single_precision_errs_little():
    chi = np.random.default_rng(1).normal(size=(40, 50, 60))
    double = susceptibility.field(chi, 1.0, direction=(1, 2, 3))
    single = susceptibility.field(chi, 1.0, direction=(1, 2, 3), precision="single")
    assert single.dtype == np.float32
    assert np.abs(single - double).max() < 1e-5 * np.abs(double).max()


def test_hertz_grow_with_the_field():
    assert susceptibility.to_hertz(1.0, 3.0) == pytest.approx(127.732, abs=1e-3)
    at_three, at_seven = (susceptibility.to_hertz([1.0, -2.0], field) for field in (3.0, 7.0))
    np.testing.assert_allclose(at_seven, 7 / 3 * at_three)


# ---- inside a voxel ------------------------------------------------------------------------------------------------


def test_distribution_counts_spins():
    offset = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0]).reshape(1, 1, 8)
    weight = np.array([1.0, 1.0, 2.0, 0.0, 3.0, 0.0, 0.0, 1.0]).reshape(1, 1, 8)
    share, edges = susceptibility.distribution(offset, weight, (1, 1, 4), [0.0, 1.5, 5.0, 10.0])
    np.testing.assert_allclose(share[0, 0], [[0.5, 0.5, 0.0], [0.0, 0.75, 0.25]])
    share, edges = susceptibility.distribution(offset, weight, (1, 1, 4), 7)
    assert edges[[0, -1]].tolist() == [0.0, 10.0]
    np.testing.assert_allclose(share.sum(axis=-1), 1.0)


def test_voxels_without_spins_are_nan():
    weight = np.ones((2, 2, 4))
    weight[:, :, :2] = 0
    assert np.isnan(susceptibility.dephasing(weight, weight, 2, 0.0)).tolist() == [[[[True], [False]]]]
    assert np.isnan(susceptibility.distribution(weight, weight, 2, 3)[0][0, 0, 0]).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_dephasing_is_the_mean_phasor(seed):
    rng = np.random.default_rng(seed)
    offset, weight = rng.normal(0, 30, (6, 4, 9)), rng.random((6, 4, 9))
    times = np.concatenate([[0.0], np.sort(rng.uniform(0, 0.05, 3)), 0.06 + 0.01 * np.arange(4)])
    found = susceptibility.dephasing(offset, weight, (3, 2, 3), times)
    assert found.shape == (2, 2, 3, 8)
    np.testing.assert_allclose(found[..., 0], 1.0)
    part = (slice(3, 6), slice(0, 2), slice(6, 9))
    w = weight[part] / weight[part].sum()
    expected = [(w * np.exp(2j * np.pi * offset[part] * t)).sum() for t in times]
    np.testing.assert_allclose(found[1, 0, 2], expected, atol=1e-13)
    assert (np.abs(found) < 1 + 1e-12).all()


def test_the_linear_field_of_a_voxel_can_be_taken_out():
    """A pure gradient leaves coherence 1 and the phase of its mean; without removal a sinc."""
    z, y, x = np.ix_(*[np.arange(8.0)] * 3)
    weight = np.random.default_rng(0).random((8, 8, 8))
    offset = 40.0 + 5.0 * x - 3.0 * y + 2.0 * z
    mean = (offset * weight).sum() / weight.sum()
    t = np.array([0.0, 0.02])
    found = susceptibility.dephasing(offset, weight, 8, t, remove_linear=True)[0, 0, 0]
    np.testing.assert_allclose(found, np.exp(2j * np.pi * mean * t), atol=1e-9)
    left = susceptibility.dephasing(offset, np.ones_like(weight), 8, t)[0, 0, 0, 1]
    turns = np.array([5.0, 3.0, 2.0]) * 0.02
    expected = np.prod(np.sin(8 * np.pi * turns) / (8 * np.sin(np.pi * turns)))
    assert abs(left) == pytest.approx(abs(expected), rel=1e-9)
    flat = susceptibility.dephasing(offset, weight, (1, 8, 8), t, remove_linear=True)  # one voxel thick: no slope there
    assert np.abs(np.abs(flat) - 1).max() < 1e-9


def test_r2_prime_is_the_slope():
    t = np.linspace(0, 0.05, 11)
    decay = np.exp(-30.0 * t + 0.2) * np.exp(1j * 500 * t)
    assert susceptibility.r2_prime(decay[None], t, (0.01, 0.03)) == pytest.approx([30.0], rel=1e-12)
    bent = np.where(t < 0.0099, 1.0, decay)  # what lies outside the window does not matter
    assert susceptibility.r2_prime(bent, t, (0.01, 0.05)) == pytest.approx(30.0, rel=1e-12)


# ---- static dephasing ----------------------------------------------------------------------------------------------
#
# Yablonskiy and Haacke 1994: R2' = k zeta delta-omega, delta-omega = gamma B0 |dchi|/3, k = 2 pi/(3 sqrt 3) for
# spheres, 1 for cylinders of random direction, 1.5 sin^2(theta) for parallel ones. These are asymptotes of few
# perturbers in endless space; the slope of their full exponent over 2 to 8/delta-omega is 1.3 % above for spheres, .4 %
# above for parallel and .4 % below for random cylinders. What is left grows with the volume fraction: seen from outside
# they stand denser by zeta/(1 - zeta), and a given number of them in a box is not a Poisson number.


def exponent(kind: str, tau: np.ndarray) -> np.ndarray:
    """-ln S / zeta at tau = delta-omega t: the mean of 1 - cos(phase) over all space, in volumes of the perturber."""
    from scipy.special import j0, sici

    node, share = (v / 2 for v in np.polynomial.legendre.leggauss(200))
    node = node + 0.5
    if kind == "spheres":  # the radial integral of 1 - cos(a u), u = R^3/r^3, is a Si(a) - 1 + cos a
        a = tau[:, None] * (3 * node**2 - 1)
        return (a * sici(a)[0] - 1 + np.cos(a)) @ share
    sine2 = np.ones(1) if kind == "parallel" else 1 - node**2
    a = 1.5 * tau[:, None] * sine2
    radial = (1 - j0(a[..., None] * node)) / node**2 @ share  # u = R^2/rho^2
    return radial[:, 0] if kind == "parallel" else radial @ share


def apart(n: int, radius: float, count: int, dims: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Centres in a periodic box, their smeared surfaces apart."""
    centres: list[np.ndarray] = []
    while len(centres) < count:
        new = rng.random(dims) * n
        if all(np.linalg.norm((new - old + n / 2) % n - n / 2) > 2 * radius + 1 for old in centres):
            centres.append(new)
    return centres


def spheres(n: int, radius: float, count: int, rng: np.random.Generator) -> np.ndarray:
    chi = np.zeros((n, n, n))
    for centre in apart(n, radius, count, 3, rng):
        away = [(np.arange(n) - c + n / 2) % n - n / 2 for c in centre]
        near = [np.flatnonzero(np.abs(a) < radius + 1) for a in away]
        z, y, x = np.ix_(*(a[i] for a, i in zip(away, near, strict=True)))
        chi[np.ix_(*near)] += np.clip(0.5 + radius - np.sqrt(z * z + y * y + x * x), 0, 1)
    return chi


def discs(n: int, radius: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Parallel cylinders, along z: one layer, repeated."""
    chi = np.zeros((1, n, n))
    for centre in apart(n, radius, count, 2, rng):
        y, x = np.ix_(*((np.arange(n) - c + n / 2) % n - n / 2 for c in centre))
        chi[0] += np.clip(0.5 + radius - np.hypot(y, x), 0, 1)
    return chi


def rods(n: int, radius: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cylinders along lattice vectors (edges and face diagonals), which close upon themselves in a periodic box; with
    a random B0 each of them has a random direction. One that touches another is drawn again."""
    chi = np.zeros((n, n, n))
    patch = np.arange(-int(radius) - 2, int(radius) + 3)
    made = 0
    while made < count:
        step = rng.permutation([1, rng.integers(-1, 2) if made == 0 else 0, 0])
        along, start, rod = unit(step), rng.random(3) * n, np.zeros_like(chi)
        for s in range(n):
            point = start + s * step
            index = [np.floor(p).astype(int) + patch for p in point]
            away = np.stack(np.broadcast_arrays(*np.ix_(*(i - p for i, p in zip(index, point, strict=True)))))
            distance = np.sqrt(np.maximum((away**2).sum(axis=0) - np.tensordot(along, away, 1) ** 2, 0))
            place = np.ix_(*(i % n for i in index))
            rod[place] = np.maximum(rod[place], np.clip(0.5 + radius - distance, 0, 1))
        if not ((rod > 0) & (chi > 0)).any():
            chi += rod
            made += 1
    return chi


def measured(
    make, size: tuple, theory: float, realisations: int, polar: float | None = None, every: int = 1
) -> tuple[float, float]:
    """Mean over realisations of R2' / (theory zeta delta-omega), and its standard error.

    B0 at a `polar` angle to z; without one, each realisation is the mean over three B0 at right angles, turned at
    random: together they see every direction of a cylinder alike, which leaves much less to chance. The
    signal is that of `every` so many voxels along each axis.
    """
    ratios = []
    for rng in np.random.default_rng(1994).spawn(realisations):
        chi = make(*size, rng)
        assert size[1] >= 6 and chi.mean() <= 0.02
        outside = (chi == 0).astype(float)[::every, ::every, ::every]
        directions = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        if polar is not None:
            across = math.sin(polar) * unit(rng.normal(size=2))
            directions = np.array([[*across, math.cos(polar)]])
        rates = []
        for b in directions:
            shift = susceptibility.field(chi * CHI, 1e-5, direction=b, periodic=True, precision="single")
            offset = susceptibility.to_hertz(shift[::every, ::every, ::every], B0)
            left = susceptibility.dephasing(offset, outside, outside.shape, TIMES)
            rates.append(susceptibility.r2_prime(left, TIMES, (TIMES[0], TIMES[-1])).item())
        ratios.append(np.mean(rates) / (theory * chi.mean() * DELTA_OMEGA))
    return float(np.mean(ratios)), float(np.std(ratios, ddof=1) / math.sqrt(realisations))


def judge(kind: str, found: float, error: float, k: float, tolerance: float, zeta: float) -> None:
    print(f"{kind}: {found:.4f} +- {error:.4f}")
    assert error < 0.015
    assert abs(found - 1) < tolerance
    if kind != "parallel at 60":  # the slope of the full exponent: nothing of the window is left to the tolerance
        tau = TIMES * DELTA_OMEGA
        window = np.polyfit(tau, exponent(kind, tau), 1)[0] / k
        assert abs(found - window) < 3 * error + 2 * zeta


SPHERE = 2 * math.pi / (3 * math.sqrt(3))


def test_r2_prime_of_spheres():
    judge("spheres", *measured(spheres, (96, 6.0, 5), SPHERE, 16), SPHERE, 0.03, 0.0051)


def test_r2_prime_of_parallel_cylinders():
    judge("parallel", *measured(discs, (384, 6.0, 13), 1.5, 24, math.pi / 2), 1.5, 0.05, 0.01)


def test_r2_prime_of_random_cylinders():
    judge("random", *measured(rods, (144, 6.0, 2), 1.0, 16, every=2), 1.0, 0.05, 0.012)


@pytest.mark.slow
def test_r2_prime_of_many_spheres():
    judge("spheres", *measured(spheres, (144, 6.0, 12), SPHERE, 16), SPHERE, 0.03, 0.0036)


@pytest.mark.slow
def test_r2_prime_of_tilted_parallel_cylinders():
    k = 1.5 * math.sin(math.pi / 3) ** 2
    judge("parallel at 60", *measured(discs, (512, 8.0, 13), k, 32, math.pi / 3), k, 0.05, 0.01)


@pytest.mark.slow
def test_r2_prime_of_many_random_cylinders():
    judge("random", *measured(rods, (160, 6.0, 3), 1.0, 16), 1.0, 0.05, 0.015)


# ---- bad input -----------------------------------------------------------------------------------------------------

CUBE = np.zeros((4, 4, 4))
HOLE = np.where(np.arange(64).reshape(4, 4, 4) == 27, np.nan, 0.0)
BAD = [
    ({"chi": HOLE}, "chi is nan at (z, y, x) = (1, 2, 3), should be finite everywhere"),
    ({"chi": np.zeros((4, 4))}, "chi is float64 of shape (4, 4), should be real numbers (z, y, x)"),
    ({"chi": np.zeros((4, 0, 4))}, "chi is float64 of shape (4, 0, 4), should be real"),
    ({"chi": CUBE * 1j}, "chi is complex128 of shape (4, 4, 4), should be real"),
    ({"voxel_size": -1e-3}, "voxel_size is -0.001, should be above 0"),
    ({"voxel_size": (1e-3, 0.0, 1e-3)}, "should be above 0"),
    ({"voxel_size": (1e-3, 1e-3)}, "should be three finite numbers (z, y, x)"),
    ({"voxel_size": "small"}, "voxel_size is"),
    ({"direction": (0, 0, 0)}, "direction is (0, 0, 0), should be a vector (x, y, z) with a length"),
    ({"direction": (0, 1)}, "should be three finite numbers (x, y, z)"),
    ({"direction": (0, math.nan, 1)}, "should be three finite numbers (x, y, z)"),
    ({"outside": math.inf}, "outside is inf, should be a susceptibility in ppm"),
    ({"outside": 0.0, "periodic": True}, "a periodic grid has no outside"),
    ({"precision": "half"}, "precision is 'half', should be 'double' or 'single'"),
    ({"chi": np.broadcast_to(0.0, (3000, 3000, 3000))}, "GB, more than memory = 8 GB"),
    ({"memory": 1e3}, "more than memory = 1e-06 GB"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_of_field(change, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        susceptibility.field(**{"chi": CUBE, "voxel_size": 1e-3} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field_strength", [0, -3.0, math.nan, "3 T"])
def test_bad_field_strength(field_strength):
    with pytest.raises(InputError, match="field_strength is .*, should be above 0 T"):
        susceptibility.to_hertz(CUBE, field_strength)


@pytest.mark.parametrize(("change", "message"), [
    ({"weight": np.ones((4, 4, 5))}, "should be the same (z, y, x)"),
    ({"factor": 3}, "factor is 3, should be whole numbers (z, y, x) that divide (4, 4, 4)"),
    ({"factor": (2, 2)}, "should be whole numbers"),
    ({"factor": 2.0}, "should be whole numbers"),
    ({"factor": 0}, "should be whole numbers"),
    ({"weight": CUBE - 1}, "weight is negative or not finite"),
    ({"offset": HOLE}, "offset is not finite where there are spins"),
    ({"times": [0.0, math.nan]}, "should be one or more finite times (s)"),
])  # fmt: skip
def test_bad_input_of_dephasing(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        susceptibility.dephasing(**{"offset": CUBE, "weight": CUBE + 1, "factor": 2, "times": [0.0, 0.1]} | change)


@pytest.mark.parametrize("edges", [0, True, [1.0], [1.0, 1.0], [0.0, math.inf]])
def test_bad_edges(edges):
    with pytest.raises(InputError, match="edges (is|are) "):
        susceptibility.distribution(CUBE, CUBE + 1, 2, edges)


def test_bad_windows():
    t = np.arange(5.0)
    with pytest.raises(InputError, match="1 of the times lie within window"):
        susceptibility.r2_prime(np.ones(5), t, (0.5, 1.5))
    with pytest.raises(InputError, match="window is 3"):
        susceptibility.r2_prime(np.ones(5), t, 3)
    with pytest.raises(InputError, match="should be the times"):
        susceptibility.r2_prime(np.ones(4), t, (0.0, 3.0))
