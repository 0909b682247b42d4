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
            If the formula uses a name that is neither unknown nor setting.
        """
        import sympy as sp
        from sympy.codegen.cfunctions import expm1

        known = {"expm1": expm1, **{f: getattr(sp, f) for f in ("exp", "sin", "cos", "tan", "log", "sqrt", "pi", "I", "Abs")}}
        known.update(self.symbols)
        for part, text in self.where.items():
            known[part] = sp.sympify(text, locals=known)
        expression = sp.sympify(self.formula, locals=known) if isinstance(self.formula, str) else self.formula
        strangers = sorted(map(str, expression.free_symbols - set(self.symbols.values())))
        if strangers:
            raise InputError(f"equation {self.name}: {', '.join(strangers)} is neither an unknown nor a setting")
        return expression

    @property
    def latex(self) -> str:
        """The formula for print, with each quantity's own symbol."""
        import sympy as sp

        shown = self.expression.rewrite(sp.exp)
        symbols = {self.symbols[q.name]: q.latex for q in (*self.unknowns, *self.settings) if q.latex}
        return "S = " + sp.latex(shown, symbol_names=symbols)

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
        """The kernel's module, the shared values (point, shared) and the held values (voxel, held) of a protocol.

        Parameters
        ----------
        protocol : mapping
            Each setting as a scalar, (point,) or (voxel, 1).
        n_voxel : int
        free : sequence of str
            The unknowns that are differentiated.
        known : mapping, optional
            Values of the unknowns that are not free: a scalar, or one a voxel.

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
        held = [n for n, v in values.items() if v.ndim == 2]
        for name, v in values.items():
            if v.ndim > 2 or (v.ndim == 2 and (v.shape[1] != 1 or v.shape[0] not in (1, n_voxel))):
                raise InputError(f"equation {self.name}: {name} has shape {v.shape}; expected a scalar, (point,) or ({n_voxel}, 1)")
        shared = [values[n] for n in values if n not in held]
        order = [q.name for q in (*self.unknowns, *self.settings) if q.name in values and q.name not in held]
        sizes = {v.size for v in shared if v.ndim}
        if len(sizes) > 1:
            lengths = ", ".join(f"{n} {values[n].size}" for n in order if values[n].ndim)
            raise InputError(f"equation {self.name}: protocol arrays of different lengths ({lengths})")
        n_point = sizes.pop() if sizes else 1
        x = np.stack([np.broadcast_to(values[n], n_point) for n in order], axis=-1) if order else np.zeros((n_point, 0))
        h = np.concatenate([np.broadcast_to(values[n], (n_voxel, 1)) for n in held], axis=1) if held else np.zeros((n_voxel, 0))
        return self.compiled(free, held), np.array(x, order="C"), np.ascontiguousarray(h)

    def _evaluate(self, theta: Values, protocol: Mapping[str, Any], jacobian: bool) -> tuple[np.ndarray, np.ndarray]:
        values = columns(self.unknowns, theta)
        maps = [np.shape(protocol[k])[0] for k in protocol if np.ndim(protocol[k]) == 2]
        if maps and len(values) == 1:
            values = np.repeat(values, max(maps), axis=0)
        n_voxel, names = len(values), [q.name for q in self.unknowns]
        free = names if jacobian else []
        known = None if jacobian else dict(zip(names, values.T, strict=True))
        # without derivatives every unknown is held, so that the kernel computes nothing else
        kernel, x, held = self.arrange(protocol, n_voxel, free, known)
        theta_held = np.concatenate([values, held], axis=1) if jacobian else held
        signal, jac = sweep(kernel, theta_held, x, len(free))
        channels = kernel.CHANNELS
        if channels == 2:
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
