"""What the centre-out sequences share: spokes with their echoes, one by one or after a preparation, spoiled.

An image is gridded from all spokes, and each of them reads the centre of k-space: a point of the protocol is the mean
over the spokes after a preparation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .. import equations
from ..acquisition.events.timeline import RF, Block, Gradient, Repeat, Spoiler, Timeline, rf_spoiling, trapezoid
from ..acquisition.kspace import trajectory
from ..acquisition.protocol import Protocol
from .parts import SAMPLE, repetitions, sample, setting, turn_length
from .precession import lines, precession
from .sequence import INVISIBLE, Played, Pool, is_finite

ECHOES = ("echo", "TE")
"""Columns that one repetition reads together."""

SETTLING = 6.0
"""Time (s) played before what is read where the steady state is not solved: four T1 of marrow water."""

SPINS = 64
"""Spins over one turn of the spoiler: configurations of higher order than this have decayed."""

SWITCHES = {
    "R2_prime": "False leaves out what the field inside a voxel adds to 1/T2",
    "off_resonance": "of all pools (Hz)",
    "B1": "transmit field relative to that of the protocol",
}

PHOSPHORUS = ("mineral", "phosphorus")


def shown(pool: Pool, nucleus: str = "1H") -> bool:
    """Whether the pool gives a signal: 1H but of collagen, whose T2 is gone before any echo time; or 31P."""
    return pool.kind in PHOSPHORUS if nucleus == "31P" else pool.kind not in INVISIBLE


def check(*, R2_prime: Any = True, off_resonance: Any = 0.0, B1: Any = 1.0) -> None:
    """Refuse switches that mean nothing."""
    if not isinstance(R2_prime, bool):
        raise InputError(f"R2_prime is {R2_prime!r}: expected True or False")
    if not is_finite(off_resonance):
        raise InputError(f"off_resonance is {off_resonance!r}: expected a number (Hz)")
    if not (is_finite(B1) and B1 > 0):
        raise InputError(f"B1 is {B1!r}: expected a number above 0, 1 for the nominal one")


# -- the closed form of a pool


def relaxed(pool: Pool, R2_prime: bool) -> dict[str, Any]:
    """Unknowns of a pool in a gradient echo: R2* = 1/T2 + R2'."""
    rate = 1 / pool.get("T2") + (pool.get("R2_prime", default=0.0) if R2_prime else 0.0)
    return {"S0": 1.0, "T1": pool.get("T1_observed"), "R2star": rate}


def spoiled(
    pool: Pool,
    protocol: Protocol,
    *,
    nucleus: str = "1H",
    R2_prime: bool = True,
    off_resonance: Any = 0.0,
    B1: Any = 1.0,
) -> NDArray[np.complex128]:
    """Spoiled gradient echo of one pool, (row, point), complex: the equation ``spoiled_gradient_echo`` times its lines.

    Parameters
    ----------
    pool : Pool
    protocol : Protocol
        With TE, TR (s), flip_angle (rad), and B1 where it is not 1.
    nucleus : {"1H", "31P"}
    R2_prime : bool
        False where the field that causes R2' is put in as such.
    off_resonance : float or ndarray (row, 1)
        Of all lines (Hz).
    B1 : float, complex or ndarray (row, 1)
        Transmit field relative to that of the protocol; its phase is that of the signal.
    """
    if not shown(pool, nucleus):
        return np.zeros((1, protocol.points), complex)
    scanner = {**protocol, "TE": protocol["TE"], "B1": protocol.get("B1", 1.0) * np.abs(B1)}
    decayed = equations.get("spoiled_gradient_echo").signal(relaxed(pool, R2_prime), scanner)
    times = np.broadcast_to(protocol["TE"], protocol.points)
    frequency, share = lines(pool, protocol, nucleus)
    return decayed * ((share @ precession(frequency, times)) * field_phase(times, off_resonance, B1))


def field_phase(times: NDArray[np.float64], off_resonance: Any, B1: Any) -> NDArray[np.complex128]:
    """What a field offset (Hz) has turned by these times, and the phase of B1, (point,) or (row, point)."""
    turned: NDArray[np.complex128] = np.exp(2j * np.pi * off_resonance * times + 1j * np.angle(B1))
    return turned


