"""NIfTI images in and out, and the geometry that the physics needs from an affine.

The numerics in :mod:`qsmref.reconstruction` and :mod:`qsmref.analysis` see arrays only; this
module is the one place where arrays meet image files.
"""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np

from .files import atomic_path


def load(path: str | os.PathLike, dtype=np.float32) -> tuple[np.ndarray, nib.Nifti1Image]:
    """Read an image as an array of `dtype` and return it with the image object.

    The header's scaling (slope and intercept) is applied; nothing else is changed. Reading
    ``dataobj`` avoids the float64 copy that ``get_fdata`` keeps.
    """
    image = nib.load(path)
    return np.asarray(image.dataobj, dtype=dtype), image


def save(array: np.ndarray, path: str | os.PathLike, like: nib.Nifti1Image | np.ndarray) -> Path:
    """Write an array atomically on the grid of `like` (an image, or a 4 x 4 affine).

    Booleans become uint8; other types are stored as they are, unscaled.
    """
    affine = like if isinstance(like, np.ndarray) else like.affine
    if array.dtype == bool:
        array = array.astype(np.uint8)
    image = nib.Nifti1Image(array, affine)
    if not isinstance(like, np.ndarray):
        # Both codes are carried over, so that a viewer shows the map where it shows the input.
        image.set_sform(affine, code=int(like.header["sform_code"]) or 1)
        image.set_qform(affine, code=int(like.header["qform_code"]) or 1)
    image.header.set_xyzt_units("mm", "sec")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return Path(path)


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel edge lengths in mm, one per array axis."""
    return tuple(float(v) for v in np.linalg.norm(np.asarray(affine)[:3, :3], axis=0))


def b0_direction(affine: np.ndarray) -> tuple[float, float, float]:
    """Unit vector of B0 in voxel axes.

    The scanner's field is along +z of the patient's world; R holds the direction cosines of the
    affine, so B0 in voxel axes is ``R.T @ (0, 0, 1)``, not ``R @ (0, 0, 1)``: the two differ for
    rotations about x and y taken together.

    Examples
    --------
    >>> b0_direction(np.diag([2.0, 2.0, 3.0, 1.0]))
    (0.0, 0.0, 1.0)
    """
    linear = np.asarray(affine, dtype=float)[:3, :3]
    rotation = linear / np.linalg.norm(linear, axis=0)
    # A sheared affine has no rotation; the nearest one is used (polar decomposition).
    u, _, vt = np.linalg.svd(rotation)
    b0 = (u @ vt).T @ np.array([0.0, 0.0, 1.0])
    b0[np.abs(b0) < 1e-9] = 0.0
    return tuple(float(v) for v in b0 / np.linalg.norm(b0))
