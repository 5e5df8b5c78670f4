"""The graph of all tables of one map: atlases, their references, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe

from ..analysis.region_methods import statistic_of
from ..interfaces.references import ReferencedMap, TissueMasks
from ..interfaces.tables import ReferenceStatistics
from ..runs import EchoRun, Regions, Run
from . import outputs
from .engine import Workflow, identifier, make_node
from .labels import init_labels_wf
from .regions import init_regions_wf


@dataclass(frozen=True)
class RegionPlan:
    """How regions are measured; see the options of the same names."""

    references: tuple[str, ...] = ()
    #: Maps with another zero to write.
    reference: tuple[str, ...] = ()
    groups: Path | None = None
    min_coverage: float = 0.0
    erosion: float = 0.0
    #: One of :data:`~qsmref.analysis.region_methods.STATISTIC_CHOICES`.
    statistic: str = "auto"
    csf: str = "auto"
    reference_erosion: float = 2.0
    random_seed: int | None = None

    def described(self, statistic: str) -> dict[str, Any]:
        """What a sidecar of a table of differences of `statistic` says of it."""
        return {
            "Statistic": statistic,
            "MinimumCoverage": self.min_coverage,
            "RegionErosion": self.erosion,
        }


def map_name(run: Run) -> str:
    """``desc`` of the map that the tables of a run are made of."""
    return "unreferenced" if isinstance(run, EchoRun) else "imported"


def reference_desc(name: str) -> str:
    """``desc`` of a map with a reference as zero.

    >>> reference_desc("atlas:SN_L")
    'SNLreferenced'
    """
    plain = "".join(c for c in name.rpartition(":")[2] if c.isascii() and c.isalnum())
    return f"{plain}referenced"


def connect_regions(
    workflow: Workflow,
    source: pe.Workflow,
    *,
    run: Run,
    plan: RegionPlan,
    output_dir: str | Path,
    mask: bool,
    noise: pe.Node | None = None,
    registration: pe.Workflow | None = None,
) -> pe.Node | None:
    """Add the tables of every atlas to the graph of a run.

    Parameters
    ----------
    workflow : Workflow
        Of the run.
    source : Workflow
        Its ``outputnode`` has `chimap`, and `mask` if `mask`.
    run : Run
        What was found.
    plan : RegionPlan
        How regions are measured.
    output_dir : path
        Folder of results.
    mask : bool
        Whether there is a brain mask.
    noise : Node, optional
        Has `maps` and `info`, of :class:`~qsmref.interfaces.references.DrawNoise`.
    registration : Workflow, optional
        Its ``outputnode`` has `from_template`, `from_t1w` and ``..._invert``.

    Returns
    -------
    Node or None
        Statistics of the references, if `mask`.
    """
    fields = ["chimap"] + ["mask"] * mask
    labelled = [_labels(workflow, run, regions, plan, registration) for regions in run.regions]
    tissues = _tissues(workflow, source, run, plan, labelled) if mask and labelled else None
    tables = outputs.gather(len(run.regions), "tables") if run.regions else None
    infos: dict[str, tuple[pe.Node, str]] = {}
    if tissues is not None:
        infos["ReferenceTissues"] = (tissues, "info")
    if noise is not None:
        infos["NoisePropagation"] = (noise, "info")
    if registration is not None:
        infos["Registration"] = (registration, "outputnode.info")
    more = ["csf", "wm"] * (tissues is not None) + ["noise_maps"] * (noise is not None)
    for i, (regions, labels) in enumerate(zip(run.regions, labelled, strict=True)):
        given = more + ["totals"] * (regions.space != "native")
        measure = _measured(run, regions, plan, given, mask)
        told = {**infos, ".": (measure, "outputnode.info")}
        save = _saved(run, regions, plan, list(told), output_dir)
        checked = ["labels", "names"] + ["totals"] * (regions.space != "native")
        passed = ("labels", "names", "regions", "differences")
        workflow.connect(
            [
                (source, measure, [(f"outputnode.{f}", f"inputnode.{f}") for f in fields]),
                (labels, measure, [(f"outputnode.{f}", f"inputnode.{f}") for f in checked]),
                (measure, save, [(f"outputnode.{f}", f"inputnode.{f}") for f in passed]),
            ]
        )
        if tissues is not None:
            workflow.connect([(tissues, measure, [(f, f"inputnode.{f}") for f in ("csf", "wm")])])
        if noise is not None:
            workflow.connect(noise, "maps", measure, "inputnode.noise_maps")
        for j, (node, field) in enumerate(told.values()):
            workflow.connect(node, field, save, f"inputnode.info{j + 1}")
        workflow.connect(measure, "outputnode.exact", tables, f"in{i + 1}")
    _referenced_maps(workflow, source, fields, tables, run, plan, output_dir)
    if not mask:
        return None
    statistics = make_node(ReferenceStatistics(), "references", shape=run.grid.shape, volumes=4)
    workflow.connect([(source, statistics, [(f"outputnode.{f}", f) for f in fields])])
    if tables is not None:
        statistics.inputs.atlases = [regions.atlas for regions in run.regions]
        workflow.connect(tables, "out", statistics, "tables")
    return statistics


def _measured(
    run: Run, regions: Regions, plan: RegionPlan, given: Sequence[str], mask: bool
) -> Workflow:
    """Graph that measures the regions of one atlas."""
    return init_regions_wf(
        shape=run.grid.shape,
        references=plan.references,
        mask_given=mask,
        labels_checked=True,
        given=given,
        min_coverage=plan.min_coverage,
        erosion=plan.erosion,
        statistic=statistic_of(plan.statistic, regions.space),
        random_seed=plan.random_seed,
        name=identifier("atlas", regions.atlas, "wf"),
    )


def _saved(
    run: Run,
    regions: Regions,
    plan: RegionPlan,
    info_names: Sequence[str],
    output_dir: str | Path,
) -> Workflow:
    """Graph that writes the tables of one atlas."""
    return outputs.init_tables_outputs_wf(
        prefix=run.prefix,
        atlas=regions.atlas,
        output_dir=output_dir,
        shape=run.grid.shape,
        chimap=outputs.derivative_name(run.prefix, desc=map_name(run), suffix="Chimap"),
        label_sources=[regions.image.uri],
        measured={
            **plan.described(statistic_of(plan.statistic, regions.space)),
            "LabelSources": [regions.image.uri],
            "LabelSpace": regions.space,
        },
        info_names=info_names,
        name=identifier("save", regions.atlas, "tables"),
    )


def _labels(
    workflow: Workflow,
    run: Run,
    regions: Regions,
    plan: RegionPlan,
    registration: pe.Workflow | None,
) -> Workflow:
    resampled = regions.space != "native"
    labels = init_labels_wf(
        shape=run.grid.shape,
        atlas=regions.atlas,
        groups=plan.groups,
        resampled=resampled,
        random_seed=plan.random_seed,
        name=identifier("labels", regions.atlas, "wf"),
    )
    labels.inputs.inputnode.labels = str(regions.image.path)
    labels.inputs.inputnode.names = str(regions.table)
    workflow.add_nodes([labels])
    if resampled:
        if registration is None:
            raise ValueError(f"atlas {regions.atlas} is in another space, without registration")
        labels.inputs.inputnode.reference = str(grid_image(run))
        way = {"template": "from_template", "T1w": "from_t1w"}[regions.space]
        passed = {way: "transforms", f"{way}_invert": "invert"}
        workflow.connect(
            [
                (
                    registration,
                    labels,
                    [(f"outputnode.{a}", f"inputnode.{b}") for a, b in passed.items()],
                )
            ]
        )
    return labels


def grid_image(run: Run) -> Path:
    """An image on the grid of a run's map."""
    return run.magnitude[0].path if isinstance(run, EchoRun) else run.chimap.path


