"""Masks of the reference tissues, from labels or from the decay of the signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..reconstruction.mask import erode
from ..reconstruction.relaxation import csf_mask, r2star
from .names import tissue_labels

#: Echoes that R2* needs.
LEAST_ECHOES = 3


def tissue_masks(
    labelled: Sequence[tuple[str, np.ndarray, pd.DataFrame]],
    voxel_size: Sequence[float],
    *,
    mask: np.ndarray | None = None,
    magnitude: np.ndarray | None = None,
    echo_times: Sequence[float] = (),
    csf: str = "auto",
    erosion: float = 2.0,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Masks of ``csf`` and ``wm``, and where they come from.

    Parameters
    ----------
    labelled : sequence of (name, labels, names)
        Label images on the map's grid with their tables. The first that has labels of a tissue
        (:func:`qsmref.analysis.names.tissue_labels`) gives its mask, eroded.
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) bool array, optional
        Brain; masks lie inside it. R2* needs it.
    magnitude : (x, y, z, echo) array, optional
        Magnitude of the echoes; with three or more, ventricles can be found by their slow decay.
    echo_times : sequence of float
        s.
    csf : {"auto", "labels", "r2star", "none"}
        Where csf comes from; ``auto`` is labels, and R2* where there are none.
    erosion : float
        mm, of what comes from labels.

    Returns
    -------
    masks : dict
        Bool arrays; a tissue that was not found is not there.
    info : dict
        For each tissue its source, voxels, or why it is not there; fit for JSON.

    Raises
    ------
    ValueError
        When csf by R2* was asked for and cannot be had.

    References
    ----------
    Liu et al. 2018, doi:10.1002/mrm.26946 (ventricles by R2*).
    """
    masks: dict[str, np.ndarray] = {}
    info: dict[str, Any] = {}
    for key in ("csf", "wm"):
        if key == "csf" and csf in ("r2star", "none"):
            continue
        for name, labels, names in labelled:
            parts = tissue_labels(names, key)
            found = np.isin(labels, parts) if parts else np.zeros(1, dtype=bool)
            if mask is not None and parts:
                found &= mask
            if not found.any():
                continue
            try:
                masks[key] = erode(found, erosion, voxel_size)
            except ValueError as error:
                info[key] = {"source": "none", "why": f"{name}: {error}"}
                continue
            info[key] = {"source": "labels", "atlas": name, "labels": parts, "erosion_mm": erosion}
            break
    if "csf" not in masks and csf in ("auto", "r2star"):
        try:
            masks["csf"] = _by_decay(magnitude, echo_times, mask, voxel_size)
            info["csf"] = {"source": "r2star"}
        except ValueError as error:
            if csf == "r2star":
                raise
            info.setdefault("csf", {"source": "none", "why": str(error)})
    for key, found in masks.items():
        info[key]["n_voxels"] = int(np.count_nonzero(found))
    return masks, info


def _by_decay(magnitude, echo_times, mask, voxel_size) -> np.ndarray:
    if magnitude is None or mask is None or magnitude.shape[3] < LEAST_ECHOES:
        raise ValueError(
            f"csf by its slow decay needs magnitudes of {LEAST_ECHOES} echoes or more, and a mask"
        )
    return csf_mask(r2star(magnitude, echo_times, mask), mask, voxel_size)
