"""Floor 4, the command line: bonemri phantom, simulate, estimate, validate."""

from .verbs import app, main, run

__all__ = ["app", "main", "run"]
