"""What estimators claim, read from the ``*.claims.toml`` that stands beside them.

A claim is a window for one number (``kind``) of one quantity, on one rung, over a domain of tissue. A declared
failure is a claim with ``expect = "fails"``, a reason and a source: it says that the window is missed there.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError

INFINITY = float("inf")
RUNGS = ("matched", "pools", "engine", "scan")
# kind: what the number is, in words; {q} is the quantity.
KINDS = {
    "efficiency": "efficiency of {q} (bound variance / variance)",
    "noise_bias": "noise bias of {q} in bound SDs",
    "noise_shift": "noise bias of {q} (mean - limit)",
    "coverage": "coverage of the 95 % interval of {q}",
    "flagged_rate": "rate of fits flagged {flag}",
    "rmse_over_bound": "noise RMSE of {q} over its bound SD",
    "model_error": "model error of {q} (limit - truth)",
    "relative_model_error": "relative model error of {q}",
    "recovery": "relative error of {q} without noise",
    "residual": "largest residual of a noise-free fit over S0, with a status",
    "swaps": "voxels with water and fat swapped and no flag:",
    "sensitivity": "change of the model error of {q} under '{confounder}'",
    "rmse_to_exact": "RMSE of {q} over that of the exact posterior mean",
    "rank_calibration": "distance of the ranks of {q} from uniform",
    "prior_coverage": "coverage of the 95 % interval of {q} over the prior",
    "gain_on_prior": "RMSE of {q} over that of the prior mean",
}
# Numbers that are printed in per cent (efficiencies, rates, relative errors): inside they are 0 to 1.
FRACTIONS = ("efficiency", "coverage", "prior_coverage", "flagged_rate", "relative_model_error", "swaps")
# How a number on trial is printed: factor, unit.
PRINTED = {"fraction": (100.0, " %"), "points": (100.0, " % points"), "mm2/s": (1e3, " x 1e-3 mm2/s")}
# How a tissue value is printed: symbol, factor, unit.
SHOWN = {
    "f": ("f", 100.0, " %"), "pdff": ("PDFF", 100.0, " %"), "r2star": ("R2*", 1.0, " 1/s"),
    "R2_prime": ("R2'", 1.0, " 1/s"), "fieldmap": ("field", 1.0, " Hz"), "D": ("D", 1e3, " x 1e-3 mm2/s"),
    "D_star": ("D*", 1e3, " x 1e-3 mm2/s"), "adc": ("ADC", 1e3, " x 1e-3 mm2/s"), "D_star_over_D": ("D*/D", 1.0, ""),
}  # fmt: skip
# These are read off other experiments than the grid of cells.
OVER_PRIOR = ("rmse_to_exact", "rank_calibration", "prior_coverage", "gain_on_prior")
# These may be claimed of the images of a study.
ON_IMAGES = ("swaps", "flagged_rate")
DOMAINS = ("all", "identifiable", "elsewhere", "over_twice", "all_under_half")
_CHOICES = {
    "kind": tuple(KINDS),
    "rung": RUNGS,
    "nuisances": ("known", "drawn", "both"),
    "sigma": ("given", "pooled", "both"),
    "interval": ("symmetric", "asymmetric"),
    "expect": ("holds", "fails"),
    "prior": ("declared", "wrong"),
}
_KEYS = {"id", "estimator", "quantity", "measurand", "protocol", "variant", "snr", "domain", "limit", "flag",
         "confounder", "strength", "image", "reason", "source", *_CHOICES}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """The cells over which a claim is made.

    ``words`` compares each bound SD with the limits of the sheet: *identifiable* where all are within,
    *elsewhere* where one is not, *over_twice* where one is beyond twice its limit, *all_under_half* where all are
    below half. ``ranges`` are intervals of case values; ``D_star_over_D`` is their ratio.
    """

    words: str = "all"
    ranges: tuple[tuple[str, float, float], ...] = ()
    outside: tuple[tuple[str, float, float], ...] = ()

    def contains(self, values: Mapping[str, float], worst: float) -> bool:
        """Whether a case belongs.

        Parameters
        ----------
        values : mapping
            The case's tissue values.
        worst : float
            The largest of the relative bound SDs, each over its limit (`Sheet.worst`).
        """
        by_bound = {
            "all": True,
            "identifiable": worst <= 1,
            "elsewhere": not worst <= 1,
            "over_twice": not worst <= 2,
            "all_under_half": worst < 0.5,
        }[self.words]
        if not by_bound or not all(_within(values, limits) for limits in self.ranges):
            return False
        return not self.outside or not all(_within(values, limits) for limits in self.outside)

    def __str__(self) -> str:
        words = {
            "all": "",
            "identifiable": "where identifiable",
            "elsewhere": "where not identifiable",
            "over_twice": "where a bound is over twice its limit",
            "all_under_half": "where all bounds are under half their limits",
        }[self.words]
        parts = [words] if words else []
        parts += [_range_text(limits) for limits in self.ranges]
        if self.outside:
            parts.append("outside of " + " and ".join(_range_text(limits) for limits in self.outside))
        return ", ".join(parts) or "everywhere"


@dataclass(frozen=True)
class Claim:
    """One claim of one estimator about one quantity.

    ``window`` is closed; an open side is infinite. ``snr`` empty means every SNR that is tried. ``variant`` names
    options other than the estimator's defaults, as a study states them; ``image`` one of its images, on which `swaps`
    and flags are claimed.
    """

    id: str
    estimator: str
    kind: str
    quantity: str
    window: tuple[float, float]
    measurand: str = ""
    rung: str = "matched"
    protocol: str = ""
    variant: str = ""
    snr: tuple[float, ...] = ()
    domain: Domain = field(default_factory=Domain)
    nuisances: str = "both"
    sigma: str = "both"
    interval: str = "symmetric"
    flag: str = "not_identifiable"
    confounder: str = ""
    strength: float = math.nan
    image: str = ""
    prior: str = "declared"
    expect: str = "holds"
    reason: str = ""
    source: str = ""

    @property
    def unit(self) -> str:
        """Unit of the number that is tried: "fraction" is printed in %, "points" in % points."""
        if self.kind in FRACTIONS:
            return "fraction"
        if self.kind not in ("noise_shift", "model_error", "sensitivity"):
            return "1"
        unit = quantity_unit(self.quantity)
        return "points" if unit == "1" else unit

    @property
    def sentence(self) -> str:
        """The claim in words."""
        what = KINDS[self.kind].format(
            q=self.measurand or self.quantity, flag=self.flag.replace("_", " "), confounder=self.confounder
        )
        where = [f"rung {self.rung}"] if self.kind not in OVER_PRIOR else [f"{self.prior} prior"]
        where += [f"SNR {'/'.join(f'{s:g}' for s in self.snr)}"] if self.snr else []
        where += [text for text in (self.image, self.variant, self.protocol) if text]
        where += [str(self.domain)] if self.kind not in OVER_PRIOR and not self.image else []
        where += [f"nuisances {self.nuisances}"] if self.nuisances != "both" else []
        known = "known to miss: " if self.expect == "fails" else ""
        return f"{known}{what} {_window_text(self.window, self.unit)}; {', '.join(where)}"


@dataclass(frozen=True)
class Sheet:
    """A claims file: the claims, when a quantity counts as identifiable, and the fit bounds they are stated with.

    ``identifiable`` holds limits of relative bound SDs, ``identifiable_sd`` of those that are stated as they are:
    ``pdff = { sd = 0.02 }``.
    """

    path: Path
    claims: tuple[Claim, ...]
    identifiable: Mapping[str, float]
    bounds: Mapping[str, Mapping[str, tuple[float, float]]]
    identifiable_sd: Mapping[str, float] = field(default_factory=dict)

    def worst(self, relative: Mapping[str, float], sd: Mapping[str, float] | None = None) -> float:
        """The largest bound SD over its limit; 0 where the sheet limits none of the quantities.

        Parameters
        ----------
        relative, sd : mapping
            Bound SDs, relative to the value and as they are.
        """
        found = [abs(relative[q]) / limit for q, limit in self.identifiable.items() if q in relative]
        found += [(sd or {})[q] / limit for q, limit in self.identifiable_sd.items() if q in (sd or {})]
        return max(found, default=0.0)


def read(path: str | Path) -> Sheet:
    """Read and check a claims file.

    Raises
    ------
    InputError
        One line with the file, the claim, the field and the value, and what would be right.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read these claims ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({' '.join(str(error).split())})") from None
    unknown = set(content) - {"claim", "identifiable", "bounds"}
    if unknown:
        raise InputError(f"{path}: unknown table {sorted(unknown)[0]!r}; use claim, identifiable, bounds")
    limits = dict(content.get("identifiable", {}))
    plain = {name: limits.pop(name)["sd"] for name, value in list(limits.items())
             if isinstance(value, dict) and set(value) == {"sd"}}  # fmt: skip
    for name, value in (*limits.items(), *plain.items()):
        if not _is_number(value) or value <= 0:
            right = "a positive relative SD, or { sd = .. }"
            raise InputError(f"{path}: [identifiable] {name} = {value!r}; {right} is expected")
    bounds = {
        method: {name: _window(path, f"[bounds.{method}] {name}", pair) for name, pair in table.items()}
        for method, table in content.get("bounds", {}).items()
    }
    entries = content.get("claim", [])
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: no [[claim]]; an estimator without claims cannot be tried")
    claims = [claim for entry in entries for claim in _claims(path, entry)]
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise InputError(f"{path}: claim id {claim.id!r} occurs twice; ids are unique")
        seen.add(claim.id)
    return Sheet(path, tuple(claims), limits, bounds, plain)


