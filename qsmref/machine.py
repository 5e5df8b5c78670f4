"""How much of the machine this process may use, which may be less than the machine has.

Nothing here imports more than the standard library: it is asked before anything heavy is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .settings import Settings

#: Threads of one step, when nothing else is said.
_MOST_THREADS = 8
#: Part of the memory that is taken when nothing else is said.
_SHARE = 0.9

_ROOT = Path("/")


def available_cores(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Cores of this process: its affinity, the limit of its container, its part of a Slurm node.

    Parameters
    ----------
    root : Path
        Where the file systems of the kernel are.
    environ : mapping
        Environment variables.
    """
    cores = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        cores.append(len(os.sched_getaffinity(0)))
    words = _read(root / "sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        cores.append(max(1, int(words[0]) // int(words[1])))
    given = environ.get("SLURM_CPUS_PER_TASK", "")
    if given.isdigit():
        cores.append(int(given))
    return max(1, min(cores))


def available_memory(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> float:
    """Memory for all processes, GB: 90 % of what the machine, container or job has.

    Parameters
    ----------
    root, environ
        As in :func:`available_cores`.
    """
    return _SHARE * min(_memory_limits(root, environ)) / 1e9


def _memory_limits(root: Path, environ: Mapping[str, str]) -> Iterator[float]:
    yield float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / "sys/fs/cgroup" / name).strip()
        if text.isdigit() and int(text) > 0:
            yield float(text)
    megabytes = environ.get("SLURM_MEM_PER_NODE", "")
    if megabytes.isdigit() and int(megabytes) > 0:
        yield int(megabytes) * 2.0**20


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def threads_per_node(settings: Settings) -> int:
    """Threads of one step: what was asked for, and never more than there are processes."""
    processes = settings.nprocs or available_cores()
    return min(settings.omp_nthreads or min(processes, _MOST_THREADS), processes)
