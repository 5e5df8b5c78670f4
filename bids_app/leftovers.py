"""Temporary files that a killed command left among the results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: Files that several commands change, each under the lock of the dataset.
_SHARED = (
    "dataset_description.json",
    ".bidsignore",
    "descriptions.tsv",
    "README.md",
    "logs/settings.toml",
    "logs/CITATION.md",
    "logs/participant-status.tsv",
    "logs/participant-status.json",
)


def tidy(output_dir: Path, subjects: Iterable[str]) -> None:
    """Remove temporary files of these participants that a killed command left in the results."""
    for subject in subjects:
        for path in (output_dir / f"sub-{subject}").rglob(".tmp-*"):
            path.unlink(missing_ok=True)
        status = [f"logs/status/sub-{subject}.{suffix}" for suffix in ("json", "report")]
        _remove_temporary(output_dir, [f"sub-{subject}.html", *status])


def tidy_shared(output_dir: Path) -> None:
    """The same for the files that all commands share; the caller holds the lock of the dataset."""
    _remove_temporary(output_dir, _SHARED)


def _remove_temporary(output_dir: Path, names: Iterable[str]) -> None:
    for name in names:
        final = output_dir / name
        for path in final.parent.glob(f".tmp-*-{final.name}"):
            path.unlink(missing_ok=True)
