"""The folder of intermediate results (work folder): who uses it, what in it can be trusted."""

from __future__ import annotations

import fcntl
import gzip
import json
import shutil
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from qsmref.workflows.engine import SEAL, Node, checksums


@contextmanager
def _held(path: Path):
    """Hold a lock for as long as the block takes; yields whether it was free.

    The kernel gives it back when the process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def claim(stack: ExitStack, folder: Path, output_dir: Path, names: dict[str, str]) -> list[str]:
    """Take participants for this command, so that no other one works on them.

    Parameters
    ----------
    stack : ExitStack
        Gives them back when it is closed.
    folder : Path
        Of the graph, in the work folder.
    output_dir : Path
        Folder of results.
    names : dict
        From the label of a participant to the name of its workflow.

    Returns
    -------
    list of str
        Participants that another command is working on, in this work folder or into the same
        results.
    """
    taken = []
    for subject, name in names.items():
        locks = (_lock(folder, name), output_dir / "logs" / "status" / f".sub-{subject}.lock")
        if not all([stack.enter_context(_held(lock)) for lock in locks]):
            taken.append(subject)
    return taken


def _lock(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def clean(folder: Path, own: Iterable[str]) -> None:
    """Empty the folder of the graph, but for participants that other commands are working on.

    Parameters
    ----------
    folder : Path
        Of the graph, in the work folder.
    own : iterable of str
        Names of workflows that this command has claimed.
    """
    own = set(own)
    for path in [p for p in folder.glob("*") if p.suffix != ".lock"]:
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
        elif path.name in own:
            shutil.rmtree(path, ignore_errors=True)
        else:
            with _held(_lock(folder, path.name)) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)


def mend(workflow: Any) -> list[str]:
    """Drop results of steps that are damaged, so that the steps are done again.

    Returns
    -------
    list of str
        Names of these steps.
    """
    dropped = []
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        folder = Path(workflow.base_dir, workflow.name, *name.split("."))
        results = list(folder.glob("result_*.pklz"))
        # A step that failed has a result too, and is done again anyway.
        ended = any(not p.stem.endswith("_unfinished") for p in folder.glob("_0x*.json"))
        if (
            results
            and ended
            and not (_complete(results) and _sealed(folder, isinstance(node, Node)))
        ):
            # Without these nipype takes the step for one that was never done.
            for path in [*results, *folder.glob("_0x*.json")]:
                path.unlink()
            dropped.append(name)
    return dropped


def _complete(paths: Iterable[Path]) -> bool:
    """Whether compressed files are what was written; gzip keeps a checksum."""
    try:
        for path in paths:
            with gzip.open(path) as stream:
                stream.read()
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _sealed(folder: Path, expected: bool) -> bool:
    path = folder / SEAL
    if not path.is_file():
        return not expected
    try:
        return json.loads(path.read_text(encoding="utf-8")) == checksums(folder)
    except (OSError, ValueError):
        return False
