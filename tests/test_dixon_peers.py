"""Water and fat on data that we did not make: a hip of the ISMRM challenge of 2012, and scans of an outside simulator.

The data and the peers are GPL: they stay installed programs, run as such. `BONEMRI_FATWATER_PYTHON` names a Python that
has mri-fatwater (https://doi.org/10.1002/mrm.26479), whose package brings case 17 of the challenge
(https://doi.org/10.1002/mrm.24369): four slices of a femoral head, three echoes 3.2 ms apart at 1.494 T, a field of
some 770 Hz from end to end. `BONEMRI_QSM_FORWARD_PYTHON` names one that has qsm-forward, which computes fields by a
dipole kernel and signals of a spoiled gradient echo.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bonemri import cli, estimators
from bonemri.simulator import tissues
from bonemri.simulator.constants import PROTON

pytestmark = pytest.mark.peer

HIP_FIELD, HIP_TIMES = 1.494, np.array([2.87e-3, 6.07e-3, 9.27e-3])  # as the package states them
STEP = 4.0  # 1/s, between the peer's R2*
SEPARATE = """
import sys
from pathlib import Path
import numpy as np
import mri_fatwater
from mri_fatwater import fatwater
given = np.load(sys.argv[1])
data = np.load(Path(mri_fatwater.__file__).parent / "data" / "17.npy")
found = fatwater.separate(
    data=data,
    data_params={"B0": float(given["b0"]), "t": given["times"].tolist(), "voxelsize": [1.5, 1.5, 5.0],
                 "clockwise": True, "temperature": 37.0},
    algo_params={"algorithm": "QPBO", "nR2": 61, "R2max": 240.0, "output": ["ff", "B0map", "R2map"], "autocrop": False},
    model_params={"watCS": 4.7, "fatCS": given["shift"].tolist(), "relAmps": given["area"].tolist()})
np.savez(sys.argv[2], data=np.moveaxis(data, 0, -1), **{k: np.asarray(v) for k, v in found.items()})
"""
FORWARD = """
import sys
import numpy as np
import qsm_forward
given = np.load(sys.argv[1])
field = qsm_forward.generate_field(given["chi"], voxel_size=given["voxel"].tolist(), B0_dir=[0, 0, 1])
scan = {"B0": float(given["b0"]), "TR": float(given["TR"]), "flip_angle": float(given["flip"])}
echoes = []
for TE in given["times"]:
    signal = qsm_forward.generate_signal(field, TE=TE, M0=given["water"], R1=given["R1_water"],
                                         R2star=given["r2star"], **scan)
    for offset, area in zip(given["offset"], given["area"]):
        signal = signal + qsm_forward.generate_signal(field + offset, TE=TE, M0=given["fat"] * area,
                                                      R1=given["R1_fat"], R2star=given["r2star"], **scan)
    echoes.append(signal)
np.savez(sys.argv[2], data=np.stack(echoes, axis=-1), field=field)
"""

BIDS = """
import sys
import numpy as np
import qsm_forward
scanner = qsm_forward.ReconParams(subject="odd", TR=0.03, TEs=np.array([1.3, 2.7, 3.6, 6.1, 8.9]) * 1e-3, flip_angle=6,
                                  B0=3, peak_snr=60, random_seed=7, voxel_size=np.array([1.0, 1.0, 2.5]))
chi = qsm_forward.generate_susceptibility_phantom(resolution=[61, 77, 23], background=0, large_cylinder_val=0.05,
                                                  small_cylinder_radii=[3, 3, 4, 5],
                                                  small_cylinder_vals=[0.1, 0.2, -0.3, 0.3])
qsm_forward.generate_bids(qsm_forward.TissueParams(chi=chi), scanner, sys.argv[2], save_shimmed_field=True)
"""


def outside(variable: str, name: str, program: str, folder: Path, **given: object) -> Path:
    """What a program of another Python makes of the arrays given; the test is skipped where that is not named."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{name} is not there: {variable} names no Python that has it")
    there, back = folder / "given.npz", folder / "taken"
    np.savez(there, **given)  # type: ignore[arg-type]
    subprocess.run([python, "-c", program, there, back], check=True, capture_output=True)
    return back


def arrays(back: Path) -> dict[str, np.ndarray]:
    with np.load(back.with_suffix(".npz")) as taken:
        return dict(taken)


def image(data: np.ndarray, times: np.ndarray, field_strength: float, **attrs: float) -> xr.DataArray:
    return xr.DataArray(
        data, dims=("z", "y", "x", "echo"), coords={"echo": times}, attrs={"field_strength": field_strength, **attrs}
    )


