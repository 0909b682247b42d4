"""What stands in the vials of each calibration set, and where the vials stand.

Solutions follow linear relaxivity: R1 = R1 of water + r1 c, R2 = R2 of water + r2 c, for each solute. A set varies
its first axis along x and its second along y. Every vial that relaxes in its own way is a pool (or a pair) of its own,
so that a set stays exact when it is averaged to larger voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..simulator import tissues
from .pools import Pool

DIAMETER = 10e-3  # m
PITCH = 14e-3  # m, from one vial to the next
EDGES = ("clean", "partial")
_LONGEST = 60.0  # s

# Magnetic moments squared (Bohr magnetons) of the free spin, g^2 S(S + 1): S = 5/2 of Mn2+, S = 1 of Ni2+.
_MOMENT = {"manganese": 35.0, "nickel": 8.0}
# Curie's law, mu0 N_A mu_B^2 / (3 k T) at 37 C, as ppm per mol/L for each squared Bohr magneton (CODATA 2018).
_CURIE = (4e-7 * math.pi * 6.02214076e23 * 9.2740100783e-24**2 / (3 * 1.380649e-23 * 310.15)) * 1e3 * 1e6


class Axis(NamedTuple):
    """A parameter that a set varies: its default values, bounds and unit."""

    values: tuple[float, ...]
    low: float
    high: float
    unit: str


class Rack:
    """Round vials in rows (along y) and columns (along x), and the share of each voxel that a vial fills.

    Parameters
    ----------
    rows, columns : int
        Vials along y and x.
    resolution : float
        Edge of a voxel (m).
    edges : str
        ``"clean"``: a voxel whose middle lies in the vial is filled wholly, any other not at all, so that every
        voxel is a pure sample. ``"partial"``: each voxel holds the share of it that the circle covers, exactly.
    """

    def __init__(self, rows: int, columns: int, resolution: float, edges: str = "clean") -> None:
        self.rows, self.columns, self.resolution, self.edges = rows, columns, resolution, edges
        self.y, self.x = (len(line(count, resolution)[0]) for count in (rows, columns))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return 1, self.y, self.x

    def vial(self, row: int, column: int) -> np.ndarray:
        """Volume fraction (z, y, x) of one vial."""
        middle = [(at + 0.5 - count / 2) * PITCH for at, count in ((row, self.rows), (column, self.columns))]
        y, x = ((np.arange(n) - (n - 1) / 2) * self.resolution - at
                for n, at in zip(self.shape[1:], middle, strict=True))
        if self.edges == "clean":
            return (np.hypot(y[:, None], x[None, :]) <= DIAMETER / 2).astype(float)[None]
        half = self.resolution / 2
        area = sum(sign * _quadrant(x[None, :] + a * half, y[:, None] + b * half, DIAMETER / 2)
                   for a, b, sign in ((1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)))
        beside, far = (np.hypot(np.maximum(np.abs(y) + sign * half, 0)[:, None], np.maximum(np.abs(x) + sign * half, 0))
                       for sign in (-1, 1))
        share = np.clip(area / self.resolution**2, 0, 1)  # rounding must not leave a trace of a vial
        return np.where(beside >= DIAMETER / 2, 0.0, np.where(far <= DIAMETER / 2, 1.0, share))[None]

    def blend(self, shares: np.ndarray, row: int) -> np.ndarray:
        """Volume fraction (z, y, x) of a component that fills a share of each vial of a row."""
        return np.asarray(sum(share * self.vial(row, column) for column, share in enumerate(shares)))


def line(count: int, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: which vial each voxel is nearest to, and how far (m) from the middle of that vial."""
    voxels = math.ceil(count * PITCH / resolution)
    position = (np.arange(voxels) - (voxels - 1) / 2) * resolution + count * PITCH / 2
    nearest = np.clip((position / PITCH).astype(int), 0, count - 1)
    return nearest, position - (nearest + 0.5) * PITCH


