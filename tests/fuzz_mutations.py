"""What can be wrong with a participant's files; each mutation spoils one participant in place.

A mutation returns True when it keeps the meaning of the data: the map must then be what it was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import fuzz_images
import numpy as np
import tiny_bids as tiny
from fuzz_values import HOSTILE_TEXTS, broken_json, broken_table, hostile_value

#: Takes the folder of the data, the participant's label and a generator.
Mutation = Callable[[Path, str, Random], bool]


def anat(root: Path, label: str) -> Path:
    return root / "bids" / f"sub-{label}" / "anat"


def regions(root: Path, label: str) -> Path:
    return root / "regions" / f"sub-{label}" / "anat"


def echoes(root: Path, label: str, part: str = "*", echo: str = "*", end: str = "nii.gz"):
    return sorted(anat(root, label).glob(f"*echo-{echo}_part-{part}_MEGRE.{end}"))


def some_echoes(root: Path, label: str, rng: Random, end: str = "nii.gz") -> list[Path]:
    """One file, an echo, all of one part, or all."""
    part, echo = rng.choice(["mag", "phase"]), str(rng.choice([1, 2, 3]))
    return rng.choice(
        [
            lambda: echoes(root, label, part, echo, end),
            lambda: echoes(root, label, "*", echo, end),
            lambda: echoes(root, label, part, "*", end),
            lambda: echoes(root, label, "*", "*", end),
        ]
    )()


def dump(path: Path, content) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", errors="replace")


# --- sidecars ----------------------------------------------------------------------------------


def sidecar_value(root: Path, label: str, rng: Random) -> bool:
    key = rng.choice(
        ["EchoTime"] * 4
        + ["MagneticFieldStrength", "ImagingFrequency", "Units"] * 2
        + ["RepetitionTimeExcitation", "SkullStripped", "Processing", "Warnings", "Software"]
    )
    paths = some_echoes(root, label, rng, "json")
    seed = rng.random()
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = content.get(key) if isinstance(content.get(key), float) else None
        # The same kind of mistake in all of them.
        value = hostile_value(Random(seed), number)
        if value is None and seed < 0.5:
            content.pop(key, None)
        else:
            content[key] = value
        dump(path, content)
    return False


def sidecar_factor(root: Path, label: str, rng: Random) -> bool:
    """All echo times, or field strengths, in another unit, or mistyped."""
    key = rng.choice(["EchoTime", "MagneticFieldStrength"])
    factor = rng.choice([1e3, 1e6, 100, 10, 0.1, 0.01, 1e-3, -1])
    for path in some_echoes(root, label, rng, "json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content[key] *= factor
        dump(path, content)
    return False


def sidecar_text(root: Path, label: str, rng: Random) -> bool:
    path = rng.choice(echoes(root, label, end="json"))
    path.write_bytes(broken_json(rng, json.loads(path.read_text(encoding="utf-8"))))
    return False


def sidecar_extra(root: Path, label: str, rng: Random) -> bool:
    """Keys that nobody asked for change nothing."""
    for path in some_echoes(root, label, rng, "json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content[rng.choice(HOSTILE_TEXTS) + "x"] = rng.choice(HOSTILE_TEXTS)
        content["Manufacturer"] = hostile_value(rng)
        dump(path, content)
    return True


def sidecar_inherited(root: Path, label: str, rng: Random) -> bool:
    """What sidecars share lies in one further up; nearer ones win."""
    shared = {"MagneticFieldStrength": 3.0, "EchoTime": 99, "Units": "Hz"}
    dump(root / "bids" / f"sub-{label}" / f"sub-{label}_MEGRE.json", shared)
    dump(root / "bids" / f"sub-{label}" / f"sub-{label}_part-phase_MEGRE.json", {"Units": "rad"})
    for path in echoes(root, label, end="json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["MagneticFieldStrength"]
        content.pop("Units", None)
        dump(path, content)
    for path in echoes(root, label, "mag", end="json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content, indent=8) + "\r\n\r\n", encoding="utf-8")
    return True


def sidecar_inherited_value(root: Path, label: str, rng: Random) -> bool:
    key = rng.choice(["EchoTime", "MagneticFieldStrength", "ImagingFrequency", "Units"])
    path = root / "bids" / f"sub-{label}" / f"sub-{label}_MEGRE.json"
    if rng.random() < 0.5:
        dump(path, {key: hostile_value(rng, 3.0)})
    else:
        path.write_bytes(broken_json(rng, {key: 3.0}))
    return False


# --- images ------------------------------------------------------------------------------------


def same_echoes(root: Path, label: str, rng: Random) -> bool:
    return rng.choice(fuzz_images.SAME)(some_echoes(root, label, rng), rng)


def wrong_echoes(root: Path, label: str, rng: Random) -> bool:
    return rng.choice(fuzz_images.WRONG)(some_echoes(root, label, rng), rng)


def same_regions(root: Path, label: str, rng: Random) -> bool:
    return rng.choice(fuzz_images.SAME)(_some_regions(root, label, rng), rng)


def wrong_regions(root: Path, label: str, rng: Random) -> bool:
    return rng.choice(fuzz_images.WRONG)(_some_regions(root, label, rng), rng)


def _some_regions(root: Path, label: str, rng: Random) -> list[Path]:
    images = sorted(regions(root, label).glob("*.nii.gz"))
    return rng.choice([images, images[:1], images[1:]])


def swapped_echoes(root: Path, label: str, rng: Random) -> bool:
    """Files of two echoes, or magnitude and phase, bear each other's names."""
    images = echoes(root, label)
    first, second = rng.sample(images, 2)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    return False


