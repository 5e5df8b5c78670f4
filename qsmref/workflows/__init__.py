"""Graphs: the file names spell the flow. Builders take explicit keyword arguments.

Their names are public and stable; nipype is loaded when the first of them is used.
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "init_cohort_wf": "cohort",
    "init_coverage_wf": "coverage",
    "init_reconstruction_wf": "reconstruction",
    "init_labels_wf": "labels",
    "init_registration_wf": "registration",
    "init_regions_wf": "regions",
    "init_subject_wf": "subject",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
