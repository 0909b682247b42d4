"""Gaussian random fields in physical space: sums of plane waves whose wave vectors fill a shell.

A field is a list of waves, drawn once; where it is sampled comes afterwards. So a finer grid refines the same
structure, a larger one continues it, and nothing repeats at the faces of a box. The waves of a shell stand evenly over
its directions and lengths, which keeps the spectrum of one realisation near that of the ensemble.

References
----------
Level sets: Rice 1944, Bell Syst Tech J 23:282, doi:10.1002/j.1538-7305.1944.tb00874.x; Adler and Taylor 2007,
doi:10.1007/978-0-387-48116-6. Sums of waves for bicontinuous media: Cahn 1965, J Chem Phys 42:93,
doi:10.1063/1.1695731; Berk 1987, Phys Rev Lett 58:2718, doi:10.1103/PhysRevLett.58.2718.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..simulator import threads

WAVES = 192  # excess kurtosis -1.5 / WAVES: nobody could tell the field from a normal one


class Waves(NamedTuple):
    """A field ``sqrt(2 / n) sum cos(vector . position + phase)``: mean 0, variance 1.

    ``vector`` (wave, zyx) in rad/m, ``phase`` (wave) in rad.
    """

    vector: np.ndarray
    phase: np.ndarray


def shell(
    rng: np.random.Generator, wavenumber: float, bandwidth: float = 0.2, stretch: float = 1.0, count: int = WAVES
) -> Waves:
    """Draw the waves of a field.

    Parameters
    ----------
    rng : Generator
        The draws do not depend on the other arguments: another wave number is the same field at another scale.
    wavenumber : float
        Root mean square length of the wave vectors (rad/m), before the stretch.
    bandwidth : float
        SD of the logarithm of that length: 0 is a sharp ring.
    stretch : float
        The field is drawn out by this along z.
    count : int
        Number of waves.

    Returns
    -------
    Waves
    """
    from scipy.special import ndtri

    order = rng.permutation(count)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    within = rng.random(count)
    phase = rng.uniform(0.0, 2 * np.pi, count)
    # A spiral of equal areas on half a sphere: minus a wave vector is the same wave.
    height = (np.arange(count) + 0.5) / count
    around = np.arange(count) * (np.pi * (3 - math.sqrt(5)))
    flat = np.sqrt(1 - height**2)
    direction = np.stack([height, flat * np.cos(around), flat * np.sin(around)], axis=1) @ turn
    # One length from each of `count` equal slices of a lognormal distribution, and their mean square exact.
    length = np.exp(bandwidth * ndtri((order + within) / count))
    length *= wavenumber / math.sqrt(float((length**2).mean()))
    return Waves(direction * length[:, None] / np.array([stretch, 1.0, 1.0]), phase)


def sample(waves: Waves, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The field at every (z, y, x).

    Parameters
    ----------
    waves : Waves
    z, y, x : array
        Positions (m) along each axis.

    Returns
    -------
    array of float32, (z, y, x)
        The same bits for any number of threads: each voxel adds its waves in their order.
    """
    from .level_loops import add_waves

    amplitude = math.sqrt(2 / len(waves.phase))
    along_x = np.exp(1j * np.outer(waves.vector[:, 2], x))
    cosine, sine = along_x.real.astype(np.float32), along_x.imag.astype(np.float32)
    along_y = np.exp(1j * np.outer(y, waves.vector[:, 1])).astype(np.complex64)
    along_z = (amplitude * np.exp(1j * (np.outer(z, waves.vector[:, 0]) + waves.phase))).astype(np.complex64)
    found = np.empty((len(z), len(y), len(x)), np.float32)

    def planes(first: int, last: int) -> None:
        for plane in range(first, last):
            add_waves(along_z[plane], along_y, cosine, sine, found[plane])

    threads.each_block(len(z), planes, block=1)
    return found


def mean_square_slope(waves: Waves) -> np.ndarray:
    """Mean square derivative (1/m2) of the field along z, y and x: the second moments of its spectrum."""
    return np.asarray((waves.vector**2).mean(axis=0))


def surface_density(wavenumber: float) -> float:
    """Area (1/m) of the zero level of an isotropic field in a unit of volume, ``2 k / (pi sqrt 3)``.

    Rice's formula: E|slope| times the density of the value at zero.
    """
    return 2 * wavenumber / (math.pi * math.sqrt(3))


def line_density(wavenumber: float) -> float:
    """Length (1/m2) of the lines on which two independent isotropic fields are zero, ``k^2 / (3 pi)``."""
    return wavenumber**2 / (3 * math.pi)
