r"""Morphology-enabled dipole inversion (MEDI) with L1 regularisation.

.. math:: \min_x \sum_d |w_d \partial_d x|_1 + \lambda \| m (e^{i D x} - e^{i f}) \|^2
          + \frac{\lambda_{csf}}{2} \| C (x - \bar x_C) \|^2

x and f in rad per echo spacing, m = 1 / noise over its mean in the mask, w_d zero at the edges of
the magnitude, C the cerebrospinal fluid. Gauss-Newton steps, each solved by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .crop import paste
from .dipole import dipole_kernel
from .fft import Transform
from .gradient import edge_mask
from .grid import Grid
from .jit import numba, parallel_kernel, parallel_sum
from .krylov import conjugate_gradients
from .spheres import sphere_spectrum, spherical_mean

#: Smooths |x| at zero (rad squared per mm squared).
_SMOOTHING = 1e-6


def medi(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    magnitude: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    radians_per_ppm: float,
    csf: np.ndarray | None = None,
    lambda_: float = 1000.0,
    edge_fraction: float = 0.9,
    smv_radius: float = 0.0,
    merit: bool = False,
    lambda_csf: float = 100.0,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    cg_tolerance: float = 0.01,
    cg_max_iterations: int = 100,
    padding_mm: float = 20.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Susceptibility by MEDI.

    Parameters
    ----------
    field, mask, voxel_size, b0_dir, magnitude, noise, radians_per_ppm
        As in :func:`qsmref.reconstruction.invert`; the local field.
    csf : (x, y, z) bool array, optional
        Cerebrospinal fluid; with it the map is smoothed there and its mean there is zero (MEDI+0).
    lambda_ : float
        Weight of the data term; its meaning depends on `radians_per_ppm`.
    edge_fraction : float
        Part of the voxels that are edges, see :func:`qsmref.reconstruction.gradient.edge_mask`.
    smv_radius : float
        Radius (mm) of the sphere whose mean is taken off the field and the kernel; 0 for none.
        The mask is cut by that radius.
    merit : bool
        Lower the weight of voxels that do not fit the model, at every Gauss-Newton step.
    lambda_csf : float
        Weight of the variance in `csf`.
    tolerance : float
        Gauss-Newton steps end when one changes the map by less than this part.
    max_iterations, cg_tolerance, cg_max_iterations
        Limits of the two loops.
    padding_mm : float
        Empty space around the bounding box of the mask, at either side.

    Returns
    -------
    chi : (x, y, z) array, ppm
    mask : bool array, cut by `smv_radius`
    info : dict
        ``iterations``, ``cg_iterations``, ``step`` (the last relative change), ``residual``
        (weighted data residual over the weighted field), ``converged``, ``grid``, ``fft_count``.

    References
    ----------
    Liu et al. 2012, doi:10.1016/j.neuroimage.2011.08.082; Liu et al. 2013, doi:10.1002/mrm.24272
    (nonlinear data term and MERIT); Liu et al. 2018, doi:10.1002/mrm.26946 (MEDI+0).
    """
    if lambda_ <= 0 or lambda_csf < 0 or smv_radius < 0 or padding_mm < 0:
        raise ValueError(
            "lambda_ must be positive, lambda_csf, smv_radius and padding_mm not negative, got "
            f"{lambda_}, {lambda_csf}, {smv_radius}, {padding_mm}"
        )
    work = Grid(mask, voxel_size, padding_mm)
    inside = work.put(mask)
    phase = work.put(np.where(mask, field, 0).astype(field.dtype))
    phase *= field.dtype.type(radians_per_ppm)
    spread = work.put(np.where(mask, 1 if noise is None else noise, 0).astype(field.dtype))
    edges = np.ones((3, *work.grid), bool)
    if magnitude is not None:
        edges = edge_mask(work.put(magnitude), inside, voxel_size, edge_fraction)
    kernel = dipole_kernel(work.grid, voxel_size, b0_dir, field.dtype)
    if smv_radius > 0:
        sphere = sphere_spectrum(work.grid, voxel_size, smv_radius, field.dtype)
        kernel *= 1 - sphere
        inside, phase, spread = _filtered(work, sphere, inside, phase, spread)
        if not inside.any():
            raise ValueError(f"a sphere of {smv_radius} mm fits nowhere in the mask")
    problem = GaussNewton(
        work.transform, work.inner, kernel, voxel_size, edges, inside, phase, spread, lambda_,
        merit, None if csf is None else (work.put(np.asarray(csf) != 0) & inside, lambda_csf),
    )  # fmt: skip
    x, done = problem.solve(tolerance, max_iterations, cg_tolerance, cg_max_iterations)
    x /= field.dtype.type(radians_per_ppm)
    if problem.csf is not None:
        x -= np.mean(x[problem.csf], dtype=float)
    x[~inside] = 0
    kept, chi = (paste(a[work.place], work.box, mask.shape) for a in (inside, x))
    done |= {"edges_from_magnitude": magnitude is not None, "grid": list(work.grid)}
    return chi, kept, {**done, "fft_count": work.transform.count + work.inner.count}


