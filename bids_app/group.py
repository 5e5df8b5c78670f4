"""The group level: from the tables of all participants to what differs between them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qsmref import files
from qsmref.analysis import differential_table
from qsmref.analysis import reference as reference_columns
from qsmref.analysis import regions as region_columns
from qsmref.analysis.cohort import Plan, Results, analyse, omnibus_names
from qsmref.analysis.doubts import doubts_of
from qsmref.analysis.reference import REFERENCES
from qsmref.analysis.region_methods import STATISTICS
from qsmref.analysis.tables import Measurements, RequestError, TableError, column, texts
from qsmref.index import read_filters
from qsmref.problems import DataError, ExitCode, Problem
from qsmref.settings import Settings
from qsmref.tables import read_cells

from .average import average_maps
from .collect import (
    ENTITY_COLUMNS,
    Joined,
    Scan,
    find_scans,
    join_tables,
    reduce_runs,
    select,
)
from .coverages import read_coverage
from .dataset import read_status
from .groupaverage import average_figures
from .groupfigures import CohortFigure
from .groupfiles import closing_words, write_figures, write_results
from .groupmethods import comparison_sentences
from .grouppage import write_pages
from .methods import methods_text
from .report import read_atlas
from .results import collect_results

#: Where the results of the level are.
FOLDER = "group"
_ID = "participant_id"


def group_level(
    bids_dir: Path, output_dir: Path, settings: Settings
) -> tuple[int, int, list[Problem]]:
    """Compare the participants that have tables in the folder of results.

    Parameters
    ----------
    bids_dir : Path
        Dataset with ``participants.tsv``.
    output_dir : Path
        Results of the level participant, and of this one.
    settings : Settings
        All options.

    Returns
    -------
    compared, asked, problems
        Numbers of participants; the problems of those whose tables cannot be read.

    Raises
    ------
    DataError
        No tables, no ``participants.tsv``, or what the statistics cannot be made of.
    """
    if settings.reports_only or settings.boilerplate_only:
        raise DataError(
            "--reports-only and --boilerplate-only belong to the level participant.",
            ExitCode.USAGE,
        )
    filters = read_filters(settings.bids_filter_file).get("chimap", {})
    averaged = average_maps(output_dir, settings)
    atlases = find_scans(output_dir) if output_dir.is_dir() else {}
    if not atlases and averaged:
        # The average comes first: regions may be drawn on it.
        if not settings.dry_run:
            _write_page(output_dir, {}, {}, averaged)
        return len(averaged), len(averaged), []
    if not atlases:
        raise DataError(
            f"{output_dir} has neither tables of regions nor maps in a template; run the level "
            "participant first, with regions (-d NAME=PATH, --atlas) or --template.",
            ExitCode.MISSING_INPUT,
        )
    people = _people(bids_dir, settings)
    cohorts, figures, compared, asked, problems = {}, {}, set(), set(), []
    for atlas, found in atlases.items():
        scans = select(found, settings.participant_label, settings.session_label, filters)
        if not scans:
            raise DataError(
                f"The filters match none of the {len(found)} tables of the atlas {atlas}.",
                ExitCode.NO_MATCH,
            )
        print(f"qsmref: atlas {atlas}: {len(scans)} tables", flush=True)
        if settings.dry_run:
            compared |= {scan.participant for scan in scans}
            asked |= compared
            continue
        results, drawn, unread = _compare(atlas, scans, people, output_dir, settings)
        cohorts[atlas], figures[atlas] = results, drawn
        compared |= set(results.participants)
        asked |= {scan.participant for scan in scans}
        problems += unread
        for line in [*results.notes, *closing_words(results)]:
            print(f"qsmref: atlas {atlas}: {line}", flush=True)
    if not settings.dry_run:
        _write_page(output_dir, cohorts, figures, compared)
        files.write_text(output_dir / "logs" / "settings-group.toml", settings.to_toml())
    return len(compared), len(asked), problems


def _write_page(
    output_dir: Path,
    cohorts: Mapping[str, Results],
    figures: Mapping[str, Sequence[CohortFigure]],
    compared: Collection[str],
) -> None:
    """The page of the cohort, and its methods as text beside the tables."""
    maps = [
        result
        for participant in sorted(compared)
        for result in collect_results(output_dir, participant.removeprefix("sub-"))
    ]
    sentences = [
        sentence
        for name, results in cohorts.items()
        for sentence in comparison_sentences(name, results.facts, results.tables)
    ]
    methods = methods_text(maps, sentences)
    files.write_text(output_dir / FOLDER / "methods.md", methods)
    averages, lost = average_figures(output_dir, read_atlas)
    for line in lost:
        print(f"qsmref: warning: {line}", file=sys.stderr, flush=True)
    path = output_dir / "group.html"
    write_pages(path, "Comparison of participants", cohorts, figures, averages, methods, lost)


def _people(bids_dir: Path, settings: Settings) -> pd.DataFrame | None:
    """participants.tsv, None when it is not needed."""
    if settings.group_column is None and not settings.covariates:
        return None
    path = bids_dir / "participants.tsv"
    if not path.is_file():
        raise DataError(
            f"{bids_dir} has no participants.tsv, which --group-column and --covariates need.",
            ExitCode.MISSING_INPUT,
        )
    people = read_cells(path)
    try:
        names = texts(column(people, _ID, path.name))
    except TableError as error:
        raise DataError(str(error)) from error
    # BIDS wants the prefix; tables made by hand lack it at times.
    people[_ID] = [n if n is None or n.startswith("sub-") else f"sub-{n}" for n in names]
    return people


def _statistic(scans: Sequence[Scan], choice: str) -> str:
    """What the participants' differences are made of, unless another choice was made."""
    if choice != "auto":
        return choice
    found: dict[str, str] = {}
    for scan in scans:
        sidecar = scan.paths.get("differential", scan.paths["roi"]).with_suffix(".json")
        if not sidecar.is_file():
            continue
        try:
            said = files.read_json(sidecar)
        except (OSError, ValueError) as error:
            raise DataError(f"{sidecar.name} cannot be read: {error}.") from error
        found.setdefault(str(dict(said).get("Statistic", "mean")), sidecar.name)
    unknown = sorted(set(found) - set(STATISTICS))
    if len(found) > 1 or unknown:
        raise DataError(
            "the tables do not agree on the statistic of their differences ("
            + ", ".join(f"{name!r} in {file}" for name, file in sorted(found.items()))
            + "); choose one with --statistic mean, median or biweight.",
            ExitCode.USAGE,
        )
    return next(iter(found), "mean")


