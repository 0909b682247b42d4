"""A Pulseq file in place of a sequence of our own: its events are all there is, so only engines can say what it sees.

Every sample of the file is a point (`time`). On rung `engine` each voxel lies in the isocentre, as many spins as its
gradients ask for; on rung `scan` each voxel lies where it is, and the samples are those of the whole object. Diffusion
leaves exp(-b D) of each pool, b being that of all gradients from the excitation to the middle of each acquisition.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..acquisition.events import moments
from ..acquisition.events import pulseq as files
from ..acquisition.events.timeline import Timeline
from ..acquisition.kspace.trajectory import Trajectory
from ..acquisition.protocol import Protocol
from ..engines import intravoxel
from .sequence import Played, Pool, Sequence


def protocol_of(
    path: str | Path,
    field_strength: float,
    voxel_size: tuple[float, float, float],
    matrix: tuple[int, int, int],
    longest_T2: float,
) -> Protocol:
    """The protocol that a Pulseq file stands for, for a phantom of these voxels (m, along z, y, x) and T2 (s).

    The file's ``FOV`` is that of the image; the matrix is the phantom's, as far as it reaches.

    Raises
    ------
    InputError
        A file that cannot be read or played, gradients that ask for more spins than there can be.
    """
    path = Path(path)
    timeline = _timeline(str(path.resolve()), field_strength, path.stat().st_mtime_ns if path.exists() else 0)
    if not timeline.samples:
        raise InputError(f"{path}: no acquisition: expected one at least")
    edges = tuple(voxel_size[::-1])
    spins = intravoxel.enough(timeline, edges, longest_T2)
    own = tuple(n * edge for n, edge in zip(matrix, voxel_size, strict=True))
    stated = files.definitions(path).get("FOV", ())
    given = [v for v in stated[::-1] if isinstance(v, float) and v > 0]
    fov = tuple(given) if len(given) == 3 else own
    pixels = tuple(max(1, round(f / edge)) for f, edge in zip(fov, voxel_size, strict=True))
    if files.trajectory(timeline, pixels, fov).dimensions == 2:
        pixels = (1, *pixels[1:])
    return Protocol(
        name=path.stem,
        title=f"Pulseq file {path.name}",
        sequence="pulseq",
        equation="",
        encoding="time",
        table={"time": tuple(timeline.sample_times().tolist())},
        field_strength=field_strength,
        averaging="complex",
        readout={"file": str(path.resolve()), "voxel": edges, "spins": spins, "matrix": pixels, "fov": fov},
        source=str(path.name),
    )


def timeline_of(protocol: Protocol) -> Timeline:
    """The file's events."""
    path = Path(protocol.readout["file"])
    return _timeline(str(path), protocol.field_strength, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _timeline(path: str, field: float, changed: int) -> Timeline:
    return files.read(path, field=field)


def signal(pool: Pool, protocol: Protocol) -> NDArray[Any]:
    """Refuse: events have no closed form."""
    raise InputError(f"protocol {protocol.name}: a Pulseq file has no closed form: expected rung engine or scan")


def played(protocol: Protocol) -> tuple[Played, ...]:
    """The file from equilibrium; a voxel in the isocentre."""
    timeline = timeline_of(protocol)
    points = tuple(range(timeline.samples))
    ways = [
        edge * ((np.arange(n) + 0.5) / n - 0.5)
        for edge, n in zip(protocol.readout["voxel"], protocol.readout["spins"], strict=True)
    ]
    places = np.stack(np.meshgrid(*ways, indexing="ij"), axis=-1).reshape(-1, 3)
    return (Played(timeline, points, points, steady=False, around=places),)


def weighting(protocol: Protocol) -> NDArray[np.float64]:
    """b-value (s/mm2) of every sample: that of the middle of its acquisition, all gradients of the file included."""
    path = Path(protocol.readout["file"])
    return _weighting(str(path), protocol.field_strength, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _weighting(path: str, field: float, changed: int) -> NDArray[np.float64]:
    timeline = _timeline(path, field, changed)
    found = []
    for block, start, _ in timeline.played():
        for adc in block.adcs:
            b = moments.b_value(timeline, start + adc.delay + 0.5 * adc.samples * adc.dwell)
            found.append(np.full(adc.samples, b))
    return np.concatenate(found)


def diffusivity(pool: Pool) -> NDArray[np.float64]:
    """What a pool loses its signal with under gradients (mm2/s): D, and D* of blood."""
    if pool.kind == "blood":
        return np.nan_to_num(pool.get("D_star", "D", default=0.0))
    return np.nan_to_num(pool.get("D", default=0.0))


def attenuation(pool: Pool, protocol: Protocol, kurtosis: bool | float = True) -> NDArray[np.float64]:
    """exp(-b D) of every sample, (row, sample); of blood in the limit of many segments."""
    found: NDArray[np.float64] = np.exp(-np.multiply.outer(diffusivity(pool), weighting(protocol)))
    return found


def readout(protocol: Protocol) -> Trajectory:
    """What the file samples of k-space."""
    return files.trajectory(timeline_of(protocol), protocol.readout["matrix"], protocol.readout["fov"])


def imaged(protocol: Protocol) -> Protocol:
    """The protocol of the one image that all samples make: its point is the time at which k is nearest to 0."""
    timeline = timeline_of(protocol)
    distance = (readout(protocol).k ** 2).sum(axis=2).ravel()
    middle = float(timeline.sample_times()[int(np.argmin(distance))])
    return dataclasses.replace(protocol, encoding="time", table={"time": (middle,)})


def _check() -> None:
    """There are no switches."""


pulseq_file = Sequence(
    name="pulseq",
    signal=signal,
    switches={},
    reference=lambda protocol: protocol,
    check=_check,
    magnitude=False,
    played=played,
    readout=readout,
    attenuation=attenuation,
    reference_point="the sample where it is largest",
)
