"""Run a graph on this machine, for commands that are no BIDS App (the phantom study)."""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from .. import files
from ..problems import DataError, ExitCode
from .engine import Workflow


def run_locally(build: Callable[[], Workflow], work_dir: Path, nprocs: int) -> Workflow:
    """Build a graph and run it; steps whose inputs are those of the last time are not done again.

    Parameters
    ----------
    build : callable
        Makes the graph, once nipype's options are set: a graph takes them from there.
    work_dir : Path
        Where intermediate results stay.
    nprocs : int
        Steps that run at the same time.

    Returns
    -------
    Workflow
        What was run.

    Raises
    ------
    DataError
        The sentence of the step that failed.
    """
    # nipype asks a server for its newest version when it is imported, unless told not to.
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    work_dir = Path(work_dir).absolute()
    work_dir.mkdir(parents=True, exist_ok=True)
    _configure(work_dir)
    workflow = build()
    workflow.base_dir = str(work_dir)
    started = time.time()
    arguments = {"n_procs": nprocs, "raise_insufficient": False, "mp_context": "forkserver"}
    plugin = "MultiProc" if nprocs > 1 else "Linear"
    try:
        # What nipype writes into the current folder stays in the work folder.
        with contextlib.chdir(work_dir):
            workflow.run(plugin=plugin, plugin_args=arguments)
    except Exception as error:
        raise told_by(work_dir / workflow.name, started, error) from error
    return workflow


def told_by(folder: Path, started: float, error: Exception) -> DataError:
    """What the step that failed left as a note, or what the engine says.

    Parameters
    ----------
    folder : Path
        Of the workflow.
    started : float
        When it was started (:func:`time.time`): notes of an earlier run are of that run.
    error : Exception
        What ended the workflow.
    """
    from ..interfaces.base import PROBLEM_FILE

    notes = [n for n in folder.rglob(PROBLEM_FILE) if n.stat().st_mtime >= started - 1]
    for note in sorted(notes):
        content = json.loads(note.read_text(encoding="utf-8"))
        step = note.parent.name.replace("_", " ")
        return DataError(f"{step}: {content['sentence']}", ExitCode(content["code"]))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(f"The graph stopped: {lines[-1]}", ExitCode.INTERNAL)


def _configure(work_dir: Path) -> None:
    """Set nipype's own options, here and for its workers; they are global to a process."""
    sections = {
        "execution": {
            "crashdump_dir": str(work_dir / "crashes"),
            "crashfile_format": "txt",
            "create_report": "false",
            "hash_method": "content",
            "poll_sleep_duration": "0.05",
            "stop_on_first_crash": "true",
        },
        "logging": dict.fromkeys(["workflow_level", "utils_level", "interface_level"], "CRITICAL"),
    }
    text, parser = io.StringIO(), configparser.ConfigParser()
    parser.read_dict(sections)
    parser.write(text)
    files.write_text(work_dir / "nipype" / "nipype.cfg", text.getvalue())
    os.environ["NIPYPE_CONFIG_DIR"] = str(work_dir / "nipype")

    from nipype import config, logging

    config.update_config(sections)
    logging.update_logging(config)
