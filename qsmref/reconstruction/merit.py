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
    excess = np.sqrt(weight2)
    excess *= error
    values = excess[known]
    middle = values.mean(dtype=float) if noise is None else np.median(values)
    values -= values.dtype.type(middle)
    if noise is None:
        spread = float(values.std(dtype=float))
    else:
        np.abs(values, out=values)
        spread = max(float(np.median(values, overwrite_input=True)) / _HALF_OF_NORMAL, noise)
    del values
    if spread == 0:
        return weight2
    # One array, in place: weight2 / max(|weighted - middle| / (6 spread), 1)^4.
    excess -= excess.dtype.type(middle)
    np.abs(excess, out=excess)
    excess /= excess.dtype.type(6 * spread)
    np.maximum(excess, 1, out=excess)
    excess *= excess
    excess *= excess
    np.divide(weight2, excess, out=excess)
    excess *= known
    return excess.astype(weight2.dtype, copy=False)
