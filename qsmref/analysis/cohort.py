"""Everything the group level says about one table of regions, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .audit import reference_audit
from .design import Design, make_design
from .longitudinal import change_over_time
from .methods import COHORT_TESTS, POWER_DIFFERENCES
from .omnibus import omnibus_test
from .outcomes import outcomes_of
from .outliers import outlier_table
from .paired import paired_test
from .power import sample_size
from .reference import REFERENCES
from .reliability import reliability_table
from .stability import add_effects, growth_table, stability_table, survival_table
from .statistics import compare
from .tables import Measurements, RequestError, TableError, hint


@dataclass(frozen=True)
class Plan:
    """What is asked of a cohort; names are those of :func:`~qsmref.analysis.compare_groups`."""

    group_column: str | None = None
    groups: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    #: As for ``compare_groups``, and ``mixed`` or ``paired`` over sessions. ``auto`` takes
    #: ``mixed`` when a participant has several sessions.
    test: str = "auto"
    family: str = "kind"
    permutations: int = 10_000
    seed: int = 0
    #: ppb, for the equivalence of references.
    margin: float = 5.0
    #: ppb, for sample sizes.
    power_differences: tuple[float, ...] = POWER_DIFFERENCES
    #: Regions of the omnibus test; empty for all that are no references.
    omnibus_regions: tuple[str, ...] = ()
    #: Whether somebody asked for these: only then is it an error when they cannot be tested.
    omnibus_asked: bool = True
    time: str = "auto"
    random_slope: bool = False
    id_column: str = "participant_id"


@dataclass
class Results:
    """Tables by name, and what there is to say beside them."""

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    #: Sentences about what was not done, and why.
    notes: list[str] = field(default_factory=list)
    #: What holds for all tables: test, groups with their sizes, covariates, family, ...
    facts: dict[str, Any] = field(default_factory=dict)
    #: Those who are compared.
    participants: tuple[str, ...] = ()


def analyse(
    measured: Measurements,
    participants: pd.DataFrame | None,
    plan: Plan,
    distances: Mapping[tuple[str, str], float] | None = None,
) -> Results:
    """Make all tables that a cohort allows.

    Parameters
    ----------
    measured : Measurements
        Region means, ppb, with or without sessions.
    participants : DataFrame, optional
        One row a participant, with groups and covariates.
    plan : Plan
        What is asked.
    distances : mapping, optional
        From a pair (region, reference) to the distance of the two, mm; for the tables of a sweep.

    Returns
    -------
    Results
        With one scan a participant and groups: ``ttest``, ``omnibus``, ``drivers`` and, for two
        groups, ``specifications``, ``audit``, ``equivalence``, ``variance``; with several scans
        ``change`` and ``reliability``; with several coverages ``survival``, ``stability`` and
        ``growth``. Always ``power`` and ``outliers`` (of one scan a participant)
        and ``excluded``.

    Raises
    ------
    TableError
        Anything wrong with the tables; RequestError when it is the plan.
    """
    if plan.test not in COHORT_TESTS:
        raise RequestError(f"test {plan.test!r} is not known; {hint(plan.test, COHORT_TESTS)}.")
    results = Results()
    several = pd.Series(measured.participants).duplicated().any()
    # Sessions without groups can only be asked for their change.
    change = several or (measured.sessions is not None and plan.group_column is None)
    over_time = plan.test in ("mixed", "paired") or (plan.test == "auto" and change)
    if plan.group_column is None and plan.covariates and not over_time:
        raise RequestError("covariates need a column of groups, or sessions.")
    design = _design(measured, participants, plan)
    results.participants = design.participants
    results.facts = {
        "groups": design.sizes,
        "n": len(design.participants),
        "covariates": list(design.covariate_names),
        "family": plan.family,
        "coverages": [list(c) for c in measured.coverages],
    }
    if measured.sessions is not None:
        results.facts["sessions"] = list(measured.visits)
    excluded = [(who, "all", why) for who, why in design.excluded]
    if over_time:
        excluded += _over_time(results, measured, participants, plan)
    elif plan.group_column is not None and participants is not None:
        excluded += _between(results, measured, participants, plan.group_column, design, plan)
    else:
        results.notes.append("No column of groups was given: nothing is compared.")
    if len(measured.coverages) > 1 and not several:
        _over_masks(results, measured, design, plan, distances)
    elif len(measured.coverages) > 1:
        results.notes.append("The sweep of masks is not summarised, since there are sessions.")
    if not several:
        outcomes = outcomes_of(measured.full_coverage())
        results.tables["power"] = sample_size(outcomes, design, plan.power_differences)
        results.tables["outliers"] = outlier_table(outcomes, design)
    columns = ["participant_id", "analysis", "reason"]
    results.tables["excluded"] = pd.DataFrame(excluded, columns=columns)
    return results


def _design(measured: Measurements, participants: pd.DataFrame | None, plan: Plan) -> Design:
    return make_design(
        participants,
        measured.participants,
        plan.group_column,
        groups=plan.groups or None,
        covariates=plan.covariates,
        id_column=plan.id_column,
    )


def _between(
    results: Results,
    measured: Measurements,
    participants: pd.DataFrame,
    group_column: str,
    design: Design,
    plan: Plan,
) -> list[tuple[str, str, str]]:
    """Groups against each other; returns who is left out of the omnibus test."""
    measured.one_scan_each()
    common: dict[str, Any] = {"groups": plan.groups or None, "covariates": plan.covariates}
    common |= {"permutations": plan.permutations, "seed": plan.seed, "id_column": plan.id_column}
    table = compare(
        outcomes_of(measured),
        design,
        test=plan.test,
        family=plan.family,
        references=measured.references or REFERENCES,
        permutations=plan.permutations,
        seed=plan.seed,
    )
    results.tables["ttest"] = table
    results.facts |= {k: table.attrs[k] for k in ("test", "confidence")}
    # All arrangements of two small groups may be fewer than were asked for.
    done = table.attrs.get("permutations", plan.permutations)
    results.facts |= {"permutations": done, "seed": plan.seed}
    left_out = []
    try:
        omnibus = omnibus_test(
            measured,
            participants,
            group_column,
            regions=plan.omnibus_regions or None,
            **common,
        )
    except TableError as error:
        if plan.omnibus_regions and plan.omnibus_asked:
            raise
        results.notes.append(f"There is no omnibus test: {error}")
    else:
        results.tables["omnibus"], results.tables["drivers"] = omnibus.table, omnibus.drivers
        results.facts["omnibus_regions"] = list(omnibus.regions)
        known = {who for who, _ in design.excluded}
        left_out = [(w, "omnibus", why) for w, why in omnibus.excluded if w not in known]
        for _, row in omnibus.table[omnibus.table["note"].notna()].iterrows():
            cover = _words(row["slab_cut_mm"], row["erosion_mm"])
            results.notes.append(f"There is no omnibus test{cover}: {row['note']}.")
    if len(design.groups) == 2:
        audit = reference_audit(
            measured, participants, group_column, margin=plan.margin, test=plan.test, **common
        )
        results.facts["margin"] = plan.margin
        results.tables |= {
            "specifications": audit.specifications,
            "audit": audit.summary,
            "equivalence": audit.equivalence,
            "variance": audit.variance,
        }
    else:
        results.notes.append("The reference audit compares two groups: choose two of them.")
    return left_out


def _over_masks(
    results: Results,
    measured: Measurements,
    design: Design,
    plan: Plan,
    distances: Mapping[tuple[str, str], float] | None,
) -> None:
    """What survives a sweep of masks, and how far values move over it."""
    keep = design.place(measured.participants)
    measured = measured.scans(np.flatnonzero(keep >= 0))
    stable = stability_table(measured, distances, design.codes[keep[keep >= 0]])
    if "ttest" in results.tables:
        comparison = results.tables["ttest"]
        results.tables["survival"] = survival_table(comparison)
        if comparison["difference"].notna().any():
            stable = add_effects(stable, comparison)
    results.tables["stability"] = stable
    if distances:
        results.tables["growth"] = growth_table(measured, distances, seed=plan.seed)


def _over_time(
    results: Results, measured: Measurements, participants: pd.DataFrame | None, plan: Plan
) -> list[tuple[str, str, str]]:
    """Change over sessions, and how well sessions agree; returns who is left out of the change."""
    left_out = []
    if plan.test == "paired":
        if plan.group_column is not None or plan.covariates:
            raise RequestError(
                "the paired test takes neither groups nor covariates: choose the test mixed."
            )
        table = paired_test(measured, family=plan.family)
        first, second = table.attrs["sessions"]
        results.facts |= {"first_session": first, "second_session": second}
        left_out = [(who, "paired", why) for who, why in table.attrs["excluded"]]
    else:
        table = change_over_time(
            measured,
            participants,
            plan.group_column,
            groups=plan.groups or None,
            covariates=plan.covariates,
            time=plan.time,
            random_slope=plan.random_slope,
            family=plan.family,
            id_column=plan.id_column,
        )
        results.facts |= {"first_session": table.attrs["first_session"]}
        results.facts |= {"random_slope": plan.random_slope}
    results.tables["change"] = table
    results.facts |= {"test": table.attrs["test"], "confidence": 0.95}
    try:
        inside = set(results.participants)
        keep = np.array([p in inside for p in measured.participants])
        results.tables["reliability"] = reliability_table(measured.scans(keep))
    except TableError as error:
        results.notes.append(f"There is no table of reliability: {error}")
    return left_out


def _words(slab: float, erosion: float) -> str:
    """A coverage in words, nothing for the whole mask."""
    if not slab and not erosion:
        return ""
    return f" at a slab cut by {slab:g} mm and an erosion of {erosion:g} mm"


def omnibus_names(names: Sequence[str], sides: Sequence[str]) -> tuple[str, ...]:
    """Regions that share no voxels: nuclei of both sides together and those without a side.

    Fluid, cortex, white and grey matter and vessels differ between groups for reasons of their own
    (atrophy, flow), and each region more takes a participant's worth of the test's power.

    Parameters
    ----------
    names, sides : sequence of str
        Columns ``name`` and ``hemisphere`` of a table of regions.
    """
    from .names import is_compartment, split_side, tissue

    both = {n.removesuffix("_both") for n, s in zip(names, sides, strict=True) if s == "both"}
    chosen = []
    for name, side in zip(names, sides, strict=True):
        alone = side in ("L", "R") and split_side(name)[0] not in both
        if (side in ("both", "n/a") or alone) and name not in REFERENCES and not tissue(name):
            chosen.append(name)
    # Where there is nothing else, those are what was asked about.
    return tuple([name for name in chosen if not is_compartment(name)] or chosen)
