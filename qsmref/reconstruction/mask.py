"""Brain masks and what is done to them; every length is in mm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .brain import find_brain
from .checks import Numbers


def brain_mask(
    magnitude: np.ndarray, voxel_size: Sequence[float], method: str = "surface", **parameters: Any
) -> np.ndarray:
    """Brain mask of a magnitude image, with no outside tool.

    Parameters
    ----------
    magnitude : (x, y, z) or (x, y, z, echo) array
        Several echoes are combined by the root of their sum of squares.
    voxel_size : (3,) float
        mm.
    method : {"surface"}
        ``surface``: a deformable surface, :func:`qsmref.reconstruction.brain.find_brain`.
    **parameters
        Parameters of the method: ``up`` (direction of the vertex in voxel axes: the direction of B0
        for somebody lying head first), ``fraction``, ``signal``.

    Returns
    -------
    (x, y, z) bool array: one connected part without holes.

    Raises
    ------
    ValueError
        NaN or infinite voxels, an image that is zero everywhere, an empty result, an unknown
        method.
    """
    magnitude = np.asarray(magnitude, dtype=np.float32)
    if magnitude.ndim == 4:
        magnitude = np.sqrt(np.einsum("xyze,xyze->xyz", magnitude, magnitude))
    if magnitude.ndim != 3:
        raise ValueError(f"magnitude must have the axes (x, y, z), got shape {magnitude.shape}")
    if not np.isfinite(magnitude).all():
        raise ValueError("magnitude has NaN or infinite voxels")
    if method != "surface":
        hint = "; bet is a program, which the command line runs" if method == "bet" else ""
        raise ValueError(f"the brain mask's method must be 'surface', got {method!r}{hint}")
    mask = find_brain(magnitude, voxel_size, **parameters)
    if not mask.any():
        raise ValueError("no brain was found in the magnitude")
    return mask


def _boolean(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"a mask must have the axes (x, y, z), got shape {mask.shape}")
    mask = mask.astype(bool, copy=False)
    if not mask.any():
        raise ValueError("the mask is empty")
    return mask


def _around(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """Box of the mask, larger by `margin` voxels where the image has them."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, s.start - m), min(n, s.stop + m))
        for s, m, n in zip(box, margin, mask.shape, strict=True)
    )


def erode(
    mask: np.ndarray, mm: float, voxel_size: Numbers, *, at_border: bool = False
) -> np.ndarray:
    """Remove the voxels whose centre lies within `mm` of the centre of a voxel outside.

    Parameters
    ----------
    mask : (x, y, z) bool array
    mm : float
        Depth; 0 changes nothing.
    voxel_size : (3,) float
        mm.
    at_border : bool
        Whether what lies beyond the image counts as outside. By default it does not: the end of a
        slab is where the image was cut, not where the head ends.

    Raises
    ------
    ValueError
        A negative depth, an empty mask, or a mask of which nothing is left.
    """
    mask = _boolean(mask)
    if not mm >= 0:
        raise ValueError(f"erosion must be 0 mm or more, got {mm}")
    if mm == 0:
        return mask.copy()
    pad = 1 if at_border else 0
    box = _around(mask, [1, 1, 1])
    cut = np.pad(mask[box], pad)
    eroded = mask.copy()
    if not cut.all():
        # A small margin keeps voxels at exactly `mm`, such as 2 mm slices, on one side of rounding.
        distance = ndimage.distance_transform_edt(cut, sampling=voxel_size)
        inner = tuple(slice(pad, n - pad) for n in cut.shape)
        eroded[box] = distance[inner] > mm * (1 + 1e-6)
    if not eroded.any():
        raise ValueError(f"an erosion of {mm:g} mm leaves nothing of the mask")
    return eroded


