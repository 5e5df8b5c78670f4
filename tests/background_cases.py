"""Fields known in closed form, for the tests of background removal."""

import numpy as np


def coordinates(shape, voxel_size):
    """mm from the centre of the array, one array for each axis, broadcastable."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel_size, strict=True)]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def ball(shape, voxel_size, radius):
    x, y, z = coordinates(shape, voxel_size)
    return x**2 + y**2 + z**2 <= radius**2


def sphere_field(shape, voxel_size, centre, radius, chi, b0_dir=(0, 0, 1)):
    """Field (ppm) of a sphere of `chi` ppm: chi / 3 (a / r)^3 (3 cos^2 - 1) outside, 0 inside."""
    offsets = [c - o for c, o in zip(coordinates(shape, voxel_size), centre, strict=True)]
    r2 = sum(c**2 for c in offsets)
    b0 = np.asarray(b0_dir, float) / np.linalg.norm(b0_dir)
    along = sum(c * b for c, b in zip(offsets, b0, strict=True))
    safe = np.where(r2 > radius**2, r2, 1.0)
    shape_term = (3 * along**2 / safe - 1) * (radius**2 / safe) ** 1.5
    return np.where(r2 > radius**2, chi / 3 * shape_term, 0.0)


def background(shape, voxel_size, b0_dir=(0, 0, 1)):
    """Field of two strong spheres; they lie outside a ball of 20 mm about the centre."""
    return sphere_field(shape, voxel_size, (5, 31, -10), 8, 9.0, b0_dir) + sphere_field(
        shape, voxel_size, (-30, -8, 14), 9, -4.0, b0_dir
    )


def interior_harmonic(shape, voxel_size, b0_dir=(0, 0, 1)):
    """r^2 (3 cos^2 - 1), mm squared: harmonic everywhere, of the symmetry of a dipole field."""
    offsets = coordinates(shape, voxel_size)
    b0 = np.asarray(b0_dir, float) / np.linalg.norm(b0_dir)
    along = sum(c * b for c, b in zip(offsets, b0, strict=True))
    return 3 * along**2 - sum(c**2 for c in offsets)


def relative(a, b, mask):
    """||a - b|| / ||b|| in the mask, the mean of a - b left aside."""
    difference = (a - b)[mask]
    return float(np.linalg.norm(difference - difference.mean()) / np.linalg.norm(b[mask]))
