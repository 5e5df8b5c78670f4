r"""Change over sessions by a mixed model, for every region and difference.

The model of one outcome of participant i at time t, with a random intercept (and slope, if asked),

.. math::

    y_{it} = \mu_{g(i)} + \beta_{g(i)} t + \gamma^T z_i + u_i + (v_i t) + \varepsilon_{it}

is fitted by REML (:class:`statsmodels.regression.mixed_linear_model.MixedLM`). The t values have
the degrees of freedom of the layer in which a contrast is estimated (between or within
participants), since the normal distribution is too narrow for small cohorts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .design import Design, make_design
from .families import adjust, family_codes, label_families
from .methods import TIMES
from .outcomes import Outcomes, outcomes_of
from .reference import REFERENCES
from .tables import Measurements, RequestError, TableError, hint, listed


@dataclass(frozen=True)
class _Time:
    """Columns of time for each scan and the contrasts that they make."""

    #: (scan, column); zero at the first session.
    columns: np.ndarray
    #: What each column says.
    labels: tuple[str, ...]
    #: Name of the first session.
    first: str


def change_over_time(
    measured: Measurements,
    participants: pd.DataFrame | None = None,
    group_column: str | None = None,
    *,
    groups: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    time: str = "auto",
    random_slope: bool = False,
    family: str = "kind",
    confidence: float = 0.95,
    id_column: str = "participant_id",
) -> pd.DataFrame:
    """Change of every region and every difference over sessions, by a mixed model.

    Parameters
    ----------
    measured : Measurements
        With sessions; participants need not have all of them.
    participants, group_column, groups, covariates, family, confidence, id_column
        As for :func:`~qsmref.analysis.compare_groups`; all of them may be left out.
    time : {"auto", "number", "category"}
        ``number``: sessions are times (months, years), the change is that per unit. ``category``:
        the change is that from the first session of ``measured.visits`` to each other one.
        ``auto``: numbers if every session is one.
    random_slope : bool
        Let participants differ in their change too; with three sessions or more. Without it, the
        error of the change is too small when they do.

    Returns
    -------
    DataFrame
        One row a region or pair, coverage and contrast: ``region reference slab_cut_mm erosion_mm
        contrast n n_scans difference ci_low ci_high t df p q_bh q_by sd_between sd_within family
        note``, ppb (per unit of time). Contrasts are ``change ...`` of all or of each group,
        ``change ..., A - B`` and, at the first session, ``A - B``. q values are over the rows of
        one contrast.

    Raises
    ------
    TableError
        Anything wrong with the tables; no participant with two sessions.

    References
    ----------
    Laird & Ware 1982, doi:10.2307/2529876; Pinheiro & Bates 2000, doi:10.1007/b98882 (degrees of
    freedom by layers, 2.4.2).
    """
    sessions = measured.sessions
    if sessions is None:
        raise RequestError("there are no sessions: say which column tells the visits apart.")
    if time not in TIMES:
        raise RequestError(f"time {time!r} is not known; {hint(time, TIMES)}.")
    design = make_design(
        participants,
        measured.participants,
        group_column,
        groups=groups,
        covariates=covariates,
        id_column=id_column,
    )
    keep = np.flatnonzero(design.place(measured.participants) >= 0)
    measured = measured.scans(keep)
    person = design.place(measured.participants)
    if np.bincount(person).max() < 2:
        raise TableError("each participant has one session: there is no change to be seen.")
    times = _time(measured, time)
    if random_slope and times.columns.shape[1] > 1:
        raise RequestError("a random slope needs sessions that are times, not categories.")
    if random_slope and np.bincount(person).max() < 3:
        raise RequestError(
            "a random slope needs participants with three sessions; nobody has more than two."
        )
    outcomes = outcomes_of(measured)
    model = _Model.of(design, person, times)
    rows = []
    resolution = outcomes.resolution()
    for block, values in outcomes.blocks():
        for j in range(values.shape[1]):
            for found in _fit(model, values[:, j], resolution[block][j], random_slope, confidence):
                rows.append({"_row": block.start + j, **found})
    table = _finish(rows, outcomes, family, measured.references or REFERENCES)
    table.attrs = {
        "test": "mixed",
        "groups": list(design.groups),
        "covariates": list(design.covariate_names),
        "family": family,
        "confidence": confidence,
        "time": times.labels,
        "first_session": times.first,
        "random_slope": random_slope,
        "excluded": [list(pair) for pair in design.excluded],
    }
    return table


def _time(measured: Measurements, how: str) -> _Time:
    sessions = np.asarray(measured.sessions, dtype=object)
    numeric = pd.to_numeric(pd.Series(sessions, dtype=object), errors="coerce").to_numpy(float)
    number = np.isfinite(numeric).all()
    if how == "number" and not number:
        odd = sessions[~np.isfinite(numeric)][0]
        raise RequestError(f"session {odd!r} is not a number: take sessions as categories.")
    if number and how != "category":
        start = numeric.min()
        name = sessions[int(np.argmin(numeric))]
        return _Time((numeric - start)[:, None], ("per unit of time",), str(name))
    names = measured.visits
    if len(names) > 12:
        raise TableError(f"{len(names)} different sessions ({listed(names, 4)}) are no categories.")
    columns = np.stack([(sessions == name).astype(float) for name in names[1:]], axis=1)
    return _Time(columns, tuple(f"to {name}" for name in names[1:]), str(names[0]))


@dataclass(frozen=True)
class _Model:
    """Fixed effects of all scans."""

    design: Design
    #: Participant of each scan, as an index.
    person: np.ndarray
    time: _Time
    #: (scan, column): groups (or intercept), covariates, then time within each group.
    matrix: np.ndarray
    #: Name of each contrast, whether it is within participants, and its weights.
    contrasts: tuple[tuple[str, bool, np.ndarray], ...]
    #: Columns of `matrix` that differ between participants only.
    between: int

    @classmethod
    def of(cls, design: Design, person: np.ndarray, time: _Time) -> _Model:
        group = design.indicators()[person]
        first = np.column_stack([group, design.covariates[person]])
        within = [group * column[:, None] for column in time.columns.T]
        matrix = np.column_stack([first, *within])
        count, width = group.shape[1], matrix.shape[1]
        names = design.groups or ("",)
        made = []
        for k, label in enumerate(time.labels):
            at = first.shape[1] + k * count
            unit = [_weights(width, {at + g: 1.0}) for g in range(count)]
            for g, name in enumerate(names):
                made.append((f"change {label}{f' in {name}' if name else ''}", True, unit[g]))
            for a in range(count):
                for b in range(a + 1, count):
                    text = f"change {label}, {names[a]} - {names[b]}"
                    made.append((text, True, unit[a] - unit[b]))
        for a in range(count):
            for b in range(a + 1, count):
                weights = _weights(width, {a: 1.0, b: -1.0})
                made.append((f"{names[a]} - {names[b]} at {time.first}", False, weights))
        return cls(design, person, time, matrix, tuple(made), first.shape[1])


def _weights(width: int, values: dict[int, float]) -> np.ndarray:
    made = np.zeros(width)
    for at, value in values.items():
        made[at] = value
    return made


def _fit(
    model: _Model, y: np.ndarray, resolution: float, random_slope: bool, confidence: float
) -> list[dict[str, object]]:
    """All contrasts of one outcome."""
    from scipy.stats import t as student

    there = np.isfinite(y)
    y, person, x = y[there], model.person[there], model.matrix[there]
    people = len(np.unique(person))
    base: dict[str, object] = {"n": people, "n_scans": len(y)}
    note = _why_not(model, y, person, x, resolution)
    fitted = None
    if note is None:
        fitted, note = _mixed(y, person, x, model.time.columns[there], random_slope)
    rows = []
    for name, within, weights in model.contrasts:
        row = {**base, "contrast": name, "note": note}
        if fitted is not None:
            inside = x.shape[1] - model.between
            df = people - model.between
            if within and not random_slope:
                df = len(y) - people - inside
            elif within:
                df = people - inside
            estimate = float(weights @ fitted.beta)
            error = float(np.sqrt(weights @ fitted.covariance @ weights))
            half = student.ppf((1 + confidence) / 2, df) * error
            row |= {
                "difference": estimate,
                "ci_low": estimate - half,
                "ci_high": estimate + half,
                "t": estimate / error,
                "df": float(df),
                "p": 2 * student.sf(abs(estimate / error), df),
                "sd_between": fitted.sd_between,
                "sd_within": fitted.sd_within,
            }
        rows.append(row)
    return rows


@dataclass(frozen=True)
class _Fitted:
    beta: np.ndarray
    covariance: np.ndarray
    sd_between: float
    sd_within: float


def _why_not(model: _Model, y, person, x, resolution: float) -> str | None:
    if not len(y):
        return "no scan has a value"
    scans = np.bincount(person)
    repeated = int((scans > 1).sum())
    if repeated < 2:
        return f"{repeated} participants with a value at two sessions are too few"
    groups = model.design.codes[np.flatnonzero(scans)]
    for k, name in enumerate(model.design.groups):
        if (groups == k).sum() < 2:
            return f"too few participants with a value: {(groups == k).sum()} in {name}"
    if np.linalg.matrix_rank(x, tol=1e-7 * np.sqrt(len(x)) * np.abs(x).max()) < x.shape[1]:
        return "too few scans to tell groups, covariates and sessions apart"
    if len(y) - len(groups) - (x.shape[1] - model.between) < 1 or len(groups) <= model.between:
        return "too few scans for the number of groups, covariates and sessions"
    means = np.bincount(person, weights=y) / np.maximum(scans, 1)
    if np.std(y - means[person]) <= resolution:
        return "constant: no scatter within any participant"
    return None


def _mixed(y, person, x, time, random_slope: bool) -> tuple[_Fitted | None, str | None]:
    """REML fit, or why there is none."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    # The fit is done in units in which all numbers are near one.
    level, scale = y.mean(), y.std()
    size = np.sqrt((x**2).mean(axis=0))
    slope = None
    if random_slope:
        unit = time[:, 0] / max(np.abs(time[:, 0]).max(), 1e-300)
        slope = np.column_stack([np.ones(len(y)), unit])
    design = x / size
    result, covariance, cause = None, None, "it does not converge"
    with warnings.catch_warnings():
        # A variance at its boundary is a result: participants do not differ.
        warnings.simplefilter("ignore")
        # There the gradient is of no use, and a search without it is.
        for search in (None, "powell"):
            try:
                model = MixedLM((y - level) / scale, design, person, exog_re=slope)
                result = model.fit(reml=True, **({"method": [search]} if search else {}))
                covariance = np.asarray(result.cov_params())[: x.shape[1], : x.shape[1]]
            except (np.linalg.LinAlgError, ValueError) as error:
                result, cause = None, str(error).splitlines()[0]
            if result is not None and result.converged:
                break
    if result is None or covariance is None:
        return None, f"the mixed model cannot be fitted ({cause})"
    variance = np.diag(covariance)
    if not result.converged or not (np.isfinite(variance).all() and (variance > 0).all()):
        return None, "the mixed model does not converge"
    beta = np.asarray(result.fe_params) * scale / size
    # The level that was taken off is the same in every group.
    covariance = covariance * scale**2 / np.outer(size, size)
    between = float(np.sqrt(np.asarray(result.cov_re)[0, 0])) * scale
    return _Fitted(beta, covariance, between, float(np.sqrt(result.scale)) * scale), None


def _finish(rows, outcomes: Outcomes, family: str, references) -> pd.DataFrame:
    columns = ["_row", "contrast", "n", "n_scans", "difference", "ci_low", "ci_high", "t", "df"]
    found = pd.DataFrame(rows).reindex(columns=[*columns, "p", "sd_between", "sd_within", "note"])
    names = outcomes.rows.loc[found["_row"]].reset_index(drop=True)
    table = pd.concat([names, found.drop(columns="_row")], axis=1)
    labels = label_families(table, family, tuple(references))
    contrast = pd.factorize(table["contrast"])[0]
    codes = family_codes(table, labels) * (contrast.max() + 1) + contrast
    p = table["p"].to_numpy(dtype=float)
    at = list(table.columns).index("p") + 1
    table.insert(at, "q_bh", adjust(p, codes))
    table.insert(at + 1, "q_by", adjust(p, codes, "fdr_by"))
    note = table.pop("note")
    table["family"], table["note"] = labels.to_numpy(), note
    return table