def _compare(
    atlas: str,
    scans: Sequence[Scan],
    people: pd.DataFrame | None,
    output_dir: Path,
    settings: Settings,
) -> tuple[Results, list[CohortFigure], list[Problem]]:
    """Join the tables of one atlas, and make and write all tables of the cohort."""
    folder = output_dir / FOLDER

    def path_of(desc: str) -> Path:
        return folder / f"atlas-{atlas}_desc-{desc}_Chimap.tsv"

    try:
        labels = _labels(people, settings)
        joined = join_tables(
            scans,
            labels,
            path_of("roi"),
            path_of("differential"),
            _statistic(scans, settings.statistic),
        )
        _describe_joined(path_of, joined)
        measured, notes = _measured(joined, settings)
        plan = _plan(joined, measured, settings)
        people = _missing_are_told(people, measured, settings)
        doubts = doubts_of(measured, "ppb", people, settings.group_column, settings.covariates)
        results = analyse(measured, people, plan, _distances(joined, measured.pairs))
    except RequestError as error:
        raise DataError(str(error), ExitCode.USAGE) from error
    except TableError as error:
        raise DataError(str(error)) from error
    results.notes[:0] = [*(f"{doubt[0].upper()}{doubt[1:]}" for doubt in doubts), *notes]
    _say_why(results, joined, output_dir)
    sources = {"Sources": [f"bids::{FOLDER}/{path_of('roi').name}"]}
    write_results(results, path_of, sources)
    problems = [
        Problem(who.removeprefix("sub-"), why, ExitCode.BAD_DATA, "tables")
        for who, why in joined.unread
    ]
    return results, write_figures(results, path_of), problems


def _labels(people: pd.DataFrame | None, settings: Settings) -> dict[str, str]:
    """Group of each participant, for the joined tables."""
    if people is None or settings.group_column is None:
        return {}
    groups = texts(column(people, settings.group_column, "participants.tsv"))
    pairs = zip(people[_ID], groups, strict=True)
    return {who: " ".join(group.split()) for who, group in pairs if who and group}


def _missing_are_told(
    people: pd.DataFrame | None, measured: Measurements, settings: Settings
) -> pd.DataFrame | None:
    """participants.tsv, cut to those that were asked for."""
    if people is None or not settings.participant_label:
        return people
    asked = {f"sub-{label}" for label in settings.participant_label}
    return people[people[_ID].isin(asked | set(measured.participants))].reset_index(drop=True)


