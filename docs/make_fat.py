"""Draw the lessons on fat: `python docs/make_fat.py` (half a minute)."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
LESSONS = {"plot_fat_confounders": ("fat.png", "fat_r2star.png"), "plot_spine_fat": ("spine_fat.png",)}

if __name__ == "__main__":
    for lesson, pictures in LESSONS.items():
        runpy.run_path(str(HERE.parent / "examples" / f"{lesson}.py"))
        for number, picture in zip(plt.get_fignums(), pictures, strict=True):
            plt.figure(number).savefig(HERE / picture, dpi=80)
        plt.close("all")
