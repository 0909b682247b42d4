"""
Bone that shows for a millisecond: the same leg on three rungs
==============================================================

Bound water of cortical bone has decayed before an ordinary echo. An ultrashort echo time shows it, and the spokes that
read it blur it: T2* of a third of a millisecond is gone before a spoke has ended. The closed form knows nothing of
that, the engine knows what the pulse does, and the scan knows what the readout does.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

from bonemri import phantoms, simulator

# %%
# A lower leg with 10 % porosity in its tibia. Two half pulses and radial spokes, at 50 us and 2.5 ms.
bone = phantoms.cortical(porosity=0.1, resolution=2e-3, seed=1)
protocol = simulator.protocols.ute_2d
protocol = dataclasses.replace(
    protocol,
    table={"echo": (50e-6, 2.5e-3)},
    readout={"trajectory": "radial_2d", "dwell": 8e-6, "spokes": 120, "samples": 40},
)
scans = {rung: simulator.scan(bone, protocol, rung=rung) for rung in ("pools", "engine", "scan")}

figure, panels = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for column, (rung, scan) in zip(panels.T, scans.items(), strict=True):
    middle = scan.isel(z=scan.sizes["z"] // 2)
    for axes, echo in zip(column, range(2), strict=True):
        axes.imshow(np.abs(middle.isel(echo=echo)), cmap="gray", vmin=0)
        axes.set(xticks=[], yticks=[], title=f"{rung}, TE {1e3 * float(scan['echo'][echo]):g} ms")

# %%
# What is left of the tibia's signal after 2.5 ms is the porosity index: it is a number of this protocol, and each rung
# has its own. `bone.on(scan)` is the leg in the voxels of a scan, which on rung scan are those of the readout.
for rung, scan in scans.items():
    tibia = bone.on(scan).truth["porosity"].values > 0.05
    first, second = (np.abs(scan.values[tibia, echo]).mean() for echo in range(2))
    print(f"{rung}: porosity index {second / first:.3f}")
plt.show()
