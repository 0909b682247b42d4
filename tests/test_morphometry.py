"""Morphometry of bodies whose measures are known in closed form, and its invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bonemri.errors import InputError
from bonemri.phantoms import morphometry
from bonemri.phantoms.morphometry import (
    bvtv,
    canals,
    connectivity,
    cortical_thickness,
    euler_number,
    fabric,
    local_thickness,
    measure,
    porosity,
)  # fmt: skip

OFF = (0.137, 0.211, -0.31)  # no body is centred on the grid


def grid(shape, edge=(1.0, 1.0, 1.0)):
    """Positions (z, y, x) of voxel centres around a middle that is off the grid."""
    axes = [(np.arange(n) - (n - 1) / 2 + shift) * size for n, shift, size in zip(shape, OFF, edge, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def along(direction, positions):
    unit = np.array(direction, dtype=float) / np.linalg.norm(direction)
    return sum(n * x for n, x in zip(unit, positions, strict=True))


def slab(width, direction):
    return np.abs(along(direction, grid((int(2.4 * width) + 6,) * 3))) <= width / 2


def cylinder(width, direction):
    positions = grid((int(1.6 * width) + 7,) * 3)
    return sum(x * x for x in positions) - along(direction, positions) ** 2 <= width**2 / 4


def sphere(width):
    return sum(x * x for x in grid((int(width) + 7,) * 3)) <= width**2 / 4


TILTS = [(0, 0, 1), (1, 1, 1), (0, 1, 5), (1, 2, 5), (0.05, 0.02, 1)]


@pytest.mark.parametrize("direction", TILTS)
def test_a_slab_is_as_thick_as_it_is_at_any_tilt(direction):
    """3 % at 20 voxels across."""
    assert local_thickness(slab(20, direction), 1e-3).mean == pytest.approx(20e-3, rel=0.03)


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 2, 5)])
def test_a_cylinder_is_as_thick_as_it_is_at_any_tilt(direction):
    assert local_thickness(cylinder(20, direction), 1e-3).mean == pytest.approx(20e-3, rel=0.03)


def test_thickness_converges_with_resolution():
    """The error of a surface is a fraction of a voxel, so that of a thickness falls as one over the resolution."""
    for body in (sphere, lambda width: cylinder(width, (1, 2, 5)), lambda width: slab(width, (1, 2, 5))):
        errors = [abs(local_thickness(body(width), 1.0).mean / width - 1) for width in (10, 20, 40)]
        assert errors[1] < 0.03 and errors[2] < 0.02
        assert errors[0] >= errors[2] or errors[0] < 0.003


def test_partial_volume_makes_thickness_finer_than_the_voxel():
    """A slab whose width is no whole number of voxels: the mask would say 7 or 8."""
    for width in (7.2, 7.5, 7.8):
        z = np.arange(40) - 19.77
        filled = np.clip(width / 2 - np.abs(z) + 0.5, 0, 1)
        block = np.broadcast_to(filled[:, None, None], (40, 12, 12))
        assert local_thickness(block, 1.0).mean == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
def test_sheets_of_few_voxels_are_not_lost(width):
    sheet = np.zeros((20, 12, 12), dtype=bool)
    sheet[8 : 8 + width] = True
    found = local_thickness(sheet, 1.0)
    assert found.mean == pytest.approx(width, rel=0.04)  # smoothing thins a sheet of two by 3.5 %
    assert np.isfinite(found.map[sheet]).all() and np.isnan(found.map[~sheet]).all()


@pytest.mark.parametrize("direction, size, border", [((1, 0, 0), 100, "closed"), ((1, 2, 5), 80, "open")])
def test_spacing_between_plates(direction, size, border):
    """Plates 10 thick, 20 apart."""
    s = along(direction, grid((size, 80 if border == "open" else 40, 80))) % 30.0
    found = measure(np.abs(s - 15.0) < 5.0, 1e-3, border)
    assert found["trabecular_thickness"] == pytest.approx(10e-3, rel=0.06)  # 10 voxels across
    # The far walls of pores cut by an open border are not seen: one spacing away from it they all are.
    wide = found["trabecular_spacing"] if border == "closed" else local_thickness(
        np.abs(s - 15.0) >= 5.0, 1e-3, margin=20e-3).mean
    assert wide == pytest.approx(20e-3, rel=0.03)
    assert found["trabecular_spacing"] == pytest.approx(20e-3, rel=0.05)


def test_a_closed_border_ends_the_structure():
    block = np.ones((8, 24, 24), dtype=bool)
    found = local_thickness(block, 1.0, border="closed")
    assert found.map[4, 12, 12] == pytest.approx(8, rel=0.02)
    assert found.mean < 8  # no sphere of that size reaches into the edges


def test_thickness_in_voxels_that_are_not_cubes():
    edge = (2.0, 1.0, 1.0)
    ball = sum(x * x for x in grid((26, 48, 48), edge)) <= 20.0**2
    assert local_thickness(ball, edge).mean == pytest.approx(40, rel=0.03)


def test_two_thicknesses_keep_apart():
    """A slab of 6 beside one of 16: each voxel has its own, and the mean is weighted by volume."""
    body = np.zeros((20, 60, 20), dtype=bool)
    body[:, 8:14], body[:, 30:46] = True, True
    found = local_thickness(body, 1.0, margin=0.0)
    assert np.nanmedian(found.map[:, 8:14]) == pytest.approx(6, abs=0.1)
    assert np.nanmedian(found.map[:, 30:46]) == pytest.approx(16, abs=0.1)
    assert found.mean == pytest.approx((6 * 6 + 16 * 16) / 22, rel=0.01)


def test_the_surface_is_nearest_by_the_sweeps_as_by_a_tree():
    from scipy.spatial import cKDTree

    from bonemri.phantoms import spheres, thickness

    rough = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((40, 40, 40)), 3) > 0
    edge = np.array([1.0, 1.3, 0.7])
    solid = rough.astype(np.uint8)
    points, cells = thickness.surface(rough.astype(float), edge)
    index, square = np.full(solid.shape, -1, dtype=np.int32), np.full(solid.shape, np.inf)
    spheres.seed(points, cells, edge, solid, index, square)
    spheres.nearest(points, edge, solid, index, square)
    exact = cKDTree(points).query(np.argwhere(rough) * edge)[0]
    assert (np.sqrt(square[rough]) >= exact - 1e-9).all()
    # A point that is nearest to no neighbour on the way does not arrive: rarely, and by parts of a voxel.
    assert np.sqrt(square[rough]) == pytest.approx(exact, abs=0.2)
    assert (np.sqrt(square[rough]) - exact).mean() < 0.005


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(0, 1), (0, 2), (1, 2)]), st.floats(1e-6, 1.0))
def test_invariances(seed, plane, size):
    """Turning the grid by 90 degrees changes nothing but the order of sums; the voxel size only scales."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((24, 24, 24)), 2) > 0.05
    found, turned = measure(rough, 1.0), measure(np.rot90(rough, axes=plane), 1.0)
    scaled = measure(rough, size)
    assert turned["bvtv"] == pytest.approx(found["bvtv"], rel=1e-12)
    assert turned["euler_number"] == found["euler_number"]
    # The climb of centres and the order of equal spheres are the grid's: a hundredth of a voxel or two, of about six.
    for name in ("trabecular_thickness", "trabecular_spacing"):
        assert turned[name] == pytest.approx(found[name], rel=0.02)
        assert scaled[name] == pytest.approx(found[name] * size, rel=1e-9)
    assert turned["degree_of_anisotropy"] == pytest.approx(found["degree_of_anisotropy"], rel=0.01)
    assert scaled["connectivity_density"] == pytest.approx(found["connectivity_density"] / size**3, rel=1e-9)
    assert local_thickness(~rough, 1.0).mean == found["trabecular_spacing"]
    assert bvtv(~rough) == pytest.approx(1 - bvtv(rough), rel=1e-12)


