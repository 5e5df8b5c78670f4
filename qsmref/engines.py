"""Which programs do the registration: FSL where it is installed, the built-in ANTs elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .problems import DataError, ExitCode

#: What ``--engine`` may be.
CHOICES = ("auto", "ants", "fsl")
#: Programs that the engine fsl calls.
FSL_TOOLS = ("bet", "fast", "flirt", "fslmaths")


def missing_tools() -> list[str]:
    """What of FSL is not there: programs, and the variable that they find their files by."""
    missing = [tool for tool in FSL_TOOLS if shutil.which(tool) is None]
    if not os.environ.get("FSLDIR"):
        missing.append("the variable FSLDIR")
    return missing


def choose_engine(asked: str) -> str:
    """``ants`` or ``fsl`` for all participants, before anything runs.

    Raises
    ------
    DataError
        When FSL is asked for and not complete; it names all that is missing.
    """
    if asked not in CHOICES:
        raise ValueError(f"engine must be one of {', '.join(CHOICES)}, not {asked!r}")
    if asked == "ants":
        return "ants"
    missing = missing_tools()
    if asked == "auto":
        return "ants" if missing else "fsl"
    if missing:
        raise DataError(
            f"--engine fsl needs programs that are not installed: {', '.join(missing)}; install "
            "FSL and set it up in this shell, or use --engine ants, which needs none.",
            ExitCode.TOOL_MISSING,
        )
    return "fsl"


def versions(engine: str) -> dict[str, str]:
    """Versions of the programs of an engine; SyN is that of ANTs in both."""
    from importlib.metadata import version

    found = {"antspyx": version("antspyx")}
    if engine == "fsl":
        found |= {"FSL": _fsl_version(), "fslpy": version("fslpy")}
    return found


def _fsl_version() -> str:
    path = Path(os.environ.get("FSLDIR", "")) / "etc" / "fslversion"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "unknown"
