"""The command line: what each verb writes, what every bad call is answered, and real data that others made."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

from bonemri import cli, estimators, phantoms, simulator
from bonemri.cli import explained, verbs
from bonemri.simulator import equations, files, nifti, sequences
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.model import cramer_rao_bound

AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])
METHODS = ("adc", "ivim", "ivim-segmented", "ivim-nnls", "ivim-bayes", "ivim-fat-aware")
# What a fat-aware fit must be told and a plain NIfTI does not say.
TOLD = {"ivim-fat-aware": ("--set", "pdff=0.5", "--protocol", "ivim_marrow")}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name: str, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write an array (z, y, x[, b]) as NIfTI."""
    axes = (2, 1, 0, 3)[: data.ndim]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data.transpose(axes)), affine), name)
    return Path(name)


def save_series(scan: xr.DataArray, name: str = "dwi.nii.gz") -> Path:
    """Write a series with its b-values beside it."""
    nifti.beside(name, ".bval").write_text(" ".join(f"{b:g}" for b in scan["b"].values))
    return save(name, scan.values)


@pytest.fixture
def dwi(decay) -> xr.DataArray:
    """A series on disk, as dwi.nii.gz and dwi.bval; and as an array."""
    save_series(decay)
    return decay


def read_map(folder: str, name: str) -> np.ndarray:
    """Read a map as (z, y, x)."""
    return np.asanyarray(nib.load(Path(folder) / f"{name}.nii.gz").dataobj).T


def told(capsys, *call: str) -> str:
    """Make a call that must be refused; return its one line."""
    assert cli.run(call) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bonemri: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err


# ------------------------------------------------------------------------------------------------------- good paths


