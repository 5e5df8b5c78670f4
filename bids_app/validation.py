"""Run bids-validator on the dataset, where the program is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: Names under which the validator is installed.
PROGRAMS = ("bids-validator-deno", "bids-validator")


@dataclass(frozen=True)
class Validation:
    """What the validator found."""

    #: Errors of the dataset as a whole.
    errors: tuple[str, ...] = ()
    #: Errors in files of single participants.
    participant_errors: tuple[str, ...] = ()
    #: Why there was no validation; empty when there was one.
    skipped: str = ""


def validator() -> str | None:
    """Path of the validator: beside this Python, or on PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return next((p for p in (shutil.which(n, path=places) for n in PROGRAMS) if p), None)


def validate(bids_dir: Path) -> Validation:
    """Run the validator on a dataset.

    Errors in files of a participant are kept apart: whether that participant can be processed is
    told more exactly when its files are read, and the others are not held up by them.
    """
    program = validator()
    if program is None:
        return Validation(skipped="bids-validator is not installed; the dataset is not validated")
    done = subprocess.run(
        [program, str(bids_dir), "--format", "json"], capture_output=True, text=True, check=False
    )
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Validation(skipped=f"bids-validator did not run ({cause})")
    errors: list[str] = []
    participants: list[str] = []
    for issue in issues:
        if issue.get("severity") == "error":
            location = str(issue.get("location", ""))
            place = participants if location.lstrip("/").startswith("sub-") else errors
            place.append(_words(issue, location))
    return Validation(tuple(dict.fromkeys(errors)), tuple(dict.fromkeys(participants)))


def _words(issue: dict, location: str) -> str:
    code = ".".join(str(issue[k]) for k in ("code", "subCode") if issue.get(k))
    message = " ".join(str(issue.get("issueMessage") or "").split())
    return f"{location or '/'}: {code}" + (f" ({message[:200]})" if message else "")
