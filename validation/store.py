"""Results of finished cells, kept in the report's folder so that a run that was cut off can go on."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .defendant import Defendant, sources
from .study import Case

if TYPE_CHECKING:
    from .experiment import Plan

PACKAGE = Path(__file__).parent.parent
FOLDER = ".cells"


@cache
def sources_digest() -> str:
    """SHA-256 of the package's own text."""
    return sources(PACKAGE)


class Store:
    """One JSON file per cell under ``DIR/.cells``; without a folder nothing is kept.

    A key names all that a result depends on: the text of the package, the study's phantom, the case, the estimator
    and the seed. Estimators of others are run again: their text is not part of the key.
    """

    def __init__(self, folder: Path | None, resume: bool) -> None:
        self.folder = None if folder is None else folder / FOLDER
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            if not resume:
                for path in self.folder.glob("*.json"):
                    path.unlink()

    def key(self, defendant: Defendant, case: Case | str, plan: Plan) -> str | None:
        """Name of the file of a cell, or of another named result; None when it cannot be kept."""
        ours = defendant.sheet.path.is_relative_to(PACKAGE)
        if self.folder is None or not defendant.registered or not ours:
            return None
        study = plan.study
        parts = (
            sources_digest(), defendant.name, sorted(defendant.quantities), case, plan.seed, plan.quick, study.phantom,
            study.tissue, study.field, study.nuisances, study.subjects, study.subjects_quick, plan.protocol.to_json(),
            str(defendant.sheet.identifiable), str(defendant.sheet.identifiable_sd), study.ranges, study.base,
            study.protocols, str(study.prior) if isinstance(case, str) else "",
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def load(self, key: str | None) -> Any:
        """The kept result, or None."""
        if key is None or self.folder is None:
            return None
        try:
            return json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def save(self, key: str | None, result: Any) -> None:
        """Keep a result: written beside and renamed, so that a cut-off run leaves no half of one."""
        if key is None or self.folder is None:
            return
        path = self.folder / f"{key}.json"
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(result), encoding="utf-8")
        os.replace(beside, path)
