"""
What moves a fat fraction: twelve confounders, one switch each
==============================================================

A row of marrow from pure water to pure fat, whose truth is known. One thing at a time goes wrong, by one switch: the
fit that does not know of it errs as the orange line says, and one option of the fit puts it right (blue). A hollow
marker is a fit that says itself, by its status, that something is amiss.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from bonemri import estimators, phantoms, simulator
from bonemri.simulator.acquisition.scanner import Scanner

six, twelve = simulator.protocols.dixon_marrow, simulator.protocols.dixon_marrow_bipolar    # echoes
dixon = estimators.dixon
fractions = np.linspace(0, 1, 11)


def marrow(**change):
    """Eleven fat fractions, 100 voxels of each; water and fat have one T1 and one R2*, unless they are changed."""
    alike = {"f": 0.0, "T1_water": 0.4, "T1_fat": 0.4, "T2_water": 0.05, "T2_fat": 0.05, "R2_prime": 30.0}
    return phantoms.marrow_block(**({"shape": (1, 100, 11), "pdff": fractions} | alike | change))


def scanned(bone, protocol, snr=50, **switch):
    """A scan of all spin pools; each confounder of the sequence is a keyword."""
    return simulator.scan(bone, protocol, snr=snr, seed=1, **switch)


# %%
# A lesson is the truth and two fits of one scan: one ignores what is wrong, one handles it.
units = {"pdff": (100, "error of PDFF (points)", 1), "r2star": (1, "error of R2* (1/s)", 5)}   # and how far to look
lessons = []


def lesson(title, switch, answer, truth, ignored, handled):
    """Mean error over the voxels of each fraction, and where most of them have a status."""
    truth = truth.assign(r2star=truth["r2star_water"].fillna(truth["r2star"]))             # that of pure fat is its own
    lines = {quantity: [] for quantity in units}
    for maps in (ignored, handled):
        flagged = (maps["status"] != 0).mean(("z", "y")).values > 0.5
        for quantity, (unit, *_) in units.items():
            if quantity in maps:
                error = unit * (maps[quantity] - truth[quantity]).mean(("z", "y")).values
                lines[quantity].append((error, flagged))
    lessons.append((title, switch, answer, lines))
    for quantity, (_, label, _) in units.items():
        worst = " and ".join(f"{np.nanmax(np.abs(error)):.1f}" for error, _ in lines[quantity])
        print(f"{title}: {label} at most {worst}")


# %%
# What fat is: its spectrum. Who does not know it can fit it; a single peak, the first model of fat, errs by ten points.
bone = marrow(spectrum="fat_liver")
scan = scanned(bone, six)
lesson("another fat", 'spectrum="fat_liver"', 'spectrum="fitted"', bone.truth, dixon(scan),
       dixon(scan, spectrum="fitted"))  # fmt: skip

bone = marrow()
scan = scanned(bone, six)
lesson("a single peak", 'spectrum="fat_single"', 'spectrum="fat_marrow"', bone.truth,
       dixon(scan, spectrum="fat_single"), dixon(scan))  # fmt: skip

# %%
# Where water stands: it moves with temperature, fat does not. A phantom of 22 C, taken for a body.
scan = scanned(bone, six, temperature=22.0)
lesson("temperature", "temperature=22", "temperature=22", bone.truth, dixon(scan), dixon(scan, temperature=22.0))

# %%
# How fast water and fat decay, and how fast they recover. (What is not there has no rate.)
decaying = marrow(T2_water=0.015)
scan = scanned(decaying, twelve)
with_water = decaying.truth.where(decaying.truth["pdff"] < 1)
lesson("two R2*", "T2_water=0.015", 'rates="two"', with_water, dixon(scan), dixon(scan, rates="two"))

saturated = marrow(T1_water=1.2)
scan = scanned(saturated, six.replace(flip_angle=np.radians(10)))
lesson("T1 weighting", "flip_angle of 10 degrees", "T1_correction=True", saturated.truth, dixon(scan),
       dixon(scan, T1_correction=True, T1_water=1.2, T1_fat=0.4))  # fmt: skip

# %%
# What the gradients leave in the phase: of the first echo, and of every second one. The first is seen where fat is
# taken by its magnitude, |F|/(|W| + |F|).
scan = scanned(bone, six, snr=200, first_echo_phase=0.2)
kept, free = (dixon(scan, fraction="magnitude", first_echo=how) for how in ("kept", "free"))
lesson("phase of the first echo", "first_echo_phase=0.2", 'first_echo="free"', bone.truth, kept, free)

scan = scanned(bone, twelve, bipolar_phase=0.3)
lesson("phase of even echoes", "bipolar_phase=0.3", "bipolar=True", bone.truth, dixon(scan), dixon(scan, bipolar=True))

# %%
# Noise: a magnitude has a floor, the real part of F/(W + F) has none. And magnitudes without phase hardly tell water
# from fat; what cannot be told is flagged.
scan = scanned(bone, six, snr=15)
lesson("noise floor", 'snr=15, fraction="magnitude"', 'fraction="real"', bone.truth, dixon(scan, fraction="magnitude"),
       dixon(scan))  # fmt: skip
lesson("magnitudes alone", "snr=15, dixon_magnitude", "dixon", bone.truth, estimators.dixon_magnitude(scan),
       dixon(scan))  # fmt: skip

# %%
# The field. Two echoes cannot tell a far field from water and fat exchanged, where tissue of one fraction lies alone in
# air: each fraction is fitted by itself. Six echoes can.
even = six.replace(echo=tuple(1.15e-3 * np.arange(1, 7)), TR=0.01)
scan = scanned(bone, even, off_resonance=350.0)
alone, noise = [scan.isel(x=[column]) for column in range(11)], scan.attrs["image_sd"]
two = xr.concat([estimators.dixon_2pt(part.isel(echo=[0, 1]), sigma=noise) for part in alone], "x")
all_six = xr.concat([dixon(part) for part in alone], "x")
lesson("swap", "off_resonance=350, dixon_2pt", "dixon", bone.truth, two, all_six)

# %%
# Two more take k-space. A field that rises by 60 Hz from face to face of a slice dephases it: the bone is finer than
# the slices, and `bone.on(scan)` is its truth in their voxels.
fine = marrow(shape=(32, 8, 132), resolution=1e-3, pdff=np.repeat(fractions, 12))
rising = np.broadcast_to(60.0 / 8e-3 * fine.pools["z"].values[:, None, None], (32, 8, 132))
read = {"trajectory": "cartesian", "dimensions": 2, "frequency": "y", "dwell": 2e-6}
slices = dataclasses.replace(six, readout={**read, "matrix": (4, 8, 66), "fov": (32e-3, 8e-3, 132e-3)})
scan = scanned(fine, slices, rung="scan", scanner=Scanner(b0=rising))
inside = {"x": slice(3, None, 6)}                                                          # far from where it changes
lesson("field across the slice", "Scanner(b0=...)", 'gradient="slice"', fine.on(scan).truth.isel(inside),
       dixon(scan).isel(inside), dixon(scan, gradient="slice").isel(inside))  # fmt: skip

# %%
# A gradient cannot be linear alone: its concomitant field grows with the square of the distance from the isocentre. In
# one train the field map takes it; of two interleaved trains every second echo is off. Here 7 cm up.
tall = marrow(shape=(160, 4, 132), resolution=1e-3, pdff=np.repeat(fractions, 12)).coarsen((20, 1, 1))
trains = simulator.protocols.dixon_ideal_iq_3t
trains = dataclasses.replace(trains, readout={**trains.readout, "matrix": (8, 4, 132), "fov": (160e-3, 4e-3, 132e-3)})
scan = scanned(tall, trains, snr=200, rung="scan", scanner=Scanner(concomitant=True))
top = {"z": [7], "x": slice(6, None, 12)}                                                    # one column of each
every_second = dixon(scan.drop_vars("shot"), bipolar=True)
lesson("concomitant fields", "Scanner(concomitant=True)", "bipolar=True", tall.on(scan).truth.isel(top),
       dixon(scan).isel(top), every_second.isel(top))  # fmt: skip

# %%
# All twelve, in the fat fraction and in R2*. Their sizes differ by a factor of a hundred: mind the scales.
for quantity, (_, label, least) in units.items():
    figure, axes = plt.subplots(3, 4, figsize=(13, 9), layout="constrained", sharex=True)
    figure.suptitle("orange: the fit ignores what is wrong;  blue: it handles it;  hollow: it says so by its status")
    for ax, (title, *codes, lines) in zip(axes.flat, lessons, strict=True):
        ax.axhline(0, color="0.6", linewidth=1)
        shown = zip(lines[quantity][::-1], ("tab:blue", "tab:orange"), codes[::-1], strict=False)
        for (error, flagged), colour, code in shown:                                       # two echoes have no R2*
            ax.plot(100 * fractions, error, color=colour, linewidth=1.4, label=code)
            ax.scatter(100 * fractions, error, 24, np.where(flagged, "white", colour), edgecolors=colour, zorder=3)
        ax.set(title=title, ylabel=label)
        low, high = min(ax.get_ylim()[0], -least), max(ax.get_ylim()[1], least)
        ax.set_ylim(low, high + 0.3 * (high - low))                                        # room for the code
        words = {"family": "monospace", "size": 8}
        ax.legend(frameon=False, prop=words, handlelength=1.2, loc="upper right", reverse=True)
    for ax in axes[-1]:
        ax.set_xlabel("true fat fraction (%)")
plt.show()
