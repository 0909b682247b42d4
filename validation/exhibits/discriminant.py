"""PDFF and T2* together: who of a simulated cohort is osteoporotic, by one biomarker and by both.

Every person is a vertebra scanned and fitted: PDFF, T2 and bone volume are the person's own, and the bone adds to R2*
by static dephasing. Kuehn's study of normal against osteoporotic people found an AUC of .698 for R2*, .656 for PDFF
and .74 for both.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ... import estimators, phantoms
from ...simulator import tissues
from ...simulator.acquisition.protocol import protocols
from ...simulator.constants import GYROMAGNETIC
from ...simulator.scan import scan
from ..regions import by_label
from ..report.panels import row_of_axes
from ..report.style import INK, MUTED, RULE, SERIES, label, legend
from . import agreement

PROTOCOL = "dixon_marrow_bipolar"
SNR = 40.0
VOXELS = 25  # of a vertebra that are averaged
FOLDS = 10
MARKERS = ("PDFF", "T2*", "PDFF and T2*")
PUBLISHED = {"PDFF": 0.656, "T2*": 0.698, "PDFF and T2*": 0.74}


def run(quick: bool, seed: int) -> xr.Dataset:
    """A cohort from 50 years on, normal or osteoporotic by T-score, scanned and scored.

    Returns
    -------
    Dataset
        Over ``person``: the fitted ``pdff`` and ``t2star`` (s), their truths, ``osteoporotic`` (0, 1), and ``score``
        (marker, person), cross-validated for the two together.
    """
    people = phantoms.cohort(400 if quick else 1200, seed=seed, age=(50.0, 85.0))
    t_score = people["t_score"].values
    chosen = (t_score >= -1.0) | (t_score <= -2.5)
    row = {name: people[name].values[chosen] for name in ("pdff", "bvtv", "T2_water", "perfusion_fraction")}
    ill = t_score[chosen] <= -2.5
    protocol = protocols.get(PROTOCOL)
    dephasing = structural_rate(row["bvtv"], row["pdff"], protocol.field_strength)
    n = ill.size
    each = {name: value.reshape(1, n, 1) for name, value in row.items()}
    bone = phantoms.marrow_block(shape=(1, n, VOXELS), f=each["perfusion_fraction"], pdff=each["pdff"],
                                 T2_water=each["T2_water"], R2_prime=dephasing.reshape(1, n, 1))  # fmt: skip
    image = scan(bone, protocol, snr=SNR, seed=seed)
    maps = estimators.get("dixon")(image, sigma=float(image.attrs["image_sd"]))
    pdff, t2star = _read(maps, n)
    read = np.isfinite(pdff) & np.isfinite(t2star)  # a vertebra without a voxel that counts has nothing to be told by
    pdff, t2star, ill, true = pdff[read], t2star[read], ill[read], row["pdff"][read]
    both = held_out(np.stack([pdff, t2star], axis=1), ill, np.random.default_rng(seed))
    score = np.stack([pdff, t2star, both])
    return xr.Dataset(
        {
            "pdff": ("person", pdff, {"units": "1"}), "t2star": ("person", t2star, {"units": "s"}),
            "pdff_true": ("person", true, {"units": "1"}),
            "osteoporotic": ("person", ill.astype(np.int8)),
            "score": (("marker", "person"), score),
        },
        coords={"marker": list(MARKERS)},
    )  # fmt: skip


def _read(maps: xr.Dataset, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PDFF and T2* of each person's vertebra, read as any region is."""
    person = xr.DataArray(np.repeat(np.arange(1, n + 1), VOXELS).reshape(1, n, VOXELS), dims=("z", "y", "x"))
    found = by_label(maps, person)
    return found["pdff"].values, found["t2star"].values


def structural_rate(bvtv: NDArray[np.float64], pdff: NDArray[np.float64], field: float) -> NDArray[np.float64]:
    """R2' (1/s) of marrow between thin trabeculae of every direction: bvtv gamma B0 |dchi| / 3.

    Yablonskiy and Haacke 1994, doi:10.1002/mrm.1910320610.
    """
    marrow = (1 - pdff) * tissues.value("water.chi") + pdff * tissues.value("fat.chi")
    contrast = np.abs(tissues.value("bone.chi") - marrow) * 1e-6
    return np.asarray(bvtv * 2 * np.pi * GYROMAGNETIC["1H"] * field * contrast / 3)


def fisher(features: NDArray[np.float64], ill: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of Fisher's linear discriminant: the pooled covariance against the difference of the means."""
    groups = (features[ill], features[~ill])
    pooled = sum((len(g) - 1) * np.cov(g, rowvar=False) for g in groups) / (len(features) - 2)
    return np.asarray(np.linalg.solve(np.atleast_2d(pooled), groups[0].mean(axis=0) - groups[1].mean(axis=0)))


def held_out(features: NDArray[np.float64], ill: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Score of each person by a discriminant that has not seen him: in units of its spread over those it has seen."""
    fold = np.empty(ill.size, int)
    for group in (ill, ~ill):  # as many of each in every fold
        members = rng.permutation(np.flatnonzero(group))
        fold[members] = np.arange(members.size) % FOLDS
    score = np.empty(ill.size)
    for out in range(FOLDS):
        seen = fold != out
        weight = fisher(features[seen], ill[seen])
        known = features[seen] @ weight
        score[~seen] = (features[~seen] @ weight - known.mean()) / known.std()
    return score


def areas(found: xr.Dataset) -> dict[str, agreement.Interval]:
    """AUC of each marker with DeLong's interval."""
    ill = found["osteoporotic"].values.astype(bool)
    return {name: agreement.auc(found["score"].sel(marker=name).values, ill) for name in MARKERS}


def tell(found: xr.Dataset) -> str:
    """AUCs, and what was published."""
    ill = int(found["osteoporotic"].sum())
    listed = "; ".join(f"{name} {area} (published {PUBLISHED[name]:g})" for name, area in areas(found).items())
    return (
        f"{ill} osteoporotic and {found.sizes['person'] - ill} normal people over 50. AUC with its 95 % interval: "
        f"{listed}. The two together are scored by a discriminant that has not seen the person. These people differ by "
        "their traits and by noise alone, with no reader, site or motion between: their areas are more than a clinic's."
    )


def draw(found: xr.Dataset) -> Figure:
    """The cohort over both biomarkers, and the ROC of each."""
    figure, (left, right) = row_of_axes(2, 3.6, head=0.45, wspace=0.2)
    ill = found["osteoporotic"].values.astype(bool)
    for group, colour, marker, name in ((~ill, SERIES[0], "o", "normal"), (ill, SERIES[1], "s", "osteoporotic")):
        left.plot(100 * found["pdff"].values[group], 1e3 * found["t2star"].values[group], marker, ms=3, mfc=colour,
                  mec="none", alpha=0.5, label=name)  # fmt: skip
    label(left, "PDFF (%)", "T2* (ms)")
    handles = left.get_legend_handles_labels()[0]
    for index, (name, area) in enumerate(areas(found).items()):
        false, true = agreement.roc(found["score"].sel(marker=name).values, ill)
        handles += right.plot(100 * false, 100 * true, color=SERIES[2 + index], lw=1.4, drawstyle="steps-post",
                              label=f"{name}: AUC {area.value:.2f}")  # fmt: skip
    right.plot([0, 100], [0, 100], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    label(right, "false positives (%)", "true positives (%)")
    for ax in (left, right):
        ax.grid(color=RULE, lw=0.6)
        ax.tick_params(labelcolor=INK)
    legend(figure, handles)
    return figure
