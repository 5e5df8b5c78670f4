r"""The phase at echo time zero: it is the receiver's, and smooth.

A line through the phases of a voxel has two unknowns, its slope (the field) and its value at TE = 0
(the phase offset of transmission and reception). With echoes at equal distances the slope alone is
a good deal more certain once the offset is known: with four echoes at 1, 2, 3, 4 times dTE its
noise is less than half. The offset has wavelengths of decimetres, so the neighbours know it:
around each node of a coarse grid a quadratic is fitted to the offsets of the voxels, weighted by a
Gaussian, and the quadratics of the eight nodes around a voxel are blended.

What the neighbours say is a prior, not a fact. How far the voxels of a neighbourhood are from it,
beyond their noise, is measured, and where they are far (flow, open fringes of a coil combination,
errors of unwrapping) the prior goes.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .checks import Numbers
from .crop import bounding_box
from .jit import numba, parallel_kernel
from .romeo import unwrap_path

TWO_PI = 2 * np.pi

#: Standard deviation (mm) of the Gaussian around each node; nodes are half of it apart.
WIDTH_MM = 10.0

#: The same of the neighbourhood that tells how well the offsets follow the quadratics.
_NEIGHBOURHOOD_MM = 4.0

#: Mean square of (offset - prior) over its noise, less one, at which the prior is given up.
_BROKEN = 4.0

#: No voxel counts more than this many times a typical one: bright voxels are often vessels.
_CAP = 2.0

_ROUNDS = 3

#: Exponents of the ten terms of a quadratic; the constant comes first.
_TERMS = tuple(sorted((e for e in itertools.product(range(3), repeat=3) if sum(e) <= 2), key=sum))


class Anchor(NamedTuple):
    """What the neighbours say of the phase at TE = 0, for the voxels of a mask in their order."""

    #: rad per dTE, unwrapped: the line through each voxel's echoes that offsets were taken from.
    slope: np.ndarray
    #: Expected phase at TE = 0, rad.
    offset: np.ndarray
    #: Inverse variance of that, 1 / rad^2; 0 where the neighbourhood tells nothing.
    precision: np.ndarray


def anchor(
    magnitude: np.ndarray,
    phase: np.ndarray,
    noise: np.ndarray,
    field: np.ndarray,
    mask: np.ndarray,
    times: np.ndarray,
    sigma: float,
    voxel_size: Numbers,
    aliases: int = 0,
) -> Anchor:
    """Prior for the phase offset of each voxel, from the offsets around it.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) float32 arrays
        Any unit; rad.
    noise, field : (x, y, z) arrays
        Of a straight line with free offset: its slope, rad per dTE, wrapped, and the standard
        deviation of that.
    mask : (x, y, z) bool array
    times : (echo,) array
        Echo times in units of dTE, from the excitation; two or more.
    sigma : float
        Standard deviation of the real part of the noise, in the unit of `magnitude`.
    voxel_size : (3,) float
        mm.
    aliases : int
        Multiples of 2 pi per dTE to try on either side, the same everywhere; for evenly spaced
        echoes they are all the same.

    Notes
    -----
    The offset is ``phase - slope t`` at t = 0, so a slope that is off by a turn per dTE would move
    it by ``2 pi TE1 / dTE``; the slope is unwrapped in space first. One turn too many everywhere
    moves all offsets by the same amount, which does not matter here.

    References
    ----------
    Eckstein et al. 2018, doi:10.1002/mrm.26963 (a smooth offset, subtracted); Cleveland 1979,
    doi:10.1080/01621459.1979.10481038 (robust locally weighted regression).
    """
    box = bounding_box(mask)
    index, inside = np.flatnonzero(mask), mask[box]
    with np.errstate(divide="ignore"):
        weight = np.where(inside, 1 / noise[box], 0)
    slope = field[box] + np.float32(TWO_PI) * unwrap_path(field[box], inside, weight)
    slope = slope[inside].astype(np.float32)
    count = times.size
    arrays = magnitude.reshape(-1, count), phase.reshape(-1, count), index
    options = times.astype(float), 1 / sigma
    slope += np.float32(TWO_PI * _common_turns(*arrays, slope, *options, aliases))
    found, precision = np.empty((2, index.size), np.float32)
    _offsets(*arrays, slope, *options, found, precision)
    offset, certainty = smooth_offset(found, precision, inside, voxel_size)
    return Anchor(slope, offset, certainty)


def _common_turns(magnitude, phase, index, slope, times, inverse_sigma, aliases: int) -> int:
    """Turns per dTE by which all slopes are off; uneven spacing can tell."""
    if aliases == 0:
        return 0
    some = slice(None, None, max(1, index.size // 20_000))
    found = {}
    for turns in sorted(range(-aliases, aliases + 1), key=abs):
        other = slope[some] + np.float32(TWO_PI * turns)
        angle = phase[index[some]] - other[:, None] * times.astype(np.float32)
        weight = np.square(magnitude[index[some]] * np.float32(inverse_sigma))
        found[turns] = float(np.abs(np.sum(weight * np.exp(1j * angle), axis=1)).sum())
    return max(found, key=lambda turns: found[turns] * (1 - 1e-4 * abs(turns)))


def smooth_offset(
    offset: np.ndarray,
    precision: np.ndarray,
    mask: np.ndarray,
    voxel_size: Numbers,
    width: float = WIDTH_MM,
) -> tuple[np.ndarray, np.ndarray]:
    """Local quadratics through offsets, and how far they can be trusted.

    Parameters
    ----------
    offset, precision : (n,) arrays
        Of the voxels of the mask in their order: rad, wrapped, and inverse variance (1 / rad^2).
    mask : (x, y, z) bool array
        With n voxels.
    voxel_size : (3,) float
        mm.
    width : float
        mm, standard deviation of the Gaussian weights around a node.

    Returns
    -------
    offset, precision : (n,) float32 arrays
        Expected offset (rad) and its inverse variance, 0 where the offsets are not smooth.
    """
    image = np.zeros(mask.shape, np.float32)
    weights = np.zeros(mask.shape, np.float32)
    inside = np.flatnonzero(mask)
    weights.ravel()[inside] = np.sqrt(precision)
    image.ravel()[inside] = offset
    image += np.float32(TWO_PI) * unwrap_path(image, mask, weights)
    unwrapped = image.ravel()[inside]
    # The mean of what counts: without a mask the median voxel would be one of air.
    total = float(np.sum(precision, dtype=float))
    typical = float(np.sum(np.square(precision), dtype=float)) / total if total > 0 else 1.0
    base = np.minimum(precision, np.float32(_CAP * typical))
    axes = [_Axis(n, float(h), width) for n, h in zip(mask.shape, voxel_size, strict=True)]
    places = np.stack(np.unravel_index(inside, mask.shape), 1)
    places = (places / [a.step for a in axes]).astype(np.float32)
    lengths = np.array([a.length for a in axes])
    expected, uncertain = np.zeros((2, inside.size), np.float32)
    weight = base
    for _ in range(_ROUNDS):
        weights.ravel()[inside] = weight
        image.ravel()[inside] = weight * (unwrapped - expected)
        _blend(places, lengths, *_local_quadratics(weights, image, axes), expected, uncertain)
        # Cauchy's weights: what is far off (flow, a bent phase) does not count.
        weight = base / (1 + np.square((unwrapped - expected) / 3) * precision)
    return expected, _trust(unwrapped - expected, precision, uncertain, mask, voxel_size)


def _trust(
    rest: np.ndarray,
    precision: np.ndarray,
    uncertain: np.ndarray,
    mask: np.ndarray,
    voxel_size: Numbers,
) -> np.ndarray:
    """Inverse variance of the prior, from how far the offsets around each voxel are from it."""
    rest = rest - np.float32(TWO_PI) * np.rint(rest / np.float32(TWO_PI))
    sigma = [_NEIGHBOURHOOD_MM / float(h) for h in voxel_size]
    image = np.zeros(mask.shape, np.float32)

    def around(values):
        image[mask] = values
        return ndimage.gaussian_filter(image, sigma, truncate=3)[mask]

    # At most 3 standard errors of each voxel: one that is far off must not speak for all.
    excess = around(np.minimum(np.square(rest) * precision, 9)) / around(1) - 1
    with np.errstate(divide="ignore"):
        trust = precision * np.maximum(1 / np.maximum(excess, 0.01) - 1 / _BROKEN, 0)
        return np.where(trust > 0, 1 / (1 / trust + uncertain), 0).astype(np.float32)


class _Axis:
    """Nodes along an axis, from the first voxel to the last, half a width apart at most.

    None lies beyond: there the constant of a quadratic could not be told from its other terms.
    """

    def __init__(self, size: int, voxel: float, width: float):
        count = max(int(np.ceil((size - 1) * voxel / (0.5 * width))), 1) + 1
        self.step = (size - 1) / (count - 1) if size > 1 else 1.0
        #: The same in widths.
        self.length = self.step * voxel / width
        #: Way from each node to each voxel, in widths.
        self.ways = (np.arange(size) - self.step * np.arange(count)[:, None]) * (voxel / width)


def _moments(
    image: np.ndarray, axes: list[_Axis], orders: int
) -> dict[tuple[int, ...], np.ndarray]:
    """Moments of an image around every node, up to an order, weighted by the Gaussian.

    An axis is a product with a small dense matrix, nodes by voxels, for each exponent.
    """
    x, y, z = (
        [(np.exp(-0.5 * a.ways**2) * a.ways**k).astype(np.float32) for k in range(orders + 1)]
        for a in axes
    )
    moments: dict[tuple[int, ...], np.ndarray] = {}
    for i in range(orders + 1):
        first = np.tensordot(x[i], image, (1, 0))
        for j in range(orders + 1 - i):
            second = np.tensordot(first, y[j], (1, 1))
            for k in range(orders + 1 - i - j):
                moments[i, j, k] = np.tensordot(second, z[k], (1, 1))
    return moments


def _local_quadratics(
    weights: np.ndarray, product: np.ndarray, axes: list[_Axis]
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the quadratic of each node, and the variance of its constant at most.

    The weights of a Gaussian are at most one, so the inverse of the normal matrix bounds the
    variance.
    """
    left, right = _moments(weights, axes, 4), _moments(product, axes, 2)
    shape = right[0, 0, 0].shape
    matrix = np.empty((*shape, len(_TERMS), len(_TERMS)))
    values = np.empty((*shape, len(_TERMS)))
    for i, p in enumerate(_TERMS):
        values[..., i] = right[p]
        for j, q in enumerate(_TERMS):
            matrix[..., i, j] = left[tuple(np.add(p, q))]
    # Where voxels lie to one side, or in one plane, some terms cannot be known and stay small.
    total = matrix[..., 0, 0]
    ridge = 1e-4 * total + 1e-6 * max(float(total.max()), 1e-30)
    for i in range(len(_TERMS)):
        matrix[..., i, i] += ridge * (1e-2 if i == 0 else 1)
    inverse = np.linalg.inv(matrix)
    terms = np.einsum("...ij,...j->...i", inverse, values)
    return terms.astype(np.float32), inverse[..., 0, 0].astype(np.float32)


