"""Scan a phantom: phantom + protocol + rung of the ladder -> one labelled array, as the scanner would deliver it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..errors import InputError
from . import equations, sequences, tissues
from .acquisition import noise
from .acquisition.protocol import FatSuppression, Protocol, protocols
from .acquisition.scanner import Scanner
from .model import Model
from .rungs import Engine, KSpace, Matched, PlayedKSpace, Pools, Scannable, unknowns_of
from .sequences import Sequence, pulseq
from .sequences.sequence import INVISIBLE, TEMPERATURE

RUNGS = ("matched", "pools", "engine", "scan")


def scan(
    phantom: Scannable,
    protocol: Protocol | str | Path,
    *,
    rung: str = "pools",
    snr: float | None = None,
    noise_sd: float | None = None,
    seed: int | np.random.SeedSequence = 0,
    equation: str | Model | None = None,
    values: Mapping[str, Any] | None = None,
    combine: bool = True,
    scanner: Scanner | None = None,
    progress: Callable[[float], object] | None = None,
    **switches: Any,
) -> xr.DataArray:
    """Scan a phantom.

    Parameters
    ----------
    phantom : object with ``.truth`` and ``.pools``
        Data sets over the voxels (z, y, x); `pools` also over ``pool``.
    protocol : Protocol, or the name of a preset, or the path of a TOML or Pulseq (``.seq``) file
    rung : {"pools", "matched", "engine", "scan"}
        ``"matched"`` evaluates an equation on the truth; ``"pools"`` sums all spin pools through the closed-form
        physics of the sequence, ``"engine"`` through its pulses by numerical spin physics; ``"scan"`` puts what the
        engine finds through k-space, coils and reconstruction.
    snr, noise_sd : float, optional
        Noise level, one of the two (see `acquisition.noise` for what SNR means); noise-free without.
    seed : int
        Seed of the noise; a study passes a child of its ``SeedSequence``.
    equation : str or Model, optional
        Rung ``matched``: evaluate this instead of the protocol's equation.
    values : mapping, optional
        Rung ``matched``: values (numbers, or arrays over the voxels) of unknowns that the truth lacks.
    combine : bool
        False: the complex images of each coil, with a further dim ``coil``.
    scanner : Scanner, optional
        Maps of field offset and B1+, coils, faults of the gradients; an ideal scanner without. Not on rung `matched`;
        coils and faults of the gradients act on rung `scan`.
    progress : callable (fraction), optional
        Called now and then with the fraction done, 0 to 1, where a scan takes long.
    **switches
        Confounders of the sequence, off unless given; ``sequences.get(name).switches`` lists them. Rung `pools` has
        all of them, the rungs `engine` and `scan` those that are no property of the closed form. ``temperature`` (C)
        moves the water of the phantom, whose shifts are those of body temperature; an estimator is not told of it. A
        temperature that the protocol states moves water alike, and is told.

    Returns
    -------
    DataArray (z, y, x, encoding)
        Name ``signal``; coords of the protocol (nominal values); attrs ``units``, ``long_name``, ``protocol``
        (JSON), ``rung``, ``seed``, ``signal_reference`` (S_ref of the SNR), ``switches`` (JSON) and, unless
        noise-free, ``noise_sd``, ``snr``, ``snr_definition``. Outside the object there is noise alone. Voxels are
        those of the phantom; on rung ``scan`` those of the readout, where their ``affine`` says (a Phantom gives its
        truth there with ``on``), and ``folded`` says in words along which axes signal from outside its field of view
        lies upon the image, where there is such (``readout.slab`` of a protocol in three dimensions leaves it out along
        the slowest one).

    Raises
    ------
    InputError
        An unknown rung, sequence or switch, a protocol of another field, an unknown without a value, ...
    """
    for part in ("truth", "pools"):
        if not isinstance(getattr(phantom, part, None), xr.Dataset):
            raise InputError(f"phantom {type(phantom).__name__}: {part} is missing: expected truth and pools")
    if not isinstance(protocol, Protocol):
        protocol = _of_file(phantom, protocol) if str(protocol).endswith(".seq") else protocols.get(protocol)
    sequence = sequences.get(protocol.sequence)
    _check_rung(rung, sequence, switches)
    _check_level(snr, noise_sd)
    _check_field(phantom, protocol)
    grid, acting = _grid(phantom), switches
    if rung == "matched":
        named = equation or protocol.equation
        model: Model = equations.get(named) if isinstance(named, str) else named
        source: Matched | Pools = Matched(model, unknowns_of(model, phantom, protocol, values or {}, grid))
        if scanner is not None:
            raise InputError("rung 'matched' is the equation alone: a scanner goes with the other rungs")
    else:
        if equation is not None or values:
            raise InputError(f"rung {rung!r} sums the pools: equation and values go with rung 'matched'")
        sequence.check(**switches)
        phantom, acting = _at_temperature(phantom, protocol, sequence, switches)
        for name in protocol.pulses:
            if name not in sequence.pulses:
                known = " or ".join(sequence.pulses)
                where = f"protocol {protocol.name}: pulses.{name}"
                raise InputError(f"{where} is no pulse of sequence {sequence.name}: expected {known}")
        if rung in ("engine", "scan"):
            protocol = _read_on(grid, protocol)
        at = None if rung == "scan" else scanner
        source = (Engine if rung == "engine" else Pools)(sequence, phantom.pools, grid, acting, at)
    if rung == "scan":
        whole = PlayedKSpace if sequence is pulseq.pulseq_file else KSpace
        kspace = whole(sequence, phantom.pools, grid, acting, scanner)
        protocol = pulseq.imaged(protocol) if sequence is pulseq.pulseq_file else protocol
        ideal = _ideal(sequence, phantom, grid, acting)
        image = _through_kspace(kspace, ideal, protocol, snr, noise_sd, seed, combine, progress)
    else:
        origin, signal = source, source.signal(protocol)
        if sequence.magnitude and combine:
            signal = np.abs(signal, out=signal) if signal.dtype == float else np.abs(signal)
        image = _label(signal, protocol, grid)
        if rung == "engine" or scanner is not None:
            source = _ideal(sequence, phantom, grid, acting)
        image.attrs["signal_reference"] = _reference(signal, source, sequence, protocol, own=source is origin)
    image.attrs.update(
        {name: grid.attrs[name] for name in ("affine", "voxel_size") if name in grid.attrs and name not in image.attrs},
        protocol=protocol.to_json(),
        rung=rung,
        seed=_seed_attr(seed),
        switches=json.dumps(switches, default=lambda v: asdict(v) if isinstance(v, FatSuppression) else float(v)),
    )
    if rung == "matched":
        image.attrs["equation"] = model.name
    if rung == "scan":
        return image
    if snr is not None or noise_sd is not None:
        image = _noisy(image, protocol, snr, noise_sd, seed, combine, in_place=True)
    elif not combine:
        coils = np.repeat((image.values / np.sqrt(protocol.coils)).astype(complex)[..., None], protocol.coils, axis=-1)
        image = xr.DataArray(coils, image.coords, (*image.dims, "coil"), image.name, image.attrs)
    return image


def _through_kspace(
    kspace: KSpace,
    closed_form: Pools,
    protocol: Protocol,
    snr: float | None,
    noise_sd: float | None,
    seed: int | np.random.SeedSequence,
    combine: bool,
    progress: Callable[[float], object] | None,
) -> xr.DataArray:
    """The image of the rung `scan`: noise goes on the samples of each acquisition."""
    grid, sequence = kspace.image_grid(protocol), kspace.sequence
    clean = kspace.acquire(protocol, progress)

    def made(samples: Any) -> NDArray[Any]:
        if not combine:
            return np.moveaxis(kspace.coil_images(samples, protocol), (0, 1), (-2, -1))
        image = np.moveaxis(kspace.image(samples, protocol), 0, -1)
        return np.abs(image) if sequence.magnitude else image

    # S_ref is that of the object: voxels that hold ringing alone would count as signal voxels of an image
    if isinstance(kspace, PlayedKSpace):
        reference = kspace.reference(clean)
    else:
        reference = noise.signal_reference(closed_form.signal(sequence.reference(protocol)))
    attrs: dict[str, Any] = {"signal_reference": reference} | ({"folded": kspace.folded} if kspace.folded else {})
    if snr is None and noise_sd is None:
        image = made(clean)
    else:
        if noise_sd is None:
            assert snr is not None
            noise_sd = _level(snr, reference)
        rng = np.random.default_rng(_checked_seed(seed))
        magnitudes = sequence.magnitude and combine and protocol.averaging == "magnitude"
        # averaging is linear before magnitudes are taken: one draw of the averaged noise stands for all acquisitions
        repeats, sd = (protocol.averages, noise_sd) if magnitudes else (1, noise.image_sd(noise_sd, protocol.averages))
        image = np.mean([made(kspace.noisy(clean, protocol, sd, rng)) for _ in range(repeats)], axis=0)
        attrs.update(_noise_attrs(noise_sd, reference, protocol, sequence))
        attrs["snr_definition"] += "; both of a coil of sensitivity 1, reconstructed directly"
        if kspace.scanner.coils is not None or protocol.readout.get("reconstruction", "direct") != "direct":
            del attrs["image_sd"]  # coils and SENSE make it differ from voxel to voxel
    dims = (*grid.dims, protocol.encoding) if combine else (*grid.dims, protocol.encoding, "coil")
    named = {"units": "1", "long_name": "MR signal (scanner units)"}
    own = {name: grid.attrs[name] for name in ("affine", "voxel_size") if name in grid.attrs}
    return xr.DataArray(image, dict(grid.coords) | protocol.coords(), dims, "signal", named | own | attrs)


def add_noise(
    scan: xr.DataArray,
    *,
    snr: float | None = None,
    noise_sd: float | None = None,
    seed: int | np.random.SeedSequence = 0,
) -> xr.DataArray:
    """A noisy copy of a noise-free scan: for a trial that computes the signal once and draws many replicates.

    ``add_noise(scan(bone, protocol), snr=40, seed=3)`` equals ``scan(bone, protocol, snr=40, seed=3)``.

    Parameters
    ----------
    scan : DataArray (..., encoding)
        Noise-free scan, from `scan`, or a plain array with a coord ``b`` of its own.
    snr, noise_sd : float
        One of the two, as in `scan`. Averages and coils are those of the protocol in the scan's attrs, else one.
    seed : int
        A study passes a child of its ``SeedSequence``.

    Returns
    -------
    DataArray
        Like `scan`, with ``noise_sd``, ``snr``, ``snr_definition`` and ``seed`` in attrs.

    Raises
    ------
    InputError
        No noise level or two, a scan that is noisy already, or SNR asked where the scan has no reference signal.
    """
    if "noise_sd" in scan.attrs:
        raise InputError(f"scan: noise_sd is {scan.attrs['noise_sd']:g} already: noise goes on a noise-free scan")
    if "coil" in scan.dims:
        raise InputError("scan: it has the images of single coils: noise goes on a scan of combined ones")
    if scan.attrs.get("rung") == "scan":
        raise InputError("scan: rung 'scan' has its noise in k-space: expected snr or noise_sd given to scan itself")
    if snr is None and noise_sd is None:
        raise InputError("snr is None and noise_sd is None: expected one of the two")
    _check_level(snr, noise_sd)
    text = scan.attrs.get("protocol")
    return _noisy(scan, None if text is None else Protocol.from_json(text), snr, noise_sd, seed, True)


def _noisy(
    image: xr.DataArray,
    protocol: Protocol | None,
    snr: float | None,
    noise_sd: float | None,
    seed: int | np.random.SeedSequence,
    combine: bool,
    in_place: bool = False,
) -> xr.DataArray:
    reference = float(image.attrs.get("signal_reference", 0.0)) or _reference_of(image)
    if noise_sd is None:
        assert snr is not None
        noise_sd = _level(snr, reference)
    settings: dict[str, Any] = {}
    encoding = "b" if "b" in image.dims else str(image.dims[-1])
    if protocol is not None:
        settings = {name: getattr(protocol, name) for name in ("averages", "averaging", "coils", "combination")}
        encoding = protocol.encoding
    # the encoding last and voxels in C order: the order in which noise is drawn is part of what a seed means
    image = image.transpose(..., encoding)
    out = image.values if in_place and combine and image.dtype == float else None
    rng, magnitude = np.random.default_rng(_checked_seed(seed)), not np.iscomplexobj(image)
    received = noise.add(image.values, float(noise_sd), rng, magnitude=magnitude, combine=combine, out=out, **settings)
    dims = image.dims if combine else (*image.dims, "coil")
    noisy = xr.DataArray(received, image.coords, dims, image.name, dict(image.attrs))
    sequence = None if protocol is None else sequences.get(protocol.sequence)
    noisy.attrs.update(_noise_attrs(float(noise_sd), reference, protocol, sequence), seed=_seed_attr(seed))
    return noisy


def _level(snr: float, reference: float) -> float:
    """Noise SD of an SNR."""
    if not reference > 0:
        raise InputError("snr: there is no signal to refer to; give noise_sd, or scan what has signal")
    return reference / snr


def _noise_attrs(
    noise_sd: float, reference: float, protocol: Protocol | None, sequence: Sequence | None
) -> dict[str, Any]:
    """What a noisy scan says of its noise."""
    point = noise.REFERENCE_POINT if sequence is None else sequence.reference_point
    return {
        "noise_sd": float(noise_sd),
        "snr": reference / float(noise_sd),
        "snr_definition": noise.snr_definition(point),
        # what an estimator may be told as sigma: averages make the image's noise smaller
        "image_sd": noise.image_sd(float(noise_sd), 1 if protocol is None else protocol.averages),
    }


def _read_on(grid: xr.DataArray, protocol: Protocol) -> Protocol:
    """The protocol with a readout of the phantom's own voxels where it states none; what is played leaves it room."""
    stated = not protocol.readout or {"matrix", "fov"} <= set(protocol.readout)
    if stated or len(grid.dims) != 3 or "voxel_size" not in grid.attrs:
        return protocol
    size = np.broadcast_to(np.asarray(grid.attrs["voxel_size"], float), 3).tolist()
    fov = tuple(n * edge for n, edge in zip(grid.shape, size, strict=True))
    return dataclasses.replace(protocol, readout={"matrix": grid.shape, "fov": fov} | dict(protocol.readout))


