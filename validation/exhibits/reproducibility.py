"""Vials of known PDFF at six sites: three vendors' settings at 1.5 and 3 T, each with faults of its own.

As Hernando et al. 2017, doi:10.1002/mrm.26228, whose phantom went to six sites; what was published stands beside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ... import estimators, phantoms
from ...estimators.status import Status
from ...simulator import tissues
from ...simulator.acquisition.protocol import protocols
from ...simulator.acquisition.scanner import Scanner
from ...simulator.scan import scan
from ..ladder import Warmed
from ..report.panels import WIDTH
from ..report.style import INK, MUTED, RULE, label, legend, new_figure, plain, series
from . import agreement

VENDORS = ("ideal_iq", "mdixon_quant", "q_dixon")
FIELDS = {"1t5": 1.5, "3t": 3.0}
ROOM = 21.0  # C; what every site is told of the phantom
SNR = 60.0
WAYS = {"as it comes": {}, "T1 corrected": {"T1_correction": True}}  # type: dict[str, dict[str, Any]]
# What differs from site to site, drawn once for each: SDs of the temperature (C), of B1+, and of a field ramp (Hz).
WARMER, DEEPER, SLOPED = 1.5, 0.08, 40.0


class Published(NamedTuple):
    """What others found: value and range of the size of the bias (points), of the slope and of the intercept (points).

    NaN where a paper does not tell.
    """

    name: str
    size_of_bias: tuple[float, float, float]
    slope: tuple[float, float, float]
    intercept: tuple[float, float, float]
    words: str


UNTOLD = (np.nan, np.nan, np.nan)
PUBLISHED = (
    Published(
        "Hernando 2017", (0.22, 0.07, 0.38), (np.nan, 0.96, 1.02), (np.nan, -0.56, 1.13),
        "a phantom at six sites, three vendors and two fields: |bias| .22 points (.07 to .38), slopes .96 to 1.02, "
        "intercepts -.56 to 1.13 points, R2 over .995 (Hernando 2017, doi:10.1002/mrm.26228)",
    ),
    Published(
        "Yokoo 2018", (0.13, np.nan, np.nan), (0.97, np.nan, np.nan), UNTOLD,
        "livers against spectroscopy, 23 studies: slope .97, bias -.13 points, limits of agreement -3.95 to 3.40 "
        "(Yokoo 2018, doi:10.1148/radiol.2017170550)",
    ),
)  # fmt: skip
COMPARED = {"size_of_bias": "|bias| (points)", "slope": "slope", "intercept": "intercept (points)"}


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
        least = min(line.r2 for line in one["sites"].values())
        whole = one["all"]
        points = [agreement.Interval(*(100 * v for v in (i.value, i.low, i.high)))
                  for i in (whole.bias, whole.intercept, one["repeatability"], one["reproducibility"])]  # fmt: skip
        parts.append(
            f"{way}: bias {points[0]} points over all sites ({min(bias):.2f} to {max(bias):.2f} at single ones), slope "
            f"{whole.slope} ({min(slopes):.3f} to {max(slopes):.3f}), intercept {points[1]} points, R2 {whole.r2:.4f} "
            f"(at single sites at least {least:.4f}), repeatability coefficient {points[2]} points, reproducibility "
            f"coefficient {points[3]} points"
        )
    aside = int((~certain(found, found["way"].values[-1])).sum())
    parts.append(f"{aside} of {found.sizes['vial']} vials are left out: a fit called them ambiguous")
    return "; ".join(parts) + ". Published: " + "; ".join(each.words for each in PUBLISHED) + "."


def draw(found: xr.Dataset) -> Figure:
    """Error of each vial against its truth, a colour for each site, a panel for each way of fitting; below, the bias,
    slope and intercept of each site beside what was published."""
    ways = found["way"].values.tolist()
    height = 5.6
    figure = new_figure(WIDTH, height)
    above = figure.add_gridspec(1, len(ways), left=0.075, right=0.99, top=1 - 0.62 / height, bottom=0.505, wspace=0.16)
    looks = series(found["site"].values.tolist())
    error = 100 * (found["estimate"].mean("repeat") - found["truth"])
    for column, way in enumerate(ways):
        ax = plain(figure.add_subplot(above[0, column]))
        ax.axhline(0, color=INK, lw=0.8)
        for site, (colour, marker) in looks.items():
            y = error.sel(way=way, site=site).values
            ax.plot(100 * found["truth"].values, y, marker, ms=3.6, mfc=colour, mec="none", alpha=0.8)
        ax.set_ylim(float(error.min()) - 0.5, float(error.max()) + 0.5)
        ax.grid(axis="y", color=RULE, lw=0.6)
        label(ax, "PDFF (%)", "error of PDFF (points)" if column == 0 else "", way)
    below = figure.add_gridspec(1, len(COMPARED), left=0.135, right=0.99, top=0.345, bottom=0.45 / height, wspace=0.1)
    rows = [*ways, *(each.name for each in PUBLISHED)]
    lines = {way: table(found, way)["sites"] for way in ways}
    for column, (what, words) in enumerate(COMPARED.items()):
        ax = plain(figure.add_subplot(below[0, column]))
        ax.axvline(1.0 if what == "slope" else 0.0, color=INK, lw=0.8)
        for row, way in enumerate(ways):
            for site, (colour, marker) in looks.items():
                ax.plot(_of_line(lines[way][site], what), row, marker, ms=4.2, mfc=colour, mec="none", alpha=0.8)
        for row, each in enumerate(PUBLISHED, start=len(ways)):
            value, low, high = getattr(each, what)
            ax.plot([low, high], [row, row], color=MUTED, lw=5, alpha=0.35, solid_capstyle="butt")
            ax.plot(value, row, "D", ms=4.5, mfc="none", mec=INK, mew=1.0)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)), rows if column == 0 else [""] * len(rows))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color=RULE, lw=0.6)
        label(ax, words)
    handles = [Line2D([], [], color=c, marker=m, mec="none", ms=4, ls="", label=site.replace("_", " "))
               for site, (c, m) in looks.items()]  # fmt: skip
    handles.append(Line2D([], [], color=MUTED, lw=5, alpha=0.35, label="published range"))
    handles.append(Line2D([], [], marker="D", ms=4.5, mfc="none", mec=INK, ls="", label="and mean"))
    legend(figure, handles)
    return figure


def _of_line(line: agreement.Line, what: str) -> float:
    """Bias (its size) and intercept in points, the slope as it is."""
    if what == "slope":
        return line.slope.value
    return 100 * (abs(line.bias.value) if what == "size_of_bias" else line.intercept.value)
