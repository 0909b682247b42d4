"""Draw the lessons on fat: `python docs/make_fat.py` (half a minute)."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
LESSONS = {"plot_fat_confounders": "fat.png", "plot_spine_fat": "spine_fat.png"}

if __name__ == "__main__":
    for lesson, picture in LESSONS.items():
        runpy.run_path(str(HERE.parent / "examples" / f"{lesson}.py"))
        plt.gcf().savefig(HERE / picture, dpi=80)
        plt.close("all")
