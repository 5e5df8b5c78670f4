"""Keep results inside the folder of results: links in it that lead elsewhere are refused."""

from __future__ import annotations

import os
from pathlib import Path

from qsmref.problems import DataError, ExitCode, shown


def check_links(output_dir: Path) -> None:
    """Refuse a folder of results whose folders lead elsewhere.

    A dataset may bring derivatives, and links in them; what is written below such a link would
    land where nobody has asked for it. Links of files are no danger: files are written beside
    their names and renamed into place, which replaces a link.

    Raises
    ------
    DataError
        When a link among the folders leads out of `output_dir`.
    """
    root = os.path.realpath(output_dir)
    links: list[str] = []
    # Below the folders of participants the step that writes a result looks for itself.
    for folder in filter(os.path.isdir, (output_dir, Path(output_dir) / "logs")):
        with os.scandir(folder) as entries:
            links += [entry.path for entry in entries if entry.is_symlink() and entry.is_dir()]
    for link in links:
        target, name = os.path.realpath(link), shown(os.path.relpath(link, output_dir))
        if os.path.commonpath([root, target]) != root:
            raise DataError(
                f"{name} in OUTPUT_DIR is a link that leads out of OUTPUT_DIR ({target}); put "
                "the folder itself there, or choose another one.",
                ExitCode.CANNOT_CREATE,
            )