@pytest.fixture(scope="module")
def hip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The data (z, y, x, echo), where there is tissue, and the peer's fat fraction, field (Hz) and R2* (1/s)."""
    peaks = tissues.spectrum("fat_marrow")
    taken = arrays(outside(
        "BONEMRI_FATWATER_PYTHON", "mri-fatwater", SEPARATE, tmp_path_factory.mktemp("hip"),
        b0=HIP_FIELD, times=HIP_TIMES, shift=peaks.shift, area=peaks.area,
    ))  # fmt: skip
    magnitude = np.abs(taken["data"][..., 0])
    return {
        "data": taken["data"],
        # a seventh of the brightest leaves out air and cortical bone, whose echoes are noise
        "tissue": magnitude > 0.15 * np.percentile(magnitude, 99),
        "pdff": taken["ff"] / 100,
        "fieldmap": taken["B0map"] * 1e-6 * PROTON * HIP_FIELD,
        "r2star": taken["R2map"],
    }


@pytest.mark.parametrize("phases", ["free", "common"])
def test_a_hip_as_mri_fatwater_has_it(hip: dict[str, np.ndarray], phases: str) -> None:
    """No swap against the peer; the rest differs by no more than the peer's grids and the noise allow.

    Its R2* stands on a grid 4 1/s wide: half a step over the 6.4 ms of the train changes an echo by 1.3 %, and a
    fraction by no more. A swap moves the fraction by |1 - 2 PDFF|, in fat and in this muscle by .4 and more.
    """
    found = estimators.dixon(image(hip["data"], HIP_TIMES, HIP_FIELD), phases=phases)
    tissue = hip["tissue"]
    apart = (found.pdff.values - hip["pdff"])[tissue]
    assert abs(np.median(apart)) < 0.5 * STEP * (HIP_TIMES[-1] - HIP_TIMES[0])
    # noise of SNR 30 and more moves two fits of one model alike; edges of vessels and cortex are left
    assert np.mean(np.abs(apart) > 0.3) < 1e-3
    if phases == "free":  # the peer's own model; a common phase is knowledge that it has not
        assert np.nanmedian(np.abs(found.r2star.values - hip["r2star"])[tissue]) < STEP
    period = 1 / np.diff(HIP_TIMES)[0]
    off = (found.fieldmap.values - hip["fieldmap"])[tissue]
    assert np.mean(np.abs(off - period * np.rint(off / period)) > 90.0) < 1e-3  # 96 Hz is the swap's step


def test_the_sign_of_a_hip(hip: dict[str, np.ndarray]) -> None:
    """The peer has to be told that the phase of these data turns clockwise; the residuals tell it too."""
    found = [estimators.dixon(image(data, HIP_TIMES, HIP_FIELD)) for data in (hip["data"], hip["data"].conj())]
    assert "sign_doubt" not in found[0].attrs and "--conjugate" in found[1].attrs["sign_doubt"]
    assert found[1].attrs["residual_of_other_sign"] < 0.1 < 10 < found[0].attrs["residual_of_other_sign"]


def test_two_echoes_of_a_hip_are_not_wrong_in_confidence(hip: dict[str, np.ndarray]) -> None:
    """The field spans five quarters of a period: what two echoes cannot tell there is to be called so."""
    for pair in ([0, 1], [1, 2]):
        scan = image(hip["data"][..., pair], HIP_TIMES[pair], HIP_FIELD)
        found = estimators.dixon_2pt(scan, sigma=0.017, r2star=hip["r2star"])
        wrong = np.abs(found.pdff.values - hip["pdff"]) > 0.3
        assert np.mean((wrong & (found.status.values == 0))[hip["tissue"]]) < 0.01


