"""The forward model of the phantom against closed forms: ball and cylinder, to 0.1 %."""

import numpy as np
import pytest

from qsmref.phantom.fields import free_field, make_fields
from qsmref.phantom.grid import Grid
from qsmref.phantom.head import Region, rotation_matrix
from qsmref.phantom.labels import LabelImage
from qsmref.reconstruction.cuboid import cuboid_kernel
from qsmref.reconstruction.fft import Transform

OBLIQUE = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
AXIAL = np.array([0.0, 0.0, 1.0])


def ball(shape, size, radius, parts=6):
    """Part of each voxel within a centred ball, and coordinates in mm."""
    fine = [
        (((np.arange(n * parts) + 0.5) / parts - n / 2) * h) ** 2
        for n, h in zip(shape, size, strict=True)
    ]
    inside = fine[0][:, None, None] + fine[1][:, None] + fine[2] <= radius**2
    nx, ny, nz = shape
    chi = inside.reshape(nx, parts, ny, parts, nz, parts).mean(axis=(1, 3, 5))
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, size, strict=True)]
    return chi, np.stack(np.meshgrid(*axes, indexing="ij"))


def ball_field(position, radius, b0_dir):
    distance = np.linalg.norm(position, axis=0)
    cosine = np.tensordot(b0_dir, position, 1) / distance
    outside = (3 * cosine**2 - 1) / 3 * (radius / distance) ** 3
    return np.where(distance > radius, outside, 0), distance


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize(
    ("shape", "size", "radius"),
    [((96, 96, 30), (0.625, 0.625, 2), 12.0), ((64, 64, 18), (4, 4, 8), 60.0)],
    ids=["fine", "flat field of view"],
)
def test_ball(shape, size, radius, b0_dir):
    chi, position = ball(shape, size, radius)
    expected, distance = ball_field(position, radius, b0_dir)
    away = np.abs(distance - radius) > 2 * max(size)
    error = (free_field(chi, size, b0_dir, cuboid=True) - expected)[away]
    # The largest field is 2 chi / 3, at the poles.
    assert np.sqrt(np.mean(error**2)) < 1e-3 * 2 / 3
    assert np.abs(error).max() < 1e-2 * 2 / 3


@pytest.mark.parametrize("b0_dir", [np.array([1.0, 0, 0]), OBLIQUE], ids=["across", "oblique"])
def test_cylinder(b0_dir):
    # Along z without end, on a wide periodic grid; voxels of 0.625 x 0.625 x 2 mm.
    h, count, radius, parts = 0.625, 256, 6.0, 12
    fine = ((np.arange(count * parts) + 0.5) / parts - count / 2) * h
    disc = fine[:, None] ** 2 + fine**2 <= radius**2
    disc = disc.reshape(count, parts, count, parts).mean(axis=(1, 3))
    chi = np.repeat(disc[..., None], 2, axis=2)
    transform = Transform(chi.shape)
    kernel = cuboid_kernel(chi.shape, (h, h, 2), b0_dir, np.float64)
    field = transform.inverse(transform.forward(chi) * kernel)[..., 0]
    across = b0_dir[0] ** 2 + b0_dir[1] ** 2
    # A mean susceptibility has no field on a periodic grid: it is put back.
    field += chi.mean() * (1 / 3 - across / 2)
    axis = (np.arange(count) - (count - 1) / 2) * h
    square = axis[:, None] ** 2 + axis**2
    along = (b0_dir[0] * axis[:, None] + b0_dir[1] * axis) ** 2 / (square * across)
    outside = across / 2 * radius**2 / square * (2 * along - 1)
    expected = np.where(square < radius**2, (3 * b0_dir[2] ** 2 - 1) / 6, outside)
    distance = np.sqrt(square)
    error = (field - expected)[(np.abs(distance - radius) > 2) & (distance < 30)]
    top = across / 2
    assert np.sqrt(np.mean(error**2)) < 1e-3 * top
    assert np.abs(error).max() < 2e-3 * top


def test_a_head_of_one_ball_has_its_field():
    # Through the whole path of the phantom: labels at a finer grid, air around, oblique B0.
    shape, size, radius = (48, 48, 20), (1.25, 1.25, 3.0), 14.0
    chi, position = ball(np.multiply(shape, 2), np.divide(size, 2), radius, parts=1)
    common = {"sd_ppm": 0.0, "age_ppm_per_year": 0.0, "t1": 1.0, "t2star": 0.05}
    regions = (
        Region(0, "air", "", "n/a", False, 9.0, m0=0.0, **common),
        Region(1, "GM", "", "n/a", True, 0.0, m0=1.0, **common),
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(25) @ np.diag(np.divide(size, 2))
    head = LabelImage((chi > 0).astype(np.uint8), affine, regions, chi > 0)
    fields = make_fields(head, head.grid(shape, size), None, texture=0, shim_order=None)
    assert isinstance(fields.grid, Grid) and fields.factor == (2, 2, 2)
    b0_dir = rotation_matrix(25).T @ [0, 0, 1]
    distance = ball_field(position, radius, b0_dir)[1]
    inside = (distance < radius - 4).reshape(48, 2, 48, 2, 20, 2).all(axis=(1, 3, 5))
    # -9 ppm against the air: no field inside, whatever the direction of B0.
    assert np.abs(fields.total_ppm[inside].mean()) < 1e-3 * 9 * 2 / 3
    assert fields.total_ppm[inside].std() < 2e-3 * 9 * 2 / 3
