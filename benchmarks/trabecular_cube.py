"""Speed and memory of a trabecular cube of 256^3 voxels: `python benchmarks/trabecular_cube.py`.

Young bone, voxels of 20 um, the whole phantom with its six pools, morphometry excluded, in a process of its own. The
random field alone is compared with numpy in the same run: the cosine of every wave at every voxel, added up.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time

import numpy as np

VOXELS, EDGE = 256, 20e-6
CUBE = """
import resource, time
from bonemri.phantoms.trabecular import trabecular
begin, worked = time.perf_counter(), time.process_time()
phantom = trabecular("young", resolution={edge}, size={n} * {edge}, morphometry=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.perf_counter() - begin, time.process_time() - worked, peak)
"""


def cube(n: int = VOXELS) -> tuple[float, float, float]:
    """Seconds, seconds of processors, and peak memory (bytes) of one cube, from a warm cache of compiled code."""
    command = [sys.executable, "-c", CUBE.format(edge=EDGE, n=n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, worked, peak = (float(part) for part in done.stdout.split())
    return seconds, worked, peak


def over_numpy(n: int = 96, planes: int = 4) -> float:
    """How many times as many voxels of a field a second as numpy adds up."""
    from bonemri.phantoms import random_field

    waves = random_field.shell(np.random.default_rng(0), 4000.0)
    x = (np.arange(n) - (n - 1) / 2) * EDGE
    random_field.sample(waves, x[:2], x, x)  # compiled, or loaded, before the clock starts
    begin = time.perf_counter()
    found = random_field.sample(waves, x, x, x)
    ours = (time.perf_counter() - begin) / found.size
    begin = time.perf_counter()
    total = np.zeros((planes, n, n))
    z, y, along_x = x[:planes, None, None], x[:, None], x
    for vector, phase in zip(waves.vector, waves.phase, strict=True):
        total += np.cos(vector[0] * z + vector[1] * y + vector[2] * along_x + phase)
    plain = (time.perf_counter() - begin) / total.size
    # 192 products in single precision
    np.testing.assert_allclose(found[:planes], total * math.sqrt(2 / len(waves.phase)), atol=2e-4)
    return plain / ours


def test_speed_and_memory() -> None:
    """They need a machine with nothing else to do."""
    seconds, _, peak = min(cube() for _ in range(2))
    assert seconds < 15
    assert peak < 3e9
    assert over_numpy() > 10


def main() -> None:
    """Print the table."""
    print(__doc__.split("\n\n")[1].replace("\n", " "))
    seconds, worked, peak = cube()
    print(f"\n{VOXELS}^3 cube: {seconds:.1f} s ({worked:.1f} s of processors), peak memory {peak / 1e9:.2f} GB")
    print(f"random field over numpy: {over_numpy():.0f} times")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
