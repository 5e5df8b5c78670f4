"""Nodes that write results under their final names: with a sidecar, complete or absent."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import Directory, File, InputMultiObject, TraitedSpec, traits

from .. import files, images
from ..problems import DataError, ExitCode
from .base import InputSpec, Interface, plain

#: Extensions of files that are copied as they are.
_TRANSFORMS = (".h5", ".txt", ".mat")


class _SaveInput(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="image (.nii), table (.tsv) or transform")
    # The folder is no part of the hash: moving the results is no reason to compute them again.
    out_dir = Directory(mandatory=True, nohash=True, desc="folder of results")
    out_name = traits.Str(mandatory=True, desc="name from there, as BIDS wants it")
    metadata = traits.Dict(usedefault=True, desc="what the sidecar says")
    info_files = InputMultiObject(File(exists=True), desc="JSON files for the sidecar")
    info_names = traits.List(traits.Str, desc="their keys in the sidecar; dots go into objects")


class _SaveOutput(TraitedSpec):
    out_file = File(desc="the result")


class SaveDerivative(Interface):
    """Write a result and its sidecar, unless both are there already.

    It looks each time, so that results which were deleted come back from the work folder.
    """

    input_spec = _SaveInput
    output_spec = _SaveOutput
    _always_run = True

    def _compute(self, folder: Path) -> None:
        target = Path(self.inputs.out_dir) / self.inputs.out_name
        _check_inside(target, Path(self.inputs.out_dir))
        source = Path(self.inputs.in_file)
        if source.suffix == ".tsv":
            _write_if_new(target, source.read_text(encoding="utf-8"))
        elif source.suffix in _TRANSFORMS:
            _copy_if_new(source, target)
        elif not _same_image(source, target):
            image = nib.load(source)
            images.save(np.asarray(image.dataobj), target, image)
        sidecar = self._sidecar()
        if sidecar:
            name = target.name.partition(".")[0] + ".json"
            text = json.dumps(sidecar, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            _write_if_new(target.with_name(name), text)
        self._results["out_file"] = str(target)

    def _sidecar(self) -> dict:
        sidecar = plain(dict(self.inputs.metadata))
        names, infos = self._optional("info_names") or [], self._optional("info_files") or []
        for name, info in zip(names, infos, strict=True):
            content = json.loads(Path(info).read_text(encoding="utf-8"))
            *path, last = name.split(".")
            place = sidecar
            for key in filter(None, path):
                place = place.setdefault(key, {})
            if last:
                place[last] = content
            else:
                place.update(content)
        return sidecar


def _check_inside(target: Path, folder: Path) -> None:
    """Refuse a target whose folder, by a link, is not below the folder of results."""
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{target.parent} is a link that leads out of OUTPUT_DIR; put the folder itself there.",
            ExitCode.CANNOT_CREATE,
        )


def _write_if_new(path: Path, text: str) -> None:
    # As bytes: what a damaged file holds need not be text.
    if not (path.is_file() and path.read_bytes() == text.encode()):
        files.write_text(path, text)


def _copy_if_new(source: Path, target: Path) -> None:
    if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        with files.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _same_image(source: Path, target: Path) -> bool:
    """Whether `target` holds the voxels and affine of `source`; a damaged one does not."""
    if not target.is_file():
        return False
    new = nib.load(source)
    try:
        old = nib.load(target)
        return (
            old.shape == new.shape
            and np.array_equal(old.affine, new.affine)
            and np.array_equal(np.asarray(old.dataobj), np.asarray(new.dataobj))
        )
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError):
        return False
