"""Susceptibility, total and local field, brain mask and regions of a head on a voxel grid.

The head is sampled on a grid finer than the voxels by ``supersample`` points per axis and its
field is computed on that fine grid; what a voxel holds is the average. With two or more points a
reconstruction that uses the same dipole kernel does not invert its own discretisation. With one
point the edges of air ring: at 2 mm the Laplacian of the background, zero in a scanner, is then a
quarter of that of the local field inside the brain, against half a percent with two points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..images import b0_direction
from ..reconstruction.cuboid import cuboid_kernel
from ..reconstruction.dipole import dipole_kernel
from ..reconstruction.fft import Transform, good_size
from .grid import Grid, ParameterError, polynomial
from .head import Head, lookup
from .labels import LabelImage
from .smooth import SmoothField

#: The random parts, each with a stream of its own, so that switching one off changes no other.
_STREAMS = ("texture", "m0 texture", "offset", "receiver", "noise", "t1w")


#: Smallest susceptibility contrast (ppm) that texture is a fraction of: half the difference of
#: grey and white matter.
_LEAST_CONTRAST_PPM = 0.03


@dataclass(frozen=True)
class Fields:
    """Susceptibility and fields of a head on a voxel grid (x, y, z), with their fine originals."""

    grid: Grid
    #: Fine points per voxel and axis.
    factor: tuple[int, int, int]
    #: Susceptibility relative to water, averaged over the voxel, ppm.
    chi: np.ndarray
    #: Field of everything, shim included, averaged over the voxel, ppm.
    total_ppm: np.ndarray
    #: Field of the susceptibility inside the brain mask alone, averaged over the voxel, ppm.
    local_ppm: np.ndarray
    #: Voxels at least half brain.
    mask: np.ndarray
    #: Most frequent brain region in each voxel of the mask (int32), 0 outside.
    labels: np.ndarray
    #: Label index of each fine point.
    fine_labels: np.ndarray
    #: Total field at each fine point, ppm.
    fine_total_ppm: np.ndarray


def make_fields(
    head: Head | LabelImage,
    grid: Grid,
    supersample: int | Sequence[int] | None = None,
    texture: float = 0.1,
    shim_order: int | None = 2,
    seed: int = 0,
) -> Fields:
    """Susceptibility, total and local field, mask and regions of a head on a grid.

    The head does not end where the field of view ends: the part of it that lies outside still
    makes field inside. Around the head there is air without bounds; a constant susceptibility
    has no field, so everything is computed relative to that air.

    The parameters are those of :func:`simulate`. The local field is that of the fine points in
    the voxels of the mask.
    """
    factor = check_field_parameters(head, grid, supersample, texture, shim_order)
    b0_dir = b0_direction(grid.affine)
    h = tuple(v / k for v, k in zip(grid.voxel_size, factor, strict=True))
    margins = _margins(head, grid)
    axes = grid.axes(factor, margins)
    inside = tuple(
        slice(before * k, (before + n) * k)
        for (before, _), n, k in zip(margins, grid.shape, factor, strict=True)
    )
    labels = head.labels(*axes)
    chi = lookup(head.regions, "susceptibility_ppm")[labels]
    if texture:
        amount = np.zeros(labels.max() + 1, dtype=np.float32)
        for region in head.regions:
            if region.brain and region.index < len(amount) and region.textured:
                contrast = max(abs(region.susceptibility_ppm), _LEAST_CONTRAST_PPM)
                amount[region.index] = texture * contrast
        chi += amount[labels] * texture_field(head, axes, seed, "texture")
    whole, chi = chi - np.float32(head.outside_ppm), chi[inside]
    labels = np.ascontiguousarray(labels[inside])
    axes = grid.axes(factor)
    brain = head.brain(labels, axes)
    mask = block_mean(brain, factor) >= 0.5
    if not mask.any():
        raise ParameterError("The field of view holds no brain.")
    inner = np.where(_repeat(mask, factor), chi, np.float32(0))
    # With one point per voxel the tissue is taken as band-limited, as the inversions take it: its
    # map is then exactly the one to be found. Around it, and on finer grids, voxels are cuboids:
    # the field of air must be harmonic in the brain, and band-limited air rings.
    local = free_field(inner, h, b0_dir, cuboid=max(factor) > 1)
    whole[inside] -= inner
    total = free_field(whole, h, b0_dir, cuboid=True)[inside] + local
    del whole
    total = np.ascontiguousarray(total)
    if shim_order is not None:
        total -= _shim(block_mean(total, factor), mask, grid, axes, shim_order)
    return Fields(
        grid,
        factor,
        block_mean(chi, factor),
        block_mean(total, factor),
        block_mean(local, factor),
        mask,
        _majority(labels, mask, factor, [r.index for r in head.regions if r.brain]),
        labels,
        total,
    )


def free_field(
    chi: np.ndarray, voxel_size: Sequence[float], b0_dir: Sequence[float], *, cuboid: bool
) -> np.ndarray:
    """Field of a susceptibility map in free space; arguments and result as of `forward_field`.

    :func:`qsmref.reconstruction.forward_field` pads every axis twofold. A field of view that is
    flatter than long leaves its periodic images nearer along one axis than along the others: a ball
    of 120 mm in 256 x 256 x 144 mm then has a field that is wrong by 1.1 % of its largest value
    (root mean square), by 0.07 % in a cube. Here all axes of the padded grid have one length in mm,
    so that the images of a dipole cancel at the centre.
    """
    length = 2 * max(n * h for n, h in zip(chi.shape, voxel_size, strict=True))
    grid = [good_size(int(np.ceil(length / h - 1e-6))) for h in voxel_size]
    transform = Transform(chi.shape, grid)
    spectrum = transform.forward(chi.astype(np.float32, copy=False))
    spectrum *= (cuboid_kernel if cuboid else dipole_kernel)(grid, voxel_size, b0_dir)
    return np.ascontiguousarray(transform.inverse(spectrum))


def block_mean(array: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    """Mean over blocks of ``factor`` voxels; bool gives float32, other types keep theirs."""
    if array.dtype == bool:
        array = array.astype(np.float32)
    for axis, k in enumerate(factor):
        if k > 1:
            shape = (*array.shape[:axis], array.shape[axis] // k, k, *array.shape[axis + 1 :])
            array = array.reshape(shape).mean(axis=axis + 1, dtype=array.dtype)
    return np.array(array, order="C", copy=True)


def random_stream(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([int(seed), _STREAMS.index(stream)])


def texture_field(head, axes, seed: int, stream: str) -> np.ndarray:
    """Smooth random function with features of about 6 mm; the same in mm on every grid."""
    low, high = head.texture_box
    return SmoothField.random(random_stream(seed, stream), 3.0, low, high).on(*axes)


def check_field_parameters(
    head: Head | LabelImage,
    grid: Grid,
    supersample: int | Sequence[int] | None,
    texture: float,
    shim_order: int | None,
) -> tuple[int, int, int]:
    """Fine points per voxel and axis; a ParameterError when a parameter is out of its range."""
    if not 0 <= texture < np.inf:
        raise ParameterError(f"The texture must be a fraction from 0, not {texture}.")
    if shim_order is not None and shim_order not in range(len(_HARMONICS)):
        raise ParameterError(f"The shim order must be 0, 1 or 2, not {shim_order}.")
    if supersample is None:
        return tuple(head.default_factor(grid.voxel_size))
    factor = np.broadcast_to(np.asarray(supersample, dtype=float), 3)
    if np.any(factor != np.rint(factor)) or np.any(factor < 1):
        raise ParameterError(f"Supersampling needs whole numbers from 1, not {supersample}.")
    return tuple(int(k) for k in factor)


def _margins(head, grid: Grid) -> list[tuple[int, int]]:
    """Voxels to add before and after each axis until the grid holds the whole head."""
    if head.extent is None:
        return [(0, 0)] * 3
    margins = []
    for (low, high), start, n, h in zip(
        head.extent, grid.origin, grid.shape, grid.voxel_size, strict=True
    ):
        first, last = start - h / 2, start + (n - 0.5) * h
        margins.append(
            (max(0, int(np.ceil((first - low) / h))), max(0, int(np.ceil((high - last) / h))))
        )
    return margins


#: Solid harmonics by order; each is a polynomial whose Laplacian vanishes, as of a shim coil.
_HARMONICS = (
    ({(0, 0, 0): 1.0},),
    ({(1, 0, 0): 1.0}, {(0, 1, 0): 1.0}, {(0, 0, 1): 1.0}),
    (
        {(1, 1, 0): 1.0},
        {(1, 0, 1): 1.0},
        {(0, 1, 1): 1.0},
        {(2, 0, 0): 1.0, (0, 2, 0): -1.0},
        {(0, 0, 2): 2.0, (2, 0, 0): -1.0, (0, 2, 0): -1.0},
    ),
)


def _shim(field, mask, grid: Grid, fine_axes, order: int) -> np.ndarray:
    """Field (ppm, on the fine points) that shims over the brain would take away."""
    terms = [term for harmonics in _HARMONICS[: order + 1] for term in harmonics]

    def scaled(axes):
        return [(a - c) / 100.0 for a, c in zip(axes, grid.centre, strict=True)]

    axes = scaled(grid.axes())
    columns = np.stack([polynomial(axes, term)[mask].astype(float) for term in terms], axis=1)
    factors = np.linalg.lstsq(columns, field[mask].astype(float), rcond=None)[0]
    together: dict[tuple[int, int, int], float] = {}
    for factor, term in zip(factors, terms, strict=True):
        for powers, value in term.items():
            together[powers] = together.get(powers, 0.0) + factor * value
    return polynomial(scaled(fine_axes), together)


def _repeat(array: np.ndarray, factor: Sequence[int]) -> np.ndarray:
    for axis, k in enumerate(factor):
        if k > 1:
            array = np.repeat(array, k, axis=axis)
    return array


def _majority(labels, mask, factor, brain_indices) -> np.ndarray:
    """Most frequent brain label among the fine points of each voxel of the mask."""
    if tuple(factor) == (1, 1, 1):
        known = np.isin(labels, brain_indices)
        return np.where(mask & known, labels, 0).astype(np.int32)
    best = np.zeros(mask.shape, dtype=np.float32)
    out = np.zeros(mask.shape, dtype=np.int32)
    for index in brain_indices:
        share = block_mean(labels == index, factor)
        more = share > best
        out[more], best[more] = index, share[more]
    out[~mask] = 0
    return out
