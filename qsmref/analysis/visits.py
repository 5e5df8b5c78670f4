"""The order of sessions, which gives a change its sign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["in_order", "one_number", "visits_of"]


def one_number(text: str) -> float | None:
    """A label as a number, None where it is none (or is infinite)."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def in_order(sessions: Iterable[str]) -> tuple[str, ...]:
    """Different sessions: by number where all are numbers, else by the numbers in their names.

    >>> in_order(["12", "6", "12"]), in_order(["V10", "v2", "V1"]), in_order(["pre", "post"])
    (('6', '12'), ('V1', 'v2', 'V10'), ('post', 'pre'))
    """
    names = sorted(set(sessions))
    if all(one_number(name) is not None for name in names):
        return tuple(sorted(names, key=float))

    def natural(name: str) -> list[tuple[int, float, str]]:
        parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
        return [(0, float(p), "") if p.isdecimal() else (1, 0.0, p) for p in parts]

    return tuple(sorted(names, key=natural))


def visits_of(sessions: Sequence[str], asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Different sessions in the order that was asked for; those that were not come last.

    Parameters
    ----------
    sessions : sequence of str
        Of the scans.
    asked : sequence of str
        Labels, those of no scan among them perhaps.
    """
    present = in_order(sessions)
    first = tuple(dict.fromkeys(name for name in asked if name in present))
    return first + tuple(name for name in present if name not in first)
