"""Claims against records: the evidence, the table, one judgement per claim, and what else was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import metrics, prior
from .claims import OVER_PRIOR, Claim
from .defendant import Defendant
from .metrics import Evidence
from .scenes import swaps
from .trial import COLUMNS, Judgement, Table

Record = dict[str, Any]
MOST_EFFICIENT = 1.05  # above it, bounds are at work: a finding, never a pass
NOTHING = Evidence(np.nan, np.nan, 1.0, 1.0)
ABSENT = Evidence(np.nan, np.nan, 0.0, 1.0)


def judge(
    defendants: Sequence[Defendant],
    records: Sequence[Record],
    sensitivities: Mapping[tuple[str, str, str, str, float], float],
    priors: Sequence[Record] = (),
    images: Sequence[Record] = (),
) -> tuple[Table, list[Judgement], list[str]]:
    """Try every claim on every record of its domain.

    Parameters
    ----------
    defendants : sequence of Defendant
    records : sequence of dict
        The cells, from `experiment.run`.
    sensitivities : mapping
        (estimator, confounder, quantity, measurand, strength) -> change of the model error.
    priors : sequence of dict
        Results over a prior, from `prior.run`.
    images : sequence of dict
        Results on images of a known field, from `swaps.run`.

    Returns
    -------
    table : Table
    judgements : list of Judgement
    findings : list of str
    """
    tried: list[tuple[Claim, Record, Evidence]] = []
    claims = [(defendant, claim) for defendant in defendants for claim in defendant.sheet.claims
              if claim.estimator == defendant.accused]  # fmt: skip
    for defendant, claim in claims:
        for record in _rows_of(defendant, claim, records, sensitivities, priors, images):
            tried.append((replace(claim, estimator=defendant.name), record, _evidence(defendant, claim, record)))
    found = metrics.verdicts([e for _, _, e in tried], [c.expect for c, _, _ in tried])
    rows = []
    by_claim: dict[tuple[str, str], list[tuple[dict[str, Any], Evidence, str]]] = {}
    used = set()
    for (claim, record, evidence), verdict in zip(tried, found, strict=True):
        row = _row(record, claim, verdict)
        rows.append(row)
        used.add(id(record))
        by_claim.setdefault((claim.estimator, claim.id), []).append((row, evidence, verdict))
    rows += [_row(record, None, "") for record in (*records, *images) if id(record) not in used]
    order = {defendant.name: number for number, defendant in enumerate(defendants)}
    rows.sort(key=lambda row: order[row["estimator"]])  # stable: cases stay in their order within an estimator
    judgements = [
        _judgement(defendant, claim, by_claim.get((defendant.name, claim.id), [])) for defendant, claim in claims
    ]
    return Table(rows), judgements, _findings(records, priors)


def _rows_of(
    defendant: Defendant,
    claim: Claim,
    records: Sequence[Record],
    sensitivities: Mapping[tuple[str, str, str, str, float], float],
    priors: Sequence[Record],
    images: Sequence[Record],
) -> list[Record]:
    """The records that a claim speaks of."""
    measurand = claim.measurand or claim.quantity
    if claim.kind in OVER_PRIOR:
        return [r for r in priors if r["estimator"] == defendant.name and r["quantity"] == claim.quantity
                and r["prior"] == claim.prior and (not claim.snr or r["snr"] in claim.snr)]  # fmt: skip
    if claim.image:
        measurand = swaps.SWAPS if claim.kind == "swaps" else measurand
        return [r for r in images if r["estimator"] == defendant.name and r["image"] == claim.image
                and r["measurand"] == measurand]  # fmt: skip
    if claim.kind == "sensitivity":
        key = (defendant.name, claim.confounder, claim.quantity, measurand, claim.strength)
        if key not in sensitivities:
            return []
        return [{
            "estimator": defendant.name, "rung": claim.rung, "case": f"{claim.confounder} {claim.strength:g}",
            "quantity": claim.quantity, "measurand": measurand, "model_error": sensitivities[key],
        }]  # fmt: skip
    return [
        r for r in records
        if r["estimator"] == defendant.name and r["quantity"] == claim.quantity and r["measurand"] == measurand
        and r["rung"] == claim.rung and (not claim.snr or r["snr"] in claim.snr)
        and (not claim.protocol or r["protocol"] == claim.protocol) and r["variant"] == claim.variant
        and claim.nuisances in ("both", r["nuisances"]) and claim.sigma in ("both", r["sigma"])
        and claim.domain.contains(r["values"], r["worst"])
    ]  # fmt: skip


def _evidence(defendant: Defendant, claim: Claim, record: Record) -> Evidence:
    """The number that a claim is about, with its two p-values."""
    if record.get("reason"):
        # An estimator that broke down has shown nothing, not even the failure that it declares.
        gone = ABSENT if claim.expect == "holds" else replace(ABSENT, against=1.0, favour=0.0)
        return replace(gone, note=record["reason"])
    evidence = _of_kind(defendant, claim, record)
    if claim.kind in ("efficiency", "noise_bias", "noise_shift", "rmse_over_bound"):
        # These average over the answered fits, so answers must not be missing where they are hard to give.
        missing = metrics.binomial_evidence(
            round(record["nan_rate"] * record["n"]), record["n"], (0.0, metrics.MOST_WITHOUT_ANSWER)
        )
        note = "fits without an answer" if missing.against < metrics.ALPHA else ""
        if record["nan_rate"] > 0:
            evidence = metrics.combine(evidence, replace(missing, note=note))
        if record["nan_rate"] == 1:
            evidence = replace(ABSENT, note=f"{defendant.name} gives no {claim.quantity}")
    return evidence


def _of_kind(defendant: Defendant, claim: Claim, r: Record) -> Evidence:
    window, kind = claim.window, claim.kind
    if kind == "efficiency":
        return _efficiency(r, window)
    if kind == "noise_bias":
        scale = r["crb"]
        if not (np.isfinite(scale) and scale > 0):
            return replace(NOTHING, note="no bound to measure by")
        return metrics.normal_evidence(r["bias"] / scale, r["bias_se"] / scale, window)
    if kind == "noise_shift":
        return metrics.normal_evidence(r["bias"], r["bias_se"], window)
    if kind == "rmse_over_bound":
        return metrics.normal_evidence(r["rmse_over_bound"], r["rmse_over_bound_se"], window)
    if kind == "coverage":
        rate = r["coverage_symmetric" if claim.interval == "symmetric" else "coverage_interval"]
        if np.isnan(rate):
            if claim.interval == "asymmetric" and not defendant.registered:
                return replace(NOTHING, note="called with the scan alone, it was not asked for x_lo, x_hi")
            name = f"{claim.quantity}_sd" if claim.interval == "symmetric" else f"{claim.quantity}_lo"
            return replace(ABSENT, note=f"{defendant.name} gives no {name}")
        n = r["n"] if claim.interval == "symmetric" else r["n_intervals"]
        return metrics.binomial_evidence(round(rate * n), n, window)
    if kind == "swaps":
        return metrics.exact_evidence(r["mean"], window)
    if kind == "flagged_rate":
        if not r["has_status"]:
            return replace(ABSENT, note=f"{defendant.name} gives no status")
        rate = r["flagged_rate"] if claim.flag == "any" else r["flags"].get(claim.flag, 0.0)
        if "image" in r:  # its voxels are decided together
            return metrics.exact_evidence(rate, window)
        return metrics.binomial_evidence(round(rate * r["n"]), r["n"], window)
    if kind in ("model_error", "relative_model_error"):
        scale = 1.0 if kind == "model_error" else 1 / r["truth"]
        if r["nuisances"] == "drawn":
            se = r["model_error_sd"] / np.sqrt(r["subjects"])
            return metrics.normal_evidence(r["model_error"] * scale, se * abs(scale), window)
        return metrics.exact_evidence(r["model_error"] * scale, window)
    if kind == "recovery":
        return metrics.exact_evidence(r["model_error"] / r["truth"], window)
    if kind == "residual":
        if not r["has_status"]:
            return replace(ABSENT, note=f"{defendant.name} gives no status")
        return metrics.exact_evidence(r["residual"], window)
    if kind == "sensitivity":
        return metrics.exact_evidence(r["model_error"], window)
    return prior.evidence(r, kind, window)


def _efficiency(r: Record, window: tuple[float, float]) -> Evidence:
    """Bound variance over variance; over the mean square where bias or bounds forbid to state an efficiency."""
    if not np.isfinite(r["crb"]):
        return replace(NOTHING, note="no bound to compare with")
    if np.isfinite(r["efficiency"]):
        evidence = metrics.log_evidence(r["efficiency"], r["efficiency_se"] / r["efficiency"], window)
    else:
        value, se = r["rmse_over_bound"], r["rmse_over_bound_se"]
        if not (np.isfinite(value) and value > 0):
            return replace(ABSENT, note="every fit gives the same value, or none")
        evidence = metrics.log_evidence(1 / value**2, 2 * se / value, window)
        evidence = replace(evidence, note="bias or bounds at work: bound variance over mean square")
    if evidence.value > MOST_EFFICIENT:
        evidence = replace(evidence, favour=1.0, note=f"efficiency above {MOST_EFFICIENT:g}: bounds at work")
    return evidence


def _row(record: Record, claim: Claim | None, verdict: str) -> dict[str, Any]:
    row = {name: record.get(name, np.nan) for name in COLUMNS}
    interval = claim.interval if claim is not None and claim.kind == "coverage" else ""
    symmetric, ends = record.get("coverage_symmetric", np.nan), record.get("coverage_interval", np.nan)
    row["coverage"] = symmetric if interval == "symmetric" or (not interval and np.isnan(ends)) else ends
    if "coverage" in record:
        row["coverage"] = record["coverage"]
    row["n"] = int(record.get("n", 0))
    covered = row["coverage"] is ends and record.get("n_intervals", 0)
    row["coverage_se"] = metrics.coverage_se(row["coverage"], covered or row["n"])
    if claim is not None and claim.kind == "flagged_rate" and claim.flag != "any":
        row["flagged_rate"] = record.get("flags", {}).get(claim.flag, np.nan)
    row["claim"] = claim.id if claim is not None else ""
    row["verdict"] = verdict
    for name in ("estimator", "rung", "case", "quantity", "measurand", "nuisances", "protocol", "unit"):
        row[name] = record.get(name, "")
    row["nuisances"] = row["nuisances"] or "known"
    row["seed"] = int(record.get("seed", 0))
    return row


def _judgement(defendant: Defendant, claim: Claim, tried: list[tuple[dict[str, Any], Evidence, str]]) -> Judgement:
    verdicts = [verdict for _, _, verdict in tried]
    reason = claim.reason
    worst, evidence = None, NOTHING
    if tried:
        # The worst row is the one with the strongest evidence against the claim; among equals the least in favour.
        turned = claim.expect == "fails"
        row, evidence, _ = min(
            tried,
            key=lambda each: (
                (each[1].favour, -each[1].against, -_margin(each[1].value, claim.window))
                if turned
                else (each[1].against, -each[1].favour, _margin(each[1].value, claim.window))
            ),
        )
        worst = row
        notes = [e.note for _, e, v in tried if e.note and v != "holds"]
        reason = "; ".join(filter(None, [reason, *dict.fromkeys(notes[:1])]))
    else:
        reason = "; ".join(filter(None, [reason, "no cell of this run lies in its domain"]))
    return Judgement(
        claim=claim.id, estimator=defendant.name, sentence=claim.sentence, expect=claim.expect,
        verdict=metrics.overall(verdicts), rows=len(verdicts), holds=verdicts.count("holds"),
        fails=verdicts.count("fails"), undecided=verdicts.count("undecided"), worst=worst, value=evidence.value,
        se=evidence.se, window=claim.window, unit=claim.unit, reason=reason, source=claim.source,
    )  # fmt: skip


def _margin(value: float, window: tuple[float, float]) -> float:
    """How far inside its window a value lies, negative outside: it tells rows apart that p-values of 0 or 1 cannot."""
    margin = min(value - window[0], window[1] - value)
    return margin if np.isfinite(margin) else 0.0


def _findings(records: Sequence[Record], priors: Sequence[Record]) -> list[str]:
    """What deserves to be told and is no verdict."""
    found = []
    by_name: dict[str, list[Record]] = {}
    for record in records:
        efficiency, se = record["efficiency"], record["efficiency_se"]
        # Four standard errors: rare by chance in a table of a few hundred rows.
        if np.isfinite(efficiency) and efficiency - 4 * se > MOST_EFFICIENT:
            by_name.setdefault(record["estimator"], []).append(record)
    for name, some in by_name.items():
        top = max(some, key=lambda record: record["efficiency"])
        found.append(
            f"{name}: efficiency above {100 * MOST_EFFICIENT:g} % in {len(some)} cells, up to "
            f"{100 * top['efficiency']:.3g} % ({top['measurand']}, {top['case']}, SNR {top['snr']:g}): "
            "bounds or a prior at work"
        )
    over: dict[tuple[str, str, float], list[Record]] = {}
    for record in priors:
        over.setdefault((record["estimator"], record["prior"], record["snr"]), []).append(record)
    for (name, which, snr), some in over.items():
        # A gain on least squares means something only beside that of an answer which looks at no data.
        ratios = "; ".join(
            f"{r['quantity']} {100 * r['ratio_least_squares']:.3g} % of least squares' and "
            f"{100 * r['ratio_prior_mean']:.3g} % of the prior mean's" for r in some
        )  # fmt: skip
        found.append(f"{name} over the {which} prior, SNR {snr:g}, RMSE: {ratios} (which looks at no data)")
    return found
