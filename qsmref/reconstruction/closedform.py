"""Dipole inversions that are one division in k-space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .crop import bounding_box, paste
from .dipole import dipole_kernel
from .fft import Transform, frequencies, good_size

Result = tuple[np.ndarray, np.ndarray, dict[str, Any]]


def tkd(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    threshold: float = 0.15,
    beyond: str = "sign",
    padding_mm: float = 20.0,
) -> Result:
    r"""Thresholded k-space division.

    .. math:: \hat\chi = \hat f / D \text{ where } |D| \ge t, \quad
              \hat f\, \mathrm{sign}(D) / t \text{ or } 0 \text{ elsewhere}

    Parameters
    ----------
    field, mask, voxel_size, b0_dir
        As in :func:`qsmref.reconstruction.invert`; the local field.
    threshold : float
        t, between 0 and 2/3. No correction factor is applied: values come out too low by a
        tenth to a fifth, as they do in the published method.
    beyond : {"sign", "zero"}
        What stands below the threshold: ``sign(D) / t`` (Shmueli) or nothing (Wharton).
    padding_mm : float
        Empty space around the bounding box of the mask, at either side.

    References
    ----------
    Shmueli et al. 2009, doi:10.1002/mrm.22135; Wharton et al. 2010, doi:10.1002/mrm.22334.
    """
    if not 0 < threshold < 2 / 3:
        raise ValueError(f"threshold must lie between 0 and 2/3, got {threshold}")
    if beyond not in ("sign", "zero"):
        raise ValueError(f"beyond must be 'sign' or 'zero', got {beyond!r}")

    def divide(kernel, _frequencies):
        inverse = np.zeros_like(kernel)
        keep = np.abs(kernel) >= threshold
        inverse[keep] = 1 / kernel[keep]
        if beyond == "sign":
            inverse[~keep] = np.sign(kernel[~keep]) / threshold
        return inverse

    return _filtered(field, mask, voxel_size, b0_dir, padding_mm, divide)


def tikhonov(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    alpha: float = 0.1,
    penalty: str = "gradient",
    padding_mm: float = 20.0,
) -> Result:
    r"""Tikhonov-regularised inversion in closed form.

    .. math:: \hat\chi = D \hat f / (D^2 + \alpha^2 E^2)

    Parameters
    ----------
    field, mask, voxel_size, b0_dir
        As in :func:`qsmref.reconstruction.invert`; the local field.
    alpha : float
        Weight of the penalty, in mm for ``gradient``.
    penalty : {"gradient", "identity"}
        E is the discrete gradient (per mm), or one.
    padding_mm : float
        Empty space around the bounding box of the mask, at either side.

    References
    ----------
    Bilgic et al. 2014, doi:10.1002/jmri.24365.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    if penalty not in ("gradient", "identity"):
        raise ValueError(f"penalty must be 'gradient' or 'identity', got {penalty!r}")

    def divide(kernel, ks):
        square = np.ones(1, kernel.dtype)
        if penalty == "gradient":
            square = gradient_spectrum(ks, voxel_size)
        denominator = kernel**2 + alpha**2 * square
        # D and E are both zero at k = 0, where the map is not observable.
        return np.where(denominator > 0, kernel / np.where(denominator > 0, denominator, 1), 0)

    return _filtered(field, mask, voxel_size, b0_dir, padding_mm, divide)


def gradient_spectrum(ks: Sequence[np.ndarray], voxel_size: Sequence[float]) -> np.ndarray:
    """Eigenvalues (per mm squared) of minus the 7-point Laplacian on a periodic grid."""
    x, y, z = (
        (2 - 2 * np.cos(2 * np.pi * k * h)) / h**2 for k, h in zip(ks, voxel_size, strict=True)
    )
    return x + y + z


def _filtered(field, mask, voxel_size, b0_dir, padding_mm, divide) -> Result:
    if padding_mm < 0:
        raise ValueError(f"padding_mm must not be negative, got {padding_mm}")
    box = bounding_box(mask)
    local = np.where(mask[box], field[box], field.dtype.type(0))
    grid = [
        good_size(n + 2 * np.ceil(padding_mm / h))
        for n, h in zip(local.shape, voxel_size, strict=True)
    ]
    transform = Transform(local.shape, grid)
    kernel = dipole_kernel(grid, voxel_size, b0_dir, field.dtype)
    spectrum = transform.forward(local)
    spectrum *= divide(kernel, frequencies(grid, voxel_size)).astype(field.dtype, copy=False)
    chi = transform.inverse(spectrum)
    chi = np.where(mask[box], chi, 0).astype(field.dtype, copy=False)
    done = {"iterations": 1, "grid": list(grid), "fft_count": transform.count}
    return paste(chi, box, field.shape), mask, done
