"""The engine fsl, with stand-ins for FSL's programs that write down how they are called."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import heads
import numpy as np
import pytest
from test_registration import rigid

from qsmref import engines, images, itk, transforms
from qsmref.interfaces import fsl
from qsmref.problems import DataError, ExitCode
from qsmref.workflows import init_registration_wf

#: Copies its input to where the program writes, and says so; flirt writes a given matrix.
STAND_IN = """#!{python}
import os, shutil, sys
from pathlib import Path
name, args = Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["STAND_IN_LOG"], "a") as log:
    log.write(" ".join([name, *(Path(a).name for a in args)]) + "\\n")
if os.environ.get("STAND_IN_FAILS") == name:
    sys.exit(name + ": cannot go on")
if name == "bet":
    source, target = args[:2]
    shutil.copy(source, target)
    shutil.copy(os.environ["STAND_IN_MASK"], target.replace(".nii", "_mask.nii"))
elif name == "fast":
    base = args[args.index("-o") + 1]
    shutil.copy(args[-1], base + "_restore.nii")
    shutil.copy(args[-1], base + "_seg.nii")
    shutil.copy(args[-1], base + "_mixeltype.nii")
elif name == "flirt":
    shutil.copy(args[args.index("-in") + 1], args[args.index("-out") + 1])
    shutil.copy(os.environ["STAND_IN_MATRIX"], args[args.index("-omat") + 1])
else:
    shutil.copy(args[0], args[-1])
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins on the path."""
    folder = tmp_path / "fsl" / "bin"
    folder.mkdir(parents=True)
    for tool in engines.FSL_TOOLS:
        path = folder / tool
        path.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "fsl" / "etc").mkdir()
    (tmp_path / "fsl" / "etc" / "fslversion").write_text("6.0.7.99\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FSLDIR", str(tmp_path / "fsl"))
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "log"))
    return tmp_path


def test_the_engine_is_chosen_by_what_is_there(programs, monkeypatch):
    assert engines.choose_engine("auto") == engines.choose_engine("fsl") == "fsl"
    assert engines.choose_engine("ants") == "ants"
    assert engines.versions("fsl")["FSL"] == "6.0.7.99"
    (programs / "fsl" / "bin" / "flirt").unlink()
    (programs / "fsl" / "bin" / "fast").unlink()
    monkeypatch.delenv("FSLDIR")
    assert engines.choose_engine("auto") == "ants"
    with pytest.raises(DataError, match="fast, flirt, the variable FSLDIR") as caught:
        engines.choose_engine("fsl")
    assert caught.value.code == ExitCode.TOOL_MISSING == 127
    with pytest.raises(ValueError, match="must be one of"):
        engines.choose_engine("spm")


def test_the_command_lines_are_those_that_fsl_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("t1", "magnitude", "mask"):
        images.save(np.zeros((3, 3, 3), np.float32), tmp_path / f"{name}.nii", np.eye(4))
    nodes = {
        "bet t1.nii t1_brain.nii -m -R": (fsl.bet(), {"in_file": "t1.nii"}),
        "fast -t 1 --nopve -n 3 -o fast -B -S 1 t1.nii": (fsl.fast(), {"in_files": ["t1.nii"]}),
        "flirt -in magnitude.nii -ref t1.nii -out moved.nii -omat rigid.mat -cost mutualinfo "
        "-dof 6": (fsl.flirt(), {"in_file": "magnitude.nii", "reference": "t1.nii"}),
        "fslmaths magnitude.nii -mas mask.nii brain.nii": (
            fsl.mask(),
            {"in_file": "magnitude.nii", "mask_file": "mask.nii"},
        ),
    }
    for command, (interface, inputs) in nodes.items():
        interface.inputs.trait_set(**inputs)
        assert interface.cmdline == command


def graph(folder: Path, **options):
    """Registration to the T1-weighted image, its magnitude moved by a known transform."""
    way, parts = rigid((3, 2, -4), (4, -3, 2)), heads.head(2)
    files = {
        "t1w": images.save(heads.moved(parts["t1w"], way), folder / "t1w.nii", heads.AFFINE),
        "magnitude": images.save(parts["t1w"], folder / "magnitude.nii", heads.AFFINE),
        "mask": images.save(parts["mask"], folder / "mask.nii", heads.AFFINE),
    }
    matrix = transforms.to_flirt(way, files["magnitude"], files["t1w"])
    np.savetxt(folder / "matrix.mat", matrix)
    workflow = init_registration_wf(shape=heads.SHAPE, template=False, **options)
    workflow.base_dir = str(folder / "work")
    for field, path in files.items():
        setattr(workflow.inputs.inputnode, field, str(path))
    workflow.config["execution"]["crashdump_dir"] = str(folder)
    return workflow, way


def test_the_graph_calls_them_in_turn(programs, monkeypatch):
    workflow, way = graph(programs, engine="fsl")
    monkeypatch.setenv("STAND_IN_MASK", str(programs / "mask.nii"))
    monkeypatch.setenv("STAND_IN_MATRIX", str(programs / "matrix.mat"))
    workflow.run(plugin="Linear")
    lines = (programs / "log").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()[0] for line in lines) == ["bet", "fast", "flirt", "fslmaths"]
    assert [line.split()[0] for line in lines if line.split()[0] != "fslmaths"] == [
        "bet",
        "fast",
        "flirt",
    ]
    made = next((programs / "work").rglob("rigid.txt"))
    assert np.allclose(itk.read_affine(made), way, atol=1e-3)


def test_a_failure_names_program_and_command(programs, monkeypatch):
    workflow, _ = graph(programs, engine="fsl")
    monkeypatch.setenv("STAND_IN_MASK", str(programs / "mask.nii"))
    monkeypatch.setenv("STAND_IN_FAILS", "bet")
    with pytest.raises(Exception, match="bet of FSL failed"):
        workflow.run(plugin="Linear")
    note = next((programs / "work").rglob("problem.json")).read_text(encoding="utf-8")
    assert "cannot go on" in note
    assert "bet t1w.nii" in note.replace(str(programs) + "/", "")
