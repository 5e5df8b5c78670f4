"""The brain mask: a step of ours, before it a program of FSL where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.pipeline import engine as pe

from ..interfaces.echoes import BrainMask, CombineMagnitudes
from ..reconstruction.parameters import split_mask_parameters
from ..runs import MapRun
from .engine import Node, make_node


def connect_brain(
    workflow: pe.Workflow,
    load: pe.Node,
    name: str,
    *,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    shape: Sequence[int],
    volumes: float,
    threads: int = 1,
    random_seed: int | None = None,
) -> Node:
    """Add the step that makes a brain mask, and return it.

    Parameters
    ----------
    workflow : Workflow
        Where it is added.
    load : Node
        Has the outputs `magnitude`, (x, y, z, echo), and `combined`, the root of its sum of squares
        over echoes.
    name : str
        Name of the step.
    method : str
        One of ``MASK`` of :mod:`qsmref.reconstruction.methods`. ``bet`` is run on `combined`.
    parameters : mapping, optional
        Of the method; criteria of phase quality among them are left alone.
    shape, volumes, threads, random_seed
        As for :func:`qsmref.workflows.engine.make_node`.
    """
    machine = {"shape": shape, "volumes": volumes, "threads": threads, "random_seed": random_seed}
    mask = make_node(BrainMask(), name, **machine)
    mask.inputs.method = method
    workflow.connect(load, "magnitude", mask, "magnitude")
    if method == "bet":
        from ..interfaces import fsl

        own, _ = split_mask_parameters(method, parameters or {})
        mask.inputs.parameters = own
        extract = Node(fsl.bet(own["fraction"]), name=f"{name}_bet", n_procs=1, mem_gb=1.0)
        workflow.connect(load, "combined", extract, "in_file")
        workflow.connect(extract, "mask_file", mask, "extracted")
    return mask


def connect_magnitude(
    source: pe.Workflow,
    load: pe.Node,
    outputnode: pe.Node,
    *,
    run: MapRun,
    mask_method: str,
    mask_params: Mapping[str, Any] | None = None,
    random_seed: int | None = None,
) -> None:
    """Add what registers a map of others: its magnitude, and the brain in it where none is given.

    Without a magnitude the map stands for its grid: nothing is registered by its values.
    """
    if not run.magnitude:
        source.connect(load, "chimap", outputnode, "combined")
        return
    echoes = len(run.magnitude)
    combine = make_node(
        CombineMagnitudes(),
        "load_magnitude",
        shape=run.grid.shape,
        volumes=2 * echoes,
        random_seed=random_seed,
    )
    combine.inputs.magnitude = run.magnitude_files
    source.connect(combine, "combined", outputnode, "combined")
    if run.brain_is_made:
        brain = connect_brain(
            source,
            combine,
            "brain_of_magnitude",
            method=mask_method,
            parameters=mask_params,
            shape=run.grid.shape,
            volumes=2 * echoes + 8,
            random_seed=random_seed,
        )
        source.connect(brain, "mask", outputnode, "brain")
