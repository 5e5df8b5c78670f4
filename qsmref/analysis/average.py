"""Mean and SD of many maps on one grid, one map in memory at a time."""

from __future__ import annotations

import numpy as np


class RunningMoments:
    """Mean and standard deviation of maps, voxel by voxel, each map counting where it is valid.

    The updates are those of Welford (1962, doi:10.1080/00401706.1962.10490022): no large numbers
    are subtracted from each other, and the maps need not be kept.

    Parameters
    ----------
    shape : (3,) int
        Of the maps.

    Examples
    --------
    >>> moments = RunningMoments((1, 1, 2))
    >>> for value in (1.0, 3.0):
    ...     moments.add(np.full((1, 1, 2), value), np.array([[[True, value > 2]]]))
    >>> moments.mean.ravel().tolist(), moments.sd.ravel().tolist(), moments.count.ravel().tolist()
    ([2.0, 3.0], [1.4142135381698608, 0.0], [2, 1])
    """

    def __init__(self, shape: tuple[int, ...]):
        self._mean = np.zeros(shape)
        self._squares = np.zeros(shape)
        #: Maps that are valid in each voxel.
        self.count = np.zeros(shape, dtype=np.int32)

    def add(self, values: np.ndarray, valid: np.ndarray) -> None:
        """Take in a map (x, y, z) where `valid`, a mask of the same shape, is set."""
        if values.shape != self.count.shape or valid.shape != self.count.shape:
            raise ValueError(f"maps must have the shape {self.count.shape}, not {values.shape}")
        self.count += valid
        change = np.where(valid, values - self._mean, 0.0)
        self._mean += change / np.maximum(self.count, 1)
        self._squares += change * np.where(valid, values - self._mean, 0.0)

    @property
    def mean(self) -> np.ndarray:
        """(x, y, z) float32; zero where no map is valid."""
        return self._mean.astype(np.float32)

    @property
    def sd(self) -> np.ndarray:
        """(x, y, z) float32, of a sample (n - 1); zero where fewer than two maps are valid."""
        degrees = np.maximum(self.count - 1, 1)
        return np.sqrt(np.maximum(self._squares, 0) / degrees).astype(np.float32)


def relative_to_brain(chi: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Map minus its mean over the mask; zero outside.

    The zero of a map is arbitrary, and maps can only be averaged once they share one.

    Raises
    ------
    ValueError
        When the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty: the map has no voxel in the template")
    offset = chi[mask].mean(dtype=np.float64)
    return np.where(mask, chi - np.float32(offset), np.float32(0))
