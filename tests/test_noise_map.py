"""The noise SD of an image from differences of its residuals: efficiency, maps, misfits, artefacts, interpolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from bonemri.estimators import noise_map
from bonemri.estimators.neighbourhood import Window
from bonemri.estimators.noise_map import LEAST, between_neighbours, differences, shared, shared_excess

POINTS = 3
FREEDOM = 2 * POINTS  # of residuals that are noise in every direction: as six echoes and six unknowns leave


def white(shape, seed, sd=1.0):
    """Residuals of noise alone, (voxel, point); `sd` a number or a map."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    noise = rng.normal(size=(n, POINTS)) + 1j * rng.normal(size=(n, POINTS))
    return noise * np.broadcast_to(sd, shape).reshape(-1, 1)


def told(residual, shape, size=1.0, strongest=1e3, good=True):
    """What is told of an image of residuals, not yet over their size."""
    size = np.broadcast_to(size, shape).astype(float).ravel()
    good = np.broadcast_to(good, shape).ravel().copy()
    strongest = np.broadcast_to(strongest, shape).ravel()
    return between_neighbours(residual / size[:, None], size, strongest, good, FREEDOM, shape)


def factor(shape, most=4.0):
    """Noise that rises from 1 to `most` along x, evenly in its logarithm, (z, y, x)."""
    x = np.arange(shape[-1]) / (shape[-1] - 1)
    return np.broadcast_to(most**x, shape)


# ---- one number


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_how_much_differences_share(axes):
    """By the autocorrelation of the stencil itself: 1 in the middle, the mean of the neighbours taken away."""
    stencil = np.zeros((3,) * axes)
    stencil[(1,) * axes] = 1.0
    for axis in range(axes):
        for end in (0, 2):
            place = [1] * axes
            place[axis] = end
            stencil[tuple(place)] = -1 / (2 * axes)
    both = signal.correlate(stencil, stencil)
    assert shared(axes) == pytest.approx((both**2).sum() / both.max() ** 2, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 900), (1, 30, 30), (9, 10, 10)])
def test_efficiency_is_that_of_the_differences(shape):
    """The variance of the SD over 250 images: 1/(2 nu) within four of its SDs of 9 %, with nu as it is told.

    At a rim a voxel has fewer neighbours; its differences tell a little less. A tenth is allowed for that.
    """
    found = [told(white(shape, seed), shape) for seed in range(250)]
    sd = np.array([f.sd.mean() for f in found])
    freedom = np.mean([f.freedom for f in found])
    assert freedom == pytest.approx(FREEDOM * 900 / shared(sum(n > 1 for n in shape)), rel=0.01)
    assert abs(sd.mean() - 1) < 4 * sd.std() / np.sqrt(250) + 1e-3  # the part of good voxels that is left out
    ratio = sd.var() * 2 * freedom
    assert 1 - 0.36 < ratio < (1 + 0.36) * 1.1


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-12, 1e12),
    flips=st.sets(st.integers(0, 2)),
    order=st.permutations([0, 1, 2]),
)
def test_units_and_directions_do_not_matter(seed, scale, flips, order):
    """An image on its side, in other units, has its map on its side; turned over, its differences turned over."""
    shape = (3, 16, 20)
    residual = white(shape, seed, factor(shape)).reshape(*shape, POINTS)
    found = told(residual.reshape(-1, POINTS), shape)
    turned = residual.transpose(*order, 3)
    other = told(scale * turned.reshape(-1, POINTS), turned.shape[:3])
    assert other.freedom == pytest.approx(found.freedom)
    np.testing.assert_allclose(other.sd / scale, found.sd.reshape(shape).transpose(order).ravel(), rtol=1e-9)
    all_axes = dict.fromkeys(range(3), 1)
    plain, over = (
        differences(r.reshape(-1, POINTS), np.ones(960), np.ones(960, bool), FREEDOM, shape, all_axes).reshape(shape)
        for r in (residual, np.flip(residual, tuple(flips)))
    )
    np.testing.assert_allclose(np.flip(over, tuple(flips)), plain, rtol=1e-9)


def test_too_few_tell_nothing():
    """One voxel, voxels without neighbours, no residual, no good voxel: left to the pooled residuals."""
    assert told(white((1, 1, 1), 0), (1, 1, 1)) is None
    assert told(white((1, 3, 3), 0), (1, 3, 3)) is None
    checks = np.indices((1, 20, 20)).sum(axis=0) % 2 == 0
    assert told(white((1, 20, 20), 0), (1, 20, 20), good=checks) is None
    assert told(white((1, 20, 20), 0), (1, 20, 20), good=False) is None
    residual = white((1, 20, 20), 0)
    assert between_neighbours(residual, np.ones(400), np.ones(400), np.ones(400, bool), 0, (1, 20, 20)) is None
    assert told(white((1, 5, 5), 0), (1, 5, 5)).freedom >= LEAST


