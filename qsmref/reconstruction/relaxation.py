"""Effective transverse relaxation R2* from magnitudes, and the cerebrospinal fluid it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import prange
from scipy import ndimage

from .checks import Numbers, check_mask, check_series, check_times
from .jit import parallel_kernel
from .mask import erode

#: Below this R2* (1/s) a voxel counts as cerebrospinal fluid.
CSF_R2STAR = 5.0


def integral_weights(echo_times: Numbers) -> np.ndarray:
    """Weights of three neighbouring echoes for the integral of the parabola through them.

    Parameters
    ----------
    echo_times : (n,) float
        s, n >= 3.

    Returns
    -------
    (n - 2, 3) float64 array, s; rows are Simpson's rule where the spacing is even.
    """
    t = np.asarray(echo_times, dtype=float)
    a, b = np.diff(t)[:-1], np.diff(t)[1:]
    total = a + b
    first = total * (2 * a - b) / (6 * a)
    middle = total**3 / (6 * a * b)
    last = total * (2 * b - a) / (6 * b)
    return np.stack([first, middle, last], axis=1)


@parallel_kernel
def _arlo(magnitude, index, weights, floor, largest, out):
    triples = weights.shape[0]
    for i in prange(index.size):
        v = index[i]
        above = below = 0.0
        for e in range(triples):
            s0, s1, s2 = magnitude[v, e], magnitude[v, e + 1], magnitude[v, e + 2]
            # From the first echo in the noise on, the decay is not seen.
            if e > 0 and s2 <= floor or s1 <= floor:
                break
            integral = weights[e, 0] * s0 + weights[e, 1] * s1 + weights[e, 2] * s2
            drop = s0 - s2
            instrument = integral + weights[e, 2] * drop
            above += instrument * drop
            below += instrument * integral
        rate = above / below if below > 0 else largest
        out[v] = min(max(rate, 0.0), largest)


def r2star(
    magnitude: np.ndarray,
    echo_times: Sequence[float],
    mask: np.ndarray | None = None,
    sigma: float | None = None,
) -> np.ndarray:
    r"""R2* by auto-regression on linear operations (ARLO).

    For a decay :math:`s = s_0 e^{-R t}` the integral over three neighbouring echoes is
    :math:`S_i = \int s\,dt = \delta_i / R` with :math:`\delta_i = s_i - s_{i+2}`. With the
    parabola's rule :math:`S_i = \alpha_i s_i + \beta_i s_{i+1} + \gamma_i s_{i+2}`,

    .. math:: R = \frac{\sum_i (S_i + \gamma_i \delta_i) \delta_i}
                       {\sum_i (S_i + \gamma_i \delta_i) S_i}

    which is the paper's formula where the spacing is even (:math:`\gamma = \Delta/3`).

    Parameters
    ----------
    magnitude : (x, y, z, echo) array
        Three echoes or more.
    echo_times : sequence of float
        s, increasing, even or uneven.
    mask : (x, y, z) bool array, optional
    sigma : float, optional
        Standard deviation of the complex noise. With it, the noise's mean energy (2 sigma^2) is
        taken off, and echoes from the first one below 2 sigma on are left out. Without it every
        echo counts.

    Returns
    -------
    (x, y, z) float32 array, 1/s, between 0 and 3 / (TE2 - TE1) (a faster decay leaves nothing in
    the second echo; a voxel without signal in the first two gets that limit); 0 outside the mask.

    Notes
    -----
    The parabola makes R too small by about (R dTE)^4 / 180 relative.

    References
    ----------
    Pei et al. 2015, doi:10.1002/mrm.25137; Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618.
    """
    magnitude = check_series(magnitude, "magnitude")
    times = check_times(echo_times, magnitude.shape[3])
    if times.size < 3:
        raise ValueError("R2* by ARLO needs three echoes or more")
    if sigma is not None and not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    mask = check_mask(mask, magnitude.shape[:3])
    floor = 0.0
    if sigma is not None:
        magnitude = np.sqrt(np.maximum(magnitude**2 - np.float32(2 * sigma**2), 0))
        floor = math.sqrt(2) * sigma  # 2 sigma before the correction
    out = np.zeros(mask.size, dtype=np.float32)
    _arlo(
        magnitude.reshape(-1, times.size),
        np.flatnonzero(mask),
        integral_weights(times),
        floor,
        3 / (times[1] - times[0]),
        out,
    )
    return out.reshape(mask.shape)


def csf_mask(
    rate: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    threshold: float = CSF_R2STAR,
    radius: float = 30.0,
    depth: float = 10.0,
) -> np.ndarray:
    """Ventricular cerebrospinal fluid: slow decay, deep in the brain, connected to its middle.

    The three largest parts of ``rate < threshold`` in a ball around the mask's centroid are taken
    as ventricles, and with them every part of the eroded mask's slow voxels that they touch. With
    fewer than three parts, those there are.

    Parameters
    ----------
    rate : (x, y, z) array
        R2*, 1/s.
    mask : (x, y, z) bool array
        Brain.
    voxel_size : (3,) float
        mm.
    threshold : float
        1/s.
    radius : float
        mm, of the ball.
    depth : float
        mm that the mask is eroded by, to leave out the fluid around the brain.

    Returns
    -------
    (x, y, z) bool array inside the mask.

    Raises
    ------
    ValueError
        When no slow voxel lies in the ball, or an empty or too thin mask.

    References
    ----------
    Liu et al. 2018, doi:10.1002/mrm.26946 (MEDI+0).
    """
    mask = check_mask(mask, np.shape(rate))
    slow = (np.asarray(rate) < threshold) & mask
    h = np.asarray(voxel_size, dtype=float)
    centre = np.array(ndimage.center_of_mass(mask)) * h
    place = np.ogrid[tuple(slice(n) for n in mask.shape)]
    ball = sum((p * s - c) ** 2 for p, s, c in zip(place, h, centre, strict=True)) <= radius**2
    labels, count = ndimage.label(slow & ball)
    if count == 0:
        raise ValueError(
            f"no voxel with R2* below {threshold:g}/s lies within {radius:g} mm of the middle of "
            "the brain: no cerebrospinal fluid was found"
        )
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricles = np.isin(labels, np.argsort(sizes)[::-1][: min(3, count)])
    deep, _ = ndimage.label((slow & erode(mask, depth, h)) | ventricles)
    return np.isin(deep, np.unique(deep[ventricles])) & slow
