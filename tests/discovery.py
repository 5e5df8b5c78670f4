"""What the tests of discovery share: names of files, and the one problem of a participant."""

from __future__ import annotations

from pathlib import Path

from qsmref.inputs import Query, discover
from qsmref.problems import Problem


def anat(bids: Path, name: str, label: str = "01") -> Path:
    """File in the folder ``anat`` of a participant."""
    return bids / f"sub-{label}" / "anat" / f"sub-{label}_{name}"


def only_problem(bids: Path, **query) -> Problem:
    """The problem of sub-01; sub-02 must be found all the same."""
    runs, problems = discover(bids, Query(**query))
    assert [run.subject for run in runs] == ["02"]
    assert len(problems) == 1
    assert problems[0].subject == "01"
    return problems[0]
