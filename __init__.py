"""Bones whose truth is known, scanned with honest physics, and estimators put on trial.

The floors of the house, each knowing only those below it::

    simulator      physics: equations, engines, acquisition
    phantoms       bones with known truth
    estimators     data to biomarker with uncertainty
    validation     truth against estimate

Nothing heavy is imported here: a floor is loaded when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors, estimators, phantoms, simulator, validation

__version__ = "0.1.0"

__all__ = ["__version__", "errors", "estimators", "phantoms", "simulator", "validation"]

_floors = frozenset({"errors", "estimators", "phantoms", "simulator", "validation"})


def __getattr__(name: str) -> Any:
    """Load a floor at its first use, so that ``bonemri --help`` need not wait for it."""
    if name in _floors:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _floors)
