"""Traits of people: how each is distributed at an age and sex, and how they go together.

Marginal distributions and correlations are apart from one another (a Gaussian copula): a trait takes its mean, SD and
bounds from :func:`moments`, and its rank among people from the correlated normal scores of
:func:`correlation_matrix`. Every number stands in ``tissues.toml`` with its source.

References
----------
Nelsen 2006, An Introduction to Copulas, doi:10.1007/0-387-28678-0.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from . import inputs


class Trait(NamedTuple):
    """A biomarker of a person: unit, meaning, and the family of its marginal distribution."""

    unit: str
    long_name: str
    family: str


TRAITS = {
    "bmd": Trait("g/cm2", "areal bone mineral density of the lumbar spine", "normal"),
    "pdff": Trait("1", "proton density fat fraction of vertebral marrow", "beta"),
    "bvtv": Trait("1", "trabecular bone volume fraction of the vertebral body", "beta"),
    "perfusion_fraction": Trait("1", "blood 1H over blood and tissue-water 1H of vertebral marrow", "beta"),
    "D": Trait("mm2/s", "diffusion coefficient of marrow water", "lognormal"),
    "T2_water": Trait("s", "transverse relaxation time of marrow water", "lognormal"),
    "porosity": Trait("1", "porosity of cortical bone", "beta"),
    "muscle_pdff": Trait("1", "proton density fat fraction of paraspinal muscle", "beta"),
}
# Published pairs: sign, and where the size stands. They form a tree: see `correlation_matrix`.
_PAIRS = {
    ("bmd", "pdff"): (-1, "cohort.bmd_against_pdff"),
    ("bmd", "bvtv"): (1, "cohort.bmd_with_bvtv"),
    ("bmd", "porosity"): (-1, "cohort.bmd_against_porosity"),
    ("bmd", "perfusion_fraction"): (1, "cohort.bmd_with_perfusion"),
    ("pdff", "D"): (-1, "cohort.pdff_against_D"),
    ("pdff", "T2_water"): (-1, "cohort.pdff_against_T2_water"),
}
_KNOTS = {"bmd": (25, 35, 45, 55, 65, 75), "pdff": (25, 35, 65)}  # years


def correlation_matrix(changes: Mapping[tuple[str, str], float] | None = None) -> np.ndarray:
    """Correlations of the traits' normal scores within people of one age and sex, in the order of ``TRAITS``.

    The published pairs form a tree (bone density with fat, bone volume, porosity and perfusion; fat with diffusion
    and T2), and a pair that nobody published is the product along its path: independent given what stands between.
    Of all completions this one assumes the least (it has the greatest entropy), and it is always possible.

    Parameters
    ----------
    changes : mapping, optional
        Pairs that shall have another correlation.

    Returns
    -------
    array, (trait, trait)

    Raises
    ------
    InputError
        An unknown trait, a correlation outside -1..1, or together impossible (the matrix is not positive definite).
        Nothing is repaired in silence: the nearest possible matrix would answer another question.
    """
    names = list(TRAITS)
    edge: dict[tuple[str, str], float] = {pair: sign * tissues.value(path) for pair, (sign, path) in _PAIRS.items()}
    asked = {}
    for pair, value in (changes or {}).items():
        if not (isinstance(pair, tuple) and len(pair) == 2 and pair[0] != pair[1] and set(pair) <= set(names)):
            raise InputError(f"cohort: no pair of traits {pair!r}; known: {', '.join(names)}")
        asked[pair] = inputs.number("cohort", f"correlation of {pair[0]} and {pair[1]}", value, -1.0, 1.0)
        for known in (pair, pair[::-1]):
            if known in edge:
                edge[known] = asked[pair]
    matrix = np.eye(len(names))
    for start in names:  # along the tree, multiplying as we go
        reached, queue = {start: 1.0}, deque([start])
        while queue:
            here = queue.popleft()
            for (one, other), value in edge.items():
                for a, b in ((one, other), (other, one)):
                    if a == here and b not in reached:
                        reached[b] = reached[here] * value
                        queue.append(b)
        for name, value in reached.items():
            matrix[names.index(start), names.index(name)] = value
    matrix = (matrix + matrix.T) / 2  # products in two orders differ by a rounding
    for (one, other), value in asked.items():
        row, column = names.index(one), names.index(other)
        matrix[row, column] = matrix[column, row] = value
    least = float(np.linalg.eigvalsh(matrix)[0])
    if least < 1e-9:  # rounding of a singular matrix of this size stays far below
        pairs = ", ".join(f"{one} and {other} {value:g}" for (one, other), value in asked.items())
        raise InputError(f"cohort: no people can have these correlations together ({pairs}): "
                         f"the least eigenvalue of the matrix is {least:.2g}, should be above 0")
    return matrix


def moments(name: str, age: Any, female: Any, field: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD of a trait in people of that age and sex.

    Between the published ages both are linear; before the first and after the last they stay.

    Parameters
    ----------
    name : str
        One of ``TRAITS``.
    age : array
        Years.
    female : array of bool
    field : float
        Field strength (T).

    Returns
    -------
    mean, sd : array
    """
    age, female = np.broadcast_arrays(np.asarray(age, dtype=float), np.asarray(female, dtype=bool))
    if name in _KNOTS:
        by_sex = [_between(age, _KNOTS[name], [spread(f"cohort.{name}_{sex}_{at}", field) for at in _KNOTS[name]])
                  for sex in ("men", "women")]
        return np.where(female, by_sex[1][0], by_sex[0][0]), np.where(female, by_sex[1][1], by_sex[0][1])
    if name == "muscle_pdff":
        return _between(age, (25, 55), [spread(f"cohort.muscle_pdff_{at}", field) for at in (25, 55)])
    if name == "bvtv":  # bone volume of the young, less the share of it that a life costs
        mean, sd = spread("trabecular.bvtv", field, "young")
        loss = np.where(female, tissues.value("cohort.bvtv_loss_women"), tissues.value("cohort.bvtv_loss_men"))
        left = 1 - loss * (np.clip(age, 20, 90) - 20) / 70
        return mean * left, sd * left
    if name == "porosity":
        return _between(age, (25, 75), [spread("cortical.porosity", field, c) for c in ("young", "old")])
    if name == "D":
        return _between(age, (35, 65), [spread("marrow_water.D", field, c) for c in ("young", "osteopenic")])
    if name == "T2_water":  # the range is that of 260 people, whose extremes lie 2.8 SDs out
        found = tissues.entry("marrow_water.T2", field)
        return np.full(age.shape, found.value), np.full(age.shape, (found.high - found.low) / 5.6)
    if name == "perfusion_fraction":
        mean, sd = spread("marrow.perfusion_fraction", field)
        return np.full(age.shape, mean), np.full(age.shape, sd)
    raise InputError(f"cohort: no trait {name!r}; known: {', '.join(TRAITS)}")


def spread(path: str, field: float, condition: str | None = None) -> tuple[float, float]:
    """Value and SD of a tissue number; a range without an SD counts as two SDs to each side, as records hold it."""
    found = tissues.entry(path, field, condition)
    return found.value, found.sd if math.isfinite(found.sd) else (found.high - found.low) / 4


def _between(age: np.ndarray, knots: Sequence[int], at: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.interp(age, knots, [mean for mean, _ in at]), np.interp(age, knots, [sd for _, sd in at])


def quantile(family: str, score: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """What stands where the normal score stands, in a distribution of that mean and SD."""
    from scipy.special import betaincinv, ndtr

    if family == "normal":
        return np.asarray(mean + sd * score)
    if family == "lognormal":
        width = np.sqrt(np.log1p((sd / mean) ** 2))
        return np.asarray(mean * np.exp(width * score - width**2 / 2))
    size = mean * (1 - mean) / sd**2 - 1
    if (size <= 0).any():
        raise InputError(f"cohort: an SD of {sd.max():g} is too wide for a fraction with mean {mean.min():g}")
    return np.asarray(betaincinv(mean * size, (1 - mean) * size, ndtr(score)))
