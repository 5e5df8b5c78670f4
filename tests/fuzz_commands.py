"""What can be wrong with a dataset as a whole and with files that the command line names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import fuzz_images
import tiny_bids as tiny
from fuzz_values import HOSTILE_TEXTS, broken_json, hostile_value

#: Options whose values are drawn at random.
OPTIONS = (
    "participant_label",
    "session_label",
    "derivatives",
    "maps",
    "phase_units",
    "phase_range",
    "phase_sign",
    "preset",
    "bipolar",
    "echo_fit",
    "unwrap",
    "mask_method",
    "mask_erosion",
    "mask_params",
    "background",
    "background_params",
    "inversion",
    "inversion_params",
    "references",
    "group_column",
    "covariates",
    "permutations",
    "nprocs",
    "mem",
    "omp_nthreads",
    "random_seed",
    "verbose",
    "bids_filter_file",
    "nonsense",
)
_OF_DESCRIPTION = ("Name", "BIDSVersion", "DatasetType", "GeneratedBy", "License", "DatasetDOI")
_OF_MAPS = ("Units", "EchoTime", "MagneticFieldStrength", "ImagingFrequency", "B0Direction")
_OF_MAPS += ("Software", "Processing", "ReferenceStatistics", "Warnings", "Sources", "Sloppy")
_OF_MAPS += ("EstimationAlgorithm", "SkullStripped", "Description", "SusceptibilityReference")
_ENTITIES = ("acq", "acquisition", "run", "suffix", "extension", "subject", "return_type", "scope")
_ENTITIES += ("regex_search", "target", "nonsense", "x y", "self", "datatype", "part", "echo")


def description(root: Path, rng: Random) -> list[str]:
    """The description of the dataset or of a derivative."""
    path = root / rng.choice(["bids", "regions"]) / "dataset_description.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if rng.random() < 0.4:
        path.write_bytes(broken_json(rng, content))
    else:
        content[rng.choice(_OF_DESCRIPTION)] = hostile_value(rng)
        path.write_text(json.dumps(content), encoding="utf-8")
    return []


def filters(root: Path, rng: Random) -> list[str]:
    """The file of filters."""
    path = root / "filter.json"
    content = {rng.choice(["megre", "mask", "dseg", "chimap", "bold"]): {}}
    for chosen in content.values():
        chosen[rng.choice(_ENTITIES)] = rng.choice(
            [hostile_value(rng), "x", 1, None, "*", ["x", 1]]
        )
    path.write_text(json.dumps(content), encoding="utf-8")
    if rng.random() < 0.3:
        path.write_bytes(broken_json(rng, content))
    return ["--bids-filter-file", str(path)]


def settings(root: Path, rng: Random) -> list[str]:
    """The file of settings."""
    path = root / "settings.toml"
    values = ["1", "-1", "0", "nan", "inf", "-inf", "1e400", "9" * 30, '"x"', '""', "[]", "[1, 2]"]
    values += ["{}", "{a = 1}", '["x"]', '["../../x"]', "[[1]]", "true", "1979-05-27", "[nan, 1]"]
    values += [
        "[-inf, inf]",
        "[0, inf]",
        "{lambda_ = nan}",
        "{lambda_ = [1]}",
        "07:32:00",
        "[1, 2, 3]",
    ]
    values += [json.dumps(rng.choice(HOSTILE_TEXTS))]
    lines = [f"{rng.choice(OPTIONS)} = {rng.choice(values)}" for _ in range(rng.choice([1, 1, 2]))]
    text = "\n".join(lines)
    content = rng.choice(
        [text.encode()] * 8
        + [b"\xff\xfe", b"", b"[" * 50_000, b"a = " + b"[" * 5000 + b"]" * 5000, b"a = \0"]
        + [text.encode("utf-16"), text.replace("=", ":").encode(), b"\xef\xbb\xbf" + text.encode()]
    )
    path.write_bytes(content)
    return ["--config-file", str(path)]


def arguments(root: Path, rng: Random) -> list[str]:
    """Values on the command line."""
    hostile = rng.choice([t for t in HOSTILE_TEXTS if "\0" not in t])
    number = rng.choice(["nan", "inf", "-1", "0", "1e400", "x", "", "9" * 30])
    return rng.choice(
        [
            [f"--participant-label={hostile}"],
            [f"--session-label={hostile}"],
            ["--phase-range", number, "1"],
            ["--phase-range=-inf", "inf"],
            ["--phase-range", "-4", rng.choice(["4", "inf", "nan"])],
            ["-d", f"{hostile}={root / 'regions'}"],
            ["-d", f"other={hostile}"],
            [f"--mask-erosion={number}"],
            [f"--mem={number}"],
            [f"--random-seed={number}"],
            ["--background-param", f"tol={number}"],
            ["--inversion-param", f"lambda_={number}"],
            ["--inversion-param", f"{hostile}={number}"],
            ["--references", hostile],
            [f"--maps={hostile}"],
            [f"--unwrap={hostile}"],
        ]
    )


def maps(root: Path, rng: Random) -> list[str]:
    """A map of somebody else, its sidecar and its values."""
    shutil.rmtree(root / "bids" / "sub-clean")
    (root / "bids" / "sub-clean" / "anat").mkdir(parents=True)
    tiny.make_regions(root / "regions", ("clean",), with_map=True)
    path = root / "regions" / "sub-clean" / "anat" / "sub-clean_Chimap.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    kind = rng.choice(["text", "value", "value", "value", "image"])
    if kind == "text":
        path.write_bytes(broken_json(rng, content))
    elif kind == "value":
        for key in rng.sample(_OF_MAPS, 2):
            content[key] = hostile_value(rng, 3.0)
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        image = path.with_name("sub-clean_Chimap.nii.gz")
        rng.choice([*fuzz_images.SAME, *fuzz_images.WRONG])([image], rng)
    return []


def loops(root: Path, rng: Random) -> list[str]:
    """Links between folders that lead round in circles, and out of the dataset."""
    bids = root / "bids"
    (bids / "sub-clean" / "again").symlink_to(rng.choice(["..", ".", str(bids)]))
    (bids / "sub-clean" / "anat" / "again").symlink_to(rng.choice(["..", ".", "../.."]))
    if rng.random() < 0.5:
        store = root / "store"
        store.mkdir()
        (store / "back").symlink_to(bids)
        (bids / "sub-clean" / "store").symlink_to(store)
    if rng.random() < 0.5:
        (bids / "sub-other").symlink_to("sub-clean")
    return []


def folders(root: Path, rng: Random) -> list[str]:
    """Folders that look like participants."""
    names = ["sub-", "sub-..", "sub-a b", "sub-<qx>", "sub-é", "sub-\x1b[31m", "sub-a\nb", "sub-'"]
    names += ["sub-$(id)", "sub-%s", "sub-{x}", "sub--", "sub-" + "a" * 200, "sub-a_b", "sub-+"]
    for name in rng.sample(names, 2):
        anat = root / "bids" / name / "anat"
        anat.mkdir(parents=True)
        for path in (root / "bids" / "sub-clean" / "anat").iterdir():
            changed = path.name.replace("sub-clean", name)
            if len(changed) < 250:
                (anat / changed).write_bytes(path.read_bytes())
    return []


#: Each spoils a dataset and returns flags for the command line.
COMMANDS = (description, filters, settings, arguments, maps, loops, folders)
