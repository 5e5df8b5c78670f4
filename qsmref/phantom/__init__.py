"""Heads of known susceptibility, their multi-echo acquisition, and datasets of them.

The names below are loaded when they are first used; the command line needs none of them.
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "Acquisition": "acquisition",
    "Head": "head",
    "LabelImage": "labels",
    "Protocol": "acquisition",
    "Region": "head",
    "Shape": "head",
    "make_fields": "fields",
    "read_label_image": "labels",
    "read_regions": "head",
    "simulate": "acquisition",
    "write_dataset": "dataset",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
