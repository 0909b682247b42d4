"""One case on one rung of the ladder: the noise-free scan, what is true of it, and what the estimator may know.

The rungs are never mixed: ``matched`` evaluates the estimator's own fitted equation on the truth, ``pools`` sums all
pools of the phantom through the physics of the sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import phantoms
from ..errors import InputError
from ..simulator import tissues
from ..simulator.acquisition.protocol import Protocol, protocols
from ..simulator.model import Model, cramer_rao_bound
from ..simulator.scan import scan
from .study import Study

# A nuisance that the scanner holds, not the tissue: the efficiency inside the stop bands of the fat suppression.
SUPPRESSION = "suppression"


@dataclass(frozen=True)
class Scene:
    """A case as it is scanned: one voxel per subject, noise-free.

    Attributes
    ----------
    clean : DataArray (z = 1, y = subject, x = 1, encoding)
        The noise-free scan.
    truth : mapping
        (quantity, measurand) -> (subject,) array; NaN where no protocol-free value exists.
    known : mapping
        What an estimator may be told: scalars, or (subject,) arrays; population means where nuisances are drawn.
    theta : mapping
        Matched rung: the parameters of the equation; else empty.
    """

    clean: xr.DataArray
    truth: Mapping[tuple[str, str], NDArray[np.float64]]
    known: Mapping[str, Any]
    theta: Mapping[str, float]

    @property
    def subjects(self) -> int:
        """How many subjects, each with nuisances of his own."""
        return int(self.clean.sizes["y"])


def protocol_of(name: str | Protocol) -> Protocol:
    """A named preset, the path of a TOML file, or a protocol itself."""
    return name if isinstance(name, Protocol) else protocols.get(name)


def phantom_of(study: Study, values: Mapping[str, Any], subjects: int = 1) -> Any:
    """The study's block of tissue, one voxel a subject; values are scalars or (subject,) arrays."""
    build = getattr(phantoms, study.phantom, None)
    if build is None:
        raise InputError(f"{study.path}: phantom = {study.phantom!r}; one of {', '.join(phantoms.registry)}")
    accepted = inspect.signature(build).parameters
    chosen = {
        name: np.reshape(value, (1, -1, 1)) if np.ndim(value) else value
        for name, value in values.items()
        if name in accepted
    }
    return build(shape=(1, subjects, 1), field=study.field, **chosen)


def draw(study: Study, rng: np.random.Generator, subjects: int) -> dict[str, NDArray[np.float64]]:
    """Nuisances of each subject, uniform over the ranges of ``tissues.toml``."""
    ranges = tissues.ranges(study.tissue, study.field)
    missing = [name for name in study.nuisances if name not in ranges]
    if missing:
        raise InputError(f"{study.path}: nuisances: {missing[0]!r} has no range in tissue {study.tissue!r}")
    return {name: rng.uniform(*ranges[name], size=subjects) for name in study.nuisances}


def scene(
    study: Study,
    values: Mapping[str, float],
    rung: str,
    protocol: Protocol,
    *,
    model: Model,
    nuisances: Mapping[str, NDArray[np.float64]] | None = None,
    switches: Mapping[str, Any] | None = None,
) -> Scene:
    """Scan a case without noise.

    Parameters
    ----------
    study : Study
    values : mapping
        Tissue values of the case.
    rung : {"matched", "pools"}
    protocol : Protocol
    model : Model
        The equation that the estimator fits; the matched rung scans it.
    nuisances : mapping, optional
        Drawn nuisances, (subject,) arrays. The estimator is then told the population means.
    switches : mapping, optional
        Confounders of the sequence, as `simulator.scan` takes them.
    """
    means = tissues.defaults(study.tissue, study.field) if study.tissue else {}
    told = {**{name: means[name] for name in study.nuisances if name in means}, **values}
    if rung == "matched":
        return _matched(study, values, told, protocol, model)
    drawn = {name: value for name, value in (nuisances or {}).items() if name not in values}
    subjects = next((len(value) for value in drawn.values()), 1)
    tissue = {**means_of_nuisances(study, means), **values, **drawn}
    phantom = phantom_of(study, tissue, subjects)
    clean = _scan_pools(phantom, protocol, tissue, subjects, dict(switches or {}))
    return Scene(clean, _truth(phantom, protocol, subjects), told, {})


