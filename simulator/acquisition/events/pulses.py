"""Radio-frequency pulses: shapes as functions of time, scaled to a flip angle, as events of a timeline.

Each builder gives a `timeline.RF`: samples of one dwell each, taken in their middle. Its `center` is the point from
which an echo time counts:

- symmetric pulses (hard, sinc, Gaussian, Fermi, hyperbolic secant, composite, BIR-4): their middle,
- a half sinc and a half passage: their end, where the magnetisation is left in the transverse plane,
- a sampled pulse: where its maker says, else its middle.

A flip angle (rad) is that on resonance without relaxation, 2 pi times the integral of the waveform: exact for a
waveform of constant phase. Adiabatic pulses (see `adiabatic`) have a peak (Hz) instead. The phase pi/2, default here,
brings Mz to +Mx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ....errors import InputError
from ..protocol import Protocol
from ..settings import is_number
from . import adiabatic
from .timeline import RF

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

ALONG_X = math.pi / 2
"""Phase of a pulse that brings Mz to +Mx."""

SIXTY_DECIBEL = 13.81
"""Half widths of a Fermi pulse's shoulder, two of them, over which it falls from full to -60 dB: 2 ln(999)."""


# -- shapes that keep their phase


def hard(flip_angle: float, duration: float, *, phase: float = ALONG_X, dwell: float | None = None) -> RF:
    """Rectangular pulse of this flip angle (rad) and duration (s)."""
    x, step = adiabatic.raster(duration, dwell)
    return _scaled(np.ones(x.size), flip_angle, step, phase)


def sinc(
    flip_angle: float,
    duration: float,
    *,
    time_bandwidth: float = 4.0,
    apodisation: float = 0.46,
    phase: float = ALONG_X,
    dwell: float | None = None,
) -> RF:
    """Sinc pulse of `time_bandwidth` zero crossings, both sides counted.

    `apodisation` a multiplies it by 1 - a + a cos(2 pi t/duration): 0 none, 0.46 Hamming, 0.5 Hann.
    """
    x, step = adiabatic.raster(duration, dwell)
    return _scaled(_sinc(x - 0.5, time_bandwidth, apodisation), flip_angle, step, phase)


def half_sinc(
    flip_angle: float,
    duration: float,
    *,
    time_bandwidth: float = 4.0,
    apodisation: float = 0.46,
    phase: float = ALONG_X,
    dwell: float | None = None,
) -> RF:
    """First half of a sinc pulse of twice the duration; `time_bandwidth` is that of the whole sinc.

    Two signals excited with opposite slice gradients add to the slice of the whole pulse (Pauly, US patent 5 025 216;
    Bergin et al., Radiology 179:777 (1991), doi:10.1148/radiology.179.3.2027991). An echo time counts from its end.
    """
    x, step = adiabatic.raster(duration, dwell)
    return _scaled(_sinc((x - 1) / 2, time_bandwidth, apodisation), flip_angle, step, phase, center=duration)


def gaussian(
    flip_angle: float,
    duration: float,
    *,
    time_bandwidth: float = 2.0,
    phase: float = ALONG_X,
    dwell: float | None = None,
) -> RF:
    """Gaussian pulse; its bandwidth is `time_bandwidth`/duration, full width at half maximum."""
    x, step = adiabatic.raster(duration, dwell)
    width = math.sqrt(2 * math.log(2)) / (math.pi * time_bandwidth)  # SD over the duration
    return _scaled(np.exp(-((x - 0.5) ** 2) / (2 * width**2)), flip_angle, step, phase)


