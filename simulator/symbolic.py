"""An equation is written once: from one formula come signal, exact Jacobian, information, bound, LaTeX, kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .kernels import compiled, digest, module, source
from .model import Quantity, Values, columns
from .threads import each_block

if TYPE_CHECKING:
    import sympy

_SWEEP = Path(__file__).with_name("sweep.py")
_FUNCTIONS = ("exp", "sin", "cos", "tan", "log", "sqrt", "pi", "I", "Abs")  # by sympy's names; expm1 is added to them


@dataclass(frozen=True)
class Equation:
    """A closed-form signal equation, declared once.

    Parameters
    ----------
    name, title : str
        Name in the registry, and in words.
    formula : str or sympy expression
        The signal, in the names of unknowns and settings; `exp expm1 sin cos tan log sqrt pi I Abs` are known.
    unknowns : sequence of Quantity
        What a fit may estimate.
    settings : sequence of Quantity
        What the protocol sets.
    source : str
        Where the physics comes from (paper with DOI).
    assumptions : str
        What must hold for the formula to be true, and where it stops.
    where : mapping
        Named parts of the formula, for reading.

    Notes
    -----
    Satisfies the `Model` protocol. The text of the formula, not its derivative, is the key of the cache on disk: in
    a warm process nothing is parsed or differentiated.
    """

    name: str
    title: str
    formula: str | sympy.Expr
    unknowns: tuple[Quantity, ...]
    settings: tuple[Quantity, ...]
    source: str
    assumptions: str = ""
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [q.name for q in (*self.unknowns, *self.settings)]
        double = sorted({n for n in names if names.count(n) > 1})
        if double:
            raise InputError(f"equation {self.name}: {', '.join(double)} declared twice among unknowns and settings")

    @cached_property
    def symbols(self) -> dict[str, sympy.Symbol]:
        """The real symbol of each unknown and setting, by name."""
        import sympy as sp

        return {q.name: sp.Symbol(q.name, real=True) for q in (*self.unknowns, *self.settings)}

    @cached_property
    def expression(self) -> sympy.Expr:
        """The signal as a sympy expression in `symbols`.

        Raises
        ------
        InputError
            If the formula cannot be read, or uses a function without kernel or a name that is neither unknown nor
            setting.
        """
        import sympy as sp

        known = self._names()
        for part, text in self.where.items():
            known[part] = self._parse(text, known)
        expression = self._parse(self.formula, known) if isinstance(self.formula, str) else self.formula
        functions = {type(f).__name__ for f in expression.atoms(sp.Function, sp.Max, sp.Min)} - {*_FUNCTIONS, "expm1"}
        if functions:
            allowed = ", ".join((*_FUNCTIONS, "expm1"))
            raise InputError(f"equation {self.name}: no kernel for {', '.join(sorted(functions))}; known are {allowed}")
        strangers = sorted(map(str, expression.free_symbols - set(self.symbols.values())))
        if strangers:
            raise InputError(f"equation {self.name}: {', '.join(strangers)} is neither an unknown nor a setting")
        return expression

    def _parse(self, text: str, known: Mapping[str, Any]) -> sympy.Expr:
        import sympy as sp

        try:
            return sp.sympify(text, locals=dict(known))
        except (sp.SympifyError, SyntaxError, TypeError, AttributeError) as error:
            raise InputError(f"equation {self.name}: {text!r} is no formula ({type(error).__name__})") from None

    def _names(self) -> dict[str, Any]:
        """What a formula may name: functions, constants, unknowns and settings."""
        import sympy as sp
        from sympy.codegen.cfunctions import expm1

        return {name: getattr(sp, name) for name in _FUNCTIONS} | {"expm1": expm1} | self.symbols

    @property
    def latex(self) -> str:
        """The formula for print, with each quantity's own symbol; its named parts follow it."""
        import sympy as sp
        from sympy.codegen.cfunctions import expm1

        printed = {self.symbols[q.name]: q.latex for q in (*self.unknowns, *self.settings) if q.latex}
        parts = {name: sp.Symbol(name, real=True) for name in self.where}
        printed |= {symbol: rf"\mathrm{{{name}}}" for name, symbol in parts.items() if len(name) > 1}
        known = self._names() | parts

        def typeset(formula: str | sympy.Expr) -> str:
            shown = sp.sympify(formula, locals=known).replace(expm1, lambda x: sp.exp(x) - 1)
            return str(sp.latex(shown, symbol_names=printed))

        lines = {"S": self.formula} | {printed.get(parts[name], name): text for name, text in self.where.items()}
        return r",\quad ".join(f"{name} = {typeset(formula)}" for name, formula in lines.items())

    def compiled(self, free: Sequence[str], held: Sequence[str] = ()) -> ModuleType:
        """The module with the kernel that differentiates `free` and takes `held` per voxel; the rest is shared.

        Its `LINEAR` names the largest set of free unknowns in which the signal is affine.
        """
        shared = [q.name for q in (*self.unknowns, *self.settings) if q.name not in {*free, *held}]

        def text() -> str:
            s = self.symbols
            return source(self.expression, [s[n] for n in free], [s[n] for n in held], [s[n] for n in shared])

        key = digest(self.formula, sorted(self.where.items()), tuple(free), tuple(held), tuple(shared))
        return module(self.name, key, text)

    def arrange(
        self, protocol: Mapping[str, Any], n_voxel: int, free: Sequence[str], known: Mapping[str, Any] | None = None
    ) -> tuple[ModuleType, np.ndarray, np.ndarray]:
        """The kernel for a protocol, and the values that it takes.

        Parameters
        ----------
        protocol : mapping
            Each setting as a scalar, (point,) or (voxel, 1).
        n_voxel : int
        free : sequence of str
            The unknowns that are differentiated.
        known : mapping, optional
            Values of the unknowns that are not free: a scalar, or one a voxel.

        Returns
        -------
        kernel : module
            As `compiled` gives it.
        shared : ndarray, (point, shared)
            Settings and known values that all voxels share.
        held : ndarray, (voxel, held)
            Settings and known values that each voxel has for itself.

        Raises
        ------
        InputError
            If a setting is missing, or an array fits neither the points nor the voxels.
        """
        values: dict[str, np.ndarray] = {}
        for q in self.settings:
            if q.name not in protocol:
                raise InputError(f"equation {self.name}: the protocol lacks {q.name} ({q.unit}): {q.meaning}")
            values[q.name] = np.asarray(protocol[q.name], dtype=float)
        for name in (q.name for q in self.unknowns if q.name not in free):
            if known is None or name not in known:
                raise InputError(f"equation {self.name}: {name} is neither free nor given a value")
            v = np.asarray(known[name], dtype=float)
            values[name] = v.reshape(-1, 1) if v.ndim else v
        for name, v in values.items():
            if v.ndim > 2 or (v.ndim == 2 and (v.shape[1] != 1 or v.shape[0] not in (1, n_voxel))):
                expected = f"expected a scalar, (point,) or ({n_voxel}, 1)"
                raise InputError(f"equation {self.name}: {name} has shape {v.shape}; {expected}")
        held = [n for n, v in values.items() if v.ndim == 2]
        shared = [q.name for q in (*self.unknowns, *self.settings) if q.name in values and q.name not in held]
        lengths = {n: values[n].size for n in shared if values[n].ndim}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{n} {size}" for n, size in lengths.items())
            raise InputError(f"equation {self.name}: protocol arrays of different lengths ({listed})")
        n_point = next(iter(lengths.values()), 1)
        x, theta_held = np.empty((n_point, len(shared))), np.empty((n_voxel, len(held)))
        for m, n in enumerate(shared):
            x[:, m] = values[n]
        for j, n in enumerate(held):
            theta_held[:, j] = values[n][:, 0]
        return self.compiled(free, held), x, theta_held

    def _evaluate(self, theta: Values, protocol: Mapping[str, Any], jacobian: bool) -> tuple[np.ndarray, np.ndarray]:
        """Signal (voxel, point), and Jacobian (voxel, point, unknown) where asked for (of no voxels otherwise)."""
        values = columns(self.unknowns, theta)
        maps = [np.shape(v)[0] for v in protocol.values() if np.ndim(v) == 2]
        if maps and len(values) == 1:  # one tissue under a map of settings
            values = np.repeat(values, max(maps), axis=0)
        n_voxel, names = len(values), [q.name for q in self.unknowns]
        free = names if jacobian else []
        known = None if jacobian else dict(zip(names, values.T, strict=True))
        # without derivatives every unknown is held, so that the kernel computes nothing else
        kernel, x, held = self.arrange(protocol, n_voxel, free, known)
        theta_held = np.concatenate([values, held], axis=1) if jacobian else held
        signal, jac = sweep(kernel, theta_held, x, len(free))
        if kernel.CHANNELS == 2:
            return signal.view(complex)[..., 0], jac[:, :, 0] + 1j * jac[:, :, 1]
        return signal[..., 0], jac[:, :, 0]

    def signal(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Signal, (voxel, point), real or complex; see `Model`."""
        return self._evaluate(theta, protocol, jacobian=False)[0]

    def jacobian(self, theta: Values, protocol: Mapping[str, Any]) -> np.ndarray:
        """Exact derivative with respect to each unknown, (voxel, point, unknown); see `Model`."""
        return self._evaluate(theta, protocol, jacobian=True)[1]


def sweep(kernel: ModuleType, theta: np.ndarray, x: np.ndarray, n_free: int) -> tuple[np.ndarray, np.ndarray]:
    """Signal (voxel, point, channel) and Jacobian (voxel, point, channel, free) of a compiled kernel.

    `theta` is (voxel, free + held) and `x` (point, shared), as `Equation.arrange` gives them.
    """
    theta = np.ascontiguousarray(theta)
    signal = np.empty((len(theta), len(x), kernel.CHANNELS))
    jacobian = np.empty((len(theta) if n_free else 0, len(x), kernel.CHANNELS, n_free))
    loop = compiled(_SWEEP).sweep
    each_block(len(theta), lambda a, b: loop(kernel.kernel, theta, x, n_free, a, b, signal, jacobian))
    return signal, jacobian
