"""Voxels read from a file, or one sentence that says why they cannot be used."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from . import images
from .problems import DataError, ExitCode

#: Grids agree when no corner is further apart than this part of the smallest voxel edge.
GRID_TOLERANCE = 0.01


class Grid:
    """Shape and affine of a 3-D image, read from its header only."""

    def __init__(self, shape: tuple[int, ...], affine: np.ndarray):
        self.shape = tuple(int(n) for n in shape)
        self.affine = np.asarray(affine, dtype=float)

    @classmethod
    def of(cls, path: str | os.PathLike) -> Grid:
        """Grid of an image file.

        Raises
        ------
        DataError
            When the header cannot be read, the image is not 3-D, or its affine is degenerate.
        """
        import nibabel as nib

        try:
            image = nib.load(path)
            affine, shape = image.affine, image.shape
        except FileNotFoundError as error:
            raise DataError(f"{_name(path)} does not exist.", ExitCode.MISSING_INPUT) from error
        except (
            ImageFileError,
            HeaderDataError,
            OSError,
            EOFError,
            zlib.error,
            ValueError,
        ) as error:
            raise DataError(_unreadable(path, error)) from error
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise DataError(
                f"{_name(path)} has {len(shape)} dimensions {shape}; images must be 3-D, and BIDS "
                "wants one file per echo: split it and name the parts echo-1, echo-2, ..."
            )
        if affine is None or not np.isfinite(affine).all() or _edges(affine).min() < 1e-6:
            raise DataError(f"{_name(path)} has a degenerate affine; mend its header.")
        return cls(shape, affine)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """mm."""
        return images.voxel_size(self.affine)

    def same_as(self, other: Grid) -> bool:
        """Whether both grids have the same voxels at the same places."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n) for n in self.shape])).reshape(3, -1)
        corners = np.vstack([corners, np.ones(corners.shape[1])])
        apart = np.linalg.norm((self.affine - other.affine)[:3] @ corners, axis=0).max()
        return bool(apart <= GRID_TOLERANCE * _edges(self.affine).min())

    def difference(self, other: Grid) -> str:
        """Words for how this grid differs from another, for a sentence."""
        if self.shape != other.shape:
            return f"shape {self.shape} and not {other.shape}"
        if not np.allclose(self.voxel_size, other.voxel_size, rtol=1e-3):
            mine, theirs = (
                " x ".join(f"{h:.4g}" for h in g.voxel_size) + " mm" for g in (self, other)
            )
            return f"voxels of {mine} and not {theirs}"
        return "another affine (position or orientation)"


def read(path: str | os.PathLike, dtype=np.float32) -> np.ndarray:
    """Voxels (x, y, z) of an image, all finite.

    Raises
    ------
    DataError
        When the file is damaged, or a voxel is NaN or infinite.
    """
    try:
        array, _ = images.load(path, dtype)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(_unreadable(path, error)) from error
    array = array.reshape(array.shape[:3])
    bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad:
        raise DataError(
            f"{_name(path)} has {bad} voxels that are NaN or infinite; export the image again or "
            "set them to what they should be: nothing is filled in here."
        )
    return array


def span(array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value."""
    return float(array.min()), float(array.max())


def read_echo(path: str | os.PathLike) -> np.ndarray:
    """Voxels of one echo, not all alike.

    Raises
    ------
    DataError
        As :func:`read`, and for an image of one value.
    """
    array = read(path)
    low, high = span(array)
    if low == high:
        raise DataError(f"{_name(path)} is {low:g} in every voxel; export the image again.")
    return array


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Boolean mask: voxels that are not zero.

    Raises
    ------
    DataError
        As :func:`read`, and for a mask without a voxel.
    """
    mask = read(path) != 0
    if not mask.any():
        raise DataError(f"{_name(path)} is empty: not a single voxel is set; make the mask again.")
    return mask


def read_map(path: str | os.PathLike) -> np.ndarray:
    """Susceptibility map in ppm.

    Raises
    ------
    DataError
        As :func:`read_echo`, and for values that no head has in ppm.
    """
    chi = read_echo(path)
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


def phase_in_radians(
    path: str | os.PathLike, low: float | None, high: float | None, declared: bool
) -> np.ndarray:
    """Phase (rad) of one echo.

    Parameters
    ----------
    path : path
        Phase image.
    low, high : float or None
        Stored values that mean -pi and pi; None for an image in rad.
    declared : bool
        Whether the user vouches for radians, which may then be unwrapped and span more than 2 pi.

    Raises
    ------
    DataError
        As :func:`read_echo`, and when the values cannot be what they are said to be.
    """
    from .reconstruction.phase import phase_to_radians

    array = read_echo(path)
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


def _edges(affine: np.ndarray) -> np.ndarray:
    return np.asarray(images.voxel_size(affine))


def _name(path: str | os.PathLike) -> str:
    return Path(path).name


def _unreadable(path: str | os.PathLike, error: Exception) -> str:
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{_name(path)} is damaged or cut short ({cause}); copy or export it again."
