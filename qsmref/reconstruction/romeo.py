"""Path-based unwrapping: a region grows along the most reliable edges first (ROMEO).

Each pair of neighbouring voxels is an edge with a quality in [0, 1], put into one of 255 bins.
Growing always takes the best edge at the region's rim, so voxels are joined along a maximum
spanning tree of the qualities: the tree, and hence the result, does not depend on the voxel where
the growth starts. Only whole turns are added, counted as integers, so no rounding error grows with
the path.

Reference: Dymerska et al. 2021, doi:10.1002/mrm.28563.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .jit import kernel, parallel_kernel

TWO_PI = 2 * math.pi
_BINS = 256  # bin 0 is "no edge", 1 the best, 255 the worst


@kernel
def _wrap(angle):
    return angle - TWO_PI * math.floor(angle / TWO_PI + 0.5)


@kernel
def _quality(d1, d2, ratio, use_second, small, big, half_maximum, use_magnitude):
    """Quality of an edge with phase difference `d1` (and `d2` in a second echo)."""
    d1 = _wrap(d1)
    quality = 1 - abs(d1) / math.pi
    if use_second:
        quality *= max(0.0, 1 - abs(d1 - ratio * _wrap(d2)))
    if use_magnitude and big > 0:
        coherence = small / big
        # Low signal is unreliable, and so is very high signal: inflowing blood.
        low = 0.5 + 0.5 * min(1.0, small / half_maximum)
        high = 0.5 + 0.5 * min(1.0, half_maximum / big)
        quality *= coherence * coherence * low * high
    return quality


@parallel_kernel
def _edge_bins(phase, second, magnitude, mask, ratio, half_maximum, bins):
    """Fill ``bins[d, v]`` for the edge from voxel v to its next neighbour along axis d."""
    nx, ny, nz = phase.shape
    use_second, use_magnitude = second.size > 0, magnitude.size > 0
    for i in prange(nx - 1):
        for j in range(ny - 1):
            for k in range(nz - 1):
                if not mask[i, j, k]:
                    continue
                for d in range(3):
                    a, b, c = i + (d == 0), j + (d == 1), k + (d == 2)
                    if not mask[a, b, c]:
                        continue
                    d1, d2, small, big = phase[a, b, c] - phase[i, j, k], 0.0, 0.0, 0.0
                    if use_second:
                        d2 = second[a, b, c] - second[i, j, k]
                    if use_magnitude:
                        small = min(magnitude[a, b, c], magnitude[i, j, k])
                        big = max(magnitude[a, b, c], magnitude[i, j, k])
                    quality = _quality(
                        d1, d2, ratio, use_second, small, big, half_maximum, use_magnitude
                    )
                    bins[d, i, j, k] = max(1, int((1 - quality) * (_BINS - 1) + 0.5))


@kernel
def _grow(phase, mask, bins, strides, turns, order, starts):
    """Grow a region from every voxel of the mask not reached yet; returns how many there were.

    `turns` receives the whole turns to add, `order` the voxels as they were reached and `starts`
    the position in `order` at which each component begins.

    The queue is one linked list for each bin. An edge enters when its first voxel is reached and
    the other is not, hence at most once, so one slot for each edge is enough.
    """
    size = phase.size
    head = np.full(_BINS, -1, dtype=np.int64)
    following = np.empty(3 * size, dtype=np.int32)
    reached = np.zeros(size, dtype=np.bool_)
    count = components = 0
    for seed in range(size):
        if not mask[seed] or reached[seed]:
            continue
        starts[components] = count
        components += 1
        new, best = seed, _BINS
        while True:
            reached[new] = True
            order[count] = new
            count += 1
            for d in range(3):
                for back in range(2):
                    first = new - back * strides[d]
                    other = new - strides[d] if back else new + strides[d]
                    edge = d * size + first
                    bin_ = bins[edge]
                    if bin_ and not reached[other]:
                        following[edge] = head[bin_]
                        head[bin_] = edge
                        best = min(best, bin_)
            new = -1
            while best < _BINS:
                edge = head[best]
                if edge < 0:
                    best += 1
                    continue
                head[best] = following[edge]
                d = edge // size
                first = edge - d * size
                other = first + strides[d]
                if reached[first] and reached[other]:
                    continue
                old, new = (first, other) if reached[first] else (other, first)
                turns[new] = turns[old] + math.floor((phase[old] - phase[new]) / TWO_PI + 0.5)
                break
            if new < 0:
                break
    return components


@kernel
def _centre_components(phase, turns, order, starts, components, count):
    """Shift each component by whole turns so that its median lies in [-pi, pi]."""
    for c in range(components):
        stop = starts[c + 1] if c + 1 < components else count
        members = order[starts[c] : stop]
        values = np.empty(members.size, dtype=np.float64)
        for m in range(members.size):
            values[m] = phase[members[m]] + TWO_PI * turns[members[m]]
        shift = math.floor(np.median(values) / TWO_PI + 0.5)
        for m in range(members.size):
            turns[members[m]] -= shift


def unwrap_path(
    phase: np.ndarray,
    mask: np.ndarray,
    magnitude: np.ndarray | None = None,
    second: np.ndarray | None = None,
    ratio: float = 1.0,
) -> np.ndarray:
    """Whole turns to add to each voxel of the mask.

    Parameters
    ----------
    phase : (x, y, z) float array
        rad.
    mask : (x, y, z) bool array
        Voxels to unwrap, at least one.
    magnitude : (x, y, z) array, optional
        Lowers the quality of edges with little, very high or differing signal.
    second : (x, y, z) float array, optional
        Phase of another echo, rad: an edge whose difference does not scale with echo time has a
        lower quality.
    ratio : float
        Echo time of `phase` over that of `second`.

    Returns
    -------
    (x, y, z) int32 array, 0 outside the mask. Each connected component (6 neighbours) is shifted
    so that the median of its phase lies in [-pi, pi]; the turns between components are not known.

    Notes
    -----
    Quality of an edge, the product of: phase coherence ``1 - |d| / pi`` (d the wrapped
    difference); gradient coherence ``max(0, 1 - |d - ratio d2|)``; magnitude coherence
    ``(small / big)^2``; ``1/2 + 1/2 min(1, small / (m / 2))`` and ``1/2 + 1/2 min(1, (m / 2) /
    big)``, m the magnitude's 99.5th percentile in the mask (the paper takes the maximum, which one
    bright vessel can set).
    """
    inside = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in inside)

    def padded(array, dtype):
        return np.pad(np.asarray(array[box], dtype=dtype), 1)

    angle, within = padded(phase, np.float32), padded(mask, np.bool_)
    none = np.zeros((0, 0, 0), dtype=np.float32)
    other = none if second is None else padded(second, np.float32)
    signal, half_maximum = none, 1.0
    if magnitude is not None:
        signal = padded(magnitude, np.float32)
        half_maximum = 0.5 * float(np.percentile(signal[within], 99.5)) or 1.0
    bins = np.zeros((3, *angle.shape), dtype=np.uint8)
    _edge_bins(angle, other, signal, within, float(ratio), half_maximum, bins)
    size = int(np.count_nonzero(within))
    strides = np.array([angle.shape[1] * angle.shape[2], angle.shape[2], 1])
    turns = np.zeros(angle.size, dtype=np.int32)
    order, starts = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    flat = angle.ravel()
    components = _grow(flat, within.ravel(), bins.ravel(), strides, turns, order, starts)
    _centre_components(flat, turns, order, starts, components, size)
    result = np.zeros(phase.shape, dtype=np.int32)
    result[box] = turns.reshape(angle.shape)[1:-1, 1:-1, 1:-1]
    return result
