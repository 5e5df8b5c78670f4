"""Tables of a cohort as files: TSV with a JSON sidecar each, and the page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import qsmref
from qsmref import files, tables
from qsmref.analysis.cohort import Results
from qsmref.analysis.columns import TITLES, describe, family_sentence
from qsmref.analysis.statistics import group_labels
from qsmref.analysis.tables import listed

from .groupfigures import FIGURES, CohortFigure, cohort_figures
from .groupmethods import in_group
from .grouptables import adjustment, whole_mask

#: Regions that one line of the terminal names.
_NAMED = 8
#: Tables of the values as they are, whatever a comparison was adjusted for.
_UNADJUSTED = ("variance", "stability", "growth", "reliability", "power", "outliers")


def write_results(
    results: Results, path_of: Callable[[str], Path], sources: Mapping[str, Any]
) -> list[Path]:
    """Write every table with its sidecar.

    Parameters
    ----------
    results : Results
        Of :func:`qsmref.analysis.cohort.analyse`.
    path_of : callable
        From the name of a table to its path (``.tsv``).
    sources : mapping
        What goes into every sidecar beside the columns.

    Returns
    -------
    list of Path
        The tables, in the order of :data:`qsmref.analysis.columns.TITLES`.
    """
    groups = tuple(results.facts.get("groups", {}))
    labels = group_labels(groups)
    written = []
    for name, title in TITLES.items():
        path = path_of(name)
        sidecar = path.with_suffix(".json")
        if name not in results.tables:
            # What an earlier call left there is not of this one.
            path.unlink(missing_ok=True)
            sidecar.unlink(missing_ok=True)
            continue
        table = results.tables[name]
        content = {"Description": title, **describe(name, table, groups, labels)}
        content |= {**_facts(name, results.facts), **sources}
        content["GeneratedBy"] = [{"Name": "qsmref", "Version": qsmref.__version__}]
        tables.write_tsv(path, table)
        files.write_json(sidecar, content)
        written.append(path)
    return written


def write_figures(results: Results, path_of: Callable[[str], Path]) -> list[CohortFigure]:
    """Draw the figures of a cohort, and write them into ``figures`` beside the tables.

    Parameters
    ----------
    results, path_of
        As for :func:`write_results`.
    """
    figures = cohort_figures(results)
    for name in FIGURES:
        path = _figure_path(path_of(name))
        made = next((figure for figure in figures if figure.name == name), None)
        if made is None:
            # What an earlier call left there is not of this one.
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(path) as temporary:
            Path(temporary).write_bytes(made.png)
    return figures


def _figure_path(table: Path) -> Path:
    return table.parent / "figures" / table.with_suffix(".png").name


def _facts(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for one table, in the spelling of sidecars."""
    if name == "excluded":
        return {}
    content: dict[str, Any] = {"Groups": dict(facts.get("groups", {}))}
    if facts.get("covariates") and name not in _UNADJUSTED:
        content["Covariates"] = list(facts["covariates"])
    if facts.get("sessions"):
        content["Sessions"] = list(facts["sessions"])
    if "test" in facts and name in ("ttest", "specifications", "change"):
        content["Test"] = facts["test"]
        content["Confidence"] = facts.get("confidence", 0.95)
    if name in ("ttest", "change"):
        content["Family"] = family_sentence(facts["family"])
    permuted = facts.get("test") == "permutation" and name in ("ttest", "specifications")
    if permuted or name == "omnibus":
        content |= {"Permutations": facts["permutations"], "RandomSeed": facts["seed"]}
    if name == "change":
        content["FirstSession"] = facts.get("first_session", "n/a")
        if "second_session" in facts:
            content["SecondSession"] = facts["second_session"]
        content["RandomSlope"] = facts.get("random_slope", False)
    if name in ("omnibus", "drivers"):
        content["Regions"] = facts["omnibus_regions"]
    return content


def closing_words(results: Results) -> list[str]:
    """What to say on the terminal: who is compared, and what was found in one line a result."""
    sizes = results.facts.get("groups", {})
    who = ", ".join(in_group(n, group) for group, n in sizes.items())
    people = results.facts["n"]
    noun = "participant" if people == 1 else "participants"
    lines = [f"{people} {noun}{f' ({who})' if who else ''}"]
    if "change" in results.tables:
        lines += _of_change(results)
    if "ttest" in results.tables:
        # Of the mask that is neither cut nor eroded, where there are several.
        whole = whole_mask(results.tables["ttest"])
        lines += _untested(whole) + _significant(whole)
    if "omnibus" in results.tables:
        row = results.tables["omnibus"].iloc[0]
        if row["p"] == row["p"]:
            count = sum(int(row[f"n_{label}"]) for label in group_labels(list(sizes)))
            lines.append(
                f"all differences at once ({count} participants): "
                f"p {_small(row['p'])}, by permutation {_small(row['p_permutation'])}"
            )
            if adjustment(results.tables["omnibus"]):
                lines.append(adjustment(results.tables["omnibus"]))
    return lines


def _of_change(results: Results) -> list[str]:
    """What the sessions are, which way a change goes, and in how many rows there is one."""
    facts, table = results.facts, whole_mask(results.tables["change"])
    if "second_session" in facts:
        way = f"differences are {facts['second_session']} minus {facts['first_session']}"
    else:
        way = f"changes are from {facts['first_session']}"
    lines = [f"{way}; sessions in their order: {listed(facts['sessions'])}"]
    single = table["reference"].isna() & table["note"].notna()
    lines += _untested(table[single].drop_duplicates(["region", "note"]))
    contrasts = table["contrast"] if "contrast" in table else pd.Series("", index=table.index)
    for contrast, rows in table.groupby(contrasts, sort=False):
        of = f"; {contrast}" if contrast else ""
        lines += [line + of for line in _significant(rows)]
    return lines


def _significant(rows: pd.DataFrame) -> list[str]:
    """In how many differences there is something: of both sides together, where they are."""
    pairs = rows.dropna(subset=["reference"])
    if (pairs["family"] == "pairs").any():
        pairs = pairs[pairs["family"] == "pairs"]
    found, tested = int((pairs["q_bh"] < 0.05).sum()), int(pairs["p"].notna().sum())
    return [f"{found} of {tested} differences with q (BH) below 0.05"] if tested else []


def _untested(rows: pd.DataFrame) -> list[str]:
    """Regions alone that have no test, a line a reason."""
    alone = rows[rows["reference"].isna()].dropna(subset=["note"])
    lines = []
    for note, names in alone.groupby("note", sort=False)["region"]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"no test of {', '.join(names[:_NAMED])}{more}: {note}")
    return lines


def _small(p: float) -> str:
    """A p value with its sign."""
    return "< 1e-12" if p < 1e-12 else f"= {p:.3g}"
