"""Single-step inversion: its defaults, its spheres, and the weight of steep fields."""

import tracemalloc

import numpy as np
import pytest
from inversion_cases import ANISOTROPIC, ISOTROPIC, OBLIQUE, ellipsoid, make_case, options

from qsmref.reconstruction import invert
from qsmref.reconstruction.admm import TotalVariation
from qsmref.reconstruction.inversion import RADIANS_PER_PPM
from qsmref.reconstruction.parameters import check_parameters
from qsmref.reconstruction.singlestep import (
    FIRST_LAMBDA,
    LAMBDA_PER_ROUGHNESS,
    ROUGHEST,
    WIDTH_PER_ROUGHNESS,
)


@pytest.mark.parametrize(("grid", "b0_dir"), [(ISOTROPIC, OBLIQUE), (ANISOTROPIC, (0, 0, 1))])
def test_defaults(grid, b0_dir):
    # Of the chain without options; regions are right, voxels are left some of their noise.
    case = make_case(*grid, b0_dir)
    chi, _, info = invert(case.total, case.mask, case.size, **options(case))
    assert info["method"] == "single-step"
    assert case.error(chi) < 0.1
    assert case.contrast_error(chi) < 0.0015


def test_voxels_without_data_follow_their_neighbours():
    # The magnitude is noise in the rim, so that every difference there looks like an edge.
    case = make_case(*ISOTROPIC)
    rng = np.random.default_rng(8)
    given = options(case)
    depth = ellipsoid(*ISOTROPIC, (0, 0, 0), (12.5, 11.5, 10.5))
    rim = case.mask & ~depth
    given["magnitude"] = np.where(rim, rng.random(rim.shape), given["magnitude"]).astype(np.float32)
    chi, _, info = invert(case.total, case.mask, case.size, **given)
    assert info["voxels_without_data"] > 0
    assert np.std(chi[rim]) < 0.01  # the truth is zero there, the regions 0.12 at most


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


def test_radii_are_a_list():
    check_parameters("inversion", "single-step", {"radii": (1.5, 4.0)})
    check_parameters("inversion", "single-step", {"radii": None})
    with pytest.raises(ValueError, match="radii is 5.0, where a list of numbers is expected"):
        check_parameters("inversion", "single-step", {"radii": 5.0})
    with pytest.raises(ValueError, match="huber_width is .*, where a number is expected"):
        check_parameters("inversion", "single-step", {"huber_width": (1.0, 2.0)})


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
    # Mask, field and squared noise of three radii, and a pair for the map and each sphere in use.
    assert info["fft_count"] == 2 * 3 * 3 + 2 * (1 + 3)


def test_lambda_follows_from_the_roughness_of_the_map():
    case = make_case(*ANISOTROPIC)

    def used(noise, iterations=10, **changes):
        given = {**options(case), "noise": noise, **changes}
        return invert(case.total, case.mask, case.size, **given, iterations=iterations)[2]

    first = used(case.noise, 9)
    assert first["lambda_used"] == pytest.approx(FIRST_LAMBDA, rel=0.01)
    assert "roughness" not in first
    later = used(case.noise)
    assert later["lambda_used"] == pytest.approx(
        LAMBDA_PER_ROUGHNESS * later["roughness"], rel=0.01
    )
    # It is a question of the map and not of the noise, unless there is much of it.
    unknown = used(None)
    expected = LAMBDA_PER_ROUGHNESS * unknown["roughness"]
    assert unknown["lambda_used"] == pytest.approx(expected, rel=0.01)
    loud = used(200 * case.noise, gradient_noise=0.0)
    bound = ROUGHEST * RADIANS_PER_PPM / (2 * loud["typical_noise"] ** 2)
    assert loud["lambda_used"] == pytest.approx(bound, rel=1e-6)
    # In ppm it is the same map at any echo spacing, and lambda times the spacing the same weight.
    spaced = used(case.noise, 9, radians_per_ppm=2 * RADIANS_PER_PPM)
    assert spaced["lambda_used"] == pytest.approx(first["lambda_used"] / 2, rel=1e-6)
    spaced = used(case.noise, radians_per_ppm=2 * RADIANS_PER_PPM)
    assert spaced["roughness"] == pytest.approx(later["roughness"], rel=0.2)
    assert used(case.noise, lambda_=123.0)["lambda_used"] == 123.0


