"""The notebooks of the documentation run from the first cell to the last."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_output_that_may_be_old(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not [c for c in notebook.cells if c.get("outputs")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_says_what_its_text_says(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(path.parent))
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    said = "".join(out.get("text", "") for out in outputs)
    assert any("image/png" in out.get("data", {}) for out in outputs)
    off = float(re.search(r"field off by ([\d.]+) ppb", said)[1])
    assert off < 5
    # What the last section is about: values move with the mask, differences do not.
    moved = [float(v) for v in re.findall(r": ([-\d.]+)", said.split("values move by")[1])]
    apart = float(re.search(r"by at most ([\d.]+) ppb", said)[1])
    assert min(abs(v) for v in moved) > 3 * apart
