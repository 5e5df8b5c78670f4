"""Hand images, affines and transform files from nibabel to ITK and back.

ITK counts x and y the other way round (LPS for RAS), and its transforms map points of the *fixed*
space to points of the *moving* one. Images are handed over in memory with nibabel's affine, so that
both libraries never disagree about which header field holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images
from .files import atomic_path
from .problems import DataError

if TYPE_CHECKING:
    import ants

# ITK looks at this when it is first used in a process. With several threads the metric's sums are
# added in another order each time, and no registration repeats another: 0.1 mm and more apart.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

#: From RAS to LPS, and back.
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Cosine between two axes of an affine above which it is sheared: ITK has no word for that.
_SHEAR = 1e-3


def to_itk(array: np.ndarray, affine: np.ndarray, name: str = "image") -> ants.ANTsImage:
    """ANTs image (float32) of an array (x, y, z) and its affine (mm, RAS).

    Raises
    ------
    DataError
        When the affine is sheared; `name` is who the sentence is about.
    """
    import ants

    origin, spacing, direction = itk_geometry(affine, name)
    values = np.ascontiguousarray(array, dtype=np.float32)
    return ants.from_numpy(values, origin=origin, spacing=spacing, direction=direction)


def read_image(path: str | os.PathLike) -> ants.ANTsImage:
    """ANTs image of a file, with the affine as nibabel reads it."""
    array, image = images.load(path)
    return to_itk(array.reshape(array.shape[:3]), image.affine, Path(path).name)


def itk_geometry(affine: np.ndarray, name: str = "image") -> tuple[tuple, tuple, np.ndarray]:
    """Origin (mm, LPS), spacing (mm) and direction cosines (3, 3) of an affine.

    Raises
    ------
    DataError
        When the affine is sheared.

    Examples
    --------
    >>> origin, spacing, direction = itk_geometry(np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> spacing, direction.diagonal().tolist()
    ((2.0, 2.0, 3.0), [-1.0, -1.0, 1.0])
    """
    lps = FLIP @ np.asarray(affine, dtype=float)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = lps[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > _SHEAR:
        raise DataError(f"{name} has a sheared affine, which ITK cannot hold; resample it first.")
    # Headers have single precision; ITK wants a rotation.
    u, _, vt = np.linalg.svd(direction)
    return tuple(map(float, lps[:3, 3])), tuple(map(float, spacing)), u @ vt


def write_affine(path: str | os.PathLike, matrix: np.ndarray) -> Path:
    """Write a world affine as an ITK transform (``.mat`` or ``.txt``).

    Parameters
    ----------
    path : path
        The extension chooses the format.
    matrix : (4, 4) array
        From points of the fixed space to points of the moving one, mm, RAS.
    """
    import ants

    lps = FLIP @ np.asarray(matrix, dtype=float) @ FLIP
    transform = ants.create_ants_transform(
        transform_type="AffineTransform",
        precision="double",
        dimension=3,
        matrix=lps[:3, :3],
        translation=lps[:3, 3],
        center=(0.0, 0.0, 0.0),
    )
    with atomic_path(path) as temporary:
        ants.write_transform(transform, str(temporary))
    return Path(path)


def read_affine(path: str | os.PathLike) -> np.ndarray:
    """World affine (4, 4), mm, RAS, of an ITK file that holds one linear transform.

    Raises
    ------
    DataError
        When the file cannot be read, or holds something else.
    """
    import ants

    try:
        transform = ants.read_transform(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{Path(path).name} cannot be read as an ITK transform.") from error
    # What a linear transform does to four points says all about it: no need to know its kind.
    origin = np.array(transform.apply_to_point((0.0, 0.0, 0.0)))
    columns = [np.array(transform.apply_to_point(tuple(e))) - origin for e in np.eye(3)]
    far = np.array(transform.apply_to_point((100.0, -80.0, 60.0)))
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = np.stack(columns, axis=1), origin
    if np.abs(lps[:3, :3] @ (100.0, -80.0, 60.0) + origin - far).max() > 1e-2:
        raise DataError(f"{Path(path).name} is not a linear transform.")
    return FLIP @ lps @ FLIP
