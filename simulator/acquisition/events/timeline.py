"""What a sequence plays, event by event: RF, gradients, ADC, spoilers, in blocks that may be repeated.

A `Timeline` is what every engine runs, whoever wrote it: a sequence of `simulator.sequences`, a Pulseq file, or a user.

Conventions, the same in all engines: a positive frequency turns the transverse magnetisation Mx + i My by
exp(+i 2 pi f t); RF of phase p lies along (cos p, sin p) and turns the magnetisation right-handedly about it, so that
a pulse of phase pi/2 brings Mz to +Mx; the receiver of phase p multiplies Mx + i My by exp(-i p). Sample i of an ADC
is taken at (i + 1/2) dwell. RF is its nutation frequency (Hz), gradients are in T/m, times in s.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ....errors import InputError
from ...constants import GYROMAGNETIC

AXES = "xyz"
USES = ("excitation", "refocusing", "inversion", "saturation", "preparation", "storage", "recall", "other")
CLOCK = 1e-9
"""Times closer than this (s) are the same: rounding of sums of raster times, far below any raster."""

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class RF:
    """A radio-frequency pulse, constant during each of its samples.

    Attributes
    ----------
    waveform : complex ndarray (sample,)
        Nutation frequency gamma B1/(2 pi) (Hz) and phase of each sample, relative to `phase` and `frequency`.
    dwell : float
        Length of a sample (s).
    delay : float
        From the start of the block to the first sample (s).
    phase : float
        Phase at the first sample's start (rad).
    frequency : float
        Offset of the carrier (Hz): the phase runs on by 2 pi frequency t from the first sample's start.
    center : float, optional
        The point of the pulse (s from its first sample's start) from which an echo time counts; its middle without.
    use : str
        What it is for: excitation, refocusing, inversion, saturation, preparation; storage and recall (the second and
        third pulse of a stimulated echo).
    """

    waveform: Complexes
    dwell: float
    delay: float = 0.0
    phase: float = 0.0
    frequency: float = 0.0
    center: float | None = None
    use: str = "excitation"

    def __post_init__(self) -> None:
        object.__setattr__(self, "waveform", np.atleast_1d(np.asarray(self.waveform, dtype=np.complex128)))

    @property
    def duration(self) -> float:
        """Length of the pulse (s), without its delay."""
        return self.waveform.size * self.dwell

    @property
    def end(self) -> float:
        """End, from the start of the block (s)."""
        return self.delay + self.duration

    @property
    def reference(self) -> float:
        """The point from which an echo time counts, from the start of the block (s)."""
        return self.delay + (0.5 * self.duration if self.center is None else self.center)

    @property
    def flip_angle(self) -> float:
        """Flip angle (rad) on resonance without relaxation, of a waveform whose phase does not change."""
        return float(2 * math.pi * abs(self.waveform.sum()) * self.dwell)


@dataclass(frozen=True, eq=False)
class Gradient:
    """A gradient along one axis, linear between its knots and 0 before the first and after the last.

    Attributes
    ----------
    axis : {"x", "y", "z"}
    times : ndarray (knot,)
        From the start of the block (s), increasing.
    values : ndarray (knot,)
        T/m.
    """

    axis: str
    times: Floats
    values: Floats

    def __post_init__(self) -> None:
        for name in ("times", "values"):
            object.__setattr__(self, name, np.atleast_1d(np.asarray(getattr(self, name), dtype=float)))

    @property
    def start(self) -> float:
        """First knot (s)."""
        return float(self.times[0])

    @property
    def end(self) -> float:
        """Last knot (s)."""
        return float(self.times[-1])

    @property
    def area(self) -> float:
        """Its integral (T s/m)."""
        return float(self.integral(self.times[-1:])[0])

    def integral(self, times: Floats) -> Floats:
        """Integral from the start of the block to each of these times (T s/m)."""
        knots, values = self.times, self.values
        done = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (values[1:] + values[:-1]) / 2)])
        t = np.clip(times, knots[0], knots[-1])
        k = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, max(knots.size - 2, 0))
        total: Floats = done[k] + (t - knots[k]) * (values[k] + np.interp(t, knots, values)) / 2
        return total


@dataclass(frozen=True, eq=False)
class ADC:
    """Samples of the signal: sample i at delay + (i + 1/2) dwell from the start of the block."""

    samples: int
    dwell: float
    delay: float = 0.0
    phase: float = 0.0
    frequency: float = 0.0

    @property
    def end(self) -> float:
        """End, from the start of the block (s)."""
        return self.delay + self.samples * self.dwell

    @property
    def times(self) -> Floats:
        """Time of each sample, from the start of the block (s)."""
        times: Floats = self.delay + (np.arange(self.samples, dtype=np.float64) + 0.5) * self.dwell
        return times


@dataclass(frozen=True)
class Spoiler:
    """Ideal spoiling: at this time in the block (default its end) all transverse magnetisation is gone."""

    delay: float | None = None


Event = RF | Gradient | ADC | Spoiler


def trapezoid(axis: str, area: float, duration: float, ramp: float, delay: float = 0.0) -> Gradient:
    """A gradient of this area (T s/m) with equal ramps (s); `duration` (s) includes both ramps.

    Raises
    ------
    InputError
        The ramps do not fit into the duration.
    """
    if not (ramp > 0 and duration + CLOCK >= 2 * ramp):
        raise InputError(f"gradient {axis}: ramp is {ramp:g} s: expected above 0 and at most half of {duration:g} s")
    flat = duration - 2 * ramp if duration - 2 * ramp > CLOCK else 0.0
    top = area / (flat + ramp)
    knots = [0.0, ramp, ramp + flat, 2 * ramp + flat] if flat else [0.0, ramp, 2 * ramp]
    values = [0.0, top, top, 0.0] if flat else [0.0, top, 0.0]
    return Gradient(axis, delay + np.array(knots), np.array(values))


@dataclass(frozen=True, eq=False)
class Block:
    """Events that start together, as Pulseq has them; it lasts until the last one ends, or for the stated duration.

    ``Block(rf, gradient, adc, duration=.01, label="excitation")``; without events it is a delay.
    """

    events: tuple[Event, ...]
    duration: float
    label: str = ""

    def __init__(self, *events: Event, duration: float | None = None, label: str = "") -> None:
        ends = [e.end for e in events if not isinstance(e, Spoiler)]
        ends += [e.delay for e in events if isinstance(e, Spoiler) and e.delay is not None]
        object.__setattr__(self, "events", events)
        object.__setattr__(self, "duration", float(max(ends, default=0.0) if duration is None else duration))
        object.__setattr__(self, "label", label)

    @property
    def rf(self) -> tuple[RF, ...]:
        """Its pulses, in time."""
        return tuple(sorted((e for e in self.events if isinstance(e, RF)), key=lambda e: e.delay))

    @property
    def gradients(self) -> tuple[Gradient, ...]:
        """Its gradients."""
        return tuple(e for e in self.events if isinstance(e, Gradient))

    @property
    def adcs(self) -> tuple[ADC, ...]:
        """Its acquisitions, in time."""
        return tuple(sorted((e for e in self.events if isinstance(e, ADC)), key=lambda e: e.delay))

    @property
    def spoilers(self) -> tuple[float, ...]:
        """When it spoils ideally (s)."""
        times = (e.delay for e in self.events if isinstance(e, Spoiler))
        return tuple(sorted(self.duration if t is None else t for t in times))

    @property
    def samples(self) -> int:
        """Number of samples it acquires."""
        return sum(a.samples for a in self.adcs)


@dataclass(frozen=True, eq=False)
class Repeat:
    """Blocks played `count` times; RF and receiver turn by `phases[n]` in repetition n (rad).

    As every block is the same but for that phase, an engine may compute it once as an affine map.
    """

    body: tuple[Block | Repeat, ...]
    count: int
    phases: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", tuple(self.body))
        if self.count != int(self.count) or self.count < 1:
            raise InputError(f"repeat: count is {self.count!r}: expected a whole number from 1 up")
        if self.phases is not None and len(self.phases) != self.count:
            raise InputError(f"repeat: {len(self.phases)} phases for {self.count} repetitions: expected one for each")

    def phase(self, n: int) -> float:
        """Phase of repetition n (rad)."""
        return 0.0 if self.phases is None else self.phases[n]


def rf_spoiling(count: int, increment: float = math.radians(117.0), start: int = 0) -> tuple[float, ...]:
    """Phases of RF spoiling, increment n (n + 1)/2 (rad, within a turn), for repetitions start to start + count.

    Source: Zur et al., Magn Reson Med 21:251 (1991), doi:10.1002/mrm.1910210210.
    """
    n = np.arange(start, start + count, dtype=float)
    return tuple(np.mod(increment * (n * (n + 1) / 2), 2 * math.pi).tolist())


@dataclass(frozen=True)
class Hardware:
    """Limits of the scanner; None where none is stated."""

    gradient: float | None = None
    """Largest gradient of an axis (T/m)."""
    slew: float | None = None
    """Fastest change of a gradient (T/m/s)."""
    rf: float | None = None
    """Largest nutation frequency (Hz)."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Blocks and repeats in the order in which they are played.

    Attributes
    ----------
    blocks : tuple of Block or Repeat
    name : str
    nucleus : str
        A key of `constants.GYROMAGNETIC`.
    hardware : Hardware
        A timeline beyond these limits warns, as a scanner would refuse it.

    Raises
    ------
    InputError
        Events that overlap, an ADC during RF, a time that is negative or beyond the block, a value that is not finite;
        the message names block and time.
    """

    blocks: tuple[Block | Repeat, ...]
    name: str = "timeline"
    nucleus: str = "1H"
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if self.nucleus not in GYROMAGNETIC:
            raise InputError(f"timeline {self.name}: nucleus is {self.nucleus!r}: expected {' or '.join(GYROMAGNETIC)}")
        for part in self.blocks:
            if not isinstance(part, Block | Repeat):
                raise InputError(f"timeline {self.name}: it holds {type(part).__name__}: expected blocks and repeats")
        seen: set[int] = set()
        for index, (block, start) in enumerate(_first_played(self.blocks)):
            if id(block) not in seen:
                _check(block, f"timeline {self.name}: block {index} {_named(block)}at {start:g} s", self.hardware)
                seen.add(id(block))

    @property
    def gamma(self) -> float:
        """Gyromagnetic ratio over 2 pi (Hz/T)."""
        return GYROMAGNETIC[self.nucleus]

    @property
    def duration(self) -> float:
        """Length (s)."""
        return _duration(self.blocks)

    @property
    def samples(self) -> int:
        """Number of samples acquired."""
        return _samples(self.blocks)

    def played(self) -> Iterator[tuple[Block, float, float]]:
        """Every block as it is played, repeats unrolled: (block, start (s), phase of RF and receiver (rad))."""
        yield from _played(self.blocks, 0.0, 0.0)

    def sample_times(self) -> Floats:
        """Time of each sample (s)."""
        times = [start + a.times for block, start, _ in self.played() for a in block.adcs]
        return np.concatenate(times) if times else np.empty(0)

    def replace(self, **changes: object) -> Timeline:
        """A copy with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _played(blocks: Sequence[Block | Repeat], start: float, phase: float) -> Iterator[tuple[Block, float, float]]:
    for part in blocks:
        if isinstance(part, Block):
            yield part, start, phase
            start += part.duration
        else:
            length = _duration(part.body)
            for n in range(part.count):
                yield from _played(part.body, start, phase + part.phase(n))
                start += length


def _first_played(blocks: Sequence[Block | Repeat], start: float = 0.0) -> Iterator[tuple[Block, float]]:
    """Every block once, where it is played first."""
    for part in blocks:
        if isinstance(part, Block):
            yield part, start
            start += part.duration
        else:
            yield from _first_played(part.body, start)
            start += part.count * _duration(part.body)


def _duration(blocks: Sequence[Block | Repeat]) -> float:
    return sum(b.duration if isinstance(b, Block) else b.count * _duration(b.body) for b in blocks)


def _samples(blocks: Sequence[Block | Repeat]) -> int:
    return sum(b.samples if isinstance(b, Block) else b.count * _samples(b.body) for b in blocks)


# -- a block as the engines take it: steps during which everything is constant


@dataclass(frozen=True, eq=False)
class Steps:
    """A block cut into steps of constant RF; exact but for gradients that change during RF, which are averaged.

    Attributes
    ----------
    duration : ndarray (step,)
        s; may be 0.
    rf : complex ndarray (step,)
        Nutation frequency (Hz) and phase, in the frame of the pulse's carrier; 0 in free precession.
    gradient : ndarray (step, 3)
        Mean over the step (T/m).
    carrier : ndarray (step,)
        Frequency of the pulse's carrier (Hz): during the step a spin's offset counts from it.
    turn : ndarray (step,)
        Angle (rad) by which the magnetisation turns about z after the step: back from the carrier's frame.
    sample : ndarray (step,)
        Number (within the block) of the sample taken after the step, -1 for none.
    receiver : ndarray (sample,)
        Receiver phase of each sample (rad).
    spoil : bool ndarray (step,)
        Whether all transverse magnetisation is gone after the step.
    """

    duration: Floats
    rf: Complexes
    gradient: Floats
    carrier: Floats
    turn: Floats
    sample: NDArray[np.int64]
    receiver: Floats
    spoil: NDArray[np.bool_]


def steps(block: Block) -> Steps:
    """The block as steps: an RF sample each, and free precession between pulses, samples and spoilers in one step."""
    edges = {0.0, block.duration}
    for pulse in block.rf:
        edges.update((pulse.delay + np.arange(pulse.waveform.size + 1) * pulse.dwell).tolist())
    samples = np.sort(np.concatenate([a.times for a in block.adcs])) if block.adcs else np.empty(0)
    edges.update(samples.tolist())
    edges.update(block.spoilers)
    times = np.array(sorted(edges))
    # times that differ by rounding alone are one edge
    times = times[np.concatenate([[True], np.diff(times) > CLOCK])]
    if times.size == 1 or (block.spoilers and block.spoilers[0] < CLOCK):
        times = np.concatenate([[0.0], times])  # a step of no length, after which what is there at the start is spoiled
    n = times.size - 1
    duration, middle = np.diff(times), (times[1:] + times[:-1]) / 2
    rf, carrier, turn = np.zeros(n, complex), np.zeros(n), np.zeros(n)
    for pulse in block.rf:
        inside = np.flatnonzero((middle > pulse.delay) & (middle < pulse.end))
        rf[inside] = pulse.waveform[((middle[inside] - pulse.delay) / pulse.dwell).astype(int)]
        rf[inside] *= np.exp(1j * pulse.phase)
        carrier[inside] = pulse.frequency
        turn[inside[-1]] += 2 * math.pi * pulse.frequency * pulse.duration
    gradient = np.zeros((n, 3))
    for g in block.gradients:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.diff(g.integral(times)) / duration
        gradient[:, AXES.index(g.axis)] += np.where(duration > 0, mean, 0.0)
    sample = np.full(n, -1, np.int64)
    after = np.searchsorted(times, samples - CLOCK)  # the edge at a sample's time
    sample[np.clip(after - 1, 0, n - 1)] = np.arange(samples.size)
    spoil = np.zeros(n, bool)
    for t in block.spoilers:
        spoil[max(int(np.searchsorted(times, t - CLOCK)) - 1, 0)] = True
    receiver = [a.phase + 2 * math.pi * a.frequency * (a.times - a.delay) for a in block.adcs]
    phases = np.concatenate(receiver) if receiver else np.empty(0)
    return Steps(duration, rf, gradient, carrier, turn, sample, phases, spoil)


# -- what cannot be played


def _named(block: Block) -> str:
    return f"({block.label}) " if block.label else ""


def _check(block: Block, where: str, hardware: Hardware) -> None:
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for event in block.events:
        kind, start, end = _span(event, where)
        if start < -CLOCK or end > block.duration + CLOCK:
            raise InputError(
                f"{where}: {kind} from {start:g} to {end:g} s: expected within the block, 0 to "
                f"{max(block.duration, 0):g} s"
            )
        spans.setdefault(kind, []).append((start, end, kind))
    if not (math.isfinite(block.duration) and block.duration >= 0):
        raise InputError(f"{where}: duration is {block.duration:g} s: expected a finite time from 0 up")
    spans["RF or ADC"] = spans.pop("RF", []) + spans.pop("ADC", [])
    for same in spans.values():
        same.sort()
        for (first, end, one), (start, _, other) in itertools.pairwise(same):
            if start < end - CLOCK:
                raise InputError(
                    f"{where}: {one} from {first:g} to {end:g} s and {other} from {start:g} s overlap: expected one "
                    "after the other"
                )
    _check_hardware(block, where, hardware)


def _span(event: Event, where: str) -> tuple[str, float, float]:
    """Kind, start and end of an event; InputError for values that mean nothing."""
    if isinstance(event, Spoiler):
        return "spoiler", event.delay or 0.0, event.delay or 0.0
    if isinstance(event, Gradient):
        if event.axis not in AXES or len(event.axis) != 1:
            raise InputError(f"{where}: gradient axis is {event.axis!r}: expected x, y or z")
        if event.times.shape != event.values.shape or event.times.ndim != 1 or event.times.size < 2:
            raise InputError(f"{where}: gradient {event.axis} has {event.times.size} times and {event.values.size} "
                             "values: expected as many, two at least")  # fmt: skip
        if not (np.isfinite(event.times).all() and np.isfinite(event.values).all()):
            raise InputError(f"{where}: gradient {event.axis} is not finite: expected numbers")
        if np.any(np.diff(event.times) <= 0):
            raise InputError(f"{where}: gradient {event.axis} has times that do not increase")
        return f"gradient {event.axis}", event.start, event.end
    kind = "RF" if isinstance(event, RF) else "ADC"
    count = event.waveform.size if isinstance(event, RF) else event.samples
    if count < 1 or not (math.isfinite(event.dwell) and event.dwell > 0):
        raise InputError(f"{where}: {kind} has {count} samples of {event.dwell:g} s: expected one at least, above 0 s")
    if kind == "RF" and event.dwell <= CLOCK:  # its samples would be one edge in time
        raise InputError(f"{where}: RF has samples of {event.dwell:g} s: expected longer than {CLOCK:g} s")
    if isinstance(event, ADC) and event.samples != int(event.samples):
        raise InputError(f"{where}: ADC has {event.samples:g} samples: expected a whole number")
    if isinstance(event, RF) and event.use not in USES:
        raise InputError(f"{where}: RF use is {event.use!r}: expected {', '.join(USES[:-1])} or {USES[-1]}")
    if isinstance(event, RF) and event.center is not None and not 0 <= event.center <= event.duration + CLOCK:
        within = f"within the pulse, 0 to {event.duration:g} s"
        raise InputError(f"{where}: RF center is {event.center:g} s: expected {within}")
    numbers = [event.delay, event.phase, event.frequency]
    if not np.isfinite(numbers).all() or (isinstance(event, RF) and not np.isfinite(event.waveform).all()):
        raise InputError(f"{where}: {kind} is not finite: expected numbers")
    return kind, event.delay, event.end


def _check_hardware(block: Block, where: str, hardware: Hardware) -> None:
    for g in block.gradients:
        peak = int(np.argmax(np.abs(g.values)))
        if hardware.gradient is not None and abs(g.values[peak]) > hardware.gradient * (1 + 1e-9):
            _warn(f"{where}: gradient {g.axis} is {abs(g.values[peak]):g} T/m at {g.times[peak]:g} s: the hardware "
                  f"gives {hardware.gradient:g} T/m")  # fmt: skip
        slew = np.abs(np.diff(g.values) / np.diff(g.times))
        if hardware.slew is not None and slew.max() > hardware.slew * (1 + 1e-6):
            _warn(f"{where}: gradient {g.axis} changes by {slew.max():g} T/m/s at {g.times[slew.argmax()]:g} s: the "
                  f"hardware gives {hardware.slew:g} T/m/s")  # fmt: skip
    for pulse in block.rf:
        peak = int(np.argmax(np.abs(pulse.waveform)))
        if hardware.rf is not None and abs(pulse.waveform[peak]) > hardware.rf * (1 + 1e-9):
            _warn(f"{where}: RF is {abs(pulse.waveform[peak]):g} Hz at {pulse.delay + peak * pulse.dwell:g} s: the "
                  f"hardware gives {hardware.rf:g} Hz")  # fmt: skip


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)
