"""What README and CONTRIBUTING print is run: the Python blocks as they stand, and the commands of the command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bonemri import cli, phantoms, simulator

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("document", "number"), [(d, i) for d in DOCUMENTS for i in range(len(blocks(d, "python")))])
def test_python_blocks_run(document, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = re.findall(r"This is `([\w-]+\.toml)`", (ROOT / document).read_text(encoding="utf-8"))
    for name, text in zip(named, blocks(document, "toml"), strict=False):
        Path(name).write_text(text, encoding="utf-8")
    block = blocks(document, "python")[number]
    exec(compile(block, f"{document}, Python block {number + 1}", "exec"), {"__name__": "__main__"})


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, decay, capsys):
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(decay.transpose("x", "y", "z", "b").values, np.diag([2, 2, 2, 1])), "dwi.nii.gz")
    Path("dwi.bval").write_text(" ".join(str(b) for b in decay["b"].values))
    water_fat = simulator.scan(phantoms.marrow_block(shape=(2, 2, 2)), "dixon_marrow", snr=100, seed=1)
    for name, part in (("magnitude", np.abs), ("phase", np.angle)):
        nib.save(nib.Nifti1Image(part(water_fat.transpose("x", "y", "z", "echo").values), np.eye(4)), f"{name}.nii.gz")
    sidecar = {"EchoTime": water_fat["echo"].values.tolist(), "MagneticFieldStrength": 3,
               "RepetitionTime": 0.0072, "FlipAngle": 3}  # fmt: skip
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), "labels.nii.gz")
    Path("magnitude.json").write_text(json.dumps(sidecar))
    calls = [shlex.split(line) for block in blocks("README.md", "sh") for line in block.splitlines()]
    # the trial has its own tests; here it would take as long as all of them
    calls = [call[1:] for call in calls if call[0] == "bonemri" and call[1] != "validate"]
    assert len(calls) >= 4
    for call in calls:
        assert cli.run(call) == 0, capsys.readouterr().err
    assert {"maps", "fat", "bone.nc", "scan.nc", "ivim"} <= {path.name for path in tmp_path.iterdir()}


def test_every_file_that_is_linked_exists():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (ROOT / target).exists(), f"{document} links {target}"
