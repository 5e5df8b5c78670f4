"""How large the noise of the complex signal is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from .checks import Numbers, check_echoes, check_mask, design
from .linefit import fit_voxels


class NoiseLevel(NamedTuple):
    """Result of :func:`noise_level`."""

    #: Standard deviation of the real part of the noise, in the unit of the magnitude.
    sigma: float
    #: "background", "fit" or "differences".
    source: str
    #: Number of voxels it was taken from.
    voxels: int


def noise_level(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Numbers,
    mask: np.ndarray | None = None,
) -> NoiseLevel:
    """Standard deviation of the complex noise, and where it was found.

    1. ``background``: the air around the head, outside the mask. There the energy summed over n
       echoes is sigma^2 times a chi-square variable with 2n degrees of freedom. Starting from the
       voxels below 1/40 of the largest magnitude, sigma is taken from their median energy and the
       limit from sigma (99 % of the noise), in turn, so that neither the start nor the limit
       matters. Exact zeros do not count. It is used when at least 1 % of the image is left, when
       those voxels look like the noise of one channel (median over mean energy of single echoes
       between .55 and .8; ln 2 = .69 is exact), and when the fit does not contradict it by more
       than a factor of two. A scanner that zeroes or filters the air leaves the ways below.
    2. ``fit`` (three echoes or more): the squared misfit of the nonlinear fit is sigma^2 times a
       chi-square variable with n - 2 degrees of freedom (n phases, two parameters); its median
       over the mask, or over the brighter half of the image, gives sigma. Phase that is not
       linear in echo time makes it too large.
    3. ``differences``: third differences of the first echo's complex signal along x; the median
       of their absolute value is .6745 sqrt(20) sigma for noise. Structure makes it too large.

    Parameters
    ----------
    magnitude, phase, echo_times, mask
        As for :func:`qsmref.reconstruction.fit_echoes`.

    References
    ----------
    Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618 (noise of magnitudes).
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    energy = np.einsum("xyze,xyze->xyz", magnitude, magnitude)
    if not energy.any():
        raise ValueError("magnitude is zero in every voxel")
    within = None if mask is None else check_mask(mask, phase.shape[:3])
    inside = energy > (np.median(energy[energy > 0]) if within is None else 0)
    if within is not None:
        inside &= within
    fitted = None
    if times.size >= 3 and inside.any():
        fitted = _fit_noise(magnitude, phase, times, energy, np.flatnonzero(inside))
    air = _air_noise(magnitude, energy, within)
    if air is not None and (fitted is None or 0.5 < air.sigma / fitted.sigma < 2):
        return air
    return fitted or _difference_noise(magnitude[..., 0], phase[..., 0], inside)


def _air_noise(magnitude, energy, within) -> NoiseLevel | None:
    outside = energy > 0
    if within is not None:
        outside &= ~within
    index = np.flatnonzero(outside)
    index = index[:: max(1, index.size // 400_000)]
    values = energy.ravel()[index].astype(np.float64)
    noise = chi2(2 * magnitude.shape[3])
    if values.size < 100:
        return None
    # With little signal to noise nothing may lie below 1/40 of the largest magnitude.
    limit, variance = max(energy.max() / 1600, np.percentile(values, 1)), 0.0
    for _ in range(40):
        low = values < limit
        if np.count_nonzero(low) < 100:
            return None
        before, variance = variance, np.median(values[low]) / noise.ppf(0.495)
        if abs(variance - before) < 1e-4 * variance:
            break
        limit = variance * noise.ppf(0.99)
    share = np.count_nonzero(low) / values.size * np.count_nonzero(outside)
    single = magnitude.reshape(energy.size, -1)[index[low]].astype(np.float64) ** 2
    if share < 0.01 * energy.size or not 0.55 < np.median(single) / single.mean() < 0.8:
        return None
    return NoiseLevel(math.sqrt(variance), "background", int(share))


def _fit_noise(magnitude, phase, times, energy, index) -> NoiseLevel | None:
    index = index[:: max(1, index.size // 50_000)]
    signal = (np.ascontiguousarray(a.reshape(-1, times.size)[index]) for a in (magnitude, phase))
    maps = [np.zeros(index.size, dtype=np.float32) for _ in range(3)]
    fit_voxels(*signal, np.arange(index.size), *design(times), True, *maps)
    misfit = maps[2] * energy.ravel()[index]
    sigma = math.sqrt(float(np.median(misfit)) / chi2.median(times.size - 2))
    # Noise-free data: what is left is rounding.
    return NoiseLevel(sigma, "fit", index.size) if sigma > 0 else None


def _difference_noise(magnitude, phase, inside) -> NoiseLevel:
    signal = magnitude * np.exp(1j * phase)
    third = signal[3:] - 3 * signal[2:-1] + 3 * signal[1:-2] - signal[:-3]
    use = inside[3:] & inside[2:-1] & inside[1:-2] & inside[:-3]
    values = np.abs(np.concatenate([third[use].real, third[use].imag]))
    sigma = float(np.median(values)) / (0.6745 * math.sqrt(20)) if values.size else 0.0
    if sigma == 0:
        raise ValueError("the noise level cannot be found in this data: give sigma")
    return NoiseLevel(sigma, "differences", int(np.count_nonzero(use)))