def test_voxels_that_were_not_fitted_do_not_count():
    residual = white((1, 30, 30), 1).reshape(1, 30, 30, POINTS)
    residual[0, 4:7] = np.nan
    found = told(residual.reshape(-1, POINTS), (1, 30, 30))
    assert np.isfinite(found.sd).all() and found.sd.mean() == pytest.approx(1.0, abs=0.06)
    size = np.ones((1, 30, 30))
    size[0, 0] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        assert told(white((1, 30, 30), 1), (1, 30, 30), size=size).sd.mean() == pytest.approx(1.0, abs=0.06)


def test_the_size_of_the_pieces_does_not_matter(monkeypatch):
    shape = (2, 20, 20)
    whole = told(white(shape, 3, factor(shape)), shape)
    monkeypatch.setattr(noise_map, "CHUNK", 37)
    np.testing.assert_array_equal(told(white(shape, 3, factor(shape)), shape).sd, whole.sd)


# ---- what the model lacks, artefacts, interpolation


@pytest.mark.parametrize("shape", [(1, 1, 800), (1, 28, 28), (6, 12, 12)])
def test_a_misfit_that_neighbours_share_is_no_noise(shape):
    """Twenty times the noise, in proportion to an amplitude that changes by a factor of three over the image."""
    x = np.broadcast_to(np.arange(shape[-1]) / shape[-1], shape)
    size = 1 + 2 * x
    lacks = 20 * np.array([1, -1j, 0.5 + 1j]) / np.linalg.norm([1, 1, 0.5, 1]) * np.sqrt(FREEDOM)
    residual = white(shape, 5) + size.reshape(-1, 1) * lacks
    found = told(residual, shape, size=size)
    error = 1 / np.sqrt(2 * found.freedom)
    assert found.sd.mean() == pytest.approx(1.0, abs=4 * error)
    pooled = np.sqrt((np.abs(residual) ** 2).sum(axis=1).mean() / FREEDOM)
    assert pooled > 20  # what residuals alone would have called noise


def test_artefacts_are_left_out():
    """Two voxels of a hundred with residuals a thousand times too large: they spoil themselves and their neighbours."""
    shape = (1, 50, 50)
    rng = np.random.default_rng(6)
    residual = white(shape, 6)
    residual[rng.random(2500) < 0.02] *= 1e3
    found = told(residual, shape)
    # a tenth of the differences is lost: the SD is known to 1/sqrt(2 8000) = .8 %
    assert np.median(found.sd) == pytest.approx(1.0, abs=0.03)
    assert found.sd.max() < 1.15


def test_faint_voxels_are_left_out():
    """The fit of air follows its noise and leaves too little: half of the image, with half of the residual."""
    shape = (1, 40, 40)
    air = np.broadcast_to(np.arange(40) < 20, shape)
    residual = white(shape, 7, np.where(air, 0.5, 1.0))
    found = told(residual, shape, strongest=np.where(air, 2.0, 60.0))
    assert found.sd.mean() == pytest.approx(1.0, abs=0.03)
    faint = told(residual, shape, strongest=2.0)  # where all is faint, that is what there is
    assert faint is not None and faint.sd.mean() < 0.95


@pytest.mark.parametrize(("axes", "by"), [((2,), 2), ((1, 2), 2), ((1, 2), 4), ((0, 1, 2), 2)])
def test_interpolated_images(axes, by):
    """Zeros added to k-space: neighbours share their noise, and the SD is told by voxels farther apart.

    A sinc leaves neighbours of an image interpolated by two correlated by 64 %: differences would be short by half.
    """
    coarse = [1, 48, 48] if len(axes) < 3 else [12, 20, 20]
    residual = white(tuple(coarse), 8).reshape(*coarse, POINTS)
    for axis in axes:
        n = residual.shape[axis]
        room = [(0, 0)] * 4
        room[axis] = ((by - 1) * n // 2,) * 2
        k = np.fft.fftshift(np.fft.fft(residual, axis=axis), axes=axis)
        residual = by * np.fft.ifft(np.fft.ifftshift(np.pad(k, room), axes=axis), axis=axis)
    shape = residual.shape[:3]
    flat = residual.reshape(-1, POINTS)
    found = told(flat, shape)
    true = np.sqrt((np.abs(flat) ** 2).mean() / 2)
    assert np.median(found.sd) == pytest.approx(true, rel=0.05)
    assert found.alike >= by ** len(axes)
    # neighbours whose residual is large together are less of a finding here
    over = (np.abs(flat) ** 2).sum(axis=1) / (FREEDOM * true**2)
    assert (shared_excess(over, np.ones(len(flat), bool), FREEDOM, shape, found.alike) == 1).all()
    one = differences(flat, np.ones(len(flat)), np.ones(len(flat), bool), FREEDOM, shape, {2: 1})
    assert np.sqrt(np.nanmean(one)) < 0.6 * true  # the test could tell


# ---- a map


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 96, 96), (10, 24, 24), (1, 1, 3000)])
def test_uneven_noise_is_mapped(shape):
    """A factor of four across the image: right at rims as in the middle, with the scatter that its freedom tells.

    Over 12 images: the mean SD within 5 % everywhere (a coverage within 94 to 96 %), scatter at most as that of 300
    degrees of freedom, 4 %, and the bend of the exponential within a neighbourhood.
    """
    sd = factor(shape)
    found = [told(white(shape, seed, sd), shape) for seed in range(12)]
    ratio = np.stack([f.sd.reshape(shape) / sd for f in found])
    mean = ratio.mean(axis=(0, 1, 2))
    columns = np.array([part.mean() for part in np.array_split(mean, 8)])
    assert (np.abs(columns - 1) < 0.05).all(), columns
    assert ratio.std(axis=0).mean() < 0.05
    assert all(200 <= f.freedom < FREEDOM * sd.size / 4 for f in found)


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 96, 96), (10, 24, 24)])
def test_even_noise_is_one_number(shape):
    """Nearly always: the map departs by more than chance in about one image of forty, and then hardly."""
    spread = np.array([np.ptp(told(white(shape, seed), shape).sd) for seed in range(20)])
    assert np.median(spread) == 0
    assert spread.max() < 0.06


