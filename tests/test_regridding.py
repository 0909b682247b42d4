"""A phantom in other voxels: amounts and signal are conserved, truth is that of the average, labels follow."""

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import cli, phantoms, simulator
from bonemri.errors import InputError
from bonemri.phantoms import nifti
from bonemri.phantoms.regridding import Line, Lines

ROUNDING = 1e-12  # sums of some thousand numbers of order one
PROTOCOL = simulator.protocols.dixon_marrow


def block(shape=(4, 6, 8), resolution=2e-3):
    """Marrow whose fat fraction is random and whose outer voxels hold ever more bone."""
    rng = np.random.default_rng(3)
    return phantoms.marrow_block(shape=shape, resolution=resolution, pdff=rng.uniform(0, 1, shape),
                                 bvtv=rng.uniform(0, 0.5, shape))  # fmt: skip


def grid(matrix, fov, centre=(0.0, 0.0, 0.0)):
    """Voxels (z, y, x) over a field of view (m) about a centre (m), as a scan states them."""
    size = np.array(fov) / np.array(matrix)
    affine = np.diag([*(size[::-1] * 1e3), 1.0])
    affine[:3, 3] = (np.array(centre) - (np.array(matrix) - 1) / 2 * size)[::-1] * 1e3
    attrs = {"affine": affine.ravel(), "voxel_size": size}
    return xr.DataArray(np.zeros(matrix), dims=("z", "y", "x"), attrs=attrs)


def amount(bone):
    """Of each pool in the whole phantom (mol)."""
    return bone.pools["density"].sum(("z", "y", "x")).values * np.prod(bone.pools.attrs["voxel_size"])


def total(bone, **more):
    return simulator.scan(bone, PROTOCOL, **more).values.sum(axis=(0, 1, 2)) * np.prod(bone.pools.attrs["voxel_size"])


@pytest.mark.parametrize(("matrix", "rounding"), [((2, 3, 4), ROUNDING), ((4, 6, 8), 0), ((8, 6, 16), ROUNDING)])
def test_signal_is_conserved_where_grids_nest(matrix, rounding):
    """Coarser by whole numbers, the same, or finer: the sum of signal times volume is that of the phantom."""
    bone = block()
    there = bone.on(grid(matrix, (8e-3, 12e-3, 16e-3)))
    assert there.pools["density"].shape[1:] == matrix
    np.testing.assert_allclose(amount(there), amount(bone), rtol=rounding)
    np.testing.assert_allclose(total(there), total(bone), rtol=max(rounding, ROUNDING))


def test_a_coarser_nest_is_coarsen():
    bone = block()
    one, other = bone.on(grid((2, 2, 4), (8e-3, 12e-3, 16e-3))), bone.coarsen((2, 3, 2))
    for name in ("density", "volume_fraction"):
        np.testing.assert_allclose(one.pools[name], other.pools[name], rtol=ROUNDING, atol=1e-15)
    for dim in "zyx":
        np.testing.assert_allclose(one.pools[dim], other.pools[dim], atol=1e-12)
    np.testing.assert_allclose(one.pools.attrs["affine"], other.pools.attrs["affine"], atol=1e-9)
    np.testing.assert_allclose(one.truth["pdff"], other.truth["pdff"], rtol=ROUNDING)


def test_an_affine_in_single_precision_nests_as_well():
    """As headers of NIfTI hold it: edges that differ by its rounding are the same edges."""
    bone = phantoms.marrow_block(shape=(6, 6, 9), resolution=1.1e-3, pdff=np.linspace(0, 1, 9))
    exact = grid((2, 3, 3), (6.6e-3, 6.6e-3, 9.9e-3))
    rounded = exact.assign_attrs(affine=exact.attrs["affine"].astype(np.float32))
    np.testing.assert_allclose(amount(bone.on(rounded)), amount(bone), rtol=ROUNDING)
    np.testing.assert_allclose(bone.on(rounded).pools["density"], bone.on(exact).pools["density"], rtol=ROUNDING)


