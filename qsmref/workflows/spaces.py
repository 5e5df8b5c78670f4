"""The graph that brings one map to T1w and template space, and writes what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..anatomy import MAP_SPACE
from ..interfaces.registration import Resample
from ..runs import Anatomy, EchoRun, Run, Source
from ..templates import Template
from . import outputs
from .citations import sentence
from .engine import Workflow, make_node
from .measure import map_name
from .registration import init_registration_wf

#: Transform that changes nothing, for maps on the grid of the T1-weighted image.
_IDENTITY = Path(__file__).parents[1] / "data" / "identity_xfm.txt"


def needs_registration(run: Run, template: Template | None) -> bool:
    """Whether a run is to be registered: to a template, or for labels in another space."""
    return template is not None or any(r.space != "native" for r in run.regions)


def connect_registration(
    workflow: Workflow,
    reconstruct: Workflow,
    *,
    run: Run,
    template: Template | None,
    engine: str,
    output_dir: str | Path,
    random_seed: int | None = None,
) -> Workflow:
    """Add registration, transforms and warped map to the graph of a run.

    Parameters
    ----------
    workflow : Workflow
        Of the run.
    reconstruct : Workflow
        Of :func:`~qsmref.workflows.init_reconstruction_wf`; for a map that somebody else made, one
        whose ``outputnode`` has `chimap`, `mask`, `combined` and `brain` as far as they are there.
    run : Run
        What was found; its anatomy says what a derivative has computed.
    template : Template or None
        Where maps are brought to; None for the T1-weighted image only.
    engine : {"ants", "fsl"}
        See :func:`~qsmref.workflows.init_registration_wf`.
    output_dir : path
        Folder of results.
    random_seed
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Returns
    -------
    Workflow
        That of the registration.
    """
    anatomy = run.anatomy
    given = anatomy.to_template is not None and template is not None
    register = init_registration_wf(
        shape=_largest(run, template),
        engine=engine,
        t1w=anatomy.t1w is not None,
        template=template is not None,
        template_mask=template is not None and template.mask is not None,
        t1w_preprocessed=anatomy.preprocessed,
        t1w_mask_given=anatomy.mask is not None,
        map_to_t1w_given=anatomy.map_to_t1w is not None or anatomy.on_grid,
        map_on_t1w=anatomy.on_grid,
        t1w_to_template_given=given,
        random_seed=random_seed,
    )
    for field, path in _given_files(anatomy, template, given).items():
        setattr(register.inputs.inputnode, field, str(path))
    # Parts with bad phase are brain all the same: the mask before that is the one to register.
    echoes = isinstance(run, EchoRun)
    brain = "field_wf.brain_mask.mask" if echoes else "outputnode.brain"
    workflow.connect(reconstruct, "outputnode.combined", register, "inputnode.magnitude")
    if echoes or run.mask is not None or run.brain_is_made:
        workflow.connect(reconstruct, brain, register, "inputnode.mask")
    _save_transforms(workflow, register, run, template, given, output_dir)
    # A map without a mask has no edge that could be averaged.
    if template is not None and (echoes or run.mask is not None):
        warp = init_template_outputs_wf(
            prefix=run.prefix,
            space=template.name,
            desc=map_name(run),
            output_dir=output_dir,
            shape=_largest(run, template),
            metadata=_acquired(run),
        )
        warp.inputs.inputnode.template = str(template.image)
        passed = {"to_template": "transforms", "to_template_invert": "invert", "info": "info"}
        workflow.connect(
            [
                (
                    reconstruct,
                    warp,
                    [(f"outputnode.{f}", f"inputnode.{f}") for f in ("chimap", "mask")],
                ),
                (
                    register,
                    warp,
                    [(f"outputnode.{a}", f"inputnode.{b}") for a, b in passed.items()],
                ),
            ]
        )
    return register


def _acquired(run: Run) -> dict[str, Any]:
    """Of the acquisition, for the sidecar of a map in the template."""
    if isinstance(run, EchoRun):
        return {
            "MagneticFieldStrength": run.field_strength,
            "EchoTime": list(run.echo_times),
        }
    return {k: run.metadata[k] for k in ("MagneticFieldStrength", "EchoTime") if k in run.metadata}


def init_template_outputs_wf(
    *,
    prefix: str,
    space: str,
    desc: str,
    output_dir: str | Path,
    shape: Sequence[int],
    metadata: dict[str, Any],
    name: str = "in_template_wf",
) -> Workflow:
    """Bring map and mask to the template, each with one interpolation, and write them.

    Parameters
    ----------
    prefix : str
        Entities of the run.
    space : str
        Name of the template.
    desc : str
        Of the map.
    output_dir : path
        Folder of results.
    shape : (3,) int
        Voxels of the largest image.
    metadata : dict
        Of the acquisition, for the sidecar.
    name : str
        Name of the workflow.

    Inputs
    ------
    chimap, mask
        On the grid of the map.
    template
        Image whose grid is aimed at.
    transforms, invert, info
        Of :func:`~qsmref.workflows.init_registration_wf`.

    Outputs
    -------
    chimap, mask
        In the template.
    """
    workflow = Workflow(name=name, methods=sentence("registration", "template"))
    fields = ["chimap", "mask", "template", "transforms", "invert", "info"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    made = pe.Node(niu.IdentityInterface(["chimap", "mask"]), name="outputnode")
    native = outputs.derivative_name(prefix, desc=desc, suffix="Chimap")
    plans = {
        "chimap": (
            "linear",
            outputs.derivative_name(prefix, space=space, desc=desc, suffix="Chimap"),
            {
                "Description": "Susceptibility map in the space of the template; its zero is "
                "arbitrary",
                "SusceptibilityReference": "none: the transform of the map is zero at k = 0",
                "SkullStripped": True,
                "Units": "ppm",
                **metadata,
            },
        ),
        "mask": (
            "label",
            outputs.derivative_name(prefix, space=space, desc="brain", suffix="mask"),
            {"Type": "Brain", "Description": "Voxels in which the map is valid"},
        ),
    }
    for field, (interpolation, out_name, told) in plans.items():
        warp = make_node(
            Resample(interpolation=interpolation),
            f"warp_{field}",
            shape=shape,
            volumes=16,
        )
        sources = [outputs.own_uri(native)]
        save = outputs.make_sink(
            f"save_{field}_in_template",
            out_name,
            output_dir,
            shape=shape,
            metadata={**told, "SpatialReference": space, "Sources": sources},
            info_names=["Registration"],
        )
        workflow.connect(
            [
                (inputs, warp, [(field, "moving"), ("template", "reference")]),
                (inputs, warp, [("transforms", "transforms"), ("invert", "invert")]),
                (inputs, save, [("info", "info_files")]),
                (warp, save, [("out_file", "in_file")]),
                (warp, made, [("out_file", field)]),
            ]
        )
    return workflow


def _save_transforms(workflow, register, run, template, given, output_dir) -> None:
    """Write the transforms that were computed; those of a derivative stay where they are."""
    anatomy = run.anatomy
    middle = "T1w" if anatomy.t1w is not None else MAP_SPACE
    plans = {}
    if anatomy.t1w is not None and anatomy.map_to_t1w is None and not anatomy.on_grid:
        plans["map_to_t1w"] = (MAP_SPACE, "T1w", ".txt")
    if template is not None and not given:
        plans["forward"] = (middle, template.name, ".h5")
        plans["inverse"] = (template.name, middle, ".h5")
    sources = list(dict.fromkeys(s.uri for s in (*run.magnitude, *anatomy.used)))
    for field, (origin, target, extension) in plans.items():
        out_name = outputs.derivative_name(
            run.prefix,
            **{"from": origin, "to": target, "mode": "image"},
            suffix="xfm",
            extension=extension,
        )
        save = outputs.make_sink(
            f"save_{field}",
            out_name,
            output_dir,
            shape=run.grid.shape,
            metadata={
                "Description": f"Brings images from {origin} to {target} (ITK, mm)",
                "Sources": sources,
            },
            info_names=["Registration"],
        )
        workflow.connect(register, f"outputnode.{field}", save, "in_file")
        workflow.connect(register, "outputnode.info", save, "info_files")


def _given_files(anatomy: Anatomy, template: Template | None, given: bool) -> dict[str, Path]:
    """Inputs of the registration that are files already."""
    files: dict[str, Source | Path | None] = {
        "t1w": anatomy.t1w,
        "t1w_mask": anatomy.mask,
        "map_to_t1w": _IDENTITY if anatomy.on_grid else anatomy.map_to_t1w,
    }
    if template is not None:
        files |= {"template": template.image, "template_mask": template.mask}
    if given:
        files |= {"t1w_to_template": anatomy.to_template, "template_to_t1w": anatomy.from_template}
    return {
        field: value.path if isinstance(value, Source) else value
        for field, value in files.items()
        if value is not None
    }


def _largest(run: Run, template: Template | None) -> tuple[int, ...]:
    """Shape of the largest image that takes part."""
    shapes = [run.grid.shape]
    if run.anatomy.t1w is not None:
        shapes.append(run.anatomy.t1w.grid.shape)
    if template is not None:
        shapes.append(template.grid.shape)
    return max(shapes, key=lambda shape: float(np.prod(shape)))
