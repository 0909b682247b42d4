"""Multi-echo data from outside: what scanners, converters and BIDS write is read, and what cannot be meant is told."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonemri import cli, estimators, simulator
from bonemri.errors import InputError
from bonemri.simulator import files, label_maps, multi_echo, nifti, phase_units
from bonemri.simulator.acquisition import protocols

AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, 1.5, 0, -30.0], [0, 0, 4.0, 5.0], [0, 0, 0, 1]])
ECHOES = (1.21e-3, 2.31e-3, 3.41e-3, 4.51e-3, 5.61e-3, 6.71e-3)
UNEVEN = (1.1e-3, 1.9e-3, 3.2e-3, 4.3e-3, 5.9e-3, 6.4e-3)
SIDECAR = {"EchoTime": list(ECHOES), "MagneticFieldStrength": 3, "RepetitionTime": 0.0072, "FlipAngle": 3}

# The ten peaks of marrow (Ren 2008, positions of Berglund 2012), and water at 4.70 ppm: typed here once more, so that
# the sign and the place of water of the whole way from file to map are not those of the code that is tried.
PPM = np.array([0.90, 1.30, 1.59, 2.03, 2.25, 2.77, 4.10, 4.30, 5.21, 5.31])
AREA = np.array([0.0920, 0.5738, 0.0613, 0.0867, 0.0613, 0.0151, 0.0204, 0.0204, 0.0102, 0.0585])


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def truth() -> dict[str, np.ndarray]:
    """Maps (x, y, z) of marrow and muscle."""
    rng = np.random.default_rng(8)
    shape = (5, 4, 3)
    ramp = np.linspace(-60, 60, shape[0])[:, None, None] * np.ones(shape)
    return {"pdff": rng.uniform(0.02, 0.95, shape), "r2star": rng.uniform(20, 120, shape), "fieldmap": 20 + ramp}


def echoes(truth, times=ECHOES, field=3.0) -> np.ndarray:
    """Complex images (x, y, z, echo) of water and fat that leave the pulse with a phase of .7 rad."""
    t = np.array(times)
    c = np.exp(2j * np.pi * np.outer(t, (PPM - 4.70) * 42.577478518 * field)) @ (AREA / AREA.sum())
    f, rate, psi = (truth[n][..., None] for n in ("pdff", "r2star", "fieldmap"))
    return 100 * (1 - f + f * c) * np.exp((2j * np.pi * psi - rate) * t + 0.7j)


def save(name: str, data: np.ndarray, sidecar: dict | None = None, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(data, affine), name)
    if sidecar is not None:
        nifti.beside(name, ".json").write_text(json.dumps(sidecar))
    return name


def pair(truth, times=ECHOES, phase=lambda p: p, sidecar=SIDECAR) -> tuple[str, str]:
    """Magnitude and phase on disk."""
    data = echoes(truth, times)
    save("m.nii.gz", np.abs(data), {**sidecar, "EchoTime": list(times)})
    return "m.nii.gz", save("p.nii.gz", phase(np.angle(data)))


def map_of(folder: str, name: str) -> np.ndarray:
    return np.asanyarray(nib.load(Path(folder) / f"{name}.nii.gz").dataobj)


def told(capsys, *call: str) -> str:
    """Make a call that must be refused; return its one line."""
    before = sorted(Path().rglob("*"))
    assert cli.run(call) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bonemri: ") and err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return err


def check_maps(folder: str, truth, tolerance: float = 1e-6) -> None:
    """Noise-free data give the truth back; maps are float32, to 6e-8 of their value."""
    for name, scale in (("pdff", 1.0), ("r2star", 100.0), ("fieldmap", 100.0)):
        np.testing.assert_allclose(map_of(folder, name), truth[name], rtol=0, atol=tolerance * scale)
    assert not map_of(folder, "status").any()


# ------------------------------------------------------------------------------------------------------- good paths


def test_complex_and_magnitude_with_phase(truth, capsys):
    save("c.nii.gz", echoes(truth), SIDECAR)
    assert cli.run(["estimate", "dixon", "c.nii.gz"]) == 0
    check_maps("dixon", truth)
    assert cli.run(["estimate", "dixon", *pair(truth), "-o", "pair"]) == 0
    check_maps("pair", truth)
    said = json.loads(Path("pair/estimate.json").read_text())
    assert {what: entry["file"] for what, entry in said["inputs"].items()} == {
        "scan": "m.nii.gz", "second": "p.nii.gz", "sidecar": "m.json",
    }  # fmt: skip
    assert all(entry["sha256"] == files.sha256(entry["file"]) for entry in said["inputs"].values())
    assert said["protocol"]["echo"] == list(ECHOES)
    assert said["protocol"]["flip_angle"] == pytest.approx(math.radians(3))
    np.testing.assert_allclose(nib.load("pair/pdff.nii.gz").affine, AFFINE)
    assert capsys.readouterr().err == ""


FAT = [name for name, method in estimators.registry.items() if method.modality == "fat"]
FEW = {"dixon-2pt": (1.15e-3, 2.30e-3), "dixon-3pt": (1.15e-3, 1.95e-3, 2.75e-3)}


@pytest.mark.parametrize("method", FAT)
def test_every_method_goes_by_way_of_the_command_line(truth, method):
    """Two and three echoes know no R2*: it is made small, 1 - exp(-1 x 1.6 ms) of the contrast between two of them."""
    if method in FEW:
        truth = {**truth, "r2star": np.full((5, 4, 3), 1.0), "fieldmap": truth["fieldmap"] / 10}
    m, p = pair(truth, FEW.get(method, UNEVEN))
    known = ["--set", "field_range=150"] if method == "dixon-2pt" else []  # or all could be exchanged
    assert cli.run(["estimate", method, m, p, "--sigma", "0.01", *known]) == 0
    said = json.loads(Path(method, "estimate.json").read_text())
    assert said["method"] == method and {"scan", "second", "sidecar"} <= set(said["inputs"])
    assert {path.name for path in Path(method).iterdir()} == {
        "estimate.json", "status.nii.gz", *(f"{name}.nii.gz" for name in said["maps"])
    }  # fmt: skip
    sure = (map_of(method, "status") & ~np.uint16(32)) == 0
    assert sure.mean() > 0.5
    error = np.abs(map_of(method, "pdff") - truth["pdff"])[sure]
    assert error.max() < (1e-5 if method not in FEW else 0.01)


def test_magnitudes_alone(truth, capsys):
    m, _ = pair(truth)
    assert cli.run(["estimate", "dixon-magnitude", m]) == 0
    sure = (map_of("dixon-magnitude", "status") & ~np.uint16(32)) == 0
    np.testing.assert_allclose(map_of("dixon-magnitude", "pdff")[sure], truth["pdff"][sure], atol=1e-5)
    capsys.readouterr()
    assert "--conjugate turns the phase; m.nii.gz has none" in told(
        capsys, "estimate", "dixon-magnitude", m, "--conjugate"
    )


def test_what_is_read_and_how_it_is_called(truth):
    scan = files.read(pair(truth)[0], encoding="echo", second="p.nii.gz")
    assert scan.dims == ("z", "y", "x", "echo")
    np.testing.assert_allclose(scan.values, echoes(truth).transpose(2, 1, 0, 3), rtol=1e-12)
    assert {n: c.attrs["units"] for n, c in scan.coords.items()} == {
        "echo": "s", "field_strength": "T", "TR": "s", "flip_angle": "rad",
    }  # fmt: skip
    assert float(scan["flip_angle"]) == pytest.approx(math.pi / 60)
    np.testing.assert_allclose(scan.attrs["voxel_size"], [4e-3, 1.5e-3, 1.5e-3])
    assert "reading" not in scan.attrs and "protocol" not in scan.attrs


def test_the_other_sign(truth, capsys):
    """Fat at positive frequency: conjugated, such data are ours; taken as they are, they fit no spectrum.

    Uneven echoes: at an even spacing of 1.1 ms fat at +434 Hz is seen at -475, and PDFF comes out nearly right.
    """
    save("v.nii.gz", echoes(truth, UNEVEN).conj(), {**SIDECAR, "EchoTime": list(UNEVEN)})
    assert cli.run(["estimate", "dixon", "v.nii.gz", "--conjugate"]) == 0
    check_maps("dixon", truth)
    assert json.loads(Path("dixon/estimate.json").read_text())["reading"] == "conjugated"
    assert cli.run(["estimate", "dixon", "v.nii.gz", "-o", "plain"]) == 0
    assert np.nanmax(np.abs(map_of("plain", "pdff") - truth["pdff"])) > 0.1
    m, p = pair(truth, phase=lambda phase: -phase)
    assert cli.run(["estimate", "dixon", m, p, "--conjugate", "-o", "pair"]) == 0
    check_maps("pair", truth)


@pytest.mark.parametrize("kind", ["int16", "uint8", "float32", "uint16"])
def test_every_data_type_is_read_with_its_scaling(truth, kind):
    """Magnitudes as scaled integers: to half a step of their rounding."""
    magnitude = np.abs(echoes(truth))
    image = nib.Nifti1Image(magnitude, AFFINE)
    image.set_data_dtype(kind)  # nibabel chooses slope and intercept
    nib.save(image, "m.nii.gz")
    nifti.beside("m.nii.gz", ".json").write_text(json.dumps(SIDECAR))
    found = files.read("m.nii.gz", encoding="echo").values.transpose(2, 1, 0, 3)
    step = 0.0 if kind == "float32" else np.ptp(magnitude) / np.ptp([np.iinfo(kind).min, np.iinfo(kind).max])
    assert np.abs(found - magnitude).max() <= 0.51 * step + 1e-5


def test_echoes_need_not_be_even_nor_in_order(truth):
    m, p = pair(truth, UNEVEN)
    assert cli.run(["estimate", "dixon", m, p]) == 0
    check_maps("dixon", truth)
    order = [3, 0, 5, 1, 4, 2]
    data = echoes(truth, UNEVEN)[..., order]
    save("shuffled.nii.gz", data, {**SIDECAR, "EchoTime": [UNEVEN[i] for i in order]})
    scan = files.read("shuffled.nii.gz", encoding="echo")
    np.testing.assert_array_equal(scan["echo"], UNEVEN)
    np.testing.assert_allclose(scan.values, echoes(truth, UNEVEN).transpose(2, 1, 0, 3), rtol=1e-12)


SHAPES = {
    "one slice (x, y, echo)": (lambda d: d[:, :, 1], lambda t: t[:, :, 1:2]),
    "one slice (x, y, 1, echo)": (lambda d: d[:, :, 1:2], lambda t: t[:, :, 1:2]),
    "one slice (x, y, echo, 1)": (lambda d: d[:, :, 1, :, None], lambda t: t[:, :, 1:2]),
    "five axes (x, y, z, 1, echo)": (lambda d: d[:, :, :, None], lambda t: t),
    "five axes (x, y, z, echo, 1)": (lambda d: d[..., None], lambda t: t),
    "one voxel": (lambda d: d[:1, :1, :1], lambda t: t[:1, :1, :1]),
    "one row": (lambda d: d[:, :1, :1], lambda t: t[:, :1, :1]),
    "one column of slices": (lambda d: d[:1, :1], lambda t: t[:1, :1]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes(truth, shape):
    of_data, of_truth = SHAPES[shape]
    save("c.nii.gz", of_data(echoes(truth)), SIDECAR)
    assert cli.run(["estimate", "dixon", "c.nii.gz"]) == 0
    check_maps("dixon", {name: of_truth(values) for name, values in truth.items()})


BIDS = "sub-01_echo-{}_part-{}_MEGRE.nii.gz"


def bids(truth, times=ECHOES, parts=(("mag", np.abs), ("phase", np.angle))) -> tuple[str, ...]:
    """A BIDS set: one file an echo and a part, each with its own sidecar; the names of the first echo."""
    data = echoes(truth, times)
    for number, time in enumerate(times, start=1):
        for part, of in parts:
            sidecar = {**SIDECAR, "EchoTime": time, "EchoNumber": number}
            if part == "phase":
                sidecar["Units"] = "rad"
            save(BIDS.format(number, part), of(data[..., number - 1]), sidecar)
    return tuple(BIDS.format(1, part) for part, _ in parts)


def test_a_bids_set_is_gathered_from_any_of_its_files(truth):
    magnitude, phase = bids(truth)
    assert cli.run(["estimate", "dixon", magnitude, phase]) == 0
    check_maps("dixon", truth)
    said = json.loads(Path("dixon/estimate.json").read_text())["inputs"]
    assert len(said) == 24  # twelve images and their sidecars
    assert said["second 6"]["file"] == BIDS.format(6, "phase")
    third = files.read(BIDS.format(3, "mag"), encoding="echo", second=BIDS.format(5, "phase"))
    np.testing.assert_allclose(third.values, files.read(magnitude, encoding="echo", second=phase).values)


def test_the_phase_beside_a_magnitude_of_bids_is_found(truth, capsys):
    """For a method that needs it, with a word; a phase that is not there is asked for."""
    magnitude, phase = bids(truth)
    assert cli.run(["estimate", "dixon", magnitude]) == 0
    check_maps("dixon", truth)
    said = json.loads(Path("dixon/estimate.json").read_text())
    assert said["inputs"]["second"]["file"] == phase and said["reading"] == f"phase from {phase}"
    assert f"reading: phase from {phase}\n" in capsys.readouterr().out
    for file in Path().glob("*part-phase*"):
        file.unlink()
    assert "has no phase: give the phase (rad) as INPUT2" in told(capsys, "estimate", "dixon", magnitude)


def test_the_sorted_numbers_of_a_set_are_numbers(truth):
    """Twelve echoes: echo-10 comes after echo-2."""
    times = tuple(1.1e-3 * n for n in range(1, 13))
    magnitude, phase = bids(truth, times)
    np.testing.assert_allclose(files.read(magnitude, encoding="echo", second=phase)["echo"], times)


def test_real_and_imaginary_parts(truth):
    bids(truth, parts=(("real", np.real), ("imag", np.imag)))
    scan = files.read(BIDS.format(1, "real"), encoding="echo", second=BIDS.format(1, "imag"))
    np.testing.assert_allclose(scan.values, echoes(truth).transpose(2, 1, 0, 3), rtol=1e-12)
    assert scan.attrs["reading"] == "real and imaginary part"


def test_real_and_imaginary_by_other_names_and_in_the_wrong_order(truth, capsys):
    data = echoes(truth)
    save("gre_real.nii.gz", data.real, SIDECAR)
    save("gre_imaginary.nii.gz", data.imag)
    assert cli.run(["estimate", "dixon", "gre_real.nii.gz", "gre_imaginary.nii.gz"]) == 0  # as dcm2niix calls them
    check_maps("dixon", truth)
    capsys.readouterr()
    line = told(capsys, "estimate", "dixon", "gre_imaginary.nii.gz", "gre_real.nii.gz")
    assert "gre_imaginary.nii.gz is an imaginary part and gre_real.nii.gz a real one; give the real part first" in line
    save("a.nii.gz", data.real, SIDECAR)
    save("b.nii.gz", data.imag)
    assert re.search(r"a\.nii\.gz is negative in \d+% of its voxels; a magnitude has none", told(
        capsys, "estimate", "dixon", "a.nii.gz", "b.nii.gz"
    ))  # fmt: skip
    m, p = pair(truth)
    assert "p.nii.gz is negative in" in told(capsys, "estimate", "dixon", p, m) or "m.nii.gz runs from" in told(
        capsys, "estimate", "dixon", p, m
    )


def test_a_phase_in_the_first_place_is_told(truth, capsys):
    magnitude, phase = bids(truth)
    assert f"{phase} is a phase by its name; give the magnitude first" in told(
        capsys, "estimate", "dixon", phase, magnitude
    )
    m, p = pair(truth, phase=lambda q: q % (2 * np.pi))
    assert "m.nii.gz runs from" in told(capsys, "estimate", "dixon", p, m)


def test_phases_of_other_echoes_are_told(truth, capsys):
    magnitude, phase = bids(truth)
    place = Path(BIDS.format(3, "phase").replace(".nii.gz", ".json"))
    place.write_text(json.dumps({"EchoTime": ECHOES[3], "Units": "rad"}))
    line = told(capsys, "estimate", "dixon", magnitude, phase)
    assert (
        f"{place}: EchoTime of image 3 is 0.00451; that of {BIDS.format(3, 'mag')} is 0.00341: both must have" in line
    )
    place.unlink()  # what is not stated cannot differ
    assert cli.run(["estimate", "dixon", magnitude, phase]) == 0
    check_maps("dixon", truth)


def test_files_of_a_set_that_differ_are_told(truth, capsys):
    magnitude, phase = bids(truth)
    data = echoes(truth)
    save(BIDS.format(4, "mag"), np.abs(data[:-1, ..., 3]))
    assert f"{BIDS.format(4, 'mag')} has the shape (4, 4, 3); {magnitude}, of the same set, has (5, 4, 3)" in told(
        capsys, "estimate", "dixon", magnitude, phase
    )
    save(BIDS.format(4, "mag"), data[..., 3])
    assert f"{BIDS.format(4, 'mag')} is complex; {magnitude}, of the same set, is real" in told(
        capsys, "estimate", "dixon", magnitude, phase
    )
    every = [BIDS.format(n, "mag") for n in range(1, 7)]
    assert "of a set of files, one an echo, name any one: the others are found" in told(
        capsys, "estimate", "dixon", *every
    )


def test_the_frequency_tells_the_field_where_nothing_else_does(truth):
    """127.732 MHz are 3 T; stated as 3 T, a scanner of 123.25 MHz has 2.895 T; both to a per mille need no word."""
    save("c.nii.gz", echoes(truth), {"EchoTime": list(ECHOES), "ImagingFrequency": 127.732435554})
    scan = files.read("c.nii.gz", encoding="echo")
    assert float(scan["field_strength"]) == pytest.approx(3.0, rel=1e-9)
    assert scan.attrs["reading"] == "field strength of 3 T from ImagingFrequency"
    nifti.beside("c.nii.gz", ".json").write_text(json.dumps({**SIDECAR, "ImagingFrequency": 123.25}))
    scan = files.read("c.nii.gz", encoding="echo")
    assert float(scan["field_strength"]) == pytest.approx(123.25 / 42.577478518, rel=1e-9)
    assert scan.attrs["reading"] == "field strength of 2.895 T from ImagingFrequency, stated as 3 T"
    unstated = {**SIDECAR, "ImagingFrequency": 123.25, "ImagedNucleus": None}
    nifti.beside("c.nii.gz", ".json").write_text(json.dumps(unstated))
    assert float(files.read("c.nii.gz", encoding="echo")["field_strength"]) == float(scan["field_strength"])
    for other in ({"ImagingFrequency": 63.68}, {"ImagingFrequency": 123.25, "ImagedNucleus": "31P"}):
        nifti.beside("c.nii.gz", ".json").write_text(json.dumps({**SIDECAR, **other}))
        scan = files.read("c.nii.gz", encoding="echo")
        assert float(scan["field_strength"]) == 3.0
        assert scan.attrs.get("reading", "").endswith("though ImagingFrequency says 1.496") == (len(other) == 1)
    nifti.beside("c.nii.gz", ".json").write_text(json.dumps({**SIDECAR, "ImagingFrequency": 127.7, "FlipAngle": None}))
    assert "reading" not in files.read("c.nii.gz", encoding="echo").attrs


# ----------------------------------------------------------------------------------------------- labels and regions


def labelled() -> np.ndarray:
    labels = np.zeros((5, 4, 3), np.int16)
    labels[1, :, 1:], labels[2:4, 1:3], labels[4, 0] = 4, 7, 9
    return labels


def test_labels_have_names_good_voxels_and_regions(truth):
    """Counted and averaged here by hand: voxels of 1.5 x 1.5 x 4 mm, of which three were spoiled."""
    data = echoes(truth)
    data[1, 0, 1] = np.nan
    data[2, 1, :2] = 0
    save("c.nii.gz", data, SIDECAR)
    labels = labelled()
    save("labels.nii.gz", labels, {"labels": {"4": "L1", "7": "left_multifidus", "9": "right multifidus", "11": "T"}})
    assert cli.run(["estimate", "dixon", "c.nii.gz", "--mask", "labels.nii.gz"]) == 0
    said = json.loads(Path("dixon/estimate.json").read_text())
    assert {n: entry["name"] for n, entry in said["labels"].items()} == {
        "4": "L1", "7": "left_multifidus", "9": "right_multifidus",
    }  # fmt: skip
    first, second = said["labels"]["4"], said["labels"]["7"]
    assert first["status"] == {"good": 7, "invalid": 1} and first["flagged"] == 1 and first["voxels"] == 8
    assert second["status"] == {"good": 10, "invalid": 2}
    good = (labels == 4) & np.isfinite(data).all(axis=3)
    for name in ("pdff", "r2star"):
        values, row = truth[name][good], first[name]["good"]
        assert row["n"] == 7 and row["mean"] == pytest.approx(values.mean(), rel=1e-6)
        assert row["sd"] == pytest.approx(values.std(ddof=1), rel=1e-5)
        assert row["se"] == pytest.approx(values.std(ddof=1) / 7**0.5, rel=1e-5)
        assert [row["q25"], row["median"], row["q75"]] == pytest.approx(np.percentile(values, [25, 50, 75]), rel=1e-6)
    region = first["region"]
    assert region["t2star"] == pytest.approx(1 / np.median(truth["r2star"][good]), rel=1e-6)
    assert region["volume"] == pytest.approx(8 * 1.5e-3**2 * 4e-3)
    assert region["cross_section"] == pytest.approx(4 * 1.5e-3**2)  # four voxels in each of two slices
    assert region["pdff"] == pytest.approx(truth["pdff"][good].mean(), rel=1e-6)  # water and fat add up to 100
    both = said["groups"]["paraspinal"]
    assert both["voxels"] == 15 and both["volume"] == pytest.approx(15 * 1.5e-3**2 * 4e-3)
    assert said["region_units"] == said["region_units"] | {"cross_section": "m2", "volume": "m3", "t2star": "s"}
    # the same in NetCDF
    assert cli.run(["estimate", "dixon", "c.nii.gz", "--mask", "labels.nii.gz", "-o", "maps.nc"]) == 0
    attrs = files.read_netcdf("maps.nc").attrs
    assert json.loads(attrs["labels"])["4"] == first and json.loads(attrs["groups"]) == said["groups"]


@pytest.mark.parametrize(("beside", "text"), [
    ("labels.json", '{"LabelMap": {"L1": 4, "left multifidus": 7}}'),
    ("labels.tsv", "index\tname\n4\tL1\n7\tleft multifidus\n"),
    ("labels.tsv", "name\tcolor\tindex\nL1\t#ff0000\t4\nleft multifidus\t#00ff00\t7"),
    ("labels.json", '{"labels": {"4": "L1", "7": "left multifidus", "9": 3, "x": "y", "1e999": "z", "7.5": "w"}}'),
])  # fmt: skip
def test_names_of_labels_as_others_write_them(truth, beside, text):
    save("c.nii.gz", echoes(truth), SIDECAR)
    scan = files.read("c.nii.gz", encoding="echo")
    save("labels.nii.gz", labelled())
    Path(beside).write_text(text)
    found = label_maps.read_labels("labels.nii.gz", scan, "mask")
    assert found.attrs["flag_values"].tolist() == [4, 7] and found.attrs["flag_meanings"] == "L1 left_multifidus"
    Path(beside).write_text('{"labels": [4, 7]}' if beside.endswith("json") else "no table\n")
    assert "flag_meanings" not in label_maps.read_labels("labels.nii.gz", scan, "mask").attrs


def test_the_labels_of_a_phantom_name_its_regions(tmp_path):
    """As NetCDF; two labels of one name stay two."""
    scan = files.read(save("c.nii.gz", np.ones((5, 4, 3, 6)), SIDECAR), encoding="echo")
    array = xr.DataArray(labelled().T, dims=("z", "y", "x"), name="label", attrs={
        "flag_values": np.array([4, 7, 9], np.int16), "flag_meanings": "L1 muscle muscle"})  # fmt: skip
    array.to_netcdf("labels.nc", engine="h5netcdf")
    found = label_maps.read_labels("labels.nc", scan, "mask")
    assert found.attrs["flag_meanings"] == "L1 muscle_7 muscle_9"
    np.testing.assert_array_equal(found.values, labelled().T)


def test_a_mask_with_its_axes_turned_is_turned_back(truth, capsys):
    """Flipped and exchanged axes, with the affine that says so: the same voxels. Moved by a voxel, it is refused."""
    save("c.nii.gz", echoes(truth), SIDECAR)
    scan = files.read("c.nii.gz", encoding="echo")
    labels = labelled()
    turned = np.flip(labels, 0).transpose(2, 0, 1)
    affine = AFFINE[:, [2, 0, 1, 3]].copy()
    affine[:, 1] *= -1
    affine[:3, 3] += AFFINE[:3, 0] * (labels.shape[0] - 1)
    save("turned.nii.gz", turned, affine=affine)
    np.testing.assert_array_equal(label_maps.read_labels("turned.nii.gz", scan, "mask").values, labels.T)
    affine[2, 3] += 4.0
    save("moved.nii.gz", turned, affine=affine)
    assert "mask moved.nii.gz lies 4 mm away" in told(capsys, "estimate", "dixon", "c.nii.gz", "--mask", "moved.nii.gz")


def test_an_integer_mask_of_a_rounded_slope_is_one(truth):
    """A slope of 1/255 in single precision leaves 1 + 3e-8, which is a 1."""
    scan = files.read(save("c.nii.gz", np.ones((5, 4, 3, 6)), SIDECAR), encoding="echo")
    found = label_maps.as_labels(scan.isel(echo=0, drop=True) * (255 * float(np.float32(1 / 255))), "mask")
    assert (found == 1).all() and found.dtype == np.int64
    with pytest.raises(InputError, match="holds 1.001; a mask holds integers"):
        label_maps.as_labels(scan.isel(echo=0, drop=True) * 1.001, "mask")


def test_a_map_of_noise_for_water_and_fat(truth):
    """Zero outside the mask, as noise maps are; twice the noise in a voxel is twice its standard errors."""
    rng = np.random.default_rng(5)
    data = echoes(truth)
    save("c.nii.gz", data + rng.normal(0, 1, data.shape) + 1j * rng.normal(0, 1, data.shape), SIDECAR)
    save("mask.nii.gz", labelled())
    noise = np.where(labelled() > 0, 1.0, 0.0)
    noise[2, 1, 1] = 2.0
    save("noise.nii.gz", noise)
    call = ["estimate", "dixon", "c.nii.gz", "--mask", "mask.nii.gz"]
    assert cli.run([*call, "--sigma", "noise.nii.gz", "-o", "map"]) == 0
    assert cli.run([*call, "--sigma", "1", "-o", "number"]) == 0
    ratio = map_of("map", "pdff_sd") / map_of("number", "pdff_sd")
    np.testing.assert_allclose(ratio[labelled() > 0], np.where(noise == 2, 2.0, 1.0)[labelled() > 0], rtol=1e-4)
    np.testing.assert_array_equal(map_of("map", "pdff")[noise == 1], map_of("number", "pdff")[noise == 1])


def test_maps_of_what_is_known_from_elsewhere(truth, capsys):
    """R2* as a map for three echoes: noise-free, the fraction is right though R2* differs from voxel to voxel."""
    m, p = pair(truth, FEW["dixon-3pt"])
    save("r2star.nii.gz", truth["r2star"])
    assert cli.run(["estimate", "dixon-3pt", m, p, "--set", "r2star=r2star.nii.gz"]) == 0
    sure = (map_of("dixon-3pt", "status") & ~np.uint16(32)) == 0
    np.testing.assert_allclose(map_of("dixon-3pt", "pdff")[sure], truth["pdff"][sure], atol=1e-5)
    assert sure.mean() > 0.5
    said = json.loads(Path("dixon-3pt/estimate.json").read_text())
    assert said["inputs"]["r2star"]["sha256"] == files.sha256("r2star.nii.gz")
    capsys.readouterr()
    assert "spectrum" in told(capsys, "estimate", "dixon-3pt", m, p, "--set", "spectrum=r2star.nii.gz")

    data = echoes(truth)
    for n, time in enumerate(ECHOES):
        save(f"gre_e{n + 1}.nii.gz", np.abs(data[..., n]), {**SIDECAR, "EchoTime": time})
        save(f"gre_e{n + 1}_ph.nii.gz", np.angle(data[..., n]), {**SIDECAR, "EchoTime": time})
    assert cli.run(["estimate", "dixon", "gre_e1.nii.gz", "gre_e1_ph.nii.gz"]) == 0
    check_maps("dixon", truth)


def test_the_first_echo_may_have_no_number(truth):
    """As older converters name them; but a file that stands beside a whole set is its own."""
    data = echoes(truth)
    for n, time in enumerate(ECHOES):
        number = "" if n == 0 else f"_e{n + 1}"
        save(f"gre{number}.nii.gz", np.abs(data[..., n]), {**SIDECAR, "EchoTime": time})
        save(f"gre{number}_ph.nii.gz", np.angle(data[..., n]))
    for first, second in (("gre", "gre_ph"), ("gre_e3", "gre_e2_ph")):
        scan = files.read(f"{first}.nii.gz", encoding="echo", second=f"{second}.nii.gz")
        np.testing.assert_allclose(scan.values, data.transpose(2, 1, 0, 3), rtol=1e-12)
    save("gre_e1.nii.gz", np.abs(data[..., 0]), {**SIDECAR, "EchoTime": ECHOES[0]})
    save("gre.nii.gz", np.abs(data[..., :4]), {**SIDECAR, "EchoTime": list(ECHOES[:4])})
    assert files.read("gre.nii.gz", encoding="echo").sizes["echo"] == 4
    assert files.read("gre_e2.nii.gz", encoding="echo").sizes["echo"] == 6


def test_a_protocol_stands_in_for_the_sidecar(truth):
    """Its echo times and constants where there are none; water stays at 4.70 ppm, as of data from outside."""
    save("c.nii.gz", echoes(truth))
    assert cli.run(["estimate", "dixon", "c.nii.gz", "--protocol", "dixon_marrow"]) == 0
    check_maps("dixon", truth)
    assert protocols.dixon_marrow.table["echo"] == ECHOES


def test_labels(truth):
    labels = np.zeros((5, 4, 3), np.int16)
    labels[:2], labels[4] = 2, 7
    save("labels.nii.gz", labels)
    assert cli.run(["estimate", "dixon", *pair(truth), "--mask", "labels.nii.gz"]) == 0
    said = json.loads(Path("dixon/estimate.json").read_text())["labels"]
    assert {label: entry["voxels"] for label, entry in said.items()} == {"2": 24, "7": 12}
    for label in (2, 7):
        mean = truth["pdff"][labels == label].mean()
        assert said[str(label)]["pdff"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert np.isnan(map_of("dixon", "pdff")[labels == 0]).all()


def test_our_own_scans_go_through(truth):
    """A complex scan by way of NetCDF, water at body temperature: as it goes from hand to hand."""
    assert cli.run(["simulate", "dixon_marrow", "--phantom", "marrow_block", "-o", "scan.nc"]) == 0
    scan = files.read("scan.nc", encoding="echo")
    assert scan.dtype.kind == "c" and scan.dims[-1] == "echo"
    assert cli.run(["estimate", "dixon", "scan.nc", "-o", "maps.nc"]) == 0
    maps = files.read_netcdf("maps.nc")
    assert np.isfinite(maps["pdff"].values).all()
    files.write_scan(scan.conj().assign_attrs(scan.attrs), "turned.nc")
    assert cli.run(["estimate", "dixon", "turned.nc", "--conjugate", "-o", "turned"]) == 0
    np.testing.assert_allclose(map_of("turned", "pdff").T, maps["pdff"].values, atol=1e-6)


def test_a_netcdf_from_outside_stays_outside(truth):
    """With a protocol too its water stands at 4.70 ppm; that of our own scans at body temperature."""
    scan = files.read(pair(truth)[0], encoding="echo", second="p.nii.gz")
    files.write_scan(scan, "outside.nc")
    assert cli.run(["estimate", "dixon", "outside.nc", "--protocol", "dixon_marrow", "-o", "outside"]) == 0
    check_maps("outside", truth)
    files.write_scan(simulator.scan(simulator_bone(), protocols.dixon_marrow), "own.nc")
    own = files.read("own.nc", encoding="echo", protocol=protocols.dixon_marrow)
    assert "protocol" in own.attrs


def test_a_magnet_of_nominal_3_tesla_is_fitted_at_its_own_field(truth):
    """Data of 123.25 MHz whose sidecar says 3 T: noise-free, they give the truth; with a protocol of 3 T too."""
    frequency = 123.25
    data = echoes(truth, field=frequency / 42.577478518)
    save("c.nii.gz", data, {**SIDECAR, "ImagingFrequency": frequency})
    assert cli.run(["estimate", "dixon", "c.nii.gz"]) == 0
    check_maps("dixon", truth)
    said = json.loads(Path("dixon/estimate.json").read_text())
    assert "field strength of 2.895 T from ImagingFrequency" in said["reading"]
    save("c.nii.gz", data, {"MagneticFieldStrength": 3, "ImagingFrequency": frequency})
    assert cli.run(["estimate", "dixon", "c.nii.gz", "--protocol", "dixon_marrow", "-o", "with"]) == 0
    check_maps("with", truth)


OTHERS = {
    "field": ({"MagneticFieldStrength": 1.5}, "MagneticFieldStrength is 1.5 T, and 3 T in protocol dixon_marrow; "),
    "frequency": ({"ImagingFrequency": 63.68, "MagneticFieldStrength": 1.5}, "MagneticFieldStrength with "
                  "ImagingFrequency is 1.496 T, and 3 T in protocol dixon_marrow; "),
    "TR": ({"RepetitionTime": 0.02}, "RepetitionTime is 0.02 s, and "),
    "angle": ({"FlipAngle": 9}, "FlipAngle is 9 degrees, and 3 degrees in protocol dixon_marrow; "),
    "echoes": ({"EchoTime": list(UNEVEN)}, "EchoTime is 0.0011, 0.0019, 0.0032, 0.0043, 0.0059, 0.0064 s, and 0.00121"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_protocol_that_contradicts_the_sidecar_is_told(truth, capsys, case):
    """Both values and what to do; a value that one of them has alone is taken, and equal ones are no contradiction."""
    changes, expected = OTHERS[case]
    own = protocols.dixon_marrow
    agreeing = {"EchoTime": list(ECHOES), "MagneticFieldStrength": 2.895, "RepetitionTime": own["TR"],
                "FlipAngle": math.degrees(own["flip_angle"])}  # fmt: skip
    save("c.nii.gz", echoes(truth), {**agreeing, **changes})
    line = told(capsys, "estimate", "dixon", "c.nii.gz", "--protocol", "dixon_marrow")
    assert f"c.json: {expected}" in line
    assert f"correct {expected.partition(' is ')[0]} in the sidecar or leave it out there, or give a proto" in line
    rest = {key: value for key, value in agreeing.items() if key not in changes}
    nifti.beside("c.nii.gz", ".json").write_text(json.dumps(rest))
    scan = files.read("c.nii.gz", encoding="echo", protocol=own)
    assert float(scan["field_strength"]) == (3.0 if case in ("field", "frequency") else 2.895)
    np.testing.assert_allclose(scan["echo"], ECHOES, rtol=1e-12)
    assert float(scan["TR"]) == own["TR"] and float(scan["flip_angle"]) == pytest.approx(own["flip_angle"], rel=1e-12)


SHIFTS = {
    "from 0": (0.0, 1.171e-3, 2.342e-3),
    "about the echo": (-1.171e-3, 0.0, 1.171e-3),
}


@pytest.mark.parametrize("shifts", SHIFTS)
def test_times_after_a_spin_echo(truth, capsys, shifts):
    """Three echoes know no R2*: it is 0. For dixon, six of them, and the R2' that acts along them."""
    times = SHIFTS[shifts]
    content = {"MagneticFieldStrength": 3, "RepetitionTime": 0.6, "FlipAngle": 90}
    few = {**truth, "r2star": np.zeros((5, 4, 3)), "fieldmap": truth["fieldmap"] / 10}
    save("three.nii.gz", echoes(few, times), {**content, "EchoTime": list(times)})
    assert cli.run(["estimate", "dixon-3pt", "three.nii.gz"]) == 0
    capsys.readouterr()
    np.testing.assert_allclose(map_of("dixon-3pt", "pdff"), few["pdff"], atol=1e-6)
    np.testing.assert_allclose(map_of("dixon-3pt", "fieldmap"), few["fieldmap"], atol=1e-4)
    said = json.loads(Path("dixon-3pt/estimate.json").read_text())
    assert "times after a spin echo" in said["reading"]
    save("m.nii.gz", np.abs(echoes(few, times)), {**content, "EchoTime": list(times)})
    save("p.nii.gz", np.angle(echoes(few, times)), {"EchoTime": list(times[::-1])})
    assert "both must have the same echoes, in the same order" in told(capsys, "estimate", "dixon-3pt", "m.nii.gz",
                                                                       "p.nii.gz")  # fmt: skip
    many = tuple(times[0] + 0.9e-3 * n for n in range(6))
    save("six.nii.gz", echoes(truth, many), {**content, "EchoTime": list(many)})
    assert cli.run(["estimate", "dixon", "six.nii.gz"]) == 0
    check_maps("dixon", truth)


