"""Which programs do the work: FSL where it is wanted and installed, what is built in elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .problems import DataError, ExitCode

#: What ``--engine`` may be.
CHOICES = ("auto", "ants", "fsl")
#: Programs that the engine fsl calls.
FSL_TOOLS = ("bet", "fast", "flirt", "fslmaths")
#: Programs that the brain mask ``bet`` calls.
BET_TOOLS = ("bet",)


def missing_tools(tools: Sequence[str] = FSL_TOOLS) -> list[str]:
    """What of FSL is not there: programs, and the variable that they find their files by."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
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


def check_mask_method(method: str) -> None:
    """Raise a DataError that names what the method of the brain mask needs and has not got."""
    missing = missing_tools(BET_TOOLS) if method == "bet" else []
    if missing:
        raise DataError(
            f"--mask-method bet needs what is not installed: {', '.join(missing)}; install FSL and "
            "set it up in this shell, or use --mask-method surface, which needs nothing.",
            ExitCode.TOOL_MISSING,
        )


def versions(engine: str) -> dict[str, str]:
    """Versions of the programs of an engine; SyN is that of ANTs in both."""
    from importlib.metadata import version

    found = {"antspyx": version("antspyx")}
    if engine == "fsl":
        found |= {"FSL": fsl_version(), "fslpy": version("fslpy")}
    return found


def fsl_version() -> str:
    """What FSL says of itself in the folder of FSLDIR."""
    path = Path(os.environ.get("FSLDIR", "")) / "etc" / "fslversion"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "unknown"
