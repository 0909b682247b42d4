"""How k-space is read: one `Trajectory` from each builder, or from the entries of a protocol's readout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ....errors import InputError
from ..events.timeline import Hardware
from .cones import cones
from .lines import cartesian, epi
from .radial import radial_2d, radial_3d
from .readout import Trajectory

__all__ = ["BUILDERS", "Trajectory", "cartesian", "cones", "epi", "from_entries", "radial_2d", "radial_3d"]

BUILDERS: Mapping[str, Callable[..., Trajectory]] = MappingProxyType(
    {f.__name__: f for f in (cartesian, epi, radial_2d, radial_3d, cones)}
)


def from_entries(entries: Mapping[str, Any], where: str = "readout", **defaults: Any) -> Trajectory:
    """The trajectory that the entries of a protocol's readout describe.

    Parameters
    ----------
    entries : mapping
        ``trajectory``, the name of a builder of this module, and its parameters: ``matrix``, ``fov``, ``dwell``,
        ``spokes``, ... For every builder ``max_gradient`` (T/m) and ``max_slew`` (T/m/s), the limits of the scanner:
        cones keep them, the others warn.
    where : str
        What an error calls the entries.
    **defaults
        Parameters that the entries may leave out.

    Raises
    ------
    InputError
        A trajectory or an entry that is not known, one that is missing, a value that means nothing.
    """
    named = dict(entries)
    kind = named.pop("trajectory", None)
    if kind not in BUILDERS:
        raise InputError(f"{where}: trajectory is {kind!r}: expected {' or '.join(BUILDERS)}")
    parameters = inspect.signature(BUILDERS[kind]).parameters
    limits = {"gradient": "max_gradient", "slew": "max_slew"}
    known = [*parameters, *(name for name in limits.values() if name not in parameters)]
    for name in named:
        if name not in known:
            raise InputError(f"{where}: {name} is no entry of trajectory {kind}: expected some of {', '.join(known)}")
    hardware = Hardware(**{name: named.get(entry) for name, entry in limits.items()})
    given = {name: value for name, value in (defaults | named).items() if name in parameters}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"{where}: {name} is missing: trajectory {kind} needs it")
    try:
        trajectory = BUILDERS[kind](**given)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    trajectory.check(hardware)
    return trajectory
