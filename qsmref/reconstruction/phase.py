"""The phase before the echo fit: units, the receiver's offset and bipolar readouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .checks import Numbers, check_echoes, check_mask, evenly_spaced
from .romeo import unwrap_path

TWO_PI = 2 * math.pi


def phase_to_radians(stored: np.ndarray, low: float, high: float) -> np.ndarray:
    """Radians of a stored phase image, given the stored values that mean -pi and pi.

    Parameters
    ----------
    stored : array
        Values as read, the header's scaling applied.
    low, high : float
        Stored values of -pi and of pi, such as -4096 and 4095, or 0 and 4095. They come from the
        sidecar or from the user, never from the data's own range.

    Returns
    -------
    float32 array of the same shape, rad.

    Raises
    ------
    ValueError
        When low equals high, or when values lie outside [low, high] by more than 1/1000 of it:
        then the declared range is not that of the image.

    Examples
    --------
    >>> phase_to_radians(np.array([-4096.0, 0.0, 4096.0]), -4096, 4096).round(4)
    array([-3.1416,  0.    ,  3.1416], dtype=float32)
    """
    stored = np.asarray(stored)
    if not (np.isfinite(low) and np.isfinite(high)) or low == high:
        raise ValueError(f"the stored values of -pi and pi must differ, got {low:g} and {high:g}")
    if stored.size:
        smallest, largest = float(stored.min()), float(stored.max())
        slack = 1e-3 * abs(high - low)
        if smallest < min(low, high) - slack or largest > max(low, high) + slack:
            raise ValueError(
                f"the phase spans {smallest:g} to {largest:g}, outside the declared range "
                f"{low:g} to {high:g}"
            )
    scale = TWO_PI / (high - low)
    return ((np.asarray(stored, dtype=np.float64) - low) * scale - math.pi).astype(np.float32)


def _wrap(phase: np.ndarray) -> np.ndarray:
    return phase - np.float32(TWO_PI) * np.rint(phase / np.float32(TWO_PI))


def _smooth_complex(signal: np.ndarray, mm: float, voxel_size: Numbers) -> np.ndarray:
    sigma = [mm / float(h) for h in voxel_size]
    parts = [ndimage.gaussian_filter(p, sigma, truncate=3.0) for p in (signal.real, signal.imag)]
    return parts[0] + 1j * parts[1]


def remove_phase_offset(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    mask: np.ndarray | None = None,
    smoothing: float = 7.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the receiver's phase offset, so that the phase is zero at TE = 0 (MCPC-3D-S).

    The phase of ``S_2 conj(S_1)`` is unwrapped and scaled by TE1 / (TE2 - TE1): what the first
    echo would have without an offset. The difference, smoothed as a complex number, is the offset.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) arrays
        Two echoes or more, coils combined already; phase in rad.
    echo_times : sequence of float
        s, increasing.
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) bool array, optional
        Where there is signal. Outside it the offset is extrapolated by the smoothing.
    smoothing : float
        mm, standard deviation of the Gaussian; the signal's magnitude weighs it.

    Returns
    -------
    phase : (x, y, z, echo) float32 array
        rad, in [-pi, pi].
    offset : (x, y, z) float32 array
        rad, in [-pi, pi]. The whole turns of the unwrapped difference are set by its median, so a
        field off by one turn per TE2 - TE1 shifts it by a constant.

    References
    ----------
    Eckstein et al. 2018, doi:10.1002/mrm.26963.
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    if times.size < 2:
        raise ValueError("a phase offset can be told from a field with two echoes or more")
    mask = check_mask(mask, phase.shape[:3])
    signal = np.sqrt(magnitude[..., 0] * magnitude[..., 1])
    step = _wrap(phase[..., 1] - phase[..., 0])
    step += np.float32(TWO_PI) * unwrap_path(step, mask, signal)
    excess = phase[..., 0] - step * np.float32(times[0] / (times[1] - times[0]))
    weighted = np.where(mask, signal, 0) * np.exp(1j * excess)
    offset = np.angle(_smooth_complex(weighted, smoothing, voxel_size)).astype(np.float32)
    return _wrap(phase - offset[..., None]), offset


def remove_alternation(
    magnitude: np.ndarray, phase: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Take out turns by pi from each plane to the next, which some scanners leave in their phase.

    Where a Fourier transform was not centred, its image has the factor (-1)^k in plane k: that of
    slices in real and imaginary parts of some vendors, and of phases made of these.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) arrays
        Phase in rad.

    Returns
    -------
    phase : (x, y, z, echo) float32 array
        rad, in [-pi, pi] where it was changed; `phase` itself where no plane turns.
    axes : tuple of int
        Array axes along which the planes turned.

    Notes
    -----
    The first echo decides, whose field has turned least: planes turn where neighbours across them
    differ by more than 120 degrees on the mean (of the cosine, weighted by the signal). Odd planes
    are turned; which ones is a constant of the receiver's phase.
    """
    first = magnitude[..., 0] * np.exp(1j * phase[..., 0])
    axes = []
    for axis in range(3):
        planes = np.moveaxis(first, axis, 0)
        here, there = planes[1:].ravel(), planes[:-1].ravel()
        size = float(np.abs(here) @ np.abs(there))
        if size > 0 and float(np.vdot(there, here).real) < -0.5 * size:
            axes.append(axis)
    if not axes:
        return phase, ()
    phase = np.array(phase, dtype=np.float32)
    for axis in axes:
        np.moveaxis(phase, axis, 0)[1::2] += np.float32(math.pi)
    return _wrap(phase), tuple(axes)


