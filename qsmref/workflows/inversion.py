"""From the unwrapped total field to the susceptibility map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from ..interfaces.fields import CheckSign, ConvertField, Invert, RemoveBackground
from .citations import sentence
from .engine import Workflow, make_node


def init_inversion_wf(
    *,
    shape: Sequence[int],
    radians_per_ppm: float,
    hz_per_ppm: float,
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    csf_given: bool = False,
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
    csf_given : bool
        Whether the input `csf` will be connected.
    omp_nthreads, random_seed, name
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Inputs
    ------
    field, noise
        Unwrapped total field and its standard deviation, rad.
    mask
        Brain mask.
    magnitude
        (x, y, z)
    csf
        Cerebrospinal fluid, when `csf_given`.

    Outputs
    -------
    chimap
        Susceptibility, ppm.
    mask
        Where it is valid.
    confidence
        Voxels of it that have data of their own.
    total_field, local_field
        Hz; the local field only with a background removal.
    sign_info, background_info, inversion_info
        What each step did.
    """
    texts = (sentence("background", background), sentence("inversion", inversion))
    workflow = Workflow(name=name, methods=" ".join(texts))
    common = {"shape": shape, "random_seed": random_seed}
    inputs = pe.Node(
        niu.IdentityInterface(["field", "noise", "mask", "magnitude", "csf"]), name="inputnode"
    )
    fields = ["chimap", "mask", "confidence", "total_field", "local_field"]
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
    remove = make_node(
        RemoveBackground(), "background", volumes=2.5 * 16, threads=omp_nthreads, **common
    )
    remove.inputs.trait_set(method=background, parameters=dict(background_params or {}))
    invert = make_node(Invert(), "inversion", volumes=2.5 * 16, threads=omp_nthreads, **common)
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
                [
                    ("chimap", "chimap"),
                    ("mask", "mask"),
                    ("confidence", "confidence"),
                    ("info", "inversion_info"),
                ],
            ),
        ]
    )
    if csf_given:
        workflow.connect(inputs, "csf", invert, "csf")
    if background != "none":
        local_hz = convert("local_field_in_hz", hz_per_ppm)
        workflow.connect(remove, "field", local_hz, "field")
        workflow.connect(local_hz, "field", outputs, "local_field")
    return workflow
