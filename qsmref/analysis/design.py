"""Who is compared with whom: groups and covariates of the participants, and who is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .methods import LEAST_PER_GROUP
from .tables import RequestError, TableError, column, hint, listed, numbers, row_words, texts

#: A covariate of categories, although it may be written in numbers: ``C(site)``.
_CATEGORIES = re.compile(r"^C\((.+)\)$")


@dataclass(frozen=True)
class Design:
    """Participants of a comparison."""

    #: Ids of those who are compared.
    participants: tuple[str, ...]
    #: Group of each, as an index into `groups`; all 0 without groups.
    codes: np.ndarray
    #: Names of the groups; differences are the first minus the second. Empty without groups.
    groups: tuple[str, ...]
    #: (participant, column) covariates, each with mean 0 and SD 1, and what the columns are.
    covariates: np.ndarray
    covariate_names: tuple[str, ...]
    #: Who is left out, and why.
    excluded: tuple[tuple[str, str], ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Participants of each group."""
        return {name: int((self.codes == k).sum()) for k, name in enumerate(self.groups)}

    def place(self, participants: Sequence[str] | np.ndarray) -> np.ndarray:
        """Index into this design of each of some participants, -1 for those left out."""
        index = {name: k for k, name in enumerate(self.participants)}
        return np.array([index.get(name, -1) for name in participants], dtype=np.intp)

    def nuisance(self) -> np.ndarray:
        """(participant, column) intercept and covariates."""
        return np.column_stack([np.ones(len(self.participants)), self.covariates])

    def indicators(self) -> np.ndarray:
        """(participant, group) 1 where a participant is in a group."""
        return (self.codes[:, None] == np.arange(max(len(self.groups), 1))).astype(float)


def make_design(
    participants: pd.DataFrame | None,
    measured: Sequence[str] | np.ndarray,
    group_column: str | None = None,
    *,
    groups: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    id_column: str = "participant_id",
    what: str = "the table of participants",
) -> Design:
    """Find the groups and covariates of the measured participants.

    Parameters
    ----------
    participants : DataFrame, optional
        One row a participant (``participants.tsv``); None without groups and covariates.
    measured : sequence of str
        Ids of participants that have values.
    group_column : str, optional
        Column that says which group a participant is in.
    groups : sequence of str, optional
        Which groups, and in which order; by default all, in the order of the alphabet.
    covariates : sequence of str
        Columns of numbers (centred) or of texts (categories, the first of the alphabet being the
        baseline); ``C(site)`` takes numbers as categories.
    id_column : str
        Column of ids.
    what : str
        What to call the table in a sentence.

    Raises
    ------
    TableError
        A column or group that is not there (with the one that was probably meant), a participant
        in two rows, a group with fewer than two participants, a covariate that does not vary or
        follows from the groups and the others.
    """
    ids = list(dict.fromkeys(measured))
    if participants is None and (group_column is not None or covariates):
        raise RequestError("groups and covariates need a table of participants.")
    if participants is None or (group_column is None and not covariates):
        return Design(
            tuple(ids), np.zeros(len(ids), dtype=int), (), np.empty((len(ids), 0)), (), ()
        )
    index = _rows(participants, id_column, what)
    excluded = {i: f"is not in {what}" for i in ids if i not in index}
    excluded |= {i: "has no values" for i in index.keys() - set(ids)}
    kept = [i for i in ids if i in index]
    table = participants.iloc[[index[i] for i in kept]]
    names: tuple[str, ...] = ()
    labels = np.array([None] * len(kept), dtype=object)
    if group_column is not None:
        labels = texts(column(table, group_column, what))
        everyone = texts(column(participants, group_column, what))
        names = _group_names(everyone, groups, group_column, what)
        for i, label in zip(kept, labels, strict=True):
            if label is None:
                excluded[i] = f"has no {group_column}"
            elif label not in names:
                excluded[i] = f"is in group {label!r}, which is not compared"
    read = [_covariate(participants, table, name, kept, what) for name in covariates]
    for name, values in zip(covariates, read, strict=True):
        for i, value in zip(kept, values, strict=True):
            if value is None and i not in excluded:
                excluded[i] = f"has no {column_of(name)}"
    stay = np.array([i not in excluded for i in kept], dtype=bool)
    codes = np.array([names.index(x) for x in labels[stay]] if names else [0] * stay.sum(), int)
    _enough(names, codes, group_column, [i for i, s in zip(kept, stay, strict=True) if s], excluded)
    columns, columns_names = [], []
    for name, values in zip(covariates, read, strict=True):
        for label, numeric in _columns(name, [v for v, s in zip(values, stay, strict=True) if s]):
            columns_names.append(label)
            columns.append(numeric)
    matrix = np.column_stack(columns) if columns else np.empty((int(stay.sum()), 0))
    design = Design(
        tuple(i for i, s in zip(kept, stay, strict=True) if s),
        codes,
        names,
        matrix,
        tuple(columns_names),
        tuple(excluded.items()),
    )
    _identifiable(design)
    return design


