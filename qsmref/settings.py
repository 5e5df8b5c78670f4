"""Every option, once: its name, default, help, unit and the check that it makes sense.

The command line is generated from the fields of :class:`Settings`, a TOML file has the same names,
and the file written to ``logs/`` can be passed back with ``--config-file``. Nothing here imports
more than the standard library and the tables of method names.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .analysis import methods as statistics
from .metadata import is_label
from .options import checked, plain
from .options import option as _option
from .problems import shown
from .reconstruction import methods
from .region_settings import RegionSettings
from .registration_settings import RegistrationSettings

#: What a preset changes with respect to the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "thesis": {
        "echo_fit": "nonlinear",
        "unwrap": "laplacian",
        "background": "pdf",
        "inversion": "medi",
    },
}

#: Titles of the groups, in the order of the help text.
GROUPS = {
    "filters": "Which data",
    "phase": "What the stored phase means",
    "reconstruction": "From echoes to the map",
    "registration": "Registration",
    "regions": "Regions and references",
    "group": "Comparing participants (level group)",
    "performance": "Performance",
    "run": "Running",
}


@dataclass(frozen=True)
class Settings(RegionSettings, RegistrationSettings):
    """All options of a run, checked when it is made.

    Those on regions and references are in :class:`~qsmref.region_settings.RegionSettings`, those
    on templates in :class:`~qsmref.registration_settings.RegistrationSettings`.

    Raises
    ------
    ValueError
        When a value has the wrong type, is not among the choices, or does not go with another.

    Examples
    --------
    >>> Settings.from_preset("thesis", inversion="tkd").background
    'pdf'
    """

    # Which data
    participant_label: tuple[str, ...] = _option(
        (), "filters", "participants to process; 'sub-' may be left out", "list", metavar="LABEL"
    )
    session_label: tuple[str, ...] = _option(
        (),
        "filters",
        "sessions to process; 'ses-' may be left out; at the level group, changes are from the "
        "first of them",
        "list",
        ("--session-label", "--session-id"),
        metavar="LABEL",
    )
    bids_filter_file: Path | None = _option(
        None,
        "filters",
        "JSON file of entities by kind of file (megre, mask, dseg, chimap), for example "
        '{"megre": {"acquisition": "highres"}}',
        "path",
        metavar="FILE",
    )
    derivatives: dict[str, str] = _option(
        {},
        "filters",
        "derivatives to use: brain masks (desc-brain_mask), regions (dseg.nii.gz with dseg.tsv, on "
        "the grid of the map; they become the atlas NAME), maps (Chimap)",
        "pairs",
        ("-d", "--derivatives"),
        metavar="NAME=PATH",
    )
    maps: str | None = _option(
        None,
        "filters",
        "derivative whose Chimap files are used in place of a reconstruction; participants that "
        "have no multi-echo data need no such choice",
        metavar="NAME",
    )
    bids_database_dir: Path | None = _option(
        None, "filters", "folder where the index of BIDS_DIR is kept", "path", metavar="DIR"
    )
    skip_bids_validation: bool = _option(False, "filters", "do not run bids-validator", "switch")

    # What the stored phase means
    phase_units: str | None = _option(
        None,
        "phase",
        "unit of the stored phase, where the sidecar does not say",
        choices=("rad",),
    )
    phase_range: tuple[float, float] | None = _option(
        None,
        "phase",
        "stored values that mean -pi and pi, where the sidecar does not say",
        "range",
        metavar=("LOW", "HIGH"),
    )
    phase_sign: int = _option(
        1,
        "phase",
        "factor for the phase: with 1 it grows with echo time where the field is positive",
        "integer",
        choices=(1, -1),
    )

    # From echoes to the map
    preset: str = _option(
        "default",
        "reconstruction",
        "set of methods; single options override it. thesis: Laplacian unwrapping, PDF, MEDI",
        choices=tuple(PRESETS),
    )
    phase_offset: str = _option(
        "none",
        "reconstruction",
        "removal of the receiver's phase offset before the fit, which has an offset of its own; "
        "with two echoes or more",
        choices=methods.PHASE_OFFSET,
    )
    bipolar: bool = _option(
        False,
        "reconstruction",
        "echoes were read in alternating directions: remove the phase difference of odd and even "
        "ones (three echoes or more)",
        "switch",
    )
    echo_fit: str = _option(
        "anchored", "reconstruction", "fit of the field over the echoes", choices=methods.ECHO_FIT
    )
    unwrap: str = _option(
        "romeo", "reconstruction", "unwrapping of the field", choices=methods.UNWRAP
    )
    mask_method: str = _option(
        methods.MASK[0],
        "reconstruction",
        "brain mask from the magnitude, where no derivative has one; bet is that of FSL, which has "
        "to be installed",
        choices=methods.MASK,
    )
    mask_erosion: float = _option(
        0.0, "reconstruction", "erosion of the brain mask", "number", unit="mm", low=0.0
    )
    mask_quality: str = _option(
        "auto",
        "reconstruction",
        "cut parts off the mask's surface where the phase cannot be trusted; auto: not of masks "
        "that a derivative has",
        choices=("auto", "on", "off"),
    )
    mask_params: dict[str, Any] = _option(
        {},
        "reconstruction",
        "criteria of --mask-quality: min_quality, max_noise, max_residual; of --mask-method bet: "
        "fraction, its fractional intensity (0.5)",
        "parameters",
        ("--mask-param",),
        metavar="KEY=VALUE",
    )
    background: str = _option(
        "none", "reconstruction", "background removal", choices=tuple(methods.BACKGROUND)
    )
    background_params: dict[str, Any] = _option(
        {},
        "reconstruction",
        "parameters of the background removal",
        "parameters",
        ("--background-param",),
        metavar="KEY=VALUE",
    )
    inversion: str = _option(
        "single-step", "reconstruction", "dipole inversion", choices=tuple(methods.INVERSION)
    )
    inversion_params: dict[str, Any] = _option(
        {},
        "reconstruction",
        "parameters of the dipole inversion, for example lambda_=1000 radii=1.5,3,12",
        "parameters",
        ("--inversion-param",),
        metavar="KEY=VALUE",
    )

    # Comparing participants
    group_column: str | None = _option(
        None, "group", "column of participants.tsv with the groups", metavar="NAME"
    )
    groups: tuple[str, ...] = _option(
        (),
        "group",
        "groups to compare, the first minus the second (default: all, by the alphabet)",
        "list",
        metavar="LABEL",
    )
    covariates: tuple[str, ...] = _option(
        (),
        "group",
        "columns of participants.tsv to adjust for: numbers, or categories if they are texts or "
        "written C(NAME)",
        "list",
        metavar="NAME",
    )
    regions: tuple[str, ...] = _option(
        (),
        "group",
        "regions to compare, as they are called in the tables (default: all)",
        "list",
        metavar="NAME",
    )
    test: str = _option(
        "auto",
        "group",
        "test of the differences; auto: student for two groups, anova for more, ancova with "
        "covariates, mixed when participants have several sessions",
        choices=statistics.COHORT_TESTS,
    )
    family: str = _option(
        "kind",
        "group",
        "tests that are corrected together; kind: regions alone, pairs, and each reference apart, "
        "single sides apart",
        choices=statistics.FAMILIES,
    )
    permutations: int = _option(
        10_000, "group", "permutations of the groups", "integer", metavar="N", low=1
    )
    omnibus_regions: tuple[str, ...] = _option(
        (),
        "group",
        "regions of the test of all differences at once (default: nuclei, both sides together; no "
        "fluid, cortex, white or grey matter, vessels)",
        "list",
        metavar="NAME",
    )
    equivalence_margin: float = _option(
        5.0,
        "group",
        "difference of a reference between groups that counts as none",
        "number",
        metavar="PPB",
        unit="ppb",
        low=1e-9,
    )
    power_differences: tuple[float, ...] = _option(
        statistics.POWER_DIFFERENCES,
        "group",
        "differences for which sample sizes are given (ppb; default: 5 10 20)",
        "numbers",
        metavar="PPB",
    )
    coverage_kept: float = _option(
        0.9,
        "group",
        "part of a region that a mask of the coverage sweep must keep (of what the whole mask has) "
        "for its values to count; references are measured in what is left",
        "number",
        metavar="FRACTION",
        low=0.0,
    )
    session_time: str = _option(
        "auto",
        "group",
        "sessions as times (change per unit) or as categories (change from the first); auto: times "
        "if all are numbers",
        choices=statistics.TIMES,
    )
    random_slope: bool = _option(
        False,
        "group",
        "let participants differ in their change, with three sessions or more",
        "switch",
    )

    # Performance
    nprocs: int | None = _option(
        None,
        "performance",
        "processes at a time (default: number of cores)",
        "integer",
        ("--nprocs", "--n-cpus", "--nthreads"),
        metavar="N",
        low=1,
    )
    omp_nthreads: int | None = _option(
        None,
        "performance",
        "threads of one process (default: --nprocs, at most 8)",
        "integer",
        metavar="N",
        low=1,
    )
    mem: float | None = _option(
        None,
        "performance",
        "memory for all processes: 16G, 16000M, or a bare number in MB (default: 90%% of the "
        "machine's)",
        "memory",
        unit="GB",
        metavar="SIZE",
    )
    use_plugin: Path | None = _option(
        None,
        "performance",
        "YAML file with 'plugin' and 'plugin_args' for nipype",
        "path",
        ("--use-plugin", "--nipype-plugin-file"),
        metavar="FILE",
    )
    work_dir: Path = _option(
        Path("work"),
        "performance",
        "folder for intermediate results, from which an interrupted run goes on; not inside "
        "BIDS_DIR (default: ./work)",
        "path",
        ("-w", "--work-dir"),
        metavar="DIR",
    )
    stop_on_first_crash: bool = _option(
        False, "performance", "stop at the first failure, also of one participant", "switch"
    )
    resource_monitor: bool = _option(
        False, "performance", "record memory and CPU of each step in the work folder", "switch"
    )
    clean_workdir: bool = _option(
        False, "performance", "empty the work folder of this run before it starts", "switch"
    )

    # Running
    dry_run: bool = _option(False, "run", "print what would be done, and stop", "switch")
    sloppy: bool = _option(
        False, "run", "few iterations, for tests of the plumbing only: maps are wrong", "switch"
    )
    reports_only: bool = _option(
        False, "run", "write the reports again from what is in OUTPUT_DIR", "switch"
    )
    boilerplate_only: bool = _option(
        False, "run", "write the methods text (logs/CITATION.md), and stop", "switch"
    )
    write_graph: bool = _option(
        False, "run", "write the graph to logs/ (dot; svg too where graphviz is)", "switch"
    )
    random_seed: int | None = _option(
        None, "run", "seed of NumPy's and Python's generators in each step", "integer", low=0
    )
    verbose: int = _option(
        0, "run", "say more; twice: nipype's own messages too", "count", ("-v", "--verbose")
    )

    def __post_init__(self):
        for item in fields(self):
            value = checked(item, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        strip = {"participant_label": "sub-", "session_label": "ses-"}
        for name, prefix in strip.items():
            labels = tuple(label.removeprefix(prefix) for label in getattr(self, name))
            for label in labels:
                # They become parts of names of files.
                if not is_label(label):
                    flag = name.replace("_", "-")
                    raise ValueError(f"{flag}: {shown(label)} is no label: letters and digits")
            object.__setattr__(self, name, labels)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.phase_range is not None:
            if self.phase_units is not None:
                raise ValueError("phase-units and phase-range exclude each other: give one")
            if not self.phase_range[0] < self.phase_range[1]:
                raise ValueError(f"phase-range needs LOW below HIGH, got {self.phase_range}")
        for name in self.derivatives:
            if not (name.isascii() and name.isalnum()):
                raise ValueError(
                    f"derivative name {name!r} must be letters and digits: it names the atlas in "
                    "file names"
                )
        self.check_regions()
        if self.maps is not None and self.maps not in self.derivatives:
            raise ValueError(
                f"maps names the derivative {self.maps!r}, which is not among those given: "
                f"{', '.join(self.derivatives) or 'none'}"
            )
        if self.background == "none" and self.inversion not in methods.TOTAL_FIELD:
            raise ValueError(
                f"inversion {self.inversion} works on the local field: choose a background removal "
                f"with it (those that work on the total field are {', '.join(methods.TOTAL_FIELD)})"
            )

    @classmethod
    def from_preset(cls, preset: str = "default", **changes: Any) -> Settings:
        """Settings of a preset with single options changed."""
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"unknown preset {shown(preset)}; there are {', '.join(PRESETS)}")
        _check_names(changes)
        return cls(**{**PRESETS[preset], **changes, "preset": preset})

    @classmethod
    def from_toml(cls, text: str, **changes: Any) -> Settings:
        """Settings of a TOML text, in which the names are those of the fields.

        `changes` go before the text, the text before its preset, the preset before the defaults.
        """
        content = {**_parsed(text), **changes}
        return cls.from_preset(content.pop("preset", "default"), **content)

    def to_toml(self) -> str:
        """All options as TOML; those without a value are left out."""
        import tomli_w

        return tomli_w.dumps(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Options that have a value, in types that TOML and JSON know."""
        return {name: plain(v) for name, v in asdict(self).items() if v is not None}


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not a valid TOML file: {error}") from error
    except RecursionError:
        raise ValueError("not a valid TOML file: it is nested too deeply") from None
    _check_names(content)
    return content


def _check_names(names: Mapping[str, Any]) -> None:
    known = [item.name for item in fields(Settings)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"there is no option {name!r}{hint}")
