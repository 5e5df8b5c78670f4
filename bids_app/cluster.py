"""nipype's plugins for clusters, made to notice what goes wrong there.

What they lack: a job that the system refuses ends the whole graph; results of an earlier run pass
for those of a job that never started; a plugin for graphs returns when all is submitted, tells
nothing of failures, and leaves their dependants in the queue for ever; nobody passes on what a node
needs of a machine; an interrupt leaves the jobs running.
"""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from pathlib import Path
from typing import Any

import networkx
from nipype.pipeline import plugins as nipype_plugins
from nipype.pipeline.plugins.slurm import SLURMPlugin
from nipype.pipeline.plugins.slurmgraph import SLURMGraphPlugin
from nipype.pipeline.plugins.tools import create_pyscript, report_crash
from nipype.utils.filemanip import loadpkl
from nipype.utils.misc import str2bool

from qsmref.interfaces.base import PROBLEM_FILE

from . import slurm
from .plugin import Outspoken

#: From a plugin of nipype to the argument that goes to the program that submits.
ARGUMENTS = {
    "SLURM": "sbatch_args",
    "SLURMGraph": "sbatch_args",
    "SGE": "qsub_args",
    "PBS": "qsub_args",
    "LSF": "bsub_args",
}
#: How Slurm is told what a node needs; for the others it differs from place to place.
SLURM_RESOURCES = "--mem={mb}M --cpus-per-task={threads}"
#: A job imports more than a worker does, and its limit kills: MB and factor on top.
_MORE_MB, _MORE = 250, 1.2
#: Seconds between two looks at the queue.
_POLL_SECONDS = 5.0


def needs(node: Any) -> dict[str, int]:
    """What a node needs of a machine, in the words of the option ``resources``.

    Returns
    -------
    dict
        ``threads``; ``mb`` and ``gb``, memory of the job; ``mb_per_thread``.
    """
    threads = max(1, int(node.n_procs))
    mb = math.ceil(_MORE * 1000 * node.mem_gb) + _MORE_MB
    return {
        "threads": threads,
        "mb": mb,
        "gb": math.ceil(mb / 1000),
        "mb_per_thread": math.ceil(mb / threads),
    }


def forget(node: Any) -> None:
    """Remove what an earlier run left of a node that is about to run."""
    folder = Path(node.output_dir())
    for pattern in ("result_*.pklz", "_0x*.json", PROBLEM_FILE):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def failure(node: Any) -> str | None:
    """Why a node whose job has ended has no result, or None when it has one."""
    folder = Path(node.output_dir())
    path = folder / f"result_{node.name}.pklz"
    if not path.is_file():
        return f"The job of {node.fullname} ended without a result."
    result = loadpkl(str(path))
    if isinstance(result, dict):
        return "".join(result["traceback"] or [])
    return getattr(result.runtime, "traceback", None)


def job_name(node: Any) -> str:
    """Name of the job of a node: the same in each run from one work folder, and only there."""
    place = hashlib.sha256(str(Path(node.base_dir).absolute()).encode()).hexdigest()[:8]
    return f"qsmref-{place}-{node.fullname}"


def cancel_leftovers(names: set[str], patience: float = 60.0) -> None:
    """Stop jobs of these names that a killed command has left behind, and wait for their end."""
    deadline = time.monotonic() + patience
    while left := [number for number, job in slurm.queue().items() if job.name in names]:
        slurm.cancel(left)
        if time.monotonic() > deadline:
            raise slurm.SlurmError(f"jobs of an earlier command do not end: {left}")
        time.sleep(1)


class _Queue:
    """The queue of Slurm, looked at now and then."""

    def __init__(self, poll_seconds: float):
        self._poll, self._jobs, self._last = poll_seconds, {}, -math.inf

    def jobs(self, since: float = 0.0) -> dict[int, slurm.Job] | None:
        """Living jobs as of a moment after `since`; None when that is not known yet."""
        if time.monotonic() - self._last >= self._poll:
            try:
                jobs = slurm.queue()
            except slurm.SlurmError:
                # The controller is busy or restarts. It knows the jobs when it comes back.
                return None
            dead = [n for n, job in jobs.items() if job.reason in slurm.DEAD]
            self._last, self._jobs = time.monotonic(), jobs
            self._cancel(dead)
        return self._jobs if self._last > since else None

    def _cancel(self, dead: list[int]) -> None:
        mine = [n for n in dead if self._jobs[n].name.startswith("qsmref-")]
        slurm.cancel(mine)


