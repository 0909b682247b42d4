"""One thing that goes wrong at a time: the noise-free error of each estimator against how strongly it goes wrong.

Everything else is switched off (no kurtosis, tissues of one T1 and one T2), so that the curve belongs to the one
confounder alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..simulator import threads, tissues
from ..simulator.acquisition.noise import image_sd
from ..simulator.acquisition.protocol import Protocol
from . import ladder
from .defendant import BrokenEstimate, Defendant
from .experiment import Plan, measurands
from .study import Confounder, Study

TEXTS = ("study", "estimator", "confounder", "confounder_title", "quantity", "measurand", "unit", "strength_unit")
NUMBERS = ("strength", "truth", "limit", "model_error")
SNR = 100.0  # what a noise-free estimate is told as sigma: one SNR for all curves


def run(plan: Plan, defendants: Sequence[Defendant]) -> tuple[xr.Dataset, list[str]]:
    """Every confounder at every strength.

    Returns
    -------
    points : Dataset over ``point``
    reasons : list of str
        Why estimators broke down.
    """
    with ThreadPoolExecutor(threads.count()) as pool:
        results = list(pool.map(lambda each: _curves(plan, each, defendants), plan.study.confounders))
    points = [point for group in results for point in group if "reason" not in point]
    reasons = list(dict.fromkeys(point["reason"] for group in results for point in group if "reason" in point))
    data: dict[str, Any] = {name: ("point", np.array([str(p[name]) for p in points], dtype=str)) for name in TEXTS}
    data |= {name: ("point", np.array([p[name] for p in points], dtype=float)) for name in NUMBERS}
    return xr.Dataset(data, attrs={"title": "Noise-free model error against one confounder at a time"}), reasons


def sensitivities(points: xr.Dataset) -> dict[tuple[str, str, str, str, float], float]:
    """How far each strength moves the model error from where the confounder is absent."""
    found: dict[tuple[str, str, str, str, float], float] = {}
    absent: dict[tuple[str, ...], float] = {}
    for i in range(points.sizes["point"]):
        at = {name: points[name].values[i] for name in (*TEXTS, *NUMBERS)}
        curve = (str(at["estimator"]), str(at["confounder"]), str(at["quantity"]), str(at["measurand"]))
        absent.setdefault(curve, float(at["model_error"]))
        found[(*curve, float(at["strength"]))] = float(at["model_error"]) - absent[curve]
    return found


def _curves(plan: Plan, confounder: Confounder, defendants: Sequence[Defendant]) -> list[dict[str, Any]]:
    """The points of every estimator under one confounder; all are tried on the same scans."""
    tried = [d for d in defendants if not confounder.estimators or d.accused in confounder.estimators]
    points: dict[str, list[dict[str, Any]]] = {defendant.name: [] for defendant in tried}
    if confounder.options:
        tried = [defendant.varied(confounder.options) for defendant in tried if defendant.registered]
    for strength in confounder.strengths if tried else ():
        clean, truth, told = _scan(plan, confounder, tried[0], strength)
        for defendant in tried:
            points[defendant.name] += _points(confounder, defendant, strength, clean, truth, told)
    return [{"study": plan.study.name, **point} for curve in points.values() for point in curve]


def _points(
    confounder: Confounder,
    defendant: Defendant,
    strength: float,
    clean: xr.DataArray,
    truth: Mapping[tuple[str, str], NDArray[np.float64]],
    told: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One estimator at one strength: a point for each quantity and measurand."""
    noise_sd = float(clean.attrs["signal_reference"]) / SNR
    image = image_sd(noise_sd, Protocol.from_json(clean.attrs["protocol"]).averages)
    try:
        limits = defendant.estimate(clean, image if defendant.registered else None, told, intervals=False)
    except BrokenEstimate as broken:
        return [{"reason": str(broken)}]
    points = []
    for quantity in (quantity for quantity in defendant.quantities if quantity in limits):
        for measurand in measurands(defendant, quantity, limits):
            limit = float(np.asarray(limits[quantity].values).ravel()[0])
            true = float(truth.get((quantity, measurand), np.array([np.nan]))[0])
            points.append({
                "estimator": defendant.name, "confounder": confounder.name, "confounder_title": confounder.title,
                "quantity": quantity, "measurand": measurand, "unit": limits[quantity].attrs.get("units", "1"),
                "strength_unit": confounder.unit, "strength": strength, "truth": true, "limit": limit,
                "model_error": limit - true,
            })  # fmt: skip
    return points


