"""What a litre of each tissue holds: volume fractions of tissues in, spin pools out.

Every recipe fills a map of volume fractions with the pools of one tissue. The volumes of its pools add to the
volume that was given, and no pool holds more 1H than water in its place would; the tissue numbers come from
``simulator.tissues`` at the field and for the condition asked for. R2' is zero in every pool here unless it is given: a
spin echo refocuses it, and where the field of the structure is applied it would count twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..simulator import tissues, triglyceride
from .pools import Pool

# Highest diffusivity that water at body temperature can have, with room (free water: 3.0e-3 mm2/s).
FASTEST_D = 3.5e-3
FASTEST_D_STAR = 1.0


def composition(pdff: Any, f: Any = 0.0, water: str = "marrow_water") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Concentrations and volumes that make up one litre of soft tissue of given fractions.

    The fractions count protons; a litre of water tissue, of blood and of fat hold different numbers of them.
    With n protons in all, fat takes ``n pdff / c_fat`` litres, blood ``n (1 - pdff) f / c_blood``, tissue water
    the rest ``n (1 - pdff)(1 - f) / c_water``, and the three volumes fill the litre: that gives n.

    Parameters
    ----------
    pdff : float or array
        Fat 1H over fat and water 1H.
    f : float or array
        Blood 1H over blood and tissue-water 1H.
    water : str
        Tissue whose density the tissue water has.

    Returns
    -------
    dict
        For ``"water"``, ``"blood"``, ``"fat"``: (mol 1H, litres) per litre of tissue.
    """
    share = {
        "water": (1 - np.asarray(pdff, float)) * (1 - np.asarray(f, float)),
        "blood": (1 - np.asarray(pdff, float)) * np.asarray(f, float),
        "fat": np.asarray(pdff, float) * np.ones_like(np.asarray(f, float)),
    }
    concentration = {name: tissues.value(f"{tissue}.density")
                     for name, tissue in (("water", water), ("blood", "blood"), ("fat", "fat"))}
    litres = sum(share[name] / concentration[name] for name in share)
    return {name: (share[name] / litres, share[name] / concentration[name] / litres) for name in share}


def marrow(
    volume: np.ndarray,
    *,
    pdff: Any,
    f: Any,
    field: float,
    condition: str | None = None,
    spectrum: str | tuple[Any, Any] | None = None,
    ndb: float | None = None,
    nmidb: float | None = None,
    chain_length: float | None = None,
    **properties: Any,
) -> list[Pool]:
    """Marrow that fills `volume` of each voxel: pools ``marrow_water``, ``blood`` and ``fat``.

    Parameters
    ----------
    volume : array, (z, y, x)
        Volume fraction of marrow.
    pdff, f : float or array (z, y, x)
        Proton density fat fraction and spin-density perfusion fraction.
    field : float
        Field strength (T).
    condition : str, optional
        Condition whose tissue values stand where no property is given.
    spectrum : str or (shift, area), optional
        Fat spectrum: a name of ``tissues.spectra()``, or shifts (ppm) and relative areas; default
        ``"fat_marrow"``, or that of the triglyceride given by `ndb`, `nmidb` and `chain_length`.
    ndb, nmidb, chain_length : float, optional
        Double bonds, methylene-interrupted double bonds and mean chain length of the triglyceride; one of them
        given, the others take their tissue value.
    **properties : float or array (z, y, x)
        ``D D_star D_fat`` (mm2/s), ``T1_water T2_water T1_blood T2_blood T1_fat T2_fat`` (s), default the
        tissue value; ``kurtosis`` of marrow water, default 0 (Gaussian diffusion); ``R2_prime`` (1/s) of all
        three pools, default 0.

    Raises
    ------
    InputError
        A spectrum that is none, a composition no triglyceride has, a field or condition without data.
    """

    def given(name: str, path: str | None = None) -> Any:
        found = properties.get(name)
        if found is None:
            return 0.0 if path is None else tissues.value(path, field, condition)
        return found

    part = composition(pdff, f)
    shift, area = _spectrum(spectrum, ndb=ndb, nmidb=nmidb, chain_length=chain_length)
    return [
        Pool("marrow_water", "marrow_water", volume * part["water"][0], volume * part["water"][1],
             T1_observed=given("T1_water", "marrow_water.T1"), T2=given("T2_water", "marrow_water.T2"),
             chi=tissues.value("water.chi"), R2_prime=given("R2_prime"),
             D=given("D", "marrow_water.D"), kurtosis=given("kurtosis")),
        Pool("blood", "blood", volume * part["blood"][0], volume * part["blood"][1],
             T1_observed=given("T1_blood", "blood.T1"), T2=given("T2_blood", "blood.T2"),
             chi=tissues.value("blood.chi"), R2_prime=given("R2_prime"),
             D_star=given("D_star", "blood.D_star")),
        Pool("fat", "fat", volume * part["fat"][0], volume * part["fat"][1],
             T1_observed=given("T1_fat", "fat.T1"), T2=given("T2_fat", "fat.T2"),
             chi=tissues.value("fat.chi"), R2_prime=given("R2_prime"),
             D=given("D_fat", "fat.D"), shift=shift, peak_area=area),
    ]