class Careful(Outspoken):
    """Mixed into plugins that submit one node at a time."""

    def __init__(self, plugin_args: dict[str, Any] | None = None):
        arguments = dict(plugin_args or {})
        self._resources = arguments.get("resources", "")
        self._poll_seconds = float(arguments.get("poll_seconds", _POLL_SECONDS))
        self._refused: dict[str, str] = {}
        self._nodes: dict[Any, Any] = {}
        self._looked: dict[Any, float] = {}
        super().__init__(plugin_args=arguments)

    def _submit_job(self, node: Any, updatehash: bool = False) -> Any:
        forget(node)
        if self._resources:
            name = ARGUMENTS[self._plugin]
            text = self._resources.format(**needs(node))
            node.plugin_args = {**node.plugin_args, name: text}
        try:
            taskid = super()._submit_job(node, updatehash=updatehash)
        except Exception as error:
            # One node that is refused is no reason to leave the others alone.
            taskid = f"refused-{len(self._refused)}"
            self._refused[taskid] = "".join(traceback.format_exception(error))
        self._nodes[taskid] = node
        return taskid

    def _get_result(self, taskid: Any) -> dict[str, Any] | None:
        if taskid in self._refused:
            return {"result": None, "traceback": [self._refused[taskid]]}
        if time.monotonic() - self._looked.get(taskid, -math.inf) < self._poll_seconds:
            return None
        self._looked[taskid] = time.monotonic()
        found = super()._get_result(taskid)
        if found and not found["traceback"]:
            words = getattr(getattr(found["result"], "runtime", None), "traceback", None)
            found["traceback"] = [words] if words else None
        return found

    def _clear_task(self, taskid: Any) -> None:
        if taskid not in self._refused:
            super()._clear_task(taskid)


class CarefulSLURM(Careful, SLURMPlugin):
    """Plugin ``SLURM``."""

    _plugin = "SLURM"

    def __init__(self, plugin_args: dict[str, Any] | None = None):
        super().__init__(plugin_args={"resources": SLURM_RESOURCES, **(plugin_args or {})})
        self._queue, self._since = _Queue(self._poll_seconds), {}

    def run(self, graph: Any, config: dict, updatehash: bool = False) -> None:
        """Run a graph; when it is interrupted, its jobs are cancelled."""
        cancel_leftovers({job_name(node) for node in graph.nodes()})
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            slurm.cancel(self._pending)

    def _is_pending(self, taskid: int) -> bool:
        jobs = self._queue.jobs(self._since[taskid])
        return jobs is None or taskid in jobs

    def _submit_batchtask(self, scriptfile: str, node: Any) -> int:
        arguments = f"{node.plugin_args.get('sbatch_args', '')} {self._sbatch_args or ''}"
        taskid = slurm.submit(
            Path(scriptfile),
            name=job_name(node),
            arguments=arguments,
            tries=self._max_tries,
            pause=self._retry_timeout,
        )
        self._pending[taskid], self._since[taskid] = node.output_dir(), time.monotonic()
        return taskid


