"""Transforms of ITK and FSL, and the one resampling through them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from qsmref import images, itk, transforms
from qsmref.problems import DataError, ExitCode
from qsmref.resampling import resample


def affine_of(voxel, angles=(0, 0, 0), origin=(0, 0, 0)) -> np.ndarray:
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag(voxel)
    matrix[:3, 3] = origin
    return matrix


#: From the fixed to the moving space: rotation, some scaling, shift.
WAY = affine_of((1.05, 1.0, 0.97), (3, -7, 12), (3, -5, 7))
#: An oblique grid with a mirrored axis, and a plain one.
MOVING = affine_of((-1.5, 2, 2.5), (10, 20, -5), (30, -40, -20))
FIXED = affine_of((2, 2.2, 1.8), origin=(-35, -40, -30))


@pytest.fixture
def pair(tmp_path):
    """A smooth image on the one grid, an empty one on the other."""
    rng = np.random.default_rng(0)
    values = gaussian_filter(rng.standard_normal((40, 44, 36)), 2).astype(np.float32)
    moving = images.save(values, tmp_path / "moving.nii", MOVING)
    fixed = images.save(np.zeros((36, 40, 38), np.float32), tmp_path / "fixed.nii", FIXED)
    return values, moving, fixed


def places(way: np.ndarray, shape, of=MOVING) -> np.ndarray:
    """Voxel indices of the moving image for every voxel of the fixed one, (3, n)."""
    index = np.vstack([np.indices(shape).reshape(3, -1), np.ones(np.prod(shape))])
    return (np.linalg.inv(of) @ way @ FIXED @ index)[:3]


@pytest.mark.parametrize("extension", ["mat", "txt"])
def test_an_affine_comes_back_from_its_file(tmp_path, extension):
    path = itk.write_affine(tmp_path / f"a.{extension}", WAY)
    assert np.allclose(itk.read_affine(path), WAY, atol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("extension", ["mat", "txt"])
def test_values_are_those_of_a_linear_interpolation(pair, tmp_path, extension, inverse):
    values, moving, fixed = pair
    path = itk.write_affine(tmp_path / f"a.{extension}", WAY)
    result = resample(moving, fixed, [path], [inverse], out_path=tmp_path / "out.nii")
    where = places(np.linalg.inv(WAY) if inverse else WAY, result.shape)
    expected = map_coordinates(values, where, order=1).reshape(result.shape)
    inside = np.all((where > 0) & (np.array(values.shape) - 1 > where.T).T, axis=0)
    inside = inside.reshape(result.shape)
    assert inside.mean() > 0.3
    assert np.abs(result - expected)[inside].max() < 1e-5
    stored, image = images.load(tmp_path / "out.nii")
    assert np.array_equal(stored, result)
    assert np.allclose(image.affine, FIXED, atol=1e-5)


def test_transforms_apply_in_the_order_of_ants(pair, tmp_path):
    _, moving, fixed = pair
    shift, turn = affine_of((1, 1, 1), origin=(5, 0, 0)), affine_of((1, 1, 1), (0, 0, 20))
    paths = [itk.write_affine(tmp_path / f"{i}.mat", m) for i, m in enumerate((turn, shift))]
    both = itk.write_affine(tmp_path / "both.mat", shift @ turn)
    chained = resample(moving, fixed, paths)
    assert np.allclose(chained, resample(moving, fixed, [both]), atol=1e-5)
    # Two steps would interpolate twice; one does not blur.
    assert not np.allclose(chained, resample(moving, fixed, paths[::-1]), atol=1e-3)


def test_the_label_with_the_largest_share_wins(tmp_path, pair):
    _, _, fixed = pair
    rng = np.random.default_rng(1)
    labels = np.kron(rng.choice([0, 3, 7, 1200], (10, 11, 9)), np.ones((4, 4, 4))).astype(np.int32)
    moving = images.save(labels, tmp_path / "labels.nii", MOVING)
    path = itk.write_affine(tmp_path / "a.mat", WAY)
    result = resample(moving, fixed, [path], interpolation="label")
    assert result.dtype == np.int32
    where = places(WAY, result.shape)
    inside = np.all((where > 0) & (np.array(labels.shape) - 1 > where.T).T, axis=0)
    present = np.unique(labels)
    shares = np.stack(
        [map_coordinates((labels == v).astype(float), where, order=1) for v in present]
    )
    first, second = np.sort(shares, axis=0)[::-1][:2]
    clear = inside & (first - second > 1e-3)
    assert clear.mean() > 0.3
    assert np.array_equal(result.ravel()[clear], present[shares.argmax(axis=0)][clear])
    nearest = map_coordinates(labels, where, order=0)
    assert (nearest != result.ravel())[clear].any()


def test_what_cannot_be_used_is_told(pair, tmp_path):
    _, moving, fixed = pair
    with pytest.raises(DataError, match="does not exist") as caught:
        resample(moving, fixed, [tmp_path / "none.mat"])
    assert caught.value.code == ExitCode.MISSING_INPUT
    with pytest.raises(ValueError, match="as many flags"):
        resample(moving, fixed, [], [True])
    with pytest.raises(ValueError, match="must be one of linear, label"):
        resample(moving, fixed, [], interpolation="nearest")
    sheared = FIXED.copy()
    sheared[0, 1] = 0.5
    with pytest.raises(DataError, match="sheared"):
        itk.itk_geometry(sheared)
    (tmp_path / "bad.txt").write_text("no transform")
    with pytest.raises(DataError, match="bad.txt"):
        itk.read_affine(tmp_path / "bad.txt")


# The example of nitransforms (nipy/nitransforms, nitransforms/tests/data/affine-RAS.fsl): an image
# of 57 x 67 x 56 voxels of 2.75 mm, turned and shifted as its tests say.
EXAMPLE_AFFINE = affine_of((2.75, 2.75, 2.75), origin=(-78, -91, -91))
EXAMPLE_FLIRT = np.array(
    [
        [0.99999900, -0.00140494, -0.00016172, 4.14529000],
        [0.00100000, 0.62160900, 0.78332700, -37.38110000],
        [-0.00100000, -0.78332700, 0.62161000, 107.97600000],
        [0, 0, 0, 1],
    ]
)


def test_flirt_matrix_of_a_published_example(tmp_path):
    from nibabel.eulerangles import euler2mat

    image = images.save(np.zeros((57, 67, 56), np.uint8), tmp_path / "a.nii", EXAMPLE_AFFINE)
    turn = np.eye(4)
    turn[:3, :3] = euler2mat(x=0.9, y=0.001, z=0.001)
    turn[:3, 3] = 4, 2, -1
    assert np.allclose(transforms.from_flirt(EXAMPLE_FLIRT, image, image), turn, atol=2e-3)
    assert np.allclose(transforms.to_flirt(turn, image, image), EXAMPLE_FLIRT, atol=1e-3)


@pytest.mark.parametrize("handed", [(-1, 1), (1, -1), (1, 1), (-1, -1)])
def test_flirt_matrices_follow_the_rule_of_its_author(tmp_path, handed):
    # M. Jenkinson, list of FSL, 27 July 2009: voxel to voxel is Wref inv(Sref) M Sin Win, W being
    # the swap of x of a neurological image, and S the voxel sizes.
    shapes, sizes = ((20, 24, 18), (30, 28, 22)), ((2.0, 2.5, 3.0), (1.0, 1.2, 1.5))
    swaps, affines, paths = [], [], []
    for k, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
        voxel = (handed[k] * size[0], *size[1:])
        affines.append(affine_of(voxel, (5, -8, 3), (handed[k] * -20, -30, 10)))
        paths.append(images.save(np.zeros(shape, np.uint8), tmp_path / f"{k}.nii", affines[k]))
        swap = np.eye(4)
        if np.linalg.det(affines[k]) > 0:
            swap[0, 0], swap[0, 3] = -1, shape[0] - 1
        swaps.append(np.diag([*size, 1.0]) @ swap)
    voxel_to_voxel = np.linalg.inv(swaps[1]) @ WAY @ swaps[0]
    world = affines[1] @ voxel_to_voxel @ np.linalg.inv(affines[0])
    made = transforms.from_flirt(WAY, paths[0], paths[1])
    assert np.allclose(made, np.linalg.inv(world), atol=1e-4)
    assert np.allclose(transforms.to_flirt(made, paths[0], paths[1]), WAY, atol=1e-4)


def test_flirt_matrix_becomes_a_file_of_itk(pair, tmp_path):
    _, moving, fixed = pair
    np.savetxt(tmp_path / "m.mat", transforms.to_flirt(WAY, moving, fixed))
    path = transforms.flirt_to_itk(tmp_path / "m.mat", moving, fixed, tmp_path / "m.txt")
    assert np.allclose(itk.read_affine(path), WAY, atol=1e-4)
    (tmp_path / "bad.mat").write_text("1 2 3\n")
    with pytest.raises(DataError, match="not 4 by 4"):
        transforms.read_flirt(tmp_path / "bad.mat")