@settings(max_examples=20, deadline=None)
@given(
    matrix=st.tuples(*(st.integers(1, 11),) * 3), margin=st.floats(0.0, 5e-3),
    shift=st.tuples(*(st.floats(-1e-3, 1e-3),) * 3),
)  # fmt: skip
def test_amounts_are_conserved_by_any_grid_that_holds_the_whole(matrix, margin, shift):
    """Whatever the voxels: shares of a voxel add up, so that nothing is lost or counted twice."""
    bone = block((3, 4, 5))
    fov = np.array((6e-3, 8e-3, 10e-3)) + 2 * margin + 2 * np.abs(shift)
    there = bone.on(grid(matrix, fov, shift))
    # edges within 1e-4 of a voxel of an old one are put there: that part of a voxel at most is lost at the rim
    np.testing.assert_allclose(amount(there), amount(bone), rtol=1e-3)
    inside = there.pools["density"].sum("pool") > 0
    pdff = there.truth["pdff"].where(inside).values
    assert np.nanmin(pdff) >= bone.truth["pdff"].min() - ROUNDING
    assert np.nanmax(pdff) <= bone.truth["pdff"].max() + ROUNDING


def test_shares_against_counted_points():
    """The share of each new voxel in each old one, by 40000 points a voxel: wrong by one point at either end."""
    line = Line.of(-0.37, 1.31, 6, 5)
    points = 40000
    edges = -0.37 + 1.31 * np.arange(7)
    counted = np.zeros((6, 5))
    for row in range(6):
        at = np.floor(edges[row] + (np.arange(points) + 0.5) / points * 1.31).astype(int)
        for old in range(5):
            counted[row, old] = (at == old).mean()
    np.testing.assert_allclose(line.shares().toarray(), counted, atol=2 / points)
    assert counted[0].sum() < 1 and counted[5].sum() < 1  # the ends lie outside


def test_fractions_are_ratios_of_sums_and_not_means_of_fractions():
    pdff = np.array([0.0, 1.0]).reshape(1, 1, 2)
    bone = phantoms.marrow_block(shape=(1, 1, 2), pdff=pdff, f=0.0)
    water, fat = (bone.pools["density"].sel(pool=name).sum().item() for name in ("marrow_water", "fat"))
    there = bone.on(grid((1, 1, 1), (2e-3, 2e-3, 4e-3)))
    assert there.truth["pdff"].item() == pytest.approx(fat / (fat + water), rel=ROUNDING)
    assert there.truth["pdff"].item() != pytest.approx(0.5, abs=1e-3)


def test_what_differs_inside_a_voxel_is_not_averaged():
    bone = phantoms.marrow_block(shape=(1, 1, 4), T2_water=np.array([0.03, 0.03, 0.05, 0.05]).reshape(1, 1, 4))
    there = bone.on(grid((1, 1, 2), (2e-3, 2e-3, 8e-3)))
    np.testing.assert_array_equal(there.pools["T2"].sel(pool="marrow_water").values.ravel(), [0.03, 0.05])
    # where a pool is not, its property is nobody's
    row = (1, 1, 4)
    some = phantoms.marrow_block(shape=row, pdff=np.reshape([0.5, 0.0, 0.0, 0.5], row),
                                 T2_fat=np.reshape([0.06, 0.09, 0.02, 0.07], row))  # fmt: skip
    mixed = some.on(grid((1, 1, 2), (2e-3, 2e-3, 8e-3)))
    np.testing.assert_array_equal(mixed.pools["T2"].sel(pool="fat").values.ravel(), [0.06, 0.07])
    with pytest.raises(InputError, match="T2 of pool marrow_water varies inside a coarse voxel"):
        bone.on(grid((1, 1, 3), (2e-3, 2e-3, 8e-3)))


def test_least_is_the_least_of_what_a_voxel_meets():
    values = np.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 1, 4)
    lines = Lines([Line.of(0, 1, 1, 1), Line.of(0, 1, 1, 1), Line.of(-1.5, 1.5, 4, 4)])
    # boxes -1.5..0, 0..1.5, 1.5..3, 3..4.5
    np.testing.assert_array_equal(lines.least(values).ravel(), [np.inf, 1, 1, 5])


# ---- scans ---------------------------------------------------------------------------------------------------------


