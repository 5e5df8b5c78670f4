"""``qsmref``: from the command line to the exit code."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import qsmref
from qsmref import files
from qsmref.problems import DataError, ExitCode, Problem, exit_code, io_sentence
from qsmref.settings import Settings

from .parser import Command, parse_args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the last line printed agrees with it."""
    command = parse_args(argv)
    try:
        _prepare(command.settings)
        finished, asked, problems = _LEVELS[command.level](command)
    except DataError as error:
        return _last_line(0, 0, [Problem("", str(error), error.code)])
    except OSError as error:
        return _last_line(0, 0, [Problem("", io_sentence(error), ExitCode.IO_ERROR)])
    except KeyboardInterrupt:
        _error("interrupted; the same command goes on from the work folder")
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        return _last_line(0, 0, [_unexpected(error, command.output_dir)])
    return _last_line(finished, asked, problems, command.settings.dry_run)


def _prepare(settings: Settings) -> None:
    from qsmref.machine import threads_per_node

    from .environment import prepare

    try:
        prepare(settings.work_dir.absolute(), threads_per_node(settings))
    except OSError as error:
        raise DataError(
            f"the work folder {settings.work_dir} cannot be written ({error.strerror}).",
            ExitCode.CANNOT_CREATE,
        ) from error


def _unexpected(error: Exception, output_dir: Path, subject: str = "") -> Problem:
    """An error in this program, as a problem; the traceback goes to a file."""
    sentence = f"unexpected {type(error).__name__}: {error}"
    whose = f"-sub-{subject}" if subject else ""
    path = output_dir / "logs" / f"crash-qsmref{whose}-{os.getpid()}.txt"
    try:
        files.write_text(path, "".join(traceback.format_exception(error)))
    except OSError:
        # Where nothing can be written, the terminal is the only place left.
        traceback.print_exception(error)
    else:
        sentence += f" (details: {path})"
    return Problem(subject, sentence, ExitCode.INTERNAL, "report" if subject else "start")


def _participant_level(command: Command) -> tuple[int, int, list[Problem]]:
    """Do what is asked for; return finished participants, asked participants, and problems."""
    settings = command.settings
    if not settings.dry_run:
        _check_output(command.output_dir)
    if settings.reports_only:
        return _reports_only(command)
    _check_parameters(settings)
    if settings.boilerplate_only:
        return _boilerplate_only(command)
    _validate(command)
    runs, problems = _discover(command)
    subjects = list(dict.fromkeys([*(r.subject for r in runs), *_subjects(problems)]))
    if settings.dry_run:
        from .graph import plan

        print("\n".join(plan(runs, settings)), flush=True)
        return len({r.subject for r in runs} - set(_subjects(problems))), len(subjects), problems
    return _process(command, runs, problems, subjects)


def _group_level(command: Command) -> tuple[int, int, list[Problem]]:
    """The same for the group: compared participants stand for finished ones."""
    from .group import group_level

    if not command.settings.dry_run:
        _check_output(command.output_dir)
    return group_level(command.bids_dir, command.output_dir, command.settings)


#: From the level of the analysis to what it does.
_LEVELS = {"participant": _participant_level, "group": _group_level}


def _process(command, runs, problems, subjects) -> tuple[int, int, list[Problem]]:
    """Claim the participants, process them, and tell what became of each."""
    from qsmref.workflows.engine import identifier

    from . import workfolder
    from .graph import NAME
    from .leftovers import tidy

    settings, output_dir = command.settings, command.output_dir
    folder = settings.work_dir.absolute() / NAME
    with contextlib.ExitStack() as stack:
        names = {subject: identifier("sub", subject, "wf") for subject in subjects}
        taken = workfolder.claim(stack, folder, output_dir, names)
        own = [subject for subject in subjects if subject not in taken]
        if settings.clean_workdir:
            workfolder.clean(folder, [names[subject] for subject in own])
        tidy(output_dir, own)
        runs = [run for run in runs if run.subject in own]
        problems = problems + [_busy(subject) for subject in taken]
        problems = problems + _run(command, runs, own, problems)
    failed = set(_subjects(problems))
    finished = [s for s in subjects if s not in failed]
    return len(finished), len(subjects), problems


