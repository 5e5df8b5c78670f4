"""The graph of all participants, and how nipype is told to run it."""

from __future__ import annotations

import configparser
import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsmref import files
from qsmref.engines import choose_engine
from qsmref.machine import available_cores, available_memory, threads_per_node
from qsmref.problems import DataError, ExitCode
from qsmref.runs import Run
from qsmref.settings import Settings
from qsmref.sweep import parse_sweep
from qsmref.workflows.engine import Workflow, identifier
from qsmref.workflows.subject import init_subject_wf, run_name

from .progress import SINK, Progress

#: Name of the graph, and of its folder in the work folder.
NAME = "qsmref_wf"
#: Plugins of nipype that are known to end when the work has ended, and to tell what failed.
PLUGINS = ("Linear", "MultiProc", "SLURM", "SLURMGraph", "SGE", "PBS", "LSF")


def init_app_wf(runs: Sequence[Run], settings: Settings, output_dir: Path) -> Workflow:
    """Graph of all participants."""
    workflow = Workflow(name=NAME, base_dir=str(settings.work_dir.absolute()))
    for subject in dict.fromkeys(run.subject for run in runs):
        graph = init_subject_wf(
            subject=subject, runs=runs, settings=settings, output_dir=output_dir
        )
        workflow.add_nodes([graph])
    return workflow


def make_progress(
    workflow: Workflow, runs: Sequence[Run], settings: Settings, output_dir: Path, plugin: str
) -> Progress:
    """Observer of a run of the graph by a plugin of nipype."""
    by_name = {(identifier("sub", r.subject, "wf"), run_name(r)): r for r in runs}
    nodes = [name.split(".") for name in workflow.list_node_names()]
    sinks = {
        run.prefix: sum(1 for n in nodes if tuple(n[:2]) == key and n[-1].startswith(SINK))
        for key, run in by_name.items()
    }
    return Progress(
        by_name,
        sinks,
        output_dir / "logs",
        verbose=settings.verbose,
        tells_all=plugin not in ("MultiProc", "SLURMGraph"),
        say=_say,
    )


def _say(line: str) -> None:
    print(line, flush=True)


def configure(settings: Settings, output_dir: Path) -> None:
    """Set nipype's own options; they are global to the process."""
    # Failures are told in one sentence; the tracebacks are in the crash files.
    level = {0: "CRITICAL", 1: "WARNING"}.get(settings.verbose, "INFO")
    sections = {
        "execution": {
            "crashdump_dir": str(output_dir / "logs"),
            "crashfile_format": "txt",
            "create_report": "false",
            # Results are reused by content: a copied dataset or a restored work folder counts.
            "hash_method": "content",
            # nipype looks this often, in seconds, whether a step has ended.
            "poll_sleep_duration": "0.05",
            "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
        },
        "logging": dict.fromkeys(["workflow_level", "utils_level", "interface_level"], level),
        "monitoring": {
            "enabled": str(settings.resource_monitor).lower(),
            "summary_file": str(settings.work_dir.absolute() / NAME / "resource_monitor.json"),
        },
    }
    # Workers are new processes, here or on a cluster; they find the options in this file. Commands
    # with other options may share the work folder.
    text = io.StringIO()
    parser = configparser.ConfigParser()
    parser.read_dict(sections)
    parser.write(text)
    digest = hashlib.sha256(text.getvalue().encode()).hexdigest()[:12]
    folder = settings.work_dir.absolute() / "nipype" / digest
    files.write_text(folder / "nipype.cfg", text.getvalue())
    os.environ["NIPYPE_CONFIG_DIR"] = str(folder)

    from nipype import config, logging

    from .plugin import hush

    config.update_config(sections)
    logging.update_logging(config)
    hush()
    config.resource_monitor = settings.resource_monitor


