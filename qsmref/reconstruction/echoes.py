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
from scipy.stats import chi2

from .checks import (
    RANDOM_PHASE,
    Numbers,
    check_echoes,
    check_mask,
    check_size,
    design,
    echo_spacing,
    evenly_spaced,
)
from .curvature import bend
from .linefit import fit_voxels
from .methods import ECHO_FIT
from .noise import noise_level
from .offset import anchor

__all__ = ["EchoFit", "echo_spacing", "evenly_spaced", "fit_echoes", "fit_unwrapped", "noise_level"]


class _Maps(NamedTuple):
    #: Field, rad per dTE, wrapped to [-pi, pi].
    field: np.ndarray
    #: Standard deviation of the field, rad per dTE, at most pi / sqrt(3): that of a phase which is
    #: pure chance, where there is no signal.
    noise: np.ndarray
    #: Part of the signal's energy that the model leaves over, 0 to 1 (4 at the very worst).
    residual: np.ndarray


class EchoFit(_Maps):
    """Result of :func:`fit_echoes`; every map is a float32 (x, y, z) array, 0 outside the mask."""

    #: Of ``anchored``, the part of the voxels whose neighbours knew the phase at TE = 0; the others
    #: have an offset of their own, as ``curved`` has.
    anchored_fraction: float | None = None