def dilate(mask: np.ndarray, mm: float, voxel_size: Sequence[float]) -> np.ndarray:
    """Add the voxels whose centre lies within `mm` of the centre of a voxel of the mask."""
    mask = _boolean(mask)
    if not mm >= 0:
        raise ValueError(f"dilation must be 0 mm or more, got {mm}")
    box = _around(mask, [int(mm / h) + 1 for h in voxel_size])
    result = mask.copy()
    if not mask[box].all():
        distance = ndimage.distance_transform_edt(~mask[box], sampling=voxel_size)
        result[box] = distance <= mm * (1 + 1e-6)
    return result


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the cavities that no path through faces of voxels connects to the outside."""
    return ndimage.binary_fill_holes(_boolean(mask))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest part whose voxels touch by their faces."""
    labels, count = ndimage.label(_boolean(mask))
    if count == 1:
        return labels > 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def cut_slab(mask: np.ndarray, mm: float, voxel_size: Sequence[float], axis: int = 2) -> np.ndarray:
    """Cut `mm` off both ends of the mask along an axis.

    The ends are those of the mask, not of the image. Slices are removed whole: the number of
    slices at either end is `mm` over the slice's thickness, rounded.

    Raises
    ------
    ValueError
        A negative length, an empty mask, or nothing left.
    """
    mask = _boolean(mask)
    if not mm >= 0:
        raise ValueError(f"the cut must be 0 mm or more, got {mm}")
    count = round(mm / float(voxel_size[axis]))
    other = tuple(a for a in range(3) if a != axis)
    slices = np.flatnonzero(mask.any(axis=other))
    first, last = slices[0] + count, slices[-1] - count
    if last < first:
        raise ValueError(f"cutting {mm:g} mm at both ends leaves nothing of the mask")
    window = [slice(None)] * 3
    window[axis] = slice(first, last + 1)
    result = np.zeros_like(mask)
    result[tuple(window)] = mask[tuple(window)]
    if not result.any():
        raise ValueError(f"cutting {mm:g} mm at both ends leaves nothing of the mask")
    return result


def phase_quality_mask(
    mask: np.ndarray,
    *,
    quality: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    min_quality: float = 0.7,
    max_noise: float = 5.0,
    max_residual: float = 0.1,
) -> np.ndarray:
    """The part of a mask whose phase can be trusted.

    Bad voxels inside the mask (veins, a nucleus full of iron) stay: only those that reach its
    surface are cut, next to sinuses or bone, where they would be background sources inside.

    Parameters
    ----------
    mask : (x, y, z) bool array
    quality : (x, y, z) array, optional
        Smoothness of the phase, 0 to 1, of :func:`qsmref.reconstruction.romeo.phase_quality`.
    noise, residual : (x, y, z) arrays, optional
        Of :func:`qsmref.reconstruction.fit_echoes`.
    min_quality : float
        The wrapped phase differs from its neighbours by 0.3 pi on average at 0.7.
    max_noise : float
        Relative to the median over the mask: a fifth of the typical signal at 5.
    max_residual : float
        Part of the signal's energy that does not follow a line over the echoes.

    Returns
    -------
    (x, y, z) bool array: the largest part that is left, its holes filled.

    Raises
    ------
    ValueError
        Other shapes, no map at all, an empty mask, or nothing left.

    References
    ----------
    QSM Consensus Organization Committee 2024, doi:10.1002/mrm.30006 (section on masks).
    """
    mask = _boolean(mask)
    if quality is None and noise is None and residual is None:
        raise ValueError("a phase-quality mask needs quality, noise or residual")
    good = mask.copy()
    for name, image in (("quality", quality), ("noise", noise), ("residual", residual)):
        if image is not None and np.shape(image) != mask.shape:
            raise ValueError(f"{name} {np.shape(image)} and mask {mask.shape} differ in shape")
    if quality is not None:
        good &= np.asarray(quality) >= min_quality
    if noise is not None:
        good &= np.asarray(noise) <= max_noise * np.median(np.asarray(noise)[mask])
    if residual is not None:
        good &= np.asarray(residual) <= max_residual
    if not good.any():
        raise ValueError("no voxel of the mask passes the criteria of phase quality")
    return fill_holes(largest_component(good)) & mask