def test_the_times_after_a_spin_echo_of_a_protocol(truth):
    """Where the sidecar has none, and where it counts from the pulse: 14 ms more."""
    times = protocols.dixon_spin_echo.table["time"]
    few = {**truth, "r2star": np.zeros((5, 4, 3)), "fieldmap": truth["fieldmap"] / 10}
    save("three.nii.gz", echoes(few, times))
    for n, sidecar in enumerate((None, {"EchoTime": [0.014 + time for time in times], "FlipAngle": 90})):
        save("three.nii.gz", echoes(few, times), sidecar)
        call = ["estimate", "dixon-3pt", "three.nii.gz", "--protocol", "dixon_spin_echo", "-o", f"maps{n}"]
        assert cli.run(call) == 0
        np.testing.assert_allclose(map_of(f"maps{n}", "pdff"), few["pdff"], atol=1e-6)
        reading = json.loads(Path(f"maps{n}/estimate.json").read_text())["reading"]
        assert ("counted from the spin echo at 0.014 s" in reading) == (n == 1)
        assert "spin echo" in reading


def test_signed_data_are_no_magnitudes(truth, capsys):
    """Half of a real part is below 0; a few voxels that interpolation left below 0 are the voxels' own matter."""
    real = echoes(truth).real
    share = np.mean(real < 0)
    save("r.nii.gz", real, SIDECAR)
    assert f"r.nii.gz: magnitudes are not negative; {share:.0%} of the voxels are" in told(
        capsys, "estimate", "dixon-magnitude", "r.nii.gz"
    )
    scan = files.read(save("m.nii.gz", np.abs(real), SIDECAR), encoding="echo")
    files.write_scan(scan.copy(data=real.transpose(2, 1, 0, 3)), "r.nc")
    assert "r.nc: magnitudes are not negative" in told(capsys, "estimate", "dixon-magnitude", "r.nc")