def fermi(
    flip_angle: float, duration: float, *, plateau: float = 10.0, phase: float = ALONG_X, dwell: float | None = None
) -> RF:
    """Fermi pulse 1/(1 + exp((|t| - t0)/a)) with t0 = `plateau` a, cut where it has fallen to -60 dB.

    Source: Bernstein, King and Zhou, Handbook of MRI Pulse Sequences (2004), section 4.2,
    doi:10.1016/B978-0-12-092861-3.X5000-6.
    """
    x, step = adiabatic.raster(duration, dwell)
    shoulder = 1 / (2 * plateau + SIXTY_DECIBEL)  # a over the duration
    return _scaled(1 / (1 + np.exp(np.abs(x - 0.5) / shoulder - plateau)), flip_angle, step, phase)


def composite(
    flip_angles: ArrayLike, phases: ArrayLike, duration: float, *, phase: float = ALONG_X, dwell: float | None = None
) -> RF:
    """Hard pulses of one amplitude that follow each other, with their flip angles and phases (rad).

    ``composite([pi/2, pi, pi/2], [0, pi/2, 0], 300e-6)`` inverts at a wrong B1 too (Levitt and Freeman, J Magn Reson
    33:473 (1979), doi:10.1016/0022-2364(79)90265-8).
    """
    angles, turns = np.atleast_1d(np.asarray(flip_angles, float)), np.atleast_1d(np.asarray(phases, float))
    if angles.shape != turns.shape or not (angles > 0).all():
        raise InputError(
            f"composite pulse: flip_angles {angles.tolist()}, phases {turns.tolist()}: expected a phase for each flip "
            "angle, and these above 0"
        )
    x, step = adiabatic.raster(duration, dwell)
    edges = np.cumsum(angles) / angles.sum()
    part = np.searchsorted(edges[:-1], x, side="right")
    counts = np.bincount(part, minlength=angles.size)
    if (counts == 0).any():
        raise InputError(f"composite pulse: dwell is {step:g} s: expected less, to have a sample in each part")
    # each part keeps its flip angle though its edges lie on the raster
    amplitude = (angles / counts)[part] / (2 * math.pi * step)
    wave = amplitude * np.exp(1j * turns[part])
    return RF(wave.astype(np.complex128), step, phase=phase)


def sampled(
    waveform: ArrayLike,
    dwell: float,
    *,
    flip_angle: float | None = None,
    peak: float | None = None,
    center: float | None = None,
    phase: float = ALONG_X,
) -> RF:
    """Any waveform, (sample,), real or complex: in Hz as it stands, or scaled to a flip angle (rad) or a peak (Hz)."""
    shape = np.atleast_1d(np.asarray(waveform, dtype=complex))
    if shape.size == 0 or not np.isfinite(shape).all():
        raise InputError(f"sampled pulse: {shape.size} samples, finite {np.isfinite(shape).all()}: expected numbers")
    if flip_angle is not None and peak is not None:
        raise InputError("sampled pulse: flip_angle and peak: expected one of the two")
    if flip_angle is not None:
        return _scaled(shape, flip_angle, dwell, phase, center)
    if peak is not None:
        largest = np.abs(shape).max()
        if not largest > 0:
            raise InputError("sampled pulse: all samples are 0: expected a shape to scale")
        shape = shape * (peak / largest)
    return RF(shape, dwell, phase=phase, center=center)


def _sinc(x: Floats, time_bandwidth: float, apodisation: float) -> Floats:
    shape: Floats = np.sinc(time_bandwidth * x) * (1 - apodisation + apodisation * np.cos(2 * math.pi * x))
    return shape


def _scaled(shape: NDArray[Any], flip_angle: float, dwell: float, phase: float, center: float | None = None) -> RF:
    area = abs(shape.sum()) * dwell
    if not area > 1e-9 * np.abs(shape).sum() * dwell:
        raise InputError("pulse: its samples add up to 0: expected a shape with an area, to scale it to a flip angle")
    return RF(shape * (flip_angle / (2 * math.pi * area)), dwell, phase=phase, center=center)


# -- what a pulse does, without relaxation or in the limit of small angles


