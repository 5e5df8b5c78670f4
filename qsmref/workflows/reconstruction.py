"""From the echoes to the susceptibility map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from .. import units
from ..interfaces.references import TissueMasks
from ..reconstruction.checks import echo_spacing
from .citations import sentence
from .engine import Workflow, make_node
from .field import init_field_wf
from .inversion import init_inversion_wf

_OUTPUTS = [
    "chimap",
    "mask",
    "confidence",
    "combined",
    "total_field",
    "local_field",
    "csf",
    "csf_info",
]
_INFOS = ["load_info", "mask_info", "phase_info", "echo_info", "quality_info", "unwrap_info"]
_INFOS += ["sign_info", "background_info", "inversion_info"]


def init_reconstruction_wf(
    *,
    shape: Sequence[int],
    echo_times: Sequence[float],
    imaging_frequency: float,
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
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    csf: str | None = None,
    csf_atlases: Sequence[str] = (),
    csf_erosion: float = 2.0,
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
    cartesian : bool
        Whether `magnitude` and `phase` are the real and the imaginary part.
    bipolar : bool
        Whether echoes were read in alternating directions.
    phase_offset, echo_fit, unwrap, mask_method, background, inversion : str
        Names of :mod:`qsmref.reconstruction.methods`.
    mask_given : bool
        Whether the input `mask` will be connected.
    mask_erosion : float
        mm
    mask_quality : bool
        Whether parts of the mask's surface with bad phase are cut.
    mask_params, background_params, inversion_params : mapping, optional
        Criteria of the phase quality (and what `mask_method` takes), and parameters of these
        methods.
    csf : {"auto", "labels", "r2star"}, optional
        Where the fluid of the ventricles comes from that ``medi`` makes zero (MEDI+0), see
        :func:`qsmref.analysis.tissues.tissue_masks`; by default it is not looked for.
    csf_atlases : sequence of str
        Names of the label images in `csf_labels`.
    csf_erosion : float
        mm, of fluid that comes from labels.
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
    csf_labels, csf_names
        Label images on the grid of the map and their tables, one for each of `csf_atlases`.

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
    load_info, echo_info, mask_info, unwrap_info, sign_info, background_info, inversion_info
        What each step did.
    phase_info, quality_info
        The same, where the phase was corrected or the mask was cut.
    csf, csf_info
        Mask of the fluid and where it comes from, with `csf`.
    """
    workflow = Workflow(name=name)
    machine = {"omp_nthreads": omp_nthreads, "random_seed": random_seed}
    fields = ["magnitude", "phase", "mask", "csf_labels", "csf_names"]
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface([*_OUTPUTS, *_INFOS]), name="outputnode")
    field = init_field_wf(
        shape=shape,
        echo_times=echo_times,
        phase_low=phase_low,
        phase_high=phase_high,
        phase_declared=phase_declared,
        phase_sign=phase_sign,
        cartesian=cartesian,
        phase_offset=phase_offset,
        bipolar=bipolar,
        echo_fit=echo_fit,
        unwrap=unwrap,
        mask_given=mask_given,
        mask_method=mask_method,
        mask_erosion=mask_erosion,
        mask_quality=mask_quality,
        mask_params=mask_params,
        **machine,
    )
    invert = init_inversion_wf(
        shape=shape,
        radians_per_ppm=units.radians_per_ppm(echo_spacing(echo_times), imaging_frequency),
        hz_per_ppm=units.hz_per_ppm(imaging_frequency),
        background=background,
        background_params=background_params,
        inversion=inversion,
        inversion_params=inversion_params,
        csf_given=csf is not None,
        **machine,
    )
    given = ["magnitude", "phase"] + ["mask"] * mask_given
    made = {"field": "field", "noise": "noise", "mask": "mask", "combined": "magnitude"}
    told = ["combined", "load_info", "mask_info", "echo_info", "unwrap_info"]
    told += ["phase_info"] * (bipolar or phase_offset != "none") + ["quality_info"] * mask_quality
    passed = ["chimap", "mask", "confidence", "total_field"]
    passed += ["sign_info", "background_info", "inversion_info"]
    passed += ["local_field"] * (background != "none")
    workflow.connect(
        [
            (inputs, field, [(name, f"inputnode.{name}") for name in given]),
            (field, invert, [(f"outputnode.{a}", f"inputnode.{b}") for a, b in made.items()]),
            (field, outputs, [(f"outputnode.{name}", name) for name in told]),
            (invert, outputs, [(f"outputnode.{name}", name) for name in passed]),
        ]
    )
    if csf is not None:
        fluid = _ventricles(csf, csf_atlases, csf_erosion, echo_times, shape)
        used = {"magnitude": "magnitude"}
        used |= {"csf_labels": "labels", "csf_names": "names"} if csf_atlases else {}
        workflow.connect(
            [
                (inputs, fluid, list(used.items())),
                (field, fluid, [("outputnode.mask", "mask")]),
                (fluid, invert, [("csf", "inputnode.csf")]),
                (fluid, outputs, [("csf", "csf"), ("info", "csf_info")]),
            ]
        )
        workflow.methods = sentence("inversion", "medi+0")
    return workflow


def _ventricles(
    csf: str,
    atlases: Sequence[str],
    erosion: float,
    echo_times: Sequence[float],
    shape: Sequence[int],
) -> pe.Node:
    """Node that finds the fluid which MEDI+0 makes zero."""
    node = make_node(TissueMasks(), "ventricles", shape=shape, volumes=16)
    node.inputs.trait_set(csf=csf, erosion=erosion, required=True, echo_times=list(echo_times))
    if atlases:
        node.inputs.atlases = list(atlases)
    return node
