"""Samples of k-space against the sum over voxels written out, closed forms, and what time stamps must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.simulator.acquisition.kspace import trajectory
from bonemri.simulator.acquisition.kspace.acquire import PoolMap, acquire, add_noise
from bonemri.simulator.acquisition.kspace.low_rank import expand
from bonemri.simulator.acquisition.kspace.nufft import Fourier

GRID, SIZE, CENTER = (5, 7, 6), (0.016, 0.014, 0.017), (3e-3, -2e-3, 5e-3)
ECHOES = (0.2e-3, 2.5e-3)
VOLUME = trajectory.radial_3d((6, 8, 7), (0.1, 0.11, 0.12), 8e-6, 25, samples=20)
PLANES = trajectory.epi((3, 8, 7), (0.09, 0.11, 0.12), 5e-6)


def maps(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "density": rng.random(GRID) * (rng.random(GRID) > 0.3),
        "field": rng.normal(0, 300, GRID),
        "R2": rng.uniform(50, 3000, GRID),
        "coils": rng.normal(size=(3, *GRID)) + 1j * rng.normal(size=(3, *GRID)),
    }


def written_out(path, pools, *, coils=None, field=None, dephased=0.0, box=True, center=(0, 0, 0), size=SIZE):
    """The sum over voxels, sample by sample: no transform, no factors taken out, no expansion."""
    grid = pools[0].density.shape[-3:]
    z, y, x = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(grid, size, strict=True)], indexing="ij")
    place = np.stack([x + center[0], y + center[1], z + center[2]], axis=-1)
    flat = path.k.reshape(-1, 3)
    planar = path.dimensions == 2
    volume = math.prod(size[1:] if planar else size)
    t = np.broadcast_to(path.times, path.k.shape[:2]).ravel()
    coils = np.ones((1, *grid)) if coils is None else coils
    field = np.zeros(grid) if field is None else field
    dephased = np.atleast_1d(dephased)
    thick, slices = path.fov[0] / path.matrix[0], path.matrix[0] if planar else 1
    out = np.zeros((dephased.size, len(coils), slices, flat.shape[0]), complex)
    for j, (k, time) in enumerate(zip(flat, t, strict=True)):
        weight = np.exp(2j * np.pi * (place @ k)) * volume
        if box:
            weight = weight * math.prod(np.sinc(k[a] * size[2 - a]) for a in range(3))
        for e, since in enumerate(dephased):
            total = 0
            for pool in pools:
                density = pool.density if pool.density.ndim == 3 else pool.density[e]
                amplitude, offset = np.atleast_2d(pool.amplitude)[e], np.atleast_1d(pool.offset)
                peaks = (amplitude * np.exp(2j * np.pi * offset * time)).sum()
                dephasing = np.exp(-pool.R2_prime * (abs(since + time) - abs(since)))
                turn = np.exp(2j * np.pi * field * (since + time) - pool.R2 * time)
                total = total + density * peaks * dephasing * turn
            for c, coil in enumerate(coils):
                seen = total * coil * weight
                for s in range(slices):
                    low = (s - slices / 2) * thick
                    edge = (np.arange(grid[0]) - grid[0] / 2) * size[0] + center[2]
                    share = np.clip(np.minimum(edge + size[0], low + thick) - np.maximum(edge, low), 0, None) / thick
                    out[e, c, s, j] = (seen * (share[:, None, None] if planar else 1)).sum()
    return out.reshape(dephased.size, len(coils), *([slices] if planar else []), *path.k.shape[:2])


AMPLITUDE = np.array([[0.3, 0.7j, -0.2], [0.5j, 0.1, 0.4]])
OFFSET = np.array([0.0, -434.0, 60.0])


def pools_of(kind: str) -> list[PoolMap]:
    m, other = maps(), maps(1)
    if kind == "uniform":
        return [
            PoolMap(m["density"], AMPLITUDE, OFFSET, 2000.0, 300.0),
            PoolMap(other["density"] * 1j, AMPLITUDE[:, :1], 10.0),
        ]
    if kind == "mapped":
        return [
            PoolMap(m["density"], AMPLITUDE, OFFSET, m["R2"], 300.0),
            PoolMap(np.stack([m["density"], other["density"]]), AMPLITUDE[:, :1], 0.0, 100.0),
        ]
    raise ValueError(kind)


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("kind, voxels", [("uniform", "box"), ("uniform", "point"), ("mapped", "box")])
def test_the_sum_over_voxels(kind, voxels, eps):
    """To the requested precision: finufft's is relative to the norm, and an expansion adds as much; rounding of 1e3
    terms is below 1e-13."""
    m = maps()
    field = m["field"] if kind == "mapped" else None
    given = {"coils": m["coils"], "field": field, "dephased": ECHOES, "center": CENTER}
    expected = written_out(VOLUME, pools_of(kind), box=voxels == "box", **given)
    found = acquire(VOLUME, pools_of(kind), SIZE, voxels=voxels, eps=eps, **given)
    assert found.shape == (2, 3, 25, 20)
    assert np.linalg.norm(found - expected) < 3 * eps * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["uniform", "mapped"])
def test_slices(kind):
    """Each slice by itself: the mean over its thickness, wherever planes of the object begin; the times of a train."""
    m = maps()
    given = {"coils": m["coils"][:1], "field": m["field"] / 100, "dephased": (0.0, 0.0), "center": CENTER}
    expected = written_out(PLANES, pools_of(kind), **given)
    found = acquire(PLANES, pools_of(kind), SIZE, eps=1e-9, **given)
    assert found.shape == (2, 1, 3, 8, 7)
    assert np.linalg.norm(found - expected) < 3e-9 * np.linalg.norm(expected)


def test_a_cuboid_in_closed_form():
    """A block of voxels is a cuboid: sides times sinc, times the phase of its place; fine or coarse voxels alike."""
    path = trajectory.radial_3d(32, 0.1, 4e-6, 200, samples=40, ramp=50e-6)
    fine = np.zeros((20, 20, 20))
    fine[3:9, 4:16, 10:18] = 2.0
    edge = 3e-3
    sides, middle = np.array([8, 12, 6]) * edge, (np.array([14, 10, 6]) - 10) * edge  # along x, y, z
    expected = 2 * math.prod(sides) * np.prod(np.sinc(path.k * sides), axis=2) * np.exp(2j * np.pi * path.k @ middle)
    # the precision is relative to the norm over all samples
    found = acquire(path, [PoolMap(fine)], edge, eps=1e-11)[0, 0]
    assert np.linalg.norm(found - expected) < 1e-10 * np.linalg.norm(expected)
    coarse = np.zeros((10, 10, 10))
    coarse[1:5, 2:8, 5:9] = 2.0  # the same in z but for its odd edges
    coarse_found = acquire(path, [PoolMap(coarse)], 2 * edge, eps=1e-11)
    refined = acquire(path, [PoolMap(coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2))], edge, eps=1e-11)
    assert np.linalg.norm(coarse_found - refined) < 1e-10 * np.linalg.norm(refined)


def test_every_sample_has_its_time():
    """One voxel at the isocentre: what the signal does from sample to sample is what its pool does in time."""
    path = trajectory.cartesian((1, 4, 64), (1e-4, 0.2, 0.2), 10e-6)
    one = np.ones((1, 1, 1))
    t = path.times
    found = acquire(path, [PoolMap(one, 1.0, -440.0, 25.0)], 1e-4, voxels="point", eps=1e-12)[0, 0, 0, 0]
    np.testing.assert_allclose(found / 1e-8, np.exp((-2j * np.pi * 440 - 25) * t), rtol=1e-10)
    # R2': refocused at a spin echo, on both sides of it; going on in a gradient echo
    for dephased, expected in ((0.0, np.exp(-80 * np.abs(t))), (5e-3, np.exp(-80 * t))):
        found = acquire(path, [PoolMap(one, R2_prime=80.0)], 1e-4, dephased=dephased, voxels="point", eps=1e-12)
        np.testing.assert_allclose(found[0, 0, 0, 0] / 1e-8, expected, rtol=1e-10)
    # any dephasing: here the quadratic one of short times
    quadratic = lambda time: np.exp(-((300 * time) ** 2))  # noqa: E731
    found = acquire(path, [PoolMap(one, R2_prime=quadratic)], 1e-4, dephased=5e-3, voxels="point", eps=1e-12)
    np.testing.assert_allclose(found[0, 0, 0, 0] / 1e-8, quadratic(5e-3 + t) / quadratic(5e-3), rtol=1e-10)


def test_a_field_is_an_offset():
    """A uniform field of f Hz is what an offset of f is, with the phase it has gathered up to each echo."""
    m = maps()
    field = acquire(
        VOLUME, [PoolMap(m["density"], [1, 1])], SIZE, field=np.full(GRID, 120.0), dephased=ECHOES, eps=1e-10
    )
    turned = np.exp(2j * np.pi * 120.0 * np.array(ECHOES))
    offset = acquire(VOLUME, [PoolMap(m["density"], turned, 120.0)], SIZE, eps=1e-10)
    np.testing.assert_allclose(field, offset, atol=1e-9 * np.abs(offset).max())
    # outside the object a field means nothing
    holes = np.where(m["density"] > 0, 120.0, np.nan)
    same = acquire(VOLUME, [PoolMap(m["density"], [1, 1])], SIZE, field=holes, dephased=ECHOES, eps=1e-10)
    np.testing.assert_array_equal(field, same)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), planar=st.booleans(), box=st.booleans(), shape=st.tuples(*[st.integers(1, 8)] * 3))
def test_the_adjoint(seed, planar, box, shape):
    """<A x, y> = <x, A* y>: to 1e-6 as asked, and in fact to the precision of the transforms."""
    rng = np.random.default_rng(seed)
    k = rng.uniform(-400, 400, (6, 5, 3)) * ([1, 1, 0] if planar else 1)  # some beyond the voxels' own k-space
    fourier = Fourier(k, shape, SIZE, eps=1e-9, box=box, planar=planar, center=CENTER)
    x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    ahead = fourier.forward(x)
    y = rng.normal(size=ahead.shape) + 1j * rng.normal(size=ahead.shape)
    back = fourier.adjoint(y)
    assert back.shape == shape
    size = np.linalg.norm(ahead) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(back)
    assert abs(np.vdot(y, ahead) - np.vdot(back, x)) < 1e-7 * size


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.floats(0, 400),
    rates=st.floats(0, 500),
    length=st.floats(1e-4, 0.02),
    log_precision=st.floats(-10, -2),
    voxels=st.sampled_from([1, 40, 1000]),
)
def test_expansions_keep_their_precision(seed, width, rates, length, log_precision, voxels):
    """The largest error over all voxels and all times, written out, is below the precision asked for."""
    rng = np.random.default_rng(seed)
    precision = 10**log_precision
    f = rng.uniform(-width, width, voxels) if seed % 2 else width * rng.standard_normal(voxels).clip(-3, 3) / 3
    r = rng.uniform(10, 10 + rates, voxels)
    t = np.sort(rng.uniform(-length / 2, length, 300))
    found = expand(f, r, 1e-3 + t, t, precision=precision)
    exact = np.exp(2j * np.pi * f * (1e-3 + t[:, None]) - r * t[:, None])
    error = np.abs(found.courses.T @ found.maps - exact).max() / np.abs(exact).max()
    assert error < precision
    assert found.error < precision


def test_expansions_are_short():
    """Alike voxels take one product, and others hardly more than the matrix has singular values of that size."""
    t = np.linspace(0, 5e-3, 300)
    alike = expand(np.full(50, 77.0), np.full(50, 12.0), t, t)
    assert alike.rank == 1
    rng = np.random.default_rng(0)
    f, r = rng.uniform(-200, 200, 1000), rng.uniform(20, 60, 1000)
    exact = np.exp(2j * np.pi * f * t[:, None] - r * t[:, None])
    values = np.linalg.svd(exact, compute_uv=False)
    for precision in (1e-3, 1e-6):
        # below this rank the mean square error alone is larger than the largest error that is allowed
        least = np.flatnonzero(np.sqrt(np.cumsum(values[::-1] ** 2)[::-1] / exact.size) < precision)[0]
        assert least <= expand(f, r, t, t, precision=precision).rank <= least + 3
    bimodal = np.concatenate([rng.uniform(-1, 1, 1000), rng.uniform(2000, 2002, 1000)])
    spread = rng.uniform(0, 2002, 2000)
    ranks = [expand(each, np.zeros(2000), t, t, precision=1e-4).rank for each in (bimodal, spread)]
    assert ranks[0] <= 6 < 12 < ranks[1]  # two narrow lines, and ten cycles


def test_noise_has_its_covariance():
    """Sample covariance of N complex draws: each entry has an SD of at most sqrt(2) Psi_ii/sqrt(2 N) per part, and
    five SDs are allowed; real and imaginary parts are independent and alike, samples too."""
    mix = np.array([[2.0, 0, 0], [0.5 + 0.5j, 1.5, 0], [-0.3j, 0.2, 1.0]])
    psi = mix @ mix.conj().T
    data = np.full((2, 3, 200, 100), 5.0 + 1j)
    noise = add_noise(data, psi, np.random.default_rng(1)) - data
    flat = np.moveaxis(noise, 1, 0).reshape(3, -1)
    n = flat.shape[1]
    allowed = 5 * np.sqrt(np.outer(np.diag(psi), np.diag(psi)).real / n)
    assert np.all(np.abs(flat @ flat.conj().T / (2 * n) - psi) < allowed)
    assert np.all(np.abs(flat @ flat.T / (2 * n)) < allowed)  # circular
    assert np.all(np.abs(flat[:, 1:] @ flat[:, :-1].conj().T / (2 * n)) < allowed)
    np.testing.assert_array_equal(noise, add_noise(data, psi, np.random.default_rng(1)) - data)
    white = add_noise(np.zeros((2, 100_000)), 4.0, np.random.default_rng(2), coil_axis=0)
    assert white.real.std() == pytest.approx(2.0, rel=5 / math.sqrt(2 * 200_000))
    assert white.imag.std() == pytest.approx(2.0, rel=5 / math.sqrt(2 * 200_000))


def test_any_number_of_threads(monkeypatch):
    m = maps()
    told: list[float] = []
    given = {"coils": m["coils"], "field": m["field"], "dephased": ECHOES}
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("BONEMRI_THREADS", threads)
        told.clear()
        results.append(acquire(VOLUME, pools_of("mapped"), SIZE, progress=told.append, **given))
        assert told == sorted(told) and told[-1] == 1.0 and told[0] > 0
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


ONES = np.ones(GRID)
GOOD = {"trajectory": VOLUME, "pools": [PoolMap(ONES)], "voxel_size": SIZE}
BAD = [
    ({"pools": []}, "no pools: expected one at least"),
    ({"voxel_size": -1.0}, "voxel_size is -1.0: expected a number above 0 (m)"),
    ({"voxels": "sphere"}, "voxels is 'sphere': expected box or point"),
    ({"eps": 1e-20}, "eps is 1e-20: expected a relative precision from 1e-14 to below 0.1"),
    ({"pools": [PoolMap(np.ones(5))]}, "density of pool pool has shape (5,): expected (z, y, x)"),
    (
        {"pools": [PoolMap(ONES), PoolMap(ONES[1:], name="fat")]},
        "pool fat: density has shape (4, 7, 6): expected (5, 7",
    ),
    ({"pools": [PoolMap(ONES * np.nan)]}, "pool pool: density is not finite: expected numbers, and 0 where there"),
    ({"pools": [PoolMap(ONES, R2=np.inf)]}, "R2 is not finite"),
    (
        {"pools": [PoolMap(ONES, R2=np.full(GRID, np.nan))]},
        "R2 is not finite: expected numbers in every voxel that has",
    ),
    ({"pools": [PoolMap(ONES, R2=np.ones(4))]}, "R2 has shape (4,): expected a number or (5, 7, 6)"),
    ({"pools": [PoolMap(ONES, [1.0, 1.0], [0.0, 5.0])]}, "amplitude has shape (2,): expected (echo, 2), one a peak"),
    (
        {"pools": [PoolMap(ONES, np.ones((1, 3)), [0.0, 5.0])]},
        "amplitude has shape (1, 3): expected (echo,) or (echo, 2",
    ),
    ({"pools": [PoolMap(ONES, [1, 1]), PoolMap(ONES, [1, 1, 1])]}, "2 and 3 echoes: expected the same number"),
    ({"pools": [PoolMap(ONES, R2_prime=5.0)]}, "it has R2_prime, and dephased is missing: expected TE, or 0"),
    ({"field": ONES}, "there is a field, and dephased is missing"),
    ({"field": np.ones(3), "dephased": 0.0}, "field has shape (3,): expected (5, 7, 6)"),
    ({"field": ONES * np.nan, "dephased": 0.0}, "field is not finite"),
    ({"coils": ONES}, "coils has shape (5, 7, 6): expected (coil, 5, 7, 6)"),
    ({"coils": ONES[None] * np.inf}, "coils is not finite"),
    ({"dephased": np.nan}, "dephased is not finite"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_what_cannot_be_scanned(change, message):
    with pytest.raises(InputError) as error:
        acquire(**(GOOD | change))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "covariance, message",
    [
        (np.eye(2), "covariance has shape (2, 2): expected (3, 3)"),
        (np.diag([1.0, -1.0, 1.0]), "covariance is not positive definite"),
        (np.array([[1, 1j, 0], [1j, 2, 0], [0, 0, 1]]), "covariance is not Hermitian"),
        (-1.0, "covariance is not positive definite"),
    ],
)
def test_what_is_no_covariance(covariance, message):
    with pytest.raises(InputError) as error:
        add_noise(np.zeros((1, 3, 4, 5)), covariance, np.random.default_rng(0))
    assert message in str(error.value)


def test_an_empty_pool_is_silent():
    assert not np.any(acquire(VOLUME, [PoolMap(0 * ONES, R2=ONES)], SIZE, field=ONES, dephased=0.0))