def test_voxels_that_mean_nothing_get_a_status(truth):
    data = echoes(truth)
    magnitude, phase = np.abs(data), np.angle(data)
    magnitude[0, 0, 0] = 0
    magnitude[1, 0, 0, 2] = np.nan
    magnitude[2, 0, 0, 1] = -5.0
    phase[3, 0, 0, 4] = np.inf
    save("m.nii.gz", magnitude, SIDECAR)
    save("p.nii.gz", phase)
    assert cli.run(["estimate", "dixon", "m.nii.gz", "p.nii.gz"]) == 0
    status, pdff = map_of("dixon", "status"), map_of("dixon", "pdff")
    assert (status[:4, 0, 0] & 1).all() and np.isnan(pdff[:4, 0, 0]).all()
    good = np.ones((5, 4, 3), bool)
    good[:4, 0, 0] = False
    np.testing.assert_allclose(pdff[good], truth["pdff"][good], atol=1e-6)


# ------------------------------------------------------------------------------------------------- units of the phase

TURNS = {
    # how scanners write a phase (rad, -pi to pi), what it is called, and what brings it back
    "degrees": (np.degrees, "degrees", "pi/180", "deg"),
    "degrees from 0": (lambda p: np.degrees(p) % 360, "degrees", "pi/180", "deg"),
    "GE": (lambda p: np.round(p * 1000), "thousandths of a rad", "0.001", "arbitrary"),
    "Philips": (lambda p: -3142 + 6284 / 4095 * np.round((p / np.pi + 1) * 2047.5), "thousandths of a rad", "0.001",
                "arbitrary"),
    "Siemens": (lambda p: np.round(p / np.pi * 4096).clip(-4096, 4094), "-4096 to 4094", "pi/4096", "arbitrary"),
    "Siemens, unscaled": (lambda p: np.round((p / np.pi + 1) * 2048).clip(0, 4095), "0 to 4095", "pi/2048",
                          "arbitrary"),
    "8 bits": (lambda p: np.round((p / np.pi + 1) * 128).clip(0, 255), "0 to 255", "pi/128", "arbitrary"),
    "12 bits": (lambda p: np.round(p / np.pi * 2048).clip(-2048, 2047), "-2048 to 2047", "pi/2048", "arbitrary"),
    "16 bits": (lambda p: np.round(p / np.pi * 32768).clip(-32768, 32767), "16-bit", "pi/32768", "arbitrary"),
}  # fmt: skip