def test_same_mask_same_bits():
    rough = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((30, 30, 30)), 2) > 0
    assert measure(rough, 1e-4) == measure(rough.copy(), 1e-4)


@pytest.mark.parametrize("stretch", [1.0, 1.5, 2.0])
def test_anisotropy_of_ellipsoids(stretch):
    """The shadow of an ellipsoid is a quadratic form in direction: its lengths are exactly in its axes' ratio."""
    z, y, x = grid((int(20 * stretch) + 8, 28, 28))
    found = fabric((z / stretch) ** 2 + y**2 + x**2 <= 100, 1e-3)
    assert found.degree_of_anisotropy == pytest.approx(stretch, rel=0.03)
    if stretch > 1:
        assert abs(found.axes[0, 0]) == pytest.approx(1, abs=1e-3)
    # The mean chord of a convex body along n is its volume over its shadow: 4/3 of the radius of a sphere.
    assert found.lengths[1] == pytest.approx(10e-3 * 4 / 3, rel=0.03)


def test_anisotropy_converges_with_resolution():
    errors = []
    for radius in (5, 10, 20):
        z, y, x = grid((3 * radius, *(2 * radius + 8,) * 2))
        shape = (3 * radius + 8, 2 * radius + 8, 2 * radius + 8)
        z, y, x = grid(shape)
        errors.append(abs(fabric((z / 1.5) ** 2 + y**2 + x**2 <= radius**2, 1.0).degree_of_anisotropy / 1.5 - 1))
    assert errors[2] < 0.01 and errors[2] < errors[0]


