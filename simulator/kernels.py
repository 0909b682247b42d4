"""Prints one compiled kernel per equation, and keeps compiled modules in a cache on disk.

A kernel handles one encoding point and `LANES` voxels:

    kernel(theta[unknown, lane], x[shared], y[channel, lane], jac[channel * free + unknown, lane])

`theta` holds the free unknowns, then the values held per voxel; `x` the settings shared by all voxels; a complex
signal is two real channels. Parts that no lane value enters are computed once, before the loop over lanes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    import sympy
    from sympy.printing.pycode import PythonCodePrinter

_HERE = Path(__file__).parent
_LOADING = threading.RLock()
_F2, _F1 = numba.types.float64[:, ::1], numba.types.float64[::1]
SIGNATURE = numba.types.void(_F2, _F1, _F2, _F2)
# Passed as a pointer with an explicit signature: a dispatcher or a closure would miss the cache in every process.
KERNEL = numba.types.FunctionType(SIGNATURE)


def cache_directory() -> Path:
    """Where compiled modules are kept: `$BONEMRI_CACHE`, else the user's cache, else a temporary folder."""
    named = os.environ.get("BONEMRI_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    # the folder for temporary files is shared by all users: each keeps a cache of their own there
    user = f"bonemri-{os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME', 'user')}"
    folders = [Path(home) / "bonemri", Path(tempfile.gettempdir()) / user]
    for folder in [Path(named), *folders] if named else folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # a folder that exists may still refuse to be written
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="bonemri-"))


def digest(*parts: object) -> str:
    """Name of a compiled module: it changes with the parts, the lanes, this printer, and numba."""
    printer = (_text("lanes.py"), _text("kernels.py"), numba.__version__, sys.version_info[:2])
    text = "\0".join(map(str, (*parts, *printer)))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@cache
def _text(name: str) -> str:
    """Text of a source file beside this one; the code that runs is that of the first reading."""
    return (_HERE / name).read_text(encoding="utf-8")


def module(stem: str, key: str, source: str | Callable[[], str], package: str = __package__) -> ModuleType:
    """The module `stem` of the cache, written when absent; `source` is its text, or a function that prints it.

    The module lives in the package by name, so that its relative imports work, and numba keeps its machine code
    beside it. It is written beside and renamed, so that two processes cannot meet half a file.
    """
    name = f"{package}._{stem}_{key}"
    with _LOADING:  # a module is known by its name before it has run: a second thread must not see it half-way
        return sys.modules[name] if name in sys.modules else _load(name, stem, key, source)


def _load(name: str, stem: str, key: str, source: str | Callable[[], str]) -> ModuleType:
    file = cache_directory() / f"_{stem}_{key}.py"
    if not file.exists():
        handle, beside = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(source if isinstance(source, str) else source())
        os.replace(beside, file)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # before it runs: numba finds cached machine code by the module's name
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


@cache
def compiled(file: Path) -> ModuleType:
    """A source file of ours as a cached module of the package it stands in: loops (`sweep.py`, `levenberg.py`)."""
    text = file.read_text(encoding="utf-8")
    package = ".".join([__package__.rpartition(".")[0], *file.parent.relative_to(_HERE.parent).parts])
    return module(file.stem, digest(text), text, package)


def channels(expression: sympy.Expr) -> list[sympy.Expr]:
    """A complex signal is two real ones."""
    import sympy as sp

    return list(expression.as_real_imag()) if expression.has(sp.I) else [expression]


def linear(expression: sympy.Expr, free: Sequence[sympy.Symbol]) -> list[sympy.Symbol]:
    """Largest set of unknowns in which the signal is jointly affine: their mixed second derivatives vanish.

    Structurally: nothing is simplified, so a set can be missed where only an identity makes it affine.
    """
    import sympy as sp

    pairs = itertools.combinations_with_replacement
    flat = {(a, b) for a, b in pairs(free, 2) if sp.diff(expression, a, b) == 0}
    sets = (s for size in range(len(free), 0, -1) for s in itertools.combinations(free, size))
    return next((list(s) for s in sets if all(p in flat for p in pairs(s, 2))), [])


