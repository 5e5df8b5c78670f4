"""Echoes to a field map: the fit of a line to the phase of multi-echo gradient-echo data.

The phase of echo j is modelled as ``p0 + p1 (TE_j - TE_1) / dTE`` with ``dTE = TE_2 - TE_1``: `p0`
takes up the phase of the receiver, `p1` is the field in radians per `dTE`. Its sign is that of the
phase: where the phase grows with echo time the field is positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import prange
from scipy.stats import chi2

from .jit import kernel, parallel_kernel

TWO_PI = 2 * math.pi
#: Standard deviation (rad) of a phase that is pure chance on [-pi, pi]: no noise can be larger.
RANDOM_PHASE = math.pi / math.sqrt(3)

_CHUNK = 4096
_ITERATIONS = 30
_TOLERANCE = 1e-5  # rad per dTE
_RETRY_RESIDUAL = 0.05


class EchoFit(NamedTuple):
    """Result of :func:`fit_echoes`; every map is a float32 (x, y, z) array, 0 outside the mask."""

    #: Field, rad per dTE, wrapped to [-pi, pi].
    field: np.ndarray
    #: Standard deviation of the field, rad per dTE, at most pi / sqrt(3).
    noise: np.ndarray
    #: Part of the signal's energy that the model leaves over, 0 to 1 (4 at the very worst).
    residual: np.ndarray


@kernel
def _wrap(angle):
    return angle - TWO_PI * math.floor(angle / TWO_PI + 0.5)


@kernel
def _sine(angle):
    # Taylor series after folding to [-pi/2, pi/2]; error below 1e-9, a third of libm's time.
    x = angle - TWO_PI * math.floor(angle / TWO_PI + 0.5)
    if x > 0.5 * math.pi:
        x = math.pi - x
    elif x < -0.5 * math.pi:
        x = -math.pi - x
    s = x * x
    tail = 1 / 362880 - s * (1 / 39916800 - s / 6227020800)
    return x * (1 - s * (1 / 6 - s * (1 / 120 - s * (1 / 5040 - s * tail))))


@kernel
def _line(phase, weight, times, slope, straight):
    """Unwrap the echoes one after the other around `slope` and fit a weighted line.

    Fills `straight` with the unwrapped phases and returns (p0, p1, weighted squared residual).
    """
    n = phase.size
    straight[0] = phase[0]
    seen, sum_c = 1.0, slope  # the first difference is known; later ones refine the prediction
    for j in range(1, n):
        step = times[j] - times[j - 1]
        expected = straight[j - 1] + sum_c / seen * step
        straight[j] = phase[j] + TWO_PI * math.floor((expected - phase[j]) / TWO_PI + 0.5)
        if j > 1:
            share = weight[j] / (weight[1] + 1e-30)
            seen += share
            sum_c += share * (straight[j] - straight[j - 1]) / step
    a11 = a12 = a22 = b1 = b2 = 0.0
    for j in range(n):
        w, t = weight[j], times[j]
        a11 += w
        a12 += w * t
        a22 += w * t * t
        b1 += w * straight[j]
        b2 += w * t * straight[j]
    det = a11 * a22 - a12 * a12
    p1 = (a11 * b2 - a12 * b1) / det
    p0 = (b1 - a12 * p1) / a11
    cost = 0.0
    for j in range(n):
        d = straight[j] - p0 - p1 * times[j]
        cost += weight[j] * d * d
    return p0, p1, cost


@kernel
def _refine(phase, weight, times, a11, a12, a22, p0, p1):
    """Gauss-Newton steps on sum_j |S_j - |S_j| exp(i (p0 + p1 t_j))|^2.

    That sum is 2 sum_j w_j (1 - cos d_j), d_j the phase left over, w_j = |S_j|^2; its gradient is
    -2 sum_j w_j sin(d_j) [1, t_j]. The curvature of 1 - cos d is at most 1, so the step with the
    curvature at d = 0 never increases the sum.
    """
    det = a11 * a22 - a12 * a12
    for _ in range(_ITERATIONS):
        b1 = b2 = 0.0
        for j in range(phase.size):
            s = weight[j] * _sine(phase[j] - p0 - p1 * times[j])
            b1 += s
            b2 += s * times[j]
        step0 = (a22 * b1 - a12 * b2) / det
        step1 = (a11 * b2 - a12 * b1) / det
        p0 += step0
        p1 += step1
        if abs(step1) < _TOLERANCE and abs(step0) < _TOLERANCE:
            break
    cost = 0.0
    for j in range(phase.size):
        half = _sine(0.5 * (phase[j] - p0 - p1 * times[j]))
        cost += 4 * weight[j] * half * half
    return p0, p1, cost


@kernel
def _common_step(phase, weight, times):
    """Slope at which all neighbouring echoes agree best: a start that no single echo decides."""
    re = im = 0.0
    for j in range(1, phase.size):
        w = math.sqrt(weight[j] * weight[j - 1])
        d = phase[j] - phase[j - 1]
        re += w * math.cos(d)
        im += w * math.sin(d)
    return math.atan2(im, re) * (phase.size - 1) / times[-1]


@parallel_kernel
def _fit_voxels(magnitude, phase, index, times, branches, nonlinear, field, noise, residual):
    n = times.size
    chunks = (index.size + _CHUNK - 1) // _CHUNK
    for chunk in prange(chunks):
        angle, weight, straight = np.empty(n), np.empty(n), np.empty(n)
        for position in range(chunk * _CHUNK, min(index.size, (chunk + 1) * _CHUNK)):
            v = index[position]
            a11 = a12 = a22 = 0.0
            for j in range(n):
                angle[j] = phase[v, j]
                weight[j] = float(magnitude[v, j]) ** 2
                a11 += weight[j]
                a12 += weight[j] * times[j]
                a22 += weight[j] * times[j] ** 2
            det = a11 * a22 - a12 * a12
            if det <= 1e-12 * a11 * a22:  # fewer than two echoes with signal
                noise[v] = np.inf
                residual[v] = 1.0
                continue
            first = _wrap(angle[1] - angle[0])
            p0, p1, cost = _line(angle, weight, times, first, straight)
            for branch in range(1, branches + 1):
                for sign in (-1, 1):
                    q0, q1, other = _line(
                        angle, weight, times, first + sign * branch * TWO_PI, straight
                    )
                    if other < 0.999 * cost:
                        p0, p1, cost = q0, q1, other
            if nonlinear:
                p0, p1, cost = _refine(angle, weight, times, a11, a12, a22, p0, p1)
                if cost > _RETRY_RESIDUAL * a11:
                    q0, q1, other = _line(
                        angle, weight, times, _common_step(angle, weight, times), straight
                    )
                    q0, q1, other = _refine(angle, weight, times, a11, a12, a22, q0, q1)
                    if other < cost:
                        p0, p1, cost = q0, q1, other
            field[v] = _wrap(p1)
            noise[v] = math.sqrt(a11 / det)
            residual[v] = cost / a11


def check_echoes(
    magnitude: np.ndarray, phase: np.ndarray, echo_times: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Echoes as float32 (x, y, z, echo), times as float64; a ValueError says what is odd."""
    magnitude = np.asarray(magnitude, dtype=np.float32)
    phase = np.asarray(phase, dtype=np.float32)
    times = np.asarray(echo_times, dtype=float)
    if phase.ndim != 4:
        raise ValueError(f"phase must have the axes (x, y, z, echo), got shape {phase.shape}")
    if magnitude.shape != phase.shape:
        raise ValueError(
            f"magnitude {magnitude.shape} and phase {phase.shape} must have the same shape"
        )
    if times.shape != (phase.shape[3],):
        raise ValueError(f"{phase.shape[3]} echoes need as many echo times, got {times.size}")
    if times.size == 0 or not np.isfinite(times).all() or times[0] <= 0:
        raise ValueError(f"echo times must be positive, got {list(times)}")
    if np.any(np.diff(times) <= 0):
        raise ValueError(f"echo times must increase from echo to echo, got {list(times)}")
    for name, array in (("magnitude", magnitude), ("phase", phase)):
        # A sum is finite only if every voxel is; it needs no array of flags.
        if not np.isfinite(np.sum(array, dtype=np.float64)):
            bad = int(np.count_nonzero(~np.isfinite(array)))
            raise ValueError(f"{name} has {bad} voxels that are NaN or infinite")
    if magnitude.size and magnitude.min() < 0:
        raise ValueError("magnitude has negative voxels")
    return magnitude, phase, times


