"""The Estimate contract: a pure core on (voxel, point) arrays becomes an estimator of labelled images.

A core is `core(data, protocol, noise, intervals, **options) -> dict`: `data` (voxel, point), `protocol` a mapping of
settings (scalar, (point,) or (voxel, 1)), `noise` the noise SD or None, and it returns one array a quantity, with
`x_sd`, on request `x_lo` and `x_hi`, `status`, and perhaps `attrs` to note. The `Estimator` does what every estimator
needs around it: labels, units, mask, status, provenance.
"""

from __future__ import annotations

import inspect
import json
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import InputError
from ..simulator.acquisition import Protocol
from ..simulator.acquisition.protocol import ECHO_TIMES
from ..simulator.model import Model
from ..simulator.tissues import BODY_TEMPERATURE
from .status import Status, attributes

Core = Callable[..., dict[str, Any]]
ENTRY_POINTS = "bonemri.estimators"
_UNITS = {"b": ("s/mm2", "s/mm^2", "s mm-2", "s/mm²"), "echo": ("s",), "time": ("s",), "TE": ("s",), "TR": ("s",)}


@dataclass(frozen=True)
class Estimator:
    """An estimator: data to biomarker with uncertainty, status and claims. It never sees a phantom.

    Attributes
    ----------
    name, title : str
        Method name (hyphens), and in words.
    modality : str
        `diffusion`, ...
    model : Model
        The fitted model.
    quantities : dict
        Name of each estimated quantity to (unit, long name).
    core : callable
        See the module.
    source : str
        Paper with DOI.
    claims : Path
        TOML file of what it claims, and where it is known to fail.
    encoding : str
        The encoding dimension of its input.
    aliases : tuple of str
        Other names that the encoding dimension may have.
    needs : tuple of str
        Protocol values that the core reads besides the model's settings, where the scan states them.
    measurand : dict
        Quantity to measurand, where the fitted value is weighted by the protocol (`f` to `f_app`).
    signal : {"magnitude", "complex", "either"}
        What it takes: magnitudes, complex data, or complex data and magnitudes alike. Complex data go to the core as
        they are; the noise SD is that of each real channel.
    extras : dict
        Quantities that an option adds, as `quantities`.
    spatial : bool
        Whether a voxel's estimate depends on the other voxels even where sigma is given (a field map solved over the
        image). The core then gets the whole (z, y, x, point) array, with `mask` as a keyword, and returns images.
    """

    name: str
    title: str
    modality: str
    model: Model
    quantities: Mapping[str, tuple[str, str]]
    core: Core
    source: str
    claims: Path
    encoding: str
    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    measurand: Mapping[str, str] | None = None
    signal: str = "magnitude"
    extras: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    spatial: bool = False

    @property
    def options(self) -> dict[str, object]:
        """Options of the core and their defaults."""
        parameters = inspect.signature(self.core).parameters.values()
        named = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return {name: default for name, default in named.items() if not (self.spatial and name == "mask")}

    def __call__(
        self,
        scan: xr.DataArray,
        mask: np.ndarray | xr.DataArray | None = None,
        sigma: float | np.ndarray | xr.DataArray | None = None,
        intervals: bool = False,
        **options: Any,
    ) -> xr.Dataset:
        """Estimate every voxel.

        Parameters
        ----------
        scan : DataArray
            Any voxel dimensions and the encoding dimension with its coordinate; protocol values as scalar coords,
            coords along the encoding, coords with voxel dimensions, or attrs.
        mask : array of the voxel dimensions, optional
            Voxels to estimate (non-zero).
        sigma : float or array of the voxel dimensions, optional
            Noise SD of the data. Without it residuals are pooled over voxels.
        intervals : bool
            Whether to add 95 % intervals `x_lo`, `x_hi` where the distribution is skewed.
        **options
            Of the estimator; see `options`.

        Returns
        -------
        Dataset
            `x`, `x_sd`, ..., `status`; NaN with a status where there is no value.

        Raises
        ------
        InputError
            If the scan, the mask, sigma or an option is not what it should be.
        """
        for alias in self.aliases:
            if isinstance(scan, xr.DataArray) and alias in scan.dims and self.encoding not in scan.dims:
                scan = scan.rename({alias: self.encoding})
        data, dims = self._data(scan)
        image = region = _Image.of(dims, data.shape[:-1], mask)
        if self.spatial:
            image = _Image.of(dims, data.shape[:-1], None)
        protocol = self._protocol(scan, image)
        chosen = self._options(options, image)
        noise = _sigma(sigma, image)
        flat = data.reshape(-1, data.shape[-1])
        values = flat[image.pick] if image.pick.size < len(flat) else flat
        usable = np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)
        if values.dtype.kind != "c":
            usable &= (values >= 0).all(axis=1)
        # a voxel whose data mean nothing goes in as NaN, so that it can neither be fitted nor count for the noise
        values = values if usable.all() else np.where(usable[:, None], values, np.nan)
        if self.spatial:
            inside = np.zeros(len(flat), bool)
            inside[region.pick] = True
            image_mask = (inside & usable).reshape(image.shape)
            out = self.core(values.reshape(data.shape), protocol, noise, intervals, mask=image_mask, **chosen)
            notes = out.pop("attrs", {})
            out = {k: v.reshape(len(flat), *v.shape[len(image.shape) :])[region.pick] for k, v in out.items()}
            image, usable = region, usable[region.pick]
        else:
            out = self.core(values, protocol, noise, intervals, **chosen)
            notes = out.pop("attrs", {})
        out["status"] = out["status"] | np.where(usable, 0, Status.INVALID).astype(np.uint16)
        return self._dataset(scan, image, out, chosen, noise is not None).assign_attrs(notes)

    def _data(self, scan: Any) -> tuple[np.ndarray, tuple[str, ...]]:
        """The scan's numbers with the encoding last, and the names of the other dimensions."""
        encoding = self.encoding
        if not isinstance(scan, xr.DataArray):
            expected = f"expected an xarray.DataArray with dimension {encoding}"
            raise InputError(f"{self.name}: the scan is a {type(scan).__name__}; {expected}")
        if encoding not in scan.dims:
            listed = ", ".join(map(str, scan.dims))
            raise InputError(f"{self.name}: the scan has dimensions {listed}; expected one called {encoding}")
        if encoding not in scan.coords:
            remedy = f"give its values, e.g. {encoding}=[...]"
            raise InputError(f"{self.name}: dimension {encoding} has no coordinate; {remedy}")
        if "coil" in scan.dims:
            remedy = "combine the coils first (simulator.scan(..., combine=True))"
            raise InputError(f"{self.name}: the scan has a coil dimension; {remedy}")
        dims = tuple(str(d) for d in scan.dims if d != encoding)
        array = scan.transpose(*dims, encoding).to_numpy()
        if array.dtype.kind not in "fiubc":
            raise InputError(f"{self.name}: the scan holds {array.dtype}; expected numbers")
        if array.dtype.kind == "c":
            if self.signal == "magnitude":
                raise InputError(f"{self.name}: the scan is complex; expected magnitudes (take abs)")
            return array.astype(complex, copy=False), dims
        if self.signal == "complex":
            remedy = "give magnitude * exp(1j * phase), the phase in rad" + self._by_magnitude
            raise InputError(f"{self.name}: the scan has no phase ({array.dtype}); {remedy}")
        return array if array.dtype.kind == "f" else array.astype(float), dims

    @property
    def _by_magnitude(self) -> str:
        """Where data without phase may go."""
        return "; dixon-magnitude does without" if self.modality == "fat" else ""

    def _protocol(self, scan: xr.DataArray, image: _Image) -> dict[str, Any]:
        """The model's settings and what else is needed, as the scan states them."""
        protocol: dict[str, Any] = {}
        wanted = [q.name for q in self.model.settings] + list(self.needs)
        for name in wanted:
            if name == "fat_suppression":
                if "protocol" in scan.attrs:
                    protocol[name] = Protocol.from_json(scan.attrs["protocol"]).fat_suppression
                continue
            if name == "TE" and self.encoding in ECHO_TIMES:
                name = self.encoding
            if name in scan.coords:
                coord = scan.coords[name]
                _check_unit(self.name, name, coord.attrs.get("units"))
                if coord.ndim == 0 or coord.dims == (self.encoding,):
                    value = np.asarray(coord.to_numpy(), dtype=float)
                elif self.encoding not in coord.dims:
                    whole = coord.broadcast_like(scan.isel({self.encoding: 0}, drop=True))
                    value = image.take(name, whole)[:, None]
                else:
                    listed = ", ".join(map(str, coord.dims))
                    expected = f"expected a scalar, along {self.encoding}, or a map"
                    raise InputError(f"{self.name}: {name} has dimensions {listed}; {expected}")
            elif name in scan.attrs:
                value = np.asarray(scan.attrs[name], dtype=float)
            elif name == "temperature" and "protocol" in scan.attrs:
                value = np.asarray(BODY_TEMPERATURE)  # of our own scans, whose protocol would say otherwise
            elif name in self.needs:
                continue
            else:
                raise InputError(f"{self.name}: the scan lacks {name}; give it as a coordinate or in attrs")
            if not np.isfinite(value).all():
                raise InputError(f"{self.name}: {name} has values that are not finite")
            if name == self.encoding and (value < 0).any() and not self.aliases:
                raise InputError(f"{self.name}: {name} has negative values ({value.min():g}); expected {name} >= 0")
            protocol[name] = value
        return protocol

    def _options(self, options: Mapping[str, Any], image: _Image) -> dict[str, Any]:
        """The options as the core takes them: maps as (voxel,) arrays."""
        known = self.options
        strangers = ", ".join(n for n in options if n not in known)
        if strangers:
            raise InputError(f"{self.name}: option {strangers} is unknown; known are {', '.join(known) or 'none'}")
        chosen: dict[str, Any] = {}
        for name, value in options.items():
            default = known[name]
            numeric = (int, float, np.number, np.ndarray, xr.DataArray)
            if isinstance(default, bool):
                if not isinstance(value, (bool, np.bool_)):
                    raise InputError(f"{self.name}: option {name} is {value!r}; expected True or False")
            elif isinstance(default, (int, float)) and (isinstance(value, bool) or not isinstance(value, numeric)):
                raise InputError(f"{self.name}: option {name} is {value!r}; expected a number, as {default!r}")
            if name in ("bounds", "prior") and value is not None and not isinstance(value, Mapping):
                raise InputError(f"{self.name}: option {name} is {value!r}; expected a mapping from unknown to range")
            if isinstance(value, (np.ndarray, xr.DataArray)) and np.ndim(value):
                value = image.take(f"{self.name}: {name}", value).astype(float)
            chosen[name] = value
        return chosen

    def _dataset(
        self,
        scan: xr.DataArray,
        image: _Image,
        out: Mapping[str, np.ndarray],
        options: Mapping[str, Any],
        noise_given: bool,
    ) -> xr.Dataset:
        """The core's arrays as labelled images, with where they come from."""
        variables = {}
        for name, values in out.items():
            dims = (*image.dims, "level")[: len(image.dims) + values.ndim - 1]
            if name == "status":
                variables[name] = (dims, image.put(values, np.uint16(Status.OUTSIDE_MASK)), attributes())
            else:
                variables[name] = (dims, image.put(values, np.float64(np.nan)), self._attributes(name))
        coords = {k: v for k, v in scan.coords.items() if v.dims and set(v.dims) <= set(image.dims)}
        if "levels" in options:
            levels = np.asarray(options["levels"], dtype=float)
            coords["level"] = xr.DataArray(levels, dims="level", attrs={"units": "1", "long_name": "probability"})
        plain = {k: v for k, v in options.items() if np.ndim(v) == 0 and not isinstance(v, Mapping)}
        attrs = {
            "method": self.name,
            "version": __version__,
            "model": self.model.name,
            "options": json.dumps(plain, default=str),
            "sigma": "given" if noise_given else "pooled residuals",
            "source": self.source,
        }
        for key in ("protocol", "affine", "voxel_size"):
            if key in scan.attrs:
                attrs[key] = scan.attrs[key]
        return xr.Dataset(variables, coords=coords, attrs=attrs)

    def _attributes(self, name: str) -> dict[str, object]:
        """Unit and meaning of an output, by its name."""
        stem, _, suffix = name.rpartition("_")
        kinds = {
            "sd": "standard uncertainty of the {}; +- 1.96 of it covers 95 %",
            "lo": "lower end of the 95 % interval of the {}",
            "quantile": "quantiles of the posterior of the {}",
            "hi": "upper end of the 95 % interval of the {}",
        }
        known = {**self.quantities, **self.extras}
        if name in known:
            unit, words = known[name]
            attrs: dict[str, object] = {"units": unit, "long_name": words}
            if self.measurand and name in self.measurand:
                attrs["measurand"] = self.measurand[name]
            return attrs
        if suffix in kinds and stem in known:
            unit, words = known[stem]
            return {"units": unit, "long_name": kinds[suffix].format(words)}
        if name.endswith("_prior_share"):
            words = self.quantities[name.removesuffix("_prior_share")][1]
            return {"units": "1", "long_name": f"part of the {words} that is prior: posterior over prior variance"}
        raise KeyError(f"{self.name} returned {name}, which it does not declare")