def _busy(subject: str) -> Problem:
    sentence = "another command is working on this participant; its results are left alone."
    _error(f"sub-{subject}: {sentence}")
    return Problem(subject, sentence, ExitCode.CANNOT_CREATE, step="start")


def _run(command, runs, subjects, problems) -> list[Problem]:
    """Run the graph of these runs and conclude these participants; return new problems."""
    from .dataset import write_dataset_files
    from .graph import (
        choose_plugin,
        configure,
        init_app_wf,
        make_plugin,
        make_progress,
        write_graph,
    )
    from .workfolder import mend

    settings, output_dir = command.settings, command.output_dir
    configure(settings, output_dir)
    workflow = init_app_wf(runs, settings, output_dir)
    write_dataset_files(
        output_dir,
        command.bids_dir,
        settings,
        methods=_methods(workflow),
        prefixes=[run.prefix for run in runs],
    )
    if settings.write_graph:
        write_graph(workflow, output_dir)
    found, completed = [], []
    if runs:
        for step in mend(workflow):
            _error(f"warning: the result of {step} in the work folder is damaged; done again")
        plugin, plugin_args = choose_plugin(settings)
        progress = make_progress(workflow, runs, settings, output_dir, plugin)
        plugin_args["status_callback"] = progress
        arguments = {"plugin": make_plugin(plugin, plugin_args), "plugin_args": plugin_args}
        found = _run_graph(workflow, arguments, progress, runs)
        completed = progress.completed(runs)
    for subject in subjects:
        mine = [p for p in [*problems, *found] if p.subject == subject]
        done = [r for r in completed if r.subject == subject]
        found += _apart(output_dir, subject, _conclude, done, mine, settings)
    return found


def _apart(output_dir: Path, subject: str, step: Callable, *arguments) -> list[Problem]:
    """Do ``step(output_dir, subject, ...)``; its failure takes nothing from other participants."""
    try:
        step(output_dir, subject, *arguments)
        return []
    except DataError as error:
        problem = Problem(subject, str(error), error.code, "report")
    except OSError as error:
        if error.errno is not None:
            raise  # a disk that is full is full for everybody
        # What is no error of the system is a damaged file, such as gzip tells of.
        problem = Problem(subject, io_sentence(error), ExitCode.IO_ERROR, "report")
    except Exception as error:
        problem = _unexpected(error, output_dir, subject)
    _error(str(problem))
    return [problem]


def _run_graph(workflow, arguments, progress, runs) -> list[Problem]:
    """Run the graph; what went wrong comes back as problems."""
    # nipype collects garbage after every step; what is loaded by now is not worth looking at.
    gc.freeze()
    why = ""
    try:
        # What nipype writes into the current folder, such as records of the resource monitor,
        # stays in the work folder.
        with contextlib.chdir(workflow.base_dir):
            workflow.run(**arguments)
    except Exception as error:
        lines = str(error).strip().splitlines()
        why = f": {lines[-1].strip().rstrip('.') if lines else type(error).__name__}"
        if not progress.problems:
            # Not a step but the engine itself: there is nothing else that could tell of it.
            sentence = f"the graph stopped{why}"
            code = ExitCode.IO_ERROR if isinstance(error, OSError) else ExitCode.INTERNAL
            progress.problems.append(Problem("", sentence, code, step="graph"))
    done = {run.prefix for run in progress.completed(runs)}
    told = {problem.prefix for problem in progress.problems}
    stopped = [
        Problem(
            run.subject,
            f"not done, since the graph stopped{why}.",
            ExitCode.SOME_FAILED,
            "graph",
            run.prefix,
        )
        for run in runs
        if run.prefix not in done | told
    ]
    return progress.problems + stopped


def _methods(workflow) -> list[str]:
    from qsmref.workflows.citations import sentence

    software = [sentence("software", "qsmref"), sentence("software", "bids")]
    return workflow.methods_text() + software