class Bipolar(NamedTuple):
    """Result of :func:`correct_bipolar`."""

    #: (x, y, z, echo) float32, rad, in [-pi, pi].
    phase: np.ndarray
    #: (x, y, z) float32, rad: phase of the echoes 1, 3, ... over that of 2, 4, ...
    difference: np.ndarray
    #: Slope of the difference along x, y and z, rad/mm.
    slope: tuple[float, float, float]
    #: Its value at the centre of the image, rad, in [-pi/2, pi/2].
    constant: float


def correct_bipolar(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    voxel_size: Sequence[float],
    mask: np.ndarray | None = None,
    axis: int | None = None,
    smoothing: float = 10.0,
) -> Bipolar:
    """Remove the phase difference between echoes read in opposite directions.

    With readout gradients of alternating sign, delays and eddy currents add +theta/2 to the echoes
    1, 3, ... and -theta/2 to the others, theta a ramp along the readout and something smooth.
    ``S_1 conj(S_2)^2 S_3`` has the phase 2 theta whatever the field and the offset are.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) arrays
        Three evenly spaced echoes or more; phase in rad.
    echo_times : sequence of float
        s.
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) bool array, optional
        Where there is signal.
    axis : int, optional
        Readout axis; by default ramps along all three are fitted.
    smoothing : float
        mm, standard deviation of the Gaussian that the rest of theta is smoothed with, as a complex
        number; 0 subtracts the ramp and the constant only.

    Returns
    -------
    Bipolar

    Raises
    ------
    ValueError
        Fewer than three echoes, or uneven spacing.

    Notes
    -----
    Only 2 theta is seen, so theta is known up to pi. The smallest constant is taken; pi more would
    shift the field by the constant pi per dTE, which no susceptibility has.

    References
    ----------
    Li et al. 2015, doi:10.1002/mrm.25244 (bipolar readouts in susceptibility mapping).
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    if times.size < 3:
        raise ValueError("bipolar correction needs three echoes or more")
    if not evenly_spaced(times):
        raise ValueError(f"bipolar correction needs evenly spaced echoes, got {list(times)}")
    mask = check_mask(mask, phase.shape[:3])
    twice = np.zeros(mask.shape, dtype=np.complex64)
    for e in range(times.size - 2):
        angle = phase[..., e] - 2 * phase[..., e + 1] + phase[..., e + 2]
        weight = np.sqrt(magnitude[..., e] * magnitude[..., e + 2]) * magnitude[..., e + 1]
        twice += weight * np.exp(1j * (angle if e % 2 == 0 else -angle))
    twice[~mask] = 0
    h = np.asarray(voxel_size, dtype=float)
    axes = range(3) if axis is None else (axis,)
    place = [
        ((np.arange(n) - (n - 1) / 2) * s).reshape([-1 if a == d else 1 for a in range(3)])
        for d, (n, s) in enumerate(zip(mask.shape, h, strict=True))
    ]
    slope = _ramp(twice, place, h, axes)
    ramp = sum(g * p for g, p in zip(slope, place, strict=True))
    centred = twice * np.exp(-1j * ramp).astype(np.complex64)
    constant = float(np.angle(centred.sum(dtype=np.complex128)))
    double = np.broadcast_to(ramp + constant, mask.shape).astype(np.float32)
    if smoothing > 0:
        centred *= np.complex64(np.exp(-1j * constant))
        rest = np.angle(_smooth_complex(centred, smoothing, h))
        double = double + rest.astype(np.float32)
    difference = 0.5 * double
    sign = np.where(np.arange(times.size) % 2 == 0, 0.5, -0.5).astype(np.float32)
    corrected = _wrap(phase - difference[..., None] * sign)
    half = (float(slope[0]) / 2, float(slope[1]) / 2, float(slope[2]) / 2)
    return Bipolar(corrected, difference, half, constant / 2)


def _ramp(twice, place, h, axes) -> np.ndarray:
    """Slopes (rad/mm) of the phase of `twice`: from neighbours first, then a robust line."""
    slope = np.zeros(3)
    for axis in axes:
        if twice.shape[axis] < 2:
            continue
        ahead, behind = (
            np.take(twice, range(k, twice.shape[axis] - 1 + k), axis=axis) for k in (1, 0)
        )
        slope[axis] = np.angle(np.sum(ahead * behind.conj(), dtype=np.complex128)) / h[axis]
    weight = np.abs(twice)
    inside = np.flatnonzero(weight)
    inside = inside[:: max(1, inside.size // 200_000)]
    where = [np.broadcast_to(p, twice.shape).ravel()[inside] for p in place]
    values, weight = twice.ravel()[inside], weight.ravel()[inside].astype(np.float64)
    for _ in range(5):
        left = values * np.exp(-1j * sum(g * x for g, x in zip(slope, where, strict=True)))
        left *= np.exp(-1j * np.angle(left.sum()))
        angle = np.angle(left)
        # Voxels far off the line (flow, noise, tissue edges) do not count.
        keep = np.abs(angle) <= 3 * 1.4826 * np.median(np.abs(angle)) + 1e-6
        columns = [where[axis][keep] for axis in axes] + [np.ones(np.count_nonzero(keep))]
        root = np.sqrt(weight[keep])
        step = np.linalg.lstsq(np.stack(columns, 1) * root[:, None], angle[keep] * root)[0]
        slope[list(axes)] += step[:-1]
    return slope
