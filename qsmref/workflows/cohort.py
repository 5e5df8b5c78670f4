"""From the maps of all participants in the template to their average."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..interfaces.cohort import AverageMaps
from .citations import sentence
from .engine import Workflow, make_node
from .outputs import make_sink


def init_cohort_wf(
    *,
    space: str,
    chimaps: Sequence[str | Path],
    masks: Sequence[str | Path],
    participants: Sequence[str],
    output_dir: str | Path,
    shape: Sequence[int],
    sources: Sequence[str] = (),
    name: str = "cohort_wf",
) -> Workflow:
    """Build the graph from warped maps to their mean and SD.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.workflows import init_cohort_wf
        wf = init_cohort_wf(
            space="MNI", chimaps=[], masks=[], participants=[], output_dir="out", shape=(4, 4, 4)
        )

    Parameters
    ----------
    space : str
        Name of the template.
    chimaps, masks : sequence of path
        Maps in the template, and where they are valid.
    participants : sequence of str
        Whose each of them is: several maps of one participant count as one.
    output_dir : path
        Folder of results; the images go to ``group``.
    shape : (3,) int
        Voxels of the template.
    sources : sequence of str
        BIDS URIs of the maps.
    name : str
        Name of the workflow.

    Inputs
    ------
    None; the files are set.

    Outputs
    -------
    None; ``group/space-<space>_desc-mean_Chimap.nii.gz`` and ``desc-sd`` are written.
    """
    workflow = Workflow(name=name, methods=sentence("registration", "average"))
    average = make_node(AverageMaps(), "average_maps", shape=shape, volumes=24)
    if chimaps:
        average.inputs.trait_set(
            chimaps=[str(p) for p in chimaps],
            masks=[str(p) for p in masks],
            participants=list(participants),
        )
    described = {
        "mean": "Mean of the susceptibility maps of the cohort in the space of the template",
        "sd": "Standard deviation of the susceptibility maps of the cohort, over participants",
    }
    for desc, description in described.items():
        sink = make_sink(
            f"save_{desc}",
            f"group/space-{space}_desc-{desc}_Chimap.nii.gz",
            output_dir,
            shape=shape,
            metadata={
                "Description": description,
                "Units": "ppm",
                "SkullStripped": True,
                "SusceptibilityReference": "mean over the brain mask, of each map before it is "
                "averaged",
                "SpatialReference": space,
                "Sources": list(sources),
            },
            info_names=["."],
        )
        workflow.connect(average, desc, sink, "in_file")
        workflow.connect(average, "info", sink, "info_files")
    return workflow