def _spectrum(spectrum: str | tuple[Any, Any] | None, **chain: float | None) -> tuple[np.ndarray, np.ndarray]:
    if any(value is not None for value in chain.values()):
        if spectrum is not None:
            raise InputError("marrow: spectrum is given beside ndb, nmidb or chain_length; give one of the two")
        found = {name: tissues.value(f"marrow.{name}") if value is None else value for name, value in chain.items()}
        return triglyceride.spectrum(**found)
    if spectrum is None or isinstance(spectrum, str):
        return tissues.spectrum(spectrum or "fat_marrow")
    shift, area = (np.atleast_1d(np.asarray(each, dtype=float)) for each in spectrum)
    if shift.ndim != 1 or shift.shape != area.shape or not area.sum() > 0 or (area < 0).any():
        raise InputError("marrow: spectrum should be shifts (ppm) and as many areas, none negative")
    return shift, area / area.sum()


def bone(
    volume: np.ndarray, name: str, *, field: float, condition: str | None = None, mobile: float | None = None
) -> list[Pool]:
    """Solid bone that fills `volume` of each voxel: its bound water, its collagen, and its mineral.

    A litre of matrix is water bound to collagen (at the density of water), mineral, and organic matter for the
    rest; the non-exchangeable 1H of the collagen are spins too, and the mineral's spins are its 31P.

    Parameters
    ----------
    volume : array, (z, y, x)
        Volume fraction of bone matrix, pores excluded.
    name : str
        ``"cortical"`` or ``"trabecular"``: the pools are called after it.
    field : float
        Field strength (T).
    condition : str, optional
    mobile : float, optional
        Bound water (mol 1H per litre of matrix), default the tissue value; mineral and collagen give way alike.
    """

    def value(path: str, at: float | None = None) -> float:
        return tissues.value(path, field if at is None else at, condition)

    water = value("bound_water.density") if mobile is None else mobile
    filled = water / value("water.density")
    mineral, organic = value("mineral.volume"), value("macromolecule.volume")
    scale = (1 - filled) / (mineral + organic)
    chi = value("bone.chi")  # of bone as a whole: what its parts have on their own is not known
    return [
        Pool(f"{name}_bound_water", "bound_water", volume * water, volume * filled,
             T1_observed=value("bound_water.T1"), T2=value("bound_water.T2"), chi=chi,
             D=0.0),  # held in the collagen: it does not diffuse over the length an echo sees
        Pool(f"{name}_collagen", "macromolecule", volume * (value("macromolecule.density") * scale),
             volume * (organic * scale), T1_observed=value("macromolecule.T1"), T2=value("macromolecule.T2"), chi=chi,
             D=0.0),
        Pool(f"{name}_mineral", "mineral", volume * (value("mineral.density") * scale), volume * (mineral * scale),
             T1_observed=value("mineral.T1"), T2=value("mineral.T2star"), chi=chi, D=0.0,
             shift=np.zeros(1)),  # 31P, on its own scale
    ]


