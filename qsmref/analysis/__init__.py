"""Maps and labels to tables, and tables to statistics: arrays and data frames in and out.

Nothing here knows of files, images or graphs; NumPy, SciPy, pandas and statsmodels suffice.
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "region_table": "regions",
    "coverage_table": "coverage",
    "add_references": "reference",
    "differential_table": "reference",
    "difference_matrix": "reference",
    "reference_statistics": "reference",
    "rereference": "reference",
    "measurements": "tables",
    "compare_groups": "statistics",
    "compare_summaries": "statistics",
    "omnibus_test": "omnibus",
    "reference_audit": "audit",
    "change_over_time": "longitudinal",
    "paired_test": "paired",
    "reliability_table": "reliability",
    "sample_size": "power",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    # pandas is loaded when a table is first made, so that `import qsmref.analysis` stays light.
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
