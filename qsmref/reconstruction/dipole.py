"""The magnetic field of a susceptibility distribution, for any direction of B0 and voxel size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .checks import unit_vector
from .fft import Transform, frequencies, good_size

#: Gyromagnetic ratio of the proton over 2 pi, in Hz per tesla (CODATA 2018, shielded values differ
#: by 26 ppm). Used only where a sidecar gives the field strength but no imaging frequency.
GAMMA_HZ_PER_T = 42.577478518e6


def dipole_kernel(
    grid: Sequence[int],
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0, 0, 1),
    dtype: npt.DTypeLike = np.float32,
) -> np.ndarray:
    r"""Dipole kernel in k-space, on the half spectrum of a real FFT.

    .. math:: D(k) = 1/3 - (k \cdot b)^2 / |k|^2, \qquad D(0) = 0

    with k in cycles per mm and b the unit vector of B0 in voxel axes. ``D(0) = 0`` makes a map
    *unreferenced*: its mean over the grid is not observable and is set to zero.

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
    Marques & Bowtell 2005, doi:10.1002/cmr.b.20034; Salomir et al. 2003, doi:10.1002/cmr.b.10083.
    """
    kx, ky, kz = frequencies(grid, voxel_size)
    bx, by, bz = unit_vector(b0_dir)
    k2 = kx**2 + ky**2 + kz**2
    k2[0, 0, 0] = 1.0
    components = [kx * bx, ky * by, kz * bz]
    squares = components[0] ** 2 + components[1] ** 2 + components[2] ** 2
    # At the Nyquist frequency of an even axis +k and -k are one sample. An oblique kernel differs
    # between the two; a real field needs their mean, in which that axis' mixed terms cancel.
    for axis, size in enumerate(grid):
        if size % 2 == 0:
            np.moveaxis(components[axis], axis, 0)[size // 2] = 0.0
    cx, cy, cz = components
    kernel = 1.0 / 3.0 - (squares + 2 * (cx * cy + cy * cz + cx * cz)) / k2
    kernel[0, 0, 0] = 0.0
    return kernel.astype(dtype, copy=False)


def forward_field(
    chi: np.ndarray,
    voxel_size: Sequence[float],
    b0_dir: Sequence[float] = (0, 0, 1),
    *,
    cuboid: bool = False,
) -> np.ndarray:
    """Field (ppm of B0) of a susceptibility map (ppm), in free space.

    The map is padded twofold, so that its periodic images lie one field of view away; a padding
    of 1.5 would change the field in a head by 28 ppb.

    Parameters
    ----------
    chi : (x, y, z) array
        Susceptibility, ppm. Voxels outside the array count as 0 ppm.
    voxel_size : (3,) float
        mm.
    b0_dir : (3,) float
        Direction of B0 in voxel axes.
    cuboid : bool
        Take voxels as uniform cuboids and give the mean field over each
        (:func:`qsmref.reconstruction.cuboid.cuboid_kernel`), instead of the field of a band-limited
        map, which is what the inversions assume.

    Returns
    -------
    (x, y, z) float array of the type of `chi` (float32 unless it is float64), ppm. The field
    includes the Lorentz sphere correction: it is zero inside a uniform sphere.

    References
    ----------
    Marques & Bowtell 2005, doi:10.1002/cmr.b.20034.
    """
    chi = np.asarray(chi)
    if chi.ndim != 3:
        raise ValueError(f"chi must have three dimensions, got shape {chi.shape}")
    dtype = np.float64 if chi.dtype == np.float64 else np.float32
    transform = Transform(chi.shape, [good_size(2 * n) for n in chi.shape])
    spectrum = transform.forward(chi.astype(dtype, copy=False))
    kernel = dipole_kernel
    if cuboid:
        from .cuboid import cuboid_kernel as kernel  # numba: half a second
    spectrum *= kernel(transform.grid, voxel_size, b0_dir, dtype)
    return np.ascontiguousarray(transform.inverse(spectrum))
