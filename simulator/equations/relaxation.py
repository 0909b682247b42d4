"""Relaxation: spoiled gradient echo, inversion recovery, spin echo, stimulated echo.

Assumptions common to the page: instantaneous pulses, one pool without exchange, transverse magnetisation fully
spoiled before the next excitation. Real pulses of bone sequences last as long as T2 of bound water: there the
numerical engines judge these equations.
"""

from ..model import Quantity
from ..symbolic import Equation

S0 = Quantity("S0", "a.u.", 0.0, float("inf"), "signal without relaxation, at full recovery", latex="S_0")
T1 = Quantity("T1", "s", 0.015, 6.0, "longitudinal relaxation time", latex="T_1", start=(0.2, 0.6, 1.5))
T2 = Quantity("T2", "s", 3e-4, 3.0, "transverse relaxation time", latex="T_2", start=(1e-3, 1e-2, 5e-2, 2e-1))
R2star = Quantity(
    "R2star", "1/s", 0.0, 5000.0, "apparent transverse relaxation rate", latex="R_2^*", start=(20.0, 100.0, 500.0)
)
efficiency = Quantity(
    "efficiency", "1", 0.0, 1.0, "inversion efficiency: 1 inverts fully, 0 not at all", latex=r"\eta", start=(0.6, 0.95)
)

R2_prime = Quantity(
    "R2_prime", "1/s", 0.0, 2000.0, "what a spin echo refocuses of R2star", latex="R_2'", start=(10.0, 100.0)
)

TE = Quantity("TE", "s", 0.0, 0.2, "echo time", latex=r"T_\mathrm{E}")
TR = Quantity("TR", "s", 2e-3, 10.0, "repetition time", latex=r"T_\mathrm{R}")
TI = Quantity("TI", "s", 0.0, 10.0, "inversion time", latex=r"T_\mathrm{I}")
TM = Quantity("TM", "s", 0.0, 2.0, "mixing time", latex=r"T_\mathrm{M}")
TE1 = Quantity("TE1", "s", 0.0, 0.2, "time of the first of two spin echoes", latex=r"T_\mathrm{E,1}")
time = Quantity("time", "s", -0.02, 0.1, "time after the spin echo", latex="t")
spacing = Quantity("spacing", "s", 0.0, 0.02, "time from echo to echo of a train", latex=r"\Delta T_\mathrm{E}")
echoes = Quantity("echoes", "1", 1.0, 16.0, "echoes after one excitation", latex="N")
flip_angle = Quantity("flip_angle", "rad", 0.0, 3.2, "nominal flip angle", latex=r"\alpha")
B1 = Quantity("B1", "1", 0.3, 1.7, "actual over nominal flip angle", latex="B_1")


def visible(t1: str, t2: str) -> str:
    """The part of a pool that a spin echo shows, as the text of a formula, from the names of the pool's T1 and T2."""
    return f"(-expm1(-TR/{t1}) - 2*exp(-TR/{t1})*expm1(TE/(2*{t1})))*exp(-TE/{t2})"


spoiled_gradient_echo = Equation(
    name="spoiled_gradient_echo",
    title="Spoiled gradient echo in its steady state",
    # 1 - cos a E1 written as (1 - E1) + E1 (1 - cos a): no cancellation at small angles and long T1
    formula="S0*sin(a)*recovered/(recovered + 2*exp(-TR/T1)*sin(a/2)**2)*exp(-TE*R2star)",
    where={"a": "B1*flip_angle", "recovered": "-expm1(-TR/T1)"},
    unknowns=(S0, T1, R2star),
    settings=(flip_angle, TR, TE, B1),
    source="Ernst and Anderson, Rev Sci Instrum 37:93 (1966), doi:10.1063/1.1719961",
    assumptions="Ideal spoiling: no transverse magnetisation survives TR; holds for T2 well below TR or RF spoiling.",
)

