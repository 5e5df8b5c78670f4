"""Resample an image once through all its transforms: values linearly, labels by majority."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import images, itk
from .problems import DataError, ExitCode

#: Kinds of interpolation, and what ANTs calls them.
INTERPOLATIONS = {"linear": "linear", "label": "genericLabel"}


def resample(
    moving_path: str | os.PathLike,
    reference_path: str | os.PathLike,
    transforms: Sequence[str | os.PathLike],
    invert: Sequence[bool] | None = None,
    interpolation: str = "linear",
    out_path: str | os.PathLike | None = None,
) -> np.ndarray:
    """Bring an image to another grid through a list of transforms, with one interpolation.

    Parameters
    ----------
    moving_path : path
        Image (x, y, z) whose voxels are wanted.
    reference_path : path
        Image whose grid the result has.
    transforms : sequence of path
        ITK transforms in the order of ANTs: a point of the fixed space goes through the first one
        first, and the last one leads into the moving space. None: both share their coordinates.
    invert : sequence of bool, optional
        Whether to invert each of them; only linear ones can be.
    interpolation : {'linear', 'label'}
        ``label`` interpolates the indicator of every label, the background included, and takes the
        largest: borders are as smooth as those of a linear interpolation, and no voxel gets a
        label that is not there. Schaerer et al. 2014, hdl.handle.net/10380/3506.
    out_path : path, optional
        Where the result is written; labels as int32, values as float32.

    Returns
    -------
    (x, y, z) array
        float32, or int32 for labels; zero where the moving image does not reach.

    Raises
    ------
    DataError
        A transform does not exist or cannot be used; an affine is sheared.
    ValueError
        Unknown interpolation, or lists of different lengths.
    """
    import ants
    import nibabel as nib

    if interpolation not in INTERPOLATIONS:
        given = ", ".join(INTERPOLATIONS)
        raise ValueError(f"interpolation must be one of {given}, not {interpolation!r}")
    invert = [False] * len(transforms) if invert is None else list(map(bool, invert))
    if len(invert) != len(transforms):
        raise ValueError(f"{len(transforms)} transforms need as many flags, not {len(invert)}")
    reference = nib.load(reference_path)
    grid = np.zeros(reference.shape[:3], dtype=np.float32)
    fixed = itk.to_itk(grid, reference.affine, Path(reference_path).name)
    moving = itk.read_image(moving_path)
    with tempfile.TemporaryDirectory() as folder:
        files, flags = _usable(transforms, invert, Path(folder))
        try:
            result = ants.apply_transforms(
                fixed,
                moving,
                files,
                interpolator=INTERPOLATIONS[interpolation],
                whichtoinvert=flags,
            )
        except RuntimeError as error:
            names = ", ".join(Path(t).name for t in transforms)
            raise DataError(f"the transforms cannot be applied: {names} ({error}).") from error
    array = result.numpy()
    if interpolation == "label":
        array = np.rint(array).astype(np.int32)
    else:
        array = np.ascontiguousarray(array, dtype=np.float32)
    if out_path is not None:
        images.save(array, out_path, reference)
    return array


def _usable(
    transforms: Sequence[str | os.PathLike], invert: Sequence[bool], folder: Path
) -> tuple[list[str], list[bool]]:
    """Transforms and flags as ANTs takes them: what is inverted must be called ``.mat``."""
    files, flags = [], []
    for i, (transform, inverse) in enumerate(zip(transforms, invert, strict=True)):
        path = Path(transform)
        if not path.is_file():
            raise DataError(f"the transform {path} does not exist.", ExitCode.MISSING_INPUT)
        if inverse:
            path = itk.write_affine(folder / f"{i}.mat", np.linalg.inv(itk.read_affine(path)))
        files.append(str(path))
        flags.append(False)
    return files, flags
