"""Nodes of the phantom study: a condition's field, a mask, what maps say, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    Directory,
    File,
    InputMultiObject,
    TraitedSpec,
    traits,
)

from .. import images, tables, voxels
from ..phantom import study_head, study_offset, study_tables
from ..phantom.study import Study, Variant
from .base import InputSpec, Interface


class _FieldInput(InputSpec):
    study = traits.Dict(mandatory=True, desc="parameters of the head and its signal")
    condition = traits.Str(mandatory=True, desc="name of the condition")
    labels = File(exists=True, desc="label image")
    susceptibility = File(exists=True, desc="its table")
    brain = File(exists=True, desc="its brain mask")
    rois = File(exists=True, desc="table of the regions of interest")


class _FieldOutput(TraitedSpec):
    field = File(desc="total field, ppm")
    noise = File(desc="its standard deviation, ppm; undefined where it is exact")
    magnitude = File(desc="combined over echoes")
    mask = File(desc="brain")
    truth = File(desc="susceptibility, ppm")
    local = File(desc="field of the brain, ppm")
    rois = File(desc="0, or 1 + the place of the region in the table")
    info = File(desc="names of the regions; heights (mm) of the slices")


class StudyField(Interface):
    """What a condition measures; see :func:`qsmref.phantom.study_head.measure`."""

    input_spec = _FieldInput
    output_spec = _FieldOutput

    def _compute(self, folder: Path) -> None:
        study = Study.from_dict(self.inputs.study)
        table = study_head.read_rois(self._optional("rois"))
        head = study_head.make_head(
            study, *(self._optional(n) for n in ("labels", "susceptibility", "brain"))
        )
        condition = next(c for c in study.conditions if c.name == self.inputs.condition)
        found = study_head.measure(study, head, table, condition)
        for name in ("total", "noise", "magnitude", "mask", "chi", "local", "rois"):
            array = getattr(found, name)
            if array is not None:
                output = {"total": "field", "chi": "truth"}.get(name, name)
                self._save(output, array, folder, found.affine)
        info = {
            "names": list(table["name"]),
            "voxels": [int(np.sum(found.rois == i + 1)) for i in range(len(table))],
            "heights": found.heights,
            "b0_dir": found.b0_dir,
            "voxel_size": found.voxel_size,
            "box": found.total.shape,
        }
        self._save_json("info", info, folder)


class _MaskInput(InputSpec):
    mask = File(exists=True, mandatory=True, desc="brain")
    info = File(exists=True, mandatory=True, desc="of StudyField")
    slab_mm = traits.Float(mandatory=True, desc="mm")
    erosion_mm = traits.Float(mandatory=True, desc="mm")
    centre = traits.Float(0.0, usedefault=True, desc="mm, middle of the slab")


class _MaskOutput(TraitedSpec):
    mask = File(desc="slab of the brain, eroded")


class StudyMask(Interface):
    """Mask of a variant; see :func:`qsmref.phantom.study_head.variant_mask`."""

    input_spec = _MaskInput
    output_spec = _MaskOutput

    def _compute(self, folder: Path) -> None:
        mask, like = voxels.read_mask(self.inputs.mask), images.load(self.inputs.mask)[1]
        heights = np.array(json.loads(Path(self.inputs.info).read_text())["heights"])
        variant = Variant(self.inputs.slab_mm, self.inputs.erosion_mm)
        kept = study_head.variant_mask(
            mask, heights, images.voxel_size(like.affine), variant, self.inputs.centre
        )
        self._save("mask", kept, folder, like)


class _MeasureInput(InputSpec):
    study = traits.Dict(mandatory=True, desc="parameters of the sweeps")
    chain = traits.Str(mandatory=True, desc="name of the chain")
    condition = traits.Str(mandatory=True, desc="name of the condition")
    maps = InputMultiObject(File(exists=True), mandatory=True, desc="maps of the variants, ppm")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="where they are valid")
    removals = InputMultiObject(File(exists=True), mandatory=True, desc="what was done")
    inversions = InputMultiObject(File(exists=True), mandatory=True, desc="what was done")
    truth = File(exists=True, mandatory=True, desc="ppm")
    rois = File(exists=True, mandatory=True, desc="of StudyField")
    info = File(exists=True, mandatory=True, desc="of StudyField")


class _MeasureOutput(TraitedSpec):
    values = File(desc="means of the regions")
    offsets = File(desc="what the offset looks like")
    distances = File(desc="stability against distance")
    info = File(desc="what was done for each variant")


class StudyMeasure(Interface):
    """Tables of a chain's maps under a condition."""

    input_spec = _MeasureInput
    output_spec = _MeasureOutput

    def _compute(self, folder: Path) -> None:
        study = Study.from_dict(self.inputs.study)
        info = json.loads(Path(self.inputs.info).read_text(encoding="utf-8"))
        truth, like = images.load(self.inputs.truth)
        size = images.voxel_size(like.affine)
        rois = images.load(self.inputs.rois, np.int32)[0]
        maps = {
            variant: (images.load(chi)[0], voxels.read_mask(mask))
            for variant, chi, mask in zip(
                study.variants, self.inputs.maps, self.inputs.masks, strict=True
            )
        }
        found = {
            "values": study_tables.region_values(maps, truth, rois, info["names"], study.sweeps),
            "offsets": study_offset.offset_table(maps, truth, size, study.sweeps),
            "distances": study_offset.stability_by_distance(
                maps, truth, size, study.sweeps, study.seed
            ),
        }
        for name, table in found.items():
            table.insert(0, "chain", self.inputs.chain)
            table.insert(1, "condition", self.inputs.condition)
            self._results[name] = str(tables.write_tsv(folder / f"{name}.tsv", table))
        done = {
            variant.name: {
                "background": json.loads(Path(removal).read_text(encoding="utf-8")),
                "inversion": json.loads(Path(inversion).read_text(encoding="utf-8")),
                "voxels_valid": int(np.count_nonzero(maps[variant][1])),
            }
            for variant, removal, inversion in zip(
                study.variants, self.inputs.removals, self.inputs.inversions, strict=True
            )
        }
        self._save_json("info", done, folder)


