"""Status of an estimate: why a voxel's value may not be trusted, as CF flag bits."""

from enum import IntFlag


class Status(IntFlag):
    """Bits of `status`; 0 is good."""

    INVALID = 1  # data that are not finite, negative where a magnitude is due, or all zero
    NOT_CONVERGED = 2
    AT_BOUND = 4
    NOT_IDENTIFIABLE = 8  # this protocol does not determine the value
    LOW_SIGNAL = 16
    OUTSIDE_DOMAIN = 32  # outside the domain that the estimator's claims cover
    AMBIGUOUS = 64
    OUTSIDE_MASK = 128


def attributes() -> dict[str, object]:
    """CF attributes of a status variable."""
    import numpy as np

    return {
        "flag_masks": np.array([s.value for s in Status], dtype=np.uint16),
        "flag_meanings": " ".join(s.name.lower() for s in Status if s.name),
        "long_name": "status of the estimate; 0 is good",
        "units": "1",
    }
