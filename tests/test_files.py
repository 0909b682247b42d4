"""Scans, masks and maps on disk: what is written comes back, and what cannot be read is told in one line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

from bonemri.errors import InputError
from bonemri.simulator import files, label_maps, maps, nifti
from bonemri.simulator.acquisition import Protocol, protocols

AFFINE = np.array([[-2.0, 0.1, 0, 90], [0.1, 2.0, 0, -126], [0, 0, 3.5, -72], [0, 0, 0, 1]])


def save_nifti(scan: xr.DataArray, path: Path, dtype: str = "float64", affine: np.ndarray = AFFINE) -> Path:
    """Write a series as a scanner's converter would: .nii.gz, with its .bval beside it."""
    data = np.asarray(scan.transpose("x", "y", "z", "b").values)
    nib.save(nib.Nifti1Image(data.astype(dtype), affine), path)
    nifti.beside(path, ".bval").write_text(" ".join(f"{b:g}" for b in scan["b"].values) + "\n")
    return path


@pytest.fixture
def series(decay, tmp_path) -> Path:
    return save_nifti(decay, tmp_path / "scan.nii.gz")


# ------------------------------------------------------------------------------------------------------------ NetCDF


@pytest.mark.parametrize("kind", ["float64", "float32", "complex128", "int16"])
def test_a_scan_comes_back_from_netcdf_as_it_was(decay, tmp_path, kind):
    scan = (decay * (np.exp(0.3j) if kind == "complex128" else 1)).astype(kind).assign_attrs(decay.attrs)
    scan = scan.assign_coords(TE=((), 0.06, {"units": "s"}), B1=(("z", "y", "x"), np.ones(scan.shape[:3])))
    scan.attrs |= {"rung": "pools", "seed": 3, "snr": 40.0, "affine": [1.0, 2.0, 3.0]}
    back = files.read(files.write_scan(scan, tmp_path / "scan.nc"))
    assert back.dtype == scan.dtype
    assert back.dims == scan.dims
    assert set(back.coords) == set(scan.coords)
    np.testing.assert_array_equal(back.values, scan.values)
    assert back["TE"].attrs["units"] == "s"
    for name, value in scan.attrs.items():
        np.testing.assert_array_equal(back.attrs[name], value)


def test_a_users_own_netcdf_with_one_variable_is_a_scan(decay, tmp_path):
    decay.rename("dwi").to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    np.testing.assert_array_equal(files.read(tmp_path / "mine.nc").values, decay.values)


@pytest.mark.parametrize("value", [None, True, float("nan"), {"a": 1}, ["a", "b"], []])
def test_attributes_that_netcdf_would_lose_are_refused(decay, tmp_path, value):
    decay.attrs["odd"] = value
    with pytest.raises(InputError, match="attribute odd of signal in scan.nc"):
        files.write_scan(decay, tmp_path / "scan.nc")
    assert list(tmp_path.iterdir()) == []


def test_netcdf_that_is_no_scan_is_told(decay, tmp_path):
    (tmp_path / "text.nc").write_text("b f D\n0 1 2\n")
    two = xr.Dataset({"D": decay.isel(b=0, drop=True), "f": decay.isel(b=0, drop=True)})
    two.to_netcdf(tmp_path / "two.nc", engine="h5netcdf")
    files.write_scan(decay, tmp_path / "scan.nc")
    whole = (tmp_path / "scan.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    for name, message in {
        "text.nc": "text.nc is not a readable NetCDF-4 file",
        "cut.nc": "cut.nc is not a readable NetCDF-4 file",
        "two.nc": "two.nc holds D, f; a scan has the variable signal",
        "none.nc": "none.nc: no such file",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)) as error:
            files.read(tmp_path / name)
        assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------- NIfTI


def test_nifti_is_read_in_the_order_of_the_file(decay, series):
    scan = files.read(series)
    assert scan.dims == ("z", "y", "x", "b")
    np.testing.assert_array_equal(scan.values, decay.values)
    np.testing.assert_array_equal(scan["b"].values, decay["b"].values)
    assert scan["b"].attrs["units"] == "s/mm2"
    np.testing.assert_allclose(nifti.affine_of(scan), AFFINE, atol=1e-6)  # the header holds float32