def test_anisotropy_is_physical_in_voxels_that_are_not_cubes():
    edge = (2e-3, 1e-3, 1e-3)
    ball = sum(x * x for x in grid((28, 48, 48), edge)) <= (20e-3) ** 2
    assert fabric(ball, edge).degree_of_anisotropy == pytest.approx(1, rel=0.03)


def test_rods_and_plates_show_their_axis():
    rod, plate = cylinder(12, (1, 2, 2)), slab(8, (1, 2, 2))
    unit = np.array([1, 2, 2]) / 3
    assert abs(fabric(rod, 1.0).axes[0] @ unit) == pytest.approx(1, abs=0.01)
    assert abs(fabric(plate, 1.0).axes[2] @ unit) == pytest.approx(1, abs=0.01)
    assert fabric(rod, 1.0).degree_of_anisotropy > 3
    straight = np.zeros((9, 20, 20), dtype=bool)
    straight[:, 5:12] = True
    assert fabric(straight, 1.0).degree_of_anisotropy > 1e3  # no line along it meets a surface


def bodies():
    ball, torus, shell, two = (np.zeros((11, 11, 11), dtype=bool) for _ in range(4))
    ball[2:6, 3:8, 2:9] = True
    torus[4:7, 1:10, 1:10] = True
    torus[4:7, 4:7, 4:7] = False
    shell[1:10, 1:10, 1:10] = True
    shell[4:7, 4:7, 4:7] = False
    two[1:3, 1:3, 1:3], two[6:9, 6:9, 6:9] = True, True
    handles = np.zeros((11, 11, 11), dtype=bool)
    handles[4:7, 1:10, 1:10] = True
    handles[4:7, 2:4, 2:4] = handles[4:7, 6:8, 6:8] = handles[4:7, 2:4, 6:8] = False
    corner = np.zeros((11, 11, 11), dtype=bool)
    corner[3, 3, 3] = corner[4, 4, 4] = True
    return [(ball, 1), (torus, 0), (shell, 2), (two, 2), (handles, -2), (corner, 1)]


