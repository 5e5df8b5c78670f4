"""BIDS folders and derivatives in, runs and problems out.

Discovery never stops at bad data: whatever cannot be used becomes a
:class:`~qsmref.problems.Problem` of its participant, and the others are found all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import metadata
from .anatomy import find_anatomy, lies_on_t1w, magnitudes_of
from .atlases import Atlas, open_atlases
from .index import Dataset, Image, generated_by, read_filters, subjects
from .metadata import RUN_ENTITIES, is_label
from .problems import DataError, ExitCode, Problem, shown
from .runs import Anatomy, EchoRun, MapRun, Regions, Run, Source

#: Characters; names of results are longer than that of the run, and file systems end at 255.
_LONGEST_PREFIX = 120
#: Kinds of files that make a derivative worth giving.
_USED = ("mask", "dseg", "chimap", "t1w", "xfm")


@dataclass(frozen=True)
class Query:
    """What to look for, as the settings have it."""

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    derivatives: Mapping[str, str | Path] | None = None
    #: Label images for everybody, or folders of labels, by the name of the atlas.
    atlases: Mapping[str, str | Path] | None = None
    #: Where an atlas that is fetched is kept.
    cache: Path = Path("work")
    #: Template that maps are registered to.
    template: str | None = None
    #: What becomes of T1-weighted images, see :func:`qsmref.anatomy.find_anatomy`.
    t1w: str = "auto"
    #: Derivative whose maps are used in place of a reconstruction.
    maps: str | None = None
    filter_file: Path | None = None
    database_dir: Path | None = None
    phase_units: str | None = None
    phase_range: tuple[float, float] | None = None
    #: Whether the phase of alternating readouts is going to be corrected.
    bipolar: bool = False


def discover(bids_dir: str | os.PathLike, query: Query) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a dataset.

    Parameters
    ----------
    bids_dir : path
        BIDS dataset, raw or a derivative that holds maps. It is only read.
    query : Query
        Filters and derivatives.

    Returns
    -------
    runs : list of Run
        In the order of their prefixes.
    problems : list of Problem
        One for each thing that keeps a run from being made.

    Raises
    ------
    DataError
        When nothing can be looked for: BIDS_DIR is no dataset, or the filter file is wrong.
    """
    metadata.forget()
    root = Path(bids_dir).absolute()
    others = {name: Path(path).absolute() for name, path in (query.derivatives or {}).items()}
    filters = read_filters(query.filter_file)
    present = subjects([root]) or subjects(others.values())
    wanted, problems = _wanted(present, query.participants)
    if not wanted:
        return [], problems
    options: dict[str, Any] = {
        "filters": filters,
        "participants": query.participants,
        "sessions": query.sessions,
        "database_dir": query.database_dir,
    }
    raw = Dataset.of(root, "raw", **options)
    derivatives = [Dataset.of(path, name, **options) for name, path in others.items()]
    shared, folders = open_atlases(query.atlases or {}, query.cache)
    for name, path in folders.items():
        derivatives.append(Dataset.of(path, name, **options).only("dseg"))
    if raw.is_derivative:
        # Maps beside their labels, passed as the dataset itself.
        derivatives.append(raw)
    runs: list[Run] = []
    for subject in wanted:
        found, trouble = _subject_runs(subject, raw, derivatives, query, shared)
        runs += found
        problems += trouble
    problems += _unused(derivatives, wanted)
    return sorted(runs, key=lambda r: r.prefix), problems


def _subject_runs(
    subject: str,
    raw: Dataset,
    derivatives: Sequence[Dataset],
    query: Query,
    shared: Sequence[Atlas],
) -> tuple[list[Run], list[Problem]]:
    echoes = raw.files(subject, "megre")
    with_maps = [d for d in derivatives if d.files(subject, "chimap")]
    # Magnitudes without a phase, beside maps, are what these maps can be registered by.
    if query.maps is None and echoes and (_has_phase(echoes) or not with_maps):
        return _echo_runs(subject, echoes, raw, derivatives, query, shared)
    if query.maps is not None:
        with_maps = [d for d in with_maps if d.label == query.maps]
    if len(with_maps) == 1:
        return _map_runs(subject, with_maps[0], raw, derivatives, query, shared)
    if len(with_maps) > 1:
        names = ", ".join(d.label for d in with_maps)
        sentence = f"several derivatives hold maps ({names}); choose one with --maps NAME."
        return [], [Problem(subject, sentence)]
    where = f"derivative {query.maps}" if query.maps else "BIDS_DIR"
    what = "Chimap" if query.maps else "multi-echo gradient-echo data (MEGRE)"
    if not query.maps and raw.is_derivative:
        what = "map (a name that ends in _Chimap.nii.gz)"
    sentence = f"{where} has no {what} of this participant"
    if query.sessions or query.filter_file:
        sentence += " that passes the filters"
    if query.maps is None and raw.files(subject, "chimap"):
        sentence += (
            '; for its maps (Chimap) to be used, dataset_description.json must have "DatasetType": '
            '"derivative", or the folder be given with --derivatives'
        )
    code = ExitCode.NO_MATCH if query.sessions or query.filter_file else ExitCode.MISSING_INPUT
    return [], [Problem(subject, sentence + ".", code)]


