"""One case on one rung of the ladder: the noise-free scan, what is true of it, and what the estimator may know.

The rungs are never mixed: ``matched`` evaluates the estimator's own fitted equation on the truth, ``pools`` sums all
pools of the phantom through the closed-form physics of the sequence, ``engine`` through its pulses, and ``scan`` puts
that through k-space.

A case names values of the tissue (``pdff``), of the scanner (``fieldmap``, ``B1``) and of the equation (``phase``):
phantom, scanner and equation take each their own of them.
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
from ..simulator.acquisition.scanner import Scanner
from ..simulator.constants import GYROMAGNETIC
from ..simulator.model import Model, information
from ..simulator.scan import scan
from . import derived
from .defendant import Defendant
from .study import Study

# A nuisance that the scanner holds, not the tissue: the efficiency inside the stop bands of the fat suppression.
SUPPRESSION = "suppression"
TEMPERATURE = "temperature"  # of the water (C); the truth of the field map moves with it
PHASE_OF_FAT = "phase_fat"
EDGE = 1e-4  # of a fat fraction: the bound moves by about as much of itself
# What a whole block or a whole scan has one of: subjects who differ in it are scanned apart.
APART = (SUPPRESSION, TEMPERATURE, "ndb", "nmidb", "chain_length")


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


def protocol_of(name: str | Protocol, own: Mapping[str, Mapping[str, Any]] | None = None) -> Protocol:
    """A protocol itself, one of a study's `own`, a named preset, or the path of a TOML file."""
    if isinstance(name, Protocol):
        return name
    if own and name in own:
        changes = {key: tuple(v) if isinstance(v, list) else v for key, v in own[name].items() if key != "from"}
        return protocols.get(str(own[name]["from"])).replace(name=name, **changes)
    return protocols.get(name)


def phantom_of(study: Study, values: Mapping[str, Any], voxels: int, field: float) -> Any:
    """The study's block of tissue with its voxels along y; values are scalars or (voxel,) arrays, the field in T.

    An ``r2star`` is what water decays with: R2' makes up what its T2 leaves.
    """
    build = getattr(phantoms, study.phantom, None)
    if build is None:
        raise InputError(f"{study.path}: phantom = {study.phantom!r}; one of {', '.join(phantoms.registry)}")
    accepted = inspect.signature(build).parameters
    if "r2star" in values and "R2_prime" in accepted:
        values = {"R2_prime": np.asarray(values["r2star"]) - 1 / np.asarray(values["T2_water"]), **values}
    chosen = {
        name: np.reshape(value, (1, -1, 1)) if np.ndim(value) else value
        for name, value in values.items()
        if name in accepted
    }
    return build(shape=(1, voxels, 1), field=field, **chosen)


def draw(study: Study, rng: np.random.Generator, subjects: int) -> dict[str, NDArray[np.float64]]:
    """Nuisances of each subject, uniform over the ranges of ``tissues.toml`` or of the study."""
    ranges = {**tissues.ranges(study.tissue, study.field), **study.ranges}
    missing = [name for name in study.nuisances if name not in ranges]
    if missing:
        raise InputError(f"{study.path}: nuisances: {missing[0]!r} has no range in tissue {study.tissue!r}")
    return {name: rng.uniform(*ranges[name], size=subjects) for name in study.nuisances}


