"""The graph of the coverage sweep: from the unwrapped field to the table of all masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.coverage import CoverageMap, CoverageTable
from ..interfaces.fields import ConvertField
from ..sweep import Coverage
from .citations import sentence
from .engine import Workflow, identifier, make_node

#: What the table of an atlas is made of, beside the maps.
_KINDS = ("labels", "names", "regions", "totals", "csf", "wm")


def init_coverage_wf(
    *,
    shape: Sequence[int],
    coverages: Sequence[Coverage],
    radians_per_ppm: float,
    atlases: Sequence[str] = (),
    references: Sequence[str] = (),
    region_erosion: float = 0.0,
    statistics: Mapping[str, str] | None = None,
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    csf_given: bool = False,
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = "coverage_wf",
) -> Workflow:
    """Build the graph of a sweep: one map for each mask, one table for each atlas.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.sweep import parse_sweep
        from qsmref.workflows import init_coverage_wf
        wf = init_coverage_wf(
            shape=(64, 64, 40), coverages=parse_sweep(["slab:8", "erosion:2"]),
            radians_per_ppm=3.2, atlases=["mine"],
        )

    Parameters
    ----------
    shape : (3,) int
        Voxels of the images.
    coverages : sequence of Coverage
        Of :func:`qsmref.sweep.parse_sweep`; the whole mask among them is left out, since its map is
        made elsewhere.
    radians_per_ppm : float
        Factor of :mod:`qsmref.units`.
    atlases : sequence of str
        Names; each has three inputs.
    references : sequence of str
        Rows that are only subtracted; by default those of
        :data:`qsmref.analysis.reference.REFERENCES`.
    region_erosion
        As for :func:`~qsmref.workflows.init_regions_wf`.
    statistics : mapping of str to str, optional
        ``mean`` (the default), ``median`` or ``biweight``, by atlas.
    background, background_params, inversion, inversion_params, csf_given
        As for :func:`~qsmref.workflows.inversion.init_inversion_wf`.
    omp_nthreads, random_seed, name
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Inputs
    ------
    field, noise
        Unwrapped total field and its standard deviation, rad.
    mask
        The whole mask.
    magnitude
        (x, y, z)
    csf
        Cerebrospinal fluid, when `csf_given`.
    inversion_info
        What the inversion of the whole mask did: the lambda that it chose is kept.
    labels_<atlas>, names_<atlas>, regions_<atlas>
        Label image, its names, and the region table of the whole mask.
    totals_<atlas>, csf_<atlas>, wm_<atlas>
        As for :func:`~qsmref.workflows.init_regions_wf`, where they were given there.

    Outputs
    -------
    table_<atlas>, info_<atlas>
        Table of the sweep, and what was done for each mask.
    """
    workflow = Workflow(name=name, methods=sentence("regions", "coverage"))
    common = {"shape": shape, "random_seed": random_seed}
    images = ["field", "noise", "mask", "magnitude"]
    fields = [*images, "csf", "inversion_info"]
    fields += [f"{kind}_{atlas}" for atlas in atlases for kind in _KINDS]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    made = [f"{kind}_{atlas}" for atlas in atlases for kind in ("table", "info")]
    outputs = pe.Node(niu.IdentityInterface(made), name="outputnode")

    in_ppm = {}
    for image in ("field", "noise"):
        in_ppm[image] = make_node(ConvertField(), f"sweep_{image}_in_ppm", volumes=3, **common)
        in_ppm[image].inputs.factor = 1 / radians_per_ppm
        workflow.connect(inputs, image, in_ppm[image], "field")

    swept = [coverage for coverage in coverages if coverage != Coverage()]
    method = {
        "radians_per_ppm": radians_per_ppm,
        "background": background,
        "background_params": dict(background_params or {}),
        "inversion": inversion,
        "inversion_params": dict(inversion_params or {}),
    }
    maps = [_map(coverage, method, {**common, "threads": omp_nthreads}) for coverage in swept]
    passed = ["mask", "magnitude", "inversion_info"] + ["csf"] * csf_given
    for node in maps:
        workflow.connect([(inputs, node, [(f, f) for f in passed])])
        for image, source in in_ppm.items():
            workflow.connect(source, "field", node, image)
    gathered = _gathered(workflow, maps)

    for atlas in atlases:
        node = make_node(CoverageTable(), f"coverage_of_{identifier(atlas)}", volumes=8, **common)
        statistic = (statistics or {}).get(atlas, "mean")
        node.inputs.trait_set(erosion=region_erosion, statistic=statistic)
        if references:
            node.inputs.references = list(references)
        used = {kind: "whole" if kind == "regions" else kind for kind in _KINDS}
        workflow.connect(
            [
                (inputs, node, [(f"{a}_{atlas}", b) for a, b in used.items()]),
                *[(merge, node, [("out", f"{output}s")]) for output, merge in gathered.items()],
                (node, outputs, [(out, f"{out}_{atlas}") for out in ("table", "info")]),
            ]
        )
    return workflow


def _gathered(workflow: Workflow, maps: Sequence[pe.Node]) -> dict[str, pe.Node]:
    """Nodes that hold the maps, masks and infos of all masks as lists, in their order."""
    gathered = {}
    for output in ("chimap", "mask", "info"):
        merge = pe.Node(niu.Merge(len(maps)), name=f"{output}s", run_without_submitting=True)
        for i, node in enumerate(maps, start=1):
            workflow.connect(node, output, merge, f"in{i}")
        gathered[output] = merge
    return gathered


def _map(coverage: Coverage, method: Mapping[str, Any], machine: Mapping[str, Any]) -> pe.Node:
    """Node that makes the map under one mask."""
    node = make_node(CoverageMap(), identifier(coverage.name), volumes=2.5 * 16, **machine)
    node.inputs.trait_set(
        slab_cut_mm=coverage.slab_cut_mm, erosion_mm=coverage.erosion_mm, **method
    )
    return node