def _echo_runs(subject, files, raw, derivatives, query, shared) -> tuple[list[Run], list[Problem]]:
    groups: dict[tuple, list[Image]] = {}
    for file in files:
        rest = {k: v for k, v in file.name.entities.items() if k not in ("echo", "part")}
        groups.setdefault((tuple(rest.items()), file.name.suffix), []).append(file)
    # A T2starw without phase beside a MEGRE is another image of the session, not a failed run.
    if any(suffix == "MEGRE" for _, suffix in groups):
        groups = {k: v for k, v in groups.items() if k[1] == "MEGRE" or _has_phase(v)}
    runs: list[Run] = []
    problems: list[Problem] = []
    for group in groups.values():
        prefix = group[0].name.prefix
        try:
            _check_name(group[0])
            group = [echo for file in group for echo in file.echoes()]
            if any(run.prefix == prefix for run in runs):
                raise DataError(
                    f"{group[0].source.name}: another run has the name {prefix} too; choose one "
                    "with --bids-filter-file."
                )
            echoes = _paired(group)
            extras = _extras(group[0], raw, derivatives, query, shared)
            extras["warnings"] += echoes.pop("warnings")
            runs.append(
                EchoRun(
                    subject,
                    prefix,
                    **extras,
                    **echoes,
                    phase_units=query.phase_units,
                    phase_range=query.phase_range,
                    bipolar=query.bipolar,
                )
            )
        except DataError as error:
            problems.append(Problem(subject, str(error), error.code, prefix=prefix))
    return runs, problems


def _check_name(file: Image) -> None:
    """Refuse labels that cannot become names of our own files and of steps."""
    for entity, label in file.name.entities.items():
        if entity in RUN_ENTITIES and not is_label(label):
            raise DataError(
                f"{file.source.name}: {shown(label)} is no label of {entity}; BIDS allows letters "
                "and digits: rename the files."
            )
    if len(file.name.prefix) > _LONGEST_PREFIX:
        raise DataError(f"{file.source.name}: the name is too long; shorten its labels.")


def _has_phase(group: Iterable[Image]) -> bool:
    return any(f.name.entities.get("part") in ("phase", "imag") for f in group)


def _paired(group: Sequence[Image]) -> dict[str, Any]:
    """Magnitude and phase of each echo, in the order of the echo numbers, and warnings.

    Without a phase, the real and the imaginary part (`cartesian`).
    """
    parts: dict[str, dict[int, Source]] = {"mag": {}, "phase": {}, "real": {}, "imag": {}}
    for file in group:
        part = file.name.entities.get("part", "mag")
        if part not in parts:
            raise DataError(
                f"{file.source.name} is part-{part}, which BIDS does not know; it has part-mag, "
                "part-phase, part-real and part-imag."
            )
        echo = file.name.entities.get("echo", "1")
        if not (echo.isascii() and echo.isdigit()):
            raise DataError(f"{file.source.name}: echo-{echo} is not a number.")
        if int(echo) in parts[part]:
            raise DataError(f"{file.source.name}: echo {int(echo)} is there twice.")
        parts[part][int(echo)] = file.source
    cartesian = bool(parts["imag"]) and not parts["phase"]
    words = {"mag": "magnitude", "imag": "imaginary"}
    first, second = ("real", "imag") if cartesian else ("mag", "phase")
    for present, absent in ((first, second), (second, first)):
        what = words.get(absent, absent)
        missing = sorted(set(parts[present]) - set(parts[absent]))
        if missing:
            example = parts[present][missing[0]].name
            which = "" if not parts[absent] else f" of echo {', '.join(map(str, missing))}"
            raise DataError(
                f"{example} has no {what} image{which} (part-{absent}) beside it; both are needed.",
                ExitCode.MISSING_INPUT,
            )
    order = sorted(parts[first])
    warnings: tuple[str, ...] = ()
    if order != list(range(1, len(order) + 1)):
        numbers = ", ".join(map(str, order))
        warnings = (f"{group[0].name.prefix} has the echoes {numbers} only.",)
    magnitude, phase = (tuple(parts[part][e] for e in order) for part in (first, second))
    return {"magnitude": magnitude, "phase": phase, "cartesian": cartesian, "warnings": warnings}


