"""Nodes of the regions: label images with their names, and the tables of a map in them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import images, tables, voxels
from ..analysis import (
    add_references,
    differential_table,
    reference_statistics,
    region_table,
)
from ..analysis.names import GROUP_COLUMN, apply_groups, label_names, regions_of
from ..analysis.propagation import NoiseMaps, noise_covariance
from ..analysis.reference import REFERENCES
from ..analysis.region_methods import STATISTICS
from ..analysis.regions import table_of, voxels_by_label
from ..analysis.tables import listed as named
from ..atlases import part_in_image, read_groups
from ..plausible import zero_doubts
from ..problems import DataError
from ..resampling import resample
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
        mask, like = self._optional("mask"), nib.load(self.inputs.chimap)
        if mask is not None:
            mask = voxels.read_mask(mask)
            self._save("mask", mask, folder, like)
        chi = voxels.read_map(self.inputs.chimap, mask)
        self._save("chimap", chi, folder, like)
        self._save_json("info", {"SkullStripped": voxels.skull_stripped(chi, mask)}, folder)


class _LoadLabelsInput(InputSpec):
    labels = File(exists=True, mandatory=True, desc="label image")
    names = File(exists=True, mandatory=True, desc="table with index and name")
    groups = File(exists=True, desc="table with group and member")
    atlas = traits.Str(desc="name of the atlas, for the table of groups")


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
            table = tables.read_label_table(self.inputs.names)
            names = label_names(table)
        groups = self._optional("groups")
        if groups is not None:
            with about(groups):
                table = apply_groups(table, read_groups(groups), self._optional("atlas"))
        with about(self.inputs.names if groups is None else groups):
            regions_of(table)
        with about(self.inputs.labels):
            present = set(voxels_by_label(labels))
        if not present:
            raise DataError(f"{Path(self.inputs.labels).name} is empty: it has no label.")
        unnamed = sorted(present - set(names["index"]))
        if unnamed:
            some = named(unnamed, 5)
            raise DataError(
                f"{Path(self.inputs.labels).name} has labels without a name in "
                f"{Path(self.inputs.names).name}: {some}; add their rows, or set them to 0."
            )
        self._save("labels", labels.astype(np.int32), folder, nib.load(self.inputs.labels))
        listed = names[["index", "name", "hemisphere"]]
        if GROUP_COLUMN in table:
            by_index = dict(zip(table["index"].astype(int), table[GROUP_COLUMN], strict=True))
            listed = listed.assign(**{GROUP_COLUMN: listed["index"].map(by_index)})
        self._results["names"] = str(tables.write_tsv(folder / "names.tsv", listed))


class _ResampleLabelsInput(InputSpec):
    labels = File(exists=True, mandatory=True, desc="label image in another space")
    reference = File(exists=True, mandatory=True, desc="image whose grid is wanted")
    transforms = InputMultiObject(File(exists=True), desc="ITK transforms, in the order of ANTs")
    invert = traits.List(traits.Bool, desc="which of them to invert")


class _ResampleLabelsOutput(TraitedSpec):
    labels = File(desc="labels on the grid of the reference")
    totals = File(desc="voxels of each label, if the image reached as far as the region")


class ResampleLabels(Interface):
    """Labels of a template on the grid of a map: one interpolation, through all transforms."""

    input_spec = _ResampleLabelsInput
    output_spec = _ResampleLabelsOutput

    def _compute(self, folder: Path) -> None:
        like = nib.load(self.inputs.reference)
        transforms = list(self._optional("transforms") or [])
        invert = list(self._optional("invert") or [False] * len(transforms))
        chain = {"transforms": transforms, "invert": invert, "interpolation": "label"}
        labels = resample(self.inputs.labels, self.inputs.reference, **chain)
        if not labels.any():
            raise DataError(
                f"{Path(self.inputs.labels).name}: no region reaches the map; look at the "
                "registration."
            )
        self._save("labels", labels, folder, like)
        part = part_in_image(self.inputs.labels, like, folder, chain)
        counts = {label: v.size for label, v in voxels_by_label(labels).items()}
        totals = {label: counts.get(label, 0) / part[label] for label in part if part[label] > 0}
        self._save_json("totals", totals, folder)


class RegionTableInput(InputSpec):
    chimap = File(exists=True, mandatory=True, desc="susceptibility map, ppm")
    mask = File(exists=True, desc="where the map is valid")
    labels = File(exists=True, mandatory=True, desc="label image")
    names = File(exists=True, mandatory=True, desc="table with index and name")
    totals = File(exists=True, desc="voxels of each label, those beyond the image too")
    csf = File(exists=True, desc="mask of fluid, where the labels have none")
    wm = File(exists=True, desc="mask of white matter, where the labels have none")
    noise_maps = File(exists=True, desc="coarse maps with other noise (.npz)")
    min_coverage = traits.Float(0.0, usedefault=True, desc="0 to 1")
    erosion = traits.Float(0.0, usedefault=True, desc="of each region, mm")


class _RegionTableOutput(TraitedSpec):
    table = File(desc="one row a region, ppb")
    info = File(desc="Warnings, where there are some")
    exact = File(desc="the same, every digit")
    covariance = File(desc="covariance of the means by the noise, ppb squared")


class RegionTable(Interface):
    """Statistics of every region and reference; see :func:`qsmref.analysis.region_table`."""

    input_spec = RegionTableInput
    output_spec = _RegionTableOutput

    def _compute(self, folder: Path) -> None:
        chi, like = images.load(self.inputs.chimap)
        labels, _ = images.load(self.inputs.labels, np.int32)
        names = tables.read_label_table(self.inputs.names)
        mask = self._optional("mask")
        mask = None if mask is None else voxels.read_mask(mask)
        samples: dict[str, np.ndarray] = {}
        table = self._measured(chi, like.affine, labels, names, mask, samples)
        noise = self._optional("noise_maps")
        if noise is not None:
            with np.load(noise) as stored:
                drawn = NoiseMaps(
                    stored["maps"],
                    stored["mask"],
                    tuple(stored["factors"].tolist()),
                    tuple(stored["start"].tolist()),
                )
            covariance = noise_covariance(drawn, samples, chi.shape)
            errors = dict(zip(covariance.index, np.sqrt(np.diag(covariance)), strict=True))
            table["se_noise"] = table["name"].map(errors).astype(float)
            path = folder / "covariance.tsv"
            shared = covariance.reset_index(names="name")
            self._results["covariance"] = str(tables.write_tsv(path, shared, tables.EXACT))
        doubts = [] if mask is not None else zero_doubts(chi, labels, names)
        self._save_json("info", {"Warnings": doubts} if doubts else {}, folder)
        self._results["table"] = str(tables.write_tsv(folder / "regions.tsv", table))
        exact = tables.write_tsv(folder / "exact.tsv", table, tables.EXACT)
        self._results["exact"] = str(exact)

    def _measured(self, chi, affine, labels, names, mask, samples=None) -> pd.DataFrame:
        """Regions and references of a map, with the options of the inputs."""
        size = images.voxel_size(affine)
        options = {
            "affine": affine,
            "min_coverage": self.inputs.min_coverage,
            "erosion": self.inputs.erosion,
            "totals": read_totals(self._optional("totals")),
            "samples": samples,
        }
        tissues = read_tissues(self)
        with about(self.inputs.names):
            table = region_table(chi, labels, names, size, mask, **options)
            table = add_references(
                table, chi, mask, size, labels, names, tissues=tissues, **options
            )
        return table


def read_totals(path: str | None) -> dict[int, float] | None:
    """Voxels of each label, those beyond the image too, of :class:`ResampleLabels`."""
    if path is None:
        return None
    return {int(k): v for k, v in json.loads(Path(path).read_text("utf-8")).items()}


def read_tissues(interface: Interface) -> dict[str, np.ndarray]:
    """Masks of the reference tissues that an interface was given, by their names."""
    given = {key: interface._optional(key) for key in REFERENCES[1:]}
    return {key: voxels.read_mask(path) for key, path in given.items() if path}


class _DifferentialTableInput(InputSpec):
    table = File(exists=True, mandatory=True, desc="region table")
    references = traits.List(traits.Str, desc="rows that are only subtracted")
    covariance = File(exists=True, desc="covariance of the means by the noise, ppb squared")
    statistic = traits.Enum(*STATISTICS, usedefault=True, desc="what is subtracted")


class _DifferentialTableOutput(TraitedSpec):
    table = File(desc="one row a pair, ppb")


class DifferentialTable(Interface):
    """Every region against every other; see :func:`qsmref.analysis.differential_table`."""

    input_spec = _DifferentialTableInput
    output_spec = _DifferentialTableOutput

    def _compute(self, folder: Path) -> None:
        regions = tables.read_tsv(self.inputs.table)
        covariance = self._optional("covariance")
        if covariance is not None:
            covariance = tables.read_tsv(covariance).set_index("name")
        table = differential_table(
            regions,
            self._optional("references") or None,
            statistic=self.inputs.statistic,
            covariance=covariance,
        )
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
