"""Spatial unwrapping of a phase or of a field map in radians.

``romeo`` follows paths and adds whole turns; ``laplacian`` and ``poisson`` solve for a phase whose
Laplacian is that of the wrapped one, which is smooth and never exact. Methods are named in
:data:`qsmref.reconstruction.methods.UNWRAP`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import prange
from scipy import ndimage

from .checks import Numbers, check_echoes, check_mask, check_size, echo_spacing, evenly_spaced
from .echoes import fit_echoes
from .fft import Transform, good_size
from .jit import parallel_kernel
from .krylov import conjugate_gradients
from .romeo import unwrap_path

TWO_PI = 2 * math.pi
TURN = np.float32(TWO_PI)


def unwrap(
    phase: np.ndarray,
    voxel_size: Sequence[float],
    method: str = "romeo",
    magnitude: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Remove the 2 pi jumps of a wrapped phase.

    Parameters
    ----------
    phase : (x, y, z) array
        rad.
    voxel_size : (3,) float
        mm.
    method : {"romeo", "laplacian", "poisson"}
        ``romeo``: path-based; the result differs from `phase` by whole turns only. Parts of the
        mask that do not touch are unwrapped apart, each with its median in [-pi, pi].
        ``laplacian``: periodic FFT solution; its mean over the field of view is zero.
        ``poisson``: least squares over the neighbours inside the mask; each part of the mask is
        shifted to agree with `phase` where it can, its median in [-pi, pi].
    magnitude : (x, y, z) array, optional
        Weighs the edges of ``romeo``.
    mask : (x, y, z) bool array, optional
        Voxels to use; every voxel by default. Phase outside has no influence.

    Returns
    -------
    (x, y, z) float32 array, rad; 0 outside the mask.

    Raises
    ------
    ValueError
        Other shapes, NaN or infinite phase inside the mask, an empty mask, an unknown method.

    References
    ----------
    Dymerska et al. 2021, doi:10.1002/mrm.28563 (romeo); Schofield & Zhu 2003,
    doi:10.1364/OL.28.001194 (laplacian); Ghiglia & Romero 1994, doi:10.1364/JOSAA.11.000107
    (poisson).
    """
    phase = np.asarray(phase, dtype=np.float32)
    if phase.ndim != 3:
        raise ValueError(f"phase must have the axes (x, y, z), got shape {phase.shape}")
    h = check_size(voxel_size)
    if magnitude is not None and np.shape(magnitude) != phase.shape:
        raise ValueError(
            f"magnitude {np.shape(magnitude)} and phase {phase.shape} must have the same shape"
        )
    mask = check_mask(mask, phase.shape)
    if not np.isfinite(np.sum(phase, where=mask, dtype=np.float64)):
        raise ValueError("phase has NaN or infinite voxels inside the mask")
    if method == "romeo":
        turns = unwrap_path(phase, mask, magnitude)
        return np.where(mask, phase + TURN * turns.astype(np.float32), np.float32(0))
    if method == "laplacian":
        return unwrap_laplacian(phase, h, mask)
    if method == "poisson":
        return unwrap_poisson(phase, h, mask)
    raise ValueError(f"unwrapping must be 'romeo', 'laplacian' or 'poisson', got {method!r}")


