"""The list of options: what makes it, what it refuses, and that nothing in it is idle."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import qsmref
from bids_app import parser, run, stats
from qsmref.phantom import cli
from qsmref.reconstruction import background, inversion, methods
from qsmref.settings import GROUPS, PRESETS, Settings

ROOT = Path(qsmref.__file__).parents[1]


@pytest.fixture
def bids(tmp_path):
    (tmp_path / "bids").mkdir()
    (tmp_path / "deriv").mkdir()
    return tmp_path


def parse(bids, *flags):
    return parser.parse_args([str(bids / "bids"), str(bids / "out"), "participant", *flags])


def test_toml_round_trip():
    settings = Settings.from_preset(
        "thesis",
        participant_label=["sub-01", "02"],
        derivatives={"mine": "/data/mine"},
        inversion_params={"lambda_": 500, "radii": [1.5, 3.0]},
        phase_range=(0, 4095),
        work_dir="/scratch/work",
        mem=4,
    )
    again = Settings.from_toml(settings.to_toml())
    assert again == settings
    assert again.participant_label == ("01", "02")
    assert again.inversion_params["radii"] == (1.5, 3.0)


def test_presets_are_made_of_known_options():
    for name, changes in PRESETS.items():
        settings = Settings.from_preset(name)
        assert settings.preset == name
        for key, value in changes.items():
            assert getattr(settings, key) == value
    thesis = Settings.from_preset("thesis")
    assert (thesis.unwrap, thesis.background, thesis.inversion) == ("laplacian", "pdf", "medi")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unwrapp": "romeo"}, "did you mean 'unwrap'"),
        ({"unwrap": "magic"}, "must be one of romeo"),
        ({"mask_erosion": -1}, "at least 0"),
        ({"mask_erosion": True}, "must be a number"),
        ({"mask_quality": True}, "must be a text"),
        ({"nprocs": "two"}, "whole number"),
        ({"phase_range": (1, 1)}, "LOW below HIGH"),
        ({"phase_range": (1,)}, "two numbers"),
        ({"phase_units": "rad", "phase_range": (0, 1)}, "exclude each other"),
        ({"derivatives": {"a-b": "x"}}, "letters and digits"),
        ({"maps": "absent"}, "not among those given"),
        ({"inversion": "tkd"}, "choose a background removal"),
        ({"preset": "best"}, "unknown preset"),
        ({"work_dir": None}, "must have a value"),
    ],
)
def test_wrong_values_are_told(changes, words):
    with pytest.raises(ValueError, match=words):
        Settings.from_preset(**changes)


def test_flag_goes_before_file_before_preset_before_default(bids):
    config = bids / "config.toml"
    config.write_text('preset = "thesis"\nbackground = "v-sharp"\nunwrap = "poisson"\n')
    settings = parse(bids, "--config-file", str(config), "--unwrap", "romeo").settings
    assert settings.unwrap == "romeo"  # flag
    assert settings.background == "v-sharp"  # file
    assert settings.inversion == "medi"  # preset of the file
    assert settings.phase_sign == 1  # default
    override = parse(bids, "--config-file", str(config), "--preset", "default").settings
    assert override.inversion == "single-step"


def test_flags_of_every_kind(bids):
    settings = parse(
        bids,
        *("--participant-label", "sub-01", "02"),
        *("--session-id", "ses-a"),
        *("-d", f"mine={bids / 'deriv'}"),
        *("--phase-range", "-4096", "4094"),
        *("--inversion-param", "lambda_=1000", "radii=1.5,3,12", "merit=true", "name=x"),
        *("--mem", "16G", "--n-cpus", "3", "-v", "-v"),
        *("--mask-erosion", "2", "--phase-sign", "-1", "--write-graph"),
    ).settings
    assert settings.participant_label == ("01", "02")
    assert settings.session_label == ("a",)
    assert settings.derivatives == {"mine": str(bids / "deriv")}
    assert settings.phase_range == (-4096.0, 4094.0)
    assert settings.inversion_params == {
        "lambda_": 1000,
        "radii": (1.5, 3, 12),
        "merit": True,
        "name": "x",
    }
    assert (settings.mem, settings.nprocs, settings.verbose) == (16.0, 3, 2)
    assert (settings.mask_erosion, settings.phase_sign, settings.write_graph) == (2.0, -1, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--unwrap", "magic"], "invalid choice"),
        (["-d", "nowhere=/does/not/exist"], "is not a folder"),
        (["-d", "/no/name"], "NAME=PATH"),
        (["--mem", "lots"], "16G"),
        (["--inversion-param", "lambda_"], "KEY=VALUE"),
        (["--inversion-param", "a=1", "a=2"], "given twice"),
        (["--inversion", "medi"], "background removal"),
        (["--config-file", "absent.toml"], "absent.toml"),
        (["--work-dir", "{bids}/work"], "inside BIDS_DIR"),
        (["--participant", "01"], "unrecognized"),  # abbreviations would change with new options
    ],
)
def test_wrong_command_lines_end_with_usage(bids, capsys, flags, words):
    flags = [flag.format(bids=bids / "bids") for flag in flags]
    with pytest.raises(SystemExit) as end:
        parse(bids, *flags)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("iterations=0", "iterations must be at least 1, got 0"),
        ("iterations=-5", "iterations must be at least 1"),
        ("lambda_=-1", "lambda_ must be positive, got -1"),
        ("lambda_=0", "lambda_ must be positive"),
    ],
)
def test_numbers_that_no_method_takes_are_refused_before_anything_is_read(
    bids, capsys, given, words
):
    where = [str(bids / "bids"), str(bids / "out"), "participant"]
    assert run.main([*where, "--inversion-param", given]) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert words in last and last.endswith("Exit status 2")


def test_the_levels_are_those_of_a_bids_app(bids):
    for level in ("participant", "group"):
        assert parser.parse_args([str(bids / "bids"), str(bids / "out"), level]).level == level
    with pytest.raises(SystemExit) as end:
        parser.parse_args([str(bids / "bids"), str(bids / "out"), "session"])
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("module", "start"),
    [(parser, "qsmref: "), (stats, "qsmref-stats: "), (cli, "qsmref-phantom: ")],
)
def test_a_wrong_command_line_gets_one_sentence(module, start, capsys):
    with pytest.raises(SystemExit) as end:
        module._build_parser().parse_args(["a\nb"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(start) and line.endswith(". See --help. Exit status 2")


def test_numbers_of_the_group_level(bids, capsys):
    start = [str(bids / "bids"), str(bids / "out"), "group", "--power-differences"]
    assert parser.parse_args([*start, "5", "7.5"]).settings.power_differences == (5.0, 7.5)
    with pytest.raises(SystemExit):
        parser.parse_args([*start, "-5"])
    assert "a list of positive numbers" in capsys.readouterr().err


def test_every_option_has_a_flag_and_a_help():
    actions = {action.dest: action for action in parser._build_parser()._actions}
    for item in fields(Settings):
        assert item.metadata["help"], item.name
        assert item.metadata["group"] in GROUPS
        assert actions[item.name].option_strings, item.name


def _names_read(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "settings")
            or (isinstance(node.value, ast.Attribute) and node.value.attr == "settings")
        )
    }


def test_every_setting_is_read_somewhere():
    files = [*(ROOT / "bids_app").glob("*.py"), *(ROOT / "qsmref" / "workflows").glob("*.py")]
    files.append(ROOT / "qsmref" / "machine.py")
    read = set().union(*(_names_read(path) for path in files))
    # The preset has done its work when the settings are made; it is kept for the record.
    idle = {item.name for item in fields(Settings)} - read - {"preset"}
    assert not idle


def test_method_names_are_those_of_the_dispatchers():
    assert background.METHODS.table is methods.BACKGROUND
    assert inversion.METHODS.table is methods.INVERSION
    assert set(methods.TOTAL_FIELD) <= set(methods.INVERSION)


def test_help_needs_nothing_heavy():
    code = (
        "import sys, qsmref, bids_app.run\n"
        "try:\n    bids_app.run.main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'nipype', 'pandas', 'nibabel', 'numba', 'scipy', 'bids', 'matplotlib', 'numpy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "BIDS_DIR" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")
