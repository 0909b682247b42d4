"""How a preview prints what a phantom holds: names, units a reader knows, numbers, and links to sources."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .phantom import Phantom
from .pools import SPACE

DASH = "—"  # what a missing value prints as
DIRECTIONS = {"R": "right", "A": "front", "S": "head"}

# Colour scales, perceptually even and safe for any colour vision, one a family of quantities.
_FRACTION, _TIME, _MOTION, _AMOUNT = "viridis", "plasma", "cividis", "magma"


@dataclass(frozen=True)
class Shown:
    """How a quantity is printed: label, meaning, unit, the factor from stored to printed, colour scale."""

    label: str
    meaning: str
    unit: str
    scale: float
    colours: str


_LABELS = {
    "S0": "Visible ¹H density", "f": "Perfusion fraction", "D": "D", "D_star": "D*", "pdff": "PDFF", "bvtv": "BV/TV",
    "porosity": "Porosity", "bound_water": "Bound water", "pore_water": "Pore water", "total_water": "Total water",
    "bound_fraction": "Bound water fraction", "T2star_bound": "T2* of bound water", "T2star_pore": "T2* of pore water",
    "T2star_pore_log_mean": "T2* of pore water, log mean", "T2star_pore_log_width": "T2* of pore water, log width",
    "mmf": "Macromolecular fraction", "r2star": "R2*", "r2star_water": "R2* of water", "r2star_fat": "R2* of fat",
    "ndb": "Double bonds", "nmidb": "Methylene-interrupted double bonds", "unsaturation_index": "Unsaturation index",
    "f_sfa": "Saturated fatty acids", "f_mufa": "Monounsaturated fatty acids", "f_pufa": "Polyunsaturated fatty acids",
    "phosphorus_density": "Phosphorus", "mineral_density": "Mineral density", "T1": "T1", "T2": "T2",
}
_PLAIN = ("ndb", "nmidb", "unsaturation_index", "chain_length", "degree_of_anisotropy", "kurtosis",
          "T2star_pore_log_width")  # no per cent
_UNITS = {
    "1": ("%", 1e2, _FRACTION), "s": ("ms", 1e3, _TIME), "mm2/s": ("10⁻³ mm²/s", 1e3, _MOTION),
    "1/s": ("s⁻¹", 1.0, "inferno"), "mol 1H/L": ("mol ¹H/L", 1.0, _AMOUNT), "mol 31P/L": ("mol ³¹P/L", 1.0, _AMOUNT),
    "mol/L": ("mol/L", 1.0, _AMOUNT), "mg/cm3": ("mg/cm³", 1.0, _AMOUNT), "a.u.": ("", 1.0, _AMOUNT),
}
# What a phantom measures of itself, by the end of its name: label of the unit, factor; the longest end counts.
_MEASURED = {
    "bvtv": ("%", 1e2), "porosity": ("%", 1e2), "fraction": ("%", 1e2), "pdff": ("%", 1e2),
    "trabecular_thickness": ("µm", 1e6), "trabecular_spacing": ("µm", 1e6), "canal_diameter": ("µm", 1e6),
    "connectivity_density": ("mm⁻³", 1e-9), "canal_density": ("mm⁻²", 1e-6), "thickness": ("mm", 1e3),
    "spacing": ("mm", 1e3), "diameter": ("mm", 1e3), "radius": ("mm", 1e3), "width": ("mm", 1e3),
    "depth": ("mm", 1e3), "length": ("mm", 1e3), "height": ("mm", 1e3), "area": ("mm²", 1e6), "volume": ("cm³", 1e6),
    "angle": ("°", 1.0), "lordosis": ("°", 1.0), "lordosis_L1_L4": ("°", 1.0),
    "azimuth": ("°", 1.0), "crimp": ("°", 1.0),
}
_BASIC = ("name", "seed", "condition", "field_strength", "voxel_size", "affine", "parameters", "tissue_numbers")
_SYMBOLS = {"D": "D", "D_star": "D*", "chi": "χ", "ndb": "ndb", "nmidb": "nmidb", "r1": "r1", "r2": "r2", "f": "f"}
_TITLES = {"cortical": "Tibial shaft", "trabecular": "Trabecular bone", "vertebra": "Vertebral body",
           "spine": "Lumbar spine", "femur": "Proximal femur", "vials": "Calibration vials", "marrow_block": "Marrow"}
_EXPONENT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_LINK = re.compile(r"doi:\s*(?P<doi>10\.\S+)|PMID:?\s*(?P<pmid>\d+)|(?P<url>https?://\S+)")


def words(name: str) -> str:
    """A name of the code as a reader says it."""
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    known = {"csf": "CSF", "ute": "UTE", "pdff": "PDFF", "ivim": "IVIM", "mt": "MT", "bvtv": "BV/TV"}
    parts = [known.get(part, part.replace("star", "*") if part[:2] in ("T2", "r2", "R2") else part)
             for part in name.strip("_").split("_")]
    text = " ".join(parts)
    return text[:1].upper() + text[1:]


def _inside(name: str) -> str:
    """A name as it stands within a line: small, where it is no abbreviation."""
    text = words(name)
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def title(name: str) -> str:
    """What a phantom shows, by its name."""
    return _TITLES.get(name, words(name))


def number(value: float, digits: int = 3) -> str:
    """A number in so many digits, with a true minus and powers of ten as people write them."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        places = digits if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{places}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa).replace("-", "−")
    power = f"10{str(int(exponent)).translate(_EXPONENT)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def quantity(name: str, attrs: Mapping[str, Any]) -> Shown:
    """How a truth map is printed: fractions in per cent, times in ms, diffusivities in 1e-3 mm2/s."""
    unit, meaning = str(attrs.get("units", "")), str(attrs.get("long_name", ""))
    label = _LABELS.get(name, words(name))
    if name in _PLAIN:
        return Shown(label, meaning, "", 1.0, "cividis")
    shown, scale, colours = _UNITS.get(unit, (_pretty(unit), 1.0, "viridis"))
    if name == "pdff":
        colours = "inferno"
    return Shown(label, meaning, shown, scale, colours)


