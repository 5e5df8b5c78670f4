"""Read the option ``--coverage-sweep``: which cuts of the slab and erosions it means.

A mask of the sweep is a cut of the slab and an erosion, in mm. The cut is the total that the slab
becomes thinner by, half of it at either end, as the source study counts it (two slices of 2 mm at
top and bottom are 8 mm of slab).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from .analysis.methods import coverage_name

#: The sweep of the source study.
STUDY = ("slab:8,16,24,32,40", "erosion:2,4,6,8,10")

_KINDS = ("slab", "erosion")


class Coverage(NamedTuple):
    """A mask of the sweep; (0, 0) is the mask as it is."""

    slab_cut_mm: float = 0.0
    erosion_mm: float = 0.0

    @property
    def name(self) -> str:
        """:func:`qsmref.analysis.methods.coverage_name`."""
        return coverage_name(*self)


def parse_sweep(parts: Iterable[str]) -> tuple[Coverage, ...]:
    """Masks that the words of the option stand for, the whole mask first, each once.

    A word is ``slab:`` or ``erosion:`` with lengths (mm); two of them joined by a plus are all
    combinations. No word stands for :data:`STUDY`.

    Raises
    ------
    ValueError
        A word of another form, or a length that is negative or no number.

    Examples
    --------
    >>> [tuple(c) for c in parse_sweep(["slab:8,16", "erosion:2"])]
    [(0.0, 0.0), (8.0, 0.0), (16.0, 0.0), (0.0, 2.0)]
    >>> [c.name for c in parse_sweep(["slab:0,8+erosion:2"])]
    ['whole', 'erosion_2mm', 'slab_8mm_erosion_2mm']
    >>> len(parse_sweep([]))
    11
    """
    found = [Coverage()]
    for word in tuple(parts) or STUDY:
        lengths = {kind: (0.0,) for kind in _KINDS}
        given = []
        for part in word.split("+"):
            kind, colon, values = part.partition(":")
            if kind not in _KINDS or not colon or kind in given:
                raise ValueError(
                    f"{word!r} is no part of a sweep: write slab:8,16 or erosion:2,4 (mm), or both "
                    "joined by a plus"
                )
            given.append(kind)
            lengths[kind] = tuple(_length(value, word) for value in values.split(","))
        found += [Coverage(*pair) for pair in product(*(lengths[kind] for kind in _KINDS))]
    return tuple(dict.fromkeys(found))


def _length(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise ValueError(f"{word!r}: {text!r} is no length in mm")
    return value
