"""A figure of the report: pictures with a title, a caption and the meaning of its colours."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import pictures
from .pictures import Picture
from .wording import number


@dataclass(frozen=True)
class ColourBar:
    """What the colours of a figure mean."""

    #: Of a CSS gradient.
    stops: str
    ticks: list[str]
    unit: str

    @classmethod
    def of(cls, cmap: str, window: tuple[float, float], unit: str) -> ColourBar:
        """Colour bar of a window, with ticks at its ends and its middle."""
        ticks = [number(t, 0) for t in (window[0], sum(window) / 2, window[1])]
        return cls(pictures.gradient(cmap), ticks, unit)


@dataclass(frozen=True)
class Figure:
    """Pictures with a title and a caption: three planes, and perhaps a strip of axial slices."""

    title: str
    caption: str
    planes: list[Picture]
    strip: list[Picture] = field(default_factory=list)
    bar: ColourBar | None = None
    #: Names and colours.
    legend: list[tuple[str, str]] = field(default_factory=list)
    #: A second set of the same planes that takes turns with the first, and what both are called.
    others: list[Picture] = field(default_factory=list)
    names: tuple[str, str] = ("", "")
