"""Chemical-shift-encoded imaging of water and fat: Dixon.

Fat is written by its signal relative to water along the echoes, c(t) = sum_m a_m exp(+i 2 pi nu_m t) with areas that
sum to 1: its real and its imaginary part are settings, `fat_real` and `fat_imag`, so that one equation serves every
spectrum and every temperature (`water_fat.WaterFat` fills them in). Assumptions common to the page: one field offset
and one rate a voxel, unless said otherwise; sampling is instantaneous; no J-coupling.
"""

from ..model import Quantity
from ..symbolic import Equation
from .relaxation import TE

_INFINITY = float("inf")

S0 = Quantity("S0", "a.u.", 0.0, _INFINITY, "signal of water and fat together at TE 0", latex="S_0")
pdff = Quantity("pdff", "1", 0.0, 1.0, "fat over water and fat", latex=r"\mathrm{PDFF}")
r2star = Quantity("r2star", "1/s", 0.0, 1000.0, "R2* of the voxel", latex="R_2^*", start=(30.0, 120.0))
r2star_fat = Quantity("r2star_fat", "1/s", 0.0, 1000.0, "R2* of fat", latex=r"R_{2,\mathrm{F}}^*", start=(30.0, 120.0))
fieldmap = Quantity("fieldmap", "Hz", -1000.0, 1000.0, "offset of water from the scanner's frequency", latex=r"\psi")
phase = Quantity("phase", "rad", -3.2, 3.2, "phase at TE 0", latex=r"\varphi")
phase_fat = Quantity("phase_fat", "rad", -3.2, 3.2, "phase of fat less that of water", latex=r"\varphi_\mathrm{F}")
first_phase = Quantity("first_phase", "rad", -3.2, 3.2, "what the first echo's phase is off", latex=r"\varphi_1")
bipolar_phase = Quantity("bipolar_phase", "rad", -3.2, 3.2, "what every second echo's phase is off", latex=r"\varphi_2")


def _amplitude(name: str, meaning: str, latex: str) -> Quantity:
    return Quantity(name, "a.u.", -_INFINITY, _INFINITY, meaning, latex=latex)


water = _amplitude("water", "water at TE 0", r"\rho_\mathrm{W}")
fat = _amplitude("fat", "fat at TE 0", r"\rho_\mathrm{F}")
water_real = _amplitude("water_real", "water at TE 0, real part", r"W_\mathrm{r}")
water_imag = _amplitude("water_imag", "water at TE 0, imaginary part", r"W_\mathrm{i}")
fat_amplitude_real = _amplitude("fat_amplitude_real", "fat at TE 0, real part", r"F_\mathrm{r}")
fat_amplitude_imag = _amplitude("fat_amplitude_imag", "fat at TE 0, imaginary part", r"F_\mathrm{i}")
AMPLITUDES = (water_real, water_imag, fat_amplitude_real, fat_amplitude_imag)

fat_real = Quantity("fat_real", "1", -1.0, 1.0, "fat relative to water at the echo, real part", latex=r"c_\mathrm{r}")
fat_imag = Quantity("fat_imag", "1", -1.0, 1.0, "fat relative to water, imaginary part", latex=r"c_\mathrm{i}")
first = Quantity("first", "1", 0.0, 1.0, "1 at the first echo of a train, else 0", latex="n_1")
even = Quantity("even", "1", 0.0, 1.0, "1 at every second echo of a train, else 0", latex="n_2")
SPECTRUM = (fat_real, fat_imag)
SLOPES = tuple(
    Quantity(f"slope_{k}", "Hz", -300.0, 300.0, f"rise of the field from face to face along {k}", latex=rf"g_{k}")
    for k in "zyx"
)

_SIGNAL = "(W + F*(fat_real + I*fat_imag))*exp(2*pi*I*fieldmap*TE - r2star*TE)"
_POLAR = {"W": "S0*(1 - pdff)*exp(I*phase)", "F": "S0*pdff*exp(I*phase + I*phase_fat)"}
_FREE = {"W": "water_real + I*water_imag", "F": "fat_amplitude_real + I*fat_amplitude_imag"}
_SOURCE = "Yu et al., Magn Reson Med 60:1122 (2008), doi:10.1002/mrm.21737"

water_fat = Equation(
    name="water_fat",
    title="Water and fat by fraction, each with its own phase",
    formula=_SIGNAL,
    where=_POLAR,
    unknowns=(S0, pdff, r2star, fieldmap, phase, phase_fat),
    settings=(TE, *SPECTRUM),
    source=_SOURCE,
)

