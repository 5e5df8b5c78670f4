"""Spherical means: what passes, what is left, and how the stencil lies on the grid."""

import numpy as np
import pytest
from background_cases import background, ball, coordinates, sphere_field
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.spheres import (
    second_moment,
    sphere_spectrum,
    sphere_weights,
    spherical_mean,
    weights_spectrum,
)

sizes = st.tuples(*[st.floats(0.5, 2.5)] * 3)


@given(radius=st.floats(0.3, 6), size=sizes)
@settings(max_examples=40, deadline=None)
def test_weights_are_a_symmetric_mean(radius, size):
    weights = sphere_weights(radius, size)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= -1e-15
    for axis in range(3):
        assert weights.shape[axis] % 2 == 1
        assert np.allclose(weights, np.flip(weights, axis), atol=1e-12)
    # No voxel without a part inside the sphere carries weight.
    x, y, z = coordinates(weights.shape, size)
    near = sum(np.maximum(np.abs(c) - h / 2, 0) ** 2 for c, h in zip((x, y, z), size, strict=True))
    assert np.abs(weights[near > radius**2]).max(initial=0) == 0


@given(radius=st.floats(3, 8), size=sizes)
@settings(max_examples=40, deadline=None)
def test_second_moments_are_equal(radius, size):
    weights = sphere_weights(radius, size)
    moments = [np.sum(weights * c**2) for c in coordinates(weights.shape, size)]
    assert np.ptp(moments) < 1e-6 * max(moments)


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (1, 0, 2)])
def test_turning_the_axes_turns_the_stencil(order):
    size = (0.625, 1.0, 2.0)
    weights = sphere_weights(4.0, size)
    turned = sphere_weights(4.0, [size[i] for i in order])
    assert np.allclose(turned, np.transpose(weights, order), atol=1e-14)


def test_isotropic_weights_are_volumes():
    # The middle voxel lies inside the sphere: it stands for one voxel out of the sphere's volume.
    weights = sphere_weights(2.0, (1, 1, 1), samples=40)
    inner = weights[2, 2, 2]
    assert 1 / inner == pytest.approx(4 / 3 * np.pi * 8, rel=2e-3)
    assert weights.max() == inner


def test_spectrum_is_that_of_the_stencil_at_the_origin():
    grid, size = (14, 15, 9), (1, 1, 2)
    weights = sphere_weights(3.0, size)
    spectrum = sphere_spectrum(grid, size, 3.0, np.float64)
    assert spectrum[0, 0, 0] == pytest.approx(1, abs=1e-12)
    assert np.abs(spectrum).max() <= 1 + 1e-12
    delta = np.zeros(grid)
    delta[6, 7, 4] = 1
    image = spherical_mean(delta, spectrum, Transform(grid))
    a, b, c = (n // 2 for n in weights.shape)
    box = (slice(6 - a, 7 + a), slice(7 - b, 8 + b), slice(4 - c, 5 + c))
    assert np.abs(image[box] - weights).max() < 1e-14
    image[box] = 0
    assert np.abs(image).max() < 1e-14


def test_spectrum_of_squares_gives_variances():
    # Noise of equal variance comes out of the mean with the sum of the squared weights.
    weights = sphere_weights(2.5, (1, 1, 1))
    squares = weights_spectrum((16, 16, 16), weights**2, np.float64)
    variance = spherical_mean(np.ones((16, 16, 16)), squares, Transform((16, 16, 16)))
    assert variance == pytest.approx(np.sum(weights**2))


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0.3, -0.5, 0.8)])
@pytest.mark.parametrize(("shape", "size"), [((44, 44, 44), (1, 1, 1)), ((44, 44, 22), (1, 1, 2))])
def test_background_passes_and_local_sources_do_not(shape, size, b0_dir):
    mask = ball(shape, size, 20)
    field = background(shape, size, b0_dir)
    transform = Transform(shape, [2 * n for n in shape])
    sphere = sphere_spectrum(transform.grid, size, 5.0, np.float64)
    core = spherical_mean(mask.astype(float), sphere, transform) > 0.9995
    left = (field - spherical_mean(field, sphere, transform))[core]
    assert np.linalg.norm(left) < 1e-3 * np.linalg.norm(field[core])
    # The sphere leaves a source of its own size much of its field.
    local = sphere_field(shape, size, (0, 0, 0), 4, 1.0, b0_dir)
    kept = (local - spherical_mean(local, sphere, transform))[core]
    assert np.linalg.norm(kept) > 0.5 * np.linalg.norm(local[core])


def test_precision():
    grid, size = (20, 20, 12), (1, 1, 2)
    x = np.random.default_rng(0).standard_normal(grid)
    double = spherical_mean(x, sphere_spectrum(grid, size, 4, np.float64), Transform(grid))
    single = spherical_mean(x.astype(np.float32), sphere_spectrum(grid, size, 4), Transform(grid))
    assert single.dtype == np.float32
    assert np.abs(single - double).max() < 1e-6 * np.abs(x).max()


def test_bad_input():
    with pytest.raises(ValueError, match=r"does not fit on a grid of \(4, 9, 9\)"):
        sphere_spectrum((4, 9, 9), (1, 1, 1), 3.0)
    with pytest.raises(ValueError, match="radius must be positive"):
        sphere_weights(-1.0, (1, 1, 1))


def test_second_moment_of_a_large_sphere():
    assert second_moment(10.0, (1.0, 1.0, 1.0)) == pytest.approx(60.0, rel=0.01)
