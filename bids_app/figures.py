"""The figures of one run, in the order of the data: magnitude, fields, map, regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qsmref import images
from qsmref.analysis.names import tissue

from . import pictures
from .flicker import flickers
from .model import ColourBar, Figure
from .pictures import View, axial_strip, three_planes
from .wording import nice, number

#: The window in which every map is shown, ppb, about its median: maps of all participants look
#: alike, whatever their arbitrary zeros are.
MAP_WINDOW_PPB = (-100.0, 100.0)
#: A region larger than this (mm^3) is tissue, not a nucleus: it does not choose the slices.
_LARGEST_NUCLEUS_MM3 = 40_000.0


def run_figures(
    files: Mapping[str, Any], sidecar: Mapping[str, Any], atlases: Sequence[Mapping[str, Any]]
) -> tuple[list[Figure], dict[str, str]]:
    """Figures of a run and the facts that its images tell.

    Parameters
    ----------
    files : mapping
        Paths by kind, as in :func:`bids_app.report.write_participant_report`; what is not there
        is not shown.
    sidecar : mapping
        Of the map.
    atlases : sequence of mappings
        `name`, `dseg` (path or None), `table` (region table), `colour_of` (label to number of a
        colour) and `legend`.
    """
    kinds = ("chimap", "total_field", "local_field", "magnitude")
    first = next((files[kind] for kind in kinds if files.get(kind)), None)
    if first is None:
        return [], {}
    shape, affine = pictures.grid(first)
    facts = _geometry(shape, affine, sidecar)
    mask = pictures.load(files["mask"]) > 0 if files.get("mask") else None
    if mask is not None:
        volume = np.count_nonzero(mask) * np.prod(images.voxel_size(affine))
        facts["Mask"] = f"{number(volume / 1000, 0)}\u00a0ml"
    labels = [pictures.load(a["dseg"], np.int32) if a["dseg"] else None for a in atlases]
    shown = None
    if labels and labels[0] is not None:
        shown = np.where(_colour_of(atlases[0], labels[0]) > 0, labels[0], 0)
    brain = np.ones(shape, dtype=bool) if mask is None else mask
    view = View.around(affine, brain, shown)

    figures = []
    if files.get("magnitude"):
        figures.append(_magnitude(view, pictures.load(files["magnitude"]), mask))
    figures += _phases(view, files, sidecar)
    for kind, title, note in (
        ("total_field", "Total field", _wrap_note(sidecar)),
        ("local_field", "Local field", "What the background removal left."),
    ):
        if files.get(kind):
            figures.append(_field(view, pictures.load(files[kind]), mask, title, note))
    if files.get("chimap"):
        ppb = pictures.load(files["chimap"]) * 1000
        inside = _finite(ppb, mask)
        if inside.size:
            facts["Map in the mask" if mask is not None else "Map"] = (
                f"mean {number(inside.mean())}, SD {number(inside.std())}\u00a0ppb"
            )
        zero = float(np.median(inside)) if inside.size else 0.0
        ppb -= zero
        figures.append(_map(view, ppb, mask, zero))
        for atlas, numbers in zip(atlases, labels, strict=True):
            if numbers is not None:
                figures.append(_regions(view, ppb, mask, atlas, numbers))
    figures += flickers(view, files, brain)
    return figures, facts


def _finite(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    inside = array.ravel() if mask is None else array[mask]
    return inside[np.isfinite(inside)]


def nuclei(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a region table that are small structures: no tissue, and not in every slice."""
    small = (table["volume_mm3"] <= _LARGEST_NUCLEUS_MM3) & (table["coverage"] > 0)
    return table[small & table["name"].map(tissue).isna()]


def _geometry(shape, affine: np.ndarray, sidecar: Mapping[str, Any]) -> dict[str, str]:
    b0 = np.asarray(sidecar.get("B0Direction") or images.b0_direction(affine), dtype=float)
    angle = np.degrees(np.arccos(np.clip(abs(b0[2]) / np.linalg.norm(b0), 0, 1)))
    return {
        "Matrix": " × ".join(str(n) for n in shape),
        "Voxel size": " × ".join(f"{h:.3g}" for h in images.voxel_size(affine)) + " mm",
        "B0 in voxel axes": f"({', '.join(number(v, 3) for v in b0)}), {angle:.1f}° from the "
        "third axis",
    }


def _wrap_note(sidecar: Mapping[str, Any]) -> str:
    times = np.atleast_1d(sidecar.get("EchoTime", []))
    if len(times) > 1 and times[1] > times[0]:
        step = 1 / (times[1] - times[0])
        return f"A wrap that was not undone is a step of {number(step, 0)}\u00a0Hz."
    return "A wrap that was not undone is a step with a sharp edge."


