"""Where and when any timeline samples k-space: the trajectory of a sequence that is given by its events alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....errors import InputError
from ..kspace.readout import Floats, Trajectory, positive_three, whole_three
from . import moments
from .timeline import CLOCK, Timeline

FLAT = 1e-3
"""Turns across the field of view along z below which k along z counts as 0."""


def trajectory(timeline: Timeline, matrix: Any, fov: Any) -> Trajectory:
    """Every acquisition of a timeline as a readout, in order.

    Parameters
    ----------
    timeline : Timeline
    matrix : int, or three along z, y, x
        Voxels of the image.
    fov : float, or three along z, y, x
        Field of view (m).

    Returns
    -------
    Trajectory
        In two dimensions where k along z stays 0. `times` (readout, sample) counts free precession: from the reference
        point of the excitation, and after refocusing from the spin echo, negative before it. `echo_times` says how long
        after the excitation that is: the time of a sample is the sum of both.

    Raises
    ------
    InputError
        No acquisition, acquisitions of unequal length or dwell, or a sample before the first excitation.
    """
    where = f"timeline {timeline.name}"
    matrix, fov = whole_three(where, "matrix", matrix), positive_three(where, "fov", fov)
    adcs = [(adc, start) for block, start, _ in timeline.played() for adc in block.adcs]
    if not adcs:
        raise InputError(f"{where}: no acquisition: expected one at least")
    first = adcs[0][0]
    for adc, start in adcs:
        if adc.samples != first.samples or abs(adc.dwell - first.dwell) > CLOCK:
            raise InputError(
                f"{where}: ADC at {start + adc.delay:g} s has {adc.samples} samples of {adc.dwell:g} s: expected "
                f"{first.samples} of {first.dwell:g} s, as the first one has"
            )
    k = moments.kspace(timeline)
    lost = np.flatnonzero(np.isnan(k).any(axis=1))
    if lost.size:
        when = timeline.sample_times()[lost[0]]
        raise InputError(f"{where}: sample {lost[0]} at {when:g} s: expected an excitation before it")
    # slice gradients are rephased to the digits of a file only
    flat = np.abs(k[:, 2]).max() * fov[0] < FLAT
    k[:, 2] *= not flat
    shape = (len(adcs), first.samples)
    _, precession = _clocks(timeline)
    dimensions = 2 if flat else 3
    return Trajectory(
        "timeline", dimensions, matrix, fov, first.dwell, precession.reshape(shape), k.reshape(*shape, 3),
        nucleus=timeline.nucleus,
    )  # fmt: skip


def echo_times(timeline: Timeline) -> Floats:
    """Time (s) from the excitation to the spin echo, for each sample: 0 where nothing has been refocused.

    Transverse decay lasts for this and the trajectory's `times`. While magnetisation is stored (STEAM) it neither
    decays nor turns: that time is not counted.
    """
    transverse, precession = _clocks(timeline)
    return transverse - precession


def _clocks(timeline: Timeline) -> tuple[Floats, Floats]:
    """For each sample the time spent in the transverse plane, and that of free precession with its sign (s)."""
    events: list[tuple[float, str, Floats]] = []
    for block, start, _ in timeline.played():
        events += [(start + rf.reference, rf.use, np.empty(0)) for rf in block.rf]
        events += [(start + adc.delay, "", start + adc.times) for adc in block.adcs]
    found: list[Floats] = []
    transverse = precession = last = np.nan
    stored = False
    for time, use, samples in sorted(events, key=lambda event: event[0]):
        if not use:
            gone = 0.0 if stored else samples - last
            found.append(np.stack(np.broadcast_arrays(transverse + gone, precession + gone, samples)[:2]))
            continue
        if not stored:
            transverse, precession = transverse + time - last, precession + time - last
        last = time
        if use == "excitation":
            transverse = precession = 0.0
            stored = False
        elif use in ("refocusing", "recall"):
            precession, stored = -precession, False
        elif use == "storage":
            stored = True
    both = np.concatenate(found, axis=1) if found else np.empty((2, 0))
    return both[0], both[1]
