"""Nodes of the references: tissue masks, maps with another zero, what the noise does to both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import images, tables, voxels
from ..analysis.propagation import noise_maps
from ..analysis.reference import add_references, reference_of
from ..analysis.region_methods import CSF_SOURCES
from ..analysis.regions import table_of
from ..analysis.tissues import LEAST_ECHOES, tissue_masks
from ..problems import DataError
from ..reconstruction import methods
from .base import InputSpec, Interface, with_chosen_lambda


class _TissueMasksInput(InputSpec):
    mask = File(exists=True, mandatory=True, desc="brain, on the grid of the map")
    labels = InputMultiObject(File(exists=True), desc="label images on that grid")
    names = InputMultiObject(File(exists=True), desc="their tables")
    atlases = traits.List(traits.Str, desc="what they are called")
    magnitude = InputMultiObject(File(exists=True), desc="echoes, in files of one or several")
    echo_times = traits.List(traits.Float, desc="s")
    csf = traits.Enum(*CSF_SOURCES, usedefault=True, desc="where csf comes from")
    erosion = traits.Float(2.0, usedefault=True, desc="mm, of what comes from labels")
    required = traits.Bool(False, usedefault=True, desc="whether csf must be found")


class _TissueMasksOutput(TraitedSpec):
    csf = File(desc="mask, where fluid was found")
    wm = File(desc="mask, where white matter was found")
    info = File(desc="where they come from")


class TissueMasks(Interface):
    """Masks of the reference tissues; see :func:`qsmref.analysis.tissues.tissue_masks`."""

    input_spec = _TissueMasksInput
    output_spec = _TissueMasksOutput

    def _compute(self, folder: Path) -> None:
        mask = voxels.read_mask(self.inputs.mask)
        _, like = images.load(self.inputs.mask, np.uint8)
        given = [self._optional(name) or [] for name in ("atlases", "labels", "names")]
        labelled = [
            (name, images.load(labels, np.int32)[0], tables.read_label_table(table))
            for name, labels, table in zip(*given, strict=True)
        ]
        files = self._optional("magnitude") or []
        times = self._optional("echo_times") or []
        if self.inputs.csf not in ("auto", "r2star") or len(times) < LEAST_ECHOES:
            files = []
        masks, info = tissue_masks(
            labelled,
            images.voxel_size(like.affine),
            mask=mask,
            magnitude=voxels.read_echoes(files) if files else None,
            echo_times=times,
            csf=self.inputs.csf,
            erosion=self.inputs.erosion,
        )
        if self.inputs.required and "csf" not in masks:
            why = info.get("csf", {}).get("why", "there is no label of it")
            raise DataError(f"the inversion was asked for csf, and none was found: {why}.")
        for key, found in masks.items():
            self._save(key, found, folder, like)
        self._save_json("info", info, folder)


class _ReferencedMapInput(InputSpec):
    chimap = File(exists=True, mandatory=True, desc="susceptibility map, ppm")
    mask = File(exists=True, desc="where it is valid")
    tables = InputMultiObject(File(exists=True), desc="region tables of the map")
    atlases = traits.List(traits.Str, desc="their atlases")
    reference = traits.Str(mandatory=True, desc="NAME, or ATLAS:NAME")


class _ReferencedMapOutput(TraitedSpec):
    chimap = File(desc="the map with the mean of the reference as zero, ppm")
    info = File(desc="what was subtracted")


class ReferencedMap(Interface):
    """A map whose zero is the mean of a reference."""

    input_spec = _ReferencedMapInput
    output_spec = _ReferencedMapOutput

    def _compute(self, folder: Path) -> None:
        chi, like = images.load(self.inputs.chimap)
        size, mask = images.voxel_size(like.affine), self._optional("mask")
        inside = np.ones(chi.shape, bool) if mask is None else voxels.read_mask(mask)
        files = self._optional("tables") or []
        read = [tables.read_tsv(path) for path in files]
        atlases = self._optional("atlases") or []
        found = dict(zip(atlases, read, strict=True))
        if not found and mask is not None:
            found = {"none": add_references(table_of([]), chi, inside, size)}
        atlas, row = reference_of(found, self.inputs.reference)
        zero = float(row["mean"]) / 1000
        # What lies outside the mask is zero in a map without skull, and stays so.
        stripped = voxels.skull_stripped(chi, None if mask is None else inside)
        where = inside if stripped else np.ones_like(inside)
        referenced = np.where(where, chi.astype(np.float64) - zero, 0).astype(np.float32)
        self._save("chimap", referenced, folder, like)
        info = {
            "Reference": {
                "name": row["name"],
                **({"atlas": atlas} if atlas else {}),
                "subtracted_ppm": zero,
                "sd_ppm": float(row["sd"]) / 1000,
                "n_voxels": int(row["n_voxels"]),
                "coverage": float(row["coverage"]),
            },
            "SkullStripped": stripped,
            "SusceptibilityReference": f"mean of {self.inputs.reference}, set to zero",
        }
        self._save_json("info", info, folder)


class _NoiseMapsInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="unwrapped total field, rad")
    noise = File(exists=True, mandatory=True, desc="its standard deviation, rad")
    mask = File(exists=True, mandatory=True, desc="where the field is known")
    magnitude = File(exists=True, desc="(x, y, z)")
    csf = File(exists=True, desc="cerebrospinal fluid that the inversion was given")
    repeats = traits.Range(low=2, value=20, usedefault=True, desc="number of maps")
    radians_per_ppm = traits.Float(mandatory=True, desc="phase of 1 ppm in one echo spacing")
    background = traits.Enum(*methods.BACKGROUND, usedefault=True, desc="background removal")
    background_params = traits.Dict(usedefault=True, desc="its parameters")
    inversion = traits.Enum(*methods.INVERSION, usedefault=True, desc="inversion")
    inversion_params = traits.Dict(usedefault=True, desc="its parameters")
    inversion_info = File(exists=True, desc="what the inversion of the map did")


class _NoiseMapsOutput(TraitedSpec):
    maps = File(desc="coarse maps with other noise (.npz)")
    info = File(desc="what was done")


class DrawNoise(Interface):
    """Coarse maps that differ by noise; see :func:`qsmref.analysis.propagation.noise_maps`.

    None where a method does not work on the coarse grid: an estimate of an error is no reason for
    a participant to fail.
    """

    input_spec = _NoiseMapsInput
    output_spec = _NoiseMapsOutput

    def _compute(self, folder: Path) -> None:
        scale = np.float32(1 / self.inputs.radians_per_ppm)
        field, like = images.load(self.inputs.field)
        noise, _ = images.load(self.inputs.noise)
        magnitude, csf = self._optional("magnitude"), self._optional("csf")
        try:
            drawn = noise_maps(
                field * scale,
                noise * scale,
                voxels.read_mask(self.inputs.mask),
                images.voxel_size(like.affine),
                repeats=self.inputs.repeats,
                magnitude=None if magnitude is None else images.load(magnitude)[0],
                b0_dir=images.b0_direction(like.affine),
                radians_per_ppm=self.inputs.radians_per_ppm,
                background=self.inputs.background,
                background_params=self.inputs.background_params,
                inversion=self.inputs.inversion,
                inversion_params=with_chosen_lambda(
                    self.inputs.inversion_params, self._optional("inversion_info")
                ),
                csf=None if csf is None else voxels.read_mask(csf),
            )
        except ValueError as error:
            # The map is made all the same; its tables say n/a, and their sidecars say why.
            self._save_json("info", {"repeats": 0, "why": str(error)}, folder)
            return
        path = folder / "noise_maps.npz"
        np.savez_compressed(path, **drawn._asdict())
        self._results["maps"] = str(path)
        size = [h * f for h, f in zip(images.voxel_size(like.affine), drawn.factors, strict=True)]
        info = {"repeats": self.inputs.repeats, "voxel_size_mm": [round(h, 4) for h in size]}
        self._save_json("info", info, folder)