def _map_runs(subject, dataset, raw, derivatives, query, shared) -> tuple[list[Run], list[Problem]]:
    groups: dict[str, list[Image]] = {}
    for file in dataset.files(subject, "chimap"):
        groups.setdefault(file.name.prefix, []).append(file)
    runs: list[Run] = []
    problems: list[Problem] = []
    made_by = generated_by(dataset.root)
    for prefix, group in groups.items():
        try:
            _check_name(group[0])
            if len(group) > 1:
                names = ", ".join(f.source.name for f in group)
                raise DataError(
                    f"{prefix} has several maps ({names}); choose one with --bids-filter-file."
                )
            extras = _extras(group[0], raw, derivatives, query, shared)
            spaces = {r.space for r in extras["regions"]} - {"native"}
            magnitude: tuple[Source, ...] = ()
            if query.template is not None or spaces:
                magnitude = magnitudes_of(group[0], raw, derivatives, dataset)
                extras |= _way_of_map(group[0], query.template, magnitude, extras)
            extras |= {"chimap": group[0].source, "magnitude": magnitude, "made_by": made_by}
            runs.append(MapRun(subject, prefix, **extras))
        except DataError as error:
            problems.append(Problem(subject, str(error), error.code, prefix=prefix))
    return runs, problems


def _way_of_map(
    file: Image, template: str | None, magnitude: Sequence[Source], extras: Mapping[str, Any]
) -> dict[str, Any]:
    """How a map of others can be registered: its anatomy and warnings; DataError where it cannot.

    A map itself is not registered: its contrast depends on how it was made.
    """
    anatomy, prefix = extras["anatomy"], file.name.prefix
    if anatomy.t1w is None and anatomy.to_template is not None:
        return {}
    unrelated = anatomy.t1w is not None and anatomy.map_to_t1w is None and not magnitude
    if unrelated and anatomy.t1w.grid.same_as(file.source.grid):
        anatomy = replace(anatomy, on_grid=True)
    ready = anatomy.map_to_t1w is not None or anatomy.on_grid
    if not (ready or magnitude):
        raise DataError(
            f"{prefix} is a map without echoes, and nothing leads from it to "
            f"{template or 'the T1-weighted image'}: put a magnitude on its grid beside it "
            "(part-mag_MEGRE or T2starw), or give transforms (from-MEGRE_to-T1w, or from-MEGRE_to-"
            f"{template or 'T1w'} and back), or labels on the grid of the map.",
            ExitCode.MISSING_INPUT,
        )
    needs_brain = template is not None and anatomy.to_template is None and anatomy.mask is None
    if needs_brain and not magnitude and extras["mask"] is None:
        raise DataError(
            f"{prefix} is to be registered to {template} through the T1-weighted image, and there "
            "is no brain mask of either: add one (desc-brain_mask).",
            ExitCode.MISSING_INPUT,
        )
    warnings = extras["warnings"]
    if anatomy.on_grid:
        warnings += (
            f"{prefix} lies on the grid of {anatomy.t1w.name}: both are taken to show the head in "
            "one place.",
        )
    return {"anatomy": anatomy, "warnings": warnings}


