"""Read from maps and a label mask: fat fraction and cross-section of muscles, PDFF and T2* of vertebrae.

A label mask holds whole numbers on the voxels of the maps, 0 outside: that of a phantom (`Phantom.labels`), or any
other. How large a region is comes from all of its voxels; what it measures, from all but those without a value and
those that may hold another one altogether (`LEFT_OUT`). Voxels of status 0 alone would be no fair sample: whether a
voxel is called good goes by its own standard error, and this with its fat fraction and R2*.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..errors import InputError
from ..estimators.status import Status

PARASPINAL = ("erector_spinae", "multifidus")
"""Muscles behind the spine, as the label map of the spine names them after their side."""

LEFT_OUT = Status.INVALID | Status.NOT_CONVERGED | Status.AMBIGUOUS | Status.OUTSIDE_MASK
"""Voxels of such a status have no value, or perhaps that of another minimum; all others count, noisy as they are."""

FULL = 0.5
"""Part of the usual signal of a region from which a voxel counts in full; with less it counts in proportion."""

UNITS = {
    "voxels": "1", "n": "1", "flagged": "1", "volume": "m3", "cross_section": "m2", "pdff": "1", "pdff_sd": "1",
    "pdff_se": "1", "r2star": "1/s", "r2star_se": "1/s", "t2star": "s", "t2star_se": "s", "pdff_all": "1",
    "t2star_all": "s",
}  # fmt: skip
"""What is measured of each region."""


def names_of(labels: xr.DataArray) -> dict[int, str]:
    """Number and name of each label, from its CF attributes; a label without a name is called by its number."""
    present = [int(n) for n in np.unique(labels.values) if n != 0]
    values = [int(n) for n in np.atleast_1d(labels.attrs.get("flag_values", []))]
    words = str(labels.attrs.get("flag_meanings", "")).split()
    known = dict(zip(values, words, strict=True)) if len(values) == len(words) else {}
    return {n: known.get(n, str(n)) for n in present}


def by_label(maps: xr.Dataset, labels: xr.DataArray, groups: Mapping[str, tuple[str, ...]] | None = None) -> xr.Dataset:
    """Size, PDFF, R2* and T2* of each region.

    Parameters
    ----------
    maps : Dataset
        ``pdff``, and ``r2star`` (1/s), ``water`` and ``fat``, ``T1_error`` and ``status`` where there are such, over
        z, y, x, with attr ``voxel_size`` (m; z, y, x) or regular coordinates.
    labels : DataArray (z, y, x)
        Whole numbers, 0 outside.
    groups : mapping, optional
        Further regions made of several: name to the ends of the names of its members (``("multifidus",)``).

    Returns
    -------
    Dataset
        Over ``region``: ``voxels``; ``n``, how many of them have a PDFF and no status of `LEFT_OUT`; ``flagged``, the
        share whose status is not 0, of those that count as well; ``volume`` (m3), and ``cross_section`` (m2: the mean
        area in the axial slices that it reaches), of all voxels. Of the ``n`` that count: ``pdff``, the mean, its SD
        over the voxels, and its standard error; ``r2star`` (median) and ``t2star`` = 1/r2star (s) with theirs. NaN
        where no voxel counts, and without an SD where one alone does. ``pdff_all`` and ``t2star_all``: the same of
        every voxel that has a value, whatever its status.

    Raises
    ------
    InputError
        Labels that are no whole numbers, or do not lie on the voxels of the maps.

    Notes
    -----
    In the mean of PDFF, voxels count in full from half of the usual signal on, in proportion to water + fat below it
    (where these are there): the fraction of a voxel without signal may be anything. In proportion throughout, which is
    the ratio of the sums, noise would bias the mean: it is shared by the fraction and the weight. The usual signal is
    that of the voxel in which half of the signal of the region is reached, from the weakest on.

    Ambiguous voxels are left out although this biases, too, where they are most of a region: whether the other minimum
    can be ruled out goes by the voxel's own noise (of magnitudes at SNR 10, a true .10 reads .07 where one voxel in ten
    is left). But a swapped voxel is off by up to the whole range, to one side: ``pdff_all`` reads .26 there. Where the
    two differ, or ``n`` is a small part of ``voxels``, neither is sure.

    Standard errors come from the spread over the voxels, that of the tissue included, as if they were independent:
    noise that neighbours share (interpolated images), and tissue that varies over more than a voxel, make them too
    small. What is not known of the T1 that PDFF was corrected by (``T1_error``) is the same in all voxels, and is added
    whole. That of a weighted mean: Cochran, Sampling Techniques (1977), 6.4, as a ratio of sums; of a median, free of
    its distribution: Price and Bonett, J Stat Comput Simul 68:295 (2001), doi:10.1080/00949650108812071.
    """
    values = labels.values
    if values.dtype.kind not in "biu" and not np.array_equal(values, np.round(values)):
        raise InputError("labels: they hold fractions; whole numbers are expected, 0 outside")
    if values.shape != maps["pdff"].shape:
        raise InputError(f"labels have shape {values.shape}; the maps have {maps['pdff'].shape}")
    names = names_of(labels)
    if not names:
        raise InputError("labels: all are 0; no region is left to measure")
    members = {name: np.array([number]) for number, name in names.items()}
    for group, ends in (groups or {}).items():
        found = [number for number, name in names.items() if any(name == e or name.endswith("_" + e) for e in ends)]
        if found:
            members[group] = np.array(found)
    size, axial = _voxel_size(maps), _axial(maps)
    rows = []
    for numbers in members.values():
        inside = np.isin(values, numbers)
        rows.append(_extent(inside, size, axial) | _measured(maps, inside))
    return xr.Dataset(
        {name: ("region", np.array([row[name] for row in rows]), {"units": unit}) for name, unit in UNITS.items()},
        coords={"region": list(members)},
    )


def _extent(inside: np.ndarray, size: np.ndarray, axial: int) -> dict[str, float]:
    """Volume, and mean area in the slices across the axis `axial`."""
    count = int(inside.sum())
    slices = int(inside.any(axis=tuple(axis for axis in range(3) if axis != axial)).sum())
    area = float(np.prod(np.delete(size, axial)))
    return {"voxels": count, "volume": count * float(np.prod(size)), "cross_section": count * area / max(slices, 1)}


def _measured(maps: xr.Dataset, inside: np.ndarray) -> dict[str, float]:
    """PDFF and R2* of the voxels that count, and of all that have a value."""
    valued = inside & np.isfinite(maps["pdff"].values)
    status = maps["status"].values if "status" in maps else np.zeros(inside.shape, int)
    counting = valued & (status.astype(int) & int(LEFT_OUT) == 0)
    counted, everything = (_read(maps, voxels) for voxels in (counting, valued))
    flagged = float((status[inside] != 0).mean())
    return counted | {"flagged": flagged, **{f"{name}_all": everything[name] for name in ("pdff", "t2star")}}


def _read(maps: xr.Dataset, voxels: np.ndarray) -> dict[str, float]:
    """PDFF and R2* of some voxels, with standard errors."""
    fraction = maps["pdff"].values[voxels]
    n = fraction.size
    spread = float(fraction.std(ddof=1)) if n > 1 else np.nan
    weight = _weights(maps, voxels)
    total = float(weight.sum())
    pdff = float(weight @ fraction) / total if n else np.nan
    rest = weight * (fraction - pdff)
    pdff_se = float(np.sqrt(n / (n - 1) * (rest @ rest))) / total if n > 1 else np.nan
    if "T1_error" in maps and n:  # what is not known of T1 is the same in all of them
        pdff_se = float(np.hypot(pdff_se, weight @ maps["T1_error"].values[voxels] / total))
    rates = maps["r2star"].values[voxels] if "r2star" in maps else np.empty(0)
    rate, rate_se = median_of(rates[np.isfinite(rates)])
    positive = rate > 0
    return {
        "n": n, "pdff": pdff, "pdff_sd": spread, "pdff_se": pdff_se, "r2star": rate, "r2star_se": rate_se,
        "t2star": 1 / rate if positive else np.nan, "t2star_se": rate_se / rate**2 if positive else np.nan,
    }  # fmt: skip


def _weights(maps: xr.Dataset, voxels: np.ndarray) -> np.ndarray:
    """How much each voxel counts: alike from `FULL` of the usual signal on, else in proportion to its own."""
    alike = np.ones(int(voxels.sum()))
    if not {"water", "fat"} <= set(maps.data_vars):
        return alike
    signal = np.nan_to_num(maps["water"].values[voxels] + maps["fat"].values[voxels], posinf=0.0, neginf=0.0)
    ordered = np.sort(np.maximum(signal, 0.0))
    reached = np.cumsum(ordered)
    if not reached.size or not reached[-1] > 0:
        return alike
    usual = ordered[np.searchsorted(reached, 0.5 * reached[-1])]
    return np.asarray(np.clip(signal / (FULL * usual), 0.0, 1.0))


def median_of(values: np.ndarray) -> tuple[float, float]:
    """Median and its standard error: the width of an interval between two order statistics that holds it, over 2 z.

    The interval reaches about two standard errors to either side; z is the normal quantile of the probability that it
    really has, by the sign test. NaN of a single value.
    """
    from scipy.stats import binom, norm

    n = values.size
    if n < 2:
        return (float(values[0]), np.nan) if n else (np.nan, np.nan)
    low = max(1, int(np.round((n + 1) / 2 - np.sqrt(n))))  # the order statistic, counted from 1
    z = float(norm.isf(binom.cdf(low - 1, n, 0.5)))
    ordered = np.sort(values)
    return float(np.median(values)), float(ordered[n - low] - ordered[low - 1]) / (2 * z)


def _axial(maps: xr.Dataset) -> int:
    """The axis (of z, y, x) that runs nearest to head to foot: the first one where nothing tells."""
    if "affine" not in maps.attrs:
        return 0
    along = np.reshape(np.asarray(maps.attrs["affine"], float), (4, 4))[:3, :3]
    upward = np.abs(along[2]) / np.linalg.norm(along, axis=0)  # of the axes x, y, z of the voxels
    return 2 - int(np.argmax(upward))


def _voxel_size(maps: xr.Dataset) -> np.ndarray:
    if "voxel_size" in maps.attrs:
        return np.broadcast_to(np.asarray(maps.attrs["voxel_size"], float), (3,))
    edges = []
    for dim in maps["pdff"].dims:
        at = maps[dim].values if dim in maps.coords else np.empty(0)
        if at.size < 2:
            raise InputError(f"maps: voxel_size is not stated, and {dim} does not tell it; give it in attrs (m)")
        edges.append(float(abs(at[1] - at[0])))
    return np.array(edges)
