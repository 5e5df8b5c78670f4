"""From the echoes to the total field, unwrapped, with its noise and the brain mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.echoes import CorrectPhase, EchoFit, LoadEchoes, QualityMask
from ..interfaces.fields import Unwrap
from ..reconstruction import methods
from ..reconstruction.parameters import split_mask_parameters
from .brain import connect_brain
from .citations import sentence
from .engine import Workflow, make_node

_OUTPUTS = ["field", "noise", "mask", "combined"]
_INFOS = ["load_info", "mask_info", "phase_info", "echo_info", "quality_info", "unwrap_info"]


def init_field_wf(
    *,
    shape: Sequence[int],
    echo_times: Sequence[float],
    phase_low: float | None = None,
    phase_high: float | None = None,
    phase_declared: bool = False,
    phase_sign: int = 1,
    cartesian: bool = False,
    phase_offset: str = "none",
    bipolar: bool = False,
    echo_fit: str = "anchored",
    unwrap: str = "romeo",
    mask_given: bool = False,
    mask_method: str = "surface",
    mask_erosion: float = 0.0,
    mask_quality: bool = False,
    mask_params: Mapping[str, Any] | None = None,
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = "field_wf",
) -> Workflow:
    """Build the graph from magnitude and phase to the unwrapped total field.

    Parameters
    ----------
    shape, echo_times, phase_low, phase_high, phase_declared, phase_sign, cartesian
        As for :func:`~qsmref.workflows.init_reconstruction_wf`, and so are all others.

    Inputs
    ------
    magnitude, phase
        Images of the echoes, in their order.
    mask
        Brain mask, when `mask_given`.

    Outputs
    -------
    field, noise
        Total field and its standard deviation, rad per echo spacing.
    mask
        Brain mask, after the criteria of phase quality.
    combined
        Magnitude, combined over echoes.
    load_info, mask_info, echo_info, unwrap_info
        What each step did.
    phase_info, quality_info
        The same, where the phase was corrected or the mask was cut.
    """
    workflow = Workflow(name=name)
    light = {"shape": shape, "random_seed": random_seed}
    common = {**light, "threads": omp_nthreads}
    echoes, times = len(echo_times), list(echo_times)
    steps = {"mask": "derivative" if mask_given else mask_method}
    steps |= {"phase_offset": phase_offset} if phase_offset != "none" else {}
    steps |= {"echo_fit": echo_fit, "unwrap": unwrap}
    workflow.methods = " ".join(sentence(step, method) for step, method in steps.items())

    inputs = pe.Node(niu.IdentityInterface(["magnitude", "phase", "mask"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface([*_OUTPUTS, *_INFOS]), name="outputnode")
    load = make_node(LoadEchoes(), "load_echoes", volumes=3 * echoes + 8, **light)
    load.inputs.trait_set(phase_declared=phase_declared, phase_sign=phase_sign, cartesian=cartesian)
    if phase_low is not None:
        load.inputs.trait_set(phase_low=phase_low, phase_high=phase_high)
    # A mask that is given needs no program, whatever would make the others.
    making = methods.MASK[0] if mask_given else mask_method
    mask = connect_brain(
        workflow,
        load,
        "brain_mask",
        method=making,
        parameters=mask_params,
        volumes=2 * echoes + 8,
        **common,
    )
    mask.inputs.erosion = mask_erosion
    if mask_given:
        workflow.connect(inputs, "mask", mask, "mask_file")
    fit = make_node(EchoFit(), "echo_fit", volumes=3 * echoes + 6, **common)
    fit.inputs.trait_set(echo_times=times, method=echo_fit)
    unwrapping = make_node(Unwrap(), "unwrap", volumes=10, **common)
    unwrapping.inputs.method = unwrap

    phase = load
    if bipolar or phase_offset != "none":
        phase = make_node(CorrectPhase(), "correct_phase", volumes=4 * echoes + 8, **common)
        phase.inputs.trait_set(echo_times=times, bipolar=bipolar, offset=phase_offset)
        _connect_correction(workflow, load, mask, phase, outputs)
    trusted = mask
    if mask_quality:
        trusted = make_node(QualityMask(), "mask_quality", volumes=16, **common)
        trusted.inputs.parameters = split_mask_parameters(mask_method, mask_params or {})[1]
        _connect_quality(workflow, mask, fit, trusted, outputs)
    workflow.connect(
        [
            (inputs, load, [("magnitude", "magnitude"), ("phase", "phase")]),
            (load, fit, [("magnitude", "magnitude")]),
            (phase, fit, [("phase", "phase")]),
            (mask, fit, [("mask", "mask")]),
            (fit, unwrapping, [("field", "field")]),
            (trusted, unwrapping, [("mask", "mask")]),
            (load, unwrapping, [("combined", "magnitude")]),
            (load, outputs, [("combined", "combined"), ("info", "load_info")]),
            (mask, outputs, [("info", "mask_info")]),
            (trusted, outputs, [("mask", "mask")]),
            (fit, outputs, [("noise", "noise"), ("info", "echo_info")]),
            (unwrapping, outputs, [("field", "field"), ("info", "unwrap_info")]),
        ]
    )
    return workflow


def _connect_correction(
    workflow: Workflow, load: pe.Node, mask: pe.Node, phase: pe.Node, outputs: pe.Node
) -> None:
    """Put the correction of the phase between the echoes and their fit."""
    workflow.connect(
        [
            (load, phase, [("magnitude", "magnitude"), ("phase", "phase")]),
            (mask, phase, [("mask", "mask")]),
            (phase, outputs, [("info", "phase_info")]),
        ]
    )


def _connect_quality(
    workflow: Workflow, mask: pe.Node, fit: pe.Node, trusted: pe.Node, outputs: pe.Node
) -> None:
    """Put the criteria of phase quality behind the fit."""
    workflow.connect(
        [
            (mask, trusted, [("mask", "mask")]),
            (fit, trusted, [(f, f) for f in ("field", "noise", "residual")]),
            (trusted, outputs, [("info", "quality_info")]),
        ]
    )