def unwrap_echoes(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    mask: np.ndarray | None = None,
    template: int = 0,
) -> np.ndarray:
    """Unwrap every echo in space and in time, by whole turns.

    The template echo is unwrapped in space along ROMEO's paths, with the coherence of gradients
    over echoes among its weights, and so is the field of :func:`qsmref.reconstruction.fit_echoes`.
    The other echoes take the whole turns that bring them nearest to ``template + field (TE -
    TE_template)``. Scaling the template by the ratio of echo times, as the paper does, would need
    a phase without the receiver's offset; a prediction from the field does not.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) arrays
        Phase in rad.
    echo_times : sequence of float
        s, increasing.
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) bool array, optional
    template : int
        Echo that is unwrapped in space, counted from 0.

    Returns
    -------
    (x, y, z, echo) float32 array, rad; 0 outside the mask.

    References
    ----------
    Dymerska et al. 2021, doi:10.1002/mrm.28563.
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    if not 0 <= template < times.size:
        raise ValueError(f"template must be an echo from 0 to {times.size - 1}, got {template}")
    mask = check_mask(mask, phase.shape[:3])
    if times.size == 1:
        return unwrap(phase[..., 0], voxel_size, "romeo", magnitude[..., 0], mask)[..., None]
    other = template + 1 if template + 1 < times.size else template - 1
    turns = unwrap_path(
        phase[..., template],
        mask,
        magnitude[..., template],
        phase[..., other],
        times[template] / times[other],
    )
    start = phase[..., template] + TURN * turns.astype(np.float32)
    # The noise map is not used, so its scale does not matter.
    field = fit_echoes(magnitude, phase, times, mask, sigma=1.0).field
    field += TURN * unwrap_path(field, mask, np.sqrt(_energy(magnitude))).astype(np.float32)
    steps = ((times - times[template]) / echo_spacing(times)).astype(np.float32)
    if not evenly_spaced(times):
        field += TURN * np.float32(_common_alias(phase, start, field, steps, mask))
    expected = start[..., None] + field[..., None] * steps
    expected -= phase
    expected /= TURN
    np.rint(expected, out=expected)
    expected *= TURN
    expected += phase
    expected *= mask[..., None]
    return expected


def _energy(magnitude: np.ndarray) -> np.ndarray:
    return np.einsum("xyze,xyze->xyz", magnitude, magnitude)


def _common_alias(phase, start, field, steps, mask) -> int:
    """Turns per dTE by which the whole field is off; uneven spacing can tell."""
    index = np.flatnonzero(mask)
    index = index[:: max(1, index.size // 20_000)]
    measured = phase.reshape(-1, steps.size)[index]
    first, slope = start.ravel()[index, None], field.ravel()[index, None]
    candidates = sorted(range(-2, 3), key=abs)
    fit = [
        np.cos(measured - first - (slope + TWO_PI * turns) * steps).mean() for turns in candidates
    ]
    return candidates[int(np.argmax(np.array(fit) - 1e-3 * np.abs(candidates)))]


@parallel_kernel
def _sine_laplacian(phase, mask, weights, periodic, out):
    """cos(phi) L sin(phi) - sin(phi) L cos(phi), L the 7-point Laplacian.

    With the angle-sum rule this is the sum of ``sin(phi_neighbour - phi) / h^2``.
    """
    nx, ny, nz = phase.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if not mask[i, j, k]:
                    out[i, j, k] = 0
                    continue
                here, total = phase[i, j, k], 0.0
                for d in range(3):
                    for side in (-1, 1):
                        a, b, c = i + side * (d == 0), j + side * (d == 1), k + side * (d == 2)
                        if periodic:
                            a, b, c = a % nx, b % ny, c % nz
                        if 0 <= a < nx and 0 <= b < ny and 0 <= c < nz and mask[a, b, c]:
                            total += weights[d] * math.sin(phase[a, b, c] - here)
                out[i, j, k] = total


def unwrap_laplacian(
    phase: np.ndarray,
    voxel_size: Numbers,
    mask: np.ndarray | None = None,
    padding: float = 20.0,
    periodic: bool = False,
) -> np.ndarray:
    """Laplacian unwrapping with FFTs; see :func:`unwrap`.

    Solves ``L u = cos(phi) L sin(phi) - sin(phi) L cos(phi)`` on a periodic grid, L the 7-point
    Laplacian with weights 1/h^2. Neighbours outside the mask are left out of the right-hand side:
    a field whose sources lie on the mask's boundary is added to the result by that, which is
    harmonic inside and goes with the background.

    Parameters
    ----------
    padding : float
        mm of zeros at the end of each axis.
    periodic : bool
        Whether the image's opposite borders are neighbours. The textbook's plain FFT form is
        ``padding=0, periodic=True``.
    """
    h = np.asarray(voxel_size, dtype=float)
    mask = check_mask(mask, phase.shape)
    source = np.empty(phase.shape, dtype=np.float32)
    _sine_laplacian(np.asarray(phase, dtype=np.float32), mask, 1 / h**2, periodic, source)
    grid: Sequence[int] = phase.shape
    if padding > 0:
        grid = [good_size(n + math.ceil(padding / s)) for n, s in zip(phase.shape, h, strict=True)]
    transform = Transform(phase.shape, grid)
    spectrum = transform.forward(source)
    spectrum *= inverse_laplacian(transform.grid, h)
    return np.where(mask, transform.inverse(spectrum), np.float32(0))


def inverse_laplacian(grid: Sequence[int], voxel_size: Numbers) -> np.ndarray:
    """1 / K on the half spectrum, K the 7-point Laplacian's spectrum (1/mm^2); 0 at k = 0."""
    h = np.asarray(voxel_size, dtype=float)
    spectrum = np.zeros([grid[0], grid[1], grid[2] // 2 + 1], dtype=np.float64)
    for axis in range(3):
        k = np.arange(spectrum.shape[axis])
        line = 2 * (np.cos(TWO_PI * k / grid[axis]) - 1) / h[axis] ** 2
        spectrum += line.reshape([-1 if a == axis else 1 for a in range(3)])
    spectrum[0, 0, 0] = 1
    np.divide(1, spectrum, out=spectrum)
    spectrum[0, 0, 0] = 0
    return spectrum.astype(np.float32)


@parallel_kernel
def _wrapped_laplacian(phase, mask, weights, out):
    """Sum over the neighbours in the mask of ``wrap(phi_neighbour - phi) / h^2``."""
    nx, ny, nz = phase.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = 0.0
                if mask[i, j, k]:
                    here = phase[i, j, k]
                    for d in range(3):
                        for side in (-1, 1):
                            a, b, c = i + side * (d == 0), j + side * (d == 1), k + side * (d == 2)
                            if 0 <= a < nx and 0 <= b < ny and 0 <= c < nz and mask[a, b, c]:
                                step = phase[a, b, c] - here
                                turns = math.floor(step / TWO_PI + 0.5)
                                total += weights[d] * (step - TWO_PI * turns)
                out[i, j, k] = total


@parallel_kernel
def _mask_laplacian(x, mask, weights, out):
    """Minus the Laplacian of the graph of neighbours inside the mask."""
    nx, ny, nz = x.shape
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                total = 0.0
                if mask[i, j, k]:
                    here = x[i, j, k]
                    for d in range(3):
                        for side in (-1, 1):
                            a, b, c = i + side * (d == 0), j + side * (d == 1), k + side * (d == 2)
                            if 0 <= a < nx and 0 <= b < ny and 0 <= c < nz and mask[a, b, c]:
                                total += weights[d] * (here - x[a, b, c])
                out[i, j, k] = total


def unwrap_poisson(
    phase: np.ndarray,
    voxel_size: Numbers,
    mask: np.ndarray | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> np.ndarray:
    """Least-squares unwrapping inside a mask; see :func:`unwrap`.

    Minimises the sum over neighbours i, j inside the mask of ``(u_j - u_i - wrap(phi_j - phi_i))^2
    / h^2``: Poisson's equation with the boundary condition that nature gives (Neumann). Unlike
    the equation with zeros at the boundary it keeps the harmonic part of a field, hence its
    background. Where the wrapped differences go round no pole the result is `phase` without its
    jumps, up to the tolerance.

    Conjugate gradients, preconditioned by the inverse of the periodic Laplacian.

    Parameters
    ----------
    tolerance : float
        Residual of the equation relative to its right-hand side.
    """
    weights = 1 / np.asarray(voxel_size, dtype=float) ** 2
    mask = check_mask(mask, phase.shape)
    box = tuple(slice(s.start, s.stop) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    angle = np.ascontiguousarray(phase[box], dtype=np.float32)
    within = np.ascontiguousarray(mask[box])
    right = np.empty_like(angle)
    _wrapped_laplacian(angle, within, weights, right)
    np.negative(right, out=right)
    transform = Transform(angle.shape, [good_size(n + 1) for n in angle.shape])
    inverse = -inverse_laplacian(transform.grid, voxel_size)

    def precondition(x):
        spectrum = transform.forward(x)
        spectrum *= inverse
        return np.where(within, transform.inverse(spectrum), np.float32(0))

    def laplacian(x):
        out = np.empty_like(x)
        _mask_laplacian(x, within, weights, out)
        return out

    smooth, _ = conjugate_gradients(laplacian, right, tolerance, max_iterations, precondition)
    labels, count = ndimage.label(within)
    index = np.arange(1, count + 1)
    difference = np.exp(1j * (angle - smooth))
    shift = np.angle(
        ndimage.mean(difference.real, labels, index)
        + 1j * ndimage.mean(difference.imag, labels, index)
    )
    shift -= TWO_PI * np.rint((ndimage.median(smooth, labels, index) + shift) / TWO_PI)
    smooth += np.concatenate([[0], shift]).astype(np.float32)[labels]
    result = np.zeros(phase.shape, dtype=np.float32)
    result[box] = np.where(within, smooth, 0)
    return result
