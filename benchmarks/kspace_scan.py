"""Time and memory of a UTE scan through k-space: `python benchmarks/kspace_scan.py`.

Four pools, one of them fat with ten peaks, on 64^3 voxels, received by eight coils at two echoes along 2e4 spokes of 64
samples, without a field map: simulated, made noisy, and reconstructed by gridding and adaptive combination. Beside it
one Fourier transform of the same size, which is what the simulation is made of: 32 of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

SIDE, SPOKES, SAMPLES, COILS = 64, 20_000, 64, 8
FAT = np.array([-3.80, -3.40, -3.10, -2.68, -2.46, -1.95, -0.50, 0.49, 0.59]) * 127.7  # Hz from water at 3 T


def scene(side: int = SIDE) -> tuple[list[Any], np.ndarray]:
    """Pools on a grid, and coils around it."""
    from bonemri.simulator.acquisition.kspace.acquire import PoolMap

    rng = np.random.default_rng(0)
    place = (np.arange(side) - 0.5 * (side - 1)) / (0.5 * side)
    z, y, x = np.meshgrid(place, place, place, indexing="ij")
    ball = (x**2 + y**2 + z**2 < 0.7).astype(float)
    echoes = np.array([50e-6, 2e-3])
    peaks = np.exp((2j * np.pi * FAT - 100) * echoes[:, None]) / FAT.size
    pools = [
        PoolMap(ball * rng.random(ball.shape), np.exp(-rate * echoes), 0.0, rate, name=name)
        for name, rate in (("bound water", 1 / 0.35e-3), ("pore water", 1 / 3e-3), ("marrow water", 1 / 20e-3))
    ]
    pools.append(PoolMap(ball * rng.random(ball.shape), peaks, FAT, 100.0, name="fat"))
    angles = 2 * np.pi * np.arange(COILS) / COILS
    coils = [np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 2 + 1j * a) for a in angles]
    return pools, np.array(coils)


def run(progress: Any = None) -> dict[str, float]:
    """Seconds of each part."""
    from bonemri.simulator.acquisition.kspace import acquire as kspace
    from bonemri.simulator.acquisition.kspace import coil_combination, reconstruction, trajectory

    begin = time.perf_counter()
    took: dict[str, float] = {}

    def lap(name: str) -> None:
        took[name] = time.perf_counter() - begin - sum(took.values())

    spokes = trajectory.radial_3d(SIDE, 0.2, 4e-6, SPOKES, samples=SAMPLES)
    pools, coils = scene()
    lap("scene")
    data = kspace.acquire(spokes, pools, spokes.voxel_size, coils=coils, progress=progress)
    lap("simulated")
    data = kspace.add_noise(data, 1e-18, np.random.default_rng(0))
    lap("noise")
    images = reconstruction.gridding(data, spokes)
    lap("gridding")
    del data
    combined, _ = coil_combination.adaptive(images)
    lap("combination")
    assert np.isfinite(combined).all()
    return took


def one_transform() -> float:
    """Seconds of a bare finufft transform of this size on one thread, points set already."""
    import finufft

    from bonemri.simulator.acquisition.kspace import trajectory

    spokes = trajectory.radial_3d(SIDE, 0.2, 4e-6, SPOKES, samples=SAMPLES)
    angles = 2 * np.pi * spokes.k.reshape(-1, 3) * spokes.voxel_size[0]
    plan = finufft.Plan(2, (SIDE,) * 3, 1, eps=1e-6, isign=1, nthreads=1)
    plan.setpts(*(np.ascontiguousarray(angles[:, a]) for a in (2, 1, 0)))
    image = np.random.default_rng(0).standard_normal((SIDE,) * 3).astype(complex)
    begin = time.perf_counter()
    plan.execute(image)
    return time.perf_counter() - begin


def measured() -> tuple[dict[str, float], float]:
    """Seconds of each part, and peak memory (bytes) of a process that does nothing else."""
    text = "import runpy, sys; m = runpy.run_path(sys.argv[1]); m['tell']()"
    done = subprocess.run([sys.executable, "-c", text, __file__], capture_output=True, text=True, check=True)
    *laps, memory = done.stdout.split()
    return {laps[i]: float(laps[i + 1]) for i in range(0, len(laps), 2)}, float(memory)


def tell() -> None:
    """Print the parts and the peak memory on one line."""
    took = run()
    print(*(f"{name} {seconds}" for name, seconds in took.items()),
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # fmt: skip


def test_time_and_memory() -> None:
    """Simulated and reconstructed in under 2 minutes on two cores and in less than 4 GB; on an idle machine."""
    took, memory = measured()
    assert sum(took.values()) < 120
    assert memory < 4e9


def main() -> None:
    """Print the table."""
    took, memory = measured()
    alone = min(one_transform() for _ in range(3))
    print(f"{SIDE}^3 voxels, 4 pools, {COILS} coils, 2 echoes, {SPOKES} spokes x {SAMPLES} samples, "
          f"{os.environ.get('BONEMRI_THREADS', os.cpu_count())} threads")  # fmt: skip
    for name, seconds in took.items():
        print(f"  {name:12s} {seconds:6.1f} s")
    print(f"  {'in all':12s} {sum(took.values()):6.1f} s, peak memory {memory / 1e9:.2f} GB")
    ratio = took["simulated"] / (4 * COILS * alone)
    print(f"  a bare transform {alone:.2f} s on one thread; the simulation takes {ratio:.2f} times that of its 32")


if __name__ == "__main__":
    main()
