"""The template that ``--template`` names: a head and its brain mask, by name or by path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from . import voxels
from .headers import Grid
from .metadata import parse_name
from .problems import DataError, ExitCode, printable

#: Part of zeros from which an image is taken to have no skull.
_BACKGROUND = 0.25
_NAMED = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9+]*)(:res-(?P<resolution>[0-9]+))?")


@dataclass(frozen=True)
class Template:
    """A head that others are registered to.

    Parameters
    ----------
    name : str
        Label for names of files, ``space-<name>``.
    image : Path
        The head, or the brain alone.
    mask : Path or None
        Brain in it; None where the image is zero outside the brain.
    """

    name: str
    image: Path
    mask: Path | None

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid.of(self.image)

    @classmethod
    def of(cls, given: str, mask: str | os.PathLike | None = None) -> Template:
        """Template of a path, or of a name that TemplateFlow knows.

        Parameters
        ----------
        given : str
            A NIfTI file, or a name such as ``MNI152NLin2009cAsym``; ``:res-2`` after it chooses
            the resolution (1 by default).
        mask : path, optional
            Brain mask of an image that has a skull.

        Raises
        ------
        DataError
            When there is no such template on this machine and none can be fetched, or a file is
            no template.
        """
        if _is_path(given):
            return _from_file(Path(given), None if mask is None else Path(mask))
        match = _NAMED.fullmatch(given)
        if match is None:
            raise DataError(
                f"--template {given} is neither a NIfTI file that exists nor a name of a template.",
                ExitCode.USAGE,
            )
        if mask is not None:
            raise DataError(
                "--template-mask goes with a template that is a file: those with a name have one.",
                ExitCode.USAGE,
            )
        return _from_templateflow(match["name"], int(match["resolution"] or 1))


@cache
def find_template(given: str, mask: Path | None = None) -> Template:
    """Template of :meth:`Template.of`, looked for once in the life of a process."""
    return Template.of(given, mask)


def image_at_hand(given: str) -> Path | None:
    """Image of a template, if it is on this machine: nothing is fetched and nothing is read."""
    if _is_path(given):
        return Path(given) if Path(given).is_file() else None
    match = _NAMED.fullmatch(given)
    if match is None:
        return None
    name, resolution = match["name"], int(match["resolution"] or 1)
    folder = templateflow_home() / f"tpl-{name}"
    kinds = ("desc-brain_T1w", "T1w")
    found = (_cached(folder, name, resolution, kind) for kind in kinds)
    return next((path for path in found if path is not None), None)


def label_of_template(given: str) -> str:
    """Label of the space of what ``--template`` names, whether or not it is there.

    >>> label_of_template("MNI152NLin2009cAsym:res-2"), label_of_template("group/my_head.nii")
    ('MNI152NLin2009cAsym', 'myhead')
    """
    return label_of(given) if _is_path(given) else given.partition(":")[0]


def _is_path(given: str) -> bool:
    return given.endswith((".nii", ".nii.gz")) or os.sep in given or Path(given).is_file()


def _from_file(image: Path, mask: Path | None) -> Template:
    for path, flag in ((image, "--template"), (mask, "--template-mask")):
        if path is not None and not path.is_file():
            raise DataError(f"{flag}: there is no file {path}.", ExitCode.MISSING_INPUT)
    values = voxels.read_echo(image)
    if mask is None:
        mask = _mask_beside(image)
    if mask is None and np.count_nonzero(values == 0) < _BACKGROUND * values.size:
        raise DataError(
            f"the template {image.name} is not zero outside the brain and has no brain mask beside "
            "it (desc-brain_mask): give one with --template-mask.",
            ExitCode.USAGE,
        )
    if mask is not None:
        grids = [Grid.of(path) for path in (image, mask)]
        if not grids[1].same_as(grids[0]):
            raise DataError(
                f"{mask.name}: the mask lies on another grid than the template "
                f"({grids[1].difference(grids[0])})."
            )
        voxels.read_mask(mask)
    return Template(label_of(image), image.absolute(), mask and mask.absolute())


def label_of(image: str | os.PathLike) -> str:
    """Label of the space of a file: what ``tpl-`` or ``space-`` says, or its name.

    >>> label_of("tpl-MNI152NLin6Asym_res-01_T1w.nii.gz"), label_of("group/my_head.nii")
    ('MNI152NLin6Asym', 'myhead')
    """
    name = parse_name(image)
    label = name.entities.get("tpl", name.entities.get("space"))
    if label is None:
        label = Path(image).name.partition(".")[0]
    return "".join(c for c in label if c.isascii() and c.isalnum()) or "template"


def _mask_beside(image: Path) -> Path | None:
    """Brain mask beside a template: the same name with another description and suffix."""
    wanted = parse_name(image).entities | {"desc": "brain"}
    for path in sorted(image.parent.glob("*_mask.nii*")):
        entities = parse_name(path).entities
        if entities == wanted:
            return path
    return None


def _from_templateflow(name: str, resolution: int) -> Template:
    folder = templateflow_home() / f"tpl-{name}"
    for kind in ("desc-brain_T1w", "T1w"):
        image = _cached(folder, name, resolution, kind)
        mask = _cached(folder, name, resolution, "desc-brain_mask")
        # With the skull only where there is a mask to go with it.
        if image is not None and (mask is not None or kind != "T1w"):
            return Template(name, image, mask)
    return _fetched(name, resolution)


def templateflow_home() -> Path:
    """Folder where TemplateFlow keeps what it fetched."""
    given = os.environ.get("TEMPLATEFLOW_HOME")
    return Path(given) if given else Path.home() / ".cache" / "templateflow"


def _cached(folder: Path, name: str, resolution: int, kind: str) -> Path | None:
    for digits in (f"{resolution:02d}", f"{resolution}"):
        for resolved in (f"_res-{digits}", "") if resolution == 1 else (f"_res-{digits}",):
            path = folder / f"tpl-{name}{resolved}_{kind}.nii.gz"
            # TemplateFlow's skeleton has empty files in the place of images.
            if path.is_file() and path.stat().st_size > 0:
                return path
    return None


def _fetched(name: str, resolution: int) -> Template:
    """Ask TemplateFlow, which may need the network."""
    absent = (
        f"the template {name} (res-{resolution}) is not in {templateflow_home()} and cannot be "
        "fetched ({}): fetch it where there is a network (templateflow get), set "
        "TEMPLATEFLOW_HOME to a folder that has it, or give a NIfTI file to --template."
    )
    os.environ.setdefault("TEMPLATEFLOW_HOME", str(templateflow_home()))
    try:
        # Importing it writes into its folder, and fails where it cannot.
        from templateflow import api
    except ImportError as error:
        raise DataError(
            absent.format("templateflow is not installed"), ExitCode.MISSING_INPUT
        ) from error
    except OSError as error:
        raise DataError(absent.format(error), ExitCode.MISSING_INPUT) from error
    wanted = {"resolution": resolution, "raise_empty": True, "extension": ".nii.gz"}
    try:
        if name not in api.templates():
            known = ", ".join(t for t in api.templates() if t[:4] == name[:4]) or "see its site"
            raise DataError(
                f"--template {name}: TemplateFlow has no template of this name ({known}).",
                ExitCode.USAGE,
            )
        image = api.get(name, desc=None, suffix="T1w", **wanted)
        mask = api.get(name, desc="brain", suffix="mask", **wanted)
    except DataError:
        raise
    except Exception as error:
        # requests, urllib3 and TemplateFlow have errors of many kinds; all of them mean the same.
        words = printable(str(error)).strip()[:200]
        cause = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise DataError(absent.format(cause), ExitCode.MISSING_INPUT) from error
    paths = [p[0] if isinstance(p, list) else p for p in (image, mask)]
    if not all(Path(p).is_file() and Path(p).stat().st_size for p in paths):
        raise DataError(absent.format("no network"), ExitCode.MISSING_INPUT)
    return Template(name, Path(paths[0]), Path(paths[1]))
