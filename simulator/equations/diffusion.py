"""Diffusion and perfusion: mono-exponential, intravoxel incoherent motion, kurtosis, a pool in a diffusion spin echo.

b in s/mm2 and diffusivities in mm2/s, as the field has them. Assumptions common to the page: Gaussian phase
distribution within each compartment (but for the kurtosis term), one trace-averaged diffusivity, and blood in the
pseudo-diffusion limit, where the diffusion time is long against the transit of a capillary segment.
"""

from ..model import Quantity
from ..symbolic import Equation
from .relaxation import S0, T1, T2, TE, TR, visible

f = Quantity("f", "1", 0.0, 1.0, "perfusion fraction of the water signal", start=(0.05, 0.2))
D = Quantity("D", "mm2/s", 0.0, 5e-3, "diffusivity of extravascular water", start=(3e-4, 7e-4, 1.5e-3))
D_star = Quantity(
    "D_star", "mm2/s", 1e-3, 0.3, "pseudo-diffusivity of blood", latex="D^*", start=(3e-3, 1.5e-2, 0.06, 0.25)
)
adc = Quantity("adc", "mm2/s", 0.0, 5e-3, "apparent diffusion coefficient", latex=r"\mathrm{ADC}", start=(3e-4, 1e-3))
kurtosis = Quantity("kurtosis", "1", 0.0, 3.0, "excess kurtosis of the displacement", latex="K", start=(0.3, 1.0))
pdff = Quantity("pdff", "1", 0.0, 1.0, "proton density fat fraction", latex=r"\mathrm{PDFF}", start=(0.2, 0.6))
residual = Quantity("residual", "1", 0.0, 1.0, "fraction of the fat signal that suppression leaves", latex=r"\rho")
D_fat = Quantity("D_fat", "mm2/s", 0.0, 1e-4, "diffusivity of fat", latex=r"D_\mathrm{fat}")
density = Quantity("density", "mol 1H/L", 0.0, float("inf"), "1H of the pool per litre of voxel", latex="c")

b = Quantity("b", "s/mm2", 0.0, 2000.0, "diffusion weighting")


def _of(pool: str, t1: tuple[float, float], t2: tuple[float, float]) -> tuple[Quantity, Quantity]:
    """T1 and T2 of a named pool, with their ranges."""
    return (
        Quantity(f"T1_{pool}", "s", *t1, f"T1 of {pool}", latex=rf"T_{{1,\mathrm{{{pool}}}}}"),
        Quantity(f"T2_{pool}", "s", *t2, f"T2 of {pool}", latex=rf"T_{{2,\mathrm{{{pool}}}}}"),
    )


water = _of("water", (0.3, 3.0), (5e-3, 0.3))
blood = _of("blood", (0.5, 3.0), (0.01, 0.4))
fat = _of("fat", (0.1, 1.0), (0.01, 0.3))

mono_exponential = Equation(
    name="mono_exponential",
    title="Mono-exponential diffusion decay",
    formula="S0*exp(-b*adc)",
    unknowns=(S0, adc),
    settings=(b,),
    source="Stejskal and Tanner, J Chem Phys 42:288 (1965), doi:10.1063/1.1695690",
)

ivim = Equation(
    name="ivim",
    title="Bi-exponential intravoxel incoherent motion",
    formula="S0*(f*exp(-b*D_star) + (1 - f)*exp(-b*D))",
    unknowns=(S0, f, D_star, D),
    settings=(b,),
    source="Le Bihan et al., Radiology 168:497 (1988), doi:10.1148/radiology.168.2.3393671",
    assumptions="f is weighted by T1 and T2 of blood and tissue at the TE and TR of the scan.",
)

ivim_kurtosis = Equation(
    name="ivim_kurtosis",
    title="Intravoxel incoherent motion with tissue kurtosis",
    formula="S0*(f*exp(-b*D_star) + (1 - f)*exp(-b*D + (b*D)**2*kurtosis/6))",
    unknowns=(S0, f, D_star, D, kurtosis),
    settings=(b,),
    source="Jensen et al., Magn Reson Med 53:1432 (2005), doi:10.1002/mrm.20508",
    assumptions="The cumulant expansion stops at b**2: it turns upward at b D K = 3, and is used well below.",
)

spin_echo_diffusion = Equation(
    name="spin_echo_diffusion",
    title="One pool in a diffusion-weighted spin echo",
    formula="density*visible*exp(-b*D + (b*D)**2*kurtosis/6)",
    where={"visible": visible("T1", "T2")},
    unknowns=(density, T1, T2, D, kurtosis),
    settings=(b, TE, TR),
    source="Stejskal and Tanner, J Chem Phys 42:288 (1965), doi:10.1063/1.1695690",
    assumptions="Perfect pulses; diffusion weighting of the imaging gradients neglected.",
)

ivim_fat_aware = Equation(
    name="ivim_fat_aware",
    title="Intravoxel incoherent motion over residual fat, with relaxation",
    formula="S0*((1 - pdff)*((1 - f)*W*exp(-b*D) + f*B*exp(-b*D_star)) + pdff*residual*F*exp(-b*D_fat))",
    where={part: visible(f"T1_{pool}", f"T2_{pool}") for part, pool in (("W", "water"), ("B", "blood"), ("F", "fat"))},
    unknowns=(S0, f, D_star, D, pdff, residual, D_fat, *water, *blood, *fat),
    settings=(b, TE, TR),
    source="Dieckmeyer et al., Magn Reson Med 78:1432 (2017), doi:10.1002/mrm.26550",
    assumptions="Fat is refocused at the echo and adds in phase; f and PDFF are fractions of 1H, not of signal.",
)
