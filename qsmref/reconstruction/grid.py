"""The grid of an inversion: the box of the mask with room around it, values in rad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .checks import by_chance
from .continuation import continued
from .crop import bounding_box, paste
from .fft import Transform, good_size


class Grid:
    """The mask's bounding box at the start of a periodic grid with room around it."""

    def __init__(self, mask: np.ndarray, voxel_size: Sequence[float], padding_mm: float):
        if padding_mm < 0:
            raise ValueError(f"padding_mm must not be negative, got {padding_mm}")
        self.voxel_size = voxel_size
        self.box = bounding_box(mask)
        self.shape = mask[self.box].shape
        self.place = tuple(slice(0, n) for n in self.shape)
        self.within: tuple[Any, ...] = (..., *self.place)  # with other axes before these three
        self.grid = tuple(
            good_size(n + 2 * np.ceil(padding_mm / h))
            for n, h in zip(self.shape, voxel_size, strict=True)
        )
        self.transform = Transform(self.grid)
        self.inner = Transform(self.shape, self.grid)

    def put(self, array: np.ndarray) -> np.ndarray:
        """An array of the image on the grid, zero outside the box."""
        return self.widen(array[self.box])

    def widen(self, part: np.ndarray) -> np.ndarray:
        """An array of the box (its last three axes) on the grid, zero outside."""
        whole = np.zeros((*part.shape[:-3], *self.grid), part.dtype)
        whole[self.within] = part
        return whole

    def crop(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arrays of the grid in the box alone."""
        return tuple(a[self.place].copy() for a in arrays)

    def back(self, x: np.ndarray, mask: np.ndarray, radians_per_ppm: float) -> np.ndarray:
        """The map in ppm on the array's own grid, zero outside the mask."""
        chi = np.where(mask[self.box], x[self.place] / x.dtype.type(radians_per_ppm), 0)
        return paste(chi.astype(x.dtype, copy=False), self.box, mask.shape)


def phase_units(
    work: Grid,
    field: np.ndarray,
    mask: np.ndarray,
    noise: np.ndarray | None,
    radians_per_ppm: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mask, field and noise (rad) in the box, zero outside the mask, and where noise is known.

    Where it is not, the field is continued from around.
    """
    scale = field.dtype.type(radians_per_ppm)
    inside = mask[work.box].copy()
    total = np.where(inside, field[work.box], field.dtype.type(0)) * scale
    if noise is None:
        return inside, total, inside.astype(total.dtype), inside
    noise = noise[work.box]
    # Where the phase is pure chance there are no data, and a small weight would be too much: many
    # such voxels together (a bleeding, air) pull the map around them.
    known = inside & (noise > 0) & np.isfinite(noise) & ~by_chance(noise * scale)
    if not known.any():
        raise ValueError("no voxel of the mask has a field with less noise than a random phase")
    # A voxel of noise zero or infinity does not count; the spheres around it see a noise as large
    # as the worst known one.
    worst = noise[known].max()
    spread = np.where(known, noise, np.where(inside, worst, field.dtype.type(0)))
    return inside, continued(total, inside, known, work.voxel_size), spread * scale, known
