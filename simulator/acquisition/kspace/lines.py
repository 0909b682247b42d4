"""Readouts along straight parallel lines: one line a shot (Cartesian), or a train of them (EPI)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....errors import InputError
from ...constants import GYROMAGNETIC
from .readout import Floats, Trajectory, is_finite_number, one_of, positive, positive_three, whole_three

AXES = "xyz"


def cartesian(
    matrix: Any,
    fov: Any,
    dwell: float,
    *,
    dimensions: int = 2,
    frequency: str = "x",
    partial_fourier: float = 1.0,
    reverse: bool = False,
    ramp: float = 100e-6,
    nucleus: str = "1H",
) -> Trajectory:
    """One line of k-space a readout; TE is when the line crosses the centre.

    Parameters
    ----------
    matrix : int, or three along z, y, x
        Samples along the axis of frequency encoding, lines along the others; in two dimensions nz slices.
    fov : float, or three along z, y, x
        m.
    dwell : float
        s. A pixel along the line is 1/(samples dwell) wide in Hz.
    dimensions : {2, 3}
    frequency : {"x", "y", "z"}
        Axis of frequency encoding; the first of x, y, z that is left is the one of phase encoding.
    partial_fourier : float
        Part of the lines of phase encoding that is acquired, above 1/2; the first ones are left out.
    reverse : bool
        Read from positive to negative k, as every second echo of a bipolar train.
    ramp : float
        Of the readout gradient, before and after the sampling (s).
    nucleus : str

    Returns
    -------
    Trajectory
        Lines of phase encoding in turn, those of the third axis outermost.

    Raises
    ------
    InputError
        A value that means nothing.
    """
    where = "trajectory cartesian"
    matrix, fov = whole_three(where, "matrix", matrix), positive_three(where, "fov", fov)
    dwell, ramp = positive(where, "dwell", dwell, "s"), positive(where, "ramp", ramp, "s")
    axes = _axes(where, one_of(where, "dimensions", dimensions, (2, 3)), frequency)
    n, length = matrix[::-1], fov[::-1]  # along x, y, z
    lines = [_lines(n[axes[1]], _part(where, partial_fourier)) / length[axes[1]]]
    lines += [_lines(n[a], 1.0) / length[a] for a in axes[2:]]
    place = np.meshgrid(*lines[::-1], indexing="ij")
    read = axes[0]
    samples, sense = n[read], -1 if one_of(where, "reverse", reverse, (True, False)) else 1
    top = sense / (gamma_of(where, nucleus) * length[read] * dwell)
    before = (samples - 1 - samples // 2 if sense < 0 else samples // 2) + 0.5  # dwells before the centre
    knots = -before * dwell + np.array([-ramp, 0.0, samples * dwell, samples * dwell + ramp])
    readouts = place[0].size
    gradients = np.zeros((readouts, 4, 3))
    gradients[:, 1:3, read] = top
    start = np.zeros((readouts, 3))
    start[:, read] = -sense * (before + 0.5 * ramp / dwell) / length[read]
    for axis, line in zip(axes[1:], place[::-1], strict=True):
        start[:, axis] = line.ravel()
    times = (np.arange(samples) + 0.5 - before) * dwell
    polarity = np.full(readouts, sense)
    return _on_grid(
        Trajectory(
            "cartesian", dimensions, matrix, fov, dwell, times,
            start=start, knots=knots, gradients=gradients, polarity=polarity, nucleus=nucleus,
        )
    )  # fmt: skip


def epi(
    matrix: Any,
    fov: Any,
    dwell: float,
    *,
    echo_spacing: float | None = None,
    frequency: str = "x",
    partial_fourier: float = 1.0,
    blips: int = 1,
    nucleus: str = "1H",
) -> Trajectory:
    """Single-shot echo-planar readout of each slice: lines in alternating sense, sampled where the gradient is flat.

    Parameters
    ----------
    matrix, fov, dwell, frequency, partial_fourier, nucleus
        As for `cartesian`, in two dimensions; phase encoding is along the other axis of the plane.
    echo_spacing : float, optional
        From line to line (s), longer than samples x dwell: what is left are the two ramps, during which the phase
        encoding is blipped. Default: 200 us more.
    blips : {1, -1}
        Sense in which the lines of phase encoding are run through, and with it of the distortion.

    Returns
    -------
    Trajectory
        A readout a line, in the order of acquisition, of one continuous train; TE is when it crosses the centre. What
        has an offset f moves by f x lines x echo_spacing pixels along phase encoding, times `blips`.

    Raises
    ------
    InputError
        A value that means nothing, an echo spacing without room for the ramps.
    """
    where = "trajectory epi"
    matrix, fov = whole_three(where, "matrix", matrix), positive_three(where, "fov", fov)
    dwell = positive(where, "dwell", dwell, "s")
    read, phase = _axes(where, 2, frequency)
    n, length = matrix[::-1], fov[::-1]
    samples, flat = n[read], n[read] * dwell
    spacing = flat + 200e-6 if echo_spacing is None else positive(where, "echo_spacing", echo_spacing, "s")
    ramp = 0.5 * (spacing - flat)
    if not ramp > 1e-9:
        raise InputError(f"{where}: echo_spacing is {spacing:g} s: expected above {flat:g} s, samples x dwell")
    sense = one_of(where, "blips", blips, (1, -1))
    lines = _lines(n[phase], _part(where, partial_fourier))
    if sense < 0:
        # the line at the far edge has no partner: running down begins at the highest line there is
        lines = -lines if n[phase] % 2 else -lines - 1
    count = lines.size
    polarity = np.where(np.arange(count) % 2 == 0, 1, -1)
    gamma = gamma_of(where, nucleus)
    gradients = np.zeros((count, 4, 3))
    gradients[:, 1:3, read] = (polarity / (gamma * length[read] * dwell))[:, None]
    blip = sense / (gamma * length[phase] * ramp)
    gradients[1:, 0, phase] = gradients[:-1, 3, phase] = blip
    begin = np.zeros(3)
    begin[read], begin[phase] = -(samples // 2 + 0.5 + 0.5 * ramp / dwell) / length[read], lines[0] / length[phase]
    local = np.array([0.0, ramp, ramp + flat, spacing])
    area = np.einsum("k,rkc->rc", np.diff(local), 0.5 * (gradients[:, 1:] + gradients[:, :-1]))
    start = begin + gamma * np.concatenate([np.zeros((1, 3)), np.cumsum(area, axis=0)[:-1]])
    centre = int(np.argmin(np.abs(lines)))
    before = samples // 2 if polarity[centre] > 0 else samples - 1 - samples // 2
    onset = (np.arange(count) - centre) * spacing - ramp - (before + 0.5) * dwell
    times = onset[:, None] + ramp + (np.arange(samples) + 0.5) * dwell
    knots = onset[:, None] + local
    return _on_grid(
        Trajectory(
            "epi", 2, matrix, fov, dwell, times,
            start=start, knots=knots, gradients=gradients, polarity=polarity, nucleus=nucleus,
        )
    )  # fmt: skip


def _axes(where: str, dimensions: int, frequency: str) -> list[int]:
    """Frequency, phase and (in three dimensions) partition axis as numbers along x, y, z."""
    one_of(where, "frequency", frequency, tuple(AXES[:dimensions]))
    read = AXES.index(frequency)
    return [read, *(a for a in range(dimensions) if a != read)]


def _part(where: str, value: Any) -> float:
    if not is_finite_number(value) or not 0.5 < value <= 1:
        raise InputError(f"{where}: partial_fourier is {value!r}: expected above 0.5, up to 1")
    return float(value)


def _lines(n: int, part: float) -> Floats:
    """Numbers of the lines acquired, ascending from the far side that is cut in partial Fourier."""
    return np.arange(n - max(round(part * n), n // 2 + 1 if n > 1 else 1), n) - float(n // 2)


def _on_grid(trajectory: Trajectory) -> Trajectory:
    """With k on its grid to the last bit, the rounding of the integral taken away, and each sample its cell."""
    length = np.array(trajectory.fov[::-1])
    index = np.rint(trajectory.k * length)
    assert np.abs(trajectory.k * length - index).max() < 1e-6
    cell = 1.0 / np.prod(length[: trajectory.dimensions])
    return trajectory.replace(k=index / length, weights=np.full(index.shape[:2], cell))


def gamma_of(where: str, nucleus: str) -> float:
    """Hz/T; raises InputError for a nucleus that is not known."""
    return GYROMAGNETIC[one_of(where, "nucleus", nucleus, tuple(GYROMAGNETIC))]