def _of_file(phantom: Scannable, path: str | Path) -> Protocol:
    """The protocol of a Pulseq file for this phantom."""
    grid = _grid(phantom)
    if "voxel_size" not in grid.attrs or len(grid.dims) != 3:
        raise InputError(f"phantom: a Pulseq file ({path}) needs its voxel_size (m) and the dims z, y, x")
    dz, dy, dx = np.broadcast_to(np.asarray(grid.attrs["voxel_size"], float), 3).tolist()
    nz, ny, nx = grid.shape
    field = float(grid.attrs.get("field_strength", 3.0))
    times = phantom.pools["T2"].values
    if not np.isfinite(times).any():
        raise InputError("phantom: T2 is finite in no pool: expected numbers (s)")
    longest = float(np.nanmax(times[np.isfinite(times)]))
    return pulseq.protocol_of(path, field, (dz, dy, dx), (nz, ny, nx), longest)


# -- the body, the array, its reference signal, and what may be asked


@dataclasses.dataclass(frozen=True)
class _Body:
    """What is scanned, where that is not the phantom as it stands."""

    truth: xr.Dataset
    pools: xr.Dataset


def _at_temperature(
    phantom: Scannable, protocol: Protocol, sequence: Sequence, switches: Mapping[str, Any]
) -> tuple[Scannable, dict[str, Any]]:
    """The phantom at the temperature of the switch, else of the protocol; and the switches that are left.

    The lines of water move, those of fat and macromolecules stand; density and relaxation stay as they are.
    """
    left = {name: value for name, value in switches.items() if name != TEMPERATURE}
    celsius = switches.get(TEMPERATURE)
    celsius = protocol.get(TEMPERATURE) if celsius is None else celsius
    if TEMPERATURE not in sequence.switches or celsius is None:
        return phantom, left
    if np.ndim(celsius):
        raise InputError(f"protocol {protocol.name}: temperature changes from point to point: expected one (C)")
    moved = tissues.water_shift(float(celsius)) - tissues.water_shift()
    still = phantom.pools["kind"].isin(("fat", *INVISIBLE))
    shift = phantom.pools["shift"] + xr.where(still, 0.0, moved)
    shift = shift.transpose(*phantom.pools["shift"].dims)
    return _Body(phantom.truth, phantom.pools.assign(shift=shift)), left