def muscle(volume: np.ndarray, *, pdff: Any, field: float, condition: str | None = None) -> list[Pool]:
    """Muscle with fat between its fibres: pools ``muscle_water`` and ``muscle_fat``; `pdff` a number or a map."""
    part = composition(pdff, 0.0, water="muscle_water")
    return [
        _water("muscle_water", "muscle_water", volume * part["water"][1], "muscle_water", field, condition,
               chi=tissues.value("muscle_water.chi")),
        *adipose(volume * part["fat"][1], field=field, name="muscle_fat"),
    ]


def adipose(volume: np.ndarray, *, field: float, name: str = "adipose") -> list[Pool]:
    """Fat without water that fills `volume` of each voxel: one pool called `name`."""
    shift, area = tissues.spectrum("fat_marrow")
    return [Pool(name, "fat", volume * tissues.value("fat.density"), volume, T1_observed=tissues.value("fat.T1", field),
                 T2=tissues.value("fat.T2", field), chi=tissues.value("fat.chi"), D=tissues.value("fat.D"),
                 shift=shift, peak_area=area)]


def csf(volume: np.ndarray, *, field: float) -> list[Pool]:
    """Cerebrospinal fluid."""
    return [_water("csf", "csf", volume, "csf", field, None)]


def nucleus(volume: np.ndarray, *, field: float, condition: str | None = None) -> list[Pool]:
    """Nucleus pulposus of an intervertebral disc."""
    return [_water("disc_nucleus", "solution", volume, "disc_nucleus", field, condition)]


def annulus(volume: np.ndarray, *, field: float, condition: str | None = None) -> list[Pool]:
    """Annulus fibrosus of an intervertebral disc."""
    return [_water("disc_annulus", "solution", volume, "disc_annulus", field, condition)]


def vein(volume: np.ndarray, *, field: float) -> list[Pool]:
    """Blood in a vessel wide enough to see; it flows as blood in the marrow does."""
    return [Pool("vein", "blood", volume * tissues.value("blood.density"), volume,
                 T1_observed=tissues.value("blood.T1", field), T2=tissues.value("blood.T2", field),
                 chi=tissues.value("blood.chi"), D_star=tissues.value("blood.D_star"))]


def solution(
    volume: np.ndarray, name: str, *, T1: Any, T2: Any, D: Any = None, light_water: float = 1.0, R2_prime: Any = 0.0
) -> list[Pool]:
    """Water in a vial, of given relaxation times (s).

    Parameters
    ----------
    volume : array, (z, y, x)
    name : str
        Of the pool.
    T1, T2 : float or array
        Relaxation times (s).
    D : float or array, optional
        Diffusivity (mm2/s); default that of free water.
    light_water : float
        Share of H2O in a mixture with D2O, which has no 1H signal.
    R2_prime : float or array
        Reversible rate (1/s).
    """
    return [Pool(name, "solution", volume * (tissues.value("water.density") * light_water), volume,
                 T1_observed=T1, T2=T2, R2_prime=R2_prime, chi=tissues.value("water.chi"),
                 D=tissues.value("water.D") if D is None else D)]


def _water(
    name: str, kind: str, volume: np.ndarray, tissue: str, field: float, condition: str | None, chi: float | None = None
) -> Pool:
    return Pool(name, kind, volume * tissues.value(f"{tissue}.density", field, condition), volume,
                T1_observed=tissues.value(f"{tissue}.T1", field, condition),
                T2=tissues.value(f"{tissue}.T2", field, condition),
                chi=tissues.value("water.chi") if chi is None else chi,
                D=tissues.value(f"{tissue}.D", field, condition))
