"""``qsmref-stats``: group statistics of a table of region means, from any tool.

Only the standard library is imported before the options are known, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import qsmref
from qsmref.analysis.methods import COHORT_TESTS, FAMILIES, POWER_DIFFERENCES, TIMES, UNITS
from qsmref.problems import DataError, ExitCode, io_sentence
from qsmref.usage import Parser

PROG = "qsmref-stats"

_EPILOG = """\
A wide table has one row a scan and one column a region; a long table one row a region of a scan
(--region-column, --value-column). With groups, every region alone and every difference of two is
compared; with a session column, its change over time is estimated. Columns of the results are
described in the JSON file beside each table.

exit status: 0 done; 2 usage; 65 inconsistent data; 66 a file is absent; 70 internal error; 73, 74
output cannot be written. The last line printed says the same.
"""


def _build_parser() -> argparse.ArgumentParser:
    """Parser of the command line; the documentation renders it."""
    parser = Parser(
        prog=PROG,
        description="Compare groups of participants, or sessions, in the susceptibility of regions "
        "and in every difference of two regions, from a table of region means.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {qsmref.__version__}")
    parser.add_argument("table", type=Path, metavar="TABLE", help="table (.csv or .tsv)")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    _add_table(parser.add_argument_group("the table"))
    _add_comparison(parser.add_argument_group("the comparison"))
    return parser


def _add_table(group) -> None:
    group.add_argument(
        "--id-column",
        metavar="NAME",
        help="column of participants; without it each row of a wide table is one",
    )
    group.add_argument(
        "--regions",
        nargs="+",
        default=[],
        metavar="NAME",
        help="regions: columns of a wide table (needed), or names in a long one (default: all)",
    )
    group.add_argument(
        "--units", required=True, choices=tuple(UNITS), help="unit of the values; results are ppb"
    )
    group.add_argument(
        "--references",
        nargs="+",
        default=[],
        metavar="NAME",
        help="regions that are only subtracted, such as CSF",
    )
    group.add_argument(
        "--decimal",
        choices=("point", "comma"),
        default="point",
        help="sign before the decimals of the numbers (default point)",
    )
    group.add_argument(
        "--missing",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="cells that mean no value, beside empty ones and n/a, for example . or -999",
    )
    group.add_argument("--region-column", metavar="NAME", help="long table: column of regions")
    group.add_argument("--value-column", metavar="NAME", help="long table: column of values")
    group.add_argument("--session-column", metavar="NAME", help="column of visits")
    group.add_argument(
        "--sessions",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="take these visits only, in this order, where the first is what others change from "
        "(default: all, by number or name); with one of them, groups are compared in it",
    )
    group.add_argument(
        "--participants",
        type=Path,
        metavar="FILE",
        help="table with groups and covariates, where TABLE does not have them; same id column",
    )


def _add_comparison(group) -> None:
    group.add_argument("--group-column", metavar="NAME", help="column of groups")
    group.add_argument(
        "--groups",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="groups to compare, the first minus the second (default: all, by the alphabet)",
    )
    group.add_argument(
        "--covariates",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns to adjust for: numbers, or categories if they are texts or written C(NAME)",
    )
    group.add_argument(
        "--test",
        choices=COHORT_TESTS,
        default="auto",
        help="auto: student for two groups, anova for more, ancova with covariates, mixed over "
        "sessions (default)",
    )
    group.add_argument(
        "--family",
        choices=FAMILIES,
        default="kind",
        help="tests that are corrected together: kind keeps regions alone, pairs, and each of "
        "--references apart (default); all takes every row",
    )
    group.add_argument(
        "--omnibus-regions",
        nargs="+",
        default=[],
        metavar="NAME",
        help="regions of the test of all differences at once (default: all regions)",
    )
    group.add_argument(
        "--equivalence-margin",
        type=_positive,
        default=5.0,
        metavar="PPB",
        help="difference of a reference between groups that counts as none (default 5 ppb)",
    )
    group.add_argument(
        "--power-differences",
        nargs="+",
        type=_positive,
        default=list(POWER_DIFFERENCES),
        metavar="PPB",
        help="differences for which sample sizes are given (default 5 10 20 ppb)",
    )
    group.add_argument(
        "--session-time",
        choices=TIMES,
        default="auto",
        help="sessions as times (change per unit) or as categories (change from the first); auto: "
        "times if all are numbers (default)",
    )
    group.add_argument(
        "--random-slope",
        action="store_true",
        help="let participants differ in their change, with three sessions or more",
    )
    group.add_argument(
        "--permutations", type=_count, default=10_000, metavar="N", help="(default 10000)"
    )
    group.add_argument(
        "--random-seed", type=_seed, default=0, metavar="N", help="of permutations (default 0)"
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the last line printed agrees with it."""
    parser = _build_parser()
    options = parser.parse_args(argv)
    if options.group_column is None and options.session_column is None:
        parser.error("give --group-column to compare groups, or --session-column for changes")
    if options.sessions and options.session_column is None:
        parser.error("--sessions needs --session-column")
    if options.id_column is None:
        several = (options.session_column, options.region_column, options.participants)
        if any(given is not None for given in several):
            parser.error("visits, a long table and --participants need --id-column")
    try:
        said = _run(options)
    except DataError as error:
        return _last_line(str(error), error.code)
    except OSError as error:
        return _last_line(io_sentence(error).rstrip("."), ExitCode.IO_ERROR)
    except Exception as error:
        traceback.print_exc()
        return _last_line(f"unexpected {type(error).__name__}: {error}", ExitCode.INTERNAL)
    return _last_line(said, ExitCode.OK)