def _grid(phantom: Scannable) -> xr.DataArray:
    """The voxels: dims and coords of the density, without data, with the attrs that say where they lie."""
    if "density" not in phantom.pools or "pool" not in phantom.pools["density"].dims:
        raise InputError("phantom: pools lacks density over pool and voxels (mol 1H/L)")
    density = phantom.pools["density"]
    if density.sizes["pool"] == 0:
        raise InputError("phantom: pools has no pool: expected one at least")
    _check_tissue(phantom.pools)
    grid = density.isel(pool=0, drop=True)
    grid = grid.transpose(*[d for d in ("z", "y", "x") if d in grid.dims], ...)
    grid = grid.drop_vars([name for name, coord in grid.coords.items() if not coord.dims])
    return grid.assign_attrs({**phantom.truth.attrs, **phantom.pools.attrs})


def _check_tissue(pools: xr.Dataset) -> None:
    """Refuse amounts and times that mean nothing; the message names quantity, pool and voxel."""
    density = pools["density"]
    there = (density > 0).values
    wrong = {"density": (density.values < 0) | np.isinf(density.values)}
    for name in (n for n in ("T1_observed", "T1_intrinsic", "T2") if n in pools and "pool" in pools[n].dims):
        wrong[name] = (pools[name].broadcast_like(density).transpose(*density.dims).values <= 0) & there
    for name, where in wrong.items():
        if where.any():
            at = dict(zip(density.dims, np.argwhere(where)[0].tolist(), strict=True))
            value = float(pools[name].isel({d: at[d] for d in pools[name].dims}))
            place = ", ".join(f"{d} = {at[d]}" for d in density.dims if d != "pool")
            expected = "a finite amount from 0 up" if name == "density" else "above 0 s"
            pool = pools["pool"].values[at["pool"]]
            raise InputError(f"phantom: {name} of pool {pool} is {value:g} at voxel {place}: expected {expected}")


