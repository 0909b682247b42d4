"""Extended phase graph: trains of pulses between gradients that dephase every voxel by whole turns.

The magnetisation of a voxel is a Fourier series over the phase that the gradients of one interval wind up: transverse
orders F and longitudinal orders Z. Pulses mix F of order k, F of order -k and Z of order k; gradients raise the order
of F by one. So a train of n pulses is known exactly from n orders. Pulses are instantaneous. Several tissues run side
by side, one entry each.

``spoiled_train`` (gradient echoes), ``spin_echo_train`` (multiple spin echoes), ``prepared`` (inversion, saturation),
``configurations`` (the states themselves); two exchanging pools: ``engines.epg_exchange``.

References
----------
Hennig, J Magn Reson 78:397 (1988), doi:10.1016/0022-2364(88)90128-X; Weigel, J Magn Reson Imaging 41:266 (2015),
doi:10.1002/jmri.24619, whose equation for diffusion is used.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import threads
from .epg_arguments import each_pulse, number_of, phases_of, times_of, tissues_of, train_of

_KERNEL = Path(__file__).with_name("epg_train.py")
_BLOCK = 256  # tissues of a block: a multiple of the lanes, so that a tissue's neighbours never change

Complexes = NDArray[np.complex128]
Floats = NDArray[np.float64]


def spoiled_train(
    T1: ArrayLike,
    T2: ArrayLike,
    flip_angles: ArrayLike,
    TR: ArrayLike,
    *,
    TE: ArrayLike = 0.0,
    increment: float = math.radians(117.0),
    phases: ArrayLike | None = None,
    B1: ArrayLike = 1.0,
    initial: ArrayLike = 1.0,
    D: ArrayLike = 0.0,
    dephasing: float = 0.0,
) -> Complexes:
    """Signal of a train of gradient echoes, each followed by the same spoiler, with RF spoiling.

    Parameters
    ----------
    T1, T2 : float or array (tissue,)
        s, above 0; infinite for none.
    flip_angles : array (pulse,)
        rad.
    TR : float or array (pulse,)
        From each pulse to the next (s).
    TE : float or array (pulse,)
        From each pulse to its echo (s), at most TR. The spoiler comes after it.
    increment : float
        Of RF spoiling (rad): pulse n and its receiver are turned by increment n (n + 1)/2.
    phases : array (pulse,), optional
        The phases themselves (rad), instead of the quadratic ones.
    B1 : float or array (tissue,)
        Actual over nominal flip angle.
    initial : float or array (tissue,)
        Longitudinal magnetisation before the first pulse, as from `prepared`; 1 is equilibrium.
    D : float or array (tissue,)
        Diffusivity (mm2/s).
    dephasing : float
        Phase across space that the gradient of one TR leaves behind (rad/m), constant over the TR. Only diffusion asks.

    Returns
    -------
    complex array (tissue, pulse)
        Transverse magnetisation at each echo, in units of equilibrium. The phase of a pulse in equilibrium is 0: pulses
        lie along pi/2 plus their phase, and the receiver follows that phase, as in a `timeline.Repeat`.

    Raises
    ------
    InputError
        Lengths that differ, times that are negative or not finite, T1 or T2 not above 0.
    """
    where = "epg.spoiled_train"
    flips = train_of(where, "flip_angles", flip_angles, "rad")
    n = flips.size
    phase = phases_of(where, phases, increment, n)
    interval = times_of(where, "TR", TR, n)
    wait = times_of(where, "TE", TE, n, interval)
    tissue = tissues_of(where, T1=T1, T2=T2, B1=B1, initial=initial, D=D)
    spread = tissue["D"] * (1e-6 * number_of(where, "dephasing", dephasing, "rad/m") ** 2)
    return _run(tissue, tissue["initial"], spread, flips, phase, interval, wait, echoes=False)


def spin_echo_train(
    T1: ArrayLike,
    T2: ArrayLike,
    refocusing: ArrayLike,
    spacing: float,
    *,
    excitation: float = math.pi / 2,
    phases: ArrayLike = 0.0,
    B1: ArrayLike = 1.0,
    initial: ArrayLike = 1.0,
    D: ArrayLike = 0.0,
    dephasing: float = 0.0,
) -> Complexes:
    """Signal of a train of spin echoes (CPMG, turbo spin echo) with any refocusing angles, crushed around each pulse.

    Parameters
    ----------
    T1, T2 : float or array (tissue,)
        s, above 0; infinite for none.
    refocusing : array (echo,)
        Refocusing angles (rad).
    spacing : float
        From echo to echo (s); the first refocusing pulse comes spacing/2 after the excitation.
    excitation : float
        Excitation angle (rad); the pulse turns the magnetisation towards +Mx.
    phases : float or array (echo,)
        Phases of the refocusing pulses (rad): 0 lies along the excited magnetisation (Carr-Purcell-Meiboom-Gill), pi/2
        at a right angle to it (Carr-Purcell).
    B1, initial, D : float or array (tissue,)
        As for `spoiled_train`; B1 scales the excitation too.
    dephasing : float
        Phase across space that the gradients of one spacing wind up (rad/m), constant over the spacing. Only diffusion
        asks.

    Returns
    -------
    complex array (tissue, echo)
        Transverse magnetisation Mx + i My at each echo, in units of equilibrium.

    Raises
    ------
    InputError
        As `spoiled_train`.
    """
    where = "epg.spin_echo_train"
    angles = train_of(where, "refocusing", refocusing, "rad")
    n = angles.size
    interval = times_of(where, "spacing", number_of(where, "spacing", spacing, "s"), n)
    phase = each_pulse(where, "phases", phases, n, "rad")
    tissue = tissues_of(where, T1=T1, T2=T2, B1=B1, initial=initial, D=D)
    spread = tissue["D"] * (1e-6 * number_of(where, "dephasing", dephasing, "rad/m") ** 2)
    excited = tissue["initial"] * np.sin(tissue["B1"] * number_of(where, "excitation", excitation, "rad"))
    # half a spacing to the first pulse, in which order 0 becomes 1/2
    start = excited * np.exp(-spacing / 2 / tissue["T2"] - spread * spacing / 24)
    # the kernel's pulses lie along y of their frame
    frame = phase - math.pi / 2
    signal = _run(tissue, start, spread, angles, frame, interval, interval / 2, echoes=True)
    signal *= np.exp(1j * frame)
    return signal


def prepared(
    T1: ArrayLike, flip_angle: ArrayLike, delay: ArrayLike, *, B1: ArrayLike = 1.0, initial: ArrayLike = 1.0
) -> Floats:
    """Longitudinal magnetisation after a preparation pulse, a spoiler and a delay: the `initial` of a train.

    Parameters
    ----------
    T1 : float or array (tissue,)
        s.
    flip_angle : float
        Of the preparation (rad): pi inverts, pi/2 saturates.
    delay : float
        From the preparation to the train's first pulse (s).
    B1, initial : float or array (tissue,)
        Actual over nominal flip angle (1 for an adiabatic pulse); magnetisation before the preparation.

    Returns
    -------
    array (tissue,)
        In units of equilibrium.

    Raises
    ------
    InputError
        As `spoiled_train`.
    """
    where = "epg.prepared"
    tissue = tissues_of(where, T1=T1, T2=np.inf, B1=B1, initial=initial)
    delay = float(times_of(where, "delay", delay, 1)[0])
    after = tissue["initial"] * np.cos(tissue["B1"] * number_of(where, "flip_angle", flip_angle, "rad"))
    recovered: Floats = after * np.exp(-delay / tissue["T1"]) - np.expm1(-delay / tissue["T1"])
    return recovered


def configurations(
    T1: ArrayLike,
    T2: ArrayLike,
    flip_angles: ArrayLike,
    TR: ArrayLike,
    *,
    increment: float = math.radians(117.0),
    phases: ArrayLike | None = None,
    B1: ArrayLike = 1.0,
    initial: ArrayLike = 1.0,
    D: ArrayLike = 0.0,
    dephasing: float = 0.0,
) -> tuple[Complexes, Complexes]:
    """The states of a train of gradient echoes right after its last pulse; parameters as for `spoiled_train`.

    Returns
    -------
    F : complex array (tissue, 2 pulse - 1)
        Transverse orders -(pulse - 1) to pulse - 1, in the frame of the last pulse: the train's signal is order 0.
    Z : complex array (tissue, pulse)
        Longitudinal orders 0 to pulse - 1; order -k is the conjugate of order k.

    Raises
    ------
    InputError
        As `spoiled_train`.
    """
    where = "epg.configurations"
    flips = train_of(where, "flip_angles", flip_angles, "rad")
    n = flips.size
    phase = phases_of(where, phases, increment, n)
    tissue = tissues_of(where, T1=T1, T2=T2, B1=B1, initial=initial, D=D)
    spread = tissue["D"] * (1e-6 * number_of(where, "dephasing", dephasing, "rad/m") ** 2)
    count = tissue["T1"].size
    states = np.empty((count, 2 * n - 1), complex), np.empty((count, n), complex)
    _run(tissue, tissue["initial"], spread, flips, phase, times_of(where, "TR", TR, n), np.zeros(n), False, states)
    return states


def _run(
    tissue: dict[str, Floats],
    start: Floats,
    spread: Floats,
    flips: Floats,
    phase: Floats,
    interval: Floats,
    wait: Floats,
    echoes: bool,
    states: tuple[Complexes, Complexes] | None = None,
) -> Complexes:
    """The signal (tissue, pulse), each in the frame of its pulse; `states` are written where given."""
    from ..kernels import compiled

    train = compiled(_KERNEL).train
    ahead = -np.diff(phase, prepend=0.0)
    count = tissue["T1"].size
    signal = np.empty((count, flips.size), complex)
    transverse, level = (np.empty((0, 0), complex),) * 2 if states is None else states
    values = [np.ascontiguousarray(v) for v in (tissue["T1"], tissue["T2"], tissue["B1"], start, spread)]

    def work(first: int, last: int) -> None:
        train(*values, flips, ahead, interval, wait, echoes, states is not None, first, last, signal, transverse, level)

    threads.each_block(count, work, _BLOCK)
    return signal
