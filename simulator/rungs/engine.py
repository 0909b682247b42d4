"""The rung `engine`: the sum over all spin pools, each taken through the pulses of the sequence by a numerical engine.

Isochromats of the Bloch engine stand for pools, one for each line of a spectrum; pools that exchange go through the
exchange engine together. What diffusion and flow leave is the walkers' answer, where the sequence asks for it. R2' is
that of a Lorentzian distribution of offsets, exp(-R2' |t|) for the time t that offsets have acted without being
refocused: it is taken as narrow against the pulses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.protocol import FatSuppression, Protocol
from ..acquisition.scanner import Scanner
from ..engines import exchange
from ..playing import CENTRE, dephased, gather, in_fields, spread
from ..sequences import Pool, Sequence
from ..sequences.precession import lines
from ..sequences.sequence import INVISIBLE, Played
from .pools import Pools

SWITCHES = {
    "R2_prime": "False leaves out what the field inside a voxel adds to 1/T2",
    "off_resonance": "of all pools (Hz)",
    "B1": "transmit field relative to that of the protocol",
    "initial_phase": "as on rung pools",
    "first_echo_phase": "as on rung pools",
    "bipolar_phase": "as on rung pools",
    "kurtosis": "as on rung pools",
    "fat_suppression": "as on rung pools",
}
"""Switches of a sequence that mean something where its pulses are played."""

LINESHAPE = "super_lorentzian"
"""Of macromolecules in bone (Morrison and Henkelman 1995, doi:10.1002/mrm.1910330404)."""

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


class Engine(Pools):
    """Each pool as isochromats that the sequence's pulses move."""

    def __init__(
        self,
        sequence: Sequence,
        pools: xr.Dataset,
        grid: xr.DataArray,
        switches: Mapping[str, Any],
        scanner: Scanner | None = None,
    ) -> None:
        for name in switches:
            if name not in SWITCHES:
                known = ", ".join(s for s in SWITCHES if s in sequence.switches) or "(none)"
                raise InputError(f"switch {name!r} of sequence {sequence.name} goes with its closed form: where its "
                                 f"pulses are played expected some of {known}")  # fmt: skip
        super().__init__(sequence, pools, grid, switches, scanner)
        self.rates = pools["exchange"].values if "exchange" in pools else np.zeros((len(self.names),) * 2)
        self.groups = _groups(self.rates)

    def answer(
        self,
        index: int,
        voxels: NDArray[Any] | slice,
        protocol: Protocol,
        line: int | None = None,
        at: Floats = CENTRE,
    ) -> NDArray[Any]:
        """Signal (row, point) of a density of 1 of a pool: a row for all voxels, or one each.

        `at` (row, 3) is where their centres lie (m): in the isocentre without.
        """
        pool = self.pool(index, voxels, line)
        protocol = _suppressed(protocol, self.switches.get("fat_suppression"), pool)
        bare = self.without_gradients(protocol)
        plan, points = self.plan(bare), bare.points
        nucleus = plan[0].timeline.nucleus
        if (pool.kind in ("mineral", "phosphorus")) != (nucleus == "31P"):
            return np.zeros((1, protocol.points), complex)
        field = {name: self.fields[name][voxels] if name in self.fields else np.asarray(self.switches.get(name, other))
                 for name, other in (("off_resonance", 0.0), ("B1", 1.0))}  # fmt: skip
        B1 = field["B1"] * protocol.get("B1", 1.0)
        if len(self.groups[index]) > 1:
            found = self._exchanging(index, voxels, bare, plan, field["off_resonance"], B1, at)
        elif pool.kind in INVISIBLE and nucleus == "1H":
            return np.zeros((1, protocol.points), complex)
        else:
            frequency, share = lines(pool, protocol, nucleus)
            T1, T2 = pool.get("T1_observed"), pool.get("T2")
            found = np.zeros((max(T1.size, field["off_resonance"].size, B1.size, len(at)), points), complex)
            for turning, part in zip(frequency, share, strict=True):
                if part:
                    found += part * in_fields(plan, points, T1, T2, turning + field["off_resonance"], B1, at)
        if self.switches.get("R2_prime", True):
            found = found * np.exp(-pool.get("R2_prime", default=0.0)[:, None] * dephased(plan, points))
        if self.sequence.phase_errors is not None:
            found = found * np.exp(1j * self.sequence.phase_errors(protocol, **self.switches))
        if self.sequence.attenuation is not None:
            found = found * self.sequence.attenuation(pool, protocol, kurtosis=self.switches.get("kurtosis", True))
        return found

    def without_gradients(self, protocol: Protocol) -> Protocol:
        """The protocol at b = 0 where walkers tell what its lobes leave: spins at one place do not see them."""
        if self.sequence.attenuation is None or set(protocol.table) != {"b"}:
            return protocol
        return protocol.replace(b=(0.0,))

    def plan(self, protocol: Protocol) -> tuple[Played, ...]:
        """What the sequence plays for the points of the protocol."""
        assert self.sequence.played is not None
        return self.sequence.played(protocol)

    def _exchanging(
        self,
        index: int,
        voxels: NDArray[Any] | slice,
        protocol: Protocol,
        plan: tuple[Played, ...],
        offset: Floats,
        B1: Floats,
        at: Floats,
    ) -> Complexes:
        """Signal of a density of 1 of a pool among those that it exchanges with, in the ratio that their rates keep."""
        group = self.groups[index]
        members = [self.pool(i, voxels) for i in group]
        solid = [m.kind == "macromolecule" for m in members]
        own = group.index(index)
        if solid[own]:
            return np.zeros((1, protocol.points), complex)
        frequency = np.zeros(len(group))
        for k, m in enumerate(members):
            turning, share = lines(m, protocol, plan[0].timeline.nucleus)
            if share.size > 1 and not solid[k]:
                raise InputError(f"pool {m.name}: it exchanges and has {share.size} lines: expected one")
            frequency[k] = turning[0]
        rates = self.rates[np.ix_(group, group)]
        density = _balance(rates)
        rows = max([offset.size, B1.size, len(at), *(m.get("T1_intrinsic", "T1_observed").size for m in members)])
        signal, count = np.zeros((rows, protocol.points), complex), np.zeros(protocol.points)
        for part in plan:
            places = part.positions()
            n = len(places)
            spins = exchange.Pools(
                T1=_each([m.get("T1_intrinsic", "T1_observed") for m in members], rows, n),
                T2=_each([m.get("T2") for m in members], rows, n),
                density=density,
                rates=rates,
                offset=np.repeat(np.broadcast_to(offset, rows), n)[:, None] + np.where(solid, 0.0, frequency),
                lineshape=[LINESHAPE if s else "" for s in solid],
                B1=np.repeat(np.broadcast_to(B1, rows), n),
                position=spread(places, at, rows),
            )
            run = exchange.steady_state if part.steady else exchange.simulate
            found = run(part.timeline, spins, signal=np.repeat(np.arange(rows), n), per_pool=True).signal[:, own]
            gather(part, found * (part.gain / (n * density[own])), signal, count)
        return np.asarray(signal / count)


