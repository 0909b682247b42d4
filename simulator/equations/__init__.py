"""The declared signal equations, a textbook page a file.

`registry` maps each equation's name to its `Equation`; tests and tables run over it.
"""

from ...errors import InputError
from ..symbolic import Equation
from . import diffusion, relaxation

registry: dict[str, Equation] = {
    e.name: e for page in (relaxation, diffusion) for e in vars(page).values() if isinstance(e, Equation)
}
globals().update(registry)


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
