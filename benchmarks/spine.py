"""Speed and memory of a spine in voxels of 1 mm: `python benchmarks/spine.py`.

T12 to L5 with discs, canal and muscles, the whole phantom with its sixteen pools, in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

SPINE = """
import resource, time
from bonemri.phantoms.spine import spine
begin, worked = time.perf_counter(), time.process_time()
phantom = spine("young", resolution={edge})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.perf_counter() - begin, time.process_time() - worked, peak, phantom.pools["density"][0].size)
"""


def spine(edge: float = 1e-3) -> tuple[float, float, float, float]:
    """Seconds, seconds of processors, peak memory (bytes) and voxels."""
    done = subprocess.run([sys.executable, "-c", SPINE.format(edge=edge)], capture_output=True, text=True, check=True)
    seconds, worked, peak, voxels = (float(part) for part in done.stdout.split())
    return seconds, worked, peak, voxels


def test_speed_and_memory() -> None:
    """They need a machine with nothing else to do."""
    seconds, _, peak, _ = min(spine() for _ in range(2))
    assert seconds < 20
    assert peak < 3e9


if __name__ == "__main__":
    seconds, worked, peak, voxels = spine()
    print(f"{voxels / 1e6:.1f} million voxels: {seconds:.1f} s ({worked:.1f} s of processors), {peak / 1e9:.2f} GB")
