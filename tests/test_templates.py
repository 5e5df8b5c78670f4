"""The template: by path with its mask, or by name from TemplateFlow's folder."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import heads
import numpy as np
import pytest

from qsmref import images
from qsmref.problems import DataError, ExitCode
from qsmref.templates import Template


def test_a_head_with_its_mask_beside_it(tmp_path):
    image = heads.write_template(tmp_path)
    template = Template.of(str(image))
    assert template.name == "round"
    assert template.mask == tmp_path / "tpl-round_res-01_desc-brain_mask.nii.gz"
    assert template.grid.shape == heads.SHAPE


def test_a_brain_needs_no_mask_and_a_head_does(tmp_path):
    parts = heads.head()
    brain = images.save(parts["t1w"] * parts["mask"], tmp_path / "my_brain.nii", heads.AFFINE)
    assert Template.of(str(brain)) == Template("mybrain", brain, None)
    full = parts["t1w"] + 1
    whole = images.save(full, tmp_path / "head.nii", heads.AFFINE)
    with pytest.raises(DataError, match="--template-mask") as caught:
        Template.of(str(whole))
    assert caught.value.code == ExitCode.USAGE
    mask = images.save(parts["mask"], tmp_path / "m.nii", heads.AFFINE)
    assert Template.of(str(whole), mask).mask == mask
    other = images.save(parts["mask"][1:], tmp_path / "n.nii", heads.AFFINE)
    with pytest.raises(DataError, match="n.nii: the mask lies on another grid"):
        Template.of(str(whole), other)
    with pytest.raises(DataError, match="there is no file"):
        Template.of(str(tmp_path / "none.nii"))


def test_a_name_is_looked_up_in_the_folder_of_templateflow(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    folder = tmp_path / "tpl-MNIx"
    ones = np.ones((4, 4, 4), np.uint8)
    head = images.save(ones, folder / "tpl-MNIx_res-02_T1w.nii.gz", np.eye(4))
    mask = images.save(ones, folder / "tpl-MNIx_res-02_desc-brain_mask.nii.gz", np.eye(4))
    assert Template.of("MNIx:res-2") == Template("MNIx", head, mask)
    with pytest.raises(DataError, match="--template-mask goes with"):
        Template.of("MNIx:res-2", mask)


def test_what_is_not_there_and_cannot_be_fetched_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    # TemplateFlow's skeleton: the name is there, the image is empty.
    (tmp_path / "tpl-MNIx").mkdir()
    (tmp_path / "tpl-MNIx" / "tpl-MNIx_res-01_T1w.nii.gz").touch()
    monkeypatch.setitem(sys.modules, "templateflow", None)
    with pytest.raises(DataError, match="templateflow is not installed") as caught:
        Template.of("MNIx")
    assert caught.value.code == ExitCode.MISSING_INPUT
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="neither a NIfTI file"):
        Template.of("no such thing")


def test_what_templateflow_says_of_its_failure_is_told(tmp_path, monkeypatch):
    def get(*_arguments, **_keywords):
        raise RuntimeError("checksum of tpl-MNIx differs")

    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    api = SimpleNamespace(templates=lambda: ["MNIx"], get=get)
    monkeypatch.setitem(sys.modules, "templateflow", SimpleNamespace(api=api))
    with pytest.raises(DataError, match="RuntimeError: checksum of tpl-MNIx differs"):
        Template.of("MNIx")
