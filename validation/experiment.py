"""The Monte Carlo: each case scanned many times, each estimator run on the same noise, each result summarised.

The seed of a cell is a child of the study's ``SeedSequence`` named by the cell itself, and noise is drawn replicate
by replicate: no result depends on the order of the cells, on threads, or on which other cells are run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..estimators.status import Status
from ..simulator import threads
from ..simulator.acquisition.noise import image_sd
from ..simulator.acquisition.protocol import Protocol
from ..simulator.scan import add_noise
from . import ladder, metrics
from .claims import quantity_unit
from .defendant import BrokenEstimate, Defendant
from .store import Store
from .study import Case, Study

Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is needed to run any cell of a study."""

    study: Study
    protocol: Protocol
    seed: int
    quick: bool

    def at(self, case: Case) -> Protocol:
        """The protocol of a case: the study's, or its own."""
        return ladder.protocol_of(case.protocol, self.study.protocols) if case.protocol else self.protocol

    def child(self, *name: object) -> np.random.SeedSequence:
        """The child of the study's seed that is named so."""
        digest = hashlib.sha256(repr(name).encode()).digest()
        return np.random.SeedSequence(self.seed, spawn_key=tuple(np.frombuffer(digest[:16], "<u4").tolist()))


def _jobs(plan: Plan, defendants: Sequence[Defendant]) -> list[tuple[Case, Defendant]]:
    cases = plan.study.cases(plan.quick)
    return [
        (case, defendant.varied(dict(case.options), case.equation, case.held))
        for case in cases for defendant in defendants if _wanted(case, defendant)
    ]  # fmt: skip


def count(plan: Plan, defendants: Sequence[Defendant]) -> int:
    """How many cells `run` will try."""
    return len(_jobs(plan, defendants))


def run(
    plan: Plan,
    defendants: Sequence[Defendant],
    store: Store,
    step: Callable[[], None] | None = None,
    workers: int | None = None,
) -> tuple[list[Record], list[str]]:
    """Run every case with every estimator.

    Parameters
    ----------
    plan : Plan
    defendants : sequence of Defendant
    store : Store
        Where finished cells are kept.
    step : callable, optional
        Called after each cell.
    workers : int, optional
        Threads; default as many as cores.

    Returns
    -------
    records : list of dict
        One per estimator, case, quantity and measurand, in the order of the study.
    reasons : list of str
        Why estimators broke down, each once.
    """
    jobs = _jobs(plan, defendants)
    scenes = _Scenes(plan, jobs)
    warm_up(plan, scenes, jobs)
    records: list[Record] = []
    with ThreadPoolExecutor(workers or threads.count()) as pool:
        for found in pool.map(lambda job: _kept(plan, scenes, store, *job), jobs):
            records += found
            if step is not None:
                step()
    reasons = list(dict.fromkeys(record["reason"] for record in records if record["reason"]))
    return records, reasons


def warm_up(plan: Plan, scenes: _Scenes, jobs: Sequence[tuple[Case, Defendant]]) -> None:
    """Load or compile each kernel once before threads start; a compiler works alone anyway."""
    first = {(case.rung, case.variant, defendant.name): (case, defendant) for case, defendant in reversed(jobs)}
    for case, defendant in first.values():
        scene = scenes.of(case, defendant)
        anywhere = {quantity.name: quantity.starts[0] for quantity in defendant.model.unknowns}
        ladder.bound(defendant, anywhere, plan.at(case), 1.0)
        if not defendant.registered:
            continue
        noisy = add_noise(scene.clean, snr=case.snr, seed=0)
        try:
            defendant.estimate(noisy, noisy.attrs["image_sd"], _told(plan, scene, case))
        except BrokenEstimate:
            continue  # its own cell will say so


def _wanted(case: Case, defendant: Defendant) -> bool:
    if case.estimators and defendant.accused not in case.estimators:
        return False
    # A callable gets the scan alone: there is nothing to tell it, so one way of running is all there is.
    return defendant.registered or (case.sigma == "given" and not case.variant)


class _Scenes:
    """Noise-free scans: cases that differ in numbers alone are scanned together, and estimators share them."""

    def __init__(self, plan: Plan, jobs: Sequence[tuple[Case, Defendant]]) -> None:
        self.kept: dict[Any, ladder.Scene] = {}
        study = plan.study
        subjects = study.subjects_quick if plan.quick else study.subjects
        # The same subjects in every case: cases then differ by tissue alone.
        drawn = ladder.draw(study, np.random.default_rng(plan.child("subjects")), subjects) if study.nuisances else {}
        together: dict[Any, tuple[Case, Defendant, dict[Any, dict[str, float]]]] = {}
        for case, defendant in jobs:
            names = tuple(name for name, _ in case.values)
            group = names, case.rung, case.nuisances, case.protocol, self._model(case, defendant)
            together.setdefault(group, (case, defendant, {}))[2][case.values] = case.tissue
        for case, defendant, cases in together.values():
            found = ladder.scenes(
                study, list(cases.values()), case.rung, plan.at(case), model=defendant.model,
                nuisances=drawn if case.nuisances == "drawn" else None,
            )  # fmt: skip
            for values, scene in zip(cases, found, strict=True):
                self.kept[values, case.rung, case.nuisances, case.protocol, self._model(case, defendant)] = scene

    @staticmethod
    def _model(case: Case, defendant: Defendant) -> str:
        return defendant.model.name if case.rung == "matched" else ""

    def of(self, case: Case, defendant: Defendant) -> ladder.Scene:
        """The noise-free scan of a case."""
        return self.kept[case.values, case.rung, case.nuisances, case.protocol, self._model(case, defendant)]