inversion_recovery = Equation(
    name="inversion_recovery",
    title="Inversion recovery with inversion efficiency, 90 degree readout at TI",
    formula="S0*(1 - exp(-TI/T1)*(1 - (1 - 2*efficiency)*recovered))",
    where={"recovered": "-expm1(-(TR - TI)/T1)"},
    unknowns=(S0, T1, efficiency),
    settings=(TI, TR),
    source="Barral et al., Magn Reson Med 64:1057 (2010), doi:10.1002/mrm.22497",
    assumptions="TR runs from inversion to inversion; the readout leaves no longitudinal magnetisation.",
)

spin_echo = Equation(
    name="spin_echo",
    title="Spin echo, 90 and 180 degrees",
    formula="S0*visible",
    where={"visible": visible("T1", "T2")},
    unknowns=(S0, T1, T2),
    settings=(TE, TR),
    source="Hahn, Phys Rev 80:580 (1950), doi:10.1103/PhysRev.80.580",
    assumptions="Perfect pulses; 1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1), written without cancellation at short TR.",
)

shifted_spin_echo = Equation(
    name="shifted_spin_echo",
    title="Some time before or after a spin echo",
    formula="S0*visible*exp(-time/T2 - Abs(time)*R2_prime)",
    where={"visible": visible("T1", "T2")},
    unknowns=(S0, T1, T2, R2_prime),
    settings=(TE, TR, time),
    source="Dixon, Radiology 153:189 (1984), doi:10.1148/radiology.153.1.6089263",
    assumptions="Perfect pulses; a Lorentzian distribution of the field inside the voxel.",
)

spin_echo_train = Equation(
    name="spin_echo_train",
    title="An echo of a train of spin echoes (fast spin echo), 90 and 180 degrees",
    # each 180 turns the deficit d = 1 - Mz into 2 - d: a geometric series in -exp(-spacing/T1), here less 1
    formula="S0*(-expm1(-after) - exp(-after)*deficit)*exp(-TE/T2)",
    where={
        "after": "(TR - (echoes - 1/2)*spacing)/T1",
        "odd": "cos(pi*(echoes - 1))*exp(-(echoes - 1/2)*spacing/T1)*expm1(-spacing/(2*T1))**2",
        "deficit": "-(expm1(-spacing/T1) + odd)/(1 + exp(-spacing/T1))",
    },
    unknowns=(S0, T1, T2),
    settings=(TE, TR, spacing, echoes),
    source="Meiboom and Gill, Rev Sci Instrum 29:688 (1958), doi:10.1063/1.1716296; perfect pulses, whole echoes",
)

double_spin_echo = Equation(
    name="double_spin_echo",
    title="The second of two spin echoes, 90, 180 and 180 degrees (PRESS)",
    formula="S0*(-expm1(-TR/T1) - 2*exp(-(TR - TE1/2)/T1)*expm1(TE/(2*T1)))*exp(-TE/T2)",
    unknowns=(S0, T1, T2),
    settings=(TE, TE1, TR),
    source="Bottomley, Ann N Y Acad Sci 508:333 (1987), doi:10.1111/j.1749-6632.1987.tb32915.x",
    assumptions="Perfect pulses, at TE1/2 and (TE1 + TE)/2, written without cancellation at short TR.",
)

stimulated_echo = Equation(
    name="stimulated_echo",
    title="Stimulated echo of three 90 degree pulses (STEAM)",
    formula="S0/2*recovered*exp(-TM/T1)*exp(-TE/T2)",
    where={"recovered": "-expm1(-(TR - TM - TE/2)/T1)"},
    unknowns=(S0, T1, T2),
    settings=(TE, TM, TR),
    source="Frahm et al., J Magn Reson 64:81 (1985), doi:10.1016/0022-2364(85)90032-9",
    assumptions="Only the stimulated echo is kept (crushed FID and spin echoes); half the magnetisation is lost.",
)