def test_an_outside_simulators_scan_gives_the_truth_back(tmp_path: Path) -> None:
    """Dipole fields about a bubble of air, odd shapes, uneven echoes, T1 weighting: all by qsm-forward.

    Noise-free, what is left is the sixth digit of the two programs' gyromagnetic ratios: 1e-4 of 434 Hz over 7 ms.
    """
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 + 0.5 for n in (23, 31, 14)], indexing="ij")
    tissue = ((x / 11) ** 2 + (y / 14) ** 2 + (z / 6.5) ** 2 < 1) & (np.hypot(np.hypot(x - 3, y + 4), z) > 2.5)
    bone = np.hypot(x + 4, y - 4) < 4.5
    pdff = np.where(bone, 0.6 + 0.02 * z, 0.05 + 0.9 * (y > 9)) * tissue
    r2star = np.where(bone, 90.0, 40.0)
    times, b0, TR, flip, T1 = np.array([1.3, 2.2, 3.0, 4.4, 5.1, 6.9]) * 1e-3, 3.0, 0.012, 8.0, (1.3, 0.36)
    peaks = tissues.spectrum("fat_marrow")
    taken = arrays(outside(
        "BONEMRI_QSM_FORWARD_PYTHON", "qsm-forward", FORWARD, tmp_path,
        times=times, b0=b0, TR=TR, flip=flip, voxel=[2.0, 1.5, 3.0], chi=np.where(tissue, 0.0, 9.4),
        water=(1 - pdff) * tissue, fat=pdff * tissue, r2star=r2star, R1_water=1 / T1[0], R1_fat=1 / T1[1],
        offset=np.asarray(peaks.shift) - tissues.water_shift(), area=peaks.area,
    ))  # fmt: skip
    field = taken["field"] * 1e-6 * PROTON * b0
    assert np.ptp(field[tissue]) > 600.0  # Hz, about the bubble
    attrs = {"temperature": tissues.BODY_TEMPERATURE, "TR": TR, "flip_angle": np.radians(flip)}
    mask = xr.DataArray(tissue, dims=("z", "y", "x"))
    options = {"mask": mask, "T1_correction": True, "T1_water": T1[0], "T1_fat": T1[1]}
    found = estimators.dixon(image(taken["data"], times, b0, **attrs), **options)
    np.testing.assert_allclose(found.pdff.values[tissue], pdff[tissue], atol=2e-4)
    np.testing.assert_allclose(found.r2star.values[tissue], r2star[tissue], atol=0.2)
    np.testing.assert_allclose(found.fieldmap.values[tissue], field[tissue], atol=1e-4 * np.abs(field[tissue]).max())
    # noise of SNR 60: the errors are those that are told, in a chi-square band of four SDs, and nothing is swapped
    rng, sd = np.random.default_rng(3), np.abs(taken["data"]).max() / 60
    noise = sd * (rng.normal(size=taken["data"].shape) + 1j * rng.normal(size=taken["data"].shape))
    found = estimators.dixon(image(taken["data"] + noise, times, b0, **attrs), sigma=sd, **options)
    pull = ((found.pdff.values - pdff) / found.pdff_sd.values)[tissue]
    assert abs(np.mean(pull**2) - 1) < 4 * np.sqrt(2 / pull.size)
    assert np.mean(found.status.values[tissue] == 0) > 0.99


def test_files_of_an_outside_simulator_are_read(tmp_path: Path) -> None:
    """Ten files and ten sidecars, uneven echoes, 61 x 77 x 9 voxels, a phase at TE 0 that varies in space; no fat.

    The field that it wrote beside them and its R2* of 50 1/s come back; both medians have an SD below a tenth of the
    bounds, and the images were cropped from finer ones, which leaves a rim of partial volume.
    """
    import nibabel as nib

    made = outside("BONEMRI_QSM_FORWARD_PYTHON", "qsm-forward", BIDS, tmp_path)
    scans, truth = made / "sub-odd/anat", made / "derivatives/qsm-forward/sub-odd/anat"
    magnitude, phase = (scans / f"sub-odd_echo-1_part-{part}_MEGRE.nii" for part in ("mag", "phase"))
    mask = truth / "sub-odd_mask.nii"
    out = tmp_path / "out"
    assert cli.run(["estimate", "dixon", str(magnitude), str(phase), "--mask", str(mask), "-o", str(out)]) == 0
    inside = nib.load(mask).get_fdata() > 0
    found = {name: nib.load(out / f"{name}.nii.gz").get_fdata()[inside] for name in
             ("pdff", "pdff_sd", "fieldmap", "r2star", "status")}  # fmt: skip
    field = nib.load(truth / "sub-odd_desc-shimmed_fieldmap.nii").get_fdata()[inside] * 3.0 * 1e-6 * PROTON
    assert np.mean(found["status"] == 0) > 0.95
    assert np.mean((found["status"] == 0) & (np.abs(found["pdff"]) > 0.3)) == 0
    assert abs(np.median(found["pdff"] / found["pdff_sd"])) < 6 / np.sqrt(inside.sum())
    assert abs(np.median(found["fieldmap"] - field)) < 1.0
    assert abs(np.median(found["r2star"]) - 50.0) < 3.0
