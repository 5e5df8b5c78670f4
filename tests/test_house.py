"""The order of the house, as far as a machine can see it: imports, entry points, sizes."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import importlib
import json
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import qsmref
from qsmref.settings import Settings

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for folder in ("qsmref", "bids_app") for p in (ROOT / folder).rglob("*.py"))
#: Rooms that a notebook can use with NumPy, SciPy, numba and pandas alone.
SCIENCE = ("reconstruction", "analysis")
PLUMBING = {"nipype", "nibabel", "bids", "niworkflows", "nilearn", "ants", "matplotlib", "jinja2"}


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running `code`."""
    listing = "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    script = f"{code}\nimport json, sys\n{listing}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", SCIENCE)
def test_science_loads_no_plumbing(room):
    modules = [name_of(p) for p in MODULES if p.is_relative_to(ROOT / "qsmref" / room)]
    assert len(modules) > 3
    assert not loaded_after(f"import {', '.join(modules)}") & PLUMBING


@pytest.mark.parametrize("room", SCIENCE)
def test_science_imports_no_plumbing_and_no_other_room(room):
    for path in (ROOT / "qsmref" / room).rglob("*.py"):
        names = imports_of(path)
        assert not {n.split(".")[0] for n in names} & PLUMBING, path
        own = {n for n in names if n.split(".")[0] == "qsmref"}
        assert all(n.split(".")[1] in SCIENCE for n in own), f"{path}: {own}"


def test_the_rooms_know_nothing_of_the_command_line():
    for path in MODULES:
        if path.is_relative_to(ROOT / "qsmref"):
            assert "bids_app" not in {n.split(".")[0] for n in imports_of(path)}, path


@pytest.mark.parametrize("code", ["import qsmref", "import qsmref.analysis, qsmref.reconstruction"])
def test_importing_the_package_is_cheap(code):
    heavy = PLUMBING | {"numpy", "scipy", "pandas", "numba"}
    assert not loaded_after(code) & heavy


def test_help_loads_no_plumbing():
    loaded = loaded_after(
        "from bids_app.parser import _build_parser\n_build_parser().format_help()"
    )
    assert not loaded & (PLUMBING | {"numba", "scipy", "pandas"})


def test_entry_points_can_be_called():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].strip().splitlines()
    assert {s.split("=")[0].strip() for s in scripts} >= {"qsmref", "qsmref-phantom"}
    for script in scripts:
        module, function = script.split("=")[1].strip().split(":")
        assert callable(getattr(importlib.import_module(module), function)), script


@pytest.mark.parametrize("room", ["reconstruction", "analysis", "workflows"])
def test_public_names_exist_and_say_what_they_do(room):
    package = importlib.import_module(f"qsmref.{room}")
    assert package.__all__
    for name in package.__all__:
        function = getattr(package, name)
        assert callable(function) and function.__doc__, name
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = package.nonsense


def test_every_setting_is_read_somewhere():
    read = set()
    for path in MODULES:
        if path.name != "settings.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    unread = {field.name for field in dataclasses.fields(Settings)} - read
    # The preset acts where settings are made: in the settings themselves.
    assert unread <= {"preset"}


def typed_modules() -> list[Path]:
    """Modules that mypy checks, as pyproject.toml lists them."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    paths = [ROOT / name for name in listed["files"]]
    return [p for path in paths for p in (path.rglob("*.py") if path.is_dir() else [path])]


def public_functions(path: Path) -> list[tuple[ast.FunctionDef, bool]]:
    """Functions of a module that others call, and whether they are methods."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.append((node, False))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [(n, True) for n in node.body if isinstance(n, ast.FunctionDef)]
    return [(f, m) for f, m in found if f.name == "__init__" or not f.name.startswith("_")]


def test_public_functions_have_types():
    missing, count = [], 0
    for path in typed_modules():
        for function, method in public_functions(path):
            given = function.args
            names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            names += [a for a in (given.vararg, given.kwarg) if a is not None]
            static = {d.id for d in function.decorator_list if isinstance(d, ast.Name)}
            names = names[1:] if method and "staticmethod" not in static else names
            untyped = [a.arg for a in names if a.annotation is None]
            if function.returns is None and function.name != "__init__":
                untyped.append("return")
            missing += [f"{path.name}:{function.name}: {name}" for name in untyped]
            count += 1
    assert count > 150
    assert not missing


def test_modules_and_functions_are_short():
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert not {str(p): n for p, n in lengths.items() if n > 500}
    assert statistics.median(lengths.values()) <= 350
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.end_lineno - node.lineno + 1
                # A docstring of parameters is not what makes a function hard to follow.
                text = ast.get_docstring(node, clean=False)
                body -= text.count("\n") + 1 if text else 0
                if body > 100:
                    long[f"{path}:{node.name}"] = body
    assert not long


def test_modules_say_what_they_are_and_catch_what_they_name():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and path.name != "__init__.py":
            assert ast.get_docstring(tree), f"{path} has no docstring"
        bare = [n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.type is None]
        assert not bare, f"{path}:{bare[0].lineno} catches everything"


def test_tests_use_real_objects():
    for path in (ROOT / "tests").glob("*.py"):
        assert not {n for n in imports_of(path) if n.startswith("unittest.mock")}, path


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == qsmref.__version__
    assert f"## {qsmref.__version__}" in (ROOT / "CHANGES.md").read_text(encoding="utf-8")
