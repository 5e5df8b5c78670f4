"""Hostile values and texts, from which the mutations of :mod:`fuzz_mutations` draw."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

#: Would be a tag, and an attribute, in a page that does not escape what it shows.
TAG = "<qx onerror=1>"
ATTRIBUTE = '" onqx="1'
HOSTILE_TEXTS = (
    TAG,
    ATTRIBUTE,
    "'; rm -rf / #",
    "$(touch /tmp/qx)",
    "`id`",
    "../../../etc/passwd",
    "/etc/passwd",
    "{{ 7 * 7 }}",
    "{% include 'style.css' %}",
    "%s%n",
    "\x1b[31mred",
    "line\nend",
    "tab\tend",
    "nul\0end",
    "\u202egnp.exe",
    "ä" * 300,
    "__import__('os').system('id')",
    "=cmd|' /C calc'!A0",
    "n/a",
    "NaN",
    "",
    " ",
    "True",
    "01",
    "1e5",
)


def hostile_number(rng: Random) -> Any:
    """A number that is out of place nearly everywhere."""
    return rng.choice(
        [
            0,
            -1,
            -0.0,
            math.nan,
            math.inf,
            -math.inf,
            1e308,
            5e-324,
            10**400,
            -(10**400),
            2**63,
            1e-9,
            1000.0,
        ]
    )


def hostile_value(rng: Random, number: float | None = None) -> Any:
    """A value of JSON that is not what it should be; factors of `number` are among them."""
    choices = [
        lambda: hostile_number(rng),
        lambda: rng.choice(HOSTILE_TEXTS),
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: [],
        lambda: {},
        lambda: [0.005, 0.01],
        lambda: {"value": 3},
        lambda: [rng.choice(HOSTILE_TEXTS)],
        lambda: {rng.choice(HOSTILE_TEXTS): [[[[1]]]]},
    ]
    if number is not None:
        choices += [
            lambda: number * rng.choice([1000, 100, 1e6, 1e-3, -1]),
            lambda: str(number),
            lambda: [number],
        ] * 2
    return rng.choice(choices)()


def broken_json(rng: Random, content: dict) -> bytes:
    """Bytes of a sidecar that is no proper JSON object in UTF-8."""
    text = json.dumps(content)
    cut = rng.randrange(len(text))
    key = next(iter(content), "EchoTime")
    return rng.choice(
        [
            lambda: b"",
            lambda: text[:cut].encode(),
            lambda: text.encode("utf-16"),
            lambda: b"\xff\xfe" + rng.randbytes(40),
            lambda: rng.randbytes(200),
            lambda: b"\0" * 100,
            lambda: (text + text).encode(),
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            lambda: f"[{text}]".encode(),
            lambda: json.dumps(text).encode(),
            lambda: b"null",
            lambda: b"3",
            lambda: text.replace(":", "=", 1).encode(),
            lambda: text.replace('"', "'").encode(),
            lambda: (text[:-1] + ",}").encode(),
            lambda: (f'{{"{key}": 1e3, ' + text[1:]).encode(),
            lambda: ("// comment\n" + text).encode(),
            lambda: text.encode().replace(b"}", b', "x": "\xe9"}'),
            lambda: ('{"x": ' + "9" * 5000 + "}").encode(),
        ]
    )()


def broken_table(rng: Random, text: str) -> bytes:
    """Bytes of a table that are not quite the table."""
    lines = text.splitlines()
    header, rows = lines[0], lines[1:]
    names = header.split("\t")
    hostile = rng.choice(HOSTILE_TEXTS)
    k = rng.randrange(len(rows))
    cells = [row.split("\t") for row in rows]

    def joined(table: list[list[str]], first: list[str] = names) -> str:
        return "\n".join("\t".join(row) for row in [first, *table]) + "\n"

    def with_cell(column: int, value: str) -> bytes:
        changed = [list(row) for row in cells]
        changed[k][column] = value
        return joined(changed).encode()

    numbers = ("", "n/a", "x", "inf", "-inf", "nan", "1e300", "1.5", "-1", "0", "0x1", "1_0")
    numbers += (str(2**31), str(2**40), str(2**64), "９", "1 ", " 1", "01", "1.0", "1e0", "True")
    column = rng.randrange(len(names))
    return rng.choice(
        [
            lambda: b"",
            lambda: (header + "\n").encode(),
            lambda: text.encode("utf-16"),
            lambda: rng.randbytes(200),
            lambda: text.encode() + b"\xff\xfe\n",
            lambda: text.replace("\t", ",").encode(),
            lambda: text.replace("\t", " ").encode(),
            lambda: with_cell(0, rng.choice(numbers)),
            lambda: with_cell(0, rng.choice(numbers)),
            lambda: with_cell(0, rng.choice(numbers)),
            lambda: with_cell(column, hostile),
            lambda: with_cell(len(names) - 1, hostile),
            lambda: with_cell(len(names) - 1, '"' + hostile),
            lambda: with_cell(len(names) - 1, f'"{hostile}"'),
            lambda: joined([*cells, cells[k]]).encode(),
            lambda: joined(cells[:k] + cells[k + 1 :]).encode(),
            lambda: joined([*cells, ["99", "extra", "cell"]]).encode(),
            lambda: joined([*cells, ["99"]]).encode(),
            lambda: joined(cells, [*names[:-1], names[0]]).encode(),
            lambda: joined(cells, ["", *names[1:]]).encode(),
            lambda: joined(cells, [name.upper() for name in names]).encode(),
            lambda: text.replace("\n", "\r").encode(),
            lambda: text.encode()[:-3],
            lambda: ("# comment\n" + text).encode(),
            lambda: text.encode().replace(b"\n", b"\0\n", 1),
            lambda: (header + "\n" + "\n".join(rows[:k] + ['"'] + rows[k:])).encode(),
        ]
    )()
