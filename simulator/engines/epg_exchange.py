"""Extended phase graph of two exchanging pools (EPG-X): two liquids, or a liquid and a bound pool (MT).

Every order of both pools relaxes and exchanges through the exact 2 x 2 matrix exponential. Pulses are instantaneous;
what a pulse does to a bound pool is the loss that `saturation` states.

References
----------
Malik et al., Magn Reson Med 80:767 (2018), doi:10.1002/mrm.27040.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .. import threads
from .epg_arguments import each_pulse, number_of, phases_of, times_of, tissues_of, train_of

_KERNEL = Path(__file__).with_name("epg_pools.py")
_BLOCK = 256  # tissues of a block: a multiple of the lanes

Complexes = NDArray[np.complex128]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TwoPools:
    """Two pools that exchange, a and b; numbers or arrays (tissue,).

    Attributes
    ----------
    T1_a, T1_b : float or ndarray
        s, without exchange.
    T2_a, T2_b : float or ndarray
        s, without exchange. `T2_b` None: pool b is bound, it has no transverse magnetisation, and `T2_a` is what is
        observed, exchange included.
    fraction : float or ndarray
        Share of b in the equilibrium magnetisation, 0 to below 1.
    exchange : float or ndarray
        Rate from a to b (1/s); from b to a it is exchange (1 - fraction)/fraction.
    shift : float or ndarray
        Frequency of b relative to a (Hz).

    Raises
    ------
    InputError
        A value without meaning, or exchange with a pool of fraction 0.
    """

    T1_a: ArrayLike
    T1_b: ArrayLike
    T2_a: ArrayLike
    T2_b: ArrayLike | None
    fraction: ArrayLike
    exchange: ArrayLike
    shift: ArrayLike = 0.0

    def values(self, where: str, **further: ArrayLike) -> dict[str, Floats]:
        """Everything as arrays over the tissues."""
        b = np.inf if self.T2_b is None else self.T2_b
        v = tissues_of(
            where, T1_a=self.T1_a, T1_b=self.T1_b, T2_a=self.T2_a, T2_b=b, fraction=self.fraction,
            exchange=self.exchange, shift=self.shift, **further,
        )  # fmt: skip
        for name, wrong, right in (
            ("fraction", (v["fraction"] < 0) | (v["fraction"] >= 1), "0 to below 1"),
            ("exchange", v["exchange"] < 0, "from 0 up"),
            ("exchange", (v["exchange"] > 0) & (v["fraction"] == 0), "0 where fraction is 0"),
        ):
            if wrong.any():
                k = int(np.argmax(wrong))
                raise InputError(f"{where}: {name} of tissue {k} is {v[name][k]:g}: expected {right}")
        f = v["fraction"]
        v["back"] = v["exchange"] * (1 - f) / np.where(f > 0, f, 1.0)
        return v


def spoiled_train(
    pools: TwoPools,
    flip_angles: ArrayLike,
    TR: ArrayLike,
    *,
    saturation: ArrayLike = 0.0,
    TE: ArrayLike = 0.0,
    increment: float = math.radians(117.0),
    phases: ArrayLike | None = None,
    B1: ArrayLike = 1.0,
) -> Complexes:
    """Signal of each pool in a train of gradient echoes with RF spoiling, from equilibrium.

    Parameters
    ----------
    pools : TwoPools
    flip_angles, TR, TE, increment, phases, B1
        As for `epg.spoiled_train`.
    saturation : float or array (pulse,)
        Only where b is bound: a pulse leaves exp(-saturation B1^2) of its magnetisation. For a pulse w1(t) (rad/s) and
        lineshape g (s) at its frequency it is pi g times the integral of w1^2.

    Returns
    -------
    complex array (tissue, pool, pulse)
        In units of the equilibrium magnetisation of both; what a scan sees is the sum over pools.

    Raises
    ------
    InputError
        As `epg.spoiled_train` and `TwoPools`; saturation of a liquid pool.
    """
    where = "epg_exchange.spoiled_train"
    flips = train_of(where, "flip_angles", flip_angles, "rad")
    n = flips.size
    phase = phases_of(where, phases, increment, n)
    interval = times_of(where, "TR", TR, n)
    wait = times_of(where, "TE", TE, n, interval)
    lost = _saturation(where, saturation, n, pools)
    v = pools.values(where, B1=B1)
    equilibrium = np.stack([1 - v["fraction"], v["fraction"]])
    return _run(pools, v, equilibrium, np.zeros_like(equilibrium), flips, phase, interval, wait, lost, echoes=False)


def spin_echo_train(
    pools: TwoPools,
    refocusing: ArrayLike,
    spacing: float,
    *,
    saturation: ArrayLike = 0.0,
    excitation: float = math.pi / 2,
    phases: ArrayLike = 0.0,
    B1: ArrayLike = 1.0,
) -> Complexes:
    """Signal of each pool in a train of spin echoes, from equilibrium, crushed around each refocusing pulse.

    Parameters
    ----------
    pools : TwoPools
    refocusing, spacing, excitation, phases, B1
        As for `epg.spin_echo_train`.
    saturation : float or array (echo,)
        As for `spoiled_train`, of the refocusing pulses.

    Returns
    -------
    complex array (tissue, pool, echo)

    Raises
    ------
    InputError
        As `spoiled_train`.
    """
    where = "epg_exchange.spin_echo_train"
    angles = train_of(where, "refocusing", refocusing, "rad")
    n = angles.size
    interval = times_of(where, "spacing", number_of(where, "spacing", spacing, "s"), n)
    phase = each_pulse(where, "phases", phases, n, "rad")
    lost = _saturation(where, saturation, n, pools)
    v = pools.values(where, B1=B1)
    equilibrium = np.stack([1 - v["fraction"], v["fraction"]])
    excited = equilibrium * np.sin(v["B1"] * number_of(where, "excitation", excitation, "rad"))
    if pools.T2_b is None:
        excited[1] = 0.0
    frame = phase - math.pi / 2  # the kernel's pulses lie along y of their frame
    signal = _run(pools, v, equilibrium, excited, angles, frame, interval, interval / 2, lost, echoes=True)
    signal *= np.exp(1j * frame)
    return signal


def _saturation(where: str, saturation: ArrayLike, n: int, pools: TwoPools) -> Floats:
    lost = each_pulse(where, "saturation", saturation, n, "1")
    if (lost < 0).any():
        k = int(np.argmax(lost < 0))
        raise InputError(f"{where}: saturation of pulse {k} is {lost[k]:g}: expected from 0 up")
    if pools.T2_b is not None and lost.any():
        raise InputError(f"{where}: saturation is given, but pool b is liquid: expected T2_b None, a bound pool")
    return lost


def _run(
    pools: TwoPools,
    v: dict[str, Floats],
    equilibrium: Floats,
    excited: Floats,
    flips: Floats,
    phase: Floats,
    interval: Floats,
    wait: Floats,
    lost: Floats,
    echoes: bool,
) -> Complexes:
    from ..kernels import compiled

    train = compiled(_KERNEL).train
    times, index = np.unique(np.concatenate([interval, wait]), return_inverse=True)
    index = index.reshape(-1).astype(np.int64)
    during, until = index[: flips.size], index[flips.size :]
    ahead = -np.diff(phase, prepend=0.0)
    signal = np.empty((v["B1"].size, 2, flips.size), complex)

    def work(first: int, last: int) -> None:
        own = {name: value[first:last] for name, value in v.items()}
        level = _longitudinal(own, times, equilibrium[:, first:last])
        transverse = _transverse(own, times, pools.T2_b is None)
        start = np.zeros((2, last - first), complex)
        if echoes:  # half a spacing, from the excitation to the first pulse
            t = transverse[until[0]] * np.exp(1j * ahead[0])
            a, b = excited[:, first:last]
            start[0], start[1] = t[0] * a + t[1] * b, t[2] * a + t[3] * b
        rest = np.ascontiguousarray(equilibrium[:, first:last])
        train(
            own["B1"], rest, start, level, transverse, during, until, flips, ahead, lost, pools.T2_b is None, echoes,
            0, last - first, signal[first:last],
        )  # fmt: skip

    threads.each_block(len(signal), work, _BLOCK)
    return signal


def _longitudinal(v: dict[str, Floats], times: Floats, equilibrium: Floats) -> Floats:
    """Matrix and recovery, (time, 6, tissue)."""
    k, back = v["exchange"], v["back"]
    x = _exponential(-1 / v["T1_a"] - k, back, k, -1 / v["T1_b"] - back, times)
    a, b = equilibrium  # where both pools rest, as exchange is balanced there
    recovery = [a - x[:, 0] * a - x[:, 1] * b, b - x[:, 2] * a - x[:, 3] * b]
    return np.ascontiguousarray(np.concatenate([x, np.stack(recovery, axis=1)], axis=1))


def _transverse(v: dict[str, Floats], times: Floats, bound: bool) -> Complexes:
    """Matrix, (time, 4, tissue)."""
    k, back = v["exchange"], v["back"]
    if bound:
        x = np.zeros((times.size, 4, k.size), complex)
        x[:, 0] = np.exp(-times[:, None] / v["T2_a"])
        return x
    shift = 2j * math.pi * v["shift"]
    return np.ascontiguousarray(_exponential(-1 / v["T2_a"] - k + 0j, back, k, shift - 1 / v["T2_b"] - back, times))


def _exponential(aa: NDArray, ab: NDArray, ba: NDArray, bb: NDArray, times: Floats) -> NDArray:
    """exp(t [[aa, ab], [ba, bb]]) by its eigenvalues, (time, 4, tissue)."""
    t = times[:, None]
    mean, half = (aa + bb) / 2, (aa - bb) / 2
    root = np.sqrt(half * half + ab * ba)  # of non-negative real part
    slow = np.exp((mean + root) * t)
    # (e^(slow t) - e^(fast t))/(slow - fast), without cancellation where both are alike
    same = np.abs(root) * t < 1e-300
    over = np.where(root == 0, 1.0, root)
    spread = np.where(same, t, -np.expm1(-2 * root * t) / (2 * over)) * slow
    level = slow * (1 + np.exp(-2 * root * t)) / 2
    return np.stack([level + spread * half, spread * ab, spread * ba, level - spread * half], axis=1)