def _run(options: argparse.Namespace) -> str:
    """Do what is asked for; return what to say last."""
    from qsmref.analysis.cohort import Plan, analyse
    from qsmref.analysis.doubts import doubts_of
    from qsmref.analysis.tables import (
        RequestError,
        TableError,
        measurements,
    )

    from .groupfiles import closing_words, write_figures, write_results
    from .grouppage import write_page

    try:
        table = _read(options, options.table)
    except TableError as error:
        raise DataError(str(error)) from error
    if options.id_column is None:
        from .statstable import with_rows

        table = with_rows(table)
        options.id_column = table.columns[0]
    plan = Plan(
        group_column=options.group_column,
        groups=tuple(options.groups),
        covariates=tuple(options.covariates),
        test=options.test,
        family=options.family,
        permutations=options.permutations,
        seed=options.random_seed,
        margin=options.equivalence_margin,
        power_differences=tuple(options.power_differences),
        omnibus_regions=tuple(options.omnibus_regions),
        time=options.session_time,
        random_slope=options.random_slope,
        id_column=options.id_column,
    )
    try:
        measured = measurements(
            table,
            options.id_column,
            options.regions or None,
            options.units,
            session_column=options.session_column,
            region_column=options.region_column,
            value_column=options.value_column,
            references=options.references,
            what=options.table.name,
        )
        if options.sessions:
            measured = _visits(measured, options.sessions)
        people = _participants(options, table, measured)
        used = options.group_column, options.covariates
        doubts = doubts_of(measured, options.units, people, *used)
        for doubt in doubts:
            _say(f"warning: {doubt}")
        results = analyse(measured, people, plan)
    except RequestError as error:
        raise DataError(str(error), ExitCode.USAGE) from error
    except TableError as error:
        raise DataError(str(error)) from error
    _check_output(options.out)
    for note in results.notes:
        _say(note)
    results.notes[:0] = [f"{doubt[0].upper()}{doubt[1:]}" for doubt in doubts]
    for _, who in results.tables["excluded"].iterrows():
        _say(f"{who['participant_id']} is left out ({who['analysis']}): {who['reason']}")
    source = {"SourceTable": options.table.name, "SourceUnits": options.units}

    def path_of(name: str) -> Path:
        return options.out / f"{name}.tsv"

    write_results(results, path_of, source)
    figures = write_figures(results, path_of)
    page = write_page(options.out / "summary.html", f"{options.table.name}", results, figures)
    lines = closing_words(results)
    for line in lines[1:]:
        print(f"{PROG}: {line}", flush=True)
    return f"{lines[0]}; tables and {page.name} are in {options.out}"


def _read(options: argparse.Namespace, path: Path):
    """One of the tables, with its numbers and gaps as the options say they are written."""
    from qsmref.analysis.design import column_of

    from .statstable import read_table

    numeric = [*options.regions, *options.references, *map(column_of, options.covariates)]
    numeric += [name for name in (options.value_column, options.session_column) if name]
    return read_table(path, numeric=numeric, decimal=options.decimal, missing=options.missing)


def _visits(measured, labels: Sequence[str]):
    """Scans of some visits, in the order of the labels."""
    from dataclasses import replace

    import numpy as np

    from qsmref.analysis.tables import RequestError, hint

    for label in labels:
        if label not in measured.visits:
            raise RequestError(f"there is no session {label!r}; {hint(label, measured.visits)}.")
    keep = [session in labels for session in measured.sessions]
    return replace(measured.scans(np.array(keep)), visits=tuple(labels))


def _participants(options: argparse.Namespace, table, measured):
    """Table of participants: its own file, or the columns of the table, one row each."""
    from qsmref.analysis.design import column_of
    from qsmref.analysis.tables import TableError, column, texts

    wanted = [column_of(c) for c in options.covariates]
    wanted += [options.group_column] if options.group_column else []
    if not wanted:
        return None
    if options.participants is not None:
        return _read(options, options.participants)
    what = options.table.name
    for name in wanted:
        column(table, name, what)
    people = table[list(dict.fromkeys([options.id_column, *wanted]))].copy()
    people[options.id_column] = texts(people[options.id_column])
    people = people[people[options.id_column].isin(set(measured.participants))]
    people = people.drop_duplicates()
    twice = people[people[options.id_column].duplicated()]
    if len(twice):
        who = twice[options.id_column].iloc[0]
        rows = people[people[options.id_column] == who]
        odd = [n for n in dict.fromkeys(wanted) if rows[n].nunique() > 1][0]
        values = " and ".join(repr(v) for v in rows[odd].unique()[:2])
        raise TableError(
            f"{what}: {who} has {odd} {values} in different rows; groups and covariates must be "
            "the same in all rows of a participant."
        )
    return people.reset_index(drop=True)


def _check_output(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(
            f"OUT {folder} cannot be written ({error.strerror}).", ExitCode.CANNOT_CREATE
        ) from error


def _say(line: str) -> None:
    print(f"{PROG}: {line}", file=sys.stderr, flush=True)


def _last_line(said: str, code: ExitCode) -> int:
    print(f"{PROG}: {said.removesuffix('.')}. Exit status {int(code)}", flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
