"""Voxels read from a file, or one sentence that says why they cannot be used."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from . import images
from .headers import Grid, unreadable
from .problems import DataError

#: Part of the largest magnitude that a rounding filter may make negative.
_NEGATIVE = 0.01
#: Magnitudes outside of this range leave that of float32 when they are squared and summed.
_MAGNITUDES = (1e-12, 1e12)
#: A phase of fewer different values was rounded on its way; scanners store 4096.
_LEVELS = 32


def read(
    path: str | os.PathLike,
    dtype=np.float32,
    *,
    several: bool = False,
    mask: np.ndarray | None = None,
    cure: str = "export the image again or set them to what they should be",
) -> np.ndarray:
    """Voxels (x, y, z) of an image, all finite; with `several`, (x, y, z, volume).

    Parameters
    ----------
    path : path
        Image.
    dtype : dtype
        Of the array.
    several : bool
        Whether it may have several volumes.
    mask : (x, y, z) bool array, optional
        Where voxels must be finite; those outside that are not become 0.
    cure : str
        What to do about voxels that are not.

    Raises
    ------
    DataError
        When the file is damaged, or a voxel is NaN or infinite.
    """
    # What the header promises is there, or memory would be taken for it in vain.
    grid = Grid.of(path, several=several)
    shape = (*grid.shape, grid.volumes) if several else grid.shape
    try:
        # Where a large number does not fit into float32, it becomes infinite and is told below.
        with np.errstate(over="ignore"):
            array = _whole(path, dtype)
    except MemoryError:
        raise
    except Exception as error:  # Whatever a reader meets in a damaged file.
        raise DataError(unreadable(path, error)) from error
    array = array.reshape(shape)
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones((), dtype=bool)
    if mask is not None and mask.shape == array.shape and not finite.all():
        array[~finite & ~mask] = 0
        finite |= ~mask
    bad = int(np.count_nonzero(~finite))
    if bad:
        raise DataError(
            f"{_name(path)} has {bad} voxels that are NaN or infinite"
            f"{'' if mask is None else ' inside its mask'}; {cure}: nothing is filled in here."
        )
    return array


def _whole(path: str | os.PathLike, dtype) -> np.ndarray:
    """Array of an image, of which the file was read to its end.

    Readers stop where the voxels end, and never come to the checksum of gzip: bits that have turned
    over would become voxels.
    """
    if not str(path).endswith(".gz"):
        return images.load(path, dtype)[0]
    import nibabel as nib

    image = nib.load(path)
    voxels = math.prod(int(n) for n in image.shape)
    size = int(image.dataobj.offset) + voxels * image.get_data_dtype().itemsize
    with gzip.open(path) as handle:
        content = handle.read(size)
        while handle.read(2**20):
            pass
    return np.asarray(type(image).from_bytes(content).dataobj, dtype=dtype)


def span(array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value."""
    return float(array.min()), float(array.max())


def read_echo(path: str | os.PathLike) -> np.ndarray:
    """Voxels of one image, not all alike.

    Raises
    ------
    DataError
        As :func:`read`, and for an image of one value.
    """
    array = read(path)
    _check_echo(array, path)
    return array


def read_echoes(paths: Iterable[str | os.PathLike]) -> np.ndarray:
    """Voxels (x, y, z, echo) of files that hold one echo or several each.

    Raises
    ------
    DataError
        As :func:`read`.
    """
    return np.concatenate([read(path, several=True) for path in paths], axis=-1)


def read_magnitude(paths: Iterable[str | os.PathLike]) -> np.ndarray:
    """Magnitude (x, y, z, echo) of files that hold one echo or several each.

    Raises
    ------
    DataError
        As :func:`read_echo`, and for values that no magnitude has.
    """
    return _read_checked(paths, _check_magnitude)


def _read_checked(paths: Iterable[str | os.PathLike], check: Callable) -> np.ndarray:
    """Echoes of files, of which each has passed ``check(array, path)``."""
    echoes = []
    for path in paths:
        volumes = np.moveaxis(read(path, several=True), -1, 0)
        echoes += [check(volume, path) for volume in volumes]
    return np.stack(echoes, axis=-1)


def _check_echo(array: np.ndarray, path: str | os.PathLike) -> None:
    low, high = span(array)
    if low == high:
        raise DataError(f"{_name(path)} is {low:g} in every voxel; export the image again.")