class _ReportInput(InputSpec):
    study = traits.Dict(mandatory=True, desc="all parameters")
    head = traits.Str(mandatory=True, desc="which head, in words")
    values = InputMultiObject(File(exists=True), mandatory=True, desc="of StudyMeasure")
    offsets = InputMultiObject(File(exists=True), mandatory=True, desc="of StudyMeasure")
    distances = InputMultiObject(File(exists=True), mandatory=True, desc="of StudyMeasure")
    done = InputMultiObject(File(exists=True), mandatory=True, desc="info of StudyMeasure")
    keys = traits.List(traits.List(traits.Str), mandatory=True, desc="chain and condition of each")
    truths = InputMultiObject(File(exists=True), mandatory=True, desc="one per condition")
    fields = InputMultiObject(File(exists=True), mandatory=True, desc="one per condition")
    locals = InputMultiObject(File(exists=True), mandatory=True, desc="one per condition")
    rois = InputMultiObject(File(exists=True), mandatory=True, desc="one per condition")
    infos = InputMultiObject(File(exists=True), mandatory=True, desc="of StudyField")
    maps = InputMultiObject(
        File(exists=True), mandatory=True, desc="of the first chain: conditions, then variants"
    )
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="where they are valid")
    removed = InputMultiObject(
        File(exists=True), mandatory=True, desc="field given to its inversion, one per condition"
    )


class _ReportOutput(TraitedSpec):
    folder = Directory(desc="everything that the study writes")


class StudyReport(Interface):
    """Table 1, figures with their data, maps, and the parameters of everything."""

    input_spec = _ReportInput
    output_spec = _ReportOutput

    def _compute(self, folder: Path) -> None:
        from ..phantom import study_report

        def read(paths):
            return pd.concat([tables.read_tsv(p) for p in paths], ignore_index=True).astype(
                {"condition": str}
            )

        study = Study.from_dict(self.inputs.study)
        out = folder / "study"
        done = {}
        for (chain, condition), path in zip(self.inputs.keys, self.inputs.done, strict=True):
            place = done.setdefault(chain, {})
            place[f"condition {condition}"] = json.loads(Path(path).read_text(encoding="utf-8"))
        infos = [json.loads(Path(p).read_text(encoding="utf-8")) for p in self.inputs.infos]
        shown = study_report.Shown(
            [images.load(p)[0] for p in self.inputs.truths],
            [images.load(p)[0] for p in self.inputs.fields],
            [images.load(p)[0] for p in self.inputs.locals],
            [images.load(p)[0] for p in self.inputs.removed],
            images.load(self.inputs.rois[0], np.int32)[0],
            [images.load(p)[0] for p in self.inputs.maps],
            [voxels.read_mask(p) for p in self.inputs.masks],
            images.load(self.inputs.truths[0])[1].affine,
        )
        study_report.write(
            out,
            study,
            self.inputs.head,
            infos,
            study_report.Tables(
                read(self.inputs.values), read(self.inputs.offsets), read(self.inputs.distances)
            ),
            done,
            shown,
        )
        self._results["folder"] = str(out)
