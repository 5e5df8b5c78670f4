"""Single-step inversion: its defaults, its spheres, and the weight of steep fields."""

import numpy as np
import pytest
from inversion_cases import ANISOTROPIC, ISOTROPIC, OBLIQUE, ellipsoid, make_case, options

from qsmref.reconstruction import invert
from qsmref.reconstruction.inversion import RADIANS_PER_PPM
from qsmref.reconstruction.singlestep import MOST_LAMBDA


@pytest.mark.parametrize(("grid", "b0_dir"), [(ISOTROPIC, OBLIQUE), (ANISOTROPIC, (0, 0, 1))])
def test_defaults(grid, b0_dir):
    # Of the chain without options; regions are right, voxels are left some of their noise.
    case = make_case(*grid, b0_dir)
    chi, _, info = invert(case.total, case.mask, case.size, **options(case))
    assert info["method"] == "single-step"
    assert case.error(chi) < 0.1
    assert case.contrast_error(chi) < 0.0015


def test_steep_fields_count_less():
    # The error of a field is in proportion to its steps: said or not, that is to be expected.
    case = make_case(*ANISOTROPIC)
    steps = sum(np.gradient(case.total, axis=a) ** 2 for a in range(3)) ** 0.5
    wrong = (0.1 * steps * np.random.default_rng(5).standard_normal(steps.shape)).astype(np.float32)
    errors = []
    for share in (0.0, 0.1):
        chi, _, info = invert(
            case.total + wrong, case.mask, case.size, **options(case),
            lambda_=1000.0, edge_fraction=0.9, gradient_noise=share, merit=False,
        )  # fmt: skip
        assert info["gradient_noise"] == share
        errors.append(case.error(chi))
    assert errors[1] < 0.7 * errors[0]


def test_radii_reach_a_neighbour_along_the_longest_side():
    case = make_case(*ANISOTROPIC)
    maps = [
        invert(case.total, case.mask, case.size, **options(case), radii=r, iterations=2)
        for r in ((0.5, 1.5, 4.0), (2.0, 4.0))
    ]
    assert maps[0][2]["radii_used"] == [2.0, 4.0]
    assert np.array_equal(maps[0][0], maps[1][0])


def test_single_step_says_which_sphere_serves_which_voxel():
    case = make_case(*ISOTROPIC)
    _, _, info = invert(
        case.total, case.mask, case.size, **options(case), radii=(1.5, 4.0, 8.0, 30.0), iterations=1
    )
    counts = info["shell_voxels"]
    # The sphere of 30 mm fits nowhere and is left out.
    assert list(counts) == ["1.5", "4", "8"]
    assert sum(counts.values()) + info["voxels_without_data"] == np.count_nonzero(case.mask)
    # The half axes of the mask, 15, 14 and 13 mm, less 8.
    deep = ellipsoid(*ISOTROPIC, (0, 0, 0), (7, 6, 5))
    assert counts["8"] == pytest.approx(np.count_nonzero(deep), rel=0.15)
    assert info["iterations"] == 1
    # Mask, field and squared noise of four radii, and a pair for the map and each sphere in use.
    assert info["fft_count"] == 2 * 3 * 4 + 2 * (1 + 3)


def test_lambda_follows_from_the_noise():
    case = make_case(*ANISOTROPIC)

    def used(noise, **changes):
        given = {**options(case), "noise": noise, **changes}
        info = invert(case.total, case.mask, case.size, **given, iterations=1)[2]
        return info["lambda_used"], info["typical_noise"]

    loud = 40 * case.noise
    once, typical = used(loud, gradient_noise=0.0)
    # The noise of the filtered field, rad: that of the voxel and a little of its neighbours'.
    expected = np.mean(1 / loud[case.mask]) ** -1 * RADIANS_PER_PPM
    assert expected < typical < 1.2 * expected
    twice, _ = used(2 * loud, gradient_noise=0.0)
    assert twice == pytest.approx(once / 4, rel=1e-3)
    # In ppm it is the same noise at any echo spacing, and lambda times the spacing the same weight.
    spaced, _ = used(loud, gradient_noise=0.0, radians_per_ppm=2 * RADIANS_PER_PPM)
    assert spaced == pytest.approx(once / 2, rel=1e-3)
    # Steep fields add to the noise.
    assert used(loud)[0] < once
    # Nothing known of the noise, or next to none: the most there is.
    assert used(None)[0] == used(1e-6 * case.noise, gradient_noise=0.0)[0] == MOST_LAMBDA
    assert used(None)[1] is None
    assert used(loud, lambda_=123.0)[0] == 123.0


def test_a_constant_laplacian_is_found_and_taken_out():
    # x^2 is no background: no source outside the mask makes it, so the map would have to.
    case = make_case(*ANISOTROPIC)
    x = (np.arange(case.mask.shape[0]) - case.mask.shape[0] / 2) * case.size[0]
    laplacian = 4e-4  # rad per mm^2
    extra = laplacian / 2 * x[:, None, None] ** 2 / RADIANS_PER_PPM
    field = (case.total + extra).astype(np.float32)
    clean, _, _ = invert(case.total, case.mask, case.size, **options(case), iterations=120)
    error = {}
    for free in (False, True):
        chi, _, info = invert(
            field, case.mask, case.size, **options(case), free_laplacian=free, iterations=120
        )
        error[free] = np.std((chi - clean)[case.mask])
        assert ("laplacian" in info) == free
    assert info["laplacian"] == pytest.approx(laplacian, rel=0.1)
    assert error[True] < 0.25 * error[False]
