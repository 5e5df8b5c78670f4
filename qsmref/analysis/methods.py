"""Names of the tests and families of the group level; the command line lists them unloaded."""

from __future__ import annotations

#: Tests of :func:`qsmref.analysis.compare_groups`; ``auto`` chooses by groups and covariates.
TESTS = ("auto", "student", "welch", "anova", "ancova", "permutation")
#: What counts as one family of tests; see :func:`qsmref.analysis.families.label_families`.
FAMILIES = ("kind", "coverage", "all")
#: Units of a table of regions, as factors to ppb.
UNITS = {"ppb": 1.0, "ppm": 1000.0}
#: Smallest sizes of a group and of a sample that a test accepts.
LEAST_PER_GROUP = 2
#: Tests of a cohort: those of groups, and those over sessions.
COHORT_TESTS = (*TESTS, "mixed", "paired")
#: Sessions as numbers (time) or as categories.
TIMES = ("auto", "number", "category")
#: Differences for which sample sizes are given, ppb.
POWER_DIFFERENCES = (5.0, 10.0, 20.0)


def coverage_name(slab_cut_mm: float, erosion_mm: float) -> str:
    """Name of a mask of a coverage sweep, in a form for columns and nodes.

    >>> coverage_name(8, 0), coverage_name(7.5, 2), coverage_name(0, 0)
    ('slab_8mm', 'slab_7.5mm_erosion_2mm', 'whole')
    """
    lengths = {"slab": slab_cut_mm, "erosion": erosion_mm}
    return "_".join(f"{kind}_{mm:g}mm" for kind, mm in lengths.items() if mm) or "whole"
