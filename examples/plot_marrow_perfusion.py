"""
The perfusion fraction of marrow, and why a perfect fit gets it wrong
=====================================================================

Blood decays more slowly than marrow water, so that at the echo time it is over-represented: the fraction that a fit
finds is not the fraction of the protons. The fat that suppression leaves hardly moves and passes for tissue, which
pulls the other way. In a phantom all three are known.
"""

import matplotlib.pyplot as plt
import numpy as np

from bonemri import estimators, phantoms, simulator

# %%
# Two vertebrae that differ in their fat alone. The truth is a function of the spin pools; the scan is a sum over them.
protocol = simulator.protocols.ivim_marrow
figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharex=True, sharey=True)
for axes, pdff in zip(panels, (0.02, 0.5), strict=True):
    bone = phantoms.vertebra(condition="young", seed=1, resolution=4e-3, pdff=pdff)
    scan = simulator.scan(bone, protocol, rung="pools", snr=100, seed=2)

    # A plain bi-exponential fit. A voxel that this scan cannot answer has a status other than 0.
    maps = estimators.ivim(scan)
    marrow = np.isfinite(bone.truth["f"].values)
    answered = marrow & (maps["status"].values == 0)
    print(f"PDFF {pdff:.0%}: {answered.sum()} of {marrow.sum()} marrow voxels are answered")

    # The fraction of the protons, and the apparent fraction of the water signal at this echo and repetition time.
    found = 100 * maps["f"].values[answered]
    apparent = bone.truth_at(protocol)["f_app"]
    for truth, label in ((bone.truth["f"], "protons"), (apparent, "water signal at this echo time")):
        axes.plot(100 * truth.values[answered], found, ".", markersize=4, label=label)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    axes.set(title=f"fat fraction {pdff:.0%}", xlabel="true fraction of the blood (%)", xlim=(0, 30), ylim=(0, 30))

# %%
# Without fat the fit is right about the signal, and five times too high about the blood. With fat it is right about
# neither: compare `estimators.ivim_fat_aware`.
panels[0].set_ylabel("fitted perfusion fraction (%)")
panels[1].legend(frameon=False, title="fraction of", loc="upper left")
plt.show()
