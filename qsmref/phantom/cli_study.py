"""``qsmref-phantom study OUT``: options, and what happens in which order."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from ..problems import DataError, ExitCode

#: What the command writes into OUT besides the work folder.
_RESULTS = ("figures", "maps")


def add_arguments(parser: argparse.ArgumentParser, count, seed) -> None:
    """Add the options; `count` and `seed` convert whole numbers."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of results")
    _add_methods(parser.add_argument_group("methods"))
    _add_sweep(parser.add_argument_group("conditions and masks"))
    _add_head(parser.add_argument_group("head and signal"), count, seed)
    group = parser.add_argument_group("running")
    group.add_argument(
        "--sloppy",
        action="store_true",
        help="coarse grid and few iterations: a test that it runs, not a result",
    )
    group.add_argument(
        "--nprocs",
        type=count,
        metavar="N",
        help="steps at the same time (default: the processors this process may use)",
    )
    group.add_argument(
        "--omp-nthreads", type=count, default=1, metavar="N", help="threads of a step (default 1)"
    )
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="intermediate results; the next call goes on from there (default OUT/work)",
    )


def _add_methods(group) -> None:
    group.add_argument(
        "--preset",
        choices=["default", "thesis"],
        default="default",
        help="chain of methods, as of qsmref --preset (default: default)",
    )
    group.add_argument(
        "--methods",
        nargs="+",
        metavar="BACKGROUND+INVERSION",
        help="chains to compare, the first one in the figures; parameters follow a colon, as in "
        "none+single-step:iterations=300; 'all' is every removal with every inversion",
    )
    group.add_argument(
        "--early-tolerance",
        type=float,
        metavar="X",
        help="of the background removal in condition 3 (default 0.01)",
    )


def _add_sweep(group) -> None:
    group.add_argument(
        "--conditions",
        nargs="+",
        choices=["1", "2", "3"],
        help="1: nothing magnetic outside the brain; 2: air, background removal converged; 3: air, "
        "stopped early (default: all)",
    )
    group.add_argument(
        "--air", type=float, metavar="PPM", help="air in the conditions 2 and 3 (default 9)"
    )
    group.add_argument(
        "--slabs", type=float, nargs="+", metavar="MM", help="increasing (default 92 104 116)"
    )
    group.add_argument(
        "--slab-centre",
        type=float,
        metavar="MM",
        help="middle of the slabs, from the middle of the image along its slices (default 0)",
    )
    group.add_argument(
        "--erosions", type=float, nargs="+", metavar="MM", help="increasing (default 0 2 4)"
    )
    group.add_argument(
        "--mask-from",
        choices=["truth", "magnitude"],
        default="truth",
        help="brain mask: the true one, or found in the magnitude (default truth)",
    )


def _add_head(group, count, seed) -> None:
    group.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label image (NIfTI) in the place of the analytic head; needs the next two",
    )
    group.add_argument(
        "--susceptibility",
        type=Path,
        metavar="TABLE.tsv",
        help="table for --labels, as of qsmref-phantom dataset",
    )
    group.add_argument(
        "--rois",
        type=Path,
        metavar="TABLE.tsv",
        help="regions of interest: name, index (labels, by commas), optionally x_low, x_high, ... "
        "z_high (mm from the middle of the image); the first three are neighbours, the fourth is "
        "distant",
    )
    group.add_argument("--mask", type=Path, metavar="FILE", help="brain mask for --labels")
    group.add_argument(
        "--white-matter", type=float, metavar="PPM", help="its susceptibility (default -0.09)"
    )
    group.add_argument(
        "--matrix",
        type=count,
        nargs=3,
        metavar=("NX", "NY", "NZ"),
        help="voxels (default 256 256 74; follows from the image with --labels)",
    )
    group.add_argument(
        "--voxel-size",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="mm (default 1 1 2; that of the image with --labels)",
    )
    group.add_argument(
        "--oblique", type=float, metavar="DEG", help="tilt of B0 to the voxel grid (default 0)"
    )
    group.add_argument("--field-strength", type=float, metavar="T", help="tesla (default 3)")
    group.add_argument(
        "--signal",
        choices=["field", "echoes"],
        default="field",
        help="what is reconstructed: the field itself, or complex echoes that are fitted and "
        "unwrapped (default field)",
    )
    group.add_argument(
        "--echo-times",
        type=float,
        nargs="+",
        metavar="S",
        help="seconds (default 0.0034 0.0094 0.0154 0.0214)",
    )
    group.add_argument(
        "--snr",
        type=float,
        help="mean magnitude of the brain at the first echo over the SD of the noise; for a field "
        "the least noise of a fit of such echoes (default inf)",
    )
    group.add_argument(
        "--texture",
        type=float,
        metavar="FRACTION",
        help="smooth random variation inside each tissue (default 0)",
    )
    group.add_argument(
        "--supersample",
        type=count,
        metavar="K",
        help="points per voxel and axis (default 1; with --labels as many as a voxel has label "
        "voxels)",
    )
    group.add_argument(
        "--shim",
        choices=["none", "0", "1", "2"],
        default="none",
        help="order up to which the field is shimmed over the brain (default none)",
    )
    group.add_argument(
        "--seed", type=seed, default=0, help="same options and seed, same bytes (default 0)"
    )