def population(study: Study, field: float) -> dict[str, float]:
    """What is known of the nuisances of people one has not measured: the means of the tissue, the middles of ranges."""
    means = tissues.defaults(study.tissue, field) if study.tissue else {}
    means |= {name: (low + high) / 2 for name, (low, high) in study.ranges.items()}
    return {name: means[name] for name in study.nuisances if name in means}


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
    rung : {"matched", "pools", "engine", "scan"}
    protocol : Protocol
    model : Model
        The equation that the estimator fits; the matched rung scans it.
    nuisances : mapping, optional
        Drawn nuisances, (subject,) arrays, the same subjects in every case. The estimator is then told population
        means.
    switches : mapping, optional
        Confounders of the sequence, as `simulator.scan` takes them.
    """
    means = population(study, protocol.field_strength)
    if SUPPRESSION in means:  # what the suppression leaves of the fat: how an equation, which has no peaks, knows it
        left = protocol.fat_suppression.with_efficiency(means[SUPPRESSION])
        means["residual"] = left.residual(*tissues.spectrum())
    drawn = {name: value for name, value in (nuisances or {}).items() if name not in cases[0]}
    subjects = next((len(value) for value in drawn.values()), 1)
    voxels = len(cases) * subjects
    theta: dict[str, NDArray[np.float64]] = {}
    values = {name: np.repeat([case[name] for case in cases], subjects) for name in cases[0]}
    if rung == "matched":
        own_tissue = {name: value for name, value in values.items() if name != "r2star"}
        phantom = phantom_of(study, own_tissue, voxels, protocol.field_strength)
        bare = _Whole(phantom, values)
        theta = _theta(study, bare, protocol, model, {**means, **values})
        extra = {name: value.reshape(1, voxels, 1) for name, value in theta.items() if name not in bare.truth}
        images = [scan(bare, at, rung="matched", equation=model, values=extra) for at in _with_reference(protocol)]
        given = {name: values[name] for name in derived.QUANTITIES if name in values}
        truth = {(name, kind): value for name, value in {**theta, **given}.items() for kind in (name, f"{name}_app")}
    else:
        tissue: dict[str, Any] = {
            **means,
            **values,
            **{name: np.tile(value, len(cases)) for name, value in drawn.items()},
        }
        images, truth = _scan_tissue(study, tissue, voxels, rung, protocol, dict(switches or {}))
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


def told(known: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """Of what is known, what an estimator is told: the names that are listed, everything without a list."""
    return {name: value for name, value in known.items() if names is None or name in names}


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
    names = [quantity.name for quantity in model.unknowns]
    told = {**derived.unknowns(told), **told}
    if any(name in phantom.truth for name in names):
        density = np.asarray(phantom.truth["S0"].values, float).reshape(voxels)
        told = {**told, **derived.unknowns({"S0": density, **told})}
    theta = {}
    for name in names:
        source = phantom.truth if name in phantom.truth else _truth_at(phantom, protocol) if name not in told else {}
        if name in source and bool(source[name].notnull().all()):
            theta[name] = np.asarray(source[name].values, float).reshape(voxels)
        elif name in told:
            theta[name] = np.broadcast_to(np.asarray(told[name], float), (voxels,))
        else:
            raise InputError(f"{study.path}: rung matched of {model.name} needs a value of {name!r}")
    return theta


def _scan_tissue(
    study: Study, tissue: Mapping[str, Any], voxels: int, rung: str, protocol: Protocol, switches: dict[str, Any]
) -> tuple[list[xr.DataArray], dict[tuple[str, str], NDArray[np.float64]]]:
    """The scan, that of the reference point, and what is true, of voxels that are alike in what a block has one of."""
    apart = [name for name in APART if name in tissue and np.ndim(tissue[name])]
    if not apart:
        return _scan_alike(study, tissue, voxels, rung, protocol, switches)
    table = np.stack([np.broadcast_to(tissue[name], (voxels,)) for name in apart])
    kinds, kind = np.unique(table, axis=1, return_inverse=True)
    images: list[xr.DataArray] = []
    truth: dict[tuple[str, str], NDArray[np.float64]] = {}
    for number, value in enumerate(kinds.T):
        alike = np.flatnonzero(kind.ravel() == number)
        own = {name: each[alike] if np.ndim(each) else each for name, each in tissue.items()}
        own |= dict(zip(apart, map(float, value), strict=True))
        part, true = _scan_alike(study, own, alike.size, rung, protocol, switches)
        if not images:
            images = [_wider(image, voxels) for image in part]
            truth = {key: np.full(voxels, np.nan) for key in true}
        for whole, image in zip(images, part, strict=True):
            whole.values[:, alike] = image.values
        for key, each in true.items():
            truth[key][alike] = each
    return images, truth


def _scan_alike(
    study: Study, tissue: Mapping[str, Any], voxels: int, rung: str, protocol: Protocol, switches: dict[str, Any]
) -> tuple[list[xr.DataArray], dict[tuple[str, str], NDArray[np.float64]]]:
    switches = dict(switches)
    if SUPPRESSION in tissue and "fat_suppression" not in switches:
        switches["fat_suppression"] = float(tissue[SUPPRESSION])
    phantom = phantom_of(study, tissue, voxels, protocol.field_strength)
    warmer = 0.0
    if TEMPERATURE in tissue:
        warmer = tissues.water_shift(float(tissue[TEMPERATURE])) - tissues.water_shift()
        phantom = Warmed(phantom, warmer)
    b0, b1 = (None if name not in tissue else
              np.broadcast_to(np.asarray(tissue[name], float), (voxels,)).reshape(1, voxels, 1)
              for name in ("fieldmap", "B1"))  # fmt: skip
    scanner = None if b0 is None and b1 is None else Scanner(b0=b0, b1=b1)
    whole, reference = _with_reference(protocol)
    # where pulses are played the point at which the SNR is defined, TE 0, cannot be
    images = [scan(phantom, whole, rung=rung, scanner=scanner, **switches),
              scan(phantom, reference, rung="pools", scanner=scanner, **switches)]  # fmt: skip
    if rung == "scan":
        # the noise of a Cartesian image is white, as that of its samples: it may be drawn image by image
        images[0].attrs["rung"] = "scan, noise in the image"
    truth = _truth(phantom, protocol, voxels)
    if "fieldmap" in tissue or "off_resonance" in switches:  # where water stands: the field, and its own shift
        moved = warmer * 1e-6 * GYROMAGNETIC["1H"] * protocol.field_strength
        offset = np.asarray(tissue.get("fieldmap", 0.0), float) + switches.get("off_resonance", 0.0) + moved
        truth["fieldmap", "fieldmap"] = np.broadcast_to(offset, (voxels,))
    return images, truth


def _wider(image: xr.DataArray, voxels: int) -> xr.DataArray:
    """An empty scan of so many voxels."""
    shape = (1, voxels, *image.shape[2:])
    whole = image.isel(y=0, drop=True).expand_dims(y=np.arange(voxels)).transpose(*image.dims)
    return whole.copy(data=np.zeros(shape, image.dtype))


class _Whole:
    """A block without the truths that the case gives itself, or that some of its voxels do not have."""

    def __init__(self, phantom: Any, given: Mapping[str, Any]) -> None:
        truth = phantom.truth
        self.truth = truth[[n for n in truth.data_vars if n not in given and bool(truth[n].notnull().all())]]
        self.pools, self.truth_at = phantom.pools, phantom.truth_at


class Warmed:
    """A block whose water stands elsewhere in the spectrum, by so many ppm."""

    def __init__(self, phantom: Any, ppm: float) -> None:
        self.truth, self.own = phantom.truth, phantom
        water = (phantom.pools["kind"] != "fat") & (phantom.pools["kind"] != "mineral")
        self.pools = phantom.pools.assign(shift=phantom.pools["shift"] + xr.where(water, ppm, 0.0))

    def truth_at(self, protocol: Protocol) -> xr.Dataset:
        """As without."""
        return self.own.truth_at(protocol)


def _truth_at(phantom: Any, protocol: Protocol) -> Any:
    """Truth that needs a protocol: that of diffusion scans."""
    return phantom.truth_at(protocol) if "b" in protocol else {}


def _truth(phantom: Any, protocol: Protocol, voxels: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Truth by quantity and measurand: ``f_app`` is a second truth of the quantity ``f``."""
    found = {}
    for source in (phantom.truth, _truth_at(phantom, protocol)):
        for name in source:
            flat = np.asarray(source[name].values, float).reshape(voxels)
            found[str(name), str(name)] = flat
            if str(name).endswith("_app"):
                found[str(name)[: -len("_app")], str(name)] = flat
    return found