@parallel_kernel
def _offsets(magnitude, phase, index, slope, times, inverse_sigma, offset, precision):
    """Phase at TE = 0 of the line with that slope, and its inverse variance."""
    for n in numba.prange(index.size):
        i = index[n]
        real = imaginary = a0 = a1 = a2 = 0.0
        for j in range(times.size):
            angle = phase[i, j] - slope[n] * times[j]
            w = (magnitude[i, j] * inverse_sigma) ** 2
            real += w * np.cos(angle)
            imaginary += w * np.sin(angle)
            a0 += w
            a1 += w * times[j]
            a2 += w * times[j] ** 2
        offset[n] = np.arctan2(imaginary, real)
        precision[n] = max(a0 - a1 * a1 / a2, 0.0) if a2 > 0 else 0.0


@parallel_kernel
def _blend(places, lengths, terms, variance, expected, uncertain):
    """Add the quadratics of the eight nodes around each voxel, weighted by how near they are.

    `places` are in steps from the first node, steps have `lengths` in widths. The weights sum to
    one, so quadratics are exact.
    """
    for n in numba.prange(places.shape[0]):
        low = np.empty(3, np.int64)
        share = np.empty((3, 2))
        way = np.empty((3, 2))
        for d in range(3):
            low[d] = min(max(int(np.floor(places[n, d])), 0), variance.shape[d] - 2)
            part = places[n, d] - low[d]
            share[d, 0], share[d, 1] = 1 - part, part
            way[d, 0], way[d, 1] = lengths[d] * part, lengths[d] * (part - 1)
        value = doubt = 0.0
        for a in range(2):
            for b in range(2):
                for c in range(2):
                    w = share[0, a] * share[1, b] * share[2, c]
                    x, y, z = way[0, a], way[1, b], way[2, c]
                    i, j, k = low[0] + a, low[1] + b, low[2] + c
                    t = terms[i, j, k]
                    q = t[0] + t[1] * z + t[2] * y + t[3] * x
                    q += t[4] * z * z + t[5] * y * z + t[6] * y * y
                    q += t[7] * x * z + t[8] * x * y + t[9] * x * x
                    value += w * q
                    doubt += w * variance[i, j, k]
        expected[n] += value
        uncertain[n] = doubt