@pytest.mark.parametrize("way", TURNS)
def test_a_phase_of_another_unit_is_refused_or_stated(truth, capsys, way):
    of, name, factor, unit = TURNS[way]
    m, p = pair(truth, phase=of)
    line = told(capsys, "estimate", "dixon", m, p)
    assert name in line and factor in line and "must be in rad" in line and f'"Units": "{unit}" in p.json' in line
    Path("p.json").write_text(json.dumps({"Units": unit}))
    assert cli.run(["estimate", "dixon", m, p]) == 0
    # a step of 12 bits is pi/2048, 8e-4 rad rms/sqrt(12): of two echoes it is some 1e-3; of 8 bits 16 times
    assert np.abs(map_of("dixon", "pdff") - truth["pdff"]).max() < 5e-3 * (16 if way == "8 bits" else 1)
    assert json.loads(Path("dixon/estimate.json").read_text())["reading"].startswith("phase from ")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(TURNS)))
def test_a_full_phase_is_known_by_its_range(seed, way):
    """Over 500 voxels a phase comes within a twentieth of both ends but for a chance of 2 * .95^500."""
    phase = np.random.default_rng(seed).uniform(-np.pi, np.pi, 500)
    of, name, *_ = TURNS[way]
    written = of(phase)
    fitting = [scale for scale in phase_units.SCALES if scale.fits(written)]
    assert name in fitting[0].name
    back = written * 2 * np.pi / fitting[0].turn
    apart = np.angle(np.exp(1j * (back - phase)))
    # up to a phase for all, no further than a step (clipped at the end of the range: one more)
    spread = np.angle(np.exp(1j * apart) / np.exp(1j * apart).mean())
    assert np.abs(spread).max() < 2.1 * np.pi / min(2048, fitting[0].turn / 2) + 1e-3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-np.pi, np.pi), min_size=1, max_size=20))
