"""The command line of the phantom: what it writes, and one sentence with a code when it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsmref.phantom import cli

TINY = [
    "--matrix",
    "24",
    "28",
    "24",
    "--voxel-size",
    "8",
    "8",
    "8",
    "--echo-times",
    "0.004",
    "0.01",
]


def run(*arguments):
    """Exit code of the command, whether it returns or exits."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


def test_writes_a_dataset_and_says_so(tmp_path, capsys):
    out = tmp_path / "ds"
    code = run(
        "dataset", out, *TINY, "--participants", 2, "--groups", "patient", "control", "--effect",
        "SN=25", "PU=-3", "--seed", 3, "--bipolar", "--snr", 60, "--field-strength", 7,
        "--oblique", 15, "--omp-nthreads", 1, "--shim", "1", "--texture", 0, "--supersample", 2,
    )  # fmt: skip
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sub-01 (1 of 2): patient, ")
    assert lines[-1].startswith(f"qsmref-phantom: 2 participants in {out}")
    sidecar = json.loads((out / "sub-02/anat/sub-02_echo-1_part-phase_MEGRE.json").read_text())
    assert sidecar["MagneticFieldStrength"] == 7 and sidecar["BipolarReadout"] is True
    truth = json.loads(
        (out / "derivatives/truth/sub-01/fmap/sub-01_desc-total_fieldmap.json").read_text()
    )
    assert truth["B0Direction"][2] == pytest.approx(np.cos(np.deg2rad(15)))
    readme = (out / "README").read_text()
    assert "effect in patient, SN: 25 ppb" in readme and "shim_order: 1" in readme


def test_every_option_of_dataset_is_read():
    options = vars(cli._build_parser().parse_args(["dataset", "OUT"]))
    source = Path(cli.__file__).read_text(encoding="utf-8")
    for name in set(options) - {"command", "run"}:
        assert f"options.{name}" in source, name


def test_labels_from_the_shell(tmp_path):
    x, y, z = np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij")
    labels = (x**2 + y**2 + z**2 < 100).astype(np.uint8)
    labels[10:14, 10:14, 10:14] = 2
    nib.save(nib.Nifti1Image(labels, np.diag([4.0, 4, 4, 1])), tmp_path / "labels.nii")
    table = tmp_path / "table.tsv"
    table.write_text(
        "index\tname\tsusceptibility_ppm\n0\tair\t9.4\n1\tGM\t0.03\n2\tputamen\t0.07\n"
    )
    pair = ["--labels", tmp_path / "labels.nii", "--susceptibility", table]
    assert run("dataset", tmp_path / "ds", *pair, "--voxel-size", 8, 8, 8, "--effect",
               "putamen=10") == 0  # fmt: skip
    dseg = nib.load(tmp_path / "ds/derivatives/truth/sub-01/anat/sub-01_dseg.nii.gz")
    assert dseg.shape == (12, 12, 12)
    table.write_text("index\tname\tsusceptibility_ppm\n0\tair\t9.4\n1\tGM\t0.03\n")
    assert run("dataset", tmp_path / "other", *pair) == 65
    assert run("dataset", tmp_path / "other", "--labels", tmp_path / "none.nii", *pair[2:]) == 66
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "COMMAND"),
        (["cohort"], "invalid choice"),
        (["study"], "OUT"),
        (["dataset"], "OUT"),
        (["dataset", "OUT", "--matrix", "1", "2"], "expected 3 arguments"),
        (["dataset", "OUT", "--matrix", "1", "2", "0"], "whole number from 1"),
        (["dataset", "OUT", "--matrix", "1", "2", "1.5"], "whole number from 1"),
        (["dataset", "OUT", "--voxel-size", "1", "-2", "1"], "three positive numbers"),
        (["dataset", "OUT", "--voxel-size", "1", "x", "1"], "invalid float"),
        (["dataset", "OUT", "--echo-times", "4", "9"], "seconds, not ms"),
        (["dataset", "OUT", "--echo-times", "0.009", "0.004"], "increasing"),
        (["dataset", "OUT", "--snr", "-1"], "SNR"),
        (["dataset", "OUT", "--seed", "-1"], "whole number from 0"),
        (["dataset", "OUT", "--participants", "0"], "whole number from 1"),
        (["dataset", "OUT", "--groups", "a", "a"], "must differ"),
        (["dataset", "OUT", "--groups", "n/a"], "cannot be a group's name"),
        (["dataset", "OUT", "--effect", "SN"], "REGION=PPB"),
        (["dataset", "OUT", "--effect", "SN=high"], "REGION=PPB"),
        (["dataset", "OUT", "--effect", "XX=25"], "region 'XX'"),
        (["dataset", "OUT", "--effect", "SN=25", "SN=5"], "twice"),
        (["dataset", "OUT", "--oblique", "120"], "between -90 and 90"),
        (["dataset", "OUT", "--oblique", "nan"], "between -90 and 90"),
        (["dataset", "OUT", "--variation", "-1"], "between 0 and 2"),
        (["dataset", "OUT", "--labels", "x.nii"], "need each other"),
        (["dataset", "OUT", "--mask", "x.nii"], "goes with --labels"),
        (
            ["dataset", "OUT", "--labels", "x", "--susceptibility", "y", "--matrix", "2", "2", "2"],
            "does not go with",
        ),
        (["dataset", "OUT", "--shim", "3"], "invalid choice"),
        (["dataset", "OUT", "--repetition-time", "0.001"], "longer than the last"),
        (["dataset", "OUT", "--field-strength", "0"], "B0 must be positive"),
        (["dataset", "OUT", "--flip-angle", "200"], "flip angle"),
        (["dataset", "OUT", "--texture", "-1"], "texture"),
    ],
)
def test_bad_options_get_one_sentence_and_code_2(
    tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert not any(tmp_path.iterdir()), "nothing is written"


def test_unwritable_out_is_73(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run("dataset", tmp_path / "file", *TINY) == 73
    assert run("dataset", tmp_path / "file" / "below", *TINY) == 73
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("x")
    assert run("dataset", full, *TINY) == 73
    error = capsys.readouterr().err
    assert error.count("\n") == 3 and "not empty" in error and "cannot be written" in error


def test_an_error_of_ours_is_70(tmp_path, monkeypatch, capsys):
    import qsmref.phantom.dataset as dataset

    def fail(*arguments, **options):
        raise RuntimeError("boom")

    monkeypatch.setattr(dataset, "simulate", fail)
    assert run("dataset", tmp_path / "ds", *TINY) == 70
    assert "Internal error (RuntimeError: boom)" in capsys.readouterr().err


def test_help_needs_no_heavy_module():
    code = (
        "import sys\n"
        "from qsmref.phantom.cli import main\n"
        "try:\n    main(['dataset', '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'numpy', 'scipy', 'nibabel', 'pandas', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("--matrix", "--effect", "--labels", "--oblique", "--bipolar", "--seed"):
        assert option in done.stdout
