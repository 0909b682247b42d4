"""Put estimators on trial: which study, which estimators, and from their records a `Trial`."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import estimators
from ..errors import InputError
from . import budget, confounders, exhibits, experiment, judge, prior
from . import study as studies
from .claims import Sheet
from .defendant import Defendant, outsider, registered
from .ladder import protocol_of
from .metrics import LEVELS
from .scenes import swaps
from .store import Store, sources_digest
from .study import Study
from .trial import Trial, make_folder

Asked = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
_TEXTS = ("study", "estimator", "variant", "rung", "case", "nuisances", "protocol", "quantity", "measurand", "unit")
_NUMBERS = (
    "snr", "truth", "limit", "limit_sd", "mean", "bias", "bias_se", "sd", "rmse", "crb", "efficiency",
    "efficiency_se", "rmse_over_bound", "coverage_symmetric", "coverage_interval", "flagged_rate", "nan_rate",
    "at_bound_rate", "model_error", "mean_sd", "prior_share", "residual",
)  # fmt: skip
CASE_VALUES = ("f", "D", "D_star", "pdff", "r2star", "R2_prime")  # in which cases are told apart in a report


@dataclass(frozen=True)
class Charge:
    """One study with the estimators that are tried in it."""

    study: Study
    defendants: tuple[Defendant, ...]


def run(
    study: Asked = None,
    estimator: Any = None,
    *,
    quick: bool = False,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[float], object] | None = None,
    workers: int | None = None,
) -> Trial:
    """Put estimators on trial.

    Parameters
    ----------
    study : str, path or sequence of them, optional
        A study (TOML file), a modality, or the name of an estimator, which is then tried alone. Default: every study
        that comes with the package.
    estimator : callable, optional
        Try this instead: ``scan -> Dataset``, held to the claims of the estimator that `study` names. It is called
        with the scan alone; a registered Estimator is told sigma and asked for intervals too.
    quick : bool
        Fewer cases and replicates: an impression in seconds; narrow claims stay undecided.
    seed : int, optional
        Default the study's own, so that two runs give one table.
    out : path, optional
        Folder in which finished cells are kept.
    resume : bool
        Go on with an earlier run in `out`.
    progress : callable (fraction), optional
        Called after each cell with the fraction done, 0 to 1.
    workers : int, optional
        Threads; default as many as cores. Results do not depend on it.

    Returns
    -------
    Trial

    Raises
    ------
    InputError
        An unknown study, modality or estimator, a study or claims file that is wrong, a folder that cannot be
        written, or `resume` without `out`.
    """
    begun = time.perf_counter()
    if resume and out is None:
        raise InputError("resume without out: name the folder of the run that is to go on")
    if seed is not None and (not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0):
        raise InputError(f"seed = {seed!r}; an integer from 0 up is expected")
    charges = _charges(study, estimator)
    store = Store(None if out is None else make_folder(out), resume)
    records: list[experiment.Record] = []
    reasons: list[str] = []
    points, over_prior, budgets, on_images, pictures = [], [], [], [], []
    plans = [
        experiment.Plan(
            each.study, protocol_of(each.study.protocol), each.study.seed if seed is None else int(seed), quick
        )
        for each in charges
    ]
    total = sum(experiment.count(plan, each.defendants) for plan, each in zip(plans, charges, strict=True))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done / total)

    for plan, each in zip(plans, charges, strict=True):
        found, broken = experiment.run(plan, each.defendants, store, step, workers)
        records += found
        curves, crooked = confounders.run(plan, each.defendants)
        points.append(curves)
        over_prior += prior.run(plan, each.defendants, store)
        seen = swaps.run(plan, each.defendants, store, workers)
        on_images += seen
        pictures.append(swaps.pictures(plan, each.defendants, seen))
        broken += [record["reason"] for record in seen if record["reason"]]
        budgets.append(budget.run(plan, each.defendants))
        reasons += [reason for reason in dict.fromkeys([*broken, *crooked]) if reason not in reasons]
    confounded = xr.concat(points, "point") if len(points) > 1 else points[0]
    defendants = [defendant for each in charges for defendant in each.defendants]
    changes = confounders.sensitivities(confounded)
    table, judgements, findings = judge.judge(defendants, records, changes, over_prior, on_images)
    shown = dict([(exhibits.IMAGES, picture) for picture in pictures if picture][:1])
    first = charges[0].study
    return Trial(
        name=first.name if len(charges) == 1 else "all",
        title=first.title if len(charges) == 1 else "All studies",
        table=table,
        judgements=judgements,
        samples=_samples(records),
        confounders=confounded,
        prior=prior.dataset(over_prior),
        budget=xr.concat(budgets, "line"),
        exhibits=shown | _exhibits(study, estimator, plans[0].seed, quick, charges),
        findings=findings,
        reasons=reasons,
        provenance=_provenance(charges, plans),
        quick=quick,
        seed=plans[0].seed,
        seconds=time.perf_counter() - begun,
    )


def _exhibits(asked: Asked, estimator: Any, seed: int, quick: bool, charges: Sequence[Charge]) -> dict[str, xr.Dataset]:
    """The experiments of the studies that are run as a whole, and of the suite those that belong to none."""
    if estimator is not None:
        return {}
    names = [asked] if isinstance(asked, (str, os.PathLike)) else list(asked or studies.names())
    texts = [os.fspath(name) for name in names]
    whole = [each.study for each in charges if each.study.name in texts or str(each.study.path) in texts]
    chosen = [name for study in whole for name in study.exhibits] + ([] if asked else exhibits.defaults())
    return exhibits.run(chosen, quick, seed)


def _charges(asked: Asked, estimator: Any) -> list[Charge]:
    """What `run` is asked for, as studies with their estimators; an estimator named twice is tried once."""
    names = [asked] if isinstance(asked, (str, os.PathLike)) else list(asked or ())
    sheets: dict[Path, Sheet] = {}
    if estimator is not None:
        return [_user(names, estimator, sheets)]
    if not names:
        names = list(studies.names())
    chosen: dict[Path, tuple[Study, dict[str, Defendant]]] = {}
    for name in names:
        study, some = _resolve(os.fspath(name), sheets)
        chosen.setdefault(study.path, (study, {}))[1].update({d.name: d for d in some})
    return [Charge(study, tuple(some.values())) for study, some in chosen.values()]


def _resolve(name: str, sheets: dict[Path, Sheet]) -> tuple[Study, list[Defendant]]:
    known = studies.names()
    if name.endswith(".toml"):
        study = studies.load(name)
    elif name in known:
        study = studies.load(known[name])
    elif (one := _method(name)) is not None:
        return _study_of(one.modality), [registered(one, sheets)]
    else:
        choices = [*known, *estimators.registry]
        raise InputError(
            f"validate: no study, modality or estimator {name!r}; a TOML file, or one of {', '.join(choices)}"
        )
    methods = study.estimators or [m for m, e in estimators.registry.items() if e.modality == study.modality]
    chosen = [_method(method) for method in methods]
    for method, found in zip(methods, chosen, strict=True):
        if found is None:
            raise InputError(f"{study.path}: no estimator {method!r}; one of {', '.join(estimators.registry)}")
    return study, [registered(found, sheets) for found in chosen]


def _method(name: str) -> Any:
    """The estimator of that method name, ours or an installed one; None when there is none."""
    try:
        return estimators.get(name)
    except InputError:
        return None


def _user(names: list[Any], estimator: Any, sheets: dict[Path, Sheet]) -> Charge:
    """The user's estimator, held to the claims of the one named."""
    is_registered = hasattr(estimator, "claims") and hasattr(estimator, "model") and callable(estimator)
    if not names and is_registered:
        return Charge(_study_of(estimator.modality), (registered(estimator, sheets),))
    standard = _method(os.fspath(names[0])) if len(names) == 1 else None
    if standard is None:
        raise InputError(
            "validate: estimator= needs the name of the estimator whose claims it is held to, one of "
            + ", ".join(estimators.registry)
        )
    held_to = registered(standard, sheets)
    if is_registered:
        own = Defendant(**{**vars(held_to), "name": estimator.name, "call": estimator,
                           "options": frozenset(estimator.options)})  # fmt: skip
        return Charge(_study_of(standard.modality), (own,))
    return Charge(_study_of(standard.modality), (outsider(estimator, held_to),))


