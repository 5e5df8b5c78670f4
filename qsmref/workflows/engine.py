"""A nipype workflow that carries its methods text, and what each node needs of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from nipype.pipeline import engine as pe

from ..interfaces.base import Interface

#: GB that Python and its libraries take in a process.
_BASE_GB = 0.3


class Workflow(pe.Workflow):
    """Workflow with the sentences that a methods section would say of it."""

    def __init__(self, name: str, base_dir: str | None = None, methods: str = ""):
        super().__init__(name=name, base_dir=base_dir)
        self.methods = methods

    def methods_text(self) -> list[str]:
        """Sentences of this workflow and those in it, each once, in the order of the graph."""
        texts = [self.methods] if self.methods else []
        for node in self._graph.nodes():
            if isinstance(node, Workflow):
                texts += node.methods_text()
        return list(dict.fromkeys(texts))


def make_node(
    interface: Interface,
    name: str,
    *,
    shape: Sequence[int],
    volumes: float,
    threads: int = 1,
    random_seed: int | None = None,
) -> pe.Node:
    """Node that tells the scheduler how much memory and how many threads it takes.

    Parameters
    ----------
    interface : Interface
        What it runs.
    name : str
        The step, as the user gets to read it.
    shape : (3,) int
        Voxels of the image.
    volumes : float
        Float32 volumes of that shape that it holds at the most.
    threads : int
        Threads it may use.
    random_seed : int, optional
        Seed of the generators.
    """
    interface.inputs.num_threads = threads
    if random_seed is not None:
        interface.inputs.random_seed = random_seed
    gigabytes = _BASE_GB + volumes * float(np.prod(shape)) * 4 / 1e9
    return pe.Node(interface, name=name, n_procs=threads, mem_gb=round(gigabytes, 3))


def available_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def identifier(*labels: str) -> str:
    """Labels as a name of a workflow, which may hold letters, digits and underscores.

    >>> identifier("sub-01", "acq-x_run-2")
    'sub_01_acq_x_run_2'
    """
    return re.sub(r"[^0-9A-Za-z]+", "_", "_".join(label for label in labels if label)).strip("_")
