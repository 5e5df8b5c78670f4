"""Markdown tables, and the file that keeps them."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numba
import numpy
import scipy

import qsmref
from qsmref.reconstruction.fft import library_name

ROOT = Path(__file__).parents[1]

_TITLE = "# Benchmarks"
_INTRODUCTION = """
Written by `make bench` (`python -m benchmarks`); a run of some sections replaces those. CPU seconds
are of all threads together. Heads and definitions are described in `benchmarks/heads.py`.
"""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown table; numbers are aligned right."""
    body = [[_cell(value) for value in row] for row in rows]
    rule = ["---" if i == 0 else "---:" for i in range(len(header))]
    lines = [list(header), rule, *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        digits = (
            0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
        )
        return f"{value:.{digits}f}"
    return str(value)


def environment(threads: int) -> str:
    """Where and with what a section was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    load = os.getloadavg()[0]
    return (
        f"*{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, commit {commit or 'n/a'}, "
        f"{_processor()}, {os.cpu_count()} processors (load {load:.1f}), {threads} thread(s); "
        f"Python {platform.python_version()}, qsmref {qsmref.__version__}, numpy "
        f"{numpy.__version__}, scipy {scipy.__version__}, numba {numba.__version__}, FFT by "
        f"{library_name()}.*"
    )


def _processor() -> str:
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(path: Path, title: str, text: str) -> None:
    """Put the section `title` into the file, in the place of a former one of that name."""
    old = path.read_text(encoding="utf-8") if path.is_file() else f"{_TITLE}\n{_INTRODUCTION}"
    section = f"## {title}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda _: section + "\n", old)
    else:
        new = old.rstrip() + "\n\n" + section
    path.write_text(new.rstrip() + "\n", encoding="utf-8")
