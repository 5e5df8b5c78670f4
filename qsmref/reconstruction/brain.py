"""A deformable surface that finds the brain in a magnitude image.

The surface is that of the brain extraction tool, written from its paper (Smith 2002,
doi:10.1002/hbm.10062). Around it: a start from the upper part of the head, a second run from the
centre of the first, a guard against leaks and a cut at the signal's edge, because in gradient
echoes the skull is dark and the surface ends up to 2 mm inside it. All lengths are mm, so
anisotropic voxels need no resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .checks import Numbers, unit_vector
from .jit import kernel

_LEVELS = 4  # subdivisions of the icosahedron: 2562 vertices
_RADIUS_MIN, _RADIUS_MAX = 3.33, 10.0  # mm, radii of curvature between which smoothing sets in
_SEARCH = 20.0  # mm, how deep intensities are looked at inside the surface
_STIFFNESS = 2.0  # of outward bumps, as in the paper's second run against self-intersection
_HEAD_HEIGHT = 150.0  # mm from the vertex down to the foramen magnum
_LARGEST = 1.8e6  # mm^3; an intracranial volume above it is rare (mean 1.45e6, SD .15e6)
_AT_REST = 0.15  # mm, mean shift along an axis in 40 steps
_OPENING = 5.0  # mm, half the width of the bridges that are cut


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
def _deform(image, h, points, faces, ring, number, levels, fraction, slope, up, steps, rest):
    """Move the surface `steps` times; `levels` is (t2, t, tm) of the paper."""
    t2, t, tm = levels
    count = points.shape[0]
    normal = np.zeros_like(points)
    move = np.zeros_like(points)
    middle_curvature = (1 / _RADIUS_MIN + 1 / _RADIUS_MAX) / 2
    steepness = 6 / (1 / _RADIUS_MIN - 1 / _RADIUS_MAX)
    spacing = 0.0
    before = points
    for step in range(steps):
        if step % 40 == 0:
            if step > 0 and np.abs(points - before).mean() < rest:
                break
            before = points.copy()
        _normals(points, faces, normal)
        if step % 50 == 0:
            spacing = 0.0
            for p in range(count):
                for m in range(number[p]):
                    d = points[ring[p, m]] - points[p]
                    spacing += math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) / number[p]
            spacing /= count
        height = points[:, 0] * up[0] + points[:, 1] * up[1] + points[:, 2] * up[2]
        middle = height.mean()
        half = 0.5 * (height.max() - height.min()) + 1e-6
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
            smooth = min(1.0, smooth * _STIFFNESS) if along < 0 else smooth
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
            local = min(0.99, fraction + slope * max(0.0, (middle - height[p]) / half))
            border = (highest - t2) * local + t2
            expand = 0.05 * spacing * 2 * (lowest - border) / (highest - t2)
            # Tangential: half of the way to the neighbours' mean, for even spacing.
            factor = smooth * along + expand - 0.5 * along
            move[p, 0] = 0.5 * sx + factor * n[0]
            move[p, 1] = 0.5 * sy + factor * n[1]
            move[p, 2] = 0.5 * sz + factor * n[2]
        points += move


#: An image of which a smaller part is above zero was masked.
_ZEROED = 0.9


def _start(image: np.ndarray, h: np.ndarray, up: np.ndarray):
    """(t2, t, tm) of the paper, centre (mm) and radius (mm) of the first sphere.

    t2 and t98 are the 2nd and 98th percentile of the values above zero (t2 is 0 where the image was
    masked), t lies a tenth of the way
    between them, tm is the median inside the sphere. Only the upper 150 mm of the head count, so
    that a neck or a face in the field of view does not pull the sphere down.
    """
    positive = image[image > 0]
    if positive.size == 0:
        raise ValueError("the magnitude is zero everywhere: there is no brain to find")
    t2, t98 = (float(v) for v in np.percentile(positive, [2, 98]))
    if positive.size < _ZEROED * image.size:
        # What is around was set to zero, the skull too perhaps: the least values are tissue.
        t2 = 0.0
    t = t2 + 0.1 * (t98 - t2)
    head = image > t
    axes = np.ogrid[tuple(slice(n) for n in image.shape)]
    height = sum(a * s * u for a, s, u in zip(axes, h, up, strict=True))
    head &= height > np.percentile(height[head], 99.9) - _HEAD_HEIGHT
    centre, radius = _centre(image, head, t98, h)
    distance = sum((a * s - c) ** 2 for a, s, c in zip(axes, h, centre, strict=True))
    inside = image[(distance < radius**2) & (image > t2) & (image < t98)]
    return [t2, t, float(np.median(inside)) if inside.size else t98], centre, radius


def _centre(image, within, largest, h) -> tuple[np.ndarray, float]:
    weight = np.where(within, np.minimum(image, largest), 0)
    centre = np.array(ndimage.center_of_mass(weight)) * h
    return centre, (3 * np.count_nonzero(within) * np.prod(h) / (4 * math.pi)) ** (1 / 3)


def brain_surface(
    image: np.ndarray,
    voxel_size: Numbers,
    *,
    up: Sequence[float] = (0, 0, 1),
    fraction: float = 0.5,
    slope: float = 0.0,
    iterations: int = 500,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (mm from the centre of voxel 0) and triangles of the brain's surface.

    Parameters
    ----------
    image : (x, y, z) array
        Magnitude.
    voxel_size : (3,) float
        mm.
    up : (3,) float
        Direction of the vertex of the head in voxel axes.
    fraction : float
        Threshold between the local minimum and maximum, 0 to 1; smaller gives a larger brain.
    slope : float
        Added to `fraction` in the lower half, in proportion to the depth: all of it at the bottom.
    iterations : int
        Most steps of the deformation in each of two runs, which end when the surface rests (mean
        shift below .15 mm in 40 steps); the second starts from the centre of what the
        first has found.
    """
    image = np.ascontiguousarray(image, dtype=np.float32)
    h, vertex = np.asarray(voxel_size, dtype=float), unit_vector(up)
    levels, centre, radius = _start(image, h, vertex)
    sphere, faces = icosphere()
    ring, number = neighbours(faces, len(sphere))
    for run in range(2):
        points = centre + 0.5 * radius * sphere
        level = tuple(levels)
        # Of the first run only the centre and the size are used.
        rest = _AT_REST if run else 1.0
        shape = (faces, ring, number, level, fraction, slope, vertex)
        _deform(image, h, points, *shape, iterations, rest)
        if run:
            break
        found = surface_mask(points, faces, image.shape, h)
        if not found.any():
            raise ValueError("no brain was found: the surface has shrunk to nothing")
        centre, radius = _centre(image, found, np.percentile(image[found], 98), h)
        bright = image[found & (image > levels[1])]
        levels[2] = float(np.median(bright)) if bright.size else levels[2]
    return points, faces


