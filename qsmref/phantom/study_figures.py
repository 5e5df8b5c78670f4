"""Figures of the phantom study, as PNG and SVG with the numbers in them as TSV."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from .. import images
from .study import Study
from .study_curves import (
    COLOURS,
    Drawing,
    draw_distance,
    draw_methods,
    draw_references,
    draw_values,
)
from .study_offset import autocorrelation, correlation_length, smooth_part

#: The same bytes each time: no dates, names of elements from the content.
_STYLE = {
    "svg.hashsalt": "qsmref",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "legend.frameon": False,
}


def draw_all(folder: Path, study: Study, names, found, differences, shown) -> None:
    """Draw every figure into a folder.

    Parameters
    ----------
    folder : Path
    study : Study
    names : sequence of str
        Regions of interest.
    found : Tables
        Of :mod:`qsmref.phantom.study_report`.
    differences : DataFrame
        Of :func:`qsmref.phantom.study_tables.differences`.
    shown : Shown
        Of :mod:`qsmref.phantom.study_report`.
    """
    with matplotlib.rc_context(_STYLE):
        _model(study, shown).save(folder / "1-model")
        _maps(study, shown).save(folder / "2-maps")
        chain = study.chains[0]
        draw_values(study, names, found.values[found.values["chain"] == chain]).save(
            folder / "3-regions"
        )
        draw_references(study, names, found.values[found.values["chain"] == chain]).save(
            folder / "4-references"
        )
        _offset(study, shown).save(folder / "5-offset")
        draw_distance(study, found.distances).save(folder / "6-distance")
        if len(study.chains) > 1:
            draw_methods(study, names, differences).save(folder / "7-methods")


def _aspect(shown) -> tuple[float, float]:
    """Heights over widths of a voxel in an axial and in a coronal section."""
    x, y, z = images.voxel_size(shown.affine)
    return y / x, z / x


def _level(shown, place: int = 0) -> int:
    """Slice with the most voxels of the regions from `place` on."""
    chosen = (shown.rois == place + 1) if place else (shown.rois > 0)
    return int(chosen.sum(axis=(0, 1)).argmax())


def _picture(axis, image, limit, aspect, cmap="gray", outside=None):
    """Draw a section (ppm) in ppb; what lies outside is left white."""
    values = 1e3 * image
    if outside is not None:
        values = np.where(outside, np.nan, values)
    drawn = axis.imshow(
        values.T, origin="lower", cmap=cmap, vmin=-limit, vmax=limit, aspect=aspect,
        interpolation="nearest",
    )  # fmt: skip
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return drawn


def _bar(drawing, drawn, axes, label="ppb", shrink=0.8):
    drawing.figure.colorbar(drawn, ax=axes, shrink=shrink, label=label)


def _model(study: Study, shown) -> Drawing:
    """True map, total field, field of the brain, and what the inversion was given."""
    rows = len(shown.removed)
    drawing = Drawing(8.5, 2.3 * rows + 0.3)
    axes = drawing.figure.subplots(rows, 4, squeeze=False)
    aspect, level = _aspect(shown)[0], _level(shown)
    first = shown.masks[0][..., level]
    for row in range(rows):
        total = shown.fields[row]
        brain = shown.masks[row * len(study.variants)]
        spread = 1e3 * float(np.percentile(np.abs(total[brain] - np.median(total[brain])), 98))
        limit = max(60.0, float(np.ceil(spread / 20) * 20))
        middle = np.median(total[brain])
        given = shown.removed[row][..., level]
        pictures = (
            ("true susceptibility, ±150", shown.truths[row][..., level], 150, None),
            (f"total field, ±{limit:.0f}", total[..., level] - middle, limit, ~first),
            ("field of the brain, ±60", shown.locals[row][..., level], 60, ~first),
            ("field given to the inversion", given - np.median(given[first]), None, ~first),
        )
        for column, (title, image, span, outside) in enumerate(pictures):
            if span is None:
                spread = np.percentile(np.abs(1e3 * image[first]), 98)
                span = 60 if spread < 80 else limit
                title += f", ±{span:.0f}"
            _picture(axes[row, column], image, span, aspect, outside=outside)
            axes[row, column].set_title(title)
        condition = study.conditions[row]
        axes[row, 0].set_ylabel(f"{condition.name}: {condition.title}", fontsize=7)
    drawing.figure.suptitle("ppb, fields about their median", fontsize=8)
    return drawing


def _maps(study: Study, shown) -> Drawing:
    """Maps of the first chain for every mask, and a coronal section of the same."""
    variants = study.variants
    rows = len(shown.maps) // len(variants)
    drawing = Drawing(1.7 * len(variants) + 1, 3.4 * rows + 0.3)
    axes = drawing.figure.subplots(2 * rows, len(variants), squeeze=False)
    flat, upright = _aspect(shown)
    level = _level(shown)
    behind = int((shown.rois[:, :, level] > 0).sum(axis=0).argmax())
    for place, (chi, mask) in enumerate(zip(shown.maps, shown.masks, strict=True)):
        row, column = divmod(place, len(variants))
        variant = variants[column]
        # The zero of a map is arbitrary: each is shown about its own median.
        image = chi - np.median(chi[mask])
        drawn = _picture(
            axes[2 * row, column], image[..., level], 150, flat, outside=~mask[..., level]
        )
        _picture(
            axes[2 * row + 1, column], image[:, behind], 150, upright, outside=~mask[:, behind]
        )
        if row == 0:
            axes[0, column].set_title(
                f"slab {variant.slab_mm:g} mm\nerosion {variant.erosion_mm:g} mm"
            )
        if column == 0:
            axes[2 * row, 0].set_ylabel(f"condition {study.conditions[row].name}")
    _bar(drawing, drawn, axes.ravel().tolist(), "ppb about the median", 0.3)
    return drawing


def _offset(study: Study, shown) -> Drawing:
    """Map of the offset, its smooth part, and how far both are correlated."""
    count, size = len(study.variants), images.voxel_size(shown.affine)
    rows = len(shown.maps) // count
    drawing = Drawing(8.2, 2.4 * rows + 0.2)
    axes = drawing.figure.subplots(rows, 3, squeeze=False, width_ratios=(1, 1, 1.3))
    level, aspect = _level(shown), _aspect(shown)[0]
    curves = []
    for row in range(rows):
        mask = shown.masks[row * count]
        offset = np.where(mask, shown.maps[row * count] - shown.truths[row], 0)
        smooth = smooth_part(offset, mask, size)
        middle = float(np.median(offset[mask]))
        limit = max(1.0, float(np.ceil(1e3 * np.percentile(np.abs(offset - middle)[mask], 95))))
        for column, (title, image) in enumerate((("offset", offset), ("smooth part", smooth))):
            drawn = _picture(
                axes[row, column], image[..., level] - middle, limit, aspect, "RdBu_r",
                ~mask[..., level],
            )  # fmt: skip
            axes[row, column].set_title(f"{title} about {1e3 * middle:.1f} ppb")
        _bar(drawing, drawn, axes[row, :2].tolist())
        axes[row, 0].set_ylabel(f"condition {study.conditions[row].name}")
        for place, (words, field) in enumerate((("offset", offset), ("smooth part", smooth))):
            curve = autocorrelation(field, mask, size)
            length = correlation_length(curve)
            axes[row, 2].plot(
                curve["distance_mm"], curve["correlation"], color=COLOURS[place], linewidth=1.2,
                label=f"{words}: 1/e at {length:.1f} mm",
            )  # fmt: skip
            curves.append(curve.assign(condition=study.conditions[row].name, what=words))
        axes[row, 2].axhline(0, color="#999999", linewidth=0.6, zorder=0)
        axes[row, 2].set(xlim=(0, 60), ylim=(-0.5, 1.05), ylabel="correlation")
        axes[row, 2].legend()
    axes[-1, 2].set_xlabel("distance, mm")
    drawing.data = pd.concat(curves, ignore_index=True)[
        ["condition", "what", "distance_mm", "correlation"]
    ]
    return drawing