def source(
    expression: sympy.Expr,
    free: Sequence[sympy.Symbol],
    held: Sequence[sympy.Symbol],
    shared: Sequence[sympy.Symbol],
) -> str:
    """Source text of the kernel of `expression` and its exact derivatives with respect to `free`."""
    import sympy as sp

    printer = _printer()
    named = linear(expression, free)
    # names of the declaration stay out of the code: `h0`, `i` or `lambda` may well be somebody's quantity
    code = {s: sp.Symbol(f"q{k}", real=True) for k, s in enumerate((*free, *held, *shared))}
    expression = expression.xreplace(code)
    free, held, shared = ([code[s] for s in part] for part in (free, held, shared))
    parts = channels(expression)
    outputs = [d for c in parts for d in (c, *(sp.diff(c, q) for q in free))]
    lane = {*free, *held}
    hoisted: dict[sp.Expr, sp.Symbol] = {}

    def hoist(e: sp.Expr) -> sp.Symbol:
        return hoisted.setdefault(e, sp.Symbol(f"h{len(hoisted)}", real=True))

    def split(e: sp.Expr) -> sp.Expr:
        """`e` with its largest lane-free parts hoisted out."""
        if e.is_Atom:
            return e
        if not e.free_symbols & lane:
            return hoist(e) if e.free_symbols else e
        if e.is_Add or e.is_Mul:
            fixed, rest = e.as_independent(*lane, as_Add=e.is_Add)
            if fixed.free_symbols and not fixed.is_Atom:
                return e.func(hoist(fixed), split(rest))
        return e.func(*map(split, e.args))

    common, final = sp.cse([split(e) for e in outputs], symbols=sp.numbered_symbols("t"), order="none")
    n, width = len(free), 1 + len(free)
    lines = [
        "from math import log, sqrt",
        "from numba import njit",
        "from .kernels import SIGNATURE",
        "from .lanes import FASTMATH, LANES, cos, exp, expm1, rows, sin",
        f"LINEAR = {tuple(str(q) for q in named)!r}",
        f"CHANNELS = {len(parts)}",
        f"HELD = {len(held)}",
        '@njit(SIGNATURE, fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)',
        "def kernel(theta, x, y, jac):",
        f"    theta = rows(theta, ({len(lane)}, LANES))",
        f"    y = rows(y, ({len(parts)}, LANES))",
    ]
    lines += [f"    jac = rows(jac, ({len(parts) * n}, LANES))"] if n else []
    lines += [f"    {s} = x[{m}]" for m, s in enumerate(shared)]
    lines += [f"    {s} = {printer.doprint(e)}" for e, s in hoisted.items()]
    lines += ["    for i in range(LANES):"]
    lines += [f"        {s} = theta[{j}, i]" for j, s in enumerate((*free, *held))]
    lines += [f"        {s} = {printer.doprint(e)}" for s, e in common]
    for c in range(len(parts)):
        lines.append(f"        y[{c}, i] = {printer.doprint(final[c * width])}")
        lines += [f"        jac[{c * n + a}, i] = {printer.doprint(final[c * width + 1 + a])}" for a in range(n)]
    return "\n".join(lines) + "\n"


def _printer() -> PythonCodePrinter:
    from sympy.printing.pycode import PythonCodePrinter

    class Lanes(PythonCodePrinter):
        """Python text that uses the functions of `lanes`, multiplies out small powers, and keeps 17 digits."""

        def _print_Pow(self, e: sympy.Pow, rational: bool = False) -> str:
            base, power = e.as_base_exp()
            if power.is_Integer and 0 < abs(int(power)) <= 8:
                product = "*".join([f"({self._print(base)})"] * abs(int(power)))
                return f"({product})" if power > 0 else f"(1.0/({product}))"
            if power.is_Rational and power.q == 2 and abs(power.p) == 1:
                root = f"sqrt({self._print(base)})"
                return root if power.p == 1 else f"(1.0/{root})"
            return f"exp(({self._print(power)})*log({self._print(base)}))"

        def _print_Rational(self, e: sympy.Rational) -> str:
            return repr(float(e))

        def _print_Integer(self, e: sympy.Integer) -> str:
            return repr(float(e))

        def _print_Float(self, e: sympy.Float) -> str:
            return repr(float(e))

        def _print_NumberSymbol(self, e: sympy.NumberSymbol) -> str:
            return repr(float(e))

        _print_Pi = _print_NumberSymbol

        def _call(self, e: sympy.Function) -> str:
            return f"{type(e).__name__}({self._print(e.args[0])})"

        _print_exp = _print_expm1 = _print_sin = _print_cos = _print_log = _call

        def _print_ExpBase(self, e: sympy.exp) -> str:
            return self._call(e)

        def _print_Exp1(self, e: sympy.Expr) -> str:
            return repr(float(e))

        def _print_tan(self, e: sympy.tan) -> str:
            a = self._print(e.args[0])
            return f"(sin({a})/cos({a}))"

        def _print_Abs(self, e: sympy.Abs) -> str:
            return f"abs({self._print(e.args[0])})"

        def emptyPrinter(self, expr: object) -> str:
            raise ValueError(f"{expr} has no lane function; use exp, expm1, sin, cos, tan, log, sqrt, powers, Abs")

        _print_Function = _print_not_supported = emptyPrinter

    return Lanes({"fully_qualified_modules": False})
