"""Prepare the process: threads of libraries, folders that can be written, a user name for nipype.

Containers are read-only, users have no home on some clusters and no name in some containers. All
of it is put right here, once, before anything heavy is imported; workers inherit it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import sys
import tempfile
from pathlib import Path

#: Variables by which numerical libraries learn how many threads they may start.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)

#: Caches that an image brings along, below QSMREF_CACHE, and the variables that name them.
CACHES = {"numba": "NUMBA_CACHE_DIR", "matplotlib": "MPLCONFIGDIR"}


def prepare(work: Path, threads: int) -> None:
    """Set up the environment of this process and of those that it starts.

    Parameters
    ----------
    work : Path
        Work folder; made when something has to be put there.
    threads : int
        Threads of one step. What the user has set in the environment stays.
    """
    # nipype asks a server for its newest version when it is imported, unless told not to.
    os.environ.setdefault("NIPYPE_NO_ET", "1")
    # Names of jobs and crash files; a user without a name is common in containers.
    os.environ.setdefault("LOGNAME", _name())
    if "numpy" not in sys.modules:
        # Libraries read these when they are loaded; changed later they only confuse.
        for variable in THREADS:
            os.environ.setdefault(variable, str(threads))
    _temporary_folder(work)
    _home(work)
    _caches(work)


def _name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _temporary_folder(work: Path) -> None:
    """Keep temporary files in the work folder where there is no other place for them."""
    try:
        found = Path(tempfile.gettempdir())
    except FileNotFoundError:
        found = None
    # The last resort of tempfile is the current folder, where nobody looks for such files.
    if found is None or found == Path.cwd():
        folder = work / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _home(work: Path) -> None:
    home = os.environ.get("HOME", "")
    if not (home and os.access(home, os.W_OK)):
        work.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(work)


def _caches(work: Path) -> None:
    """Copy the caches of a read-only image to where their owners can add to them."""
    source = os.environ.get("QSMREF_CACHE", "")
    for name, variable in CACHES.items():
        if variable in os.environ or not (source and Path(source, name).is_dir()):
            continue
        target = work / "cache" / name
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = tempfile.mkdtemp(prefix=".tmp-", dir=target.parent)
            shutil.copytree(Path(source, name), copy, dirs_exist_ok=True)
            with contextlib.suppress(OSError):
                # Another command may have been faster; its copy is as good.
                os.rename(copy, target)
            shutil.rmtree(copy, ignore_errors=True)
        os.environ[variable] = str(target)