def rms(pulse: RF) -> float:
    """Root of the mean square nutation frequency during the pulse (Hz)."""
    return float(np.sqrt(np.mean(np.abs(pulse.waveform) ** 2)))


def power(pulse: RF) -> float:
    """Integral of w1^2 over the pulse (rad^2/s), w1 = 2 pi times the nutation frequency."""
    return float((2 * math.pi) ** 2 * np.sum(np.abs(pulse.waveform) ** 2) * pulse.dwell)


def saturation_rate(pulse: RF, lineshape: ArrayLike, period: float | None = None) -> Floats:
    """Rate W = pi <w1^2> g (1/s) at which the pulse saturates a pool of absorption lineshape g at its offset (s).

    Mean over the pulse, or over a `period` (s) in which it is played once.
    Source: Henkelman et al., Magn Reson Med 29:759 (1993), doi:10.1002/mrm.1910290607.
    """
    rate: Floats = math.pi * power(pulse) / (pulse.duration if period is None else period) * np.asarray(lineshape)
    return rate


def profile(pulse: RF, offset: ArrayLike) -> Complexes:
    """Mx + i My per M0 of spins at each offset (Hz) in the limit of small flip angles, at the pulse's `center`.

    That is -i 2 pi times the Fourier transform of the waveform, exact for its constant samples; the phase that a spin
    gains between the center and the end of the pulse is taken away.
    """
    f = np.asarray(offset, dtype=float)[..., None]
    middle = (np.arange(pulse.waveform.size) + 0.5) * pulse.dwell
    center = pulse.reference - pulse.delay
    wave = pulse.waveform * np.exp(1j * (pulse.phase + 2 * math.pi * pulse.frequency * middle))
    seen = np.sinc((f[..., 0] - pulse.frequency) * pulse.dwell)  # a constant sample, as its carrier sees it
    total: Complexes = np.exp(2j * math.pi * f * (center - middle)) @ wave
    return -2j * math.pi * pulse.dwell * seen * total


def bandwidth(pulse: RF) -> float:
    """Full width at half maximum (Hz) of |`profile`| about the carrier."""
    n = pulse.waveform.size
    # 32 points a resolution element of the pulse, interpolated linearly: the width to some 1e-4
    frequency = np.fft.fftfreq(32 * n, pulse.dwell)
    height = np.abs(np.fft.fft(pulse.waveform, 32 * n)) * np.sinc(frequency * pulse.dwell)
    step = frequency[1]

    def half(height: Floats) -> float:
        below = np.flatnonzero(height < height[0] / 2)
        if below.size == 0:  # a waveform of one sample has the width of its dwell: its sinc goes on beyond
            return 0.6034 / pulse.dwell
        k = int(below[0])
        return float(step * (k - 1 + (height[k - 1] - height[0] / 2) / (height[k - 1] - height[k])))

    return half(height[: 16 * n]) + half(np.roll(height[::-1], 1)[: 16 * n])


# -- pulses as a protocol states them


@dataclass(frozen=True)
class Shape:
    """A shape that a protocol may state: its builder, and the settings (with their range) that it knows."""

    build: Callable[..., RF]
    known: Mapping[str, tuple[float, float]]
    angle: bool = True


_TIME = (1e-7, 0.5)
_COMMON = {"duration": _TIME, "dwell": (1e-8, 1e-3)}
_SLICE = {"time_bandwidth": (0.1, 100.0), "apodisation": (0.0, 1.0)}
_PEAK = {"peak": (1e-3, 1e6)}
_PASSAGE = {**_PEAK, "sweep": (1.0, 1e6), "zeta": (0.1, 100.0), "tan_kappa": (0.1, 1e3)}
_ANY = (-1e9, 1e9)