def choose_plugin(settings: Settings) -> tuple[str, dict[str, Any]]:
    """Plugin of nipype that runs the graph, and its arguments.

    Raises
    ------
    DataError
        When the plugin file is not what it should be.
    """
    if settings.use_plugin is not None:
        chosen = _plugin_file(settings.use_plugin)
        name, arguments = chosen["plugin"], dict(chosen.get("plugin_args", {}))
    else:
        processes = settings.nprocs or available_cores()
        name = "Linear" if processes == 1 else "MultiProc"
        arguments = {"n_procs": processes}
    if name == "MultiProc":
        arguments.setdefault("n_procs", settings.nprocs or available_cores())
        # nipype would take what the machine has, whatever a container or a job may use of it.
        arguments.setdefault("memory_gb", settings.mem or available_memory())
        # A node that wants more than there is runs alone instead of stopping the graph.
        arguments.setdefault("raise_insufficient", False)
        # Workers are started clean: a fork would inherit the threads of numerical libraries.
        arguments.setdefault("mp_context", "forkserver")
    return name, arguments


def make_plugin(name: str, arguments: dict[str, Any]) -> Any:
    """What ``Workflow.run`` takes as plugin: a name, or an object of ours."""
    if name == "Linear":
        return name
    if name == "MultiProc":
        from .plugin import SturdyMultiProcPlugin

        return SturdyMultiProcPlugin(plugin_args=arguments)
    from .cluster import careful

    return careful(name)(plugin_args=arguments)


def _plugin_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(files.read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {error}.", ExitCode.USAGE) from error
    if not isinstance(content, dict) or not isinstance(content.get("plugin"), str):
        raise DataError(f"{path} must have the key 'plugin' with a name.", ExitCode.USAGE)
    if content["plugin"] not in PLUGINS:
        raise DataError(
            f"{path}: plugin {content['plugin']!r} is not one of {', '.join(PLUGINS)}.",
            ExitCode.USAGE,
        )
    if not isinstance(content.get("plugin_args", {}), dict):
        raise DataError(f"{path}: 'plugin_args' must be a table.", ExitCode.USAGE)
    return content


def write_graph(workflow: Workflow, output_dir: Path) -> Path:
    """Draw the graph to ``logs/graph.dot``, and to ``graph.svg`` where graphviz is installed."""
    target = output_dir / "logs" / "graph.dot"
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("dot"):
        workflow.write_graph(
            dotfilename=str(target), graph2use="colored", format="svg", simple_form=True
        )
    else:
        workflow.write_hierarchical_dotfile(dotfilename=str(target), colored=True)
    return target


def plan(runs: Sequence[Run], settings: Settings) -> list[str]:
    """What would be done, for ``--dry-run``."""
    lines = []
    for run in runs:
        echoes = getattr(run, "echo_times", ())
        what = f"{len(echoes)} echoes" if echoes else "a map made by another program"
        size = " x ".join(str(n) for n in run.grid.shape)
        voxel = " x ".join(f"{h:.3g}" for h in run.voxel_size)
        mask = f"mask {run.mask.name}" if run.mask else "no mask given"
        atlases = ", ".join(r.atlas for r in run.regions) or "none"
        lines.append(
            f"{run.prefix}: {what}, {size} voxels of {voxel} mm; {mask}; atlases: {atlases}"
            f"{_registration(run, settings)}"
        )
    steps = f"{settings.echo_fit} fit, {settings.unwrap}, background {settings.background}"
    lines.append(f"methods: {steps}, inversion {settings.inversion}")
    if settings.coverage_sweep:
        masks = [coverage.name for coverage in parse_sweep(settings.coverage_sweep)]
        lines.append(f"masks: {', '.join(masks)}")
    lines.append(f"threads of a step: {threads_per_node(settings)}")
    return lines


def _registration(run: Run, settings: Settings) -> str:
    """What a run is registered through, in words; nothing where it is not."""
    if settings.template is None and all(r.space == "native" for r in run.regions):
        return ""
    used = ", ".join(source.name for source in run.anatomy.used) or "no T1w image"
    target = f" to the template {settings.template}" if settings.template else ""
    return f"; registration ({choose_engine(settings.engine)}){target} through: {used}"
