"""Images: points against quadrature, distortion and ghosts against theory, noise against the linear operator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, optimize, special

from bonemri.errors import InputError
from bonemri.simulator.acquisition.kspace import cartesian_images, coil_combination, psf, reconstruction, trajectory
from bonemri.simulator.acquisition.kspace.acquire import PoolMap, acquire, add_noise
from bonemri.simulator.acquisition.kspace.density_compensation import noise_gain, pipe_menon, weights
from bonemri.simulator.acquisition.kspace.nufft import Fourier

FOV = 0.2

# ---- the image of a point ------------------------------------------------------------------------------------------


def quadrature(path, distance: float, rate: float, offset: float, ramp: float) -> complex:
    """The integral over the ball (disc) of k-space, written out in time for a spoke that ramps up, by QUADPACK."""
    side, end = path.matrix[2], path.duration
    top = side / (2 * FOV) / (end - ramp / 2)

    def density(t: float) -> float:
        k, speed = (top * t * t / (2 * ramp), top * t / ramp) if t < ramp else (top * (t - ramp / 2), top)
        x = 2 * math.pi * k * distance
        if path.dimensions == 3:
            return 4 * math.pi * k * k * speed * (math.sin(x) / x if x else 1.0)
        return 2 * math.pi * k * speed * special.j0(x)

    def part(turn) -> float:
        pieces = [(0.0, ramp), (ramp, end)]
        return sum(integrate.quad(lambda t: density(t) * math.exp(-rate * t) * turn(2 * math.pi * offset * t), a, b,
                                  epsabs=0, epsrel=1e-9, limit=200)[0] for a, b in pieces)  # fmt: skip

    return complex(part(math.cos), part(math.sin))


DECAYS = [(0.0, 0.0), (1 / 0.35e-3, 0.0), (0.0, -440.0), (1 / 0.35e-3, -440.0)]
RAMP = 100e-6


def spokes(dimensions: int, side: int, count: int, samples: int, **options) -> trajectory.Trajectory:
    build = trajectory.radial_3d if dimensions == 3 else trajectory.radial_2d
    return build((side if dimensions == 3 else 1, side, side), FOV, 8e-6, count, samples=samples, ramp=RAMP, **options)


@pytest.mark.parametrize("rate, offset", DECAYS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_point_spread_of_spokes(dimensions, rate, offset):
    """The image of a point at the centre, to 1e-3 of its peak in every voxel, decay and off-resonance included: the
    integral over k-space by QUADPACK in a few places, and by `psf` (as good as that to 1e-8) in all."""
    side = 20
    path = spokes(dimensions, side, 4000 if dimensions == 3 else 120, 32)
    for distance in (0.0, 0.3 * FOV / side, 2.2 * FOV / side, 0.4 * FOV):
        exact = quadrature(path, distance, rate, offset, RAMP)
        peak = abs(quadrature(path, 0.0, rate, offset, RAMP))
        found = psf.radial(path, distance, R2star=rate, offset=offset)
        assert abs(found - exact) < 1e-8 * peak
    # a point of 1 in a voxel of no size; an odd grid has a voxel at the centre
    shape = (side + 1 if dimensions == 3 else 1, side + 1, side + 1)
    point = np.ones((1, 1, 1))
    edge = 1e-6
    cell = edge**dimensions
    thick = (FOV if dimensions == 2 else edge, edge, edge)  # a plane fills the slice
    data = acquire(path, [PoolMap(point, 1.0, offset, rate)], thick, voxels="point", eps=1e-8) / cell
    wide = tuple(FOV * n / side if n > 1 else FOV for n in shape)
    image = reconstruction.gridding(data, path.replace(matrix=shape, fov=wide), eps=1e-7)[0, 0]
    axes = [(np.arange(n) - n // 2) * FOV / side for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    far, at = np.unique(np.round(distance, 9), return_inverse=True)
    exact = psf.radial(path, far, R2star=rate, offset=offset)[at].reshape(distance.shape)
    assert np.abs(image - exact).max() < 1e-3 * np.abs(exact).max()


def test_width_of_a_point():
    """Without decay: the half maximum of 3 (sin x - x cos x)/x^3 in three and of 2 J1(x)/x in two dimensions,
    x = 2 pi k_max r. With T2* of half the readout it is wider, and more so the more of the readout comes late."""
    ball = optimize.brentq(lambda x: 3 * (math.sin(x) - x * math.cos(x)) / x**3 - 0.5, 1, 4)
    disc = optimize.brentq(lambda x: 2 * special.j1(x) / x - 0.5, 1, 4)
    for dimensions, x in ((3, ball), (2, disc)):
        path = spokes(dimensions, 32, 4, 64)
        k_max = 32 / (2 * FOV)
        plain = psf.fwhm(path)
        assert plain == pytest.approx(2 * x / (2 * math.pi * k_max), rel=1e-6)
        widths = [psf.fwhm(path, R2star=part / path.duration) for part in (0.5, 1.0, 2.0)]
        assert plain < widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("dimensions, optimum", [(3, 0.69), (2, 0.81)])
def test_readout_with_the_best_snr(dimensions, optimum):
    """At a fixed k_max the peak falls with the readout's length and the noise as its root: best at .69 (.81) T2*.

    Rahmer et al. 2006, doi:10.1002/mrm.20868, for spokes without ramp.
    """
    T2star = 0.4e-3

    def loss(length: float) -> float:
        side = (16 if dimensions == 3 else 1, 16, 16)
        build = trajectory.radial_3d if dimensions == 3 else trajectory.radial_2d
        path = build(side, FOV, length / 64, 3, samples=64, ramp=0.0)
        return -abs(psf.radial(path, 0.0, R2star=1 / T2star)) * math.sqrt(length)

    best = optimize.minimize_scalar(loss, bounds=(0.1 * T2star, 3 * T2star), method="bounded").x
    assert best / T2star == pytest.approx(optimum, abs=0.01)
    # facts round to .7 and .8
    assert best / T2star == pytest.approx({3: 0.7, 2: 0.8}[dimensions], abs=0.02)


# ---- density compensation ------------------------------------------------------------------------------------------


def test_weights_by_iteration():
    """On a grid every sample stands for its cell; on spokes an image in absolute units comes out as with their own."""
    grid = trajectory.cartesian((6, 8, 10), 0.1, 4e-6, dimensions=3)
    found = pipe_menon(grid)
    inner = np.all(np.abs(grid.k * 0.1) < np.array([4, 3, 2]), axis=2)  # the edge has no neighbours outside
    np.testing.assert_allclose(found[inner], 1 / 0.1**3, rtol=0.02)
    path = spokes(2, 24, 60, 24)
    axis = (np.arange(24) - 11.5) / 24
    y, x = np.meshgrid(axis, axis, indexing="ij")
    smooth = np.exp(-40 * (x**2 + y**2))[None]
    data = acquire(path, [PoolMap(smooth)], path.voxel_size, voxels="point")
    own = reconstruction.gridding(data, path)[0, 0]
    iterated = reconstruction.gridding(data, path, weights=pipe_menon(path))[0, 0]
    assert np.abs(own - smooth).max() < 0.005  # the ball holds all of a Gaussian
    assert np.abs(iterated - smooth).max() < 0.05
    assert weights(path) is path.weights
    assert weights(path.replace(weights=None)).shape == path.k.shape[:2]


# ---- noise ---------------------------------------------------------------------------------------------------------


def test_noise_of_a_gridded_image():
    """Covariance of the image of N draws against that of the linear operator, the sum of w^2 exp(-i 2 pi k (r - r')).

    Each entry of a sample covariance of N complex draws has an SD of at most var/sqrt(N); five are allowed.
    """
    path = spokes(2, 8, 14, 20)
    n, sd = 3000, 1.7
    noise = add_noise(np.zeros((n, 1, 1, 14, 20), complex), sd**2, np.random.default_rng(0))
    image = reconstruction.gridding(noise, path).reshape(n, -1)
    axis = (np.arange(8) - 3.5) * FOV / 8
    y, x = np.meshgrid(axis, axis, indexing="ij")
    place = np.stack([x.ravel(), y.ravel()], axis=1)
    phase = np.exp(-2j * np.pi * place @ path.k.reshape(-1, 3)[:, :2].T) * path.weights.ravel()
    theory = 2 * sd**2 * phase @ phase.conj().T
    found = image.T @ image.conj() / n
    assert np.abs(found - theory).max() < 5 * theory[0, 0].real / math.sqrt(n)
    gain = noise_gain(path.weights)
    np.testing.assert_allclose(np.diag(theory).real, 2 * (sd * gain) ** 2, rtol=1e-9)
    # and on a grid: the root of the number of samples, over the field of view
    grid = trajectory.cartesian((1, 8, 10), 0.1, 4e-6)
    assert noise_gain(grid.weights) == pytest.approx(math.sqrt(80) / 0.1**2)
    white = add_noise(np.zeros((400, 1, 1, 8, 10), complex), sd**2, np.random.default_rng(1))
    spread = reconstruction.images(white, grid).real.std()
    assert spread == pytest.approx(sd * noise_gain(grid.weights), rel=5 / math.sqrt(2 * 400 * 80))


def matrix_of(path, coils, eps: float = 1e-11) -> np.ndarray:
    """The encoding of an image by all coils as a dense matrix."""
    fourier = Fourier(path.k, path.matrix, path.voxel_size, eps=eps, planar=path.dimensions == 2)
    count = math.prod(path.matrix)
    columns = []
    for unit in np.eye(count).reshape(count, *path.matrix):
        columns.append(np.concatenate([fourier.forward(c * unit).ravel() for c in coils]))
    return np.array(columns).T


def some_coils(matrix, count: int = 4) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) / max(n, 2) for n in matrix]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    turn = 2 * np.pi * np.arange(count) / count
    return np.array(
        [np.exp(-((x - 0.6 * np.cos(a)) ** 2) - (y - 0.6 * np.sin(a)) ** 2 - z**2 + 1j * (a + x)) for a in turn]
    )


@pytest.mark.parametrize("toeplitz", [True, False])
@pytest.mark.parametrize("tikhonov", [0.0, 0.03])
@pytest.mark.parametrize("planar", [True, False])
def test_sense_solves_its_normal_equations(planar, tikhonov, toeplitz):
    """Against the dense matrix: residual of the weighted, regularised normal equations, and their solution."""
    shape = (1, 9, 8) if planar else (3, 4, 5)
    if planar:
        path = trajectory.radial_2d(shape, FOV, 8e-6, 14, samples=14, ramp=20e-6)
    else:
        path = trajectory.radial_3d(shape, FOV, 8e-6, 40, samples=8, ramp=20e-6)
    coils, rng = some_coils(shape), np.random.default_rng(0)
    weight = rng.uniform(0.5, 2.0, path.k.shape[:2])
    size = (4, *([1] if planar else []), *path.k.shape[:2])
    data = rng.normal(size=size) + 1j * rng.normal(size=size)
    told: list[float] = []
    found = reconstruction.sense(data, path, coils, weights=weight, tikhonov=tikhonov, iterations=400, tolerance=1e-9,
                                 toeplitz=toeplitz, eps=1e-11, progress=told.append)  # fmt: skip
    encoding = matrix_of(path, coils)
    many = np.tile(weight.ravel(), 4)
    cell = math.prod(path.voxel_size[1:] if planar else path.voxel_size)
    normal = encoding.conj().T @ (many[:, None] * encoding)
    normal += tikhonov * cell**2 * weight.sum() * np.eye(len(normal))
    right = encoding.conj().T @ (many * data.ravel())
    left = right - normal @ found.image.ravel()
    # what was asked for; as much again for the recursion, in which transforms of 1e-11 add up
    assert np.linalg.norm(left) < 2e-9 * np.linalg.norm(right)
    assert found.residual <= 1e-9 and 0 < found.iterations < 400
    condition = np.linalg.cond(normal)
    exact = np.linalg.solve(normal, right)
    assert np.linalg.norm(found.image.ravel() - exact) < 2e-9 * condition * np.linalg.norm(exact)
    assert told == sorted(told)


def test_sense_recovers_an_object():
    """Two echoes without noise from half as many spokes as one coil would need; the image to the tolerance times the
    root of the condition number."""
    side = 12
    # spokes that reach the corners of the image's k-space
    path = trajectory.radial_2d((1, 18, 18), FOV, 8e-6, 27, samples=18, ramp=40e-6)
    path = path.replace(matrix=(1, side, side), weights=None)
    coils = some_coils(path.matrix, 8)
    rng = np.random.default_rng(3)
    truth = rng.random((2, *path.matrix))
    thick = (FOV, FOV / side, FOV / side)
    pool = PoolMap(truth, [1.0, 1j])
    data = acquire(path, [pool], thick, coils=coils, voxels="point", eps=1e-12)
    found = reconstruction.sense(data, path, coils, iterations=300, tolerance=1e-9, eps=1e-12)
    assert found.image.shape == (2, 1, side, side)
    np.testing.assert_allclose(found.image, truth * np.array([1, 1j])[:, None, None, None], atol=1e-4)
    alone = reconstruction.gridding(data, path.replace(weights=pipe_menon(path)))
    assert np.abs(np.abs(alone).sum(axis=1)[0] - truth[0]).max() > 0.1  # which one coil's adjoint does not


def test_noise_after_sense():
    """With data and coils whitened, the covariance of the image is that of the damped inverse of E* Psi^-1 E: the
    reconstruction is linear, and its matrix is what it makes of each sample alone."""
    path = trajectory.radial_2d((1, 4, 4), FOV, 8e-6, 8, samples=5, ramp=10e-6)
    coils = some_coils(path.matrix, 2)
    psi = np.array([[2.0, 0.5 - 0.5j], [0.5 + 0.5j, 1.5]])
    encoding = matrix_of(path, coils)
    samples = path.k[..., 0].size
    inverse = np.kron(np.linalg.inv(psi), np.eye(samples))
    damping = 0.02
    white = coil_combination.prewhiten(coils, psi, coil_axis=0)
    strength = damping * math.prod(path.voxel_size[1:]) ** 2 * samples
    normal = encoding.conj().T @ inverse @ encoding
    back = np.linalg.inv(normal + strength * np.eye(16))
    theory = back @ normal @ back
    units = np.eye(2 * samples, dtype=complex).reshape(-1, 2, 1, *path.k.shape[:2])
    found = reconstruction.sense(units, path, white, tikhonov=damping, iterations=60, tolerance=1e-8, eps=1e-10)
    linear = found.image.reshape(2 * samples, -1).T
    np.testing.assert_allclose(linear @ linear.conj().T, theory, atol=1e-6 * np.abs(theory).max())


def test_prewhitening_whitens():
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    psi = mix @ mix.conj().T + np.eye(4)
    root = coil_combination.prewhiten(np.eye(4, dtype=complex), psi, coil_axis=0)
    np.testing.assert_allclose(root @ psi @ root.conj().T, np.eye(4), atol=1e-12)


# ---- coils into one ------------------------------------------------------------------------------------------------


def test_known_sensitivities_give_the_least_noise():
    """Roemer: unbiased, with the variance 1/(s* Psi^-1 s) in each voxel, by the weights themselves."""
    coils = some_coils((3, 4, 5), 3)
    mix = np.array([[2.0, 0, 0], [0.5 + 0.5j, 1.5, 0], [-0.3j, 0.2, 1.0]])
    psi = mix @ mix.conj().T
    truth = np.random.default_rng(0).random((2, 3, 4, 5)) * (1 + 2j)
    images = coils * truth[:, None]
    np.testing.assert_allclose(coil_combination.combine(images, coils, psi), truth, rtol=1e-10)
    weight = np.stack([coil_combination.combine(np.eye(3)[c][:, None, None, None] * np.ones_like(coils), coils, psi)
                       for c in range(3)])  # fmt: skip
    variance = np.einsum("czyx,cd,dzyx->zyx", weight, psi, weight.conj()).real
    best = 1 / np.einsum("czyx,cd,dzyx->zyx", coils.conj(), np.linalg.inv(psi), coils).real
    np.testing.assert_allclose(variance, best, rtol=1e-10)
    assert not coil_combination.combine(images, 0 * coils).any()


@pytest.mark.parametrize("covariance", [None, np.diag([1.0, 4.0, 0.25, 1.0])])
def test_adaptive_combination(covariance):
    """Of a uniform object it finds the sensitivities, and combines as they would; echoes keep their phases.

    Coils vary by a tenth from voxel to voxel of the neighbourhood, which turns the filter by some .1^2.
    """
    coils = some_coils((6, 24, 24), 4)
    echoes = np.array([1.0, 0.6 * np.exp(1.1j)])
    images = echoes[:, None, None, None, None] * coils
    psi = np.eye(4) if covariance is None else covariance
    psi = psi / (np.trace(psi) / 4)  # on the scale of the coils
    options = {} if covariance is None else {"covariance": covariance}
    image, found = coil_combination.adaptive(images, block=3, **options)
    assert image.shape == (2, 6, 24, 24) and found.shape == coils.shape
    whole = np.sqrt(np.einsum("czyx,cd,dzyx->zyx", coils.conj(), np.linalg.inv(psi), coils).real)
    np.testing.assert_allclose(np.abs(image[0]), whole, rtol=0.01)
    np.testing.assert_allclose(image[1] / image[0], np.broadcast_to(echoes[1], image[0].shape), rtol=1e-9)
    similarity = (
        np.abs((found.conj() * coils).sum(axis=0)) / np.linalg.norm(found, axis=0) / np.linalg.norm(coils, axis=0)
    )
    assert similarity.min() > 0.99
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    error = np.abs(found * image[0] - coils)[inside] / np.linalg.norm(coils, axis=0)[inside[1:]]
    assert error.max() < 0.15
    # noise: a filter of norm 1 over whitened coils leaves that of a coil, as root-sum-of-squares images have it
    one, _ = coil_combination.adaptive(images[0], block=3, **options)
    np.testing.assert_allclose(np.abs(one), np.abs(image[0]), rtol=1e-9)


def test_slabs_of_an_adaptive_combination_are_seamless(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 9, 5, 6)) + 1j * rng.normal(size=(3, 9, 5, 6))
    whole = coil_combination.adaptive(images, block=3)[0]
    monkeypatch.setattr(coil_combination, "BYTES", 1)
    np.testing.assert_allclose(np.abs(coil_combination.adaptive(images, block=3)[0]), np.abs(whole), rtol=1e-9)
    flat = coil_combination.adaptive(images, block=3, planar=True)[0]
    each = coil_combination.adaptive(images[:, 4:5], block=3, planar=True)[0]
    np.testing.assert_allclose(np.abs(flat[4]), np.abs(each[0]), rtol=1e-9)


def test_root_sum_of_squares():
    images = np.array([3.0, 4.0j]).reshape(2, 1, 1, 1)
    assert coil_combination.root_sum_of_squares(images).item() == 5.0


# ---- lines and echo trains -----------------------------------------------------------------------------------------


def test_a_grid_gives_its_object_back():
    """Frequency along any axis, read to or fro, odd and even sizes: voxels exactly, by both ways of reconstruction."""
    rng = np.random.default_rng(0)
    matrix, fov = (4, 7, 6), (0.1, 0.12, 0.14)
    for path in (
        trajectory.cartesian(matrix, fov, 4e-6, dimensions=3, frequency="z"),
        trajectory.cartesian(matrix, fov, 4e-6, frequency="y", reverse=True),
        trajectory.epi(matrix, fov, 4e-6),
        trajectory.epi(matrix, fov, 4e-6, frequency="y", blips=-1),
    ):
        truth = rng.random(matrix)
        data = acquire(path, [PoolMap(truth)], path.voxel_size, voxels="point", eps=1e-11)
        np.testing.assert_allclose(reconstruction.images(data, path)[0, 0], truth, atol=1e-9)
        np.testing.assert_allclose(reconstruction.gridding(data, path, eps=1e-11)[0, 0], truth, atol=1e-9)


def blob(n: int, at: float) -> np.ndarray:
    """A Gaussian of 1.5 voxels along an axis of n, about a place in voxels."""
    return np.exp(-(((np.arange(n) - at) / 1.5) ** 2) / 2)


@pytest.mark.parametrize("frequency", ["x", "y"])
@pytest.mark.parametrize("reverse", [False, True])
def test_fat_shift_along_a_line(frequency, reverse):
    """f/(bandwidth of a pixel): -440 Hz at 1/(64 x 20 us) = 781 Hz moves .5632 pixels down, read to, and up, read fro.

    Of a band-limited object with all samples at their time the shift is exact, a phase that is linear in k.
    """
    n, offset = 64, -440.0
    path = trajectory.cartesian((1, n, n), FOV, 20e-6, frequency=frequency, reverse=reverse)
    line, other = blob(n, 30.0), blob(n, 33.0)
    at = (lambda u, v: np.outer(v, u)[None]) if frequency == "x" else (lambda u, v: np.outer(u, v)[None])
    data = acquire(path, [PoolMap(at(line, other), 1.0, offset)], path.voxel_size, voxels="point", eps=1e-10)
    image = reconstruction.images(data, path)[0, 0]
    moved = offset * n * 20e-6 * (-1 if reverse else 1)
    # what the Gaussian holds beyond the edge of k-space, exp(-(1.5 pi)^2/2), folds back
    np.testing.assert_allclose(image, at(blob(n, 30.0 + moved), other), atol=1.5e-5)


@pytest.mark.parametrize("blips", [1, -1])
def test_distortion_of_an_echo_train(blips):
    """f x lines x echo spacing pixels along phase encoding: 8 Hz x 48 x .7 ms = .27 pixels, 440 Hz 14.8 of 48.

    Along the lines the shift is a hundred times smaller and goes to and fro: it leaves a ghost of that size, some
    pi f dwell x sample number of its amplitude.
    """
    n, spacing, dwell = 48, 0.7e-3, 2e-6
    path = trajectory.epi((1, n, n), FOV, dwell, echo_spacing=spacing, blips=blips)
    for offset in (8.0, -440.0):
        truth = np.outer(blob(n, 24.0), blob(n, 23.0))[None]
        data = acquire(path, [PoolMap(truth, 1.0, offset)], path.voxel_size, voxels="point", eps=1e-9)
        image = reconstruction.images(data, path)[0, 0]
        moved = blips * offset * n * spacing
        expected = np.outer(blob(n, 24.0 + moved), blob(n, 23.0))[None]
        assert np.abs(np.abs(image) - expected).max() < 2 * math.pi * abs(offset) * dwell * n / 4
        profile = np.abs(image[0]).sum(axis=1)
        assert (np.arange(n) * profile).sum() / profile.sum() == pytest.approx(
            24.0 + moved, abs=0.05 * max(1, abs(moved))
        )


def test_ghost_of_an_echo_train():
    """Odd and even lines apart by a phase: cos(phase/2) where the object is, sin(phase/2) half a field of view away."""
    n, phase = 32, 0.7
    path = trajectory.epi((1, n, n), FOV, 4e-6)
    truth = np.outer(blob(n, 8.0), blob(n, 15.0))[None]
    data = acquire(path, [PoolMap(truth)], path.voxel_size, voxels="point", eps=1e-10)
    ghosted = cartesian_images.odd_even_phase(data, path, phase)
    image = reconstruction.images(ghosted, path)[0, 0, 0]
    np.testing.assert_allclose(np.abs(image[:16]), math.cos(phase / 2) * truth[0, :16], atol=1e-6)
    np.testing.assert_allclose(np.abs(image[16:]), math.sin(phase / 2) * truth[0, :16], atol=1e-6)
    corrected = cartesian_images.odd_even_phase(ghosted, path, -phase)
    np.testing.assert_allclose(corrected, data, atol=1e-12 * np.abs(data).max())


@pytest.mark.parametrize("blips", [1, -1])
def test_partial_fourier(blips):
    """Homodyne gives back an object of smooth phase that zero filling blurs; with all lines it changes nothing."""
    n = 64
    path = trajectory.epi((1, n, n), FOV, 4e-6, partial_fourier=0.65, blips=blips)
    axis = (np.arange(n) - 31.5) / n
    y, x = np.meshgrid(axis, axis, indexing="ij")
    truth = ((np.abs(x) < 0.3) * (np.abs(y - 0.05) < 0.25) * (1 + 0.5 * (np.abs(y) < 0.04)))[None]
    phase = np.exp(1j * (0.5 + 1.2 * x + 0.8 * y))
    data = acquire(path, [PoolMap(truth * phase)], path.voxel_size, voxels="point")
    zero = np.abs(reconstruction.images(data, path)[0, 0])
    homodyne = reconstruction.images(data, path, partial_fourier="homodyne")[0, 0]
    errors = [np.sqrt(np.mean((np.abs(image) - truth) ** 2)) for image in (zero, homodyne)]
    assert errors[1] < 0.5 * errors[0]
    turned = np.angle(homodyne / phase)[np.broadcast_to(truth > 0, homodyne.shape)]
    assert np.abs(turned).max() < 0.2
    full = trajectory.epi((1, n, n), FOV, 4e-6)
    data = acquire(full, [PoolMap(truth * phase)], full.voxel_size, voxels="point")
    same = reconstruction.images(data, full, partial_fourier="homodyne")
    np.testing.assert_array_equal(same, reconstruction.images(data, full))


# ---- what cannot be reconstructed ----------------------------------------------------------------------------------

SPOKES = spokes(3, 8, 20, 16)
DATA = np.zeros((2, 20, 16), complex)
COILS = np.ones((2, 8, 8, 8), complex)
BAD = [
    (lambda: reconstruction.gridding(DATA[:, :-1], SPOKES), "data has shape (2, 19, 16): expected (..., readout"),
    (lambda: reconstruction.gridding(DATA, SPOKES, weights=np.ones(3)), "weights has shape (3,): expected (20, 16)"),
    (lambda: reconstruction.images(np.zeros((1, 8, 8)), trajectory.cartesian(8, FOV, 1e-6)), "(..., slice, read"),
    (lambda: reconstruction.sense(DATA, SPOKES, COILS[:1]), "coils has shape (1, 8, 8, 8): expected (2, 8, 8, 8)"),
    (lambda: reconstruction.sense(DATA[0], SPOKES, COILS[:1]), "coils has shape (1, 8, 8, 8): expected (8, 8, 8)"),
    (lambda: reconstruction.sense(DATA, SPOKES, COILS * np.nan), "coils is not finite"),
    (lambda: reconstruction.sense(DATA, SPOKES, COILS, tikhonov=-1), "tikhonov is -1: expected a number from 0 up"),
    (lambda: reconstruction.sense(DATA, SPOKES, COILS, iterations=0), "iterations is 0: expected a whole number"),
    (lambda: pipe_menon(SPOKES, iterations=0), "iterations is 0: expected a whole number"),
    (lambda: coil_combination.adaptive(COILS[0]), "images has shape (8, 8, 8): expected (coil, z, y, x)"),
    (lambda: coil_combination.combine(COILS, COILS[:1]), "coils has shape (1, 8, 8, 8): expected (2, 8, 8, 8)"),
    (lambda: cartesian_images.transform(DATA, SPOKES), "trajectory radial_3d is not on a grid"),
    (lambda: cartesian_images.odd_even_phase(DATA, SPOKES, 1.0), "its readouts have no polarity: expected epi"),
    (lambda: psf.radial(spokes(3, 8, 20, 16, full=True), 0.0), "expected radial_2d or radial_3d from the centre out"),
    (lambda: reconstruction.images(np.zeros((8, 8, 8)), trajectory.cartesian(8, FOV, 1e-6), partial_fourier="pocs"),
     "partial_fourier is 'pocs': expected zero_filled or homodyne"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", BAD)
def test_bad_input(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_nothing_gives_nothing():
    """No signal is a solution that needs no iteration."""
    found = reconstruction.sense(DATA, SPOKES, COILS)
    assert not found.image.any() and found.iterations == 0 and found.residual == 0
