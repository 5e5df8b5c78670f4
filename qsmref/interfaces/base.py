"""What all interfaces share: threads, the seed, and errors that end as one sentence."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    isdefined,
    traits,
)
from nipype.utils.filemanip import hash_infile

import qsmref

from .. import files, images
from ..problems import DataError, ExitCode, io_sentence
from ..reconstruction import fft

#: File in a node's folder that tells what went wrong there.
PROBLEM_FILE = "problem.json"


class InputSpec(BaseInterfaceInputSpec):
    """Inputs of every interface."""

    num_threads = traits.Range(
        low=1, value=1, usedefault=True, nohash=True, desc="threads; results do not depend on it"
    )
    random_seed = traits.Int(desc="seed of NumPy's and Python's generators")
    version = traits.Str(
        qsmref.__version__,
        usedefault=True,
        desc="version of qsmref: results of another one are not reused",
    )

    def _get_sorteddict(self, objekt, dictwithhash=False, hash_method=None, hash_files=True):
        # nipype reads a file twice for each node that takes it: most of the time of a command
        # that has nothing to do.
        if hash_files and hash_method == "content" and isinstance(objekt, str):
            with suppress(OSError, ValueError):
                found = os.stat(objekt)
                if stat.S_ISREG(found.st_mode):
                    digest = _digest(objekt, found.st_ino, found.st_size, found.st_mtime_ns)
                    return (objekt, digest) if dictwithhash else digest
        return super()._get_sorteddict(objekt, dictwithhash, hash_method, hash_files)


@lru_cache(maxsize=4096)
def _digest(path: str, *_state: int) -> str:
    """nipype's checksum of a file, remembered as long as its inode, size and time are the same."""
    return hash_infile(path, chunk_len=1 << 20)


class Step:
    """What counts as a step of a run: its progress and its problems are told by their names."""


class Interface(Step, SimpleInterface):
    """Base class: subclasses implement ``_compute(folder)`` and fill ``self._results``."""

    input_spec = InputSpec

    def _run_interface(self, runtime):
        folder = Path(runtime.cwd)
        seed = self.inputs.random_seed
        if isdefined(seed):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  libraries may draw from the global generator
        with problems_in(folder), fft.threads(self.inputs.num_threads):
            self._compute(folder)
        return runtime

    def _compute(self, folder: Path) -> None:
        raise NotImplementedError

    def _optional(self, name: str) -> Any:
        """Value of an input, None when it is not defined."""
        value = getattr(self.inputs, name)
        return value if isdefined(value) else None

    def _save(self, name: str, array: np.ndarray, folder: Path, like) -> None:
        """Write an output image; uncompressed, since gzip would cost more than most steps."""
        self._results[name] = str(images.save(array, folder / f"{name}.nii", like))

    def _save_json(self, name: str, content: dict, folder: Path) -> None:
        """Write an output dictionary."""
        self._results[name] = str(files.write_json(folder / f"{name}.json", plain(content)))


@contextmanager
def about(path: str | Path) -> Iterator[None]:
    """Name the file in the sentence of a ValueError that the block raises."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{Path(path).name}: {error}.") from error


@contextmanager
def problems_in(folder: Path) -> Iterator[None]:
    """Leave a note in `folder` about the error that ends the block, and raise it again.

    The graph's engine only passes tracebacks on; the note is what the user gets to read.
    """
    note = folder / PROBLEM_FILE
    note.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        # On a full disk there is no room for the note either; the traceback has to do then.
        with suppress(OSError):
            files.write_json(note, _note(error))
        raise


def _note(error: Exception) -> dict:
    sentence = str(error).strip() or type(error).__name__
    if isinstance(error, DataError):
        return {"sentence": sentence, "code": int(error.code)}
    if isinstance(error, ValueError):
        # What the numerics refuse; their messages are sentences already.
        return {"sentence": sentence.rstrip(".") + ".", "code": int(ExitCode.BAD_DATA)}
    if isinstance(error, OSError):
        return {"sentence": io_sentence(sentence), "code": ExitCode.IO_ERROR}
    if isinstance(error, MemoryError):
        return {
            "sentence": f"out of memory ({sentence}); run with fewer --nprocs.",
            "code": int(ExitCode.INTERNAL),
        }
    return {
        "sentence": f"unexpected {type(error).__name__}: {sentence}",
        "code": int(ExitCode.INTERNAL),
    }


def plain(value: Any) -> Any:
    """`value` in types that JSON knows; numbers that are not finite become None.

    >>> plain({"a": (np.float32(1), float("nan")), "b": np.int64(2)})
    {'a': [1.0, None], 'b': 2}
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    json.dumps(value)
    return value


def with_chosen_lambda(parameters: Mapping[str, Any], info_file: str | None) -> dict[str, Any]:
    """Parameters of an inversion, with the lambda that it chose or had when it was run.

    A map to be compared with another (under a smaller mask, with other noise) must weigh the data
    as that one did; `info_file` has what was done there.
    """
    told = {} if info_file is None else json.loads(Path(info_file).read_text(encoding="utf-8"))
    used = told.get("lambda_used", told.get("lambda_"))
    return dict(parameters) if used is None else {**parameters, "lambda_": used}