def _rows(participants: pd.DataFrame, id_column: str, what: str) -> dict[str, int]:
    """Row of each id."""
    index: dict[str, int] = {}
    for k, name in enumerate(texts(column(participants, id_column, what))):
        if name is None:
            raise TableError(
                f"{what}, {row_words(participants, k)}: there is nothing in {id_column!r}."
            )
        if name in index:
            raise TableError(
                f"{what}: {name} stands in more than one row "
                f"({row_words(participants, index[name])} and {row_words(participants, k)}); keep "
                "one."
            )
        index[name] = k
    return index


def _group_names(labels, groups, group_column: str, what: str) -> tuple[str, ...]:
    present = sorted({label for label in labels if label is not None})
    if not groups:
        # What R writes for a missing label; a group of that name must be asked for.
        present = [label for label in present if label.lower() != "na"]
    if not present:
        raise TableError(f"{what}: the column {group_column!r} is empty.")
    if groups:
        names = tuple(str(g).strip() for g in groups)
        for name in names:
            if name not in present:
                raise RequestError(
                    f"there is no group {name!r} in the column {group_column!r}; "
                    f"{hint(name, present)}."
                )
        if len(set(names)) != len(names):
            raise RequestError(f"a group is named twice: {listed(names)}.")
    else:
        names = tuple(present)
        if len(names) > 10:
            raise RequestError(
                f"the column {group_column!r} has {len(names)} different values "
                f"({listed(names, 4)}), which are no groups; choose another column, or say which "
                "groups to compare."
            )
    if len(names) < 2:
        raise TableError(
            f"there is one group only ({names[0]!r} in the column {group_column!r}); a comparison "
            "needs two."
        )
    return names


def _enough(names, codes, group_column, kept, excluded) -> None:
    for k, name in enumerate(names):
        inside = [i for i, code in zip(kept, codes, strict=True) if code == k]
        if len(inside) < LEAST_PER_GROUP:
            lost = [f"{i} {why}" for i, why in excluded.items() if "not compared" not in why]
            because = f" Left out: {'; '.join(lost[:3])}." if lost else ""
            raise TableError(
                f"group {name!r} has {len(inside)} participant{'s' * (len(inside) != 1)}"
                f"{f' ({inside[0]})' if inside else ''} with values; a comparison needs "
                f"{LEAST_PER_GROUP} in each group.{because}"
            )
    if not names and len(kept) < LEAST_PER_GROUP:
        raise TableError(f"{len(kept)} participant(s) left; at least {LEAST_PER_GROUP} are needed.")


def _is_na(cell: str | None) -> bool:
    """Whether a text is what R writes for a missing one; no category is called that."""
    return cell is not None and cell.lower() == "na"


def column_of(name: str) -> str:
    """Name of the column of a covariate.

    >>> column_of("C(site)"), column_of("Age (y)")
    ('site', 'Age (y)')
    """
    return _CATEGORIES.sub(r"\1", name)


def _covariate(participants, table, name: str, ids, what: str) -> list:
    """Values of a covariate (float or str), None where missing."""
    category, plain = _CATEGORIES.match(name), column_of(name)
    cells = [None if _is_na(c) else c for c in texts(column(participants, plain, what))]
    here = [None if _is_na(c) else c for c in texts(table[plain])]
    filled = [c for c in cells if c is not None]
    if not filled:
        raise TableError(f"{what}: the column {plain!r} is empty.")
    numeric = pd.to_numeric(pd.Series(filled, dtype=object), errors="coerce").notna()
    if category or not numeric.any():
        return here
    if numeric.mean() < 0.5:
        return here
    # A column of numbers with a text in it is a mistake, not a column of categories.
    values = numbers(table[plain].astype(object), f"{what}, column {plain!r}", ids)
    return [None if np.isnan(v) else float(v) for v in values]


def _columns(name: str, values: list) -> list[tuple[str, np.ndarray]]:
    """Columns of the design for one covariate, standardised."""
    levels = sorted(set(values))
    if len(levels) < 2:
        raise TableError(
            f"covariate {name!r} is {levels[0]} for every participant that is compared: leave it "
            "out."
            if levels
            else f"covariate {name!r} has no values."
        )
    if isinstance(values[0], str):
        if len(levels) > max(2, len(values) // 2):
            raise TableError(
                f"covariate {name!r} has {len(levels)} categories for {len(values)} participants "
                f"({listed(levels, 4)}), which is too many."
            )
        made = [(f"{name}={level}", [v == level for v in values]) for level in levels[1:]]
    else:
        made = [(name, values)]
    columns = []
    for label, numeric in made:
        array = np.asarray(numeric, dtype=np.float64)
        array = array - array.mean()
        columns.append((label, array / np.sqrt(np.mean(array**2))))
    return columns


def _identifiable(design: Design) -> None:
    """Raise when covariates follow from groups and each other."""
    groups = design.indicators()
    matrix = np.column_stack([groups, design.covariates])
    if len(design.participants) <= matrix.shape[1]:
        raise TableError(
            f"{len(design.participants)} participants are too few for {matrix.shape[1]} groups and "
            "covariates."
        )
    for k in range(groups.shape[1], matrix.shape[1]):
        tolerance = 1e-7 * np.sqrt(len(matrix))
        if np.linalg.matrix_rank(matrix[:, : k + 1], tol=tolerance) <= k:
            name = design.covariate_names[k - groups.shape[1]]
            raise TableError(
                f"covariate {name!r} follows from the groups and the other covariates, so that "
                "their effects cannot be told apart: leave it out."
            )