def _conclude(output_dir: Path, subject: str, done, problems, settings: Settings) -> None:
    """Write status and report of a participant."""
    from .dataset import write_status
    from .results import collect_results

    results = collect_results(output_dir, subject, settings)
    told = {run.prefix: set(run.warnings) for run in done}
    warnings = {r["prefix"]: r["warnings"] for r in results if r["prefix"] in told}
    for prefix, sentences in warnings.items():
        for sentence in sentences:
            if sentence not in told[prefix]:
                _error(f"warning: {prefix}: {sentence}")
    write_status(output_dir, subject, warnings, problems, settings)
    _report(output_dir, subject, results, settings, problems)


def _report(output_dir: Path, subject: str, results, settings: Settings, problems) -> None:
    """Write the report, unless it stands there made of just the same."""
    from .results import digest

    stamp = output_dir / "logs" / "status" / f"sub-{subject}.report"
    made_of = digest(results, settings.to_toml(), qsmref.__version__, *map(str, problems))
    page = output_dir / f"sub-{subject}.html"
    there = page.is_file() and stamp.is_file()
    # All three are made of the same: one that was deleted comes back with the others.
    there = there and (not results or _path_of_methods(output_dir, subject).is_file())
    if there and stamp.read_text(encoding="utf-8") == made_of:
        return
    from .report import write_participant_report

    write_participant_report(output_dir, subject, results, settings, problems)
    _write_methods(output_dir, subject, results)
    files.write_text(stamp, made_of)


def _write_methods(output_dir: Path, subject: str, results) -> None:
    """Write the methods of a participant's maps, as the report has them, to copy from."""
    from .methods import methods_text

    if results:
        files.write_text(_path_of_methods(output_dir, subject), methods_text(results))


def _path_of_methods(output_dir: Path, subject: str) -> Path:
    return output_dir / "logs" / "methods" / f"sub-{subject}.md"


def _reports_only(command: Command) -> tuple[int, int, list[Problem]]:
    """Write the reports of the participants that have results."""
    from .dataset import recorded_subjects

    output_dir = command.output_dir
    recorded = recorded_subjects(output_dir)
    wanted = command.settings.participant_label or tuple(recorded)
    if not wanted:
        raise DataError(f"{output_dir} has no results to report on.", ExitCode.MISSING_INPUT)
    problems = []
    for subject in wanted:
        if subject not in recorded:
            sentence = f"{output_dir} has no results of this participant."
            problems.append(Problem(subject, sentence, ExitCode.MISSING_INPUT))
            _error(str(problems[-1]))
            continue
        problems += _apart(output_dir, subject, _report_again)
    return len(wanted) - len(problems), len(wanted), problems


def _report_again(output_dir: Path, subject: str) -> None:
    """Write the report of a participant from what its status says."""
    from .dataset import read_status
    from .report import write_participant_report
    from .results import collect_results, recorded_settings

    status = read_status(output_dir, subject)
    told = [Problem.from_dict(p) for p in status.get("problems", [])]
    settings = recorded_settings(status)
    results = collect_results(output_dir, subject, settings)
    write_participant_report(output_dir, subject, results, settings, told)
    _write_methods(output_dir, subject, results)
    print(f"sub-{subject}: report written", flush=True)


def _boilerplate_only(command: Command) -> tuple[int, int, list[Problem]]:
    from .dataset import write_citation
    from .graph import init_app_wf

    runs, problems = _discover(command)
    workflow = init_app_wf(runs, command.settings, command.output_dir)
    path = write_citation(command.output_dir, _methods(workflow))
    print(path.read_text(encoding="utf-8"), flush=True)
    subjects = {r.subject for r in runs} | set(_subjects(problems))
    return len(subjects - set(_subjects(problems))), len(subjects), problems


def _discover(command: Command):
    from qsmref.inputs import Query, discover
    from qsmref.runs import EchoRun

    settings = command.settings
    query = Query(
        participants=settings.participant_label,
        sessions=settings.session_label,
        derivatives=settings.derivatives,
        atlases=settings.atlas,
        cache=settings.work_dir / "atlases",
        template=_template(settings),
        t1w=settings.t1w,
        maps=settings.maps,
        filter_file=settings.bids_filter_file,
        database_dir=settings.bids_database_dir,
        phase_units=settings.phase_units,
        phase_range=settings.phase_range,
        bipolar=settings.bipolar,
    )
    print(f"qsmref: looking for data in {command.bids_dir}", flush=True)
    runs, problems = discover(command.bids_dir, query)
    for run in runs:
        for warning in run.warnings:
            _error(f"warning: {warning}")
    for run in runs if settings.coverage_sweep else ():
        without = None if isinstance(run, EchoRun) else "its map was made elsewhere"
        without = without or (None if run.regions else "it has no regions")
        if without:
            _error(f"warning: {run.prefix}: no coverage sweep, since {without}.")
    for problem in problems:
        _error(str(problem))
    return runs, problems


