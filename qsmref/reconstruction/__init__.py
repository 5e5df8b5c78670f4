"""Echoes to susceptibility: arrays in, arrays out.

Nothing here knows of files, images or graphs; NumPy, SciPy and numba are all it needs.
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "forward_field": "dipole",
    "fit_echoes": "echoes",
    "unwrap": "unwrapping",
    "brain_mask": "mask",
    "remove_background": "background",
    "invert": "inversion",
}

__all__ = [
    "brain_mask",
    "fit_echoes",
    "forward_field",
    "invert",
    "remove_background",
    "unwrap",
]


def __getattr__(name: str):
    # Each room is loaded when it is first used: numba alone costs half a second.
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
