"""Registration of a real brain that a known transform has bent."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from locations import find
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from qsmref import images, itk, registration
from qsmref.resampling import resample
from qsmref.tables import read_tsv

ATLAS = find("data", "atlas-CIT168")
NAME = "tpl-MNI152NLin2009cAsym_res-01_{}"
#: Regions of the study, by their abbreviations in the atlas; both sides together.
REGIONS = {
    "CN": (["CN"], 0.85),
    "PU": (["PU"], 0.85),
    "GP": (["GPe", "GPi"], 0.85),
    "SN": (["SNr"], 0.7),
    "RN": (["RN"], 0.7),
}


def bent(shape, affine, seed: int = 0, amount: float = 4.0):
    """Voxel indices (3, n) to which a turned, scaled and bent head leads: 4 mm SD, 15 mm wide."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", (5, -4, 6), degrees=True).as_matrix()
    matrix = turn @ np.diag([1.05, 0.95, 1.04])
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    voxel = images.voxel_size(affine)
    field = [gaussian_filter(rng.standard_normal(shape), [15 / h for h in voxel]) for _ in range(3)]
    shift = np.stack([amount * f / f.std() for f in field]).reshape(3, -1)
    world = matrix @ world + np.array([[4.0], [-3.0], [5.0]]) + shift
    return np.linalg.solve(affine[:3, :3], world - affine[:3, 3:])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(ATLAS is None, reason="the atlas CIT168 is not beside the project")
def test_brain_and_labels_come_back(tmp_path):
    brain, like = images.load(ATLAS / f"{NAME.format('desc-brain_T1w')}.nii.gz")
    labels, _ = images.load(ATLAS / f"{NAME.format('atlas-CIT168_dseg')}.nii.gz", np.int32)
    table = read_tsv(ATLAS / f"{NAME.format('atlas-CIT168_dseg')}.tsv")
    # Every second voxel: 2 mm.
    affine = like.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    brain = gaussian_filter(brain, 0.7)[::2, ::2, ::2]
    fine = nib.Nifti1Image(labels, like.affine)
    place = bent(brain.shape, affine)
    moved = map_coordinates(brain, place, order=1).reshape(brain.shape).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.02 * brain.max(), brain.shape)
    moved = np.where(moved > 0.02 * brain.max(), np.maximum(moved + noise, 1e-3), 0)
    truth = map_coordinates(labels, 2 * place, order=0).reshape(brain.shape)
    template, image = itk.to_itk(brain, affine), itk.to_itk(moved, affine)
    info = registration.register_to_template(
        template,
        registration.brain_of_stripped(template),
        image,
        registration.brain_of_stripped(image),
        tmp_path / "forward.h5",
        tmp_path / "inverse.h5",
        iterations=(60, 40, 6),
    )
    assert info["brain_dice"] > 0.9
    nib.save(fine, tmp_path / "labels.nii.gz")
    images.save(truth, tmp_path / "truth.nii", affine)
    inverse = [tmp_path / "inverse.h5"]
    found = resample(tmp_path / "labels.nii.gz", tmp_path / "truth.nii", inverse, None, "label")
    for region, (names, least) in REGIONS.items():
        values = table.loc[table["abbreviation"].isin(names), "index"]
        assert len(values) == 2 * len(names), region
        overlap = registration.dice(np.isin(found, values), np.isin(truth, values))
        assert overlap >= least, region
