"""The worked example of docs/new-method.md is run as it stands, on a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bids as tiny

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```\{code-block\} \w+\n:caption: ([^\n]+)\n\n(.*?)```", re.DOTALL)


def blocks() -> dict[str, str]:
    """Code of the page by caption."""
    return dict(BLOCK.findall((ROOT / "docs" / "new-method.md").read_text(encoding="utf-8")))


def inserted(path: Path, after: str, text: str) -> None:
    """Put a block behind the only line of a file that ends with `after`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = [k for k, line in enumerate(lines) if line.rstrip().endswith(after)]
    lines.insert(place + 1, text)
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package with what the page adds to it."""
    root = tmp_path_factory.mktemp("copy")
    for room in ("qsmref", "bids_app"):
        shutil.copytree(ROOT / room, root / room)
    page = blocks()
    for name in ("qsmref/reconstruction/landweber.py", "tests/test_landweber.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(page[name], encoding="utf-8")
    row = page["in INVERSION of qsmref/reconstruction/methods.py"]
    inserted(
        root / "qsmref/reconstruction/methods.py", "INVERSION: dict[str, tuple[str, str]] = {", row
    )
    sentence = page['in "inversion" of qsmref/data/methods.json']
    inserted(root / "qsmref/data/methods.json", '"inversion": {', sentence.rstrip() + ",\n")
    return root


def run(copy: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True
    )


def test_the_example_is_short():
    page = blocks()
    assert len(page) == 4
    lines = [k for name, text in page.items() if "test" not in name for k in text.splitlines()]
    assert len(lines) < 60


def test_the_test_of_the_example_passes(copy):
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_landweber.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_command_line_knows_the_example(copy, tmp_path):
    tiny.make_dataset(tmp_path / "bids", ("01",))
    tiny.make_regions(tmp_path / "regions", ("01",))
    command = ["-m", "bids_app.run", str(tmp_path / "bids"), str(tmp_path / "out"), "participant"]
    command += ["-d", f"mine={tmp_path / 'regions'}", "-w", str(tmp_path / "work")]
    command += ["--background", "v-sharp", "--inversion", "landweber", "--nprocs", "1"]
    done = run(copy, *command, "--skip-bids-validation", "--inversion-param", "iterations=7")
    assert done.returncode == 0, done.stdout + done.stderr
    sidecar = tmp_path / "out/sub-01/anat/sub-01_desc-unreferenced_Chimap.json"
    text = sidecar.read_text(encoding="utf-8")
    assert "landweber" in text and '"iterations": 7' in text
    assert "Landweber 1951" in json.loads(text)["EstimationReference"]
    citation = (tmp_path / "out/logs/CITATION.md").read_text(encoding="utf-8")
    assert "gradient descent, stopped early" in citation
    wrong = run(copy, *command, "--skip-bids-validation", "--inversion-param", "radius=3")
    assert wrong.returncode == 2
    assert "iterations=30, step=2.0" in wrong.stdout + wrong.stderr