def means_of_nuisances(study: Study, means: Mapping[str, float]) -> dict[str, float]:
    """Population means of the study's nuisances."""
    return {name: means[name] for name in study.nuisances if name in means}


def _matched(
    study: Study, values: Mapping[str, float], told: Mapping[str, Any], protocol: Protocol, model: Model
) -> Scene:
    """The fitted equation on the truth of the phantom: the estimator's own parameters are what is true here."""
    phantom = phantom_of(study, values)
    theta: dict[str, float] = {}
    extra: dict[str, float] = {}
    for name in (quantity.name for quantity in model.unknowns):
        # A protocol quantity (adc) is true of the phantom at this protocol; what no phantom has comes from the case.
        for source in (lambda: phantom.truth, lambda: phantom.truth_at(protocol)):
            found = source()
            if name in found and bool(found[name].notnull().all()):
                theta[name] = float(found[name].values.ravel()[0])
                break
            if name in told:
                theta[name] = extra[name] = float(told[name])
                break
    missing = [quantity.name for quantity in model.unknowns if quantity.name not in theta]
    if missing:
        raise InputError(f"{study.path}: rung matched of {model.name} needs a value of {missing[0]!r}")
    clean = scan(phantom, protocol, rung="matched", equation=model, values=extra)
    truth = {}
    for name, value in theta.items():
        truth[name, name] = np.array([value])
        truth[name, f"{name}_app"] = np.array([value])
    return Scene(clean, truth, {**told, **theta}, theta)


def _scan_pools(
    phantom: Any, protocol: Protocol, tissue: Mapping[str, Any], subjects: int, switches: dict[str, Any]
) -> xr.DataArray:
    efficiency = tissue.get(SUPPRESSION)
    if efficiency is None or "fat_suppression" in switches:
        return scan(phantom, protocol, rung="pools", **switches)
    if not np.ndim(efficiency):
        return scan(phantom, protocol, rung="pools", fat_suppression=float(efficiency), **switches)
    # The suppression of a scan is one number, so subjects who differ in it are scanned one by one.
    parts = [
        scan(_Subject(phantom, i), protocol, rung="pools", fat_suppression=float(efficiency[i]), **switches)
        for i in range(subjects)
    ]
    joined = xr.concat(parts, "y", combine_attrs="drop_conflicts", join="outer")
    joined.attrs["signal_reference"] = float(np.median([part.attrs["signal_reference"] for part in parts]))
    return joined.transpose("z", "y", "x", ...)


class _Subject:
    """One voxel of a block, as a phantom of its own."""

    def __init__(self, phantom: Any, index: int) -> None:
        self.truth = phantom.truth.isel(y=[index])
        self.pools = phantom.pools.isel(y=[index])


def _truth(phantom: Any, protocol: Protocol, subjects: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Truth by quantity and measurand: ``f_app`` is a second truth of the quantity ``f``."""
    found = {}
    for source in (phantom.truth, phantom.truth_at(protocol)):
        for name in source.data_vars:
            flat = np.asarray(source[name].values, float).reshape(subjects)
            found[str(name), str(name)] = flat
            if str(name).endswith("_app"):
                found[str(name)[: -len("_app")], str(name)] = flat
    return found


def bound(
    model: Model, free: Sequence[str], theta: Mapping[str, float], protocol: Protocol, noise_sd: float
) -> dict[str, float]:
    """Cramer-Rao bound (SD) of each free unknown for Rician magnitudes; NaN where theta is incomplete.

    Averages lower the noise of the image, and so the bound.
    """
    names = [quantity.name for quantity in model.unknowns]
    free = [name for name in free if name in names]
    if not free or not all(np.isfinite(theta.get(name, np.nan)) for name in names):
        return dict.fromkeys(free, np.nan)
    image_sd = noise_sd / np.sqrt(protocol.averages)
    found = cramer_rao_bound(model, {name: theta[name] for name in names}, protocol, image_sd, "rician", free)
    return dict(zip(free, map(float, found[0]), strict=True))


def replicate(clean: xr.DataArray, n: int) -> xr.DataArray:
    """Each subject's voxel repeated along x, so that there are about `n` voxels in all."""
    each = max(1, n // clean.sizes["y"])
    first = clean.isel(x=0, drop=True)
    wide = first.expand_dims(x=np.arange(each, dtype=float)).transpose("z", "y", "x", ...)
    wide.attrs = dict(clean.attrs)
    return wide
