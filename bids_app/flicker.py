"""Pictures that take turns: whether two registered images lie on each other.

All images are brought to the grid of the map, so that the slices are those of the other figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmref.problems import DataError
from qsmref.resampling import resample
from qsmref.voxels import read

from . import pictures
from .model import Figure
from .pictures import Picture, View, three_planes

#: What the images are called in titles and on buttons.
MAGNITUDE, T1W, TEMPLATE = "magnitude", "T1-weighted image", "template"


def flickers(view: View, files: Mapping[str, Any], brain: np.ndarray) -> list[Figure]:
    """One figure for each registration: magnitude and T1-weighted image, and that and the template.

    Parameters
    ----------
    view : View
        Of the map.
    files : mapping
        With `magnitude`, and `registration` of :func:`bids_app.originals.find_originals`.
    brain : (x, y, z) bool array
        Where grey values are taken from.
    """
    registration = files.get("registration", {})
    if not files.get("magnitude") or not registration:
        return []
    grid, planes = files["magnitude"], {}
    chain: list[tuple[Path, bool]] = []
    planes[MAGNITUDE] = _planes(view, pictures.load(grid), brain, MAGNITUDE)
    if {"t1w", "map_to_t1w"} <= set(registration):
        chain = [(registration["map_to_t1w"], True)]
        t1w = _brought(registration["t1w"], grid, chain)
        if t1w is not None:
            planes[T1W] = _planes(view, t1w, brain, T1W)
    if {"template", "template_to_map"} <= set(registration):
        template = _brought(
            registration["template"], grid, [*chain, (registration["template_to_map"], False)]
        )
        if template is not None:
            planes[TEMPLATE] = _planes(view, template, brain, TEMPLATE)
    names = list(planes)
    return [_flicker(names[k], names[k + 1], planes) for k in range(len(names) - 1)]


def _brought(image: Path, grid: Path, transforms: list[tuple[Path, bool]]) -> np.ndarray | None:
    """An image on the grid of the map; None when it or a transform cannot be used any more."""
    try:
        # Read first: a reader says of a damaged image in a sentence what ITK does not.
        read(image)
        return resample(image, grid, [path for path, _ in transforms], [i for _, i in transforms])
    except (DataError, OSError, ValueError):
        # The page says which image it does without.
        return None


def _planes(view: View, array: np.ndarray, brain: np.ndarray, name: str) -> list[Picture]:
    inside = array[brain & np.isfinite(array)]
    top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return three_planes(view, array, (0.0, top or 1.0), f"The {name} on the grid of the map")


def _flicker(first: str, second: str, planes: Mapping[str, list[Picture]]) -> Figure:
    return Figure(
        f"Registration: {first} and {second}",
        "Two images that take turns on the same slices. Edges of the brain, ventricles and deep "
        "nuclei should stay where they are; contrasts differ.",
        planes[first],
        others=planes[second],
        names=(first, second),
    )
