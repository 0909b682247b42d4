"""Scans, phantoms and maps on disk: NetCDF in and out, and the one way in which anything is written.

A scan is one NetCDF-4 file with the variable ``signal``. NetCDF has no portable complex number, so a complex scan
is stored as the two variables ``signal_real`` and ``signal_imag``, and read back as one complex array. A file of any
other origin is read when it holds a single data variable with a ``b`` coordinate.

Nothing is ever half written: every output is written beside its place under a temporary name, and renamed when it is
complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from .acquisition import Protocol

NIFTI_SUFFIXES = (".nii", ".nii.gz")

# What the readers of NIfTI and NetCDF raise on text, truncated and foreign files.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, OverflowError, zlib.error)


def reason(error: BaseException) -> str:
    """Return what an exception says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path` as a Path, or say that it is not a file that can be read."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; {what} is a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; give {what}")
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------------------- writing


def output_path(path: str | os.PathLike[str], *, folder: bool = False, netcdf: bool = True) -> Path:
    """Check the name of an output.

    Parameters
    ----------
    path : path
        What the user asked for.
    folder : bool
        Whether a folder (a name without a suffix) is a possible output.
    netcdf : bool
        Whether a NetCDF file is one.

    Raises
    ------
    InputError
        For a suffix other than ``.nc``; an existing folder may be called anything.
    """
    path = Path(path)
    wanted = " or ".join(["a file ending in .nc"] * netcdf + ["a folder (a name without a suffix)"] * folder)
    is_folder = path.is_dir() or path.suffix == ""
    if is_folder and not folder:
        raise InputError(f"output {path} {'is a folder' if path.is_dir() else 'has no suffix'}; it must be {wanted}")
    if not is_folder and not (netcdf and path.suffix == ".nc"):
        raise InputError(f"output {path} has the suffix {path.suffix}; it must be {wanted}")
    if folder and path.suffix == "" and path.exists() and not path.is_dir():
        raise InputError(f"output {path} is a file already; it must be {wanted}")
    return path


@contextmanager
def writing(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary file (or folder) beside `path`, which takes its place when the block ends well.

    Enter it before long work: a place that cannot be written is told at once. In a folder that exists already the new
    files replace those of the same name, one by one, and others stay.

    Raises
    ------
    InputError
        Where `path` cannot be written. Nothing is left behind then.
    """
    path = Path(path)
    made: list[Path] = []
    temporary: Path | None = None
    try:
        try:
            home = path if folder and path.is_dir() else path.parent
            made = _make_parents(home)
            if folder:
                temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=home))
                temporary.chmod(0o777 & ~_umask())
            else:
                if path.is_dir():
                    raise IsADirectoryError(21, "it is a folder")
                handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=home)
                os.close(handle)
                temporary = Path(name)
                temporary.chmod(0o666 & ~_umask())
        except OSError as error:
            raise InputError(f"cannot write {path}: {reason(error)}; choose another output with -o") from error
        yield temporary
        try:
            if not folder or not path.exists():
                os.replace(temporary, path)
            else:
                for file in sorted(temporary.iterdir(), key=lambda file: (file.suffix == ".json", file.name)):
                    os.replace(file, path / file.name)
                temporary.rmdir()
        except OSError as error:
            raise InputError(f"cannot write {path}: {reason(error)}; choose another output with -o") from error
        temporary, made = None, []
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True) if folder else temporary.unlink(missing_ok=True)
        _remove_empty(made)


@contextmanager
def filling(path: Path) -> Iterator[Path]:
    """Make a folder for outputs that come one by one and can be resumed; remove it again where it stays empty.

    Raises
    ------
    InputError
        Where it cannot be made, or nothing can be written into it.
    """
    made: list[Path] = []
    try:
        made = _make_parents(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"cannot write into {path}: {reason(error)}; choose another output with -o") from error
    try:
        yield path
    finally:
        _remove_empty(made)


def _make_parents(folder: Path) -> list[Path]:
    """Make `folder` with all its parents; return those that were new, the innermost first."""
    new = []
    ancestor = folder
    while not ancestor.exists() and ancestor != ancestor.parent:
        new.append(ancestor)
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"cannot write into {folder}: {ancestor} is a file, no folder; choose another output with -o")
    folder.mkdir(parents=True, exist_ok=True)
    return new


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, up to one that holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            break


def _umask() -> int:
    """Return the permissions that new files are denied (temporary files are private otherwise)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_attrs(attrs: Mapping[Any, Any], where: str) -> None:
    """Refuse attributes that NetCDF would lose or change.

    Raises
    ------
    InputError
        For anything but a string, a finite number or an array of finite numbers.
    """
    for name, value in attrs.items():
        numbers = np.asarray(value)
        if isinstance(value, str) or (numbers.dtype.kind in "iuf" and numbers.size and np.isfinite(numbers).all()):
            continue
        raise InputError(
            f"attribute {name} of {where} is {value!r}; an attribute is a string, a finite number or an array of them"
        )


def write_dataset(dataset: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a Dataset of real variables to one NetCDF-4 file, whole or not at all.

    Raises
    ------
    InputError
        For attributes that NetCDF cannot hold, or a place that cannot be written.
    """
    path = Path(path)
    check_attrs(dataset.attrs, path.name)
    for name, variable in dataset.variables.items():
        check_attrs(variable.attrs, f"{name} in {path.name}")
    with writing(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")
    return path


def write_scan(scan: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a scan to NetCDF: ``signal``, or ``signal_real`` and ``signal_imag`` where it is complex.

    Parameters
    ----------
    scan : DataArray
        Voxel dims and one encoding dim, with its coordinates and attributes.
    path : path
        Ends in ``.nc``.

    Raises
    ------
    InputError
        For another suffix, for attributes that NetCDF cannot hold, or a place that cannot be written.
    """
    path = output_path(path)
    if np.iscomplexobj(scan):
        dataset = scan.real.rename("signal_real").to_dataset()
        dataset["signal_imag"] = scan.imag
        for part in ("signal_real", "signal_imag"):
            dataset[part].attrs = dict(scan.attrs)
    else:
        dataset = scan.rename("signal").to_dataset()
    return write_dataset(dataset, path)


# ---------------------------------------------------------------------------------------------------------- reading


def read_netcdf(path: str | os.PathLike[str], group: str | None = None) -> xr.Dataset:
    """Read a NetCDF-4 file, or one group of it, into memory.

    Raises
    ------
    InputError
        For a file that is missing, truncated or not NetCDF-4.
    """
    import xarray as xr

    path = existing_file(path, "a NetCDF file")
    try:
        with xr.open_dataset(path, engine="h5netcdf", group=group) as dataset:
            return dataset.load()
    except UNREADABLE as error:
        raise InputError(f"{path} is not a readable NetCDF-4 file: {reason(error)}") from error


def read_scan(path: str | os.PathLike[str]) -> xr.DataArray:
    """Read a scan from NetCDF.

    Returns
    -------
    DataArray
        With the dims, coordinates and attributes it was written with.

    Raises
    ------
    InputError
        For a file that cannot be read or holds no scan.
    """
    import xarray as xr

    dataset = read_netcdf(path)
    names = [str(name) for name in dataset.data_vars]
    if {"signal_real", "signal_imag"} <= set(names):
        real = dataset["signal_real"]
        scan = (real + 1j * dataset["signal_imag"]).assign_attrs(real.attrs)
    elif "signal" in names:
        scan = dataset["signal"]
    elif len(names) == 1:
        scan = dataset[names[0]]
    else:
        held = ", ".join(names) if names else "no variable at its top level"
        raise InputError(
            f"{path} holds {held}; a scan has the variable signal (a phantom is scanned with: bonemri simulate)"
        )
    # Attributes of the file are the scan's where it has none of that name itself.
    attrs = {**dataset.attrs, **scan.attrs}
    scan = xr.DataArray(scan.variable, coords=scan.coords, name="signal")
    scan.attrs = attrs
    return scan


def read(
    path: str | os.PathLike[str],
    *,
    encoding: str = "b",
    second: str | os.PathLike[str] | None = None,
    bval: str | os.PathLike[str] | None = None,
    protocol: Protocol | None = None,
    conjugate: bool = False,
) -> xr.DataArray:
    """Read a scan: NetCDF as `bonemri simulate` writes it, or a 4-D NIfTI with what lies beside it.

    Parameters
    ----------
    path : path
        ``.nc``, ``.nii`` or ``.nii.gz``.
    encoding : str
        What the last axis of a NIfTI is: ``b`` (b-values), or ``echo`` or ``te`` (echo times, see `multi_echo.read`).
    second : path, optional
        The phase (rad) of a multi-echo NIfTI that holds magnitudes.
    bval : path, optional
        The b-values of a NIfTI (s/mm2); the ``.bval`` file beside it where not given.
    protocol : Protocol, optional
        Gives echo time, repetition time and field strength, before the sidecar of a diffusion series; beside a
        multi-echo NIfTI what its sidecar does not state. And the b-values or echo times, where the file has none.
    conjugate : bool
        Complex data whose phase turns the other way.

    Raises
    ------
    InputError
        For a file that cannot be read, or does not fit what lies beside it.
    """
    from . import multi_echo, nifti

    name = str(path).lower()
    echoes = encoding in multi_echo.ENCODINGS
    if bval is not None and echoes:
        raise InputError(f"--bval {bval} goes with a diffusion series; here the images differ in their echo time")
    if name.endswith(NIFTI_SUFFIXES):
        if echoes:
            return multi_echo.read(path, second, protocol, conjugate)
        return nifti.read_diffusion(path, bval=bval, protocol=protocol)
    if not name.endswith(".nc"):
        existing_file(path, "a scan")
        raise InputError(f"{path} is of an unknown kind; a scan is NetCDF (.nc) or NIfTI (.nii, .nii.gz)")
    if bval is not None:
        raise InputError(f"--bval {bval} goes with a NIfTI; {path} carries its b-values itself")
    if second is not None:
        raise InputError(f"{second} is a second input; {path} carries its phase itself, where it has one")
    scan = read_scan(path)
    if conjugate:
        if not np.iscomplexobj(scan):
            raise InputError(f"--conjugate turns the phase; {path} has none")
        scan = scan.conj().assign_attrs(scan.attrs)
    if echoes and "echo" in scan.coords:
        multi_echo.check_echoes(scan, str(path))
        multi_echo.check_magnitudes(scan.values, path)
    if protocol is None:
        return scan
    own = "rung" in scan.attrs
    scan = with_protocol(scan, protocol)
    if echoes and not own:
        del scan.attrs["protocol"]  # as of a NIfTI: where water stands is known of our own scans alone
    return scan


def with_protocol(scan: xr.DataArray, protocol: Protocol) -> xr.DataArray:
    """Give a scan what a protocol states: echo time, repetition time, field strength, fat suppression.

    The encoding (the b-values) stays the scan's own, and is entered into the protocol it carries from then on.

    Raises
    ------
    InputError
        For a protocol of another encoding, and where a column of its table does not fit the scan's points.
    """
    encoding = protocol.encoding
    if encoding not in scan.coords or scan[encoding].dims != (encoding,):
        dims = ", ".join(map(str, scan.dims))
        raise InputError(f"protocol {protocol.name} encodes along {encoding}; the scan has the dims {dims}")
    own = tuple(float(value) for value in scan[encoding].values)
    if own != tuple(protocol.table[encoding]):
        protocol = protocol.replace(**{encoding: own})
    coords = protocol.coords()
    del coords[encoding]
    scan = scan.assign_coords(coords)
    scan.attrs["protocol"] = protocol.to_json()
    return scan
