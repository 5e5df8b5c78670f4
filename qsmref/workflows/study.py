"""The phantom study as a graph: conditions, masks, removals, inversions, tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.fields import Invert, RemoveBackground
from ..interfaces.study import StudyField, StudyMask, StudyMeasure, StudyReport
from ..phantom.study import Chain, Condition, Study, Variant
from ..reconstruction.checks import echo_spacing
from ..units import radians_per_ppm
from .engine import Workflow, identifier, make_node


@dataclass(frozen=True)
class HeadFiles:
    """Files of another head; all None for the analytic one."""

    labels: Path | None = None
    susceptibility: Path | None = None
    mask: Path | None = None
    rois: Path | None = None

    def as_inputs(self) -> dict[str, str]:
        """Inputs of the node that makes the field."""
        named = {"labels": self.labels, "susceptibility": self.susceptibility}
        named |= {"brain": self.mask, "rois": self.rois}
        return {name: str(Path(path).absolute()) for name, path in named.items() if path}


def init_study_wf(
    *,
    study: Study,
    files: HeadFiles | None = None,
    omp_nthreads: int = 1,
    name: str = "study_wf",
) -> Workflow:
    """Build the graph of a phantom study.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.phantom.study import Study
        from qsmref.workflows.study import init_study_wf
        wf = init_study_wf(study=Study(slabs=(92, 116), erosions=(0,)))

    Parameters
    ----------
    study : Study
        Everything that is varied.
    files : HeadFiles, optional
        A label image in the place of the analytic head.
    omp_nthreads : int
        Threads of a removal or an inversion.
    name : str
        Name of the graph.

    Outputs
    -------
    folder
        Tables, figures, maps and parameters, see ``docs/phantom-study.md``.
    """
    workflow = Workflow(name=name)
    graph = _Graph(workflow, study, files or HeadFiles(), omp_nthreads)
    report = make_node(StudyReport(), "report", shape=graph.shape, volumes=60)
    report.inputs.study = study.as_dict()
    report.inputs.head = "label image" if graph.files.labels else "analytic head"
    pairs = []
    for condition in study.conditions:
        graph.add_condition(condition)
        for text in study.chains:
            pair = graph.add_chain(Chain.parse(text), condition)
            if pair is not None:
                pairs.append(pair)
    # Tables list one chain after the other.
    pairs.sort(key=lambda pair: (study.chains.index(pair[0]), pair[1]))
    report.inputs.keys = [[chain, condition] for chain, condition, _ in pairs]
    for source, target in (
        ("values", "values"), ("offsets", "offsets"), ("distances", "distances"), ("info", "done")
    ):  # fmt: skip
        merge = graph.merge(f"all_{target}", [(node, source) for *_, node in pairs])
        workflow.connect(merge, "out", report, target)
    for source, target in (
        ("truth", "truths"), ("field", "fields"), ("local", "locals"), ("rois", "rois"),
        ("info", "infos"),
    ):  # fmt: skip
        merge = graph.merge(f"all_{target}", [(node, source) for node in graph.fields.values()])
        workflow.connect(merge, "out", report, target)
    shown = Chain.parse(study.chains[0])
    graph.show(shown, report)
    outputs = pe.Node(niu.IdentityInterface(["folder"]), name="outputnode")
    workflow.connect(report, "folder", outputs, "folder")
    return workflow


class _Graph:
    """Nodes made so far, so that chains share what they have in common."""

    def __init__(self, workflow: Workflow, study: Study, files: HeadFiles, threads: int):
        self.workflow, self.study, self.files, self.threads = workflow, study, files, threads
        # Of a label image the size is not known yet; it only serves the estimate of memory.
        self.shape = study.matrix or (256, 256, 128)
        self.fields: dict[str, pe.Node] = {}
        self.masks: dict[tuple[str, Variant], pe.Node] = {}
        self.removals: dict[tuple[str, str, Variant], pe.Node] = {}
        self.inversions: dict[tuple[str, str, Variant], pe.Node] = {}

    def add_condition(self, condition: Condition) -> None:
        field = make_node(StudyField(), f"field_{condition.name}", shape=self.shape, volumes=24)
        # What the chains are does not change the field: another list of them finds it done.
        field.inputs.study = replace(self.study, chains=("none+tkd",)).as_dict()
        field.inputs.condition = condition.name
        field.inputs.trait_set(**self.files.as_inputs())
        self.fields[condition.name] = field
        for variant in self.study.variants:
            mask = make_node(
                StudyMask(), f"mask_{condition.name}_{identifier(variant.name)}",
                shape=self.shape, volumes=4,
            )  # fmt: skip
            mask.inputs.trait_set(
                slab_mm=variant.slab_mm,
                erosion_mm=variant.erosion_mm,
                centre=float(self.study.slab_centre),
            )
            self.workflow.connect([(field, mask, [("mask", "mask"), ("info", "info")])])
            self.masks[condition.name, variant] = mask

    def add_chain(self, chain: Chain, condition: Condition):
        """Nodes of a chain under a condition; None where it has no early end."""
        removal = self.study.removal(chain, condition)
        if removal is None:
            return None
        nodes = []
        for variant in self.study.variants:
            before = self._removal(chain, condition, variant, *removal)
            nodes.append((before, self._inversion(chain, condition, variant, before)))
        label = identifier(chain.name, condition.name)
        measure = make_node(StudyMeasure(), f"measure_{label}", shape=self.shape, volumes=24)
        measure.inputs.trait_set(
            study=self.study.as_dict() | {"chains": (chain.name,)},
            chain=chain.name,
            condition=condition.name,
        )
        inverts = [invert for _, invert in nodes]
        for source, target, which in (
            ("chimap", "maps", inverts),
            ("mask", "masks", inverts),
            ("info", "removals", [before for before, _ in nodes]),
            ("info", "inversions", inverts),
        ):
            merge = self.merge(f"{target}_{label}", [(node, source) for node in which])
            self.workflow.connect(merge, "out", measure, target)
        field = self.fields[condition.name]
        names = [(n, n) for n in ("truth", "rois", "info")]
        self.workflow.connect([(field, measure, names)])
        return chain.name, condition.name, measure

    def _removal(
        self, chain: Chain, condition: Condition, variant: Variant, method: str, given: dict
    ) -> pe.Node:
        name = chain.name.partition("+")[0]
        key = (name, condition.name, variant)
        if key in self.removals:
            return self.removals[key]
        node = make_node(
            RemoveBackground(),
            identifier("background", name, condition.name, variant.name),
            shape=self.shape, volumes=20, threads=self.threads,
        )  # fmt: skip
        node.inputs.trait_set(method=method, parameters=_lists(given))
        field, mask = self.fields[condition.name], self.masks[condition.name, variant]
        self.workflow.connect([(field, node, self._noise([("field", "field")]))])
        self.workflow.connect(mask, "mask", node, "mask")
        self.removals[key] = node
        return node

    def _inversion(
        self, chain: Chain, condition: Condition, variant: Variant, before: pe.Node
    ) -> pe.Node:
        method, given = self.study.inversion(chain)
        node = make_node(
            Invert(),
            identifier("inversion", chain.name, condition.name, variant.name),
            shape=self.shape, volumes=20, threads=self.threads,
        )  # fmt: skip
        study = self.study
        frequency = study.protocol.imaging_frequency * 1e6
        node.inputs.trait_set(
            method=method,
            parameters=_lists(given),
            radians_per_ppm=radians_per_ppm(echo_spacing(study.echo_times), frequency),
        )
        field = self.fields[condition.name]
        self.workflow.connect([(before, node, [("field", "field"), ("mask", "mask")])])
        self.workflow.connect([(field, node, self._noise([("magnitude", "magnitude")]))])
        self.inversions[chain.name, condition.name, variant] = node
        return node

    def _noise(self, connections: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The connections, with that of the noise where the field has any."""
        noisy = self.study.signal == "echoes" or self.study.snr != float("inf")
        return [*connections, ("noise", "noise")] if noisy else connections

    def show(self, chain: Chain, report: pe.Node) -> None:
        """Connect the maps of a chain under every condition it has."""
        keys = [
            (chain.name, condition.name, variant)
            for condition in self.study.conditions
            for variant in self.study.variants
            if (chain.name, condition.name, variant) in self.inversions
        ]
        maps = [self.inversions[key] for key in keys]
        first = self.study.variants[0]
        name = chain.name.partition("+")[0]
        removed = [self.removals[name, c, first] for _, c, v in keys if v == first]
        for target, source, nodes in (
            ("maps", "chimap", maps), ("masks", "mask", maps), ("removed", "field", removed)
        ):  # fmt: skip
            merge = self.merge(f"shown_{target}", [(node, source) for node in nodes])
            self.workflow.connect(merge, "out", report, target)

    def merge(self, name: str, sources: list[tuple[pe.Node, str]]) -> pe.Node:
        """Node with a list of single outputs."""
        node = pe.Node(niu.Merge(len(sources)), name=name, run_without_submitting=True)
        for place, (source, field) in enumerate(sources):
            self.workflow.connect(source, field, node, f"in{place + 1}")
        return node


def _lists(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters as they come out of JSON, so that the hash of a node stays the same."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
