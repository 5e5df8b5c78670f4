"""A nipype workflow that carries its methods text, and what each node needs of the machine."""

from __future__ import annotations

import re
import traceback
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.pipeline import engine as pe

from .. import files
from ..interfaces.base import Interface

#: GB that Python and its libraries take in a process.
_BASE_GB = 0.3

#: File in the folder of a finished node with the checksums of what the node made.
SEAL = "seal.json"


def checksums(folder: Path) -> dict[str, list[int]]:
    """Size in bytes and CRC-32 of the files a node made, by their names from its folder.

    They tell a damaged file from a whole one, which is all that is asked of them.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # nipype's own files, which it writes at other times and which guard themselves.
        own = name.startswith(("_", ".", "result_")) or name == SEAL
        if path.is_file() and not own:
            found[name] = [path.stat().st_size, _crc(path)]
    return found


def _crc(path: Path) -> int:
    value = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


class Node(pe.Node):
    """Node that seals its folder when it is done: without its seal a result is not reused.

    nipype looks at the inputs of a finished node only. A disk that was full, a machine that lost
    its power or a hand that slipped would go unnoticed into everything after it.
    """

    def run(self, updatehash: bool = False) -> Any:
        """Run, or take what is there; then seal the folder unless it is sealed."""
        try:
            result = super().run(updatehash=updatehash)
            folder = Path(self.output_dir())
            if not (folder / SEAL).is_file():
                files.write_json(folder / SEAL, checksums(folder))
        except Exception as error:
            # For whoever has to say what went wrong where no note could be written.
            self.last_words = "".join(traceback.format_exception(error))
            raise
        return result


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
) -> Node:
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
    return Node(interface, name=name, n_procs=threads, mem_gb=round(gigabytes, 3))


def identifier(*labels: str) -> str:
    """Labels as a name of a workflow, which may hold letters, digits and underscores.

    >>> identifier("sub-01", "acq-x_run-2")
    'sub_01_acq_x_run_2'
    >>> identifier("acq-a"), identifier("acq-a+")
    ('acq_a', 'acq_a_plus')
    """
    # A plus is a character of labels in BIDS: two that differ in it only are two.
    text = "_".join(label for label in labels if label).replace("+", "_plus_")
    return re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
