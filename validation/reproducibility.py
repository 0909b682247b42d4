"""Vials of known PDFF at six sites: three vendors' settings at 1.5 and 3 T, each with faults of its own.

As Hernando et al. 2017, doi:10.1002/mrm.26228, whose phantom went to six sites: |bias| .22 % on average, slopes .96 to
1.02, intercepts -.56 to 1.13 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import estimators, phantoms
from ..estimators.status import Status
from ..simulator import tissues
from ..simulator.acquisition.protocol import protocols
from ..simulator.acquisition.scanner import Scanner
from ..simulator.scan import scan
from . import agreement
from .ladder import Warmed
from .panels import row_of_axes
from .style import INK, RULE, label, legend, series

VENDORS = ("ideal_iq", "mdixon_quant", "q_dixon")
FIELDS = {"1t5": 1.5, "3t": 3.0}
ROOM = 21.0  # C; what every site is told of the phantom
SNR = 60.0
WAYS = {"as it comes": {}, "T1 corrected": {"T1_correction": True}}  # type: dict[str, dict[str, Any]]
# What differs from site to site, drawn once for each: SDs of the temperature (C), of B1+, and of a field ramp (Hz).
WARMER, DEEPER, SLOPED = 1.5, 0.08, 40.0


def run(quick: bool, seed: int) -> xr.Dataset:
    """Scan the vials at every site, twice, and fit them.

    Returns
    -------
    Dataset
        ``estimate`` (way, site, repeat, vial): mean PDFF of a vial; ``truth`` (vial,), and what each site does wrong.
    """
    repeats = 2 if quick else 4
    sites = [f"{vendor}_{field}" for field in FIELDS for vendor in VENDORS]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6,)))
    faults = rng.standard_normal((len(sites), 3)) * [WARMER, DEEPER, SLOPED]
    found, doubted, truth = [], [], np.empty(0)
    for number, site in enumerate(sites):
        protocol = protocols.get(f"dixon_{site}")
        bone = phantoms.vials("pdff", field=protocol.field_strength, resolution=2e-3)
        true = bone.truth["pdff"].values
        vial = _vials(bone)
        truth = np.array([true[vial == n].mean() for n in range(vial.max() + 1)])
        warmer, deeper, slope = faults[number]
        ramp = slope * np.linspace(-1, 1, true.shape[2]) * np.ones(true.shape)
        scanner = Scanner(b0=ramp, b1=np.full(true.shape, 1 + deeper))
        shift = tissues.water_shift(ROOM + warmer) - tissues.water_shift()
        told: dict[str, Any] = {"T1_water": tissues.value("agar.T1", protocol.field_strength),
                "T1_fat": tissues.value("oil.T1", protocol.field_strength)}  # fmt: skip
        at_site, in_doubt = [], []
        for repeat in range(repeats):
            child = np.random.SeedSequence(seed, spawn_key=(number, repeat))
            image = scan(Warmed(bone, shift), protocol, scanner=scanner, snr=SNR, seed=child)
            maps = [estimators.get("dixon")(image, mask=vial >= 0, temperature=ROOM, **options,
                                            **(told if options else {})) for options in WAYS.values()]  # fmt: skip
            at_site.append([[np.mean(m["pdff"].values[vial == n]) for n in range(truth.size)] for m in maps])
            doubt = [(m["status"].values & Status.AMBIGUOUS) != 0 for m in maps]
            in_doubt.append([[doubt_of[vial == n].mean() for n in range(truth.size)] for doubt_of in doubt])
        found.append(at_site)
        doubted.append(in_doubt)
    estimate, ambiguous = (np.moveaxis(np.array(each), 2, 0) for each in (found, doubted))  # (way, site, repeat, vial)
    about = {"units": "1", "long_name": "mean PDFF of a vial"}
    return xr.Dataset(
        {
            "estimate": (("way", "site", "repeat", "vial"), estimate, about),
            "ambiguous": (("way", "site", "repeat", "vial"), ambiguous, {"units": "1", "long_name": "share of voxels"}),
            "truth": ("vial", truth, {"units": "1", "long_name": "PDFF"}),
            "temperature": ("site", ROOM + faults[:, 0], {"units": "C"}),
            "B1": ("site", 1 + faults[:, 1], {"units": "1"}),
        },
        coords={"way": list(WAYS), "site": sites},
    )


def _vials(bone: Any) -> np.ndarray:
    """Number of the vial of each voxel, in the order of their truths; -1 outside."""
    from scipy import ndimage

    found, _ = ndimage.label(np.isfinite(bone.truth["pdff"].values))
    return np.asarray(found, int) - 1


def table(found: xr.Dataset, way: str) -> dict[str, Any]:
    """Line, bias and limits of every site and of all together, repeatability and reproducibility; fractions."""
    own, sure = found["estimate"].sel(way=way).values, certain(found, way)
    own, truth = own[..., sure], found["truth"].values[sure]
    means = own.mean(axis=1)
    values = np.moveaxis(own, (0, 1, 2), (1, 2, 0))  # (vial, site, repeat)
    each = {site: agreement.line(truth, mean) for site, mean in zip(found["site"].values.tolist(), means, strict=True)}
    return {
        "sites": each,
        "all": agreement.line(np.tile(truth, len(means)), means.ravel()),
        "repeatability": agreement.repeatability(values.reshape(-1, values.shape[2])),
        "reproducibility": agreement.reproducibility(values),
    }


def certain(found: xr.Dataset, way: str) -> np.ndarray:
    """The vials that no scan calls ambiguous in most of their voxels: the others are counted, and left out of means."""
    return np.asarray((found["ambiguous"].sel(way=way) < 0.5).all(("site", "repeat")).values)


def tell(found: xr.Dataset) -> str:
    """What came out, beside what was published."""
    parts = []
    for way in found["way"].values.tolist():
        one = table(found, way)
        slopes = [line.slope.value for line in one["sites"].values()]
        bias = [100 * line.bias.value for line in one["sites"].values()]
        whole = one["all"]
        points = [agreement.Interval(*(100 * v for v in (i.value, i.low, i.high)))
                  for i in (whole.bias, whole.intercept, one["repeatability"], one["reproducibility"])]  # fmt: skip
        parts.append(
            f"{way}: bias {points[0]} points over all sites ({min(bias):.2f} to {max(bias):.2f} at single ones), slope "
            f"{whole.slope} ({min(slopes):.3f} to {max(slopes):.3f}), intercept {points[1]} points, R2 {whole.r2:.4f}, "
            f"repeatability coefficient {points[2]} points, reproducibility coefficient {points[3]} points"
        )
    aside = int((~certain(found, found["way"].values[-1])).sum())
    parts.append(f"{aside} of {found.sizes['vial']} vials are left out: a fit called them ambiguous")
    published = "Published for a phantom at six sites: |bias| .22 points, slopes .96 to 1.02, intercepts -.56 to 1.13"
    return "; ".join(parts) + f". {published} (Hernando 2017, doi:10.1002/mrm.26228)."


def draw(found: xr.Dataset) -> Figure:
    """Error of each vial against its truth, a colour for each site, a panel for each way of fitting."""
    figure, axes = row_of_axes(found.sizes["way"], 3.3, head=0.62, wspace=0.16)
    looks = series(found["site"].values.tolist())
    error = 100 * (found["estimate"].mean("repeat") - found["truth"])
    for ax, way in zip(axes, found["way"].values.tolist(), strict=True):
        ax.axhline(0, color=INK, lw=0.8)
        for site, (colour, marker) in looks.items():
            y = error.sel(way=way, site=site).values
            ax.plot(100 * found["truth"].values, y, marker, ms=3.6, mfc=colour, mec="none", alpha=0.8)
        ax.set_ylim(float(error.min()) - 0.5, float(error.max()) + 0.5)
        ax.grid(axis="y", color=RULE, lw=0.6)
        label(ax, "PDFF (%)", "error of PDFF (points)" if ax is axes[0] else "", way)
    legend(figure, [Line2D([], [], color=c, marker=m, mec="none", ms=4, ls="", label=site.replace("_", " "))
                    for site, (c, m) in looks.items()])  # fmt: skip
    return figure
