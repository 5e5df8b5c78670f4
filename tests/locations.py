"""Where data lie that cannot be part of the repository."""

from __future__ import annotations

import os
from pathlib import Path


def find(*parts: str) -> Path | None:
    """A file or folder below the folder of shared data, or None where there is none.

    QSMREF_TEST_DATA names that folder, or its ``data``; without it a folder ``shared`` beside the
    repository is looked for.
    """
    given = os.environ.get("QSMREF_TEST_DATA")
    roots = [Path(given), Path(given).parent] if given else [Path(__file__).parents[2] / "shared"]
    for root in roots:
        if (root.joinpath(*parts)).exists():
            return root.joinpath(*parts)
    return None
