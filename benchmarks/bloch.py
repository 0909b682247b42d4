"""Speed of the Bloch engine, against blochsimulator in the same run: `python benchmarks/bloch.py`.

A pulse of 1000 samples of 4 us (a sinc of 90 degrees) on 100 000 isochromats, each with T1 (.2 to 1 s), T2 (5 to 100
ms) and offset (-200 to 200 Hz) of its own; double precision, whole calls of `bloch.simulate`. blochsimulator (C, GPL)
is run as a program of its own, where the Python named by `BONEMRI_BLOCHSIMULATOR`, or this one, has it. Times of one
thread are those of the processor, so that what else runs there does not count; those of two are by the clock on the
wall. The peak is that of a loop of fused multiply-adds.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np

SPINS, STEPS, DWELL = 100_000, 1000, 4e-6
PEER = """
import sys, time
import numpy as np
from blochsimulator import BlochSimulator, TissueParameters
spins, steps, dwell = 2000, {steps}, {dwell}
t = (np.arange(steps) + 0.5) * dwell
wave = np.sinc(4 * (t / (steps * dwell) - 0.5))
b1 = (1e-6 * wave).astype(complex)
gradient = np.zeros((steps, 3))
gradient[:, 2] = 5e-3
place = np.zeros((spins, 3))
place[:, 2] = np.linspace(-0.01, 0.01, spins)
engine = BlochSimulator(use_parallel=False, num_threads=1)
tissue = TissueParameters(name="water", t1=0.5, t2=0.05)
best = float("inf")
for _ in range(5):
    begin = time.process_time()
    engine.simulate((b1, gradient, t), tissue, positions=place, frequencies=np.zeros(1))
    best = min(best, time.process_time() - begin)
