"""HARPERELLA and its improved variant."""

import numpy as np
import pytest
from background_cases import background, ball, relative, sphere_field

from qsmref.reconstruction import remove_background
from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.harperella import _inverse_laplacian
from qsmref.reconstruction.lbv import negative_laplacian
from qsmref.reconstruction.spheres import spherical_mean

SMALL = {"padding_mm": 20.0, "radius_mm": 8.0, "max_iterations": 25}


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 2)])
def test_inverse_laplacian(size):
    grid = (16, 20, 12)
    field = np.random.default_rng(0).standard_normal(grid)
    edge = np.zeros(grid)
    edge[4:-4, 4:-4, 4:-4] = field[4:-4, 4:-4, 4:-4]
    transform = Transform(grid)
    inverse = _inverse_laplacian(grid, size, np.float64)
    back = spherical_mean(negative_laplacian(edge, size), inverse, transform)
    assert np.abs(back - (edge - edge.mean())).max() < 1e-12


@pytest.mark.parametrize("variant", ["harperella", "iharperella"])
@pytest.mark.parametrize(("shape", "size"), [((44, 44, 44), (1, 1, 1)), ((44, 44, 22), (1, 1, 2))])
def test_background_is_removed_and_some_local_field_kept(shape, size, variant):
    mask = ball(shape, size, 20)
    field = background(shape, size, (0.3, -0.5, 0.8))
    left, kept, _ = remove_background(field, mask, size, "harperella", variant=variant, **SMALL)
    assert np.array_equal(kept, mask)
    assert relative(field - left, field, mask) < 5e-3
    truth = sphere_field(shape, size, (0, 0, 0), 5, 0.1)
    local, _, _ = remove_background(truth, mask, size, "harperella", variant=variant, **SMALL)
    # The loss is large by nature: half of the field of a sphere in the middle, or a quarter.
    assert relative(local, truth, mask) < {"harperella": 0.6, "iharperella": 0.35}[variant]
    assert np.corrcoef(local[mask], truth[mask])[0, 1] > 0.85


def test_improved_variant_leaves_less_field():
    shape, size = (36, 36, 36), (1, 1, 1)
    mask = ball(shape, size, 15)
    truth = sphere_field(shape, size, (3, 0, 0), 4, 0.1)
    norms = []
    for iterations in (5, 40):
        parameters = {**SMALL, "variant": "iharperella", "max_iterations": iterations}
        local, _, info = remove_background(truth, mask, size, "harperella", **parameters)
        norms.append(np.linalg.norm(local))
        assert info["iterations"] == iterations
    assert norms[1] < norms[0]