def test_rad_stay_as_they_are(values):
    """With a word where the range is so narrow that it could as well be turns, or multiples of pi."""
    for phase in (np.array(values), np.array(values) % (2 * np.pi), np.full(3, np.nan), np.float32(values)):
        found, how = phase_units.in_radians(phase, "p.nii.gz")
        assert found is phase
        narrow = np.abs(phase).max() <= 1 or (phase.min() >= 0 and phase.max() <= 2)
        assert (how is not None) == (narrow and np.ptp(phase) > 0)
        assert how is None or "taken as rad" in how


NARROW = {
    # a phase (rad, -pi to pi) in another unit, what it is called, what brings it back, what a sidecar states
    "turns": (lambda p: p / (2 * np.pi), "turns", "2 pi", "turns"),
    "turns from 0": (lambda p: p / (2 * np.pi) % 1, "turns", "2 pi", "turns"),
    "multiples of pi": (lambda p: p / np.pi, "multiples of pi", "pi", "pi"),
    "multiples of pi from 0": (lambda p: p / np.pi % 2, "multiples of pi", "pi", "pi"),
}


@pytest.mark.parametrize("way", NARROW)
def test_turns_and_multiples_of_pi_are_refused_or_stated(truth, capsys, way):
    of, name, factor, unit = NARROW[way]
    m, p = pair(truth, phase=of)
    line = told(capsys, "estimate", "dixon", m, p)
    assert f"wraps there: it looks like {name}; the phase must be in rad: multiply it by {factor}, or" in line
    assert f'"Units": "{unit}" in p.json' in line
    Path("p.json").write_text(json.dumps({"Units": unit}))
    assert cli.run(["estimate", "dixon", m, p]) == 0
    check_maps("dixon", truth)
    assert json.loads(Path("dixon/estimate.json").read_text())["reading"] == f"phase from {name}"
    Path("p.json").write_text(json.dumps({"Units": "rad"}))  # what is stated is believed, and the doubt is noted
    assert phase_units.in_radians(nib.load(p).get_fdata(), p, Path("p.json"))[1] == (
        f"phase in rad as stated, though it looks like {name}"
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), way=st.sampled_from(sorted(NARROW)), masked=st.booleans())
def test_air_tells_turns_from_rad(seed, way, masked):
    """Noise has any phase: of 1000 voxels the outermost come within 6 in 1000 of both ends but for a chance of exp(-6).

    They leap across the wrap in one pair of sixteen: of thousands of pairs there are hundreds. Zeros of a mask change
    nothing.
    """
    phase = np.random.default_rng(seed).uniform(-np.pi, np.pi, (10, 10, 10, 3))
    written = NARROW[way][0](phase)
    if masked:
        written[:5] = 0
    with pytest.raises(InputError, match=f"looks like {NARROW[way][1]}"):
        phase_units.in_radians(written, "p.nii.gz")


