"""The command line, generated from the fields of :class:`qsmref.settings.Settings`.

Importing this loads nothing heavy: ``qsmref --help`` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

import qsmref
from qsmref import files
from qsmref.analysis.region_methods import ATLASES_BY_NAME
from qsmref.problems import printable
from qsmref.settings import GROUPS, PRESETS, Settings
from qsmref.usage import Parser

#: What ``analysis_level`` may be.
LEVELS = ("participant", "group")

_EPILOG = """\
exit status: 0 all done; 1 some participants failed; 2 usage; 16 the dataset fails validation;
18 the filters match nothing; 65 inconsistent data; 66 needed input is absent; 70 internal error;
73, 74 output cannot be written; 127 a tool is missing. The last line printed says the same.
"""


@dataclass(frozen=True)
class Command:
    """What the command line asks for."""

    bids_dir: Path
    output_dir: Path
    level: str
    settings: Settings


def parse_args(argv: Sequence[str] | None = None) -> Command:
    """Command of an argument list; ends the process with code 2 and one sentence when it is wrong.

    A flag goes before the config file, the config file before the preset, the preset before the
    defaults.
    """
    parser = _build_parser()
    given = vars(parser.parse_args(argv))
    bids_dir, output_dir = given.pop("bids_dir"), given.pop("output_dir")
    level, config_file = given.pop("analysis_level"), given.pop("config_file", None)
    try:
        for name in _pair_options():
            if name in given:
                given[name] = _merged(given[name], name)
        settings = _resolve(config_file, given)
        _check_paths(parser, bids_dir, output_dir, settings)
    except (ValueError, OSError) as error:
        parser.error(printable(error))
    return Command(bids_dir.absolute(), output_dir.absolute(), level, settings)


def _resolve(config_file: Path | None, flags: dict[str, Any]) -> Settings:
    if config_file is None:
        return Settings.from_preset(flags.pop("preset", "default"), **flags)
    try:
        return Settings.from_toml(files.read_text(config_file), **flags)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error


def _check_paths(parser, bids_dir: Path, output_dir: Path, settings: Settings) -> None:
    if not bids_dir.is_dir():
        parser.error(f"BIDS_DIR {bids_dir} is not a folder")
    for name, path in settings.derivatives.items():
        if not Path(path).is_dir():
            parser.error(f"derivative {name}: {printable(path)} is not a folder")
    for flag, file in (
        ("--bids-filter-file", settings.bids_filter_file),
        ("--use-plugin", settings.use_plugin),
        ("--label-groups", settings.label_groups),
    ):
        if file is not None and not file.is_file():
            parser.error(f"{flag}: there is no file {printable(file)}")
    work, root = settings.work_dir.resolve(), bids_dir.resolve()
    if work == root or root in work.parents:
        parser.error(
            f"the work folder {work} lies inside BIDS_DIR; choose another place with --work-dir"
        )
    if output_dir.resolve() == root:
        parser.error("OUTPUT_DIR and BIDS_DIR are the same folder; give the results their own")


def _build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="qsmref",
        description="Quantitative susceptibility maps from multi-echo gradient-echo data in BIDS, "
        "and tables of the differences between regions.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="the BIDS dataset")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="folder for results")
    parser.add_argument(
        "analysis_level",
        choices=LEVELS,
        help="participant: maps and tables of each participant; group: comparison of participants "
        "that have their tables in OUTPUT_DIR",
    )
    parser.add_argument(
        "--version", action="version", version=f"qsmref {qsmref.__version__}", help="and stop"
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for item in fields(Settings):
        flags = item.metadata["flags"] or ("--" + item.name.replace("_", "-"),)
        groups[item.metadata["group"]].add_argument(*flags, dest=item.name, **_arguments(item))
    groups["run"].add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="TOML file of options, named as in logs/settings.toml; flags override it",
    )
    return parser


def _arguments(item: Field) -> dict[str, Any]:
    """Keyword arguments of ``add_argument`` for a field."""
    data = item.metadata
    kind = data["kind"]
    # SUPPRESS leaves out what was not given, so that the config file and the preset can speak.
    arguments: dict[str, Any] = {"help": _help(item), "default": argparse.SUPPRESS}
    if kind == "switch":
        return {**arguments, "action": "store_true"}
    if kind == "count":
        # argparse counts on from the default, which must be a number for that.
        return {**arguments, "action": _Count, "nargs": 0}
    arguments["metavar"] = data["metavar"]
    if data["choices"]:
        arguments["choices"] = data["choices"]
    if kind in _SEVERAL:
        return {**arguments, "nargs": "+", "action": "extend", "type": _SEVERAL[kind]}
    if kind == "sweep":
        return {**arguments, "nargs": "*"}
    if kind == "range":
        return {**arguments, "nargs": 2, "type": float}
    convert = {"text": str, "integer": int, "number": float, "path": Path, "memory": _memory}
    return {**arguments, "type": convert[kind]}


def _help(item: Field) -> str:
    text, unit = item.metadata["help"], item.metadata["unit"]
    if unit and item.metadata["kind"] != "memory":
        text += f" ({unit})"
    default = item.default
    changed = {name: values[item.name] for name, values in PRESETS.items() if item.name in values}
    if isinstance(default, str | float | int) and not isinstance(default, bool) and default != "":
        shown = f"default: {default}"
        shown += "".join(f"; preset {name}: {value}" for name, value in changed.items())
        text += f" [{shown}]"
    return text


class _HelpFormatter(argparse.HelpFormatter):
    """Help with the epilog's lines left as they are and room for long flags."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.strip().splitlines())


class _Count(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, getattr(namespace, self.dest, 0) + 1)


def _pair_options() -> list[str]:
    kinds = ("pairs", "atlases", "parameters")
    return [f.name for f in fields(Settings) if f.metadata["kind"] in kinds]


def _merged(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in pairs:
        if key in merged:
            raise ValueError(f"{name.replace('_', '-')}: {key} is given twice")
        merged[key] = value
    return merged


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return key, str(Path(value).absolute())


def _atlas(text: str) -> tuple[str, str]:
    """NAME=PATH, or a name that is enough.

    >>> _atlas("CIT168")
    ('CIT168', 'CIT168')
    """
    if text in ATLASES_BY_NAME:
        return text, text
    name, _, value = text.partition("=")
    return (name, value) if name and value in ATLASES_BY_NAME else _pair(text)


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    parts = [_scalar(part) for part in value.split(",") if part]
    return key, parts[0] if len(parts) == 1 and "," not in value else tuple(parts)


def _scalar(text: str) -> bool | int | float | str | None:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


#: Kinds of options that take several values, and what makes one of them.
_SEVERAL = {
    "list": str,
    "numbers": float,
    "pairs": _pair,
    "atlases": _atlas,
    "parameters": _parameter,
}


def _memory(text: str) -> float:
    """Gigabytes of ``16G``, ``16000M`` or a bare number of megabytes.

    >>> _memory("16G"), _memory("500M"), _memory("2000")
    (16.0, 0.5, 2.0)
    """
    scale = {"G": 1.0, "M": 1e-3, "K": 1e-6}.get(text[-1:].upper())
    number = text[:-1] if scale is not None else text
    try:
        size = float(number) * (1e-3 if scale is None else scale)
    except ValueError:
        size = 0.0
    if size <= 0:
        raise argparse.ArgumentTypeError(f"expected 16G, 16000M or a number of MB, got {text!r}")
    return size