def test_places_of_a_series_are_images_of_their_own():
    """Of (t, z, y, x), t is no space: noise that differs from one to the next is told apart."""
    shape = (2, 1, 24, 24)
    sd = np.array([1.0, 5.0]).reshape(2, 1, 1, 1)
    found = told(white(shape, 9, sd), shape).sd.reshape(2, -1)
    np.testing.assert_allclose(found.mean(axis=1), [1.0, 5.0], rtol=0.06)


def test_a_plane_is_laid_through_a_neighbourhood():
    """Linear values come back at rims too, where a mean over the neighbourhood is drawn to the inside."""
    window = Window.of((1, 24, 30), [1, 2], 60.0)
    y, x = np.indices(window.grid[1:])
    values = (1.0 + 0.02 * y + 0.03 * x).ravel()
    count = np.full(window.count, 1e6)  # against which the tenth of a voxel of 1 is nothing
    np.testing.assert_allclose(window.linear(values * count, count), values, rtol=1e-5)
    drawn, _ = window.constant(values * count, count)
    assert abs(drawn[0] / values[0] - 1) > 0.02
    np.testing.assert_allclose(window.constant(3.0 * count, count)[0], 3.0)
    # inside, a neighbourhood counts as the voxels that were asked
    whole = Window.of((1, 200, 200), [1, 2], 100.0)
    ones = whole.counted(whole.cell)
    assert ones.sum() == 200 * 200
    middle = np.ravel_multi_index([n // 2 for n in whole.grid], whole.grid)
    # a squared Gaussian summed at places a width apart is its integral to 2 exp(-pi^2) an axis, by Poisson's formula
    assert whole.constant(ones, ones)[1][middle] == pytest.approx(100.0, rel=4 * 2 * np.exp(-(np.pi**2)))


def test_blocks_are_spread_over_voxels_linearly():
    window = Window.of((1, 9, 40), [1, 2], 300.0)
    assert window.edges[2] > 1
    middle = (np.arange(window.grid[2]) + 0.5) * window.edges[2] - 0.5
    blocks = np.broadcast_to(middle, window.grid)
    found = window.spread(blocks.ravel()).reshape(1, 9, 40)
    inside = slice(int(np.ceil(middle[0])), int(middle[-1]))
    np.testing.assert_allclose(found[0, 3, inside], np.arange(40)[inside], atol=1e-12)


# ---- residuals larger than noise


def test_shared_excess_of_noise_and_of_a_misfit():
    """1 by noise alone; a misfit as large as the noise makes it 2; an artefact is not shared."""
    shape = (1, 60, 60)
    rng = np.random.default_rng(11)
    over = rng.chisquare(FREEDOM, 3600) / FREEDOM
    good = np.ones(3600, bool)
    mean = shared_excess(over, good, FREEDOM, shape)
    np.testing.assert_array_equal(mean, 1.0)
    lacking = rng.noncentral_chisquare(FREEDOM, FREEDOM, 3600) / FREEDOM
    assert shared_excess(lacking, good, FREEDOM, shape).mean() == pytest.approx(2.0, abs=0.05)
    over[1830] = 1e9
    assert shared_excess(over, good, FREEDOM, shape).max() == 1.0
    over[1830] = np.nan
    assert np.isfinite(shared_excess(over, good, FREEDOM, shape)).all()


def test_few_voxels_have_no_shared_excess():
    """Two voxels of six degrees of freedom reach 2 by chance in one case of fifty; forty never do."""
    np.testing.assert_array_equal(shared_excess(np.full(2, 2.0), np.ones(2, bool), FREEDOM, (1, 1, 2)), 1.0)
    assert (shared_excess(np.full(40, 2.0), np.ones(40, bool), FREEDOM, (1, 1, 40)) > 1.9).all()
