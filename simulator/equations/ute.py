"""Ultrashort echo times: spokes after a preparation, and the decay of bound and pore water.

Assumptions common to the page: instantaneous excitation, transverse magnetisation fully spoiled before the next pulse,
pools without exchange. Real pulses of bone sequences last as long as T2 of bound water: there the numerical engines
judge these equations.
"""

from ..model import Quantity
from ..symbolic import Equation
from .relaxation import B1, S0, TE, R2star

T1 = Quantity("T1", "s", 0.03, 5.0, "longitudinal relaxation time", latex="T_1", start=(0.12, 0.3, 1.0))
kept = Quantity(
    "kept",
    "1",
    -1.0,
    1.0,
    "Mz after over Mz before the preparation: -1 inverts, 0 saturates, 1 does nothing",
    latex="Q",
    start=(-0.9, 0.0, 0.7),
)
bound_fraction = Quantity("bound_fraction", "1", 0.0, 1.0, "bound water over all water", latex="f_b", start=(0.5, 0.8))
T2star_bound = Quantity(
    "T2star_bound", "s", 1e-4, 1e-3, "T2* of bound water", latex=r"T_{2,\mathrm{b}}^*", start=(3e-4, 5e-4)
)
T2star_pore = Quantity(
    "T2star_pore", "s", 1e-3, 0.1, "T2* of pore water", latex=r"T_{2,\mathrm{p}}^*", start=(2e-3, 5e-3)
)

TI = Quantity("TI", "s", 0.02, 0.5, "from the middle of the preparation to that of its spokes", latex=r"T_\mathrm{I}")
TR = Quantity("TR", "s", 0.1, 10.0, "from preparation to preparation", latex=r"T_\mathrm{R}")
spokes_per_preparation = Quantity(
    "spokes_per_preparation", "1", 1.0, 30.0, "spokes read after one preparation", latex="N"
)
spoke_TR = Quantity("spoke_TR", "s", 2e-3, 0.02, "from spoke to spoke", latex=r"\tau")
flip_angle = Quantity("flip_angle", "rad", 0.0, 0.9, "nominal flip angle of a spoke", latex=r"\alpha")

prepared_spokes = Equation(
    name="prepared_spokes",
    title="Mean of N spokes after a preparation pulse (IR-UTE, STAIR, saturation, MT), in the steady state",
    # q is what a spoke and its recovery leave of a deviation; last = q^(N-1), lost = 1 - q, spent = 1 - q^N
    formula="S0*sin(B1*flip_angle)*(plateau + (first - plateau)*spent/(spokes_per_preparation*lost))*exp(-TE*R2star)",
    where={
        "lead": "(TI - (spokes_per_preparation - 1)*spoke_TR/2)/T1",
        "whole": "(TR - (spokes_per_preparation - 1)*spoke_TR)/T1",
        "decay": "log(cos(B1*flip_angle)) - spoke_TR/T1",
        "lost": "-expm1(-spoke_TR/T1) + 2*exp(-spoke_TR/T1)*sin(B1*flip_angle/2)**2",
        "spent": "-expm1(spokes_per_preparation*decay)",
        "last": "exp((spokes_per_preparation - 1)*decay)*cos(B1*flip_angle)",
        "plateau": "-expm1(-spoke_TR/T1)/lost",
        "left": "plateau*(cos(B1*flip_angle) - last)",
        "first": "(-expm1(-lead) + kept*(exp(-lead) - exp(-whole)*(1 - left)))/(1 - kept*exp(-whole)*last)",
    },
    unknowns=(S0, T1, R2star, kept),
    settings=(TI, TR, spokes_per_preparation, spoke_TR, flip_angle, TE, B1),
    source="affine maps composed; preparation as in Horch et al., Magn Reson Med 68:1774 (2012), doi:10.1002/mrm.24186",
)

bound_and_pore = Equation(
    name="bound_and_pore",
    title="Bi-exponential decay of bound and pore water",
    formula="S0*(bound_fraction*exp(-TE/T2star_bound) + (1 - bound_fraction)*exp(-TE/T2star_pore))",
    unknowns=(S0, bound_fraction, T2star_bound, T2star_pore),
    settings=(TE,),
    source="Seifert et al., NMR Biomed 28:861 (2015), doi:10.1002/nbm.3305",
    assumptions="Signal fractions, weighted by T1 and flip angle; each water decays with one rate; no fat.",
)
