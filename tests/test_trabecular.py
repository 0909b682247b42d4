"""Random fields, and the trabecular bone that their level sets bound."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.phantoms import random_field, skeleton
from bonemri.phantoms.trabecular import plan, structure, trabecular

SIZE = 3e-3
COARSE = 50e-6


def axis(n: int, step: float) -> np.ndarray:
    return (np.arange(n) - (n - 1) / 2) * step


def crossings(volume: np.ndarray) -> np.ndarray:
    """Surfaces met by lines along z, y and x, for each unit of length."""
    inside = volume >= 0.5
    return np.array([(np.diff(inside, axis=a)).mean() for a in range(3)])


def drawn(seed=0, resolution=COARSE, n=60, **asked):
    asked = {"bvtv": 0.16, "thickness": 150e-6, "spacing": None, "plates": 0.3, "anisotropy": 1.48} | asked
    return structure(plan(**asked), seed, resolution, (n, n, n))


# ---- random fields -----------------------------------------------------------------------------------------------


def test_a_field_is_the_sum_of_its_waves():
    waves = random_field.shell(np.random.default_rng(3), 4000.0, count=32)
    z, y, x = axis(3, 1e-4), axis(6, 1e-4), axis(5, 1e-4)  # rows that are no multiple of those done together
    found = random_field.sample(waves, z, y, x)
    grid = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1)
    expected = math.sqrt(2 / 32) * np.cos(grid @ waves.vector.T + waves.phase).sum(axis=-1)
    # 64 products of order .25 in single precision
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * 0.25 * 2**-23)


@pytest.mark.parametrize("stretch", [1.0, 1.7])
def test_the_spectrum_is_a_shell(stretch):
    k = 5000.0
    waves = random_field.shell(np.random.default_rng(0), k, bandwidth=0.1, stretch=stretch)
    length = np.linalg.norm(waves.vector * [stretch, 1, 1], axis=1)
    assert math.sqrt((length**2).mean()) == pytest.approx(k, rel=1e-12)
    # slices of equal probability: the SD of the logarithm is met to the share of one slice
    assert np.log(length).std() == pytest.approx(0.1, rel=0.05)
    # A spiral of n points over a half sphere has second moments 1/3 to order 1/n.
    expected = k**2 / 3 / np.array([stretch, 1, 1]) ** 2
    np.testing.assert_allclose(random_field.mean_square_slope(waves), expected, rtol=10 / random_field.WAVES)


def test_the_field_is_normal():
    from scipy.special import erfinv

    # Points of independent fields: each quantile then has the SD sqrt(p (1-p) / n) / density.
    n = 4000
    points = [random_field.sample(random_field.shell(np.random.default_rng(i), 1.0), *(np.zeros(1),) * 3).item()
              for i in range(n)]
    for share in (0.05, 0.16, 0.5, 0.9):
        exact = math.sqrt(2) * erfinv(2 * share - 1)
        density = math.exp(-(exact**2) / 2) / math.sqrt(2 * math.pi)
        assert np.quantile(points, share) == pytest.approx(exact, abs=4 * math.sqrt(share * (1 - share) / n) / density)


def test_level_sets_have_the_area_and_length_of_rice():
    k, n, step = 1.0, 120, 0.25
    x = axis(n, step)
    area, length = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        one, two = (random_field.sample(random_field.shell(rng, k), x, x, x) for _ in range(2))
        # Cauchy: the area in a volume is twice the crossings of a random line of unit length.
        area.append(2 * crossings((one > 0).astype(float)).mean() / step)
        # A line on which both vanish threads a face of four voxels when the phase turns about it; 2 times the piercings
        # of a plane is the length in a volume.
        phase = np.angle(one + 1j * two)
        square = [phase[:, :-1, :-1], phase[:, :-1, 1:], phase[:, 1:, 1:], phase[:, 1:, :-1]]
        turn = sum(np.angle(np.exp(1j * (b - a))) for a, b in zip(square, square[1:] + square[:1], strict=True))
        length.append(2 * (np.abs(turn) > np.pi).mean() / step**2)
    for found, exact in ((area, random_field.surface_density(k)), (length, random_field.line_density(k))):
        error = np.std(found, ddof=1) / math.sqrt(len(found))
        # four standard errors of six fields, and crossings closer than a voxel, of order (k step)^2 / 6
        assert np.mean(found) == pytest.approx(exact, abs=4 * error + exact * (k * step) ** 2 / 6)


# ---- the skeleton ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plates", [0.0, 0.4, 1.0])
def test_the_law_of_distances_is_that_of_the_grid(plates):
    law, x = skeleton.law(plates, 1.4), axis(64, 0.35)
    share = []
    for seed in range(6):
        found = skeleton.distance(np.random.default_rng(seed), (x, x, x), 0.35, wavenumber=1.0, width=law.width,
                                  stretch=1.4, bandwidth=0.2)
        share.append((found < 0.3).mean())
    assert np.mean(share) == pytest.approx(law.share(0.3), abs=4 * np.std(share, ddof=1) / math.sqrt(6) + 0.003)


def test_thin_plates_and_rods_have_the_volume_of_their_area_and_length():
    radius = 0.03
    plates, rods = skeleton.law(1.0, 1.0), skeleton.law(0.0, 1.0)
    # 2^15 quasi-random points: the standard error of a share is at most that of independent ones
    share = 2 * radius * random_field.surface_density(1.0)
    assert plates.share(radius) == pytest.approx(share, abs=4 * math.sqrt(share / 2**15))
    # two families of lines, thicker to be seen at all; where they cross they share a little
    share = 2 * math.pi * 0.1**2 * random_field.line_density(1.0)
    assert rods.share(0.1) == pytest.approx(share, abs=4 * math.sqrt(share / 2**15) + 0.08 * share)


# ---- structure ---------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, derandomize=True)
@given(bvtv=st.floats(0.06, 0.3), plates=st.floats(0.15, 1.0), anisotropy=st.floats(1.0, 1.8), seed=st.integers(0, 99))
def test_bvtv_is_met(bvtv, plates, anisotropy, seed):
    found = drawn(seed, bvtv=bvtv, plates=plates, anisotropy=anisotropy, thickness=200e-6)
    # the radius is found to 1e-6 of a voxel, on a histogram of 8192 distances
    assert found.volume.mean() == pytest.approx(bvtv, abs=1e-4)
    assert found.volume.min() >= 0 and found.volume.max() <= 1


@pytest.mark.parametrize("plates", [0.1, 0.3, 0.5])
def test_bone_hangs_together_and_so_does_marrow(plates):
    from scipy import ndimage

    found = drawn(1, plates=plates)
    _, count = ndimage.label(found.fine > 0.5, np.ones((3, 3, 3)))
    assert count == 1
    assert 0 <= found.removed < 0.15
    assert found.marrow_connected > 0.95


def test_plates_without_holes_part_the_marrow():
    assert drawn(1, plates=1.0).marrow_connected < 0.95


def test_what_is_taken_away_is_reported():
    # rods so thin that some float, as their net is cut by the faces of the cube
    found = [drawn(seed, bvtv=0.05, plates=0.0, n=70) for seed in range(2)]
    assert all(each.removed > 0 for each in found)
    for each in found:
        assert each.volume.mean() == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("anisotropy", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("plates", [0.1, 0.9])
def test_lines_along_the_bone_meet_it_less_often(anisotropy, plates):
    ratio = []
    for seed in range(4):
        z, y, x = crossings(drawn(seed, anisotropy=anisotropy, plates=plates, n=60).volume)
        ratio.append((y + x) / 2 / z)
    # Four cubes of some 4 x 4 x 4 marrow spaces each; beside their scatter, 6 %: the ends and crossings of trabeculae,
    # which neither the law of surfaces nor that of thin rods holds.
    error = np.std(ratio, ddof=1) / 2
    assert np.mean(ratio) == pytest.approx(anisotropy, abs=4 * error + 0.06 * anisotropy)


@pytest.mark.parametrize(("bvtv", "plates", "resolution"), [(0.12, 0.1, 45e-6), (0.16, 0.3, 45e-6), (0.2, 0.7, 50e-6)])
def test_what_is_prescribed_is_measured(bvtv, plates, resolution):
    phantom = trabecular(seed=2, bvtv=bvtv, plates=plates, thickness=150e-6, anisotropy=1.4, size=4e-3,
                         resolution=resolution)
    found, asked = phantom.pools.attrs, json.loads(phantom.pools.attrs["parameters"])
    assert found["bvtv"] == pytest.approx(bvtv, abs=2e-4)
    # Three voxels across: the morphometry itself is good to a tenth of a voxel or so, and the width of the spheres over
    # twice the radius was measured to 3 %.
    assert found["trabecular_thickness"] == pytest.approx(150e-6, rel=0.08)
    # The cube holds some 5^3 marrow spaces, of which the mean scatters; the widest are cut by its faces.
    assert found["trabecular_spacing"] == pytest.approx(asked["spacing"], rel=0.12)
    # One cube: along over across scatters by some 10 %, and the shortest of two directions across is taken.
    assert 1.4 * 0.9 < found["degree_of_anisotropy"] < 1.4 * 1.3
    assert found["connectivity_density"] > 0
    # on the grid that it was drawn on all of it hangs together; here necks of half a voxel may not be seen
    assert found["largest_share"] > 0.99


def test_spacing_over_thickness_rises_with_plates_and_falls_with_bvtv():
    gaps = [plan(0.16, 150e-6, None, plates, 1.48).spacing for plates in (0.0, 0.3, 0.6, 1.0)]
    assert gaps == sorted(gaps)
    gaps = [plan(bvtv, 150e-6, None, 0.3, 1.48).spacing for bvtv in (0.08, 0.12, 0.2, 0.3)]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("bvtv", [0.05, 0.3])
def test_bvtv_alone_never_asks_for_loose_rods_or_closed_walls(bvtv):
    phantom = trabecular(bvtv=bvtv, resolution=100e-6, morphometry=False)
    assert 0.14 < json.loads(phantom.pools.attrs["parameters"])["plates"] < 0.46
    assert phantom.pools.attrs["bvtv"] == pytest.approx(bvtv, abs=2e-4)
    assert phantom.pools.attrs["marrow_connected"] > 0.95


@pytest.mark.parametrize(("thickness", "spacing", "plates"), [(150e-6, 700e-6, None), (None, 700e-6, 0.3),
                                                              (150e-6, None, 0.3)])
def test_any_two_of_three_give_the_third(thickness, spacing, plates):
    first = plan(0.15, thickness, spacing, plates, 1.48)
    again = plan(0.15, first.thickness, None, first.plates, 1.48)
    # the share of plates is found by interpolation between 21 of them
    assert again.spacing == pytest.approx(first.spacing, rel=2e-3)
    assert again.wavenumber == pytest.approx(first.wavenumber, rel=2e-3)


# ---- the same structure ------------------------------------------------------------------------------------------


def test_a_finer_grid_refines_the_same_bone():
    # in a dense bone where nothing is loose: which piece hangs on by a neck thinner than a voxel is for the grid to say
    asked = {"bvtv": 0.25, "plates": 0.5}
    one, two, four = (drawn(5, resolution=40e-6 / times, n=48 * times, **asked) for times in (1, 2, 4))
    assert two.removed < 0.01

    def halved(volume):
        n = len(volume) // 2
        return volume.reshape(n, 2, n, 2, n, 2).mean(axis=(1, 3, 5))

    # A ramp takes every surface for upright to the grid: in the voxels that it passes, a tilted one is wrong by up to
    # .13 along the diagonal, at random. A surface bent by more than a voxel (edges, corners) is wrong by more.
    for coarse, fine in ((one, two), (two, four)):
        difference = halved(fine.volume) - coarse.volume
        passed = (coarse.volume > 0) & (coarse.volume < 1)
        assert math.sqrt((difference[passed] ** 2).mean()) < 0.13
        assert abs(difference.mean()) < 1e-5


def test_the_same_seed_is_the_same_bone_for_any_number_of_threads(monkeypatch):
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("BONEMRI_THREADS", threads)
        found.append(drawn(7, n=40).volume)
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - drawn(8, n=40).volume).mean() > 0.05


def test_coarser_voxels_hold_the_same_bone():
    phantom = trabecular(size=SIZE, resolution=COARSE, morphometry=False)
    coarse = phantom.coarsen(6)
    for name in ("volume_fraction", "density"):
        fine, large = (each.pools[name].mean(("z", "y", "x")).values for each in (phantom, coarse))
        np.testing.assert_allclose(large, fine, rtol=1e-12)
    assert float(coarse.truth["bvtv"].mean()) == pytest.approx(float(phantom.truth["bvtv"].mean()), rel=1e-12)


# ---- the phantom -------------------------------------------------------------------------------------------------


def test_the_truth_is_what_was_asked_for():
    phantom = trabecular("old", size=SIZE, resolution=COARSE, bvtv=0.13, pdff=0.52, perfusion_fraction=0.05, D=4e-4,
                         morphometry=False)
    truth = phantom.truth
    assert float(truth["bvtv"].mean()) == pytest.approx(0.13, abs=1e-4)
    marrow = truth["bvtv"].values < 1
    np.testing.assert_allclose(truth["pdff"].values[marrow], 0.52, rtol=1e-12)
    total = phantom.pools["volume_fraction"].sum("pool").values
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-12)
    assert phantom.pools.attrs["bvtv"] == pytest.approx(0.13, abs=1e-4)


def test_conditions_are_ordered():
    parameters = [json.loads(trabecular(name, resolution=100e-6, morphometry=False).pools.attrs["parameters"])
                  for name in ("young", "old", "osteoporotic")]
    for name, falls in (("bvtv", True), ("thickness", True), ("spacing", False)):
        values = [each[name] for each in parameters]
        assert values == sorted(values, reverse=falls), name
        assert len(set(values)) == 3, name


def test_r2_prime_emerges_from_the_structure():
    rates = []
    for bvtv in (0.08, 0.16, 0.28):
        phantom = trabecular(bvtv=bvtv, size=SIZE, resolution=60e-6, pdff=0.0, morphometry=False)
        offset = phantom.offset(direction=(1, 0, 0))
        marrow = phantom.pools["volume_fraction"].sel(pool="marrow_water").values
        inner = (slice(10, -10),) * 3
        weight = marrow[inner] / marrow[inner].sum()
        signal = [abs((weight * np.exp(2j * np.pi * offset[inner] * t)).sum()) for t in (5e-3, 15e-3)]
        rates.append(math.log(signal[0] / signal[1]) / 10e-3)
    assert 5 < rates[0] < rates[1] < rates[2]


@pytest.mark.parametrize(("asked", "message"), [
    ({"condition": "ancient"}, "no condition 'ancient'"),
    ({"seed": -1}, "seed is -1"),
    ({"resolution": 5e-4}, "larger than the object itself"),
    ({"resolution": 1e-6}, "voxels, at most"),
    ({"field": 14.0}, "not known at field 14 T"),
    ({"bvtv": 1.2}, "bvtv is 1.2, should lie from 0.01 to 0.6"),
    ({"bvtv": 0.55, "plates": 0.0}, "bvtv is 0.55, should be at most"),
    ({"thickness": 150e-6, "spacing": 3e-4, "bvtv": 0.1}, "spacing over thickness is 2"),
    ({"thickness": 150e-6, "spacing": 7e-4, "plates": 0.5}, "give two of the three"),
    ({"anisotropy": 0.5}, "anisotropy is 0.5, should lie from 1 to 3"),
    ({"plates": 2}, "plates is 2"),
    ({"size": 1e-3}, "size is 0.001"),
    ({"size": (5e-3, 5e-3)}, "should be one edge (m) or three"),
    ({"pdff": 1.5}, "pdff is 1.5"),
    ({"perfusion_fraction": -0.1}, "perfusion_fraction is -0.1"),
    ({"D": 1.0}, "D is 1.0"),
])  # fmt: skip
def test_bad_input(asked, message):
    with pytest.raises(InputError) as caught:
        trabecular(**asked)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cube_too_large_to_be_drawn_finer_is_drawn_on_its_voxels(monkeypatch):
    import importlib

    module = importlib.import_module("bonemri.phantoms.trabecular")
    shape = (48, 48, 48)
    wanted = module.plan(0.16, 150e-6, None, 0.3, 1.5)
    assert module.structure(wanted, 0, 60e-6, shape).size < 60e-6
    monkeypatch.setattr(module, "MOST_VOXELS", 48**3)
    drawn = module.structure(wanted, 0, 60e-6, shape)
    assert drawn.size == 60e-6
    assert drawn.volume.mean() == pytest.approx(0.16, abs=0.002)