@settings(max_examples=40, deadline=None)
@given(
    low=st.floats(-1, 0.9), width=st.floats(0.01, 2), steps=st.tuples(*[st.floats(-0.05, 0.05)] * 2),
    shape=st.sampled_from([(1, 1, 1, 6), (6, 5, 1, 6), (12, 12, 2, 6)]),
)  # fmt: skip
def test_a_narrow_phase_in_rad_is_no_turn(low, width, steps, shape):
    """Neither a small image, nor a masked one of a smooth field, even where it runs from -.5 to .5 or from -1 to 1."""
    ramp = np.linspace(low, min(low + width, 1), shape[0])[:, None, None, None]
    ramp = ramp + steps[0] * np.arange(shape[1])[:, None, None] / shape[1] + steps[1] * np.arange(shape[3]) / shape[3]
    holes = np.where(np.arange(shape[0])[:, None, None, None] % 3, np.broadcast_to(ramp, shape), 0.0)
    for phase in (np.broadcast_to(ramp, shape), holes):
        found, _ = phase_units.in_radians(phase, "p.nii.gz")
        assert found is phase


@pytest.mark.parametrize("phase", [
    np.linspace(-0.5, 0.5, 600), np.linspace(-1, 1, 600), np.linspace(0, 1, 600), np.linspace(0, 2, 600),
    np.where(np.arange(600) % 5, np.linspace(1e-3, 1, 600), 0.0),  # masked here and there: 0 is no end of the range
    np.tile([0.15, 0.99, 0.15, 0.99, 0.0], 120),  # two tissues in a mask: they do not come near 0
    np.tile([-0.48, -0.2, 0.2, 0.49], 150)[:28],  # too few to tell
])  # fmt: skip
def test_a_range_that_is_filled_without_a_wrap_is_rad(phase):
    for values in (phase, phase.reshape(-1, 4)):
        assert phase_units.in_radians(values, "p.nii.gz")[0] is values


