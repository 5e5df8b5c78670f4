"""What was compared how, in sentences of a methods section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from qsmref.analysis.columns import family_sentence
from qsmref.analysis.outliers import FEWEST, LEVEL
from qsmref.analysis.visits import one_number

#: Tests as a methods section says them, with where they were published.
TESTS = {
    "student": "Student's t test",
    "welch": "Welch's t test",
    "anova": "one-way analysis of variance",
    "ancova": "a linear model with covariates",
    "permutation": "permutation of the labels of the groups",
    "mixed": "a linear mixed model over sessions",
    "paired": "the paired t test of two sessions",
}
_BH = "[Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x]"
_BY = "[Benjamini and Yekutieli 2001, doi:10.1214/aos/1013699998]"


def in_group(n: int, group: str) -> str:
    """Size of a group in words, also where groups are called by numbers.

    >>> in_group(12, "patient"), in_group(12, "1")
    ('12 patient', '12 in group 1')
    """
    return f"{n} in group {group}" if one_number(group) is not None else f"{n} {group}"


def comparison_sentences(
    name: str, facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]
) -> list[str]:
    """Sentences on the comparison of one atlas.

    Parameters
    ----------
    name : str
        Of the atlas.
    facts, tables : mapping
        Of :class:`qsmref.analysis.cohort.Results`.
    """
    sizes = facts.get("groups", {})
    who = ", ".join(in_group(n, group) for group, n in sizes.items())
    told = [
        f"In the atlas {name}, {facts['n']} participants{f' ({who})' if who else ''} took part."
    ]
    if "test" in facts:
        adjusted = facts.get("covariates") or []
        if "second_session" in facts:
            first, second = facts["first_session"], facts["second_session"]
            told.append(f"Changes are those of the session {second} from the session {first}.")
        words = f"Every region and every difference was tested by {TESTS[facts['test']]}"
        words += f", adjusted for {', '.join(adjusted)}" if adjusted else ""
        level = 100 * facts.get("confidence", 0.95)
        told.append(f"{words}; intervals have a confidence of {level:g} %.")
        told.append(
            f"p values were corrected within families {_BH}, and beside it for any dependence "
            f"{_BY}; {family_sentence(facts['family'])}."
        )
    if "omnibus" in tables and tables["omnibus"]["p"].notna().any():
        count = len(facts.get("omnibus_regions", ()))
        told.append(
            f"All differences between {count} regions were tested at once by Hotelling's T squared "
            f"(Wilks' lambda), with {facts['permutations']} permutations (seed {facts['seed']})."
        )
    if "audit" in tables:
        told.append("The comparison was repeated under every reference.")
    if "survival" in tables:
        others = sum(any(cover) for cover in facts["coverages"])
        masks = f"{others} masks" if others > 1 else "a mask"
        told.append(f"It was repeated under {masks} of other coverage.")
    if "outliers" in tables and (tables["outliers"]["n"] > 0).any():
        told.append(
            f"Participants with differences beyond a bound that {LEVEL:.0%} of cohorts without "
            "outliers, at most, exceed anywhere (robust SD from the median of the group, "
            "Bonferroni over participants and differences; groups of at least "
            f"{FEWEST}) are told of; nobody was left out for them."
        )
    return told
