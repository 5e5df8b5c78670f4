"""Files of the results as a dataset: description, status, log, citation.

Several commands may write into one folder at the same time. Files that all of them change are
made anew under a lock from parts that only one of them writes, and renamed into place.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qsmref
from qsmref import files
from qsmref.index import label_of_input, read_description
from qsmref.problems import Problem
from qsmref.settings import Settings

from .leftovers import tidy_shared

BIDS_VERSION = "1.10.0"
#: States of a run or participant in the status table.
COMPLETED, FAILED, SKIPPED = "completed", "failed", "skipped"

#: What BIDS has no names for: reports and tables of maps. The validator understands one star in a
#: file name, not more.
_IGNORED = """\
sub-*.html
group.html
logs
logs/**
group
group/**
**/figures/**
sub-*/figures
*_xfm.h5
*_xfm.txt
*_xfm.json
*_desc-roi_Chimap.tsv
*_desc-roi_Chimap.json
*_desc-differential_Chimap.tsv
*_desc-differential_Chimap.json
*_desc-coverage_Chimap.tsv
*_desc-coverage_Chimap.json
"""
#: Added when a run has an entity that BIDS knows for maps but not for field maps.
_IGNORED_FIELDS = "fmap\n"

_DESCRIPTIONS = {
    "brain": "Mask of the brain in which the susceptibility map is valid",
    "confidence": "Mask of the voxels of the map that have data of their own",
    "total": "Field of all sources, inside and outside the head",
    "local": "Field of the sources inside the brain mask",
    "unreferenced": "Susceptibility map as reconstructed; its zero is arbitrary",
    "mean": "Mean of the susceptibility maps of the cohort in the space of a template",
    "sd": "Standard deviation of the susceptibility maps of the cohort, over participants",
    "imported": "Susceptibility map made by another program, copied; its zero is unknown",
    "roi": "Statistics of the susceptibility map in each region",
    "coverage": "Regions and their differences under smaller masks",
    "differential": "Differences of the susceptibility between every pair of regions",
}

_STATUS_COLUMNS = {
    "participant_id": {"Description": "Participant"},
    "run": {"Description": "Entities of the run; n/a when no run was found"},
    "status": {
        "Description": "What became of it",
        "Levels": {
            COMPLETED: "all results are there",
            FAILED: "a step failed",
            SKIPPED: "the input could not be used",
        },
    },
    "step": {"Description": "Step that failed"},
    "reason": {"Description": "Why it failed or was skipped"},
    "warnings": {"Description": "What is odd about the run, sentences joined by a space"},
    "version": {"Description": "Version of qsmref"},
}

_README = """\
# Susceptibility maps and differences between regions

