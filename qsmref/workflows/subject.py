"""The graph of one participant: the one place where settings become inputs of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from .. import units
from ..analysis.region_methods import split_csf, statistic_of
from ..engines import choose_engine
from ..interfaces.references import DrawNoise
from ..interfaces.tables import LoadMap
from ..machine import threads_per_node
from ..reconstruction.checks import echo_spacing
from ..reconstruction.parameters import with_few_iterations
from ..runs import EchoRun, MapRun, Run
from ..settings import Settings
from ..sweep import parse_sweep
from ..templates import find_template
from . import outputs
from .brain import connect_magnitude
from .citations import sentence
from .coverage import init_coverage_wf
from .engine import Workflow, identifier, make_node
from .measure import RegionPlan, connect_regions
from .reconstruction import init_reconstruction_wf
from .sidecars import acquisition, imported, processing
from .spaces import connect_registration, needs_registration

#: What a sweep of masks needs of an atlas.
_OF_AN_ATLAS = ("labels", "names", "regions", "totals", "csf", "wm")


def init_subject_wf(
    *,
    subject: str,
    runs: Sequence[Run],
    settings: Settings,
    output_dir: str | Path,
    name: str | None = None,
) -> Workflow:
    """Build the graph of one participant.

    .. workflow::
        :graph2use: orig
        :simple_form: yes

        from qsmref.settings import Settings
        from qsmref.workflows import init_subject_wf
        wf = init_subject_wf(subject="01", runs=[], settings=Settings(), output_dir="out")

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    runs : sequence of Run
        Of :func:`qsmref.inputs.discover`; those of other participants are left out.
    settings : Settings
        All options.
    output_dir : path
        Folder of results.
    name : str, optional
        Name of the workflow, by default ``sub_<label>_wf``.

    Examples
    --------
    From a Python prompt, for a dataset in ``bids`` with labels in ``regions``::

        from qsmref.inputs import Query, discover
        from qsmref.settings import Settings
        from qsmref.workflows import init_subject_wf

        runs, problems = discover("bids", Query(derivatives={"mine": "regions"}))
        wf = init_subject_wf(subject="01", runs=runs, settings=Settings(), output_dir="out")
        wf.base_dir = "work"
        wf.run(plugin="MultiProc", plugin_args={"n_procs": 2})

    Inputs
    ------
    None; the files of `runs` are set.

    Outputs
    -------
    None; results are written to `output_dir`.
    """
    workflow = Workflow(name=name or identifier("sub", subject, "wf"))
    for run in runs:
        if run.subject == subject:
            build = init_echo_run_wf if isinstance(run, EchoRun) else init_map_run_wf
            workflow.add_nodes([build(run=run, settings=settings, output_dir=output_dir)])
    return workflow


def run_name(run: Run) -> str:
    """Name of the workflow of a run."""
    entities = [part for part in run.prefix.split("_") if not part.startswith("sub-")]
    return identifier("run", *entities, "wf")


def init_echo_run_wf(*, run: EchoRun, settings: Settings, output_dir: str | Path) -> Workflow:
    """Build the graph of one acquisition, from its echoes to the files of results.

    Parameters
    ----------
    run : EchoRun
        What was found.
    settings : Settings
        All options.
    output_dir : path
        Folder of results.

    Inputs
    ------
    None; the files of `run` are set.

    Outputs
    -------
    None; results are written to `output_dir`.
    """
    workflow = Workflow(name=run_name(run))
    shape = run.grid.shape
    inversion_params, csf = split_csf(settings.inversion, settings.inversion_params)
    parameters = {"background": settings.background_params, "inversion": inversion_params}
    if settings.sloppy:
        for step, given in parameters.items():
            parameters[step] = with_few_iterations(step, getattr(settings, step), given)
    # A mask that somebody made on purpose is kept whole, unless asked otherwise.
    quality = {"on": True, "off": False, "auto": run.mask is None}[settings.mask_quality]
    reconstruct = _reconstruction(run, settings, parameters, quality=quality, csf=csf)
    local_field = settings.background != "none"
    save_fields = outputs.init_fields_outputs_wf(
        prefix=run.prefix,
        output_dir=output_dir,
        shape=shape,
        sources=run.sources,
        local_field=local_field,
    )
    fields = ["mask", "mask_info", "confidence", "combined", "total_field"]
    fields += ["local_field"] * local_field
    workflow.connect(
        [(reconstruct, save_fields, [(f"outputnode.{f}", f"inputnode.{f}") for f in fields])]
    )
    keys = processing(settings, quality=quality, csf=csf is not None)
    register = _connect_registration(
        workflow, reconstruct, run=run, settings=settings, output_dir=output_dir
    )
    save_map = outputs.init_map_outputs_wf(
        prefix=run.prefix,
        desc="unreferenced",
        output_dir=output_dir,
        shape=shape,
        metadata=acquisition(run, settings),
        info_names=[*keys, "ReferenceStatistics", *["Registration"] * (register is not None)],
    )
    workflow.connect(reconstruct, "outputnode.chimap", save_map, "inputnode.chimap")
    for i, info in enumerate(keys.values()):
        workflow.connect(reconstruct, f"outputnode.{info}", save_map, f"inputnode.info{i + 1}")
    method = {f"{step}_params": dict(given) for step, given in parameters.items()}
    method |= {"background": settings.background, "inversion": settings.inversion}
    noise = _connect_noise(workflow, reconstruct, run=run, settings=settings, **method)
    if noise is not None and csf is not None:
        workflow.connect(reconstruct, "outputnode.csf", noise, "csf")
    statistics = connect_regions(
        workflow,
        reconstruct,
        run=run,
        plan=_plan(settings),
        output_dir=output_dir,
        mask=True,
        noise=noise,
        registration=register,
    )
    last = len(keys) + 1
    workflow.connect(statistics, "info", save_map, f"inputnode.info{last}")
    if register is not None:
        workflow.connect(register, "outputnode.info", save_map, f"inputnode.info{last + 1}")
    if settings.coverage_sweep and run.regions:
        method["csf_given"] = csf is not None
        _connect_sweep(
            workflow, reconstruct, run=run, settings=settings, output_dir=output_dir, **method
        )
    return workflow


def _reconstruction(
    run: EchoRun,
    settings: Settings,
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    quality: bool,
    csf: str | None,
) -> Workflow:
    """Graph from the echoes to the map, with the files of the run as its inputs."""
    scale = run.phase_scale
    reconstruct = init_reconstruction_wf(
        shape=run.grid.shape,
        echo_times=run.echo_times,
        imaging_frequency=run.imaging_frequency,
        phase_low=scale.low,
        phase_high=scale.high,
        phase_declared=scale.declared,
        phase_sign=settings.phase_sign,
        cartesian=run.cartesian,
        phase_offset=settings.phase_offset,
        bipolar=settings.bipolar,
        echo_fit=settings.echo_fit,
        unwrap=settings.unwrap,
        mask_given=run.mask is not None,
        mask_method=settings.mask_method,
        mask_erosion=settings.mask_erosion,
        mask_quality=quality,
        mask_params=settings.mask_params,
        background=settings.background,
        background_params=parameters["background"],
        inversion=settings.inversion,
        inversion_params=parameters["inversion"],
        csf=csf,
        csf_atlases=[r.atlas for r in run.regions if r.space == "native"],
        csf_erosion=settings.reference_erosion,
        omp_nthreads=threads_per_node(settings),
        random_seed=settings.random_seed,
    )
    native = [r for r in run.regions if r.space == "native"]
    if csf is not None and native:
        reconstruct.inputs.inputnode.csf_labels = [str(r.image.path) for r in native]
        reconstruct.inputs.inputnode.csf_names = [str(r.table) for r in native]
    reconstruct.inputs.inputnode.magnitude = run.magnitude_files
    reconstruct.inputs.inputnode.phase = run.phase_files
    if run.mask is not None:
        reconstruct.inputs.inputnode.mask = str(run.mask.path)
    return reconstruct


def init_map_run_wf(*, run: MapRun, settings: Settings, output_dir: str | Path) -> Workflow:
    """Build the graph of a map that somebody else made: the same tables, no reconstruction.

    Labels in another space come to it as they do to a map made here, by its magnitude or by
    transforms that a derivative has.

    Parameters
    ----------
    run : MapRun
        What was found.
    settings : Settings
        All options.
    output_dir : path
        Folder of results.

    Inputs
    ------
    None; the files of `run` are set.

    Outputs
    -------
    None; results are written to `output_dir`.
    """
    workflow = Workflow(name=run_name(run), methods=sentence("regions", "imported"))
    shape, mask = run.grid.shape, run.mask is not None
    load = make_node(LoadMap(), "load_map", shape=shape, volumes=4)
    load.inputs.chimap = str(run.chimap.path)
    # The same interface for both kinds of runs, as connect_regions wants it.
    source = pe.Workflow(name="source_wf")
    fields = ["chimap", "mask", "info", "combined", "brain"]
    outputnode = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    source.connect(load, "chimap", outputnode, "chimap")
    source.connect(load, "info", outputnode, "info")
    infos = ["."]
    if mask:
        load.inputs.mask = str(run.mask.path)
        source.connect(load, "mask", outputnode, "mask")
        source.connect(load, "mask", outputnode, "brain")
        infos.append("ReferenceStatistics")
    connect_magnitude(
        source,
        load,
        outputnode,
        run=run,
        mask_method=settings.mask_method,
        mask_params=settings.mask_params,
        random_seed=settings.random_seed,
    )
    register = _connect_registration(
        workflow, source, run=run, settings=settings, output_dir=output_dir
    )
    if register is not None:
        infos.append("Registration")
    save_map = outputs.init_map_outputs_wf(
        prefix=run.prefix,
        desc="imported",
        output_dir=output_dir,
        shape=shape,
        metadata=imported(run),
        info_names=infos,
    )
    workflow.connect(source, "outputnode.chimap", save_map, "inputnode.chimap")
    workflow.connect(source, "outputnode.info", save_map, "inputnode.info1")
    statistics = connect_regions(
        workflow,
        source,
        run=run,
        plan=_plan(settings),
        output_dir=output_dir,
        mask=mask,
        registration=register,
    )
    if mask:
        workflow.connect(statistics, "info", save_map, "inputnode.info2")
    if register is not None:
        workflow.connect(register, "outputnode.info", save_map, f"inputnode.info{len(infos)}")
    return workflow


def _connect_registration(
    workflow: Workflow,
    reconstruct: Workflow,
    *,
    run: Run,
    settings: Settings,
    output_dir: str | Path,
) -> Workflow | None:
    """Add the registration, if a template or the space of the labels asks for it."""
    template = None
    if settings.template is not None:
        template = find_template(settings.template, settings.template_mask)
    if not needs_registration(run, template):
        return None
    return connect_registration(
        workflow,
        reconstruct,
        run=run,
        template=template,
        engine=choose_engine(settings.engine),
        output_dir=output_dir,
        random_seed=settings.random_seed,
    )


def _plan(settings: Settings) -> RegionPlan:
    return RegionPlan(
        references=settings.references,
        reference=settings.reference,
        groups=settings.label_groups,
        min_coverage=settings.min_coverage,
        erosion=settings.region_erosion,
        statistic=settings.statistic,
        csf=settings.csf,
        reference_erosion=settings.reference_erosion,
        random_seed=settings.random_seed,
    )


def _connect_noise(
    workflow: Workflow, reconstruct: Workflow, *, run: EchoRun, settings: Settings, **method: Any
) -> pe.Node | None:
    """Add the maps with other noise, if they are wanted."""
    if not (settings.noise_repeats and run.regions):
        return None
    threads = threads_per_node(settings)
    node = make_node(
        DrawNoise(repeats=settings.noise_repeats, **method),
        "noise_maps",
        shape=run.grid.shape,
        volumes=8,
        threads=threads,
    )
    spacing = echo_spacing(run.echo_times)
    node.inputs.radians_per_ppm = units.radians_per_ppm(spacing, run.imaging_frequency)
    made = {"field": "field", "noise": "noise", "mask": "mask", "combined": "magnitude"}
    workflow.connect(
        [(reconstruct, node, [(f"field_wf.outputnode.{a}", b) for a, b in made.items()])]
    )
    workflow.connect(reconstruct, "outputnode.inversion_info", node, "inversion_info")
    return node


def _connect_sweep(
    workflow: Workflow,
    reconstruct: Workflow,
    *,
    run: EchoRun,
    settings: Settings,
    output_dir: str | Path,
    **method: Any,
) -> None:
    """Add the sweep of masks, which starts from the unwrapped field."""
    shape, atlases = run.grid.shape, [regions.atlas for regions in run.regions]
    chosen = [statistic_of(settings.statistic, regions.space) for regions in run.regions]
    sweep = init_coverage_wf(
        shape=shape,
        coverages=parse_sweep(settings.coverage_sweep or ()),
        radians_per_ppm=units.radians_per_ppm(echo_spacing(run.echo_times), run.imaging_frequency),
        atlases=atlases,
        references=settings.references,
        region_erosion=settings.region_erosion,
        statistics=dict(zip(atlases, chosen, strict=True)),
        omp_nthreads=threads_per_node(settings),
        random_seed=settings.random_seed,
        **method,
    )
    made = {"field": "field", "noise": "noise", "mask": "mask", "combined": "magnitude"}
    workflow.connect(
        [
            (
                reconstruct,
                sweep,
                [(f"field_wf.outputnode.{a}", f"inputnode.{b}") for a, b in made.items()],
            )
        ]
    )
    workflow.connect(reconstruct, "outputnode.inversion_info", sweep, "inputnode.inversion_info")
    if method["csf_given"]:
        workflow.connect(reconstruct, "outputnode.csf", sweep, "inputnode.csf")
    for atlas in atlases:
        measure = workflow.get_node(identifier("atlas", atlas, "wf"))
        name = identifier("save", atlas, "coverage")
        sink = outputs.make_coverage_sink(
            prefix=run.prefix, atlas=atlas, output_dir=output_dir, shape=shape, name=name
        )
        passed = [(f"outputnode.{k}", f"inputnode.{k}_{atlas}") for k in _OF_AN_ATLAS]
        workflow.connect([(measure, sweep, passed)])
        workflow.connect(sweep, f"outputnode.table_{atlas}", sink, "in_file")
        workflow.connect(sweep, f"outputnode.info_{atlas}", sink, "info_files")
