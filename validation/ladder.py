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
from ..simulator import sequences, tissues
from ..simulator.acquisition.noise import signal_reference
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


def phantom_of(study: Study, values: Mapping[str, Any], voxels: int) -> Any:
    """The study's block of tissue with its voxels along y; values are scalars or (voxel,) arrays."""
    build = getattr(phantoms, study.phantom, None)
    if build is None:
        raise InputError(f"{study.path}: phantom = {study.phantom!r}; one of {', '.join(phantoms.registry)}")
    accepted = inspect.signature(build).parameters
    chosen = {
        name: np.reshape(value, (1, -1, 1)) if np.ndim(value) else value
        for name, value in values.items()
        if name in accepted
    }
    return build(shape=(1, voxels, 1), field=study.field, **chosen)


def draw(study: Study, rng: np.random.Generator, subjects: int) -> dict[str, NDArray[np.float64]]:
    """Nuisances of each subject, uniform over the ranges of ``tissues.toml``."""
    ranges = tissues.ranges(study.tissue, study.field)
    missing = [name for name in study.nuisances if name not in ranges]
    if missing:
        raise InputError(f"{study.path}: nuisances: {missing[0]!r} has no range in tissue {study.tissue!r}")
    return {name: rng.uniform(*ranges[name], size=subjects) for name in study.nuisances}


def scenes(
    study: Study,
    cases: Sequence[Mapping[str, float]],
    rung: str,
    protocol: Protocol,
    *,
    model: Model,
    nuisances: Mapping[str, NDArray[np.float64]] | None = None,
    switches: Mapping[str, Any] | None = None,
) -> list[Scene]:
    """Scan cases without noise: all of them as voxels of one block, which is then taken apart.

    Parameters
    ----------
    study : Study
    cases : sequence of mapping
        Tissue values of each case; all name the same quantities.
    rung : {"matched", "pools"}
    protocol : Protocol
    model : Model
        The equation that the estimator fits; the matched rung scans it.
    nuisances : mapping, optional
        Drawn nuisances, (subject,) arrays, the same subjects in every case. The estimator is then told population
        means.
    switches : mapping, optional
        Confounders of the sequence, as `simulator.scan` takes them.
    """
    means = tissues.defaults(study.tissue, study.field) if study.tissue else {}
    means = {name: means[name] for name in study.nuisances if name in means}
    if SUPPRESSION in means:  # what the suppression leaves of the fat: how an equation, which has no peaks, knows it
        left = protocol.fat_suppression.with_efficiency(means[SUPPRESSION])
        means["residual"] = left.residual(*tissues.spectrum())
    drawn = {name: value for name, value in (nuisances or {}).items() if name not in cases[0]}
    subjects = next((len(value) for value in drawn.values()), 1)
    voxels = len(cases) * subjects
    values = {name: np.repeat([case[name] for case in cases], subjects) for name in cases[0]}
    if rung == "matched":
        phantom = phantom_of(study, values, voxels)
        theta = _theta(study, phantom, protocol, model, {**means, **values})
        extra = {name: value.reshape(1, voxels, 1) for name, value in theta.items() if name not in phantom.truth}
        images = [scan(phantom, at, rung="matched", equation=model, values=extra) for at in _with_reference(protocol)]
        truth = {(name, kind): value for name, value in theta.items() for kind in (name, f"{name}_app")}
    else:
        theta = {}
        tissue = {**means, **values, **{name: np.tile(value, len(cases)) for name, value in drawn.items()}}
        phantom = phantom_of(study, tissue, voxels)
        images = [_scan_pools(phantom, at, tissue, voxels, dict(switches or {})) for at in _with_reference(protocol)]
        truth = _truth(phantom, protocol, voxels)
    found = []
    for number, case in enumerate(cases):
        part = slice(number * subjects, (number + 1) * subjects)
        clean = images[0].isel(y=part).copy()
        clean.attrs["signal_reference"] = signal_reference(images[1].values.reshape(voxels, -1)[part])
        own = {name: float(value[number]) for name, value in theta.items()}
        found.append(Scene(clean, {key: value[part] for key, value in truth.items()}, {**means, **case, **own}, own))
    return found


def scene(study: Study, values: Mapping[str, float], rung: str, protocol: Protocol, **more: Any) -> Scene:
    """One case; see `scenes`."""
    return scenes(study, [values], rung, protocol, **more)[0]


def _with_reference(protocol: Protocol) -> tuple[Protocol, Protocol]:
    """The protocol, and the one-point protocol at which the SNR is defined."""
    return protocol, sequences.get(protocol.sequence).reference(protocol)


def _theta(
    study: Study, phantom: Any, protocol: Protocol, model: Model, told: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """The equation's unknowns on the truth of the phantom: on this rung the estimator's own parameters are true.

    A protocol quantity (adc) is true of the phantom at this protocol; what no phantom has comes from the case.
    """
    voxels = phantom.truth.sizes["y"]
    theta = {}
    for name in (quantity.name for quantity in model.unknowns):
        source = phantom.truth if name in phantom.truth else phantom.truth_at(protocol) if name not in told else {}
        if name in source and bool(source[name].notnull().all()):
            theta[name] = np.asarray(source[name].values, float).reshape(voxels)
        elif name in told:
            theta[name] = np.broadcast_to(np.asarray(told[name], float), (voxels,))
        else:
            raise InputError(f"{study.path}: rung matched of {model.name} needs a value of {name!r}")
    return theta


def _scan_pools(
    phantom: Any, protocol: Protocol, tissue: Mapping[str, Any], voxels: int, switches: dict[str, Any]
) -> xr.DataArray:
    efficiency = tissue.get(SUPPRESSION)
    if efficiency is None or "fat_suppression" in switches:
        return scan(phantom, protocol, rung="pools", **switches)
    if np.size(np.unique(efficiency)) == 1:
        return scan(phantom, protocol, rung="pools", fat_suppression=float(np.unique(efficiency)[0]), **switches)
    # The suppression of a scan is one number, so subjects who differ in it are scanned apart.
    image = np.empty((voxels, protocol.points))
    for value in np.unique(efficiency):
        alike = np.flatnonzero(efficiency == value)
        part = scan(_Some(phantom, alike), protocol, rung="pools", fat_suppression=float(value), **switches)
        image[alike] = part.values.reshape(alike.size, -1)
    whole = part.isel(y=0, drop=True).expand_dims(y=np.arange(voxels)).transpose("z", "y", "x", ...)
    return whole.copy(data=image.reshape(whole.shape))


class _Some:
    """Some voxels of a block, as a phantom of their own."""

    def __init__(self, phantom: Any, voxels: NDArray[np.intp]) -> None:
        self.truth = phantom.truth.isel(y=voxels)
        self.pools = phantom.pools.isel(y=voxels)


def _truth(phantom: Any, protocol: Protocol, voxels: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Truth by quantity and measurand: ``f_app`` is a second truth of the quantity ``f``."""
    found = {}
    for source in (phantom.truth, phantom.truth_at(protocol)):
        for name in source.data_vars:
            flat = np.asarray(source[name].values, float).reshape(voxels)
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
