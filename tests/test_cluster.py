"""Plugins for clusters, with stand-ins for the commands of Slurm: what fails is told, and alone."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from nipype.pipeline import engine as pe
from test_app_plugin import Victim

from bids_app import slurm
from bids_app.cluster import cancel_leftovers, careful, job_name, needs
from bids_app.progress import explain
from qsmref.interfaces.base import PROBLEM_FILE
from qsmref.workflows.engine import Node

TESTS = Path(__file__).parent


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Folder of the stand-in's jobs; its commands are the first on PATH."""
    programs, jobs = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    jobs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        script = programs / name
        run = shlex.join([sys.executable, "-S", "-E", str(TESTS / "fake_slurm.py"), name])
        script.write_text(f'#!/bin/sh\nexec {run} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_SLURM", str(jobs))
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    monkeypatch.delenv("LOGNAME", raising=False)
    return jobs


def make_graph(folder: Path) -> pe.Workflow:
    """A step that does well, one that is killed, and a dependant of each."""
    workflow = pe.Workflow(name="wf", base_dir=str(folder / "work"))
    workflow.config["execution"].update(
        poll_sleep_duration="0.05",
        crashdump_dir=str(folder / "crashes"),
        job_finished_timeout="1",
        hash_method="content",
        # nipype's settings are those of the process, where other tests have run commands.
        stop_on_first_crash="false",
    )
    good = Node(Victim(killed=False), name="good", n_procs=2, mem_gb=1.0)
    bad = Node(Victim(killed=True), name="bad")
    for first, name in ((good, "after_good"), (bad, "after_bad")):
        second = Node(Victim(killed=False), name=name)
        workflow.connect(first, "survived", second, "previous")
    return workflow


def run(workflow: pe.Workflow, plugin: str, words: dict | None = None) -> list[tuple[str, str]]:
    """Run a graph; what it told of its nodes, and their last words."""
    events = []

    def note(node, status):
        events.append((node.name, status))
        if words is not None:
            words[node.name] = getattr(node, "last_words", "")

    arguments = {
        "poll_seconds": 0.05,
        "retry_timeout": 0.01,
        "status_callback": note,
    }
    with pytest.raises(RuntimeError):
        workflow.run(plugin=careful(plugin)(plugin_args=arguments))
    return events


@pytest.mark.parametrize("plugin", ["SLURM", "SLURMGraph"])
def test_a_killed_job_is_told_and_the_others_are_done(plugin, cluster, tmp_path):
    workflow = make_graph(tmp_path)
    # What an earlier run left must not pass for a result of this one.
    stale = tmp_path / "work" / "wf" / "bad"
    stale.mkdir(parents=True)
    (stale / "result_bad.pklz").write_bytes(b"stale")
    (stale / PROBLEM_FILE).write_text('{"sentence": "stale", "code": 70}')
    events = run(workflow, plugin)
    assert {name for name, status in events if status == "end"} == {"good", "after_good"}
    assert ("bad", "exception") in events
    assert not [name for name, _ in events if name == "after_bad"]
    assert not (stale / PROBLEM_FILE).exists()
    assert slurm.queue() == {}
    jobs = [json.loads(path.read_text()) for path in cluster.glob("*.json")]
    (good,) = [job for job in jobs if job["name"].endswith("wf.good")]
    assert good["options"]["cpus-per-task"] == "2"
    assert good["options"]["mem"] == "1450M"


@pytest.mark.parametrize("plugin", ["SLURM", "SLURMGraph"])
def test_a_refused_job_leaves_the_others_alone(plugin, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("REFUSE", "d")
    words = {}
    events = run(make_graph(tmp_path), plugin, words)
    assert "refused the job" in explain(words["bad"])["sentence"]
    assert {e for e in events if e[1] == "exception"} == {
        ("good", "exception"),
        ("bad", "exception"),
    }
    assert not [e for e in events if e[1] == "end"]
    assert list((tmp_path / "crashes").glob("crash-*"))


def test_jobs_of_a_killed_command_are_cancelled(cluster, tmp_path):
    workflow = make_graph(tmp_path)
    node = workflow.get_node("good")
    node.base_dir = workflow.base_dir
    script = tmp_path / "sleep.sh"
    script.write_text("#!/bin/sh\nsleep 60\n")
    mine = slurm.submit(script, name=job_name(node))
    other = slurm.submit(script, name="somebody-elses")
    assert set(slurm.queue()) == {mine, other}
    cancel_leftovers({job_name(node)})
    assert set(slurm.queue()) == {other}
    slurm.cancel([other])


def test_needs_are_what_templates_can_name():
    node = pe.Node(Victim(killed=False), name="n", n_procs=4, mem_gb=2.0)
    assert needs(node) == {"threads": 4, "mb": 2650, "gb": 3, "mb_per_thread": 663}


def test_slurms_own_variables_are_not_handed_on(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nenv > {tmp_path}/env.txt\n")
    slurm.submit(script, name="n")
    while slurm.queue():
        pass
    assert "SLURM_JOB_ID" not in (tmp_path / "env.txt").read_text()