def find_brain(
    image: np.ndarray,
    voxel_size: Sequence[float],
    *,
    up: Sequence[float] = (0, 0, 1),
    fraction: float = 0.5,
    signal: float = 0.3,
) -> np.ndarray:
    """Voxels of the brain and the fluid around it.

    A surface that holds more than 1.8 litres has leaked through the base of the skull, where it
    meets muscle and the orbits: it is run again with a threshold that rises towards the bottom,
    by .1 more each time up to .5. Inside the surface, voxels below `signal` times the local
    brightness are bone; what is joined to the rest by bridges narrower than 10 mm is cut off.

    Parameters
    ----------
    image, voxel_size, up, fraction
        As for :func:`brain_surface`.
    signal : float
        Part of the brightness around (Gaussian mean, 15 mm) below which a voxel is dropped.

    Returns
    -------
    (x, y, z) bool array: one connected part without holes.
    """
    image = np.asarray(image, dtype=np.float32)
    h = np.asarray(voxel_size, dtype=float)
    for slope in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        surface = brain_surface(image, h, up=up, fraction=fraction, slope=slope)
        inside = surface_mask(*surface, image.shape, h)
        if np.count_nonzero(inside) * np.prod(h) <= _LARGEST:
            break
    result = np.zeros(image.shape, dtype=bool)
    if not inside.any():
        return result
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    inside, signals = inside[box], image[box]
    inside &= signals > signal * _local_mean(signals, inside, 15.0, h)
    result[box] = _open(inside, h)
    return result


