"""People: age, sex, bone density, and biomarkers that belong together as published means and correlations say.

A person is drawn in four steps. Sex and age come first. A vector of normal scores follows, one for each trait, with
the correlations of ``correlation_matrix``; it is a Gaussian copula, so each trait then takes its own marginal
distribution (mean and SD at that age and sex, inside its physical bounds) without disturbing how the traits rank
together. Bone density gives the T-score, and with age the condition of WHO; and a vertebra may have just broken, the
more probably the lower the density: it has the marrow of a fracture (oedema), whatever it was, and the others keep
theirs. What is known of the traits stands in ``traits``.

References
----------
WHO's classes: Kanis 1994, Osteoporos Int 4:368, doi:10.1007/BF01622200. Every number stands in ``tissues.toml`` with
its own source.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..simulator import tissues
from . import inputs
from .phantom import Phantom
from .traits import TRAITS, correlation_matrix, moments, quantile, spread

OSTEOPENIA, OSTEOPOROSIS = -1.0, -2.5  # T-scores, WHO
WHO_AGE = 50  # years; below it a T-score makes no diagnosis (International Society for Clinical Densitometry)
MOST_PEOPLE = 1_000_000
_OLDEST = 100.0

# What an acute fracture changes in the vertebra that broke, and where the numbers stand.
_BROKEN = {"pdff": "marrow.pdff", "D": "marrow_water.D"}
_MAY_BREAK = ("vertebra", "marrow_block")  # phantoms that are the broken vertebra; a spine knows its own broken level
# What of a person each phantom takes; the marrow of limbs is not that of the spine and follows from the condition.
_MARROW = {"pdff": "pdff", "bvtv": "bvtv", "D": "D"}
BONES: dict[str, dict[str, str]] = {
    "vertebra": {**_MARROW, "perfusion_fraction": "perfusion_fraction"},
    "spine": {**_MARROW, "perfusion_fraction": "perfusion_fraction", "muscle_pdff": "muscle_pdff"},
    "trabecular": {**_MARROW, "perfusion_fraction": "perfusion_fraction"},
    "marrow_block": {**_MARROW, "f": "perfusion_fraction", "T2_water": "T2_water"},
    "cortical": {"porosity": "porosity"},
    "femur": {},
    "calcaneus": {},
}


def cohort(
    n: int,
    seed: int = 0,
    women: float = 0.5,
    age: float | Sequence[float] = (20.0, 85.0),
    field: float = 3.0,
    years: float = 1.0,
    correlations: Mapping[tuple[str, str], float] | None = None,
) -> xr.Dataset:
    """Draw people.

    Each person has a random stream of their own: person i is the same in a cohort of 10 and of 1000.

    Parameters
    ----------
    n : int
        How many people.
    seed : int
    women : float
        Probability that a person is a woman.
    age : float or (low, high)
        Age (years), or the ends between which it is uniform.
    field : float
        Field strength (T) at which relaxation holds.
    years : float
        A vertebra broken within so many years counts as fractured. One year gives about eight in a thousand
        people over 50.
    correlations : mapping, optional
        ``{("pdff", "bmd"): -0.6}``: pairs that shall differ from the published ones.

    Returns
    -------
    Dataset
        Over ``person``: ``age`` (year), ``sex`` ("woman" or "man"), ``bmd`` (g/cm2), ``t_score``, ``condition``,
        ``fracture_risk`` (probability within `years`), ``seed`` (of the person's bones) and the traits
        ``pdff bvtv perfusion_fraction D T2_water porosity muscle_pdff``. ``pdff_broken`` and ``D_broken`` are those
        of an acutely broken vertebra, NaN where none broke: the other vertebrae stay what they were.

    Raises
    ------
    InputError
        A number out of range, a field without data, correlations that no people could have.
    """
    where = "cohort"
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST_PEOPLE:
        raise InputError(f"{where}: n is {n!r}, should be a whole number of people from 1 to {MOST_PEOPLE}")
    seed = inputs.seed(where, seed)
    women = inputs.number(where, "women", women, 0.0, 1.0)
    years = inputs.number(where, "years", years, 0.0, 100.0)
    low, high = _ages(where, age)
    matrix = correlation_matrix(correlations)
    factor = np.linalg.cholesky(matrix)

    uniform, score, seeds = np.empty((n, 3)), np.empty((n, len(TRAITS))), np.empty(n, dtype=np.int64)
    for i in range(n):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        uniform[i], score[i], seeds[i] = rng.random(3), rng.standard_normal(len(TRAITS)), rng.integers(2**62)
    correlated = dict(zip(TRAITS, (score @ factor.T).T, strict=True))
    female, years_old = uniform[:, 0] < women, low + (high - low) * uniform[:, 1]
    values = {}
    for name, trait in TRAITS.items():
        mean, sd = moments(name, years_old, female, field)
        values[name] = quantile(trait.family, correlated[name], mean, sd)

    peak = tissues.entry("cohort.bmd_women_25")
    t_score = (values["bmd"] - peak.value) / peak.sd
    risk = _fracture_risk(correlated["bmd"], years_old, female, years)
    broken = uniform[:, 2] < risk
    condition = np.full(n, "young", dtype="U12")
    for name, holds in (("old", t_score >= OSTEOPENIA), ("osteopenic", t_score < OSTEOPENIA),
                        ("osteoporotic", t_score <= OSTEOPOROSIS), ("fractured", broken)):
        condition[(years_old >= WHO_AGE) & holds] = name
    acute = {}
    for name, path in _BROKEN.items():
        middle, width = spread(path, field, "fractured")
        drawn = quantile(TRAITS[name].family, correlated[name], np.full(n, middle), np.full(n, width))
        acute[name] = np.where(broken, drawn, np.nan)

    columns: dict[str, tuple[np.ndarray, str, str]] = {
        "age": (years_old, "year", "age"),
        "sex": (np.where(female, "woman", "man"), "", "sex"),
        "condition": (condition, "", "young below 50 years; from there WHO's class by T-score, or an acute fracture"),
        "t_score": (t_score, "1", "bone density in SDs above the mean of women in their twenties"),
        "fracture_risk": (risk, "1", "probability of a vertebral fracture within the years asked for"),
        "seed": (seeds, "", "seed of the person's bones"),
        **{name: (values[name], trait.unit, trait.long_name) for name, trait in TRAITS.items()},
        **{f"{name}_broken": (acute[name], TRAITS[name].unit, f"{TRAITS[name].long_name}, in the broken vertebra")
           for name in _BROKEN},
    }
    found = xr.Dataset(
        {name: ("person", data, {"units": unit, "long_name": text} if unit else {"long_name": text})
         for name, (data, unit, text) in columns.items()},
        coords={"person": np.arange(n)})
    found.attrs = {"name": where, "seed": seed, "field_strength": float(field), "women": women, "age_low": low,
                   "age_high": high, "years": years, "traits": json.dumps(list(TRAITS)),
                   "correlations": matrix.ravel()}
    return found


class Person(Mapping[str, Phantom]):
    """The bones of one person, each built when it is first asked for; see :func:`person`."""

    def __init__(self, row: xr.Dataset, field: float, resolution: Mapping[str, float]) -> None:
        self.row, self.field, self.resolution = row, field, dict(resolution)
        self._built: dict[str, Phantom] = {}

    def arguments(self, name: str) -> dict[str, Any]:
        """What the phantom function `name` is called with: condition, seed, field, and the person's own values."""
        takes = inspect.signature(_phantom(name)).parameters
        found: dict[str, Any] = {"condition": str(self.row["condition"].item()), "seed": int(self.row["seed"].item()),
                                 "field": self.field}
        broken = name in _MAY_BREAK and found["condition"] == "fractured"
        found |= {key: float(self.row[f"{trait}_broken" if broken and trait in _BROKEN else trait].item())
                  for key, trait in BONES[name].items() if key in takes}
        if name in self.resolution:
            found["resolution"] = self.resolution[name]
        return found

    def __getitem__(self, name: str) -> Phantom:
        if name not in self._built:
            self._built[name] = _phantom(name)(**self.arguments(name))
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_bones())

    def __len__(self) -> int:
        return len(_bones())

    def __contains__(self, name: object) -> bool:
        return name in _bones()

    def __repr__(self) -> str:
        row = self.row
        return (f"<Person {int(row['person'])}: {row['sex'].item()} of {float(row['age']):.0f} years, "
                f"{row['condition'].item()}, T-score {float(row['t_score']):.1f}; bones {', '.join(self)}>")