def _extras(
    file: Image,
    raw: Dataset,
    derivatives: Sequence[Dataset],
    query: Query,
    shared: Sequence[Atlas],
) -> dict[str, Any]:
    """Mask, regions, anatomy and warnings of the run that a file belongs to."""
    subject = file.name.entities["sub"]
    mask: Source | None = None
    regions: list[Regions] = []
    warnings: list[str] = []
    without: list[str] = []
    anatomy = find_anatomy(file, raw, derivatives, template=query.template, use=query.t1w)
    for dataset in derivatives:
        masks = _matching(file, _not_on_t1w(file, dataset.files(subject, "mask"), anatomy))
        if len(masks) > 1:
            names = ", ".join(m.source.name for m in masks)
            raise DataError(f"several brain masks fit ({names}); choose with --bids-filter-file.")
        if masks and mask is None:
            mask = masks[0].source
        labels = _matching(file, dataset.files(subject, "dseg"))
        for label in labels:
            atlas = dataset.label if len(labels) == 1 else dataset.label + _distinct(label)
            found = _regions(atlas, label, file, anatomy)
            if found is None:
                warnings.append(f"{label.source.name} has no table of its labels: left out.")
            else:
                regions.append(found)
        if dataset.has("mask") and not masks:
            without.append(dataset.label)
        if dataset.has("dseg") and not labels:
            warnings.append(f"derivative {dataset.label} has no dseg for {file.name.prefix}.")
    for lacking in without:
        # A map that was made elsewhere does without a mask, which its run tells.
        instead = f": that of {mask.dataset} is used" if mask is not None else ""
        if mask is None and file.name.suffix != "Chimap":
            instead = ": it is made from the magnitude"
        warnings.append(f"derivative {lacking} has no brain mask for {file.name.prefix}{instead}.")
    regions += [atlas.regions(file.source.grid, query.template) for atlas in shared]
    atlases = [r.atlas for r in regions]
    if len(set(atlases)) < len(atlases):
        raise DataError(f"two label images would both be atlas {max(atlases, key=atlases.count)}.")
    if not regions:
        warnings.append(f"{file.name.prefix} has no regions (dseg): there will be no tables.")
    return {
        "mask": mask,
        "regions": tuple(regions),
        "anatomy": anatomy,
        "warnings": tuple(warnings),
    }


def _not_on_t1w(file: Image, images: Iterable[Image], anatomy: Anatomy) -> list[Image]:
    """Images without those that belong to the T1-weighted image."""
    return [i for i in images if not lies_on_t1w(i.source, file.source, anatomy)]


def _regions(atlas: str, label: Image, file: Image, anatomy: Anatomy) -> Regions | None:
    """Regions of a derivative, on the grid of the map or in the space of the T1-weighted image.

    Programs that segment a T1-weighted image write more than one, some without a table.
    """
    named = label.name.entities.get("space") == "T1w"
    if named and anatomy.t1w is None:
        raise DataError(
            f"{label.source.name} is in the space of the T1-weighted image, and there is none for "
            f"{file.name.prefix}; give that image too, or leave these labels out."
        )
    if not (named or lies_on_t1w(label.source, file.source, anatomy)):
        return Regions.of(atlas, label.source)
    if not any(metadata.applicable(label.source.path, label.source.root, ".tsv")):
        return None
    return replace(Regions.of(atlas, label.source), space="T1w")


def _distinct(file: Image) -> str:
    """What tells several label images of a run apart, for the name of the atlas."""
    parts = [file.name.entities.get(k, "") for k in ("atlas", "seg", "desc", "label")]
    return "".join(c for part in parts for c in part if c.isalnum())


def _matching(file: Image, candidates: Iterable[Image]) -> list[Image]:
    """Candidates whose run entities are those of `file`; the ones that share most of them."""
    key = file.key
    fitting = [c for c in candidates if c.key.items() <= key.items()]
    most = max((len(c.key) for c in fitting), default=0)
    return [c for c in fitting if len(c.key) == most]


def _wanted(present: Sequence[str], labels: Sequence[str]) -> tuple[list[str], list[Problem]]:
    if not present:
        sentence = "there is no participant (sub-*) in BIDS_DIR or the derivatives."
        return [], [Problem("", sentence, ExitCode.NO_MATCH)]
    odd = [label for label in present if not is_label(label)]
    present = [label for label in present if is_label(label)]
    if not labels:
        return present, [
            Problem(
                "",
                f"the folder {shown('sub-' + label)} is no participant: BIDS allows letters "
                "and digits in labels; rename or remove it.",
            )
            for label in odd
        ]
    some = ", ".join(present[:5]) + (", ..." if len(present) > 5 else "")
    problems = [
        Problem(
            label,
            f"--participant-label {label} matches none of the {len(present)} participants "
            f"({some}).",
            ExitCode.NO_MATCH,
        )
        for label in labels
        if label not in present
    ]
    return sorted(set(labels) & set(present)), problems


def _unused(derivatives: Sequence[Dataset], wanted: Sequence[str]) -> list[Problem]:
    return [
        Problem(
            "",
            f"derivative {d.label} ({d.root}) has no brain mask, dseg or map, and no T1w image or "
            "transform, of any of these participants.",
            ExitCode.MISSING_INPUT,
        )
        for d in derivatives
        if not any(d.files(s, kind) for s in wanted for kind in _USED)
    ]
