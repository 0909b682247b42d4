"""Work in blocks of voxels, on as many threads as there are cores; results do not depend on how many."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..errors import InputError

BLOCK = 4096  # voxels; a multiple of the lanes, so that a voxel's neighbours in its lanes never change


def count() -> int:
    """Number of threads: `$BONEMRI_THREADS`, else the cores this process may use.

    Raises
    ------
    InputError
        If the variable is not a positive integer.
    """
    text = os.environ.get("BONEMRI_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"BONEMRI_THREADS is {text!r}; expected a positive integer")
    return int(text)


def each_block(n_voxel: int, work: Callable[[int, int], object], block: int = BLOCK) -> None:
    """Call `work(first, last)` for each block of voxels, in parallel where the work releases the interpreter.

    Parameters
    ----------
    n_voxel : int
    work : callable
        Takes the block's first voxel and the one after its last; what it gives back is dropped.
    block : int
        Voxels of a block.

    Raises
    ------
    InputError
        As `count`; whatever the work raises passes through.
    """
    edges = [(a, min(a + block, n_voxel)) for a in range(0, n_voxel, block)]
    if len(edges) < 2 or count() == 1:
        for a, b in edges:
            work(a, b)
        return
    with ThreadPoolExecutor(min(count(), len(edges))) as pool:
        for future in [pool.submit(work, a, b) for a, b in edges]:
            future.result()
