"""The sign of the phase, told from the field that the air around and in the head makes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .checks import check_mask
from .dipole import forward_field

#: Diameters (mm) of the balls that air must hold; which one parts bone from sinuses depends on the
#: head and on the voxels.
THICKNESSES = (8.0, 12.0, 20.0)


def phase_sign(
    field: np.ndarray,
    mask: np.ndarray,
    magnitude: np.ndarray,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0, 0, 1),
) -> float:
    """Whether a total field has the sign that the air in the magnitude image would give it.

    The strongest of the correlations of :func:`phase_sign_check` over three ways to tell air from
    bone, which are equally dark.

    Parameters
    ----------
    field : (x, y, z) array
        Total field, ppm, unwrapped.
    mask : (x, y, z) bool array
        Brain.
    magnitude : (x, y, z) array
        First echo, or the root sum of squares.
    voxel_size : (3,) float
        mm.
    b0_dir : (3,) float
        Direction of B0 in voxel axes.

    Returns
    -------
    Correlation, -1 to 1. Above 0.3 the sign is right; below -0.3 it is wrong, and the phase must
    be negated; in between nothing can be said.

    Notes
    -----
    Measured with the right sign: .74 on a 3 T head of another vendor (Philips, 3 mm), .93 on
    simulated heads with a thin skull, .7 on one with thick bone.
    """
    found = [
        phase_sign_check(
            field, mask, air_mask(magnitude, mask, voxel_size, thickness=t), voxel_size, b0_dir
        )
        for t in THICKNESSES
    ]
    return max(found, key=abs)


def phase_sign_check(
    field: np.ndarray,
    mask: np.ndarray,
    air: np.ndarray,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0, 0, 1),
    order: int = 2,
) -> float:
    """Correlation of a total field with the field that the air around and in the head makes.

    Air is 9.4 ppm above tissue, and its field is the largest in the head: where the phase has the
    wrong sign, the correlation is strongly negative. Shim and the constant are taken off both
    fields as polynomials.

    Parameters
    ----------
    field : (x, y, z) array
        Total field, ppm, unwrapped.
    mask : (x, y, z) bool array
        Brain.
    air : (x, y, z) bool array
        Air outside the head and in its sinuses.
    voxel_size : (3,) float
        mm.
    b0_dir : (3,) float
        Direction of B0 in voxel axes.
    order : int
        Degree of the polynomial.

    Returns
    -------
    Correlation over the mask, weighted by the size of the predicted field, -1 to 1. Near 1: the
    sign is right. Below -0.3: it is wrong. In between: nothing can be said (no air is near).

    References
    ----------
    Marques & Bowtell 2005, doi:10.1002/cmr.b.20034; Schenck 1996, doi:10.1118/1.597854 (air).
    """
    mask = check_mask(mask, np.shape(field))
    h = np.asarray(voxel_size, dtype=float)
    # Blocks of about 3 mm: the fields in question are smooth.
    block = tuple(max(1, round(3 / s)) for s in h)
    inside = _blocks(mask.astype(np.float32), block)
    measured = _blocks(np.where(mask, field, 0).astype(np.float32), block)
    tissue = 1 - _blocks(np.asarray(air, dtype=np.float32), block)
    use = inside > 0.5
    measured = measured[use] / inside[use]
    # The head goes on beyond an edge of the image that cuts it.
    pad = [(n // 2, n // 2) for n in tissue.shape]
    chi = np.pad(-9.4 * tissue, pad, mode="edge")
    window = tuple(slice(p[0], p[0] + n) for p, n in zip(pad, tissue.shape, strict=True))
    predicted = forward_field(chi, h * block, b0_dir)[window][use]
    place = [
        x / (np.abs(x).max() + 1e-9) for x in (np.argwhere(use) - np.mean(np.argwhere(use), 0)).T
    ]
    columns = [
        place[0] ** i * place[1] ** j * place[2] ** k
        for i in range(order + 1)
        for j in range(order + 1 - i)
        for k in range(order + 1 - i - j)
    ]
    design = np.stack(columns, axis=1)
    both = np.stack([measured, predicted], axis=1).astype(np.float64)
    both -= design @ np.linalg.lstsq(design, both)[0]
    weight = np.abs(both[:, 1])
    cross, first, second = (weight @ v for v in (both[:, 0] * both[:, 1], *(both.T**2)))
    return float(cross / np.sqrt(first * second)) if first > 0 and second > 0 else 0.0


def _blocks(image: np.ndarray, block: Sequence[int]) -> np.ndarray:
    """Means over blocks of voxels; what is left at the end of an axis is dropped."""
    shape = [n // b for n, b in zip(image.shape, block, strict=True)]
    cut = image[tuple(slice(0, n * b) for n, b in zip(shape, block, strict=True))]
    split = [v for n, b in zip(shape, block, strict=True) for v in (n, b)]
    return cut.reshape(split).mean(axis=(1, 3, 5))


def air_mask(
    magnitude: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    fraction: float = 0.25,
    thickness: float = 12.0,
) -> np.ndarray:
    """Air around the head and in its sinuses: where the signal is low in a thick region.

    Bone is as dark as air, but a shell: what a ball of the given diameter cannot enter is not air.

    Parameters
    ----------
    magnitude : (x, y, z) array
        First echo, or the root sum of squares.
    mask : (x, y, z) bool array
        Brain; its median is the reference.
    voxel_size : (3,) float
        mm.
    fraction : float
        Signal relative to the brain's below which a voxel is dark.
    thickness : float
        mm, diameter of the ball.

    Returns
    -------
    (x, y, z) bool array, false in the mask.
    """
    mask = check_mask(mask, np.shape(magnitude))
    dark = np.asarray(magnitude) < fraction * np.median(np.asarray(magnitude)[mask])
    dark &= ~mask
    # Air goes on beyond the image, so a thin layer of it at the border is thick.
    pad = [(math.ceil(thickness / float(v)),) * 2 for v in voxel_size]
    wide = np.pad(dark, pad, mode="edge")
    core = ndimage.distance_transform_edt(wide, sampling=voxel_size) > thickness / 2
    if not core.any():
        return np.zeros_like(dark)
    near = ndimage.distance_transform_edt(~core, sampling=voxel_size) <= thickness / 2
    return dark & near[tuple(slice(p, -p) for p, _ in pad)]
