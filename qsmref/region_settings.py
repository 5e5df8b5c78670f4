"""The options on regions and references, a part of :class:`qsmref.settings.Settings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .analysis import region_methods
from .options import option as _option


@dataclass(frozen=True)
class RegionSettings:
    """Which regions are measured, how, and against what."""

    atlas: dict[str, str] = _option(
        {},
        "regions",
        "label images for all participants: NAME=PATH, PATH being a dseg.nii.gz with a dseg.tsv "
        "beside it, or a folder that holds them (or labels of each participant, in sub-LABEL); on "
        "the grid of the map, or in the space of the template. CIT168 alone is that atlas, "
        "fetched by nilearn",
        "atlases",
        metavar="NAME=PATH",
    )
    label_groups: Path | None = _option(
        None,
        "regions",
        "TSV with the columns group and member (and atlas, where it is for one of them): the "
        "labels that make one region, such as GPe and GPi of GP",
        "path",
        metavar="FILE",
    )
    min_coverage: float = _option(
        0.5,
        "regions",
        "part of a region that the mask must cover for it to have statistics (0 to 1); below it "
        "they, and differences with it, are n/a",
        "number",
        metavar="FRACTION",
        low=0.0,
    )
    region_erosion: float = _option(
        0.0,
        "regions",
        "erosion of each region before it is measured",
        "number",
        metavar="MM",
        unit="mm",
        low=0.0,
    )
    statistic: str = _option(
        "auto",
        "regions",
        "what differences are made of; auto: means for labels on the grid of the map, "
        "biweights (robust means) for those that a registration brings, since voxels of "
        "neighbours at the border hardly move them; at the level group what the participants' "
        "tables say",
        choices=region_methods.STATISTIC_CHOICES,
    )
    csf: str = _option(
        "auto",
        "regions",
        "where the reference csf comes from in atlases that have no label for it: labels of "
        "ventricles in another atlas or derivative, or slow decay (r2star, three echoes or more); "
        "auto: the first of these that there is",
        choices=region_methods.CSF_SOURCES,
    )
    reference_erosion: float = _option(
        2.0,
        "regions",
        "erosion of csf and wm that come from labels of another atlas or derivative",
        "number",
        metavar="MM",
        unit="mm",
        low=0.0,
    )
    reference: tuple[str, ...] = _option(
        (),
        "regions",
        "write a map more for each of these, with the mean of this reference or region as zero "
        "(ATLAS:NAME where several atlases have it)",
        "list",
        metavar="NAME",
    )
    noise_repeats: int = _option(
        20,
        "regions",
        "maps with other noise, on a coarse grid, that the error of differences by the noise of "
        "the echoes (se_noise) comes from; 0: none",
        "integer",
        metavar="N",
        low=0,
    )
    references: tuple[str, ...] = _option(
        (),
        "regions",
        "rows of the region table that are only subtracted in the table of differences, where "
        "every region stands against every region and reference (default: brain, csf and wm, as "
        "far as there are labels for them)",
        "list",
        metavar="NAME",
    )

    coverage_sweep: tuple[str, ...] | None = _option(
        None,
        "regions",
        "reconstruct again with smaller masks, and write the differences under each: slab:MM makes "
        "the slab thinner by that much, half of it at either end; erosion:MM erodes the mask; "
        "slab:8,16+erosion:2 combines them (without words: slab:8,16,24,32,40 erosion:2,4,6,8,10)",
        "sweep",
        metavar="SWEEP",
    )

    def check_regions(self) -> None:
        """Raise a ValueError for what does not go together."""
        for name in self.atlas:
            if not (name.isascii() and name.isalnum()):
                raise ValueError(
                    f"atlas name {name!r} must be letters and digits: it is part of file names"
                )
            if name in getattr(self, "derivatives", {}):
                raise ValueError(
                    f"{name!r} is the name of an atlas and of a derivative: rename one"
                )
        if self.min_coverage > 1:
            raise ValueError(f"min-coverage must be at most 1, got {self.min_coverage:g}")
        if self.noise_repeats == 1:
            raise ValueError("noise-repeats must be 0, or 2 and more: one map has no scatter")
        for name in self.reference:
            if not any(c.isascii() and c.isalnum() for c in name.rpartition(":")[2]):
                raise ValueError(f"reference {name!r} has no letter or digit for a file name")
