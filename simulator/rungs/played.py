"""The rung `scan` of a Pulseq file: every voxel's spins, at their place, through all that is played.

No pool is summed up before: gradients, pulses and relaxation act on isochromats from the first event to the last, and a
sample is the sum of what each of them sends to each coil.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.noise import signal_reference
from ..acquisition.protocol import Protocol
from ..engines import bloch
from ..engines.isochromats import Isochromats
from ..sequences import pulseq
from ..sequences.precession import lines
from ..sequences.sequence import INVISIBLE
from .kspace import KSpace

Complexes = NDArray[np.complex128]

BYTES = 1 << 28
"""Of the samples of single voxels in work at a time."""


class PlayedKSpace(KSpace):
    """Samples of k-space by the Bloch engine alone."""

    def acquire(
        self, protocol: Protocol, progress: Callable[[float], object] | None = None
    ) -> list[tuple[Trajectory, tuple[int, ...], Complexes]]:
        """Noise-free samples of all coils: one trajectory, one point."""
        faults = self.scanner.eddy_currents or any(self.scanner.delays) or self.scanner.odd_even_phase
        if faults or self.scanner.concomitant:
            raise InputError(f"protocol {protocol.name}: a Pulseq file is played as it stands: expected a scanner "
                             "without delays, eddy currents, odd_even_phase and concomitant fields")  # fmt: skip
        engine, timeline, way = self.engine, pulseq.timeline_of(protocol), pulseq.readout(protocol)
        (part,) = pulseq.played(protocol)
        dephasing, weighting = np.abs(way.times).ravel(), pulseq.weighting(protocol)
        around = part.positions()
        shape, receiving = self.grid.shape, self.coils(protocol)
        index = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape)[::-1], axis=1)
        place = (index - (np.array(shape[::-1]) - 1) / 2) * np.array(self.size[::-1])
        field = self.scanner.offset(shape).ravel()
        B1 = self.scanner.transmit(shape).ravel()
        coil = np.ones((1, field.size)) if receiving is None else receiving.sensitivities.reshape(receiving.count, -1)
        data = np.zeros((coil.shape[0], timeline.samples), complex)
        pieces = list(self._pieces(protocol, timeline.nucleus, timeline.samples, len(around)))
        for done, (pool, voxels, frequency, share) in enumerate(pieces):
            amount = np.nan_to_num(engine.density[pool][voxels]) * share
            one = engine.pool(pool, voxels)
            values = [np.broadcast_to(v, voxels.shape) for v in (one.get("T1_observed"), one.get("T2"))]
            # what diffuses and what dephases within a voxel, at each sample: R2' until it is refocused
            lost = np.multiply.outer(np.broadcast_to(one.get("R2_prime", default=0.0), voxels.shape), dephasing)
            lost += np.multiply.outer(np.broadcast_to(pulseq.diffusivity(one), voxels.shape), weighting)
            T1, T2, offset, b1 = (np.repeat(v, len(around)) for v in (*values, frequency + field[voxels], B1[voxels]))
            spins = Isochromats(T1, T2, offset, b1, (place[voxels][:, None] + around).reshape(-1, 3))
            each = np.repeat(np.arange(voxels.size), len(around))
            seen = bloch.simulate(timeline, spins, signal=each).signal / len(around)
            data += (coil[:, voxels] * amount) @ (seen * np.exp(-lost))
            if progress is not None:
                progress((done + 1) / len(pieces))
        data *= float(np.prod(self.size[3 - way.dimensions :]))
        if way.dimensions == 2:  # all planes of the object lie in the one slice that is read
            data *= self.size[0] / way.voxel_size[0]
        rows = data.reshape(1, len(data), *(() if way.dimensions == 3 else (1,)), way.readouts, way.samples)
        return [(way, (0,), rows)]

    def reference(self, found: list[tuple[Trajectory, tuple[int, ...], Complexes]]) -> float:
        """S_ref: the sample nearest to k = 0, of a coil of sensitivity 1, shared out by density among the voxels."""
        way, _, data = found[0]
        if self.scanner.coils is not None:
            raise InputError("snr: a Pulseq file with coils of its own states no level: expected noise_sd")
        amount = np.nan_to_num(self.engine.density).sum(axis=0)
        at = np.unravel_index(int(np.argmin((way.k**2).sum(axis=2))), way.k.shape[:2])
        middle = abs(complex(data[0, 0].reshape(-1, *way.k.shape[:2])[(0, *at)]))
        cell = float(np.prod(self.size[3 - way.dimensions :])) * (self.size[0] / way.voxel_size[0]
                                                                  if way.dimensions == 2 else 1.0)  # fmt: skip
        return signal_reference(middle / (cell * amount.sum()) * amount) if amount.sum() > 0 else 0.0

    def _pieces(self, protocol: Protocol, nucleus: str, samples: int, around: int) -> Any:
        """Pool, voxels, frequency and share of each line, in pieces that fit into memory."""
        engine = self.engine
        step = max(1, int(BYTES / (16 * samples)))
        for pool in engine.present():
            if len(engine.groups[pool]) > 1:
                raise InputError(f"pool {engine.names[pool]} exchanges: a Pulseq file on rung scan plays without "
                                 "exchange: expected T1_observed, or rung engine")  # fmt: skip
            shows = engine.kinds[pool] in ("mineral", "phosphorus") if nucleus == "31P" else True
            if not shows or (nucleus == "1H" and engine.kinds[pool] in INVISIBLE):
                continue
            voxels = np.flatnonzero(np.nan_to_num(engine.density[pool]))
            frequency, share = lines(engine.pool(pool, voxels), protocol, nucleus)
            for turning, part in zip(frequency, share, strict=True):
                for start in range(0, voxels.size if part else 0, step):
                    yield pool, voxels[start : start + step], float(turning), float(part)
