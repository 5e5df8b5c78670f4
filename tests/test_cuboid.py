"""The kernel between cuboid voxels, against closed forms."""

import numpy as np
import pytest

from qsmref.reconstruction import forward_field
from qsmref.reconstruction.cuboid import cuboid_kernel


def _ball(shape, size, radius, parts=5):
    """Part of each voxel inside a centred ball, and its coordinates (mm)."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = np.zeros(shape)
    steps = [((np.arange(parts) + 0.5) / parts - 0.5) * h for h in size]
    for dx in steps[0]:
        for dy in steps[1]:
            for dz in steps[2]:
                inside += (x + dx) ** 2 + (y + dy) ** 2 + (z + dz) ** 2 < radius**2
    return inside / parts**3, np.stack([x, y, z])


@pytest.mark.parametrize(
    ("shape", "size"), [((48, 48, 48), (1, 1, 1)), ((64, 64, 20), (0.625, 0.625, 2))]
)
@pytest.mark.parametrize("b0", [(0, 0, 1), (0.3, 0.4, 0.866)])
def test_field_of_a_ball_away_from_its_border(shape, size, b0):
    radius = 0.2 * shape[0] * size[0]
    chi, position = _ball(shape, size, radius)
    distance = np.linalg.norm(position, axis=0)
    b0 = np.array(b0) / np.linalg.norm(b0)
    cosine = np.tensordot(b0, position, 1) / distance
    expected = np.where(distance > radius, (3 * cosine**2 - 1) / 3 * (radius / distance) ** 3, 0)
    away = np.abs(distance - radius) > 2.5 * max(size)
    field = forward_field(chi.astype(np.float32), size, b0, cuboid=True)
    assert np.sqrt(np.mean((field - expected)[away] ** 2)) < 6e-4
    assert np.abs(field - expected)[away].max() < 8e-3


def test_oblique_field_around_a_sharp_border_rings_less_than_the_band_limited_one():
    chi, position = _ball((40, 40, 40), (1, 1, 1), 8.0, parts=1)
    distance = np.linalg.norm(position, axis=0)
    b0 = np.array([0.3, 0.4, 0.866]) / np.linalg.norm([0.3, 0.4, 0.866])
    cosine = np.tensordot(b0, position, 1) / distance
    expected = (3 * cosine**2 - 1) / 3 * (8.0 / distance) ** 3
    # The ball of whole voxels is not quite round, so that a few per mille remain for any kernel.
    away = distance > 12
    error = {
        cuboid: np.std((forward_field(chi, (1, 1, 1), b0, cuboid=cuboid) - expected)[away])
        for cuboid in (False, True)
    }
    assert error[True] < 0.5 * error[False]


def test_zero_at_the_origin_and_continuous_at_the_nyquist_frequency():
    kernel = cuboid_kernel((32, 32, 32), (1, 1, 1), (0.3, 0.4, 0.866), np.float64)
    assert kernel[0, 0, 0] == 0
    # D itself jumps there from one side to the other; the sum over aliases is periodic.
    assert np.abs(kernel[16] - kernel[15]).max() < 0.1 * np.abs(kernel).max()
