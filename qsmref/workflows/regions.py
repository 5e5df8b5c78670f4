"""From a map and its labels to the tables."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.tables import DifferentialTable, LoadLabels, RegionTable
from .citations import sentence
from .engine import Workflow, make_node

_INPUTS = ["chimap", "mask", "labels", "names", "totals", "csf", "wm", "noise_maps"]
_PASSED = ["labels", "names", "totals", "csf", "wm"]
_OUTPUTS = [*_PASSED, "regions", "exact", "differences", "info"]


def init_regions_wf(
    *,
    shape: Sequence[int],
    references: Sequence[str] = (),
    mask_given: bool = True,
    labels_checked: bool = False,
    given: Sequence[str] = (),
    min_coverage: float = 0.0,
    erosion: float = 0.0,
    statistic: str = "mean",
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
    labels_checked : bool
        Whether labels and names come from :func:`~qsmref.workflows.init_labels_wf`.
    given : sequence of {"totals", "csf", "wm", "noise_maps"}
        Those of these inputs that will be connected.
    min_coverage : float
        Part of a region that the mask must cover, 0 to 1.
    erosion : float
        Of each region, mm.
    statistic : {"mean", "median", "biweight"}
        What differences are made of.
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
    totals
        Voxels of each label, those beyond the image too.
    csf, wm
        Masks of these references, for an atlas that has no label of them.
    noise_maps
        Coarse maps with other noise.

    Outputs
    -------
    labels, names, totals, csf, wm
        The same, labels and names checked.
    regions, differences
        Tables, ppb.
    info
        JSON with what is to be warned of.
    exact
        The table of regions with every digit.
    """
    workflow = Workflow(name=name, methods=sentence("regions", "differential"))
    common = {"shape": shape, "random_seed": random_seed}
    inputs = pe.Node(niu.IdentityInterface(list(_INPUTS)), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(list(_OUTPUTS)), name="outputnode")
    load = inputs
    if not labels_checked:
        load = make_node(LoadLabels(), "load_labels", volumes=8, **common)
        workflow.connect([(inputs, load, [("labels", "labels"), ("names", "names")])])
    regions = make_node(RegionTable(), "regions", volumes=8, **common)
    regions.inputs.trait_set(min_coverage=min_coverage, erosion=erosion)
    differences = make_node(DifferentialTable(), "differences", volumes=1, **common)
    differences.inputs.statistic = statistic
    if references:
        differences.inputs.references = list(references)
    workflow.connect(
        [
            (inputs, regions, [(f, f) for f in ("chimap", *given, *["mask"] * mask_given)]),
            (load, regions, [("labels", "labels"), ("names", "names")]),
            (regions, differences, [("exact", "table")]),
            (load, outputs, [("labels", "labels"), ("names", "names")]),
            (regions, outputs, [("table", "regions"), ("exact", "exact"), ("info", "info")]),
            (differences, outputs, [("table", "differences")]),
        ]
    )
    for field in given:
        if field in _PASSED:
            workflow.connect(inputs, field, outputs, field)
    if "noise_maps" in given:
        workflow.connect(regions, "covariance", differences, "covariance")
    return workflow