def test_what_is_stated_must_be_so(truth, capsys):
    """Integers that a sidecar calls rad; a unit that is none; rad that it calls arbitrary, which they may be."""
    m, p = pair(truth, phase=TURNS["Siemens"][0])
    Path("p.json").write_text('{"Units": "rad"}')
    assert "in rad by p.json: it looks like 12-bit integers -4096 to 4094" in told(capsys, "estimate", "dixon", m, p)
    Path("p.json").write_text('{"Units": "Hz"}')
    assert "p.json: Units is 'hz'; the phase must be in rad" in told(capsys, "estimate", "dixon", m, p)
    Path("p.json").write_text('{"Units": "arbitrary"}')
    m, p = pair(truth, phase=lambda phase: np.clip(phase, -1, 5) * 100)
    assert "in arbitrary units by p.json; give the phase in rad" in told(capsys, "estimate", "dixon", m, p)
    m, p = pair(truth)
    assert cli.run(["estimate", "dixon", m, p]) == 0
    check_maps("dixon", truth)


def test_a_phase_that_is_not_wrapped(truth, capsys):
    m, p = pair(truth, phase=lambda q: np.unwrap(q, axis=-1) + 6 * np.pi)
    assert '(a phase that is not wrapped: "Units": "rad" in p.json)' in told(capsys, "estimate", "dixon", m, p)
    Path("p.json").write_text('{"Units": "rad"}')
    assert cli.run(["estimate", "dixon", m, p]) == 0
    check_maps("dixon", truth)


# -------------------------------------------------------------------------------------------------------- bad sidecars

