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
    found = re.findall(r"^(.+): at most ([0-9.]+) and ([0-9.]+) (points|1/s) wrong$", said, re.MULTILINE)
    wrong = {title: (float(ignored), float(handled)) for title, ignored, handled, _ in found}
    least = {
        "another fat": 2, "a single peak": 9, "temperature": 1, "two R2*": 4, "T1 weighting": 14,
        "phase of the first echo": 4, "phase of even echoes": 7, "noise floor": 4, "magnitudes alone": 8, "swap": 90,
        "field across the slice": 40, "concomitant fields": 8,
    }  # fmt: skip
    assert list(wrong) == list(least)
    left = {"two R2*": 3.0, "noise floor": 2.0, "magnitudes alone": 2.0, "phase of the first echo": 1.5,
            "field across the slice": 8.0, "concomitant fields": 3.0}  # fmt: skip
    for title, (ignored, handled) in wrong.items():
        assert ignored > least[title], title
        assert handled < left.get(title, 0.6) and handled < 0.5 * ignored, title


SHOWN = {"plot_fat_confounders": confounders}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    # a process of its own: a script leaves figures open and the backend chosen
    command = [sys.executable, "-W", "error", str(example)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONWARNINGS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if example.stem in SHOWN:
        SHOWN[example.stem](done.stdout)