def _label(signal: NDArray[Any], protocol: Protocol, grid: xr.DataArray) -> xr.DataArray:
    image = signal.reshape(*grid.shape, protocol.points)
    attrs = {"units": "1", "long_name": "MR signal (scanner units)"}
    return xr.DataArray(image, dict(grid.coords) | protocol.coords(), (*grid.dims, protocol.encoding), "signal", attrs)


def _ideal(sequence: Sequence, phantom: Scannable, grid: xr.DataArray, switches: Mapping[str, Any]) -> Pools:
    """What S_ref is taken of on every rung: the closed form, an ideal scanner, pools that exchange by their own T1."""
    pools = phantom.pools
    if "T1_intrinsic" in pools:
        own = pools["T1_intrinsic"]
        pools = pools.assign(T1_observed=pools["T1_observed"].fillna(own) if "T1_observed" in pools else own)
    return Pools(sequence, pools, grid, switches)


def _reference(
    signal: NDArray[Any], source: Matched | Pools, sequence: Sequence, protocol: Protocol, own: bool = True
) -> float:
    """S_ref: read from the scan where it is the source's own and has the reference point, else simulated there."""
    if sequence is pulseq.pulseq_file:
        points = np.abs(signal.reshape(-1, protocol.points))
        return noise.signal_reference(points[:, int(points.sum(axis=0).argmax())])
    reference = sequence.reference(protocol)
    for point in range(protocol.points if own else 0):
        if all(values[point] == reference.table[name][0] for name, values in protocol.table.items()):
            return noise.signal_reference(signal.reshape(-1, protocol.points)[:, point])
    return noise.signal_reference(source.signal(reference))


