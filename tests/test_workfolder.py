"""The work folder and the environment: claims, damage, leftovers, limits of the machine."""

from __future__ import annotations

import gzip
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_app_plugin import Victim

from bids_app import environment, workfolder
from bids_app.leftovers import tidy, tidy_shared
from qsmref.machine import available_cores, available_memory, threads_per_node
from qsmref.settings import Settings
from qsmref.workflows.engine import SEAL, Node, Workflow


def test_a_participant_belongs_to_one_command_at_a_time(tmp_path):
    folder, out = tmp_path / "work", tmp_path / "out"
    names = {"01": "sub_01_wf", "02": "sub_02_wf"}
    with ExitStack() as first, ExitStack() as second:
        assert workfolder.claim(first, folder, out, {"01": "sub_01_wf"}) == []
        assert workfolder.claim(second, folder, out, names) == ["01"]
        # The same results from another work folder are refused, too.
        assert workfolder.claim(second, tmp_path / "other", out, {"01": "sub_01_wf"}) == ["01"]
    with ExitStack() as third:
        assert workfolder.claim(third, folder, out, names) == []


def test_cleaning_leaves_what_others_work_on(tmp_path):
    folder, out = tmp_path / "work", tmp_path / "out"
    for name in ("sub_01_wf", "sub_02_wf", "sub_03_wf"):
        (folder / name).mkdir(parents=True)
    with ExitStack() as other, ExitStack() as mine:
        workfolder.claim(other, folder, out, {"02": "sub_02_wf"})
        workfolder.claim(mine, folder, out, {"01": "sub_01_wf"})
        workfolder.clean(folder, ["sub_01_wf"])
    assert [path.name for path in folder.glob("sub*")] == ["sub_02_wf"]


@pytest.fixture
def finished(tmp_path):
    """A graph of one node that is done, and the folder of the node."""
    workflow = Workflow(name="wf", base_dir=str(tmp_path))
    workflow.config["execution"].update(crashdump_dir=str(tmp_path), hash_method="content")
    node = Node(Victim(killed=False), name="step")
    workflow.add_nodes([node])
    workflow.run(plugin="Linear")
    folder = tmp_path / "wf" / "step"
    assert (folder / SEAL).is_file()
    assert workfolder.mend(workflow) == []
    return workflow, folder


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


@pytest.mark.parametrize("pattern, damage", [("result_*", cut), (SEAL, cut), (SEAL, Path.unlink)])
def test_a_damaged_step_is_dropped(finished, pattern, damage):
    workflow, folder = finished
    (path,) = folder.glob(pattern)
    damage(path)
    assert workfolder.mend(workflow) == ["step"]
    assert not list(folder.glob("result_*"))
    workflow.run(plugin="Linear")
    assert workfolder.mend(workflow) == []


class Failing(Victim):
    """A step that cannot be done."""

    def _compute(self, folder):
        raise ValueError("never done")


def test_a_step_that_failed_is_not_called_damaged(tmp_path):
    workflow = Workflow(name="wf", base_dir=str(tmp_path))
    workflow.config["execution"].update(crashdump_dir=str(tmp_path), hash_method="content")
    workflow.add_nodes([Node(Failing(killed=False), name="step")])
    for _ in range(2):
        with pytest.raises(Exception, match="never"):
            workflow.run(plugin="Linear")
        assert list((tmp_path / "wf" / "step").glob("result_*"))
        assert workfolder.mend(workflow) == []


def test_what_a_step_made_is_sealed(finished):
    workflow, folder = finished
    # A file that was not there when the step ended is as wrong as one that has changed.
    (folder / "map.nii").write_bytes(b"x")
    assert workfolder.mend(workflow) == ["step"]


def test_a_result_that_is_whole_gzip_is_kept(finished):
    workflow, folder = finished
    (path,) = folder.glob("result_*")
    assert gzip.decompress(path.read_bytes())


def test_leftovers_of_a_killed_command_are_removed(tmp_path):
    kept = ["sub-01/anat/sub-01_mask.nii.gz", "sub-02/anat/.tmp-ab-sub-02_mask.nii.gz", "x/.tmp-1"]
    gone = [
        "sub-01/anat/.tmp-ab-sub-01_mask.nii.gz",
        ".tmp-cd-sub-01.html",
        "logs/status/.tmp-e-sub-01.json",
        ".tmp-f-dataset_description.json",
        "logs/.tmp-g-participant-status.tsv",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tidy(tmp_path, ["01"])
    tidy_shared(tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)


def test_limits_of_a_container_and_of_a_job(tmp_path):
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    everything = available_memory(tmp_path, {})
    assert available_cores(tmp_path, {"SLURM_CPUS_PER_TASK": "1"}) == 1
    assert available_memory(tmp_path, {"SLURM_MEM_PER_NODE": "1000"}) == pytest.approx(0.9437184)
    (group / "cpu.max").write_text("100000 100000\n")
    (group / "memory.max").write_text("500000000\n")
    assert available_cores(tmp_path, {}) == 1
    assert available_memory(tmp_path, {}) == pytest.approx(0.45)
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, {}) == everything
    assert threads_per_node(Settings(nprocs=3, omp_nthreads=7)) == 3


def test_a_read_only_container_without_a_name_or_home(tmp_path, monkeypatch):
    work, image = tmp_path / "work", tmp_path / "image"
    (image / "numba").mkdir(parents=True)
    (image / "numba" / "loop.nbi").write_text("compiled")
    for name in ("LOGNAME", "USER", "HOME", "TMPDIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QSMREF_CACHE", str(image))
    monkeypatch.setattr(environment.getpass, "getuser", _nobody)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    # Restored in the end, whatever the code sets.
    for name in ("LOGNAME", "HOME", "TMPDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    environment.prepare(work, threads=2)
    assert os.environ["LOGNAME"] == f"uid{os.getuid()}"
    assert os.environ["HOME"] == str(work)
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(work / "tmp")
    assert Path(os.environ["NUMBA_CACHE_DIR"], "loop.nbi").read_text() == "compiled"
    assert "MPLCONFIGDIR" not in os.environ
    environment.prepare(work, threads=2)
    assert [p.name for p in (work / "cache").iterdir()] == ["numba"]


def _nobody() -> str:
    raise KeyError("uid not found")
