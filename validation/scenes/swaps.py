"""Swaps: voxels of an image in which an estimator takes water for fat and does not say that it doubts.

An estimator is given whole images with the air around the tissue, as a user would: no mask, and no noise SD unless
the study says so. A voxel counts as swapped where its PDFF is off by more than `OFF` and than noise, or its field is
nearer to that of the swap than to the truth; it is confident where its status is 0. Fields are compared modulo the
period of even echoes, of which no data tell. Voxels of one piece are decided together, so shares are those of the
images tried and have no binomial error.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ...estimators.status import Status
from ...simulator import threads, tissues
from ...simulator.acquisition.protocol import Protocol
from ..defendant import BrokenEstimate, Defendant
from ..experiment import Plan, Record
from ..report.panels import WIDTH
from ..report.style import INK, MUTED, SERIES, label, legend, new_figure, number
from ..store import Store
from .fields import Scene, wrapped
from .images import Images

BEYOND = 5.0  # of its own standard errors besides: noise alone carries a voxel as far once in a million
OFF = 0.3  # of a fat fraction: three times the SD beyond which a map says that it is no measurement
SWAPS = "swaps"  # the measurand of the row that counts them
KNOWN = {"temperature": tissues.BODY_TEMPERATURE}  # C, of the water of all images
Job = tuple[Images, float, float, Defendant]


def run(plan: Plan, defendants: Sequence[Defendant], store: Store, workers: int | None = None) -> list[Record]:
    """Try every estimator on every image of the study.

    Returns
    -------
    list of dict
        Two for each estimator, kind of image, echo train and rate: the share of confident swaps, and what the fat
        fraction of the image came to; both with the share of voxels that are flagged.
    """
    jobs = list(_jobs(plan, defendants))
    with ThreadPoolExecutor(workers or threads.count()) as pool:
        found = list(pool.map(lambda job: _kept(plan, store, *job), jobs))
    return [record for records in found for record in records]


def _jobs(plan: Plan, defendants: Sequence[Defendant]) -> list[Job]:
    return [
        (images, spacing, rate, defendant)
        for images in plan.study.images if count(images, plan.quick)
        for spacing, rate in images.trains()
        for defendant in defendants if not images.estimators or defendant.accused in images.estimators
    ]  # fmt: skip


def count(images: Images, quick: bool) -> int:
    """How many images of each echo train and rate."""
    return images.count_quick if quick else images.count


def _kept(plan: Plan, store: Store, images: Images, spacing: float, rate: float, who: Defendant) -> list[Record]:
    key = store.key(who, repr(("image", images, spacing, rate)), plan)
    found: list[Record] | None = store.load(key)
    if found is None:
        found = _tried(plan, images, spacing, rate, who)
        store.save(key, found)
    return found


def _tried(plan: Plan, images: Images, spacing: float, rate: float, who: Defendant) -> list[Record]:
    """Both records of one estimator on all images of one echo train and rate."""
    protocol = images.protocol(plan.protocol, spacing)
    seed = seed_of(plan, images, spacing, rate, 0)
    common: Record = {
        "study": plan.study.name, "estimator": who.name, "rung": "matched", "image": images.name, "snr": images.snr,
        "case": f"{images.name}, R2* {rate:g}, {protocol.name}", "nuisances": "known", "protocol": protocol.name,
        "variant": "", "sigma": images.sigma, "seed": seed, "reason": "", "quantity": "pdff",
    }  # fmt: skip
    rows: list[Record] = [{"measurand": SWAPS, "unit": "1", "truth": 0.0}, {"measurand": "pdff", "unit": "1"}]
    verdicts, errors, truths = [], [], []
    try:
        for number in range(count(images, plan.quick)):
            scene, found = estimated(plan, images, spacing, rate, number, who)
            verdicts.append(judged(found, scene)[:, scene.mask])
            truths.append(scene.pdff[scene.mask])
            errors.append(found["pdff"].values[scene.mask] - truths[-1] if "pdff" in found else np.full(1, np.nan))
    except BrokenEstimate as broken:
        return [{**common, **row, "reason": str(broken), "n": 0, "flags": {}, "has_status": False} for row in rows]
    swapped, flagged, ambiguous = np.concatenate(verdicts, axis=1)
    error, truth = np.concatenate(errors), np.concatenate(truths)
    common |= {
        "n": int(swapped.size), "flagged_rate": float(flagged.mean()), "has_status": "status" in found,
        "flags": {"ambiguous": float(ambiguous.mean())},
    }  # fmt: skip
    confident = float((swapped & ~flagged).mean())
    answered = np.isfinite(error)
    fraction = {"truth": float(truth.mean()), "mean": float(truth.mean() + error[answered].mean())
                if answered.any() else np.nan, "rmse": float(np.sqrt(np.mean(error[answered] ** 2)))
                if answered.any() else np.nan}  # fmt: skip
    return [{**common, **rows[0], "mean": confident}, {**common, **rows[1], **fraction}]


def seed_of(plan: Plan, images: Images, spacing: float, rate: float, number: int) -> int:
    """Seed of one image: the same for every estimator, whatever else is tried."""
    child = plan.child("image", images.name, spacing, rate, number)
    return int(child.generate_state(1, np.uint64)[0] >> 1)


def estimated(
    plan: Plan, images: Images, spacing: float, rate: float, number: int, who: Defendant
) -> tuple[Scene, xr.Dataset]:
    """One image with what is true of it, and what an estimator makes of it.

    Raises
    ------
    BrokenEstimate
        With the reason in one line.
    """
    protocol = images.protocol(plan.protocol, spacing)
    rng = np.random.default_rng(seed_of(plan, images, spacing, rate, number))
    scene = images.scene(protocol, rate, rng)
    sigma = scene.sigma if images.sigma == "given" else None
    return scene, who.estimate(labelled(scene, protocol), sigma, {**KNOWN, "r2star": rate}, intervals=False)


def labelled(scene: Scene, protocol: Protocol) -> xr.DataArray:
    """A scene as a scan: the dims, coordinates and attributes that one of the simulator has."""
    about = {"units": "1", "long_name": "MR signal (scanner units)", "protocol": protocol.to_json(), "rung": "matched"}
    coords = protocol.coords() | KNOWN
    return xr.DataArray(scene.data, coords, ("z", "y", "x", protocol.encoding), "signal", about)


def judged(found: xr.Dataset, scene: Scene) -> NDArray[np.bool_]:
    """Whether each voxel is swapped, flagged, and flagged as ambiguous: (3, z, y, x).

    What has no answer is flagged, whatever its status says.
    """
    missed, answered = np.zeros(scene.mask.shape, bool), np.ones(scene.mask.shape, bool)
    if "pdff" in found:
        pdff = found["pdff"].values
        answered &= np.isfinite(pdff)
        noise = np.nan_to_num(found["pdff_sd"].values, nan=0.0) if "pdff_sd" in found else 0.0
        missed |= np.abs(pdff - scene.pdff) > np.maximum(OFF, BEYOND * noise)
    if "fieldmap" in found:
        error = found["fieldmap"].values - scene.field
        answered &= np.isfinite(error)
        far = (np.abs(wrapped(error + way * scene.swap, scene.period)) for way in (-1, 1))
        missed |= np.minimum(*far) < np.abs(wrapped(error, scene.period))
    status = found["status"].values.astype(np.uint16) if "status" in found else np.zeros(missed.shape, np.uint16)
    return np.stack([missed & answered, (status != 0) | ~answered, (status & Status.AMBIGUOUS) != 0])


# --- what the page shows of them


def pictures(plan: Plan, defendants: Sequence[Defendant], records: Sequence[Record]) -> xr.Dataset:
    """One of each sort of images of the study, at its last echo train and rate, by the first estimator tried on it.

    Returns
    -------
    Dataset
        Over ``image``: its ``kind``, ``field`` (Hz) and ``outcome`` (y, x) of the picture (0 right, 1 flagged, 2
        swapped and not flagged; NaN in air), and over all echo trains and rates the number of ``voxels``, the ``swaps``
        among them that are not flagged, and the share called ``ambiguous``. Empty where the study has no images.
    """
    shown: dict[str, Job] = {}
    for images, spacing, rate, who in _jobs(plan, defendants):
        if images.name not in shown or shown[images.name][-1] is who:
            shown[images.name] = (images, spacing, rate, who)
    field, outcome, told = [], [], []
    for images, spacing, rate, who in shown.values():
        try:
            scene, found = estimated(plan, images, spacing, rate, 0, who)
        except BrokenEstimate:
            continue
        swapped, flagged, _ = judged(found, scene)
        field.append(np.where(scene.mask, scene.field, np.nan)[0])
        outcome.append(np.where(scene.mask, np.where(flagged, 1.0, 2.0 * swapped), np.nan)[0])
        own = [r for r in records if r["image"] == images.name and r["estimator"] == who.name and r["n"]
               and r["measurand"] == SWAPS]  # fmt: skip
        voxels = sum(r["n"] for r in own)
        wrong, doubt = (sum(share * r["n"] for share, r in zip(shares, own, strict=True)) for shares in
                        ([r["mean"] for r in own], [r["flags"]["ambiguous"] for r in own]))  # fmt: skip
        told.append((images.name, images.kind, who.name, voxels, round(wrong), doubt / max(voxels, 1)))
    if not told:
        return xr.Dataset()
    names, kinds, who_did, tried, wrongs, doubts = zip(*told, strict=True)
    return xr.Dataset(
        {
            "field": (("image", "y", "x"), np.array(field), {"units": "Hz", "long_name": "true field"}),
            "outcome": (("image", "y", "x"), np.array(outcome), {"units": "1", "long_name": "right, flagged, swapped"}),
            "kind": ("image", np.array(kinds, dtype=str)),
            "estimator": ("image", np.array(who_did, dtype=str)),
            "voxels": ("image", np.array(tried, float)),
            "swaps": ("image", np.array(wrongs, float)),
            "ambiguous": ("image", np.array(doubts, float)),
        },
        coords={"image": np.array(names, dtype=str)},
    )


def telling(found: xr.Dataset) -> list[str]:
    """Of each kind of field the image that shows most: the largest share of swaps, then of doubts; else the first."""
    shown: dict[str, tuple[tuple[float, float], str]] = {}
    for name in found["image"].values.tolist():
        one = found.sel(image=name)
        much = (one["swaps"].item() / max(one["voxels"].item(), 1.0), one["ambiguous"].item())
        kind = one["kind"].item()
        if kind not in shown or much > shown[kind][0]:
            shown[kind] = (much, name)
    return [name for _, name in shown.values()]


def draw(found: xr.Dataset) -> Figure:
    """The field of a picture of each kind, and below where the answer is right, flagged, or swapped without a flag."""
    names = telling(found)
    side = 0.9 * WIDTH / max(len(names), 3)  # inches, of a picture and what parts it from the next
    head = 0.85  # inches: the legend, and two lines of title
    height = head + 2 * side
    figure = new_figure(WIDTH, height)
    reach = float(np.nanmax(np.abs(found["field"].sel(image=names).values)))
    colours = ListedColormap([SERIES[2], SERIES[4], SERIES[1]])
    for column, name in enumerate(names):
        one = found.sel(image=name)
        for row, key in enumerate(("field", "outcome")):
            bottom = height - head - (row + 1) * side
            ax = figure.add_axes(
                (0.005 + column * side / WIDTH, bottom / height, 0.96 * side / WIDTH, 0.96 * side / height)
            )
            if key == "field":
                drawn = ax.imshow(one[key].values, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
                title = f"{name.replace('+-', '±')} ({one['estimator'].item()})"
                label(ax, title=fill(title, int(13 * side)))  # characters of 1/13 inch, wider than they are on average
            else:
                ax.imshow(one[key].values, cmap=colours, vmin=-0.5, vmax=2.5, interpolation="nearest")
            ax.set_axis_off()
    bar = figure.colorbar(
        drawn, cax=figure.add_axes((0.913, 1 - (head + 0.95 * side) / height, 0.01, 0.9 * side / height))
    )
    bar.ax.tick_params(labelsize=8, labelcolor=MUTED, color=MUTED, length=2)
    bar.outline.set_visible(False)
    bar.set_label("field (Hz)", fontsize=8.5, color=INK)
    words = ("right", "flagged", "swapped, and no flag")
    legend(figure, [Patch(color=colours(k), label=text) for k, text in enumerate(words)])
    return figure


def tell(found: xr.Dataset) -> str:
    """How many voxels were swapped without a flag, and how many were called ambiguous."""
    parts = [
        f"{name} ({one['estimator'].item()}): {one['swaps'].item():.0f} of {one['voxels'].item():.0f} voxels swapped "
        f"without a flag, {number(100 * one['ambiguous'].item(), 1)} % called ambiguous"
        for name, one in ((name, found.sel(image=name)) for name in found["image"].values.tolist())
    ]
    pictured = "Pictured is of each kind of field the image with most swaps, then with most doubts"
    return "; ".join(parts) + f". {pictured}, at its longest echo spacing and highest R2*."