def fit_echoes(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Numbers,
    mask: np.ndarray | None = None,
    *,
    method: str = "nonlinear",
    sigma: float | None = None,
    voxel_size: Numbers | None = None,
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
    method : {"nonlinear", "linear", "curved", "anchored"}
        ``nonlinear`` fits the complex signal by Gauss-Newton steps, which stays right where an
        echo is mostly noise; ``linear`` unwraps along the echoes and fits a weighted line.
        ``curved`` goes on from the nonlinear fit and lets the phase bend where the neighbourhood
        does, see :mod:`qsmref.reconstruction.curvature`; it is the nonlinear fit when there are
        less than three echoes, with which no bend can be seen. ``anchored`` does so too, and takes
        the phase at TE = 0 from the neighbours where that is smooth in space, see
        :mod:`qsmref.reconstruction.offset`: about half the noise, from two echoes on.
    sigma : float, optional
        Standard deviation of the real part of the complex noise, in the unit of `magnitude`; by
        default what :func:`noise_level` finds.
    voxel_size : (3,) float, optional
        mm; ``anchored`` needs it.

    Returns
    -------
    EchoFit
        ``field`` (rad per dTE, in [-pi, pi]), ``noise`` (rad per dTE) and ``residual``; dTE is
        ``echo_times[1] - echo_times[0]``. Voxels outside the mask are 0.

    Raises
    ------
    ValueError
        Shapes that differ, echo times that do not increase, NaN or infinite voxels, negative
        magnitudes, an empty mask, an unknown method, ``anchored`` without a voxel size.

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
    if method not in ECHO_FIT:
        raise ValueError(f"method must be one of {', '.join(ECHO_FIT)}, got {method!r}")
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
        fit_voxels(
            magnitude.reshape(-1, times.size),
            phase.reshape(-1, times.size),
            index,
            *design(times),
            method != "linear",
            *maps,
        )
    noise = np.minimum(maps.noise * np.float32(sigma), np.float32(RANDOM_PHASE))
    maps = maps._replace(noise=noise)
    fit = EchoFit(*(np.reshape(m, shape) for m in maps))
    if times.size >= {"anchored": 2, "curved": 3}.get(method, math.inf):
        size = check_size(voxel_size) if method == "anchored" else None
        fit = _by_neighbours(fit, magnitude, phase, times, check_mask(mask, shape), sigma, size)
    fit.noise[silent(magnitude, sigma) & (fit.noise > 0)] = RANDOM_PHASE
    return fit


def _by_neighbours(
    fit: EchoFit,
    magnitude: np.ndarray,
    phase: np.ndarray,
    times: np.ndarray,
    mask: np.ndarray,
    sigma: float,
    voxel_size: np.ndarray | None,
) -> EchoFit:
    """The fit with the phase's bend over the echoes and, with a voxel size, anchored at TE = 0."""
    known, fraction = None, None
    aliases, straight = design(times)[1], (fit.field, mask, times / echo_spacing(times), sigma)
    if voxel_size is not None:
        known = anchor(magnitude, phase, fit.noise, *straight, voxel_size, aliases)
        aliases = 0
        fraction = round(float(np.mean(known.precision > 0)), 4)
    field, noise = bend(magnitude, phase, *straight, aliases, known)
    fit = fit._replace(field=field, noise=noise)
    fit.anchored_fraction = fraction
    return fit


def silent(magnitude: np.ndarray, sigma: float) -> np.ndarray:
    """Voxels whose echoes have no signal beside noise.

    The energy of n echoes of noise alone is sigma^2 times a chi-square variable with 2n degrees of
    freedom; one voxel of noise in a thousand has more than counts as none.

    Parameters
    ----------
    magnitude : (x, y, z, echo) array
        Of the echoes.
    sigma : float
        Standard deviation of the real part of the noise, in the unit of the magnitude.

    Returns
    -------
    (x, y, z) bool array

    References
    ----------
    Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618 (noise of magnitudes).
    """
    energy = np.einsum("xyze,xyze->xyz", magnitude, magnitude)
    return energy < chi2.isf(1e-3, 2 * magnitude.shape[3]) * sigma**2


def fit_unwrapped(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    mask: np.ndarray | None = None,
    *,
    sigma: float | None = None,
) -> tuple[EchoFit, np.ndarray]:
    """Weighted line through echoes that are unwrapped already: the field is not wrapped again.

    The weights are the squared magnitudes, the inverse variance of a phase.

    Parameters
    ----------
    magnitude, echo_times, mask, sigma
        As for :func:`fit_echoes`.
    phase : (x, y, z, echo) array
        rad, unwrapped along the echoes, such as
        :func:`qsmref.reconstruction.unwrapping.unwrap_echoes` gives.

    Returns
    -------
    fit : EchoFit
        As :func:`fit_echoes`, with a field (rad per dTE) of any size.
    offset : (x, y, z) float32 array
        Phase at TE = 0, rad.
    """
    magnitude, phase, times = check_echoes(magnitude, phase, echo_times)
    if times.size < 2:
        raise ValueError("a line through the echoes needs two of them")
    mask = check_mask(mask, phase.shape[:3])
    if sigma is None:
        sigma = noise_level(magnitude, phase, times, mask).sigma
    t = times / echo_spacing(times)
    weight, angle = magnitude[mask].astype(np.float64) ** 2, phase[mask].astype(np.float64)
    a11, a12, a22 = weight.sum(axis=1), weight @ t, weight @ t**2
    b1, b2 = np.einsum("ve,ve->v", weight, angle), np.einsum("ve,ve,e->v", weight, angle, t)
    det = a11 * a22 - a12**2
    known = det > 1e-12 * a11 * a22
    det[~known] = np.inf
    slope, offset = (a11 * b2 - a12 * b1) / det, (a22 * b1 - a12 * b2) / det
    left = 2 * np.sin(0.5 * (angle - offset[:, None] - slope[:, None] * t))
    misfit = np.einsum("ve,ve->v", weight, left**2)
    noise = np.full(a11.shape, RANDOM_PHASE)
    noise[known] = np.minimum(sigma * np.sqrt(a11[known] / det[known]), RANDOM_PHASE)
    residual = np.divide(misfit, a11, out=np.ones_like(a11), where=known)
    maps = np.zeros((4, *mask.shape), dtype=np.float32)
    for image, values in zip(maps, (slope, noise, residual, offset), strict=True):
        image[mask] = values
    return EchoFit(*maps[:3]), maps[3]


def _single_echo(magnitude, phase, index, maps) -> None:
    signal = magnitude[index]
    maps.field[index] = np.where(signal > 0, np.angle(np.exp(1j * phase[index])), 0)
    with np.errstate(divide="ignore"):
        maps.noise[index] = 1 / signal
    maps.residual[index] = signal == 0
