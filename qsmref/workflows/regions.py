"""From a map and its labels to the tables."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.tables import DifferentialTable, LoadLabels, RegionTable
from .citations import sentence
from .engine import Workflow, make_node


def init_regions_wf(
    *,
    shape: Sequence[int],
    references: Sequence[str] = (),
    mask_given: bool = True,
    random_seed: int | None = None,
    name: str = "regions_wf",
) -> Workflow:
    """Build the graph from a map to the table of regions and that of their differences.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.workflows import init_regions_wf
        wf = init_regions_wf(shape=(64, 64, 40))

    Parameters
    ----------
    shape : (3,) int
        Voxels of the map.
    references : sequence of str
        Rows that are only subtracted; by default those of
        :data:`qsmref.analysis.reference.REFERENCES`.
    mask_given : bool
        Whether the input `mask` will be connected.
    random_seed, name
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Inputs
    ------
    chimap
        Susceptibility, ppm.
    mask
        Where it is valid.
    labels, names
        Label image on the grid of the map, and the table of its names.

    Outputs
    -------
    labels, names
        The same, checked.
    regions, differences
        Tables, ppb.
    """
    workflow = Workflow(name=name, methods=sentence("regions", "differential"))
    common = {"shape": shape, "random_seed": random_seed}
    inputs = pe.Node(niu.IdentityInterface(["chimap", "mask", "labels", "names"]), name="inputnode")
    outputs = pe.Node(
        niu.IdentityInterface(["labels", "names", "regions", "differences"]), name="outputnode"
    )
    load = make_node(LoadLabels(), "load_labels", volumes=8, **common)
    regions = make_node(RegionTable(), "regions", volumes=8, **common)
    differences = make_node(DifferentialTable(), "differences", volumes=1, **common)
    if references:
        differences.inputs.references = list(references)
    workflow.connect(
        [
            (inputs, load, [("labels", "labels"), ("names", "names")]),
            (inputs, regions, [("chimap", "chimap")]),
            (load, regions, [("labels", "labels"), ("names", "names")]),
            (regions, differences, [("table", "table")]),
            (load, outputs, [("labels", "labels"), ("names", "names")]),
            (regions, outputs, [("table", "regions")]),
            (differences, outputs, [("table", "differences")]),
        ]
    )
    if mask_given:
        workflow.connect(inputs, "mask", regions, "mask")
    return workflow
