"""Voxels that have data of their own: the same as those that the inversion counts."""

import numpy as np
from inversion_cases import ANISOTROPIC, ISOTROPIC, make_case, options

from qsmref.reconstruction import invert
from qsmref.reconstruction.confidence import confidence_mask


def test_confident_voxels_are_those_that_a_sphere_serves():
    for grid in (ISOTROPIC, ANISOTROPIC):
        case = make_case(*grid)
        noise = case.noise.copy()
        place = tuple(n // 2 for n in noise.shape)
        noise.reshape(-1)[np.ravel_multi_index(place, noise.shape)] = 0
        given = {**options(case), "noise": noise}
        _, mask, info = invert(
            case.total, case.mask, case.size, **given, iterations=1, radii=(1.5, 4.0, 12.0)
        )
        confident = confidence_mask(mask, case.size, noise, info["radii_used"])
        assert not (confident & ~mask).any()
        assert np.count_nonzero(confident) == sum(info["shell_voxels"].values())
        assert not confident[place]


def test_confident_voxels_are_those_with_a_laplacian():
    for grid in (ISOTROPIC, ANISOTROPIC):
        case = make_case(*grid)
        noise = case.noise.copy()
        place = tuple(n // 2 for n in noise.shape)
        noise[place] = np.inf
        given = {**options(case), "noise": noise}
        _, mask, info = invert(case.total, case.mask, case.size, **given, iterations=1)
        assert "radii_used" not in info
        assert info["background_model"] == "harmonic"
        confident = confidence_mask(mask, case.size, noise, harmonic=True)
        assert not (confident & ~mask).any()
        without = np.count_nonzero(mask & ~confident)
        assert without == info["voxels_without_data"] > 100
        assert not confident[place]


def test_without_spheres_only_the_noise_counts():
    mask = np.ones((6, 6, 6), bool)
    mask[0] = False
    noise = np.ones(mask.shape)
    noise[3, 3, 3] = np.inf
    expected = mask.copy()
    assert np.array_equal(confidence_mask(mask, (1, 1, 1)), expected)
    expected[3, 3, 3] = False
    assert np.array_equal(confidence_mask(mask, (1, 1, 1), noise), expected)
    assert not confidence_mask(~mask & mask, (1, 1, 1), noise, (1.5,)).any()


def test_the_rim_is_one_sphere_deep():
    mask = np.zeros((20, 20, 20), bool)
    mask[4:16, 4:16, 4:16] = True
    confident = confidence_mask(mask, (2.0, 2.0, 2.0), radii=(12.0, 2.0))
    assert np.array_equal(np.argwhere(confident).min(0), [5, 5, 5])
    assert np.array_equal(np.argwhere(confident).max(0), [14, 14, 14])
