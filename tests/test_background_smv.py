"""SHARP, V-SHARP, RESHARP and iterative SMV against fields known in closed form."""

import numpy as np
import pytest
from background_cases import background, ball, relative, sphere_field

from qsmref.reconstruction import remove_background
from qsmref.reconstruction.sharp import _Spheres

CASES = [((44, 44, 44), (1, 1, 1)), ((44, 44, 22), (1, 1, 2))]
METHODS = [
    ("sharp", {"radius_mm": 5}),
    ("v-sharp", {"radius_mm": 8}),
    ("resharp", {"radius_mm": 5}),
    ("ismv", {"radius_mm": 3}),
]


@pytest.mark.parametrize(("method", "parameters"), METHODS)
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_background_is_removed(shape, size, method, parameters):
    mask = ball(shape, size, 20)
    for b0_dir in ((0, 0, 1), (0.3, -0.5, 0.8)):
        field = background(shape, size, b0_dir)
        left, kept, _ = remove_background(field, mask, size, method, **parameters)
        assert relative(field - left, field, kept) < 3e-3


@pytest.mark.parametrize(
    ("method", "parameters", "most"),
    [
        ("sharp", {"radius_mm": 5, "threshold": 0.03}, 0.05),
        ("v-sharp", {"radius_mm": 8}, 0.2),
        ("resharp", {"radius_mm": 5, "regularisation": 1e-5, "tolerance": 1e-3}, 0.2),
        ("ismv", {"radius_mm": 3}, 0.15),
    ],
)
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_local_field_is_kept_within_the_known_loss(shape, size, method, parameters, most):
    # These methods set the local field to zero in the rim they cut, or damp its smooth part:
    # the loss for a sphere of 5 mm in a ball of 20 mm, as measured, relative to the local field.
    mask = ball(shape, size, 20)
    truth = sphere_field(shape, size, (0, 0, 0), 5, 0.1)
    local, kept, _ = remove_background(truth, mask, size, method, **parameters)
    assert relative(local, truth, kept) < most
    both, _, _ = remove_background(
        truth + background(shape, size), mask, size, method, **parameters
    )
    assert relative(both, truth, kept) < most + 0.1


@pytest.mark.parametrize(("method", "parameters"), METHODS)
def test_mask_shrinks_by_the_radius_in_mm(method, parameters):
    smallest = {"v-sharp": 2.0}.get(method, parameters["radius_mm"])
    shape, size = CASES[1]
    mask = ball(shape, size, 20)
    _, kept, info = remove_background(background(shape, size), mask, size, method, **parameters)
    assert info["kept_fraction"] == pytest.approx(kept.sum() / mask.sum())
    for axis, h in enumerate(size):
        other = tuple(a for a in range(3) if a != axis)
        lost = [np.ptp(np.flatnonzero(m.any(axis=other))) / 2 * h for m in (mask, kept)]
        assert lost[0] - lost[1] == pytest.approx(smallest, abs=h)


def test_v_sharp_takes_the_largest_sphere_that_fits():
    shape, size = CASES[0]
    mask = ball(shape, size, 10)
    field = background(shape, size)
    local, kept, info = remove_background(
        field, mask, size, "v-sharp", radius_mm=14, smallest_mm=1.5, step_mm=3
    )
    assert info["radii_mm"] == [8.0, 5.0, 2.0, 1.5]
    assert info["fft_count"] == 2 + 6 + 4 + 2
    # One radius alone is SHARP.
    parameters = {"radius_mm": 5, "threshold": 0.05, "padding_mm": 10}
    one, kept, _ = remove_background(field, mask, size, "v-sharp", smallest_mm=5, **parameters)
    same, other, _ = remove_background(field, mask, size, "sharp", **parameters)
    assert np.array_equal(kept, other)
    assert np.abs(one - same).max() < 1e-12


def test_sharp_threshold_removes_the_smooth_part():
    shape, size = CASES[0]
    mask = ball(shape, size, 20)
    truth = sphere_field(shape, size, (0, 0, 0), 5, 0.1)
    norms = [
        np.linalg.norm(remove_background(truth, mask, size, "sharp", threshold=t)[0])
        for t in (0.01, 0.1, 0.5)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_resharp_dual_solution_is_that_of_the_primal_problem():
    shape, size = (16, 18, 10), (1, 1, 2)
    mask = ball(shape, size, 8)
    rng = np.random.default_rng(3)
    field = rng.standard_normal(shape)
    alpha = 0.01
    local, kept, info = remove_background(
        field, mask, size, "resharp", radius_mm=3, regularisation=alpha, tolerance=1e-12
    )
    assert info["converged"]
    spheres = _Spheres(field, mask, size, 3, 0.0)
    removal, inside = spheres.one_size(3)
    unit = np.eye(spheres.inside.size).reshape(-1, *spheres.inside.shape)
    matrix = np.stack([(spheres.convolve(u, removal) * inside).ravel() for u in unit], axis=1)
    normal = matrix.T @ matrix + alpha * np.eye(len(matrix))
    right = matrix.T @ (matrix @ spheres.field.ravel())
    direct = np.linalg.solve(normal, right).reshape(spheres.inside.shape)
    assert np.abs(local[spheres.box] - direct * inside)[inside].max() < 1e-9


def test_iterative_smv_is_the_limit_of_the_repetition():
    shape, size = (20, 20, 12), (1, 1, 2)
    mask = ball(shape, size, 9)
    field = background(shape, size) + sphere_field(shape, size, (1, 0, 0), 2, 0.1)
    local, kept, info = remove_background(field, mask, size, "ismv", radius_mm=3, tolerance=1e-10)
    spheres = _Spheres(field, mask, size, 3, 0.0)
    mean = 1 - spheres.one_size(3)[0]
    inside = kept[spheres.box]
    estimate = spheres.field.copy()
    for _ in range(400):
        estimate[inside] = spheres.convolve(estimate, mean)[inside]
    assert np.abs(spheres.field - estimate - local[spheres.box]).max() < 1e-7 * np.abs(field).max()
    assert info["iterations"] < 60
