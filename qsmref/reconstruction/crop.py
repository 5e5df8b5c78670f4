"""Cut arrays to the box that a mask needs, and paste results back: fewer voxels, same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> tuple[slice, ...]:
    """Slices of the smallest box that holds the mask, plus a margin where the array has room.

    Parameters
    ----------
    mask : (x, y, z) bool array
        At least one voxel must be set.
    margin : int or (3,) int
        Voxels added at either side of each axis; the box never leaves the array.

    Returns
    -------
    Three slices, one for each axis.
    """
    margins = np.broadcast_to(margin, mask.ndim)
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if hit.size == 0:
            raise ValueError("the mask is empty: not a single voxel is set")
        low = max(int(hit[0]) - int(margins[axis]), 0)
        high = min(int(hit[-1]) + 1 + int(margins[axis]), mask.shape[axis])
        box.append(slice(low, high))
    return tuple(box)


def paste(values: np.ndarray, box: tuple[slice, ...], shape: Sequence[int]) -> np.ndarray:
    """Array of `shape` that is `values` in `box` and zero elsewhere."""
    whole = np.zeros(shape, dtype=values.dtype)
    whole[box] = values
    return whole