def test_the_image_of_rung_scan_has_its_truth():
    """A slab read with voxels of 3 x 3 mm that no voxel of 2 mm fits: in its middle the image is that of the average.

    The image of a voxel is that of a sinc, whose first lobe is nine tenths of it: the slab varies along y alone and
    slowly, half a cosine over its 48 mm, so that box and sinc see it alike to (pi 3/96)^2/6 = 2e-3 of its amplitude.
    """
    shape, edge = (1, 24, 24), 2e-3
    slope = 0.4 + 0.2 * np.cos(np.pi * (np.arange(24) + 0.5) / 24)
    bone = phantoms.marrow_block(shape=shape, resolution=edge, pdff=np.broadcast_to(slope[:, None], shape), f=0.0)
    read = {"trajectory": "cartesian", "dimensions": 2, "frequency": "x", "dwell": 1e-6, "matrix": (1, 16, 16),
            "fov": (edge, 48e-3, 48e-3)}  # fmt: skip
    image = simulator.scan(bone, dataclasses.replace(PROTOCOL, readout=read), rung="scan")
    there = bone.on(image)
    assert there.truth["pdff"].shape == image.shape[:3] == (1, 16, 16)
    for dim in "zyx":  # to the bit, or a difference of maps and truth would be empty
        np.testing.assert_array_equal(there.truth[dim], image[dim])
    expected = simulator.scan(there, PROTOCOL, rung="pools")
    middle = (0, slice(5, 11), slice(5, 11))
    # and fat moves by 434 Hz x 16 us = .7 % of a voxel along x, along which nothing changes; pulse and readout turn it
    # by some .16 rad, a phase; the edge of the slab, five voxels away, rings by about 1/(2 pi^2 5) = 1 % of its signal
    error = np.abs(image.values[middle]) - np.abs(expected.values[middle])
    assert np.abs(error).max() < 0.02 * np.abs(expected.values[middle]).max()
    assert np.ptp(there.truth["pdff"].values[middle]) > 0.1  # one constant would not do


def test_a_phantom_tells_the_edges_of_its_voxels():
    assert "8 x 6 x 4 voxels of 2 mm" in repr(block())
    assert "4 x 2 x 2 voxels of 4 x 6 x 4 mm" in repr(block().on(grid((2, 2, 4), (8e-3, 12e-3, 16e-3))))


def test_maps_have_their_truth_as_scans_have():
    bone = block()
    maps = xr.Dataset({"pdff": grid((2, 3, 4), (8e-3, 12e-3, 16e-3))})
    maps.attrs = dict(maps["pdff"].attrs)
    assert bone.on(maps).truth["pdff"].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g.rename(z="slice"), "the scan has no dim z"),
        (lambda g: g.drop_attrs(), "the scan has no affine in its attrs"),
        (lambda g: g.assign_attrs(affine=np.diag([-2.0, 2, 2, 1]).ravel()), "or runs backwards"),
        (lambda g: g.assign_attrs(affine=(np.diag([2.0, 2, 2, 1]) + 0.1 * np.eye(4, k=1)).ravel()), "oblique"),
        (lambda g: grid((2, 3, 4), (8e-3, 12e-3, 16e-3), (0, 0.1, 0)), "lies beside the phantom along y"),
        (lambda g: grid((2, 3, 4), (8e-3, 12e-3, 16e-3), (0, 0, -0.1)), "lies beside the phantom along x"),
    ],
)
def test_a_scan_that_does_not_lie_in_the_phantom_is_told(change, says):
    with pytest.raises(InputError, match=says) as error:
        block().on(change(grid((2, 3, 4), (8e-3, 12e-3, 16e-3))))
    assert "\n" not in str(error.value)


# ---- labels --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spine():
    return phantoms.spine(resolution=8e-3)


def test_each_voxel_has_the_label_that_fills_most_of_it(spine):
    there = spine.coarsen(2)
    values, coarse = spine.labels.values, there.labels.values
    padded = np.pad(values, [(0, -n % 2) for n in values.shape])
    for index in np.ndindex(coarse.shape):
        inside = padded[tuple(slice(2 * i, 2 * i + 2) for i in index)].ravel()
        numbers, count = np.unique(inside, return_counts=True)
        assert count[numbers == coarse[index]].max(initial=0) == count.max() or coarse[index] == 0, index
    names = there.labels.attrs["flag_meanings"].split()
    assert names == spine.labels.attrs["flag_meanings"].split() and "L3" in names
    np.testing.assert_allclose(there.labels.attrs["affine"], there.pools.attrs["affine"])