def _local_mean(image, inside, mm, h) -> np.ndarray:
    """Gaussian mean over `inside`, worked out on blocks of about a quarter of its width."""
    block = [max(1, int(mm / 4 / s)) for s in h]
    pad = [(0, -n % b) for n, b in zip(image.shape, block, strict=True)]
    parts = []
    for array in (np.where(inside, image, 0), inside.astype(np.float32)):
        wide = np.pad(array, pad)
        split = [v for n, b in zip(wide.shape, block, strict=True) for v in (n // b, b)]
        sums = wide.reshape(split).sum(axis=(1, 3, 5), dtype=np.float64)
        parts.append(
            ndimage.gaussian_filter(sums, [mm / s / b for s, b in zip(h, block, strict=True)])
        )
    mean = (parts[0] / np.maximum(parts[1], 1e-6)).astype(np.float32)
    for axis, b in enumerate(block):
        mean = np.repeat(mean, b, axis=axis)
    return mean[tuple(slice(n) for n in image.shape)]


def _open(mask, h) -> np.ndarray:
    """Largest part of the opened mask, filled."""
    if mask.all():
        return mask
    # What lies beyond the image does not count as outside: a brain that is cut goes on there.
    core = _largest(ndimage.distance_transform_edt(mask, sampling=h) > _OPENING)
    if not core.any():
        return core
    near = ndimage.distance_transform_edt(~core, sampling=h) <= _OPENING
    return ndimage.binary_fill_holes(_largest(near & mask))


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


@kernel
def _crossings(points, faces, out):
    """Add +1 where a line along z enters the surface and -1 where it leaves it.

    `points` are in voxels; the lines run through the voxels' centres.
    """
    nx, ny, nz = out.shape
    for f in range(faces.shape[0]):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0:
            continue
        for i in range(
            max(0, math.ceil(min(a[0], b[0], c[0]))),
            min(nx - 1, math.floor(max(a[0], b[0], c[0]))) + 1,
        ):
            for j in range(
                max(0, math.ceil(min(a[1], b[1], c[1]))),
                min(ny - 1, math.floor(max(a[1], b[1], c[1]))) + 1,
            ):
                u = ((i - a[0]) * (c[1] - a[1]) - (j - a[1]) * (c[0] - a[0])) / area
                v = ((b[0] - a[0]) * (j - a[1]) - (b[1] - a[1]) * (i - a[0])) / area
                if u < 0 or v < 0 or u + v > 1:
                    continue
                k = max(0, math.ceil(a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])))
                if k < nz:
                    # Outward triangles that face down are entered.
                    out[i, j, k] += 1 if area < 0 else -1


def surface_mask(
    points: np.ndarray, faces: np.ndarray, shape: Sequence[int], voxel_size: Numbers
) -> np.ndarray:
    """Voxels whose centre a closed, outward oriented surface goes round at least once.

    The surface may reach beyond the image; where it folds over itself both folds count as inside.
    """
    crossings = np.zeros(shape, dtype=np.int16)
    # A shift far below any voxel keeps vertices and edges off the lines.
    shift = np.array([1.3e-7, 2.9e-7, 0.0])
    _crossings(points / np.asarray(voxel_size, dtype=float) + shift, faces, crossings)
    return np.cumsum(crossings, axis=2, dtype=np.int16) > 0
