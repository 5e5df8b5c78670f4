"""Slurm's commands, as far as the plugins need them."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

#: Reasons for which a waiting job will never start.
DEAD = {
    "BadConstraints",
    "DependencyNeverSatisfied",
    "JobHoldMaxRequeue",
    "launch failed requeued held",
}


class Job(NamedTuple):
    """A job in the queue."""

    name: str
    state: str
    reason: str


class SlurmError(RuntimeError):
    """A command of Slurm failed; the message says what it said."""


def submit(
    script: Path,
    *,
    name: str,
    arguments: str = "",
    after: Sequence[int] = (),
    held: bool = False,
    tries: int = 3,
    pause: float = 2.0,
) -> int:
    """Submit a batch script and return the number of the job.

    Parameters
    ----------
    script : Path
        Batch script; what it prints goes into a file beside it.
    name : str
        Name of the job.
    arguments : str
        Options of ``sbatch``; they come last, so that they win.
    after : sequence of int
        Jobs that must end well before; if one does not, Slurm cancels this one.
    held : bool
        Whether it waits for :func:`release`.
    tries : int
        How often it is tried: a busy controller refuses now and then.
    pause : float
        Seconds between two tries.

    Raises
    ------
    SlurmError
        When the job is refused.
    """
    options = [f"--job-name={name}", f"--output={script}.%j.out"]
    if after:
        jobs = ":".join(str(job) for job in after)
        options += [f"--dependency=afterok:{jobs}", "--kill-on-invalid-dep=yes"]
    options += ["--hold"] * held
    options += shlex.split(arguments)
    for left in reversed(range(tries)):
        try:
            answer = _run("sbatch", "--parsable", *options, str(script))
        except SlurmError:
            if not left:
                raise
            time.sleep(pause)
        else:
            # With several clusters it is "number;cluster".
            return int(answer.split(";")[0])
    raise ValueError(f"tries must be at least 1, got {tries}")


def queue() -> dict[int, Job]:
    """Jobs of this user that wait or run, by number."""
    jobs = {}
    for line in _run("squeue", "--me", "--noheader", "--format=%A|%T|%r|%j").splitlines():
        number, state, reason, name = line.split("|", 3)
        jobs[int(number)] = Job(name, state, reason)
    return jobs


def release(jobs: Iterable[int]) -> None:
    """Let held jobs start."""
    for job in jobs:
        _run("scontrol", "release", str(job))


def cancel(jobs: Iterable[int]) -> None:
    """Stop jobs; those that have ended already are no error."""
    numbers = [str(job) for job in jobs]
    if numbers:
        _run("scancel", "--quiet", *numbers)


def _run(*command: str) -> str:
    # A job that submits others must not hand them its own place on the cluster.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        raise SlurmError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