print(spins * steps / best)
"""


def best(work: Callable[[], object], times: int, clock: Callable[[], float] = time.thread_time) -> float:
    """The shortest of several runs (s): what else runs on the machine only ever adds."""
    work()  # compiled, or loaded, before the clock starts
    durations = []
    for _ in range(times):
        begin = clock()
        work()
        durations.append(clock() - begin)
    return min(durations)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """So many threads of ours."""
    before = os.environ.get("BONEMRI_THREADS")
    os.environ["BONEMRI_THREADS"] = str(n)
    try:
        yield
    finally:
        os.environ.pop("BONEMRI_THREADS") if before is None else os.environ.update(BONEMRI_THREADS=before)


@cache
def peak(times: int = 9) -> float:
    """Fused multiply-adds a second of one thread: four independent rows of lanes, thirty-two in a row each."""
    from numba import njit

    from bonemri.simulator.lanes import FASTMATH, rows

    chain = "; ".join(f"v{k} = v{k} * x + y" for k in range(4))
    lines = [
        "def loop(a, x, y, n):",
        "    a = rows(a, (4, 64))",
        "    for _ in range(n):",
        "        for i in range(64):",
    ]
    lines += [f"            v{k} = a[{k}, i]" for k in range(4)] + [f"            {chain}"] * 32
    lines += [f"            a[{k}, i] = v{k}" for k in range(4)]
    scope = {"rows": rows}
    exec("\n".join(lines), scope)
    loop = njit("void(f8[:, ::1], f8, f8, i8)", fastmath=FASTMATH, error_model="numpy")(scope["loop"])
    a = np.ones((4, 64))
    return 4 * 64 * 32 * 5000 / best(lambda: loop(a, 0.999, 0.001, 5000), times)


def sinc() -> np.ndarray:
    """The pulse: nutation (Hz) of its samples."""
    t = (np.arange(STEPS) + 0.5) / STEPS - 0.5
    wave = np.sinc(4 * t) * (0.5 + 0.5 * np.cos(2 * math.pi * t))
    return wave / (wave.sum() * DWELL * 4)


def work(name: str, n: int = SPINS) -> tuple[Callable[[], object], float]:
    """What a row of the table does, and how many multiply-adds a step of it takes at least."""
    from bonemri.simulator.acquisition.events.timeline import RF, Block, Gradient, Timeline
    from bonemri.simulator.engines import bloch
    from bonemri.simulator.engines.isochromats import Isochromats

    rng = np.random.default_rng(0)
    own = {"T1": rng.uniform(0.2, 1.0, n), "T2": rng.uniform(5e-3, 0.1, n), "offset": rng.uniform(-200, 200, n)}
    place = np.zeros((n, 3))
    place[:, 2] = rng.uniform(-0.01, 0.01, n)
    there = own | {"B1": rng.uniform(0.8, 1.2, n), "position": place}
    steady = Gradient("z", [0, STEPS * DWELL], [5e-3, 5e-3])
    ramp = Gradient("z", [0, STEPS * DWELL], [1e-3, 9e-3])
    quadratic = sinc() * np.exp(6j * np.linspace(-1, 1, STEPS) ** 2)
    # three shears, tangent and Mz are 6, units 3/4; series of B1 4 more; corrected steps 23; 4 to turn the frame
    wave, events, spins, options, adds = {
        "RF shared": (sinc(), (), own, {}, 6.75),
        "own B1": (sinc(), (), there, {}, 10.75),
        "own B1 and gradient, plain": (sinc(), (steady,), there, {"tolerance": math.inf}, 10.75),
        "own B1 and gradient, corrected": (sinc(), (steady,), there, {"tolerance": 0.0}, 23.0),
        "phase of RF changing": (quadratic, (), own, {}, 27.0),
        "gradient changing": (sinc(), (ramp,), there, {}, 80.0),
    }[name]
    timeline = Timeline((Block(RF(wave, DWELL), *events),))
    isochromats = Isochromats(**spins)
    return lambda: bloch.simulate(timeline, isochromats, **options), adds


NAMES = (
    "RF shared", "own B1", "own B1 and gradient, plain", "own B1 and gradient, corrected", "phase of RF changing",
    "gradient changing",
)  # fmt: skip


def speed(name: str, times: int = 5) -> float:
    """Isochromat-steps a second of one thread."""
    with threads(1):
        return SPINS * STEPS / best(work(name)[0], times)


def gain(name: str, times: int = 7) -> float:
    """How much faster two threads are than one, by the clock on the wall, runs of both taken in turn."""
    play, _ = work(name)
    play()
    durations: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(times):
        for n, taken in durations.items():
            with threads(n):
                begin = time.perf_counter()
                play()
                taken.append(time.perf_counter() - begin)
    return min(durations[1]) / min(durations[2])


@cache
def peer() -> float | None:
    """Isochromat-steps a second of blochsimulator on one thread; None where it is not installed."""
    python = os.environ.get("BONEMRI_BLOCHSIMULATOR", sys.executable)
    text = PEER.format(steps=STEPS, dwell=DWELL)
    run = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False)
    return float(run.stdout.split()[-1]) if run.returncode == 0 else None


def ute(n: int = SPINS, times: int = 3) -> float:
    """Seconds of one thread for the steady state of a UTE sequence: 1000 samples of RF, 32 of signal, a spoiler."""
    from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Spoiler, Timeline
    from bonemri.simulator.engines import bloch
    from bonemri.simulator.engines.isochromats import Isochromats

    rng = np.random.default_rng(0)
    spins = Isochromats(
        T1=rng.uniform(0.1, 0.5, n), T2=rng.uniform(0.3e-3, 5e-3, n), offset=rng.uniform(-200, 200, n),
        B1=rng.uniform(0.8, 1.2, n),
    )  # fmt: skip
    pulse = RF(sinc() / 6, 1e-6)
    timeline = Timeline((Block(pulse, ADC(32, 1e-5, delay=1.1e-3), Spoiler(), duration=0.01),))
    with threads(1):
        return best(lambda: bloch.steady_state(timeline, spins), times)


def train(times: int = 5) -> tuple[float, float]:
    """Seconds of one thread for one pulse and for 200 of them with RF spoiling, on 10 000 isochromats."""
    from bonemri.simulator.acquisition.events.timeline import RF, Block, Repeat, Timeline, rf_spoiling
    from bonemri.simulator.engines import bloch
    from bonemri.simulator.engines.isochromats import Isochromats

    spins = Isochromats(T1=0.5, T2=np.random.default_rng(0).uniform(5e-3, 0.1, 10_000))
    body = Block(RF(sinc() / 6, DWELL), duration=0.01)
    trains = (Timeline((body,)), Timeline((Repeat((body,), 200, rf_spoiling(200)),)))
    with threads(1):
        one, many = (best(lambda t=t: bloch.simulate(t, spins), times) for t in trains)
    return one, many


def test_speed() -> None:
    """Ratios to the peer where it is there, and between threads; they need a machine with nothing else to do."""
    if peer() is not None:
        assert speed("RF shared") >= 50 * peer()
        assert speed("own B1 and gradient, corrected") >= 25 * peer()
    assert speed("RF shared") * 6.75 >= 0.5 * peak()
    if len(os.sched_getaffinity(0)) > 1:
        assert gain("own B1 and gradient, corrected") >= 1.8
    assert ute() < 1.0
    one, many = train()
    assert many < 20 * one


def main() -> None:
    """Print the table."""
    print(__doc__.split("\n\n")[1].replace("\n", " "))
    theirs = peer()
    print(f"\npeak: {peak():.3g} multiply-adds/s; blochsimulator, its gradient and offset: "
          + (f"{theirs:.3g} isochromat-steps/s" if theirs else "not installed"))  # fmt: skip
    print(f"\n{'one thread':34}{'steps/s':>10}{'over peer':>11}{'of peak':>9}{'2 threads':>11}")
    for name in NAMES:
        ours, adds = speed(name), work(name, 1)[1]
        over = f"{ours / theirs:11.0f}" if theirs else f"{'':11}"
        print(f"{name:34}{ours:10.3g}{over}{ours * adds / peak():9.0%}{gain(name):11.2f}")
    print(f"\nsteady state of a UTE sequence, 1000 samples of RF, {SPINS:,} isochromats: {ute():.2f} s")
    one, many = train()
    print(f"200 pulses of 1000 samples, RF-spoiled, over one: {many / one:.1f} times as long")


if __name__ == "__main__":
    main()
