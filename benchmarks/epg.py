"""Speed of the extended phase graph against other codes in the same run: `python benchmarks/epg.py`.

A train of 200 RF-spoiled pulses (15 degrees, TR 5 ms), all orders kept that still come back to a signal. A tissue is a
pair (T1, T2). Peers run where they are installed: sycomore, one tissue at a time in C++ called from Python; epyg, in
Python; blochsim, batched with torch. The peak is what chains of fused multiply-adds reach on one thread; an order of a
tissue takes 34 operations from one pulse to the next.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np

PULSES, FLIP, TR = 200, math.radians(15), 5e-3
OPERATIONS = 34  # of an order of a tissue from pulse to pulse: pulse and relaxation 2 x 11, turn of the frame 12
PHASES = math.radians(117) * np.arange(PULSES) * np.arange(1, PULSES + 1) / 2


def best(work: Callable[[], object], times: int) -> float:
    """The shortest of several runs (s): what else runs on the machine only ever adds."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def tissues(n: int) -> tuple[np.ndarray, np.ndarray]:
    """T1 and T2 (s)."""
    return np.linspace(0.2, 2.0, n), np.geomspace(5e-3, 0.2, n)


def threaded(work: Callable[[], object], threads: int, times: int = 5) -> float:
    """Seconds of a warm run on so many threads."""
    before = os.environ.get("BONEMRI_THREADS")
    os.environ["BONEMRI_THREADS"] = str(threads)
    try:
        work()  # compiled, or loaded, before the clock starts
        return best(work, times)
    finally:
        os.environ.pop("BONEMRI_THREADS") if before is None else os.environ.update(BONEMRI_THREADS=before)


def ours(n: int, threads: int) -> float:
    """Tissues a second."""
    from bonemri.simulator.engines import epg

    T1, T2 = tissues(n)
    return n / threaded(lambda: epg.spoiled_train(T1, T2, np.full(PULSES, FLIP), TR), threads)


def echoes(n: int, threads: int) -> float:
    """Tissues a second, of a train of 32 spin echoes refocused by 120 degrees."""
    from bonemri.simulator.engines import epg

    T1, T2 = tissues(n)
    return n / threaded(lambda: epg.spin_echo_train(T1, T2, np.full(32, math.radians(120)), 8e-3), threads)


def two_pools(n: int, threads: int, bound: bool) -> float:
    """Tissues a second, with a second pool that exchanges."""
    from bonemri.simulator.engines import epg_exchange

    T1, T2 = tissues(n)
    pools = epg_exchange.TwoPools(T1, 0.5, T2, None if bound else 0.02, 0.15, 5.0)
    return n / threaded(lambda: epg_exchange.spoiled_train(pools, np.full(PULSES, FLIP), TR), threads, 3)


def sycomore(n: int = 100) -> float | None:
    """Tissues a second of sycomore, None where it is not installed."""
    try:
        import sycomore as peer
        from sycomore.units import ms, rad
    except ImportError:
        return None
    T1, T2 = tissues(n)
    phases, flip, interval = [phase * rad for phase in PHASES], FLIP * rad, 1e3 * TR * ms

    def work() -> None:
        for t1, t2 in zip(T1, T2, strict=True):
            model = peer.epg.Regular(peer.Species(1e3 * t1 * ms, 1e3 * t2 * ms), initial_size=PULSES + 1)
            signal = np.empty(PULSES, complex)
            for k, phase in enumerate(phases):
                model.apply_pulse(flip, phase)
                signal[k] = model.echo
                model.apply_time_interval(interval)
                model.shift()

    return n / best(work, 3)


def epyg(n: int = 2) -> float | None:
    """Tissues a second of epyg, None where it is not installed."""
    try:
        from epyg.EpyG import epg
        from epyg.Operators import Epsilon, Shift, Transform
    except ImportError:
        return None
    T1, T2 = tissues(n)

    def work() -> None:
        for t1, t2 in zip(T1, T2, strict=True):
            state, relax, shift = epg(initial_size=PULSES + 1), Epsilon(TR / t1, TR / t2), Shift()
            signal = np.empty(PULSES, complex)
            for k, phase in enumerate(PHASES):
                state = Transform(alpha=FLIP, phi=phase) * state
                signal[k] = state.get_f(0)
                state = shift * (relax * state)

    return n / best(work, 2)


def blochsim(n: int = 512) -> float | None:
    """Tissues a second of blochsim's batched train on one thread, None where it is not installed."""
    try:
        import torch
        from blochsim import mrf_sim
    except ImportError:
        return None
    torch.set_num_threads(1)
    T1, T2 = tissues(n)
    flips, phases = np.full(PULSES, math.degrees(FLIP)), np.degrees(PHASES) % 360
    return n / best(lambda: mrf_sim(flips, 1e3 * TR, 1e3 * T1, 1e3 * T2, phases=phases, states=PULSES // 2), 3)


def peak() -> float:
    """Floating-point operations a second of one thread: chains of 32 multiply-adds on numbers in its nearest cache."""
    from numba import njit

    @njit(fastmath={"contract"}, inline="always")
    def four(v: float, a: float, b: float) -> float:
        return (((v * a + b) * a + b) * a + b) * a + b

    @njit(fastmath={"contract"}, nogil=True)
    def chains(x: np.ndarray, count: int, a: float, b: float) -> None:
        for _ in range(count):
            for i in range(x.size):
                v = four(four(four(four(x[i], a, b), a, b), a, b), a, b)
                x[i] = four(four(four(four(v, a, b), a, b), a, b), a, b)

    x, count = np.ones(512), 5000
    chains(x, 1, 0.999999, 1e-7)
    return 2 * 32 * x.size * count / best(lambda: chains(x, count, 0.999999, 1e-7), 5)


def orders() -> int:
    """Orders of a tissue that a train computes: those that are there and still come back."""
    return sum(min(n, PULSES - 1 - n) + 1 for n in range(PULSES))


def test_speed() -> None:
    """Ratios to peers and between threads; they need a machine with nothing else to do."""
    one = ours(8192, 1)
    assert one > 2e4
    for peer in (sycomore(), epyg(), blochsim()):
        if peer is not None:
            assert one >= 10 * peer
    if len(os.sched_getaffinity(0)) > 1:
        assert ours(8192, 2) >= 1.8 * one


def main() -> None:
    """Print the table."""
    print(__doc__.split("\n\n")[1].replace("\n", " "))
    one, two = ours(8192, 1), ours(8192, 2)
    rows = [("bonemri, 1 thread", one), ("bonemri, 2 threads", two)]
    rows += [("bonemri, liquid pools that exchange, 1 thread", two_pools(2048, 1, False))]
    rows += [("bonemri, liquid and bound pool, 1 thread", two_pools(2048, 1, True))]
    print(f"\n{'200 RF-spoiled pulses':50}{'tissues/s':>12}{'ours over it':>14}")
    for name, rate in rows:
        print(f"{name:50}{rate:12.3g}")
    for name, peer in (("sycomore", sycomore()), ("epyg", epyg()), ("blochsim", blochsim())):
        if peer is None:
            print(f"{name:50}{'not installed':>26}")
        else:
            print(f"{name:50}{peer:12.3g}{one / peer:14.1f}")
    print(f"two threads over one: {two / one:.2f}")
    reached, most = one * orders() * OPERATIONS, peak()
    share = 100 * reached / most
    print(f"operations, 1 thread: {reached:.3g} a second, {share:.0f} % of the peak of {most:.3g}")
    print(f"32 spin echoes, 1 thread: {echoes(8192, 1):.3g} tissues/s")


if __name__ == "__main__":
    main()
