"""The methods text: a sentence for each method, and where it was published."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


@cache
def _methods() -> dict[str, dict[str, dict[str, str]]]:
    text = resources.files("qsmref.data").joinpath("methods.json").read_text("utf-8")
    return json.loads(text)


def sentence(step: str, method: str) -> str:
    """Sentence on a method, with its citation.

    >>> sentence("background", "none")
    'No separate background removal was made.'
    """
    entry = _methods()[step][method]
    citation = f" [{entry['cite']}, doi:{entry['doi']}]" if "doi" in entry else ""
    return f"{entry['text']}{citation}."


def reference(step: str, method: str) -> str | None:
    """Citation of a method, for ``EstimationReference``.

    >>> reference("inversion", "tkd")
    'Shmueli et al. 2009, doi:10.1002/mrm.22135'
    """
    entry = _methods()[step][method]
    return f"{entry['cite']}, doi:{entry['doi']}" if "doi" in entry else None