def _quadrant(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Area of the disc left of `x` and below `y`; four of them make the area within any rectangle."""
    x, y = (np.clip(np.broadcast_to(each, np.broadcast_shapes(x.shape, y.shape)), -radius, radius) for each in (x, y))

    def chord(t: np.ndarray) -> np.ndarray:
        """Area of the disc between its middle and the line at `t`."""
        return np.asarray(radius**2 * np.arcsin(t / radius) + t * np.sqrt(radius**2 - t**2))

    half = math.pi * radius**2 / 2
    corner_inside = half / 2 + (chord(x) + chord(y)) / 2 + x * y
    right, above = x >= 0, y >= 0
    outside = np.where(right & above, chord(x) + chord(y),
                       np.where(right, half + chord(y), np.where(above, half + chord(x), 0.0)))
    return np.where(x**2 + y**2 <= radius**2, corner_inside, outside)


def relaxation(field: float, **solutes: float) -> tuple[float, float]:
    """T1 and T2 (s) of water with solutes: ``manganese`` and ``nickel`` (mol/L), ``agar`` (mass per volume, g/mL)."""
    rates = [1 / tissues.value(f"pore_water.{name}_bulk", field) for name in ("T1", "T2")]
    for solute, amount in solutes.items():
        amount *= 100 if solute == "agar" else 1  # its relaxivity counts per cent
        rates = [rate + amount * tissues.value(f"{solute}.{name}", field)
                 for rate, name in zip(rates, ("r1", "r2"), strict=True)]
    return 1 / rates[0], 1 / rates[1]


def manganese_for(T2: float, field: float, where: str) -> float:
    """Concentration of MnCl2 (mol/L) that gives `T2` (s)."""
    longest = tissues.value("pore_water.T2_bulk", field)
    if T2 > longest:
        raise InputError(f"{where}: T2* is {T2:g} s, longer than that of water without MnCl2, {longest:g} s")
    return (1 / T2 - 1 / longest) / tissues.value("manganese.r2", field)


def susceptibility(**solutes: float) -> float:
    """Susceptibility (ppm) of water with paramagnetic ions (mol/L), by Curie's law for their free spins."""
    return tissues.value("water.chi") + sum(_CURIE * _MOMENT[ion] * amount for ion, amount in solutes.items())


def _water(name: str, volume: np.ndarray, T1: float, T2: float, light: float = 1.0, chi: float | None = None,
           **more: Any) -> Pool:
    return Pool(name, "solution", volume * (tissues.value("water.density") * light), volume, T1_observed=T1, T2=T2,
                chi=tissues.value("water.chi") if chi is None else chi, D=tissues.value("water.D"), **more)


def _pdff(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """Oil in a 2 % agar gel, with R2' that brings water and oil to one R2*; each fraction a proton fraction."""
    water, oil = (tissues.value(f"{name}.density") for name in ("water", "oil"))
    share = axes["pdff"]
    total = 1 / (share / oil + (1 - share) / water)  # mol 1H of both in a litre
    litres = {"oil": share * total / oil, "water": (1 - share) * total / water}
    T1, T2 = ({name: tissues.value(f"{tissue}.{time}", field) for name, tissue in (("water", "agar"), ("oil", "oil"))}
              for time in ("T1", "T2"))
    shift, area = tissues.spectrum("fat_marrow")
    pools = []
    for row, rate in enumerate(axes["r2star"]):
        reversible = {name: float(rate) - 1 / T2[name] for name in T2}
        if min(reversible.values()) < 0:
            raise InputError(f"{where}: r2star is {rate:g} 1/s, should be at least {1 / min(T2.values()):.3g}, "
                             "the R2 of the emulsion")
        volume = {name: rack.blend(part, row) for name, part in litres.items()}
        pools.append(_water(f"water_{rate:g}", volume["water"], T1["water"], T2["water"], R2_prime=reversible["water"]))
        pools.append(Pool(f"oil_{rate:g}", "fat", volume["oil"] * oil, volume["oil"], T1_observed=T1["oil"],
                          T2=T2["oil"], R2_prime=reversible["oil"], chi=tissues.value("fat.chi"),
                          D=tissues.value("fat.D"), shift=shift, peak_area=area))
    return pools


def _r2star(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """Solutions of MnCl2, whose decay is irreversible: R2* = R2."""
    pools = []
    for column, rate in enumerate(axes["r2star"]):
        ions = manganese_for(1 / float(rate), field, where)
        T1, _ = relaxation(field, manganese=ions)
        pools.append(_water(f"manganese_{rate:g}", rack.vial(0, column), T1, 1 / float(rate),
                            chi=susceptibility(manganese=ions)))
    return pools


def _relaxation(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """NiCl2 in agar: the nickel sets T1, the agar T2."""
    pools = []
    for row, agar in enumerate(axes["agar"]):
        for column, nickel in enumerate(axes["nickel"]):
            T1, T2 = relaxation(field, nickel=float(nickel), agar=float(agar))
            pools.append(_water(f"nickel_{nickel * 1e3:g}_agar_{agar * 100:g}", rack.vial(row, column), T1, T2,
                                chi=susceptibility(nickel=float(nickel))))
    return pools


def _ute(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """MnCl2 in mixtures of H2O and D2O: the T2* of bone water, at the density of bone water."""
    pools = []
    for column, T2 in enumerate(axes["T2star"]):
        ions = manganese_for(float(T2), field, where)
        T1, _ = relaxation(field, manganese=ions)
        for row, light in enumerate(axes["light_water"]):
            pools.append(_water(f"manganese_{T2 * 1e3:g}_light_{light:g}", rack.vial(row, column), T1, float(T2),
                                light=float(light), chi=susceptibility(manganese=ions)))
    return pools


def _phosphorus(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """Phosphate in D2O, which has no 1H: 31P alone, of stated T2*; T1 that of phosphate without a relaxation agent."""
    moles = axes["phosphorus"]
    T1 = tissues.value("phosphate.T1", field)
    for T2 in axes["T2star"]:
        if T2 > tissues.value("phosphate.T2", field):
            raise InputError(f"{where}: T2* is {T2:g} s, longer than that of phosphate in water, "
                             f"{tissues.value('phosphate.T2', field):g} s")
    return [Pool(f"phosphate_{T2 * 1e3:g}", "phosphorus", rack.blend(moles, row), rack.blend(np.ones(len(moles)), row),
                 T1_observed=T1, T2=float(T2), chi=tissues.value("water.chi"), D=0.0, shift=np.zeros(1))
            for row, T2 in enumerate(axes["T2star"])]


def _mt(rack: Rack, axes: Mapping[str, np.ndarray], field: float, where: str) -> list[Pool]:
    """Agar gels as water and macromolecules that exchange, in detailed balance.

    The intrinsic T1 of the water is the one with which the slow eigenmode of both pools has the T1 that relaxivity
    says one observes (Henkelman 1993, doi:10.1002/mrm.1910290607); with the observed T1 in its place the gel would
    relax faster than agar does.
    """
    pools = []
    rate_out = tissues.value("agar.exchange")  # macromolecule to water
    T1_macromolecule = tissues.value("agar.T1_macromolecule")
    for column, agar in enumerate(axes["agar"]):
        volume, per_cent = rack.vial(0, column), 100 * float(agar)
        T1, T2 = relaxation(field, agar=float(agar))
        water, gel = f"water_agar_{per_cent:g}", f"macromolecule_agar_{per_cent:g}"
        if agar == 0:
            pools.append(_water(water, volume, T1, T2))
            continue
        filled, ratio = (per_cent * tissues.value(f"agar.{name}") for name in ("volume", "macromolecule_ratio"))
        rate_in = rate_out * ratio  # detailed balance: as many spins go as come
        gap = 1 / T1_macromolecule - 1 / T1
        intrinsic = 1 / T1 - rate_in * gap / (gap + rate_out)
        spins = volume * ((1 - filled) * tissues.value("water.density"))
        pools.append(Pool(water, "solution", spins, volume * (1 - filled), T1_intrinsic=1 / intrinsic, T2=T2,
                          chi=tissues.value("water.chi"), D=tissues.value("water.D"), exchange={gel: rate_in}))
        pools.append(Pool(gel, "macromolecule", spins * ratio, volume * filled, T1_intrinsic=T1_macromolecule,
                          T2=tissues.value("agar.T2_macromolecule"), chi=tissues.value("water.chi"), D=0.0,
                          exchange={water: rate_out}))
    return pools


class Set(NamedTuple):
    """A calibration set: its axes (along x, then y) and the recipe of its pools."""

    axes: Mapping[str, Axis]
    pools: Callable[[Rack, Mapping[str, np.ndarray], float, str], list[Pool]]


_T2STAR = Axis((0.3e-3, 0.4e-3, 0.5e-3, 1e-3, 2e-3, 4e-3), 10e-6, _LONGEST, "s")
_AGAR = Axis((0.0, 0.01, 0.02, 0.04, 0.06, 0.08), 0.0, 0.12, "g/mL")
SETS: dict[str, Set] = {
    "pdff": Set({"pdff": Axis((0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), 0.0, 1.0, ""),
                 "r2star": Axis((25.0, 50.0, 100.0, 200.0), 1.0, 1e4, "1/s")}, _pdff),
    "r2star": Set({"r2star": Axis((20.0, 50.0, 100.0, 200.0, 400.0, 800.0), 0.1, 1e5, "1/s")}, _r2star),
    "relaxation": Set({"nickel": Axis((0.0, 0.5e-3, 1e-3, 2e-3, 5e-3, 10e-3), 0.0, 1.0, "mol/L"),
                       "agar": Axis((0.0, 0.01, 0.02, 0.04), 0.0, 0.12, "g/mL")}, _relaxation),
    "ute": Set({"T2star": _T2STAR, "light_water": Axis((0.05, 0.1, 0.2, 0.4, 1.0), 0.0, 1.0, "")}, _ute),
    "phosphorus": Set({"phosphorus": Axis((0.5, 1.0, 2.0, 4.0, 6.0), 0.0, 15.0, "mol 31P/L"),
                       "T2star": Axis((0.2e-3, 0.5e-3, 2e-3), 10e-6, _LONGEST, "s")}, _phosphorus),
    "mt": Set({"agar": _AGAR}, _mt),
}


def axes_of(kind: str) -> Sequence[str]:
    """Names of the axes of a set, along x and then y."""
    return tuple(SETS[kind].axes)
