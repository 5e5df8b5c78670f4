"""Registration with ANTs: bias field, rigid, and to a template.

Images in, transform files out. A transform is named for the image that it brings over (moving) and
the one whose grid it is brought to (fixed); the file maps points of the fixed space to the moving
one, as ITK wants it. Lengths are mm.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from . import itk
from .files import atomic_path
from .problems import DataError

if TYPE_CHECKING:
    from ants import ANTsImage

#: Iterations of SyN on grids of 8, 4, 2 and 1 mm; see docs/registration.md for what they reach.
ITERATIONS = (100, 70, 20, 0)
#: mm, the coarsest of these grids.
_COARSEST = 8.0
#: mm, and iterations at the most, of rigid and affine registrations.
_LINEAR_GRIDS, _LINEAR_ITERATIONS = (8.0, 4.0, 2.0), (1000, 500, 200)
#: mm around the brain that takes part in the rigid registration: skull and scalp help it.
_AROUND = 10.0
#: Percentiles of the brain beyond which values are cut, so that vessels do not rule the histogram.
_CUT = (0.5, 99.5)
#: Dice of the two brains after registration below which something went wrong.
LOWEST_DICE = 0.8
#: Shifts along z (mm) from which a registration is tried when a slab covers part of the brain.
_SLAB_STARTS = (-30.0, 0.0, 30.0)


def correct_bias(image: ANTsImage, mask: ANTsImage | None = None) -> ANTsImage:
    """Image without its bias field (N4; Tustison et al. 2010, doi:10.1109/TMI.2010.2046908).

    Parameters
    ----------
    image : ANTsImage
        Magnitude or T1-weighted image; values below zero, which interpolation makes, become zero.
    mask : ANTsImage, optional
        Where the field is estimated; by default where there is signal.
    """
    import ants

    positive = image.new_image_like(np.maximum(image.numpy(), 0))
    if mask is None:
        mask = positive.new_image_like(_foreground(positive.numpy()).astype(np.float32))
    # The field is smooth: it is looked for on a grid of some 6 mm.
    shrink = max(1, round(6.0 / min(image.spacing)))
    convergence = {"iters": [50, 50, 30, 20], "tol": 1e-6}
    return ants.n4_bias_field_correction(
        positive, mask, shrink_factor=shrink, convergence=convergence
    )


def register_rigid(
    fixed: ANTsImage,
    moving: ANTsImage,
    out_path: str | os.PathLike,
    *,
    moving_mask: ANTsImage | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Rigid registration of two images of one head, by mutual information.

    Parameters
    ----------
    fixed, moving : ANTsImage
        For example T1w, and the magnitude of the echoes.
    out_path : path
        ITK transform (``.mat`` or ``.txt``) that is written.
    moving_mask : ANTsImage, optional
        Brain in the moving image: it and 10 mm around it count.
    seed : int
        Of the sampling of the metric.

    Returns
    -------
    dict
        Mutual information reached, rotation (degrees) and shift of the brain (mm).

    References
    ----------
    Mattes et al. 2003, doi:10.1109/TMI.2003.809072; Avants et al. 2011,
    doi:10.1016/j.neuroimage.2010.09.025.
    """
    _seed(seed)
    around = None
    if moving_mask is not None:
        reach = ndimage.distance_transform_edt(
            moving_mask.numpy() == 0, sampling=moving_mask.spacing
        )
        around = moving_mask.new_image_like((reach <= _AROUND).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        result = _registration(
            fixed,
            moving,
            type_of_transform="Rigid",
            moving_mask=around,
            **_linear_levels(fixed.spacing),
            outprefix=f"{folder}/rigid_",
        )
        matrix = itk.read_affine(result["fwdtransforms"][0])
    itk.write_affine(out_path, matrix)
    return {
        "mutual_information": _mutual_information(fixed, result["warpedmovout"]),
        **_movement(matrix, _centre(moving if moving_mask is None else moving_mask)),
    }


def register_to_template(
    template: ANTsImage,
    template_mask: ANTsImage,
    image: ANTsImage,
    mask: ANTsImage,
    forward_path: str | os.PathLike,
    inverse_path: str | os.PathLike,
    *,
    domain: ANTsImage | None = None,
    iterations: Sequence[int] = ITERATIONS,
    seed: int = 1,
) -> dict[str, Any]:
    """Affine and SyN registration of a head to a template, brain to brain.

    Parameters
    ----------
    template, template_mask : ANTsImage
        The fixed image and its brain.
    image, mask : ANTsImage
        The moving image, without bias field, and its brain.
    forward_path, inverse_path : path
        Composite transforms (``.h5``) that are written: forward brings images to the template,
        inverse brings what is in the template to the image.
    domain : ANTsImage, optional
        Where the moving image and its mask are known, when they do not hold the whole brain: only
        there are the two compared.
    iterations : sequence of int
        Of SyN on grids of 8, 4, 2 and 1 mm, as far as the template has them.
    seed : int
        Of the sampling of the metric.

    Returns
    -------
    dict
        Parameters, mutual information and overlap (Dice) of the brains.

    Raises
    ------
    DataError
        When the brains do not overlap afterwards: nothing that follows would make sense.

    References
    ----------
    Avants et al. 2008, doi:10.1016/j.media.2007.06.004.
    """
    import ants

    _seed(seed)
    fixed, moving = _brain(template, template_mask), _brain(image, mask)
    steps = levels(template.spacing, iterations)
    domain = None if domain is None or domain.numpy().all() else domain
    with tempfile.TemporaryDirectory() as folder:
        affine = _affine(fixed, moving, domain, Path(folder))
        result = _registration(
            fixed,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=affine,
            moving_mask=domain,
            reg_iterations=steps,
            write_composite_transform=True,
            outprefix=f"{folder}/syn_",
        )
        pairs = (("fwdtransforms", forward_path), ("invtransforms", inverse_path))
        for key, path in pairs:
            with atomic_path(path) as temporary:
                shutil.move(result[key], temporary)
    warped = ants.apply_transforms(
        template, mask, [str(forward_path)], interpolator="nearestNeighbor"
    )
    known = _known(template, domain, forward_path)
    overlap = dice(warped.numpy()[known] > 0, template_mask.numpy()[known] > 0)
    if overlap < LOWEST_DICE:
        raise DataError(
            f"registration to the template failed: the brains overlap by {overlap:.2f} (Dice) "
            "only; look at the brain masks and at the affine of the images."
        )
    return {
        "transform": "affine, then SyN",
        "metric": "mutual information (Mattes, 32 bins)",
        "iterations": list(steps),
        "gradient_step": 0.2,
        "flow_sigma_voxels": 3,
        "mutual_information": _mutual_information(fixed, result["warpedmovout"]),
        "brain_dice": round(overlap, 4),
        "restricted_to_field_of_view": domain is not None,
    }


def levels(spacing: Sequence[float], iterations: Sequence[int] = ITERATIONS) -> tuple[int, ...]:
    """Iterations of the grids that a template has, from coarse to fine.

    Parameters
    ----------
    spacing : (3,) float
        mm
    iterations : sequence of int
        On grids of 8, 4, 2, ... mm.

    Examples
    --------
    >>> levels((2.0, 2.0, 2.0), (100, 70, 30, 5)), levels((1.0, 1.0, 1.0), (100, 70, 30, 5))
    ((100, 70, 30), (100, 70, 30, 5))
    >>> levels((0.5, 0.5, 0.5), (100, 70, 30, 5))
    (100, 70, 30, 5, 0)
    """
    count = max(1, 1 + round(math.log2(_COARSEST / min(spacing))))
    padded = [*iterations, *[0] * count]
    return tuple(padded[:count])


def brain_of_stripped(template: ANTsImage) -> ANTsImage:
    """Brain of a template without a skull: where it is not zero, and what that encloses."""
    inside = ndimage.binary_fill_holes(template.numpy() != 0)
    return template.new_image_like(inside.astype(np.float32))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks: twice the common part over the sum of both; 0 when both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 0.0


def _affine(fixed, moving, domain, folder: Path) -> str:
    """Affine transform to start SyN from, as a file."""
    if domain is None:
        return _registration(
            fixed,
            moving,
            type_of_transform="Affine",
            outprefix=f"{folder}/affine_",
            **_linear_levels(fixed.spacing),
        )["fwdtransforms"][0]
    # The centre of a slab is not that of the brain: start from several places, keep the best.
    best, found = -math.inf, ""
    for i, shift in enumerate(_SLAB_STARTS):
        start = np.eye(4)
        start[:3, 3] = _centre(moving) - _centre(fixed) + (0.0, 0.0, shift)
        result = _registration(
            fixed,
            moving,
            type_of_transform="Affine",
            initial_transform=str(itk.write_affine(folder / f"start{i}.mat", start)),
            moving_mask=domain,
            outprefix=f"{folder}/affine{i}_",
            **_linear_levels(fixed.spacing),
        )
        information = _mutual_information(fixed, result["warpedmovout"])
        if information > best:
            best, found = information, result["fwdtransforms"][0]
    return found


def _linear_levels(spacing: Sequence[float]) -> dict[str, tuple[int, ...]]:
    """Grids of a linear registration: 8, 4 and 2 mm, whatever the voxels are.

    Grids by voxels would be a handful of samples for images of 3 or 4 mm.
    """
    factors = [max(1, round(size / min(spacing))) for size in _LINEAR_GRIDS]
    factors = list(dict.fromkeys(factors))
    return {
        "aff_shrink_factors": tuple(factors),
        "aff_smoothing_sigmas": tuple(factor // 2 for factor in factors),
        "aff_iterations": _LINEAR_ITERATIONS[: len(factors)],
    }


def _registration(fixed, moving, **arguments) -> dict[str, Any]:
    """`ants.registration`, whose failures come as one sentence."""
    import ants

    try:
        return ants.registration(fixed, moving, **arguments)
    except RuntimeError as error:
        kind = arguments["type_of_transform"]
        raise DataError(
            f"registration ({kind}) failed ({error}); look at the brain masks and at the affine "
            "of the images."
        ) from error


def _seed(seed: int) -> None:
    """Seed of ANTs' sampling. It would take the time of day, and no run would repeat another."""
    from ants import config

    config.set_ants_deterministic(False, int(seed))


def _brain(image: ANTsImage, mask: ANTsImage) -> ANTsImage:
    """Values inside the mask between percentiles, scaled to 0 to 1; zero outside."""
    values, inside = image.numpy(), mask.numpy() > 0
    if not inside.any():
        raise DataError("the brain mask is empty where the image is.")
    low, high = np.percentile(values[inside], _CUT)
    if not high > low:
        raise DataError("the image has one value in the whole brain.")
    scaled = np.clip((values - low) / (high - low), 0, 1)
    return image.new_image_like(np.where(inside, scaled, 0).astype(np.float32))


def _foreground(values: np.ndarray) -> np.ndarray:
    """Voxels with signal: above a tenth of the robust maximum."""
    return values > 0.1 * np.percentile(values, 98)


def _centre(image: ANTsImage) -> np.ndarray:
    """Centre of mass, mm (RAS)."""
    import ants

    return itk.FLIP[:3, :3] @ np.asarray(ants.get_center_of_mass(image))


def _known(template: ANTsImage, domain: ANTsImage | None, forward: str | os.PathLike) -> np.ndarray:
    """Voxels of the template that lie in the domain of the moving image."""
    import ants

    if domain is None:
        return np.ones(template.shape, dtype=bool)
    warped = ants.apply_transforms(template, domain, [str(forward)], interpolator="nearestNeighbor")
    return warped.numpy() > 0


def _mutual_information(fixed: ANTsImage, warped: ANTsImage) -> float:
    import ants

    value = ants.image_similarity(fixed, warped, metric_type="MattesMutualInformation")
    return round(-float(value), 5)


def _movement(matrix: np.ndarray, centre: np.ndarray) -> dict[str, float]:
    """Rotation angle and shift of a point of a rigid transform."""
    cosine = np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)
    shift = np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre)
    return {
        "rotation_degrees": round(float(np.degrees(np.arccos(cosine))), 4),
        "shift_mm": round(float(shift), 4),
    }
