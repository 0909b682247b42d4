"""Noise as the receiver makes it, and the one definition of SNR.

Each coil receives independent white Gaussian noise in its real and in its imaginary channel. Magnitudes are taken
afterwards, so that one coil gives Rician data and the root sum of squares of several coils non-central chi data.

**SNR** = S_ref / noise_sd. ``noise_sd`` is the standard deviation of the noise per real channel of one acquisition,
before averaging, and S_ref the median of the noise-free \\|S\\| over the signal voxels, at b = 0 in diffusion imaging.
Averaging N acquisitions makes the noise of the image smaller by sqrt(N) (`image_sd`); SNR keeps to one acquisition.
Coils have uniform sensitivities whose squares sum to 1: their number changes the noise floor, not the SNR.

Sources: Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618 (magnitude); Constantinides et al. 1997,
doi:10.1002/mrm.1910380524 (several coils); Dietrich et al. 2007, doi:10.1002/jmri.20969 (what SNR means).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from .protocol import AVERAGING, COMBINATIONS

REFERENCE_POINT = "b = 0"
"""Where S_ref is taken unless a sequence says otherwise."""


def snr_definition(reference_point: str = REFERENCE_POINT) -> str:
    """What SNR means, in words, for scans whose S_ref is taken at this point."""
    return (
        "S_ref/noise_sd; noise_sd: standard deviation per real channel of one acquisition; "
        f"S_ref: median noise-free |S| over signal voxels at {reference_point}"
    )


SNR_DEFINITION = snr_definition()
SIGNAL_VOXEL = 0.01
"""A signal voxel has at least this fraction of the largest |S|: air, and bone long decayed, are none."""

DRAWS = 1 << 20
"""Random numbers drawn at a time (8 MB)."""


def signal_reference(reference: ArrayLike) -> float:
    """S_ref of the SNR: the median |S| over the signal voxels of a noise-free reference image.

    Parameters
    ----------
    reference : array_like
        Noise-free signal of each voxel (any shape, real or complex) at the reference point, which is b = 0 for
        diffusion. NaN counts as no signal.

    Returns
    -------
    float
        Same unit as the signal; 0 where there is no signal at all.
    """
    magnitude = np.abs(np.asarray(reference)).ravel()
    magnitude = magnitude[magnitude > 0]  # NaN is not greater
    if magnitude.size == 0:
        return 0.0
    return float(np.median(magnitude[magnitude >= SIGNAL_VOXEL * magnitude.max()]))


def image_sd(noise_sd: float, averages: int = 1) -> float:
    """Standard deviation of the noise in the averaged image, where the signal is well above the floor."""
    return noise_sd / float(np.sqrt(averages))


def add(
    signal: NDArray[Any],
    noise_sd: float,
    rng: np.random.Generator,
    averages: int = 1,
    averaging: str = "magnitude",
    coils: int = 1,
    combination: str = "sum_of_squares",
    magnitude: bool = True,
    combine: bool = True,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The signal as received: complex noise in every coil and acquisition, then combined and averaged.

    Parameters
    ----------
    signal : ndarray (..., point)
        Noise-free signal, real or complex.
    noise_sd : float
        Standard deviation of the noise per real channel of one coil in one acquisition; unit of the signal.
    rng : numpy.random.Generator
        Numbers are drawn voxel by voxel in C order, so that the result depends on the generator's seed and not on
        the number of voxels held in memory at a time.
    averages, averaging : int, {"magnitude", "complex"}
        Acquisitions, and whether their magnitudes or their complex data are averaged.
    coils, combination : int, {"sum_of_squares", "optimal"}
        Coils of uniform sensitivity 1/sqrt(coils); root sum of squares, or the sensitivity-weighted complex sum,
        which is optimal for independent noise.
    magnitude : bool
        Magnitude image (default), or the complex image (needs ``"optimal"`` or one coil).
    combine : bool
        False returns the complex data of each coil, with an axis ``coil`` at the end.
    out : ndarray, optional
        Where to write; may be `signal` itself where the type fits.

    Returns
    -------
    ndarray
        float64 of the shape of `signal` (magnitude), or complex128, with a further axis when ``combine=False``.

    Raises
    ------
    InputError
        A noise level that is not positive, or data asked to stay complex while averaging magnitudes.
    """
    _check(noise_sd, averages, averaging, coils, combination, magnitude and combine, combine)
    signal = np.asarray(signal)
    points = signal.shape[-1] if signal.ndim else 1
    flat = signal.reshape(-1, points)
    shape = signal.shape if combine else (*signal.shape, coils)
    kind = np.float64 if magnitude and combine else np.complex128
    if out is None:
        out = np.empty(shape, kind)
    target = out.reshape(flat.shape if combine else (*flat.shape, coils))
    # before magnitudes are taken, averaging is linear: one draw of the averaged noise stands for all acquisitions,
    # and so does the optimal sum for all coils
    repeats, sd = (averages, noise_sd) if averaging == "magnitude" else (1, image_sd(noise_sd, averages))
    channels = 1 if combine and combination == "optimal" else coils
    step = max(1, DRAWS // (2 * points * repeats * channels))
    for start in range(0, len(flat), step):
        block = flat[start : start + step]
        normal = rng.standard_normal((*block.shape, repeats, channels, 2))
        received = normal.view(np.complex128)[..., 0]
        received *= sd
        received += (block / np.sqrt(channels))[..., None, None]
        if not combine:
            image = received[..., 0, :]
        elif not magnitude:
            image = received[..., 0, 0]
        elif channels == 1:
            image = np.abs(received[..., 0]).mean(axis=-1)
        else:
            image = np.sqrt((received.real**2 + received.imag**2).sum(axis=-1)).mean(axis=-1)
        target[start : start + step] = image
    return out


def _check(
    noise_sd: float, averages: int, averaging: str, coils: int, combination: str, magnitude: bool, combine: bool
) -> None:
    if not (np.isfinite(noise_sd) and noise_sd > 0):
        raise InputError(f"noise_sd is {noise_sd!r}: expected a number above 0, or none at all for a noise-free scan")
    for name, count in (("averages", averages), ("coils", coils)):
        if count != int(count) or count < 1:
            raise InputError(f"{name} is {count!r}: expected a whole number from 1 up")
    for name, value, choices in (("averaging", averaging, AVERAGING), ("combination", combination, COMBINATIONS)):
        if value not in choices:
            raise InputError(f"{name} is {value!r}: expected {' or '.join(choices)}")
    if not magnitude and averages > 1 and averaging == "magnitude":
        raise InputError(f"averaging is 'magnitude' over {averages} acquisitions: complex data need 'complex'")
    if not magnitude and combine and coils > 1 and combination != "optimal":
        raise InputError(f"combination is {combination!r} of {coils} coils: a complex image needs 'optimal'")
