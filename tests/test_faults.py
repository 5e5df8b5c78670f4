"""A few of many faults (``make test-faults``): the next command ends with a clean run's bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_damaged_and_without_room(tmp_path):
    script = Path(__file__).with_name("faults.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 did harm" in done.stdout
    assert "signal 9" in done.stdout
