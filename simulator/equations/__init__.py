"""The declared signal equations, a textbook page a file.

`registry` maps each equation's name to its `Equation`; tests and tables run over it.
"""

from ...errors import InputError
from ..symbolic import Equation
from . import diffusion, dixon, relaxation, ute

registry: dict[str, Equation] = {
    e.name: e for page in (relaxation, diffusion, ute, dixon) for e in vars(page).values() if isinstance(e, Equation)
}


def __getattr__(name: str) -> Equation:
    """`equations.ivim` is the equation called ivim."""
    if name in registry:
        return registry[name]
    raise AttributeError(f"no equation {name!r}; known are {', '.join(registry)}")


def get(name: str) -> Equation:
    """The equation called `name`.

    Raises
    ------
    InputError
        If no equation has that name.
    """
    if name not in registry:
        raise InputError(f"equation {name!r} is unknown; known are {', '.join(registry)}")
    return registry[name]


__all__ = ["get", "registry", *registry]
