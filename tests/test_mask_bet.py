"""The brain mask `bet`, with a stand-in for the program of FSL that writes a given mask."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_bids as tiny
from app_runner import Runner, regions

from qsmref import images
from qsmref.interfaces import fsl
from qsmref.interfaces.echoes import BrainMask
from qsmref.problems import ExitCode
from qsmref.reconstruction import brain_mask
from qsmref.reconstruction.parameters import check_parameters, split_mask_parameters
from qsmref.workflows import init_reconstruction_wf

#: Takes the mask it is given to where BET writes it, and writes down how it was called.
STAND_IN = """#!{python}
import os, shutil, sys
from pathlib import Path
source, target = sys.argv[1:3]
with open(os.environ["STAND_IN_LOG"], "a") as log:
    log.write(" ".join(["bet", *(Path(a).name for a in sys.argv[1:])]) + "\\n")
if os.environ.get("STAND_IN_FAILS"):
    sys.exit("bet: cannot go on")
shutil.copy(source, target)
shutil.copy(os.environ["STAND_IN_MASK"], target.replace(".nii", "_mask.nii"))
"""


@pytest.fixture
def dataset(tmp_path):
    """Two participants with labels; the first has no mask. Returns the folder."""
    tiny.make_dataset(tmp_path / "bids", ("01", "02"))
    tiny.make_regions(tmp_path / "regions", ("01", "02"))
    (tmp_path / "regions/sub-01/anat/sub-01_desc-brain_mask.nii.gz").unlink()
    return tmp_path


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The stand-in on the path; returns its log."""
    path = tmp_path / "fsl" / "bin" / "bet"
    path.parent.mkdir(parents=True)
    path.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "fsl" / "etc").mkdir()
    (tmp_path / "fsl" / "etc" / "fslversion").write_text("6.0.7.99\n")
    mask, _ = tiny.head()
    tiny.write_image(tmp_path / "made.nii", mask.astype(np.uint8))
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FSLDIR", str(tmp_path / "fsl"))
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STAND_IN_MASK", str(tmp_path / "made.nii"))
    return tmp_path / "log"


def test_the_command_line_is_that_which_fsl_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.save(np.zeros((3, 3, 3), np.float32), tmp_path / "combined.nii", np.eye(4))
    for fraction, told in ((0.5, "-f 0.5 "), (0.355, "-f 0.355 "), (None, "")):
        interface = fsl.bet(fraction)
        interface.inputs.in_file = "combined.nii"
        assert interface.cmdline == f"bet combined.nii combined_brain.nii {told}-m -R"


@pytest.mark.parametrize("given", [False, True])
def test_the_graph_has_it_where_a_mask_is_made(given):
    workflow = init_reconstruction_wf(
        shape=(8, 8, 8),
        echo_times=(0.004, 0.008),
        imaging_frequency=1.2e8,
        mask_given=given,
        mask_method="bet",
        mask_quality=True,
        mask_params={"fraction": 0.4, "max_noise": 3.0},
    )
    programs = [n for n in workflow._get_all_nodes() if isinstance(n.interface, fsl.Bet)]
    assert len(programs) == (not given)
    assert workflow.get_node("field_wf.mask_quality").inputs.parameters == {"max_noise": 3.0}
    told = " ".join(workflow.methods_text())
    assert ("BET of FSL [Smith 2002, doi:10.1002/hbm.10062]" in told) is not given
    if not given:
        assert programs[0].inputs.frac == 0.4
        assert workflow.get_node("field_wf.brain_mask").inputs.parameters == {"fraction": 0.4}


def test_parameters_are_those_of_the_method():
    check_parameters("mask", "bet", {"fraction": 0.3, "max_noise": 3.0})
    with pytest.raises(ValueError, match=r"mask surface has no parameter 'fraction'"):
        check_parameters("mask", "surface", {"fraction": 0.3})
    for value in (0.0, 1.0, -1, 2, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_mask_parameters("bet", {"fraction": value})


def test_without_fsl_nothing_runs(dataset, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("FSLDIR", raising=False)
    done = Runner(dataset, capfd)(dataset / "bids", *regions(dataset), "--mask-method", "bet")
    assert done.code == ExitCode.TOOL_MISSING == 127
    assert "--mask-method bet needs what is not installed: bet, the variable FSLDIR" in done.last
    assert not (dataset / "out" / "sub-01").exists() and not (dataset / "work").exists()


def test_a_fraction_that_cannot_be_is_refused(dataset, program, capfd):
    flags = ["--mask-method", "bet", "--mask-param", "fraction=1.5"]
    done = Runner(dataset, capfd)(dataset / "bids", *regions(dataset), *flags)
    assert done.code == ExitCode.USAGE and "between 0 and 1" in done.last
    assert not program.exists()


def test_a_run_takes_its_mask_and_says_so(dataset, program, capfd):
    flags = ["--mask-method", "bet", "--mask-param", "fraction=0.35", "--mask-quality", "off"]
    done = Runner(dataset, capfd)(dataset / "bids", *regions(dataset), *flags)
    assert done.code == 0, done.err
    # The other participant's mask is that of the derivative.
    calls = program.read_text(encoding="utf-8").splitlines()
    assert calls == ["bet combined.nii combined_brain.nii -f 0.35 -m -R"]
    anat = done.output_dir / "sub-01" / "anat"
    # What is written is that part of it where V-SHARP has a field.
    written, mask = images.load(anat / "sub-01_desc-brain_mask.nii.gz")[0] > 0, tiny.head()[0]
    assert written.any() and not (written & ~mask).any()
    told = json.loads((anat / "sub-01_desc-unreferenced_Chimap.json").read_text(encoding="utf-8"))
    made = told["Processing"]["BrainMask"]
    assert (made["method"], made["fraction"], made["FSL"]) == ("bet", 0.35, "6.0.7.99")
    assert made["n_voxels"] == np.count_nonzero(mask)
    other = (anat.parents[1] / "sub-02/anat/sub-02_desc-unreferenced_Chimap.json").read_text()
    assert json.loads(other)["Processing"]["BrainMask"]["method"] == "derivative"
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    assert "BET of FSL (fraction 0.35; FSL 6.0.7.99" in page


def test_a_failure_of_the_program_is_told(dataset, program, capfd, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS", "yes")
    done = Runner(dataset, capfd)(dataset / "bids", *regions(dataset), "--mask-method", "bet")
    assert done.code != 0 and "1 of 2 participants finished" in done.last
    assert "bet of FSL failed (bet: cannot go on)" in done.err
    assert list(done.status["status"]) == ["failed", "completed"]


def test_an_empty_mask_is_an_error(dataset, program, capfd):
    tiny.write_image(Path(dataset / "made.nii"), np.zeros(tiny.SHAPE, np.uint8))
    done = Runner(dataset, capfd)(dataset / "bids", *regions(dataset), "--mask-method", "bet")
    assert done.code != 0 and "empty" in done.err


def test_the_program_is_no_function(tmp_path):
    with pytest.raises(ValueError, match="bet is a program"):
        brain_mask(np.ones((8, 8, 8)), (1, 1, 1), method="bet")
    magnitude = images.save(np.ones((8, 8, 8, 1), np.float32), tmp_path / "m.nii", np.eye(4))
    with pytest.raises(ValueError, match="has to be made by bet before"):
        BrainMask(magnitude=str(magnitude), method="bet").run(cwd=str(tmp_path))
