"""What is imported is declared, what is declared is imported, and the oldest versions are known."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Names of modules that are not those of their packages.
PACKAGES = {"ants": "antspyx", "bids": "pybids", "fsl": "fslpy", "tomli_w": "tomli-w"}
PACKAGES |= {"yaml": "pyyaml", "skimage": "scikit-image"}
OWN = {"qsmref", "bids_app", "benchmarks"}


def declared(*extras: str) -> dict[str, str]:
    """Packages with what follows their names in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return {re.split(r"[ <>=]", line)[0]: line for line in lines}


def imported(*folders: str) -> set[str]:
    """Packages that the modules of some folders import, wherever in the file."""
    found = set()
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    found -= set(sys.stdlib_module_names) | OWN
    return {PACKAGES.get(name, name) for name in found}


def numbers(text: str) -> tuple[int, ...]:
    """A version without the zeros at its end."""
    found = [int(part) for part in re.findall(r"\d+", text)]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def oldest() -> dict[str, str]:
    lines = (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_imports_are_declared():
    # Without those of the extras the packages work, too.
    assert imported("qsmref", "bids_app") <= set(declared("fft", "templates"))


def test_nothing_is_declared_for_nothing():
    assert set(declared()) <= imported("qsmref", "bids_app")


@pytest.mark.parametrize("name", sorted(declared()))
def test_ranges(name):
    line = declared()[name]
    low = re.search(r">= ([\d.]+)", line)
    high = re.search(r"< ([\d.]+)", line)
    assert low and high, line
    assert numbers(oldest()[name]) == numbers(low[1])
    here = numbers(version(name))
    assert numbers(low[1]) <= here < numbers(high[1])


def test_constraints_are_of_packages_that_are_declared():
    known = declared("test")
    for name, pinned in oldest().items():
        low = re.search(r">= ([\d.]+)", known[name])
        assert numbers(pinned) == numbers(low[1]), name