class CarefulSLURMGraph(SLURMGraphPlugin):
    """Plugin ``SLURMGraph``: all jobs are submitted at once, with their dependencies."""

    def __init__(self, plugin_args: dict[str, Any] | None = None):
        # The base class has no defaults for the two that it reads.
        self._max_tries, self._retry_timeout = 2, 2
        arguments = {"resources": SLURM_RESOURCES, **(plugin_args or {})}
        self._callback = arguments.pop("status_callback", lambda node, status: None)
        self._resources = arguments["resources"]
        self._queue = _Queue(float(arguments.get("poll_seconds", _POLL_SECONDS)))
        super().__init__(plugin_args=arguments)

    def run(self, graph: Any, config: dict, updatehash: bool = False) -> None:
        """Run a graph to its end.

        Raises
        ------
        RuntimeError
            When a node has failed; those that do not depend on it are done.
        """
        self._config, self._errors = config, []
        self._jobs: dict[Any, int] = {}
        self._bad: set[Any] = set()
        cancel_leftovers({job_name(node) for node in graph.nodes()})
        try:
            self._start(graph, updatehash)
            self._wait(graph)
        finally:
            slurm.cancel(self._jobs.values())
        if self._errors:
            raise RuntimeError(self._errors[0])

    def _start(self, graph: Any, updatehash: bool) -> None:
        """Submit what there is to do; nodes that are done already are only told."""
        held = []
        for node in networkx.topological_sort(graph):
            before = list(graph.predecessors(node))
            after = [self._jobs[p] for p in before if p in self._jobs]
            if self._bad.intersection(before):
                self._bad.add(node)
            elif not after and self._done(node, updatehash):
                continue
            else:
                try:
                    self._jobs[node] = self._submit(node, after, updatehash)
                except slurm.SlurmError as error:
                    self._fail(node, "".join(traceback.format_exception(error)))
                else:
                    held += [] if after else [self._jobs[node]]
        # Only now: Slurm forgets jobs that have ended, and then nothing can depend on them.
        slurm.release(held)
        self._since = time.monotonic()

    def _done(self, node: Any, updatehash: bool) -> bool:
        """Whether a node is done, or could be done here and now."""
        if node.run_without_submitting:
            self._callback(node, "start")
            try:
                node.run(updatehash=updatehash)
            except Exception as error:
                self._fail(node, "".join(traceback.format_exception(error)))
            else:
                self._callback(node, "end")
            return True
        if node.is_cached() == (True, True) and not node.interface.always_run:
            self._callback(node, "end")
            return True
        return False

    def _submit(self, node: Any, after: list[int], updatehash: bool) -> int:
        forget(node)
        script = Path(create_pyscript(node, updatehash=updatehash, store_exception=False))
        batch = script.with_name(f"batchscript_{script.stem}.sh")
        batch.write_text(_batch_script(self._template, script), encoding="utf-8")
        arguments = f"{self._resources.format(**needs(node))} {self._sbatch_args}"
        return slurm.submit(
            batch,
            name=job_name(node),
            arguments=arguments,
            after=after,
            held=not after,
            tries=self._max_tries,
            pause=self._retry_timeout,
        )

    def _wait(self, graph: Any) -> None:
        started = set()
        while self._jobs:
            jobs = self._queue.jobs(self._since)
            if jobs is None:
                time.sleep(0.5)
                continue
            for node in [n for n in networkx.topological_sort(graph) if n in self._jobs]:
                number = self._jobs[node]
                if number in jobs and jobs[number].state == "PENDING":
                    continue
                if node not in started and not self._bad.intersection(graph.predecessors(node)):
                    started.add(node)
                    self._callback(node, "start")
                if number not in jobs:
                    self._end(graph, node)
            time.sleep(0.2)

    def _end(self, graph: Any, node: Any) -> None:
        del self._jobs[node]
        if self._bad.intersection(graph.predecessors(node)):
            # Cancelled by Slurm, since it could not run any more.
            self._bad.add(node)
            return
        words = _patient_failure(node, float(self._config["execution"]["job_finished_timeout"]))
        if words:
            self._fail(node, words)
        else:
            self._callback(node, "end")

    def _fail(self, node: Any, words: str) -> None:
        self._bad.add(node)
        self._errors.append(words)
        node.last_words = words
        self._callback(node, "exception")
        report_crash(node, traceback=[words])
        if str2bool(self._config["execution"]["stop_on_first_crash"]):
            raise RuntimeError(words)


def _batch_script(template: str, script: Path) -> str:
    import shlex
    import sys

    return f"{template.rstrip()}\n{shlex.join([sys.executable, str(script)])}\n"


def _patient_failure(node: Any, seconds: float) -> str | None:
    """Like :func:`failure`; a network's file system may show a result late."""
    deadline = time.monotonic() + seconds
    while (words := failure(node)) and time.monotonic() < deadline:
        if (Path(node.output_dir()) / PROBLEM_FILE).is_file():
            break
        time.sleep(0.5)
    return words


def careful(name: str) -> type:
    """Class of ours for a plugin of nipype that submits to a cluster."""
    ours = {"SLURM": CarefulSLURM, "SLURMGraph": CarefulSLURMGraph}
    if name in ours:
        return ours[name]
    theirs = getattr(nipype_plugins, f"{name}Plugin")
    return type(f"Careful{name}", (Careful, theirs), {"_plugin": name})