# -- what is played


def spoke(protocol: Protocol, points: tuple[int, ...], excitation: RF, *gradients: Gradient) -> Block:
    """Excitation and one sample for each of these points, in the order of their echo times.

    Raises
    ------
    InputError
        An echo time before the excitation has ended.
    """
    first = min(setting(protocol, "TE", p) for p in points)
    earliest = excitation.end - excitation.reference + SAMPLE / 2
    if first < earliest - 1e-9:
        raise InputError(
            f"protocol {protocol.name}: TE is {first:g} s: expected at least {earliest:g} s, when pulses.excitation of "
            f"{excitation.duration:g} s has ended"
        )
    return Block(
        excitation,
        *gradients,
        *(sample(excitation.reference + setting(protocol, "TE", p)) for p in in_time(protocol, points)),
        label="spoke",
    )


def in_time(protocol: Protocol, points: tuple[int, ...]) -> tuple[int, ...]:
    """Points in the order of their echo times."""
    return tuple(sorted(points, key=lambda p: setting(protocol, "TE", p)))


def one_by_one(
    protocol: Protocol, points: tuple[int, ...], blocks: tuple[Block, ...], spread: float = 0.0, spins: int = 1,
    gain: float = 1.0, nucleus: str = "1H",
) -> Played:  # fmt: skip
    """Spokes, each lasting TR, over and over; several of them where they differ (the halves of a half pulse).

    Ideally spoiled unless the protocol states the area of a `spoiler`. With `rf_spoiling` too, whose steady state is
    not that of one repetition, the train is played from equilibrium, with `repetitions` before the one that is read.
    """
    order = in_time(protocol, points)
    TR = setting(protocol, "TR", points[0])
    shots = tuple(spoiled_block(protocol, b, TR, points[0]) for b in blocks)
    area = setting(protocol, "spoiler", points[0], 0.0)
    if area and not spread:
        spread, spins = turn_length(area), SPINS
    read, samples = order * len(shots), tuple(range(len(order) * len(shots)))
    if not area or "rf_spoiling" not in protocol:
        timeline = _timeline(protocol, shots, nucleus)
        return Played(timeline, read, samples, True, spread, spins, gain)
    before = int(setting(protocol, "repetitions", points[0], math.ceil(SETTLING / TR)))
    before -= before % len(shots)
    phases = rf_spoiling(before + len(shots), setting(protocol, "rf_spoiling", points[0]))
    silent = tuple(_silent(b) for b in shots)
    parts = [Repeat((silent[n % len(shots)],), 1, (phases[n],)) for n in range(before)]
    if len(shots) == 1 and before:
        parts = [Repeat(silent, before, phases[:before])]
    parts += [Repeat((b,), 1, (phase,)) for b, phase in zip(shots, phases[before:], strict=True)]
    return Played(_timeline(protocol, tuple(parts), nucleus), read, samples, False, spread, spins, gain)


