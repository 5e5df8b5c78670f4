"""What adjusting for covariates costs a comparison: degrees of freedom, and confounding."""

from __future__ import annotations

import numpy as np

from .design import Design
from .tables import listed

#: Level of the F that a sentence names.
_LEVEL = 0.05


def variance_inflation(design: Design) -> float:
    r"""By what the covariates multiply the variance of the effect of the groups.

    For two groups it is the variance inflation factor :math:`1 / (1 - R^2)` of the group, with
    :math:`R^2` of its regression on the covariates; for more groups the generalised one, with its
    root so that it belongs to one contrast of groups. 1 is no confounding.

    Parameters
    ----------
    design : Design
        Groups and covariates.

    Returns
    -------
    float
        NaN without groups or without covariates.

    Examples
    --------
    >>> from qsmref.analysis.design import Design
    >>> codes, age = np.array([0, 0, 1, 1]), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> round(variance_inflation(Design(tuple("abcd"), codes, ("x", "y"), age, ("age",), ())), 6)
    1.0

    References
    ----------
    Fox & Monette 1992, doi:10.1080/01621459.1992.10475190.
    """
    count = len(design.groups) - 1
    if count < 1 or not design.covariates.shape[1]:
        return float("nan")
    groups = design.indicators()[:, :count]
    both = np.corrcoef(np.column_stack([groups, design.covariates]), rowvar=False)
    blocks = both[:count, :count], both[count:, count:], both
    first, second, whole = (np.linalg.slogdet(np.atleast_2d(m))[1] for m in blocks)
    return float(np.exp((first + second - whole) / count))


def covariate_differences(design: Design) -> dict[str, float]:
    """How far each covariate differs between the groups, in SD within groups.

    Parameters
    ----------
    design : Design
        Groups and covariates.

    Returns
    -------
    dict
        By the name of the column: mean of the first group minus that of the second; with more
        groups the largest difference of two. Infinite where a covariate does not vary within
        groups.
    """
    made: dict[str, float] = {}
    for name, values in zip(design.covariate_names, design.covariates.T, strict=True):
        parts = [values[design.codes == k] for k in range(len(design.groups))]
        means = np.array([part.mean() for part in parts])
        degrees = max(len(values) - len(parts), 1)
        rest = sum(float(((p - m) ** 2).sum()) for p, m in zip(parts, means, strict=True))
        apart = means[0] - means[1] if len(means) == 2 else np.ptp(means)
        with np.errstate(divide="ignore"):
            made[name] = float(np.float64(apart) / np.sqrt(rest / degrees))
    return made


def unadjusted_degrees(df: float, outcomes: int, hypotheses: int, covariates: int) -> float:
    """Degrees of freedom of the error of F (Wilks, by Rao) if there were no covariates.

    Parameters
    ----------
    df : float
        Those with covariates.
    outcomes, hypotheses : int
        Outcomes tested at once, and one less than the groups.
    covariates : int
        Columns of the covariates.

    Examples
    --------
    >>> unadjusted_degrees(3.0, outcomes=10, hypotheses=1, covariates=2)
    5.0

    References
    ----------
    Rao 1951, Bulletin of the International Statistical Institute 33:177.
    """
    spread = outcomes**2 + hypotheses**2 - 5
    root = np.sqrt((outcomes**2 * hypotheses**2 - 4) / spread) if spread > 0 else 1.0
    return float(df + covariates * root)


def adjustment_sentence(design: Design, outcomes: int, df_between: float, df: float) -> str | None:
    """What the adjustment costs the omnibus test, in numbers.

    Parameters
    ----------
    design : Design
        Those who are tested, with their groups and covariates.
    outcomes : int
        Differences tested at once.
    df_between, df : float
        Degrees of freedom of F.

    Returns
    -------
    str or None
        None without covariates.
    """
    from scipy.stats import f as fisher

    count = len(design.covariate_names)
    if not count or len(design.groups) < 2:
        return None
    without = unadjusted_degrees(df, outcomes, len(design.groups) - 1, count)
    needed, before = (fisher.isf(_LEVEL, df_between, d) for d in (df, without))
    apart = covariate_differences(design)
    told = [f"{abs(value):.2f} SD in {name}" for name, value in apart.items()]
    return (
        f"Adjusted for {listed(design.covariate_names)} in {len(design.participants)} "
        f"participants: the error of F has {df:.3g} degrees of freedom, {without:.3g} without "
        f"covariates, so that p below {_LEVEL:g} needs F above {needed:.3g} instead of "
        f"{before:.3g}. The groups differ by {listed(told)}, which multiplies the variance of the "
        f"effect of the group by {variance_inflation(design):.2f}."
    )
