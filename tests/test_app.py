"""The command line from end to end: results, sentences, exit codes, and the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import FAST, Runner, errors_of, regions

from qsmref.problems import ExitCode
from qsmref.settings import Settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    tiny.make_dataset(root / "bids", ("01", "02"))
    tiny.make_regions(root / "regions", ("01", "02"))
    return root


@pytest.fixture
def run(tmp_path, capfd):
    """Run the command line in this process."""
    return Runner(tmp_path, capfd)


def test_two_participants_from_raw_data_to_tables(dataset, run):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    done = run(dataset / "bids", *regions(dataset), validation=True)
    assert done.code == ExitCode.OK
    assert done.last == "qsmref: 2 of 2 participants finished. Exit status 0"
    # The tiny brain has no air around it: its field is weak, and that is all there is to say.
    said = [line.split(": ", 3) for line in done.err.splitlines()]
    assert {(word, who) for _, word, who, _ in said} <= {("warning", f"sub-0{n}") for n in (1, 2)}
    assert all(t.startswith(("the phase spans", "the field has a")) for *_, t in said)
    # Which participant, which step.
    assert "sub-01: inversion" in done.out
    assert "sub-02: completed" in done.out
    out = done.output_dir
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert written >= {
        ".bidsignore",
        "README.md",
        "dataset_description.json",
        "descriptions.tsv",
        "logs/CITATION.md",
        "logs/participant-status.json",
        "logs/participant-status.tsv",
        "logs/settings.toml",
        "sub-01.html",
        "sub-01/anat/sub-01_atlas-mine_desc-differential_Chimap.tsv",
        "sub-02.html",
    }
    assert not [name for name in written if "crash" in name or ".tmp" in name]
    assert list(done.status.status) == ["completed", "completed"]
    assert errors_of(out) == []
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


def test_dataset_files(dataset, run):
    done = run(dataset / "bids", *regions(dataset), "--participant-label", "sub-01")
    out = done.output_dir
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "qsmref"
    assert description["License"] == "CC0"
    assert set(description["DatasetLinks"]) == {"raw", "mine"}
    assert description["DatasetLinks"]["raw"].startswith("file://")
    settings = Settings.from_toml((out / "logs" / "settings.toml").read_text())
    assert settings.inversion == "tkd"
    assert settings.participant_label == ("01",)
    citation = (out / "logs" / "CITATION.md").read_text()
    assert "doi:10.1002/mrm.22135" in citation
    descriptions = pd.read_csv(out / "descriptions.tsv", sep="\t")
    used = {
        part
        for path in (out / "sub-01").rglob("*_desc-*")
        for part in path.name.split("_")
        if part.startswith("desc-")
    }
    assert used <= set(descriptions.desc_id)
    for table in out.rglob("sub-*/**/*_Chimap.tsv"):
        columns = pd.read_csv(table, sep="\t").columns
        sidecar = json.loads(table.with_suffix(".json").read_text())
        assert set(columns) <= set(sidecar)
        for name in ("mean", "sd", "difference", "se"):
            if name in columns:
                assert sidecar[name]["Units"] == "ppb"
    assert "n/a" in table.read_text() or table.name.count("differential")


def test_second_run_of_the_same_command_changes_nothing(dataset, run, tmp_path):
    flags = [*regions(dataset), "--participant-label", "01"]
    first = run(dataset / "bids", *flags)
    kept = ("sub-01", "sub-01.html", "dataset_description.json", "descriptions.tsv")

    def times():
        files = [p for p in first.output_dir.rglob("*") if p.is_file()]
        return {
            p: p.stat().st_mtime_ns
            for p in files
            if p.relative_to(first.output_dir).parts[0] in kept
        }

    before = times()
    assert run(dataset / "bids", *flags).code == ExitCode.OK
    assert times() == before
    # The methods come back where only they were lost.
    methods = first.output_dir / "logs" / "methods" / "sub-01.md"
    words = methods.read_text(encoding="utf-8")
    methods.unlink()
    assert run(dataset / "bids", *flags).code == ExitCode.OK
    assert methods.read_text(encoding="utf-8") == words
    # A report that was lost comes back, and so it does when only reports are asked for.
    (first.output_dir / "sub-01.html").unlink()
    done = run(dataset / "bids", "--reports-only")
    assert done.code == ExitCode.OK
    assert "report written" in done.out
    assert (first.output_dir / "sub-01.html").is_file()


def test_other_parameters_only_redo_what_depends_on_them(dataset, run, tmp_path):
    flags = [*regions(dataset), "--participant-label", "01"]
    run(dataset / "bids", *flags)

    def when(step):
        return next((tmp_path / "work").rglob(f"result_{step}.pklz")).stat().st_mtime_ns

    fit, inversion = when("echo_fit"), when("inversion")
    done = run(dataset / "bids", *flags, "--inversion-param", "threshold=0.2")
    assert done.code == ExitCode.OK
    assert when("echo_fit") == fit
    assert when("inversion") > inversion
    name = "sub-01/anat/sub-01_desc-unreferenced_Chimap.json"
    sidecar = json.loads((done.output_dir / name).read_text())
    assert sidecar["Processing"]["Inversion"]["threshold"] == 0.2


def test_maps_that_others_made(tmp_path, run):
    (tmp_path / "bids").mkdir()
    maps = tiny.make_regions(tmp_path / "maps", ("01",), with_map=True)
    done = run(tmp_path / "bids", "-d", f"qsmxt={maps}")
    assert done.code == ExitCode.OK
    table = done.output_dir / "sub-01/anat/sub-01_atlas-qsmxt_desc-differential_Chimap.tsv"
    pairs = pd.read_csv(table, sep="\t").set_index(["region", "reference"])
    # The map has an offset of 20 ppb, which is in no difference.
    assert pairs.loc[("SN_L", "CN"), "difference"] == pytest.approx(50, abs=1e-3)
    assert pairs.loc[("SN_L", "CSF"), "difference"] == pytest.approx(100, abs=1e-3)
    assert errors_of(done.output_dir) == []


def test_all_entities_of_a_run(tmp_path, run):
    entities = "_ses-a_acq-hi_ce-gd_rec-x_run-02"
    tiny.write_description(tmp_path / "bids")
    anat = tiny.write_echoes(tmp_path / "bids", "01", entities=entities)
    (anat.parent / "ses-a").mkdir()
    anat.rename(anat.parent / "ses-a" / "anat")
    tiny.make_regions(tmp_path / "regions")
    done = run(tmp_path / "bids", *regions(tmp_path))
    assert done.code == ExitCode.OK
    folder = done.output_dir / "sub-01" / "ses-a"
    assert (folder / "anat" / f"sub-01{entities}_desc-unreferenced_Chimap.nii.gz").is_file()
    assert (folder / "fmap" / f"sub-01{entities}_desc-total_fieldmap.nii.gz").is_file()
    assert done.status.loc["sub-01", "run"] == f"sub-01{entities}"
    assert errors_of(done.output_dir) == []


def test_a_derivative_passed_as_the_dataset(tmp_path, run):
    maps = tiny.make_regions(tmp_path / "maps", ("01",), with_map=True)
    done = run(maps)
    assert done.code == ExitCode.OK
    assert (done.output_dir / "sub-01/anat/sub-01_atlas-drawn_desc-roi_Chimap.tsv").is_file()
    # URIs name the dataset by who made it, and the page finds what they stand for.
    description = json.loads((done.output_dir / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"drawn": maps.as_uri()}
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    mask, _ = tiny.head()
    assert f"{np.count_nonzero(mask) * 64 / 1000:.0f}\u00a0ml" in page


# --- options -------------------------------------------------------------------------------------


def test_wrong_parameter_lists_those_that_are_right(dataset, run):
    done = run(dataset / "bids", "--inversion-param", "lambada=3")
    assert done.code == ExitCode.USAGE
    assert "no parameter 'lambada'" in done.last
    assert "threshold" in done.last


def test_dry_run_writes_nothing(dataset, run, tmp_path):
    done = run(dataset / "bids", *regions(dataset), "--dry-run")
    assert done.code == ExitCode.OK
    assert "sub-01: 3 echoes, 24 x 26 x 22 voxels of 4 x 4 x 4 mm" in done.out
    assert "atlases: mine" in done.out
    assert "participants planned, voxels not looked at. Exit status 0" in done.last
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "work").exists()


def test_boilerplate_only(dataset, run):
    done = run(dataset / "bids", *regions(dataset), "--boilerplate-only")
    assert done.code == ExitCode.OK
    assert "thresholded k-space division" in done.out
    assert (done.output_dir / "logs" / "CITATION.md").is_file()
    assert not (done.output_dir / "sub-01").exists()


def test_reports_need_results(dataset, run):
    done = run(dataset / "bids", "--reports-only")
    assert done.code == ExitCode.MISSING_INPUT


def test_a_report_that_cannot_be_made_takes_none_from_the_others(dataset, run):
    done = run(dataset / "bids", *regions(dataset))
    anat = done.output_dir / "sub-01" / "anat"
    sidecar = anat / "sub-01_desc-unreferenced_Chimap.json"
    kept = sidecar.read_text(encoding="utf-8")
    sidecar.write_text(json.dumps({**json.loads(kept), "Processing": "odd"}), encoding="utf-8")
    done = run(dataset / "bids", "--reports-only")
    assert done.code == ExitCode.SOME_FAILED
    assert "sub-02: report written" in done.out and "1 of 2 participants finished" in done.last
    assert "sub-01: unexpected AttributeError" in done.err
    (crash,) = (done.output_dir / "logs").glob("crash-qsmref-sub-01-*.txt")
    assert "Traceback" in crash.read_text(encoding="utf-8")
    sidecar.write_text(kept, encoding="utf-8")
    image = anat / "sub-01_desc-brain_mask.nii.gz"
    image.write_bytes(b"no gzip")
    done = run(dataset / "bids", "--reports-only", "--participant-label", "01", "02", "03")
    assert "sub-02: report written" in done.out and "1 of 3 participants finished" in done.last
    assert "sub-01: " in done.err and "sub-03: " in done.err


def test_graph_and_resource_monitor(dataset, run, tmp_path):
    flags = ["--participant-label", "01", *regions(dataset), "--write-graph", "-v"]
    done = run(dataset / "bids", *flags, "--resource-monitor", "--random-seed", "4")
    assert done.code == ExitCode.OK
    assert "inversion" in (done.output_dir / "logs" / "graph.dot").read_text()
    assert "took" in done.out
    usage = json.loads((tmp_path / "work" / "qsmref_wf" / "resource_monitor.json").read_text())
    assert any("inversion" in name for name in usage["name"])
    # It is off again for the next command, and left nothing in the current folder.
    assert run(dataset / "bids", *flags[:-2]).code == ExitCode.OK
    assert not list(Path.cwd().glob(".proc-*"))


def test_clean_workdir(dataset, run, tmp_path):
    marker = tmp_path / "work" / "qsmref_wf" / "stale"
    mine = tmp_path / "work" / "mine"
    for path in (marker, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = run(dataset / "bids", *regions(dataset), "--participant-label", "01", "--clean-workdir")
    assert done.code == ExitCode.OK
    assert not marker.exists()
    assert mine.exists()


def test_sloppy_default_chain(dataset, run):
    flags = [*regions(dataset), "--participant-label", "01", "--sloppy", "--nprocs", "1"]
    done = run(dataset / "bids", *flags, fast=False)
    assert done.code == ExitCode.OK
    name = "sub-01/anat/sub-01_desc-unreferenced_Chimap.json"
    sidecar = json.loads((done.output_dir / name).read_text())
    assert sidecar["Sloppy"] is True
    assert sidecar["Processing"]["Inversion"]["method"] == "single-step"
    share = sidecar["Processing"]["EchoFit"]["anchored_fraction"]
    assert 0 < share <= 1
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    assert f"from the neighbours in {100 * share:.0f} % of the brain" in page
    assert not (done.output_dir / "sub-01/fmap/sub-01_desc-local_fieldmap.nii.gz").exists()


def test_plugin_file(dataset, run, tmp_path):
    plugin = tmp_path / "plugin.yml"
    plugin.write_text("plugin: Linear\nplugin_args: {}\n")
    flags = ["--participant-label", "01", *regions(dataset)]
    assert run(dataset / "bids", *flags, "--use-plugin", plugin).code == ExitCode.OK
    plugin.write_text("plugin_args: 3\n")
    done = run(dataset / "bids", *flags, "--use-plugin", plugin)
    assert done.code == ExitCode.USAGE
    assert "must have the key 'plugin'" in done.last


def test_error_of_the_program_itself(dataset, run, tmp_path, monkeypatch):
    # A bug is no reason for a traceback on the terminal; it goes to a file.
    monkeypatch.setattr("bids_app.graph.make_progress", None)
    done = run(dataset / "bids", *regions(dataset))
    assert done.code == ExitCode.INTERNAL
    assert "unexpected TypeError" in done.last
    (crash,) = (tmp_path / "out" / "logs").glob("crash-qsmref-*.txt")
    assert "Traceback" in crash.read_text()


def test_two_commands_into_one_folder_at_the_same_time(dataset, tmp_path):
    """Neither loses what the other wrote."""
    commands = [
        [
            *(sys.executable, "-m", "bids_app.run", str(dataset / "bids"), str(tmp_path / "out")),
            *("participant", "--participant-label", label, "-w", str(tmp_path / label)),
            *(*FAST, "--skip-bids-validation", *regions(dataset)),
        ]
        for label in ("01", "02")
    ]
    started = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    status = pd.read_csv(tmp_path / "out/logs/participant-status.tsv", sep="\t")
    assert list(status.participant_id) == ["sub-01", "sub-02"]
    assert set(status.status) == {"completed"}
    assert errors_of(tmp_path / "out") == []