def test_the_huber_width_follows_from_the_roughness_too():
    case = make_case(*ANISOTROPIC)

    def used(iterations=10, **changes):
        given = {**options(case), **changes}
        return invert(case.total, case.mask, case.size, **given, iterations=iterations)[2]

    assert used(9)["huber_width_used"] == 0
    later = used()
    assert later["huber_width_used"] == pytest.approx(WIDTH_PER_ROUGHNESS * later["roughness"])
    fixed = used(lambda_=500.0)
    assert fixed["lambda_used"] == 500
    assert fixed["huber_width_used"] == pytest.approx(WIDTH_PER_ROUGHNESS * fixed["roughness"])
    given = used(huber_width=0.002)
    assert given["huber_width_used"] == pytest.approx(0.002)
    assert given["lambda_used"] == pytest.approx(
        LAMBDA_PER_ROUGHNESS * given["roughness"], rel=0.01
    )
    assert "roughness" not in used(lambda_=500.0, huber_width=0.0)
    with pytest.raises(ValueError, match="huber_width must not be negative"):
        used(huber_width=-1e-3)


def test_it_settles_within_sixty_iterations():
    case = make_case(*ANISOTROPIC)
    maps = [
        invert(case.total, case.mask, case.size, **options(case), iterations=n)[0]
        for n in (60, 240)
    ]
    change = (maps[0] - maps[1])[case.mask]
    assert change.std() < 0.01 * maps[1][case.mask].std()


def test_typical_noise_is_that_of_the_field():
    case = make_case(*ANISOTROPIC)
    info = invert(
        case.total, case.mask, case.size, **options(case), gradient_noise=0.0, iterations=1
    )[2]
    # rad
    expected = np.mean(1 / case.noise[case.mask]) ** -1 * RADIANS_PER_PPM
    assert info["typical_noise"] == pytest.approx(expected, rel=1e-5)
    filtered = invert(
        case.total, case.mask, case.size, **options(case), gradient_noise=0.0, iterations=1,
        radii=(1.5, 4.0, 12.0),
    )[2]  # fmt: skip
    # That of the voxel and a little of its neighbours'.
    assert expected < filtered["typical_noise"] < 1.2 * expected
    given = {**options(case), "noise": None}
    assert (
        invert(case.total, case.mask, case.size, **given, iterations=1)[2]["typical_noise"] is None
    )


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


def test_what_tissue_pretends_is_no_laplacian():
    case = make_case(*ANISOTROPIC)
    maps = [
        invert(case.total, case.mask, case.size, **options(case), free_laplacian=free)
        for free in (True, False)
    ]
    assert maps[0][2]["laplacian"] == 0
    assert np.abs(maps[0][0] - maps[1][0]).max() < 1e-3


def test_the_drift_shrinks_firmly():
    def fitted(value):
        state = TotalVariation.__new__(TotalVariation)
        state.data = np.full((2, 2, 2), value, np.float32)
        state.weight2 = np.ones_like(state.data)
        state.shell = np.ones(state.data.shape, np.uint8)
        state.drift, state.drift_limits = np.array([0.0, 1.0]), (1.0, 2.0)
        return state._fit_drift(np.zeros_like(state.data))

    values = [0.5, -1.0, 1.5, -1.5, 2.0, -3.0]
    assert np.allclose([fitted(v) for v in values], [0, 0, 1, -1, 2, -3])


def test_given_lambda_and_width_are_told_as_given():
    # Not rounded to the precision of the map: the rounding would pass for a jump of lambda, after
    # which the constant Laplacian is not fitted for a while.
    case = make_case(*ANISOTROPIC)
    given = {**options(case), "lambda_": 0.1, "huber_width": 0.003, "iterations": 1}
    info = invert(case.total, case.mask, case.size, **given)[2]
    assert info["lambda_used"] == 0.1
    assert info["huber_width_used"] == pytest.approx(0.003, rel=1e-14)


def test_memory_stays_within_some_volumes_of_the_grid():
    # Beside the inputs; arrays of numpy, peak over set-up, both MERIT rounds and the result.
    size, mask = (1.0, 1.0, 1.0), ellipsoid((96, 96, 96), (1.0, 1.0, 1.0), (0, 0, 0), (34, 38, 30))
    rng = np.random.default_rng(0)
    field, magnitude = rng.standard_normal((2, *mask.shape)).astype(np.float32)
    given = {"magnitude": 10 + magnitude, "noise": np.ones_like(field), "radians_per_ppm": 3.0}
    invert(field, mask, size, iterations=21, **given)  # compiling takes memory too
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        _, _, info = invert(field, mask, size, iterations=41, **given)
        peak = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    assert peak < 16 * 4 * np.prod(info["grid"])
