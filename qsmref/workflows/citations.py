"""The methods text: a sentence for each method, and where it was published."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


@cache
def _methods() -> dict[str, dict[str, dict[str, str]]]:
    text = resources.files("qsmref.data").joinpath("methods.json").read_text("utf-8")
    return json.loads(text)


def sentence(step: str, method: str, detail: str = "") -> str:
    """Sentence on a method, with its citation, and perhaps with its parameters.

    >>> sentence("background", "none")
    'No separate background removal was made.'
    >>> sentence("mask", "derivative", "143998 voxels")
    'The brain mask was taken from a derivative (143998 voxels).'
    """
    entry = _methods()[step][method]
    citation = f" [{entry['cite']}, doi:{entry['doi']}]" if "doi" in entry else ""
    return f"{entry['text']}{f' ({detail})' if detail else ''}{citation}."


def is_known(step: str, method: str) -> bool:
    """Whether there is a sentence on a method."""
    return method in _methods().get(step, {})


def reference(step: str, method: str) -> str | None:
    """Citation of a method, for ``EstimationReference``.

    >>> reference("inversion", "tkd")
    'Shmueli et al. 2009, doi:10.1002/mrm.22135'
    """
    entry = _methods()[step][method]
    return f"{entry['cite']}, doi:{entry['doi']}" if "doi" in entry else None