def test_bvalues_may_come_in_any_order_and_repeat_and_lack_zero(decay, tmp_path):
    mixed = decay.isel(b=[5, 1, 1, 10, 3, 8])
    scan = files.read(save_nifti(mixed, tmp_path / "mixed.nii.gz"))
    assert scan["b"].values.tolist() == [80.0, 10.0, 10.0, 800.0, 30.0, 400.0]
    np.testing.assert_array_equal(scan.values, mixed.values)


@pytest.mark.parametrize("text", ["0\n500\n1000\n", "0 500 1000", "0,500,1000\n", "\ufeff0\t5e2  1000.0\r\n"])
def test_bval_files_of_all_makers_are_read(tmp_path, text):
    (tmp_path / "a.bval").write_text(text, encoding="utf-8")
    assert nifti.read_bval(tmp_path / "a.bval").tolist() == [0, 500, 1000]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", ">i2", ">f4"])
def test_every_data_type_is_read(decay, tmp_path, dtype):
    scan = files.read(save_nifti(decay / 8, tmp_path / "typed.nii.gz", dtype))
    assert scan.dtype == np.float64
    np.testing.assert_array_equal(scan.values, (decay.values / 8).astype(dtype))


def test_integers_are_read_with_their_scaling(decay, tmp_path):
    slope, offset = 0.037, -12.0
    stored = np.round((decay.transpose("x", "y", "z", "b").values - offset) / slope).astype(np.int16)
    # nibabel would scale once more on the way out: the bytes are written here as a converter writes them
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(np.int16)
    header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, slope, offset
    path = tmp_path / "scaled.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + stored.tobytes(order="F")))
    (tmp_path / "scaled.bval").write_text(" ".join(str(b) for b in decay["b"].values))
    # half a step of the scaling is what rounding to integers loses; float32 slope and offset add 1e-7 of the signal
    np.testing.assert_allclose(files.read(path).values, decay.values, rtol=2e-7, atol=slope / 2)


def test_complex_series_are_read_as_magnitude(decay, tmp_path):
    scan = files.read(save_nifti(decay * np.exp(1.1j), tmp_path / "complex.nii.gz", "complex128"))
    np.testing.assert_allclose(scan.values, decay.values, rtol=1e-14)  # rounding of one multiplication and one root


def test_the_sidecar_gives_echo_time_and_field(series):
    sidecar = {"EchoTime": 0.06, "RepetitionTime": 3, "MagneticFieldStrength": [3.0], "Manufacturer": "any"}
    nifti.beside(series, ".json").write_text(json.dumps(sidecar))
    scan = files.read(series)
    assert (float(scan.TE), float(scan.TR), float(scan.field_strength)) == (0.06, 3.0, 3.0)
    assert scan.TE.attrs["units"] == "s"


def test_a_protocol_comes_before_the_sidecar_and_takes_the_files_bvalues(series, tmp_path):
    nifti.beside(series, ".json").write_text('{"EchoTime": 0.09}')
    protocol = protocols.ivim_marrow.replace(TE=0.055)
    (tmp_path / "scan.bval").write_text(" ".join(str(10 * i) for i in range(11)))
    scan = files.read(series, protocol=protocol)
    assert float(scan.TE) == 0.055
    assert scan["b"].values.tolist() == [10.0 * i for i in range(11)]
    carried = Protocol.from_json(scan.attrs["protocol"])
    assert carried["b"].tolist() == scan["b"].values.tolist()


def test_a_protocol_gives_the_bvalues_where_there_is_no_bval(series, decay):
    nifti.beside(series, ".bval").unlink()
    scan = files.read(series, protocol=protocols.ivim_marrow)
    np.testing.assert_array_equal(scan["b"].values, decay["b"].values)


