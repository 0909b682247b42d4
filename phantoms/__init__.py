"""Bones with known truth.

Each phantom is a function that returns a :class:`Phantom`: its ``pools`` are what a scanner sees, its ``truth``
follows from them. ``registry`` maps names to functions. :func:`cohort` draws people, :func:`person` gives their bones.
"""

from collections.abc import Callable

from ..errors import InputError
from .calcaneus import calcaneus
from .cohort import cohort, person
from .cortical import cortical
from .femur import femur
from .haversian import haversian
from .marrow import marrow_block
from .phantom import Phantom
from .spine import spine
from .tendon import tendon
from .trabecular import trabecular
from .vertebra import vertebra
from .vials import vials

registry: dict[str, Callable[..., Phantom]] = {
    "spine": spine,
    "vertebra": vertebra,
    "femur": femur,
    "calcaneus": calcaneus,
    "trabecular": trabecular,
    "cortical": cortical,
    "haversian": haversian,
    "tendon": tendon,
    "vials": vials,
    "marrow_block": marrow_block,
}


def get(name: str) -> Callable[..., Phantom]:
    """The phantom function called `name`.

    Raises
    ------
    InputError
        No phantom has that name.
    """
    if name not in registry:
        raise InputError(f"no phantom {name!r}; known: {', '.join(registry)}")
    return registry[name]


__all__ = ["Phantom", "cohort", "get", "person", "registry", *registry]