@dataclass
class Setting:
    """What is scanned and told: a tissue, a scanner and beliefs, in which confounders are put one by one."""

    values: dict[str, Any]
    switches: dict[str, Any]
    protocol: Protocol
    beliefs: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    floor: float = 0.0

    def put(self, study: Study, confounder: Confounder, strength: float) -> None:
        """Make one thing go wrong, as strongly as asked."""
        kind, key = confounder.kind, confounder.key
        if kind == "phantom":
            self.values[key] = strength
        elif kind == "switch":
            self.switches[key] = strength
        elif kind == "protocol":
            self.protocol = self.protocol.replace(**{key: strength})
        elif kind == "belief":
            self.beliefs["spectrum"] = believed(key, strength)
        elif kind == "spectrum":
            self.beliefs["residual"] = misread(study, self.protocol, strength)
        elif kind == "known":  # the truth stays; what the estimator believes of it is wrong by this fraction
            self.factors[key] = 1 + strength
        else:
            self.floor = strength

    def scan(
        self, study: Study, defendant: Defendant, tell: Sequence[str] | None
    ) -> tuple[xr.DataArray, Mapping[tuple[str, str], NDArray[np.float64]], dict[str, Any]]:
        """The noise-free scan, what is true, and what the estimator is told."""
        scene = ladder.scene(study, self.values, "pools", self.protocol, model=defendant.model, switches=self.switches)
        told = ladder.told(scene.known, tell) | self.beliefs
        told |= {name: told[name] * factor for name, factor in self.factors.items()}
        clean = scene.clean
        if self.floor > 0:
            clean = rician_mean(clean, self.floor * float(clean.attrs["signal_reference"]))
        return clean, scene.truth, told


def _scan(
    plan: Plan, confounder: Confounder, defendant: Defendant, strength: float
) -> tuple[xr.DataArray, Mapping[tuple[str, str], NDArray[np.float64]], dict[str, Any]]:
    """The noise-free scan at one strength, what is true, and what the estimator is told."""
    protocol = plan.protocol
    if confounder.protocol:
        protocol = ladder.protocol_of(confounder.protocol, plan.study.protocols)
    setting = Setting({**plan.study.base, **confounder.values}, dict(confounder.switches), protocol)
    setting.put(plan.study, confounder, strength)
    return setting.scan(plan.study, defendant, confounder.tell)


def misread(study: Study, protocol: Protocol, strength: float) -> float:
    """Fraction of the fat signal that is left, as believed by one whose spectrum is wrong.

    The peaks outside every stop band (olefinic, glycerol) are what the suppression leaves and what a spectrum fixes
    least well, as they lie under water: their areas are believed wrongly by the fraction `strength`.
    """
    efficiency = tissues.defaults(study.tissue, study.field)[ladder.SUPPRESSION]
    suppression = protocol.fat_suppression.with_efficiency(efficiency)
    peaks = tissues.spectrum()
    outside = suppression.efficiency(peaks.shift) == 0
    return suppression.residual(peaks.shift, np.where(outside, 1 + strength, 1.0) * peaks.area)


def believed(other: str, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shifts (ppm) and areas of a fat spectrum between that of marrow (0) and another (1).

    ``single_peak`` puts all fat where its main peak stands.
    """
    true = tissues.spectrum()
    wrong = (np.array([1.3]), np.array([1.0])) if other == "single_peak" else tissues.spectrum(other)
    return np.concatenate([true[0], wrong[0]]), np.concatenate([(1 - strength) * true[1], strength * wrong[1]])


def rician_mean(clean: xr.DataArray, noise_sd: float) -> xr.DataArray:
    """What magnitudes average to: the noise floor without the noise.

    Mean of the Rice distribution, Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    from scipy.special import ive

    x = (clean.values / noise_sd) ** 2 / 4
    mean = noise_sd * np.sqrt(np.pi / 2) * ((1 + 2 * x) * ive(0, x) + 2 * x * ive(1, x))
    return clean.copy(data=mean)