BAD_SERIES = {
    # what is done to scan.nii.gz (and scan.bval): what the error says
    "missing": "scan.nii.gz: no such file; give a diffusion series",
    "folder": "scan.nii.gz is a folder",
    "text": "scan.nii.gz is not a readable NIfTI image",
    "text inside gzip": "scan.nii.gz is not a readable NIfTI image",
    "truncated": "scan.nii.gz is not a readable NIfTI image",
    "truncated inside gzip": "scan.nii.gz is not a readable NIfTI image",
    "empty": "scan.nii.gz is not a readable NIfTI image",
    "three dimensions": "scan.nii.gz has 3 dimensions (4, 3, 2); a diffusion series has 4 (x, y, z, b)",
    "colours": "scan.nii.gz holds colours or records",
    "no bval": "scan.nii.gz has no b-values: {folder}/scan.bval is missing; give them with --bval FILE",
    "too few bvalues": "scan.bval holds 10 b-values and {folder}/scan.nii.gz has 11 volumes; there must be one",
    "too many bvalues": "scan.bval holds 12 b-values and {folder}/scan.nii.gz has 11 volumes",
    "empty bval": "scan.bval is empty; it must hold one b-value (s/mm2) for each volume",
    "a word in bval": "scan.bval: b-value 11 is 'high'; it must be a number of at least 0 (s/mm2)",
    "a negative bvalue": "scan.bval: b-value 11 is '-5'; it must be a number of at least 0 (s/mm2)",
    "nan in bval": "scan.bval: b-value 11 is 'nan'",
    "a binary bval": "scan.bval is not a text file of b-values",
    "broken sidecar": "scan.json is not readable JSON",
    "list sidecar": "scan.json holds a list; a sidecar is one JSON object",
    "negative echo time": "scan.json: EchoTime is -1; the echo time must be one positive number (s)",
    "echo time in words": "scan.json: EchoTime is '60 ms'; the echo time must be one positive number (s)",
}


def spoil(series: Path, how: str) -> None:
    """Do to a good series what the table above names."""
    bval, sidecar = nifti.beside(series, ".bval"), nifti.beside(series, ".json")
    ten = "0 10 20 30 50 80 100 200 400 600 "
    whole = series.read_bytes()
    match how:
        case "missing":
            series.unlink()
        case "folder":
            series.unlink()
            series.mkdir()
        case "text":
            series.write_text("not an image\n")
        case "text inside gzip":
            series.write_bytes(gzip.compress(b"not an image\n" * 100))
        case "truncated":
            series.write_bytes(whole[: len(whole) // 2])
        case "truncated inside gzip":
            series.write_bytes(gzip.compress(gzip.decompress(whole)[:1000]))
        case "empty":
            series.write_bytes(b"")
        case "three dimensions":
            nib.save(nib.Nifti1Image(np.ones((4, 3, 2)), AFFINE), series)
        case "colours":
            colours = np.zeros((4, 3, 2, 11), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
            nib.save(nib.Nifti1Image(colours, AFFINE), series)
        case "no bval":
            bval.unlink()
        case "too few bvalues":
            bval.write_text(ten)
        case "too many bvalues":
            bval.write_text(ten + "800 1000")
        case "empty bval":
            bval.write_text("\n")
        case "a word in bval":
            bval.write_text(ten + "high")
        case "a negative bvalue":
            bval.write_text(ten + "-5")
        case "nan in bval":
            bval.write_text(ten + "nan")
        case "a binary bval":
            bval.write_bytes(bytes(range(128, 256)))
        case "broken sidecar":
            sidecar.write_text("{EchoTime: 0.06")
        case "list sidecar":
            sidecar.write_text("[1, 2]")
        case "negative echo time":
            sidecar.write_text('{"EchoTime": -1}')
        case "echo time in words":
            sidecar.write_text('{"EchoTime": "60 ms"}')
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize("how", BAD_SERIES)
def test_a_bad_series_is_told_in_one_line(series, how):
    spoil(series, how)
    with pytest.raises(InputError) as error:
        files.read(series)
    assert BAD_SERIES[how].format(folder=series.parent) in str(error.value)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- masks and PDFF maps


def test_a_mask_of_another_shape_or_place_is_refused(series, tmp_path):
    scan = files.read(series)
    elsewhere = AFFINE.copy()
    elsewhere[2, 3] += 3.5  # one slice up
    for name, data, affine, message in [
        ("shape", np.ones((4, 3, 3)), AFFINE, "has the shape (4, 3, 3); the scan has (4, 3, 2) (x, y, z)"),
        ("turned", np.ones((2, 3, 4)), AFFINE, "has the shape (2, 3, 4); the scan has (4, 3, 2) (x, y, z)"),
        ("series", np.ones((4, 3, 2, 11)), AFFINE, "has the shape (4, 3, 2, 11)"),
        ("place", np.ones((4, 3, 2)), elsewhere, "lies 3.5 mm away from the scan"),
    ]:
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
        with pytest.raises(InputError, match=re.escape(message)):
            nifti.read_map(tmp_path / f"{name}.nii.gz", scan, "mask")


def test_a_mask_keeps_the_voxel_order_of_the_scan(series, decay, tmp_path):
    labels = np.arange(24).reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(labels.T.astype(np.int16)[..., None], AFFINE), tmp_path / "m.nii.gz")
    xr.DataArray(labels, dims=("z", "y", "x"), name="m").to_netcdf(tmp_path / "m.nc", engine="h5netcdf")
    for name in ("m.nii.gz", "m.nc"):
        np.testing.assert_array_equal(nifti.read_map(tmp_path / name, files.read(series), "mask").values, labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, "mask m holds 0.5; a mask holds integers, 0 outside"),
        (np.nan, "mask m holds nan; a mask holds integers"),
        (-1.0, "mask m holds -1; a mask holds integers of at least 0"),
        (0.0, "mask m is 0 in all its 24 voxels; no voxel is left to fit"),
    ],
)
def test_masks_hold_labels(decay, value, message):
    mask = xr.zeros_like(decay.isel(b=0, drop=True))
    mask[0, 0, 0] = value
    with pytest.raises(InputError, match=re.escape(message)):
        label_maps.as_labels(mask, "mask m")