def test_labels_go_through_a_file(spine, tmp_path):
    again = phantoms.Phantom.from_netcdf(spine.to_netcdf(tmp_path / "spine.nc"))
    assert again.labels.equals(spine.labels) and again.labels.dtype == spine.labels.dtype
    assert again.labels.attrs["flag_meanings"] == spine.labels.attrs["flag_meanings"]
    assert phantoms.Phantom.from_netcdf(block().to_netcdf(tmp_path / "block.nc")).labels is None


@pytest.mark.parametrize("sagittal", [False, True])
def test_a_folder_has_the_labels_as_a_mask(tmp_path, sagittal):
    bone = phantoms.spine(resolution=8e-3, sagittal=sagittal)
    nifti.write(bone, tmp_path / "spine")
    image = nib.load(tmp_path / "spine" / "labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).reshape(image.shape).T, bone.labels.values)
    np.testing.assert_allclose(image.affine, np.reshape(bone.pools.attrs["affine"], (4, 4)), atol=1e-4)
    assert json.loads((tmp_path / "spine" / "labels.json").read_text())["labels"]["4"] == "L3"


def test_from_a_phantom_to_its_regions_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for call in (
        "phantom spine --set resolution=0.01 -o spine",
        "simulate dixon_marrow --phantom spine/spine.nc --snr 60 -o scan.nc",
        "estimate dixon scan.nc --mask spine/labels.nii.gz -o fat",
    ):
        assert cli.run(call.split()) == 0, capsys.readouterr().err
    said = json.loads(Path("fat/estimate.json").read_text())
    assert len(said["labels"]) > 5


def test_truth_on_a_scan_on_the_command_line(tmp_path, monkeypatch, capsys):
    """By the scan, by its maps as a folder of NIfTI and as NetCDF: the same truth, that of Phantom.on."""
    monkeypatch.chdir(tmp_path)
    read = {**PROTOCOL.readout, "matrix": (2, 3, 4), "fov": (8e-3, 12e-3, 16e-3)}
    bone = block()
    bone.to_netcdf("bone.nc")
    scan = simulator.scan(bone, dataclasses.replace(PROTOCOL, readout=read), rung="scan", snr=50)
    simulator.files.write_scan(scan, "scan.nc")
    for out in ("fat", "fat.nc"):
        assert cli.run(["estimate", "dixon", "scan.nc", "-o", out]) == 0, capsys.readouterr().err
    for place in ("scan.nc", "fat", "fat.nc"):
        assert cli.run(["phantom", "bone.nc", "--on", place, "-o", "there.nc"]) == 0, capsys.readouterr().err
        there = phantoms.Phantom.from_netcdf("there.nc")
        np.testing.assert_allclose(there.truth["pdff"], bone.on(scan).truth["pdff"], rtol=1e-5)  # headers round
    assert cli.run(["phantom", "marrow_block", "--set", "shape=[4, 6, 8]", "--on", "fat.nc", "-o", "mine.nc"]) == 0
    for call, says in (
        (["phantom", "bone.nc", "--on", "bone.nc", "-o", "x.nc"], "bone.nc lacks the dim z"),
        (["phantom", "bone.nc", "--on", "none.nc", "-o", "x.nc"], "none.nc"),
        (["phantom", "bone.nc", "--on", "scan.nc"], "give --preview, or -o OUT"),
        (["phantom", "--on", "scan.nc"], "--on goes with a NAME"),
    ):
        assert cli.run(call) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert not Path("x.nc").exists()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (xr.DataArray(np.zeros((1, 1, 2), np.int16), dims=("z", "y", "x")), r"labels have dims .* should be"),
        (xr.DataArray(np.zeros((1, 1, 1)), dims=("z", "y", "x")), "labels hold float64, should be whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_told(labels, says):
    bone = phantoms.marrow_block()
    with pytest.raises(InputError, match=says):
        phantoms.Phantom(bone.pools, "bone", labels)
