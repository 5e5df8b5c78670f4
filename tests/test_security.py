"""What a dataset may not do: write elsewhere, run code, or put tags into a page."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import fuzz_harness
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner
from fuzz_values import ATTRIBUTE, TAG

from bids_app import stats
from bids_app.results import recorded_settings
from qsmref import files, tables
from qsmref.metadata import is_label
from qsmref.problems import DataError, ExitCode, Problem, printable

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for folder in ("qsmref", "bids_app") for p in (ROOT / folder).rglob("*.py"))


@pytest.fixture
def run(tmp_path, capfd):
    """Run the command line in this process."""
    return Runner(tmp_path, capfd)


# --- the code: a machine can see what is never called -----------------------------------------

#: Names that make code or objects out of data, or hand a text to a shell.
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_ATTRIBUTES = {
    ("os", "system"),
    ("os", "popen"),
    ("pd", "eval"),
    ("pd", "read_pickle"),
    ("pandas", "read_pickle"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("subprocess", "getoutput"),
    ("subprocess", "getstatusoutput"),
}


def dangers(tree: ast.AST) -> list[str]:
    """What of a module could turn data into code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            found += [f"import {name}" for name in names & FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = (node.module or "").split(".")[0]
            found += [f"import {module}"] if module in FORBIDDEN_MODULES else []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in FORBIDDEN_ATTRIBUTES:
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(node.func.id)
            for word in node.keywords:
                literal = isinstance(word.value, ast.Constant) and word.value.value in (False, None)
                if word.arg in ("shell", "allow_pickle") and not literal:
                    found.append(f"{word.arg}=")
                if word.arg == "engine" and getattr(word.value, "value", "") == "python-eval":
                    found.append("engine=")
    return found


def test_data_never_becomes_code():
    for path in MODULES:
        assert not dangers(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)",
        "import pickle",
        "from joblib import load",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=flag)",
        "np.load(x, allow_pickle=True)",
        "yaml.load(x)",
        "os.system(x)",
        "pd.read_pickle(x)",
    ],
)
def test_the_look_out_sees(text):
    assert dangers(ast.parse(text))


def test_templates_escape_by_default():
    from bids_app.report import environment

    assert environment().autoescape is True
    # Beside the files of ours lies a folder with the viewer, which is not a template.
    for path in filter(Path.is_file, (ROOT / "qsmref" / "data" / "report").iterdir()):
        text = path.read_text(encoding="utf-8")
        # What is marked as safe stands in the template itself.
        marked = re.findall(r"(\S+?)\s*\|\s*safe\b", text)
        assert all(word.endswith(("'", '"')) for word in marked), path
        assert "autoescape" not in text, path
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text, path


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["..", "../x", "a/b", "/etc", "", "a b", "é", "a\n", "x" + chr(0)]
)
def test_what_is_no_label(label):
    assert not is_label(label)


@pytest.mark.parametrize("label", ["../../x", "a/b", ".."])
def test_labels_from_the_command_line_stay_in_place(tmp_path, run, label, capfd):
    tiny.make_dataset(tmp_path / "bids")
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "bids", "--participant-label", label)
    assert end.value.code == ExitCode.USAGE
    assert "is no label" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sub-01", "logs", "logs/methods", "logs/status"])
def test_links_in_results_lead_nowhere_else(tmp_path, run, name):
    tiny.make_dataset(tmp_path / "bids")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    done = run(tmp_path / "bids")
    assert done.code == ExitCode.CANNOT_CREATE
    assert "leads out of OUTPUT_DIR" in done.last
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_deeper_in_results_lead_nowhere_else(tmp_path, run):
    tiny.make_dataset(tmp_path / "bids")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub-01").mkdir(parents=True)
    (tmp_path / "out" / "sub-01" / "anat").symlink_to(tmp_path / "elsewhere")
    done = run(tmp_path / "bids")
    assert done.code == ExitCode.CANNOT_CREATE
    assert "leads out of OUTPUT_DIR" in done.err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_of_files_are_replaced_and_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "link.json").symlink_to(precious)
    files.write_json(tmp_path / "link.json", {})
    assert precious.read_text() == "mine"
    assert not (tmp_path / "link.json").is_symlink()


# --- pages and tables -------------------------------------------------------------------------


