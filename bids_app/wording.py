"""Numbers as people read them, for every table and caption of the reports."""

from __future__ import annotations

import numpy as np

from qsmref.analysis.reference import REFERENCES

_MINUS, _THIN_SPACE = "\u2212", "\u202f"


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus and thin spaces between thousands; ``n/a`` for a missing one.

    Examples
    --------
    >>> number(-12.34), number(float("nan")), number(-0.01), number(1234.0, 0)
    ('\u221212.3', 'n/a', '0.0', '1\u202f234')
    """
    if value is None or not np.isfinite(value):
        return "n/a"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace(",", _THIN_SPACE).replace("-", _MINUS)


def region_name(name: str) -> str:
    """A region as readers see it: what serves as a reference only says so.

    An atlas may have a region ``CSF`` beside the reference ``csf`` that is made of it; the files
    have the plain names.

    Examples
    --------
    >>> region_name("csf"), region_name("CSF")
    ('csf (reference)', 'CSF')
    """
    return f"{name} (reference)" if name in REFERENCES else name


def nice(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below a value; 1 for none.

    Examples
    --------
    >>> nice(37.0), nice(100.0), nice(0.0)
    (50.0, 100.0, 1.0)
    """
    if not np.isfinite(value) or value <= 0:
        return 1.0
    scale = 10.0 ** np.floor(np.log10(value))
    return float(next(f * scale for f in (1, 2, 5, 10) if f * scale >= value * (1 - 1e-9)))
