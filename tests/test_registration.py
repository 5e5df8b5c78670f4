"""Registration with ANTs on a small head whose transforms are known."""

from __future__ import annotations

import heads
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from qsmref import images, itk, registration
from qsmref.analysis.average import RunningMoments, relative_to_brain
from qsmref.problems import DataError
from qsmref.resampling import resample


def rigid(angles, shift) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def test_a_rigid_movement_is_found(tmp_path):
    parts, way = heads.head(), rigid((4, -6, 5), (5, -4, 6))
    fixed = itk.to_itk(heads.moved(parts["t1w"], way), heads.AFFINE)
    magnitude = np.where(parts["t1w"] > 20, 130 - parts["t1w"], 1)
    moving = itk.to_itk(magnitude, heads.AFFINE)
    mask = itk.to_itk(parts["mask"], heads.AFFINE)
    info = registration.register_rigid(fixed, moving, tmp_path / "r.txt", moving_mask=mask)
    found = itk.read_affine(tmp_path / "r.txt")
    corners = np.array(np.meshgrid(*[(-40, 40)] * 3)).reshape(3, -1)
    corners = np.vstack([corners, np.ones(8)])
    assert np.abs((found - way)[:3] @ corners).max() < 0.25 * heads.VOXEL
    assert info["rotation_degrees"] == pytest.approx(8.8, abs=1.5)
    assert info["mutual_information"] > 0.2
    again = registration.register_rigid(fixed, moving, tmp_path / "s.txt", moving_mask=mask)
    assert again == info


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A bent head, registered to the straight one."""
    folder = tmp_path_factory.mktemp("registered")
    template, other = heads.head(), heads.head(3)
    info = registration.register_to_template(
        *(itk.to_itk(template[k], heads.AFFINE) for k in ("t1w", "mask")),
        *(itk.to_itk(other[k], heads.AFFINE) for k in ("t1w", "mask")),
        folder / "forward.h5",
        folder / "inverse.h5",
    )
    for name, parts in (("template", template), ("other", other)):
        for key, array in parts.items():
            images.save(array, folder / f"{name}_{key}.nii", heads.AFFINE)
    return folder, template, other, info


@pytest.mark.parametrize(("way", "source", "target"), [("forward", 1, 0), ("inverse", 0, 1)])
def test_regions_come_to_lie_on_each_other(registered, way, source, target):
    folder, *parts, _ = registered
    names = ("template", "other")
    warped = resample(
        folder / f"{names[source]}_labels.nii",
        folder / f"{names[target]}_labels.nii",
        [folder / f"{way}.h5"],
        interpolation="label",
    )
    for label in heads.PARTS:
        truth = parts[target]["labels"] == label
        before = registration.dice(parts[source]["labels"] == label, truth)
        after = registration.dice(warped == label, truth)
        assert after > max(0.85, before)


def test_it_says_what_it_did(registered):
    *_, info = registered
    assert info["iterations"] == [100, 70]
    assert info["brain_dice"] > 0.95
    assert info["restricted_to_field_of_view"] is False


def test_brains_that_do_not_meet_are_an_error(tmp_path, registered):
    _, template, other, _ = registered
    little = np.zeros(heads.SHAPE, bool)
    little[:4, :4, :4] = True
    with pytest.raises(DataError, match="registration|brain"):
        registration.register_to_template(
            *(itk.to_itk(template[k], heads.AFFINE) for k in ("t1w", "mask")),
            itk.to_itk(other["t1w"], heads.AFFINE),
            itk.to_itk(little, heads.AFFINE),
            tmp_path / "f.h5",
            tmp_path / "i.h5",
        )


def test_a_bias_field_gets_weaker():
    parts = heads.head()
    x, _, z = heads.coordinates() / 50
    field = np.exp(0.4 * x + 0.3 * z)
    image = itk.to_itk(parts["t1w"] * field, heads.AFFINE)
    mask = itk.to_itk(parts["mask"], heads.AFFINE)
    inside = parts["mask"] & (parts["t1w"] > 95)
    corrected = registration.correct_bias(image, mask).numpy()[inside]
    before = image.numpy()[inside]
    assert corrected.std() / corrected.mean() < 0.5 * before.std() / before.mean()


def test_moments_are_those_of_all_maps_at_once():
    rng = np.random.default_rng(0)
    maps = rng.normal(100, 1, (5, 4, 3, 2)).astype(np.float32)
    valid = rng.random(maps.shape) < 0.7
    moments = RunningMoments(maps.shape[1:])
    for values, mask in zip(maps, valid, strict=True):
        moments.add(values, mask)
    known = np.where(valid, maps, np.nan)
    enough = valid.sum(0) > 1
    assert np.array_equal(moments.count, valid.sum(0))
    assert np.allclose(moments.mean[enough], np.nanmean(known, axis=0)[enough])
    assert np.allclose(moments.sd[enough], np.nanstd(known, axis=0, ddof=1)[enough], rtol=1e-4)
    with pytest.raises(ValueError, match="must have the shape"):
        moments.add(np.zeros((2, 2, 2)), np.ones((2, 2, 2), bool))


def test_an_offset_of_a_map_is_no_part_of_the_average():
    rng = np.random.default_rng(0)
    chi, mask = rng.normal(0, 1, (4, 4, 4)).astype(np.float32), rng.random((4, 4, 4)) < 0.5
    shifted = relative_to_brain(chi + np.float32(3), mask)
    assert np.allclose(shifted, relative_to_brain(chi, mask), atol=1e-6)
    assert not shifted[~mask].any()
    with pytest.raises(ValueError, match="empty"):
        relative_to_brain(chi, np.zeros_like(mask))


def test_a_slab_is_compared_inside_itself_alone(tmp_path):
    parts, way, template = heads.head(4), rigid((3, 2, -3), (2, -3, 2)), heads.head()
    cut = slice(10, 22)
    affine = heads.AFFINE.copy()
    affine[2, 3] += heads.VOXEL * cut.start
    files = {
        "t1w": (heads.moved(parts["t1w"], way), heads.AFFINE),
        "template": (template["labels"], heads.AFFINE),
        "magnitude": (np.where(parts["t1w"] > 20, 130 - parts["t1w"], 1)[..., cut], affine),
        "mask": (parts["mask"][..., cut], affine),
        "all": (np.ones(parts["mask"][..., cut].shape, np.uint8), affine),
    }
    paths = {
        name: images.save(np.asarray(array), tmp_path / f"{name}.nii", place)
        for name, (array, place) in files.items()
    }
    t1w, magnitude, mask = (itk.read_image(paths[n]) for n in ("t1w", "magnitude", "mask"))
    registration.register_rigid(t1w, magnitude, tmp_path / "r.txt", moving_mask=mask)
    brain, view = (
        itk.to_itk(
            resample(paths[name], paths["t1w"], [tmp_path / "r.txt"], interpolation="label"),
            heads.AFFINE,
        )
        for name in ("mask", "all")
    )
    info = registration.register_to_template(
        *(itk.to_itk(template[k], heads.AFFINE) for k in ("t1w", "mask")),
        t1w,
        brain,
        tmp_path / "f.h5",
        tmp_path / "i.h5",
        domain=view,
    )
    assert info["restricted_to_field_of_view"] is True
    way_back = [tmp_path / "r.txt", tmp_path / "i.h5"]
    warped = resample(paths["template"], paths["magnitude"], way_back, [True, False], "label")
    truth = parts["labels"][..., cut]
    for label in (1, 2):
        assert registration.dice(warped == label, truth == label) > 0.75
