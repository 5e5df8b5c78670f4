"""Compiled loops: numba with a cache that works where the package's folder is read-only."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _choose_cache() -> None:
    """Point numba's cache at a writable folder, before numba reads its configuration.

    Without one, ``cache=True`` raises at import; a container that is read-only and has no home
    then gets a folder in TMPDIR.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    if _writable(Path(__file__).parent / "__pycache__"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qsmref"
    folder = home if _writable(home) else Path(tempfile.gettempdir()) / f"qsmref-{os.getuid()}"
    os.environ["NUMBA_CACHE_DIR"] = str(folder)


_choose_cache()
# Between two kernels GNU's OpenMP lets its threads spin for milliseconds, on the cores that the
# transforms need meanwhile. A short while serves the next kernel as well (2 threads: a quarter less
# CPU time, a tenth less time).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numba  # noqa: E402  (its configuration is read on import)

from .fft import thread_count  # noqa: E402


def zeros(shape: Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """An array of zeros whose memory is there already, for kernels that write parts of it.

    The memory of ``np.zeros`` comes when it is first written. Where a loop writes behind an ``if``,
    the processor masks its stores, and a masked store to memory that is not there yet costs
    hundreds of cycles each time, for ever: such loops took 5 to 25 times as long.
    """
    array = np.empty(shape, dtype)
    array.fill(0)
    return array


def kernel(function: Callable) -> Callable:
    """Compile a loop for one thread; the result is cached on disk."""
    return numba.njit(cache=True, nogil=True)(function)


def parallel_kernel(function: Callable) -> Callable:
    """Compile a loop over ``numba.prange``; it runs on :func:`fft.thread_count` threads."""
    return _on_threads(function, numba.njit(cache=True, nogil=True, parallel=True)(function))


def parallel_sum(function: Callable) -> Callable:
    """A :func:`parallel_kernel` whose sums may be made in any order.

    In the order of the loop each addition waits for the one before: 4 cycles a voxel, more than the
    memory takes.
    """
    free = {"reassoc", "nsz"}
    compiled = numba.njit(cache=True, nogil=True, parallel=True, fastmath=free)(function)
    return _on_threads(function, compiled)


def _on_threads(function: Callable, compiled: Callable) -> Callable:
    @functools.wraps(function)
    def call(*arguments):
        available = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        numba.set_num_threads(min(thread_count(), available))
        return compiled(*arguments)

    return call
