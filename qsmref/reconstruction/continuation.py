"""The field where it was not measured, continued from around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg


def continued(
    field: np.ndarray, inside: np.ndarray, known: np.ndarray, voxel_size: Sequence[float]
) -> np.ndarray:
    r"""Field with the smoothest continuation into voxels where it is not known.

    It has no Laplacian there (7 points, neighbours outside the mask left out), as the field of
    sources elsewhere has none:

    .. math:: \sum_{n \sim v} \frac{f_n - f_v}{h_{nv}^2} = 0.

    Parameters
    ----------
    field : (x, y, z) float array
        Any unit.
    inside : (x, y, z) bool array
        The mask; voxels outside are neither used nor changed.
    known : (x, y, z) bool array
        Where the field was measured.
    voxel_size : (3,) float
        mm.

    Returns
    -------
    (x, y, z) array of the field's type; `field` itself where there is nothing to continue. A part
    of the mask without any known voxel becomes 0.
    """
    missing = inside & ~known
    count = int(np.count_nonzero(missing))
    if count == 0:
        return field
    number = np.full(field.shape, -1, dtype=np.int64)
    number[missing] = np.arange(count)
    diagonal, right = np.zeros(count), np.zeros(count)
    rows, columns, values = [], [], []
    for axis, h in enumerate(voxel_size):
        weight = 1 / float(h) ** 2
        for here, there in _neighbours(axis):
            pair = missing[here] & inside[there]
            v, n = number[here][pair], number[there][pair]
            np.add.at(diagonal, v, weight)
            free = n >= 0
            np.add.at(right, v[~free], weight * field[there][pair][~free].astype(np.float64))
            rows.append(v[free])
            columns.append(n[free])
            values.append(np.full(int(free.sum()), -weight))
    # A speck without neighbours has no equation; a little of the identity gives it a zero.
    least = 1e-9 / min(float(h) for h in voxel_size) ** 2
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(diagonal + least)
    place = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.csr_array((np.concatenate(values), place), shape=(count, count))
    scale = sparse.diags_array(1 / (diagonal + least))
    found, _ = cg(matrix, right, rtol=1e-5, maxiter=500, M=scale)
    field = field.copy()
    field[missing] = found
    return field


def _neighbours(axis: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Slices of voxels and of their next ones along an axis, in both directions."""
    lower, upper = [slice(None)] * 3, [slice(None)] * 3
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    return [(tuple(lower), tuple(upper)), (tuple(upper), tuple(lower))]
