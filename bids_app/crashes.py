"""What the program said when a step failed, for the report: the crash file that belongs to it."""

from __future__ import annotations

import re
from pathlib import Path

from qsmref.problems import Problem
from qsmref.workflows.engine import identifier

#: Characters that a page shows of a crash file: its beginning and its end.
_MOST = 20_000
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\U0010ffff]")


def crash_text(output_dir: Path, problem: Problem) -> str:
    """Text of the newest crash file of the step that failed; empty when there is none.

    Parameters
    ----------
    output_dir : Path
        Folder of results; crash files are in ``logs``.
    problem : Problem
        Names a participant and a step. Problems of the input have no crash file.
    """
    logs = output_dir / "logs"
    if problem.step == "input" or not logs.is_dir():
        return ""
    if problem.subject:
        graph = f".{identifier('sub', problem.subject, 'wf')}."
        step = re.compile(rf"^Node: \S*{re.escape(graph)}(\S+)$", re.MULTILINE)
        wanted = identifier(problem.step)
    for path in sorted(logs.glob("crash-*.txt"), key=_time, reverse=True):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if not problem.subject:
            if path.name in problem.sentence:
                return _short(text)
            continue
        found = step.search(text)
        if found and found[1].rpartition(".")[2].removesuffix("_wf") == wanted:
            return _short(text)
    return ""


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _short(text: str) -> str:
    plain = _UNPRINTABLE.sub("\ufffd", text)
    if len(plain) <= _MOST:
        return plain
    return f"{plain[: _MOST // 4]}\n[...]\n{plain[-3 * _MOST // 4 :]}"