def _each(values: list[Floats], rows: int, spins: int) -> Floats:
    """Values of each pool, (row x spin, pool)."""
    return np.repeat(np.stack([np.broadcast_to(v, rows) for v in values], axis=1), spins, axis=0)


def _suppressed(protocol: Protocol, switch: Any, pool: Pool) -> Protocol:
    """The protocol with the fat suppression that the switch asks for, of this pool's lines."""
    if switch is None or pool.kind != "fat":
        return protocol
    if isinstance(switch, (tuple, list)):
        stated = np.isfinite(pool.shift) & np.isfinite(pool.peak_area)
        if len(switch) != stated.sum():
            raise InputError(
                f"fat_suppression has {len(switch)} values: expected one for each of {stated.sum()} fat peaks"
            )
        bands = tuple((s - 1e-6, s + 1e-6, e) for s, e in zip(pool.shift[stated], switch, strict=True))
        switch = FatSuppression("each peak", bands)
    elif not isinstance(switch, FatSuppression):
        switch = protocol.fat_suppression.with_efficiency(float(switch))
    return dataclasses.replace(protocol, fat_suppression=switch)


def _groups(rates: Floats) -> list[list[int]]:
    """For each pool the pools that it exchanges with, directly or not, itself included."""
    from scipy.sparse.csgraph import connected_components

    _, label = connected_components(np.nan_to_num(rates) > 0, directed=False)
    return [np.flatnonzero(label == own).tolist() for own in label]


def _balance(rates: Floats) -> Floats:
    """Densities that exchange leaves as they are, the first one 1."""
    density = np.zeros(len(rates))
    density[0], known = 1.0, [0]
    for here in known:
        for there in np.flatnonzero((rates[here] > 0) & (density == 0)):
            density[there] = density[here] * rates[here, there] / rates[there, here]
            known.append(int(there))
    return density
