"""Nodes of the echoes: loading them with their checks, the field fit, and the brain mask."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from .. import images, voxels
from ..engines import fsl_version
from ..plausible import echo_doubts, mask_doubts, silence_doubts
from ..reconstruction import methods
from ..reconstruction.checks import by_chance, echo_spacing, evenly_spaced
from ..reconstruction.echoes import fit_echoes
from ..reconstruction.mask import brain_mask, erode, phase_quality_mask
from ..reconstruction.parameters import method_parameters
from ..reconstruction.phase import correct_bipolar, remove_alternation, remove_phase_offset
from ..reconstruction.romeo import phase_quality
from .base import InputSpec, Interface


class _CombineInput(InputSpec):
    magnitude = InputMultiObject(
        File(exists=True), mandatory=True, desc="images of an echo or of several"
    )


class _CombineOutput(TraitedSpec):
    magnitude = File(desc="(x, y, z, echo)")
    combined = File(desc="root of the sum of squares of the magnitude over echoes")


class CombineMagnitudes(Interface):
    """Read magnitudes without their phases, and check every voxel."""

    input_spec = _CombineInput
    output_spec = _CombineOutput

    def _compute(self, folder: Path) -> None:
        like = nib.load(self.inputs.magnitude[0])
        self._save_magnitude(voxels.read_magnitude(self.inputs.magnitude), folder, like)

    def _save_magnitude(self, magnitude: np.ndarray, folder: Path, like) -> None:
        self._save("magnitude", magnitude, folder, like)
        self._save("combined", voxels.combine_echoes(magnitude), folder, like)


class _LoadEchoesInput(_CombineInput):
    phase = InputMultiObject(File(exists=True), mandatory=True, desc="the same of the phase")
    phase_low = traits.Float(desc="stored value that means -pi; undefined for radians")
    phase_high = traits.Float(desc="stored value that means pi; undefined for radians")
    phase_declared = traits.Bool(False, usedefault=True, desc="the user vouches for radians")
    phase_sign = traits.Enum(1, -1, usedefault=True, desc="factor for the phase")
    cartesian = traits.Bool(
        False, usedefault=True, desc="magnitude and phase are the real and the imaginary part"
    )


class _LoadEchoesOutput(_CombineOutput):
    phase = File(desc="(x, y, z, echo), rad")
    info = File(desc="what was done")


class LoadEchoes(CombineMagnitudes):
    """Read the echoes, check every voxel, and bring them to magnitude and radians."""

    input_spec = _LoadEchoesInput
    output_spec = _LoadEchoesOutput

    def _compute(self, folder: Path) -> None:
        like = nib.load(self.inputs.magnitude[0])
        if self.inputs.cartesian:
            magnitude, phase = voxels.read_cartesian(self.inputs.magnitude, self.inputs.phase)
        else:
            magnitude = voxels.read_magnitude(self.inputs.magnitude)
            low, high = self._optional("phase_low"), self._optional("phase_high")
            phase = voxels.read_phase(self.inputs.phase, low, high, self.inputs.phase_declared)
        self._save_magnitude(magnitude, folder, like)
        phase *= self.inputs.phase_sign
        phase, axes = remove_alternation(magnitude, phase)
        self._save("phase", phase, folder, like)
        info: dict = {"alternating_axes": list(axes)}
        if axes:
            across = " and ".join("ijk"[axis] for axis in axes)
            info["warning"] = (
                f"the phase turned by pi from each plane to the next along {across}, as where a "
                "Fourier transform was not centred; this was taken out."
            )
        self._save_json("info", info, folder)


class _BrainMaskInput(InputSpec):
    magnitude = File(exists=True, mandatory=True, desc="(x, y, z, echo)")
    mask_file = File(exists=True, desc="mask to use instead of making one")
    extracted = File(exists=True, desc="mask that the program of the method bet has made")
    parameters = traits.Dict(usedefault=True, desc="what that program was told")
    method = traits.Enum(*methods.MASK, usedefault=True, desc="how the mask is made")
    erosion = traits.Float(0.0, usedefault=True, desc="erosion, mm")


class _MaskOutput(TraitedSpec):
    mask = File(desc="brain mask")
    info = File(desc="what was done")


class BrainMask(Interface):
    """Brain mask of the magnitude, or the one that is given; eroded if asked."""

    input_spec = _BrainMaskInput
    output_spec = _MaskOutput

    def _compute(self, folder: Path) -> None:
        magnitude, like = images.load(self.inputs.magnitude)
        size = images.voxel_size(like.affine)
        told: dict = {}
        method = self.inputs.method
        if isdefined(self.inputs.mask_file):
            mask, method = voxels.read_mask(self.inputs.mask_file), "derivative"
            like = nib.load(self.inputs.mask_file)
        elif method == "bet":
            if not isdefined(self.inputs.extracted):
                raise ValueError("the brain mask of the method bet has to be made by bet before")
            mask = voxels.read_mask(self.inputs.extracted)
            told = {**self.inputs.parameters, "FSL": fsl_version()}
        else:
            # Of somebody lying head first, the vertex is in the direction of B0.
            up = images.b0_direction(like.affine)
            mask = brain_mask(magnitude, size, method=method, up=up)
        doubts = mask_doubts(mask, magnitude, size)
        mask = erode(mask, self.inputs.erosion, size)
        self._save("mask", mask, folder, like)
        info = {
            "method": method,
            **told,
            "erosion_mm": self.inputs.erosion,
            "n_voxels": np.count_nonzero(mask),
        }
        if doubts:
            info["warning"] = "; ".join(doubts) + "."
        self._save_json("info", info, folder)


class _QualityMaskInput(InputSpec):
    mask = File(exists=True, mandatory=True, desc="brain mask")
    field = File(exists=True, mandatory=True, desc="wrapped field, rad")
    noise = File(exists=True, mandatory=True, desc="standard deviation of the field, rad")
    residual = File(exists=True, mandatory=True, desc="misfit of the echoes, 0 to 1")
    parameters = traits.Dict(usedefault=True, desc="criteria")


class QualityMask(Interface):
    """Mask whose phase can be trusted; see
    :func:`qsmref.reconstruction.mask.phase_quality_mask`.
    """

    input_spec = _QualityMaskInput
    output_spec = _MaskOutput

    def _compute(self, folder: Path) -> None:
        mask, (field, like) = voxels.read_mask(self.inputs.mask), images.load(self.inputs.field)
        noise, residual = (
            images.load(getattr(self.inputs, name))[0] for name in ("noise", "residual")
        )
        criteria = {**method_parameters("mask", "quality"), **self.inputs.parameters}
        # The smoothness of the phase alone: signal enters by the noise.
        quality = phase_quality(field, mask)
        kept = phase_quality_mask(mask, quality=quality, noise=noise, residual=residual, **criteria)
        self._save("mask", kept, folder, like)
        info = {**criteria, "kept_fraction": np.count_nonzero(kept) / np.count_nonzero(mask)}
        self._save_json("info", info, folder)


class _CorrectPhaseInput(InputSpec):
    magnitude = File(exists=True, mandatory=True, desc="(x, y, z, echo)")
    phase = File(exists=True, mandatory=True, desc="(x, y, z, echo), rad")
    mask = File(exists=True, mandatory=True, desc="where there is signal")
    echo_times = traits.List(traits.Float, mandatory=True, desc="s")
    bipolar = traits.Bool(False, usedefault=True, desc="echoes were read in turn from both sides")
    offset = traits.Enum(*methods.PHASE_OFFSET, usedefault=True, desc="what removes the offset")


class _CorrectPhaseOutput(TraitedSpec):
    phase = File(desc="(x, y, z, echo), rad")
    info = File(desc="what was done")


class CorrectPhase(Interface):
    """Phase without what the receiver and the readout add to it."""

    input_spec = _CorrectPhaseInput
    output_spec = _CorrectPhaseOutput

    def _compute(self, folder: Path) -> None:
        magnitude, like = images.load(self.inputs.magnitude)
        phase, _ = images.load(self.inputs.phase)
        times, mask = list(self.inputs.echo_times), voxels.read_mask(self.inputs.mask)
        size = images.voxel_size(like.affine)
        info = {"offset": self.inputs.offset, "bipolar": self.inputs.bipolar}
        if self.inputs.bipolar:
            result = correct_bipolar(magnitude, phase, times, size, mask)
            phase = result.phase
            info |= {"bipolar_slope": result.slope, "bipolar_constant": result.constant}
        if self.inputs.offset != "none":
            phase, _ = remove_phase_offset(magnitude, phase, times, size, mask)
        self._save("phase", phase, folder, like)
        self._save_json("info", info, folder)


class _EchoFitInput(InputSpec):
    magnitude = File(exists=True, mandatory=True, desc="(x, y, z, echo)")
    phase = File(exists=True, mandatory=True, desc="(x, y, z, echo), rad")
    mask = File(exists=True, desc="voxels to fit")
    echo_times = traits.List(traits.Float, mandatory=True, desc="s")
    method = traits.Enum(*methods.ECHO_FIT, usedefault=True, desc="kind of fit")


class _EchoFitOutput(TraitedSpec):
    field = File(desc="rad per echo spacing, wrapped")
    noise = File(desc="standard deviation of the field, rad per echo spacing")
    residual = File(desc="part of the signal's energy that the model leaves over")
    info = File(desc="what was done")


class EchoFit(Interface):
    """Field, noise and misfit of the echoes; see :func:`qsmref.reconstruction.fit_echoes`."""

    input_spec = _EchoFitInput
    output_spec = _EchoFitOutput

    def _compute(self, folder: Path) -> None:
        magnitude, like = images.load(self.inputs.magnitude)
        phase, _ = images.load(self.inputs.phase)
        mask = self._optional("mask")
        mask = None if mask is None else voxels.read_mask(mask)
        times = list(self.inputs.echo_times)
        size = images.voxel_size(like.affine)
        fit = fit_echoes(magnitude, phase, times, mask, method=self.inputs.method, voxel_size=size)
        for name in ("field", "noise", "residual"):
            self._save(name, getattr(fit, name), folder, like)
        info = {
            "method": self.inputs.method,
            "echo_times": times,
            "echo_spacing": round(echo_spacing(times), 9),
            "evenly_spaced": evenly_spaced(times),
        }
        if fit.anchored_fraction is not None:
            info["anchored_fraction"] = fit.anchored_fraction
        inside = fit.noise > 0 if mask is None else mask
        info["voxels_without_signal"] = np.count_nonzero(inside & by_chance(fit.noise))
        doubts = echo_doubts(magnitude, phase, times, fit.residual, mask)
        doubts += silence_doubts(info["voxels_without_signal"], np.count_nonzero(inside))
        if doubts:
            info["warning"] = "; ".join(doubts) + "."
        self._save_json("info", info, folder)