def swapped_pairs(root: Path, label: str, rng: Random) -> bool:
    a, b = rng.sample("123", 2)
    for part in ("mag", "phase"):
        (first,), (second,) = (echoes(root, label, part, echo) for echo in (a, b))
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    return False


def joined_same(root: Path, label: str, rng: Random) -> bool:
    """All echoes in one file a part, with a list of echo times."""
    tiny.join_echoes(anat(root, label), rng.choice(["MEGRE", "T2starw"]))
    if rng.random() < 0.5:
        paths = sorted(anat(root, label).glob("*.nii.gz"))
        rng.choice([fuzz_images.big_endian, fuzz_images.float64, fuzz_images.uncompressed])(
            paths, rng
        )
    return True


def joined_wrong(root: Path, label: str, rng: Random) -> bool:
    """The same, and something is wrong with the list or with the volumes."""
    folder = tiny.join_echoes(anat(root, label))
    part = rng.choice(["mag", "phase"])
    image, sidecar = (next(folder.glob(f"*part-{part}*.{end}")) for end in ("nii.gz", "json"))
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    times = content["EchoTime"]
    kind = rng.choice(["times", "volumes", "order", "named", "header"])
    if kind == "times":
        lists = [times[:2], [*times, 0.02], times[0], times[::-1], [], [times], str(times)]
        lists += [[1000 * t for t in times], [None, *times[1:]], [*times[:2], "0.015"], None]
        content["EchoTime"] = rng.choice(lists)
        if content["EchoTime"] is None:
            # Those of the other part are enough.
            dump(sidecar, content)
            return True
        dump(sidecar, content)
    elif kind == "volumes":
        kept = rng.choice([[0, 1], [0], [0, 1, 2, 2], [0, 0, 0]])
        fuzz_images.rewrite(image, lambda a: a[..., kept])
    elif kind == "order":
        order = rng.choice([[1, 0, 2], [2, 1, 0], [0, 2, 1]])
        fuzz_images.rewrite(image, lambda a: a[..., order])
    elif kind == "named":
        for path in (image, sidecar):
            path.rename(path.with_name(path.name.replace("_part-", "_echo-1_part-")))
    else:
        fuzz_images.header_field([image], rng)
    return False


