"""Nodes of registration: bias field, rigid, to a template, and resampling."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import files, itk, registration, resampling, transforms, voxels
from .base import InputSpec, Interface


def _seed(step: Interface) -> int:
    """Seed of the metric's sampling; ANTs takes zero for none."""
    return int(step._optional("random_seed") or 0) + 1


class _CorrectBiasInput(InputSpec):
    in_file = File(exists=True, mandatory=True, desc="magnitude or T1-weighted image")
    mask = File(exists=True, desc="where the field is estimated")


class _CorrectBiasOutput(TraitedSpec):
    out_file = File(desc="the same without its bias field")


class CorrectBias(Interface):
    """N4; see :func:`qsmref.registration.correct_bias`."""

    input_spec = _CorrectBiasInput
    output_spec = _CorrectBiasOutput

    def _compute(self, folder: Path) -> None:
        voxels.read_echo(self.inputs.in_file)
        image, mask = itk.read_image(self.inputs.in_file), self._optional("mask")
        mask = None if mask is None else itk.read_image(mask)
        corrected = registration.correct_bias(image, mask).numpy()
        self._save("out_file", corrected, folder, nib.load(self.inputs.in_file))


class _RigidInput(InputSpec):
    fixed = File(exists=True, mandatory=True, desc="image whose grid is aimed at")
    moving = File(exists=True, mandatory=True, desc="image that is brought there")
    moving_mask = File(exists=True, desc="brain in the moving image")


class _RigidOutput(TraitedSpec):
    transform = File(desc="ITK transform, from the fixed to the moving space")
    info = File(desc="what was reached")


class RegisterRigid(Interface):
    """Rigid registration; see :func:`qsmref.registration.register_rigid`."""

    input_spec = _RigidInput
    output_spec = _RigidOutput

    def _compute(self, folder: Path) -> None:
        mask = self._optional("moving_mask")
        info = registration.register_rigid(
            itk.read_image(self.inputs.fixed),
            itk.read_image(self.inputs.moving),
            folder / "rigid.txt",
            moving_mask=None if mask is None else itk.read_image(mask),
            seed=_seed(self),
        )
        self._results["transform"] = str(folder / "rigid.txt")
        self._save_json("info", info, folder)


class _TemplateInput(InputSpec):
    template = File(exists=True, mandatory=True, desc="the fixed image")
    template_mask = File(exists=True, desc="its brain; by default where it is not zero")
    image = File(exists=True, mandatory=True, desc="the moving image")
    mask = File(exists=True, mandatory=True, desc="its brain")
    domain = File(exists=True, desc="where image and mask are known")


class _TemplateOutput(TraitedSpec):
    forward = File(desc="composite transform that brings images to the template")
    inverse = File(desc="composite transform that brings the template to the image")
    info = File(desc="what was reached")


class RegisterToTemplate(Interface):
    """Affine and SyN; see :func:`qsmref.registration.register_to_template`."""

    input_spec = _TemplateInput
    output_spec = _TemplateOutput

    def _compute(self, folder: Path) -> None:
        template, domain = itk.read_image(self.inputs.template), self._optional("domain")
        mask = self._optional("template_mask")
        if mask is None:
            inside = registration.brain_of_stripped(template)
        else:
            voxels.read_mask(mask)
            inside = itk.read_image(mask)
        paths = {name: folder / f"{name}.h5" for name in ("forward", "inverse")}
        info = registration.register_to_template(
            template,
            inside,
            itk.read_image(self.inputs.image),
            itk.read_image(self.inputs.mask),
            paths["forward"],
            paths["inverse"],
            domain=None if domain is None else itk.read_image(domain),
            seed=_seed(self),
        )
        self._results |= {name: str(path) for name, path in paths.items()}
        self._save_json("info", info, folder)


class _ResampleInput(InputSpec):
    moving = File(exists=True, mandatory=True, desc="image whose voxels are wanted")
    reference = File(exists=True, mandatory=True, desc="image whose grid is wanted")
    transforms = InputMultiObject(File(exists=True), desc="ITK transforms in the order of ANTs")
    invert = traits.List(traits.Bool, desc="which of them to invert")
    interpolation = traits.Enum(*resampling.INTERPOLATIONS, usedefault=True, desc="of what")


class _ResampleOutput(TraitedSpec):
    out_file = File(desc="image on the grid of the reference")


class Resample(Interface):
    """One interpolation through all transforms; see :func:`qsmref.resampling.resample`."""

    input_spec = _ResampleInput
    output_spec = _ResampleOutput

    def _compute(self, folder: Path) -> None:
        out_file = folder / "resampled.nii"
        resampling.resample(
            self.inputs.moving,
            self.inputs.reference,
            self._optional("transforms") or [],
            self._optional("invert") or None,
            self.inputs.interpolation,
            out_file,
        )
        self._results["out_file"] = str(out_file)


class _FieldOfViewInput(InputSpec):
    moving = File(exists=True, mandatory=True, desc="image whose field of view is wanted")
    reference = File(exists=True, mandatory=True, desc="image whose grid is wanted")
    transforms = InputMultiObject(File(exists=True), desc="ITK transforms in the order of ANTs")


class FieldOfView(Interface):
    """Voxels of the reference that lie in the moving image."""

    input_spec = _FieldOfViewInput
    output_spec = _ResampleOutput

    def _compute(self, folder: Path) -> None:
        like = nib.load(self.inputs.moving)
        self._save("out_file", np.ones(like.shape[:3], dtype=np.uint8), folder, like)
        everywhere = self._results["out_file"]
        inside = resampling.resample(
            everywhere, self.inputs.reference, self._optional("transforms") or [], None, "label"
        )
        self._save("out_file", inside > 0, folder, nib.load(self.inputs.reference))


class _FlirtInput(InputSpec):
    matrix = File(exists=True, mandatory=True, desc="what flirt -omat wrote")
    moving = File(exists=True, mandatory=True, desc="what flirt got as -in")
    reference = File(exists=True, mandatory=True, desc="what flirt got as -ref")


class FlirtToItk(Interface):
    """FLIRT matrix as ITK transform; see :func:`qsmref.transforms.flirt_to_itk`."""

    input_spec = _FlirtInput
    output_spec = _RigidOutput

    def _compute(self, folder: Path) -> None:
        given = (self.inputs.matrix, self.inputs.moving, self.inputs.reference)
        path = transforms.flirt_to_itk(*given, folder / "rigid.txt")
        self._results["transform"] = str(path)
        matrix = transforms.read_flirt(self.inputs.matrix)
        self._save_json("info", {"FlirtMatrix": matrix}, folder)


class _TellInput(InputSpec):
    content = traits.Dict(usedefault=True, desc="what is known before the run")
    names = traits.List(traits.Str, desc="keys of the files")
    infos = InputMultiObject(File(exists=True), desc="what the steps said")


class _TellOutput(TraitedSpec):
    info = File(desc="all of it")


class Tell(Interface):
    """What was done, of all steps in one file."""

    input_spec = _TellInput
    output_spec = _TellOutput

    def _compute(self, folder: Path) -> None:
        told = dict(self.inputs.content)
        pairs = zip(self._optional("names") or [], self._optional("infos") or [], strict=True)
        told |= {name: files.read_json(Path(path)) for name, path in pairs}
        self._save_json("info", told, folder)
