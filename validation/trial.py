"""What a trial leaves behind: one table, one judgement per claim, and the numbers behind the figures."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .claims import PRINTED

COLUMNS = (
    "estimator", "rung", "case", "snr", "quantity", "measurand", "truth", "limit", "mean", "bias", "bias_se", "sd",
    "crb", "efficiency", "efficiency_se", "coverage", "coverage_se", "flagged_rate", "n", "verdict", "seed",
    "nuisances", "protocol", "claim", "model_error", "unit", "rmse",
)  # fmt: skip
VERDICTS = ("holds", "fails", "undecided")


class Table(Sequence[dict[str, Any]]):
    """Rows with the columns of ``results.csv``: one row per cell and claim.

    A cell is estimator x rung x case x SNR x nuisances x quantity x measurand. A cell on which three claims are
    tried has three rows, with one verdict each; a cell without a claim has one row with an empty claim and verdict.
    On images of a known field the measurand ``swaps`` has truth 0, and as mean the share of voxels with water and fat
    swapped and no flag.
    """

    columns = COLUMNS

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return Table(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def column(self, name: str) -> np.ndarray:
        """One column as an array."""
        if name not in COLUMNS:
            raise InputError(f"table: no column {name!r}; one of {', '.join(COLUMNS)}")
        return np.array([row[name] for row in self.rows])

    def where(self, **equal: Any) -> Table:
        """The rows in which every named column has the given value."""
        return Table([row for row in self.rows if all(row[name] == value for name, value in equal.items())])

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write ``results.csv``: numbers to full precision, NaN as ``nan``."""
        with _beside(Path(path)) as beside, open(beside, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([_text(row[name]) for name in COLUMNS] for row in self.rows)

    def __repr__(self) -> str:
        shown = ("estimator", "rung", "case", "snr", "measurand", "bias", "sd", "crb", "coverage", "claim", "verdict")
        lines = [[_short(row[name]) for name in shown] for row in self.rows[:60]]
        widths = [max(len(line[i]) for line in [list(shown), *lines]) for i in range(len(shown))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in [list(shown), *lines]]  # fmt: skip
        hidden = len(self.rows) - len(lines)
        return "\n".join(text + ([f"... {hidden} more rows"] if hidden > 0 else []))


@dataclass(frozen=True)
class Judgement:
    """The verdict on one claim over all the cells of its domain.

    ``worst`` is the row nearest to, or furthest beyond, the claim's boundary; ``value`` and ``se`` are the number
    tried there, and ``window`` is what the claim allows (open sides are infinite). With ``expect = "fails"`` the
    claim is a declared failure: it holds where the window is missed.
    """

    claim: str
    estimator: str
    sentence: str
    expect: str
    verdict: str
    rows: int = 0
    holds: int = 0
    fails: int = 0
    undecided: int = 0
    worst: dict[str, Any] | None = None
    value: float = float("nan")
    se: float = float("nan")
    window: tuple[float, float] = (-float("inf"), float("inf"))
    unit: str = "1"
    reason: str = ""
    source: str = ""


@dataclass
class Trial:
    """Estimators on trial: what was claimed, what happened, and with what error.

    Attributes
    ----------
    table : Table
        One row per cell and claim, the columns of ``results.csv``. ``bias`` is mean - limit (noise bias),
        ``model_error`` is limit - truth; ``crb`` is the Cramer-Rao bound as a standard deviation.
    judgements : list of Judgement
        One verdict per claim.
    budget : xarray.Dataset
        Bias of each confounder alone and of all together, predicted and found (dim ``line``).
    exhibits : dict of str to xarray.Dataset
        Experiments that a study shows beside its claims, by name.
    findings : list of str
        What deserves to be told and is no verdict (an efficiency above 1.05: bounds at work).
    reasons : list of str
        One line for each estimator that raised or broke the contract of an estimate.
    samples : xarray.Dataset
        Each cell once (dim ``cell``), with the quantiles of the estimates: what figures are drawn from.
    confounders : xarray.Dataset
        Noise-free model error against the strength of one confounder at a time (dim ``point``).
    prior : xarray.Dataset
        Bayesian estimators over their prior: error against the exact posterior mean and the prior mean (``entry``).
    """

    name: str
    title: str
    table: Table
    judgements: list[Judgement]
    samples: xr.Dataset
    confounders: xr.Dataset
    prior: xr.Dataset
    budget: xr.Dataset = field(default_factory=xr.Dataset)
    exhibits: dict[str, xr.Dataset] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    seed: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many claims hold, fail and are undecided."""
        return {verdict: sum(j.verdict == verdict for j in self.judgements) for verdict in VERDICTS}

    @property
    def passed(self) -> bool:
        """No claim fails and no estimator broke down. Undecided claims do not fail a trial."""
        return not self.reasons and self.counts["fails"] == 0

    def summary(self) -> str:
        """The last line: claims that hold, fail, are undecided; declared failures; time."""
        counts = self.counts
        declared = sum(j.expect == "fails" and j.verdict == "holds" for j in self.judgements)
        text = f"{len(self.judgements)} claims: {counts['holds']} hold, {counts['fails']} fail, "
        text += f"{counts['undecided']} undecided"
        if declared:
            text += f" ({declared} of those that hold are declared failures that occur)"
        if self.reasons:
            text += f"; {len(self.reasons)} broke down: {self.reasons[0]}"
        return text + f"; {len(self.table)} rows, {self.seconds:.1f} s"

    def __str__(self) -> str:
        """Every claim with its verdict, and the last line."""
        lines = [f"{j.verdict:9}  {j.estimator:15}  {j.sentence}{_worst_text(j)}" for j in self.judgements]
        return "\n".join([*lines, self.summary()])

    def __repr__(self) -> str:
        return f"<Trial {self.name}: {'passed' if self.passed else 'failed'}; {self.summary()}>"

    def report(self, folder: str | os.PathLike[str] = "bonemri-report") -> Path:
        """Write ``index.html``, ``results.csv``, ``results.nc`` and ``provenance.json`` into a folder.

        Returns
        -------
        pathlib.Path
            The page, ``folder/index.html``.

        Raises
        ------
        InputError
            When the folder cannot be written.
        """
        from .report.page import write_page

        folder = make_folder(folder)
        self.table.write_csv(folder / "results.csv")
        self._write_netcdf(folder / "results.nc")
        with _beside(folder / "provenance.json") as beside:
            beside.write_text(json.dumps(self.provenance, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return Path(write_page(self, folder))

    def _write_netcdf(self, path: Path) -> None:
        """Groups of one NetCDF file: ``samples``, ``confounders``, ``prior``, ``budget``, and one for each exhibit."""
        with _beside(path) as beside:
            mode: Any = "w"
            groups = {name: getattr(self, name) for name in ("samples", "confounders", "prior", "budget")}
            for group, data in (groups | self.exhibits).items():
                data.to_netcdf(beside, mode=mode, group=group, engine="h5netcdf")
                mode = "a"


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the folder of a report, or say in one line why that is impossible."""
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder}: is a file; a report goes into a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: this folder cannot be written")
    return folder


class _beside:
    """Write into a hidden file beside the target and rename at the end: no half-written output."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.beside = target.with_name(f".{target.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        return self.beside

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            os.replace(self.beside, self.target)
        else:
            self.beside.unlink(missing_ok=True)


def _worst_text(judgement: Judgement) -> str:
    """The number that decided, in brackets."""
    if not np.isfinite(judgement.value):
        return f" [{judgement.reason}]" if judgement.verdict != "holds" and judgement.reason else ""
    scale, unit = PRINTED.get(judgement.unit, (1.0, "" if judgement.unit == "1" else f" {judgement.unit}"))
    se = f" +- {scale * judgement.se:.2g}" if judgement.se > 0 else ""
    return f" [worst of {judgement.rows}: {scale * judgement.value:.4g}{se}{unit}]"


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)


def _short(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)