SHAPES: Mapping[str, Shape] = {
    "hard": Shape(hard, _COMMON),
    "sinc": Shape(sinc, {**_COMMON, **_SLICE}),
    "half_sinc": Shape(half_sinc, {**_COMMON, **_SLICE}),
    "gaussian": Shape(gaussian, {**_COMMON, "time_bandwidth": (0.1, 100.0)}),
    "fermi": Shape(fermi, {**_COMMON, "plateau": (0.5, 1e3)}),
    "hyperbolic_secant": Shape(
        adiabatic.hyperbolic_secant, {**_COMMON, **_PEAK, "mu": (0.1, 100.0), "beta": (1.0, 1e6)}, angle=False
    ),
    "half_passage": Shape(adiabatic.half_passage, {**_COMMON, **_PASSAGE}, angle=False),
    "bir4": Shape(adiabatic.bir4, {**_COMMON, **_PASSAGE}),
    "composite": Shape(composite, {**_COMMON, "flip_angles": (0.0, 100.0), "phases": _ANY}, angle=False),
    "sampled": Shape(
        lambda flip_angle, real, dwell, imaginary=0.0, center=None, phase=ALONG_X: sampled(
            np.asarray(real) + 1j * np.asarray(imaginary), dwell, flip_angle=flip_angle, center=center, phase=phase
        ),
        {"dwell": (1e-8, 1e-3), "real": _ANY, "imaginary": _ANY, "center": (0.0, 0.5)},
    ),
}


def stated(name: str, protocol: Protocol, default: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a pulse: what `protocol.pulses[name]` says, over the default where that is of the same shape.

    Raises
    ------
    InputError
        An unknown shape or setting, or a value beyond its range; the message lists the known ones.
    """
    given = dict(protocol.pulses.get(name, {}))
    where = f"protocol {protocol.name}: pulses.{name}"
    kind = given.get("shape", default["shape"])
    if kind not in SHAPES:
        raise InputError(f"{where}.shape is {kind!r}: expected one of {', '.join(SHAPES)}")
    known = SHAPES[kind].known
    for key, value in given.items():
        if key == "shape":
            continue
        if key not in known:
            raise InputError(f"{where}.{key} is {value!r}: not a setting of a {kind} pulse; known: {', '.join(known)}")
        low, high = known[key]
        for number in value if isinstance(value, tuple) else (value,):
            if not is_number(number) or not low <= number <= high:
                hint = " (given in ms?)" if key in ("duration", "dwell") else ""
                raise InputError(f"{where}.{key} is {number!r}: expected {low:g} to {high:g}{hint}")
    inherited = dict(default) if kind == default["shape"] else {}
    # a pulse of another shape still lasts as long as the one it stands for
    if "duration" in known and "duration" in default:
        inherited.setdefault("duration", default["duration"])
    return {**inherited, **given, "shape": kind}


def pulse(
    name: str, protocol: Protocol, default: Mapping[str, Any], flip_angle: float, phase: float = ALONG_X, **changes: Any
) -> RF:
    """The pulse of that name that the protocol states, else the default.

    Parameters
    ----------
    name : str
        A key of ``protocol.pulses``: ``excitation``, ``inversion``, ...
    protocol : Protocol
    default : mapping
        ``{"shape": "hard", "duration": 60e-6}``: the sequence's own.
    flip_angle : float
        rad; adiabatic and composite pulses keep their own.
    phase : float
        rad.
    **changes
        Further attributes of the event: ``delay``, ``frequency``, ``use``.

    Raises
    ------
    InputError
        As `stated`, and for a setting that is missing.
    """
    settings = stated(name, protocol, default)
    shape = SHAPES[settings.pop("shape")]
    try:
        made = shape.build(*((flip_angle,) if shape.angle else ()), **settings, phase=phase)
    except TypeError as error:
        text = str(error).replace(f"{shape.build.__name__}()", "it")
        raise InputError(f"protocol {protocol.name}: pulses.{name}: {text}") from None
    except InputError as error:
        raise InputError(f"protocol {protocol.name}: pulses.{name}: {error}") from None
    return replace(made, **changes)