Made by qsmref {version}. `sub-*.html` are reports, one a participant;
`sub-*/anat/*_desc-differential_Chimap.tsv` are the differences between regions, and
`logs/participant-status.tsv` says what was completed, what failed, and why. The zero of a map
(`*_desc-unreferenced_Chimap.nii.gz`) is arbitrary: compare differences, or re-reference it with the
numbers under `ReferenceStatistics` in its sidecar.
"""


@contextmanager
def lock(output_dir: Path) -> Iterator[None]:
    """Let one command at a time change the files that all share."""
    folder = output_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def write_dataset_files(
    output_dir: Path,
    bids_dir: Path,
    settings: Settings,
    *,
    methods: Sequence[str],
    prefixes: Sequence[str],
) -> None:
    """Write description, table of descriptions, .bidsignore, README, settings and citation.

    Parameters
    ----------
    output_dir, bids_dir : Path
        Folders of results and data.
    settings : Settings
        All options; written to ``logs/settings.toml``.
    methods : sequence of str
        Sentences for ``logs/CITATION.md``.
    prefixes : sequence of str
        Entities of the runs, as they stand in file names.
    """
    others = {**settings.derivatives, **_folders_of_atlases(settings)}
    links = {label_of_input(bids_dir): bids_dir, **{name: Path(p) for name, p in others.items()}}
    with lock(output_dir):
        tidy_shared(output_dir)
        description = _description(output_dir, bids_dir, links)
        _write_if_changed(output_dir / "dataset_description.json", _json(description))
        _write_if_changed(output_dir / ".bidsignore", _ignored(output_dir, prefixes))
        _write_if_changed(output_dir / "descriptions.tsv", _descriptions(settings.reference))
        if not (output_dir / "README.md").exists():
            text = _README.format(version=qsmref.__version__)
            files.write_text(output_dir / "README.md", text)
        files.write_text(output_dir / "logs" / "settings.toml", settings.to_toml())
        write_citation(output_dir, methods)


def _descriptions(references: Sequence[str] = ()) -> str:
    """The table of all ``desc`` that either level writes."""
    from qsmref.analysis.columns import TITLES
    from qsmref.workflows.measure import reference_desc

    zeros = {
        reference_desc(name): f"Susceptibility map with the mean of {name} as zero"
        for name in references
    }
    rows = {**_DESCRIPTIONS, **zeros, **TITLES}.items()
    return "desc_id\tdescription\n" + "".join(f"desc-{desc}\t{text}\n" for desc, text in rows)


def _folders_of_atlases(settings: Settings) -> dict[str, str]:
    """Where label images lie that sidecars name; an atlas fetched by its name has no such place."""
    folders = {}
    for name, value in settings.atlas.items():
        path = Path(value)
        if path.exists():
            folders[name] = str(path if path.is_dir() else path.parent)
    return folders


def _ignored(output_dir: Path, prefixes: Sequence[str]) -> str:
    path = output_dir / ".bidsignore"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    without_name = any(f"_{entity}-" in prefix for prefix in prefixes for entity in ("ce", "rec"))
    # Runs of an earlier command may have made it necessary.
    if without_name or _IGNORED_FIELDS.strip() in before.splitlines():
        return _IGNORED + _IGNORED_FIELDS
    return _IGNORED


def write_citation(output_dir: Path, methods: Sequence[str]) -> Path:
    """Write the methods text."""
    text = (
        "# Methods\n\n"
        f"Susceptibility maps were processed with qsmref {qsmref.__version__}. "
        + " ".join(methods)
        + "\n"
    )
    return files.write_text(output_dir / "logs" / "CITATION.md", text)


def _description(output_dir: Path, bids_dir: Path, links: Mapping[str, Path]) -> dict[str, Any]:
    raw = read_description(bids_dir)
    before = read_description(output_dir)
    source: dict[str, Any] = {"URL": bids_dir.as_uri()}
    if isinstance(raw.get("DatasetDOI"), str):
        source["DOI"] = raw["DatasetDOI"]
    # A command with other derivatives leaves those of earlier ones in the links.
    links_before = before.get("DatasetLinks")
    known = links_before if isinstance(links_before, dict) else {}
    known = known | {name: p.as_uri() for name, p in links.items()}
    description: dict[str, Any] = {
        "Name": "Susceptibility maps and differences between regions",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "qsmref", "Version": qsmref.__version__}],
        "SourceDatasets": [source],
        "DatasetLinks": dict(sorted(known.items())),
    }
    if isinstance(raw.get("License"), str):
        description["License"] = raw["License"]
    return description


def write_status(
    output_dir: Path,
    subject: str,
    runs: Mapping[str, Sequence[str]],
    problems: Sequence[Problem],
    settings: Settings,
) -> None:
    """Record what became of a participant, and make the table of all participants anew.

    Parameters
    ----------
    output_dir : Path
        Folder of results.
    subject : str
        Label without ``sub-``.
    runs : mapping
        Warnings of the runs that are completed, by prefix.
    problems : sequence of Problem
        Of this participant.
    settings : Settings
        All options.
    """
    record = {
        "participant": subject,
        "version": qsmref.__version__,
        "completed": {prefix: list(warnings) for prefix, warnings in runs.items()},
        "problems": [problem.as_dict() for problem in problems],
        "settings": settings.as_dict(),
    }
    files.write_json(_shard(output_dir, subject), record)
    with lock(output_dir):
        records = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(_shard(output_dir, "x").parent.glob("sub-*.json"))
        ]
        rows = [row for item in records for row in _rows(item)]
        lines = ["\t".join(_STATUS_COLUMNS), *("\t".join(row) for row in rows)]
        table = output_dir / "logs" / "participant-status.tsv"
        files.write_text(table, "\n".join(lines) + "\n")
        files.write_json(table.with_suffix(".json"), _STATUS_COLUMNS)


def read_status(output_dir: Path, subject: str) -> dict[str, Any]:
    """What :func:`write_status` recorded of a participant, empty when there is nothing."""
    path = _shard(output_dir, subject)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def recorded_subjects(output_dir: Path) -> list[str]:
    """Participants of whom something is recorded."""
    return sorted(
        path.stem.removeprefix("sub-") for path in _shard(output_dir, "x").parent.glob("sub-*.json")
    )


def _shard(output_dir: Path, subject: str) -> Path:
    return output_dir / "logs" / "status" / f"sub-{subject}.json"


def _rows(record: Mapping[str, Any]) -> Iterator[list[str]]:
    participant, version = f"sub-{record['participant']}", record["version"]
    for prefix, warnings in record["completed"].items():
        yield _cells(participant, prefix, COMPLETED, "", "", " ".join(warnings), version)
    for problem in map(Problem.from_dict, record["problems"]):
        status = SKIPPED if problem.step == "input" else FAILED
        row = (participant, problem.prefix, status, problem.step, problem.sentence, "", version)
        yield _cells(*row)


def _cells(*values: str) -> list[str]:
    # Sentences may quote sidecars: neither tabs nor line ends may reach the table.
    return [" ".join(str(value).split()) or "n/a" for value in values]


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _write_if_changed(path: Path, text: str) -> None:
    # As bytes: what a damaged file holds need not be text.
    if not (path.is_file() and path.read_bytes() == text.encode()):
        files.write_text(path, text)