def _tissues(
    workflow: Workflow,
    source: pe.Workflow,
    run: Run,
    plan: RegionPlan,
    labelled: Sequence[Workflow],
) -> pe.Node:
    """Add the node of the masks of csf and wm."""
    node = make_node(
        TissueMasks(), "reference_tissues", shape=run.grid.shape, volumes=16,
        random_seed=plan.random_seed,
    )  # fmt: skip
    node.inputs.trait_set(
        csf=plan.csf,
        erosion=plan.reference_erosion,
        atlases=[regions.atlas for regions in run.regions],
    )
    if isinstance(run, EchoRun):
        node.inputs.magnitude = run.magnitude_files
        node.inputs.echo_times = list(run.echo_times)
    workflow.connect(source, "outputnode.mask", node, "mask")
    for field in ("labels", "names"):
        merge = outputs.gather(len(labelled), f"all_{field}")
        workflow.connect(merge, "out", node, field)
        for i, labels in enumerate(labelled):
            workflow.connect(labels, f"outputnode.{field}", merge, f"in{i + 1}")
    return node


def _referenced_maps(
    workflow: Workflow,
    source: pe.Workflow,
    fields: Sequence[str],
    tables: pe.Node | None,
    run: Run,
    plan: RegionPlan,
    output_dir: str | Path,
) -> None:
    """Add a map more for each reference that was asked for."""
    for name in plan.reference:
        node = make_node(
            ReferencedMap(reference=name),
            identifier("referenced", name),
            shape=run.grid.shape,
            volumes=6,
        )
        workflow.connect([(source, node, [(f"outputnode.{f}", f) for f in fields])])
        if tables is not None:
            node.inputs.atlases = [regions.atlas for regions in run.regions]
            workflow.connect(tables, "out", node, "tables")
        chimap = outputs.derivative_name(run.prefix, desc=map_name(run), suffix="Chimap")
        save = outputs.init_map_outputs_wf(
            prefix=run.prefix,
            desc=reference_desc(name),
            output_dir=output_dir,
            shape=run.grid.shape,
            metadata=_referenced_metadata(run, chimap, name),
            info_names=["."],
            name=identifier("save_map", reference_desc(name)),
        )
        workflow.connect(node, "chimap", save, "inputnode.chimap")
        workflow.connect(node, "info", save, "inputnode.info1")


def _referenced_metadata(run: Run, chimap: str, name: str) -> Mapping[str, Any]:
    metadata: dict[str, Any] = {
        "Description": f"Susceptibility map with the mean of {name} as zero",
        "Sources": [outputs.own_uri(chimap)],
    }
    if isinstance(run, EchoRun):
        metadata["EchoTime"] = list(run.echo_times)
    else:
        kept = ("EchoTime", "MagneticFieldStrength")
        metadata |= {key: run.metadata[key] for key in kept if key in run.metadata}
    return metadata
