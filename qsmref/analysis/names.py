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

#: Spellings (in lower case, separators as one space, side removed) of the tissues that serve as
#: references. Ventricles are the CSF that a susceptibility map shows best.
TISSUES = {
    "csf": {"csf", "cerebrospinal fluid", "ventricle", "ventricles", "lateral ventricle"},
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
    plain = re.sub(r"[-_. ]+", " ", split_side(name)[0]).strip().lower()
    return next((key for key, spellings in TISSUES.items() if plain in spellings), None)


def _hemisphere(value) -> str | None:
    """The side that a cell of a `hemisphere` column names, or None."""
    return None if pd.isna(value) else _SIDES.get(str(value).strip().lower())


def label_names(names: Mapping[int, str] | pd.DataFrame) -> pd.DataFrame:
    """Columns ``index name hemisphere base`` of a label table, one row a label.

    Parameters
    ----------
    names : mapping of int to str, or DataFrame
        A data frame has columns `index` and `name` (a BIDS ``_dseg.tsv``) and may have
        `hemisphere` (L, R, or anything else for neither). Without that column the side is read
        from the name: ``_L _R _LH _RH`` at its end, ``Left- Right-`` at its start and the like.
        Index 0 is the background of a label image and is left out.

    Returns
    -------
    DataFrame
        `hemisphere` is ``L``, ``R`` or ``n/a``; `base` is the name without its side, under which
        the two sides find each other. Where both sides bear one name (``CN`` and ``CN``), their
        names become ``CN_L`` and ``CN_R``: names are unique.

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
    else:
        index, name = pd.Series(list(names.keys())), pd.Series(list(names.values()))
        sides = None

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
        rows.append((int(label), text, side or "n/a", base))

    table = pd.DataFrame(rows, columns=["index", "name", "hemisphere", "base"])
    repeated = table["name"].duplicated(keep=False) & (table["hemisphere"] != "n/a")
    table.loc[repeated, "name"] += "_" + table.loc[repeated, "hemisphere"]
    for column in ("index", "name"):
        twice = table.loc[table[column].duplicated(), column]
        if len(twice):
            raise ValueError(f"the label table has the {column} {twice.iloc[0]} more than once")
    return table


def both_sides(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Names for rows of both sides together: ``{name: (left name, right name)}``.

    `table` has the columns of :func:`label_names`. The name is that of the two sides without the
    side (``Putamen``), with ``_both`` appended where a label of that name exists already.
    """
    pairs = {}
    for base, group in table[table["hemisphere"] != "n/a"].groupby("base", sort=False):
        sides = dict(zip(group["hemisphere"], group["name"], strict=True))
        if len(group) == 2 and len(sides) == 2:
            taken = base in set(table["name"])
            pairs[f"{base}_both" if taken else base] = (sides["L"], sides["R"])
    return pairs
