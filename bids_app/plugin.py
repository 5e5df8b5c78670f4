"""nipype's local plugin, made to end when one of its processes is killed.

nipype waits for ever for the result of a worker that the kernel has killed, which is what happens
to a step that takes more memory than there is.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any

import psutil
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node


def hush() -> None:
    """Keep nipype from telling on the terminal what is told in a sentence anyway.

    Its loggers know no level above CRITICAL, and a full disk is critical to them.
    """
    for name in ("nipype.workflow", "nipype.utils", "nipype.interface"):
        logger = logging.getLogger(name)
        if logger.level >= logging.CRITICAL:
            logger.setLevel(logging.CRITICAL + 1)


def _initialize(folder: str, command: int) -> None:
    """Prepare a worker: as nipype does, and to end with the command, however that ends."""
    process_initializer(folder)
    hush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_die_with, args=(command,), daemon=True).start()


def _die_with(command: int) -> None:
    """Wait for the end of a process and end this one.

    A worker of a command that was killed would go on writing into the work folder, where the next
    command may be at work already.
    """
    try:
        select.select([os.pidfd_open(command)], [], [])
    except ProcessLookupError:
        # It has ended already.
        pass
    except (AttributeError, OSError):
        # No such call in this kernel: look now and then.
        while psutil.pid_exists(command):
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


class Outspoken:
    """Mixed into plugins: a node that fails has the traceback when its failure is told."""

    def _clean_queue(self, jobid: int, graph: Any, result: dict[str, Any] | None = None) -> Any:
        words = result["traceback"] if result else traceback.format_exc()
        # As lines: what nipype does with a text ends in a TypeError, and the graph with it.
        lines = words.splitlines(keepends=True) if isinstance(words, str) else list(words or [])
        self.procs[jobid].last_words = "".join(lines)
        value = result["result"] if result else None
        return super()._clean_queue(jobid, graph, result={"result": value, "traceback": lines})


def how_ended(processes: Iterable[Any]) -> list[str]:
    """A line on the first of some processes that did not end well, for :func:`explain`.

    Parameters
    ----------
    processes : iterable of multiprocessing.Process
        Of a pool that is broken.

    Returns
    -------
    list of str
        ``WorkerEnded: SIGINT`` or ``WorkerEnded: status 3``; empty where none has ended.
    """
    for process in processes:
        code = process.exitcode
        if code is None or code == 0:
            continue
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return [f"WorkerEnded: {name if code < 0 else f'status {code}'}\n"]
    return []


class SturdyMultiProcPlugin(Outspoken, MultiProcPlugin):
    """Plugin ``MultiProc`` that survives the death of a worker.

    All steps that ran when a worker died are tried once more, each in a process of its own: the
    one at fault dies again and is reported, the others are done.
    """

    #: s; an interrupt reaches the workers and this process at the same time, in any order.
    _GRACE = 0.5

    def __init__(self, plugin_args: dict[str, Any] | None = None):
        super().__init__(plugin_args=plugin_args)
        self._stopped = threading.Event()
        self.pool.shutdown(wait=False)
        self.pool = self._make_pool(self.processors)

    def run(self, graph: Any, config: dict, updatehash: bool = False) -> None:
        """Run a graph; when it is interrupted, nothing is tried again."""
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            self._stopped.set()

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        job = (node, updatehash, self._taskid)
        try:
            future = self.pool.submit(run_node, *job)
        except BrokenProcessPool:
            self.pool = self._make_pool(self.processors)
            future = self.pool.submit(run_node, *job)
        self._task_obj[self._taskid] = future
        processes = list((self.pool._processes or {}).values())
        future.add_done_callback(partial(self._keep, job, processes, again=True))
        return self._taskid

    def _make_pool(self, processes: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=processes,
            initializer=_initialize,
            initargs=(self._cwd, os.getpid()),
            mp_context=get_context(self.plugin_args.get("mp_context")),
        )

    def _keep(self, job: tuple, processes: list, future: Future, again: bool) -> None:
        """Keep the result of a job for the loop that waits for it.

        `processes` are those of the pool that had the job; the pool itself forgets them.
        """
        taskid, error = job[-1], future.exception()
        if isinstance(error, BrokenProcessPool) and again and not self._stopped.wait(self._GRACE):
            pool = self._make_pool(1)
            second = pool.submit(run_node, *job)
            alone = list((pool._processes or {}).values())
            second.add_done_callback(partial(self._keep, job, alone, again=False))
            pool.shutdown(wait=False)
        elif error is not None:
            words = traceback.format_exception(error)
            if isinstance(error, BrokenProcessPool):
                words += how_ended(processes)
            self._taskresult[taskid] = {"result": None, "traceback": words, "taskid": taskid}
        else:
            self._taskresult[taskid] = future.result()
