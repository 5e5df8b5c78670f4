"""Nodes of the coverage sweep: the map under each of several masks, and the table of all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import images, tables, voxels
from ..analysis.coverage import coverage_mask, coverage_table
from ..analysis.region_methods import STATISTICS
from ..reconstruction import methods
from ..reconstruction.background import remove_background
from ..reconstruction.inversion import invert
from .base import InputSpec, Interface, with_chosen_lambda
from .tables import RegionTable, RegionTableInput


class _CoverageMapInput(InputSpec):
    field = File(exists=True, mandatory=True, desc="total field, ppm")
    mask = File(exists=True, mandatory=True, desc="the whole mask")
    magnitude = File(exists=True, mandatory=True, desc="(x, y, z), for the edges")
    noise = File(exists=True, mandatory=True, desc="standard deviation of the field, ppm")
    csf = File(exists=True, desc="cerebrospinal fluid that the inversion is given")
    slab_cut_mm = traits.Float(mandatory=True, desc="what the slab becomes thinner by, mm")
    erosion_mm = traits.Float(mandatory=True, desc="depth of the erosion, mm")
    radians_per_ppm = traits.Float(mandatory=True, desc="phase of 1 ppm in one echo spacing")
    background = traits.Enum(*methods.BACKGROUND, usedefault=True, desc="background removal")
    background_params = traits.Dict(usedefault=True, desc="its parameters")
    inversion = traits.Enum(*methods.INVERSION, usedefault=True, desc="inversion")
    inversion_params = traits.Dict(usedefault=True, desc="its parameters")
    inversion_info = File(exists=True, desc="what the inversion of the whole mask did")


class _CoverageMapOutput(TraitedSpec):
    chimap = File(desc="susceptibility, ppm, zero outside the mask")
    mask = File(desc="where the map is valid; empty when nothing could be made")
    info = File(desc="what was done, or why nothing was")


class CoverageMap(Interface):
    """Map under a mask of the sweep; an empty one when the mask leaves too little.

    A slab thinner than the cut is no failure of the participant: the table then says n/a, and the
    sidecar says why.
    """

    input_spec = _CoverageMapInput
    output_spec = _CoverageMapOutput

    def _compute(self, folder: Path) -> None:
        field, like = images.load(self.inputs.field)
        whole, size = voxels.read_mask(self.inputs.mask), images.voxel_size(like.affine)
        b0_dir = images.b0_direction(like.affine)
        # The slab is that of the head: what differs between studies is its top and bottom.
        axis = int(np.argmax(np.abs(b0_dir)))
        given = self.inputs
        info: dict = {"slab_cut_mm": given.slab_cut_mm, "erosion_mm": given.erosion_mm}
        info["slab_axis"] = axis
        try:
            mask = coverage_mask(whole, given.slab_cut_mm, given.erosion_mm, size, axis)
            slices = round(given.slab_cut_mm / 2 / size[axis])
            info |= {"slab_cut_done_mm": 2 * slices * float(size[axis])}
            noise, magnitude = (images.load(p)[0] for p in (given.noise, given.magnitude))
            common = {"b0_dir": b0_dir, "noise": noise}
            local, mask, removal = remove_background(
                field, mask, size, method=given.background, **common, **given.background_params
            )
            fluid = self._optional("csf")
            chi, mask, inversion = invert(
                local,
                mask,
                size,
                method=given.inversion,
                magnitude=magnitude,
                radians_per_ppm=given.radians_per_ppm,
                csf=None if fluid is None else voxels.read_mask(fluid),
                **common,
                **with_chosen_lambda(given.inversion_params, self._optional("inversion_info")),
            )
            info |= {"background": removal, "inversion": inversion}
        except ValueError as error:
            # The same steps went through with the whole mask: what is wrong is what is left of it.
            chi, mask = np.zeros_like(field), np.zeros_like(whole)
            info["warning"] = (
                f"no map at a slab cut of {given.slab_cut_mm:g} mm and an erosion of "
                f"{given.erosion_mm:g} mm: {error}."
            )
        info["n_voxels"] = np.count_nonzero(mask)
        self._save("chimap", chi, folder, like)
        self._save("mask", mask, folder, like)
        self._save_json("info", info, folder)


def _words(given) -> str:
    return f"a slab cut of {given.slab_cut_mm:g} mm and an erosion of {given.erosion_mm:g} mm"


class _CoverageTableInput(RegionTableInput):
    # One map of a sweep takes the place of another.
    chimap = File(exists=True, desc="not used")
    mask = File(exists=True, desc="not used")
    whole = File(exists=True, mandatory=True, desc="region table of the whole mask")
    chimaps = InputMultiObject(File(exists=True), mandatory=True, desc="maps of the sweep, ppm")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="their masks")
    infos = InputMultiObject(File(exists=True), mandatory=True, desc="what was done for each")
    references = traits.List(traits.Str, desc="rows that are only subtracted")
    statistic = traits.Enum(*STATISTICS, usedefault=True, desc="what is subtracted")


class _CoverageTableOutput(TraitedSpec):
    table = File(desc="one row a region or pair and mask, ppb")
    info = File(desc="the masks, and what was done with each")


class CoverageTable(RegionTable):
    """Regions and differences under every mask; see :func:`qsmref.analysis.coverage_table`."""

    input_spec = _CoverageTableInput
    output_spec = _CoverageTableOutput

    def _compute(self, folder: Path) -> None:
        labels, like = images.load(self.inputs.labels, np.int32)
        names = tables.read_label_table(self.inputs.names)
        found = {(0.0, 0.0): tables.read_tsv(self.inputs.whole)}
        infos, warnings = [], []
        parts = zip(self.inputs.chimaps, self.inputs.masks, self.inputs.infos, strict=True)
        for chimap, mask_file, info_file in parts:
            info = json.loads(Path(info_file).read_text(encoding="utf-8"))
            infos.append(info)
            table = None
            if "warning" in info:
                warnings.append(info["warning"])
            else:
                chi, mask = images.load(chimap)[0], voxels.read_mask(mask_file)
                table = self._measured(chi, like.affine, labels, names, mask)
            found[info["slab_cut_mm"], info["erosion_mm"]] = table
        references = self._optional("references") or None
        table = coverage_table(found, references, statistic=self.inputs.statistic)
        self._results["table"] = str(tables.write_tsv(folder / "coverage.tsv", table))
        info = {"Masks": infos, "RegionsAloneFirst": True, "Warnings": warnings}
        self._save_json("info", info, folder)
