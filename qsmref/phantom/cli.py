"""Command line of the phantom: ``qsmref-phantom dataset OUT`` and ``qsmref-phantom study OUT``.

Only the standard library is imported before the options are known, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..problems import DataError, ExitCode
from ..usage import Parser
from . import cli_study

PROG = "qsmref-phantom"


def _effect(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        if not name or not separator:
            raise ValueError
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not REGION=PPB, as in SN=25") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _group(text: str) -> str:
    if not text.isprintable() or text != text.strip() or not text or text == "n/a":
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a group's name")
    return text


def _build_parser() -> argparse.ArgumentParser:
    """Parser of the command line; the documentation renders it."""
    parser = Parser(
        prog=PROG,
        description="Simulate what a susceptibility mapping study acquires, and keep the truth.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    _add_dataset(commands)
    _add_study(commands)
    return parser


def _add_dataset(commands) -> None:
    parser = commands.add_parser(
        "dataset",
        help="write a BIDS dataset with raw multi-echo phase and magnitude",
        description=(
            "Write a raw BIDS dataset with multi-echo gradient-echo magnitude and phase and a "
            "T1-weighted image, of one participant or a cohort. The truth (susceptibility, total "
            "and local field, brain mask, regions) is the derivative OUT/derivatives/truth."
        ),
    )
    parser.set_defaults(run=_run_dataset)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make; must be empty")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace a dataset that {PROG} wrote into OUT before; other derivatives stay",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="same options and seed, same bytes (default 0)"
    )
    parser.add_argument(
        "--omp-nthreads",
        type=_count,
        metavar="N",
        help="threads of the Fourier transforms (default: the processors this process may use)",
    )
    _add_head(parser.add_argument_group("head"))
    _add_acquisition(parser.add_argument_group("acquisition"))
    _add_cohort(parser.add_argument_group("cohort"))


def _add_study(commands) -> None:
    parser = commands.add_parser(
        "study",
        help="reconstruct a head from masks of several coverages, and ask what stays still",
        description=(
            "Reconstruct a head of known susceptibility under three conditions (no background; air "
            "with the background removal converged; the same stopped early) from slabs and eroded "
            "masks, and write the means of regions and of their differences, figures, the offset "
            "as a field, and every parameter. A second call does only what is missing."
        ),
    )
    cli_study.add_arguments(parser, _count, _seed)
    parser.set_defaults(run=cli_study.run_study)


def _add_head(group) -> None:
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label image (NIfTI) to use in the place of the analytic head",
    )
    group.add_argument(
        "--susceptibility",
        type=Path,
        metavar="TABLE.tsv",
        help="table for --labels: index, name, susceptibility_ppm; optional abbreviation, "
        "hemisphere, m0, t1, t2star (s), brain (1 or 0)",
    )
    group.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="brain mask for --labels, on their grid (default: the column brain of the table, "
        "else every label with the name of a brain tissue; largest part, holes filled)",
    )
    group.add_argument(
        "--texture",
        type=float,
        default=0.1,
        metavar="FRACTION",
        help="smooth random variation inside each tissue, as a fraction of its susceptibility "
        "(default 0.1; 0 for piecewise constant tissue)",
    )
    group.add_argument(
        "--supersample",
        type=_count,
        metavar="K",
        help="points per voxel and axis on which the field and the signal are computed (default "
        "1, quick; 2 gives partial volume and dephasing for 10 times the time and 6 times the "
        "memory; with --labels as many as a voxel has label voxels)",
    )


def _add_acquisition(group) -> None:
    group.add_argument(
        "--matrix",
        type=_count,
        nargs=3,
        metavar=("NX", "NY", "NZ"),
        help="voxels (default 128 128 128; follows from the image with --labels)",
    )
    group.add_argument(
        "--voxel-size",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="mm (default 1.5 1.5 1.5; that of the image with --labels)",
    )
    group.add_argument(
        "--echo-times",
        type=float,
        nargs="+",
        metavar="S",
        default=[0.004, 0.0096, 0.0152, 0.0208],
        help="seconds (default 0.004 0.0096 0.0152 0.0208)",
    )
    group.add_argument(
        "--repetition-time", type=float, metavar="S", help="seconds (default: 15 ms after the last)"
    )
    group.add_argument(
        "--flip-angle", type=float, default=15.0, metavar="DEG", help="degrees (default 15)"
    )
    group.add_argument(
        "--field-strength", type=float, default=3.0, metavar="T", help="tesla (default 3)"
    )
    group.add_argument(
        "--snr",
        type=float,
        default=100.0,
        help="mean magnitude of the brain at the first echo over the noise SD of the real and of "
        "the imaginary part (default 100; inf for no noise)",
    )
    group.add_argument(
        "--oblique",
        type=float,
        default=0.0,
        metavar="DEG",
        help="tilt of the voxel grid about the axis (2, 1, 0); the head stays where it is on the "
        "voxel axes and B0 is tilted (default 0)",
    )
    group.add_argument(
        "--bipolar",
        action="store_true",
        help="read out even echoes backwards: a phase ramp along x of alternating sign",
    )
    group.add_argument(
        "--no-phase-offset",
        dest="phase_offset",
        action="store_false",
        help="no phase of the receiver",
    )
    group.add_argument(
        "--shim",
        choices=["none", "0", "1", "2"],
        default="2",
        help="order up to which the field is shimmed over the brain (default 2)",
    )


def _add_cohort(group) -> None:
    group.add_argument(
        "--participants", type=_count, default=1, metavar="N", help="in all groups (default 1)"
    )
    group.add_argument(
        "--groups",
        type=_group,
        nargs="+",
        metavar="NAME",
        help="participants take turns in them (default: control)",
    )
    group.add_argument(
        "--effect",
        type=_effect,
        nargs="+",
        default=[],
        metavar="REGION=PPB",
        help="added to the susceptibility of the region in the first group, as in SN=25",
    )
    group.add_argument(
        "--sessions",
        type=_count,
        default=1,
        metavar="N",
        help="visits of each participant, ses-1 and so on, with noise of their own (default 1: no "
        "such folder)",
    )
    group.add_argument(
        "--change",
        type=_effect,
        nargs="+",
        default=[],
        metavar="REGION=PPB",
        help="added to the region in the first group from each visit to the next",
    )
    group.add_argument(
        "--variation",
        type=float,
        metavar="FACTOR",
        help="spread of shape and susceptibility between participants, 1 being that of adults "
        "(default: 1 for several participants, 0 for one)",
    )


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    wrong = None
    if (options.labels is None) != (options.susceptibility is None):
        wrong = "--labels and --susceptibility need each other."
    elif options.labels is None and options.mask is not None:
        wrong = "--mask goes with --labels; the analytic head has its own."
    elif options.labels is not None and options.matrix is not None:
        wrong = "--matrix does not go with --labels: it follows from the image and --voxel-size."
    elif not -90 < options.oblique < 90:
        wrong = f"--oblique must lie between -90 and 90 degrees, not {options.oblique:g}."
    elif options.variation is not None and not 0 <= options.variation <= 2:
        wrong = f"--variation must lie between 0 and 2, not {options.variation:g}."
    elif len({name for name, _ in options.effect}) != len(options.effect):
        wrong = "--effect names a region twice."
    elif len({name for name, _ in options.change}) != len(options.change):
        wrong = "--change names a region twice."
    elif options.change and options.sessions == 1:
        wrong = "--change is from one visit to the next: give --sessions too."
    if wrong:
        raise DataError(wrong, ExitCode.USAGE)


def _run_dataset(options: argparse.Namespace) -> ExitCode:
    _check(options)
    from ..reconstruction.fft import threads
    from .dataset import write_dataset
    from .head import Head
    from .labels import read_label_image

    head = (
        Head()
        if options.labels is None
        else read_label_image(options.labels, options.susceptibility, options.mask)
    )
    started = time.monotonic()
    with threads(options.omp_nthreads or len(os.sched_getaffinity(0))):
        people = write_dataset(
            options.out,
            head,
            participants=options.participants,
            groups=options.groups or ["control"],
            effect_ppb=dict(options.effect),
            variation=options.variation,
            sessions=options.sessions,
            change_ppb=dict(options.change),
            seed=options.seed,
            overwrite=options.overwrite,
            progress=lambda line: print(line, flush=True),
            matrix=options.matrix,
            voxel_size=options.voxel_size,
            echo_times=tuple(options.echo_times),
            supersample=options.supersample,
            oblique=options.oblique,
            texture=options.texture,
            shim_order=None if options.shim == "none" else int(options.shim),
            field_strength=options.field_strength,
            repetition_time=options.repetition_time,
            flip_angle=options.flip_angle,
            snr=options.snr,
            bipolar=options.bipolar,
            phase_offset=options.phase_offset,
        )
    count = f"{len(people)} participant" + ("s" if len(people) > 1 else "")
    print(f"{PROG}: {count} in {options.out}, {time.monotonic() - started:.0f} s.")
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _build_parser().parse_args(argv)
    try:
        return int(options.run(options))
    except DataError as error:
        sentence, code = str(error), error.code
    except OSError as error:
        where = error.filename or options.out
        sentence = f"{where} cannot be written or read ({error.strerror or error})."
        code = ExitCode.CANNOT_CREATE
    except Exception as error:  # an error of ours: reported as such, with its trace
        traceback.print_exc()
        sentence = f"Internal error ({type(error).__name__}: {error})."
        code = ExitCode.INTERNAL
    print(f"{PROG}: {sentence}", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
