"""What the graph is doing: told on the terminal while it runs, and remembered for the status."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qsmref.interfaces import base
from qsmref.interfaces.base import PROBLEM_FILE
from qsmref.problems import ExitCode, Problem, io_sentence
from qsmref.runs import Run

#: Nodes that write results; a run is complete when all of its nodes of this kind are done.
SINK = "save_"


_WITHOUT_A_WORD = (
    "the step ended without a word: its process was probably killed for lack of memory; try fewer "
    "--nprocs, or a machine with more."
)


#: Lines of tracebacks that tell of the machine and not of the program, and what they mean.
_MACHINE = (
    (r"\S*SlurmError: .*|RuntimeError: Could not submit .*", "refused", ExitCode.INTERNAL),
    (r"(?:\w+\.)*\w*MemoryError\b.*", "memory", ExitCode.INTERNAL),
    (r"WorkerEnded: .*", "signal", ExitCode.INTERNAL),
    (r"\S*Error: \[Errno \d+\] .*", "disk", ExitCode.IO_ERROR),
)
_MEANING = {
    "refused": "the batch system refused the job: {}.",
    "memory": "out of memory ({}); run with fewer --nprocs.",
}


def _of_signal(name: str) -> str:
    """What it means that the process of a step was ended by a signal, or ended by itself."""
    if name == "SIGKILL":
        return _WITHOUT_A_WORD
    if name in ("SIGINT", "SIGTERM", "SIGHUP"):
        cause = "somebody or another program asked it to; the same command goes on from here."
        return f"the process of the step was ended by {name}: {cause}"
    if name.startswith("status"):
        return f"the process of the step ended by itself, with {name}; a library gave up."
    return f"the process of the step was ended by {name}: an error of a library or the machine."


def explain(words: str) -> dict[str, Any]:
    """Sentence and exit code for a failure of which only a traceback is left, if that.

    >>> explain("Traceback ...\\nOSError: [Errno 5] Input/output error")["sentence"]
    'reading or writing failed: OSError: [Errno 5] Input/output error.'
    >>> explain("Traceback ...\\nWorkerEnded: SIGSEGV")["sentence"]
    'the process of the step was ended by SIGSEGV: an error of a library or the machine.'
    """
    for pattern, meaning, code in _MACHINE:
        found = re.search(rf"^\s*({pattern})$", words, re.MULTILINE)
        if found:
            words = found[1].strip()
            if meaning == "signal":
                return {"sentence": _of_signal(words.partition(": ")[2]), "code": code}
            sentence = io_sentence(words) if meaning == "disk" else _MEANING[meaning].format(words)
            return {"sentence": sentence, "code": code}
    return {"sentence": _WITHOUT_A_WORD, "code": ExitCode.INTERNAL}


class Step(NamedTuple):
    """A node as the user knows it."""

    run: Run
    name: str

    @property
    def words(self) -> str:
        """Name of the step, in words."""
        return self.name.replace("_", " ")


class Progress:
    """Status callback of nipype's plugins.

    Parameters
    ----------
    runs : mapping
        Runs by the name of their workflow, ``(workflow of the participant, workflow of the run)``.
    sinks : mapping
        Number of sinks of each run, by its prefix.
    crash_dir : Path
        Where nipype writes its crash files.
    verbose : int
        With 1 also the writing of results is told, and how long each step took.
    tells_all : bool
        Whether the plugin tells a start of each node that it comes to, also of those that it only
        takes from the work folder. ``Linear`` reports those that it leaves out as ended, too.
    say : callable
        Prints a line.
    """

    def __init__(
        self,
        runs: Mapping[tuple[str, str], Run],
        sinks: Mapping[str, int],
        crash_dir: Path,
        verbose: int = 0,
        tells_all: bool = False,
        say: Callable[[str], None] = print,
    ):
        self._runs, self._missing = dict(runs), dict(sinks)
        self._crash_dir, self._verbose, self._say = crash_dir, verbose, say
        self._tells_all = tells_all
        self._begin = time.monotonic()
        self._started: dict[str, float] = {}
        self.problems: list[Problem] = []

    def __call__(self, node: Any, status: str) -> None:
        """Take note of a node that starts, ends, or fails."""
        step = self._step(node)
        if step is None:
            return
        if status == "start":
            self._start(node, step)
        elif status == "exception":
            self._fail(node, step)
        elif status == "end":
            self._end(node, step)

    def _start(self, node: Any, step: Step) -> None:
        if self._tells_all and not node.interface.always_run and node.is_cached() == (True, True):
            return
        self._started[node.fullname] = time.monotonic()
        if self._verbose or not step.name.startswith(SINK):
            self._line(f"{step.run.prefix}: {step.words}")

    def _end(self, node: Any, step: Step) -> None:
        if any(p.prefix == step.run.prefix and p.step == step.words for p in self.problems):
            # Some plugins report the end of a node that failed, too.
            return
        begin = self._started.pop(node.fullname, None)
        if begin is None and (self._tells_all or not step.name.startswith(SINK)):
            # Taken from the work folder or, by the plugin Linear, left out after a failure. Other
            # plugins tell no start of nodes that they run in their own process, as the sinks are.
            return
        if self._verbose and begin is not None:
            seconds = time.monotonic() - begin
            self._line(f"{step.run.prefix}: {step.words} took {seconds:.1f} s")
        if step.name.startswith(SINK):
            self._missing[step.run.prefix] -= 1
            if self._missing[step.run.prefix] == 0:
                self._line(f"{step.run.prefix}: completed")

    def _fail(self, node: Any, step: Step) -> None:
        note = Path(node.output_dir()) / PROBLEM_FILE
        if note.is_file():
            content = json.loads(note.read_text(encoding="utf-8"))
        else:
            content = explain(getattr(node, "last_words", ""))
        code, sentence = ExitCode(content["code"]), content["sentence"]
        if code == ExitCode.INTERNAL:
            sentence += f" (details: {self._crash_dir})"
        problem = Problem(step.run.subject, sentence, code, step.words, step.run.prefix)
        self.problems.append(problem)
        print(f"qsmref: {step.run.prefix}: {step.words}: {sentence}", file=sys.stderr, flush=True)

    def completed(self, runs: Sequence[Run]) -> list[Run]:
        """Those of the runs whose results are all there."""
        return [run for run in runs if self._missing.get(run.prefix) == 0]

    def _step(self, node: Any) -> Step | None:
        if not isinstance(node.interface, base.Step):
            # nipype's own nodes only pass things on.
            return None
        parts = node.fullname.split(".")
        names = [n.removesuffix("_wf") for n in parts]
        for i in range(len(parts) - 1):
            run = self._runs.get((parts[i], parts[i + 1]))
            if run is not None:
                return Step(run, names[-1])
        return None

    def _line(self, text: str) -> None:
        seconds = int(time.monotonic() - self._begin)
        self._say(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}")
