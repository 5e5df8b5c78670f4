"""From the echoes to the susceptibility map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from .. import units
from ..interfaces.echoes import BrainMask, CorrectPhase, EchoFit, LoadEchoes
from ..interfaces.fields import CheckSign, ConvertField, Invert, RemoveBackground, Unwrap
from ..reconstruction.checks import echo_spacing
from .citations import sentence
from .engine import Workflow, make_node


def init_reconstruction_wf(
    *,
    shape: Sequence[int],
    echo_times: Sequence[float],
    imaging_frequency: float,
    phase_low: float | None = None,
    phase_high: float | None = None,
    phase_declared: bool = False,
    phase_sign: int = 1,
    phase_offset: str = "none",
    bipolar: bool = False,
    echo_fit: str = "nonlinear",
    unwrap: str = "romeo",
    mask_given: bool = False,
    mask_method: str = "surface",
    mask_erosion: float = 0.0,
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = "reconstruction_wf",
) -> Workflow:
    """Build the graph from magnitude and phase to fields and a susceptibility map.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.workflows import init_reconstruction_wf
        wf = init_reconstruction_wf(
            shape=(64, 64, 40), echo_times=(0.004, 0.008), imaging_frequency=123e6
        )

    Parameters
    ----------
    shape : (3,) int
        Voxels of the images, for the estimate of memory.
    echo_times : sequence of float
        s
    imaging_frequency : float
        Larmor frequency, Hz.
    phase_low, phase_high : float, optional
        Stored values that mean -pi and pi; None for radians.
    phase_declared : bool
        Whether the user vouches for radians.
    phase_sign : {1, -1}
        Factor for the phase.
    bipolar : bool
        Whether echoes were read in alternating directions.
    phase_offset, echo_fit, unwrap, mask_method, background, inversion : str
        Names of :mod:`qsmref.reconstruction.methods`.
    mask_given : bool
        Whether the input `mask` will be connected.
    mask_erosion : float
        mm
    background_params, inversion_params : mapping, optional
        Parameters of these methods.
    omp_nthreads : int
        Threads of one node.
    random_seed : int, optional
        Seed of the generators in each node.
    name : str
        Name of the workflow.

    Inputs
    ------
    magnitude, phase
        Images of the echoes, in their order.
    mask
        Brain mask, when `mask_given`.

    Outputs
    -------
    chimap
        Susceptibility, ppm.
    mask
        Where it is valid.
    combined
        Magnitude, combined over echoes.
    total_field, local_field
        Hz; the local field only with a background removal.
    echo_info, mask_info, phase_info, unwrap_info, sign_info, background_info, inversion_info
        What each step did; `phase_info` only where the phase was corrected.
    """
    workflow = Workflow(name=name)
    common = {"shape": shape, "threads": omp_nthreads, "random_seed": random_seed}
    echoes = len(echo_times)
    steps = {"mask": "derivative" if mask_given else mask_method, "phase_offset": phase_offset}
    steps |= {"echo_fit": echo_fit, "unwrap": unwrap}
    steps |= {"background": background, "inversion": inversion}
    if phase_offset == "none":
        del steps["phase_offset"]
    workflow.methods = " ".join(sentence(step, method) for step, method in steps.items())

    inputs = pe.Node(niu.IdentityInterface(["magnitude", "phase", "mask"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_OUTPUTS), name="outputnode")
    load = make_node(LoadEchoes(), "load_echoes", volumes=3 * echoes, **common)
    load.inputs.trait_set(phase_declared=phase_declared, phase_sign=phase_sign)
    if phase_low is not None:
        load.inputs.trait_set(phase_low=phase_low, phase_high=phase_high)
    mask = make_node(BrainMask(), "brain_mask", volumes=2 * echoes + 8, **common)
    mask.inputs.trait_set(method=mask_method, erosion=mask_erosion)
    fit = make_node(EchoFit(), "echo_fit", volumes=3 * echoes + 6, **common)
    fit.inputs.trait_set(echo_times=list(echo_times), method=echo_fit)
    unwrapping = make_node(Unwrap(), "unwrap", volumes=10, **common)
    unwrapping.inputs.method = unwrap

    phase = load
    if bipolar or phase_offset != "none":
        phase = make_node(CorrectPhase(), "correct_phase", volumes=4 * echoes + 8, **common)
        phase.inputs.trait_set(echo_times=list(echo_times), bipolar=bipolar, offset=phase_offset)
        workflow.connect(load, "magnitude", phase, "magnitude")
        workflow.connect(load, "phase", phase, "phase")
        workflow.connect(mask, "mask", phase, "mask")
        workflow.connect(phase, "info", outputs, "phase_info")
    workflow.connect(
        [
            (inputs, load, [("magnitude", "magnitude"), ("phase", "phase")]),
            (load, mask, [("magnitude", "magnitude")]),
            (load, fit, [("magnitude", "magnitude")]),
            (phase, fit, [("phase", "phase")]),
            (mask, fit, [("mask", "mask")]),
            (fit, unwrapping, [("field", "field")]),
            (mask, unwrapping, [("mask", "mask")]),
            (load, unwrapping, [("combined", "magnitude")]),
            (load, outputs, [("combined", "combined")]),
            (mask, outputs, [("info", "mask_info")]),
            (fit, outputs, [("info", "echo_info")]),
            (unwrapping, outputs, [("info", "unwrap_info")]),
        ]
    )
    if mask_given:
        workflow.connect(inputs, "mask", mask, "mask_file")
    inversion_wf = init_inversion_wf(
        shape=shape,
        radians_per_ppm=units.radians_per_ppm(echo_spacing(echo_times), imaging_frequency),
        hz_per_ppm=units.hz_per_ppm(imaging_frequency),
        background=background,
        background_params=background_params,
        inversion=inversion,
        inversion_params=inversion_params,
        omp_nthreads=omp_nthreads,
        random_seed=random_seed,
    )
    workflow.connect(
        [
            (unwrapping, inversion_wf, [("field", "inputnode.field")]),
            (fit, inversion_wf, [("noise", "inputnode.noise")]),
            (mask, inversion_wf, [("mask", "inputnode.mask")]),
            (load, inversion_wf, [("combined", "inputnode.magnitude")]),
        ]
    )
    passed = ("chimap", "mask", "total_field", "sign_info", "background_info", "inversion_info")
    for field in passed:
        workflow.connect(inversion_wf, f"outputnode.{field}", outputs, field)
    if background != "none":
        workflow.connect(inversion_wf, "outputnode.local_field", outputs, "local_field")
    return workflow


_OUTPUTS = [
    "chimap",
    "mask",
    "combined",
    "total_field",
    "local_field",
    "echo_info",
    "mask_info",
    "phase_info",
    "unwrap_info",
    "sign_info",
    "background_info",
    "inversion_info",
]


def init_inversion_wf(
    *,
    shape: Sequence[int],
    radians_per_ppm: float,
    hz_per_ppm: float,
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = "inversion_wf",
) -> Workflow:
    """Build the graph from the unwrapped total field to the map.

    It starts where a change of the mask makes itself felt, so that other masks can be tried
    without another fit.

    Parameters
    ----------
    shape : (3,) int
        Voxels of the images.
    radians_per_ppm, hz_per_ppm : float
        Factors of :mod:`qsmref.units`.
    background, inversion : str
        Names of :mod:`qsmref.reconstruction.methods`.
    background_params, inversion_params : mapping, optional
        Parameters of these methods.
    omp_nthreads, random_seed, name
        As for :func:`init_reconstruction_wf`.

    Inputs
    ------
    field, noise
        Unwrapped total field and its standard deviation, rad.
    mask
        Brain mask.
    magnitude
        (x, y, z)

    Outputs
    -------
    chimap
        Susceptibility, ppm.
    mask
        Where it is valid.
    total_field, local_field
        Hz; the local field only with a background removal.
    sign_info, background_info, inversion_info
        What each step did.
    """
    workflow = Workflow(name=name)
    common = {"shape": shape, "threads": omp_nthreads, "random_seed": random_seed}
    inputs = pe.Node(
        niu.IdentityInterface(["field", "noise", "mask", "magnitude"]), name="inputnode"
    )
    fields = ["chimap", "mask", "total_field", "local_field"]
    fields += ["sign_info", "background_info", "inversion_info"]
    outputs = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    sign = make_node(CheckSign(), "check_sign", volumes=8, **common)

    def convert(step: str, factor: float) -> pe.Node:
        node = make_node(ConvertField(), step, volumes=3, **common)
        node.inputs.factor = factor
        return node

    total_ppm = convert("field_in_ppm", 1 / radians_per_ppm)
    noise_ppm = convert("noise_in_ppm", 1 / radians_per_ppm)
    total_hz = convert("total_field_in_hz", hz_per_ppm)
    # The iterative methods hold up to 16 volumes of a padded grid, about 2.5 times the voxels.
    remove = make_node(RemoveBackground(), "background", volumes=2.5 * 16, **common)
    remove.inputs.trait_set(method=background, parameters=dict(background_params or {}))
    invert = make_node(Invert(), "inversion", volumes=2.5 * 16, **common)
    invert.inputs.trait_set(
        method=inversion,
        parameters=dict(inversion_params or {}),
        radians_per_ppm=radians_per_ppm,
    )
    workflow.connect(
        [
            (inputs, total_ppm, [("field", "field")]),
            (inputs, noise_ppm, [("noise", "field")]),
            (inputs, remove, [("mask", "mask")]),
            (total_ppm, total_hz, [("field", "field")]),
            (total_ppm, sign, [("field", "field")]),
            (inputs, sign, [("mask", "mask"), ("magnitude", "magnitude")]),
            (sign, outputs, [("info", "sign_info")]),
            (total_ppm, remove, [("field", "field")]),
            (noise_ppm, remove, [("field", "noise")]),
            (remove, invert, [("field", "field"), ("mask", "mask")]),
            (noise_ppm, invert, [("field", "noise")]),
            (inputs, invert, [("magnitude", "magnitude")]),
            (total_hz, outputs, [("field", "total_field")]),
            (remove, outputs, [("info", "background_info")]),
            (
                invert,
                outputs,
                [("chimap", "chimap"), ("mask", "mask"), ("info", "inversion_info")],
            ),
        ]
    )
    if background != "none":
        local_hz = convert("local_field_in_hz", hz_per_ppm)
        workflow.connect(remove, "field", local_hz, "field")
        workflow.connect(local_hz, "field", outputs, "local_field")
    return workflow
