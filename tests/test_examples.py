"""The lessons run, and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("plot_*.py"))


def confounders(said: str) -> None:
    """Each confounder does what it is known for, and the option leaves next to nothing of it.

    What is left is the noise of a mean over 100 voxels, some .3 points at SNR 50 (1 at 15), and the floor of magnitudes
    at 0 and 100 %; at 0 % two rates are not to be told; images ring by a point or two.
    """
    pattern = r"^(.+): error of (PDFF|R2\*) \(.+\) at most ([0-9.]+) and ([0-9.]+)$"
    found = re.findall(pattern, said, re.MULTILINE)
    pdff, r2star = ({t: (float(a), float(b)) for t, q, a, b in found if q == kind} for kind in ("PDFF", "R2*"))
    least = {
        "another fat": 2, "a single peak": 9, "temperature": 1, "two R2*": 4, "T1 weighting": 14,
        "phase of the first echo": 4, "phase of even echoes": 7, "noise floor": 4, "magnitudes alone": 8, "swap": 90,
        "field across the slice": 0.5, "concomitant fields": 8,
    }  # fmt: skip
    assert list(pdff) == list(least)
    left = {"two R2*": 3.0, "noise floor": 2.0, "magnitudes alone": 2.0, "phase of the first echo": 1.5,
            "field across the slice": 1.0, "concomitant fields": 3.0}  # fmt: skip
    for title, (ignored, handled) in pdff.items():
        assert ignored > least[title], title
        assert handled < left.get(title, 0.6) and handled < 0.6 * ignored, title
    moved = {"another fat": 15, "a single peak": 90, "temperature": 5, "two R2*": 35, "magnitudes alone": 12,
             "field across the slice": 40}  # fmt: skip
    for title, most in moved.items():
        assert r2star[title][0] > most and r2star[title][1] < 0.5 * r2star[title][0], title


def spine(said: str) -> None:
    """Every region is read, near its truth; together the biomarkers tell more than alone.

    The correction for T1 leaves what the two decays do: two or three points in vertebrae, next to nothing in muscle.
    """
    line = r"^(\w+): PDFF ([0-9.]+) \+- ([0-9.]+) % \(true ([0-9.]+)\), T2\* ([0-9.]+) .* ([0-9.]+) cm2; (\d+) of (\d+)"
    found = re.findall(line, said, re.MULTILINE)
    assert [name for name, *_ in found] == ["L1", "L2", "L3", "L4", "left_psoas", "right_psoas", "paraspinal"]
    for name, pdff, se, true, t2star, area, good, voxels in found:
        bone = name.startswith("L")
        assert abs(float(pdff) - float(true)) < (3.5 if bone else 1.2) + 3 * float(se), name
        # marrow: 1/T2 of water and fat (47, 15 1/s) and R2' of some 50 1/s; muscle: 1/T2 alone, 20 and 15 1/s
        assert (8 < float(t2star) < 18) if bone else (45 < float(t2star) < 60), name
        assert 3 < float(area) < 60 and int(good) > 0.9 * int(voxels)
    areas = {name: float(area) for name, area in re.findall(r"^(.+): AUC ([0-9.]+)", said, re.MULTILINE)}
    assert areas["PDFF and T2*"] > max(areas["PDFF"], areas["T2*"]) > 0.6


SHOWN = {"plot_fat_confounders": confounders, "plot_spine_fat": spine}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    # a process of its own: a script leaves figures open and the backend chosen
    command = [sys.executable, "-W", "error", str(example)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONWARNINGS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if example.stem in SHOWN:
        SHOWN[example.stem](done.stdout)
