"""Speed of the exchange engine beside dense exponentials: `python benchmarks/exchange.py`.

Voxels that all differ, under a Fermi pulse of 500 samples (250 of them different), in the steady state of a UTE-MT
sequence. The reference is what one would write with `scipy.linalg.expm`, which takes many matrices at once; it makes
each exponential once and multiplies them, for a part of the voxels. BMCTool, where installed, runs the pulse for one
voxel.
"""

from __future__ import annotations

import math
import os
import time

import numpy as np
from scipy.linalg import expm

from bonemri.simulator.acquisition.events import pulses
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Repeat, Spoiler, Timeline
from bonemri.simulator.engines import exchange

VOXELS, FEW = 4096, 64
STEPS = 500
KINDS = {"water and collagen": 1, "bound and pore water, collagen": 2, "two waters, fat, solute, collagen": 4}


def bone(liquid: int, voxels: int) -> exchange.Pools:
    """Liquid pools that exchange with collagen; T2 and B1 differ from voxel to voxel."""
    rng = np.random.default_rng(0)
    density = np.append(np.full(liquid, 0.55 / liquid), 0.45)
    rates = np.zeros((liquid + 1, liquid + 1))
    rates[:-1, -1] = np.linspace(12, 1, liquid)
    T2 = np.append(np.geomspace(4e-4, 2e-2, liquid), 15.4e-6) * rng.uniform(0.8, 1.2, (voxels, 1))
    return exchange.Pools(
        T1=np.append(np.linspace(0.2, 0.8, liquid), 1.0), T2=T2, density=density,
        rates=exchange.balanced(rates, density), offset=rng.normal(0, 30, (voxels, 1)) * np.ones(liquid + 1),
        lineshape=("",) * liquid + ("super_lorentzian",), B1=rng.uniform(0.8, 1.2, voxels),
    )  # fmt: skip


def saturation() -> RF:
    """A Fermi pulse of 1000 degrees, 8 ms, 5 kHz from water."""
    pulse = pulses.fermi(math.radians(1000), 8e-3, dwell=8e-3 / STEPS)
    return RF(pulse.waveform, pulse.dwell, frequency=5e3)


def sequence() -> Timeline:
    """The pulse, nine spokes, and a wait."""
    spoke = Block(pulses.hard(math.radians(7), 1.5e-4), ADC(16, 8e-6, delay=1.8e-4), Spoiler(), duration=5e-3)
    return Timeline((Block(saturation(), Spoiler(), duration=9e-3), Repeat((spoke,), 9), Block(duration=46e-3)))


def ours(liquid: int, threads: int) -> float:
    """Seconds for the steady state of all voxels."""
    os.environ["BONEMRI_THREADS"] = str(threads)
    pools, timeline = bone(liquid, VOXELS), sequence()
    exchange.steady_state(timeline, pools.at(slice(0, 8)))
    begin = time.perf_counter()
    exchange.steady_state(timeline, pools)
    return time.perf_counter() - begin


def reference(liquid: int) -> float:
    """Seconds for the map of the pulse alone, of all voxels, as scipy would take for it."""
    size = 3 * liquid + 2
    rng = np.random.default_rng(0)
    generators = rng.normal(0, 1e3, (FEW, size, size))
    begin = time.perf_counter()
    total = np.broadcast_to(np.eye(size), (FEW, size, size))
    steps = [expm(generators * 1.6e-5) for _ in range(STEPS // 2)]
    for step in (*steps, *steps[::-1]):
        total = step @ total
    return (time.perf_counter() - begin) * VOXELS / FEW


def outside() -> float | None:
    """Seconds of BMCTool for the pulse on one voxel of water and collagen, without the lineshape; None without it."""
    try:
        from bmctool.parameters import MTPool, Options, System, WaterPool
        from bmctool.parameters.Parameters import Parameters
        from bmctool.simulation.BlochMcConnellSolver import BlochMcConnellSolver
    except ImportError:
        return None
    solid = MTPool(k=10.0, f=0.8, dw=0.0, lineshape="Lorentzian", t1=1.0, t2=1.5e-5)
    system = System(b0=3.0, gamma=267.5, b0_inhom=0.0, rel_b1=1.0)
    table = Parameters(WaterPool(f=1.0, t1=0.2, t2=4e-4), [], solid, system, Options())
    solver, state, pulse = BlochMcConnellSolver(params=table, n_offsets=1), table.m_vec.copy(), saturation()
    begin = time.perf_counter()
    for sample in pulse.waveform:
        solver.update_matrix(abs(sample), 0.0, 5e3)
        state = solver.solve_equation(mag=state, dtp=pulse.dwell)
    return time.perf_counter() - begin


def test_faster_than_dense_exponentials() -> None:
    """The whole steady state on one thread in a twentieth of the time that scipy takes for the pulse."""
    assert min(ours(2, 1) for _ in range(3)) * 20 < reference(2)


def main() -> None:
    """Print the table."""
    theirs = outside()
    for name, liquid in KINDS.items():
        took = {threads: min(ours(liquid, threads) for _ in range(2)) for threads in (1, 2)}
        dense = reference(liquid)
        print(f"{name}: {VOXELS} voxels, {STEPS} samples, in {took[1]:.2f} s on one thread, {took[2]:.2f} s on two "
              f"({took[1] / took[2]:.2f} times as fast); {took[1] / VOXELS / STEPS * 1e9:.0f} ns a voxel and sample; "
              f"scipy.linalg.expm {dense:.1f} s for the pulse alone, {dense / took[1]:.0f} times as long")  # fmt: skip
        if theirs is not None and liquid == 1:
            print(
                f"  BMCTool {theirs * 1e3:.0f} ms a voxel for the pulse alone, "
                f"{theirs * VOXELS / took[1]:.0f} times as long"
            )


if __name__ == "__main__":
    main()
