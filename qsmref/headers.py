"""Image headers: the grid they describe, and what in them cannot be trusted.

A header is believed only as far as its parts agree: the direction of B0 and the size of voxels
come from it, and a map made with the wrong ones looks like any other.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from . import images
from .problems import DataError, ExitCode, printable

#: Grids agree when no corner is further apart than this part of the smallest voxel edge.
GRID_TOLERANCE = 0.01
#: Voxel edges of an image of a head, mm; what lies outside is in another unit.
EDGES = (0.01, 50.0)
#: No head has more voxels; a header that promises them is damaged.
MOST_VOXELS = 2_000_000_000
#: Cosine between two axes of a grid that counts as a right angle.
SHEAR_TOLERANCE = 0.01
#: gzip packs at the most 1032 bytes into one.
_GZIP_RATIO = 1040
#: Part by which two statements of the voxel size may differ, and degrees between two directions.
_SIZE_TOLERANCE, _ANGLE_TOLERANCE = 0.01, 0.5
_UNITS = {1: "metres", 3: "micrometres"}
#: sform and qform codes of template spaces.
_TEMPLATES = {3: "Talairach space", 4: "MNI space", 5: "a template's space"}


class Grid:
    """Shape and affine of an image in space, read from its header only."""

    def __init__(self, shape: tuple[int, ...], affine: np.ndarray):
        self.shape = tuple(int(n) for n in shape)
        self.affine = np.asarray(affine, dtype=float)
        #: Volumes on this grid in the file.
        self.volumes = 1
        #: Why the orientation or the voxel size cannot be known; empty when all is well.
        self.conflict = ""
        #: Why the orientation may be wrong, although the header does not contradict itself.
        self.doubt = ""

    @classmethod
    def of(cls, path: str | os.PathLike, *, several: bool = False) -> Grid:
        """Grid of an image file.

        Parameters
        ----------
        path : path
            NIfTI image.
        several : bool
            Whether it may hold several volumes, one an echo.

        Raises
        ------
        DataError
            When the file is no NIfTI image of real numbers, its header promises more than the file
            can hold, the image is not 3-D (or 4-D with `several`), or its affine is degenerate.
        """
        import nibabel as nib

        size = regular_size(path)
        try:
            image = nib.load(path)
            header = image.header
            affine, shape = image.affine, image.shape
            kind, width = header.get_data_dtype().kind, header.get_data_dtype().itemsize
        except Exception as error:  # Whatever a reader meets in a damaged header.
            raise DataError(unreadable(path, error)) from error
        name = Path(path).name
        if not isinstance(image, nib.Nifti1Image):
            raise DataError(f"{name} is no NIfTI image of voxels; export it again.")
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 and not (several and len(shape) == 4):
            raise DataError(
                f"{name} has {len(shape)} dimensions {shape}, and must have 3; split it. Echoes "
                "are files of their own, named echo-1, echo-2, ..., or all in one file without "
                "echo- in its name and with a list of times as EchoTime."
            )
        if min(shape) < 1:
            raise DataError(f"{name} has the shape {shape}: not a single voxel; export it again.")
        if kind not in "biuf":
            what = {"c": "complex numbers", "V": "colours"}.get(kind, "no numbers")
            raise DataError(
                f"{name} holds {what}; magnitude, phase and labels are real numbers: convert it."
            )
        _check_size(path, shape, width, size)
        _check_scaling(path, header)
        _check_affine(name, affine, int(header["xyzt_units"]) & 7)
        grid = cls(shape[:3], affine)
        grid.volumes = int(shape[3]) if len(shape) == 4 else 1
        grid.conflict, grid.doubt = _orientation(header, affine)
        return grid

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
        return bool(apart <= GRID_TOLERANCE * min(self.voxel_size))

    def difference(self, other: Grid) -> str:
        """Words for how this grid differs from another, for a sentence."""
        if self.shape != other.shape:
            return f"shape {self.shape} and not {other.shape}"
        if not np.allclose(self.voxel_size, other.voxel_size, rtol=1e-3):
            return f"voxels of {_edges(self.voxel_size)} and not {_edges(other.voxel_size)}"
        return "another affine (position or orientation)"


def regular_size(path: str | os.PathLike) -> int:
    """Bytes of a file.

    Raises
    ------
    DataError
        When it is not there, or no file: reading from a pipe or a device might never end.
    """
    name = Path(path).name
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        link = " (it is a link to something that is not there)" if Path(path).is_symlink() else ""
        raise DataError(f"{name} does not exist{link}.", ExitCode.MISSING_INPUT) from error
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{name} is no file but a folder, pipe or device; export the data again.")
    return found.st_size


def unreadable(path: str | os.PathLike, error: Exception) -> str:
    """Sentence for a file that a reader gave up on."""
    cause = printable(str(error)) or type(error).__name__
    cause = cause.replace(str(path), "the file")[:200]
    return f"{Path(path).name} is damaged or cut short ({cause}); copy or export it again."


def _check_size(path: str | os.PathLike, shape: tuple[int, ...], width: int, size: int) -> None:
    """Refuse a header that promises more than there is, before memory is taken for it."""
    voxels = int(np.prod([int(n) for n in shape], dtype=object))
    packed = str(path).endswith(".gz")
    if voxels > MOST_VOXELS or voxels * width > size * (_GZIP_RATIO if packed else 1):
        raise DataError(
            f"{Path(path).name} is damaged or cut short (its header promises {voxels} voxels, the "
            f"file has {size} bytes); copy or export it again."
        )


def _check_scaling(path: str | os.PathLike, header: Any) -> None:
    """Refuse a slope or intercept that is infinite; readers would leave the scaling out."""
    from nibabel.openers import ImageOpener

    try:
        with ImageOpener(path) as handle:
            # The header of a loaded image has its scaling taken out.
            stored = type(header).from_fileobj(handle, check=False)
        slope, inter = float(stored["scl_slope"]), float(stored["scl_inter"])
    except Exception as error:  # As above: a reader in a damaged header.
        raise DataError(unreadable(path, error)) from error
    if np.isinf(slope) or (slope not in (0.0,) and np.isfinite(slope) and not np.isfinite(inter)):
        raise DataError(
            f"{Path(path).name} has the scaling {slope:g} x + {inter:g} in its header, which is "
            "damaged; export the image again."
        )


def _check_affine(name: str, affine: np.ndarray | None, unit: int) -> None:
    if affine is None or not np.isfinite(affine).all():
        raise DataError(f"{name} has a degenerate affine; mend its header.")
    if unit in _UNITS:
        raise DataError(
            f"{name} gives its lengths in {_UNITS[unit]}; set the header to millimetres (unit code "
            "2), and the affine with it."
        )
    edges = np.asarray(images.voxel_size(affine))
    if not (EDGES[0] <= edges.min() and edges.max() <= EDGES[1]):
        raise DataError(
            f"{name} has a degenerate affine: voxels of {_edges(edges)} cannot be those of a head; "
            "mend its header."
        )
    axes = affine[:3, :3] / edges
    if np.abs(np.triu(axes.T @ axes, 1)).max() > SHEAR_TOLERANCE:
        raise DataError(
            f"{name} has a degenerate affine: its axes are not at right angles, so that distances "
            "in it are not those of voxels; resample it on a straight grid, or mend its header."
        )


def _orientation(header: Any, affine: np.ndarray) -> tuple[str, str]:
    """What contradicts itself in a header, and what may be wrong."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    stated = np.asarray(header["pixdim"][1:4], dtype=float)
    edges = images.voxel_size(affine)
    if not np.allclose(np.abs(stated), edges, rtol=_SIZE_TOLERANCE):
        return (
            f"its pixdim says voxels of {_edges(stated)}, its affine {_edges(edges)}: mend the "
            "header, so that both are those of the scan."
        ), ""
    if sform > 0 and qform > 0:
        try:
            angle, cause = _angle(affine, header.get_qform(coded=False)), "the qform is no rotation"
        except Exception as error:  # A quaternion that is none is a contradiction, too.
            angle, cause = float("nan"), printable(str(error)) or type(error).__name__
        if not angle <= _ANGLE_TOLERANCE:
            by = f" ({cause})" if np.isnan(angle) else f" (by {angle:.1f} degrees)"
            return (
                f"its sform and qform disagree about the orientation{by}, from which the direction "
                "of B0 comes: keep the scanner's in both (fslorient -copyqform2sform or "
                "-copysform2qform)."
            ), ""
    if sform <= 0 and qform <= 0:
        return "", (
            "has no orientation in its header (sform and qform code 0): B0 is taken to run along "
            "the third axis, and sides may be swapped."
        )
    used = sform if sform > 0 else qform
    if used in _TEMPLATES and not 0 < qform < 3:
        return "", (
            f"lies in {_TEMPLATES[used]}, as its header says: the direction of B0 is taken from "
            "there, and not from the scanner."
        )
    return "", ""


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    """Largest angle between the same axes of two affines, degrees."""
    a, b = (m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (first, second))
    return float(np.degrees(np.arccos(np.clip((a * b).sum(axis=0), -1, 1))).max())


def _edges(edges: Any) -> str:
    return " x ".join(f"{h:.4g}" for h in edges) + " mm"