def bound(
    defendant: Defendant, theta: Mapping[str, float], protocol: Protocol, noise_sd: float, magnitude: bool = True
) -> dict[str, float]:
    """Cramer-Rao bound (SD) of each quantity that an estimator gives; NaN where theta is incomplete.

    Averages lower the noise of the image, and so the bound. At a fat fraction of 0 or 1 an equation in fractions and
    phases loses an unknown, the phase of what is not there, and its bound drops; the bound stated is that just beside,
    which is the bound of complex amplitudes everywhere.

    Parameters
    ----------
    theta : mapping
        The model's unknowns.
    noise_sd : float
        Of each real channel, of one acquisition.
    magnitude : bool
        Whether the data are magnitudes, with Rician noise.
    """
    model = defendant.model
    names = [quantity.name for quantity in model.unknowns]
    theta = {**{name: float(value) for name, value in derived.unknowns(theta).items()}, **theta}
    if PHASE_OF_FAT in defendant.fitted and "pdff" in theta:
        theta["pdff"] = float(np.clip(theta["pdff"], EDGE, 1 - EDGE))
    if not defendant.fitted or not all(np.isfinite(theta.get(name, np.nan)) for name in names):
        return dict.fromkeys(defendant.unknowns, np.nan)
    image_sd = noise_sd / np.sqrt(protocol.averages)
    noise = "rician" if magnitude else "gaussian"
    matrix = information(model, {name: theta[name] for name in names}, protocol, image_sd, noise, defendant.fitted)[0]
    return derived.deviations(defendant.unknowns, defendant.fitted, theta, matrix)


def replicate(clean: xr.DataArray, n: int) -> xr.DataArray:
    """Each subject's voxel repeated along x, so that there are about `n` voxels in all."""
    each = max(1, n // clean.sizes["y"])
    first = clean.isel(x=0, drop=True)
    wide = first.expand_dims(x=np.arange(each, dtype=float)).transpose("z", "y", "x", ...)
    wide.attrs = dict(clean.attrs)
    return wide