def after_preparation(protocol: Protocol, points: tuple[int, ...], preparation: RF, block: Block) -> Played:
    """A preparation pulse and N spokes, over and over, spoiled as `one_by_one` does.

    TI runs from the reference point of the preparation (its middle) to the middle of the spokes' excitations: half-way
    between the first and the last of them. TR runs from preparation to preparation.

    Raises
    ------
    InputError
        The spokes do not fit between preparation and TI, into `spoke_TR`, or into TR.
    """
    first, name = points[0], protocol.name
    count, spacing = spokes_of(protocol, first)
    TI, TR = setting(protocol, "TI", first), setting(protocol, "TR", first)
    excitation = block.rf[0]
    lead = TI - (count - 1) / 2 * spacing - (preparation.end - preparation.reference) - excitation.reference
    if lead < 0:
        least = TI - lead
        raise InputError(f"protocol {name}: TI is {TI:g} s: expected at least {least:g} s, for the preparation and "
                         f"{count} spokes of {spacing:g} s, half of them before TI")  # fmt: skip
    rest = TR - (preparation.end + lead + count * spacing)
    if rest < -1e-9:
        raise InputError(f"protocol {name}: TR is {TR:g} s: expected at least {TR - rest:g} s, for the preparation, TI "
                         f"and {count} spokes of {spacing:g} s")  # fmt: skip
    area = setting(protocol, "spoiler", first, 0.0)
    prepare = spoiled_block(protocol, Block(preparation, label="preparation"), preparation.end + lead, first)
    read = spoiled_block(protocol, block, spacing, first)
    wait = (Block(duration=rest, label="recovery"),) if rest > 0 else ()
    order = in_time(protocol, points)
    samples = tuple(range(count * len(order)))
    if not area or "rf_spoiling" not in protocol:
        timeline = _timeline(protocol, (prepare, Repeat((read,), count), *wait), "1H")
        return Played(timeline, order * count, samples, True, turn_length(area), SPINS if area else 1)
    before = int(setting(protocol, "repetitions", first, math.ceil(SETTLING / TR)))
    phases = rf_spoiling((before + 1) * count, setting(protocol, "rf_spoiling", first))
    parts: list[Block | Repeat] = []
    for n in range(before + 1):
        body = read if n == before else _silent(read)
        parts += [prepare, Repeat((body,), count, phases[n * count : (n + 1) * count]), *wait]
    return Played(_timeline(protocol, tuple(parts), "1H"), order * count, samples, False, turn_length(area), SPINS)


def spokes_of(protocol: Protocol, point: int) -> tuple[int, float]:
    """Number of spokes after a preparation, and the time from one to the next (s).

    Raises
    ------
    InputError
        A number that is not whole.
    """
    count = setting(protocol, "spokes_per_preparation", point, 1.0)
    if count != int(count):
        raise InputError(f"protocol {protocol.name}: spokes_per_preparation is {count:g}: expected a whole number")
    return int(count), setting(protocol, "spoke_TR", point)


def spoiled_block(protocol: Protocol, block: Block, duration: float, point: int) -> Block:
    """The block with its spoiling, lasting this long (s): ideal at its end, or a gradient of the stated area.

    Raises
    ------
    InputError
        Its events do not fit.
    """
    area = setting(protocol, "spoiler", point, 0.0)
    room = duration - block.duration
    if room < -1e-9 or (area and not room > 0):
        raise InputError(f"protocol {protocol.name}: {block.label} lasts {block.duration:g} s: expected room for it "
                         f"and its spoiler in {duration:g} s")  # fmt: skip
    if not area:
        return Block(*block.events, Spoiler(), duration=max(duration, block.duration), label=block.label)
    length = min(3e-3, room)
    spoiler = trapezoid("z", area, length, 0.2 * length, duration - length)
    return Block(*block.events, spoiler, duration=duration, label=block.label)


def _silent(block: Block) -> Block:
    """The block without its samples."""
    events = [e for e in block.events if e not in block.adcs]
    return Block(*events, duration=block.duration, label=block.label)


def _timeline(protocol: Protocol, parts: tuple[Block | Repeat, ...], nucleus: str) -> Timeline:
    try:
        return Timeline(parts, name=protocol.name, nucleus=nucleus)
    except InputError as error:
        raise InputError(f"protocol {protocol.name}: {error}") from None


def each_repetition(protocol: Protocol) -> list[tuple[int, ...]]:
    """The points that one repetition reads: they differ in nothing but the echo time."""
    return repetitions(protocol, ECHOES)


# -- how k-space is read


def read_as(protocol: Protocol, *kinds: str, **defaults: Any) -> trajectory.Trajectory:
    """The trajectory that the protocol's readout describes, of one of these kinds; the first, where it names none.

    Raises
    ------
    InputError
        Another trajectory, or entries it does not know.
    """
    entries: Mapping[str, Any] = {"trajectory": kinds[0], **protocol.readout}
    where = f"protocol {protocol.name}: readout"
    if entries["trajectory"] not in kinds:
        raise InputError(f"{where}: trajectory is {entries['trajectory']!r}: sequence {protocol.sequence} expects "
                         f"{' or '.join(kinds)}")  # fmt: skip
    return trajectory.from_entries(entries, where, **defaults)
