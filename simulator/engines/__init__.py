"""Numerical physics that imports no equation: independent witnesses of the closed forms."""

from . import susceptibility

__all__ = ["susceptibility"]
