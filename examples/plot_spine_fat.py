"""
A spine, read region by region: fat of vertebrae and muscles, and who is osteoporotic
=====================================================================================

From a spine whose truth is known to what a reader reports: PDFF and T2* of each vertebra, fat fraction and
cross-section of the paraspinal muscles, each with its error. Then a cohort: how well do two biomarkers tell who is
osteoporotic?

The same as commands; ``fat/estimate.json`` holds the regions::

    bonemri phantom spine --set condition=osteoporotic --set resolution=0.004 -o spine
    bonemri simulate dixon_marrow_bipolar --phantom spine/spine.nc --snr 40 -o scan.nc
    bonemri estimate dixon scan.nc --mask spine/labels.nii.gz --set T1_correction=true -o fat
"""

import matplotlib.pyplot as plt
import numpy as np

from bonemri import estimators, phantoms, simulator
from bonemri.validation import regions
from bonemri.validation.exhibits import agreement, discriminant

# %%
# The phantom brings its labels. Its trabeculae add R2' to the marrow between them: by static dephasing, so much.
rate = float(discriminant.structural_rate(bvtv=0.08, pdff=0.6, field=3.0))
spine = phantoms.spine(condition="osteoporotic", bvtv=0.08, pdff=0.6, R2_prime=rate, resolution=4e-3, seed=3)
scan = simulator.scan(spine, "dixon_marrow_bipolar", snr=40, seed=1)

# %%
# Three fits of one scan: at three degrees the signal of water still lags behind by its T1, and decays faster than fat.
fits = {
    "as it stands": estimators.dixon(scan),
    "T1_correction=True": estimators.dixon(scan, T1_correction=True),
    'and rates="two"': estimators.dixon(scan, T1_correction=True, rates="two"),
}

# %%
# A region is measured over all voxels but those that may be swapped: noisy ones count, since whether a voxel is called
# noisy goes by its own fat fraction. The truth is read in the same way, from the protons themselves.
groups = {"paraspinal": regions.PARASPINAL}
found = {name: regions.by_label(maps, spine.labels, groups) for name, maps in fits.items()}
protons, share = spine.truth["S0"], spine.truth["pdff"]
true = regions.by_label(spine.truth.assign(fat=share * protons, water=(1 - share) * protons), spine.labels, groups)
read = ["L1", "L2", "L3", "L4", "left_psoas", "right_psoas", "paraspinal"]
for name in read:
    one, known = found["T1_correction=True"].sel(region=name), 100 * true["pdff"].sel(region=name)
    print(f"{name}: PDFF {100 * one['pdff']:.1f} +- {100 * one['pdff_se']:.1f} % (true {known:.1f}), "
          f"T2* {1e3 * one['t2star']:.1f} +- {1e3 * one['t2star_se']:.1f} ms, {1e4 * one['cross_section']:.1f} cm2; "
          f"{int(one['n'])} of {int(one['voxels'])} voxels count")

# %%
# The map with the outlines of the labels, in the midline and through L3; and how far each region is from its truth.
figure, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
middle, through = spine.labels.sizes["x"] // 2, int(np.median(np.nonzero((spine.labels == 4).any(("y", "x")).values)))
maps = fits["T1_correction=True"]
pdff = maps["pdff"].where(maps["status"] == 0)                                           # air has none
for ax, at, title in ((axes[0, 0], {"x": middle}, "midline"), (axes[0, 1], {"z": through}, "through L3, the front up")):
    picture = ax.imshow(100 * pdff.isel(at), origin="lower", cmap="inferno", vmin=0, vmax=100)
    here = spine.labels.isel(at).values
    for number in np.unique(here[here > 0]):
        ax.contour(here == number, levels=[0.5], colors="deepskyblue", linewidths=0.8)
    ax.set(title=title, xticks=[], yticks=[])
figure.colorbar(picture, ax=axes[0], label="PDFF (%)", shrink=0.8)

for row, (name, each) in enumerate(found.items()):
    error, half = 100 * (each["pdff"] - true["pdff"]).sel(region=read), 196 * each["pdff_se"].sel(region=read)
    axes[1, 0].errorbar(error, np.arange(len(read)) + 0.2 * (row - 1), xerr=half, fmt="o", markersize=4, linewidth=1,
                        color=("tab:orange", "tab:blue", "tab:green")[row], label=name)  # fmt: skip
axes[1, 0].axvline(0, color="0.6", linewidth=1)
axes[1, 0].set(xlabel="error of PDFF (points), 95 % interval", ylim=(len(read) + 1.1, -0.6))
axes[1, 0].set_yticks(range(len(read)), [name.replace("_", " ") for name in read])
axes[1, 0].legend(frameon=False, loc="lower right")

# %%
# A cohort over 50, each person a vertebra scanned and fitted: PDFF and T2* alone, and both together by a discriminant
# that has not seen the person.
cohort = discriminant.run(quick=True, seed=1)
ill = cohort["osteoporotic"].values.astype(bool)
for marker, area in discriminant.areas(cohort).items():
    false, hit = agreement.roc(cohort["score"].sel(marker=marker).values, ill)
    label = f"{marker}: AUC {area.value:.2f} ({area.low:.2f} to {area.high:.2f})"
    axes[1, 1].plot(100 * false, 100 * hit, drawstyle="steps-post", label=label)
    print(label)
axes[1, 1].axline((0, 0), slope=1, color="0.6", linewidth=1)
axes[1, 1].set(xlabel="normal people called osteoporotic (%)", ylabel="osteoporotic people found (%)")
axes[1, 1].set_title(f"{ill.sum()} osteoporotic and {(~ill).sum()} normal people", fontsize=10)
axes[1, 1].legend(frameon=False, loc="lower right")
plt.show()