def facts(phantom: Phantom) -> list[tuple[str, str]]:
    """What identifies a phantom, as pairs of a name and a value."""
    pools, attrs = phantom.pools, phantom.pools.attrs
    edges = np.asarray(attrs["voxel_size"], dtype=float)[::-1] * 1e3
    size = number(edges[0]) if np.ptp(edges) < 1e-9 else " × ".join(number(edge) for edge in edges)
    grid = " × ".join(str(pools.sizes[dim]) for dim in reversed(SPACE))
    found = [("condition", str(attrs["condition"]))] if attrs["condition"] else []
    found += [("seed", str(attrs["seed"])), ("field", f"{number(phantom.field_strength)} T"),
              ("voxel", f"{size} mm"), ("grid", grid)]
    return found + [(_inside(key), _parameter(key, value))
                    for key, value in json.loads(attrs["parameters"] or "{}").items()]


def command(phantom: Phantom) -> str:
    """The call that makes this phantom again; empty where the phantom has no function of its name."""
    from . import registry

    if phantom.name not in registry:
        return ""
    attrs = phantom.pools.attrs
    known: dict[str, Any] = {"condition": attrs["condition"], "seed": attrs["seed"], "field": phantom.field_strength,
                             "resolution": float(np.asarray(attrs["voxel_size"])[0])}
    known |= json.loads(attrs["parameters"] or "{}")
    accepted = _accepted(phantom.name)
    told = [f"--set {key}={value:g}" if isinstance(value, float) else f"--set {key}={value}"
            for key, value in known.items()
            if key in accepted and accepted[key] != value and isinstance(value, str | int | float)]
    return " ".join(["bonemri phantom", phantom.name, *told])


def _accepted(name: str) -> dict[str, Any]:
    import inspect

    from . import registry

    return {key: value.default for key, value in inspect.signature(registry[name]).parameters.items()}


def pools(dataset: xr.Dataset, colours: Mapping[str, str]) -> list[dict[str, str]]:
    """The table of pools: what a litre of each holds, and how it relaxes."""
    rows: list[dict[str, str]] = []
    for row, name in enumerate(dataset["pool"].values):
        density, volume = dataset["density"].values[row], dataset["volume_fraction"].values[row]
        total = float(volume.sum())
        kind = str(dataset["kind"].values[row])
        nucleus = "³¹P" if kind in ("phosphorus", "mineral") else "¹H"
        inside = volume > 0
        areas = dataset["peak_area"].values[row]
        shift = dataset["shift"].values[row][areas > 0]
        shifts = number(float(shift[0])) if shift.size == 1 else f"{shift.size} peaks"
        motion = "D_star" if kind == "blood" else "D"
        rows.append({
            "name": words(str(name)), "kind": kind.replace("_", " "), "colour": colours[str(name)],
            "density": f"{number(float(density.sum()) / total)} {nucleus}" if total > 0 else DASH,
            "T1": _span(dataset["T1_observed"].values[row], inside, 1e3),
            "T2": _span(dataset["T2"].values[row], inside, 1e3),
            "R2_prime": _span(dataset["R2_prime"].values[row], inside, 1.0),
            "D": _span(dataset[motion].values[row], inside, 1e3),
            "chi": _span(dataset["chi"].values[row], inside, 1.0),
            "shift": shifts,
        })
    return rows