def _reference_of(image: xr.DataArray) -> float:
    """S_ref of a scan that does not state it: its b = 0 images."""
    if "b" not in image.coords or not bool((image["b"] == 0).any()):
        return 0.0
    return noise.signal_reference(image.isel({image["b"].dims[0]: np.flatnonzero(image["b"].values == 0)}).values)


def _check_rung(rung: str, sequence: Sequence, switches: Mapping[str, Any]) -> None:
    if rung not in sequence.rungs:
        what = "not built" if rung in RUNGS else "unknown"
        built = " or ".join(sequence.rungs)
        raise InputError(f"rung {rung!r} is {what} for sequence {sequence.name}: expected {built}")
    for name in switches:
        if name not in sequence.switches:
            known = ", ".join(sequence.switches)
            raise InputError(f"unknown switch {name!r} for sequence {sequence.name}: expected one of {known}")
    if rung == "matched" and switches:
        raise InputError(f"rung 'matched' is the equation alone: {', '.join(switches)} goes with rung 'pools'")


def _check_level(snr: float | None, noise_sd: float | None) -> None:
    if snr is not None and noise_sd is not None:
        raise InputError(f"snr is {snr!r} and noise_sd is {noise_sd!r}: expected one of the two")
    for name, value in (("snr", snr), ("noise_sd", noise_sd)):
        if value is not None and (isinstance(value, (bool, str)) or not (np.isfinite(value) and value > 0)):
            raise InputError(f"{name} is {value!r}: expected a number above 0, or None for a noise-free scan")


def _check_field(phantom: Scannable, protocol: Protocol) -> None:
    for part in (phantom.pools, phantom.truth):
        field = part.attrs.get("field_strength")
        if field is not None and not np.isclose(float(field), protocol.field_strength, rtol=1e-3):
            raise InputError(
                f"protocol {protocol.name}: field_strength is {protocol.field_strength:g} T and the phantom was made "
                f"for {float(field):g} T: expected the same"
            )


def _checked_seed(seed: int | np.random.SeedSequence) -> int | np.random.SeedSequence:
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 63:
        raise InputError(f"seed is {seed!r}: expected a whole number from 0 to 2^63 - 1")
    return int(seed)


def _seed_attr(seed: int | np.random.SeedSequence) -> int | str:
    seed = _checked_seed(seed)
    return seed if isinstance(seed, int) else f"{seed.entropy} {seed.spawn_key}"
