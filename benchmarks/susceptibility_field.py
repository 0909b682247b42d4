"""Speed and memory of the susceptibility field, beside numpy in one run: `python benchmarks/susceptibility_field.py`.

The field of 256^3 voxels alone in space, zero-padded to 512^3. Ours pads one axis at a time and takes the exact field
of cuboids; the reference pads all three axes, transforms with `numpy.fft` on one thread, and multiplies by the
continuous kernel. Both are timed at 128^3, in turns; ours also at the full size, where the reference would take some
6 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

SIDE = 256
MEMORY = """
import resource
import numpy as np
from bonemri.simulator.engines import susceptibility
susceptibility.field(np.zeros((8, 8, 8)), 1.0, direction={direction}, precision={precision!r})
chi = np.random.default_rng(0).random(({side},) * 3)
susceptibility.field(chi, 1.0, direction={direction}, precision={precision!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def ours(side: int, direction: tuple[float, ...], precision: str, threads: int) -> float:
    """Seconds for the field of `side`^3 voxels."""
    from bonemri.simulator.engines import susceptibility

    chi = np.random.default_rng(0).random((side,) * 3)
    before = os.environ.get("BONEMRI_THREADS")
    os.environ["BONEMRI_THREADS"] = str(threads)
    try:
        susceptibility.field(chi[:8, :8, :8], 1.0, direction=direction, precision=precision)
        begin = time.perf_counter()
        susceptibility.field(chi, 1.0, direction=direction, precision=precision)
        return time.perf_counter() - begin
    finally:
        os.environ.pop("BONEMRI_THREADS") if before is None else os.environ.update(BONEMRI_THREADS=before)


def reference(side: int, direction: tuple[float, ...]) -> float:
    """Seconds for numpy, all axes padded at once."""
    chi = np.random.default_rng(0).random((side,) * 3)
    begin = time.perf_counter()
    k = [np.fft.fftfreq(2 * side), np.fft.fftfreq(2 * side), np.fft.rfftfreq(2 * side)]
    z, y, x = np.ix_(*k)
    bx, by, bz = np.asarray(direction) / np.linalg.norm(direction)
    square = x * x + y * y + z * z
    square[0, 0, 0] = 1.0
    kernel = 1 / 3 - (bx * x + by * y + bz * z) ** 2 / square
    spectrum = np.fft.rfftn(np.pad(chi, (0, side)))
    np.fft.irfftn(spectrum * kernel, s=(2 * side,) * 3, axes=(0, 1, 2))[:side, :side, :side].copy()
    return time.perf_counter() - begin


def peak(side: int, direction: tuple[float, ...], precision: str) -> float:
    """Peak memory (bytes) of a whole process: interpreter, libraries, map and field included.

    The peak of a process begins at what its parent holds when it starts it: to be asked for first.
    """
    text = MEMORY.format(side=side, direction=direction, precision=precision)
    return float(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout)


def test_speed_and_memory() -> None:
    """A 256^3 field in under 10 s and 3 GB on two threads, and no slower than the reference; on an idle machine."""
    oblique = (1.0, 2.0, 3.0)
    assert peak(SIDE, oblique, "double") < 3e9
    assert ours(SIDE, oblique, "double", 2) < 10
    assert min(ours(SIDE // 2, oblique, "double", 2) for _ in range(3)) < min(
        reference(SIDE // 2, oblique) for _ in range(3)
    )


def main() -> None:
    """Print the table."""
    directions, precisions = ((0.0, 0.0, 1.0), (1.0, 2.0, 3.0)), ("double", "single")
    peaks = {(d, p): peak(SIDE, d, p) for d in directions for p in precisions}
    kinds = [(p, threads) for p in precisions for threads in (1, 2)]
    for direction in directions:
        half: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
        theirs = []
        for _ in range(5):  # in turns; the shortest counts: what else runs on the machine only ever adds
            theirs.append(reference(SIDE // 2, direction))
            for kind in kinds:
                half[kind].append(ours(SIDE // 2, direction, *kind))
        print(f"B0 along {direction}: numpy, all axes padded, {SIDE // 2}^3 in {min(theirs):.2f} s")
        for precision, threads in kinds:
            took = min(half[precision, threads])
            full = min(ours(SIDE, direction, precision, threads) for _ in range(2))
            ratio = min(theirs) / took
            print(f"  {precision}, {threads} thread(s): {SIDE // 2}^3 in {took:.2f} s, {ratio:.1f} times as fast; "
                  f"{SIDE}^3 in {full:.2f} s, peak {peaks[direction, precision] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