def hostile_regions(root: Path) -> Path:
    """Labels with names, and a map with a sidecar, that would be tags and attributes."""
    tiny.make_regions(root, with_map=True)
    table = root / "sub-01/anat/sub-01_dseg.tsv"
    table.write_text(f"index\tname\n1\t{TAG}_L\n2\t{ATTRIBUTE}\n3\tCSF\n", encoding="utf-8")
    path = root / "sub-01/anat/sub-01_Chimap.json"
    odd = {TAG: TAG, "EstimationAlgorithm": TAG, "SusceptibilityReference": ATTRIBUTE}
    odd["Processing"] = {TAG: {"method": TAG, ATTRIBUTE: [TAG], "warning": TAG}}
    odd["Software"] = {TAG: TAG}
    tiny.edit_json(path, **odd)
    return root


def test_pages_of_participants_escape_what_data_say(tmp_path, run):
    hostile_regions(tmp_path / "maps")
    done = run(tmp_path / "maps", "--references", "CSF", fast=False)
    assert done.code == ExitCode.OK
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    assert not fuzz_harness.foreign_tags(page)
    # They are there, as text.
    assert page.count("&lt;qx onerror=1&gt;") > 10
    table = tables.read_tsv(next((done.output_dir / "sub-01").rglob("*_desc-roi_Chimap.tsv")))
    assert list(table["name"][:2]) == [f"{TAG}_L", ATTRIBUTE]


def test_pages_of_problems_escape_what_data_say(tmp_path, run):
    tiny.make_dataset(tmp_path / "bids")
    for path in (tmp_path / "bids").rglob("*part-phase*.json"):
        tiny.edit_json(path, Units=TAG)
    done = run(tmp_path / "bids")
    assert done.code == ExitCode.BAD_DATA
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    assert "&lt;qx onerror=1&gt;" in page
    assert not fuzz_harness.foreign_tags(page)


def test_pages_of_cohorts_escape_what_tables_say(tmp_path):
    rng = np.random.default_rng(3)
    names = [f"<qx onerror=1>{k}" for k in range(24)]
    people = pd.DataFrame({"who": names, "group": [TAG, ATTRIBUTE] * 12})
    for region in (TAG, ATTRIBUTE, "plain"):
        people[region] = rng.normal(50, 5, 24)
    people.to_csv(tmp_path / "t.csv", index=False)
    argv = [str(tmp_path / "t.csv"), str(tmp_path / "out"), "--id-column", "who", "--units", "ppb"]
    argv += ["--regions", TAG, ATTRIBUTE, "plain", "--group-column", "group"]
    assert stats.main([*argv, "--permutations", "20"]) == ExitCode.OK
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert "&lt;qx onerror=1&gt;" in page
    assert not fuzz_harness.foreign_tags(page)


def test_a_page_that_does_not_escape_would_be_seen():
    assert fuzz_harness.foreign_tags(f"<p>{TAG}</p>")
    assert fuzz_harness.foreign_tags(f'<p title="{ATTRIBUTE}">')
    assert not fuzz_harness.foreign_tags("<p title='&lt;qx onerror=1&gt;'>")


# --- sentences --------------------------------------------------------------------------------


def test_sentences_are_one_printable_line():
    problem = Problem("01", "a\nb\x1b[31m\u202e\udcff" + "x" * 5000)
    assert problem.sentence.isprintable()
    assert len(problem.sentence) < 700
    assert problem.sentence.encode("utf-8")
    assert str(DataError("a\r\nb")) == "a b"
    assert printable("ä µ") == "ä µ"


# --- files that are no files ------------------------------------------------------------------


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    for name in ("a.json", "b.json"):
        with pytest.raises(OSError, match="pipe or device"):
            files.read_json(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "there twice"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_json_that_is_odd(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        files.read_json(tmp_path / "a.json")


def test_json_that_is_unusual_but_clear(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1, "a": 1, "b": NaN}')
    assert files.read_json(tmp_path / "a.json")["a"] == 1


def test_records_of_results_are_checked_as_any_settings(tmp_path):
    record = {"settings": {"preset": "default", "participant_label": ["../x"]}}
    with pytest.raises(ValueError, match="is no label"):
        recorded_settings(json.loads(json.dumps(record)))
