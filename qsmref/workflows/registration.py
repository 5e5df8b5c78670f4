"""From the grid of the map to the T1-weighted image and the template, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from .. import engines
from ..anatomy import THROUGH_T1W
from ..interfaces import registration as steps
from .citations import sentence
from .engine import Node, Workflow, make_node

_INPUTS = ["magnitude", "mask", "t1w", "t1w_mask", "template", "template_mask"]
#: Transforms that may be given instead of being computed.
_GIVEN = ["map_to_t1w", "t1w_to_template", "template_to_t1w"]
_LISTS = ["to_template", "from_template", "to_t1w", "from_t1w"]
_MADE = ["map_to_t1w", "forward", "inverse"]


def init_registration_wf(
    *,
    shape: Sequence[int],
    engine: str = "ants",
    t1w: bool = True,
    template: bool = True,
    template_mask: bool = True,
    t1w_preprocessed: bool = False,
    t1w_mask_given: bool = False,
    map_to_t1w_given: bool = False,
    map_on_t1w: bool = False,
    t1w_to_template_given: bool = False,
    random_seed: int | None = None,
    name: str = "registration_wf",
) -> Workflow:
    """Build the graph that registers a map to the T1-weighted image and to the template.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.workflows import init_registration_wf
        wf = init_registration_wf(shape=(64, 64, 40))

    Parameters
    ----------
    shape : (3,) int
        Voxels of the largest image, for the estimate of memory.
    engine : {"ants", "fsl"}
        What finds the brain and bias field of the T1-weighted image and brings the map to it.
    t1w : bool
        Whether there is a T1-weighted image; without one the magnitude goes to the template
        directly.
    template : bool
        Whether the template is wanted; without it the graph ends at the T1-weighted image.
    template_mask : bool
        Whether the input `template_mask` will be connected; otherwise the template has no skull.
    t1w_preprocessed, t1w_mask_given, map_to_t1w_given, t1w_to_template_given : bool
        What a derivative has: a T1-weighted image without bias field, its brain mask, transforms.
        Without a T1-weighted image, `t1w_to_template_given` are those of the map itself.
    map_on_t1w : bool
        The map lies on the grid of the T1-weighted image, and `map_to_t1w` changes nothing.
    random_seed, name
        As for :func:`~qsmref.workflows.init_reconstruction_wf`.

    Inputs
    ------
    magnitude, mask
        On the grid of the map: echoes combined, and the brain in it.
    t1w, t1w_mask
        T1-weighted image; its brain, when `t1w_mask_given`.
    template, template_mask
        Head or brain to register to; its brain, when `template_mask`.
    map_to_t1w, t1w_to_template, template_to_t1w
        ITK transforms, when they are given; each brings images from the first to the second.

    Outputs
    -------
    to_template, from_template, to_t1w, from_t1w
        Lists of ITK transforms in the order of ANTs; ``to_`` brings what is on the grid of the map
        there, ``from_`` brings what is there to the grid of the map.
    to_template_invert, from_template_invert, to_t1w_invert, from_t1w_invert
        Which of them to invert.
    map_to_t1w, forward, inverse
        The transforms that were computed: of the map, to the template, and from it.
    t1w_preproc, t1w_mask
        T1-weighted image without bias field, and its brain as far as it was needed.
    info
        Engine, versions, what was precomputed, and what each step reached.
    """
    if not (t1w or template):
        raise ValueError("there is nothing to register to: neither a T1w image nor a template")
    workflow = Workflow(name=name)
    inputs = pe.Node(niu.IdentityInterface([*_INPUTS, *_GIVEN]), name="inputnode")
    flags = [f"{chain}_invert" for chain in _LISTS]
    fields = [*_LISTS, *flags, *_MADE, "t1w_preproc", "t1w_mask", "info"]
    outputs = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    plan = _Plan(workflow, inputs, outputs, {"shape": shape, "random_seed": random_seed})
    plan.content = {"Engine": engine, "Software": engines.versions(engine)}
    if t1w:
        plan.content["Through"] = THROUGH_T1W
        add = _add_t1w_fsl if engine == "fsl" else _add_t1w_ants
        need_brain = template and not t1w_to_template_given
        add(plan, t1w_preprocessed, t1w_mask_given, map_to_t1w_given, need_brain)
        if map_on_t1w:
            plan.content["MapToT1w"] = "none: both images have one grid"
            plan.methods("one-grid")
        elif map_to_t1w_given:
            plan.methods("precomputed-rigid")
    elif t1w_to_template_given:
        plan.content["Through"] = "transforms of the map itself"
    else:
        _add_magnitude(plan)
    if template:
        _add_template(plan, template_mask, t1w_to_template_given)
    _add_chains(plan, t1w, template)
    _add_info(plan)
    workflow.methods = " ".join(sentence("registration", m) for m in plan.told)
    return workflow


class _Plan:
    """The graph while it is made: where image, mask and transforms come from so far."""

    def __init__(self, workflow: Workflow, inputs: pe.Node, outputs: pe.Node, machine: dict):
        self.workflow, self.inputs, self.outputs, self._machine = workflow, inputs, outputs, machine
        self.content: dict[str, Any] = {}
        self.infos: dict[str, tuple[pe.Node, str]] = {}
        self.told: list[str] = []
        # Pairs of node and output.
        self.image = self.mask = self.domain = self.rigid = self.forward = self.inverse = None

    def step(self, interface, name: str, volumes: float) -> pe.Node:
        # One thread each: with more of them registration does not repeat itself.
        return make_node(interface, name, volumes=volumes, **self._machine)

    def program(self, interface, name: str) -> pe.Node:
        """Step of a program of FSL, which has one thread."""
        return Node(interface, name=name, n_procs=1, mem_gb=1.0)

    def connect(self, source, output: str, target, field: str) -> None:
        self.workflow.connect(source, output, target, field)

    def methods(self, *names: str) -> None:
        self.told += [name for name in names if name not in self.told]


def _add_magnitude(plan: _Plan) -> None:
    """The magnitude in place of a T1-weighted image."""
    plan.content["Through"] = "the magnitude alone: there is no T1-weighted image"
    plan.methods("magnitude", "n4")
    bias = plan.step(steps.CorrectBias(), "bias_of_magnitude", 12)
    plan.connect(plan.inputs, "magnitude", bias, "in_file")
    plan.connect(plan.inputs, "mask", bias, "mask")
    plan.image, plan.mask = (bias, "out_file"), (plan.inputs, "mask")


def _add_info(plan: _Plan) -> None:
    """What is known before the run, and what each step reached, as one object."""
    tell = plan.step(steps.Tell(content=plan.content, names=list(plan.infos)), "info", 1)
    if plan.infos:
        merge = pe.Node(niu.Merge(len(plan.infos)), name="infos", run_without_submitting=True)
        for i, source in enumerate(plan.infos.values(), start=1):
            plan.connect(*source, merge, f"in{i}")
        plan.connect(merge, "out", tell, "infos")
    plan.connect(tell, "info", plan.outputs, "info")


def _add_t1w_ants(
    plan: _Plan, preprocessed: bool, mask_given: bool, rigid_given: bool, brain: bool
) -> None:
    """Rigid registration, the brain of the T1w image from that of the map, bias field by N4."""
    inputs, connect = plan.inputs, plan.connect
    plan.image = (inputs, "t1w")
    _add_rigid(plan, rigid_given)
    plan.mask = (inputs, "t1w_mask")
    if mask_given:
        plan.content["BrainOfT1w"] = "precomputed"
    elif brain:
        plan.content["BrainOfT1w"] = "that of the map"
        mask = plan.step(steps.Resample(interpolation="label"), "brain_of_t1w", 8)
        view = plan.step(steps.FieldOfView(), "view_of_map", 8)
        for node, source in ((mask, "mask"), (view, "magnitude")):
            connect(inputs, source, node, "moving")
            connect(inputs, "t1w", node, "reference")
            connect(*plan.rigid, node, "transforms")
        plan.mask, plan.domain = (mask, "out_file"), (view, "out_file")
    if brain or mask_given:
        connect(*plan.mask, plan.outputs, "t1w_mask")
    if preprocessed:
        plan.content["BiasField"] = "precomputed"
    elif brain:
        # Inside the brain alone: scalp is so bright that the field would follow it.
        bias = plan.step(steps.CorrectBias(), "bias_of_t1w", 12)
        connect(inputs, "t1w", bias, "in_file")
        connect(*plan.mask, bias, "mask")
        plan.image, plan.content["BiasField"] = (bias, "out_file"), "N4"
        plan.methods("n4")
    connect(*plan.image, plan.outputs, "t1w_preproc")


def _add_rigid(plan: _Plan, given: bool) -> None:
    if given:
        plan.rigid, plan.content["MapToT1w"] = (plan.inputs, "map_to_t1w"), "precomputed"
        return
    rigid = plan.step(steps.RegisterRigid(), "register_to_t1w", 20)
    plan.connect(*plan.image, rigid, "fixed")
    plan.connect(plan.inputs, "magnitude", rigid, "moving")
    plan.connect(plan.inputs, "mask", rigid, "moving_mask")
    plan.connect(rigid, "transform", plan.outputs, "map_to_t1w")
    plan.rigid, plan.infos["MapToT1w"] = (rigid, "transform"), (rigid, "info")
    plan.methods("rigid")


def _add_t1w_fsl(
    plan: _Plan, preprocessed: bool, mask_given: bool, rigid_given: bool, brain: bool
) -> None:
    """The same by BET, FAST and FLIRT."""
    from ..interfaces import fsl

    inputs, connect = plan.inputs, plan.connect
    plan.content["BiasField"] = "precomputed" if preprocessed else "FAST"
    plan.content["BrainOfT1w"] = "precomputed" if mask_given else "BET"
    if mask_given:
        extract = plan.program(fsl.mask(), "brain_of_t1w")
        connect(inputs, "t1w_mask", extract, "mask_file")
        plan.mask = (inputs, "t1w_mask")
    else:
        extract = plan.program(fsl.bet(), "brain_of_t1w")
        plan.mask = (extract, "mask_file")
        plan.methods("bet")
    connect(inputs, "t1w", extract, "in_file")
    plan.image = (extract, "out_file")
    if not preprocessed:
        bias = plan.program(fsl.fast(), "bias_of_t1w")
        connect(extract, "out_file", bias, "in_files")
        plan.image = (bias, "restored_image")
        plan.methods("fast")
    connect(*plan.image, plan.outputs, "t1w_preproc")
    connect(*plan.mask, plan.outputs, "t1w_mask")
    if rigid_given:
        _add_rigid(plan, True)
        return
    inside = plan.program(fsl.mask(), "brain_of_map")
    register = plan.program(fsl.flirt(), "register_to_t1w")
    convert = plan.step(steps.FlirtToItk(), "flirt_to_itk", 1)
    connect(inputs, "magnitude", inside, "in_file")
    connect(inputs, "mask", inside, "mask_file")
    connect(inside, "out_file", register, "in_file")
    connect(*plan.image, register, "reference")
    connect(register, "out_matrix_file", convert, "matrix")
    connect(inside, "out_file", convert, "moving")
    connect(*plan.image, convert, "reference")
    connect(convert, "transform", plan.outputs, "map_to_t1w")
    plan.rigid, plan.infos["MapToT1w"] = (convert, "transform"), (convert, "info")
    plan.methods("flirt")


def _add_template(plan: _Plan, mask: bool, given: bool) -> None:
    """Affine and SyN, or the transforms that a derivative has."""
    if given:
        plan.forward, plan.inverse = ((plan.inputs, field) for field in _GIVEN[1:])
        plan.content["ToTemplate"] = "precomputed"
        through_t1w = plan.content["Through"] == THROUGH_T1W
        plan.methods("precomputed" if through_t1w else "precomputed-map")
        return
    register = plan.step(steps.RegisterToTemplate(), "register_to_template", 45)
    plan.connect(plan.inputs, "template", register, "template")
    if mask:
        plan.connect(plan.inputs, "template_mask", register, "template_mask")
    plan.connect(*plan.image, register, "image")
    plan.connect(*plan.mask, register, "mask")
    if plan.domain is not None:
        plan.connect(*plan.domain, register, "domain")
    plan.forward, plan.inverse = (register, "forward"), (register, "inverse")
    for field in ("forward", "inverse"):
        plan.connect(register, field, plan.outputs, field)
    plan.infos["ToTemplate"] = (register, "info")
    plan.methods("syn")


def _add_chains(plan: _Plan, t1w: bool, template: bool) -> None:
    """Lists of transforms: from the fixed to the moving space, as ANTs wants them."""
    rigid = [plan.rigid] if t1w else []
    chains = {}
    if template:
        chains["to_template"] = ([plan.forward, *rigid], [False] * (1 + t1w))
        chains["from_template"] = ([*rigid, plan.inverse], [True] * t1w + [False])
    if t1w:
        chains["to_t1w"] = (rigid, [False])
        chains["from_t1w"] = (rigid, [True])
    for chain, (sources, invert) in chains.items():
        merge = pe.Node(niu.Merge(len(sources)), name=chain, run_without_submitting=True)
        for i, source in enumerate(sources, start=1):
            plan.connect(*source, merge, f"in{i}")
        plan.connect(merge, "out", plan.outputs, chain)
        setattr(plan.outputs.inputs, f"{chain}_invert", invert)
