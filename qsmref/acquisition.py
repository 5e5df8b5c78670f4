"""What sidecars say of echoes and maps: echo times, scale of the phase, frequency, or a sentence.

Voxels are not read here, except to name the span of a phase image of unknown scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import voxels
from .problems import DataError, shown
from .reconstruction.dipole import GAMMA_HZ_PER_T

if TYPE_CHECKING:
    from .runs import Source

#: s; no gradient echo of a head is later, so a larger number is not in seconds.
LONGEST_ECHO = 0.3
#: A "3 T" magnet may have 2.89 T; more than this share apart, one of the two numbers is wrong.
FREQUENCY_TOLERANCE = 0.1

Sidecars = Sequence[tuple["Source", Mapping[str, Any]]]


@dataclass(frozen=True)
class PhaseScale:
    """How stored values become radians; `low` and `high` are None for an image in radians."""

    low: float | None = None
    high: float | None = None
    #: The user said so, rather than the sidecar.
    declared: bool = False


def finite(value: Any) -> float | None:
    """A number of a sidecar as float; None when it is no number, infinite, or does not fit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def _numbers(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(finite(v) is not None for v in values)


#: What keys must be, that reports show and our own steps add to.
_KNOWN = {
    "EchoTime": _numbers,
    "MagneticFieldStrength": lambda v: finite(v) is not None,
    "ImagingFrequency": lambda v: finite(v) is not None,
    "B0Direction": lambda v: isinstance(v, list) and len(v) == 3 and _numbers(v) and any(v),
    "Software": lambda v: isinstance(v, dict),
    "ReferenceStatistics": lambda v: isinstance(v, dict),
    "Processing": lambda v: isinstance(v, dict) and all(isinstance(s, dict) for s in v.values()),
}


def sensible(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata of somebody else's map, apart from what is not of the kind that its key promises.

    >>> sensible({"EchoTime": "late", "Author": 7})
    ({'Author': 7}, {'EchoTime': 'late'})
    """
    odd = {k: v for k, v in metadata.items() if k in _KNOWN and not _KNOWN[k](v)}
    return {k: v for k, v in metadata.items() if k not in odd}, odd


def echo_times(magnitude: Sidecars, phase: Sidecars) -> tuple[float, ...]:
    """Echo times (s), increasing; DataError when they are missing, odd, or contradict."""
    times: list[float] = []
    for pair in zip(magnitude, phase, strict=True):
        found = [(s.name, m["EchoTime"]) for s, m in pair if m.get("EchoTime") is not None]
        if not found:
            raise DataError(
                f"{pair[1][0].name} has no EchoTime in its sidecar; add it, in seconds."
            )
        for name, value in found:
            if finite(value) is None:
                raise DataError(
                    f"{name}: EchoTime is {shown(value)}; it must be a number in seconds."
                )
            if not 0 < value <= LONGEST_ECHO:
                cause = (
                    "which looks like milliseconds: divide it by 1000"
                    if value > LONGEST_ECHO
                    else "which cannot be: mend it"
                )
                raise DataError(f"{name}: EchoTime is {value:g} s, {cause}.")
        values = [float(value) for _, value in found]
        if max(values) - min(values) > 1e-5:
            raise DataError(
                f"{pair[1][0].name}: EchoTime is {values[-1]:g} s, but {values[0]:g} s for the "
                "magnitude of the same echo; mend the sidecars."
            )
        times.append(values[-1])
    for j in range(1, len(times)):
        if times[j] <= times[j - 1]:
            raise DataError(
                f"{phase[j][0].name}: EchoTime {times[j]:g} s is not later than that of the echo "
                f"before it ({times[j - 1]:g} s); echo numbers or sidecars are mixed up."
            )
    return tuple(times)


def phase_scale(
    phase: Sidecars, units: str | None, value_range: tuple[float, float] | None
) -> PhaseScale:
    """Scale of the phase images, from the sidecar's ``Units`` or what the user declared.

    Nothing is ever taken from the lowest and highest value: they are only named in the sentence.
    """
    if value_range is not None:
        return PhaseScale(float(value_range[0]), float(value_range[1]), declared=True)
    if units == "rad":
        return PhaseScale(declared=True)
    for source, metadata in phase:
        stated = metadata.get("Units")
        if isinstance(stated, str) and stated.lower() in ("rad", "radian", "radians"):
            continue
        said = "has no Units in its sidecar" if stated is None else f"has Units {shown(stated)}"
        low, high = voxels.span(voxels.read_echoes([source.path]))
        raise DataError(
            f"{source.name} {said}, and its stored values run from {low:g} to {high:g}; pass "
            "--phase-range LOW HIGH with the stored values that mean -pi and pi, or --phase-units "
            "rad if they are radians."
        )
    return PhaseScale()


def imaging_frequency(sidecars: Sidecars) -> float:
    """Larmor frequency (Hz) from ``ImagingFrequency`` (MHz), else from the field strength (T)."""
    frequency = _common(sidecars, "ImagingFrequency")
    strength = _common(sidecars, "MagneticFieldStrength")
    name = sidecars[0][0].name
    if frequency is None and strength is None:
        raise DataError(
            f"{name} has neither ImagingFrequency (MHz) nor MagneticFieldStrength (T) in its "
            "sidecar; add one."
        )
    if strength is not None and not 0.01 <= strength <= 30:
        raise DataError(f"{name}: MagneticFieldStrength {strength:g} is not a number of tesla.")
    if frequency is None:
        return strength * GAMMA_HZ_PER_T
    if not 0.4 <= frequency <= 1300:
        cause = "it looks like Hz" if frequency > 1e4 else "it cannot be"
        raise DataError(f"{name}: ImagingFrequency {frequency:g} must be in MHz; {cause}: mend it.")
    hertz = frequency * 1e6
    if strength is not None:
        expected = strength * GAMMA_HZ_PER_T
        if abs(hertz - expected) > FREQUENCY_TOLERANCE * expected:
            raise DataError(
                f"{name}: ImagingFrequency {frequency:g} MHz does not go with "
                f"MagneticFieldStrength {strength:g} T ({expected * 1e-6:.4g} MHz); mend one."
            )
    return hertz


def _common(sidecars: Sidecars, key: str) -> float | None:
    values: dict[float, str] = {}
    for source, metadata in sidecars:
        value = metadata.get(key)
        if value is None:
            continue
        if finite(value) is None:
            raise DataError(f"{source.name}: {key} is {shown(value)}; it must be a number.")
        values.setdefault(float(value), source.name)
    # Scanners adjust the frequency between series by some Hz; echoes of one run share it.
    if values and max(values) - min(values) > 1e-3 * max(values):
        raise DataError(
            f"{key} is {min(values):g} in {values[min(values)]} and {max(values):g} in "
            f"{values[max(values)]}; the echoes of a run must agree."
        )
    return next(iter(values), None)