def _template(settings: Settings) -> str | None:
    """Name of the template, which is looked for before anything runs."""
    from qsmref.templates import find_template

    if settings.template is None:
        return None
    return find_template(settings.template, settings.template_mask).name


def _validate(command: Command) -> None:
    from .validation import validate

    if command.settings.skip_bids_validation:
        return
    result = validate(command.bids_dir)
    if result.skipped:
        _error(f"warning: {result.skipped}")
    for error in result.participant_errors[:5]:
        _error(f"warning: bids-validator: {error}")
    hidden = len(result.participant_errors) - 5
    if hidden > 0:
        _error(f"warning: bids-validator: {hidden} more errors in files of participants")
    if result.errors:
        for error in result.errors:
            _error(f"bids-validator: {error}")
        raise DataError(
            f"{command.bids_dir} fails validation ({len(result.errors)} errors of the dataset as a "
            "whole); mend them, or pass --skip-bids-validation.",
            ExitCode.INVALID_DATASET,
        )


def _check_output(output_dir: Path) -> None:
    from .confine import check_links

    if output_dir.is_dir():
        check_links(output_dir)
    try:
        (output_dir / "logs").mkdir(parents=True, exist_ok=True)
        probe = output_dir / "logs" / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(
            f"OUTPUT_DIR {output_dir} cannot be written ({error.strerror}).",
            ExitCode.CANNOT_CREATE,
        ) from error


def _check_parameters(settings: Settings) -> None:
    from qsmref.analysis.region_methods import split_csf
    from qsmref.engines import check_mask_method, choose_engine
    from qsmref.reconstruction.parameters import check_parameters, split_mask_parameters

    try:
        inversion_params, _ = split_csf(settings.inversion, settings.inversion_params)
        check_parameters("mask", settings.mask_method, settings.mask_params)
        split_mask_parameters(settings.mask_method, settings.mask_params)
        check_parameters("background", settings.background, settings.background_params)
        check_parameters("inversion", settings.inversion, inversion_params)
    except ValueError as error:
        raise DataError(str(error), ExitCode.USAGE) from error
    if settings.label_groups is not None:
        from qsmref.atlases import read_groups

        read_groups(settings.label_groups)
    choose_engine(settings.engine)
    check_mask_method(settings.mask_method)


def _subjects(problems: Iterable[Problem]) -> list[str]:
    return [p.subject for p in problems if p.subject]


def _error(line: str) -> None:
    print(line if line.startswith("qsmref") else f"qsmref: {line}", file=sys.stderr, flush=True)


def _last_line(
    finished: int, asked: int, problems: Sequence[Problem], planned: bool = False
) -> int:
    """Print what became of it all, and return the exit code."""
    code = exit_code(finished, problems)
    failed: dict[str, str] = {}
    for problem in problems:
        if problem.subject:
            failed.setdefault(problem.subject, problem.step)
    general = [p.sentence.removesuffix(".") for p in problems if not p.subject]
    parts = []
    if asked:
        noun = "participant" if asked == 1 else "participants"
        parts.append(
            f"{finished} of {asked} {noun} planned, voxels not looked at"
            if planned
            else f"{finished} of {asked} {noun} finished"
        )
    if failed:
        shown = [f"sub-{subject}: {step}" for subject, step in list(failed.items())[:10]]
        more = ", ..." if len(failed) > 10 else ""
        parts.append(f"{len(failed)} failed ({', '.join(shown)}{more})")
    line = "; ".join([*parts, *general]) or "nothing to do"
    print(f"qsmref: {line}. Exit status {int(code)}", flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
