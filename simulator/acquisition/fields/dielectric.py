"""Conductivity and permittivity of tissues at a Larmor frequency.

Source: Gabriel et al. 1996, doi:10.1088/0031-9155/41/11/003: sums of four Cole-Cole dispersions, 10 Hz to 100 GHz.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ....errors import InputError
from .loops import MU0

LIGHT = 299_792_458.0
"""Speed of light (m/s)."""

EPSILON0 = 1 / (MU0 * LIGHT**2)
"""Electric constant (F/m)."""


@dataclass(frozen=True)
class Dispersion:
    """A tissue: permittivity of endless frequency, conductivity at rest (S/m), dispersions (step, time (s), spread)."""

    fast: float
    conductivity: float
    steps: tuple[tuple[float, float, float], ...]


TISSUES: Mapping[str, Dispersion] = {
    "muscle": Dispersion(4.0, 0.2, ((50, 7.234e-12, 0.1), (7000, 353.678e-9, 0.1), (1.2e6, 318.310e-6, 0.1),
                                    (2.5e7, 2.274e-3, 0.0))),
    "fat": Dispersion(2.5, 0.035, ((9, 7.958e-12, 0.2), (35, 15.915e-9, 0.1), (3.3e4, 159.155e-6, 0.05),
                                   (1e7, 15.915e-3, 0.01))),
    "cortical_bone": Dispersion(2.5, 0.02, ((10, 13.263e-12, 0.2), (180, 79.577e-9, 0.2), (5e3, 159.155e-6, 0.2),
                                            (1e5, 15.915e-3, 0.0))),
    "cancellous_bone": Dispersion(2.5, 0.07, ((18, 13.263e-12, 0.22), (300, 79.577e-9, 0.25), (2e4, 159.155e-6, 0.2),
                                              (2e7, 15.915e-3, 0.0))),
    "red_marrow": Dispersion(2.5, 0.1, ((9, 14.469e-12, 0.2), (80, 15.915e-9, 0.1), (1e4, 1591.549e-6, 0.1),
                                        (2e6, 15.915e-3, 0.1))),
    "yellow_marrow": Dispersion(2.5, 0.001, ((3, 7.958e-12, 0.2), (25, 15.915e-9, 0.1), (5e3, 1591.549e-6, 0.1),
                                             (2e6, 15.915e-3, 0.1))),
}  # fmt: skip
"""Fat and red marrow are the source's "average infiltrated" and "infiltrated" ones, yellow marrow "not infiltrated"."""


def dielectric(tissue: str, frequency: float) -> tuple[float, float]:
    """Conductivity (S/m) and relative permittivity of a tissue of `TISSUES` at a frequency (Hz).

    Raises
    ------
    InputError
        An unknown tissue, or a frequency that is not above 0.
    """
    if tissue not in TISSUES:
        raise InputError(f"dielectric: tissue is {tissue!r}: expected one of {', '.join(TISSUES)}")
    if not (math.isfinite(frequency) and frequency > 0):
        raise InputError(f"dielectric: frequency is {frequency!r}: expected above 0 Hz")
    found, omega = TISSUES[tissue], 2 * math.pi * frequency
    epsilon = found.fast + found.conductivity / (1j * omega * EPSILON0)
    for step, time, spread in found.steps:
        epsilon += step / (1 + (1j * omega * time) ** (1 - spread))
    return -epsilon.imag * omega * EPSILON0, epsilon.real