def person(people: xr.Dataset, i: int, resolution: Mapping[str, float] | None = None) -> Person:
    """The bones of person `i` of a cohort: ``person(people, 3)["vertebra"]``.

    A bone is built when it is first asked for, with the person's condition, seed and biomarkers; ``arguments(name)``
    tells with which, so that a study can change one thing and keep the rest.

    Parameters
    ----------
    people : Dataset
        From :func:`cohort`.
    i : int
        Position of the person.
    resolution : mapping, optional
        ``{"vertebra": 1e-3}`` (m); default each phantom's own.

    Returns
    -------
    Person
        A mapping from the bones of :data:`BONES` to :class:`Phantom`.

    Raises
    ------
    InputError
        No such person, or a Dataset that is no cohort.
    """
    needed = ("condition", "seed", *TRAITS, *(f"{name}_broken" for name in _BROKEN))
    lacking = [name for name in needed if name not in people]
    if lacking or "field_strength" not in people.attrs:
        raise InputError(f"person: the dataset lacks {', '.join(lacking) or 'field_strength'}; should be a cohort")
    count = people.sizes["person"]
    if isinstance(i, bool) or not isinstance(i, (int, np.integer)) or not 0 <= i < count:
        raise InputError(f"person: no person {i!r}; the cohort has 0 to {count - 1}")
    for name in resolution or {}:
        _phantom(name)
    return Person(people.isel(person=int(i)), float(people.attrs["field_strength"]), resolution or {})