# --------------------------------------------------------------------------------------------------------------- maps


@pytest.fixture
def estimate(decay) -> xr.Dataset:
    """Maps as an estimator returns them."""
    values = decay.isel(b=0, drop=True)
    status = xr.zeros_like(values).astype(np.uint16)
    status[0, 0, 0] = 8
    status.attrs = {"flag_masks": np.array([1, 8], np.uint16), "flag_meanings": "invalid_data not_identifiable"}
    values = values.where(status == 0).assign_attrs(units="mm2/s", long_name="diffusivity")
    return xr.Dataset(
        {"D": values, "D_sd": values / 10, "status": status},
        attrs={"method": "ivim", "version": "0", "options": '{"bounds": null}', "protocol": '{"b": [0, 10]}'},
    )


def test_maps_carry_the_geometry_of_their_input(estimate, tmp_path):
    source = nib.Nifti1Image(np.ones((4, 3, 2, 11), np.int16), AFFINE)
    source.set_qform(AFFINE, 1)
    source.set_sform(AFFINE, 4)
    source.header.set_xyzt_units("mm", "sec")
    source.header["cal_max"] = 1000
    nib.save(source, tmp_path / "scan.nii.gz")
    header = nifti.geometry(tmp_path / "scan.nii.gz")
    with maps.writing_estimate(tmp_path / "out") as place:
        maps.write_estimate(estimate, place, {"scan": tmp_path / "scan.nii.gz", "mask": None}, template=header)
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"D.nii.gz", "D_sd.nii.gz", "status.nii.gz", "estimate.json"}
    image = nib.load(tmp_path / "out" / "D.nii.gz")
    assert image.shape == (4, 3, 2)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert int(image.header["qform_code"]) == 1
    assert int(image.header["sform_code"]) == 4
    assert image.header["cal_max"] == 0
    np.testing.assert_allclose(image.get_fdata(), estimate.D.values.T, rtol=1e-7)  # float32
    flags = nib.load(tmp_path / "out" / "status.nii.gz")
    assert flags.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asanyarray(flags.dataobj), estimate.status.values.T)


def test_estimate_json_says_how_the_maps_came_about(estimate, tmp_path):
    scan = tmp_path / "scan.bin"
    scan.write_bytes(b"abc")
    labels = xr.zeros_like(estimate.status).astype(int)
    labels[0], labels[1, 0] = 1, 7
    with maps.writing_estimate(tmp_path / "out") as place:
        maps.write_estimate(estimate, place, {"scan": scan}, labels, affine=AFFINE)
    said = json.loads((tmp_path / "out" / "estimate.json").read_text())
    assert said["method"] == "ivim"
    assert said["options"] == {"bounds": None}
    assert said["protocol"] == {"b": [0, 10]}
    # the SHA-256 of "abc" as FIPS 180-2 prints it
    assert said["inputs"]["scan"]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert said["status_flags"] == {"invalid_data": 1, "not_identifiable": 8}
    assert said["status_counts"] == {"good": 23, "not_identifiable": 1}
    assert said["maps"]["D"]["units"] == "mm2/s"
    assert set(said["labels"]) == {"1", "7"}
    first = said["labels"]["1"]
    assert (first["voxels"], first["flagged"], first["D"]["n"]) == (12, 1, 11)
    expected = estimate.D.values[0].ravel()[1:]
    assert first["D"]["mean"] == pytest.approx(expected.mean(), rel=1e-12)
    assert first["D"]["sd"] == pytest.approx(expected.std(ddof=1), rel=1e-12)
    assert "D_sd" not in first
    np.testing.assert_allclose(nib.load(tmp_path / "out" / "D.nii.gz").affine, AFFINE, atol=1e-6)


