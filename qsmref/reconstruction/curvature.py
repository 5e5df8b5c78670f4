r"""The field at echo time zero: a line through the phase, bent where voxels hold two tissues.

A voxel that holds two tissues of different field and R2* has a phase that bends: the tissue that
decays fast fades from the later echoes, and a straight line gives the field of the other one. The
error is the same all along the border of an iron-rich nucleus, so it makes the nucleus look larger
in the field. The slope at echo time zero is free of it, but costs noise. Here the phase is

.. math:: \phi(t) = p_0 + p_1 t + c\, t^2

with a prior c ~ N(0, v) whose variance v is what the neighbourhood shows (empirical Bayes): where
it shows no bend beyond doubt v is zero and the fit is the usual one.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .jit import kernel, numba, parallel_kernel

#: Width (voxels, SD of a Gaussian) of the neighbourhood that tells how much the phase bends.
_NEIGHBOURHOOD = 1.5

#: Standard errors above which the neighbourhood's mean square shows a bend: 2 to 3 % of the voxels.
#: Whatever is above zero lets 43 % bend, nearly all of them for noise.
_DOUBT = 3.0

#: v over the neighbourhood's mean square. Tissues meet in thin layers, and the voxels that bend do
#: it far more than their neighbourhood on average.
_CONCENTRATION = 10.0


def bend(
    magnitude: np.ndarray,
    phase: np.ndarray,
    field: np.ndarray,
    mask: np.ndarray,
    times: np.ndarray,
    sigma: float,
    aliases: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Field at echo time zero and its noise, from the field of a straight line.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) float32 arrays
        Any unit; rad.
    field : (x, y, z) array
        Slope of the straight line, rad per dTE, up to multiples of 2 pi.
    mask : (x, y, z) bool array
    times : (echo,) array
        Echo times in units of dTE, from the excitation; three or more.
    sigma : float
        Standard deviation of the real part of the noise, in the unit of `magnitude`.
    aliases : int
        Multiples of 2 pi to try on either side of `field`: 0 for evenly spaced echoes, which
        cannot tell them apart.

    Returns
    -------
    field, noise : (x, y, z) float32 arrays
        rad per dTE, zero outside the mask; the noise includes what the prior leaves open.

    Notes
    -----
    v is in proportion to the mean over the neighbourhood of (c squared - its variance), c from a
    fit without prior, and zero where that is within its standard errors. Phases are taken relative
    to the straight line, so that wraps do not matter.

    References
    ----------
    Robbins 1956 and Morris 1983, doi:10.1080/01621459.1983.10477920 (empirical Bayes).
    """
    shape, count = mask.shape, times.size
    if count < 3:
        raise ValueError("the curvature of the phase needs three echoes")
    index = np.flatnonzero(mask)
    arrays = magnitude.reshape(-1, count), phase.reshape(-1, count), field.reshape(-1), index
    options = times.astype(float), 1.0 / sigma, aliases
    out = np.zeros((3, *shape), np.float32)
    flat = out.reshape(3, -1)
    prior = np.zeros(mask.size, np.float32)
    _fit(*arrays, *options, prior, False, flat[0], flat[1], flat[2])
    # out[2] now holds c^2 - var(c), whose expected value is the variance of the true c, and out[1]
    # var(c): without a bend the former has the variance 2 var(c)^2.
    weight = np.maximum(ndimage.gaussian_filter(mask.astype(np.float32), _NEIGHBOURHOOD), 1e-3)
    shown = ndimage.gaussian_filter(out[2], _NEIGHBOURHOOD) / weight
    # float64: without signal var(c) is huge.
    square = np.square(out[1], dtype=np.float64)
    error = 2 * ndimage.gaussian_filter(square, _NEIGHBOURHOOD) / weight
    error /= 8 * np.pi**1.5 * _NEIGHBOURHOOD**3  # as many voxels count in full
    seen = mask & (shown > _DOUBT * np.sqrt(np.maximum(error, 0)))
    prior = np.where(seen, _CONCENTRATION * shown, 0).ravel()
    _fit(*arrays, *options, prior.astype(np.float32), True, flat[0], flat[1], flat[2])
    return out[0], out[1]


@kernel
def _relative_phases(magnitude, phase, slope, times, out):
    """Phases relative to a line of that slope through their weighted mean; their misfit."""
    real = 0.0
    imaginary = 0.0
    for j in range(times.size):
        angle = phase[j] - slope * times[j]
        weight = np.float64(magnitude[j]) ** 2
        real += weight * np.cos(angle)
        imaginary += weight * np.sin(angle)
    offset = np.arctan2(imaginary, real)
    misfit = 0.0
    for j in range(times.size):
        angle = phase[j] - offset - slope * times[j]
        out[j] = angle - 2 * np.pi * np.round(angle / (2 * np.pi))
        misfit += (magnitude[j] * out[j]) ** 2
    return misfit


@parallel_kernel
def _fit(
    magnitude, phase, field, index, times, inverse_sigma, aliases, prior, use_prior,
    slope_out, noise_out, excess_out,
):  # fmt: skip
    """Slope and its noise; without the prior, var(c) and c^2 - var(c) in the place of the noise."""
    limit = np.pi / np.sqrt(3.0)
    # Of a voxel without signal: noise without bounds, but no word about its neighbours' bend.
    nothing = limit if use_prior else 0.0
    for n in numba.prange(index.size):
        i = index[n]
        angles = np.empty(times.size)
        best = np.float64(field[i])
        least = np.inf
        for k in range(-aliases, aliases + 1):
            slope = field[i] + 2 * np.pi * k
            misfit = _relative_phases(magnitude[i], phase[i], slope, times, angles)
            if misfit < least:
                least = misfit
                best = slope
        _relative_phases(magnitude[i], phase[i], best, times, angles)
        a00 = a01 = a02 = a12 = a22 = 0.0
        b0 = b1 = b2 = 0.0
        for j in range(times.size):
            w = (magnitude[i, j] * inverse_sigma) ** 2
            t = times[j]
            a00 += w
            a01 += w * t
            a02 += w * t * t
            a12 += w * t * t * t
            a22 += w * t * t * t * t
            b0 += w * angles[j]
            b1 += w * t * angles[j]
            b2 += w * t * t * angles[j]
        # Elimination of the offset, then of the slope: three by three, symmetric.
        if a00 <= 0:
            slope_out[i], noise_out[i], excess_out[i] = field[i], nothing, 0
            continue
        s11 = a02 - a01 * a01 / a00
        s12 = a12 - a01 * a02 / a00
        s22 = a22 - a02 * a02 / a00
        r1 = b1 - a01 * b0 / a00
        r2 = b2 - a02 * b0 / a00
        if s11 <= 1e-9 * a02:
            slope_out[i], noise_out[i], excess_out[i] = field[i], nothing, 0
            continue
        left = s22 - s12 * s12 / s11
        known = left > 1e-9 * s22
        if not use_prior:
            # Two echoes of signal cannot show a curvature; they say nothing about v either.
            c = (r2 - s12 * r1 / s11) / left if known else 0.0
            excess_out[i] = c * c - 1 / left if known else 0.0
            noise_out[i] = 1 / left if known else 0.0
            continue
        v = prior[i]
        c = 0.0
        variance = 1 / s11
        if v > 0:
            c = (r2 - s12 * r1 / s11) / (left + 1 / v)
            variance += (s12 / s11) ** 2 / (left + 1 / v)
        total = best + (r1 - s12 * c) / s11
        slope_out[i] = total - 2 * np.pi * np.round(total / (2 * np.pi))
        noise_out[i] = min(np.sqrt(variance), limit)
