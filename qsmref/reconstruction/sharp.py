r"""Background removal by spherical mean values (SMV): SHARP, V-SHARP, RESHARP and iterative SMV.

The mean of a harmonic function over a sphere is its value at the centre. With S the normalised
sphere and E the voxels whose sphere lies in the mask,

.. math:: E (\delta - S) * f = E (\delta - S) * f_L

holds for the total field f and the local field f_L, whatever the background. The methods differ
in how they undo the convolution. All of them cut the rim of the mask, where no sphere fits.
Spheres are in mm and their outer voxels count by the part of them that lies inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .crop import bounding_box, paste
from .fft import Transform, good_size
from .krylov import conjugate_gradients
from .spheres import sphere_spectrum

#: A sphere lies in the mask when no more than this part of it lies outside.
OUTSIDE = 1e-3


class _Spheres:
    """Field and mask on a grid that holds the largest sphere, and their spectra."""

    def __init__(self, field, mask, voxel_size, radius, padding_mm):
        if not radius > 0:
            raise ValueError(f"the radius must be positive (mm), got {radius}")
        if not padding_mm >= 0:
            raise ValueError(f"padding_mm must not be negative, got {padding_mm}")
        self.voxel_size = voxel_size
        self.box = bounding_box(mask)
        self.shape = field.shape
        self.inside = np.ascontiguousarray(mask[self.box])
        self.field = np.where(self.inside, field[self.box], field.dtype.type(0))
        # Room for the sphere, lest it reach the other side of the periodic grid.
        pad = [round((2 * radius + padding_mm) / h) + 1 for h in voxel_size]
        grid = [good_size(n + p) for n, p in zip(self.inside.shape, pad, strict=True)]
        self.transform = Transform(self.inside.shape, grid)
        self._mask_spectrum = self.transform.forward(self.inside.astype(field.dtype))

    def removal(self, radius: float) -> np.ndarray:
        """Spectrum of delta - S."""
        dtype = self.field.dtype
        return 1 - sphere_spectrum(self.transform.grid, self.voxel_size, radius, dtype)

    def fits(self, removal: np.ndarray) -> np.ndarray:
        """Voxels whose sphere lies in the mask."""
        rest = self.transform.inverse(self._mask_spectrum * removal)
        return self.inside & (rest < OUTSIDE)

    def convolve(self, x: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        """Convolve an array of the box with a spectrum."""
        f = self.transform.forward(x)
        f *= spectrum
        return self.transform.inverse(f)

    def deconvolve(self, filtered: np.ndarray, removal: np.ndarray, threshold: float) -> np.ndarray:
        """Divide by delta - S where its spectrum exceeds the threshold."""
        inverse = np.zeros_like(removal)
        np.divide(1, removal, out=inverse, where=np.abs(removal) > threshold)
        return self.convolve(filtered, inverse)

    def whole(self, local: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Local field and mask on the array that the box was cut from."""
        local = np.where(kept, local, self.field.dtype.type(0))
        return paste(local, self.box, self.shape), paste(kept, self.box, self.shape)

    def one_size(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Spectrum of delta - S and the voxels where that sphere fits; there must be some."""
        removal = self.removal(radius)
        kept = self.fits(removal)
        if not kept.any():
            raise ValueError(f"no sphere of {radius:g} mm radius fits into the mask")
        return removal, kept


def sharp(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    radius_mm: float = 6.0,
    threshold: float = 0.05,
    padding_mm: float = 20.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""SHARP: one sphere, the convolution undone by division in k-space.

    .. math:: f_L = E F^{-1} [ F(E (\delta - S) * f) / (1 - \hat S) ]

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`.
    radius_mm : float
        Radius of the sphere, mm; the mask shrinks by as much.
    threshold : float
        Frequencies at which :math:`1 - \hat S` is not above this are set to zero. They are the
        lowest ones: a larger value removes more of the smooth local field.
    padding_mm : float
        Empty space (mm) added along each axis beside what the sphere needs.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : (x, y, z) bool array, eroded by the sphere
    info : dict with ``fft_count`` and ``kept_fraction``

    References
    ----------
    Schweser et al. 2011, doi:10.1016/j.neuroimage.2010.10.070.
    """
    if not threshold >= 0:
        raise ValueError(f"the threshold must not be negative, got {threshold}")
    spheres = _Spheres(field, mask, voxel_size, radius_mm, padding_mm)
    removal, kept = spheres.one_size(radius_mm)
    filtered = np.where(kept, spheres.convolve(spheres.field, removal), field.dtype.type(0))
    local = spheres.deconvolve(filtered, removal, threshold)
    return *spheres.whole(local, kept), _info(spheres, kept)


def v_sharp(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    radius_mm: float = 12.0,
    smallest_mm: float | None = None,
    step_mm: float | None = None,
    threshold: float = 0.05,
    padding_mm: float = 20.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""V-SHARP: spheres of several radii, in each voxel the largest that fits.

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`.
    radius_mm : float
        Largest radius, mm. Radii that fit nowhere are passed over.
    smallest_mm : float, optional
        Smallest radius, mm; by default the longest side of a voxel. The mask shrinks by as much.
    step_mm : float, optional
        Step between radii, mm; by default the longest side of a voxel.
    threshold : float
        As in :func:`sharp`. The convolution is undone once, with the largest sphere that fits.
    padding_mm : float
        As in :func:`sharp`.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : (x, y, z) bool array, eroded by the smallest sphere
    info : dict with ``radii_mm`` (those used), ``fft_count`` and ``kept_fraction``

    References
    ----------
    Wu et al. 2012, doi:10.1002/mrm.23000; Li et al. 2011, doi:10.1016/j.neuroimage.2010.11.088.
    """
    smallest = max(voxel_size) if smallest_mm is None else smallest_mm
    step = max(voxel_size) if step_mm is None else step_mm
    if not (0 < smallest <= radius_mm and step > 0):
        raise ValueError(
            "V-SHARP needs 0 < smallest_mm <= radius_mm and step_mm > 0, got "
            f"{smallest:g}, {radius_mm:g} and {step:g}"
        )
    if not threshold >= 0:
        raise ValueError(f"the threshold must not be negative, got {threshold}")
    # The last radius is the smallest one itself, wherever the steps from the largest lead.
    radii = [*np.arange(radius_mm, smallest + 1e-3 * step, -step), smallest]
    spheres = _Spheres(field, mask, voxel_size, radius_mm, padding_mm)
    spectrum = spheres.transform.forward(spheres.field)
    filtered = np.zeros_like(spheres.field)
    kept = np.zeros_like(spheres.inside)
    largest, used = None, []
    for radius in radii:
        removal = spheres.removal(radius)
        new = spheres.fits(removal) & ~kept
        if not new.any():
            continue
        filtered[new] = spheres.transform.inverse(spectrum * removal)[new]
        kept |= new
        largest = removal if largest is None else largest
        used.append(float(radius))
    if largest is None:
        raise ValueError(f"no sphere of {smallest:g} mm radius fits into the mask")
    local = spheres.deconvolve(filtered, largest, threshold)
    return *spheres.whole(local, kept), {"radii_mm": used, **_info(spheres, kept)}


def resharp(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    radius_mm: float = 6.0,
    regularisation: float = 1e-3,
    tolerance: float = 1e-2,
    max_iterations: int = 100,
    padding_mm: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""RESHARP: the convolution undone by Tikhonov regularisation.

    .. math:: \min_{f_L} \| A (f - f_L) \|^2 + \lambda \| f_L \|^2, \qquad A = E (\delta - S)*

    Conjugate gradients solve the dual problem :math:`(A A^T + \lambda) y = A f`,
    :math:`f_L = A^T y`, for which an iteration costs one pair of FFTs instead of two.

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`.
    radius_mm : float
        Radius of the sphere, mm; the mask shrinks by as much.
    regularisation : float
        :math:`\lambda`, without unit. A larger value removes more of the smooth local field.
    tolerance : float
        Iterations end when the residual of the dual problem has fallen to this part of its
        first value.
    max_iterations : int
    padding_mm : float
        As in :func:`sharp`.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : (x, y, z) bool array, eroded by the sphere
    info : dict with ``iterations``, ``residual``, ``converged``, ``fft_count``, ``kept_fraction``

    References
    ----------
    Sun & Wilman 2014, doi:10.1002/mrm.24765.
    """
    if not regularisation >= 0:
        raise ValueError(f"the regularisation must not be negative, got {regularisation}")
    spheres = _Spheres(field, mask, voxel_size, radius_mm, padding_mm)
    removal, kept = spheres.one_size(radius_mm)
    squared = removal**2 + field.dtype.type(regularisation)
    right = spheres.convolve(spheres.field, removal) * kept
    dual, done = conjugate_gradients(
        lambda y: spheres.convolve(y, squared) * kept, right, tolerance, max_iterations
    )
    local = spheres.convolve(dual, removal)
    return *spheres.whole(local, kept), {**done, **_info(spheres, kept)}


def iterative_smv(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    radius_mm: float = 3.0,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""Iterative SMV: spherical means repeated until nothing changes, the rim held fixed.

    The background is where ``b <- E (S * b)`` with b = f on the rim comes to rest: the function
    that agrees with the total field where no sphere fits and is its own spherical mean where one
    does. The local field f - b then solves :math:`E (\delta - S) * E f_L = E (\delta - S) * f`,
    which conjugate gradients reach in far fewer convolutions than the repetition itself.

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`.
    radius_mm : float
        Radius of the sphere, mm; the mask shrinks by as much.
    tolerance : float
        Iterations end when :math:`\|E (\delta - S) * (f - f_L)\|` has fallen to this part of its
        first value.
    max_iterations : int

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : (x, y, z) bool array, eroded by the sphere
    info : dict with ``iterations``, ``residual``, ``converged``, ``fft_count``, ``kept_fraction``

    References
    ----------
    Wen et al. 2014, doi:10.1002/mrm.24998.
    """
    spheres = _Spheres(field, mask, voxel_size, radius_mm, 0.0)
    removal, kept = spheres.one_size(radius_mm)
    right = spheres.convolve(spheres.field, removal) * kept
    local, done = conjugate_gradients(
        lambda x: spheres.convolve(x, removal) * kept, right, tolerance, max_iterations
    )
    return *spheres.whole(local, kept), {**done, **_info(spheres, kept)}


def _info(spheres: _Spheres, kept: np.ndarray) -> dict[str, Any]:
    return {
        "kept_fraction": float(np.count_nonzero(kept) / np.count_nonzero(spheres.inside)),
        "fft_count": spheres.transform.count,
    }