def test_lists(capsys):
    assert cli.run(["phantom"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(phantoms.registry)
    assert cli.run(["estimate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(METHODS)
    assert all(len(line.split()) > 1 for line in lines)


def test_bone_to_scan_to_maps(capsys):
    """The whole way on NetCDF, with the default outputs; each verb agrees with the Python call."""
    assert cli.run(["phantom", "marrow_block", "--set", "f=0.1", "--set", "pdff=.5"]) == 0
    assert cli.run(["simulate", "ivim_marrow", "--phantom", "marrow_block.nc", "--snr", "50", "--seed", "7"]) == 0
    bone = phantoms.marrow_block(f=0.1, pdff=0.5)
    expected = simulator.scan(bone, simulator.protocols.ivim_marrow, snr=50, seed=7)
    scan = files.read("ivim_marrow.nc")
    np.testing.assert_array_equal(scan.values, expected.values)
    assert cli.run(["estimate", "ivim", "ivim_marrow.nc", "-o", "maps.nc"]) == 0
    assert cli.run(["estimate", "ivim", "ivim_marrow.nc"]) == 0
    maps = files.read_netcdf("maps.nc")
    assert {"f", "f_sd", "D", "D_sd", "D_star", "D_star_sd", "S0", "S0_sd", "status"} <= set(maps.data_vars)
    assert maps["f"].attrs["measurand"] == "f_app"
    np.testing.assert_allclose(read_map("ivim", "D"), maps["D"].values, rtol=1e-7)  # NIfTI maps are float32
    assert {path.name for path in Path().iterdir()} == {"marrow_block.nc", "ivim_marrow.nc", "maps.nc", "ivim"}
    assert capsys.readouterr().err == ""


def test_a_phantom_as_a_folder_has_all_its_files(capsys):
    """A folder gets everything: the phantom itself, NIfTI with JSON, and the preview."""
    assert cli.run(["phantom", "vertebra", "--set", "resolution=6e-3", "-o", "bones/mine"]) == 0
    folder = Path("bones/mine")
    bone = phantoms.Phantom.from_netcdf(folder / "vertebra.nc")
    assert bone.pools.attrs["voxel_size"][0] == 6e-3
    known = json.loads((folder / "truth.json").read_text())
    written = {path.name for path in folder.iterdir()}
    assert written >= {"vertebra.nc", "vertebra.json", "vertebra.nii.gz", "truth.json", "index.html", "preview.png"}
    assert {path for path in written if path.startswith("truth_")} == {row["file"] for row in known["truth"].values()}
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines() == ["wrote bones/mine"]


def test_a_preview_stands_beside_its_phantom(capsys):
    assert cli.run(["phantom", "vials", "--preview", "-o", "set.nc"]) == 0
    assert {path.name for path in Path().iterdir()} == {"set.nc", "set.html", "set.png"}
    first = Path("set.html").read_text()
    Path("set.html").unlink()
    before = Path("set.nc").stat().st_mtime_ns
    assert cli.run(["phantom", "set.nc", "--preview"]) == 0
    assert Path("set.html").read_text() == first  # the file says all that the page shows
    assert Path("set.nc").stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines() == ["wrote set.nc", "wrote set.html"]


def test_a_phantom_may_be_named_where_it_is_scanned():
    assert cli.run(["simulate", "ivim_marrow", "--phantom", "marrow_block", "--rung", "matched", "-o", "a.nc"]) == 0
    scan = files.read("a.nc")
    assert scan.attrs["rung"] == "matched"
    assert "noise_sd" not in scan.attrs


@pytest.mark.parametrize(("rung", "settings"), [
    ("pools", {"off_resonance": 40, "initial_phase": 0.5, "R2_prime": False}),
    ("engine", {"first_echo_phase": 0.2, "B1": 0.8}),
    ("scan", {"bipolar_phase": -0.3, "odd_even_phase": 0.1, "delays": [1e-7, 0.0, 0.0]}),
])  # fmt: skip
def test_each_confounder_is_one_set(rung, settings):
    """As the Python call; faults of the scanner with the switches of the sequence."""
    protocol = simulator.protocols.dixon_marrow_bipolar.replace(readout={"polarity": "bipolar", "dwell": 4e-6})
    Path("mine.toml").write_text(as_toml(protocol))
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    assert cli.run(["simulate", "mine.toml", "--phantom", "marrow_block", "--rung", rung, *sets]) == 0
    faults = {name: settings.pop(name) for name in verbs.SCANNER_FAULTS if name in settings}
    scanner = Scanner(**faults) if faults else None
    expected = simulator.scan(phantoms.marrow_block(), protocol, rung=rung, scanner=scanner, **settings)
    found = files.read("mine.nc", encoding="echo")
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.attrs["rung"] == rung
    plain = simulator.scan(phantoms.marrow_block(), protocol, rung=rung)
    assert not np.allclose(found.values, plain.values, rtol=1e-3)


def as_toml(protocol) -> str:
    """A protocol as a TOML file; JSON has the same strings, numbers and lists."""
    whole = json.loads(protocol.to_json())
    whole = {k: v for k, v in whole.items() if k != "fat_suppression"}
    plain = [f"{key} = {json.dumps(value)}" for key, value in whole.items() if not isinstance(value, dict)]
    tables = [(key, value) for key, value in whole.items() if isinstance(value, dict)]
    return "\n".join(
        [*plain, *(f"[{k}]\n" + "\n".join(f"{n} = {json.dumps(v)}" for n, v in t.items()) for k, t in tables)]
    )


def test_a_named_phantom_is_made_for_the_field_of_the_protocol():
    assert cli.run(["simulate", "dixon_ideal_iq_1t5", "--phantom", "marrow_block"]) == 0
    scan = files.read("dixon_ideal_iq_1t5.nc", encoding="echo")
    bone = phantoms.marrow_block(field=1.5)
    np.testing.assert_array_equal(scan.values, simulator.scan(bone, "dixon_ideal_iq_1t5").values)


def test_a_pulseq_file_is_a_protocol(tmp_path):
    """A pulse and one line of k-space, written by another package; a rung that cannot be is told, and nothing stays."""
    pypulseq = pytest.importorskip("pypulseq")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pypulseq.Sequence(pypulseq.Opts())
        made.add_block(pypulseq.make_block_pulse(np.pi / 2, duration=1e-4))
        made.add_block(pypulseq.make_adc(4, duration=4e-4, delay=1e-4))
        made.set_definition("FOV", [4e-3, 4e-3, 4e-3])
        made.write("fid.seq")
    assert cli.run(["simulate", "fid.seq", "--phantom", "marrow_block", "--rung", "engine"]) == 0
    found = files.read_scan("fid.nc")
    expected = simulator.scan(phantoms.marrow_block(), "fid.seq", rung="engine")
    np.testing.assert_array_equal(found.values, expected.values)
    before = sorted(Path().iterdir())
    assert cli.run(["simulate", "fid.seq", "--phantom", "marrow_block", "-o", "other.nc"]) == 2
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits_a_nifti(dwi, method):
    assert cli.run(["estimate", method, "dwi.nii.gz", "--sigma", "1", *TOLD.get(method, ())]) == 0
    said = json.loads((Path(method) / "estimate.json").read_text())
    assert said["method"] == method
    assert {"version", "protocol", "options", "inputs", "maps", "status_flags"} <= set(said)
    assert said["status_flags"]["not_identifiable"] == 8
    assert {"scan", "bval"} <= set(said["inputs"])
    assert said["inputs"]["bval"]["sha256"] == files.sha256("dwi.bval")
    written = {path.name for path in Path(method).iterdir()}
    assert written == {"estimate.json", "status.nii.gz"} | {f"{name}.nii.gz" for name in said["maps"]}
    np.testing.assert_allclose(nib.load(f"{method}/status.nii.gz").affine, AFFINE)
    assert read_map(method, "status").dtype == np.uint16


def test_the_fit_is_right_whatever_the_order_and_the_data_type(dwi, truth):
    """Noise-free, the parameters come back: to float32 of the maps, or to the rounding of the integers."""
    shuffled = dwi.isel(b=[10, 0, 3, 3, 7, 1, 2, 9, 4, 6, 5, 8])
    save_series(shuffled, "shuffled.nii.gz")
    save_series((dwi * 20).round().astype(np.uint16), "integers.nii.gz")
    for name in ("dwi", "shuffled"):
        assert cli.run(["estimate", "ivim", f"{name}.nii.gz", "-o", name]) == 0
        for quantity in ("S0", "f", "D", "D_star"):
            np.testing.assert_allclose(read_map(name, quantity), truth[quantity], rtol=1e-6)
    assert cli.run(["estimate", "ivim", "integers.nii.gz", "-o", "integers"]) == 0
    # rounding to integers is noise of SD 1/sqrt(12): five times the bound's SD, for 24 voxels
    bound = cramer_rao_bound(
        equations.get("ivim"),
        {name: (20 if name == "S0" else 1) * value.ravel() for name, value in truth.items()},
        {"b": dwi["b"].values},
        sigma=12**-0.5,
    )
    for column, quantity in enumerate(("S0", "f", "D_star", "D")):
        error = read_map("integers", quantity).ravel() - truth[quantity].ravel() * (20 if quantity == "S0" else 1)
        assert np.abs(error / bound[:, column]).max() < 5


def test_options_are_set_as_toml_reads_them(dwi):
    call = ["estimate", "ivim", "dwi.nii.gz", "--set", "bounds={D=[0, 0.45e-3]}", "--set", "intervals=true"]
    assert cli.run([*call, "--sigma", "2.5"]) == 0
    said = json.loads(Path("ivim/estimate.json").read_text())
    assert said["options"] == {"bounds": {"D": [0, 0.45e-3]}, "intervals": True} and said["noise_sd"] == 2.5
    assert cli.run(call) == 0
    assert "noise_sd" not in json.loads(Path("ivim/estimate.json").read_text())
    assert read_map("ivim", "D").max() <= 0.45e-3 * (1 + 1e-7)  # float32
    assert (read_map("ivim", "D_star_hi") >= read_map("ivim", "D_star")).all()


def test_a_label_map_gives_statistics_of_each_label(dwi, truth):
    labels = np.zeros((2, 3, 4), np.int16)
    labels[0, 0], labels[1] = 3, 8
    save("labels.nii.gz", labels)
    assert cli.run(["estimate", "adc", "dwi.nii.gz", "--mask", "labels.nii.gz"]) == 0
    said = json.loads(Path("adc/estimate.json").read_text())
    assert {label: entry["voxels"] for label, entry in said["labels"].items()} == {"3": 4, "8": 12}
    adc = read_map("adc", "adc")
    assert said["labels"]["8"]["adc"]["mean"] == pytest.approx(adc[labels == 8].mean(), rel=1e-6)
    assert np.isnan(adc[labels == 0]).all()
    assert (read_map("adc", "status")[labels == 0] == 128).all()
    assert said["inputs"]["mask"]["sha256"] == files.sha256("labels.nii.gz")


def test_one_voxel(decay):
    save_series(decay[:1, :1, :1])
    assert cli.run(["estimate", "ivim", "dwi.nii.gz"]) == 0
    assert read_map("ivim", "D").shape == (1, 1, 1)


def test_a_scan_without_b_zero_is_fitted(decay, truth):
    """S0 is an unknown of the fit, so that b = 0 need not be measured; noise-free nothing is lost."""
    save_series(decay.isel(b=slice(1, None)))
    assert cli.run(["estimate", "ivim", "dwi.nii.gz"]) == 0
    np.testing.assert_allclose(read_map("ivim", "D"), truth["D"], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_voxels_that_cannot_be_fitted_get_a_status(decay, method):
    bad = {
        "nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "zero": 0.0, "negative": -1.0,
    }  # fmt: skip
    data = decay.values.copy()
    data[0, 0, 0, 4] = bad["nan"]
    data[0, 0, 1, 4] = bad["inf"]
    data[0, 0, 2, 4] = bad["minus inf"]
    data[0, 0, 3] = bad["zero"]
    data[0, 1, 0] *= bad["negative"]
    data[0, 1, 1] = np.nan
    data[0, 1, 2] = 500.0  # constant: nothing decays
    spoiled = decay.copy(data=data)
    save_series(spoiled)
    assert cli.run(["estimate", method, "dwi.nii.gz", *TOLD.get(method, ())]) == 0
    status = read_map(method, "status").ravel()
    quantity = "adc" if method == "adc" else "D"
    values = read_map(method, quantity).ravel()
    assert (status[:7] != 0).all()
    assert np.isnan(values[:6]).all()
    assert (status[[0, 1, 2, 5]] & 1).all()  # invalid data
    # the good voxels beside them are fitted as if alone
    save_series(decay)
    assert cli.run(["estimate", method, "dwi.nii.gz", "-o", "alone", *TOLD.get(method, ())]) == 0
    assert np.isfinite(values[7:]).all()
    np.testing.assert_allclose(values[7:], read_map("alone", quantity).ravel()[7:], rtol=1e-6)


def test_a_pdff_map_is_the_second_input(dwi):
    save("pdff.nii.gz", np.full((2, 3, 4), 0.5))
    assert cli.run(["estimate", "ivim-fat-aware", "dwi.nii.gz", "pdff.nii.gz", "--protocol", "ivim_marrow"]) == 0
    assert cli.run(["estimate", "ivim-fat-aware", "dwi.nii.gz", *TOLD["ivim-fat-aware"], "-o", "number"]) == 0
    np.testing.assert_array_equal(read_map("ivim-fat-aware", "D"), read_map("number", "D"))


# -------------------------------------------------------------------------------------------------------- bad calls

BAD_CALLS = {
    # the call: what its one line says (scan.nc, dwi.nii.gz, labels of another shape, ... lie ready)
    "frobnicate": "No such command 'frobnicate'; the verbs are phantom, simulate, estimate, validate",
    "design diffusion": "No such command 'design'",
    "teach": "No such command 'teach'",
    "--frobnicate": "No such option: --frobnicate",
    "phantom nothing": "'nothing'",
    "phantom vertebra extra": "extra",
    "phantom vertebra -o bone.nii.gz": "output bone.nii.gz has the suffix .gz; it must be a file ending in .nc",
    "phantom vertebra -o text.nc/bone": "cannot write into text.nc: text.nc is a file, no folder",
    "phantom vertebra -o noname": "output noname is a file already; it must be a file ending in .nc or a folder",
    "phantom vertebra --set": "--set",
    "phantom vertebra --set pdff": "--set 'pdff': give key=value",
    "phantom vertebra --set colour=red": "--set colour: phantom vertebra has no parameter colour; it has condition",
    "phantom vertebra --set pdff=.4 --set pdff=.5": "--set pdff: pdff is given twice",
    "phantom vertebra --set pdff=2": "pdff",
    "phantom vertebra --set pdff=high": "pdff",
    "phantom vertebra --set condition=sad": "condition",
    "phantom vertebra --set seed=-1": "seed",
    "phantom vertebra --set resolution=0": "resolution",
    "phantom vertebra --set resolution=1": "resolution is 1 m, larger than the object itself; should be at most",
    "phantom vertebra --set resolution=fine": "resolution is 'fine', should be a number",
    "phantom vertebra --set field=9.4": "is not known at field 9.4 T (known: ",
    "phantom vertebra --set field=strong": "field is 'strong', should be a field strength in tesla",
    "phantom vertebra --set bvtv=1.2 -o folder": "bvtv is 1.2, should lie from 0 to below 1",
    "phantom vertebra --set condition=sad --preview": "no condition 'sad'; known: young, old",
    "phantom --set pdff=.4": "--set goes with a NAME",
    "phantom --preview": "--preview goes with a NAME",
    "phantom none.nc --preview": "none.nc: no such file",
    "phantom text.nc --preview": "text.nc: not a phantom file",
    "phantom bone.nc": "bone.nc: it is a file already; give --preview, or -o OUT for a copy",
    "phantom bone.nc --preview --set f=.1": "--set goes with the NAME of a phantom; bone.nc is a file",
    "phantom mapless.nc --preview": "mapless.nc: the pools lack the map 'T2' (s)",
    "phantom untrue.nc -o folder": "untrue.nc: the truth lacks the map 'pdff' (1)",
    "phantom milliseconds.nc --preview": "milliseconds.nc: pools.T2 has unit 'ms', should be 's'",
    "simulate ivim_marrow --phantom mapless.nc": "mapless.nc: the pools lack the map 'T2' (s)",
    "simulate ivim_marrow --phantom milliseconds.nc": "milliseconds.nc: pools.T2 has unit 'ms', should be 's'",
    "simulate": "Missing argument 'PROTOCOL': a .toml or .seq file, or one of adc_park_2016, ",
    "simulate ivim_marrow": "Missing option '--phantom'",
    "simulate nothing --phantom vials": "'nothing'",
    "simulate none.toml --phantom vials": "none.toml",
    "simulate text.toml --phantom vials": "text.toml",
    "simulate ivim_marrow --phantom nothing": "'nothing'",
    "simulate ivim_marrow --phantom none.nc": "none.nc: no such file",
    "simulate ivim_marrow --phantom scan.nc": "scan.nc",
    "simulate ivim_marrow --phantom text.nc": "text.nc",
    "simulate ivim_marrow --phantom vials --rung top": "rung",
    "simulate ivim_marrow --phantom vials --set noise=1": "--set noise: sequence diffusion_spin_echo has no parameter",
    "simulate dixon_marrow --phantom vials --set off_resonance=far": "off_resonance is 'far': expected a number (Hz)",
    "simulate dixon_marrow --phantom vials --set flip_angle=10": "flip_angle must be in rad, as 0.175 (given in degr",
    "simulate dixon_marrow --phantom vials --set flip_angle=large": "flip_angle=large: flip_angle must be a number (ra",
    "simulate dixon_marrow --phantom vials --set TR=[0.01,0.02]": "TR must be a number (s)",
    "simulate dixon_marrow --phantom vials --set TR=0.001": "TR is 0.001: expected a repetition time longer than TE",
    "simulate dixon_marrow --phantom vials --set first_echo_phase=20": "first_echo_phase is 20: expected rad, -2 pi to "
    "2 pi (given in degrees?)",
    "simulate dixon_marrow --phantom vials --set initial_phase=-90": "initial_phase is -90: expected rad",
    "simulate dixon_marrow_bipolar --phantom vials --set bipolar_phase=30": "bipolar_phase is 30: expected rad",
    "simulate dixon_marrow --phantom vials --set concomitant=true": "faults of the scanner go with --rung scan, not",
    "simulate dixon_marrow --phantom vials --rung scan --set concomitant=1": "concomitant must be true or false",
    "simulate dixon_marrow --phantom vials --rung scan --set delays=[1e-6,0]": "delays is [1e-06, 0]: expected a time",
    "simulate dixon_marrow --phantom vials --rung pools --set bipolar_phase=.1": "bipolar_phase is 0.1: expected 0",
    "simulate none.seq --phantom vials --rung engine": "none.seq: no such file",
    "simulate text.seq --phantom vials --rung engine": "text.seq",
    "simulate text.seq --phantom vials --set off_resonance=1": "sequence pulseq has no parameter off_resonance",
    "simulate ivim_marrow --phantom vials --snr 0": "--snr is 0; it must be a positive number",
    "simulate ivim_marrow --phantom vials --snr nan": "--snr is nan; it must be a positive number",
    "simulate ivim_marrow --phantom vials --snr -5": "--snr is -5; it must be a positive number",
    "simulate ivim_marrow --phantom vials --snr lots": "--snr is lots; it must be a positive number",
    "simulate ivim_marrow --phantom vials --seed 1.5": "--seed is 1.5; it must be an integer from 0",
    "simulate ivim_marrow --phantom vials --seed -1": "--seed is -1; it must be an integer from 0",
    "simulate ivim_marrow --phantom vials -o scan.nii.gz": "output scan.nii.gz has the suffix .gz",
    "simulate ivim_marrow --phantom vials -o text.nc/scan.nc": "text.nc is a file, no folder",
    "estimate nothing dwi.nii.gz": "'nothing'",
    "estimate ivim": "estimate ivim needs INPUT",
    "estimate ivim none.nii.gz": "none.nii.gz: no such file",
    "estimate ivim none.nc": "none.nc: no such file",
    "estimate ivim .": ". is a folder",
    "estimate ivim text.nii.gz": "text.nii.gz is not a readable NIfTI image",
    "estimate ivim cut.nii.gz": "cut.nii.gz is not a readable NIfTI image",
    "estimate ivim text.nc": "text.nc is not a readable NetCDF-4 file",
    "estimate ivim text.txt": "text.txt is of an unknown kind; a scan is NetCDF (.nc) or NIfTI (.nii, .nii.gz)",
    "estimate ivim bone.nc": "bone.nc holds no variable at its top level; a scan has the variable signal",
    "estimate ivim lonely.nii.gz": "lonely.nii.gz has no b-values: lonely.bval is missing; give them with --bval FILE",
    "estimate ivim dwi.nii.gz --bval none.bval": "none.bval: no such file",
    "estimate ivim dwi.nii.gz --bval ten.bval": "ten.bval holds 10 b-values and dwi.nii.gz has 11 volumes",
    "estimate ivim scan.nc --bval ten.bval": "--bval ten.bval goes with a NIfTI",
    "estimate ivim flat.nii.gz": "flat.nii.gz has 3 dimensions",
    "estimate ivim dwi.nii.gz --mask flat.nii.gz": "mask flat.nii.gz has the shape (4, 3, 3); the scan has (4, 3, 2)",
    "estimate ivim dwi.nii.gz --mask empty.nii.gz": "mask empty.nii.gz is 0 in all its 24 voxels",
    "estimate ivim dwi.nii.gz --mask none.nii.gz": "none.nii.gz: no such file",
    "estimate ivim dwi.nii.gz --mask text.nii.gz": "text.nii.gz is not a readable NIfTI image",
    "estimate ivim dwi.nii.gz --sigma 0": "--sigma is 0; it must be a positive number",
    "estimate ivim dwi.nii.gz --sigma -1": "--sigma is -1; it must be a positive number",
    "estimate ivim dwi.nii.gz --sigma inf": "--sigma is inf; it must be a positive number",
    "estimate ivim dwi.nii.gz --sigma some": "--sigma is some; it must be a positive number",
    "estimate ivim dwi.nii.gz --set colour=red": "--set colour: method ivim has no parameter colour",
    "estimate ivim dwi.nii.gz --set bounds=3": "--set bounds=3: bounds must be as in {D=[0, 3e-3]}",
    "estimate ivim dwi.nii.gz --set bounds={Q=[0,1]}": "bounds name 'Q'",
    "estimate ivim dwi.nii.gz --set bounds={D=[1,0]}": "bounds of D are",
    "estimate ivim dwi.nii.gz --set bounds={D=[0,high]}": "bounds",
    "estimate ivim dwi.nii.gz --set intervals=2": "--set intervals=2: intervals must be true or false",
    "estimate ivim dwi.nii.gz --set likelihood=3": "likelihood is 3; expected gaussian or rician",
    "estimate ivim dwi.nii.gz --set likelihood=round": "likelihood is 'round'; expected gaussian or rician",
    "estimate ivim dwi.nii.gz --set likelihood=rician": "needs sigma",
    "estimate ivim-segmented dwi.nii.gz --set threshold=high": "threshold must be a number",
    "estimate ivim-segmented dwi.nii.gz --set threshold=900": "threshold 900",
    "estimate ivim dwi.nii.gz pdff.nii.gz": "estimate ivim takes one input; pdff.nii.gz is a second one",
    "estimate ivim dwi.nii.gz --protocol nothing": "'nothing'",
    "estimate ivim dwi.nii.gz --protocol text.toml": "text.toml",
    "estimate ivim dwi.nii.gz -o maps.nii.gz": "output maps.nii.gz has the suffix .gz; it must be a file ending in .nc",
    "estimate ivim dwi.nii.gz -o text.nc/maps": "cannot write into text.nc: text.nc is a file, no folder",
    "estimate ivim dwi.nii.gz -o /proc/maps": "cannot write /proc/maps",
    "estimate ivim dwi.nii.gz -o /proc/maps.nc": "cannot write /proc/maps.nc",
    "estimate ivim dwi.nii.gz -o noname": "output noname is a file already",
    "estimate ivim two.nii.gz": "b has 2 different values; at least 4 are needed for 4 unknowns",
    "estimate ivim-fat-aware dwi.nii.gz": "dwi.nii.gz does not say TE; state it as EchoTime in a JSON sidecar",
    "estimate ivim-fat-aware dwi.nii.gz --set pdff=1.5 --protocol ivim_marrow": "pdff",
    "estimate ivim-fat-aware dwi.nii.gz pdff.nii.gz --set pdff=.5 --protocol ivim_marrow": "the PDFF is given twice",
    "validate nothing": "nothing",
    "validate none.toml": "none.toml",
    "validate text.toml": "text.toml",
    "validate ivim -o report.html": "output report.html has the suffix .html; it must be a folder",
    "validate ivim -o report.nc": "output report.nc has the suffix .nc; it must be a folder",
    "validate ivim -o text.nc/report": "cannot write into text.nc/report: text.nc is a file, no folder",
    "validate --quik": "No such option: --quik",
}  # fmt: skip


def spoil_phantoms(bone: phantoms.Phantom) -> None:
    """Write a phantom, and three that lack something or have it in another unit."""
    bone.to_netcdf("bone.nc")
    relabelled = bone.pools.copy(deep=True)
    relabelled["T2"].attrs["units"] = "ms"
    spoilt = {
        "mapless": (bone.pools.drop_vars("T2"), bone.truth),
        "milliseconds": (relabelled, bone.truth),
        "untrue": (bone.pools, bone.truth.drop_vars("pdff")),
    }
    for name, (pools, truth) in spoilt.items():
        pools.to_netcdf(f"{name}.nc", mode="w", group="pools", engine="h5netcdf")
        truth.to_netcdf(f"{name}.nc", mode="a", group="truth", engine="h5netcdf")


@pytest.fixture
def bad_files(dwi) -> None:
    """The files that the table of bad calls names."""
    for name in ("text.nii.gz", "text.nc", "text.txt", "text.toml", "text.seq", "noname"):
        Path(name).write_text("this is no image\n")
    Path("cut.nii.gz").write_bytes(Path("dwi.nii.gz").read_bytes()[:900])
    Path("cut.bval").write_text(Path("dwi.bval").read_text())
    Path("ten.bval").write_text("0 10 20 30 50 80 100 200 400 600")
    files.write_scan(dwi, "scan.nc")
    spoil_phantoms(phantoms.marrow_block())
    save("lonely.nii.gz", dwi.values)
    save("flat.nii.gz", np.ones((3, 3, 4)))
    save("empty.nii.gz", np.zeros((2, 3, 4)))
    save("pdff.nii.gz", np.full((2, 3, 4), 0.5))
    save_series(dwi[..., :2], "two.nii.gz")


def test_every_bad_call_is_told_in_one_line_and_writes_nothing(bad_files, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    wrong = []
    for call, expected in BAD_CALLS.items():
        # all calls are tried before the verdict: one table, one look
        try:
            line = told(capsys, *call.split())
        except BaseException as error:
            capsys.readouterr()
            wrong.append(f"{call}\n    raised {type(error).__name__}: {error}")
            continue
        if expected not in line:
            wrong.append(f"{call}\n    said {line.strip()}\n    expected {expected}")
    assert not wrong, "\n".join(wrong)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_call_without_arguments_or_for_help_succeeds(capsys):
    for call in ([], ["--help"], ["-h"], ["estimate", "--help"], ["--version"]):
        assert cli.run(call) == 0
        out, err = capsys.readouterr()
        assert out
        assert err == ""


@pytest.mark.parametrize("method", estimators.registry)
def test_the_page_of_a_method_tells_all_that_it_takes(capsys, method):
    """Each option with its default and a word on it; each quantity with its unit; what INPUT is."""
    chosen = estimators.get(method)
    assert cli.run(["estimate", method, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and chosen.title in out and max(map(len, out.splitlines())) <= 100
    assert " ".join(chosen.source.split()) in " ".join(out.split())
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ") and line.split()}
    for quantity, (unit, words) in chosen.quantities.items():
        assert rows[quantity][1] == unit and rows[quantity][2:3] == words.split()[:1]
    settings = out.partition("what stands without:")[2]
    for option, default in chosen.options.items():
        row = next(line.split() for line in settings.splitlines() if line.startswith(f"  {option} "))
        assert len(row) > 4, f"{option} is not told"
        assert (row[1] == "-") == (default is None or default == ())
    for text in ("INPUT", ".nc", "intervals", "`"):
        assert (text in out) == (text != "`")
    if chosen.modality == "fat":
        assert "EchoTime" in out and "MagneticFieldStrength (T)" in out and "4.70 ppm" in out
        assert ("--conjugate" in out and "-434 Hz" in out) == (chosen.signal == "complex")
    else:
        assert ".bval" in out


def test_what_follows_an_option_in_a_docstring_belongs_to_it():
    """To the next option, or the end of the paragraph; what stands before the first is told of the method."""

    def core(*, depth=1, width=2, height=3, plain=4):
        """Fit a box, `plain` or not.

        It has edges. `depth` is the first (m); `width`: ``narrow`` or ``wide``; then wider. It
        must be even. `height` (m). Other options as for `nothing`.

        Corners are sharp.
        """

    class Box:
        name, options, quantities = "box", {"depth": 1, "width": 2, "height": 3, "plain": 4}, {}

    Box.core = staticmethod(core)
    told_of = {option: explained.words_for(Box, option) for option in Box.options}
    assert told_of == {
        "depth": "the first (m)", "width": "narrow or wide; then wider. It must be even", "height": "(m)",
        "plain": "Fit a box, plain or not",
    }  # fmt: skip
    assert explained.prose(Box) == "Fit a box, plain or not.\n\nIt has edges.\n\nCorners are sharp."


def test_the_page_of_somebody_elses_method(capsys, monkeypatch):
    """Declared as CONTRIBUTING.md shows it, without a docstring, and options that no one has described."""

    def core(data, protocol, sigma, intervals, *, power=2.0, kind="plain", T1_water: float | np.ndarray | None = None):
        raise NotImplementedError

    mine = estimators.estimator(
        name="mine", title="Mine", modality="diffusion", model=equations.mono_exponential, encoding="b",
        quantities={"adc": ("mm2/s", "apparent diffusion coefficient")}, source="none", claims=Path("none.toml"),
    )(core)  # fmt: skip
    monkeypatch.setitem(estimators.registry, "mine", mine)
    assert cli.run(["estimate", "mine", "-h"]) == 0
    out = capsys.readouterr().out
    assert "\nMine\n" in out and "  power      2\n" in out and "  kind       plain\n" in out
    assert " T1_water - T1 of water (s); without, that of the tissue table; or a map" in " ".join(out.split())
    assert explained.bounds_example(mine) == "{adc=[0, 3e-3]}"


def test_a_page_names_what_may_be_set(capsys):
    """All parameters of every phantom, all switches of every sequence; a choice is listed, not called by its name."""
    for name, function in phantoms.registry.items():
        assert cli.run(["phantom", "--help", name]) == 0
        out = capsys.readouterr().out
        for parameter in inspect.signature(function).parameters:
            row = next(line for line in out.splitlines() if line.startswith(f"  {parameter} "))
            assert len(row.split()) > 2, f"{name}: {parameter} is not told"
        assert "CONDITIONS" not in out and "KINDS" not in out and "::" not in out
    assert "One of ivim, pdff" in out or cli.run(["phantom", "vials", "-h"]) == 0
    assert "One of ivim, pdff, r2star" in capsys.readouterr().out
    for name in ("dixon_marrow_bipolar", "ivim_marrow", "ute_2d", "fid.seq"):
        assert cli.run(["simulate", name, "-h"]) == 0
        out = capsys.readouterr().out
        chosen = sequences.get("pulseq" if name == "fid.seq" else simulator.protocols.get(name).sequence)
        assert all(f"\n  {switch} " in out for switch in chosen.switches)
        assert ("\n  odd_even_phase " in out) == (chosen.readout is not None)
    assert cli.run(["simulate", "dixon_marrow", "-h"]) == 0
    assert "\nNumbers of these may be changed, as --set name=value: TR, flip_angle\n" in capsys.readouterr().out


def test_help_for_what_is_not_there_is_told(capsys):
    assert "method 'nothing' is unknown; known are adc" in told(capsys, "estimate", "nothing", "--help")
    assert "no phantom 'nothing'" in told(capsys, "phantom", "-h", "nothing")
    assert "'nothing'" in told(capsys, "simulate", "nothing", "--help")
    for call in (["phantom", "bone.nc", "--help"], ["estimate", "-o", "x", "--help"]):
        assert cli.run(call) == 0  # nothing is named: the verb's own page
        assert "Usage: bonemri" in capsys.readouterr().out


@pytest.mark.parametrize("method", [m for m, chosen in estimators.registry.items() if "bounds" in chosen.options])
def test_the_example_of_bounds_is_one_of_the_methods_own(method, capsys):
    """It is told, it is accepted by the method, and it names an unknown that the method has."""
    example = explained.bounds_example(estimators.get(method))
    fat = estimators.get(method).modality == "fat"
    protocol = simulator.protocols.dixon_marrow if fat else simulator.protocols.ivim_marrow
    files.write_scan(simulator.scan(phantoms.marrow_block(pdff=0.4), protocol), "scan.nc")
    call = ("estimate", method, "scan.nc", *(TOLD.get(method, ())[:2]))
    assert f"bounds must be as in {example}" in told(capsys, *call, "--set", "bounds=3")
    assert cli.run([*call, "--set", f"bounds={example}", "-o", "bounded.nc"]) == 0


def test_a_switch_is_set_as_python_writes_it():
    for word in ("false", "False"):
        assert cli.run(["simulate", "dixon_marrow", "--phantom", "marrow_block", "--set", f"R2_prime={word}"]) == 0


def test_a_map_of_the_noise(dwi, capsys):
    """As the number where it is one everywhere; only the voxels to fit count; another shape or place is refused."""
    rng = np.random.default_rng(3)
    noisy = dwi.copy(data=dwi.values + rng.normal(0, 2, dwi.shape))
    save_series(noisy)
    mask = np.ones((2, 3, 4), np.uint8)
    mask[0, 0] = 0
    save("mask.nii.gz", mask)
    save("sd.nii.gz", np.where(mask, 2.0, 0.0))
    xr.DataArray(np.where(mask, 2.0, 0.0), dims=("z", "y", "x"), name="sd").to_netcdf("sd.nc", engine="h5netcdf")
    for given, out in (("2", "number"), ("sd.nii.gz", "nifti"), ("sd.nc", "netcdf")):
        assert cli.run(["estimate", "adc", "dwi.nii.gz", "--mask", "mask.nii.gz", "--sigma", given, "-o", out]) == 0
        np.testing.assert_array_equal(read_map(out, "adc_sd"), read_map("number", "adc_sd"))
        assert json.loads(Path(out, "estimate.json").read_text())["sigma"] == "given"
    said = json.loads(Path("nifti/estimate.json").read_text())
    assert said["inputs"]["sigma"]["sha256"] == files.sha256("sd.nii.gz")
    # twice the noise in a voxel is twice its standard error, and no other's
    save("more.nii.gz", np.where(np.arange(24).reshape(2, 3, 4) == 20, 4.0, 2.0))
    assert cli.run(["estimate", "adc", "dwi.nii.gz", "--sigma", "more.nii.gz", "-o", "more"]) == 0
    assert cli.run(["estimate", "adc", "dwi.nii.gz", "--sigma", "2", "-o", "same"]) == 0
    ratio = (read_map("more", "adc_sd") / read_map("same", "adc_sd")).ravel()
    np.testing.assert_allclose(ratio, np.where(np.arange(24) == 20, 2.0, 1.0), rtol=1e-6)
    capsys.readouterr()
    refused = "sigma map sd.nii.gz holds 0 in 4 of the 24 voxels to fit; the noise SD must be a positive number"
    assert refused in told(capsys, "estimate", "adc", "dwi.nii.gz", "--sigma", "sd.nii.gz")
    save("flat.nii.gz", np.ones((3, 3, 4)))
    assert "sigma map flat.nii.gz has the shape" in told(
        capsys, "estimate", "adc", "dwi.nii.gz", "--sigma", "flat.nii.gz"
    )
    save("moved.nii.gz", np.ones((2, 3, 4)), AFFINE + np.outer([0, 0, 9, 0], [0, 0, 0, 1]))
    assert "sigma map moved.nii.gz lies 9 mm away" in told(
        capsys, "estimate", "adc", "dwi.nii.gz", "--sigma", "moved.nii.gz"
    )
    assert "none.nii.gz: no such file" in told(capsys, "estimate", "adc", "dwi.nii.gz", "--sigma", "none.nii.gz")
    assert "or a map (.nii, .nii.gz or .nc)" in told(capsys, "estimate", "adc", "dwi.nii.gz", "--sigma", "some")


def test_an_option_that_may_be_a_map_is_read_as_one(dwi, capsys):
    save("pdff.nii.gz", np.full((2, 3, 4), 0.5))
    told_so = ["--protocol", "ivim_marrow"]
    for out, pdff in (("map", "pdff.nii.gz"), ("number", "0.5")):
        assert cli.run(["estimate", "ivim-fat-aware", "dwi.nii.gz", *told_so, "--set", f"pdff={pdff}", "-o", out]) == 0
    np.testing.assert_array_equal(read_map("map", "D"), read_map("number", "D"))
    assert json.loads(Path("map/estimate.json").read_text())["inputs"]["pdff"]["file"] == "pdff.nii.gz"
    capsys.readouterr()
    refused = told(capsys, "estimate", "ivim-segmented", "dwi.nii.gz", "--set", "threshold=pdff.nii.gz")
    assert "threshold must be a number" in refused


def test_a_mistake_of_ours_is_not_hidden(dwi, monkeypatch):
    monkeypatch.setattr(files, "read", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.run(["estimate", "ivim", "dwi.nii.gz"])


# ------------------------------------------------------------------------------------------------ a process of its own


def process(*call: str) -> subprocess.CompletedProcess[str]:
    """Make a call in a process of its own, in a pipe, on a narrow terminal."""
    command = [sys.executable, "-m", "bonemri.cli", *call]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "40"})


@pytest.mark.parametrize("call", ["estimate ivim " + "a_long_name" * 12 + ".nii.gz", "simulate", "nothing"])
def test_an_error_in_a_pipe_is_one_unwrapped_line(call):
    done = process(*call.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bonemri: ")
    assert done.stderr.count("\n") == 1


def test_there_is_no_progress_bar_in_a_pipe(dwi):
    done = process("estimate", "adc", "dwi.nii.gz")
    assert (done.returncode, done.stderr) == (0, "")
    wrote, status = done.stdout.splitlines()
    assert wrote == "wrote adc"
    assert status == "24 voxels with signal: 100 % good"


def test_air_is_counted_apart(capsys):
    """Half of the voxels are noise, one is not finite: of those with signal the shares, of the others the counts."""
    scan = simulator.scan(phantoms.marrow_block(pdff=0.4), simulator.protocols.dixon_marrow, snr=200)
    tissue = np.tile(scan.values.reshape(-1, 1, 1, scan.sizes["echo"])[:1], (8, 8, 4, 1))
    rng = np.random.default_rng(4)
    noise = scan.attrs["image_sd"] * (rng.standard_normal(tissue.shape) + 1j * rng.standard_normal(tissue.shape))
    both = np.concatenate([tissue + noise, rng.permutation(noise)])
    both[0, 0, 0] = np.nan
    coords = {name: c for name, c in scan.coords.items() if c.dims in ((), ("echo",))}
    files.write_scan(xr.DataArray(both, coords, scan.dims, "signal", scan.attrs), "half.nc")
    assert cli.run(["estimate", "dixon", "half.nc", "--sigma", str(scan.attrs["image_sd"]), "-o", "maps.nc"]) == 0
    wrote, seen, apart, *_ = capsys.readouterr().out.splitlines()
    status = files.read_netcdf("maps.nc")["status"].values
    low, bad = np.count_nonzero(status & 16), np.count_nonzero(status & 1)
    assert wrote == "wrote maps.nc" and bad == 1 and low > 200
    assert seen.startswith(f"{512 - low - bad} voxels with signal: ") and "low signal" not in seen
    good = 100 * np.count_nonzero(status == 0) / (512 - low - bad)
    assert f"{good:.3g} % good" in seen
    assert apart == f"{low + bad} voxels apart: {low} low signal, 1 invalid"


def test_what_holds_of_the_whole_image_is_told(capsys):
    """The weight of T1 in an uncorrected fraction, two echoes that leave it open which is water, a field far away."""
    sets = ["--set", "flip_angle=0.35", "--set", "TR=0.01"]
    assert cli.run(["simulate", "dixon_marrow", "--phantom", "marrow_block", *sets, "-o", "weighted.nc"]) == 0
    assert cli.run(["estimate", "dixon", "weighted.nc", "-o", "maps.nc"]) == 0
    half = files.read_netcdf("maps.nc").attrs["pdff_read_at_half"]
    out = capsys.readouterr().out
    assert f"not corrected for T1: a PDFF of 50 % reads {100 * half:.1f} %: --set T1_correction=true\n" in out
    assert cli.run(["estimate", "dixon", "weighted.nc", "--set", "T1_correction=true", "-o", "right.nc"]) == 0
    assert "T1" not in capsys.readouterr().out
    scan = files.read("weighted.nc", encoding="echo")
    scan = scan.isel(echo=[0, 1]).assign_coords(echo=("echo", [1.15e-3, 2.3e-3]))
    scan = scan.copy(data=np.broadcast_to([1 + 0j, 1 + 0j], scan.shape)).drop_attrs()  # one tissue: nothing decides
    files.write_scan(scan, "two.nc")
    for known, asked in (([], True), (["--set", "field_range=100"], False)):
        assert cli.run(["estimate", "dixon-2pt", "two.nc", "--sigma", "0.01", "-o", "two_maps.nc", *known]) == 0
        out = capsys.readouterr().out
        assert ("which is water is open in 100%: --set field_range=Hz where the field is known\n" in out) == asked
    found = {"remark": "the field is 400 Hz in the middle", "T1_weighting": "not corrected for, and not known: no TR"}
    lines = list(verbs._doubts(found, (), 0.0))
    assert lines == [f"doubt: {found['remark']}", f"T1: {found['T1_weighting']}"]


@pytest.mark.parametrize("changes", [{"flip_angle": 0.17}, {"TR": 0.02}, {"flip_angle": 0.17, "TR": 0.02, "B1": 0.9}])
def test_a_number_of_the_protocol_is_one_set(changes):
    """As `Protocol.replace`; B1 is a switch, the field inside the patient. The scan carries what was played."""
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert cli.run(["simulate", "dixon_marrow", "--phantom", "marrow_block", *sets, "-o", "scan.nc"]) == 0
    settings = {key: value for key, value in changes.items() if key != "B1"}
    switches = {key: value for key, value in changes.items() if key == "B1"}
    protocol = simulator.protocols.dixon_marrow.replace(**settings)
    expected = simulator.scan(phantoms.marrow_block(), protocol, **switches)
    found = files.read("scan.nc", encoding="echo")
    np.testing.assert_array_equal(found.values, expected.values)
    assert all(float(found[name]) == value for name, value in settings.items())
    plain = simulator.scan(phantoms.marrow_block(), simulator.protocols.dixon_marrow)
    assert not np.allclose(found.values, plain.values, rtol=1e-3)


@pytest.mark.parametrize("call", ["--help", "estimate --help", "phantom -h", "simulate --help", "validate --help"])
def test_help_answers_at_once(call):
    """What makes a start slow is what it imports: the verbs import theirs when they run."""
    heavy = ("numpy", "numba", "xarray", "scipy", "sympy", "matplotlib", "nibabel", "pandas")
    code = (
        f"import atexit, sys; sys.argv = {['bonemri', *call.split()]}; from bonemri.cli import main; "
        f"atexit.register(lambda: print(*[m for m in {heavy} if m in sys.modules], file=sys.stderr)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: bonemri" in done.stdout
    assert done.stderr.split() == []


# --------------------------------------------------------------------------------------------- data that others made


def test_osipi_reference_voxels(reference_data):
    """The reference voxels of the OSIPI TF2.4 collection (Apache-2.0), against the truth that stands beside them."""
    content = json.loads((reference_data / "osipi_generic.json").read_text())
    b = np.array(content.pop("config")["bvalues"], float)
    tissues = list(content.values())
    signal = np.array([tissue["data"] for tissue in tissues])
    scan = xr.DataArray(signal[None, None], dims=("z", "y", "x", "b"), coords={"b": b})
    save_series(scan, "osipi.nii.gz")
    assert cli.run(["estimate", "ivim", "osipi.nii.gz", "--sigma", "0.0005"]) == 0
    truth = {
        "S0": np.ones(len(tissues)),
        "f": np.array([tissue["f"] for tissue in tissues]),
        "D_star": np.array([tissue["Dp"] for tissue in tissues]),
        "D": np.array([tissue["D"] for tissue in tissues]),
    }
    bound = cramer_rao_bound(equations.get("ivim"), truth, {"b": b}, sigma=0.0005)
    score = np.array([(read_map("ivim", name).ravel() - truth[name]) for name in truth]).T / bound
    # 14 tissues: a normal score beyond 4 has a chance of 6e-5, of 56 scores 0.4 %; the mean square of the 14 scores of
    # a quantity is chi-square with 14 degrees of freedom, whose 99.9 % point is 36.1
    assert np.abs(score).max() < 4
    assert ((score**2).sum(axis=0) < 36.1).all()
    for name in ("f", "D", "D_star"):
        # the uncertainty that is reported is the one that is there
        np.testing.assert_array_less(read_map("ivim", f"{name}_sd").ravel() / bound[:, list(truth).index(name)], 1.5)
