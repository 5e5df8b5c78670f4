"""Model error reduction through iterative tuning (MERIT): wrong voxels lose their weight."""

from __future__ import annotations

import numpy as np

#: Half of a normal distribution lies within this many standard deviations of its mean.
_HALF_OF_NORMAL = 0.6744898


def merit_weights(
    weight2: np.ndarray, error: np.ndarray, known: np.ndarray, *, noise: float | None = None
) -> np.ndarray:
    """Squared weights lowered where the weighted error exceeds six standard deviations.

    With the `noise` that the weighted error should have, the standard deviation follows from the
    median of the errors' sizes, and is that noise at least: a map that may follow every voxel of
    the field leaves little of a wrong one, and wrong ones would hide each other.

    References
    ----------
    Liu et al. 2013, doi:10.1002/mrm.24272 (model error reduction through iterative tuning).
    """
    weighted = np.sqrt(weight2) * error
    values = weighted[known]
    middle = values.mean(dtype=float) if noise is None else np.median(values)
    weighted -= weighted.dtype.type(middle)
    if noise is None:
        spread = float(values.std(dtype=float))
    else:
        spread = max(float(np.median(np.abs(weighted[known]))) / _HALF_OF_NORMAL, noise)
    if spread == 0:
        return weight2
    excess = np.maximum(np.abs(weighted) / weighted.dtype.type(6 * spread), 1)
    return np.where(known, weight2 / excess**4, 0).astype(weight2.dtype)
