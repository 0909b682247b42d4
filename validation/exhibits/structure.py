"""What R2* of marrow among trabeculae is: a number of the structure, the field, its direction, and the echo train.

The field of a trabecular network dephases the marrow in it. The decay begins quadratically and becomes exponential
only later (Yablonskiy and Haacke, Magn Reson Med 32:749 (1994), doi:10.1002/mrm.1910320610), so that a fit of one
exponential finds another rate at every choice of echoes.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ... import phantoms
from ...simulator import tissues
from ...simulator.acquisition.protocol import protocols
from ...simulator.constants import GYROMAGNETIC
from ...simulator.engines import susceptibility
from ..report.panels import row_of_axes
from ..report.style import INK, RULE, label, legend, series

BVTV = (0.06, 0.10, 0.14, 0.20)
FIELDS = (1.5, 3.0)
DIRECTIONS = {"along the trabeculae": (0.0, 0.0, 1.0), "across them": (1.0, 0.0, 0.0)}
# Three presets, and a long train of few echoes as R2* alone is measured with.
TRAINS = {"dixon_marrow": None, "dixon_mdixon_quant_3t": None, "dixon_marrow_bipolar": None,
          "8 echoes to 30 ms": np.linspace(2e-3, 30e-3, 8)}  # fmt: skip
EDGE = 0.1  # of the cube on either side, where its field lacks neighbours


def run(quick: bool, seed: int) -> xr.Dataset:
    """R2' (1/s) by a noise-free fit of one exponential, (bvtv, field, direction, train).

    Beside it ``theory``, the rate of static dephasing by thin rods of every direction: bvtv gamma B0 |dchi| / 3.
    """
    size, resolution = (3.2e-3, 80e-6) if quick else (4e-3, 80e-6)
    shares, fields, times = BVTV[1::2] if quick else BVTV, FIELDS, {name: echoes(name) for name in TRAINS}
    rate = np.empty((len(shares), len(fields), len(DIRECTIONS), len(times)))
    theory = np.empty((len(shares), len(fields)))
    measured = []
    for i, bvtv in enumerate(shares):
        bone = phantoms.trabecular(bvtv=bvtv, size=size, resolution=resolution, seed=seed, morphometry=False, field=3.0)
        spins = np.asarray(bone.pools["density"].sel(pool=["marrow_water", "blood", "fat"]).sum("pool").values)
        solid = np.nan_to_num(bone.truth["bvtv"].values)
        measured.append(float(solid.mean()))
        inner = tuple(slice(int(EDGE * n), n - int(EDGE * n)) for n in spins.shape)
        contrast = _contrast(bone)
        for k, direction in enumerate(DIRECTIONS.values()):
            at_3 = bone.offset(direction)[inner]
            for j, field in enumerate(fields):
                for train, t in enumerate(times.values()):
                    weight = spins[inner]
                    left = susceptibility.dephasing(at_3 * field / 3.0, weight, weight.shape, t, remove_linear=True)
                    rate[i, j, k, train] = fitted(np.abs(left).ravel(), t)
        for j, field in enumerate(fields):
            theory[i, j] = measured[-1] * 2 * np.pi * GYROMAGNETIC["1H"] * field * contrast * 1e-6 / 3
    coords = {"bvtv": np.array(measured), "field": list(fields), "direction": list(DIRECTIONS), "train": list(times)}
    about = {"units": "1/s", "long_name": "fitted rate of dephasing"}
    return xr.Dataset({"r2_prime": (("bvtv", "field", "direction", "train"), rate, about),
                       "theory": (("bvtv", "field"), theory, {"units": "1/s"})}, coords=coords)  # fmt: skip


def echoes(name: str) -> NDArray[np.float64]:
    """Echo times (s) of a train: its own, or those of the preset of that name."""
    own = TRAINS[name]
    return np.asarray(protocols.get(name).table["echo"] if own is None else own, float)


def fitted(signal: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    """Rate (1/s) of the least-squares exponential of free amplitude, the amplitude projected out."""
    from scipy.optimize import minimize_scalar

    def rest(rate: float) -> float:
        decay = np.exp(-rate * times)
        return float(signal @ signal - (signal @ decay) ** 2 / (decay @ decay))

    return float(minimize_scalar(rest, bounds=(-50.0, 1000.0), method="bounded", options={"xatol": 1e-6}).x)


def _contrast(bone: phantoms.Phantom) -> float:
    """Susceptibility of bone less that of the marrow it lies in (ppm), without its sign."""
    pdff = float(np.nanmean(bone.truth["pdff"].values))
    marrow = (1 - pdff) * tissues.value("water.chi") + pdff * tissues.value("fat.chi")
    return abs(tissues.value("bone.chi") - marrow)


def tell(found: xr.Dataset) -> str:
    """What the echo train, the field and the direction do to one structure."""
    rate = found["r2_prime"]
    middle = rate.isel(bvtv=rate.sizes["bvtv"] // 2).sel(field=3.0)
    each = middle.mean("direction")
    listed = ", ".join(f"{float(v):.1f} ({name})" for name, v in zip(found["train"].values, each.values, strict=True))
    along, across = (float(middle.isel(direction=d).mean()) for d in (0, 1))
    double = float((rate.sel(field=3.0) / rate.sel(field=1.5)).mean())
    share = float(found["bvtv"][rate.sizes["bvtv"] // 2])
    return (
        f"At 3 T and a BV/TV of {share:.2f} one structure has an R2' of {listed} 1/s, by the echoes alone; {along:.1f} "
        f"with the field along its trabeculae and {across:.1f} across. From 1.5 to 3 T it grows {double:.2f} times: "
        f"more than twice where the decay has not yet become exponential."
    )


def draw(found: xr.Dataset) -> Figure:
    """R2' over BV/TV: a panel for each field and direction, a line for each echo train."""
    pairs = [(field, direction) for field in found["field"].values for direction in found["direction"].values]
    figure, axes = row_of_axes(len(pairs), 3.2, head=0.62, left=0.06, wspace=0.2)
    looks = series(found["train"].values.tolist())
    top = 1.08 * float(max(found["r2_prime"].max(), found["theory"].max()))
    x = found["bvtv"].values
    for ax, (field, direction) in zip(axes, pairs, strict=True):
        here = found["r2_prime"].sel(field=field, direction=direction)
        ax.plot(x, found["theory"].sel(field=field).values, color=INK, lw=0.9, ls=(0, (4, 3)))
        for train, (colour, marker) in looks.items():
            ax.plot(x, here.sel(train=train).values, color=colour, marker=marker, ms=4, mec="none", lw=1.1)
        ax.set_ylim(0, top)
        ax.grid(axis="y", color=RULE, lw=0.6)
        label(ax, "BV/TV", "R2′ (1/s)" if ax is axes[0] else "", f"{field:g} T, {direction}", fontsize=8.5)
    handles = [Line2D([], [], color=c, marker=m, mec="none", ms=4, lw=1.1, label=name.replace("_", " "))
               for name, (c, m) in looks.items()]  # fmt: skip
    legend(figure, [*handles, Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="rods, static dephasing")])
    return figure