def study_of(options: argparse.Namespace):
    """The :class:`~qsmref.phantom.study.Study` that the options ask for.

    Raises
    ------
    DataError
        Options that do not go together, or values out of their range.
    """
    from ..settings import Settings
    from .study import PRESETS, Study, chains_of

    if options.labels is not None:
        if options.susceptibility is None or options.rois is None:
            raise DataError("--labels needs --susceptibility and --rois.", ExitCode.USAGE)
        if options.matrix is not None:
            raise DataError(
                "--matrix does not go with --labels: it follows from the image and --voxel-size.",
                ExitCode.USAGE,
            )
    elif options.susceptibility is not None or options.mask is not None:
        raise DataError("--susceptibility and --mask go with --labels.", ExitCode.USAGE)
    settings = Settings.from_preset(options.preset)
    given = {
        "matrix": options.matrix,
        "voxel_size": options.voxel_size,
        "only": options.conditions,
        "air_ppm": options.air,
        "white_matter_ppm": options.white_matter,
        "slabs": options.slabs,
        "slab_centre": options.slab_centre,
        "erosions": options.erosions,
        "early_tolerance": options.early_tolerance,
        "snr": options.snr,
        "echo_times": options.echo_times,
        "field_strength": options.field_strength,
        "oblique": options.oblique,
        "texture": options.texture,
        "supersample": options.supersample,
    }
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    if options.labels is not None:
        values = {"matrix": None, "voxel_size": None, **values}
    study = Study(
        chains=chains_of(options.methods or [PRESETS[options.preset]]),
        signal=options.signal,
        mask=options.mask_from,
        echo_fit=settings.echo_fit,
        unwrap=settings.unwrap,
        shim_order=None if options.shim == "none" else int(options.shim),
        seed=options.seed,
        **values,
    )
    return study.made_sloppy() if options.sloppy else study


def run_study(options: argparse.Namespace) -> ExitCode:
    """Run the study and copy its results to OUT."""
    study = study_of(options)
    for path in (options.labels, options.susceptibility, options.mask, options.rois):
        if path is not None and not path.is_file():
            raise DataError(f"{path} does not exist.", ExitCode.MISSING_INPUT)
    out, work = options.out, options.work_dir or options.out / "work"
    _check_out(out)

    from ..machine import available_cores
    from ..workflows.local import run_locally
    from ..workflows.study import HeadFiles, init_study_wf

    started, clock = time.time(), time.monotonic()
    files = HeadFiles(options.labels, options.susceptibility, options.mask, options.rois)

    def build():
        workflow = init_study_wf(study=study, files=files, omp_nthreads=options.omp_nthreads)
        count = len(workflow.list_node_names())
        print(f"{len(study.chains)} chains, {len(study.variants)} masks: {count} steps", flush=True)
        return workflow

    workflow = run_locally(build, work, options.nprocs or available_cores())
    made = work.absolute() / workflow.name / "report" / "study"
    changed = _publish(made, out)
    seconds = time.monotonic() - clock
    # The report depends on every step: when it stands, all of them stood.
    again = made.stat().st_mtime >= started
    done = f"{changed} files written to" if changed else "nothing changed in"
    print(f"{done} {out}, {seconds:.0f} s" + ("" if again else "; no step was left to do"))
    return ExitCode.OK


def _check_out(out: Path) -> None:
    """Refuse a folder that holds something else."""
    if out.is_dir():
        names = {p.name for p in out.iterdir()}
        if names and not names & {"study.json", "work"}:
            raise DataError(
                f"{out} is not empty and holds no study: choose another folder.",
                ExitCode.CANNOT_CREATE,
            )
    out.mkdir(parents=True, exist_ok=True)


def _publish(made: Path, out: Path) -> int:
    """Copy what is new or different; in the folders of results, drop what is no longer made."""
    changed = 0
    wanted = {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
    for name in sorted(wanted):
        target = out / name
        content = (made / name).read_bytes()
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        shutil.copyfile(made / name, partial)
        os.replace(partial, target)
        changed += 1
    for folder in _RESULTS:
        for path in sorted((out / folder).glob("*")):
            if path.relative_to(out) not in wanted:
                path.unlink()
                changed += 1
    return changed