@pytest.mark.parametrize("body, expected", bodies())
@pytest.mark.parametrize("border", ["open", "closed"])
def test_euler_number_counts_parts_less_handles_plus_cavities(body, expected, border):
    """None reaches the border, so that it does not matter; voxels that share a corner are joined."""
    assert euler_number(body, border) == expected


def test_euler_numbers_of_tiles_add_up():
    """Tiles that share their border voxels."""
    rough = np.random.default_rng(2).random((21, 21, 21)) < 0.4
    halves = euler_number(rough[:11]) + euler_number(rough[10:])
    assert euler_number(rough) == pytest.approx(halves, abs=1e-9)


def test_connectivity_is_that_of_the_largest_part():
    body = bodies()[4][0].copy()
    body[0, 0, 0] = True  # a speck
    body[5, 4, 8] = False  # a cavity
    found = connectivity(body, 1e-3, "closed")
    assert (found.parts, found.cavities, found.euler_number) == (2, 1, 2 - 3 + 1)
    assert found.largest_share == pytest.approx(1 - 1 / body.sum())
    assert found.density == pytest.approx(3 / (11**3 * 1e-9))


def cortex(resolution, canal=0.2, outer=5.0, inner=3.0):
    """An annulus (mm) with 12 canals half way through, as bone, cortex and their truth."""
    n = math.ceil((2 * outer + 1) / resolution)
    _, y, x = grid((3, n, n), (resolution,) * 3)
    ring = np.hypot(y, x)
    whole = (ring <= outer) & (ring >= inner)
    turn = np.arange(12) * 2 * math.pi / 12
    pores = np.zeros_like(whole)
    for angle in turn:
        pores |= np.hypot(y - 4 * math.sin(angle), x - 4 * math.cos(angle)) <= canal / 2
    return whole & ~pores, whole


def test_cortical_thickness_of_an_annulus():
    """2 mm at 10, 20 and 40 voxels across."""
    errors = [abs(cortical_thickness(cortex(h)[1], h).mean / 2 - 1) for h in (0.2, 0.1, 0.05)]
    assert errors[1] < 0.03 and errors[2] < 0.02 and errors[2] < max(errors[0], 0.005)


def test_canals_have_their_number_size_and_porosity():
    canal, h = 0.6, 0.03  # 20 voxels across
    bone, whole = cortex(h, canal)
    found = canals(bone, whole, h * 1e-3)
    area = math.pi * (25 - 9) * 1e-6
    assert np.bincount(found.slice).tolist() == [12, 12, 12]
    # A disc of centres: the error of its area is of the order of the square root of its circumference in voxels.
    assert found.diameter == pytest.approx(canal * 1e-3, rel=0.03)
    assert found.density == pytest.approx(12 / area, rel=0.01)
    assert porosity(bone, whole) == pytest.approx(12 * 0.3**2 / 16, rel=0.02)


