"""Checks of echoes, masks and directions, and what follows from the echo times alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Standard deviation (rad) of a phase that is pure chance on [-pi, pi]: no noise can be larger.
RANDOM_PHASE = math.pi / math.sqrt(3)

#: Numbers along an axis, as callers have them: sizes of a voxel, echo times.
Numbers = Sequence[float] | np.ndarray


def by_chance(noise: np.ndarray) -> np.ndarray:
    """Where the standard deviation of a field (rad per dTE) is that of a phase of pure chance.

    The echo fit gives it where there is no signal, and never more; larger numbers are weights in a
    unit of their own. A part in a hundred is room for the rounding of conversions.

    Parameters
    ----------
    noise : array
        rad.

    Returns
    -------
    bool array
    """
    return np.abs(noise - RANDOM_PHASE) < 0.01 * RANDOM_PHASE


def check_times(echo_times: Numbers, echoes: int) -> np.ndarray:
    """Echo times as float64; a ValueError when they are not `echoes` increasing positive ones."""
    times = np.asarray(echo_times, dtype=float)
    if times.shape != (echoes,):
        raise ValueError(f"{echoes} echoes need as many echo times, got {times.size}")
    if times.size == 0 or not np.isfinite(times).all() or times[0] <= 0:
        raise ValueError(f"echo times must be positive, got {times.tolist()}")
    if np.any(np.diff(times) <= 0):
        raise ValueError(f"echo times must increase from echo to echo, got {times.tolist()}")
    return times


def check_series(array: np.ndarray, name: str) -> np.ndarray:
    """Echoes as a finite float32 (x, y, z, echo) array; a ValueError says what is odd."""
    array = np.asarray(array, dtype=np.float32)
    if array.ndim != 4:
        raise ValueError(f"{name} must have the axes (x, y, z, echo), got shape {array.shape}")
    # A sum is finite only if every voxel is; it needs no array of flags.
    if not np.isfinite(np.sum(array, dtype=np.float64)):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise ValueError(f"{name} has {bad} voxels that are NaN or infinite")
    if name == "magnitude" and array.size and array.min() < 0:
        raise ValueError("magnitude has negative voxels")
    return array


def check_echoes(
    magnitude: np.ndarray, phase: np.ndarray, echo_times: Numbers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magnitude, phase and echo times that fit together; a ValueError says what is odd."""
    magnitude, phase = check_series(magnitude, "magnitude"), check_series(phase, "phase")
    if magnitude.shape != phase.shape:
        raise ValueError(
            f"magnitude {magnitude.shape} and phase {phase.shape} must have the same shape"
        )
    return magnitude, phase, check_times(echo_times, phase.shape[3])


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


def check_size(voxel_size: Numbers | None) -> np.ndarray:
    """Three positive lengths of a voxel (mm) as float64, or a ValueError."""
    size = np.asarray(np.nan if voxel_size is None else voxel_size, dtype=float)
    if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(f"voxel_size must be three positive numbers (mm), got {voxel_size!r}")
    return size


def evenly_spaced(echo_times: Numbers) -> bool:
    """Whether the echo spacing is constant within 1 %.

    Echo times are often stored rounded to 10 us, so equality would be too strict; with spacings
    that differ by less than 1 % no signal tells a field from its aliases.

    >>> evenly_spaced([0.00231, 0.00462, 0.00692]), evenly_spaced([0.004, 0.008, 0.0115])
    (True, False)
    """
    steps = np.diff(np.asarray(echo_times, dtype=float))
    return bool(np.all(np.abs(steps - steps[0]) <= 0.01 * steps[0])) if steps.size else True


def echo_spacing(echo_times: Numbers) -> float:
    """dTE, the time that field maps in radians refer to: TE2 - TE1, or TE for a single echo."""
    times = np.asarray(echo_times, dtype=float)
    return float(times[1] - times[0] if times.size > 1 else times[0])


def design(times: np.ndarray) -> tuple[np.ndarray, int]:
    """Times in units of dTE from the first echo, and the aliases to try on either side."""
    return (times - times[0]) / echo_spacing(times), 0 if evenly_spaced(times) else 2


def unit_vector(b0_dir: Sequence[float]) -> np.ndarray:
    """`b0_dir` scaled to length one; a ValueError when it has no direction."""
    b0 = np.asarray(b0_dir, dtype=float)
    length = np.linalg.norm(b0)
    if b0.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f"b0_dir must be three numbers that are not all zero, got {b0_dir!r}")
    return b0 / length