def _filtered(work: Grid, sphere, inside, phase, spread):
    """Mask, field and noise after the filter (1 - S) of the data: where the sphere fits."""
    fits = spherical_mean(inside.astype(phase.dtype), sphere, work.transform) > 0.999
    filtered = np.where(fits, phase - spherical_mean(phase, sphere, work.transform), 0)
    known = (spread > 0) & np.isfinite(spread)
    # Spheres around a voxel of unknown noise see one as large as the worst known.
    square = np.where(inside & ~known, spread[known].max(), spread) ** 2
    variance = spherical_mean(square, sphere, work.transform) + square
    return fits, filtered, np.where(known, np.sqrt(np.maximum(variance, 0)), 0)


class GaussNewton:
    """Data, weights and operators of one inversion, on the padded grid, in radians.

    `box` is the transform of the box at the start of the grid in which all data lie; products with
    the weights go through it, so that the grid's empty lines are skipped.
    """

    def __init__(
        self,
        transform: Transform,
        box: Transform,
        kernel: np.ndarray,
        voxel_size: Sequence[float],
        edges: np.ndarray,
        inside: np.ndarray,
        phase: np.ndarray,
        spread: np.ndarray,
        lambda_: float,
        merit: bool,
        csf: tuple[np.ndarray, float] | None,
    ):
        self.transform, self.box = transform, box
        self.kernel, self.edges = kernel, edges
        self.inside, self.merit, self.lambda_ = inside, merit, lambda_
        self.dtype = phase.dtype.type
        self.spacing = np.asarray(voxel_size, phase.dtype)
        self.phase = np.where(inside, phase, 0).astype(phase.dtype)
        self.spread = spread
        self.csf: np.ndarray | None = None
        self.lambda_csf = 0.0
        if csf is not None:
            self.csf, self.lambda_csf = csf
        if self.csf is not None and not self.csf.any():
            raise ValueError("the mask of cerebrospinal fluid has no voxel inside the brain mask")
        self.weight2 = self._weight2()

    def _weight2(self) -> np.ndarray:
        known = self.inside & (self.spread > 0) & np.isfinite(self.spread)
        weight = np.zeros(self.spread.shape, self.spread.dtype)
        weight[known] = 1 / self.spread[known]
        weight /= self.dtype(np.mean(weight[self.inside], dtype=float))
        return weight * weight

    def convolve(self, x: np.ndarray) -> np.ndarray:
        spectrum = self.transform.forward(x)
        _multiply(spectrum, self.kernel)
        return self.transform.inverse(spectrum)

    def solve(
        self,
        tolerance: float,
        max_iterations: int,
        cg_tolerance: float,
        cg_max_iterations: int,
        precondition: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Map in rad, and what was done; `precondition` is handed to the inner loop."""
        x = np.zeros(self.phase.shape, self.phase.dtype)
        field = np.zeros_like(x)
        diffusion = np.empty((3, *x.shape), x.dtype)
        twice = self.dtype(2 * self.lambda_)
        iterations = inner = 0
        change = np.inf
        while iterations < max_iterations and change > tolerance:
            _diffusivity(x, self.edges, self.spacing, self.dtype(_SMOOTHING), diffusion)
            gradient = twice * self.convolve(self.weight2 * np.sin(field - self.phase))
            self._add_smooth(x, diffusion, gradient)
            weight = twice * self.weight2[tuple(slice(0, n) for n in self.box.shape)]

            def operator(d, diffusion=diffusion, weight=weight):
                out = self._weigh(d, weight)
                return out, self._add_smooth(d, diffusion, out)

            step, cg = conjugate_gradients(
                operator, -gradient, cg_tolerance, cg_max_iterations, precondition
            )
            before = np.linalg.norm(x)
            x += step
            change = float(np.linalg.norm(step) / before) if before > 0 else np.inf
            field = self.convolve(x)
            iterations += 1
            inner += cg["iterations"]
            if self.merit:
                self._reweight(field)
        misfit = np.sqrt(self.weight2) * 2 * np.abs(np.sin((field - self.phase) / 2))
        signal = np.sqrt(self.weight2) * 2 * np.abs(np.sin(self.phase / 2))
        size = np.linalg.norm(signal)
        return x, {
            "iterations": iterations,
            "cg_iterations": inner,
            "step": change if np.isfinite(change) else None,
            "residual": float(np.linalg.norm(misfit) / size) if size > 0 else 0.0,
            "converged": bool(change <= tolerance),
        }

    def _weigh(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Convolved, weighted in the box, convolved once more."""
        spectrum = self.transform.forward(x)
        _multiply(spectrum, self.kernel)
        field = self.box.inverse(spectrum)
        field *= weight
        spectrum = self.box.forward(field)
        _multiply(spectrum, self.kernel)
        return self.transform.inverse(spectrum)

    def _add_smooth(self, x, diffusion, out) -> float:
        """Add what the penalties make of x; returns the product of x and the sum."""
        product = _add_diffused(x, diffusion, out)
        if self.csf is not None:
            values = x[self.csf]
            centred = values - np.mean(values, dtype=float).astype(x.dtype)
            part = self.dtype(self.lambda_csf) * (centred - centred.mean())
            out[self.csf] += part
            product += float(np.sum(part * values, dtype=float))
        return product

    def _reweight(self, field) -> None:
        """MERIT: noise grows with the square of a residual beyond six standard deviations."""
        error = np.sqrt(self.weight2) * (np.exp(1j * field) - np.exp(1j * self.phase))
        error -= error[self.inside].mean()
        size = np.abs(error)
        deviation = size[self.inside].std()
        if deviation == 0:
            return
        scale = size / (6 * deviation)
        self.spread = self.spread * np.where(self.inside, np.maximum(scale, 1) ** 2, 1).astype(
            self.spread.dtype
        )
        self.weight2 = self._weight2()


@parallel_kernel
def _multiply(spectrum, kernel):
    for i in numba.prange(spectrum.shape[0]):
        for j in range(spectrum.shape[1]):
            for k in range(spectrum.shape[2]):
                spectrum[i, j, k] *= kernel[i, j, k]


@parallel_kernel
def _diffusivity(x, edges, spacing, smoothing, out):
    """w^2 / sqrt((w dx)^2 + smoothing) / h^2 of each forward difference into `out`."""
    nx, ny, nz = x.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                here = x[i, j, k]
                ahead = (
                    x[i + 1, j, k] if i + 1 < nx else here,
                    x[i, j + 1, k] if j + 1 < ny else here,
                    x[i, j, k + 1] if k + 1 < nz else here,
                )
                for d in range(3):
                    if edges[d, i, j, k]:
                        g = (ahead[d] - here) / spacing[d]
                        out[d, i, j, k] = 1 / (np.sqrt(g * g + smoothing) * spacing[d] ** 2)
                    else:
                        out[d, i, j, k] = 0


@parallel_sum
def _add_diffused(x, diffusion, out):
    """Add the adjoint gradient of the weighted gradient of x, in one pass; returns x times all."""
    nx, ny, nz = x.shape
    product = 0.0
    for i in numba.prange(nx):
        # At the faces a neighbour is the voxel itself, and makes no difference.
        back_i, next_i = max(i - 1, 0), min(i + 1, nx - 1)
        for j in range(ny):
            back_j, next_j = max(j - 1, 0), min(j + 1, ny - 1)
            row, sums = x[i, j], out[i, j]
            xb, xa, wb, wa = x[back_i, j], x[next_i, j], diffusion[0, back_i, j], diffusion[0, i, j]
            yb, ya, vb, va = x[i, back_j], x[i, next_j], diffusion[1, i, back_j], diffusion[1, i, j]
            for k in range(nz):
                here = row[k]
                value = wb[k] * (here - xb[k]) - wa[k] * (xa[k] - here)
                sums[k] += value + vb[k] * (here - yb[k]) - va[k] * (ya[k] - here)
            above, sums_above, w = row[1:], sums[1:], diffusion[2, i, j]
            for k in range(nz - 1):
                sums[k] -= w[k] * (above[k] - row[k])
            for k in range(nz - 1):
                sums_above[k] += w[k] * (above[k] - row[k])
            for k in range(nz):
                product += np.float64(row[k]) * sums[k]
    return product