def _bones() -> list[str]:
    from . import registry

    return [name for name in BONES if name in registry]


def _phantom(name: str) -> Callable[..., Phantom]:
    from . import registry

    if name not in _bones():
        raise InputError(f"person: no bone {name!r}; known: {', '.join(_bones())}")
    return registry[name]


def _ages(where: str, age: Any) -> tuple[float, float]:
    ends = inputs.numbers(where, "age", age, 18.0, _OLDEST, "years")
    if ends.size not in (1, 2) or ends.ndim > 1 or ends.flat[0] > ends.flat[-1]:
        raise InputError(f"{where}: age is {age!r}, should be a number of years or (low, high)")
    return float(ends.flat[0]), float(ends.flat[-1])


def _fracture_risk(score: np.ndarray, age: np.ndarray, female: np.ndarray, years: float) -> np.ndarray:
    """Probability of a vertebral fracture: the published rate over people, distributed among them by density.

    The rate grows by the relative risk per SD of density below the mean of one's age; a normal score has the mean
    ``exp(ln(risk)^2 / 2)`` of that factor, by which it is divided, so that the rate over all is the published one.
    """
    gradient = math.log(tissues.value("cohort.fracture_risk_per_sd"))
    rate = np.where(female, tissues.value("cohort.fracture_rate_women"), tissues.value("cohort.fracture_rate_men"))
    rate = rate * np.exp(-gradient * score - gradient**2 / 2)
    return np.where(age >= WHO_AGE, -np.expm1(-rate * years), 0.0)
