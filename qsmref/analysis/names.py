"""Region names: which label is called what, on which side, and which two sides belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

#: What a name may say about its side, in lower case.
_SIDES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
_FIRST = re.compile(r"^(lh|rh|left|right|l|r)[-_. ]+(?=.)", re.IGNORECASE)
_LAST = re.compile(r"(?<=.)[-_. ]+(lh|rh|left|right|l|r)$", re.IGNORECASE)
_INSIDE = re.compile(r"(?<=.)[-_. ]+(lh|rh|left|right)(?=[-_. ]+.)", re.IGNORECASE)

#: Column of a label table with the groups of a label (several with commas between them); a group is
#: one region made of all its labels.
GROUP_COLUMN = "label_group"

#: Spellings (in lower case, separators as one space, side removed) of the tissues that serve as
#: references. Ventricles are the CSF that a susceptibility map shows best.
VENTRICLES = {"ventricle", "ventricles", "lateral ventricle", "lateral ventricles"}
TISSUES = {
    "csf": {"csf", "cerebrospinal fluid", *VENTRICLES},
    "wm": {"wm", "white matter", "cerebral wm", "cerebral white matter"},
}


def split_side(name: str) -> tuple[str, str | None]:
    """Split a region's name into what it is and its side, ``"L"``, ``"R"`` or None.

    Examples
    --------
    >>> split_side("Left-Putamen"), split_side("SN_RH"), split_side("brainstem")
    (('Putamen', 'L'), ('SN', 'R'), ('brainstem', None))
    >>> split_side("ctx-lh-insula")
    ('ctx-insula', 'L')
    """
    for pattern in (_FIRST, _LAST, _INSIDE):
        found = pattern.search(name)
        if found:
            return name[: found.start()] + name[found.end() :], _SIDES[found[1].lower()]
    return name, None


def tissue(name: str) -> str | None:
    """Which reference tissue (``"csf"``, ``"wm"``) a region's name stands for, or None.

    Examples
    --------
    >>> tissue("Left-Cerebral-White-Matter"), tissue("CSF"), tissue("CSF_P"), tissue("wm")
    ('wm', 'csf', None, 'wm')
    """
    return next((key for key, spellings in TISSUES.items() if _plain(name) in spellings), None)


#: Words, of names without side in lower case, of what is spread over the brain.
_SPREAD = {"csf", "fluid", "ventricle", "ventricles", "gm", "wm", "cortex"}
_SPREAD |= {"vein", "veins", "vessel", "vessels"}
_SPREAD_PHRASES = ("gray matter", "grey matter", "white matter")


def is_compartment(name: str) -> bool:
    """Whether a region is fluid, cortex, white or grey matter, or vessels, and no nucleus.

    Examples
    --------
    >>> [is_compartment(n) for n in ("Left-Cerebral-Cortex", "CSF_P", "GM", "Left-Putamen")]
    [True, True, True, False]
    """
    plain = _plain(name)
    return bool(_SPREAD & set(plain.split())) or any(p in plain for p in _SPREAD_PHRASES)


def tissue_labels(names: Mapping[int, str] | pd.DataFrame, key: str) -> list[int]:
    """Labels that stand for a tissue; of CSF those of ventricles only, where there are any.

    The fluid around the brain lies at the edge of the map, where a map is worst.

    Examples
    --------
    >>> tissue_labels({4: "Left-Lateral-Ventricle", 24: "CSF", 2: "WM"}, "csf")
    [4]
    """
    listed = label_names(names)
    found = listed[listed["name"].map(tissue) == key]
    inner = found[found["name"].map(_plain).isin(VENTRICLES)]
    return [int(i) for i in (inner if len(inner) else found)["index"]]


def _plain(name: str) -> str:
    """A name without its side, in lower case, with one space between words."""
    return re.sub(r"[-_. ]+", " ", split_side(name)[0]).strip().lower()


def _hemisphere(value) -> str | None:
    """The side that a cell of a `hemisphere` column names, or None."""
    return None if pd.isna(value) else _SIDES.get(str(value).strip().lower())


def label_names(names: Mapping[int, str] | pd.DataFrame) -> pd.DataFrame:
    """Columns ``index name hemisphere base groups`` of a label table, one row a label.

    Parameters
    ----------
    names : mapping of int to str, or DataFrame
        A data frame has columns `index` and `name` (a BIDS ``_dseg.tsv``) and may have
        `hemisphere` (L, R, or anything else for neither). Without that column the side is read
        from the name: ``_L _R _LH _RH`` at its end, ``Left- Right-`` at its start and the like.
        Index 0 is the background of a label image and is left out. :data:`GROUP_COLUMN`, where
        there is one, becomes `groups`.

    Returns
    -------
    DataFrame
        `hemisphere` is ``L``, ``R`` or ``n/a``; `base` is the name without its side, under which
        the two sides find each other. Where both sides bear one name (``CN`` and ``CN``), their
        names become ``CN_L`` and ``CN_R``: names are unique. `groups` is a tuple of names.

    Raises
    ------
    ValueError
        An index or name that occurs twice, an index that is not a whole number, an empty name,
        or a hemisphere that contradicts its name.
    """
    if isinstance(names, pd.DataFrame):
        missing = {"index", "name"} - set(names.columns)
        if missing:
            raise ValueError(f"the label table has no column {' and no column '.join(missing)}")
        index, name = names["index"], names["name"]
        sides = names["hemisphere"] if "hemisphere" in names.columns else None
        grouped = names[GROUP_COLUMN] if GROUP_COLUMN in names.columns else None
    else:
        index, name = pd.Series(list(names.keys())), pd.Series(list(names.values()))
        sides = grouped = None

    rows = []
    for position, (label, text) in enumerate(zip(index, name, strict=True)):
        if pd.isna(label) or int(label) != label:
            raise ValueError(f"label index {label!r} (name {text!r}) is not a whole number")
        if int(label) == 0:
            continue
        if pd.isna(text) or not str(text).strip():
            raise ValueError(f"label {int(label)} has an empty name")
        text = str(text).strip()
        base, side = split_side(text)
        if sides is not None:
            given = _hemisphere(sides.iloc[position])
            if given and side and given != side:
                raise ValueError(
                    f"label {int(label)}: name {text!r} contradicts hemisphere {given}"
                )
            side, base = given, base if given else text
        groups = () if grouped is None else _groups_in(grouped.iloc[position])
        rows.append((int(label), text, side or "n/a", base, groups))

    table = pd.DataFrame(rows, columns=["index", "name", "hemisphere", "base", "groups"])
    repeated = table["name"].duplicated(keep=False) & (table["hemisphere"] != "n/a")
    table.loc[repeated, "name"] += "_" + table.loc[repeated, "hemisphere"]
    for column in ("index", "name"):
        twice = table.loc[table[column].duplicated(), column]
        if len(twice):
            raise ValueError(f"the label table has the {column} {twice.iloc[0]} more than once")
    return table


def _groups_in(cell) -> tuple[str, ...]:
    """Names of the groups in a cell of :data:`GROUP_COLUMN`."""
    parts = [] if pd.isna(cell) else [part.strip() for part in str(cell).split(",")]
    return tuple(part for part in parts if part and part != "n/a")


def regions_of(names: Mapping[int, str] | pd.DataFrame) -> pd.DataFrame:
    """Regions of a label table: its groups where it has any, else its labels.

    A group is one region for each side that its labels have, called ``GP_L`` and ``GP_R``, or
    ``GP`` where they have none. Labels that belong to no group of such a table are no region.

    Parameters
    ----------
    names : mapping of int to str, or DataFrame
        As for :func:`label_names`.

    Returns
    -------
    DataFrame
        Columns ``name hemisphere base labels``; `labels` are tuples of indices.

    Raises
    ------
    ValueError
        What :func:`label_names` raises; a group of labels with and without a side, or whose name
        names another side than its labels; two groups of one name.

    Examples
    --------
    >>> table = pd.DataFrame({"index": [5, 6], "name": ["GPe_LH", "GPi_LH"]})
    >>> regions_of(table.assign(label_group="GP")).values.tolist()
    [['GP_L', 'L', 'GP', (5, 6)]]
    """
    listed = label_names(names)
    if not listed["groups"].map(len).any():
        made = listed[["name", "hemisphere", "base"]].copy()
        made["labels"] = [(int(i),) for i in listed["index"]]
        return made
    members: dict[tuple[str, str], list[int]] = {}
    for label, side, groups in zip(
        listed["index"], listed["hemisphere"], listed["groups"], strict=True
    ):
        for group in groups:
            members.setdefault((group, side), []).append(int(label))
    rows = []
    for (group, side), labels in members.items():
        base, named = split_side(group)
        if named and named != side:
            raise ValueError(f"group {group!r} has labels of another side than its name says")
        if side != "n/a" and (group, "n/a") in members:
            raise ValueError(f"group {group!r} has labels with a side and labels without one")
        name = group if named or side == "n/a" else f"{group}_{side}"
        rows.append((name, side, base if side != "n/a" else group, tuple(labels)))
    made = pd.DataFrame(rows, columns=["name", "hemisphere", "base", "labels"])
    twice = made.loc[made["name"].duplicated(), "name"]
    if len(twice):
        raise ValueError(f"two groups of labels would be called {twice.iloc[0]!r}")
    return made


def apply_groups(
    names: pd.DataFrame, groups: pd.DataFrame, atlas: str | None = None
) -> pd.DataFrame:
    """A label table with the groups of another table in :data:`GROUP_COLUMN`.

    Parameters
    ----------
    names : DataFrame
        Columns `index`, `name` and others, see :func:`label_names`.
    groups : DataFrame
        Columns `group` and `member`, one row a member; rows with another `atlas` than the one
        named are for others. A member is a name (``GPe_LH``), a name without its side (``GPe``,
        which stands for both sides), an entry of a column `abbreviation`, or an index.
    atlas : str, optional
        Name of the atlas.

    Returns
    -------
    DataFrame
        `names` as it is when the table of groups has nothing for it.

    Raises
    ------
    ValueError
        Columns that are missing, or a group of which only a part is there.
    """
    missing = {"group", "member"} - set(groups.columns)
    if missing:
        raise ValueError(f"the table of groups has no column {' and no column '.join(missing)}")
    wanted = groups
    if "atlas" in groups.columns:
        wanted = groups[groups["atlas"].isna() | (groups["atlas"].astype(str) == str(atlas))]
    found = [_labels_called(str(member).strip(), names) for member in wanted["member"]]
    if not any(found):
        return names
    cells: dict[int, list[str]] = {}
    for group, member, labels in zip(wanted["group"], wanted["member"], found, strict=True):
        if not labels:
            raise ValueError(f"group {group!r} has a member {member!r}, which names no label")
        for label in labels:
            cells.setdefault(label, []).append(str(group).strip())
    texts = [",".join(cells.get(int(i), [])) or None for i in names["index"]]
    grouped = names.copy()
    grouped[GROUP_COLUMN] = texts
    return grouped


def _labels_called(member: str, names: pd.DataFrame) -> list[int]:
    """Indices of the labels that a member of a group stands for."""
    listed = label_names(names.drop(columns=GROUP_COLUMN, errors="ignore"))
    short = {}
    if "abbreviation" in names.columns:
        short = dict(
            zip(names["index"].astype(int), names["abbreviation"].astype(str), strict=True)
        )
    exact = [
        int(i)
        for i, name in zip(listed["index"], listed["name"], strict=True)
        if member in (name, str(i))
    ]
    return exact or [
        int(i)
        for i, base in zip(listed["index"], listed["base"], strict=True)
        if member in (base, short.get(int(i)))
    ]


def both_sides(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Names for rows of both sides together: ``{name: (left name, right name)}``.

    `table` has the columns of :func:`label_names`. The name is that of the two sides without the
    side (``Putamen``), with ``_both`` appended where a label of that name exists already.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for base, group in table[table["hemisphere"] != "n/a"].groupby("base", sort=False):
        sides = dict(zip(group["hemisphere"], group["name"], strict=True))
        if len(group) == 2 and len(sides) == 2:
            taken = base in set(table["name"])
            pairs[f"{base}_both" if taken else str(base)] = (sides["L"], sides["R"])
    return pairs
