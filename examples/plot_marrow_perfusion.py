"""
The perfusion fraction of marrow, and why a perfect fit gets it wrong
=====================================================================

Blood decays more slowly than marrow water, so that at the echo time the blood is over-represented: the fraction that a
fit finds is not the fraction of the protons. Here both are known.
"""

import matplotlib.pyplot as plt
import numpy as np

from bonemri import estimators, phantoms, simulator

# %%
# A vertebra of a young adult. Its truth is a function of its spin pools; the scan is a sum over them.
bone = phantoms.vertebra(condition="young", seed=1, resolution=4e-3)
protocol = simulator.protocols.ivim_marrow
scan = simulator.scan(bone, protocol, rung="pools", snr=100, seed=2)

# %%
# A plain bi-exponential fit. Marrow fills a voxel where the truth has a perfusion fraction; a voxel that the fit could
# not answer has a status other than 0.
maps = estimators.ivim(scan)
marrow = np.isfinite(bone.truth["f"].values)
answered = marrow & (maps["status"].values == 0)
print(f"{answered.sum()} of {marrow.sum()} marrow voxels are answered")

# %%
# The truth of the protons, and the apparent fraction at this echo and repetition time.
truth = bone.truth["f"].values[answered]
apparent = bone.truth_at(protocol)["f_app"].values[answered]
found = maps["f"].values[answered]

figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
axes.plot(100 * truth, 100 * found, ".", label="against the protons' fraction")
axes.plot(100 * apparent, 100 * found, ".", label="against the apparent fraction")
axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
axes.set(xlabel="true perfusion fraction (%)", ylabel="fitted perfusion fraction (%)", xlim=(0, 40), ylim=(0, 40))
axes.legend(frameon=False)
plt.show()