def _study_of(modality: str) -> Study:
    for path in studies.names().values():
        study = studies.load(path)
        if study.modality == modality:
            return study
    raise InputError(f"validate: no study of modality {modality!r}; one of {', '.join(studies.names())}")


def _samples(records: Sequence[experiment.Record]) -> xr.Dataset:
    """The records as arrays over ``cell``: what figures are drawn from."""
    data: dict[str, Any] = {
        name: ("cell", np.array([str(record[name]) for record in records], dtype=str)) for name in _TEXTS
    }
    data |= {name: ("cell", np.array([record.get(name, np.nan) for record in records], float)) for name in _NUMBERS}
    worst = np.array([record["worst"] for record in records], float)
    both = [np.array([record[f"coverage_{kind}"] for record in records], float) for kind in ("interval", "symmetric")]
    coverage = np.where(np.isnan(both[0]), both[1], both[0])
    n = np.array([record["n"] for record in records], float)
    data |= {
        "coverage": ("cell", coverage),
        "coverage_se": ("cell", np.sqrt(coverage * (1 - coverage) / np.maximum(n, 1))),
        "n": ("cell", n),
        "seed": ("cell", np.array([record["seed"] for record in records], dtype=np.int64)),
        "sigma_given": ("cell", np.array([record["sigma"] == "given" for record in records], dtype=np.int8)),
        "domain": ("cell", np.where(worst <= 1, "identifiable", "elsewhere").astype(str)),
        "all_under_half": ("cell", (worst < 0.5).astype(np.int8)),
        "over_twice": ("cell", (~(worst <= 2)).astype(np.int8)),
        "not_identifiable_rate": (
            "cell", np.array([record["flags"].get("not_identifiable", np.nan) for record in records], float)
        ),
        "quantile": (
            ("cell", "level"), np.array([r["quantiles"] for r in records], float).reshape(len(records), len(LEVELS))
        ),
    }  # fmt: skip
    for name in CASE_VALUES:
        values = [record["values"].get(name, np.nan) for record in records]
        data[f"case_{name}"] = ("cell", np.array(values, float))
    return xr.Dataset(data, coords={"level": ("level", np.array(LEVELS))})


def _provenance(charges: Sequence[Charge], plans: Sequence[experiment.Plan]) -> dict[str, Any]:
    from importlib.metadata import version

    from .. import __version__

    packages = ("numpy", "scipy", "numba", "sympy", "xarray")
    return {
        "bonemri": __version__,
        "sources_sha256": sources_digest(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "studies": {
            each.study.name: {
                "title": each.study.title,
                "sha256": hashlib.sha256(each.study.text.encode()).hexdigest(),
                "seed": plan.seed,
                "quick": plan.quick,
                "protocol": plan.protocol.to_json(),
                "estimators": [defendant.name for defendant in each.defendants],
                "claims_sha256": {
                    defendant.accused: hashlib.sha256(defendant.sheet.path.read_bytes()).hexdigest()
                    for defendant in each.defendants
                },
            }
            for each, plan in zip(charges, plans, strict=True)
        },
    }
