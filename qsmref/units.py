"""Factors between the units of a field: radians per echo spacing, ppm of B0, Hz."""

from __future__ import annotations

import math


def radians_per_ppm(echo_spacing: float, imaging_frequency: float) -> float:
    """Phase (rad) that a field of 1 ppm makes in one echo spacing.

    Parameters
    ----------
    echo_spacing : float
        dTE, s.
    imaging_frequency : float
        Larmor frequency, Hz.

    Examples
    --------
    >>> round(radians_per_ppm(0.004, 127.7e6), 3)
    3.209
    """
    return 2 * math.pi * echo_spacing * imaging_frequency * 1e-6


def hz_per_ppm(imaging_frequency: float) -> float:
    """Frequency (Hz) of a field of 1 ppm at a Larmor frequency in Hz.

    >>> hz_per_ppm(127.7e6)
    127.7
    """
    return imaging_frequency * 1e-6
