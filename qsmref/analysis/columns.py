"""What the columns of the group tables mean, as BIDS sidecars describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .families import DESCRIBED

_PPB = {"Units": "ppb"}

_COMMON: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant"},
    "region": {"Description": "Region"},
    "reference": {
        "Description": "Region or reference that is subtracted; n/a for the region alone, whose "
        "value contains the arbitrary zero of the map"
    },
    "slab_cut_mm": {"Description": "Cut from the slab of the mask; 0 is all of it", "Units": "mm"},
    "erosion_mm": {"Description": "Erosion of the mask; 0 is none", "Units": "mm"},
    "t": {"Description": "t statistic"},
    "f": {"Description": "F statistic"},
    "df": {"Description": "Degrees of freedom of t, or those of the error of F"},
    "df_between": {"Description": "Degrees of freedom of the hypothesis of F"},
    "p": {"Description": "p value, two-sided, not corrected"},
    "q_bh": {"Description": "p corrected over the family by Benjamini and Hochberg"},
    "q_by": {
        "Description": "p corrected over the family by Benjamini and Yekutieli, which holds for "
        "any dependence of the tests"
    },
    "p_fwe": {
        "Description": "p of the largest statistic of the family under permutation (max-T): the "
        "chance that any row of the family is as extreme"
    },
    "hedges_g": {"Description": "Difference in pooled SD, corrected for small samples"},
    "g_low": {"Description": "Lower limit of the 95 % interval of hedges_g"},
    "g_high": {"Description": "Upper limit of the 95 % interval of hedges_g"},
    "eta_squared": {"Description": "Part of the variance that the groups explain"},
    "family": {"Description": "Family of tests that the row belongs to"},
    "note": {"Description": "Why the row has no test; n/a when it has one"},
    "n": {"Description": "Participants that have the value"},
    "ci_low": {"Description": "Lower limit of the interval of the difference", **_PPB},
    "ci_high": {"Description": "Upper limit of the interval of the difference", **_PPB},
}

_SPECIAL: dict[str, dict[str, dict[str, Any]]] = {
    "omnibus": {
        "n_regions": {"Description": "Regions of which all differences are tested at once"},
        "t2": {"Description": "Hotelling's T squared; two groups only"},
        "wilks": {"Description": "Wilks' lambda"},
        "p": {"Description": "p value of F"},
        "p_permutation": {"Description": "p value of the same statistic under permutation"},
        "df_unadjusted": {
            "Description": "Degrees of freedom of the error of F if there were no covariates; n/a "
            "without covariates"
        },
        "variance_inflation": {
            "Description": "By what the covariates multiply the variance of the effect of the "
            "group, since they differ between the groups; 1 is no confounding"
        },
        "adjustment": {"Description": "What the covariates cost this test, in a sentence"},
    },
    "drivers": {
        "weight": {
            "Description": "Weight of the region in the direction that separates the groups "
            "best, in SD within groups, all weights having length 1"
        },
        "t2_without": {"Description": "T squared of the other regions"},
        "wilks_without": {"Description": "Wilks' lambda of the other regions"},
        "f": {"Description": "F of what the region adds to the others (Rao)"},
        "p": {"Description": "p value of what the region adds to the others"},
    },
    "specifications": {
        "kind": {
            "Description": "Kind of reference",
            "Levels": {
                "none": "the map as it is",
                "tissue": "a region that is only subtracted",
                "region": "another region: a difference",
            },
        },
        "rank": {"Description": "Place among the specifications of the region, by hedges_g"},
        "q_bh": {
            "Description": "p corrected over all regions under the same reference, single "
            "sides apart (BH)"
        },
        "q_by": {
            "Description": "p corrected over all regions under the same reference, single "
            "sides apart (BY)"
        },
        "correlation": {"Description": "Correlation of region and reference within groups"},
        "least_correlation": {"Description": "SD(reference) / (2 SD(region))"},
        "helps": {
            "Description": "Whether the reference makes the region less variable: correlation "
            "above least_correlation"
        },
    },
    "audit": {
        "n_specifications": {"Description": "References tried, none among them"},
        "n_p": {"Description": "Of these with p below 0.05"},
        "n_q_bh": {"Description": "Of these with q_bh below 0.05"},
        "n_positive": {"Description": "Of these with a positive difference"},
        "g_none": {"Description": "hedges_g without reference"},
        "g_low": {"Description": "Least hedges_g of all specifications"},
        "g_median": {"Description": "Median hedges_g"},
        "g_high": {"Description": "Largest hedges_g"},
        "p_low": {"Description": "Least p"},
        "p_high": {"Description": "Largest p"},
        "n_helps": {"Description": "References that make the region less variable"},
    },
    "equivalence": {
        "candidate": {"Description": "Candidate for a reference"},
        "relative_to": {
            "Description": "What it is compared with; n/a for its value in the map, which "
            "contains the map's arbitrary zero"
        },
        "difference": {"Description": "Difference of the groups, first minus second", **_PPB},
        "ci_low": {"Description": "Lower limit of the 90 % interval", **_PPB},
        "ci_high": {"Description": "Upper limit of the 90 % interval", **_PPB},
        "margin": {"Description": "Largest difference that counts as none", **_PPB},
        "p_lower": {"Description": "p of the test that the difference is above -margin"},
        "p_upper": {"Description": "p of the test that the difference is below +margin"},
        "p_equivalence": {"Description": "The larger of the two"},
        "equivalent": {"Description": "Whether p_equivalence is below 0.05"},
    },
    "variance": {
        "var_region": {"Description": "Variance of the region within groups", "Units": "ppb^2"},
        "var_reference": {"Description": "Variance of the reference", "Units": "ppb^2"},
        "covariance": {"Description": "Covariance of the two", "Units": "ppb^2"},
        "var_difference": {
            "Description": "Variance of the difference: the sum of the first two minus twice "
            "the third",
            "Units": "ppb^2",
        },
        "correlation": {"Description": "Correlation of the two"},
        "least_correlation": {"Description": "SD(reference) / (2 SD(region))"},
        "helps": {"Description": "Whether correlation is above least_correlation"},
    },
    "survival": {
        "n_tested": {"Description": "Masks under which the row has a test"},
        "n_significant": {"Description": "Of these with q_bh below 0.05"},
        **{
            f"survives_{sweep}": {
                "Description": f"Whether q_bh is below 0.05 under every mask of {words} that has "
                "a test, the whole mask among them"
            }
            for sweep, words in (
                ("slab", "the slab cuts"),
                ("erosion", "the erosions"),
                ("all", "the sweep"),
            )
        },
    },
    "stability": {
        "distance_mm": {
            "Description": "Distance of the centres, mean over participants",
            "Units": "mm",
        },
        "n": {"Description": "Participants with values under two masks or more"},
        "sd_between": {
            "Description": "SD between participants within groups, whole mask",
            **_PPB,
        },
        **{
            f"{kind}_{sweep}": {"Description": text.format(words), **unit}
            for sweep, words in (
                ("slab", "the slab cuts"),
                ("erosion", "the erosions"),
                ("all", "all masks"),
            )
            for kind, text, unit in (
                (
                    "sd",
                    "SD within a participant over {}, the whole mask among them; pooled over "
                    "participants",
                    _PPB,
                ),
                (
                    "index",
                    "Stability index over {}: 1 - var(A - B) / (var(A) + var(B)), 1 when the "
                    "difference stays while the regions move",
                    {},
                ),
            )
        },
        "effect_whole": {"Description": "Difference of the groups under the whole mask", **_PPB},
        "effect_sd": {"Description": "SD of the difference of the groups over the masks", **_PPB},
        "effect_low": {"Description": "Least difference of the groups over the masks", **_PPB},
        "effect_high": {"Description": "Largest difference of the groups over the masks", **_PPB},
    },
    "growth": {
        "sweep": {
            "Description": "Masks",
            "Levels": {
                "slab": "the slab cuts",
                "erosion": "the erosions",
                "all": "all masks",
            },
        },
        "n_pairs": {"Description": "Pairs of single structures"},
        "n": {"Description": "Participants with values under two masks or more"},
        "slope": {
            "Description": "What the SD of a difference over the masks grows by with the distance "
            "of its regions",
            "Units": "ppb/cm",
        },
        "ci_low": {
            "Description": "Lower limit of the 95 % interval of the slope, participants drawn anew",
            "Units": "ppb/cm",
        },
        "ci_high": {"Description": "Upper limit of the same interval", "Units": "ppb/cm"},
        "intercept": {"Description": "SD at distance zero on the line", **_PPB},
        "spearman": {"Description": "Rank correlation of SD and distance over the pairs"},
    },
    "power": {
        "sd": {"Description": "SD within groups, pooled", **_PPB},
        "sd_high": {"Description": "Upper limit of its one-sided 80 % interval", **_PPB},
        "target_difference": {"Description": "Difference of two groups to be found", **_PPB},
        "power": {"Description": "Wanted power"},
        "alpha": {"Description": "Two-sided level"},
        "n_per_group": {"Description": "Participants that each group needs"},
        "n_per_group_high": {"Description": "The same for sd_high: the safer number"},
        "detectable": {
            "Description": "Difference that groups of the present sizes find with this power",
            **_PPB,
        },
    },
    "change": {
        "contrast": {"Description": "What is estimated"},
        "n_scans": {"Description": "Scans that have the value"},
        "sd_between": {"Description": "SD between participants", **_PPB},
        "sd_within": {"Description": "SD within a participant", **_PPB},
        "mean_first": {"Description": "Mean of the first session", **_PPB},
        "sd_first": {"Description": "SD of the first session", **_PPB},
        "mean_second": {"Description": "Mean of the second session", **_PPB},
        "sd_second": {"Description": "SD of the second session", **_PPB},
        "difference": {"Description": "Estimate of the contrast", **_PPB},
    },
    "reliability": {
        "n": {"Description": "Participants with all sessions"},
        "k": {"Description": "Sessions"},
        "icc_agreement": {"Description": "Intraclass correlation ICC(A,1)"},
        "icc_consistency": {"Description": "Intraclass correlation ICC(C,1)"},
        "sd_between": {"Description": "SD between participants", **_PPB},
        "sd_within": {"Description": "SD of one session within a participant", **_PPB},
        "repeatability": {
            "Description": "Difference of two sessions that is exceeded once in twenty",
            **_PPB,
        },
        "bias": {"Description": "Mean of the second session minus the first", **_PPB},
        "loa_low": {"Description": "Lower limit of agreement (Bland and Altman)", **_PPB},
        "loa_high": {"Description": "Upper limit of agreement", **_PPB},
        **{
            f"{name}_{end}": {"Description": f"{word} limit of the interval of {name}", **unit}
            for name, unit in (
                ("icc_agreement", {}),
                ("icc_consistency", {}),
                ("repeatability", _PPB),
                ("bias", _PPB),
            )
            for end, word in (("low", "Lower"), ("high", "Upper"))
        },
    },
    "outliers": {
        "group": {"Description": "Group of the participant; n/a without groups"},
        "n": {"Description": "Differences that are compared with those of the group"},
        "n_outlying": {"Description": "Of these with z beyond the limit on either side"},
        "z": {
            "Description": "Distance from the median of the group in robust SD (75th percentile of "
            "the absolute deviations of all groups, over 1.15), of the difference that is largest "
            "relative to its limit"
        },
        "limit": {
            "Description": "Bound of z that in one of twenty cohorts without outliers, at most, "
            "any participant exceeds in any difference"
        },
        "difference": {"Description": "The difference that it belongs to", **_PPB},
        "median": {"Description": "Median of this difference in the group", **_PPB},
    },
    "excluded": {
        "analysis": {"Description": "What the participant is left out of"},
        "reason": {"Description": "Why"},
    },
}

#: Titles of the tables, in the order of a report.
TITLES = {
    "ttest": "Comparison of the groups in every region and difference",
    "omnibus": "All differences at once, which no offset can touch",
    "drivers": "What each region adds to the omnibus test",
    "survival": "Which results stay significant under every mask of the sweep",
    "stability": "How far each region and difference moves over the sweep of masks",
    "growth": "How this movement grows with the distance of two regions",
    "audit": "How far the result for a region depends on the reference",
    "specifications": "The comparison under every reference",
    "equivalence": "Whether a reference is equal in the groups",
    "variance": "Variance of each difference and its parts",
    "change": "Change over sessions in every region and difference",
    "reliability": "Agreement of the sessions",
    "power": "Participants needed to find a difference",
    "outliers": "Who is unlike the others of the group",
    "excluded": "Who is left out, and why",
}


def describe(
    name: str, table: pd.DataFrame, groups: Sequence[str] = (), labels: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Description of each column of a group table, with its unit.

    Parameters
    ----------
    name : str
        One of :data:`TITLES`.
    table : DataFrame
        The table.
    groups, labels : sequence of str
        Groups, and what they are called in column names.

    Raises
    ------
    KeyError
        A column that nobody described: a mistake of the program.
    """
    known: dict[str, Mapping[str, Any]] = {}
    for group, label in zip(groups, labels, strict=True):
        known[f"n_{label}"] = {"Description": f"Participants in group {group!r} with the value"}
        known[f"mean_{label}"] = {"Description": f"Mean of group {group!r}", **_PPB}
        known[f"sd_{label}"] = {"Description": f"SD of group {group!r}", **_PPB}
    # After the groups: one of them may be called "p", and n_p of the audit counts no participants.
    known |= {**_COMMON, **_SPECIAL.get(name, {})}
    for mask, cover in table.attrs.get("masks", {}).items():
        text = "Whether q_bh is below 0.05 with the slab cut by {:g} mm and an erosion of {:g} mm"
        known[mask] = {"Description": text.format(*cover)}
    if name == "change" and table.attrs.get("test") == "paired":
        first, second = table.attrs["sessions"]
        known["difference"] = {"Description": f"Session {second} minus session {first}", **_PPB}
    if len(groups) == 2:
        text = f"Mean of {groups[0]!r} minus mean of {groups[1]!r}"
        text += ", adjusted for the covariates" if table.attrs.get("covariates") else ""
        known.setdefault("difference", {"Description": text, **_PPB})
    known.setdefault("difference", {"Description": "Difference of two groups", **_PPB})
    return {column: dict(known[column]) for column in table.columns}


def family_sentence(family: str) -> str:
    """What one family is, for a sidecar."""
    return DESCRIBED[family]
