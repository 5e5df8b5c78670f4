"""The average of a cohort's maps as figures, with the regions of the template on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmref.files import read_json
from qsmref.headers import Grid
from qsmref.metadata import parse_name
from qsmref.problems import DataError
from qsmref.voxels import read

from . import pictures
from .figures import MAP_WINDOW_PPB
from .model import ColourBar, Figure
from .originals import Datasets
from .pictures import View, axial_strip, three_planes
from .wording import nice


def average_figures(
    output_dir: Path, read_atlas: Callable[[str, Mapping[str, Any], str], Mapping[str, Any]]
) -> tuple[list[Figure], list[str]]:
    """Mean and SD of the maps in each template, and what cannot be shown of them.

    Parameters
    ----------
    output_dir : Path
        Folder of results; the images are in its folder ``group``.
    read_atlas : callable
        :func:`bids_app.report.read_atlas`.

    Returns
    -------
    figures, lost
        Both empty where no maps were averaged; a sentence for each file that is damaged, and left
        out.
    """
    figures: list[Figure] = []
    lost: list[str] = []
    for path in sorted((output_dir / "group").glob("space-*_desc-mean_Chimap.nii.gz")):
        space = parse_name(path).entities["space"]
        try:
            figures += _of_space(output_dir, path, space, read_atlas, lost)
        except DataError as error:
            lost.append(f"The average in {space} is not shown: {error}")
    return figures, lost


def _of_space(
    output_dir: Path,
    path: Path,
    space: str,
    read_atlas: Callable[..., Mapping[str, Any]],
    lost: list[str],
) -> list[Figure]:
    """Figures of one template; sentences on its label images are added to `lost`."""
    spread = path.with_name(f"space-{space}_desc-sd_Chimap.nii.gz")
    sidecar = path.with_name(path.name.partition(".")[0] + ".json")
    count = _json(sidecar).get("NumberOfParticipants") if sidecar.is_file() else None
    mean = read(path) * 1000
    sd = read(spread) * 1000 if spread.is_file() else None
    # For looking only: both images are zero where no map is valid.
    valid = (mean != 0) if sd is None else (mean != 0) | (sd != 0)
    atlases = {}
    for name, files in _atlases(output_dir, path, lost).items():
        try:
            labels = read(files["dseg"], np.float64).astype(np.int32)
            atlases[name] = read_atlas(name, files, f"average-{name}") | {"labels": labels}
        except DataError as error:
            lost.append(f"The regions of {name} are not shown on the average in {space}: {error}")
    return _of_template(path, space, count, (mean, sd, valid), atlases)


def _of_template(
    path: Path,
    space: str,
    count: Any,
    images: tuple[np.ndarray, np.ndarray | None, np.ndarray],
    atlases: Mapping[str, Mapping[str, Any]],
) -> list[Figure]:
    mean, sd, valid = images
    _, affine = pictures.grid(path)
    painted = {}
    for name, atlas in atlases.items():
        labels = atlas["labels"]
        table = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.uint8)
        for index, colour in atlas["colour_of"].items():
            if 0 < index < len(table):
                table[index] = colour
        painted[name] = table[np.clip(labels, 0, None)]
    view = View.around(affine, valid, next(iter(painted.values()), None))
    who = f" of {count} participants" if isinstance(count, int) else ""
    gray = ColourBar.of("gray", MAP_WINDOW_PPB, "ppb")
    text = f"Average of the maps in {space}"
    figures = [
        Figure(
            f"Average map, {space}",
            f"Mean of the maps{who}, each relative to the mean of its brain."
            + ("" if painted else " No regions are drawn: no labels lie on its grid."),
            three_planes(view, mean, MAP_WINDOW_PPB, text, valid=valid),
            axial_strip(view, mean, MAP_WINDOW_PPB, text, valid, valid=valid),
            bar=gray,
        )
    ]
    for name, numbers in painted.items():
        words = f"Regions of {name} on the average in {space}"
        shown = {"overlay": numbers, "valid": valid}
        figures.append(
            Figure(
                f"Regions on the average: {name}",
                "The labels of the template, on the slices that show most of them.",
                three_planes(view, mean, MAP_WINDOW_PPB, words, **shown),
                axial_strip(view, mean, MAP_WINDOW_PPB, words, numbers > 0, **shown),
                legend=atlases[name]["legend"],
            )
        )
    if sd is not None:
        top = nice(float(np.percentile(sd[valid], 98))) if valid.any() else 1.0
        figures.append(
            Figure(
                f"Scatter between participants, {space}",
                "SD over participants: large at the rim of the brain and in vessels, where maps "
                "and their registration differ.",
                three_planes(
                    view, sd, (0.0, top), f"SD of the maps in {space}", "viridis", valid=valid
                ),
                bar=ColourBar.of("viridis", (0.0, top), "ppb"),
            )
        )
    return figures


def _atlases(output_dir: Path, average: Path, lost: list[str]) -> dict[str, dict[str, Path]]:
    """Label images on the grid of an average that participants were measured in."""
    datasets, found = Datasets(output_dir), {}
    grid, told = Grid.of(average), set()
    for sidecar in sorted(output_dir.glob("sub-*/**/anat/*_atlas-*_dseg.json")):
        name = parse_name(sidecar).entities["atlas"]
        table = sidecar.with_name(sidecar.name.replace("_dseg.json", "_desc-roi_Chimap.tsv"))
        if name in found or not table.is_file():
            continue
        try:
            sources = _json(sidecar).get("Sources")
            for source in sources if isinstance(sources, list) else []:
                image = datasets.file(source)
                # Labels of one participant say nothing about the others, whatever their grid.
                own = image is not None and image.name.startswith("sub-")
                if image is not None and not own and _lies_on(image, grid):
                    found[name] = {"dseg": image, "roi_tsv": table}
        except DataError as error:
            # All participants may name the same file.
            if str(error) not in told:
                lost.append(f"No regions of {name} are taken from it for the average: {error}")
            told.add(str(error))
    return found


def _lies_on(image: Path, grid: Grid) -> bool:
    """Whether an image lies on a grid; transforms and tables are no images."""
    return image.name.endswith((".nii.gz", ".nii")) and Grid.of(image).same_as(grid)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path.name} is no JSON object; run the level participant again.")
    return content