def _magnitude(view: View, magnitude: np.ndarray, mask: np.ndarray | None) -> Figure:
    inside = _finite(magnitude, mask)
    window = (0.0, float(np.percentile(inside, 99.5)) if inside.size else 1.0)
    if mask is None:
        shown = three_planes(view, magnitude, window, "Magnitude")
        return Figure("Magnitude", "No mask was given.", shown)
    text = "Magnitude with the outline of the mask"
    return Figure(
        "Magnitude and mask",
        "Inside the outline is the mask: there the map is valid.",
        three_planes(view, magnitude, window, text, contour=mask),
        axial_strip(view, magnitude, window, text, mask, contour=mask),
    )


def _phases(view: View, files: Mapping[str, Any], sidecar: Mapping[str, Any]) -> list[Figure]:
    """Phase as it was acquired, wrapped, of the first and the last echo."""
    window = tuple(sidecar.get("PhaseRange") or (-np.pi, np.pi))
    times = [float(t) * 1000 for t in np.atleast_1d(sidecar.get("EchoTime", []))]
    made = []
    for kind, which, k in (("phase_first", "first", 0), ("phase_last", "last", -1)):
        if not files.get(kind):
            continue
        phase = pictures.load(files[kind], volume=k)
        if files.get(f"{kind}_real"):
            phase = np.arctan2(phase, pictures.load(files[f"{kind}_real"], volume=k))
        if phase.shape != view.shape:
            continue
        echo = f"{which} echo" + (f", {times[k]:.4g}\u00a0ms" if times else "")
        bar = ColourBar(pictures.gradient("twilight"), ["\u2212π", "0", "π"], "rad")
        text = f"Wrapped phase of the {which} echo"
        planes = three_planes(view, phase, window, text, cmap="twilight")
        made.append(
            Figure(
                f"Wrapped phase, {echo}",
                "As it was acquired, noise outside the head included. Lines that end inside the "
                "brain are places where coils were not combined well.",
                planes,
                bar=bar,
            )
        )
    return made


def _field(view: View, hertz: np.ndarray, mask: np.ndarray | None, title: str, note: str) -> Figure:
    inside = _finite(hertz, mask)
    top = nice(np.percentile(np.abs(inside), 98)) if inside.size else 1.0
    window = (-top, top)
    scatter = number(inside.std() if inside.size else None)
    return Figure(
        title,
        f"{note} SD {scatter}\u00a0Hz.",
        three_planes(view, hertz, window, title, cmap="RdBu_r", valid=mask),
        bar=ColourBar.of("RdBu_r", window, "Hz"),
    )


def _map(view: View, ppb: np.ndarray, mask: np.ndarray | None, zero: float) -> Figure:
    low, high = MAP_WINDOW_PPB
    inside = _finite(ppb, mask)
    beyond = 100 * np.mean((inside < low) | (inside > high)) if inside.size else None
    return Figure(
        "Susceptibility map",
        "The zero of a map is arbitrary: here it is shown about its median, "
        f"{number(zero)}\u00a0ppb. "
        "The window is the same for every participant; "
        f"{number(beyond)}\u00a0% of the voxels lie outside it.",
        three_planes(view, ppb, MAP_WINDOW_PPB, "Susceptibility map", valid=mask),
        bar=ColourBar.of("gray", MAP_WINDOW_PPB, "ppb"),
    )


def _regions(
    view: View,
    ppb: np.ndarray,
    mask: np.ndarray | None,
    atlas: Mapping[str, Any],
    numbers: np.ndarray,
) -> Figure:
    painted = _colour_of(atlas, numbers)
    text = f"Regions of {atlas['name']} on the map"
    shown = {"overlay": painted, "valid": mask}
    return Figure(
        f"Regions: {atlas['name']}",
        "Above, the slices that show most of the regions; below, from their bottom to their top.",
        three_planes(view, ppb, MAP_WINDOW_PPB, text, **shown),
        axial_strip(view, ppb, MAP_WINDOW_PPB, text, painted > 0, **shown),
        legend=atlas["legend"],
    )


def _colour_of(atlas: Mapping[str, Any], numbers: np.ndarray) -> np.ndarray:
    """Label image with the numbers of the colours in place of the labels; 0 for none."""
    top = int(numbers.max(initial=0))
    table = np.zeros(top + 1, dtype=np.uint8)
    for index, colour in atlas["colour_of"].items():
        if 0 < index <= top:
            table[index] = colour
    return table[np.clip(numbers, 0, None)]