def odd_labels(root: Path, label: str, rng: Random) -> bool:
    """Label values that are no labels, or too large."""
    path = regions(root, label) / f"sub-{label}_dseg.nii.gz"
    add = rng.choice([0.5, 0.001, 2.0**31, 2.0**40, -2.0, 255, 1e300])
    fuzz_images.rewrite(path, lambda a: np.where(a > 0, a + add, 0).astype(np.float64))
    # Other labels under the same names would be no mistake.
    if rng.random() < 0.5 and add not in (2.0, -2.0, 255):
        table = path.with_name(f"sub-{label}_dseg.tsv")
        rows = [f"{k + add:.17g}\tregion{k}" for k in (1, 2, 3)]
        table.write_text("index\tname\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return False


def odd_mask(root: Path, label: str, rng: Random) -> bool:
    path = regions(root, label) / f"sub-{label}_desc-brain_mask.nii.gz"
    centre = (slice(9, 12), slice(11, 14), slice(9, 12))

    def one(array):
        array = np.zeros_like(array)
        array[11, 12, 10] = 1
        return array

    def few(array):
        array = np.zeros_like(array)
        array[centre] = 1
        return array

    kinds = [
        one,
        few,
        lambda a: np.ones_like(a),
        lambda a: 1 - a,
        lambda a: a * 0.3 + 0.1,
        lambda a: a.astype(np.float32) * np.linspace(0.01, 1, a.shape[0])[:, None, None],
        lambda a: a.astype(np.int16) * 7 - 3,
        lambda a: np.random.default_rng(1).integers(0, 2, a.shape, dtype=np.uint8),
    ]
    fuzz_images.rewrite(path, rng.choice(kinds))
    return False


# --- tables ------------------------------------------------------------------------------------


def label_table(root: Path, label: str, rng: Random) -> bool:
    path = regions(root, label) / f"sub-{label}_dseg.tsv"
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.3:
        lines = text.splitlines()
        sides = ["hemisphere", rng.choice(["L", "R", "x", ""]), "n/a", rng.choice(["", "3"])]
        text = "".join(f"{a}\t{b}\n" for a, b in zip(lines, sides, strict=True))
    path.write_bytes(broken_table(rng, text))
    return False


def label_table_same(root: Path, label: str, rng: Random) -> bool:
    path = regions(root, label) / f"sub-{label}_dseg.tsv"
    content = path.read_bytes()
    lines = content.decode().splitlines()
    content = rng.choice(
        [
            content.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + content,
            content + b"\n\n",
            "".join(f"{line}\tx{k}\n" for k, line in enumerate(lines)).encode(),
            "".join("\t".join(reversed(line.split("\t"))) + "\n" for line in lines).encode(),
            content + b"0\tbackground\n",
            content + b"77\tnowhere\n",
        ]
    )
    if len(set(content.splitlines()[0].split(b"\t"))) < 2 or b"name\t1" in content[:12]:
        content = path.read_bytes()
    path.write_bytes(content)
    return True


# --- files and names ---------------------------------------------------------------------------


def files(root: Path, label: str, rng: Random) -> bool:
    path = rng.choice(sorted([*anat(root, label).iterdir(), *regions(root, label).iterdir()]))
    kind = rng.choice(["gone", "empty", "folder", "fifo", "dangling", "loop", "device", "twice"])
    if kind == "twice":
        stem = path.name.partition(".")[0]
        other = path.with_name(path.name.replace(stem.split("_")[1], "echo-01", 1))
        shutil.copy(path, other)
        return False
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    return False


def names(root: Path, label: str, rng: Random) -> bool:
    """Entities that BIDS does not allow, in the names of all echoes."""
    odd = rng.choice(
        ["acq-..", "acq-a b", "acq-a+b", "acq-é", "acq-²", "run-²", "run-x", "run-01", "acq-<qx>"]
        + ["acq-$(id)", "acq-'", "acq--", "acq-", "ce-gd", "rec-x", "dir-AP", "space-MNI", "acq"]
        + [
            "acq-a\n",
            "acq-{x}",
            "acq-%s",
            "acq-" + "a" * 150,
            "inv-1",
            "run-" + "9" * 100,
            "echo-²",
        ]
    )
    for path in sorted(anat(root, label).iterdir()):
        path.rename(path.with_name(path.name.replace("_echo-", f"_{odd}_echo-", 1)))
    return False


def extra_files(root: Path, label: str, rng: Random) -> bool:
    """Things that lie about in folders."""
    folder = anat(root, label)
    name = rng.choice(
        [
            f"sub-{label}_task-x_bold.nii.gz",
            f"sub-{label}_MEGRE.tsv",
            ".DS_Store",
            "._sub-x_echo-1_part-mag_MEGRE.nii.gz",
            f"sub-{label}_echo-1_part-mag_MEGRE.nii.gz.tmp",
            f"sub-{label}_part-mag_MEGRE.bval",
            "MEGRE.nii.gz",
            "sub_MEGRE.txt",
            "con.nii.gz",
        ]
    )
    (folder / name).write_bytes(rng.randbytes(rng.choice([0, 100])))
    (folder / f"sub-{label}_up.json").symlink_to("..")
    (folder / "loop").symlink_to("..")
    return True


#: Mutations of one participant, by the family they are counted in.
FAMILIES: dict[str, tuple[Mutation, ...]] = {
    "sidecars": (
        sidecar_value,
        sidecar_value,
        sidecar_factor,
        sidecar_text,
        sidecar_extra,
        sidecar_inherited,
        sidecar_inherited_value,
    ),
    "images": (same_echoes, wrong_echoes, wrong_echoes, wrong_echoes, wrong_echoes),
    "joined": (joined_same, joined_wrong, joined_wrong),
    "mixed up": (swapped_echoes, swapped_pairs),
    "labels and masks": (same_regions, wrong_regions, wrong_regions, odd_labels, odd_mask),
    "label tables": (label_table, label_table, label_table, label_table_same),
    "files and names": (files, files, names, extra_files),
}