def test_an_estimate_in_netcdf_comes_back(estimate, tmp_path):
    with maps.writing_estimate(tmp_path / "maps.nc") as place:
        maps.write_estimate(estimate, place, {"scan": None}, estimate.status + 1)
    back = files.read_netcdf(tmp_path / "maps.nc")
    xr.testing.assert_equal(back, estimate)
    assert json.loads(back.attrs["labels"])["1"]["voxels"] == 23


def test_many_labels_fit_into_netcdf(tmp_path):
    """Two hundred: their statistics are some 100 kB, more than HDF5 takes in one attribute."""
    rng = np.random.default_rng(1)
    labels = xr.DataArray(np.arange(1, 1001).reshape(10, 10, 10) % 200 + 1, dims=("z", "y", "x"))
    names = ("pdff", "r2star", "fieldmap")
    some = xr.Dataset({name: (("z", "y", "x"), rng.normal(size=(10, 10, 10))) for name in names})
    with maps.writing_estimate(tmp_path / "maps.nc") as place:
        maps.write_estimate(some, place, {"scan": None}, labels)
    attrs = files.read_netcdf(tmp_path / "maps.nc").attrs
    assert "labels" not in attrs and sum(len(value) for value in attrs.values()) > 64_000
    assert {json.loads(attrs[f"labels_{n}"])["voxels"] for n in range(1, 201)} == {5}


# ------------------------------------------------------------------------------------------------------------ writing


def test_nothing_is_left_behind_where_the_work_fails(tmp_path):
    for name, folder in [("new/deep/scan.nc", False), ("new/maps", True)]:
        with pytest.raises(RuntimeError), files.writing(tmp_path / name, folder=folder) as place:
            (place / "a.nii.gz" if folder else place).write_bytes(b"half")
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []


def test_an_old_output_stays_whole_until_the_new_one_is(tmp_path):
    target = tmp_path / "scan.nc"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.writing(target) as place:
        place.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with files.writing(target) as place:
        place.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nc"]


def test_an_existing_folder_keeps_its_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "D.nii.gz").write_text("old")
    with files.writing(tmp_path, folder=True) as place:
        (place / "D.nii.gz").write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"notes.txt": "mine", "D.nii.gz": "new"}


def test_new_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    with files.writing(tmp_path / "a.nc") as place:
        place.write_text("")
    with files.writing(tmp_path / "b", folder=True):
        pass
    assert (tmp_path / "a.nc").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "folder").stat().st_mode


@pytest.mark.parametrize("out", ["file/out.nc", "file/deeper/out.nc", "/proc/bonemri/out.nc", "/proc/out.nc"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, out):
    (tmp_path / "file").write_text("a file, no folder")
    with pytest.raises(InputError, match="cannot write .*choose another output with -o"), files.writing(tmp_path / out):
        pytest.fail("the block was entered")
    with pytest.raises(InputError, match="cannot write"), files.writing(tmp_path / out / "maps", folder=True):
        pytest.fail("the block was entered")
    with pytest.raises(InputError, match="cannot write into"), files.filling(tmp_path / out / "report"):
        pytest.fail("the block was entered")


def test_a_folder_that_fills_up_goes_where_it_stays_empty(tmp_path):
    with pytest.raises(RuntimeError), files.filling(tmp_path / "new" / "report"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), files.filling(tmp_path / "report") as folder:
        (folder / "cells").write_text("a run that can be resumed")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["cells"]


@pytest.mark.parametrize(
    ("out", "folder", "netcdf", "message"),
    [
        ("maps.nii.gz", True, True, "has the suffix .gz; it must be a file ending in .nc or a folder"),
        ("scan.h5", False, True, "has the suffix .h5; it must be a file ending in .nc"),
        ("scan", False, True, "has no suffix; it must be a file ending in .nc"),
        ("report.html", True, False, "has the suffix .html; it must be a folder"),
        ("report.nc", True, False, "has the suffix .nc; it must be a folder"),
    ],
)
def test_other_suffixes_are_refused(out, folder, netcdf, message):
    with pytest.raises(InputError, match=re.escape(message)):
        files.output_path(out, folder=folder, netcdf=netcdf)


def test_an_existing_folder_may_be_called_anything(tmp_path):
    odd = tmp_path / "tmp.x7Qz"
    odd.mkdir()
    assert files.output_path(odd, folder=True) == odd
