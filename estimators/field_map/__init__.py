"""The field of water-fat MRI, by a global choice among every minimum of every voxel."""

from .solution import FieldMap, solve

__all__ = ["FieldMap", "solve"]
