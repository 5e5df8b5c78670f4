"""The graph that checks the labels of one atlas and brings them to the grid of the map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.tables import LoadLabels, ResampleLabels
from .citations import sentence
from .engine import Workflow, make_node


def init_labels_wf(
    *,
    shape: Sequence[int],
    atlas: str,
    groups: str | Path | None = None,
    resampled: bool = False,
    random_seed: int | None = None,
    name: str = "labels_wf",
) -> Workflow:
    """Build the graph from a label image to labels on the grid of a map.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.workflows import init_labels_wf
        wf = init_labels_wf(shape=(64, 64, 40), atlas="CIT168", resampled=True)

    Parameters
    ----------
    shape : (3,) int
        Voxels of the map.
    atlas : str
        Name of the atlas.
    groups : path, optional
        Table of groups of labels, see :func:`qsmref.atlases.read_groups`.
    resampled : bool
        Whether the labels lie in another space; `reference`, `transforms` and `invert` will be
        connected then.
    random_seed, name
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Inputs
    ------
    labels, names
        Label image, and the table of its names.
    reference
        Image on the grid of the map.
    transforms, invert
        ITK transforms from the space of the labels to the map, in the order of ANTs, and which of
        them to invert.

    Outputs
    -------
    labels, names
        On the grid of the map.
    totals
        Voxels of each label if the image reached as far as the region; with `resampled`.
    """
    methods = sentence("regions", "resampled") if resampled else ""
    workflow = Workflow(name=name, methods=methods)
    common = {"shape": shape, "random_seed": random_seed}
    fields = ["labels", "names", "reference", "transforms", "invert"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["labels", "names", "totals"]), name="outputnode")
    load = make_node(LoadLabels(atlas=atlas), "load_labels", volumes=8, **common)
    if groups is not None:
        # nipype forgets relative paths when it changes the folder.
        load.inputs.groups = str(Path(groups).absolute())
    workflow.connect(
        [
            (inputs, load, [("labels", "labels"), ("names", "names")]),
            (load, outputs, [("names", "names")]),
        ]
    )
    if not resampled:
        workflow.connect(load, "labels", outputs, "labels")
        return workflow
    resample = make_node(ResampleLabels(), "resample_labels", volumes=16, **common)
    workflow.connect(
        [
            (inputs, resample, [(f, f) for f in ("reference", "transforms", "invert")]),
            (load, resample, [("labels", "labels")]),
            (resample, outputs, [("labels", "labels"), ("totals", "totals")]),
        ]
    )
    return workflow
