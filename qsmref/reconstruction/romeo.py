"""Path-based unwrapping along the most reliable edges (ROMEO).

Each pair of neighbouring voxels is an edge with a quality in [0, 1], put into one of 255 bins.
ROMEO grows a region and always takes the best edge at its rim; the edges it takes form a maximum
spanning tree of the qualities, whatever voxel it starts from. Here the same tree is found by taking
all edges, best bin first, and joining the groups of voxels at their ends unless they are one
group already (Kruskal's order instead of Prim's): it reads memory in order where a growing region
jumps, which is two to three times faster, and parts that do not touch need no seeds of their own.
Only whole turns are added, counted as integers, so no rounding error grows with the path.

Reference: Dymerska et al. 2021, doi:10.1002/mrm.28563.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from scipy import ndimage

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
    """Fill ``bins[v, d]`` for the edge from voxel v to its next neighbour along axis d."""
    nx, ny, nz = phase.shape
    use_second, use_magnitude = second.size > 0, magnitude.size > 0
    for i in prange(nx):
        for j in range(ny):
            for k in range(nz):
                if not mask[i, j, k]:
                    continue
                for d in range(3):
                    a, b, c = i + (d == 0), j + (d == 1), k + (d == 2)
                    if a == nx or b == ny or c == nz or not mask[a, b, c]:
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
                    bins[i, j, k, d] = max(1, int((1 - quality) * (_BINS - 1) + 0.5))


@kernel
def _sort_edges(bins):
    """Numbers (3 v + d) of the edges, best bin first, in the order of memory within a bin."""
    position = np.zeros(_BINS + 1, dtype=np.int64)
    for e in range(bins.size):
        position[bins[e] + 1] += 1
    edges = np.empty(bins.size - position[1], dtype=np.int32)
    position[1] = 0
    for b in range(1, _BINS + 1):
        position[b] += position[b - 1]
    for e in range(bins.size):
        if bins[e]:
            edges[position[bins[e]]] = e
            position[bins[e]] += 1
    return edges


@kernel
def _find(parent, turns, v):
    """Root of the group of `v` and the turns of `v` against it; the path is shortened."""
    root, total = v, np.int32(0)
    while parent[root] != root:
        total += turns[root]
        root = parent[root]
    left = total
    while parent[v] != root and v != root:
        following, step = parent[v], turns[v]
        parent[v], turns[v] = root, left
        v, left = following, left - step
    return root, total


@kernel
def _join(phase, edges, strides, parent, turns):
    """Join the groups at the ends of each edge, so that the step across it is below half a turn."""
    size = np.ones(phase.size, dtype=np.int32)
    for e in edges:
        a = e // 3
        b = a + strides[e - 3 * a]
        root_a, turns_a = _find(parent, turns, a)
        root_b, turns_b = _find(parent, turns, b)
        if root_a == root_b:
            continue
        shift = turns_a - turns_b + np.int32(np.floor((phase[a] - phase[b]) / TWO_PI + 0.5))
        if size[root_a] < size[root_b]:
            root_a, root_b, shift = root_b, root_a, -shift
        parent[root_b] = root_a
        turns[root_b] = shift
        size[root_a] += size[root_b]


@kernel
def _flatten(mask, parent, turns):
    """Make every voxel point to its root; returns the number of groups."""
    count = 0
    for v in range(parent.size):
        if mask[v]:
            root, total = _find(parent, turns, v)
            count += root == v
            parent[v] = root
            turns[v] = total
    return count


@parallel_kernel
def _mean_quality(bins, mask, out):
    for i in prange(mask.shape[0]):
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if not mask[i, j, k]:
                    continue
                total = 0.0
                edges = 0
                for d in range(3):
                    a, b, c = i - (d == 0), j - (d == 1), k - (d == 2)
                    if bins[i, j, k, d]:
                        total += _BINS - 1 - bins[i, j, k, d]
                        edges += 1
                    if a >= 0 and b >= 0 and c >= 0 and bins[a, b, c, d]:
                        total += _BINS - 1 - bins[a, b, c, d]
                        edges += 1
                out[i, j, k] = total / (edges * (_BINS - 2)) if edges else 0.0


class _Edges:
    """Edges of the mask's bounding box with their bins."""

    def __init__(self, phase, mask, magnitude=None, second=None, ratio=1.0):
        self.box = ndimage.find_objects(mask.astype(np.uint8))[0]
        self.phase = self._cut(phase, np.float32)
        self.mask = self._cut(mask, np.bool_)
        none = np.zeros((0, 0, 0), dtype=np.float32)
        other = none if second is None else self._cut(second, np.float32)
        signal, half_maximum = none, 1.0
        if magnitude is not None:
            signal = self._cut(magnitude, np.float32)
            half_maximum = 0.5 * float(np.percentile(signal[self.mask], 99.5)) or 1.0
        self.bins = np.zeros((*self.phase.shape, 3), dtype=np.uint8)
        _edge_bins(self.phase, other, signal, self.mask, float(ratio), half_maximum, self.bins)

    def _cut(self, array, dtype):
        return np.ascontiguousarray(array[self.box], dtype=dtype)


def phase_quality(
    phase: np.ndarray,
    mask: np.ndarray,
    magnitude: np.ndarray | None = None,
    second: np.ndarray | None = None,
    ratio: float = 1.0,
) -> np.ndarray:
    """Mean quality of the edges of each voxel, 0 to 1: near 1 where the phase is smooth.

    Parameters
    ----------
    phase, mask, magnitude, second, ratio
        As for :func:`unwrap_path`; wrapped or not makes no difference.

    Returns
    -------
    (x, y, z) float32 array, 0 outside the mask and in voxels without a neighbour.
    """
    edges = _Edges(phase, mask, magnitude, second, ratio)
    quality = np.zeros(edges.mask.shape, dtype=np.float32)
    _mean_quality(edges.bins, edges.mask, quality)
    result = np.zeros(phase.shape, dtype=np.float32)
    result[edges.box] = quality
    return result


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
    edges = _Edges(phase, mask, magnitude, second, ratio)
    shape = edges.phase.shape
    flat, within = edges.phase.ravel(), edges.mask.ravel()
    order = _sort_edges(edges.bins.ravel())
    strides = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int32)
    parent = np.arange(flat.size, dtype=np.int32)
    turns = np.zeros(flat.size, dtype=np.int32)
    _join(flat, order, strides, parent, turns)
    groups = _flatten(within, parent, turns)
    inside = np.flatnonzero(within)
    values = flat[inside] + np.float32(TWO_PI) * turns[inside]
    if groups == 1:
        turns[inside] -= round(float(np.median(values)) / TWO_PI)
    else:
        _, label = np.unique(parent[inside], return_inverse=True)
        shift = np.rint(ndimage.median(values, label, np.arange(groups)) / TWO_PI)
        turns[inside] -= shift.astype(np.int32)[label]
    result = np.zeros(phase.shape, dtype=np.int32)
    result[edges.box] = np.where(within, turns, 0).reshape(shape)
    return result
