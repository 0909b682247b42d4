"""Draw the scans of a leg in the README: `python docs/make_leg.py` (ten seconds)."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

HERE = Path(__file__).parent

if __name__ == "__main__":
    runpy.run_path(str(HERE.parent / "examples" / "plot_ute_leg.py"))
    plt.gcf().savefig(HERE / "leg.png", dpi=80)