def _check_magnitude(array: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    _check_echo(array, path)
    low, high = span(array)
    if low < -_NEGATIVE * max(high, 0.0):
        raise DataError(
            f"{_name(path)}: stored values run from {low:g} to {high:g}, and a magnitude is not "
            "negative; is it the phase, or was the header's scaling lost?"
        )
    _check_size(high, path)
    return array


def _check_size(largest: float, path: str | os.PathLike) -> None:
    if not _MAGNITUDES[0] <= largest <= _MAGNITUDES[1]:
        raise DataError(
            f"{_name(path)}: the largest value is {largest:g}, which leaves no room to compute "
            "with; was the header's scaling damaged?"
        )


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Boolean mask: zero, and one other value.

    Raises
    ------
    DataError
        As :func:`read`, for a mask without a voxel, and for probabilities or several labels: what
        of them belongs to the brain is not guessed.
    """
    array = read(path)
    mask = array != 0
    if not mask.any():
        raise DataError(f"{_name(path)} is empty: not a single voxel is set; make the mask again.")
    low, high = span(array[mask])
    if low != high or low < 0:
        raise DataError(
            f"{_name(path)} is no mask: besides 0 it has values from {low:g} to {high:g}; a mask "
            "is 0 outside and 1 inside the brain."
        )
    return mask


def read_map(path: str | os.PathLike, mask: np.ndarray | None = None) -> np.ndarray:
    """Susceptibility map in ppm.

    Parameters
    ----------
    path : path
        Image.
    mask : (x, y, z) bool array, optional
        Its brain mask; outside of it voxels may be NaN, as some tools write them, and become 0.

    Raises
    ------
    DataError
        As :func:`read_echo`, and for values that no head has in ppm.
    """
    give = "give the brain mask outside of which they lie (desc-brain_mask), or "
    chi = read(path, mask=mask, cure=("" if mask is not None else give) + "mend the map")
    _check_echo(chi, path)
    typical = float(np.median(np.abs(chi[chi != 0])))
    # Tissue lies within .2 ppm; half of all voxels above 1 ppm means another unit.
    if typical > 1:
        raise DataError(
            f"{_name(path)}: half of its values are above {typical:.3g}, which cannot be ppm "
            "(ppb or Hz?); convert the map to ppm."
        )
    return chi


def combine_echoes(magnitude: np.ndarray) -> np.ndarray:
    """Root of the sum of squares over echoes, (x, y, z) float32, of an (x, y, z, echo) array."""
    return np.sqrt(np.einsum("xyze,xyze->xyz", magnitude, magnitude))


def skull_stripped(chi: np.ndarray, mask: np.ndarray | None) -> bool:
    """Whether a map is zero outside the brain; without a mask, on the surface of the volume."""
    if mask is None:
        mask = np.zeros(chi.shape, dtype=bool)
        mask[1:-1, 1:-1, 1:-1] = True
    return not chi[~mask].any()


def read_phase(
    paths: Iterable[str | os.PathLike], low: float | None, high: float | None, declared: bool
) -> np.ndarray:
    """Phase (x, y, z, echo), rad, of files that hold one echo or several each.

    Parameters
    ----------
    paths : iterable of path
        Phase images.
    low, high : float or None
        Stored values that mean -pi and pi; None for an image in rad.
    declared : bool
        Whether the user vouches for radians, which may then be unwrapped and span more than 2 pi.

    Raises
    ------
    DataError
        As :func:`read_echo`, and when the values cannot be what they are said to be.
    """

    def in_radians(array: np.ndarray, path: str | os.PathLike) -> np.ndarray:
        return _in_radians(array, path, low, high, declared)

    return _read_checked(paths, in_radians)


def read_cartesian(
    real: Iterable[str | os.PathLike], imaginary: Iterable[str | os.PathLike]
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude and phase (rad), (x, y, z, echo), of real and imaginary parts.

    Parameters
    ----------
    real, imaginary : iterable of path
        Files that hold one echo or several each, in the same order.

    Raises
    ------
    DataError
        As :func:`read_echo`, and for a part that cannot be one.
    """
    real, imaginary = list(real), list(imaginary)
    across = _read_checked(real, _check_part)
    up = _read_checked(imaginary, _check_part)
    # Where the offset of unsigned storage was lost, zero is no longer in the middle.
    if across.min() >= 0 and up.min() >= 0:
        raise DataError(
            f"{_name(real[0])} and {_name(imaginary[0])}: no echo has a value below 0, and real "
            "and imaginary parts have both signs; was the header's scaling lost?"
        )
    magnitude = np.hypot(across, up)
    return magnitude, np.arctan2(up, across, out=across)


def _check_part(array: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    _check_echo(array, path)
    _check_levels(array, path)
    low, high = span(array)
    _check_size(max(high, -low), path)
    return array


def _check_levels(array: np.ndarray, path: str | os.PathLike) -> None:
    levels = np.unique(array.ravel()[:: max(1, array.size // 10_000)]).size
    if levels < min(_LEVELS, array.size):
        raise DataError(
            f"{_name(path)} has {levels} different values only; it was rounded when it was stored, "
            "or is no phase: export it again."
        )


def _in_radians(
    array: np.ndarray,
    path: str | os.PathLike,
    low: float | None,
    high: float | None,
    declared: bool,
) -> np.ndarray:
    from .reconstruction.phase import phase_to_radians

    _check_echo(array, path)
    _check_levels(array, path)
    least, most = span(array)
    if low is None or high is None:
        width = (most - least) / (2 * np.pi)
        # 2 % is room for rounding and for a scanner's interpolation; 0.1 rad for a whole image
        # is far less than noise alone makes.
        if not declared and (width > 1.02 or most - least < 0.1):
            raise DataError(
                f"{_name(path)}: Units says rad, but the stored values run from {least:g} to "
                f"{most:g}; pass --phase-range LOW HIGH with the values that mean -pi and pi, or "
                "--phase-units rad if they are radians all the same."
            )
        return array
    slack = 1e-3 * (high - low)
    if least < low - slack or most > high + slack:
        raise DataError(
            f"{_name(path)}: stored values run from {least:g} to {most:g}, outside the phase range "
            f"{low:g} to {high:g} that was declared; correct --phase-range LOW HIGH."
        )
    return phase_to_radians(array, low, high)


def _name(path: str | os.PathLike) -> str:
    return Path(path).name