def _check_unit(method: str, name: str, unit: object) -> None:
    allowed = _UNITS.get(name)
    if unit and allowed and str(unit) not in allowed:
        raise InputError(f"{method}: {name} is in {unit}; expected {allowed[0]}")


@dataclass(frozen=True)
class _Image:
    """How the estimated voxels lie in the image: its dimensions and shape, and their places in its flat order."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    pick: np.ndarray

    @classmethod
    def of(cls, dims: tuple[str, ...], shape: tuple[int, ...], mask: np.ndarray | xr.DataArray | None) -> _Image:
        """The voxels of the mask; all of them without one."""
        whole = cls(dims, shape, np.arange(math.prod(shape)))
        if mask is None:
            return whole
        array = whole.take("the mask", mask)
        inside = (array != 0) & ~np.isnan(array) if array.dtype.kind == "f" else array != 0
        if not inside.any():
            raise InputError("the mask is empty; expected at least one voxel that is not 0")
        return cls(dims, shape, np.flatnonzero(inside))

    def take(self, what: str, value: Any) -> np.ndarray:
        """The estimated voxels of a map, (voxel,); a labelled map may have its dimensions in any order."""
        if isinstance(value, xr.DataArray) and set(map(str, value.dims)) == set(self.dims):
            value = value.transpose(*self.dims)
        array = np.asarray(value)
        if array.shape != self.shape:
            raise InputError(f"{what} has shape {array.shape}; the image has {self.shape}")
        return array.ravel()[self.pick]

    def put(self, values: np.ndarray, elsewhere: np.generic) -> np.ndarray:
        """An image of the estimated voxels' values, (voxel, ...), and another value in the rest, of that one's type."""
        flat = np.full((math.prod(self.shape), *values.shape[1:]), elsewhere, elsewhere.dtype)
        flat[self.pick] = values
        return flat.reshape((*self.shape, *values.shape[1:]))


def _sigma(sigma: float | np.ndarray | xr.DataArray | None, image: _Image) -> float | np.ndarray | None:
    if sigma is None:
        return None
    if np.ndim(sigma) == 0:
        if not 0 < float(sigma) < math.inf:
            raise InputError(f"sigma is {sigma}; expected a positive noise SD")
        return float(sigma)
    array = image.take("the sigma", sigma).astype(float)
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise InputError("sigma is not positive everywhere; expected a positive noise SD")
    return array


def estimator(**declared: Any) -> Callable[[Core], Estimator]:
    """Declare a core as an `Estimator`; the keywords are its fields. What the core says of itself, it says too."""

    def wrap(core: Core) -> Estimator:
        made = Estimator(core=core, **declared)
        object.__setattr__(made, "__doc__", _told(made))
        return made

    return wrap


def _told(made: Estimator) -> str:
    """What `help` says of an estimator: the words of its core, and what it is called with."""
    unit = _UNITS.get(made.encoding, ("",))[0]
    settings = {q.name for q in made.model.settings} & {"TR", "field_strength"}
    stated = f", with {' and '.join(sorted(settings))} as coordinates or attributes" if settings else ""
    options = "".join(f", {name}={value!r}" for name, value in made.options.items())
    call = f"{made.name.replace('-', '_')}(scan, mask=None, sigma=None, intervals=False{options})"
    scan = f"`scan` is a DataArray of any voxel dimensions and `{made.encoding}` with its coordinate ({unit}){stated}."
    parts = (made.title + ".", inspect.cleandoc(made.core.__doc__ or ""), textwrap.fill(call, 110),
             textwrap.fill(f"{scan} See `Estimator.__call__`.", 110), f"Source: {made.source}.")  # fmt: skip
    return "\n\n".join(part for part in parts if part)