def _claims(path: Path, entry: Mapping[str, Any]) -> list[Claim]:
    """One claim per quantity of an entry: lists of quantities (and measurands) stand for several claims."""
    name = entry.get("id")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: a [[claim]] without id; give each a short unique id")
    where = f"{path}: claim {name!r}"
    for key in ("estimator", "kind", "quantity", "limit"):
        if key not in entry:
            raise InputError(f"{where}: {key} is missing")
    for key, value in entry.items():
        if key not in _KEYS:
            raise InputError(f"{where}: unknown field {key!r}; one of {', '.join(sorted(_KEYS))}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InputError(f"{where}: {key} = {value!r}; one of {', '.join(_CHOICES[key])}")
    for key in ("estimator", "measurand", "protocol", "variant", "flag", "confounder", "image", "reason", "source"):
        if key in entry and not isinstance(entry[key], str):
            raise InputError(f"{where}: {key} = {entry[key]!r}; text is expected")
    if entry.get("expect") == "fails" and not (entry.get("reason") and entry.get("source")):
        raise InputError(f"{where}: a declared failure needs a reason and a source")
    if entry["kind"] == "sensitivity" and not (entry.get("confounder") and _is_number(entry.get("strength"))):
        raise InputError(f"{where}: a sensitivity needs a confounder and its strength")
    if entry["kind"] == "swaps" and not entry.get("image"):
        raise InputError(f"{where}: swaps are claimed of an image; name it: image = ...")
    if entry.get("image") and entry["kind"] not in ON_IMAGES:
        raise InputError(f"{where}: kind = {entry['kind']!r} with an image; one of {', '.join(ON_IMAGES)}")
    quantities = entry["quantity"] if isinstance(entry["quantity"], list) else [entry["quantity"]]
    if not quantities or not all(isinstance(q, str) and q for q in quantities):
        raise InputError(f"{where}: quantity = {entry['quantity']!r}; a name or a list of names is expected")
    snr = entry.get("snr", [])
    snr = snr if isinstance(snr, list) else [snr]
    if not all(_is_number(s) and s > 0 for s in snr):
        raise InputError(f"{where}: snr = {entry['snr']!r}; a positive number or a list of them is expected")
    window = _limit(where, entry["kind"], entry["limit"])
    rest = {k: v for k, v in entry.items() if k not in ("id", "quantity", "limit", "snr", "domain")}
    claim = Claim(
        id=name, quantity="", window=window, snr=tuple(float(s) for s in snr),
        domain=_domain(where, entry.get("domain", "all")), **rest,
    )  # fmt: skip
    if len(quantities) == 1:
        return [replace(claim, quantity=quantities[0])]
    return [replace(claim, id=f"{name}:{q}", quantity=q) for q in quantities]


def _limit(where: str, kind: str, value: Any) -> tuple[float, float]:
    """A number stands for the natural window of its kind: at least, at most, or within plus and minus."""
    if isinstance(value, list):
        return _window(None, f"{where}: limit", value)
    if not _is_number(value):
        raise InputError(f"{where}: limit = {value!r}; a number or [low, high] is expected")
    if kind == "efficiency":
        return (float(value), INFINITY)
    if kind in ("noise_bias", "noise_shift", "model_error", "relative_model_error", "recovery", "sensitivity"):
        return (-abs(float(value)), abs(float(value)))
    if kind in ("coverage", "prior_coverage"):
        raise InputError(f"{where}: limit = {value!r}; a coverage needs [low, high]")
    return (0.0, float(value))


def _domain(where: str, value: Any) -> Domain:
    if isinstance(value, str):
        value = {"words": value}
    if not isinstance(value, dict):
        raise InputError(f"{where}: domain = {value!r}; one of {', '.join(DOMAINS)}, or a table of ranges")
    value = dict(value)
    words = value.pop("words", "all")
    if words not in DOMAINS:
        raise InputError(f"{where}: domain = {words!r}; one of {', '.join(DOMAINS)}, or a table of ranges")
    outside = value.pop("outside", {})
    if not isinstance(outside, dict):
        raise InputError(f"{where}: domain.outside = {outside!r}; a table of ranges is expected")

    def pairs(table: Mapping[str, Any]) -> tuple[tuple[str, float, float], ...]:
        return tuple((name, *_window(None, f"{where}: domain.{name}", pair)) for name, pair in table.items())

    return Domain(words, pairs(value), pairs(outside))


def _window(path: Path | None, where: str, pair: Any) -> tuple[float, float]:
    where = f"{path}: {where}" if path else where
    if not (isinstance(pair, list) and len(pair) == 2 and all(_is_number(v) for v in pair)):
        raise InputError(f"{where} = {pair!r}; [low, high] is expected (inf for an open side)")
    if not pair[0] <= pair[1]:
        raise InputError(f"{where} = {pair!r}; low must not be above high")
    return float(pair[0]), float(pair[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _within(values: Mapping[str, float], limits: tuple[str, float, float]) -> bool:
    name, low, high = limits
    if name == "D_star_over_D" and {"D", "D_star"} <= set(values):
        value = values["D_star"] / values["D"]
    else:
        value = values.get(name, math.nan)
    # Ends belong to the range, whatever the last digit of a decimal fraction.
    slack = 1e-9 * abs(value)
    return low - slack <= value <= high + slack


def _range_text(limits: tuple[str, float, float]) -> str:
    name, low, high = limits
    symbol, scale, unit = SHOWN.get(name, (name, 1.0, ""))
    if high == INFINITY:
        return f"{symbol} >= {low * scale:g}{unit}"
    return f"{symbol} {f'{low * scale:g} to' if low > -INFINITY else '<='} {high * scale:g}{unit}"


def _window_text(window: tuple[float, float], unit: str) -> str:
    scale, text = PRINTED.get(unit, (1.0, "" if unit == "1" else f" {unit}"))
    low, high = (edge * scale for edge in window)
    if low == high == 0:
        return "none"
    if high == INFINITY:
        return f"at least {low:g}{text}"
    if low == -INFINITY or low == 0:
        return f"at most {high:g}{text}"
    return f"within +-{high:g}{text}" if low == -high else f"{low:g} to {high:g}{text}"


def quantity_unit(quantity: str) -> str:
    """Unit of a quantity, as the equations declare it."""
    from ..simulator import equations

    for equation in equations.registry.values():
        for known in equation.unknowns:
            if known.name == quantity:
                return known.unit
    return "1"
