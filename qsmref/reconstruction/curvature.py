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

from .crop import bounding_box
from .jit import kernel, numba, parallel_kernel
from .offset import Anchor

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
    anchor: Anchor | None = None,
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
    anchor : Anchor, optional
        What the neighbours say of the phase at TE = 0; without it the phase offset of each voxel
        is free. With it two echoes will do, whose phase does not bend.

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
    count = times.size
    if count < 3 and anchor is None:
        raise ValueError("the curvature of the phase needs three echoes")
    index = np.flatnonzero(mask)
    if anchor is None:
        slope = field.reshape(-1)[index].astype(np.float32)
        anchor = Anchor(slope, np.zeros_like(slope), np.zeros_like(slope))
    arrays = magnitude.reshape(-1, count), phase.reshape(-1, count), index, *anchor
    options = times.astype(float), 1.0 / sigma, aliases
    found, second = np.empty((2, index.size), np.float32)
    prior = np.zeros(index.size, np.float32)
    if count >= 3:
        _fit(*arrays, *options, prior, False, found, second)
        prior = _variance_around(found, second, mask[bounding_box(mask)])
    _fit(*arrays, *options, prior, True, found, second)
    result = np.zeros((2, *mask.shape), np.float32)
    result.reshape(2, -1)[:, index] = found, second
    return result[0], result[1]


def _variance_around(excess: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """v of each voxel of the mask, from c^2 - var(c), whose expected value it is, and var(c)."""
    image = np.zeros(mask.shape, np.float32)

    def sums(values, width):
        image[mask] = values
        return ndimage.gaussian_filter(image, width, truncate=3.0)[mask]

    weight = np.maximum(sums(1, _NEIGHBOURHOOD), 1e-3)
    shown = sums(excess, _NEIGHBOURHOOD) / weight
    # Without a bend c^2 - var(c) has the variance 2 var(c)^2, and of their mean the squares of the
    # weights count, a Gaussian too. Without signal var(c) is huge.
    error = 2 * sums(np.square(np.minimum(variance, 1e15)), _NEIGHBOURHOOD / np.sqrt(2))
    error /= 8 * np.pi**1.5 * _NEIGHBOURHOOD**3 * np.square(weight)
    return np.where(shown > _DOUBT * np.sqrt(error), _CONCENTRATION * shown, np.float32(0))


@kernel
def _relative_phases(magnitude, phase, slope, times, out):
    """Phases relative to a line of that slope through their mean; its phase at TE = 0, misfit."""
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
    return offset, misfit


@parallel_kernel
def _fit(
    magnitude, phase, index, slope, offset, certainty, times, inverse_sigma, aliases, prior,
    use_prior, first_out, second_out,
):  # fmt: skip
    """Slope and its noise; without the prior of the bend, c^2 - var(c) and var(c) instead."""
    limit = np.pi / np.sqrt(3.0)
    for n in numba.prange(index.size):
        i = index[n]
        angles = np.empty(times.size)
        best = np.float64(slope[n])
        least = np.inf
        for k in range(-aliases, aliases + 1):
            other = slope[n] + 2 * np.pi * k
            start, misfit = _relative_phases(magnitude[i], phase[i], other, times, angles)
            if misfit < least:
                least = misfit
                best = other
        start, misfit = _relative_phases(magnitude[i], phase[i], best, times, angles)
        # An echo at TE = 0, as it were, with the phase that the neighbours expect.
        expected = offset[n] - start
        expected -= 2 * np.pi * np.round(expected / (2 * np.pi))
        a00 = np.float64(certainty[n])
        b0 = a00 * expected
        a01 = a02 = a12 = a22 = b1 = b2 = 0.0
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
        s11 = a02 - a01 * a01 / a00 if a02 > 0 else 0.0
        if s11 <= 1e-9 * a02:
            # Of a voxel without signal: noise without bounds, no word about its neighbours' bend.
            turns = np.round(slope[n] / (2 * np.pi))
            first_out[n] = slope[n] - 2 * np.pi * turns if use_prior else 0.0
            second_out[n] = limit if use_prior else 0.0
            continue
        s12 = a12 - a01 * a02 / a00
        s22 = a22 - a02 * a02 / a00
        r1 = b1 - a01 * b0 / a00
        r2 = b2 - a02 * b0 / a00
        left = s22 - s12 * s12 / s11
        if not use_prior:
            # Two echoes of signal cannot show a curvature; they say nothing about v either.
            known = left > 1e-9 * s22
            c = (r2 - s12 * r1 / s11) / left if known else 0.0
            first_out[n] = c * c - 1 / left if known else 0.0
            second_out[n] = 1 / left if known else 0.0
            continue
        v = prior[n]
        c = 0.0
        variance = 1 / s11
        if v > 0:
            c = (r2 - s12 * r1 / s11) / (left + 1 / v)
            variance += (s12 / s11) ** 2 / (left + 1 / v)
        total = best + (r1 - s12 * c) / s11
        first_out[n] = total - 2 * np.pi * np.round(total / (2 * np.pi))
        second_out[n] = min(np.sqrt(variance), limit)