def _describe_joined(path_of, joined: Joined) -> None:
    """Sidecars of the joined tables."""
    scan = {_ID: {"Description": "Participant"}}
    scan |= {c: {"Description": f"Entity {e} of the run"} for e, c in ENTITY_COLUMNS.items()}
    scan["group"] = {"Description": "Group of the participant; n/a without one"}
    columns = {"roi": region_columns.COLUMNS, "differential": reference_columns.COLUMNS}
    used = {ENTITY_COLUMNS[e] for s in joined.scans for e in s.entities if e in ENTITY_COLUMNS}
    kept = {c: v for c, v in scan.items() if c in used | {_ID, "group"}}
    for desc, described in columns.items():
        files.write_json(path_of(desc).with_suffix(".json"), {**kept, **described})


def _measured(joined: Joined, settings: Settings) -> tuple[Measurements, list[str]]:
    """Means of the regions, one row a participant and session, at every coverage."""
    names = tuple(joined.regions["name"])
    given = settings.references or tuple(r for r in REFERENCES if r in names)
    found, cut = read_coverage(joined.scans, names, given, settings.coverage_kept)
    # The whole mask is that of the table of regions.
    covers = {(0.0, 0.0): joined.means, **{c: m for c, m in found.items() if c != (0.0, 0.0)}}
    values = np.stack(list(covers.values()), axis=1)
    participants, sessions, values, notes = reduce_runs(joined.scans, values)
    try:
        pairs = differential_table(joined.regions, given)[["region", "reference"]]
    except ValueError as error:
        raise DataError(f"--references: {error}", ExitCode.USAGE) from error
    measured = Measurements(
        participants,
        values,
        names,
        tuple(given),
        tuple(covers),
        sessions,
        tuple(pairs.itertuples(index=False, name=None)),
        settings.session_label,
    )
    if settings.regions:
        measured = measured.select(settings.regions)
    lost = int((~np.isfinite(joined.means)).sum())
    if cut:
        notes.append(
            f"{cut} values of smaller masks are left out: the mask keeps less than "
            f"{settings.coverage_kept:g} of the part that the whole mask has (--coverage-kept)."
        )
    if lost:
        notes.append(
            f"{lost} values are missing, of regions that lie outside a mask or are not labelled."
        )
    return measured, notes


def _distances(joined: Joined, pairs) -> dict[tuple[str, str], float]:
    """Distance of the centres of two regions, mm, mean over participants."""
    place = {name: k for k, name in enumerate(joined.regions["name"])}
    made = {}
    for a, b in pairs:
        each = np.linalg.norm(joined.centres[:, place[a]] - joined.centres[:, place[b]], axis=1)
        each = each[np.isfinite(each)]
        if each.size:
            made[a, b] = float(each.mean())
    return made


def _plan(joined: Joined, measured: Measurements, settings: Settings) -> Plan:
    regions = settings.omnibus_regions or tuple(
        name
        for name in omnibus_names(joined.regions["name"], joined.regions["hemisphere"])
        if name in measured.alone
    )
    plan = Plan(
        group_column=settings.group_column,
        groups=settings.groups,
        covariates=settings.covariates,
        test=settings.test,
        family=settings.family,
        permutations=settings.permutations,
        seed=settings.random_seed or 0,
        margin=settings.equivalence_margin,
        power_differences=settings.power_differences,
        omnibus_regions=regions if len(regions) > 1 else (),
        time=settings.session_time,
        random_slope=settings.random_slope,
        id_column=_ID,
    )
    return plan if settings.omnibus_regions else replace(plan, omnibus_asked=False)


def _say_why(results: Results, joined: Joined, output_dir: Path) -> None:
    """Put the reason into the table of those left out, where the run of the participant knows."""
    table = results.tables["excluded"]
    unread = dict(joined.unread)
    reasons = []
    for who, why in zip(table[_ID], table["reason"], strict=True):
        if why == "has no values":
            why = unread.get(who) or _failure(output_dir, who) or "has no table of regions"
        reasons.append(why)
    listed = set(table[_ID])
    extra: list[dict[str, Any]] = [
        {_ID: who, "analysis": "all", "reason": why}
        for who, why in unread.items()
        if who not in listed
    ]
    table = pd.concat([table.assign(reason=reasons), pd.DataFrame(extra)], ignore_index=True)
    results.tables["excluded"] = table


def _failure(output_dir: Path, participant: str) -> str | None:
    """What went wrong with a participant, as the level participant has recorded it."""
    status: Mapping[str, Any] = read_status(output_dir, participant.removeprefix("sub-"))
    problems = [Problem.from_dict(p) for p in status.get("problems", [])]
    if not problems:
        return None
    return f"{problems[0].step}: {' '.join(problems[0].sentence.split())}"
