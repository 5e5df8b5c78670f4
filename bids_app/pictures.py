"""Slices of images as PNGs for a page: no axes and no text, which the page sets itself.

Every picture looks at the head as if it stood before the reader with its back: the left of an
axial or coronal slice is the participant's left, the left of a sagittal one is posterior.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from qsmref import images

PLANES = ("sagittal", "coronal", "axial")
#: What stands at the left and the right edge of each plane.
_EDGES = {"sagittal": ("P", "A"), "coronal": ("L", "R"), "axial": ("L", "R")}
#: Colours of regions, repeated as needed. The first seven are those of Okabe and Ito, which
#: colour-blind readers tell apart, their dark blue replaced by a violet that shows on black.
REGION_COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#8B5CF6", "#D55E00",
    "#CC79A7", "#B5E853", "#F5B5B5", "#3D7BFF", "#B08968", "#7FE3C4",
)  # fmt: skip
#: Margin around the brain, mm.
_MARGIN_MM = 8.0
_PIXELS_PER_MM = 2.6


@dataclass(frozen=True)
class Picture:
    """One slice, ready for an ``img`` element."""

    #: data URI
    source: str
    #: pixels
    width: int
    height: int
    #: What is seen, for those who do not see it.
    text: str


@dataclass(frozen=True)
class View:
    """Which part of a head is shown: its grid turned to RAS, cropped, with a point to cut at."""

    orientation: np.ndarray
    voxel_size: tuple[float, float, float]
    box: tuple[slice, slice, slice]
    #: Voxel, in the cropped array, through which the three planes go.
    point: tuple[int, int, int]
    #: Voxels of the grid, in its own axes.
    shape: tuple[int, ...]

    @classmethod
    def around(
        cls, affine: np.ndarray, brain: np.ndarray, labels: np.ndarray | None = None
    ) -> View:
        """View of a grid, cropped to a brain mask, with slices where `labels` are."""
        orientation, shape = nib.io_orientation(affine), brain.shape
        size = np.empty(3)
        size[orientation[:, 0].astype(int)] = images.voxel_size(affine)
        brain = _turn(brain, orientation)
        inside = [
            np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
            for axis in range(3)
        ]
        if not inside[0].size:
            inside = [np.arange(n) for n in brain.shape]
        margin = np.ceil(_MARGIN_MM / size).astype(int)
        box = tuple(
            slice(max(int(i[0]) - m, 0), min(int(i[-1]) + 1 + m, n))
            for i, m, n in zip(inside, margin, brain.shape, strict=True)
        )
        point = [int(round(i.mean())) for i in inside]
        if labels is not None and labels.any():
            point = _richest_slices(_turn(labels, orientation))
        point = [
            int(np.clip(p, s.start, s.stop - 1)) - s.start for p, s in zip(point, box, strict=True)
        ]
        return cls(orientation, tuple(size), box, tuple(point), shape)

    def crop(self, array: np.ndarray) -> np.ndarray:
        """A view of the array of an image, turned and cropped."""
        return _turn(array, self.orientation)[self.box]


def _turn(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    return nib.apply_orientation(array, orientation)


def _richest_slices(labels: np.ndarray) -> list[int]:
    """For each axis the slice that shows most of the regions, small and large ones alike."""
    found = np.nonzero(labels)
    numbers = labels[found].astype(np.int64)
    weight = 1.0 / np.bincount(numbers)[numbers]
    return [int(np.argmax(np.bincount(index, weights=weight))) for index in found]


def _slice(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """One slice with rows from bottom to top."""
    return np.take(array, index, axis=axis).T


def three_planes(
    view: View,
    array: np.ndarray,
    window: tuple[float, float],
    text: str,
    cmap: str = "gray",
    contour: np.ndarray | None = None,
    overlay: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> list[Picture]:
    """Sagittal, coronal and axial slices through the point of a view.

    Parameters
    ----------
    view : View
    array : (x, y, z) array
        In the grid's own axes, as are the next arrays.
    window : (low, high)
        Values shown as the ends of the colour map.
    text : str
        What is seen; the plane is added.
    contour : bool array, optional
        A mask, drawn as an outline.
    overlay : integer array, optional
        Numbers of colours of :data:`REGION_COLOURS` from 1 on, painted over the slice; 0 is clear.
    valid : bool array, optional
        Where the array means something; the rest is black.
    """
    crops = [None if a is None else view.crop(a) for a in (array, contour, overlay, valid)]
    return [
        _picture(view, crops, axis, view.point[axis], window, cmap, f"{text}, {plane} slice")
        for axis, plane in enumerate(PLANES)
    ]


def axial_strip(
    view: View,
    array: np.ndarray,
    window: tuple[float, float],
    text: str,
    extent: np.ndarray,
    contour: np.ndarray | None = None,
    overlay: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> list[Picture]:
    """Eight axial slices from the bottom to the top of `extent`; see :func:`three_planes`."""
    crops = [None if a is None else view.crop(a) for a in (array, contour, overlay, valid)]
    levels = np.flatnonzero(view.crop(extent).any(axis=(0, 1)))
    if not levels.size:
        return []
    chosen = np.unique(np.round(np.linspace(levels[0], levels[-1], 10)[1:-1]).astype(int))
    return [
        _picture(
            view, crops, 2, int(k), window, "gray", f"{text}, axial slice {n} of {len(chosen)}"
        )
        for n, k in enumerate(chosen, 1)
    ]


def _picture(
    view: View,
    crops: Sequence[np.ndarray | None],
    axis: int,
    index: int,
    window: tuple[float, float],
    cmap: str,
    text: str,
) -> Picture:
    array, contour, overlay, valid = (None if c is None else _slice(c, axis, index) for c in crops)
    across, up = (view.voxel_size[a] for a in range(3) if a != axis)
    extent = (0, array.shape[1] * across, 0, array.shape[0] * up)
    figure = Figure(
        figsize=(extent[1] * _PIXELS_PER_MM / 100, extent[3] * _PIXELS_PER_MM / 100),
        dpi=100,
        facecolor="black",
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    options = {"origin": "lower", "extent": extent, "interpolation": "nearest", "aspect": "auto"}
    shown = array if valid is None else np.where(valid, array, np.nan)
    axes.imshow(
        np.ma.masked_invalid(shown), cmap=colormaps[cmap], vmin=window[0], vmax=window[1], **options
    )
    if overlay is not None and overlay.any():
        axes.imshow(_paint(overlay), **options)
    if contour is not None and 0 < np.count_nonzero(contour) < contour.size:
        axes.contour(
            contour.astype(float), levels=[0.5], extent=extent, colors="#FFB000", linewidths=1.2
        )
    for x, letter, side in zip((0.02, 0.98), _EDGES[PLANES[axis]], ("left", "right"), strict=True):
        axes.text(
            x, 0.02, letter, color="#dddddd", fontsize=11, ha=side, va="bottom",
            transform=axes.transAxes,
        )  # fmt: skip
    canvas = FigureCanvasAgg(figure)
    stream = io.BytesIO()
    canvas.print_png(stream)
    width, height = canvas.get_width_height()
    return Picture(data_uri(stream.getvalue()), width, height, text)


def _paint(numbers: np.ndarray) -> np.ndarray:
    """Colour numbers as RGBA, half transparent inside and full at the edges of each region."""
    palette = np.array([(0, 0, 0, 0), *(to_rgba(c, 0.5) for c in REGION_COLOURS)])
    index = np.where(numbers > 0, (numbers - 1) % len(REGION_COLOURS) + 1, 0)
    painted = palette[index]
    padded = np.pad(numbers, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge = np.logical_or.reduce([centre != n for n in neighbours])
    painted[edge & (numbers > 0), 3] = 0.9
    return painted


def data_uri(png: bytes) -> str:
    """A PNG as the source of an ``img`` element."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def gradient(cmap: str, steps: int = 11) -> str:
    """A colour map as stops of a CSS gradient."""
    shades = (np.array(colormaps[cmap](np.linspace(0, 1, steps)))[:, :3] * 255).round().astype(int)
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in shades)


def load(path: str | Path, dtype=np.float32, volume: int = 0) -> np.ndarray:
    """Array of a 3-D image; of a series (echoes) one volume."""
    data = nib.load(path).dataobj
    return np.asarray(data[..., volume] if data.ndim == 4 else data, dtype=dtype)


def volumes(path: str | Path) -> int:
    """How many volumes an image has: 1 unless it is a series."""
    shape = nib.load(path).shape
    return shape[3] if len(shape) == 4 else 1


def grid(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (x, y, z) and affine of an image, without its voxels."""
    image = nib.load(path)
    return image.shape[:3], image.affine
