"""The dipole kernel between cuboid voxels, for fields of objects with sharp borders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .checks import unit_vector
from .fft import frequencies
from .jit import numba, parallel_kernel


def cuboid_kernel(
    grid: Sequence[int],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0, 0, 1),
    dtype: npt.DTypeLike = np.float32,
) -> np.ndarray:
    r"""Dipole kernel in k-space for the mean field over a voxel of uniform cuboid voxels.

    .. math:: C(k) = \sum_n D(k + K_n) \prod_i \mathrm{sinc}^2((k + K_n)_i h_i)

    over the aliases :math:`K_n = n / h`, here the 27 nearest, with weights scaled so that a plane
    wave along an axis keeps its eigenvalue D. The usual kernel
    (:func:`qsmref.reconstruction.dipole.dipole_kernel`) takes the map as band-limited: at a sharp
    border its field rings, since D differs between the two sides of the Nyquist frequency when B0
    is oblique to the grid. Around air that is more than tissue's own field, and it is not harmonic,
    so that no background removal takes it away.

    Parameters
    ----------
    grid : (3,) int
        Shape of the periodic grid.
    voxel_size : (3,) float
        mm.
    b0_dir : (3,) float
        Direction of B0 in voxel axes; any length.

    Returns
    -------
    (nx, ny, nz // 2 + 1) array, without unit (ppm of field per ppm of susceptibility).

    References
    ----------
    Marques & Bowtell 2005, doi:10.1002/cmr.b.20034 (D).
    """
    axes, weights = [], []
    for k, h in zip(frequencies(grid, voxel_size), voxel_size, strict=True):
        aliases = k.reshape(-1, 1) + np.array([-1.0, 0.0, 1.0]) / h
        axes.append(aliases)
        weight = np.sinc(aliases * h) ** 2
        # Over all aliases the squares sum to one; the three kept are scaled to do so too.
        weights.append(weight / weight.sum(axis=1, keepdims=True))
    kernel = np.empty([len(a) for a in axes], dtype)
    _sum_aliases(*axes, *weights, unit_vector(b0_dir), kernel)
    kernel[0, 0, 0] = 0  # the sum is zero there but for rounding in sinc(1)
    return kernel


@parallel_kernel
def _sum_aliases(kx, ky, kz, wx, wy, wz, b0, out):
    for i in numba.prange(kx.shape[0]):
        for j in range(ky.shape[0]):
            for k in range(kz.shape[0]):
                total = 0.0
                for p in range(3):
                    x, along_x = kx[i, p], kx[i, p] * b0[0]
                    for q in range(3):
                        y, along_y = ky[j, q], along_x + ky[j, q] * b0[1]
                        weight = wx[i, p] * wy[j, q]
                        for r in range(3):
                            z = kz[k, r]
                            square = x * x + y * y + z * z
                            if square > 0:
                                along = along_y + z * b0[2]
                                total += (1.0 / 3.0 - along * along / square) * weight * wz[k, r]
                out[i, j, k] = total
