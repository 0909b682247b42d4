"""What an option, a parameter or a choice means, in words for the command line: read from docstrings.

An estimator tells of its options in the docstring of its core, each in a sentence that begins with its name in
backticks, or refers to another method (options as for ...); a phantom has numpy's section of parameters.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

WORDS = {
    "bounds": "limits of the unknowns of the fit, as in {bounds}",
    "intervals": "true adds the 95 % interval x_lo, x_hi of each x whose distribution is skewed",
    "likelihood": "gaussian, or rician for magnitudes near the noise (with --sigma)",
    "spectrum": "of fat: a name ({spectra}), [[shifts (ppm)], [areas]] with the main peak at 1.30 ppm, or [ndb, nmidb, "
                "chain length]{fitted}",
    "temperature": "of the water (C), which tells where it stands; without, 4.70 ppm",
    "t2star": "true adds t2star = 1/r2star (s)",
    "prior": "in place of the declared one: from Python alone",
    "D_fat": "diffusivity of fat (mm2/s); without, that of the tissue table",
    "field_range": "the field lies within +- this (Hz); without, nothing is known of it",
    "r2star": "R2* (1/s), known from elsewhere",
    "T1": "T1 of {of} (s); without, that of the tissue table",
    "T2": "T2 of {of} (s); without, that of the tissue table",
    "T1_sd": "what is not known of the T1 of {of} (s)",
}  # fmt: skip
"""Options of many methods, in words for the command line."""

OWN_WORDS = ("bounds", "spectrum", "temperature", "r2star", "prior")
"""Of these, `WORDS` says it better than a docstring, which speaks to Python."""

EXAMPLES = {"D": "{D=[0, 3e-3]}", "adc": "{adc=[0, 3e-3]}", "r2star": "{r2star=[0, 300]}"}
"""Bounds that one would set, of the unknowns that have them."""


def bounds_example(estimator: Any) -> str:
    """Bounds as they are set, of an unknown that this estimator has."""
    unknowns = {q.name: q for q in estimator.model.unknowns if q.name in estimator.quantities}
    for name, example in EXAMPLES.items():
        if name in unknowns:
            return example
    quantity = next((q for q in unknowns.values() if abs(q.low) < float("inf") and abs(q.high) < float("inf")), None)
    return "{unknown=[low, high]}" if quantity is None else f"{{{quantity.name}=[{quantity.low:g}, {quantity.high:g}]}}"


def takes_map(chosen: Any, option: str) -> bool:
    """Tell whether an option may be a map over the voxels."""
    parameter = inspect.signature(chosen.core).parameters.get(option) if hasattr(chosen, "core") else None
    return parameter is not None and "ndarray" in str(parameter.annotation)


def words_for(chosen: Any, option: str) -> str:
    """What an option of an estimator means: as its docstring has it, or that of the method it refers to."""
    said = inspect.getdoc(getattr(chosen, "core", None)) or ""
    referred = re.search(r"[Oo]ptions\s+as\s+for\s+`([\w-]+)`|^As `([\w-]+)`", flat(said))
    found = _clause(said, option)
    if referred is not None and (not found or option in OWN_WORDS):
        from .. import estimators

        other = next(name for name in referred.groups() if name)
        if other in estimators.registry and other != chosen.name:
            theirs = inspect.getdoc(getattr(estimators.registry[other], "core", None)) or ""
            found = found or _clause(theirs, option)
    stem, _, of = option.partition("_")
    general = WORDS.get(option)
    if general is None and stem in ("T1", "T2") and of != "correction":
        general = WORDS["T1_sd" if of.endswith("_sd") else stem]
    if general is not None and (option in OWN_WORDS or not found):
        from ..simulator import tissues

        fitted = "; fitted: one triglyceride for the image" if "``fitted``" in _clause(said, "spectrum") else ""
        names = ", ".join(n for n in tissues.spectra() if n.startswith("fat"))
        return general.format(
            bounds=bounds_example(chosen), spectra=names, fitted=fitted, of=of.removesuffix("_sd").replace("_", " ")
        )
    return bare(found)


def _clause(said: str, option: str) -> str:
    """What a docstring tells of an option.

    Where a sentence begins with its name: from there to where the next option begins, or the paragraph ends. Else the
    first sentence that names it.
    """
    for paragraph in said.split("\n\n"):
        sentences = _sentences(flat(paragraph))
        for i, sentence in enumerate(sentences):
            if sentence.startswith(f"`{option}`"):
                told = [sentence[len(option) + 2 :].lstrip(" :,")]
                for further in sentences[i + 1 :]:
                    if further.startswith("`") or "ptions as for" in further:
                        break
                    told.append(further)
                return re.sub(r"^(?:is|are) ", "", " ".join(told).rstrip(" .;"))
    every = (sentence for paragraph in said.split("\n\n") for sentence in _sentences(flat(paragraph)))
    named = next((sentence for sentence in every if f"`{option}`" in sentence.replace("``", "")), "")
    return named.rstrip(" .;")


def _sentences(said: str) -> list[str]:
    """Sentences, and those parts of one that begin with an option."""
    return re.split(r"(?<=[.;])\s+(?=`(?!`)|[A-Z])", said)


def prose(chosen: Any) -> str:
    """What the docstring of an estimator says besides its options."""
    said = inspect.getdoc(getattr(chosen, "core", None)) or ""
    return "\n\n".join(
        kept for part in said.split("\n\n") if (kept := _without_options(flat(part), chosen.options)).strip()
    )


def _without_options(text: str, options: Iterable[str]) -> str:
    """A paragraph as far as no sentence of it begins with an option, or refers to those of another method."""
    begins = tuple(f"`{option}`" for option in options)
    kept = itertools.takewhile(lambda s: not s.startswith(begins) and "ptions as for" not in s, _sentences(text))
    return bare(" ".join(kept))


def parameters(said: str) -> dict[str, str]:
    """Name to words of a numpy docstring's parameters; several may share an entry."""
    section = re.search(r"\nParameters\n-+\n(.*?)(?=\n\w+\n-+\n|\Z)", said, flags=re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.group(1).splitlines() if section else []:
        if line[:1].strip():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
        elif line.strip():
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {name: bare(words) for name, words in found.items()}


def listed_choices(words: str, function: Callable[..., Any]) -> str:
    """Words in which the name of a list of choices (``CONDITIONS``) is replaced by what it lists."""
    from ..simulator import tissues

    names = {**vars(tissues), **getattr(inspect.unwrap(function), "__globals__", {})}

    def listed(found: re.Match[str]) -> str:
        choices = names.get(found.group(1))
        if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
            return found.group()
        return ", ".join(map(str, choices))

    return re.sub(r"(?:[a-z_]+\.)*\b([A-Z][A-Z_]{2,})\b", listed, words)


def flat(text: str) -> str:
    return " ".join(text.split())


def bare(text: str) -> str:
    """Text without the marks of a docstring."""
    return flat(re.sub(r":\w+:`~?\.?([^`]+)`", r"\1", text).replace("`", ""))
