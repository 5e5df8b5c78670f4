"""Average the cohort's maps in each template, for the level group."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from qsmref.headers import Grid
from qsmref.metadata import parse_name
from qsmref.problems import DataError, ExitCode
from qsmref.settings import Settings
from qsmref.workflows.engine import identifier

#: Maps in a template, as the level participant writes them: its own, and those of others.
_MAPS = re.compile(r"_space-[^_]+_desc-(unreferenced|imported)_Chimap\.nii\.gz$")


def find_warped(output_dir: Path, settings: Settings) -> dict[str, list[Path]]:
    """Maps in templates that pass the filters on participants and sessions, by template."""
    found: dict[str, list[Path]] = {}
    for path in sorted(output_dir.glob("sub-*/**/*_space-*_Chimap.nii.gz")):
        if not _MAPS.search(path.name):
            continue
        entities = parse_name(path).entities
        wanted = (
            (settings.participant_label, entities["sub"]),
            (settings.session_label, entities.get("ses")),
        )
        if all(not labels or label in labels for labels, label in wanted):
            found.setdefault(entities["space"], []).append(path)
    return found


def average_maps(output_dir: Path, settings: Settings) -> set[str]:
    """Write mean and SD of the maps in each template.

    Parameters
    ----------
    output_dir : Path
        Results of the level participant; the images go to its folder ``group``.
    settings : Settings
        Filters and work folder.

    Returns
    -------
    set of str
        Participants, ``sub-01``, whose maps were averaged; none without maps in a template.

    Raises
    ------
    DataError
        A map or mask that cannot be read, or on another grid than the others.
    """
    averaged: set[str] = set()
    for space, chimaps in find_warped(output_dir, settings).items():
        people = [f"sub-{parse_name(path).entities['sub']}" for path in chimaps]
        masks = [_mask_of(path) for path in chimaps]
        averaged |= set(people)
        print(f"qsmref: template {space}: {len(chimaps)} maps are averaged", flush=True)
        if not settings.dry_run:
            _run(space, chimaps, masks, people, output_dir, settings)
    return averaged


def _mask_of(chimap: Path) -> Path:
    mask = chimap.with_name(re.sub("_desc-[^_]+_Chimap[.]", "_desc-brain_mask.", chimap.name))
    if not mask.is_file():
        raise DataError(
            f"{chimap.name} has no mask {mask.name} beside it; run the level participant again.",
            ExitCode.MISSING_INPUT,
        )
    return mask


def _run(
    space: str,
    chimaps: Sequence[Path],
    masks: Sequence[Path],
    people: Sequence[str],
    output_dir: Path,
    settings: Settings,
) -> None:
    from qsmref.workflows.cohort import init_cohort_wf
    from qsmref.workflows.local import told_by

    from .graph import configure

    configure(settings, output_dir)
    workflow = init_cohort_wf(
        space=space,
        chimaps=chimaps,
        masks=masks,
        participants=people,
        output_dir=output_dir,
        shape=Grid.of(chimaps[0]).shape,
        sources=[f"bids::{path.relative_to(output_dir).as_posix()}" for path in chimaps],
        name=identifier("cohort", space, "wf"),
    )
    workflow.base_dir = str(settings.work_dir.absolute())
    folder = Path(workflow.base_dir) / workflow.name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    try:
        with contextlib.chdir(folder):
            workflow.run(plugin="Linear")
    except Exception as error:
        # nipype passes tracebacks on; the step has left a note that says it in one sentence.
        raise told_by(folder, started, error) from error
