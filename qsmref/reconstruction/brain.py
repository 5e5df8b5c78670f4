"""A deformable surface that finds the brain in a magnitude image.

Written from the paper: Smith 2002, doi:10.1002/hbm.10062. All lengths are mm, so anisotropic
voxels need no resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .jit import kernel

_LEVELS = 4  # subdivisions of the icosahedron: 2562 vertices
_RADIUS_MIN, _RADIUS_MAX = 3.33, 10.0  # mm, radii of curvature between which smoothing sets in
_SEARCH = 20.0  # mm, how deep intensities are looked at inside the surface


def icosphere(levels: int = _LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) on the unit sphere and triangles (m, 3), outward oriented."""
    g = (1 + math.sqrt(5)) / 2
    vertices = [(s * a, t * b, 0.0) for s in (-1, 1) for t in (-1, 1) for a, b in ((1, g),)]
    vertices = [tuple(np.roll(v, r)) for r in range(3) for v in vertices]
    points = np.array(vertices) / math.sqrt(1 + g * g)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    edge = distance[distance > 1e-9].min() * 1.01
    near = (distance < edge) & (distance > 0)
    triangles = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    faces = np.array(triangles)
    for _ in range(levels):
        points, faces = _subdivide(points, faces)
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points, faces


def _subdivide(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = points[unique].sum(axis=1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    ab, bc, ca = np.split(inverse.ravel() + len(points), 3)
    a, b, c = faces.T
    faces = np.concatenate(
        [np.stack(f, axis=1) for f in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    )
    return np.concatenate([points, middle]), faces


def neighbours(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ring of neighbours of each vertex, (count, 6) padded with -1, and their numbers."""
    ring = np.full((count, 6), -1)
    number = np.zeros(count, dtype=int)
    # Each edge belongs to two triangles with opposite directions, so this lists each pair once.
    for a, b in np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]):
        ring[a, number[a]] = b
        number[a] += 1
    return ring, number


@kernel
def _normals(points, faces, out):
    out[:] = 0
    for f in range(faces.shape[0]):
        a, b, c = faces[f]
        ux, uy, uz = points[b] - points[a]
        vx, vy, vz = points[c] - points[a]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for p in (a, b, c):
            out[p, 0] += nx
            out[p, 1] += ny
            out[p, 2] += nz
    for p in range(points.shape[0]):
        out[p] /= math.sqrt(out[p, 0] ** 2 + out[p, 1] ** 2 + out[p, 2] ** 2) + 1e-12


@kernel
def _sample(image, h, x, y, z):
    i, j, k = round(x / h[0]), round(y / h[1]), round(z / h[2])
    nx, ny, nz = image.shape
    if 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
        return image[i, j, k]
    return 0.0


@kernel
def _deform(image, h, points, faces, ring, number, levels, fraction, slope, stiffness, steps):
    """Move the surface `steps` times; `levels` is (t2, t, tm) of the paper."""
    t2, t, tm = levels
    count = points.shape[0]
    normal = np.zeros_like(points)
    move = np.zeros_like(points)
    middle_curvature = (1 / _RADIUS_MIN + 1 / _RADIUS_MAX) / 2
    steepness = 6 / (1 / _RADIUS_MIN - 1 / _RADIUS_MAX)
    spacing = 0.0
    for step in range(steps):
        _normals(points, faces, normal)
        if step % 50 == 0:
            spacing = 0.0
            for p in range(count):
                for m in range(number[p]):
                    d = points[ring[p, m]] - points[p]
                    spacing += math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) / number[p]
            spacing /= count
        middle_z = points[:, 2].mean()
        half_height = 0.5 * (points[:, 2].max() - points[:, 2].min()) + 1e-6
        for p in range(count):
            n = normal[p]
            mx = my = mz = 0.0
            for m in range(number[p]):
                mx += points[ring[p, m], 0]
                my += points[ring[p, m], 1]
                mz += points[ring[p, m], 2]
            sx = mx / number[p] - points[p, 0]
            sy = my / number[p] - points[p, 1]
            sz = mz / number[p] - points[p, 2]
            along = sx * n[0] + sy * n[1] + sz * n[2]
            curvature = 2 * abs(along) / spacing**2
            smooth = 0.5 * (1 + math.tanh(steepness * (curvature - middle_curvature)))
            # Outward bumps are pressed back harder in the second run (see brain_surface).
            smooth = min(1.0, smooth * stiffness) if along < 0 else smooth
            lowest, highest = tm, t
            depth = 0.0
            while depth <= _SEARCH:
                value = _sample(
                    image,
                    h,
                    points[p, 0] - depth * n[0],
                    points[p, 1] - depth * n[1],
                    points[p, 2] - depth * n[2],
                )
                lowest = min(lowest, value)
                if depth <= _SEARCH / 2:
                    highest = max(highest, value)
                depth += 1.0
            lowest, highest = max(lowest, t2), min(highest, tm)
            local = fraction + slope * (points[p, 2] - middle_z) / half_height
            local = min(0.99, max(0.01, local))
            border = (highest - t2) * local + t2
            expand = 0.05 * spacing * 2 * (lowest - border) / (highest - t2)
            # Tangential: half of the way to the neighbours' mean, for even spacing.
            factor = smooth * along + expand - 0.5 * along
            move[p, 0] = 0.5 * sx + factor * n[0]
            move[p, 1] = 0.5 * sy + factor * n[1]
            move[p, 2] = 0.5 * sz + factor * n[2]
        points += move


def intensity_levels(
    image: np.ndarray, voxel_size: Sequence[float]
) -> tuple[tuple[float, float, float], np.ndarray, float]:
    """(t2, t, tm), the centre (mm) and the radius (mm) that the surface starts from.

    t2 and t98 are the 2nd and 98th percentile of the non-zero histogram, t lies a tenth of the way
    between them, tm is the median inside the first sphere.
    """
    h = np.asarray(voxel_size, dtype=float)
    positive = image[image > 0]
    if positive.size == 0:
        raise ValueError("the magnitude is zero everywhere: there is no brain to find")
    t2, t98 = (float(v) for v in np.percentile(positive, [2, 98]))
    t = t2 + 0.1 * (t98 - t2)
    head = image > t
    weight = np.where(head, np.minimum(image, t98), 0)
    centre = np.array(ndimage.center_of_mass(weight)) * h
    radius = (3 * np.count_nonzero(head) * np.prod(h) / (4 * math.pi)) ** (1 / 3)
    axes = np.ogrid[tuple(slice(n) for n in image.shape)]
    distance = sum((a * s - c) ** 2 for a, s, c in zip(axes, h, centre, strict=True))
    inside = image[(distance < radius**2) & (image > t2) & (image < t98)]
    tm = float(np.median(inside)) if inside.size else t98
    return (t2, t, tm), centre, radius


def brain_surface(
    image: np.ndarray,
    voxel_size: Sequence[float],
    *,
    fraction: float = 0.6,
    slope: float = 0.0,
    iterations: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (mm from the centre of voxel 0) and triangles of the brain's surface.

    Parameters
    ----------
    image : (x, y, z) array
        Magnitude.
    voxel_size : (3,) float
        mm.
    fraction : float
        Threshold between the local minimum and maximum, 0 to 1; smaller gives a larger brain.
    slope : float
        Added to `fraction` in proportion to height: -slope at the bottom, slope at the top (z).
    iterations : int
        Steps of the deformation.
    """
    image = np.ascontiguousarray(image, dtype=np.float32)
    h = np.asarray(voxel_size, dtype=float)
    levels, centre, radius = intensity_levels(image, h)
    sphere, faces = icosphere()
    ring, number = neighbours(faces, len(sphere))
    points = centre + 0.5 * radius * sphere
    _deform(image, h, points, faces, ring, number, levels, fraction, slope, 1.0, iterations)
    return points, faces


@kernel
def _rasterise(points, faces, h, spacing, out):
    """Mark the voxels that the triangles touch."""
    nx, ny, nz = out.shape
    for f in range(faces.shape[0]):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        longest = 0.0
        for d in range(3):
            longest = max(longest, abs(b[d] - a[d]), abs(c[d] - a[d]), abs(c[d] - b[d]))
        n = int(2 * longest / spacing) + 2
        for u in range(n + 1):
            for v in range(n + 1 - u):
                p = a + (b - a) * (u / n) + (c - a) * (v / n)
                i, j, k = round(p[0] / h[0]), round(p[1] / h[1]), round(p[2] / h[2])
                if 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
                    out[i, j, k] = True


def surface_mask(
    points: np.ndarray, faces: np.ndarray, shape: Sequence[int], voxel_size: Sequence[float]
) -> np.ndarray:
    """Voxels inside a closed surface, also where the field of view cuts it."""
    h = np.asarray(voxel_size, dtype=float)
    low = np.minimum(np.floor(points.min(axis=0) / h).astype(int) - 2, 0)
    high = np.maximum(np.ceil(points.max(axis=0) / h).astype(int) + 3, shape)
    wall = np.zeros(high - low, dtype=bool)
    _rasterise(points - low * h, faces, h, float(h.min()), wall)
    labels, _ = ndimage.label(~wall)
    inside = labels != labels[0, 0, 0]
    window = tuple(slice(int(-s), int(-s) + n) for s, n in zip(low, shape, strict=True))
    return inside[window]
