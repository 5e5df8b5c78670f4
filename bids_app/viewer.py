"""The map in three dimensions, as one block of a page: NiiVue and small volumes, all embedded.

Program and volumes are compressed and stand in the page as text that no browser reads before the
reader opens the viewer; nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import gzip
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np

from . import pictures
from .pictures import REGION_COLOURS

#: A page larger than this does without its viewer: it should still fit into a mail.
LARGEST_PAGE = 15_000_000
#: ppb that stand for "outside": black in any window that is looked at.
_OUTSIDE = -2000
_MARGIN = 2
#: Numbers that a uint8 has.
_MOST_REGIONS = 256


@dataclass(frozen=True)
class Viewer:
    """Volumes of one map, base64 of compressed NIfTI files."""

    #: int16, ppb about the median of the map.
    chimap: str
    #: uint8, a number for each region; empty without regions.
    regions: str = ""
    #: Their names and colours (red, green, blue) from 1 on; 0 is none.
    names: list[str] = field(default_factory=list)
    colours: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that it adds to a page."""
        return len(self.chimap) + len(self.regions)


@cache
def program() -> str:
    """NiiVue, compressed, base64."""
    folder = importlib.resources.files("qsmref") / "data" / "report" / "niivue"
    return _packed((folder / "niivue.umd.js").read_bytes())


@cache
def licence() -> str:
    """Licences of NiiVue and of what is bundled with it."""
    folder = importlib.resources.files("qsmref") / "data" / "report" / "niivue"
    return (folder / "LICENSE.txt").read_text(encoding="utf-8")


def _packed(data: bytes) -> str:
    # No time of day in it: the same page is the same bytes.
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def make_viewer(files: Mapping[str, Any], atlas: Mapping[str, Any] | None = None) -> Viewer | None:
    """Volumes of a map: cropped to its mask, whole ppb.

    Parameters
    ----------
    files : mapping
        `chimap`, and perhaps `mask` (paths).
    atlas : mapping, optional
        `dseg` (path), `table` (of the regions) and `colour_of` (label to number of a colour
        from 1 on, 0 for none).

    Returns
    -------
    Viewer or None
        None without a map, or when nothing is inside its mask.
    """
    if not files.get("chimap"):
        return None
    ppb = pictures.load(files["chimap"]) * 1000
    _, affine = pictures.grid(files["chimap"])
    mask = np.isfinite(ppb)
    if files.get("mask"):
        mask &= pictures.load(files["mask"]) > 0
    if not mask.any():
        return None
    box = _box(mask)
    zero = float(np.median(ppb[mask]))
    values = np.where(mask, np.clip(ppb - zero, 1 + _OUTSIDE, -_OUTSIDE), _OUTSIDE)[box]
    corner = np.array([s.start for s in box])
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ corner + affine[:3, 3]
    viewer = Viewer(_volume(np.rint(values).astype(np.int16), moved))
    if atlas is None or not atlas.get("dseg"):
        return viewer
    labels = pictures.load(atlas["dseg"], np.int32)
    if labels.shape != ppb.shape:
        return viewer
    numbers, names, colours = _numbered(labels[box], atlas)
    return replace(viewer, regions=_volume(numbers, moved), names=names, colours=colours)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of a grid that holds a mask, with a few voxels around it."""
    sides = []
    for axis, n in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        sides.append(slice(max(int(inside[0]) - _MARGIN, 0), min(int(inside[-1]) + 1 + _MARGIN, n)))
    return tuple(sides)


def _numbered(
    labels: np.ndarray, atlas: Mapping[str, Any]
) -> tuple[np.ndarray, list[str], list[tuple[int, int, int]]]:
    """Regions that have a colour as numbers from 1 on, their names and their colours."""
    listed = atlas["table"][atlas["table"]["index"].notna()]
    numbers = np.zeros(labels.shape, dtype=np.uint8)
    names, colours = [""], [(0, 0, 0)]
    for index, name in zip(listed["index"].astype(int), listed["name"], strict=True):
        colour = atlas["colour_of"].get(index, 0)
        if colour and index > 0 and len(names) < _MOST_REGIONS:
            numbers[labels == index] = len(names)
            names.append(str(name))
            colours.append(_rgb(REGION_COLOURS[(colour - 1) % len(REGION_COLOURS)]))
    return numbers, names, colours


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))


def _volume(array: np.ndarray, affine: np.ndarray) -> str:
    image = nib.Nifti1Image(np.asfortranarray(array), affine)
    image.header.set_xyzt_units("mm")
    return _packed(image.to_bytes())


def with_viewers(page: Any, viewers: Mapping[str, Viewer | None], **content: Any) -> str:
    """A page with as many viewers as leave it small enough.

    Parameters
    ----------
    page : template
        Of jinja2; it gets `viewers` (by id of the run; for one that is left out, the bytes that
        the page would have with it), `niivue` (the program, or nothing) and `niivue_licence`.
    viewers : mapping
        By id of the run.
    **content
        What else it shows.

    Returns
    -------
    str
        The page, below :data:`LARGEST_PAGE` bytes unless it is larger without any viewer.
    """
    bare = page.render(**content, viewers={}, niivue="", niivue_licence="")
    room = LARGEST_PAGE - len(bare.encode()) - len(program()) - 2 * len(licence())
    shown: dict[str, Viewer | int] = {}
    for name, viewer in viewers.items():
        if viewer is not None and viewer.size < room:
            shown[name] = viewer
            room -= viewer.size + 4096
        elif viewer is not None:
            shown[name] = LARGEST_PAGE - room + viewer.size
    if not any(isinstance(v, Viewer) for v in shown.values()):
        return page.render(**content, viewers=shown, niivue="", niivue_licence="")
    return page.render(**content, viewers=shown, niivue=program(), niivue_licence=licence())