def numbers(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tissue numbers that went into a phantom, each with its range and the links of its source."""
    rows: list[dict[str, Any]] = []
    for record in json.loads(attrs.get("tissue_numbers") or "[]"):
        tissue, _, name = str(record["name"]).partition(".")
        low, high, value = (record.get(key) for key in ("low", "high", "value"))
        spread = low is not None and high is not None and low != high
        rows.append({
            "id": f"n{len(rows) + 1}", "tissue": words(tissue), "name": words(name),
            "key": record["name"], "raw": value, "value": number(value, 4),
            "range": f"{number(low)} – {number(high)}" if spread else "", "unit": _pretty(str(record["unit"])),
            "field": f"{number(float(record['field']))} T" if record.get("field") else "any field",
            "condition": record.get("condition") or "", "unverified": bool(record.get("unverified")),
            "source": _linked(str(record["source"])),
        })
    return rows


def measured(attrs: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the finished phantom measures, beside what was asked for: by a parameter, else by a tissue number."""
    asked = json.loads(attrs.get("parameters") or "{}")
    by_key: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        tissue, _, name = str(source["key"]).partition(".")
        for key in (name, f"{tissue}_{name}"):
            by_key.setdefault(key, source)
    rows = []
    for key, value in attrs.items():
        if key in _BASIC or isinstance(value, str) or np.ndim(value):
            continue
        unit, scale = measured_unit(key)
        row = {"name": "BV/TV" if key == "bvtv" else words(key), "value": number(float(value) * scale), "unit": unit,
               "asked": "", "by": "", "link": ""}
        if isinstance(asked.get(key), int | float):
            row |= {"asked": number(float(asked[key]) * scale), "by": "as asked"}
        elif key in by_key:
            row |= {"asked": number(float(by_key[key]["raw"]) * scale), "by": "tissue number",
                    "link": str(by_key[key]["id"])}
        rows.append(row)
    return rows


def measured_unit(name: str) -> tuple[str, float]:
    """Printed unit of a measured quantity, and the factor from SI."""
    ends = [end for end in _MEASURED if name == end or name.endswith("_" + end)]
    return _MEASURED[max(ends, key=len)] if ends else ("", 1.0)


def _parameter(key: str, value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        low, high = _parameter(key, min(value)), _parameter(key, max(value))
        return f"{len(value)} values, {low} to {high}" if len(value) > 1 else low
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if key in ("D", "D_star"):
        return f"{number(1e3 * value)}·10⁻³ mm²/s"
    unit, scale = measured_unit(key)
    return f"{number(value * scale)}{'' if unit == '°' else ' '}{unit}".rstrip()


def _span(values: np.ndarray, inside: np.ndarray, scale: float) -> str:
    """A property as one number, or as its range where it varies in space."""
    found = np.asarray(values)[inside] if np.ndim(values) else np.atleast_1d(values)
    found = found[np.isfinite(found)] * scale
    if not found.size:
        return DASH
    low, high = float(found.min()), float(found.max())
    return number(low) if high - low <= 1e-9 * abs(high) else f"{number(low)} – {number(high)}"


def _linked(source: str) -> list[tuple[str, str]]:
    """A citation as pairs of text and address; the address is empty for plain text."""
    parts: list[tuple[str, str]] = []
    end = 0
    for match in _LINK.finditer(source):
        found = match.group().rstrip(".,;)")
        parts.append((source[end : match.start()], ""))
        if match["doi"]:
            address = "https://doi.org/" + match["doi"].rstrip(".,;")
        else:
            address = f"https://pubmed.ncbi.nlm.nih.gov/{match['pmid']}/" if match["pmid"] else found
        parts.append((found, address))
        end = match.start() + len(found)
    parts.append((source[end:], ""))
    return [(text, address) for text, address in parts if text]


def _pretty(unit: str) -> str:
    """A unit with the signs that print has and files do not."""
    if unit == "1":
        return ""
    for plain, sign in (("mm2", "mm²"), ("cm2", "cm²"), ("cm3", "cm³"), ("1H", "¹H"), ("31P", "³¹P"), ("/C", "/°C")):
        unit = unit.replace(plain, sign)
    return {"1/s": "s⁻¹", "1/m2": "m⁻²", "1/m3": "m⁻³", "m2": "m²", "m3": "m³", "deg": "°",
            "L/(mol s)": "L mol⁻¹ s⁻¹"}.get(unit, unit)
