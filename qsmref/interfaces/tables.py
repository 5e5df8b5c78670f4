"""Regions: label images with their names, and the tables made of a map in them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import images, tables, voxels
from ..analysis import (
    add_references,
    differential_table,
    reference_statistics,
    region_table,
)
from ..analysis.names import label_names
from ..analysis.regions import table_of, voxels_by_label
from ..problems import DataError
from .base import InputSpec, Interface, about


class _LoadMapInput(InputSpec):
    chimap = File(exists=True, mandatory=True, desc="susceptibility map, ppm")
    mask = File(exists=True, desc="brain mask")


class _LoadMapOutput(TraitedSpec):
    chimap = File(desc="the same map, checked")
    mask = File(desc="brain mask, where there is one")
    info = File(desc="SkullStripped")


class LoadMap(Interface):
    """Read a map that somebody else made, and check every voxel."""

    input_spec = _LoadMapInput
    output_spec = _LoadMapOutput

    def _compute(self, folder: Path) -> None:
        chi, mask = voxels.read_map(self.inputs.chimap), self._optional("mask")
        like = nib.load(self.inputs.chimap)
        if mask is not None:
            mask = voxels.read_mask(mask)
            self._save("mask", mask, folder, like)
        self._save("chimap", chi, folder, like)
        self._save_json("info", {"SkullStripped": voxels.skull_stripped(chi, mask)}, folder)


class _LoadLabelsInput(InputSpec):
    labels = File(exists=True, mandatory=True, desc="label image")
    names = File(exists=True, mandatory=True, desc="table with index and name")


class _LoadLabelsOutput(TraitedSpec):
    labels = File(desc="the same labels, checked, as integers")
    names = File(desc="table with index, name, hemisphere")


class LoadLabels(Interface):
    """Read a label image and its names, and check that they go together."""

    input_spec = _LoadLabelsInput
    output_spec = _LoadLabelsOutput

    def _compute(self, folder: Path) -> None:
        labels = voxels.read(self.inputs.labels, np.float64)
        with about(self.inputs.names):
            names = label_names(tables.read_label_table(self.inputs.names))
        with about(self.inputs.labels):
            present = set(voxels_by_label(labels))
        if not present:
            raise DataError(f"{Path(self.inputs.labels).name} is empty: it has no label.")
        unnamed = sorted(present - set(names["index"]))
        if unnamed:
            some = ", ".join(str(label) for label in unnamed[:5]) + ", ..." * (len(unnamed) > 5)
            raise DataError(
                f"{Path(self.inputs.labels).name} has labels without a name in "
                f"{Path(self.inputs.names).name}: {some}; add their rows, or set them to 0."
            )
        self._save("labels", labels.astype(np.int32), folder, nib.load(self.inputs.labels))
        listed = names[["index", "name", "hemisphere"]]
        self._results["names"] = str(tables.write_tsv(folder / "names.tsv", listed))


class _RegionTableInput(InputSpec):
    chimap = File(exists=True, mandatory=True, desc="susceptibility map, ppm")
    mask = File(exists=True, desc="where the map is valid")
    labels = File(exists=True, mandatory=True, desc="label image")
    names = File(exists=True, mandatory=True, desc="table with index and name")


class _RegionTableOutput(TraitedSpec):
    table = File(desc="one row a region, ppb")


class RegionTable(Interface):
    """Statistics of every region and reference; see :func:`qsmref.analysis.region_table`."""

    input_spec = _RegionTableInput
    output_spec = _RegionTableOutput

    def _compute(self, folder: Path) -> None:
        chi, like = images.load(self.inputs.chimap)
        labels, _ = images.load(self.inputs.labels, np.int32)
        names = tables.read_label_table(self.inputs.names)
        mask = self._optional("mask")
        mask = None if mask is None else voxels.read_mask(mask)
        size, geometry = images.voxel_size(like.affine), {"affine": like.affine}
        with about(self.inputs.names):
            table = region_table(chi, labels, names, size, mask, **geometry)
            table = add_references(table, chi, mask, size, labels, names, **geometry)
        self._results["table"] = str(tables.write_tsv(folder / "regions.tsv", table))


class _DifferentialTableInput(InputSpec):
    table = File(exists=True, mandatory=True, desc="region table")
    references = traits.List(traits.Str, desc="rows that are only subtracted")


class _DifferentialTableOutput(TraitedSpec):
    table = File(desc="one row a pair, ppb")


class DifferentialTable(Interface):
    """Every region against every other; see :func:`qsmref.analysis.differential_table`."""

    input_spec = _DifferentialTableInput
    output_spec = _DifferentialTableOutput

    def _compute(self, folder: Path) -> None:
        regions = tables.read_tsv(self.inputs.table)
        table = differential_table(regions, self._optional("references") or None)
        self._results["table"] = str(tables.write_tsv(folder / "differences.tsv", table))


class _ReferenceStatisticsInput(InputSpec):
    chimap = File(exists=True, mandatory=True, desc="susceptibility map, ppm")
    mask = File(exists=True, mandatory=True, desc="brain mask")
    tables = InputMultiObject(File(exists=True), desc="region tables")
    atlases = traits.List(traits.Str, desc="their atlases")


class _ReferenceStatisticsOutput(TraitedSpec):
    info = File(desc="mean and SD of every candidate reference, relative to the whole brain")


class ReferenceStatistics(Interface):
    """What it takes to re-reference a map; see :func:`qsmref.analysis.reference_statistics`."""

    input_spec = _ReferenceStatisticsInput
    output_spec = _ReferenceStatisticsOutput

    def _compute(self, folder: Path) -> None:
        chi, _ = images.load(self.inputs.chimap)
        mask = voxels.read_mask(self.inputs.mask)
        brain = reference_statistics(chi, mask, table_of([]))["brain"]
        info = {"Units": "ppb", "RelativeTo": "mean over the brain mask", "brain": brain}
        atlases = self._optional("atlases") or []
        for atlas, table in zip(atlases, self._optional("tables") or [], strict=True):
            statistics = reference_statistics(chi, mask, tables.read_tsv(table))
            statistics.pop("brain")
            info[f"atlas-{atlas}"] = statistics
        self._save_json("info", info, folder)
