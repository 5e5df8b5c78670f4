"""Spheres, the boxes that masks are cut to, and conjugate gradients."""

import numpy as np
import pytest
from background_cases import coordinates, interior_harmonic

from qsmref.reconstruction.crop import bounding_box, paste
from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.krylov import conjugate_gradients
from qsmref.reconstruction.spheres import sphere_spectrum, sphere_weights, spherical_mean

SPACINGS = [(1, 1, 1), (1, 1, 2), (0.625, 0.625, 2), (2, 1, 1.5)]


@pytest.mark.parametrize("voxel_size", SPACINGS)
@pytest.mark.parametrize("radius", [2.0, 3.0, 6.0])
def test_sphere_passes_harmonic_polynomials(voxel_size, radius):
    weights = sphere_weights(radius, voxel_size)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= 0
    x, y, z = coordinates(weights.shape, voxel_size)
    for harmonic in (x, x * y, x**2 - z**2, 2 * z**2 - x**2 - y**2, z * (2 * z**2 - 3 * x**2)):
        assert abs(np.sum(weights * harmonic)) < 1e-9 * radius**2


@pytest.mark.parametrize("voxel_size", SPACINGS)
def test_sphere_has_the_size_in_mm(voxel_size):
    weights = sphere_weights(6.0, voxel_size)
    # The mean of r^2 over a sphere is 3/5 of the radius squared, up to a voxel's own extent.
    x, y, z = coordinates(weights.shape, voxel_size)
    extent = sum(h**2 for h in voxel_size) / 12
    assert np.sum(weights * (x**2 + y**2 + z**2)) == pytest.approx(0.6 * 36, abs=1.5 * extent)


def test_tiny_sphere_is_one_voxel_and_a_flat_one_stays_as_it_is():
    assert sphere_weights(0.4, (1, 1, 1)).shape == (1, 1, 1)
    flat = sphere_weights(1.5, (1, 1, 4))
    assert flat.shape[2] == 1
    assert flat.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="radius must be positive"):
        sphere_weights(0, (1, 1, 1))


def test_spherical_mean_of_a_harmonic_field_is_the_field():
    voxel_size = (1, 1, 2)
    field = interior_harmonic((32, 32, 20), voxel_size).astype(np.float32)
    transform = Transform(field.shape, (48, 48, 32))
    mean = spherical_mean(field, sphere_spectrum(transform.grid, voxel_size, 4), transform)
    core = (slice(8, -8), slice(8, -8), slice(4, -4))
    assert np.abs(mean - field)[core].max() < 1e-5 * np.abs(field).max()


def test_bounding_box_and_paste():
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 0:3, 7] = True
    box = bounding_box(mask, margin=(1, 1, 0))
    assert box == (slice(1, 5), slice(0, 4), slice(7, 8))
    assert np.array_equal(paste(mask[box], box, mask.shape), mask)
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3, 3), bool))


def test_conjugate_gradients_solve_a_matrix():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    matrix = root @ root.T + np.eye(12)
    truth = rng.standard_normal(12)
    solution, done = conjugate_gradients(lambda x: matrix @ x, matrix @ truth, 1e-10, 40)
    assert np.abs(solution - truth).max() < 1e-7
    assert done["converged"]
    exact = np.linalg.inv(matrix)
    _, done = conjugate_gradients(
        lambda x: matrix @ x, matrix @ truth, 1e-8, 40, precondition=lambda r: exact @ r
    )
    assert done["iterations"] <= 2
    # An operator may tell the product that it has made on the way: the same steps.
    told = [
        conjugate_gradients(operator, matrix @ truth, 0.0, 5)[0]
        for operator in (lambda x: matrix @ x, lambda x: (matrix @ x, float(x @ matrix @ x)))
    ]
    assert np.allclose(*told, rtol=1e-10)
    assert np.abs(told[0] - truth).max() > 1e-7
    zero, done = conjugate_gradients(lambda x: matrix @ x, np.zeros(12), 1e-8, 40)
    assert not zero.any()
    assert done == {"iterations": 0, "residual": 0.0, "converged": True}