def check_mask(mask: np.ndarray | None, shape: Sequence[int]) -> np.ndarray:
    """`mask` as a boolean array of `shape`, all true for None; a ValueError when it is empty."""
    if mask is None:
        return np.ones(shape, dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != tuple(shape):
        raise ValueError(f"mask {mask.shape} and image {tuple(shape)} must have the same shape")
    mask = mask.astype(bool, copy=False)
    if not mask.any():
        raise ValueError("the mask is empty")
    return mask


def evenly_spaced(echo_times: Sequence[float]) -> bool:
    """Whether the echo spacing is constant within 1 %.

    Echo times are often stored rounded to 10 us, so equality would be too strict; with spacings
    that differ by less than 1 % no signal tells a field from its aliases.

    >>> evenly_spaced([0.00231, 0.00462, 0.00692]), evenly_spaced([0.004, 0.008, 0.0115])
    (True, False)
    """
    steps = np.diff(np.asarray(echo_times, dtype=float))
    return bool(np.all(np.abs(steps - steps[0]) <= 0.01 * steps[0])) if steps.size else True


def echo_spacing(echo_times: Sequence[float]) -> float:
    """dTE, the time that field maps in radians refer to: TE2 - TE1, or TE for a single echo."""
    times = np.asarray(echo_times, dtype=float)
    return float(times[1] - times[0] if times.size > 1 else times[0])


def fit_echoes(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    mask: np.ndarray | None = None,
    *,
    method: str = "nonlinear",
    sigma: float | None = None,
) -> EchoFit:
    """Field map, its noise and the misfit from multi-echo magnitude and wrapped phase.

    Parameters
    ----------
    magnitude : (x, y, z, echo) array
        Any unit, not negative.
    phase : (x, y, z, echo) array
        rad; wraps do not matter.
    echo_times : sequence of float
        s, increasing. Spacing may be uneven.
    mask : (x, y, z) bool array, optional
        Voxels to fit; every voxel by default.
    method : {"nonlinear", "linear"}
        ``nonlinear`` fits the complex signal by Gauss-Newton steps, which stays right where an
        echo is mostly noise; ``linear`` unwraps along the echoes and fits a weighted line.
    sigma : float, optional
        Standard deviation of the real part of the complex noise, in the unit of `magnitude`; by
        default what :func:`noise_level` finds.

    Returns
    -------
    EchoFit
        ``field`` (rad per dTE, in [-pi, pi]), ``noise`` (rad per dTE) and ``residual``; dTE is
        ``echo_times[1] - echo_times[0]``. Voxels outside the mask are 0.

    Raises
    ------
    ValueError
        Shapes that differ, echo times that do not increase, NaN or infinite voxels, negative
        magnitudes, an empty mask, an unknown method.

    Notes
    -----
    ``residual`` is the squared misfit over the squared magnitude, summed over echoes.

    ``noise`` is ``sigma sqrt((A^-1)_22)``, A the normal matrix of the weights magnitude squared
    and the times in dTE. A voxel with less than two echoes of signal has no field: it is 0 there
    and the noise pi / sqrt(3), the standard deviation of a random phase, which is the upper limit
    everywhere; `residual` is 1.

    One echo: an echo at TE = 0 with phase zero and without noise is put before it, dTE is TE. The
    receiver's phase offset then stays in the field.

    Evenly spaced echoes leave the field undetermined by multiples of 2 pi per dTE, which spatial
    unwrapping restores. With uneven spacing such aliases fit worse, so the two neighbours on
    either side of the smallest slope are tried and the best is kept before it is wrapped.

    References
    ----------
    Liu et al. 2013, doi:10.1002/mrm.24272; de Rochefort et al. 2008, doi:10.1002/mrm.21710.
    """
    if method not in ("nonlinear", "linear"):
        raise ValueError(f"method must be 'nonlinear' or 'linear', got {method!r}")
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    shape = phase.shape[:3]
    index = np.flatnonzero(check_mask(mask, shape))
    if sigma is None:
        sigma = noise_level(magnitude, phase, times, mask).sigma
    elif not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be positive, got {sigma}")
    maps = EchoFit(*(np.zeros(magnitude[..., 0].size, dtype=np.float32) for _ in range(3)))
    if times.size == 1:
        _single_echo(magnitude.ravel(), phase.ravel(), index, maps)
    else:
        _fit_voxels(
            magnitude.reshape(-1, times.size),
            phase.reshape(-1, times.size),
            index,
            (times - times[0]) / echo_spacing(times),
            0 if evenly_spaced(times) else 2,
            method == "nonlinear",
            *maps,
        )
    noise = np.minimum(maps.noise * np.float32(sigma), np.float32(RANDOM_PHASE))
    maps = maps._replace(noise=noise)
    return EchoFit(*(np.reshape(m, shape) for m in maps))


def _single_echo(magnitude, phase, index, maps) -> None:
    signal = magnitude[index]
    maps.field[index] = np.where(signal > 0, np.angle(np.exp(1j * phase[index])), 0)
    with np.errstate(divide="ignore"):
        maps.noise[index] = 1 / signal
    maps.residual[index] = signal == 0


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
    echo_times: Sequence[float],
    mask: np.ndarray | None = None,
) -> NoiseLevel:
    """Standard deviation of the complex noise, and where it was found.

    1. ``background``: voxels outside the mask whose root sum of squares over echoes is below 1/40
       of its maximum and not zero, when there are at least 500 and they look like noise of one
       channel, that is, like a Rayleigh distribution (median over mean of the squares is ln 2 =
       .69; between .55 and .8 is accepted; several channels combined by squares give more, signal
       mixed in gives less). sigma^2 = median(|S|^2) / (2 ln 2).
    2. ``fit`` (three echoes or more): the squared misfit of the nonlinear fit is sigma^2 times a
       chi-square variable with n - 2 degrees of freedom (n phases, two parameters); its median
       over the mask, or over the brighter half of the image, gives sigma. Phase that is not
       linear in TE makes it too large.
    3. ``differences``: third differences of the complex signal along x, whose median absolute
       value is .6745 sqrt(20) sigma for noise. Structure makes it too large.

    A scanner that zeroes the background leaves the first way out.

    Parameters
    ----------
    magnitude, phase, echo_times, mask
        As for :func:`fit_echoes`.
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    shape = phase.shape[:3]
    energy = np.einsum("xyze,xyze->xyz", magnitude, magnitude)
    low = (energy < energy.max() / 1600) & (energy > 0)
    if mask is not None:
        low &= ~check_mask(mask, shape)
    background = magnitude[low].astype(np.float64) ** 2
    background = background[background > 0]
    if np.count_nonzero(low) >= 500:
        middle = float(np.median(background))
        if 0.55 < middle / background.mean() < 0.8:
            sigma = math.sqrt(middle / (2 * math.log(2)))
            return NoiseLevel(sigma, "background", int(np.count_nonzero(low)))
    inside = energy > np.median(energy[energy > 0]) if mask is None else check_mask(mask, shape)
    inside &= energy > 0
    index = np.flatnonzero(inside)
    if index.size == 0:
        raise ValueError("magnitude is zero in every voxel")
    if times.size >= 3:
        index = index[:: max(1, index.size // 50000)]
        maps = [np.zeros(energy.size, dtype=np.float32) for _ in range(3)]
        spaced = (times - times[0]) / echo_spacing(times)
        branches = 0 if evenly_spaced(times) else 2
        flat = (magnitude.reshape(-1, times.size), phase.reshape(-1, times.size))
        _fit_voxels(*flat, index, spaced, branches, True, *maps)
        misfit = maps[2][index] * energy.ravel()[index]
        sigma = math.sqrt(float(np.median(misfit)) / chi2.median(times.size - 2))
        if sigma > 0:
            return NoiseLevel(sigma, "fit", index.size)
    return NoiseLevel(*_difference_noise(magnitude[..., 0], phase[..., 0], inside))


def _difference_noise(magnitude, phase, inside) -> tuple[float, str, int]:
    signal = magnitude * np.exp(1j * phase)
    third = signal[3:] - 3 * signal[2:-1] + 3 * signal[1:-2] - signal[:-3]
    use = inside[3:] & inside[2:-1] & inside[1:-2] & inside[:-3]
    values = np.abs(np.concatenate([third[use].real, third[use].imag]))
    sigma = float(np.median(values)) / (0.6745 * math.sqrt(20)) if values.size else 0.0
    if sigma == 0:
        raise ValueError("the noise level cannot be found in this data: give sigma")
    return sigma, "differences", int(np.count_nonzero(use))
