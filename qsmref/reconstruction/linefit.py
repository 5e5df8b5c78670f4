"""Line fits to the phase of one voxel after the other: the compiled loops of the echo fit."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .jit import kernel, parallel_kernel

TWO_PI = 2 * math.pi

_CHUNK = 4096
_ITERATIONS = (
    10  # the error falls by 1 - mean(cos d) each time: tenfold where the phase noise is .5
)
_TOLERANCE = 1e-4  # rad; a step that small is followed by one of its square or so
_RETRY_RESIDUAL = 0.05


@kernel
def _turns(angle):
    return np.floor(angle * (1 / TWO_PI) + 0.5)


@kernel
def _wrap(angle):
    return angle - TWO_PI * _turns(angle)


@kernel
def _sine(x):
    # Taylor series after folding to [-pi/2, pi/2]; error below 1e-9, faster than libm.
    if abs(x) > 0.5 * math.pi:
        x = _wrap(x)
        if x > 0.5 * math.pi:
            x = math.pi - x
        elif x < -0.5 * math.pi:
            x = -math.pi - x
    s = x * x
    tail = 1 / 362880 - s * (1 / 39916800 - s * (1 / 6227020800))
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
        straight[j] = phase[j] + TWO_PI * _turns(expected - phase[j])
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
def fit_voxels(
    magnitude: np.ndarray,
    phase: np.ndarray,
    index: np.ndarray,
    times: np.ndarray,
    branches: int,
    nonlinear: bool,
    field: np.ndarray,
    noise: np.ndarray,
    residual: np.ndarray,
) -> None:
    """Fit the voxels `index` of (voxel, echo) arrays; the last three arrays take the results.

    `times` are in units of dTE from the first echo, `branches` aliases are tried on either side.
    `field` is in rad per dTE, `noise` in the same for complex noise of one, `residual` is the part
    of the signal's energy that the line leaves.
    """
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
