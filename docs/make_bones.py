"""Draw the picture of a bone in the README: `python docs/make_bones.py` (half a minute)."""

from __future__ import annotations

from pathlib import Path

from bonemri import phantoms
from bonemri.phantoms import preview

if __name__ == "__main__":
    preview.poster(phantoms.spine(condition="osteoporotic", resolution=1e-3), Path(__file__).parent / "spine.png")
