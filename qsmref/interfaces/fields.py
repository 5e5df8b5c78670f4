"""Nodes of the field: unwrapping, change of unit, background removal, inversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from .. import images, voxels
from ..plausible import field_doubts
from ..reconstruction import methods
from ..reconstruction.background import remove_background
from ..reconstruction.confidence import confidence_mask
from ..reconstruction.inversion import invert
from ..reconstruction.phase_sign import phase_sign
from ..reconstruction.unwrapping import unwrap
from .base import InputSpec, Interface

#: Correlation with the field of the air below which the sign of the phase is doubted.
SUSPICIOUS = -0.3


class _UnwrapInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="wrapped field, rad")
    magnitude = File(exists=True, desc="weighs the edges of romeo")
    mask = File(exists=True, mandatory=True, desc="voxels to unwrap")
    method = traits.Enum(*methods.UNWRAP, usedefault=True, desc="kind of unwrapping")


class _UnwrapOutput(TraitedSpec):
    field = File(desc="field, rad")
    info = File(desc="what was done")


class Unwrap(Interface):
    """Field without the jumps; see :func:`qsmref.reconstruction.unwrap`."""

    input_spec = _UnwrapInput
    output_spec = _UnwrapOutput

    def _compute(self, folder: Path) -> None:
        wrapped, like = images.load(self.inputs.field)
        magnitude = self._optional("magnitude")
        field = unwrap(
            wrapped,
            images.voxel_size(like.affine),
            method=self.inputs.method,
            magnitude=None if magnitude is None else images.load(magnitude)[0],
            mask=voxels.read_mask(self.inputs.mask),
        )
        self._save("field", field, folder, like)
        self._save_json("info", {"method": self.inputs.method}, folder)


class _CheckSignInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="total field, ppm")
    mask = File(exists=True, mandatory=True, desc="brain")
    magnitude = File(exists=True, mandatory=True, desc="(x, y, z)")


class _CheckSignOutput(TraitedSpec):
    info = File(desc="correlation with the field of the air, and a warning where it is negative")


class CheckSign(Interface):
    """Whether the field has the sign of that which the air makes."""

    input_spec = _CheckSignInput
    output_spec = _CheckSignOutput

    def _compute(self, folder: Path) -> None:
        field, like = images.load(self.inputs.field)
        magnitude, _ = images.load(self.inputs.magnitude)
        mask, size = voxels.read_mask(self.inputs.mask), images.voxel_size(like.affine)
        b0_dir = images.b0_direction(like.affine)
        correlation = phase_sign(field, mask, magnitude, size, b0_dir)
        info: dict = {"air_correlation": round(correlation, 4)}
        doubts = field_doubts(field, mask)
        if correlation < SUSPICIOUS:
            doubts.append(
                "the field runs against that of the air in and around the head (correlation "
                f"{correlation:.2f}): the phase may have the other sign, see --phase-sign"
            )
        if doubts:
            info["warning"] = "; ".join(doubts) + "."
        self._save_json("info", info, folder)


class _ConvertFieldInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="field")
    factor = traits.Float(mandatory=True, desc="new unit per old unit")


class _ConvertFieldOutput(TraitedSpec):
    field = File(desc="field in the new unit")


class ConvertField(Interface):
    """A field in another unit; the factors are in :mod:`qsmref.units`."""

    input_spec = _ConvertFieldInput
    output_spec = _ConvertFieldOutput

    def _compute(self, folder: Path) -> None:
        field, like = images.load(self.inputs.field)
        self._save("field", field * np.float32(self.inputs.factor), folder, like)


class _RemoveBackgroundInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="total field, ppm")
    mask = File(exists=True, mandatory=True, desc="where the field is known")
    noise = File(exists=True, desc="standard deviation of the field, ppm")
    method = traits.Enum(*methods.BACKGROUND, usedefault=True, desc="kind of background removal")
    parameters = traits.Dict(usedefault=True, desc="parameters of the method")


class _RemoveBackgroundOutput(TraitedSpec):
    field = File(desc="local field, ppm")
    mask = File(desc="where the local field is valid")
    info = File(desc="what was done")


class RemoveBackground(Interface):
    """Local field; see :func:`qsmref.reconstruction.remove_background`."""

    input_spec = _RemoveBackgroundInput
    output_spec = _RemoveBackgroundOutput

    def _compute(self, folder: Path) -> None:
        field, like = images.load(self.inputs.field)
        noise = self._optional("noise")
        local, mask, info = remove_background(
            field,
            voxels.read_mask(self.inputs.mask),
            images.voxel_size(like.affine),
            method=self.inputs.method,
            b0_dir=images.b0_direction(like.affine),
            noise=None if noise is None else images.load(noise)[0],
            **self.inputs.parameters,
        )
        self._save("field", local, folder, like)
        self._save("mask", mask, folder, like)
        self._save_json("info", info, folder)


class _InvertInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="field, ppm")
    mask = File(exists=True, mandatory=True, desc="where the field is valid")
    magnitude = File(exists=True, desc="(x, y, z), for the edges")
    noise = File(exists=True, desc="standard deviation of the field, ppm")
    csf = File(exists=True, desc="cerebrospinal fluid, for methods that make it zero")
    radians_per_ppm = traits.Float(mandatory=True, desc="phase of 1 ppm in one echo spacing")
    method = traits.Enum(*methods.INVERSION, usedefault=True, desc="kind of inversion")
    parameters = traits.Dict(usedefault=True, desc="parameters of the method")


class _InvertOutput(TraitedSpec):
    chimap = File(desc="susceptibility, ppm; its zero is arbitrary")
    mask = File(desc="where the map is valid")
    confidence = File(desc="voxels of it that have data of their own")
    info = File(desc="what was done")


class Invert(Interface):
    """Susceptibility map; see :func:`qsmref.reconstruction.invert`."""

    input_spec = _InvertInput
    output_spec = _InvertOutput

    def _compute(self, folder: Path) -> None:
        field, like = images.load(self.inputs.field)
        magnitude, noise = self._optional("magnitude"), self._optional("noise")
        csf = self._optional("csf")
        size = images.voxel_size(like.affine)
        noise = None if noise is None else images.load(noise)[0]
        chi, mask, info = invert(
            field,
            voxels.read_mask(self.inputs.mask),
            size,
            method=self.inputs.method,
            b0_dir=images.b0_direction(like.affine),
            magnitude=None if magnitude is None else images.load(magnitude)[0],
            noise=noise,
            radians_per_ppm=self.inputs.radians_per_ppm,
            csf=None if csf is None else voxels.read_mask(csf),
            **self.inputs.parameters,
        )
        self._save("chimap", chi, folder, like)
        self._save("mask", mask, folder, like)
        radii = info.get("radii_used", ())
        harmonic = info.get("background_model") == "harmonic"
        scale = self.inputs.radians_per_ppm
        confident = confidence_mask(
            mask, size, noise, radii, harmonic=harmonic, radians_per_ppm=scale
        )
        self._save("confidence", confident, folder, like)
        self._save_json("info", info, folder)