BAD_SIDECARS = {
    "in ms": ({"EchoTime": [1.21, 2.31, 3.41, 4.51, 5.61, 6.71]}, "given in ms? They must be in s, such as 0.00121"),
    "some in ms": ({"EchoTime": [1.21e-3, 2.31e-3, 3.41e-3, 4.51e-3, 5.61e-3, 6.71]}, "given in ms?"),
    "all equal": ({"EchoTime": [2e-3] * 6}, "two of them are equal"),
    "two equal": ({"EchoTime": [1e-3, 2e-3, 2e-3, 3e-3, 4e-3, 5e-3]}, "two of them are equal"),
    "five": ({"EchoTime": list(ECHOES[:5])}, "m.json: EchoTime has 5 values and the image 6 echoes along its"),
    "one": ({"EchoTime": 1.21e-3}, "m.json: EchoTime is 0.00121, one echo; a multi-echo scan has a list of times"),
    "text": ({"EchoTime": "1.21 ms"}, "m.json: EchoTime is '1.21 ms'; it must be a list of numbers (s)"),
    "in us": ({"EchoTime": [1210, 2310, 3410, 4510, 5610, 6710]}, "given in us? They must be in s, such as 0.00121"),
    "before the pulse": ({"EchoTime": [-1e-3, *ECHOES[1:]], "FlipAngle": 90, "ScanningSequence": "GR"},
                         "m.json: EchoTime has -0.001, and ScanningSequence is 'GR'"),
    "after a spin echo, in ms": ({"EchoTime": [-2.3, -1.2, 0, 1.2, 2.3, 3.4], "FlipAngle": 90}, "given in ms?"),
    "zero": ({"EchoTime": [0, *ECHOES[1:]]}, "m.json: EchoTime has 0, and FlipAngle is 3 degrees: times of a "
             "gradient echo must be positive (s); 0 and less are times after a spin echo"),
    "not a number": ({"EchoTime": [float("nan"), *ECHOES[1:]]}, "it must be a list of numbers (s)"),
    "empty": ({"EchoTime": []}, "it must be a list of numbers (s)"),
    "none": ({"EchoTime": None}, "m.json: EchoTime is None; it must be a list of numbers (s)"),
    "no echo times": ({"EchoTime": ...}, "m.nii.gz does not say its echo times: m.json has no EchoTime; it must hold"),
    "no field": ({"MagneticFieldStrength": ...}, "m.nii.gz does not say field_strength; state it as "
                 "MagneticFieldStrength in a JSON sidecar beside INPUT or with --protocol"),
    "MHz": ({"MagneticFieldStrength": 123.25}, "MagneticFieldStrength is 123.25; it must be in T, as 3.0"),
    "field of text": ({"MagneticFieldStrength": "3T"}, "MagneticFieldStrength is '3T'; it must be one positive"),
    "TR in ms": ({"RepetitionTime": 7.2}, "RepetitionTime is 7.2 at a flip angle of 3 degrees; given in ms? It must "
                 "be in s, as 0.0072"),
    "TR in ms, no angle": ({"RepetitionTime": 72.0, "FlipAngle": ...}, "RepetitionTime is 72; given in ms?"),
    "20 degrees in rad": ({"FlipAngle": 0.349}, "FlipAngle is 0.349; given in rad? It must be in degrees"),
    "rad": ({"FlipAngle": 0.0524}, "FlipAngle is 0.0524; given in rad? It must be in degrees"),
    "turns": ({"FlipAngle": 4000}, "FlipAngle is 4000; it must be in degrees, up to 360"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SIDECARS)
def test_a_sidecar_that_cannot_be_meant(truth, capsys, case):
    changes, expected = BAD_SIDECARS[case]
    m, p = pair(truth)
    Path("m.json").write_text(json.dumps({k: v for k, v in {**SIDECAR, **changes}.items() if v is not ...}))
    assert expected in told(capsys, "estimate", "dixon", m, p)


ANY = st.recursive(
    st.none() | st.booleans() | st.text(max_size=4) | st.floats() | st.integers() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip
SENSIBLE = {"EchoTime": st.lists(st.floats(1e-4, 0.2), min_size=6, max_size=6), "RepetitionTime": st.floats(1e-3, 4),
            "MagneticFieldStrength": st.floats(0.1, 14), "FlipAngle": st.floats(0.8, 180),
            "ImagingFrequency": st.floats(4, 600)}  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.fixed_dictionaries({}, optional={name: ANY | good for name, good in SENSIBLE.items()}))
def test_any_sidecar_is_read_or_told(content):
    """Whatever JSON holds: a scan with sensible settings, or one line."""
    if not Path("any.nii.gz").exists():
        save("any.nii.gz", np.ones((2, 2, 1, 6)))
    Path("any.json").write_text(json.dumps(content))
    try:
        scan = files.read("any.nii.gz", encoding="echo")
    except InputError as error:
        assert "\n" not in str(error)
        assert "any.json" in str(error) or "any.nii.gz" in str(error)
        return
    assert (np.diff(scan["echo"]) > 0).all() and np.abs(scan["echo"]).max() <= 0.25
    assert (scan["echo"] > 0).all() or "times after a spin echo" in scan.attrs["reading"]
    for name, top in (("TR", 20), ("field_strength", 25), ("flip_angle", 2 * np.pi)):
        assert name not in scan.coords or 0 < float(scan[name]) <= top * (1 + 1e-12)


def test_settings_at_the_edge_of_sense_are_taken(truth):
    """A spin echo of 3 s at 90 degrees; echo times of fieldmaps' sidecars; constants in lists."""
    m, _ = pair(truth)
    times = {f"EchoTime{n + 1}": time for n, time in enumerate(ECHOES)}
    content = {**times, "MagneticFieldStrength": [1.5], "RepetitionTime": [3.0] * 6, "FlipAngle": 90}
    Path("m.json").write_text(json.dumps(content))
    scan = files.read(m, encoding="echo")
    np.testing.assert_array_equal(scan["echo"], ECHOES)
    assert float(scan["TR"]) == 3.0 and float(scan["field_strength"]) == 1.5


# ------------------------------------------------------------------------------------------------------ bad images

BAD_IMAGES = {
    "dixon m.nii.gz": "m.nii.gz has no phase: give the phase (rad) as INPUT2 (estimate dixon-magnitude does without)",
    "dixon m.nii.gz none.nii.gz": "none.nii.gz: no such file",
    "dixon none.nii.gz": "none.nii.gz: no such file",
    "dixon m.nii.gz m.nii.gz": "m.nii.gz runs from",
    "dixon m.nii.gz c.nii.gz": "c.nii.gz is complex; the second input is the phase (rad) of m.nii.gz",
    "dixon c.nii.gz p.nii.gz": "c.nii.gz is complex; it needs no second input (p.nii.gz)",
    "dixon m.nii.gz few.nii.gz": "few.nii.gz has the shape (5, 4, 3, 5); m.nii.gz has (5, 4, 3, 6) (x, y, z, echo)",
    "dixon m.nii.gz moved.nii.gz": "moved.nii.gz lies 4 mm away from the scan",
    "dixon two.nii.gz": "echo has 2 different times",
    "dixon single.nii.gz": "single.json: EchoTime is 0.00121, one echo; a multi-echo scan has a list of times (s)",
    "dixon series.nii.gz": "series.nii.gz has the shape (5, 4, 3, 6, 2); a multi-echo scan has 4 dimensions",
    "dixon plane.nii.gz": "plane.nii.gz has the shape (5, 4); a multi-echo scan has 4 dimensions",
    "dixon lonely.nii.gz": "lonely.nii.gz does not say its echo times: lonely.json is missing; it must hold EchoTime",
    "dixon lonely.nii.gz --protocol dixon_marrow_bipolar": "has 12 echoes and lonely.nii.gz has 6 images",
    "dixon text.nii.gz": "text.nii.gz is not a readable NIfTI image",
    "dixon c.nii.gz --bval text.nii.gz": "--bval text.nii.gz goes with a diffusion series",
    "dixon c.nii.gz --mask plane.nii.gz": "mask plane.nii.gz has the shape (5, 4); the scan has (5, 4, 3) (x, y, z)",
    "dixon scan.nc p.nii.gz": "p.nii.gz is a second input; scan.nc carries its phase itself",
    "dixon set_echo-1.nii.gz": "set_echo-2.nii.gz: no such file; the set of set_echo-1.nii.gz holds the echoes 1, 3, 4",
    "dixon loose_echo-1.nii.gz": "loose_echo-2.json: EchoTime (s) is missing; each echo of the set needs its own",
    "dixon c.nii.gz --set spectrum=3": "--set spectrum=3: spectrum must be a name, [shifts, areas] or",
    "dixon c.nii.gz --set rates=3": "option rates is 3; expected one or two",
    "dixon c.nii.gz --set temperature=warm": "--set temperature=warm: temperature must be a number",
    "dixon c.nii.gz --set spectrum=fat_of_whales": "'fat_of_whales'",
    "dixon c.nii.gz --set spectrum=[2.86,0.74]": "spectrum",
    "ivim c.nii.gz --conjugate": "--conjugate turns the phase of complex data; estimate ivim takes magnitudes",
    "dixon": "estimate dixon needs INPUT: a scan (.nc), or a 4-D NIfTI with a JSON sidecar beside it",
}  # fmt: skip


@pytest.fixture
def bad_images(truth) -> None:
    """The files that the table names."""
    data = echoes(truth)
    pair(truth)
    save("c.nii.gz", data, SIDECAR)
    save("few.nii.gz", np.angle(data)[..., :5])
    save("moved.nii.gz", np.angle(data), affine=AFFINE + np.outer([0, 0, 4, 0], [0, 0, 0, 1]))
    save("two.nii.gz", data[..., :2], {**SIDECAR, "EchoTime": list(ECHOES[:2])})
    save("single.nii.gz", data[..., :1], {**SIDECAR, "EchoTime": ECHOES[0]})
    save("series.nii.gz", np.stack([data, data], axis=4), SIDECAR)
    save("plane.nii.gz", np.ones((5, 4)), SIDECAR)
    save("lonely.nii.gz", data)
    Path("text.nii.gz").write_text("this is no image\n")
    for name, numbers in (("set", (1, 3, 4)), ("loose", (1, 2, 3))):
        for n in numbers:
            sidecar = {**SIDECAR, "EchoTime": ECHOES[n]}
            if (name, n) == ("loose", 2):
                del sidecar["EchoTime"]
            save(f"{name}_echo-{n}.nii.gz", data[..., n], sidecar)
    files.write_scan(simulator.scan(simulator_bone(), protocols.dixon_marrow), "scan.nc")


def simulator_bone():
    from bonemri import phantoms

    return phantoms.marrow_block()


def test_every_bad_image_is_told_in_one_line(bad_images, capsys):
    wrong = []
    for call, expected in BAD_IMAGES.items():
        line = told(capsys, "estimate", *call.split())
        if expected not in line:
            wrong.append(f"{call}\n    said {line.strip()}\n    expected {expected}")
    assert not wrong, "\n".join(wrong)


def test_netcdf_with_echoes_in_ms(truth):
    scan = simulator.scan(simulator_bone(), protocols.dixon_marrow)
    files.write_scan(scan.assign_coords(echo=("echo", scan["echo"].values * 1000)), "ms.nc")
    with pytest.raises(InputError, match=re.escape("ms.nc: the echo times are 1.21, 2.31")):
        files.read("ms.nc", encoding="echo")


def test_inputs_are_those_that_are_read(truth):
    magnitude, phase = bids(truth)
    found = multi_echo.inputs(magnitude, phase)
    assert len(set(found.values())) == 24
    assert multi_echo.inputs(magnitude)["sidecar 2"].name == "sub-01_echo-2_part-mag_MEGRE.json"


def test_a_spin_echo_scan_goes_through_the_command_line(tmp_path, capsys):
    """Its echoes lie along `time`, which the estimators take as well as `echo`."""
    scan, out = tmp_path / "shifted.nc", tmp_path / "maps.nc"
    assert cli.run(["simulate", "dixon_spin_echo", "--phantom", "marrow_block", "-o", str(scan)]) == 0
    assert cli.run(["estimate", "dixon-3pt", str(scan), "-o", str(out)]) == 0, capsys.readouterr().err


def test_a_phase_that_is_the_same_everywhere_is_none():
    with pytest.raises(InputError, match=r"phase\.nii is 0 everywhere: it holds no phase"):
        phase_units.in_radians(np.zeros((4, 4, 1, 6)), "phase.nii")
    kept, words = phase_units.in_radians(np.zeros((1, 1, 1, 6)), "phase.nii")  # a voxel may well have none
    assert words is None and not kept.any()
