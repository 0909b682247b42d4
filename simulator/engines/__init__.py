"""Independent witnesses: numerical physics that imports no equation and knows no phantom."""

from . import susceptibility

__all__ = ["susceptibility"]
