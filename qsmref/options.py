"""How an option is declared and checked: what :class:`qsmref.settings.Settings` is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field
from pathlib import Path
from typing import Any

from .problems import shown
from .sweep import STUDY, parse_sweep

#: Seeds and counts have 32 bits.
_LARGEST = 2**32 - 1


def option(
    default: Any,
    group: str,
    text: str,
    kind: str = "text",
    flags: tuple[str, ...] = (),
    choices: tuple = (),
    metavar: str | tuple[str, ...] | None = None,
    unit: str = "",
    low: float | None = None,
) -> Any:
    """Field with all that the parser, the TOML reader and the documentation need to know."""
    metadata = {
        "group": group,
        "help": text,
        "kind": kind,
        "flags": flags,
        "choices": choices,
        "metavar": metavar,
        "unit": unit,
        "low": low,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def plain(value: Any) -> Any:
    """A value in types that TOML and JSON know."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return value


def checked(item: Field, value: Any) -> Any:
    """`value` in the type of its field, or a ValueError that names the option."""
    kind, name = item.metadata["kind"], item.name.replace("_", "-")
    if value is None:
        if item.default is None:
            return None
        raise ValueError(f"{name} must have a value")
    try:
        value = CONVERT[kind](value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be {EXPECTED[kind]}, got {shown(value)}") from error
    choices, low = item.metadata["choices"], item.metadata["low"]
    if choices and value not in choices:
        given = ", ".join(str(c) for c in choices)
        raise ValueError(f"{name} must be one of {given}, got {shown(value)}")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low:g}, got {shown(value)}")
    return value


def _finite(value: Any) -> Any:
    """`value`, unless it is a number that libraries cannot take, or a path that no system can."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError
    if isinstance(value, str | Path) and "\0" in str(value):
        raise ValueError
    return value


def _exactly(*types: type):
    def convert(value):
        # bool is an int in Python; here it is a mistake.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError
        return types[-1](_finite(value))

    return convert


def _strings(value) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise TypeError
    return tuple(value)


def _numbers(value) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    numbers = tuple(_exactly(int, float)(v) for v in value)
    if not numbers or not all(0 < v < float("inf") for v in numbers):
        raise ValueError
    return numbers


def _range(value) -> tuple[float, float]:
    low, high = (_exactly(int, float)(v) for v in value)
    return low, high


def _positive(value) -> float:
    number = _exactly(int, float)(value)
    if number <= 0:
        raise ValueError
    return number


def _pairs(value) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(k): str(_exactly(Path, str)(v)) for k, v in value.items()}


def _parameters(value) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(k): _parameter(v) for k, v in value.items()}


def _parameter(value) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_parameter(v) for v in value)
    if not isinstance(value, bool | int | float | str | None):
        raise TypeError
    return _finite(value)


def _sweep(value) -> tuple[str, ...]:
    words = _strings(value) or STUDY
    parse_sweep(words)
    return words


#: From a kind of option to the function that makes its value.
CONVERT = {
    "text": _exactly(str),
    "list": _strings,
    "path": _exactly(str, Path),
    "switch": _exactly(bool),
    "integer": _exactly(int),
    "count": _exactly(int),
    "number": _exactly(int, float),
    "memory": _positive,
    "numbers": _numbers,
    "range": _range,
    "pairs": _pairs,
    "atlases": _pairs,
    "parameters": _parameters,
    "sweep": _sweep,
}

#: From a kind of option to what a value should have been.
EXPECTED = {
    "text": "a text",
    "list": "a list of texts",
    "path": "a path",
    "switch": "true or false",
    "integer": "a whole number",
    "count": "a whole number",
    "number": "a number",
    "memory": "a positive number (GB)",
    "numbers": "a list of positive numbers",
    "range": "two numbers",
    "pairs": "a table of names and paths",
    "atlases": "a table of names and paths",
    "parameters": "a table of names and values",
    "sweep": "a list such as slab:8,16 erosion:2,4 (mm)",
}
