"""Draws the picture at the head of the README from the output of ``make demo``.

python docs/overview_figure.py demo docs/_static/overview.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from qsmref import images
from qsmref.analysis import difference_matrix

NUCLEI = ["CN", "PU", "GP", "TH", "RN", "SN", "DN"]


def main(demo: str, out: str) -> None:
    raw, made = Path(demo) / "bids" / "sub-01", Path(demo) / "derivatives" / "sub-01"
    phase, _ = images.load(raw / "anat" / "sub-01_echo-4_part-phase_MEGRE.nii.gz")
    chi, _ = images.load(made / "anat" / "sub-01_desc-unreferenced_Chimap.nii.gz")
    mask = images.load(made / "anat" / "sub-01_desc-brain_mask.nii.gz")[0] > 0
    labels, _ = images.load(made / "anat" / "sub-01_atlas-truth_dseg.nii.gz", np.int32)
    table = pd.read_csv(made / "anat" / "sub-01_atlas-truth_desc-roi_Chimap.tsv", sep="\t")
    # The level with the most voxels of the putamen shows all three nuclei of the striatum.
    sides = table.loc[table["name"].isin(["PU_L", "PU_R"]), "index"].astype(int)
    level = int(np.isin(labels, sides).sum(axis=(0, 1)).argmax())
    middle = np.median(chi[mask])
    picture = np.where(mask, (chi - middle) * 1e3, np.nan)

    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    axes[0].imshow(phase[:, :, level].T, origin="lower", cmap="twilight")
    axes[0].set_title("wrapped phase, fourth echo")
    shown = axes[1].imshow(picture[:, :, level].T, origin="lower", cmap="gray", vmin=-100, vmax=100)
    axes[1].contour(np.isin(labels, np.arange(21, 35))[:, :, level].T, [0.5], colors="#e6b800")
    axes[1].set_title("susceptibility, zero arbitrary")
    figure.colorbar(shown, ax=axes[1], shrink=0.8, label="ppb")
    for axis in axes[:2]:
        axis.set_axis_off()
    pairs = pd.read_csv(made / "anat" / "sub-01_atlas-truth_desc-differential_Chimap.tsv", sep="\t")
    matrix = difference_matrix(pairs).loc[NUCLEI, NUCLEI]
    limit = np.nanmax(np.abs(matrix.to_numpy()))
    axes[2].imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (i, j), value in np.ndenumerate(matrix.to_numpy()):
        if i != j:
            strong = abs(value) > 0.6 * limit
            axes[2].text(j, i, f"{value:.0f}", ha="center", va="center", size=9,
                         color="white" if strong else "black")  # fmt: skip
    axes[2].set_xticks(range(len(NUCLEI)), NUCLEI)
    axes[2].set_yticks(range(len(NUCLEI)), NUCLEI)
    axes[2].set_title("row minus column, ppb: the result")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