def _kept(plan: Plan, scenes: _Scenes, store: Store, case: Case, defendant: Defendant) -> list[Record]:
    """A cell's records: from the folder of an earlier run, or computed."""
    key = store.key(defendant, case, plan)
    found = store.load(key)
    if found is None:
        found = cell(plan, scenes.of(case, defendant), case, defendant)
        store.save(key, found)
    return found


def cell(plan: Plan, scene: ladder.Scene, case: Case, defendant: Defendant) -> list[Record]:
    """Try one estimator on one case.

    The noise-free voxels ride in the same call as the noisy ones where the estimator works voxel by voxel and is told
    sigma; anything else gets them as a scan of their own.
    """
    protocol = plan.at(case)
    noise_sd = float(scene.clean.attrs["signal_reference"]) / case.snr
    magnitude = defendant.magnitude or not np.iscomplexobj(scene.clean.values)
    bounds = ladder.bound(defendant, scene.theta, protocol, noise_sd, magnitude)
    worst = _worst(defendant, bounds, scene.theta) if scene.theta else np.nan
    n = case.replicates(defendant.accused, not worst > 1, plan.quick)
    model = defendant.model.name if case.rung == "matched" else ""
    # The noise does not depend on the estimator: all are tried on the same data where they scan the same model.
    name = case.values, case.rung, case.nuisances, case.snr, protocol.name, model
    seed = int(plan.child("noise", *name).generate_state(1, np.uint64)[0] >> 1)
    told = _told(plan, scene, case)
    # what a user knows of the image: averages have made its noise smaller
    image = image_sd(noise_sd, protocol.averages)
    sigma = image if case.sigma == "given" else None
    together = defendant.registered and not defendant.spatial and sigma is not None
    common = {
        "study": plan.study.name, "estimator": defendant.name, "rung": case.rung, "case": case.name, "snr": case.snr,
        "nuisances": case.nuisances, "protocol": protocol.name, "variant": case.variant, "sigma": case.sigma,
        "seed": seed, "values": case.tissue, "subjects": scene.subjects, "reason": "", "worst": worst,
    }  # fmt: skip
    each = max(1, n // scene.subjects)
    asked = max(1, case.with_intervals(n) // scene.subjects)
    try:
        noisy = add_noise(ladder.replicate(scene.clean, each * scene.subjects), noise_sd=noise_sd, seed=seed)
        if not together:
            limits = defendant.estimate(scene.clean, image if defendant.registered else None, told)
            parts = [defendant.estimate(noisy, sigma, told)]
        else:
            still = ladder.replicate(scene.clean, scene.subjects)
            both = defendant.estimate(_beside(still, noisy.isel(x=slice(0, asked))), sigma, told)
            limits, parts = both.isel(x=slice(0, 1)), [both.isel(x=slice(1, None))]
            if asked < each:  # intervals cost many times the fit, and their coverage needs fewer replicates
                parts.append(defendant.estimate(noisy.isel(x=slice(asked, None)), sigma, told, intervals=False))
    except BrokenEstimate as broken:
        return [_broken(common, defendant, quantity, str(broken)) for quantity in defendant.quantities]
    limit = {str(q): np.asarray(limits[q].values, float).ravel() for q in limits.data_vars if q in defendant.unknowns}
    # what a voxel gives at the reference point stands for an amplitude that the equation has and the estimate has not
    fitted = {name: float(np.mean(value)) for name, value in limit.items() if name not in ("water", "fat")}
    theta = scene.theta or {"S0": float(scene.clean.attrs["signal_reference"]), **scene.known, **fitted}
    if not scene.theta and case.variant:  # an option may have changed what the estimate stands for
        bounds = dict.fromkeys(bounds, np.nan)
    elif not scene.theta:
        bounds = ladder.bound(defendant, theta, protocol, noise_sd, magnitude)
        common["worst"] = _worst(defendant, bounds, theta)
    common["residual"] = _residual(defendant, scene, limit, protocol)
    common["limit_status"] = int(np.bitwise_or.reduce(_status(limits).ravel()))
    status = np.concatenate([_status(part).ravel() for part in parts])
    common["flags"] = {str(bit.name).lower(): float(np.mean((status & bit) != 0)) for bit in Status}
    common["has_status"] = "status" in parts[0]
    records = []
    for quantity in defendant.quantities:
        for measurand in measurands(defendant, quantity, parts[0]):
            records.append(
                {
                    **common,
                    **_summary(scene, quantity, measurand, parts, limits, status, bounds.get(quantity, np.nan)),
                }
            )
    return records


def _summary(
    scene: ladder.Scene, quantity: str, measurand: str, parts: Sequence[xr.Dataset], limits: xr.Dataset,
    status: NDArray[np.uint16], bound: float,
) -> Record:  # fmt: skip
    """Numbers of one quantity against one truth; intervals are those of the first part alone."""
    missing = np.full(scene.subjects, np.nan)

    def of(name: str, some: Sequence[xr.Dataset]) -> NDArray[np.float64] | None:
        """Subject by subject in each part: all summaries are means over replicates, so their order is free."""
        if name not in some[0]:
            return None
        return np.concatenate([np.asarray(part[name].values, float).ravel() for part in some])

    def spread(each_subject: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([np.repeat(each_subject, part.sizes["x"]) for part in parts])

    truth = scene.truth.get((quantity, measurand), missing)
    still = np.asarray(limits[quantity].values, float).ravel() if quantity in limits else missing
    values = of(quantity, parts)
    values = spread(missing) if values is None else values
    described = metrics.describe(
        values,
        truth=spread(truth),
        limit=spread(still),
        bound=bound,
        sd=of(f"{quantity}_sd", parts),
        low=of(f"{quantity}_lo", parts[:1]),
        high=of(f"{quantity}_hi", parts[:1]),
        flagged=status != 0,
        at_bound=(status & Status.AT_BOUND) != 0,
    )
    share = of(f"{quantity}_prior_share", parts)
    unit = parts[0][quantity].attrs.get("units", "") if quantity in parts[0] else ""
    return {
        "quantity": quantity, "measurand": measurand, "unit": str(unit or quantity_unit(quantity)), **described,
        "quantiles": metrics.quantiles(values).tolist(),
        "prior_share": float(np.nanmean(share)) if share is not None and np.isfinite(share).any() else np.nan,
    }  # fmt: skip


def _broken(common: Record, defendant: Defendant, quantity: str, reason: str) -> Record:
    """What is recorded of an estimator that broke down: no number at all, and why."""
    nothing = metrics.describe(np.empty(0), truth=np.nan, limit=np.empty(0))
    measurands = defendant.measurands.get(quantity, {quantity})
    return {
        **common, **nothing, "quantity": quantity, "measurand": sorted(measurands)[0], "unit": quantity_unit(quantity),
        "reason": reason, "quantiles": [np.nan] * len(metrics.LEVELS), "prior_share": np.nan, "flags": {},
        "residual": np.nan, "limit_status": 0, "has_status": False,
    }  # fmt: skip


def measurands(defendant: Defendant, quantity: str, estimates: xr.Dataset) -> list[str]:
    """The measurand that the estimate names, the quantity itself, and those that the claims name: each its own row."""
    named = {quantity} | defendant.measurands.get(quantity, set())
    if quantity in estimates:
        named.add(str(estimates[quantity].attrs.get("measurand", quantity)))
    return sorted(named)


def _told(plan: Plan, scene: ladder.Scene, case: Case) -> dict[str, Any]:
    """What an estimator may know: the case's own values, and nuisances only where they are known."""
    hidden = () if case.nuisances == "known" else plan.study.nuisances
    return ladder.told({name: value for name, value in scene.known.items() if name not in hidden}, case.tell)


def _beside(still: xr.DataArray, noisy: xr.DataArray) -> xr.DataArray:
    """The noise-free voxels as the first column of the noisy scan."""
    values = np.concatenate([still.values, noisy.values], axis=2)
    joined = noisy.isel(x=0, drop=True).expand_dims(x=np.arange(values.shape[2], dtype=float))
    return joined.transpose(*noisy.dims).copy(data=values)


def _status(estimates: xr.Dataset) -> NDArray[np.uint16]:
    if "status" not in estimates:
        shape = next(iter(estimates.data_vars.values())).shape
        return np.zeros(shape, np.uint16)
    return np.asarray(estimates["status"].values).astype(np.uint16)


def _worst(defendant: Defendant, bounds: Mapping[str, float], theta: Mapping[str, float]) -> float:
    """The largest bound SD over its limit; infinite where a relative one is of zero or a bound unknown."""
    relative = {
        name: bounds[name] / abs(theta[name]) if np.isfinite(bounds[name]) and theta.get(name, 0.0) else np.inf
        for name in bounds
    }
    plain = {name: value if np.isfinite(value) else np.inf for name, value in bounds.items()}
    return float(defendant.sheet.worst(relative, plain))


def _residual(
    defendant: Defendant, scene: ladder.Scene, limit: Mapping[str, NDArray[np.float64]], protocol: Protocol
) -> float:
    """Largest |fit - data| of the noise-free scan over its largest signal; NaN where the fit is incomplete."""
    names = [quantity.name for quantity in defendant.model.unknowns]
    theta = {name: limit.get(name, scene.theta.get(name, np.nan)) for name in names}
    if not all(np.all(np.isfinite(value)) for value in theta.values()):
        return np.nan
    data = scene.clean.values.reshape(-1, scene.clean.shape[-1])
    return float(np.max(np.abs(defendant.model.signal(theta, protocol) - data)) / np.max(np.abs(data)))
