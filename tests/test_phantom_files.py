"""Phantoms as NIfTI with JSON: what is written is what the layout says, and comes back as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.phantoms import nifti
from bonemri.phantoms.pools import Pool
from bonemri.simulator import tissues

FLOAT32 = 2.0**-23  # the volumes of a file are float32
PHOSPHORUS = ("phosphorus", "mineral")
# What the specification allows in a tissue.
PROPERTIES = {"density", "T1", "T2", "T2'", "ADC", "dB0", "B1+", "B1-"}


@pytest.fixture
def block(tmp_path) -> Path:
    """The JSON of a small phantom on disk."""
    nifti.write(phantoms.marrow_block(), tmp_path)
    return tmp_path / "marrow_block.json"


def test_every_phantom_goes_out_and_comes_back(any_bone, tmp_path):
    nifti.write(any_bone, tmp_path / "out")
    known = json.loads((tmp_path / "out" / "truth.json").read_text())
    one = known["density_of_one"]["value"]
    for nucleus, stem in (("1H", any_bone.name), ("31P", f"{any_bone.name}-31P")):
        rows = [i for i, kind in enumerate(any_bone.pools["kind"].values) if (kind in PHOSPHORUS) == (nucleus == "31P")]
        path = tmp_path / "out" / f"{stem}.json"
        assert path.exists() == bool(rows)
        if not rows:
            continue
        found = nifti.read(path)
        assert found.attrs["field_strength"] == any_bone.field_strength
        np.testing.assert_allclose(found.attrs["affine"], any_bone.pools.attrs["affine"], rtol=FLOAT32, atol=1e-4)
        pool_of = np.array([known["tissues"][str(name)]["pool"] for name in found["tissue"].values])
        for row in rows:
            pool = any_bone.pools.isel(pool=row)
            members = pool_of == str(pool["pool"].values)
            assert members.sum() == (pool["peak_area"].values > 0).sum()
            density = found["density"].values[members].sum(axis=0) * one
            # a sum of at most twenty rounded volumes
            np.testing.assert_allclose(density, pool["density"].values, rtol=20 * FLOAT32, atol=1e-12)
            motion = "D_star" if pool["kind"].item() == "blood" else "D"
            for name, expected in (("T1", pool["T1_observed"]), ("T2", pool["T2"]), ("D", pool[motion])):
                values = np.broadcast_to(expected.values, pool["density"].shape)
                for got in found[name].values[members]:
                    seen = pool["density"].values > 0
                    np.testing.assert_allclose(np.broadcast_to(got, seen.shape)[seen], np.nan_to_num(values[seen]),
                                               rtol=2 * FLOAT32, atol=1e-12)


def test_the_json_is_as_the_layout_has_it(any_bone, tmp_path):
    """To the letter of the specification: a reader that knows nothing else must be able to go by it."""
    nifti.write(any_bone, tmp_path)
    for path in tmp_path.glob(f"{any_bone.name}*.json"):
        content = json.loads(path.read_text())
        assert content["file_type"] == "nifti_phantom_v1"
        assert content["$schema"].endswith("bifti-phantom-v1.schema.json")
        assert content["units"] == {"gyro": "MHz/T", "B0": "T", "T1": "s", "T2": "s", "T2'": "s",
                                    "ADC": "10^-3 mm^2/s", "dB0": "Hz", "B1+": "rel", "B1-": "rel"}
        assert content["system"]["B0"] == any_bone.field_strength
        shapes = set()
        for entry in content["tissues"].values():
            assert set(entry) <= PROPERTIES
            assert re.fullmatch(r"[^/]+\.nii\.gz\[\d+\]", entry["density"])
            file, index = entry["density"].rstrip("]").split("[")
            image = nib.load(tmp_path / file)
            assert len(image.shape) == 4
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            density = np.asanyarray(image.dataobj)[..., int(index)]
            # to the densest water there is (4 C), where one is that at body temperature
            assert 0 <= density.min()
            assert density.max() <= tissues.entry("water.density").high / tissues.value("water.density") + FLOAT32
            shapes.add(image.shape[:3])
        assert len(shapes) == 1


def test_truth_maps_are_the_truth(any_bone, tmp_path):
    nifti.write(any_bone, tmp_path)
    known = json.loads((tmp_path / "truth.json").read_text())
    meaningful = {name for name, values in any_bone.truth.data_vars.items() if np.isfinite(values.values).any()}
    assert set(known["truth"]) == meaningful
    for name, row in known["truth"].items():
        image = nib.load(tmp_path / row["file"])
        np.testing.assert_allclose(np.asanyarray(image.dataobj).T, any_bone.truth[name].values, rtol=2 * FLOAT32)
        assert row["unit"] == any_bone.truth[name].attrs["units"]
    assert known["seed"] == any_bone.pools.attrs["seed"]
    assert known["condition"] == any_bone.pools.attrs["condition"]
    assert known["tissue_numbers"] == json.loads(any_bone.pools.attrs.get("tissue_numbers", "[]"))


def test_fat_stands_at_its_shifts(block):
    """Fat at 1.30 ppm turns slower than water by their distance in ppm times the frequency of the field."""
    found = nifti.read(block)
    fat = [str(name) for name in found["tissue"].values if str(name).startswith("fat_peak")]
    pool = phantoms.marrow_block().pools.sel(pool="fat")
    areas = pool["peak_area"].values
    assert len(fat) == (areas > 0).sum()
    main = found.sel(tissue=fat[int(areas[areas > 0].argmax())])
    assert main["offset"].item() == pytest.approx((1.30 - tissues.water_shift()) * 42.5764 * 3.0, rel=1e-12)
    assert found["offset"].sel(tissue="marrow_water").item() == 0
    share = found["density"].sel(tissue=fat).values.ravel()
    np.testing.assert_allclose(share / share.sum(), areas[areas > 0], rtol=10 * FLOAT32)


def test_what_varies_in_space_is_a_map_and_what_is_infinite_is_left_out(tmp_path):
    shape = (2, 3, 4)
    T2 = np.linspace(0.02, 0.2, 24).reshape(shape)
    R2_prime = np.where(np.arange(4) < 2, 0.0, 25.0) * np.ones(shape)
    full, half = np.full(shape, 40.0), np.full(shape, 0.5)
    pools = [Pool("water", "solution", full, half, 1.5, T2, -9.05, R2_prime=R2_prime, D=2e-3),
             Pool("still", "solution", full, half, 1.5, 0.1, -9.05, D=0.0)]
    bone = phantoms.Phantom.build(pools, name="two", resolution=1e-3, field=1.5)
    offset = np.arange(24.0).reshape(shape)
    nifti.write(bone, tmp_path, field_map=offset)
    found = nifti.read(tmp_path / "two.json")
    np.testing.assert_allclose(found["T2"].values[0], T2, rtol=FLOAT32)
    np.testing.assert_allclose(found["T2_prime"].values[0], np.where(R2_prime > 0, 0.04, np.inf), rtol=FLOAT32)
    assert np.isinf(found["T2_prime"].values[1]).all()
    np.testing.assert_array_equal(found["offset"].values[0], offset)
    still = json.loads((tmp_path / "two.json").read_text())["tissues"]["still"]
    assert set(still) == {"density", "T1", "T2", "dB0"}  # neither diffusion nor dephasing: the defaults hold
    with pytest.raises(InputError, match=r"field_map has the shape \(4, 3, 2\), should be \(2, 3, 4\)"):
        nifti.write(bone, tmp_path, field_map=offset.T)


def test_a_field_map_adds_to_the_shift(tmp_path):
    bone = phantoms.marrow_block()
    shape = bone.pools["density"].shape[1:]
    nifti.write(bone, tmp_path / "on")
    nifti.write(bone, tmp_path / "off", field_map=np.full(shape, 30.0))
    on, off = (nifti.read(tmp_path / each / "marrow_block.json") for each in ("on", "off"))
    # the shift is written to a millionth of a hertz
    np.testing.assert_allclose(off["offset"].values[:, 0, 0, 0], on["offset"].values + 30.0, rtol=0, atol=1e-6)


def test_phantoms_of_others_are_read(tmp_path):
    """An index after a colon, files that are not compressed, defaults, and a chemical shift on a field map."""
    density = np.zeros((3, 2, 1, 2), np.float32)
    density[..., 0], density[..., 1] = 0.8, 0.2
    nib.save(nib.Nifti1Image(density, np.diag([2.0, 2, 2, 1])), tmp_path / "leg.nii")
    nib.save(nib.Nifti1Image(np.full((3, 2, 1, 1), 12.0, np.float32), np.eye(4)), tmp_path / "leg_dB0.nii.gz")
    tissues_of_leg = {
        "muscle": {"density": "leg.nii:0", "T1": 1.4, "T2": 0.03, "ADC": 1.5, "dB0": "leg_dB0.nii.gz:0"},
        "fat": {"density": "leg.nii[1]", "dB0": {"file": "leg_dB0.nii.gz[0]", "func": "x - 420"}, "B1+": [1.0]},
    }
    path = tmp_path / "leg.json"
    path.write_text(json.dumps({"file_type": "nifti_phantom_v1", "tissues": tissues_of_leg}))
    found = nifti.read(path)
    assert found["density"].dims == ("tissue", "z", "y", "x")
    assert found["density"].shape == (2, 1, 2, 3)
    np.testing.assert_allclose(found["density"].values[1], 0.2, rtol=FLOAT32)
    np.testing.assert_allclose(found["T1"].values, [1.4, np.inf])
    np.testing.assert_allclose(found["D"].values, [1.5e-3, 0])
    np.testing.assert_allclose(found["offset"].values[:, 0, 0, 0], [12, -408])
    assert found.attrs["field_strength"] == 3.0


SPOILT = {
    # how the JSON is spoilt: what the one line says
    "text": ("{", "is not readable JSON"),
    "list": ("[1]", "is not a NIfTI phantom: its file_type should be 'nifti_phantom_v1'"),
    "type": (lambda c: c | {"file_type": "scan", "$schema": ""}, "is not a NIfTI phantom"),
    "empty": (lambda c: c | {"tissues": {}}, "names no tissues"),
    "unit": (lambda c: c | {"units": {**c["units"], "T1": "ms"}}, "the unit of T1 is 'ms', should be 's'"),
    "system": (lambda c: c | {"system": {"B0": "3 T"}}, "system.B0 is '3 T'; it should be a positive number"),
    "density": (lambda c: c | {"tissues": {"a": {"T1": 1.0}}}, "tissue a has no density"),
    "index": (lambda c: c | {"tissues": {"a": {"density": "marrow_block.nii.gz[99]"}}}, "asks for volume 99"),
    "file": (lambda c: c | {"tissues": {"a": {"density": "none.nii.gz[0]"}}}, "none.nii.gz: no such file"),
    "away": (lambda c: c | {"tissues": {"a": {"density": "../b.nii.gz[0]"}}}, "it should be a number, or a volume"),
    "word": (lambda c: c | {"tissues": {"a": {"density": "marrow_block.nii.gz[0]", "T1": "long"}}},
             "T1 of a is 'long'; it should be a number, or a volume"),
    "function": (lambda c: c | {"tissues": {"a": {"density": "marrow_block.nii.gz[0]",
                 "dB0": {"file": "marrow_block.nii.gz[0]", "func": "x ** 2"}}}}, "only a sum such as 'x - 420'"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_gets_one_clear_line(block, name):
    spoil, says = SPOILT[name]
    content = json.loads(block.read_text())
    block.write_text(spoil if isinstance(spoil, str) else json.dumps(spoil(content)))
    with pytest.raises(InputError) as caught:
        nifti.read(block)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nifti, "_dump", full)
    with pytest.raises(OSError, match="No space left"):
        nifti.write(phantoms.marrow_block(), tmp_path / "deep" / "down")
    assert list(tmp_path.iterdir()) == []


def test_the_truth_of_a_file_keeps_its_geometry(tmp_path):
    bone = phantoms.vertebra(resolution=6e-3)
    nifti.write(bone, tmp_path)
    image = nib.load(tmp_path / "truth_pdff.nii.gz")
    size = tuple(bone.pools.sizes[dim] for dim in ("x", "y", "z"))
    assert image.shape == size
    np.testing.assert_allclose(image.header.get_zooms(), 6.0, rtol=1e-6)
    middle = image.affine @ [*(0.5 * (np.array(size) - 1)), 1]
    np.testing.assert_allclose(middle[:3], 0, atol=1e-4)  # float32 of a few centimetres in mm
