"""The rungs of the ladder: what each makes of a phantom, as a signal of every voxel at every point.

Every one gives the same answer whatever the number of voxels in work at a time.
"""

from .engine import Engine
from .kspace import KSpace
from .matched import Matched, unknowns_of
from .played import PlayedKSpace
from .pools import Pools
from .scannable import Scannable

__all__ = ["Engine", "KSpace", "Matched", "PlayedKSpace", "Pools", "Scannable", "unknowns_of"]
