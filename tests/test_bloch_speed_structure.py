"""What makes the Bloch engine fast is visible in its machine code: loops over isochromats that are vectors."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from bonemri.simulator import kernels
from bonemri.simulator.engines import bloch

STEPS = "void(f8[:, ::1], f8[:, ::1], i8, i8)"
STAGES = {  # each with its signature, and how many multiply-adds a step of its loop over isochromats has at least
    "_pulse": (STEPS, 4 * 6),
    "_pulse_b1": (STEPS, 4 * 8),
    "_corrected": (STEPS, 4 * 14),
    "_varying": ("void(f8[:, ::1], f8, f8, f8[:, ::1], i8, i8)", 30),
}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
@pytest.mark.parametrize("name", STAGES)
def test_loops_are_vectors(name):
    """Packed multiply-adds for every step of a chunk; scalar ones may stand only in remainders and scalars."""
    signature, least = STAGES[name]
    loops = kernels.compiled(Path(bloch.__file__).with_name("isochromat_steps.py"))
    stage = getattr(loops, name)
    fresh = type(stage)(stage.py_func, stage.locals, stage.targetoptions)  # compiled anew: a cached one has no assembly
    fresh.compile(signature)
    (text,) = fresh.inspect_asm().values()
    packed = len(re.findall(r"\bvfn?m(?:add|sub)\d+pd\b|\bmulpd\b", text))
    if not packed and "vfmadd" not in text:
        pytest.skip("a processor without multiply-add")
    assert packed >= least