def test_canals_of_partial_volume_keep_their_area():
    """A fine grid averaged 5 x 5: the area of every canal that does not share a pixel is conserved."""
    h = 0.02
    bone, whole = cortex(h, 0.5)
    n = whole.shape[1] // 5 * 5
    coarse = [a[:, :n, :n].reshape(3, n // 5, 5, n // 5, 5).mean(axis=(2, 4)) for a in (bone, whole)]
    fine, averaged = canals(bone, whole, h), canals(*coarse, (h, 5 * h, 5 * h))
    assert averaged.area.sum() == pytest.approx(fine.area.sum(), rel=1e-6)
    assert averaged.mean_diameter == pytest.approx(fine.mean_diameter, rel=1e-6)
    assert porosity(*coarse) == pytest.approx(porosity(bone, whole), rel=1e-3)


def test_small_canals_are_left_out_on_request():
    bone, whole = cortex(0.05, 0.4)
    assert canals(bone, whole, 0.05, smallest=0.5).area.size == 0
    assert math.isnan(canals(bone, whole, 0.05, smallest=0.5).mean_diameter)
    assert canals(bone, whole, 0.05, smallest=0.3).area.size == 36


def test_volume_fractions_count_as_they_are():
    assert bvtv(np.full((3, 3, 3), 0.3)) == pytest.approx(0.3)
    half = np.zeros((4, 4, 4))
    half[:2] = 0.5
    assert bvtv(half, half > 0) == pytest.approx(0.5)


BALL = sphere(6)
BAD = [
    (lambda: measure(np.zeros((5, 5, 5)), 1.0), "empty"),
    (lambda: measure(np.ones((5, 5, 5)), 1.0), "full"),
    (lambda: measure(np.full((5, 5, 5), np.nan), 1.0), "not finite"),
    (lambda: measure(np.full((5, 5, 5), 2.0), 1.0), "holds 2, should be volume fractions 0 to 1"),
    (lambda: measure(-BALL.astype(float), 1.0), "holds -1"),
    (lambda: measure(BALL[0], 1.0), r"should be \(z, y, x\)"),
    (lambda: measure("bone", 1.0), "should be an array"),
    (lambda: measure(np.zeros((0, 3, 3)), 1.0), "shape"),
    (lambda: measure(BALL, -1.0), "voxel_size is -1.0"),
    (lambda: measure(BALL, 0.0), "voxel_size is 0.0"),
    (lambda: measure(BALL, (1.0, 2.0)), "voxel_size"),
    (lambda: measure(BALL, "fine"), "voxel_size is 'fine'"),
    (lambda: measure(BALL, 1.0, border="none"), "border is 'none'"),
    (lambda: local_thickness(np.ones((5, 5, 5)), 1.0), "fills the grid"),
    (lambda: local_thickness(np.zeros((5, 5, 5)), 1.0), "empty"),
    (lambda: local_thickness(BALL, 1.0, margin=-1.0), "margin is -1.0"),
    (lambda: fabric(np.ones((5, 5, 5)), 1.0), "no surface"),
    (lambda: fabric(BALL, 1.0, directions=3), "directions is 3"),
    (lambda: euler_number(BALL, "none"), "border is 'none'"),
    (lambda: connectivity(np.zeros((5, 5, 5)), 1.0), "empty"),
    (lambda: porosity(BALL, np.zeros_like(BALL)), "the cortex is empty"),
    (lambda: porosity(BALL, BALL[1:]), "should be the same"),
    (lambda: canals(BALL, BALL, 1.0, axis=3), "axis is 3"),
    (lambda: canals(BALL, BALL, 1.0, smallest=-1.0), "smallest is -1.0"),
]


@pytest.mark.parametrize("call, message", BAD)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_phantom_is_measured_by_its_pools():
    from bonemri.phantoms import recipes
    from bonemri.phantoms.phantom import Phantom

    s = along((1, 0, 0), grid((30, 24, 24))) % 15.0
    solid = (np.abs(s - 7.5) < 2.5).astype(float)
    pools = recipes.bone(solid, "trabecular", field=3.0) + recipes.marrow(1 - solid, pdff=0.4, f=0.05, field=3.0)
    plates = Phantom.build(pools, name="plates", resolution=1e-4, field=3.0)
    found = morphometry.of(plates)
    assert found["bvtv"] == pytest.approx(solid.mean(), abs=1e-9)
    assert found["trabecular_thickness"] == pytest.approx(5e-4, rel=0.03)
    coarse = morphometry.of(plates.coarsen((15, 12, 12)))
    assert coarse == {"bvtv": pytest.approx(solid.mean(), abs=1e-9)}
    marrow = Phantom.build(recipes.marrow(np.ones((4, 4, 4)), pdff=0.4, f=0.05, field=3.0), name="marrow",
                           resolution=1e-3, field=3.0)
    with pytest.raises(InputError, match="no trabecular or cortical bone"):
        morphometry.of(marrow)