water_fat_free = Equation(
    name="water_fat_free",
    title="Water and fat as complex amplitudes",
    formula=_SIGNAL,
    where=_FREE,
    unknowns=(*AMPLITUDES, fieldmap, r2star),
    settings=(TE, *SPECTRUM),
    source=_SOURCE,
)

water_fat_common = Equation(
    name="water_fat_common",
    title="Water and fat that leave the pulse with one phase",
    formula=_SIGNAL,
    where={"W": "water*exp(I*phase)", "F": "fat*exp(I*phase)"},
    unknowns=(water, fat, phase, fieldmap, r2star),
    settings=(TE, *SPECTRUM),
    source="Bydder et al., Magn Reson Imaging 29:216 (2011), doi:10.1016/j.mri.2010.08.011",
    assumptions="One phase at TE 0. An amplitude may come out negative by noise: clipped it would be biased.",
)

water_fat_dual = Equation(
    name="water_fat_dual",
    title="Water and fat as complex amplitudes, each with its own R2*",
    formula="(W*exp(-r2star*TE) + F*(fat_real + I*fat_imag)*exp(-r2star_fat*TE))*exp(2*pi*I*fieldmap*TE)",
    where=_FREE,
    unknowns=(*AMPLITUDES, fieldmap, r2star, r2star_fat),
    settings=(TE, *SPECTRUM),
    source="Chebrolu et al., Magn Reson Med 63:849 (2010), doi:10.1002/mrm.22300",
    assumptions="All peaks of fat decay with one rate.",
)

water_fat_uneven = Equation(
    name="water_fat_uneven",
    title="Water and fat as complex amplitudes, over echoes whose phases are off",
    formula=_SIGNAL[:-1] + " + I*first_phase*first + I*bipolar_phase*even)",
    where=_FREE,
    unknowns=(*AMPLITUDES, fieldmap, r2star, first_phase, bipolar_phase),
    settings=(TE, *SPECTRUM, first, even),
    source="Hernando et al., Magn Reson Med 67:638 (2012), doi:10.1002/mrm.23044; bipolar: doi:10.1002/mrm.21583",
    assumptions="A free phase of the first echo leaves its magnitude alone: the likelihood of mixed fitting.",
)

water_fat_gradient = Equation(
    name="water_fat_gradient",
    title="Water and fat as complex amplitudes, in a field that rises across the voxel",
    formula=_SIGNAL + "*" + "*".join(f"sin(a{k})/a{k}" for k in "zyx"),
    # half of the phase from face to face, kept off 0 by what changes the signal in the thirteenth digit
    where={**_FREE, **{f"a{k}": f"sqrt((pi*slope_{k}*TE)**2 + 1e-12)" for k in "zyx"}},
    unknowns=(*AMPLITUDES, fieldmap, r2star),
    settings=(TE, *SPECTRUM, *SLOPES),
    source="Fernandez-Seara and Wehrli, MRM 44:358 (2000), doi:10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I",
    assumptions="The field rises evenly, and the voxel is a box: sharp edges of a slice, of pixels about so.",
)

water_fat_mixed = Equation(
    name="water_fat_mixed",
    title="Water and fat by fraction, over a train whose first echo's phase is off",
    formula=_SIGNAL[:-1] + " + I*first_phase*first)",
    where=_POLAR,
    unknowns=(S0, pdff, r2star, fieldmap, phase, phase_fat, first_phase),
    settings=(TE, *SPECTRUM, first),
    source="Hernando et al., Magn Reson Med 67:638 (2012), doi:10.1002/mrm.23044",
    assumptions="A phase of its own leaves the first echo's magnitude alone to be fitted.",
)

water_fat_magnitude = Equation(
    name="water_fat_magnitude",
    title="Magnitude of water and fat",
    formula="S0*sqrt((1 - pdff + pdff*fat_real)**2 + (pdff*fat_imag)**2)*exp(-r2star*TE)",
    unknowns=(S0, pdff, r2star),
    settings=(TE, *SPECTRUM),
    source="Bydder et al., Magn Reson Imaging 26:347 (2008), doi:10.1016/j.mri.2007.08.012",
    assumptions="One phase at TE 0; noise-free magnitudes. Exchanging water and fat changes little: two minima.",
)
