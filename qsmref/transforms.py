"""Turn linear transforms of FSL (FLIRT matrices) into ITK files.

A FLIRT matrix leads from the *moving* to the *reference* image, in coordinates of its own: voxel
indices times voxel size, the first axis counted from the other end where the affine keeps
handedness. fslpy knows these rules; here its world affine is turned round for ITK.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from . import itk
from .problems import DataError


def from_flirt(
    matrix: np.ndarray, moving_path: str | os.PathLike, reference_path: str | os.PathLike
) -> np.ndarray:
    """World affine of a FLIRT matrix, as ITK counts it: from the reference to the moving image.

    Parameters
    ----------
    matrix : (4, 4) array
        As ``flirt -omat`` writes it.
    moving_path, reference_path : path
        Images that were given as ``-in`` and ``-ref``.

    Returns
    -------
    (4, 4) array
        mm, RAS; for :func:`qsmref.itk.write_affine`.

    References
    ----------
    Jenkinson et al. 2002, doi:10.1006/nimg.2002.1132.
    """
    from fsl.data.image import Nifti
    from fsl.transform.flirt import fromFlirt

    moving, reference = (Nifti(_header(path)) for path in (moving_path, reference_path))
    world = fromFlirt(np.asarray(matrix, dtype=float), moving, reference, "world", "world")
    return np.linalg.inv(world)


def to_flirt(
    affine: np.ndarray, moving_path: str | os.PathLike, reference_path: str | os.PathLike
) -> np.ndarray:
    """Inverse of :func:`from_flirt`: FLIRT matrix of a world affine from reference to moving."""
    from fsl.data.image import Nifti
    from fsl.transform.flirt import toFlirt

    moving, reference = (Nifti(_header(path)) for path in (moving_path, reference_path))
    return toFlirt(np.linalg.inv(affine), moving, reference, "world", "world")


def read_flirt(path: str | os.PathLike) -> np.ndarray:
    """Matrix (4, 4) of a FLIRT file.

    Raises
    ------
    DataError
        When there is no such matrix in the file.
    """
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{Path(path).name} cannot be read as a FLIRT matrix ({error}).") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(f"{Path(path).name} is no FLIRT matrix: it is not 4 by 4 numbers.")
    return matrix


def flirt_to_itk(
    matrix_path: str | os.PathLike,
    moving_path: str | os.PathLike,
    reference_path: str | os.PathLike,
    out_path: str | os.PathLike,
) -> Path:
    """Write the ITK transform of a FLIRT matrix; the same arguments as :func:`from_flirt`."""
    affine = from_flirt(read_flirt(matrix_path), moving_path, reference_path)
    return itk.write_affine(out_path, affine)


def _header(path: str | os.PathLike):
    import nibabel as nib

    return nib.load(path).header
