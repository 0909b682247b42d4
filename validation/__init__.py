"""Floor 3, validation: truth against estimate. `run` puts estimators on trial and returns a `Trial`."""

from __future__ import annotations

from .run import run
from .trial import Judgement, Table, Trial

__all__ = ["Judgement", "Table", "Trial", "run"]
